//! The check at commit: what stands under the key is what the key says.
//!
//! Whatever a store binds, signs or promises, no record may name a file before this passed. A store
//! that computed a SHA-256 of the whole object itself is asked for it; of one that did not, and of
//! S3 after an upload in parts, whose checksum is one of checksums, every byte is read.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::key::{ObjectKey, hex};
use crate::limits::READ_BYTES;
use crate::provider::{ObjectStorageProvider, ProviderError};
use crate::upload::Upload;

/// Why an upload does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Nothing is there.
    #[error("{key} is not there")]
    Missing {
        /// The key.
        key: ObjectKey,
    },
    /// It has another size.
    #[error("{key} has {found} bytes, not {expected}")]
    Size {
        /// The key.
        key: ObjectKey,
        /// What the upload said.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// It has other bytes.
    #[error("{key} has other bytes: their SHA-256 is {found}")]
    Checksum {
        /// The key.
        key: ObjectKey,
        /// The SHA-256 of what is there.
        found: String,
    },
    /// The bytes broke off while they were read.
    #[error("{key} cannot be read: {source}")]
    Read {
        /// The key.
        key: ObjectKey,
        /// What the system says.
        source: io::Error,
    },
    /// The store did not answer, or said no.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// How an object was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// By the SHA-256 that the store computed.
    ByStore,
    /// By reading every byte.
    ByReading,
}

/// Checks that the store has exactly this upload. It changes nothing there.
///
/// # Errors
/// [`CommitError`].
pub fn verify(
    provider: &dyn ObjectStorageProvider,
    upload: &Upload,
    now_ms: u64,
) -> Result<Verified, CommitError> {
    let key = upload.key();
    let Some(head) = provider.head(key, now_ms)? else {
        return Err(CommitError::Missing { key: key.clone() });
    };
    check_size(upload, head.size_bytes)?;
    let Some(sha256) = head.sha256 else {
        return verify_bytes(provider, upload, now_ms);
    };
    check_sum(key, &sha256)?;
    Ok(Verified::ByStore)
}

/// Checks it by reading every byte, whatever the store says: for a store that is not trusted, and
/// for a look now and then at one that is.
///
/// # Errors
/// [`CommitError`].
pub fn verify_bytes(
    provider: &dyn ObjectStorageProvider,
    upload: &Upload,
    now_ms: u64,
) -> Result<Verified, CommitError> {
    let key = upload.key();
    let Some(body) = provider.read(key, now_ms)? else {
        return Err(CommitError::Missing { key: key.clone() });
    };
    // One byte more than expected shows that there is more; the rest need not be read for that.
    let mut body = body.take(upload.size_bytes().saturating_add(1));
    let (mut hash, mut found, mut buffer) = (Sha256::new(), 0, vec![0; READ_BYTES]);
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(CommitError::Read { key: key.clone(), source }),
        };
        found += read as u64;
        hash.update(buffer.get(..read).unwrap_or_default());
    }
    check_size(upload, found)?;
    check_sum(key, &hash.finalize().into())?;
    Ok(Verified::ByReading)
}

fn check_size(upload: &Upload, found: u64) -> Result<(), CommitError> {
    let (key, expected) = (upload.key(), upload.size_bytes());
    let error = || CommitError::Size { key: key.clone(), expected, found };
    if found == expected { Ok(()) } else { Err(error()) }
}

fn check_sum(key: &ObjectKey, found: &[u8; 32]) -> Result<(), CommitError> {
    let error = || CommitError::Checksum { key: key.clone(), found: hex(found) };
    if found == key.sha256() { Ok(()) } else { Err(error()) }
}
