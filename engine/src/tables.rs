//! Tables that belong to the product: apps read, query and watch them, and never write them.

use std::collections::BTreeMap;

use lastword_core::id::TableName;
use lastword_core::rules::CONFLICTS_TABLE;
use lastword_core::value::Value;
use lastword_store::read::DEAD_LETTERS_TABLE;
use serde::{Deserialize, Deserializer};

use crate::schema::Table;

/// One row per conflict, in each workspace, newest winner last. Written by the server and synced
/// like any table.
pub const CONFLICTS: Table<Conflict> = Table::new(CONFLICTS_TABLE, "");

/// Refused batches of this device, one row each; the key is the batch's id. Read in a workspace it
/// shows the batches of that workspace, in workspace `_store` those of all. It never leaves the
/// device.
pub const DEAD_LETTERS: Table<RefusedBatch> = Table::new(DEAD_LETTERS_TABLE, "");

/// A row of [`CONFLICTS`]: one writer's value gave way to another's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Conflict {
    /// Table of the record.
    pub table: String,
    /// Its key.
    pub key: String,
    /// Why, in one word: `overwritten` by a later seq, `dropped` fields of a stale patch, or why
    /// the losing op was superseded (`stale`, `dead`, `exists`, ..).
    pub reason: String,
    /// The table's policy that decided: `arrival`, `server_wins` or `revision`.
    pub policy: String,
    /// Seq of the version that stands; 0 if the record is gone and forgotten.
    pub winning_seq: u64,
    /// Device that wrote it, 32 hexadecimal digits; all zero is the server.
    pub winning_device: String,
    /// Seq of the version that gave way.
    pub losing_seq: u64,
    /// Device that wrote it.
    pub losing_device: String,
    /// True if the record is deleted in the version that stands.
    pub winning_deletes: bool,
    /// True if the loser wanted the record deleted.
    pub losing_deletes: bool,
    /// Fields whose values differ.
    pub fields: BTreeMap<String, ConflictField>,
    /// How many more differ than are listed.
    #[serde(default)]
    pub fields_left_out: u64,
    /// Server time of the conflict, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// When the row and the losing value may be forgotten, milliseconds since 1970 UTC.
    pub expires_ms: i64,
}

/// Both values of one field; none where a side has no such field. Instead of a large value stands a
/// map of `seq`, where the history has it, and `size_bytes`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ConflictField {
    /// The value that stands.
    #[serde(deserialize_with = "present")]
    pub winning: Option<Value>,
    /// The value that gave way.
    #[serde(deserialize_with = "present")]
    pub losing: Option<Value>,
}

/// A field that is there and null is not a missing one.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// A row of [`DEAD_LETTERS`]: a batch that the server refused, or that went down with one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RefusedBatch {
    /// Id of the refused batch that this one went down with, the same for the whole unit.
    pub unit: String,
    /// Its place in the unit; the refused batch itself is 0.
    pub place: u64,
    /// Its workspace.
    pub workspace: String,
    /// Why, in one word.
    pub code: String,
    /// For people.
    pub message: String,
    /// When the refusal was stored, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// When the batch was written, milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// Where this store's log holds it.
    pub position: u64,
    /// The records that it names, as `table/key`.
    pub records: Vec<String>,
}

/// The members of a workspace and what each may do, one row each; the key is the user's name.
/// Written by the server, if it was given members, and synced like any table.
pub const MEMBERS: Table<Member> = Table::new("_members", "");

/// A row of [`MEMBERS`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// `owner`, `editor` or `viewer`.
    pub role: String,
    /// Since when, milliseconds since 1970 UTC of the server's clock.
    pub since_ms: i64,
}

fn table(name: &str) -> TableName {
    TableName::new(name).expect("invariant: the name is valid")
}

/// Name of [`CONFLICTS`].
#[must_use]
pub(crate) fn conflicts() -> TableName {
    table(CONFLICTS.name())
}

/// Name of [`DEAD_LETTERS`].
#[must_use]
pub(crate) fn dead_letters() -> TableName {
    table(DEAD_LETTERS.name())
}

/// `_devices`: whose each device is, written by the authority, in each workspace.
#[must_use]
pub(crate) fn devices() -> TableName {
    table("_devices")
}

/// Name of [`MEMBERS`].
#[must_use]
pub(crate) fn members() -> TableName {
    table(MEMBERS.name())
}
