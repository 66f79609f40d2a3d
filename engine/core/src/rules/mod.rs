//! The rules of sync: the only place where versions are compared.
//!
//! [`decide`] says what an op does to its row; the authority calls it when it gives the seq, a
//! replica to predict what its own undecided ops will do. [`apply`] carries a verdict out and never
//! decides, so replaying a log gives the same rows for ever. [`overlay`] is what a replica shows:
//! the authority's row with the device's own ops on top. `docs/semantics.md` states each rule with
//! an example.

mod apply;
mod conflict;
mod decide;
mod overlay;
mod privacy;
mod squash;

pub use apply::apply;
pub use conflict::{CONFLICTS_TABLE, Conflict, Disputed, conflict_key, conflict_record, gave_way};
pub use decide::{Outcome, decide};
pub use overlay::{PENDING_SEQ, PendingOp, PendingState, overlay};
pub use privacy::{PRIVATE_TO, emptied, objection, sees};
pub use squash::squash;

use alloc::borrow::Cow;
use alloc::string::String;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::id::{BatchId, DeviceId};
use crate::op::Op;
use crate::plant::{Plant, planted};
use crate::stamp::{Mark, coded};

/// How a table treats a stale op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// It applies (the later seq wins) and a conflict is recorded.
    #[default]
    Arrival,
    /// Its stale fields are dropped; it is superseded if nothing is left.
    ServerWins,
    /// The greater (revision, hlc, op id) wins and nothing else decides.
    Revision,
}

coded!(Policy, "policy",
    Arrival = 0, "arrival";
    ServerWins = 1, "server_wins";
    Revision = 2, "revision";
);

/// What the schema says about the table of an op, as far as it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableRules<'a> {
    /// How a stale op is treated.
    pub policy: Policy,
    /// A key says what the record is, so a second create is no conflict.
    pub content_keyed: bool,
    /// Fields that only the authority sets: a client's op neither sets nor clears them.
    pub server_owned: &'a [String],
    /// The field that names the one user who sees a record and writes it.
    pub private_by: Option<&'a str>,
}

impl TableRules<'_> {
    fn owns(&self, name: &str) -> bool {
        self.server_owned.iter().any(|owned| owned == name)
    }
}

impl From<Policy> for TableRules<'_> {
    /// A table of which only the policy is said.
    fn from(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }
}

/// Who wrote the op that is being judged.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The device of its batch.
    pub device: DeviceId,
    /// Device ids that the same store had before.
    pub former: &'a [DeviceId],
    /// Supersede it if it is stale at all.
    pub strict: bool,
}

impl Writer<'_> {
    /// True if the mark was left by this store, now or under an earlier device id.
    #[must_use]
    pub fn owns(&self, mark: Mark) -> bool {
        mark.writer == self.device
            || self.former.contains(&mark.writer) && !planted(Plant::ForgetFormerNames)
    }

    fn is_authority(&self) -> bool {
        self.device == DeviceId::AUTHORITY
    }

    /// A change that the writer cannot have seen when its base was `base`.
    fn unseen(&self, mark: Mark, base: u64) -> bool {
        !self.is_authority() && mark.seq > base && !self.owns(mark)
    }
}

/// The op with what its base says in the history of these restores: a seq that was given after a
/// backup and is lost counts as older than everything, since whoever has it may know of it or not.
#[must_use]
pub fn with_known_base<'a>(op: &'a Op, lineage: &[(u64, u64)]) -> Cow<'a, Op> {
    match is_lost(op.base, lineage) && !planted(Plant::LostBaseCounts) {
        true => Cow::Owned(Op { base: 0, ..op.clone() }),
        false => Cow::Borrowed(op),
    }
}

/// Whether a seq was given after a backup that the authority went back to.
#[must_use]
pub fn is_lost(seq: u64, lineage: &[(u64, u64)]) -> bool {
    lineage.iter().any(|(branch, jump)| *branch < seq && seq <= *jump)
}

/// The stamp that an op gets if it takes effect.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Its seq.
    pub seq: u64,
    /// Server time, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Its batch.
    pub op_id: BatchId,
}
