//! One run: an authority, its devices, the network between them, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lastword::Receipt;
use lastword::core::id::{BatchId, DeviceId, Epoch, WorkspaceName};
use lastword::core::protocol::Role;
use lastword::core::stamp::{Decision, Verdict};
use lastword::node::{AppNode, AuthorityNode, Environment, Users};
use lastword::store::keys::WorkspaceMeta;
use lastword::store::{MemoryDisk, Options, Survival};

use crate::check;
use crate::fault::Violation;
use crate::files::FileState;
use crate::jobs::Job;
use crate::known::{Known, Waiting};
use crate::live::Watch;
use crate::net::Net;
use crate::oracle::{Mix, Oracle};
use crate::plan::{Act, Plan, Setting, Step};
use crate::random::Random;
use crate::reach::Reach;

/// Wall time when a run begins.
const BEGIN_MS: i64 = 1_700_000_000_000;
/// Most devices, copies of directories included.
pub const MAX_DEVICES: usize = 7;

/// Time and ids of everybody.
#[derive(Debug, Default)]
pub struct Source {
    state: Mutex<(u64, u64)>,
}

impl Source {
    fn lock(&self) -> MutexGuard<'_, (u64, u64)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock, which may be wrong, and ids.
pub struct Clock {
    source: Arc<Source>,
    pub skew_ms: AtomicI64,
}

impl Clock {
    pub fn new(source: &Arc<Source>, skew_ms: i64) -> Arc<Self> {
        Arc::new(Self { source: Arc::clone(source), skew_ms: AtomicI64::new(skew_ms) })
    }
}

impl Environment for Clock {
    fn now_ms(&self) -> i64 {
        let now = i64::try_from(self.source.lock().0).unwrap_or(i64::MAX);
        BEGIN_MS.saturating_add(now).saturating_add(self.skew_ms.load(Ordering::SeqCst))
    }

    fn random(&self) -> [u8; 16] {
        let mut state = self.source.lock();
        let mut random = Random::new(state.1);
        let bytes = random.bytes();
        state.1 = random.next();
        bytes
    }
}

/// A device and its disk.
pub struct Device {
    pub disk: MemoryDisk,
    /// Its party, while it runs.
    pub app: Option<AppNode>,
    pub clock: Arc<Clock>,
    pub user: String,
    pub app_schema: u64,
    /// The next fault of its disk cuts the power.
    pub power: bool,
    /// Its disk is full for so many steps.
    pub full: u64,
    /// What runs beside it.
    pub job: Option<Job>,
    /// Batches that it was told are durable.
    pub acknowledged: Vec<(WorkspaceName, BatchId)>,
    /// Those of them that are not known to be decided.
    pub open: BTreeSet<(WorkspaceName, BatchId)>,
    /// Batches that a later one may have taken in before they were sent.
    pub squashed: BTreeSet<BatchId>,
    pub receipts: Vec<(WorkspaceName, Receipt)>,
    /// Newest seq of each record that it has shown as the authority's, in each copy.
    pub seen: BTreeMap<(WorkspaceName, Epoch, u32), BTreeMap<u64, u64>>,
    /// Greatest cursor in each history.
    pub passed: BTreeMap<(WorkspaceName, Epoch), u64>,
    /// The outbox as it was last.
    pub outbox: BTreeMap<WorkspaceName, Vec<BatchId>>,
    /// How each workspace stood when it was looked at last, and what it showed.
    pub shown: BTreeMap<WorkspaceName, (WorkspaceMeta, u64)>,
    /// Its rows as they were looked at last.
    pub known_rows: BTreeMap<WorkspaceName, Known>,
    /// Its outbox as it was looked at last.
    pub waiting: BTreeMap<WorkspaceName, Waiting>,
    /// The same, as it was when what is in it was remembered. It is kept by itself, since the run
    /// in which nothing is looked at has it too.
    pub remembered: BTreeMap<WorkspaceName, Waiting>,
    pub watches: BTreeMap<WorkspaceName, Watch>,
    /// Faults since it was last in step.
    pub faults: BTreeSet<Act>,
    /// What ran beside since the first of them.
    pub beside: BTreeSet<&'static str>,
    /// Batches that waited when the first of them came.
    pub waited: bool,
    /// Who it was, and the copies it had had, when it was last in step.
    pub known: Option<(Option<DeviceId>, u64)>,
}

impl Device {
    pub fn new(source: &Arc<Source>, user: String, skew_ms: i64) -> Self {
        let (receipts, acknowledged, open, seen, passed) = Default::default();
        let (outbox, shown, watches, faults, beside) = Default::default();
        Self {
            disk: MemoryDisk::new(4 << 10),
            app: None,
            clock: Clock::new(source, skew_ms),
            user,
            app_schema: 1,
            power: false,
            full: 0,
            job: None,
            acknowledged,
            open,
            squashed: BTreeSet::new(),
            receipts,
            seen,
            passed,
            outbox,
            shown,
            known_rows: BTreeMap::new(),
            waiting: BTreeMap::new(),
            remembered: BTreeMap::new(),
            watches,
            faults,
            beside,
            waited: false,
            known: None,
        }
    }

