//! A base: the prefix of a log, folded. Written by a fold, read when the state is made anew.
//!
//! Its frames are those of a segment and count from the position where the log goes on behind it.
//! The frames hold rows, opaque here; the last one says what the base stands for. Only with that
//! frame, which is written and synced after all others were, does a base count.

use std::sync::Arc;

use lastword_core::plant::{Plant, planted};

use crate::disk::{Disk, Unkept};
use crate::error::{DiskError, StoreError};
use crate::header::HeaderKind;
use crate::limits::{FRAME_HEADER_LEN, HEADER_LEN, MAX_MARKS};
use crate::oplog::frame::{self, BASE_END, BASE_ROWS, FrameHead, FrameRef};
use crate::oplog::reader::Scan;
use crate::oplog::segment::{Entropy, Segment, Template};
use crate::oplog::writer::Durable;

/// Length of the last frame, so that it is found from the end of the file.
const END_FRAME: usize = 4096;
/// Bytes that are written together.
const WRITE_BYTES: usize = 1024 * 1024;

/// When the log had reached a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Log position.
    pub position: u64,
    /// The caller's clock, milliseconds since 1970 UTC.
    pub time_ms: i64,
}

/// What the last frame of a base says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseEnd {
    /// The base stands for the log before this position.
    pub(crate) durable: Durable,
    /// This and earlier folds, oldest first.
    pub(crate) marks: Vec<Mark>,
    /// Encoded sums of the rows.
    pub(crate) sums: Vec<u8>,
}

/// A base that counts.
#[derive(Debug, Clone)]
pub(crate) struct BaseFile {
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: BaseEnd,
    /// Bytes of the file.
    pub(crate) len: u64,
}

impl BaseFile {
    /// The base in a file, or `None` if the fold that wrote it did not end.
    pub(crate) fn read(segment: Arc<Segment>) -> Result<Option<BaseFile>, StoreError> {
        let len = segment.file.len()?;
        let Some(body) = len.checked_sub((HEADER_LEN + END_FRAME) as u64) else { return Ok(None) };
        let at = segment.first_position().saturating_add(body);
        let mut scan = Scan::new(&segment, at, u64::MAX)?;
        let end = scan.next()?.filter(|frame| frame.kind == BASE_END).and_then(|frame| {
            let whole = frame.payload.len() == END_FRAME - FRAME_HEADER_LEN;
            whole.then(|| BaseEnd::decode(frame.payload))?
        });
        let here = |end: &BaseEnd| end.durable.end == segment.first_position();
        Ok(end.filter(here).map(|end| BaseFile { segment, end, len }))
    }

    /// Salt of the segment in which the base ends.
    pub(crate) fn goes_on_in(&self) -> [u8; 16] {
        self.segment.header.predecessor
    }

    /// Hands each frame of rows to `visit`. Errors: [`StoreError::Damaged`] where a frame is not
    /// what was written.
    pub(crate) fn visit(
        &self,
        mut visit: impl FnMut(FrameRef<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let segment = &self.segment;
        let mut scan = Scan::new(segment, segment.first_position(), u64::MAX)?;
        loop {
            let at = scan.position();
            match scan.next()? {
                Some(frame) if frame.kind == BASE_ROWS => visit(frame)?,
                Some(frame) if frame.kind == BASE_END => return Ok(()),
                _ => return Err(segment.damaged(at, "no valid frame of a base begins here")),
            }
        }
    }
}

impl BaseEnd {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(END_FRAME);
        out.extend_from_slice(&self.durable.end.to_le_bytes());
        out.extend_from_slice(&self.durable.group.to_le_bytes());
        out.extend_from_slice(&(self.marks.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.sums.len() as u32).to_le_bytes());
        for mark in &self.marks {
            out.extend_from_slice(&mark.position.to_le_bytes());
            out.extend_from_slice(&mark.time_ms.to_le_bytes());
        }
        out.extend_from_slice(&self.sums);
        out.resize(END_FRAME - FRAME_HEADER_LEN, 0);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (end, bytes) = bytes.split_first_chunk::<8>()?;
        let (group, bytes) = bytes.split_first_chunk::<8>()?;
        let (marks, bytes) = bytes.split_first_chunk::<4>()?;
        let (sums, mut bytes) = bytes.split_first_chunk::<4>()?;
        let durable = Durable { end: u64::from_le_bytes(*end), group: u64::from_le_bytes(*group) };
        let count = u32::from_le_bytes(*marks) as usize;
        if count > MAX_MARKS {
            return None;
        }
        let mut marks = Vec::with_capacity(count);
        for _ in 0..count {
            let (position, rest) = bytes.split_first_chunk::<8>()?;
            let (time_ms, rest) = rest.split_first_chunk::<8>()?;
            marks.push(Mark {
                position: u64::from_le_bytes(*position),
                time_ms: i64::from_le_bytes(*time_ms),
            });
            bytes = rest;
        }
        let sums = bytes.get(..u32::from_le_bytes(*sums) as usize)?.to_vec();
        Some(BaseEnd { durable, marks, sums })
    }
}

