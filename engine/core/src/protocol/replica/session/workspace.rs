//! What the session does for one workspace once it is attached: push, take changes, stop.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Link, ReplicaSession};
use crate::codec::to_bytes;
use crate::id::WorkspaceName;
use crate::limits::{
    MAX_BATCHES_IN_FLIGHT, MAX_MESSAGE_BYTES, MAX_PAGES_IN_FLIGHT, MAX_RETRY_AFTER_MS,
};
use crate::op::Batch;
use crate::plant::{Plant, planted};
use crate::protocol::entry::Entry;
use crate::protocol::message::{Changes, Decided, Message, Notice};
use crate::protocol::replica::io::{Output, StopReason, SyncStatus, WorkspaceState};
use crate::protocol::replica::local::{Local, Phase, Reading};
use crate::protocol::walk::{WalkPage, WalkPlace};
use crate::stamp::Decision;

/// Bytes of batches on the way after which no more are read from the outbox.
const MAX_BYTES_IN_FLIGHT: usize = MAX_MESSAGE_BYTES;
/// Most batches read from the outbox at once.
const MAX_OUTBOX_READ: usize = 8;
/// Most pages, each with the horizon that it lets the server name, before Attached is stored.
const MAX_EARLY: usize = 2 * MAX_PAGES_IN_FLIGHT as usize;

impl ReplicaSession {
    pub(super) fn add(&mut self, workspace: WorkspaceName, state: WorkspaceState) {
        if let Some(local) = self.workspaces.get_mut(&workspace)
            && local.phase != Phase::Stopped
        {
            local.state.written = local.state.written.max(state.written);
            return self.pump(&workspace);
        }
        self.workspaces.insert(workspace.clone(), Local::new(state));
        match self.link {
            Link::Open => self.attach(&workspace),
            // It went off because nothing was left to sync.
            Link::Off if self.wanted => self.connect(),
            Link::Off => {}
            _ => self.set_status(&workspace, SyncStatus::Connecting),
        }
    }

    pub(super) fn remove(&mut self, workspace: &WorkspaceName) {
        self.no_history(workspace);
        if let Some(local) = self.workspaces.remove(workspace)
            && local.is_attached()
        {
            self.send(&Message::Detach { attachment: local.attachment });
        }
    }

    pub(super) fn stop_workspace(
        &mut self,
        workspace: &WorkspaceName,
        why: StopReason,
        message: String,
    ) {
        self.reset(workspace);
        if let Some(local) = self.workspaces.get_mut(workspace) {
            local.phase = Phase::Stopped;
        }
        self.set_status(workspace, SyncStatus::Stopped { why, message });
    }

    pub(super) fn workspace_message(&mut self, now_ms: u64, message: Message) {
        let attachment = match &message {
            Message::Attached(attached) => attached.attachment,
            Message::Changes(page) => page.attachment,
            Message::Walk(page) => page.attachment,
            Message::History(answer) => answer.attachment,
            Message::Refused { attachment, .. }
            | Message::SurvivorsStored { attachment }
            | Message::Ack { attachment, .. }
            | Message::Notice(
                Notice::Revoked { attachment }
                | Notice::RetryAfter { attachment, .. }
                | Notice::Horizon { attachment, .. },
            ) => *attachment,
            _ => return self.fail(now_ms, "this message is not for a device"),
        };
        let mut named = self.workspaces.iter().filter(|(_, local)| local.attachment == attachment);
        // An attachment that was just given up may still have messages under way.
        let Some((workspace, _)) = named.next() else { return };
        let workspace = workspace.clone();
        match message {
            Message::Attached(attached) => self.attached(&workspace, attached),
            Message::Changes(page) => self.changes(now_ms, &workspace, page),
            Message::Walk(page) => self.walk(now_ms, &workspace, page),
            Message::Ack { decisions, .. } => self.decisions(now_ms, &workspace, decisions),
            Message::SurvivorsStored { .. } => self.survivors_stored(&workspace),
            Message::History(answer) => self.history(&workspace, answer),
            Message::Refused { code, message, .. } => {
                self.refused(now_ms, &workspace, code, message);
            }
            Message::Notice(Notice::RetryAfter { counter, retry_ms, message, .. }) => {
                let retry_at_ms = now_ms.saturating_add(retry_ms.min(MAX_RETRY_AFTER_MS));
                self.retry_after(&workspace, counter, retry_at_ms, message);
            }
            Message::Notice(Notice::Horizon { horizon, .. }) => {
                self.horizon(now_ms, &workspace, horizon);
            }
            _ => {
                let message = "your membership of this workspace ended; everything here is kept, \
                               and what waits is sent if you are a member again"
                    .into();
                self.stop_workspace(&workspace, StopReason::Forbidden, message);
            }
        }
    }

