//! What nobody may ask for any more goes, and nothing else does.

use std::sync::Arc;

use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::limits::HISTORY_WINDOW_MS;
use lastword_core::op::{Action, Batch, Op, TombstoneRef};
use lastword_core::protocol::{Entry, Role};
use lastword_core::rules::{self, At, CONFLICTS_TABLE, Policy, Writer};
use lastword_core::stamp::{Decision, Verdict};
use lastword_core::value::{Record, Value};
use lastword_store::apply::ApplyPayload;
use lastword_store::keys::{self, BY_COUNTER, BY_SEQ, DECISIONS, EXPIRING, GRAVES, ROWS};
use lastword_store::payload::{
    Attachment, DecidedBatch, Identity, LocalBatch, Payload, RemotePage, Reset, StoreRole, Verdicts,
};
use lastword_store::purge::{Found, MAX_PURGE_ENTRIES, PurgeWalk, Retention};
use lastword_store::read;
use lastword_store::{Disk, MemoryDisk, Options, Space, Store, StoreError};

const DAY: i64 = 24 * 3600 * 1000;
const DEVICE: DeviceId = DeviceId([7; 16]);

fn workspace() -> WorkspaceName {
    WorkspaceName::new("w").unwrap()
}

fn op(table: &str, key: &str, action: Action) -> Op {
    let (table, key) = (TableName::new(table).unwrap(), Key::new(key).unwrap());
    Op { table, key, base: u64::MAX, revision: 1, hlc: Hlc::default(), action }
}

fn value(name: &str, value: i64) -> Record {
    Record::new(&[(name.into(), Value::Int(value))]).unwrap()
}

fn create(key: &str) -> Op {
    op("notes", key, Action::Create { record: value("n", 1), replace: false })
}

fn put(key: &str, n: i64) -> Op {
    op("notes", key, Action::Put { record: value("n", n) })
}

fn delete(key: &str) -> Op {
    op("notes", key, Action::Delete)
}

fn at() -> At {
    At { seq: u64::MAX, time_ms: 0, op_id: BatchId::default() }
}

/// One store with what a test needs of it.
struct Part {
    disk: Arc<MemoryDisk>,
    store: Store,
}

impl Part {
    fn new(role: StoreRole) -> Self {
        let disk = Arc::new(MemoryDisk::new(1 << 16));
        let store = open(&disk, false);
        let device = if role == StoreRole::Replica { DEVICE } else { DeviceId::AUTHORITY };
        let mut part = Part { disk, store };
        let identity = Identity { role, device, former: Vec::new(), created_ms: 0 };
        part.append(&Payload::Identity(identity));
        part
    }

    fn authority() -> Self {
        let mut part = Self::new(StoreRole::Authority);
        let (epoch, role) = (Epoch([1; 16]), Role::Owner);
        let workspace = workspace();
        part.append(&Payload::Attachment(Attachment { workspace, epoch, role, horizon: 0 }));
        part
    }

    fn append(&mut self, payload: &Payload) {
        self.store.append_urgent(payload.kind(), &payload.to_bytes()).unwrap();
        self.store.commit().unwrap();
    }

