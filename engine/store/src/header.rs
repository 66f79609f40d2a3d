//! The header of a log file or pack: who it is, which log it belongs to, where it begins.

use crate::error::DiskError;
use crate::limits::HEADER_LEN;

/// Newest format version this release reads and the one it writes.
pub const FORMAT: u16 = 1;

const MAGIC: [u8; 8] = *b"LASTWORD";
const CRC_AT: usize = 124;

/// What a file with a header is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderKind {
    /// A segment of the oplog.
    Segment,
    /// The folded prefix of an oplog.
    Base,
    /// A file of blob chunks.
    Pack,
}

impl HeaderKind {
    fn byte(self) -> u8 {
        match self {
            HeaderKind::Segment => 1,
            HeaderKind::Base => 2,
            HeaderKind::Pack => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(HeaderKind::Segment),
            2 => Some(HeaderKind::Base),
            3 => Some(HeaderKind::Pack),
            _ => None,
        }
    }
}

/// The fields of a header. On disk: 128 bytes, integers little-endian, a crc32 over the first 124
/// bytes in the last four, unused bytes zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the file is used for.
    pub kind: HeaderKind,
    /// Encryption key of its frames, 0 = none.
    pub key_id: u32,
    /// Random id of the log; it never leaves the store.
    pub log_id: [u8; 16],
    /// Random bytes of this file alone, so that bytes of another file are never taken for its own.
    pub salt: [u8; 16],
    /// Salt of the segment before, zero for the first.
    pub predecessor: [u8; 16],
    /// Number of the file.
    pub number: u64,
    /// Log position of the first frame.
    pub first_position: u64,
    /// Bytes after which the log goes on in another segment.
    pub segment_size: u64,
}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[10] = self.kind.byte();
        out[12..16].copy_from_slice(&self.key_id.to_le_bytes());
        out[16..32].copy_from_slice(&self.log_id);
        out[32..48].copy_from_slice(&self.salt);
        out[48..64].copy_from_slice(&self.predecessor);
        out[64..72].copy_from_slice(&self.number.to_le_bytes());
        out[72..80].copy_from_slice(&self.first_position.to_le_bytes());
        out[80..88].copy_from_slice(&self.segment_size.to_le_bytes());
        let crc = crc32fast::hash(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of file `number`. Errors: [`DiskError::TooNew`] for a later format, else
    /// [`DiskError::Damaged`].
    pub fn decode(number: u64, bytes: &[u8; HEADER_LEN]) -> Result<Header, DiskError> {
        let damaged = |offset, reason| DiskError::Damaged { file: number, offset, reason };
        if bytes[0..8] != MAGIC {
            return Err(damaged(0, "the header does not begin with the magic bytes"));
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        // A later format may place its checksum elsewhere, so the version is judged first.
        if format > FORMAT {
            return Err(DiskError::TooNew { file: number, found: format, supported: FORMAT });
        }
        let crc = u32::from_le_bytes(array(bytes, CRC_AT));
        if crc != crc32fast::hash(&bytes[..CRC_AT]) {
            return Err(damaged(0, "the checksum of the header does not match"));
        }
        let kind = HeaderKind::from_byte(bytes[10]).ok_or(damaged(10, "unknown kind of file"))?;
        let header = Header {
            kind,
            key_id: u32::from_le_bytes(array(bytes, 12)),
            log_id: array(bytes, 16),
            salt: array(bytes, 32),
            predecessor: array(bytes, 48),
            number: u64::from_le_bytes(array(bytes, 64)),
            first_position: u64::from_le_bytes(array(bytes, 72)),
            segment_size: u64::from_le_bytes(array(bytes, 80)),
        };
        if header.number != number {
            return Err(damaged(64, "the file carries the header of another file"));
        }
        Ok(header)
    }
}

/// `N` bytes of a header from `at`; both are constants of this file.
fn array<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
