//! Typed reads of the state: the same functions over a published view, over the writer's newest
//! state, and inside the application of a frame.

use lastword_core::codec::{Decode, DecodeError, from_bytes};
use lastword_core::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::{Decided, WalkPlace};
use lastword_core::rules::PendingOp;
use lastword_core::value::Value;

use lastword_core::schema::Schema;

use crate::error::StoreError;
use crate::index::IndexDef;
use crate::keys::{
    self, BY_COUNTER, COUNTERS, DECISIONS, INDEX, Lineage, META, OUTBOX, OutboxEntry, PENDING,
    ROWS, SHADOW, STAGED, SURVIVORS, Shadow, StoredDecision, StoredErasure, StoredPending,
    StoredReset, StoredRow, StoredSurvivor, WorkspaceMeta,
};
use crate::payload::{Identity, LocalTables};
use crate::state::Space;

mod rows;
mod blobs;
mod ended;
mod pages;

pub use blobs::{
    blob, blob_workspaces, chunk, condemned, object, pack, packs, visit_blobs, visit_chunks,
    visit_objects,
};
pub use ended::{count_local, deleted_ms};
pub use pages::{ChangesPage, WalkRows, changes, walk};
pub use rows::{Pair, ReadState, Visit, visit_range};

/// Most entries of an index that are read at once: each is then compared with its row.
const CHUNK: usize = 512;

/// A stored value that does not decode is damage, with its space and key in the error.
fn decoded<T: Decode>(space: Space, key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    from_bytes(value).map_err(|error| damaged(space, key, &error))
}

fn damaged(space: Space, key: &[u8], error: &DecodeError) -> StoreError {
    state_damaged(space, key, &error.to_string())
}

/// A stored value that makes no sense.
pub(crate) fn state_damaged(space: Space, key: &[u8], what: &str) -> StoreError {
    let key = String::from_utf8_lossy(key);
    let reason = format!("space {}, key {key:?}: {what}", space.number());
    StoreError::StateDamaged { file: 0, reason }
}

/// Seq, table and key of an entry in order of seq.
pub(crate) fn numbered_record(
    space: Space,
    key: &[u8],
    record: &[u8],
) -> Result<(u64, TableName, Key), StoreError> {
    match (keys::number_of(key), keys::split_record(record)) {
        (Some(seq), Some((table, key))) => Ok((seq, table, key)),
        _ => Err(state_damaged(space, key, "the entry names no record")),
    }
}

fn typed<S: ReadState + ?Sized, T: Decode>(
    state: &S,
    space: Space,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    state.get(space, key)?.map(|value| decoded(space, key, &value)).transpose()
}

/// Who this store is; `None` before its first frame.
///
/// # Errors
/// Those of [`ReadState::get`]; so for all functions below.
pub fn identity<S: ReadState + ?Sized>(state: &S) -> Result<Option<Identity>, StoreError> {
    typed(state, META, b"")
}

/// What is known about a workspace; the default for one never seen.
pub fn meta<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<WorkspaceMeta, StoreError> {
    Ok(typed(state, META, workspace.as_str().as_bytes())?.unwrap_or_default())
}

/// The restores of a workspace.
pub fn lineage<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<Lineage, StoreError> {
    Ok(typed(state, META, &keys::workspace_prefix(workspace))?.unwrap_or_default())
}

/// The schema of a workspace; none if its authority takes any table.
pub fn schema<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<Option<Schema>, StoreError> {
    typed(state, META, &keys::schema_key(workspace))
}

/// The new copy of a workspace that a replica is making, if it is.
pub fn reset<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<Option<StoredReset>, StoreError> {
    typed(state, META, &keys::reset_key(workspace))
}

/// How far the walk has come that the newest copy is begun with, if one is under way.
pub fn walk_place<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<Option<WalkPlace>, StoreError> {
    typed(state, META, &keys::walk_key(workspace))
}

