//! Storing files: one pass over their bytes, a step at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_BLOB_BYTES;
use lastword_core::manifest::{Blob, ManifestEntry, PROFILE};

use super::chunker::Chunker;
use super::contents::StoredFile;
use super::pages::Pages;
use super::{Blobs, Lease, Written};
use crate::error::{BlobError, StoreError};
use crate::keys::{ChunkMark, Condemned, StoredBlob, StoredChunk};
use crate::limits::{INGEST_STEP_BYTES, MAX_FRAME_CHUNKS, MAX_INGEST_FILES};
use crate::payload::{BlobsFrame, BlobsPart, NewChunk};
use crate::read;
use crate::state::View;

/// Files that are being stored in a workspace, one after the other. Memory is bounded whatever
/// their sizes.
///
/// What was read becomes durable when it is taken, of several small files at once: the chunks are
/// in packs by then, and the frames are to be committed before more is read, since chunks are
/// looked for in the published view.
#[derive(Debug)]
pub struct Ingest<R> {
    blobs: Arc<Blobs>,
    workspace: WorkspaceName,
    file: Option<Source<R>>,
    limit: u64,
    time_ms: i64,
    /// That of the first read since the last take.
    view: Option<Arc<View>>,
    step: Step,
    /// Bytes that were read since the last take.
    untaken_bytes: u64,
    /// New ones before the last take.
    taken_new_bytes: u64,
    /// Files that ended since the last take.
    files: BTreeMap<[u8; 32], StoredFile>,
    /// The store has failed: what was read since the last frame is in none, so nothing may be said
    /// of it any more.
    has_failed: bool,
    /// No chunk that this has stored or found goes while it is held.
    _lease: Lease,
}

/// A file that is being read.
#[derive(Debug)]
struct Source<R> {
    chunker: Chunker<R>,
    pages: Pages,
    size: u64,
    /// What it must be, if that is known.
    expected: Option<[u8; 32]>,
}

/// What was taken.
#[derive(Debug)]
pub struct Ingested {
    /// To be appended and committed, in this order.
    pub frames: Vec<BlobsFrame>,
    /// Bytes of the file that is being read, or was read last by [`Ingest::step`].
    pub read_bytes: u64,
    /// Bytes of chunks that had to be stored, before compression; the others were there.
    pub new_bytes: u64,
    /// The file, after the last step of [`Ingest::step`].
    pub blob: Option<Blob>,
    /// The packs that got chunks: none of them goes before the frames are committed, so this is
    /// kept until then.
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
    /// Stores what `from` gives, and what is begun later. A file that is longer than `limit` bytes
    /// is refused. `time_ms` is the time now.
    pub fn new(
        blobs: &Arc<Blobs>,
        workspace: &WorkspaceName,
        from: R,
        limit: u64,
        time_ms: i64,
    ) -> Self {
        let mut ingest = Self::several(blobs, workspace, limit, time_ms);
        ingest.begin(from);
        ingest
    }

    /// As [`Ingest::new`], with no file yet.
    pub fn several(
        blobs: &Arc<Blobs>,
        workspace: &WorkspaceName,
        limit: u64,
        time_ms: i64,
    ) -> Self {
        Ingest {
            blobs: blobs.clone(),
            workspace: workspace.clone(),
            file: None,
            limit: limit.min(MAX_BLOB_BYTES),
            time_ms,
            view: None,
            step: Step::default(),
            untaken_bytes: 0,
            taken_new_bytes: 0,
            files: BTreeMap::new(),
            has_failed: false,
            _lease: blobs.lease(),
        }
    }

    /// Stores the file that is begun only if this is its SHA-256: of another one nothing says in a
    /// pack that it is here, so that no reindex brings it back.
    pub fn expect(&mut self, sha256: [u8; 32]) {
        if let Some(file) = &mut self.file {
            file.expected = Some(sha256);
        }
    }

    /// Goes on with the file that `from` gives. One that has not ended is given up: its chunks stay
    /// and are found when it is stored once more.
    pub fn begin(&mut self, from: R) {
        let (chunker, pages) = (Chunker::hashing(from), Pages::default());
        self.file = Some(Source { chunker, pages, size: 0, expected: None });
    }

    /// Reads on until the file ends, and returns it, or until [`Ingest::is_due`].
    ///
    /// # Errors
    /// [`BlobError::Source`] if the bytes cannot be read, [`BlobError::TooLarge`], and
    /// [`BlobError::Manifest`] of a file that is not the expected one end the file only.
    /// [`BlobError::Store`] if the disk fails ends all. [`BlobError::Ended`] after that, or if no
    /// file was begun. What was stored so far is found again when it is stored once more.
    pub fn read(&mut self) -> Result<Option<Blob>, BlobError> {
        if self.has_failed {
            return Err(BlobError::Ended);
        }
        let mut file = self.file.take().ok_or(BlobError::Ended)?;
        let view = self.view.get_or_insert_with(|| self.blobs.view()).clone();
        let read = match self.read_file(&view, &mut file) {
            Ok(true) => self.finish(&view, file).map(Some),
            Ok(false) => {
                self.file = Some(file);
                Ok(None)
            }
            Err(error) => Err(error),
        };
        self.has_failed = matches!(read, Err(BlobError::Store(_)));
        read
    }

