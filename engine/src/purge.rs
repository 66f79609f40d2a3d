//! Forgetting what nobody may ask for any more: old tombstones, decisions, conflict rows, and index
//! entries whose record has moved on.
//!
//! It is done in small steps between groups, each one frame. What is old is told by a clock that
//! runs at most [`MOST_SPEED`] times as fast as time itself and that the log remembers: a wall
//! clock that jumps a year ahead, also before a restart, takes no year's tombstones with it.

use std::time::{Duration, Instant};

use lastword_core::id::WorkspaceName;
use lastword_core::limits::HISTORY_WINDOW_MS;
use lastword_store::keys::{BY_SEQ, ROWS};
use lastword_store::payload::{Payload, Purge, PurgePart};
use lastword_store::purge::{Found, PurgeWalk, Retention};
use lastword_store::{Store, StoreError, read};

use crate::environment::now_ms;

/// How long a tombstone is kept unless the app or the server says otherwise.
pub const DEFAULT_TOMBSTONES: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// A pass over all workspaces begins this long after the last one.
const EVERY: Duration = Duration::from_secs(60);
/// Steps of a pass are this far apart while others write.
const PAUSE: Duration = Duration::from_millis(100);
/// A step that finds nothing ends after this long.
const STEP: Duration = Duration::from_millis(2);
/// The clock of retention runs at most this many times as fast as time itself.
const MOST_SPEED: i64 = 24;
/// The log is told of the clock whenever it has moved this far: after a few minutes, since a device
/// may never run for longer.
const CLOCK_STEP_MS: i64 = 3600 * 1000;
/// Entries by seq are looked through once there are this many times as many of them as rows.
const STALE_FACTOR: u64 = 2;
/// So many more than that there must be, since looking reads every row.
const STALE_FROM: u64 = 4096;

/// The purge of one store.
#[derive(Debug)]
pub(crate) struct Purging {
    tombstones_ms: i64,
    decisions_ms: i64,
    /// The clock of retention, and when it was read last.
    clock: Option<(i64, Instant)>,
    /// No step before this.
    rests_until: Instant,
    pass: Option<Pass>,
}

/// One pass over all workspaces.
#[derive(Debug)]
struct Pass {
    clock_ms: i64,
    stale: bool,
    /// The workspace that was looked at last.
    last: Option<WorkspaceName>,
    /// The store's own workspace comes after all others.
    is_own_left: bool,
    walk: Option<(PurgeWalk, Retention)>,
}

impl Purging {
    pub(crate) fn new(tombstones: Duration, history: Duration) -> Self {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Purging {
            tombstones_ms: ms(tombstones),
            decisions_ms: ms(history).max(HISTORY_WINDOW_MS),
            clock: None,
            rests_until: Instant::now() + PAUSE,
            pass: None,
        }
    }

    /// One step, if one is due; whether it changed anything. What it changed is durable.
    pub(crate) fn step(&mut self, store: &mut Store) -> Result<bool, StoreError> {
        if Instant::now() < self.rests_until {
            return Ok(false);
        }
        self.rests_until = Instant::now() + PAUSE;
        let began = Instant::now();
        let Some(pass) = &mut self.pass else { return self.begin(store, now_ms(), began) };
        while began.elapsed() < STEP {
            match pass.next(store, self.tombstones_ms, self.decisions_ms)? {
                Found::Purge(purge) => return append(store, purge).map(|()| true),
                Found::More => {}
                Found::End => {
                    self.pass = None;
                    self.rests_until = began + EVERY;
                    break;
                }
            }
        }
        Ok(false)
    }

