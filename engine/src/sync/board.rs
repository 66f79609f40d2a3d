//! The board: how each workspace stands, for whoever waits.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use lastword_core::id::WorkspaceName;
use lastword_core::protocol::replica::SyncStatus;

use crate::error::{Error, Result};
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
    state: Mutex<State>,
    changed: Condvar,
    wakers: Mutex<Vec<Waker>>,
}

#[derive(Debug, Default)]
struct State {
    workspaces: BTreeMap<WorkspaceName, Standing>,
    /// Why the driver has ended: nothing changes any more.
    ended: Option<Error>,
}

#[derive(Debug, Default)]
struct Standing {
    status: Option<SyncStatus>,
    counts: Counts,
}

impl State {
    fn status(&self, workspace: &WorkspaceName) -> SyncStatus {
        let standing = self.workspaces.get(workspace);
        standing.and_then(|standing| standing.status.clone()).unwrap_or(SyncStatus::Idle)
    }
}

impl Board {
    pub(super) fn status(&self, workspace: &WorkspaceName) -> SyncStatus {
        lock(&self.state).status(workspace)
    }

    pub(super) fn counts(&self, workspace: &WorkspaceName) -> Counts {
        let state = lock(&self.state);
        state.workspaces.get(workspace).map(|standing| standing.counts).unwrap_or_default()
    }

    pub(super) fn set(&self, workspace: &WorkspaceName, status: SyncStatus) {
        let mut state = lock(&self.state);
        state.workspaces.entry(workspace.clone()).or_default().status = Some(status);
        drop(state);
        self.wake();
    }

    pub(super) fn count(&self, workspace: &WorkspaceName, add: impl FnOnce(&mut Counts)) {
        add(&mut lock(&self.state).workspaces.entry(workspace.clone()).or_default().counts);
        self.wake();
    }

    /// The driver has ended; the first reason counts. Every workspace that was in sync shows
    /// `status`.
    pub(super) fn end(&self, error: Error, status: &SyncStatus) {
        let mut state = lock(&self.state);
        if state.ended.is_some() {
            return;
        }
        state.ended = Some(error);
        for standing in state.workspaces.values_mut() {
            if !matches!(standing.status, Some(SyncStatus::Stopped { .. })) {
                standing.status = Some(status.clone());
            }
        }
        drop(state);
        self.wake();
    }

    /// Something was published: those who wait look again.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Resolves once the workspace's status pleases; with an error once the driver has ended.
    pub(super) async fn until(
        &self,
        workspace: &WorkspaceName,
        mut pleased: impl FnMut(&SyncStatus) -> bool,
    ) -> Result<SyncStatus> {
        std::future::poll_fn(|context| {
            // Registered first: a change after the look wakes.
            let mut wakers = lock(&self.wakers);
            if !wakers.iter().any(|known| known.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            drop(wakers);
            let state = lock(&self.state);
            if let Some(error) = &state.ended {
                return Poll::Ready(Err(error.clone()));
            }
            let status = state.status(workspace);
            drop(state);
            if pleased(&status) { Poll::Ready(Ok(status)) } else { Poll::Pending }
        })
        .await
    }

    /// Waits until the workspace's status pleases; `None` if the time is over first, an error once
    /// the driver has ended.
    pub(super) fn wait(
        &self,
        workspace: &WorkspaceName,
        until: Option<Instant>,
        mut pleased: impl FnMut(&SyncStatus) -> bool,
    ) -> Result<Option<SyncStatus>> {
        // Waiters also look at the database, whose news come without this lock; a short turn
        // bounds what a missed wake-up costs.
        const TURN: Duration = Duration::from_millis(20);
        let mut state = lock(&self.state);
        loop {
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            let status = state.status(workspace);
            if pleased(&status) {
                return Ok(Some(status));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            let turn = left.map_or(TURN, |left| left.min(TURN));
            let waited = self.changed.wait_timeout(state, turn);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
