//! Packs: files of chunks that only grow.
//!
//! A pack has the header and the frames of a log file. The first frame says whose it is, each
//! other one holds a chunk or says what a file consists of, so that an index can be made of packs
//! alone.
//! What counts is what the log says: which file a pack is, by its salt, and where it ends. What
//! lies behind was never confirmed; it is not cut off, since the log may have been put back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use lastword_core::codec::to_bytes;
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_CHUNK_BYTES;
use lastword_core::plant::{Plant, planted};

use super::contents::{DroppedFiles, StoredFile};
use crate::disk::{Disk, first_non_zero, read_header};
use crate::error::{BlobError, DiskError, StoreError};
use crate::header::{Header, HeaderKind};
use crate::keys::{StoredChunk, StoredPack};
use crate::limits::{MAX_DROPPED_IN_FRAME, MAX_PACK_PAYLOAD, PACK_WRITE_BYTES};
use crate::oplog::{
    FrameHead, PACK_BLOB, PACK_CHUNK, PACK_DROPPED, PACK_OPEN, Scan, Segment, decode_frame,
    encode_frame, frame_len,
};
use crate::payload::{NewChunk, PackChunks};

/// Bytes of a chunk's payload before its content: id, length and codec.
const CHUNK_HEAD: usize = 32 + 4 + 1;
/// The content is as it is in the file.
const RAW: u8 = 0;
/// The content is one lz4 block.
const LZ4: u8 = 1;
/// A chunk is kept compressed if that saves one part in so many.
const WORTH: usize = 16;

/// A pack that takes chunks of all who store files of its workspace now.
#[derive(Debug)]
pub(super) struct OpenPack {
    pub(super) number: u64,
    salt: [u8; 16],
    /// Copies of what the writer knows: asking does not wait for a sync.
    end: AtomicU64,
    is_broken: AtomicBool,
    writer: Mutex<PackWriter>,
}

impl OpenPack {
    pub(super) fn new(writer: PackWriter) -> Self {
        let Header { number, salt, .. } = writer.segment.header;
        let (end, is_broken) = (AtomicU64::new(writer.end()), AtomicBool::new(false));
        OpenPack { number, salt, end, is_broken, writer: Mutex::new(writer) }
    }

    /// Whether it may get another chunk, if packs end at `size`.
    pub(super) fn takes_more(&self, size: u64) -> bool {
        !self.is_broken.load(Ordering::Acquire) && self.end.load(Ordering::Acquire) < size
    }

    /// Writes to it.
    pub(super) fn with<T>(&self, write: impl FnOnce(&mut PackWriter) -> T) -> T {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let done = write(&mut writer);
        self.end.store(writer.end(), Ordering::Release);
        self.is_broken.store(writer.broken.is_some(), Ordering::Release);
        done
    }

    /// Makes everything durable that was added; what the log is to say of `chunks`, which are some
    /// of it.
    pub(super) fn sync(&self, chunks: Vec<NewChunk>) -> Result<PackChunks, DiskError> {
        let synced = self.with(|writer| writer.sync().map(|()| writer.end()));
        synced.map(|end| PackChunks { pack: self.number, salt: self.salt, end, chunks })
    }
}

/// The file of a pack, and what is not written to it yet.
#[derive(Debug)]
pub(super) struct PackWriter {
    segment: Segment,
    buffer: Vec<u8>,
    /// Position of the first byte of the buffer.
    buffer_at: u64,
    /// The first write or sync that failed: what the medium holds is not known since, nothing is
    /// added, and nobody's chunks in it are confirmed any more.
    broken: Option<DiskError>,
    /// Compressed chunks, before it is known whether they are worth it.
    scratch: Vec<u8>,
}

impl PackWriter {
    /// A new pack of a workspace, in a spare.
    pub(super) fn create(segment: Segment, workspace: &WorkspaceName) -> Result<Self, DiskError> {
        segment.give_birth()?;
        let mut writer = Self::at(segment, 0);
        writer.push(PACK_OPEN, &to_bytes(workspace));
        Ok(writer)
    }

