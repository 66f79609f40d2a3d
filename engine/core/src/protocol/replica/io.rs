//! What a replica session is told and what it wants done.

use alloc::string::String;
use alloc::vec::Vec;

use crate::id::{DeviceId, Epoch, Key, TableName, WorkspaceName};
use crate::op::Batch;
use crate::protocol::entry::Entry;
use crate::protocol::history::History;
use crate::protocol::message::{Attached, Changes, Decided};
use crate::protocol::walk::{WalkPage, WalkPlace};

/// What a session is made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The device that writes, until its store becomes another.
    pub device: DeviceId,
    /// Random per opened store.
    pub nonce: [u8; 16],
    /// The attachments are numbered from the one after this; they must rise as long as the store is
    /// opened, whichever of its sessions asks for them.
    pub attachments_after: u64,
    /// The app's schema number, 0 = none.
    pub app_schema: u64,
    /// Name and version of the software.
    pub agent: String,
    /// Seed of the jitter.
    pub seed: u64,
}

/// What the store knows about one workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkspaceState {
    /// Epoch of its history, if it ever met the authority.
    pub epoch: Option<Epoch>,
    /// Last consistent seq applied; 0 while a new copy is being made.
    pub cursor: u64,
    /// Last seq whose page is durable, of the new copy if one is being made.
    pub received_to: u64,
    /// Last seq whose page is in the copy that is shown.
    pub shown_to: u64,
    /// The authority's horizon as it was told last.
    pub horizon: u64,
    /// What the copy covers, as the authority said.
    pub cover: [u8; 16],
    /// Last counter whose decision is stored.
    pub decided: u64,
    /// Last counter in the outbox; equal to `decided` if nothing waits.
    pub written: u64,
    /// How far the walk has come that the copy is begun with, if one is under way.
    pub walk: Option<WalkPlace>,
}

/// How one workspace stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncStatus {
    /// Not started.
    Idle,
    /// A connection is being made.
    Connecting,
    /// The server cannot be reached.
    Offline {
        /// Why.
        why: String,
        /// When the next attempt is made, on the session's clock in milliseconds.
        retry_at_ms: u64,
    },
    /// Receiving what it missed.
    CatchingUp {
        /// Seqs received since the attach.
        done: u64,
        /// Seqs still to come.
        to_go: u64,
    },
    /// In step; changes arrive as they happen.
    Live {
        /// Last consistent seq applied.
        head: u64,
    },
    /// In step, but the server takes no batch of this device now: they wait in the outbox and are
    /// offered again.
    Held {
        /// Last consistent seq applied.
        head: u64,
        /// Why, in the server's words.
        why: String,
        /// When they are offered again, on the session's clock in milliseconds.
        retry_at_ms: u64,
    },
    /// The server said no, or this device failed; trying again would not help.
    Stopped {
        /// Why, in one word.
        why: StopReason,
        /// For people: what happened and what to do.
        message: String,
    },
}

/// Why a workspace stopped syncing for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The token is wrong or expired.
    Unauthenticated,
    /// The user is no member.
    Forbidden,
    /// Another connection of this device took over.
    Fenced,
    /// The device id is used by two stores, and going on under new ids did not help.
    DeviceForked,
    /// The server has another history of the workspace, and was not restored from a backup of this
    /// one.
    EpochChanged,
    /// The app's schema number is too low.
    AppTooOld,
    /// The workspace is deleted.
    WorkspaceDeleted,
    /// No protocol version in common.
    Version,
    /// The app declares a table otherwise than the server, or does not understand its schema.
    OtherSchema,
    /// This device's own store failed.
    StoreFailed,
}