    fn retry_after(
        &mut self,
        workspace: &WorkspaceName,
        counter: u64,
        retry_at_ms: u64,
        why: String,
    ) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if local.phase != Phase::Open || local.halted {
            return;
        }
        // Whatever the server names: what is decided stays so, and what was not sent is next.
        let before = counter.saturating_sub(1).min(local.pushed).max(local.handed);
        local.in_flight.retain(|(sent, _)| *sent <= before);
        local.pushed = before;
        local.void_reading();
        local.retry_at = Some(retry_at_ms);
        local.held = Some((why, retry_at_ms));
        self.progress(workspace);
    }

    fn changes(&mut self, now_ms: u64, workspace: &WorkspaceName, page: Changes) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if !matches!(local.phase, Phase::Storing | Phase::Open) {
            return;
        }
        if let Err(reason) = check_page(local.expected, &page) {
            return self.fail(now_ms, reason);
        }
        local.expected = page.to;
        local.walk = None;
        let store = Output::StoreChanges { workspace: workspace.clone(), page };
        self.store_behind_attached(now_ms, workspace, store);
    }

    /// A page of the walk that a copy begins with.
    fn walk(&mut self, now_ms: u64, workspace: &WorkspaceName, page: WalkPage) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if !matches!(local.phase, Phase::Storing | Phase::Open) {
            return;
        }
        let checked = match local.expected {
            0 => page.check(local.walk.as_ref()),
            _ => Err("a walk does not begin a copy that there is"),
        };
        if let Err(reason) = checked {
            return self.fail(now_ms, reason);
        }
        local.walk = page.place();
        local.walked += page.entries.len() as u64;
        if page.is_last {
            local.expected = page.base;
        }
        let store = Output::StoreWalk { workspace: workspace.clone(), page };
        self.store_behind_attached(now_ms, workspace, store);
    }

    fn store_behind_attached(&mut self, now_ms: u64, workspace: &WorkspaceName, store: Output) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if local.phase == Phase::Open || planted(Plant::PageBeforeAttached) {
            return self.request(workspace, store);
        }
        if local.early.len() == MAX_EARLY {
            return self.fail(now_ms, "the server sent more pages than it has credit for");
        }
        local.early.push(store);
    }

    /// The authority has forgotten tombstones that every page so far has shown.
    fn horizon(&mut self, now_ms: u64, workspace: &WorkspaceName, horizon: u64) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if !matches!(local.phase, Phase::Storing | Phase::Open) {
            return;
        }
        if horizon > local.expected {
            return self.fail(now_ms, "the server named a horizon before the pages up to it");
        }
        let store = Output::StoreHorizon { workspace: workspace.clone(), horizon };
        self.store_behind_attached(now_ms, workspace, store);
    }

    pub(super) fn page_stored(
        &mut self,
        workspace: &WorkspaceName,
        (received_to, cursor): (u64, u64),
        walk: Option<WalkPlace>,
    ) {
        self.backoff.reset();
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        local.state.received_to = received_to;
        local.state.cursor = cursor;
        local.state.walk = walk;
        let attachment = local.attachment;
        // Another session of this database has stored pages as well, and what came here was of no
        // use: pages go on from where the store is.
        let is_last = self.requests.get(workspace) == Some(&1);
        let is_elsewhere = (received_to, &local.state.walk) != (local.expected, &local.walk);
        if local.phase == Phase::Open && is_last && is_elsewhere {
            self.send(&Message::Detach { attachment });
            return self.reset(workspace);
        }
        if matches!(local.phase, Phase::Storing | Phase::Open) {
            self.send(&Message::Received { attachment, received_to, cursor });
            self.progress(workspace);
        }
    }

    /// Live once the cursor has reached the head of the attach; then it stays live, or held while
    /// the server puts batches off.
    pub(super) fn progress(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get(workspace) else { return };
        if local.phase != Phase::Open {
            return;
        }
        let state = &local.state;
        // A record has one seq at least.
        let received = state.received_to.max(local.walked.min(local.goal));
        let status = match (state.cursor >= local.goal, &local.held) {
            (true, None) => SyncStatus::Live { head: state.cursor },
            (true, Some((why, retry_at_ms))) => {
                SyncStatus::Held { head: state.cursor, why: why.clone(), retry_at_ms: *retry_at_ms }
            }
            (false, _) => SyncStatus::CatchingUp {
                done: received.saturating_sub(local.began_at),
                to_go: local.goal.saturating_sub(received),
            },
        };
        self.set_status(workspace, status);
    }

    fn decisions(&mut self, now_ms: u64, workspace: &WorkspaceName, decisions: Vec<Decided>) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if matches!(local.phase, Phase::Idle | Phase::Stopped) {
            return;
        }
        for decided in &decisions {
            let expected = local.phase == Phase::Open && decided.counter == local.handed + 1;
            if local.halted || !expected {
                return self.fail(now_ms, "the server decided batches out of order");
            }
            local.handed = decided.counter;
            local.in_flight.retain(|(counter, _)| *counter > decided.counter);
            local.halted = matches!(decided.decision, Decision::Refused { .. });
        }
        if !decisions.is_empty() {
            local.held = None;
            let store = Output::StoreDecisions { workspace: workspace.clone(), decisions };
            self.request(workspace, store);
            self.progress(workspace);
        }
        self.pump(workspace);
    }

    pub(super) fn dead_lettered(
        &mut self,
        workspace: &WorkspaceName,
        refused: u64,
        decided: u64,
        written: u64,
    ) {
        self.backoff.reset();
        self.forks = 0;
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        local.state.decided = decided;
        local.state.written = local.state.written.max(written);
        local.pushed = decided;
        local.handed = decided;
        local.in_flight.clear();
        local.halted = false;
        // The outbox was renumbered.
        local.void_reading();
        let attachment = local.attachment;
        if local.phase == Phase::Open {
            self.send(&Message::Resume { attachment, counter: refused });
        }
        self.pump(workspace);
    }

    /// Reads more of the outbox if there is room on the way.
    pub(super) fn pump(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        let bytes: usize = local.in_flight.iter().map(|(_, bytes)| bytes).sum();
        let room = MAX_BATCHES_IN_FLIGHT.saturating_sub(local.in_flight.len());
        let ready = local.phase == Phase::Open
            && !local.halted
            && local.reading == Reading::No
            && local.retry_at.is_none()
            && local.pushed < local.state.written;
        if ready && room > 0 && bytes < MAX_BYTES_IN_FLIGHT {
            local.reading = Reading::Yes;
            let (after, max) = (local.pushed, room.min(MAX_OUTBOX_READ));
            let read = Output::ReadOutbox { workspace: workspace.clone(), after, max };
            self.request(workspace, read);
        }
    }

    pub(super) fn outbox(&mut self, workspace: &WorkspaceName, batches: Vec<Batch>) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        let reading = core::mem::replace(&mut local.reading, Reading::No);
        if reading != Reading::Yes && !planted(Plant::OldReadingPushed) {
            return self.pump(workspace);
        }
        if local.halted || local.retry_at.is_some() || local.phase != Phase::Open {
            return;
        }
        let attachment = local.attachment;
        let mut sent = false;
        for batch in batches {
            let Some(local) = self.workspaces.get_mut(workspace) else { return };
            // Contiguous counters only: a hole means that the outbox moved on meanwhile.
            if batch.counter != local.pushed + 1 {
                break;
            }
            local.pushed = batch.counter;
            let counter = batch.counter;
            let bytes = to_bytes(&Message::Push { attachment, batch });
            local.in_flight.push_back((counter, bytes.len()));
            self.out(Output::Send(bytes));
            sent = true;
        }
        if sent {
            self.pump(workspace);
        }
    }
}

/// A page must go on where the last one ended, rise, and hold only checked records.
fn check_page(expected: u64, page: &Changes) -> Result<(), &'static str> {
    if page.from != expected || page.to < page.from {
        return Err("a page of changes does not follow the one before");
    }
    if page.consistent_at.is_some_and(|at| at != page.to) {
        return Err("a page of changes is consistent at another seq than its end");
    }
    let mut last = page.from;
    for Entry::Row { row, .. } in &page.entries {
        if row.stream_seq() <= last || row.stream_seq() > page.to {
            return Err("a page of changes is not in order");
        }
        last = row.stream_seq();
        if row.record.check_untrusted().is_err() {
            return Err("a record in a page of changes is not valid");
        }
    }
    Ok(())
}
