//! Appends frames in groups: one write and one sync for all that waited.

use std::sync::Arc;

use lastword_core::plant::{Plant, planted};

use crate::disk::{Disk, Ticket};
use crate::error::{DiskError, StoreError};
use crate::header::HeaderKind;
use crate::limits::{FRAME_HEADER_LEN, MAX_FRAME, MAX_GROUP, MAX_GROUP_NUMBER, SPARES_RESERVED};
use crate::oplog::frame::{self, FrameHead, OwnedFrame};
use crate::oplog::reader::LogReader;
use crate::oplog::segment::{Entropy, Segment, Template};

/// Capacity the group buffer keeps between groups.
const BUFFER_KEPT: usize = 4 * 1024 * 1024;

/// Sizes of the log in bytes.
#[derive(Debug, Clone)]
pub(crate) struct WriterOptions {
    pub(crate) segment_size: u64,
    pub(crate) zero_step: u64,
}

/// Where the log is durable up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Durable {
    /// First position that may be lost.
    pub(crate) end: u64,
    /// Group of the last frame before it.
    pub(crate) group: u64,
}

/// The end of the log that grows. The frames of one group wait in `buffer`.
#[derive(Debug)]
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    entropy: Entropy,
    options: WriterOptions,
    reader: LogReader,
    current: Arc<Segment>,
    /// Reserved for the group that waits; born when that group is written.
    next: Option<Arc<Segment>>,
    /// Length of the file the waiting group goes to: up to here zeros have been written.
    zeroed_to: u64,
    buffer: Vec<u8>,
    /// Position of the first byte of the buffer.
    buffer_at: u64,
    /// Group of the next frame.
    group: u64,
    /// Whether a frame of that group has been appended.
    group_open: bool,
    /// Whether the current file holds bytes that no sync has covered.
    unsynced: bool,
    in_flight: bool,
    durable: Durable,
    cause: Option<DiskError>,
}

/// A group that has been written and whose sync is under way.
#[derive(Debug)]
#[must_use = "the group is not durable before its result reaches `finish_commit`"]
pub struct Commit {
    ticket: Ticket,
    group: Group,
}

/// The result of a [`Commit`].
#[derive(Debug)]
#[must_use = "hand it to `finish_commit`"]
pub struct CommitDone {
    result: Result<(), DiskError>,
    group: Group,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    durable: Durable,
    synced: bool,
}

impl Commit {
    /// Waits for the sync; may be called on any thread.
    pub fn wait(self) -> CommitDone {
        let synced = self.ticket.wait();
        let result = if planted(Plant::AckFailedSync) { Ok(()) } else { synced };
        CommitDone { result, group: self.group }
    }
}

