//! The rows and the outbox of one workspace of a device as they were looked at last, kept up with
//! what frames have set since. What no frame sets can change only by upkeep: after a checkpoint,
//! and where somebody asks for it, all of it is read and decoded again.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastword::core::codec;
use lastword::core::id::{BatchId, WorkspaceName};
use lastword::store::keys::{self, OutboxEntry, StoredRow};
use lastword::store::read;
use lastword::store::{KeyRange, StoreError, View};

use crate::act::stays_here;
use crate::oracle::{Folded, Kept, Mix, Name, Sums, place};

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// A hash of its name.
    pub name: u64,
    /// Seq of its newest op.
    pub seq: u64,
    /// Hash and place of a live record.
    live: Option<(u64, usize)>,
}

/// The rows of one workspace.
#[derive(Debug)]
pub struct Known {
    /// Frames before it are taken in.
    position: u64,
    checkpointed: u64,
    generation: u32,
    /// The fields that say whose a record is, by table.
    private: BTreeMap<String, String>,
    /// By row key.
    pub rows: BTreeMap<Arc<[u8]>, Seen>,
    /// What they add up to.
    pub sums: Sums,
}

impl Known {
    /// What a view shows, worked out from what an earlier one showed where that is possible.
    ///
    /// # Errors
    /// [`StoreError`] if the store has to be opened again before it can be read.
    pub fn look(
        before: Option<Self>,
        view: &View,
        (workspace, generation): (&WorkspaceName, u32),
        folded: &Folded,
    ) -> Result<Self, StoreError> {
        let prefix = keys::rows_prefix(workspace, generation);
        let (position, checkpointed) = (view.position(), view.checkpointed());
        let private = folded.private();
        let same = before.filter(|known| {
            (known.checkpointed, known.generation) == (checkpointed, generation)
                && known.private == private
        });
        if let Some(mut known) = same
            && let Some(changed) =
                view.changed_since(keys::ROWS, &KeyRange::prefix(&prefix), known.position)
        {
            for row_key in changed {
                let value = view.get(keys::ROWS, &row_key)?;
                known.set(row_key, value.as_deref(), folded)?;
            }
            known.position = position;
            return Ok(known);
        }
        let (rows, sums) = Default::default();
        let mut known = Self { position, checkpointed, generation, private, rows, sums };
        let end = keys::prefix_end(&prefix);
        read::visit_range(view, keys::ROWS, &prefix, &end, &mut |row_key, value| {
            known.set(Arc::from(row_key), Some(value), folded).map(|()| true)
        })?;
        Ok(known)
    }

    fn set(
        &mut self,
        row_key: Arc<[u8]>,
        value: Option<&[u8]>,
        folded: &Folded,
    ) -> Result<(), StoreError> {
        let old = match value.map(|value| seen(&row_key, value, folded)).transpose()?.flatten() {
            Some(seen) => {
                self.count(&seen, true);
                self.rows.insert(row_key, seen)
            }
            None => self.rows.remove(&row_key),
        };
        if let Some(old) = old {
            self.count(&old, false);
        }
        Ok(())
    }

    fn count(&mut self, seen: &Seen, add: bool) {
        if let Some((hash, place)) = seen.live {
            self.sums.count(hash, place, add);
        }
    }
}

/// The outbox of one workspace of a device as it was looked at last, kept up in the same way.
#[derive(Debug)]
pub struct Waiting {
    position: u64,
    checkpointed: u64,
    /// By outbox key, which is in the order of the counters: the batch, and where its frame is.
    entries: BTreeMap<Arc<[u8]>, (BatchId, u64)>,
}

impl Waiting {
    /// What a view holds, worked out from what an earlier one held where that is possible, and
    /// which batches came since, with the positions of their frames.
    ///
    /// # Errors
    /// [`StoreError`] if the store has to be opened again before it can be read.
    pub fn look(
        before: Option<Self>,
        view: &View,
        workspace: &WorkspaceName,
    ) -> Result<(Self, Vec<(BatchId, u64)>), StoreError> {
        let (position, checkpointed) = (view.position(), view.checkpointed());
        let (prefix, mut new) = (keys::workspace_prefix(workspace), Vec::new());
        let same = before.filter(|known| known.checkpointed == checkpointed);
        if let Some(mut known) = same
            && let Some(changed) =
                view.changed_since(keys::OUTBOX, &KeyRange::prefix(&prefix), known.position)
        {
            for key in changed {
                match view.get(keys::OUTBOX, &key)? {
                    Some(value) => new.extend(known.set(key, &value)?),
                    None => drop(known.entries.remove(&key)),
                }
            }
            known.position = position;
            return Ok((known, new));
        }
        let mut known = Self { position, checkpointed, entries: BTreeMap::new() };
        let end = keys::prefix_end(&prefix);
        read::visit_range(view, keys::OUTBOX, &prefix, &end, &mut |key, value| {
            new.extend(known.set(Arc::from(key), value)?);
            Ok(true)
        })?;
        Ok((known, new))
    }

    /// The batch, if it was not there.
    fn set(&mut self, key: Arc<[u8]>, value: &[u8]) -> Result<Option<(BatchId, u64)>, StoreError> {
        let entry: OutboxEntry = codec::from_bytes(value).map_err(|error| damaged(&error))?;
        let batch = (entry.batch_id, entry.position);
        Ok(Some(batch).filter(|_| self.entries.insert(key, batch) != Some(batch)))
    }

    /// All batches, in order.
    #[must_use]
    pub fn batches(&self) -> Vec<BatchId> {
        self.entries.values().map(|(batch, _)| *batch).collect()
    }
}

fn damaged(reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::StateDamaged { file: 0, reason: reason.to_string() }
}

/// A row of a table that syncs.
fn seen(row_key: &[u8], value: &[u8], folded: &Folded) -> Result<Option<Seen>, StoreError> {
    let name = keys::name_of(row_key).ok_or_else(|| damaged(&"a key names no record"))?;
    if name.0.is_reserved() || stays_here(name.0.as_str()) {
        return Ok(None);
    }
    let stored: StoredRow = codec::from_bytes(value).map_err(|error| damaged(&error))?;
    let name: Name = (name.0.as_str().to_owned(), name.1.as_str().to_owned());
    let kept = Kept::of(&stored.row);
    let live = (!kept.deleted).then(|| {
        let owner = folded.owner(&name, &kept).unwrap_or_default();
        (kept.hash((&name.0, &name.1)), place(&owner))
    });
    let mut mix = Mix(0);
    mix.bytes(name.0.as_bytes());
    mix.bytes(name.1.as_bytes());
    Ok(Some(Seen { name: mix.0, seq: kept.last.0, live }))
}
