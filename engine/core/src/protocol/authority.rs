//! The authority's side of one connection.

mod pages;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use self::pages::Walking;
use super::entry::Entry;
use super::history::{History, ReadHistory};
use super::message::{
    Attach, AttachRefusal, Attached, Changes, Decided, ErrorCode, Hello, Message, Notice,
    ResetReason, Role, Survivors, Welcome, cut_text,
};
use super::walk::{WalkPage, WalkPlace};
use super::{FIRST_VERSION, VERSION};
use crate::codec::{from_bytes, to_bytes};
use crate::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use crate::limits::{
    MAX_ATTACHMENTS, MAX_BATCH_BYTES, MAX_BATCH_OPS, MAX_BATCHES_IN_FLIGHT, MAX_CLOSE_REASON_BYTES,
    MAX_HISTORY_REQUESTS, MAX_MESSAGE_BYTES, MAX_RECORD_BYTES, MAX_TEXT_BYTES, WALK_FROM_SEQS,
};
use crate::op::Batch;
use crate::plant::{Plant, planted};
use crate::stamp::Decision;

/// How long a connection may take to say who it is, in milliseconds.
const HELLO_TIMEOUT_MS: u64 = 5_000;
/// How long a read-only member is told to wait before it pushes again, in milliseconds.
const READ_ONLY_RETRY_MS: u64 = 60_000;

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user's name.
    pub user: String,
}

/// What the store says to one pushed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushAnswer {
    /// It is decided, durably.
    Decided(Decision),
    /// Not now: nothing was decided and no counter used. The store ignores what comes after it
    /// until [`Output::OpenGate`].
    NotNow {
        /// How long to wait, in milliseconds.
        retry_ms: u64,
        /// For people.
        message: String,
    },
    /// The device id is used by two stores, or a batch id came with other bytes.
    Forked {
        /// For people.
        message: String,
    },
    /// Its user is no member any more: nothing was decided.
    Revoked,
    /// The workspace is deleted: nothing was decided.
    Deleted {
        /// For people.
        message: String,
    },
    /// It came after a refusal or a `NotNow` and was not looked at.
    Ignored,
}

impl PushAnswer {
    /// What a viewer's batch gets: it waits until its user may write.
    #[must_use]
    pub fn read_only() -> Self {
        let message = "your role in this workspace is viewer, which only reads: ask its owner for \
                       the role editor"
            .into();
        PushAnswer::NotNow { retry_ms: READ_ONLY_RETRY_MS, message }
    }
}

/// Which page is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageFrom {
    /// What changed after this seq.
    Seq(u64),
    /// Rows of a walk.
    Walk {
        /// The head when it began.
        base: u64,
        /// The record that the page follows, as the replica is told; none for the first.
        after: Option<(TableName, Key)>,
        /// The record behind which to begin to look; none for all.
        from: Option<(TableName, Key)>,
    },
}

/// What the session is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A message arrived.
    Message(Vec<u8>),
    /// Answer to [`Output::Authenticate`], or later: the token counts no more.
    Authenticated {
        /// Who it is, or a sentence for the device.
        result: Result<Principal, String>,
        /// Server time, milliseconds since 1970 UTC.
        server_time_ms: i64,
    },
    /// Answer to [`Output::Attach`].
    AttachAnswer {
        /// The attachment.
        attachment: u64,
        /// What to tell the replica.
        result: Result<Attached, (AttachRefusal, String)>,
    },
    /// Answer to [`Output::Decide`], in the order of the requests.
    Decided {
        /// The attachment.
        attachment: u64,
        /// Counter of the batch.
        counter: u64,
        /// The batch.
        batch_id: BatchId,
        /// What the store said.
        answer: PushAnswer,
    },
    /// Answer to [`Output::StoreSurvivors`]: they are durable.
    SurvivorsStored {
        /// The attachment.
        attachment: u64,
        /// As it was asked.
        is_last: bool,
    },
    /// Answer to [`Output::ReadPage`] of changes.
    Page {
        /// The attachment.
        attachment: u64,
        /// The page.
        page: Changes,
        /// The horizon of the view that it was read from.
        horizon: u64,
    },
    /// Answer to [`Output::ReadPage`] of a walk.
    Walk {
        /// The page.
        page: WalkPage,
        /// The record behind which to go on, if more was looked at than the page may show.
        looked_to: Option<(TableName, Key)>,
        /// The head of the view that it was read from.
        head: u64,
        /// The horizon of that view.
        horizon: u64,
    },
    /// Answer to [`Output::ReadHistory`].
    History(History),
    /// Something new was published.
    Head {
        /// The attachment.
        attachment: u64,
        /// Last seq that pages can show now.
        head: u64,
        /// The horizon of the view that shows it.
        horizon: u64,
    },
    /// The attachment must end.
    Evict {
        /// The attachment.
        attachment: u64,
        /// Why.
        code: AttachRefusal,
        /// For people.
        message: String,
    },
    /// The user is no member any more: the attachment must end.
    Revoked {
        /// The attachment.
        attachment: u64,
    },
    /// The server stops.
    Shutdown,
    /// Time has passed.
    Time,
}

