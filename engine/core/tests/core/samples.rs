//! One sample of every persisted or sent shape, once as the product's type and once as the
//! oracle's.

use lastword_core::codec::{Decode, Encode, from_bytes, to_bytes};
use lastword_core::hash::ChunkId;
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::manifest::{Blob, ManifestEntry, ManifestPage};
use lastword_core::op::{Action, Batch, Op, TombstoneRef};
use lastword_core::protocol::{
    Attach, AttachRefusal, Attached, Changes, Decided, Entry, ErrorCode, Hello, History,
    HistoryRest, HistoryVersion, Message, Notice, ReadHistory, ResetReason, Role, Survivors,
    VersionKind, WalkPage, WalkPlace, Welcome,
};
use lastword_core::row::{FieldMark, Row};
use lastword_core::rules::Policy;
use lastword_core::schema::{Schema, TableSchema};
use lastword_core::stamp::{Decision, Mark, RefusalCode, Superseded, Verdict};
use lastword_core::value::{Field, Record, Value};

use crate::oracle;

/// One vector: what the product writes, what the oracle writes, and how each reads it back.
pub struct Sample {
    pub name: String,
    pub product: Vec<u8>,
    pub oracle: Vec<u8>,
    /// Decoded and encoded again by the product; it must also equal the sample itself.
    pub product_again: fn(&Sample, &[u8]) -> Vec<u8>,
    /// Decoded and encoded again by the oracle.
    pub oracle_again: fn(&[u8]) -> Vec<u8>,
}

fn sample<P, O>(name: &str, product: &P, oracle: &O) -> Sample
where
    P: Encode + Decode + PartialEq + core::fmt::Debug,
    O: bincode::Encode + bincode::Decode<()>,
{
    let bytes = to_bytes(product);
    assert_eq!(from_bytes::<P>(&bytes).as_ref(), Ok(product), "{name} reads back");
    Sample {
        name: name.into(),
        product: bytes,
        oracle: oracle::bytes(oracle),
        product_again: |_, bytes| to_bytes(&from_bytes::<P>(bytes).unwrap()),
        oracle_again: |bytes| {
            let (value, read) = oracle::read::<O>(bytes);
            assert_eq!(read, bytes.len());
            oracle::bytes(&value)
        },
    }
}

pub const DEVICE: [u8; 16] = *b"device-device-01";
pub const OTHER: [u8; 16] = *b"device-device-02";
pub const BATCH: [u8; 16] = *b"batch-batch-0001";

/// Every sample.
pub fn all() -> Vec<Sample> {
    let mut samples = values();
    samples.extend(ids());
    samples.extend(records());
    samples.extend(ops());
    samples.extend(batches());
    samples.extend(rows());
    samples.extend(stamps());
    samples.extend(schemas());
    samples.extend(sessions());
    samples.extend(streams());
    samples.extend(endings());
    samples.extend(survivors());
    samples.extend(files());
    samples.extend(histories());
    samples.push(revoked());
    samples
}

fn values() -> Vec<Sample> {
    use Value as P;
    use oracle::Value as O;
    let list = |items: [i64; 2]| (items.map(P::Int).to_vec(), items.map(O::Int).to_vec());
    let (plist, olist) = list([1, -1]);
    let mut samples = vec![
        sample("value.null", &P::Null, &O::Null),
        sample("value.false", &P::Bool(false), &O::Bool(false)),
        sample("value.true", &P::Bool(true), &O::Bool(true)),
        sample("value.text", &P::Text("zoë 🦀".into()), &O::Text("zoë 🦀".into())),
        sample("value.text.empty", &P::Text(String::new()), &O::Text(String::new())),
        sample("value.bytes", &P::Bytes(vec![0, 255, 7]), &O::Bytes(vec![0, 255, 7])),
        sample("value.list", &P::List(plist), &O::List(olist)),
        sample("value.list.empty", &P::List(vec![]), &O::List(vec![])),
        sample("value.map.empty", &P::Map(vec![]), &O::Map(vec![])),
        sample(
            "value.map",
            &P::Map(vec![("b".into(), P::Null), ("a".into(), P::Map(vec![]))]),
            &O::Map(vec![("b".into(), O::Null), ("a".into(), O::Map(vec![]))]),
        ),
        sample("value.text.300", &P::Text("x".repeat(300)), &O::Text("x".repeat(300))),
    ];
    // Both sides of every border between integer widths, as zigzag sees it.
    let borders = [
        0,
        -1,
        1,
        125,
        -125,
        126,
        -126,
        32_767,
        -32_768,
        32_768,
        2_147_483_647,
        -2_147_483_648,
        2_147_483_648,
        i64::MAX,
        i64::MIN,
    ];
    for int in borders {
        samples.push(sample(&format!("value.int.{int}"), &P::Int(int), &O::Int(int)));
    }
    let floats = [
        ("zero", 0.0),
        ("minus_zero", -0.0),
        ("one", 1.0),
        ("tenth", 0.1),
        ("smallest", f64::from_bits(1)),
        ("largest", f64::MAX),
        ("lowest", f64::MIN),
    ];
    for (name, float) in floats {
        samples.push(sample(&format!("value.float.{name}"), &P::Float(float), &O::Float(float)));
    }
    samples
}

