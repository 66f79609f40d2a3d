//! A walk: how a replica that has nothing of a workspace gets its rows.
//!
//! Rows come in the order of table and key, and not in that of their seqs: so the replica adds each
//! page of them behind the one before, where changes in the order of seqs would lie anywhere among
//! the rows that it has. The walk notes the head when it begins, its base; each page is read from
//! the newest view. What changes meanwhile, behind the walk or before it, comes as changes after
//! the base once the walk is over, and only there anything is consistent.

use alloc::vec::Vec;

use super::entry::Entry;
use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::id::{Key, TableName};
use crate::limits::MAX_PAGE_ENTRIES;

/// One page of a walk: rows in order of table and key, in a replica that has none yet. What changes
/// meanwhile comes behind the walk, as changes after `base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkPage {
    /// Number of the attachment.
    pub attachment: u64,
    /// The head when the walk began: each view that its pages are read from holds it.
    pub base: u64,
    /// The record behind which the page begins; none for the first page.
    pub after: Option<(TableName, Key)>,
    /// Whether nothing is left behind it: changes after `base` follow.
    pub is_last: bool,
    /// The rows in order of their names.
    pub entries: Vec<Entry>,
}

/// How far a walk has come on a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkPlace {
    /// The head when it began.
    pub base: u64,
    /// Table of the last record that is durable.
    pub table: TableName,
    /// Its key.
    pub key: Key,
}

impl WalkPage {
    /// Where a replica stands that has stored the page; none behind the last one.
    #[must_use]
    pub fn place(&self) -> Option<WalkPlace> {
        let Some(Entry::Row { table, key, .. }) = self.entries.last() else { return None };
        let place = WalkPlace { base: self.base, table: table.clone(), key: key.clone() };
        Some(place).filter(|_| !self.is_last)
    }

    /// Whether the page goes on from `place`, or begins.
    #[must_use]
    pub fn follows(&self, place: Option<&WalkPlace>) -> bool {
        let Some((table, key)) = &self.after else { return true };
        place.is_some_and(|at| (self.base, table, key) == (at.base, &at.table, &at.key))
    }

    /// What is wrong with a page that came to a replica at `place`: it must go on from there, or
    /// begin, and hold only checked records whose names rise.
    ///
    /// # Errors
    /// For people: what is wrong.
    pub fn check(&self, place: Option<&WalkPlace>) -> Result<(), &'static str> {
        if !self.follows(place) || self.entries.is_empty() && !self.is_last {
            return Err("a page of a walk does not follow the one before");
        }
        let mut last = self.after.as_ref().map(|(table, key)| (table, key));
        for Entry::Row { table, key, row } in &self.entries {
            if row.stream_seq() == 0 || last.is_some_and(|last| last >= (table, key)) {
                return Err("a page of a walk is not in order");
            }
            last = Some((table, key));
            if row.record.check_untrusted().is_err() {
                return Err("a record in a page of a walk is not valid");
            }
        }
        Ok(())
    }
}

impl Encode for WalkPage {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.attachment);
        out.u64(self.base);
        encode_name(self.after.as_ref(), out);
        out.bool(self.is_last);
        out.list(&self.entries);
    }
}

impl Decode for WalkPage {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            attachment: from.u64()?,
            base: from.u64()?,
            after: decode_name(from)?,
            is_last: from.bool()?,
            entries: from.list("entries", MAX_PAGE_ENTRIES)?,
        })
    }
}

impl Encode for WalkPlace {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.base);
        self.table.encode(out);
        self.key.encode(out);
    }
}

impl Decode for WalkPlace {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (base, table) = (from.u64()?, TableName::decode(from)?);
        Ok(Self { base, table, key: Key::decode(from)? })
    }
}

fn encode_name(name: Option<&(TableName, Key)>, out: &mut Encoder) {
    out.bool(name.is_some());
    if let Some((table, key)) = name {
        table.encode(out);
        key.encode(out);
    }
}

fn decode_name(from: &mut Decoder<'_>) -> Result<Option<(TableName, Key)>, DecodeError> {
    if !from.bool()? {
        return Ok(None);
    }
    let table = TableName::decode(from)?;
    Ok(Some((table, Key::decode(from)?)))
}