/// What was lost of a workspace and was brought back, in order of its seqs in the lost history,
/// those above `after`, at most `limit`.
pub fn survivors<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, StoredSurvivor)>, StoreError> {
    let from = keys::numbered(workspace, after.saturating_add(1));
    let end = keys::prefix_end(&keys::workspace_prefix(workspace));
    let pairs = state.range(SURVIVORS, &from, &end, false, limit)?;
    let survivor = |(key, value): &Pair| {
        let stored =
            from_bytes(value).map_err(|error| state_damaged(SURVIVORS, key, &error.to_string()))?;
        Ok((keys::number_of(key).unwrap_or_default(), stored))
    };
    pairs.iter().map(survivor).collect()
}

/// Hands every row that waits for the end of its catch-up to `each`, by its row key.
pub fn visit_staged<S: ReadState + ?Sized>(
    state: &S,
    from: &[u8],
    to: &[u8],
    each: &mut dyn FnMut(&[u8], StoredRow),
) -> Result<(), StoreError> {
    visit_range(state, STAGED, from, to, &mut |row_key, value| {
        let stored = from_bytes(value)
            .map_err(|error| state_damaged(STAGED, row_key, &error.to_string()))?;
        each(row_key, stored);
        Ok(true)
    })
}

/// What a replica's copy covers, as its authority said; zeros for everything.
pub fn cover<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<[u8; 16], StoreError> {
    let key = keys::cover_key(workspace);
    let Some(stored) = state.get(META, &key)? else { return Ok([0; 16]) };
    let cover = <[u8; 16]>::try_from(&*stored);
    cover.map_err(|_| state_damaged(META, &key, "a cover has 16 bytes"))
}

/// Spaces whose keys begin with workspace and generation.
pub const GENERATION_SPACES: [Space; 4] = [ROWS, INDEX, SHADOW, STAGED];

/// A generation of which rows are left that nobody reads any more.
pub fn left_generation<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<Option<u32>, StoreError> {
    let visible = meta(state, workspace)?.generation;
    let of = |generation| keys::rows_prefix(workspace, generation);
    let end = match reset(state, workspace)? {
        Some(reset) => of(reset.generation),
        None => keys::prefix_end(&keys::workspace_prefix(workspace)),
    };
    let behind = keys::prefix_end(&of(visible));
    for space in GENERATION_SPACES {
        for (from, to) in [(&of(0), &of(visible)), (&behind, &end)] {
            if from < to
                && let Some((row_key, _)) = state.range(space, from, to, false, 1)?.first()
            {
                return Ok(keys::generation_of(row_key));
            }
        }
    }
    Ok(None)
}

/// How far the clock has come by which things grow old, in milliseconds since 1970 UTC: when the
/// store was made, until a purge says more.
pub fn retention_clock<S: ReadState + ?Sized>(state: &S) -> Result<i64, StoreError> {
    if let Some(known) = typed::<_, u64>(state, META, keys::RETENTION_CLOCK)? {
        return Ok(i64::try_from(known).unwrap_or(i64::MAX));
    }
    Ok(identity(state)?.map_or(0, |identity| identity.created_ms))
}

/// What was erased and may still be in files.
pub fn erasure<S: ReadState + ?Sized>(state: &S) -> Result<Option<StoredErasure>, StoreError> {
    typed(state, META, keys::ERASED_BEFORE)
}

/// Frames before this position hold something that was erased; 0 if none do.
pub fn erased_before<S: ReadState + ?Sized>(state: &S) -> Result<u64, StoreError> {
    Ok(erasure(state)?.map_or(0, |erasure| erasure.before))
}

/// The tables that this store keeps local, in the order of their names.
pub fn local_tables<S: ReadState + ?Sized>(state: &S) -> Result<Vec<TableName>, StoreError> {
    let kept: Option<LocalTables> = typed(state, META, keys::LOCAL_TABLES)?;
    Ok(kept.map(|kept| kept.tables).unwrap_or_default())
}

