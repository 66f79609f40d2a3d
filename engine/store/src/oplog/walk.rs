//! A walk over the frames of many segments, which are read ahead of whoever folds them.
//!
//! Copying bytes out of the system's cache and checking them takes about as long as folding them,
//! so a long walk takes half the time if both go on at once. Whoever only looks at frames is done
//! with them before the next are checked: he is then handed them as they were read, and checks them
//! himself while more are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::error::{DiskError, StoreError};
use crate::limits::{FRAME_ALIGN, FRAME_HEADER_LEN, SCAN_CHUNK};
use crate::oplog::frame::{self, FrameRef};
use crate::oplog::segment::Segment;

/// Bytes from which on a walk is worth a thread.
const AHEAD_FROM: u64 = 4 * 1024 * 1024;
/// Chunks that are read and not taken yet.
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
    parts: Vec<Part>,
    /// How many of them have ended.
    ended: usize,
}

#[derive(Debug)]
enum Source {
    Here(Chunks),
    Ahead { chunks: Receiver<Result<Chunk, DiskError>>, used: Sender<Chunk>, waiting: Waiting },
}

/// How many chunks wait to be taken.
type Waiting = Arc<AtomicUsize>;

impl Walk {
    pub(crate) fn new(parts: Vec<Part>) -> Self {
        let lengths = parts.iter().map(|part| part.to.saturating_sub(part.from));
        let is_long = lengths.fold(0, u64::saturating_add) >= AHEAD_FROM;
        let ahead = if is_long { ahead(parts.clone()) } else { None };
        let source = ahead.unwrap_or_else(|| Source::Here(Chunks::new(parts.clone())));
        Walk { source, chunk: Chunk::default(), next: 0, parts, ended: 0 }
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
        self.receive()?;
        self.chunk.check();
        if std::mem::take(&mut self.chunk.is_torn) {
            self.read_once_more();
            if self.chunk.frames.is_empty() {
                self.receive()?;
            }
        }
        self.ended += usize::from(self.chunk.frames.is_empty());
        Ok(())
    }

    /// Goes on at what is not valid, without the thread, which has read on behind it: no part ends
    /// because of what was read once.
    fn read_once_more(&mut self) {
        let mut rest = self.parts.split_off(self.ended);
        if let Some(part) = rest.first_mut() {
            part.from = self.chunk.end();
        }
        self.source = Source::Here(Chunks::new(rest.clone()));
        (self.parts, self.ended) = (rest, 0);
    }

    fn receive(&mut self) -> Result<(), DiskError> {
        match &mut self.source {
            Source::Here(chunks) => chunks.next(&mut self.chunk, &|| true),
            Source::Ahead { chunks, used, waiting } => {
                let chunk = chunks.recv().expect("invariant: every part has a last chunk")?;
                waiting.fetch_sub(1, Ordering::Relaxed);
                // The thread may have read everything and ended.
                let _ = used.send(std::mem::replace(&mut self.chunk, chunk));
                Ok(())
            }
        }
    }
}

/// Begins to read on a thread; `None` if there is none to be had.
fn ahead(parts: Vec<Part>) -> Option<Source> {
    let (out, chunks) = sync_channel(CHUNKS_AHEAD);
    let (used, back) = channel();
    let waiting = Waiting::default();
    let seen = waiting.clone();
    std::thread::Builder::new()
        .name("lastword read ahead".into())
        .spawn(move || run(Chunks::new(parts), &out, &back, &seen))
        .ok()?;
    Some(Source::Ahead { chunks, used, waiting })
}

