//! One device and one server in memory: both sessions, a clock that only moves when told, a store
//! on each side that answers when told, and a link that can be cut anywhere.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use lastword_core::codec::from_bytes;
use lastword_core::id::{BatchId, DeviceId, Epoch, WorkspaceName};
use lastword_core::limits::{MAX_BATCHES_IN_FLIGHT, MAX_PAGES_IN_FLIGHT};
use lastword_core::op::Batch;
use lastword_core::protocol::authority::{
    AuthoritySession, Input as ToAuthority, Output as FromAuthority, PageFrom, Principal,
    PushAnswer,
};
use lastword_core::protocol::replica::{
    Config, Input, Output, ReplicaSession, SyncStatus, WorkspaceState,
};
use lastword_core::protocol::{Attached, Changes, Decided, Message, Notice, Role};
use lastword_core::stamp::{Decision, RefusalCode, Verdict};

use crate::rules::{create, op};

pub const DEVICE: DeviceId = DeviceId([0xd; 16]);

pub fn workspace() -> WorkspaceName {
    WorkspaceName::new("team").unwrap()
}

pub fn config() -> Config {
    Config {
        device: DEVICE,
        nonce: [1; 16],
        attachments_after: 0,
        app_schema: 0,
        agent: "test".into(),
        seed: 7,
    }
}

/// What the server makes of a batch; the first byte of its id says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    /// Refused for good.
    Bad,
    /// Good, but it builds on the batch before it: refused with it.
    Follows,
    /// Put off once.
    Later,
}

impl Kind {
    fn of(id: BatchId) -> Self {
        [Kind::Good, Kind::Bad, Kind::Follows, Kind::Later][usize::from(id.0[0])]
    }
}

pub fn batch(kind: Kind, number: u8, counter: u64) -> Batch {
    let mut id = [number; 16];
    id[0] = kind as u8;
    Batch {
        device: DEVICE,
        counter,
        batch_id: BatchId(id),
        created_ms: 0,
        strict: false,
        former: vec![],
        ops: vec![op(0, create(&[("n", i64::from(number))]))],
    }
}

/// The device's store and session.
pub struct Device {
    pub session: ReplicaSession,
    pub state: WorkspaceState,
    pub outbox: VecDeque<Batch>,
    /// Requests that the store has not carried out, and answers that the session has not heard.
    /// Reads of the outbox go their own way: they need not wait for what is being stored.
    pub requests: VecDeque<Output>,
    answers: VecDeque<Input>,
    reads: VecDeque<Output>,
    outboxes: VecDeque<Input>,
    /// Last counter that the session was told of.
    told: u64,
    pub decided: Vec<Decided>,
    pub dead: Vec<BatchId>,
    pub status: SyncStatus,
    pub wake_at: Option<u64>,
    written: u8,
}

/// A batch in the writer's queue, for the connection that brought it.
struct Job {
    connection: u64,
    attachment: u64,
    batch: Batch,
    gate: Rc<Cell<bool>>,
}

/// The server's store and the session of the newest connection.
pub struct Server {
    pub session: Option<AuthoritySession>,
    connection: u64,
    wake_at: Option<u64>,
    gates: BTreeMap<u64, Rc<Cell<bool>>>,
    attaches: VecDeque<(u64, u64, u64)>,
    jobs: VecDeque<Job>,
    answers: VecDeque<(u64, ToAuthority)>,
    pub decisions: Vec<Decided>,
    put_off: Vec<BatchId>,
    pub head: u64,
    pub role: Role,
    /// The attachment that is served, with its batches and pages in flight.
    serving: u64,
    deciding: usize,
    pages: usize,
}

/// Both, and what is on the way between them.
pub struct World {
    pub now: u64,
    pub device: Device,
    pub server: Server,
    connecting: bool,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    /// The device's newest attachment; what is still said of others does not count.
    attachment: u64,
    /// Last counter pushed on it, to see that they are contiguous.
    last_push: Option<u64>,
    /// After a refusal or a RetryAfter reached the device, until it resumes.
    quiet: bool,
}

