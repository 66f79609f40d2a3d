//! A consistent view of one workspace, and records as it shows them.

use std::ops::Bound;
use std::sync::Arc;

use lastword_core::id::{Key, TableName, WorkspaceName};
use lastword_core::plant::{Plant, planted};
use lastword_core::row::Row;
use lastword_core::rules::PENDING_SEQ;
use lastword_core::value::{Record, Value};
use lastword_store::keys::{self, StoredRow};
use lastword_store::read::{self, ReadState};
use lastword_store::{KeyRange, View};

use crate::error::Result;
use crate::query::{Plan, Rows};
use crate::schema::Declared;
use crate::tables::DEAD_LETTERS;

/// Table and key of a record.
pub(crate) type Name = (TableName, Key);

/// A live record as it is shown now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its table.
    pub table: TableName,
    /// Its key.
    pub key: Key,
    /// Its value.
    pub record: Record,
    /// Authority seq of the version; none while it is only a prediction of this device.
    pub seq: Option<u64>,
}

impl Shown {
    pub(crate) fn from_row(table: TableName, key: Key, row: Row) -> Self {
        let seq = (row.last.seq != PENDING_SEQ).then_some(row.last.seq);
        Self { table, key, record: row.record, seq }
    }

    /// True while the server has not decided this version.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.seq.is_none()
    }
}

/// A consistent view of one workspace.
#[derive(Clone)]
pub struct WorkspaceView {
    name: WorkspaceName,
    view: Arc<View>,
    generation: u32,
    declared: Arc<Declared>,
}

impl WorkspaceView {
    pub(crate) fn new(
        name: WorkspaceName,
        view: Arc<View>,
        declared: Arc<Declared>,
    ) -> Result<Self> {
        let generation = read::meta(&*view, &name)?.generation;
        Ok(Self { name, view, generation, declared })
    }

    pub(crate) fn declared(&self) -> &Declared {
        &self.declared
    }

    pub(crate) fn state(&self) -> &View {
        &self.view
    }

