//! What the frames of the log say: one type per frame kind, each a plain statement of what was
//! written, received or decided. Replaying them gives the state; none of them asks for a decision.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder, from_bytes, to_bytes};
use lastword_core::id::{DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::limits::{
    MAX_ATTACHED_DECISIONS, MAX_BATCH_OPS, MAX_FORMER_DEVICES, MAX_TEXT_BYTES,
};
use lastword_core::op::{Batch, Op};
use lastword_core::protocol::{Decided, Role};
use lastword_core::schema::Schema;

mod blobs;
mod decided;
mod ended;
mod objects;
mod page;
mod reset;
mod squash;
mod survivors;

pub(crate) use blobs::pack_position;
pub use blobs::{BlobsFrame, BlobsPart, DamagedChunk, NewChunk, PackChunks};
pub use decided::DecidedBatch;
pub use ended::{Forgotten, WorkspaceDeleted};
pub use objects::{Object, ObjectFrame, ObjectPart, ObjectState};
pub use page::{RemotePage, WalkFrame};
pub use reset::{Carried, Cover, Reset, SetAside};
pub use squash::Squash;
pub use survivors::SurvivorFrame;

/// Frame kinds of the layer above the log. 32 and 35 are reserved.
pub mod kind {
    /// [`super::Identity`].
    pub const IDENTITY: u8 = 16;
    /// [`super::LocalBatch`].
    pub const LOCAL: u8 = 17;
    /// [`super::DecidedBatch`].
    pub const DECIDED: u8 = 18;
    /// [`super::RemotePage`].
    pub const REMOTE: u8 = 19;
    /// [`super::Verdicts`].
    pub const VERDICTS: u8 = 20;
    /// [`super::Attachment`].
    pub const ATTACHMENT: u8 = 21;
    /// [`super::DeadLetters`].
    pub const DEAD_LETTERS: u8 = 22;
    /// [`super::Sums`].
    pub const SUMS: u8 = 23;
    /// [`super::Purge`].
    pub const PURGE: u8 = 24;
    /// [`super::Reset`].
    pub const RESET: u8 = 25;
    /// [`super::Carried`].
    pub const CARRIED: u8 = 26;
    /// [`super::Erasure`].
    pub const ERASURE: u8 = 27;
    /// [`super::SurvivorFrame`].
    pub const SURVIVORS: u8 = 28;
    /// [`super::Restored`].
    pub const RESTORED: u8 = 29;
    /// [`super::LocalTables`].
    pub const LOCAL_TABLES: u8 = 30;
    /// [`super::Identity`] of a store that goes on as another device.
    pub const FORK: u8 = 31;
    /// [`super::WorkspaceSchema`].
    pub const SCHEMA: u8 = 33;
    /// [`super::Retry`].
    pub const RETRY: u8 = 34;
    /// [`super::SetAside`].
    pub const SET_ASIDE: u8 = 36;
    /// [`super::Cover`].
    pub const COVER: u8 = 37;
    /// [`super::Squash`].
    pub const SQUASH: u8 = 38;
    /// [`super::DecidedBatch`] that brings values of deleted records back.
    pub const DECIDED_VALUES: u8 = 39;
    /// [`super::BlobsFrame`].
    pub const BLOBS: u8 = 40;
    /// [`super::ObjectFrame`].
    pub const OBJECT: u8 = 41;
    /// A page of a walk that a replica received.
    pub const WALK: u8 = 42;
    /// [`super::WorkspaceDeleted`].
    pub const WORKSPACE_DELETED: u8 = 48;
    /// [`super::Forgotten`].
    pub const FORGOTTEN: u8 = 49;
}

/// The part that a store plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreRole {
    /// The copy of one device.
    Replica,
    /// The party that orders a workspace's ops.
    Authority,
}

