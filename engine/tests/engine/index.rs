//! Indexes: their order, and that they always say what the rows say.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use lastword::core::id::{Key, TableName};
use lastword::core::value::{Record, Value};
use lastword::{Database, Error, Index, Query, Table};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::support::{BY_THREAD, DRAFTS, Fixture, MESSAGES, Message, message, open};

/// Only the key is typed, so that the other fields can hold anything.
#[derive(Serialize, Deserialize, Debug, Clone)]
struct Thing {
    id: String,
}

const THINGS: Table<Thing> = Table::new("things", "id");
const BY_A_B: Index<Thing> = THINGS.index("by_a_b", &["a", "b"]);

fn keys<T: serde::de::DeserializeOwned>(fixture: &Fixture, query: &Query<T>) -> Vec<String> {
    let rows = fixture.ws.query(query).unwrap();
    rows.iter().map(|row| row.key().to_owned()).collect()
}

fn write_messages(fixture: &Fixture) {
    let places = [("m1", "t1", 3), ("m2", "t2", 1), ("m3", "t1", -1), ("m4", "t1", 20)];
    fixture
        .ws
        .write(|tx| {
            places
                .iter()
                .try_for_each(|(id, thread, index)| tx.put(MESSAGES, &message(id, thread, *index)))
        })
        .unwrap();
}

/// A query is the same rows whether it is read, counted, turned round or cut.
#[test]
fn queries_find_their_rows_in_order() {
    let fixture = Fixture::new();
    write_messages(&fixture);
    assert_eq!(keys(&fixture, &BY_THREAD.prefix("t1")), ["m3", "m1", "m4"]);
    assert_eq!(keys(&fixture, &BY_THREAD.prefix("t1").rev().limit(2)), ["m4", "m1"]);
    assert_eq!(keys(&fixture, &BY_THREAD.prefix(("t1", 3))), ["m1"]);
    assert_eq!(keys(&fixture, &BY_THREAD.prefix(("t1", 3.0))), ["m1"]);
    assert_eq!(keys(&fixture, &BY_THREAD.prefix("t")), [""; 0]);
    assert_eq!(keys(&fixture, &BY_THREAD.all()), ["m3", "m1", "m4", "m2"]);
    assert_eq!(keys(&fixture, &MESSAGES.all().rev()), ["m4", "m3", "m2", "m1"]);
    assert_eq!(keys(&fixture, &MESSAGES.range("m2".."m4")), ["m2", "m3"]);
    assert_eq!(keys(&fixture, &MESSAGES.range("m2"..="m4").rev().limit(1)), ["m4"]);
    assert_eq!(keys(&fixture, &MESSAGES.range("m4".."m2")), [""; 0]);
    assert_eq!(keys(&fixture, &MESSAGES.prefix("m")).len(), 4);
    assert_eq!(keys(&fixture, &MESSAGES.prefix("m1")), ["m1"]);

    let view = fixture.ws.read().unwrap();
    fixture.ws.write(|tx| tx.delete(MESSAGES, "m3")).unwrap();
    fixture.ws.write(|tx| tx.update(MESSAGES, "m4", |m| m.thread_id = "t2".into())).unwrap();
    assert_eq!(keys(&fixture, &BY_THREAD.all()), ["m1", "m2", "m4"]);
    assert_eq!(fixture.ws.count(&BY_THREAD.prefix("t1")).unwrap(), 1);
    assert_eq!(view.count(&BY_THREAD.prefix("t1")).unwrap(), 3, "a view does not move");
    fixture.ws.write(|tx| tx.undelete(MESSAGES, "m3")).unwrap();
    assert_eq!(keys(&fixture, &BY_THREAD.prefix("t1")), ["m3", "m1"]);
}

