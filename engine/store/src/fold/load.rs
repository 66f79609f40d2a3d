//! A state made from a base.

use std::sync::Arc;

use lastword_core::plant::{Plant, planted};

use crate::error::{ApplyError, StoreError};
use crate::oplog::BaseFile;
use crate::state::{Apply, Delta, DeltaPlace, LiveState, Space, StateSums, Watermark};

use super::rows::visit_rows;

/// Fills an empty state with the rows of a base. `cap` bounds the memory that rows take on the way.
/// Errors: [`StoreError::Damaged`] if the base has other rows than its last frame says.
pub(crate) fn load(
    state: &mut LiveState,
    apply: &dyn Apply,
    base: &BaseFile,
    cap: usize,
) -> Result<(), StoreError> {
    let segment = &base.segment;
    let end = base.end.durable;
    let expected = StateSums::decode(&base.end.sums)
        .ok_or_else(|| segment.damaged(end.end, "the sums of the base do not decode"))?;
    let mut write = state.begin_load()?;
    let (mut seen, loaded) = (StateSums::default(), Delta::default());
    base.visit(|frame| {
        let position = frame.position;
        if planted(Plant::LoadHalfABase) && position == segment.first_position() {
            return Ok(());
        }
        let row = |space: Space, key: &[u8], value: &[u8]| {
            seen.space(space).add(key, value.len(), crate::state::digest(space, key, value));
            apply.restore(space, key, value, &mut |space, key, value| {
                loaded.put(space, Arc::from(key), 0, Some(Arc::from(value)), false);
            })
        };
        visit_rows(frame.payload, row)
            .map_err(|source| StoreError::Apply { position, source: Arc::new(source) })?;
        if loaded.bytes() >= cap {
            write.delta(&loaded, &mut DeltaPlace::start(), usize::MAX)?;
            loaded.clear();
        }
        Ok(())
    })?;
    if seen.differs(&expected).is_some() && !planted(Plant::LoadHalfABase) {
        return Err(segment.damaged(end.end, "rows of the base are missing"));
    }
    write.delta(&loaded, &mut DeltaPlace::start(), usize::MAX)?;
    let (log_id, salt) = (segment.header.log_id, base.goes_on_in());
    state.finish_load(write, Watermark { log_id, salt, durable: end })
}

impl From<lastword_core::codec::DecodeError> for ApplyError {
    fn from(error: lastword_core::codec::DecodeError) -> Self {
        ApplyError::Refused(Box::new(error))
    }
}
