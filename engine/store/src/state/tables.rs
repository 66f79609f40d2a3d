//! redb: one table per space and the watermark, in a file behind a page of ours.
//!
//! The page says which log the file belongs to and counts opens that did not succeed, before redb
//! sees a byte. redb's own damage may panic it, so every call into it is guarded; whatever goes
//! wrong at open, the file is discarded and the state is folded again from the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{
    Builder, Database, Range, ReadOnlyTable, ReadableDatabase, StorageBackend, TableDefinition,
    TableError, WriteTransaction,
};

use crate::disk::{Disk, File, FileKind};
use crate::error::{DiskError, StoreError};
use crate::limits::MAX_SPACES;
use crate::oplog::Durable;
use crate::state::delta::{Delta, Row};
use crate::state::space::{Direction, KeyRange, Space};

type Bytes = &'static [u8];

const SPACE_NAMES: [&str; MAX_SPACES] = [
    "space00.v1",
    "space01.v1",
    "space02.v1",
    "space03.v1",
    "space04.v1",
    "space05.v1",
    "space06.v1",
    "space07.v1",
    "space08.v1",
    "space09.v1",
    "space10.v1",
    "space11.v1",
    "space12.v1",
    "space13.v1",
    "space14.v1",
    "space15.v1",
];
const WATERMARK: TableDefinition<'_, (), Bytes> = TableDefinition::new("watermark.v1");

const PAGE: usize = 4096;
const PAGE_MAGIC: [u8; 8] = *b"LWSTATE1";
const DIGEST: usize = 16;
/// Opens that may fail before the file is given up.
const MAX_OPENS: u8 = 2;

/// The log position redb has reached, and what proves that it is a position of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) log_id: [u8; 16],
    /// Salt of the segment the position lies in or ends.
    pub(crate) salt: [u8; 16],
    pub(crate) durable: Durable,
}

impl Watermark {
    fn encode(&self) -> [u8; 48] {
        let mut out = [0; 48];
        out[0..16].copy_from_slice(&self.log_id);
        out[16..32].copy_from_slice(&self.salt);
        out[32..40].copy_from_slice(&self.durable.end.to_le_bytes());
        out[40..48].copy_from_slice(&self.durable.group.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 48] = bytes.try_into().ok()?;
        Some(Watermark {
            log_id: bytes[0..16].try_into().ok()?,
            salt: bytes[16..32].try_into().ok()?,
            durable: Durable {
                end: u64::from_le_bytes(bytes[32..40].try_into().ok()?),
                group: u64::from_le_bytes(bytes[40..48].try_into().ok()?),
            },
        })
    }
}

/// The file redb lives in; it outlasts a database that has failed.
#[derive(Debug, Clone)]
pub(crate) struct StateFile {
    number: u64,
    file: Arc<dyn File>,
    log_id: [u8; 16],
    cache_bytes: usize,
    sync_failed: Arc<AtomicBool>,
}

/// The open redb file.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    database: Arc<Database>,
    file: u64,
}

/// What one checkpoint left in redb, read in one transaction that all views of it share.
pub(crate) struct Base {
    tables: Vec<Option<ReadOnlyTable<Bytes, Bytes>>>,
    file: u64,
    pub(crate) watermark: Option<Watermark>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base")
            .field("file", &self.file)
            .field("watermark", &self.watermark)
            .finish()
    }
}

