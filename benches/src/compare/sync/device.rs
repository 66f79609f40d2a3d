//! A device of Lastword that does what it is told; the peers' devices (`peers-js`) obey the same
//! commands.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lastword::core::id::{Key, TableName};
use lastword::core::json;
use lastword::core::limits::MAX_BATCH_OPS;
use lastword::core::value::{Record, Value as Field};
use lastword::{Database, Remote, Sync, SyncReport, Workspace};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::Result;

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(900);
/// Ops of a batch that is loaded.
const LOADED: usize = MAX_BATCH_OPS;
/// Threads of the app that writes live: each waits until its batch is durable.
const WRITERS: u64 = 16;

/// Obeys commands from stdin until it ends.
pub(crate) fn run(dir: &Path, address: &str) -> Result<()> {
    let db = Database::builder().max_undecided(u64::MAX).open(dir)?;
    let ws = db.workspace("main")?;
    let remote = Remote::new(&format!("ws://{address}"))?.token("bench");
    let table = TableName::new("messages")?;
    let mut device = Device { db, ws, remote, table, sync: None, seen: None };
    for line in std::io::stdin().lock().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let answer =
            device.obey(&command).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

struct Device {
    db: Database,
    ws: Workspace,
    remote: Remote,
    table: TableName,
    sync: Option<Sync>,
    /// When each live record was seen.
    seen: Option<Receiver<(u64, u64)>>,
}

#[derive(serde::Deserialize)]
struct Line<'a> {
    key: &'a str,
    #[serde(borrow)]
    value: &'a RawValue,
}

impl Device {
    fn obey(&mut self, command: &Value) -> Result<Value> {
        let path = Path::new(command.get("file").and_then(Value::as_str).unwrap_or_default());
        let number = |name: &str| command.get(name).and_then(Value::as_u64).unwrap_or_default();
        match command.get("do").and_then(Value::as_str).unwrap_or_default() {
            "load" => self.load(path),
            "pull" | "back" => {
                let begun = Instant::now();
                let report = self.in_step()?;
                Ok(json!({
                    "seconds": begun.elapsed().as_secs_f64(),
                    "received": report.received,
                }))
            }
            "away" => {
                self.sync = None;
                Ok(json!({}))
            }
            "watch" => self.watch(),
            "live" => self.live(path, number("rate"), number("count")),
            "seen" => self.seen(number("count")),
            other => Err(format!("no such command: {other}").into()),
        }
    }

    /// Connects if it is not, and waits until all is sent and received.
    fn in_step(&mut self) -> Result<SyncReport> {
        let sync = match self.sync.take() {
            Some(sync) => sync,
            None => {
                let sync = self.db.connect(self.remote.clone())?;
                sync.attach(&self.ws)?;
                sync
            }
        };
        let sync = self.sync.insert(sync);
        Ok(sync.wait_caught_up(&self.ws, Some(LIMIT))?)
    }

    /// Writes all records of a file, and waits until the server has decided them.
    fn load(&mut self, path: &Path) -> Result<Value> {
        self.in_step()?;
        let begun = Instant::now();
        let mut batch = Vec::with_capacity(LOADED);
        for line in BufReader::new(File::open(path)?).lines() {
            batch.push(record(&line?)?);
            if batch.len() == LOADED {
                write(&self.ws, &self.table, &batch)?;
                batch.clear();
            }
        }
        write(&self.ws, &self.table, &batch)?;
        self.in_step()?;
        Ok(json!({ "seconds": begun.elapsed().as_secs_f64() }))
    }

    /// From now on notes when each record shows.
    fn watch(&mut self) -> Result<Value> {
        self.in_step()?;
        let mut live = self.ws.watch_records(Some(&self.table));
        live.recv().ok_or("the watch has ended")?;
        let (saw, seen) = std::sync::mpsc::channel();
        self.seen = Some(seen);
        std::thread::Builder::new().name("watcher".into()).spawn(move || {
            while let Some(changes) = live.recv() {
                let now = wall_us();
                for change in changes {
                    let index = change.record.and_then(|record| record.get("index"));
                    let Some(Field::Int(index)) = index else { continue };
                    // Whoever asked has what it wanted.
                    let _ = saw.send((u64::try_from(index).unwrap_or(u64::MAX), now));
                }
            }
        })?;
        Ok(json!({}))
    }

    fn seen(&mut self, count: u64) -> Result<Value> {
        let seen = self.seen.as_ref().ok_or("not watching")?;
        let mut times = Vec::new();
        while (times.len() as u64) < count {
            times.push(seen.recv_timeout(LIMIT)?);
        }
        Ok(json!({ "times": times }))
    }

    /// Writes each record at its time, one batch each, `rate` a second, whatever the others take.
    fn live(&mut self, path: &Path, rate: u64, count: u64) -> Result<Value> {
        self.in_step()?;
        let mut records = Vec::new();
        for line in BufReader::new(File::open(path)?).lines().take(usize::try_from(count)?) {
            records.push(record(&line?)?);
        }
        let begin = wall_us() + 100_000;
        let (ws, table) = (&self.ws, &self.table);
        let write_own = |writer: u64| -> Result<Vec<(u64, u64, u64)>> {
            let mut times = Vec::new();
            let own = (0..).zip(&records).skip(usize::try_from(writer)?);
            for (index, record) in own.step_by(usize::try_from(WRITERS)?) {
                let offered = begin + index * 1_000_000 / rate;
                let left = Duration::from_micros(offered.saturating_sub(wall_us()));
                std::thread::sleep(left);
                write(ws, table, std::slice::from_ref(record))?;
                times.push((index, offered, wall_us()));
            }
            Ok(times)
        };
        let times = std::thread::scope(|scope| {
            let write = &write_own;
            let threads: Vec<_> =
                (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
            let done = threads.into_iter().map(|thread| match thread.join() {
                Ok(times) => times,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            done.collect::<Result<Vec<_>>>()
        })?;
        Ok(json!({ "times": times.concat() }))
    }
}

fn write(ws: &Workspace, table: &TableName, batch: &[(Key, Record)]) -> Result<()> {
    ws.write(|tx| {
        batch.iter().try_for_each(|(key, record)| tx.put_record(table, key, record.clone()))
    })?;
    Ok(())
}

fn record(line: &str) -> Result<(Key, Record)> {
    let line: Line<'_> = serde_json::from_str(line)?;
    Ok((Key::new(line.key)?, json::parse_record(line.value.get())?))
}

/// The same clock in every process.
fn wall_us() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}
