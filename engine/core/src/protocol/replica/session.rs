//! The session itself.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::io::{Config, Input, Output, StopReason, SyncStatus, WorkspaceState};
use crate::codec::{from_bytes, to_bytes};
use crate::id::WorkspaceName;
use crate::limits::{
    MAX_BATCHES_IN_FLIGHT, MAX_CLOSE_REASON_BYTES, MAX_MESSAGE_BYTES, MAX_RETRY_AFTER_MS,
    MAX_TEXT_BYTES, RETRY_MAX_MS,
};
use crate::op::Batch;
use crate::protocol::VERSION;
use crate::protocol::message::{
    Attach, AttachRefusal, Attached, Changes, Decided, Entry, ErrorCode, Hello, Message, Notice,
    cut_text,
};
use crate::protocol::retry::Backoff;
use crate::stamp::Decision;

/// Bytes of batches on the way after which no more are read from the outbox.
const MAX_BYTES_IN_FLIGHT: usize = MAX_MESSAGE_BYTES;
/// Most batches read from the outbox at once.
const MAX_OUTBOX_READ: usize = 8;
/// A workspace that the server cannot serve now is asked for again after this, in milliseconds.
const ATTACH_RETRY_MS: u64 = 5_000;

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
    /// Last counter whose decision was handed to the store.
    handed: u64,
    /// Counter and size of batches sent and not decided.
    in_flight: VecDeque<(u64, usize)>,
    reading: Reading,
    /// A refusal is being stored.
    halted: bool,
    /// When to push again.
    retry_at: Option<u64>,
    /// When to attach again on the same connection.
    attach_at: Option<u64>,
    status: SyncStatus,
}

/// Whether the outbox is being read.
#[derive(Debug, PartialEq, Eq)]
enum Reading {
    No,
    Yes,
    /// It is, but what to push has changed since: the answer is of no use.
    Void,
}

impl Local {
    fn new(state: WorkspaceState) -> Self {
        Self {
            attachment: 0,
            state,
            phase: Phase::Idle,
            began_at: state.received_to,
            goal: 0,
            expected: state.received_to,
            pushed: state.decided,
            handed: state.decided,
            in_flight: VecDeque::new(),
            reading: Reading::No,
            halted: false,
            retry_at: None,
            attach_at: None,
            status: SyncStatus::Idle,
        }
    }

    /// True if the authority may be serving it.
    fn is_attached(&self) -> bool {
        matches!(self.phase, Phase::Attaching | Phase::Storing | Phase::Open)
    }

    /// An answer of the outbox that is still to come belongs to what was pushed before.
    fn void_reading(&mut self) {
        if self.reading == Reading::Yes {
            self.reading = Reading::Void;
        }
    }
}