    /// Goes on with a pack of an earlier process, if it is the one that the log knows and nothing
    /// would be overwritten: frames that were never confirmed stay and are dead, behind anything
    /// else nothing is added.
    pub(super) fn resume(
        disk: &dyn Disk,
        header: Header,
        known: &StoredPack,
    ) -> Result<Option<Self>, StoreError> {
        // Reads of its chunks say what is wrong with it.
        let Ok(file) = disk.open(header.number) else { return Ok(None) };
        match read_header(header.number, &*file) {
            Ok(Some(found)) if found == header => {}
            _ => return Ok(None),
        }
        let segment = Segment::new(header, file);
        let capacity = segment.capacity_end()?;
        if capacity < known.end {
            return Ok(None);
        }
        let mut scan = Scan::new(&segment, known.end, u64::MAX)?;
        while scan.next()?.is_some() {}
        let end = scan.position();
        let (from, to) = (segment.offset(end), segment.offset(capacity));
        if first_non_zero(&*segment.file, from, to)?.is_some() {
            return Ok(None);
        }
        segment.file.sync()?;
        Ok(Some(Self::at(segment, end)))
    }

    fn at(segment: Segment, end: u64) -> Self {
        let (buffer, scratch) = (Vec::new(), Vec::new());
        PackWriter { segment, buffer, buffer_at: end, broken: None, scratch }
    }

