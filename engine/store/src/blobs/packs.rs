//! Which packs are open, to be read or to take chunks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, Weak};

use lastword_core::id::WorkspaceName;
use lastword_core::plant::{Plant, planted};

use super::pack::{self, OpenPack, PackWriter, ReadPack};
use super::{Blobs, Written, lock};
use crate::error::{DiskError, StoreError};
use crate::header::HeaderKind;
use crate::limits::{MAX_OPEN_PACKS, MAX_PACK_WRITERS, SPARES_RESERVED};
use crate::oplog::{Segment, Template};
use crate::read;
use crate::state::View;

/// The packs that take chunks.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Where chunks of a workspace go, and when somebody last asked.
    writers: BTreeMap<WorkspaceName, (u64, Written)>,
    asked: u64,
    /// Workspaces for which one is being opened or made, and its number once that is known.
    opening: BTreeMap<WorkspaceName, Option<u64>>,
    /// Packs of this process, as long as somebody has chunks in them that the log does not name.
    held: BTreeMap<u64, Weak<OpenPack>>,
    /// Packs that are about to go.
    doomed: BTreeSet<u64>,
}

impl Packs {
    /// The pack that takes chunks of a workspace.
    fn active(&mut self, workspace: &WorkspaceName, size: u64) -> Option<Written> {
        self.asked += 1;
        let (asked, written) = self.writers.get_mut(workspace)?;
        *asked = self.asked;
        written.takes_more(size).then(|| written.clone())
    }

    /// Opened ones are closed again, those first that nobody has asked for longest. One that
    /// somebody holds stays: no two may write to one file.
    fn add(&mut self, workspace: &WorkspaceName, written: &Written) {
        self.held.retain(|_, held| held.strong_count() > 0);
        self.held.insert(written.number, Arc::downgrade(written));
        self.writers.insert(workspace.clone(), (self.asked, written.clone()));
        while self.writers.len() > MAX_PACK_WRITERS {
            let idle = self.writers.iter().filter(|(_, (_, held))| Arc::strong_count(held) == 1);
            let oldest = idle.min_by_key(|(_, (asked, _))| *asked).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { break };
            self.writers.remove(&oldest);
        }
    }

    fn is_opening(&self, number: u64) -> bool {
        self.opening.values().any(|opening| *opening == Some(number))
    }

    fn holders(&self, number: u64) -> usize {
        self.held.get(&number).map_or(0, Weak::strong_count)
    }
}

