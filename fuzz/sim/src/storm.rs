//! Faults: what the world does to disks, lines, clocks and directories.

use std::sync::atomic::Ordering;

use lastword::core::codec;
use lastword::core::protocol::Message;
use lastword::core::protocol::replica::Input;
use lastword::node::{DeviceNode, Environment};
use lastword::store::{Disk, Fault, FileKind, History, MemoryDisk, Survival, read};

use crate::check;
use crate::fault::Violation;
use crate::net::Line;
use crate::plan::Act;
use crate::random::Random;
use crate::world::{Device, Done, MAX_DEVICES, World, broken};

/// A store fails within so many writes and syncs.
const SOON: u64 = 8;
/// A disk stays full for so many steps.
const FULL_STEPS: u64 = 25;
/// Bytes that still fit on a full disk, at most.
const ROOM: u64 = 16 << 10;
/// A clock jumps by up to this much: ten years.
const JUMP_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

fn set_fault(disk: &MemoryDisk, power: bool, after: u64) {
    let fault = if power { Fault::PowerCut } else { Fault::Once };
    disk.set_fault(Some((disk.operations() + after, fault)));
}

/// What is done when a disk has been spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Purge,
    Job,
    Nothing,
}

impl Work {
    fn random(random: &mut Random) -> Self {
        match random.below(5) {
            0 | 1 => Work::Purge,
            2 => Work::Job,
            _ => Work::Nothing,
        }
    }
}

impl World {
    pub fn device_wall(&self, at: usize) -> i64 {
        self.devices[at].clock.now_ms()
    }

    /// One of the next writes or syncs of a device fails.
    pub fn spoil_device(&mut self, at: usize, act: Act) -> Result<bool, Violation> {
        let work = Work::random(&mut self.random);
        let power = act == Act::DeviceCrash;
        let after = self.soon(power, work);
        let device = &mut self.devices[at];
        device.power = power;
        set_fault(&device.disk, power, after);
        self.work_on_it(at, work)
    }

    /// One of the next writes or syncs of the authority fails.
    pub fn spoil(&mut self, at: usize, act: Act) -> Result<bool, Violation> {
        let work = Work::random(&mut self.random);
        self.power = act == Act::Crash;
        let after = self.soon(self.power, work);
        set_fault(&self.disk, self.power, after);
        self.work_on_it(at, work)
    }

    /// Which of the next operations fails. A commit is a write and a sync, and only between the
    /// two the power can tear something: mostly it is cut at the sync. A purge is a few commits.
    fn soon(&mut self, power: bool, work: Work) -> u64 {
        let after = self.random.below(if work == Work::Purge { 2 } else { SOON });
        if power && !self.random.once_in(4) { after | 1 } else { after }
    }

    /// Now and then a disk is spoilt while upkeep is at it.
    fn work_on_it(&mut self, at: usize, work: Work) -> Result<bool, Violation> {
        match work {
            Work::Purge => {
                self.purge()?;
            }
            Work::Job => {
                self.begin_job(at)?;
                self.finish_job(at)?;
            }
            Work::Nothing => {}
        }
        Ok(true)
    }

    /// A fault that every device has to find its way back from.
    pub fn met_by_all(&mut self, act: Act) {
        for device in &mut self.devices {
            device.faults.insert(act);
        }
    }

    pub fn fill_device(&mut self, at: usize) -> bool {
        let room = self.random.below(ROOM);
        let device = &mut self.devices[at];
        device.disk.set_room(Some(room));
        device.full = FULL_STEPS;
        device.faults.insert(Act::DeviceFull);
        true
    }

    pub fn fill(&mut self) -> bool {
        self.disk.set_room(Some(self.random.below(ROOM)));
        self.full = FULL_STEPS;
        true
    }

