//! A database: one device's store, opened by one process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lastword_core::hlc::Hlc;
use lastword_core::id::{DeviceId, TableName, WorkspaceName};
use lastword_core::limits::MAX_BLOB_BYTES;
use lastword_store::{OpenReport, View, read};

use crate::environment::{Environment, Machine};
use crate::error::{Error, Result};
use crate::heal::{self, HealReport, OnDamage};
use crate::hook::{self, Failed};
use crate::hooks::HookQueue;
use crate::live::Watchers;
use crate::locality;
use crate::log::{self, LogLine};
use crate::open::{OpenOptions, OpenedStore};
use crate::receipt::Receipts;
use crate::schema::{Declared, Index, TableSet};
use crate::transfers::TransferBoard;
use crate::unsent::Unsent;
use crate::writer::Writer;

/// Batches without a verdict beyond which [`crate::Error::OutboxFull`] stops writes.
pub const DEFAULT_MAX_UNDECIDED: u64 = 100_000;

/// Files that are carried at once on one connection to a server.
#[cfg(feature = "net")]
pub const DEFAULT_MAX_TRANSFERS: usize = 2;

/// One device's store. Cheap to clone; all clones are the same database. The last clone that goes
/// closes it.
#[derive(Clone)]
pub struct Database {
    pub(crate) inner: Arc<DatabaseInner>,
}

pub(crate) struct DatabaseInner {
    pub(crate) opened: OpenedStore,
    healed: Option<HealReport>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) hooks: Arc<HookQueue>,
    /// Workspaces whose conflicts are about to be told.
    pub(crate) looking: Arc<Mutex<BTreeSet<WorkspaceName>>>,
    pub(crate) declared: Arc<Declared>,
    pub(crate) unsent: Arc<Unsent>,
    /// How many connections keep each workspace in step.
    pub(crate) attached: Mutex<BTreeMap<WorkspaceName, usize>>,
    pub(crate) max_undecided: u64,
    pub(crate) max_file_bytes: u64,
    #[cfg(feature = "net")]
    pub(crate) max_transfers: usize,
    pub(crate) app_schema: u64,
    pub(crate) last_hlc: Arc<Mutex<Hlc>>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) transfers: TransferBoard,
    /// Writes of the app in this process: transfers give way to them.
    pub(crate) records: Arc<AtomicU64>,
    /// Drawn when it first connects: every connection of this process is of one store.
    #[cfg(feature = "net")]
    pub(crate) nonce: Mutex<Option<[u8; 16]>>,
    /// How often it has connected.
    #[cfg(feature = "net")]
    pub(crate) connects: std::sync::atomic::AtomicU64,
}

/// An open store with what runs it.
pub(crate) struct Running {
    pub(crate) opened: OpenedStore,
    pub(crate) healed: Option<HealReport>,
    pub(crate) writer: Writer,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) hooks: Arc<HookQueue>,
    pub(crate) declared: Arc<Declared>,
    pub(crate) unsent: Arc<Unsent>,
    pub(crate) environment: Arc<dyn Environment>,
}

/// Settings of a database that is about to be opened.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    declared: Declared,
    /// The first declaration that does not fit, told when the database is opened.
    fault: Option<Error>,
    max_undecided: Option<u64>,
    max_file_bytes: Option<u64>,
    #[cfg(feature = "net")]
    max_transfers: Option<usize>,
    app_schema: u64,
    history: Option<Duration>,
    on_damage: OnDamage,
}

impl Builder {
    /// Declares tables: one, or a tuple of them. A declared table is checked wherever records are
    /// written, also without its type.
    #[must_use]
    pub fn tables(self, tables: impl TableSet) -> Self {
        self.declare(|declared| tables.declare_in(declared))
    }

    /// Declares an index, and with it its table. If the store was last opened with other indexes,
    /// opening builds them anew from the log, which takes as long as reading it.
    #[must_use]
    pub fn index<T>(self, index: Index<T>) -> Self {
        self.declare(|declared| declared.index(&index))
    }

    /// Declares a table by name that never leaves this device, now or later: a store keeps that,
    /// also where a later app does not declare it.
    #[must_use]
    pub fn local_table(self, table: TableName) -> Self {
        self.declare(|declared| declared.local_table(table))
    }

    /// Sets how long every version of a record stays readable, instead of 30 days. What the server
    /// has not decided stays readable for as long as that takes.
    #[must_use]
    pub fn history(mut self, window: Duration) -> Self {
        self.history = Some(window);
        self
    }

    fn declare(mut self, declare: impl FnOnce(&mut Declared) -> Result<()>) -> Self {
        if let Err(error) = declare(&mut self.declared) {
            self.fault.get_or_insert(error);
        }
        self
    }

    /// States the app's schema number, so that a server can freeze apps that are too old.
    #[must_use]
    pub fn schema_version(mut self, number: u64) -> Self {
        self.app_schema = number;
        self
    }

    /// Sets how many batches may wait for the server, instead of [`DEFAULT_MAX_UNDECIDED`].
    #[must_use]
    pub fn max_undecided(mut self, batches: u64) -> Self {
        self.max_undecided = Some(batches);
        self
    }

