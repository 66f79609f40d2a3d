//! What a restored authority has lost and replicas have brought back.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::id::{DeviceId, WorkspaceName};
use lastword_core::limits::MAX_PAGE_ENTRIES;
use lastword_core::protocol::Entry;

/// Survivors come or go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurvivorFrame {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The device that has brought them; all zero if none come.
    pub device: DeviceId,
    /// When, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// Rows as the lost history had them.
    pub entries: Vec<Entry>,
    /// Seqs in the lost history of those that nobody needs any more.
    pub gone: Vec<u64>,
}

impl Encode for SurvivorFrame {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        self.device.encode(out);
        out.i64(self.time_ms);
        out.list(&self.entries);
        out.list(&self.gone);
    }
}

impl Decode for SurvivorFrame {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: WorkspaceName::decode(from)?,
            device: DeviceId::decode(from)?,
            time_ms: from.i64()?,
            entries: from.list("survivors", MAX_PAGE_ENTRIES)?,
            gone: from.list("seqs of survivors", MAX_PAGE_ENTRIES)?,
        })
    }
}
