//! Packs that hold no chunk go; of those that hold few, the chunks move first.

use std::collections::BTreeMap;

use lastword_core::hash::ChunkId;

use super::GcPlan;
use crate::blobs::{Blobs, Written, lock};
use crate::disk::FileKind;
use crate::error::{BlobError, StoreError};
use crate::keys::{ChunkMark, StoredChunk, StoredPack};
use crate::limits::MAX_GC_STEP;
use crate::payload::{BlobsFrame, BlobsPart, PackChunks};
use crate::read::{self, ReadState};

impl GcPlan {
    /// Copies the chunks of packs that are at most half alive into the pack that takes chunks.
    /// Returns what the log is to say, and what must be held until it does. Chunks that cannot be
    /// read stay where they are, and their pack with them.
    pub fn move_chunks(&self) -> Result<(Vec<BlobsFrame>, HeldPacks), BlobError> {
        let (blobs, workspace) = (&self.run.blobs, &self.run.workspace);
        let view = blobs.view();
        let (mut sparse, packs) = (Vec::new(), read::packs(&*view, workspace)?);
        // The newest may be the one that they would be moved to.
        let (_, older) = packs.split_last().unzip();
        for (number, pack) in older.unwrap_or_default().iter().copied() {
            if pack.live > 0 && pack.live <= pack.end / 2 && !blobs.is_held(number) {
                sparse.push(number);
            }
        }
        let mut chunks: Vec<(ChunkId, StoredChunk)> = Vec::new();
        read::visit_chunks(&*view, workspace, &mut |id, chunk| {
            let moves = sparse.contains(&chunk.pack) && chunk.mark == ChunkMark::Whole;
            if moves && chunks.len() < MAX_GC_STEP {
                chunks.push((id, chunk));
            }
            Ok(())
        })?;
        chunks.sort_unstable_by_key(|(_, chunk)| (chunk.pack, chunk.position));
        let (mut moved, mut bytes) = (BTreeMap::<u64, (Written, Vec<_>)>::new(), Vec::new());
        for (id, chunk) in chunks {
            match blobs.read_chunk(&id, &chunk, &mut bytes) {
                Ok(()) => {}
                Err(BlobError::Damaged { .. }) => continue,
                Err(error) => return Err(error),
            }
            let (number, written, added) = blobs.add_chunk(&view, workspace, id, &bytes)?;
            moved.entry(number).or_insert((written, Vec::new())).1.push(added);
        }
        let (mut packs, mut held) = (Vec::new(), Vec::new());
        for (pack, (written, chunks)) in moved {
            let mut writer = lock(&written);
            writer.sync().map_err(StoreError::from)?;
            packs.push(PackChunks { pack, end: writer.end(), chunks });
            drop(writer);
            held.push(written);
        }
        let part = BlobsPart::Chunks { packs, used: Vec::new() };
        let frame = BlobsFrame { workspace: workspace.clone(), part };
        let frames = if held.is_empty() { Vec::new() } else { vec![frame] };
        Ok((frames, HeldPacks { _packs: held }))
    }

    /// Packs that hold no chunk on the newest state, and what the log is to say of them. From here
    /// on nobody adds to them.
    pub(crate) fn empty_packs<S: ReadState + ?Sized>(
        &self,
        newest: &S,
    ) -> Result<Vec<BlobsFrame>, StoreError> {
        let (blobs, workspace) = (&self.run.blobs, &self.run.workspace);
        let mut gone = Vec::new();
        for (pack, StoredPack { live, .. }) in read::packs(newest, workspace)? {
            if live == 0 && blobs.doom(workspace, pack) {
                let part = BlobsPart::PackGone { pack };
                gone.push(BlobsFrame { workspace: workspace.clone(), part });
            }
        }
        Ok(gone)
    }

    /// Removes the files of packs that the log no longer names: those that have just gone, those
    /// that an earlier process had no time to remove, and those that it began and never named.
    pub fn remove_packs(&self) -> Result<u64, StoreError> {
        let blobs = &self.run.blobs;
        let mut removed = 0;
        for file in blobs.disk.list()?.iter().filter(|file| file.kind == FileKind::Pack) {
            // In this order: whoever has chunks in a pack holds it until the log names it.
            if !blobs.doom(&self.run.workspace, file.number) {
                continue;
            }
            if is_named(blobs, file.number)? {
                lock(&blobs.shared).doomed.remove(&file.number);
            } else {
                blobs.remove(file.number)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Packs that got chunks which the log does not name yet: none of them goes while this is held.
#[derive(Debug)]
pub struct HeldPacks {
    _packs: Vec<Written>,
}

fn is_named(blobs: &Blobs, number: u64) -> Result<bool, StoreError> {
    let view = blobs.view();
    for workspace in read::blob_workspaces(&*view)? {
        if read::pack(&*view, &workspace, number)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Blobs {
    /// Whether somebody adds to a pack, or has chunks in it that the log does not name yet.
    fn is_held(&self, number: u64) -> bool {
        let shared = lock(&self.shared);
        shared.held.get(&number).is_some_and(|held| held.strong_count() > 0)
    }
}
