//! Indexes: which are declared, and the bytes whose order is the order of values.
//!
//! Values sort null < false < true < numbers < text < bytes. Whole and floating numbers share one
//! exact order: `1` and `1.0` are equal, and so are `0.0` and `-0.0`. Text and bytes sort by bytes.
//!
//! A value is one tag byte and its content, in which 00 becomes `00 FF`, then `00 00`. A number is
//! the greatest float not above it (eight bytes big-endian, sign bit flipped, all bits flipped if
//! negative) and how far the number lies above it (two bytes big-endian, not 0 only beyond 2^53),
//! without the 00 bytes at its end.

use lastword_core::codec::{Decoder, Encoder};
use lastword_core::id::{IndexName, TableName};
use lastword_core::value::{Record, Value};

use crate::limits::{MAX_INDEX_FIELDS, MAX_INDEX_VALUE, MAX_KEY};

/// One index: the live rows of a table in the order of some of their fields, then of their keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexDef {
    /// The table.
    pub table: TableName,
    /// Its name, unique in the table.
    pub name: IndexName,
    /// The fields, the one that sorts first in front.
    pub fields: Vec<String>,
}

/// Why a row cannot be in an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotIndexed {
    /// A list or map has no place in the order.
    #[error("field {field} holds {kind}, which has no order")]
    Nested {
        /// The field.
        field: String,
        /// `a list` or `a map`.
        kind: &'static str,
    },
    /// The values are too long together.
    #[error("its values take {len} bytes, the limit is {limit}")]
    TooLong {
        /// Encoded length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl IndexDef {
    /// The encoded values of a record's indexed fields; `None` if it lacks one of them.
    ///
    /// # Errors
    /// [`NotIndexed`] if a field holds a list or map, or the values are too long.
    pub fn values_of(&self, record: &Record) -> Result<Option<Vec<u8>>, NotIndexed> {
        let mut out = Vec::new();
        for field in &self.fields {
            let Some(value) = record.get(field) else { return Ok(None) };
            push_value(&mut out, &value)
                .map_err(|kind| NotIndexed::Nested { field: field.clone(), kind })?;
        }
        let (len, limit) = (out.len(), MAX_INDEX_VALUE);
        if len > limit { Err(NotIndexed::TooLong { len, limit }) } else { Ok(Some(out)) }
    }

    /// Cuts `values key`, the end of an entry, between the two.
    #[must_use]
    pub fn cut_entry<'a>(&self, end: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let mut at = 0;
        for _ in &self.fields {
            loop {
                match (*end.get(at)?, end.get(at + 1)) {
                    (0, Some(0)) => break,
                    (0, _) => at += 2,
                    _ => at += 1,
                }
            }
            at += 2;
        }
        end.split_at_checked(at)
    }
}

/// The declared indexes of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes {
    sorted: Vec<IndexDef>,
}