impl World {
    pub fn new() -> Self {
        let device = Device {
            session: ReplicaSession::new(config()),
            state: WorkspaceState::default(),
            outbox: VecDeque::new(),
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            reads: VecDeque::new(),
            outboxes: VecDeque::new(),
            told: 0,
            decided: vec![],
            dead: vec![],
            status: SyncStatus::Idle,
            wake_at: None,
            written: 0,
        };
        let server = Server {
            session: None,
            connection: 0,
            wake_at: None,
            gates: BTreeMap::new(),
            attaches: VecDeque::new(),
            jobs: VecDeque::new(),
            answers: VecDeque::new(),
            decisions: vec![],
            put_off: vec![],
            head: 3,
            role: Role::Editor,
            serving: 0,
            deciding: 0,
            pages: 0,
        };
        let (up, down) = (VecDeque::new(), VecDeque::new());
        let mut world = Self {
            now: 1000,
            device,
            server,
            connecting: false,
            up,
            down,
            attachment: 0,
            last_push: None,
            quiet: false,
        };
        world.tell(Input::Start);
        world.attach();
        world
    }

    /// The app asks for the workspace; the state it names may be old when the session hears it.
    pub fn attach(&mut self) {
        let state = self.device.state.clone();
        self.device.told = state.written;
        self.tell(Input::Attach { workspace: workspace(), state });
    }

    // ---- The device ----------------------------------------------------------------------

    pub fn tell(&mut self, input: Input) {
        self.device.session.input(self.now, input);
        while let Some(output) = self.device.session.poll() {
            match output {
                Output::Connect => self.connecting = true,
                Output::Send(bytes) => self.send(bytes),
                Output::Close { .. } => self.forget_connection(),
                Output::FetchToken => {
                    self.device.session.input(self.now, Input::Token(Ok("token".into())));
                }
                Output::Status { status, .. } => self.device.status = status,
                Output::WakeAt(at) => self.device.wake_at = Some(at),
                read @ Output::ReadOutbox { .. } => self.device.reads.push_back(read),
                request => self.device.requests.push_back(request),
            }
        }
    }

    fn send(&mut self, bytes: Vec<u8>) {
        match from_bytes::<Message>(&bytes).unwrap() {
            Message::Attach(attach) => {
                self.attachment = attach.attachment;
                (self.last_push, self.quiet) = (None, false);
            }
            Message::Resume { .. } => self.quiet = false,
            Message::Push { batch, .. } => {
                assert!(!self.quiet, "nothing is pushed after a refusal until Resume");
                if let Some(last) = self.last_push {
                    assert!(batch.counter <= last + 1, "pushes are contiguous");
                }
                self.last_push = Some(batch.counter);
            }
            _ => {}
        }
        self.up.push_back(bytes);
    }

    /// The device writes a batch.
    pub fn write(&mut self, kind: Kind) {
        let device = &mut self.device;
        device.written += 1;
        device.state.written += 1;
        let counter = device.state.written;
        device.outbox.push_back(batch(kind, device.written, counter));
    }

    /// The session is told of the last counter, if it is another than it was told last.
    pub fn news(&mut self) -> bool {
        let counter = self.device.state.written;
        if core::mem::replace(&mut self.device.told, counter) == counter {
            return false;
        }
        self.tell(Input::Written { workspace: workspace(), counter });
        true
    }

    /// The outbox is read as it is now.
    pub fn read(&mut self) -> bool {
        let Some(Output::ReadOutbox { after, max, workspace }) = self.device.reads.pop_front()
        else {
            return false;
        };
        let after = self.device.outbox.iter().filter(|batch| batch.counter > after);
        let batches = after.take(max).cloned().collect();
        self.device.outboxes.push_back(Input::Outbox { workspace, batches });
        true
    }

    /// The session hears what was read.
    pub fn hear_outbox(&mut self) -> bool {
        let answer = self.device.outboxes.pop_front();
        answer.map(|answer| self.tell(answer)).is_some()
    }

    /// The session hears what was stored.
    pub fn hear(&mut self) -> bool {
        let answer = self.device.answers.pop_front();
        answer.map(|answer| self.tell(answer)).is_some()
    }