/// First frame of a store, and again after a salvage, restore or fork: who this store is. A new
/// device id begins with an empty outbox and counts its batches from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its part.
    pub role: StoreRole,
    /// The device that writes with it; all zero for an authority.
    pub device: DeviceId,
    /// Device ids it had before.
    pub former: Vec<DeviceId>,
    /// When it got this identity, milliseconds since 1970 UTC.
    pub created_ms: i64,
}

/// A batch written on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalBatch {
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// The ops to be synced; none if the batch touches local tables only.
    pub batch: Option<Batch>,
    /// Ops on local tables: applied here, never pushed.
    pub local: Vec<Op>,
    /// For each op of `batch`, then of `local`: position of the record's previous frame, 0 = none.
    pub previous: Vec<u64>,
}

/// Verdicts that a replica received for its own batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdicts {
    /// Their workspace.
    pub workspace: WorkspaceName,
    /// The decisions, in counter order; refusals are in [`DeadLetters`] instead.
    pub decisions: Vec<Decided>,
}

/// A replica's workspace met its authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Epoch of its history.
    pub epoch: Epoch,
    /// The user's role.
    pub role: Role,
    /// The authority's horizon.
    pub horizon: u64,
}

/// A refused batch and every later one that depends on it leave the outbox as one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetters {
    /// Their workspace.
    pub workspace: WorkspaceName,
    /// The decision that began it.
    pub refused: Decided,
    /// Counters that leave the outbox, the refused one first.
    pub counters: Vec<u64>,
    /// Batches that stay: (old counter, new counter), ascending.
    pub renumbered: Vec<(u64, u64)>,
    /// The rows of `_dead_letters`, one per batch, for workspace `_store`.
    pub rows: Vec<Op>,
}

/// A dead letter goes back into the outbox: its ops as a new batch, and in the same step its row
/// of `_dead_letters` goes, so that it is neither lost nor sent twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The new batch; it has no local ops.
    pub sent: LocalBatch,
    /// Deletes the row, in workspace `_store`.
    pub letter: Op,
}

/// Row counts and digest sums of all workspaces at one position, to check a rebuild with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    /// Per workspace: live rows and digest sum.
    pub workspaces: Vec<(WorkspaceName, u64, u128)>,
}

/// A workspace was restored from a backup: what its authority had given after it is lost, and no
/// seq of that is given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Epoch of the history that begins here.
    pub epoch: Epoch,
    /// Last seq that the backup knows.
    pub branch: u64,
    /// Seqs go on behind this one.
    pub head: u64,
    /// When it was restored, milliseconds since 1970 UTC.
    pub time_ms: i64,
}

/// The schema of a workspace from here on. Ops before it were decided and predicted without it, so
/// it counts from its place in the log, also when the log is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceSchema {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The schema; none if the authority takes any table.
    pub schema: Option<Schema>,
}

/// Something that nobody may ask for any more leaves the state of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// What goes.
    pub part: PurgePart,
}

/// What a [`Purge`] takes away, in pieces small enough for one step of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgePart {
    /// Rows that end by themselves, up to this time in milliseconds since 1970 UTC.
    Expired {
        /// The last of them ends at this time.
        until_ms: i64,
    },
    /// Tombstones up to this seq, to which the horizon moves: no cursor before it can catch up.
    Tombstones {
        /// The horizon from here on.
        horizon: u64,
    },
    /// Decisions of one device up to this counter: it has had time enough to ask for them.
    Decisions {
        /// The device.
        device: DeviceId,
        /// The last counter whose decision goes.
        through: u64,
    },
    /// Nothing yet: how far the clock by which things grow old has come. It is the store's, so the
    /// workspace is `_store`.
    Clock {
        /// Milliseconds since 1970 UTC.
        now_ms: i64,
    },
    /// Nothing more: what was erased before this position is in no file of the store.
    Erased {
        /// Position in the log.
        before: u64,
    },
    /// Rows of a copy that another took the place of, or that was given up: the first of them.
    Generation {
        /// The generation that they are in.
        generation: u32,
    },
    /// Entries in order of seq, in (after, through], whose record has moved on to a newer seq.
    Stale {
        /// The entries begin behind this seq.
        after: u64,
        /// They end here.
        through: u64,
    },
}

