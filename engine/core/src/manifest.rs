//! Which chunks a file consists of.
//!
//! A file of one chunk needs no list. A longer one has pages: a page of level 1 lists chunks of the
//! file, one of level 2 lists pages of level 1, and so on up to a single page. Pages are stored and
//! sent as chunks themselves, so a file of any size is read and written with a few pages in memory,
//! and the name of the topmost one vouches for all below it.

use alloc::vec::Vec;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::hash::ChunkId;
use crate::limits::{MAX_BLOB_BYTES, MAX_CHUNK_BYTES, MAX_MANIFEST_DEPTH, MAX_MANIFEST_ENTRIES};

/// Layout of a page; a reader refuses others.
const LAYOUT: u64 = 1;

/// FastCDC 2020 with 16, 64 and 256 KiB, normalisation level 1, no seed; a file of 64 KiB or less
/// is one chunk. The id says how a file was cut, so that another version of it is cut the same way;
/// reading does not depend on it.
pub const PROFILE: u64 = 1;

/// What is known of a file: how long it is and where its list of chunks begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Its length in bytes.
    pub size: u64,
    /// How it was cut: [`PROFILE`].
    pub profile: u64,
    /// Level of the root: 0 if that is the file's only chunk.
    pub depth: u64,
    /// The topmost page, or the only chunk.
    pub root: ChunkId,
}

/// A chunk or page, and how many bytes of the file it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Its name.
    pub id: ChunkId,
    /// Bytes of the file.
    pub len: u64,
}

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestPage {
    /// 1 if the entries are chunks of the file, else one more than that of the pages it lists.
    pub level: u64,
    /// What it lists, in the order of the file.
    pub entries: Vec<ManifestEntry>,
}

impl ManifestPage {
    /// Bytes of the file that the page stands for.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.iter().map(|entry| entry.len).fold(0, u64::saturating_add)
    }

    /// Never true of a page that was decoded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Encode for Blob {
    fn encode(&self, out: &mut Encoder) {
        out.raw(&self.sha256);
        out.u64(self.size);
        out.u64(self.profile);
        out.u64(self.depth);
        self.root.encode(out);
    }
}

impl Decode for Blob {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let sha256 = from.array()?;
        let offset = from.offset();
        let (size, profile, depth) = (from.u64()?, from.u64()?, from.u64()?);
        if size > MAX_BLOB_BYTES || depth > MAX_MANIFEST_DEPTH {
            return Err(DecodeError::Invalid { what: "size or depth of a blob", offset });
        }
        Ok(Self { sha256, size, profile, depth, root: ChunkId::decode(from)? })
    }
}

impl Encode for ManifestEntry {
    fn encode(&self, out: &mut Encoder) {
        self.id.encode(out);
        out.u64(self.len);
    }
}

impl Decode for ManifestEntry {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { id: ChunkId::decode(from)?, len: from.u64()? })
    }
}

impl Encode for ManifestPage {
    fn encode(&self, out: &mut Encoder) {
        out.u64(LAYOUT);
        out.u64(self.level);
        out.list(&self.entries);
    }
}

impl Decode for ManifestPage {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        let (layout, level) = (from.u64()?, from.u64()?);
        if layout != LAYOUT || !(1..=MAX_MANIFEST_DEPTH).contains(&level) {
            return Err(DecodeError::Invalid { what: "layout or level of a manifest", offset });
        }
        let offset = from.offset();
        let entries: Vec<ManifestEntry> = from.list("manifest entries", MAX_MANIFEST_ENTRIES)?;
        // A length of nothing could be repeated for ever, and one beyond what the level can hold
        // would make a reader ask for memory that no honest chunk needs.
        let limit = (1..level).fold(MAX_CHUNK_BYTES as u64, |limit, _| {
            limit.saturating_mul(MAX_MANIFEST_ENTRIES as u64)
        });
        let fits = |entry: &ManifestEntry| (1..=limit).contains(&entry.len);
        if entries.is_empty() || !entries.iter().all(fits) {
            return Err(DecodeError::Invalid { what: "length in a manifest", offset });
        }
        Ok(Self { level, entries })
    }
}
