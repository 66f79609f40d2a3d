//! What the authority adds to an op: its seq, server time and verdict.

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::id::DeviceId;
use crate::limits::{MAX_BATCH_OPS, MAX_FIELD_NAME_BYTES, MAX_PATCH_NAMES, MAX_TEXT_BYTES};

/// Who wrote something and when: an authority seq and its writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Authority seq of the op.
    pub seq: u64,
    /// Device that wrote it.
    pub writer: DeviceId,
}

/// What became of one op of a decided batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It changed its record.
    Applied {
        /// Fields of the op that had no effect.
        dropped: Vec<String>,
    },
    /// A newer version stands; the op is in the log and its value in the history.
    Superseded {
        /// Seq of the version that stands; 0 if the record never existed or is purged.
        by: u64,
        /// Why.
        reason: Superseded,
    },
}

/// Why an op was superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Superseded {
    /// The record changed since the writer saw it.
    Stale,
    /// The record is deleted or was never known.
    Dead,
    /// The record that the writer saw has ended; another life began since.
    EarlierLife,
    /// A create met a live record.
    Exists,
    /// The tombstone that an undelete names is no longer the current one.
    NotThatTombstone,
    /// The tombstone's value is no longer kept.
    ValueGone,
    /// A greater (revision, hlc, op id) stands.
    LowerRevision,
}

/// What the authority decided about one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The batch is in the log.
    Accepted {
        /// Seq of its first op; the others follow by one each.
        first_seq: u64,
        /// Seq of the last op in its frame, the authority's own rows included.
        last_seq: u64,
        /// Server time of the decision, milliseconds since 1970 UTC.
        time_ms: i64,
        /// One verdict per op, in order.
        verdicts: Vec<Verdict>,
    },
    /// The whole batch is refused, for good.
    Refused {
        /// Why.
        code: RefusalCode,
        /// For people: what to change.
        message: String,
        /// Server time of the decision, milliseconds since 1970 UTC.
        time_ms: i64,
    },
}

impl Decision {
    /// Server time of the decision, milliseconds since 1970 UTC.
    #[must_use]
    pub fn time_ms(&self) -> i64 {
        match self {
            Decision::Accepted { time_ms, .. } | Decision::Refused { time_ms, .. } => *time_ms,
        }
    }
}

/// Why a batch was refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// It breaks a limit or a rule of form.
    Invalid,
    /// The resulting record or frame would be too large.
    ResultTooBig,
    /// It names a table that the schema does not know, or one that belongs to the product.
    UnknownTable,
    /// A hook or policy said no.
    Policy,
    /// The workspace's quota is used up.
    OverQuota,
    /// The device itself says so: the authority may have decided the batch, and nobody knows how.
    OutcomeUnknown,
}

impl Encode for Mark {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.seq);
        self.writer.encode(out);
    }
}

impl Decode for Mark {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { seq: from.u64()?, writer: DeviceId::decode(from)? })
    }
}

macro_rules! coded {
    ($name:ident, $what:literal, $($variant:ident = $code:literal, $text:literal;)+) => {
        impl $name {
            /// The name used in `--json` output and in errors.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Encoder) {
                out.u64(match self { $($name::$variant => $code,)+ });
            }
        }

        impl Decode for $name {
            fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                let offset = from.offset();
                match from.u64()? {
                    $($code => Ok($name::$variant),)+
                    _ => Err(DecodeError::Invalid { what: $what, offset }),
                }
            }
        }
    };
}
pub(crate) use coded;

coded!(Superseded, "superseded reason",
    Stale = 0, "stale";
    Dead = 1, "dead";
    EarlierLife = 2, "earlier_life";
    Exists = 3, "exists";
    NotThatTombstone = 4, "not_that_tombstone";
    ValueGone = 5, "value_gone";
    LowerRevision = 6, "lower_revision";
);

coded!(RefusalCode, "refusal code",
    Invalid = 0, "invalid";
    ResultTooBig = 1, "result_too_big";
    UnknownTable = 2, "unknown_table";
    Policy = 3, "policy";
    OverQuota = 4, "over_quota";
    OutcomeUnknown = 5, "outcome_unknown";
);

impl Encode for Verdict {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Verdict::Applied { dropped } => {
                out.u64(0);
                out.list(dropped);
            }
            Verdict::Superseded { by, reason } => {
                out.u64(1);
                out.u64(*by);
                reason.encode(out);
            }
        }
    }
}

impl Decode for Verdict {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        Ok(match from.u64()? {
            0 => {
                let len = from.len("dropped fields", MAX_PATCH_NAMES)?;
                let mut dropped = Vec::new();
                for _ in 0..len {
                    dropped.push(from.str("field name", MAX_FIELD_NAME_BYTES)?.into());
                }
                Verdict::Applied { dropped }
            }
            1 => Verdict::Superseded { by: from.u64()?, reason: Superseded::decode(from)? },
            _ => return Err(DecodeError::Invalid { what: "verdict tag", offset }),
        })
    }
}

impl Encode for Decision {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Decision::Accepted { first_seq, last_seq, time_ms, verdicts } => {
                out.u64(0);
                out.u64(*first_seq);
                out.u64(*last_seq);
                out.i64(*time_ms);
                out.list(verdicts);
            }
            Decision::Refused { code, message, time_ms } => {
                out.u64(1);
                code.encode(out);
                out.str(message);
                out.i64(*time_ms);
            }
        }
    }
}

impl Decode for Decision {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        Ok(match from.u64()? {
            0 => Decision::Accepted {
                first_seq: from.u64()?,
                last_seq: from.u64()?,
                time_ms: from.i64()?,
                verdicts: from.list("verdicts", MAX_BATCH_OPS)?,
            },
            1 => Decision::Refused {
                code: RefusalCode::decode(from)?,
                message: from.str("message", MAX_TEXT_BYTES)?.into(),
                time_ms: from.i64()?,
            },
            _ => return Err(DecodeError::Invalid { what: "decision tag", offset }),
        })
    }
}
