//! A disk in memory that can fail and lose power, for tests, demos and simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::classify;
use crate::disk::image::Image;
use crate::disk::traits::{Disk, File, FileInfo, FileKind};
use crate::error::DiskError;
use crate::limits::SPARES;

const SECTOR: usize = 512;

/// What happens at the operation a fault is set for. Operations are writes, syncs, changes of
/// length, and the making and removing of files, counted from 0; reads are counted by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Only this operation fails; it has no effect. After a failed sync the writes it should have
    /// covered read well and are lost to later syncs, as Linux has it.
    Once,
    /// This and every later operation fails, as if the power were cut before it.
    PowerCut,
    /// If this operation is a write, it is reported done and never reaches the file.
    Lost,
    /// If this operation is a write, it lands this many bytes further on in the same file.
    Misdirected(u64),
}

/// What happens at the read a fault is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// The medium cannot read it.
    Fails,
    /// The file is reported to end inside it.
    Short,
    /// This bit of what is read, counted from its start, is flipped; on the medium it is right.
    Flipped(usize),
}

/// What becomes of unsynced writes when the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// None reaches the medium.
    Dropped,
    /// All reach the medium.
    Kept,
    /// Each sector of each write is kept or lost, decided by this seed.
    Torn(u64),
}

/// The in-memory [`Disk`]. Clones share their files.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    files: Arc<Mutex<Files>>,
    faults: Arc<Mutex<Faults>>,
    spare_bytes: u64,
}

