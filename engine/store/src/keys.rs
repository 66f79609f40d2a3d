//! Spaces of the state, their keys and their values: one function pair per persisted kind.
//!
//! | space | key | value | on |
//! |---|---|---|---|
//! | `META` | workspace, or empty | [`WorkspaceMeta`], or the identity | both |
//! | `ROWS` | row key | [`StoredRow`]: what readers see | both |
//! | `SHADOW` | row key | the authority's row under own pending ops | replica |
//! | `PENDING` | length, row key, counter | own op not yet passed by the cursor | replica |
//! | `OUTBOX` | workspace 00 counter | [`OutboxEntry`] | replica |
//! | `STAGED` | row key | row of a page that waits for its consistent end | replica |
//! | `BY_SEQ` | workspace 00 seq | table 00 key | authority |
//! | `DECISIONS` | workspace 00 batch id | [`StoredDecision`] | authority |
//! | `COUNTERS` | workspace 00 device | last decided counter | authority |
//! | `BY_COUNTER` | workspace 00 device counter | batch id | authority |
//! | `GRAVES` | workspace 00 seq | table 00 key of a tombstone | both |
//! | `INDEX` | workspace 00 generation table 00 index 00 values key | nothing | replica |
//! | `EXPIRING` | workspace 00 time table 00 key | nothing | both |
//! | `CHUNKS` | workspace 00 chunk id | [`StoredChunk`] | both |
//! | `BLOBS` | workspace 00 `b` sha256 | [`StoredBlob`] | both |
//! | `BLOBS` | workspace 00 `c` sha256 | [`Condemned`] | both |
//! | `BLOBS` | workspace 00 `o` sha256 | [`crate::payload::Object`] | authority |
//! | `BLOBS` | workspace 00 `p` number | [`StoredPack`] | both |
//!
//! A row key is `workspace 00 generation table 00 key` with the generation as four bytes
//! big-endian; names hold no 00, so keys sort by workspace, generation, table, then key bytes.
//! The values of an index entry are those of its fields, as [`crate::index`] encodes them.
//!
//! `META` also holds, under `workspace 00`, the [`Lineage`] of a workspace that was restored; under
//! `workspace 00 73`, its schema, if it has one; under `workspace 00 01`, the [`StoredReset`] of a
//! replica that is taking the workspace anew; under `workspace 00 02`, what its copy covers, if
//! that is not everything; under `workspace 00 03`, when it was deleted; under `workspace 00 04`,
//! how far the walk of a replica has come that takes the workspace; under the one byte 00, the
//! indexes that the state was built with, if there are any; under 00 00, how far the clock has come
//! by which things grow old; and under 00 01, before which position frames hold what was erased,
//! while any file does.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::id::{BatchId, DeviceId, Epoch, IndexName, Key, TableName, WorkspaceName};
use lastword_core::limits::{HISTORY_WINDOW_MS, MAX_BATCH_OPS, MAX_LINEAGE};
use lastword_core::op::Op;
#[cfg(doc)]
use lastword_core::protocol::WalkPlace;
use lastword_core::protocol::{Entry, Role};
use lastword_core::row::{Digest, Row};
use lastword_core::rules::{CONFLICTS_TABLE, PendingOp, PendingState};
use lastword_core::stamp::{Decision, Verdict};
use lastword_core::value::Value;

use crate::state::Space;

mod blobs;

pub use blobs::{
    BLOBS, CHUNKS, ChunkMark, Condemned, StoredBlob, StoredChunk, StoredPack, blob_key,
    blobs_prefix, chunk_key, chunk_of, condemned_key, object_key, objects_prefix, pack_key,
    pack_of, packs_prefix,
};

/// Facts about each workspace and about the store.
pub const META: Space = Space::new(0);
/// Visible rows.
pub const ROWS: Space = Space::new(1);
/// The authority's rows under own pending ops.
pub const SHADOW: Space = Space::new(2);
/// Own ops on top of shadow rows.
pub const PENDING: Space = Space::new(3);
/// Own batches that the stream has not shown yet.
pub const OUTBOX: Space = Space::new(4);
/// Rows of pages that wait for a consistent end.
pub const STAGED: Space = Space::new(5);
/// Records in seq order.
pub const BY_SEQ: Space = Space::new(6);
/// Remembered decisions.
pub const DECISIONS: Space = Space::new(7);
/// Last decided counter of each device.
pub const COUNTERS: Space = Space::new(8);
/// Decided batches of a device in counter order.
pub const BY_COUNTER: Space = Space::new(9);
/// Tombstones in seq order.
pub const GRAVES: Space = Space::new(10);
/// Index entries of live visible rows.
pub const INDEX: Space = Space::new(11);
/// Rows that end by themselves, in order of the time when they do: see [`expires_ms`].
pub const EXPIRING: Space = Space::new(12);
/// What a restored authority has lost and replicas have brought back, by the seq of the lost
/// history: see [`StoredSurvivor`].
pub const SURVIVORS: Space = Space::new(13);

