//! Garbage: files that nothing names, chunks that no file needs, packs that hold none.
//!
//! A run looks at one view of the state and at all of the log before it, away from the writer. What
//! it finds is decided on the writer, which looks again at everything that came since. Nothing goes
//! in one step: what is not needed is condemned, and dropped by a later run, a grace later, if that
//! does not find it needed either. What is condemned can be read, but does not count as here, so
//! whoever needs it meanwhile stores it again.
//!
//! Whoever stores a file holds a lease from before its first look until the file is in the log.
//! What was stored or used since the oldest lease began stays, and so does what was condemned
//! since. No count of references is kept, so none can be wrong.
//!
//! A pack whose last chunk was dropped goes once the log says so, and not before.

mod mentions;
mod packs;

use std::collections::BTreeSet;
use std::sync::Arc;

use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::WorkspaceName;
use lastword_core::plant::{Plant, planted};

use super::contents::StoredFile;
use super::ingest::{drop_time, file_time};
use super::{Blobs, Written, lock, visit_pieces};
use crate::error::{BlobError, StoreError};
use crate::keys::{ChunkMark, Condemned, StoredBlob, StoredChunk};
use crate::limits::{GC_BREAKER_FROM_BYTES, GC_BREAKER_PART, MAX_GC_STEP};
use crate::payload::{BlobsFrame, BlobsPart, PackChunks};
use crate::read::{self, ReadState};
use crate::state::{Dump, View};

pub use mentions::gather as gather_names;
pub use packs::{HeldPacks, say_dropped};

/// How a run goes about it.
#[derive(Debug, Clone, Copy)]
pub struct GcSettings {
    /// The clock by which things grow old, milliseconds since 1970 UTC.
    pub now_ms: i64,
    /// A stored file that nothing names yet stays this long.
    pub staged_ms: i64,
    /// What is condemned can be read and comes back this long.
    pub grace_ms: i64,
    /// Go on also if more than a tenth of everything would go.
    pub force: bool,
    /// The workspace was forgotten at this position of the log: whatever names its files does not
    /// count, and those that were stored before go.
    pub forgotten_at: Option<u64>,
}

/// What becomes of a file, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays: something names it.
    Named,
    /// It stays: it was stored a short while ago and may be about to be named.
    JustStored,
    /// Nothing names it: it is condemned now.
    Condemned,
    /// Nothing names it: it was condemned, and its grace is not over.
    InGrace,
    /// It was condemned, and something names it again.
    Spared,
    /// It goes.
    Dropped,
}

/// What a run finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcTotals {
    /// Bytes of files that go.
    pub dropped_bytes: u64,
    /// Bytes of all files.
    pub all_bytes: u64,
    /// Chunks that go, and their bytes in packs.
    pub dropped_chunks: u64,
    /// Bytes of those chunks in packs.
    pub freed_bytes: u64,
    /// Bytes of all chunks in packs.
    pub stored_bytes: u64,
    /// Chunks that no file needs and that are condemned now.
    pub condemned_chunks: u64,
}

/// One run over one workspace. There is one at a time in a store.
#[derive(Debug)]
pub struct GcRun {
    blobs: Arc<Blobs>,
    workspace: WorkspaceName,
    settings: GcSettings,
    /// Where the oldest lease began when the view was taken, or before.
    floor: u64,
    view: Arc<View>,
}

/// What a run wants to change, to be decided on the writer.
#[derive(Debug)]
pub struct GcPlan {
    run: GcRun,
    /// Each file with what becomes of it, in order of its hash.
    pub files: Vec<(BlobHash, u64, Fate)>,
    /// In numbers.
    pub totals: GcTotals,
    condemn_blobs: Vec<StoredBlob>,
    spare_blobs: Vec<(StoredBlob, Condemned)>,
    drop_blobs: Vec<(StoredBlob, Condemned)>,
    condemn_chunks: Vec<(ChunkId, StoredChunk)>,
    spare_chunks: Vec<(ChunkId, StoredChunk)>,
    drop_chunks: Vec<(ChunkId, StoredChunk)>,
    /// Files that were named when the run looked.
    named: BTreeSet<[u8; 32]>,
    /// Files that are named by what came since the run looked.
    named_since: BTreeSet<[u8; 32]>,
    /// What packs say by now of files that come and go.
    said: Option<Said>,
    /// Packs of which everything that is needed stands elsewhere by now.
    leaving: BTreeSet<u64>,
}

