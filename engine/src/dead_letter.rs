//! Dead letters: batches that the server refused, kept with their reason.
//!
//! A refused batch and every later one that touches a record which it (transitively) wrote leave
//! the outbox as one unit, in one local step; the rest is renumbered and goes on. Nothing is lost:
//! the ops stay in the log, and a row of `_dead_letters` per batch says where and why.
//!
//! A unit may have as many batches as an outbox, so rows that do not fit the frame which takes the
//! unit out go into frames before it. After a crash between them the refusal comes again, and the
//! same rows are written over themselves.

use std::collections::{BTreeMap, BTreeSet};

use lastword_core::codec::to_bytes;
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, Key, TableName, WorkspaceName};
use lastword_core::limits::MAX_BATCH_OPS;
use lastword_core::op::{Action, Op};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::Decided;
use lastword_core::row::Row;
use lastword_core::stamp::{Decision, RefusalCode};
use lastword_core::value::{Field, Record, Value};
use lastword_store::keys::{self, OutboxEntry, StoredRow};
use lastword_store::payload::{DeadLetters, LocalBatch, Payload, SetAside};
use lastword_store::read::{self, ReadState};

use crate::convert;
use crate::error::{Error, Result};
use crate::survivors::LOST_BY_RESTORE;
use crate::tables::{self, RefusedBatch};

/// Bytes of rows after which another frame is begun, well below the limit of a frame.
const ROWS_BYTES: usize = 4 * 1024 * 1024;
/// Names of records in one row stop here, so that the row fits a record; the ops in the log have
/// them all.
const RECORDS_BYTES: usize = 128 * 1024;

/// What is said of a batch that may be at the server or not.
const UNSURE: &str = "it may have reached the server under another device id, and this device was \
                      away for too long to be told: look whether it is there";
/// Code of a dead letter that a salvage found without a verdict.
pub(crate) const SALVAGED: &str = "salvaged";

/// One refused batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its identity.
    pub batch_id: BatchId,
    /// The refused batch that this one went down with; the same for the whole unit.
    pub unit: BatchId,
    /// Its workspace.
    pub workspace: String,
    /// Why, in one word.
    pub code: String,
    /// For people.
    pub message: String,
    /// When the refusal was stored, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// The records that it names, as `table/key`.
    pub records: Vec<String>,
}

/// The frame that takes a refused batch and what depends on it out of the outbox.
pub(crate) fn unit<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    refused: &Decided,
    now_ms: i64,
) -> Result<DeadLetters> {
    let waiting = read::outbox(state, workspace, refused.counter, usize::MAX)?;
    let is_refused = |counter: u64, _: &OutboxEntry| counter == refused.counter;
    let why = Why::refused(refused, now_ms);
    let Leaving { counters, renumbered, rows } =
        leaving(workspace, waiting, refused.counter + 1, is_refused, &why);
    let (workspace, refused) = (workspace.clone(), refused.clone());
    Ok(DeadLetters { workspace, refused, counters, renumbered, rows })
}

/// What becomes of a batch of which it is too late to ask whether the server has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It stays in the outbox.
    Waits,
    /// The server has it: its verdict was stored here.
    Accepted,
    /// Nobody knows.
    Unknown,
}

/// The frame that takes batches out of the outbox of which it is too late to ask whether the server
/// has them, and what depends on those of which nobody knows; none if all wait. One that the server
/// has leaves no letter: the copy that it sends holds it. `next` is the first counter that is free.
pub(crate) fn unsure<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    next: u64,
    outcome: impl Fn(u64, &OutboxEntry) -> Outcome,
    now_ms: i64,
) -> Result<Option<SetAside>> {
    let waiting = read::outbox(state, workspace, next, usize::MAX)?;
    let told = |(counter, entry): &(u64, OutboxEntry)| outcome(*counter, entry);
    let first = waiting.iter().find(|waiting| told(waiting) == Outcome::Unknown);
    let Some(unit) = first.or(waiting.iter().find(|waiting| told(waiting) != Outcome::Waits))
    else {
        return Ok(None);
    };
    let code = RefusalCode::OutcomeUnknown.as_str();
    let why = Why { unit: unit.1.batch_id, code, message: UNSURE, now_ms };
    let (accepted, waiting): (Vec<_>, Vec<_>) =
        waiting.into_iter().partition(|waiting| told(waiting) == Outcome::Accepted);
    let is_unsure = |counter, entry: &OutboxEntry| outcome(counter, entry) == Outcome::Unknown;
    let Leaving { mut counters, renumbered, rows } =
        leaving(workspace, waiting, next, is_unsure, &why);
    counters.extend(accepted.iter().map(|(counter, _)| counter));
    counters.sort_unstable();
    Ok(Some(SetAside { workspace: workspace.clone(), counters, renumbered, rows }))
}