/// Records of which no version may be read any more; the authority writes it. Each becomes a
/// tombstone without a value, under a seq of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Seq of the first; the others follow by one each.
    pub first_seq: u64,
    /// When, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// The records.
    pub records: Vec<(TableName, Key)>,
}

/// Tables that never leave this device, from here on and for good: with rows of a server under the
/// same name, neither could be told from the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTables {
    /// The tables, in every workspace.
    pub tables: Vec<TableName>,
}

/// Most batches in one dead-letter unit or renumbering; an outbox beyond it is full.
pub const MAX_OUTBOX_BATCHES: usize = 1_000_000;
/// Most tables that an app declares local.
pub const MAX_LOCAL_TABLES: usize = 10_000;
/// Most workspaces in one store.
pub const MAX_WORKSPACES: usize = 1_000_000;

/// A frame payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Who this store is.
    Identity(Identity),
    /// A batch written here.
    Local(LocalBatch),
    /// A batch decided here.
    Decided(DecidedBatch),
    /// Changes received.
    Remote(RemotePage),
    /// Verdicts received.
    Verdicts(Verdicts),
    /// The authority was met.
    Attachment(Attachment),
    /// Batches left the outbox unsent or refused.
    DeadLetters(DeadLetters),
    /// Sums to check a rebuild with.
    Sums(Sums),
    /// Something nobody may ask for any more.
    Purge(Purge),
    /// Records were erased.
    Erasure(Erasure),
    /// Replicas brought back what the authority had lost.
    Survivors(SurvivorFrame),
    /// A workspace goes on from a backup.
    Restored(Restored),
    /// An app declared tables local.
    LocalTables(LocalTables),
    /// A workspace has another schema.
    Schema(WorkspaceSchema),
    /// A dead letter is sent again.
    Retry(Retry),
    /// A workspace is taken anew.
    Reset(Reset),
    /// Local rows came into the new copy.
    Carried(Carried),
    /// The store goes on as another device, with what waits in its outbox.
    Fork(Identity),
    /// Batches that cannot be sent again left the outbox.
    SetAside(SetAside),
    /// A copy covers something else.
    Cover(Cover),
    /// Unsent batches became one.
    Squash(Squash),
    /// Something about files.
    Blobs(BlobsFrame),
    /// Something about a file that an object store keeps.
    Object(ObjectFrame),
    /// A workspace is no more.
    WorkspaceDeleted(WorkspaceDeleted),
    /// A device forgot its copy.
    Forgotten(Forgotten),
}

