//! What the state is read from: single rows and ranges of them.

use std::ops::Bound;
use std::sync::Arc;

use crate::error::StoreError;
use crate::state::{Direction, KeyRange, Scan, Space, StateTxn, View};

/// One key and its value.
pub type Pair = (Vec<u8>, Arc<[u8]>);

/// Anything that the state can be read from.
pub trait ReadState {
    /// The newest value of one key.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or the value is damaged.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError>;

    /// At most `limit` pairs with keys in `from..to`, ascending, or descending if `reverse`.
    ///
    /// # Errors
    /// [`StoreError`] if the disk fails or a value is damaged.
    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError>;

    /// Calls `visit` for every pair with a key in `from..to`, ascending, until it returns false.
    ///
    /// # Errors
    /// Those of [`ReadState::range`] and of `visit`.
    fn visit(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError>;
}

/// Hands the rows of a scan to `visit` as they are, until it returns false.
fn visit_scan(scan: Scan, visit: &mut Visit<'_>) -> Result<(), StoreError> {
    for row in scan {
        let (key, value) = row?;
        if !visit(&key, &value)? {
            break;
        }
    }
    Ok(())
}

fn collect(scan: Scan, limit: usize) -> Result<Vec<Pair>, StoreError> {
    scan.take(limit).map(|row| row.map(|(key, value)| (key.to_vec(), value))).collect()
}

fn key_range(from: &[u8], to: &[u8]) -> KeyRange {
    KeyRange::between(Bound::Included(from), Bound::Excluded(to))
}

fn direction(reverse: bool) -> Direction {
    if reverse { Direction::Reverse } else { Direction::Forward }
}

impl ReadState for View {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        View::get(self, space, key)
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        collect(self.scan(space, &key_range(from, to), direction(reverse))?, limit)
    }

    fn visit(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        visit_scan(self.scan(space, &key_range(from, to), Direction::Forward)?, visit)
    }
}

impl ReadState for StateTxn<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        StateTxn::get(self, space, key)
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        collect(self.scan(space, &key_range(from, to), direction(reverse))?, limit)
    }

    fn visit(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        visit_scan(self.scan(space, &key_range(from, to), Direction::Forward)?, visit)
    }
}

/// Gets a key and its value; false ends the visit.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, StoreError> + 'a;

/// Calls `visit` for every pair with a key in `from..to`, ascending, until it returns false.
///
/// # Errors
/// Those of the state and of `visit`.
pub fn visit_range<S: ReadState + ?Sized>(
    state: &S,
    space: Space,
    from: &[u8],
    to: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    state.visit(space, from, to, visit)
}
