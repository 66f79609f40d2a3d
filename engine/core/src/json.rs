//! Values as JSON text, without loss.
//!
//! What JSON cannot say without loss is an error that names line, column and field path: integers
//! outside 64 bits signed, numbers that overflow, a name that occurs twice, nesting deeper than the
//! limit. `1` and `1.0` stay different and `-0.0` is kept. Bytes are `{"$bytes": "<base64>"}`; a
//! real one-entry map whose name is `$bytes` is written with one `$` more.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserializer, Serialize, Serializer};

use crate::codec::DecodeError;
use crate::limits::MAX_DEPTH;
use crate::value::{Record, Value, ValueError};

/// Text that is not a value or record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not JSON, or JSON that cannot be stored without loss.
    #[error("column {column}{}: {reason}", in_path(.path))]
    Text {
        /// Column in bytes, from 1.
        column: usize,
        /// Field path, `a.b[3]`; empty at the top.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The top is not an object.
    #[error("a record must be a JSON object, like {{\"text\": \"hi\"}}")]
    NotAnObject,
    /// The record breaks a limit.
    #[error(transparent)]
    Value(#[from] ValueError),
}

fn in_path(path: &str) -> String {
    if path.is_empty() { String::new() } else { alloc::format!(", field {path}") }
}

/// Parses one JSON value that fills `text`.
///
/// # Errors
/// [`JsonError::Text`].
pub fn parse_value(text: &str) -> Result<Value, JsonError> {
    check_integers(text)?;
    let path = RefCell::new(Vec::new());
    let mut from = serde_json::Deserializer::from_str(text);
    let seed = Seed { path: &path, depth: 1 };
    let value = seed.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    value.map_err(|error| JsonError::Text {
        column: error.column(),
        path: path.borrow().concat().trim_start_matches('.').into(),
        reason: without_position(&error.to_string()),
    })
}

/// Parses a JSON object into a record; the order of its fields is kept.
///
/// # Errors
/// [`JsonError`], also if a limit is broken.
pub fn parse_record(text: &str) -> Result<Record, JsonError> {
    let entries = parse_object(text)?;
    Ok(Record::new(&entries)?)
}

/// Parses a JSON object into its entries, in order, without the limits of a record.
///
/// # Errors
/// [`JsonError::Text`] or [`JsonError::NotAnObject`].
pub fn parse_object(text: &str) -> Result<Vec<(String, Value)>, JsonError> {
    match parse_value(text)? {
        Value::Map(entries) => Ok(entries),
        _ => Err(JsonError::NotAnObject),
    }
}

/// The record as one line of JSON, fields as stored.
///
/// # Errors
/// [`DecodeError`] if a stored field does not decode.
pub fn record_to_string(record: &Record) -> Result<String, DecodeError> {
    let entries = record.to_entries()?;
    let line = serde_json::to_string(&Object(&entries));
    Ok(line.expect("invariant: checked values serialize"))
}

/// A value as one line of JSON.
#[must_use]
pub fn value_to_string(value: &Value) -> String {
    serde_json::to_string(&Json(value)).expect("invariant: checked values serialize")
}

/// serde_json appends " at line 1 column 5"; the column is told apart.
fn without_position(message: &str) -> String {
    message.rfind(" at line ").map_or(message, |at| message.get(..at).unwrap_or(message)).into()
}

/// An integer too long for 64 bits would silently become a float, so literals are looked at first.
fn check_integers(text: &str) -> Result<(), JsonError> {
    let bytes = text.as_bytes();
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'0'..=b'9' if !in_string => {
                let rest = bytes.get(at..).unwrap_or_default();
                let is_number = |b: &u8| b"+-.eE".contains(b) || b.is_ascii_digit();
                let len = rest.iter().take_while(|b| is_number(b)).count();
                let literal = text.get(at..at + len).unwrap_or_default();
                let whole = !literal.contains(['.', 'e', 'E']);
                if whole && len >= 19 && literal.parse::<i64>().is_err() {
                    let reason = alloc::format!(
                        "integer {literal} does not fit 64 bits signed; send it as a string"
                    );
                    return Err(JsonError::Text { column: at + 1, path: String::new(), reason });
                }
                at += len.saturating_sub(1);
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Parts of the path stay in place when an error unwinds, so they tell where it happened.
struct Seed<'p> {
    path: &'p RefCell<Vec<String>>,
    depth: usize,
}

impl Seed<'_> {
    fn enter(&self, part: String) -> Seed<'_> {
        self.path.borrow_mut().push(part);
        Seed { path: self.path, depth: self.depth + 1 }
    }

    fn leave(&self) {
        self.path.borrow_mut().pop();
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        // The record itself is one level, so its fields start at depth 1.
        if self.depth > MAX_DEPTH + 1 {
            return Err(D::Error::custom(alloc::format!("nested deeper than {MAX_DEPTH} levels")));
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Int).map_err(|_| {
            E::custom(alloc::format!(
                "integer {value} does not fit 64 bits signed; send it as a string"
            ))
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let seed = self.enter(alloc::format!("[{}]", items.len()));
            let Some(item) = from.next_element_seed(seed)? else { break };
            items.push(item);
            self.leave();
        }
        self.leave();
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        let mut seen = alloc::collections::BTreeSet::new();
        while let Some(name) = from.next_key::<String>()? {
            let seed = self.enter(alloc::format!(".{name}"));
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom("the name occurs twice in one object"));
            }
            entries.push((name, from.next_value_seed(seed)?));
            self.leave();
        }
        match self.depth {
            1 => Ok(Value::Map(entries)),
            _ => unescape(entries).map_err(A::Error::custom),
        }
    }
}

/// True for `$bytes`, `$$bytes`, ..: names that carry one `$` more in JSON.
fn is_escaped(name: &str) -> bool {
    name.starts_with('$') && name.trim_start_matches('$') == "bytes"
}

fn unescape(mut entries: Vec<(String, Value)>) -> Result<Value, &'static str> {
    if let [(name, value)] = entries.as_mut_slice()
        && is_escaped(name)
    {
        if name != "$bytes" {
            name.remove(0);
            return Ok(Value::Map(entries));
        }
        let Value::Text(text) = value else { return Err("$bytes must hold base64 text") };
        let bytes = STANDARD.decode(text.as_bytes());
        return bytes.map(Value::Bytes).map_err(|_| "$bytes must hold base64 text");
    }
    Ok(Value::Map(entries))
}

struct Json<'v>(&'v Value);

struct Object<'v>(&'v [(String, Value)]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, &Json(value))?;
        }
        map.end()
    }
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => to.serialize_unit(),
            Value::Bool(value) => to.serialize_bool(*value),
            Value::Int(value) => to.serialize_i64(*value),
            Value::Float(value) => to.serialize_f64(*value),
            Value::Text(text) => to.serialize_str(text),
            Value::Bytes(bytes) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("$bytes", &STANDARD.encode(bytes))?;
                map.end()
            }
            Value::List(items) => {
                let mut list = to.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(&Json(item)))?;
                list.end()
            }
            Value::Map(entries) => match entries.as_slice() {
                [(name, value)] if is_escaped(name) => {
                    let mut map = to.serialize_map(Some(1))?;
                    map.serialize_entry(&alloc::format!("${name}"), &Json(value))?;
                    map.end()
                }
                _ => Object(entries).serialize(to),
            },
        }
    }
}
