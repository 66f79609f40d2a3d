//! What a replica does that takes its workspace anew, and one that goes on as another device.
//!
//! Pages of a reset go into a generation of their own, beside the visible one. Rows of local tables
//! are carried over before the last page; that page then makes the new copy the visible one, and
//! moves what waits in the outbox on top of it. So the step that readers see costs what the outbox
//! holds, whatever the size of the workspace.

use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::Entry;
use lastword_core::rules::PendingState;

use super::replica::{Step, local_ops, note_received};
use super::rows::put_row;
use super::{count_in, put, put_meta};
use crate::error::StoreError;
use crate::index::Indexes;
use crate::keys::{
    self, Lineage, META, OutboxEntry, PENDING, SHADOW, Shadow, StoredReset, StoredRow,
    WorkspaceMeta,
};
use crate::payload::{Carried, Forgotten, Identity, RemotePage, Reset, SetAside};
use crate::read;
use crate::state::StateTxn;

/// How many entries of the outbox are read at once.
const OUTBOX_CHUNK: usize = 256;

pub(super) fn reset(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    frame: &Reset,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    put(state, META, &keys::workspace_prefix(workspace), &Lineage(frame.lineage.clone()))?;
    let mut step = Step::begin(state, indexes, workspace)?;
    let generation = step.new.unwrap_or(0).max(step.meta.generation).saturating_add(1);
    let behind_horizon = frame.other_history.is_none();
    let begun = StoredReset { generation, behind_horizon, ..StoredReset::default() };
    put(step.state, META, &keys::reset_key(workspace), &begun)?;
    // What was walked is not in the new copy.
    if step.state.get(META, &keys::walk_key(workspace))?.is_some() {
        step.state.delete(META, &keys::walk_key(workspace));
    }
    step.new = Some(generation);
    step.meta.epoch = Some(frame.epoch);
    step.meta.role = Some(frame.role);
    step.meta.horizon = frame.horizon;
    if let Some(last_counter) = frame.other_history {
        // Their verdicts are of the history that is lost.
        step.send_again(last_counter, true)?;
    }
    step.end()
}

/// One page of the new copy; the last one makes it the visible one.
pub(super) fn page(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    page: RemotePage,
    mut reset: StoredReset,
) -> Result<(), StoreError> {
    let workspace = &page.workspace;
    let mut meta = read::meta(state, workspace)?;
    for Entry::Row { table, key, row } in page.entries {
        let row_key = keys::row_key(workspace, reset.generation, &table, &key);
        let old = read::row(state, &row_key)?;
        let old = old.as_ref().map(|old| &old.row);
        // Rows of local tables have no seq, and no authority counts them.
        let counted = old.filter(|old| old.last.seq != 0);
        count_in((&mut reset.rows, &mut reset.digest), &table, &key, counted, Some(&row));
        meta.time_ms = meta.time_ms.max(row.time_ms);
        meta.head = meta.head.max(row.stream_seq());
        let stored = StoredRow { position, row };
        note_received(state, workspace, &table, &key, &stored)?;
        put_row(state, indexes, &row_key, old, &stored)?;
    }
    reset.received_to = page.to;
    meta.head = meta.head.max(page.to);
    put(state, META, &keys::reset_key(workspace), &reset)?;
    put_meta(state, workspace, &meta)?;
    match page.consistent_at {
        None => Ok(()),
        Some(cursor) => flip(Step::begin(state, indexes, workspace)?, &reset, cursor),
    }
}

fn flip(mut step: Step<'_, '_>, reset: &StoredReset, cursor: u64) -> Result<(), StoreError> {
    step.state.delete(META, &keys::reset_key(step.workspace));
    let old = step.meta.generation;
    step.new = None;
    step.meta.generation = reset.generation;
    (step.meta.rows, step.meta.digest) = (reset.rows, reset.digest);
    (step.meta.received_to, step.meta.cursor) = (reset.received_to, cursor);
    step.meta.bootstrapped = true;
    if !planted(Plant::OwnOpsLeftBehind) {
        step.move_own(old)?;
    }
    step.retire()?;
    step.end()
}

/// Rows that no page brings come into the new copy; what is there already is newer.
pub(super) fn carried(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    frame: &Carried,
) -> Result<(), StoreError> {
    let Some(reset) = read::reset(state, &frame.workspace)? else { return Ok(()) };
    let visible = read::meta(state, &frame.workspace)?.generation;
    for (table, key) in &frame.records {
        let new_key = keys::row_key(&frame.workspace, reset.generation, table, key);
        let row_key = keys::row_key(&frame.workspace, visible, table, key);
        if read::row(state, &new_key)?.is_none()
            && let Some(stored) = read::row(state, &row_key)?
        {
            put_row(state, indexes, &new_key, None, &stored)?;
        }
    }
    Ok(())
}