impl Writer {
    /// A writer that goes on at `durable.end`, which lies in or at the end of `current`.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        entropy: Entropy,
        options: WriterOptions,
        reader: LogReader,
        current: Arc<Segment>,
        durable: Durable,
    ) -> Result<Self, StoreError> {
        Ok(Writer {
            zeroed_to: current.file.len()?,
            disk,
            entropy,
            options,
            reader,
            current,
            next: None,
            buffer: Vec::new(),
            buffer_at: durable.end,
            group: durable.group + 1,
            group_open: false,
            unsynced: false,
            in_flight: false,
            durable,
            cause: None,
        })
    }

    pub(crate) fn reader(&self) -> &LogReader {
        &self.reader
    }

    pub(crate) fn entropy(&self) -> &Entropy {
        &self.entropy
    }

    pub(crate) fn next_position(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    pub(crate) fn group(&self) -> u64 {
        self.group
    }

    pub(crate) fn durable(&self) -> Durable {
        self.durable
    }

    pub(crate) fn current(&self) -> &Segment {
        &self.current
    }

    /// Whether no frame waits and no sync is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.buffer.is_empty() && !self.in_flight
    }

    /// Makes sure that a frame with a payload of `len` bytes can be appended: all that can fail
    /// for want of space fails here, before any byte of the frame exists.
    pub(crate) fn prepare(&mut self, len: usize, urgent: bool) -> Result<(), StoreError> {
        self.check_poison()?;
        if len > MAX_FRAME {
            return Err(StoreError::TooLarge { len, limit: MAX_FRAME });
        }
        let waiting = self.buffer.len() + frame::frame_len(len);
        if waiting > MAX_GROUP {
            return Err(StoreError::GroupFull { waiting: self.buffer.len(), limit: MAX_GROUP });
        }
        if self.group >= MAX_GROUP_NUMBER {
            return Err(StoreError::Exhausted);
        }
        let position = self.next_position();
        let room = self.make_room(frame::frame_len(len) as u64, urgent);
        room.map_err(|source| StoreError::NoSpace { position, source })
    }

    /// Appends a frame that `prepare` has made room for and returns its position.
    pub(crate) fn push(&mut self, kind: u8, payload: &[u8]) -> u64 {
        let position = self.next_position();
        let head = FrameHead { position, kind, group: self.group, starts_group: !self.group_open };
        self.group_open = true;
        let seed = self.target().seed;
        frame::encode(&mut self.buffer, seed, &head, payload);
        position
    }

    /// A frame that waits in the buffer or is in the files.
    pub(crate) fn read_frame(&self, position: u64) -> Result<OwnedFrame, StoreError> {
        let Some(at) = position.checked_sub(self.buffer_at) else {
            return self.reader.read_frame(position, self.buffer_at);
        };
        let end = self.next_position();
        self.buffer
            .get(at as usize..)
            .and_then(|bytes| frame::decode(bytes, self.target().seed, position))
            .map(|frame| frame.to_owned())
            .ok_or(StoreError::OutOfRange { position, end })
    }

    /// Writes the group that waits and, if `sync`, begins its sync. `None` if nothing waits (with
    /// `force`: nor lacks a sync) or a commit is under way.
    pub(crate) fn start(&mut self, sync: bool, force: bool) -> Result<Option<Commit>, StoreError> {
        self.check_poison()?;
        let wanted = !self.buffer.is_empty() || (force && self.unsynced);
        if self.in_flight || !wanted {
            return Ok(None);
        }
        self.write_out().map_err(|source| self.poison(source))?;
        let durable = Durable { end: self.buffer_at, group: self.group };
        let ticket = match sync {
            true => {
                self.group += u64::from(!planted(Plant::SameGroupAgain));
                self.group_open = false;
                match planted(Plant::SkipSync) {
                    true => Ticket::finished(Ok(())),
                    false => self.current.file.clone().start_sync(),
                }
            }
            false => Ticket::finished(Ok(())),
        };
        self.in_flight = true;
        Ok(Some(Commit { ticket, group: Group { durable, synced: sync } }))
    }

    /// Takes the result of a commit and returns the end of what may be published.
    pub(crate) fn finish(&mut self, done: CommitDone) -> Result<u64, StoreError> {
        self.in_flight = false;
        done.result.map_err(|source| self.poison(source))?;
        if done.group.synced {
            self.unsynced = false;
            self.durable = done.group.durable;
        }
        Ok(done.group.durable.end)
    }

    /// Writes the empty frame that proves the last group was durable, without a sync.
    pub(crate) fn prove(&mut self) -> Result<(), StoreError> {
        self.check_poison()?;
        if !self.is_idle() || self.group_open || self.next.is_some() {
            return Ok(());
        }
        let end = self.current.offset(self.next_position()) + FRAME_HEADER_LEN as u64;
        if self.extend(&self.current.clone(), end).is_err() {
            // The proof narrows what recovery may cut; without space for it nothing is lost.
            return Ok(());
        }
        self.push(frame::PROOF, &[]);
        self.write_out().map_err(|source| self.poison(source)).map(|_| ())
    }

    /// Ends a log whose groups are all durable: the closing frame, no bytes behind it, one sync.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.check_poison()?;
        self.next = None;
        let result = self.write_closed();
        result.map_err(|source| self.poison(source))
    }

    fn write_closed(&mut self) -> Result<(), DiskError> {
        if self.unsynced {
            self.current.file.sync()?;
        }
        self.push(frame::CLOSED, &[]);
        self.write_out()?;
        self.current.file.set_len(self.current.offset(self.buffer_at))?;
        self.current.file.sync()
    }

    /// The segment the waiting group goes to.
    fn target(&self) -> &Arc<Segment> {
        self.next.as_ref().unwrap_or(&self.current)
    }

    /// Room for `len` bytes more. A new segment leaves a spare on the disk, and an urgent frame may
    /// take that one, also where the current segment could not grow.
    fn make_room(&mut self, len: u64, urgent: bool) -> Result<(), DiskError> {
        let end = self.next_position() + len;
        let fresh = self.buffer.is_empty() && self.next.is_none();
        if fresh && self.is_full(end) {
            self.roll(if urgent { 0 } else { SPARES_RESERVED })?;
        }
        let target = self.target().clone();
        match self.extend(&target, target.offset(end)) {
            Err(_) if urgent && fresh && self.next.is_none() => {
                self.roll(0)?;
                let target = self.target().clone();
                self.extend(&target, target.offset(end))
            }
            extended => extended,
        }
    }

    /// The group that waits goes to a new segment.
    /// Ends the current segment, if it holds a frame: the next frame begins another.
    pub(crate) fn end_segment(&mut self) -> Result<(), StoreError> {
        self.check_poison()?;
        self.check_no_commit()?;
        if self.next.is_none() && self.next_position() > self.current.first_position() {
            self.roll(0)?;
        }
        Ok(())
    }

    fn roll(&mut self, keep: usize) -> Result<(), DiskError> {
        let template = Template {
            kind: HeaderKind::Segment,
            log_id: self.current.header.log_id,
            predecessor: self.current.header.salt,
            segment_size: self.options.segment_size,
        };
        let position = self.next_position();
        let next = Segment::reserve(&*self.disk, &mut self.entropy, &template, position, keep)?;
        self.zeroed_to = next.file.len()?;
        self.next = Some(Arc::new(next));
        // A group never spans segments; a lone proof in the old one is synced before the birth.
        if self.group_open {
            self.group += 1;
            self.group_open = false;
        }
        Ok(())
    }

    /// Whether a group that ends at `end` should go to another segment. A group that has begun
    /// stays where it is, so a segment may be longer than its size by one group.
    fn is_full(&self, end: u64) -> bool {
        let used = self.next_position() > self.current.first_position();
        used && self.current.offset(end) > self.options.segment_size
    }

    /// Writes zeros ahead, a step at a time, up to byte `end` of the file at least.
    fn extend(&mut self, target: &Segment, end: u64) -> Result<(), DiskError> {
        if end > self.zeroed_to {
            let step = self.options.zero_step.max(1);
            let ahead = end.next_multiple_of(step).min(self.options.segment_size).max(end);
            target.file.set_len(ahead)?;
            self.zeroed_to = ahead;
        }
        Ok(())
    }

    /// Writes the buffer, after the birth of its segment if it is the first group there.
    fn write_out(&mut self) -> Result<(), DiskError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Some(next) = self.next.take() {
            let old = std::mem::replace(&mut self.current, next);
            if self.unsynced {
                old.file.sync()?;
            }
            self.current.give_birth()?;
            old.file.set_len(old.offset(self.buffer_at))?;
            self.reader.push(self.current.clone());
        }
        self.unsynced = true;
        self.current.file.write_at(self.current.offset(self.buffer_at), &self.buffer)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT);
        Ok(())
    }

    /// Errors: [`StoreError::Poisoned`] after the first failed write or sync.
    pub(crate) fn check_poison(&self) -> Result<(), StoreError> {
        match &self.cause {
            Some(cause) => Err(StoreError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Errors: [`StoreError::Busy`] while a commit is under way.
    pub(crate) fn check_no_commit(&self) -> Result<(), StoreError> {
        match self.in_flight {
            true => Err(StoreError::Busy),
            false => Ok(()),
        }
    }

    fn poison(&mut self, source: DiskError) -> StoreError {
        if !planted(Plant::GoOnAfterFailedSync) {
            self.cause = Some(source.clone());
        }
        StoreError::OutcomeUnknown { source }
    }
}
