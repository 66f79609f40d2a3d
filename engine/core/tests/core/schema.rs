//! What a schema may say, how it may change, and what its tables decide.

use lastword_core::codec::{DecodeError, from_bytes, to_bytes};
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, TableName};
use lastword_core::limits::{MAX_SCHEMA_FIELDS, MAX_SCHEMA_TABLES};
use lastword_core::op::{Action, Op};
use lastword_core::row::Row;
use lastword_core::rules::{At, Outcome, Policy, TableRules, Writer, apply, decide};
use lastword_core::schema::{FixedRule, Schema, SchemaError, TableSchema};
use lastword_core::stamp::{Superseded, Verdict};
use proptest::prelude::*;

use crate::rules::{A, B, create, op, patch, put, record, remove, replace};
use crate::samples;

fn name(table: &str) -> TableName {
    TableName::new(table).unwrap()
}

fn schema(tables: &[(&str, TableSchema)]) -> Schema {
    let tables = tables.iter().map(|(table, schema)| (name(table), schema.clone()));
    Schema::new(0, tables).unwrap()
}

fn id() -> TableSchema {
    TableSchema::new("id")
}

fn under(policy: Policy) -> TableSchema {
    TableSchema { policy, ..id() }
}

#[track_caller]
fn forbidden(old: &Schema, new: TableSchema) -> FixedRule {
    match old.replaced_by(&schema(&[("notes", new)])) {
        Err(SchemaError::Forbidden { table, rule, .. }) if table == name("notes") => rule,
        other => panic!("not refused: {other:?}"),
    }
}

/// Semantics, section 7: key field, locality and `revision` are immutable; the other rules of a
/// table may change.
#[test]
fn what_holds_for_ever_cannot_change() {
    let old = schema(&[("notes", id())]);
    assert_eq!(forbidden(&old, TableSchema::new("key")), FixedRule::KeyField);
    assert_eq!(forbidden(&old, TableSchema { local: true, ..id() }), FixedRule::Locality);
    assert_eq!(forbidden(&old, under(Policy::Revision)), FixedRule::Revision);
    let revision = schema(&[("notes", under(Policy::Revision))]);
    assert_eq!(forbidden(&revision, under(Policy::ServerWins)), FixedRule::Revision);
    let local = schema(&[("notes", TableSchema { local: true, ..id() })]);
    assert_eq!(forbidden(&local, id()), FixedRule::Locality);
    let private = |field: &str| TableSchema { private_by: Some(field.into()), ..id() };
    assert_eq!(forbidden(&old, private("user")), FixedRule::Privacy);
    let of_users = schema(&[("notes", private("user"))]);
    assert_eq!(forbidden(&of_users, private("owner")), FixedRule::Privacy);
    assert_eq!(forbidden(&of_users, id()), FixedRule::Privacy);

    let other = TableSchema {
        content_keyed: true,
        server_owned: vec!["size".into()],
        blob_fields: vec!["file".into()],
        ..under(Policy::ServerWins)
    };
    let next = old.replaced_by(&schema(&[("notes", other.clone())])).unwrap();
    assert_eq!(next.table(&name("notes")), Some(&other));
}

/// Semantics, section 7: the name of a removed table is not given to one of other rules, however
/// many schemas came in between.
#[test]
fn the_name_of_a_removed_table_is_taken() {
    let first = schema(&[("notes", under(Policy::ServerWins)), ("kv", id())]);
    let without = schema(&[("kv", id())]);
    let second = first.replaced_by(&without).unwrap();
    assert_eq!(second.table(&name("notes")), None);
    assert!(second.is_retired(&name("notes")));
    // What was written under it keeps its rules.
    assert_eq!(second.rules_of(&name("notes")).policy, Policy::ServerWins);
    let third = second.replaced_by(&without).unwrap();
    assert_eq!(third, second);
    let third: Schema = from_bytes(&to_bytes(&third)).unwrap();
    assert_eq!(forbidden(&third, id()), FixedRule::Retired);
    assert_eq!(forbidden(&third, TableSchema::new("key")), FixedRule::KeyField);
    let back = third.replaced_by(&first).unwrap();
    assert_eq!(back, first);
}

