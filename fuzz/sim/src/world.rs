//! One run: an authority, its devices, the network between them, and what happens to them.

use std::collections::BTreeMap;

use lastword::core::id::{BatchId, WorkspaceName};
use lastword::node::{AuthorityNode, DeviceNode, Users};
use lastword::store::{Fault, MemoryDisk, Options};

use crate::check;
use crate::fault::Violation;
use crate::net::Net;
use crate::oracle::Oracle;
use crate::plan::{Event, Plan};
use crate::random::Random;

/// Wall time when a run begins.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// A device and its disk.
pub struct Device {
    /// Its disk.
    pub disk: MemoryDisk,
    /// Its party, while it runs.
    pub node: Option<DeviceNode>,
    pub(crate) skew_ms: i64,
    /// The next fault of its disk cuts the power.
    pub power: bool,
    /// Batches that it was told are durable.
    pub acknowledged: Vec<(WorkspaceName, BatchId)>,
    /// Newest seq of each record that it has shown as the authority's.
    pub seen: BTreeMap<(WorkspaceName, String), u64>,
}

/// One run.
pub struct World {
    /// What is played.
    pub plan: Plan,
    pub(crate) random: Random,
    /// Milliseconds since it began.
    pub now: u64,
    /// The authority's disk.
    pub disk: MemoryDisk,
    /// The next fault of the authority's disk cuts the power.
    pub power: bool,
    /// The authority, while it runs.
    pub authority: Option<AuthorityNode>,
    /// The devices.
    pub devices: Vec<Device>,
    pub(crate) net: Net,
    /// What the log means.
    pub oracle: Oracle,
    pub(crate) workspaces: Vec<WorkspaceName>,
    pub(crate) trace: blake3::Hasher,
    /// How often each event did something.
    pub reached: BTreeMap<Event, u64>,
    pub(crate) written: u64,
}

/// Each token is a user.
pub(crate) struct Everybody;

impl Users for Everybody {
    fn authenticate(&self, token: &str) -> Result<String, String> {
        Ok(token.to_owned())
    }
}

pub(crate) type Done = Result<(), Violation>;

/// The engine refused something that it has to do.
pub(crate) fn broken(what: &str, error: &dyn std::fmt::Display) -> Violation {
    Violation::new("I15", format!("{what}: {error}"))
}

pub(crate) fn options(random: &mut Random) -> Options {
    Options {
        segment_size: 8 << 10,
        zero_step: 4 << 10,
        delta_cap_bytes: 64 << 10,
        anew_from_bytes: 64 << 10,
        cache_bytes: 1 << 20,
        replay_bytes: 1 << 20,
        entropy: random.bytes(),
        ..Options::default()
    }
}

impl World {
    /// Begins the run of `seed`.
    ///
    /// # Errors
    /// [`Violation`] if a new store does not open.
    pub fn new(seed: u64) -> Result<Self, Violation> {
        let plan = Plan::new(seed);
        let mut random = Random::new(seed);
        let mut devices = Vec::new();
        for _ in 0..plan.devices {
            let range = 2 * plan.skew_ms + 1;
            let skew_ms = random.below(range as u64) as i64 - plan.skew_ms;
            let disk = MemoryDisk::new(4 << 10);
            let (acknowledged, seen) = Default::default();
            let (node, power) = (None, false);
            devices.push(Device { disk, node, skew_ms, power, acknowledged, seen });
        }
        let name = |number| WorkspaceName::new(&format!("w{number}")).expect("invariant: a name");
        let mut world = World {
            workspaces: (0..plan.workspaces).map(name).collect(),
            plan,
            random,
            now: 1000,
            disk: MemoryDisk::new(4 << 10),
            power: false,
            authority: None,
            devices,
            net: Net::default(),
            oracle: Oracle::default(),
            trace: blake3::Hasher::new(),
            reached: BTreeMap::new(),
            written: 0,
        };
        world.open_authority()?;
        for at in 0..world.devices.len() {
            world.open_device(at)?;
        }
        Ok(world)
    }

    /// Plays it to the end and gives the hash of everything that happened.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn play(&mut self) -> Result<[u8; 32], Violation> {
        for _ in 0..self.plan.events {
            let event = self.plan.pick(&mut self.random);
            self.trace.update(&[event as u8]);
            if self.happen(event)? {
                *self.reached.entry(event).or_default() += 1;
            }
        }
        self.quiet()?;
        check::converged(self)?;
        Ok(*self.trace.finalize().as_bytes())
    }

    pub(crate) fn wall(&self, skew_ms: i64) -> i64 {
        BEGIN_MS + self.now as i64 + skew_ms
    }

    /// Whether it did anything.
    fn happen(&mut self, event: Event) -> Result<bool, Violation> {
        let device = self.random.below(self.devices.len() as u64) as usize;
        match event {
            Event::Write => self.write(device),
            Event::DeviceStep => self.device_step(device),
            Event::Deliver => self.deliver(),
            Event::Decide => self.decide(),
            Event::Time => self.time(),
            Event::DeviceCheckpoint | Event::DeviceFold | Event::DeviceRebuild => {
                self.device_upkeep(device, event)
            }
            Event::Checkpoint | Event::Fold | Event::Rebuild => self.upkeep(event),
            Event::Purge => self.purge(),
            Event::Cut => Ok(self.cut(device, true)),
            Event::HalfOpen => Ok(self.cut(device, false)),
            Event::DeviceCrash | Event::DeviceDiskFault => {
                let power = event == Event::DeviceCrash;
                let in_operations = self.random.below(6);
                let device = &mut self.devices[device];
                let fault = if power { Fault::PowerCut } else { Fault::Once };
                let at = device.disk.operations() + in_operations;
                device.disk.set_fault(Some((at, fault)));
                device.power = power;
                Ok(true)
            }
            Event::Crash | Event::DiskFault => {
                self.power = event == Event::Crash;
                let fault = if self.power { Fault::PowerCut } else { Fault::Once };
                let at = self.disk.operations() + self.random.below(6);
                self.disk.set_fault(Some((at, fault)));
                Ok(true)
            }
            Event::DeviceRestart => self.device_restart(device),
            Event::Restart => self.restart(),
        }
    }
}
