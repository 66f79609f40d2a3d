//! The file redb lives in, behind a page of ours.
//!
//! The page says which log the file belongs to and counts opens that did not succeed, before redb
//! sees a byte. redb's own damage may panic it, so every call into it is guarded; whatever goes
//! wrong at open, the file is discarded and the state is folded again from the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::{Builder, StorageBackend};

use crate::disk::{Disk, File, FileKind, Overlay};
use crate::error::{DiskError, StoreError};
use crate::state::tables::{Base, Tables, Watermark};

const PAGE: usize = 4096;
const PAGE_MAGIC: [u8; 8] = *b"LWSTATE2";
/// Opens that may fail before the file is given up.
const MAX_OPENS: u8 = 2;
/// Bytes that redb may write before they are synced on the way. A sync of hundreds of megabytes at
/// the end of a checkpoint would hold up the syncs of the log on the same medium.
const SYNC_BYTES: u64 = 1024 * 1024;

/// The file redb lives in; it outlasts a database that has failed.
#[derive(Debug, Clone)]
pub(crate) struct StateFile {
    number: u64,
    file: Arc<dyn File>,
    log_id: [u8; 16],
    cache_bytes: usize,
    sync_failed: Arc<AtomicBool>,
}

/// A state that was opened, or made.
pub(crate) struct OpenState {
    pub(crate) file: StateFile,
    pub(crate) tables: Tables,
    pub(crate) base: Arc<Base>,
    /// Whether it is empty and new.
    pub(crate) fresh: bool,
}

impl std::fmt::Debug for OpenState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenState").field("file", &self.file).field("base", &self.base).finish()
    }
}

/// Opens the state of log `log_id` if it can be trusted, else an empty one. `accept` judges the
/// watermark, and an error of its own leaves the file alone; `cache_bytes` bounds redb's cache.
pub(crate) fn open_state(
    disk: &dyn Disk,
    log_id: [u8; 16],
    cache_bytes: usize,
    accept: impl Fn(&Watermark) -> Result<bool, StoreError>,
) -> Result<OpenState, StoreError> {
    let mut opened = None;
    for info in disk.list()?.into_iter().filter(|info| info.kind == FileKind::State) {
        let file = StateFile::new(disk, info.number, log_id, cache_bytes)?;
        // A file without watermark is empty, since what fills it is one transaction; if it is not,
        // a flipped bit hides the watermark.
        if opened.is_none()
            && let Ok(Some((tables, base))) = file.reopen()
            && base.watermark.as_ref().map_or(Ok(base.is_bare()), &accept)?
        {
            opened = Some(OpenState { file, tables, base: Arc::new(base), fresh: false });
            continue;
        }
        disk.remove(info.number)?;
    }
    match opened {
        Some(opened) => Ok(opened),
        None => create_state(disk, log_id, cache_bytes),
    }
}

/// Opens a state without changing its file; `None` if it is not of this log or was given up.
pub(crate) fn peek_state(
    disk: &dyn Disk,
    number: u64,
    log_id: [u8; 16],
    cache_bytes: usize,
) -> Result<Option<OpenState>, StoreError> {
    let file = Arc::new(Overlay::new(disk.open(number)?)?);
    let file = StateFile { number, file, log_id, cache_bytes, sync_failed: Arc::default() };
    let opened = file.reopen()?;
    Ok(opened.map(|(tables, base)| OpenState { file, tables, base: Arc::new(base), fresh: false }))
}

/// Makes an empty state of log `log_id`.
pub(crate) fn create_state(
    disk: &dyn Disk,
    log_id: [u8; 16],
    cache_bytes: usize,
) -> Result<OpenState, StoreError> {
    let number = disk.create_state()?;
    let made = StateFile::new(disk, number, log_id, cache_bytes).map_err(StoreError::from);
    let opened = made.and_then(|file| {
        file.mark(0)?;
        let (tables, base) = file.open()?;
        Ok(OpenState { file, tables, base: Arc::new(base), fresh: true })
    });
    if opened.is_err() {
        // What cannot be removed is an unfinished state, which the next open removes.
        let _ = disk.remove(number);
    }
    opened
}

