//! One point at play: its workspace, its files, and what a device does with them.

use std::cell::RefCell;

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use sha2::{Digest, Sha256};

use super::World;
use crate::expiry::{Expiry, Grant};
use crate::http::{HttpError, Reply, Request};
use crate::key::ObjectKey;
use crate::provider::{ObjectStorageProvider, PartToSend, Presigned};
use crate::upload::{Download, MultipartId, Upload};

/// Longest body of a download that the suite reads.
const MAX_BODY: usize = 32 * 1024 * 1024;
pub(super) const MIME: &str = "image/png";

/// Why a point did not pass.
#[derive(Debug)]
pub(super) struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Fails with this text unless it is so.
pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure(what())) }
}

pub(super) struct Trial<'a> {
    pub provider: &'a dyn ObjectStorageProvider,
    world: &'a dyn World,
    workspace: String,
    keys: RefCell<Vec<ObjectKey>>,
    begun: RefCell<Vec<(ObjectKey, MultipartId)>>,
}

/// A file with its bytes.
pub(super) struct File {
    pub upload: Upload,
    pub bytes: Vec<u8>,
}

impl File {
    pub(super) fn key(&self) -> &ObjectKey {
        self.upload.key()
    }

    /// Bytes of one part, and what asks for its URL.
    pub(super) fn part(&self, number: u32) -> Result<(PartToSend, Vec<u8>), Failure> {
        let (start, len) = self.upload.part(number)?;
        let (start, len) = (usize::try_from(start)?, usize::try_from(len)?);
        let bytes = self.bytes.get(start..start + len);
        let bytes = bytes.ok_or_else(|| Failure(format!("part {number} is outside the file")))?;
        Ok((PartToSend { number, sha256: Sha256::digest(bytes).into() }, bytes.to_vec()))
    }
}

impl<'a> Trial<'a> {
    pub(super) fn new(
        provider: &'a dyn ObjectStorageProvider,
        world: &'a dyn World,
        workspace: String,
    ) -> Self {
        let (keys, begun) = Default::default();
        Self { provider, world, workspace, keys, begun }
    }

    /// Deletes what the point left, if the provider can. What it could not delete is the point's to
    /// tell.
    pub(super) fn clear(&self) {
        for (key, id) in self.begun.borrow_mut().drain(..) {
            let _ = self.provider.abort_multipart(&key, &id, self.world.now_ms());
        }
        for key in self.keys.borrow_mut().drain(..) {
            let _ = self.provider.delete(&key, self.world.now_ms());
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.world.now_ms()
    }

    pub(super) fn grant(&self) -> Grant {
        Grant::at(self.now_ms())
    }

    /// A grant that ends at once: given in the past, where the provider lets the time be said.
    pub(super) fn short_grant(&self) -> Result<Grant, Failure> {
        let expiry = Expiry::new(std::time::Duration::from_secs(1))?;
        Ok(Grant { now_ms: self.now_ms().saturating_sub(10_000), expiry })
    }

    pub(super) fn wait_past(&self, presigned: &Presigned) {
        self.world.wait_until(presigned.expires_at_ms);
    }

    /// The name of the workspace whose name is that of this trial's and `more`.
    pub(super) fn workspace(&self, more: &str) -> Result<WorkspaceName, Failure> {
        Ok(WorkspaceName::new(&format!("{}{more}", self.workspace))?)
    }

    pub(super) fn file(&self, seed: u8, len: usize) -> Result<File, Failure> {
        self.file_in(&self.workspace("")?, seed, len)
    }

    pub(super) fn file_in(
        &self,
        workspace: &WorkspaceName,
        seed: u8,
        len: usize,
    ) -> Result<File, Failure> {
        let bytes = noise(seed, len);
        let key = ObjectKey::new(workspace, BlobHash::Sha256(Sha256::digest(&bytes).into()))?;
        self.keys.borrow_mut().push(key.clone());
        Ok(File { upload: Upload::new(key, len as u64, MIME)?, bytes })
    }

    pub(super) fn send(&self, request: Request) -> Result<Reply, HttpError> {
        self.world.http().send(request)
    }

    /// Sends what must succeed.
    pub(super) fn done(&self, what: &str, request: Request) -> Result<Reply, Failure> {
        let reply = self.send(request)?;
        let status = reply.status;
        if (200..300).contains(&status) {
            return Ok(reply);
        }
        let text = String::from_utf8_lossy(&reply.bytes(MAX_BODY)?).into_owned();
        let text: String = text.chars().take(200).collect();
        Err(Failure(format!("{what} was answered {status}: {text}")))
    }

    /// Sends what must be refused. A server may also close the connection on it, or not know at all
    /// what is asked of it (501); any other failure of its own is no refusal.
    pub(super) fn refused(&self, what: &str, request: Request) -> Result<(), Failure> {
        match self.send(request) {
            Ok(reply) => {
                let status = reply.status;
                let refused = (400..500).contains(&status) || status == 501;
                ensure(refused, || format!("{what} was answered {status}"))
            }
            Err(HttpError::Lost { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn presign_upload(&self, file: &File) -> Result<Presigned, Failure> {
        Ok(self.provider.presign_upload(&file.upload, self.grant())?)
    }

    pub(super) fn presign_download(&self, file: &File) -> Result<Presigned, Failure> {
        Ok(self.provider.presign_download(file.key(), &Download::default(), self.grant())?)
    }

    /// Uploads a file whole.
    pub(super) fn store(&self, file: &File) -> Result<(), Failure> {
        let url = self.presign_upload(file)?;
        self.done("an upload", url.request(file.bytes.clone())).map(|_| ())
    }

    /// A new file of this trial, uploaded.
    pub(super) fn stored(&self, seed: u8, len: usize) -> Result<File, Failure> {
        let file = self.file(seed, len)?;
        self.store(&file)?;
        Ok(file)
    }

    /// Begins an upload in parts, which is aborted at the end whatever becomes of it.
    pub(super) fn begin(&self, file: &File) -> Result<MultipartId, Failure> {
        let id = self.provider.begin_multipart(&file.upload, self.now_ms())?;
        self.begun.borrow_mut().push((file.key().clone(), id.clone()));
        Ok(id)
    }

    pub(super) fn send_part(
        &self,
        file: &File,
        id: &MultipartId,
        number: u32,
    ) -> Result<(), Failure> {
        let (part, bytes) = file.part(number)?;
        let url = self.provider.presign_part(&file.upload, id, part, self.grant())?;
        self.done("a part", url.request(bytes)).map(|_| ())
    }

    /// Downloads a file and compares it.
    pub(super) fn comes_back(&self, file: &File) -> Result<(), Failure> {
        let url = self.presign_download(file)?;
        let bytes = self.done("a download", url.request(Vec::new()))?.bytes(MAX_BODY)?;
        let (found, expected) = (bytes.len(), file.bytes.len());
        ensure(bytes == file.bytes, || {
            format!("{found} bytes came back for {expected}, other ones")
        })
    }

    /// Nothing is stored under the key of this file, by the store's word and to a device.
    pub(super) fn absent(&self, what: &str, file: &File) -> Result<(), Failure> {
        let head = self.provider.head(file.key(), self.now_ms())?;
        ensure(head.is_none(), || format!("{what}: there is an object"))?;
        let url = self.presign_download(file)?;
        self.refused(&format!("{what}: a download"), url.request(Vec::new()))
    }
}

/// Bytes that no store can compress or mistake for others: xorshift from a seed.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
