//! redb: one table per space, and the watermark with the sums of what the tables hold.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use redb::{
    Database, Range, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata, TableDefinition,
    TableError, WriteTransaction,
};

use lastword_core::plant::{Plant, planted};

use crate::error::StoreError;
use crate::limits::{MAX_SPACES, SCAN_ROWS};
use crate::oplog::Durable;
use crate::state::delta::{Delta, Row};
use crate::state::file::guard;
use crate::state::space::{Direction, KeyRange, Space};
use crate::state::sums::{DIGEST, SUMS_LEN, StateSums};

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
const WATERMARK: TableDefinition<'_, (), Bytes> = TableDefinition::new("watermark.v2");
const MARK_LEN: usize = 48;
/// Bytes that most rows fit in, key and value.
const ROW_BYTES: usize = 512;
/// Rows that are handed to redb together.
const CHUNK_ROWS: usize = 1024;

/// The log position redb has reached, and what proves that it is a position of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub(crate) log_id: [u8; 16],
    /// Salt of the segment the position lies in or ends.
    pub(crate) salt: [u8; 16],
    pub(crate) durable: Durable,
}

impl Watermark {
    fn encode(&self) -> [u8; MARK_LEN] {
        let mut out = [0; MARK_LEN];
        out[0..16].copy_from_slice(&self.log_id);
        out[16..32].copy_from_slice(&self.salt);
        out[32..40].copy_from_slice(&self.durable.end.to_le_bytes());
        out[40..48].copy_from_slice(&self.durable.group.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; MARK_LEN] = bytes.try_into().ok()?;
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

/// The open redb database.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    database: Arc<Guarded>,
    file: u64,
}

/// A database whose farewell may meet damage and panic, maybe while another panic unwinds. It must
/// have said it before another one opens its file.
struct Guarded(RwLock<Option<Database>>);

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guarded")
    }
}

impl Guarded {
    fn with<T>(
        &self,
        call: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(database) => call(database),
            None => Err(redb::Error::PreviousIo),
        }
    }

    fn close(&self) {
        let database = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
        // What it could not say goodbye to is checked when the file is opened again.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.close();
    }
}

/// What one checkpoint left in redb, read in one transaction that all views of it share.
pub(crate) struct Base {
    /// The tables can be read for as long as it is open.
    _database: Arc<Guarded>,
    tables: Vec<Option<ReadOnlyTable<Bytes, Bytes>>>,
    file: u64,
    /// Set when views of it have been held for too long without being read.
    expired: AtomicBool,
    /// Whether it was read since someone asked.
    was_read: AtomicBool,
    /// Set when a read met something that is not what was written.
    saw_damage: AtomicBool,
    pub(crate) watermark: Option<Watermark>,
    /// What the spaces hold, as the checkpoint counted it.
    pub(crate) sums: StateSums,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base")
            .field("file", &self.file)
            .field("watermark", &self.watermark)
            .finish()
    }
}

/// Where a walk over a delta stands.
#[derive(Debug)]
pub(crate) struct DeltaPlace {
    space: usize,
    rest: KeyRange,
}

impl DeltaPlace {
    pub(crate) fn start() -> Self {
        DeltaPlace { space: 0, rest: KeyRange::all() }
    }
}

/// One row of a dump: space, key, value.
pub(crate) type DumpedRow = (Space, Arc<[u8]>, Arc<[u8]>);

/// A transaction that fills tables in slices; nothing of it counts before `commit`.
pub(crate) struct StateWrite {
    write: WriteTransaction,
    sums: StateSums,
    file: u64,
}

