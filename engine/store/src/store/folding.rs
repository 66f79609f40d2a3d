//! Folds and rebuilds: when they are due, how they begin and end, what goes afterwards.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::disk::Unkept;
use crate::error::{DiskError, StoreError};
use crate::fold::{FoldDone, FoldJob, Folded, RebuildDone, RebuildJob, Source, marks_with};
use crate::oplog::{BaseFile, Mark};

use super::Store;

/// Hundredths of what it holds that a state file may take before it is made anew: rows that came in
/// no order fill two thirds of redb's pages.
const SLACK_PERCENT: u64 = 150;
/// Hundredths of what it took first that a file which was made anew may take before it is again.
const GROWTH_PERCENT: u64 = 120;
/// Bytes of a state file that never count as slack: redb grows in large steps.
const SLACK_FROM: u64 = 2 * 1024 * 1024;

/// How much of the log a fold leaves in place although the base stands for it, beside what the base
/// itself needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The caller's clock, milliseconds since 1970 UTC.
    pub now_ms: i64,
    /// How long frames stay readable at least, in milliseconds.
    pub keep_ms: i64,
    /// Frames before this position go whatever their age: something in them was erased.
    pub erased_before: u64,
}

/// What the store knows of its folds.
#[derive(Debug)]
pub(super) struct Folding {
    base: Option<BaseFile>,
    /// Of the fold that runs, for as long as its job or result is there.
    running: Weak<()>,
    /// A dump found rows missing: the state is to be made anew from the log.
    distrusted: bool,
    pins: Arc<AtomicUsize>,
    /// Files that nothing needs any more but a backup may be reading.
    leftover: VecDeque<u64>,
}

/// While one is held no file of the log is removed.
#[derive(Debug)]
pub(crate) struct Pin(Arc<AtomicUsize>);

impl Pin {
    fn new(pins: &Arc<AtomicUsize>) -> Self {
        pins.fetch_add(1, Ordering::AcqRel);
        Pin(pins.clone())
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Folding {
    pub(super) fn new(base: Option<BaseFile>) -> Self {
        Folding {
            base,
            running: Weak::new(),
            distrusted: false,
            pins: Arc::default(),
            leftover: VecDeque::new(),
        }
    }

    fn is_running(&self) -> bool {
        self.running.strong_count() > 0
    }

    fn folded_to(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.end.durable.end)
    }
}

impl Store {
    /// Whether so much of the log is checkpointed and not yet folded that a fold is due: a segment
    /// at least, and a log of a quarter more than what a fold would leave. A log that holds nothing
    /// but new records is all of what a fold leaves, so while they come none is due.
    pub fn wants_fold(&self) -> bool {
        let base = self.folding.base.as_ref().map_or(0, |base| base.len);
        let tail = self.state.reached().saturating_sub(self.folding.folded_to());
        let sums = &self.state.newest().base.sums;
        let derived: u64 = self.apply.derived().iter().map(|space| sums.of(*space).bytes).sum();
        let left = base.max(sums.bytes().saturating_sub(derived));
        !self.folding.is_running()
            && tail > self.options.segment_size
            && base.saturating_add(tail) > left.saturating_add(left / 4)
    }

    /// Begins to fold the log up to the last checkpoint, to be run on any thread while commits and
    /// checkpoints go on. `None` if one is under way or a rebuild, which may read the log that a
    /// fold removes, or if nothing was checkpointed since the last.
    pub fn begin_fold(&mut self, history: &History) -> Result<Option<FoldJob>, StoreError> {
        self.writer.check_poison()?;
        let base = self.state.newest().base.clone();
        let is_free = !self.folding.is_running() && !self.state.is_rebuilding();
        let Some(watermark) = base.watermark.filter(|_| is_free) else { return Ok(None) };
        let position = watermark.durable.end;
        if position <= self.folding.folded_to() {
            return Ok(None);
        }
        let since_ms = history.now_ms.saturating_sub(history.keep_ms);
        let earlier = self.folding.base.as_ref().map_or(&[][..], |base| &base.end.marks);
        let now = Mark { position, time_ms: history.now_ms };
        let marks = marks_with(earlier, now, since_ms);
        let old = marks.iter().filter(|mark| mark.time_ms <= since_ms).map(|mark| mark.position);
        let keep_from = old.max().unwrap_or(0).max(self.behind_erased(history.erased_before));
        let running = Arc::new(());
        self.folding.running = Arc::downgrade(&running);
        Ok(Some(FoldJob {
            disk: self.disk.clone(),
            apply: self.apply.clone(),
            entropy: self.writer.entropy().clone(),
            base,
            watermark,
            marks,
            keep_from,
            running,
        }))
    }

    /// A position behind the whole segment that holds what was erased: only whole ones go.
    fn behind_erased(&self, erased_before: u64) -> u64 {
        let erased = erased_before.checked_sub(1).and_then(|at| self.writer.reader().locate(at));
        erased.map_or(0, |(_, end)| end.map_or(erased_before, |end| end.saturating_add(1)))
    }

