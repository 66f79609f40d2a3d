//! The store: appends frames, folds them, commits groups, publishes views, checkpoints.
//!
//! A state machine without thread, clock or randomness of its own. One owner drives it; readers
//! hold views and handles.

mod collecting;
mod folding;
mod open;
mod options;
mod unreadable;

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use crate::blobs::Blobs;
use crate::disk::{Disk, FileKind};
use crate::error::StoreError;
use crate::limits::{MAX_FRAME, SPARES_KEPT};
use crate::oplog::{
    Commit, CommitDone, FIRST_FREE_KIND, FrameRef, LogReader, OwnedFrame, Segment, Writer,
};
use crate::state::{
    Apply, CheckpointDone, CheckpointJob, LiveState, OldViews, Retired, Space, View, Watermark,
};

use folding::Folding;
pub use folding::History;
pub(crate) use folding::Pin;
pub use options::{Durability, OpenReport, Options};

/// Hundredths of the delta from which on writes keep step with the running checkpoint.
const PACED_FROM: u64 = 50;
/// No checkpoint is due before the delta has this part of what makes one due anyway.
const EARLY_PART: usize = 4;

/// Whether a group may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// At once.
    Free,
    /// A little later: the delta fills faster than the checkpoint runs.
    Paced,
    /// Once the running work has ended: the delta is full.
    Full,
}

/// The oplog and the state folded from it.
pub struct Store {
    disk: Arc<dyn Disk>,
    apply: Arc<dyn Apply>,
    options: Options,
    writer: Writer,
    state: LiveState,
    folding: Folding,
    handle: ViewHandle,
    blobs: Arc<Blobs>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Store { writer, state, folding, .. } = self;
        f.debug_struct("Store")
            .field("writer", writer)
            .field("state", state)
            .field("folding", folding)
            .finish_non_exhaustive()
    }
}

/// Takes the latest published view and reads published frames, on any thread.
#[derive(Debug, Clone)]
pub struct ViewHandle {
    published: Arc<RwLock<Arc<View>>>,
    log: LogReader,
}

impl ViewHandle {
    /// The latest published view.
    pub fn view(&self) -> Arc<View> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A frame before the published position. Errors: [`StoreError::OutOfRange`],
    /// [`StoreError::Damaged`].
    pub fn read_frame(&self, position: u64) -> Result<OwnedFrame, StoreError> {
        self.log.read_frame(position, self.view().position())
    }

    /// Hands the published frames from `from` (the position of a frame) on to `visit`, those of
    /// the store's own kinds included, until it breaks. Reads in large chunks.
    pub fn scan_frames(
        &self,
        from: u64,
        mut visit: impl FnMut(FrameRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.log.scan(from, self.view().position(), |frame| Ok(visit(frame)))
    }

    /// First position whose frame can still be read: folds take away what lies before.
    pub fn first_position(&self) -> u64 {
        self.log.first_position()
    }

    fn publish(&self, view: View) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}

impl Store {
    /// Adds a frame to the group that waits for the next commit and folds it into the newest
    /// state; returns its position. On an error neither has changed. Errors:
    /// [`StoreError::TooLarge`], [`StoreError::GroupFull`], [`StoreError::NoSpace`],
    /// [`StoreError::StateBehind`], [`StoreError::Apply`], [`StoreError::Poisoned`].
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<u64, StoreError> {
        self.append_as(kind, payload, false)
    }

    /// As [`Store::append`], for a frame that frees space or takes an obligation off: a delete, a
    /// purge, a verdict. It may use the space that is kept back for such frames, so that a full
    /// disk does not stand in its way; what waits may be committed for it, blocking.
    pub fn append_urgent(&mut self, kind: u8, payload: &[u8]) -> Result<u64, StoreError> {
        match self.append_as(kind, payload, true) {
            Err(StoreError::NoSpace { .. }) if !self.writer.is_idle() => {
                self.commit()?;
                self.append_as(kind, payload, true)
            }
            appended => appended,
        }
    }