/// A range over an index is the rows between two values of one field, in order, turned round or
/// cut, whatever kind of bounds it has (B8).
#[test]
fn a_range_of_an_index_finds_what_lies_between() {
    let fixture = Fixture::new();
    write_messages(&fixture);
    assert_eq!(keys(&fixture, &BY_THREAD.range("t1", 0..20)), ["m1"]);
    assert_eq!(keys(&fixture, &BY_THREAD.range("t1", 0..=20)), ["m1", "m4"]);
    assert_eq!(keys(&fixture, &BY_THREAD.range("t1", -1..)), ["m3", "m1", "m4"]);
    assert_eq!(keys(&fixture, &BY_THREAD.range("t1", ..20_i64).rev()), ["m1", "m3"]);
    assert_eq!(keys(&fixture, &BY_THREAD.range("t1", -1..=20).rev().limit(2)), ["m4", "m1"]);
    let (low, high) = (0, 20);
    assert_eq!(keys(&fixture, &BY_THREAD.range("t1", high..low)), [""; 0]);
    assert_eq!(keys(&fixture, &BY_THREAD.range((), "t1".."t2")), ["m3", "m1", "m4"]);
    assert_eq!(keys(&fixture, &BY_THREAD.range((), "t11"..)), ["m2"]);
    let behind = (Bound::Excluded("t1"), Bound::<&str>::Unbounded);
    assert_eq!(keys(&fixture, &BY_THREAD.range::<&str>((), behind)), ["m2"]);
    assert_eq!(fixture.ws.count(&BY_THREAD.range("t1", 0..)).unwrap(), 2);
    assert_eq!(fixture.ws.count(&BY_THREAD.range("t1", 0..).limit(1)).unwrap(), 1);
    assert_eq!(fixture.ws.count(&BY_THREAD.range("t1", 0..).limit(0)).unwrap(), 0);

    let too_many = fixture.ws.count(&BY_THREAD.range(("t1", 3), 0..));
    assert!(matches!(too_many, Err(Error::Declaration { .. })), "{too_many:?}");
    let list = Value::List(vec![]);
    let no_order = fixture.ws.count(&BY_THREAD.range("t1", list..));
    assert!(matches!(no_order, Err(Error::Declaration { .. })), "{no_order:?}");
}

/// What an index cannot hold is refused where it is written, and a wrong use of an index says so.
#[test]
fn an_index_refuses_what_has_no_order() {
    let fixture = Fixture::new();
    let (table, key) = (TableName::new("messages").unwrap(), Key::new("m1").unwrap());
    let record = |thread: Value| {
        let entries = [("id".into(), Value::Text("m1".into())), ("thread_id".into(), thread)];
        let index = ("index".into(), Value::Int(1));
        Record::new(&[&entries[..], &[index]].concat()).unwrap()
    };
    for value in [Value::List(vec![]), Value::Map(vec![]), Value::Text("x".repeat(5000))] {
        let record = record(value);
        let written = fixture.ws.write(|tx| tx.put_record(&table, &key, record.clone()));
        assert!(matches!(written, Err(Error::Index { .. })), "{written:?}");
    }
    let null = record(Value::Null);
    fixture.ws.write(|tx| tx.put_record(&table, &key, null.clone())).unwrap();
    assert_eq!(fixture.ws.count(&BY_THREAD.prefix(Value::Null)).unwrap(), 1);

    const OTHER: Index<Message> = MESSAGES.index("by_thread", &["thread_id"]);
    const UNKNOWN: Index<Message> = MESSAGES.index("unknown", &["body"]);
    const EMPTY: Index<Message> = MESSAGES.index("empty", &[]);
    const TWICE: Index<Message> = MESSAGES.index("twice", &["body", "body"]);
    let declared = |result: lastword::Result<usize>| {
        assert!(matches!(result, Err(Error::Declaration { .. })), "{result:?}");
    };
    declared(fixture.ws.count(&OTHER.all()));
    declared(fixture.ws.count(&UNKNOWN.all()));
    declared(fixture.ws.count(&BY_THREAD.prefix(("a", "b", "c"))));
    declared(fixture.ws.count(&BY_THREAD.prefix(Value::List(vec![]))));
    for index in [OTHER, EMPTY, TWICE] {
        let dir = tempfile::tempdir().unwrap();
        let opened = Database::builder().index(BY_THREAD).index(index).open(dir.path().join("x"));
        declared(opened.map(|_| 0));
    }
}

