//! Reads every chunk once and every list of chunks, and says what is not as it was written.

use std::sync::{Arc, RwLock};

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

/// Compares each chunk that `view` names with its name, and each file's list with the chunks there
/// are. What is wrong goes to `found`; `progress` gets the bytes of chunks that were read.
pub(crate) fn check(
    disk: &Arc<dyn Disk>,
    view: &Arc<View>,
    found: &mut dyn FnMut(StoreError),
    progress: &mut dyn FnMut(u64),
) -> Result<CheckedBlobs, StoreError> {
    let published = Arc::new(RwLock::new(view.clone()));
    // Nothing is written, so nothing is drawn.
    let (entropy, log) = (Entropy::new([0; 32]), LogReader::new(Vec::new()));
    let blobs = Arc::new(Blobs::new(disk.clone(), [0; 16], entropy, 0, (published, log)));
    let mut checked = CheckedBlobs::default();
    for workspace in read::blob_workspaces(&**view)? {
        checked.packs += read::packs(&**view, &workspace)?.len() as u64;
        let mut out = Vec::new();
        read::visit_chunks(&**view, &workspace, &mut |id, chunk| {
            match blobs.read_chunk(&id, &chunk, &mut out) {
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
                    Some(_) => Ok(()),
                    None => Err(BlobError::Gone { chunk: *id }),
                });
            match whole {
                Ok(()) => checked.blobs += 1,
                // The page was read above as a chunk, and is told already.
                Err(BlobError::Damaged { .. }) => {}
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
