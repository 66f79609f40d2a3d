//! What a replica shows: the authority's row with the device's own ops on top.

use super::{At, TableRules, Writer, apply, decide};
use crate::id::{BatchId, DeviceId};
use crate::op::Op;
use crate::plant::{Plant, planted};
use crate::row::Row;
use crate::stamp::Verdict;

/// The seq of a predicted change, above every real one.
pub const PENDING_SEQ: u64 = u64::MAX;

/// An own op that the replica's cursor has not passed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingOp {
    /// Counter of its batch.
    pub counter: u64,
    /// Its batch.
    pub batch_id: BatchId,
    /// When it was written, milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// True if its batch is `strict`.
    pub strict: bool,
    /// The op as sent.
    pub op: Op,
    /// What is known about it.
    pub state: PendingState,
}

/// What is known about an own op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingState {
    /// No verdict yet.
    Undecided,
    /// Decided, but the stream has not shown it yet.
    Settled {
        /// Its seq.
        seq: u64,
        /// Server time of the decision, milliseconds since 1970 UTC.
        time_ms: i64,
        /// Its verdict.
        verdict: Verdict,
    },
}

/// The visible row: `shadow` (the authority's row) with `pending` (in counter order) on top.
/// Undecided ops are predicted with the authority's own rules; settled ones obey their verdict,
/// unless the authority's row already contains them.
#[must_use]
pub fn overlay(
    shadow: Option<&Row>,
    pending: &[PendingOp],
    device: DeviceId,
    former: &[DeviceId],
    rules: TableRules<'_>,
) -> Option<Row> {
    let shown = shadow.map_or(0, |row| row.last.seq);
    let mut row = shadow.cloned();
    for own in pending {
        match &own.state {
            PendingState::Undecided => {
                let writer = Writer { device, former, strict: own.strict };
                let at = At { seq: PENDING_SEQ, time_ms: own.created_ms, op_id: own.batch_id };
                let outcome = decide(row.as_ref(), &own.op, &writer, &at, rules);
                // A result beyond the limits will be refused, so nothing of it is shown.
                if let Some(next) = outcome.ok().and_then(|outcome| outcome.row) {
                    row = Some(next);
                }
            }
            PendingState::Settled { seq, time_ms, verdict: Verdict::Applied { dropped } }
                if *seq > shown || planted(Plant::SettledTwice) =>
            {
                let at = At { seq: *seq, time_ms: *time_ms, op_id: own.batch_id };
                row = apply(row.as_ref(), &own.op, device, &at, rules, dropped);
            }
            PendingState::Settled { .. } => {}
        }
    }
    row
}