    /// Sets how long a file may be that the app stores, instead of 16 TiB.
    #[must_use]
    pub fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = Some(bytes);
        self
    }

    /// Sets how many files are carried at once on a connection to a server, at least 1, instead of
    /// [`DEFAULT_MAX_TRANSFERS`].
    #[cfg(feature = "net")]
    #[must_use]
    pub fn max_transfers(mut self, transfers: usize) -> Self {
        self.max_transfers = Some(transfers.max(1));
        self
    }

    /// Sets what opening does if the directory is damaged, instead of [`OnDamage::Refuse`]. Only
    /// damage is healed: a directory that is locked, not ours or of a newer format is refused.
    #[must_use]
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.on_damage = on_damage;
        self
    }

    /// Opens or creates the database in directory `dir`. Blocks until it is recovered; needs no
    /// network.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the directory is locked (with the process id), damaged, of a
    /// newer format or not ours; [`crate::Error::OtherRole`] if it holds a server's data;
    /// [`crate::Error::Name`] or [`crate::Error::Declaration`] if a declaration is not valid or
    /// does not fit another or what the store has; [`crate::Error::NotHealed`] if healing fails,
    /// [`crate::Error::HealUnfinished`] if it was cut short and is not wanted now.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Database> {
        let mut declared = self.declared()?;
        let options = OpenOptions::replica(declared.indexes(), self.history);
        let (opened, mut store, healed) = heal::open(dir.as_ref(), &options, self.on_damage)?;
        if let Err(error) = locality::settle(&mut store, &mut declared) {
            // Nothing is wrong with the store, so the next open should find it in good order.
            store.close()?;
            return Err(error);
        }
        let watchers: Arc<Watchers> = Arc::default();
        let told = Arc::clone(&watchers);
        let writer = Writer::start(
            store,
            &opened.upkeep,
            "writer",
            Box::new(move |view| told.published(view)),
        )?;
        let (declared, environment) = (Arc::new(declared), Arc::new(Machine));
        let (hooks, unsent) = Default::default();
        let running =
            Running { opened, healed, writer, watchers, hooks, declared, unsent, environment };
        Ok(self.database(running))
    }

    /// What is declared, if it fits together.
    pub(crate) fn declared(&self) -> Result<Declared> {
        match &self.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(self.declared.clone()),
        }
    }

    /// Number of the app's schema, 0 = none.
    pub(crate) fn app_schema(&self) -> u64 {
        self.app_schema
    }

    /// The database over a store that is open.
    pub(crate) fn database(&self, running: Running) -> Database {
        let Running { opened, healed, writer, watchers, hooks, declared, unsent, environment } =
            running;
        tell_panics(&hooks);
        Database {
            inner: Arc::new(DatabaseInner {
                opened,
                healed,
                writer: Arc::new(writer),
                watchers,
                receipts: Arc::default(),
                hooks,
                looking: Arc::default(),
                declared,
                unsent,
                attached: Mutex::default(),
                max_undecided: self.max_undecided.unwrap_or(DEFAULT_MAX_UNDECIDED),
                max_file_bytes: self.max_file_bytes.unwrap_or(MAX_BLOB_BYTES),
                #[cfg(feature = "net")]
                max_transfers: self.max_transfers.unwrap_or(DEFAULT_MAX_TRANSFERS),
                app_schema: self.app_schema,
                last_hlc: Arc::default(),
                environment,
                transfers: TransferBoard::default(),
                records: Arc::default(),
                #[cfg(feature = "net")]
                nonce: Mutex::default(),
                #[cfg(feature = "net")]
                connects: Default::default(),
            }),
        }
    }
}

/// A panic of a hook is an event itself, unless it was told of one.
fn tell_panics(queue: &Arc<HookQueue>) {
    let of = Arc::downgrade(queue);
    queue.on_panic(move |name, reason| {
        if let Some(queue) = of.upgrade()
            && name != hook::SYNC_ERROR.name()
        {
            let message = format!("hook {name} panicked: {reason}");
            queue.run(hook::SYNC_ERROR, &Failed { workspace: None, message });
        }
    });
}

impl Database {
    /// Settings for opening a database.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Opens or creates the database in directory `dir` with default settings.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Database> {
        Self::builder().open(dir)
    }

    /// The device that writes with this store. It changes if a copy of the directory turns out to
    /// write under the same id.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        let identity = read::identity(&*self.view()).ok().flatten();
        identity.map_or(self.inner.opened.identity.device, |identity| identity.device)
    }

    /// The directory that it was opened in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.opened.dir
    }

    /// What opening found: how much was replayed, cut or rebuilt.
    #[must_use]
    pub fn open_report(&self) -> &OpenReport {
        &self.inner.opened.report
    }

    /// What was kept and lost when opening healed a damaged directory; none if nothing had to be
    /// healed. It is also logged as an error.
    #[must_use]
    pub fn healed(&self) -> Option<&HealReport> {
        self.inner.healed.as_ref()
    }

    /// At most `limit` frames of this store's log from position `from`, and where to go on.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails or a frame is damaged.
    pub fn log(&self, from: u64, limit: usize) -> Result<(Vec<LogLine>, u64)> {
        log::read(self.inner.writer.views(), from, limit)
    }

    /// Finishes queued writes and closes the store cleanly; later calls answer
    /// [`crate::Error::Closed`]. Dropping the last clone does the same but cannot report errors.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the last sync fails.
    pub fn close(&self) -> Result<()> {
        self.inner.hooks.close();
        let closed = self.inner.writer.close();
        self.inner.watchers.close();
        self.inner.transfers.ask();
        self.inner.receipts.close();
        closed
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.inner.writer.view()
    }
}

impl Drop for DatabaseInner {
    fn drop(&mut self) {
        self.hooks.close();
        if let Err(error) = self.writer.close() {
            tracing::error!(%error, "the database did not close cleanly; the log has every write");
        }
        self.watchers.close();
        self.receipts.close();
    }
}
