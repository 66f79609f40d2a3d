//! A state made anew in a fresh file: from its own rows, to give space back, or from base and log,
//! because it has lost some.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, Unkept};
use crate::error::StoreError;
use crate::limits::COPY_ROWS;
use crate::oplog::{BaseFile, LogReader};
use crate::state::{Apply, Base, LiveState, Merged, OpenState, StateSums, Watermark, create_state};

use super::{Replay, load};

/// Where the rows of the new state come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The old state's own rows.
    Rows(Arc<Base>),
    /// The base, if there is one, and the log behind it.
    Log(LogReader, Option<BaseFile>),
}

/// A state to be made anew on any thread, see
/// [`Store::begin_rebuild`](crate::Store::begin_rebuild). Dropping it, or its result, ends the
/// rebuild and leaves nothing of it.
#[must_use = "run it, then hand the result to `finish_rebuild`"]
pub struct RebuildJob {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) apply: Arc<dyn Apply>,
    pub(crate) source: Source,
    /// What the new state stands for.
    pub(crate) watermark: Watermark,
    pub(crate) cache_bytes: usize,
    pub(crate) replay_bytes: usize,
    /// Whether it is to give up; a rebuild is under way for as long as this is held. Goes last.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl std::fmt::Debug for RebuildJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RebuildJob").field("source", &self.source).finish_non_exhaustive()
    }
}

/// The result of a [`RebuildJob`].
#[must_use = "hand it to `finish_rebuild`"]
pub struct RebuildDone {
    /// `None` if it was cancelled.
    pub(crate) result: Result<Option<(OpenState, Unkept)>, StoreError>,
    pub(crate) _running: Arc<AtomicBool>,
}

impl std::fmt::Debug for RebuildDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = self.result.as_ref().err();
        f.debug_struct("RebuildDone").field("error", &error).finish_non_exhaustive()
    }
}

impl RebuildJob {
    /// Makes the new state. Of one that fails or is cancelled nothing is left.
    pub fn run(self) -> RebuildDone {
        let running = self.cancelled.clone();
        let made = create_state(&*self.disk, self.watermark.log_id, self.cache_bytes);
        let result = made.and_then(|made| {
            let unkept = Unkept::new(&self.disk, made.file.number());
            Ok(self.fill(made)?.map(|made| (made, unkept)))
        });
        RebuildDone { result, _running: running }
    }

    fn fill(self, made: OpenState) -> Result<Option<OpenState>, StoreError> {
        match &self.source {
            Source::Rows(base) => self.copy(base.clone(), made),
            Source::Log(log, base) => self.fold(log, base.as_ref(), made).map(Some),
        }
    }

    fn copy(&self, base: Arc<Base>, made: OpenState) -> Result<Option<OpenState>, StoreError> {
        let mut rows = Merged::new(base, Arc::default());
        let mut write = made.tables.begin(StateSums::default())?;
        let (mut chunk, mut ended) = (Vec::new(), false);
        while !ended {
            ended = rows.chunk(COPY_ROWS, &mut chunk)?;
            write.dumped(&chunk)?;
            chunk.clear();
            if self.cancelled.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        write.commit(&self.watermark)?;
        let base = Arc::new(made.tables.base()?);
        Ok(Some(OpenState { base, ..made }))
    }

    fn fold(
        &self,
        log: &LogReader,
        base: Option<&BaseFile>,
        made: OpenState,
    ) -> Result<OpenState, StoreError> {
        let (apply, cap) = (&self.apply, self.replay_bytes);
        let mut state = LiveState::new(apply.clone(), made);
        if let Some(base) = base {
            load(&mut state, &**apply, base, cap)?;
        }
        Replay::new(&mut state, cap).fold(log, self.watermark.durable.end)?;
        // A checkpoint on the way that failed has left a frozen delta, which goes first.
        while let Some(job) = state.freeze(self.watermark)? {
            state.finish(job.run())?;
        }
        state.into_opened()
    }
}
