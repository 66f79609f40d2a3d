//! The authority's party: a store, and a session for each connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lastword_core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::op::Batch;
use lastword_core::protocol::authority::{AuthoritySession, Input, Output, Principal, PushAnswer};
use lastword_core::protocol::{Attach, AttachRefusal, Attached, Changes, Role};
use lastword_core::schema::Schema;
use lastword_core::value::Record;
use lastword_store::apply::ApplyPayload;
use lastword_store::payload::StoreRole;
use lastword_store::{Disk, OpenReport, Options, Store, StoreError, View, read};

use crate::adopt;
use crate::attachments::{Attachments, Claim};
use crate::authority::{AttachRequest, PushGate, Queued, attach_now};
use crate::devices;
use crate::error::{Error, Result};
use crate::open;
use crate::owned::{self, OwnedFields};

/// A batch that could not be decided comes again after this, in milliseconds.
const NOT_NOW_MS: u64 = 5_000;

/// Who may do what.
pub trait Members {
    /// The user of a token, or a sentence for the device.
    ///
    /// # Errors
    /// Why the token is not taken.
    fn authenticate(&self, token: &str) -> std::result::Result<String, String>;

    /// The role of a user in a workspace; none for a stranger.
    fn role(&self, user: &str, workspace: &WorkspaceName) -> Option<Role>;
}

/// What goes to one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// One message.
    Message(Vec<u8>),
    /// The connection closes.
    Close {
        /// WebSocket close code.
        code: u16,
        /// For people.
        reason: String,
    },
}

/// A store in the role of the authority, with its connections.
pub struct AuthorityNode {
    store: Store,
    attachments: Attachments,
    connections: BTreeMap<u64, Connection>,
    jobs: VecDeque<Job>,
    /// What a new workspace gets.
    schema: Option<Schema>,
}

struct Connection {
    session: AuthoritySession,
    user: Option<String>,
    device: Option<DeviceId>,
    /// Schema number of the app, 0 = none.
    app_schema: u64,
    attached: BTreeMap<u64, Served>,
    outgoing: VecDeque<Outgoing>,
    wake_at: Option<u64>,
    closed: bool,
}

struct Served {
    workspace: WorkspaceName,
    /// The head and horizon that the session was told of.
    told: (u64, u64),
    gate: PushGate,
}

enum Job {
    Attach { connection: u64, workspace: WorkspaceName, request: AttachRequest },
    Decide { connection: u64, attachment: u64, workspace: WorkspaceName, batch: Box<Pending> },
}

struct Pending {
    counter: u64,
    batch_id: BatchId,
    queued: Queued,
}

/// What a job gives its connection.
enum Given {
    Attached(u64, std::result::Result<Attached, (AttachRefusal, String)>),
    Decided { attachment: u64, counter: u64, batch_id: BatchId, answer: PushAnswer },
}

impl AuthorityNode {
    /// Opens or creates the store on `disk`; `wall_ms` is when it is introduced, if it is new.
    ///
    /// # Errors
    /// [`Error::Store`] if it is damaged or the disk fails.
    pub fn open(disk: Arc<dyn Disk>, options: Options, wall_ms: i64) -> Result<(Self, OpenReport)> {
        let apply = Arc::new(ApplyPayload::default());
        let (mut store, report) = Store::open(disk, options, apply)?;
        if read::identity(store.newest())?.is_none() {
            open::introduce(&mut store, StoreRole::Authority, DeviceId::AUTHORITY, wall_ms)?;
        }
        let (attachments, connections, jobs) = Default::default();
        let schema = None;
        Ok((Self { store, attachments, connections, jobs, schema }, report))
    }

    /// Gives every workspace this schema, those to come too, before devices attach; see
    /// [`crate::Authority::adopt`].
    ///
    /// # Errors
    /// [`Error::Schema`] names workspace, table and rule; then no workspace has it.
    /// [`Error::Store`] if the disk fails.
    pub fn adopt(&mut self, schema: Schema) -> Result<()> {
        adopt::adopt_now(&mut self.store, &schema)?;
        self.schema = Some(schema);
        Ok(())
    }

