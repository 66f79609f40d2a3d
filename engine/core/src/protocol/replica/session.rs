//! The session itself.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::io::{Config, Input, Output, StopReason, SyncStatus, WorkspaceState};
use crate::codec::{from_bytes, to_bytes};
use crate::id::WorkspaceName;
use crate::limits::{MAX_BATCHES_IN_FLIGHT, MAX_MESSAGE_BYTES};
use crate::op::Batch;
use crate::protocol::VERSION;
use crate::protocol::message::{
    Attach, AttachRefusal, Attached, Changes, Decided, Entry, ErrorCode, Hello, Message, Notice,
};
use crate::protocol::retry::Backoff;
use crate::stamp::Decision;

/// Bytes of batches on the way after which no more are read from the outbox.
const MAX_BYTES_IN_FLIGHT: usize = MAX_MESSAGE_BYTES;
/// Most batches read from the outbox at once.
const MAX_OUTBOX_READ: usize = 8;

#[derive(Debug, PartialEq, Eq)]
enum Link {
    /// Not wanted.
    Off,
    /// Waiting for the next attempt.
    Waiting(u64),
    Connecting,
    /// Connected; the token is being fetched.
    Token,
    /// Hello is sent.
    Greeting,
    Open,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// To be attached when the link is open.
    Idle,
    /// Attach is sent.
    Attaching,
    /// Attached is being stored.
    Storing,
    Open,
    Stopped,
}

/// One workspace of the session.
#[derive(Debug)]
struct Local {
    attachment: u64,
    state: WorkspaceState,
    phase: Phase,
    /// Where the catch-up began and where it must get to.
    began_at: u64,
    goal: u64,
    /// End of the last page handed to the store.
    expected: u64,
    /// Last counter sent on this attachment.
    pushed: u64,
    /// Counter and size of batches sent and not decided.
    in_flight: VecDeque<(u64, usize)>,
    reading: bool,
    /// A refusal is being stored.
    halted: bool,
    retry_at: Option<u64>,
    status: SyncStatus,
}

/// The replica's side of sync. Feed one input, drain all outputs, wait.
#[derive(Debug)]
pub struct ReplicaSession {
    config: Config,
    link: Link,
    workspaces: BTreeMap<WorkspaceName, Local>,
    last_attachment: u64,
    backoff: Backoff,
    outputs: VecDeque<Output>,
    /// What the server said last before it closed.
    last_words: Option<String>,
}