    /// A device that begins with a copy of what this one has on its disk.
    pub fn copied(&self, source: &Arc<Source>) -> Self {
        let skew_ms = self.clock.skew_ms.load(Ordering::SeqCst);
        let new = Self::new(source, self.user.clone(), skew_ms);
        Self {
            disk: self.disk.after_power_cut(Survival::Kept),
            app_schema: self.app_schema,
            acknowledged: self.acknowledged.clone(),
            open: self.open.clone(),
            squashed: self.squashed.clone(),
            seen: self.seen.clone(),
            passed: self.passed.clone(),
            outbox: self.outbox.clone(),
            faults: BTreeSet::from([Act::Copy]),
            ..new
        }
    }
}

/// A copy of the authority, and what its log means.
pub struct Backup {
    pub disk: MemoryDisk,
    pub oracle: Oracle,
    /// The files that the authority was said to have.
    pub uploaded: BTreeSet<usize>,
}

/// What a history that is lost had decided of a batch.
pub struct Lost {
    pub epoch: Epoch,
    pub decision: Decision,
}

impl Lost {
    /// Whether others had the last word on all of it, so that no row is lost with it.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        match &self.decision {
            Decision::Accepted { verdicts, .. } => {
                verdicts.iter().all(|verdict| matches!(verdict, Verdict::Superseded { .. }))
            }
            Decision::Refused { .. } => false,
        }
    }

    /// Its last seq; where it has none no copy comes so far.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        match self.decision {
            Decision::Accepted { last_seq, .. } => last_seq,
            Decision::Refused { .. } => u64::MAX,
        }
    }
}

/// What the authority's schema says that can change.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub server_wins: bool,
    pub extra: bool,
    pub min_app: u64,
}

/// One run.
pub struct World {
    pub setting: Setting,
    /// Of the step that is played.
    pub random: Random,
    /// Milliseconds since it began.
    pub now: u64,
    pub source: Arc<Source>,
    /// The authority's clock and disk.
    pub clock: Arc<Clock>,
    pub disk: MemoryDisk,
    /// The next fault of the authority's disk cuts the power.
    pub power: bool,
    pub full: u64,
    pub job: Option<Job>,
    /// The authority, while it runs.
    pub authority: Option<AuthorityNode>,
    pub backup: Option<Backup>,
    /// How far the authority's clock was ahead when it was restored last.
    pub restored_skew_ms: i64,
    pub devices: Vec<Device>,
    pub net: Net,
    /// What the log means.
    pub oracle: Oracle,
    pub workspaces: Vec<WorkspaceName>,
    pub epochs: BTreeMap<WorkspaceName, Epoch>,
    /// Batches that were decided after the backup that the authority went back to.
    pub lost: BTreeMap<BatchId, Vec<Lost>>,
    pub wanted: Wanted,
    pub members: BTreeMap<(WorkspaceName, String), Role>,
    pub trace: u64,
    /// Steps that began.
    pub steps: usize,
    pub reach: Reach,
    /// What a store is at while something may fail.
    pub doing: &'static str,
    pub written: u64,
    /// Some device's directory was copied.
    pub copied: bool,
    /// Stores that failed one within the other.
    pub failures: u64,
    pub files: FileState,
    /// Whether everything is looked at, or only what may change the run.
    pub checks: bool,
}

/// Each token is a user.
pub struct Everybody;

impl Users for Everybody {
    fn authenticate(&self, token: &str) -> Result<String, String> {
        Ok(token.to_owned())
    }
}

pub type Done = Result<(), Violation>;

/// The engine refused something that it has to do.
pub fn broken(what: &str, error: &dyn std::fmt::Display) -> Violation {
    Violation::new("I15", format!("{what}: {error}"))
}

pub fn options(random: &mut Random, setting: &Setting) -> Options {
    let delta_cap_bytes = match setting.large {
        0 => usize::try_from(setting.delta_kib << 10).unwrap_or(usize::MAX),
        _ => 4 << 20,
    };
    Options {
        segment_size: 8 << 10,
        zero_step: 4 << 10,
        delta_cap_bytes,
        anew_from_bytes: 64 << 10,
        cache_bytes: 1 << 20,
        replay_bytes: 1 << 20,
        pack_size: 128 << 10,
        entropy: random.bytes(),
        ..Options::default()
    }
}