/// What a run has said in packs before the log may say it.
#[derive(Debug)]
struct Said {
    packs: Vec<PackChunks>,
    _held: Vec<Written>,
}

impl Drop for GcRun {
    fn drop(&mut self) {
        lock(&self.blobs.shared).is_collecting = false;
    }
}

impl GcRun {
    /// Begins a run. Errors: [`BlobError::Collecting`] while another one is under way.
    pub fn begin(
        blobs: &Arc<Blobs>,
        workspace: &WorkspaceName,
        settings: GcSettings,
    ) -> Result<Self, BlobError> {
        let was_collecting = std::mem::replace(&mut lock(&blobs.shared).is_collecting, true);
        if was_collecting {
            return Err(BlobError::Collecting);
        }
        // In this order: whoever ends in between has its file in the view.
        let floor = blobs.floor();
        let view = blobs.view();
        let (blobs, workspace) = (blobs.clone(), workspace.clone());
        Ok(GcRun { blobs, workspace, settings, floor, view })
    }

    /// Looks at everything; changes nothing. Errors: [`BlobError::Damaged`] and the like if a list
    /// of chunks cannot be read, since nobody knows then what is needed, [`BlobError::Folded`],
    /// [`BlobError::TooMuchGarbage`].
    pub fn mark(self) -> Result<GcPlan, BlobError> {
        let forgets = self.settings.forgotten_at.is_some();
        let named = if forgets { BTreeSet::new() } else { self.named()? };
        let (files, totals) = (Vec::new(), GcTotals::default());
        let force = self.settings.force;
        let mut plan = GcPlan {
            run: self,
            files,
            totals,
            condemn_blobs: Vec::new(),
            spare_blobs: Vec::new(),
            drop_blobs: Vec::new(),
            condemn_chunks: Vec::new(),
            spare_chunks: Vec::new(),
            drop_chunks: Vec::new(),
            named: BTreeSet::new(),
            named_since: BTreeSet::new(),
            said: None,
            leaving: BTreeSet::new(),
        };
        let kept = plan.judge_files(&named)?;
        plan.judge_chunks(&kept)?;
        plan.named = named;
        let GcTotals { dropped_bytes, all_bytes, freed_bytes, stored_bytes, .. } = plan.totals;
        for (bytes, all) in [(dropped_bytes, all_bytes), (freed_bytes, stored_bytes)] {
            if bytes > GC_BREAKER_FROM_BYTES && bytes > all / GC_BREAKER_PART && !force {
                return Err(BlobError::TooMuchGarbage { bytes, all });
            }
        }
        Ok(plan)
    }

    /// Every file that a row or a frame names. The walk over redb proves that no row is missing:
    /// one that is would have named a file.
    fn named(&self) -> Result<BTreeSet<[u8; 32]>, BlobError> {
        let mut named = BTreeSet::new();
        let base = self.view.base.clone();
        let checkpointed_to = base.watermark.map_or(0, |mark| mark.durable.end);
        let mut rows = Dump::new(base, &[]);
        while let Some((_, key, value)) = rows.next()? {
            mentions::gather(&key, &mut named);
            mentions::gather(&value, &mut named);
        }
        // What came behind the checkpoint is in the log, and so is the history.
        let log = &self.blobs.log;
        let scanned = log.scan(log.first_position(), self.view.position(), |frame| {
            mentions::gather(frame.payload, &mut named);
            Ok(std::ops::ControlFlow::Continue(()))
        });
        if log.first_position() > checkpointed_to {
            return Err(BlobError::Folded);
        }
        scanned?;
        Ok(named)
    }
}