    fn append_as(&mut self, kind: u8, payload: &[u8], urgent: bool) -> Result<u64, StoreError> {
        if kind < FIRST_FREE_KIND {
            return Err(StoreError::ReservedKind { kind });
        }
        let (bytes, limit) = (self.delta_bytes(), self.options.delta_cap_bytes.saturating_mul(2));
        if bytes >= limit && !urgent {
            return Err(StoreError::StateBehind { bytes, limit });
        }
        self.writer.prepare(payload.len(), urgent)?;
        let position = self.writer.next_position();
        let group = self.writer.group();
        self.state.apply(FrameRef { position, kind, group, payload, starts_group: false })?;
        Ok(self.writer.push(kind, payload))
    }

    /// Where the next append will land.
    pub fn next_position(&self) -> u64 {
        self.writer.next_position()
    }

    /// Longest payload `append` takes, in bytes.
    pub const MAX_PAYLOAD: usize = MAX_FRAME;

    /// The state with every appended frame, for deciding; it is not durable.
    pub fn newest(&self) -> &View {
        self.state.newest()
    }

    /// Writes the group that waits and begins its sync. `None` if nothing waits or a commit is
    /// under way. Appends may go on meanwhile; they belong to the next group. Errors:
    /// [`StoreError::OutcomeUnknown`], after which the store takes no writes.
    pub fn start_commit(&mut self) -> Result<Option<Commit>, StoreError> {
        self.writer.start(self.options.durability == Durability::Always, false)
    }

    /// Takes the result of a commit and publishes its view; returns the published position.
    /// Errors: [`StoreError::OutcomeUnknown`].
    pub fn finish_commit(&mut self, done: CommitDone) -> Result<u64, StoreError> {
        let end = self.writer.finish(done)?;
        self.publish(end);
        Ok(end)
    }

    /// Commits what waits, blocking; returns the published position. Errors: as `start_commit`, and
    /// [`StoreError::Busy`] while a commit is under way.
    pub fn commit(&mut self) -> Result<u64, StoreError> {
        self.writer.check_no_commit()?;
        match self.start_commit()? {
            Some(commit) => self.finish_commit(commit.wait()),
            None => Ok(self.view().position()),
        }
    }

    /// Makes everything appended durable, whatever the durability, blocking. Errors: as `commit`.
    pub fn sync(&mut self) -> Result<u64, StoreError> {
        self.writer.check_no_commit()?;
        match self.writer.start(true, true)? {
            Some(commit) => self.finish_commit(commit.wait()),
            None => Ok(self.view().position()),
        }
    }

    /// Writes, without a sync, the empty frame that proves the last group was durable. To be
    /// called after a commit when no request waits; does nothing where there is nothing to prove.
    pub fn prove(&mut self) -> Result<(), StoreError> {
        self.writer.prove()
    }

    /// The latest published view.
    pub fn view(&self) -> Arc<View> {
        self.handle.view()
    }

    /// A handle from which any thread takes views and reads frames.
    pub fn view_handle(&self) -> ViewHandle {
        self.handle.clone()
    }

    /// The frame at `position`, also one that is not committed yet. Errors:
    /// [`StoreError::OutOfRange`], [`StoreError::Damaged`].
    pub fn read_frame(&self, position: u64) -> Result<OwnedFrame, StoreError> {
        self.writer.read_frame(position)
    }

    /// Ends the segment that takes frames, between commits: the next frame begins another, and what
    /// is in this one can be folded away as a whole.
    ///
    /// # Errors
    /// [`StoreError`] if the store is poisoned, a commit runs, or there is no space.
    pub fn end_segment(&mut self) -> Result<(), StoreError> {
        self.writer.end_segment()
    }

    /// First position of the log that can still be read.
    pub fn first_position(&self) -> u64 {
        self.writer.reader().first_position()
    }

    /// The position that the last checkpoint has reached.
    pub fn checkpointed_to(&self) -> u64 {
        self.state.reached()
    }

    /// Rows of a space at the last checkpoint.
    pub fn checkpointed_rows(&self, space: Space) -> u64 {
        self.state.newest().base.sums.of(space).rows
    }

    /// Bytes of the delta that takes changes; at `delta_cap_bytes` the caller should wait for the
    /// running checkpoint before it appends more.
    pub fn delta_bytes(&self) -> usize {
        self.state.active_bytes()
    }

