//! Receiving a file from somebody else: what is missing is asked for, what comes is compared with
//! its name, and the whole with the name of the file before the log says that it is here.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastword_core::codec::from_bytes;
use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MIN_CHUNK_BYTES;
use lastword_core::manifest::{Blob, ManifestPage, PROFILE};
use lastword_core::plant::{Plant, planted};
use sha2::{Digest as _, Sha256};

use super::ingest::Step;
use super::{BlobReader, Blobs, Lease, Written};
use crate::error::BlobError;
use crate::limits::RECEIVE_STEP_BYTES;
use crate::payload::{BlobsFrame, BlobsPart};
use crate::state::View;

/// A file that comes from somebody else, piece by piece. It holds one page of each level and the
/// names of what was asked for, whatever the size of the file.
///
/// What is durable of it stays when this is dropped, so whoever begins again asks for the rest.
#[derive(Debug)]
pub struct Receive {
    blobs: Arc<Blobs>,
    workspace: WorkspaceName,
    blob: Blob,
    /// The root was looked at.
    has_begun: bool,
    /// The pages above the next entry that was not looked at, topmost first, and which it is.
    pages: Vec<(ManifestPage, usize)>,
    /// A page was asked for: what it lists is not known before it comes.
    waits_for_page: bool,
    /// Pages that came since the last step was taken: no view has them yet, and a file may have the
    /// same one twice.
    fresh_pages: BTreeMap<ChunkId, Vec<u8>>,
    /// Bytes of the file before the next chunk that was not looked at.
    looked_to: u64,
    wanted: BTreeMap<ChunkId, Wanted>,
    step: Step,
    /// Bytes that came since the last step was taken.
    unsaved_bytes: u64,
    /// Bytes of the file that are here.
    here_bytes: u64,
    received_bytes: u64,
    verifying: Option<(Box<BlobReader>, Sha256, u64)>,
    /// No chunk that this has stored or found goes while it is held.
    _lease: Lease,
}

/// A piece that was asked for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// 0 for bytes of the file, else that of the page.
    level: u64,
    /// Bytes of the file that it stands for.
    len: u64,
    /// How often the file has it, as far as was looked.
    times: u64,
}

/// What is to be appended and committed before anything else is asked of a [`Receive`].
#[derive(Debug)]
pub struct Received {
    /// In this order.
    pub frames: Vec<BlobsFrame>,
    /// None of its packs goes before the frames are committed, so this is kept until then.
    _packs: Vec<Written>,
}

impl Receive {
    /// Begins or goes on with a file of a workspace.
    #[must_use]
    pub fn new(blobs: &Arc<Blobs>, workspace: &WorkspaceName, blob: Blob) -> Self {
        Receive {
            blobs: blobs.clone(),
            workspace: workspace.clone(),
            blob,
            has_begun: false,
            pages: Vec::new(),
            waits_for_page: false,
            fresh_pages: BTreeMap::new(),
            looked_to: 0,
            wanted: BTreeMap::new(),
            step: Step::default(),
            unsaved_bytes: 0,
            here_bytes: 0,
            received_bytes: 0,
            verifying: None,
            _lease: blobs.lease(),
        }
    }

    /// The file.
    #[must_use]
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Bytes of the file that are here, those that were here before too.
    #[must_use]
    pub fn here_bytes(&self) -> u64 {
        self.here_bytes
    }

