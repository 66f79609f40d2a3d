//! A device of a cluster: the ordinary database, over the store of a party that the cluster drives.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use lastword_core::id::{DeviceId, WorkspaceName};
use lastword_core::op::Batch;
use lastword_core::protocol::replica::{Input, Output, SyncStatus};
use lastword_store::{MemoryDisk, Options, Store, StoreError, Survival, read};

use super::clock::{Clock, DeviceClock};
use crate::database::{Builder, Database, Running};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::hooks::HookQueue;
use crate::live::{Watchers, lock};
use crate::lost;
use crate::node::{DeviceNode, DeviceSettings, ToLink};
use crate::open::OpenedStore;
use crate::purge;
use crate::queue::Job;
use crate::raise::{self, Unable};
use crate::replicator;
use crate::upkeep::{Keep, UpkeepSettings};
use crate::workspace::Workspace;
use crate::writer::{InPlace, Writer};

/// How the stores of a cluster work: large enough for any batch, small in memory.
pub(super) fn store_options(clock: &dyn Environment) -> Options {
    let mut entropy = [0; 32];
    entropy[..16].copy_from_slice(&clock.random());
    entropy[16..].copy_from_slice(&clock.random());
    let (segment_size, zero_step, cache_bytes) = (1 << 20, 16 << 10, 1 << 20);
    Options { segment_size, zero_step, cache_bytes, entropy, ..Options::default() }
}

/// An empty disk.
pub(super) fn new_disk() -> MemoryDisk {
    MemoryDisk::new(16 << 10)
}

/// A device of a cluster. Cheap to clone; all clones are the same device.
#[derive(Clone)]
pub struct Device {
    pub(super) number: usize,
    name: String,
    user: String,
    clock: Arc<DeviceClock>,
    process: Arc<Mutex<Process>>,
}

/// What runs on the device, and its disk.
struct Process {
    settings: Builder,
    disk: MemoryDisk,
    hosted: Arc<Hosted>,
    db: Database,
    unable: Unable,
    /// Workspaces that its app has asked for.
    attached: BTreeSet<WorkspaceName>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({} of {})", self.name, self.user)
    }
}

impl Device {
    pub(super) fn open(
        number: usize,
        (name, user): (&str, &str),
        settings: Builder,
        disk: MemoryDisk,
        clock: &Arc<Clock>,
    ) -> Result<Self> {
        let clock = Arc::new(DeviceClock::new(clock));
        let process = Arc::new(Mutex::new(Process::start(name, settings, disk, &clock)?));
        Ok(Self { number, name: name.into(), user: user.into(), clock, process })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The user that it signs in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database that its app has open. After a restart it is another one, and the old one
    /// answers [`Error::Closed`].
    #[must_use]
    pub fn database(&self) -> Database {
        lock(&self.process).db.clone()
    }

    /// The id that it writes under.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.database().device()
    }

    /// A workspace of its database, which is kept in step from now on.
    ///
    /// # Errors
    /// As [`Database::workspace`].
    pub fn workspace(&self, name: &str) -> Result<Workspace> {
        let mut process = lock(&self.process);
        let workspace = process.db.workspace(name)?;
        let name = workspace.name();
        if !name.is_reserved() && process.attached.insert(name.clone()) {
            process.attach(name, self.clock.elapsed_ms())?;
        }
        Ok(workspace)
    }

    /// How a workspace of it stands with the server.
    #[must_use]
    pub fn status(&self, workspace: &WorkspaceName) -> SyncStatus {
        let process = lock(&self.process);
        let node = lock(&process.hosted.node);
        let status = node.as_ref().and_then(|node| node.status(workspace)).cloned();
        status.unwrap_or(SyncStatus::Idle)
    }

    /// Its clock is that much ahead of the server's from now on.
    pub(super) fn set_ahead(&self, ahead_ms: i64) {
        self.clock.set_ahead(ahead_ms);
    }

    pub(super) fn attached(&self) -> Vec<WorkspaceName> {
        lock(&self.process).attached.iter().cloned().collect()
    }

    /// A copy of what its disk holds now.
    pub(super) fn disk(&self) -> MemoryDisk {
        lock(&self.process).disk.after_power_cut(Survival::Kept)
    }

