//! `docs/semantics.md` sections 1 to 3 once more, as naively as they can be said: one record is the
//! list of the writes that took effect, and every question is answered by going through it. The
//! product keeps marks instead; random schedules show that both say the same.

use std::collections::{BTreeMap, BTreeSet};

use lastword_core::codec::to_bytes;
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Key, TableName};
use lastword_core::op::{Action, Op, TombstoneRef};
use lastword_core::row::Row;
use lastword_core::rules::{
    At, Policy, TableRules, Writer, apply, conflict_key, conflict_record, decide,
};
use lastword_core::stamp::{Superseded, Verdict};
use lastword_core::value::{Field, Record, Value};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

type Fields = BTreeMap<String, i64>;

/// What one write did to the record.
#[derive(Debug, Clone)]
enum Effect {
    /// It began a life with this value.
    Begin(Fields),
    /// It replaced the whole value.
    Whole(Fields),
    /// It set (some) or removed (none) these fields.
    Some(BTreeMap<String, Option<i64>>),
    Delete,
    /// It brought the value of the last delete back.
    Back,
}

/// One write that took effect.
#[derive(Debug, Clone)]
struct Write {
    seq: u64,
    device: u8,
    batch: u8,
    tuple: (u64, u64, u8),
    effect: Effect,
}

/// One record as the list of what took effect; empty = never known or purged.
#[derive(Debug, Clone, Default)]
struct Model {
    writes: Vec<Write>,
}

/// Who lost and what, as a conflict must say it.
type Lost = (u8, u64, u64, BTreeSet<String>);

impl Model {
    fn last(&self) -> Option<&Write> {
        self.writes.last()
    }

    fn dead(&self) -> bool {
        matches!(self.last(), None | Some(Write { effect: Effect::Delete, .. }))
    }

    /// The live value, or the one that a tombstone keeps.
    fn kept(&self) -> Fields {
        let mut fields = Fields::new();
        for write in &self.writes {
            match &write.effect {
                Effect::Begin(value) | Effect::Whole(value) => fields = value.clone(),
                Effect::Some(changes) => {
                    for (name, value) in changes {
                        match value {
                            Some(value) => drop(fields.insert(name.clone(), *value)),
                            None => drop(fields.remove(name)),
                        }
                    }
                }
                Effect::Delete | Effect::Back => {}
            }
        }
        fields
    }

    fn value(&self) -> Fields {
        if self.dead() { Fields::new() } else { self.kept() }
    }

    fn is_whole(write: &Write) -> bool {
        matches!(write.effect, Effect::Begin(_) | Effect::Whole(_) | Effect::Back)
    }

    /// Who made a field what it is: the last write that named it or replaced the whole.
    fn author(&self, name: &str) -> Option<&Write> {
        self.writes.iter().rev().find(|write| match &write.effect {
            Effect::Some(changes) => changes.contains_key(name),
            _ => Self::is_whole(write),
        })
    }

    fn birth(&self) -> Option<&Write> {
        self.writes.iter().rev().find(|write| matches!(write.effect, Effect::Begin(_)))
    }

    /// Every stamp that the row keeps: its own, its birth, its last full write, and one per field
    /// changed since.
    fn stamps(&self) -> Vec<&Write> {
        let full = self.writes.iter().rposition(Self::is_whole).unwrap_or(0);
        let since = self.writes.get(full..).unwrap_or_default();
        let changed: BTreeSet<&String> = since
            .iter()
            .filter_map(|write| match &write.effect {
                Effect::Some(changes) => Some(changes.keys()),
                _ => None,
            })
            .flatten()
            .collect();
        let fields = changed.into_iter().filter_map(|name| self.author(name));
        let whole = [self.last(), self.birth(), self.writes.get(full)];
        whole.into_iter().flatten().chain(fields).collect()
    }
}

/// One op of the schedule, with who sends it.
#[derive(Debug, Clone)]
struct Sent {
    device: u8,
    /// The store's earlier device id, if it was forked.
    former: Option<u8>,
    strict: bool,
    base: u64,
    revision: u64,
    hlc: u64,
    batch: u8,
    wish: Wish,
}