fn ids() -> Vec<Sample> {
    let text = String::from;
    let key = "k".repeat(300);
    vec![
        sample(
            "id.workspace",
            &WorkspaceName::new("team.notes-1_A").unwrap(),
            &text("team.notes-1_A"),
        ),
        sample("id.table", &TableName::new("_conflicts").unwrap(), &text("_conflicts")),
        sample("id.key", &Key::new("a/b ü").unwrap(), &text("a/b ü")),
        sample("id.key.300", &Key::new(&key).unwrap(), &key),
        sample("id.device", &DeviceId(DEVICE), &DEVICE),
        sample("id.batch", &BatchId(BATCH), &BATCH),
        sample("id.epoch", &Epoch([7; 16]), &[7_u8; 16]),
        sample("id.mark", &mark(9, DEVICE), &omark(9, DEVICE)),
    ]
}

fn mark(seq: u64, writer: [u8; 16]) -> Mark {
    Mark { seq, writer: DeviceId(writer) }
}

fn omark(seq: u64, writer: [u8; 16]) -> oracle::Mark {
    oracle::Mark { seq, writer }
}

/// `{"text": "hi", "likes": 3}`.
fn record() -> Record {
    let entries = [("text".into(), Value::Text("hi".into())), ("likes".into(), Value::Int(3))];
    Record::new(&entries).unwrap()
}

fn orecord() -> oracle::Record {
    let field = |name: &str, value: oracle::Value| oracle::Field {
        name: name.into(),
        value: oracle::bytes(&value),
    };
    vec![field("text", oracle::Value::Text("hi".into())), field("likes", oracle::Value::Int(3))]
}

fn records() -> Vec<Sample> {
    let long = Value::Text("y".repeat(70_000));
    let olong = oracle::Value::Text("y".repeat(70_000));
    // The pinned line of a long record would be long too; its head is enough to see the widths.
    let head = Field::new("long", &long);
    let ohead = oracle::Field { name: "long".into(), value: oracle::bytes(&olong) };
    let (bytes, obytes) = (to_bytes(&head), oracle::bytes(&ohead));
    assert_eq!(bytes, obytes, "a field with a 4 byte length");
    vec![
        sample("record", &record(), &orecord()),
        sample("record.empty", &Record::default(), &oracle::Record::new()),
        sample("field", &record().fields()[0].clone(), &orecord()[0].clone()),
    ]
}

fn op(action: Action) -> Op {
    Op {
        table: TableName::new("messages").unwrap(),
        key: Key::new("m1").unwrap(),
        base: 1000,
        revision: 3,
        hlc: Hlc(0x0191_0000_0000_0001),
        action,
    }
}

fn oop(action: oracle::Action) -> oracle::Op {
    oracle::Op {
        table: "messages".into(),
        key: "m1".into(),
        base: 1000,
        revision: 3,
        hlc: 0x0191_0000_0000_0001,
        action,
    }
}

