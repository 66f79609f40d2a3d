//! Index entries say what the visible rows say, whichever frame changed them.

use std::collections::BTreeSet;
use std::sync::Arc;

use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Epoch, IndexName, Key, TableName, WorkspaceName};
use lastword_core::op::{Action, Batch, Op, TombstoneRef};
use lastword_core::protocol::{Decided, Entry, Role};
use lastword_core::row::Row;
use lastword_core::stamp::{Decision, Mark, RefusalCode, Superseded, Verdict};
use lastword_core::value::{Record, Value};
use lastword_store::apply::ApplyPayload;
use lastword_store::index::{IndexDef, Indexes};
use lastword_store::keys::{self, INDEX, PENDING, ROWS, StoredRow, WorkspaceMeta};
use lastword_store::payload::{
    Carried, DeadLetters, Identity, LocalBatch, Payload, Purge, PurgePart, RemotePage, Reset,
    StoreRole, Verdicts,
};
use lastword_store::read::{self, visit_range};
use lastword_store::{MemoryDisk, Options, Store, View};
use proptest::prelude::*;

const DEVICE: DeviceId = DeviceId([7; 16]);

/// What happens to a device.
#[derive(Debug, Clone)]
enum Step {
    /// It writes one op to a synced and one to a local table.
    Write { record: u8, action: u8, value: u8 },
    /// A page comes; `deleted` rows are tombstones.
    Page { rows: Vec<(u8, u8, bool)>, consistent: bool },
    /// The oldest undecided batch is accepted.
    Accept { applied: bool },
    /// The oldest undecided batch is refused.
    Refuse,
    /// Everything is taken anew, maybe of another history.
    Reset { other: bool },
    /// The rows of the local table come into the new copy.
    Carry,
    /// It goes on as another device.
    Fork { id: u8 },
    /// Rows of a copy that is over go.
    Purge,
}

fn any_step() -> impl Strategy<Value = Step> {
    let rows = prop::collection::vec((0..4_u8, 0..6_u8, any::<bool>()), 0..4);
    prop_oneof![
        4 => (0..4_u8, 0..5_u8, 0..6_u8)
            .prop_map(|(record, action, value)| Step::Write { record, action, value }),
        3 => (rows, any::<bool>())
            .prop_map(|(rows, consistent)| Step::Page { rows, consistent }),
        2 => any::<bool>().prop_map(|applied| Step::Accept { applied }),
        1 => Just(Step::Refuse),
        1 => any::<bool>().prop_map(|other| Step::Reset { other }),
        1 => Just(Step::Carry),
        1 => (20..30_u8).prop_map(|id| Step::Fork { id }),
        1 => Just(Step::Purge),
    ]
}

fn workspace() -> WorkspaceName {
    WorkspaceName::new("w").unwrap()
}

