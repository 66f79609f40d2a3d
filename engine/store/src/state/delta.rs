//! The newest rows, in memory, each with the versions views may still read.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::limits::{MAX_SPACES, SCAN_ROWS};
use crate::state::rows::{Key, Rows, Version, Versions};
use crate::state::space::{Direction, KeyRange, Space};

/// A row as a scan sees it: `None` is an explicit delete.
pub(crate) type Row = (Arc<[u8]>, Option<Arc<[u8]>>);

type Spaces = [Rows; MAX_SPACES];

/// An ordered map from (space, key, position) to a value or a delete. One writer adds, readers
/// look up what they may see; the lock is never held across a caller's code.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    spaces: RwLock<Spaces>,
    bytes: AtomicUsize,
}

impl Delta {
    /// Bytes held, with the overhead of the map.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.read().iter().all(|rows| rows.len() == 0)
    }

    /// An empty delta that keeps no order until it is scanned.
    pub(crate) fn unsorted() -> Self {
        let spaces = std::array::from_fn(|_| Rows::unsorted());
        Delta { spaces: RwLock::new(spaces), bytes: AtomicUsize::new(0) }
    }

    /// Puts all rows in order.
    pub(crate) fn sort(&self) {
        self.write().iter_mut().for_each(Rows::sort);
    }

    /// The newest version below `limit`: `None` if this delta knows nothing of the key,
    /// `Some(None)` if it was deleted.
    pub(crate) fn get(&self, space: Space, key: &[u8], limit: u64) -> Option<Option<Arc<[u8]>>> {
        self.read()[space.index()].get(key)?.visible(limit).cloned()
    }

    /// Adds a version; positions only rise, and a second write at the same position replaces it.
    /// With `keep` off it replaces all that was known of its row, so no view may be reading.
    pub(crate) fn put(
        &self,
        space: Space,
        key: Arc<[u8]>,
        position: u64,
        value: Option<Arc<[u8]>>,
        keep: bool,
    ) {
        let rows = &mut self.write()[space.index()];
        self.count(rows.add(key, Version { position, value }, keep));
    }

    /// Takes all versions of `other`, which is empty afterwards.
    pub(crate) fn absorb(&self, other: &Delta) {
        let mut from = other.write();
        let mut into = self.write();
        let mut added = 0;
        for (into, from) in into.iter_mut().zip(from.iter_mut()) {
            from.drain(|key, version| added += into.add(key, version, true));
        }
        other.bytes.store(0, Ordering::Relaxed);
        self.count(added);
    }

    /// Under the lock for writing, so that nobody else counts meanwhile.
    fn count(&self, added: isize) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.bytes.store(bytes.wrapping_add_signed(added), Ordering::Relaxed);
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        *self.write() = Spaces::default();
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Up to so many rows of `range` below `limit`; what was passed is taken off the range.
    /// Returns whether the range is exhausted.
    pub(crate) fn chunk(
        &self,
        space: Space,
        range: &mut KeyRange,
        (direction, rows): (Direction, usize),
        limit: u64,
        out: &mut VecDeque<Row>,
    ) -> bool {
        if range.is_empty() {
            return true;
        }
        let spaces = self.sorted(space);
        let passed = collect(spaces[space.index()].range(range, direction), rows, limit, out);
        drop(spaces);
        match passed {
            Some(key) => range.pass(key, direction),
            None => return true,
        }
        false
    }

    /// Adds the keys of `range` that have a version within `positions`.
    pub(crate) fn changed(
        &self,
        space: Space,
        range: &KeyRange,
        positions: Range<u64>,
        out: &mut BTreeSet<Arc<[u8]>>,
    ) {
        let mut range = range.clone();
        while !range.is_empty() {
            let spaces = self.sorted(space);
            let mut passed = None;
            let rows = spaces[space.index()].range(&range, Direction::Forward);
            for (key, versions) in rows.take(SCAN_ROWS) {
                if versions.any_within(&positions) {
                    out.insert(key.clone());
                }
                passed = Some(key.clone());
            }
            drop(spaces);
            match passed {
                Some(key) => range.pass(key, Direction::Forward),
                None => return,
            }
        }
    }

    /// The first key of a space and the one behind each `run` rows, the last one too, and how many
    /// rows there are.
    pub(crate) fn every(&self, space: Space, run: usize) -> (Vec<Key>, u64) {
        let spaces = self.sorted(space);
        let rows = &spaces[space.index()];
        let (mut keys, mut last) = (Vec::new(), None);
        for (at, (key, _)) in rows.range(&KeyRange::all(), Direction::Forward).enumerate() {
            last = if at % run == 0 { None } else { Some(key) };
            if last.is_none() {
                keys.push(key.clone());
            }
        }
        keys.extend(last.cloned());
        (keys, rows.len() as u64)
    }

    /// Rows of all spaces.
    pub(crate) fn rows(&self) -> u64 {
        self.read().iter().map(|rows| rows.len() as u64).sum()
    }

    /// The rows, with those of `space` in order.
    fn sorted(&self, space: Space) -> RwLockReadGuard<'_, Spaces> {
        let spaces = self.read();
        if spaces[space.index()].is_sorted() {
            return spaces;
        }
        drop(spaces);
        self.write()[space.index()].sort();
        self.read()
    }

    fn read(&self) -> RwLockReadGuard<'_, Spaces> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Spaces> {
        self.spaces.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Collects a chunk; returns the last key passed, or `None` if the rows ran out.
fn collect<'a>(
    rows: impl Iterator<Item = (&'a Key, &'a Versions)>,
    most: usize,
    limit: u64,
    out: &mut VecDeque<Row>,
) -> Option<Key> {
    for (passed, (key, versions)) in rows.enumerate() {
        if let Some(value) = versions.visible(limit) {
            out.push_back((key.clone(), value.clone()));
        }
        if passed + 1 == most {
            return Some(key.clone());
        }
    }
    None
}