/// What the session is told. Each request to the store (`ReadOutbox`, `ReadSurvivors` and
/// all that begin with `Store`) is answered exactly once, those that store in the order of their
/// requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Be connected from now on.
    Start,
    /// Be disconnected from now on.
    Stop,
    /// Answer to [`Output::Connect`]: there is a connection.
    Connected,
    /// There is no connection, or it ended.
    Disconnected {
        /// Why, for people.
        reason: String,
    },
    /// A message arrived.
    Message(Vec<u8>),
    /// Answer to [`Output::FetchToken`].
    Token(Result<String, String>),
    /// Keep this workspace in step.
    Attach {
        /// The workspace.
        workspace: WorkspaceName,
        /// What the store knows about it.
        state: WorkspaceState,
    },
    /// Stop keeping it in step.
    Detach {
        /// The workspace.
        workspace: WorkspaceName,
    },
    /// Local batches are durable up to this counter.
    Written {
        /// Their workspace.
        workspace: WorkspaceName,
        /// Last counter.
        counter: u64,
    },
    /// Answer to [`Output::ReadOutbox`].
    Outbox {
        /// The workspace.
        workspace: WorkspaceName,
        /// Undecided batches in counter order.
        batches: Vec<Batch>,
    },
    /// Answer to [`Output::ReadSurvivors`].
    Survivors {
        /// The workspace.
        workspace: WorkspaceName,
        /// Rows of the lost history, at most what fits a page of changes.
        entries: Vec<Entry>,
        /// Where to go on, if there are more.
        next: Option<(TableName, Key)>,
    },
    /// Answer to [`Output::StoreAttached`].
    AttachStored {
        /// The workspace.
        workspace: WorkspaceName,
        /// What the store knows now.
        state: WorkspaceState,
    },
    /// Answer to [`Output::StoreChanges`] and [`Output::StoreWalk`]: the page is durable, unless
    /// the store had come elsewhere meanwhile.
    ChangesStored {
        /// The workspace.
        workspace: WorkspaceName,
        /// Last seq whose page is durable.
        received_to: u64,
        /// Last consistent seq applied.
        cursor: u64,
        /// How far a walk has come, if one is under way.
        walk: Option<WalkPlace>,
    },
    /// Answer to [`Output::StoreDecisions`]: all were accepted.
    DecisionsStored {
        /// The workspace.
        workspace: WorkspaceName,
        /// Last counter whose decision is stored.
        decided: u64,
    },
    /// Answer to [`Output::StoreDecisions`]: one was a refusal; what depends on it left the outbox
    /// and the rest is renumbered.
    DeadLettered {
        /// The workspace.
        workspace: WorkspaceName,
        /// Counter of the refused batch.
        refused: u64,
        /// Last counter whose decision is stored.
        decided: u64,
        /// Last counter in the outbox.
        written: u64,
    },
    /// Answer to [`Output::StoreAttached`] or [`Output::StoreDecisions`]: no decision was
    /// stored, since one is about a batch that this store did not write.
    Forked {
        /// The workspace.
        workspace: WorkspaceName,
        /// Counter of that batch.
        counter: u64,
    },
    /// Answer to [`Output::StoreAttached`]: nothing was stored, since the authority's schema is not
    /// that of the app.
    OtherSchema {
        /// The workspace.
        workspace: WorkspaceName,
        /// For people: which table, and what to do.
        message: String,
    },
    /// Answer to [`Output::StoreHorizon`].
    HorizonStored {
        /// The workspace.
        workspace: WorkspaceName,
        /// The horizon that the store knows now: that of before if a page up to the new one is
        /// missing.
        horizon: u64,
    },
    /// Answer to [`Output::StoreFork`]: the store writes as another device.
    ForkStored {
        /// The device that writes from here on.
        device: DeviceId,
        /// What the store knows of each workspace now.
        states: Vec<(WorkspaceName, WorkspaceState)>,
    },
    /// Ask the authority for versions of a record.
    ReadHistory {
        /// The workspace.
        workspace: WorkspaceName,
        /// Number of the question, unique as long as it has no answer.
        request: u64,
        /// Table and key of the record.
        record: (TableName, Key),
        /// Only versions before this seq; 0 for the newest.
        before: u64,
    },
    /// Time has passed.
    Time,
}

/// What the session wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect to the server.
    Connect,
    /// Send one message.
    Send(Vec<u8>),
    /// Close the connection, if there is one.
    Close {
        /// WebSocket close code.
        code: u16,
        /// For people.
        reason: String,
    },
    /// Bring a token.
    FetchToken,
    /// Read undecided batches.
    ReadOutbox {
        /// The workspace.
        workspace: WorkspaceName,
        /// Counter after which to begin.
        after: u64,
        /// Most batches to bring.
        max: usize,
    },
    /// Read what came from the authority under seqs that it has lost since.
    ReadSurvivors {
        /// The workspace.
        workspace: WorkspaceName,
        /// (branch seq, jump seq) of every restore of the authority.
        lineage: Vec<(u64, u64)>,
        /// The record to begin behind, none at first.
        after: Option<(TableName, Key)>,
    },
    /// Store durably that the workspace met its authority, that a new copy begins if it has to, and
    /// the decisions that came with it.
    StoreAttached {
        /// The workspace.
        workspace: WorkspaceName,
        /// What the authority said.
        attached: Attached,
    },
    /// Store a page of changes durably.
    StoreChanges {
        /// The workspace.
        workspace: WorkspaceName,
        /// The page.
        page: Changes,
    },
    /// Store a page of a walk durably.
    StoreWalk {
        /// The workspace.
        workspace: WorkspaceName,
        /// The page.
        page: WalkPage,
    },
    /// Store decisions durably.
    StoreDecisions {
        /// The workspace.
        workspace: WorkspaceName,
        /// The decisions, in counter order.
        decisions: Vec<Decided>,
    },
    /// Store durably that tombstones up to this seq are forgotten.
    StoreHorizon {
        /// The workspace.
        workspace: WorkspaceName,
        /// The horizon.
        horizon: u64,
    },
    /// Another store uses the device id: go on under a new one, durably. What waits in the outbox
    /// is sent again in its name.
    StoreFork,
    /// Answer to [`Input::ReadHistory`]; none if the workspace is not attached now, the attachment
    /// ended before there was one, or too many are asked at once.
    History {
        /// Number of the question.
        request: u64,
        /// What the authority said.
        answer: Option<History>,
    },
    /// The status of a workspace changed.
    Status {
        /// The workspace.
        workspace: WorkspaceName,
        /// How it stands now.
        status: SyncStatus,
    },
    /// Send [`Input::Time`] at this time, and no more at the one asked for before.
    WakeAt(u64),
}
