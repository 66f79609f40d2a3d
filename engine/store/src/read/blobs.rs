//! Reads of what is known of files, chunks and packs.

use lastword_core::codec::from_bytes;
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;

use super::{ReadState, damaged, state_damaged, typed, visit_range};
use crate::error::StoreError;
use crate::keys::{self, BLOBS, CHUNKS, Condemned, StoredBlob, StoredChunk, StoredPack};
use crate::payload::Object;

/// Where a chunk is.
pub fn chunk<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    id: &ChunkId,
) -> Result<Option<StoredChunk>, StoreError> {
    typed(state, CHUNKS, &keys::chunk_key(workspace, id))
}

/// A file by its hash.
pub fn blob<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    sha256: &[u8; 32],
) -> Result<Option<StoredBlob>, StoreError> {
    typed(state, BLOBS, &keys::blob_key(workspace, sha256))
}

/// What is known of a file that an object store keeps.
pub fn object<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    sha256: &[u8; 32],
) -> Result<Option<Object>, StoreError> {
    typed(state, BLOBS, &keys::object_key(workspace, sha256))
}

/// Hands every file of a workspace that an object store keeps to `each`, in order of its hash.
pub fn visit_objects<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    each: &mut dyn FnMut(Object) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let from = keys::objects_prefix(workspace);
    visit_range(state, BLOBS, &from, &keys::prefix_end(&from), &mut |key, value| {
        each(from_bytes(value).map_err(|error| damaged(BLOBS, key, &error))?)?;
        Ok(true)
    })
}

/// Since when nothing names a file, if that was found.
pub fn condemned<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    sha256: &[u8; 32],
) -> Result<Option<Condemned>, StoreError> {
    typed(state, BLOBS, &keys::condemned_key(workspace, sha256))
}

/// How far a pack is used.
pub fn pack<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    pack: u64,
) -> Result<Option<StoredPack>, StoreError> {
    typed(state, BLOBS, &keys::pack_key(workspace, pack))
}

/// Hands every file of a workspace to `each`, in order of its hash.
pub fn visit_blobs<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    each: &mut dyn FnMut(StoredBlob) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let from = keys::blobs_prefix(workspace);
    visit_range(state, BLOBS, &from, &keys::prefix_end(&from), &mut |key, value| {
        each(from_bytes(value).map_err(|error| damaged(BLOBS, key, &error))?)?;
        Ok(true)
    })
}

/// Hands every chunk of a workspace to `each`, in order of its id.
pub fn visit_chunks<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
    each: &mut dyn FnMut(ChunkId, StoredChunk) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let from = keys::workspace_prefix(workspace);
    visit_range(state, CHUNKS, &from, &keys::prefix_end(&from), &mut |key, value| {
        let id = keys::chunk_of(key).ok_or_else(|| state_damaged(CHUNKS, key, "no chunk id"))?;
        each(id, from_bytes(value).map_err(|error| damaged(CHUNKS, key, &error))?)?;
        Ok(true)
    })
}

/// The workspaces that have files or packs, by name.
pub fn blob_workspaces<S: ReadState + ?Sized>(state: &S) -> Result<Vec<WorkspaceName>, StoreError> {
    let (mut found, mut from) = (Vec::new(), Vec::new());
    while let Some((key, _)) = state.range(BLOBS, &from, &[u8::MAX], false, 1)?.pop() {
        let end = key.iter().position(|byte| *byte == 0);
        let name = end.and_then(|end| std::str::from_utf8(key.get(..end)?).ok());
        let name = name.and_then(|name| WorkspaceName::new(name).ok());
        let name = name.ok_or_else(|| state_damaged(BLOBS, &key, "no workspace"))?;
        from = keys::prefix_end(&keys::workspace_prefix(&name));
        found.push(name);
    }
    Ok(found)
}

/// The packs of a workspace, by number.
pub fn packs<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<Vec<(u64, StoredPack)>, StoreError> {
    let from = keys::packs_prefix(workspace);
    let mut found = Vec::new();
    visit_range(state, BLOBS, &from, &keys::prefix_end(&from), &mut |key, value| {
        let number = keys::number_of(key).unwrap_or_default();
        found.push((number, from_bytes(value).map_err(|error| damaged(BLOBS, key, &error))?));
        Ok(true)
    })?;
    Ok(found)
}
