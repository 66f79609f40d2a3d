//! Erasing a record, for people who must: no version of it stays readable here or on any device
//! that syncs, and its bytes leave the files of the store.
//!
//! The record becomes a tombstone without a value, so the erasure reaches every device as a row.
//! Its bytes go in four steps, each of which may run beside commits: the segment ends and a
//! checkpoint is made, the log before is folded away, the state file is made anew, and the log is
//! told that this is done. Until then a restart begins again.

use std::time::{Duration, Instant};

use lastword_core::id::{Key, TableName, WorkspaceName};
use lastword_core::limits::MAX_BATCH_OPS;
use lastword_core::value::Value;
use lastword_store::payload::{Erasure, Payload, Purge, PurgePart};
use lastword_store::read::{self, ReadState};
use lastword_store::{Store, StoreError, keys};

use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::survivors;
use crate::tables;

/// How long the bytes of an erased record may stay in the files, unless said otherwise.
pub const DEFAULT_ERASE_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The log is asked this often whether something waits for its bytes to go.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What could not go, because an outbox still needs it, is tried again after this long.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// What [`crate::Authority::erase`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Seq of the erasure.
    pub seq: u64,
    /// Conflict rows that showed values of the record and went with it.
    pub conflicts: u64,
}

/// Erases a record and the conflict rows that show its values.
pub(crate) fn erase_now(
    store: &mut Store,
    workspace: &WorkspaceName,
    table: &TableName,
    key: &Key,
) -> Result<Erased> {
    let meta = read::meta(store.newest(), workspace)?;
    let row_key = keys::row_key(workspace, meta.generation, table, key);
    if table.is_reserved() || read::row(store.newest(), &row_key)?.is_none() {
        let (workspace, table, key) = (workspace.clone(), table.clone(), key.clone());
        return Err(Error::UnknownRecord { workspace, table, key });
    }
    let shown = conflicts_of(store.newest(), workspace, meta.generation, table, key)?;
    let records: Vec<_> = [(table.clone(), key.clone())].into_iter().chain(shown).collect();
    let (seq, time_ms) = (meta.head + 1, now_ms().max(meta.time_ms));
    let mut first_seq = seq;
    for records in records.chunks(MAX_BATCH_OPS) {
        let (workspace, records) = (workspace.clone(), records.to_vec());
        let len = records.len() as u64;
        let payload = Payload::Erasure(Erasure { workspace, first_seq, time_ms, records });
        store.append_urgent(payload.kind(), &payload.to_bytes())?;
        first_seq += len;
    }
    survivors::forget(store, workspace, table, key)?;
    Ok(Erased { seq, conflicts: records.len() as u64 - 1 })
}

fn conflicts_of<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    generation: u32,
    table: &TableName,
    key: &Key,
) -> Result<Vec<(TableName, Key)>> {
    let prefix = keys::table_prefix(workspace, generation, &tables::conflicts());
    let mut found = Vec::new();
    read::visit_stored(
        state,
        &prefix,
        &keys::prefix_end(&prefix),
        &mut |conflicts, row, stored| {
            let names = |field: &str, name: &str| match stored.row.record.get(field) {
                Some(Value::Text(text)) => text == name,
                _ => false,
            };
            if names("table", table.as_str()) && names("key", key.as_str()) {
                found.push((conflicts, row));
            }
        },
    )?;
    Ok(found)
}

/// What has to be done next so that erased bytes leave the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, or not yet.
    Rest,
    /// A checkpoint of what is in the log.
    Checkpoint,
    /// A fold of the log before it.
    Fold,
    /// A new state file.
    Rebuild,
}

/// The way of erased bytes out of the files of one store.
#[derive(Debug)]
pub(crate) struct Erasing {
    within_ms: i64,
    rests_until: Instant,
    /// What waits, by the position that it was noted with, and the segment that begins behind it.
    ended: Option<(u64, u64)>,
    folded: bool,
    rebuilt: bool,
}

impl Erasing {
    pub(crate) fn new(within: Duration) -> Self {
        Erasing {
            within_ms: i64::try_from(within.as_millis()).unwrap_or(i64::MAX),
            rests_until: Instant::now(),
            ended: None,
            folded: false,
            rebuilt: false,
        }
    }

    /// The next step, to be asked for when nothing runs beside the writer.
    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Step, StoreError> {
        if Instant::now() < self.rests_until {
            return Ok(Step::Rest);
        }
        let waiting = read::erasure(store.newest())?
            .filter(|erasure| now_ms().saturating_sub(erasure.since_ms) >= self.within_ms);
        let Some(erasure) = waiting else {
            self.rests_until = Instant::now() + LOOK_EVERY;
            return Ok(Step::Rest);
        };
        let before = erasure.before;
        let is_known = self.ended.is_some_and(|(known, _)| known == before);
        if !is_known {
            (self.folded, self.rebuilt) = (false, false);
            store.end_segment()?;
            self.ended = Some((before, store.next_position()));
            append(store, PurgePart::Clock { now_ms: read::retention_clock(store.newest())? })?;
            return Ok(Step::Checkpoint);
        }
        let behind = self.ended.map_or(0, |(_, behind)| behind);
        if store.first_position() < before {
            if store.checkpointed_to() < behind {
                return Ok(Step::Checkpoint);
            }
            if !std::mem::replace(&mut self.folded, true) {
                return Ok(Step::Fold);
            }
            (self.ended, self.rests_until) = (None, Instant::now() + AGAIN);
            return Ok(Step::Rest);
        }
        if !self.rebuilt {
            return Ok(Step::Rebuild);
        }
        self.ended = None;
        append(store, PurgePart::Erased { before })?;
        Ok(Step::Rest)
    }

    /// The state was made anew; whether that was for this is known from the step before.
    pub(crate) fn rebuilt(&mut self, store: &Store) {
        let clean = self.ended.is_some_and(|(before, _)| store.first_position() >= before);
        self.rebuilt |= clean;
    }
}

/// Tells the log that erased bytes have left the files, after a fold and a rebuild of all there is.
pub(crate) fn confirm(store: &mut Store) -> Result<(), StoreError> {
    match read::erasure(store.newest())? {
        Some(erasure) if store.first_position() >= erasure.before => {
            append(store, PurgePart::Erased { before: erasure.before })
        }
        _ => Ok(()),
    }
}

fn append(store: &mut Store, part: PurgePart) -> Result<(), StoreError> {
    let payload = Payload::Purge(Purge { workspace: read::store_workspace(), part });
    store.append_urgent(payload.kind(), &payload.to_bytes())?;
    store.commit().map(|_| ())
}