/// The name under which [`EXPIRING`] has survivors; their keys are their seqs in decimal.
pub const SURVIVORS_TABLE: &str = "_survivors";

/// Where `META` says which indexes the state was built with; no workspace has this name.
pub const INDEX_SIGNATURE: &[u8] = &[0];
/// Where `META` holds the tables that this store keeps local; no workspace has this name.
pub const LOCAL_TABLES: &[u8] = &[1];

/// Where `META` says how far the clock has come by which things grow old.
pub const RETENTION_CLOCK: &[u8] = &[0, 0];

/// Where `META` says which frames hold what was erased since: those before that position.
pub const ERASED_BEFORE: &[u8] = &[0, 1];

/// `workspace 00 generation table 00 key`.
#[must_use]
pub fn row_key(
    workspace: &WorkspaceName,
    generation: u32,
    table: &TableName,
    key: &Key,
) -> Vec<u8> {
    let mut out = table_prefix(workspace, generation, table);
    out.extend_from_slice(key.as_str().as_bytes());
    out
}

/// The part of a row key that all rows of one table share.
#[must_use]
pub fn table_prefix(workspace: &WorkspaceName, generation: u32, table: &TableName) -> Vec<u8> {
    let mut out = rows_prefix(workspace, generation);
    out.extend_from_slice(table.as_str().as_bytes());
    out.push(0);
    out
}

/// The part of a row key that all rows of one workspace share.
#[must_use]
pub fn rows_prefix(workspace: &WorkspaceName, generation: u32) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.extend_from_slice(&generation.to_be_bytes());
    out
}

/// What most keys have behind the workspace fits in so many bytes, so that they need not grow.
const KEY_ROOM: usize = 96;

/// `workspace 00`.
#[must_use]
pub fn workspace_prefix(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = Vec::with_capacity(workspace.as_str().len() + KEY_ROOM);
    out.extend_from_slice(workspace.as_str().as_bytes());
    out.push(0);
    out
}

/// Where `META` holds the schema of a workspace.
#[must_use]
pub fn schema_key(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(b's');
    out
}

/// Table and key of a row key, with the length of the prefix that [`rows_prefix`] gives.
#[must_use]
pub fn split_row_key(row_key: &[u8], prefix_len: usize) -> Option<(TableName, Key)> {
    split_record(row_key.get(prefix_len..)?)
}

/// A row key cut in three: what all rows of its table share, the table's name, the record's key.
#[must_use]
pub fn cut_row_key(row_key: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let table_at = row_key.iter().position(|byte| *byte == 0)? + 5;
    let table_len = row_key.get(table_at..)?.iter().position(|byte| *byte == 0)?;
    let (prefix, key) = row_key.split_at_checked(table_at + table_len + 1)?;
    Some((prefix, prefix.get(table_at..table_at + table_len)?, key))
}

/// Table and key of a row key.
#[must_use]
pub fn name_of(row_key: &[u8]) -> Option<(TableName, Key)> {
    let (_, table, key) = cut_row_key(row_key)?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Some((TableName::new(text(table)?).ok()?, Key::new(text(key)?).ok()?))
}

/// The part of an index entry that all entries of one index share.
#[must_use]
pub fn index_prefix(table_prefix: &[u8], index: &IndexName) -> Vec<u8> {
    let mut out = table_prefix.to_vec();
    out.extend_from_slice(index.as_str().as_bytes());
    out.push(0);
    out
}

/// `table 00 key`.
#[must_use]
pub fn record_bytes(table: &TableName, key: &Key) -> Vec<u8> {
    [table.as_str(), "\0", key.as_str()].concat().into_bytes()
}

/// Reads what [`record_bytes`] wrote.
#[must_use]
pub fn split_record(bytes: &[u8]) -> Option<(TableName, Key)> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let table = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let key = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
    Some((TableName::new(table).ok()?, Key::new(key).ok()?))
}

/// `workspace 00 number`, the number as eight bytes big-endian: seqs and counters.
#[must_use]
pub fn numbered(workspace: &WorkspaceName, number: u64) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

