//! What a restored authority has lost is offered to it, before anything here makes way for its
//! history: until all of it is durable there, this store says of itself what it did before. So a
//! break at any point begins the offer again, and what came twice is kept once.

use alloc::vec::Vec;

use super::ReplicaSession;
use crate::id::{Key, TableName, WorkspaceName};
use crate::protocol::entry::Entry;
use crate::protocol::message::{Attached, Message, Survivors};
use crate::protocol::replica::io::Output;
use crate::protocol::replica::local::Phase;

impl ReplicaSession {
    pub(super) fn offer(&mut self, workspace: &WorkspaceName, attached: Attached) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        local.phase = Phase::Offering;
        local.attached = Some(attached);
        local.offered_to = None;
        self.read_survivors(workspace);
    }

    fn read_survivors(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get(workspace) else { return };
        let Some(attached) = &local.attached else { return };
        let (lineage, after) = (attached.lineage.clone(), local.offered_to.clone());
        let workspace = workspace.clone();
        let read = Output::ReadSurvivors { workspace: workspace.clone(), lineage, after };
        self.request(&workspace, read);
    }

    pub(super) fn survivors(
        &mut self,
        workspace: &WorkspaceName,
        entries: Vec<Entry>,
        next: Option<(TableName, Key)>,
    ) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if local.phase != Phase::Offering {
            return;
        }
        let (attachment, is_last) = (local.attachment, next.is_none());
        local.offered_to = next;
        self.send(&Message::Survivors(Survivors { attachment, entries, is_last }));
    }

    /// The authority has what was offered last.
    pub(super) fn survivors_stored(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if local.phase != Phase::Offering {
            return;
        }
        match (&local.offered_to, local.attached.take()) {
            (None, Some(attached)) => self.store_attached(workspace, attached),
            (_, attached) => {
                local.attached = attached;
                self.read_survivors(workspace);
            }
        }
    }
}
