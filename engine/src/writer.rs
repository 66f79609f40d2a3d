//! The writer: one thread that owns the store and does everything that changes it.
//!
//! Jobs queue while a sync runs; when it ends, the next ones are taken together, appended, written
//! and synced once (group commit without election). A job decides on the newest state; whoever
//! asked is answered only after the sync, so nothing leaves the process before it is durable.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use lastword_store::payload::{Payload, Sums};
use lastword_store::{CheckpointDone, Store, StoreError, View, ViewHandle, keys, read};

use crate::error::Error;

/// Most jobs that wait for the writer; callers block beyond it.
const MAX_QUEUED_JOBS: usize = 4096;
/// Most jobs in one group.
const MAX_GROUP_JOBS: usize = 4096;
/// Bytes of frames after which a group is closed.
const MAX_GROUP_BYTES: u64 = 4 * 1024 * 1024;
/// A store that is idle this long is checkpointed.
const IDLE: Duration = Duration::from_secs(30);

/// Answers whoever asked, once the fate of the group is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Decides and appends on the newest state.
type Job = Box<dyn FnOnce(&mut Store) -> Answer + Send>;

enum Message {
    Job(Job),
    Checkpointed(Box<CheckpointDone>),
    Close(Answer),
}

/// Called after every group that was published, with the view that shows it.
pub(crate) type OnPublish = Box<dyn Fn(&Arc<View>) + Send>;

/// Handle of the writer thread.
pub(crate) struct Writer {
    queue: SyncSender<Message>,
    views: ViewHandle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(
        store: Store,
        delta_cap_bytes: usize,
        name: &str,
        on_publish: OnPublish,
    ) -> Result<Self, Error> {
        let views = store.view_handle();
        let (queue, jobs) = sync_channel(MAX_QUEUED_JOBS);
        let back = queue.clone();
        let waiting = VecDeque::new();
        let checkpointing = false;
        let thread = std::thread::Builder::new()
            .name(format!("lastword {name}"))
            .spawn(move || {
                WriterLoop {
                    store,
                    jobs,
                    back,
                    on_publish,
                    checkpointing,
                    delta_cap_bytes,
                    waiting,
                }
                .run();
            })
            .map_err(|source| Error::Thread { reason: source.to_string() })?;
        Ok(Self { queue, views, thread: Mutex::new(Some(thread)) })
    }

    /// The last published view.
    pub(crate) fn view(&self) -> Arc<View> {
        self.views.view()
    }

    /// Where frames of the history are read from.
    pub(crate) fn views(&self) -> &ViewHandle {
        &self.views
    }

    /// Queues a job; `done` gets its result after the sync, on the writer thread.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
        done: impl FnOnce(Result<T, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let job: Job = Box::new(move |store| {
            let result = job(store);
            Box::new(move |synced| done(result.and_then(|value| Ok(synced.map(|()| value)?))))
        });
        self.queue.send(Message::Job(job)).map_err(|_| Error::Closed)
    }

