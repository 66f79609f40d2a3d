//! The log folded into a state that nobody reads yet.

use std::ops::ControlFlow;

use lastword_core::plant::{Plant, planted};

use crate::error::StoreError;
use crate::oplog::{Durable, FIRST_FREE_KIND, FrameRef, LogReader};
use crate::state::{LiveState, Watermark};

/// A state on its way to the end of its log.
pub(crate) struct Replay<'a> {
    state: &'a mut LiveState,
    /// Position of the first frame.
    from: u64,
    /// Memory that frames may take before they go into redb, in bytes.
    cap: usize,
    frames: u64,
    /// What went wrong before the log was known to be whole.
    failed: Option<StoreError>,
}

impl std::fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("state", &self.state).finish_non_exhaustive()
    }
}

impl<'a> Replay<'a> {
    pub(crate) fn new(state: &'a mut LiveState, cap: usize) -> Self {
        state.keep_versions(false);
        let from = state.newest().position();
        Replay { state, from, cap, frames: 0, failed: None }
    }

    /// Takes the next frame of a log that may turn out to be damaged behind it. Nothing goes into
    /// redb: what does not fit into memory is left to `fold`, and so are errors, since damage is
    /// named first.
    pub(crate) fn try_next(&mut self, frame: FrameRef<'_>) {
        if self.failed.is_none() && self.state.active_bytes() < self.cap {
            self.failed = self.next(frame).err();
        }
    }

    /// Folds the rest of the log up to `end`, which is durable, with checkpoints on the way, and
    /// returns how many frames the state took in all.
    pub(crate) fn fold(mut self, log: &LogReader, end: u64) -> Result<u64, StoreError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut checkpoint_at = self.cap;
        log.scan(self.state.newest().position(), end, |frame| {
            self.next(frame)?;
            if self.state.active_bytes() >= checkpoint_at {
                // A full disk must not keep the store from being read: the log has everything, and
                // it is tried again after as much more.
                checkpoint_at = match self.checkpoint(log, frame) {
                    Ok(()) => self.cap,
                    Err(_) => self.state.active_bytes() + self.cap,
                };
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.state.keep_versions(true);
        Ok(self.frames)
    }

    fn next(&mut self, frame: FrameRef<'_>) -> Result<(), StoreError> {
        let skipped = planted(Plant::SkipAFrame) && frame.position == self.from;
        if frame.kind < FIRST_FREE_KIND || skipped {
            self.state.pass(frame.end());
            return Ok(());
        }
        self.state.apply(frame)?;
        self.frames += 1;
        Ok(())
    }

    /// Writes what was folded up to `last` into redb.
    fn checkpoint(&mut self, log: &LogReader, last: FrameRef<'_>) -> Result<(), StoreError> {
        let Some((segment, _)) = log.locate(last.position) else { return Ok(()) };
        let header = &segment.header;
        let durable = Durable { end: last.end(), group: last.group };
        let mark = Watermark { log_id: header.log_id, salt: header.salt, durable };
        match self.state.freeze(mark)? {
            Some(job) => self.state.finish(job.run()).map(drop),
            None => Ok(()),
        }
    }
}