    /// Position behind the last frame.
    fn end(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    /// Adds a chunk; it counts once the pack was synced and the log says so.
    pub(super) fn add_chunk(&mut self, id: ChunkId, raw: &[u8]) -> Result<NewChunk, DiskError> {
        self.scratch.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
        let packed = lz4_flex::block::compress_into(raw, &mut self.scratch).unwrap_or(usize::MAX);
        let is_worth = packed <= raw.len() - raw.len() / WORTH && packed < raw.len();
        let (codec, content) = match self.scratch.get(..packed).filter(|_| is_worth) {
            Some(content) => (LZ4, content),
            None => (RAW, raw),
        };
        let (position, len) = (self.end(), CHUNK_HEAD + content.len());
        let head = FrameHead { position, kind: PACK_CHUNK, group: 1, starts_group: false };
        let raw_len = (raw.len() as u32).to_le_bytes();
        let payload = [&id.0[..], &raw_len, &[codec], content];
        encode_frame(&mut self.buffer, self.segment.seed, &head, &payload);
        if self.buffer.len() >= PACK_WRITE_BYTES {
            self.write_out()?;
        }
        Ok(NewChunk { id, position, len: len as u64, raw: raw.len() as u64 })
    }

    /// Says what a file consists of and when it was stored.
    pub(super) fn add_file(&mut self, file: &StoredFile) {
        self.push(PACK_BLOB, &to_bytes(file));
    }

    /// Says which files are gone.
    pub(super) fn add_dropped(&mut self, dropped: &[([u8; 32], i64)]) {
        for some in dropped.chunks(MAX_DROPPED_IN_FRAME) {
            self.push(PACK_DROPPED, &to_bytes(&DroppedFiles(some.to_vec())));
        }
    }

    /// Makes everything durable that was added. Errors: also those of others who share the pack,
    /// since the bytes that got lost may be anybody's.
    fn sync(&mut self) -> Result<(), DiskError> {
        self.write_out()?;
        if planted(Plant::LogBeforePack) {
            return Ok(());
        }
        let synced = self.segment.file.sync();
        self.broken = synced.clone().err();
        synced
    }

    fn push(&mut self, kind: u8, payload: &[u8]) {
        let head = FrameHead { position: self.end(), kind, group: 1, starts_group: false };
        encode_frame(&mut self.buffer, self.segment.seed, &head, &[payload]);
    }

    fn write_out(&mut self) -> Result<(), DiskError> {
        if let Some(cause) = &self.broken {
            return Err(cause.clone());
        }
        let at = self.segment.offset(self.buffer_at);
        let written = self.segment.file.write_at(at, &self.buffer);
        self.broken = written.clone().err();
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        written
    }
}

/// The header that a pack has: all of it follows from what the log says.
pub(super) fn header(log_id: [u8; 16], number: u64, salt: [u8; 16]) -> Header {
    let (kind, key_id, predecessor) = (HeaderKind::Pack, 0, [0; 16]);
    let (first_position, segment_size) = (0, 0);
    Header { kind, key_id, log_id, salt, predecessor, number, first_position, segment_size }
}

/// A pack to be read.
#[derive(Debug)]
pub(crate) struct ReadPack {
    pub(crate) segment: Segment,
    /// What is wrong with its header, though its frames can be read.
    pub(crate) bad_header: Option<&'static str>,
}

/// Opens the pack that should have this header. Errors: [`StoreError::PackLost`] if it is gone or
/// another file is in its place, [`StoreError::Disk`] if it cannot be opened now.
pub(super) fn open(disk: &dyn Disk, header: Header) -> Result<ReadPack, StoreError> {
    let number = header.number;
    let lost = |reason| StoreError::PackLost { file: number, reason, chunks: 0 };
    let file = match disk.open_to_read(number) {
        Ok(file) => file,
        Err(DiskError::NotFound { .. }) => return Err(lost("its file is gone")),
        Err(error) => return Err(error.into()),
    };
    let bad_header = match read_header(number, &*file) {
        Ok(Some(found)) if found == header => None,
        Ok(Some(_)) => return Err(lost("another file is in its place")),
        Ok(None) => return Err(lost("its file holds nothing")),
        // Checksums depend on what the header should say, not on its bytes; each chunk is compared
        // with its name besides.
        Err(DiskError::Damaged { reason, .. }) => Some(reason),
        Err(DiskError::TooNew { .. }) => Some("its format is not that of the log"),
        Err(_) => Some("it cannot be read"),
    };
    Ok(ReadPack { segment: Segment::new(header, file), bad_header })
}

/// Reads a chunk into `out`, and compares it with its name.
pub(super) fn read_chunk(
    segment: &Segment,
    id: &ChunkId,
    chunk: &StoredChunk,
    out: &mut Vec<u8>,
) -> Result<(), BlobError> {
    let damaged = |reason| BlobError::Damaged {
        chunk: *id,
        file: segment.number(),
        offset: segment.offset(chunk.position),
        reason,
    };
    let len = usize::try_from(chunk.len).ok().filter(|len| *len <= MAX_PACK_PAYLOAD);
    let len = frame_len(len.ok_or_else(|| damaged("its length is beyond the limit"))?);
    let end = segment.offset(chunk.position).saturating_add(len as u64);
    let mut frame = vec![0; len];
    let read = segment.file.read_at(segment.offset(chunk.position), &mut frame);
    if read.is_err() && segment.file.len().is_ok_and(|len| len < end) {
        return Err(damaged("the pack ends before it"));
    }
    read.map_err(StoreError::from)?;
    let frame = decode_frame(&frame, segment.seed, chunk.position)
        .filter(|frame| frame.kind == PACK_CHUNK)
        .ok_or_else(|| damaged("the checksum of its frame does not match"))?;
    match unpack(frame.payload, out) {
        Some(found) if found == *id && planted(Plant::KeepWhatComes) => Ok(()),
        Some(found) if found == *id && ChunkId::of(out) == *id => Ok(()),
        Some(_) => Err(damaged("it has another content than its name says")),
        None => Err(damaged("its frame does not decode")),
    }
}

/// The chunk in a frame's payload, if it is what its name says; its content goes into `out`.
pub(super) fn chunk_in(payload: &[u8], out: &mut Vec<u8>) -> Option<ChunkId> {
    unpack(payload, out).filter(|found| ChunkId::of(out) == *found)
}

/// Unpacks the content of a chunk's frame into `out` and returns the name that the frame gives it.
fn unpack(payload: &[u8], out: &mut Vec<u8>) -> Option<ChunkId> {
    let (id, rest) = payload.split_first_chunk::<32>()?;
    let (raw, rest) = rest.split_first_chunk::<4>()?;
    let (codec, content) = rest.split_first()?;
    let raw =
        usize::try_from(u32::from_le_bytes(*raw)).ok().filter(|raw| *raw <= MAX_CHUNK_BYTES)?;
    out.clear();
    match *codec {
        RAW if content.len() == raw => out.extend_from_slice(content),
        LZ4 => {
            out.resize(raw, 0);
            let found = lz4_flex::block::decompress_into(content, out).ok()?;
            (found == raw).then_some(())?;
        }
        _ => return None,
    }
    Some(ChunkId(*id))
}
