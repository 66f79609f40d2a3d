//! The newest rows, in memory, each with the versions views may still read.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::RandomState;
use indexmap::{IndexMap, map};

use crate::limits::{MAX_SPACES, SCAN_ROWS};
use crate::state::space::{Direction, KeyRange, Space};

/// Bytes a row costs beside its key: its share of a map node, the reference counts, the list.
const ROW_OVERHEAD: usize = 112;
/// Bytes a version costs beside its value.
const VERSION_OVERHEAD: usize = 56;

/// A row as a scan sees it: `None` is an explicit delete.
pub(crate) type Row = (Arc<[u8]>, Option<Arc<[u8]>>);

type Key = Arc<[u8]>;
type Spaces = [Rows; MAX_SPACES];

#[derive(Debug)]
struct Version {
    position: u64,
    value: Option<Arc<[u8]>>,
}

/// The versions of one row. Most rows have one.
#[derive(Debug)]
struct Versions {
    newest: Version,
    /// By rising position.
    older: Vec<Version>,
}

/// The rows of one space. A replay, which no view reads, gathers them without order, since that is
/// twice as fast; the first scan puts them in order for good.
#[derive(Debug)]
enum Rows {
    Sorted(BTreeMap<Key, Versions>),
    Hashed(IndexMap<Key, Versions, RandomState>),
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
        self.read().iter().all(|rows| rows.len() == 0)
    }

    /// An empty delta that keeps no order until it is scanned.
    pub(crate) fn unsorted() -> Self {
        let spaces = std::array::from_fn(|_| Rows::Hashed(IndexMap::default()));
        Delta { spaces: RwLock::new(spaces), bytes: AtomicUsize::new(0) }
    }

    /// Puts all rows in order.
    pub(crate) fn sort(&self) {
        self.write().iter_mut().for_each(Rows::sort);
    }

    /// The newest version below `limit`: `None` if this delta knows nothing of the key,
    /// `Some(None)` if it was deleted.
    pub(crate) fn get(&self, space: Space, key: &[u8], limit: u64) -> Option<Option<Arc<[u8]>>> {
        let spaces = self.read();
        let versions = match &spaces[space.index()] {
            Rows::Sorted(rows) => rows.get(key),
            Rows::Hashed(rows) => rows.get(key),
        };
        versions?.visible(limit).cloned()
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
            from.drain(|key, versions| {
                for version in versions.older {
                    added += into.add(key.clone(), version, true);
                }
                added += into.add(key, versions.newest, true);
            });
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
        let spaces = self.sorted(space);
        let rows = spaces[space.index()].range(range);
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
            let spaces = self.sorted(space);
            let mut passed = None;
            for (key, versions) in spaces[space.index()].range(&range).take(SCAN_ROWS) {
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

    /// Rows of all spaces.
    pub(crate) fn rows(&self) -> u64 {
        self.read().iter().map(|rows| rows.len() as u64).sum()
    }

    /// The rows, with those of `space` in order.
    fn sorted(&self, space: Space) -> RwLockReadGuard<'_, Spaces> {
        let spaces = self.read();
        if matches!(spaces[space.index()], Rows::Sorted(_)) {
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

impl Default for Rows {
    fn default() -> Self {
        Rows::Sorted(BTreeMap::new())
    }
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Rows::Sorted(rows) => rows.len(),
            Rows::Hashed(rows) => rows.len(),
        }
    }

    fn sort(&mut self) {
        if let Rows::Hashed(rows) = self {
            *self = Rows::Sorted(in_order(std::mem::take(rows).into_iter().collect()));
        }
    }

    fn range(&self, range: &KeyRange) -> btree_map::Range<'_, Key, Versions> {
        match self {
            Rows::Sorted(rows) => rows.range::<[u8], _>(range.bounds()),
            Rows::Hashed(_) => unreachable!("invariant: a scan sorts first"),
        }
    }

    /// Hands out all rows and is empty afterwards.
    fn drain(&mut self, mut take: impl FnMut(Key, Versions)) {
        match self {
            Rows::Sorted(rows) => {
                std::mem::take(rows).into_iter().for_each(|(key, versions)| take(key, versions));
            }
            Rows::Hashed(rows) => rows.drain(..).for_each(|(key, versions)| take(key, versions)),
        }
    }

    /// Adds a version; returns by how many bytes the rows grew or shrank.
    fn add(&mut self, key: Key, version: Version, keep: bool) -> isize {
        let fresh_cost = (ROW_OVERHEAD + key.len()) as isize + version.cost();
        let known = match self {
            Rows::Sorted(rows) => match rows.entry(key) {
                btree_map::Entry::Occupied(known) => known.into_mut(),
                btree_map::Entry::Vacant(fresh) => {
                    fresh.insert(Versions::of(version));
                    return fresh_cost;
                }
            },
            Rows::Hashed(rows) => match rows.entry(key) {
                map::Entry::Occupied(known) => known.into_mut(),
                map::Entry::Vacant(fresh) => {
                    fresh.insert(Versions::of(version));
                    return fresh_cost;
                }
            },
        };
        known.add(version, keep)
    }
}