fn actions() -> Vec<(&'static str, Op, oracle::Op)> {
    use oracle::Action as O;
    let patch = Action::Patch { set: record().fields().to_vec(), remove: vec!["gone".into()] };
    let seq = Action::Undelete { tombstone: TombstoneRef::Seq(70_000) };
    let batch = Action::Undelete { tombstone: TombstoneRef::Batch(BatchId(BATCH)) };
    let pairs = vec![
        (
            "create",
            Action::Create { record: record(), replace: false },
            O::Create { record: orecord(), replace: false },
        ),
        (
            "create.replace",
            Action::Create { record: record(), replace: true },
            O::Create { record: orecord(), replace: true },
        ),
        ("put", Action::Put { record: record() }, O::Put { record: orecord() }),
        ("patch", patch, O::Patch { set: orecord(), remove: vec!["gone".into()] }),
        ("delete", Action::Delete, O::Delete),
        ("undelete.seq", seq, O::Undelete { tombstone: oracle::Tombstone::Seq(70_000) }),
        ("undelete.batch", batch, O::Undelete { tombstone: oracle::Tombstone::Batch(BATCH) }),
    ];
    pairs.into_iter().map(|(name, p, o)| (name, op(p), oop(o))).collect()
}

fn ops() -> Vec<Sample> {
    let named = |(name, p, o): (&str, Op, oracle::Op)| sample(&format!("op.{name}"), &p, &o);
    actions().into_iter().map(named).collect()
}

/// A batch of every action.
pub fn batch() -> Batch {
    Batch {
        device: DeviceId(DEVICE),
        counter: 300,
        batch_id: BatchId(BATCH),
        created_ms: 1_700_000_000_000,
        strict: true,
        former: vec![DeviceId(OTHER)],
        ops: actions().into_iter().map(|(_, op, _)| op).collect(),
    }
}

fn obatch() -> oracle::Batch {
    oracle::Batch {
        device: DEVICE,
        counter: 300,
        batch_id: BATCH,
        created_ms: 1_700_000_000_000,
        strict: true,
        former: vec![OTHER],
        ops: actions().into_iter().map(|(_, _, op)| op).collect(),
    }
}

fn batches() -> Vec<Sample> {
    let plain = Batch { strict: false, former: vec![], ops: vec![], created_ms: -1, ..batch() };
    let oplain =
        oracle::Batch { strict: false, former: vec![], ops: vec![], created_ms: -1, ..obatch() };
    vec![sample("batch", &batch(), &obatch()), sample("batch.empty", &plain, &oplain)]
}

/// Every way in which the marks of a row can be equal, live and deleted.
pub fn all_rows() -> Vec<(&'static str, Row, oracle::Row)> {
    let (one, two, three) = ((5, DEVICE), (6, OTHER), (7, DEVICE));
    // (name, born, full, last, flags of a live row)
    let cases = [
        ("row.once", three, three, three, 2 | 4),
        ("row.patched", two, two, three, 8),
        ("row.put_again", two, three, three, 2),
        ("row.put_and_patched", one, two, three, 0),
    ];
    let mut rows = Vec::new();
    for (name, born, full, last, flags) in cases {
        let of = |(seq, writer)| mark(seq, writer);
        let oof = |(seq, writer)| omark(seq, writer);
        let row = Row {
            deleted: false,
            last: of(last),
            time_ms: 1_700_000_000_123,
            born: of(born),
            full: of(full),
            fields: vec![FieldMark { name: "likes".into(), mark: of(three) }],
            set_at: 0,
            revision: 4,
            hlc: Hlc(0x0191_0000_0000_0002),
            op_id: BatchId(BATCH),
            record: record(),
        };
        let orow = oracle::Row {
            flags,
            last: oof(last),
            time_ms: 1_700_000_000_123,
            full: (flags & 2 == 0).then(|| oof(full)),
            born: (flags & 12 == 0).then(|| oof(born)),
            fields: vec![oracle::FieldMark { name: "likes".into(), mark: oof(three) }],
            set_at: None,
            revision: 4,
            hlc: 0x0191_0000_0000_0002,
            op_id: BATCH,
            record: orecord(),
        };
        rows.push((name, row, orow));
    }
    rows
}

fn rows() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (name, row, orow) in all_rows() {
        samples.push(sample(name, &row, &orow));
        let set = Row { set_at: 300, ..row.clone() };
        let oset = oracle::Row { flags: orow.flags | 16, set_at: Some(300), ..orow.clone() };
        samples.push(sample(&format!("{name}.set"), &set, &oset));
        let row = Row { deleted: true, ..row };
        let orow = oracle::Row { flags: orow.flags | 1, ..orow };
        samples.push(sample(&format!("{name}.deleted"), &row, &orow));
    }
    samples
}