fn run(
    mut chunks: Chunks,
    out: &SyncSender<Result<Chunk, DiskError>>,
    back: &Receiver<Chunk>,
    waiting: &Waiting,
) {
    while !chunks.have_ended() {
        let mut chunk = back.try_recv().unwrap_or_default();
        // While none waits, whoever walks is soon done with the last, or is done.
        let read = chunks.next(&mut chunk, &|| waiting.load(Ordering::Relaxed) > 0);
        let failed = read.is_err();
        waiting.fetch_add(1, Ordering::Relaxed);
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

    /// Reads the next chunk, and checks it if `checks` says so once it is read.
    fn next(&mut self, chunk: &mut Chunk, checks: &dyn Fn() -> bool) -> Result<(), DiskError> {
        chunk.frames.clear();
        let Some(part) = &mut self.part else { return Ok(()) };
        chunk.fill(part)?;
        if checks() {
            chunk.check();
            if chunk.is_torn && chunk.frames.is_empty() {
                // No part ends because of what was read once.
                chunk.fill(part)?;
                chunk.check();
            }
            // Otherwise the next one begins with what is not valid.
            chunk.is_torn = false;
        }
        part.from = chunk.end();
        if chunk.frames.is_empty() {
            self.part = self.parts.next();
        }
        Ok(())
    }
}

/// Frames that were read together.
#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Log position of the first byte.
    at: u64,
    /// That of its segment.
    seed: u32,
    /// Frames, of which nothing but position and length was looked at before they are checked.
    frames: Vec<Found>,
    is_checked: bool,
    /// A frame behind the last one was not valid.
    is_torn: bool,
}

/// A frame in a chunk.
#[derive(Debug, Default)]
struct Found {
    /// Where in the chunk its payload is.
    payload: std::ops::Range<usize>,
    kind: u8,
    group: u64,
    starts_group: bool,
}

impl Found {
    fn start(&self) -> usize {
        self.payload.start - FRAME_HEADER_LEN
    }
}

