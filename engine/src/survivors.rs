//! Survivors: what a server lost when it was restored from a backup, and devices still have.
//!
//! A device offers the server every row that it got from it under a seq which is lost now, before
//! anything of its copy makes way. The server keeps them beside its rows for 30 days and merges
//! nothing by itself: a person looks at what would be done, and says so.

use std::collections::BTreeMap;

use lastword_core::codec::to_bytes;
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use lastword_core::limits::{MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_PAGE_ENTRIES, PAGE_BYTES};
use lastword_core::op::{Action, Op};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::{Entry, Role};
use lastword_core::row::Row;
use lastword_core::rules::{self, Policy, TableRules};
use lastword_core::schema::{FILES_TABLE, STORAGE_FIELDS, Schema};
use lastword_core::value::{Field, Value};
use lastword_store::Store;
use lastword_store::keys::{self, ROWS, StoredRow};
use lastword_store::payload::{Payload, SurvivorFrame};
use lastword_store::read::{self, ReadState};

use crate::error::{Error, Result};
use crate::members::{self, MemberList};
use crate::own;
use crate::tables;

/// Records of a copy that are looked at in one step.
const STEP: usize = 1024;
/// Why something is a dead letter, or gave way in a conflict: the server has lost it.
pub(crate) const LOST_BY_RESTORE: &str = "lost_by_restore";

/// A page of lost rows, and the record to go on behind if there are more.
pub(crate) type LostPage = (Vec<Entry>, Option<(TableName, Key)>);

/// Rows that a device got under seqs which these restores of its authority have lost, in order of
/// their names from behind `after` on: as much as fits a page of changes.
pub(crate) fn lost_rows<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    lineage: &[(u64, u64)],
    after: Option<&(TableName, Key)>,
) -> Result<LostPage> {
    let generation = read::meta(state, workspace)?.generation;
    let prefix = keys::rows_prefix(workspace, generation);
    let end = keys::prefix_end(&prefix);
    let mut from = match after {
        Some((table, key)) => behind(&keys::row_key(workspace, generation, table, key)),
        None => prefix,
    };
    let (mut entries, mut size_bytes) = (Vec::new(), 0);
    loop {
        let names = state.range(ROWS, &from, &end, false, STEP)?;
        let next = match names.last() {
            Some((last, _)) if names.len() == STEP => behind(last),
            _ => end.clone(),
        };
        let mut rows = BTreeMap::new();
        for (row_key, _) in names {
            if let Some(stored) = read::authority_row(state, &row_key)? {
                rows.insert(row_key, stored);
            }
        }
        // Newer rows, of pages that wait for their end.
        read::visit_staged(state, &from, &next, &mut |row_key, stored| {
            rows.insert(row_key.to_vec(), stored);
        })?;
        for (row_key, StoredRow { row, .. }) in rows {
            let Some((table, key)) = keys::name_of(&row_key) else { continue };
            if table.is_reserved() || !rules::is_lost(row.last.seq, lineage) {
                continue;
            }
            size_bytes += row.size_bytes();
            let at = (table.clone(), key.clone());
            entries.push(Entry::Row { table, key, row });
            if size_bytes >= PAGE_BYTES || entries.len() == MAX_PAGE_ENTRIES {
                return Ok((entries, Some(at)));
            }
        }
        if next == end {
            return Ok((entries, None));
        }
        from = next;
    }
}

fn behind(row_key: &[u8]) -> Vec<u8> {
    [row_key, &[0]].concat()
}

/// What a device still has of what was lost.
pub(crate) struct Offered {
    pub(crate) user: String,
    pub(crate) device: DeviceId,
    pub(crate) entries: Vec<Entry>,
}

/// Keeps what a device offers, durably with the next commit. Rows under seqs that are not lost are
/// not taken: whoever offers them is wrong about the history. Neither is anything of a user who may
/// not write.
pub(crate) fn keep(
    store: &mut Store,
    workspace: &WorkspaceName,
    offered: Offered,
    members: Option<&MemberList>,
    time_ms: i64,
) -> Result<()> {
    let Offered { user, device, mut entries } = offered;
    let role = members::role(store.newest(), members, workspace, &user)?;
    if !matches!(role, Some(Role::Owner | Role::Editor)) {
        return Ok(());
    }
    let lineage = read::lineage(store.newest(), workspace)?.0;
    let schema = read::schema(store.newest(), workspace)?.unwrap_or_default();
    entries.retain(|Entry::Row { table, row, .. }| {
        let is_own = rules::sees(&user, table, &row.record, schema.rules_of(table));
        let is_own = is_own || planted(Plant::ForeignSurvivors);
        is_own && !table.is_reserved() && rules::is_lost(row.last.seq, &lineage)
    });
    if entries.is_empty() {
        return Ok(());
    }
    let (workspace, gone) = (workspace.clone(), Vec::new());
    append(store, Payload::Survivors(SurvivorFrame { workspace, device, time_ms, entries, gone }))
}