/// Whether a table has rows of a server, or ops for one, in any workspace, also in a copy that is
/// being made.
pub fn is_synced<S: ReadState + ?Sized>(state: &S, table: &TableName) -> Result<bool, StoreError> {
    for (workspace, meta) in workspaces(state)? {
        let new = reset(state, &workspace)?.map(|reset| reset.generation);
        for generation in [Some(meta.generation), new].into_iter().flatten() {
            let prefix = keys::table_prefix(&workspace, generation, table);
            if has_synced_rows(state, &prefix)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The same in one copy of a workspace.
fn has_synced_rows<S: ReadState + ?Sized>(state: &S, prefix: &[u8]) -> Result<bool, StoreError> {
    let end = keys::prefix_end(prefix);
    let mut found = false;
    for space in [SHADOW, STAGED, ROWS] {
        visit_range(state, space, prefix, &end, &mut |key, value| {
            // A row of a local table has seq 0 and nothing else of a server.
            found |= match space {
                ROWS => decoded::<StoredRow>(ROWS, key, value)?.row.last.seq != 0,
                _ => true,
            };
            Ok(!found)
        })?;
    }
    Ok(found)
}

/// All workspaces of the store, `_store` left out.
pub fn workspaces<S: ReadState + ?Sized>(
    state: &S,
) -> Result<Vec<(WorkspaceName, WorkspaceMeta)>, StoreError> {
    let mut found = Vec::new();
    visit_range(state, META, &[1], &[u8::MAX], &mut |key, value| {
        let name = std::str::from_utf8(key).ok().and_then(|name| WorkspaceName::new(name).ok());
        if let Some(name) = name.filter(|name| name.as_str() != STORE_WORKSPACE) {
            found.push((name, decoded(META, key, value)?));
        }
        Ok(true)
    })?;
    Ok(found)
}

/// The first workspace behind another in the order of their names, `_store` left out: for whoever
/// goes through all of them a little at a time.
pub fn next_workspace<S: ReadState + ?Sized>(
    state: &S,
    after: Option<&WorkspaceName>,
) -> Result<Option<WorkspaceName>, StoreError> {
    // Facts of the store stand under keys that no name begins with, other facts of a workspace
    // under its name and a zero byte: behind 01 comes the next.
    let from = after.map_or_else(|| vec![2], |name| [name.as_str().as_bytes(), &[1]].concat());
    let found = state.range(META, &from, &[u8::MAX], false, 1)?;
    let Some((key, _)) = found.first() else { return Ok(None) };
    let name = std::str::from_utf8(key).ok().and_then(|name| WorkspaceName::new(name).ok());
    match name {
        Some(name) if name.as_str() == STORE_WORKSPACE => next_workspace(state, Some(&name)),
        Some(name) => Ok(Some(name)),
        None => Err(state_damaged(META, key, "the key names no workspace")),
    }
}

/// The workspace of a store's own tables; it is never synced.
pub const STORE_WORKSPACE: &str = "_store";

/// The name of [`STORE_WORKSPACE`].
#[must_use]
pub fn store_workspace() -> WorkspaceName {
    WorkspaceName::new(STORE_WORKSPACE).expect("invariant: the name is valid")
}

/// The visible row of a record, tombstones included.
pub fn row<S: ReadState + ?Sized>(
    state: &S,
    row_key: &[u8],
) -> Result<Option<StoredRow>, StoreError> {
    typed(state, ROWS, row_key)
}

/// The visible row of a record from its value, where a visit has brought that.
pub fn visited_row(row_key: &[u8], value: &[u8]) -> Result<StoredRow, StoreError> {
    decoded(ROWS, row_key, value)
}

/// The authority's row of a record on a replica: the shadow if there is one, else the visible row.
pub fn authority_row<S: ReadState + ?Sized>(
    state: &S,
    row_key: &[u8],
) -> Result<Option<StoredRow>, StoreError> {
    match shadow(state, row_key)? {
        Some(Shadow(row)) => Ok(row),
        None => row(state, row_key),
    }
}

/// The shadow of a record, if it has own ops that the cursor has not passed.
pub fn shadow<S: ReadState + ?Sized>(
    state: &S,
    row_key: &[u8],
) -> Result<Option<Shadow>, StoreError> {
    typed(state, SHADOW, row_key)
}

/// True if the record has own ops that the cursor has not passed.
pub fn has_shadow<S: ReadState + ?Sized>(state: &S, row_key: &[u8]) -> Result<bool, StoreError> {
    Ok(state.get(SHADOW, row_key)?.is_some())
}

/// Own ops on one record that the cursor has not passed, in counter order.
pub fn pending<S: ReadState + ?Sized>(
    state: &S,
    row_key: &[u8],
) -> Result<Vec<PendingOp>, StoreError> {
    let prefix = keys::pending_prefix(row_key);
    let mut found = Vec::new();
    visit_range(state, PENDING, &prefix, &keys::prefix_end(&prefix), &mut |key, value| {
        found.push(decoded::<StoredPending>(PENDING, key, value)?.0);
        Ok(true)
    })?;
    Ok(found)
}

/// The oldest own op on one record that the cursor has not passed.
pub fn first_pending<S: ReadState + ?Sized>(
    state: &S,
    row_key: &[u8],
) -> Result<Option<PendingOp>, StoreError> {
    let prefix = keys::pending_prefix(row_key);
    let pairs = state.range(PENDING, &prefix, &keys::prefix_end(&prefix), false, 1)?;
    let Some((key, value)) = pairs.first() else { return Ok(None) };
    Ok(Some(decoded::<StoredPending>(PENDING, key, value)?.0))
}

/// One own op by its pending key.
pub fn pending_op<S: ReadState + ?Sized>(
    state: &S,
    pending_key: &[u8],
) -> Result<Option<StoredPending>, StoreError> {
    typed(state, PENDING, pending_key)
}

/// The oldest batch in the outbox of a workspace whose facts are `meta`.
pub fn first_in_outbox<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    meta: &WorkspaceMeta,
) -> Result<Option<(u64, OutboxEntry)>, StoreError> {
    Ok(outbox(state, workspace, meta.gone.saturating_add(1), 1)?.into_iter().next())
}

/// The table of [`STORE_WORKSPACE`] that keeps batches which left the outbox without an effect.
pub const DEAD_LETTERS_TABLE: &str = "_dead_letters";

/// First log position whose frame may still have to be read: an outbox sends its ops from the log,
/// and the ops of a dead letter are nowhere else.
pub fn needed_from<S: ReadState + ?Sized>(state: &S) -> Result<u64, StoreError> {
    let mut needed = u64::MAX;
    for (workspace, meta) in workspaces(state)? {
        if let Some((_, entry)) = first_in_outbox(state, &workspace, &meta)?
            && !planted(Plant::FoldDropsOutbox)
        {
            needed = needed.min(entry.position);
        }
    }
    let table = TableName::new(DEAD_LETTERS_TABLE).expect("invariant: the name is valid");
    let prefix = keys::table_prefix(&store_workspace(), 0, &table);
    visit_stored(state, &prefix, &keys::prefix_end(&prefix), &mut |_, _, stored| {
        if let Some(Value::Int(position)) = stored.row.record.get("position")
            && !stored.row.deleted
            && !planted(Plant::FoldDropsLetters)
        {
            needed = needed.min(u64::try_from(position).unwrap_or(0));
        }
    })?;
    Ok(needed)
}

/// Outbox entries with a counter of at least `from`, at most `limit`, in counter order.
pub fn outbox<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, OutboxEntry)>, StoreError> {
    let end = keys::prefix_end(&keys::workspace_prefix(workspace));
    let pairs = state.range(OUTBOX, &keys::numbered(workspace, from), &end, false, limit)?;
    pairs
        .iter()
        .map(|(key, value)| {
            Ok((keys::number_of(key).unwrap_or_default(), decoded(OUTBOX, key, value)?))
        })
        .collect()
}

/// One outbox entry.
pub fn outbox_entry<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    counter: u64,
) -> Result<Option<OutboxEntry>, StoreError> {
    typed(state, OUTBOX, &keys::numbered(workspace, counter))
}