fn stamps() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (reason, oreason) in [
        (Superseded::Stale, oracle::Superseded::Stale),
        (Superseded::Dead, oracle::Superseded::Dead),
        (Superseded::EarlierLife, oracle::Superseded::EarlierLife),
        (Superseded::Exists, oracle::Superseded::Exists),
        (Superseded::NotThatTombstone, oracle::Superseded::NotThatTombstone),
        (Superseded::ValueGone, oracle::Superseded::ValueGone),
        (Superseded::LowerRevision, oracle::Superseded::LowerRevision),
    ] {
        samples.push(sample(
            &format!("verdict.superseded.{reason}"),
            &Verdict::Superseded { by: 251, reason },
            &oracle::Verdict::Superseded { by: 251, reason: oreason },
        ));
    }
    let dropped = || vec!["likes".to_owned()];
    samples.push(sample(
        "verdict.applied",
        &Verdict::Applied { dropped: dropped() },
        &oracle::Verdict::Applied { dropped: dropped() },
    ));
    samples.push(sample("decision.accepted", &accepted(), &oaccepted()));
    for (code, ocode) in [
        (RefusalCode::Invalid, oracle::RefusalCode::Invalid),
        (RefusalCode::ResultTooBig, oracle::RefusalCode::ResultTooBig),
        (RefusalCode::UnknownTable, oracle::RefusalCode::UnknownTable),
        (RefusalCode::Policy, oracle::RefusalCode::Policy),
        (RefusalCode::OverQuota, oracle::RefusalCode::OverQuota),
        (RefusalCode::OutcomeUnknown, oracle::RefusalCode::OutcomeUnknown),
    ] {
        samples.push(sample(
            &format!("decision.refused.{code}"),
            &Decision::Refused { code, message: "no".into(), time_ms: 5 },
            &oracle::Decision::Refused { code: ocode, message: "no".into(), time_ms: 5 },
        ));
    }
    samples
}

/// A schema in which one table was removed, and every flag and policy occurs.
pub fn schema() -> Schema {
    let table = |name: &str, table| (TableName::new(name).unwrap(), table);
    let revision = TableSchema { policy: Policy::Revision, ..TableSchema::new("id") };
    let wins = TableSchema { policy: Policy::ServerWins, ..TableSchema::new("id") };
    let drafts = TableSchema { local: true, ..TableSchema::new("id") };
    let files = TableSchema {
        content_keyed: true,
        blob_fields: vec!["hash".into()],
        server_owned: vec!["storage_provider_id".into(), "storage_id".into()],
        ..TableSchema::new("hash")
    };
    let old = Schema::new(0, [table("posts", revision)]).unwrap();
    let new = [table("file_meta", files), table("kv", wins), table("drafts", drafts)];
    old.replaced_by(&Schema::new(3, new).unwrap()).unwrap()
}

fn oschema() -> oracle::Schema {
    let table = |name: &str, flags, policy| oracle::Table {
        name: name.into(),
        flags,
        key_field: "id".into(),
        policy,
        blob_fields: vec![],
        server_owned: vec![],
    };
    let files = oracle::Table {
        key_field: "hash".into(),
        blob_fields: vec!["hash".into()],
        server_owned: vec!["storage_id".into(), "storage_provider_id".into()],
        ..table("file_meta", 2, 0)
    };
    oracle::Schema {
        layout: 1,
        min_app_schema: 3,
        tables: vec![table("drafts", 1, 0), files, table("kv", 0, 1), table("posts", 4, 2)],
    }
}

fn schemas() -> Vec<Sample> {
    let none = oracle::Schema { layout: 1, min_app_schema: 0, tables: vec![] };
    let table = TableSchema { private_by: Some("user_id".into()), ..TableSchema::new("id") };
    let private = Schema::new(0, [(TableName::new("inbox").unwrap(), table)]).unwrap();
    let (name, key_field, by) =
        (String::from("inbox"), String::from("id"), String::from("user_id"));
    let (flags, policy, fields) = (8_u8, 0_u64, Vec::<String>::new());
    let table = (name, flags, key_field, policy, fields.clone(), fields, by);
    vec![
        sample("schema", &schema(), &oschema()),
        sample("schema.empty", &Schema::default(), &none),
        sample("schema.private", &private, &(1_u64, 0_u64, vec![table])),
    ]
}