#[derive(Debug, Clone)]
enum Wish {
    Create(Fields, bool),
    Put(Fields),
    Patch(BTreeMap<String, Option<i64>>),
    Delete,
    UndeleteSeq(u64),
    UndeleteBatch(u8),
}

/// What the model says to one op.
struct Said {
    verdict: Verdict,
    effect: Option<Effect>,
    lost: Vec<Lost>,
}

struct Judge<'a> {
    model: &'a Model,
    sent: &'a Sent,
    seq: u64,
    policy: Policy,
}

impl Judge<'_> {
    fn unseen(&self, write: &Write) -> bool {
        let own = write.device == self.sent.device || Some(write.device) == self.sent.former;
        write.seq > self.sent.base && !own
    }

    fn any_unseen(&self) -> bool {
        self.model.stamps().iter().any(|write| self.unseen(write))
    }

    fn said(&self) -> Said {
        if self.policy == Policy::Revision { self.by_tuple() } else { self.by_base() }
    }

    fn by_base(&self) -> Said {
        let (model, sent) = (self.model, self.sent);
        let known = !model.writes.is_empty();
        match &sent.wish {
            Wish::Create(value, replace) => match (known, model.dead()) {
                (true, _) if sent.strict => self.no(Superseded::Exists),
                (_, true) => self.yes(Effect::Begin(value.clone())),
                _ if !replace => self.no(Superseded::Exists),
                _ if self.any_unseen() => self.no(Superseded::Stale),
                _ => self.yes(Effect::Begin(value.clone())),
            },
            Wish::UndeleteSeq(seq) => self.back(|last| last.seq == *seq),
            Wish::UndeleteBatch(batch) => self.back(|last| last.batch == *batch),
            _ if model.dead() => self.no(Superseded::Dead),
            _ if model.birth().is_some_and(|birth| self.unseen(birth)) => {
                self.no(Superseded::EarlierLife)
            }
            Wish::Put(value) => self.whole(Effect::Whole(value.clone())),
            Wish::Delete => self.whole(Effect::Delete),
            Wish::Patch(changes) => self.patch(changes),
        }
    }

    fn back(&self, is_it: impl Fn(&Write) -> bool) -> Said {
        let current = self.model.dead() && self.model.last().is_some_and(is_it);
        match current {
            true => self.yes(Effect::Back),
            false if self.model.last().is_none() => self.no(Superseded::ValueGone),
            false => self.no(Superseded::NotThatTombstone),
        }
    }

    fn whole(&self, effect: Effect) -> Said {
        let may_not = self.sent.strict || self.policy == Policy::ServerWins;
        match self.any_unseen() && may_not {
            true => self.no(Superseded::Stale),
            false => self.yes(effect),
        }
    }

    fn patch(&self, changes: &BTreeMap<String, Option<i64>>) -> Said {
        let author_unseen =
            |name: &String| self.model.author(name).is_some_and(|write| self.unseen(write));
        let (stale, fresh): (BTreeMap<_, _>, BTreeMap<_, _>) =
            changes.clone().into_iter().partition(|(name, _)| author_unseen(name));
        match (stale.is_empty(), self.policy) {
            (true, _) => self.yes(Effect::Some(changes.clone())),
            (false, _) if self.sent.strict => self.no(Superseded::Stale),
            (false, Policy::ServerWins) if fresh.is_empty() => self.no(Superseded::Stale),
            (false, Policy::ServerWins) => {
                let now = self.model.value();
                let differs =
                    |(name, value): &(&String, &Option<i64>)| now.get(*name) != value.as_ref();
                let names: BTreeSet<String> =
                    stale.iter().filter(differs).map(|(name, _)| name.clone()).collect();
                let authors = names.iter().filter_map(|name| self.model.author(name));
                let newest = authors.map(|write| write.seq).max().unwrap_or(0);
                let lost = (self.sent.device, self.seq, newest, names.clone());
                Said {
                    verdict: Verdict::Applied { dropped: stale.into_keys().collect() },
                    effect: Some(Effect::Some(fresh)),
                    lost: if names.is_empty() { vec![] } else { vec![lost] },
                }
            }
            _ => self.yes(Effect::Some(changes.clone())),
        }
    }

    fn by_tuple(&self) -> Said {
        let effect = match &self.sent.wish {
            Wish::Create(value, true) => Effect::Begin(value.clone()),
            Wish::Create(value, false) | Wish::Put(value) => Effect::Whole(value.clone()),
            Wish::Delete => Effect::Delete,
            _ => return self.no(Superseded::LowerRevision),
        };
        let Some(last) = self.model.last() else { return self.yes(effect) };
        if (self.sent.revision, self.sent.hlc, self.sent.batch) <= last.tuple {
            return self.no(Superseded::LowerRevision);
        }
        match &self.sent.wish {
            Wish::Create(..) if self.sent.strict => self.no(Superseded::Exists),
            _ if self.sent.strict && self.any_unseen() => self.no(Superseded::Stale),
            _ => self.yes(effect),
        }
    }

    fn after(&self, effect: Effect) -> Model {
        let (sent, seq) = (self.sent, self.seq);
        let tuple = (sent.revision, sent.hlc, sent.batch);
        let mut next = self.model.clone();
        let effect = match effect {
            // Under `revision` a put on nothing or on a tombstone begins a life.
            Effect::Whole(value) if self.model.dead() => Effect::Begin(value),
            effect => effect,
        };
        // Its tombstones remember nothing of what was below.
        if self.policy == Policy::Revision && matches!(effect, Effect::Delete) {
            next.writes.clear();
        }
        next.writes.push(Write { seq, device: sent.device, batch: sent.batch, tuple, effect });
        next
    }

    /// It takes effect; what others did unseen and it takes away is lost.
    fn yes(&self, effect: Effect) -> Said {
        let next = self.after(effect.clone());
        let (before, after) = (self.model.value(), next.value());
        let changed: BTreeSet<String> = names(&[&before, &after])
            .into_iter()
            .filter(|name| before.get(name) != after.get(name))
            .collect();
        let mut lost: BTreeMap<u8, Lost> = BTreeMap::new();
        let is_edit = matches!(self.sent.wish, Wish::Put(_) | Wish::Patch(_) | Wish::Delete);
        match (self.policy, self.model.last()) {
            (Policy::Revision, Some(last)) => {
                let same = self.model.dead() == next.dead() && changed.is_empty();
                if self.sent.revision <= last.tuple.0 && !same {
                    lost.insert(last.device, (last.device, last.seq, self.seq, changed));
                }
            }
            (Policy::Arrival, Some(_)) if is_edit => {
                for (name, author) in self.authored() {
                    if self.unseen(author) && (changed.contains(&name) || next.dead()) {
                        let entry = (author.device, 0, self.seq, BTreeSet::new());
                        let entry = lost.entry(author.device).or_insert(entry);
                        entry.1 = entry.1.max(author.seq);
                        entry.3.insert(name);
                    }
                }
                let stamp = || self.model.stamps().into_iter().find(|write| self.unseen(write));
                if lost.is_empty()
                    && next.dead()
                    && let Some(write) = stamp()
                {
                    lost.insert(write.device, (write.device, write.seq, self.seq, BTreeSet::new()));
                }
            }
            _ => {}
        }
        let verdict = Verdict::Applied { dropped: vec![] };
        Said { verdict, effect: Some(effect), lost: lost.into_values().collect() }
    }

    /// Every field that is, was removed since the last full write, or is about to be.
    fn authored(&self) -> Vec<(String, &Write)> {
        let all = ["a", "b", "c"].map(String::from);
        let with = |name: String| self.model.author(&name).map(|write| (name, write));
        let full = self.model.writes.iter().rposition(Model::is_whole).unwrap_or(0);
        let here = |name: &String| {
            let wanted = match &self.sent.wish {
                Wish::Put(value) => value.contains_key(name),
                Wish::Patch(changes) => changes.contains_key(name),
                _ => false,
            };
            let since = self.model.writes.get(full..).unwrap_or_default();
            let touched = since.iter().any(|write| match &write.effect {
                Effect::Some(changes) => changes.contains_key(name),
                _ => false,
            });
            wanted || touched || self.model.value().contains_key(name)
        };
        all.into_iter().filter(here).filter_map(with).collect()
    }

    /// It takes no effect; what it asked for is lost, unless it is there already.
    fn no(&self, reason: Superseded) -> Said {
        let (model, sent) = (self.model, self.sent);
        let now = model.value();
        let wanted: BTreeMap<String, Option<i64>> = match &sent.wish {
            Wish::Create(value, _) | Wish::Put(value) => names(&[&now, value])
                .into_iter()
                .map(|name| (name.clone(), value.get(&name).copied()))
                .collect(),
            Wish::Patch(changes) => changes.clone(),
            // It wanted gone what it had not seen; the tuple looks at the whole.
            Wish::Delete => self
                .authored()
                .into_iter()
                .filter(|(_, write)| self.policy == Policy::Revision || self.unseen(write))
                .map(|(name, _)| (name, None))
                .collect(),
            _ => BTreeMap::new(),
        };
        let differ: BTreeSet<String> = wanted
            .into_iter()
            .filter(|(name, value)| now.get(name) != value.as_ref())
            .map(|(name, _)| name)
            .collect();
        let silent = match sent.wish {
            Wish::UndeleteSeq(_) | Wish::UndeleteBatch(_) => true,
            Wish::Delete => model.dead(),
            _ => !model.dead() && differ.is_empty(),
        };
        let by = model.last().map_or(0, |write| write.seq);
        let lost = (sent.device, self.seq, by, differ);
        Said {
            verdict: Verdict::Superseded { by, reason },
            effect: None,
            lost: if silent { vec![] } else { vec![lost] },
        }
    }
}

