//! Whether redb still has all the rows that a checkpoint wrote.
//!
//! A flipped bit in a page of keys hides rows: a look finds nothing, and nothing tells that from a
//! row that never was. Large spaces are looked through by every fold. Small ones hold the facts
//! that all else is judged by (who the store is, how far it has come), so they are looked through
//! whenever a state is opened.

use std::sync::Arc;

use crate::error::StoreError;
use crate::limits::{MAX_SPACES, SMALL_SPACE_ROWS};
use crate::state::space::{Direction, KeyRange, Space};
use crate::state::sums::SpaceSum;
use crate::state::tables::Base;

/// Whether each space of few rows has them all, and each is found by its key.
pub(crate) fn small_spaces_are_whole(base: &Arc<Base>) -> bool {
    let small = |space: &Space| base.sums.of(*space).rows <= SMALL_SPACE_ROWS;
    let mut spaces = (0..MAX_SPACES as u8).map(Space::new).filter(small);
    spaces.all(|space| is_whole(base, space).unwrap_or(false))
}

fn is_whole(base: &Arc<Base>, space: Space) -> Result<bool, StoreError> {
    let mut found = SpaceSum::default();
    let mut rows = base.rows(space, &KeyRange::all())?;
    while let Some((key, value, digest)) = rows.next_verified(Direction::Forward)? {
        if !base.finds(space, &key)? {
            return Ok(false);
        }
        found.add(&key, value.len(), digest);
    }
    Ok(found == base.sums.of(space))
}
