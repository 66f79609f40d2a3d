//! The writer: one thread that owns the store and does everything that changes it. A store that is
//! driven one event at a time has none: there a job runs at once, on its caller's thread.
//!
//! Jobs queue while a sync runs; when it ends, the next ones are taken together, appended, written
//! and synced once (group commit without election). A job decides on the newest state; whoever
//! asked is answered only after the sync, so nothing leaves the process before it is durable.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lastword_store::{Room, Store, View, ViewHandle};

use crate::error::Error;
use crate::queue::{Close, Job, Message, Queue};
use crate::upkeep::{Done, Upkeep, UpkeepSettings};

/// Most jobs in one group.
const MAX_GROUP_JOBS: usize = 4096;
/// Bytes of frames after which a group is closed.
const MAX_GROUP_BYTES: u64 = 4 * 1024 * 1024;
/// A group takes no more jobs after this long: those who wait for its sync wait for all of them.
const MAX_GROUP_TIME: Duration = Duration::from_millis(20);
/// A store that is idle this long is checkpointed.
const IDLE: Duration = Duration::from_secs(30);
/// Longest that writes are held up at a time to keep step with a checkpoint.
const PACE: Duration = Duration::from_millis(25);

/// Called after every group that was published, with the view that shows it.
pub(crate) type OnPublish = Box<dyn Fn(&Arc<View>) + Send>;

/// A store that belongs to somebody who drives it without a thread.
pub(crate) trait InPlace: Send + Sync {
    /// Runs a job, makes durable what it appended, shows that, and answers. Errors:
    /// [`Error::Closed`].
    fn run(&self, job: Job) -> Result<(), Error>;

    /// Closes the store cleanly, unless it is closed.
    fn close(&self) -> Result<(), Error>;
}

/// Handle of a store and of what changes it.
pub(crate) struct Writer {
    way: Way,
    views: ViewHandle,
}

enum Way {
    Thread { queue: Arc<Queue>, thread: Mutex<Option<JoinHandle<()>>> },
    InPlace(Arc<dyn InPlace>),
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(
        store: Store,
        settings: &UpkeepSettings,
        name: &str,
        on_publish: OnPublish,
    ) -> Result<Self, Error> {
        let views = store.view_handle();
        let queue = Arc::new(Queue::default());
        let back = Arc::clone(&queue);
        // The writer does not end before it has this.
        let upkeep = Upkeep::new(settings, Arc::new(move |done| back.done(done)));
        let theirs = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name(format!("lastword {name}"))
            .spawn(move || {
                let _ends = Ends(Arc::clone(&theirs));
                WriterLoop { store, queue: theirs, on_publish, upkeep }.run();
            })
            .map_err(|source| Error::Thread { reason: source.to_string() })?;
        Ok(Self { way: Way::Thread { queue, thread: Mutex::new(Some(thread)) }, views })
    }

    /// The handle of a store that somebody else drives.
    pub(crate) fn in_place(store: Arc<dyn InPlace>, views: ViewHandle) -> Self {
        Self { way: Way::InPlace(store), views }
    }

    /// The last published view.
    pub(crate) fn view(&self) -> Arc<View> {
        self.views.view()
    }

    /// Where frames of the history are read from.
    pub(crate) fn views(&self) -> &ViewHandle {
        &self.views
    }

    /// Queues a job that holds about `bytes`; waits while too much is queued before it. `done` gets
    /// its result after the sync, on the writer thread, which must not queue jobs itself.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        bytes: usize,
        job: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
        done: impl FnOnce(Result<T, Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let job: Job = Box::new(move |store| {
            let result = job(store);
            Box::new(move |synced| done(result.and_then(|value| Ok(synced.map(|()| value)?))))
        });
        match &self.way {
            Way::Thread { queue, .. } => queue.job(bytes, job),
            Way::InPlace(store) => store.run(job),
        }
    }

