//! The rows of one space in memory, by their keys.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Bound, Range};
use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::{IndexMap, map};

use crate::state::space::{Direction, KeyRange};

/// Bytes a row costs beside its key: its share of a map node, the reference counts, the list.
const ROW_OVERHEAD: usize = 112;
/// Bytes a version costs beside its value.
const VERSION_OVERHEAD: usize = 56;

pub(super) type Key = Arc<[u8]>;
type Hashed = IndexMap<Key, Versions, RandomState>;

/// What a row was from a position of the log on; `None` where it was deleted.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) position: u64,
    pub(super) value: Option<Arc<[u8]>>,
}

/// The versions of one row. Most rows have one.
#[derive(Debug)]
pub(super) struct Versions {
    newest: Version,
    /// By rising position.
    older: Vec<Version>,
}

/// The rows of one space. A replay, which no view reads, gathers them without order, since that is
/// twice as fast; the first scan puts them in order for good.
#[derive(Debug)]
pub(super) enum Rows {
    Unsorted(Hashed),
    Sorted {
        /// What was gathered without order; its keys are in `added` never.
        run: Run,
        added: BTreeMap<Key, Versions>,
    },
}

/// Rows that stay where a replay has put them, and their order. Building a tree of them would take
/// as long as all of the log takes to be read: each key lies in another page of memory.
#[derive(Debug, Default)]
pub(super) struct Run {
    rows: Hashed,
    /// Places of the rows in the order of their keys, each behind the eight bytes that follow what
    /// all keys begin with: most comparisons end there.
    order: Vec<(u64, usize)>,
    /// Length of what all keys begin with.
    shared: usize,
}

impl Default for Rows {
    fn default() -> Self {
        Rows::Sorted { run: Run::default(), added: BTreeMap::new() }
    }
}

impl Rows {
    pub(super) fn unsorted() -> Self {
        Rows::Unsorted(Hashed::default())
    }

    pub(super) fn is_sorted(&self) -> bool {
        matches!(self, Rows::Sorted { .. })
    }

    pub(super) fn sort(&mut self) {
        if let Rows::Unsorted(rows) = self {
            let run = Run::new(std::mem::take(rows));
            *self = Rows::Sorted { run, added: BTreeMap::new() };
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Rows::Unsorted(rows) => rows.len(),
            Rows::Sorted { run, added } => run.rows.len() + added.len(),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Versions> {
        match self {
            Rows::Unsorted(rows) => rows.get(key),
            Rows::Sorted { run, added } => run.rows.get(key).or_else(|| added.get(key)),
        }
    }

    /// The rows of a range, which is not empty.
    pub(super) fn range(
        &self,
        range: &KeyRange,
        direction: Direction,
    ) -> impl Iterator<Item = (&Key, &Versions)> {
        let Rows::Sorted { run, added } = self else {
            unreachable!("invariant: a scan sorts first")
        };
        let mut of_run = run.range(range);
        let mut of_added = added.range::<[u8], _>(range.bounds());
        let mut next_of_run = move || match direction {
            Direction::Forward => of_run.next(),
            Direction::Reverse => of_run.next_back(),
        };
        let mut next_of_added = move || match direction {
            Direction::Forward => of_added.next(),
            Direction::Reverse => of_added.next_back(),
        };
        let mut next = (next_of_run(), next_of_added());
        std::iter::from_fn(move || {
            let run_first = match next {
                (Some((run, _)), Some((added, _))) => {
                    (run < added) == (direction == Direction::Forward)
                }
                (run, _) => run.is_some(),
            };
            match run_first {
                true => std::mem::replace(&mut next.0, next_of_run()),
                false => std::mem::replace(&mut next.1, next_of_added()),
            }
        })
    }

    /// Hands out all versions, those of a row by rising position, and is empty afterwards.
    pub(super) fn drain(&mut self, mut take: impl FnMut(Key, Version)) {
        let mut take_row = |(key, versions): (Key, Versions)| {
            versions.older.into_iter().for_each(|version| take(key.clone(), version));
            take(key, versions.newest);
        };
        match self {
            Rows::Unsorted(rows) => rows.drain(..).for_each(take_row),
            Rows::Sorted { run, added } => {
                std::mem::take(run).rows.into_iter().for_each(&mut take_row);
                std::mem::take(added).into_iter().for_each(take_row);
            }
        }
    }

    /// Adds a version; returns by how many bytes the rows grew or shrank.
    pub(super) fn add(&mut self, key: Key, version: Version, keep: bool) -> isize {
        let fresh_cost = (ROW_OVERHEAD + key.len()) as isize + version.cost();
        let known = match self {
            Rows::Unsorted(rows) => match rows.entry(key) {
                map::Entry::Occupied(known) => known.into_mut(),
                map::Entry::Vacant(fresh) => {
                    fresh.insert(Versions::of(version));
                    return fresh_cost;
                }
            },
            Rows::Sorted { run, added } => match run.rows.get_mut(&key) {
                Some(known) => known,
                None => match added.entry(key) {
                    btree_map::Entry::Occupied(known) => known.into_mut(),
                    btree_map::Entry::Vacant(fresh) => {
                        fresh.insert(Versions::of(version));
                        return fresh_cost;
                    }
                },
            },
        };
        known.add(version, keep)
    }
}

impl Run {
    fn new(rows: Hashed) -> Self {
        let first = rows.first().map_or(&[][..], |(first, _)| first);
        let shared = rows.keys().fold(first.len(), |shared, key| {
            let same = first.iter().zip(key.iter()).take(shared);
            same.take_while(|(a, b)| a == b).count()
        });
        let mut order: Vec<_> =
            rows.keys().enumerate().map(|(place, key)| (prefix(key, shared), place)).collect();
        order.sort_unstable_by(|(a, a_place), (b, b_place)| {
            let key = |place: &usize| rows.get_index(*place).map(|(key, _)| key);
            a.cmp(b).then_with(|| key(a_place).cmp(&key(b_place)))
        });
        Run { rows, order, shared }
    }

    fn range(&self, range: &KeyRange) -> impl DoubleEndedIterator<Item = (&Key, &Versions)> {
        let from = match &range.lower {
            Bound::Unbounded => 0,
            Bound::Included(lower) => self.place_of(lower, false),
            Bound::Excluded(lower) => self.place_of(lower, true),
        };
        let to = match &range.upper {
            Bound::Unbounded => self.order.len(),
            Bound::Included(upper) => self.place_of(upper, true),
            Bound::Excluded(upper) => self.place_of(upper, false),
        };
        let places = self.order.get(from..to).unwrap_or_default();
        places.iter().filter_map(|(_, place)| self.rows.get_index(*place))
    }

    /// How many rows come before `key`, with its own row if `itself`.
    fn place_of(&self, key: &[u8], itself: bool) -> usize {
        let first = self.rows.first().and_then(|(first, _)| first.get(..self.shared));
        let own = (key.get(..self.shared) == first).then(|| prefix(key, self.shared));
        self.order.partition_point(|(prefix, place)| {
            let by_prefix = own.map(|own| prefix.cmp(&own)).filter(|order| order.is_ne());
            let order = by_prefix.unwrap_or_else(|| {
                let row = self.rows.get_index(*place).map(|(row, _)| &**row);
                row.cmp(&Some(key))
            });
            order.is_lt() || itself && order.is_eq()
        })
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
    pub(super) fn visible(&self, limit: u64) -> Option<&Option<Arc<[u8]>>> {
        if self.newest.position < limit {
            return Some(&self.newest.value);
        }
        let below = self.older.partition_point(|version| version.position < limit);
        Some(&self.older.get(below.checked_sub(1)?)?.value)
    }

    pub(super) fn any_within(&self, positions: &Range<u64>) -> bool {
        let from = self.older.partition_point(|version| version.position < positions.start);
        let first = self.older.get(from).unwrap_or(&self.newest);
        positions.contains(&first.position)
    }
}

/// Eight bytes of a key from `skip` on, with zeros behind its end, as a number of the same order.
fn prefix(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(rest).for_each(|(byte, from)| *byte = *from);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Few letters and a shared beginning: keys that begin alike, end early, or are the same.
        let key = proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(255)], 0..12);
        let shared = prop_oneof![Just(&b""[..]), Just(&b"main/rows/"[..])];
        (shared, proptest::collection::vec(key, 0..40)).prop_map(|(shared, keys)| {
            keys.into_iter().map(|key| [shared, &key].concat()).collect()
        })
    }

