//! A device's party: a store and the session that keeps it in step.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, TableName, WorkspaceName};
use lastword_core::protocol::History;
use lastword_core::protocol::replica::{Config, Input, Output, ReplicaSession, SyncStatus};
use lastword_core::stamp::Decision;
use lastword_store::apply::ApplyPayload;
use lastword_store::payload::StoreRole;
use lastword_store::{Disk, OpenReport, Options, Store, StoreError, View, read};

use crate::error::{Error, Result};
use crate::locality;
use crate::open;
use crate::replicator::{self, workspace_state};
use crate::schema::Declared;
use crate::survivors;
use crate::unsent::Unsent;
use crate::write::{self, Appended, Author, Tx, WriteOptions};

/// What a device's party is opened with.
#[derive(Debug, Clone)]
pub struct DeviceSettings {
    /// How the store works.
    pub store: Options,
    /// Tables that never leave the device.
    pub local_tables: Vec<TableName>,
    /// The id that a new store gets; an old one has its own.
    pub new_device: DeviceId,
    /// Random per opened store; new ids are made of it if the store has to become another device.
    pub nonce: [u8; 8],
    /// Seed of the jitter.
    pub seed: u64,
    /// How many batches may wait for the server.
    pub max_undecided: u64,
}

/// What the device wants of its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToLink {
    /// Connect to the server.
    Connect,
    /// Send one message.
    Message(Vec<u8>),
    /// Close the connection.
    Close,
    /// Bring a token.
    FetchToken,
}

/// What a write of a device led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// It touched local tables only, or nothing.
    Local,
    /// It is in the outbox.
    Synced {
        /// The batch that it has taken in, if it was written to do so.
        replaced: Option<BatchId>,
    },
}

/// A store in the role of a replica, with its session.
pub struct DeviceNode {
    store: Store,
    session: ReplicaSession,
    declared: Arc<Declared>,
    last_hlc: Hlc,
    max_undecided: u64,
    nonce: [u8; 16],
    requests: VecDeque<Output>,
    to_link: VecDeque<ToLink>,
    told: BTreeMap<WorkspaceName, u64>,
    status: BTreeMap<WorkspaceName, SyncStatus>,
    settled: Vec<(BatchId, Decision)>,
    unsent: Arc<Unsent>,
    histories: Vec<(u64, Option<History>)>,
    wake_at: Option<u64>,
}

impl DeviceNode {
    /// Opens or creates the store on `disk`; `wall_ms` is when it is introduced, if it is new.
    ///
    /// # Errors
    /// [`Error::Store`] if it is damaged or the disk fails, [`Error::Declaration`].
    pub fn open(
        disk: Arc<dyn Disk>,
        settings: DeviceSettings,
        wall_ms: i64,
    ) -> Result<(Self, OpenReport)> {
        let mut declared = Declared::default();
        for table in &settings.local_tables {
            declared.local_table(table.clone())?;
        }
        Self::open_declared(disk, settings, (declared, 0), wall_ms)
    }

    /// The same with what an app declares, and the number of its schema.
    pub(crate) fn open_declared(
        disk: Arc<dyn Disk>,
        settings: DeviceSettings,
        (mut declared, app_schema): (Declared, u64),
        wall_ms: i64,
    ) -> Result<(Self, OpenReport)> {
        let apply = Arc::new(ApplyPayload::new(declared.indexes().clone()));
        let (mut store, report) = Store::open(disk, settings.store, apply)?;
        let identity = match read::identity(store.newest())? {
            Some(identity) => identity,
            None => open::introduce(&mut store, StoreRole::Replica, settings.new_device, wall_ms)?,
        };
        locality::settle(&mut store, &mut declared)?;
        let nonce = replicator::nonce(&mut store, settings.nonce)?;
        let session = ReplicaSession::new(Config {
            device: identity.device,
            nonce,
            attachments_after: 0,
            app_schema,
            agent: "lastword node".into(),
            seed: settings.seed,
        });
        let node = Self {
            store,
            session,
            declared: Arc::new(declared),
            last_hlc: Hlc::default(),
            max_undecided: settings.max_undecided,
            nonce,
            requests: VecDeque::new(),
            to_link: VecDeque::new(),
            told: BTreeMap::new(),
            status: BTreeMap::new(),
            settled: Vec::new(),
            unsent: Arc::default(),
            histories: Vec::new(),
            wake_at: None,
        };
        Ok((node, report))
    }

