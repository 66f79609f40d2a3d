//! Names of the tables that belong to the product.

use lastword_core::id::TableName;

fn table(name: &str) -> TableName {
    TableName::new(name).expect("invariant: the name is valid")
}

/// `_conflicts`: one row per conflict, written by the authority, in each workspace.
#[must_use]
pub(crate) fn conflicts() -> TableName {
    table("_conflicts")
}

/// `_dead_letters`: refused batches of this device, in workspace `_store`.
#[must_use]
pub(crate) fn dead_letters() -> TableName {
    table("_dead_letters")
}

/// `_devices`: whose each device is, written by the authority, in each workspace.
#[must_use]
pub(crate) fn devices() -> TableName {
    table("_devices")
}
