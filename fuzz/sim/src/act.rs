//! What the apps on the devices do.

use lastword::core::id::{BatchId, Key, TableName, WorkspaceName};
use lastword::core::value::{Field, Record, Value};
use lastword::store::payload::Payload;
use lastword::store::{StoreError, read};
use lastword::{Error, Index, Receipt, Table, Tx, Workspace, WriteOptions};
use serde::{Deserialize, Serialize};

use crate::check;
use crate::fault::Violation;
use crate::known::Waiting;
use crate::oracle::Written;
use crate::world::{Done, World, broken};

/// The tables, the last of which stays on its device.
pub const TABLES: [&str; 6] = ["notes", "revs", "inbox", "files", "extra", "drafts"];
/// The one that never leaves its device.
pub const LOCAL: &str = "drafts";
/// The table of the product that says which files wait to be carried; it never leaves either.
const CARRIED: &str = "file_transfers";
/// Writes whose receipts an app keeps.
const RECEIPTS: usize = 8;
/// Bytes of a large value.
const LARGE: usize = 90_000;

/// A record of `notes`, as far as the app knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Its key.
    pub id: String,
    /// What it is ordered by.
    #[serde(default)]
    pub n: i64,
}

/// The table of notes.
pub const NOTES: Table<Note> = Table::new("notes", "id");
/// Notes by their number.
pub const BY_NUMBER: Index<Note> = NOTES.index("by_number", &["n"]);

/// One op of a write.
#[derive(Debug)]
struct Edit {
    table: TableName,
    key: Key,
    how: u64,
    value: Value,
    number: i64,
    user: String,
}

/// Whether a table stays on its device.
pub fn stays_here(table: &str) -> bool {
    [LOCAL, CARRIED].contains(&table)
}

pub fn table_name(name: &str) -> TableName {
    TableName::new(name).expect("invariant: a name")
}

/// A value that says where it may be seen: in which workspace and, if it is private, by whom.
fn tagged(workspace: &WorkspaceName, who: &str, number: u64, large: bool) -> Value {
    let mut text = format!("~{workspace}.{who}~{number}");
    if large {
        text.extend(std::iter::repeat_n('x', LARGE));
    }
    Value::Text(text)
}

impl Edit {
    /// What is not possible as the record is now is left out.
    fn carry_out(&self, tx: &mut Tx) -> Result<(), Error> {
        let Self { table, key, how, value, number, user } = self;
        match how {
            0..=3 => ignore(tx.put_record(table, key, self.record()?)),
            4..=6 => ignore(tx.update_record(table, key, |record| {
                record.set(Field::new(["a", "b"][(how % 2) as usize], value));
                match how {
                    5 => record.remove("c"),
                    6 => record.set(Field::new("n", &Value::Int(*number))),
                    _ => {}
                }
                // Now and then a private record is given to somebody else, which is refused.
                if table.as_str() == "inbox" && number % 16 == 0 {
                    record.set(Field::new("user", &Value::Text(user.clone())));
                }
            })),
            7 | 8 => ignore(tx.delete_record(table, key)),
            9 | 10 => ignore(tx.undelete_record(table, key)),
            _ => {
                ignore(tx.delete_record(table, key))?;
                ignore(tx.put_record(table, key, self.record()?))
            }
        }
    }

    fn record(&self) -> Result<Record, Error> {
        let Self { table, key, value, number, user, .. } = self;
        let mut entries = vec![
            ("id".to_owned(), Value::Text(key.as_str().into())),
            ("a".to_owned(), value.clone()),
            ("n".to_owned(), Value::Int(number % 7)),
        ];
        match table.as_str() {
            "inbox" => entries.push(("user".into(), Value::Text(user.clone()))),
            "files" if number % 3 == 0 => entries.push(("sid".into(), value.clone())),
            _ => entries.push(("c".into(), Value::Int(*number))),
        }
        Ok(Record::new(&entries)?)
    }
}

fn ignore(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(
            Error::NotFound { .. }
            | Error::NotDeleted { .. }
            | Error::NoUndelete { .. }
            | Error::ValueGone { .. }
            // An undelete of what was erased shows nothing, not even its key.
            | Error::KeyField { .. }
            | Error::Record { .. },
        ) => Ok(()),
        done => done,
    }
}

