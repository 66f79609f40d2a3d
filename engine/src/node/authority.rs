//! The authority's party: a store, and a session for each connection.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lastword_core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::limits::{MAX_PAGE_ENTRIES, WALK_FROM_SEQS};
use lastword_core::op::Batch;
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::authority::{
    AuthoritySession, Input, Output, PageFrom, Principal, PushAnswer,
};
use lastword_core::protocol::{Attach, AttachRefusal, Attached, FileMessage, ReadHistory, Role};
use lastword_core::schema::Schema;
use lastword_core::value::Record;
use lastword_store::apply::ApplyPayload;
use lastword_store::payload::StoreRole;
use lastword_store::{Disk, OpenReport, Options, Store, StoreError, View, read};

use super::lent::{Own, PartyFiles};
use crate::adopt;
use crate::attachments::{Attachments, Claim};
use crate::authority::{AttachRequest, Given, attach_now, delete_now};
use crate::devices;
use crate::erase::{self, Erased};
use crate::error::{Error, Result};
use crate::judge::House;
use crate::members::{self, MemberList};
use crate::open;
use crate::owned::{self, OwnedFields};
use crate::push_gate::{PushGate, Queued};
use crate::renew::{self, RestoredWorkspace};
use crate::survivors::{self, Offered, Survivor};
use crate::transfer::ServiceError;
use crate::versions;

/// A batch that could not be decided comes again after this, in milliseconds.
const NOT_NOW_MS: u64 = 5_000;

/// Who is who.
pub trait Users {
    /// The user of a token, or a sentence for the device.
    ///
    /// # Errors
    /// Why the token is not taken.
    fn authenticate(&self, token: &str) -> std::result::Result<String, String>;
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
    store: Own,
    files: PartyFiles,
    attachments: Attachments,
    connections: BTreeMap<u64, Connection>,
    jobs: VecDeque<Job>,
    /// What a new workspace gets.
    schema: Option<Schema>,
    /// Who may do what; without it everybody owns everything.
    members: Option<MemberList>,
    /// How many live records a workspace may have.
    max_records: Option<u64>,
    /// From how many seqs on a device that has nothing of a workspace gets it by a walk.
    walk_from: u64,
    /// Most rows in a page of a walk.
    walk_rows: usize,
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
    /// The role that the device was told of.
    role: Option<Role>,
    gate: PushGate,
}

enum Job {
    Admit(MemberList),
    Attach { connection: u64, workspace: WorkspaceName, request: AttachRequest },
    Decide { connection: u64, attachment: u64, workspace: WorkspaceName, batch: Box<Pending> },
    Keep { connection: u64, of: (u64, bool), workspace: WorkspaceName, offered: Offered },
}

struct Pending {
    counter: u64,
    batch_id: BatchId,
    queued: Queued,
}

/// What a job gives its connection.
enum Answer {
    Attached(u64, std::result::Result<Attached, (AttachRefusal, String)>),
    Decided { attachment: u64, counter: u64, batch_id: BatchId, answer: PushAnswer },
    Kept { attachment: u64, is_last: bool, result: Result<()> },
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
        let identity = read::identity(store.newest())?.ok_or(Error::Closed)?;
        let files = PartyFiles::new(&mut store, identity, report.clone());
        let (attachments, connections, jobs) = Default::default();
        let (schema, members, max_records) = Default::default();
        let (walk_from, walk_rows) = (WALK_FROM_SEQS, MAX_PAGE_ENTRIES);
        let store = Own::new(store);
        let node = Self {
            store,
            files,
            attachments,
            connections,
            jobs,
            schema,
            members,
            max_records,
            walk_from,
            walk_rows,
        };
        Ok((node, report))
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

    /// From here on these are the members, in the order of what is queued; see
    /// [`crate::Authority::admit`].
    pub fn admit(&mut self, list: MemberList) {
        self.jobs.push_back(Job::Admit(list));
    }

    /// Devices that have nothing of a workspace get it by a walk, however small it is, in pages of
    /// so many rows.
    pub fn walk_in_pages_of(&mut self, rows: usize) {
        (self.walk_from, self.walk_rows) = (1, rows.max(1));
    }

    /// See [`crate::Authority::limit_records`].
    pub fn limit_records(&mut self, max_records: u64) {
        self.max_records = Some(max_records);
    }

    /// See [`crate::Authority::limit_files`].
    pub fn limit_files(&self, max_file_bytes: u64, max_bytes: u64) {
        self.files.authority().limit_files(max_file_bytes, max_bytes);
    }

