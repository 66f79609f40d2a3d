//! A walk over everything a checkpoint left in redb, which proves at its end that no row is
//! missing; alone, or with later changes on top.

use std::collections::VecDeque;
use std::sync::Arc;

use lastword_core::plant::{Plant, planted};

use crate::error::StoreError;
use crate::limits::{COPY_BYTES, MAX_SPACES, SCAN_ROWS};
use crate::state::delta::{Delta, Row};
use crate::state::space::{Direction, KeyRange, Space};
use crate::state::sums::StateSums;
use crate::state::tables::{Base, BaseRows, DumpedRow};

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

/// The rows of a dump with a frozen delta on top, in order; rows that were deleted are left out.
#[derive(Debug)]
pub(crate) struct Merged {
    dump: Dump,
    old: Option<DumpedRow>,
    frozen: Arc<Delta>,
    /// The space whose changes are in `changes`, and what is left of it.
    at: (usize, KeyRange),
    changes: VecDeque<Row>,
    begun: bool,
}

impl Merged {
    pub(crate) fn new(base: Arc<Base>, frozen: Arc<Delta>) -> Self {
        let (dump, at) = (Dump::new(base, &[]), (0, KeyRange::all()));
        Merged { dump, old: None, frozen, at, changes: VecDeque::new(), begun: false }
    }

    /// Adds up to `rows` rows to `out`, fewer once they take [`COPY_BYTES`]; whether there are no
    /// more. Errors: those of [`Dump::next`].
    pub(crate) fn chunk(
        &mut self,
        rows: usize,
        out: &mut Vec<DumpedRow>,
    ) -> Result<bool, StoreError> {
        let mut bytes = 0;
        if !self.begun {
            self.old = self.dump.next()?;
            self.begun = true;
        }
        while out.len() < rows && bytes < COPY_BYTES {
            self.load_changes();
            let space = Space::new(self.at.0.min(MAX_SPACES - 1) as u8);
            let change = self.changes.front().map(|(key, _)| (space, key));
            let old = self.old.as_ref().map(|(space, key, _)| (*space, key));
            let (take_old, take_change) = match (old, change) {
                (None, None) => return Ok(true),
                (old, None) => (old.is_some(), false),
                (None, Some(_)) => (false, true),
                (Some(old), Some(change)) => (old <= change, change <= old),
            };
            let mut row = None;
            if take_old {
                row = std::mem::replace(&mut self.old, self.dump.next()?);
            }
            if take_change && let Some((key, value)) = self.changes.pop_front() {
                row = value.map(|value| (space, key, value));
            }
            bytes += row.as_ref().map_or(0, |(_, key, value)| key.len() + value.len());
            out.extend(row);
        }
        Ok(false)
    }

    /// Makes sure that the next change is in `changes`, if there is one.
    fn load_changes(&mut self) {
        while self.changes.is_empty() && self.at.0 < MAX_SPACES {
            let (space, rest) = (Space::new(self.at.0 as u8), &mut self.at.1);
            let order = (Direction::Forward, SCAN_ROWS);
            let last = self.frozen.chunk(space, rest, order, u64::MAX, &mut self.changes);
            if last && self.changes.is_empty() {
                self.at = (self.at.0 + 1, KeyRange::all());
            } else if last {
                self.at.1 = KeyRange::none();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::limits::COPY_ROWS;
    use crate::oplog::Durable;
    use crate::state::file::create_state;
    use crate::state::tables::Watermark;

    /// R10. Rows were copied from one state file to another by their number alone: a thousand of
    /// 768 KiB took three quarters of a gigabyte at a time.
    #[test]
    fn large_rows_are_copied_a_few_at_a_time() {
        const ROW_BYTES: usize = 512 * 1024;
        let rows: Vec<DumpedRow> = (0..20_u8)
            .map(|key| (Space::new(0), Arc::from([key]), Arc::from(vec![key; ROW_BYTES])))
            .collect();
        let made = create_state(&MemoryDisk::new(4096), [1; 16], 1 << 20).expect("the disk works");
        let mut write = made.tables.begin(StateSums::default()).expect("redb works");
        write.dumped(&rows).expect("redb works");
        let durable = Durable { end: 0, group: 0 };
        write.commit(&Watermark { log_id: [1; 16], salt: [0; 16], durable }).expect("redb works");
        let base = Arc::new(made.tables.base().expect("redb works"));
        let mut merged = Merged::new(base, Arc::default());
        let (mut found, mut chunk, mut ended) = (Vec::new(), Vec::new(), false);
        while !ended {
            ended = merged.chunk(COPY_ROWS, &mut chunk).expect("the rows are whole");
            assert!(chunk.len() * ROW_BYTES <= COPY_BYTES, "{} rows at a time", chunk.len());
            found.append(&mut chunk);
        }
        assert_eq!(found, rows);
    }
}