    /// Sets fields that the server owns, durable with the next [`Self::step`]; see
    /// [`crate::Authority::set_owned`].
    ///
    /// # Errors
    /// As there.
    pub fn set_owned(
        &mut self,
        workspace: &WorkspaceName,
        (table, key): (&TableName, &Key),
        set: Record,
        remove: Vec<String>,
        wall_ms: i64,
    ) -> Result<u64> {
        let (name, fields) = ((table.clone(), key.clone()), OwnedFields { set, remove });
        owned::set_now(&mut self.store, workspace, &name, fields, wall_ms)
    }

    /// Its store, for what is done beside commits: checkpoints, folds, purges.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// The view that pages are read from: every decision in it was told before.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.store.view()
    }

    /// A connection was accepted.
    pub fn connect(&mut self, connection: u64, now_ms: u64, members: &dyn Members, wall_ms: i64) {
        let new = Connection {
            session: AuthoritySession::new(),
            user: None,
            device: None,
            app_schema: 0,
            attached: BTreeMap::new(),
            outgoing: VecDeque::new(),
            wake_at: None,
            closed: false,
        };
        self.connections.insert(connection, new);
        self.input(connection, now_ms, Input::Time);
        self.drain(now_ms, members, wall_ms);
    }

    /// A connection is gone.
    pub fn disconnect(&mut self, connection: u64) {
        if let Some(gone) = self.connections.remove(&connection) {
            for served in gone.attached.values() {
                self.release(connection, gone.device, &served.workspace);
            }
        }
    }

    /// A message came on a connection.
    pub fn message(
        &mut self,
        connection: u64,
        bytes: Vec<u8>,
        now_ms: u64,
        members: &dyn Members,
        wall_ms: i64,
    ) {
        self.input(connection, now_ms, Input::Message(bytes));
        self.drain(now_ms, members, wall_ms);
    }

    /// Time has passed: connections that asked to be woken hear of it.
    pub fn time(&mut self, now_ms: u64, members: &dyn Members, wall_ms: i64) {
        let due = |connection: &Connection| connection.wake_at.is_some_and(|at| at <= now_ms);
        let woken: Vec<u64> =
            self.connections.iter().filter(|(_, c)| due(c)).map(|(number, _)| *number).collect();
        for number in woken {
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.wake_at = None;
            }
            self.input(number, now_ms, Input::Time);
        }
        self.drain(now_ms, members, wall_ms);
    }

    /// The next thing for a connection; after a `Close` there is nothing more.
    pub fn outgoing(&mut self, connection: u64) -> Option<Outgoing> {
        self.connections.get_mut(&connection)?.outgoing.pop_front()
    }

    /// Whether a group has something to do.
    #[must_use]
    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// One group: what is queued is decided in order and synced once, then everyone hears of it.
    /// `new_epoch` is for a workspace that is made by it.
    ///
    /// # Errors
    /// [`Error::Store`] if the sync failed: nobody was told anything, and the store has to be
    /// opened again.
    pub fn step(
        &mut self,
        now_ms: u64,
        members: &dyn Members,
        wall_ms: i64,
        new_epoch: Epoch,
    ) -> Result<()> {
        let mut given = Vec::new();
        for job in std::mem::take(&mut self.jobs) {
            given.push(self.run(job, wall_ms, new_epoch));
        }
        self.store.commit()?;
        for (connection, given) in given {
            self.give(connection, now_ms, given);
        }
        self.tell_heads(now_ms);
        self.drain(now_ms, members, wall_ms);
        Ok(())
    }

    fn run(&mut self, job: Job, wall_ms: i64, new_epoch: Epoch) -> (u64, Given) {
        match job {
            Job::Attach { connection, workspace, request } => {
                let attachment = request.attachment;
                let result = attach_now(
                    &mut self.store,
                    &workspace,
                    &request,
                    new_epoch,
                    self.schema.as_ref(),
                );
                let result = result.map_err(|error| match error {
                    Error::ForeignDevice { .. } => (AttachRefusal::Forbidden, error.to_string()),
                    error => (AttachRefusal::Unavailable, error.to_string()),
                });
                (connection, Given::Attached(attachment, result))
            }
            Job::Decide { connection, attachment, workspace, batch } => {
                let Pending { counter, batch_id, queued } = *batch;
                let answer = queued.decide(&mut self.store, &workspace, wall_ms);
                let answer = answer.unwrap_or_else(|error| PushAnswer::NotNow {
                    retry_ms: NOT_NOW_MS,
                    message: error.to_string(),
                });
                (connection, Given::Decided { attachment, counter, batch_id, answer })
            }
        }
    }

    fn give(&mut self, connection: u64, now_ms: u64, given: Given) {
        let input = match given {
            Given::Attached(attachment, result) => {
                let known = self.connections.get_mut(&connection);
                if let (Ok(attached), Some(known)) = (&result, known)
                    && let Some(served) = known.attached.get_mut(&attachment)
                {
                    served.told = (attached.head, attached.horizon);
                }
                Input::AttachAnswer { attachment, result }
            }
            Given::Decided { attachment, counter, batch_id, answer } => {
                Input::Decided { attachment, counter, batch_id, answer }
            }
        };
        self.input(connection, now_ms, input);
    }

    fn tell_heads(&mut self, now_ms: u64) {
        let (view, mut moved) = (self.store.view(), Vec::new());
        for (number, connection) in &mut self.connections {
            for (attachment, served) in &mut connection.attached {
                let now = match read::meta(&*view, &served.workspace) {
                    Ok(meta) => (meta.head, meta.horizon),
                    Err(error) => {
                        tracing::error!(%error, "cannot read the head of a workspace");
                        continue;
                    }
                };
                if now.0 > served.told.0 || now.1 > served.told.1 {
                    served.told = now;
                    moved.push((*number, *attachment, now));
                }
            }
        }
        for (number, attachment, (head, horizon)) in moved {
            self.input(number, now_ms, Input::Head { attachment, head, horizon });
        }
    }

    fn input(&mut self, connection: u64, now_ms: u64, input: Input) {
        if let Some(known) = self.connections.get_mut(&connection).filter(|known| !known.closed) {
            known.session.input(now_ms, input);
        }
    }

    /// Carries out what sessions want until none wants anything.
    fn drain(&mut self, now_ms: u64, members: &dyn Members, wall_ms: i64) {
        let numbers: Vec<u64> = self.connections.keys().copied().collect();
        for number in numbers {
            while let Some(output) =
                self.connections.get_mut(&number).and_then(|known| known.session.poll())
            {
                self.carry_out(number, now_ms, members, wall_ms, output);
            }
        }
    }

    fn carry_out(
        &mut self,
        number: u64,
        now_ms: u64,
        members: &dyn Members,
        wall_ms: i64,
        output: Output,
    ) {
        let Some(known) = self.connections.get_mut(&number) else { return };
        match output {
            Output::Send(bytes) => known.outgoing.push_back(Outgoing::Message(bytes)),
            Output::Close { code, reason } => {
                known.closed = true;
                known.outgoing.push_back(Outgoing::Close { code, reason });
            }
            Output::WakeAt(at) => known.wake_at = Some(known.wake_at.map_or(at, |w| w.min(at))),
            Output::Authenticate { hello } => {
                let answer = members.authenticate(&hello.token);
                (known.device, known.app_schema) = (Some(hello.device), hello.app_schema);
                known.user = answer.clone().ok();
                let result = answer.map(|user| Principal { user });
                let server_time_ms = wall_ms;
                self.input(number, now_ms, Input::Authenticated { result, server_time_ms });
            }
            Output::Attach { attach } => {
                let attachment = attach.attachment;
                if let Err(refusal) = self.attach(number, now_ms, members, attach) {
                    let result = Err(refusal);
                    self.input(number, now_ms, Input::AttachAnswer { attachment, result });
                }
            }
            Output::Detached { attachment } => {
                let device = known.device;
                if let Some(served) = known.attached.remove(&attachment) {
                    self.release(number, device, &served.workspace);
                }
            }
            Output::Decide { attachment, batch } => {
                let (Some(served), Some(user)) = (known.attached.get(&attachment), &known.user)
                else {
                    return;
                };
                let (connection, workspace) = (number, served.workspace.clone());
                let Batch { counter, batch_id, .. } = batch;
                let queued = Queued::new(user.clone(), batch, served.gate.clone());
                let batch = Box::new(Pending { counter, batch_id, queued });
                self.jobs.push_back(Job::Decide { connection, attachment, workspace, batch });
            }
            Output::OpenGate { attachment } => {
                if let Some(served) = known.attached.get(&attachment) {
                    served.gate.open();
                }
            }
            Output::ReadPage { attachment, workspace, after } => {
                let user = known.user.clone().unwrap_or_default();
                let input = self.page(attachment, &workspace, after, &user);
                self.input(number, now_ms, input);
            }
        }
    }

    fn page(&self, attachment: u64, workspace: &WorkspaceName, after: u64, user: &str) -> Input {
        match read::changes(&*self.store.view(), workspace, after, user) {
            Ok(read::ChangesPage { to, consistent_at, entries, horizon }) => {
                let page = Changes { attachment, from: after, to, consistent_at, entries };
                Input::Page { attachment, page, horizon }
            }
            Err(error) => {
                let (code, message) = (AttachRefusal::Unavailable, error.to_string());
                Input::Evict { attachment, code, message }
            }
        }
    }

    fn attach(
        &mut self,
        number: u64,
        now_ms: u64,
        members: &dyn Members,
        attach: Attach,
    ) -> std::result::Result<(), (AttachRefusal, String)> {
        let Attach { attachment, nonce, .. } = attach;
        let workspace = attach.workspace.clone();
        let Some(known) = self.connections.get(&number) else { return Ok(()) };
        let forbidden = |message: String| (AttachRefusal::Forbidden, message);
        let (Some(user), Some(device)) = (known.user.clone(), known.device) else {
            return Err(forbidden("not authenticated".into()));
        };
        let role = members.role(&user, &workspace).filter(|_| !workspace.is_reserved());
        let Some(role) = role else {
            return Err(forbidden(format!("user {user} is no member of workspace {workspace}")));
        };
        let owner = devices::owner(&*self.store.view(), &workspace, device)
            .map_err(|error| (AttachRefusal::Unavailable, error.to_string()))?;
        if owner.is_some_and(|owner| owner != user) {
            return Err(forbidden(Error::ForeignDevice { device }.to_string()));
        }
        let gate = PushGate::of_app(known.app_schema);
        let claim = Claim { connection: number, attachment, nonce, gate: gate.clone() };
        let fenced = self.attachments.claim(&workspace, device, claim).map_err(|code| {
            let message = match code {
                AttachRefusal::Fenced => "this device has attached again since".to_owned(),
                _ => format!("device {device} is used by two stores"),
            };
            (code, message)
        })?;
        if let Some(fenced) = fenced
            && let Some(old) = self.connections.get_mut(&fenced.connection)
        {
            let (code, attachment) = (AttachRefusal::Fenced, fenced.attachment);
            let message = "another connection of this device took over".into();
            old.session.input(now_ms, Input::Evict { attachment, code, message });
        }
        // Until the answer is there, the head counts as told.
        let served = Served { workspace: workspace.clone(), told: (u64::MAX, u64::MAX), gate };
        if let Some(known) = self.connections.get_mut(&number) {
            known.attached.insert(attachment, served);
        }
        let request = AttachRequest::of(&attach, device, user, role);
        self.jobs.push_back(Job::Attach { connection: number, workspace, request });
        Ok(())
    }

    fn release(&mut self, connection: u64, device: Option<DeviceId>, workspace: &WorkspaceName) {
        if let Some(device) = device {
            self.attachments.release(workspace, device, connection);
        }
    }

    /// Closes the store cleanly.
    ///
    /// # Errors
    /// [`StoreError`] if the last sync fails.
    pub fn close(self) -> std::result::Result<(), StoreError> {
        self.store.close()
    }
}
