//! Unsent batches that become one.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::id::BatchId;

use super::LocalBatch;

/// A write takes the newest batch of the outbox in, which no session was handed yet: one batch with
/// the ops of both, under the counter of that one, stands in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Squash {
    /// The batch that goes.
    pub replaced: BatchId,
    /// The batch that comes, with the local ops of the write alone.
    pub sent: LocalBatch,
}

impl Encode for Squash {
    fn encode(&self, out: &mut Encoder) {
        self.replaced.encode(out);
        self.sent.encode(out);
    }
}

impl Decode for Squash {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { replaced: BatchId::decode(from)?, sent: LocalBatch::decode(from)? })
    }
}