/// Opens the state of log `log_id` if it can be trusted, else an empty one. `accept` judges the
/// watermark, and an error of its own leaves the file alone; `cache_bytes` bounds redb's cache.
/// The flag says whether the state is empty and new.
pub(crate) fn open_tables(
    disk: &dyn Disk,
    log_id: [u8; 16],
    cache_bytes: usize,
    accept: impl Fn(&Watermark) -> Result<bool, StoreError>,
) -> Result<(StateFile, Tables, Arc<Base>, bool), StoreError> {
    let mut opened = None;
    for info in disk.list()?.into_iter().filter(|info| info.kind == FileKind::State) {
        let file = StateFile::new(disk, info.number, log_id, cache_bytes)?;
        if opened.is_none()
            && let Ok(Some((tables, base))) = file.reopen()
            && base.watermark.as_ref().map_or(Ok(true), &accept)?
        {
            opened = Some((file, tables, Arc::new(base), false));
            continue;
        }
        disk.remove(info.number)?;
    }
    if let Some(opened) = opened {
        return Ok(opened);
    }
    let file = StateFile::new(disk, disk.create_state()?, log_id, cache_bytes)?;
    file.mark(0)?;
    let (tables, base) = file.open()?;
    Ok((file, tables, Arc::new(base), true))
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

    /// Writes how many opens have not succeeded.
    fn mark(&self, opens: u8) -> Result<(), DiskError> {
        self.file.write_at(0, &page(self.log_id, opens))?;
        self.file.sync()
    }

    /// Opens redb in the file, or makes it.
    pub(crate) fn open(&self) -> Result<(Tables, Base), StoreError> {
        let database = guard(self.number, || {
            let behind = Behind { file: self.file.clone(), sync_failed: self.sync_failed.clone() };
            let mut builder = Builder::new();
            builder.set_cache_size(self.cache_bytes);
            Ok(builder.create_with_backend(behind)?)
        })?;
        let tables = Tables { database: Arc::new(database), file: self.number };
        let base = tables.base()?;
        Ok((tables, base))
    }

    /// Opens redb again after a failure; its old database must be gone. If a sync had failed, pages
    /// may read well now and be lost later, so the next open of the store is told to give up.
    pub(crate) fn recover(&self) -> Result<(Tables, Base), StoreError> {
        if self.sync_failed.load(Ordering::Acquire) {
            self.mark(MAX_OPENS)?;
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

impl Tables {
    /// What redb holds now.
    pub(crate) fn base(&self) -> Result<Base, StoreError> {
        guard(self.file, || {
            let read = self.database.begin_read()?;
            let mut tables = Vec::with_capacity(MAX_SPACES);
            for name in SPACE_NAMES {
                tables.push(present(read.open_table(TableDefinition::new(name)))?);
            }
            let watermark = match present(read.open_table(WATERMARK))? {
                None => None,
                Some(table) => match table.get(())? {
                    None => None,
                    Some(row) => Some(Watermark::decode(row.value()).ok_or(
                        redb::Error::Corrupted("the watermark has another length".into()),
                    )?),
                },
            };
            Ok(Base { tables, file: self.file, watermark })
        })
    }

    /// Writes the newest rows of a frozen delta and the watermark in one sorted transaction.
    pub(crate) fn write(&self, delta: &Delta, watermark: &Watermark) -> Result<(), StoreError> {
        guard(self.file, || {
            let mut write = self.database.begin_write()?;
            write.set_two_phase_commit(true);
            write.set_quick_repair(true);
            for (index, name) in SPACE_NAMES.iter().enumerate() {
                write_space(&write, name, Space::new(index as u8), delta)?;
            }
            write.open_table(WATERMARK)?.insert((), watermark.encode().as_slice())?;
            Ok(write.commit()?)
        })
    }
}

fn write_space(
    write: &WriteTransaction,
    name: &str,
    space: Space,
    delta: &Delta,
) -> Result<(), redb::Error> {
    let mut table = write.open_table(TableDefinition::<Bytes, Bytes>::new(name))?;
    let mut row = Vec::new();
    delta.for_each_newest(space, |key, value| {
        match value {
            None => drop(table.remove(key)?),
            Some(value) => {
                row.clear();
                row.extend_from_slice(value);
                row.extend_from_slice(&digest(space, key, value));
                table.insert(key, row.as_slice())?;
            }
        }
        Ok(())
    })
}

impl Base {
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        let Some(Some(table)) = self.tables.get(space.index()) else { return Ok(None) };
        guard(self.file, || Ok(table.get(key)?.map(|row| verify(space, key, row.value()))))?
            .transpose()
            .map_err(|reason| self.damaged(reason))
    }

    pub(crate) fn rows(
        self: &Arc<Self>,
        space: Space,
        range: &KeyRange,
    ) -> Result<BaseRows, StoreError> {
        let rows = match self.tables.get(space.index()) {
            Some(Some(table)) if !range.is_empty() => {
                Some(guard(self.file, || Ok(table.range::<&[u8]>(range.bounds())?))?)
            }
            _ => None,
        };
        Ok(BaseRows { base: self.clone(), space, rows })
    }

    fn damaged(&self, reason: &str) -> StoreError {
        StoreError::StateDamaged { file: self.file, reason: reason.to_owned() }
    }
}

/// A walk over the rows of one space in redb.
pub(crate) struct BaseRows {
    base: Arc<Base>,
    space: Space,
    rows: Option<Range<'static, Bytes, Bytes>>,
}

impl BaseRows {
    /// The next row, verified.
    pub(crate) fn next(&mut self, direction: Direction) -> Result<Option<Row>, StoreError> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        let space = self.space;
        let row = guard(self.base.file, || {
            let row = match direction {
                Direction::Forward => rows.next(),
                Direction::Reverse => rows.next_back(),
            };
            let Some((key, row)) = row.transpose()? else { return Ok(None) };
            let value = verify(space, key.value(), row.value());
            Ok(Some(value.map(|value| (Arc::from(key.value()), Some(value)))))
        })?;
        row.transpose().map_err(|reason| self.base.damaged(reason))
    }
}

impl std::fmt::Debug for BaseRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseRows").field("base", &self.base).field("space", &self.space).finish()
    }
}

/// The value of a row whose digest is right.
fn verify(space: Space, key: &[u8], row: &[u8]) -> Result<Arc<[u8]>, &'static str> {
    let at = row.len().checked_sub(DIGEST).ok_or("a row is shorter than its digest")?;
    let (value, found) = row.split_at(at);
    match found == digest(space, key, value) {
        true => Ok(Arc::from(value)),
        false => Err("a row does not match its digest"),
    }
}

/// Binds a value to its place, so that a row moved elsewhere is not believed either.
fn digest(space: Space, key: &[u8], value: &[u8]) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[space.number()]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut out = [0; DIGEST];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..DIGEST]);
    out
}

fn present<T>(opened: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Runs a call into redb; its errors and panics become one typed error.
fn guard<T>(file: u64, call: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    let reason = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error @ (redb::Error::Io(_) | redb::Error::PreviousIo))) => {
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
        let synced = self.file.sync();
        self.sync_failed.fetch_or(synced.is_err(), Ordering::AcqRel);
        synced.map_err(io)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.file.write_at(offset.saturating_add(PAGE as u64), data).map_err(io)
    }
}

fn io(error: DiskError) -> std::io::Error {
    std::io::Error::other(error)
}