impl Version {
    fn cost(&self) -> isize {
        (VERSION_OVERHEAD + self.value.as_ref().map_or(0, |value| value.len())) as isize
    }
}

impl Versions {
    fn of(newest: Version) -> Self {
        Versions { newest, older: Vec::new() }
    }

    fn add(&mut self, version: Version, keep: bool) -> isize {
        let added = version.cost();
        let old = std::mem::replace(&mut self.newest, version);
        if !keep || old.position == self.newest.position {
            return added - old.cost();
        }
        self.older.push(old);
        added
    }

    /// The newest value below the limit: versions rise by position.
    fn visible(&self, limit: u64) -> Option<&Option<Arc<[u8]>>> {
        if self.newest.position < limit {
            return Some(&self.newest.value);
        }
        let below = self.older.partition_point(|version| version.position < limit);
        Some(&self.older.get(below.checked_sub(1)?)?.value)
    }

    fn any_within(&self, positions: &Range<u64>) -> bool {
        let from = self.older.partition_point(|version| version.position < positions.start);
        let first = self.older.get(from).unwrap_or(&self.newest);
        positions.contains(&first.position)
    }
}

/// The rows as a map in the order of their keys. Most comparisons end in the eight bytes behind
/// what all keys begin with, which lie beside the rows: following two pointers for each would take
/// half of a replay.
fn in_order(rows: Vec<(Key, Versions)>) -> BTreeMap<Key, Versions> {
    let Some(shared) = rows.first().map(|(first, _)| {
        rows.iter().fold(first.len(), |shared, (key, _)| {
            let same = first.iter().zip(key.iter()).take(shared);
            same.take_while(|(a, b)| a == b).count()
        })
    }) else {
        return BTreeMap::new();
    };
    let mut rows: Vec<_> = rows.into_iter().map(|row| (prefix(&row.0, shared), row)).collect();
    rows.sort_unstable_by(|(a, (a_key, _)), (b, (b_key, _))| {
        a.cmp(b).then_with(|| a_key.cmp(b_key))
    });
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Eight bytes of a key from `skip` on, with zeros behind its end, as a number of the same order.
fn prefix(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(rest).for_each(|(byte, from)| *byte = *from);
    u64::from_be_bytes(bytes)
}

/// Collects a chunk; returns the last key passed, or `None` if the rows ran out.
fn collect<'a>(
    rows: impl Iterator<Item = (&'a Key, &'a Versions)>,
    limit: u64,
    out: &mut VecDeque<Row>,
) -> Option<Key> {
    for (passed, (key, versions)) in rows.enumerate() {
        if let Some(value) = versions.visible(limit) {
            out.push_back((key.clone(), value.clone()));
        }
        if passed + 1 == SCAN_ROWS {
            return Some(key.clone());
        }
    }
    None
}
