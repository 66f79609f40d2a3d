//! Opening, closing, and what a disk that fails or loses power does to a party.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastword::core::id::DeviceId;
use lastword::core::value::Record;
use lastword::node::{AppNode, AuthorityNode, DeviceNode, DeviceSettings, Environment};
use lastword::store::keys::WorkspaceMeta;
use lastword::store::payload::{Payload, Sums};
use lastword::store::{Disk, Fault, MemoryDisk, OpenReport, StoreError, Survival};
use lastword::{Error, Result};

use crate::act::{LOCAL, app_of, table_name};
use crate::check;
use crate::fault::Violation;
use crate::plan::Act;
use crate::random::Random;
use crate::world::{Done, World, broken, options};

/// A party that crashes while it opens is opened again so many times.
const MAX_OPENINGS: usize = 4;
/// Stores that fail while another is opened again because it failed.
const MAX_FAILURES: u64 = 12;
/// Bytes of all files that an authority takes which has little room for them.
pub const ROOM_FOR_FILES: u64 = 200_000;
/// I11: disk operations and reads of an opening, beside those for each frame that is folded again.
const OPENING: u64 = 1000;
const PER_FRAME: u64 = 12;

/// What is left of a disk after a power cut.
fn after_cut(disk: &MemoryDisk, random: &mut Random) -> MemoryDisk {
    let survival = match random.below(6) {
        0 => Survival::Dropped,
        1 => Survival::Kept,
        _ => Survival::Torn(random.next()),
    };
    disk.after_power_cut(survival)
}

fn is_full(disk: &MemoryDisk, error: &Error) -> bool {
    matches!(error, Error::Store(_)) && disk.free_bytes().is_some()
}

impl World {
    pub fn settings(&mut self) -> DeviceSettings {
        DeviceSettings {
            store: options(&mut self.random, &self.setting),
            local_tables: vec![table_name(LOCAL)],
            new_device: DeviceId(self.random.bytes()),
            nonce: self.random.bytes(),
            seed: self.random.next(),
            max_undecided: self.setting.outbox,
        }
    }

    /// Opens the authority's store and gives it its schema and members.
    pub fn open_authority(&mut self) -> Done {
        self.start_authority()?;
        self.set_up()
    }

    pub fn start_authority(&mut self) -> Done {
        let begun = self.job.take().map_or("nothing", |job| job.name());
        self.files.forget(None);
        let job = self.beside(begun);
        let twin = self.twin(None);
        for attempt in 0..MAX_OPENINGS {
            self.cut_while_opening(None, attempt);
            let disk = Arc::new(self.disk.clone());
            let (wall, before) = (self.wall(), self.disk.operations() + self.disk.reads());
            match AuthorityNode::open(disk, options(&mut self.random, &self.setting), wall) {
                Ok((mut authority, report)) => {
                    self.disk.set_fault(None);
                    if self.setting.walk > 0 {
                        authority.walk_in_pages_of(self.setting.walk as usize);
                    }
                    if self.setting.files == 2 {
                        authority.limit_files(u64::MAX, ROOM_FOR_FILES);
                    }
                    self.authority = Some(authority);
                    let cost = self.disk.operations() + self.disk.reads() - before;
                    self.opened_again(None, (&report, cost), attempt, job)?;
                    self.same_as_twin(None, twin)?;
                    check::authority(self, "I12")?;
                    return self.files_after_opening(None);
                }
                Err(error) => self.not_opened(None, attempt, &error)?,
            }
        }
        Ok(())
    }

