//! When two ops of one writer on one record say no more than one op does.

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::MAX_FIELDS;
use crate::op::{Action, Op};
use crate::value::{Field, Record};

/// The op that stands for `first` and then `second`, which the same writer made with nothing of its
/// own in between; none if they had seen different versions, or if no single op says both. Only
/// edits are taken in: a delete or a new life is a step of its own.
#[must_use]
pub fn squash(first: &Op, second: &Op) -> Option<Op> {
    if first.base != second.base {
        return None;
    }
    let action = match (&first.action, &second.action) {
        (Action::Create { replace, .. }, Action::Put { record }) => {
            Action::Create { record: record.clone(), replace: *replace }
        }
        (Action::Create { record, replace }, Action::Patch { set, remove }) => {
            Action::Create { record: patched(record, set, remove), replace: *replace }
        }
        (Action::Put { .. } | Action::Patch { .. }, Action::Put { record }) => {
            Action::Put { record: record.clone() }
        }
        (Action::Put { record }, Action::Patch { set, remove }) => {
            Action::Put { record: patched(record, set, remove) }
        }
        (Action::Patch { set, remove }, Action::Patch { set: later, remove: gone }) => {
            both((set, remove), (later, gone))?
        }
        _ => return None,
    };
    Some(Op { action, ..second.clone() })
}

fn patched(record: &Record, set: &[Field], remove: &[String]) -> Record {
    let mut record = record.clone();
    set.iter().for_each(|field| record.set(field.clone()));
    remove.iter().for_each(|name| record.remove(name));
    record
}

type Patch<'a> = (&'a Vec<Field>, &'a Vec<String>);

fn both((set, remove): Patch<'_>, (later, gone): Patch<'_>) -> Option<Action> {
    let (mut set, mut remove) = (set.clone(), remove.clone());
    for field in later {
        remove.retain(|name| *name != field.name);
        match set.iter_mut().find(|earlier| earlier.name == field.name) {
            Some(earlier) => *earlier = field.clone(),
            None => set.push(field.clone()),
        }
    }
    set.retain(|field| !gone.contains(&field.name));
    remove.extend(gone.iter().cloned());
    remove.sort();
    remove.dedup();
    // More than one op can name.
    let fits = set.len() <= MAX_FIELDS && remove.len() <= MAX_FIELDS;
    fits.then_some(Action::Patch { set, remove })
}