    fn begin(&mut self, store: &mut Store, now_ms: i64, now: Instant) -> Result<bool, StoreError> {
        let told = read::retention_clock(store.newest())?;
        let (clock_ms, read_at) = self.clock.unwrap_or((told, now));
        let elapsed_ms = now.saturating_duration_since(read_at).as_millis();
        let most = i64::try_from(elapsed_ms).unwrap_or(i64::MAX).saturating_mul(MOST_SPEED);
        let clock_ms = clock_ms.max(now_ms.min(clock_ms.saturating_add(most)));
        self.clock = Some((clock_ms, now));
        let rows = |space| store.checkpointed_rows(space);
        let stale = rows(BY_SEQ) > STALE_FACTOR * rows(ROWS) + STALE_FROM;
        self.pass = Some(Pass { clock_ms, stale, last: None, is_own_left: true, walk: None });
        let moved = clock_ms.saturating_sub(told) >= CLOCK_STEP_MS;
        if moved {
            let part = PurgePart::Clock { now_ms: clock_ms };
            append(store, Purge { workspace: read::store_workspace(), part })?;
        }
        Ok(moved)
    }
}

/// A whole pass at once, for a store that nothing else runs beside; whether it changed anything.
pub(crate) fn all(
    store: &mut Store,
    tombstones: Duration,
    history: Duration,
    clock_ms: i64,
) -> Result<bool, StoreError> {
    let Purging { tombstones_ms, decisions_ms, .. } = Purging::new(tombstones, history);
    let mut pass = Pass { clock_ms, stale: true, last: None, is_own_left: true, walk: None };
    let mut changed = false;
    loop {
        match pass.next(store, tombstones_ms, decisions_ms)? {
            Found::Purge(purge) => {
                append(store, purge)?;
                changed = true;
            }
            Found::More => {}
            Found::End => return Ok(changed),
        }
    }
}

impl Pass {
    fn next_workspace(&mut self, store: &Store) -> Result<Option<WorkspaceName>, StoreError> {
        let next = match self.is_own_left {
            true => read::next_workspace(store.newest(), self.last.as_ref())?,
            false => None,
        };
        Ok(match next {
            Some(next) => {
                self.last = Some(next.clone());
                Some(next)
            }
            None => std::mem::take(&mut self.is_own_left).then(read::store_workspace),
        })
    }

    fn next(
        &mut self,
        store: &Store,
        tombstones_ms: i64,
        decisions_ms: i64,
    ) -> Result<Found, StoreError> {
        let state = store.newest();
        if self.walk.is_none() {
            let Some(workspace) = self.next_workspace(store)? else { return Ok(Found::End) };
            let meta = read::meta(state, &workspace)?;
            // Where an authority stamps ops, its stamps say what time it is.
            let stamped = meta.epoch.map_or(i64::MAX, |_| meta.time_ms);
            let now_ms = self.clock_ms.min(stamped);
            let retention = Retention { now_ms, tombstones_ms, decisions_ms, stale: self.stale };
            self.walk = Some((PurgeWalk::new(workspace), retention));
        }
        let Some((walk, retention)) = &mut self.walk else { return Ok(Found::More) };
        match walk.next(state, retention)? {
            Found::End => {
                self.walk = None;
                Ok(Found::More)
            }
            found => Ok(found),
        }
    }
}

