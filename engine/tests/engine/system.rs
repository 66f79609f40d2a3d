//! Tables of the product, as typed tables.

use std::time::Duration;

use lastword::core::hlc::Hlc;
use lastword::core::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use lastword::core::op::{Action, Op};
use lastword::core::protocol::{Decided, Entry};
use lastword::core::row::Row;
use lastword::core::rules::{self, Conflict, Disputed, Policy};
use lastword::core::stamp::{Decision, Mark, RefusalCode};
use lastword::core::value::{Field, Record, Value};
use lastword::store::payload::{DeadLetters, Payload, RemotePage};
use lastword::{CONFLICTS, ConflictField, DEAD_LETTERS, Error};

use crate::support::{Fixture, MESSAGES, append_frames, message, open};

fn main_workspace() -> WorkspaceName {
    WorkspaceName::new("main").unwrap()
}

/// A page with one conflict row, as the authority writes it.
fn conflict_page() -> Payload {
    let (table, key) = (TableName::new("messages").unwrap(), Key::new("m1").unwrap());
    let encoded = |value: Value| Some(Field::new("body", &value).value);
    let conflict = Conflict {
        winner: Mark { seq: 7, writer: DeviceId([1; 16]) },
        loser: Mark { seq: 5, writer: DeviceId([2; 16]) },
        reason: "overwritten",
        loser_deletes: false,
        winner_deletes: false,
        fields: vec![
            Disputed {
                name: "body".into(),
                winning: encoded(Value::Bytes(vec![0, 1])),
                losing: encoded(Value::Null),
            },
            Disputed { name: "index".into(), winning: None, losing: encoded(Value::Int(3)) },
        ],
    };
    let mark = Mark { seq: 8, writer: DeviceId::AUTHORITY };
    let row = Row {
        deleted: false,
        last: mark,
        time_ms: 1000,
        born: mark,
        full: mark,
        fields: Vec::new(),
        set_at: 0,
        revision: 1,
        hlc: Hlc::default(),
        op_id: BatchId([3; 16]),
        record: rules::conflict_record(&table, &key, &conflict, Policy::Arrival, 1000),
    };
    let key = rules::conflict_key(&table, &key, &conflict);
    let table = TableName::new("_conflicts").unwrap();
    Payload::Remote(RemotePage {
        workspace: main_workspace(),
        from: 0,
        to: 8,
        consistent_at: Some(8),
        entries: vec![Entry::Row { table, key, row }],
        previous: vec![0],
        walk: None,
    })
}

/// Each conflict is a row that an app can read with both values (R2.5), a null told from a value
/// that is not there.
#[test]
fn conflicts_are_a_typed_table() {
    let Fixture { dir, ws, db } = Fixture::new();
    db.close().unwrap();
    drop((db, ws));
    append_frames(dir.path(), &[conflict_page()]);

    let ws = open(dir.path()).workspace("main").unwrap();
    let rows = ws.query(&CONFLICTS.all()).unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((row.table.as_str(), row.key.as_str()), ("messages", "m1"));
    assert_eq!((row.winning_seq, row.losing_seq), (7, 5));
    assert_eq!((row.reason.as_str(), row.policy.as_str()), ("overwritten", "arrival"));
    let body = ConflictField { winning: Some(Value::Bytes(vec![0, 1])), losing: Some(Value::Null) };
    let index = ConflictField { winning: None, losing: Some(Value::Int(3)) };
    assert_eq!(row.fields["body"], body);
    assert_eq!(row.fields["index"], index);
    assert!(ws.get(CONFLICTS, row.key()).unwrap().is_some());
    assert_eq!(ws.count(&CONFLICTS.all()).unwrap(), 1);
}

/// A refused batch stays visible with its reason (B3): in its workspace, and with all others in
/// workspace `_store`; nobody writes there.
#[test]
fn dead_letters_are_a_typed_table() {
    let Fixture { dir, ws, db } = Fixture::new();
    let batch_id =
        ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap().batch_id().unwrap();
    db.close().unwrap();
    drop((db, ws));
    append_frames(dir.path(), &[refusal(batch_id, "main")]);

    let db = open(dir.path());
    let ws = db.workspace("main").unwrap();
    let rows = ws.query(&DEAD_LETTERS.all()).unwrap();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row.key(), batch_id.to_string());
    assert_eq!((row.code.as_str(), row.workspace.as_str()), ("policy", "main"));
    assert_eq!(row.records, ["messages/m1"]);
    assert!(ws.get(DEAD_LETTERS, row.key()).unwrap().is_some());
    assert_eq!(ws.dead_letters().unwrap()[0].batch_id, batch_id);
    assert!(ws.get(MESSAGES, "m1").unwrap().is_none(), "a refused write is not shown");

    let other = db.workspace("other").unwrap();
    assert_eq!(other.count(&DEAD_LETTERS.all()).unwrap(), 0);
    assert!(other.get(DEAD_LETTERS, row.key()).unwrap().is_none());
    let store = db.workspace("_store").unwrap();
    assert_eq!(store.count(&DEAD_LETTERS.all()).unwrap(), 1);
    let first = ws.watch(&DEAD_LETTERS.all()).unwrap().recv_timeout(Duration::ZERO).unwrap();
    assert_eq!(first.rows.len(), 1);

    let written = ws.write(|tx| tx.delete(DEAD_LETTERS, row.key()));
    assert!(matches!(written, Err(Error::Reserved { .. })), "{written:?}");
}

/// The refusal of the first batch of a workspace.
fn refusal(batch_id: BatchId, workspace: &str) -> Payload {
    let text = |text: &str| Value::Text(text.into());
    let record = [
        ("unit", text(&batch_id.to_string())),
        ("place", Value::Int(0)),
        ("workspace", text(workspace)),
        ("code", text("policy")),
        ("message", text("not on a Sunday")),
        ("time_ms", Value::Int(2)),
        ("created_ms", Value::Int(1)),
        ("position", Value::Int(128)),
        ("records", Value::List(vec![text("messages/m1")])),
    ];
    let fields = record.iter().map(|(name, value)| Field::new(name, value)).collect();
    let letter = Op {
        table: TableName::new("_dead_letters").unwrap(),
        key: Key::new(&batch_id.to_string()).unwrap(),
        base: 0,
        revision: 1,
        hlc: Hlc::default(),
        action: Action::Create { record: Record::from_fields(fields), replace: false },
    };
    let decision =
        Decision::Refused { code: RefusalCode::Policy, message: "no".into(), time_ms: 2 };
    Payload::DeadLetters(DeadLetters {
        workspace: main_workspace(),
        refused: Decided { counter: 1, batch_id, decision },
        counters: vec![1],
        renumbered: Vec::new(),
        rows: vec![letter],
    })
}
