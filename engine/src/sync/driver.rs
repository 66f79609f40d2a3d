//! The driver: one thread, one socket, one session. Feed one input, drain all outputs, wait.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lastword_core::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use lastword_core::protocol::replica::{
    Config, Input, Output, ReplicaSession, StopReason, SyncStatus,
};
use lastword_core::protocol::{Decided, Entry, History};
use lastword_core::stamp::{Decision, Verdict};
use lastword_store::{Store, read};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::Remote;
use super::board::Board;
use super::socket::{Connecting, Link, connect};
use crate::database::Database;
use crate::environment::{now_ms, random};
use crate::error::{Error, Result};
use crate::hook::{self, Failed};
use crate::live::lock;
use crate::lost;
use crate::raise::{self, Unable};
use crate::replicator::{self, Stored};
use crate::survivors;

/// A silent connection is asked for a sign of life this often.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A connection that is silent this long is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// What the handle and the writer thread tell the driver.
pub(super) enum Command {
    Attach(WorkspaceName),
    /// To be told once it is done.
    Detach(WorkspaceName, SyncSender<()>),
    Ask(Asked),
    Answer(Input),
    Failed(Error),
    Stop,
}

/// A question about the history of a record.
pub(super) struct Asked {
    pub(super) workspace: WorkspaceName,
    pub(super) record: (TableName, Key),
    pub(super) before: u64,
    /// None if nobody can be asked now.
    pub(super) answer: SyncSender<Option<History>>,
}

pub(super) fn spawn(
    db: Database,
    remote: Remote,
    board: Arc<Board>,
    commands: mpsc::UnboundedSender<Command>,
    received: mpsc::UnboundedReceiver<Command>,
) -> Result<std::thread::JoinHandle<()>> {
    let no_thread = |error: std::io::Error| Error::Thread { reason: error.to_string() };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
    std::thread::Builder::new()
        .name("lastword sync".into())
        .spawn(move || {
            // Also if it panics: nobody may wait for a driver that is gone.
            let _ending = Ending(Arc::clone(&board));
            let nonce = nonce(&db);
            let driver = Driver::new(db, remote, board, commands, nonce);
            runtime.block_on(driver.run(received));
            // A name that is still being looked up must not hold whoever drops the handle.
            runtime.shutdown_background();
        })
        .map_err(no_thread)
}

/// By what the server tells this process from one that has a copy of the directory.
fn nonce(db: &Database) -> Result<[u8; 16]> {
    let mut drawn = lock(&db.inner.nonce);
    let nonce = match *drawn {
        Some(nonce) => nonce,
        None => db.inner.writer.run(|store| replicator::nonce(store, random()))?,
    };
    *drawn = Some(nonce);
    Ok(nonce)
}

/// About how many bytes a page takes.
struct Ending(Arc<Board>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(Error::Closed, &SyncStatus::Idle);
    }
}

struct Driver {
    db: Database,
    remote: Remote,
    board: Arc<Board>,
    commands: mpsc::UnboundedSender<Command>,
    session: ReplicaSession,
    /// The device that the session says it is.
    device: DeviceId,
    started: Instant,
    link: Option<Link>,
    connecting: Option<Connecting>,
    wake_at: Option<u64>,
    /// Last counter of each attached workspace that the session was told of.
    told: BTreeMap<WorkspaceName, u64>,
    seen_position: u64,
    /// Decisions that the writer has not stored yet.
    verdicts: BTreeMap<WorkspaceName, Arc<Mutex<Vec<Decided>>>>,
    /// Why each workspace cannot sync, as hooks were told.
    unable: Unable,
    /// Who waits for which answer, and the number of the next question.
    asked: BTreeMap<u64, SyncSender<Option<History>>>,
    next_question: u64,
    heard: Instant,
    pinged: Instant,
    /// Why the store failed before it began.
    failed: Option<Error>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // How they stood in the end stays on the board.
        let attached: Vec<WorkspaceName> = self.told.keys().cloned().collect();
        attached.iter().for_each(|workspace| self.let_go(workspace));
    }
}

enum Turn {
    Go,
    Stop,
}

