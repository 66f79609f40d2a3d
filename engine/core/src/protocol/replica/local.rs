//! What a session knows of one workspace.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use super::io::{Output, SyncStatus, WorkspaceState};
use crate::id::{Key, TableName};
use crate::protocol::message::Attached;
use crate::protocol::walk::WalkPlace;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// To be attached when the link is open.
    Idle,
    /// Attach is sent.
    Attaching,
    /// What the authority has lost is offered to it, before that is stored.
    Offering,
    /// Attached is being stored.
    Storing,
    Open,
    Stopped,
}

/// One workspace of the session.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) attachment: u64,
    pub(super) state: WorkspaceState,
    pub(super) phase: Phase,
    /// Where the catch-up began and where it must get to.
    pub(super) began_at: u64,
    pub(super) goal: u64,
    /// End of the last page handed to the store.
    pub(super) expected: u64,
    /// End of the last page of a walk handed to the store, while one is under way.
    pub(super) walk: Option<WalkPlace>,
    /// Records that a walk has brought since the attach.
    pub(super) walked: u64,
    /// What came before Attached was stored, in its order: pages mean nothing to a store that does
    /// not know yet which copy they are for.
    pub(super) early: Vec<Output>,
    /// Last counter sent on this attachment.
    pub(super) pushed: u64,
    /// Last counter whose decision was handed to the store.
    pub(super) handed: u64,
    /// Counter and size of batches sent and not decided.
    pub(super) in_flight: VecDeque<(u64, usize)>,
    pub(super) reading: Reading,
    /// A refusal is being stored.
    pub(super) halted: bool,
    /// When to push again.
    pub(super) retry_at: Option<u64>,
    /// Why the server put batches off, and until when, until it decides one.
    pub(super) held: Option<(String, u64)>,
    /// When to attach again on the same connection.
    pub(super) attach_at: Option<u64>,
    pub(super) status: SyncStatus,
    /// What the authority said, while survivors are offered to it.
    pub(super) attached: Option<Attached>,
    /// The record behind which the next survivors are read.
    pub(super) offered_to: Option<(TableName, Key)>,
    /// Questions about histories without an answer.
    pub(super) asked: BTreeSet<u64>,
}

/// Whether the outbox is being read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    No,
    Yes,
    /// It is, but what to push has changed since: the answer is of no use.
    Void,
}

impl Local {
    pub(super) fn new(state: WorkspaceState) -> Self {
        Self {
            attachment: 0,
            phase: Phase::Idle,
            began_at: state.received_to,
            goal: 0,
            expected: state.received_to,
            walk: state.walk.clone(),
            walked: 0,
            early: Vec::new(),
            pushed: state.decided,
            handed: state.decided,
            state,
            in_flight: VecDeque::new(),
            reading: Reading::No,
            halted: false,
            retry_at: None,
            held: None,
            attach_at: None,
            status: SyncStatus::Idle,
            attached: None,
            offered_to: None,
            asked: BTreeSet::new(),
        }
    }

    /// True if the authority may be serving it.
    pub(super) fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Attaching | Phase::Offering | Phase::Storing | Phase::Open)
    }

    /// An answer of the outbox that is still to come belongs to what was pushed before.
    pub(super) fn void_reading(&mut self) {
        if self.reading == Reading::Yes {
            self.reading = Reading::Void;
        }
    }
}
