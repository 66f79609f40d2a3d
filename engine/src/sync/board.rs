//! The board: how each workspace stands, for whoever waits.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use lastword_core::id::WorkspaceName;
use lastword_core::protocol::replica::SyncStatus;

use crate::live::lock;

/// What was sent and received since the connection began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) sent_batches: u64,
    pub(super) applied: u64,
    pub(super) superseded: u64,
    pub(super) refused: u64,
    pub(super) received: u64,
}

#[derive(Debug, Default)]
pub(super) struct Board {
    workspaces: Mutex<BTreeMap<WorkspaceName, Standing>>,
    changed: Condvar,
    wakers: Mutex<Vec<Waker>>,
}

#[derive(Debug, Default)]
struct Standing {
    status: Option<SyncStatus>,
    counts: Counts,
}

impl Board {
    pub(super) fn status(&self, workspace: &WorkspaceName) -> SyncStatus {
        let workspaces = lock(&self.workspaces);
        let standing = workspaces.get(workspace);
        standing.and_then(|standing| standing.status.clone()).unwrap_or(SyncStatus::Idle)
    }

    pub(super) fn counts(&self, workspace: &WorkspaceName) -> Counts {
        lock(&self.workspaces).get(workspace).map(|standing| standing.counts).unwrap_or_default()
    }

    pub(super) fn set(&self, workspace: &WorkspaceName, status: SyncStatus) {
        lock(&self.workspaces).entry(workspace.clone()).or_default().status = Some(status);
        self.wake();
    }

    pub(super) fn count(&self, workspace: &WorkspaceName, add: impl FnOnce(&mut Counts)) {
        add(&mut lock(&self.workspaces).entry(workspace.clone()).or_default().counts);
        self.wake();
    }

    /// Something was published: those who wait look again.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Resolves once the workspace's status pleases.
    pub(super) async fn until(
        &self,
        workspace: &WorkspaceName,
        mut pleased: impl FnMut(&SyncStatus) -> bool,
    ) -> SyncStatus {
        std::future::poll_fn(|context| {
            // Registered first: a change after the look wakes.
            let mut wakers = lock(&self.wakers);
            if !wakers.iter().any(|known| known.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            drop(wakers);
            let status = self.status(workspace);
            if pleased(&status) { Poll::Ready(status) } else { Poll::Pending }
        })
        .await
    }

    pub(super) fn wait(
        &self,
        workspace: &WorkspaceName,
        until: Option<Instant>,
        mut pleased: impl FnMut(&SyncStatus) -> bool,
    ) -> Option<SyncStatus> {
        // Waiters also look at the database, whose news come without this lock; a short turn
        // bounds what a missed wake-up costs.
        const TURN: Duration = Duration::from_millis(20);
        let mut workspaces = lock(&self.workspaces);
        loop {
            let standing = workspaces.get(workspace);
            let status =
                standing.and_then(|standing| standing.status.clone()).unwrap_or(SyncStatus::Idle);
            if pleased(&status) {
                return Some(status);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            let turn = left.map_or(TURN, |left| left.min(TURN));
            let waited = self.changed.wait_timeout(workspaces, turn);
            workspaces = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