#[derive(Debug, Default)]
struct Files {
    by_number: BTreeMap<u64, Arc<MemoryFile>>,
    next_number: u64,
    spares_left: Option<usize>,
    /// Made ahead while the room is limited.
    spares: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Faults {
    operations: u64,
    fault: Option<(u64, Fault)>,
    reads: u64,
    read_fault: Option<(u64, ReadFault)>,
    /// Bytes that files may still grow by.
    room: Option<u64>,
}

#[derive(Debug)]
struct MemoryFile {
    number: u64,
    state: bool,
    faults: Arc<Mutex<Faults>>,
    content: Mutex<Content>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    current: Image,
    durable: Image,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl MemoryDisk {
    /// An empty disk whose spares are `spare_bytes` long.
    pub fn new(spare_bytes: u64) -> Self {
        let files = Files { next_number: 1, ..Files::default() };
        MemoryDisk { files: Arc::new(Mutex::new(files)), faults: Arc::default(), spare_bytes }
    }

    /// Operations done so far; the number a fault for the next one needs.
    pub fn operations(&self) -> u64 {
        lock(&self.faults).operations
    }

    /// Sets the fault at operation `at`, or takes the present one away.
    pub fn set_fault(&self, fault: Option<(u64, Fault)>) {
        lock(&self.faults).fault = fault;
    }

    /// Reads done so far; the number a fault for the next one needs.
    pub fn reads(&self) -> u64 {
        lock(&self.faults).reads
    }

    /// Sets the fault at read `at`, or takes the present one away.
    pub fn set_read_fault(&self, fault: Option<(u64, ReadFault)>) {
        lock(&self.faults).read_fault = fault;
    }

    /// Flips one bit of a file, on the medium too.
    pub fn flip(&self, number: u64, bit: usize) {
        if let Some(file) = lock(&self.files).by_number.get(&number) {
            let Content { current, durable, .. } = &mut *lock(&file.content);
            [current, durable].into_iter().for_each(|image| image.flip(bit));
        }
    }

    /// Limits how many bytes all files together may still grow by, `None` for no limit. The spares
    /// that a disk keeps ready are made first.
    pub fn set_room(&self, bytes: Option<u64>) {
        lock(&self.faults).room = None;
        if bytes.is_some() {
            self.refill();
        }
        lock(&self.faults).room = bytes;
    }

    /// Makes spares up to the number that a disk keeps ready, as long as there is room.
    fn refill(&self) {
        while lock(&self.files).spares.len() < SPARES {
            if lock(&self.faults).grow("create", 0, self.spare_bytes).is_err() {
                break;
            }
            let number = self.create(false, self.spare_bytes as usize);
            lock(&self.files).spares.insert(number);
        }
    }

    /// Limits how many more spares can be made, `None` for no limit.
    pub fn set_spares_left(&self, spares: Option<usize>) {
        lock(&self.files).spares_left = spares;
    }

    /// What the medium holds after a power cut now, as a disk of its own without faults.
    pub fn after_power_cut(&self, survival: Survival) -> MemoryDisk {
        let disk = MemoryDisk::new(self.spare_bytes);
        let mut random = match survival {
            Survival::Torn(seed) => seed | 1,
            _ => 1,
        };
        let files = lock(&self.files);
        let mut copies = lock(&disk.files);
        copies.next_number = files.next_number;
        for (number, file) in &files.by_number {
            let durable = lock(&file.content).survivor(survival, &mut random);
            let content = Content { current: durable.clone(), durable, unsynced: Vec::new() };
            let copy = MemoryFile {
                number: *number,
                state: file.state,
                faults: disk.faults.clone(),
                content: Mutex::new(content),
            };
            copies.by_number.insert(*number, Arc::new(copy));
        }
        drop(copies);
        disk
    }

    /// The bytes of a file as a reader sees them now.
    pub fn bytes(&self, number: u64) -> Option<Vec<u8>> {
        let file = lock(&self.files).by_number.get(&number)?.clone();
        let bytes = lock(&file.content).current.to_vec();
        Some(bytes)
    }

    /// Replaces the durable bytes of a file: damage, a cut tail, an old copy.
    pub fn replace(&self, number: u64, bytes: Vec<u8>) {
        if let Some(file) = lock(&self.files).by_number.get(&number) {
            let mut durable = Image::default();
            durable.write(0, &bytes);
            let content = Content { current: durable.clone(), durable, unsynced: Vec::new() };
            *lock(&file.content) = content;
        }
    }

    fn create(&self, state: bool, zeros: usize) -> u64 {
        let mut files = lock(&self.files);
        let number = files.next_number;
        files.next_number += 1;
        let durable = Image::zeros(zeros);
        let content = Content { current: durable.clone(), durable, unsynced: Vec::new() };
        let faults = self.faults.clone();
        let file = MemoryFile { number, state, faults, content: Mutex::new(content) };
        files.by_number.insert(number, Arc::new(file));
        number
    }

    fn file(&self, number: u64) -> Result<Arc<MemoryFile>, DiskError> {
        let file = lock(&self.files).by_number.get(&number).cloned();
        file.ok_or(DiskError::NotFound { file: number })
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
        let files: Vec<_> = lock(&self.files).by_number.values().cloned().collect();
        let info = |file: Arc<MemoryFile>| {
            let kind = match file.state {
                true => FileKind::State,
                false => classify::kind_of(file.number, &*file),
            };
            Ok(FileInfo { number: file.number, kind, len: file.len()? })
        };
        files.into_iter().map(info).collect()
    }

    fn take_spare(&self, keep: usize) -> Result<u64, DiskError> {
        lock(&self.faults).operate("create", 0, 0)?;
        let none = DiskError::NoSpare { needed: self.spare_bytes };
        if lock(&self.faults).room.is_some() {
            self.refill();
            let mut files = lock(&self.files);
            let taken = if files.spares.len() > keep { files.spares.pop_first() } else { None };
            drop(files);
            self.refill();
            return taken.ok_or(none);
        }
        let mut files = lock(&self.files);
        match &mut files.spares_left {
            Some(left) if *left <= keep => return Err(none),
            Some(left) => *left -= 1,
            None => {}
        }
        if let Some(number) = files.spares.pop_first() {
            return Ok(number);
        }
        drop(files);
        Ok(self.create(false, self.spare_bytes as usize))
    }

    fn create_state(&self) -> Result<u64, DiskError> {
        lock(&self.faults).operate("create", 0, 0)?;
        Ok(self.create(true, 0))
    }

    fn open(&self, number: u64) -> Result<Arc<dyn File>, DiskError> {
        Ok(self.file(number)?)
    }

    fn remove(&self, number: u64) -> Result<(), DiskError> {
        lock(&self.faults).operate("remove", number, 0)?;
        let mut files = lock(&self.files);
        files.spares.remove(&number);
        let gone = files.by_number.remove(&number).ok_or(DiskError::NotFound { file: number })?;
        lock(&self.faults).shrink(lock(&gone.content).current.len() as u64);
        Ok(())
    }

    fn free_bytes(&self) -> Option<u64> {
        lock(&self.faults).room
    }
}

impl Faults {
    /// Takes room for bytes that a file grows by.
    fn grow(&mut self, action: &'static str, file: u64, bytes: u64) -> Result<(), DiskError> {
        match &mut self.room {
            None => Ok(()),
            Some(room) => match room.checked_sub(bytes) {
                Some(left) => {
                    *room = left;
                    Ok(())
                }
                None => {
                    let full = io::Error::from(io::ErrorKind::StorageFull);
                    Err(DiskError::io(action, file, 0, full))
                }
            },
        }
    }

    fn shrink(&mut self, bytes: u64) {
        if let Some(room) = &mut self.room {
            *room += bytes;
        }
    }

