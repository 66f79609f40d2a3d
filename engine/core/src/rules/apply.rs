//! Carrying out a verdict.

use alloc::string::String;
use alloc::vec::Vec;

use super::{At, Policy, TableRules, privacy};
use crate::id::{BatchId, DeviceId};
use crate::op::{Action, Op};
use crate::plant::{Plant, planted};
use crate::row::{FieldMark, Row};
use crate::stamp::Mark;
use crate::value::Record;

/// The row after an applied op. `dropped` are the fields that its verdict names: they stay as they
/// are in a live row, and a new life begins without them. The result is `row` unchanged where the
/// op cannot apply (an edit without a row): the authority never logs such a verdict.
#[must_use]
pub fn apply<'a>(
    row: Option<&Row>,
    op: &Op,
    writer: DeviceId,
    at: &At,
    rules: impl Into<TableRules<'a>>,
    dropped: &[String],
) -> Option<Row> {
    let mark = Mark { seq: at.seq, writer };
    let rules: TableRules<'_> = rules.into();
    if writer == DeviceId::AUTHORITY
        && let Some(set) = row.and_then(|row| set_owned(row, op, at, rules))
    {
        return Some(set);
    }
    let mut next = match (&op.action, row) {
        // Under the revision policy a create on a live record is a put.
        (Action::Create { record, replace: false }, Some(row)) if !row.deleted => {
            Row { born: row.born, ..begin(kept(Some(row), record, dropped), mark) }
        }
        (Action::Create { record, .. }, _) => begin(kept(None, record, dropped), mark),
        // Under the revision policy a put or delete may be the first thing known of a record.
        (Action::Put { record }, None) => begin(kept(None, record, dropped), mark),
        (Action::Delete, None) => Row { deleted: true, ..begin(Record::default(), mark) },
        // Its tombstones hold key and tuple only, and whose they are, so that it does not matter
        // which of the versions below was known.
        (Action::Delete, Some(row)) if rules.policy == Policy::Revision => {
            let record = privacy::emptied(&op.table, &row.record, rules);
            Row { deleted: true, ..begin(record, mark) }
        }
        (Action::Put { record }, Some(row)) => {
            let born = if row.deleted { mark } else { row.born };
            let live = Some(row).filter(|row| !row.deleted);
            Row { born, ..begin(kept(live, record, dropped), mark) }
        }
        (Action::Patch { set, remove }, Some(row)) => patch(row, set, remove, mark, dropped),
        (Action::Delete, Some(row)) => Row { deleted: true, last: mark, ..row.clone() },
        (Action::Undelete { .. }, Some(row)) => {
            let born = if planted(Plant::UndeleteBeginsLife) { mark } else { row.born };
            Row { born, ..begin(row.record.clone(), mark) }
        }
        (Action::Patch { .. } | Action::Undelete { .. }, None) => return None,
    };
    next.set_at = 0;
    next.time_ms = at.time_ms;
    next.revision = op.revision;
    next.hlc = op.hlc;
    next.op_id = at.op_id;
    Some(next)
}

/// A live row after the authority has set fields that it owns, if the op does that and no more.
/// The row moves in the stream; who wrote it, and when, does not. Under policy `revision` a tuple
/// names one value, so this one gets a tuple of its own: the next id, so near that no edit which
/// has not seen it comes in between, and loses.
fn set_owned(row: &Row, op: &Op, at: &At, rules: TableRules<'_>) -> Option<Row> {
    let Action::Patch { set, remove } = &op.action else { return None };
    let mut names = set.iter().map(|field| &field.name).chain(remove).peekable();
    if row.deleted || names.peek().is_none() || !names.all(|name| rules.owns(name)) {
        return None;
    }
    let mut next = Row { set_at: at.seq, ..row.clone() };
    set.iter().for_each(|field| next.record.set(field.clone()));
    remove.iter().for_each(|name| next.record.remove(name));
    if rules.policy == Policy::Revision {
        let id = u128::from_be_bytes(row.op_id.0).saturating_add(1);
        next.op_id = BatchId(id.to_be_bytes());
    }
    Some(next)
}

/// A whole record as written, but the dropped fields as they are in the row it is written on.
fn kept(row: Option<&Row>, record: &Record, dropped: &[String]) -> Record {
    let mut record = record.clone();
    for name in dropped {
        match row.and_then(|row| row.record.field(name)) {
            Some(field) => record.set(field.clone()),
            None => record.remove(name),
        }
    }
    record
}

fn begin(record: Record, mark: Mark) -> Row {
    Row {
        deleted: false,
        last: mark,
        time_ms: 0,
        born: mark,
        full: mark,
        fields: Vec::new(),
        set_at: 0,
        revision: 0,
        hlc: crate::hlc::Hlc::default(),
        op_id: crate::id::BatchId::default(),
        record,
    }
}

fn patch(
    row: &Row,
    set: &[crate::value::Field],
    remove: &[String],
    mark: Mark,
    dropped: &[String],
) -> Row {
    let mut next = row.clone();
    next.last = mark;
    for field in set.iter().filter(|field| !dropped.contains(&field.name)) {
        next.record.set(field.clone());
        touch(&mut next.fields, &field.name, mark);
    }
    for name in remove.iter().filter(|name| !dropped.contains(name)) {
        next.record.remove(name);
        if !planted(Plant::ForgetRemovedStamp) {
            touch(&mut next.fields, name, mark);
        }
    }
    next
}

fn touch(fields: &mut Vec<FieldMark>, name: &str, mark: Mark) {
    match fields.iter_mut().find(|field| field.name == name) {
        Some(field) => field.mark = mark,
        None => fields.push(FieldMark { name: name.into(), mark }),
    }
}