/// The remembered decision of a batch.
pub fn decision<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    batch: BatchId,
) -> Result<Option<StoredDecision>, StoreError> {
    typed(state, DECISIONS, &keys::identified(workspace, &batch.0))
}

/// The last counter of a device that was decided; 0 before its first batch.
pub fn last_counter<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    device: DeviceId,
) -> Result<u64, StoreError> {
    Ok(typed(state, COUNTERS, &keys::identified(workspace, &device.0))?.unwrap_or(0))
}

/// Decisions of a device after `counter`, at most `limit`, in counter order.
pub fn decisions_after<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    device: DeviceId,
    counter: u64,
    limit: usize,
) -> Result<Vec<Decided>, StoreError> {
    let from = keys::by_counter_key(workspace, device, counter.saturating_add(1));
    let end = keys::prefix_end(&keys::identified(workspace, &device.0));
    let mut found = Vec::new();
    for (key, value) in state.range(BY_COUNTER, &from, &end, false, limit)? {
        let batch_id: BatchId = decoded(BY_COUNTER, &key, &value)?;
        let counter = keys::number_of(&key).unwrap_or_default();
        if let Some(stored) = decision(state, workspace, batch_id)? {
            found.push(Decided { counter, batch_id, decision: stored.decision });
        }
    }
    Ok(found)
}

