//! What one seed plays: how many devices and workspaces, what they do, and what goes wrong. Each
//! seed turns a random part of it off and another part up, since a run that does a little of
//! everything never does enough of one thing.

use crate::random::Random;

/// Something that can happen. Its place in [`Event::ALL`] is its place in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A device writes a batch.
    Write,
    /// A device's store does the next thing that its session asked for.
    DeviceStep,
    /// A message arrives.
    Deliver,
    /// The authority decides a group.
    Decide,
    /// Time passes.
    Time,
    /// A device's checkpoint.
    DeviceCheckpoint,
    /// A device's fold of its log.
    DeviceFold,
    /// A device's state is made anew.
    DeviceRebuild,
    /// The authority's checkpoint.
    Checkpoint,
    /// The authority's fold of its log.
    Fold,
    /// The authority's state is made anew.
    Rebuild,
    /// A step of the authority's purge, and of each device's.
    Purge,
    /// A connection breaks, and both ends know it.
    Cut,
    /// A connection breaks, and only one end knows it.
    HalfOpen,
    /// A device loses power.
    DeviceCrash,
    /// The authority loses power.
    Crash,
    /// A write or sync of a device's disk fails once.
    DeviceDiskFault,
    /// A write or sync of the authority's disk fails once.
    DiskFault,
    /// A device closes in good order and opens again.
    DeviceRestart,
    /// The authority closes in good order and opens again.
    Restart,
}

impl Event {
    /// All of them, with their weight in an ordinary run.
    pub const ALL: [(Event, u64); 20] = [
        (Event::Write, 60),
        (Event::DeviceStep, 220),
        (Event::Deliver, 300),
        (Event::Decide, 120),
        (Event::Time, 40),
        (Event::DeviceCheckpoint, 6),
        (Event::DeviceFold, 3),
        (Event::DeviceRebuild, 1),
        (Event::Checkpoint, 4),
        (Event::Fold, 2),
        (Event::Rebuild, 1),
        (Event::Purge, 4),
        (Event::Cut, 6),
        (Event::HalfOpen, 3),
        (Event::DeviceCrash, 4),
        (Event::Crash, 3),
        (Event::DeviceDiskFault, 2),
        (Event::DiskFault, 1),
        (Event::DeviceRestart, 2),
        (Event::Restart, 1),
    ];

    fn is_needed(self) -> bool {
        use Event::{Decide, Deliver, DeviceStep, Time, Write};
        matches!(self, Write | DeviceStep | Deliver | Decide | Time)
    }
}

/// What one seed plays.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Devices.
    pub devices: usize,
    /// Workspaces, each of which every device keeps in step.
    pub workspaces: usize,
    /// Different keys in each table.
    pub keys: u64,
    /// Events until it gets quiet.
    pub events: u64,
    /// Weight of each event.
    pub weights: Vec<(Event, u64)>,
    /// Clocks are wrong by up to this many milliseconds.
    pub skew_ms: i64,
    /// Messages take up to this many milliseconds.
    pub delay_ms: u64,
    /// How long the authority keeps a tombstone, in milliseconds.
    pub tombstones_ms: i64,
}

impl Plan {
    /// What `seed` plays.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x706c_616e);
        let scale = |random: &mut Random| match random.below(4) {
            0 => 0,
            1 | 2 => 1,
            _ => 5,
        };
        let weight = |(event, weight): &(Event, u64)| {
            let scale = scale(random);
            (*event, if event.is_needed() { *weight } else { weight * scale })
        };
        let weights = Event::ALL.iter().map(weight).collect();
        let skew_ms = match random.below(3) {
            0 => 0,
            1 => 60_000,
            _ => 24 * 3600 * 1000,
        };
        Self {
            devices: 2 + random.below(4) as usize,
            workspaces: 1 + random.below(2) as usize,
            keys: 2 + random.below(10),
            events: 3000 + random.below(3000),
            weights,
            skew_ms,
            delay_ms: if random.once_in(2) { 20 } else { 3000 },
            tombstones_ms: if random.once_in(3) { 2_000 } else { i64::MAX / 4 },
        }
    }

    /// The next event.
    pub fn pick(&self, random: &mut Random) -> Event {
        let all: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut left = random.below(all);
        for (event, weight) in &self.weights {
            if left < *weight {
                return *event;
            }
            left -= weight;
        }
        Event::Time
    }
}