/// The replica's side of sync. Feed one input, drain all outputs, wait.
#[derive(Debug)]
pub struct ReplicaSession {
    config: Config,
    /// Between Start and Stop.
    wanted: bool,
    link: Link,
    /// When the link was opened.
    open_since: Option<u64>,
    workspaces: BTreeMap<WorkspaceName, Local>,
    /// Requests to the store without an answer. While a workspace has any it is not attached: its
    /// state is not known, and their answers would be taken for those of the new attachment.
    requests: BTreeMap<WorkspaceName, usize>,
    last_attachment: u64,
    backoff: Backoff,
    /// The wake-up that was asked for last.
    wake_at: Option<u64>,
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
            wanted: false,
            link: Link::Off,
            open_since: None,
            workspaces: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_attachment: 0,
            backoff,
            wake_at: None,
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
            Input::Start => {
                self.wanted = true;
                if self.link == Link::Off {
                    self.connect();
                }
            }
            Input::Stop => self.stop(),
            Input::Connected => self.connected(),
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
            answer => self.answer(answer),
        }
        self.ask_to_be_woken();
    }

    /// Answers of the store; each closes one request.
    fn answer(&mut self, answer: Input) {
        let workspace = match answer {
            Input::Outbox { workspace, batches } => {
                self.outbox(&workspace, batches);
                workspace
            }
            Input::AttachStored { workspace, state } => {
                self.attach_stored(&workspace, state);
                workspace
            }
            Input::ChangesStored { workspace, received_to, cursor } => {
                self.changes_stored(&workspace, received_to, cursor);
                workspace
            }
            Input::DecisionsStored { workspace, decided } => {
                if let Some(local) = self.workspaces.get_mut(&workspace) {
                    local.state.decided = local.state.decided.max(decided);
                }
                self.backoff.reset();
                self.pump(&workspace);
                workspace
            }
            Input::DeadLettered { workspace, refused, decided, written } => {
                self.dead_lettered(&workspace, refused, decided, written);
                workspace
            }
            _ => return,
        };
        if let Some(open) = self.requests.get_mut(&workspace) {
            *open -= 1;
            if *open == 0 {
                self.requests.remove(&workspace);
                self.attach(&workspace);
            }
        }
    }

    /// The driver keeps one wake-up, so it is told of the earliest.
    fn ask_to_be_woken(&mut self) {
        let link = match self.link {
            Link::Waiting(at) => Some(at),
            _ => None,
        };
        let locals = self.workspaces.values().flat_map(|local| [local.retry_at, local.attach_at]);
        let next = locals.chain([link]).flatten().min();
        if next != self.wake_at {
            self.wake_at = next;
            self.outputs.extend(next.map(Output::WakeAt));
        }
    }

    fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Asks the store for something that it will answer.
    fn request(&mut self, workspace: &WorkspaceName, output: Output) {
        *self.requests.entry(workspace.clone()).or_default() += 1;
        self.out(output);
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

    fn connected(&mut self) {
        if self.link != Link::Connecting {
            // It was asked for before a stop.
            return self.out(Output::Close { code: 1000, reason: "not wanted".into() });
        }
        self.link = Link::Token;
        self.last_words = None;
        self.out(Output::FetchToken);
    }

    fn stop(&mut self) {
        self.wanted = false;
        if !matches!(self.link, Link::Off | Link::Waiting(_)) {
            self.out(Output::Close { code: 1000, reason: "done".into() });
        }
        self.link = Link::Off;
        self.open_since = None;
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
            local.void_reading();
            local.halted = false;
            local.retry_at = None;
            local.attach_at = None;
        }
    }

    fn disconnected(&mut self, now_ms: u64, reason: String) {
        if matches!(self.link, Link::Off | Link::Waiting(_)) {
            return;
        }
        // A connection that lasted was a good one; one that breaks at once again and again is not.
        let opened = self.open_since.take();
        if opened.is_some_and(|at| now_ms.saturating_sub(at) >= RETRY_MAX_MS) {
            self.backoff.reset();
        }
        let retry_at_ms = now_ms + self.backoff.next_ms();
        self.link = Link::Waiting(retry_at_ms);
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
        let message = cut_text(reason, MAX_TEXT_BYTES).into();
        self.send(&Message::Error { code, message });
        self.close(code.close_code(), reason);
        self.disconnected(now_ms, reason.into());
    }

    fn close(&mut self, code: u16, reason: &str) {
        let reason = cut_text(reason, MAX_CLOSE_REASON_BYTES).into();
        self.out(Output::Close { code, reason });
    }

    fn time(&mut self, now_ms: u64) {
        self.wake_at = None;
        if let Link::Waiting(at) = self.link
            && now_ms >= at
        {
            self.connect();
        }
        for workspace in self.active() {
            let Some(local) = self.workspaces.get_mut(&workspace) else { continue };
            local.retry_at = local.retry_at.filter(|at| now_ms < *at);
            local.attach_at = local.attach_at.filter(|at| now_ms < *at);
            self.attach(&workspace);
            self.pump(&workspace);
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

    fn remove(&mut self, workspace: &WorkspaceName) {
        if let Some(local) = self.workspaces.remove(workspace)
            && local.is_attached()
        {
            self.send(&Message::Detach { attachment: local.attachment });
        }
    }

    /// Attaches a workspace if nothing is in the way.
    fn attach(&mut self, workspace: &WorkspaceName) {
        let Some(local) = self.workspaces.get(workspace) else { return };
        let ready = self.link == Link::Open
            && local.phase == Phase::Idle
            && local.attach_at.is_none()
            && !self.requests.contains_key(workspace);
        if !ready {
            return;
        }
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
        if !matches!(self.link, Link::Token | Link::Greeting | Link::Open) {
            // It came before the connection was closed.
            return;
        }
        if bytes.len() > MAX_MESSAGE_BYTES {
            return self.fail(now_ms, "the server's message is too big");
        }
        let message = match from_bytes::<Message>(bytes) {
            Ok(message) => message,
            Err(error) => return self.fail(now_ms, &error.to_string()),
        };
        match (message, &self.link) {
            (Message::Welcome(welcome), Link::Greeting) if welcome.version != VERSION => {
                let message = alloc::format!(
                    "the server speaks protocol version {}, this device {VERSION}",
                    welcome.version
                );
                self.server_error(ErrorCode::Version, message);
            }
            (Message::Welcome(_), Link::Greeting) => {
                self.link = Link::Open;
                self.open_since = Some(now_ms);
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
        self.close(1000, "stopped");
        self.link = Link::Off;
        self.open_since = None;
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
            Message::Ack { decisions, .. } => self.decisions(now_ms, &workspace, decisions),
            Message::Refused { code, message, .. } => {
                self.refused(now_ms, &workspace, code, message);
            }
            Message::Notice(Notice::RetryAfter { counter, retry_ms, .. }) => {
                self.retry_after(now_ms, &workspace, counter, retry_ms);
            }
            _ => {
                let message = "the membership of this workspace ended".into();
                self.stop_workspace(&workspace, StopReason::Forbidden, message);
            }
        }
    }

    fn retry_after(&mut self, now_ms: u64, workspace: &WorkspaceName, counter: u64, retry_ms: u64) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        if local.phase != Phase::Open || local.halted {
            return;
        }
        // Whatever the server names: what is decided stays so, and what was not sent is next.
        let before = counter.saturating_sub(1).min(local.pushed).max(local.handed);
        local.in_flight.retain(|(sent, _)| *sent <= before);
        local.pushed = before;
        local.void_reading();
        local.retry_at = Some(now_ms.saturating_add(retry_ms.min(MAX_RETRY_AFTER_MS)));
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
            // The other workspaces of the connection go on.
            AttachRefusal::TooMany | AttachRefusal::Unavailable => {
                let retry_at_ms = now_ms + self.backoff.spread(ATTACH_RETRY_MS);
                self.reset(workspace);
                if let Some(local) = self.workspaces.get_mut(workspace) {
                    local.attach_at = Some(retry_at_ms);
                }
                let status = SyncStatus::Offline { why: message, retry_at_ms };
                return self.set_status(workspace, status);
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
            return self.give_up(workspace, StopReason::EpochChanged, message);
        }
        if state.cursor > 0 && state.cursor < attached.horizon {
            let message = alloc::format!(
                "this device was away too long: the server keeps changes of workspace \
                 {workspace} from seq {} on, this device has seen {}; unsent changes are kept; \
                 sync it into a new --data directory",
                attached.horizon,
                state.cursor
            );
            return self.give_up(workspace, StopReason::BehindHorizon, message);
        }
        local.phase = Phase::Storing;
        local.goal = attached.head;
        let store = Output::StoreAttached { workspace: workspace.clone(), attached };
        self.request(workspace, store);
    }

    /// What the authority offers is of no use here: it need not serve it.
    fn give_up(&mut self, workspace: &WorkspaceName, why: StopReason, message: String) {
        if let Some(local) = self.workspaces.get(workspace) {
            self.send(&Message::Detach { attachment: local.attachment });
        }
        self.stop_workspace(workspace, why, message);
    }

    fn attach_stored(&mut self, workspace: &WorkspaceName, state: WorkspaceState) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        // A write may have been told of since the store answered, so its counter never falls.
        local.state = WorkspaceState { written: local.state.written.max(state.written), ..state };
        if local.phase == Phase::Storing {
            local.phase = Phase::Open;
            local.pushed = state.decided;
            local.handed = state.decided;
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
        self.request(workspace, Output::StoreChanges { workspace: workspace.clone(), page });
    }

    fn changes_stored(&mut self, workspace: &WorkspaceName, received_to: u64, cursor: u64) {
        self.backoff.reset();
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
            let store = Output::StoreDecisions { workspace: workspace.clone(), decisions };
            self.request(workspace, store);
        }
        self.pump(workspace);
    }

    fn dead_lettered(
        &mut self,
        workspace: &WorkspaceName,
        refused: u64,
        decided: u64,
        written: u64,
    ) {
        self.backoff.reset();
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
    fn pump(&mut self, workspace: &WorkspaceName) {
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

    fn outbox(&mut self, workspace: &WorkspaceName, batches: Vec<Batch>) {
        let Some(local) = self.workspaces.get_mut(workspace) else { return };
        let reading = core::mem::replace(&mut local.reading, Reading::No);
        if reading != Reading::Yes {
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
