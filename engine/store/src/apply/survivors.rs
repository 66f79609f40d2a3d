//! What a restored authority has lost is kept beside its rows until somebody decides about it.

use lastword_core::id::{Key, TableName};
use lastword_core::limits::HISTORY_WINDOW_MS;
use lastword_core::protocol::Entry;

use super::put;
use crate::error::StoreError;
use crate::keys::{self, EXPIRING, SURVIVORS, SURVIVORS_TABLE, StoredSurvivor};
use crate::payload::SurvivorFrame;
use crate::state::StateTxn;

pub(super) fn survivors(state: &mut StateTxn<'_>, frame: SurvivorFrame) -> Result<(), StoreError> {
    let SurvivorFrame { workspace, device, time_ms, entries, gone } = frame;
    let table = TableName::new(SURVIVORS_TABLE).expect("invariant: a name");
    for entry in entries {
        let Entry::Row { row, .. } = &entry;
        let seq = row.last.seq;
        let place = keys::numbered(&workspace, seq);
        // Two devices have the same row of the lost history.
        if state.get(SURVIVORS, &place)?.is_some() {
            continue;
        }
        let ends_ms = time_ms.saturating_add(HISTORY_WINDOW_MS);
        let key = Key::new(&seq.to_string()).expect("invariant: a number is a key");
        state.put(EXPIRING, &keys::expiring_key(&workspace, ends_ms, &table, &key), &[])?;
        put(state, SURVIVORS, &place, &StoredSurvivor { device, time_ms, entry })?;
    }
    for seq in gone {
        state.delete(SURVIVORS, &keys::numbered(&workspace, seq));
    }
    Ok(())
}
