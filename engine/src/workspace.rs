//! A workspace of a database: reads and writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lastword_core::id::{BatchId, Key, TableName, WorkspaceName};
use lastword_store::read;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::hook::{self, QueueFull};
use crate::live::lock;
use crate::receipt::{Receipt, Written};
use crate::schema::FILE_TRANSFERS_TABLE;
use crate::view::{Shown, WorkspaceView};
use crate::write::{self, Appended, Author, Tx, WriteOptions};

/// How often a write runs its closure again because another write moved one of its records.
const MAX_WRITE_ATTEMPTS: usize = 1000;

/// A workspace of one database. Cheap to clone and to send between threads.
#[derive(Clone)]
pub struct Workspace {
    db: Database,
    name: WorkspaceName,
}

impl Database {
    /// A workspace by name; works before the server has heard of it. `_store` holds this store's
    /// own tables, to be read only.
    ///
    /// # Errors
    /// [`Error::Name`] if the name is not valid, [`Error::ReservedWorkspace`] if it begins with
    /// `_`.
    pub fn workspace(&self, name: &str) -> Result<Workspace> {
        let name = WorkspaceName::new(name)?;
        match name.is_reserved() && name != read::store_workspace() {
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
    /// [`Error::OutboxFull`]; [`Error::ReservedWorkspace`] for `_store`; [`Error::Store`] if the
    /// disk fails. Nothing is written then, except that after a failed sync the outcome is unknown
    /// until the database is opened again.
    pub fn write(&self, edit: impl FnMut(&mut Tx) -> Result<()>) -> Result<Receipt> {
        self.write_with(WriteOptions::default(), edit)
    }

    /// [`Workspace::write`] with options.
    ///
    /// ```
    /// # use lastword::{Database, Table, WriteOptions};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Note { id: String, text: String }
    /// const NOTES: Table<Note> = Table::new("notes", "id");
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Database::builder().tables(NOTES).open(dir.path().join("db"))?;
    /// # let ws = db.workspace("main")?;
    /// # ws.write(|tx| tx.put(NOTES, &Note { id: "n1".into(), text: String::new() }))?;
    /// for word in ["A ", "text ", "that ", "is ", "streamed"] {
    ///     ws.write_with(WriteOptions::default().squash(), |tx| {
    ///         tx.update(NOTES, "n1", |note| note.text.push_str(word))
    ///     })?;
    /// }
    /// assert_eq!(ws.status()?.undecided, 2); // n1 itself, and its text
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Workspace::write`].
    pub fn write_with(
        &self,
        options: WriteOptions,
        mut edit: impl FnMut(&mut Tx) -> Result<()>,
    ) -> Result<Receipt> {
        self.check_writable()?;
        for _ in 0..MAX_WRITE_ATTEMPTS {
            let inner = &self.db.inner;
            let mut tx = Tx::new(&self.name, self.db.view(), Arc::clone(&inner.declared))?;
            edit(&mut tx)?;
            let (draft, before) = tx.into_draft();
            let queues = !options.quiet && draft.writes_to(FILE_TRANSFERS_TABLE);
            let (declared, max_undecided) = (Arc::clone(&inner.declared), inner.max_undecided);
            let environment = Arc::clone(&inner.environment);
            let batch_id = BatchId(environment.random());
            let held = inner.receipts.hold(batch_id);
            let (clock, unsent) = (Arc::clone(&inner.last_hlc), Arc::clone(&inner.unsent));
            let receipts = Arc::clone(&inner.receipts);
            let appended = self.told_if_full(inner.writer.run(move |store| {
                let is_local = |table: &TableName| declared.is_local(table);
                let mut last_hlc = lock(&clock);
                let (is_local, last_hlc, unsent) = (&is_local, &mut last_hlc, &*unsent);
                let author = Author { is_local, last_hlc, max_undecided, unsent, options };
                let appended = write::append(store, &draft, batch_id, environment.now_ms(), author);
                if let Ok(Appended::Synced(_, Some(replaced))) = &appended {
                    receipts.taken_in(*replaced, batch_id);
                }
                appended
            }))?;
            if !options.quiet {
                inner.records.fetch_add(1, Ordering::Relaxed);
            }
            let workspace = self.name.clone();
            if queues && !matches!(appended, Appended::Moved) {
                inner.transfers.ask();
            }
            return Ok(match appended {
                Appended::Moved => continue,
                Appended::Local(position) => {
                    Receipt::local(Written { workspace, position, before })
                }
                Appended::Synced(position, _) => {
                    Receipt::synced(held, Written { workspace, position, before })
                }
            });
        }
        Err(Error::Aborted(format!(
            "other writes changed the same records {MAX_WRITE_ATTEMPTS} times in a row"
        )))
    }

    /// Hooks hear of a full outbox.
    pub(crate) fn told_if_full<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(Error::OutboxFull { batches, limit }) = result {
            let event = || QueueFull { workspace: self.name.clone(), batches, limit };
            self.db.inner.hooks.raise(hook::SYNC_QUEUE_FULL, event);
        }
        result
    }

    /// A store's own tables are written by the product and never leave the device.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.name.is_reserved() {
            true => Err(Error::ReservedWorkspace { workspace: self.name.clone() }),
            false => Ok(()),
        }
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
        self.db.inner.watchers.wait_after(view.position(), timeout)
    }

    /// A future that is ready once something after `view` is published or the database is closed.
    pub async fn changed_after(&self, view: &WorkspaceView) {
        let seen = view.position();
        std::future::poll_fn(|context| {
            match self.db.inner.watchers.poll_after(seen, context.waker()) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            }
        })
        .await;
    }
}
