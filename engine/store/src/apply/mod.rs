//! Applying a frame to the state: the same steps when it is appended and when it is replayed.
//!
//! Nothing here decides. A decided op carries its verdict, a received row is what the authority
//! says, and a replica's prediction is computed from what the frames before it left.

mod authority;
mod blobs;
mod purge;
mod replica;
mod reset;
mod rows;
mod survivors;

use lastword_core::codec::{Encode, Encoder};
use lastword_core::id::{Key, TableName, WorkspaceName};
use lastword_core::row::{Digest, Row};

use crate::error::{ApplyError, StoreError};
use crate::index::Indexes;
use crate::keys::{
    self, ERASED_BEFORE, EXPIRING, INDEX, INDEX_SIGNATURE, META, ROWS, StoredErasure, WorkspaceMeta,
};
use crate::oplog::FrameRef;
use crate::payload::{Identity, Payload, Sums};
use crate::read;
use crate::state::{Apply, PutRow, Space, StateTxn, View};

/// Bytes that most rows fit in, so that the buffer they are encoded in need not grow.
const ROW_BYTES: usize = 512;

/// Applies the payloads of [`crate::payload`], and keeps the entries of a replica's indexes.
#[derive(Debug, Default)]
pub struct ApplyPayload {
    indexes: Indexes,
}

impl ApplyPayload {
    /// With the indexes that the app declares; an authority has none.
    #[must_use]
    pub fn new(indexes: Indexes) -> Self {
        Self { indexes }
    }
}

impl Apply for ApplyPayload {
    fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        let payload = Payload::from_frame(frame.kind, frame.payload)
            .map_err(|error| ApplyError::Refused(Box::new(error)))?;
        let (indexes, position) = (&self.indexes, frame.position);
        match payload {
            Payload::Identity(identity) => self.introduce(state, &identity),
            Payload::Local(local) => replica::local(state, indexes, position, local),
            Payload::Decided(decided) => authority::decided(state, position, &decided),
            Payload::Remote(page) => replica::remote(state, indexes, position, page),
            Payload::Verdicts(verdicts) => replica::verdicts(state, indexes, &verdicts),
            Payload::Attachment(attachment) => replica::attachment(state, &attachment),
            Payload::DeadLetters(letters) => {
                replica::dead_letters(state, indexes, position, &letters)
            }
            Payload::Sums(sums) => return check_sums(state, &sums),
            Payload::Purge(purge) => purge::purge(state, indexes, &purge),
            Payload::Erasure(erasure) => authority::erasure(state, position, &erasure),
            Payload::Survivors(frame) => survivors::survivors(state, frame),
            Payload::Restored(restored) => authority::restored(state, &restored),
            Payload::LocalTables(declared) => replica::local_tables(state, declared),
            Payload::Schema(schema) => replica::schema(state, indexes, &schema),
            Payload::Retry(retry) => replica::retry(state, indexes, position, retry),
            Payload::WorkspaceDeleted(frame) => authority::deleted(state, &frame),
            Payload::Forgotten(frame) => reset::forgotten(state, indexes, &frame),
            Payload::Squash(frame) => replica::squash(state, indexes, position, frame),
            Payload::Reset(frame) => reset::reset(state, indexes, &frame),
            Payload::Carried(frame) => reset::carried(state, indexes, &frame),
            Payload::Fork(identity) => reset::fork(state, indexes, &identity),
            Payload::Cover(frame) => {
                state.put(META, &keys::cover_key(&frame.workspace), &frame.cover)
            }
            Payload::Blobs(frame) => blobs::blobs(state, position, &frame),
            Payload::Object(frame) => blobs::object(state, &frame),
            Payload::SetAside(frame) => reset::set_aside(state, indexes, position, &frame),
        }?;
        Ok(())
    }

    fn derived(&self) -> &[Space] {
        &[INDEX]
    }

    fn restore(
        &self,
        space: Space,
        key: &[u8],
        value: &[u8],
        put: &mut PutRow<'_>,
    ) -> Result<(), ApplyError> {
        match (space, key) {
            // The indexes declared now, not those of the base.
            (META, INDEX_SIGNATURE) | (INDEX, _) => {}
            (META, b"") => {
                put(space, key, value);
                if !self.indexes.is_empty() {
                    put(META, INDEX_SIGNATURE, &self.indexes.signature());
                }
            }
            (ROWS, _) => {
                put(space, key, value);
                rows::entries_of(&self.indexes, key, value, put)?;
            }
            _ => put(space, key, value),
        }
        Ok(())
    }

    fn accepts(&self, state: &View) -> bool {
        let known = state.get(META, INDEX_SIGNATURE);
        known.is_ok_and(|known| known.as_deref().unwrap_or_default() == self.indexes.signature())
    }

    fn needed_from(&self, state: &View) -> Result<u64, StoreError> {
        read::needed_from(state)
    }
}

