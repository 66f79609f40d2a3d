//! Packs that hold no chunk go; of those that hold few, the chunks move first.

use std::collections::{BTreeMap, BTreeSet};

use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;

use super::GcPlan;
use crate::blobs::contents::{Told, visit_frames};
use crate::blobs::ingest::drop_time;
use crate::blobs::{Blobs, Written};
use crate::disk::{FileKind, first_non_zero, read_header};
use crate::error::{BlobError, StoreError};
use crate::keys::{ChunkMark, StoredChunk, StoredPack};
use crate::limits::{HEADER_LEN, MAX_GC_STEP};
use crate::payload::{BlobsFrame, BlobsPart};
use crate::read::{self, ReadState};
use crate::state::View;

impl GcPlan {
    /// Copies what is needed of packs that are at most half alive, or empty, into the pack that
    /// takes chunks: chunks, and what packs say of files. Returns what the log is to say, and what
    /// must be held until it does. Chunks that cannot be read stay where they are, and their pack
    /// with them.
    pub fn move_chunks(&mut self) -> Result<(Vec<BlobsFrame>, HeldPacks), BlobError> {
        let view = self.run.blobs.view();
        let packs = read::packs(&*view, &self.run.workspace)?;
        self.leaving = self.leaving_packs(&view, &packs)?;
        let (blobs, workspace) = (&self.run.blobs, &self.run.workspace);
        let mut chunks: Vec<(ChunkId, StoredChunk)> = Vec::new();
        read::visit_chunks(&*view, workspace, &mut |id, chunk| {
            let moves = self.leaving.contains(&chunk.pack) && chunk.mark == ChunkMark::Whole;
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
        if let Some(written) = self.carry(&view, &packs)? {
            moved.entry(written.number).or_insert((written, Vec::new()));
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

    /// Packs of which at most half is needed, what lies behind their end included; nobody adds to
    /// them any more. The newest one takes what is moved, and stays, unless it is the only one and
    /// empty, or a process that ended has left behind what nobody confirmed.
    fn leaving_packs(
        &self,
        view: &View,
        packs: &[(u64, StoredPack)],
    ) -> Result<BTreeSet<u64>, BlobError> {
        let (blobs, workspace) = (&self.run.blobs, &self.run.workspace);
        let listed = blobs.disk.list().map_err(StoreError::from)?;
        let lens: BTreeMap<_, _> = listed.iter().map(|file| (file.number, file.len)).collect();
        let (mut leaving, newest) = (BTreeSet::new(), packs.last().map(|(number, _)| *number));
        for (number, pack) in packs {
            let len = lens.get(number).copied().unwrap_or(0);
            let bytes = len.saturating_sub(HEADER_LEN as u64).max(pack.end);
            let is_only = pack.live == 0 && packs.len() == 1;
            if pack.live > bytes / 2 {
                continue;
            }
            // Once nothing names a file with a bad header, nobody knows that it was a pack.
            let read = blobs.pack(workspace, *number).ok();
            let is_bad = read.is_some_and(|read| read.bad_header.is_some());
            let may_leave = newest != Some(*number)
                || is_only
                || has_unconfirmed(blobs, view, workspace, *number)?;
            if !is_bad && may_leave && blobs.doom(workspace, *number) {
                leaving.insert(*number);
            }
        }
        Ok(leaving)
    }

    /// Says once more what the leaving packs say of files that are here, and of files that are gone
    /// as long as other packs may say that they were stored.
    fn carry(
        &self,
        view: &View,
        packs: &[(u64, StoredPack)],
    ) -> Result<Option<Written>, BlobError> {
        let (blobs, workspace) = (&self.run.blobs, &self.run.workspace);
        let mut told = Told::default();
        for (number, pack) in packs.iter().filter(|(number, _)| self.leaving.contains(number)) {
            let Ok(read) = blobs.pack(workspace, *number) else { continue };
            visit_frames(&read.segment, pack.end, &mut |frame| {
                told.take(&frame);
                Ok(())
            })?;
        }
        let mut files = Vec::new();
        for file in told.stored.values() {
            let known = read::blob(view, workspace, &file.blob.sha256)?;
            let is_known = known.is_some_and(|known| known.blob == file.blob);
            if is_known && read::chunk(view, workspace, &file.blob.root)?.is_some() {
                files.push(*file);
            }
        }
        let others_stay = packs.iter().any(|(number, _)| !self.leaving.contains(number));
        let mut dropped = Vec::new();
        for (sha256, time_ms) in told.dropped.iter().filter(|_| others_stay) {
            let known = read::blob(view, workspace, sha256)?;
            if known.is_none_or(|known| known.time_ms <= *time_ms) {
                dropped.push((*sha256, *time_ms));
            }
        }
        if files.is_empty() && dropped.is_empty() {
            return Ok(None);
        }
        let written = blobs.writer(view, workspace)?;
        written.with(|writer| {
            files.iter().for_each(|file| writer.add_file(file));
            writer.add_dropped(&dropped);
        });
        Ok(Some(written))
    }

    /// Those of the leaving packs that hold no chunk on the newest state, and what the log is to
    /// say of them.
    pub(crate) fn empty_packs<S: ReadState + ?Sized>(
        &self,
        newest: &S,
    ) -> Result<Vec<BlobsFrame>, StoreError> {
        let workspace = &self.run.workspace;
        let packs = read::packs(newest, workspace)?.into_iter();
        let gone = packs.filter(|(pack, known)| known.live == 0 && self.leaving.contains(pack));
        let frame = |(pack, _)| {
            let part = BlobsPart::PackGone { pack };
            BlobsFrame { workspace: workspace.clone(), part }
        };
        Ok(gone.map(frame).collect())
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

/// Says in a pack that a file is dropped, before the log may say it: what the log is to say of the
/// pack, and what must be held until it does. Nothing if the file is not here.
pub fn say_dropped(
    blobs: &Blobs,
    workspace: &WorkspaceName,
    sha256: &[u8; 32],
) -> Result<Option<(BlobsFrame, HeldPacks)>, BlobError> {
    let view = blobs.view();
    let Some(stored) = read::blob(&*view, workspace, sha256)? else { return Ok(None) };
    let since = read::condemned(&*view, workspace, sha256)?;
    let time_ms = since.map_or(stored.time_ms, |since| drop_time(stored.time_ms, since));
    let written = blobs.writer(&view, workspace)?;
    written.with(|writer| writer.add_dropped(&[(*sha256, time_ms)]));
    let packs = vec![written.sync(Vec::new()).map_err(StoreError::from)?];
    let part = BlobsPart::Chunks { packs, used: Vec::new() };
    let frame = BlobsFrame { workspace: workspace.clone(), part };
    Ok(Some((frame, HeldPacks { _packs: vec![written] })))
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
    view: &View,
    workspace: &WorkspaceName,
    number: u64,
) -> Result<bool, StoreError> {
    let Some(pack) = read::pack(view, workspace, number)? else { return Ok(false) };
    let Ok(read) = blobs.pack(workspace, number) else { return Ok(false) };
    let (segment, len) = (&read.segment, read.segment.file.len()?);
    Ok(first_non_zero(&*segment.file, segment.offset(pack.end), len)?.is_some())
}