    /// The device that writes.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn device(&self) -> Result<DeviceId> {
        Ok(read::identity(&*self.store.view())?.ok_or(Error::Closed)?.device)
    }

    /// Its store, for what is done beside commits: checkpoints, folds, purges.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// What readers see.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.store.view()
    }

    /// How a workspace stands.
    #[must_use]
    pub fn status(&self, workspace: &WorkspaceName) -> Option<&SyncStatus> {
        self.status.get(workspace)
    }

    /// Batches whose decision became durable here since this was asked last.
    pub fn take_settled(&mut self) -> Vec<(BatchId, Decision)> {
        std::mem::take(&mut self.settled)
    }

    /// Answers to [`Input::ReadHistory`] that came since this was asked last, each with the number
    /// of its question.
    pub fn take_histories(&mut self) -> Vec<(u64, Option<History>)> {
        std::mem::take(&mut self.histories)
    }

    /// When it wants to hear of the time, on the clock of [`DeviceNode::input`].
    #[must_use]
    pub fn wake_at(&self) -> Option<u64> {
        self.wake_at
    }

    /// Writes one atomic batch under `batch_id`; true if it is in the outbox, false if it touched
    /// local tables only, or nothing. It is durable then.
    ///
    /// # Errors
    /// Those of [`crate::Workspace::write`].
    pub fn write(
        &mut self,
        workspace: &WorkspaceName,
        batch_id: BatchId,
        wall_ms: i64,
        edit: impl FnOnce(&mut Tx) -> Result<()>,
    ) -> Result<bool> {
        let options = WriteOptions::default();
        let wrote = self.write_with(options, workspace, batch_id, wall_ms, edit)?;
        Ok(matches!(wrote, Wrote::Synced { .. }))
    }

    /// The same with options.
    ///
    /// # Errors
    /// Those of [`crate::Workspace::write`].
    pub fn write_with(
        &mut self,
        options: WriteOptions,
        workspace: &WorkspaceName,
        batch_id: BatchId,
        wall_ms: i64,
        edit: impl FnOnce(&mut Tx) -> Result<()>,
    ) -> Result<Wrote> {
        let mut tx = Tx::new(workspace, self.store.view(), Arc::clone(&self.declared))?;
        edit(&mut tx)?;
        let (draft, _) = tx.into_draft();
        let declared = Arc::clone(&self.declared);
        let is_local = |table: &TableName| declared.is_local(table);
        let (last_hlc, max_undecided) = (&mut self.last_hlc, self.max_undecided);
        let unsent = &*self.unsent;
        let author = Author { is_local: &is_local, last_hlc, max_undecided, unsent, options };
        let appended = write::append(&mut self.store, &draft, batch_id, wall_ms, author)?;
        self.store.commit()?;
        match appended {
            Appended::Moved => Err(Error::Aborted("another write changed the record".into())),
            Appended::Local(_) => Ok(Wrote::Local),
            Appended::Synced(_, replaced) => Ok(Wrote::Synced { replaced }),
        }
    }

    /// Keeps a workspace in step.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn attach(&mut self, workspace: &WorkspaceName, now_ms: u64) -> Result<()> {
        let state = workspace_state(&*self.store.view(), workspace)?;
        self.told.insert(workspace.clone(), state.written);
        self.input(now_ms, Input::Attach { workspace: workspace.clone(), state });
        Ok(())
    }

    /// Tells the session something.
    pub fn input(&mut self, now_ms: u64, input: Input) {
        if matches!(input, Input::Time) {
            self.wake_at = None;
        }
        self.session.input(now_ms, input);
        while let Some(output) = self.session.poll() {
            match output {
                Output::Connect => self.to_link.push_back(ToLink::Connect),
                Output::Send(bytes) => self.to_link.push_back(ToLink::Message(bytes)),
                Output::Close { .. } => self.to_link.push_back(ToLink::Close),
                Output::FetchToken => self.to_link.push_back(ToLink::FetchToken),
                Output::WakeAt(at) => self.wake_at = Some(at),
                Output::History { request, answer } => self.histories.push((request, answer)),
                Output::Status { workspace, status } => {
                    self.status.insert(workspace, status);
                }
                request => self.requests.push_back(request),
            }
        }
    }

    /// The next thing that the link should do.
    pub fn to_link(&mut self) -> Option<ToLink> {
        self.to_link.pop_front()
    }

    /// Tells the session of batches that were written since it was told last.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn tell_written(&mut self, now_ms: u64) -> Result<()> {
        let view = self.store.view();
        let mut news = Vec::new();
        for (workspace, told) in &mut self.told {
            let meta = read::meta(&*view, workspace)?;
            let written = meta.written;
            // Counters that a refusal gave back are given again: the number alone tells nothing.
            if std::mem::replace(told, written) != written || written > meta.decided {
                news.push((workspace.clone(), written));
            }
        }
        for (workspace, counter) in news {
            self.input(now_ms, Input::Written { workspace, counter });
        }
        Ok(())
    }

    /// Whether the session waits for the store.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// The oldest thing that the session wants of the store.
    pub(crate) fn next_request(&self) -> Option<&Output> {
        self.requests.front()
    }

    /// What no session was handed.
    pub(crate) fn unsent(&self) -> &Arc<Unsent> {
        &self.unsent
    }

    /// What its app declares.
    pub(crate) fn declared(&self) -> &Arc<Declared> {
        &self.declared
    }

    /// Carries out the oldest thing that the session wants of the store, durably, and tells it.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails; the session is told nothing, and the store has to be
    /// opened again.
    pub fn step(&mut self, now_ms: u64, wall_ms: i64) -> Result<()> {
        let Some(request) = self.requests.pop_front() else { return Ok(()) };
        let store = &mut self.store;
        let mut settled = Vec::new();
        let input = match request {
            Output::ReadOutbox { workspace, after, max } => {
                let log = store.view_handle();
                let batches = replicator::read_outbox(&log, &self.unsent, &workspace, after, max)?;
                Input::Outbox { workspace, batches }
            }
            Output::ReadSurvivors { workspace, lineage, after } => {
                let view = store.view();
                let (entries, next) =
                    survivors::lost_rows(&*view, &workspace, &lineage, after.as_ref())?;
                Input::Survivors { workspace, entries, next }
            }
            Output::StoreAttached { workspace, attached } => {
                let declared = &self.declared;
                let mut stored =
                    replicator::store_attached(store, &workspace, attached, declared, wall_ms)?;
                settled.append(&mut stored.settled);
                stored.attached(workspace)
            }
            Output::StoreChanges { workspace, page } => {
                let declared = Arc::clone(&self.declared);
                let is_local = |table: &TableName| declared.is_local(table);
                replicator::store_changes(store, &workspace, page, &is_local, wall_ms)?
            }
            Output::StoreWalk { workspace, page } => {
                let declared = Arc::clone(&self.declared);
                let is_local = |table: &TableName| declared.is_local(table);
                replicator::store_walk(store, &workspace, page, &is_local)?
            }
            Output::StoreDecisions { workspace, decisions } => {
                let mut stored =
                    replicator::store_decisions(store, &workspace, decisions, wall_ms)?;
                settled.append(&mut stored.settled);
                stored.decided(workspace)
            }
            Output::StoreHorizon { workspace, horizon } => {
                let horizon = replicator::store_horizon(store, &workspace, horizon)?;
                Input::HorizonStored { workspace, horizon }
            }
            Output::StoreFork => {
                let device = next_device(self.nonce, store.next_position());
                replicator::store_fork(store, device, wall_ms)?
            }
            _ => return Ok(()),
        };
        self.store.commit()?;
        self.settled.append(&mut settled);
        self.input(now_ms, input);
        Ok(())
    }

    /// Closes the store cleanly.
    ///
    /// # Errors
    /// [`StoreError`] if the last sync fails.
    pub fn close(self) -> std::result::Result<(), StoreError> {
        self.store.close()
    }
}