fn append(store: &mut Store, payload: Payload) -> Result<()> {
    store.append(payload.kind(), &payload.to_bytes())?;
    Ok(())
}

/// Takes those of a record away, for example since it was erased.
pub(crate) fn forget(
    store: &mut Store,
    workspace: &WorkspaceName,
    table: &TableName,
    key: &Key,
) -> Result<()> {
    let mut gone = Vec::new();
    visit(store.newest(), workspace, |seq, survivor| {
        let Entry::Row { table: other, key: row_key, .. } = &survivor.entry;
        if (other, row_key) == (table, key) {
            gone.push(seq);
        }
    })?;
    for gone in gone.chunks(MAX_PAGE_ENTRIES) {
        append(store, Payload::Survivors(taken(workspace, gone.to_vec())))?;
    }
    Ok(())
}

fn taken(workspace: &WorkspaceName, gone: Vec<u64>) -> SurvivorFrame {
    let (workspace, device) = (workspace.clone(), DeviceId::AUTHORITY);
    SurvivorFrame { workspace, device, time_ms: 0, entries: Vec::new(), gone }
}

fn visit<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    mut each: impl FnMut(u64, keys::StoredSurvivor),
) -> Result<()> {
    let mut after = 0;
    loop {
        let some = read::survivors(state, workspace, after, STEP)?;
        let len = some.len();
        for (seq, survivor) in some {
            after = seq;
            each(seq, survivor);
        }
        if len < STEP {
            return Ok(());
        }
    }
}

/// What a recovery does with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recovery {
    /// It gets the value that was lost.
    Restored,
    /// It is deleted, as it was in the lost history.
    Deleted,
    /// It was written anew since the restore and keeps that; what was lost becomes a conflict row.
    Conflict,
    /// It is what it was.
    Same,
    /// It was erased, so it stays so.
    Erased,
    /// The schema does not have its table any more, or the table is under `revision` and what was
    /// lost is a delete, which only a device can write there; or the key of a private record is
    /// another user's now.
    Left,
}

impl Recovery {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Recovery::Restored => "restored",
            Recovery::Deleted => "deleted",
            Recovery::Conflict => "conflict",
            Recovery::Same => "same",
            Recovery::Erased => "erased",
            Recovery::Left => "left",
        }
    }
}

/// A record of which something was lost, and what a recovery does with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its table.
    pub table: TableName,
    /// Its key.
    pub key: Key,
    /// Seq of the version that counts, in the lost history.
    pub seq: u64,
    /// When the server had taken it, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// The device that brought it back.
    pub device: DeviceId,
    /// Seqs of all versions of the record that were brought back.
    pub seqs: Vec<u64>,
    /// What is done.
    pub recovery: Recovery,
}

/// What devices brought back of one workspace, by the names of the records.
///
/// # Errors
/// [`Error::UnknownWorkspace`]; [`Error::Store`] if the disk fails or a row is damaged.
pub(crate) fn plan<S: ReadState>(state: &S, workspace: &WorkspaceName) -> Result<Vec<Survivor>> {
    let meta = read::meta(state, workspace)?;
    if meta.epoch.is_none() {
        return Err(Error::UnknownWorkspace { workspace: workspace.clone() });
    }
    let lineage = read::lineage(state, workspace)?.0;
    let schema = read::schema(state, workspace)?;
    let mut found = BTreeMap::<(TableName, Key), Best>::new();
    visit(state, workspace, |seq, survivor| {
        let Entry::Row { table, key, row } = survivor.entry;
        let rank = match planted(Plant::SurvivorsByArrival) {
            true => (survivor.time_ms.unsigned_abs(), Hlc::default(), BatchId::default(), 0),
            false => rank(policy(schema.as_ref(), &table), &row),
        };
        let best = found.entry((table, key)).or_insert_with(|| Best::begin(seq));
        best.seqs.push(seq);
        if best.rank.is_none_or(|known| known < rank) {
            (best.seq, best.device, best.rank) = (seq, survivor.device, Some(rank));
        }
    })?;
    let mut planned = Vec::with_capacity(found.len());
    for ((table, key), Best { seq, device, seqs, .. }) in found {
        let Some(row) = survivor(state, workspace, seq)? else { continue };
        let row_key = keys::row_key(workspace, meta.generation, &table, &key);
        let now = read::row(state, &row_key)?.map(|stored| stored.row);
        let recovery = recovery(&row, now.as_ref(), &table, schema.as_ref(), &lineage);
        let time_ms = row.time_ms;
        planned.push(Survivor { table, key, seq, time_ms, device, seqs, recovery });
    }
    Ok(planned)
}

