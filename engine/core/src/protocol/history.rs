//! Older versions of a record, from the authority that has them.

use alloc::vec::Vec;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::id::{DeviceId, Key, TableName};
use crate::limits::MAX_HISTORY_VERSIONS;
use crate::stamp::{Verdict, coded};
use crate::value::Record;

/// Replica: what versions of a record are there?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadHistory {
    /// Number of the attachment.
    pub attachment: u64,
    /// Number that the replica gives the question; the answer repeats it.
    pub request: u64,
    /// Table of the record.
    pub table: TableName,
    /// Its key.
    pub key: Key,
    /// Only versions before this seq; 0 for the newest.
    pub before: u64,
}

/// Authority: these, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Number of the attachment.
    pub attachment: u64,
    /// Number of the question.
    pub request: u64,
    /// The versions, at most what fits a message.
    pub versions: Vec<HistoryVersion>,
    /// What is behind the last of them.
    pub rest: HistoryRest,
}

/// One version of a record in the authority's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryVersion {
    /// Its seq.
    pub seq: u64,
    /// Server time, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Who wrote it; all zero is the authority.
    pub device: DeviceId,
    /// What it was.
    pub kind: VersionKind,
    /// What was decided; none where the log no longer says so.
    pub verdict: Option<Verdict>,
    /// The value it wrote: the whole record, or the fields that a patch sets.
    pub record: Option<Record>,
}

/// What a version was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionKind {
    /// A create.
    Create,
    /// A put.
    Put,
    /// A patch.
    Patch,
    /// A delete.
    Delete,
    /// An undelete.
    Undelete,
    /// An erasure: nothing before it may be read.
    Erase,
    /// The record as it is, where the log no longer says how it came.
    Kept,
}

/// What is behind the last version of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRest {
    /// Nothing: that was the first one, or nothing is known of the record.
    Nothing,
    /// More: ask again for what is before the last one.
    More,
    /// Older ones that nobody can read any more.
    Gone,
}

coded!(VersionKind, "kind of version",
    Create = 0, "create";
    Put = 1, "put";
    Patch = 2, "patch";
    Delete = 3, "delete";
    Undelete = 4, "undelete";
    Erase = 5, "erase";
    Kept = 6, "kept";
);
coded!(HistoryRest, "rest of a history",
    Nothing = 0, "nothing";
    More = 1, "more";
    Gone = 2, "gone";
);

impl VersionKind {
    /// The kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        use VersionKind::{Create, Delete, Erase, Kept, Patch, Put, Undelete};
        let all = [Create, Put, Patch, Delete, Undelete, Erase, Kept];
        all.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl Encode for ReadHistory {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.attachment);
        out.u64(self.request);
        self.table.encode(out);
        self.key.encode(out);
        out.u64(self.before);
    }
}

impl Decode for ReadHistory {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            attachment: from.u64()?,
            request: from.u64()?,
            table: TableName::decode(from)?,
            key: Key::decode(from)?,
            before: from.u64()?,
        })
    }
}

impl Encode for History {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.attachment);
        out.u64(self.request);
        out.list(&self.versions);
        self.rest.encode(out);
    }
}

impl Decode for History {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            attachment: from.u64()?,
            request: from.u64()?,
            versions: from.list("versions", MAX_HISTORY_VERSIONS)?,
            rest: HistoryRest::decode(from)?,
        })
    }
}

impl Encode for HistoryVersion {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.seq);
        out.i64(self.time_ms);
        self.device.encode(out);
        self.kind.encode(out);
        out.option(self.verdict.as_ref());
        out.option(self.record.as_ref());
    }
}

impl Decode for HistoryVersion {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            seq: from.u64()?,
            time_ms: from.i64()?,
            device: DeviceId::decode(from)?,
            kind: VersionKind::decode(from)?,
            verdict: from.option()?,
            record: from.option()?,
        })
    }
}