    /// Somebody makes room on full disks after a while.
    pub fn make_room_again(&mut self) -> Done {
        for device in self.devices.iter_mut().filter(|device| device.full > 0) {
            device.full -= 1;
            if device.full == 0 {
                device.disk.set_room(None);
            }
        }
        if self.full > 0 {
            self.full -= 1;
            if self.full == 0 {
                self.disk.set_room(None);
            }
        }
        Ok(())
    }

    /// A connection breaks; only one end knows it of one that is half open.
    pub fn cut(&mut self, at: usize, act: Act) -> bool {
        let both = act == Act::Cut;
        let Some(number) = self.net.of(at) else { return false };
        let device_knows = both || self.random.once_in(2);
        let Some(line) = self.net.lines.get_mut(&number) else { return false };
        line.up.clear();
        line.down.clear();
        if device_knows {
            line.device_open = false;
            self.input(at, Input::Disconnected { reason: "the connection broke".into() });
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
        self.devices[at].faults.insert(act);
        true
    }

    /// Nothing arrives at one end of a connection any more, or it becomes slow.
    pub fn hinder(&mut self, at: usize, act: Act) -> bool {
        let (way, slow) = (self.random.below(2) as usize, 2 + self.random.below(200));
        let number = self.net.of(at);
        let Some(line) = number.and_then(|number| self.net.lines.get_mut(&number)) else {
            return false;
        };
        match act {
            Act::OneWay => line.mute[way] = true,
            _ => line.slow = slow,
        }
        self.devices[at].faults.insert(act);
        true
    }

    /// A clock jumps.
    pub fn jump(&mut self, at: usize, act: Act) -> bool {
        self.files.jumped = true;
        let far = if self.random.once_in(2) { JUMP_MS } else { 3600 * 1000 };
        let by = self.random.below(2 * far) as i64 - far as i64;
        match act {
            Act::Clock => {
                self.clock.skew_ms.fetch_add(by, Ordering::SeqCst);
                self.met_by_all(act);
            }
            _ => {
                self.devices[at].clock.skew_ms.fetch_add(by, Ordering::SeqCst);
                self.devices[at].faults.insert(act);
            }
        }
        true
    }

    /// A device's directory is copied, and both are used from now on.
    pub fn copy(&mut self, at: usize) -> Result<bool, Violation> {
        if self.devices.len() >= MAX_DEVICES {
            return Ok(false);
        }
        self.copied = true;
        let copy = self.devices[at].copied(&self.source);
        if let Some(held) = self.files.held.get(&at).cloned() {
            self.files.held.insert(self.devices.len(), held);
        }
        self.devices[at].faults.insert(Act::Copy);
        self.devices.push(copy);
        self.open_device(self.devices.len() - 1)?;
        Ok(true)
    }

    /// A device loses all it has and begins anew.
    pub fn wipe(&mut self, at: usize) -> Result<bool, Violation> {
        if let Some(app) = self.devices[at].app.take() {
            app.kill();
        }
        self.hang_up(at);
        self.files.held.remove(&at);
        self.files.stored_at.retain(|(who, _), _| *who != Some(at));
        let Device { clock, user, app_schema, .. } = &self.devices[at];
        let skew_ms = clock.skew_ms.load(Ordering::SeqCst);
        let fresh = Device::new(&self.source, user.clone(), skew_ms);
        self.devices[at] = Device { app_schema: *app_schema, ..fresh };
        self.devices[at].faults.insert(Act::Wipe);
        self.open_device(at)?;
        Ok(true)
    }

    /// I14, I15: a bit of a copy of a device's state flips. It opens or says why not, and each row
    /// that it shows is right. One that a flipped key hides comes back with the next fold.
    pub fn rot(&mut self, at: usize) -> Result<bool, Violation> {
        if !self.checks {
            return Ok(true);
        }
        // Only copies are looked at: what comes after is the same without.
        let random = self.random.clone();
        let looked = self.flip(at);
        self.random = random;
        looked.map(|()| true)
    }

    fn flip(&mut self, at: usize) -> Done {
        let image = self.devices[at].disk.after_power_cut(Survival::Kept);
        let files = image.list().map_err(|error| broken("a list of files", &error))?;
        let states: Vec<_> = files.into_iter().filter(|f| f.kind == FileKind::State).collect();
        let pick = self.random.below(states.len() as u64) as usize;
        let Some(file) = states.get(pick) else { return Ok(()) };
        let bit = self.random.below(file.len * 8) as usize;
        let right = self.scratch(at, &image)?;
        image.flip(file.number, bit);
        let Ok(flipped) = self.scratch(at, &image) else { return Ok(()) };
        let (Some(right), Some(mut flipped)) = (right, flipped) else { return Ok(()) };
        for workspace in &self.workspaces {
            let told = "a row that was right before a bit flipped";
            let Ok(expected) = check::rows(&right.view(), workspace) else { continue };
            let Ok(mut found) = check::rows(&flipped.view(), workspace) else { continue };
            let is_hidden = |name| !found.rows.contains_key(name);
            if expected.rows.keys().any(is_hidden) {
                let now_ms = self.device_wall(at);
                let history = History { now_ms, keep_ms: 0, erased_before: 0 };
                if flipped.store().fold(&history).is_err() {
                    continue;
                }
                let Ok(again) = check::rows(&flipped.view(), workspace) else { continue };
                found = again;
            }
            if expected.rows != found.rows {
                let text = format!("{told}: {}", check::difference(&expected.rows, &found.rows));
                return Err(Violation::new("I14", text));
            }
        }
        Ok(())
    }

    /// A party on a disk of its own, to look at.
    fn scratch(&mut self, at: usize, disk: &MemoryDisk) -> Result<Option<DeviceNode>, Violation> {
        let settings = self.settings();
        let wall = self.device_wall(at);
        let disk = std::sync::Arc::new(disk.after_power_cut(Survival::Kept));
        Ok(DeviceNode::open(disk, settings, wall).ok().map(|(node, _)| node))
    }

    /// A batch that was decided comes again under its id, with other content.
    pub fn forge(&mut self, at: usize) -> Result<bool, Violation> {
        let workspace = self.any_workspace();
        let Some(app) = &self.devices[at].app else { return Ok(false) };
        let Ok(device) = app.with(|node| Ok(read::identity(&*node.view())?)) else {
            return Ok(false);
        };
        let decided = self.oracle.workspaces.get(&workspace);
        let decided = decided.into_iter().flat_map(|folded| folded.decided.keys());
        let Some(number) = self.net.of(at) else { return Ok(false) };
        let of_device = |id: &&lastword::core::id::BatchId| {
            let written = self.oracle.written.get(*id).and_then(|all| all.first());
            device.as_ref().zip(written).is_some_and(|(is, by)| is.device == by.device)
        };
        let Some(id) = decided.copied().collect::<Vec<_>>().iter().find(of_device).copied() else {
            return Ok(false);
        };
        let Some(written) = self.oracle.written[&id].first() else { return Ok(false) };
        let mut ops = written.ops.clone();
        ops.truncate(1);
        let Some(op) = ops.first_mut() else { return Ok(false) };
        op.revision += 1;
        let (device, former, counter, created_ms) = (written.device, Vec::new(), 1, 0);
        let batch = lastword::core::op::Batch {
            device,
            counter,
            batch_id: id,
            created_ms,
            strict: false,
            former,
            ops,
        };
        let Some(line) = self.net.lines.get_mut(&number) else { return Ok(false) };
        let Some(attachment) = line.attachments.get(workspace.as_str()).copied() else {
            return Ok(false);
        };
        let bytes = codec::to_bytes(&Message::Push { attachment, batch });
        Line::put(&mut line.up, self.now + 1, bytes);
        self.devices[at].faults.insert(Act::Forge);
        Ok(true)
    }
}