/// Batches that leave the outbox together, and those that take their counters.
struct Leaving {
    counters: Vec<u64>,
    renumbered: Vec<(u64, u64)>,
    rows: Vec<Op>,
}

/// Of the `waiting` batches those that `leaves` names and what depends on them; the others get the
/// counters from `next` on.
fn leaving(
    workspace: &WorkspaceName,
    waiting: Vec<(u64, OutboxEntry)>,
    mut next: u64,
    leaves: impl Fn(u64, &OutboxEntry) -> bool,
    why: &Why<'_>,
) -> Leaving {
    let mut touched: BTreeSet<(TableName, Key)> = BTreeSet::new();
    let (mut counters, mut renumbered, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (counter, entry) in waiting {
        let depends = entry.records.iter().any(|record| touched.contains(record))
            && !planted(Plant::UnitOfOne);
        if depends || leaves(counter, &entry) {
            rows.push(letter(workspace, why, counters.len(), &entry));
            counters.push(counter);
            touched.extend(entry.records);
        } else {
            if counter != next {
                renumbered.push((counter, next));
            }
            next += 1;
        }
    }
    Leaving { counters, renumbered, rows }
}

/// The rows of what is set aside as frames: those that go before, and the last with what is left.
pub(crate) fn set_aside(mut frame: SetAside) -> Vec<Payload> {
    let (mut frames, rest) = row_frames(std::mem::take(&mut frame.rows));
    frame.rows = rest;
    frames.push(Payload::SetAside(frame));
    frames
}

/// What the writers of those batches are told.
pub(crate) fn told_unsure(frame: &SetAside, now_ms: i64) -> Vec<(BatchId, Decision)> {
    let (code, message) = (RefusalCode::OutcomeUnknown, UNSURE.to_owned());
    let decision = Decision::Refused { code, message, time_ms: now_ms };
    let batches = frame.rows.iter().filter_map(|row| BatchId::parse(row.key.as_str()));
    batches.map(|batch_id| (batch_id, decision.clone())).collect()
}

/// The rows of a unit as frames: those that go before, and the last with what is left.
pub(crate) fn frames(mut unit: DeadLetters) -> Vec<Payload> {
    let (mut frames, rest) = row_frames(std::mem::take(&mut unit.rows));
    unit.rows = rest;
    frames.push(Payload::DeadLetters(unit));
    frames
}

/// Batches of a workspace that a copy holds and no server has decided, as far as it knows: they
/// become one unit, since each may have been sent from the original after all.
pub(crate) fn of_unsent(
    workspace: &WorkspaceName,
    code: &str,
    message: &str,
    undecided: &[OutboxEntry],
    now_ms: i64,
) -> Vec<Payload> {
    let Some(unit) = undecided.first().map(|first| first.batch_id) else { return Vec::new() };
    let why = Why { unit, code, message, now_ms };
    let row = |(place, entry)| letter(workspace, &why, place, entry);
    let (mut frames, rest) = row_frames(undecided.iter().enumerate().map(row).collect());
    frames.push(rows_frame(rest));
    frames
}

/// Rows that the server has lost, by batch and by the frame that brought them.
pub(crate) type Lost = BTreeMap<(BatchId, u64), OutboxEntry>;

/// Adds a row that the server has lost to those of its batch. Its value is in the frame that
/// brought it, which stays in the log as long as its dead letter does.
pub(crate) fn add_lost(lost: &mut Lost, table: TableName, key: Key, stored: &StoredRow) {
    let StoredRow { position, row } = stored;
    let entry = lost.entry((row.op_id, *position)).or_insert_with(|| OutboxEntry {
        batch_id: row.op_id,
        payload_hash: [0; 32],
        position: *position,
        created_ms: row.time_ms,
        records: Vec::new(),
        settled: None,
        again: false,
    });
    entry.records.push((table, key));
}

/// Their dead letters, each batch a unit of its own. One whose rows came in several frames has a
/// letter for each. The page that ends a reset may have found no room after they were written and
/// come once more: then those that somebody has sent again or thrown away stay gone.
pub(crate) fn of_lost<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    lost: &Lost,
    now_ms: i64,
) -> Result<Vec<Payload>> {
    let message = "the server was restored from a backup that does not have this change";
    let (mut rows, mut taken) = (Vec::new(), BTreeSet::new());
    for entry in lost.values() {
        for place in 0.. {
            let batch_id = entry.batch_id.part(place);
            match told_of(state, batch_id)? {
                Some(position) if position == entry.position => break,
                Some(_) => {}
                None if !taken.insert(batch_id) => {}
                None => {
                    let why = Why { unit: entry.batch_id, code: LOST_BY_RESTORE, message, now_ms };
                    let entry = OutboxEntry { batch_id, ..entry.clone() };
                    rows.push(letter(workspace, &why, place, &entry));
                    break;
                }
            }
        }
    }
    Ok(of_rows(rows))
}

