//! Rows that say which files and chunks a workspace has, and where.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::Blob;

use super::workspace_prefix;
use crate::oplog::frame_len;
use crate::payload::pack_position;
use crate::state::Space;

/// Where the chunks of a workspace are.
pub const CHUNKS: Space = Space::new(14);
/// Its files, and the packs that hold their chunks.
pub const BLOBS: Space = Space::new(15);

const BLOB: u8 = b'b';
const CONDEMNED: u8 = b'c';
const OBJECT: u8 = b'o';
const PACK: u8 = b'p';

/// `workspace 00 chunk id`.
#[must_use]
pub fn chunk_key(workspace: &WorkspaceName, id: &ChunkId) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.extend_from_slice(&id.0);
    out
}

/// The chunk of a [`chunk_key`].
#[must_use]
pub fn chunk_of(key: &[u8]) -> Option<ChunkId> {
    key.last_chunk().map(|id| ChunkId(*id))
}

/// `workspace 00 62 sha256`.
#[must_use]
pub fn blob_key(workspace: &WorkspaceName, sha256: &[u8; 32]) -> Vec<u8> {
    let mut out = blobs_prefix(workspace);
    out.extend_from_slice(sha256);
    out
}

/// The part of a [`blob_key`] that all files of a workspace share.
#[must_use]
pub fn blobs_prefix(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(BLOB);
    out
}

/// `workspace 00 63 sha256`: where a file is noted that nothing names.
#[must_use]
pub fn condemned_key(workspace: &WorkspaceName, sha256: &[u8; 32]) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(CONDEMNED);
    out.extend_from_slice(sha256);
    out
}

/// `workspace 00 6f sha256`: what is known of a file that an object store keeps.
#[must_use]
pub fn object_key(workspace: &WorkspaceName, sha256: &[u8; 32]) -> Vec<u8> {
    let mut out = objects_prefix(workspace);
    out.extend_from_slice(sha256);
    out
}

/// The part of an [`object_key`] that all objects of a workspace share.
#[must_use]
pub fn objects_prefix(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(OBJECT);
    out
}

/// `workspace 00 70 number`.
#[must_use]
pub fn pack_key(workspace: &WorkspaceName, pack: u64) -> Vec<u8> {
    let mut out = packs_prefix(workspace);
    out.extend_from_slice(&pack.to_be_bytes());
    out
}

/// The part of a [`pack_key`] that all packs of a workspace share.
#[must_use]
pub fn packs_prefix(workspace: &WorkspaceName) -> Vec<u8> {
    let mut out = workspace_prefix(workspace);
    out.push(PACK);
    out
}

/// The pack of a [`pack_key`]; `None` of other keys.
#[must_use]
pub fn pack_of(key: &[u8]) -> Option<u64> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let (kind, number) = key.get(end + 1..)?.split_first()?;
    let number = number.first_chunk().filter(|_| *kind == PACK && number.len() == 8)?;
    Some(u64::from_be_bytes(*number))
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunk {
    /// Number of its pack.
    pub pack: u64,
    /// Position of its frame in the pack.
    pub position: u64,
    /// Bytes of the frame's payload.
    pub len: u64,
    /// Bytes of the chunk.
    pub raw: u64,
    /// Log position of the newest frame that stored or used it.
    pub touched: u64,
    /// Whether it counts.
    pub mark: ChunkMark,
}

impl StoredChunk {
    /// Bytes of its frame.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        usize::try_from(self.len).map_or(u64::MAX, |payload| frame_len(payload) as u64)
    }

    /// Position behind its frame.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position.saturating_add(self.frame_bytes())
    }
}

/// Whether a chunk counts as here. One that does not is written again when a file needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkMark {
    /// It does.
    Whole,
    /// A read has found other bytes there.
    Damaged,
    /// No file needed it; it can be read until it is dropped.
    Condemned(Condemned),
}

/// When something was found that nothing names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condemned {
    /// Log position of the frame that says so.
    pub at: u64,
    /// The time of it, milliseconds since 1970 UTC.
    pub time_ms: i64,
}

/// A file that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its length and chunks.
    pub blob: Blob,
    /// Log position of the newest frame that stored it.
    pub touched: u64,
    /// When that was, milliseconds since 1970 UTC.
    pub time_ms: i64,
}

/// Which file a pack is, and how far it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredPack {
    /// Salt in its header.
    pub salt: [u8; 16],
    /// Everything before this position is durable; what lies behind does not count.
    pub end: u64,
    /// Bytes of frames whose chunks are in [`CHUNKS`] with this pack.
    pub live: u64,
}

impl Encode for StoredChunk {
    fn encode(&self, out: &mut Encoder) {
        for number in [self.pack, self.position, self.len, self.raw, self.touched] {
            out.u64(number);
        }
        match self.mark {
            ChunkMark::Whole => out.u64(0),
            ChunkMark::Damaged => out.u64(1),
            ChunkMark::Condemned(condemned) => {
                out.u64(2);
                condemned.encode(out);
            }
        }
    }
}

impl Decode for StoredChunk {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (pack, position) = (from.u64()?, pack_position(from)?);
        let (len, raw, touched) = (from.u64()?, from.u64()?, from.u64()?);
        let offset = from.offset();
        let mark = match from.u64()? {
            0 => ChunkMark::Whole,
            1 => ChunkMark::Damaged,
            2 => ChunkMark::Condemned(Condemned::decode(from)?),
            _ => return Err(DecodeError::Invalid { what: "mark of a chunk", offset }),
        };
        Ok(Self { pack, position, len, raw, touched, mark })
    }
}

impl Encode for Condemned {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.at);
        out.i64(self.time_ms);
    }
}

impl Decode for Condemned {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { at: from.u64()?, time_ms: from.i64()? })
    }
}

impl Encode for StoredBlob {
    fn encode(&self, out: &mut Encoder) {
        self.blob.encode(out);
        out.u64(self.touched);
        out.i64(self.time_ms);
    }
}

impl Decode for StoredBlob {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { blob: Blob::decode(from)?, touched: from.u64()?, time_ms: from.i64()? })
    }
}

impl Encode for StoredPack {
    fn encode(&self, out: &mut Encoder) {
        out.raw(&self.salt);
        out.u64(self.end);
        out.u64(self.live);
    }
}

impl Decode for StoredPack {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { salt: from.array()?, end: pack_position(from)?, live: from.u64()? })
    }
}
