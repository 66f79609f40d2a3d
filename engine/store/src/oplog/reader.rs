//! Reads frames: one by its position, or all from a position on.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::StoreError;
use crate::limits::{FRAME_HEADER_LEN, SCAN_CHUNK};
use crate::oplog::frame::{self, FrameRef, OwnedFrame};
use crate::oplog::segment::Segment;
use crate::oplog::walk::{Part, Walk};

/// First read for one frame: most frames fit.
const GUESS: u64 = 1024;

/// The segments of a log, in order, shared by its writer and all readers.
#[derive(Debug, Clone)]
pub(crate) struct LogReader {
    segments: Arc<RwLock<Vec<Arc<Segment>>>>,
}

impl LogReader {
    pub(crate) fn new(segments: Vec<Arc<Segment>>) -> Self {
        LogReader { segments: Arc::new(RwLock::new(segments)) }
    }

    pub(crate) fn push(&self, segment: Arc<Segment>) {
        self.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment);
    }

    /// Takes segments that end before `position` off the log. One that ends right there stays: the
    /// state may name it as the one that it ends in.
    pub(crate) fn drop_before(&self, position: u64) -> Vec<Arc<Segment>> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let after = segments.partition_point(|segment| segment.first_position() < position);
        segments.drain(..after.saturating_sub(1)).collect()
    }

    /// First position of the log that can be read.
    pub(crate) fn first_position(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().map_or(0, |segment| segment.first_position())
    }

    /// The segments there are now.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The segment `position` lies in, and where it ends if another follows.
    pub(crate) fn locate(&self, position: u64) -> Option<(Arc<Segment>, Option<u64>)> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let after = segments.partition_point(|segment| segment.first_position() <= position);
        let segment = segments.get(after.checked_sub(1)?)?.clone();
        Some((segment, segments.get(after).map(|next| next.first_position())))
    }

    /// The frame at `position`, verified. `end` is the first position that is not readable.
    pub(crate) fn read_frame(&self, position: u64, end: u64) -> Result<OwnedFrame, StoreError> {
        let outside = StoreError::OutOfRange { position, end };
        if position >= end {
            return Err(outside);
        }
        let (segment, next) = self.locate(position).ok_or(outside)?;
        let end = end.min(next.unwrap_or(u64::MAX)).min(segment.capacity_end()?);
        let room = end.saturating_sub(position);
        let mut bytes = vec![0; room.min(GUESS) as usize];
        segment.file.read_at(segment.offset(position), &mut bytes)?;
        let bad = || segment.damaged(position, "no valid frame begins here");
        let len = frame::frame_len(frame::stated_len(&bytes, position).ok_or_else(bad)?);
        if len as u64 > room {
            return Err(bad());
        }
        let have = bytes.len();
        if len > have {
            bytes.resize(len, 0);
            let (_, rest) = bytes.split_at_mut(have);
            segment.file.read_at(segment.offset(position) + have as u64, rest)?;
        }
        Ok(frame::decode(&bytes, segment.seed, position).ok_or_else(bad)?.to_owned())
    }

    /// Hands every frame from `from`, a frame's position, up to `end` to `visit`.
    pub(crate) fn scan(
        &self,
        from: u64,
        end: u64,
        mut visit: impl FnMut(FrameRef<'_>) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut parts = Vec::new();
        let mut at = from;
        while at < end {
            let (segment, next) =
                self.locate(at).ok_or(StoreError::OutOfRange { position: at, end })?;
            let to = next.unwrap_or(end).min(end);
            parts.push(Part { segment, from: at, to });
            at = to;
        }
        let mut walk = Walk::new(parts.clone());
        for Part { segment, from, to } in parts {
            let mut at = from;
            while let Some(frame) = walk.next()? {
                at = frame.end();
                if visit(frame)?.is_break() {
                    return Ok(());
                }
            }
            if at < to {
                return Err(segment.damaged(at, "no valid frame begins here"));
            }
        }
        Ok(())
    }
}

/// A walk over the frames of one segment that reads in large chunks.
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    position: u64,
    /// First position that is not read.
    limit: u64,
    buffer: Vec<u8>,
    /// Log position of the first byte of the buffer.
    buffer_at: u64,
}

impl<'a> Scan<'a> {
    /// A walk from `from` up to `limit`, or to the end of the file if that comes first.
    pub(crate) fn new(segment: &'a Segment, from: u64, limit: u64) -> Result<Self, StoreError> {
        let limit = limit.min(segment.capacity_end()?);
        Ok(Scan { segment, position: from, limit, buffer: Vec::new(), buffer_at: from })
    }

    /// Where the next frame should begin.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next frame, or `None` where no valid frame begins.
    pub(crate) fn next(&mut self) -> Result<Option<FrameRef<'_>>, StoreError> {
        let at = self.position;
        if self.held(at).is_none() {
            let header = self.window(at, FRAME_HEADER_LEN)?;
            let Some(len) = header.and_then(|bytes| frame::stated_len(bytes, at)) else {
                return Ok(None);
            };
            if self.window(at, frame::frame_len(len))?.is_none() {
                return Ok(None);
            }
        }
        // What is held never goes beyond the limit.
        let (start, seed) = ((at - self.buffer_at) as usize, self.segment.seed);
        let frame = self.buffer.get(start..).and_then(|bytes| frame::decode(bytes, seed, at));
        if let Some(frame) = &frame {
            self.position = frame.end();
        }
        Ok(frame)
    }

    /// Where in the buffer the frame at `at` begins, if all of it is there.
    fn held(&self, at: u64) -> Option<usize> {
        let start = usize::try_from(at.checked_sub(self.buffer_at)?).ok()?;
        let bytes = self.buffer.get(start..)?;
        let len = frame::frame_len(frame::stated_len(bytes, at)?);
        (len <= bytes.len()).then_some(start)
    }

    /// The first valid frame after `from` that `matches`: where the log goes on after a bad frame.
    pub(crate) fn find(
        &mut self,
        from: u64,
        matches: impl Fn(&FrameRef<'_>) -> bool,
    ) -> Result<Option<u64>, StoreError> {
        let mut at = from + 8;
        while let Some(bytes) = self.window(at, FRAME_HEADER_LEN)? {
            if frame::stated_len(bytes, at).is_some() {
                self.position = at;
                if self.next()?.is_some_and(|frame| matches(&frame)) {
                    return Ok(Some(at));
                }
            }
            at += 8;
        }
        Ok(None)
    }

    /// `len` bytes of the log from `at`, or `None` if the limit comes first.
    fn window(&mut self, at: u64, len: usize) -> Result<Option<&[u8]>, StoreError> {
        let Some(room) = self.limit.checked_sub(at).filter(|room| *room >= len as u64) else {
            return Ok(None);
        };
        let held = |scan: &Self| {
            let start = usize::try_from(at.checked_sub(scan.buffer_at)?).ok()?;
            (start + len <= scan.buffer.len()).then_some(start)
        };
        if held(self).is_none() {
            let take = room.min(SCAN_CHUNK.max(len) as u64) as usize;
            self.buffer.resize(take, 0);
            self.segment.file.read_at(self.segment.offset(at), &mut self.buffer)?;
            self.buffer_at = at;
        }
        Ok(held(self).and_then(|start| self.buffer.get(start..start + len)))
    }
}
