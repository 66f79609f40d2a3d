//! Hooks: what an app wants to be told of, on a thread of their own.
//!
//! An event is queued and the engine goes on: a hook that is slow or panics stops neither writes
//! nor sync. The queue is bounded; what finds no place is counted and left out.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::live::lock;

/// Most events that wait for the hooks of a database.
pub const MAX_WAITING_EVENTS: usize = 4096;

/// How long closing a database waits for the hook that is running.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// A point at which the engine tells what happens; prints as its name. The points are constants in
/// [`crate::hook`].
pub struct Hook<E> {
    name: &'static str,
    of: PhantomData<fn(&E)>,
}

impl<E> Hook<E> {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// Its name, `part:action:when`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<E> Clone for Hook<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Hook<E> {}

impl<E> std::fmt::Display for Hook<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl<E> std::fmt::Debug for Hook<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hook({})", self.name)
    }
}

/// A point at which an app may say no; prints as its name. The points are constants in
/// [`crate::hook`].
pub struct Filter<E> {
    name: &'static str,
    of: PhantomData<fn(&E)>,
}

impl<E> Filter<E> {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// Its name, `part:filter:what`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<E> Clone for Filter<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Filter<E> {}

impl<E> std::fmt::Display for Filter<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl<E> std::fmt::Debug for Filter<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({})", self.name)
    }
}

/// A file on its way into a database: what a transform gets, and gives back.
pub struct Incoming<'a> {
    /// Its name for people.
    pub name: String,
    /// Its bytes.
    pub bytes: Box<dyn Read + 'a>,
}

impl std::fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Bytes that an app's own code reads, which may panic.
struct Caught<'a>(Box<dyn Read + 'a>);

impl Read for Caught<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Caught(bytes) = self;
        catch_unwind(AssertUnwindSafe(|| bytes.read(buf))).unwrap_or_else(|panic| {
            let reason = reason_of(&*panic);
            Err(io::Error::other(format!("the transform of files panicked: {reason}")))
        })
    }
}

/// Makes another file of one that is about to be stored, or says why it may not be.
type Transform =
    Arc<dyn for<'a> Fn(Incoming<'a>) -> std::result::Result<Incoming<'a>, String> + Send + Sync>;