fn accepted() -> Decision {
    let applied = Verdict::Applied { dropped: vec![] };
    let stale = Verdict::Superseded { by: 9, reason: Superseded::Stale };
    Decision::Accepted {
        first_seq: 65_535,
        last_seq: 65_538,
        time_ms: 1_700_000_000_000,
        verdicts: vec![applied, stale],
    }
}

fn oaccepted() -> oracle::Decision {
    let applied = oracle::Verdict::Applied { dropped: vec![] };
    let stale = oracle::Verdict::Superseded { by: 9, reason: oracle::Superseded::Stale };
    oracle::Decision::Accepted {
        first_seq: 65_535,
        last_seq: 65_538,
        time_ms: 1_700_000_000_000,
        verdicts: vec![applied, stale],
    }
}

fn decided() -> Decided {
    Decided { counter: 300, batch_id: BatchId(BATCH), decision: accepted() }
}

fn odecided() -> oracle::Decided {
    oracle::Decided { counter: 300, batch_id: BATCH, decision: oaccepted() }
}

/// Messages that open a session.
fn sessions() -> Vec<Sample> {
    let hello = Message::Hello(Hello {
        min_version: 1,
        max_version: 2,
        token: "secret".into(),
        device: DeviceId(DEVICE),
        app_schema: 12,
        agent: "lastword/1".into(),
    });
    let ohello = oracle::Message::Hello(oracle::Hello {
        min_version: 1,
        max_version: 2,
        token: "secret".into(),
        device: DEVICE,
        app_schema: 12,
        agent: "lastword/1".into(),
    });
    let welcome = Message::Welcome(Welcome {
        version: 1,
        server_time_ms: 1_700_000_000_000,
        max_message_bytes: 1 << 20,
        max_record_bytes: 1 << 18,
        max_batch_bytes: 768 << 10,
        max_batch_ops: 500,
        max_batches_in_flight: 32,
    });
    let owelcome = oracle::Message::Welcome(oracle::Welcome {
        version: 1,
        server_time_ms: 1_700_000_000_000,
        max_message_bytes: 1 << 20,
        max_record_bytes: 1 << 18,
        max_batch_bytes: 768 << 10,
        max_batch_ops: 500,
        max_batches_in_flight: 32,
    });
    let mut samples = vec![
        sample("message.hello", &hello, &ohello),
        sample("message.welcome", &welcome, &owelcome),
    ];
    samples.extend(attaches());
    samples
}

fn attaches() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (name, epoch) in [("message.attach.first", None), ("message.attach", Some([3; 16]))] {
        let attach = Message::Attach(Attach {
            attachment: 1,
            workspace: WorkspaceName::new("team").unwrap(),
            epoch: epoch.map(Epoch),
            cursor: 900,
            received_to: 1000,
            horizon: 0,
            cover: [1; 16],
            nonce: [2; 16],
            decided: 299,
            walk: None,
            scope: vec![],
        });
        let oattach = oracle::Message::Attach(oracle::Attach {
            attachment: 1,
            workspace: "team".into(),
            epoch,
            cursor: 900,
            received_to: 1000,
            cover: [1; 16],
            nonce: [2; 16],
            decided: 299,
            scope: vec![],
        });
        samples.push(sample(name, &attach, &oattach));
        if let (Message::Attach(attach), oracle::Message::Attach(oattach)) = (attach, oattach)
            && epoch.is_some()
        {
            let from = Attach { horizon: 17, ..attach };
            let ofrom = oracle::Message::AttachFrom(oattach.clone(), 17);
            samples.push(sample("message.attach.from", &Message::Attach(from.clone()), &ofrom));
            let (table, key) = (TableName::new("notes").unwrap(), Key::new("n1").unwrap());
            let walk = Some(WalkPlace { base: 800, table, key });
            let attach = Message::Attach(Attach { walk, ..from });
            let oplace = oracle::Place { base: 800, table: "notes".into(), key: "n1".into() };
            let oattach = oracle::Message::AttachWalk(oattach, 17, oplace);
            samples.push(sample("message.attach.walk", &attach, &oattach));
        }
    }
    samples.extend(attached());
    samples
}

