//! Conflicts: what a row of `_conflicts` says, and under which key.

use alloc::string::String;
use alloc::vec::Vec;

use super::{At, Policy, TableRules};
use crate::codec::Encoder;
use crate::id::{DeviceId, Key, TableName};
use crate::limits::{
    HISTORY_WINDOW_MS, MAX_CONFLICT_INLINE_BYTES, MAX_DEPTH, MAX_FIELDS, MAX_RECORD_BYTES,
};
use crate::op::{Action, Op};
use crate::plant::{Plant, planted};
use crate::row::Row;
use crate::stamp::{Mark, Superseded};
use crate::value::{Field, Record, Value};

/// The table of conflict rows, in each workspace.
pub const CONFLICTS_TABLE: &str = "_conflicts";
/// Inline values of one conflict row stop here, so that it fits a message whatever the record.
const MAX_INLINE_TOTAL_BYTES: usize = 16 * MAX_CONFLICT_INLINE_BYTES;
/// Fields of one conflict row stop here, names and places counted, for the same reason.
const MAX_LISTED_BYTES: usize = 64 * 1024;
/// More than a field takes in a conflict row besides its name and its inline values.
const LISTED_FIELD_BYTES: usize = 96;

const _: () = assert!(MAX_INLINE_TOTAL_BYTES + MAX_LISTED_BYTES + 16 * 1024 < MAX_RECORD_BYTES);
const _: () = assert!(MAX_LISTED_BYTES / LISTED_FIELD_BYTES < MAX_FIELDS);

/// One writer's value gave way to another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The version that stands; seq 0 if the record is gone and forgotten.
    pub winner: Mark,
    /// The version that gave way.
    pub loser: Mark,
    /// Why, in one word: `overwritten`, or the reason of the superseded op.
    pub reason: &'static str,
    /// True if the loser wanted the record deleted.
    pub loser_deletes: bool,
    /// True if the record is deleted in the version that stands.
    pub winner_deletes: bool,
    /// Fields whose values differ.
    pub fields: Vec<Disputed>,
}

/// One field with both values, encoded; `None` where a side has no such field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disputed {
    /// The field.
    pub name: String,
    /// Its value in the version that stands.
    pub winning: Option<Vec<u8>>,
    /// Its value in the version that gave way.
    pub losing: Option<Vec<u8>>,
}

fn value_of(record: &Record, name: &str) -> Option<Vec<u8>> {
    record.field(name).map(|field| field.value.clone())
}

/// Conflicts, one per losing device, of an op that applies although it had not seen the marks that
/// `unseen` picks.
pub(super) fn overwritten(
    old: &Row,
    new: &Row,
    at: &At,
    unseen: &dyn Fn(Mark) -> bool,
    rules: TableRules<'_>,
) -> Vec<Conflict> {
    let deletes = new.deleted;
    let empty = Record::default();
    let kept = if deletes { &empty } else { &new.record };
    let winner = Mark { seq: at.seq, writer: new.last.writer };
    let conflict = |loser: Mark, fields: Vec<Disputed>| Conflict {
        winner,
        loser,
        reason: "overwritten",
        loser_deletes: old.deleted,
        winner_deletes: deletes,
        fields,
    };
    let mut conflicts: Vec<Conflict> = Vec::new();
    // What the server owns is nobody's, so it tells of no loss.
    for name in field_names(old, kept).into_iter().filter(|name| !rules.owns(name)) {
        let mark = old.field_mark(name);
        let (winning, losing) = (value_of(kept, name), value_of(&old.record, name));
        let is_same = winning == losing && !deletes && !planted(Plant::ConflictOfEquals);
        if !unseen(mark) || is_same {
            continue;
        }
        let disputed = Disputed { name: name.into(), winning, losing };
        match conflicts.iter_mut().find(|c| c.loser.writer == mark.writer) {
            Some(conflict) => {
                conflict.loser.seq = conflict.loser.seq.max(mark.seq);
                conflict.fields.push(disputed);
            }
            None => conflicts.push(conflict(mark, alloc::vec![disputed])),
        }
    }
    if planted(Plant::OneLoserOnly) {
        conflicts.truncate(1);
    }
    // A delete takes away what others did, also where no field is left to show it.
    if conflicts.is_empty() && deletes {
        let marks = [old.last, old.full, old.born];
        conflicts.extend(marks.into_iter().find(|m| unseen(*m)).map(|m| conflict(m, Vec::new())));
    }
    conflicts
}

