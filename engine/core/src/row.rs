//! A row: the state of one record, with every stamp that later decisions need.

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::hlc::Hlc;
use crate::id::{BatchId, DeviceId, Key, TableName};
use crate::limits::{MAX_FIELD_NAME_BYTES, MAX_PATCH_NAMES, MAX_ROW_BYTES};
use crate::stamp::Mark;
use crate::value::{Record, ValueError};

/// Who changed one field after the last write of the whole record; removed fields too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMark {
    /// The field.
    pub name: String,
    /// Its last writer.
    pub mark: Mark,
}

/// State of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// True for a tombstone; the record is then the value that an undelete brings back.
    pub deleted: bool,
    /// The newest op that changed the row.
    pub last: Mark,
    /// Server time of that op, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// The create that began this life.
    pub born: Mark,
    /// The newest write of the whole record.
    pub full: Mark,
    /// Fields changed after `full`.
    pub fields: Vec<FieldMark>,
    /// Seq at which the authority last set fields that it owns, if that came after `last`; else 0.
    /// It is no edit: no mark tells of it, so nothing is stale or in conflict because of it.
    pub set_at: u64,
    /// The writer's edit counter in the newest op.
    pub revision: u64,
    /// The writer's clock in the newest op.
    pub hlc: Hlc,
    /// Batch of the newest op; breaks ties between equal (revision, hlc).
    pub op_id: BatchId,
    /// The value.
    pub record: Record,
}

/// 128-bit digest of a row bound to its table and key; a workspace's digest is their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub u128);

impl Row {
    /// The mark that covers one field: its own, or that of the last whole write.
    #[must_use]
    pub fn field_mark(&self, name: &str) -> Mark {
        self.fields.iter().find(|field| field.name == name).map_or(self.full, |field| field.mark)
    }

    /// The seq at which the stream shows the row.
    #[must_use]
    pub fn stream_seq(&self) -> u64 {
        self.last.seq.max(self.set_at)
    }

    /// What stands where a record was erased, by the authority's op `seq`: a tombstone of which
    /// `left` says no more than whose it is. Its tuple is above that of the row it takes the place
    /// of.
    #[must_use]
    pub fn erased(old: &Row, left: Record, seq: u64, time_ms: i64) -> Row {
        let mark = Mark { seq, writer: DeviceId::AUTHORITY };
        Row {
            deleted: true,
            last: mark,
            time_ms,
            born: mark,
            full: mark,
            fields: Vec::new(),
            set_at: 0,
            revision: old.revision.saturating_add(1),
            hlc: old.hlc,
            op_id: BatchId::default(),
            record: left,
        }
    }

    /// True if the record was erased: no earlier version of it may be read any more.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        // Every other tombstone names its batch or keeps the mark of the write that it holds; those
        // of local tables have no seq.
        self.deleted
            && self.last.seq != 0
            && self.full == self.last
            && self.last.writer == DeviceId::AUTHORITY
            && self.op_id == BatchId::default()
    }

    /// Encoded size in bytes, at most.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let marks: usize =
            self.fields.iter().map(|field| field.name.len() + FIELD_MARK_BYTES).sum();
        ROW_BYTES + marks + self.record.size_bytes()
    }

    /// Compares the marks of changed fields with their limits.
    ///
    /// # Errors
    /// [`ValueError::TooMany`] of them, or [`ValueError::RowTooLarge`].
    pub fn check_marks(&self) -> Result<(), ValueError> {
        let (len, limit) = (self.fields.len(), MAX_PATCH_NAMES);
        if len > limit {
            return Err(ValueError::TooMany { path: "changed fields".into(), len, limit });
        }
        let (size_bytes, limit) = (self.size_bytes(), MAX_ROW_BYTES);
        if size_bytes > limit {
            return Err(ValueError::RowTooLarge { size_bytes, limit });
        }
        Ok(())
    }

    /// The digest of this row under its name.
    #[must_use]
    pub fn digest(&self, table: &TableName, key: &Key) -> Digest {
        let names = table.as_str().len() + key.as_str().len();
        let mut out = Encoder::with_capacity(self.size_bytes() + names + NAMES_BYTES);
        table.encode(&mut out);
        key.encode(&mut out);
        self.encode(&mut out);
        let hash = blake3::hash(&out.into_bytes());
        let half = hash.as_bytes().first_chunk().expect("invariant: a hash has 32 bytes");
        Digest(u128::from_le_bytes(*half))
    }
}

