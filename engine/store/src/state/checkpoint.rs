//! The sorted write of a frozen delta, away from the writer, in slices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StoreError;
use crate::state::delta::Delta;
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

/// A checkpoint to be run on any thread; dropping it unfinished leaves the delta frozen, see
/// [`Store::begin_checkpoint`](crate::Store::begin_checkpoint).
#[derive(Debug)]
#[must_use = "run it, then hand the result to `finish_checkpoint`"]
pub struct CheckpointJob {
    tables: Tables,
    sums: StateSums,
    frozen: Arc<Delta>,
    watermark: Watermark,
    progress: Arc<Progress>,
    write: Option<StateWrite>,
    at: DeltaPlace,
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

/// The result of a checkpoint.
#[derive(Debug)]
#[must_use = "hand it to `finish_checkpoint`"]
pub struct CheckpointDone {
    pub(crate) result: Result<Base, StoreError>,
}

impl CheckpointJob {
    /// Writes the frozen delta on top of what `sums` describes.
    pub(crate) fn new(
        tables: Tables,
        sums: StateSums,
        frozen: Arc<Delta>,
        watermark: Watermark,
        progress: Arc<Progress>,
    ) -> Self {
        let at = DeltaPlace::start();
        CheckpointJob { tables, sums, frozen, watermark, progress, write: None, at }
    }

    /// Writes the frozen delta in one transaction and syncs it.
    pub fn run(self) -> CheckpointDone {
        let mut job = Box::new(self);
        loop {
            match job.step(usize::MAX) {
                Slice::More(more) => job = more,
                Slice::Done(done) => return *done,
            }
        }
    }

    /// Writes about `rows` rows more, so that a thread with other duties can do a checkpoint
    /// between them. The slices are one transaction: nothing counts before the last.
    pub fn step(mut self: Box<Self>, rows: usize) -> Slice {
        match self.slice(rows) {
            Ok(false) => Slice::More(self),
            Ok(true) => Slice::Done(Box::new(CheckpointDone { result: self.commit() })),
            Err(error) => Slice::Done(Box::new(CheckpointDone { result: Err(error) })),
        }
    }

    /// Whether everything is written.
    fn slice(&mut self, rows: usize) -> Result<bool, StoreError> {
        if self.write.is_none() {
            self.tables.reclaim()?;
            self.write = Some(self.tables.begin(self.sums)?);
        }
        let write = self.write.as_mut().expect("invariant: begun above");
        let mut left = rows;
        loop {
            let (written, ended) =
                write.delta(&self.frozen, &mut self.at, left.min(PROGRESS_ROWS))?;
            self.progress.add(written);
            left = left.saturating_sub(written as usize);
            if ended || left == 0 {
                return Ok(ended);
            }
        }
    }

    fn commit(self) -> Result<Base, StoreError> {
        self.write.expect("invariant: a slice begins it").commit(&self.watermark)?;
        self.tables.base()
    }
}
