//! A server and devices in memory, driven one event at a time: no thread, no clock, no socket.

use std::sync::Arc;

use lastword::core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword::core::protocol::Role;
use lastword::core::protocol::replica::{Input, SyncStatus};
use lastword::core::row::Row;
use lastword::core::value::{Record, Value};
use lastword::node::{AuthorityNode, DeviceNode, DeviceSettings, Outgoing, ToLink, Users};
use lastword::store::keys::{self, WorkspaceMeta};
use lastword::store::payload::{Attachment, Payload, Restored};
use lastword::store::purge::{Found, PurgeWalk, Retention};
use lastword::store::{MemoryDisk, Options, Store, Survival, read};
use lastword::{Error, MemberList, Survivor, Tx};

const DAY_MS: i64 = 24 * 3600 * 1000;

pub(crate) fn main() -> WorkspaceName {
    WorkspaceName::new("main").unwrap()
}

pub(crate) fn notes() -> TableName {
    TableName::new("notes").unwrap()
}

pub(crate) fn drafts() -> TableName {
    TableName::new("drafts").unwrap()
}

pub(crate) fn key(key: &str) -> Key {
    Key::new(key).unwrap()
}

/// A record that says `text`; a big one fills a page with two others.
pub(crate) fn note(text: &str) -> Record {
    Record::new(&[("text".into(), Value::Text(text.into()))]).unwrap()
}

pub(crate) fn big(text: &str) -> Record {
    let padding = Value::Text("x".repeat(200_000));
    Record::new(&[("text".into(), Value::Text(text.into())), ("padding".into(), padding)]).unwrap()
}

struct Everyone;

impl Users for Everyone {
    fn authenticate(&self, token: &str) -> Result<String, String> {
        Ok(token.to_owned())
    }
}

fn options() -> Options {
    Options { segment_size: 8 << 20, zero_step: 1 << 16, ..Options::default() }
}

/// One device, of the user ann unless said otherwise.
pub(crate) struct Phone {
    pub(crate) disk: MemoryDisk,
    node: Option<DeviceNode>,
    settings: DeviceSettings,
    pub(crate) user: &'static str,
    connection: Option<u64>,
    number: u8,
    batches: u16,
}

/// The server, and the time.
pub(crate) struct Site {
    pub(crate) disk: MemoryDisk,
    node: AuthorityNode,
    pub(crate) now_ms: u64,
    pub(crate) wall_ms: i64,
    connections: u64,
}

impl Phone {
    /// A new device; `number` makes its ids.
    pub(crate) fn new(number: u8) -> Self {
        let settings = DeviceSettings {
            store: options(),
            local_tables: vec![drafts()],
            new_device: DeviceId([number; 16]),
            nonce: [number * 16; 8],
            seed: u64::from(number),
            max_undecided: 1000,
        };
        let disk = MemoryDisk::new(1 << 16);
        let (node, connection) = (None, None);
        let (user, batches) = ("ann", 0);
        let mut phone = Self { disk, node, settings, user, connection, number, batches };
        phone.open();
        phone
    }

    /// A copy of its directory, opened by another process.
    pub(crate) fn copied(&self, number: u8) -> Self {
        let disk = self.disk.after_power_cut(Survival::Kept);
        let settings = DeviceSettings { nonce: [number * 16; 8], ..self.settings.clone() };
        let (node, connection, batches) = (None, None, self.batches);
        let user = self.user;
        let mut phone = Self { disk, node, settings, user, connection, number, batches };
        phone.open();
        phone
    }

    fn open(&mut self) {
        // Each process draws another.
        self.settings.nonce[0] += 1;
        let disk = Arc::new(self.disk.clone());
        let (mut node, _) = DeviceNode::open(disk, self.settings.clone(), 0).unwrap();
        node.input(0, Input::Start);
        node.attach(&main(), 0).unwrap();
        self.node = Some(node);
    }

