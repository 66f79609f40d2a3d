//! The index made from packs alone: what a log that was lost, or cut by a salvage, said of files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::WorkspaceName;

use super::contents::{StoredFile, Told, visit_frames, workspace_of};
use super::{Blobs, pack, visit_pieces};
use crate::disk::{FileKind, read_header};
use crate::error::{BlobError, StoreError};
use crate::header::HeaderKind;
use crate::keys::{ChunkMark, StoredChunk};
use crate::limits::{MAX_GC_STEP, MAX_REINDEX_STEP};
use crate::oplog::{FrameRef, PACK_CHUNK, Segment};
use crate::payload::{BlobsFrame, BlobsPart, NewChunk, PackChunks};
use crate::read;
use crate::state::View;

/// Reads every pack once and says what the log does not know of it. Nothing is taken from the log:
/// what is there stays as it is.
///
/// In memory are the hashes of all files that packs tell of, and the chunks of one pack.
#[derive(Debug)]
pub struct Reindex {
    blobs: Arc<Blobs>,
    time_ms: i64,
    /// Those that are still to be read, the lowest number last.
    packs: Vec<u64>,
    told: BTreeMap<WorkspaceName, Told>,
    /// Files to be judged, once all packs were read.
    files: Option<Vec<(WorkspaceName, StoredFile)>>,
    /// What was found so far.
    pub report: Reindexed,
}

/// What packs tell and the log did not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reindexed {
    /// Packs that were read.
    pub packs: u64,
    /// Packs of another log, which were left alone.
    pub foreign_packs: u64,
    /// Packs of which nobody knows whose they are, since their beginning is damaged.
    pub unreadable_packs: u64,
    /// Chunks that are here again.
    pub chunks: u64,
    /// Places in packs that are not what was written.
    pub damages: u64,
    /// Files that are here again.
    pub files: u64,
    /// Files that were dropped, and stay so.
    pub dropped: u64,
    /// Files of which chunks are missing, in order of their hash.
    pub incomplete: Vec<BlobHash>,
}

impl Reindex {
    /// Begins. `time_ms` is the time now: what nothing names stays as long as a file that is
    /// stored now.
    pub fn begin(blobs: &Arc<Blobs>, time_ms: i64) -> Result<Self, StoreError> {
        let listed = blobs.disk.list()?;
        let packs = listed.iter().rev().filter(|file| file.kind == FileKind::Pack);
        let packs = packs.map(|file| file.number).collect();
        let (told, report) = (BTreeMap::new(), Reindexed::default());
        Ok(Reindex { blobs: blobs.clone(), time_ms, packs, told, files: None, report })
    }

    /// Reads the next pack, or judges the next files. Returns what the log is to say, to be
    /// appended and committed before the next step; `None` at the end.
    pub fn step(&mut self) -> Result<Option<Vec<BlobsFrame>>, BlobError> {
        if let Some(number) = self.packs.pop() {
            return Ok(Some(self.read_pack(number)?));
        }
        let files = match self.files.take() {
            Some(files) => files,
            None => self.told_files(),
        };
        if files.is_empty() {
            return Ok(None);
        }
        let mut frames = Vec::new();
        let (now, later) = files.split_at(files.len().min(MAX_REINDEX_STEP));
        let view = self.blobs.view();
        for (workspace, file) in now {
            let hash = BlobHash::Sha256(file.blob.sha256);
            if read::blob(&*view, workspace, &file.blob.sha256)?.is_some() {
                continue;
            }
            let whole = visit_pieces(&self.blobs, workspace, &file.blob, &mut |id| {
                let known = read::chunk(&*view, workspace, id)?;
                let is_here = match known {
                    Some(chunk) => is_readable(&self.blobs, workspace, &chunk)?,
                    None => false,
                };
                is_here.then_some(()).ok_or(BlobError::Gone { chunk: *id })
            });
            match whole {
                Ok(()) => {
                    let (blob, time_ms) = (file.blob, self.time_ms.max(file.time_ms));
                    let part = BlobsPart::Blob { blob, time_ms };
                    frames.push(BlobsFrame { workspace: workspace.clone(), part });
                    self.report.files += 1;
                }
                Err(BlobError::Store(error)) => return Err(BlobError::Store(error)),
                Err(_) => self.report.incomplete.push(hash),
            }
        }
        self.files = Some(later.to_vec());
        Ok(Some(frames))
    }

