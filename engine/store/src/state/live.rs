//! The state as the writer holds it: folds frames, freezes deltas, takes checkpoints in.

use std::sync::Arc;

use crate::error::StoreError;
use crate::oplog::FrameRef;
use crate::state::checkpoint::{CheckpointDone, CheckpointJob};
use crate::state::delta::Delta;
use crate::state::tables::{Base, StateFile, Tables, Watermark};
use crate::state::txn::{Apply, StateTxn};
use crate::state::view::View;

/// The newest state and its way into redb.
pub(crate) struct LiveState {
    apply: Arc<dyn Apply>,
    file: StateFile,
    /// `None` after a failure that redb could not be opened from again yet.
    tables: Option<Tables>,
    newest: View,
    /// Changes of the frame being folded; empty between frames.
    changes: Arc<Delta>,
    /// Watermark of the frozen delta, while there is one.
    frozen_at: Option<Watermark>,
    running: bool,
    /// Log position redb has reached.
    reached: u64,
}

impl std::fmt::Debug for LiveState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveState").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl LiveState {
    /// The state redb holds, which is that of the log up to its watermark.
    pub(crate) fn new(
        apply: Arc<dyn Apply>,
        file: StateFile,
        tables: Tables,
        base: Arc<Base>,
    ) -> Self {
        let newest = View::of_base(base);
        let reached = newest.position;
        LiveState {
            apply,
            file,
            tables: Some(tables),
            newest,
            changes: Arc::default(),
            frozen_at: None,
            running: false,
            reached,
        }
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

    /// Folds a frame: all of its changes or none.
    pub(crate) fn apply(&mut self, frame: FrameRef<'_>) -> Result<(), StoreError> {
        let mut txn = StateTxn::new(&self.newest, &self.changes, frame.position);
        if let Err(source) = self.apply.apply(frame, &mut txn) {
            self.changes.clear();
            let source = Arc::new(source);
            return Err(StoreError::Apply { position: frame.position, source });
        }
        self.newest.active.absorb(&self.changes);
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
        if self.running || !self.has_changes() && watermark.durable.end == self.reached {
            return Ok(None);
        }
        let tables = match &self.tables {
            Some(tables) => tables.clone(),
            None => self.recover()?,
        };
        if self.frozen_at.is_none() {
            self.newest.frozen = Some(std::mem::take(&mut self.newest.active));
            self.frozen_at = Some(watermark);
        }
        let (Some(watermark), Some(frozen)) = (self.frozen_at, self.newest.frozen.clone()) else {
            return Ok(None);
        };
        self.running = true;
        Ok(Some(CheckpointJob { tables, frozen, watermark }))
    }

    /// Takes the result in. A failed checkpoint leaves the frozen delta for the next try.
    pub(crate) fn finish(&mut self, done: CheckpointDone) -> Result<(), StoreError> {
        self.running = false;
        match done.result {
            Ok(base) => {
                self.settle(base);
                Ok(())
            }
            Err(error) => {
                // redb refuses even reads after a failed write, so it is opened again at once. If
                // that fails too, the next checkpoint tries once more.
                self.tables = None;
                let _ = self.recover();
                Err(error)
            }
        }
    }

    fn recover(&mut self) -> Result<Tables, StoreError> {
        let (tables, base) = self.file.recover()?;
        self.tables = Some(tables.clone());
        self.settle(base);
        Ok(tables)
    }

    /// Reads from `base` on, and lets go of the frozen delta if it holds it.
    fn settle(&mut self, base: Base) {
        self.reached = base.watermark.map_or(0, |watermark| watermark.durable.end);
        if base.watermark == self.frozen_at {
            self.newest.frozen = None;
            self.frozen_at = None;
        }
        self.newest.base = Arc::new(base);
    }
}