impl Chunk {
    /// Reads the frames at the beginning of `part`: as many as one read holds, and one at least if
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
        (self.seed, self.is_checked, self.is_torn) = (segment.seed, false, false);
        let mut start = 0;
        while let Some(len) =
            self.bytes.get(start..).and_then(|bytes| frame::stated_len(bytes, *from + start as u64))
        {
            let (payload, end) = (start + FRAME_HEADER_LEN, start + frame::frame_len(len));
            if end > have {
                break;
            }
            self.frames.push(Found { payload: payload..payload + len, ..Found::default() });
            start = end;
        }
        Ok(())
    }

    /// Keeps the frames before the first that is not valid.
    fn check(&mut self) {
        if std::mem::replace(&mut self.is_checked, true) {
            return;
        }
        let Chunk { bytes, at, seed, frames, .. } = self;
        let is_valid = |found: &mut Found| {
            let start = found.start();
            let frame = bytes.get(start..found.payload.end.next_multiple_of(FRAME_ALIGN));
            let frame = frame.and_then(|bytes| frame::decode(bytes, *seed, *at + start as u64));
            frame.map(|frame| {
                (found.kind, found.group) = (frame.kind, frame.group);
                found.starts_group = frame.starts_group;
            })
        };
        let valid = frames.iter_mut().map_while(is_valid).count();
        self.is_torn = valid < frames.len();
        frames.truncate(valid);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, MemoryDisk, ReadFault};
    use crate::header::{Header, HeaderKind};
    use crate::limits::HEADER_LEN;
    use crate::oplog::frame::FrameHead;

    const SEED_LENGTHS: u64 = 2_654_435_761;
    const BODY: usize = 5 << 20;

    /// A segment full of frames, and where each begins and ends.
    fn segment(disk: &MemoryDisk, first_position: u64) -> (Part, Vec<(u64, u64)>) {
        let number = disk.take_spare(0).expect("a file");
        let file = disk.open(number).expect("it opens");
        let (log_id, salt) = ([1; 16], [u8::try_from(number).expect("few files"); 16]);
        let header = Header {
            kind: HeaderKind::Segment,
            key_id: 0,
            log_id,
            salt,
            predecessor: [0; 16],
            number,
            first_position,
            segment_size: BODY as u64,
        };
        let segment = Arc::new(Segment::new(header, file));
        let (mut body, mut frames) = (Vec::new(), Vec::new());
        while body.len() < BODY {
            let place = frames.len() as u64;
            // Now and then one that is longer than what is read at a time.
            let long = if place % 1000 == 700 { SCAN_CHUNK + 100 } else { 0 };
            let payload = vec![7; long + (place.wrapping_mul(SEED_LENGTHS) % 3000) as usize];
            let position = first_position + body.len() as u64;
            let head = FrameHead { position, kind: 20, group: 1 + place, starts_group: true };
            frame::encode(&mut body, segment.seed, &head, &payload);
            frames.push((position, first_position + body.len() as u64));
        }
        segment.file.set_len((HEADER_LEN + body.len()) as u64).expect("there is room");
        segment.file.write_at(HEADER_LEN as u64, &body).expect("it writes");
        let to = first_position + body.len() as u64;
        (Part { segment, from: first_position, to }, frames)
    }

    /// Positions of frames, part by part.
    fn walked(parts: &[Part], is_slow: bool) -> Vec<Vec<(u64, u64)>> {
        let mut walk = Walk::new(parts.to_vec());
        let mut of_part = |_| {
            let mut found = Vec::new();
            while let Some(frame) = walk.next().expect("it reads") {
                found.push((frame.position, frame.end()));
                if is_slow {
                    std::hint::black_box(blake3::hash(frame.payload));
                }
            }
            found
        };
        parts.iter().map(&mut of_part).collect()
    }

    /// I7, line 1 of the promises about damage: a walk, ahead or not, hands out each frame before
    /// the first that is not valid, and none behind it, whoever of the two threads checks it.
    #[test]
    fn a_walk_ends_each_part_where_its_first_damage_is() {
        let disk = MemoryDisk::new(1 << 20);
        let (first, of_first) = segment(&disk, 0);
        let (second, of_second) = segment(&disk, first.to);
        let parts = [first.clone(), second.clone()];
        assert!(walked(&parts, false) == [of_first.clone(), of_second.clone()]);
        let mut bytes = [0];
        for hit in (0..of_first.len()).step_by(97).chain([700]) {
            let (position, end) = of_first[hit];
            let at = first.segment.offset(position + (hit as u64 * 31) % (end - position));
            let mut flip = || {
                first.segment.file.read_at(at, &mut bytes).expect("it reads");
                bytes[0] ^= 1;
                first.segment.file.write_at(at, &bytes).expect("it writes");
            };
            flip();
            for is_slow in [false, true] {
                let found = walked(&parts, is_slow);
                assert!(found == [of_first[..hit].to_vec(), of_second.clone()], "frame {hit}");
            }
            // So little that it is read by whoever walks.
            let from = hit.saturating_sub(20);
            let near = Part { from: of_first[from].0, to: end, ..first.clone() };
            assert!(walked(&[near], false) == [of_first[from..hit].to_vec()], "frame {hit}");
            flip();
        }
    }

    /// I7, I15: a disk that hands out a wrong bit once ends no part. Chunks that whoever walks has
    /// to check did: an acknowledged group at the end of a log counted as torn, and was cut off.
    #[test]
    fn what_was_read_wrong_once_is_read_again() {
        let disk = MemoryDisk::new(1 << 20);
        let (first, of_first) = segment(&disk, 0);
        let (second, of_second) = segment(&disk, first.to);
        let parts = [first, second];
        let before = disk.reads();
        walked(&parts, false);
        for read in 0..disk.reads() - before {
            for is_slow in [false, true] {
                // A bit of a payload or a checksum: nobody knows that one was read which was not.
                let bit = 8 * (FRAME_HEADER_LEN - 8 + (read as usize * 8191) % 8);
                disk.set_read_fault(Some((disk.reads() + read, ReadFault::Flipped(bit))));
                let found = walked(&parts, is_slow);
                disk.set_read_fault(None);
                assert!(found == [of_first.clone(), of_second.clone()], "read {read}");
            }
        }
    }
}