    /// The process ends and what is not synced is gone; it is opened again.
    pub(crate) fn crash(&mut self, site: &mut Site) {
        self.node = None;
        if let Some(connection) = self.connection.take() {
            site.node.disconnect(connection);
        }
        self.disk = self.disk.after_power_cut(Survival::Dropped);
        self.open();
    }

    pub(crate) fn node(&mut self) -> &mut DeviceNode {
        self.node.as_mut().unwrap()
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.node.as_ref().unwrap().device().unwrap()
    }

    pub(crate) fn status(&self) -> &SyncStatus {
        self.node.as_ref().unwrap().status(&main()).unwrap()
    }

    pub(crate) fn write(&mut self, edit: impl FnOnce(&mut Tx) -> Result<(), Error>) -> BatchId {
        self.batches += 1;
        let mut id = [self.number; 16];
        id[..2].copy_from_slice(&self.batches.to_be_bytes());
        self.node().write(&main(), BatchId(id), 1, edit).unwrap();
        BatchId(id)
    }

    pub(crate) fn put(&mut self, name: &str, record: Record) -> BatchId {
        self.write(|tx| tx.put_record(&notes(), &key(name), record))
    }

    pub(crate) fn delete(&mut self, name: &str) -> BatchId {
        self.write(|tx| tx.delete_record(&notes(), &key(name)))
    }

    pub(crate) fn meta(&self) -> WorkspaceMeta {
        read::meta(&*self.node.as_ref().unwrap().view(), &main()).unwrap()
    }