/// The store goes on as another device, and everything in its outboxes is sent again in that name.
/// Verdicts that are known stay, so that what readers see does not go back.
pub(super) fn fork(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    identity: &Identity,
) -> Result<(), StoreError> {
    put(state, META, b"", identity)?;
    for (workspace, _) in read::workspaces(state)? {
        let mut step = Step::begin(state, indexes, &workspace)?;
        step.send_again(0, false)?;
        step.end()?;
    }
    Ok(())
}

pub(super) fn set_aside(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    frame: &SetAside,
) -> Result<(), StoreError> {
    let mut step = Step::begin(state, indexes, &frame.workspace)?;
    step.keep_accepted(&frame.counters)?;
    step.take_out(&frame.counters, &frame.renumbered)?;
    step.meta.written = step.meta.written.saturating_sub(frame.counters.len() as u64);
    step.end()?;
    local_ops(state, indexes, &read::store_workspace(), (0, None), position, &frame.rows)
}

/// The copy of a workspace goes, and what was to be sent of it. Rows are in a generation that
/// nobody reads from here on. The server knows the counters, so they go on.
pub(super) fn forgotten(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    frame: &Forgotten,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    let entries = read::outbox(state, workspace, 0, usize::MAX)?;
    let mut step = Step::begin(state, indexes, workspace)?;
    let newest = step.new.unwrap_or(0).max(step.meta.generation);
    entries.iter().for_each(|(counter, entry)| step.leave(*counter, entry));
    step.end()?;
    let of_copy = [
        keys::reset_key(workspace),
        keys::walk_key(workspace),
        keys::cover_key(workspace),
        keys::schema_key(workspace),
        keys::workspace_prefix(workspace),
    ];
    for key in of_copy {
        if state.get(META, &key)?.is_some() {
            state.delete(META, &key);
        }
    }
    let decided = read::meta(state, workspace)?.decided;
    let meta = WorkspaceMeta {
        generation: newest.saturating_add(1),
        written: decided,
        decided,
        gone: decided,
        ..WorkspaceMeta::default()
    };
    put_meta(state, workspace, &meta)
}

impl Step<'_, '_> {
    /// All that the outbox holds is undecided again, in its order, behind counter `last`; the
    /// server tells what it has by the ids. `forget` also forgets what was decided of the ops.
    fn send_again(&mut self, last: u64, forget: bool) -> Result<(), StoreError> {
        let entries = read::outbox(self.state, self.workspace, 0, usize::MAX)?;
        let counters: Vec<u64> = entries.into_iter().map(|(counter, _)| counter).collect();
        // A refused batch left a hole, so some move up and others down: first all get out of each
        // other's way.
        let aside = self.meta.written.saturating_add(last);
        for counter in counters.iter().rev() {
            self.renumber(*counter, counter.saturating_add(aside))?;
        }
        let mut new = last;
        for counter in counters {
            new += 1;
            let entry = |entry: &mut OutboxEntry| (entry.again, entry.settled) = (true, None);
            self.change(counter.saturating_add(aside), new, entry, |own| {
                own.strict = true;
                if forget {
                    own.state = PendingState::Undecided;
                }
            })?;
            if let Some(entry) = read::outbox_entry(self.state, self.workspace, new)? {
                for (table, key) in &entry.records {
                    self.touch(self.row_key(table, key), table, entry.position);
                }
            }
        }
        (self.meta.gone, self.meta.decided) = (last, last);
        self.meta.written = new;
        Ok(())
    }

    /// Own ops come on top of the rows of the new copy.
    fn move_own(&mut self, old: u32) -> Result<(), StoreError> {
        let mut from = self.meta.gone.saturating_add(1);
        loop {
            let entries = read::outbox(self.state, self.workspace, from, OUTBOX_CHUNK)?;
            for (counter, entry) in &entries {
                self.move_batch(old, *counter, entry)?;
            }
            match entries.last() {
                Some((counter, _)) if entries.len() == OUTBOX_CHUNK => from = counter + 1,
                _ => return Ok(()),
            }
        }
    }

    fn move_batch(
        &mut self,
        old: u32,
        counter: u64,
        entry: &OutboxEntry,
    ) -> Result<(), StoreError> {
        for (table, key) in &entry.records {
            let old_key = keys::row_key(self.workspace, old, table, key);
            let new_key = self.row_key(table, key);
            let pending_key = keys::pending_key(&old_key, counter);
            if let Some(own) = read::pending_op(self.state, &pending_key)? {
                self.state.delete(PENDING, &pending_key);
                put(self.state, PENDING, &keys::pending_key(&new_key, counter), &own)?;
            }
            if read::has_shadow(self.state, &old_key)? {
                self.state.delete(SHADOW, &old_key);
            }
            if !read::has_shadow(self.state, &new_key)? {
                let shadow = Shadow(read::row(self.state, &new_key)?);
                put(self.state, SHADOW, &new_key, &shadow)?;
            }
            self.touch(new_key, table, entry.position);
        }
        Ok(())
    }
}