/// An id that no other store has, as long as no other was opened with that nonce.
fn next_device(nonce: [u8; 16], position: u64) -> DeviceId {
    let number = u128::from_le_bytes(nonce).wrapping_add(u128::from(position));
    DeviceId(number.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use lastword_core::id::{Epoch, Key};
    use lastword_core::schema::{Schema, TableSchema};
    use lastword_core::value::{Record, Value};
    use lastword_store::MemoryDisk;

    use super::*;
    use crate::node::{AuthorityNode, Outgoing, Users};

    struct Everybody;

    impl Users for Everybody {
        fn authenticate(&self, token: &str) -> std::result::Result<String, String> {
            Ok(token.to_owned())
        }
    }

    fn table(name: &str) -> TableName {
        TableName::new(name).unwrap()
    }

    fn write(device: &mut DeviceNode, workspace: &WorkspaceName, name: &str, id: u128) {
        let record = Record::new(&[("n".into(), Value::Int(id as i64))]).unwrap();
        let key = Key::new("k").unwrap();
        let put = |tx: &mut Tx| tx.put_record(&table(name), &key, record);
        assert!(device.write(workspace, BatchId(id.to_be_bytes()), 1, put).unwrap());
        device.tell_written(1).unwrap();
    }

    /// Carries messages to and fro until nobody has anything to say.
    fn settle(device: &mut DeviceNode, authority: &mut AuthorityNode) {
        loop {
            let mut did = device.has_requests() || authority.has_jobs();
            device.step(1, 1).unwrap();
            while let Some(wish) = device.to_link() {
                did = true;
                match wish {
                    ToLink::Connect => {
                        authority.connect(1, 1, &Everybody, 1);
                        device.input(1, Input::Connected);
                    }
                    ToLink::FetchToken => device.input(1, Input::Token(Ok("ann".into()))),
                    ToLink::Message(bytes) => authority.message(1, bytes, 1, &Everybody, 1),
                    ToLink::Close => panic!("nobody has a reason"),
                }
            }
            authority.step(1, &Everybody, 1, Epoch([1; 16])).unwrap();
            while let Some(Outgoing::Message(bytes)) = authority.outgoing(1) {
                did = true;
                device.input(1, Input::Message(bytes));
            }
            if !did {
                return;
            }
        }
    }

    /// I28, found by simulation (seed 1024). A refusal gave the counter of a follower back; the
    /// next write took it, and since the session had been told of that number before it was not
    /// told of the write, which stayed in the outbox until the device connected again.
    #[test]
    fn a_write_under_a_counter_that_was_given_back_is_pushed() {
        let disk = || Arc::new(MemoryDisk::new(1 << 20));
        let (mut authority, _) = AuthorityNode::open(disk(), Options::default(), 1).unwrap();
        let schema = Schema::new(0, [(table("notes"), TableSchema::new("id"))]).unwrap();
        authority.adopt(schema).unwrap();
        let settings = DeviceSettings {
            store: Options::default(),
            local_tables: Vec::new(),
            new_device: DeviceId([1; 16]),
            nonce: [1; 8],
            seed: 1,
            max_undecided: 10,
        };
        let (mut device, _) = DeviceNode::open(disk(), settings, 1).unwrap();
        let workspace = WorkspaceName::new("main").unwrap();
        device.input(1, Input::Start);
        device.attach(&workspace, 1).unwrap();
        settle(&mut device, &mut authority);
        write(&mut device, &workspace, "unknown", 1);
        write(&mut device, &workspace, "unknown", 2);
        settle(&mut device, &mut authority);
        assert_eq!(read::meta(&*device.view(), &workspace).unwrap().written, 1);
        write(&mut device, &workspace, "notes", 3);
        settle(&mut device, &mut authority);
        let meta = read::meta(&*device.view(), &workspace).unwrap();
        assert_eq!((meta.written, meta.decided), (2, 2));
    }
}