impl GcPlan {
    /// Decides about each file; returns those that stay for now.
    fn judge_files(&mut self, named: &BTreeSet<[u8; 32]>) -> Result<Vec<StoredBlob>, BlobError> {
        let GcRun { view, workspace, settings, floor, .. } = &self.run;
        let GcSettings { now_ms, staged_ms, grace_ms, .. } = *settings;
        let is_over = |since: i64, time: i64| now_ms.saturating_sub(since) >= time;
        let (mut kept, mut found) = (Vec::new(), Vec::new());
        read::visit_blobs(&**view, workspace, &mut |stored| {
            found.push((stored, read::condemned(&**view, workspace, &stored.blob.sha256)?));
            Ok(())
        })?;
        for (stored, condemned) in found {
            let is_named = match settings.forgotten_at {
                Some(position) => stored.touched >= position,
                None => named.contains(&stored.blob.sha256),
            };
            let fate = match condemned {
                None if is_named => Fate::Named,
                None if planted(Plant::CollectStaged) => Fate::Condemned,
                None if !is_over(stored.time_ms, staged_ms) => Fate::JustStored,
                None => Fate::Condemned,
                Some(_) if is_named => Fate::Spared,
                // Whoever stores it now must have seen that it is condemned: he says anew in a pack
                // that it is here.
                Some(since) if is_over(since.time_ms, grace_ms) && since.at < *floor => {
                    Fate::Dropped
                }
                Some(_) => Fate::InGrace,
            };
            match (fate, condemned) {
                (Fate::Condemned, _) => push(&mut self.condemn_blobs, stored),
                (Fate::Spared, Some(since)) => push(&mut self.spare_blobs, (stored, since)),
                (Fate::Dropped, Some(since)) => push(&mut self.drop_blobs, (stored, since)),
                _ => {}
            }
            self.totals.all_bytes += stored.blob.size;
            if fate == Fate::Dropped {
                self.totals.dropped_bytes += stored.blob.size;
            }
            // The chunks of what goes now stay until the log says that it has gone.
            kept.push(stored);
            self.files.push((BlobHash::Sha256(stored.blob.sha256), stored.blob.size, fate));
        }
        Ok(kept)
    }

    /// Decides about each chunk that no file needs.
    fn judge_chunks(&mut self, kept: &[StoredBlob]) -> Result<(), BlobError> {
        let GcRun { blobs, view, workspace, settings, floor } = &self.run;
        let mut needed = Vec::new();
        for stored in kept {
            visit_pieces(blobs, workspace, &stored.blob, &mut |id| {
                needed.push(short(id));
                Ok(())
            })?;
        }
        needed.sort_unstable();
        needed.dedup();
        let (mut condemn, mut spare, mut go) = (Vec::new(), Vec::new(), Vec::new());
        let totals = &mut self.totals;
        read::visit_chunks(&**view, workspace, &mut |id, chunk| {
            let is_needed = needed.binary_search(&short(&id)).is_ok();
            totals.stored_bytes += chunk.len;
            match chunk.mark {
                ChunkMark::Condemned(_) if is_needed => push(&mut spare, (id, chunk)),
                ChunkMark::Condemned(since) => {
                    let is_over =
                        settings.now_ms.saturating_sub(since.time_ms) >= settings.grace_ms;
                    if since.at < *floor && chunk.touched < *floor && is_over {
                        totals.dropped_chunks += 1;
                        totals.freed_bytes += chunk.len;
                        push(&mut go, (id, chunk));
                    }
                }
                _ if !is_needed && planted(Plant::KeepDeadChunks) => {}
                _ if !is_needed && chunk.touched < *floor => {
                    totals.condemned_chunks += 1;
                    push(&mut condemn, (id, chunk));
                }
                _ => {}
            }
            Ok(())
        })?;
        (self.condemn_chunks, self.spare_chunks, self.drop_chunks) = (condemn, spare, go);
        Ok(())
    }

    /// Says in the workspace's pack which files go and which are needed again. To be called before
    /// the log says it: a file whose pack does not say so stays as it is.
    pub fn write_marks(&mut self) -> Result<(), BlobError> {
        let GcRun { blobs, workspace, settings, .. } = &self.run;
        if self.drop_blobs.is_empty() && self.spare_blobs.is_empty() {
            return Ok(());
        }
        let dropped: Vec<_> = self
            .drop_blobs
            .iter()
            .map(|(stored, since)| (stored.blob.sha256, drop_time(stored.time_ms, *since)))
            .collect();
        let written = blobs.writer(&blobs.view(), workspace)?;
        written.with(|writer| {
            if !planted(Plant::DropWithoutMark) {
                writer.add_dropped(&dropped);
            }
            for (StoredBlob { blob, .. }, time_ms) in spared(&self.spare_blobs, settings.now_ms) {
                writer.add_file(&StoredFile { blob, time_ms });
            }
        });
        let packs = vec![written.sync(Vec::new()).map_err(StoreError::from)?];
        self.said = Some(Said { packs, _held: vec![written] });
        Ok(())
    }

    /// Whether something names a file, as far as the run has looked.
    #[must_use]
    pub fn names(&self, sha256: &[u8; 32]) -> bool {
        self.named.contains(sha256) || self.named_since.contains(sha256)
    }