fn names(of: &[&Fields]) -> BTreeSet<String> {
    of.iter().flat_map(|fields| fields.keys().cloned()).collect()
}

// ---- The product's side ----------------------------------------------------------------------

fn device(id: u8) -> DeviceId {
    DeviceId([id; 16])
}

fn field(name: &str, value: i64) -> Field {
    Field::new(name, &Value::Int(value))
}

fn record(fields: &Fields) -> Record {
    Record::from_fields(fields.iter().map(|(name, value)| field(name, *value)).collect())
}

fn visible(row: Option<&Row>) -> Option<Fields> {
    row.filter(|row| !row.deleted).map(fields_of)
}

fn fields_of(row: &Row) -> Fields {
    let entries = row.record.to_entries().unwrap();
    let int = |(name, value)| match value {
        Value::Int(value) => (name, value),
        other => panic!("{other:?}"),
    };
    entries.into_iter().map(int).collect()
}

fn op(sent: &Sent) -> Op {
    let action = match &sent.wish {
        Wish::Create(value, replace) => Action::Create { record: record(value), replace: *replace },
        Wish::Put(value) => Action::Put { record: record(value) },
        Wish::Patch(changes) => Action::Patch {
            set: changes.iter().filter_map(|(n, v)| v.map(|v| field(n, v))).collect(),
            remove: changes.iter().filter(|(_, v)| v.is_none()).map(|(n, _)| n.clone()).collect(),
        },
        Wish::Delete => Action::Delete,
        Wish::UndeleteSeq(seq) => Action::Undelete { tombstone: TombstoneRef::Seq(*seq) },
        Wish::UndeleteBatch(batch) => {
            Action::Undelete { tombstone: TombstoneRef::Batch(BatchId([*batch; 16])) }
        }
    };
    Op {
        table: TableName::new("t").unwrap(),
        key: Key::new("k").unwrap(),
        base: sent.base,
        revision: sent.revision,
        hlc: Hlc(sent.hlc),
        action,
    }
}