    /// The device's store carries out its oldest request.
    pub fn store(&mut self) -> bool {
        let Some(request) = self.device.requests.pop_front() else { return false };
        let workspace = workspace();
        let answer = match request {
            Output::StoreAttached { attached, .. } => {
                self.device.state.epoch = Some(attached.epoch);
                self.device.take(attached.decisions);
                Input::AttachStored { workspace, state: self.device.state.clone() }
            }
            Output::StoreDecisions { decisions, .. } => {
                let refused = self.device.take(decisions);
                let WorkspaceState { decided, written, .. } = self.device.state;
                match refused {
                    None => Input::DecisionsStored { workspace, decided },
                    Some(refused) => Input::DeadLettered { workspace, refused, decided, written },
                }
            }
            Output::StoreChanges { page, .. } => {
                let state = &mut self.device.state;
                assert_eq!(page.from, state.received_to, "a page goes on where the last ended");
                state.received_to = page.to;
                state.cursor = page.consistent_at.unwrap_or(state.cursor);
                let (received_to, cursor) = (state.received_to, state.cursor);
                Input::ChangesStored { workspace, received_to, cursor, walk: None }
            }
            other => panic!("not a request: {other:?}"),
        };
        self.device.answers.push_back(answer);
        true
    }

    // ---- The link ------------------------------------------------------------------------

    /// The connection comes up, if the device asked for one.
    pub fn connect(&mut self) -> bool {
        if !core::mem::take(&mut self.connecting) {
            return false;
        }
        self.forget_connection();
        self.server.connection += 1;
        self.server.session = Some(AuthoritySession::new());
        self.inform(ToAuthority::Time);
        self.tell(Input::Connected);
        true
    }

    fn forget_connection(&mut self) {
        self.connecting = false;
        self.up.clear();
        self.down.clear();
        self.quiet = false;
        let server = &mut self.server;
        server.session = None;
        server.gates.clear();
        server.attaches.clear();
        (server.deciding, server.pages) = (0, 0);
    }

    /// The link breaks: what is on the way is lost.
    pub fn cut(&mut self) {
        let had = self.server.session.is_some() || self.connecting;
        self.forget_connection();
        if had {
            self.tell(Input::Disconnected { reason: "cut".into() });
        }
    }

    pub fn deliver_up(&mut self) -> bool {
        let Some(bytes) = self.up.pop_front() else { return false };
        if let Message::Received { attachment, .. } = from_bytes(&bytes).unwrap()
            && attachment == self.server.serving
        {
            self.server.pages -= 1;
        }
        self.inform(ToAuthority::Message(bytes));
        true
    }

    pub fn deliver_down(&mut self) -> bool {
        let Some(bytes) = self.down.pop_front() else { return false };
        match from_bytes::<Message>(&bytes).unwrap() {
            Message::Ack { attachment, decisions } if attachment == self.attachment => {
                let refused = |d: &Decided| matches!(d.decision, Decision::Refused { .. });
                self.quiet |= decisions.iter().any(refused);
            }
            Message::Notice(Notice::RetryAfter { attachment, counter, .. })
                if attachment == self.attachment =>
            {
                self.last_push = Some(counter - 1);
            }
            _ => {}
        }
        self.tell(Input::Message(bytes));
        true
    }

