//! The newest rows, in memory, each with the versions views may still read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::limits::{MAX_SPACES, SCAN_ROWS};
use crate::state::space::{Direction, KeyRange, Space};

/// Bytes a row costs beside its key: its share of a map node, the reference counts, the list.
const ROW_OVERHEAD: usize = 112;
/// Bytes a version costs beside its value.
const VERSION_OVERHEAD: usize = 56;

/// A row as a scan sees it: `None` is an explicit delete.
pub(crate) type Row = (Arc<[u8]>, Option<Arc<[u8]>>);

type Rows = BTreeMap<Arc<[u8]>, Vec<Version>>;
type Spaces = [Rows; MAX_SPACES];

#[derive(Debug)]
struct Version {
    position: u64,
    value: Option<Arc<[u8]>>,
}

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
        self.read().iter().all(BTreeMap::is_empty)
    }

    /// The newest version below `limit`: `None` if this delta knows nothing of the key,
    /// `Some(None)` if it was deleted.
    pub(crate) fn get(&self, space: Space, key: &[u8], limit: u64) -> Option<Option<Arc<[u8]>>> {
        visible(self.read()[space.index()].get(key)?, limit).cloned()
    }

    /// Adds a version; positions only rise, and a second write at the same position replaces it.
    pub(crate) fn put(
        &self,
        space: Space,
        key: Arc<[u8]>,
        position: u64,
        value: Option<Arc<[u8]>>,
    ) {
        let rows = &mut self.write()[space.index()];
        self.count(add(rows, key, Version { position, value }, true));
    }

    /// Takes all versions of `other`, which is empty afterwards; with `keep` off each replaces what
    /// was known of its row, so no view may be reading.
    pub(crate) fn absorb(&self, other: &Delta, keep: bool) {
        let mut from = other.write();
        let mut into = self.write();
        let mut added = 0;
        for (into, from) in into.iter_mut().zip(from.iter_mut()) {
            for (key, versions) in std::mem::take(from) {
                for version in versions {
                    added += add(into, key.clone(), version, keep);
                }
            }
        }
        other.bytes.store(0, Ordering::Relaxed);
        self.count(added);
    }

    fn count(&self, added: isize) {
        self.bytes.fetch_add(added as usize, Ordering::Relaxed);
    }

    /// Drops everything.
    pub(crate) fn clear(&self) {
        *self.write() = Spaces::default();
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Up to `SCAN_ROWS` rows of `range` below `limit`; what was passed is taken off the range.
    /// Returns whether the range is exhausted.
    pub(crate) fn chunk(
        &self,
        space: Space,
        range: &mut KeyRange,
        direction: Direction,
        limit: u64,
        out: &mut VecDeque<Row>,
    ) -> bool {
        if range.is_empty() {
            return true;
        }
        let spaces = self.read();
        let rows = spaces[space.index()].range::<[u8], _>(range.bounds());
        let passed = match direction {
            Direction::Forward => collect(rows, limit, out),
            Direction::Reverse => collect(rows.rev(), limit, out),
        };
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
            let spaces = self.read();
            let mut passed = None;
            let rows = spaces[space.index()].range::<[u8], _>(range.bounds());
            for (key, versions) in rows.take(SCAN_ROWS) {
                let from = versions.partition_point(|at| at.position < positions.start);
                if versions.get(from).is_some_and(|version| version.position < positions.end) {
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

    /// Rows of all spaces.
    pub(crate) fn rows(&self) -> u64 {
        self.read().iter().map(|rows| rows.len() as u64).sum()
    }

    fn read(&self) -> RwLockReadGuard<'_, Spaces> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Spaces> {
        self.spaces.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a version; returns by how many bytes the rows grew or shrank.
fn add(rows: &mut Rows, key: Arc<[u8]>, version: Version, keep: bool) -> isize {
    let cost = |version: &Version| {
        VERSION_OVERHEAD + version.value.as_ref().map_or(0, |value| value.len())
    };
    let mut added = cost(&version) as isize;
    let key_cost = (ROW_OVERHEAD + key.len()) as isize;
    let versions = rows.entry(key).or_default();
    if versions.is_empty() {
        added += key_cost;
    }
    match versions.last_mut() {
        Some(last) if !keep || last.position == version.position => {
            added -= cost(last) as isize;
            *last = version;
        }
        _ => versions.push(version),
    }
    added
}

/// Versions rise by position, so the newest below the limit is found from the end.
fn visible(versions: &[Version], limit: u64) -> Option<&Option<Arc<[u8]>>> {
    let below = versions.partition_point(|version| version.position < limit);
    Some(&versions.get(below.checked_sub(1)?)?.value)
}

/// Collects a chunk; returns the last key passed, or `None` if the rows ran out.
fn collect<'a>(
    rows: impl Iterator<Item = (&'a Arc<[u8]>, &'a Vec<Version>)>,
    limit: u64,
    out: &mut VecDeque<Row>,
) -> Option<Arc<[u8]>> {
    for (passed, (key, versions)) in rows.enumerate() {
        if let Some(value) = visible(versions, limit) {
            out.push_back((key.clone(), value.clone()));
        }
        if passed + 1 == SCAN_ROWS {
            return Some(key.clone());
        }
    }
    None
}
