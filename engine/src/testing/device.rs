//! A device of a cluster: the ordinary database, over the store of a party that the cluster drives.

use std::sync::{Arc, Mutex};

use lastword_core::id::{DeviceId, WorkspaceName};
use lastword_core::protocol::replica::{Input, SyncStatus};
use lastword_store::{MemoryDisk, Options, Store, StoreError, Survival};

use super::clock::{Clock, DeviceClock};
use crate::database::{Builder, Database};
use crate::environment::Environment;
use crate::error::Result;
use crate::live::lock;
use crate::node::{AppNode, DeviceSettings, ToLink};
use crate::purge;
use crate::upkeep::Keep;
use crate::workspace::Workspace;

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
    app: AppNode,
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
    /// answers [`crate::Error::Closed`].
    #[must_use]
    pub fn database(&self) -> Database {
        lock(&self.process).app.database().clone()
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
        let workspace = process.app.database().workspace(name)?;
        let name = workspace.name();
        if !name.is_reserved() && !process.app.attached().contains(name) {
            process.app.attach(name, self.clock.elapsed_ms())?;
        }
        Ok(workspace)
    }

    /// How a workspace of it stands with the server.
    #[must_use]
    pub fn status(&self, workspace: &WorkspaceName) -> SyncStatus {
        let process = lock(&self.process);
        let status = process.app.with(|node| Ok(node.status(workspace).cloned()));
        status.ok().flatten().unwrap_or(SyncStatus::Idle)
    }

    /// Its clock is that much ahead of the server's from now on.
    pub(super) fn set_ahead(&self, ahead_ms: i64) {
        self.clock.set_ahead(ahead_ms);
    }

    pub(super) fn attached(&self) -> Vec<WorkspaceName> {
        lock(&self.process).app.attached().iter().cloned().collect()
    }

    /// A copy of what its disk holds now.
    pub(super) fn disk(&self) -> MemoryDisk {
        lock(&self.process).disk.after_power_cut(Survival::Kept)
    }

    /// The process ends, in good order unless it is `killed`, and another begins.
    pub(super) fn restart(&self, settings: Option<Builder>, killed: bool) -> Result<()> {
        let mut process = lock(&self.process);
        if killed {
            process.app.kill();
        }
        process.app.database().close()?;
        let survival = if killed { Survival::Dropped } else { Survival::Kept };
        // A disk of its own: who still reads through the old database reads the old one.
        let disk = process.disk.after_power_cut(survival);
        let settings = settings.unwrap_or_else(|| process.settings.clone());
        let attached = process.app.attached().clone();
        *process = Process::start(&self.name, settings, disk, &self.clock)?;
        attached.iter().try_for_each(|name| process.app.attach(name, self.clock.elapsed_ms()))
    }

    pub(super) fn input(&self, input: Input) -> Result<()> {
        let process = lock(&self.process);
        process.app.with(|node| {
            node.input(self.clock.elapsed_ms(), input);
            Ok(())
        })
    }

    pub(super) fn to_link(&self) -> Result<Option<ToLink>> {
        lock(&self.process).app.with(|node| Ok(node.to_link()))
    }

    /// When it has to hear of the time, if a workspace of it is not in step and waits for that.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let process = lock(&self.process);
        let wakes = process.app.with(|node| {
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
            Ok(node.wake_at().filter(|_| process.app.attached().iter().any(is_waiting)))
        });
        wakes.ok().flatten()
    }

    /// It is later now.
    pub(super) fn wake(&self) -> Result<()> {
        let process = lock(&self.process);
        process.app.with(|node| {
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
        let (changed, view) = process.app.with(|node| {
            let changed = forget(node.store(), self.clock.now_ms())?;
            Ok((changed, node.view()))
        })?;
        process.app.published(&view);
        Ok(changed)
    }

    /// Its store does what the session wants, and its app is told; whether there was anything.
    pub(super) fn work(&self) -> Result<bool> {
        let (did, hooks) = {
            let mut process = lock(&self.process);
            (process.work(&self.clock)?, Arc::clone(&process.app.database().inner.hooks))
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
        let environment = Arc::clone(clock) as Arc<dyn Environment>;
        let now = (environment, clock.elapsed_ms());
        let app = AppNode::open(name, Arc::new(disk.clone()), parties, &settings, now)?;
        Ok(Self { settings, disk, app })
    }

    fn work(&mut self, clock: &DeviceClock) -> Result<bool> {
        let (now, wall) = (clock.elapsed_ms(), clock.now_ms());
        self.app.with(|node| node.tell_written(now))?;
        let mut did = false;
        while self.app.step(now, wall)?.is_some() {
            did = true;
        }
        self.app.tell_unable()?;
        Ok(did)
    }
}

/// What is kept no longer goes.
pub(super) fn forget(store: &mut Store, now_ms: i64) -> std::result::Result<bool, StoreError> {
    let Keep { tombstones, history, .. } = Keep::default();
    purge::all(store, tombstones, history, now_ms)
}