impl std::fmt::Debug for StateWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateWrite").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Tables {
    pub(crate) fn new(database: Database, file: u64) -> Self {
        Tables { database: Arc::new(Guarded(RwLock::new(Some(database)))), file }
    }

    /// Closes the database; views of it read no more.
    pub(crate) fn close(&self) {
        self.database.close();
    }

    /// What redb holds now.
    pub(crate) fn base(&self) -> Result<Base, StoreError> {
        guard(self.file, || {
            let read = self.database.with(|database| Ok(database.begin_read()?))?;
            let mut tables = Vec::with_capacity(MAX_SPACES);
            for name in SPACE_NAMES {
                tables.push(present(read.open_table(TableDefinition::new(name)))?);
            }
            let mut base = Base {
                _database: self.database.clone(),
                tables,
                file: self.file,
                expired: AtomicBool::new(false),
                was_read: AtomicBool::new(false),
                saw_damage: AtomicBool::new(false),
                watermark: None,
                sums: StateSums::default(),
            };
            if let Some(table) = present(read.open_table(WATERMARK))?
                && let Some(row) = table.get(())?
            {
                let (mark, sums) = decode_mark(row.value()).ok_or_else(|| {
                    redb::Error::Corrupted("the watermark does not match its digest".into())
                })?;
                (base.watermark, base.sums) = (Some(mark), sums);
            }
            Ok(base)
        })
    }

    /// Begins a transaction on top of what the sums describe.
    pub(crate) fn begin(&self, sums: StateSums) -> Result<StateWrite, StoreError> {
        guard(self.file, || {
            let mut write = self.database.with(|database| Ok(database.begin_write()?))?;
            write.set_two_phase_commit(true);
            write.set_quick_repair(true);
            Ok(StateWrite { write, sums, file: self.file })
        })
    }

    /// Lets redb take pages back that the last checkpoint freed; they can be used one transaction
    /// later only, and an update of everything would otherwise keep three copies of each page.
    pub(crate) fn reclaim(&self) -> Result<(), StoreError> {
        guard(self.file, || {
            let mut write = self.database.with(|database| Ok(database.begin_write()?))?;
            write.set_two_phase_commit(true);
            write.set_quick_repair(true);
            Ok(write.commit()?)
        })
    }
}

impl StateWrite {
    /// Sets or removes rows of one space, in the order they come.
    pub(crate) fn rows<'a>(
        &mut self,
        space: Space,
        rows: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), StoreError> {
        let name = *SPACE_NAMES.get(space.index()).expect("invariant: spaces are below MAX_SPACES");
        let (write, sum) = (&self.write, self.sums.space(space));
        guard(self.file, || {
            let mut table = write.open_table(TableDefinition::<Bytes, Bytes>::new(name))?;
            let mut row = Vec::new();
            for (key, value) in rows {
                let old = match value {
                    None if planted(Plant::ForgetDeletes) => None,
                    None => table.remove(key)?,
                    Some(value) => {
                        let digest = digest(space, key, value);
                        sum.add(key, value.len(), digest);
                        row.clear();
                        row.extend_from_slice(value);
                        row.extend_from_slice(&digest);
                        table.insert(key, row.as_slice())?
                    }
                };
                if let Some(old) = old
                    && let Some((value, digest)) = old.value().split_last_chunk()
                {
                    sum.take(key, value.len(), *digest);
                }
            }
            Ok(())
        })
    }

    /// Sets rows of a dump.
    pub(crate) fn dumped(&mut self, rows: &[DumpedRow]) -> Result<(), StoreError> {
        for rows in rows.chunk_by(|(a, ..), (b, ..)| a == b) {
            if let Some((space, ..)) = rows.first() {
                self.rows(*space, rows.iter().map(|(_, key, value)| (&**key, Some(&**value))))?;
            }
        }
        Ok(())
    }

    /// Writes about `rows` of the newest rows of a delta from `at` on, a place in its spaces, which
    /// moves on; the delta must not change meanwhile. Returns how many it wrote and whether it has
    /// come to the end.
    pub(crate) fn delta(
        &mut self,
        delta: &Delta,
        at: &mut DeltaPlace,
        mut rows: usize,
    ) -> Result<(u64, bool), StoreError> {
        let (mut chunk, mut written) = (VecDeque::new(), 0);
        while at.space < MAX_SPACES {
            if rows == 0 {
                return Ok((written, false));
            }
            let space = Space::new(at.space as u8);
            let mut last = false;
            while !last && chunk.len() < rows.min(CHUNK_ROWS) {
                let order = (Direction::Forward, SCAN_ROWS);
                last = delta.chunk(space, &mut at.rest, order, u64::MAX, &mut chunk);
            }
            self.rows(space, chunk.iter().map(|(key, value)| (&**key, value.as_deref())))?;
            written += chunk.len() as u64;
            rows = rows.saturating_sub(chunk.len().max(1));
            chunk.clear();
            if last {
                *at = DeltaPlace { space: at.space + 1, rest: KeyRange::all() };
            }
        }
        Ok((written, true))
    }

    /// Makes the transaction count, with the position that it brings the state to, and durable.
    pub(crate) fn commit(self, watermark: &Watermark) -> Result<(), StoreError> {
        let StateWrite { write, sums, file } = self;
        guard(file, || {
            write.open_table(WATERMARK)?.insert((), encode_mark(watermark, &sums).as_slice())?;
            Ok(write.commit()?)
        })
    }
}