/// Where the ops of a letter are, also of one that is gone.
fn told_of<S: ReadState>(state: &S, batch_id: BatchId) -> Result<Option<u64>> {
    let key = Key::new(&batch_id.to_string()).expect("invariant: an id is a key");
    let row_key = keys::row_key(&read::store_workspace(), 0, &tables::dead_letters(), &key);
    Ok(read::row(state, &row_key)?.map(|stored| position(&stored.row.record)))
}

fn position(letter: &Record) -> u64 {
    match letter.get("position") {
        Some(Value::Int(position)) => u64::try_from(position).unwrap_or(0),
        _ => 0,
    }
}

/// Rows as frames.
pub(crate) fn of_rows(rows: Vec<Op>) -> Vec<Payload> {
    let (mut frames, rest) = row_frames(rows);
    if !rest.is_empty() {
        frames.push(rows_frame(rest));
    }
    frames
}

/// Ops that write the rows of all dead letters again as they are, each with the place of its ops.
pub(crate) fn as_they_are<S: ReadState>(state: &S) -> Result<Vec<(u64, Op)>> {
    let prefix = keys::table_prefix(&read::store_workspace(), 0, &tables::dead_letters());
    let rows = read::table_rows(state, &prefix, &[], None, false, usize::MAX)?;
    let op = |key, row: Row| {
        let position = position(&row.record);
        let action = Action::Create { record: row.record, replace: true };
        let (table, hlc, revision) = (tables::dead_letters(), row.hlc, row.revision);
        (position, Op { table, key, base: 0, revision, hlc, action })
    };
    Ok(rows.into_iter().map(|(_, key, stored)| op(key, stored.row)).collect())
}

/// The batch that a row of `_dead_letters` is about, if the op makes one.
pub(crate) fn batch_of(op: &Op) -> Option<BatchId> {
    (op.table == tables::dead_letters()).then(|| BatchId::parse(op.key.as_str())).flatten()
}

/// The row with the place to which the ops of its batch moved.
pub(crate) fn moved(mut row: Op, moved: impl Fn(u64) -> u64) -> Op {
    if let Action::Create { record, .. } = &mut row.action
        && let Some(Value::Int(position)) = record.get("position")
    {
        let position = moved(u64::try_from(position).unwrap_or(0));
        let position = Value::Int(i64::try_from(position).unwrap_or(i64::MAX));
        record.set(Field::new("position", &position));
    }
    row
}

/// Frames for rows that do not fit one, and the rows that are left.
fn row_frames(all: Vec<Op>) -> (Vec<Payload>, Vec<Op>) {
    let (mut frames, mut rows, mut size_bytes) = (Vec::new(), Vec::new(), 0);
    for row in all {
        let row_bytes = to_bytes(&row).len();
        if rows.len() == MAX_BATCH_OPS || size_bytes + row_bytes > ROWS_BYTES {
            frames.push(rows_frame(std::mem::take(&mut rows)));
            size_bytes = 0;
        }
        size_bytes += row_bytes;
        rows.push(row);
    }
    (frames, rows)
}

/// A frame that changes rows of `_dead_letters` and nothing else.
pub(crate) fn rows_frame(rows: Vec<Op>) -> Payload {
    Payload::Local(LocalBatch {
        workspace: read::store_workspace(),
        batch: None,
        previous: vec![0; rows.len()],
        local: rows,
    })
}

/// What the writers of a unit's batches are told: each left the outbox, the later ones because they
/// built on the refused one.
pub(crate) fn verdicts(unit: &DeadLetters) -> Vec<(BatchId, Decision)> {
    let batches = unit.rows.iter().filter_map(|row| BatchId::parse(row.key.as_str()));
    batches.map(|batch_id| (batch_id, unit.refused.decision.clone())).collect()
}

/// Why batches became dead letters.
struct Why<'a> {
    unit: BatchId,
    code: &'a str,
    message: &'a str,
    now_ms: i64,
}