    /// Time passes on both sides.
    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        if self.device.wake_at.is_some_and(|at| at <= self.now) {
            self.device.wake_at = None;
            self.tell(Input::Time);
        }
        if self.server.wake_at.is_some_and(|at| at <= self.now) {
            self.server.wake_at = None;
            self.inform(ToAuthority::Time);
        }
    }

    // ---- The server ----------------------------------------------------------------------

    pub fn inform(&mut self, input: ToAuthority) {
        let Some(session) = &mut self.server.session else { return };
        session.input(self.now, input);
        let mut outputs = vec![];
        while let Some(output) = session.poll() {
            outputs.push(output);
        }
        outputs.into_iter().for_each(|output| self.carry_out(output));
    }

    fn carry_out(&mut self, output: FromAuthority) {
        let server = &mut self.server;
        let connection = server.connection;
        match output {
            FromAuthority::Send(bytes) => {
                if let Message::Changes(page) = from_bytes(&bytes).unwrap() {
                    assert_eq!(page.attachment, server.serving);
                    server.pages += 1;
                    assert!(server.pages <= MAX_PAGES_IN_FLIGHT as usize, "credit limits pages");
                }
                self.down.push_back(bytes);
            }
            FromAuthority::Authenticate { .. } => {
                let result = Ok(Principal { user: "ann".into() });
                let answer = ToAuthority::Authenticated { result, server_time_ms: 5 };
                server.answers.push_back((connection, answer));
            }
            FromAuthority::Attach { attach } => {
                server.gates.insert(attach.attachment, Rc::default());
                server.serving = attach.attachment;
                (server.deciding, server.pages) = (0, 0);
                server.attaches.push_back((connection, attach.attachment, attach.decided));
            }
            FromAuthority::Decide { attachment, batch } => {
                assert_eq!(attachment, server.serving);
                server.deciding += 1;
                assert!(server.deciding <= MAX_BATCHES_IN_FLIGHT, "batches in flight");
                let gate = Rc::clone(&server.gates[&attachment]);
                server.jobs.push_back(Job { connection, attachment, batch, gate });
            }
            FromAuthority::OpenGate { attachment } => server.gates[&attachment].set(false),
            FromAuthority::ReadHistory { .. } => panic!("no device of this world asks"),
            FromAuthority::ReadPage { from: PageFrom::Walk { .. }, .. } => {
                panic!("this world is too small for walks")
            }
            FromAuthority::ReadPage { attachment, from: PageFrom::Seq(after), .. } => {
                // Pages of two seqs, so that catching up takes several.
                let to = (after + 2).min(server.head);
                let consistent_at = (to == server.head).then_some(to);
                let page = Changes { attachment, from: after, to, consistent_at, entries: vec![] };
                server
                    .answers
                    .push_back((connection, ToAuthority::Page { attachment, page, horizon: 0 }));
            }
            FromAuthority::StoreSurvivors { attachment, is_last, .. } => {
                let stored = ToAuthority::SurvivorsStored { attachment, is_last };
                server.answers.push_back((connection, stored));
            }
            FromAuthority::Detached { .. } => {}
            FromAuthority::Close { .. } => self.cut_by_server(),
            FromAuthority::WakeAt(at) => server.wake_at = Some(at),
        }
    }

    /// The server closes: what it said last still arrives.
    fn cut_by_server(&mut self) {
        while self.deliver_down() {}
        self.cut();
    }

    /// The writer takes the oldest job; what it decides is durable at once.
    pub fn decide(&mut self) -> bool {
        let server = &mut self.server;
        if let Some((connection, attachment, decided)) = server.attaches.pop_front() {
            let after = server.decisions.iter().filter(|d| d.counter > decided).cloned();
            let attached = Attached {
                attachment,
                epoch: Epoch([9; 16]),
                lineage: vec![],
                schema: vec![],
                head: server.head,
                horizon: 0,
                role: server.role,
                reset: None,
                cover: [0; 16],
                last_counter: server.decisions.len() as u64,
                decisions: after.collect(),
            };
            let answer = ToAuthority::AttachAnswer { attachment, result: Ok(attached) };
            server.answers.push_back((connection, answer));
            return true;
        }
        let Some(job) = server.jobs.pop_front() else { return false };
        let (counter, batch_id) = (job.batch.counter, job.batch.batch_id);
        let answer = match job.gate.get() {
            true => PushAnswer::Ignored,
            false => server.judge(&job.batch),
        };
        let goes_on =
            matches!(answer, PushAnswer::Decided(Decision::Accepted { .. }) | PushAnswer::Ignored);
        job.gate.set(!goes_on || job.gate.get());
        let (attachment, head) = (job.attachment, server.head);
        let input = ToAuthority::Decided { attachment, counter, batch_id, answer };
        server.answers.push_back((job.connection, input));
        server
            .answers
            .push_back((job.connection, ToAuthority::Head { attachment, head, horizon: 0 }));
        true
    }

    /// The session hears the oldest answer, unless its connection is gone.
    pub fn answer(&mut self) -> bool {
        let Some((connection, input)) = self.server.answers.pop_front() else { return false };
        if connection == self.server.connection && self.server.session.is_some() {
            if let ToAuthority::Decided { attachment, .. } = &input
                && *attachment == self.server.serving
            {
                self.server.deciding -= 1;
            }
            self.inform(input);
        }
        true
    }

    /// Everything goes on until nothing happens any more.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let went_on = self.connect()
                | self.deliver_up()
                | self.decide()
                | self.answer()
                | self.deliver_down()
                | self.store()
                | self.hear()
                | self.read()
                | self.hear_outbox()
                | self.news();
            if went_on {
                continue;
            }
            match self.device.wake_at {
                Some(at) => self.pass(at.saturating_sub(self.now)),
                None => return,
            }
        }
        panic!("the sessions never come to rest");
    }

    /// What must hold whenever all is quiet.
    pub fn assert_all_is_decided(&self) {
        let (device, server) = (&self.device, &self.server);
        assert!(device.outbox.is_empty(), "left in the outbox: {:?}", device.outbox);
        assert_eq!(device.state.decided, device.state.written);
        assert_eq!(device.decided, server.decisions, "both sides know the same decisions");
        assert_eq!(device.state.cursor, server.head);
        assert_eq!(device.status, SyncStatus::Live { head: server.head });
        for (counter, decided) in (1..).zip(&server.decisions) {
            assert_eq!(decided.counter, counter, "decided in order, none twice");
            let accepted = matches!(decided.decision, Decision::Accepted { .. });
            assert!(!(accepted && device.dead.contains(&decided.batch_id)), "dead and accepted");
        }
        let mut ids: Vec<_> = server.decisions.iter().map(|d| d.batch_id).collect();
        ids.extend(device.dead.iter().filter(|id| Kind::of(**id) != Kind::Bad));
        ids.sort();
        let count = ids.len();
        ids.dedup();
        assert_eq!((ids.len(), count), (usize::from(device.written), usize::from(device.written)));
    }
}

