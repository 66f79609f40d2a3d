//! One test per sentence of `docs/semantics.md` sections 1 to 3 that core carries out.

use lastword_core::codec::to_bytes;
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Key, TableName};
use lastword_core::limits::{
    HISTORY_WINDOW_MS, MAX_CONFLICT_INLINE_BYTES, MAX_RECORD_BYTES, MAX_ROW_BYTES,
};
use lastword_core::op::{Action, Op, TombstoneRef};
use lastword_core::row::Row;
use lastword_core::rules::{
    At, Conflict, Outcome, Policy, Writer, conflict_key, conflict_record, decide,
};
use lastword_core::stamp::{Mark, Superseded, Verdict};
use lastword_core::value::{Field, Record, Value, ValueError};
use proptest::prelude::*;

pub const A: DeviceId = DeviceId([0xa; 16]);
pub const B: DeviceId = DeviceId([0xb; 16]);
pub const C: DeviceId = DeviceId([0xc; 16]);

pub fn field(name: &str, value: i64) -> Field {
    Field::new(name, &Value::Int(value))
}

pub fn record(fields: &[(&str, i64)]) -> Record {
    Record::from_fields(fields.iter().map(|(name, value)| field(name, *value)).collect())
}

pub fn create(fields: &[(&str, i64)]) -> Action {
    Action::Create { record: record(fields), replace: false }
}

pub fn replace(fields: &[(&str, i64)]) -> Action {
    Action::Create { record: record(fields), replace: true }
}

pub fn put(fields: &[(&str, i64)]) -> Action {
    Action::Put { record: record(fields) }
}

pub fn patch(set: &[(&str, i64)]) -> Action {
    Action::Patch { set: record(set).fields().to_vec(), remove: vec![] }
}

pub fn remove(names: &[&str]) -> Action {
    Action::Patch { set: vec![], remove: names.iter().map(|name| (*name).into()).collect() }
}

pub fn undelete(seq: u64) -> Action {
    Action::Undelete { tombstone: TombstoneRef::Seq(seq) }
}

pub fn op(base: u64, action: Action) -> Op {
    Op {
        table: TableName::new("t").unwrap(),
        key: Key::new("k").unwrap(),
        base,
        revision: 1,
        hlc: Hlc(1),
        action,
    }
}

/// One record at the authority; every op gets the next seq and its own batch.
pub struct Authority {
    pub row: Option<Row>,
    pub seq: u64,
    pub policy: Policy,
    pub strict: bool,
    pub former: Vec<DeviceId>,
}

impl Authority {
    pub fn new(policy: Policy) -> Self {
        Self { row: None, seq: 0, policy, strict: false, former: vec![] }
    }

    /// A live record of seq 5, created by `C`.
    fn with(policy: Policy, fields: &[(&str, i64)]) -> Self {
        let mut authority = Self { seq: 4, ..Self::new(policy) };
        authority.takes(C, 0, create(fields));
        authority
    }

    pub fn decide(&mut self, device: DeviceId, op: &Op) -> Outcome {
        self.seq += 1;
        let at = At { seq: self.seq, time_ms: 1000, op_id: batch(self.seq) };
        let writer = Writer { device, former: &self.former, strict: self.strict };
        let outcome = decide(self.row.as_ref(), op, &writer, &at, self.policy.into()).unwrap();
        self.row = outcome.row.clone().or(self.row.take());
        outcome
    }

    fn op(&mut self, device: DeviceId, base: u64, action: Action) -> Outcome {
        self.decide(device, &op(base, action))
    }

    /// The op applies and nobody loses.
    #[track_caller]
    fn takes(&mut self, device: DeviceId, base: u64, action: Action) {
        let outcome = self.op(device, base, action);
        assert_eq!((outcome.verdict, outcome.conflicts), (applied(), vec![]));
    }