/// R1.8: an error names the table and says what to write instead.
#[test]
fn a_schema_that_breaks_a_rule_is_an_error_that_names_its_table() {
    let wrong = |table: TableSchema| match Schema::new(0, [(name("notes"), table)]) {
        Err(error) => error.to_string(),
        Ok(schema) => panic!("taken: {schema:?}"),
    };
    let many: Vec<String> = (0..=MAX_SCHEMA_FIELDS).map(|n| n.to_string()).collect();
    let own = |fields: &[&str]| fields.iter().map(|field| String::from(*field)).collect();
    for (table, says) in [
        (TableSchema::new(""), "key field needs a name"),
        (TableSchema { server_owned: many.clone(), ..id() }, "at most 64"),
        (TableSchema { blob_fields: many, ..id() }, "at most 64"),
        (TableSchema { server_owned: own(&["a", "b", "a"]), ..id() }, "twice"),
        (TableSchema { server_owned: own(&["id"]), ..id() }, "its key field"),
        (TableSchema { blob_fields: own(&[""]), ..id() }, "needs a name"),
        (TableSchema { local: true, ..under(Policy::Revision) }, "leave policy"),
        (TableSchema { local: true, server_owned: own(&["a"]), ..id() }, "leave policy"),
        (TableSchema { local: true, private_by: Some("a".into()), ..id() }, "private_by out"),
        (TableSchema { private_by: Some(String::new()), ..id() }, "private_by: field"),
        (
            TableSchema { private_by: Some("a".into()), server_owned: own(&["a"]), ..id() },
            "cannot own it",
        ),
    ] {
        let message = wrong(table);
        assert!(message.starts_with("table notes: ") && message.contains(says), "{message}");
    }
    let reserved = Schema::new(0, [(name("_mine"), id())]).unwrap_err();
    assert_eq!(reserved, SchemaError::Reserved { table: name("_mine") });
    let twice = Schema::new(0, [(name("kv"), id()), (name("kv"), id())]).unwrap_err();
    assert_eq!(twice, SchemaError::Twice { table: name("kv") });
    let tables = (0..=MAX_SCHEMA_TABLES).map(|n| (name(&format!("t{n}")), id()));
    let error = Schema::new(0, tables).unwrap_err();
    let (len, limit) = (MAX_SCHEMA_TABLES + 1, MAX_SCHEMA_TABLES);
    assert_eq!(error, SchemaError::TooManyTables { len, limit });
}

/// Section 8 of the design: a schema has one form, so bytes can be compared, and what an
/// authority sends is checked like anything from the network.
#[test]
fn a_second_form_of_a_schema_does_not_decode() {
    let good = to_bytes(&schema(&[("a", id()), ("b", id())]));
    assert!(from_bytes::<Schema>(&good).is_ok());
    let swapped: Vec<u8> = good
        .iter()
        .map(|byte| match byte {
            b'a' => b'b',
            b'b' => b'a',
            other => *other,
        })
        .collect();
    let other_layout = [&[2], &good[1..]].concat();
    let flags_at = good.iter().position(|byte| *byte == b'a').unwrap() + 1;
    let mut flags = good.clone();
    flags[flags_at] = 16;
    for bytes in [swapped, other_layout, flags] {
        let error = from_bytes::<Schema>(&bytes).unwrap_err();
        assert!(matches!(error, DecodeError::Invalid { .. }), "{error}");
    }
}

/// Semantics 5, I38: who sees other rows has another cover, and who sees everything has that of
/// zeros. Anything else in a schema changes no cover: a change of it must cost no new copy.
#[test]
fn a_cover_says_who_sees_other_rows() {
    let private = |field: &str| TableSchema { private_by: Some(field.into()), ..id() };
    let whole = schema(&[("notes", id())]);
    assert_eq!(whole.cover("ann"), [0; 16]);
    assert_eq!(whole.cover("bob"), [0; 16]);
    let one = schema(&[("notes", id()), ("inbox", private("user"))]);
    let covers = [
        [0; 16],
        one.cover("ann"),
        one.cover("bob"),
        schema(&[("inbox", private("owner"))]).cover("ann"),
        schema(&[("inbox", private("user")), ("kv", private("user"))]).cover("ann"),
        schema(&[("outbox", private("user"))]).cover("ann"),
    ];
    let different: std::collections::BTreeSet<_> = covers.iter().collect();
    assert_eq!(different.len(), covers.len());
    let inbox = TableSchema { policy: Policy::ServerWins, ..private("user") };
    let same = schema(&[("inbox", inbox), ("more", id())]);
    assert_eq!(same.cover("ann"), one.cover("ann"));
    // What is left of a table that was removed is hidden as before.
    let removed = one.replaced_by(&whole).unwrap();
    assert_eq!(removed.cover("ann"), one.cover("ann"));
}