    /// Whether this write goes astray; to be asked before `operate` counts it.
    fn astray(&self) -> Option<Fault> {
        let (at, fault) = self.fault?;
        let astray = matches!(fault, Fault::Lost | Fault::Misdirected(_));
        (astray && at == self.operations).then_some(fault)
    }

    fn power_is_cut(&self) -> bool {
        matches!(self.fault, Some((at, Fault::PowerCut)) if self.operations > at)
    }

    /// Counts an operation and fails it if a fault is set for it.
    fn operate(&mut self, action: &'static str, file: u64, offset: u64) -> Result<(), DiskError> {
        let now = self.operations;
        self.operations += 1;
        let fails = match self.fault {
            Some((at, Fault::Once)) => now == at,
            Some((at, Fault::PowerCut)) => now >= at,
            _ => false,
        };
        match fails {
            true => Err(DiskError::io(action, file, offset, io::Error::other("fault"))),
            false => Ok(()),
        }
    }
}

impl File for MemoryFile {
    fn len(&self) -> Result<u64, DiskError> {
        Ok(lock(&self.content).current.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let fault = {
            let mut faults = lock(&self.faults);
            let now = faults.reads;
            faults.reads += 1;
            faults.read_fault.filter(|(at, _)| *at == now).map(|(_, fault)| fault)
        };
        let failed = |kind| Err(DiskError::io("read", self.number, offset, io::Error::from(kind)));
        match fault {
            Some(ReadFault::Fails) => return failed(io::ErrorKind::Other),
            Some(ReadFault::Short) => return failed(io::ErrorKind::UnexpectedEof),
            Some(ReadFault::Flipped(_)) | None => {}
        }
        if !lock(&self.content).current.read(offset, buf) {
            return failed(io::ErrorKind::UnexpectedEof);
        }
        if let Some(ReadFault::Flipped(bit)) = fault
            && let Some(byte) = buf.get_mut(bit / 8)
        {
            *byte ^= 1 << (bit % 8);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        let mut faults = lock(&self.faults);
        let astray = faults.astray();
        faults.operate("write", self.number, offset)?;
        let mut content = lock(&self.content);
        let end = offset + buf.len() as u64;
        let grows = end.saturating_sub(content.current.len() as u64);
        faults.grow("write", self.number, grows)?;
        let to = match astray {
            Some(Fault::Misdirected(by)) => offset + by,
            Some(_) => return Ok(()),
            None => offset,
        };
        content.change(Change::Write { offset: to as usize, bytes: buf.to_vec() });
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        let mut faults = lock(&self.faults);
        faults.operate("resize", self.number, len)?;
        let mut content = lock(&self.content);
        let before = content.current.len() as u64;
        faults.grow("resize", self.number, len.saturating_sub(before))?;
        faults.shrink(before.saturating_sub(len));
        content.change(Change::SetLen(len as usize));
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        let operated = lock(&self.faults).operate("sync", self.number, 0);
        let mut content = lock(&self.content);
        let Content { current, durable, unsynced } = &mut *content;
        if let Err(error) = operated {
            if !lock(&self.faults).power_is_cut() {
                unsynced.clear();
            }
            return Err(error);
        }
        for change in unsynced.drain(..) {
            match change {
                // All that came to these bytes since is unsynced too, and follows.
                Change::Write { offset, bytes } => durable.write_as(current, offset, &bytes),
                Change::SetLen(len) => durable.resize(len),
            }
        }
        Ok(())
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.unsynced.push(change);
    }

    fn survivor(&self, survival: Survival, random: &mut u64) -> Image {
        match survival {
            Survival::Dropped => self.durable.clone(),
            Survival::Kept => self.current.clone(),
            Survival::Torn(_) => {
                let mut image = self.durable.clone();
                for change in &self.unsynced {
                    change.tear(&mut image, random);
                }
                image
            }
        }
    }
}

impl Change {
    fn apply(&self, image: &mut Image) {
        match self {
            Change::Write { offset, bytes } => image.write(*offset, bytes),
            Change::SetLen(len) => image.resize(*len),
        }
    }

    fn tear(&self, image: &mut Image, random: &mut u64) {
        match self {
            Change::Write { offset, bytes } => {
                // Sectors are those of the medium, so the first piece may be shorter.
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(at + SECTOR - (offset + at) % SECTOR);
                    if coin(random) {
                        image.write(offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
            Change::SetLen(len) if coin(random) => image.resize(*len),
            Change::SetLen(_) => {}
        }
    }
}

/// One bit of a xorshift generator.
fn coin(random: &mut u64) -> bool {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random >> 40 & 1 == 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