/// The number at the end of a [`numbered`] or [`pending_key`] key.
#[must_use]
pub fn number_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Where `META` says that a replica is taking the workspace anew.
#[must_use]
pub fn reset_key(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(1);
    out
}

/// Where `META` says how far the walk of a replica has come, the [`WalkPlace`] of it.
#[must_use]
pub fn walk_key(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(4);
    out
}

/// Where `META` says what a replica's copy covers, if that is not everything.
#[must_use]
pub fn cover_key(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(2);
    out
}

/// Where `META` says when a workspace was deleted, in milliseconds since 1970 UTC.
#[must_use]
pub fn deleted_key(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(3);
    out
}

/// The generation in a row key or index entry.
#[must_use]
pub fn generation_of(row_key: &[u8]) -> Option<u32> {
    let at = row_key.iter().position(|byte| *byte == 0)? + 1;
    row_key.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// `workspace 00 id`: a batch or a device.
#[must_use]
pub fn identified(workspace: &WorkspaceName, id: &[u8; 16]) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.extend_from_slice(id);
    out
}

/// `workspace 00 device counter`.
#[must_use]
pub fn by_counter_key(workspace: &WorkspaceName, device: DeviceId, counter: u64) -> Vec<u8> {
    let mut out = identified(workspace, &device.0);
    out.extend_from_slice(&counter.to_be_bytes());
    out
}

/// The part of a pending key that all ops on one record share. The length comes first because a
/// key may hold any byte, so no separator could end it.
#[must_use]
pub fn pending_prefix(row_key: &[u8]) -> Vec<u8> {
    let len = u16::try_from(row_key.len()).expect("invariant: names and keys are short");
    let mut out = len.to_be_bytes().to_vec();
    out.extend_from_slice(row_key);
    out
}

/// Key of one own op on one record.
#[must_use]
pub fn pending_key(row_key: &[u8], counter: u64) -> Vec<u8> {
    let mut out = pending_prefix(row_key);
    out.extend_from_slice(&counter.to_be_bytes());
    out
}

/// When a row ends by itself, in milliseconds since 1970 UTC: a conflict row when it says so, a
/// tombstone of a local table, which no other device has to hear of, after the history window.
#[must_use]
pub fn expires_ms(table: &TableName, row: &Row) -> Option<i64> {
    match row.record.get("expires_ms") {
        Some(Value::Int(at)) if table.as_str() == CONFLICTS_TABLE && !row.deleted => Some(at),
        _ => (row.deleted && row.last.seq == 0)
            .then(|| row.time_ms.saturating_add(HISTORY_WINDOW_MS)),
    }
}

/// Key of a row that ends by itself: `workspace 00 time table 00 key`, the time as eight bytes
/// big-endian; times before 1970 count as 1970.
#[must_use]
pub fn expiring_key(
    workspace: &WorkspaceName,
    expires_ms: i64,
    table: &TableName,
    key: &Key,
) -> Vec<u8> {
    let mut out = numbered(workspace, u64::try_from(expires_ms).unwrap_or(0));
    out.extend_from_slice(&record_bytes(table, key));
    out
}

/// Time, table and key of an [`expiring_key`].
#[must_use]
pub fn split_expiring(workspace: &WorkspaceName, key: &[u8]) -> Option<(u64, TableName, Key)> {
    let rest = key.get(workspace_prefix(workspace).len()..)?;
    let (time, record) = rest.split_first_chunk()?;
    let (table, key) = split_record(record)?;
    Some((u64::from_be_bytes(*time), table, key))
}

/// The end of the range of keys that begin with `prefix`.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// A row with the place of its newest frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Position of the newest frame that names the record.
    pub position: u64,
    /// The row.
    pub row: Row,
}

impl StoredRow {
    /// Whether an encoded one is a tombstone, from its first bytes.
    ///
    /// # Errors
    /// [`DecodeError`] if it does not begin as one.
    pub fn decode_deleted(stored: &[u8]) -> Result<bool, DecodeError> {
        let mut from = Decoder::new(stored);
        from.u64()?;
        Row::decode_deleted(&mut from)
    }
}

impl Encode for StoredRow {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.position);
        self.row.encode(out);
    }
}

impl Decode for StoredRow {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { position: from.u64()?, row: Row::decode(from)? })
    }
}

/// The shadow of a record: the authority's row, or the fact that it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow(pub Option<StoredRow>);

impl Encode for Shadow {
    fn encode(&self, out: &mut Encoder) {
        out.option(self.0.as_ref());
    }
}

impl Decode for Shadow {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.option().map(Self)
    }
}

