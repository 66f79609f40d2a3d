//! A consistent state readers hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::StoreError;
use crate::state::delta::Delta;
use crate::state::scan::Scan;
use crate::state::space::{Direction, KeyRange, Space};
use crate::state::tables::Base;

/// The state folded from every frame before a position. Later commits do not change it. It keeps
/// old pages of redb alive, so it should be held for seconds, not for hours.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) position: u64,
    pub(crate) active: Arc<Delta>,
    pub(crate) frozen: Option<Arc<Delta>>,
    pub(crate) base: Arc<Base>,
}

impl View {
    /// What a checkpoint left in redb and nothing more.
    pub(crate) fn of_base(base: Arc<Base>) -> View {
        let position = base.watermark.map_or(0, |watermark| watermark.durable.end);
        View { position, active: Arc::default(), frozen: None, base }
    }

    /// First log position whose frame the view does not show.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// First log position whose frame the last checkpoint does not hold: rows that no frame from
    /// there on has set are what it wrote.
    pub fn checkpointed(&self) -> u64 {
        self.base.watermark.map_or(0, |watermark| watermark.durable.end)
    }

    /// The value of a row. Errors: [`StoreError::StateDamaged`].
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        if let Some(row) = self.active.get(space, key, self.position) {
            return Ok(row);
        }
        let frozen = self.frozen.as_ref().and_then(|delta| delta.get(space, key, self.position));
        match frozen {
            Some(row) => Ok(row),
            None => self.base.get(space, key),
        }
    }

    /// The rows of a range in key order. Errors: [`StoreError::StateDamaged`].
    pub fn scan(
        &self,
        space: Space,
        range: &KeyRange,
        direction: Direction,
    ) -> Result<Scan, StoreError> {
        let mut scan = Scan::new(direction);
        self.add_to(&mut scan, space, range)?;
        Ok(scan)
    }

    /// Keys of a range that a frame at or after position `since` set or removed, in key order.
    /// `None` if some of those frames are in redb already, which does not tell when.
    pub fn changed_since(
        &self,
        space: Space,
        range: &KeyRange,
        since: u64,
    ) -> Option<Vec<Arc<[u8]>>> {
        if self.checkpointed() > since {
            return None;
        }
        let mut changed = BTreeSet::new();
        for delta in self.frozen.iter().chain([&self.active]) {
            delta.changed(space, range, since..self.position, &mut changed);
        }
        Some(changed.into_iter().collect())
    }

    /// Adds the layers of the view to a scan that may have newer ones.
    pub(crate) fn add_to(
        &self,
        scan: &mut Scan,
        space: Space,
        range: &KeyRange,
    ) -> Result<(), StoreError> {
        scan.add_delta(&self.active, space, range, self.position);
        if let Some(frozen) = &self.frozen {
            scan.add_delta(frozen, space, range, self.position);
        }
        scan.add_base(self.base.rows(space, range)?);
        Ok(())
    }
}