impl Indexes {
    /// Adds an index; a table has one of each name.
    pub fn insert(&mut self, index: IndexDef) {
        self.sorted.push(index);
        self.sorted.sort();
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// The indexes of the table with this name.
    pub fn of(&self, table: &[u8]) -> impl Iterator<Item = &IndexDef> {
        self.sorted.iter().filter(move |index| index.table.as_str().as_bytes() == table)
    }

    /// The indexes that a signature was made of; `None` if it is none.
    #[must_use]
    pub fn from_signature(signature: &[u8]) -> Option<Self> {
        let mut bytes = Decoder::new(signature);
        let mut indexes = Self::default();
        while !bytes.rest().is_empty() {
            let table = TableName::new(bytes.str("table", MAX_KEY).ok()?).ok()?;
            let name = IndexName::new(bytes.str("index", MAX_KEY).ok()?).ok()?;
            let count = bytes.len("fields", MAX_INDEX_FIELDS).ok()?;
            let field = |_| Some(bytes.str("field", MAX_KEY).ok()?.to_owned());
            let fields = (0..count).map(field).collect::<Option<_>>()?;
            indexes.insert(IndexDef { table, name, fields });
        }
        Some(indexes)
    }

    /// Bytes that are equal only for equal indexes; empty if there is none.
    #[must_use]
    pub fn signature(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        for IndexDef { table, name, fields } in &self.sorted {
            out.str(table.as_str());
            out.str(name.as_str());
            out.len_of(fields.len());
            fields.iter().for_each(|field| out.str(field));
        }
        out.into_bytes()
    }
}

const NULL: u8 = 1;
const FALSE: u8 = 2;
const TRUE: u8 = 3;
const NUMBER: u8 = 4;
const TEXT: u8 = 5;
const BYTES: u8 = 6;

/// Appends a value so that bytes compare as values do.
///
/// # Errors
/// What it is, for a value without an order: `a list` or `a map`.
pub fn push_value(out: &mut Vec<u8>, value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Int(number) => {
            let below = float_below(*number);
            let above = i128::from(*number) - below as i128;
            push_number(out, below, u16::try_from(above).expect("invariant: floats lie close"));
        }
        // Adding zero makes -0.0 equal to 0.0.
        Value::Float(number) => push_number(out, *number + 0.0, 0),
        Value::Text(text) => push_escaped(out, TEXT, text.as_bytes()),
        Value::Bytes(bytes) => push_escaped(out, BYTES, bytes),
        Value::List(_) => return Err("a list"),
        Value::Map(_) => return Err("a map"),
    }
    out.extend_from_slice(&[0, 0]);
    Ok(())
}

/// The greatest float that is not above the number.
fn float_below(number: i64) -> f64 {
    let near = number as f64;
    if near as i128 > i128::from(number) { near.next_down() } else { near }
}

fn push_number(out: &mut Vec<u8>, below: f64, above: u16) {
    const SIGN: u64 = 1 << 63;
    let bits = below.to_bits();
    let ordered = if bits & SIGN == 0 { bits ^ SIGN } else { !bits };
    let mut content = [0; 10];
    content[..8].copy_from_slice(&ordered.to_be_bytes());
    content[8..].copy_from_slice(&above.to_be_bytes());
    let len = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    push_escaped(out, NUMBER, &content[..len]);
}

fn push_escaped(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    for byte in content {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        push_value(&mut out, value).unwrap();
        out
    }

    /// The bytes of index entries are on users' disks (`docs/format.md`).
    #[test]
    fn values_have_these_bytes() {
        let cases: [(Value, &[u8]); 9] = [
            (Value::Null, &[1, 0, 0]),
            (Value::Bool(true), &[3, 0, 0]),
            (Value::Int(0), &[4, 0x80, 0, 0]),
            (Value::Float(-0.0), &[4, 0x80, 0, 0]),
            (Value::Int(1), &[4, 0xBF, 0xF0, 0, 0]),
            (
                Value::Int((1 << 53) + 1),
                &[4, 0xC3, 0x40, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 1, 0, 0],
            ),
            (Value::Float(-1.0), &[4, 0x40, 0x0F, 255, 255, 255, 255, 255, 255, 0, 0]),
            (Value::Text("a\0b".into()), &[5, 97, 0, 255, 98, 0, 0]),
            (Value::Bytes(vec![0]), &[6, 0, 255, 0, 0]),
        ];
        for (value, bytes) in cases {
            assert_eq!(encoded(&value), bytes, "{value:?}");
        }
    }

    /// An entry is cut where its values end, whatever bytes values and key hold (I13).
    #[test]
    fn entries_are_cut_behind_their_values() {
        let index = IndexDef {
            table: TableName::new("t").unwrap(),
            name: IndexName::new("i").unwrap(),
            fields: vec!["a".into(), "b".into()],
        };
        for (a, b, key) in [("", "\0", "\0\0k"), ("\0\0", "", "k"), ("x\0", "\u{ff}", "\u{ff}\0")] {
            let mut values = encoded(&Value::Text(a.into()));
            values.extend(encoded(&Value::Text(b.into())));
            let entry = [values.as_slice(), key.as_bytes()].concat();
            assert_eq!(index.cut_entry(&entry), Some((values.as_slice(), key.as_bytes())));
        }
        assert_eq!(index.cut_entry(&[5, 0, 0, 5, 0]), None);
        assert_eq!(index.cut_entry(&[]), None);
    }
}
