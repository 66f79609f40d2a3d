//! What waits for the writer: jobs in the order they came, and beside them what other threads bring
//! back to it.
//!
//! Jobs are bounded in number and bytes. Whoever brings one more waits, so that a writer held up by
//! a full delta or a slow disk slows its callers down and does not fill the memory. Work that has
//! ended is taken first: it may be what the writer waits for.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lastword_store::limits::{MAX_WAITING_BYTES, MAX_WAITING_JOBS};
use lastword_store::{Store, StoreError};

use crate::error::Error;
use crate::upkeep::Done;

/// Answers whoever asked, once the fate of the group is known.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Decides and appends on the newest state.
pub(crate) type Job = Box<dyn FnOnce(&mut Store) -> Answer + Send>;
/// Tells whoever closed the store how that went.
pub(crate) type Close = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// What the writer does next.
pub(crate) enum Message {
    Job(Job),
    Done(Box<Done>),
    /// Comes after every job.
    Close(Close),
}

/// The queue of one writer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Something came.
    came: Condvar,
    /// A job was taken.
    taken: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// With the bytes that each holds.
    jobs: VecDeque<(usize, Job)>,
    bytes: usize,
    done: VecDeque<Box<Done>>,
    close: Option<Close>,
    /// No job is taken in any more.
    closed: bool,
}

impl Queue {
    /// Adds a job that holds `bytes`; waits while too much is queued before it. One that is larger
    /// than the limit is taken once nothing else waits. Errors: [`Error::Closed`].
    pub(crate) fn job(&self, bytes: usize, job: Job) -> Result<(), Error> {
        let mut waiting = self.lock();
        while !waiting.closed && !waiting.has_room(bytes) {
            waiting = self.taken.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.closed {
            return Err(Error::Closed);
        }
        waiting.bytes += bytes;
        waiting.jobs.push_back((bytes, job));
        self.came.notify_one();
        Ok(())
    }

    /// Brings ended work back; never waits.
    pub(crate) fn done(&self, done: Done) {
        self.lock().done.push_back(Box::new(done));
        self.came.notify_one();
    }

    /// Takes no more jobs in; those that are queued come before `close`. Errors: [`Error::Closed`].
    pub(crate) fn close(&self, close: Close) -> Result<(), Error> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Error::Closed);
        }
        waiting.closed = true;
        waiting.close = Some(close);
        self.came.notify_one();
        self.taken.notify_all();
        Ok(())
    }

    /// Drops what waits; later calls answer [`Error::Closed`]. For the end of the writer.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        let left = std::mem::take(&mut *waiting);
        waiting.closed = true;
        self.taken.notify_all();
        // What a job holds may come back here when it goes.
        drop(waiting);
        drop(left);
    }

    /// The next message; `None` if nothing came for as long as `timeout`.
    pub(crate) fn next(&self, timeout: Duration) -> Option<Message> {
        self.wait(Some(timeout), Waiting::next)
    }

    /// The next message if one is there already.
    pub(crate) fn try_next(&self) -> Option<Message> {
        self.wait(Some(Duration::ZERO), Waiting::next)
    }

    /// The next ended work, whatever else waits; without `timeout` it waits until there is some.
    pub(crate) fn next_done(&self, timeout: Option<Duration>) -> Option<Box<Done>> {
        self.wait(timeout, |waiting| waiting.done.pop_front())
    }

    fn wait<T>(
        &self,
        timeout: Option<Duration>,
        take: impl Fn(&mut Waiting) -> Option<T>,
    ) -> Option<T> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let mut waiting = self.lock();
        loop {
            if let Some(taken) = take(&mut waiting) {
                self.taken.notify_all();
                return Some(taken);
            }
            waiting = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    let waited = self.came.wait_timeout(waiting, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn has_room(&self, bytes: usize) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= MAX_WAITING_BYTES;
        self.jobs.is_empty() || self.jobs.len() < MAX_WAITING_JOBS && fits
    }

    fn next(&mut self) -> Option<Message> {
        if let Some(done) = self.done.pop_front() {
            return Some(Message::Done(done));
        }
        match self.jobs.pop_front() {
            Some((bytes, job)) => {
                self.bytes -= bytes;
                Some(Message::Job(job))
            }
            None => self.close.take().map(Message::Close),
        }
    }
}
