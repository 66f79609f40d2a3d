//! What a purge takes out of the state. Each part looks at every row before it goes: an entry in
//! order of seq or time only says where a row was.

use lastword_core::codec::from_bytes;
use lastword_core::id::{BatchId, DeviceId, WorkspaceName};
use lastword_core::plant::{Plant, planted};

use super::put;
use super::replica::Step;
use crate::error::StoreError;
use crate::index::Indexes;
use crate::keys::{
    self, BY_COUNTER, BY_SEQ, DECISIONS, ERASED_BEFORE, EXPIRING, GRAVES, META, RETENTION_CLOCK,
    SURVIVORS, SURVIVORS_TABLE,
};
use crate::limits::MAX_PURGED_ROWS;
use crate::payload::{Purge, PurgePart};
use crate::read::{self, ReadState};
use crate::state::{Space, StateTxn};

pub(super) fn purge(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    frame: &Purge,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    match frame.part {
        PurgePart::Expired { until_ms } => expired(state, indexes, workspace, until_ms),
        PurgePart::Tombstones { horizon } => tombstones(state, indexes, workspace, horizon),
        PurgePart::Decisions { device, through } => decisions(state, workspace, device, through),
        PurgePart::Clock { now_ms } => {
            put(state, META, RETENTION_CLOCK, &u64::try_from(now_ms).unwrap_or(0))
        }
        PurgePart::Erased { before } => {
            if read::erased_before(state)? <= before {
                state.delete(META, ERASED_BEFORE);
            }
            Ok(())
        }
        PurgePart::Stale { after, through } => stale(state, workspace, after, through),
        PurgePart::Generation { generation } => copy(state, workspace, generation),
    }
}

/// The first rows of a copy that nobody reads any more.
fn copy(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    generation: u32,
) -> Result<(), StoreError> {
    let from = keys::rows_prefix(workspace, generation);
    let to = keys::prefix_end(&from);
    let mut left = MAX_PURGED_ROWS;
    for space in read::GENERATION_SPACES {
        let pairs = state.range(space, &from, &to, false, left)?;
        left -= pairs.len();
        pairs.iter().for_each(|(row_key, _)| state.delete(space, row_key));
    }
    Ok(())
}

fn expired(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    workspace: &WorkspaceName,
    until_ms: i64,
) -> Result<(), StoreError> {
    let from = keys::workspace_prefix(workspace);
    let behind = u64::try_from(until_ms).unwrap_or(0).saturating_add(1);
    let mut step = Step::begin(state, indexes, workspace)?;
    for (entry, _) in entries(step.state, EXPIRING, &from, &keys::numbered(workspace, behind))? {
        step.state.delete(EXPIRING, &entry);
        let Some((at, table, key)) = keys::split_expiring(workspace, &entry) else {
            return Err(read::state_damaged(EXPIRING, &entry, "the entry names no record"));
        };
        if table.as_str() == SURVIVORS_TABLE {
            let seq = key.as_str().parse().unwrap_or_default();
            step.state.delete(SURVIVORS, &keys::numbered(workspace, seq));
            continue;
        }
        step.forget(&table, &key, |row| {
            keys::expires_ms(&table, row).is_some_and(|end| u64::try_from(end).unwrap_or(0) == at)
        })?;
    }
    step.end()
}

fn tombstones(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    workspace: &WorkspaceName,
    horizon: u64,
) -> Result<(), StoreError> {
    let (from, to) = seqs(workspace, 0, horizon);
    let mut step = Step::begin(state, indexes, workspace)?;
    if !planted(Plant::HorizonNotMoved) {
        step.raise_horizon(horizon);
    }
    for (grave, record) in entries(step.state, GRAVES, &from, &to)? {
        step.state.delete(GRAVES, &grave);
        let (seq, table, key) = read::numbered_record(GRAVES, &grave, &record)?;
        step.forget(&table, &key, |row| {
            row.deleted && row.last.seq == seq || planted(Plant::PurgeWhatLives)
        })?;
    }
    step.end()
}

fn decisions(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    device: DeviceId,
    through: u64,
) -> Result<(), StoreError> {
    let from = keys::by_counter_key(workspace, device, 0);
    let to = keys::by_counter_key(workspace, device, through.saturating_add(1));
    for (by_counter, batch_id) in entries(state, BY_COUNTER, &from, &to)? {
        state.delete(BY_COUNTER, &by_counter);
        let batch_id: BatchId = from_bytes(&batch_id)
            .map_err(|error| read::state_damaged(BY_COUNTER, &by_counter, &error.to_string()))?;
        let stored = read::decision(state, workspace, batch_id)?;
        // The same batch may have come again under another device or counter, which is younger.
        let counter = keys::number_of(&by_counter).unwrap_or_default();
        if stored.is_some_and(|known| (known.device, known.counter) == (device, counter)) {
            state.delete(DECISIONS, &keys::identified(workspace, &batch_id.0));
        }
    }
    Ok(())
}

fn stale(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    after: u64,
    through: u64,
) -> Result<(), StoreError> {
    let (from, to) = seqs(workspace, after.saturating_add(1), through);
    let generation = read::meta(state, workspace)?.generation;
    for space in [BY_SEQ, GRAVES] {
        for (entry, record) in entries(state, space, &from, &to)? {
            let (seq, table, key) = read::numbered_record(space, &entry, &record)?;
            let row_key = keys::row_key(workspace, generation, &table, &key);
            let stored = read::authority_row(state, &row_key)?;
            if stored.is_none_or(|stored| stored.row.stream_seq() != seq) {
                state.delete(space, &entry);
            }
        }
    }
    Ok(())
}

/// Keys of a space in order of seq, both ends included.
fn seqs(workspace: &WorkspaceName, from: u64, through: u64) -> (Vec<u8>, Vec<u8>) {
    let end = match through.checked_add(1) {
        Some(behind) => keys::numbered(workspace, behind),
        None => keys::prefix_end(&keys::workspace_prefix(workspace)),
    };
    (keys::numbered(workspace, from), end)
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// All entries in `from..to`: whoever wrote the frame has kept them few.
fn entries(
    state: &StateTxn<'_>,
    space: Space,
    from: &[u8],
    to: &[u8],
) -> Result<Entries, StoreError> {
    let mut found = Vec::new();
    read::visit_range(state, space, from, to, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Ok(true)
    })?;
    Ok(found)
}