    /// Takes the result of a fold in and removes what the new base stands for. An error leaves all
    /// as it was; after [`StoreError::StateDamaged`] the state has lost rows and
    /// [`Store::begin_rebuild`] makes it anew from the log.
    pub fn finish_fold(&mut self, done: FoldDone) -> Result<(), StoreError> {
        self.folding.running = Weak::new();
        let Folded { base, unkept, keep_from } = match done.result {
            Ok(folded) => folded,
            Err(error) => {
                self.folding.distrusted |= matches!(error, StoreError::StateDamaged { .. });
                return Err(error);
            }
        };
        unkept.keep();
        let old = self.folding.base.replace(base);
        self.folding.leftover.extend(old.map(|old| old.segment.number()));
        let gone = self.writer.reader().drop_before(keep_from);
        self.folding.leftover.extend(gone.iter().map(|segment| segment.number()));
        self.remove_leftover()
    }

    /// Runs a fold to its end, blocking, after a checkpoint; false if there is nothing to fold.
    /// A state that has lost rows is made anew first. On a full disk, where no checkpoint can be
    /// written, what the last one brought is folded, and then there is room for the next.
    pub fn fold(&mut self, history: &History) -> Result<bool, StoreError> {
        if self.checkpoint().is_err() && self.fold_checkpointed(history)? {
            self.checkpoint()?;
        }
        self.fold_checkpointed(history)
    }

    fn fold_checkpointed(&mut self, history: &History) -> Result<bool, StoreError> {
        let Some(job) = self.begin_fold(history)? else { return Ok(false) };
        match self.finish_fold(job.run()) {
            Err(StoreError::StateDamaged { .. }) => {}
            done => return done.map(|()| true),
        }
        if let Some(job) = self.begin_rebuild()? {
            self.finish_rebuild(job.run())?;
        }
        let Some(job) = self.begin_fold(history)? else { return Ok(false) };
        self.finish_fold(job.run()).map(|()| true)
    }

    /// Removes files that nothing needs, unless someone is reading them; also tried by each fold.
    fn remove_leftover(&mut self) -> Result<(), StoreError> {
        while self.folding.pins.load(Ordering::Acquire) == 0 {
            let Some(number) = self.folding.leftover.front() else { break };
            match self.disk.remove(*number) {
                // Whoever removed it: it is gone.
                Ok(()) | Err(DiskError::NotFound { .. }) => {
                    self.folding.leftover.pop_front();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the state file has grown far beyond what it holds, or has lost rows.
    pub fn wants_rebuild(&self) -> bool {
        let held = self.state.newest().base.sums.bytes();
        let taken = self.state.file().allocated().unwrap_or(0).saturating_sub(SLACK_FROM);
        let beyond = |percent: u64, of: u64| taken > of / 100 * percent;
        let grown = beyond(SLACK_PERCENT, held) && beyond(GROWTH_PERCENT, self.state.fresh_bytes());
        self.is_distrusted() || grown
    }

    /// Whether the state has lost rows, or a read has met damage.
    fn is_distrusted(&self) -> bool {
        self.folding.distrusted || self.state.met_damage()
    }

    /// Begins to make the state anew in another file, to be run on any thread while commits go on:
    /// from its own rows if they are whole, else from base and log. `None` while a checkpoint or a
    /// fold runs, or if there is no checkpoint yet. No checkpoint begins until it has ended.
    pub fn begin_rebuild(&mut self) -> Result<Option<RebuildJob>, StoreError> {
        self.writer.check_poison()?;
        if self.folding.is_running() {
            return Ok(None);
        }
        let Some((base, watermark, cancelled)) = self.state.begin_rebuild() else {
            return Ok(None);
        };
        let source = match self.is_distrusted() {
            true => Source::Log(self.writer.reader().clone(), self.folding.base.clone()),
            false => Source::Rows(base),
        };
        Ok(Some(RebuildJob {
            disk: self.disk.clone(),
            apply: self.apply.clone(),
            source,
            watermark,
            cache_bytes: self.options.cache_bytes,
            replay_bytes: self.options.replay_bytes,
            cancelled,
        }))
    }

    /// Asks a running rebuild to give up, if it only gives space back: a checkpoint is needed.
    pub fn cancel_rebuild(&self) {
        self.state.cancel_rebuild();
    }

    /// Takes the result of a rebuild in; the old state file goes. An error leaves all as it was.
    pub fn finish_rebuild(&mut self, done: RebuildDone) -> Result<(), StoreError> {
        let standing = self.state.newest().base.watermark;
        let (made, error) = match done.result {
            // One that stands for another position would show a state that never was.
            Ok(Some((made, _))) if made.base.watermark != standing => {
                let file = made.file.number();
                let reason = "the state that was made anew stands for another position".to_owned();
                (None, Some(StoreError::StateUnavailable { file, reason }))
            }
            Ok(made) => {
                let kept = |(made, unkept): (_, Unkept)| {
                    unkept.keep();
                    made
                };
                (made.map(kept), None)
            }
            Err(error) => (None, Some(error)),
        };
        if matches!(error, Some(StoreError::StateDamaged { .. })) {
            self.folding.distrusted = true;
        }
        if let Some(old) = self.state.replace(made) {
            self.folding.distrusted = false;
            self.publish(self.view().position());
            self.disk.remove(old.number())?;
        }
        error.map_or(Ok(()), Err)
    }

    /// Keeps every file of the log in place while the pin is held.
    pub(crate) fn pin(&self) -> Pin {
        Pin::new(&self.folding.pins)
    }

    pub(crate) fn base(&self) -> Option<&BaseFile> {
        self.folding.base.as_ref()
    }
}
