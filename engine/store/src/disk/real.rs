//! A disk on a directory of the operating system.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::disk::classify;
use crate::disk::file_name;
use crate::disk::lock::DirLock;
use crate::disk::traits::{Disk, File, FileInfo, FileKind, Ticket};
use crate::error::DiskError;
use crate::limits::{HEADER_LEN, SPARES, SPARES_KEPT};

static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// A directory on disk. A thread of its own keeps spares ready, so that a roll never waits for
/// zeros to be written unless rolls come faster than the medium.
#[derive(Debug)]
pub struct RealDisk {
    shared: Arc<Shared>,
    refill: Option<JoinHandle<()>>,
    _lock: DirLock,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    spare_bytes: u64,
    pool: Mutex<Pool>,
    changed: Condvar,
}

#[derive(Debug)]
struct Pool {
    spares: BTreeSet<u64>,
    next_number: u64,
    /// How many spares the thread should make before it rests.
    wanted: usize,
    failed: Option<DiskError>,
    stop: bool,
}

impl RealDisk {
    /// Opens the locked directory. A spare is `spare_bytes` long: the zero step of the store.
    pub fn open(lock: DirLock, spare_bytes: u64) -> Result<RealDisk, DiskError> {
        let dir = lock.dir().to_owned();
        let mut pool = Pool {
            spares: BTreeSet::new(),
            next_number: 1,
            wanted: SPARES,
            failed: None,
            stop: false,
        };
        for (number, state) in numbers(&dir)? {
            pool.next_number = pool.next_number.max(number + 1);
            if state {
                continue;
            }
            let file = RealFile::read_only(&dir, number, false)?;
            if classify::kind_of(number, &file) == FileKind::Spare {
                // A short one is a spare that was being made when the process ended.
                if file.len()? < spare_bytes.max(HEADER_LEN as u64) {
                    remove(&dir, number, false)?;
                } else {
                    pool.spares.insert(number);
                }
            }
        }
        pool.wanted = SPARES.saturating_sub(pool.spares.len());
        let shared =
            Arc::new(Shared { dir, spare_bytes, pool: Mutex::new(pool), changed: Condvar::new() });
        let worker = shared.clone();
        let refill = std::thread::Builder::new()
            .name("lastword-spares".into())
            .spawn(move || worker.refill())
            .map_err(|source| DiskError::io("create", 0, 0, source))?;
        Ok(RealDisk { shared, refill: Some(refill), _lock: lock })
    }
}

impl Drop for RealDisk {
    fn drop(&mut self) {
        self.shared.pool().stop = true;
        self.shared.changed.notify_all();
        if let Some(refill) = self.refill.take() {
            // A panic of the thread has been printed and leaves nothing to undo.
            let _ = refill.join();
        }
        // One more may have been finished since the store gave its spares back.
        let mut pool = self.shared.pool();
        while pool.spares.len() > SPARES_KEPT {
            if let Some(number) = pool.spares.pop_last() {
                // What cannot be removed is found as a spare by the next open.
                let _ = remove(&self.shared.dir, number, false);
            }
        }
    }
}

impl Shared {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refill(&self) {
        let mut pool = self.pool();
        while !pool.stop {
            if pool.wanted == 0 {
                pool = self.changed.wait(pool).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let number = pool.next_number;
            pool.next_number += 1;
            drop(pool);
            let made = self.make_spare(number);
            pool = self.pool();
            match made {
                Ok(()) => {
                    pool.spares.insert(number);
                    pool.wanted -= 1;
                    pool.failed = None;
                }
                Err(error) => {
                    // Rest until someone asks again; by then there may be space.
                    pool.wanted = 0;
                    pool.failed = Some(error);
                }
            }
            self.changed.notify_all();
        }
    }

    fn make_spare(&self, number: u64) -> Result<(), DiskError> {
        let made = RealFile::create(&self.dir, number, false)
            .and_then(|file| file.set_len(self.spare_bytes).and_then(|()| file.sync()))
            .and_then(|()| sync_dir(&self.dir));
        if made.is_err() {
            // A full disk must not keep the part that did fit.
            let _ = remove(&self.dir, number, false);
        }
        made
    }
}

impl Disk for RealDisk {
    fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
        let dir = &self.shared.dir;
        let mut files = Vec::new();
        for (number, state) in numbers(dir)? {
            let file = match RealFile::read_only(dir, number, state) {
                Ok(file) => file,
                // A spare that could not be finished was removed since the names were read.
                Err(DiskError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            // What is in the pool was read when it came in.
            let is_spare = !state && self.shared.pool().spares.contains(&number);
            let kind = match (state, is_spare) {
                (true, _) => FileKind::State,
                (false, true) => FileKind::Spare,
                (false, false) => classify::kind_of(number, &file),
            };
            // A spare that is not in the pool is still being made.
            if kind != FileKind::Spare || is_spare {
                files.push(FileInfo { number, kind, len: file.len()? });
            }
        }
        files.sort_by_key(|file| file.number);
        Ok(files)
    }

    fn take_spare(&self, keep: usize) -> Result<u64, DiskError> {
        let mut pool = self.shared.pool();
        let mut asked = false;
        let number = loop {
            if pool.spares.len() > keep
                && let Some(number) = pool.spares.pop_first()
            {
                break number;
            }
            if pool.wanted == 0 {
                if asked && pool.failed.is_some() {
                    return Err(DiskError::NoSpare { needed: self.shared.spare_bytes });
                }
                asked = true;
                pool.wanted = SPARES;
                self.shared.changed.notify_all();
            }
            pool = self.shared.changed.wait(pool).unwrap_or_else(PoisonError::into_inner);
        };
        pool.wanted = SPARES.saturating_sub(pool.spares.len());
        drop(pool);
        self.shared.changed.notify_all();
        classify::wipe_header(&RealFile::open(&self.shared.dir, number, false)?)?;
        Ok(number)
    }

    fn create_state(&self) -> Result<u64, DiskError> {
        let number = {
            let mut pool = self.shared.pool();
            pool.next_number += 1;
            pool.next_number - 1
        };
        RealFile::create(&self.shared.dir, number, true)?;
        sync_dir(&self.shared.dir)?;
        Ok(number)
    }

    fn open(&self, number: u64) -> Result<Arc<dyn File>, DiskError> {
        let state = file_name::path(&self.shared.dir, number, true).exists();
        Ok(Arc::new(RealFile::open(&self.shared.dir, number, state)?))
    }

    fn open_to_read(&self, number: u64) -> Result<Arc<dyn File>, DiskError> {
        Ok(Arc::new(RealFile::read_only(&self.shared.dir, number, false)?))
    }

    fn remove(&self, number: u64) -> Result<(), DiskError> {
        self.shared.pool().spares.remove(&number);
        let state = file_name::path(&self.shared.dir, number, true).exists();
        remove(&self.shared.dir, number, state)
    }

    fn free_bytes(&self) -> Option<u64> {
        // The standard library cannot ask; a spare that cannot be made says it in time.
        None
    }
}

/// A file of a directory.
#[derive(Debug)]
pub(super) struct RealFile {
    number: u64,
    state: bool,
    file: fs::File,
}

impl RealFile {
    fn open(dir: &Path, number: u64, state: bool) -> Result<RealFile, DiskError> {
        Self::open_as(fs::OpenOptions::new().read(true).write(true), dir, number, state)
    }

