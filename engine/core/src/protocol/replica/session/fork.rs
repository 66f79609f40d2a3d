//! Two stores use one device id: this one goes on under a new one.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Link, ReplicaSession};
use crate::id::{DeviceId, WorkspaceName};
use crate::protocol::replica::io::{Output, StopReason, SyncStatus, WorkspaceState};
use crate::protocol::replica::local::{Local, Phase};

/// So often the store becomes another device without a decision in between: if that does not help,
/// it is not a copy that is in the way.
const MAX_FORKS: u32 = 3;

/// Why a store is taken for one of two: the authority knows a batch that it did not write.
pub(super) fn not_written_here(counter: u64) -> String {
    alloc::format!("the server has decided batch {counter} of it, which was not written here")
}

impl ReplicaSession {
    /// The device id is in use elsewhere, by a copy of this store or by what it is a copy of.
    pub(super) fn forked(&mut self, workspace: &WorkspaceName, why: &str) {
        if self.forking {
            return;
        }
        if self.forks == MAX_FORKS {
            let message = alloc::format!(
                "this directory and a copy of it both write as device {}: {why}; it went on under \
                 {MAX_FORKS} new ids, and none helped; unsent changes are kept; sync this \
                 workspace into a new --data directory to go on",
                self.config.device
            );
            return self.give_up(workspace, StopReason::DeviceForked, message);
        }
        self.forks += 1;
        self.forking = true;
        self.close(1000, "going on as another device");
        self.link = Link::Off;
        self.open_since = None;
        for workspace in self.active() {
            self.reset(&workspace);
            self.set_status(&workspace, SyncStatus::Connecting);
        }
        self.out(Output::StoreFork);
    }

    pub(super) fn fork_stored(
        &mut self,
        device: DeviceId,
        states: Vec<(WorkspaceName, WorkspaceState)>,
    ) {
        self.forking = false;
        self.config.device = device;
        for (workspace, state) in states {
            if let Some(local) = self.workspaces.get_mut(&workspace)
                && local.phase != Phase::Stopped
            {
                *local = Local { status: local.status.clone(), ..Local::new(state) };
            }
        }
        if self.wanted && self.link == Link::Off {
            self.connect();
        }
    }
}
