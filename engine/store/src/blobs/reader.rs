//! Reading a file: chunk by chunk, each compared with its name.

use std::sync::Arc;

use lastword_core::codec::from_bytes;
use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::{Blob, ManifestPage};

use super::Blobs;
use crate::error::BlobError;
use crate::read;

/// A file that is being read. Holds one chunk and one page of each level.
///
/// Where a chunk is, is looked up in the newest state each time: packs may be rewritten meanwhile,
/// and what the chunk holds is in its name.
#[derive(Debug)]
pub struct BlobReader {
    blobs: Arc<Blobs>,
    workspace: WorkspaceName,
    blob: Blob,
    /// The pages above the next chunk, topmost first, and which entry comes next in each.
    pages: Vec<(ManifestPage, usize)>,
    /// Bytes of the file before the next chunk.
    at: u64,
    /// The chunk that was read last.
    chunk: Vec<u8>,
}

impl BlobReader {
    /// Reads the file with that SHA-256 as `view` has it. Errors: [`BlobError::Missing`].
    pub fn open(
        blobs: &Arc<Blobs>,
        workspace: &WorkspaceName,
        sha256: &[u8; 32],
    ) -> Result<Self, BlobError> {
        let stored = read::blob(&*blobs.view(), workspace, sha256)?;
        let hash = BlobHash::Sha256(*sha256);
        let blob = stored.ok_or(BlobError::Missing { hash })?.blob;
        Ok(Self::of(blobs, workspace, blob))
    }

    /// Reads a file whose chunks are here, whether or not the log says yet that it is.
    pub(super) fn of(blobs: &Arc<Blobs>, workspace: &WorkspaceName, blob: Blob) -> Self {
        let (blobs, workspace) = (blobs.clone(), workspace.clone());
        BlobReader { blobs, workspace, blob, pages: Vec::new(), at: 0, chunk: Vec::new() }
    }

    /// What is known of the file.
    #[must_use]
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Hands out the bytes from `offset` on to the end of the chunk in which it lies; nothing at
    /// the end of the file. A walk from the front reads each chunk and page once.
    ///
    /// # Errors
    /// [`BlobError::Damaged`] if a chunk is not what was written, [`BlobError::Gone`] if the state
    /// does not know it, [`BlobError::Store`] if the disk fails.
    pub fn read_from(&mut self, offset: u64) -> Result<&[u8], BlobError> {
        if offset >= self.blob.size {
            return Ok(&[]);
        }
        if let Err(error) = self.go_to(offset) {
            // Whoever tries again must not be handed what comes behind the bad chunk.
            self.pages.clear();
            self.chunk.clear();
            return Err(error);
        }
        let begin = self.at - self.chunk.len() as u64;
        let skip = usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX);
        match self.chunk.get(skip..) {
            Some(rest) if !rest.is_empty() => Ok(rest),
            _ => Err(self.wrong_manifest()),
        }
    }

    /// Makes the chunk in which `offset` lies the one that was read last.
    fn go_to(&mut self, offset: u64) -> Result<(), BlobError> {
        let begin = self.at - self.chunk.len() as u64;
        if (begin..self.at).contains(&offset) {
            return Ok(());
        }
        if offset != self.at || self.pages.is_empty() {
            self.seek(offset)?;
        }
        self.next_chunk()
    }

    /// Finds the chunk in which `offset` lies.
    fn seek(&mut self, offset: u64) -> Result<(), BlobError> {
        self.pages.clear();
        self.chunk.clear();
        self.at = 0;
        let (mut id, mut len) = (self.blob.root, self.blob.size);
        for level in (1..=self.blob.depth).rev() {
            let page = self.page(&id, level, len)?;
            let mut place = 0;
            for entry in &page.entries {
                if offset - self.at < entry.len {
                    (id, len) = (entry.id, entry.len);
                    break;
                }
                self.at += entry.len;
                place += 1;
            }
            self.pages.push((page, place));
        }
        Ok(())
    }

    /// Reads the chunk that comes next, and moves on.
    fn next_chunk(&mut self) -> Result<(), BlobError> {
        let (id, len) = match self.pages.last() {
            None => (self.blob.root, self.blob.size),
            Some(_) => self.next_entry()?,
        };
        self.chunk = self.read(&id)?;
        self.at += self.chunk.len() as u64;
        match self.chunk.len() as u64 == len {
            true => Ok(()),
            false => Err(self.wrong_manifest()),
        }
    }

    /// The entry of the next chunk; pages that have ended give way to those that follow.
    fn next_entry(&mut self) -> Result<(ChunkId, u64), BlobError> {
        while let Some((page, place)) = self.pages.last()
            && *place >= page.entries.len()
        {
            self.pages.pop();
            if let Some((_, place)) = self.pages.last_mut() {
                *place += 1;
            }
        }
        loop {
            let Some((page, place)) = self.pages.last_mut() else {
                return Err(self.wrong_manifest());
            };
            let level = page.level;
            let entry = *page.entries.get(*place).expect("invariant: ended pages are gone");
            if level == 1 {
                *place += 1;
                return Ok((entry.id, entry.len));
            }
            let below = self.page(&entry.id, level - 1, entry.len)?;
            self.pages.push((below, 0));
        }
    }

    fn page(&self, id: &ChunkId, level: u64, len: u64) -> Result<ManifestPage, BlobError> {
        let page: Option<ManifestPage> = from_bytes(&self.read(id)?).ok();
        page.filter(|page| page.level == level && page.len() == len)
            .ok_or_else(|| self.wrong_manifest())
    }

    fn read(&self, id: &ChunkId) -> Result<Vec<u8>, BlobError> {
        self.blobs.read_newest(&self.workspace, id)
    }

    /// The chunks are what their names say, and yet they do not make up the file: whoever stored it
    /// was wrong, or the row that names its root is.
    fn wrong_manifest(&self) -> BlobError {
        BlobError::Manifest { hash: BlobHash::Sha256(self.blob.sha256) }
    }
}
