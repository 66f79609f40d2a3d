//! Tests of an app that syncs: a server and devices in one process, without threads, sockets,
//! files or sleeps, the same in every run.
//!
//! A [`Device`] has the ordinary [`Database`](crate::Database): what an app does with a
//! [`Workspace`](crate::Workspace) it does here too. Nothing moves between devices and server
//! unless the test says so: [`Cluster::settle`] until all is quiet, [`Cluster::sync`] for one
//! device alone.
//!
//! ```
//! use lastword::testing::Cluster;
//! use lastword::{CONFLICTS, Database, Table};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Note {
//!     id: String,
//!     text: String,
//! }
//! const NOTES: Table<Note> = Table::new("notes", "id");
//!
//! // As the app opens its database, but for the directory.
//! let mut cluster = Cluster::with(Database::builder().tables(NOTES));
//! let (phone, laptop) = (cluster.device("phone")?, cluster.device("laptop")?);
//! let (ours, theirs) = (phone.workspace("acme")?, laptop.workspace("acme")?);
//!
//! ours.write(|tx| tx.put(NOTES, &Note { id: "n1".into(), text: "Hello".into() }))?;
//! assert!(theirs.get(NOTES, "n1")?.is_none());
//! cluster.settle()?;
//! assert_eq!(theirs.get(NOTES, "n1")?.expect("it came").text, "Hello");
//!
//! // Both edit the note in a tunnel; the phone comes out first.
//! cluster.offline(&phone)?;
//! cluster.offline(&laptop)?;
//! ours.write(|tx| tx.update(NOTES, "n1", |note| note.text.push('!')))?;
//! theirs.write(|tx| tx.update(NOTES, "n1", |note| note.text.push('?')))?;
//! cluster.online(&phone);
//! cluster.settle()?;
//! cluster.online(&laptop);
//! cluster.settle()?;
//! assert_eq!(ours.get(NOTES, "n1")?.expect("it stays").text, "Hello?");
//! assert_eq!(ours.query(&CONFLICTS.all())?.len(), 1);
//! cluster.assert_equal();
//! # Ok::<(), lastword::Error>(())
//! ```
//!
//! What waits for others, such as `Live::recv` or `Receipt::wait`, waits for ever here unless what
//! it waits for is there: ask with `recv_timeout` of zero and `Receipt::verdict`. Hooks run in
//! [`Cluster::settle`] and [`Cluster::sync`].
//!
//! Not here: folds of the log, and what only real threads and disks can do. The simulator of the
//! project has those.

mod clock;
mod line;
mod device;
mod difference;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lastword_core::id::{BatchId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::protocol::Role;
use lastword_core::protocol::replica::Input;
use lastword_core::schema::Schema;
use lastword_core::value::Record;
use lastword_store::{MemoryDisk, Survival, read};

pub use device::Device;
pub use line::Way;

use crate::database::Builder;
use crate::environment::Environment;
use crate::error::Result;
use crate::members::MemberList;
use crate::node::{AuthorityNode, Outgoing, ToLink, Users, make_room};
use crate::survivors::Survivor;
use crate::view::WorkspaceView;
use clock::Clock;
use line::Line;

/// Time that [`Cluster::settle`] lets pass at most until everybody is in step, in milliseconds:
/// many times the longest wait between two attempts.
const MOST_WAIT_MS: u64 = 10 * 60 * 1000;
/// Differences that [`Cluster::assert_equal`] names.
const MOST_NAMED: usize = 20;

/// Everything is kept for longer than this, in milliseconds.
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a restore takes: until the second of the seqs that it begins with is over.
const RESTORE: Duration = Duration::from_secs(2);

/// A copy of what a server has; see [`Cluster::backup_server`].
#[derive(Debug)]
pub struct ServerBackup {
    disk: MemoryDisk,
}

/// A server and its devices; see [the module](self).
pub struct Cluster {
    clock: Arc<Clock>,
    settings: Builder,
    disk: MemoryDisk,
    server: AuthorityNode,
    schema: Option<Schema>,
    max_records: Option<u64>,
    roles: Roles,
    devices: Vec<Device>,
    /// One for each device.
    lines: Vec<Line>,
    connections: u64,
}

/// Everybody is who they say, and owns every workspace until the first [`Cluster::set_role`].
#[derive(Default)]
struct Roles {
    said: BTreeMap<String, Option<Role>>,
    /// What the server was given last.
    list: MemberList,
}

impl Users for Roles {
    fn authenticate(&self, token: &str) -> std::result::Result<String, String> {
        Ok(token.to_owned())
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({:?})", self.devices)
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Cluster {
    /// A server, and devices whose apps declare nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Builder::default())
    }

    /// A server, and devices whose apps open their database with these settings. What they say of
    /// history and of damage has no effect here.
    #[must_use]
    pub fn with(settings: Builder) -> Self {
        let (clock, disk) = (Arc::new(Clock::default()), device::new_disk());
        let server = open_server(&disk, None, &clock).expect("invariant: an empty disk opens");
        let (schema, roles, devices, lines, connections) = Default::default();
        let max_records = None;
        Self {
            clock,
            settings,
            disk,
            server,
            schema,
            max_records,
            roles,
            devices,
            lines,
            connections,
        }
    }

    /// A new device, whose user has the same name.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn device(&mut self, name: &str) -> Result<Device> {
        self.device_with(name, name, self.settings.clone())
    }

