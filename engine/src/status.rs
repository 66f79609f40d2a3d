//! Status and explanations: why something did or did not sync.

use lastword_core::id::{BatchId, DeviceId, Key, TableName};
use lastword_core::protocol::Role;
use lastword_core::row::Digest;
use lastword_core::rules::PendingState;
use lastword_core::stamp::{Decision, Verdict};
use lastword_core::value::Value;
use lastword_store::read;

use crate::dead_letter::{self, DeadLetter};
use crate::error::Result;
use crate::history::{self, RecordHistory};
use crate::tables;
use crate::workspace::Workspace;

/// State of one workspace on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceStatus {
    /// Its name.
    pub workspace: String,
    /// True once it has met its server.
    pub attached: bool,
    /// True once the first copy is complete.
    pub bootstrapped: bool,
    /// The user's role there when it last met its server.
    pub role: Option<Role>,
    /// The lowest app schema number whose writes the server takes, if that of this app is lower:
    /// then batches wait, and reads go on.
    pub needs_app_schema: Option<u64>,
    /// Last consistent seq applied.
    pub cursor: u64,
    /// Last seq of which this device knows.
    pub head: u64,
    /// Live records that the server has, product tables left out.
    pub rows: u64,
    /// Digest sum of the server's rows up to the cursor.
    pub digest: Digest,
    /// Batches that wait for a verdict.
    pub undecided: u64,
    /// Batches with a verdict that the stream has not shown yet.
    pub settled: u64,
    /// When the oldest undecided batch was written, milliseconds since 1970 UTC.
    pub oldest_undecided_ms: Option<i64>,
    /// Refused batches of this workspace.
    pub dead_letters: u64,
    /// Rows of `_conflicts`.
    pub conflicts: u64,
}

/// Why a record is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The record's table.
    pub table: TableName,
    /// Its key.
    pub key: Key,
    /// What is shown now.
    pub shown: ShownState,
    /// The server's version, if this device has one.
    pub server: Option<ServerVersion>,
    /// Own changes that wait, oldest first.
    pub waiting: Vec<Waiting>,
    /// Refused batches that name the record.
    pub dead_letters: Vec<DeadLetter>,
    /// Keys of conflict rows that name the record.
    pub conflicts: Vec<String>,
}

/// What readers see of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownState {
    /// Nothing was ever known of it, or it is purged.
    Unknown,
    /// A live record.
    Live,
    /// Deleted; it can be undeleted.
    Deleted,
}

/// The server's version of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerVersion {
    /// Its seq.
    pub seq: u64,
    /// Server time, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Who wrote it.
    pub writer: DeviceId,
    /// True if it is a tombstone.
    pub deleted: bool,
}

/// One own change of a record that is not yet part of the server's row here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Counter of its batch.
    pub counter: u64,
    /// Its batch.
    pub batch_id: BatchId,
    /// When it was written, milliseconds since 1970 UTC.
    pub written_ms: i64,
    /// Its place among the batches that wait, from 1.
    pub place: u64,
    /// How many batches wait.
    pub of: u64,
    /// Its verdict, if it has one.
    pub verdict: Option<Verdict>,
}

impl Workspace {
    /// State of this workspace on this device.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails.
    pub fn status(&self) -> Result<WorkspaceStatus> {
        let view = self.read()?;
        let state = view.state();
        let meta = read::meta(state, self.name())?;
        let schema = read::schema(state, self.name())?;
        let waiting = read::outbox(state, self.name(), meta.gone + 1, usize::MAX)?;
        let undecided: Vec<_> = waiting.iter().filter(|(_, e)| e.settled.is_none()).collect();
        let letters = dead_letter::all(state)?;
        Ok(WorkspaceStatus {
            workspace: self.name().as_str().into(),
            attached: meta.epoch.is_some(),
            bootstrapped: meta.bootstrapped,
            role: meta.role,
            needs_app_schema: schema
                .map(|schema| schema.min_app_schema())
                .filter(|needed| *needed > self.database().inner.app_schema),
            cursor: meta.cursor,
            head: meta.head,
            rows: meta.rows,
            digest: meta.digest,
            undecided: undecided.len() as u64,
            settled: (waiting.len() - undecided.len()) as u64,
            oldest_undecided_ms: undecided.first().map(|(_, entry)| entry.created_ms),
            dead_letters: letters.iter().filter(|l| l.workspace == self.name().as_str()).count()
                as u64,
            conflicts: view.count(&tables::CONFLICTS.all())? as u64,
        })
    }

