//! How far apart the rows of a delta lie among those of redb.
//!
//! A changed row costs redb a copy of its page. Rows that come between the same two rows of redb
//! share pages: so come the records of a first copy, in the order of their keys, and those of an
//! import. Whoever chooses how a checkpoint is written has to tell the two apart.

use std::sync::Arc;

use crate::error::StoreError;
use crate::limits::{MAX_SPACES, SPREAD_RUN};
use crate::state::delta::Delta;
use crate::state::space::Space;
use crate::state::tables::Base;

/// How many rows of `delta` may each lie in a page of redb of their own. Looks at one row of
/// [`SPREAD_RUN`]; what cannot be read counts as far apart.
pub(crate) fn lone_rows(base: &Base, delta: &Delta) -> u64 {
    (0..MAX_SPACES as u8).map(Space::new).map(|space| lone_of(base, delta, space)).sum()
}

fn lone_of(base: &Base, delta: &Delta, space: Space) -> u64 {
    let (keys, rows) = delta.every(space, SPREAD_RUN);
    if base.sums.of(space).rows == 0 || rows == 0 {
        return 0;
    }
    let behind: Result<Vec<_>, StoreError> =
        keys.iter().map(|key| base.key_from(space, key)).collect();
    let Ok(behind) = behind else { return rows };
    let together = behind.windows(2).filter(|pair| is_one_gap(pair)).count();
    rows.saturating_sub((together * SPREAD_RUN) as u64)
}

/// Whether no row of redb lies between two keys, of which each is answered by the row behind it.
fn is_one_gap(behind: &[Option<Arc<[u8]>>]) -> bool {
    matches!(behind, [a, b] if a == b)
}