/// What the session wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send one message.
    Send(Vec<u8>),
    /// Check the token.
    Authenticate {
        /// Who it claims to be.
        hello: Hello,
    },
    /// Check membership and make the device's attachment the only one.
    Attach {
        /// What it asked for.
        attach: Attach,
    },
    /// Decide one batch.
    Decide {
        /// The attachment.
        attachment: u64,
        /// The batch.
        batch: Batch,
    },
    /// From here on batches of this attachment are decided again after a refusal or `NotNow`.
    OpenGate {
        /// The attachment.
        attachment: u64,
    },
    /// Keep rows that this store has lost and the replica still has.
    StoreSurvivors {
        /// The attachment.
        attachment: u64,
        /// Its workspace.
        workspace: WorkspaceName,
        /// The device that offers them.
        device: DeviceId,
        /// The rows.
        entries: Vec<Entry>,
        /// To be answered.
        is_last: bool,
    },
    /// Read one page from the newest view.
    ReadPage {
        /// The attachment.
        attachment: u64,
        /// Its workspace.
        workspace: WorkspaceName,
        /// Which page.
        from: PageFrom,
    },
    /// Read versions of a record.
    ReadHistory {
        /// The workspace of the attachment.
        workspace: WorkspaceName,
        /// What is asked.
        asked: ReadHistory,
    },
    /// The attachment is over.
    Detached {
        /// The attachment.
        attachment: u64,
    },
    /// Close the connection.
    Close {
        /// WebSocket close code.
        code: u16,
        /// For people.
        reason: String,
    },
    /// Send [`Input::Time`] at this time.
    WakeAt(u64),
}

#[derive(Debug)]
enum Phase {
    /// Nothing said yet.
    New,
    /// The token is being checked.
    Authenticating,
    /// Authenticated.
    Open,
    /// Over.
    Closed,
}

/// One attachment.
#[derive(Debug)]
struct Served {
    workspace: WorkspaceName,
    open: bool,
    role: Role,
    /// Seq up to which pages were sent.
    sent_to: u64,
    /// Whether the last of them said at which seq everything is consistent. A walk does not.
    is_consistent: bool,
    /// Last seq that pages can show.
    head: u64,
    /// The horizon that the replica was told of: what was purged up to it, it never heard of or has
    /// seen go.
    horizon: u64,
    /// The newest horizon there is.
    moved_to: u64,
    /// Ends of pages sent and not acknowledged: the credit used.
    unacknowledged: VecDeque<u64>,
    /// The walk that the replica's copy begins with, until all of it is sent.
    walk: Option<Walking>,
    /// Where a walk of the replica had come to, until it is attached.
    walked: Option<WalkPlace>,
    /// Pages of the walk that are sent and not acknowledged: they come before all others.
    walk_unacknowledged: u32,
    reading: bool,
    offer: Offer,
    gate: Gate,
    /// Batches passed on and not answered.
    deciding: usize,
    /// Batches that wait for the gate.
    held: VecDeque<Batch>,
    /// Questions about histories without an answer.
    asked: usize,
}