    fn open_as(
        options: &fs::OpenOptions,
        dir: &Path,
        number: u64,
        state: bool,
    ) -> Result<RealFile, DiskError> {
        match options.open(file_name::path(dir, number, state)) {
            Ok(file) => Ok(RealFile { number, state, file }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(DiskError::NotFound { file: number })
            }
            Err(error) => Err(DiskError::io("open", number, 0, error)),
        }
    }

    pub(super) fn read_only(dir: &Path, number: u64, state: bool) -> Result<RealFile, DiskError> {
        Self::open_as(fs::OpenOptions::new().read(true), dir, number, state)
    }

    fn create(dir: &Path, number: u64, state: bool) -> Result<RealFile, DiskError> {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(file_name::path(dir, number, state))
            .map(|file| RealFile { number, state, file })
            .map_err(|error| DiskError::io("create", number, 0, error))
    }
}

/// What `st_blocks` counts in, whatever the file system's own blocks are (POSIX leaves it open;
/// Linux, macOS and the BSDs use 512 bytes).
#[cfg(unix)]
const UNIX_BLOCK: u64 = 512;

impl File for RealFile {
    fn len(&self) -> Result<u64, DiskError> {
        let meta = self.file.metadata();
        Ok(meta.map_err(|error| DiskError::io("read", self.number, 0, error))?.len())
    }

    #[cfg(unix)]
    fn allocated(&self) -> Result<u64, DiskError> {
        use std::os::unix::fs::MetadataExt;
        let meta = self.file.metadata();
        let meta = meta.map_err(|error| DiskError::io("read", self.number, 0, error))?;
        Ok(meta.blocks() * UNIX_BLOCK)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        read_exact_at(&self.file, buf, offset)
            .map_err(|error| DiskError::io("read", self.number, offset, error))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        write_all_at(&self.file, buf, offset)
            .map_err(|error| DiskError::io("write", self.number, offset, error))
    }

    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        let mut at = self.len()?;
        if self.state || len <= at {
            return self
                .file
                .set_len(len)
                .map_err(|error| DiskError::io("resize", self.number, len, error));
        }
        while at < len {
            let (zeros, _) = ZEROS.split_at(ZEROS.len().min((len - at) as usize));
            self.write_at(at, zeros)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| DiskError::io("sync", self.number, 0, error))
    }

    fn start_sync(self: Arc<Self>) -> Ticket {
        Ticket::deferred(move || self.sync())
    }
}

#[cfg(unix)]
fn read_exact_at(file: &fs::File, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buf, offset)
}

#[cfg(unix)]
fn write_all_at(file: &fs::File, buf: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, buf, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &fs::File, mut buf: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buf.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buf, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => {
                buf = buf.split_at_mut(read).1;
                offset += read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(windows)]
fn write_all_at(file: &fs::File, mut buf: &[u8], mut offset: u64) -> std::io::Result<()> {
    while !buf.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, buf, offset)? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            written => {
                buf = buf.split_at(written).1;
                offset += written as u64;
            }
        }
    }
    Ok(())
}

/// The numbers of the files in a directory, and whether each is redb's.
pub(super) fn numbers(dir: &Path) -> Result<Vec<(u64, bool)>, DiskError> {
    let io = |error| DiskError::io("list", 0, 0, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        found.extend(file_name::parse(&entry.map_err(io)?.file_name().to_string_lossy()));
    }
    Ok(found)
}

fn remove(dir: &Path, number: u64, state: bool) -> Result<(), DiskError> {
    fs::remove_file(file_name::path(dir, number, state)).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => DiskError::NotFound { file: number },
        _ => DiskError::io("remove", number, 0, error),
    })
}

/// Makes new names durable; Windows does so by itself and cannot open a directory.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    if cfg!(windows) {
        return Ok(());
    }
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| DiskError::io("sync", 0, 0, error))
}