proptest! {
    #![proptest_config(crate::cases())]

    /// I15: no byte of a schema from the network brings the reader down, and what it reads is in
    /// its one form.
    #[test]
    fn a_changed_schema_is_refused_or_read_as_it_is_written(at in 0..400_usize, to in any::<u8>()) {
        let mut bytes = to_bytes(&samples::schema());
        let len = bytes.len();
        bytes[at % len] = to;
        if let Ok(schema) = from_bytes::<Schema>(&bytes) {
            prop_assert_eq!(to_bytes(&schema), bytes);
        }
    }
}

/// One record of a table with server-owned fields.
struct Owned {
    row: Option<Row>,
    seq: u64,
    rules: TableRules<'static>,
}

impl Owned {
    /// Written by A at seq 1, then the server set `o` to 7 at seq 2.
    fn new(policy: Policy) -> Self {
        let owned: &'static [String] = Box::leak(Box::new(["o".to_owned()]));
        let rules = TableRules { server_owned: owned, ..policy.into() };
        let mut new = Self { row: None, seq: 0, rules };
        new.decides(A, ranked(0, 1, create(&[("x", 1)])));
        let own = match policy {
            Policy::Revision => put(&[("x", 1), ("o", 7)]),
            _ => patch(&[("o", 7)]),
        };
        new.decides(DeviceId::AUTHORITY, ranked(1, 2, own));
        assert_eq!(new.fields(), record(&[("x", 1), ("o", 7)]));
        new
    }

    fn decides(&mut self, device: DeviceId, op: Op) -> Outcome {
        self.seq += 1;
        let (seq, time_ms) = (self.seq, 5);
        let at = At { seq, time_ms, op_id: BatchId((u128::from(seq) << 64).to_be_bytes()) };
        let writer = Writer { device, former: &[], strict: false };
        let outcome = decide(self.row.as_ref(), &op, &writer, &at, self.rules).unwrap();
        self.row = outcome.row.clone().or(self.row.take());
        outcome
    }

    fn fields(&self) -> lastword_core::value::Record {
        self.row.as_ref().filter(|row| !row.deleted).unwrap().record.clone()
    }
}

fn ranked(base: u64, revision: u64, action: Action) -> Op {
    Op { revision, hlc: Hlc(revision), ..op(base, action) }
}

fn dropped(names: &[&str]) -> Verdict {
    Verdict::Applied { dropped: names.iter().map(|name| String::from(*name)).collect() }
}

const ALL: [Policy; 3] = [Policy::Arrival, Policy::ServerWins, Policy::Revision];

/// Semantics, section 1: a client's op neither sets nor clears a server-owned field, and its
/// verdict names what had no effect. A new life begins without them.
#[test]
fn a_client_neither_sets_nor_clears_a_server_owned_field() {
    for policy in ALL {
        let mut table = Owned::new(policy);
        let outcome = table.decides(A, ranked(2, 3, put(&[("x", 2)])));
        assert_eq!((outcome.verdict, outcome.conflicts), (dropped(&["o"]), vec![]), "{policy:?}");
        assert_eq!(table.fields(), record(&[("x", 2), ("o", 7)]));
        let outcome = table.decides(A, ranked(3, 4, put(&[("o", 8), ("x", 3)])));
        assert_eq!(outcome.verdict, dropped(&["o"]));
        assert_eq!(table.fields(), record(&[("o", 7), ("x", 3)]));
        let outcome = table.decides(A, ranked(4, 5, put(&[("x", 4), ("o", 7)])));
        assert_eq!(outcome.verdict, dropped(&[]), "it is what it says");
        let outcome = table.decides(A, ranked(5, 6, replace(&[("x", 5), ("o", 9)])));
        assert_eq!(outcome.verdict, dropped(&["o"]));
        assert_eq!(table.fields(), record(&[("x", 5)]), "{policy:?}: a new life");
        table.decides(A, ranked(6, 7, Action::Delete));
        let outcome = table.decides(B, ranked(7, 8, create(&[("o", 1), ("x", 6)])));
        assert_eq!(outcome.verdict, dropped(&["o"]));
        assert_eq!(table.fields(), record(&[("x", 6)]));
    }
    for policy in [Policy::Arrival, Policy::ServerWins] {
        let mut table = Owned::new(policy);
        let outcome = table.decides(A, op(2, patch(&[("x", 2), ("o", 8)])));
        assert_eq!((outcome.verdict, outcome.conflicts), (dropped(&["o"]), vec![]));
        let outcome = table.decides(A, op(3, remove(&["o"])));
        assert_eq!((outcome.verdict, outcome.conflicts), (dropped(&["o"]), vec![]));
        assert_eq!(table.fields(), record(&[("x", 2), ("o", 7)]));
    }
}