    fn bound(key: Option<Vec<u8>>, included: bool) -> Bound<Key> {
        match (key, included) {
            (None, _) => Bound::Unbounded,
            (Some(key), true) => Bound::Included(key.into()),
            (Some(key), false) => Bound::Excluded(key.into()),
        }
    }

    proptest! {
        /// What a replay gathered and what came later read as one ordered map, both ways, whatever
        /// the range; a row that was known gets its new version where it is.
        #[test]
        fn a_run_and_what_was_added_read_as_one_map(
            gathered in keys(),
            added in keys(),
            ends in (proptest::option::of(keys()), proptest::option::of(keys())),
            included in any::<(bool, bool)>(),
        ) {
            let (mut rows, mut model) = (Rows::unsorted(), BTreeMap::new());
            let mut position = 0;
            let mut bytes = 0;
            for (keys, keep) in [(&gathered, false), (&added, true)] {
                for key in keys {
                    position += 1;
                    let version = Version { position, value: Some(key[..].into()) };
                    bytes += rows.add(key[..].into(), version, keep);
                    model.insert(key.clone(), position);
                }
                rows.sort();
            }
            prop_assert_eq!(rows.len(), model.len());
            let end = |keys: Option<Vec<Vec<u8>>>| keys.and_then(|keys| keys.into_iter().next());
            let range = KeyRange {
                lower: bound(end(ends.0), included.0),
                upper: bound(end(ends.1), included.1),
            };
            if !range.is_empty() {
                let expected: Vec<_> = model.range::<[u8], _>(range.bounds()).collect();
                let read = |direction| {
                    let rows = rows.range(&range, direction);
                    rows.map(|(key, row)| (key.to_vec(), row.newest.position)).collect::<Vec<_>>()
                };
                let forward = read(Direction::Forward);
                prop_assert!(forward.iter().map(|(key, at)| (key, at)).eq(expected));
                let backward: Vec<_> = forward.into_iter().rev().collect();
                prop_assert_eq!(read(Direction::Reverse), backward);
            }
            for (key, position) in &model {
                prop_assert_eq!(rows.get(key).map(|row| row.newest.position), Some(*position));
            }
            let mut into = Rows::default();
            let mut moved = 0;
            rows.drain(|key, version| moved += into.add(key, version, true));
            prop_assert_eq!((rows.len(), into.len(), moved), (0, model.len(), bytes));
        }
    }
}