type Action = Arc<dyn Fn(&dyn Any) + Send + Sync>;
/// Agrees, or says why not.
type Judge = Arc<dyn Fn(&dyn Any) -> std::result::Result<(), String> + Send + Sync>;
/// Work for the thread.
type Job = Box<dyn FnOnce() + Send>;
/// Hears which hook panicked, and what the panic said.
type OnPanic = Arc<dyn Fn(&'static str, String) + Send + Sync>;

/// The hooks of one database and the events that wait for them.
#[derive(Default)]
pub(crate) struct HookQueue {
    actions: Mutex<BTreeMap<&'static str, Vec<Action>>>,
    filters: Mutex<BTreeMap<&'static str, Vec<Judge>>>,
    transforms: Mutex<Vec<Transform>>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    on_panic: Mutex<Option<OnPanic>>,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    left_out: u64,
    has_thread: bool,
    /// The thread, while it is at something.
    busy: Option<ThreadId>,
    closed: bool,
}

impl HookQueue {
    /// A queue without a thread, for a database that is driven one event at a time: events wait
    /// until [`HookQueue::run_waiting`].
    pub(crate) fn in_place() -> Self {
        // Whoever drives it is the thread.
        let waiting = Mutex::new(Waiting { has_thread: true, ..Waiting::default() });
        Self { waiting, ..Self::default() }
    }

    /// Does what waits, and what comes while it does, on this thread; true if there was anything.
    pub(crate) fn run_waiting(&self) -> bool {
        let mut did = false;
        loop {
            let Some(job) = lock(&self.waiting).jobs.pop_front() else { return did };
            job();
            did = true;
        }
    }

    /// Adds what is to be run at a point, and begins the thread with the first of them.
    pub(crate) fn add<E: Any>(
        self: &Arc<Self>,
        hook: Hook<E>,
        action: impl Fn(&E) + Send + Sync + 'static,
    ) -> Result<()> {
        let action: Action = Arc::new(move |event| {
            if let Some(event) = event.downcast_ref() {
                action(event);
            }
        });
        self.begin()?;
        lock(&self.actions).entry(hook.name).or_default().push(action);
        Ok(())
    }

    /// Adds what is asked at a point.
    pub(crate) fn add_filter<E: Any>(
        &self,
        filter: Filter<E>,
        judge: impl Fn(&E) -> std::result::Result<(), String> + Send + Sync + 'static,
    ) {
        let judge: Judge = Arc::new(move |event| event.downcast_ref().map_or(Ok(()), &judge));
        lock(&self.filters).entry(filter.name).or_default().push(judge);
    }

    /// Adds what makes another file of one that is stored.
    pub(crate) fn add_transform(
        &self,
        transform: impl for<'a> Fn(Incoming<'a>) -> std::result::Result<Incoming<'a>, String>
        + Send
        + Sync
        + 'static,
    ) {
        lock(&self.transforms).push(Arc::new(transform));
    }

    /// Has all make of a file what they will, on this thread, one after the other. The first that
    /// does not want it, or panics, ends it.
    pub(crate) fn transformed<'a>(&self, incoming: Incoming<'a>) -> Result<Incoming<'a>> {
        let transforms = lock(&self.transforms).clone();
        if transforms.is_empty() {
            return Ok(incoming);
        }
        let made = transforms.iter().try_fold(incoming, |incoming, transform| {
            catch_unwind(AssertUnwindSafe(|| transform(incoming))).unwrap_or_else(|panic| {
                Err(format!("the transform of files panicked: {}", reason_of(&*panic)))
            })
        });
        let Incoming { name, bytes } = made.map_err(|message| Error::UploadRefused { message })?;
        Ok(Incoming { name, bytes: Box::new(Caught(bytes)) })
    }

    /// Asks all, on this thread; the first no counts. One that panics has not agreed.
    #[cfg(feature = "net")]
    pub(crate) fn ask<E: Any>(
        &self,
        filter: Filter<E>,
        event: &E,
    ) -> std::result::Result<(), String> {
        let judges = lock(&self.filters).get(filter.name).cloned().unwrap_or_default();
        judges.iter().try_for_each(|judge| {
            catch_unwind(AssertUnwindSafe(|| judge(event))).unwrap_or_else(|panic| {
                let reason = reason_of(&*panic);
                Err(format!("filter {} panicked: {reason}", filter.name))
            })
        })
    }

    /// Who hears of panics.
    pub(crate) fn on_panic(&self, told: impl Fn(&'static str, String) + Send + Sync + 'static) {
        *lock(&self.on_panic) = Some(Arc::new(told));
    }

    /// True if something is to be run at that point.
    pub(crate) fn has<E>(&self, hook: Hook<E>) -> bool {
        lock(&self.actions).contains_key(hook.name)
    }

    /// Queues an event, if anybody wants it.
    pub(crate) fn raise<E: Any + Send>(self: &Arc<Self>, hook: Hook<E>, event: impl FnOnce() -> E) {
        if self.has(hook) {
            let (event, queue) = (event(), Arc::clone(self));
            self.push(Box::new(move || queue.run(hook, &event)), MAX_WAITING_EVENTS);
        }
    }

    /// Queues work that runs hooks itself; its caller sees to it that there is never much of it.
    /// False if nobody would do it.
    pub(crate) fn push_work(&self, work: impl FnOnce() + Send + 'static) -> bool {
        self.push(Box::new(work), usize::MAX)
    }

    fn push(&self, job: Job, most: usize) -> bool {
        let mut waiting = lock(&self.waiting);
        if waiting.closed || !waiting.has_thread {
            return false;
        }
        if waiting.jobs.len() >= most {
            waiting.left_out += 1;
            if waiting.left_out == 1 {
                tracing::warn!("hooks are slower than events come: some are left out");
            }
            return false;
        }
        waiting.jobs.push_back(job);
        drop(waiting);
        self.changed.notify_one();
        true
    }

    /// Events that were left out because too many waited.
    pub(crate) fn left_out(&self) -> u64 {
        lock(&self.waiting).left_out
    }

    /// Runs what is to be run at a point, on this thread.
    pub(crate) fn run<E: Any>(&self, hook: Hook<E>, event: &E) {
        let actions = lock(&self.actions).get(hook.name).cloned().unwrap_or_default();
        for action in actions {
            // What a hook leaves half done is its own; nothing of ours is lent to it.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| action(event))) {
                let reason = reason_of(&*panic);
                tracing::error!(hook = hook.name, reason, "a hook panicked");
                let told = lock(&self.on_panic).clone();
                if let Some(told) = told {
                    told(hook.name, reason);
                }
            }
        }
    }

    /// No event comes any more; the thread ends after the one that it is at. That is waited for,
    /// so that what was told is noted as told, but not for long: a hook may hang.
    pub(crate) fn close(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.jobs);
        self.changed.notify_all();
        let until = Instant::now() + CLOSE_WAIT;
        let this = std::thread::current().id();
        while waiting.busy.is_some_and(|busy| busy != this) {
            let time = until.saturating_duration_since(Instant::now());
            if time.is_zero() {
                break;
            }
            let woken = self.changed.wait_timeout(waiting, time);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(waiting);
        drop(left);
    }

    /// True once no event comes any more.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.waiting).closed
    }

    fn begin(self: &Arc<Self>) -> Result<()> {
        let mut waiting = lock(&self.waiting);
        if waiting.has_thread {
            return Ok(());
        }
        let theirs = Arc::clone(self);
        std::thread::Builder::new()
            .name("lastword hooks".into())
            .spawn(move || theirs.work())
            .map_err(|source| Error::Thread { reason: source.to_string() })?;
        waiting.has_thread = true;
        Ok(())
    }

    fn work(&self) {
        let mut waiting = lock(&self.waiting);
        while !waiting.closed {
            match waiting.jobs.pop_front() {
                Some(job) => {
                    waiting.busy = Some(std::thread::current().id());
                    drop(waiting);
                    job();
                    waiting = lock(&self.waiting);
                    waiting.busy = None;
                    self.changed.notify_all();
                }
                None => {
                    let woken = self.changed.wait(waiting);
                    waiting = woken.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

fn reason_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no text".into())
}
