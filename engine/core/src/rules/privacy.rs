//! Rows that only one user may see: whose a row is, and who may write it.
//!
//! A field of the row names its user. It never changes, and what is left of a row when its value
//! goes keeps it, so whether a row is shown to a user depends on nothing but the row.

use alloc::format;
use alloc::string::String;

use super::TableRules;
use crate::id::TableName;
use crate::op::{Action, Op};
use crate::plant::{Plant, planted};
use crate::row::Row;
use crate::value::{Field, Record, Value};

/// The field by which a row of a product table is one user's; where it is missing, the row is
/// everybody's.
pub const PRIVATE_TO: &str = "private_to";

fn field_of<'a>(table: &TableName, rules: TableRules<'a>) -> Option<&'a str> {
    if table.is_reserved() { Some(PRIVATE_TO) } else { rules.private_by }
}

fn user_in(record: &Record, field: &str) -> Option<String> {
    match record.get(field) {
        Some(Value::Text(user)) => Some(user),
        _ => None,
    }
}

/// Whether a user may see a row of this table that has or had this record. In a private table, a
/// row that names no user is nobody's.
#[must_use]
pub fn sees(user: &str, table: &TableName, record: &Record, rules: TableRules<'_>) -> bool {
    let Some(field) = field_of(table, rules) else { return true };
    match record.field(field) {
        Some(_) => user_in(record, field).is_some_and(|named| named == user),
        None => table.is_reserved(),
    }
}

/// The record with nothing left but what says whose it is.
#[must_use]
pub fn emptied(table: &TableName, record: &Record, rules: TableRules<'_>) -> Record {
    let field = field_of(table, rules).filter(|_| !planted(Plant::ErasedOfNobody));
    let kept = field.and_then(|field| record.field(field)).cloned();
    Record::from_fields(kept.into_iter().collect())
}

/// Why a user's op may not touch a row of a private table, if it may not: the row is another's, or
/// would become so. It tells nothing of the row but that it is not the user's.
#[must_use]
pub fn objection(row: Option<&Row>, op: &Op, user: &str, rules: TableRules<'_>) -> Option<String> {
    let field = rules.private_by.filter(|_| !planted(Plant::ForeignRowWritten))?;
    let named = row.and_then(|row| user_in(&row.record, field));
    let is_begun = matches!(op.action, Action::Create { .. } | Action::Put { .. });
    // A tombstone that names nobody is of a delete that came before anything else was known.
    let is_free = row.is_none_or(|row| row.deleted) && named.is_none();
    if !is_free && named.as_deref() != Some(user) {
        return Some("the record there is not this user's: choose another key".into());
    }
    let becomes_own = match &op.action {
        Action::Create { record, .. } | Action::Put { record } => {
            user_in(record, field).is_some_and(|named| named == user)
        }
        Action::Patch { set, remove } => {
            let set = set.iter().find(|set| set.name == field);
            let same = |set: &Field| match set.decode_value() {
                Ok(Value::Text(named)) => named == user,
                _ => false,
            };
            set.is_none_or(same) && !remove.iter().any(|name| name == field)
        }
        Action::Delete | Action::Undelete { .. } => true,
    };
    (!becomes_own).then(|| {
        let advice = if is_begun { "write it into every new record" } else { "leave it as it is" };
        format!("field {field:?} must hold {user:?}, the user who writes it: {advice}")
    })
}