/// A record that lacks an indexed field is in the table and not in the index.
#[test]
fn a_record_without_the_field_is_not_in_the_index() {
    let fixture = Fixture::new();
    let (table, key) = (TableName::new("messages").unwrap(), Key::new("m1").unwrap());
    let record = Record::new(&[("id".into(), Value::Text("m1".into()))]).unwrap();
    fixture.ws.write(|tx| tx.put_record(&table, &key, record.clone())).unwrap();
    assert_eq!(fixture.ws.count(&BY_THREAD.all()).unwrap(), 0);
    assert_eq!(fixture.ws.count(&MESSAGES.all()).unwrap(), 1);
}

/// An index that an app declares later finds what was written before it (I13), in synced and local
/// tables; without a change of the declarations nothing is rebuilt, and an index that is no longer
/// declared costs nothing.
#[test]
fn a_new_index_finds_what_was_written_before() {
    const BY_BODY: Index<Message> = DRAFTS.index("by_body", &["body"]);
    let dir = tempfile::tempdir().unwrap();
    let plain = || Database::builder().tables((MESSAGES, DRAFTS));
    let path = dir.path().join("db");
    let db = plain().open(&path).unwrap();
    let fixture = Fixture { ws: db.workspace("main").unwrap(), db, dir };
    write_messages(&fixture);
    fixture.ws.write(|tx| tx.delete(MESSAGES, "m1")).unwrap();
    fixture.ws.write(|tx| tx.put(DRAFTS, &message("d1", "t1", 1))).unwrap();
    fixture.db.close().unwrap();
    let Fixture { dir, .. } = fixture;

    for (builder, rebuilt) in [
        (plain().index(BY_THREAD).index(BY_BODY), true),
        (plain().index(BY_BODY).index(BY_THREAD), false),
        (plain(), true),
        (plain(), false),
        (plain().index(BY_BODY), true),
        (plain().index(BY_THREAD).index(BY_BODY), true),
    ] {
        let has_thread = format!("{builder:?}").contains("by_thread");
        let has_body = format!("{builder:?}").contains("by_body");
        let db = builder.open(&path).unwrap();
        assert_eq!(db.open_report().rebuilt_state, rebuilt);
        let ws = db.workspace("main").unwrap();
        assert_eq!(ws.count(&MESSAGES.all()).unwrap(), 3);
        if has_thread {
            assert_eq!(ws.count(&BY_THREAD.prefix("t1")).unwrap(), 2);
        }
        if has_body {
            assert_eq!(ws.count(&BY_BODY.prefix("body of d1")).unwrap(), 1);
        }
        db.close().unwrap();
    }
    drop(dir);
}

/// A state that was built with other indexes is never gone on with, also if the process died right
/// after it was opened: the tail of its log would be missing in the index (I13).
#[test]
fn a_crash_after_a_new_declaration_loses_no_entry() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = open(dir.path());
    let ws = db.workspace("main").unwrap();
    ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    db.close().unwrap();
    drop((ws, db));
    // Opened without index, written to, and left as a crash leaves it: a copy of the open files.
    let db = Database::builder().tables(MESSAGES).open(&path).unwrap();
    let ws = db.workspace("main").unwrap();
    ws.write(|tx| tx.put(MESSAGES, &message("m2", "t1", 2))).unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_files(&path, &copy.path().join("db"));
    let ws = open(copy.path()).workspace("main").unwrap();
    assert_eq!(ws.count(&BY_THREAD.prefix("t1")).unwrap(), 2);
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_files(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The order of values, said in the plainest way.
fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(false) => 1,
        Value::Bool(true) => 2,
        Value::Int(_) | Value::Float(_) => 3,
        Value::Text(_) => 4,
        Value::Bytes(_) => 5,
        Value::List(_) | Value::Map(_) => panic!("not in an index"),
    };
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap(),
        (Value::Int(a), Value::Float(b)) => int_and_float(*a, *b),
        (Value::Float(a), Value::Int(b)) => int_and_float(*b, *a).reverse(),
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Exact: the whole part of a float below 2^63 is a whole number, and its rest decides a tie.
fn int_and_float(int: i64, float: f64) -> Ordering {
    if float >= 9_223_372_036_854_775_808.0 {
        return Ordering::Less;
    }
    if float < -9_223_372_036_854_775_808.0 {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    int.cmp(&(whole as i64)).then(0.0.partial_cmp(&(float - whole)).unwrap())
}

/// Values at the edges where an order goes wrong first.
fn any_value() -> impl Strategy<Value = Value> {
    let ints =
        [0, 1, -1, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, i64::MAX - 512];
    let int = prop_oneof![prop::sample::select(ints.to_vec()), any::<i64>(), -300..300_i64];
    let float = prop_oneof![
        prop::sample::select(vec![0.0, -0.0, 0.5, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324]),
        int.clone().prop_map(|near| near as f64),
        any::<f64>().prop_filter("finite", |number| number.is_finite()),
    ];
    let bytes = prop::collection::vec(prop::sample::select(vec![0, 1, 97, 254, 255]), 0..4);
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        int.prop_map(Value::Int),
        float.prop_map(Value::Float),
        prop::collection::vec(
            prop::sample::select(vec!['\0', '\u{1}', 'a', 'ÿ', '\u{10FFFF}']),
            0..4
        )
        .prop_map(|chars| Value::Text(chars.into_iter().collect())),
        bytes.prop_map(Value::Bytes),
    ]
}

