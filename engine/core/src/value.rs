//! Values and records.
//!
//! A record is a list of named fields whose order is kept. The authority compares and moves whole
//! fields and never looks inside one, so a field holds its value in encoded form and borders are
//! found without decoding values.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder, size_of_len};
use crate::limits::{MAX_DEPTH, MAX_FIELD_NAME_BYTES, MAX_FIELDS, MAX_RECORD_BYTES};

/// One value of a field. `1` and `1.0` are different values; `-0.0` is kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number; NaN and the infinities are refused.
    Float(f64),
    /// UTF-8 text.
    Text(String),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// Named values in order, each name once.
    Map(Vec<(String, Value)>),
}

/// A value or record that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// NaN or an infinity.
    #[error("{path}: a number must be finite")]
    NotFinite {
        /// Field path, `a.b[3]`.
        path: String,
    },
    /// Lists and maps are nested too deep.
    #[error("{path}: nested deeper than {limit} levels")]
    TooDeep {
        /// Field path.
        path: String,
        /// The limit in levels.
        limit: usize,
    },
    /// A name occurs twice in one map.
    #[error("{path}: the name occurs twice")]
    Duplicate {
        /// Field path.
        path: String,
    },
    /// Too many entries in one map or record.
    #[error("{path}: {len} entries, the limit is {limit}")]
    TooMany {
        /// Field path.
        path: String,
        /// Entries found.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// A field name is too long.
    #[error("field name of {len} bytes, the limit is {limit}")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The record is too large.
    #[error("record is {size_bytes} bytes encoded, the limit is {limit}")]
    TooLarge {
        /// Its encoded size in bytes.
        size_bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The record is too large together with the marks of its fields.
    #[error(
        "record is {size_bytes} bytes with the marks of its changed fields, the limit is {limit}; \
         write it as a whole"
    )]
    RowTooLarge {
        /// Encoded size of its row in bytes.
        size_bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

const NULL: u64 = 0;
const BOOL: u64 = 1;
const INT: u64 = 2;
const FLOAT: u64 = 3;
const TEXT: u64 = 4;
const BYTES: u64 = 5;
const LIST: u64 = 6;
const MAP: u64 = 7;

impl Value {
    /// Checks what the type does not: finite numbers, depth, one entry per name.
    ///
    /// # Errors
    /// [`ValueError`] with the path of the first offender; `path` is where this value stands.
    pub fn check(&self, path: &str) -> Result<(), ValueError> {
        self.check_at(path, 1)
    }

    fn check_at(&self, path: &str, depth: usize) -> Result<(), ValueError> {
        if depth > MAX_DEPTH {
            return Err(ValueError::TooDeep { path: path.into(), limit: MAX_DEPTH });
        }
        match self {
            Value::Float(number) if !number.is_finite() => {
                Err(ValueError::NotFinite { path: path.into() })
            }
            Value::List(items) => items.iter().enumerate().try_for_each(|(at, item)| {
                item.check_at(&alloc::format!("{path}[{at}]"), depth + 1)
            }),
            Value::Map(entries) => {
                check_names(path, entries.iter().map(|(name, _)| name.as_str()))?;
                entries.iter().try_for_each(|(name, value)| {
                    value.check_at(&alloc::format!("{path}.{name}"), depth + 1)
                })
            }
            _ => Ok(()),
        }
    }
}

fn check_names<'a>(
    path: &str,
    names: impl ExactSizeIterator<Item = &'a str>,
) -> Result<(), ValueError> {
    let len = names.len();
    if len > MAX_FIELDS {
        return Err(ValueError::TooMany { path: path.into(), len, limit: MAX_FIELDS });
    }
    let mut seen = BTreeSet::new();
    for name in names {
        if name.len() > MAX_FIELD_NAME_BYTES {
            let limit = MAX_FIELD_NAME_BYTES;
            return Err(ValueError::NameTooLong { len: name.len(), limit });
        }
        if !seen.insert(name) {
            return Err(ValueError::Duplicate { path: alloc::format!("{path}.{name}") });
        }
    }
    Ok(())
}

