//! The session itself.

mod attach;
mod fork;
mod history;
mod offer;
mod workspace;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::io::{Config, Input, Output, StopReason, SyncStatus};
use super::local::{Local, Phase};
use crate::codec::{from_bytes, to_bytes};
use crate::id::WorkspaceName;
use crate::limits::{
    MAX_CLOSE_REASON_BYTES, MAX_MESSAGE_BYTES, MAX_TEXT_BYTES, MAX_TOKEN_BYTES, RETRY_MAX_MS,
};
use crate::protocol::message::{ErrorCode, Hello, Message, Notice, cut_text};
use crate::protocol::retry::Backoff;
use crate::protocol::{FIRST_VERSION, VERSION};
use fork::not_written_here;

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

/// The replica's side of sync. Feed one input, drain all outputs, wait.
#[derive(Debug)]
pub struct ReplicaSession {
    config: Config,
    /// Between Start and Stop.
    wanted: bool,
    link: Link,
    /// What the server of this connection speaks.
    version: u64,
    /// When the link was opened.
    open_since: Option<u64>,
    workspaces: BTreeMap<WorkspaceName, Local>,
    /// Requests to the store without an answer. While a workspace has any it is not attached: its
    /// state is not known, and their answers would be taken for those of the new attachment.
    requests: BTreeMap<WorkspaceName, usize>,
    last_attachment: u64,
    /// The store is becoming another device: no connection until it has.
    forking: bool,
    /// How often it became another one since a decision was stored last.
    forks: u32,
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
        let last_attachment = config.attachments_after;
        Self {
            config,
            wanted: false,
            link: Link::Off,
            version: FIRST_VERSION,
            open_since: None,
            workspaces: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_attachment,
            forking: false,
            forks: 0,
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
            Input::ReadHistory { workspace, request, record, before } => {
                self.read_history(&workspace, request, record, before);
            }
            Input::ForkStored { device, states } => self.fork_stored(device, states),
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
            Input::Survivors { workspace, entries, next } => {
                self.survivors(&workspace, entries, next);
                workspace
            }
            Input::AttachStored { workspace, state } => {
                self.attach_stored(&workspace, state);
                workspace
            }
            Input::ChangesStored { workspace, received_to, cursor, walk } => {
                self.page_stored(&workspace, (received_to, cursor), walk);
                workspace
            }
            Input::DecisionsStored { workspace, decided } => {
                if let Some(local) = self.workspaces.get_mut(&workspace) {
                    local.state.decided = local.state.decided.max(decided);
                }
                self.backoff.reset();
                self.forks = 0;
                self.pump(&workspace);
                workspace
            }
            Input::DeadLettered { workspace, refused, decided, written } => {
                self.dead_lettered(&workspace, refused, decided, written);
                workspace
            }
            Input::Forked { workspace, counter } => {
                self.forked(&workspace, &not_written_here(counter));
                workspace
            }
            Input::HorizonStored { workspace, horizon } => {
                if let Some(local) = self.workspaces.get_mut(&workspace) {
                    local.state.horizon = horizon;
                }
                workspace
            }
            Input::OtherSchema { workspace, message } => {
                self.give_up(&workspace, StopReason::OtherSchema, message);
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
        if self.forking {
            // It would say Hello under the old id.
            self.link = Link::Off;
            return;
        }
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
        self.no_history(workspace);
        if let Some(local) = self.workspaces.get_mut(workspace) {
            if local.phase != Phase::Stopped {
                local.phase = Phase::Idle;
            }
            local.early.clear();
            local.in_flight.clear();
            local.void_reading();
            local.halted = false;
            local.retry_at = None;
            local.held = None;
            local.attach_at = None;
            (local.attached, local.offered_to) = (None, None);
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
            Ok(token) if token.len() > MAX_TOKEN_BYTES => {
                let len = token.len();
                let message = alloc::format!("the token is {len} bytes, at most {MAX_TOKEN_BYTES}");
                self.server_error(ErrorCode::Unauthenticated, message);
            }
            Ok(token) => {
                self.link = Link::Greeting;
                self.send(&Message::Hello(Hello {
                    min_version: FIRST_VERSION,
                    max_version: VERSION,
                    token,
                    device: self.config.device,
                    app_schema: self.config.app_schema,
                    agent: cut_text(&self.config.agent, MAX_TEXT_BYTES).into(),
                }));
            }
        }
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
            (Message::Welcome(welcome), Link::Greeting)
                if !(FIRST_VERSION..=VERSION).contains(&welcome.version) =>
            {
                let message = alloc::format!(
                    "the server speaks protocol version {}, this device {FIRST_VERSION} to \
                     {VERSION}",
                    welcome.version
                );
                self.server_error(ErrorCode::Version, message);
            }
            (Message::Welcome(welcome), Link::Greeting) => {
                self.version = welcome.version;
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
}
