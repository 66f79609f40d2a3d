//! Storing a file: one pass over its bytes, a step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_BLOB_BYTES;
use lastword_core::manifest::{Blob, ManifestEntry, PROFILE};
use sha2::{Digest as _, Sha256};

use super::chunker::Chunker;
use super::contents::StoredFile;
use super::pages::Pages;
use super::{Blobs, Lease, Written};
use crate::error::{BlobError, StoreError};
use crate::keys::{ChunkMark, Condemned, StoredBlob, StoredChunk};
use crate::limits::{INGEST_STEP_BYTES, MAX_FRAME_CHUNKS};
use crate::payload::{BlobsFrame, BlobsPart, NewChunk};
use crate::read;
use crate::state::View;

/// A file that is being stored in a workspace. Memory is bounded whatever its size.
///
/// Each step reads some of it and returns frames, whose chunks are durable in packs by then; the
/// caller commits them before the next step, which looks for chunks in the published view.
#[derive(Debug)]
pub struct Ingest<R> {
    blobs: Arc<Blobs>,
    workspace: WorkspaceName,
    chunker: Chunker<R>,
    sha256: Sha256,
    pages: Pages,
    size: u64,
    limit: u64,
    time_ms: i64,
    /// After the last step or an error: what was read since the last frame is in none, so nothing
    /// may be said of the file any more.
    has_ended: bool,
    /// No chunk that this has stored or found goes while it is held.
    _lease: Lease,
}

/// What one step did.
#[derive(Debug)]
pub struct Ingested {
    /// To be appended and committed, in this order.
    pub frames: Vec<BlobsFrame>,
    /// Bytes of the file that were read so far.
    pub read_bytes: u64,
    /// Bytes of chunks that this step had to store, before compression; the others were there.
    pub new_bytes: u64,
    /// The file, after the last step.
    pub blob: Option<Blob>,
    /// The packs of the step: none of them goes before its frames are committed, so this is kept
    /// until then.
    _packs: Vec<Written>,
}

/// The chunks of one step.
#[derive(Debug, Default)]
pub(super) struct Step {
    packs: BTreeMap<u64, (Option<Written>, Vec<NewChunk>)>,
    fresh: BTreeSet<ChunkId>,
    used: BTreeSet<ChunkId>,
    /// Up to where packs can be read that hold chunks of the file already.
    readable_to: BTreeMap<u64, u64>,
    new_bytes: u64,
}

impl<R: Read> Ingest<R> {
    /// Stores what `from` gives. One that is longer than `limit` bytes is refused. `time_ms` is the
    /// time now.
    pub fn new(
        blobs: &Arc<Blobs>,
        workspace: &WorkspaceName,
        from: R,
        limit: u64,
        time_ms: i64,
    ) -> Self {
        Ingest {
            blobs: blobs.clone(),
            workspace: workspace.clone(),
            chunker: Chunker::new(from),
            sha256: Sha256::new(),
            pages: Pages::default(),
            size: 0,
            limit: limit.min(MAX_BLOB_BYTES),
            time_ms,
            has_ended: false,
            _lease: blobs.lease(),
        }
    }

    /// Does the next step.
    ///
    /// # Errors
    /// [`BlobError::Source`] if the bytes cannot be read, [`BlobError::TooLarge`],
    /// [`BlobError::Store`] if the disk fails, [`BlobError::Ended`] after one of them or the last
    /// step. What was stored so far is found again when the file is stored once more.
    pub fn step(&mut self) -> Result<Ingested, BlobError> {
        if std::mem::replace(&mut self.has_ended, true) {
            return Err(BlobError::Ended);
        }
        let done = self.next_step()?;
        self.has_ended = done.blob.is_some();
        Ok(done)
    }

    fn next_step(&mut self) -> Result<Ingested, BlobError> {
        let view = self.blobs.view();
        let begun = self.size;
        let mut step = Step::default();
        let mut has_ended = false;
        while !has_ended && self.size - begun < INGEST_STEP_BYTES {
            has_ended = !self.next_chunk(&view, &mut step)?;
        }
        let file = if has_ended { Some(self.finish(&view, &mut step)?) } else { None };
        let _packs = step.written();
        let mut frames = step.sync(&self.workspace)?;
        frames.extend(file.map(|StoredFile { blob, time_ms }| BlobsFrame {
            workspace: self.workspace.clone(),
            part: BlobsPart::Blob { blob, time_ms },
        }));
        let blob = file.map(|file| file.blob);
        Ok(Ingested { frames, read_bytes: self.size, new_bytes: step.new_bytes, blob, _packs })
    }

    /// Stores the next chunk; false if there is none.
    fn next_chunk(&mut self, state: &View, step: &mut Step) -> Result<bool, BlobError> {
        let Ingest { blobs, workspace, chunker, sha256, pages, .. } = self;
        let Some(chunk) = chunker.next_chunk().map_err(|error| BlobError::source(&error))? else {
            return Ok(false);
        };
        let len = chunk.len() as u64;
        if self.size + len > self.limit {
            return Err(BlobError::TooLarge { limit: self.limit });
        }
        sha256.update(chunk);
        let mut keep = |bytes: &[u8]| step.keep(blobs, state, workspace, bytes);
        let id = keep(chunk)?;
        pages.add(ManifestEntry { id, len }, &mut keep)?;
        self.size += len;
        Ok(true)
    }

