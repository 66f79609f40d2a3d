//! A workspace of a database: reads, writes, live reads.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use lastword_core::id::{BatchId, Key, TableName, WorkspaceName};
use lastword_core::row::Row;
use lastword_core::rules::PENDING_SEQ;
use lastword_core::value::Record;
use lastword_store::View;
use lastword_store::keys::{self, StoredRow};
use lastword_store::read::{self, ReadState};

use crate::database::Database;
use crate::environment::random;
use crate::error::{Error, Result};
use crate::live::lock;
use crate::query::{Plan, Rows};
use crate::receipt::Receipt;
use crate::schema::Declared;
use crate::write::{self, Appended, Author, Tx};

/// How often a write runs its closure again because another write moved one of its records.
const MAX_WRITE_ATTEMPTS: usize = 1000;

/// A workspace of one database. Cheap to clone and to send between threads.
#[derive(Clone)]
pub struct Workspace {
    db: Database,
    name: WorkspaceName,
}

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

impl Database {
    /// A workspace by name; works before the server has heard of it.
    ///
    /// # Errors
    /// [`Error::Name`] if the name is not valid, [`Error::ReservedWorkspace`] if it begins with
    /// `_`.
    pub fn workspace(&self, name: &str) -> Result<Workspace> {
        let name = WorkspaceName::new(name)?;
        match name.is_reserved() {
            true => Err(Error::ReservedWorkspace { workspace: name }),
            false => Ok(Workspace::new(self.clone(), name)),
        }
    }

    /// Every workspace that this store holds something of.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn workspaces(&self) -> Result<Vec<Workspace>> {
        let names = read::workspaces(&*self.view())?;
        Ok(names.into_iter().map(|(name, _)| Workspace::new(self.clone(), name)).collect())
    }
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workspace({} in {})", self.name, self.db.dir().display())
    }
}

impl Workspace {
    pub(crate) fn new(db: Database, name: WorkspaceName) -> Self {
        Self { db, name }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &WorkspaceName {
        &self.name
    }

    /// The database that holds it.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// Writes one atomic batch: everything that `edit` does with the transaction is durable when
    /// this returns, or nothing is. Never waits for a network. `edit` runs again if another write
    /// changed one of its records meanwhile, so it should have no other effect.
    ///
    /// # Errors
    /// Whatever `edit` returns; [`Error::Batch`] or [`Error::Value`] beyond the limits;
    /// [`Error::OutboxFull`]; [`Error::Store`] if the disk fails. Nothing is written then, except
    /// that after a failed sync the outcome is unknown until the database is opened again.
    pub fn write(&self, mut edit: impl FnMut(&mut Tx) -> Result<()>) -> Result<Receipt> {
        for _ in 0..MAX_WRITE_ATTEMPTS {
            let inner = &self.db.inner;
            let mut tx = Tx::new(&self.name, self.db.view(), Arc::clone(&inner.declared))?;
            edit(&mut tx)?;
            let draft = tx.into_draft();
            let (declared, max_undecided) = (Arc::clone(&inner.declared), inner.max_undecided);
            let batch_id = BatchId(random());
            let held = inner.receipts.hold(batch_id);
            let clock = Arc::clone(&inner.last_hlc);
            let appended = inner.writer.run(move |store| {
                let is_local = |table: &TableName| declared.is_local(table);
                let mut last_hlc = lock(&clock);
                let author = Author { is_local: &is_local, last_hlc: &mut last_hlc, max_undecided };
                write::append(store, &draft, batch_id, author)
            })?;
            return Ok(match appended {
                Appended::Moved => continue,
                Appended::Local => Receipt::local(),
                Appended::Synced => Receipt::synced(held),
            });
        }
        Err(Error::Aborted(format!(
            "other writes changed the same records {MAX_WRITE_ATTEMPTS} times in a row"
        )))
    }

    /// A live record as it is shown now, own unsent writes included.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or the row is damaged.
    pub fn get_record(&self, table: &TableName, key: &Key) -> Result<Option<Shown>> {
        self.read()?.get_record(table, key)
    }

    /// A consistent view over all tables; later writes do not change it.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn read(&self) -> Result<WorkspaceView> {
        let declared = Arc::clone(&self.db.inner.declared);
        WorkspaceView::new(self.name.clone(), self.db.view(), declared)
    }

    /// Waits until something after `view` is published; false if the database was closed or
    /// `timeout` is over.
    #[must_use]
    pub fn wait_after(&self, view: &WorkspaceView, timeout: Option<Duration>) -> bool {
        self.db.inner.watchers.wait_after(view.view.position(), timeout)
    }

    /// A future that is ready once something after `view` is published or the database is closed.
    pub async fn changed_after(&self, view: &WorkspaceView) {
        let seen = view.view.position();
        std::future::poll_fn(|context| {
            match self.db.inner.watchers.poll_after(seen, context.waker()) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
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

    pub(crate) fn row_key(&self, table: &TableName, key: &Key) -> Vec<u8> {
        keys::row_key(&self.name, self.generation, table, key)
    }

    pub(crate) fn stored(&self, table: &TableName, key: &Key) -> Result<Option<StoredRow>> {
        Ok(read::row(&*self.view, &self.row_key(table, key))?)
    }

    /// A live record.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or the row is damaged.
    pub fn get_record(&self, table: &TableName, key: &Key) -> Result<Option<Shown>> {
        let stored = self.stored(table, key)?.filter(|stored| !stored.row.deleted);
        Ok(stored.map(|stored| Shown::from_row(table.clone(), key.clone(), stored.row)))
    }

    /// Whether a record is live; `None` if it was never known here, `Some(false)` if it is deleted.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or the row is damaged.
    pub fn is_live(&self, table: &TableName, key: &Key) -> Result<Option<bool>> {
        Ok(self.stored(table, key)?.map(|stored| !stored.row.deleted))
    }

    /// Live records of one table with keys between `from` and `to`, in key order (bytes of UTF-8)
    /// or backwards, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a row is damaged.
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
        let prefix = keys::table_prefix(&self.name, self.generation, table);
        let found = match rows {
            Rows::Keys { from, to } => {
                read::table_rows(&*self.view, &prefix, from, to.as_deref(), *reverse, *limit)?
            }
            Rows::Index { index, values } => {
                read::index_rows(&*self.view, &prefix, index, values, *reverse, *limit)?
            }
        };
        let shown =
            |(table, key, stored): (_, _, StoredRow)| Shown::from_row(table, key, stored.row);
        Ok(found.into_iter().map(shown).collect())
    }

    /// Calls `visit` for every record of the workspace in (table, key) order; `deleted` tells
    /// tombstones, whose value is the one that an undelete brings back.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a row is damaged, and those of `visit`.
    pub fn visit_all(&self, visit: &mut dyn FnMut(Shown, bool) -> Result<()>) -> Result<()> {
        let prefix = keys::rows_prefix(&self.name, self.generation);
        let mut stopped = Ok(());
        read::visit_range(
            &*self.view,
            keys::ROWS,
            &prefix,
            &keys::prefix_end(&prefix),
            &mut |row_key, _| {
                let Some((table, key)) = keys::split_row_key(row_key, prefix.len()) else {
                    return Ok(true);
                };
                let Some(stored) = read::row(&*self.view, row_key)? else { return Ok(true) };
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
    /// [`Error::Store`] if the disk fails.
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