    /// First log position whose frame the view does not show.
    pub(crate) fn position(&self) -> u64 {
        self.view.position()
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Dead letters of all workspaces are in one table of workspace `_store`.
    fn is_shared(&self, table: &TableName) -> bool {
        table.as_str() == DEAD_LETTERS.name() && self.name.as_str() != read::STORE_WORKSPACE
    }

    fn table_prefix(&self, table: &TableName) -> Vec<u8> {
        match self.is_shared(table) {
            true => keys::table_prefix(&read::store_workspace(), 0, table),
            false => keys::table_prefix(&self.name, self.generation, table),
        }
    }

    /// Whether a row of this table belongs to this workspace.
    fn is_ours(&self, table: &TableName, record: &Record) -> bool {
        !self.is_shared(table)
            || record.get("workspace") == Some(Value::Text(self.name.as_str().into()))
    }

    pub(crate) fn row_key(&self, table: &TableName, key: &Key) -> Vec<u8> {
        [&self.table_prefix(table), key.as_str().as_bytes()].concat()
    }

    pub(crate) fn stored(&self, table: &TableName, key: &Key) -> Result<Option<StoredRow>> {
        let stored = read::row(&*self.view, &self.row_key(table, key))?;
        Ok(stored.filter(|stored| self.is_ours(table, &stored.row.record)))
    }

    /// A live record.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails or the row is damaged.
    pub fn get_record(&self, table: &TableName, key: &Key) -> Result<Option<Shown>> {
        let stored = self.stored(table, key)?.filter(|stored| !stored.row.deleted);
        Ok(stored.map(|stored| Shown::from_row(table.clone(), key.clone(), stored.row)))
    }

    /// Whether a record is live; `None` if it was never known here, `Some(false)` if it is deleted.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails or the row is damaged.
    pub fn is_live(&self, table: &TableName, key: &Key) -> Result<Option<bool>> {
        Ok(self.stored(table, key)?.map(|stored| !stored.row.deleted))
    }

    /// Live records of one table with keys between `from` and `to`, in key order (bytes of UTF-8)
    /// or backwards, at most `limit`.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails or a row is damaged.
    pub fn range(
        &self,
        table: &TableName,
        (from, to): (Bound<&str>, Bound<&str>),
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Shown>> {
        let keys = Rows::between(from, to);
        self.rows(&Plan { table: table.clone(), rows: keys, reverse, limit })
    }

    /// What a query finds here now.
    pub(crate) fn rows(&self, plan: &Plan) -> Result<Vec<Shown>> {
        let Plan { table, rows, reverse, limit } = plan;
        let prefix = self.table_prefix(table);
        // Rows of others are left out before they are counted.
        let most = if self.is_shared(table) { usize::MAX } else { *limit };
        let found = match rows {
            Rows::Keys { from, to } => {
                read::table_rows(&*self.view, &prefix, from, to.as_deref(), *reverse, most)?
            }
            Rows::Index { index, range } => {
                read::index_rows(&*self.view, &prefix, index, range, *reverse, most)?
            }
        };
        let ours =
            found.into_iter().filter(|(_, _, stored)| self.is_ours(table, &stored.row.record));
        let shown = ours.map(|(table, key, stored)| Shown::from_row(table, key, stored.row));
        Ok(shown.take(*limit).collect())
    }

    /// How many rows a query finds here now; reads rows only where they say whose they are.
    pub(crate) fn count_rows(&self, plan: &Plan) -> Result<usize> {
        let Plan { table, rows, limit, .. } = plan;
        if self.is_shared(table) {
            return Ok(self.rows(plan)?.len());
        }
        let prefix = self.table_prefix(table);
        Ok(match rows {
            Rows::Keys { from, to } => {
                read::count_live(&*self.view, &prefix, from, to.as_deref(), *limit)?
            }
            Rows::Index { index, range } => {
                read::count_entries(&*self.view, &prefix, index, range, *limit)?
            }
        })
    }

    /// Names of the rows of a table, or of all tables, that frames from position `since` on may
    /// have changed; `None` if too much of it is in redb to tell.
    pub(crate) fn changed(&self, table: Option<&TableName>, since: u64) -> Option<Vec<Name>> {
        let prefix = self.prefix(table);
        let changed = self.view.changed_since(keys::ROWS, &KeyRange::prefix(&prefix), since);
        Some(changed?.iter().filter_map(|row_key| keys::name_of(row_key)).collect())
    }

    /// Whether frames from position `since` on may have changed what a query finds. `last` is the
    /// place of its last row if it found as many as it may: what lies behind does not count.
    pub(crate) fn touched(&self, plan: &Plan, last: Option<&[u8]>, since: u64) -> Result<bool> {
        let table = self.table_prefix(&plan.table);
        let changed = |space, (low, high): (&[u8], &[u8])| {
            let keys = KeyRange::between(Bound::Included(low), Bound::Excluded(high));
            if low < high { self.view.changed_since(space, &keys, since) } else { Some(Vec::new()) }
        };
        let cut = |(low, high): (Vec<u8>, Vec<u8>), prefix: &[u8]| match last {
            Some(last) if plan.reverse => (low.max([prefix, last].concat()), high),
            Some(last) => (low, high.min([prefix, last, &[0]].concat())),
            None => (low, high),
        };
        let Rows::Index { index, range } = &plan.rows else {
            let (low, high) = cut(plan.rows.keys(&table), &table);
            let keys = changed(keys::ROWS, (&low, &high));
            return Ok(keys.is_none_or(|keys| !keys.is_empty()));
        };
        let prefix = keys::index_prefix(&table, &index.name);
        let (low, high) = cut(range.keys(&prefix), &prefix);
        if changed(keys::INDEX, (&low, &high)).is_none_or(|entries| !entries.is_empty()) {
            return Ok(true);
        }
        // A row may change where it stands: its entry does not.
        let rows = changed(keys::ROWS, (&table, &keys::prefix_end(&table)));
        let Some(rows) = rows else { return Ok(true) };
        for row_key in rows {
            let stored = read::row(&*self.view, &row_key)?.filter(|stored| !stored.row.deleted);
            let values = stored.and_then(|stored| index.values_of(&stored.row.record).ok()?);
            let key = row_key.get(table.len()..).unwrap_or_default();
            let entry = values.map(|values| [&prefix, values.as_slice(), key].concat());
            let is_here = entry.is_some_and(|entry| low <= entry && entry < high);
            if is_here && !planted(Plant::EditInPlaceMissed) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hands every row of a table, or of all tables, to `visit`, tombstones too.
    pub(crate) fn visit_rows(
        &self,
        table: Option<&TableName>,
        visit: &mut dyn FnMut(Name, StoredRow),
    ) -> Result<()> {
        let prefix = self.prefix(table);
        let end = keys::prefix_end(&prefix);
        read::visit_stored(&*self.view, &prefix, &end, &mut |table, key, stored| {
            if self.is_ours(&table, &stored.row.record) {
                visit((table, key), stored);
            }
        })?;
        Ok(())
    }

    fn prefix(&self, table: Option<&TableName>) -> Vec<u8> {
        match table {
            Some(table) => self.table_prefix(table),
            None => keys::rows_prefix(&self.name, self.generation),
        }
    }

    /// Calls `visit` for every record of the workspace in (table, key) order; `deleted` tells
    /// tombstones, whose value is the one that an undelete brings back.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails or a row is damaged, and those of `visit`.
    pub fn visit_all(&self, visit: &mut dyn FnMut(Shown, bool) -> Result<()>) -> Result<()> {
        let prefix = keys::rows_prefix(&self.name, self.generation);
        let mut stopped = Ok(());
        read::visit_range(
            &*self.view,
            keys::ROWS,
            &prefix,
            &keys::prefix_end(&prefix),
            &mut |row_key, value| {
                let Some((table, key)) = keys::split_row_key(row_key, prefix.len()) else {
                    return Ok(true);
                };
                let stored = read::visited_row(row_key, value)?;
                let deleted = stored.row.deleted;
                stopped = visit(Shown::from_row(table, key, stored.row), deleted);
                Ok(stopped.is_ok())
            },
        )?;
        stopped
    }

    /// Names of the tables that hold a live record or a tombstone.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails.
    pub fn tables(&self) -> Result<Vec<TableName>> {
        let prefix = keys::rows_prefix(&self.name, self.generation);
        let end = keys::prefix_end(&prefix);
        let (mut from, mut found) = (prefix.clone(), Vec::new());
        while let Some((row_key, _)) =
            self.view.range(keys::ROWS, &from, &end, false, 1)?.into_iter().next()
        {
            let Some((table, _)) = keys::split_row_key(&row_key, prefix.len()) else { break };
            from = keys::prefix_end(&keys::table_prefix(&self.name, self.generation, &table));
            found.push(table);
        }
        Ok(found)
    }
}
