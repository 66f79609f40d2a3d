//! Files: cut into chunks, each stored once per workspace in a pack, and read back verified.
//!
//! Order of a commit, never broken: the bytes are in a pack, the pack is synced, one frame of the
//! log says where each chunk is. So whatever the log names is there, after any crash; the index is
//! a fold of those frames like all of the state.

mod check;
mod chunker;
mod gc;
mod ingest;
mod pack;
mod pages;
mod reader;
mod receive;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::Blob;

use crate::disk::Disk;
use crate::error::{BlobError, DiskError, StoreError};
use crate::keys::{StoredChunk, StoredPack};
use crate::limits::MAX_OPEN_PACKS;
use crate::oplog::{Entropy, LogReader, Segment};
use crate::payload::NewChunk;
use crate::read;
use crate::state::View;

pub use check::CheckedBlobs;
pub(crate) use check::check;
pub use chunker::Chunker;
pub use gc::{Fate, GcPlan, GcRun, GcSettings, GcTotals, HeldPacks};
pub use ingest::{Ingest, Ingested};
use pack::PackWriter;
pub use reader::BlobReader;
pub use receive::{Receive, Received};
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
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    entropy: Entropy,
    /// Opened for reading.
    open: BTreeMap<u64, Arc<Segment>>,
    /// Where chunks of a workspace go.
    writers: BTreeMap<WorkspaceName, Written>,
    /// Packs of this process, as long as somebody has chunks in them that the log does not name.
    held: BTreeMap<u64, Weak<Mutex<PackWriter>>>,
    /// Packs that are about to go.
    doomed: BTreeSet<u64>,
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
type Written = Arc<Mutex<PackWriter>>;

impl Blobs {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        log_id: [u8; 16],
        entropy: Entropy,
        pack_size: u64,
        (published, log): (Arc<RwLock<Arc<View>>>, LogReader),
    ) -> Self {
        let shared = Mutex::new(Shared {
            entropy,
            open: BTreeMap::new(),
            writers: BTreeMap::new(),
            held: BTreeMap::new(),
            doomed: BTreeSet::new(),
            leases: BTreeMap::new(),
            next_lease: 0,
            is_collecting: false,
        });
        Blobs { disk, log_id, pack_size, published, log, shared }
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
        lock(&self.shared).leases.values().min().copied().unwrap_or(u64::MAX)
    }

    /// The newest state whose frames are durable.
    fn view(&self) -> Arc<View> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads a chunk into `out`; what comes back is what its name says, or an error.
    pub(crate) fn read_chunk(
        &self,
        id: &ChunkId,
        chunk: &StoredChunk,
        out: &mut Vec<u8>,
    ) -> Result<(), BlobError> {
        pack::read_chunk(&*self.segment(chunk.pack)?, id, chunk, out)
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
        self.read_chunk(id, &known, &mut out)?;
        Ok(out)
    }

    /// Adds a chunk to the workspace's pack.
    fn add_chunk(
        &self,
        state: &View,
        workspace: &WorkspaceName,
        id: ChunkId,
        raw: &[u8],
    ) -> Result<(u64, Written, NewChunk), StoreError> {
        self.with_writer(state, workspace, |writer| Ok(writer.add_chunk(id, raw)?))
    }

    /// Says in the workspace's pack what a file consists of.
    fn add_blob(
        &self,
        state: &View,
        workspace: &WorkspaceName,
        blob: &Blob,
    ) -> Result<(u64, Written), StoreError> {
        let added = self.with_writer(state, workspace, |writer| {
            writer.add_blob(blob);
            Ok(())
        });
        added.map(|(number, written, ())| (number, written))
    }

    fn with_writer<T>(
        &self,
        state: &View,
        workspace: &WorkspaceName,
        add: impl FnOnce(&mut PackWriter) -> Result<T, StoreError>,
    ) -> Result<(u64, Written, T), StoreError> {
        let mut shared = lock(&self.shared);
        let takes_more = |writer: &&Written| {
            let writer = lock(writer);
            !writer.is_broken() && writer.end() < self.pack_size
        };
        let known = shared.writers.get(workspace).filter(takes_more).cloned();
        let written = match known {
            Some(written) => written,
            None => {
                let is_first = !shared.writers.contains_key(workspace);
                let resumed = match is_first {
                    true => self.resume(state, workspace, &shared.doomed)?,
                    false => None,
                };
                let writer = match resumed {
                    Some(writer) => writer,
                    None => {
                        let entropy = &mut shared.entropy;
                        PackWriter::create(&*self.disk, entropy, self.log_id, workspace)?
                    }
                };
                let number = writer.segment.number();
                let written = Arc::new(Mutex::new(writer));
                shared.writers.insert(workspace.clone(), written.clone());
                shared.held.retain(|_, held| held.strong_count() > 0);
                shared.held.insert(number, Arc::downgrade(&written));
                written
            }
        };
        drop(shared);
        let mut writer = lock(&written);
        let added = add(&mut writer)?;
        let number = writer.segment.number();
        drop(writer);
        Ok((number, written, added))
    }

    /// The pack that the last process had not filled.
    fn resume(
        &self,
        state: &View,
        workspace: &WorkspaceName,
        doomed: &BTreeSet<u64>,
    ) -> Result<Option<PackWriter>, StoreError> {
        let packs = read::packs(state, workspace)?;
        // A step that has chunks in a pack alone knows where that ends.
        let usable = |(number, pack): &&(u64, StoredPack)| {
            pack.end < self.pack_size && !doomed.contains(number)
        };
        let Some((number, last)) = packs.last().filter(usable) else {
            return Ok(None);
        };
        // One that is damaged or gone is left as it is; reads of its chunks say so.
        let Ok(segment) = pack::open(&*self.disk, *number) else { return Ok(None) };
        let is_whole = segment.file.len()? >= segment.offset(last.end);
        match is_whole {
            true => Ok(Some(PackWriter::resume(Arc::new(segment), last.end)?)),
            false => Ok(None),
        }
    }

    /// Makes sure that nobody adds to a pack or waits for chunks in it any more; false if somebody
    /// does. What is doomed is to be let go of or forgotten.
    fn doom(&self, workspace: &WorkspaceName, number: u64) -> bool {
        let mut shared = lock(&self.shared);
        let is_active = |written: &Written| lock(written).segment.number() == number;
        let active = shared.writers.get(workspace).filter(|written| is_active(written));
        let own = usize::from(active.is_some());
        let held = shared.held.get(&number).map_or(0, Weak::strong_count);
        if held > own {
            return false;
        }
        if own > 0 {
            shared.writers.remove(workspace);
        }
        shared.doomed.insert(number);
        true
    }

    /// Removes the file of a doomed pack, of which the log says by now that it is gone.
    fn remove(&self, number: u64) -> Result<(), StoreError> {
        let mut shared = lock(&self.shared);
        shared.open.remove(&number);
        shared.doomed.remove(&number);
        drop(shared);
        match self.disk.remove(number) {
            // Whoever removed it: it is gone.
            Ok(()) | Err(DiskError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A pack, to be read.
    pub(crate) fn segment(&self, number: u64) -> Result<Arc<Segment>, StoreError> {
        let mut shared = lock(&self.shared);
        if let Some(segment) = shared.open.get(&number) {
            return Ok(segment.clone());
        }
        let segment = Arc::new(pack::open(&*self.disk, number)?);
        if shared.open.len() >= MAX_OPEN_PACKS {
            shared.open.pop_first();
        }
        shared.open.insert(number, segment.clone());
        Ok(segment)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
