//! Workspaces that end: for everybody, or on one device.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::id::WorkspaceName;

/// A workspace was deleted; its authority writes it. Nobody is served it from here on, and its name
/// is not given to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceDeleted {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// When, milliseconds since 1970 UTC.
    pub time_ms: i64,
}

/// A replica forgets its copy of a workspace, with what is in its outbox. It counts its batches on
/// from the last one of which it knows the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// The workspace.
    pub workspace: WorkspaceName,
}

impl Encode for WorkspaceDeleted {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.i64(self.time_ms);
    }
}

impl Decode for WorkspaceDeleted {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { workspace: WorkspaceName::decode(from)?, time_ms: from.i64()? })
    }
}

impl Encode for Forgotten {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
    }
}

impl Decode for Forgotten {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { workspace: WorkspaceName::decode(from)? })
    }
}