impl ReplicaSession {
    /// A session that is not started.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let backoff = Backoff::new(config.seed);
        Self {
            config,
            link: Link::Off,
            workspaces: BTreeMap::new(),
            last_attachment: 0,
            backoff,
            outputs: VecDeque::new(),
            last_words: None,
        }
    }

    /// The next thing to do; call it again after every input until it gives nothing.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes one input at time `now_ms` of any clock that does not go back.
    pub fn input(&mut self, now_ms: u64, input: Input) {
        match input {
            Input::Start if self.link == Link::Off => self.connect(),
            Input::Start => {}
            Input::Stop => self.stop(),
            Input::Connected => {
                self.link = Link::Token;
                self.last_words = None;
                self.out(Output::FetchToken);
            }
            Input::Disconnected { reason } => self.disconnected(now_ms, reason),
            Input::Message(bytes) => self.message(now_ms, &bytes),
            Input::Token(result) => self.token(now_ms, result),
            Input::Attach { workspace, state } => self.add(workspace, state),
            Input::Detach { workspace } => self.remove(&workspace),
            Input::Time => self.time(now_ms),
            Input::Written { workspace, counter } => {
                if let Some(local) = self.workspaces.get_mut(&workspace) {
                    local.state.written = counter;
                }
                self.pump(&workspace);
            }
            Input::Outbox { workspace, batches } => self.outbox(&workspace, batches),
            Input::AttachStored { workspace, state } => self.attach_stored(&workspace, state),
            Input::ChangesStored { workspace, received_to, cursor } => {
                self.changes_stored(&workspace, received_to, cursor);
            }
            Input::DecisionsStored { workspace, decided } => {
                if let Some(local) = self.workspaces.get_mut(&workspace) {
                    local.state.decided = local.state.decided.max(decided);
                }
                self.pump(&workspace);
            }
            Input::DeadLettered { workspace, refused, decided, written } => {
                self.dead_lettered(&workspace, refused, decided, written);
            }
        }
    }

    fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn send(&mut self, message: &Message) {
        self.out(Output::Send(to_bytes(message)));
    }

    fn set_status(&mut self, workspace: &WorkspaceName, status: SyncStatus) {
        if let Some(local) = self.workspaces.get_mut(workspace)
            && local.status != status
        {
            local.status = status.clone();
            self.out(Output::Status { workspace: workspace.clone(), status });
        }
    }

    fn active(&self) -> Vec<WorkspaceName> {
        let active = self.workspaces.iter().filter(|(_, local)| local.phase != Phase::Stopped);
        active.map(|(name, _)| name.clone()).collect()
    }

    fn connect(&mut self) {
        self.link = Link::Connecting;
        self.out(Output::Connect);
        for workspace in self.active() {
            self.set_status(&workspace, SyncStatus::Connecting);
        }
    }

    fn stop(&mut self) {
        if !matches!(self.link, Link::Off | Link::Waiting(_)) {
            self.out(Output::Close { code: 1000, reason: "done".into() });
        }
        self.link = Link::Off;
        for workspace in self.active() {
            self.reset(&workspace);
            self.set_status(&workspace, SyncStatus::Idle);
        }
    }

    /// Forgets what belonged to the connection.
    fn reset(&mut self, workspace: &WorkspaceName) {
        if let Some(local) = self.workspaces.get_mut(workspace) {
            if local.phase != Phase::Stopped {
                local.phase = Phase::Idle;
            }
            local.in_flight.clear();
            local.reading = false;
            local.halted = false;
            local.retry_at = None;
        }
    }

    fn disconnected(&mut self, now_ms: u64, reason: String) {
        if matches!(self.link, Link::Off | Link::Waiting(_)) {
            return;
        }
        let retry_at_ms = now_ms + self.backoff.next_ms();
        self.link = Link::Waiting(retry_at_ms);
        self.out(Output::WakeAt(retry_at_ms));
        let why = self.last_words.take().unwrap_or(reason);
        for workspace in self.active() {
            self.reset(&workspace);
            self.set_status(&workspace, SyncStatus::Offline { why: why.clone(), retry_at_ms });
        }
        if self.active().is_empty() && !self.workspaces.is_empty() {
            self.link = Link::Off;
        }
    }

    /// The peer broke the protocol, or this side cannot go on: try again on a new connection.
    fn fail(&mut self, now_ms: u64, reason: &str) {
        let code = ErrorCode::Protocol;
        self.send(&Message::Error { code, message: reason.into() });
        self.out(Output::Close { code: code.close_code(), reason: reason.into() });
        self.disconnected(now_ms, reason.into());
    }

    fn time(&mut self, now_ms: u64) {
        if let Link::Waiting(at) = self.link {
            if now_ms >= at {
                self.connect();
            } else {
                self.out(Output::WakeAt(at));
            }
        }
        for workspace in self.active() {
            let Some(local) = self.workspaces.get_mut(&workspace) else { continue };
            match local.retry_at {
                Some(at) if now_ms >= at => {
                    local.retry_at = None;
                    self.pump(&workspace);
                }
                Some(at) => self.out(Output::WakeAt(at)),
                None => {}
            }
        }
    }

    fn token(&mut self, now_ms: u64, result: Result<String, String>) {
        if self.link != Link::Token {
            return;
        }
        match result {
            Err(reason) => self.fail(now_ms, &reason),
            Ok(token) => {
                self.link = Link::Greeting;
                self.send(&Message::Hello(Hello {
                    min_version: VERSION,
                    max_version: VERSION,
                    token,
                    device: self.config.device,
                    app_schema: self.config.app_schema,
                    agent: self.config.agent.clone(),
                }));
            }
        }
    }

    fn add(&mut self, workspace: WorkspaceName, state: WorkspaceState) {
        let local = Local {
            attachment: 0,
            state,
            phase: Phase::Idle,
            began_at: state.received_to,
            goal: 0,
            expected: state.received_to,
            pushed: state.decided,
            in_flight: VecDeque::new(),
            reading: false,
            halted: false,
            retry_at: None,
            status: SyncStatus::Idle,
        };
        self.workspaces.insert(workspace.clone(), local);
        match self.link {
            Link::Open => self.attach(&workspace),
            Link::Off => {}
            _ => self.set_status(&workspace, SyncStatus::Connecting),
        }
    }

    fn remove(&mut self, workspace: &WorkspaceName) {
        if let Some(local) = self.workspaces.remove(workspace)
            && matches!(local.phase, Phase::Attaching | Phase::Storing | Phase::Open)
        {
            self.send(&Message::Detach { attachment: local.attachment });
        }
    }

    fn attach(&mut self, workspace: &WorkspaceName) {
        self.last_attachment += 1;
        let attachment = self.last_attachment;
        let nonce = self.config.nonce;
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        local.attachment = attachment;
        local.phase = Phase::Attaching;
        let state = local.state;
        // Pages go on from what is asked for here, also if more becomes durable meanwhile.
        local.expected = state.received_to;
        local.began_at = state.received_to;
        self.send(&Message::Attach(Attach {
            attachment,
            workspace: workspace.clone(),
            epoch: state.epoch,
            cursor: state.cursor,
            received_to: state.received_to,
            cover: [0; 16],
            nonce,
            decided: state.decided,
            scope: Vec::new(),
        }));
    }

    fn message(&mut self, now_ms: u64, bytes: &[u8]) {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return self.fail(now_ms, "the server's message is too big");
        }
        let message = match from_bytes::<Message>(bytes) {
            Ok(message) => message,
            Err(error) => return self.fail(now_ms, &error.to_string()),
        };
        match (message, &self.link) {
            (Message::Welcome(welcome), Link::Greeting) if welcome.version == VERSION => {
                self.link = Link::Open;
                self.active().iter().for_each(|workspace| self.attach(workspace));
            }
            (Message::Error { code, message }, _) => self.server_error(code, message),
            (Message::Notice(Notice::ShuttingDown), _) => {
                self.last_words = Some("the server restarts".into());
            }
            (message, Link::Open) => self.workspace_message(now_ms, message),
            _ => self.fail(now_ms, "the server sent a message before Welcome"),
        }
    }

    fn server_error(&mut self, code: ErrorCode, message: String) {
        let why = match code {
            ErrorCode::Unauthenticated => StopReason::Unauthenticated,
            ErrorCode::Version => StopReason::Version,
            _ => {
                self.last_words = Some(message);
                return;
            }
        };
        for workspace in self.active() {
            self.stop_workspace(&workspace, why, message.clone());
        }
        self.out(Output::Close { code: 1000, reason: "stopped".into() });
        self.link = Link::Off;
    }

    fn stop_workspace(&mut self, workspace: &WorkspaceName, why: StopReason, message: String) {
        self.reset(workspace);
        if let Some(local) = self.workspaces.get_mut(workspace) {
            local.phase = Phase::Stopped;
        }
        self.set_status(workspace, SyncStatus::Stopped { why, message });
    }

    fn workspace_message(&mut self, now_ms: u64, message: Message) {
        let attachment = match &message {
            Message::Attached(attached) => attached.attachment,
            Message::Changes(page) => page.attachment,
            Message::Refused { attachment, .. }
            | Message::Ack { attachment, .. }
            | Message::Notice(
                Notice::Revoked { attachment } | Notice::RetryAfter { attachment, .. },
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
            Message::Ack { decisions, .. } => self.decisions(&workspace, decisions),
            Message::Refused { code, message, .. } => {
                self.refused(now_ms, &workspace, code, message);
            }
            Message::Notice(Notice::RetryAfter { counter, retry_ms, .. }) => {
                if let Some(local) = self.workspaces.get_mut(&workspace) {
                    local.in_flight.retain(|(sent, _)| *sent < counter);
                    local.pushed = counter.saturating_sub(1);
                    local.retry_at = Some(now_ms + retry_ms);
                    self.out(Output::WakeAt(now_ms + retry_ms));
                }
            }
            _ => {
                let message = "the membership of this workspace ended".into();
                self.stop_workspace(&workspace, StopReason::Forbidden, message);
            }
        }
    }

    fn refused(
        &mut self,
        now_ms: u64,
        workspace: &WorkspaceName,
        code: AttachRefusal,
        message: String,
    ) {
        let why = match code {
            AttachRefusal::Forbidden => StopReason::Forbidden,
            AttachRefusal::Fenced => StopReason::Fenced,
            AttachRefusal::DeviceForked => StopReason::DeviceForked,
            AttachRefusal::AppTooOld => StopReason::AppTooOld,
            AttachRefusal::WorkspaceDeleted => StopReason::WorkspaceDeleted,
            AttachRefusal::TooMany | AttachRefusal::Unavailable => {
                self.out(Output::Close { code: 1000, reason: message.clone() });
                return self.disconnected(now_ms, message);
            }
        };
        self.stop_workspace(workspace, why, message);
    }

    fn attached(&mut self, workspace: &WorkspaceName, attached: Attached) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if local.phase != Phase::Attaching {
            return;
        }
        let state = local.state;
        let other_history = state.epoch.is_some_and(|epoch| epoch != attached.epoch)
            || state.received_to > attached.head
            || state.decided > attached.last_counter;
        if other_history {
            let message = alloc::format!(
                "the server has another history of workspace {workspace} than this device (was \
                 it restored or made anew?); unsent changes are kept; sync this workspace into \
                 a new --data directory to go on"
            );
            return self.stop_workspace(workspace, StopReason::EpochChanged, message);
        }
        if state.cursor > 0 && state.cursor < attached.horizon {
            let message = alloc::format!(
                "this device was away too long: the server keeps changes of workspace \
                 {workspace} from seq {} on, this device has seen {}; unsent changes are kept; \
                 sync it into a new --data directory",
                attached.horizon,
                state.cursor
            );
            return self.stop_workspace(workspace, StopReason::BehindHorizon, message);
        }
        local.phase = Phase::Storing;
        local.goal = attached.head;
        self.backoff.reset();
        self.out(Output::StoreAttached { workspace: workspace.clone(), attached });
    }

    fn attach_stored(&mut self, workspace: &WorkspaceName, state: WorkspaceState) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        local.state = state;
        if local.phase == Phase::Storing {
            local.phase = Phase::Open;
            local.pushed = state.decided;
        }
        self.progress(workspace);
        self.pump(workspace);
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
        self.out(Output::StoreChanges { workspace: workspace.clone(), page });
    }

    fn changes_stored(&mut self, workspace: &WorkspaceName, received_to: u64, cursor: u64) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        local.state.received_to = received_to;
        local.state.cursor = cursor;
        let attachment = local.attachment;
        if matches!(local.phase, Phase::Storing | Phase::Open) {
            self.send(&Message::Received { attachment, received_to, cursor });
            self.progress(workspace);
        }
    }

    /// Live once the cursor has reached the head of the attach; then it stays live.
    fn progress(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get(workspace) else { return };
        if local.phase != Phase::Open {
            return;
        }
        let state = local.state;
        let status = match state.cursor >= local.goal {
            true => SyncStatus::Live { head: state.cursor },
            false => SyncStatus::CatchingUp {
                done: state.received_to.saturating_sub(local.began_at),
                to_go: local.goal.saturating_sub(state.received_to),
            },
        };
        self.set_status(workspace, status);
    }

    fn decisions(&mut self, workspace: &WorkspaceName, decisions: Vec<Decided>) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        for decided in &decisions {
            local.in_flight.retain(|(counter, _)| *counter > decided.counter);
            local.halted |= matches!(decided.decision, Decision::Refused { .. });
        }
        self.out(Output::StoreDecisions { workspace: workspace.clone(), decisions });
        self.pump(workspace);
    }

    fn dead_lettered(
        &mut self,
        workspace: &WorkspaceName,
        refused: u64,
        decided: u64,
        written: u64,
    ) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        local.state.decided = decided;
        local.state.written = written;
        local.pushed = decided;
        local.in_flight.clear();
        local.halted = false;
        local.reading = false;
        let attachment = local.attachment;
        if local.phase == Phase::Open {
            self.send(&Message::Resume { attachment, counter: refused });
        }
        self.pump(workspace);
    }

    /// Reads more of the outbox if there is room on the way.
    fn pump(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        let bytes: usize = local.in_flight.iter().map(|(_, bytes)| bytes).sum();
        let room = MAX_BATCHES_IN_FLIGHT.saturating_sub(local.in_flight.len());
        let ready = local.phase == Phase::Open
            && !local.halted
            && !local.reading
            && local.retry_at.is_none()
            && local.pushed < local.state.written;
        if ready && room > 0 && bytes < MAX_BYTES_IN_FLIGHT {
            local.reading = true;
            let (after, max) = (local.pushed, room.min(MAX_OUTBOX_READ));
            self.out(Output::ReadOutbox { workspace: workspace.clone(), after, max });
        }
    }

    fn outbox(&mut self, workspace: &WorkspaceName, batches: Vec<Batch>) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if !local.reading {
            // The connection that asked is gone.
            return;
        }
        local.reading = false;
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
        if row.last.seq <= last || row.last.seq > page.to {
            return Err("a page of changes is not in order");
        }
        last = row.last.seq;
        if row.record.check_untrusted().is_err() {
            return Err("a record in a page of changes is not valid");
        }
    }
    Ok(())
}
