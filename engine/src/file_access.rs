//! Files of the authority as streams of bytes, for whoever brings or takes them as a whole.

use std::io::Read;

use lastword_core::hash::BlobHash;
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::{Blob, PROFILE};
use lastword_core::protocol::Role;
use lastword_core::value::Value;
use lastword_store::blobs::{BlobReader, Ingest, say_dropped, visit_pieces};
use lastword_store::payload::{BlobsFrame, BlobsPart, cut_text};
use lastword_store::{BlobError, read};

use crate::authority::Authority;
use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::file_frames;
use crate::file_row;
use crate::owned;
use crate::upload_policy::UploadRequest;

/// A file that a member reads. It ends when the membership does.
pub struct MemberFile {
    reader: BlobReader,
    authority: Authority,
    workspace: WorkspaceName,
    user: String,
    sha256: [u8; 32],
}

impl std::fmt::Debug for MemberFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemberFile({}, {})", self.workspace, BlobHash::Sha256(self.sha256))
    }
}

impl MemberFile {
    /// Its length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.reader.blob().size
    }

    /// The bytes from `offset` on, as many as are at hand; none at the end.
    ///
    /// # Errors
    /// [`Error::NoMember`] once its user is none any more; [`Error::Blob`] if a chunk is damaged,
    /// which is noted: devices that have the file bring it again.
    pub fn read_from(&mut self, offset: u64) -> Result<&[u8]> {
        self.authority.member(&self.workspace, &self.user)?;
        if let Err(error) = self.reader.read_from(offset) {
            note_damage(&self.authority, (&self.workspace, &self.sha256), None, &error);
            return Err(error.into());
        }
        Ok(self.reader.read_from(offset)?)
    }
}

/// Notes that a chunk is not what was written, and that its file is not here as a whole any more.
/// Whoever `asked` for a chunk that the file does not have changes nothing.
pub(crate) fn note_damage(
    authority: &Authority,
    (workspace, sha256): (&WorkspaceName, &[u8; 32]),
    asked: Option<&ChunkId>,
    error: &BlobError,
) {
    if !matches!(error, BlobError::Damaged { .. } | BlobError::PackLost { .. }) {
        return;
    }
    let noted = (|| -> Result<()> {
        file_frames::set_apart(authority.writer(), workspace, error);
        let stored = read::blob(&*authority.view(), workspace, sha256)?;
        let Some(stored) = stored else { return Ok(()) };
        let mut is_of_file = asked.is_none();
        let walked = visit_pieces(&authority.blobs()?, workspace, &stored.blob, &mut |id| {
            is_of_file |= asked == Some(id);
            Ok(())
        });
        // A list that cannot be read is damage of this file, too.
        if !is_of_file && walked.is_ok() {
            return Ok(());
        }
        let (workspace, sha256, now_ms) = (workspace.clone(), *sha256, now_ms());
        let clear = move |store: &mut _| owned::clear_stored(store, &workspace, &sha256, now_ms);
        authority.writer().run(clear)
    })();
    if let Err(error) = noted {
        tracing::warn!(%error, "the row of a damaged file still says that it is here");
    }
}

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
    ) -> Result<MemberFile> {
        self.member(workspace, user)?;
        let BlobHash::Sha256(sha256) = *hash else {
            return Err(BlobError::Missing { hash: *hash }.into());
        };
        let reader = BlobReader::open(&self.blobs()?, workspace, &sha256)?;
        let (authority, workspace, user) = (self.clone(), workspace.clone(), user.to_owned());
        Ok(MemberFile { reader, authority, workspace, user, sha256 })
    }

    /// Media type and name of a file, as far as its row says.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or the row is damaged.
    pub fn described(
        &self,
        workspace: &WorkspaceName,
        hash: &BlobHash,
    ) -> Result<(String, String)> {
        let row = self.read(workspace)?.get_record(&file_row::table(), &file_row::key_of(hash))?;
        let text = |name: &str| match row.as_ref().and_then(|row| row.record.get(name)) {
            Some(Value::Text(text)) => cut_text(&text),
            _ => String::new(),
        };
        Ok((text("mime_type"), text("name")))
    }

    /// Lets go of a file at once, whatever names it; the next collection frees its room. Nothing if
    /// it is not here.
    ///
    /// # Errors
    /// [`Error::Blob`] or [`Error::Store`] if the disk fails.
    pub fn drop_file(&self, workspace: &WorkspaceName, sha256: &[u8; 32]) -> Result<()> {
        let Some((said, held)) = say_dropped(&*self.blobs()?, workspace, sha256)? else {
            return Ok(());
        };
        let part = BlobsPart::Drop { blobs: vec![*sha256], chunks: Vec::new() };
        let (workspace, sha256, now_ms) = (workspace.clone(), *sha256, now_ms());
        self.writer().run(move |store| {
            let dropped = BlobsFrame { workspace: workspace.clone(), part };
            file_frames::append_now(store, vec![said, dropped])?;
            owned::clear_stored(store, &workspace, &sha256, now_ms)
        })?;
        drop(held);
        Ok(())
    }

    /// Whether a file may be brought: by the role of its user, by room and length, and by the rules
    /// of the server's software.
    ///
    /// # Errors
    /// [`Error::NoMember`], [`Error::UploadRefused`], [`Error::FilesOverQuota`] and the like.
    pub fn check_upload(&self, request: &UploadRequest<'_>) -> Result<()> {
        self.reserve_upload(request).map(drop)
    }

    pub(crate) fn reserve_upload(
        &self,
        request: &UploadRequest<'_>,
    ) -> Result<crate::quota::Reservation> {
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
        let BlobHash::Sha256(expected) = hash else {
            return Err(BlobError::Missing { hash }.into());
        };
        let mut ingest = Ingest::new(&self.blobs()?, workspace, from, size_bytes, now_ms());
        ingest.expect(expected);
        let writer = self.writer();
        loop {
            let mut done = ingest.step()?;
            let Some(blob) = done.blob else {
                file_frames::append(writer, std::mem::take(&mut done.frames))?;
                continue;
            };
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
