//! A workspace of a database: reads and writes.

use std::sync::Arc;
use std::time::Duration;

use lastword_core::id::{BatchId, Key, TableName, WorkspaceName};
use lastword_core::stamp::Decision;
use lastword_store::read;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::live::lock;
use crate::view::{Shown, WorkspaceView};
use crate::write::{self, Appended, Author, Tx};

/// How often a write runs its closure again because another write moved one of its records.
const MAX_WRITE_ATTEMPTS: usize = 1000;

/// A workspace of one database. Cheap to clone and to send between threads.
#[derive(Clone)]
pub struct Workspace {
    db: Database,
    name: WorkspaceName,
}

/// Proof of a durable local write.
#[derive(Debug, Clone)]
pub struct Receipt {
    workspace: Workspace,
    counter: Option<u64>,
    batch_id: Option<BatchId>,
}

impl Database {
    /// A workspace by name; works before the server has heard of it.
    ///
    /// # Errors
    /// [`Error::Name`] if the name is not valid.
    pub fn workspace(&self, name: &str) -> Result<Workspace> {
        Ok(Workspace::new(self.clone(), WorkspaceName::new(name)?))
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
            let clock = Arc::clone(&inner.last_hlc);
            let appended = inner.writer.run(move |store| {
                let is_local = |table: &TableName| declared.is_local(table);
                let mut last_hlc = lock(&clock);
                let author = Author { is_local: &is_local, last_hlc: &mut last_hlc, max_undecided };
                write::append(store, &draft, author)
            })?;
            let (counter, batch_id) = match appended {
                Appended::Moved => continue,
                Appended::Nothing => (None, None),
                Appended::Batch { counter, batch_id } => (counter, counter.map(|_| batch_id)),
            };
            return Ok(Receipt { workspace: self.clone(), counter, batch_id });
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

/// What is known of a written batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It touched local tables only, or nothing: there is nothing to wait for.
    Local,
    /// The server decided it, and this device has stored the verdict.
    Decided(Decision),
    /// The server refused it; it is a dead letter now.
    Refused {
        /// Why, in one word.
        code: String,
        /// For people.
        message: String,
    },
    /// The stream has shown it already, so its verdict is no longer kept here.
    Shown,
}

impl Receipt {
    /// True if the write has something to sync.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.counter.is_some()
    }

    /// The batch, if the write has something to sync.
    #[must_use]
    pub fn batch_id(&self) -> Option<BatchId> {
        self.batch_id
    }

    /// The verdict if this device has it durably; `None` while the batch waits.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn verdict(&self) -> Result<Option<Settled>> {
        let (Some(counter), Some(batch_id)) = (self.counter, self.batch_id) else {
            return Ok(Some(Settled::Local));
        };
        let view = self.workspace.db.view();
        let name = &self.workspace.name;
        // A batch may have been renumbered, so its id decides.
        let entry = match read::outbox_entry(&*view, name, counter)? {
            Some(entry) if entry.batch_id == batch_id => Some(entry),
            _ => {
                let all = read::outbox(&*view, name, 0, usize::MAX)?;
                all.into_iter().map(|(_, entry)| entry).find(|entry| entry.batch_id == batch_id)
            }
        };
        if let Some(entry) = entry {
            return Ok(entry.settled.map(Settled::Decided));
        }
        let letter = crate::dead_letter::find(&*view, batch_id)?;
        Ok(Some(match letter {
            Some(letter) => Settled::Refused { code: letter.code, message: letter.message },
            None => Settled::Shown,
        }))
    }

    /// Waits until the verdict is durable on this device; `None` if `timeout` is over or the
    /// database was closed first.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<Settled>> {
        let until = timeout.map(|timeout| std::time::Instant::now() + timeout);
        loop {
            let view = self.workspace.read()?;
            if let Some(settled) = self.verdict()? {
                return Ok(Some(settled));
            }
            let left =
                until.map(|until| until.saturating_duration_since(std::time::Instant::now()));
            if !self.workspace.wait_after(&view, left) {
                return Ok(None);
            }
        }
    }

    /// Resolves once the verdict is durable on this device, refusals too; `None` if the database
    /// was closed first.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub async fn settled(&self) -> Result<Option<Settled>> {
        loop {
            let view = self.workspace.read()?;
            if let Some(settled) = self.verdict()? {
                return Ok(Some(settled));
            }
            self.workspace.changed_after(&view).await;
            if self.workspace.read()?.position() == view.position() {
                return Ok(None);
            }
        }
    }
}
