//! SQLite with a write-ahead log.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::Result;
use crate::engines::Engine;
use crate::rows::Row;

pub(crate) struct Sqlite {
    db: Connection,
    is_full: bool,
}

impl Sqlite {
    /// `is_full`: the log is synced with every commit, not only before it is copied.
    pub(crate) fn open(dir: &Path, is_full: bool) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let db = Connection::open(dir.join("rows.sqlite"))?;
        let synchronous = if is_full { "FULL" } else { "NORMAL" };
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
             PRAGMA cache_size = -2097152; PRAGMA mmap_size = 2147483648;
             CREATE TABLE rows (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
        ))?;
        Ok(Sqlite { db, is_full })
    }
}

impl Engine for Sqlite {
    fn name(&self) -> &'static str {
        if self.is_full { "SQLite FULL" } else { "SQLite NORMAL *" }
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        let write = self.db.transaction()?;
        {
            let mut put = write.prepare_cached("INSERT OR REPLACE INTO rows VALUES (?1, ?2)")?;
            for row in rows {
                put.execute((row.key_text(), row.value))?;
            }
        }
        Ok(write.commit()?)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let mut get = self.db.prepare_cached("SELECT value FROM rows WHERE key = ?1")?;
        let key = std::str::from_utf8(key)?;
        let len = get.query_row([key], |row| Ok(row.get_ref(0)?.as_str().map(str::len)));
        Ok(len.optional()?.transpose()?)
    }

    fn settings(&self) -> [&'static str; 3] {
        match self.is_full {
            true => ["WAL, synchronous FULL", "log reused after 1,000 pages", "2 GiB"],
            false => ["WAL, NORMAL: a commit may be lost", "log reused after 1,000 pages", "2 GiB"],
        }
    }
}
