//! What one seed plays: a setting, and a list of steps that can be shortened. Each seed turns a
//! random part of what can happen off and another part up, since a run that does a little of
//! everything never does enough of one thing.

use crate::random::Random;

macro_rules! acts {
    ($($act:ident = $weight:literal, $fault:literal, $text:literal;)+) => {
        /// Something that somebody does, or that goes wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Act {
            $(#[doc = $text] $act,)+
        }

        impl Act {
            /// All of them, with their weight in an ordinary run and whether they are faults.
            pub const ALL: &[(Act, u64, bool)] = &[$((Act::$act, $weight, $fault),)+];

            /// Its name in tables and saved seeds.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Act::$act => stringify!($act),)+ }
            }
        }
    };
}

acts! {
    Write = 120, false, "A device writes a batch.";
    Undo = 3, false, "A device takes a write back.";
    Letter = 5, false, "A device sends dead letters again, edits or discards them.";
    Own = 3, false, "The authority sets fields that it owns.";
    Erase = 1, false, "The authority erases a record.";
    Role = 2, false, "A user gets another role, or is no member any more.";
    Schema = 2, false, "The authority gets another schema.";
    App = 1, false, "A device closes and its app is another version of itself.";
    Idle = 6, false, "Time passes.";
    Begin = 10, false, "A checkpoint, fold or rebuild begins beside what follows.";
    Finish = 9, false, "What ran beside ends.";
    Purge = 4, false, "Somebody forgets what is old.";
    Backup = 2, false, "The authority is copied.";
    Recover = 2, false, "The authority writes back what devices brought back.";
    DeviceCrash = 5, true, "A device loses power at one of its next writes or syncs.";
    Crash = 4, true, "The authority loses power at one of its next writes or syncs.";
    DeviceDisk = 3, true, "A write or sync of a device's disk fails once.";
    Disk = 2, true, "A write or sync of the authority's disk fails once.";
    DeviceFull = 2, true, "A device's disk is full for a while.";
    Full = 1, true, "The authority's disk is full for a while.";
    DeviceRestart = 2, true, "A device closes in good order and opens again.";
    Restart = 1, true, "The authority closes in good order and opens again.";
    Rot = 1, true, "A bit of a device's state flips while it is off.";
    Cut = 5, true, "A connection breaks, and both ends know it.";
    HalfOpen = 3, true, "A connection breaks, and only one end knows it.";
    OneWay = 2, true, "Nothing more arrives at one end of a connection.";
    Slow = 2, true, "A connection becomes slow.";
    Clock = 1, true, "The authority's clock jumps.";
    DeviceClock = 2, true, "A device's clock jumps.";
    Restore = 2, true, "The authority is gone, and one restored from a backup takes its place.";
    Copy = 2, true, "A device's directory is copied, and both are used.";
    Wipe = 1, true, "A device loses all it has and begins anew.";
    Forge = 1, true, "A batch comes again under its id with other content.";
    Attach = 10, false, "A device stores a file, and a record names it.";
    Detach = 4, false, "A device deletes the record of a file, or undeletes it.";
    Carry = 14, false, "A device uploads or downloads a file.";
    Collect = 10, false, "A collection of files goes a step on.";
    Evict = 2, false, "A device forgets the bytes of a file that the authority has.";
}

/// Faults after which a device has to get in step again.
pub const SYNC_FAULTS: &[Act] = &[
    Act::DeviceCrash,
    Act::Crash,
    Act::DeviceDisk,
    Act::Disk,
    Act::DeviceFull,
    Act::DeviceRestart,
    Act::Restart,
    Act::Cut,
    Act::HalfOpen,
    Act::OneWay,
    Act::Slow,
    Act::Clock,
    Act::DeviceClock,
    Act::Restore,
    Act::Copy,
];

impl Act {
    /// Whether it is a fault.
    #[must_use]
    pub fn is_fault(self) -> bool {
        Self::ALL.iter().any(|(act, _, fault)| *act == self && *fault)
    }

    /// The act of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().map(|(act, ..)| *act).find(|act| act.name() == name)
    }
}

/// One step: somebody does something, then the parties and the network do what they have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// What is random in it, so that a step is the same whatever happened before.
    pub seed: u64,
    /// So many moves follow: a message arrives, a group is decided, a page is stored.
    pub moves: u64,
}

/// What is the same in all of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Devices at the beginning.
    pub devices: u64,
    /// Workspaces.
    pub workspaces: u64,
    /// Users.
    pub users: u64,
    /// Different keys in each table.
    pub keys: u64,
    /// Clocks are wrong by up to this many milliseconds.
    pub skew_ms: u64,
    /// Messages take up to this many milliseconds.
    pub delay_ms: u64,
    /// How long the authority keeps a tombstone, in milliseconds.
    pub tombstones_ms: u64,
    /// Whether there is a schema.
    pub schema: u64,
    /// Whether there are members with roles.
    pub members: u64,
    /// One value in so many is large, 0 = none, so that a walk has several pages.
    pub large: u64,
    /// Most batches that wait on a device.
    pub outbox: u64,
    /// KiB of rows in memory after which a store writes a checkpoint by itself.
    pub delta_kib: u64,
    /// Whether there are files: 0 = none, 1 = as many as one likes, 2 = the authority has little
    /// room for them.
    pub files: u64,
    /// Rows of a page where a device begins with a walk; 0 = nobody does.
    pub walk: u64,
}

/// What one seed plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is the same in all of it.
    pub setting: Setting,
    /// The steps.
    pub steps: Vec<Step>,
}

