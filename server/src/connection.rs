//! One connection: a WebSocket, an authority session, and the store's answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use lastword::core::id::{DeviceId, WorkspaceName};
use lastword::core::protocol::authority::{AuthoritySession, Input, Output, PageFrom, Principal};
use lastword::core::protocol::{Attach, AttachRefusal, Entry, ReadHistory, Role};
use lastword::{AttachRequest, Claim, Error, PushAnswer, PushGate};
use tokio::sync::mpsc;

use crate::hub::{Event, Hub};

/// A peer that does not take a message for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A silent peer is asked for a sign of life this often.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A peer that is silent this long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// Number of the next connection of any kind.
pub(crate) static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Serves one socket until it closes.
pub async fn serve(
    socket: WebSocket,
    hub: Arc<Hub>,
    mut shutdown: tokio::sync::watch::Receiver<bool>,
) {
    let (events, mut received) = mpsc::unbounded_channel();
    let mut published = hub.published();
    let mut connection = Connection {
        id: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
        hub,
        socket,
        session: AuthoritySession::new(),
        started: Instant::now(),
        events,
        user: None,
        device: None,
        app_schema: 0,
        attached: BTreeMap::new(),
        wake_at: None,
        heard: Instant::now(),
        pinged: Instant::now(),
        closed: false,
    };
    connection.hub.connected(connection.id, connection.events.clone());
    connection.input(Input::Time);
    while connection.drain().await {
        let wake = connection.next_wake();
        tokio::select! {
            biased;
            Some(event) = received.recv() => connection.event(event),
            message = connection.socket.recv() => connection.message(message),
            _ = published.changed() => connection.published(),
            _ = shutdown.changed() => connection.event(Event::Shutdown),
            () = tokio::time::sleep_until(wake.into()) => connection.time().await,
        }
    }
    connection.attached.values().for_each(|known| connection.release(&known.workspace));
    connection.hub.disconnected(connection.id);
}

struct Connection {
    id: u64,
    hub: Arc<Hub>,
    socket: WebSocket,
    session: AuthoritySession,
    started: Instant,
    events: mpsc::UnboundedSender<Event>,
    user: Option<String>,
    device: Option<lastword::core::id::DeviceId>,
    /// Schema number of the app, 0 = none.
    app_schema: u64,
    attached: BTreeMap<u64, Attachment>,
    wake_at: Option<u64>,
    heard: Instant,
    pinged: Instant,
    closed: bool,
}

/// One attachment of the connection.
struct Attachment {
    workspace: WorkspaceName,
    /// The head and horizon that the session was told of.
    told: (u64, u64),
    /// The role that the device was told of.
    role: Option<Role>,
    gate: PushGate,
}

impl Connection {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn input(&mut self, input: Input) {
        let now_ms = self.now_ms();
        self.session.input(now_ms, input);
    }

