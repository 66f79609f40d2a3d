//! Values as JSON text, without loss.
//!
//! What JSON cannot say without loss is an error that names line, column and field path: integers
//! outside 64 bits signed, numbers that overflow, a name that occurs twice, nesting deeper than the
//! limit. `1` and `1.0` stay different and `-0.0` is kept.
//!
//! Inside a record an object of one entry whose name begins with `$` says something that JSON has
//! no word for. Bytes are `{"$bytes": "<base64>"}`; any other name is an error, so that more forms
//! can follow. A real map of one such entry is written with one `$` more and loses it when read.
//! The record itself is always an object of fields.
//!
//! ```
//! use lastword_core::json::{parse_value, value_to_string};
//! use lastword_core::value::Value;
//!
//! assert_eq!(parse_value(r#"{"$bytes":"AQI="}"#)?, Value::Bytes(vec![1, 2]));
//! let map = Value::Map(vec![("$ref".into(), Value::Int(1))]);
//! assert_eq!(value_to_string(&map), r#"{"$$ref":1}"#);
//! assert_eq!(parse_value(r#"{"$$ref":1}"#)?, map);
//! assert!(parse_value(r#"{"$ref":1}"#).is_err());
//! # Ok::<(), lastword_core::json::JsonError>(())
//! ```

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
    #[error("{}column {column}{}: {reason}", in_line(.line), in_path(.path))]
    Text {
        /// Line, from 1.
        line: usize,
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

/// Most texts are one line, and lines of a file are counted by who reads it.
fn in_line(line: &usize) -> String {
    if *line == 1 { String::new() } else { alloc::format!("line {line}, ") }
}

fn in_path(path: &str) -> String {
    if path.is_empty() { String::new() } else { alloc::format!(", field {path}") }
}

/// Parses one JSON value that fills `text`.
///
/// # Errors
/// [`JsonError::Text`].
pub fn parse_value(text: &str) -> Result<Value, JsonError> {
    parse(text, 1)
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
    match parse(text, RECORD_DEPTH)? {
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

/// The record around the fields, whose own depth is 1.
const RECORD_DEPTH: usize = 0;

fn parse(text: &str, depth: usize) -> Result<Value, JsonError> {
    if let Some((at, literal)) = integer_too_long(text) {
        // What stands before it says where it is, or is an error that comes first.
        let before = text.get(..at).unwrap_or_default();
        let (path, reason) = match parse_checked(before, depth) {
            Err((error, path)) if error.is_eof() => (path, no_integer(literal)),
            Err((error, path)) => return Err(located(&error, path)),
            Ok(_) => (String::new(), no_integer(literal)),
        };
        let line = before.matches('\n').count() + 1;
        let column = at - before.rfind('\n').map_or(0, |end| end + 1) + 1;
        return Err(JsonError::Text { line, column, path, reason });
    }
    parse_checked(text, depth).map_err(|(error, path)| located(&error, path))
}

fn parse_checked(text: &str, depth: usize) -> Result<Value, (serde_json::Error, String)> {
    let path = RefCell::new(Vec::new());
    let mut from = serde_json::Deserializer::from_str(text);
    let value = Seed { path: &path, depth }.deserialize(&mut from);
    let value = value.and_then(|value| from.end().map(|()| value));
    value.map_err(|error| {
        let path = path.borrow().concat();
        (error, path.strip_prefix('.').unwrap_or(&path).into())
    })
}

fn located(error: &serde_json::Error, path: String) -> JsonError {
    let reason = without_position(&error.to_string());
    JsonError::Text { line: error.line(), column: error.column(), path, reason }
}

/// serde_json appends " at line 1 column 5"; the place is told apart.
fn without_position(message: &str) -> String {
    message.rfind(" at line ").map_or(message, |at| message.get(..at).unwrap_or(message)).into()
}

fn no_integer(literal: &str) -> String {
    alloc::format!("integer {literal} does not fit 64 bits signed; send it as a string")
}

/// Where the first integer beyond 64 bits stands. The parser would silently make a float of some,
/// so literals are looked at first.
fn integer_too_long(text: &str) -> Option<(usize, &str)> {
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
                    return Some((at, literal));
                }
                at += len.saturating_sub(1);
            }
            _ => {}
        }
        at += 1;
    }
    None
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
        if self.depth > MAX_DEPTH {
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
        let int = i64::try_from(value).map(Value::Int);
        int.map_err(|_| E::custom(no_integer(&value.to_string())))
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
            RECORD_DEPTH => Ok(Value::Map(entries)),
            _ => unescape(entries).map_err(A::Error::custom),
        }
    }
}

/// True for names that carry one `$` more in JSON when they stand alone.
fn is_escaped(name: &str) -> bool {
    name.starts_with('$')
}

fn unescape(mut entries: Vec<(String, Value)>) -> Result<Value, String> {
    if let [(name, value)] = entries.as_mut_slice()
        && is_escaped(name)
    {
        if name.starts_with("$$") {
            name.remove(0);
            return Ok(Value::Map(entries));
        }
        if name != "$bytes" {
            return Err(alloc::format!("{name} alone has no meaning; name it ${name}"));
        }
        let Value::Text(text) = value else { return Err("$bytes must hold base64 text".into()) };
        let bytes = STANDARD.decode(text.as_bytes());
        return bytes.map(Value::Bytes).map_err(|_| "$bytes must hold base64 text".into());
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