/// The conflict of two whole versions of which only the tuple of (revision, hlc, op id) tells which
/// stands; none if they are the same.
pub(super) fn outranked(old: &Row, new: &Row, at: &At) -> Option<Conflict> {
    let empty = Record::default();
    let losing = if old.deleted { &empty } else { &old.record };
    let winning = if new.deleted { &empty } else { &new.record };
    let names = losing.fields().iter().chain(winning.fields()).map(|field| field.name.as_str());
    let mut seen = alloc::collections::BTreeSet::new();
    let disputed = names.filter(|name| seen.insert(*name)).map(|name| Disputed {
        name: name.into(),
        winning: value_of(winning, name),
        losing: value_of(losing, name),
    });
    let fields: Vec<Disputed> = disputed.filter(|field| field.winning != field.losing).collect();
    (old.deleted != new.deleted || !fields.is_empty()).then_some(Conflict {
        winner: Mark { seq: at.seq, writer: new.last.writer },
        loser: old.last,
        reason: "overwritten",
        loser_deletes: old.deleted,
        winner_deletes: new.deleted,
        fields,
    })
}

/// The conflict of a version of a lost history, which gives way to what is there now; none if they
/// are the same.
#[must_use]
pub fn gave_way(lost: &Row, now: &Row, reason: &'static str) -> Option<Conflict> {
    let at = At { seq: now.last.seq, time_ms: now.time_ms, op_id: now.op_id };
    outranked(lost, now, &at).map(|conflict| Conflict { reason, ..conflict })
}

/// Every field that either side has or the old row remembers as removed, each once.
fn field_names<'a>(old: &'a Row, new: &'a Record) -> Vec<&'a str> {
    let kept = old.record.fields().iter().chain(new.fields()).map(|field| field.name.as_str());
    let changed = old.fields.iter().map(|field| field.name.as_str());
    let mut seen = alloc::collections::BTreeSet::new();
    kept.chain(changed).filter(|name| seen.insert(*name)).collect()
}

/// The conflict of an op that was superseded, unless it asked for what is there already. A delete
/// gave way to the fields that it had not seen, or under `revision` to all.
pub(super) fn lost(
    row: Option<&Row>,
    op: &Op,
    writer: DeviceId,
    at: &At,
    rules: TableRules<'_>,
    reason: Superseded,
    unseen: &dyn Fn(Mark) -> bool,
) -> Option<Conflict> {
    let live = row.filter(|row| !row.deleted);
    let empty = Record::default();
    let stands = live.map_or(&empty, |row| &row.record);
    let wanted = wanted_fields(op, stands);
    let in_the_way = |name: &str| {
        let is_new = || live.is_some_and(|row| unseen(row.field_mark(name)));
        op.action != Action::Delete || rules.policy == Policy::Revision || is_new()
    };
    let fields: Vec<Disputed> = wanted
        .into_iter()
        .filter(|(name, _)| !rules.owns(name) && in_the_way(name))
        .map(|(name, losing)| Disputed { winning: value_of(stands, &name), name, losing })
        .filter(|disputed| disputed.winning != disputed.losing)
        .collect();
    let loser_deletes = op.action == Action::Delete;
    let wants_what_stands = fields.is_empty() && live.is_some() && !loser_deletes;
    (!wants_what_stands).then(|| Conflict {
        winner: row.map_or(Mark::default(), |row| row.last),
        loser: Mark { seq: at.seq, writer },
        reason: reason.as_str(),
        loser_deletes,
        winner_deletes: live.is_none(),
        fields,
    })
}

/// The conflict of a patch that applies without its stale fields.
pub(super) fn dropped(
    row: &Row,
    op: &Op,
    writer: DeviceId,
    at: &At,
    stale: &[String],
) -> Option<Conflict> {
    let mut winner = Mark::default();
    let mut fields = Vec::new();
    for (name, losing) in wanted_fields(op, &row.record) {
        let winning = value_of(&row.record, &name);
        if !stale.contains(&name) || winning == losing {
            continue;
        }
        let mark = row.field_mark(&name);
        winner = if mark.seq > winner.seq { mark } else { winner };
        fields.push(Disputed { name, winning, losing });
    }
    (!fields.is_empty()).then_some(Conflict {
        winner,
        loser: Mark { seq: at.seq, writer },
        reason: "dropped",
        loser_deletes: false,
        winner_deletes: false,
        fields,
    })
}

/// What the op wanted each field to be; a whole write also wants the others gone.
fn wanted_fields(op: &Op, stands: &Record) -> Vec<(String, Option<Vec<u8>>)> {
    let some = |field: &Field| (field.name.clone(), Some(field.value.clone()));
    match &op.action {
        Action::Create { record, .. } | Action::Put { record } => {
            let gone = stands.fields().iter().filter(|field| record.field(&field.name).is_none());
            let gone = gone.map(|field| (field.name.clone(), None));
            record.fields().iter().map(some).chain(gone).collect()
        }
        Action::Patch { set, remove } => {
            set.iter().map(some).chain(remove.iter().map(|name| (name.clone(), None))).collect()
        }
        Action::Delete => stands.fields().iter().map(|f| (f.name.clone(), None)).collect(),
        Action::Undelete { .. } => Vec::new(),
    }
}