    /// A new device of a user, whose app opens its database with other settings.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn device_with(&mut self, name: &str, user: &str, settings: Builder) -> Result<Device> {
        self.add(name, user, settings, device::new_disk())
    }

    /// A device that begins with a copy of what another has on its disk, as if its directory had
    /// been copied.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn copy(&mut self, device: &Device, name: &str, user: &str) -> Result<Device> {
        self.add(name, user, self.settings.clone(), device.disk())
    }

    fn add(
        &mut self,
        name: &str,
        user: &str,
        settings: Builder,
        disk: MemoryDisk,
    ) -> Result<Device> {
        let number = self.devices.len();
        let device = Device::open(number, (name, user), settings, disk, &self.clock)?;
        self.devices.push(device.clone());
        self.lines.push(Line::default());
        Ok(device)
    }

    /// Everything that can move does, until nothing does: all devices but those that are offline.
    /// If one of them waits for its next attempt to connect, time passes until then.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if a disk is damaged.
    pub fn settle(&mut self) -> Result<()> {
        let online: Vec<usize> = self.numbers().filter(|at| !self.lines[*at].offline).collect();
        self.settle_those(&online)
    }

    /// One device talks to the server until nothing moves between them; the others hear of it
    /// later. One that is offline is online for this.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if a disk is damaged.
    pub fn sync(&mut self, device: &Device) -> Result<()> {
        let at = device.number;
        let offline = std::mem::take(&mut self.lines[at].offline);
        self.settle_those(&[at])?;
        if offline { self.offline(device) } else { Ok(()) }
    }

    /// The device reaches nobody from now on; what was on its way is lost.
    ///
    /// # Errors
    /// [`crate::Error::Closed`] if its database was closed.
    pub fn offline(&mut self, device: &Device) -> Result<()> {
        self.lines[device.number].offline = true;
        self.cut(device)?;
        self.link(device.number).map(drop)
    }

    /// The device reaches the server again.
    pub fn online(&mut self, device: &Device) {
        self.lines[device.number].offline = false;
    }

    /// The device's connection breaks; what was on its way is lost. It may connect again.
    ///
    /// # Errors
    /// [`crate::Error::Closed`] if its database was closed.
    pub fn cut(&mut self, device: &Device) -> Result<()> {
        match self.hang_up(device.number) {
            true => device.input(Input::Disconnected { reason: "the connection broke".into() }),
            false => Ok(()),
        }
    }

    /// What is sent that way stays on its way: until [`Cluster::release`] it is late, and with
    /// [`Cluster::cut`] it is lost.
    pub fn hold(&mut self, device: &Device, way: Way) {
        self.let_pass(device, way, 0);
    }

    /// So many messages arrive that way, with the next [`Cluster::settle`] or [`Cluster::sync`];
    /// what is sent behind them stays on its way.
    pub fn let_pass(&mut self, device: &Device, way: Way, messages: usize) {
        self.lines[device.number].let_pass(way, Some(messages));
    }

    /// What was held arrives from now on.
    pub fn release(&mut self, device: &Device) {
        let line = &mut self.lines[device.number];
        line.let_pass(Way::Up, None);
        line.let_pass(Way::Down, None);
    }

    /// Time passes. What it makes due happens with the next [`Cluster::settle`]: attempts, and
    /// forgetting what is not kept any longer. A workspace is as late as the newest op in it, so
    /// after a long time somebody has to write before its tombstones and conflicts go.
    ///
    /// # Errors
    /// [`crate::Error::Closed`] if a database was closed.
    pub fn advance(&mut self, by: Duration) -> Result<()> {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.set_time(self.clock.elapsed_ms().saturating_add(by_ms))
    }

    /// The clock of a device is wrong from now on: so many milliseconds ahead of the server's, or
    /// behind it if negative.
    pub fn set_clock_ahead(&mut self, device: &Device, ahead_ms: i64) {
        device.set_ahead(ahead_ms);
    }

    /// Wall time of the server, milliseconds since 1970 UTC.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// The app on the device is closed in good order and opened again. Handles of its database are
    /// closed: ask the device for new ones.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn restart(&mut self, device: &Device) -> Result<()> {
        self.hang_up(device.number);
        device.restart(None, false)
    }

    /// As [`Cluster::restart`]; the app is another version of itself now.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn restart_with(&mut self, device: &Device, settings: Builder) -> Result<()> {
        self.hang_up(device.number);
        device.restart(Some(settings), false)
    }

    /// The device loses its power, and with it whatever was not durable; the app is opened again.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn kill(&mut self, device: &Device) -> Result<()> {
        self.hang_up(device.number);
        device.restart(None, true)
    }

    /// The server loses its power, and with it whatever was not durable; it is started again.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk is damaged.
    pub fn kill_server(&mut self) -> Result<()> {
        for device in self.devices.clone() {
            self.cut(&device)?;
        }
        self.disk = self.disk.after_power_cut(Survival::Dropped);
        self.server = open_server(&self.disk, self.schema.as_ref(), &self.clock)?;
        self.max_records.into_iter().for_each(|max| self.server.limit_records(max));
        self.roles.list = MemberList::default();
        Ok(())
    }

    /// What a backup of the server holds that is made now.
    #[must_use]
    pub fn backup_server(&self) -> ServerBackup {
        ServerBackup { disk: self.disk.after_power_cut(Survival::Kept) }
    }

    /// The server is gone; one that is restored from the backup takes its place, and goes on under
    /// another history. Takes two seconds, as long as a restore lasts at least.
    ///
    /// # Errors
    /// [`crate::Error::Store`] if the disk is damaged.
    pub fn restore_server(&mut self, backup: &ServerBackup) -> Result<()> {
        for device in self.devices.clone() {
            self.cut(&device)?;
        }
        self.disk = backup.disk.after_power_cut(Survival::Kept);
        let mut server = open_server(&self.disk, None, &self.clock)?;
        let clock = Arc::clone(&self.clock);
        let mut epoch = move || Epoch(clock.random());
        server.renew(self.clock.now_ms(), &mut epoch)?;
        if let Some(schema) = &self.schema {
            server.adopt(schema.clone())?;
        }
        self.server = server;
        self.max_records.into_iter().for_each(|max| self.server.limit_records(max));
        self.roles.list = MemberList::default();
        self.advance(RESTORE)
    }

    /// Has a restored server write back what devices brought back of what it lost; devices get it
    /// with what follows.
    ///
    /// # Errors
    /// As [`crate::Authority::recover`].
    pub fn recover(&mut self, workspace: &str) -> Result<Vec<Survivor>> {
        let workspace = WorkspaceName::new(workspace)?;
        let clock = Arc::clone(&self.clock);
        let batch_ids = move || BatchId(clock.random());
        let done = self.server.recover(&workspace, batch_ids, self.clock.now_ms())?;
        self.decide()?;
        Ok(done)
    }

    /// Sets and removes fields that the server owns.
    ///
    /// # Errors
    /// As [`crate::Authority::set_owned`].
    pub fn set_owned(
        &mut self,
        workspace: &str,
        (table, key): (&TableName, &Key),
        set: Record,
        remove: Vec<String>,
    ) -> Result<u64> {
        let (workspace, wall) = (WorkspaceName::new(workspace)?, self.clock.now_ms());
        let seq = self.server.set_owned(&workspace, (table, key), set, remove, wall)?;
        self.decide()?;
        Ok(seq)
    }

    /// Deletes a workspace at the server; devices hear of it at once.
    ///
    /// # Errors
    /// As [`crate::Authority::delete_workspace`].
    pub fn delete_workspace(&mut self, workspace: &str) -> Result<u64> {
        let (workspace, wall) = (WorkspaceName::new(workspace)?, self.clock.now_ms());
        let rows = self.server.delete_workspace(&workspace, self.clock.elapsed_ms(), wall)?;
        self.decide()?;
        Ok(rows)
    }

    /// What the server shows of a workspace.
    ///
    /// # Errors
    /// [`crate::Error::Name`] if the name is not valid, [`crate::Error::Store`] if the disk fails.
    pub fn server(&self, workspace: &str) -> Result<WorkspaceView> {
        self.view_of(&WorkspaceName::new(workspace)?)
    }

    fn view_of(&self, workspace: &WorkspaceName) -> Result<WorkspaceView> {
        WorkspaceView::new(workspace.clone(), self.server.view(), Arc::default())
    }

    /// The user has this role in every workspace, or none: no member. Others keep the role that
    /// they have, editor if none was said. What is decided from here on is decided by it, and
    /// devices hear of it at once.
    ///
    /// # Errors
    /// [`crate::Error::Name`] if the name of a user is not one that a member can have.
    pub fn set_role(&mut self, user: &str, role: Option<Role>) -> Result<()> {
        Key::new(user)?;
        self.roles.said.insert(user.to_owned(), role);
        self.admit()
    }

    /// Tells the server who may do what in the workspaces that there are now.
    fn admit(&mut self) -> Result<()> {
        if self.roles.said.is_empty() {
            return Ok(());
        }
        let view = self.server.view();
        let known = read::workspaces(&*view)?.into_iter().map(|(workspace, _)| workspace);
        let mut workspaces: BTreeSet<WorkspaceName> = known.collect();
        self.devices.iter().for_each(|device| workspaces.extend(device.attached()));
        let mut list = MemberList::default();
        for workspace in workspaces.into_iter().filter(|workspace| !workspace.is_reserved()) {
            for device in &self.devices {
                let user = device.user();
                let said = self.roles.said.get(user).copied();
                if let Some(role) = said.unwrap_or(Some(Role::Editor)) {
                    list.add(workspace.clone(), Key::new(user)?, role);
                }
            }
        }
        if list != self.roles.list {
            self.roles.list = list.clone();
            self.server.admit(list);
        }
        Ok(())
    }

    /// Gives every workspace of the server this schema, those to come too. A device hears of it
    /// when it connects.
    ///
    /// # Errors
    /// As [`crate::Authority::adopt`].
    pub fn set_schema(&mut self, schema: Schema) -> Result<()> {
        self.server.adopt(schema.clone())?;
        self.schema = Some(schema);
        Ok(())
    }

    /// The server takes no batch that leaves a workspace with more live records than this.
    pub fn limit_records(&mut self, max_records: u64) {
        self.max_records = Some(max_records);
        self.server.limit_records(max_records);
    }

    /// One line for each record that a device shows otherwise than the server, for people: values,
    /// seqs and tombstones count, tables that are local do not.
    ///
    /// # Errors
    /// [`crate::Error::Closed`] if a database was closed, [`crate::Error::Store`] if a disk fails.
    pub fn differences(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for device in &self.devices {
            for workspace in device.attached() {
                lines.extend(difference::of(device, &workspace, &self.view_of(&workspace)?)?);
            }
        }
        Ok(lines)
    }

    /// Panics with the first [differences](Cluster::differences) if there are any, so that a test
    /// fails.
    #[track_caller]
    pub fn assert_equal(&self) {
        let mut lines = match self.differences() {
            Ok(lines) => lines,
            Err(error) => vec![error.to_string()],
        };
        let more = lines.len().saturating_sub(MOST_NAMED);
        lines.truncate(MOST_NAMED);
        let lines = lines.join("\n");
        assert!(lines.is_empty(), "the devices differ from the server:\n{lines}\n({more} more)");
    }

    fn numbers(&self) -> std::ops::Range<usize> {
        0..self.devices.len()
    }

    fn settle_those(&mut self, who: &[usize]) -> Result<()> {
        let begin = self.clock.elapsed_ms();
        loop {
            while self.turn(who)? || self.forget(who)? {}
            let wakes = |at: &usize| {
                // Over a connection that holds messages back nobody gets in step.
                let line = &self.lines[*at];
                let is_free = line.open.is_none() || !line.is_held();
                self.devices[*at].wakes_at().filter(|_| is_free)
            };
            let Some(at) = who.iter().filter_map(wakes).min() else { return Ok(()) };
            let waited = at.saturating_sub(begin);
            assert!(waited <= MOST_WAIT_MS, "invariant: whoever can connect gets in step");
            self.set_time(at.max(self.clock.elapsed_ms()))?;
        }
    }

    /// Each of them does what it can, and what it said arrives; whether there was anything.
    fn turn(&mut self, who: &[usize]) -> Result<bool> {
        let mut moved = false;
        self.admit()?;
        for &at in who {
            moved |= self.devices[at].work()?;
            moved |= self.link(at)?;
        }
        for &at in who {
            moved |= self.arrive_up(at);
        }
        moved |= self.serve()?;
        for &at in who {
            moved |= self.arrive_down(at)?;
        }
        Ok(moved)
    }

    /// Server and devices forget what they keep no longer; whether there was anything.
    fn forget(&mut self, who: &[usize]) -> Result<bool> {
        if self.clock.elapsed_ms() < KEPT_MS {
            return Ok(false);
        }
        if device::forget(self.server.store(), self.clock.now_ms())? {
            // Devices that are connected hear that the horizon has moved.
            self.decide()?;
            self.collect();
            return Ok(true);
        }
        let mut changed = false;
        for &at in who {
            changed |= self.devices[at].forget()?;
        }
        Ok(changed)
    }

    /// Carries out what a device wants of its connection.
    fn link(&mut self, at: usize) -> Result<bool> {
        let (device, mut moved) = (self.devices[at].clone(), false);
        while let Some(wanted) = device.to_link()? {
            moved = true;
            match wanted {
                ToLink::FetchToken => device.input(Input::Token(Ok(device.user().to_owned())))?,
                ToLink::Message(message) => self.lines[at].send_up(message),
                ToLink::Close => drop(self.hang_up(at)),
                ToLink::Connect if self.lines[at].offline => {
                    device.input(Input::Disconnected { reason: "no network".into() })?;
                }
                ToLink::Connect => {
                    self.hang_up(at);
                    self.connections += 1;
                    self.lines[at].open(self.connections);
                    let (now, wall) = (self.clock.elapsed_ms(), self.clock.now_ms());
                    self.server.connect(self.connections, now, &self.roles, wall);
                    device.input(Input::Connected)?;
                }
            }
        }
        Ok(moved)
    }

    fn arrive_up(&mut self, at: usize) -> bool {
        let mut moved = false;
        while let Some(message) = self.lines[at].next_up() {
            moved = true;
            let (now, wall) = (self.clock.elapsed_ms(), self.clock.now_ms());
            if let Some(number) = self.lines[at].open {
                self.server.message(number, message, now, &self.roles, wall);
            }
        }
        moved
    }

    /// The server decides what it was sent, and answers.
    fn serve(&mut self) -> Result<bool> {
        let mut moved = false;
        while self.server.has_jobs() {
            moved = true;
            self.decide()?;
        }
        self.collect();
        Ok(moved)
    }

    fn decide(&mut self) -> Result<()> {
        let epoch = Epoch(self.clock.random());
        let (now, wall) = (self.clock.elapsed_ms(), self.clock.now_ms());
        self.server.step(now, &self.roles, wall, epoch)?;
        Ok(make_room(self.server.store())?)
    }

    /// What the server has said is on its way.
    fn collect(&mut self) {
        for line in &mut self.lines {
            let Some(number) = line.open else { continue };
            while let Some(outgoing) = self.server.outgoing(number) {
                line.send_down(outgoing);
            }
        }
    }

    fn arrive_down(&mut self, at: usize) -> Result<bool> {
        let mut moved = false;
        while let Some(outgoing) = self.lines[at].next_down() {
            moved = true;
            match outgoing {
                Outgoing::Message(message) => self.devices[at].input(Input::Message(message))?,
                Outgoing::Close { reason, .. } => {
                    self.hang_up(at);
                    self.devices[at].input(Input::Disconnected { reason })?;
                }
            }
        }
        Ok(moved)
    }

    /// The connection of a device ends, for the server too; false if there was none.
    fn hang_up(&mut self, at: usize) -> bool {
        let Some(number) = self.lines[at].close() else { return false };
        self.server.disconnect(number);
        true
    }

    fn set_time(&mut self, elapsed_ms: u64) -> Result<()> {
        self.clock.set(elapsed_ms);
        let wall = self.clock.now_ms();
        self.server.time(elapsed_ms, &self.roles, wall);
        self.devices.iter().try_for_each(Device::wake)?;
        // Whoever is offline tries in vain; the others get their turn.
        let offline: Vec<usize> = self.numbers().filter(|at| self.lines[*at].offline).collect();
        offline.into_iter().try_for_each(|at| self.link(at).map(drop))
    }
}

fn open_server(disk: &MemoryDisk, schema: Option<&Schema>, clock: &Clock) -> Result<AuthorityNode> {
    let options = device::store_options(clock);
    let (mut server, _) = AuthorityNode::open(Arc::new(disk.clone()), options, clock.now_ms())?;
    if let Some(schema) = schema {
        server.adopt(schema.clone())?;
    }
    Ok(server)
}
