//! The part of the garbage collection that only the owner of the store can do.

use crate::blobs::GcPlan;
use crate::error::{BlobError, StoreError};
use crate::oplog::frame_len;
use crate::payload::{BlobsFrame, Payload};

use super::Store;

impl Store {
    /// Decides what a run has found, after a look at what came since, and appends that; the caller
    /// commits. Errors: [`BlobError::Folded`] if what came since is no longer in the log.
    pub fn collect(&mut self, plan: &mut GcPlan) -> Result<(), BlobError> {
        let mut at = plan.seen_to();
        if self.first_position() > at {
            return Err(BlobError::Folded);
        }
        while at < self.next_position() {
            let frame = self.read_frame(at)?;
            plan.look_at(&frame.payload);
            at += frame_len(frame.payload.len()) as u64;
        }
        let decided = plan.decide(self.newest())?;
        Ok(self.append_blobs(decided)?)
    }

    /// Says which packs hold no chunk any more; the caller commits, and then
    /// [`GcPlan::remove_packs`] removes their files.
    pub fn drop_packs(&mut self, plan: &GcPlan) -> Result<(), StoreError> {
        let gone = plan.empty_packs(self.newest())?;
        self.append_blobs(gone)
    }

    /// Frees space, so a full disk does not stand in its way.
    fn append_blobs(&mut self, frames: Vec<BlobsFrame>) -> Result<(), StoreError> {
        for frame in frames {
            let payload = Payload::Blobs(frame);
            self.append_urgent(payload.kind(), &payload.to_bytes())?;
        }
        Ok(())
    }
}
