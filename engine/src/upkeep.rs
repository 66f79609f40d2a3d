//! What a store does beside commits: checkpoints, folds of the log, state files made anew.
//!
//! Each runs on a thread of its own and comes back to the writer; here is when each is due, and how
//! writes are slowed down so that memory stays bounded.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lastword_core::id::WorkspaceName;
use lastword_store::payload::{Payload, Sums};
use lastword_store::{
    CheckpointDone, FoldDone, History, OldViews, RebuildDone, Retired, Store, StoreError, keys,
    read,
};

use crate::environment::now_ms;
use crate::erase::{self, DEFAULT_ERASE_WITHIN, Erasing, Step};
use crate::error::Error;
use crate::purge::{DEFAULT_TOMBSTONES, Purging};

/// What failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);
/// A view that a checkpoint has replaced may be kept this long without being read.
const VIEW_AGE: Duration = Duration::from_secs(30);
/// Workspaces in one sums frame, well below the limit of a frame.
const SUMS_IN_FRAME: usize = 10_000;

/// How long every version of a record stays readable unless the app or the server says otherwise.
pub const DEFAULT_HISTORY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Work that has ended elsewhere.
pub(crate) enum Done {
    Checkpoint(Box<CheckpointDone>),
    Fold(FoldDone),
    Rebuild(RebuildDone),
    /// It has no result, and what the panic said.
    Panicked(Work, String),
}

/// What runs beside the writer, one of each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Checkpoint,
    Fold,
    Rebuild,
}

impl Work {
    fn thread_name(self) -> &'static str {
        match self {
            Work::Checkpoint => "lastword checkpoint",
            Work::Fold => "lastword fold",
            Work::Rebuild => "lastword rebuild",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Work::Checkpoint => "checkpoint",
            Work::Fold => "fold of the log",
            Work::Rebuild => "rebuild of the state",
        }
    }
}

/// Takes ended work back to the writer.
pub(crate) type Back = Arc<dyn Fn(Done) + Send + Sync>;

/// What the app or the server chose.
#[derive(Debug, Clone)]
pub(crate) struct UpkeepSettings {
    /// Most bytes that the delta takes in memory.
    pub(crate) delta_cap_bytes: usize,
    /// How long things are kept.
    pub(crate) keep: Keep,
}

/// How long a store keeps what is gone.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Every version of a record stays readable this long. Decisions too, and at least 30 days.
    pub history: Duration,
    /// An authority keeps a tombstone this long. A device that was away for longer, and so may not
    /// have heard of a delete, cannot catch up any more and starts afresh.
    pub tombstones: Duration,
    /// The bytes of an erased record leave the files within this time.
    pub erased: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            history: DEFAULT_HISTORY,
            tombstones: DEFAULT_TOMBSTONES,
            erased: DEFAULT_ERASE_WITHIN,
        }
    }
}

/// The work beside commits.
pub(crate) struct Upkeep {
    back: Back,
    settings: UpkeepSettings,
    checkpointing: bool,
    folding: bool,
    rebuilding: bool,
    /// When something failed, until it succeeds.
    failed: Option<Instant>,
    old_views: Vec<(Instant, OldViews)>,
    purging: Purging,
    erasing: Erasing,
    /// What is to be freed elsewhere, and where that is done.
    retired: Vec<Retired>,
    freeing: Vec<JoinHandle<()>>,
}

impl Upkeep {
    pub(crate) fn new(settings: &UpkeepSettings, back: Back) -> Self {
        Upkeep {
            back,
            settings: settings.clone(),
            checkpointing: false,
            folding: false,
            rebuilding: false,
            failed: None,
            old_views: Vec::new(),
            purging: Purging::new(settings.keep.tombstones, settings.keep.history),
            erasing: Erasing::new(settings.keep.erased),
            retired: Vec::new(),
            freeing: Vec::new(),
        }
    }

    /// Whether work is under way that must come back before the store is closed.
    pub(crate) fn is_running(&self) -> bool {
        self.checkpointing || self.folding || self.rebuilding
    }

    /// Begins what is due; to be called between groups. Whether the state has changed.
    pub(crate) fn begin(&mut self, store: &mut Store) -> bool {
        let purged = self.purge(store);
        self.expire_views();
        self.erase(store);
        if store.wants_checkpoint() {
            self.checkpoint(store);
        }
        self.fold(store);
        purged
    }