impl<'a> Why<'a> {
    fn refused(refused: &'a Decided, now_ms: i64) -> Self {
        let (code, message) = match &refused.decision {
            Decision::Refused { code, message, .. } => (code.as_str(), message.as_str()),
            Decision::Accepted { .. } => ("accepted", ""),
        };
        Self { unit: refused.batch_id, code, message, now_ms }
    }
}

fn letter(workspace: &WorkspaceName, why: &Why<'_>, place: usize, entry: &OutboxEntry) -> Op {
    let mut left = RECORDS_BYTES;
    let records = entry.records.iter().map_while(|(table, key)| {
        let name = format!("{table}/{key}");
        left = left.checked_sub(name.len())?;
        Some(Value::Text(name))
    });
    let records: Vec<Value> = records.collect();
    let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let fields = [
        ("unit", Value::Text(why.unit.to_string())),
        ("place", int(place as u64)),
        ("workspace", Value::Text(workspace.as_str().into())),
        ("code", Value::Text(why.code.into())),
        ("message", Value::Text(why.message.into())),
        ("time_ms", Value::Int(why.now_ms)),
        ("created_ms", Value::Int(entry.created_ms)),
        ("position", int(entry.position)),
        ("records", Value::List(records)),
    ];
    let fields = fields.iter().map(|(name, value)| Field::new(name, value)).collect();
    Op {
        table: tables::dead_letters(),
        key: Key::new(&entry.batch_id.to_string()).expect("invariant: an id is a key"),
        base: 0,
        revision: 1,
        hlc: Hlc::default().next(why.now_ms),
        action: Action::Create { record: Record::from_fields(fields), replace: false },
    }
}

/// A dead letter that may be sent again, and where its ops are.
pub(crate) struct Kept {
    pub(crate) batch_id: BatchId,
    /// Position of the frame with its ops.
    pub(crate) position: u64,
    place: u64,
}

/// The letters of one unit in their order.
pub(crate) fn of_unit<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    unit: BatchId,
) -> Result<Vec<Kept>> {
    let prefix = keys::table_prefix(&read::store_workspace(), 0, &tables::dead_letters());
    let mut found = Vec::new();
    for (_, key, stored) in read::table_rows(state, &prefix, &[], None, false, usize::MAX)? {
        let row = as_row(&key, &stored.row.record)?;
        let batch_id = BatchId::parse(key.as_str()).unwrap_or_default();
        if row.workspace == workspace.as_str() && row.unit == unit.to_string() {
            found.push(Kept { batch_id, position: row.position, place: row.place });
        }
    }
    found.sort_by_key(|kept| kept.place);
    Ok(found)
}

/// Deletes the row of a dead letter; none if it is gone already.
pub(crate) fn removal<S: ReadState>(state: &S, letter: BatchId, now_ms: i64) -> Result<Option<Op>> {
    let key = Key::new(&letter.to_string()).expect("invariant: an id is a key");
    let table = tables::dead_letters();
    let row_key = keys::row_key(&read::store_workspace(), 0, &table, &key);
    let stored = read::row(state, &row_key)?.filter(|stored| !stored.row.deleted);
    Ok(stored.map(|stored| Op {
        table,
        key,
        base: 0,
        revision: stored.row.revision.saturating_add(1),
        hlc: stored.row.hlc.next(now_ms),
        action: Action::Delete,
    }))
}

/// All dead letters of this device, in no particular order.
pub(crate) fn all<S: ReadState>(state: &S) -> Result<Vec<DeadLetter>> {
    let prefix = keys::table_prefix(&read::store_workspace(), 0, &tables::dead_letters());
    let rows = read::table_rows(state, &prefix, &[], None, false, usize::MAX)?;
    rows.into_iter().map(|(_, key, stored)| from_record(&key, &stored.row.record)).collect()
}

fn as_row(key: &Key, record: &Record) -> Result<RefusedBatch> {
    convert::from_record(record).map_err(|error| Error::Record {
        table: tables::DEAD_LETTERS.name().into(),
        key: key.as_str().into(),
        reason: error.to_string(),
    })
}

fn from_record(key: &Key, record: &Record) -> Result<DeadLetter> {
    let row = as_row(key, record)?;
    Ok(DeadLetter {
        batch_id: BatchId::parse(key.as_str()).unwrap_or_default(),
        unit: BatchId::parse(&row.unit).unwrap_or_default(),
        workspace: row.workspace,
        code: row.code,
        message: row.message,
        time_ms: row.time_ms,
        records: row.records,
    })
}
