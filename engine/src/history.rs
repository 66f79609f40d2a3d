//! History: every version of a record that this store's log holds, newest first.
//!
//! A logged op stores the position of the record's previous frame, so history needs no index.

use lastword_core::id::{DeviceId, Key, TableName};
use lastword_core::limits::MAX_HISTORY;
use lastword_core::op::{Action, Op};
use lastword_core::protocol::Entry;
use lastword_core::stamp::{Decision, Verdict};
use lastword_core::value::Record;
use lastword_store::keys::StoredRow;
use lastword_store::payload::{
    DecidedBatch, Erasure, LocalBatch, Payload, RemotePage, Retry, Squash,
};
use lastword_store::{StoreError, ViewHandle};

use crate::error::Result;

/// What an erasure is called.
const ERASED: &str = "erase";

/// One version of a record in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Position of its frame in this store's log; 0 if it was read from the server.
    pub position: u64,
    /// Authority seq; none for a local write, whose verdict comes later.
    pub seq: Option<u64>,
    /// When: server time, or local time for a local write; milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Who wrote it; all zero is the server.
    pub device: DeviceId,
    /// What it was: `create`, `put`, `patch`, `delete`, `undelete`, `erase`, `received` for a row
    /// that came from the server, or `kept` for the record as it is where the log no longer says
    /// how it came.
    pub what: &'static str,
    /// What the server decided, where this frame says so.
    pub verdict: Option<Verdict>,
    /// The value it wrote: the whole record, or the fields of a patch.
    pub record: Option<Record>,
}

/// The versions of one record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordHistory {
    /// Newest first, at most [`MAX_HISTORY`].
    pub versions: Vec<Version>,
    /// There were older ones, which are out of the history window and were folded away.
    pub older_folded: bool,
}

/// Where a walk along a record's versions ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalkEnd {
    /// At its first version.
    First,
    /// Where older ones are out of the history window.
    Folded,
    /// Where `each` had enough.
    Enough,
}

/// Versions of the record whose row is `stored`, from its newest frame on.
pub(crate) fn history(
    log: &ViewHandle,
    stored: Option<StoredRow>,
    table: &TableName,
    key: &Key,
) -> Result<RecordHistory> {
    let Some(stored) = stored else { return Ok(RecordHistory::default()) };
    let mut versions = Vec::new();
    let end = walk(log, &stored, (table, key), &mut |version, _| {
        // What changed during a walk, and ahead of it, came with the walk and again behind it.
        let is_again = versions.last().is_some_and(|newer: &Version| {
            newer.seq.is_some() && (newer.seq, newer.what) == (version.seq, version.what)
        });
        if !is_again {
            versions.push(version);
        }
        versions.len() < MAX_HISTORY
    })?;
    let older_folded = end == WalkEnd::Folded;
    if versions.is_empty() && older_folded {
        versions.push(kept(stored));
    }
    Ok(RecordHistory { versions, older_folded })
}

/// Calls `each` with one version after the other, newest first, and the size of its frame, as long
/// as it answers true.
pub(crate) fn walk(
    log: &ViewHandle,
    stored: &StoredRow,
    name: (&TableName, &Key),
    each: &mut dyn FnMut(Version, usize) -> bool,
) -> Result<WalkEnd> {
    let mut position = stored.position;
    while position != 0 {
        let frame = match log.read_frame(position) {
            Err(StoreError::OutOfRange { .. }) => return Ok(WalkEnd::Folded),
            frame => frame?,
        };
        let Ok(payload) = Payload::from_frame(frame.kind, &frame.payload) else { break };
        let found = match payload {
            Payload::Local(local)
            | Payload::Retry(Retry { sent: local, .. })
            | Payload::Squash(Squash { sent: local, .. }) => of_local(position, &local, name),
            Payload::Decided(decided) => of_decided(position, &decided, name),
            Payload::Remote(page) => of_remote(position, page, name),
            Payload::Erasure(erasure) => of_erasure(position, &erasure, name),
            _ => None,
        };
        let Some((version, previous)) = found else { break };
        if !each(version, frame.payload.len()) {
            return Ok(WalkEnd::Enough);
        }
        // Positions fall along the chain; anything else would be a loop.
        position = if previous < position { previous } else { 0 };
    }
    Ok(WalkEnd::First)
}