    /// The process ends, in good order unless it is `killed`, and another begins.
    pub(super) fn restart(&self, settings: Option<Builder>, killed: bool) -> Result<()> {
        let mut process = lock(&self.process);
        if killed {
            lock(&process.hosted.node).take();
        }
        process.db.close()?;
        let survival = if killed { Survival::Dropped } else { Survival::Kept };
        // A disk of its own: who still reads through the old database reads the old one.
        let disk = process.disk.after_power_cut(survival);
        let settings = settings.unwrap_or_else(|| process.settings.clone());
        let attached = std::mem::take(&mut process.attached);
        *process = Process::start(&self.name, settings, disk, &self.clock)?;
        for name in &attached {
            process.attach(name, self.clock.elapsed_ms())?;
        }
        process.attached = attached;
        Ok(())
    }

    pub(super) fn input(&self, input: Input) -> Result<()> {
        let process = lock(&self.process);
        process.hosted.with(|node| {
            node.input(self.clock.elapsed_ms(), input);
            Ok(())
        })
    }

    pub(super) fn to_link(&self) -> Result<Option<ToLink>> {
        lock(&self.process).hosted.with(|node| Ok(node.to_link()))
    }

    /// When it has to hear of the time, if a workspace of it is not in step and waits for that.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let process = lock(&self.process);
        let node = lock(&process.hosted.node);
        let node = node.as_ref()?;
        let is_waiting = |name: &WorkspaceName| {
            matches!(
                node.status(name),
                Some(
                    SyncStatus::Connecting
                        | SyncStatus::Offline { .. }
                        | SyncStatus::CatchingUp { .. }
                )
            )
        };
        node.wake_at().filter(|_| process.attached.iter().any(is_waiting))
    }

    /// It is later now.
    pub(super) fn wake(&self) -> Result<()> {
        let process = lock(&self.process);
        process.hosted.with(|node| {
            let now = self.clock.elapsed_ms();
            if node.wake_at().is_some_and(|at| at <= now) {
                node.input(now, Input::Time);
            }
            Ok(())
        })
    }

    /// It forgets what is kept no longer; whether there was anything.
    pub(super) fn forget(&self) -> Result<bool> {
        let process = lock(&self.process);
        let (changed, view) = process.hosted.with(|node| {
            let changed = forget(node.store(), self.clock.now_ms())?;
            Ok((changed, node.view()))
        })?;
        process.db.inner.watchers.published(&view);
        Ok(changed)
    }

    /// Its store does what the session wants, and its app is told; whether there was anything.
    pub(super) fn work(&self) -> Result<bool> {
        let (did, hooks) = {
            let mut process = lock(&self.process);
            (process.work(&self.clock)?, Arc::clone(&process.db.inner.hooks))
        };
        // A hook may use the device.
        Ok(hooks.run_waiting() | did)
    }
}

impl Process {
    fn start(
        name: &str,
        settings: Builder,
        disk: MemoryDisk,
        clock: &Arc<DeviceClock>,
    ) -> Result<Self> {
        let parties = DeviceSettings {
            store: store_options(&**clock),
            local_tables: Vec::new(),
            new_device: DeviceId(clock.random()),
            nonce: clock.number().to_be_bytes(),
            seed: clock.number(),
            max_undecided: u64::MAX,
        };
        let declared = (settings.declared()?, settings.app_schema());
        let on_disk = Arc::new(disk.clone());
        let (mut node, report) =
            DeviceNode::open_declared(on_disk, parties, declared, clock.now_ms())?;
        node.input(clock.elapsed_ms(), Input::Start);
        let (view, views, declared) =
            (node.view(), node.store().view_handle(), Arc::clone(node.declared()));
        let identity = read::identity(&*view)?.ok_or(Error::Closed)?;
        // Nothing runs beside the writes of a cluster.
        let upkeep = UpkeepSettings { delta_cap_bytes: 0, keep: Keep::default() };
        let blobs = Arc::clone(node.store().blobs());
        let opened = OpenedStore { dir: PathBuf::from(name), identity, report, upkeep, blobs };
        let watchers: Arc<Watchers> = Arc::default();
        let hosted =
            Arc::new(Hosted { node: Mutex::new(Some(node)), watchers: Arc::clone(&watchers) });
        let running = Running {
            opened,
            healed: None,
            writer: Writer::in_place(Arc::clone(&hosted) as Arc<dyn InPlace>, views),
            watchers,
            hooks: Arc::new(HookQueue::in_place()),
            declared,
            environment: Arc::clone(clock) as Arc<dyn Environment>,
        };
        let db = settings.database(running);
        let (unable, attached) = Default::default();
        Ok(Self { settings, disk, hosted, db, unable, attached })
    }

