//! A walk over the frames of many segments, which are read and checked ahead of whoever folds them.
//!
//! Copying bytes out of the system's cache and checking them takes about as long as folding them,
//! so a long walk takes half the time if both go on at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::error::{DiskError, StoreError};
use crate::limits::{FRAME_HEADER_LEN, SCAN_CHUNK};
use crate::oplog::frame::{self, FrameRef};
use crate::oplog::segment::Segment;

/// Bytes from which on a walk is worth a thread.
const AHEAD_FROM: u64 = 4 * 1024 * 1024;
/// Chunks that are checked and not taken yet.
const CHUNKS_AHEAD: usize = 2;

/// What is walked over of one segment: from the position of a frame up to where the walk must end.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A walk over parts in order.
#[derive(Debug)]
pub(crate) struct Walk {
    source: Source,
    chunk: Chunk,
    /// Place of the next frame in the chunk.
    next: usize,
}

#[derive(Debug)]
enum Source {
    Here(Chunks),
    Ahead { chunks: Receiver<Result<Chunk, DiskError>>, used: Sender<Chunk> },
}

impl Walk {
    pub(crate) fn new(parts: Vec<Part>) -> Self {
        let lengths = parts.iter().map(|part| part.to.saturating_sub(part.from));
        let is_long = lengths.fold(0, u64::saturating_add) >= AHEAD_FROM;
        let ahead = if is_long { ahead(parts.clone()) } else { None };
        let source = ahead.unwrap_or_else(|| Source::Here(Chunks::new(parts)));
        Walk { source, chunk: Chunk::default(), next: 0 }
    }

    /// The next frame of this part, or `None` where no valid frame begins; behind that begins the
    /// next part, and nobody asks behind the last.
    pub(crate) fn next(&mut self) -> Result<Option<FrameRef<'_>>, StoreError> {
        if self.next == self.chunk.frames.len() {
            self.take_chunk()?;
            self.next = 0;
        }
        let frame = self.chunk.frame(self.next);
        self.next += usize::from(frame.is_some());
        Ok(frame)
    }

    fn take_chunk(&mut self) -> Result<(), DiskError> {
        match &mut self.source {
            Source::Here(chunks) => chunks.next(&mut self.chunk),
            Source::Ahead { chunks, used } => {
                let chunk = chunks.recv().expect("invariant: every part has a last chunk")?;
                // The thread may have checked everything and ended.
                let _ = used.send(std::mem::replace(&mut self.chunk, chunk));
                Ok(())
            }
        }
    }
}

/// Begins to read and check on a thread; `None` if there is none to be had.
fn ahead(parts: Vec<Part>) -> Option<Source> {
    let (out, chunks) = sync_channel(CHUNKS_AHEAD);
    let (used, back) = channel();
    std::thread::Builder::new()
        .name("lastword read ahead".into())
        .spawn(move || run(Chunks::new(parts), &out, &back))
        .ok()?;
    Some(Source::Ahead { chunks, used })
}

fn run(mut chunks: Chunks, out: &SyncSender<Result<Chunk, DiskError>>, back: &Receiver<Chunk>) {
    while !chunks.have_ended() {
        let mut chunk = back.try_recv().unwrap_or_default();
        let read = chunks.next(&mut chunk);
        let failed = read.is_err();
        // Whoever walks may stop before the end.
        if out.send(read.map(|()| chunk)).is_err() || failed {
            return;
        }
    }
}

/// Parts, cut into chunks. A chunk never spans two, and an empty one ends each.
#[derive(Debug)]
struct Chunks {
    parts: std::vec::IntoIter<Part>,
    part: Option<Part>,
}

impl Chunks {
    fn new(parts: Vec<Part>) -> Self {
        let mut parts = parts.into_iter();
        Chunks { part: parts.next(), parts }
    }

    fn have_ended(&self) -> bool {
        self.part.is_none()
    }

    fn next(&mut self, chunk: &mut Chunk) -> Result<(), DiskError> {
        chunk.frames.clear();
        let Some(part) = &mut self.part else { return Ok(()) };
        chunk.fill(part)?;
        part.from = chunk.end();
        if chunk.frames.is_empty() {
            self.part = self.parts.next();
        }
        Ok(())
    }
}

/// Frames that were read together and are valid.
#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Log position of the first byte.
    at: u64,
    frames: Vec<Found>,
}

/// A frame in a chunk.
#[derive(Debug)]
struct Found {
    /// Where in the chunk its payload is.
    payload: std::ops::Range<usize>,
    kind: u8,
    group: u64,
    starts_group: bool,
}

impl Chunk {
    /// Takes the frames at the beginning of `part`: as many as one read holds, and one at least if
    /// a valid one begins there.
    fn fill(&mut self, part: &Part) -> Result<(), DiskError> {
        let Part { segment, from, to } = part;
        self.at = *from;
        let room = to.min(&segment.capacity_end()?).saturating_sub(*from);
        let mut have = 0;
        let mut want = room.min(SCAN_CHUNK as u64) as usize;
        while have < want {
            self.bytes.resize(want, 0);
            let (_, rest) = self.bytes.split_at_mut(have);
            segment.file.read_at(segment.offset(*from) + have as u64, rest)?;
            have = want;
            // A frame may be longer than what is read at a time.
            let len = frame::stated_len(&self.bytes, *from).map_or(0, frame::frame_len);
            want = if len as u64 <= room { have.max(len) } else { have };
        }
        self.bytes.truncate(have);
        let mut start = 0;
        while let Some(frame) = self
            .bytes
            .get(start..)
            .and_then(|bytes| frame::decode(bytes, segment.seed, *from + start as u64))
        {
            let payload = start + FRAME_HEADER_LEN..start + FRAME_HEADER_LEN + frame.payload.len();
            let FrameRef { kind, group, starts_group, .. } = frame;
            start = (frame.end() - *from) as usize;
            self.frames.push(Found { payload, kind, group, starts_group });
        }
        Ok(())
    }

    /// Position behind the last frame.
    fn end(&self) -> u64 {
        self.frames
            .len()
            .checked_sub(1)
            .and_then(|last| self.frame(last))
            .map_or(self.at, |last| last.end())
    }

    fn frame(&self, place: usize) -> Option<FrameRef<'_>> {
        let Found { payload, kind, group, starts_group } = self.frames.get(place)?;
        let (kind, group, starts_group) = (*kind, *group, *starts_group);
        let position = self.at + (payload.start - FRAME_HEADER_LEN) as u64;
        let payload = self.bytes.get(payload.clone());
        let payload = payload.expect("invariant: a frame was found in the bytes of its chunk");
        Some(FrameRef { position, kind, group, payload, starts_group })
    }
}