    /// A batch of `device`, decided by the rules, with the authority's own `own`.
    fn decide(&mut self, device: u8, time_ms: i64, ops: Vec<Op>, own: Vec<Op>) -> u64 {
        let meta = read::meta(self.store.newest(), &workspace()).unwrap();
        let device = DeviceId([device; 16]);
        let counter = read::last_counter(self.store.newest(), &workspace(), device).unwrap() + 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.store.next_position().to_be_bytes());
        let (first_seq, last_seq) = (meta.head + 1, meta.head + (ops.len() + own.len()) as u64);
        let writer = Writer { device, former: &[], strict: false };
        let decide = |op: &Op| {
            let row_key = keys::row_key(&workspace(), 0, &op.table, &op.key);
            let stored = read::row(self.store.newest(), &row_key).unwrap();
            let (row, at) = (stored.as_ref().map(|stored| &stored.row), At { time_ms, ..at() });
            rules::decide(row, op, &writer, &at, Policy::Arrival.into()).unwrap().verdict
        };
        let verdicts = ops.iter().map(decide).collect();
        let names = ops.iter().chain(&own).map(|op| (&op.table, &op.key));
        let previous = self.previous(names);
        let batch = Batch {
            device,
            counter,
            batch_id: BatchId(id),
            created_ms: time_ms,
            strict: false,
            former: Vec::new(),
            ops,
        };
        self.append(&Payload::Decided(DecidedBatch {
            workspace: workspace(),
            payload_hash: batch.payload_hash(),
            batch,
            decision: Decision::Accepted { first_seq, last_seq, time_ms, verdicts },
            own,
            previous,
            values: Vec::new(),
        }));
        last_seq
    }

    /// Takes over what the authority has that this replica has not.
    fn follow(&mut self, authority: &Part) {
        let theirs = read::meta(authority.store.newest(), &workspace()).unwrap();
        let (epoch, role) = (Epoch([1; 16]), Role::Owner);
        let (workspace, horizon) = (workspace(), theirs.horizon);
        let attachment = Attachment { workspace: workspace.clone(), epoch, role, horizon };
        self.append(&Payload::Attachment(attachment));
        let from = read::meta(self.store.newest(), &workspace).unwrap().received_to;
        let page = read::changes(authority.store.newest(), &workspace, from, "ann").unwrap();
        let (to, consistent_at, entries) = (page.to, page.consistent_at, page.entries);
        let previous =
            self.previous(entries.iter().map(|Entry::Row { table, key, .. }| (table, key)));
        let page = RemotePage { workspace, from, to, consistent_at, entries, previous, walk: None };
        self.append(&Payload::Remote(page));
    }

    /// Where the newest frame of each record is.
    fn previous<'a>(&self, of: impl Iterator<Item = (&'a TableName, &'a Key)>) -> Vec<u64> {
        let position = |(table, key)| {
            let row_key = keys::row_key(&workspace(), 0, table, key);
            read::row(self.store.newest(), &row_key).unwrap().map_or(0, |stored| stored.position)
        };
        of.map(position).collect()
    }

    /// Walks to the end and does what the walk names; how many purges that were.
    fn purge(&mut self, retention: Retention) -> usize {
        let mut walk = PurgeWalk::new(workspace());
        let mut purges = 0;
        loop {
            match walk.next(self.store.newest(), &retention).unwrap() {
                Found::Purge(purge) => self.append(&Payload::Purge(purge)),
                Found::More => continue,
                Found::End => return purges,
            }
            purges += 1;
        }
    }

    fn rows(&self, space: Space) -> Vec<read::Pair> {
        let range = lastword_store::KeyRange::all();
        let scan = self.store.newest().scan(space, &range, lastword_store::Direction::Forward);
        scan.unwrap().map(|row| row.map(|(key, value)| (key.to_vec(), value)).unwrap()).collect()
    }

    fn row(&self, key: &str) -> Option<keys::StoredRow> {
        let (table, key) = (TableName::new("notes").unwrap(), Key::new(key).unwrap());
        let row_key = keys::row_key(&workspace(), 0, &table, &key);
        read::row(self.store.newest(), &row_key).unwrap()
    }

    fn meta(&self) -> keys::WorkspaceMeta {
        read::meta(self.store.newest(), &workspace()).unwrap()
    }

    /// Every space, to compare a state with its fold from the log.
    fn everything(&self) -> Vec<Vec<read::Pair>> {
        (0..=EXPIRING.number()).map(|space| self.rows(Space::new(space))).collect()
    }

    /// Closes the store and folds its state from the log again.
    fn again(self) -> Self {
        let expected = self.everything();
        self.store.close().unwrap();
        let part = Part { store: open(&self.disk, true), disk: self.disk };
        assert_eq!(part.everything(), expected, "the log folds to another state");
        part
    }
}

fn open(disk: &Arc<MemoryDisk>, rebuild_state: bool) -> Store {
    let options = Options { rebuild_state, segment_size: 1 << 16, ..Options::default() };
    let disk: Arc<dyn Disk> = disk.clone();
    Store::open(disk, options, Arc::new(ApplyPayload::default())).unwrap().0
}

fn after(days: i64) -> Retention {
    let (now_ms, tombstones_ms, decisions_ms) = (days * DAY, 400 * DAY, 30 * DAY);
    Retention { now_ms, tombstones_ms, decisions_ms, stale: true }
}

