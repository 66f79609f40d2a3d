//! The state as the writer holds it: folds frames, freezes deltas, takes checkpoints in.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use lastword_core::plant::{Plant, planted};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::oplog::FrameRef;
use crate::state::checkpoint::{
    Anew, CheckpointDone, CheckpointJob, InPlace, Progress, Retired, Way, Written,
};
use crate::state::delta::Delta;
use crate::state::dump::Merged;
use crate::state::file::{OpenState, StateFile};
use crate::state::spread;
use crate::state::sums::StateSums;
use crate::state::tables::{Base, DeltaPlace, OldViews, StateWrite, Tables, Watermark};
use crate::state::txn::{Apply, StateTxn};
use crate::state::view::View;

/// What a changed row costs in place, in bytes: redb copies the page it is in, and the page that
/// was copied can be used again one checkpoint later only. A checkpoint writes all rows anew if
/// that is less.
const IN_PLACE_COST: u64 = 2 * 4096;

/// A checkpoint in place is due early once the pages that it copies are this part of the state.
const COPIED_PART: u64 = 4;

/// A state of more bytes than so many full deltas is not written anew: the next delta would be full
/// long before it ends, and writers would wait for it.
const ANEW_MOST_DELTAS: u64 = 10;

/// The newest state and its way into redb.
pub(crate) struct LiveState {
    apply: Arc<dyn Apply>,
    file: StateFile,
    /// `None` after a failure that redb could not be opened from again yet.
    tables: Option<Tables>,
    newest: View,
    /// Changes of the frame being folded; empty between frames.
    changes: Arc<Delta>,
    /// Whether rows keep the versions that views may read.
    keep_versions: bool,
    /// Watermark of the frozen delta, while there is one.
    frozen_at: Option<Watermark>,
    /// Of the checkpoint that runs, for as long as its job or result is there.
    running: Weak<Progress>,
    running_anew: bool,
    /// Whether the last checkpoint wrote a new file and failed: there may be no room for one.
    anew_failed: bool,
    /// Asks the rebuild that runs to give up; there as long as its job or result is.
    rebuilding: Weak<AtomicBool>,
    /// Log position redb has reached.
    reached: u64,
    old_views: Option<OldViews>,
    /// Where a new state file is made: from which length of the old one on, and below how many
    /// bytes of rows.
    anew: Option<(Arc<dyn Disk>, Range<u64>)>,
    met_damage: bool,
    /// Bytes that the file took on the disk when it was last made anew.
    fresh_bytes: u64,
    /// How many in a hundred rows of the delta that was frozen last lay apart from the others: what
    /// is to be expected of the next one.
    lone_percent: u64,
}