/// Watermark, sums, and a digest over both.
fn encode_mark(watermark: &Watermark, sums: &StateSums) -> Vec<u8> {
    let mut out = watermark.encode().to_vec();
    out.extend_from_slice(&sums.encode());
    let digest = blake3::hash(&out);
    out.extend_from_slice(&digest.as_bytes()[..DIGEST]);
    out
}

fn decode_mark(bytes: &[u8]) -> Option<(Watermark, StateSums)> {
    let (body, found) = bytes.split_last_chunk::<DIGEST>()?;
    let (mark, sums) = body.split_at_checked(MARK_LEN)?;
    let right = sums.len() == SUMS_LEN && blake3::hash(body).as_bytes()[..DIGEST] == *found;
    right.then(|| Some((Watermark::decode(mark)?, StateSums::decode(sums)?)))?
}

impl Base {
    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.check_expired()?;
        let Some(table) = self.filled(space) else { return Ok(None) };
        let row = self.guard(|| Ok(table.get(key)?.map(|row| verify(space, key, row.value()))))?;
        let row = row.transpose().map_err(|reason| self.damaged(reason))?;
        Ok(row.map(|(value, _)| value))
    }

    /// Whether no space has rows, whatever the sums say.
    pub(crate) fn is_bare(&self) -> bool {
        let rows = self.tables.iter().flatten().map(|table| self.guard(|| Ok(table.len()?)));
        rows.into_iter().all(|rows| rows.is_ok_and(|rows| rows == 0))
    }

    /// The table of a space that holds rows. Most spaces are empty most of the time, and looking
    /// through redb for that takes longer than a look at the sums.
    fn filled(&self, space: Space) -> Option<&ReadOnlyTable<Bytes, Bytes>> {
        let table = self.tables.get(space.index())?.as_ref();
        table.filter(|_| self.sums.of(space).rows != 0)
    }

    /// Whether a row is found by its key. A scan does not tell: it never looks at the keys in the
    /// branches of the tree.
    pub(crate) fn finds(&self, space: Space, key: &[u8]) -> Result<bool, StoreError> {
        let Some(Some(table)) = self.tables.get(space.index()) else { return Ok(false) };
        self.guard(|| Ok(table.get(key)?.is_some()))
    }

    /// The first key of a space that is not before `key`.
    pub(crate) fn key_from(
        &self,
        space: Space,
        key: &[u8],
    ) -> Result<Option<Arc<[u8]>>, StoreError> {
        let Some(table) = self.filled(space) else { return Ok(None) };
        self.guard(|| {
            let row = table.range::<&[u8]>(key..)?.next().transpose()?;
            Ok(row.map(|(key, _)| Arc::from(key.value())))
        })
    }

    /// Whether a read has met something that is not what was written.
    pub(crate) fn saw_damage(&self) -> bool {
        self.saw_damage.load(Ordering::Relaxed)
    }

    fn guard<T>(&self, call: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let result = guard(self.file, call);
        if matches!(result, Err(StoreError::StateDamaged { .. })) {
            self.saw_damage.store(true, Ordering::Relaxed);
        }
        result
    }

    pub(crate) fn rows(
        self: &Arc<Self>,
        space: Space,
        range: &KeyRange,
    ) -> Result<BaseRows, StoreError> {
        let rows = match self.filled(space) {
            Some(table) if !range.is_empty() => {
                Some(self.guard(|| Ok(table.range::<&[u8]>(range.bounds())?))?)
            }
            _ => None,
        };
        Ok(BaseRows { base: self.clone(), space, rows })
    }

    fn check_expired(&self) -> Result<(), StoreError> {
        if !self.was_read.load(Ordering::Relaxed) {
            self.was_read.store(true, Ordering::Relaxed);
        }
        match self.expired.load(Ordering::Relaxed) {
            true => Err(StoreError::ViewExpired),
            false => Ok(()),
        }
    }

    /// Bytes of redb that were read wrong, or rows that are missing.
    pub(crate) fn damaged(&self, reason: &str) -> StoreError {
        self.saw_damage.store(true, Ordering::Relaxed);
        StoreError::StateDamaged { file: self.file, reason: reason.to_owned() }
    }
}

