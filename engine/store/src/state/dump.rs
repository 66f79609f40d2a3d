//! A walk over everything a checkpoint left in redb, which proves at its end that no row is
//! missing.

use std::sync::Arc;

use crate::error::StoreError;
use crate::limits::MAX_SPACES;
use crate::plant::{Plant, planted};
use crate::state::space::{Direction, KeyRange, Space};
use crate::state::sums::StateSums;
use crate::state::tables::{Base, BaseRows};

/// Rows of all spaces but those left out, in order of space and key.
#[derive(Debug)]
pub(crate) struct Dump {
    base: Arc<Base>,
    left_out: Vec<Space>,
    at: usize,
    rows: Option<BaseRows>,
    last_key: Option<Arc<[u8]>>,
    seen: StateSums,
}

/// One row of a dump: space, key, value.
pub(crate) type DumpedRow = (Space, Arc<[u8]>, Arc<[u8]>);

impl Dump {
    pub(crate) fn new(base: Arc<Base>, left_out: &[Space]) -> Self {
        let (left_out, seen) = (left_out.to_vec(), StateSums::default());
        Dump { base, left_out, at: 0, rows: None, last_key: None, seen }
    }

    /// The next row. Errors: [`StoreError::StateDamaged`] for a row that is wrong, out of order or,
    /// at the end of its space, missing.
    pub(crate) fn next(&mut self) -> Result<Option<DumpedRow>, StoreError> {
        while self.at < MAX_SPACES {
            let space = Space::new(self.at as u8);
            if self.left_out.contains(&space) {
                self.at += 1;
                continue;
            }
            let rows = match &mut self.rows {
                Some(rows) => rows,
                none => none.insert(self.base.rows(space, &KeyRange::all())?),
            };
            if let Some((key, value, digest)) = rows.next_verified(Direction::Forward)? {
                if self.last_key.as_ref().is_some_and(|last| *last >= key) {
                    return Err(self.base.damaged("rows are out of order"));
                }
                if !self.base.finds(space, &key)? {
                    return Err(self.base.damaged("a row is not found by its key"));
                }
                self.seen.space(space).add(&key, value.len(), digest);
                self.last_key = Some(key.clone());
                return Ok(Some((space, key, value)));
            }
            self.check(space)?;
            (self.rows, self.last_key) = (None, None);
            self.at += 1;
        }
        Ok(None)
    }

    fn check(&self, space: Space) -> Result<(), StoreError> {
        if planted(Plant::DumpWithoutSums) {
            return Ok(());
        }
        let (seen, expected) = (self.seen.of(space), self.base.sums.of(space));
        if seen == expected {
            return Ok(());
        }
        let number = space.number();
        let reason = match seen.rows == expected.rows {
            true => format!("space {number} has other rows than were written"),
            false => format!(
                "space {number} has {} rows where {} were written",
                seen.rows, expected.rows
            ),
        };
        Err(self.base.damaged(&reason))
    }

    /// What was walked over.
    pub(crate) fn seen(&self) -> StateSums {
        self.seen
    }
}
