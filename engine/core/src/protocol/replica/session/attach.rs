//! How a workspace gets attached, and why it does not.

use alloc::string::String;
use alloc::vec::Vec;

use super::fork::not_written_here;
use super::{Link, ReplicaSession};
use crate::id::WorkspaceName;
use crate::plant::{Plant, planted};
use crate::protocol::FIRST_VERSION;
use crate::protocol::message::{Attach, AttachRefusal, Attached, Message, ResetReason};
use crate::protocol::replica::io::{Output, StopReason, SyncStatus, WorkspaceState};
use crate::protocol::replica::local::Phase;

/// A workspace that the server cannot serve now is asked for again after this, in milliseconds.
const ATTACH_RETRY_MS: u64 = 5_000;

impl ReplicaSession {
    /// Attaches a workspace if nothing is in the way.
    pub(super) fn attach(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get(workspace) else { return };
        let ready = self.link == Link::Open
            && local.phase == Phase::Idle
            && local.attach_at.is_none()
            && (!self.requests.contains_key(workspace) || planted(Plant::AttachWithRequests));
        if !ready {
            return;
        }
        if self.version == FIRST_VERSION && local.state.walk.is_some() {
            // It would not know that deletes may be missing here.
            let message = "the first copy was begun with a newer server, and this one cannot go \
                           on with it: update the server"
                .into();
            return self.stop_workspace(workspace, StopReason::Version, message);
        }
        self.last_attachment += 1;
        let attachment = self.last_attachment;
        let nonce = self.config.nonce;
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        local.attachment = attachment;
        local.phase = Phase::Attaching;
        let state = local.state.clone();
        // Pages go on from what is asked for here, also if more becomes durable meanwhile.
        if !planted(Plant::ExpectedKept) {
            local.expected = state.received_to;
        }
        local.began_at = state.received_to;
        (local.walk, local.walked) = (state.walk.clone(), 0);
        self.send(&Message::Attach(Attach {
            attachment,
            workspace: workspace.clone(),
            epoch: state.epoch,
            cursor: state.cursor,
            received_to: state.received_to,
            horizon: state.horizon,
            cover: state.cover,
            nonce,
            decided: state.decided,
            walk: state.walk,
            scope: Vec::new(),
        }));
    }

    pub(super) fn attached(&mut self, workspace: &WorkspaceName, attached: Attached) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if local.phase != Phase::Attaching {
            return;
        }
        let state = &local.state;
        let is_restored = attached.reset == Some(ResetReason::OtherHistory);
        let other_epoch = state.epoch.is_some_and(|epoch| epoch != attached.epoch);
        // A server that was restored goes on above every seq that it ever gave, under a new epoch,
        // and says so. One that knows less under the same epoch would give seqs twice.
        let walked_from = state.walk.as_ref().map_or(0, |place| place.base);
        let unexplained = state.received_to.max(state.shown_to).max(walked_from) > attached.head
            || (other_epoch && !is_restored)
            || (!is_restored && state.decided > attached.last_counter);
        if unexplained && !planted(Plant::OtherHistoryBelieved) {
            let message = alloc::format!(
                "the server has another history of workspace {workspace} than this device and was \
                 not restored from a backup of it (was it made anew?); everything here is kept; \
                 sync this workspace into a new --data directory to go on"
            );
            return self.give_up(workspace, StopReason::EpochChanged, message);
        }
        if attached.last_counter > state.written {
            let why = not_written_here(attached.last_counter);
            return self.forked(workspace, &why);
        }
        local.goal = attached.head;
        if is_restored && !planted(Plant::SurvivorsNotOffered) {
            return self.offer(workspace, attached);
        }
        self.store_attached(workspace, attached);
    }

    pub(super) fn store_attached(&mut self, workspace: &WorkspaceName, attached: Attached) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if attached.reset.is_some() {
            (local.expected, local.began_at) = (0, 0);
            (local.state.received_to, local.state.cursor) = (0, 0);
            (local.walk, local.state.walk) = (None, None);
        }
        local.phase = Phase::Storing;
        let store = Output::StoreAttached { workspace: workspace.clone(), attached };
        self.request(workspace, store);
    }

    pub(super) fn attach_stored(&mut self, workspace: &WorkspaceName, state: WorkspaceState) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        let decided = state.decided;
        // A write may have been told of since the store answered, so its counter never falls.
        local.state = WorkspaceState { written: local.state.written.max(state.written), ..state };
        if local.phase == Phase::Storing {
            local.phase = Phase::Open;
            if !planted(Plant::PushedKept) {
                local.pushed = decided;
            }
            local.handed = decided;
            for store in core::mem::take(&mut local.early) {
                self.request(workspace, store);
            }
        }
        self.progress(workspace);
        self.pump(workspace);
    }

    pub(super) fn refused(
        &mut self,
        now_ms: u64,
        workspace: &WorkspaceName,
        code: AttachRefusal,
        message: String,
    ) {
        let why = match code {
            AttachRefusal::Forbidden => StopReason::Forbidden,
            AttachRefusal::Fenced => StopReason::Fenced,
            AttachRefusal::DeviceForked => return self.forked(workspace, &message),
            AttachRefusal::AppTooOld => StopReason::AppTooOld,
            AttachRefusal::WorkspaceDeleted => StopReason::WorkspaceDeleted,
            AttachRefusal::RoleChanged => {
                self.reset(workspace);
                return self.attach(workspace);
            }
            // The other workspaces of the connection go on.
            AttachRefusal::TooMany | AttachRefusal::Unavailable => {
                let retry_at_ms = now_ms + self.backoff.spread(ATTACH_RETRY_MS);
                self.reset(workspace);
                if let Some(local) = self.workspaces.get_mut(workspace) {
                    local.attach_at = Some(retry_at_ms);
                }
                let status = SyncStatus::Offline { why: message, retry_at_ms };
                return self.set_status(workspace, status);
            }
        };
        self.stop_workspace(workspace, why, message);
    }

    /// What the authority offers is of no use here: it need not serve it.
    pub(super) fn give_up(&mut self, workspace: &WorkspaceName, why: StopReason, message: String) {
        if let Some(local) = self.workspaces.get(workspace) {
            self.send(&Message::Detach { attachment: local.attachment });
        }
        self.stop_workspace(workspace, why, message);
    }
}
