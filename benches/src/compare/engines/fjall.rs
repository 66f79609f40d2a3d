//! fjall, with its defaults beside the cache.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::Result;
use crate::engines::{CACHE_BYTES, Engine};
use crate::rows::Row;

pub(crate) struct Fjall {
    db: Database,
    rows: Keyspace,
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let db = Database::builder(dir).cache_size(CACHE_BYTES as u64).open()?;
        let rows = db.keyspace("rows", KeyspaceCreateOptions::default)?;
        Ok(Fjall { db, rows })
    }
}

impl Engine for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for row in rows {
            batch.insert(&self.rows, row.key, row.value);
        }
        Ok(batch.commit()?)
    }

    fn in_background(&mut self) -> Result<bool> {
        Ok(self.db.outstanding_flushes() > 0
            || self.rows.sealed_memtable_count() > 0
            || self.db.active_compactions() > 0)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.rows.get(key)?.map(|value| value.len()))
    }

    fn settings(&self) -> [&'static str; 3] {
        ["SyncData per commit", "its own journal files", "2 GiB, memtable 64 MiB, LZ4"]
    }
}