fn attached() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (role, orole) in [
        (Role::Owner, oracle::Role::Owner),
        (Role::Editor, oracle::Role::Editor),
        (Role::Viewer, oracle::Role::Viewer),
    ] {
        let attached = Message::Attached(Attached {
            attachment: 1,
            epoch: Epoch([3; 16]),
            lineage: vec![(5, 1 << 20)],
            schema: vec![1, 2],
            head: 1000,
            horizon: 17,
            role,
            reset: None,
            cover: [0; 16],
            last_counter: 300,
            decisions: vec![decided()],
        });
        let oattached = oracle::Message::Attached(oracle::Attached {
            attachment: 1,
            epoch: [3; 16],
            lineage: vec![(5, 1 << 20)],
            schema: vec![1, 2],
            head: 1000,
            horizon: 17,
            role: orole,
            last_counter: 300,
            decisions: vec![odecided()],
        });
        samples.push(sample(&format!("message.attached.{role}"), &attached, &oattached));
        if role == Role::Editor {
            samples.extend(resets(attached, oattached));
        }
    }
    samples
}

/// The same with each reason to begin anew.
fn resets(attached: Message, oattached: oracle::Message) -> Vec<Sample> {
    let (Message::Attached(attached), oracle::Message::Attached(oattached)) = (attached, oattached)
    else {
        panic!("both are attached")
    };
    let reasons = [
        (ResetReason::BehindHorizon, oracle::ResetReason::BehindHorizon),
        (ResetReason::OtherHistory, oracle::ResetReason::OtherHistory),
        (ResetReason::OtherCover, oracle::ResetReason::OtherCover),
    ];
    let of = |(reset, oreset)| {
        let attached = Message::Attached(Attached { reset: Some(reset), ..attached.clone() });
        let oattached = oracle::Message::AttachedReset(oattached.clone(), oreset);
        sample(&format!("message.attached.reset.{reset}"), &attached, &oattached)
    };
    let mut samples: Vec<Sample> = reasons.into_iter().map(of).collect();
    let other = (Some(ResetReason::OtherCover), Some(oracle::ResetReason::OtherCover));
    for (name, (reset, oreset)) in [("cover", (None, None)), ("cover.reset", other)] {
        let attached = Message::Attached(Attached { reset, cover: [5; 16], ..attached.clone() });
        let oattached = (21_u64, oattached.clone(), oreset, [5_u8; 16]);
        samples.push(sample(&format!("message.attached.{name}"), &attached, &oattached));
    }
    samples
}

/// Messages that carry batches, decisions and changes.
fn streams() -> Vec<Sample> {
    use Message as P;
    use oracle::Message as O;
    let mut samples = vec![
        sample(
            "message.push",
            &P::Push { attachment: 1, batch: batch() },
            &O::Push { attachment: 1, batch: obatch() },
        ),
        sample(
            "message.ack",
            &P::Ack { attachment: 1, decisions: vec![decided()] },
            &O::Ack { attachment: 1, decisions: vec![odecided()] },
        ),
        sample(
            "message.resume",
            &P::Resume { attachment: 1, counter: 300 },
            &O::Resume { attachment: 1, counter: 300 },
        ),
        sample(
            "message.received",
            &P::Received { attachment: 1, received_to: 1000, cursor: 900 },
            &O::Received { attachment: 1, received_to: 1000, cursor: 900 },
        ),
    ];
    for (name, consistent_at) in [("message.changes", None), ("message.changes.last", Some(7))] {
        let (table, key) = (TableName::new("messages").unwrap(), Key::new("m1").unwrap());
        let rows = all_rows();
        let entry =
            |row: &Row| Entry::Row { table: table.clone(), key: key.clone(), row: row.clone() };
        let oentry = |row: &oracle::Row| oracle::Entry::Row {
            table: "messages".into(),
            key: "m1".into(),
            row: row.clone(),
        };
        let page = P::Changes(Changes {
            attachment: 1,
            from: 4,
            to: 7,
            consistent_at,
            entries: rows.iter().map(|(_, row, _)| entry(row)).collect(),
        });
        let opage = O::Changes(oracle::Changes {
            attachment: 1,
            from: 4,
            to: 7,
            consistent_at,
            entries: rows.iter().map(|(_, _, row)| oentry(row)).collect(),
        });
        samples.push(sample(name, &page, &opage));
        let after = consistent_at.map(|_| (table.clone(), Key::new("m0").unwrap()));
        let (name, is_last) = match consistent_at {
            None => ("message.walk", false),
            Some(_) => ("message.walk.last", true),
        };
        let oafter = consistent_at.map(|_| ("messages".into(), "m0".into()));
        let entries = rows.iter().map(|(_, row, _)| entry(row)).collect();
        let page = P::Walk(WalkPage { attachment: 1, base: 800, after, is_last, entries });
        let entries = rows.iter().map(|(_, _, row)| oentry(row)).collect();
        let opage =
            O::Walk(oracle::Walk { attachment: 1, base: 800, after: oafter, is_last, entries });
        samples.push(sample(name, &page, &opage));
    }
    samples
}