/// The key under which a conflict is recorded: the same conflict always has the same key, and keys
/// sort by the seq that won.
#[must_use]
pub fn conflict_key(table: &TableName, key: &Key, conflict: &Conflict) -> Key {
    let mut out = Encoder::default();
    out.str(table.as_str());
    out.str(key.as_str());
    out.raw(&conflict.loser.writer.0);
    let hash = blake3::hash(&out.into_bytes()).to_hex();
    let tail: String = hash.chars().take(16).collect();
    let newer = conflict.winner.seq.max(conflict.loser.seq);
    let older = conflict.winner.seq.min(conflict.loser.seq);
    let text = alloc::format!("{newer:016x}-{older:016x}-{tail}");
    Key::new(&text).expect("invariant: 50 hexadecimal digits are a key")
}

/// The value of a conflict row: fits a record whatever the disputed fields are. `fields_left_out`
/// counts those that it does not list; the history of the record has them all.
#[must_use]
pub fn conflict_record(
    table: &TableName,
    key: &Key,
    conflict: &Conflict,
    policy: Policy,
    time_ms: i64,
) -> Record {
    let (fields, left_out) = listed_fields(conflict);
    let text = |text: &str| Value::Text(text.into());
    let int = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let mut entries = alloc::vec![
        ("table", text(table.as_str())),
        ("key", text(key.as_str())),
        ("reason", text(conflict.reason)),
        ("policy", text(policy.as_str())),
        ("winning_seq", int(conflict.winner.seq)),
        ("winning_device", text(&alloc::format!("{}", conflict.winner.writer))),
        ("losing_seq", int(conflict.loser.seq)),
        ("losing_device", text(&alloc::format!("{}", conflict.loser.writer))),
        ("winning_deletes", Value::Bool(conflict.winner_deletes)),
        ("losing_deletes", Value::Bool(conflict.loser_deletes)),
        ("fields", Value::Map(fields)),
        ("time_ms", Value::Int(time_ms)),
        ("expires_ms", Value::Int(time_ms.saturating_add(HISTORY_WINDOW_MS))),
    ];
    if left_out > 0 {
        entries.push(("fields_left_out", int(left_out as u64)));
    }
    Record::from_fields(entries.iter().map(|(name, value)| Field::new(name, value)).collect())
}

/// Both sides of each disputed field, and how many fields there was no room for.
fn listed_fields(conflict: &Conflict) -> (Vec<(String, Value)>, usize) {
    let (mut inline_bytes, mut listed_bytes) = (MAX_INLINE_TOTAL_BYTES, MAX_LISTED_BYTES);
    let mut fields = Vec::new();
    for disputed in &conflict.fields {
        let size = disputed.name.len() + LISTED_FIELD_BYTES;
        if size > listed_bytes {
            break;
        }
        listed_bytes -= size;
        let mut sides = Vec::new();
        for (side, value, seq) in [
            ("winning", &disputed.winning, conflict.winner.seq),
            ("losing", &disputed.losing, conflict.loser.seq),
        ] {
            if let Some(value) = value {
                sides.push((side.into(), side_value(value, seq, &mut inline_bytes)));
            }
        }
        fields.push((disputed.name.clone(), Value::Map(sides)));
    }
    let left_out = conflict.fields.len() - fields.len();
    (fields, left_out)
}

/// A value in place if it is small and shallow enough, else where to read it.
fn side_value(encoded: &[u8], seq: u64, budget: &mut usize) -> Value {
    let small = encoded.len() <= MAX_CONFLICT_INLINE_BYTES && encoded.len() <= *budget;
    let inline = small.then(|| crate::codec::from_bytes::<Value>(encoded).ok()).flatten();
    // Two levels (field, side) are added around the value.
    if let Some(value) = inline.filter(|value| depth(value) + 2 <= MAX_DEPTH) {
        *budget -= encoded.len();
        return value;
    }
    let size = i64::try_from(encoded.len()).unwrap_or(i64::MAX);
    let seq = i64::try_from(seq).unwrap_or(i64::MAX);
    Value::Map(alloc::vec![
        ("seq".into(), Value::Int(seq)),
        ("size_bytes".into(), Value::Int(size)),
    ])
}

fn depth(value: &Value) -> usize {
    match value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, v)| depth(v)).max().unwrap_or(0),
        _ => 1,
    }
}