impl Digest {
    /// The sum with one row more.
    #[must_use]
    pub fn plus(self, row: Digest) -> Digest {
        Digest(self.0.wrapping_add(row.0))
    }

    /// The sum with one row less.
    #[must_use]
    pub fn minus(self, row: Digest) -> Digest {
        Digest(self.0.wrapping_sub(row.0))
    }
}

impl core::fmt::Display for Digest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Row {
    /// Whether encoded bytes that begin with a row are those of a tombstone; reads only that much.
    ///
    /// # Errors
    /// [`DecodeError`] if a row does not begin so.
    pub fn decode_deleted(from: &mut Decoder<'_>) -> Result<bool, DecodeError> {
        let offset = from.offset();
        let flags = from.u8()?;
        match flags & !ALL_FLAGS {
            0 => Ok(flags & DELETED != 0),
            _ => Err(DecodeError::Invalid { what: "row flags", offset }),
        }
    }
}

impl Encode for FieldMark {
    fn encode(&self, out: &mut Encoder) {
        out.str(&self.name);
        self.mark.encode(out);
    }
}

impl Decode for FieldMark {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let name = from.str("field name", MAX_FIELD_NAME_BYTES)?.into();
        Ok(Self { name, mark: Mark::decode(from)? })
    }
}

/// A mark with its longest seq, and the longest length of a field name.
const FIELD_MARK_BYTES: usize = 9 + 16 + 3;
/// The longest form of what a row holds besides field marks and record.
const ROW_BYTES: usize = 1 + 3 * (9 + 16) + 9 + 3 + 9 + 9 + 9 + 16;

/// The lengths of a table's name and of a key, at their longest.
const NAMES_BYTES: usize = 1 + 3;

const DELETED: u8 = 1;
const FULL_IS_LAST: u8 = 2;
const BORN_IS_LAST: u8 = 4;
const BORN_IS_FULL: u8 = 8;
const SET_AFTER: u8 = 16;
const ALL_FLAGS: u8 = DELETED | FULL_IS_LAST | BORN_IS_LAST | BORN_IS_FULL | SET_AFTER;

impl Row {
    /// Most rows were written once, so equal marks are stored once and named by a flag.
    fn flags(&self) -> u8 {
        let born_is_last = self.born == self.last;
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        flag(self.deleted, DELETED)
            | flag(self.full == self.last, FULL_IS_LAST)
            | flag(born_is_last, BORN_IS_LAST)
            | flag(!born_is_last && self.born == self.full, BORN_IS_FULL)
            | flag(self.set_at != 0, SET_AFTER)
    }
}

impl Encode for Row {
    fn encode(&self, out: &mut Encoder) {
        let flags = self.flags();
        out.u8(flags);
        self.last.encode(out);
        out.i64(self.time_ms);
        if flags & FULL_IS_LAST == 0 {
            self.full.encode(out);
        }
        if flags & (BORN_IS_LAST | BORN_IS_FULL) == 0 {
            self.born.encode(out);
        }
        out.list(&self.fields);
        if flags & SET_AFTER != 0 {
            out.u64(self.set_at);
        }
        out.u64(self.revision);
        out.u64(self.hlc.0);
        self.op_id.encode(out);
        self.record.encode(out);
    }
}

impl Decode for Row {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        let flags = from.u8()?;
        if flags & !ALL_FLAGS != 0 {
            return Err(DecodeError::Invalid { what: "row flags", offset });
        }
        let last = Mark::decode(from)?;
        let time_ms = from.i64()?;
        let full = if flags & FULL_IS_LAST != 0 { last } else { Mark::decode(from)? };
        let born = match (flags & BORN_IS_LAST != 0, flags & BORN_IS_FULL != 0) {
            (true, _) => last,
            (false, true) => full,
            (false, false) => Mark::decode(from)?,
        };
        let row = Self {
            deleted: flags & DELETED != 0,
            last,
            time_ms,
            born,
            full,
            fields: from.list("field marks", MAX_PATCH_NAMES)?,
            set_at: if flags & SET_AFTER != 0 { from.u64()? } else { 0 },
            revision: from.u64()?,
            hlc: Hlc(from.u64()?),
            op_id: BatchId::decode(from)?,
            record: Record::decode(from)?,
        };
        // Equal marks that the flags do not name, or name twice, would be a second form.
        let is_before = row.set_at != 0 && row.set_at <= row.last.seq;
        if row.flags() != flags || is_before {
            return Err(DecodeError::Invalid { what: "row flags", offset });
        }
        Ok(row)
    }
}