/// What survived, with every kind of row.
fn survivors() -> Vec<Sample> {
    let (mut entries, mut oentries) = (Vec::new(), Vec::new());
    for (_, row, orow) in all_rows() {
        let (table, key) = (TableName::new("messages").unwrap(), Key::new("m1").unwrap());
        entries.push(Entry::Row { table, key, row });
        let (table, key) = ("messages".into(), "m1".into());
        oentries.push(oracle::Entry::Row { table, key, row: orow });
    }
    let offered = Survivors { attachment: 1, entries, is_last: true };
    let ooffered = oracle::Survivors { attachment: 1, entries: oentries, is_last: true };
    let (offered, ooffered) = (Message::Survivors(offered), oracle::Message::Survivors(ooffered));
    let stored = Message::SurvivorsStored { attachment: 1 };
    let ostored = oracle::Message::SurvivorsStored { attachment: 1 };
    vec![
        sample("message.survivors", &offered, &ooffered),
        sample("message.survivors_stored", &stored, &ostored),
    ]
}

/// A file and a page of its list of chunks.
fn files() -> Vec<Sample> {
    let ids = [[0xaa; 32], [0xbb; 32]];
    let entries = ids.map(|id| ManifestEntry { id: ChunkId(id), len: 65_536 }).to_vec();
    let oentries = ids.map(|id| (id, 65_536_u64)).to_vec();
    let page = ManifestPage { level: 1, entries };
    let (sha256, root) = ([0xcc; 32], ChunkId([0xdd; 32]));
    let blob = Blob { sha256, size: 131_072, profile: 1, depth: 1, root };
    vec![
        sample("manifest.page", &page, &(1_u64, 1_u64, oentries)),
        sample("manifest.blob", &blob, &(sha256, 131_072_u64, 1_u64, 1_u64, root.0)),
    ]
}

/// Questions about older versions, and answers with every kind of version.
fn histories() -> Vec<Sample> {
    let (table, key) = (TableName::new("messages").unwrap(), Key::new("m1").unwrap());
    let asked = ReadHistory { attachment: 1, request: 2, table, key, before: 300 };
    let oasked = oracle::ReadHistory {
        attachment: 1,
        request: 2,
        table: "messages".into(),
        key: "m1".into(),
        before: 300,
    };
    let mut samples = vec![sample(
        "message.read_history",
        &Message::ReadHistory(asked),
        &oracle::Message::ReadHistory(oasked),
    )];
    let applied = Verdict::Applied { dropped: vec!["likes".into()] };
    let oapplied = oracle::Verdict::Applied { dropped: vec!["likes".into()] };
    let (mut versions, mut oversions) = (Vec::new(), Vec::new());
    for (seq, kind, okind) in [
        (299, VersionKind::Create, oracle::VersionKind::Create),
        (298, VersionKind::Put, oracle::VersionKind::Put),
        (297, VersionKind::Patch, oracle::VersionKind::Patch),
        (296, VersionKind::Delete, oracle::VersionKind::Delete),
        (295, VersionKind::Undelete, oracle::VersionKind::Undelete),
        (294, VersionKind::Erase, oracle::VersionKind::Erase),
        (293, VersionKind::Kept, oracle::VersionKind::Kept),
    ] {
        let has = seq % 2 == 1;
        let (record_in, device) = (has.then(record), DeviceId(*b"device-device-01"));
        let (verdict, overdict) = (has.then(|| applied.clone()), has.then(|| oapplied.clone()));
        let time_ms = 1_700_000_000_000;
        let orecord = has.then(orecord);
        versions.push(HistoryVersion { seq, time_ms, device, kind, verdict, record: record_in });
        oversions.push(oracle::HistoryVersion {
            seq,
            time_ms,
            device: device.0,
            kind: okind,
            verdict: overdict,
            record: orecord,
        });
    }
    for (rest, orest) in [
        (HistoryRest::Nothing, oracle::HistoryRest::Nothing),
        (HistoryRest::More, oracle::HistoryRest::More),
        (HistoryRest::Gone, oracle::HistoryRest::Gone),
    ] {
        let (versions, oversions) = (versions.clone(), oversions.clone());
        let told = History { attachment: 1, request: 2, versions, rest };
        let otold = oracle::History { attachment: 1, request: 2, versions: oversions, rest: orest };
        let (told, otold) = (Message::History(told), oracle::Message::History(otold));
        samples.push(sample(&format!("message.history.{rest}"), &told, &otold));
    }
    samples
}