    /// Begins what may be done while nobody writes. Whether the state has changed.
    pub(crate) fn idle(&mut self, store: &mut Store) -> bool {
        let purged = self.purge(store);
        self.expire_views();
        self.erase(store);
        self.checkpoint(store);
        self.fold(store);
        purged
    }

    /// Goes on with what takes the bytes of erased records out of the files.
    fn erase(&mut self, store: &mut Store) {
        if self.is_running() || self.rests() {
            return;
        }
        match self.erasing.next(store) {
            Ok(Step::Rest) => {}
            Ok(Step::Checkpoint) => self.checkpoint(store),
            Ok(Step::Fold) => self.begin_fold(store),
            Ok(Step::Rebuild) => self.rebuild(store),
            Err(error) => {
                tracing::error!(%error, "erased bytes stay in the files; it is tried again");
                self.failed = Some(Instant::now());
            }
        }
    }

    fn purge(&mut self, store: &mut Store) -> bool {
        if self.rests() {
            return false;
        }
        self.purging.step(store).unwrap_or_else(|error| {
            tracing::error!(%error, "nothing could be purged; it is tried again");
            self.failed = Some(Instant::now());
            false
        })
    }

    /// Takes ended work in and begins what follows from it.
    pub(crate) fn take(&mut self, store: &mut Store, done: Done) {
        let was_rebuild = matches!(done, Done::Rebuild(_) | Done::Panicked(Work::Rebuild, _));
        self.end(store, done);
        self.erase(store);
        match self.failed {
            None => self.fold(store),
            // At once only where something else has met the damage: a rebuild that failed rests.
            Some(_) if !was_rebuild && store.wants_rebuild() => self.rebuild(store),
            Some(_) => {}
        }
    }

    /// Takes ended work in.
    pub(crate) fn end(&mut self, store: &mut Store, done: Done) {
        let (work, result) = match done {
            Done::Checkpoint(done) => {
                let finished = store.finish_checkpoint(*done);
                let freed = finished.map(|retired| self.retired.push(retired));
                (Work::Checkpoint, freed.map_err(Error::from))
            }
            Done::Fold(done) => (Work::Fold, store.finish_fold(done).map_err(Error::from)),
            Done::Rebuild(done) => {
                let made = store.finish_rebuild(done).map_err(Error::from);
                if made.is_ok() {
                    self.erasing.rebuilt(store);
                }
                (Work::Rebuild, made)
            }
            // What the thread had of the store went with it.
            Done::Panicked(work, reason) => {
                (work, Err(Error::Panicked { work: work.name(), reason }))
            }
        };
        *self.is_under_way(work) = false;
        let now = Instant::now();
        self.old_views.extend(store.take_old_views().map(|views| (now, views)));
        self.failed = result.is_err().then_some(now);
        if let Err(error) = result {
            let what = work.name();
            tracing::error!(%error, "{what} failed; the log has everything, it is tried again");
        }
    }

    /// Frees what checkpoints have replaced, on a thread of its own; to be called once whoever
    /// keeps a view has let go of the one from before.
    pub(crate) fn free(&mut self) {
        self.freeing.retain(|thread| !thread.is_finished());
        let retired = std::mem::take(&mut self.retired);
        if !retired.is_empty() {
            let thread = std::thread::Builder::new().name("lastword free".into());
            // Without a thread it is freed here.
            self.freeing.extend(thread.spawn(move || drop(retired)));
        }
    }

    /// Waits until all is free: the next process may open the files of the directory.
    pub(crate) fn wait_for_free(&mut self) {
        self.retired.clear();
        for thread in self.freeing.drain(..) {
            // It only frees; a panic there has left nothing that is used again.
            let _ = thread.join();
        }
    }

    fn is_under_way(&mut self, work: Work) -> &mut bool {
        match work {
            Work::Checkpoint => &mut self.checkpointing,
            Work::Fold => &mut self.folding,
            Work::Rebuild => &mut self.rebuilding,
        }
    }

    fn rests(&self) -> bool {
        self.failed.is_some_and(|failed| failed.elapsed() < RETRY)
    }

