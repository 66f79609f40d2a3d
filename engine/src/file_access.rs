//! Files of the authority as streams of bytes, for whoever brings or takes them as a whole.

use std::io::Read;

use lastword_core::hash::BlobHash;
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::{Blob, PROFILE};
use lastword_core::protocol::Role;
use lastword_store::BlobError;
use lastword_store::blobs::{BlobReader, Ingest};

use crate::authority::Authority;
use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::file_frames;
use crate::owned;
use crate::upload_policy::UploadRequest;

impl Authority {
    /// A file of a workspace, to be read by one of its members. Reads block on the disk.
    ///
    /// # Errors
    /// [`Error::NoMember`], and [`Error::Blob`] if it is not here.
    pub fn open_file(
        &self,
        workspace: &WorkspaceName,
        user: &str,
        hash: &BlobHash,
    ) -> Result<BlobReader> {
        self.member(workspace, user)?;
        match hash {
            BlobHash::Sha256(sha256) => Ok(BlobReader::open(&self.blobs()?, workspace, sha256)?),
            BlobHash::Md5(_) => Err(BlobError::Missing { hash: *hash }.into()),
        }
    }

    /// Whether a file may be brought: by the role of its user, by room and length, and by the rules
    /// of the server's software.
    ///
    /// # Errors
    /// [`Error::NoMember`], [`Error::UploadRefused`], [`Error::FilesOverQuota`] and the like.
    pub fn check_upload(&self, request: &UploadRequest<'_>) -> Result<()> {
        self.reserve_upload(request).map(drop)
    }

    fn reserve_upload(&self, request: &UploadRequest<'_>) -> Result<crate::quota::Reservation> {
        let UploadRequest { workspace, user, hash, size_bytes, .. } = *request;
        let BlobHash::Sha256(sha256) = hash else {
            return Err(BlobError::Missing { hash }.into());
        };
        if self.member(workspace, user)? == Role::Viewer {
            let message = format!("a viewer of {workspace} uploads no files");
            return Err(Error::UploadRefused { message });
        }
        let root = ChunkId([0; 32]);
        let blob = Blob { sha256, size: size_bytes, profile: PROFILE, depth: 0, root };
        let room = self.file_quota().reserve(|| self.view(), workspace, &blob)?;
        self.may_upload(request)?;
        Ok(room)
    }

    /// Stores a file that comes as a whole, if it is the one that was named. Blocks until it is
    /// durable.
    ///
    /// # Errors
    /// Those of [`Authority::check_upload`]; [`Error::Blob`] if `from` fails, gives more bytes than
    /// were said, or gives another file.
    pub fn store_file(&self, request: &UploadRequest<'_>, from: impl Read) -> Result<()> {
        let UploadRequest { workspace, user, hash, size_bytes, .. } = *request;
        let _room = self.reserve_upload(request)?;
        let mut ingest = Ingest::new(&self.blobs()?, workspace, from, size_bytes, now_ms());
        let writer = self.writer();
        loop {
            let mut done = ingest.step()?;
            let Some(blob) = done.blob else {
                file_frames::append(writer, std::mem::take(&mut done.frames))?;
                continue;
            };
            if BlobHash::Sha256(blob.sha256) != hash {
                return Err(BlobError::Manifest { hash }.into());
            }
            let frames = std::mem::take(&mut done.frames);
            let may_write = self.may_write(workspace.clone(), user.to_owned());
            let (workspace, now_ms) = (workspace.clone(), now_ms());
            return writer.run(move |store| {
                may_write(store)?;
                file_frames::append_now(store, frames)?;
                owned::set_stored(store, &workspace, &blob.sha256, now_ms)
            });
        }
    }
}
