//! What devices, the authority and the network do in a run.

use lastword::core::id::{BatchId, Epoch, Key, TableName, WorkspaceName};
use lastword::core::protocol::replica::Input;
use lastword::core::value::{Field, Record, Value};
use lastword::node::{Outgoing, ToLink};
use lastword::store::payload::Payload;
use lastword::store::purge::{Found, PurgeWalk, Retention};
use lastword::store::{Store, StoreError, read};
use lastword::{Error, Tx};

use crate::check;
use crate::fault::Violation;
use crate::net::Line;
use crate::plan::Event;
use crate::random::Random;
use crate::world::{Done, Everybody, World, broken};

/// A table that syncs, and one that stays on its device.
pub const TABLES: [&str; 2] = ["notes", "drafts"];

/// One op of a write.
struct Edit {
    table: TableName,
    key: Key,
    how: u64,
    value: i64,
}

impl Edit {
    fn random(random: &mut Random, keys: u64, value: i64) -> Self {
        let table = TABLES[usize::from(random.once_in(8))];
        let key = format!("k{}", random.below(keys));
        let (table, key) = (TableName::new(table), Key::new(&key));
        let (table, key) = (table.expect("invariant: a name"), key.expect("invariant: a key"));
        Self { table, key, how: random.below(10), value }
    }

    /// What is not possible as the record is now is left out.
    fn carry_out(&self, tx: &mut Tx) -> Result<(), Error> {
        let Self { table, key, how, value } = self;
        let value = Value::Int(*value);
        let field = ["a", "b", "c"][(how % 3) as usize];
        match how {
            0..=3 => {
                let fields = [("a".to_owned(), value.clone()), ("b".to_owned(), value)];
                ignore(tx.put_record(table, key, Record::new(&fields)?))
            }
            4..=6 => ignore(tx.update_record(table, key, |record| {
                record.remove("c");
                record.set(Field::new(field, &value));
            })),
            7 | 8 => ignore(tx.delete_record(table, key)),
            _ => ignore(tx.undelete_record(table, key)),
        }
    }
}

fn ignore(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(Error::NotFound { .. } | Error::NotDeleted { .. } | Error::Record { .. }) => Ok(()),
        done => done,
    }
}

