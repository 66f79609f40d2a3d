//! Where a row lives and which rows a scan takes.

use std::ops::Bound;
use std::sync::Arc;

use crate::limits::MAX_SPACES;

/// One of 16 named spaces of rows, each with its own order of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(u8);

impl Space {
    /// Space `number`, 0 to 15; meant for constants, where a larger number does not compile.
    pub const fn new(number: u8) -> Space {
        assert!((number as usize) < MAX_SPACES, "spaces are numbered 0 to 15");
        Space(number)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Reverse,
}

/// A range of keys in byte order.
#[derive(Debug, Clone)]
pub struct KeyRange {
    pub(crate) lower: Bound<Arc<[u8]>>,
    pub(crate) upper: Bound<Arc<[u8]>>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        KeyRange { lower: Bound::Unbounded, upper: Bound::Unbounded }
    }

    /// Keys between two bounds.
    pub fn between(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Self {
        KeyRange { lower: lower.map(Arc::from), upper: upper.map(Arc::from) }
    }

    /// Keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        // The first key behind the prefix: its last byte that can rise, raised.
        let mut behind = prefix.to_vec();
        let upper = loop {
            match behind.pop() {
                None => break Bound::Unbounded,
                Some(0xff) => {}
                Some(byte) => {
                    behind.push(byte + 1);
                    break Bound::Excluded(Arc::from(behind));
                }
            }
        };
        KeyRange { lower: Bound::Included(Arc::from(prefix)), upper }
    }

    /// No key.
    pub(crate) fn none() -> Self {
        KeyRange { lower: Bound::Excluded(Arc::default()), upper: Bound::Excluded(Arc::default()) }
    }

    /// Whether no key can be in the range; ordered maps panic on such bounds.
    pub(crate) fn is_empty(&self) -> bool {
        use Bound::{Excluded, Included, Unbounded};
        match (&self.lower, &self.upper) {
            (Unbounded, _) | (_, Unbounded) => false,
            (Included(lower), Included(upper)) => lower > upper,
            (Included(lower) | Excluded(lower), Included(upper) | Excluded(upper)) => {
                lower >= upper
            }
        }
    }

    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.lower.as_ref().map(|key| &**key), self.upper.as_ref().map(|key| &**key))
    }

    /// Leaves only what comes after `key` in a scan.
    pub(crate) fn pass(&mut self, key: Arc<[u8]>, direction: Direction) {
        match direction {
            Direction::Forward => self.lower = Bound::Excluded(key),
            Direction::Reverse => self.upper = Bound::Excluded(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of a prefix is the first key behind it, also where its last bytes cannot rise.
    #[test]
    fn a_prefix_ends_before_the_next_key() {
        let upper = |prefix: &[u8]| KeyRange::prefix(prefix).upper;
        assert_eq!(upper(b"ab"), Bound::Excluded(Arc::from(&b"ac"[..])));
        assert_eq!(upper(b"a\xff"), Bound::Excluded(Arc::from(&b"b"[..])));
        assert_eq!(upper(b"\xff\xff"), Bound::Unbounded);
        assert_eq!(upper(b""), Bound::Unbounded);
    }
}