    /// The view that the run has looked at.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.run.view
    }

    /// Position behind everything that the run has looked at.
    pub(crate) fn seen_to(&self) -> u64 {
        self.run.view.position()
    }

    /// Takes in a frame that came since.
    pub(crate) fn look_at(&mut self, payload: &[u8]) {
        if self.run.settings.forgotten_at.is_none() && !planted(Plant::OverlookNamesSince) {
            mentions::gather(payload, &mut self.named_since);
        }
    }

    /// What the log is to say, on the newest state, once every frame since was looked at. Whatever
    /// has moved since the run looked is left for the next one.
    pub(crate) fn decide<S: ReadState + ?Sized>(
        &mut self,
        newest: &S,
    ) -> Result<Vec<BlobsFrame>, StoreError> {
        let said = self.said.take();
        let has_said = said.is_some();
        let (workspace, named) = (&self.run.workspace, &self.named_since);
        let is_same_blob = |stored: &StoredBlob| {
            let is_unnamed = !named.contains(&stored.blob.sha256);
            let known = read::blob(newest, workspace, &stored.blob.sha256)?;
            Ok::<_, StoreError>(is_unnamed && known == Some(*stored))
        };
        let is_same_chunk = |(id, chunk): &(ChunkId, StoredChunk)| {
            Ok::<_, StoreError>(read::chunk(newest, workspace, id)? == Some(*chunk))
        };
        let mut condemn = (Vec::new(), same(&self.condemn_chunks, is_same_chunk)?);
        for stored in &self.condemn_blobs {
            if is_same_blob(stored)? {
                condemn.0.push(stored.blob.sha256);
            }
        }
        let mut go = (Vec::new(), same(&self.drop_chunks, is_same_chunk)?);
        let is_still = |stored: &StoredBlob, since: &Condemned| {
            let sha256 = &stored.blob.sha256;
            let is_condemned = read::condemned(newest, workspace, sha256)? == Some(*since);
            let is_same = read::blob(newest, workspace, sha256)? == Some(*stored);
            Ok::<_, StoreError>(has_said && is_condemned && is_same)
        };
        for (stored, since) in &self.drop_blobs {
            if is_still(stored, since)? && is_same_blob(stored)? {
                go.0.push(stored.blob.sha256);
            }
        }
        let now_ms = self.run.settings.now_ms;
        let mut parts = Vec::new();
        if let Some(Said { packs, .. }) = said {
            parts.push(BlobsPart::Chunks { packs, used: Vec::new() });
        }
        for ((stored, time_ms), (_, since)) in
            spared(&self.spare_blobs, now_ms).zip(&self.spare_blobs)
        {
            if is_still(&stored, since)? {
                parts.push(BlobsPart::Blob { blob: stored.blob, time_ms });
            }
        }
        let spare = same(&self.spare_chunks, is_same_chunk)?;
        if !spare.is_empty() {
            parts.push(BlobsPart::Spare { chunks: spare });
        }
        if let (blobs, chunks) = condemn
            && !(blobs.is_empty() && chunks.is_empty())
        {
            parts.push(BlobsPart::Condemn { blobs, chunks, time_ms: now_ms });
        }
        if let (blobs, chunks) = go
            && !(blobs.is_empty() && chunks.is_empty())
        {
            parts.push(BlobsPart::Drop { blobs, chunks });
        }
        let frame = |part| BlobsFrame { workspace: workspace.clone(), part };
        Ok(parts.into_iter().map(frame).collect())
    }
}

/// Files that are needed again, each with the time at which it counts as stored.
fn spared(
    files: &[(StoredBlob, Condemned)],
    now_ms: i64,
) -> impl Iterator<Item = (StoredBlob, i64)> {
    let time_of = move |(stored, since): &(StoredBlob, Condemned)| {
        (*stored, file_time(now_ms, Some(*stored), Some(*since)))
    };
    files.iter().map(time_of)
}

fn same(
    chunks: &[(ChunkId, StoredChunk)],
    is_same: impl Fn(&(ChunkId, StoredChunk)) -> Result<bool, StoreError>,
) -> Result<Vec<ChunkId>, StoreError> {
    let mut out = Vec::new();
    for chunk in chunks {
        if is_same(chunk)? {
            out.push(chunk.0);
        }
    }
    Ok(out)
}

/// Adds to a list unless the run has enough of it.
fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() < MAX_GC_STEP {
        list.push(item);
    }
}

/// What is remembered of a needed chunk. Two that begin alike only keep each other.
fn short(id: &ChunkId) -> u64 {
    id.0.first_chunk().map_or(0, |start| u64::from_le_bytes(*start))
}