/// I16. The story: a reset began between two steps of a walk, a page brought a tombstone into the
/// new copy, and its server forgot it. The walk went on and took the entry by which tombstones are
/// found, and the row of the old copy; that of the new one stayed for ever.
#[test]
fn a_walk_ends_when_a_new_copy_begins() {
    let mut authority = Part::authority();
    let mut replica = Part::new(StoreRole::Replica);
    authority.decide(1, 0, vec![create("a"), create("b")], vec![]);
    authority.decide(1, DAY, vec![delete("a")], vec![]);
    replica.follow(&authority);
    let mut walk = PurgeWalk::new(workspace());
    assert_eq!(walk.next(replica.store.newest(), &after(0)).unwrap(), Found::More);

    let page = read::changes(authority.store.newest(), &workspace(), 0, "ann").unwrap();
    let (epoch, role, lineage, other_history) = (Epoch([1; 16]), Role::Owner, Vec::new(), None);
    let begin = Reset { workspace: workspace(), epoch, role, horizon: 0, lineage, other_history };
    replica.append(&Payload::Reset(begin));
    let (to, previous) = (page.to, vec![0; page.entries.len()]);
    let half = RemotePage {
        workspace: workspace(),
        from: 0,
        to,
        consistent_at: None,
        entries: page.entries,
        previous,
        walk: None,
    };
    replica.append(&Payload::Remote(half));
    authority.purge(after(402));
    let horizon = authority.meta().horizon;
    assert_ne!(horizon, 0);
    let told = Attachment { workspace: workspace(), epoch, role, horizon };
    replica.append(&Payload::Attachment(told));
    loop {
        match walk.next(replica.store.newest(), &after(0)).unwrap() {
            Found::Purge(purge) => replica.append(&Payload::Purge(purge)),
            Found::More => {}
            Found::End => break,
        }
    }
    let (consistent_at, entries, previous) = (Some(to), Vec::new(), Vec::new());
    let last = RemotePage {
        workspace: workspace(),
        from: to,
        to,
        consistent_at,
        entries,
        previous,
        walk: None,
    };
    replica.append(&Payload::Remote(last));
    replica.purge(after(0));
    let replica = replica.again();
    assert_eq!(replica.meta().generation, 1);
    assert_eq!(replica.meta().digest, authority.meta().digest);
}

/// I20. A page that is not the end of a catch-up moves no cursor: its rows wait for their end.
#[test]
fn the_cursor_waits_for_the_end_of_a_catch_up() {
    let mut authority = Part::authority();
    let mut replica = Part::new(StoreRole::Replica);
    authority.decide(1, 0, vec![create("a")], vec![]);
    replica.follow(&authority);
    let cursor = replica.meta().cursor;
    authority.decide(1, 0, vec![create("b")], vec![]);
    let page = read::changes(authority.store.newest(), &workspace(), cursor, "ann").unwrap();
    let (entries, to, from) = (page.entries, page.to, cursor);
    let (workspace, previous, consistent_at) = (workspace(), vec![0; entries.len()], None);
    let half = RemotePage { workspace, from, to, consistent_at, entries, previous, walk: None };
    replica.append(&Payload::Remote(half));
    assert_eq!((replica.meta().cursor, replica.meta().received_to), (cursor, to));
}

/// R7.4, B7. Tombstones older than the retention go and the horizon moves to the last of them;
/// younger ones and records that live again stay, and the log folds to the same state. A replica
/// that is told of the horizon forgets the same ones: its sums are the authority's.
#[test]
fn old_tombstones_go_with_the_horizon_on_both_sides() {
    let mut authority = Part::authority();
    let mut replica = Part::new(StoreRole::Replica);
    authority.decide(1, 0, vec![create("a"), create("b"), create("c"), create("live")], vec![]);
    let old = authority.decide(1, DAY, vec![delete("a"), delete("b")], vec![]);
    authority.decide(1, 2 * DAY, vec![create("b")], vec![]);
    authority.decide(1, 100 * DAY, vec![delete("c")], vec![]);
    replica.follow(&authority);

    assert_eq!(authority.purge(Retention { stale: false, ..after(400) }), 1, "one device's");
    assert_eq!((authority.meta().horizon, authority.rows(GRAVES).len()), (0, 3));
    let before = authority.meta();
    authority.purge(Retention { stale: false, ..after(402) });
    let meta = authority.meta();
    assert!(authority.row("a").is_none() && authority.row("c").is_some_and(|c| c.row.deleted));
    assert!(authority.row("b").is_some_and(|b| !b.row.deleted));
    // The grave of b is of an earlier life and is no reason to send devices back to the start.
    assert_eq!((meta.horizon, meta.rows), (old - 1, before.rows));
    assert_ne!(meta.digest, before.digest);

    replica.follow(&authority);
    assert_eq!(replica.purge(after(0)), 1);
    assert!(replica.row("a").is_none() && replica.row("b").is_some());
    assert_eq!((replica.meta().rows, replica.meta().digest), (meta.rows, meta.digest));
    authority.again();
    replica.again();
}

