//! What may be purged: a walk over one workspace that names one small purge after the other.
//!
//! Nothing here changes anything. Whoever owns the store appends each [`Purge`] as a frame, so it
//! is replayed like all else, and asks again. A step looks at a bounded number of entries, since it
//! is the writer that takes it.

use lastword_core::codec::from_bytes;
use lastword_core::id::{BatchId, DeviceId, WorkspaceName};
use lastword_core::plant::{Plant, planted};

use crate::error::StoreError;
use crate::keys::{self, BY_COUNTER, BY_SEQ, COUNTERS, EXPIRING, GRAVES};
use crate::payload::{Purge, PurgePart, StoreRole};
use crate::read::{self, ReadState};
use crate::state::Space;

/// Most entries that one purge takes away.
pub const MAX_PURGE_ENTRIES: usize = 1024;
/// So many of a device's newest decisions are kept as long as tombstones are: it has no more
/// batches under way, and while it can catch up at all it must learn what became of them.
const KEPT_DECISIONS: u64 = 1024;
/// Most devices that one step looks at.
const MAX_DEVICES_LOOKED_AT: usize = 128;

/// How long things are kept, and what time it is.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Now, by the clock that stamps ops, in milliseconds since 1970 UTC.
    pub now_ms: i64,
    /// How long a tombstone is kept, in milliseconds.
    pub tombstones_ms: i64,
    /// How long a decision is kept, in milliseconds; the newest of each device are kept as long as
    /// tombstones.
    pub decisions_ms: i64,
    /// Also look for entries in order of seq whose record has moved on; it reads all of them.
    pub stale: bool,
}

/// What the next step of a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Something to purge.
    Purge(Purge),
    /// Nothing yet: go on.
    More,
    /// The end of the walk.
    End,
}

/// A walk over what one workspace may purge.
#[derive(Debug)]
pub struct PurgeWalk {
    workspace: WorkspaceName,
    at: At,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Generations,
    Expired,
    Tombstones,
    Decisions { after: Option<DeviceId> },
    Stale { after: u64 },
    End,
}

impl PurgeWalk {
    /// From the beginning.
    #[must_use]
    pub fn new(workspace: WorkspaceName) -> Self {
        Self { workspace, at: At::Generations }
    }

    /// The next step. What it names must be in the state before the one after is asked for.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or an entry is damaged.
    pub fn next<S: ReadState + ?Sized>(
        &mut self,
        state: &S,
        retention: &Retention,
    ) -> Result<Found, StoreError> {
        let is_authority =
            read::identity(state)?.is_some_and(|identity| identity.role == StoreRole::Authority);
        // While a new copy is made, entries by seq and time may be about its rows.
        let resets = read::reset(state, &self.workspace)?.is_some();
        if resets && !matches!(self.at, At::Generations) {
            return Ok(Found::End);
        }
        let stay = |found: Option<PurgePart>, behind: At| match found {
            Some(_) => (found, self.at),
            None => (None, behind),
        };
        let (found, next) = match self.at {
            At::Generations => {
                let left = read::left_generation(state, &self.workspace)?;
                let part = left.map(|generation| PurgePart::Generation { generation });
                stay(part, At::Expired)
            }
            At::Expired => stay(self.expired(state, retention)?, At::Tombstones),
            At::Tombstones if is_authority => {
                let decisions = At::Decisions { after: None };
                stay(self.old_tombstones(state, retention)?, decisions)
            }
            At::Tombstones => stay(self.tombstones_behind_horizon(state)?, At::End),
            At::Decisions { after } => self.decisions(state, retention, after)?,
            At::Stale { after } if retention.stale => self.stale(state, after)?,
            At::Stale { .. } => (None, At::End),
            At::End => return Ok(Found::End),
        };
        self.at = next;
        let workspace = self.workspace.clone();
        Ok(found.map_or(Found::More, |part| Found::Purge(Purge { workspace, part })))
    }

    fn first<S: ReadState + ?Sized>(
        &self,
        state: &S,
        space: Space,
    ) -> Result<Vec<read::Pair>, StoreError> {
        let from = keys::workspace_prefix(&self.workspace);
        state.range(space, &from, &keys::prefix_end(&from), false, MAX_PURGE_ENTRIES)
    }

    fn expired<S: ReadState + ?Sized>(
        &self,
        state: &S,
        retention: &Retention,
    ) -> Result<Option<PurgePart>, StoreError> {
        let mut until_ms = None;
        for (entry, _) in self.first(state, EXPIRING)? {
            let split = keys::split_expiring(&self.workspace, &entry);
            let Some((at, ..)) = split else {
                return Err(read::state_damaged(EXPIRING, &entry, "the entry names no record"));
            };
            let at = i64::try_from(at).unwrap_or(i64::MAX);
            if at > retention.now_ms {
                break;
            }
            until_ms = Some(at);
        }
        Ok(until_ms.map(|until_ms| PurgePart::Expired { until_ms }))
    }

    fn old_tombstones<S: ReadState + ?Sized>(
        &self,
        state: &S,
        retention: &Retention,
    ) -> Result<Option<PurgePart>, StoreError> {
        let generation = read::meta(state, &self.workspace)?.generation;
        let before_ms = retention.now_ms.saturating_sub(retention.tombstones_ms);
        let mut horizon = None;
        for (grave, record) in self.first(state, GRAVES)? {
            let (seq, table, key) = read::numbered_record(GRAVES, &grave, &record)?;
            let row_key = keys::row_key(&self.workspace, generation, &table, &key);
            let stored = read::row(state, &row_key)?.filter(|stored| stored.row.last.seq == seq);
            match stored {
                Some(stored) if stored.row.time_ms > before_ms => break,
                Some(_) => horizon = Some(seq),
                // The record moved on: no reason to move the horizon.
                None => {}
            }
        }
        Ok(horizon.map(|horizon| PurgePart::Tombstones { horizon }))
    }