    /// Runs a job and waits until its group is durable. What it holds is its caller's, who waits.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = sync_channel(1);
        self.submit(0, job, move |result| {
            // The caller waits below, so the channel is open.
            let _ = answer.send(result);
        })?;
        answered.recv().unwrap_or(Err(Error::Closed))
    }

    /// Finishes what is queued, closes the store cleanly and ends the thread. On the thread itself,
    /// which cannot wait for its own end, it happens after this returns.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let (queue, thread) = match &self.way {
            Way::Thread { queue, thread } => (queue, thread),
            Way::InPlace(store) => return store.close(),
        };
        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return Ok(()) };
        if thread.thread().id() == std::thread::current().id() {
            return queue.close(Box::new(drop));
        }
        let (answer, answered) = sync_channel(1);
        let close = queue.close(Box::new(move |result| {
            let _ = answer.send(result);
        }));
        let closed = close.and_then(|()| match answered.recv() {
            Ok(closed) => closed.map_err(Error::from),
            Err(_) => Err(Error::Closed),
        });
        match thread.join() {
            Ok(()) => closed,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Whoever waits learns that the thread has ended, also if it panicked.
struct Ends(Arc<Queue>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct WriterLoop {
    store: Store,
    queue: Arc<Queue>,
    on_publish: OnPublish,
    upkeep: Upkeep,
}

impl WriterLoop {
    fn run(mut self) {
        loop {
            match self.queue.next(IDLE) {
                Some(Message::Job(job)) => {
                    if let Some(close) = self.group(job) {
                        return self.close(close);
                    }
                    if self.upkeep.begin(&mut self.store) {
                        (self.on_publish)(&self.store.view());
                    }
                    self.make_room();
                }
                Some(Message::Done(done)) => self.take(*done),
                Some(Message::Close(close)) => return self.close(close),
                None => {
                    if self.upkeep.idle(&mut self.store) {
                        (self.on_publish)(&self.store.view());
                    }
                }
            }
        }
    }

    /// One group: everything that is queued, up to the caps, then one sync.
    fn group(&mut self, first: Job) -> Option<Close> {
        let (start, began) = (self.store.next_position(), Instant::now());
        let mut answers = vec![first(&mut self.store)];
        let (mut close, mut drained) = (None, false);
        while answers.len() < MAX_GROUP_JOBS
            && self.store.next_position() - start < MAX_GROUP_BYTES
            && began.elapsed() < MAX_GROUP_TIME
        {
            match self.queue.try_next() {
                Some(Message::Job(job)) => answers.push(job(&mut self.store)),
                Some(Message::Done(done)) => self.take(*done),
                Some(Message::Close(answer)) => {
                    close = Some(answer);
                    break;
                }
                None => {
                    drained = true;
                    break;
                }
            }
        }
        let changed = self.store.next_position() != start;
        // Also where nothing was appended: a job may have read what a failed commit left in the
        // newest state, and a poisoned store refuses to confirm that.
        let committed = self.store.commit().map(|_| ());
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

    /// A delta that fills faster than its checkpoint runs slows the next group down, and a full
    /// one waits, so memory stays within its cap. Jobs stay in the queue meanwhile.
    fn make_room(&mut self) {
        let until = Instant::now() + PACE;
        loop {
            let wait = match self.store.room() {
                Room::Free => return,
                Room::Full => None,
                Room::Paced => Some(until.saturating_duration_since(Instant::now())),
            };
            match self.queue.next_done(wait) {
                Some(done) => self.take(*done),
                None => return,
            }
        }
    }

    fn take(&mut self, done: Done) {
        self.upkeep.take(&mut self.store, done);
        // Same position, other layers: whoever keeps the view must let go of the old ones.
        (self.on_publish)(&self.store.view());
        self.upkeep.free();
    }

    /// The lock of the directory goes with the store, and the next process may open redb's file at
    /// once: nothing may still be writing it.
    fn close(mut self, answer: Close) {
        self.store.cancel_rebuild();
        while self.upkeep.is_running() {
            let Some(done) = self.queue.next_done(None) else { break };
            // Nothing new begins.
            self.upkeep.end(&mut self.store, *done);
            (self.on_publish)(&self.store.view());
            self.upkeep.free();
        }
        self.upkeep.wait_for_free();
        answer(self.store.close());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex, Weak};

    use lastword_store::limits::{MAX_WAITING_BYTES, MAX_WAITING_JOBS};
    use lastword_store::{
        Apply, ApplyError, Disk, DiskError, Fault, File, FileInfo, FileKind, FrameRef, MemoryDisk,
        Options, Space, StateTxn, Store,
    };

    use super::*;

    const ROWS: Space = Space::new(0);
    const KIND: u8 = 40;

    /// Keeps each payload under its own bytes.
    struct Keep;

    impl Apply for Keep {
        fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
            match frame.kind {
                KIND => Ok(state.put(ROWS, frame.payload, frame.payload)?),
                _ => Ok(()),
            }
        }
    }

    fn settings() -> UpkeepSettings {
        let history = Duration::ZERO;
        let keep = crate::upkeep::Keep { history, ..Default::default() };
        UpkeepSettings { delta_cap_bytes: 32 << 20, keep }
    }

    fn start(disk: &MemoryDisk, delta_cap_bytes: usize, on_publish: OnPublish) -> Writer {
        let options = Options { delta_cap_bytes, entropy: [3; 32], ..Options::default() };
        let (store, _) =
            Store::open(Arc::new(disk.clone()), options, Arc::new(Keep)).expect("opens");
        Writer::start(store, &UpkeepSettings { delta_cap_bytes, ..settings() }, "test", on_publish)
            .expect("a thread")
    }

    /// I1, I8. A batch whose sync had failed stayed in the newest state; when its device sent it
    /// again, the decision was found there, nothing had to be appended, and the device was told of
    /// a decision that no disk held.
    #[test]
    fn what_a_failed_sync_left_behind_is_never_confirmed() {
        let disk = MemoryDisk::new(1 << 20);
        let writer = start(&disk, 32 << 20, Box::new(|_| {}));
        writer.run(|store| Ok(store.append(KIND, b"first")?)).expect("the disk works");
        disk.set_fault(Some((disk.operations() + 1, Fault::Once)));
        writer.run(|store| Ok(store.append(KIND, b"second")?)).expect_err("the sync fails");
        let seen = writer.run(|store| Ok(store.newest().get(ROWS, b"second")?.is_some()));
        assert!(seen.is_err(), "confirmed: {seen:?}");
        assert!(writer.view().get(ROWS, b"first").expect("reads go on").is_some());
    }

    /// I19, I29. While a full delta waited for its checkpoint, messages were set aside; the next
    /// group took newer ones from the queue before them, so a device's batches were decided out of
    /// order and its verdicts stored with a gap.
    #[test]
    fn jobs_run_in_the_order_they_came_also_behind_a_full_delta() {
        let disk = MemoryDisk::new(1 << 20);
        let writer = Arc::new(start(&disk, 64 << 10, Box::new(|_| {})));
        let (order, ran) = channel();
        for number in 0..4_000_u64 {
            let order = order.clone();
            let job = move |store: &mut Store| {
                let payload = [&number.to_be_bytes()[..], &[7; 1000]].concat();
                let appended = store.append(KIND, &payload);
                order.send(number).expect("the test listens");
                Ok(appended?)
            };
            writer.submit(1008, job, |_| {}).expect("the writer runs");
        }
        writer.close().expect("closes");
        assert_eq!(ran.try_iter().collect::<Vec<_>>(), (0..4_000).collect::<Vec<_>>());
    }

    /// R10. While a full delta waited for its checkpoint, every job was taken out of the bounded
    /// queue and set aside, so a slow disk and busy callers filled the memory. What is beyond the
    /// limit of jobs or bytes waits in its caller, and all of it runs once there is room.
    #[test]
    fn jobs_behind_a_full_delta_are_bounded_in_number_and_bytes() {
        for (jobs, bytes) in [(MAX_WAITING_JOBS, 1), (16, MAX_WAITING_BYTES / 16)] {
            let disk = MemoryDisk::new(1 << 20);
            let options = Options { delta_cap_bytes: 4 << 10, ..Options::default() };
            let (mut store, _) =
                Store::open(Arc::new(disk), options, Arc::new(Keep)).expect("opens");
            let fill = |store: &mut Store, byte| {
                store.append(KIND, &[byte; 5000]).expect("the disk works");
                store.commit().expect("the disk works");
            };
            fill(&mut store, 1);
            let checkpoint = store.begin_checkpoint().expect("begins").expect("there are changes");
            fill(&mut store, 2);
            assert_eq!(store.room(), Room::Full);
            let queue = Arc::new(Queue::default());
            let (ran, counted) = channel();
            let (full, taken) = channel();
            let back = Arc::clone(&queue);
            let upkeep = Upkeep::new(&settings(), Arc::new(move |done| back.done(done)));
            let on_publish: OnPublish = Box::new(|_| {});
            let mut held = WriterLoop { store, queue: Arc::clone(&queue), on_publish, upkeep };
            let writer = std::thread::spawn(move || {
                held.make_room();
                held.run();
            });
            let callers = Arc::clone(&queue);
            let caller = std::thread::spawn(move || {
                for number in 0..=jobs {
                    let ran = ran.clone();
                    let job: Job = Box::new(move |_| {
                        ran.send(number).expect("the test listens");
                        Box::new(drop)
                    });
                    callers.job(bytes, job).expect("the queue is open");
                    full.send(number).expect("the test listens");
                }
            });
            let is_taken = |number| assert_eq!(taken.recv().expect("the caller goes on"), number);
            (0..jobs).for_each(is_taken);
            let beyond = taken.recv_timeout(Duration::from_millis(200));
            assert!(beyond.is_err(), "{jobs} jobs of {bytes} bytes wait, and one more was taken");
            queue.done(Done::Checkpoint(Box::new(checkpoint.run())));
            is_taken(jobs);
            caller.join().expect("the caller ends");
            queue.close(Box::new(drop)).expect("the queue is open");
            writer.join().expect("the writer ends");
            assert!(counted.try_iter().eq(0..=jobs), "jobs were lost or out of order");
        }
    }

    /// I29. After a checkpoint the same position is served from other layers; whoever kept the view
    /// of before was not told, read through a database that had failed, or kept its memory.
    #[test]
    fn the_view_after_a_checkpoint_is_published() {
        let disk = MemoryDisk::new(1 << 20);
        let views = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&views);
        let publish: OnPublish = Box::new(move |_| {
            told.fetch_add(1, Ordering::SeqCst);
        });
        let writer = start(&disk, 1 << 10, publish);
        writer.run(|store| Ok(store.append(KIND, &[1; 2000])?)).expect("the disk works");
        writer.close().expect("closes");
        assert_eq!(views.load(Ordering::SeqCst), 2, "one for the group, one for the checkpoint");
    }

    /// I8, I9. A read had met damage in redb and the disk was full, so the state could not be made
    /// anew; it was tried again at once, for ever, no checkpoint could begin between the tries, and
    /// once the delta was full neither a write nor `close` came back.
    #[test]
    fn a_rebuild_that_fails_does_not_stop_the_writer() {
        let disk = MemoryDisk::new(8 << 20);
        let row = |number: u32| format!("row{number:05}{}", "x".repeat(100)).into_bytes();
        let writer = start(&disk, 64 << 10, Box::new(|_| {}));
        for number in 0..50 {
            let append = move |store: &mut Store| Ok(store.append(KIND, &row(number))?);
            writer.run(append).expect("the disk works");
        }
        writer.close().expect("closes");
        let files = disk.list().expect("the disk works");
        let state = files.iter().find(|file| file.kind == FileKind::State).expect("a state");
        let bytes = disk.bytes(state.number).expect("it is there");
        let value = row(7);
        for at in 0..bytes.len() - value.len() {
            if bytes[at..].starts_with(&value) {
                disk.flip(state.number, (at + value.len() + 3) * 8);
            }
        }
        let writer = Arc::new(start(&disk, 64 << 10, Box::new(|_| {})));
        disk.set_room(Some(0));
        let damaged = writer.run(move |store| Ok(store.newest().get(ROWS, &row(7)).is_err()));
        assert!(damaged.expect("the writer runs"), "the row is read although it was changed");
        let (told, heard) = channel();
        let theirs = Arc::clone(&writer);
        std::thread::spawn(move || {
            for number in 1000..1400 {
                // Beyond what the delta may hold they are refused, not held up.
                let _ = theirs.run(move |store| Ok(store.append(KIND, &row(number))?));
            }
            let _ = told.send(theirs.close().is_ok());
        });
        let closed = heard.recv_timeout(Duration::from_secs(60));
        assert!(closed.is_ok(), "neither writes nor close came back");
    }

    /// I18. The memory of a large checkpoint was freed on the writer thread, while all commits
    /// waited. It stays until whoever keeps a view has let go of it there, and is all free once the
    /// database is closed.
    #[test]
    fn the_writer_does_not_free_what_a_checkpoint_replaces() {
        let disk = MemoryDisk::new(1 << 20);
        let (seen, row) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
        let (told, of) = (Arc::clone(&seen), Arc::clone(&row));
        let publish: OnPublish = Box::new(move |view| {
            let value = view.get(ROWS, &[1; 2000]).expect("reads").expect("it was written");
            let mut first = of.lock().expect("no panic");
            let first: &mut Weak<[u8]> = first.get_or_insert_with(|| Arc::downgrade(&value));
            drop(value);
            told.lock().expect("no panic").push(first.strong_count());
        });
        let writer = start(&disk, 1 << 10, publish);
        writer.run(|store| Ok(store.append(KIND, &[1; 2000])?)).expect("the disk works");
        writer.close().expect("closes");
        // After the group, and after the checkpoint.
        assert_eq!(*seen.lock().expect("no panic"), [1, 1]);
        let row = row.lock().expect("no panic").take().expect("it was published");
        assert_eq!(row.strong_count(), 0);
    }

    /// Panics where a file is made on threads of one name, and counts how often.
    #[derive(Debug)]
    struct PanicsOn {
        disk: MemoryDisk,
        thread: &'static str,
        panics: AtomicU64,
    }

    impl PanicsOn {
        fn check(&self) {
            if std::thread::current().name() == Some(self.thread) {
                self.panics.fetch_add(1, Ordering::SeqCst);
                panic!("a planted bug on {}", self.thread);
            }
        }
    }

    impl Disk for PanicsOn {
        fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
            self.disk.list()
        }

        fn take_spare(&self, keep: usize) -> Result<u64, DiskError> {
            self.check();
            self.disk.take_spare(keep)
        }

        fn create_state(&self) -> Result<u64, DiskError> {
            self.check();
            self.disk.create_state()
        }

        fn open(&self, number: u64) -> Result<Arc<dyn File>, DiskError> {
            self.disk.open(number)
        }

        fn remove(&self, number: u64) -> Result<(), DiskError> {
            self.disk.remove(number)
        }

        fn free_bytes(&self) -> Option<u64> {
            self.disk.free_bytes()
        }
    }

    /// I8, I12. A bug made the thread of a checkpoint or a fold panic: nobody told the writer that
    /// it had ended, and `close` waited for it for ever.
    #[test]
    fn a_panic_beside_the_writer_does_not_stop_it() {
        for (thread, rows) in [("lastword checkpoint", 250), ("lastword fold", 400)] {
            let memory = MemoryDisk::new(4 << 10);
            let disk = Arc::new(PanicsOn { disk: memory, thread, panics: AtomicU64::new(0) });
            let options = Options {
                segment_size: 16 << 10,
                zero_step: 4 << 10,
                delta_cap_bytes: 64 << 10,
                anew_from_bytes: 0,
                entropy: [3; 32],
                ..Options::default()
            };
            let open =
                |options| Store::open(disk.clone(), options, Arc::new(Keep)).expect("opens").0;
            let writer =
                Writer::start(open(options.clone()), &settings(), "test", Box::new(|_| {}));
            let writer = writer.expect("a thread");
            // Far apart, so that checkpoints write new files, and several times each, so that folds
            // are due.
            let row = |number: u32| {
                [&(number % 125).reverse_bits().to_be_bytes()[..], &[7; 200]].concat()
            };
            for number in 0..rows {
                let append = move |store: &mut Store| Ok(store.append(KIND, &row(number))?);
                writer.run(append).expect("the disk works");
            }
            let (told, heard) = channel();
            std::thread::spawn(move || drop(told.send(writer.close())));
            let closed = heard.recv_timeout(Duration::from_secs(30)).expect("close came back");
            closed.expect("closes");
            assert!(disk.panics.load(Ordering::SeqCst) > 0, "{thread} had nothing to do");
            let store = open(options);
            for number in 0..rows {
                assert!(store.view().get(ROWS, &row(number)).expect("reads").is_some());
            }
        }
    }
}
