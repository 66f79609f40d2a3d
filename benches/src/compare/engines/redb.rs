//! redb alone.

use std::path::Path;

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use crate::Result;
use crate::engines::{CACHE_BYTES, Engine};
use crate::rows::Row;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

pub(crate) struct Redb {
    db: Database,
    /// What reads see, until the next commit; opened once, not for each read.
    table: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl Redb {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        Ok(Redb { db: builder.create(dir.join("rows.redb"))?, table: None })
    }

    /// Sets rows in one transaction.
    pub(crate) fn put<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        durability: Durability,
    ) -> Result<()> {
        let mut write = self.db.begin_write()?;
        write.set_durability(durability)?;
        {
            let mut table = write.open_table(ROWS)?;
            for (key, value) in rows {
                table.insert(key, value)?;
            }
        }
        Ok(write.commit()?)
    }
}

impl Engine for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        self.table = None;
        let rows = rows.iter().map(|row| (&row.key[..], row.value.as_bytes()));
        self.put(rows, Durability::Immediate)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let table = match &mut self.table {
            Some(table) => table,
            none => none.insert(self.db.begin_read()?.open_table(ROWS)?),
        };
        Ok(table.get(key)?.map(|value| value.value().len()))
    }

    fn settings(&self) -> [&'static str; 3] {
        ["Immediate per commit", "file grows by doubling", "2 GiB"]
    }
}
