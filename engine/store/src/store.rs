//! The store: appends frames, folds them, commits groups, publishes views, checkpoints.
//!
//! A state machine without thread, clock or randomness of its own. One owner drives it; readers
//! hold views and handles.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use crate::disk::{Disk, FileKind};
use crate::error::StoreError;
use crate::limits::{MAX_FRAME, SPARES_KEPT};
use crate::oplog::{
    self, Commit, CommitDone, Durable, Entropy, FIRST_FREE_KIND, FrameRef, LogReader, OwnedFrame,
    Recovered, Segment, Writer, WriterOptions,
};
use crate::state::{Apply, CheckpointDone, CheckpointJob, LiveState, View, Watermark, open_tables};

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After its sync.
    Always,
    /// After its write; the driver calls [`Store::sync`] at least every so many milliseconds.
    IntervalMs(u32),
    /// After its write; the driver calls [`Store::sync`] when it likes, `close` does.
    None,
}

/// How a store works. All sizes are in bytes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The log goes on in another segment after this many bytes.
    pub segment_size: u64,
    /// Zeros are written ahead in steps of this many bytes.
    pub zero_step: u64,
    /// The delta asks for a checkpoint from half of this on.
    pub delta_cap_bytes: usize,
    /// The log asks for a checkpoint this many bytes after the last.
    pub checkpoint_log_bytes: u64,
    /// Most memory redb uses as its cache.
    pub cache_bytes: usize,
    /// When a commit counts as done.
    pub durability: Durability,
    /// Seed of the log id and of salts; random, once per open.
    pub entropy: [u8; 32],
    /// Discard the state and fold it from the log again. What the state says about the length of
    /// the log is then not compared with it.
    pub rebuild_state: bool,
}

impl Default for Options {
    /// A device: segments of 8 MiB, steps of 1 MiB, a delta of 32 MiB. The seed is zero and must
    /// be replaced.
    fn default() -> Self {
        Options {
            segment_size: 8 << 20,
            zero_step: 1 << 20,
            delta_cap_bytes: 32 << 20,
            checkpoint_log_bytes: 128 << 20,
            cache_bytes: 64 << 20,
            durability: Durability::Always,
            entropy: [0; 32],
            rebuild_state: false,
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// There was no log and one was begun.
    pub created: bool,
    /// The log had been closed in good order, or was created.
    pub clean: bool,
    /// Frames folded to bring the state up to the log.
    pub replayed_frames: u64,
    /// Bytes of a torn last group that were cut off; none of them was ever acknowledged.
    pub cut_bytes: u64,
    /// The state could not be trusted or was missing, and was folded from the beginning.
    pub rebuilt_state: bool,
    /// End of the log, in bytes from its beginning.
    pub end: u64,
}

/// The oplog and the state folded from it.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    options: Options,
    writer: Writer,
    state: LiveState,
    handle: ViewHandle,
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

    fn publish(&self, view: View) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}

impl Store {
    /// Recovers the log on `disk`, brings the state up to it and is ready to append. An empty
    /// disk becomes a new store. Errors: [`StoreError::Damaged`], [`StoreError::Disk`] with
    /// `TooNew` or `NoSpare`, [`StoreError::Apply`] if a frame cannot be applied.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        apply: Arc<dyn Apply>,
    ) -> Result<(Store, OpenReport), StoreError> {
        let mut entropy = Entropy::new(options.entropy);
        let mut segments = oplog::load(&*disk)?;
        let created = segments.is_empty();
        if created {
            segments.push(oplog::create(&*disk, &mut entropy, options.segment_size)?);
        }
        let log_id = segments.first().map_or([0; 16], |segment| segment.header.log_id);
        let accept = |mark: &Watermark| match options.rebuild_state {
            true => Ok(false),
            false => is_in(mark, &segments),
        };
        let mut opened = open_tables(&*disk, log_id, options.cache_bytes, accept)?;
        if !opened.3 && !apply.accepts(&View::of_base(Arc::clone(&opened.2))) {
            // redb must let go of the file before it is removed.
            drop(opened);
            opened = open_tables(&*disk, log_id, options.cache_bytes, |_| Ok(false))?;
        }
        let (file, tables, base, fresh) = opened;
        let start = base.watermark.map_or(Durable { end: 0, group: 0 }, |mark| mark.durable);
        let sizes =
            WriterOptions { segment_size: options.segment_size, zero_step: options.zero_step };
        let Recovered { writer, clean, cut_bytes } =
            oplog::recover(&disk, segments, entropy, sizes, start)?;
        let mut state = LiveState::new(apply, file, tables, base);
        let replayed_frames = replay(&mut state, &writer, options.delta_cap_bytes)?;
        let handle = ViewHandle {
            published: Arc::new(RwLock::new(Arc::new(state.newest().clone()))),
            log: writer.reader().clone(),
        };
        let report = OpenReport {
            created,
            clean: clean || created,
            replayed_frames,
            cut_bytes,
            rebuilt_state: !created && fresh,
            end: writer.next_position(),
        };
        Ok((Store { disk, options, writer, state, handle }, report))
    }

