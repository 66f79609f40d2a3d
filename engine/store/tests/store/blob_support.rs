//! A store of files, and shorthand.

use std::io::Read;
use std::sync::Arc;

use lastword_core::id::{DeviceId, WorkspaceName};
use lastword_core::manifest::Blob;
use lastword_store::apply::ApplyPayload;
use lastword_store::blobs::{BlobReader, Ingest, Reindex, Reindexed};
use lastword_store::payload::{Identity, Payload, StoreRole};
use lastword_store::{BlobError, MemoryDisk, Options, Store, StoreError, read};

pub(crate) fn workspace() -> WorkspaceName {
    WorkspaceName::new("w").unwrap()
}

pub(crate) fn options() -> Options {
    Options {
        segment_size: 64 << 10,
        zero_step: 4 << 10,
        pack_size: 256 << 10,
        entropy: [7; 32],
        ..Options::default()
    }
}

pub(crate) fn try_open(disk: &MemoryDisk) -> Result<Store, StoreError> {
    open_as(disk, options())
}

pub(crate) fn open_as(disk: &MemoryDisk, options: Options) -> Result<Store, StoreError> {
    let apply = Arc::new(ApplyPayload::default());
    let (mut store, _) = Store::open(Arc::new(disk.clone()), options, apply)?;
    if read::identity(store.newest())?.is_none() {
        let (role, device) = (StoreRole::Replica, DeviceId([7; 16]));
        let identity = Identity { role, device, former: Vec::new(), created_ms: 1 };
        append(&mut store, &Payload::Identity(identity))?;
        store.commit()?;
    }
    Ok(store)
}

pub(crate) fn open(disk: &MemoryDisk) -> Store {
    try_open(disk).unwrap()
}

pub(crate) fn append(store: &mut Store, payload: &Payload) -> Result<(), StoreError> {
    store.append(payload.kind(), &payload.to_bytes()).map(drop)
}

/// Stores what `from` gives; the file, and how many bytes were new.
pub(crate) fn put(store: &mut Store, from: impl Read) -> Result<(Blob, u64), BlobError> {
    put_in(store, &workspace(), from)
}

pub(crate) fn put_in(
    store: &mut Store,
    workspace: &WorkspaceName,
    from: impl Read,
) -> Result<(Blob, u64), BlobError> {
    let mut ingest = Ingest::new(store.blobs(), workspace, from, u64::MAX, 1_700_000_000_000);
    let mut new_bytes = 0;
    loop {
        let done = ingest.step()?;
        for frame in done.frames {
            append(store, &Payload::Blobs(frame))?;
        }
        store.commit()?;
        new_bytes += done.new_bytes;
        if let Some(blob) = done.blob {
            return Ok((blob, new_bytes));
        }
    }
}

pub(crate) fn get(store: &Store, blob: &Blob) -> Result<Vec<u8>, BlobError> {
    let mut reader = BlobReader::open(store.blobs(), &workspace(), &blob.sha256)?;
    let mut out = Vec::new();
    loop {
        let chunk = reader.read_from(out.len() as u64)?;
        if chunk.is_empty() {
            return Ok(out);
        }
        out.extend_from_slice(chunk);
    }
}

/// Says what packs hold and the log does not.
pub(crate) fn reindex(store: &mut Store) -> Reindexed {
    let mut reindex = Reindex::begin(store.blobs(), 0).unwrap();
    while let Some(frames) = reindex.step().unwrap() {
        for frame in frames {
            append(store, &Payload::Blobs(frame)).unwrap();
        }
        store.commit().unwrap();
    }
    reindex.report
}

/// Bytes that look random; other ones for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}
