//! The sorted write of a frozen delta, away from the writer.

use std::sync::Arc;

use crate::error::StoreError;
use crate::state::delta::Delta;
use crate::state::tables::{Base, Tables, Watermark};

/// A checkpoint to be run on any thread; dropping it unrun leaves the delta frozen, see
/// [`Store::begin_checkpoint`](crate::Store::begin_checkpoint).
#[derive(Debug)]
#[must_use = "run it, then hand the result to `finish_checkpoint`"]
pub struct CheckpointJob {
    pub(crate) tables: Tables,
    pub(crate) frozen: Arc<Delta>,
    pub(crate) watermark: Watermark,
}

/// The result of a checkpoint.
#[derive(Debug)]
#[must_use = "hand it to `finish_checkpoint`"]
pub struct CheckpointDone {
    pub(crate) result: Result<Base, StoreError>,
}

impl CheckpointJob {
    /// Writes the frozen delta in one transaction and syncs it.
    pub fn run(self) -> CheckpointDone {
        let written = self.tables.write(&self.frozen, &self.watermark);
        CheckpointDone { result: written.and_then(|()| self.tables.base()) }
    }
}