    /// Whether the next group may go on: half of the delta may fill while none of the running
    /// checkpoint is written, all of it by the time that ends. The caller lets a paced group wait
    /// for some milliseconds, and a full delta until the running work has ended.
    pub fn room(&self) -> Room {
        let cap = self.options.delta_cap_bytes.max(1);
        let filled = self.delta_bytes() as u64 * 100 / cap as u64;
        match self.state.checkpoint_percent() {
            Some(_) if filled >= 100 => Room::Full,
            Some(written) if filled > PACED_FROM + written * (100 - PACED_FROM) / 100 => {
                Room::Paced
            }
            Some(_) => Room::Free,
            None if self.state.is_rebuilding() && filled >= PACED_FROM => {
                self.cancel_rebuild();
                if filled >= 100 { Room::Full } else { Room::Free }
            }
            None => Room::Free,
        }
    }

    /// Views that read what the last checkpoint or rebuild has replaced, once. They keep old pages
    /// of redb in its file, so they should expire after a while.
    pub fn take_old_views(&mut self) -> Option<OldViews> {
        self.state.take_old_views()
    }

    /// Whether the delta or the log since the last checkpoint has grown enough for one. Where its
    /// rows will be written in place and lie far apart, a smaller delta is enough: copied pages are
    /// free one checkpoint later only, so smaller checkpoints keep the state file small.
    pub fn wants_checkpoint(&self) -> bool {
        let log = self.writer.durable().end.saturating_sub(self.state.reached());
        let (delta, full) = (self.state.active_bytes(), self.options.delta_cap_bytes / 2);
        delta >= full
            || log >= self.options.checkpoint_log_bytes
            || delta >= full / EARLY_PART && self.state.copies_much(full)
    }

    /// Freezes the delta for a checkpoint, to be run on any thread. To be called between commits:
    /// `None` while frames wait or a commit or checkpoint is under way, or if nothing has changed.
    /// A delta whose checkpoint failed is taken up again. Without [`Durability::Always`] it syncs
    /// the log first, which may fail as a commit does. Errors: [`StoreError::Poisoned`], since the
    /// delta may then hold what the log does not.
    pub fn begin_checkpoint(&mut self) -> Result<Option<CheckpointJob>, StoreError> {
        self.writer.check_poison()?;
        if !self.writer.is_idle() {
            return Ok(None);
        }
        if self.options.durability != Durability::Always {
            self.sync()?;
        }
        let segment = &self.writer.current().header;
        let durable = self.writer.durable();
        let job =
            self.state.freeze(Watermark { log_id: segment.log_id, salt: segment.salt, durable })?;
        self.publish(self.view().position());
        Ok(job)
    }

    /// Takes the result of a checkpoint in and hands out what it has replaced, to be dropped where
    /// that holds nobody up. An error leaves the log and all views as they were;
    /// the delta stays frozen until a later checkpoint succeeds. Views taken before the failure may
    /// answer [`StoreError::StateUnavailable`]; the latest view does not.
    pub fn finish_checkpoint(&mut self, done: CheckpointDone) -> Result<Retired, StoreError> {
        let finished = self.state.finish(done);
        self.publish(self.view().position());
        finished
    }

    /// Runs a checkpoint to its end, blocking, if there is anything to write.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        match self.begin_checkpoint()? {
            Some(job) => self.finish_checkpoint(job.run()).map(drop),
            None => Ok(()),
        }
    }

    /// Commits what waits, checkpoints, ends the log so that the next open goes on in the same
    /// segment, and gives all spares but one back. A checkpoint that fails is not an error: the
    /// next open folds the log instead. Errors: as `commit`.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.sync()?;
        // The second freezes what a failed or running one had left behind.
        for _ in 0..2 {
            if self.checkpoint().is_err() {
                break;
            }
        }
        self.writer.close()?;
        let files = self.disk.list()?;
        let spares = files.iter().filter(|file| file.kind == FileKind::Spare);
        for spare in spares.skip(SPARES_KEPT) {
            self.disk.remove(spare.number)?;
        }
        Ok(())
    }

    /// The chunks of files, for those who store and read them on other threads.
    pub fn blobs(&self) -> &Arc<Blobs> {
        &self.blobs
    }

    /// The segments of the log.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.writer.reader().segments()
    }

    /// Publishes the state up to `position`, which has been committed.
    fn publish(&self, position: u64) {
        let mut view = self.state.newest().clone();
        view.position = position;
        self.handle.publish(view);
    }
}