fn table(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

fn key(record: u8) -> Key {
    Key::new(&format!("k{record}")).unwrap()
}

/// Indexed, missing, and without an order.
fn record(value: u8) -> Record {
    let field = match value {
        0 => return Record::default(),
        1 => Value::List(vec![]),
        2 => Value::Text("\0".into()),
        other => Value::Int(i64::from(other)),
    };
    Record::new(&[("a".into(), field)]).unwrap()
}

fn indexes(of: &[&str]) -> Indexes {
    let mut indexes = Indexes::default();
    for name in of {
        let (table, name) = (table(name), IndexName::new("by_a").unwrap());
        indexes.insert(IndexDef { table, name, fields: vec!["a".into()] });
    }
    indexes
}

fn open(disk: &Arc<MemoryDisk>, indexes: &Indexes) -> (Store, bool) {
    let apply = Arc::new(ApplyPayload::new(indexes.clone()));
    let (store, report) = Store::open(disk.clone(), Options::default(), apply).unwrap();
    (store, report.rebuilt_state)
}

fn append(store: &mut Store, payload: &Payload) {
    store.append(payload.kind(), &payload.to_bytes()).unwrap();
}

fn op(table_name: &str, record_key: u8, action: u8, value: u8) -> Op {
    let action = match action {
        0 => Action::Create { record: record(value), replace: false },
        1 => Action::Put { record: record(value) },
        2 => Action::Patch { set: record(value).fields().to_vec(), remove: Vec::new() },
        3 => Action::Delete,
        _ => Action::Undelete { tombstone: TombstoneRef::Seq(u64::from(value)) },
    };
    let (table, key) = (table(table_name), key(record_key));
    Op { table, key, base: u64::MAX, revision: 1, hlc: Hlc::default(), action }
}

fn take(store: &mut Store, step: &Step) {
    let meta = read::meta(store.newest(), &workspace()).unwrap();
    let reset = read::reset(store.newest(), &workspace()).unwrap();
    let received_to = reset.map_or(meta.received_to, |reset| reset.received_to);
    let undecided = read::outbox(store.newest(), &workspace(), 0, usize::MAX).unwrap();
    let mut undecided = undecided.into_iter().filter(|(_, entry)| entry.settled.is_none());
    match step {
        Step::Write { record, action, value } => {
            let counter = meta.written + 1;
            let batch = Batch {
                device: DEVICE,
                counter,
                batch_id: BatchId(
                    store.next_position().to_be_bytes().repeat(2)[..16].try_into().unwrap(),
                ),
                created_ms: 1,
                strict: false,
                former: Vec::new(),
                ops: vec![op("synced", *record, *action, *value)],
            };
            let local = vec![op("local", *record, *action, *value)];
            let (workspace, batch) = (workspace(), Some(batch));
            let (generation, key) = (meta.generation, key(*record));
            let shown = |name| {
                let row_key = keys::row_key(&self::workspace(), generation, &table(name), &key);
                let row = read::row(store.newest(), &row_key).unwrap();
                row.map_or(0, |row| row.position)
            };
            let previous = vec![shown("synced"), shown("local")];
            append(store, &Payload::Local(LocalBatch { workspace, batch, local, previous }));
        }
        Step::Page { rows, consistent } => {
            let seqs = received_to + 1..;
            let entries: Vec<Entry> = rows.iter().zip(seqs).map(received).collect();
            let to = received_to.max(meta.head) + entries.len() as u64;
            let position = |entry: &Entry| {
                let Entry::Row { table, key, .. } = entry;
                let row_key = keys::row_key(&workspace(), meta.generation, table, key);
                read::row(store.newest(), &row_key).unwrap().map_or(0, |row| row.position)
            };
            let previous = entries.iter().map(position).collect();
            let consistent_at = consistent.then_some(to);
            let (workspace, from) = (workspace(), received_to);
            let page =
                RemotePage { workspace, from, to, consistent_at, entries, previous, walk: None };
            append(store, &Payload::Remote(page));
        }
        Step::Accept { applied } => {
            let Some((counter, entry)) = undecided.next() else { return };
            let verdict = match applied {
                true => Verdict::Applied { dropped: Vec::new() },
                false => Verdict::Superseded { by: 1, reason: Superseded::Stale },
            };
            let (first_seq, last_seq) = (meta.head + 1, meta.head + 1);
            let verdicts = vec![verdict];
            let decision = Decision::Accepted { first_seq, last_seq, time_ms: 2, verdicts };
            let decisions = vec![Decided { counter, batch_id: entry.batch_id, decision }];
            append(store, &Payload::Verdicts(Verdicts { workspace: workspace(), decisions }));
        }
        Step::Refuse => refuse(store, undecided.collect()),
        anew => take_anew(store, anew, &meta),
    }
}

/// Steps of a device that takes its workspace anew, or goes on as another.
fn take_anew(store: &mut Store, step: &Step, meta: &WorkspaceMeta) {
    let payload = match step {
        Step::Reset { other } => Payload::Reset(Reset {
            workspace: workspace(),
            epoch: Epoch([u8::from(*other); 16]),
            role: Role::Owner,
            horizon: 1,
            lineage: vec![(meta.head / 2, meta.head)],
            other_history: other.then_some(meta.decided / 2),
        }),
        Step::Carry => {
            let records = (0..4).map(|record| (table("local"), key(record))).collect();
            Payload::Carried(Carried { workspace: workspace(), records })
        }
        Step::Fork { id } => {
            let (role, device) = (StoreRole::Replica, DeviceId([*id; 16]));
            Payload::Fork(Identity { role, device, former: vec![DEVICE], created_ms: 0 })
        }
        _ => {
            let left = read::left_generation(store.newest(), &workspace()).unwrap();
            let Some(generation) = left else { return };
            let part = PurgePart::Generation { generation };
            Payload::Purge(Purge { workspace: workspace(), part })
        }
    };
    append(store, &payload);
}

/// Undecided counters are contiguous, own ops lie under the visible copy only, and each has its
/// batch.
fn assert_outbox_is_whole(store: &Store) {
    let meta = read::meta(store.newest(), &workspace()).unwrap();
    let entries = read::outbox(store.newest(), &workspace(), 0, usize::MAX).unwrap();
    let undecided = entries.iter().filter(|(_, entry)| entry.settled.is_none());
    let counters: Vec<u64> = undecided.map(|(counter, _)| *counter).collect();
    let expected: Vec<u64> = (meta.decided + 1..=meta.written).collect();
    assert_eq!(counters, expected);
    assert!(entries.iter().all(|(counter, _)| *counter > meta.gone));
    let mut pending = 0;
    visit_range(store.newest(), PENDING, &[0], &[255], &mut |_, _| {
        pending += 1;
        Ok(true)
    })
    .unwrap();
    assert_eq!(pending, entries.len(), "each batch has one op");
    for (counter, entry) in &entries {
        for (table, key) in &entry.records {
            let row_key = keys::row_key(&workspace(), meta.generation, table, key);
            let own = read::pending(store.newest(), &row_key).unwrap();
            assert!(own.iter().any(|own| own.counter == *counter), "batch {counter} has its op");
            assert!(read::has_shadow(store.newest(), &row_key).unwrap());
        }
    }
}

fn received(((record_key, value, deleted), seq): (&(u8, u8, bool), u64)) -> Entry {
    let mark = Mark { seq, writer: DeviceId([9; 16]) };
    let row = Row {
        deleted: *deleted,
        last: mark,
        time_ms: 1,
        born: mark,
        full: mark,
        fields: Vec::new(),
        set_at: 0,
        revision: 1,
        hlc: Hlc::default(),
        op_id: BatchId([1; 16]),
        record: record(*value),
    };
    Entry::Row { table: table("synced"), key: key(*record_key), row }
}

/// The oldest batch and those on the same record leave, the others close up.
fn refuse(store: &mut Store, undecided: Vec<(u64, keys::OutboxEntry)>) {
    let Some((first, entry)) = undecided.first() else { return };
    let decision =
        Decision::Refused { code: RefusalCode::Policy, message: "no".into(), time_ms: 2 };
    let refused = Decided { counter: *first, batch_id: entry.batch_id, decision };
    let (mut counters, mut renumbered, mut next) = (Vec::new(), Vec::new(), first + 1);
    for (counter, other) in &undecided {
        if other.records == entry.records {
            counters.push(*counter);
            continue;
        }
        if *counter != next {
            renumbered.push((*counter, next));
        }
        next += 1;
    }
    let rows = vec![op("_dead_letters", 0, 0, 3)];
    let workspace = workspace();
    append(
        store,
        &Payload::DeadLetters(DeadLetters { workspace, refused, counters, renumbered, rows }),
    );
}

/// The entries that the rows call for, computed without the code that keeps them.
fn expected(view: &View, of: &Indexes) -> BTreeSet<Vec<u8>> {
    let mut entries = BTreeSet::new();
    visit_range(view, ROWS, &[0], &[255], &mut |row_key, value| {
        let stored: StoredRow = lastword_core::codec::from_bytes(value).unwrap();
        let (prefix, table, key) = keys::cut_row_key(row_key).unwrap();
        let index = of.of(table).next().filter(|_| !stored.row.deleted);
        if let Some(values) = index.and_then(|index| index.values_of(&stored.row.record).ok()?) {
            entries.insert([prefix, b"by_a\0", &values, key].concat());
        }
        Ok(true)
    })
    .unwrap();
    entries
}

fn found(view: &View) -> BTreeSet<Vec<u8>> {
    let mut entries = BTreeSet::new();
    visit_range(view, INDEX, &[0], &[255], &mut |entry, value| {
        assert!(value.is_empty());
        entries.insert(entry.to_vec());
        Ok(true)
    })
    .unwrap();
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// I13: after every frame, be it an own write, a page (staged, consistent or of the first
    /// copy), a verdict, a refusal, a reset or a fork, the entries are those that the rows call
    /// for; and an index that is declared later, over own ops under way and rows of others, has the
    /// same ones.
    #[test]
    fn indexes_are_equal_to_recomputed_indexes(steps in prop::collection::vec(any_step(), 1..40)) {
        let disk = Arc::new(MemoryDisk::new(1 << 20));
        let both = indexes(&["synced", "local", "_dead_letters"]);
        let (mut store, _) = open(&disk, &both);
        let identity =
            Identity { role: StoreRole::Replica, device: DEVICE, former: vec![], created_ms: 0 };
        append(&mut store, &Payload::Identity(identity));
        for (done, step) in steps.iter().enumerate() {
            take(&mut store, step);
            prop_assert_eq!(found(store.newest()), expected(store.newest(), &both));
            assert_outbox_is_whole(&store);
            if done == steps.len() / 2 {
                store.commit().unwrap();
                store.checkpoint().unwrap();
            }
        }
        let entries = found(store.newest());
        store.close().unwrap();

        let one = indexes(&["local"]);
        for (indexes, rebuilt) in [(&both, false), (&one, true), (&one, false), (&both, true)] {
            let (store, found_rebuilt) = open(&disk, indexes);
            prop_assert_eq!(found_rebuilt, rebuilt);
            prop_assert_eq!(found(store.newest()), expected(store.newest(), indexes));
            store.close().unwrap();
        }
        let (store, _) = open(&disk, &both);
        prop_assert_eq!(found(store.newest()), entries);
    }
}