/// One step of a schedule: an op, or none = the tombstone, if there is one, is purged.
type Step = Option<Sent>;

fn run(policy: Policy, steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut model, mut row) = (Model::default(), None::<Row>);
    let mut keys = BTreeSet::new();
    for (seq, step) in (1..).zip(steps) {
        let Some(sent) = step else {
            if model.dead() {
                (model, row) = (Model::default(), None);
            }
            continue;
        };
        let sent = &Sent { base: sent.base.min(seq - 1), ..sent.clone() };
        let judge = Judge { model: &model, sent, seq, policy };
        let said = judge.said();
        let next = said.effect.map(|effect| judge.after(effect));

        let former: Vec<DeviceId> = sent.former.map(device).into_iter().collect();
        let writer = Writer { device: device(sent.device), former: &former, strict: sent.strict };
        let at = At { seq, time_ms: 1, op_id: BatchId([sent.batch; 16]) };
        let op = op(sent);
        let outcome = decide(row.as_ref(), &op, &writer, &at, policy.into()).unwrap();

        prop_assert_eq!(sorted(&outcome.verdict), sorted(&said.verdict), "seq {}: {:?}", seq, sent);
        let lost: Vec<Lost> = outcome
            .conflicts
            .iter()
            .map(|conflict| {
                let names = conflict.fields.iter().map(|field| field.name.clone()).collect();
                let loser = conflict.loser;
                (loser.writer.0[0], loser.seq, conflict.winner.seq, names)
            })
            .collect();
        let losers: BTreeSet<u8> = lost.iter().map(|(device, ..)| *device).collect();
        prop_assert_eq!(losers.len(), lost.len(), "one conflict per losing device");
        prop_assert_eq!(
            lost.into_iter().collect::<BTreeSet<_>>(),
            said.lost.into_iter().collect(),
            "seq {}: {:?}",
            seq,
            sent
        );
        for conflict in &outcome.conflicts {
            prop_assert!(keys.insert(conflict_key(&op.table, &op.key, conflict)), "exactly once");
            let value = conflict_record(&op.table, &op.key, conflict, policy, 1);
            prop_assert_eq!(value.check_untrusted(), Ok(()));
        }
        if let Verdict::Applied { dropped } = &outcome.verdict {
            let replayed = apply(row.as_ref(), &op, writer.device, &at, policy, dropped);
            prop_assert_eq!(&replayed, &outcome.row, "replay obeys the verdict");
        }
        model = next.unwrap_or(model);
        row = outcome.row.or(row);
        let live = (!model.dead()).then(|| model.value());
        prop_assert_eq!(visible(row.as_ref()), live, "seq {}: {:?}", seq, sent);
        if let Some(row) = &row {
            prop_assert!(to_bytes(row).len() <= row.size_bytes());
            prop_assert_eq!(fields_of(row), model.kept(), "what a tombstone keeps");
        }
    }
    Ok(())
}