impl World {
    fn edit(&mut self, user: &str, workspace: &WorkspaceName) -> Edit {
        let table = match self.random.below(12) {
            at @ 0..=5 => TABLES[at as usize],
            _ => TABLES[0],
        };
        let key = Key::new(&format!("k{}", self.random.below(self.setting.keys)));
        let key = key.expect("invariant: a key");
        self.written += 1;
        // Now and then a private record is written for somebody else, which is refused.
        let named = match self.random.once_in(24) {
            true => format!("u{}", self.random.below(self.setting.users)),
            false => user.to_owned(),
        };
        let large = self.setting.large != 0 && self.random.once_in(self.setting.large);
        let is_private = table == "inbox" && self.setting.schema != 0;
        let who = if is_private { user } else { "*" };
        let value = tagged(workspace, who, self.written, large);
        let (table, how) = (table_name(table), self.random.below(12));
        Edit { table, key, how, value, number: self.written as i64, user: named }
    }

    /// The workspace of a device's database, while it is open.
    pub fn opened(&self, at: usize, workspace: &WorkspaceName) -> Option<Workspace> {
        let app = self.devices[at].app.as_ref()?;
        app.database().workspace(workspace.as_str()).ok()
    }

    /// A device writes a batch of one to three edits.
    pub fn write(&mut self, at: usize) -> Result<bool, Violation> {
        let workspace = self.any_workspace();
        let user = self.devices[at].user.clone();
        let count = 1 + self.random.below(3);
        let edits: Vec<Edit> = (0..count).map(|_| self.edit(&user, &workspace)).collect();
        let Some(opened) = self.opened(at, &workspace) else { return Ok(false) };
        self.reach.count("records written", count);
        self.doing = "write";
        let options = match self.random.once_in(5) {
            true => {
                // The batch before it may be taken in.
                let last = self.last_waiting(at, &workspace);
                self.devices[at].squashed.extend(last);
                WriteOptions::default().squash()
            }
            false => WriteOptions::default(),
        };
        let edit = |tx: &mut Tx| edits.iter().try_for_each(|edit| edit.carry_out(tx));
        let wrote = opened.write_with(options, edit);
        self.wrote(at, &workspace, wrote.map(|receipt| vec![receipt]))
    }

    /// The batch that a device has written last, if it waits.
    fn last_waiting(&self, at: usize, workspace: &WorkspaceName) -> Option<BatchId> {
        let app = self.devices[at].app.as_ref()?;
        let waiting = app.with(|node| Ok(read::outbox(&*node.view(), workspace, 0, usize::MAX)?));
        waiting.ok()?.last().map(|(_, entry)| entry.batch_id)
    }

    /// What follows a call that may have written: batches it was told of are remembered.
    pub fn wrote(
        &mut self,
        at: usize,
        workspace: &WorkspaceName,
        wrote: Result<Vec<Receipt>, Error>,
    ) -> Result<bool, Violation> {
        let receipts = match wrote {
            Ok(receipts) => receipts,
            Err(
                Error::OutboxFull { .. } | Error::Overtaken { .. } | Error::NoDeadLetter { .. },
            ) => return Ok(false),
            // What was retried before it failed is in the outbox.
            Err(error) => return self.device_failed(at, &error).map(|()| false),
        };
        let did = !receipts.is_empty();
        for receipt in receipts {
            let device = &mut self.devices[at];
            if let Some(batch) = receipt.batch_id() {
                device.acknowledged.push((workspace.clone(), batch));
                device.open.insert((workspace.clone(), batch));
                device.receipts.push((workspace.clone(), receipt));
            }
            let over = device.receipts.len().saturating_sub(RECEIPTS);
            device.receipts.drain(..over);
        }
        self.remember_written(at, workspace)?;
        self.tell_written(at)?;
        check::device(self, at)?;
        Ok(did)
    }

    /// A device takes one of its last writes back.
    pub fn undo(&mut self, at: usize) -> Result<bool, Violation> {
        let count = self.devices[at].receipts.len() as u64;
        let pick = self.random.below(count) as usize;
        let Some((workspace, receipt)) = self.devices[at].receipts.get(pick).cloned() else {
            return Ok(false);
        };
        let Some(opened) = self.opened(at, &workspace) else { return Ok(false) };
        self.doing = "write";
        let undone = match opened.undo(&receipt) {
            // The write is not in the log any more, or the schema has other rules since.
            Err(
                Error::Store(StoreError::OutOfRange { .. })
                | Error::NotFound { .. }
                | Error::NotDeleted { .. }
                | Error::ValueGone { .. }
                | Error::KeyField { .. },
            ) => Ok(Vec::new()),
            undone => undone.map(|receipt| vec![receipt]),
        };
        self.wrote(at, &workspace, undone)
    }