    /// Runs a job and waits until its group is durable.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = sync_channel(1);
        self.submit(job, move |result| {
            // The caller waits below, so the channel is open.
            let _ = answer.send(result);
        })?;
        answered.recv().unwrap_or(Err(Error::Closed))
    }

    /// Finishes what is queued, closes the store cleanly and ends the thread.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        let (answer, answered) = sync_channel(1);
        let close = Message::Close(Box::new(move |result| {
            let _ = answer.send(result);
        }));
        let closed = match self.queue.send(close) {
            Ok(()) => answered.recv().map_err(|_| Error::Closed)?.map_err(Error::from),
            Err(_) => Err(Error::Closed),
        };
        match thread.join() {
            Ok(()) => closed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

struct WriterLoop {
    store: Store,
    jobs: Receiver<Message>,
    back: SyncSender<Message>,
    on_publish: OnPublish,
    checkpointing: bool,
    delta_cap_bytes: usize,
    /// Messages that came while the writer waited for a checkpoint, at most a queue full.
    waiting: VecDeque<Message>,
}

impl WriterLoop {
    fn run(mut self) {
        loop {
            let next = match self.waiting.pop_front() {
                Some(message) => Ok(message),
                None => self.jobs.recv_timeout(IDLE),
            };
            match next {
                Ok(Message::Job(job)) => {
                    if let Some(close) = self.group(job) {
                        return close(self.store.close());
                    }
                    if self.store.wants_checkpoint() {
                        self.checkpoint();
                    }
                    self.make_room();
                }
                Ok(Message::Checkpointed(done)) => self.checkpointed(*done),
                Ok(Message::Close(close)) => return close(self.store.close()),
                Err(RecvTimeoutError::Timeout) => self.checkpoint(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One group: everything that is queued, up to the caps, then one sync.
    fn group(&mut self, first: Job) -> Option<Answer> {
        let start = self.store.next_position();
        let mut answers = vec![first(&mut self.store)];
        let (mut close, mut drained) = (None, false);
        while answers.len() < MAX_GROUP_JOBS && self.store.next_position() - start < MAX_GROUP_BYTES
        {
            match self.jobs.try_recv() {
                Ok(Message::Job(job)) => answers.push(job(&mut self.store)),
                Ok(Message::Checkpointed(done)) => self.checkpointed(*done),
                Ok(Message::Close(answer)) => {
                    close = Some(answer);
                    break;
                }
                Err(_) => {
                    drained = true;
                    break;
                }
            }
        }
        let changed = self.store.next_position() != start;
        let committed = if changed { self.store.commit().map(|_| ()) } else { Ok(()) };
        let published = changed && committed.is_ok();
        for answer in answers {
            answer(committed.clone());
        }
        if published {
            (self.on_publish)(&self.store.view());
            if drained && let Err(error) = self.store.prove() {
                tracing::error!(%error, "the log refused a proof frame");
            }
        }
        close
    }

    /// Writes the delta to redb on a thread of its own; the writer goes on meanwhile.
    fn checkpoint(&mut self) {
        if self.checkpointing {
            return;
        }
        let job = match self.append_sums().and_then(|()| self.store.begin_checkpoint()) {
            Ok(Some(job)) => job,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "no checkpoint can begin");
                return;
            }
        };
        let back = self.back.clone();
        let spawned =
            std::thread::Builder::new().name("lastword checkpoint".into()).spawn(move || {
                // A closed queue means that the store is being closed, which checkpoints itself.
                let _ = back.send(Message::Checkpointed(Box::new(job.run())));
            });
        self.checkpointing = spawned.is_ok();
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a checkpoint; the next one tries again");
        }
    }

    /// States row counts and digest sums in the log, so that a rebuild can prove itself.
    fn append_sums(&mut self) -> Result<(), StoreError> {
        let workspaces = read::workspaces(self.store.newest())?;
        if workspaces.is_empty() || self.store.delta_bytes() == 0 {
            return Ok(());
        }
        let sum = |(name, meta): (_, keys::WorkspaceMeta)| (name, meta.rows, meta.digest.0);
        let sums = Sums { workspaces: workspaces.into_iter().map(sum).collect() };
        let payload = Payload::Sums(sums);
        self.store.append(payload.kind(), &payload.to_bytes())?;
        self.store.commit().map(|_| ())
    }

    /// A full delta waits for the running checkpoint, so memory stays within its cap.
    fn make_room(&mut self) {
        while self.checkpointing && self.store.delta_bytes() >= self.delta_cap_bytes {
            match self.jobs.recv() {
                Ok(Message::Checkpointed(done)) => self.checkpointed(*done),
                Ok(other) => self.waiting.push_back(other),
                Err(_) => return,
            }
        }
    }

    fn checkpointed(&mut self, done: CheckpointDone) {
        self.checkpointing = false;
        if let Err(error) = self.store.finish_checkpoint(done) {
            tracing::error!(%error, "checkpoint failed; the log has everything, it is tried again");
        }
    }
}
