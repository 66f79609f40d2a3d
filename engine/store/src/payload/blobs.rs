//! What is said of files: which chunks are where, and which file consists of which.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_CHUNK_BYTES;
use lastword_core::manifest::Blob;

use crate::limits::{MAX_FRAME_CHUNKS, MAX_FRAME_PACKS, MAX_PACK_PAYLOAD, MAX_PACK_POSITION};

/// Something about the files of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobsFrame {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// What.
    pub part: BlobsPart,
}

/// What a [`BlobsFrame`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobsPart {
    /// Chunks are durable in packs, and others that were there are needed once more.
    Chunks {
        /// The new ones, pack by pack.
        packs: Vec<PackChunks>,
        /// The others.
        used: Vec<ChunkId>,
    },
    /// A file is here: all its chunks and pages are.
    Blob {
        /// The file.
        blob: Blob,
        /// When it was stored, milliseconds since 1970 UTC.
        time_ms: i64,
    },
    /// Chunks whose bytes are not what was written: they count as not here, unless they were
    /// stored anew elsewhere meanwhile.
    Damaged {
        /// Which.
        chunks: Vec<DamagedChunk>,
    },
    /// Nothing names these files, and no file needs these chunks: the first step of their end.
    Condemn {
        /// Files, by SHA-256.
        blobs: Vec<[u8; 32]>,
        /// Chunks.
        chunks: Vec<ChunkId>,
        /// The time of it, milliseconds since 1970 UTC.
        time_ms: i64,
    },
    /// Chunks that are needed again. Of a file, [`BlobsPart::Blob`] says so.
    Spare {
        /// Which.
        chunks: Vec<ChunkId>,
    },
    /// They are gone; their bytes in packs are dead.
    Drop {
        /// Files.
        blobs: Vec<[u8; 32]>,
        /// Chunks.
        chunks: Vec<ChunkId>,
    },
    /// A pack holds no chunk any more: its file goes once this is durable.
    PackGone {
        /// Its number.
        pack: u64,
    },
}

/// Chunks that were added to one pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackChunks {
    /// Number of the pack.
    pub pack: u64,
    /// Salt in its header: a file of this number that has another one is not this pack.
    pub salt: [u8; 16],
    /// Everything before this position of it is durable.
    pub end: u64,
    /// Which chunks, and where.
    pub chunks: Vec<NewChunk>,
}

/// One chunk in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewChunk {
    /// Its id.
    pub id: ChunkId,
    /// Position of its frame.
    pub position: u64,
    /// Bytes of the frame's payload.
    pub len: u64,
    /// Bytes of the chunk.
    pub raw: u64,
}

/// A place in a pack where a chunk should be and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedChunk {
    /// Its id.
    pub id: ChunkId,
    /// Number of the pack.
    pub pack: u64,
    /// Position of its frame there.
    pub position: u64,
}

impl Encode for DamagedChunk {
    fn encode(&self, out: &mut Encoder) {
        self.id.encode(out);
        out.u64(self.pack);
        out.u64(self.position);
    }
}

impl Decode for DamagedChunk {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let id = ChunkId::decode(from)?;
        Ok(Self { id, pack: from.u64()?, position: pack_position(from)? })
    }
}

/// A position in a pack, which is bounded so that no sum with it overflows.
pub(crate) fn pack_position(from: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    let offset = from.offset();
    match from.u64()? {
        position if position <= MAX_PACK_POSITION => Ok(position),
        _ => Err(DecodeError::Invalid { what: "position in a pack", offset }),
    }
}

impl Encode for NewChunk {
    fn encode(&self, out: &mut Encoder) {
        self.id.encode(out);
        for number in [self.position, self.len, self.raw] {
            out.u64(number);
        }
    }
}

impl Decode for NewChunk {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let id = ChunkId::decode(from)?;
        let position = pack_position(from)?;
        let len = from.len("payload of a chunk", MAX_PACK_PAYLOAD)? as u64;
        let raw = from.len("chunk", MAX_CHUNK_BYTES)? as u64;
        Ok(Self { id, position, len, raw })
    }
}

impl Encode for PackChunks {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.pack);
        out.raw(&self.salt);
        out.u64(self.end);
        out.list(&self.chunks);
    }
}

impl Decode for PackChunks {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (pack, salt, end) = (from.u64()?, from.array()?, pack_position(from)?);
        Ok(Self { pack, salt, end, chunks: from.list("chunks", MAX_FRAME_CHUNKS)? })
    }
}

impl Encode for BlobsFrame {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        match &self.part {
            BlobsPart::Chunks { packs, used } => {
                out.u64(0);
                out.list(packs);
                out.list(used);
            }
            BlobsPart::Blob { blob, time_ms } => {
                out.u64(1);
                blob.encode(out);
                out.i64(*time_ms);
            }
            BlobsPart::Damaged { chunks } => {
                out.u64(2);
                out.list(chunks);
            }
            BlobsPart::Condemn { blobs, chunks, time_ms } => {
                put_both(out, 3, blobs, chunks);
                out.i64(*time_ms);
            }
            BlobsPart::Spare { chunks } => {
                out.u64(4);
                out.list(chunks);
            }
            BlobsPart::Drop { blobs, chunks } => put_both(out, 5, blobs, chunks),
            BlobsPart::PackGone { pack } => {
                out.u64(6);
                out.u64(*pack);
            }
        }
    }
}

fn put_both(out: &mut Encoder, tag: u64, blobs: &[[u8; 32]], chunks: &[ChunkId]) {
    out.u64(tag);
    out.len_of(blobs.len());
    blobs.iter().for_each(|sha256| out.raw(sha256));
    out.list(chunks);
}

type Both = (Vec<[u8; 32]>, Vec<ChunkId>);

fn take_both(from: &mut Decoder<'_>) -> Result<Both, DecodeError> {
    let len = from.len("files", MAX_FRAME_CHUNKS)?;
    let mut blobs = Vec::new();
    for _ in 0..len {
        blobs.push(from.array()?);
    }
    Ok((blobs, from.list("chunks", MAX_FRAME_CHUNKS)?))
}

impl Decode for BlobsFrame {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let workspace = WorkspaceName::decode(from)?;
        let offset = from.offset();
        let part = match from.u64()? {
            0 => BlobsPart::Chunks {
                packs: from.list("packs", MAX_FRAME_PACKS)?,
                used: from.list("chunks", MAX_FRAME_CHUNKS)?,
            },
            1 => BlobsPart::Blob { blob: Blob::decode(from)?, time_ms: from.i64()? },
            2 => BlobsPart::Damaged { chunks: from.list("chunks", MAX_FRAME_CHUNKS)? },
            3 => {
                let (blobs, chunks) = take_both(from)?;
                BlobsPart::Condemn { blobs, chunks, time_ms: from.i64()? }
            }
            4 => BlobsPart::Spare { chunks: from.list("chunks", MAX_FRAME_CHUNKS)? },
            5 => {
                let (blobs, chunks) = take_both(from)?;
                BlobsPart::Drop { blobs, chunks }
            }
            6 => BlobsPart::PackGone { pack: from.u64()? },
            _ => return Err(DecodeError::Invalid { what: "part of a blobs frame", offset }),
        };
        Ok(Self { workspace, part })
    }
}