impl Device {
    /// Stores decisions up to a refusal; answers its counter.
    fn take(&mut self, decisions: Vec<Decided>) -> Option<u64> {
        for decided in decisions {
            if decided.counter <= self.state.decided {
                continue;
            }
            let own = self.outbox.pop_front().unwrap();
            assert_eq!((own.counter, own.batch_id), (decided.counter, decided.batch_id));
            self.state.decided = decided.counter;
            let refused = matches!(decided.decision, Decision::Refused { .. });
            self.decided.push(decided);
            if refused {
                self.dead.push(own.batch_id);
                self.bury(own.counter);
                return Some(own.counter);
            }
        }
        None
    }

    /// The batch that follows a refused one goes with it, and the rest is renumbered.
    fn bury(&mut self, counter: u64) {
        if self.outbox.front().is_some_and(|next| Kind::of(next.batch_id) == Kind::Follows) {
            self.dead.extend(self.outbox.pop_front().map(|batch| batch.batch_id));
        }
        for (counter, batch) in (counter + 1..).zip(&mut self.outbox) {
            batch.counter = counter;
        }
        self.state.written = counter + self.outbox.len() as u64;
    }
}

impl Server {
    fn judge(&mut self, batch: &Batch) -> PushAnswer {
        if let Some(known) = self.decisions.iter().find(|d| d.batch_id == batch.batch_id) {
            return PushAnswer::Decided(known.decision.clone());
        }
        let expected = self.decisions.len() as u64 + 1;
        assert_eq!(batch.counter, expected, "a healthy device is never taken for a forked one");
        let kind = Kind::of(batch.batch_id);
        if kind == Kind::Later && !self.put_off.contains(&batch.batch_id) {
            self.put_off.push(batch.batch_id);
            return PushAnswer::NotNow { retry_ms: 3000, message: "later".into() };
        }
        let decision = match kind {
            Kind::Bad => {
                Decision::Refused { code: RefusalCode::Policy, message: "no".into(), time_ms: 1 }
            }
            _ => {
                self.head += 1;
                let verdicts = vec![Verdict::Applied { dropped: vec![] }];
                let (first_seq, last_seq) = (self.head, self.head);
                Decision::Accepted { first_seq, last_seq, time_ms: 1, verdicts }
            }
        };
        let (counter, batch_id) = (batch.counter, batch.batch_id);
        self.decisions.push(Decided { counter, batch_id, decision: decision.clone() });
        PushAnswer::Decided(decision)
    }
}
