//! A device's party with the database that its app has open: what the app does here it does through
//! the same calls as on a machine of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use lastword_core::id::{BatchId, WorkspaceName};
use lastword_core::op::Batch;
use lastword_core::protocol::replica::{Input, Output};
use lastword_core::stamp::Decision;
use lastword_store::{Disk, Store, StoreError, View, read};

use super::{DeviceNode, DeviceSettings};
use crate::database::{Builder, Database, Running};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::hooks::HookQueue;
use crate::live::{Watchers, lock};
use crate::lost;
use crate::open::OpenedStore;
use crate::queue::Job;
use crate::raise::{self, Unable};
use crate::replicator;
use crate::upkeep::{Keep, UpkeepSettings};
use crate::writer::{InPlace, Writer};

/// A [`DeviceNode`] lent to a [`Database`].
pub struct AppNode {
    hosted: Arc<Hosted>,
    db: Database,
    unable: Unable,
    /// Workspaces that are kept in step.
    attached: BTreeSet<WorkspaceName>,
}

impl AppNode {
    /// Opens or creates the store on `disk` as an app with these settings does; `name` stands for
    /// its directory. What they say of history and of damage has no effect here. Time and ids of
    /// the app come from `environment`.
    ///
    /// # Errors
    /// As [`DeviceNode::open`] and [`Builder::open`].
    pub fn open(
        name: &str,
        disk: Arc<dyn Disk>,
        settings: DeviceSettings,
        app: &Builder,
        (environment, now_ms): (Arc<dyn Environment>, u64),
    ) -> Result<Self> {
        let declared = (app.declared()?, app.app_schema());
        let (mut node, report) =
            DeviceNode::open_declared(disk, settings, declared, environment.now_ms())?;
        node.input(now_ms, Input::Start);
        let (view, views) = (node.view(), node.store().view_handle());
        let (declared, unsent) = (Arc::clone(node.declared()), Arc::clone(node.unsent()));
        let identity = read::identity(&*view)?.ok_or(Error::Closed)?;
        // Nothing runs beside the writes.
        let upkeep = UpkeepSettings { delta_cap_bytes: 0, keep: Keep::default() };
        let blobs = Arc::downgrade(node.store().blobs());
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
            unsent,
            environment,
        };
        let db = app.database(running);
        let (unable, attached) = Default::default();
        Ok(Self { hosted, db, unable, attached })
    }

    /// The database that the app has open.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// Workspaces that are kept in step.
    #[must_use]
    pub fn attached(&self) -> &BTreeSet<WorkspaceName> {
        &self.attached
    }

    /// Keeps a workspace in step from now on.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn attach(&mut self, name: &WorkspaceName, now_ms: u64) -> Result<()> {
        self.hosted.with(|node| node.attach(name, now_ms))?;
        self.attached.insert(name.clone());
        // What an earlier run of the app received and did not tell.
        lost::look(&self.db, name);
        Ok(())
    }

    /// What is done with the party itself.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database was closed, and those of `work`.
    pub fn with<T>(&self, work: impl FnOnce(&mut DeviceNode) -> Result<T>) -> Result<T> {
        self.hosted.with(work)
    }

    /// Tells readers of the database that its store holds something new.
    pub fn published(&self, view: &Arc<View>) {
        self.db.inner.watchers.published(view);
    }

    /// Its store does the next thing that its session wants, and the app is told; the
    /// decisions that are durable here since, none if there was nothing to do. A checkpoint that is
    /// due is made.
    ///
    /// # Errors
    /// As [`DeviceNode::step`].
    pub fn step(&self, now_ms: u64, wall_ms: i64) -> Result<Option<Settled>> {
        let Some(asked) = self.hosted.with(asked)? else { return Ok(None) };
        if let Asked::Outbox(workspace, batches) = &asked {
            raise::pushing(&self.db.inner.hooks, workspace, batches);
        }
        let (settled, view) = self.hosted.with(|node| {
            node.step(now_ms, wall_ms)?;
            make_room(node.store())?;
            Ok((node.take_settled(), node.view()))
        })?;
        self.published(&view);
        self.tell(asked, settled.clone(), &view)?;
        Ok(Some(settled))
    }

    /// Tells the hooks of the app which workspaces cannot sync now.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database was closed.
    pub fn tell_unable(&mut self) -> Result<()> {
        for name in &self.attached {
            let status = self.hosted.with(|node| Ok(node.status(name).cloned()))?;
            if let Some(status) = status {
                self.unable.tell(&self.db.inner.hooks, name, &status);
            }
        }
        Ok(())
    }

    /// The process ends here and now: nothing more is written, and handles of the database answer
    /// [`Error::Closed`].
    pub fn kill(&self) {
        lock(&self.hosted.node).take();
    }

    /// What a step made durable is told to receipts and hooks.
    fn tell(&self, asked: Asked, settled: Settled, view: &View) -> Result<()> {
        let hooks = &self.db.inner.hooks;
        match asked {
            Asked::Page(workspace, rows) => {
                let meta = read::meta(view, &workspace)?;
                raise::pulled(hooks, &workspace, rows, (meta.received_to, meta.cursor));
                if raise::is_consistent((meta.received_to, meta.cursor)) {
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

/// Batches and what was decided about them.
type Settled = Vec<(BatchId, Decision)>;

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
            let (log, unsent) = (node.store().view_handle(), Arc::clone(node.unsent()));
            let batches = replicator::read_outbox(&log, &unsent, &workspace, after, max)?;
            Asked::Outbox(workspace, batches)
        }
        Output::StoreChanges { workspace, page } => {
            Asked::Page(workspace.clone(), page.entries.len() as u64)
        }
        Output::StoreWalk { workspace, page } => {
            Asked::Page(workspace.clone(), page.entries.len() as u64)
        }
        Output::StoreAttached { workspace, .. } | Output::StoreDecisions { workspace, .. } => {
            Asked::Decisions(workspace.clone())
        }
        _ => Asked::Other,
    }))
}

/// What a thread does beside the writes of an app is done between them here.
pub(crate) fn make_room(store: &mut Store) -> std::result::Result<(), StoreError> {
    if store.wants_checkpoint() { store.checkpoint() } else { Ok(()) }
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
