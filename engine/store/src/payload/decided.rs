//! Batches as the authority decided them.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::id::WorkspaceName;
use lastword_core::limits::{MAX_BATCH_OPS, MAX_DECIDED_BYTES};
use lastword_core::op::{Batch, Op};
use lastword_core::stamp::Decision;
use lastword_core::value::Record;

use super::kind;

/// A batch that the authority decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedBatch {
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// The batch as sent; a refused one keeps no ops.
    pub batch: Batch,
    /// BLAKE3 of the ops as pushed.
    pub payload_hash: [u8; 32],
    /// What was decided.
    pub decision: Decision,
    /// The authority's own ops in the same batch (conflict rows); their seqs follow.
    pub own: Vec<Op>,
    /// For each op of `batch`, then of `own`: position of the record's previous frame, 0 = none.
    pub previous: Vec<u64>,
    /// What each undelete of `batch` that applied brought back, by its place there: the op names a
    /// value that an older frame has, and the log must hold it for as long as this version counts.
    pub values: Vec<(u64, Record)>,
}

/// One client op leaves at most one conflict row per device that wrote unseen.
const MAX_OWN_OPS: usize = MAX_DECIDED_BYTES / 64;

impl DecidedBatch {
    /// The frame kind that holds it.
    #[must_use]
    pub fn kind(&self) -> u8 {
        if self.values.is_empty() { kind::DECIDED } else { kind::DECIDED_VALUES }
    }

    /// What an op of `batch` brought back.
    #[must_use]
    pub fn value_at(&self, place: usize) -> Option<&Record> {
        let is_it = |(at, _): &&(u64, Record)| usize::try_from(*at) == Ok(place);
        self.values.iter().find(is_it).map(|(_, record)| record)
    }

    /// The encoded payload.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        self.encode(&mut out);
        if !self.values.is_empty() {
            out.len_of(self.values.len());
            for (place, record) in &self.values {
                out.u64(*place);
                record.encode(&mut out);
            }
        }
        out.into_bytes()
    }

    /// Reads one with values.
    pub(super) fn with_values(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        let mut decided = Self::decode(&mut from)?;
        let len = from.len("values", MAX_BATCH_OPS)?;
        let mut next = 0;
        for _ in 0..len {
            let place = from.u64()?;
            if place < next || place >= decided.batch.ops.len() as u64 {
                return Err(from.invalid("place of a value"));
            }
            next = place + 1;
            decided.values.push((place, Record::decode(&mut from)?));
        }
        // Without any it is a frame of the other kind.
        if decided.values.is_empty() {
            return Err(from.invalid("values"));
        }
        from.finish()?;
        Ok(decided)
    }
}

impl Encode for DecidedBatch {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        self.batch.encode(out);
        out.raw(&self.payload_hash);
        self.decision.encode(out);
        out.list(&self.own);
        out.list(&self.previous);
    }
}

impl Decode for DecidedBatch {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: WorkspaceName::decode(from)?,
            batch: Batch::decode(from)?,
            payload_hash: from.array()?,
            decision: Decision::decode(from)?,
            own: from.list("own ops", MAX_OWN_OPS)?,
            previous: from.list("positions", MAX_OWN_OPS + MAX_BATCH_OPS)?,
            values: Vec::new(),
        })
    }
}
