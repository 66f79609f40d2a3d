//! Scrubbing: reads chunks in the order of their ids, some at a time, and says which are damaged
//! before somebody needs them.

use lastword_core::codec::from_bytes;
use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::WorkspaceName;

use std::sync::Arc;

use super::{Blobs, visit_pieces};
use crate::error::{BlobError, StoreError};
use crate::keys::{self, CHUNKS, ChunkMark, StoredChunk};
use crate::limits::{HEADER_LEN, SCRUB_ROWS};
use crate::payload::DamagedChunk;
use crate::read::{self, ReadState as _};

/// What one step of a scrub has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Chunks that were read.
    pub chunks: u64,
    /// Bytes that were read of packs.
    pub bytes: u64,
    /// Chunks that are not what was written.
    pub damaged: Vec<DamagedChunk>,
    /// Chunks whose packs are lost.
    pub lost: u64,
    /// Where the next step goes on; `None` if all were read.
    pub next: Option<ChunkId>,
}

/// Reads the chunks of a workspace from `from` on, until about `budget_bytes` were read. Nothing is
/// written: whoever calls says in the log what is damaged. Errors: [`BlobError::Store`].
pub fn scrub(
    blobs: &Blobs,
    workspace: &WorkspaceName,
    from: ChunkId,
    budget_bytes: u64,
) -> Result<Scrubbed, BlobError> {
    let (view, mut done, mut out) = (blobs.view(), Scrubbed::default(), Vec::new());
    let end = keys::prefix_end(&keys::workspace_prefix(workspace));
    let start = keys::chunk_key(workspace, &from);
    let rows = view.range(CHUNKS, &start, &end, false, SCRUB_ROWS + 1)?;
    let has_more = rows.len() > SCRUB_ROWS;
    for (place, (key, value)) in rows.iter().enumerate() {
        let id = keys::chunk_of(key).unwrap_or(from);
        if done.bytes >= budget_bytes && done.chunks > 0 || has_more && place == SCRUB_ROWS {
            done.next = Some(id);
            break;
        }
        let row: Option<StoredChunk> = from_bytes(value).ok();
        let reason = "the row of a chunk does not decode";
        let chunk =
            row.ok_or_else(|| StoreError::StateDamaged { file: 0, reason: reason.into() })?;
        done.chunks += 1;
        done.bytes += chunk.frame_bytes();
        match read_there(blobs, workspace, &id, chunk, &mut out) {
            Ok(()) => {}
            Err(BlobError::Damaged { file: pack, offset, .. }) => {
                let position = offset.saturating_sub(HEADER_LEN as u64);
                done.damaged.push(DamagedChunk { id, pack, position });
            }
            Err(BlobError::PackLost { .. }) => done.lost += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads a chunk where it is, or where it was moved to meanwhile.
fn read_there(
    blobs: &Blobs,
    workspace: &WorkspaceName,
    id: &ChunkId,
    chunk: StoredChunk,
    out: &mut Vec<u8>,
) -> Result<(), BlobError> {
    let failed = match blobs.read_chunk(workspace, id, &chunk, out) {
        Err(error @ (BlobError::Damaged { .. } | BlobError::PackLost { .. })) => error,
        read => return read,
    };
    match read::chunk(&*blobs.view(), workspace, id)? {
        None => Ok(()),
        Some(now) if (now.pack, now.position) == (chunk.pack, chunk.position) => Err(failed),
        Some(now) => blobs.read_chunk(workspace, id, &now, out),
    }
}

/// The files of which a chunk is known to be damaged or lost, by hash: those that must be stored
/// again. Reads every file's list.
pub fn broken_files(
    blobs: &Arc<Blobs>,
    workspace: &WorkspaceName,
) -> Result<Vec<BlobHash>, StoreError> {
    let (view, mut files, mut broken) = (blobs.view(), Vec::new(), Vec::new());
    read::visit_blobs(&*view, workspace, &mut |stored| {
        files.push(stored.blob);
        Ok(())
    })?;
    for blob in files {
        let whole = visit_pieces(blobs, workspace, &blob, &mut |id| {
            let known = read::chunk(&*view, workspace, id)?;
            let chunk = known.filter(|chunk| chunk.mark != ChunkMark::Damaged);
            let chunk = chunk.ok_or(BlobError::Gone { chunk: *id })?;
            Ok(blobs.pack(workspace, chunk.pack).map(drop)?)
        });
        match whole {
            Ok(()) => {}
            Err(BlobError::Store(error)) => return Err(*error),
            Err(_) => broken.push(BlobHash::Sha256(blob.sha256)),
        }
    }
    Ok(broken)
}