/// Hands every visible row with a row key in `from..to` to `visit`, tombstones too.
pub fn visit_stored<S: ReadState + ?Sized>(
    state: &S,
    from: &[u8],
    to: &[u8],
    visit: &mut dyn FnMut(TableName, Key, StoredRow),
) -> Result<(), StoreError> {
    visit_range(state, ROWS, from, to, &mut |row_key, value| {
        let stored = decoded(ROWS, row_key, value)?;
        let Some((table, key)) = keys::name_of(row_key) else {
            return Err(state_damaged(ROWS, row_key, "the key names no record"));
        };
        visit(table, key, stored);
        Ok(true)
    })
}

/// Part of the entries of one index: those whose encoded values and key lie in `from..to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRange {
    /// The first.
    pub from: Vec<u8>,
    /// Behind the last; none for all.
    pub to: Option<Vec<u8>>,
}

impl IndexRange {
    /// The keys of these entries; the prefix is that of the index.
    #[must_use]
    pub fn keys(&self, prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
        span(prefix, &self.from, self.to.as_deref())
    }
}

/// `from..to` behind a prefix, as keys.
fn span(prefix: &[u8], from: &[u8], to: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let high = to.map_or_else(|| keys::prefix_end(prefix), |to| [prefix, to].concat());
    ([prefix, from].concat(), high)
}

