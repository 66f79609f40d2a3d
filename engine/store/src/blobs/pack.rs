//! Packs: files of chunks that only grow.
//!
//! A pack has the header and the frames of a log file. The first frame says whose it is, each
//! other one holds a chunk or says what a file consists of, so that an index can be made of packs
//! alone.
//! What counts is what the log says: a pack ends where its newest frame of the log says so, and
//! what lies behind was never confirmed.

use std::sync::Arc;

use lastword_core::codec::to_bytes;
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_CHUNK_BYTES;
use lastword_core::manifest::Blob;

use crate::disk::{Disk, read_header};
use crate::error::{BlobError, DiskError, StoreError};
use crate::header::HeaderKind;
use crate::keys::StoredChunk;
use crate::limits::{MAX_PACK_PAYLOAD, PACK_WRITE_BYTES, SPARES_RESERVED};
use crate::oplog::{
    Entropy, FrameHead, PACK_BLOB, PACK_CHUNK, PACK_OPEN, Segment, Template, decode_frame,
    encode_frame, frame_len,
};
use crate::payload::NewChunk;

/// Bytes of a chunk's payload before its content: id, length and codec.
const CHUNK_HEAD: usize = 32 + 4 + 1;
/// The content is as it is in the file.
const RAW: u8 = 0;
/// The content is one lz4 block.
const LZ4: u8 = 1;
/// A chunk is kept compressed if that saves one part in so many.
const WORTH: usize = 16;

/// A pack that takes chunks.
#[derive(Debug)]
pub(super) struct PackWriter {
    pub(super) segment: Arc<Segment>,
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
    /// A new pack of a workspace.
    pub(super) fn create(
        disk: &dyn Disk,
        entropy: &mut Entropy,
        log_id: [u8; 16],
        workspace: &WorkspaceName,
    ) -> Result<Self, DiskError> {
        let template =
            Template { kind: HeaderKind::Pack, log_id, predecessor: [0; 16], segment_size: 0 };
        let segment = Segment::reserve(disk, entropy, &template, 0, SPARES_RESERVED)?;
        segment.give_birth()?;
        let mut writer = Self::at(Arc::new(segment), 0);
        writer.push(PACK_OPEN, &to_bytes(workspace));
        Ok(writer)
    }

    /// Goes on with a pack that ends at `end`. What an earlier process had written behind goes
    /// first: a frame of it must not be taken for one of ours.
    pub(super) fn resume(segment: Arc<Segment>, end: u64) -> Result<Self, DiskError> {
        segment.file.set_len(segment.offset(end))?;
        segment.file.sync()?;
        Ok(Self::at(segment, end))
    }

    fn at(segment: Arc<Segment>, end: u64) -> Self {
        let (buffer, scratch) = (Vec::new(), Vec::new());
        PackWriter { segment, buffer, buffer_at: end, broken: None, scratch }
    }

    /// Position behind the last frame.
    pub(super) fn end(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
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
        let mut payload = Vec::with_capacity(CHUNK_HEAD + content.len());
        payload.extend_from_slice(&id.0);
        payload.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        payload.push(codec);
        payload.extend_from_slice(content);
        let position = self.push(PACK_CHUNK, &payload);
        if self.buffer.len() >= PACK_WRITE_BYTES {
            self.write_out()?;
        }
        Ok(NewChunk { id, position, len: payload.len() as u64, raw: raw.len() as u64 })
    }

    /// Says what a file consists of.
    pub(super) fn add_blob(&mut self, blob: &Blob) {
        self.push(PACK_BLOB, &to_bytes(blob));
    }

    /// Makes everything durable that was added. Errors: also those of others who share the pack,
    /// since the bytes that got lost may be anybody's.
    pub(super) fn sync(&mut self) -> Result<(), DiskError> {
        self.write_out()?;
        let synced = self.segment.file.sync();
        self.broken = synced.clone().err();
        synced
    }

    fn push(&mut self, kind: u8, payload: &[u8]) -> u64 {
        let position = self.end();
        let head = FrameHead { position, kind, group: 1, starts_group: false };
        encode_frame(&mut self.buffer, self.segment.seed, &head, payload);
        position
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

/// The pack in a file, to be read.
pub(super) fn open(disk: &dyn Disk, number: u64) -> Result<Segment, DiskError> {
    let file = disk.open(number)?;
    match read_header(number, &*file)? {
        Some(header) if header.kind == HeaderKind::Pack => Ok(Segment::new(header, file)),
        _ => Err(DiskError::Damaged { file: number, offset: 0, reason: "the file is no pack" }),
    }
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
        Some(found) if found == *id && ChunkId::of(out) == *id => Ok(()),
        Some(_) => Err(damaged("it has another content than its name says")),
        None => Err(damaged("its frame does not decode")),
    }
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