    fn next_wake(&self) -> Instant {
        let ping = self.pinged + PING_INTERVAL;
        let wake = self.wake_at.map(|at| self.started + Duration::from_millis(at));
        wake.map_or(ping, |wake| wake.min(ping))
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Answer(input) => {
                if let Input::AttachAnswer { attachment, result: Ok(attached) } = &input
                    && let Some(known) = self.attached.get_mut(attachment)
                {
                    known.told = (attached.head, attached.horizon);
                    known.role = Some(attached.role);
                }
                self.input(input);
            }
            Event::Members => self.members_changed(),
            Event::TokenGone => {
                let result = Err("this server does not know the token any more".into());
                let server_time_ms = lastword::now_ms();
                self.input(Input::Authenticated { result, server_time_ms });
            }
            Event::Evict { attachment, code, message } => {
                self.input(Input::Evict { attachment, code, message });
            }
            Event::Shutdown => self.input(Input::Shutdown),
        }
    }

    fn message(&mut self, message: Option<Result<Message, axum::Error>>) {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Binary(bytes))) => self.input(Input::Message(bytes.to_vec())),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_))) => {
                // An empty message decodes to nothing: the session answers with its protocol error.
                self.input(Input::Message(Vec::new()));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => self.closed = true,
        }
    }

    /// Tells the session the new head and horizon of each workspace that moved.
    fn published(&mut self) {
        let view = self.hub.view();
        let mut moved = Vec::new();
        for (attachment, known) in &mut self.attached {
            match lastword::store::read::meta(&*view, &known.workspace) {
                Ok(meta) if meta.head > known.told.0 || meta.horizon > known.told.1 => {
                    known.told = (meta.head, meta.horizon);
                    moved.push((*attachment, known.told));
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "cannot read the head of a workspace"),
            }
        }
        for (attachment, (head, horizon)) in moved {
            self.input(Input::Head { attachment, head, horizon });
        }
    }

    /// Ends the attachments whose user has another role now, or none.
    fn members_changed(&mut self) {
        let Some(user) = &self.user else { return };
        let mut ended = Vec::new();
        for (attachment, known) in &self.attached {
            let Some(role) = known.role else { continue };
            match self.hub.authority.ended(&known.workspace, user, *attachment, role) {
                Ok(input) => ended.extend(input),
                Err(error) => {
                    tracing::error!(%error, "cannot read the members of a workspace");
                    let (code, message) = (AttachRefusal::Unavailable, error.to_string());
                    ended.push(Input::Evict { attachment: *attachment, code, message });
                }
            }
        }
        ended.into_iter().for_each(|input| self.input(input));
    }

    async fn time(&mut self) {
        if self.pinged.elapsed() >= PING_INTERVAL {
            self.pinged = Instant::now();
            let alive = self.heard.elapsed() <= SILENCE_LIMIT;
            let sent = self.socket.send(Message::Ping(Default::default()));
            if !alive || !matches!(tokio::time::timeout(SEND_TIMEOUT, sent).await, Ok(Ok(()))) {
                self.closed = true;
            }
        }
        if self.wake_at.is_some_and(|at| at <= self.now_ms()) {
            self.wake_at = None;
            self.input(Input::Time);
        }
    }

    /// Carries out what the session wants; false once the connection is over.
    async fn drain(&mut self) -> bool {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(bytes) => {
                    let sent = self.socket.send(Message::Binary(bytes.into()));
                    if !matches!(tokio::time::timeout(SEND_TIMEOUT, sent).await, Ok(Ok(()))) {
                        self.closed = true;
                    }
                }
                Output::Close { code, reason } => {
                    let frame = CloseFrame { code, reason: reason.into() };
                    let sent = self.socket.send(Message::Close(Some(frame)));
                    // Either way the connection is over.
                    let _ = tokio::time::timeout(SEND_TIMEOUT, sent).await;
                    self.closed = true;
                }
                Output::WakeAt(at) => {
                    self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
                }
                Output::Authenticate { hello } => {
                    let answer = self.hub.authenticate(self.id, &hello.token);
                    self.device = Some(hello.device);
                    self.app_schema = hello.app_schema;
                    self.user = answer.clone().ok();
                    let server_time_ms = lastword::now_ms();
                    let result = answer.map(|user| Principal { user });
                    self.input(Input::Authenticated { result, server_time_ms });
                }
                Output::Attach { attach } => self.attach(attach),
                Output::Detached { attachment } => {
                    if let Some(known) = self.attached.remove(&attachment) {
                        self.release(&known.workspace);
                    }
                }
                Output::Decide { attachment, batch } => self.decide(attachment, batch),
                Output::OpenGate { attachment } => {
                    if let Some(attached) = self.attached.get(&attachment) {
                        attached.gate.open();
                    }
                }
                Output::StoreSurvivors { attachment, workspace, device, entries, is_last } => {
                    let offer = Offer { attachment, workspace, device, is_last };
                    self.keep_survivors(offer, entries);
                }
                Output::ReadHistory { workspace, asked } => self.read_history(&workspace, &asked),
                Output::ReadPage { attachment, workspace, from } => {
                    self.read_page(attachment, &workspace, from);
                    // Pages that show nothing are read one after the other.
                    tokio::task::yield_now().await;
                }
            }
            if self.closed {
                break;
            }
        }
        !self.closed
    }

    fn release(&self, workspace: &WorkspaceName) {
        if let Some(device) = self.device {
            self.hub.release(workspace, device, self.id);
        }
    }

    fn refuse(&mut self, attachment: u64, code: AttachRefusal, message: String) {
        self.input(Input::AttachAnswer { attachment, result: Err((code, message)) });
    }

    fn attach(&mut self, attach: Attach) {
        let Attach { attachment, nonce, .. } = attach;
        let workspace = attach.workspace.clone();
        let (Some(user), Some(device)) = (self.user.clone(), self.device) else {
            let message = "not authenticated".into();
            return self.refuse(attachment, AttachRefusal::Forbidden, message);
        };
        // Unknown workspaces get the same answer, so a stranger learns nothing.
        let authority = &self.hub.authority;
        match authority.role(&authority.view(), &workspace, &user) {
            Ok(Some(_)) if !workspace.is_reserved() => {}
            Ok(_) => {
                let error = Error::NoMember { workspace, user };
                return self.refuse(attachment, error.refuses_attach(), error.to_string());
            }
            Err(error) => {
                return self.refuse(attachment, error.refuses_attach(), error.to_string());
            }
        }
        // Before the claim, which would shut the owner's connection out.
        match self.hub.authority.device_owner(&workspace, device) {
            Ok(owner) if owner.as_ref().is_none_or(|owner| *owner == user) => {}
            Ok(_) => {
                let message = Error::ForeignDevice { device }.to_string();
                return self.refuse(attachment, AttachRefusal::Forbidden, message);
            }
            Err(error) => {
                return self.refuse(attachment, AttachRefusal::Unavailable, error.to_string());
            }
        }
        let gate = PushGate::of_app(self.app_schema);
        let claim = Claim { connection: self.id, attachment, nonce, gate: gate.clone() };
        if let Err(code) = self.hub.claim(&workspace, device, claim) {
            let message = match code {
                AttachRefusal::Fenced => "this device has attached again since".to_owned(),
                _ => format!("device {device} is used by two stores"),
            };
            return self.refuse(attachment, code, message);
        }
        // Until the answer is there, the head counts as told.
        let known = Attachment {
            workspace: workspace.clone(),
            told: (u64::MAX, u64::MAX),
            role: None,
            gate,
        };
        self.attached.insert(attachment, known);
        let request = AttachRequest::of(&attach, device, user);
        let (events, hub) = (self.events.clone(), Arc::clone(&self.hub));
        let submitted = self.hub.authority.attach(workspace, request, move |result| {
            let result = result.map_err(|error| {
                hub.end_if_poisoned(&error);
                (error.refuses_attach(), error.to_string())
            });
            // A connection that is gone does not need the answer.
            let _ = events.send(Event::Answer(Input::AttachAnswer { attachment, result }));
        });
        if let Err(error) = submitted {
            self.refuse(attachment, AttachRefusal::Unavailable, error.to_string());
        }
    }

    fn decide(&mut self, attachment: u64, batch: lastword::core::op::Batch) {
        let Some(known) = self.attached.get(&attachment) else { return };
        let Some(user) = self.user.clone() else { return };
        let (workspace, gate) = (known.workspace.clone(), known.gate.clone());
        let (counter, batch_id) = (batch.counter, batch.batch_id);
        let (events, hub) = (self.events.clone(), Arc::clone(&self.hub));
        let decided = move |result: Result<PushAnswer, Error>| {
            let answer = result.unwrap_or_else(|error| not_now(&hub, &error));
            let input = Input::Decided { attachment, counter, batch_id, answer };
            // A connection that is gone does not need the answer.
            let _ = events.send(Event::Answer(input));
        };
        if let Err(error) = self.hub.authority.decide(workspace, user, batch, gate, decided) {
            let answer = not_now(&self.hub, &error);
            self.input(Input::Decided { attachment, counter, batch_id, answer });
        }
    }

    fn keep_survivors(&mut self, offer: Offer, entries: Vec<Entry>) {
        let Offer { attachment, workspace, device, is_last } = offer;
        let user = self.user.clone().unwrap_or_default();
        let (events, hub) = (self.events.clone(), Arc::clone(&self.hub));
        let answer = move |result: Result<(), Error>| match result {
            Ok(()) => Input::SurvivorsStored { attachment, is_last },
            Err(error) => {
                tracing::error!(%error, "what a device has of a lost history could not be kept");
                hub.end_if_poisoned(&error);
                let (code, message) = (AttachRefusal::Unavailable, error.to_string());
                Input::Evict { attachment, code, message }
            }
        };
        let hub = Arc::clone(&self.hub);
        let kept = move |result| {
            // A connection that is gone does not need the answer.
            let _ = events.send(Event::Answer(answer(result)));
        };
        if let Err(error) = hub.authority.keep_survivors(workspace, (user, device), entries, kept) {
            let (code, message) = (AttachRefusal::Unavailable, error.to_string());
            self.input(Input::Evict { attachment, code, message });
        }
    }

    fn read_history(&mut self, workspace: &WorkspaceName, asked: &ReadHistory) {
        let (view, user) = (self.hub.view(), self.user.clone().unwrap_or_default());
        match self.hub.authority.versions(&view, workspace, &user, asked) {
            Ok(input) => self.input(input),
            Err(error) => {
                tracing::error!(%error, %workspace, "cannot read the history of a record");
                let (code, message) = (AttachRefusal::Unavailable, "the server failed".into());
                self.input(Input::Evict { attachment: asked.attachment, code, message });
            }
        }
    }

    fn read_page(&mut self, attachment: u64, workspace: &WorkspaceName, from: PageFrom) {
        let (view, user) = (self.hub.view(), self.user.clone().unwrap_or_default());
        match self.hub.authority.page(&view, workspace, &user, attachment, from) {
            Ok(input) => self.input(input),
            Err(error) => {
                tracing::error!(%error, %workspace, "cannot read changes");
                let (code, message) = (AttachRefusal::Unavailable, "the server failed".into());
                self.input(Input::Evict { attachment, code, message });
            }
        }
    }
}

/// What a device offers, besides the rows.
struct Offer {
    attachment: u64,
    workspace: WorkspaceName,
    device: DeviceId,
    is_last: bool,
}

/// A failure of the store decides nothing: the device keeps its batch and tries again.
fn not_now(hub: &Hub, error: &Error) -> PushAnswer {
    tracing::error!(%error, "a batch could not be decided");
    hub.end_if_poisoned(error);
    let message =
        "the server cannot store batches now (is its disk full?): its log says why".into();
    PushAnswer::NotNow { retry_ms: 5_000, message }
}