/// B7. A replica forgot the tombstone that an own undelete stood on, and the record vanished until
/// the stream brought it back. It waits until no own op stands on it, whatever the server decides.
#[test]
fn a_tombstone_under_own_ops_is_forgotten_when_they_are_gone() {
    let mut authority = Part::authority();
    let mut replica = Part::new(StoreRole::Replica);
    authority.decide(1, 0, vec![create("a"), create("b")], vec![]);
    let graves = authority.decide(1, DAY, vec![delete("a"), delete("b")], vec![]);
    replica.follow(&authority);
    let undelete = Action::Undelete { tombstone: TombstoneRef::Seq(graves - 1) };
    let ops = vec![op("notes", "a", undelete), create("b")];
    let batch = Batch {
        device: DEVICE,
        counter: 1,
        batch_id: BatchId([3; 16]),
        created_ms: 2 * DAY,
        strict: false,
        former: Vec::new(),
        ops: ops.clone(),
    };
    let previous = ["a", "b"].map(|key| replica.row(key).map_or(0, |row| row.position)).to_vec();
    let workspace = workspace();
    let local = LocalBatch { workspace, batch: Some(batch), local: Vec::new(), previous };
    replica.append(&Payload::Local(local));
    authority.purge(after(402));
    replica.follow(&authority);
    assert_eq!(replica.purge(after(0)), 0);
    assert!(["a", "b"].iter().all(|key| replica.row(key).is_some_and(|row| !row.row.deleted)));

    authority.decide(7, 402 * DAY, ops, vec![]);
    let read = |after| {
        read::decisions_after(authority.store.newest(), &self::workspace(), DEVICE, after, 9)
    };
    let mut decisions = read(0).unwrap();
    decisions.iter_mut().for_each(|decided| decided.batch_id = BatchId([3; 16]));
    replica.append(&Payload::Verdicts(Verdicts { workspace: self::workspace(), decisions }));
    replica.follow(&authority);
    assert_eq!(replica.purge(after(0)), 1);
    assert!(replica.row("a").is_none() && replica.row("b").is_some_and(|b| !b.row.deleted));
    assert_eq!(replica.meta().digest, authority.meta().digest);
    replica.again();
}

/// R2.5, R7.4. Conflict rows end when they say so, on every replica by itself, and tombstones of
/// local tables after the history window; neither is in the sums.
#[test]
fn rows_that_expire_go_by_themselves() {
    let mut authority = Part::authority();
    let mut replica = Part::new(StoreRole::Replica);
    let conflict = |key: &str, days: i64| {
        let record = value("expires_ms", days * DAY);
        op(CONFLICTS_TABLE, key, Action::Create { record, replace: false })
    };
    let own = vec![conflict("early", 30), conflict("late", 40)];
    authority.decide(1, 0, vec![create("a")], own);
    replica.follow(&authority);
    let drafts = |action| op("drafts", "d", action);
    let draft = drafts(Action::Create { record: value("n", 1), replace: false });
    for op in [draft, drafts(Action::Delete)] {
        let previous = replica.previous([(&op.table, &op.key)].into_iter());
        let (workspace, batch, local) = (workspace(), None, vec![op]);
        replica.append(&Payload::Local(LocalBatch { workspace, batch, local, previous }));
    }
    assert_eq!((replica.rows(ROWS).len(), replica.rows(EXPIRING).len()), (4, 3));
    let digest = replica.meta().digest;

    let at = |now_ms| Retention { now_ms, stale: false, ..after(0) };
    assert_eq!(replica.purge(at(30 * DAY - 1)), 0);
    replica.purge(at(HISTORY_WINDOW_MS));
    authority.purge(at(30 * DAY));
    for part in [&replica, &authority] {
        assert_eq!(part.rows(ROWS).len(), 2, "the record and the later conflict");
        assert_eq!(part.rows(EXPIRING).len(), 1);
    }
    assert_eq!((replica.meta().digest, replica.meta().rows), (digest, 1));
    assert_eq!(authority.meta().digest, digest);
    authority.again();
    replica.again();
}