/// What decides between two survivors of one record: under `revision` the tuple, else the seq of
/// the history that is lost, which ordered all of it.
type Rank = (u64, Hlc, BatchId, u64);

struct Best {
    seq: u64,
    device: DeviceId,
    rank: Option<Rank>,
    seqs: Vec<u64>,
}

impl Best {
    fn begin(seq: u64) -> Self {
        Self { seq, device: DeviceId::AUTHORITY, rank: None, seqs: Vec::new() }
    }
}

fn rank(policy: Policy, row: &Row) -> Rank {
    match policy {
        Policy::Revision => (row.revision, row.hlc, row.op_id, row.last.seq),
        _ => (0, Hlc::default(), BatchId::default(), row.last.seq),
    }
}

fn policy(schema: Option<&Schema>, table: &TableName) -> Policy {
    schema.map_or(Policy::Arrival, |schema| schema.rules_of(table).policy)
}

fn survivor<S: ReadState>(state: &S, workspace: &WorkspaceName, seq: u64) -> Result<Option<Row>> {
    let found = read::survivors(state, workspace, seq.saturating_sub(1), 1)?;
    let found = found.into_iter().find(|(at, _)| *at == seq);
    Ok(found.map(|(_, stored)| {
        let Entry::Row { row, .. } = stored.entry;
        row
    }))
}

fn recovery(
    lost: &Row,
    now: Option<&Row>,
    table: &TableName,
    schema: Option<&Schema>,
    lineage: &[(u64, u64)],
) -> Recovery {
    let policy = policy(schema, table);
    let is_known = schema.is_none_or(|schema| schema.table(table).is_some_and(|t| !t.local));
    if !is_known || (lost.deleted && policy == Policy::Revision) {
        return Recovery::Left;
    }
    let Some(now) = now else {
        return if lost.deleted { Recovery::Same } else { Recovery::Restored };
    };
    if now.is_erased() {
        return Recovery::Erased;
    }
    // In a table that is private to users the key is another user's now.
    let of_table = schema.map(|schema| schema.rules_of(table)).unwrap_or_default();
    let owner = |row: &Row| rules::emptied(table, &row.record, of_table);
    if owner(lost) != owner(now) {
        return Recovery::Left;
    }
    let is_same = lost.deleted == now.deleted && (lost.deleted || lost.record == now.record);
    let jump = lineage.iter().find(|(branch, jump)| (branch + 1..=*jump).contains(&lost.last.seq));
    let is_newer = match policy {
        Policy::Revision => {
            (now.revision, now.hlc, now.op_id) > (lost.revision, lost.hlc, lost.op_id)
        }
        _ => {
            jump.is_some_and(|(_, jump)| now.last.seq > *jump)
                && !planted(Plant::SurvivorOverwrites)
        }
    };
    match (is_same, is_newer, lost.deleted) {
        (true, ..) => Recovery::Same,
        (false, true, _) => Recovery::Conflict,
        (false, false, true) => Recovery::Deleted,
        (false, false, false) => Recovery::Restored,
    }
}

