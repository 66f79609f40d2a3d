//! Typed tables: what an app's type becomes and how it comes back.

use std::collections::BTreeMap;
use std::fmt;

use lastword::core::id::{Key, TableName};
use lastword::core::json;
use lastword::core::value::Value;
use lastword::{Database, Error, Settled, Table};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::support::{DRAFTS, Fixture, MESSAGES, Message, message};

/// Bytes that serialize as bytes.
#[derive(Debug, Clone, PartialEq)]
struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Raw, E> {
                Ok(Raw(bytes))
            }
        }
        from.deserialize_byte_buf(Bytes)
    }
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
enum Shape {
    Point,
    Circle(f64),
    Line(i64, i64),
    Box { width: u8, of: Option<std::boxed::Box<Shape>> },
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Wrapped(u32);

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Everything {
    key: String,
    yes: bool,
    small: i8,
    large: i64,
    unsigned: u64,
    single: f32,
    double: f64,
    letter: char,
    raw: Raw,
    none: Option<i64>,
    some: Option<String>,
    unit: (),
    pair: (i64, String),
    list: Vec<Vec<f64>>,
    by_name: BTreeMap<String, Wrapped>,
    by_number: BTreeMap<i32, bool>,
    shapes: Vec<Shape>,
}

const EVERYTHING: Table<Everything> = Table::new("everything", "key");

fn everything() -> Everything {
    Everything {
        key: "k".into(),
        yes: true,
        small: i8::MIN,
        large: i64::MIN,
        unsigned: i64::MAX as u64,
        single: 0.1,
        double: -0.0,
        letter: 'ß',
        raw: Raw(vec![0, 255, 0]),
        none: None,
        some: Some(String::new()),
        unit: (),
        pair: (7, "seven".into()),
        list: vec![vec![], vec![1.0, f64::MIN_POSITIVE, f64::MAX]],
        by_name: BTreeMap::from([("a\0b".into(), Wrapped(1)), (String::new(), Wrapped(2))]),
        by_number: BTreeMap::from([(-5, true), (5, false)]),
        shapes: vec![
            Shape::Point,
            Shape::Circle(2.5),
            Shape::Line(1, 2),
            Shape::Box { width: 3, of: Some(std::boxed::Box::new(Shape::Point)) },
        ],
    }
}

/// Nothing of a value is lost on its way through a record: floats keep their bits, `-0.0`
/// its sign, bytes stay bytes, enums and options come back as they were.
#[test]
fn a_value_comes_back_as_it_was_written() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let written = everything();
    ws.write(|tx| tx.put(EVERYTHING, &written)).unwrap();
    let row = ws.get(EVERYTHING, "k").unwrap().unwrap();
    assert_eq!(*row, written);
    assert_eq!(row.double.to_bits(), (-0.0_f64).to_bits());
    assert_eq!(row.single.to_bits(), 0.1_f32.to_bits());
    assert!(row.is_pending());
    assert_eq!((row.key(), row.seq()), ("k", None));
}

