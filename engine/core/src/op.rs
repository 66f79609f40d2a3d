//! Ops and batches: what a writer asks for.

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder, size_of_len, to_bytes};
use crate::hlc::Hlc;
use crate::id::{BatchId, DeviceId, Key, TableName};
use crate::limits::{
    MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_FIELD_NAME_BYTES, MAX_FIELDS, MAX_FORMER_DEVICES,
};
use crate::value::{Field, Record, check_fields_untrusted};

/// What an op does to its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin a record; on a live record it is superseded. With `replace` it ends the life of the
    /// version named by the op's base and begins a new one.
    Create {
        /// The whole value.
        record: Record,
        /// True if it replaces the version named by the base.
        replace: bool,
    },
    /// Replace the whole value of a live record.
    Put {
        /// The whole value.
        record: Record,
    },
    /// Set and remove top-level fields of a live record; other fields stay.
    Patch {
        /// Fields to set.
        set: Vec<Field>,
        /// Names of fields to remove.
        remove: Vec<String>,
    },
    /// Turn a live record into a tombstone that still holds its value.
    Delete,
    /// Bring back exactly the value that one tombstone holds.
    Undelete {
        /// Which tombstone.
        tombstone: TombstoneRef,
    },
}

/// Names one tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TombstoneRef {
    /// By the seq of the delete.
    Seq(u64),
    /// By the device's own earlier batch that deleted it and had no seq yet.
    Batch(BatchId),
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The record's table.
    pub table: TableName,
    /// The record's key.
    pub key: Key,
    /// Authority seq of the version the writer had seen; 0 = none.
    pub base: u64,
    /// The writer's edit counter of this record.
    pub revision: u64,
    /// The writer's hybrid logical clock.
    pub hlc: Hlc,
    /// What to do.
    pub action: Action,
}

/// Ops that are decided and seen as one, at most one per record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The writer.
    pub device: DeviceId,
    /// Rises by one with each batch of the device in this workspace; the first is 1.
    pub counter: u64,
    /// Random identity, for exactly-once.
    pub batch_id: BatchId,
    /// The writer's wall time, milliseconds since 1970 UTC; shown, never used for order.
    pub created_ms: i64,
    /// A stale op is superseded whatever the policy (sent again after a fork or a restore).
    pub strict: bool,
    /// Earlier device ids of the same store, whose stamps count as its own.
    pub former: Vec<DeviceId>,
    /// The changes.
    pub ops: Vec<Op>,
}

/// A batch that breaks a limit or a rule of form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// No op at all.
    #[error("a batch needs at least one op")]
    Empty,
    /// Too many ops.
    #[error("batch has {len} ops, the limit is {limit}; split it into several batches")]
    TooManyOps {
        /// Ops found.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many bytes.
    #[error("batch is {size_bytes} bytes, the limit is {limit}; split it into several batches")]
    TooLarge {
        /// Encoded size of its ops in bytes.
        size_bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A record occurs twice.
    #[error("batch names {table}/{key} twice")]
    Twice {
        /// Its table.
        table: TableName,
        /// Its key.
        key: Key,
    },
    /// A field does not decode, a name repeats or a record is too large.
    #[error("{table}/{key}: {reason}")]
    Record {
        /// Its table.
        table: TableName,
        /// Its key.
        key: Key,
        /// What is wrong.
        reason: String,
    },
}

/// Bytes of an op beside names, key and values, at most: four numbers and a tombstone.
const OP_BYTES: usize = 64;

impl Op {
    /// Encoded size in bytes, at most.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let name = |name: &str| size_of_len(name.len()) + name.len();
        let value = match &self.action {
            Action::Create { record, .. } | Action::Put { record } => record.size_bytes(),
            Action::Patch { set, remove } => {
                let fields = set.iter().map(|field| {
                    name(&field.name) + size_of_len(field.value.len()) + field.value.len()
                });
                fields.sum::<usize>() + remove.iter().map(|removed| name(removed)).sum::<usize>()
            }
            Action::Delete | Action::Undelete { .. } => 0,
        };
        OP_BYTES + name(self.table.as_str()) + name(self.key.as_str()) + value
    }
}

impl Batch {
    /// BLAKE3 of the ops as pushed: the same batch id with another hash is an error.
    #[must_use]
    pub fn payload_hash(&self) -> [u8; 32] {
        let mut out = Encoder::default();
        out.list(&self.ops);
        *blake3::hash(&out.into_bytes()).as_bytes()
    }

    /// Checks the limits that hold for every writer.
    ///
    /// # Errors
    /// [`BatchError`] names the limit or the record.
    pub fn check_limits(&self) -> Result<(), BatchError> {
        if self.ops.is_empty() {
            return Err(BatchError::Empty);
        }
        if self.ops.len() > MAX_BATCH_OPS {
            let len = self.ops.len();
            return Err(BatchError::TooManyOps { len, limit: MAX_BATCH_OPS });
        }
        let mut seen = alloc::collections::BTreeSet::new();
        let mut size_bytes = 0;
        for op in &self.ops {
            size_bytes += to_bytes(op).len();
            if !seen.insert((&op.table, &op.key)) {
                return Err(BatchError::Twice { table: op.table.clone(), key: op.key.clone() });
            }
        }
        if size_bytes > MAX_BATCH_BYTES {
            return Err(BatchError::TooLarge { size_bytes, limit: MAX_BATCH_BYTES });
        }
        Ok(())
    }