    /// A device sends a unit of dead letters again, edits it, or throws it away.
    pub fn letter(&mut self, at: usize) -> Result<bool, Violation> {
        let workspace = self.any_workspace();
        let Some(opened) = self.opened(at, &workspace) else { return Ok(false) };
        let mut letters = opened.dead_letters().map_err(|error| broken("dead letters", &error))?;
        letters.sort_by_key(|letter| letter.batch_id);
        let pick = self.random.below(letters.len() as u64) as usize;
        let Some(unit) = letters.get(pick).map(|letter| letter.unit) else { return Ok(false) };
        let gone: Vec<BatchId> =
            letters.iter().filter(|l| l.unit == unit).map(|l| l.batch_id).collect();
        self.doing = "write";
        let wrote = match self.random.below(3) {
            0 => opened.discard_dead_letter(unit).map(|_| Vec::new()),
            1 => opened.retry_dead_letter(unit),
            _ => opened.edit_dead_letter(unit, |_, _, record| {
                record.set(Field::new("b", &Value::Int(1)));
                Ok(())
            }),
        };
        // Open: a row that a restore lost may have been folded into a base before.
        let folded = |error: &Error| {
            matches!(
                error,
                Error::DeadLetterGone { .. } | Error::Store(StoreError::OutOfRange { .. })
            )
        };
        if wrote.as_ref().is_err_and(folded) {
            self.reach.count("dead letters whose rows were folded away", 1);
            let lost = letters.iter().all(|l| l.unit != unit || l.code == "lost_by_restore");
            return match lost {
                true => Ok(false),
                false => Err(Violation::new("I1", "a dead letter has lost its ops")),
            };
        }
        let is_full = matches!(wrote, Err(Error::OutboxFull { .. } | Error::Store(_)));
        if wrote.is_ok() || is_full {
            // Those that found room are sent under other ids, the others are still there.
            let device = &mut self.devices[at];
            let is_gone = |batch: &BatchId| gone.contains(batch);
            device.acknowledged.retain(|(_, batch)| !is_gone(batch));
            device.open.retain(|(_, batch)| !is_gone(batch));
        }
        if is_full {
            self.remember_written(at, &workspace)?;
        }
        self.wrote(at, &workspace, wrote)
    }

    /// The oracle knows what was written from the device's own log.
    pub fn remember_written(&mut self, at: usize, workspace: &WorkspaceName) -> Done {
        let user = self.devices[at].user.clone();
        let before = self.devices[at].remembered.remove(workspace);
        let Some(app) = &self.devices[at].app else { return Ok(()) };
        let twice = self.copied;
        let written = &mut self.oracle.written;
        let found = app.with(|node| {
            let (waiting, new) = Waiting::look(before, &node.view(), workspace)?;
            for (batch_id, position) in new {
                let known = written.entry(batch_id).or_default();
                if known.iter().any(|written| written.user == user) && !twice {
                    continue;
                }
                let frame = node.store().view_handle().read_frame(position)?;
                let payload = Payload::from_frame(frame.kind, &frame.payload).ok();
                if let Some(batch) = payload.and_then(Payload::into_own).and_then(|own| own.batch) {
                    let (device, user, ops) = (batch.device, user.clone(), batch.ops);
                    let is_new = known.iter().all(|written| written.ops != ops);
                    if is_new {
                        known.push(Written { device, user, ops });
                    }
                }
            }
            Ok(waiting)
        });
        match found {
            Err(error) => self.device_failed(at, &error),
            Ok(waiting) => {
                self.devices[at].remembered.insert(workspace.clone(), waiting);
                Ok(())
            }
        }
    }

    pub fn tell_written(&mut self, at: usize) -> Done {
        let now = self.now;
        let Some(app) = &self.devices[at].app else { return Ok(()) };
        if let Err(error) = app.with(|node| node.tell_written(now)) {
            return self.device_failed(at, &error);
        }
        self.link(at);
        Ok(())
    }

    /// A device closes and its app is another version of itself.
    pub fn change_app(&mut self, at: usize) -> Result<bool, Violation> {
        self.devices[at].app_schema = 1 + self.random.below(2);
        self.device_restart(at)
    }
}

/// What an app asks of its store when it opens it.
pub fn app_of(app_schema: u64, outbox: u64) -> lastword::Builder {
    lastword::Database::builder()
        .index(BY_NUMBER)
        .local_table(table_name(LOCAL))
        .schema_version(app_schema)
        .max_undecided(outbox)
}