impl Payload {
    /// The frame kind that holds it.
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Payload::Identity(_) => kind::IDENTITY,
            Payload::Local(_) => kind::LOCAL,
            Payload::Decided(body) => body.kind(),
            Payload::Remote(page) if page.walk.is_some() => kind::WALK,
            Payload::Remote(_) => kind::REMOTE,
            Payload::Verdicts(_) => kind::VERDICTS,
            Payload::Attachment(_) => kind::ATTACHMENT,
            Payload::DeadLetters(_) => kind::DEAD_LETTERS,
            Payload::Sums(_) => kind::SUMS,
            Payload::Purge(_) => kind::PURGE,
            Payload::Erasure(_) => kind::ERASURE,
            Payload::Survivors(_) => kind::SURVIVORS,
            Payload::Restored(_) => kind::RESTORED,
            Payload::LocalTables(_) => kind::LOCAL_TABLES,
            Payload::Schema(_) => kind::SCHEMA,
            Payload::Retry(_) => kind::RETRY,
            Payload::Reset(_) => kind::RESET,
            Payload::Carried(_) => kind::CARRIED,
            Payload::Fork(_) => kind::FORK,
            Payload::SetAside(_) => kind::SET_ASIDE,
            Payload::Cover(_) => kind::COVER,
            Payload::Squash(_) => kind::SQUASH,
            Payload::Blobs(_) => kind::BLOBS,
            Payload::Object(_) => kind::OBJECT,
            Payload::WorkspaceDeleted(_) => kind::WORKSPACE_DELETED,
            Payload::Forgotten(_) => kind::FORGOTTEN,
        }
    }

    /// What this device wrote, if the frame says that: at first or again.
    #[must_use]
    pub fn into_own(self) -> Option<LocalBatch> {
        match self {
            Payload::Local(local)
            | Payload::Retry(Retry { sent: local, .. })
            | Payload::Squash(Squash { sent: local, .. }) => Some(local),
            _ => None,
        }
    }

    /// The encoded payload.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Payload::Identity(body) => to_bytes(body),
            Payload::Local(body) => to_bytes(body),
            Payload::Decided(body) => body.to_bytes(),
            Payload::Remote(body) => to_bytes(body),
            Payload::Verdicts(body) => to_bytes(body),
            Payload::Attachment(body) => to_bytes(body),
            Payload::DeadLetters(body) => to_bytes(body),
            Payload::Sums(body) => to_bytes(body),
            Payload::Purge(body) => to_bytes(body),
            Payload::Erasure(body) => to_bytes(body),
            Payload::Survivors(body) => to_bytes(body),
            Payload::Restored(body) => to_bytes(body),
            Payload::LocalTables(body) => to_bytes(body),
            Payload::Schema(body) => to_bytes(body),
            Payload::Retry(body) => to_bytes(body),
            Payload::Reset(body) => to_bytes(body),
            Payload::Carried(body) => to_bytes(body),
            Payload::Fork(body) => to_bytes(body),
            Payload::SetAside(body) => to_bytes(body),
            Payload::Cover(body) => to_bytes(body),
            Payload::Squash(body) => to_bytes(body),
            Payload::Blobs(body) => to_bytes(body),
            Payload::Object(body) => to_bytes(body),
            Payload::WorkspaceDeleted(body) => to_bytes(body),
            Payload::Forgotten(body) => to_bytes(body),
        }
    }

    /// Reads the payload of a frame of that kind.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes or the kind make no sense.
    pub fn from_frame(kind: u8, bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(match kind {
            kind::IDENTITY => Payload::Identity(from_bytes(bytes)?),
            kind::LOCAL => Payload::Local(from_bytes(bytes)?),
            kind::DECIDED => Payload::Decided(from_bytes(bytes)?),
            kind::DECIDED_VALUES => Payload::Decided(DecidedBatch::with_values(bytes)?),
            kind::REMOTE => Payload::Remote(from_bytes(bytes)?),
            kind::WALK => Payload::Remote(page::of_walk(bytes)?),
            kind::VERDICTS => Payload::Verdicts(from_bytes(bytes)?),
            kind::ATTACHMENT => Payload::Attachment(from_bytes(bytes)?),
            kind::DEAD_LETTERS => Payload::DeadLetters(from_bytes(bytes)?),
            kind::SUMS => Payload::Sums(from_bytes(bytes)?),
            kind::PURGE => Payload::Purge(from_bytes(bytes)?),
            kind::ERASURE => Payload::Erasure(from_bytes(bytes)?),
            kind::SURVIVORS => Payload::Survivors(from_bytes(bytes)?),
            kind::RESTORED => Payload::Restored(from_bytes(bytes)?),
            kind::LOCAL_TABLES => Payload::LocalTables(from_bytes(bytes)?),
            kind::SCHEMA => Payload::Schema(from_bytes(bytes)?),
            kind::RETRY => Payload::Retry(from_bytes(bytes)?),
            kind::RESET => Payload::Reset(from_bytes(bytes)?),
            kind::CARRIED => Payload::Carried(from_bytes(bytes)?),
            kind::FORK => Payload::Fork(from_bytes(bytes)?),
            kind::SET_ASIDE => Payload::SetAside(from_bytes(bytes)?),
            kind::COVER => Payload::Cover(from_bytes(bytes)?),
            kind::SQUASH => Payload::Squash(from_bytes(bytes)?),
            kind::BLOBS => Payload::Blobs(from_bytes(bytes)?),
            kind::OBJECT => Payload::Object(from_bytes(bytes)?),
            kind::WORKSPACE_DELETED => Payload::WorkspaceDeleted(from_bytes(bytes)?),
            kind::FORGOTTEN => Payload::Forgotten(from_bytes(bytes)?),
            _ => return Err(DecodeError::Invalid { what: "frame kind", offset: 0 }),
        })
    }
}

