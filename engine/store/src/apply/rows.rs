//! A replica's visible rows and their index entries: every change of `ROWS` goes through here.

use lastword_core::codec::{DecodeError, from_bytes};
use lastword_core::plant::{Plant, planted};
use lastword_core::row::Row;

use super::put;
use crate::error::StoreError;
use crate::index::{IndexDef, Indexes};
use crate::keys::{self, INDEX, ROWS, StoredRow};
use crate::state::{PutRow, StateTxn};

/// Shows `stored` instead of `old`, the visible row.
pub(super) fn put_row(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    row_key: &[u8],
    old: Option<&Row>,
    stored: &StoredRow,
) -> Result<(), StoreError> {
    move_entries(state, indexes, row_key, old, Some(&stored.row))?;
    put(state, ROWS, row_key, stored)
}

/// Shows nothing instead of `old`, the visible row.
pub(super) fn delete_row(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    row_key: &[u8],
    old: Option<&Row>,
) -> Result<(), StoreError> {
    if !planted(Plant::PurgedStaysInIndex) {
        move_entries(state, indexes, row_key, old, None)?;
    }
    state.delete(ROWS, row_key);
    Ok(())
}

/// Entries of the old row go and those of the new one come. A row that cannot be in an index is
/// not in it: it may have come from a device that has no such index.
fn move_entries(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    row_key: &[u8],
    old: Option<&Row>,
    new: Option<&Row>,
) -> Result<(), StoreError> {
    if indexes.is_empty() {
        return Ok(());
    }
    let Some((table_prefix, table, key)) = keys::cut_row_key(row_key) else { return Ok(()) };
    let mut of_table = indexes.of(table).peekable();
    if of_table.peek().is_none() {
        return Ok(());
    }
    for index in of_table {
        let entry = |row: Option<&Row>| entry(index, table_prefix, key, row?);
        let before = entry(old);
        let after = entry(new);
        if before == after {
            continue;
        }
        if let Some(before) = before.filter(|_| !planted(Plant::IndexEntryKept)) {
            state.delete(INDEX, &before);
        }
        if let Some(after) = after {
            state.put(INDEX, &after, &[])?;
        }
    }
    Ok(())
}

/// The entry of a row in one index, if it is live and has the fields.
fn entry(index: &IndexDef, table_prefix: &[u8], key: &[u8], row: &Row) -> Option<Vec<u8>> {
    let values = index.values_of(&row.record).ok().flatten().filter(|_| !row.deleted)?;
    Some([&keys::index_prefix(table_prefix, &index.name), values.as_slice(), key].concat())
}

/// Hands the index entries of a stored row to `put`.
pub(super) fn entries_of(
    indexes: &Indexes,
    row_key: &[u8],
    stored: &[u8],
    put: &mut PutRow<'_>,
) -> Result<(), DecodeError> {
    let Some((table_prefix, table, key)) = keys::cut_row_key(row_key) else { return Ok(()) };
    let mut of_table = indexes.of(table).peekable();
    if of_table.peek().is_none() {
        return Ok(());
    }
    let stored: StoredRow = from_bytes(stored)?;
    for index in of_table {
        if let Some(entry) = entry(index, table_prefix, key, &stored.row) {
            put(INDEX, &entry, &[]);
        }
    }
    Ok(())
}
