//! The batches that no session was handed yet, so that a later write may take them in.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lastword_core::id::{BatchId, WorkspaceName};
use lastword_store::keys::OutboxEntry;

/// What of each workspace may be taken in, and what was. Whoever reads the outbox to send it and
/// whoever squashes hold the lock meanwhile: a batch must not be on its way while another takes its
/// place. What an earlier process wrote counts as sent.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    outboxes: Mutex<Outboxes>,
}

/// What [`Unsent`] guards.
#[derive(Debug, Default)]
pub(crate) struct Outboxes(BTreeMap<WorkspaceName, Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Counter and id of the newest batch, if it may be taken in and was not handed to a session.
    newest: Option<(u64, BatchId)>,
    /// Counter of each batch that another one took in, and the position of the frame that did it: a
    /// view that does not show the frame shows the batch.
    replaced: Vec<(u64, u64)>,
}

impl Unsent {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Outboxes> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outboxes {
    /// Counter and id of the newest batch, if it was not handed to a session.
    pub(crate) fn newest(&self, workspace: &WorkspaceName) -> Option<(u64, BatchId)> {
        self.0.get(workspace)?.newest
    }

    /// A batch that may be taken in was written; `replaced_at` is the position of its frame if it
    /// took in the one that had its counter.
    pub(crate) fn wrote(
        &mut self,
        workspace: &WorkspaceName,
        (counter, batch_id): (u64, BatchId),
        replaced_at: Option<u64>,
    ) {
        let waiting = self.0.entry(workspace.clone()).or_default();
        waiting.newest = Some((counter, batch_id));
        // Of one counter the last frame is the last to show.
        waiting.replaced.retain(|(replaced, _)| replaced_at.is_none() || *replaced != counter);
        waiting.replaced.extend(replaced_at.map(|position| (counter, position)));
    }

    /// Marks what is read of an outbox as handed. Leaves out what a frame has taken in that the
    /// view, which ends at `shown_to`, does not show, and all behind it: that is read once it does.
    pub(crate) fn hand(
        &mut self,
        workspace: &WorkspaceName,
        shown_to: u64,
        read: &mut Vec<(u64, OutboxEntry)>,
    ) {
        let Some(waiting) = self.0.get_mut(workspace) else { return };
        waiting.replaced.retain(|(_, position)| *position >= shown_to);
        if let Some(first) = waiting.replaced.iter().map(|(counter, _)| *counter).min() {
            read.retain(|(counter, _)| *counter < first);
        }
        let is_newest =
            |id: BatchId| read.iter().any(|(_, entry): &(u64, OutboxEntry)| entry.batch_id == id);
        if waiting.newest.is_some_and(|(_, batch_id)| is_newest(batch_id)) {
            waiting.newest = None;
        }
    }
}