impl Encode for Identity {
    fn encode(&self, out: &mut Encoder) {
        out.u64(match self.role {
            StoreRole::Replica => 0,
            StoreRole::Authority => 1,
        });
        self.device.encode(out);
        out.list(&self.former);
        out.i64(self.created_ms);
    }
}

impl Decode for Identity {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        let role = match from.u64()? {
            0 => StoreRole::Replica,
            1 => StoreRole::Authority,
            _ => return Err(DecodeError::Invalid { what: "store role", offset }),
        };
        Ok(Self {
            role,
            device: DeviceId::decode(from)?,
            former: from.list("former devices", MAX_FORMER_DEVICES)?,
            created_ms: from.i64()?,
        })
    }
}

impl Encode for LocalBatch {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.option(self.batch.as_ref());
        out.list(&self.local);
        out.list(&self.previous);
    }
}

impl Decode for LocalBatch {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: WorkspaceName::decode(from)?,
            batch: from.option()?,
            local: from.list("local ops", MAX_BATCH_OPS)?,
            previous: from.list("positions", 2 * MAX_BATCH_OPS)?,
        })
    }
}

impl Encode for Verdicts {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.list(&self.decisions);
    }
}

impl Decode for Verdicts {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: WorkspaceName::decode(from)?,
            decisions: from.list("decisions", MAX_ATTACHED_DECISIONS)?,
        })
    }
}

impl Encode for Attachment {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        self.epoch.encode(out);
        self.role.encode(out);
        out.u64(self.horizon);
    }
}

impl Decode for Attachment {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: WorkspaceName::decode(from)?,
            epoch: Epoch::decode(from)?,
            role: Role::decode(from)?,
            horizon: from.u64()?,
        })
    }
}

impl Encode for DeadLetters {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        self.refused.encode(out);
        out.list(&self.counters);
        out.len_of(self.renumbered.len());
        for (old, new) in &self.renumbered {
            out.u64(*old);
            out.u64(*new);
        }
        out.list(&self.rows);
    }
}

impl Decode for DeadLetters {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let workspace = WorkspaceName::decode(from)?;
        let refused = Decided::decode(from)?;
        let counters = from.list("counters", MAX_OUTBOX_BATCHES)?;
        let len = from.len("renumbered", MAX_OUTBOX_BATCHES)?;
        let mut renumbered = Vec::new();
        for _ in 0..len {
            renumbered.push((from.u64()?, from.u64()?));
        }
        let rows = from.list("dead letters", MAX_OUTBOX_BATCHES)?;
        Ok(Self { workspace, refused, counters, renumbered, rows })
    }
}

impl Encode for Sums {
    fn encode(&self, out: &mut Encoder) {
        out.len_of(self.workspaces.len());
        for (workspace, rows, digest) in &self.workspaces {
            workspace.encode(out);
            out.u64(*rows);
            out.raw(&digest.to_le_bytes());
        }
    }
}