    /// Checks what a decoder of borders does not: every value decodes, no name repeats, records
    /// are within their size.
    ///
    /// # Errors
    /// [`BatchError::Record`].
    pub fn check_untrusted(&self) -> Result<(), BatchError> {
        self.check_limits()?;
        self.ops.iter().try_for_each(|op| {
            op.action.check_untrusted().map_err(|reason| BatchError::Record {
                table: op.table.clone(),
                key: op.key.clone(),
                reason,
            })
        })
    }
}

impl Action {
    fn check_untrusted(&self) -> Result<(), String> {
        use alloc::string::ToString;
        match self {
            Action::Create { record, .. } | Action::Put { record } => {
                record.check_untrusted().map_err(|error| error.to_string())?;
                record.check_size().map_err(|error| error.to_string())
            }
            Action::Patch { set, remove } => {
                check_fields_untrusted(set).map_err(|error| error.to_string())?;
                match remove.iter().find(|name| set.iter().any(|f| &f.name == *name)) {
                    Some(name) => Err(alloc::format!("field {name:?} is both set and removed")),
                    None => Ok(()),
                }
            }
            Action::Delete | Action::Undelete { .. } => Ok(()),
        }
    }
}

const CREATE: u64 = 0;
const PUT: u64 = 1;
const PATCH: u64 = 2;
const DELETE: u64 = 3;
const UNDELETE: u64 = 4;

impl Encode for Action {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Action::Create { record, replace } => {
                out.u64(CREATE);
                record.encode(out);
                out.bool(*replace);
            }
            Action::Put { record } => {
                out.u64(PUT);
                record.encode(out);
            }
            Action::Patch { set, remove } => {
                out.u64(PATCH);
                out.list(set);
                out.list(remove);
            }
            Action::Delete => out.u64(DELETE),
            Action::Undelete { tombstone } => {
                out.u64(UNDELETE);
                tombstone.encode(out);
            }
        }
    }
}

impl Decode for Action {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        Ok(match from.u64()? {
            CREATE => Action::Create { record: Record::decode(from)?, replace: from.bool()? },
            PUT => Action::Put { record: Record::decode(from)? },
            PATCH => {
                let set = from.list("set fields", MAX_FIELDS)?;
                let len = from.len("removed fields", MAX_FIELDS)?;
                let mut remove = Vec::new();
                for _ in 0..len {
                    remove.push(from.str("field name", MAX_FIELD_NAME_BYTES)?.into());
                }
                Action::Patch { set, remove }
            }
            DELETE => Action::Delete,
            UNDELETE => Action::Undelete { tombstone: TombstoneRef::decode(from)? },
            _ => return Err(DecodeError::Invalid { what: "op tag", offset }),
        })
    }
}

impl Encode for TombstoneRef {
    fn encode(&self, out: &mut Encoder) {
        match self {
            TombstoneRef::Seq(seq) => {
                out.u64(0);
                out.u64(*seq);
            }
            TombstoneRef::Batch(id) => {
                out.u64(1);
                id.encode(out);
            }
        }
    }
}

impl Decode for TombstoneRef {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        Ok(match from.u64()? {
            0 => TombstoneRef::Seq(from.u64()?),
            1 => TombstoneRef::Batch(BatchId::decode(from)?),
            _ => return Err(DecodeError::Invalid { what: "tombstone tag", offset }),
        })
    }
}

impl Encode for Op {
    fn encode(&self, out: &mut Encoder) {
        self.table.encode(out);
        self.key.encode(out);
        out.u64(self.base);
        out.u64(self.revision);
        out.u64(self.hlc.0);
        self.action.encode(out);
    }
}

impl Decode for Op {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            table: TableName::decode(from)?,
            key: Key::decode(from)?,
            base: from.u64()?,
            revision: from.u64()?,
            hlc: Hlc(from.u64()?),
            action: Action::decode(from)?,
        })
    }
}

impl Encode for Batch {
    fn encode(&self, out: &mut Encoder) {
        self.device.encode(out);
        out.u64(self.counter);
        self.batch_id.encode(out);
        out.i64(self.created_ms);
        out.bool(self.strict);
        out.list(&self.former);
        out.list(&self.ops);
    }
}

impl Decode for Batch {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            device: DeviceId::decode(from)?,
            counter: from.u64()?,
            batch_id: BatchId::decode(from)?,
            created_ms: from.i64()?,
            strict: from.bool()?,
            former: from.list("former devices", MAX_FORMER_DEVICES)?,
            ops: from.list("ops", MAX_BATCH_OPS)?,
        })
    }
}
