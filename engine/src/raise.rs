//! What sync tells the hooks of an app, whoever drives its session.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastword_core::id::{BatchId, WorkspaceName};
use lastword_core::op::Batch;
use lastword_core::protocol::replica::SyncStatus;
use lastword_core::stamp::Decision;

use crate::hook::{self, Failed, Pulled, Pushed, Pushing};
use crate::hooks::HookQueue;

/// Batches are about to be sent.
pub(crate) fn pushing(hooks: &Arc<HookQueue>, workspace: &WorkspaceName, batches: &[Batch]) {
    for batch in batches {
        let event = || Pushing { workspace: workspace.clone(), batch: Arc::new(batch.clone()) };
        hooks.raise(hook::SYNC_PUSH_BEFORE, event);
    }
}

/// Verdicts are durable on this device.
pub(crate) fn pushed(
    hooks: &Arc<HookQueue>,
    workspace: &WorkspaceName,
    settled: &[(BatchId, Decision)],
) {
    for (batch_id, decision) in settled {
        hooks.raise(hook::SYNC_PUSH_AFTER, || Pushed {
            workspace: workspace.clone(),
            batch_id: *batch_id,
            decision: decision.clone(),
        });
    }
}

/// A page of so many rows is durable on this device.
pub(crate) fn pulled(
    hooks: &Arc<HookQueue>,
    workspace: &WorkspaceName,
    rows: u64,
    (received_to, cursor): (u64, u64),
) {
    hooks.raise(hook::SYNC_PULL_AFTER, || Pulled {
        workspace: workspace.clone(),
        rows,
        cursor,
        is_consistent: is_consistent((received_to, cursor)),
    });
}

/// Whether a copy that has received up to one seq is consistent at another; a walk under way has
/// received up to none.
pub(crate) fn is_consistent((received_to, cursor): (u64, u64)) -> bool {
    received_to == cursor && cursor > 0
}

/// Why workspaces cannot sync: hooks hear of each reason once, until the workspace can.
#[derive(Debug, Default)]
pub(crate) struct Unable {
    told: BTreeMap<WorkspaceName, String>,
}

impl Unable {
    /// A workspace stands like that now.
    pub(crate) fn tell(
        &mut self,
        hooks: &Arc<HookQueue>,
        workspace: &WorkspaceName,
        status: &SyncStatus,
    ) {
        let why = match status {
            SyncStatus::Offline { why, .. } => format!("server not reachable ({why})"),
            SyncStatus::Held { why, .. } => format!("the server takes no writes: {why}"),
            SyncStatus::Stopped { message, .. } => message.clone(),
            SyncStatus::Connecting => return,
            _ => {
                self.told.remove(workspace);
                return;
            }
        };
        if self.told.get(workspace) != Some(&why) {
            let event = || Failed { workspace: Some(workspace.clone()), message: why.clone() };
            hooks.raise(hook::SYNC_ERROR, event);
            self.told.insert(workspace.clone(), why);
        }
    }
}
