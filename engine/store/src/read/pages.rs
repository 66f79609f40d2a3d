//! Pages for replicas: what changed after a seq, and rows in the order of their names.

use lastword_core::id::{Key, TableName, WorkspaceName};
use lastword_core::limits::{MAX_PAGE_ENTRIES, PAGE_BYTES};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::Entry;
use lastword_core::rules::sees;
use lastword_core::schema::Schema;

use super::{ReadState, decoded, meta, schema, state_damaged, visit_range};
use crate::error::StoreError;
use crate::keys::{self, BY_SEQ, ROWS, StoredRow, WorkspaceMeta};

/// What [`changes`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesPage {
    /// Last seq that the page covers.
    pub to: u64,
    /// The head of this state if the page reached it.
    pub consistent_at: Option<u64>,
    /// Each record once, at its newest seq.
    pub entries: Vec<Entry>,
    /// The horizon of this state.
    pub horizon: u64,
}

/// Most index entries looked at for one page.
const MAX_PAGE_VISITS: usize = 4 * MAX_PAGE_ENTRIES;

/// One page of what changed after `after`, as far as `user` may see it: each record once, at its
/// newest seq. A page of which nothing may be seen moves on all the same.
pub fn changes<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    after: u64,
    user: &str,
) -> Result<ChangesPage, StoreError> {
    let meta = meta(state, workspace)?;
    let (to, consistent_at, horizon) = (meta.head, Some(meta.head), meta.horizon);
    let mut page = ChangesPage { to, consistent_at, entries: Vec::new(), horizon };
    // Read when there is a row to judge: most who ask have everything.
    let mut known: Option<Schema> = None;
    let from = keys::numbered(workspace, after.saturating_add(1));
    let end = keys::prefix_end(&keys::workspace_prefix(workspace));
    let (mut size_bytes, mut visited) = (0, 0);
    visit_range(state, BY_SEQ, &from, &end, &mut |seq_key, record| {
        let seq = keys::number_of(seq_key).unwrap_or_default();
        let Some((table, key)) = keys::split_record(record) else {
            return Err(state_damaged(BY_SEQ, seq_key, "the entry names no record"));
        };
        // Stale entries count too: a page of a much-edited record must not take for ever.
        visited += 1;
        if size_bytes >= PAGE_BYTES
            || page.entries.len() >= MAX_PAGE_ENTRIES
            || visited > MAX_PAGE_VISITS
        {
            page.to = seq - 1;
            page.consistent_at = planted(Plant::TornWalk).then_some(page.to);
            return Ok(false);
        }
        let row_key = keys::row_key(workspace, meta.generation, &table, &key);
        let stored = state.get(ROWS, &row_key)?;
        let Some(bytes) = stored else { return Ok(true) };
        let StoredRow { row, .. } = decoded(ROWS, &row_key, &bytes)?;
        let schema = match &mut known {
            Some(schema) => schema,
            unread => unread.insert(schema(state, workspace)?.unwrap_or_default()),
        };
        // The index is insert-only: an entry whose row has moved on counts at the newer seq.
        let is_shown = sees(user, &table, &row.record, schema.rules_of(&table))
            || planted(Plant::PrivateRowShown)
            || row.deleted && planted(Plant::PrivateTombstoneShown);
        if row.stream_seq() == seq && is_shown {
            size_bytes += bytes.len() + record.len() + 16;
            page.entries.push(Entry::Row { table, key, row });
        }
        Ok(true)
    })?;
    Ok(page)
}

/// What [`walk`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkRows {
    /// The rows that may be shown, in the order of their names, tombstones too.
    pub entries: Vec<Entry>,
    /// The last record that was looked at; none if nothing is left.
    pub looked_to: Option<(TableName, Key)>,
    /// The head of this state.
    pub head: u64,
    /// Its horizon.
    pub horizon: u64,
}

/// The rows behind a record, in the order of their names, as far as `user` may see them: what fits
/// a page.
pub fn walk<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    from: Option<&(TableName, Key)>,
    user: &str,
) -> Result<WalkRows, StoreError> {
    let WorkspaceMeta { generation, head, horizon, .. } = meta(state, workspace)?;
    let schema = schema(state, workspace)?.unwrap_or_default();
    let prefix = keys::rows_prefix(workspace, generation);
    let begin = match from {
        Some((table, key)) => [&*keys::row_key(workspace, generation, table, key), &[0]].concat(),
        None => prefix.clone(),
    };
    let mut found = WalkRows { entries: Vec::new(), looked_to: None, head, horizon };
    let (mut size_bytes, mut visited, mut last) = (0, 0, None);
    visit_range(state, ROWS, &begin, &keys::prefix_end(&prefix), &mut |row_key, bytes| {
        let is_full = size_bytes >= PAGE_BYTES
            || found.entries.len() >= MAX_PAGE_ENTRIES
            || visited > MAX_PAGE_VISITS;
        if is_full {
            found.looked_to = last.take();
            return Ok(false);
        }
        visited += 1;
        let Some((table, key)) = keys::split_row_key(row_key, prefix.len()) else {
            return Err(state_damaged(ROWS, row_key, "the key names no record"));
        };
        let StoredRow { row, .. } = decoded(ROWS, row_key, bytes)?;
        let is_shown = sees(user, &table, &row.record, schema.rules_of(&table))
            || planted(Plant::PrivateRowShown)
            || row.deleted && planted(Plant::PrivateTombstoneShown);
        last = Some((table.clone(), key.clone()));
        // Rows of tables that are local here have no seq, and are nobody else's.
        if is_shown && row.stream_seq() != 0 {
            size_bytes += bytes.len() + row_key.len();
            found.entries.push(Entry::Row { table, key, row });
        }
        Ok(true)
    })?;
    Ok(found)
}