    /// Adds a frame to the group that waits for the next commit and folds it into the newest
    /// state; returns its position. On an error neither has changed. Errors:
    /// [`StoreError::TooLarge`], [`StoreError::GroupFull`], [`StoreError::NoSpace`],
    /// [`StoreError::Apply`], [`StoreError::Poisoned`].
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<u64, StoreError> {
        if kind < FIRST_FREE_KIND {
            return Err(StoreError::ReservedKind { kind });
        }
        self.writer.prepare(payload.len())?;
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

    /// Bytes of the delta that takes changes; at `delta_cap_bytes` the caller should wait for the
    /// running checkpoint before it appends more.
    pub fn delta_bytes(&self) -> usize {
        self.state.active_bytes()
    }

    /// Whether the delta or the log since the last checkpoint has grown enough for one.
    pub fn wants_checkpoint(&self) -> bool {
        let log = self.writer.durable().end.saturating_sub(self.state.reached());
        self.state.active_bytes() >= self.options.delta_cap_bytes / 2
            || log >= self.options.checkpoint_log_bytes
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

    /// Takes the result of a checkpoint in. An error leaves the log and all views as they were;
    /// the delta stays frozen until a later checkpoint succeeds. Views taken before the failure may
    /// answer [`StoreError::StateUnavailable`]; the latest view does not.
    pub fn finish_checkpoint(&mut self, done: CheckpointDone) -> Result<(), StoreError> {
        let finished = self.state.finish(done);
        self.publish(self.view().position());
        finished
    }

    /// Runs a checkpoint to its end, blocking, if there is anything to write.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        match self.begin_checkpoint()? {
            Some(job) => self.finish_checkpoint(job.run()),
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

    /// Publishes the state up to `position`, which has been committed.
    fn publish(&self, position: u64) {
        let mut view = self.state.newest().clone();
        view.position = position;
        self.handle.publish(view);
    }
}

/// Whether the watermark is a position of this log. One that is not, and lies beyond the end of
/// the log, tells of segments that are missing.
fn is_in(mark: &Watermark, segments: &[Arc<Segment>]) -> Result<bool, StoreError> {
    let found = segments.iter().position(|segment| segment.header.salt == mark.salt);
    let Some((index, segment)) = found.and_then(|index| Some((index, segments.get(index)?))) else {
        oplog::check_reaches(segments, mark.durable.end)?;
        return Ok(false);
    };
    let next = segments.get(index + 1).map_or(u64::MAX, |next| next.first_position());
    Ok((segment.first_position()..=next).contains(&mark.durable.end))
}

/// Folds the log from where redb stands to its end, with checkpoints on the way.
fn replay(state: &mut LiveState, writer: &Writer, cap: usize) -> Result<u64, StoreError> {
    let (mut replayed, mut checkpoint_at) = (0, cap);
    let log = writer.reader();
    log.scan(state.reached(), writer.next_position(), |frame| {
        if frame.kind < FIRST_FREE_KIND {
            state.pass(frame.end());
            return Ok(ControlFlow::Continue(()));
        }
        state.apply(frame)?;
        replayed += 1;
        if state.active_bytes() >= checkpoint_at {
            let durable = Durable { end: frame.end(), group: frame.group };
            if let Some((segment, _)) = log.locate(frame.position) {
                let header = &segment.header;
                let mark = Watermark { log_id: header.log_id, salt: header.salt, durable };
                let done = state.freeze(mark).and_then(|job| match job {
                    Some(job) => state.finish(job.run()),
                    None => Ok(()),
                });
                // A full disk must not keep the store from being read: the log has everything, and
                // it is tried again after as much more.
                checkpoint_at = if done.is_ok() { cap } else { state.active_bytes() + cap };
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(replayed)
}
