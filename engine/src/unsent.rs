//! The batches that no session was handed yet, so that a later write may take them in.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lastword_core::id::{BatchId, WorkspaceName};
use lastword_store::keys::OutboxEntry;

/// Per workspace, the newest batch of this process that may be taken in. Whoever reads the outbox
/// to send it and whoever squashes hold the lock meanwhile: a batch must not be on its way while
/// another takes its place. What an earlier process wrote counts as sent.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    newest: Mutex<Newest>,
}

/// What [`Unsent`] guards.
#[derive(Debug, Default)]
pub(crate) struct Newest(BTreeMap<WorkspaceName, (u64, BatchId)>);

impl Unsent {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Newest {
    /// Counter and id of the newest batch, if it was not handed to a session.
    pub(crate) fn of(&self, workspace: &WorkspaceName) -> Option<(u64, BatchId)> {
        self.0.get(workspace).copied()
    }

    pub(crate) fn set(&mut self, workspace: &WorkspaceName, counter: u64, batch_id: BatchId) {
        self.0.insert(workspace.clone(), (counter, batch_id));
    }

    /// Marks what is read of an outbox as handed, and leaves out what another batch has taken in
    /// meanwhile: that one shows as soon as it is durable.
    pub(crate) fn hand(&mut self, workspace: &WorkspaceName, read: &mut Vec<(u64, OutboxEntry)>) {
        let Some((counter, batch_id)) = self.of(workspace) else { return };
        if read.iter().any(|(_, entry)| entry.batch_id == batch_id) {
            self.0.remove(workspace);
        } else {
            read.retain(|(at, _)| *at < counter);
        }
    }
}