/// Rows of one index whose entries are in `range`, in the order of the index or backwards, at most
/// `limit`. `table` is the prefix of the table's row keys. An entry without a live row that has its
/// values is passed over.
pub fn index_rows<S: ReadState + ?Sized>(
    state: &S,
    table: &[u8],
    index: &IndexDef,
    range: &IndexRange,
    reverse: bool,
    limit: usize,
) -> Result<Vec<(TableName, Key, StoredRow)>, StoreError> {
    let prefix = keys::index_prefix(table, &index.name);
    let (mut low, mut high) = range.keys(&prefix);
    let chunk = limit.clamp(1, CHUNK);
    let mut found = Vec::new();
    loop {
        let pairs = state.range(INDEX, &low, &high, reverse, chunk)?;
        for (entry, _) in &pairs {
            if found.len() == limit {
                return Ok(found);
            }
            let cut = entry.get(prefix.len()..).and_then(|end| index.cut_entry(end));
            let Some((entry_values, key)) = cut else {
                return Err(state_damaged(INDEX, entry, "the entry has too few values"));
            };
            let Some(stored) = row(state, &[table, key].concat())? else { continue };
            let values_now = index.values_of(&stored.row.record).ok().flatten();
            let key = std::str::from_utf8(key).ok().and_then(|key| Key::new(key).ok());
            if let Some(key) = key.filter(|_| !stored.row.deleted)
                && values_now.as_deref() == Some(entry_values)
            {
                found.push((index.table.clone(), key, stored));
            }
        }
        match pairs.last() {
            Some((last, _)) if pairs.len() == chunk => match reverse {
                true => high.clone_from(last),
                false => low = [last.as_slice(), &[0]].concat(),
            },
            _ => return Ok(found),
        }
    }
}

/// Visible rows of one table whose key is in `from..to`, at most `limit`, tombstones left out.
pub fn table_rows<S: ReadState + ?Sized>(
    state: &S,
    prefix: &[u8],
    from: &[u8],
    to: Option<&[u8]>,
    reverse: bool,
    limit: usize,
) -> Result<Vec<(TableName, Key, StoredRow)>, StoreError> {
    let (mut low, mut high) = span(prefix, from, to);
    let workspace_len = prefix.iter().position(|byte| *byte == 0).map_or(0, |end| end + 5);
    let mut found = Vec::new();
    loop {
        let chunk = limit.saturating_sub(found.len()).clamp(1, CHUNK);
        let pairs = state.range(ROWS, &low, &high, reverse, chunk)?;
        for (row_key, value) in &pairs {
            let stored: StoredRow = decoded(ROWS, row_key, value)?;
            let name = keys::split_row_key(row_key, workspace_len);
            if let Some((table, key)) = name.filter(|_| !stored.row.deleted) {
                if found.len() == limit {
                    return Ok(found);
                }
                found.push((table, key, stored));
            }
        }
        match pairs.last() {
            Some((last, _)) if pairs.len() == chunk && found.len() < limit => match reverse {
                true => high.clone_from(last),
                false => low = [last.as_slice(), &[0]].concat(),
            },
            _ => return Ok(found),
        }
    }
}

/// How many entries of one index are in `range`, at most `limit`. An entry stands for one live row,
/// so no row is read.
pub fn count_entries<S: ReadState + ?Sized>(
    state: &S,
    table: &[u8],
    index: &IndexDef,
    range: &IndexRange,
    limit: usize,
) -> Result<usize, StoreError> {
    let (low, high) = range.keys(&keys::index_prefix(table, &index.name));
    count(state, INDEX, (&low, &high), limit, &mut |_, _| Ok(true))
}

/// How many live visible rows of one table have a key in `from..to`, at most `limit`. Of each row
/// only the first bytes are looked at.
pub fn count_live<S: ReadState + ?Sized>(
    state: &S,
    prefix: &[u8],
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
) -> Result<usize, StoreError> {
    let (low, high) = span(prefix, from, to);
    count(state, ROWS, (&low, &high), limit, &mut |row_key, value| {
        let deleted = StoredRow::decode_deleted(value);
        Ok(!deleted.map_err(|error| damaged(ROWS, row_key, &error))?)
    })
}

fn count<S: ReadState + ?Sized>(
    state: &S,
    space: Space,
    (low, high): (&[u8], &[u8]),
    limit: usize,
    counts: &mut Visit<'_>,
) -> Result<usize, StoreError> {
    let mut found = 0;
    if limit > 0 {
        visit_range(state, space, low, high, &mut |key, value| {
            found += usize::from(counts(key, value)?);
            Ok(found < limit)
        })?;
    }
    Ok(found)
}