    /// What is shown of a record: its text.
    pub(crate) fn shows(&self, table: &TableName, name: &str) -> Option<String> {
        let row = self.row(table, name).filter(|row| !row.deleted)?;
        match row.record.get("text") {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn row(&self, table: &TableName, name: &str) -> Option<Row> {
        let view = self.node.as_ref().unwrap().view();
        let row_key = keys::row_key(&main(), self.meta().generation, table, &key(name));
        read::row(&*view, &row_key).unwrap().map(|stored| stored.row)
    }

    /// Keys and texts of what is shown of a table.
    pub(crate) fn rows(&self, table: &TableName) -> Vec<(String, String)> {
        let view = self.node.as_ref().unwrap().view();
        rows(&view, self.meta().generation, table)
    }

    /// How many conflicts it knows.
    pub(crate) fn conflicts(&self) -> usize {
        conflicts(&self.node.as_ref().unwrap().view(), self.meta().generation)
    }

    /// Codes of its dead letters.
    pub(crate) fn letters(&self) -> Vec<String> {
        let view = self.node.as_ref().unwrap().view();
        let table = TableName::new(read::DEAD_LETTERS_TABLE).unwrap();
        let prefix = keys::table_prefix(&read::store_workspace(), 0, &table);
        let rows = read::table_rows(&*view, &prefix, &[], None, false, usize::MAX).unwrap();
        let code = |row: Row| match row.record.get("code") {
            Some(Value::Text(code)) => code,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(|(_, _, stored)| code(stored.row)).collect()
    }

    /// How far a new copy has come, if one is being made.
    pub(crate) fn resets_at(&self) -> Option<u64> {
        let view = self.node.as_ref().unwrap().view();
        read::reset(&*view, &main()).unwrap().map(|reset| reset.received_to)
    }

    /// The counters of its outbox.
    pub(crate) fn outbox(&self) -> Vec<u64> {
        let view = self.node.as_ref().unwrap().view();
        let entries = read::outbox(&*view, &main(), 0, usize::MAX).unwrap();
        entries.into_iter().map(|(counter, _)| counter).collect()
    }

    /// Forgets what its server has forgotten, and the copies that are over.
    pub(crate) fn purge(&mut self) {
        purge(self.node().store(), 0);
    }

    /// No row is left of a copy that nobody reads.
    pub(crate) fn left_generation(&self) -> Option<u32> {
        read::left_generation(&*self.node.as_ref().unwrap().view(), &main()).unwrap()
    }

    /// Closes the store and folds its state from the log again: the two must agree.
    pub(crate) fn rebuilt(&mut self, site: &mut Site) {
        let (rows, local) = (self.rows(&notes()), self.rows(&drafts()));
        let meta = self.meta();
        self.crash(site);
        self.node = None;
        let rebuild_state = true;
        let store = Options { rebuild_state, ..self.settings.store.clone() };
        let settings = DeviceSettings { store, ..self.settings.clone() };
        let disk = Arc::new(self.disk.clone());
        let (mut node, _) = DeviceNode::open(disk, settings, 0).unwrap();
        node.input(0, Input::Start);
        node.attach(&main(), 0).unwrap();
        self.node = Some(node);
        assert_eq!((self.rows(&notes()), self.rows(&drafts())), (rows, local));
        assert_eq!(self.meta(), meta);
    }
}

fn rows(view: &lastword::store::View, generation: u32, table: &TableName) -> Vec<(String, String)> {
    let prefix = keys::table_prefix(&main(), generation, table);
    let rows = read::table_rows(view, &prefix, &[], None, false, usize::MAX).unwrap();
    let text = |row: Row| match row.record.get("text") {
        Some(Value::Text(text)) => text,
        other => panic!("{other:?}"),
    };
    let named = rows.into_iter().map(|(_, key, stored)| (key.as_str().into(), text(stored.row)));
    named.collect()
}

fn conflicts(view: &lastword::store::View, generation: u32) -> usize {
    let table = TableName::new(lastword::core::rules::CONFLICTS_TABLE).unwrap();
    let prefix = keys::table_prefix(&main(), generation, &table);
    read::table_rows(view, &prefix, &[], None, false, usize::MAX).unwrap().len()
}

/// All that may be forgotten at this time, tombstones after a day.
fn purge(store: &mut Store, now_ms: i64) {
    let (tombstones_ms, decisions_ms) = (DAY_MS, 30 * DAY_MS);
    let retention = Retention { now_ms, tombstones_ms, decisions_ms, stale: true };
    let mut walk = PurgeWalk::new(main());
    loop {
        match walk.next(store.newest(), &retention).unwrap() {
            Found::Purge(purge) => append(store, &Payload::Purge(purge)),
            Found::More => {}
            Found::End => return,
        }
    }
}

fn append(store: &mut Store, payload: &Payload) {
    store.append_urgent(payload.kind(), &payload.to_bytes()).unwrap();
    store.commit().unwrap();
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::on(MemoryDisk::new(1 << 16))
    }

    fn on(disk: MemoryDisk) -> Self {
        let (node, _) = AuthorityNode::open(Arc::new(disk.clone()), options(), 0).unwrap();
        Self { disk, node, now_ms: 0, wall_ms: 0, connections: 0 }
    }

    /// A backup of it as it is now, restored as `admin restore` does.
    pub(crate) fn restored(backup: &MemoryDisk, number: u8) -> Self {
        let mut site = Self::on(backup.after_power_cut(Survival::Kept));
        let meta = site.meta();
        let head = (meta.head + 1).next_multiple_of(1 << 20);
        let (epoch, branch) = (Epoch([number; 16]), meta.head);
        let frame = Restored { workspace: main(), epoch, branch, head, time_ms: 0 };
        append(site.node.store(), &Payload::Restored(frame));
        site.on_published();
        site
    }

    /// Another server with the same rows, which has nothing to do with this history.
    pub(crate) fn renamed(other: &MemoryDisk, number: u8) -> Self {
        let mut site = Self::on(other.after_power_cut(Survival::Kept));
        let (epoch, role) = (Epoch([number; 16]), Role::Owner);
        let frame = Attachment { workspace: main(), epoch, role, horizon: 0 };
        append(site.node.store(), &Payload::Attachment(frame));
        site.on_published();
        site
    }

    /// One group, of something that nobody pushed.
    pub(crate) fn on_published(&mut self) {
        let (now_ms, wall_ms) = (self.now_ms, self.wall_ms);
        self.node.step(now_ms, &Everyone, wall_ms, Epoch([1; 16])).unwrap();
    }

    pub(crate) fn meta(&self) -> WorkspaceMeta {
        read::meta(&*self.node.view(), &main()).unwrap()
    }

    pub(crate) fn node(&mut self) -> &mut AuthorityNode {
        &mut self.node
    }

    /// Rows and digest of what a user's device should hold.
    pub(crate) fn seen_by(&self, user: &str) -> lastword::Seen {
        lastword::seen_by(&*self.node.view(), &main(), user, &[drafts()]).unwrap()
    }

    pub(crate) fn rows(&self) -> Vec<(String, String)> {
        rows(&self.node.view(), 0, &notes())
    }

    /// How many conflicts are recorded.
    pub(crate) fn conflicts(&self) -> usize {
        conflicts(&self.node.view(), 0)
    }

    /// The server sets fields of a note that it owns.
    pub(crate) fn set_owned(
        &mut self,
        name: &str,
        set: Record,
        remove: Vec<String>,
    ) -> Result<u64, Error> {
        let seq =
            self.node.set_owned(&main(), (&notes(), &key(name)), set, remove, self.wall_ms)?;
        self.on_published();
        Ok(seq)
    }

    /// A frame that nobody pushed.
    pub(crate) fn append(&mut self, payload: &Payload) {
        append(self.node.store(), payload);
        self.on_published();
    }

    /// A day and more later, tombstones of before are forgotten and the horizon moves.
    pub(crate) fn purge(&mut self) {
        self.wall_ms += 2 * DAY_MS;
        let now_ms = self.wall_ms;
        purge(self.node.store(), now_ms);
        self.on_published();
    }

    /// As [`Site::purge`], so much later that decisions are forgotten too.
    pub(crate) fn forget_decisions(&mut self) {
        self.wall_ms += 31 * DAY_MS;
        self.purge();
    }

    /// Days later what ends by itself has gone.
    pub(crate) fn expire(&mut self, days: i64) {
        self.wall_ms += days * DAY_MS;
        let now_ms = self.wall_ms;
        purge(self.node.store(), now_ms);
        self.on_published();
    }

    /// What devices brought back of what was lost.
    pub(crate) fn survivors(&self) -> Vec<Survivor> {
        self.node.survivors(&main()).unwrap()
    }

    pub(crate) fn recover(&mut self) -> Vec<Survivor> {
        let mut number = 0;
        let ids = || {
            number += 1;
            BatchId([number; 16])
        };
        let done = self.node.recover(&main(), ids, self.wall_ms).unwrap();
        self.on_published();
        done
    }

    pub(crate) fn erase(&mut self, name: &str) {
        self.node.erase(&main(), (&notes(), &key(name)), 1).unwrap();
        self.on_published();
    }

    /// It loses power, with what was not synced, and is opened again.
    pub(crate) fn crashed(mut self, phone: &mut Phone) -> Self {
        self.cut(phone);
        let Site { disk, now_ms, wall_ms, .. } = self;
        Self { now_ms, wall_ms, ..Self::on(disk.after_power_cut(Survival::Dropped)) }
    }

    /// One thing happens on each side, if anything is to happen; an error of either store is
    /// handed on.
    pub(crate) fn turn(&mut self, phone: &mut Phone) -> Result<bool, Error> {
        let (now_ms, wall_ms) = (self.now_ms, self.wall_ms);
        let mut went_on = false;
        phone.node().tell_written(now_ms)?;
        while let Some(wanted) = phone.node().to_link() {
            went_on = true;
            self.carry(phone, wanted);
        }
        if self.node.has_jobs() {
            went_on = true;
            self.node.step(now_ms, &Everyone, wall_ms, Epoch([1; 16]))?;
        }
        if let Some(connection) = phone.connection
            && let Some(said) = self.node.outgoing(connection)
        {
            went_on = true;
            match said {
                Outgoing::Message(bytes) => phone.node().input(now_ms, Input::Message(bytes)),
                Outgoing::Close { reason, .. } => {
                    self.hang_up(phone);
                    phone.node().input(now_ms, Input::Disconnected { reason });
                }
            }
        }
        if phone.node().has_requests() {
            went_on = true;
            phone.node().step(now_ms, wall_ms)?;
        }
        Ok(went_on)
    }

    /// What the device wants of its link; the server looks at it in its next group.
    pub(crate) fn carry(&mut self, phone: &mut Phone, wanted: ToLink) {
        let (now_ms, wall_ms) = (self.now_ms, self.wall_ms);
        match wanted {
            ToLink::Connect => {
                self.connections += 1;
                self.node.connect(self.connections, now_ms, &Everyone, wall_ms);
                phone.connection = Some(self.connections);
                phone.node().input(now_ms, Input::Connected);
            }
            ToLink::Message(bytes) => {
                if let Some(connection) = phone.connection {
                    self.node.message(connection, bytes, now_ms, &Everyone, wall_ms);
                }
            }
            ToLink::Close => self.hang_up(phone),
            ToLink::FetchToken => {
                let token = Ok(phone.user.into());
                phone.node().input(now_ms, Input::Token(token));
            }
        }
    }

    /// In its next group the server has these members of the workspace and no others.
    pub(crate) fn admit(&mut self, members: &[(&str, Role)]) {
        let mut list = MemberList::default();
        for (user, role) in members {
            list.add(main(), key(user), *role);
        }
        self.node.admit(list);
    }

    /// What the rows of `_members` say.
    pub(crate) fn members(&self) -> Vec<(String, String)> {
        let table = TableName::new("_members").unwrap();
        let prefix = keys::table_prefix(&main(), 0, &table);
        let view = self.node.view();
        let rows = read::table_rows(&*view, &prefix, &[], None, false, usize::MAX).unwrap();
        let role = |row: Row| match row.record.get("role") {
            Some(Value::Text(role)) => role,
            other => panic!("{other:?}"),
        };
        let named = rows.into_iter();
        named.map(|(_, key, stored)| (key.as_str().into(), role(stored.row))).collect()
    }

    fn hang_up(&mut self, phone: &mut Phone) {
        if let Some(connection) = phone.connection.take() {
            self.node.disconnect(connection);
        }
    }

    /// The line breaks.
    pub(crate) fn cut(&mut self, phone: &mut Phone) {
        self.hang_up(phone);
        let now_ms = self.now_ms;
        phone.node().input(now_ms, Input::Disconnected { reason: "cut".into() });
    }

    /// As [`Site::turn`]; if nothing is to happen, time passes. False once nobody waits for that.
    pub(crate) fn go_on(&mut self, phone: &mut Phone) -> Result<bool, Error> {
        if self.turn(phone)? {
            return Ok(true);
        }
        let Some(at) = phone.node().wake_at() else { return Ok(false) };
        self.now_ms = self.now_ms.max(at);
        let now_ms = self.now_ms;
        phone.node().input(now_ms, Input::Time);
        Ok(true)
    }

    /// Until nothing happens any more, or a store fails.
    pub(crate) fn settle(&mut self, phone: &mut Phone) -> Result<(), Error> {
        self.until(phone, |_| false)
    }

    /// Until `done`, or nothing happens any more.
    pub(crate) fn until(
        &mut self,
        phone: &mut Phone,
        done: impl Fn(&Phone) -> bool,
    ) -> Result<(), Error> {
        for _ in 0..10_000 {
            if done(phone) || !self.go_on(phone)? {
                return Ok(());
            }
        }
        panic!("it never comes to rest: {:?}", phone.status());
    }

    /// Settles, and the device is in step with the server.
    #[track_caller]
    pub(crate) fn sync(&mut self, phone: &mut Phone) {
        self.settle(phone).unwrap();
        let status = phone.status();
        assert!(matches!(status, SyncStatus::Live { .. }), "{status:?}");
        assert_eq!(phone.outbox(), [0; 0], "nothing waits");
        assert_eq!(phone.rows(&notes()), self.rows());
        assert_eq!(phone.meta().cursor, self.meta().head);
    }
}