impl Driver {
    fn new(
        db: Database,
        remote: Remote,
        board: Arc<Board>,
        commands: mpsc::UnboundedSender<Command>,
        nonce: Result<[u8; 16]>,
    ) -> Self {
        let (nonce, failed) = match nonce {
            Ok(nonce) => (nonce, None),
            Err(error) => ([0; 16], Some(error)),
        };
        let device = db.device();
        let config = Config {
            device,
            nonce,
            attachments_after: db.inner.connects.fetch_add(1, Ordering::Relaxed) << 32,
            app_schema: db.inner.app_schema,
            agent: concat!("lastword/", env!("CARGO_PKG_VERSION")).into(),
            seed: u64::from_le_bytes(random()),
        };
        let now = Instant::now();
        Self {
            db,
            remote,
            board,
            commands,
            session: ReplicaSession::new(config),
            device,
            started: now,
            link: None,
            connecting: None,
            wake_at: None,
            told: BTreeMap::new(),
            seen_position: 0,
            verdicts: BTreeMap::new(),
            unable: Unable::default(),
            asked: BTreeMap::new(),
            next_question: 1,
            heard: now,
            pinged: now,
            failed,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn input(&mut self, input: Input) {
        let now_ms = self.now_ms();
        self.session.input(now_ms, input);
    }

    async fn run(mut self, mut received: mpsc::UnboundedReceiver<Command>) {
        if let Some(error) = self.failed.take() {
            return self.give_up(error);
        }
        self.input(Input::Start);
        loop {
            if let Err(error) = self.drain().await {
                return self.give_up(error);
            }
            match self.wait(&mut received).await {
                Ok(Turn::Go) => {}
                Ok(Turn::Stop) => {
                    self.input(Input::Stop);
                    if let Err(error) = self.drain().await {
                        tracing::warn!(%error, "sync stopped with an error");
                    }
                    if let Some(link) = self.link.take() {
                        link.close(None).await;
                    }
                    return;
                }
                Err(error) => return self.give_up(error),
            }
        }
    }

    /// The store failed: nothing can be made durable, so nothing may be said any more.
    fn give_up(&self, error: Error) {
        if matches!(error, Error::Closed) {
            return;
        }
        tracing::error!(%error, "sync ends because the store failed");
        let message = format!("this device's store failed: {error}");
        let event = || Failed { workspace: None, message: message.clone() };
        self.db.inner.hooks.raise(hook::SYNC_ERROR, event);
        let status = SyncStatus::Stopped { why: StopReason::StoreFailed, message };
        self.board.end(error, &status);
    }

    async fn wait(&mut self, received: &mut mpsc::UnboundedReceiver<Command>) -> Result<Turn> {
        let wake = self.wake_at.map(|at| self.started + Duration::from_millis(at));
        let keep_alive = self.link.is_some().then(|| self.pinged + PING_INTERVAL);
        let sleep_until = [wake, keep_alive].into_iter().flatten().min();
        let watchers = Arc::clone(&self.db.inner.watchers);
        let seen = self.seen_position;
        let published =
            std::future::poll_fn(|context| match watchers.poll_after(seen, context.waker()) {
                true => std::task::Poll::Ready(()),
                false => std::task::Poll::Pending,
            });
        tokio::select! {
            biased;
            command = received.recv() => return self.command(command),
            message = next_message(&mut self.link) => self.message(message),
            connected = next_connection(&mut self.connecting) => self.connected(connected),
            () = published => return self.published(),
            () = sleep(sleep_until) => self.time(),
        }
        Ok(Turn::Go)
    }

    fn command(&mut self, command: Option<Command>) -> Result<Turn> {
        match command {
            None | Some(Command::Stop) => return Ok(Turn::Stop),
            Some(Command::Failed(error)) => return Err(error),
            Some(Command::Answer(input)) => {
                if let Input::ChangesStored { workspace, received_to, cursor, .. } = &input
                    && raise::is_consistent((*received_to, *cursor))
                {
                    lost::look(&self.db, workspace);
                }
                self.input(input);
                self.follow_device()?;
            }
            Some(Command::Ask(Asked { workspace, record, before, answer })) => {
                let request = self.next_question;
                self.next_question += 1;
                self.asked.insert(request, answer);
                self.input(Input::ReadHistory { workspace, request, record, before });
            }
            Some(Command::Detach(workspace, done)) => {
                self.detach(&workspace);
                self.input(Input::Detach { workspace });
                // Who asked may have given up.
                let _ = done.try_send(());
            }
            Some(Command::Attach(workspace)) => {
                if !self.told.contains_key(&workspace) {
                    *lock(&self.db.inner.attached).entry(workspace.clone()).or_default() += 1;
                }
                let state = replicator::workspace_state(&*self.db.view(), &workspace)?;
                self.told.insert(workspace.clone(), state.written);
                // What an earlier run of the app received and did not tell.
                lost::look(&self.db, &workspace);
                self.input(Input::Attach { workspace, state });
            }
        }
        Ok(Turn::Go)
    }

    /// From here on this connection stores nothing more of the workspace than what it has asked the
    /// writer for.
    fn detach(&mut self, workspace: &WorkspaceName) {
        self.let_go(workspace);
        self.board.set(workspace, SyncStatus::Idle);
    }

    /// This connection counts no more among those that keep the workspace in step.
    fn let_go(&mut self, workspace: &WorkspaceName) {
        if self.told.remove(workspace).is_none() {
            return;
        }
        let mut attached = lock(&self.db.inner.attached);
        if let Some(connections) = attached.get_mut(workspace) {
            *connections -= 1;
            if *connections == 0 {
                attached.remove(workspace);
            }
        }
    }

    /// Local writes show in the view; the session hears of their counters.
    fn published(&mut self) -> Result<Turn> {
        if self.db.inner.watchers.is_closed() {
            return Ok(Turn::Stop);
        }
        let view = self.db.view();
        self.seen_position = view.position();
        let mut news = Vec::new();
        for (workspace, told) in &mut self.told {
            let meta = read::meta(&*view, workspace)?;
            let written = meta.written;
            // Counters that a refusal gave back are given again: the number alone tells nothing.
            if written != *told || written > meta.decided {
                *told = written;
                news.push((workspace.clone(), written));
            }
        }
        for (workspace, counter) in news {
            self.input(Input::Written { workspace, counter });
        }
        self.board.wake();
        Ok(Turn::Go)
    }

    fn message(&mut self, message: Option<Result<Message, SocketError>>) {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Binary(bytes))) => self.input(Input::Message(bytes.to_vec())),
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map_or_else(
                    || "the server closed the connection".to_owned(),
                    |frame| format!("the server closed the connection: {}", frame.reason),
                );
                self.disconnected(reason);
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => self.disconnected(error.to_string()),
            None => self.disconnected("the connection ended".into()),
        }
    }

    fn disconnected(&mut self, reason: String) {
        self.link = None;
        self.connecting = None;
        self.input(Input::Disconnected { reason });
    }

    fn connected(&mut self, connected: Result<Link, String>) {
        self.connecting = None;
        match connected {
            Ok(link) => {
                self.heard = Instant::now();
                self.pinged = self.heard;
                self.link = Some(link);
                self.input(Input::Connected);
            }
            Err(reason) => self.disconnected(reason),
        }
    }

    fn time(&mut self) {
        if let Some(link) = &self.link
            && self.pinged.elapsed() >= PING_INTERVAL
        {
            self.pinged = Instant::now();
            if self.heard.elapsed() > SILENCE_LIMIT {
                return self.disconnected("the server is silent".into());
            }
            link.send(Message::Ping(Default::default()));
        }
        if self.wake_at.is_some_and(|at| at <= self.now_ms()) {
            self.wake_at = None;
            self.input(Input::Time);
        }
    }

    async fn drain(&mut self) -> Result<()> {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Connect => {
                    self.connecting = Some(Box::pin(connect(self.remote.clone())));
                }
                Output::Send(bytes) => {
                    if let Some(link) = &self.link {
                        link.send(Message::Binary(bytes.into()));
                    }
                }
                Output::Close { code, reason } => {
                    if let Some(link) = self.link.take() {
                        let frame = CloseFrame { code: code.into(), reason: reason.into() };
                        link.close(Some(frame)).await;
                    }
                    self.connecting = None;
                }
                Output::WakeAt(at) => self.wake_at = Some(at),
                Output::FetchToken => {
                    self.tell_device()?;
                    let token = self.remote.fetch_token();
                    self.input(Input::Token(token));
                }

                Output::History { request, answer } => {
                    if let Some(asked) = self.asked.remove(&request) {
                        // Who asked may have given up.
                        let _ = asked.try_send(answer);
                    }
                }
                Output::Status { workspace, status } => {
                    self.unable.tell(&self.db.inner.hooks, &workspace, &status);
                    // Carriers look at the kind of it alone, and it moves with every change.
                    let kind = std::mem::discriminant(&status);
                    let is_other = kind != std::mem::discriminant(&self.board.status(&workspace));
                    self.board.set(&workspace, status);
                    if is_other {
                        self.db.inner.transfers.ask();
                    }
                }
                Output::ReadOutbox { workspace, after, max } => {
                    let batches = replicator::read_outbox(
                        self.db.inner.writer.views(),
                        &self.db.inner.unsent,
                        &workspace,
                        after,
                        max,
                    )?;
                    raise::pushing(&self.db.inner.hooks, &workspace, &batches);
                    self.input(Input::Outbox { workspace, batches });
                }
                Output::ReadSurvivors { workspace, lineage, after } => {
                    let view = self.db.view();
                    let (entries, next) =
                        survivors::lost_rows(&*view, &workspace, &lineage, after.as_ref())?;
                    self.input(Input::Survivors { workspace, entries, next });
                }
                output => self.store(output)?,
            }
        }
        Ok(())
    }

    /// What is said under an id that the store has no more is of no use: it begins anew.
    fn follow_device(&mut self) -> Result<()> {
        if self.link.is_some() && self.db.device() != self.device {
            self.disconnected("this device goes on under another id".into());
            self.tell_device()?;
        }
        Ok(())
    }

    /// The store may have become another device through another handle of the database.
    fn tell_device(&mut self) -> Result<()> {
        let device = self.db.device();
        if std::mem::replace(&mut self.device, device) != device {
            let input = replicator::fork_stored(&*self.db.view(), device)?;
            self.input(input);
        }
        Ok(())
    }

    /// Outputs that need a durable step: queued for the writer, answered later.
    fn store(&mut self, output: Output) -> Result<()> {
        let commands = self.commands.clone();
        let answer = move |result: Result<Input>| {
            let command = match result {
                Ok(input) => Command::Answer(input),
                Err(error) => Command::Failed(error),
            };
            // A driver that has ended does not need the answer.
            let _ = commands.send(command);
        };
        let (writer, device) = (&self.db.inner.writer, self.device);
        let (receipts, hooks) = (&self.db.inner.receipts, &self.db.inner.hooks);
        let (receipts, hooks) = (Arc::clone(receipts), Arc::clone(hooks));
        let settle = move |workspace: &WorkspaceName, settled: Vec<(BatchId, Decision)>| {
            raise::pushed(&hooks, workspace, &settled);
            receipts.settle(settled);
        };
        match output {
            Output::StoreAttached { workspace, attached } => {
                self.count_decisions(&workspace, &attached.decisions);
                let name = workspace.clone();
                let declared = Arc::clone(&self.db.inner.declared);
                let job = move |store: &mut Store| match replicator::of_another(
                    store.newest(),
                    &name,
                    device,
                )? {
                    Some(stored) => Ok(stored),
                    None => replicator::store_attached(store, &name, attached, &declared, now_ms()),
                };
                let stored = move |stored: Result<Stored>| {
                    answer(stored.map(|mut stored| {
                        settle(&workspace, std::mem::take(&mut stored.settled));
                        stored.attached(workspace)
                    }));
                };
                writer.submit(0, job, stored)
            }
            page @ (Output::StoreChanges { .. } | Output::StoreWalk { .. }) => {
                self.store_page(page, answer)
            }
            Output::StoreDecisions { workspace, decisions } => {
                self.count_decisions(&workspace, &decisions);
                let name = workspace.clone();
                // What has come by the time the writer gets to it is stored together: each storing
                // computes anew what the records show.
                let queue = Arc::clone(self.verdicts.entry(workspace.clone()).or_default());
                lock(&queue).extend(decisions);
                let job = move |store: &mut Store| {
                    let decisions = std::mem::take(&mut *lock(&queue));
                    match replicator::of_another(store.newest(), &name, device)? {
                        Some(stored) => Ok(stored),
                        None => replicator::store_decisions(store, &name, decisions, now_ms()),
                    }
                };
                let stored = move |stored: Result<Stored>| {
                    answer(stored.map(|mut stored| {
                        settle(&workspace, std::mem::take(&mut stored.settled));
                        stored.decided(workspace)
                    }));
                };
                writer.submit(0, job, stored)
            }
            output => self.store_about_itself(output, answer),
        }
    }

    /// What the store notes of its server's horizon and of its own id.
    fn store_about_itself(
        &self,
        output: Output,
        answer: impl FnOnce(Result<Input>) + Send + 'static,
    ) -> Result<()> {
        let writer = &self.db.inner.writer;
        match output {
            Output::StoreHorizon { workspace, horizon } => {
                let job = move |store: &mut _| {
                    let horizon = replicator::store_horizon(store, &workspace, horizon)?;
                    Ok(Input::HorizonStored { workspace, horizon })
                };
                writer.submit(0, job, answer)
            }
            Output::StoreFork => {
                let device = DeviceId(random());
                let job = move |store: &mut _| replicator::store_fork(store, device, now_ms());
                writer.submit(0, job, answer)
            }
            _ => Ok(()),
        }
    }

    fn store_page(
        &self,
        page: Output,
        answer: impl FnOnce(Result<Input>) + Send + 'static,
    ) -> Result<()> {
        let (workspace, entries) = match &page {
            Output::StoreChanges { workspace, page } => (workspace, &page.entries),
            Output::StoreWalk { workspace, page } => (workspace, &page.entries),
            _ => return Ok(()),
        };
        let rows = entries.len() as u64;
        let bytes = entries.iter().map(|Entry::Row { row, .. }| row.size_bytes()).sum();
        self.board.count(workspace, |counts| counts.received += rows);
        let declared = Arc::clone(&self.db.inner.declared);
        let job = move |store: &mut Store| {
            let is_local = |table: &TableName| declared.is_local(table);
            match page {
                Output::StoreChanges { workspace, page } => {
                    replicator::store_changes(store, &workspace, page, &is_local, now_ms())
                }
                Output::StoreWalk { workspace, page } => {
                    replicator::store_walk(store, &workspace, page, &is_local)
                }
                _ => unreachable!("invariant: looked at above"),
            }
        };
        let hooks = Arc::clone(&self.db.inner.hooks);
        let stored = move |stored: Result<Input>| {
            if let Ok(Input::ChangesStored { workspace, received_to, cursor, .. }) = &stored {
                raise::pulled(&hooks, workspace, rows, (*received_to, *cursor));
            }
            answer(stored);
        };
        self.db.inner.writer.submit(bytes, job, stored)
    }

    fn count_decisions(&self, workspace: &WorkspaceName, decisions: &[Decided]) {
        self.board.count(workspace, |counts| {
            for decided in decisions {
                counts.sent_batches += 1;
                match &decided.decision {
                    Decision::Refused { .. } => counts.refused += 1,
                    Decision::Accepted { verdicts, .. }
                        if verdicts.iter().all(|v| matches!(v, Verdict::Applied { .. })) =>
                    {
                        counts.applied += 1;
                    }
                    Decision::Accepted { .. } => counts.superseded += 1,
                }
            }
        });
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

async fn next_message(link: &mut Option<Link>) -> Option<Result<Message, SocketError>> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn next_connection(connecting: &mut Option<Connecting>) -> Result<Link, String> {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}