    /// A replica forgets what its authority has forgotten, so that their sums stay equal.
    fn tombstones_behind_horizon<S: ReadState + ?Sized>(
        &self,
        state: &S,
    ) -> Result<Option<PurgePart>, StoreError> {
        let meta = read::meta(state, &self.workspace)?;
        let behind = meta.horizon.min(meta.cursor);
        let graves = self.first(state, GRAVES)?;
        let mut last = None;
        for (grave, record) in graves {
            let (seq, table, key) = read::numbered_record(GRAVES, &grave, &record)?;
            // An own undelete that stands on it would show nothing until the stream brings its row.
            let row_key = keys::row_key(&self.workspace, meta.generation, &table, &key);
            let waits = read::has_shadow(state, &row_key)? && !planted(Plant::PurgeUnderOwnOps);
            if seq > behind || waits {
                break;
            }
            last = Some(seq);
        }
        Ok(last.map(|horizon| PurgePart::Tombstones { horizon }))
    }

    fn decisions<S: ReadState + ?Sized>(
        &self,
        state: &S,
        retention: &Retention,
        after: Option<DeviceId>,
    ) -> Result<(Option<PurgePart>, At), StoreError> {
        let prefix = keys::workspace_prefix(&self.workspace);
        let from = match after {
            Some(device) => keys::prefix_end(&keys::identified(&self.workspace, &device.0)),
            None => prefix.clone(),
        };
        let end = keys::prefix_end(&prefix);
        let devices = state.range(COUNTERS, &from, &end, false, MAX_DEVICES_LOOKED_AT)?;
        let mut last = after;
        for (key, _) in &devices {
            let Some(device) = key.last_chunk().map(|id| DeviceId(*id)) else {
                return Err(read::state_damaged(COUNTERS, key, "the key names no device"));
            };
            if let Some(through) = self.old_decisions(state, retention, device)? {
                let part = PurgePart::Decisions { device, through };
                return Ok((Some(part), At::Decisions { after: last }));
            }
            last = Some(device);
        }
        let is_last = devices.len() < MAX_DEVICES_LOOKED_AT;
        Ok((None, if is_last { At::Stale { after: 0 } } else { At::Decisions { after: last } }))
    }

    /// The last counter of a device whose decision is old enough, if any is.
    fn old_decisions<S: ReadState + ?Sized>(
        &self,
        state: &S,
        retention: &Retention,
        device: DeviceId,
    ) -> Result<Option<u64>, StoreError> {
        let last = read::last_counter(state, &self.workspace, device)?;
        let before_ms = |counter: u64| {
            let is_recent = last.saturating_sub(counter) < KEPT_DECISIONS;
            let keep_ms = match is_recent {
                true => retention.tombstones_ms.max(retention.decisions_ms),
                false => retention.decisions_ms,
            };
            retention.now_ms.saturating_sub(keep_ms)
        };
        let from = keys::by_counter_key(&self.workspace, device, 0);
        let end = keys::prefix_end(&keys::identified(&self.workspace, &device.0));
        let mut through = None;
        // Most devices have nothing that is old enough, and one look shows it.
        let mut limit = 1;
        loop {
            let pairs = state.range(BY_COUNTER, &from, &end, false, limit)?;
            for (by_counter, batch_id) in &pairs {
                let batch_id: BatchId = from_bytes(batch_id).map_err(|error| {
                    read::state_damaged(BY_COUNTER, by_counter, &error.to_string())
                })?;
                let stored = read::decision(state, &self.workspace, batch_id)?;
                let counter = keys::number_of(by_counter).unwrap_or_default();
                if stored.is_some_and(|known| known.decision.time_ms() > before_ms(counter)) {
                    return Ok(through);
                }
                through = Some(counter);
            }
            if pairs.len() < limit || limit == MAX_PURGE_ENTRIES {
                return Ok(through);
            }
            limit = MAX_PURGE_ENTRIES;
        }
    }

    /// The next range of entries by seq that holds one whose record has moved on.
    fn stale<S: ReadState + ?Sized>(
        &self,
        state: &S,
        after: u64,
    ) -> Result<(Option<PurgePart>, At), StoreError> {
        let generation = read::meta(state, &self.workspace)?.generation;
        let from = keys::numbered(&self.workspace, after.saturating_add(1));
        let end = keys::prefix_end(&keys::workspace_prefix(&self.workspace));
        let (mut through, mut stale) = (after, false);
        let pairs = state.range(BY_SEQ, &from, &end, false, MAX_PURGE_ENTRIES)?;
        for (entry, record) in &pairs {
            let (seq, table, key) = read::numbered_record(BY_SEQ, entry, record)?;
            let row_key = keys::row_key(&self.workspace, generation, &table, &key);
            let stored = read::row(state, &row_key)?;
            stale |= stored.is_none_or(|stored| stored.row.stream_seq() != seq);
            through = seq;
        }
        let is_last = pairs.len() < MAX_PURGE_ENTRIES;
        let next = if is_last { At::End } else { At::Stale { after: through } };
        Ok((stale.then_some(PurgePart::Stale { after, through }), next))
    }
}