    /// The op is superseded for this reason; `recorded` says whether a conflict tells of it.
    #[track_caller]
    fn refuses(
        &mut self,
        device: DeviceId,
        base: u64,
        action: Action,
        why: Superseded,
        recorded: bool,
    ) {
        let by = self.row.as_ref().map_or(0, |row| row.last.seq);
        let outcome = self.op(device, base, action);
        assert_eq!(outcome.verdict, Verdict::Superseded { by, reason: why });
        let losers: Vec<DeviceId> = outcome.conflicts.iter().map(|c| c.loser.writer).collect();
        assert_eq!(losers, if recorded { vec![device] } else { vec![] });
    }

    /// The op applies although these devices lose.
    #[track_caller]
    fn takes_over(
        &mut self,
        device: DeviceId,
        base: u64,
        action: Action,
        losers: &[DeviceId],
    ) -> Vec<Conflict> {
        let outcome = self.op(device, base, action);
        assert_eq!(outcome.verdict, applied());
        let lost: Vec<DeviceId> = outcome.conflicts.iter().map(|c| c.loser.writer).collect();
        assert_eq!(lost, losers);
        outcome.conflicts
    }

    #[track_caller]
    fn shows(&self, fields: &[(&str, i64)]) {
        let row = self.row.as_ref().filter(|row| !row.deleted);
        assert_eq!(row.map(|row| &row.record), Some(&record(fields)));
    }

    #[track_caller]
    fn shows_nothing(&self) {
        assert!(self.row.as_ref().is_none_or(|row| row.deleted));
    }
}

fn batch(seq: u64) -> BatchId {
    BatchId((u128::from(seq) << 64).to_be_bytes())
}

fn applied() -> Verdict {
    Verdict::Applied { dropped: vec![] }
}

const BASED: [Policy; 2] = [Policy::Arrival, Policy::ServerWins];
const ALL: [Policy; 3] = [Policy::Arrival, Policy::ServerWins, Policy::Revision];

/// Section 1: a patch sets and removes top-level fields, the others stay, order is kept.
#[test]
fn a_patch_changes_only_the_fields_it_names() {
    let mut authority = Authority::with(Policy::Arrival, &[("a", 1), ("b", 2)]);
    let set = vec![field("c", 3), field("a", 9)];
    authority.takes(C, 5, Action::Patch { set, remove: vec!["b".into()] });
    authority.shows(&[("a", 9), ("c", 3)]);
    let row = authority.row.unwrap();
    let mark = |seq| Mark { seq, writer: C };
    assert_eq!((row.born, row.full, row.last), (mark(5), mark(5), mark(6)));
    for name in ["a", "b", "c"] {
        assert_eq!(row.field_mark(name), mark(6), "{name}, also if removed");
    }
    assert_eq!(row.field_mark("d"), mark(5));
}

/// Section 1, stale: the story of the trace. A queues Patch x, then Put, both base 5; B's Patch y
/// gets 6, A's Patch 7; judged by the last writer alone, A's Put 8 would erase y unseen.
#[test]
fn a_whole_write_is_stale_if_any_stamp_of_the_row_is() {
    let start = [("x", 0), ("y", 0)];
    let mut authority = Authority::with(Policy::ServerWins, &start);
    authority.takes(B, 5, patch(&[("y", 6)]));
    authority.takes(A, 5, patch(&[("x", 7)]));
    authority.refuses(A, 5, put(&[("x", 8), ("y", 0)]), Superseded::Stale, true);
    authority.shows(&[("x", 7), ("y", 6)]);

    let mut authority = Authority::with(Policy::Arrival, &start);
    authority.takes(B, 5, patch(&[("y", 6)]));
    authority.takes(A, 5, patch(&[("x", 7)]));
    let lost = authority.takes_over(A, 5, put(&[("x", 8), ("y", 0)]), &[B]);
    assert_eq!((lost[0].loser.seq, lost[0].winner.seq), (6, 8));
    assert_eq!(lost[0].fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["y"]);
    authority.shows(&[("x", 8), ("y", 0)]);
}

