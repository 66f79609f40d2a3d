//! A device of the demo: a process of its own that does what it is told, one JSON line at a time.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lastword::core::id::{Key, TableName};
use lastword::core::json;
use lastword::core::value::Record;
use lastword::{Database, Remote, Sync, Workspace};
use serde_json::{Value, json};

/// Longest wait for anything that a device is asked to wait for.
const LIMIT: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error>;

/// Serves commands from stdin until it ends. `token` is what the server knows the user by.
///
/// # Errors
/// Whatever stops the device; a command that fails is answered with its error instead.
pub fn run(dir: &Path, server: &str, token: &str) -> Result<(), Failure> {
    let db = Database::open(dir)?;
    let ws = db.workspace("main")?;
    let mut device = Device { db, ws, sync: None, remote: Remote::new(server)?.token(token) };
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let command: Value = serde_json::from_str(&line?)?;
        let mut answer = match device.obey(&command) {
            Ok(answer) => answer,
            Err(error) => json!({ "error": error.to_string() }),
        };
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("at_us".into(), json!(wall_us()));
        }
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn wall_us() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

struct Device {
    db: Database,
    ws: Workspace,
    sync: Option<Sync>,
    remote: Remote,
}

impl Device {
    fn obey(&mut self, command: &Value) -> Result<Value, Failure> {
        let text = |name: &str| command.get(name).and_then(Value::as_str).unwrap_or_default();
        let begun_us = wall_us();
        match text("do") {
            "connect" => {
                let sync = self.db.connect(self.remote.clone())?;
                sync.attach(&self.ws)?;
                sync.wait_caught_up(&self.ws, Some(LIMIT))?;
                self.sync = Some(sync);
                Ok(json!({ "begun_us": begun_us }))
            }
            // As "connect", without waiting: a network that fails is tried again.
            "follow" => {
                let sync = self.db.connect(self.remote.clone())?;
                sync.attach(&self.ws)?;
                self.sync = Some(sync);
                Ok(json!({}))
            }
            "disconnect" => {
                self.sync = None;
                Ok(json!({}))
            }
            "catch up" => {
                let sync = self.sync.as_ref().ok_or("not connected")?;
                sync.wait_caught_up(&self.ws, Some(LIMIT))?;
                Ok(json!({}))
            }
            "export" => self.export(),
            "status" => self.status(),
            "conflicts" => self.conflicts(),
            write => {
                let (table, key) = (TableName::new(text("table"))?, Key::new(text("key"))?);
                let record = match command.get("value") {
                    Some(value) => json::parse_record(&value.to_string())?,
                    None => Record::default(),
                };
                self.record(write, &table, &key, &record, begun_us)
            }
        }
    }

    fn record(
        &self,
        what: &str,
        table: &TableName,
        key: &Key,
        record: &Record,
        begun_us: u64,
    ) -> Result<Value, Failure> {
        match what {
            "put" => self.ws.write(|tx| tx.put_record(table, key, record.clone()))?,
            "patch" => {
                let fields = record.fields();
                self.ws.write(|tx| tx.patch_record(table, key, fields.to_vec(), Vec::new()))?
            }
            "delete" => self.ws.write(|tx| tx.delete_record(table, key))?,
            "undelete" => self.ws.write(|tx| tx.undelete_record(table, key))?,
            "get" => return self.get(table, key),
            "wait" => return self.wait(table, key, record),
            other => return Err(format!("no such command: {other}").into()),
        };
        Ok(json!({ "begun_us": begun_us }))
    }

    fn get(&self, table: &TableName, key: &Key) -> Result<Value, Failure> {
        let value = match self.ws.get_record(table, key)? {
            Some(shown) => serde_json::from_str(&json::record_to_string(&shown.record)?)?,
            None => Value::Null,
        };
        Ok(json!({ "value": value }))
    }

    /// Waits until the record has this value.
    fn wait(&self, table: &TableName, key: &Key, wanted: &Record) -> Result<Value, Failure> {
        let until = Instant::now() + LIMIT;
        loop {
            let view = self.ws.read()?;
            if view.get_record(table, key)?.is_some_and(|shown| shown.record == *wanted) {
                return Ok(json!({}));
            }
            let left = until.saturating_duration_since(Instant::now());
            if !self.ws.wait_after(&view, Some(left)) {
                return Err(format!("{table}/{key} did not arrive in {} s", LIMIT.as_secs()).into());
            }
        }
    }

    fn export(&self) -> Result<Value, Failure> {
        Ok(json!({ "lines": super::export_lines(&self.ws.read()?)? }))
    }

    fn status(&self) -> Result<Value, Failure> {
        let status = self.ws.status()?;
        Ok(json!({
            "device": self.db.device().to_string(),
            "undecided": status.undecided,
            "settled": status.settled,
            "cursor": status.cursor,
            "rows": status.rows,
            "digest": status.digest.to_string(),
        }))
    }

    fn conflicts(&self) -> Result<Value, Failure> {
        let view = self.ws.read()?;
        let mut found = Vec::new();
        view.visit_all(&mut |shown, _| {
            if shown.table.as_str() == "_conflicts" {
                let line = json::record_to_string(&shown.record).unwrap_or_default();
                found.push(serde_json::from_str::<Value>(&line).unwrap_or_default());
            }
            Ok(())
        })?;
        Ok(json!({ "conflicts": found }))
    }
}
