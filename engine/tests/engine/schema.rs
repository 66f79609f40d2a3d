//! The schema at the authority: what it takes, how it changes, and that it counts from its place in
//! the log on.

use std::path::Path;
use std::sync::mpsc::channel;

use lastword::core::codec::from_bytes;
use lastword::core::hlc::Hlc;
use lastword::core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword::core::json;
use lastword::core::op::{Action, Batch, Op};
use lastword::core::protocol::{Attached, Entry, Role};
use lastword::core::row::{FieldMark, Row};
use lastword::core::rules::Policy;
use lastword::core::schema::{FixedRule, Schema, SchemaError, TableSchema};
use lastword::core::stamp::{Decision, Mark, RefusalCode, Superseded, Verdict};
use lastword::store::payload::{Attachment, Payload, RemotePage, WorkspaceSchema};
use lastword::store::{keys, read};
use lastword::{AttachRequest, Authority, Database, Error, PushAnswer, PushGate};

use crate::support::append_frames;

const ANN: DeviceId = DeviceId([1; 16]);
const BOB: DeviceId = DeviceId([2; 16]);

fn table(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

fn id() -> TableSchema {
    TableSchema::new("id")
}

fn schema(min_app_schema: u64, tables: &[(&str, TableSchema)]) -> Schema {
    let tables = tables.iter().map(|(name, rules)| (table(name), rules.clone()));
    Schema::new(min_app_schema, tables).unwrap()
}

fn under(policy: Policy) -> TableSchema {
    TableSchema { policy, ..id() }
}

fn main_workspace() -> WorkspaceName {
    WorkspaceName::new("main").unwrap()
}

fn attach(authority: &Authority, workspace: &str) -> Attached {
    let (tell, told) = channel();
    let request = AttachRequest {
        attachment: 1,
        device: ANN,
        user: "ann".into(),
        decided: 0,
        epoch: None,
        received_to: 0,
        horizon: 0,
        cover: [0; 16],
        create: true,
    };
    let done = move |answer| tell.send(answer).unwrap();
    authority.attach(WorkspaceName::new(workspace).unwrap(), request, done).unwrap();
    told.recv().unwrap().unwrap()
}

fn opened(dir: &Path) -> Authority {
    let authority = Authority::open(dir).unwrap();
    attach(&authority, "main");
    authority
}

fn push_as(authority: &Authority, app_schema: u64, batch: &Batch) -> PushAnswer {
    let (tell, told) = channel();
    let done = move |answer: Result<_, Error>| tell.send(answer.unwrap()).unwrap();
    let user = if batch.device == ANN { "ann" } else { "bob" };
    let gate = PushGate::of_app(app_schema);
    authority.decide(main_workspace(), user.into(), batch.clone(), gate, done).unwrap();
    told.recv().unwrap()
}

fn push(authority: &Authority, batch: &Batch) -> PushAnswer {
    push_as(authority, 0, batch)
}

fn op(name: &str, base: u64, action: Action) -> Op {
    let key = Key::new("n1").unwrap();
    Op { table: table(name), key, base, revision: 1, hlc: Hlc(1), action }
}

fn create(json: &str) -> Action {
    Action::Create { record: json::parse_record(json).unwrap(), replace: false }
}

fn patch(json: &str) -> Action {
    let set = json::parse_record(json).unwrap().fields().to_vec();
    Action::Patch { set, remove: Vec::new() }
}

fn batch(device: DeviceId, counter: u64, op: Op) -> Batch {
    let mut batch_id = BatchId([device.0[0]; 16]);
    batch_id.0[1] = u8::try_from(counter).unwrap();
    let (strict, former) = (false, Vec::new());
    Batch { device, counter, batch_id, created_ms: 5, strict, former, ops: vec![op] }
}

#[track_caller]
fn verdict(answer: PushAnswer) -> Verdict {
    match answer {
        PushAnswer::Decided(Decision::Accepted { verdicts, .. }) => verdicts[0].clone(),
        other => panic!("not accepted: {other:?}"),
    }
}

#[track_caller]
fn refusal(answer: PushAnswer) -> String {
    match answer {
        PushAnswer::Decided(Decision::Refused { code, message, .. }) => {
            assert_eq!(code, RefusalCode::UnknownTable);
            message
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn applied() -> Verdict {
    Verdict::Applied { dropped: Vec::new() }
}

/// Issue 4: with a schema a table that it does not know is refused by its name, one that is local
/// is nothing for the server, and one that was removed is not open either.
#[test]
fn tables_outside_the_schema_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let authority = opened(dir.path());
    assert_eq!(verdict(push(&authority, &batch(ANN, 1, op("any", 0, create("{}"))))), applied());
    let drafts = TableSchema { local: true, ..id() };
    let first = schema(0, &[("notes", id()), ("drafts", drafts.clone()), ("old", id())]);
    authority.adopt(first).unwrap();
    authority.adopt(schema(0, &[("notes", id()), ("drafts", drafts)])).unwrap();
    for (counter, name, says) in [
        (2, "any", "table any is not in the server's schema: add [tables.any]"),
        (3, "drafts", "table drafts is local in the server's schema"),
        (4, "old", "table old was removed from the server's schema"),
    ] {
        let message = refusal(push(&authority, &batch(ANN, counter, op(name, 0, create("{}")))));
        assert!(message.contains(says), "{message}");
    }
    let answer = push(&authority, &batch(ANN, 5, op("notes", 0, create("{}"))));
    assert_eq!(verdict(answer), applied());
}

/// Semantics, section 7: the schema is an entry of the log. It survives a restart without one,
/// travels in Attached, also to workspaces that are made later, and a change that is forbidden
/// leaves every workspace as it was.
#[test]
fn a_workspace_keeps_its_schema() {
    let dir = tempfile::tempdir().unwrap();
    let authority = opened(dir.path());
    assert!(attach(&authority, "main").schema.is_empty());
    let notes = schema(0, &[("notes", under(Policy::ServerWins))]);
    authority.adopt(notes.clone()).unwrap();
    let end = authority.log(0, 1000).unwrap().0.len();
    authority.adopt(notes.clone()).unwrap();
    assert_eq!(authority.log(0, 1000).unwrap().0.len(), end, "the same schema is no news");
    assert_eq!(from_bytes::<Schema>(&attach(&authority, "main").schema), Ok(notes.clone()));
    assert_eq!(from_bytes::<Schema>(&attach(&authority, "later").schema), Ok(notes.clone()));
    authority.close().unwrap();

    let authority = Authority::open(dir.path()).unwrap();
    assert_eq!(authority.schema(&main_workspace()).unwrap(), Some(notes.clone()));
    attach(&authority, "without");
    let revision = schema(0, &[("kv", id()), ("notes", under(Policy::Revision))]);
    let error = authority.adopt(revision).unwrap_err();
    let Error::Schema { workspace, source: SchemaError::Forbidden { table: named, rule, .. } } =
        &error
    else {
        panic!("{error}");
    };
    assert_eq!((named, *rule), (&table("notes"), FixedRule::Revision));
    assert_ne!(workspace.as_str(), "without");
    assert!(error.to_string().contains("policy revision for ever or never"), "{error}");
    assert_eq!(authority.schema(&main_workspace()).unwrap(), Some(notes));
    assert_eq!(authority.schema(&WorkspaceName::new("without").unwrap()).unwrap(), None);
}

/// Semantics, section 7: locality is immutable, also for a table that was synced while the
/// workspace had no schema yet.
#[test]
fn a_table_with_records_cannot_become_local() {
    let dir = tempfile::tempdir().unwrap();
    let authority = opened(dir.path());
    push(&authority, &batch(ANN, 1, op("drafts", 0, create("{}"))));
    let drafts = schema(0, &[("drafts", TableSchema { local: true, ..id() })]);
    let error = authority.adopt(drafts).unwrap_err().to_string();
    assert!(error.contains("workspace main: table drafts: it stays local or synced"), "{error}");
    assert_eq!(authority.schema(&main_workspace()).unwrap(), None);
}

/// I12, trap of a policy that comes from a file: what was decided under one schema is replayed
/// under that one, whatever schema came later.
#[test]
fn replay_goes_by_the_schema_of_that_place_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let authority = opened(dir.path());
    push(&authority, &batch(ANN, 1, op("notes", 0, create(r#"{"a":1}"#))));
    push(&authority, &batch(ANN, 2, op("notes", 1, Action::Delete)));
    authority.adopt(schema(0, &[("notes", under(Policy::Revision))])).unwrap();
    push(&authority, &batch(ANN, 3, op("posts", 0, create("{}"))));
    let later = Op { revision: 9, ..op("notes", 0, create(r#"{"a":2}"#)) };
    push(&authority, &batch(ANN, 4, later));
    let last = Op { revision: 10, ..op("notes", 0, Action::Delete) };
    push(&authority, &batch(ANN, 5, last));
    let tombstone = |authority: &Authority| {
        let key = keys::row_key(&main_workspace(), 0, &table("notes"), &Key::new("n1").unwrap());
        read::row(&*authority.view(), &key).unwrap().unwrap().row
    };
    let (before, grave) = (authority.status().unwrap(), tombstone(&authority));
    assert!(grave.deleted && grave.record.fields().is_empty(), "{grave:?}");
    authority.close().unwrap();
    lastword::compact(dir.path(), lastword::DEFAULT_HISTORY, true).unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    assert_eq!((authority.status().unwrap(), tombstone(&authority)), (before, grave));
}

/// Semantics, section 2: under `server_wins` a stale field is dropped, and an op of which nothing
/// is left is superseded; the real authority says so, and its conflict row names the policy.
#[test]
fn the_policy_of_the_schema_decides() {
    let dir = tempfile::tempdir().unwrap();
    let authority = opened(dir.path());
    authority.adopt(schema(0, &[("notes", under(Policy::ServerWins)), ("kv", id())])).unwrap();
    for name in ["notes", "kv"] {
        // Counters of both devices go on from table to table.
        let n = if name == "notes" { 0 } else { 2 };
        push(&authority, &batch(ANN, n + 1, op(name, 0, create(r#"{"a":0,"b":0}"#))));
        let base = authority.status().unwrap()[0].head;
        push(&authority, &batch(ANN, n + 2, op(name, base, patch(r#"{"a":1}"#))));
        let both = op(name, base, patch(r#"{"a":2,"b":2}"#));
        let stale = verdict(push(&authority, &batch(BOB, n + 1, both)));
        let only =
            verdict(push(&authority, &batch(BOB, n + 2, op(name, base, patch(r#"{"a":3}"#)))));
        match name {
            "notes" => {
                assert_eq!(stale, Verdict::Applied { dropped: vec!["a".into()] });
                let reason = Superseded::Stale;
                assert!(
                    matches!(only, Verdict::Superseded { reason: found, .. } if found == reason)
                );
            }
            _ => assert_eq!((stale, only), (applied(), applied())),
        }
    }
    let view = authority.read(&main_workspace()).unwrap();
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let rows = view.range(&table("_conflicts"), all, false, 100).unwrap();
    let text = |row: &lastword::Shown| json::record_to_string(&row.record).unwrap();
    let policies: Vec<bool> =
        rows.iter().map(|row| text(row).contains(r#""policy":"server_wins""#)).collect();
    // The last of `kv` overwrote only its own.
    assert_eq!(policies, [true, true, false]);
}

/// Semantics, section 4: an app that is too old freezes its outbox, and nothing is decided. A batch
/// that was decided before still gets its decision, and the newer app goes on where the old one
/// stopped.
#[test]
fn an_app_that_is_too_old_is_told_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let authority = opened(dir.path());
    let first = batch(ANN, 1, op("notes", 0, create("{}")));
    let decided = push_as(&authority, 2, &first);
    assert_eq!(verdict(decided.clone()), applied());
    authority.adopt(schema(3, &[("notes", id())])).unwrap();
    let second = batch(ANN, 2, op("notes", 1, patch(r#"{"a":1}"#)));
    for (app, has) in [(2, "this app has 2"), (0, "this app names none")] {
        let answer = push_as(&authority, app, &second);
        let PushAnswer::NotNow { message, .. } = &answer else { panic!("{answer:?}") };
        assert!(message.contains("app schema number 3 on") && message.contains(has), "{message}");
        assert_eq!(push_as(&authority, app, &first), decided);
    }
    assert_eq!(verdict(push_as(&authority, 3, &second)), applied());
}

/// Frames as a sync session stores them: the workspace met a server with this schema.
fn met(schema: Schema) -> Vec<Payload> {
    let (workspace, epoch) = (main_workspace(), Epoch([4; 16]));
    let schema = Some(schema);
    vec![
        Payload::Attachment(Attachment {
            workspace: workspace.clone(),
            epoch,
            role: Role::Editor,
            horizon: 0,
        }),
        Payload::Schema(WorkspaceSchema { workspace, schema }),
    ]
}

fn device(dir: &Path) -> Database {
    Database::builder().schema_version(2).open(dir.join("db")).unwrap()
}

/// Semantics, section 2: under `revision` the wire knows no patch and no undelete: the device sends
/// the whole record, and refuses to undelete with an error that says what to do.
#[test]
fn a_device_writes_whole_records_under_revision() {
    let dir = tempfile::tempdir().unwrap();
    device(dir.path()).close().unwrap();
    append_frames(dir.path(), &met(schema(3, &[("notes", under(Policy::Revision))])));
    let db = device(dir.path());
    let ws = db.workspace("main").unwrap();
    assert_eq!(ws.status().unwrap().needs_app_schema, Some(3));
    let (notes, key) = (table("notes"), Key::new("n1").unwrap());
    let record = json::parse_record(r#"{"a":1,"b":2}"#).unwrap();
    ws.write(|tx| tx.put_record(&notes, &key, record.clone())).unwrap();
    let set = json::parse_record(r#"{"b":3}"#).unwrap().fields().to_vec();
    ws.write(|tx| tx.patch_record(&notes, &key, set.clone(), vec!["a".into()])).unwrap();
    let shown = ws.get_record(&notes, &key).unwrap().unwrap();
    assert_eq!(json::record_to_string(&shown.record).unwrap(), r#"{"b":3}"#);
    ws.write(|tx| tx.delete_record(&notes, &key)).unwrap();
    let error = ws.write(|tx| tx.undelete_record(&notes, &key)).unwrap_err();
    assert!(matches!(&error, Error::NoUndelete { table, key } if table == "notes" && key == "n1"));
    assert!(error.to_string().contains("write the record again"), "{error}");
    ws.write(|tx| tx.put_record(&notes, &key, record.clone())).unwrap();
    assert!(ws.get_record(&notes, &key).unwrap().is_some());
    let lines = db.log(0, 1000).unwrap().0;
    let text: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    assert!(!text.iter().any(|line| line.contains("patch")), "{text:?}");
}

/// A page with the one record as B left it at `seq`.
fn page(seq: u64, json: &str, changed: &[&str]) -> Payload {
    let mark = |seq| Mark { seq, writer: BOB };
    let fields = changed.iter().map(|name| FieldMark { name: (*name).into(), mark: mark(seq) });
    let row = Row {
        deleted: false,
        last: mark(seq),
        time_ms: 5,
        born: mark(1),
        full: mark(1),
        fields: fields.collect(),
        set_at: 0,
        revision: seq,
        hlc: Hlc(seq),
        op_id: BatchId([9; 16]),
        record: json::parse_record(json).unwrap(),
    };
    Payload::Remote(RemotePage {
        workspace: main_workspace(),
        from: seq - 1,
        to: seq,
        consistent_at: Some(seq),
        entries: vec![Entry::Row { table: table("notes"), key: Key::new("n1").unwrap(), row }],
        previous: vec![0],
        walk: None,
    })
}

/// R2.4, I12: what waits is shown as the schema that stands now decides it, at once, and the same
/// when the state is made anew from the log, in which it was written under another one.
#[test]
fn what_waits_is_shown_as_the_new_schema_decides() {
    let dir = tempfile::tempdir().unwrap();
    device(dir.path()).close().unwrap();
    let any_table = schema(0, &[("notes", id())]);
    append_frames(dir.path(), &met(any_table));
    append_frames(dir.path(), &[page(1, r#"{"a":0}"#, &[])]);
    let shown = || {
        let db = device(dir.path());
        let ws = db.workspace("main").unwrap();
        let found = ws.get_record(&table("notes"), &Key::new("n1").unwrap()).unwrap().unwrap();
        assert_eq!(ws.status().unwrap().undecided, 1);
        db.close().unwrap();
        json::record_to_string(&found.record).unwrap()
    };
    let db = device(dir.path());
    let set = json::parse_record(r#"{"a":1}"#).unwrap().fields().to_vec();
    let ws = db.workspace("main").unwrap();
    let key = Key::new("n1").unwrap();
    ws.write(|tx| tx.patch_record(&table("notes"), &key, set.clone(), Vec::new())).unwrap();
    db.close().unwrap();
    append_frames(dir.path(), &[page(2, r#"{"a":2}"#, &["a"])]);
    assert_eq!(shown(), r#"{"a":1}"#);
    append_frames(dir.path(), &met(schema(0, &[("notes", under(Policy::ServerWins))])));
    assert_eq!(shown(), r#"{"a":2}"#);
    let history = lastword::DEFAULT_HISTORY;
    lastword::compact(&dir.path().join("db"), history, true).unwrap();
    assert_eq!(shown(), r#"{"a":2}"#);
}

/// Semantics, section 1: server-owned fields are not the app's to write: a record is shown as it
/// will be, before any server has seen it.
#[test]
fn a_device_leaves_server_owned_fields_alone() {
    let dir = tempfile::tempdir().unwrap();
    device(dir.path()).close().unwrap();
    let files = TableSchema { server_owned: vec!["at".into()], ..TableSchema::new("hash") };
    append_frames(dir.path(), &met(schema(0, &[("files", files)])));
    let db = device(dir.path());
    let ws = db.workspace("main").unwrap();
    let (files, key) = (table("files"), Key::new("f1").unwrap());
    let record = json::parse_record(r#"{"at":"mine","size":1}"#).unwrap();
    ws.write(|tx| tx.put_record(&files, &key, record.clone())).unwrap();
    let shown = || json::record_to_string(&ws.get_record(&files, &key).unwrap().unwrap().record);
    assert_eq!(shown().unwrap(), r#"{"size":1}"#);
    let set = json::parse_record(r#"{"at":"mine","size":2}"#).unwrap().fields().to_vec();
    ws.write(|tx| tx.patch_record(&files, &key, set.clone(), Vec::new())).unwrap();
    assert_eq!(shown().unwrap(), r#"{"size":2}"#);
    let waiting = ws.status().unwrap().undecided;
    let only: Vec<_> = set.iter().filter(|field| field.name == "at").cloned().collect();
    ws.write(|tx| tx.patch_record(&files, &key, only.clone(), Vec::new())).unwrap();
    assert_eq!(ws.status().unwrap().undecided, waiting, "nothing is left to send");
}

/// Semantics, section 7: a table is local if either side says so.
#[test]
fn a_table_that_the_server_says_is_local_stays_here() {
    let dir = tempfile::tempdir().unwrap();
    device(dir.path()).close().unwrap();
    append_frames(dir.path(), &met(schema(0, &[("drafts", TableSchema { local: true, ..id() })])));
    let db = device(dir.path());
    let ws = db.workspace("main").unwrap();
    let (drafts, key) = (table("drafts"), Key::new("d1").unwrap());
    let record = json::parse_record("{}").unwrap();
    ws.write(|tx| tx.put_record(&drafts, &key, record.clone())).unwrap();
    assert!(ws.get_record(&drafts, &key).unwrap().is_some());
    assert_eq!(ws.status().unwrap().undecided, 0);
}