/// Whether pushes are passed on.
#[derive(Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// A refusal was sent; only its Resume opens.
    Refused(u64),
    /// A batch could not be decided; only the same batch opens.
    NotNow(u64),
    /// It opens once what was passed on before it closed is answered: until then the store must go
    /// on ignoring, or it would decide batches that the replica has taken back.
    Opening,
}

/// How far the replica is with what this store has lost: until it is over, nothing else is served.
#[derive(Debug, PartialEq, Eq)]
enum Offer {
    Awaited,
    Storing,
    Over,
}

/// The authority's side of one connection. Feed one input, drain all outputs, wait.
#[derive(Debug)]
pub struct AuthoritySession {
    phase: Phase,
    device: DeviceId,
    /// What the replica speaks.
    version: u64,
    walk_from: u64,
    deadline: Option<u64>,
    last_attachment: u64,
    served: BTreeMap<u64, Served>,
    outputs: VecDeque<Output>,
}

impl Default for AuthoritySession {
    fn default() -> Self {
        Self::new()
    }
}

impl AuthoritySession {
    /// A session for a connection that was just accepted; tell it the time at once.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::New,
            device: DeviceId::AUTHORITY,
            version: FIRST_VERSION,
            walk_from: WALK_FROM_SEQS,
            deadline: None,
            last_attachment: 0,
            served: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Gives a workspace by a walk once so many seqs of it were given, not [`WALK_FROM_SEQS`].
    #[must_use]
    pub fn walking_from(self, seqs: u64) -> Self {
        Self { walk_from: seqs, ..self }
    }