    /// True if what was read is to be taken before more is.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let files = self.files.len() >= MAX_INGEST_FILES;
        files || self.untaken_bytes >= INGEST_STEP_BYTES || self.step.is_full()
    }

    /// Bytes of chunks that had to be stored so far, before compression.
    #[must_use]
    pub fn new_bytes(&self) -> u64 {
        self.taken_new_bytes + self.step.new_bytes
    }

    /// Bytes of the file that is being read which were read so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.size)
    }

    /// Makes durable what was read since the last time.
    ///
    /// # Errors
    /// [`BlobError::Store`] if the disk fails, which ends all, [`BlobError::Ended`] after that.
    pub fn take(&mut self) -> Result<Ingested, BlobError> {
        // Until it is done: an error leaves chunks that no frame names.
        if std::mem::replace(&mut self.has_failed, true) {
            return Err(BlobError::Ended);
        }
        let new_bytes = self.step.new_bytes;
        let _packs = self.step.written();
        let mut frames = std::mem::take(&mut self.step).sync(&self.workspace)?;
        let files = std::mem::take(&mut self.files);
        frames.extend(files.into_values().map(|StoredFile { blob, time_ms }| BlobsFrame {
            workspace: self.workspace.clone(),
            part: BlobsPart::Blob { blob, time_ms },
        }));
        self.taken_new_bytes += new_bytes;
        (self.view, self.untaken_bytes, self.has_failed) = (None, 0, false);
        Ok(Ingested { frames, read_bytes: self.read_bytes(), new_bytes, blob: None, _packs })
    }

    /// Reads on and takes what was read; the step in which the file ends returns it.
    ///
    /// # Errors
    /// Those of [`Ingest::read`] and [`Ingest::take`], [`BlobError::Ended`] after the last step or
    /// an error.
    pub fn step(&mut self) -> Result<Ingested, BlobError> {
        let blob = self.read()?;
        let mut done = self.take()?;
        done.read_bytes = blob.map_or(done.read_bytes, |blob| blob.size);
        done.blob = blob;
        Ok(done)
    }

    /// True if the file has ended.
    fn read_file(&mut self, view: &View, file: &mut Source<R>) -> Result<bool, BlobError> {
        while !self.is_due() {
            if !self.next_chunk(view, file)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stores the next chunk; false if there is none.
    fn next_chunk(&mut self, state: &View, file: &mut Source<R>) -> Result<bool, BlobError> {
        let Ingest { blobs, workspace, step, .. } = self;
        let Source { chunker, pages, size, .. } = file;
        let Some(chunk) = chunker.next_chunk().map_err(|error| BlobError::source(&error))? else {
            return Ok(false);
        };
        let len = chunk.len() as u64;
        if *size + len > self.limit {
            return Err(BlobError::TooLarge { limit: self.limit });
        }
        let mut keep = |bytes: &[u8]| step.keep(blobs, state, workspace, bytes);
        let id = keep(chunk)?;
        pages.add(ManifestEntry { id, len }, &mut keep)?;
        *size += len;
        self.untaken_bytes += len;
        Ok(true)
    }

    /// Stores the last pages and says in the pack what the file consists of.
    fn finish(&mut self, state: &View, file: Source<R>) -> Result<Blob, BlobError> {
        let Ingest { blobs, workspace, step, .. } = self;
        let Source { chunker, mut pages, size, expected } = file;
        let mut keep = |bytes: &[u8]| step.keep(blobs, state, workspace, bytes);
        if size == 0 {
            let id = keep(&[])?;
            pages.add(ManifestEntry { id, len: 0 }, &mut keep)?;
        }
        let (depth, root) = pages.finish(&mut keep)?;
        let sha256 = chunker.into_sha256();
        if let Some(expected) = expected.filter(|expected| *expected != sha256) {
            return Err(BlobError::Manifest { hash: BlobHash::Sha256(expected) });
        }
        let blob = Blob { sha256, size, profile: PROFILE, depth, root };
        if !self.files.contains_key(&sha256) {
            let stored = step.end_file(blobs, state, workspace, blob, self.time_ms)?;
            self.files.insert(sha256, stored);
        }
        Ok(blob)
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

/// Up to when what was stored of a file goes when it is dropped: before it was condemned. Whoever
/// began to store it since may have begun in that very millisecond.
pub(super) fn drop_time(stored_ms: i64, condemned: Condemned) -> i64 {
    stored_ms.max(condemned.time_ms.saturating_sub(1))
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