impl Encode for Value {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Value::Null => out.u64(NULL),
            Value::Bool(value) => {
                out.u64(BOOL);
                out.bool(*value);
            }
            Value::Int(value) => {
                out.u64(INT);
                out.i64(*value);
            }
            Value::Float(value) => {
                out.u64(FLOAT);
                out.f64(*value);
            }
            Value::Text(text) => {
                out.u64(TEXT);
                out.str(text);
            }
            Value::Bytes(bytes) => {
                out.u64(BYTES);
                out.bytes(bytes);
            }
            Value::List(items) => {
                out.u64(LIST);
                out.list(items);
            }
            Value::Map(entries) => {
                out.u64(MAP);
                out.len_of(entries.len());
                for (name, value) in entries {
                    out.str(name);
                    value.encode(out);
                }
            }
        }
    }
}

impl Decode for Value {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        decode_value(from, 1)
    }
}

/// Written by hand because a derived decoder overflows the stack on nested input.
fn decode_value(from: &mut Decoder<'_>, depth: usize) -> Result<Value, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(from.invalid("nesting depth"));
    }
    let offset = from.offset();
    Ok(match from.u64()? {
        NULL => Value::Null,
        BOOL => Value::Bool(from.bool()?),
        INT => Value::Int(from.i64()?),
        FLOAT => {
            let number = from.f64()?;
            if !number.is_finite() {
                return Err(DecodeError::Invalid { what: "number", offset });
            }
            Value::Float(number)
        }
        TEXT => Value::Text(from.str("text", MAX_RECORD_BYTES)?.into()),
        BYTES => Value::Bytes(from.bytes("bytes", MAX_RECORD_BYTES)?.into()),
        LIST => {
            let len = from.len("list", MAX_RECORD_BYTES)?;
            let mut items = Vec::with_capacity(len.min(from.rest().len()).min(256));
            for _ in 0..len {
                items.push(decode_value(from, depth + 1)?);
            }
            Value::List(items)
        }
        MAP => Value::Map(decode_entries(from, depth)?),
        _ => return Err(DecodeError::Invalid { what: "value tag", offset }),
    })
}

fn decode_entries(
    from: &mut Decoder<'_>,
    depth: usize,
) -> Result<Vec<(String, Value)>, DecodeError> {
    let offset = from.offset();
    let len = from.len("map", MAX_FIELDS)?;
    let mut entries = Vec::with_capacity(len.min(from.rest().len()).min(256));
    let mut seen = BTreeSet::new();
    for _ in 0..len {
        let name = from.str("name", MAX_FIELD_NAME_BYTES)?;
        if !seen.insert(name) {
            return Err(DecodeError::Invalid { what: "repeated name", offset });
        }
        entries.push((name.into(), decode_value(from, depth + 1)?));
    }
    Ok(entries)
}

/// Accepts exactly the bytes that [`decode_value`] does, and makes nothing of them.
fn check_value(from: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(from.invalid("nesting depth"));
    }
    let offset = from.offset();
    match from.u64()? {
        NULL => {}
        BOOL => drop(from.bool()?),
        INT => drop(from.i64()?),
        FLOAT => {
            if !from.f64()?.is_finite() {
                return Err(DecodeError::Invalid { what: "number", offset });
            }
        }
        TEXT => drop(from.str("text", MAX_RECORD_BYTES)?),
        BYTES => drop(from.bytes("bytes", MAX_RECORD_BYTES)?),
        LIST => {
            for _ in 0..from.len("list", MAX_RECORD_BYTES)? {
                check_value(from, depth + 1)?;
            }
        }
        MAP => {
            let offset = from.offset();
            let mut seen = Names::default();
            for _ in 0..from.len("map", MAX_FIELDS)? {
                if !seen.insert(from.str("name", MAX_FIELD_NAME_BYTES)?) {
                    return Err(DecodeError::Invalid { what: "repeated name", offset });
                }
                check_value(from, depth + 1)?;
            }
        }
        _ => return Err(DecodeError::Invalid { what: "value tag", offset }),
    }
    Ok(())
}

/// Names that were seen. Most records have few, and looking through few is faster than a tree.
#[derive(Default)]
struct Names<'a> {
    first: Vec<&'a str>,
    others: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    const FEW: usize = 16;

    /// False if it was there already.
    fn insert(&mut self, name: &'a str) -> bool {
        if self.first.contains(&name) {
            return false;
        }
        if self.first.len() < Self::FEW {
            self.first.push(name);
            return true;
        }
        self.others.insert(name)
    }
}

/// One named field; `value` is an encoded [`Value`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name, unique in the record.
    pub name: String,
    /// Its encoded value.
    pub value: Vec<u8>,
}