fn any_bound() -> impl Strategy<Value = Bound<Value>> {
    prop_oneof![
        any_value().prop_map(Bound::Included),
        any_value().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        failure_persistence: None,
        ..Default::default()
    })]

    /// The order of an index is exactly the order of the values, for every kind of value in either
    /// place, and a prefix finds exactly the rows that are equal to it.
    #[test]
    fn an_index_has_the_exact_order_of_values(
        rows in prop::collection::btree_map("[a-c]{1,3}", (any_value(), any_value()), 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::builder().index(BY_A_B).open(dir.path().join("db")).unwrap();
        let ws = db.workspace("main").unwrap();
        let table = TableName::new("things").unwrap();
        ws.write(|tx| rows.iter().try_for_each(|(key, (a, b))| {
            let text = |text: &str| Value::Text(text.into());
            let entries =
                [("id".into(), text(key)), ("a".into(), a.clone()), ("b".into(), b.clone())];
            tx.put_record(&table, &Key::new(key)?, Record::new(&entries)?)
        })).unwrap();

        let mut expected: Vec<(&String, &(Value, Value))> = rows.iter().collect();
        expected.sort_by(|(key, (a, b)), (other_key, (other_a, other_b))| {
            compare(a, other_a).then(compare(b, other_b)).then(key.cmp(other_key))
        });
        let found = |query| -> Vec<String> {
            ws.query::<Thing>(&query).unwrap().iter().map(|row| row.key().to_owned()).collect()
        };
        let names = |rows: &[(&String, &(Value, Value))]| -> Vec<String> {
            rows.iter().map(|(key, _)| (*key).clone()).collect()
        };
        prop_assert_eq!(found(BY_A_B.all()), names(&expected));
        let mut reversed = names(&expected);
        reversed.reverse();
        prop_assert_eq!(found(BY_A_B.all().rev()), reversed);
        for (a, b) in rows.values() {
            let mut equal = expected.clone();
            equal.retain(|(_, (other, _))| compare(a, other) == Ordering::Equal);
            prop_assert_eq!(found(BY_A_B.prefix(a.clone())), names(&equal));
            equal.retain(|(_, (_, other))| compare(b, other) == Ordering::Equal);
            prop_assert_eq!(found(BY_A_B.prefix((a.clone(), b.clone()))), names(&equal));
        }
    }

    /// A range finds exactly the rows between its bounds, for every kind of value, in the first
    /// field and behind a fixed one, and counting finds as many as reading.
    #[test]
    fn a_range_finds_exactly_what_lies_between(
        rows in prop::collection::btree_map("[a-c]{1,3}", (any_value(), any_value()), 1..40),
        bounds in prop::collection::vec((any_bound(), any_bound()), 1..12),
        limit in 0..12_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::builder().index(BY_A_B).open(dir.path().join("db")).unwrap();
        let ws = db.workspace("main").unwrap();
        let table = TableName::new("things").unwrap();
        ws.write(|tx| rows.iter().try_for_each(|(key, (a, b))| {
            let id = Value::Text(key.clone());
            let entries = [("id".into(), id), ("a".into(), a.clone()), ("b".into(), b.clone())];
            tx.put_record(&table, &Key::new(key)?, Record::new(&entries)?)
        })).unwrap();
        let (first, _) = rows.values().next().unwrap();
        for (from, to) in bounds {
            let within = |value: &Value| {
                let above = match &from {
                    Bound::Included(from) => compare(from, value) != Ordering::Greater,
                    Bound::Excluded(from) => compare(from, value) == Ordering::Less,
                    Bound::Unbounded => true,
                };
                above && match &to {
                    Bound::Included(to) => compare(value, to) != Ordering::Greater,
                    Bound::Excluded(to) => compare(value, to) == Ordering::Less,
                    Bound::Unbounded => true,
                }
            };
            let range = (from.clone(), to.clone());
            let both = rows.iter().filter(|(_, (a, b))| {
                compare(a, first) == Ordering::Equal && within(b)
            });
            let cases = [
                (BY_A_B.range((), range.clone()), rows.values().filter(|(a, _)| within(a)).count()),
                (BY_A_B.range(first.clone(), range), both.count()),
            ];
            for (query, expected) in cases {
                let found = ws.query::<Thing>(&query).unwrap();
                let all = found.iter().all(|row| rows.contains_key(row.key()));
                prop_assert!(all && found.len() == expected, "{found:?}, {expected} expected");
                prop_assert_eq!(ws.count(&query).unwrap(), expected);
                let cut = ws.query::<Thing>(&query.clone().limit(limit)).unwrap().len();
                prop_assert_eq!(ws.count(&query.limit(limit)).unwrap(), cut);
            }
        }
    }

    /// After any writes the index says what a walk over the rows says (I13), also after the
    /// database was opened again and the index was built anew.
    #[test]
    fn an_index_is_equal_to_one_computed_from_the_rows(
        writes in prop::collection::vec(
            prop::collection::vec((0..6_u8, 0..5_u8, -2..3_i64), 1..4), 1..20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        let ws = db.workspace("main").unwrap();
        for batch in &writes {
            // A step that does not fit the record's state is left out of the batch.
            ws.write(|tx| batch.iter().try_for_each(|(record, step, value)| {
                let (key, thread) = (format!("m{record}"), format!("t{}", value.rem_euclid(2)));
                let done = match step {
                    0 => tx.delete(MESSAGES, &key),
                    1 => tx.undelete(MESSAGES, &key),
                    2 => tx.update(MESSAGES, &key, |message| message.index = *value),
                    3 => tx.patch(MESSAGES, &key, &BTreeMap::from([("thread_id", thread)])),
                    _ => tx.put(MESSAGES, &message(&key, &thread, *value)),
                };
                let unfit = |error: &Error| {
                    use Error::{NotDeleted, NotFound, Record};
                    matches!(error, NotFound { .. } | NotDeleted { .. } | Record { .. })
                };
                if done.as_ref().is_err_and(unfit) { Ok(()) } else { done }
            })).unwrap();
        }
        check_index(&ws)?;
        db.close().unwrap();
        drop((ws, db));
        drop(Database::builder().tables(MESSAGES).open(dir.path().join("db")).unwrap());
        let db = open(dir.path());
        prop_assert!(db.open_report().rebuilt_state);
        check_index(&db.workspace("main").unwrap())?;
    }
}

fn check_index(ws: &lastword::Workspace) -> Result<(), TestCaseError> {
    let mut expected: Vec<Message> =
        ws.query(&MESSAGES.all()).unwrap().iter().map(|row| (**row).clone()).collect();
    expected.sort_by_key(|m| (m.thread_id.clone(), m.index, m.id.clone()));
    let found: Vec<Message> =
        ws.query(&BY_THREAD.all()).unwrap().iter().map(|row| (**row).clone()).collect();
    prop_assert_eq!(found, expected);
    Ok(())
}