    /// Bytes that came, those of pages too.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// True if what came or was found should be taken and committed before more is asked for.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.unsaved_bytes >= RECEIVE_STEP_BYTES || self.step.is_full()
    }

    /// Pieces that were asked for and did not come yet.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted.len()
    }

    /// True once every piece is here; [`Receive::take`] and [`Receive::verify`] are left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.has_begun && self.pages.is_empty() && !self.waits_for_page && self.wanted.is_empty()
    }

    /// Looks for what is missing and asks for `most` more pieces of it at most. None if all was
    /// asked for, if what comes next is in a page that did not come yet, or if [`Receive::is_due`].
    ///
    /// # Errors
    /// [`BlobError::Damaged`] if a page that is here is not what was written: once that is noted,
    /// beginning again asks for it. [`BlobError::Manifest`] if the pages do not make up a file of
    /// that size, [`BlobError::Store`] if the disk fails.
    pub fn wants(&mut self, most: usize) -> Result<Vec<ChunkId>, BlobError> {
        let view = self.blobs.view();
        let mut asked = Vec::new();
        if !self.has_begun {
            self.has_begun = true;
            let Blob { root, depth, size, .. } = self.blob;
            self.look(&view, (root, depth, size), &mut asked)?;
        }
        while asked.len() < most && !self.waits_for_page && !self.step.is_full() {
            let Some((page, place)) = self.pages.last_mut() else { break };
            let Some(entry) = page.entries.get(*place).copied() else {
                self.pages.pop();
                continue;
            };
            *place += 1;
            let level = page.level - 1;
            self.look(&view, (entry.id, level, entry.len), &mut asked)?;
        }
        Ok(asked)
    }

    /// Goes below a piece that is here, or asks for it.
    fn look(
        &mut self,
        view: &View,
        (id, level, len): (ChunkId, u64, u64),
        asked: &mut Vec<ChunkId>,
    ) -> Result<(), BlobError> {
        if level == 0 {
            self.looked_to = self.looked_to.saturating_add(len);
            let is_last = self.looked_to == self.blob.size;
            // No chunker cuts so, and a list of such would keep us busy for ever.
            if self.blob.profile == PROFILE && len < MIN_CHUNK_BYTES as u64 && !is_last {
                return Err(self.not_that_file());
            }
        }
        if let Some(wanted) = self.wanted.get_mut(&id) {
            if (wanted.level, wanted.len) != (level, len) {
                return Err(self.not_that_file());
            }
            wanted.times += 1;
            return Ok(());
        }
        let is_here = self.step.has(&self.blobs, view, &self.workspace, &id)?;
        match (is_here, level) {
            (true, 0) => self.here_bytes += len,
            (true, _) => match self.fresh_pages.get(&id).cloned() {
                Some(bytes) => self.go_below(&bytes, level, len)?,
                None => {
                    let bytes = self.blobs.read_newest(&self.workspace, &id)?;
                    self.go_below(&bytes, level, len)?;
                }
            },
            (false, _) => {
                self.wanted.insert(id, Wanted { level, len, times: 1 });
                self.waits_for_page = level > 0;
                asked.push(id);
            }
        }
        Ok(())
    }

    fn go_below(&mut self, bytes: &[u8], level: u64, len: u64) -> Result<(), BlobError> {
        let page: Option<ManifestPage> = from_bytes(bytes).ok();
        let page = page.filter(|page| page.level == level && page.len() == len);
        self.pages.push((page.ok_or_else(|| self.not_that_file())?, 0));
        Ok(())
    }

    /// Takes bytes that came; false if they are none that were asked for.
    ///
    /// # Errors
    /// [`BlobError::Manifest`] if they do not make up a file of that size, [`BlobError::Store`] if
    /// the disk fails.
    pub fn put(&mut self, bytes: &[u8]) -> Result<bool, BlobError> {
        let id = match self.wanted.keys().next() {
            Some(id) if planted(Plant::KeepWhatComes) && self.wanted.len() == 1 => *id,
            _ => ChunkId::of(bytes),
        };
        let Some(Wanted { level, len, times }) = self.wanted.remove(&id) else { return Ok(false) };
        let came = bytes.len() as u64;
        if level == 0 && came != len {
            return Err(self.not_that_file());
        }
        if level > 0 {
            self.go_below(bytes, level, len)?;
            self.waits_for_page = false;
            self.fresh_pages.insert(id, bytes.to_vec());
        } else {
            self.here_bytes += len.saturating_mul(times);
        }
        let view = self.blobs.view();
        self.step.store(&self.blobs, &view, &self.workspace, id, bytes)?;
        self.unsaved_bytes += came;
        self.received_bytes += came;
        Ok(true)
    }

    /// Makes durable what came; nothing of it counts before the frames are committed.
    ///
    /// # Errors
    /// [`BlobError::Store`] if the disk fails.
    pub fn take(&mut self) -> Result<Received, BlobError> {
        let mut step = std::mem::take(&mut self.step);
        let _packs = step.written();
        let frames = step.sync(&self.workspace)?;
        self.unsaved_bytes = 0;
        self.fresh_pages.clear();
        Ok(Received { frames, _packs })
    }

    /// What makes a file that the workspace has count as stored just now, so that it stays.
    #[must_use]
    pub fn again(&self, time_ms: i64) -> Vec<BlobsFrame> {
        let part = BlobsPart::Blob { blob: self.blob, time_ms };
        vec![BlobsFrame { workspace: self.workspace.clone(), part }]
    }

    /// Compares about `budget` bytes of the file with its name once every piece is here and
    /// committed. Answers how far it is, and the last frames once it is at the end: with them the
    /// file is here.
    ///
    /// # Errors
    /// [`BlobError::Manifest`] if it is another file, [`BlobError::Damaged`] if a chunk is not what
    /// was written: once that is noted, beginning again asks for it.
    pub fn verify(
        &mut self,
        budget: u64,
        time_ms: i64,
    ) -> Result<(u64, Option<Received>), BlobError> {
        let (mut reader, mut sha256, begun) = match self.verifying.take() {
            Some(verifying) => verifying,
            None => {
                let reader = BlobReader::of(&self.blobs, &self.workspace, self.blob);
                (Box::new(reader), Sha256::new(), 0)
            }
        };
        let mut at = begun;
        while at - begun < budget.max(1) {
            let bytes = reader.read_from(at)?;
            if bytes.is_empty() {
                let is_it = <[u8; 32]>::from(sha256.finalize()) == self.blob.sha256
                    || planted(Plant::KeepWhatComes);
                return match is_it && at == self.blob.size {
                    true => Ok((at, Some(self.end(time_ms)?))),
                    false => Err(self.not_that_file()),
                };
            }
            sha256.update(bytes);
            at += bytes.len() as u64;
        }
        self.verifying = Some((reader, sha256, at));
        Ok((at, None))
    }

    /// Says in the pack and in the log what the file consists of.
    fn end(&mut self, time_ms: i64) -> Result<Received, BlobError> {
        let view = self.blobs.view();
        let (blobs, workspace) = (&self.blobs, &self.workspace);
        let file = self.step.end_file(blobs, &view, workspace, self.blob, time_ms)?;
        let mut received = self.take()?;
        let part = BlobsPart::Blob { blob: file.blob, time_ms: file.time_ms };
        received.frames.push(BlobsFrame { workspace: self.workspace.clone(), part });
        Ok(received)
    }

    fn not_that_file(&self) -> BlobError {
        BlobError::Manifest { hash: BlobHash::Sha256(self.blob.sha256) }
    }
}