    /// Stores the last pages and says in the pack what the file consists of.
    fn finish(&mut self, state: &View, step: &mut Step) -> Result<StoredFile, BlobError> {
        let Ingest { blobs, workspace, pages, .. } = self;
        let mut keep = |bytes: &[u8]| step.keep(blobs, state, workspace, bytes);
        if self.size == 0 {
            let id = keep(&[])?;
            pages.add(ManifestEntry { id, len: 0 }, &mut keep)?;
        }
        let (depth, root) = pages.finish(&mut keep)?;
        let sha256 = std::mem::take(&mut self.sha256).finalize().into();
        let blob = Blob { sha256, size: self.size, profile: PROFILE, depth, root };
        Ok(step.end_file(&self.blobs, state, &self.workspace, blob, self.time_ms)?)
    }
}

/// When a file is stored, for whoever finds it in a pack: not before the frame there that counts
/// now, and after any that says that it is dropped.
pub(super) fn file_time(
    now_ms: i64,
    known: Option<StoredBlob>,
    condemned: Option<Condemned>,
) -> i64 {
    let known_ms = known.map_or(i64::MIN, |known| known.time_ms);
    match condemned {
        Some(since) => now_ms.max(drop_time(known_ms, since).saturating_add(1)),
        None => now_ms.max(known_ms),
    }
}

/// Up to when what was stored of a file goes when it is dropped.
pub(super) fn drop_time(stored_ms: i64, condemned: Condemned) -> i64 {
    stored_ms.max(condemned.time_ms)
}

impl Step {
    /// Stores bytes as a chunk unless the workspace has it.
    fn keep(
        &mut self,
        blobs: &Blobs,
        state: &View,
        workspace: &WorkspaceName,
        bytes: &[u8],
    ) -> Result<ChunkId, StoreError> {
        let id = ChunkId::of(bytes);
        if !self.has(blobs, state, workspace, &id)? {
            self.store(blobs, state, workspace, id, bytes)?;
        }
        Ok(id)
    }

    /// Whether the workspace has a chunk, which then stays.
    pub(super) fn has(
        &mut self,
        blobs: &Blobs,
        state: &View,
        workspace: &WorkspaceName,
        id: &ChunkId,
    ) -> Result<bool, StoreError> {
        if self.fresh.contains(id) || self.used.contains(id) {
            return Ok(true);
        }
        let is_here = match read::chunk(state, workspace, id)? {
            Some(chunk) => self.is_here(blobs, workspace, &chunk)?,
            None => false,
        };
        if is_here {
            self.used.insert(*id);
        }
        Ok(is_here)
    }

    /// Stores a chunk of that name.
    pub(super) fn store(
        &mut self,
        blobs: &Blobs,
        state: &View,
        workspace: &WorkspaceName,
        id: ChunkId,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let (written, added) = blobs.add_chunk(state, workspace, id, bytes)?;
        let (of, chunks) = self.packs.entry(written.number).or_default();
        *of = Some(written);
        chunks.push(added);
        self.new_bytes += bytes.len() as u64;
        self.fresh.insert(id);
        Ok(())
    }

    /// Says in the pack what a file consists of, unless it does already; when it counts as stored
    /// is what the log is to say too.
    pub(super) fn end_file(
        &mut self,
        blobs: &Blobs,
        state: &View,
        workspace: &WorkspaceName,
        blob: Blob,
        now_ms: i64,
    ) -> Result<StoredFile, StoreError> {
        let known = read::blob(state, workspace, &blob.sha256)?;
        let condemned = read::condemned(state, workspace, &blob.sha256)?;
        let file = StoredFile { blob, time_ms: file_time(now_ms, known, condemned) };
        // A pack may say already that what is condemned is dropped: this comes later.
        if condemned.is_some() || known.is_none_or(|known| known.blob != blob) {
            let written = blobs.add_file(state, workspace, &file)?;
            self.packs.entry(written.number).or_default().0 = Some(written.clone());
        }
        Ok(file)
    }

    /// True if a frame should not name many more chunks.
    pub(super) fn is_full(&self) -> bool {
        self.used.len() + self.fresh.len() >= MAX_FRAME_CHUNKS / 2
    }

    /// The packs that the step has chunks in.
    pub(super) fn written(&self) -> Vec<Written> {
        self.packs.values().filter_map(|(written, _)| written.clone()).collect()
    }

    /// Whether a chunk counts as here: what is lost with its pack, or known to be damaged, or about
    /// to go, is stored anew.
    fn is_here(
        &mut self,
        blobs: &Blobs,
        workspace: &WorkspaceName,
        chunk: &StoredChunk,
    ) -> Result<bool, StoreError> {
        if chunk.mark != ChunkMark::Whole {
            return Ok(false);
        }
        let readable_to = match self.readable_to.get(&chunk.pack) {
            Some(known) => *known,
            None => {
                let found = blobs.readable_to(workspace, chunk.pack)?;
                self.readable_to.insert(chunk.pack, found);
                found
            }
        };
        Ok(chunk.end() <= readable_to)
    }

    /// Makes the step durable in its packs; returns what the log is to say of it.
    pub(super) fn sync(
        &mut self,
        workspace: &WorkspaceName,
    ) -> Result<Vec<BlobsFrame>, StoreError> {
        let mut packs = Vec::new();
        for (written, chunks) in std::mem::take(&mut self.packs).into_values() {
            let Some(written) = written else { continue };
            packs.push(written.sync(chunks)?);
        }
        if packs.is_empty() && self.used.is_empty() {
            return Ok(Vec::new());
        }
        let used = std::mem::take(&mut self.used).into_iter().collect();
        let part = BlobsPart::Chunks { packs, used };
        Ok(vec![BlobsFrame { workspace: workspace.clone(), part }])
    }
}