/// Acts of a seed that are no faults.
const OPS: u64 = 500;
/// Faults of a seed.
const FAULTS: u64 = 30;
/// Pairs of faults that are aimed, in a seed that aims.
const AIMED: u64 = 4;
/// A backup is so many steps old when the authority goes back to it.
const BACKUP_BEFORE: usize = 20;

impl Plan {
    /// What `seed` plays.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x706c_616e);
        let mut setting = Setting::random(random);
        // Drawn apart, so that plans are what they were before there were files, and walks.
        if setting.schema != 0 {
            let drawn = Random::new(seed ^ 0x66_696c_6573).below(12);
            setting.files = [1, 1, 1, 2].get(drawn as usize).copied().unwrap_or(0);
        }
        let drawn = Random::new(seed ^ 0x7761_6c6b).below(4);
        setting.walk = [0, 1, 1, 4].get(drawn as usize).copied().unwrap_or(0);
        let acts = Act::ALL.iter().filter(|(act, ..)| setting.knows(*act));
        let weights: Vec<(Act, u64)> =
            acts.map(|(act, weight, _)| (*act, scaled(random, *act, *weight))).collect();
        let ops: Vec<(Act, u64)> = weights.iter().filter(|w| !w.0.is_fault()).copied().collect();
        let faults: Vec<(Act, u64)> = weights.iter().filter(|w| w.0.is_fault()).copied().collect();
        let moves = [4, 8, 16][random.below(3) as usize];
        let count = OPS - 50 + random.below(101);
        let mut steps: Vec<Step> = (0..count).map(|_| step(random, &ops, moves)).collect();
        for _ in 0..FAULTS - 10 + random.below(21) {
            let at = random.below(steps.len() as u64) as usize;
            steps.insert(at, step(random, &faults, moves));
        }
        match random.below(6) {
            0 | 1 => aim(random, &mut steps),
            2 => aim_at_upkeep(random, &mut steps),
            _ => {}
        }
        Self { setting, steps }
    }
}

/// What seldom meets by chance: a device has a fault and is copied before it is in step again, or
/// the authority is restored then, while nothing runs beside.
fn aim(random: &mut Random, steps: &mut Vec<Step>) {
    steps.retain(|step| !matches!(step.act, Act::Begin | Act::Purge));
    let fault = SYNC_FAULTS[random.below(SYNC_FAULTS.len() as u64) as usize];
    let then = [Act::Copy, Act::Restore][random.below(2) as usize];
    for _ in 0..AIMED {
        let at = random.below(steps.len() as u64) as usize;
        // The same seed picks the same device.
        let (seed, moves) = (random.next(), random.below(4));
        let backup = Step { act: Act::Backup, seed, moves };
        let both = [fault, then].map(|act| Step { act, seed, moves });
        steps.splice(at..at, both);
        steps.insert(at.saturating_sub(BACKUP_BEFORE), backup);
    }
}

/// The power goes while upkeep has begun and is not taken in.
fn aim_at_upkeep(random: &mut Random, steps: &mut Vec<Step>) {
    for _ in 0..2 * AIMED {
        let at = random.below(steps.len() as u64) as usize;
        let seed = random.next();
        let crash = [Act::DeviceCrash, Act::DeviceCrash, Act::Crash][random.below(3) as usize];
        let both = [(Act::Begin, 0), (crash, 16)].map(|(act, moves)| Step { act, seed, moves });
        steps.splice(at..at, both);
    }
}

fn step(random: &mut Random, acts: &[(Act, u64)], moves: u64) -> Step {
    let all: u64 = acts.iter().map(|(_, weight)| weight).sum();
    let mut left = random.below(all);
    let mut picked = Act::Idle;
    for (act, weight) in acts {
        if left < *weight {
            picked = *act;
            break;
        }
        left -= weight;
    }
    // Now and then somebody is busy while nothing moves.
    let moves = if random.once_in(4) { 0 } else { random.below(moves * 2) };
    Step { act: picked, seed: random.next(), moves }
}

fn scaled(random: &mut Random, act: Act, weight: u64) -> u64 {
    match random.below(4) {
        _ if act == Act::Write => weight,
        0 => 0,
        1 | 2 => weight,
        _ => weight * 5,
    }
}

impl Setting {
    fn random(random: &mut Random) -> Self {
        let users = 1 + random.below(3);
        Self {
            devices: 2 + random.below(4),
            workspaces: 1 + random.below(3),
            users,
            keys: 2 + random.below(8),
            skew_ms: [0, 60_000, 24 * 3600 * 1000][random.below(3) as usize],
            delay_ms: if random.once_in(3) { 3000 } else { 20 },
            tombstones_ms: if random.once_in(2) { 2_000 } else { u64::MAX / 8 },
            schema: u64::from(!random.once_in(4)),
            members: u64::from(random.once_in(2)),
            large: if random.once_in(24) { 4 } else { 0 },
            outbox: if random.once_in(4) { 6 } else { 64 },
            delta_kib: [64, 256, 256, 1024][random.below(4) as usize],
            files: 0,
            walk: 0,
        }
    }

    /// Whether an act can do anything.
    fn knows(&self, act: Act) -> bool {
        match act {
            Act::Own | Act::Schema | Act::App => self.schema != 0,
            Act::Role => self.members != 0,
            Act::Attach | Act::Detach | Act::Carry | Act::Collect | Act::Evict => self.files != 0,
            _ => true,
        }
    }
}