/// The row itself, where its own frame was folded away.
pub(crate) fn kept(StoredRow { position, row }: StoredRow) -> Version {
    Version {
        position,
        seq: (row.last.seq != 0).then_some(row.last.seq),
        time_ms: row.time_ms,
        device: row.last.writer,
        what: match row.deleted {
            true if row.is_erased() => ERASED,
            true => "delete",
            false => "kept",
        },
        verdict: None,
        record: (!row.deleted).then_some(row.record),
    }
}

type Name<'a> = (&'a TableName, &'a Key);

fn place(ops: &[Op], (table, key): Name<'_>) -> Option<usize> {
    ops.iter().position(|op| &op.table == table && &op.key == key)
}

fn of_local(position: u64, frame: &LocalBatch, name: Name<'_>) -> Option<(Version, u64)> {
    let batch = frame.batch.as_ref();
    let synced = batch.map_or(&[][..], |batch| batch.ops.as_slice());
    let (op, at) = match place(synced, name) {
        Some(at) => (synced.get(at)?, at),
        None => {
            let at = place(&frame.local, name)?;
            (frame.local.get(at)?, synced.len() + at)
        }
    };
    let version = Version {
        position,
        seq: None,
        time_ms: i64::try_from(op.hlc.ms()).unwrap_or(i64::MAX),
        device: batch.map_or(DeviceId::AUTHORITY, |batch| batch.device),
        what: what(&op.action),
        verdict: None,
        record: written(&op.action),
    };
    Some((version, *frame.previous.get(at)?))
}

fn of_decided(position: u64, frame: &DecidedBatch, name: Name<'_>) -> Option<(Version, u64)> {
    let Decision::Accepted { first_seq, time_ms, verdicts, .. } = &frame.decision else {
        return None;
    };
    let client_ops = frame.batch.ops.len();
    let (op, at) = match place(&frame.batch.ops, name) {
        Some(at) => (frame.batch.ops.get(at)?, at),
        None => {
            let at = place(&frame.own, name)?;
            (frame.own.get(at)?, client_ops + at)
        }
    };
    let device = if at < client_ops { frame.batch.device } else { DeviceId::AUTHORITY };
    let version = Version {
        position,
        seq: Some(first_seq + at as u64),
        time_ms: *time_ms,
        device,
        what: what(&op.action),
        verdict: verdicts.get(at).cloned(),
        record: written(&op.action).or_else(|| frame.value_at(at).cloned()),
    };
    Some((version, *frame.previous.get(at)?))
}

fn of_remote(position: u64, page: RemotePage, (table, key): Name<'_>) -> Option<(Version, u64)> {
    let named = |entry: &Entry| {
        let Entry::Row { table: its_table, key: its_key, .. } = entry;
        its_table == table && its_key == key
    };
    let at = page.entries.iter().position(named)?;
    let previous = *page.previous.get(at)?;
    let Entry::Row { row, .. } = page.entries.into_iter().nth(at)?;
    // The history of an erased record begins with that.
    let previous = if row.is_erased() { 0 } else { previous };
    let version = Version {
        position,
        seq: Some(row.stream_seq()),
        time_ms: row.time_ms,
        device: if row.set_at == 0 { row.last.writer } else { DeviceId::AUTHORITY },
        what: match row.deleted {
            true if row.is_erased() => ERASED,
            true => "delete",
            false => "received",
        },
        verdict: None,
        record: (!row.deleted).then_some(row.record),
    };
    Some((version, previous))
}

/// What stood before it is not told any more.
fn of_erasure(position: u64, frame: &Erasure, (table, key): Name<'_>) -> Option<(Version, u64)> {
    let named = |(its_table, its_key): &(TableName, Key)| its_table == table && its_key == key;
    let at = frame.records.iter().position(named)?;
    let version = Version {
        position,
        seq: Some(frame.first_seq + at as u64),
        time_ms: frame.time_ms,
        device: DeviceId::AUTHORITY,
        what: ERASED,
        verdict: None,
        record: None,
    };
    Some((version, 0))
}

fn what(action: &Action) -> &'static str {
    match action {
        Action::Create { .. } => "create",
        Action::Put { .. } => "put",
        Action::Patch { .. } => "patch",
        Action::Delete => "delete",
        Action::Undelete { .. } => "undelete",
    }
}

fn written(action: &Action) -> Option<Record> {
    match action {
        Action::Create { record, .. } | Action::Put { record } => Some(record.clone()),
        Action::Patch { set, .. } => Some(Record::from_fields(set.clone())),
        Action::Delete | Action::Undelete { .. } => None,
    }
}
