//! Squash: a write takes in the batch before it, if no session was handed that one, so that fifty
//! updates a second of one record are one batch.

use lastword_core::id::{BatchId, WorkspaceName};
use lastword_core::op::{Batch, Op};
use lastword_core::rules::{self, PendingOp};
use lastword_core::schema::Schema;
use lastword_store::keys::{self, WorkspaceMeta};
use lastword_store::payload::Identity;
use lastword_store::read::{self, ReadState};

use crate::error::Result;

/// Where the ops are written.
pub(crate) struct Place<'a> {
    pub(crate) workspace: &'a WorkspaceName,
    pub(crate) meta: &'a WorkspaceMeta,
    pub(crate) identity: Identity,
    pub(crate) schema: &'a Schema,
}

/// The batch that stands for two.
pub(crate) struct Squashed {
    pub(crate) batch: Batch,
    /// For each of its ops: position of the record's frame before.
    pub(crate) previous: Vec<u64>,
    /// The batch that goes.
    pub(crate) replaced: BatchId,
}

/// The newest batch, which no session was handed, and `batch` as one; `None` if they stay two:
/// `batch` names a record that the other does not, so that a refusal would take more with it, two
/// ops do not fold into one, a limit is passed, or something else would be shown.
pub(crate) fn squashed<S: ReadState>(
    state: &S,
    place: &Place<'_>,
    (counter, replaced): (u64, BatchId),
    batch: &Batch,
) -> Result<Option<Squashed>> {
    if counter != place.meta.written {
        return Ok(None);
    }
    let Some(entry) = read::outbox_entry(state, place.workspace, counter)? else { return Ok(None) };
    if entry.batch_id != replaced || entry.settled.is_some() || entry.again {
        return Ok(None);
    }
    let (mut ops, mut previous, mut taken) = (Vec::new(), Vec::new(), 0);
    for (table, key) in &entry.records {
        let row_key = keys::row_key(place.workspace, place.meta.generation, table, key);
        let Some(first) = read::pending_op(state, &keys::pending_key(&row_key, counter))? else {
            return Ok(None);
        };
        let second = batch.ops.iter().find(|op| &op.table == table && &op.key == key);
        let Some(op) = as_one(state, place, &row_key, &first.0, second, batch)? else {
            return Ok(None);
        };
        ops.push(op);
        previous.push(read::row(state, &row_key)?.map_or(0, |stored| stored.position));
        taken += usize::from(second.is_some());
    }
    // It waits since the first of them was written.
    let both = Batch { counter, created_ms: entry.created_ms, ops, ..batch.clone() };
    let fits = taken == batch.ops.len() && both.check_limits().is_ok();
    Ok(fits.then_some(Squashed { batch: both, previous, replaced }))
}

/// What a record's op becomes.
fn as_one<S: ReadState>(
    state: &S,
    place: &Place<'_>,
    row_key: &[u8],
    first: &PendingOp,
    second: Option<&Op>,
    batch: &Batch,
) -> Result<Option<Op>> {
    let Some(second) = second else { return Ok(Some(first.op.clone())) };
    let Some(one) = rules::squash(&first.op, second) else { return Ok(None) };
    let own = |op: &Op| PendingOp {
        batch_id: batch.batch_id,
        created_ms: batch.created_ms,
        op: op.clone(),
        ..first.clone()
    };
    Ok(shows_the_same(state, place, row_key, own(second), own(&one))?.then_some(one))
}

/// Whether the record shows the same with `second` behind the newest own op as with `one` in place
/// of that one.
fn shows_the_same<S: ReadState>(
    state: &S,
    place: &Place<'_>,
    row_key: &[u8],
    second: PendingOp,
    one: PendingOp,
) -> Result<bool> {
    let authority = read::authority_row(state, row_key)?.map(|stored| stored.row);
    let lineage = read::lineage(state, place.workspace)?.0;
    let rules = place.schema.rules_of(&second.op.table);
    let shown = |mut own: Vec<PendingOp>| {
        for own in &mut own {
            own.op = rules::with_known_base(&own.op, &lineage).into_owned();
        }
        let Identity { device, former, .. } = &place.identity;
        let row = rules::overlay(authority.as_ref(), &own, *device, former, rules);
        row.map(|row| (row.deleted, row.record))
    };
    let before = read::pending(state, row_key)?;
    let mut apart = before.clone();
    apart.push(second);
    let mut squashed = before;
    squashed.pop();
    squashed.push(one);
    Ok(shown(apart) == shown(squashed))
}
