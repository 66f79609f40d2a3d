//! The engines, all behind one trait: the rows of one call are one durable transaction.

mod bare;
mod device;
mod fjall;
mod lmdb;
mod redb;
mod sqlite;
mod store;

use std::path::Path;

pub(crate) use self::bare::Bare;
pub(crate) use self::device::Device;
pub(crate) use self::fjall::Fjall;
pub(crate) use self::lmdb::Lmdb;
pub(crate) use self::redb::Redb;
pub(crate) use self::sqlite::Sqlite;
pub(crate) use self::store::{StoreEngine, decode, open_store};
use crate::Result;
use crate::rows::{Row, Rows};

/// Most memory an engine may use as its cache: more than any file here is long.
pub(crate) const CACHE_BYTES: usize = 2 << 30;
/// Rows per transaction where a database is filled.
const LOAD_ROWS: u64 = 10_000;

/// Writes a row durably, from any thread.
pub(crate) type OwnWriter = Box<dyn Fn(Row) -> Result<()> + Send + Sync>;

/// An engine with an open database.
pub(crate) trait Engine: Send {
    /// Its name in the tables.
    fn name(&self) -> &'static str;

    /// Writes the rows as one transaction and returns when they are durable.
    fn commit(&mut self, rows: &[Row]) -> Result<()>;

    /// What is left to do once whoever waited for the last commit has been answered.
    fn after_answer(&mut self) -> Result<()> {
        Ok(())
    }

    /// How it takes writes of many threads, if it groups them by itself.
    fn own_writer(&self) -> Option<OwnWriter> {
        None
    }

    /// Whether it works in the background.
    fn in_background(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// Waits until nothing goes on in the background.
    fn settle(&mut self) -> Result<()> {
        while self.in_background()? {
            // Peers have no event for it; what is measured takes thousands of times as long.
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        Ok(())
    }

    /// Length of the value of a row, if it is there.
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>>;

    /// Fills it with rows 0 to `count`.
    fn load(&mut self, count: u64) -> Result<()> {
        let mut rows = Rows::from(0);
        for from in (0..count).step_by(LOAD_ROWS as usize) {
            let take = LOAD_ROWS.min(count - from) as usize;
            self.commit(&rows.take(take))?;
            self.after_answer()?;
        }
        self.settle()
    }

    /// Frames of the log that its open had to fold.
    fn replayed_frames(&self) -> u64 {
        0
    }

    /// Sync policy, preallocation and cache, as printed beside the figures.
    fn settings(&self) -> [&'static str; 3];
}

/// Every engine that commits durably, ours first, each in a folder of its own in `dir`; SQLite also
/// in its mode that is not durable per commit.
pub(crate) fn all(dir: &Path) -> Result<Vec<Box<dyn Engine>>> {
    Ok(vec![
        Box::new(StoreEngine::open(&dir.join("store"), CACHE_BYTES)?),
        Box::new(Device::open(&dir.join("device"))?),
        Box::new(Bare::open(&dir.join("bare"))?),
        Box::new(Fjall::open(&dir.join("fjall"))?),
        Box::new(Sqlite::open(&dir.join("sqlite-full"), true)?),
        Box::new(Sqlite::open(&dir.join("sqlite-normal"), false)?),
        Box::new(Redb::open(&dir.join("redb"))?),
        Box::new(Lmdb::open(&dir.join("lmdb"))?),
    ])
}
