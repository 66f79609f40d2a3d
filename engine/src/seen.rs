//! What one user sees of a workspace, in numbers: those that a device's copy must come to.

use lastword_core::id::{TableName, WorkspaceName};
use lastword_core::row::Digest;
use lastword_core::rules;
use lastword_store::keys;
use lastword_store::read::{self, ReadState};

use crate::error::Result;

/// The part of an authority's rows that a user's device holds once it has caught up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Live records, product tables left out.
    pub rows: u64,
    /// Digest sum of the rows, tombstones too.
    pub digest: Digest,
}

/// What `user` sees of a workspace in the state of an authority. `left_out` are the tables that
/// the app keeps local. Reads every row.
///
/// # Errors
/// [`crate::Error::Store`] if the disk fails or a row is damaged.
pub fn seen_by<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    user: &str,
    left_out: &[TableName],
) -> Result<Seen> {
    let generation = read::meta(state, workspace)?.generation;
    let schema = read::schema(state, workspace)?.unwrap_or_default();
    let prefix = keys::rows_prefix(workspace, generation);
    let mut seen = Seen::default();
    read::visit_stored(state, &prefix, &keys::prefix_end(&prefix), &mut |table, key, stored| {
        let counts = !table.is_reserved() && !left_out.contains(&table);
        if counts && rules::sees(user, &table, &stored.row.record, schema.rules_of(&table)) {
            seen.rows += u64::from(!stored.row.deleted);
            seen.digest = seen.digest.plus(stored.row.digest(&table, &key));
        }
    })?;
    Ok(seen)
}
