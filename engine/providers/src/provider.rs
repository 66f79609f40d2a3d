//! The interface of an object store.
//!
//! Devices move bytes over signed URLs, straight to and from the store. The server signs them, asks
//! the store what it has, and believes no device: [`crate::commit::verify`] stands between an
//! upload and the record that names it.

use std::fmt;
use std::io::Read;

use crate::capability::{Capabilities, Capability};
use crate::expiry::Grant;
use crate::http::{Headers, HttpError, Method, Request, without_signature};
use crate::key::{ObjectKey, Prefix};
use crate::upload::{Download, MultipartId, Upload, UploadError};

/// A request that a device may make, until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct Presigned {
    /// The method it is good for, and no other.
    pub method: Method,
    /// The URL in full, signature included.
    pub url: String,
    /// Headers that must be sent exactly so. `content-length` is bound too, where the store can,
    /// but a client sets that by the body it sends.
    pub headers: Headers,
    /// When it stops working, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

impl Presigned {
    /// The request with this body.
    #[must_use]
    pub fn request(&self, body: Vec<u8>) -> Request {
        Request { method: self.method, url: self.url.clone(), headers: self.headers.clone(), body }
    }
}

impl fmt::Debug for Presigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, url) = (self.method, without_signature(&self.url));
        write!(f, "{method} {url}?.. until {}", self.expires_at_ms)
    }
}

/// One part that a device wants to upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartToSend {
    /// Its number, from 1 on. Where it lies in the file, [`Upload::part`] says.
    pub number: u32,
    /// The SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// One part that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Its number, from 1 on.
    pub number: u32,
    /// Its size.
    pub size_bytes: u64,
    /// What the store calls this version of it, if it says.
    pub etag: Option<String>,
    /// Its SHA-256, if the store says.
    pub sha256: Option<[u8; 32]>,
}

/// How an upload in parts ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// The object is there now.
    Stored,
    /// One was there already; the parts were thrown away.
    AlreadyThere,
}

/// What a store says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its size.
    pub size_bytes: u64,
    /// The SHA-256 of the whole object, only where the store computed it itself.
    pub sha256: Option<[u8; 32]>,
}

/// One object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Objects of ours.
    pub objects: Vec<Listed>,
    /// What lies there and is not exactly a key of ours. Nobody deletes these unasked.
    pub strays: Vec<String>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

/// What went wrong at a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// There is no answer. Whether the store did it, nobody knows: ask, then repeat.
    #[error("{operation}: {source}")]
    Http {
        /// What was done.
        operation: &'static str,
        /// Why there is none.
        source: HttpError,
    },
    /// The store says no.
    #[error("{operation}: the store answered {status} {code}: {message}")]
    Refused {
        /// What was done.
        operation: &'static str,
        /// The status of HTTP.
        status: u16,
        /// The store's own name of the error, if it gave one.
        code: String,
        /// The store's own words.
        message: String,
    },
    /// The answer is not what this operation is answered with.
    #[error("{operation}: the store's answer makes no sense: {what}")]
    Malformed {
        /// What was done.
        operation: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The store cannot do this.
    #[error("provider {provider} cannot do this: it lacks {capability}")]
    Unsupported {
        /// Which provider.
        provider: String,
        /// What it lacks.
        capability: Capability,
    },
    /// The upload in parts is unknown: completed, aborted or never begun.
    #[error("{key} has no upload {id:?} in parts")]
    NoSuchUpload {
        /// The key.
        key: ObjectKey,
        /// The id.
        id: String,
    },
    /// A part is missing or has another size than the file has there.
    #[error("{key} is incomplete: part {part} has {found:?} bytes, not {expected}")]
    Incomplete {
        /// The key.
        key: ObjectKey,
        /// The first such part.
        part: u32,
        /// What the store has of it.
        found: Option<u64>,
        /// What the file has there.
        expected: u64,
    },
    /// The file or the part cannot be uploaded at all.
    #[error(transparent)]
    Upload(#[from] UploadError),
}

impl ProviderError {
    /// True if the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Http { source, .. } => !matches!(source, HttpError::Request { .. }),
            Self::Refused { status, .. } => *status >= 500 || [408, 429].contains(status),
            _ => false,
        }
    }
}

