//! Hashes: what a file is called by its content, and what its pieces are called.
//!
//! A file is named by the SHA-256 of its bytes, written `sha256:` and 64 lower-case hexadecimal
//! digits. Older records name theirs by MD5, with the prefix `md5:` or as bare digits: those are
//! read, never written anew, and nothing is found to be equal by them. A chunk is named by its
//! BLAKE3. Computing them is not done here: core has no I/O.

use alloc::string::String;
use core::fmt;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};

const SHA256: &str = "sha256:";
const MD5: &str = "md5:";

/// Text that is no hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashError {
    /// It has none of the known forms.
    #[error(
        "{start:?} is not the hash of a file: write sha256: and 64 hexadecimal digits in lower case"
    )]
    Form {
        /// Its first characters.
        start: String,
    },
    /// It is an MD5, which names old files only.
    #[error("{start:?} is an MD5: new files are named by sha256: and 64 hexadecimal digits")]
    Legacy {
        /// Its first characters.
        start: String,
    },
}

/// The name of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlobHash {
    /// SHA-256 of its bytes: what every new file has.
    Sha256([u8; 32]),
    /// MD5 of its bytes: what some old records have. It can be forged.
    Md5([u8; 16]),
}

impl BlobHash {
    /// Reads the name of a new file.
    ///
    /// # Errors
    /// [`HashError::Legacy`] for an MD5, [`HashError::Form`] for anything else but `sha256:` and 64
    /// digits in lower case.
    pub fn new(text: &str) -> Result<Self, HashError> {
        match Self::read(text)? {
            hash @ Self::Sha256(_) => Ok(hash),
            Self::Md5(_) => Err(HashError::Legacy { start: start(text) }),
        }
    }

    /// Reads the name of a file as it may stand in a record: old forms too.
    ///
    /// # Errors
    /// [`HashError::Form`].
    pub fn read(text: &str) -> Result<Self, HashError> {
        let found = match text.strip_prefix(SHA256) {
            Some(digits) => hex(digits).map(Self::Sha256),
            None => hex(text.strip_prefix(MD5).unwrap_or(text)).map(Self::Md5),
        };
        found.ok_or_else(|| HashError::Form { start: start(text) })
    }
}

fn start(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Exactly as many bytes as wanted, from digits in lower case.
fn hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(bytes) => {
                f.write_str(SHA256)?;
                write_hex(f, bytes)
            }
            Self::Md5(bytes) => {
                f.write_str(MD5)?;
                write_hex(f, bytes)
            }
        }
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a chunk: BLAKE3 of its bytes as they are in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads the name of a chunk as it is printed: 64 digits in lower case.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        hex(text).map(Self)
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Encode for ChunkId {
    fn encode(&self, out: &mut Encoder) {
        out.raw(&self.0);
    }
}

impl Decode for ChunkId {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.array().map(Self)
    }
}