impl World {
    /// Begins a run.
    ///
    /// # Errors
    /// [`Violation`] if a new store does not open.
    pub fn new(setting: Setting, checks: bool) -> Result<Self, Violation> {
        let source: Arc<Source> = Arc::default();
        let mut random = Random::new(0x6265_6769_6e73);
        source.lock().1 = random.next();
        let mut devices = Vec::new();
        for number in 0..setting.devices {
            let range = 2 * setting.skew_ms + 1;
            let skew_ms = random.below(range) as i64 - setting.skew_ms as i64;
            devices.push(Device::new(&source, format!("u{}", number % setting.users), skew_ms));
        }
        let name = |number| WorkspaceName::new(&format!("w{number}")).expect("invariant: a name");
        let workspaces: Vec<WorkspaceName> = (0..setting.workspaces).map(name).collect();
        let mut members = BTreeMap::new();
        for workspace in workspaces.iter().filter(|_| setting.members != 0) {
            for user in 0..setting.users {
                members.insert((workspace.clone(), format!("u{user}")), Role::Editor);
            }
        }
        let (power, full, job, authority, backup) = Default::default();
        let (net, oracle, epochs, lost, reach) = Default::default();
        let files = if setting.files == 0 { FileState::default() } else { FileState::new() };
        let mut world = World {
            setting,
            random,
            now: 0,
            clock: Clock::new(&source, 0),
            source,
            disk: MemoryDisk::new(4 << 10),
            power,
            full,
            job,
            authority,
            backup,
            restored_skew_ms: 0,
            devices,
            net,
            oracle,
            workspaces,
            epochs,
            lost,
            wanted: Wanted { server_wins: false, extra: true, min_app: 0 },
            members,
            trace: 0,
            steps: 0,
            reach,
            doing: "open",
            written: 0,
            copied: false,
            failures: 0,
            files,
            checks,
        };
        world.pass(1000);
        world.open_authority()?;
        for at in 0..world.devices.len() {
            world.open_device(at)?;
        }
        Ok(world)
    }

    /// Plays a plan to the end and gives the hash of everything that happened.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn play(&mut self, plan: &Plan) -> Result<u64, Violation> {
        for step in &plan.steps {
            self.step(*step)?;
        }
        self.quiet()?;
        check::converged(self)?;
        Ok(self.trace)
    }

    fn step(&mut self, step: Step) -> Done {
        self.steps += 1;
        self.random = Random::new(step.seed);
        self.source.lock().1 = !step.seed;
        self.note(step.act as u64, &[]);
        let did = self.happen(step.act)?;
        self.note(u64::from(did), &[]);
        self.reach.acts.entry(step.act).or_default().0 += 1;
        self.reach.acts.entry(step.act).or_default().1 += u64::from(did);
        for _ in 0..step.moves {
            self.one_move()?;
        }
        self.make_room_again()
    }

    /// Takes something into the trace: a hash of 64 bits that is cheap, since two runs of one
    /// program are compared, not guarded from each other.
    pub fn note(&mut self, what: u64, bytes: &[u8]) {
        let mut mix = Mix(self.trace ^ what);
        mix.bytes(bytes);
        self.trace = mix.0;
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.source.lock().0 = self.now;
    }

    pub fn wall(&self) -> i64 {
        self.clock.now_ms()
    }

    pub fn any_workspace(&mut self) -> WorkspaceName {
        let at = self.random.below(self.workspaces.len() as u64) as usize;
        self.workspaces[at].clone()
    }

    /// Whether it did anything.
    fn happen(&mut self, act: Act) -> Result<bool, Violation> {
        let device = self.random.below(self.devices.len() as u64) as usize;
        match act {
            Act::Write => self.write(device),
            Act::Undo => self.undo(device),
            Act::Letter => self.letter(device),
            Act::Own => self.own(),
            Act::Erase => self.erase(),
            Act::Role => self.change_role(),
            Act::Schema => self.change_schema(),
            Act::App => self.change_app(device),
            Act::Idle => self.idle(),
            Act::Begin => self.begin_job(device),
            Act::Finish => self.finish_job(device),
            Act::Purge => self.purge(),
            Act::Backup => self.back_up(),
            Act::Recover => self.recover(),
            Act::DeviceCrash | Act::DeviceDisk => self.spoil_device(device, act),
            Act::Crash | Act::Disk => self.spoil(device, act),
            Act::DeviceFull => Ok(self.fill_device(device)),
            Act::Full => Ok(self.fill()),
            Act::DeviceRestart => self.device_restart(device),
            Act::Restart => self.restart(),
            Act::Rot => self.rot(device),
            Act::Cut | Act::HalfOpen => Ok(self.cut(device, act)),
            Act::OneWay | Act::Slow => Ok(self.hinder(device, act)),
            Act::Clock | Act::DeviceClock => Ok(self.jump(device, act)),
            Act::Restore => self.restore(),
            Act::Copy => self.copy(device),
            Act::Wipe => self.wipe(device),
            Act::Forge => self.forge(device),
            Act::Attach => self.attach_file(device),
            Act::Detach => self.detach_file(device),
            Act::Carry => self.carry_file(device),
            Act::Collect => self.collect_step(device),
            Act::Evict => self.evict_file(device),
        }
    }
}
