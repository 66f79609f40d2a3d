//! LMDB.

use std::path::Path;

use lmdb::{Database, DatabaseFlags, Environment, Transaction, WriteFlags};

use crate::Result;
use crate::engines::Engine;
use crate::rows::Row;

/// Most bytes the file may grow to.
const MAP_BYTES: usize = 16 << 30;

pub(crate) struct Lmdb {
    env: Environment,
    rows: Database,
}

impl Lmdb {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let env = Environment::new().set_map_size(MAP_BYTES).open(dir)?;
        let rows = env.create_db(None, DatabaseFlags::empty())?;
        Ok(Lmdb { env, rows })
    }
}

impl Engine for Lmdb {
    fn name(&self) -> &'static str {
        "LMDB"
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        let mut write = self.env.begin_rw_txn()?;
        for row in rows {
            write.put(self.rows, &row.key, &row.value, WriteFlags::empty())?;
        }
        Ok(write.commit()?)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let read = self.env.begin_ro_txn()?;
        match read.get(self.rows, &key) {
            Ok(value) => Ok(Some(value.len())),
            Err(lmdb::Error::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn settings(&self) -> [&'static str; 3] {
        ["fdatasync per commit", "file grows by pages", "the system's page cache"]
    }
}
