//! What pages are made of.

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::id::{Key, TableName};
use crate::row::Row;

/// One entry of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The newest state of one record.
    Row {
        /// Its table.
        table: TableName,
        /// Its key.
        key: Key,
        /// Its row.
        row: Row,
    },
}

/// Tag 1 (an op with its stamp and verdict) and tag 2 (a schema entry) are reserved.
impl Encode for Entry {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Entry::Row { table, key, row } => {
                out.u64(0);
                table.encode(out);
                key.encode(out);
                row.encode(out);
            }
        }
    }
}

impl Decode for Entry {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        match from.u64()? {
            0 => Ok(Entry::Row {
                table: TableName::decode(from)?,
                key: Key::decode(from)?,
                row: Row::decode(from)?,
            }),
            _ => Err(DecodeError::Invalid { what: "entry tag", offset }),
        }
    }
}