/// Views whose checkpoint another one has replaced: they keep old pages of redb in its file.
#[derive(Debug)]
pub struct OldViews(Weak<Base>);

impl OldViews {
    pub(crate) fn of(base: &Arc<Base>) -> Self {
        OldViews(Arc::downgrade(base))
    }

    /// Whether anyone holds one.
    pub fn are_held(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Makes whoever reads through one from here on get [`StoreError::ViewExpired`], unless one was
    /// read since the last call: a long walk goes on. Whether they are expired.
    pub fn expire_if_idle(&self) -> bool {
        let Some(base) = self.0.upgrade() else { return true };
        if base.was_read.swap(false, Ordering::Relaxed) {
            return false;
        }
        base.expired.store(true, Ordering::Relaxed);
        true
    }
}

/// A walk over the rows of one space in redb.
pub(crate) struct BaseRows {
    base: Arc<Base>,
    space: Space,
    rows: Option<Range<'static, Bytes, Bytes>>,
}

/// A verified row: key, value, digest.
pub(crate) type Verified = (Arc<[u8]>, Arc<[u8]>, [u8; DIGEST]);

impl BaseRows {
    /// The next row.
    pub(crate) fn next(&mut self, direction: Direction) -> Result<Option<Row>, StoreError> {
        Ok(self.next_verified(direction)?.map(|(key, value, _)| (key, Some(value))))
    }

    pub(crate) fn next_verified(
        &mut self,
        direction: Direction,
    ) -> Result<Option<Verified>, StoreError> {
        self.base.check_expired()?;
        let Some(rows) = &mut self.rows else { return Ok(None) };
        let space = self.space;
        let row = self.base.guard(|| {
            let row = match direction {
                Direction::Forward => rows.next(),
                Direction::Reverse => rows.next_back(),
            };
            let Some((key, row)) = row.transpose()? else { return Ok(None) };
            let value = verify(space, key.value(), row.value());
            Ok(Some(value.map(|(value, digest)| (Arc::from(key.value()), value, digest))))
        })?;
        row.transpose().map_err(|reason| self.base.damaged(reason))
    }
}

impl std::fmt::Debug for BaseRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BaseRows").field("base", &self.base).field("space", &self.space).finish()
    }
}

/// The value of a row whose digest is right, and the digest.
fn verify(space: Space, key: &[u8], row: &[u8]) -> Result<(Arc<[u8]>, [u8; DIGEST]), &'static str> {
    let (value, found) =
        row.split_last_chunk::<DIGEST>().ok_or("a row is shorter than its digest")?;
    match *found == digest(space, key, value) || planted(Plant::IgnoreRowDigest) {
        true => Ok((Arc::from(value), *found)),
        false => Err("a row does not match its digest"),
    }
}

/// Binds a value to its place, so that a row moved elsewhere is not believed either.
pub(crate) fn digest(space: Space, key: &[u8], value: &[u8]) -> [u8; DIGEST] {
    let head = (space.number(), (key.len() as u64).to_le_bytes());
    let len = 1 + head.1.len() + key.len() + value.len();
    // Most rows fit, and a hash of one piece is faster than one of four.
    let mut row = [0; ROW_BYTES];
    let hash = match row.get_mut(..len) {
        Some(row) => {
            let (number, rest) = row.split_at_mut(1);
            let (key_len, rest) = rest.split_at_mut(head.1.len());
            let (key_bytes, value_bytes) = rest.split_at_mut(key.len());
            number.copy_from_slice(&[head.0]);
            key_len.copy_from_slice(&head.1);
            key_bytes.copy_from_slice(key);
            value_bytes.copy_from_slice(value);
            blake3::hash(row)
        }
        None => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[head.0]).update(&head.1).update(key).update(value);
            hasher.finalize()
        }
    };
    *hash.as_bytes().first_chunk().expect("invariant: a hash has 32 bytes")
}

fn present<T>(opened: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
