//! Files: cut into chunks, each stored once per workspace in a pack, and read back verified.
//!
//! Order of a commit, never broken: the bytes are in a pack, the pack is synced, one frame of the
//! log says where each chunk is. So whatever the log names is there, after any crash; the index is
//! a fold of those frames like all of the state.

mod check;
mod chunker;
mod contents;
mod gc;
mod hashing;
mod ingest;
mod pack;
mod packs;
mod pages;
mod reader;
mod receive;
mod reindex;
mod scrub;
mod walk;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::plant::{Plant, planted};

use crate::disk::Disk;
use crate::error::{BlobError, StoreError};
use crate::keys::StoredChunk;
use crate::limits::{MAX_PACK_SIZE, MIN_PACK_SIZE};
use crate::oplog::{Entropy, LogReader};
use crate::payload::NewChunk;
use crate::read;
use crate::state::View;

pub(crate) use check::check;
pub use check::{CheckedBlobs, LostPack, lost_packs};
pub use chunker::Chunker;
use contents::StoredFile;
pub use gc::{Fate, GcPlan, GcRun, GcSettings, GcTotals, HeldPacks, gather_names, say_dropped};
pub use ingest::{Ingest, Ingested};
use pack::{OpenPack, ReadPack};
use packs::Packs;
pub use reader::BlobReader;
pub use receive::{Receive, Received};
pub use reindex::{Reindex, Reindexed};
pub use scrub::{Scrubbed, broken_files, scrub};
pub use walk::visit_pieces;

/// The packs of a store. Readers and writers of files share it and are on threads of their own; the
/// store's owner only appends the frames that they bring.
#[derive(Debug)]
pub struct Blobs {
    disk: Arc<dyn Disk>,
    log_id: [u8; 16],
    pack_size: u64,
    published: Arc<RwLock<Arc<View>>>,
    log: LogReader,
    entropy: Mutex<Entropy>,
    /// Never held while the disk is written to or synced.
    shared: Mutex<Shared>,
    /// A pack was opened that takes chunks.
    opened: Condvar,
}

#[derive(Debug, Default)]
struct Shared {
    /// Opened for reading.
    open: BTreeMap<u64, Arc<ReadPack>>,
    packs: Packs,
    /// Log positions at which those began who are storing files.
    leases: BTreeMap<u64, u64>,
    next_lease: u64,
    /// Somebody is collecting garbage.
    is_collecting: bool,
}

/// Held while a file is stored: chunks that were stored or used since it began stay, and those that
/// were condemned since are not dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    blobs: Arc<Blobs>,
    number: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.blobs.shared).leases.remove(&self.number);
    }
}

/// A pack that got a chunk.
type Written = Arc<OpenPack>;

impl Blobs {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        log_id: [u8; 16],
        entropy: Entropy,
        pack_size: u64,
        (published, log): (Arc<RwLock<Arc<View>>>, LogReader),
    ) -> Self {
        let pack_size = pack_size.clamp(MIN_PACK_SIZE, MAX_PACK_SIZE);
        let (entropy, shared, opened) = (Mutex::new(entropy), Mutex::default(), Condvar::new());
        Blobs { disk, log_id, pack_size, published, log, entropy, shared, opened }
    }

    /// Begins to store a file.
    fn lease(self: &Arc<Self>) -> Lease {
        let mut shared = lock(&self.shared);
        // Read while nobody can ask for the oldest lease: it is that of an older view at worst.
        let begun = self.view().position();
        let number = shared.next_lease;
        shared.next_lease += 1;
        shared.leases.insert(number, begun);
        Lease { blobs: self.clone(), number }
    }

    /// Where the oldest lease began.
    fn floor(&self) -> u64 {
        let leases = &lock(&self.shared).leases;
        let oldest = match () {
            () if planted(Plant::ForgetLeases) => None,
            () if planted(Plant::NewestLease) => leases.values().max(),
            () => leases.values().min(),
        };
        oldest.copied().unwrap_or(u64::MAX)
    }

    /// The newest state whose frames are durable.
    fn view(&self) -> Arc<View> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads a chunk into `out`; what comes back is what its name says, or an error.
    pub(crate) fn read_chunk(
        &self,
        workspace: &WorkspaceName,
        id: &ChunkId,
        chunk: &StoredChunk,
        out: &mut Vec<u8>,
    ) -> Result<(), BlobError> {
        pack::read_chunk(&self.pack(workspace, chunk.pack)?.segment, id, chunk, out)
    }

    /// A chunk, wherever it is now.
    ///
    /// # Errors
    /// [`BlobError::Gone`] if the workspace has none of that name, [`BlobError::Damaged`] if it is
    /// not what was written, [`BlobError::Store`] if the disk fails.
    pub fn read_newest(
        &self,
        workspace: &WorkspaceName,
        id: &ChunkId,
    ) -> Result<Vec<u8>, BlobError> {
        let known = read::chunk(&*self.view(), workspace, id)?;
        let known = known.ok_or(BlobError::Gone { chunk: *id })?;
        let mut out = Vec::new();
        self.read_chunk(workspace, id, &known, &mut out)?;
        Ok(out)
    }

    /// Adds a chunk to the workspace's pack.
    fn add_chunk(
        &self,
        state: &View,
        workspace: &WorkspaceName,
        id: ChunkId,
        raw: &[u8],
    ) -> Result<(Written, NewChunk), StoreError> {
        let written = self.writer(state, workspace)?;
        let added = written.with(|writer| writer.add_chunk(id, raw))?;
        Ok((written, added))
    }

    /// Says in the workspace's pack what a file consists of.
    fn add_file(
        &self,
        state: &View,
        workspace: &WorkspaceName,
        file: &StoredFile,
    ) -> Result<Written, StoreError> {
        let written = self.writer(state, workspace)?;
        written.with(|writer| writer.add_file(file));
        Ok(written)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