    fn told_files(&mut self) -> Vec<(WorkspaceName, StoredFile)> {
        let mut files = Vec::new();
        for (workspace, told) in std::mem::take(&mut self.told) {
            let before = files.len();
            files.extend(told.files().map(|file| (workspace.clone(), *file)));
            self.report.dropped += (told.stored.len() - (files.len() - before)) as u64;
        }
        files
    }

    fn read_pack(&mut self, number: u64) -> Result<Vec<BlobsFrame>, BlobError> {
        let file = self.blobs.disk.open_to_read(number).map_err(StoreError::from)?;
        let header = match read_header(number, &*file) {
            Ok(Some(header)) if header.kind == HeaderKind::Pack => header,
            _ => {
                self.report.unreadable_packs += 1;
                return Ok(Vec::new());
            }
        };
        if header.log_id != self.blobs.log_id {
            self.report.foreign_packs += 1;
            return Ok(Vec::new());
        }
        let segment = Segment::new(header, file);
        let Some(workspace) = workspace_of(&segment)? else {
            self.report.unreadable_packs += 1;
            return Ok(Vec::new());
        };
        self.report.packs += 1;
        let view = self.blobs.view();
        let (chunks, end) = self.read_frames(&segment, &workspace, &view)?;
        let is_known = read::pack(&*view, &workspace, number)?.is_some();
        if chunks.is_empty() && is_known {
            return Ok(Vec::new());
        }
        self.report.chunks += chunks.len() as u64;
        let salt = segment.header.salt;
        // A pack that the log does not name would go with the next collection.
        let mut lists: Vec<Vec<NewChunk>> = chunks.chunks(MAX_GC_STEP).map(<[_]>::to_vec).collect();
        if lists.is_empty() {
            lists.push(Vec::new());
        }
        let frame = |chunks| {
            let packs = vec![PackChunks { pack: number, salt, end, chunks }];
            let part = BlobsPart::Chunks { packs, used: Vec::new() };
            BlobsFrame { workspace: workspace.clone(), part }
        };
        Ok(lists.into_iter().map(frame).collect())
    }

    /// The chunks of a pack that do not count as here, and where its valid frames end.
    fn read_frames(
        &mut self,
        segment: &Segment,
        workspace: &WorkspaceName,
        view: &View,
    ) -> Result<(Vec<NewChunk>, u64), StoreError> {
        let told = self.told.entry(workspace.clone()).or_default();
        let (blobs, damages) = (&self.blobs, &mut self.report.damages);
        let (mut chunks, mut seen, mut out) = (Vec::new(), BTreeSet::<ChunkId>::new(), Vec::new());
        let walked = visit_frames(segment, u64::MAX, &mut |frame: FrameRef<'_>| {
            told.take(&frame);
            if frame.kind != PACK_CHUNK {
                return Ok(());
            }
            let Some(id) = pack::chunk_in(frame.payload, &mut out) else {
                *damages += 1;
                return Ok(());
            };
            let is_here = match read::chunk(view, workspace, &id)? {
                Some(chunk) => is_readable(blobs, workspace, &chunk)?,
                None => false,
            };
            if !is_here && seen.insert(id) {
                let (position, len) = (frame.position, frame.payload.len() as u64);
                chunks.push(NewChunk { id, position, len, raw: out.len() as u64 });
            }
            Ok(())
        })?;
        *damages += walked.gaps;
        Ok((chunks, walked.end))
    }
}

/// Whether nothing is known that keeps a chunk from being read.
fn is_readable(
    blobs: &Blobs,
    workspace: &WorkspaceName,
    chunk: &StoredChunk,
) -> Result<bool, StoreError> {
    let is_whole = chunk.mark != ChunkMark::Damaged;
    Ok(is_whole && chunk.end() <= blobs.readable_to(workspace, chunk.pack)?)
}
