//! Packs that hold no chunk go; of those that hold few, the chunks move first.

use std::collections::BTreeMap;

use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;

use super::GcPlan;
use crate::blobs::{Blobs, Written};
use crate::disk::{FileKind, first_non_zero, read_header};
use crate::error::{BlobError, StoreError};
use crate::keys::{ChunkMark, StoredChunk, StoredPack};
use crate::limits::{HEADER_LEN, MAX_GC_STEP};
use crate::payload::{BlobsFrame, BlobsPart};
use crate::read::{self, ReadState};
use crate::state::View;

impl GcPlan {
    /// Copies the chunks of packs that are at most half alive into the pack that takes chunks.
    /// Returns what the log is to say, and what must be held until it does. Chunks that cannot be
    /// read stay where they are, and their pack with them.
    pub fn move_chunks(&self) -> Result<(Vec<BlobsFrame>, HeldPacks), BlobError> {
        let (blobs, workspace) = (&self.run.blobs, &self.run.workspace);
        let view = blobs.view();
        let sparse = self.sparse_packs(&view)?;
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
            match blobs.read_chunk(workspace, &id, &chunk, &mut bytes) {
                Ok(()) => {}
                Err(BlobError::Damaged { .. } | BlobError::PackLost { .. }) => continue,
                Err(error) => return Err(error),
            }
            let (written, added) = blobs.add_chunk(&view, workspace, id, &bytes)?;
            moved.entry(written.number).or_insert((written, Vec::new())).1.push(added);
        }
        let (mut packs, mut held) = (Vec::new(), Vec::new());
        for (written, chunks) in moved.into_values() {
            packs.push(written.sync(chunks).map_err(StoreError::from)?);
            held.push(written);
        }
        let part = BlobsPart::Chunks { packs, used: Vec::new() };
        let frame = BlobsFrame { workspace: workspace.clone(), part };
        let frames = if held.is_empty() { Vec::new() } else { vec![frame] };
        Ok((frames, HeldPacks { _packs: held }))
    }

    /// Packs of which at most half is needed, what lies behind their end included. The newest one
    /// is left alone, since it takes what is moved, unless a process that ended has left behind
    /// what nobody confirmed.
    fn sparse_packs(&self, view: &View) -> Result<Vec<u64>, BlobError> {
        let (blobs, workspace) = (&self.run.blobs, &self.run.workspace);
        let listed = blobs.disk.list().map_err(StoreError::from)?;
        let lens: BTreeMap<_, _> = listed.iter().map(|file| (file.number, file.len)).collect();
        let (mut sparse, packs) = (Vec::new(), read::packs(view, workspace)?);
        let newest = packs.last().map(|(number, _)| *number);
        for (number, pack) in packs {
            let len = lens.get(&number).copied().unwrap_or(0);
            let bytes = len.saturating_sub(HEADER_LEN as u64).max(pack.end);
            if pack.live == 0 || pack.live > bytes / 2 || blobs.is_held(number) {
                continue;
            }
            let is_left = newest != Some(number)
                || has_unconfirmed(blobs, workspace, number, &pack)?
                    && blobs.doom(workspace, number);
            if is_left {
                sparse.push(number);
            }
        }
        Ok(sparse)
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
            // Once nothing names a file with a bad header, nobody knows that it was a pack.
            let has_header =
                blobs.pack(workspace, pack).map_or(true, |pack| pack.bad_header.is_none());
            if live == 0 && has_header && blobs.doom(workspace, pack) {
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
            if is_named(blobs, file.number)? || !is_ours(blobs, file.number)? {
                blobs.spare(file.number);
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

/// Whether a pack belongs to this log.
fn is_ours(blobs: &Blobs, number: u64) -> Result<bool, StoreError> {
    let header = read_header(number, &*blobs.disk.open_to_read(number)?)?;
    Ok(header.is_some_and(|header| header.log_id == blobs.log_id))
}

/// Whether anything lies behind the end of a pack.
fn has_unconfirmed(
    blobs: &Blobs,
    workspace: &WorkspaceName,
    number: u64,
    pack: &StoredPack,
) -> Result<bool, StoreError> {
    let Ok(read) = blobs.pack(workspace, number) else { return Ok(false) };
    let (segment, len) = (&read.segment, read.segment.file.len()?);
    Ok(first_non_zero(&*segment.file, segment.offset(pack.end), len)?.is_some())
}