/// A base that is being written.
#[derive(Debug)]
pub(crate) struct BaseWriter {
    segment: Segment,
    buffer: Vec<u8>,
    /// Position of the first byte of the buffer.
    buffer_at: u64,
    durable: Durable,
    unkept: Unkept,
}

impl BaseWriter {
    /// Takes a spare and makes it a base of log `log_id` that ends at `durable` in the segment with
    /// salt `goes_on_in`.
    pub(crate) fn begin(
        disk: &Arc<dyn Disk>,
        entropy: &mut Entropy,
        log_id: [u8; 16],
        goes_on_in: [u8; 16],
        durable: Durable,
    ) -> Result<Self, DiskError> {
        let template =
            Template { kind: HeaderKind::Base, log_id, predecessor: goes_on_in, segment_size: 0 };
        let segment = Segment::reserve(&**disk, entropy, &template, durable.end, 0)?;
        let writer = BaseWriter {
            unkept: Unkept::new(disk, segment.number()),
            segment,
            buffer: Vec::with_capacity(WRITE_BYTES),
            buffer_at: durable.end,
            durable,
        };
        writer.segment.give_birth()?;
        Ok(writer)
    }

    /// Adds a frame of rows.
    pub(crate) fn push(&mut self, payload: &[u8]) -> Result<(), DiskError> {
        self.frame(BASE_ROWS, payload);
        if self.buffer.len() >= WRITE_BYTES { self.write_out() } else { Ok(()) }
    }

    /// Makes the base count, if its file is kept.
    pub(crate) fn finish(
        mut self,
        marks: Vec<Mark>,
        sums: Vec<u8>,
    ) -> Result<(BaseFile, Unkept), DiskError> {
        self.write_out()?;
        let file = self.segment.file.clone();
        file.set_len(self.segment.offset(self.buffer_at))?;
        // The rows are durable before the frame that says so.
        if !planted(Plant::EndBaseBeforeItsRows) && !planted(Plant::FreeBeforeBaseIsDurable) {
            file.sync()?;
        }
        let end = BaseEnd { durable: self.durable, marks, sums };
        self.frame(BASE_END, &end.encode());
        self.write_out()?;
        if !planted(Plant::FreeBeforeBaseIsDurable) {
            file.sync()?;
        }
        let len = file.len()?;
        let BaseWriter { segment, unkept, .. } = self;
        Ok((BaseFile { segment: Arc::new(segment), end, len }, unkept))
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) {
        let position = self.buffer_at + self.buffer.len() as u64;
        let head = FrameHead { position, kind, group: 1, starts_group: false };
        frame::encode(&mut self.buffer, self.segment.seed, &head, payload);
    }

    fn write_out(&mut self) -> Result<(), DiskError> {
        self.segment.file.write_at(self.segment.offset(self.buffer_at), &self.buffer)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
