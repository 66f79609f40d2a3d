//! What a file consists of, without reading its chunks.

use std::sync::Arc;

use lastword_core::codec::from_bytes;
use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::{Blob, ManifestPage};

use super::Blobs;
use crate::error::BlobError;

/// Hands every page of a file, then the chunks or pages that it lists, to `each`; reads the pages
/// only. One page of each level is in memory.
///
/// # Errors
/// Those of reading a page, [`BlobError::Manifest`] if the pages do not make up the file, and those
/// of `each`.
pub fn visit_pieces(
    blobs: &Arc<Blobs>,
    workspace: &WorkspaceName,
    blob: &Blob,
    each: &mut dyn FnMut(&ChunkId) -> Result<(), BlobError>,
) -> Result<(), BlobError> {
    each(&blob.root)?;
    visit_below(blobs, workspace, blob, (&blob.root, blob.depth, blob.size), each)
}

fn visit_below(
    blobs: &Arc<Blobs>,
    workspace: &WorkspaceName,
    blob: &Blob,
    (id, level, len): (&ChunkId, u64, u64),
    each: &mut dyn FnMut(&ChunkId) -> Result<(), BlobError>,
) -> Result<(), BlobError> {
    if level == 0 {
        return Ok(());
    }
    let page: Option<ManifestPage> = from_bytes(&blobs.read_newest(workspace, id)?).ok();
    let page = page.filter(|page| page.level == level && page.len() == len);
    let page = page.ok_or(BlobError::Manifest { hash: BlobHash::Sha256(blob.sha256) })?;
    for entry in &page.entries {
        each(&entry.id)?;
        // A level is at most 3, so this ends.
        visit_below(blobs, workspace, blob, (&entry.id, level - 1, entry.len), each)?;
    }
    Ok(())
}