/// What a store knows about one workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkspaceMeta {
    /// Epoch of its history; none on a replica that never met the authority.
    pub epoch: Option<Epoch>,
    /// Which full copy of the rows is the visible one.
    pub generation: u32,
    /// Authority: last seq given. Replica: last seq of which it knows.
    pub head: u64,
    /// Replica: last consistent seq applied.
    pub cursor: u64,
    /// Replica: last seq whose page is durable.
    pub received_to: u64,
    /// Replica: true once a consistent point was reached; before it rows show as they come.
    pub bootstrapped: bool,
    /// Oldest cursor that can catch up incrementally.
    pub horizon: u64,
    /// Replica: last counter given to a batch.
    pub written: u64,
    /// Replica: last counter whose decision is stored.
    pub decided: u64,
    /// Replica: last counter that the stream has shown; no batch up to it is in the outbox.
    pub gone: u64,
    /// Live rows of the authority's state, product tables left out.
    pub rows: u64,
    /// Digest sum of the authority's state, tombstones included, product tables left out.
    pub digest: Digest,
    /// Largest server time in the log; server time never goes back behind it.
    pub time_ms: i64,
    /// Replica: the user's role at the last attach.
    pub role: Option<Role>,
}

impl Encode for WorkspaceMeta {
    fn encode(&self, out: &mut Encoder) {
        out.option(self.epoch.as_ref());
        out.u64(u64::from(self.generation));
        for number in [self.head, self.cursor, self.received_to] {
            out.u64(number);
        }
        out.bool(self.bootstrapped);
        for number in [self.horizon, self.written, self.decided, self.gone, self.rows] {
            out.u64(number);
        }
        out.raw(&self.digest.0.to_le_bytes());
        out.i64(self.time_ms);
        out.option(self.role.as_ref());
    }
}

impl Decode for WorkspaceMeta {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: from.option()?,
            generation: u32::try_from(from.u64()?).map_err(|_| from.invalid("generation"))?,
            head: from.u64()?,
            cursor: from.u64()?,
            received_to: from.u64()?,
            bootstrapped: from.bool()?,
            horizon: from.u64()?,
            written: from.u64()?,
            decided: from.u64()?,
            gone: from.u64()?,
            rows: from.u64()?,
            digest: Digest(u128::from_le_bytes(from.array()?)),
            time_ms: from.i64()?,
            role: from.option()?,
        })
    }
}

/// What was erased and may still be in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredErasure {
    /// Frames before this position hold it.
    pub before: u64,
    /// Since when it waits, milliseconds since 1970 UTC.
    pub since_ms: i64,
}

impl Encode for StoredErasure {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.before);
        out.i64(self.since_ms);
    }
}

impl Decode for StoredErasure {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { before: from.u64()?, since_ms: from.i64()? })
    }
}

/// A new copy of a workspace that a replica is making beside the visible one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredReset {
    /// The generation that its rows are in.
    pub generation: u32,
    /// Last seq whose page is in it.
    pub received_to: u64,
    /// Its live rows, product tables left out.
    pub rows: u64,
    /// Its digest sum, tombstones included, product tables left out.
    pub digest: Digest,
    /// It was begun because deletes may have been missed.
    pub behind_horizon: bool,
}

impl Encode for StoredReset {
    fn encode(&self, out: &mut Encoder) {
        out.u64(u64::from(self.generation));
        out.u64(self.received_to);
        out.u64(self.rows);
        out.raw(&self.digest.0.to_le_bytes());
        out.bool(self.behind_horizon);
    }
}

impl Decode for StoredReset {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            generation: u32::try_from(from.u64()?).map_err(|_| from.invalid("generation"))?,
            received_to: from.u64()?,
            rows: from.u64()?,
            digest: Digest(u128::from_le_bytes(from.array()?)),
            behind_horizon: from.bool()?,
        })
    }
}

/// The restores of a workspace, oldest first: for each the last seq that the backup knew, and the
/// seq behind which seqs went on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage(pub Vec<(u64, u64)>);

impl Lineage {
    /// Adds a restore; beyond the limit the oldest is forgotten.
    pub fn push(&mut self, branch: u64, jump: u64) {
        self.0.push((branch, jump));
        let over = self.0.len().saturating_sub(MAX_LINEAGE);
        self.0.drain(..over);
    }
}

impl Encode for Lineage {
    fn encode(&self, out: &mut Encoder) {
        out.len_of(self.0.len());
        for (branch, jump) in &self.0 {
            out.u64(*branch);
            out.u64(*jump);
        }
    }
}

impl Decode for Lineage {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let len = from.len("lineage", MAX_LINEAGE)?;
        (0..len).map(|_| Ok((from.u64()?, from.u64()?))).collect::<Result<_, _>>().map(Self)
    }
}

