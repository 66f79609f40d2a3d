//! The row of a file: in which table it is, under which key, and what it says of the bytes.

use lastword_core::hash::BlobHash;
use lastword_core::id::{Key, TableName};
use lastword_core::schema::{FILES_TABLE, STORAGE_FIELDS, Schema};
use lastword_core::value::{Record, Value};

/// The table that has a row for each file, its hash the key.
pub(crate) fn table() -> TableName {
    TableName::new(FILES_TABLE).expect("invariant: the name is valid")
}

pub(crate) fn key_of(hash: &BlobHash) -> Key {
    Key::new(&hash.to_string()).expect("invariant: a hash is a key")
}

/// Whether a row says that the server has the bytes. It does not count where the schema lets
/// anybody say so.
pub(crate) fn is_uploaded(record: &Record, schema: &Schema) -> bool {
    let [storage_id, _] = STORAGE_FIELDS;
    let is_said = matches!(record.get(storage_id), Some(Value::Text(id)) if !id.is_empty());
    is_said && says_storage(schema)
}

/// Whether the server says in the rows of files where their bytes are.
pub(crate) fn says_storage(schema: &Schema) -> bool {
    let owned = schema.rules_of(&table()).server_owned;
    STORAGE_FIELDS.iter().all(|name| owned.iter().any(|owned| owned == name))
}