/// The steps twice, each op with the same seq: once as they are, and once with sets of a
/// server-owned field in between. Nothing but that field may differ, and under `revision` the id,
/// by one.
fn run_with_sets(policy: Policy, steps: &[Step], sets: &[bool]) -> Result<(), TestCaseError> {
    let owned = ["o".to_owned()];
    let rules = TableRules { server_owned: &owned, ..policy.into() };
    let (mut plain, mut set) = (None::<Row>, None::<Row>);
    for (n, (step, is_set)) in (1..).zip(steps.iter().zip(sets)) {
        let (seq, set_seq) = (2 * n, 2 * n + 1);
        let Some(sent) = step else {
            let dead = |row: &Option<Row>| row.as_ref().is_none_or(|row| row.deleted);
            prop_assert_eq!(dead(&plain), dead(&set));
            if dead(&plain) {
                (plain, set) = (None, None);
            }
            continue;
        };
        let former: Vec<DeviceId> = sent.former.map(device).into_iter().collect();
        let writer = Writer { device: device(sent.device), former: &former, strict: sent.strict };
        let at = At { seq, time_ms: 1, op_id: BatchId([sent.batch; 16]) };
        let op = op(&Sent { base: (2 * sent.base).min(seq - 1), ..sent.clone() });
        let expected = decide(plain.as_ref(), &op, &writer, &at, rules).unwrap();
        let mut found = decide(set.as_ref(), &op, &writer, &at, rules).unwrap();
        if let Verdict::Applied { dropped } = &mut found.verdict {
            dropped.retain(|name| name != "o");
        }
        prop_assert_eq!(&found.verdict, &expected.verdict, "seq {}: {:?}", seq, sent);
        prop_assert_eq!(&found.conflicts, &expected.conflicts, "seq {}: {:?}", seq, sent);
        (plain, set) = (expected.row.or(plain), found.row.or(set));
        if let Some(row) = set.as_ref().filter(|row| *is_set && !row.deleted) {
            let (seq, fields) = (set_seq, vec![field("o", 7)]);
            let action = Action::Patch { set: fields, remove: Vec::new() };
            let op = Op { action, ..op.clone() };
            let at = At { seq, ..at };
            set = apply(Some(row), &op, DeviceId::AUTHORITY, &at, rules, &[]);
        }
        let of_plain = plain.as_ref().map(|row| row.op_id);
        let without = |row: &Row| {
            let is_next =
                |id: &BatchId| u128::from_be_bytes(id.0) < u128::from_be_bytes(row.op_id.0);
            let is_named = policy == Policy::Revision && row.set_at != 0;
            let op_id = of_plain.filter(|id| is_named && is_next(id)).unwrap_or(row.op_id);
            let mut row = Row { set_at: 0, op_id, ..row.clone() };
            row.record.remove("o");
            row
        };
        prop_assert_eq!(set.as_ref().map(without), plain.clone());
    }
    Ok(())
}