/// Carries out what [`plan`] says of the first of these records, as many as fit one batch of the
/// authority, by what stands now, and takes those survivors away. Answers how many records that
/// were, and what was done.
pub(crate) fn recover_some(
    store: &mut Store,
    workspace: &WorkspaceName,
    planned: &[Survivor],
    batch_id: BatchId,
    now_ms: i64,
) -> Result<(usize, Vec<Survivor>)> {
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let (schema, lineage) = (read::schema(newest, workspace)?, read::lineage(newest, workspace)?.0);
    let time_ms = now_ms.max(meta.time_ms);
    let (mut own, mut previous, mut size_bytes) = (Vec::new(), Vec::new(), 0);
    let (mut looked_at, mut done, mut gone) = (0, Vec::new(), Vec::new());
    for known in planned.iter().take(MAX_BATCH_OPS) {
        let (table, key) = (&known.table, &known.key);
        // Somebody else may have recovered it meanwhile.
        let Some(lost) = survivor(newest, workspace, known.seq)? else {
            looked_at += 1;
            continue;
        };
        let row_key = keys::row_key(workspace, meta.generation, table, key);
        let now = read::row(newest, &row_key)?;
        let row = now.as_ref().map(|stored| &stored.row);
        let recovery = recovery(&lost, row, table, schema.as_ref(), &lineage);
        let of_table = schema.as_ref().map(|schema| schema.rules_of(table)).unwrap_or_default();
        if let Some(op) = own_op(recovery, (table, key), &lost, row, of_table, time_ms) {
            size_bytes += to_bytes(&op).len();
            if size_bytes > MAX_BATCH_BYTES && looked_at > 0 {
                break;
            }
            let replaced = now.filter(|_| recovery != Recovery::Conflict);
            previous.push(replaced.map_or(0, |stored| stored.position));
            own.push(op);
        }
        looked_at += 1;
        gone.extend(&known.seqs);
        done.push(Survivor { recovery, ..known.clone() });
    }
    if !own.is_empty() {
        let frame = own::batch(workspace, meta.head, (batch_id, time_ms), (own, previous));
        append(store, Payload::Decided(frame))?;
    }
    for gone in gone.chunks(MAX_PAGE_ENTRIES) {
        append(store, Payload::Survivors(taken(workspace, gone.to_vec())))?;
    }
    Ok((looked_at, done))
}

/// The rows of files among them.
pub(crate) fn files_of(survivors: &[Survivor]) -> Vec<Key> {
    let of_files = survivors.iter().filter(|survivor| survivor.table.as_str() == FILES_TABLE);
    of_files.map(|survivor| survivor.key.clone()).collect()
}

/// The authority's op that does it, if there is something to do.
fn own_op(
    recovery: Recovery,
    (table, lost_key): (&TableName, &Key),
    lost: &Row,
    now: Option<&Row>,
    of_table: TableRules<'_>,
    time_ms: i64,
) -> Option<Op> {
    let record = || {
        let mut record = lost.record.clone();
        if table.as_str() == FILES_TABLE {
            // The bytes may be lost with the row. If they are not, the server says so at once; else
            // devices that have them bring them again.
            STORAGE_FIELDS.iter().for_each(|name| record.remove(name));
        }
        record
    };
    let live = now.is_some_and(|row| !row.deleted);
    let action = match recovery {
        Recovery::Restored if live => Action::Put { record: record() },
        Recovery::Restored => Action::Create { record: record(), replace: true },
        Recovery::Deleted => Action::Delete,
        Recovery::Conflict => {
            let conflict = rules::gave_way(lost, now?, LOST_BY_RESTORE)?;
            let key = rules::conflict_key(table, lost_key, &conflict);
            let mut record =
                rules::conflict_record(table, lost_key, &conflict, of_table.policy, time_ms);
            if let Some(field) = of_table.private_by {
                // A record that names no user is nobody's, and so is what is said of it.
                let user = lost.record.get(field).unwrap_or(Value::Null);
                record.set(Field::new(rules::PRIVATE_TO, &user));
            }
            let action = Action::Create { record, replace: true };
            let (table, base, revision, hlc) = (tables::conflicts(), 0, 1, Hlc::default());
            return Some(Op { table, key, base, revision, hlc, action });
        }
        Recovery::Same | Recovery::Erased | Recovery::Left => return None,
    };
    let revision = match of_table.policy {
        Policy::Revision => lost.revision,
        _ => now.map_or(1, |row| row.revision.saturating_add(1)).max(lost.revision),
    };
    let (table, key, hlc) = (table.clone(), lost_key.clone(), lost.hlc);
    Some(Op { table, key, base: 0, revision, hlc, action })
}
