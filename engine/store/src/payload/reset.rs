//! Frames of a replica that takes a workspace anew, and of one whose batches cannot be sent again.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::id::{Epoch, Key, TableName, WorkspaceName};
use lastword_core::limits::{MAX_BATCH_OPS, MAX_LINEAGE};
use lastword_core::op::Op;
use lastword_core::protocol::Role;

use super::MAX_OUTBOX_BATCHES;

/// A replica takes its workspace anew: the pages that follow go into a new copy, which takes the
/// place of the visible one with the page that is consistent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Epoch of the history that is taken.
    pub epoch: Epoch,
    /// The user's role.
    pub role: Role,
    /// The authority's horizon when it begins.
    pub horizon: u64,
    /// (branch seq, jump seq) of every restore of the authority, oldest first.
    pub lineage: Vec<(u64, u64)>,
    /// Set if it is another history: the last counter of this device that it knows. What the
    /// outbox holds is sent again behind it. None if deletes may have been missed.
    pub other_history: Option<u64>,
}

/// What a replica's copy of a workspace covers, from here on. It comes behind the reset that it
/// needs: a copy that is older than its cover would be taken for what it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The cover, as the authority said.
    pub cover: [u8; 16],
}

/// Rows of local tables, which no page brings, as they are in the visible copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The records.
    pub records: Vec<(TableName, Key)>,
}

/// Batches of which nobody knows whether the authority has them, and what depends on them, leave
/// the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Counters that leave.
    pub counters: Vec<u64>,
    /// (old, new) counters of the batches that stay.
    pub renumbered: Vec<(u64, u64)>,
    /// Their dead-letter rows.
    pub rows: Vec<Op>,
}

impl Encode for Reset {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        self.epoch.encode(out);
        self.role.encode(out);
        out.u64(self.horizon);
        out.len_of(self.lineage.len());
        for (branch, jump) in &self.lineage {
            out.u64(*branch);
            out.u64(*jump);
        }
        out.bool(self.other_history.is_some());
        if let Some(counter) = self.other_history {
            out.u64(counter);
        }
    }
}

impl Decode for Reset {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let workspace = WorkspaceName::decode(from)?;
        let (epoch, role) = (Epoch::decode(from)?, Role::decode(from)?);
        let horizon = from.u64()?;
        let lineage = pairs(from, "lineage", MAX_LINEAGE)?;
        let other_history = if from.bool()? { Some(from.u64()?) } else { None };
        Ok(Self { workspace, epoch, role, horizon, lineage, other_history })
    }
}

fn pairs(
    from: &mut Decoder<'_>,
    what: &'static str,
    limit: usize,
) -> Result<Vec<(u64, u64)>, DecodeError> {
    let len = from.len(what, limit)?;
    (0..len).map(|_| Ok((from.u64()?, from.u64()?))).collect()
}

impl Encode for Cover {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.raw(&self.cover);
    }
}

impl Decode for Cover {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { workspace: WorkspaceName::decode(from)?, cover: from.array()? })
    }
}

impl Encode for Carried {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.len_of(self.records.len());
        for (table, key) in &self.records {
            table.encode(out);
            key.encode(out);
        }
    }
}

impl Decode for Carried {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let workspace = WorkspaceName::decode(from)?;
        let len = from.len("carried records", MAX_BATCH_OPS)?;
        let record = |_| Ok((TableName::decode(from)?, Key::decode(from)?));
        Ok(Self { workspace, records: (0..len).map(record).collect::<Result<_, _>>()? })
    }
}

impl Encode for SetAside {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.list(&self.counters);
        out.len_of(self.renumbered.len());
        for (old, new) in &self.renumbered {
            out.u64(*old);
            out.u64(*new);
        }
        out.list(&self.rows);
    }
}

impl Decode for SetAside {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: WorkspaceName::decode(from)?,
            counters: from.list("counters", MAX_OUTBOX_BATCHES)?,
            renumbered: pairs(from, "renumbered", MAX_OUTBOX_BATCHES)?,
            rows: from.list("dead letters", MAX_OUTBOX_BATCHES)?,
        })
    }
}
