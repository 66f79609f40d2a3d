//! Golden vectors of what frames and state rows say: these bytes are on users' disks.

use std::collections::BTreeMap;
use std::fmt::Debug;

use lastword_core::codec::{Decode, Encode, from_bytes, to_bytes};
use lastword_core::hash::ChunkId;
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::json;
use lastword_core::manifest::Blob;
use lastword_core::op::{Action, Batch, Op};
use lastword_core::protocol::{Decided, Entry, Role};
use lastword_core::row::{Digest, Row};
use lastword_core::rules::{PendingOp, PendingState, Policy};
use lastword_core::schema::{Schema, TableSchema};
use lastword_core::stamp::{Decision, Mark, RefusalCode, Superseded, Verdict};
use lastword_core::value::Record;
use lastword_store::keys::{
    ChunkMark, Condemned, Lineage, OutboxEntry, Shadow, StoredBlob, StoredChunk, StoredDecision,
    StoredErasure, StoredPack, StoredPending, StoredReset, StoredRow, StoredSurvivor,
    WorkspaceMeta,
};
use lastword_store::payload::{
    Attachment, BlobsFrame, BlobsPart, Carried, Cover, DamagedChunk, DeadLetters, DecidedBatch,
    Erasure, Forgotten, Identity, LocalBatch, LocalTables, NewChunk, Object, ObjectFrame,
    ObjectPart, ObjectState, PackChunks, Payload, Purge, PurgePart, RemotePage, Reset, Restored,
    Retry, SetAside, Squash, StoreRole, Sums, SurvivorFrame, Verdicts, WorkspaceDeleted,
    WorkspaceSchema,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn workspace() -> WorkspaceName {
    WorkspaceName::new("main").unwrap()
}

fn record() -> Record {
    json::parse_record(r#"{"text":"hi","n":-2}"#).unwrap()
}

fn op(key: &str, action: Action) -> Op {
    let (table, key) = (TableName::new("notes").unwrap(), Key::new(key).unwrap());
    Op { table, key, base: 7, revision: 2, hlc: Hlc(0x1_0000), action }
}

fn put() -> Op {
    op("n1", Action::Put { record: record() })
}

fn batch() -> Batch {
    Batch {
        device: DeviceId([1; 16]),
        counter: 3,
        batch_id: BatchId([2; 16]),
        created_ms: 1_700_000_000_000,
        strict: false,
        former: vec![DeviceId([9; 16])],
        ops: vec![put(), op("n2", Action::Delete)],
    }
}

fn accepted() -> Decision {
    let superseded = Verdict::Superseded { by: 6, reason: Superseded::Dead };
    let verdicts = vec![Verdict::Applied { dropped: Vec::new() }, superseded];
    Decision::Accepted { first_seq: 8, last_seq: 10, time_ms: 1_700_000_000_001, verdicts }
}

fn refused() -> Decision {
    let (code, message) = (RefusalCode::OverQuota, "no room".into());
    Decision::Refused { code, message, time_ms: 1_700_000_000_002 }
}

fn decided(decision: Decision) -> Decided {
    Decided { counter: 3, batch_id: BatchId([2; 16]), decision }
}

fn row() -> Row {
    let mark = |seq| Mark { seq, writer: DeviceId([1; 16]) };
    Row {
        deleted: false,
        last: mark(8),
        time_ms: 1_700_000_000_001,
        born: mark(2),
        full: mark(8),
        fields: Vec::new(),
        set_at: 0,
        revision: 2,
        hlc: Hlc(0x1_0000),
        op_id: BatchId([2; 16]),
        record: record(),
    }
}

/// Payloads of a device's own writes and of its store.
fn own_payloads() -> Vec<(&'static str, Payload)> {
    let local = LocalBatch {
        workspace: workspace(),
        batch: Some(batch()),
        local: vec![op("draft", Action::Delete)],
        previous: vec![0, 56, 300],
    };
    let sent = LocalBatch { local: Vec::new(), previous: vec![56, 300], ..local.clone() };
    let identity = Identity {
        role: StoreRole::Replica,
        device: DeviceId([1; 16]),
        former: vec![DeviceId([9; 16])],
        created_ms: 1_700_000_000_000,
    };
    let purge = |part| Payload::Purge(Purge { workspace: workspace(), part });
    let letters = DeadLetters {
        workspace: workspace(),
        refused: decided(refused()),
        counters: vec![3, 5],
        renumbered: vec![(4, 4), (6, 5)],
        rows: vec![op("letter", Action::Create { record: record(), replace: false })],
    };
    vec![
        ("identity", Payload::Identity(identity.clone())),
        ("fork", Payload::Fork(identity)),
        ("local", Payload::Local(local.clone())),
        ("local.unsynced", Payload::Local(LocalBatch { batch: None, previous: vec![1], ..local })),
        ("squash", Payload::Squash(Squash { replaced: BatchId([6; 16]), sent: sent.clone() })),
        ("retry", Payload::Retry(Retry { sent, letter: op("letter", Action::Delete) })),
        ("dead_letters", Payload::DeadLetters(letters)),
        ("purge.expired", purge(PurgePart::Expired { until_ms: 1_700_000_000_000 })),
        ("purge.tombstones", purge(PurgePart::Tombstones { horizon: 300 })),
        ("purge.decisions", purge(PurgePart::Decisions { device: DeviceId([7; 16]), through: 9 })),
        ("purge.stale", purge(PurgePart::Stale { after: 6, through: 300 })),
        ("purge.erased", purge(PurgePart::Erased { before: 300 })),
        ("purge.generation", purge(PurgePart::Generation { generation: 2 })),
        ("purge.clock", purge(PurgePart::Clock { now_ms: 1_700_000_000_000 })),
        ("sums", Payload::Sums(Sums { workspaces: vec![(workspace(), 300, 1 << 100)] })),
    ]
}

/// Payloads of what was decided and received.
fn synced_payloads() -> Vec<(&'static str, Payload)> {
    let decided_batch = |decision, ops| DecidedBatch {
        workspace: workspace(),
        batch: Batch { ops, ..batch() },
        payload_hash: [3; 32],
        decision,
        own: vec![op("c", Action::Create { record: record(), replace: false })],
        previous: vec![56, 0, 0],
        values: Vec::new(),
    };
    let (table, key) = (TableName::new("notes").unwrap(), Key::new("n1").unwrap());
    let page = RemotePage {
        workspace: workspace(),
        from: 7,
        to: 10,
        consistent_at: Some(10),
        entries: vec![Entry::Row { table, key, row: row() }],
        previous: vec![56],
        walk: None,
    };
    let (epoch, role, horizon) = (Epoch([4; 16]), Role::Editor, 0);
    let verdicts = Verdicts { workspace: workspace(), decisions: vec![decided(accepted())] };
    let attachment = Attachment { workspace: workspace(), epoch, role, horizon };
    let tables = ["drafts", "panes"].map(|name| TableName::new(name).unwrap()).to_vec();
    let restored = Restored {
        workspace: workspace(),
        epoch,
        branch: 10,
        head: 1_700_000_000 << 20,
        time_ms: 1_700_000_000_003,
    };
    let erasure = Erasure {
        workspace: workspace(),
        first_seq: 300,
        time_ms: 1_700_000_000_004,
        records: vec![(TableName::new("notes").unwrap(), Key::new("n1").unwrap())],
    };
    let schema = |schema| Payload::Schema(WorkspaceSchema { workspace: workspace(), schema });
    let lineage = vec![(10, 1_700_000_000 << 20)];
    let (other_history, horizon) = (None, 300);
    let reset = Reset { workspace: workspace(), epoch, role, horizon, lineage, other_history };
    let records = erasure.records.clone();
    let rows = vec![op("c", Action::Create { record: record(), replace: false })];
    let (counters, renumbered) = (vec![4], vec![(5, 4)]);
    let (entries, gone, device) = (page.entries.clone(), vec![300, 301], DeviceId([1; 16]));
    let time_ms = 1_700_000_000_005;
    let survivors = SurvivorFrame { workspace: workspace(), device, time_ms, entries, gone };
    let undeleted = decided_batch(accepted(), batch().ops);
    let values = vec![(1, record())];
    let aside = SetAside { workspace: workspace(), counters, renumbered, rows };
    vec![
        ("erasure", Payload::Erasure(erasure)),
        ("decided", Payload::Decided(decided_batch(accepted(), batch().ops))),
        ("decided.values", Payload::Decided(DecidedBatch { values, ..undeleted })),
        ("decided.refused", Payload::Decided(decided_batch(refused(), Vec::new()))),
        ("remote", Payload::Remote(page)),
        ("verdicts", Payload::Verdicts(verdicts)),
        ("attachment", Payload::Attachment(attachment)),
        ("restored", Payload::Restored(restored)),
        ("local-tables", Payload::LocalTables(LocalTables { tables })),
        ("schema", schema(Some(notes_schema()))),
        ("schema.none", schema(None)),
        ("survivors", Payload::Survivors(survivors)),
        ("reset", Payload::Reset(reset.clone())),
        ("reset.other", Payload::Reset(Reset { other_history: Some(300), ..reset })),
        ("carried", Payload::Carried(Carried { workspace: workspace(), records })),
        ("set_aside", Payload::SetAside(aside)),
        ("cover", Payload::Cover(Cover { workspace: workspace(), cover: [5; 16] })),
    ]
}

/// Payloads of workspaces that end.
fn ended_payloads() -> Vec<(&'static str, Payload)> {
    let deleted = WorkspaceDeleted { workspace: workspace(), time_ms: 1_700_000_000_005 };
    vec![
        ("deleted", Payload::WorkspaceDeleted(deleted)),
        ("forgotten", Payload::Forgotten(Forgotten { workspace: workspace() })),
    ]
}

fn blob() -> Blob {
    let (sha256, root) = ([6; 32], ChunkId([7; 32]));
    Blob { sha256, size: 131_072, profile: 1, depth: 1, root }
}

fn object() -> Object {
    let (provider, upload) = ("s3".into(), "u-1".into());
    let (state, time_ms) = (ObjectState::Condemned, 1_700_000_000_008);
    Object { sha256: [6; 32], size: 131_072, provider, upload, state, time_ms }
}

/// What is said of files.
fn file_payloads() -> Vec<(&'static str, Payload)> {
    let chunk = NewChunk { id: ChunkId([8; 32]), position: 48, len: 300, raw: 65_536 };
    let salt = [5; 16];
    let packs = vec![PackChunks { pack: 9, salt, end: 376, chunks: vec![chunk] }];
    let (blobs, chunks) = (|| vec![[6; 32]], || vec![ChunkId([8; 32])]);
    let damaged = DamagedChunk { id: ChunkId([8; 32]), pack: 9, position: 48 };
    let time_ms = 1_700_000_000_007;
    let parts = [
        ("blobs.chunks", BlobsPart::Chunks { packs, used: vec![ChunkId([7; 32])] }),
        ("blobs.blob", BlobsPart::Blob { blob: blob(), time_ms: 1_700_000_000_006 }),
        ("blobs.damaged", BlobsPart::Damaged { chunks: vec![damaged] }),
        ("blobs.condemn", BlobsPart::Condemn { blobs: blobs(), chunks: chunks(), time_ms }),
        ("blobs.spare", BlobsPart::Spare { chunks: chunks() }),
        ("blobs.drop", BlobsPart::Drop { blobs: blobs(), chunks: chunks() }),
        ("blobs.pack_gone", BlobsPart::PackGone { pack: 300 }),
    ];
    let payload = |part| Payload::Blobs(BlobsFrame { workspace: workspace(), part });
    let mut all = parts.map(|(name, part)| (name, payload(part))).to_vec();
    let stands = ObjectPart::Stands(object());
    for (name, part) in
        [("object.stands", stands), ("object.gone", ObjectPart::Gone { sha256: [6; 32] })]
    {
        all.push((name, Payload::Object(ObjectFrame { workspace: workspace(), part })));
    }
    all
}

/// Rows of files, chunks and packs.
fn file_rows(golden: &mut BTreeMap<&str, &str>) {
    let (pack, position, len, raw, touched) = (9, 48, 300, 65_536, 500);
    let chunk = StoredChunk { pack, position, len, raw, touched, mark: ChunkMark::Whole };
    value(golden, "state.chunk", &chunk);
    value(golden, "state.chunk.damaged", &StoredChunk { mark: ChunkMark::Damaged, ..chunk });
    let condemned = Condemned { at: 600, time_ms: 1_700_000_000_007 };
    let mark = ChunkMark::Condemned(condemned);
    value(golden, "state.chunk.condemned", &StoredChunk { mark, ..chunk });
    value(golden, "state.condemned", &condemned);
    let (blob, time_ms) = (blob(), 1_700_000_000_006);
    value(golden, "state.blob", &StoredBlob { blob, touched, time_ms });
    value(golden, "state.object", &object());
    value(golden, "state.pack", &StoredPack { salt: [5; 16], end: 376, live: 328 });
}

fn notes_schema() -> Schema {
    let notes = TableSchema {
        policy: Policy::ServerWins,
        server_owned: vec!["size".into()],
        ..TableSchema::new("id")
    };
    Schema::new(2, [(TableName::new("notes").unwrap(), notes)]).unwrap()
}

fn golden() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("golden/payloads.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap()).collect()
}

/// The pinned bytes of `name`; a name without any fails with the line to add.
#[track_caller]
fn pinned(golden: &mut BTreeMap<&str, &str>, name: &str, bytes: &[u8]) {
    let found = hex(bytes);
    match golden.remove(name) {
        Some(expected) => assert_eq!(found, expected, "{name}"),
        None => panic!("golden/payloads.txt lacks: {name} {found}"),
    }
}

#[track_caller]
fn value<T: Encode + Decode + PartialEq + Debug>(
    golden: &mut BTreeMap<&str, &str>,
    name: &str,
    value: &T,
) {
    let bytes = to_bytes(value);
    pinned(golden, name, &bytes);
    assert_eq!(&from_bytes::<T>(&bytes).unwrap(), value, "{name}");
    assert!((0..bytes.len()).all(|len| from_bytes::<T>(&bytes[..len]).is_err()), "{name}");
}

/// What META has of a workspace.
fn workspace_facts(golden: &mut BTreeMap<&str, &str>) {
    let meta = WorkspaceMeta {
        epoch: Some(Epoch([4; 16])),
        generation: 1,
        head: 10,
        cursor: 9,
        received_to: 10,
        bootstrapped: true,
        horizon: 2,
        written: 5,
        decided: 4,
        gone: 3,
        rows: 300,
        digest: Digest(1 << 100),
        time_ms: 1_700_000_000_001,
        role: Some(Role::Owner),
    };
    value(golden, "state.meta", &meta);
    value(golden, "state.schema", &notes_schema());
    value(golden, "state.lineage", &Lineage(vec![(10, 1_700_000_000 << 20)]));
    let reset = StoredReset {
        generation: 2,
        received_to: 300,
        rows: 7,
        digest: Digest(1 << 100),
        behind_horizon: true,
    };
    value(golden, "state.reset", &reset);
    let entry = Entry::Row {
        table: TableName::new("notes").unwrap(),
        key: Key::new("n1").unwrap(),
        row: row(),
    };
    let survivor = StoredSurvivor { device: DeviceId([1; 16]), time_ms: 1_700_000_000_005, entry };
    value(golden, "state.survivor", &survivor);
}

/// Frame payloads and state rows of format 1, byte for byte; each is read back, and no part of one
/// is taken for the whole.
#[test]
fn payloads_and_state_rows_have_their_golden_bytes() {
    let mut golden = golden();
    for (name, payload) in own_payloads()
        .into_iter()
        .chain(synced_payloads())
        .chain(ended_payloads())
        .chain(file_payloads())
    {
        let bytes = payload.to_bytes();
        pinned(&mut golden, name, &bytes);
        assert_eq!(Payload::from_frame(payload.kind(), &bytes).unwrap(), payload);
        for len in 0..bytes.len() {
            assert!(Payload::from_frame(payload.kind(), &bytes[..len]).is_err(), "{name}: {len}");
        }
    }
    let stored = StoredRow { position: 300, row: row() };
    value(&mut golden, "state.row", &stored);
    let (before, since_ms) = (300, 1_700_000_000_004);
    value(&mut golden, "state.erasure", &StoredErasure { before, since_ms });
    let erased = Row::erased(&stored.row, Record::default(), 301, 1_700_000_000_004);
    value(&mut golden, "state.row.erased", &StoredRow { position: 400, row: erased });
    value(&mut golden, "state.shadow", &Shadow(Some(stored)));
    value(&mut golden, "state.shadow.none", &Shadow(None));
    workspace_facts(&mut golden);
    file_rows(&mut golden);
    let entry = OutboxEntry {
        batch_id: BatchId([2; 16]),
        payload_hash: [3; 32],
        position: 56,
        created_ms: 1_700_000_000_000,
        records: vec![(TableName::new("notes").unwrap(), Key::new("n1").unwrap())],
        settled: Some(accepted()),
        again: false,
    };
    value(&mut golden, "state.outbox", &entry);
    let entry = OutboxEntry { settled: None, again: true, ..entry };
    value(&mut golden, "state.outbox.again", &entry);
    let stored = StoredDecision {
        device: DeviceId([1; 16]),
        counter: 3,
        payload_hash: [3; 32],
        decision: refused(),
    };
    value(&mut golden, "state.decision", &stored);
    let pending = |state| {
        let (batch_id, created_ms) = (BatchId([2; 16]), 1_700_000_000_000);
        StoredPending(PendingOp {
            counter: 3,
            batch_id,
            created_ms,
            strict: true,
            op: put(),
            state,
        })
    };
    value(&mut golden, "state.pending", &pending(PendingState::Undecided));
    let verdict = Verdict::Applied { dropped: vec!["text".into()] };
    let settled = PendingState::Settled { seq: 8, time_ms: 1_700_000_000_001, verdict };
    value(&mut golden, "state.pending.settled", &pending(settled));
    assert!(golden.is_empty(), "no test has these: {golden:?}");
}