impl StateFile {
    fn new(
        disk: &dyn Disk,
        number: u64,
        log_id: [u8; 16],
        cache_bytes: usize,
    ) -> Result<Self, DiskError> {
        let file = disk.open(number)?;
        Ok(StateFile { number, file, log_id, cache_bytes, sync_failed: Arc::default() })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Bytes it takes on the disk. Its length may be twice as much: redb doubles it, which leaves a
    /// hole.
    pub(crate) fn allocated(&self) -> Result<u64, DiskError> {
        self.file.allocated()
    }

    /// `Ok(None)` if the file is not this log's or has failed too often.
    fn reopen(&self) -> Result<Option<(Tables, Base)>, StoreError> {
        let mut found = [0; PAGE];
        self.file.read_at(0, &mut found)?;
        let Some(opens) = (0..MAX_OPENS).find(|opens| found == page(self.log_id, *opens)) else {
            return Ok(None);
        };
        self.mark(opens + 1)?;
        let opened = self.open()?;
        self.mark(0)?;
        Ok(Some(opened))
    }

    /// Tells the next open of the store to fold the state anew.
    pub(crate) fn give_up(&self) -> Result<(), DiskError> {
        self.mark(MAX_OPENS)
    }

    /// Writes how many opens have not succeeded.
    fn mark(&self, opens: u8) -> Result<(), DiskError> {
        self.file.write_at(0, &page(self.log_id, opens))?;
        self.file.sync()
    }

    /// Opens redb in the file, or makes it.
    fn open(&self) -> Result<(Tables, Base), StoreError> {
        let database = guard(self.number, || {
            let behind = Behind {
                file: self.file.clone(),
                sync_failed: self.sync_failed.clone(),
                unsynced: AtomicU64::new(0),
            };
            let mut builder = Builder::new();
            builder.set_cache_size(self.cache_bytes);
            Ok(builder.create_with_backend(behind)?)
        })?;
        let tables = Tables::new(database, self.number);
        let base = tables.base()?;
        Ok((tables, base))
    }

    /// Opens redb again after a failure; its old database must be gone. If a sync had failed, pages
    /// may read well now and be lost later, so the next open of the store is told to give up.
    pub(crate) fn recover(&self) -> Result<(Tables, Base), StoreError> {
        if self.sync_failed.load(Ordering::Acquire) {
            self.give_up()?;
        }
        self.open()
    }
}

fn page(log_id: [u8; 16], opens: u8) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page[0..8].copy_from_slice(&PAGE_MAGIC);
    page[8..24].copy_from_slice(&log_id);
    page[24] = opens;
    let digest = blake3::hash(&page[..32]);
    page[32..64].copy_from_slice(digest.as_bytes());
    page
}

/// Runs a call into redb; its errors and panics become one typed error.
pub(crate) fn guard<T>(
    file: u64,
    call: impl FnOnce() -> Result<T, redb::Error>,
) -> Result<T, StoreError> {
    let reason = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(
            error @ (redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed),
        )) => {
            return Err(StoreError::StateUnavailable { file, reason: error.to_string() });
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "redb gave up on its content".to_owned(),
    };
    Err(StoreError::StateDamaged { file, reason })
}

/// redb's storage: the file behind our page.
#[derive(Debug)]
struct Behind {
    file: Arc<dyn File>,
    sync_failed: Arc<AtomicBool>,
    /// Bytes written since the last sync.
    unsynced: AtomicU64,
}

impl Behind {
    fn sync(&self) -> Result<(), std::io::Error> {
        self.unsynced.store(0, Ordering::Relaxed);
        let synced = self.file.sync();
        self.sync_failed.fetch_or(synced.is_err(), Ordering::AcqRel);
        synced.map_err(io)
    }
}

impl StorageBackend for Behind {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.file.len().map_err(io)?.saturating_sub(PAGE as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read_at(offset.saturating_add(PAGE as u64), out).map_err(io)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.file.set_len(len.saturating_add(PAGE as u64)).map_err(io)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.file.write_at(offset.saturating_add(PAGE as u64), data).map_err(io)?;
        let unsynced = self.unsynced.fetch_add(data.len() as u64, Ordering::Relaxed);
        if unsynced + data.len() as u64 >= SYNC_BYTES { self.sync() } else { Ok(()) }
    }
}

fn io(error: DiskError) -> std::io::Error {
    std::io::Error::other(error)
}
