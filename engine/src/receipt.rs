//! Receipts: what the server decided about the writes of this process.
//!
//! A verdict leaves the state once the stream has shown its batch, so whoever holds a receipt gets
//! it handed over here, after the step that made it durable on this device.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use lastword_core::id::{BatchId, Key, TableName, WorkspaceName};
use lastword_core::row::Row;
use lastword_core::stamp::Decision;

use crate::live::lock;

/// What is known of a written batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It touched local tables only, or nothing: there is nothing to wait for.
    Local,
    /// The server decided it, and this device has stored the verdict. A refused batch, and one
    /// that built on a refused batch, is a dead letter now.
    Decided(Decision),
}

/// Proof of a durable local write. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Receipt {
    held: Option<Arc<Held>>,
    written: Arc<Written>,
}

/// What a write did and what was there before, so that it can be undone.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) workspace: WorkspaceName,
    /// Position of its frame.
    pub(crate) position: u64,
    /// Each record, and its row before if there was one.
    pub(crate) before: Vec<((TableName, Key), Option<Row>)>,
}

/// The batches of this process whose receipts are held, each with its verdict once there is one.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<BatchId, Option<Decision>>,
    /// Held batches that another batch has taken in, by that one: its verdict is theirs.
    taken_in: BTreeMap<BatchId, Vec<BatchId>>,
    closed: bool,
    wakers: Vec<Waker>,
}

/// Keeps a place for the verdict for as long as somebody may ask for it.
#[derive(Debug)]
pub(crate) struct Held {
    receipts: Arc<Receipts>,
    batch_id: BatchId,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.receipts.state).held.remove(&self.batch_id);
    }
}

impl Receipts {
    /// Keeps a place for the verdict on `batch_id`; to be called before the batch is appended,
    /// since its verdict may come at any time after.
    pub(crate) fn hold(self: &Arc<Self>, batch_id: BatchId) -> Held {
        lock(&self.state).held.insert(batch_id, None);
        Held { receipts: Arc::clone(self), batch_id }
    }

    /// The batch `replaced` is part of `by` from here on; to be called before a verdict on that one
    /// can come.
    pub(crate) fn taken_in(&self, replaced: BatchId, by: BatchId) {
        let mut state = lock(&self.state);
        let mut taken = state.taken_in.remove(&replaced).unwrap_or_default();
        taken.push(replaced);
        // Now and then: the next write may be the thousandth of them.
        if taken.len().is_power_of_two() {
            taken.retain(|batch_id| state.held.contains_key(batch_id));
        }
        if !taken.is_empty() {
            state.taken_in.insert(by, taken);
        }
    }

    /// Hands durable verdicts to those who hold a receipt.
    pub(crate) fn settle(&self, decided: Vec<(BatchId, Decision)>) {
        let mut state = lock(&self.state);
        for (batch_id, decision) in decided {
            let taken_in = state.taken_in.remove(&batch_id).unwrap_or_default();
            for batch_id in taken_in.into_iter().chain([batch_id]) {
                if let Some(verdict) = state.held.get_mut(&batch_id) {
                    *verdict = Some(decision.clone());
                }
            }
        }
        self.wake(state);
    }

    /// No verdict will come any more.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.wake(state);
    }

    fn wake(&self, mut state: std::sync::MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_all();
    }
}

impl State {
    fn verdict(&self, batch_id: BatchId) -> Option<Settled> {
        self.held.get(&batch_id)?.clone().map(Settled::Decided)
    }
}

impl Receipt {
    /// The receipt of a write that has nothing to sync.
    pub(crate) fn local(written: Written) -> Self {
        Self { held: None, written: Arc::new(written) }
    }

    pub(crate) fn synced(held: Held, written: Written) -> Self {
        Self { held: Some(Arc::new(held)), written: Arc::new(written) }
    }

    pub(crate) fn written(&self) -> &Written {
        &self.written
    }

    /// True if the write has something to sync.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.held.is_some()
    }

    /// The batch as it was written, if the write has something to sync. Another one may have taken
    /// it in since: see [`crate::WriteOptions::squash`].
    #[must_use]
    pub fn batch_id(&self) -> Option<BatchId> {
        self.held.as_ref().map(|held| held.batch_id)
    }

    /// The verdict if this device has it durably; `None` while the batch waits.
    #[must_use]
    pub fn verdict(&self) -> Option<Settled> {
        match &self.held {
            None => Some(Settled::Local),
            Some(held) => lock(&held.receipts.state).verdict(held.batch_id),
        }
    }

    /// Waits until the verdict is durable on this device; `None` if `timeout` is over or the
    /// database was closed first.
    #[must_use]
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Settled> {
        let Some(held) = &self.held else { return Some(Settled::Local) };
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let receipts = &held.receipts;
        let mut state = lock(&receipts.state);
        loop {
            let verdict = state.verdict(held.batch_id);
            if verdict.is_some() || state.closed {
                return verdict;
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    let waited = receipts.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => receipts.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Resolves once the verdict is durable on this device, refusals too; `None` if the database
    /// was closed first.
    pub async fn settled(&self) -> Option<Settled> {
        let Some(held) = &self.held else { return Some(Settled::Local) };
        std::future::poll_fn(|context| {
            let mut state = lock(&held.receipts.state);
            let verdict = state.verdict(held.batch_id);
            if verdict.is_some() || state.closed {
                return Poll::Ready(verdict);
            }
            if !state.wakers.iter().any(|known| known.will_wake(context.waker())) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