    /// Batches of this device that wait for a verdict; cheap.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails.
    pub fn waiting(&self) -> Result<u64> {
        let meta = read::meta(self.read()?.state(), self.name())?;
        Ok(meta.written.saturating_sub(meta.decided))
    }

    /// Refused batches of this workspace.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let mut letters = dead_letter::all(self.read()?.state())?;
        letters.retain(|letter| letter.workspace == self.name().as_str());
        letters.sort_by_key(|letter| letter.time_ms);
        Ok(letters)
    }

    /// Every version of a record that this device's log holds, newest first.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails or a frame is damaged.
    pub fn record_history(&self, table: &TableName, key: &Key) -> Result<RecordHistory> {
        let log = self.database().inner.writer.views();
        history::history(log, self.read()?.stored(table, key)?, table, key)
    }

    /// Why a record is as it is, and what it waits for.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk fails.
    pub fn explain(&self, table: &TableName, key: &Key) -> Result<Explanation> {
        let view = self.read()?;
        let state = view.state();
        let row_key = view.row_key(table, key);
        let stored = read::row(state, &row_key)?;
        let server = read::authority_row(state, &row_key)?;
        let gone = read::meta(state, self.name())?.gone;
        let outbox = read::outbox(state, self.name(), gone + 1, usize::MAX)?;
        let waiting = read::pending(state, &row_key)?.into_iter().map(|own| Waiting {
            counter: own.counter,
            batch_id: own.batch_id,
            written_ms: own.created_ms,
            place: outbox.iter().take_while(|(counter, _)| *counter <= own.counter).count() as u64,
            of: outbox.len() as u64,
            verdict: match own.state {
                PendingState::Settled { verdict, .. } => Some(verdict),
                PendingState::Undecided => None,
            },
        });
        let name = format!("{table}/{key}");
        let mut letters = self.dead_letters()?;
        letters.retain(|letter| letter.records.contains(&name));
        Ok(Explanation {
            table: table.clone(),
            key: key.clone(),
            shown: match &stored {
                None => ShownState::Unknown,
                Some(stored) if stored.row.deleted => ShownState::Deleted,
                Some(_) => ShownState::Live,
            },
            server: server.map(|stored| ServerVersion {
                seq: stored.row.last.seq,
                time_ms: stored.row.time_ms,
                writer: stored.row.last.writer,
                deleted: stored.row.deleted,
            }),
            waiting: waiting.collect(),
            dead_letters: letters,
            conflicts: self.conflicts_of(&view, table, key)?,
        })
    }

    fn conflicts_of(
        &self,
        view: &crate::WorkspaceView,
        table: &TableName,
        key: &Key,
    ) -> Result<Vec<String>> {
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let rows = view.range(&tables::conflicts(), all, false, usize::MAX)?;
        let is = |value: Option<Value>, text: &str| value == Some(Value::Text(text.into()));
        Ok(rows
            .into_iter()
            .filter(|row| is(row.record.get("table"), table.as_str()))
            .filter(|row| is(row.record.get("key"), key.as_str()))
            .map(|row| row.key.as_str().to_owned())
            .collect())
    }
}

/// The verdict in one word, for output.
#[must_use]
pub fn verdict_word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Refused { .. } => "refused",
        Decision::Accepted { verdicts, .. } => {
            let superseded = |verdict: &Verdict| matches!(verdict, Verdict::Superseded { .. });
            if verdicts.iter().any(superseded) { "superseded" } else { "applied" }
        }
    }
}
