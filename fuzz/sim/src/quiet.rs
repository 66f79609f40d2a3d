//! The end of a run: faults stop, and everything has to come to rest.

use lastword::core::protocol::Role;
use lastword::core::protocol::replica::SyncStatus;
use lastword::node::AppNode;
use lastword::store::read;

use crate::fault::Violation;
use crate::reach::SYNC_PATHS;
use crate::world::{Done, World};

/// Quiet may take so many moves.
const QUIET_MOVES: u64 = 40_000;
/// So many moves lie between two looks at whether all is done.
const LOOK_EVERY: u64 = 16;
/// When all is done, so many moves may follow in a minute: heartbeats.
const REST_MS: u64 = 60_000;
const REST_MOVES: u64 = 400;

impl World {
    fn stop_faults(&mut self) -> Done {
        self.disk.set_fault(None);
        self.disk.set_room(None);
        (self.power, self.full) = (false, 0);
        self.net.heal();
        self.setting.delay_ms = 5;
        for at in 0..self.devices.len() {
            let device = &mut self.devices[at];
            device.disk.set_fault(None);
            device.disk.set_room(None);
            (device.power, device.full) = (false, 0);
            self.finish_device_job(at)?;
            self.devices[at].app_schema = 2;
            self.device_restart(at)?;
        }
        self.finish_own_job()?;
        (self.wanted.extra, self.wanted.min_app) = (true, 0);
        self.members.values_mut().for_each(|role| *role = Role::Editor);
        if self.setting.members != 0 {
            for workspace in self.workspaces.clone() {
                for user in 0..self.setting.users {
                    self.members.insert((workspace.clone(), format!("u{user}")), Role::Editor);
                }
            }
        }
        self.set_up()
    }

    /// Whoever stopped is started again, as its app would by and by.
    fn start_stopped(&mut self) -> Done {
        let now = self.now;
        for at in 0..self.devices.len() {
            let Some(app) = &mut self.devices[at].app else { continue };
            let mut stopped = Vec::new();
            for workspace in &self.workspaces {
                let status = app.with(|node| Ok(node.status(workspace).cloned()));
                if matches!(status, Ok(Some(SyncStatus::Stopped { .. }))) {
                    stopped.push(workspace.clone());
                }
            }
            for workspace in stopped {
                if let Err(error) = app.attach(&workspace, now) {
                    return self.device_failed(at, &error);
                }
            }
            self.link(at);
        }
        Ok(())
    }

    pub fn is_done(&self) -> bool {
        self.devices.iter().all(|device| {
            device.app.as_ref().is_none_or(|app| {
                self.workspaces.iter().all(|workspace| self.is_in_step(app, workspace))
            })
        })
    }

    fn is_in_step(&self, app: &AppNode, workspace: &lastword::core::id::WorkspaceName) -> bool {
        let head = self.oracle.workspaces.get(workspace).map_or(0, |folded| folded.head);
        let done = app.with(|node| {
            let view = node.view();
            let meta = read::meta(&*view, workspace)?;
            let waits = read::first_in_outbox(&*view, workspace, &meta)?.is_some();
            let live = matches!(node.status(workspace), Some(SyncStatus::Live { .. }));
            Ok(live && !waits && meta.cursor == head && !node.has_requests())
        });
        done.unwrap_or(false)
    }

    /// I28: faults stop and time runs until nothing is left to do.
    pub fn quiet(&mut self) -> Done {
        self.stop_faults()?;
        let mut done = false;
        for round in 0..QUIET_MOVES {
            if round % 256 == 255 {
                self.start_stopped()?;
            }
            if round % 1024 == 1023 {
                self.checkpoint()?;
                (0..self.devices.len()).try_for_each(|at| self.device_checkpoint(at))?;
            }
            if !self.any_move()? {
                self.start_stopped()?;
                self.pass(100);
            }
            if round % LOOK_EVERY == 0 && self.is_done() {
                done = true;
                self.reach.count("moves until all was quiet", round);
                break;
            }
        }
        if !done {
            // What is not right is told by what is looked at next.
            return Ok(());
        }
        self.files_at_rest()?;
        let (until, mut moves) = (self.now + REST_MS, 0);
        while self.now < until && self.any_move()? {
            moves += 1;
            if moves > REST_MOVES {
                return Err(Violation::new("I28", "the network does not go quiet"));
            }
        }
        Ok(())
    }

    /// How a device got in step again after faults, once it is.
    pub fn way_back(&mut self, at: usize) {
        let jobs = [&self.job, &self.devices[at].job];
        let names: Vec<&'static str> = jobs.into_iter().flatten().map(|job| job.name()).collect();
        let device = &mut self.devices[at];
        if device.faults.is_empty() {
            device.beside.clear();
            return;
        }
        device.beside.extend(names);
        let Some(app) = &device.app else { return };
        let workspaces = &self.workspaces;
        let state = app.with(|node| {
            let view = node.view();
            let identity = read::identity(&*view)?.map(|identity| identity.device);
            let (mut generations, mut waits, mut live) = (0, false, true);
            for workspace in workspaces {
                let meta = read::meta(&*view, workspace)?;
                generations += u64::from(meta.generation);
                waits |= meta.written > meta.decided;
                live &= matches!(node.status(workspace), Some(SyncStatus::Live { .. }));
            }
            Ok((identity, generations, waits, live))
        });
        let Ok((identity, generations, waits, live)) = state else { return };
        device.waited |= waits;
        if !live {
            return;
        }
        let known = device.known.replace((identity, generations));
        let path = match known {
            Some((before, _)) if before != identity => SYNC_PATHS[3],
            Some((_, before)) if before != generations => SYNC_PATHS[2],
            _ if device.waited => SYNC_PATHS[1],
            _ => SYNC_PATHS[0],
        };
        device.waited = false;
        let beside = std::mem::take(&mut device.beside);
        for fault in std::mem::take(&mut device.faults) {
            if beside.is_empty() {
                self.reach.cell(fault, "nothing", path);
            }
            for job in &beside {
                self.reach.cell(fault, job, path);
            }
        }
    }
}