    fn attach(&self, name: &WorkspaceName, now_ms: u64) -> Result<()> {
        self.hosted.with(|node| node.attach(name, now_ms))?;
        // What an earlier run of the app received and did not tell.
        lost::look(&self.db, name);
        Ok(())
    }

    fn work(&mut self, clock: &DeviceClock) -> Result<bool> {
        let (now, wall) = (clock.elapsed_ms(), clock.now_ms());
        self.hosted.with(|node| node.tell_written(now))?;
        let mut did = false;
        while let Some(asked) = self.hosted.with(asked)? {
            did = true;
            if let Asked::Outbox(workspace, batches) = &asked {
                raise::pushing(&self.db.inner.hooks, workspace, batches);
            }
            let (settled, view) = self.hosted.with(|node| {
                node.step(now, wall)?;
                make_room(node.store())?;
                Ok((node.take_settled(), node.view()))
            })?;
            self.db.inner.watchers.published(&view);
            self.tell(asked, settled, &view)?;
        }
        for name in &self.attached {
            let status = self.hosted.with(|node| Ok(node.status(name).cloned()))?;
            if let Some(status) = status {
                self.unable.tell(&self.db.inner.hooks, name, &status);
            }
        }
        Ok(did)
    }

    /// What a step made durable is told to receipts and hooks.
    fn tell(&self, asked: Asked, settled: Settled, view: &lastword_store::View) -> Result<()> {
        let hooks = &self.db.inner.hooks;
        match asked {
            Asked::Page(workspace, rows) => {
                let meta = read::meta(view, &workspace)?;
                raise::pulled(hooks, &workspace, rows, (meta.received_to, meta.cursor));
                if meta.received_to == meta.cursor {
                    lost::look(&self.db, &workspace);
                }
            }
            Asked::Decisions(workspace) => raise::pushed(hooks, &workspace, &settled),
            Asked::Outbox(..) | Asked::Other => {}
        }
        self.db.inner.receipts.settle(settled);
        Ok(())
    }
}

type Settled = Vec<(lastword_core::id::BatchId, lastword_core::stamp::Decision)>;

/// What a session wants of its store, as far as an app is told of it.
enum Asked {
    Outbox(WorkspaceName, Vec<Batch>),
    /// With the number of its rows.
    Page(WorkspaceName, u64),
    Decisions(WorkspaceName),
    Other,
}

fn asked(node: &mut DeviceNode) -> Result<Option<Asked>> {
    let Some(request) = node.next_request() else { return Ok(None) };
    Ok(Some(match request {
        Output::ReadOutbox { workspace, after, max } => {
            let (workspace, after, max) = (workspace.clone(), *after, *max);
            let log = node.store().view_handle();
            let batches = replicator::read_outbox(&log, &workspace, after, max)?;
            Asked::Outbox(workspace, batches)
        }
        Output::StoreChanges { workspace, page } => {
            Asked::Page(workspace.clone(), page.entries.len() as u64)
        }
        Output::StoreAttached { workspace, .. } | Output::StoreDecisions { workspace, .. } => {
            Asked::Decisions(workspace.clone())
        }
        _ => Asked::Other,
    }))
}

/// What a thread does beside the writes of an app is done between them here.
pub(super) fn make_room(store: &mut Store) -> std::result::Result<(), StoreError> {
    if store.wants_checkpoint() { store.checkpoint() } else { Ok(()) }
}

/// What is kept no longer goes.
pub(super) fn forget(store: &mut Store, now_ms: i64) -> std::result::Result<bool, StoreError> {
    let Keep { tombstones, history, .. } = Keep::default();
    purge::all(store, tombstones, history, now_ms)
}

/// The party, lent to the database for its writes.
struct Hosted {
    /// None once it is closed.
    node: Mutex<Option<DeviceNode>>,
    watchers: Arc<Watchers>,
}

impl Hosted {
    fn with<T>(&self, work: impl FnOnce(&mut DeviceNode) -> Result<T>) -> Result<T> {
        work(lock(&self.node).as_mut().ok_or(Error::Closed)?)
    }
}

impl InPlace for Hosted {
    fn run(&self, job: Job) -> Result<()> {
        let (answer, committed, view) = self.with(|node| {
            let store = node.store();
            let answer = job(store);
            let committed = store.commit().and_then(|_| make_room(store));
            Ok((answer, committed, store.view()))
        })?;
        if committed.is_ok() {
            self.watchers.published(&view);
        }
        answer(committed);
        Ok(())
    }

    fn close(&self) -> Result<()> {
        match lock(&self.node).take() {
            Some(node) => Ok(node.close()?),
            None => Ok(()),
        }
    }
}
