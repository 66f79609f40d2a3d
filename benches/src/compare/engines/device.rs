//! `lastword::Database`: records of an undeclared table, with outbox, history and conflict state.

use std::path::Path;

use lastword::core::id::{Key, TableName};
use lastword::core::limits::MAX_BATCH_OPS;
use lastword::core::value::{Record, Value};
use lastword::{Database, Workspace};

use crate::Result;
use crate::engines::{Engine, OwnWriter};
use crate::rows::Row;

/// The thread of a checkpoint, as the kernel cuts its name.
const CHECKPOINT_THREAD: &str = "lastword checkp";
/// Batches that one call submits before it waits; more threads would only wait for each other.
const AT_ONCE: usize = 2;

pub(crate) struct Device {
    db: Database,
    ws: Workspace,
    table: TableName,
}

impl Device {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let db = Database::builder().max_undecided(u64::MAX).open(dir)?;
        let ws = db.workspace("main")?;
        Ok(Device { db, ws, table: TableName::new("rows")? })
    }

    /// Closes it cleanly.
    pub(crate) fn close(self) -> Result<()> {
        Ok(self.db.close()?)
    }
}

fn write(ws: &Workspace, table: &TableName, rows: &[Row]) -> Result<()> {
    let records = rows.iter().map(|row| {
        let body = Value::Text(row.value.to_owned());
        Ok((Key::new(row.key_text())?, Record::new(&[("body".to_owned(), body)])?))
    });
    let records = records.collect::<Result<Vec<_>>>()?;
    ws.write(|tx| {
        records.iter().try_for_each(|(key, record)| tx.put_record(table, key, record.clone()))
    })?;
    Ok(())
}

impl Engine for Device {
    fn name(&self) -> &'static str {
        "device"
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        let batches: Vec<&[Row]> = rows.chunks(MAX_BATCH_OPS).collect();
        for batches in batches.chunks(AT_ONCE) {
            let [first, others @ ..] = batches else { continue };
            let (ws, table) = (&self.ws, &self.table);
            std::thread::scope(|scope| {
                let write = |batch| move || write(ws, table, batch);
                let others: Vec<_> = others.iter().map(|batch| scope.spawn(write(batch))).collect();
                let mine = write(first)();
                let joined = others.into_iter().map(|other| match other.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                });
                joined.fold(mine, Result::and)
            })?;
        }
        Ok(())
    }

    fn own_writer(&self) -> Option<OwnWriter> {
        let (ws, table) = (self.ws.clone(), self.table.clone());
        Some(Box::new(move |row| write(&ws, &table, &[row])))
    }

    /// The database does not say; its thread tells.
    fn in_background(&mut self) -> Result<bool> {
        let mut threads = std::fs::read_dir("/proc/self/task")?.flatten();
        Ok(threads.any(|thread| {
            let name = std::fs::read_to_string(thread.path().join("comm"));
            name.is_ok_and(|name| name.trim_end() == CHECKPOINT_THREAD)
        }))
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let shown = self.ws.get_record(&self.table, &Key::new(std::str::from_utf8(key)?)?)?;
        let body = shown.and_then(|shown| shown.record.field("body").map(|body| body.value.len()));
        Ok(body)
    }

    fn replayed_frames(&self) -> u64 {
        self.db.open_report().replayed_frames
    }

    fn settings(&self) -> [&'static str; 3] {
        [
            "fdatasync per group",
            "zeros written ahead in steps of 1 MiB, segments of 8 MiB",
            "redb 64 MiB, delta 32 MiB",
        ]
    }
}