/// The end of a membership.
fn revoked() -> Sample {
    let notice = Message::Notice(Notice::Revoked { attachment: 1 });
    let onotice = oracle::Message::Notice(oracle::Notice::Revoked { attachment: 1 });
    sample("message.notice.revoked", &notice, &onotice)
}

/// Messages that end something.
fn endings() -> Vec<Sample> {
    use Message as P;
    use oracle::Message as O;
    let text = || "why".to_owned();
    let mut samples = vec![
        sample("message.detach", &P::Detach { attachment: 1 }, &O::Detach { attachment: 1 }),
        sample("message.refresh", &P::Refresh { token: text() }, &O::Refresh { token: text() }),
        sample(
            "message.notice.retry_after",
            &P::Notice(Notice::RetryAfter {
                attachment: 1,
                counter: 300,
                retry_ms: 5000,
                message: text(),
            }),
            &O::Notice(oracle::Notice::RetryAfter {
                attachment: 1,
                counter: 300,
                retry_ms: 5000,
                message: text(),
            }),
        ),
        sample(
            "message.notice.shutting_down",
            &P::Notice(Notice::ShuttingDown),
            &O::Notice(oracle::Notice::ShuttingDown),
        ),
        sample(
            "message.notice.horizon",
            &P::Notice(Notice::Horizon { attachment: 1, horizon: 300 }),
            &O::Notice(oracle::Notice::Horizon { attachment: 1, horizon: 300 }),
        ),
    ];
    for (code, ocode) in [
        (AttachRefusal::Forbidden, oracle::AttachRefusal::Forbidden),
        (AttachRefusal::Fenced, oracle::AttachRefusal::Fenced),
        (AttachRefusal::DeviceForked, oracle::AttachRefusal::DeviceForked),
        (AttachRefusal::AppTooOld, oracle::AttachRefusal::AppTooOld),
        (AttachRefusal::WorkspaceDeleted, oracle::AttachRefusal::WorkspaceDeleted),
        (AttachRefusal::TooMany, oracle::AttachRefusal::TooMany),
        (AttachRefusal::Unavailable, oracle::AttachRefusal::Unavailable),
        (AttachRefusal::RoleChanged, oracle::AttachRefusal::RoleChanged),
    ] {
        samples.push(sample(
            &format!("message.refused.{code}"),
            &P::Refused { attachment: 1, code, message: text() },
            &O::Refused { attachment: 1, code: ocode, message: text() },
        ));
    }
    for (code, ocode) in [
        (ErrorCode::Version, oracle::ErrorCode::Version),
        (ErrorCode::Unauthenticated, oracle::ErrorCode::Unauthenticated),
        (ErrorCode::Protocol, oracle::ErrorCode::Protocol),
        (ErrorCode::Timeout, oracle::ErrorCode::Timeout),
        (ErrorCode::Rate, oracle::ErrorCode::Rate),
        (ErrorCode::TooBig, oracle::ErrorCode::TooBig),
        (ErrorCode::Internal, oracle::ErrorCode::Internal),
    ] {
        samples.push(sample(
            &format!("message.error.{code}"),
            &P::Error { code, message: text() },
            &O::Error { code: ocode, message: text() },
        ));
    }
    samples
}