    /// Writes the delta to redb; the writer goes on meanwhile.
    fn checkpoint(&mut self, store: &mut Store) {
        if self.checkpointing || self.rebuilding || self.rests() {
            return;
        }
        match sums_of_changes(store).and_then(|()| store.begin_checkpoint()) {
            Ok(Some(job)) => {
                let run = move || Done::Checkpoint(Box::new(job.run()));
                self.spawn(store, Work::Checkpoint, run);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "no checkpoint can begin");
                self.failed = Some(Instant::now());
            }
        }
    }

    /// Folds the log if that is due, or gives the slack of the state file back.
    fn fold(&mut self, store: &mut Store) {
        if self.folding || self.rebuilding || self.rests() {
            return;
        }
        if !store.wants_fold() {
            let calm = store.delta_bytes() < self.settings.delta_cap_bytes / 4;
            if calm && !self.checkpointing && store.wants_rebuild() {
                self.rebuild(store);
            }
            return;
        }
        self.begin_fold(store);
    }

    fn begin_fold(&mut self, store: &mut Store) {
        let begun = history(store, self.settings.keep.history)
            .and_then(|history| store.begin_fold(&history));
        match begun {
            Ok(Some(job)) => {
                self.spawn(store, Work::Fold, move || Done::Fold(job.run()));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "no fold can begin");
                self.failed = Some(Instant::now());
            }
        }
    }

    fn rebuild(&mut self, store: &mut Store) {
        match store.begin_rebuild() {
            Ok(Some(job)) => {
                self.spawn(store, Work::Rebuild, move || Done::Rebuild(job.run()));
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the state cannot be made anew"),
        }
    }

    /// Does `work` on another thread, or here if there is none to be had. Whatever becomes of it,
    /// its end is told.
    fn spawn(
        &mut self,
        store: &mut Store,
        work: Work,
        run: impl FnOnce() -> Done + Send + 'static,
    ) {
        *self.is_under_way(work) = true;
        let run = Arc::new(Mutex::new(Some(run)));
        let (back, theirs) = (self.back.clone(), Arc::clone(&run));
        let spawned =
            std::thread::Builder::new().name(work.thread_name().into()).spawn(move || {
                let run = lock(&theirs).take();
                if let Some(run) = run {
                    back(run_to_end(work, run));
                }
            });
        let run = if spawned.is_err() { lock(&run).take() } else { None };
        if let Some(run) = run {
            self.take(store, run_to_end(work, run));
        }
    }

    fn expire_views(&mut self) {
        self.old_views.retain_mut(|(since, views)| {
            if since.elapsed() >= VIEW_AGE {
                if views.expire_if_idle() {
                    return false;
                }
                *since = Instant::now();
            }
            views.are_held()
        });
    }
}

fn run_to_end(work: Work, run: impl FnOnce() -> Done) -> Done {
    // The job is moved in: nothing that a panic left half done is seen afterwards but through the
    // store, which takes a job that is dropped for one that has ended.
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Done::Panicked(work, said(panic.as_ref())))
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sums_of_changes(store: &mut Store) -> Result<(), StoreError> {
    if store.delta_bytes() == 0 { Ok(()) } else { append_sums(store) }
}

/// States row counts and digest sums in the log, so that a rebuild can prove itself.
pub(crate) fn append_sums(store: &mut Store) -> Result<(), StoreError> {
    let sum = |(name, meta): &(_, keys::WorkspaceMeta)| {
        (WorkspaceName::clone(name), meta.rows, meta.digest.0)
    };
    for workspaces in read::workspaces(store.newest())?.chunks(SUMS_IN_FRAME) {
        let payload = Payload::Sums(Sums { workspaces: workspaces.iter().map(sum).collect() });
        store.append_urgent(payload.kind(), &payload.to_bytes())?;
    }
    store.commit().map(|_| ())
}

/// Folds the log of a store that was opened with small segments, and makes its state file anew.
pub(crate) fn fold_now(store: &mut Store, history: Duration) -> Result<bool, StoreError> {
    if read::erasure(store.newest())?.is_some() {
        store.end_segment()?;
    }
    // It also begins a new segment.
    append_sums(store)?;
    let history = self::history(store, history)?;
    let folded = store.fold(&history)?;
    if let Some(job) = store.begin_rebuild()? {
        store.finish_rebuild(job.run())?;
    }
    erase::confirm(store)?;
    Ok(folded)
}

/// What a fold leaves in the log.
fn history(store: &Store, keep: Duration) -> Result<History, StoreError> {
    Ok(History {
        now_ms: now_ms(),
        keep_ms: i64::try_from(keep.as_millis()).unwrap_or(i64::MAX),
        erased_before: read::erased_before(store.newest())?,
    })
}
