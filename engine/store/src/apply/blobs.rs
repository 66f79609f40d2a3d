//! What is known of files, chunks and packs.

use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::plant::{Plant, planted};

use super::put;
use crate::error::StoreError;
use crate::keys::{self, BLOBS, CHUNKS, ChunkMark, Condemned, StoredBlob, StoredChunk, StoredPack};
use crate::oplog::frame_len;
use crate::payload::{BlobsFrame, BlobsPart, ObjectFrame, ObjectPart, PackChunks};
use crate::read;
use crate::state::StateTxn;

pub(super) fn blobs(
    state: &mut StateTxn<'_>,
    touched: u64,
    frame: &BlobsFrame,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    match &frame.part {
        BlobsPart::Chunks { packs, used } => {
            packs.iter().try_for_each(|chunks| add(state, workspace, touched, chunks))?;
            used.iter().try_for_each(|id| {
                change(state, workspace, id, |chunk| {
                    chunk.touched = touched;
                    if matches!(chunk.mark, ChunkMark::Condemned(_)) {
                        chunk.mark = ChunkMark::Whole;
                    }
                })
            })
        }
        BlobsPart::Blob { blob, time_ms } => {
            let stored = StoredBlob { blob: *blob, touched, time_ms: *time_ms };
            state.delete(BLOBS, &keys::condemned_key(workspace, &blob.sha256));
            put(state, BLOBS, &keys::blob_key(workspace, &blob.sha256), &stored)
        }
        BlobsPart::Damaged { chunks } => chunks.iter().try_for_each(|damaged| {
            change(state, workspace, &damaged.id, |chunk| {
                if (chunk.pack, chunk.position) == (damaged.pack, damaged.position) {
                    chunk.mark = ChunkMark::Damaged;
                }
            })
        }),
        BlobsPart::Condemn { blobs, chunks, time_ms } => {
            let condemned = Condemned { at: touched, time_ms: *time_ms };
            for sha256 in blobs {
                put(state, BLOBS, &keys::condemned_key(workspace, sha256), &condemned)?;
            }
            chunks.iter().try_for_each(|id| {
                change(state, workspace, id, |chunk| chunk.mark = ChunkMark::Condemned(condemned))
            })
        }
        BlobsPart::Spare { chunks } => {
            let spare = |chunk: &mut StoredChunk| chunk.mark = ChunkMark::Whole;
            chunks.iter().try_for_each(|id| change(state, workspace, id, spare))
        }
        BlobsPart::Drop { blobs, chunks } => {
            for sha256 in blobs {
                state.delete(BLOBS, &keys::condemned_key(workspace, sha256));
                state.delete(BLOBS, &keys::blob_key(workspace, sha256));
            }
            chunks.iter().try_for_each(|id| drop_chunk(state, workspace, id))
        }
        BlobsPart::PackGone { pack } => {
            state.delete(BLOBS, &keys::pack_key(workspace, *pack));
            Ok(())
        }
    }
}

pub(super) fn object(state: &mut StateTxn<'_>, frame: &ObjectFrame) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    match &frame.part {
        ObjectPart::Stands(object) => {
            put(state, BLOBS, &keys::object_key(workspace, &object.sha256), object)
        }
        ObjectPart::Gone { sha256 } => {
            state.delete(BLOBS, &keys::object_key(workspace, sha256));
            Ok(())
        }
    }
}

fn drop_chunk(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    id: &ChunkId,
) -> Result<(), StoreError> {
    let Some(chunk) = read::chunk(state, workspace, id)? else { return Ok(()) };
    state.delete(CHUNKS, &keys::chunk_key(workspace, id));
    take_from(state, workspace, chunk.pack, frame_bytes(chunk.len))
}

fn add(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    touched: u64,
    added: &PackChunks,
) -> Result<(), StoreError> {
    let mut pack = read::pack(state, workspace, added.pack)?.unwrap_or_default();
    pack.salt = added.salt;
    pack.end = pack.end.max(added.end);
    for chunk in &added.chunks {
        let key = keys::chunk_key(workspace, &chunk.id);
        let bytes = frame_bytes(chunk.len);
        // Two may have stored the same at once, or the first copy is damaged: the newest counts.
        if let Some(old) = read::chunk(state, workspace, &chunk.id)? {
            let old_bytes = frame_bytes(old.len);
            match old.pack == added.pack {
                true => pack.live = pack.live.saturating_sub(old_bytes),
                false if planted(Plant::CountMovedTwice) => {}
                false => take_from(state, workspace, old.pack, old_bytes)?,
            }
        }
        pack.live = pack.live.saturating_add(bytes);
        let stored = StoredChunk {
            pack: added.pack,
            position: chunk.position,
            len: chunk.len,
            raw: chunk.raw,
            touched,
            mark: ChunkMark::Whole,
        };
        put(state, CHUNKS, &key, &stored)?;
    }
    put(state, BLOBS, &keys::pack_key(workspace, added.pack), &pack)
}

fn take_from(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    number: u64,
    bytes: u64,
) -> Result<(), StoreError> {
    let Some(pack) = read::pack(state, workspace, number)? else { return Ok(()) };
    let left = StoredPack { live: pack.live.saturating_sub(bytes), ..pack };
    put(state, BLOBS, &keys::pack_key(workspace, number), &left)
}

fn change(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    id: &ChunkId,
    edit: impl Fn(&mut StoredChunk),
) -> Result<(), StoreError> {
    let Some(mut chunk) = read::chunk(state, workspace, id)? else { return Ok(()) };
    edit(&mut chunk);
    put(state, CHUNKS, &keys::chunk_key(workspace, id), &chunk)
}

/// Bytes that a frame takes in its pack.
fn frame_bytes(payload: u64) -> u64 {
    usize::try_from(payload).map_or(u64::MAX, |payload| frame_len(payload) as u64)
}