impl ApplyPayload {
    /// The identity is the first frame of a log, so every state says how it was built. A later one
    /// makes another device of it.
    fn introduce(&self, state: &mut StateTxn<'_>, identity: &Identity) -> Result<(), StoreError> {
        if !self.indexes.is_empty() {
            state.put(META, INDEX_SIGNATURE, &self.indexes.signature())?;
        }
        let known = read::identity(state)?;
        if known.is_some_and(|known| known.device != identity.device) {
            replica::begin_as_another(state, &self.indexes)?;
        }
        put(state, META, b"", identity)
    }
}

fn put<T: Encode>(
    state: &mut StateTxn<'_>,
    space: Space,
    key: &[u8],
    value: &T,
) -> Result<(), StoreError> {
    let mut out = Encoder::with_capacity(ROW_BYTES);
    value.encode(&mut out);
    state.put(space, key, &out.into_bytes())
}

fn put_meta(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    meta: &WorkspaceMeta,
) -> Result<(), StoreError> {
    put(state, META, workspace.as_str().as_bytes(), meta)
}

/// Notes that the frames before `position` hold what was erased: the folds to come leave them out.
fn note_erased(state: &mut StateTxn<'_>, position: u64, time_ms: i64) -> Result<(), StoreError> {
    let waiting = read::erasure(state)?;
    let since_ms = waiting.map_or(time_ms, |waiting| waiting.since_ms);
    put(state, META, ERASED_BEFORE, &StoredErasure { before: position, since_ms })
}

/// Notes when a row ends by itself, if it does.
fn note_end(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    table: &TableName,
    key: &Key,
    row: &Row,
) -> Result<(), StoreError> {
    match keys::expires_ms(table, row) {
        Some(at) => state.put(EXPIRING, &keys::expiring_key(workspace, at, table, key), &[]),
        None => Ok(()),
    }
}

/// Keeps row count and digest sum of the authority's state true when one row takes another's place.
fn count(
    meta: &mut WorkspaceMeta,
    table: &TableName,
    key: &Key,
    old: Option<&Row>,
    new: Option<&Row>,
) {
    count_in((&mut meta.rows, &mut meta.digest), table, key, old, new);
}

fn count_in(
    (rows, digest): (&mut u64, &mut Digest),
    table: &TableName,
    key: &Key,
    old: Option<&Row>,
    new: Option<&Row>,
) {
    if table.is_reserved() {
        return;
    }
    if let Some(old) = old {
        *digest = digest.minus(old.digest(table, key));
        *rows -= u64::from(!old.deleted);
    }
    if let Some(new) = new {
        *digest = digest.plus(new.digest(table, key));
        *rows += u64::from(!new.deleted);
    }
}

/// A sums frame states what the state must be at its position.
#[derive(Debug, thiserror::Error)]
#[error(
    "workspace {workspace} has {found_rows} rows where the log says {expected_rows}, or their \
     digests differ: the log or its replay is wrong; keep a copy of the directory"
)]
struct SumsError {
    workspace: WorkspaceName,
    expected_rows: u64,
    found_rows: u64,
}

/// Another result than the log states means that the log or its replay is wrong, and going on would
/// hide it.
fn check_sums(state: &StateTxn<'_>, sums: &Sums) -> Result<(), ApplyError> {
    for (workspace, rows, digest) in &sums.workspaces {
        let meta = read::meta(state, workspace)?;
        if (meta.rows, meta.digest.0) != (*rows, *digest) {
            return Err(ApplyError::Refused(Box::new(SumsError {
                workspace: workspace.clone(),
                expected_rows: *rows,
                found_rows: meta.rows,
            })));
        }
    }
    Ok(())
}