/// Semantics, section 1: server-owned fields never make a client's patch stale, and no conflict
/// speaks of them.
#[test]
fn server_owned_fields_are_no_matter_of_conflict() {
    for policy in [Policy::Arrival, Policy::ServerWins] {
        let mut table = Owned::new(policy);
        let outcome = table.decides(B, op(1, patch(&[("x", 2), ("o", 8)])));
        assert_eq!((outcome.verdict, outcome.conflicts), (dropped(&["o"]), vec![]), "{policy:?}");
        let outcome = table.decides(A, op(1, create(&[("x", 2), ("o", 5)])));
        let reason = Superseded::Exists;
        assert_eq!(outcome.verdict, Verdict::Superseded { by: 3, reason });
        assert_eq!(outcome.conflicts, vec![], "only the server's field differs");
    }
    let mut table = Owned::new(Policy::ServerWins);
    table.decides(B, op(2, patch(&[("x", 2), ("y", 2)])));
    let outcome = table.decides(A, op(2, patch(&[("x", 3), ("z", 3), ("o", 3)])));
    assert_eq!(outcome.verdict, dropped(&["x", "o"]));
    assert_eq!(outcome.conflicts.len(), 1);
    assert_eq!(outcome.conflicts[0].fields.len(), 1);
    // A patch of which nothing but the server's field is left loses as if it had not named it.
    let outcome = table.decides(B, op(2, patch(&[("z", 4), ("o", 4)])));
    assert_eq!(outcome.verdict, Verdict::Superseded { by: 4, reason: Superseded::Stale });
}

/// I25, semantics, section 1. The story: a delete that had not seen a whole write of B and an edit
/// of C recorded a conflict with C; had the server set a field of the record, it recorded an empty
/// one with B as well, as if B had written that field.
#[test]
fn a_delete_takes_nothing_of_the_server_from_a_client() {
    let c = DeviceId([3; 16]);
    let losers = |sets: bool| {
        let Owned { rules, .. } = Owned::new(Policy::Arrival);
        let mut table = Owned { row: None, seq: 0, rules };
        table.decides(B, op(0, create(&[])));
        table.decides(B, op(1, put(&[])));
        table.decides(c, op(1, remove(&["a"])));
        if sets {
            table.decides(DeviceId::AUTHORITY, op(3, patch(&[("o", 7)])));
        }
        let conflicts = table.decides(A, op(1, Action::Delete)).conflicts;
        conflicts.into_iter().map(|conflict| conflict.loser.writer).collect::<Vec<_>>()
    };
    assert_eq!(losers(false), [c]);
    assert_eq!(losers(true), [c]);
}

