//! Checkpoints, folds and rebuilds that run beside what else happens, and purges.

use lastword::Error;
use lastword::core::id::WorkspaceName;
use lastword::store::payload::Payload;
use lastword::store::purge::{Found, PurgeWalk, Retention};
use lastword::store::{
    CheckpointDone, CheckpointJob, FoldDone, FoldJob, History, RebuildDone, RebuildJob, Store,
    StoreError,
};

use crate::check;
use crate::fault::Violation;
use crate::world::{Done, World};

/// Work that a store has begun; it has not run yet, or has and is not taken in.
pub enum Job {
    Checkpoint(CheckpointJob),
    CheckpointDone(Box<CheckpointDone>),
    Fold(FoldJob),
    FoldDone(FoldDone),
    Rebuild(RebuildJob),
    RebuildDone(RebuildDone),
}

impl Job {
    /// Its column in the table of what was reached.
    pub fn name(&self) -> &'static str {
        match self {
            Job::Checkpoint(_) | Job::CheckpointDone(_) => "checkpoint",
            Job::Fold(_) | Job::FoldDone(_) => "fold",
            Job::Rebuild(_) | Job::RebuildDone(_) => "rebuild",
        }
    }

    fn run(self) -> Self {
        match self {
            Job::Checkpoint(job) => Job::CheckpointDone(Box::new(job.run())),
            Job::Fold(job) => Job::FoldDone(job.run()),
            Job::Rebuild(job) => Job::RebuildDone(job.run()),
            done => done,
        }
    }
}

fn begin(store: &mut Store, which: u64, wall: i64) -> Result<Option<Job>, StoreError> {
    Ok(match which {
        0 | 1 => store.begin_checkpoint()?.map(Job::Checkpoint),
        2 | 3 => {
            let history = History { now_ms: wall, keep_ms: 0, erased_before: 0 };
            store.begin_fold(&history)?.map(Job::Fold)
        }
        _ => store.begin_rebuild()?.map(Job::Rebuild),
    })
}

fn finish(store: &mut Store, job: Job) -> Result<(), StoreError> {
    match job.run() {
        Job::CheckpointDone(done) => store.finish_checkpoint(*done).map(drop),
        Job::FoldDone(done) => store.finish_fold(done),
        Job::RebuildDone(done) => store.finish_rebuild(done),
        _ => Ok(()),
    }
}

fn purge(
    store: &mut Store,
    workspace: &WorkspaceName,
    retention: &Retention,
) -> Result<bool, StoreError> {
    let mut walk = PurgeWalk::new(workspace.clone());
    let mut did = false;
    loop {
        match walk.next(store.newest(), retention)? {
            Found::Purge(purge) => {
                let payload = Payload::Purge(purge);
                store.append_urgent(payload.kind(), &payload.to_bytes())?;
                store.commit()?;
                did = true;
            }
            Found::More => {}
            Found::End => return Ok(did),
        }
    }
}

impl World {
    /// Work begins at a device or at the authority, or runs and is not taken in yet.
    pub fn begin_job(&mut self, at: usize) -> Result<bool, Violation> {
        let (which, runs) = (self.random.below(5), self.random.once_in(2));
        let ours = self.random.once_in(3);
        let wall = if ours { self.wall() } else { self.device_wall(at) };
        let begun = if ours {
            let Some(authority) = self.authority.as_mut().filter(|_| self.job.is_none()) else {
                return Ok(false);
            };
            begin(authority.store(), which, wall).map_err(Error::from)
        } else {
            let device = &self.devices[at];
            let Some(app) = device.app.as_ref().filter(|_| device.job.is_none()) else {
                return Ok(false);
            };
            app.with(|node| Ok(begin(node.store(), which, wall)?))
        };
        let job = match begun {
            Ok(None) => return Ok(false),
            Ok(Some(job)) if runs => {
                self.doing = job.name();
                job.run()
            }
            Ok(Some(job)) => job,
            Err(error) if ours => return self.authority_failed(&error).map(|()| false),
            Err(error) => return self.device_failed(at, &error).map(|()| false),
        };
        match ours {
            true => self.job = Some(job),
            false => self.devices[at].job = Some(job),
        }
        Ok(true)
    }

    /// What runs beside a device or, if nothing does, beside the authority ends.
    pub fn finish_job(&mut self, at: usize) -> Result<bool, Violation> {
        match self.devices[at].job.is_some() {
            true => self.finish_device_job(at),
            false => self.finish_own_job(),
        }
    }

    pub fn finish_device_job(&mut self, at: usize) -> Result<bool, Violation> {
        let Some(job) = self.devices[at].job.take() else { return Ok(false) };
        let Some(app) = &self.devices[at].app else { return Ok(false) };
        self.doing = job.name();
        let done = app.with(|node| Ok(finish(node.store(), job)?));
        if let Err(error) = done {
            return self.device_failed(at, &error).map(|()| false);
        }
        self.publish(at);
        check::device_as(self, at, "I27")?;
        Ok(true)
    }

    pub fn finish_own_job(&mut self) -> Result<bool, Violation> {
        let Some(job) = self.job.take() else { return Ok(false) };
        let Some(authority) = &mut self.authority else { return Ok(false) };
        self.doing = job.name();
        if let Err(error) = finish(authority.store(), job) {
            return self.authority_failed(&error.into()).map(|()| false);
        }
        check::authority(self, "I27")?;
        Ok(true)
    }

    /// A checkpoint of the authority that is due.
    pub fn checkpoint(&mut self) -> Done {
        self.doing = "checkpoint";
        let Some(authority) = &mut self.authority else { return Ok(()) };
        match authority.store().checkpoint() {
            Ok(()) => check::authority(self, "I27"),
            Err(error) => self.authority_failed(&error.into()),
        }
    }

    /// A checkpoint of a device.
    pub fn device_checkpoint(&mut self, at: usize) -> Done {
        self.doing = "checkpoint";
        let Some(app) = &self.devices[at].app else { return Ok(()) };
        match app.with(|node| Ok(node.store().checkpoint()?)) {
            Ok(()) => {
                self.publish(at);
                check::device_as(self, at, "I27")
            }
            Err(error) => self.device_failed(at, &error),
        }
    }

    pub fn publish(&self, at: usize) {
        if let Some(app) = &self.devices[at].app
            && let Ok(view) = app.with(|node| Ok(node.view()))
        {
            app.published(&view);
        }
    }

    /// Everybody forgets what is old.
    pub fn purge(&mut self) -> Result<bool, Violation> {
        let tombstones_ms = i64::try_from(self.setting.tombstones_ms).unwrap_or(i64::MAX);
        let (decisions_ms, stale) = (i64::MAX / 4, true);
        let mut did = false;
        for workspace in self.workspaces.clone() {
            let retention = Retention { now_ms: self.wall(), tombstones_ms, decisions_ms, stale };
            self.doing = "purge";
            if let Some(authority) = &mut self.authority {
                match purge(authority.store(), &workspace, &retention) {
                    Ok(purged) => did |= purged,
                    Err(error) => self.authority_failed(&error.into())?,
                }
            }
            check::log(self)?;
            for at in 0..self.devices.len() {
                let retention = Retention { now_ms: self.device_wall(at), ..retention };
                self.doing = "purge";
                let Some(app) = &self.devices[at].app else { continue };
                match app.with(|node| Ok(purge(node.store(), &workspace, &retention)?)) {
                    Ok(purged) => did |= purged,
                    Err(error) => self.device_failed(at, &error)?,
                }
                self.publish(at);
                if did {
                    self.devices[at].beside.insert("purge");
                }
            }
        }
        Ok(did)
    }
}