impl Decode for Sums {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let len = from.len("workspaces", MAX_WORKSPACES)?;
        let mut workspaces = Vec::new();
        for _ in 0..len {
            let workspace = WorkspaceName::decode(from)?;
            workspaces.push((workspace, from.u64()?, u128::from_le_bytes(from.array()?)));
        }
        Ok(Self { workspaces })
    }
}

impl Encode for Purge {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        match &self.part {
            PurgePart::Expired { until_ms } => {
                out.u64(0);
                out.i64(*until_ms);
            }
            PurgePart::Tombstones { horizon } => {
                out.u64(1);
                out.u64(*horizon);
            }
            PurgePart::Decisions { device, through } => {
                out.u64(2);
                device.encode(out);
                out.u64(*through);
            }
            PurgePart::Stale { after, through } => {
                out.u64(3);
                out.u64(*after);
                out.u64(*through);
            }
            PurgePart::Clock { now_ms } => {
                out.u64(4);
                out.i64(*now_ms);
            }
            PurgePart::Erased { before } => {
                out.u64(5);
                out.u64(*before);
            }
            PurgePart::Generation { generation } => {
                out.u64(6);
                out.u64(u64::from(*generation));
            }
        }
    }
}

impl Decode for Purge {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let workspace = WorkspaceName::decode(from)?;
        let offset = from.offset();
        let part = match from.u64()? {
            0 => PurgePart::Expired { until_ms: from.i64()? },
            1 => PurgePart::Tombstones { horizon: from.u64()? },
            2 => PurgePart::Decisions { device: DeviceId::decode(from)?, through: from.u64()? },
            3 => PurgePart::Stale { after: from.u64()?, through: from.u64()? },
            5 => PurgePart::Erased { before: from.u64()? },
            4 => PurgePart::Clock { now_ms: from.i64()? },
            6 => {
                let generation = u32::try_from(from.u64()?);
                let generation = generation.map_err(|_| from.invalid("generation"))?;
                PurgePart::Generation { generation }
            }
            _ => return Err(DecodeError::Invalid { what: "purge", offset }),
        };
        Ok(Self { workspace, part })
    }
}

impl Encode for Erasure {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.u64(self.first_seq);
        out.i64(self.time_ms);
        out.len_of(self.records.len());
        for (table, key) in &self.records {
            table.encode(out);
            key.encode(out);
        }
    }
}

impl Decode for Erasure {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let workspace = WorkspaceName::decode(from)?;
        let (first_seq, time_ms) = (from.u64()?, from.i64()?);
        let len = from.len("erased records", MAX_BATCH_OPS)?;
        let mut records = Vec::new();
        for _ in 0..len {
            records.push((TableName::decode(from)?, Key::decode(from)?));
        }
        Ok(Self { workspace, first_seq, time_ms, records })
    }
}

impl Encode for Restored {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        self.epoch.encode(out);
        out.u64(self.branch);
        out.u64(self.head);
        out.i64(self.time_ms);
    }
}

impl Decode for Restored {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            workspace: WorkspaceName::decode(from)?,
            epoch: Epoch::decode(from)?,
            branch: from.u64()?,
            head: from.u64()?,
            time_ms: from.i64()?,
        })
    }
}

impl Encode for WorkspaceSchema {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        out.option(self.schema.as_ref());
    }
}

impl Decode for WorkspaceSchema {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { workspace: WorkspaceName::decode(from)?, schema: from.option()? })
    }
}

impl Encode for Retry {
    fn encode(&self, out: &mut Encoder) {
        self.sent.encode(out);
        self.letter.encode(out);
    }
}

impl Decode for Retry {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { sent: LocalBatch::decode(from)?, letter: Op::decode(from)? })
    }
}

/// Text of a reason, cut to what a payload may hold.
#[must_use]
pub fn cut_text(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

impl Encode for LocalTables {
    fn encode(&self, out: &mut Encoder) {
        out.list(&self.tables);
    }
}

impl Decode for LocalTables {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { tables: from.list("local tables", MAX_LOCAL_TABLES)? })
    }
}