/// Section 1, stale: a patch is judged per named field.
#[test]
fn patches_of_different_fields_both_apply() {
    for policy in BASED {
        let mut authority = Authority::with(policy, &[("x", 0), ("y", 0)]);
        authority.takes(B, 5, patch(&[("y", 6)]));
        authority.takes(A, 5, patch(&[("x", 7)]));
        authority.shows(&[("x", 7), ("y", 6)]);
    }
}

/// Section 1, stale: own stamps never make an op stale, also those of a former device id.
#[test]
fn own_stamps_never_make_an_op_stale() {
    for policy in BASED {
        let mut authority = Authority::with(policy, &[("x", 0)]);
        authority.takes(A, 5, patch(&[("x", 6)]));
        authority.takes(A, 5, put(&[("x", 7)]));
        authority.former = vec![A];
        authority.takes(B, 5, put(&[("x", 8)]));
        authority.takes(B, 5, Action::Delete);
    }
}

/// Section 1, born: edits never cross into a record's next life, unless the device made the birth.
#[test]
fn edits_never_cross_into_the_next_life() {
    for policy in BASED {
        for action in [put(&[("x", 9)]), patch(&[("x", 9)]), Action::Delete] {
            let mut authority = Authority::with(policy, &[("x", 0)]);
            authority.takes(B, 5, Action::Delete);
            authority.takes(B, 6, create(&[("x", 7)]));
            authority.refuses(A, 5, action.clone(), Superseded::EarlierLife, true);
            authority.shows(&[("x", 7)]);
            // B made that birth.
            authority.takes(B, 5, action);
        }
    }
}

/// Section 1: an edit never resurrects. Put, patch or delete on a tombstone, a purged or a
/// never-known record is superseded; only the delete is silent.
#[test]
fn an_edit_never_resurrects() {
    for policy in BASED {
        for purged in [false, true] {
            let mut authority = Authority::with(policy, &[("x", 0)]);
            authority.takes(C, 5, Action::Delete);
            if purged {
                authority.row = None;
            }
            authority.refuses(A, 5, put(&[("x", 1)]), Superseded::Dead, true);
            authority.refuses(A, 9, patch(&[("x", 1)]), Superseded::Dead, true);
            authority.refuses(A, 9, remove(&["x"]), Superseded::Dead, true);
            authority.refuses(A, 9, Action::Delete, Superseded::Dead, false);
            authority.shows_nothing();
        }
    }
}

/// Section 1: a create never overwrites; the loser is told, unless it wanted what is there.
#[test]
fn a_create_never_overwrites() {
    for policy in BASED {
        let mut authority = Authority::with(policy, &[("x", 0), ("y", 1)]);
        authority.refuses(A, 5, create(&[("x", 1)]), Superseded::Exists, true);
        authority.refuses(A, 0, create(&[("y", 1), ("x", 0)]), Superseded::Exists, false);
        authority.shows(&[("x", 0), ("y", 1)]);
    }
}

/// Section 1: a create on a tombstone or a purged key makes a new life, whatever its base.
#[test]
fn a_create_on_a_dead_key_makes_a_new_life() {
    for policy in BASED {
        for action in [create(&[("x", 1)]), replace(&[("x", 1)])] {
            let mut authority = Authority::with(policy, &[("x", 0)]);
            authority.takes(C, 5, Action::Delete);
            authority.takes(A, 0, action.clone());
            assert_eq!(authority.row.as_ref().unwrap().born, Mark { seq: 7, writer: A });
            authority.row = None;
            authority.takes(B, 0, action);
        }
    }
}

/// Section 1: a create with `replace` on a live row with any unseen stamp is superseded under
/// every policy; without one it begins a new life.
#[test]
fn a_replacing_create_needs_to_have_seen_everything() {
    for policy in BASED {
        let mut authority = Authority::with(policy, &[("x", 0), ("y", 0)]);
        authority.takes(B, 5, patch(&[("y", 6)]));
        authority.refuses(A, 5, replace(&[("x", 1)]), Superseded::Stale, true);
        authority.takes(A, 6, replace(&[("x", 1)]));
        authority.shows(&[("x", 1)]);
        assert_eq!(authority.row.unwrap().born, Mark { seq: 8, writer: A });
    }
}

