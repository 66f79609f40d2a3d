//! The sorted write of a frozen delta, away from the writer, in slices.
//!
//! Where most rows have changed, redb would copy nearly every page of its tree and its file would
//! grow to a multiple of what it holds. Then old rows and changes are merged into a new file
//! instead: sorted, in one go, and small.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{Disk, Unkept};
use crate::error::StoreError;
use crate::limits::COPY_ROWS;
use crate::state::delta::Delta;
use crate::state::dump::Merged;
use crate::state::file::{OpenState, create_state};
use crate::state::sums::StateSums;
use crate::state::tables::{Base, DeltaPlace, StateWrite, Tables, Watermark};

/// Rows after which the progress is told.
const PROGRESS_ROWS: usize = 4096;

/// How far a checkpoint has come, for whoever paces writes meanwhile.
#[derive(Debug)]
pub(crate) struct Progress {
    done: AtomicU64,
    total: u64,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Self {
        Progress { done: AtomicU64::new(0), total }
    }

    /// Rows written, in hundredths of all.
    pub(crate) fn percent(&self) -> u64 {
        let done = self.done.load(Ordering::Relaxed).min(self.total);
        (done * 100).checked_div(self.total).unwrap_or(100)
    }

    fn add(&self, rows: u64) {
        self.done.fetch_add(rows, Ordering::Relaxed);
    }
}

/// A checkpoint to be run on any thread, see
/// [`Store::begin_checkpoint`](crate::Store::begin_checkpoint). Dropping it, or its result, ends
/// the checkpoint: the delta stays frozen for the next one, and nothing is left of a new file.
#[derive(Debug)]
#[must_use = "run it, then hand the result to `finish_checkpoint`"]
pub struct CheckpointJob {
    pub(crate) watermark: Watermark,
    pub(crate) way: Way,
    /// A checkpoint is under way for as long as it is held; goes last.
    pub(crate) progress: Arc<Progress>,
}

/// How a checkpoint is written.
#[derive(Debug)]
pub(crate) enum Way {
    /// On top of what redb holds.
    InPlace(Box<InPlace>),
    /// Everything anew, in another file.
    Anew(Box<Anew>),
}

/// Changes on top of what `sums` describes.
#[derive(Debug)]
pub(crate) struct InPlace {
    pub(crate) tables: Tables,
    pub(crate) sums: StateSums,
    pub(crate) frozen: Arc<Delta>,
    pub(crate) write: Option<StateWrite>,
    pub(crate) at: DeltaPlace,
}

/// Old rows and changes merged into a new file.
#[derive(Debug)]
pub(crate) struct Anew {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log_id: [u8; 16],
    pub(crate) cache_bytes: usize,
    pub(crate) merged: Merged,
    pub(crate) made: Option<(StateWrite, OpenState, Unkept)>,
}

/// What a slice of a checkpoint left.
#[derive(Debug)]
#[must_use = "go on with it, or hand the result to `finish_checkpoint`"]
pub enum Slice {
    /// There is more to write.
    More(Box<CheckpointJob>),
    /// The checkpoint has ended.
    Done(Box<CheckpointDone>),
}

/// What redb holds after a checkpoint.
pub(crate) enum Written {
    InPlace(Box<Base>),
    Anew(Box<OpenState>, Unkept),
}

/// The result of a checkpoint.
#[must_use = "hand it to `finish_checkpoint`"]
pub struct CheckpointDone {
    pub(crate) result: Result<Written, StoreError>,
    pub(crate) _running: Arc<Progress>,
}

/// What a checkpoint has replaced: rows in memory, and redb's database of a file that a new one
/// replaced. Dropping it frees them, which takes up to a second for a large delta, so not on the
/// thread that commits. A view that reads the rows keeps them.
#[derive(Debug)]
pub struct Retired {
    pub(crate) _delta: Option<Arc<Delta>>,
    pub(crate) _tables: Option<Tables>,
}

impl std::fmt::Debug for CheckpointDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = self.result.as_ref().err();
        f.debug_struct("CheckpointDone").field("error", &error).finish_non_exhaustive()
    }
}

impl CheckpointJob {
    /// Writes the frozen delta in one transaction and syncs it.
    pub fn run(self) -> CheckpointDone {
        let mut job = self;
        loop {
            match job.step(usize::MAX) {
                Slice::More(more) => job = *more,
                Slice::Done(done) => return *done,
            }
        }
    }

    /// Writes about `rows` rows more, so that a thread with other duties can do a checkpoint
    /// between them. The slices are one transaction: nothing counts before the last.
    pub fn step(mut self, rows: usize) -> Slice {
        let progress = self.progress.clone();
        let ended = match &mut self.way {
            Way::InPlace(way) => way.slice(rows, &progress),
            Way::Anew(way) => way.slice(rows, &progress),
        };
        let result = match (ended, self.way) {
            (Ok(false), way) => {
                let watermark = self.watermark;
                return Slice::More(Box::new(CheckpointJob { watermark, way, progress }));
            }
            (Ok(true), Way::InPlace(way)) => way.commit(&self.watermark),
            (Ok(true), Way::Anew(way)) => way.commit(&self.watermark),
            (Err(error), _) => Err(error),
        };
        Slice::Done(Box::new(CheckpointDone { result, _running: progress }))
    }
}

impl InPlace {
    /// Whether everything is written.
    fn slice(&mut self, rows: usize, progress: &Progress) -> Result<bool, StoreError> {
        if self.write.is_none() {
            self.tables.reclaim()?;
            self.write = Some(self.tables.begin(self.sums)?);
        }
        let write = self.write.as_mut().expect("invariant: begun above");
        let mut left = rows;
        loop {
            let (written, ended) =
                write.delta(&self.frozen, &mut self.at, left.min(PROGRESS_ROWS))?;
            progress.add(written);
            left = left.saturating_sub(written as usize);
            if ended || left == 0 {
                return Ok(ended);
            }
        }
    }

    fn commit(self, watermark: &Watermark) -> Result<Written, StoreError> {
        self.write.expect("invariant: a slice begins it").commit(watermark)?;
        Ok(Written::InPlace(Box::new(self.tables.base()?)))
    }
}

impl Anew {
    fn slice(&mut self, rows: usize, progress: &Progress) -> Result<bool, StoreError> {
        if self.made.is_none() {
            let made = create_state(&*self.disk, self.log_id, self.cache_bytes)?;
            let unkept = Unkept::new(&self.disk, made.file.number());
            let write = made.tables.begin(StateSums::default())?;
            self.made = Some((write, made, unkept));
        }
        let (write, ..) = self.made.as_mut().expect("invariant: made above");
        let (mut left, mut chunk) = (rows, Vec::new());
        loop {
            let ended = self.merged.chunk(left.min(COPY_ROWS), &mut chunk)?;
            write.dumped(&chunk)?;
            progress.add(chunk.len() as u64);
            left = left.saturating_sub(chunk.len());
            chunk.clear();
            if ended || left == 0 {
                return Ok(ended);
            }
        }
    }

    fn commit(self, watermark: &Watermark) -> Result<Written, StoreError> {
        let (write, made, unkept) = self.made.expect("invariant: a slice begins it");
        let base = write.commit(watermark).and_then(|()| made.tables.base())?;
        let made = OpenState { base: Arc::new(base), ..made };
        Ok(Written::Anew(Box::new(made), unkept))
    }
}
