//! Live reads: who is waiting for a workspace to change.
//!
//! A watcher is woken after a group was published and evaluates its query on the new view, so it
//! never sees half a batch; groups that come while it works are seen together at its next turn.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lastword_store::View;

/// The newest published position, and those who wait for a later one.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    state: Mutex<Published>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Published {
    position: u64,
    closed: bool,
    wakers: Vec<std::task::Waker>,
}

impl Watchers {
    pub(crate) fn published(&self, view: &Arc<View>) {
        let mut state = lock(&self.state);
        state.position = view.position();
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.changed.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Waits until something after `seen` is published; false if the database was closed or the
    /// time is over.
    pub(crate) fn wait_after(&self, seen: u64, timeout: Option<Duration>) -> bool {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = lock(&self.state);
        while state.position <= seen && !state.closed {
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.position > seen
    }

    /// Ready once something after `seen` is published or the database is closed.
    pub(crate) fn poll_after(&self, seen: u64, waker: &std::task::Waker) -> bool {
        let mut state = lock(&self.state);
        if state.position > seen || state.closed {
            return true;
        }
        if !state.wakers.iter().any(|known| known.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
        false
    }
}

/// Locks a mutex whose holders never panic half way through a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