impl World {
    /// A device writes a batch of one to three edits.
    pub(crate) fn write(&mut self, at: usize) -> Result<bool, Violation> {
        let workspace = self.any_workspace();
        let keys = self.plan.keys;
        let mut edits = Vec::new();
        for _ in 0..=self.random.below(3) {
            self.written += 1;
            edits.push(Edit::random(&mut self.random, keys, self.written as i64));
        }
        let batch_id = BatchId(self.random.bytes());
        let wall = self.wall(self.devices[at].skew_ms);
        let Some(node) = &mut self.devices[at].node else { return Ok(false) };
        let wrote = node.write(&workspace, batch_id, wall, |tx| {
            edits.iter().try_for_each(|edit| edit.carry_out(tx))
        });
        match wrote {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.devices[at].acknowledged.push((workspace.clone(), batch_id));
                self.remember_written(at, &workspace)?;
                self.tell_written(at)?;
                self.device_due(at)?;
                Ok(true)
            }
            Err(Error::OutboxFull { .. }) => Ok(false),
            Err(error) => self.device_failed(at, &error).map(|()| false),
        }
    }

    fn any_workspace(&mut self) -> WorkspaceName {
        let at = self.random.below(self.workspaces.len() as u64) as usize;
        self.workspaces[at].clone()
    }

    /// The oracle knows what was written from the device's own log.
    pub(crate) fn remember_written(&mut self, at: usize, workspace: &WorkspaceName) -> Done {
        let Some(node) = &mut self.devices[at].node else { return Ok(()) };
        let entries = read::outbox(&*node.view(), workspace, 0, usize::MAX);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.device_failed(at, &error.into()),
        };
        for (_, entry) in entries {
            if self.oracle.written.contains_key(&entry.batch_id) {
                continue;
            }
            let frame = node.store().view_handle().read_frame(entry.position);
            let frame = frame.map_err(|error| broken("the log of a device", &error))?;
            if let Ok(Payload::Local(local)) = Payload::from_frame(frame.kind, &frame.payload)
                && let Some(batch) = local.batch
            {
                self.oracle.written.insert(entry.batch_id, (batch.device, batch.ops));
            }
        }
        Ok(())
    }

    pub(crate) fn tell_written(&mut self, at: usize) -> Done {
        let now = self.now;
        let Some(node) = &mut self.devices[at].node else { return Ok(()) };
        if let Err(error) = node.tell_written(now) {
            return self.device_failed(at, &error);
        }
        self.link(at);
        Ok(())
    }

    /// The device's store does the next thing that its session asked for.
    pub(crate) fn device_step(&mut self, at: usize) -> Result<bool, Violation> {
        let (now, wall) = (self.now, self.wall(self.devices[at].skew_ms));
        let Some(node) = &mut self.devices[at].node else { return Ok(false) };
        if !node.has_requests() {
            return Ok(false);
        }
        if let Err(error) = node.step(now, wall) {
            return self.device_failed(at, &error).map(|()| false);
        }
        self.link(at);
        check::device(self, at)?;
        self.device_due(at)?;
        Ok(true)
    }

    /// A device's checkpoint, if its delta asks for one.
    pub(crate) fn device_due(&mut self, at: usize) -> Done {
        let node = self.devices[at].node.as_mut();
        match node.is_some_and(|node| node.store().wants_checkpoint()) {
            true => self.device_upkeep(at, Event::DeviceCheckpoint).map(drop),
            false => Ok(()),
        }
    }

    /// Carries out what a device's session wants of its link.
    pub(crate) fn link(&mut self, at: usize) {
        let now = self.now;
        loop {
            let Some(node) = &mut self.devices[at].node else { return };
            match node.to_link() {
                None => return,
                Some(ToLink::FetchToken) => node.input(now, Input::Token(Ok("ann".into()))),
                Some(ToLink::Close) => self.hang_up(at),
                Some(ToLink::Connect) => self.connect(at),
                Some(ToLink::Message(bytes)) => {
                    self.trace.update(&bytes);
                    let at_ms = now + self.random.below(self.plan.delay_ms) + 1;
                    let number = self.net.of(at);
                    if let Some(line) = number.and_then(|number| self.net.lines.get_mut(&number)) {
                        Line::put(&mut line.up, at_ms, bytes);
                    }
                }
            }
        }
    }

    fn connect(&mut self, at: usize) {
        self.hang_up(at);
        let (now, wall) = (self.now, self.wall(0));
        let input = match &mut self.authority {
            Some(authority) => {
                let number = self.net.open(at);
                authority.connect(number, now, &Everybody, wall);
                Input::Connected
            }
            None => Input::Disconnected { reason: "nobody answers".into() },
        };
        if let Some(node) = &mut self.devices[at].node {
            node.input(now, input);
        }
    }

    /// The device's end of its connection closes; the other end finds out later.
    pub(crate) fn hang_up(&mut self, at: usize) {
        let Some(number) = self.net.of(at) else { return };
        if let Some(line) = self.net.lines.get_mut(&number) {
            line.device_open = false;
        }
    }

    /// One message that is due arrives, or an end hears that the other is gone.
    pub(crate) fn deliver(&mut self) -> Result<bool, Violation> {
        let numbers: Vec<u64> = self.net.lines.keys().copied().collect();
        let at = self.random.below(numbers.len() as u64) as usize;
        let Some(number) = numbers.get(at).copied() else { return Ok(false) };
        let up = self.random.once_in(2);
        let now = self.now;
        let Some(line) = self.net.lines.get_mut(&number) else { return Ok(false) };
        let way = if up { &mut line.up } else { &mut line.down };
        let is_due = way.front().is_some_and(|(at, _)| *at <= now);
        if is_due && let Some((_, bytes)) = way.pop_front() {
            return if up {
                self.arrive_up(number, bytes)
            } else {
                self.arrive_down(number, bytes)
            };
        }
        let is_empty = way.is_empty();
        match (is_empty, line.device_open, line.authority_open) {
            (true, false, true) if up => {
                line.authority_open = false;
                if let Some(authority) = &mut self.authority {
                    authority.disconnect(number);
                }
            }
            (true, true, false) if !up => {
                let device = line.device;
                line.device_open = false;
                let reason = "the connection broke".into();
                if let Some(node) = &mut self.devices[device].node {
                    node.input(now, Input::Disconnected { reason });
                }
                self.link(device);
            }
            _ => return Ok(false),
        }
        self.net.tidy();
        Ok(true)
    }

    fn arrive_up(&mut self, number: u64, bytes: Vec<u8>) -> Result<bool, Violation> {
        let (now, wall) = (self.now, self.wall(0));
        let is_open = self.net.lines.get(&number).is_some_and(|line| line.authority_open);
        let Some(authority) = self.authority.as_mut().filter(|_| is_open) else {
            return Ok(false);
        };
        authority.message(number, bytes, now, &Everybody, wall);
        self.send_down();
        Ok(true)
    }

    fn arrive_down(&mut self, number: u64, bytes: Vec<u8>) -> Result<bool, Violation> {
        let Some(line) = self.net.lines.get(&number) else { return Ok(false) };
        let (device, is_open, now) = (line.device, line.device_open, self.now);
        let Some(node) = self.devices[device].node.as_mut().filter(|_| is_open) else {
            return Ok(false);
        };
        node.input(now, Input::Message(bytes));
        self.link(device);
        Ok(true)
    }

    /// Puts what the authority says on the lines.
    pub(crate) fn send_down(&mut self) {
        let Some(authority) = &mut self.authority else { return };
        for (number, line) in &mut self.net.lines {
            while let Some(outgoing) = authority.outgoing(*number) {
                match outgoing {
                    Outgoing::Message(bytes) => {
                        self.trace.update(&bytes);
                        let at = self.now + self.random.below(self.plan.delay_ms) + 1;
                        Line::put(&mut line.down, at, bytes);
                    }
                    Outgoing::Close { .. } => line.authority_open = false,
                }
            }
            if !line.authority_open {
                authority.disconnect(*number);
            }
        }
        self.net.tidy();
    }

    /// The authority decides a group.
    pub(crate) fn decide(&mut self) -> Result<bool, Violation> {
        let (now, wall) = (self.now, self.wall(0));
        let epoch = Epoch(self.random.bytes());
        let Some(authority) = &mut self.authority else { return Ok(false) };
        if !authority.has_jobs() {
            return Ok(false);
        }
        if let Err(error) = authority.step(now, &Everybody, wall, epoch) {
            return self.authority_failed(&error).map(|()| false);
        }
        self.send_down();
        check::log(self)?;
        let authority = self.authority.as_mut();
        if authority.is_some_and(|authority| authority.store().wants_checkpoint()) {
            self.upkeep(Event::Checkpoint)?;
        }
        Ok(true)
    }

    /// Time passes, mostly a little.
    pub(crate) fn time(&mut self) -> Result<bool, Violation> {
        let step = if self.random.once_in(10) { 20_000 } else { 500 };
        self.now += 1 + self.random.below(step);
        self.wake()?;
        Ok(true)
    }

    /// Tells everybody who asked to be woken.
    pub(crate) fn wake(&mut self) -> Done {
        let (now, wall) = (self.now, self.wall(0));
        if let Some(authority) = &mut self.authority {
            authority.time(now, &Everybody, wall);
        }
        self.send_down();
        for at in 0..self.devices.len() {
            if let Some(node) = &mut self.devices[at].node
                && node.wake_at().is_some_and(|wake| wake <= now)
            {
                node.input(now, Input::Time);
            }
            self.link(at);
        }
        Ok(())
    }

    /// A connection breaks; only one end knows it unless `both` do.
    pub(crate) fn cut(&mut self, at: usize, both: bool) -> bool {
        let Some(number) = self.net.of(at) else { return false };
        let (device_knows, now) = (both || self.random.once_in(2), self.now);
        let Some(line) = self.net.lines.get_mut(&number) else { return false };
        line.up.clear();
        line.down.clear();
        if device_knows {
            line.device_open = false;
            let reason = "the connection broke".into();
            if let Some(node) = &mut self.devices[at].node {
                node.input(now, Input::Disconnected { reason });
            }
        }
        if both || !device_knows {
            if let Some(line) = self.net.lines.get_mut(&number) {
                line.authority_open = false;
            }
            if let Some(authority) = &mut self.authority {
                authority.disconnect(number);
            }
        }
        self.net.tidy();
        self.link(at);
        true
    }

    /// A checkpoint, fold or rebuild of a device.
    pub(crate) fn device_upkeep(&mut self, at: usize, event: Event) -> Result<bool, Violation> {
        let wall = self.wall(self.devices[at].skew_ms);
        let Some(node) = &mut self.devices[at].node else { return Ok(false) };
        match keep_up(node.store(), event, wall) {
            Ok(did) => {
                check::device(self, at)?;
                Ok(did)
            }
            Err(error) => self.device_failed(at, &error.into()).map(|()| false),
        }
    }

    /// A checkpoint, fold or rebuild of the authority.
    pub(crate) fn upkeep(&mut self, event: Event) -> Result<bool, Violation> {
        let wall = self.wall(0);
        let Some(authority) = &mut self.authority else { return Ok(false) };
        match keep_up(authority.store(), event, wall) {
            Ok(did) => {
                check::authority(self)?;
                Ok(did)
            }
            Err(error) => self.authority_failed(&error.into()).map(|()| false),
        }
    }

    /// Everybody purges what is old.
    pub(crate) fn purge(&mut self) -> Result<bool, Violation> {
        let (wall, tombstones_ms) = (self.wall(0), self.plan.tombstones_ms);
        let retention =
            Retention { now_ms: wall, tombstones_ms, decisions_ms: i64::MAX / 4, stale: true };
        let mut did = false;
        for workspace in self.workspaces.clone() {
            if let Some(authority) = &mut self.authority {
                match purge(authority.store(), &workspace, &retention) {
                    Ok(purged) => did |= purged,
                    Err(error) => self.authority_failed(&error.into())?,
                }
            }
            check::log(self)?;
            for at in 0..self.devices.len() {
                if let Some(node) = &mut self.devices[at].node {
                    match purge(node.store(), &workspace, &retention) {
                        Ok(purged) => did |= purged,
                        Err(error) => self.device_failed(at, &error.into())?,
                    }
                }
            }
        }
        Ok(did)
    }
}

fn keep_up(store: &mut Store, event: Event, wall: i64) -> Result<bool, StoreError> {
    match event {
        Event::DeviceFold | Event::Fold => {
            let history = lastword::store::History { now_ms: wall, keep_ms: 0, erased_before: 0 };
            store.fold(&history)
        }
        Event::DeviceRebuild | Event::Rebuild => match store.begin_rebuild()? {
            Some(job) => store.finish_rebuild(job.run()).map(|()| true),
            None => Ok(false),
        },
        _ => store.checkpoint().map(|()| true),
    }
}

fn purge(
    store: &mut Store,
    workspace: &WorkspaceName,
    retention: &Retention,
) -> Result<bool, StoreError> {
    let mut walk = PurgeWalk::new(workspace.clone());
    let mut did = false;
    loop {
        match walk.next(store.newest(), retention)? {
            Found::Purge(purge) => {
                let payload = Payload::Purge(purge);
                store.append_urgent(payload.kind(), &payload.to_bytes())?;
                store.commit()?;
                did = true;
            }
            Found::More => {}
            Found::End => return Ok(did),
        }
    }
}
