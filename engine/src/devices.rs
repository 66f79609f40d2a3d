//! Devices: whose each device is, as rows of `_devices`.
//!
//! A device id is no secret: it stands in every row that the device wrote. So the authority binds
//! it to the user of its first batch, in the frame of that batch; nobody else may push or attach
//! under it.

use lastword_core::hlc::Hlc;
use lastword_core::id::{DeviceId, Key, WorkspaceName};
use lastword_core::op::{Action, Op};
use lastword_core::value::{Field, Record, Value};
use lastword_store::keys;
use lastword_store::read::{self, ReadState};

use crate::error::Result;
use crate::tables;

fn key(device: DeviceId) -> Key {
    Key::new(&device.to_string()).expect("invariant: an id is a key")
}

/// The user that a device belongs to, if it ever wrote in the workspace.
pub(crate) fn owner<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    device: DeviceId,
) -> Result<Option<String>> {
    let generation = read::meta(state, workspace)?.generation;
    let row_key = keys::row_key(workspace, generation, &tables::devices(), &key(device));
    let stored = read::row(state, &row_key)?;
    Ok(stored.and_then(|stored| match stored.row.record.get("user") {
        Some(Value::Text(user)) => Some(user),
        _ => None,
    }))
}

/// The authority's own op that binds a device to its user.
pub(crate) fn introduction(device: DeviceId, user: &str, now_ms: i64) -> Op {
    let fields = [("user", Value::Text(user.into())), ("first_ms", Value::Int(now_ms))];
    let fields = fields.iter().map(|(name, value)| Field::new(name, value)).collect();
    Op {
        table: tables::devices(),
        key: key(device),
        base: 0,
        revision: 1,
        hlc: Hlc::default(),
        action: Action::Create { record: Record::from_fields(fields), replace: false },
    }
}