/// Section 1: an undelete applies only while exactly its tombstone is current, carries no value,
/// is a full write and keeps `born`; a failed one is silent. I24.
#[test]
fn an_undelete_brings_back_exactly_one_tombstone() {
    let failed = Superseded::NotThatTombstone;
    for policy in BASED {
        let mut authority = Authority::with(policy, &[("x", 0)]);
        authority.refuses(A, 5, undelete(5), failed, false);
        authority.takes(C, 5, patch(&[("x", 6)]));
        authority.takes(C, 6, Action::Delete);
        authority.refuses(A, 7, undelete(6), failed, false);
        let before = authority.row.clone().unwrap();
        let last = authority.seq + 1;
        authority.takes(A, 7, undelete(before.last.seq));
        let row = authority.row.clone().unwrap();
        assert_eq!(to_bytes(&row.record), to_bytes(&record(&[("x", 6)])));
        assert_eq!(row.born, before.born);
        assert_eq!((row.full, row.last), (Mark { seq: last, writer: A }, row.full));
        assert!(row.fields.is_empty());
        authority.refuses(A, 9, undelete(7), failed, false);
        // By batch, and not a later tombstone.
        authority.takes(B, last, Action::Delete);
        let by = |seq| Action::Undelete { tombstone: TombstoneRef::Batch(batch(seq)) };
        let tombstone = authority.seq;
        authority.refuses(B, 9, by(8), failed, false);
        authority.takes(B, 9, by(tombstone));
        authority.row = None;
        authority.refuses(B, 9, undelete(7), Superseded::ValueGone, false);
    }
}

/// Section 1: what was erased does not come back, not even empty. I24.
#[test]
fn an_undelete_of_what_was_erased_is_superseded() {
    for policy in BASED {
        let mut authority = Authority::with(policy, &[("x", 0)]);
        authority.seq += 1;
        let live = authority.row.take().unwrap();
        authority.row = Some(Row::erased(&live, Record::default(), authority.seq, 1));
        authority.refuses(A, 6, undelete(6), Superseded::ValueGone, false);
        authority.shows_nothing();
    }
}

/// Section 1: a tombstone keeps its value.
#[test]
fn a_tombstone_keeps_its_value() {
    let mut authority = Authority::with(Policy::Arrival, &[("x", 3)]);
    authority.takes(C, 5, Action::Delete);
    assert_eq!(authority.row.unwrap().record, record(&[("x", 3)]));
}

/// Section 1: the authority's own ops are never stale.
#[test]
fn the_authoritys_own_ops_are_never_stale() {
    for policy in BASED {
        let mut authority = Authority::with(policy, &[("x", 0)]);
        authority.takes(DeviceId::AUTHORITY, 0, put(&[("x", 1)]));
        authority.takes(DeviceId::AUTHORITY, 0, Action::Delete);
    }
}

/// Section 1: the authority checks the resulting record against the limits.
#[test]
fn the_result_is_checked_against_the_limits() {
    let big = |name: &str, len: usize| Field::new(name, &Value::Bytes(vec![0; len]));
    let mut authority = Authority::with(Policy::Arrival, &[]);
    let half = Action::Patch { set: vec![big("a", MAX_RECORD_BYTES / 2)], remove: vec![] };
    authority.takes(A, 5, half);
    let other = op(5, Action::Patch { set: vec![big("b", MAX_RECORD_BYTES / 2)], remove: vec![] });
    let writer = Writer { device: A, former: &[], strict: false };
    let at = At { seq: 9, time_ms: 1, op_id: batch(9) };
    let result = decide(authority.row.as_ref(), &other, &writer, &at, Policy::Arrival.into());
    assert!(matches!(result, Err(ValueError::TooLarge { limit: MAX_RECORD_BYTES, .. })));
}

