//! What the log is told of files, by devices and by the authority.

use lastword_core::id::WorkspaceName;
use lastword_store::keys::ChunkMark;
use lastword_store::limits::HEADER_LEN;
use lastword_store::payload::{BlobsFrame, BlobsPart, DamagedChunk, Payload};
use lastword_store::{BlobError, Store, read};

use crate::error::Result;
use crate::writer::Writer;

/// Makes durable what the log is to say of files.
pub(crate) fn append(writer: &Writer, frames: Vec<BlobsFrame>) -> Result<()> {
    match frames.is_empty() {
        true => Ok(()),
        false => writer.run(move |store| append_now(store, frames)),
    }
}

/// As [`append`], on the writer thread.
pub(crate) fn append_now(store: &mut Store, frames: Vec<BlobsFrame>) -> Result<()> {
    for frame in frames {
        let payload = Payload::Blobs(frame);
        store.append(payload.kind(), &payload.to_bytes())?;
    }
    Ok(())
}

/// Notes that chunks are not what was written, so that storing their files again heals them. One
/// that was stored anew elsewhere since it was read is whole, so the writer looks once more.
pub(crate) fn note_damage(
    writer: &Writer,
    workspace: &WorkspaceName,
    damaged: Vec<DamagedChunk>,
) -> Result<()> {
    if damaged.is_empty() {
        return Ok(());
    }
    let workspace = workspace.clone();
    writer.run(move |store| {
        let mut chunks = Vec::new();
        for damaged in damaged {
            let known = read::chunk(store.newest(), &workspace, &damaged.id)?;
            let known = known.filter(|chunk| chunk.mark != ChunkMark::Damaged);
            let place = known.map(|chunk| (chunk.pack, chunk.position));
            chunks.extend((place == Some((damaged.pack, damaged.position))).then_some(damaged));
        }
        if chunks.is_empty() {
            return Ok(());
        }
        let part = BlobsPart::Damaged { chunks };
        append_now(store, vec![BlobsFrame { workspace, part }])
    })
}

/// As [`note_damage`], if that is the error.
pub(crate) fn set_apart(writer: &Writer, workspace: &WorkspaceName, error: &BlobError) {
    let BlobError::Damaged { chunk: id, file: pack, offset, .. } = *error else { return };
    let position = offset.saturating_sub(HEADER_LEN as u64);
    let noted = note_damage(writer, workspace, vec![DamagedChunk { id, pack, position }]);
    if let Err(unnoted) = noted {
        tracing::warn!(%unnoted, "a damaged chunk could not be noted");
    }
}