    pub fn open_device(&mut self, at: usize) -> Done {
        let begun = self.devices[at].job.take().map_or("nothing", |job| job.name());
        self.files.forget(Some(at));
        let job = self.beside(begun);
        self.devices[at].watches.clear();
        self.devices[at].known_rows.clear();
        self.devices[at].waiting.clear();
        self.devices[at].remembered.clear();
        self.devices[at].receipts.clear();
        let twin = self.twin(Some(at));
        for attempt in 0..MAX_OPENINGS {
            self.cut_while_opening(Some(at), attempt);
            let device = &self.devices[at];
            let app = app_of(device.app_schema, self.setting.outbox);
            let clock = Arc::clone(&device.clock) as Arc<dyn Environment>;
            let before = device.disk.operations() + device.disk.reads();
            let (disk, now) = (Arc::new(device.disk.clone()), self.now);
            let settings = self.settings();
            match self.start_app(at, AppNode::open("device", disk, settings, &app, (clock, now))) {
                Ok(app) => {
                    let device = &mut self.devices[at];
                    device.disk.set_fault(None);
                    let cost = device.disk.operations() + device.disk.reads() - before;
                    let report = app.database().open_report().clone();
                    device.app = Some(app);
                    self.opened_again(Some(at), (&report, cost), attempt, job)?;
                    self.same_as_twin(Some(at), twin)?;
                    for workspace in self.workspaces.clone() {
                        self.remember_written(at, &workspace)?;
                    }
                    self.link(at);
                    check::device(self, at)?;
                    return self.files_after_opening(Some(at));
                }
                Err(error) => self.not_opened(Some(at), attempt, &error)?,
            }
        }
        Ok(())
    }

    fn start_app(&self, _at: usize, app: Result<AppNode>) -> Result<AppNode> {
        let mut app = app?;
        self.workspaces.iter().try_for_each(|workspace| app.attach(workspace, self.now))?;
        Ok(app)
    }