/// Records are what other languages read, so their form is fixed: fields in order, null for none,
/// enums tagged from outside, bytes as bytes.
#[test]
fn a_record_has_the_form_that_other_languages_read() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    ws.write(|tx| tx.put(EVERYTHING, &everything())).unwrap();
    let (table, key) = (TableName::new("everything").unwrap(), Key::new("k").unwrap());
    let record = ws.get_record(&table, &key).unwrap().unwrap().record;
    let names: Vec<&str> = record.fields().iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names[..4], ["key", "yes", "small", "large"]);
    let text = json::record_to_string(&record).unwrap();
    for part in [
        r#""double":-0.0"#,
        r#""raw":{"$bytes":"AP8A"}"#,
        r#""none":null,"some":"","unit":null,"pair":[7,"seven"]"#,
        r#""by_number":{"-5":true,"5":false}"#,
        r#""shapes":["Point",{"Circle":2.5},{"Line":[1,2]},{"Box":{"width":3,"of":"Point"}}]"#,
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

/// What cannot be stored is an error that says where it stands, and nothing is written.
#[test]
fn a_value_that_cannot_be_stored_names_its_path() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    type Spoil = fn(&mut Everything);
    let cases: [(&str, Spoil); 4] = [
        ("field unsigned: 9223372036854775808 does not fit", |value| value.unsigned = 1 << 63),
        ("field list[1][0]: NaN is not a finite number", |value| value.list[1][0] = f64::NAN),
        ("field single: inf is not a finite number", |value| value.single = f32::INFINITY),
        ("field shapes[1].Circle: -inf", |value| value.shapes[1] = Shape::Circle(-f64::INFINITY)),
    ];
    for (expected, spoil) in cases {
        let mut value = everything();
        spoil(&mut value);
        let error = ws.write(|tx| tx.put(EVERYTHING, &value)).unwrap_err();
        assert!(matches!(error, Error::Record { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(ws.get(EVERYTHING, "k").unwrap().is_none());
}

/// A record that another device wrote in another form is a typed error with its path, never a
/// panic or a value made up.
#[test]
fn a_record_that_is_no_t_names_the_field() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let key = Key::new("m1").unwrap();
    let table = TableName::new("everything").unwrap();
    for (text, expected) in [
        (r#"{"key":"m1","yes":3}"#, "field yes: invalid type: integer `3`, expected a boolean"),
        (r#"{"key":"m1"}"#, "missing field `yes`"),
    ] {
        let record = json::parse_record(text).unwrap();
        ws.write(|tx| tx.put_record(&table, &key, record.clone())).unwrap();
        let error = ws.get(EVERYTHING, "m1").unwrap_err();
        assert_eq!(error.to_string(), format!("everything/m1: {expected}"));
    }
}

/// An older app version changes its own fields only: what a newer version added is still there
/// (I30, B6), and a field that the older one does not touch is not in its patch.
#[test]
fn update_keeps_fields_that_the_type_does_not_know() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let (table, key) = (TableName::new("messages").unwrap(), Key::new("m6").unwrap());
    let newer = r#"{"id":"m6","thread_id":"t","mood":{"a":[1.5]},"index":1,"body":"hi"}"#;
    ws.write(|tx| tx.put_record(&table, &key, json::parse_record(newer)?)).unwrap();
    ws.write(|tx| tx.update(MESSAGES, "m6", |message| message.body.push('!'))).unwrap();

    let record = ws.get_record(&table, &key).unwrap().unwrap().record;
    let text = json::record_to_string(&record).unwrap();
    assert_eq!(text, newer.replace("hi", "hi!"));
    let history = ws.record_history(&table, &key).unwrap().versions;
    let patch = history[0].record.clone().unwrap();
    assert_eq!(json::record_to_string(&patch).unwrap(), r#"{"body":"hi!"}"#);

    let receipt = ws.write(|tx| tx.update(MESSAGES, "m6", |_| ())).unwrap();
    assert!(!receipt.is_synced(), "an edit that changes nothing writes nothing");
}

/// A type can also hold the fields that it does not know, of any kind, and write them back whole.
#[test]
fn a_type_can_hold_what_it_does_not_know() {
    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Open {
        id: String,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
    }
    const OPEN: Table<Open> = Table::new("open", "id");
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let nested = Value::Map(vec![("b".into(), Value::Bytes(vec![7])), ("a".into(), Value::Null)]);
    let rest = BTreeMap::from([
        ("bytes".into(), Value::Bytes(vec![0, 255])),
        ("float".into(), Value::Float(1.0)),
        ("int".into(), Value::Int(1)),
        ("list".into(), Value::List(vec![nested, Value::Bool(true)])),
    ]);
    let written = Open { id: "o".into(), rest };
    ws.write(|tx| tx.put(OPEN, &written)).unwrap();
    assert_eq!(*ws.get(OPEN, "o").unwrap().unwrap(), written);
}

/// A patch sets the fields it names and no others; one that would leave a record that its own app
/// cannot read is refused.
#[test]
fn patch_sets_the_fields_of_a_struct_or_map() {
    #[derive(Serialize)]
    struct Edit {
        body: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<i64>,
    }
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 4))).unwrap();
    ws.write(|tx| tx.patch(MESSAGES, "m1", &Edit { body: "new", index: None })).unwrap();
    ws.write(|tx| tx.patch(MESSAGES, "m1", &BTreeMap::from([("thread_id", "t2")]))).unwrap();
    let expected = Message { body: "new".into(), ..message("m1", "t2", 4) };
    assert_eq!(*ws.get(MESSAGES, "m1").unwrap().unwrap(), expected);

    let wrong = ws.write(|tx| tx.patch(MESSAGES, "m1", &BTreeMap::from([("index", "four")])));
    assert!(matches!(wrong, Err(Error::Record { .. })), "{wrong:?}");
    let missing = ws.write(|tx| tx.patch(MESSAGES, "m2", &BTreeMap::from([("index", 4)])));
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    assert_eq!(*ws.get(MESSAGES, "m1").unwrap().unwrap(), expected);
}

/// A record and its key cannot come apart, whichever way the record is written.
#[test]
fn the_key_field_holds_the_key() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    let (table, key) = (TableName::new("messages").unwrap(), Key::new("m1").unwrap());
    let other = json::parse_record(r#"{"id":"m2","thread_id":"t","index":1,"body":""}"#).unwrap();
    let results = [
        ws.write(|tx| tx.update(MESSAGES, "m1", |message| message.id = "m2".into())),
        ws.write(|tx| tx.patch(MESSAGES, "m1", &BTreeMap::from([("id", "m2")]))),
        ws.write(|tx| tx.put(MESSAGES, &message("", "t1", 1))),
        ws.write(|tx| tx.put_record(&table, &key, other.clone())),
        ws.write(|tx| tx.patch_record(&table, &key, Vec::new(), vec!["id".into()])),
    ];
    for result in results {
        match result {
            Err(Error::KeyField { table, field, .. }) => {
                assert_eq!((table.as_str(), field.as_str()), ("messages", "id"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ws.get(MESSAGES, "m1").unwrap().unwrap().id, "m1");

    const NO_SUCH_FIELD: Table<Message> = Table::new("others", "uid");
    let error = ws.write(|tx| tx.put(NO_SUCH_FIELD, &message("m1", "t", 1))).unwrap_err();
    assert_eq!(error.to_string(), "others/: key field uid: the record has no such field");
}

/// Delete, undelete and reads inside a write see the write's own changes.
#[test]
fn a_write_sees_its_own_changes() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    ws.write(|tx| {
        tx.put(MESSAGES, &message("m1", "t1", 1))?;
        tx.update(MESSAGES, "m1", |message| message.index += 1)?;
        assert_eq!(tx.get(MESSAGES, "m1")?.map(|message| message.index), Some(2));
        tx.delete(MESSAGES, "m1")?;
        assert_eq!(tx.get(MESSAGES, "m1")?, None);
        tx.put(MESSAGES, &message("m2", "t1", 2))
    })
    .unwrap();
    assert!(ws.get(MESSAGES, "m1").unwrap().is_none());
    ws.write(|tx| tx.delete(MESSAGES, "m2")).unwrap();
    assert!(ws.get(MESSAGES, "m2").unwrap().is_none());
    ws.write(|tx| tx.undelete(MESSAGES, "m2")).unwrap();
    assert_eq!(*ws.get(MESSAGES, "m2").unwrap().unwrap(), message("m2", "t1", 2));
}

/// A closure that fails writes nothing (B5, I6), however much it did before.
#[test]
fn a_closure_that_fails_writes_nothing() {
    let Fixture { dir, ws, db } = Fixture::new();
    let failed = ws.write(|tx| {
        tx.put(MESSAGES, &message("m1", "t1", 1))?;
        tx.put(DRAFTS, &message("d1", "t1", 1))?;
        Err(Error::Aborted("no".into()))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no");
    for _ in 0..2 {
        assert!(ws.get(MESSAGES, "m1").unwrap().is_none());
        assert!(ws.get(DRAFTS, "d1").unwrap().is_none());
        assert_eq!(ws.status().unwrap().undecided, 0);
    }
    db.close().unwrap();
    drop((ws, db));
    let ws = crate::support::open(dir.path()).workspace("main").unwrap();
    assert!(ws.get(MESSAGES, "m1").unwrap().is_none());
}

/// A local table never leaves the device (R3.2): nothing of it waits for a server.
#[test]
fn local_tables_are_never_pushed() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let receipt = ws.write(|tx| tx.put(DRAFTS, &message("d1", "t1", 1))).unwrap();
    assert!(!receipt.is_synced());
    assert_eq!(receipt.verdict(), Some(Settled::Local));
    assert_eq!(ws.status().unwrap().undecided, 0);

    let receipt = ws
        .write(|tx| {
            tx.delete(DRAFTS, "d1")?;
            tx.put(MESSAGES, &message("m1", "t1", 1))
        })
        .unwrap();
    assert!(receipt.is_synced());
    let waiting = |table: &str, key: &str| {
        let name = (TableName::new(table).unwrap(), Key::new(key).unwrap());
        ws.explain(&name.0, &name.1).unwrap().waiting.len()
    };
    assert_eq!((waiting("messages", "m1"), waiting("drafts", "d1")), (1, 0));
}

/// R3.2, I16. An app declared a table local in one release and synced in the next: a row of the
/// server took the place of a local one that had never been counted, and the count of rows fell
/// below zero. Where a table lives is kept by the store; another declaration is refused by name.
#[test]
fn a_table_stays_where_it_was_declared() {
    const SYNCED_DRAFTS: Table<Message> = Table::new("drafts", "id");
    const LOCAL_MESSAGES: Table<Message> = Table::new("messages", "id").local();
    const LATER: Table<Message> = Table::new("later", "id").local();
    let Fixture { dir, ws, db } = Fixture::new();
    ws.write(|tx| {
        tx.put(DRAFTS, &message("d1", "t1", 1))?;
        tx.put(MESSAGES, &message("m1", "t1", 1))
    })
    .unwrap();
    db.close().unwrap();
    drop((ws, db));
    let dir = dir.path().join("db");
    let refused = |builder: lastword::Builder, table: &str| match builder.open(&dir).map(drop) {
        Err(Error::Declaration { name, .. }) => assert_eq!(name, table),
        other => panic!("{table}: {other:?}"),
    };
    for state in ["kept", "folded from the log"] {
        refused(Database::builder().tables(SYNCED_DRAFTS), "drafts");
        refused(Database::builder().tables(LOCAL_MESSAGES), "messages");
        // Whoever declares nothing, as the command line, obeys too.
        let db = Database::open(&dir).unwrap();
        let ws = db.workspace("main").unwrap();
        let (table, key) = (TableName::new("drafts").unwrap(), Key::new("d2").unwrap());
        let record = ws.get_record(&table, &Key::new("d1").unwrap()).unwrap().unwrap().record;
        let receipt = ws.write(|tx| tx.put_record(&table, &key, record.clone())).unwrap();
        assert_eq!(receipt.verdict(), Some(Settled::Local), "{state}");
        db.close().unwrap();
        drop((ws, db));
        for file in std::fs::read_dir(&dir).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "state") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    // A table that nothing is known of may still become local, once.
    let db = Database::builder().tables((MESSAGES, DRAFTS, LATER)).open(&dir).unwrap();
    let log_end = db.open_report().end;
    db.close().unwrap();
    drop(db);
    let db = Database::builder().tables((MESSAGES, DRAFTS, LATER)).open(&dir).unwrap();
    let (lines, _) = db.log(log_end, 100).unwrap();
    let declared = lines.iter().filter(|line| line.kind == "local tables").count();
    assert_eq!(declared, 1, "declared again: {lines:?}");
}

/// Declarations that contradict each other, or a use that contradicts its declaration, are typed
/// errors: a local table must not be pushed because one caller forgot `.local()`.
#[test]
fn a_table_is_used_as_it_was_declared() {
    const SYNCED: Table<Message> = Table::new("drafts", "id");
    const OTHER_KEY: Table<Message> = Table::new("messages", "thread_id");
    const BAD_NAME: Table<Message> = Table::new("no spaces", "id");
    let dir = tempfile::tempdir().unwrap();
    let open = |builder: lastword::Builder| builder.open(dir.path().join("x")).map(|_| ());
    let declaration = |result| assert!(matches!(result, Err(Error::Declaration { .. })));
    declaration(open(Database::builder().tables((DRAFTS, SYNCED))));
    declaration(open(Database::builder().tables(MESSAGES).tables(OTHER_KEY)));
    declaration(open(
        Database::builder().tables(MESSAGES).local_table(TableName::new("messages").unwrap()),
    ));
    assert!(matches!(open(Database::builder().tables(BAD_NAME)), Err(Error::Name(_))));
    open(Database::builder().tables((MESSAGES, (DRAFTS, MESSAGES)))).unwrap();

    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    declaration(ws.write(|tx| tx.put(SYNCED, &message("d", "t", 1))).map(|_| ()));
    declaration(ws.get(OTHER_KEY, "t").map(|_| ()));
    const UNDECLARED: Table<Message> = Table::new("notes", "id").local();
    declaration(ws.write(|tx| tx.put(UNDECLARED, &message("n", "t", 1))).map(|_| ()));
    let bad = ws.write(|tx| tx.put(BAD_NAME, &message("n", "t", 1)));
    assert!(matches!(bad, Err(Error::Name(_))), "{bad:?}");
}

/// What was acknowledged is there after the database is opened again (I1).
#[test]
fn everything_is_there_after_reopening() {
    let Fixture { dir, ws, db } = Fixture::new();
    ws.write(|tx| {
        tx.put(EVERYTHING, &everything())?;
        tx.put(DRAFTS, &message("d1", "t1", 1))?;
        tx.put(MESSAGES, &message("m1", "t1", 1))
    })
    .unwrap();
    ws.write(|tx| tx.update(MESSAGES, "m1", |message| message.body = "edited".into())).unwrap();
    db.close().unwrap();
    drop((ws, db));

    let ws = crate::support::open(dir.path()).workspace("main").unwrap();
    assert_eq!(*ws.get(EVERYTHING, "k").unwrap().unwrap(), everything());
    assert_eq!(*ws.get(DRAFTS, "d1").unwrap().unwrap(), message("d1", "t1", 1));
    assert_eq!(ws.get(MESSAGES, "m1").unwrap().unwrap().body, "edited");
    assert_eq!(ws.status().unwrap().undecided, 2);
}

/// R7.1, semantics 1: an undelete brings back exactly what was deleted, also if both happen in one
/// write after an edit; the edit was dropped there without a word.
#[test]
fn edit_delete_and_undelete_in_one_write_keep_the_edit() {
    let fixture = Fixture::new();
    fixture.ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    let edited = Message { body: "edited".into(), ..message("m1", "t1", 1) };
    let fresh = message("m2", "t1", 2);
    fixture
        .ws
        .write(|tx| {
            for message in [&edited, &fresh] {
                tx.put(MESSAGES, message)?;
                tx.delete(MESSAGES, &message.id)?;
                tx.undelete(MESSAGES, &message.id)?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(*fixture.ws.get(MESSAGES, "m1").unwrap().unwrap(), edited);
    assert_eq!(*fixture.ws.get(MESSAGES, "m2").unwrap().unwrap(), fresh);
}