impl Blobs {
    /// The pack that takes chunks of a workspace now. Opening or making one holds up nobody but
    /// those who wait for it.
    pub(super) fn writer(
        &self,
        state: &View,
        workspace: &WorkspaceName,
    ) -> Result<Written, StoreError> {
        let mut shared = lock(&self.shared);
        loop {
            if let Some(written) = shared.packs.active(workspace, self.pack_size) {
                return Ok(written);
            }
            if !shared.packs.opening.contains_key(workspace) {
                break;
            }
            shared = self.opened.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        shared.packs.opening.insert(workspace.clone(), None);
        let is_first = !shared.packs.writers.contains_key(workspace);
        drop(shared);
        let begun = self.begin(state, workspace, is_first);
        let mut shared = lock(&self.shared);
        shared.packs.opening.remove(workspace);
        self.opened.notify_all();
        let written = Arc::new(OpenPack::new(begun?));
        shared.packs.add(workspace, &written);
        Ok(written)
    }

    fn begin(
        &self,
        state: &View,
        workspace: &WorkspaceName,
        is_first: bool,
    ) -> Result<PackWriter, StoreError> {
        if is_first && let Some(writer) = self.resume(state, workspace)? {
            return Ok(writer);
        }
        let (kind, log_id) = (HeaderKind::Pack, self.log_id);
        let template = Template { kind, log_id, predecessor: [0; 16], segment_size: 0 };
        loop {
            let entropy = &mut lock(&self.entropy);
            let segment = Segment::reserve(&*self.disk, entropy, &template, 0, SPARES_RESERVED)?;
            // A pack whose file has become zeros is still named by the log.
            if read::pack(state, workspace, segment.number())?.is_some() {
                continue;
            }
            // Before it is born: nobody takes it for one that an earlier process has left behind.
            let mut shared = lock(&self.shared);
            shared.packs.opening.insert(workspace.clone(), Some(segment.number()));
            drop(shared);
            return Ok(PackWriter::create(segment, workspace)?);
        }
    }

    /// The pack that was not filled before.
    fn resume(
        &self,
        state: &View,
        workspace: &WorkspaceName,
    ) -> Result<Option<PackWriter>, StoreError> {
        let packs = read::packs(state, workspace)?;
        let Some((number, last)) = packs.last().filter(|(_, pack)| pack.end < self.pack_size)
        else {
            return Ok(None);
        };
        let mut shared = lock(&self.shared);
        if shared.packs.doomed.contains(number) || shared.packs.holders(*number) > 0 {
            return Ok(None);
        }
        shared.packs.opening.insert(workspace.clone(), Some(*number));
        drop(shared);
        PackWriter::resume(&*self.disk, pack::header(self.log_id, *number, last.salt), last)
    }

    /// Makes sure that nobody adds to a pack or waits for chunks in it any more; false if somebody
    /// does. What is doomed is to be let go of or forgotten.
    pub(super) fn doom(&self, workspace: &WorkspaceName, number: u64) -> bool {
        let mut shared = lock(&self.shared);
        let packs = &mut shared.packs;
        let active = packs.writers.get(workspace).filter(|(_, held)| held.number == number);
        let own = usize::from(active.is_some());
        if packs.holders(number) > own || packs.is_opening(number) {
            return false;
        }
        if own > 0 {
            packs.writers.remove(workspace);
        }
        packs.doomed.insert(number);
        true
    }

    /// A pack is not to go after all.
    pub(super) fn spare(&self, number: u64) {
        lock(&self.shared).packs.doomed.remove(&number);
    }

    /// Removes the file of a doomed pack, of which the log says by now that it is gone.
    pub(super) fn remove(&self, number: u64) -> Result<(), StoreError> {
        let mut shared = lock(&self.shared);
        shared.open.remove(&number);
        shared.packs.doomed.remove(&number);
        drop(shared);
        match self.disk.remove(number) {
            // Whoever removed it: it is gone.
            Ok(()) | Err(DiskError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A pack of a workspace, to be read. Errors: [`StoreError::PackLost`].
    pub(crate) fn pack(
        &self,
        workspace: &WorkspaceName,
        number: u64,
    ) -> Result<Arc<ReadPack>, StoreError> {
        if let Some(pack) = lock(&self.shared).open.get(&number) {
            return Ok(pack.clone());
        }
        let reason = "the log does not name it any more";
        let known = read::pack(&*self.view(), workspace, number)?;
        let known = known.ok_or(StoreError::PackLost { file: number, reason, chunks: 0 })?;
        let header = pack::header(self.log_id, number, known.salt);
        let pack = Arc::new(pack::open(&*self.disk, header)?);
        let open = &mut lock(&self.shared).open;
        if open.len() >= MAX_OPEN_PACKS {
            open.pop_first();
        }
        open.insert(number, pack.clone());
        Ok(pack)
    }

    /// Up to where a pack is believed to hold what the log says; not at all if it is lost or has a
    /// header that nobody wrote, though its chunks are read as long as they are what they should.
    pub(super) fn readable_to(
        &self,
        workspace: &WorkspaceName,
        number: u64,
    ) -> Result<u64, StoreError> {
        match self.pack(workspace, number) {
            Ok(pack) if pack.bad_header.is_none() => Ok(pack.segment.capacity_end()?),
            _ if planted(Plant::BelieveLostPack) => Ok(u64::MAX),
            Ok(_) | Err(StoreError::PackLost { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Mutex, RwLock};
    use std::time::Duration;

    use super::*;
    use crate::disk::{Disk, File, FileInfo, MemoryDisk};
    use crate::limits::{MAX_PACK_SIZE, MIN_PACK_SIZE};
    use crate::oplog::{Entropy, LogReader};
    use crate::state::create_state;

    fn blobs(disk: Arc<dyn Disk>, pack_size: u64) -> (Arc<Blobs>, View) {
        let state = create_state(&MemoryDisk::new(4096), [1; 16], 1 << 20);
        let view = View::of_base(state.expect("an empty state").base);
        let shown = (Arc::new(RwLock::new(Arc::new(view.clone()))), LogReader::new(Vec::new()));
        let entropy = Entropy::new([7; 32]);
        (Arc::new(Blobs::new(disk, [1; 16], entropy, pack_size, shown)), view)
    }

    fn name(number: usize) -> WorkspaceName {
        WorkspaceName::new(&format!("w{number}")).expect("a name")
    }

    /// I41. Each workspace that had stored a file kept a pack open for as long as the process ran.
    #[test]
    fn open_packs_are_bounded() {
        let (blobs, view) = blobs(Arc::new(MemoryDisk::new(4096)), 1 << 20);
        let held = blobs.writer(&view, &name(0)).expect("a pack");
        for number in 1..3 * MAX_PACK_WRITERS {
            blobs.writer(&view, &name(number)).expect("a pack");
            let open = lock(&blobs.shared).packs.writers.len();
            assert!(open <= MAX_PACK_WRITERS, "{open}");
        }
        let again = blobs.writer(&view, &name(0)).expect("a pack");
        assert!(Arc::ptr_eq(&held, &again), "one that is in use was closed");
    }

    /// I41. A pack size of nothing made a pack of each chunk, and the largest one overflowed.
    #[test]
    fn the_size_of_packs_is_within_its_limits() {
        for (asked, taken) in [(0, MIN_PACK_SIZE), (u64::MAX, MAX_PACK_SIZE), (1 << 20, 1 << 20)] {
            assert_eq!(blobs(Arc::new(MemoryDisk::new(4096)), asked).0.pack_size, taken);
        }
    }

    /// Says when a sync begins, and ends it when it is told to.
    #[derive(Debug)]
    struct SlowDisk {
        disk: MemoryDisk,
        gate: Arc<(Sender<()>, Mutex<Receiver<()>>)>,
    }

    #[derive(Debug)]
    struct SlowFile(Arc<dyn File>, Arc<(Sender<()>, Mutex<Receiver<()>>)>);

    impl Disk for SlowDisk {
        fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
            self.disk.list()
        }
        fn take_spare(&self, keep: usize) -> Result<u64, DiskError> {
            self.disk.take_spare(keep)
        }
        fn create_state(&self) -> Result<u64, DiskError> {
            self.disk.create_state()
        }
        fn open(&self, number: u64) -> Result<Arc<dyn File>, DiskError> {
            Ok(Arc::new(SlowFile(self.disk.open(number)?, self.gate.clone())))
        }
        fn remove(&self, number: u64) -> Result<(), DiskError> {
            self.disk.remove(number)
        }
        fn free_bytes(&self) -> Option<u64> {
            None
        }
    }

    impl File for SlowFile {
        fn len(&self) -> Result<u64, DiskError> {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
            self.0.read_at(offset, buf)
        }
        fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
            self.0.write_at(offset, buf)
        }
        fn set_len(&self, len: u64) -> Result<(), DiskError> {
            self.0.set_len(len)
        }
        fn sync(&self) -> Result<(), DiskError> {
            self.1.0.send(()).expect("the test waits");
            lock(&self.1.1).recv().expect("the test tells");
            self.0.sync()
        }
    }

    /// Whoever stored a file held up all who read or stored others until his pack was synced: its
    /// birth, and what he added to it.
    #[test]
    fn nobody_waits_for_the_sync_of_another() {
        let ((began, begins), (end, ends)) = (channel(), channel());
        let gate = Arc::new((began, Mutex::new(ends)));
        let disk = SlowDisk { disk: MemoryDisk::new(4096), gate };
        let (blobs, view) = blobs(Arc::new(disk), 1 << 20);
        let storing = {
            let (blobs, view) = (blobs.clone(), view.clone());
            std::thread::spawn(move || {
                let written = blobs.writer(&view, &name(1)).expect("a pack");
                written.sync(Vec::new()).expect("it syncs")
            })
        };
        for _ in 0..2 {
            begins.recv().expect("a sync begins");
            let (others, (done, dones)) = (blobs.clone(), channel());
            let view = view.clone();
            std::thread::spawn(move || {
                drop(others.lease());
                assert!(others.pack(&name(2), 99).is_err());
                assert!(others.doom(&name(2), 99));
                done.send(lock(&others.shared).packs.active(&name(1), 1 << 20).is_some())
                    .expect("the test waits");
                drop(view);
            });
            let waited = dones.recv_timeout(Duration::from_secs(10));
            assert!(waited.is_ok(), "somebody waits for the sync of another");
            end.send(()).expect("it syncs");
        }
        storing.join().expect("it was stored");
    }
}