impl std::fmt::Debug for LiveState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveState").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl LiveState {
    /// The state redb holds, which is that of the log up to its watermark.
    pub(crate) fn new(apply: Arc<dyn Apply>, opened: OpenState) -> Self {
        let newest = View::of_base(opened.base);
        let reached = newest.position;
        LiveState {
            apply,
            file: opened.file,
            tables: Some(opened.tables),
            newest,
            changes: Arc::default(),
            keep_versions: true,
            frozen_at: None,
            running: Weak::new(),
            running_anew: false,
            anew_failed: false,
            rebuilding: Weak::new(),
            reached,
            old_views: None,
            anew: None,
            met_damage: false,
            fresh_bytes: 0,
            lone_percent: 100,
        }
    }

    /// What was opened, with all that checkpoints have brought since.
    pub(crate) fn into_opened(mut self) -> Result<OpenState, StoreError> {
        let (file, tables) = (self.file.clone(), self.tables.take());
        let reason = "redb failed and could not be opened again".to_owned();
        let failed = StoreError::StateUnavailable { file: file.number(), reason };
        Ok(OpenState {
            file,
            tables: tables.ok_or(failed)?,
            base: self.newest.base.clone(),
            fresh: false,
        })
    }

    /// Begins to fill an empty state.
    pub(crate) fn begin_load(&self) -> Result<StateWrite, StoreError> {
        let tables = self.tables.as_ref().expect("invariant: a new state has not failed");
        tables.begin(StateSums::default())
    }

    /// The state now is what was filled in, and stands for the log up to `watermark`.
    pub(crate) fn finish_load(
        &mut self,
        write: StateWrite,
        watermark: Watermark,
    ) -> Result<(), StoreError> {
        write.commit(&watermark)?;
        let tables = self.tables.as_ref().expect("invariant: a new state has not failed");
        self.newest = View::of_base(Arc::new(tables.base()?));
        self.reached = self.newest.position;
        Ok(())
    }

    /// Whether rows keep order and versions; off only while no view reads.
    pub(crate) fn keep_versions(&mut self, keep: bool) {
        self.keep_versions = keep;
        match keep {
            true => self.newest.active.sort(),
            false if self.newest.active.is_empty() => self.newest.active = self.new_delta(),
            false => {}
        }
    }

    fn new_delta(&self) -> Arc<Delta> {
        if self.keep_versions { Arc::default() } else { Arc::new(Delta::unsorted()) }
    }

    pub(crate) fn file(&self) -> &StateFile {
        &self.file
    }

    /// The state after the last frame folded.
    pub(crate) fn newest(&self) -> &View {
        &self.newest
    }

    /// Log position redb has reached.
    pub(crate) fn reached(&self) -> u64 {
        self.reached
    }

    /// Bytes of the delta that takes changes.
    pub(crate) fn active_bytes(&self) -> usize {
        self.newest.active.bytes()
    }

    pub(crate) fn has_changes(&self) -> bool {
        self.frozen_at.is_some() || !self.newest.active.is_empty()
    }

    /// Folds a frame: all of its changes or none. While no view reads, which is in a replay, an
    /// error is the end of this state, so its changes go where they stay at once.
    pub(crate) fn apply(&mut self, frame: FrameRef<'_>) -> Result<(), StoreError> {
        let keep = self.keep_versions;
        let changes = if keep { &self.changes } else { &self.newest.active };
        let mut txn = StateTxn::new(&self.newest, changes, frame.position, keep);
        if let Err(source) = self.apply.apply(frame, &mut txn) {
            self.changes.clear();
            let source = Arc::new(source);
            return Err(StoreError::Apply { position: frame.position, source });
        }
        if keep {
            self.newest.active.absorb(&self.changes);
        }
        self.pass(frame.end());
        Ok(())
    }

    /// The state now stands for the log up to `position`.
    pub(crate) fn pass(&mut self, position: u64) {
        self.newest.position = position;
    }

    /// Freezes what has been folded, which must be durable up to `watermark`, or takes up a frozen
    /// delta whose checkpoint failed. `None` while a checkpoint runs or if nothing has changed.
    /// Errors: redb has failed and cannot be opened again yet.
    pub(crate) fn freeze(
        &mut self,
        watermark: Watermark,
    ) -> Result<Option<CheckpointJob>, StoreError> {
        if self.is_checkpointing()
            || self.is_rebuilding()
            || !self.has_changes() && watermark.durable.end == self.reached
        {
            return Ok(None);
        }
        let tables = match &self.tables {
            Some(tables) => tables.clone(),
            None => self.recover()?,
        };
        if self.frozen_at.is_some() && planted(Plant::WatermarkTooFar) {
            self.frozen_at = Some(watermark);
        }
        if self.frozen_at.is_none() {
            let fresh = self.new_delta();
            self.newest.frozen = Some(std::mem::replace(&mut self.newest.active, fresh));
            self.frozen_at = Some(watermark);
        }
        let (Some(watermark), Some(frozen)) = (self.frozen_at, self.newest.frozen.clone()) else {
            return Ok(None);
        };
        let base = &self.newest.base;
        let mut rows = frozen.rows();
        let lone = spread::lone_rows(base, &frozen);
        self.lone_percent = (lone * 100).checked_div(rows).unwrap_or(100);
        let anew = self.anew.as_ref().filter(|_| self.is_better_anew(lone) && !self.anew_failed);
        let way = match anew {
            Some((disk, _)) => {
                rows += base.sums.rows();
                Way::Anew(Box::new(Anew {
                    disk: disk.clone(),
                    log_id: watermark.log_id,
                    cache_bytes: self.file.cache_bytes(),
                    merged: Merged::new(base.clone(), frozen),
                    made: None,
                }))
            }
            None => Way::InPlace(Box::new(InPlace {
                tables,
                sums: base.sums,
                frozen,
                write: None,
                at: DeltaPlace::start(),
            })),
        };
        let progress = Arc::new(Progress::new(rows));
        self.running_anew = matches!(way, Way::Anew(_));
        self.running = Arc::downgrade(&progress);
        Ok(Some(CheckpointJob { watermark, way, progress }))
    }

    /// Checkpoints that change most rows write a new file on `disk`, if the old one has at least
    /// `from_bytes` and the rows are not many times a delta of `delta_bytes`.
    pub(crate) fn write_anew(&mut self, disk: &Arc<dyn Disk>, from_bytes: u64, delta_bytes: usize) {
        let most = ANEW_MOST_DELTAS.saturating_mul(delta_bytes as u64);
        self.anew = Some((disk.clone(), from_bytes..most));
    }

    /// Whether a checkpoint of so many rows that lie apart should write a new file.
    fn is_better_anew(&self, rows: u64) -> bool {
        let base = &self.newest.base;
        let held = base.sums.bytes();
        base.watermark.is_some()
            && held <= rows.saturating_mul(IN_PLACE_COST)
            && self
                .anew
                .as_ref()
                .is_some_and(|(_, range)| held < range.end && self.file_bytes() >= range.start)
    }

    /// Whether the delta, which will be written in place when it has `full` bytes, changes so many
    /// pages already that their copies are a large part of the file.
    pub(crate) fn copies_much(&self, full: usize) -> bool {
        let rows = self.newest.active.rows() * self.lone_percent / 100;
        let bytes = self.active_bytes() as u64;
        let held = self.newest.base.sums.bytes();
        let when_full = (rows.saturating_mul(full as u64)).checked_div(bytes).unwrap_or(0);
        let is_large = self.anew.as_ref().is_some_and(|(_, range)| held >= range.start);
        is_large
            && rows.saturating_mul(IN_PLACE_COST) >= held / COPIED_PART
            && (self.anew_failed || !self.is_better_anew(when_full))
    }

    /// Bytes that the state file took on the disk when it was last made anew; 0 if it was not.
    pub(crate) fn fresh_bytes(&self) -> u64 {
        self.fresh_bytes
    }

    fn file_bytes(&self) -> u64 {
        self.file.allocated().unwrap_or(0)
    }

    /// Whether a checkpoint has met rows that are not what was written.
    pub(crate) fn met_damage(&self) -> bool {
        self.met_damage || self.newest.base.saw_damage()
    }

    /// Hundredths of the running checkpoint that are written; `None` if none runs.
    pub(crate) fn checkpoint_percent(&self) -> Option<u64> {
        self.running.upgrade().map(|running| running.percent())
    }

    fn is_checkpointing(&self) -> bool {
        self.running.strong_count() > 0
    }

    /// Whether the state is being made anew elsewhere.
    pub(crate) fn is_rebuilding(&self) -> bool {
        self.rebuilding.strong_count() > 0
    }

    /// What redb stands for, if the state may be made anew now, and whether whoever does that shall
    /// give up; no checkpoint begins until `replace`, or until that is dropped.
    pub(crate) fn begin_rebuild(&mut self) -> Option<(Arc<Base>, Watermark, Arc<AtomicBool>)> {
        let watermark = self.newest.base.watermark?;
        if self.is_checkpointing() || self.is_rebuilding() {
            return None;
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        self.rebuilding = Arc::downgrade(&cancelled);
        Some((self.newest.base.clone(), watermark, cancelled))
    }

    /// Asks the rebuild that runs to give up, if one does.
    pub(crate) fn cancel_rebuild(&self) {
        if let Some(cancelled) = self.rebuilding.upgrade() {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Goes on in a state that was made anew, if it was, and returns the file of the old one.
    pub(crate) fn replace(&mut self, made: Option<OpenState>) -> Option<StateFile> {
        self.rebuilding = Weak::new();
        let OpenState { file, tables, base, .. } = made?;
        self.met_damage = false;
        self.tables = Some(tables);
        let old = std::mem::replace(&mut self.newest.base, base);
        self.old_views = Some(OldViews::of(&old));
        let old = std::mem::replace(&mut self.file, file);
        self.fresh_bytes = self.file_bytes();
        Some(old)
    }

    /// Takes the result in and hands out what it replaced; a file that a new one has replaced goes.
    /// A failed checkpoint leaves the frozen delta for the next try.
    pub(crate) fn finish(&mut self, done: CheckpointDone) -> Result<Retired, StoreError> {
        self.running = Weak::new();
        self.anew_failed = self.running_anew && done.result.is_err();
        match done.result {
            Ok(Written::InPlace(base)) => {
                let delta = self.settle(Arc::new(*base));
                Ok(Retired { _delta: delta, _tables: None })
            }
            Ok(Written::Anew(made, unkept)) => {
                unkept.keep();
                let OpenState { file, tables, base, .. } = *made;
                let retired =
                    Retired { _tables: self.tables.replace(tables), _delta: self.settle(base) };
                let old = std::mem::replace(&mut self.file, file);
                self.fresh_bytes = self.file_bytes();
                if let Some((disk, _)) = &self.anew {
                    disk.remove(old.number())?;
                }
                Ok(retired)
            }
            Err(error) => {
                self.met_damage |= matches!(error, StoreError::StateDamaged { .. });
                // redb refuses even reads after a failed write, so it is opened again at once. If
                // that fails too, the next checkpoint tries once more. A new file that failed does
                // not concern the old one.
                if !self.running_anew {
                    self.close();
                    let _ = self.recover();
                }
                Err(error)
            }
        }
    }

    /// redb lets go of its file.
    fn close(&mut self) {
        if let Some(tables) = self.tables.take() {
            tables.close();
        }
    }

    fn recover(&mut self) -> Result<Tables, StoreError> {
        let (tables, base) = self.file.recover()?;
        self.tables = Some(tables.clone());
        self.settle(Arc::new(base));
        Ok(tables)
    }

    /// Reads from `base` on, and hands out the frozen delta if that holds it.
    fn settle(&mut self, base: Arc<Base>) -> Option<Arc<Delta>> {
        self.reached = base.watermark.map_or(0, |watermark| watermark.durable.end);
        let mut held = None;
        if base.watermark == self.frozen_at {
            held = self.newest.frozen.take();
            self.frozen_at = None;
        }
        let old = std::mem::replace(&mut self.newest.base, base);
        self.old_views = Some(OldViews::of(&old));
        held
    }

    /// Views that read what the last checkpoint has replaced, once.
    pub(crate) fn take_old_views(&mut self) -> Option<OldViews> {
        self.old_views.take()
    }
}

impl Drop for LiveState {
    /// Views may outlive the store, and whoever opens it next opens redb's file.
    fn drop(&mut self) {
        self.close();
    }
}