/// One batch of the outbox; its ops are in the log at `position`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its identity.
    pub batch_id: BatchId,
    /// BLAKE3 of its ops as pushed.
    pub payload_hash: [u8; 32],
    /// Position of the frame that holds it.
    pub position: u64,
    /// When it was written, milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// The records it names.
    pub records: Vec<(TableName, Key)>,
    /// Its decision once it is settled.
    pub settled: Option<Decision>,
    /// Of a batch that is not settled: it may have reached a server under another device id or in
    /// a lost history, so it is sent again as `strict`.
    pub again: bool,
}

impl Encode for OutboxEntry {
    fn encode(&self, out: &mut Encoder) {
        self.batch_id.encode(out);
        out.raw(&self.payload_hash);
        out.u64(self.position);
        out.i64(self.created_ms);
        out.len_of(self.records.len());
        for (table, key) in &self.records {
            table.encode(out);
            key.encode(out);
        }
        match &self.settled {
            None => out.u64(if self.again { 2 } else { 0 }),
            Some(decision) => {
                out.u64(1);
                decision.encode(out);
            }
        }
    }
}

impl Decode for OutboxEntry {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let batch_id = BatchId::decode(from)?;
        let payload_hash = from.array()?;
        let (position, created_ms) = (from.u64()?, from.i64()?);
        let len = from.len("records", MAX_BATCH_OPS)?;
        let mut records = Vec::new();
        for _ in 0..len {
            records.push((TableName::decode(from)?, Key::decode(from)?));
        }
        let (settled, again) = match from.u64()? {
            0 => (None, false),
            1 => (Some(Decision::decode(from)?), false),
            2 => (None, true),
            _ => return Err(from.invalid("outbox entry")),
        };
        Ok(Self { batch_id, payload_hash, position, created_ms, records, settled, again })
    }
}

/// A row that an authority has lost and a replica has brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSurvivor {
    /// The device that brought it.
    pub device: DeviceId,
    /// When it came, milliseconds since 1970 UTC; it is kept for [`HISTORY_WINDOW_MS`].
    pub time_ms: i64,
    /// The row, under its seq of the lost history.
    pub entry: Entry,
}

impl Encode for StoredSurvivor {
    fn encode(&self, out: &mut Encoder) {
        self.device.encode(out);
        out.i64(self.time_ms);
        self.entry.encode(out);
    }
}

impl Decode for StoredSurvivor {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let device = DeviceId::decode(from)?;
        Ok(Self { device, time_ms: from.i64()?, entry: Entry::decode(from)? })
    }
}

/// A decision that the authority remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDecision {
    /// The device that sent the batch last.
    pub device: DeviceId,
    /// Its counter there.
    pub counter: u64,
    /// BLAKE3 of its ops.
    pub payload_hash: [u8; 32],
    /// What was decided.
    pub decision: Decision,
}

impl Encode for StoredDecision {
    fn encode(&self, out: &mut Encoder) {
        self.device.encode(out);
        out.u64(self.counter);
        out.raw(&self.payload_hash);
        self.decision.encode(out);
    }
}

impl Decode for StoredDecision {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            device: DeviceId::decode(from)?,
            counter: from.u64()?,
            payload_hash: from.array()?,
            decision: Decision::decode(from)?,
        })
    }
}

/// A pending op as it is stored; its counter is in the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPending(pub PendingOp);

impl Encode for StoredPending {
    fn encode(&self, out: &mut Encoder) {
        let PendingOp { counter, batch_id, created_ms, strict, op, state } = &self.0;
        out.u64(*counter);
        batch_id.encode(out);
        out.i64(*created_ms);
        out.bool(*strict);
        op.encode(out);
        match state {
            PendingState::Undecided => out.u64(0),
            PendingState::Settled { seq, time_ms, verdict } => {
                out.u64(1);
                out.u64(*seq);
                out.i64(*time_ms);
                verdict.encode(out);
            }
        }
    }
}

impl Decode for StoredPending {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self(PendingOp {
            counter: from.u64()?,
            batch_id: BatchId::decode(from)?,
            created_ms: from.i64()?,
            strict: from.bool()?,
            op: Op::decode(from)?,
            state: match from.u64()? {
                0 => PendingState::Undecided,
                1 => PendingState::Settled {
                    seq: from.u64()?,
                    time_ms: from.i64()?,
                    verdict: Verdict::decode(from)?,
                },
                _ => return Err(from.invalid("pending state")),
            },
        }))
    }
}
