//! Reads every chunk once and every list of chunks, and says what is not as it was written.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use lastword_core::id::WorkspaceName;

use super::{Blobs, visit_pieces};
use crate::disk::Disk;
use crate::error::{BlobError, DiskError, StoreError};
use crate::oplog::{Entropy, LogReader};
use crate::read;
use crate::state::View;

/// What was read of the files of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckedBlobs {
    /// Packs.
    pub packs: u64,
    /// Files whose list of chunks is whole.
    pub blobs: u64,
    /// Chunks that are what their names say.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A pack that is gone, or whose place another file has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostPack {
    /// Its number.
    pub number: u64,
    /// What is wrong.
    pub reason: &'static str,
    /// Chunks that only it holds. They do not count as here: storing their files again heals them.
    pub chunks: u64,
}

/// The packs of a workspace that are lost and hold chunks. Whether the others can be read, only
/// reading them tells.
pub fn lost_packs(blobs: &Blobs, workspace: &WorkspaceName) -> Result<Vec<LostPack>, StoreError> {
    let (view, mut lost) = (blobs.view(), BTreeMap::new());
    for (number, _) in read::packs(&*view, workspace)? {
        match blobs.pack(workspace, number) {
            Err(StoreError::PackLost { reason, .. }) => {
                lost.insert(number, LostPack { number, reason, chunks: 0 });
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    read::visit_chunks(&*view, workspace, &mut |_, chunk| {
        if let Some(pack) = lost.get_mut(&chunk.pack) {
            pack.chunks += 1;
        }
        Ok(())
    })?;
    Ok(lost.into_values().filter(|pack| pack.chunks > 0).collect())
}

/// Compares each chunk that `view` names with its name, and each file's list with the chunks there
/// are. What is wrong goes to `found`; `progress` gets the bytes of chunks that were read.
pub(crate) fn check(
    (disk, log_id): (&Arc<dyn Disk>, [u8; 16]),
    view: &Arc<View>,
    found: &mut dyn FnMut(StoreError),
    progress: &mut dyn FnMut(u64),
) -> Result<CheckedBlobs, StoreError> {
    let published = Arc::new(RwLock::new(view.clone()));
    // Nothing is written, so nothing is drawn.
    let (entropy, log) = (Entropy::new([0; 32]), LogReader::new(Vec::new()));
    let blobs = Arc::new(Blobs::new(disk.clone(), log_id, entropy, 0, (published, log)));
    let mut checked = CheckedBlobs::default();
    for workspace in read::blob_workspaces(&**view)? {
        for (number, _) in read::packs(&**view, &workspace)? {
            checked.packs += 1;
            let opened = blobs.pack(&workspace, number);
            if let Some(reason) = opened.ok().and_then(|pack| pack.bad_header) {
                found(StoreError::PackHeader { file: number, reason });
            }
        }
        for LostPack { number: file, reason, chunks } in lost_packs(&blobs, &workspace)? {
            found(StoreError::PackLost { file, reason, chunks });
        }
        let mut out = Vec::new();
        read::visit_chunks(&**view, &workspace, &mut |id, chunk| {
            match blobs.read_chunk(&workspace, &id, &chunk, &mut out) {
                Err(BlobError::PackLost { .. }) => {}
                Ok(()) => {
                    checked.chunks += 1;
                    checked.bytes += chunk.raw;
                    progress(checked.bytes);
                }
                Err(error) => found(damage(error)),
            }
            Ok(())
        })?;
        read::visit_blobs(&**view, &workspace, &mut |stored| {
            let whole =
                visit_pieces(&blobs, &workspace, &stored.blob, &mut |id| match read::chunk(
                    &**view, &workspace, id,
                )? {
                    Some(chunk) => Ok(blobs.pack(&workspace, chunk.pack).map(drop)?),
                    None => Err(BlobError::Gone { chunk: *id }),
                });
            match whole {
                Ok(()) => checked.blobs += 1,
                // Chunk, page or pack were met above, and are told already.
                Err(BlobError::Damaged { .. } | BlobError::PackLost { .. }) => {}
                Err(error) => found(damage(error)),
            }
            Ok(())
        })?;
    }
    Ok(checked)
}

/// As an error of the store, which names the file that is damaged.
fn damage(error: BlobError) -> StoreError {
    match error {
        BlobError::Store(error) => *error,
        BlobError::Damaged { file, offset, reason, .. } => {
            DiskError::Damaged { file, offset, reason }.into()
        }
        other => StoreError::StateDamaged { file: 0, reason: other.to_string() },
    }
}