/// Also on a full disk: this is what makes room.
fn append(store: &mut Store, purge: Purge) -> Result<(), StoreError> {
    let payload = Payload::Purge(purge);
    store.append_urgent(payload.kind(), &payload.to_bytes())?;
    store.commit().map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lastword_core::id::DeviceId;
    use lastword_store::apply::ApplyPayload;
    use lastword_store::payload::{Identity, StoreRole};
    use lastword_store::{MemoryDisk, Options};

    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;

    fn open(disk: &MemoryDisk) -> Store {
        let apply = Arc::new(ApplyPayload::default());
        Store::open(Arc::new(disk.clone()), Options::default(), apply).expect("opens").0
    }

    fn pass(purging: &mut Purging, store: &mut Store, wall_ms: i64, at: Instant) -> i64 {
        purging.begin(store, wall_ms, at).expect("the disk works");
        purging.pass.take().expect("it has begun").clock_ms
    }

    /// Semantics, section 8: a wall clock that jumps a year ahead, also while nobody runs the
    /// store, cannot expire what is kept; one that jumps back stops the clock, and it goes on from
    /// where it was after a restart.
    #[test]
    fn a_jumping_clock_does_not_expire_what_is_kept() {
        let disk = MemoryDisk::new(1 << 20);
        let mut store = open(&disk);
        let (role, device) = (StoreRole::Authority, DeviceId::AUTHORITY);
        let identity = Identity { role, device, former: Vec::new(), created_ms: 10 * DAY };
        let payload = Payload::Identity(identity);
        store.append(payload.kind(), &payload.to_bytes()).expect("the disk works");
        let keep = || Purging::new(DEFAULT_TOMBSTONES, Duration::ZERO);
        let (mut purging, start) = (keep(), Instant::now());
        let hours = |hours: u64| start + Duration::from_secs(hours * 3600);
        assert_eq!(pass(&mut purging, &mut store, 400 * DAY, start), 10 * DAY);
        assert_eq!(pass(&mut purging, &mut store, 400 * DAY, hours(1)), 11 * DAY);
        assert_eq!(pass(&mut purging, &mut store, 5 * DAY, hours(2)), 11 * DAY);
        assert_eq!(pass(&mut purging, &mut store, 12 * DAY, hours(5)), 12 * DAY);
        store.close().expect("the disk works");
        let (mut purging, mut store) = (keep(), open(&disk));
        assert_eq!(pass(&mut purging, &mut store, 900 * DAY, start), 12 * DAY);
        store.close().expect("the disk works");
    }

    /// R7.4. The clock was told to the log once a day of it had passed, and a process that ends
    /// before that begun again where the last one had: a device that runs ten minutes a day forgot
    /// nothing, for ever.
    #[test]
    fn what_runs_ten_minutes_a_day_forgets_too() {
        let disk = MemoryDisk::new(1 << 20);
        let start = Instant::now();
        let mut told = 0;
        for day in 0..20 {
            let mut store = open(&disk);
            if day == 0 {
                let (role, device) = (StoreRole::Replica, DeviceId([1; 16]));
                let identity = Identity { role, device, former: Vec::new(), created_ms: 0 };
                let payload = Payload::Identity(identity);
                store.append(payload.kind(), &payload.to_bytes()).expect("the disk works");
            }
            let mut purging = Purging::new(DEFAULT_TOMBSTONES, Duration::ZERO);
            for minute in 0..10 {
                let at = start + Duration::from_secs(60 * minute);
                pass(&mut purging, &mut store, day * DAY, at);
            }
            told = read::retention_clock(store.newest()).expect("it reads");
            store.close().expect("the disk works");
        }
        assert!(told >= 2 * DAY, "the clock is at {} hours", told / (3600 * 1000));
    }

    /// A pass looks at every workspace once, whatever else is known of it, and at the store's own.
    #[test]
    fn a_pass_comes_by_every_workspace() {
        use lastword_core::id::Epoch;
        use lastword_core::protocol::Role;
        use lastword_store::payload::{Attachment, LocalTables, Restored};

        let mut store = open(&MemoryDisk::new(1 << 20));
        let names = ["a", "a-b", "ab", "b"].map(|name| WorkspaceName::new(name).expect("a name"));
        for workspace in names.clone() {
            let (epoch, role, time_ms) = (Epoch([1; 16]), Role::Owner, 0);
            let met = Attachment { workspace: workspace.clone(), epoch, role, horizon: 0 };
            let restored = Restored { workspace, epoch, branch: 1, head: 2, time_ms };
            for payload in [Payload::Attachment(met), Payload::Restored(restored)] {
                store.append(payload.kind(), &payload.to_bytes()).expect("the disk works");
            }
        }
        let tables = vec![lastword_core::id::TableName::new("drafts").expect("a name")];
        let payload = Payload::LocalTables(LocalTables { tables });
        store.append(payload.kind(), &payload.to_bytes()).expect("the disk works");
        let mut pass =
            Pass { clock_ms: 0, stale: false, last: None, is_own_left: true, walk: None };
        let mut seen = Vec::new();
        while let Some(next) = pass.next_workspace(&store).expect("it reads") {
            seen.push(next);
        }
        assert_eq!(seen, [&names[..], &[read::store_workspace()]].concat());
    }
}
