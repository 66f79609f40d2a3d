//! What is asked of a workspace that ends.

use lastword_core::id::WorkspaceName;

use super::{ReadState, decoded, typed, visit_range};
use crate::error::StoreError;
use crate::keys::{self, META, ROWS, StoredRow};

/// When a workspace was deleted, in milliseconds since 1970 UTC, if it was.
///
/// # Errors
/// [`StoreError`] if the disk fails or the entry is damaged.
pub fn deleted_ms<S: ReadState + ?Sized>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<Option<u64>, StoreError> {
    typed(state, META, &keys::deleted_key(workspace))
}

/// Live rows under a prefix of row keys that no server has: those of local tables.
///
/// # Errors
/// [`StoreError`] if the disk fails or a row is damaged.
pub fn count_local<S: ReadState + ?Sized>(state: &S, prefix: &[u8]) -> Result<u64, StoreError> {
    let mut found = 0;
    visit_range(state, ROWS, prefix, &keys::prefix_end(prefix), &mut |key, value| {
        let row = decoded::<StoredRow>(ROWS, key, value)?.row;
        found += u64::from(row.last.seq == 0 && !row.deleted);
        Ok(true)
    })?;
    Ok(found)
}