    /// The background work at the time of a fault, or what was done in its place.
    fn beside(&self, begun: &'static str) -> &'static str {
        match self.doing {
            doing if begun == "nothing" && crate::reach::JOBS.contains(&doing) => doing,
            _ => begun,
        }
    }

    fn disk_of(&self, who: Option<usize>) -> &MemoryDisk {
        who.map_or(&self.disk, |at| &self.devices[at].disk)
    }

    /// Recovery may lose power too, but not for ever.
    fn cut_while_opening(&mut self, who: Option<usize>, attempt: usize) {
        let cut = attempt + 1 < MAX_OPENINGS && self.random.once_in(4);
        let after = self.random.below(12);
        let disk = self.disk_of(who);
        disk.set_fault(cut.then(|| (disk.operations() + after, Fault::PowerCut)));
    }

    fn not_opened(&mut self, who: Option<usize>, attempt: usize, error: &Error) -> Done {
        if is_full(self.disk_of(who), error) {
            // I9 is about what is there: an opening that needs room may say so.
            self.reach.count("openings on a full disk that failed", 1);
            self.disk_of(who).set_room(None);
        }
        if attempt + 1 == MAX_OPENINGS {
            return Err(broken("a store does not open", error));
        }
        let disk = after_cut(&self.disk_of(who).clone(), &mut self.random);
        match who {
            Some(at) => self.devices[at].disk = disk,
            None => self.disk = disk,
        }
        Ok(())
    }

    /// I11, and the way that a store came back.
    fn opened_again(
        &mut self,
        who: Option<usize>,
        (report, cost): (&OpenReport, u64),
        attempt: usize,
        job: &'static str,
    ) -> Done {
        let bound = OPENING + PER_FRAME * report.replayed_frames;
        if cost > bound && !report.rebuilt_state {
            let frames = report.replayed_frames;
            let text = format!("an opening took {cost} operations for {frames} frames");
            return Err(Violation::new("I11", text));
        }
        let path = match report {
            _ if attempt > 0 => "twice",
            report if report.cut_bytes > 0 => "tail cut",
            _ => "folded on",
        };
        self.reach.count("state folded anew", u64::from(report.rebuilt_state));
        let power = match who {
            Some(at) => std::mem::take(&mut self.devices[at].power),
            None => std::mem::take(&mut self.power),
        };
        let fault = match (who, power) {
            (Some(_), true) => Act::DeviceCrash,
            (Some(_), false) => Act::DeviceDisk,
            (None, true) => Act::Crash,
            (None, false) => Act::Disk,
        };
        if !report.created && !report.clean {
            self.reach.cell(fault, job, path);
        }
        Ok(())
    }

    /// I10: now and then what a disk holds is opened at once too, without a fault.
    fn twin(&mut self, who: Option<usize>) -> Option<MemoryDisk> {
        let take = self.random.once_in(6);
        // What was not synced may be lost with the power or not: only a disk that has just lost it
        // holds one thing.
        let power = who.map_or(self.power, |at| self.devices[at].power);
        (take && power && self.checks).then(|| self.disk_of(who).after_power_cut(Survival::Kept))
    }

    fn same_as_twin(&mut self, who: Option<usize>, twin: Option<MemoryDisk>) -> Done {
        let Some(twin) = twin else { return Ok(()) };
        let mut random = Random::new(1);
        let wall = self.wall();
        let disk: Arc<dyn Disk> = Arc::new(twin);
        let opened = match who {
            None => AuthorityNode::open(disk, options(&mut random, &self.setting), wall)
                .map(|o| o.0.view()),
            Some(_) => {
                let settings = DeviceSettings {
                    store: options(&mut random, &self.setting),
                    local_tables: vec![table_name(LOCAL)],
                    new_device: DeviceId::default(),
                    nonce: [0; 8],
                    seed: 0,
                    max_undecided: 1,
                };
                DeviceNode::open(disk, settings, wall).map(|opened| opened.0.view())
            }
        };
        let Ok(theirs) = opened else { return Ok(()) };
        let ours = match who {
            None => self.authority.as_ref().map(|authority| authority.view()),
            Some(at) => {
                self.devices[at].app.as_ref().and_then(|app| app.with(|n| Ok(n.view())).ok())
            }
        };
        let Some(ours) = ours else { return Ok(()) };
        for workspace in &self.workspaces {
            let both = (check::rows(&theirs, workspace), check::rows(&ours, workspace));
            if let (Ok(theirs), Ok(ours)) = both
                && theirs.rows != ours.rows
            {
                let text = check::difference(&theirs.rows, &ours.rows);
                return Err(Violation::new("I10", format!("{who:?} {workspace}: {text}")));
            }
        }
        Ok(())
    }

    /// A device's store failed: its process ends, with the power or without, and begins again.
    pub fn device_failed(&mut self, at: usize, error: &Error) -> Done {
        if self.files.carrying == Some(at) {
            // Once the call that carries or stores a file has returned.
            self.files.failed.get_or_insert_with(|| error.clone());
            return Ok(());
        }
        if !matches!(error, Error::Store(_)) {
            return Err(broken("a device refuses what it has to do", error));
        }
        let full = is_full(&self.devices[at].disk, error);
        let refused = matches!(error, Error::Store(StoreError::NoSpace { .. }));
        if full && refused && self.doing == "write" {
            // The app is told, and goes on. What a session wants stored it has to have stored.
            return Ok(());
        }
        if matches!(error, Error::Store(StoreError::StateBehind { .. })) {
            // What runs beside has to end first.
            self.finish_device_job(at)?;
            return self.device_checkpoint(at);
        }
        // Its write takes an id, so it is tried also where nothing else is looked at.
        if matches!(error, Error::Store(StoreError::OutcomeUnknown { .. })) {
            self.acknowledges_nothing(at)?;
        }
        if let Some(app) = self.devices[at].app.take() {
            app.kill();
        }
        self.hang_up(at);
        self.failed_within(error)?;
        let device = &mut self.devices[at];
        device.faults.insert(if device.power { Act::DeviceCrash } else { Act::DeviceDisk });
        match device.power {
            true => device.disk = after_cut(&device.disk, &mut self.random),
            false => device.disk.set_fault(None),
        }
        self.open_device(at)?;
        self.failures = 0;
        Ok(())
    }

    /// A store that fails again while what failed before is put right, for ever, is broken.
    fn failed_within(&mut self, error: &Error) -> Done {
        self.failures += 1;
        match self.failures > MAX_FAILURES {
            true => Err(broken("a store fails again and again", error)),
            false => Ok(()),
        }
    }

    /// I8: after an outcome that nobody knows, nothing is acknowledged.
    fn acknowledges_nothing(&self, at: usize) -> Done {
        let Some(opened) = self.opened(at, &self.workspaces[0]) else { return Ok(()) };
        let key = lastword::core::id::Key::new("after").expect("invariant: a key");
        let wrote = opened.write(|tx| tx.put_record(&table_name(LOCAL), &key, Record::default()));
        match wrote {
            Ok(_) => Err(Violation::new("I8", "a write is acknowledged after a failed sync")),
            Err(_) => Ok(()),
        }
    }

    /// The same for the authority; its connections end.
    pub fn authority_failed(&mut self, error: &Error) -> Done {
        if !matches!(error, Error::Store(_)) {
            return Err(broken("the authority refuses what it has to do", error));
        }
        if matches!(error, Error::Store(StoreError::StateBehind { .. })) && self.full == 0 {
            // What runs beside has to end first.
            self.finish_own_job()?;
            return self.checkpoint();
        }
        if self.full > 0 {
            // Its administrator makes room before it is started again.
            self.disk.set_room(None);
            self.full = 0;
        }
        if let Some(mut authority) = self.authority.take()
            && matches!(error, Error::Store(StoreError::OutcomeUnknown { .. }))
        {
            let payload = Payload::Sums(Sums { workspaces: Vec::new() });
            let appended = authority.store().append(payload.kind(), &payload.to_bytes());
            if appended.is_ok() && authority.store().commit().is_ok() {
                return Err(Violation::new("I8", "the authority goes on after a failed sync"));
            }
        }
        self.net.lines.values_mut().for_each(|line| line.authority_open = false);
        let act = if self.power { Act::Crash } else { Act::Disk };
        self.met_by_all(act);
        match self.power {
            true => self.disk = after_cut(&self.disk, &mut self.random),
            false => self.disk.set_fault(None),
        }
        self.net.tidy();
        self.failed_within(error)?;
        self.open_authority()?;
        self.failures = 0;
        Ok(())
    }

    /// A device closes in good order and opens again.
    pub fn device_restart(&mut self, at: usize) -> std::result::Result<bool, Violation> {
        self.finish_device_job(at)?;
        self.devices[at].shown.clear();
        check::device(self, at)?;
        let before = self.devices[at].shown.clone();
        let Some(app) = self.devices[at].app.take() else { return Ok(false) };
        self.hang_up(at);
        self.doing = "close";
        self.devices[at].faults.insert(Act::DeviceRestart);
        let closed = app.database().close();
        match closed {
            // A disk that fails then leaves what a crash would.
            Err(error) => self.device_failed(at, &error)?,
            Ok(()) => self.open_device(at)?,
        }
        let sums = |shown: &BTreeMap<_, (WorkspaceMeta, u64)>| {
            shown.values().map(|(_, sum)| *sum).collect::<Vec<u64>>()
        };
        if self.checks && sums(&before) != sums(&self.devices[at].shown) {
            let text = format!("device {at} shows other rows after a restart");
            return Err(Violation::new("I17", text));
        }
        Ok(true)
    }

    /// The authority closes in good order and opens again.
    pub fn restart(&mut self) -> std::result::Result<bool, Violation> {
        self.finish_own_job()?;
        let Some(authority) = self.authority.take() else { return Ok(false) };
        self.net.lines.values_mut().for_each(|line| line.authority_open = false);
        self.net.tidy();
        self.doing = "close";
        self.met_by_all(Act::Restart);
        match authority.close().map_err(Error::from) {
            Err(error) => self.authority_failed(&error)?,
            Ok(()) => self.open_authority()?,
        }
        Ok(true)
    }
}
