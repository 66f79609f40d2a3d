//! Batches of the authority alone: changes that nobody pushed.

use lastword_core::id::{BatchId, DeviceId, WorkspaceName};
use lastword_core::op::{Batch, Op};
use lastword_core::stamp::Decision;
use lastword_store::payload::DecidedBatch;

/// The frame of such a batch, behind seq `head`. `ops` come with the positions of their records'
/// frames before, 0 = none.
pub(crate) fn batch(
    workspace: &WorkspaceName,
    head: u64,
    (batch_id, time_ms): (BatchId, i64),
    (own, previous): (Vec<Op>, Vec<u64>),
) -> DecidedBatch {
    let (first_seq, last_seq) = (head + 1, head + own.len() as u64);
    let decision = Decision::Accepted { first_seq, last_seq, time_ms, verdicts: Vec::new() };
    let batch = Batch {
        device: DeviceId::AUTHORITY,
        counter: 0,
        batch_id,
        created_ms: time_ms,
        strict: false,
        former: Vec::new(),
        ops: Vec::new(),
    };
    let (workspace, payload_hash) = (workspace.clone(), batch.payload_hash());
    let values = Vec::new();
    DecidedBatch { workspace, batch, payload_hash, decision, own, previous, values }
}