impl Field {
    /// A field from a checked value.
    #[must_use]
    pub fn new(name: &str, value: &Value) -> Self {
        Self { name: name.into(), value: crate::codec::to_bytes(value) }
    }

    /// The decoded value.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not a value; never for a field of a checked record.
    pub fn decode_value(&self) -> Result<Value, DecodeError> {
        crate::codec::from_bytes(&self.value)
    }
}

impl Encode for Field {
    fn encode(&self, out: &mut Encoder) {
        out.str(&self.name);
        out.bytes(&self.value);
    }
}

impl Decode for Field {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let name = from.str("field name", MAX_FIELD_NAME_BYTES)?.into();
        let value = from.bytes("field", MAX_RECORD_BYTES)?.into();
        Ok(Self { name, value })
    }
}

/// The value of one record: its fields in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    fields: Vec<Field>,
}

impl Record {
    /// A record of checked values.
    ///
    /// # Errors
    /// [`ValueError`] names the field that cannot be stored, or the size of the whole.
    pub fn new(entries: &[(String, Value)]) -> Result<Self, ValueError> {
        check_names("record", entries.iter().map(|(name, _)| name.as_str()))?;
        let mut fields = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            value.check(name)?;
            fields.push(Field::new(name, value));
        }
        let record = Self { fields };
        record.check_size()?;
        Ok(record)
    }

    /// A record from fields that came from a record (order kept, names unique).
    #[must_use]
    pub fn from_fields(fields: Vec<Field>) -> Self {
        Self { fields }
    }

    /// Compares the encoded size with [`MAX_RECORD_BYTES`].
    ///
    /// # Errors
    /// [`ValueError::TooLarge`], or [`ValueError::TooMany`] fields.
    pub fn check_size(&self) -> Result<(), ValueError> {
        let size_bytes = self.size_bytes();
        if size_bytes > MAX_RECORD_BYTES {
            return Err(ValueError::TooLarge { size_bytes, limit: MAX_RECORD_BYTES });
        }
        if self.fields.len() > MAX_FIELDS {
            let len = self.fields.len();
            return Err(ValueError::TooMany { path: "record".into(), len, limit: MAX_FIELDS });
        }
        Ok(())
    }

    /// Checks a record that came from outside: every field decodes to a value within the limits
    /// and each name occurs once.
    ///
    /// # Errors
    /// [`DecodeError`] of the first field that fails.
    pub fn check_untrusted(&self) -> Result<(), DecodeError> {
        check_fields_untrusted(&self.fields)
    }

    /// Encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let sized = |len: usize| size_of_len(len) + len;
        let fields = self.fields.iter().map(|f| sized(f.name.len()) + sized(f.value.len()));
        size_of_len(self.fields.len()) + fields.sum::<usize>()
    }

    /// The fields in order.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The decoded value of one field, if the record has it and it decodes.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        self.field(name).and_then(|field| field.decode_value().ok())
    }

    /// All fields decoded, in order.
    ///
    /// # Errors
    /// [`DecodeError`] of the first field that does not decode.
    pub fn to_entries(&self) -> Result<Vec<(String, Value)>, DecodeError> {
        self.fields.iter().map(|f| Ok((f.name.clone(), f.decode_value()?))).collect()
    }

    /// Sets a field: in its place if the record has it, else last.
    pub fn set(&mut self, field: Field) {
        match self.fields.iter_mut().find(|old| old.name == field.name) {
            Some(old) => *old = field,
            None => self.fields.push(field),
        }
    }

    /// Removes a field if it is there.
    pub fn remove(&mut self, name: &str) {
        self.fields.retain(|field| field.name != name);
    }
}

/// Checks fields from outside, as [`Record::check_untrusted`].
///
/// # Errors
/// [`DecodeError`] of the first field that fails.
pub fn check_fields_untrusted(fields: &[Field]) -> Result<(), DecodeError> {
    let mut seen = Names::default();
    for field in fields {
        if !seen.insert(field.name.as_str()) {
            return Err(DecodeError::Invalid { what: "repeated field name", offset: 0 });
        }
        let mut value = Decoder::new(&field.value);
        check_value(&mut value, 1)?;
        value.finish()?;
    }
    Ok(())
}

impl Encode for Record {
    fn encode(&self, out: &mut Encoder) {
        out.list(&self.fields);
    }
}

impl Decode for Record {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { fields: from.list("fields", MAX_FIELDS)? })
    }
}