    /// Answers a message on a connection of `user` that carries files, as a server does; `reply` is
    /// false if nobody takes what it is given. Everyone hears of what it made durable with the next
    /// step.
    ///
    /// # Errors
    /// [`ServiceError`]: the connection is to be closed.
    pub fn file_message(
        &mut self,
        connection: (u64, &str),
        message: FileMessage,
        reply: &mut dyn FnMut(FileMessage) -> bool,
        wall_ms: i64,
    ) -> std::result::Result<(), ServiceError> {
        self.files.take(&mut self.store, connection, (message, wall_ms), reply)
    }

    /// A connection that carried files is gone.
    pub fn end_files(&mut self, connection: u64) {
        self.files.end(&mut self.store, connection);
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
    pub fn connect(&mut self, connection: u64, now_ms: u64, users: &dyn Users, wall_ms: i64) {
        let new = Connection {
            session: AuthoritySession::new().walking_from(self.walk_from),
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
        self.drain(now_ms, users, wall_ms);
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
        users: &dyn Users,
        wall_ms: i64,
    ) {
        self.input(connection, now_ms, Input::Message(bytes));
        self.drain(now_ms, users, wall_ms);
    }

    /// Time has passed: connections that asked to be woken hear of it.
    pub fn time(&mut self, now_ms: u64, users: &dyn Users, wall_ms: i64) {
        let due = |connection: &Connection| connection.wake_at.is_some_and(|at| at <= now_ms);
        let woken: Vec<u64> =
            self.connections.iter().filter(|(_, c)| due(c)).map(|(number, _)| *number).collect();
        for number in woken {
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.wake_at = None;
            }
            self.input(number, now_ms, Input::Time);
        }
        self.drain(now_ms, users, wall_ms);
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
        users: &dyn Users,
        wall_ms: i64,
        new_epoch: Epoch,
    ) -> Result<()> {
        let (mut answers, mut admits) = (Vec::new(), false);
        for job in std::mem::take(&mut self.jobs) {
            admits |= matches!(job, Job::Admit(_));
            answers.extend(self.run(job, wall_ms, new_epoch)?);
        }
        if !planted(Plant::AnswerBeforeSync) {
            self.store.commit()?;
        }
        for (connection, answer) in answers {
            self.give(connection, now_ms, answer);
        }
        if admits {
            self.tell_roles(now_ms)?;
        }
        self.tell_heads(now_ms);
        self.drain(now_ms, users, wall_ms);
        Ok(())
    }

    fn run(&mut self, job: Job, wall_ms: i64, epoch: Epoch) -> Result<Option<(u64, Answer)>> {
        Ok(Some(match job {
            Job::Admit(list) => {
                members::admit_now(&mut self.store, &list, wall_ms)?;
                self.files.authority().admitted(list.clone());
                self.members = Some(list);
                return Ok(None);
            }
            Job::Attach { connection, workspace, request } => {
                let attachment = request.attachment;
                let (schema, members) = (self.schema.as_ref(), self.members.as_ref());
                let given = Given { epoch, schema, members };
                let result = attach_now(&mut self.store, &workspace, &request, &given, wall_ms);
                let result = result.map_err(|error| (error.refuses_attach(), error.to_string()));
                (connection, Answer::Attached(attachment, result))
            }
            Job::Decide { connection, attachment, workspace, batch } => {
                let Pending { counter, batch_id, queued } = *batch;
                let (members, max_records) = (self.members.as_ref(), self.max_records);
                let house = House { members, max_records, policy: None };
                let answer = queued.decide(&mut self.store, &workspace, &house, wall_ms);
                let answer = answer.unwrap_or_else(|error| PushAnswer::NotNow {
                    retry_ms: NOT_NOW_MS,
                    message: error.to_string(),
                });
                (connection, Answer::Decided { attachment, counter, batch_id, answer })
            }
            Job::Keep { connection, of: (attachment, is_last), workspace, offered } => {
                let (store, members) = (&mut self.store, self.members.as_ref());
                let result = survivors::keep(store, &workspace, offered, members, wall_ms);
                (connection, Answer::Kept { attachment, is_last, result })
            }
        }))
    }

    fn give(&mut self, connection: u64, now_ms: u64, answer: Answer) {
        let input = match answer {
            Answer::Attached(attachment, result) => {
                let known = self.connections.get_mut(&connection);
                if let (Ok(attached), Some(known)) = (&result, known)
                    && let Some(served) = known.attached.get_mut(&attachment)
                {
                    served.told = (attached.head, attached.horizon);
                    served.role = Some(attached.role);
                }
                Input::AttachAnswer { attachment, result }
            }
            Answer::Decided { attachment, counter, batch_id, answer } => {
                Input::Decided { attachment, counter, batch_id, answer }
            }
            Answer::Kept { attachment, is_last, result: Ok(()) } => {
                Input::SurvivorsStored { attachment, is_last }
            }
            Answer::Kept { attachment, result: Err(error), .. } => {
                let (code, message) = (AttachRefusal::Unavailable, error.to_string());
                Input::Evict { attachment, code, message }
            }
        };
        self.input(connection, now_ms, input);
    }

    /// Ends the attachments whose user has another role now, or none.
    fn tell_roles(&mut self, now_ms: u64) -> Result<()> {
        let view = self.store.view();
        let mut inputs = Vec::new();
        for (number, connection) in &self.connections {
            let Some(user) = &connection.user else { continue };
            for (attachment, served) in &connection.attached {
                let Some(told) = served.role else { continue };
                let (list, told) = (self.members.as_ref(), (*attachment, told));
                let ended = members::ended(&*view, list, &served.workspace, user, told)?;
                inputs.extend(ended.map(|input| (*number, input)));
            }
        }
        for (number, input) in inputs {
            self.input(number, now_ms, input);
        }
        Ok(())
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
    fn drain(&mut self, now_ms: u64, users: &dyn Users, wall_ms: i64) {
        let numbers: Vec<u64> = self.connections.keys().copied().collect();
        for number in numbers {
            while let Some(output) =
                self.connections.get_mut(&number).and_then(|known| known.session.poll())
            {
                self.carry_out(number, now_ms, users, wall_ms, output);
            }
        }
    }

    fn carry_out(
        &mut self,
        number: u64,
        now_ms: u64,
        users: &dyn Users,
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
                let answer = users.authenticate(&hello.token);
                (known.device, known.app_schema) = (Some(hello.device), hello.app_schema);
                known.user = answer.clone().ok();
                let result = answer.map(|user| Principal { user });
                let server_time_ms = wall_ms;
                self.input(number, now_ms, Input::Authenticated { result, server_time_ms });
            }
            Output::Attach { attach } => {
                let attachment = attach.attachment;
                if let Err(refusal) = self.attach(number, now_ms, attach) {
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
            Output::StoreSurvivors { attachment, workspace, device, entries, is_last } => {
                let user = known.user.clone().unwrap_or_default();
                let (connection, of) = (number, (attachment, is_last));
                let offered = Offered { user, device, entries };
                self.jobs.push_back(Job::Keep { connection, of, workspace, offered });
            }
            Output::ReadHistory { workspace, asked } => {
                let user = known.user.clone().unwrap_or_default();
                self.tell_history(number, now_ms, &user, (&workspace, &asked));
            }
            Output::ReadPage { attachment, workspace, from } => {
                let user = known.user.clone().unwrap_or_default();
                let input = self.page(&user, attachment, &workspace, from);
                self.input(number, now_ms, input);
            }
        }
    }

    fn page(
        &self,
        user: &str,
        attachment: u64,
        workspace: &WorkspaceName,
        from: PageFrom,
    ) -> Input {
        let (view, members) = (self.store.view(), self.members.as_ref());
        match members::page(&view, members, workspace, user, (attachment, from)) {
            Ok(input) => self.shortened(input),
            Err(error) => {
                let (code, message) = (AttachRefusal::Unavailable, error.to_string());
                Input::Evict { attachment, code, message }
            }
        }
    }

    fn shortened(&self, input: Input) -> Input {
        let Input::Walk { mut page, mut looked_to, head, horizon } = input else { return input };
        if page.entries.len() > self.walk_rows {
            page.entries.truncate(self.walk_rows);
            page.is_last = false;
            looked_to = page.place().map(|place| (place.table, place.key));
        }
        Input::Walk { page, looked_to, head, horizon }
    }

    fn tell_history(
        &mut self,
        number: u64,
        now_ms: u64,
        user: &str,
        (workspace, asked): (&WorkspaceName, &ReadHistory),
    ) {
        let (log, view) = (self.store.view_handle(), self.store.view());
        let told = versions::answer(&log, &view, self.members.as_ref(), (workspace, user), asked);
        let input = told.unwrap_or_else(|error| Input::Evict {
            attachment: asked.attachment,
            code: AttachRefusal::Unavailable,
            message: error.to_string(),
        });
        self.input(number, now_ms, input);
    }

    fn attach(
        &mut self,
        number: u64,
        now_ms: u64,
        attach: Attach,
    ) -> std::result::Result<(), (AttachRefusal, String)> {
        let Attach { attachment, nonce, .. } = attach;
        let workspace = attach.workspace.clone();
        let Some(known) = self.connections.get(&number) else { return Ok(()) };
        let forbidden = |message: String| (AttachRefusal::Forbidden, message);
        let (Some(user), Some(device)) = (known.user.clone(), known.device) else {
            return Err(forbidden("not authenticated".into()));
        };
        let unavailable = |error: Error| (AttachRefusal::Unavailable, error.to_string());
        let view = self.store.view();
        let role = members::role(&*view, self.members.as_ref(), &workspace, &user);
        if workspace.is_reserved() || role.map_err(unavailable)?.is_none() {
            return Err(forbidden(Error::NoMember { workspace, user }.to_string()));
        }
        let owner = devices::owner(&*view, &workspace, device).map_err(unavailable)?;
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
        let served =
            Served { workspace: workspace.clone(), told: (u64::MAX, u64::MAX), role: None, gate };
        if let Some(known) = self.connections.get_mut(&number) {
            known.attached.insert(attachment, served);
        }
        let request = AttachRequest::of(&attach, device, user);
        self.jobs.push_back(Job::Attach { connection: number, workspace, request });
        Ok(())
    }

    fn release(&mut self, connection: u64, device: Option<DeviceId>, workspace: &WorkspaceName) {
        if let Some(device) = device {
            self.attachments.release(workspace, device, connection);
        }
    }

    /// Deletes a workspace, durably, and tells everyone.
    ///
    /// # Errors
    /// Those of [`crate::Authority::delete_workspace`].
    pub fn delete_workspace(
        &mut self,
        workspace: &WorkspaceName,
        now_ms: u64,
        wall_ms: i64,
    ) -> Result<u64> {
        let rows = delete_now(&mut self.store, workspace.clone(), wall_ms)?;
        self.store.commit()?;
        self.tell_roles(now_ms)?;
        Ok(rows)
    }

    /// Erases a record, durably; everyone hears of it with the next step.
    ///
    /// # Errors
    /// Those of [`crate::Authority::erase`].
    pub fn erase(
        &mut self,
        workspace: &WorkspaceName,
        name: (&TableName, &Key),
        wall_ms: i64,
    ) -> Result<Erased> {
        let erased = erase::erase_now(&mut self.store, workspace, name, wall_ms)?;
        self.store.commit()?;
        Ok(erased)
    }

    /// What devices brought back of what a workspace lost when it was restored.
    ///
    /// # Errors
    /// Those of [`crate::Authority::survivors`].
    pub fn survivors(&self, workspace: &WorkspaceName) -> Result<Vec<Survivor>> {
        survivors::plan(&*self.store.view(), workspace)
    }

    /// Writes it back under batch ids from `batch_ids`, durably; everyone hears of it with the next
    /// step.
    ///
    /// # Errors
    /// Those of [`crate::Authority::recover`].
    pub fn recover(
        &mut self,
        workspace: &WorkspaceName,
        mut batch_ids: impl FnMut() -> BatchId,
        wall_ms: i64,
    ) -> Result<Vec<Survivor>> {
        let planned = self.survivors(workspace)?;
        let (mut left, mut all) = (planned.as_slice(), Vec::new());
        while !left.is_empty() {
            let (store, batch_id) = (&mut self.store, batch_ids());
            let (looked_at, done) =
                survivors::recover_some(store, workspace, left, batch_id, wall_ms)?;
            let keys = survivors::files_of(&done);
            owned::set_stored_of(store, workspace, &keys, wall_ms);
            self.store.commit()?;
            left = left.get(looked_at..).unwrap_or_default();
            all.extend(done);
        }
        Ok(all)
    }

    /// Begins another history in every workspace, durably: the store is that of a backup, and what
    /// devices have seen of the original since is lost. Each history gets its epoch from `epoch`.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn renew(
        &mut self,
        wall_ms: i64,
        epoch: &mut dyn FnMut() -> Epoch,
    ) -> Result<Vec<RestoredWorkspace>> {
        let renewed = renew::workspaces_under(&mut self.store, wall_ms, epoch)?;
        self.store.commit()?;
        Ok(renewed)
    }

    /// Closes the store cleanly.
    ///
    /// # Errors
    /// [`StoreError`] if the last sync fails.
    pub fn close(self) -> std::result::Result<(), StoreError> {
        self.store.give().map_or(Ok(()), Store::close)
    }
}
