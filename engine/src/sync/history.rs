//! Older versions of records, read from the server: what a device's own log does not have.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use lastword_core::id::{Key, TableName};
use lastword_core::limits::MAX_HISTORY;
use lastword_core::protocol::replica::SyncStatus;
use lastword_core::protocol::{HistoryRest, HistoryVersion, VersionKind};
use lastword_core::stamp::Verdict;
use lastword_core::value::Value;

use super::driver::{Asked, Command};
use super::{Sync, SyncFailure};
use crate::error::Error;
use crate::history::{RecordHistory, Version};
use crate::workspace::Workspace;

impl Sync {
    /// Every version of a record that the server's log holds, newest first, at most
    /// [`MAX_HISTORY`]; none if the record is unknown there or not for this user to see.
    ///
    /// # Errors
    /// [`SyncFailure::Offline`] or [`SyncFailure::Stopped`] if the workspace is not attached now,
    /// [`SyncFailure::TimedOut`], [`SyncFailure::Engine`] if sync has ended.
    pub fn record_history(
        &self,
        workspace: &Workspace,
        (table, key): (&TableName, &Key),
        timeout: Option<Duration>,
    ) -> Result<RecordHistory, SyncFailure> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut history = RecordHistory::default();
        let mut before = 0;
        loop {
            let (versions, rest) = self.ask(workspace, (table, key), before, until)?;
            let last = versions.last().map(|version| version.seq);
            history.versions.extend(versions.into_iter().map(as_known));
            match (rest, last) {
                (HistoryRest::More, Some(last)) if history.versions.len() < MAX_HISTORY => {
                    before = last;
                }
                (rest, _) => {
                    history.older_folded = rest == HistoryRest::Gone;
                    history.versions.truncate(MAX_HISTORY);
                    return Ok(history);
                }
            }
        }
    }

    /// The value that a field had in the version of a record with this seq: what a conflict row
    /// names by its seq and size, where the value was too large for the row.
    ///
    /// # Errors
    /// [`SyncFailure::ValueGone`] if the server has that version no more; and those of
    /// [`Sync::record_history`].
    pub fn field_at(
        &self,
        workspace: &Workspace,
        (table, key): (&TableName, &Key),
        field: &str,
        seq: u64,
        timeout: Option<Duration>,
    ) -> Result<Value, SyncFailure> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let gone = || SyncFailure::ValueGone { table: table.clone(), key: key.clone(), seq };
        let mut before = seq.saturating_add(1);
        loop {
            let (versions, rest) = self.ask(workspace, (table, key), before, until)?;
            for version in &versions {
                before = version.seq;
                let says = version.seq == seq || is_applied(version, field);
                let Some(record) = version.record.as_ref().filter(|_| says) else { continue };
                match record.get(field) {
                    Some(value) => return Ok(value),
                    None if version.kind == VersionKind::Patch => {}
                    None => return Err(gone()),
                }
            }
            if rest != HistoryRest::More || versions.is_empty() {
                return Err(gone());
            }
        }
    }

    fn ask(
        &self,
        workspace: &Workspace,
        (table, key): (&TableName, &Key),
        before: u64,
        until: Option<Instant>,
    ) -> Result<(Vec<HistoryVersion>, HistoryRest), SyncFailure> {
        let (answer, answered) = mpsc::sync_channel(1);
        let name = workspace.name().clone();
        let record = (table.clone(), key.clone());
        let asked = Asked { workspace: name.clone(), record, before, answer };
        let sent = self.inner.commands.send(Command::Ask(asked));
        sent.map_err(|_| Error::Closed)?;
        let told = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) => answered.recv_timeout(left),
            None => answered.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match told {
            Ok(Some(history)) => Ok((history.versions, history.rest)),
            Ok(None) => Err(match self.status(&name) {
                SyncStatus::Stopped { why, message } => SyncFailure::Stopped { why, message },
                SyncStatus::Offline { why, .. } => SyncFailure::Offline { why },
                _ => SyncFailure::Offline { why: "not attached now; try again".into() },
            }),
            Err(RecvTimeoutError::Timeout) => {
                Err(SyncFailure::TimedOut { status: self.status(&name) })
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::Closed.into()),
        }
    }
}

/// Whether what the version says of the field took effect.
fn is_applied(version: &HistoryVersion, field: &str) -> bool {
    match &version.verdict {
        Some(Verdict::Applied { dropped }) => !dropped.iter().any(|name| name == field),
        Some(Verdict::Superseded { .. }) => false,
        None => true,
    }
}

fn as_known(version: HistoryVersion) -> Version {
    let HistoryVersion { seq, time_ms, device, kind, verdict, record } = version;
    Version { position: 0, seq: Some(seq), time_ms, device, what: kind.as_str(), verdict, record }
}