/// I41. The story: every patch that removes a name leaves a mark, also if the record never had the
/// field. A few patches of long names made a row that no message can carry, and no device of the
/// workspace ever synced again.
#[test]
fn the_marks_of_a_row_are_limited_so_that_it_fits_a_message() {
    let mut authority = Authority::with(Policy::Arrival, &[("x", 0)]);
    let mut refused = None;
    for round in 0..10 {
        let names: Vec<String> =
            (0..100).map(|n| format!("{round}-{n}-{}", "n".repeat(900))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let op = op(5, remove(&names));
        let writer = Writer { device: A, former: &[], strict: false };
        let at = At { seq: 10 + round, time_ms: 1, op_id: batch(9) };
        match decide(authority.row.as_ref(), &op, &writer, &at, Policy::Arrival.into()) {
            Ok(outcome) => authority.row = outcome.row,
            Err(error) => refused = refused.or(Some(error)),
        }
        assert!(to_bytes(authority.row.as_ref().unwrap()).len() <= MAX_ROW_BYTES);
    }
    assert!(matches!(refused, Some(ValueError::RowTooLarge { .. })), "{refused:?}");
    // A write of the whole record has no marks.
    authority.takes(A, 5, put(&[("x", 1)]));
}

/// Section 2, `arrival`: the later seq wins and a conflict is recorded, unless the result equals
/// the current value.
#[test]
fn arrival_applies_stale_ops_and_records_the_loss() {
    let mut authority = Authority::with(Policy::Arrival, &[("x", 0)]);
    authority.takes(B, 5, patch(&[("x", 6)]));
    let lost = authority.takes_over(A, 5, patch(&[("x", 7)]), &[B]);
    let side = |value| Some(to_bytes(&Value::Int(value)));
    assert_eq!(lost[0].fields[0].winning, side(7));
    assert_eq!(lost[0].fields[0].losing, side(6));
    assert_eq!((lost[0].winner, lost[0].loser.seq), (Mark { seq: 7, writer: A }, 6));
    authority.takes(B, 5, patch(&[("x", 7)]));
    authority.takes(C, 5, put(&[("x", 7)]));
}

/// Section 2, `server_wins`: stale fields are dropped; superseded if nothing is left.
#[test]
fn server_wins_drops_stale_fields() {
    let mut authority = Authority::with(Policy::ServerWins, &[("x", 0), ("y", 0)]);
    authority.takes(B, 5, patch(&[("x", 6)]));
    let outcome = authority.op(A, 5, patch(&[("x", 7), ("y", 7)]));
    assert_eq!(outcome.verdict, Verdict::Applied { dropped: vec!["x".into()] });
    let [lost] = &outcome.conflicts[..] else { panic!("one conflict") };
    assert_eq!((lost.loser, lost.winner), (Mark { seq: 7, writer: A }, Mark { seq: 6, writer: B }));
    authority.shows(&[("x", 6), ("y", 7)]);
    authority.refuses(A, 5, patch(&[("x", 8)]), Superseded::Stale, true);
    authority.refuses(A, 5, patch(&[("x", 6)]), Superseded::Stale, false);
    authority.refuses(A, 5, put(&[("x", 9)]), Superseded::Stale, true);
    authority.refuses(A, 5, Action::Delete, Superseded::Stale, true);
}

/// Section 3, one per losing device: each device that lost something gets its own conflict.
#[test]
fn each_losing_device_gets_one_conflict() {
    let mut authority = Authority::with(Policy::Arrival, &[("x", 0), ("y", 0), ("z", 0)]);
    authority.takes(B, 5, patch(&[("x", 6)]));
    authority.takes(C, 5, patch(&[("y", 7)]));
    authority.takes(B, 6, patch(&[("z", 8)]));
    let lost = authority.takes_over(A, 5, put(&[]), &[B, C]);
    assert_eq!((lost[0].loser.seq, lost[0].fields.len()), (8, 2));
    assert_eq!((lost[1].loser.seq, lost[1].fields.len()), (7, 1));
}

/// Section 3. The story: B removes x, A deletes the record without having seen it. No field was
/// left to differ, so B's change was overwritten without a word. The same for a record that B
/// emptied.
#[test]
fn a_stale_delete_tells_of_what_left_no_field_behind() {
    let mut authority = Authority::with(Policy::Arrival, &[("x", 0)]);
    authority.takes(B, 5, remove(&["x"]));
    let lost = authority.takes_over(A, 5, Action::Delete, &[B]);
    assert!(lost[0].winner_deletes);
    let mut authority = Authority::with(Policy::Arrival, &[("x", 0)]);
    authority.takes(B, 5, put(&[]));
    authority.takes_over(A, 5, Action::Delete, &[B]);
}

fn ranked(revision: u64, hlc: u64, action: Action) -> Op {
    Op { revision, hlc: Hlc(hlc), ..op(0, action) }
}

/// Section 2, `revision`: the greater (revision, hlc, op id) wins, for deletes too, and nothing
/// else decides: create = put, a greater put clears a tombstone, a delete of an absent record
/// writes one.
#[test]
fn revision_lets_only_the_greater_tuple_win() {
    let mut authority = Authority::new(Policy::Revision);
    let wins = |authority: &mut Authority, device, op: &Op, losers: &[DeviceId]| {
        let outcome = authority.decide(device, op);
        assert_eq!(outcome.verdict, applied(), "{op:?}");
        let lost: Vec<DeviceId> = outcome.conflicts.iter().map(|c| c.loser.writer).collect();
        assert_eq!(lost, losers, "{op:?}");
    };
    let loses = |authority: &mut Authority, device, op: &Op, recorded: bool| {
        let outcome = authority.decide(device, op);
        let reason = Superseded::LowerRevision;
        assert!(matches!(outcome.verdict, Verdict::Superseded { reason: r, .. } if r == reason));
        assert_eq!(outcome.conflicts.len(), usize::from(recorded), "{op:?}");
    };
    wins(&mut authority, A, &ranked(2, 1, Action::Delete), &[]);
    loses(&mut authority, B, &ranked(1, 9, put(&[("x", 1)])), true);
    loses(&mut authority, B, &ranked(1, 9, Action::Delete), false);
    wins(&mut authority, B, &ranked(3, 1, put(&[("x", 3)])), &[]);
    wins(&mut authority, A, &ranked(4, 1, create(&[("x", 4)])), &[]);
    loses(&mut authority, B, &ranked(4, 0, put(&[("x", 5)])), true);
    loses(&mut authority, B, &ranked(4, 0, put(&[("x", 4)])), false);
    // Wins with a revision that is not above the current one: a conflict.
    wins(&mut authority, B, &ranked(4, 2, put(&[("x", 6)])), &[A]);
    wins(&mut authority, A, &ranked(4, 3, put(&[("x", 6)])), &[]);
    wins(&mut authority, B, &ranked(5, 0, Action::Delete), &[]);
    // No patch and no undelete on the wire.
    loses(&mut authority, B, &ranked(9, 9, patch(&[("x", 1)])), true);
    let tombstone = authority.row.as_ref().unwrap().last.seq;
    loses(&mut authority, B, &ranked(9, 9, undelete(tombstone)), false);
    authority.shows_nothing();
}

/// Section 3, `revision`: a conflict iff the op loses, or wins with a revision not above the
/// current one. The story: the loser was looked up in the marks of fields, but a delete leaves
/// those of the value: a delete that lost to an equal revision was not told, nor one that lost to
/// a put of the very value that the tombstone kept.
#[test]
fn revision_tells_of_a_delete_that_lost() {
    let mut authority = Authority::new(Policy::Revision);
    authority.decide(A, &ranked(1, 0, put(&[("x", 1)])));
    authority.decide(B, &ranked(2, 0, Action::Delete));
    let outcome = authority.decide(A, &ranked(2, 1, put(&[("x", 1)])));
    let [lost] = &outcome.conflicts[..] else { panic!("one conflict: {outcome:?}") };
    assert_eq!((lost.loser, lost.loser_deletes), (Mark { seq: 2, writer: B }, true));
    let outcome = authority.decide(B, &ranked(2, 2, Action::Delete));
    let [lost] = &outcome.conflicts[..] else { panic!("one conflict: {outcome:?}") };
    assert_eq!((lost.loser.writer, lost.winner_deletes), (A, true));
    assert_eq!(lost.fields.len(), 1);
}

/// Section 4, `strict`: a stale op, also with one stale field, is superseded whatever the policy;
/// a create on anything is superseded. The story: `revision` tables did not look at it.
#[test]
fn strict_supersedes_whatever_is_stale_under_every_policy() {
    for policy in ALL {
        let start = || {
            let mut authority = Authority::with(policy, &[("x", 0), ("y", 0)]);
            authority.decide(B, &Op { base: 5, ..ranked(2, 1, put(&[("x", 6), ("y", 0)])) });
            authority.strict = true;
            authority
        };
        let actions = [put(&[("x", 9)]), Action::Delete, create(&[("x", 9)]), replace(&[("x", 9)])];
        for action in actions {
            let mut authority = start();
            let by_create = matches!(action, Action::Create { .. });
            let outcome = authority.decide(A, &Op { base: 5, ..ranked(9, 9, action.clone()) });
            let reason = if by_create { Superseded::Exists } else { Superseded::Stale };
            assert_eq!(
                outcome.verdict,
                Verdict::Superseded { by: 6, reason },
                "{policy:?} {action:?}"
            );
            let mut authority = start();
            if !by_create {
                let outcome = authority.decide(A, &Op { base: 6, ..ranked(9, 9, action) });
                assert_eq!(outcome.verdict, applied(), "{policy:?}");
            }
        }
        let mut tombstone = start();
        tombstone.decide(B, &Op { base: 6, ..ranked(3, 1, Action::Delete) });
        let outcome = tombstone.decide(A, &ranked(9, 9, create(&[("x", 9)])));
        let reason = Superseded::Exists;
        assert_eq!(outcome.verdict, Verdict::Superseded { by: 7, reason }, "{policy:?}");
    }
    for policy in BASED {
        let mut authority = Authority::with(policy, &[("x", 0), ("y", 0)]);
        authority.takes(B, 5, patch(&[("x", 6)]));
        authority.strict = true;
        authority.refuses(A, 5, patch(&[("x", 7), ("y", 7)]), Superseded::Stale, true);
        authority.takes(A, 5, patch(&[("y", 7)]));
        authority.row = None;
        authority.takes(A, 5, create(&[("y", 7)]));
    }
}

/// Section 3: a conflict row has the stamps, the policy and both sides, each inline up to 4 KiB,
/// else where to read it; and it says when it expires.
#[test]
fn a_conflict_row_says_who_lost_what_to_whom() {
    let long = |byte: u8| Field::new("long", &Value::Bytes(vec![byte; MAX_CONFLICT_INLINE_BYTES]));
    let mut authority = Authority::with(Policy::Arrival, &[("x", 0)]);
    let set = vec![field("x", 6), long(1)];
    authority.takes(B, 5, Action::Patch { set, remove: vec![] });
    let set = vec![field("x", 7), long(2)];
    let lost = authority.takes_over(A, 5, Action::Patch { set, remove: vec![] }, &[B]);
    let (table, key) = (TableName::new("t").unwrap(), Key::new("k").unwrap());
    let row = conflict_record(&table, &key, &lost[0], Policy::Arrival, 1000);
    assert_eq!(row.check_untrusted(), Ok(()));
    let text = |text: &str| Some(Value::Text(text.into()));
    assert_eq!((row.get("table"), row.get("key")), (text("t"), text("k")));
    assert_eq!((row.get("reason"), row.get("policy")), (text("overwritten"), text("arrival")));
    assert_eq!(row.get("winning_seq"), Some(Value::Int(7)));
    assert_eq!(row.get("losing_seq"), Some(Value::Int(6)));
    assert_eq!(row.get("losing_device"), text(&B.to_string()));
    assert_eq!(row.get("expires_ms"), Some(Value::Int(1000 + HISTORY_WINDOW_MS)));
    assert_eq!(row.get("fields_left_out"), None);
    let map = |entries: Vec<(&str, Value)>| {
        Value::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    };
    let size = MAX_CONFLICT_INLINE_BYTES as i64 + 4;
    let elsewhere = |seq| map(vec![("seq", Value::Int(seq)), ("size_bytes", Value::Int(size))]);
    let both = |winning, losing| map(vec![("winning", winning), ("losing", losing)]);
    let fields = map(vec![
        ("x", both(Value::Int(7), Value::Int(6))),
        ("long", both(elsewhere(7), elsewhere(6))),
    ]);
    assert_eq!(row.get("fields"), Some(fields));
}

/// I41. The story: a conflict over thousands of fields made a row of `_conflicts` that no device
/// could decode, so that nobody of the workspace could catch up any more.
#[test]
fn a_conflict_row_fits_a_record_whatever_is_disputed() {
    let wide = |prefix: char, len: usize, count: usize| {
        let name = |n: usize| format!("{prefix}{n:04}{}", "n".repeat(len - 5));
        let fields = (0..count).map(|n| field(&name(n), 1 << 40));
        Action::Put { record: Record::from_fields(fields.collect()) }
    };
    for (len, count) in [(5, 4000), (1000, 200), (40, 4000)] {
        let mut authority = Authority::with(Policy::Arrival, &[("x", 0)]);
        authority.takes(B, 5, wide('b', len, count));
        let lost = authority.takes_over(A, 5, wide('a', len, count), &[B]);
        let (table, key) = (TableName::new("t").unwrap(), Key::new("k").unwrap());
        let row = conflict_record(&table, &key, &lost[0], Policy::Arrival, 1000);
        assert_eq!(row.check_untrusted(), Ok(()));
        assert_eq!(row.check_size(), Ok(()));
        let Some(Value::Map(fields)) = row.get("fields") else { panic!("fields are a map") };
        let Some(Value::Int(left_out)) = row.get("fields_left_out") else { panic!("a count") };
        assert!(fields.len() >= 50);
        assert_eq!(fields.len() + usize::try_from(left_out).unwrap(), lost[0].fields.len());
    }
}

proptest! {
    #![proptest_config(crate::cases())]

    /// Section 3, exactly once by key: another table, record, losing device or pair of seqs is
    /// another key, and the same conflict always the same.
    #[test]
    fn a_conflict_has_one_key(
        one in (0..3_u8, 0..3_u8, 1..5_u64, 1..5_u64, 0..2_u8),
        two in (0..3_u8, 0..3_u8, 1..5_u64, 1..5_u64, 0..2_u8),
    ) {
        let key = |(table, device, older, gap, name): (u8, u8, u64, u64, u8)| {
            let conflict = Conflict {
                winner: Mark { seq: older + gap, writer: A },
                loser: Mark { seq: older, writer: DeviceId([device; 16]) },
                reason: "overwritten",
                loser_deletes: false,
                winner_deletes: false,
                fields: vec![],
            };
            let table = TableName::new(["t", "tk", "t2"][usize::from(table)]).unwrap();
            conflict_key(&table, &Key::new(["k", "kk"][usize::from(name)]).unwrap(), &conflict)
        };
        prop_assert_eq!(key(one) == key(two), one == two);
    }
}