/// Dropped fields come in the order of the op, which the model does not keep.
fn sorted(verdict: &Verdict) -> Verdict {
    let mut verdict = verdict.clone();
    if let Verdict::Applied { dropped } = &mut verdict {
        dropped.sort();
    }
    verdict
}

// ---- Schedules -------------------------------------------------------------------------------

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(String::from)
}

fn fields() -> impl Strategy<Value = Fields> {
    prop::collection::btree_map(name(), 0..3_i64, 0..4)
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        3 => (fields(), any::<bool>()).prop_map(|(value, replace)| Wish::Create(value, replace)),
        3 => fields().prop_map(Wish::Put),
        4 => prop::collection::btree_map(name(), option::of(0..3_i64), 1..4).prop_map(Wish::Patch),
        2 => Just(Wish::Delete),
        1 => (1..20_u64).prop_map(Wish::UndeleteSeq),
        1 => (0..20_u8).prop_map(Wish::UndeleteBatch),
    ]
}

/// 2 to 4 devices and the odd op of a forked or strict one, each batch with its own id.
fn schedule() -> impl Strategy<Value = Vec<Step>> {
    let who = (0..4_u8, option::weighted(0.1, 0..4_u8), prop::bool::weighted(0.1));
    let sent = (who, 0..20_u64, 1..4_u64, 0..3_u64, wish()).prop_map(
        |((device, former, strict), base, revision, hlc, wish)| Sent {
            device: device + 1,
            former: former.map(|id| id + 1),
            strict,
            base,
            revision,
            hlc,
            batch: 0,
            wish,
        },
    );
    vec(option::weighted(0.95, sent), 1..20).prop_map(|mut steps| {
        for (batch, sent) in (0..).zip(steps.iter_mut().flatten()) {
            sent.batch = batch;
        }
        steps
    })
}

proptest! {
    #![proptest_config(crate::cases())]

    /// Semantics, section 1: whatever the server sets between the ops of devices, each op does what
    /// it would have done without, and no conflict tells of it.
    #[test]
    fn model_of_server_owned_fields(
        policy in prop::sample::select(vec![
            Policy::Arrival, Policy::ServerWins, Policy::Revision,
        ]),
        steps in schedule(),
        sets in prop::collection::vec(any::<bool>(), 40),
    ) {
        run_with_sets(policy, &steps, &sets)?;
    }

    /// R2.4, I25: policy `arrival` says of every op what the rules say, and every loss leaves
    /// exactly one conflict per losing device.
    #[test]
    fn model_of_arrival(steps in schedule()) {
        run(Policy::Arrival, &steps)?;
    }

    /// R2.4, I25: the same for `server_wins`.
    #[test]
    fn model_of_server_wins(steps in schedule()) {
        run(Policy::ServerWins, &steps)?;
    }

    /// R2.4, I25: the same for `revision`.
    #[test]
    fn model_of_revision(steps in schedule()) {
        run(Policy::Revision, &steps)?;
    }
}