/// I19. Decisions are remembered for their window and no longer, but the newest of each device as
/// long as it can catch up: one whose acknowledgements were lost, and which was away for 40 days,
/// was taken for a copy. A device's last counter stays for ever.
#[test]
fn decisions_are_forgotten_after_their_window() {
    let mut authority = Part::authority();
    for number in 0..1100 {
        authority.decide(1, number / 100 * DAY, vec![put("a", number)], vec![]);
    }
    authority.decide(2, 39 * DAY, vec![put("b", 1)], vec![]);
    authority.purge(after(40));
    let remembered = |authority: &Part, device| {
        let device = DeviceId([device; 16]);
        let after = |after| {
            let newest = authority.store.newest();
            read::decisions_after(newest, &workspace(), device, after, 100).unwrap()
        };
        let last = read::last_counter(authority.store.newest(), &workspace(), device).unwrap();
        (after(0).iter().map(|decided| decided.counter).collect::<Vec<_>>(), last)
    };
    let all = |device| remembered(&authority, device);
    assert_eq!(all(1), ((77..=1100).take(100).collect(), 1100));
    assert_eq!(all(2), (vec![1], 1));
    authority.purge(after(405));
    assert_eq!(remembered(&authority, 1), ((601..=1100).take(100).collect(), 1100));
    assert_eq!(authority.rows(DECISIONS).len(), authority.rows(BY_COUNTER).len());
    authority.again();
}

/// R7.4. A record that is edited for ever left an entry in order of seq each time, so the state
/// grew with every write although the data did not.
#[test]
fn entries_of_earlier_versions_go() {
    let mut authority = Part::authority();
    let edits = 3 * MAX_PURGE_ENTRIES as i64 + 7;
    for n in 0..edits {
        let key = format!("k{}", n % 3);
        let op = match authority.row(&key) {
            Some(stored) if !stored.row.deleted && n % 5 == 4 => delete(&key),
            Some(stored) if !stored.row.deleted => put(&key, n),
            _ => create(&key),
        };
        authority.decide(1, n, vec![op], vec![]);
    }
    authority.store.checkpoint().unwrap();
    let pages =
        |part: &Part| read::changes(part.store.newest(), &workspace(), 0, "ann").unwrap().entries;
    let (head, expected) = (authority.meta().head, pages(&authority));
    let sums = authority.meta();
    authority.purge(after(0));
    assert_eq!(authority.rows(BY_SEQ).len(), 3);
    assert!(authority.rows(GRAVES).len() <= 3, "{} graves", authority.rows(GRAVES).len());
    assert_eq!((pages(&authority), authority.meta().head), (expected, head));
    assert_eq!(authority.meta(), sums);
    authority.again();
}

/// I9, R7.4. On a full disk a purge still goes through: it is what makes room.
#[test]
fn a_purge_works_on_a_full_disk() {
    let mut authority = Part::authority();
    authority.decide(1, 0, vec![create("a")], vec![]);
    authority.decide(1, DAY, vec![delete("a")], vec![]);
    authority.disk.set_room(Some(0));
    let filler = Payload::Decided(DecidedBatch {
        workspace: workspace(),
        batch: Batch {
            device: DeviceId([5; 16]),
            counter: 1,
            batch_id: BatchId([5; 16]),
            created_ms: 0,
            strict: false,
            former: Vec::new(),
            ops: vec![op("notes", "f", Action::Create { record: big(), replace: false })],
        },
        payload_hash: [0; 32],
        decision: Decision::Accepted {
            first_seq: 3,
            last_seq: 3,
            time_ms: 0,
            verdicts: vec![Verdict::Applied { dropped: Vec::new() }],
        },
        own: Vec::new(),
        previous: vec![0],
        values: Vec::new(),
    });
    let refused = loop {
        match authority.store.append(filler.kind(), &filler.to_bytes()) {
            Ok(_) => authority.store.commit().unwrap(),
            Err(error) => break error,
        };
    };
    assert!(matches!(refused, StoreError::NoSpace { .. }), "{refused}");
    authority.purge(after(500));
    assert!(authority.row("a").is_none());
    authority.disk.set_room(None);
    authority.again();
}

fn big() -> Record {
    Record::new(&[("n".into(), Value::Bytes(vec![7; 20_000]))]).unwrap()
}