    /// The next thing to do; call it again after every input until it gives nothing.
    #[must_use]
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes one input at time `now_ms` of any clock that does not go back.
    pub fn input(&mut self, now_ms: u64, input: Input) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        if self.deadline.is_none() {
            self.deadline = Some(now_ms + HELLO_TIMEOUT_MS);
            self.outputs.push_back(Output::WakeAt(now_ms + HELLO_TIMEOUT_MS));
        }
        match input {
            Input::Message(bytes) => self.message(&bytes),
            Input::Authenticated { result, server_time_ms } => {
                self.authenticated(result, server_time_ms);
            }
            Input::AttachAnswer { attachment, result } => self.attach_answer(attachment, result),
            Input::Decided { attachment, counter, batch_id, answer } => {
                self.decided(attachment, counter, batch_id, answer);
            }
            Input::SurvivorsStored { attachment, is_last } => {
                self.survivors_stored(attachment, is_last);
            }
            Input::Page { attachment, page, horizon } => self.page(attachment, page, horizon),
            Input::Walk { page, looked_to, head, horizon } => {
                self.walk_page(page, looked_to, (head, horizon));
            }
            Input::History(answer) => self.history(answer),
            Input::Head { attachment, head, horizon } => {
                if let Some(served) = self.served.get_mut(&attachment) {
                    served.head = served.head.max(head);
                    served.moved_to = served.moved_to.max(horizon);
                }
                self.tell_horizon(attachment);
                self.read_more(attachment);
            }
            Input::Evict { attachment, code, message } => self.evict(attachment, code, message),
            Input::Revoked { attachment } => self.revoke(attachment),
            Input::Shutdown => {
                self.send(&Message::Notice(Notice::ShuttingDown));
                self.close(1012, "the server restarts");
            }
            Input::Time => {
                let late = self.deadline.is_some_and(|deadline| now_ms >= deadline);
                if late && matches!(self.phase, Phase::New | Phase::Authenticating) {
                    self.fail(ErrorCode::Timeout, "no Hello in time");
                }
            }
        }
    }

    fn send(&mut self, message: &Message) {
        self.outputs.push_back(Output::Send(to_bytes(message)));
    }

    fn close(&mut self, code: u16, reason: &str) {
        for attachment in core::mem::take(&mut self.served).into_keys() {
            self.outputs.push_back(Output::Detached { attachment });
        }
        let reason = cut_text(reason, MAX_CLOSE_REASON_BYTES).into();
        self.outputs.push_back(Output::Close { code, reason });
        self.phase = Phase::Closed;
    }

    fn fail(&mut self, code: ErrorCode, message: &str) {
        let text = cut_text(message, MAX_TEXT_BYTES).into();
        self.send(&Message::Error { code, message: text });
        self.close(code.close_code(), message);
    }

    fn message(&mut self, bytes: &[u8]) {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return self.fail(ErrorCode::TooBig, "the message is too big");
        }
        match self.phase {
            // Before the token is checked nothing but a Hello is even decoded.
            Phase::New if bytes.first() != Some(&0) => {
                self.fail(ErrorCode::Unauthenticated, "say Hello first");
            }
            Phase::Authenticating => self.fail(ErrorCode::Protocol, "wait for Welcome"),
            _ => match from_bytes::<Message>(bytes) {
                Ok(message) => self.decoded(message),
                Err(error) => self.fail(ErrorCode::Protocol, &error.to_string()),
            },
        }
    }

    fn decoded(&mut self, message: Message) {
        match message {
            Message::Hello(hello) if matches!(self.phase, Phase::New) => self.hello(hello),
            Message::Attach(attach) => self.attach(attach),
            Message::Push { attachment, batch } => self.push(attachment, batch),
            Message::Resume { attachment, counter } => {
                if let Some(served) = self.served.get_mut(&attachment)
                    && served.gate == Gate::Refused(counter)
                    && !planted(Plant::ResumeIgnored)
                {
                    served.gate = Gate::Opening;
                    self.pass_on(attachment);
                }
            }
            Message::Received { attachment, received_to, .. } => {
                if let Some(served) = self.served.get_mut(&attachment) {
                    served.acknowledge(received_to);
                }
                self.read_more(attachment);
            }
            Message::Survivors(survivors) => self.survivors(survivors),
            Message::ReadHistory(asked) => self.read_history(asked),
            Message::Detach { attachment } => {
                if self.served.remove(&attachment).is_some() {
                    self.outputs.push_back(Output::Detached { attachment });
                }
            }
            // The token was checked when the connection began; tokens of this version of the
            // server do not expire.
            Message::Refresh { .. } => {}
            Message::Error { message, .. } => self.close(1000, &message),
            _ => self.fail(ErrorCode::Protocol, "this message is not for a server"),
        }
    }

    fn hello(&mut self, hello: Hello) {
        let version = hello.max_version.min(VERSION);
        if version < hello.min_version.max(FIRST_VERSION) {
            let text =
                alloc::format!("this server speaks protocol version {FIRST_VERSION} to {VERSION}");
            return self.fail(ErrorCode::Version, &text);
        }
        self.version = version;
        if hello.device == DeviceId::AUTHORITY {
            return self.fail(ErrorCode::Protocol, "a device id must not be zero");
        }
        self.device = hello.device;
        self.phase = Phase::Authenticating;
        self.outputs.push_back(Output::Authenticate { hello });
    }

    fn authenticated(&mut self, result: Result<Principal, String>, server_time_ms: i64) {
        match result {
            Err(reason) => self.fail(ErrorCode::Unauthenticated, &reason),
            Ok(_) => {
                self.phase = Phase::Open;
                self.send(&Message::Welcome(Welcome {
                    version: self.version,
                    server_time_ms,
                    max_message_bytes: MAX_MESSAGE_BYTES as u64,
                    max_record_bytes: MAX_RECORD_BYTES as u64,
                    max_batch_bytes: MAX_BATCH_BYTES as u64,
                    max_batch_ops: MAX_BATCH_OPS as u64,
                    max_batches_in_flight: MAX_BATCHES_IN_FLIGHT as u64,
                }));
            }
        }
    }

    fn attach(&mut self, attach: Attach) {
        let attachment = attach.attachment;
        // Answers name the attachment: those of an ended one must never meet another.
        if attachment <= self.last_attachment {
            return self.fail(ErrorCode::Protocol, "numbers of attachments must rise");
        }
        self.last_attachment = attachment;
        let taken = self.served.values().any(|served| served.workspace == attach.workspace);
        if taken {
            return self.fail(ErrorCode::Protocol, "the workspace is attached already");
        }
        if self.served.len() >= MAX_ATTACHMENTS {
            let code = AttachRefusal::TooMany;
            let message = alloc::format!("at most {MAX_ATTACHMENTS} workspaces on a connection");
            return self.send(&Message::Refused { attachment, code, message });
        }
        let served = Served {
            workspace: attach.workspace.clone(),
            open: false,
            role: Role::Viewer,
            sent_to: attach.received_to,
            is_consistent: attach.cursor == attach.received_to,
            head: 0,
            horizon: 0,
            moved_to: 0,
            unacknowledged: VecDeque::new(),
            walk: None,
            walked: attach.walk.clone(),
            walk_unacknowledged: 0,
            reading: false,
            offer: Offer::Over,
            gate: Gate::Open,
            deciding: 0,
            held: VecDeque::new(),
            asked: 0,
        };
        self.served.insert(attachment, served);
        self.outputs.push_back(Output::Attach { attach });
    }

    fn attach_answer(
        &mut self,
        attachment: u64,
        result: Result<Attached, (AttachRefusal, String)>,
    ) {
        let Some(served) = self.served.get_mut(&attachment) else { return };
        match result {
            Ok(attached) => {
                served.open = true;
                served.role = attached.role;
                served.head = served.head.max(attached.head);
                served.horizon = attached.horizon;
                if attached.reset.is_some() {
                    (served.sent_to, served.walked) = (0, None);
                }
                if served.sent_to == 0 && self.version > FIRST_VERSION {
                    served.begin_walk(attached.head, self.walk_from);
                }
                if attached.reset == Some(ResetReason::OtherHistory) {
                    served.offer = Offer::Awaited;
                }
                self.send_attached(attached);
                self.read_more(attachment);
            }
            Err((code, message)) => self.evict(attachment, code, message),
        }
    }

    /// Decisions that there is no room for are left out: the replica pushes those batches again and
    /// gets their decisions then.
    fn send_attached(&mut self, mut attached: Attached) {
        loop {
            let len = attached.decisions.len();
            let bytes = to_bytes(&Message::Attached(attached.clone()));
            if bytes.len() <= MAX_MESSAGE_BYTES || len == 0 {
                return self.outputs.push_back(Output::Send(bytes));
            }
            attached.decisions.truncate(len / 2);
        }
    }

    fn evict(&mut self, attachment: u64, code: AttachRefusal, message: String) {
        if self.served.remove(&attachment).is_some() {
            self.outputs.push_back(Output::Detached { attachment });
            let message = cut_text(&message, MAX_TEXT_BYTES).into();
            self.send(&Message::Refused { attachment, code, message });
        }
    }

    fn revoke(&mut self, attachment: u64) {
        if self.served.remove(&attachment).is_some() {
            self.outputs.push_back(Output::Detached { attachment });
            self.send(&Message::Notice(Notice::Revoked { attachment }));
        }
    }

    fn push(&mut self, attachment: u64, batch: Batch) {
        if batch.device != self.device {
            return self.fail(ErrorCode::Protocol, "the batch names another device");
        }
        // An attachment that just ended may still have pushes under way.
        let Some(served) = self.served.get_mut(&attachment).filter(|served| served.open) else {
            return;
        };
        if served.offer != Offer::Over {
            return self.fail(ErrorCode::Protocol, "offer what survived before you push");
        }
        match served.gate {
            Gate::Refused(_) => return,
            Gate::NotNow(counter) if counter != batch.counter => return,
            Gate::NotNow(_) => served.gate = Gate::Opening,
            Gate::Open | Gate::Opening => {}
        }
        if served.role == Role::Viewer
            && let PushAnswer::NotNow { retry_ms, message } = PushAnswer::read_only()
        {
            return self.not_now(attachment, batch.counter, retry_ms, message);
        }
        // What was passed on before the gate closed counts no more for the replica.
        let deciding = if served.gate == Gate::Open { served.deciding } else { 0 };
        if deciding + served.held.len() >= MAX_BATCHES_IN_FLIGHT {
            return self.fail(ErrorCode::Protocol, "too many batches without a verdict");
        }
        served.held.push_back(batch);
        self.pass_on(attachment);
    }

    /// Passes on what is held, and opens the gate first if it is time.
    fn pass_on(&mut self, attachment: u64) {
        let Some(served) = self.served.get_mut(&attachment) else { return };
        if served.gate == Gate::Opening && (served.deciding == 0 || planted(Plant::GateOpensEarly))
        {
            served.gate = Gate::Open;
            self.outputs.push_back(Output::OpenGate { attachment });
        }
        if served.gate == Gate::Open {
            served.deciding += served.held.len();
            let batches = served.held.drain(..);
            self.outputs.extend(batches.map(|batch| Output::Decide { attachment, batch }));
        }
    }

    fn not_now(&mut self, attachment: u64, counter: u64, retry_ms: u64, message: String) {
        if let Some(served) = self.served.get_mut(&attachment) {
            served.gate = Gate::NotNow(counter);
            let message = cut_text(&message, MAX_TEXT_BYTES).into();
            let notice = Notice::RetryAfter { attachment, counter, retry_ms, message };
            self.send(&Message::Notice(notice));
        }
    }

    fn decided(&mut self, attachment: u64, counter: u64, batch_id: BatchId, answer: PushAnswer) {
        let Some(served) = self.served.get_mut(&attachment) else { return };
        served.deciding = served.deciding.saturating_sub(1);
        match answer {
            PushAnswer::Decided(decision) => {
                if matches!(decision, Decision::Refused { .. }) {
                    served.gate = Gate::Refused(counter);
                }
                let decisions = alloc::vec![Decided { counter, batch_id, decision }];
                self.send(&Message::Ack { attachment, decisions });
            }
            // Only the first batch that is put off is named: what follows it comes again with it.
            PushAnswer::NotNow { retry_ms, message } if served.gate == Gate::Open => {
                self.not_now(attachment, counter, retry_ms, message);
            }
            PushAnswer::Forked { message } => {
                self.evict(attachment, AttachRefusal::DeviceForked, message);
            }
            PushAnswer::Deleted { message } => {
                self.evict(attachment, AttachRefusal::WorkspaceDeleted, message);
            }
            PushAnswer::Revoked => self.revoke(attachment),
            PushAnswer::NotNow { .. } | PushAnswer::Ignored => {}
        }
        self.pass_on(attachment);
    }

    fn survivors(&mut self, survivors: Survivors) {
        let Survivors { attachment, entries, is_last } = survivors;
        let Some(served) = self.served.get_mut(&attachment) else { return };
        if served.offer != Offer::Awaited {
            return self.fail(ErrorCode::Protocol, "no survivors of this workspace are awaited");
        }
        let (workspace, device) = (served.workspace.clone(), self.device);
        let valid = |Entry::Row { row, .. }: &Entry| row.record.check_untrusted().is_ok();
        if !entries.iter().all(valid) {
            return self.fail(ErrorCode::Protocol, "a record among the survivors is not valid");
        }
        // Who may not write has no say in what comes back either.
        if entries.is_empty() || served.role == Role::Viewer {
            return self.survivors_stored(attachment, is_last);
        }
        served.offer = Offer::Storing;
        let store = Output::StoreSurvivors { attachment, workspace, device, entries, is_last };
        self.outputs.push_back(store);
    }

    fn survivors_stored(&mut self, attachment: u64, is_last: bool) {
        let Some(served) = self.served.get_mut(&attachment) else { return };
        served.offer = if is_last { Offer::Over } else { Offer::Awaited };
        self.send(&Message::SurvivorsStored { attachment });
        self.read_more(attachment);
    }

    fn read_history(&mut self, asked: ReadHistory) {
        let Some(served) = self.served.get_mut(&asked.attachment).filter(|served| served.open)
        else {
            return;
        };
        if served.asked == MAX_HISTORY_REQUESTS {
            return self.fail(ErrorCode::Protocol, "too many questions without an answer");
        }
        served.asked += 1;
        let workspace = served.workspace.clone();
        self.outputs.push_back(Output::ReadHistory { workspace, asked });
    }

    fn history(&mut self, answer: History) {
        if let Some(served) = self.served.get_mut(&answer.attachment) {
            served.asked = served.asked.saturating_sub(1);
            self.send(&Message::History(answer));
        }
    }
}