/// A remote home for files.
///
/// Every method may be called from any thread and blocks while the store answers; the presigning
/// ones ask nobody. Each operation may be repeated after a lost answer.
pub trait ObjectStorageProvider: fmt::Debug + Send + Sync {
    /// Which provider this is: what `storage_provider_id` of a file says.
    fn id(&self) -> &str;

    /// What the store promises. The conformance suite holds it to that.
    fn capabilities(&self) -> Capabilities;

    /// A URL to which a device sends the whole file at once.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn presign_upload(&self, upload: &Upload, grant: Grant) -> Result<Presigned, ProviderError>;

    /// A URL from which a device reads the file, whole or a range of it.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn presign_download(
        &self,
        key: &ObjectKey,
        download: &Download,
        grant: Grant,
    ) -> Result<Presigned, ProviderError>;

    /// Begins an upload in parts. Its id is kept by the caller, so that it can go on.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn begin_multipart(&self, upload: &Upload, now_ms: u64) -> Result<MultipartId, ProviderError>;

    /// The parts that the store has, by number: all others are still to be sent.
    ///
    /// # Errors
    /// [`ProviderError::NoSuchUpload`], where the store can tell that from an upload without parts.
    fn stored_parts(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Vec<StoredPart>, ProviderError>;

    /// A URL to which a device sends one part.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn presign_part(
        &self,
        upload: &Upload,
        id: &MultipartId,
        part: PartToSend,
        grant: Grant,
    ) -> Result<Presigned, ProviderError>;

    /// Makes the object of its parts. Which parts there are, the store is asked, not the device.
    ///
    /// # Errors
    /// [`ProviderError::Incomplete`], [`ProviderError::NoSuchUpload`] also after a completion whose
    /// answer was lost: look at the object then.
    fn complete_multipart(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Completed, ProviderError>;

    /// Throws the parts away.
    ///
    /// # Errors
    /// [`ProviderError`]; none for an upload that is gone.
    fn abort_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<(), ProviderError>;

    /// What the store has under this key, `None` if nothing.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn head(&self, key: &ObjectKey, now_ms: u64) -> Result<Option<Head>, ProviderError>;

    /// The bytes under this key, as they come; `None` if there is no object.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn read(
        &self,
        key: &ObjectKey,
        now_ms: u64,
    ) -> Result<Option<Box<dyn Read + Send>>, ProviderError>;

    /// Deletes the object.
    ///
    /// # Errors
    /// [`ProviderError`]; none if there is no such object.
    fn delete(&self, key: &ObjectKey, now_ms: u64) -> Result<(), ProviderError>;

    /// One page of what lies under a prefix, from `after` on, which is `next` of the page before.
    ///
    /// # Errors
    /// [`ProviderError`].
    fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        max_objects: usize,
        now_ms: u64,
    ) -> Result<Page, ProviderError>;
}

/// The parts of a complete upload, in order, or which one is missing or has the wrong size.
///
/// # Errors
/// [`ProviderError::Incomplete`].
pub fn check_parts(
    upload: &Upload,
    mut stored: Vec<StoredPart>,
) -> Result<Vec<StoredPart>, ProviderError> {
    stored.sort_by_key(|part| part.number);
    stored.retain(|part| part.number >= 1 && part.number <= upload.parts());
    stored.dedup_by_key(|part| part.number);
    for number in 1..=upload.parts() {
        let (_, expected) = upload.part(number)?;
        let found = stored.iter().find(|part| part.number == number).map(|part| part.size_bytes);
        if found != Some(expected) {
            let key = upload.key().clone();
            return Err(ProviderError::Incomplete { key, part: number, found, expected });
        }
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::Presigned;
    use crate::http::Method;

    #[test]
    fn r8_2_a_signature_is_never_printed() {
        let url = "https://a/b?signature=hidden".to_owned();
        let signed = Presigned { method: Method::Get, url, headers: Vec::new(), expires_at_ms: 7 };
        let printed = format!("{signed:?} {:?}", signed.request(b"hidden".to_vec()));
        assert_eq!(printed, "GET https://a/b?.. until 7 GET https://a/b?.., 6 bytes");
    }
}
