//! What was: the versions of a record as the app's type, and a write taken back.

use std::collections::BTreeMap;

use lastword_core::id::{BatchId, DeviceId, Key, TableName};
use lastword_core::op::Op;
use lastword_core::row::Row;
use lastword_core::rules::{self, At, Policy};
use lastword_core::value::Record;
use lastword_store::payload::Payload;
use serde::de::DeserializeOwned;

use crate::convert;
use crate::error::{Error, Result};
use crate::history::Version;
use crate::receipt::{Receipt, Written};
use crate::schema::Table;
use crate::workspace::Workspace;
use crate::write::{self, Tx};

/// Ops of a write and their batch, by the record that they name.
type Ops = BTreeMap<(TableName, Key), (Op, BatchId)>;

/// One version of a record, with its value as the app's type.
#[derive(Debug, Clone)]
pub struct RowVersion<T> {
    /// What it was: when, by whom, and what it wrote.
    pub version: Version,
    /// Its value, if the version says all of it and it is a `T`: not of a patch, which has the
    /// fields that it set in `version.record`, and not of a delete.
    pub value: Option<T>,
}

/// The versions of one record.
#[derive(Debug, Clone)]
pub struct RowHistory<T> {
    /// Newest first, as in [`crate::RecordHistory`].
    pub versions: Vec<RowVersion<T>>,
    /// There were older ones, which are out of the history window and were folded away.
    pub older_folded: bool,
}

impl Workspace {
    /// Every version of a record that this device's log holds, newest first.
    ///
    /// # Errors
    /// [`Error::Declaration`] if the table is used otherwise than it was declared, [`Error::Name`]
    /// if the key is not valid, [`Error::Store`] if the disk fails or a frame is damaged.
    pub fn history<T: DeserializeOwned>(
        &self,
        table: Table<T>,
        key: &str,
    ) -> Result<RowHistory<T>> {
        let name = self.database().inner.declared.check(&table)?;
        let history = self.record_history(&name, &Key::new(key)?)?;
        let versions = history.versions.into_iter().map(|version| {
            let whole = version.record.as_ref().filter(|_| version.what != "patch");
            let value = whole.and_then(|record| convert::from_record(record).ok());
            RowVersion { version, value }
        });
        Ok(RowHistory { versions: versions.collect(), older_folded: history.older_folded })
    }

    /// Takes a write of this process back: every record that it changed becomes what it was before,
    /// in one ordinary write, which syncs like any other and can itself be undone. A record that is
    /// as it was before already, because the write was refused or undone, stays as it is.
    ///
    /// ```
    /// # use lastword::{Database, Error, Table};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Note { id: String, text: String }
    /// const NOTES: Table<Note> = Table::new("notes", "id");
    /// # let dir = tempfile::tempdir()?;
    /// # let db = Database::builder().tables(NOTES).open(dir.path().join("db"))?;
    /// # let ws = db.workspace("main")?;
    /// # ws.write(|tx| tx.put(NOTES, &Note { id: "n1".into(), text: "keep me".into() }))?;
    /// let deleted = ws.write(|tx| tx.delete(NOTES, "n1"))?;
    /// ws.undo(&deleted)?;
    /// assert_eq!(ws.get(NOTES, "n1")?.expect("it is back").text, "keep me");
    ///
    /// let edited = ws.write(|tx| tx.update(NOTES, "n1", |note| note.text.push('!')))?;
    /// ws.write(|tx| tx.update(NOTES, "n1", |note| note.text.push('?')))?; // somebody goes on
    /// assert!(matches!(ws.undo(&edited), Err(Error::Overtaken { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Overtaken`] names a record that somebody has written since, on this device or
    /// another, or of which the server let another version stand; then nothing is undone.
    /// [`Error::UnknownWorkspace`] if the write was in another workspace. [`Error::Store`] if the
    /// disk fails or the write is out of the history window. And those of [`Workspace::write`].
    pub fn undo(&self, receipt: &Receipt) -> Result<Receipt> {
        let written = receipt.written();
        if &written.workspace != self.name() {
            return Err(Error::UnknownWorkspace { workspace: written.workspace.clone() });
        }
        let ops = self.ops_of(written)?;
        self.write(|tx| {
            written.before.iter().try_for_each(|(name, before)| match ops.get(name) {
                Some((op, batch)) => undo_record(tx, op, *batch, before.as_ref()),
                None => Ok(()),
            })
        })
    }

    fn ops_of(&self, written: &Written) -> Result<Ops> {
        if written.before.is_empty() {
            return Ok(Ops::new());
        }
        let frame = self.database().inner.writer.views().read_frame(written.position)?;
        let payload = Payload::from_frame(frame.kind, &frame.payload).ok();
        let own = payload.and_then(Payload::into_own).expect("invariant: a write is own");
        // Rows of local tables name no batch.
        let local = own.local.into_iter().map(|op| (op, BatchId::default()));
        let synced = own.batch.into_iter().flat_map(|batch| {
            let id = batch.batch_id;
            batch.ops.into_iter().map(move |op| (op, id))
        });
        let named = |(op, id): (Op, BatchId)| ((op.table.clone(), op.key.clone()), (op, id));
        Ok(local.chain(synced).map(named).collect())
    }
}

fn undo_record(tx: &mut Tx, op: &Op, batch: BatchId, before: Option<&Row>) -> Result<()> {
    let (table, key) = (&op.table, &op.key);
    let now = tx.row(table, key)?;
    let (value_now, value_before) = (live(now.as_ref()), live(before));
    if value_now == value_before {
        return Ok(());
    }
    // The op may not have come from where it should: what it left must be what stands.
    let at = At { seq: 0, time_ms: 0, op_id: Default::default() };
    let left = rules::apply(before, op, DeviceId::AUTHORITY, &at, tx.policy(table), &[]);
    let is_its = now.as_ref().is_some_and(|now| (now.hlc, now.op_id) == (op.hlc, batch));
    if !is_its || value_now != live(left.as_ref()) {
        return Err(Error::Overtaken { table: table.clone(), key: key.clone() });
    }
    match (value_before, value_now) {
        (Some(before), Some(now)) => {
            let (set, remove) = write::difference(now, before);
            tx.patch_record(table, key, set, remove)
        }
        // There is no undelete under that policy.
        (Some(before), None) if tx.policy(table) == Policy::Revision => {
            tx.put_record(table, key, before.clone())
        }
        (Some(_), None) => tx.undelete_record(table, key),
        (None, _) => tx.delete_record(table, key),
    }
}

fn live(row: Option<&Row>) -> Option<&Record> {
    row.filter(|row| !row.deleted).map(|row| &row.record)
}