/// Semantics, section 1 (a trap of the design: a set that left a stamp made the whole writes of
/// everybody stale). What the authority sets is nobody's edit: the row moves in the stream and
/// nothing else tells of it, so no op is stale, superseded or in conflict because of it.
#[test]
fn a_set_of_the_authority_is_no_edit() {
    for policy in ALL {
        let mut table = Owned::new(policy);
        table.decides(A, ranked(2, 3, put(&[("x", 1)])));
        let before = table.row.clone().unwrap();
        let at = At { seq: 9, time_ms: 9, op_id: BatchId::default() };
        let set = |row: &Row, action: Action| {
            let op = ranked(0, 0, action);
            apply(Some(row), &op, DeviceId::AUTHORITY, &at, table.rules, &[]).unwrap()
        };
        let row = set(&before, patch(&[("o", 8)]));
        let expected = record(&[("x", 1), ("o", 8)]);
        // Under that policy a tuple names one value, so this one has the next.
        let id = u128::from_be_bytes(before.op_id.0) + u128::from(policy == Policy::Revision);
        let op_id = BatchId(id.to_be_bytes());
        assert_eq!(row, Row { set_at: 9, record: expected, op_id, ..before.clone() });
        assert_eq!((row.stream_seq(), before.stream_seq()), (9, 3));
        assert_eq!(set(&row, remove(&["o"])).record, record(&[("x", 1)]));
        let mixed = set(&before, patch(&[("o", 8), ("x", 2)]));
        assert_eq!((mixed.set_at, mixed.last.seq), (0, 9), "an edit like any other");
        assert_eq!(from_bytes::<Row>(&to_bytes(&row)).as_ref(), Ok(&row));
        let early = Row { set_at: 3, ..row.clone() };
        assert!(from_bytes::<Row>(&to_bytes(&early)).is_err(), "a set behind the row is none");
        for (strict, action) in [true, false].into_iter().flat_map(|strict| {
            [put(&[("x", 5)]), Action::Delete, replace(&[("x", 5)])].map(|action| (strict, action))
        }) {
            if strict && matches!(action, Action::Create { .. }) {
                continue;
            }
            let writer = Writer { device: B, former: &[], strict };
            let at = At { seq: 10, ..at };
            let op = ranked(3, 4, action);
            let outcome = decide(Some(&row), &op, &writer, &at, table.rules).unwrap();
            assert!(matches!(outcome.verdict, Verdict::Applied { .. }), "{policy:?} {op:?}");
            assert_eq!(outcome.conflicts, vec![], "{policy:?} {op:?}");
            assert_eq!(outcome.row.unwrap().set_at, 0);
        }
    }
}

/// Semantics, section 1: in a table whose keys say what the record is, a second create loses
/// silently, under every policy; another op that loses is told as always.
#[test]
fn a_second_create_in_a_content_keyed_table_is_silent() {
    for policy in ALL {
        let mut table = Owned::new(policy);
        table.rules.content_keyed = true;
        let outcome = table.decides(B, ranked(0, 1, create(&[("x", 9)])));
        assert!(matches!(outcome.verdict, Verdict::Superseded { .. }), "{policy:?}");
        assert_eq!(outcome.conflicts, vec![], "{policy:?}");
        table.rules.content_keyed = false;
        let outcome = table.decides(B, ranked(0, 1, create(&[("x", 9)])));
        assert_eq!(outcome.conflicts.len(), 1, "{policy:?}");
    }
    let mut table = Owned::new(Policy::Revision);
    table.rules.content_keyed = true;
    let outcome = table.decides(B, Op { hlc: Hlc(9), ..ranked(0, 2, create(&[("x", 9)])) });
    assert_eq!((outcome.verdict, outcome.conflicts), (dropped(&["o"]), vec![]));
    let outcome = table.decides(A, ranked(0, 1, put(&[("x", 8)])));
    assert_eq!(outcome.conflicts.len(), 1, "a put that loses is told");
}

/// Semantics, section 2. The story: a delete kept the record below it, so a replica that got it
/// over another version than its authority had another row, and another digest, for 400 days.
#[test]
fn a_revision_tombstone_is_the_same_whatever_was_below() {
    let tombstone = |before: &[(u64, Action)]| {
        let mut table = Owned { row: None, seq: 0, rules: Policy::Revision.into() };
        for (revision, action) in before {
            table.decides(B, ranked(0, *revision, action.clone()));
        }
        table.seq = 8;
        table.decides(A, ranked(0, 9, Action::Delete));
        table.row.unwrap()
    };
    let over_nothing = tombstone(&[]);
    assert_eq!(over_nothing.record, record(&[]));
    assert_eq!(tombstone(&[(1, create(&[("x", 1)]))]), over_nothing);
    assert_eq!(tombstone(&[(1, create(&[("x", 1)])), (2, put(&[("y", 2)]))]), over_nothing);
    assert_eq!(tombstone(&[(1, create(&[("x", 1)])), (2, Action::Delete)]), over_nothing);
}
