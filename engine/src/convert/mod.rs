//! The app's types to records and back, through serde.
//!
//! A struct or a map with text keys is a record. `Option::None` and `()` are null, enums are
//! tagged from outside as serde does by default, whole numbers must fit 64 bits signed, floats
//! must be finite, and bytes are what serializes as bytes. An error names the path of the value
//! that does not fit.

mod from_value;
mod to_value;

use std::fmt;

use lastword_core::value::{Field, Record, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that does not fit, and where it stands.
#[derive(Debug)]
pub(crate) struct ConvertError {
    /// Field path, `a.b[3]`; empty for the record itself.
    path: String,
    reason: String,
}

impl ConvertError {
    fn new(reason: impl fmt::Display) -> Self {
        Self { path: String::new(), reason: reason.to_string() }
    }

    /// Called on the way out of each level, so that the path is whole at the top.
    fn in_field(mut self, name: &str) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{joint}{}", self.path);
        self
    }

    fn in_variant(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => self.in_field(name),
            None => self,
        }
    }

    fn in_item(mut self, at: usize) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("[{at}]{joint}{}", self.path);
        self
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.reason),
            path => write!(f, "field {path}: {}", self.reason),
        }
    }
}

impl std::error::Error for ConvertError {}

impl serde::ser::Error for ConvertError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::new(reason)
    }
}

impl serde::de::Error for ConvertError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::new(reason)
    }
}

/// The record of a struct or map.
pub(crate) fn to_record<T: Serialize + ?Sized>(value: &T) -> Result<Record, ConvertError> {
    let entries = to_entries(value)?;
    Record::new(&entries).map_err(ConvertError::new)
}

/// The fields of a struct or map: a part of a record.
pub(crate) fn to_fields<T: Serialize + ?Sized>(value: &T) -> Result<Vec<Field>, ConvertError> {
    Ok(to_record(value)?.fields().to_vec())
}

fn to_entries<T: Serialize + ?Sized>(value: &T) -> Result<Vec<(String, Value)>, ConvertError> {
    match to_value::to_value(value, 0)? {
        Value::Map(entries) => Ok(entries),
        other => Err(ConvertError::new(format_args!(
            "a record is a struct or a map with text keys, not {}",
            kind_of(&other)
        ))),
    }
}

/// The app's type of a record.
pub(crate) fn from_record<T: DeserializeOwned>(record: &Record) -> Result<T, ConvertError> {
    let entries = record.to_entries().map_err(ConvertError::new)?;
    T::deserialize(from_value::FromValue(Value::Map(entries)))
}

/// What kind of value it is, for messages.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Int(_) | Value::Float(_) => "a number",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}
