//! What a replica's frames do to its state: own batches, received pages, verdicts, dead letters.
//!
//! `ROWS` holds what readers see. A record with own ops that the cursor has not passed also has a
//! `SHADOW`: the authority's row, to which those ops are applied anew whenever it or one of their
//! verdicts moves.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use lastword_core::codec::from_bytes;
use lastword_core::id::{DeviceId, Key, TableName, WorkspaceName};
use lastword_core::op::{Batch, Op};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::{Decided, Entry};
use lastword_core::row::Row;
use lastword_core::rules::{self, At, PendingOp, PendingState, Policy};
use lastword_core::schema::Schema;
use lastword_core::stamp::Decision;

use super::rows::{delete_row, put_row};
use super::{count, note_end, note_erased, put, put_meta, reset};
use crate::error::StoreError;
use crate::index::Indexes;
use crate::keys::{
    self, BY_SEQ, GRAVES, META, OUTBOX, OutboxEntry, PENDING, ROWS, SHADOW, STAGED, Shadow,
    StoredPending, StoredRow, WorkspaceMeta,
};
use crate::payload::{
    Attachment, DeadLetters, LocalBatch, LocalTables, RemotePage, Retry, Squash, Verdicts,
    WorkspaceSchema,
};
use crate::read;
use crate::state::StateTxn;

pub(super) fn attachment(state: &mut StateTxn<'_>, frame: &Attachment) -> Result<(), StoreError> {
    let mut meta = read::meta(state, &frame.workspace)?;
    meta.epoch = Some(frame.epoch);
    meta.role = Some(frame.role);
    meta.horizon = frame.horizon;
    put_meta(state, &frame.workspace, &meta)?;
    Ok(())
}

pub(super) fn local_tables(
    state: &mut StateTxn<'_>,
    declared: LocalTables,
) -> Result<(), StoreError> {
    let mut kept: BTreeSet<TableName> = read::local_tables(state)?.into_iter().collect();
    kept.extend(declared.tables);
    let kept = LocalTables { tables: kept.into_iter().collect() };
    put(state, META, keys::LOCAL_TABLES, &kept)
}

/// The workspace has another schema. What own ops under way are going to do may be another thing
/// under it.
pub(super) fn schema(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    frame: &WorkspaceSchema,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    match &frame.schema {
        Some(schema) => put(state, META, &keys::schema_key(workspace), schema)?,
        None => state.delete(META, &keys::schema_key(workspace)),
    }
    let mut step = Step::begin(state, indexes, workspace)?;
    let first = step.meta.gone.saturating_add(1);
    for (_, entry) in read::outbox(step.state, workspace, first, usize::MAX)? {
        for (table, key) in &entry.records {
            let row_key = step.row_key(table, key);
            step.touch(row_key, table, entry.position);
        }
    }
    step.end()
}

pub(super) fn local(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    frame: LocalBatch,
) -> Result<(), StoreError> {
    let mut step = Step::begin(state, indexes, &frame.workspace)?;
    let generations = step.generations();
    local_ops(step.state, indexes, &frame.workspace, generations, position, &frame.local)?;
    if let Some(mut batch) = frame.batch {
        let records = batch.ops.iter().map(|op| (op.table.clone(), op.key.clone()));
        let entry = OutboxEntry {
            batch_id: batch.batch_id,
            payload_hash: batch.payload_hash(),
            position,
            created_ms: batch.created_ms,
            records: records.collect(),
            settled: None,
            again: false,
        };
        put(step.state, OUTBOX, &keys::numbered(&frame.workspace, batch.counter), &entry)?;
        step.meta.written = batch.counter;
        let writer = step.writer()?;
        for (at, op) in std::mem::take(&mut batch.ops).into_iter().enumerate() {
            // The record's first frame in this store: looking for it is most of a replay's time.
            let is_first = frame.previous.get(at) == Some(&0);
            step.own_op(&writer, position, &batch, op, is_first)?;
        }
    }
    step.end()
}

/// Ops on tables that never sync: applied at once, in this device's name. While a new copy is
/// made, they go into it too, since no page brings them.
pub(super) fn local_ops(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    workspace: &WorkspaceName,
    (generation, new): (u32, Option<u32>),
    position: u64,
    ops: &[Op],
) -> Result<(), StoreError> {
    for op in ops {
        let row_key = keys::row_key(workspace, generation, &op.table, &op.key);
        let old = read::row(state, &row_key)?;
        let time_ms = i64::try_from(op.hlc.ms()).unwrap_or(i64::MAX);
        let at = At { seq: 0, time_ms, op_id: Default::default() };
        let old_row = old.as_ref().map(|old| &old.row);
        if let Some(row) = rules::apply(old_row, op, DeviceId::AUTHORITY, &at, Policy::Arrival, &[])
        {
            note_end(state, workspace, &op.table, &op.key, &row)?;
            let stored = StoredRow { position, row };
            put_row(state, indexes, &row_key, old_row, &stored)?;
            if let Some(new) = new {
                let row_key = keys::row_key(workspace, new, &op.table, &op.key);
                let old = read::row(state, &row_key)?;
                put_row(state, indexes, &row_key, old.as_ref().map(|old| &old.row), &stored)?;
            }
        }
    }
    Ok(())
}

pub(super) fn remote(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    page: RemotePage,
) -> Result<(), StoreError> {
    note_walk(state, &page)?;
    if let Some(reset) = read::reset(state, &page.workspace)? {
        return reset::page(state, indexes, position, page, reset);
    }
    let workspace = page.workspace;
    let mut step = Step::begin(state, indexes, &workspace)?;
    // A first bootstrap shows rows as they come; later pages wait for their consistent end, so
    // that no reader sees half of a batch.
    let stage =
        step.meta.bootstrapped && page.consistent_at.is_none() && !planted(Plant::HalfBatchShown);
    if page.consistent_at.is_some() {
        step.install_staged()?;
    }
    for (at, Entry::Row { table, key, row }) in page.entries.into_iter().enumerate() {
        let row_key = keys::row_key(&workspace, step.meta.generation, &table, &key);
        step.meta.time_ms = step.meta.time_ms.max(row.time_ms);
        step.meta.head = step.meta.head.max(row.stream_seq());
        let stored = StoredRow { position, row };
        let is_first = page.previous.get(at) == Some(&0);
        match stage {
            true => put(step.state, STAGED, &row_key, &stored)?,
            false => step.install(row_key, &table, &key, stored, is_first)?,
        }
    }
    step.meta.received_to = page.to;
    step.meta.head = step.meta.head.max(page.to);
    let reached = page.consistent_at.or(planted(Plant::CursorBeforeRows).then_some(page.to));
    let is_walked = page.walk.is_some_and(|walk| walk.place.is_none());
    let reached = reached.or((is_walked && planted(Plant::WalkIsConsistent)).then_some(page.to));
    if let Some(cursor) = reached {
        step.meta.cursor = cursor;
        step.meta.bootstrapped = true;
        step.retire()?;
    }
    step.end()
}

/// Notes how far a walk has come; a page of changes ends it.
fn note_walk(state: &mut StateTxn<'_>, page: &RemotePage) -> Result<(), StoreError> {
    let key = keys::walk_key(&page.workspace);
    match page.walk.as_ref().and_then(|walk| walk.place.as_ref()) {
        Some(place) => put(state, META, &key, place)?,
        None if state.get(META, &key)?.is_some() => state.delete(META, &key),
        None => {}
    }
    Ok(())
}

pub(super) fn verdicts(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    frame: &Verdicts,
) -> Result<(), StoreError> {
    let mut step = Step::begin(state, indexes, &frame.workspace)?;
    for decided in &frame.decisions {
        step.settle(decided)?;
        step.meta.decided = step.meta.decided.max(decided.counter);
        if let Decision::Accepted { last_seq, time_ms, .. } = &decided.decision {
            step.meta.head = step.meta.head.max(*last_seq);
            step.meta.time_ms = step.meta.time_ms.max(*time_ms);
        }
    }
    step.retire()?;
    step.end()
}

pub(super) fn dead_letters(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    frame: &DeadLetters,
) -> Result<(), StoreError> {
    let mut step = Step::begin(state, indexes, &frame.workspace)?;
    step.take_out(&frame.counters, &frame.renumbered)?;
    step.meta.decided = step.meta.decided.max(frame.refused.counter);
    // The refused batch keeps its counter, those that went down with it give theirs back.
    let given_back = (frame.counters.len() as u64).saturating_sub(1);
    if !planted(Plant::CountersNotGivenBack) {
        step.meta.written = step.meta.written.saturating_sub(given_back);
    }
    step.end()?;
    local_ops(state, indexes, &read::store_workspace(), (0, None), position, &frame.rows)
}

pub(super) fn retry(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    frame: Retry,
) -> Result<(), StoreError> {
    local(state, indexes, position, frame.sent)?;
    let letter = std::slice::from_ref(&frame.letter);
    local_ops(state, indexes, &read::store_workspace(), (0, None), position, letter)
}

pub(super) fn squash(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    frame: Squash,
) -> Result<(), StoreError> {
    if let Some(batch) = &frame.sent.batch {
        let mut step = Step::begin(state, indexes, &frame.sent.workspace)?;
        step.take_out(&[batch.counter], &[])?;
        step.end()?;
    }
    local(state, indexes, position, frame.sent)
}

/// The store goes on as another device. What was under way in the name of the old one is of no use
/// to the new one, which counts its batches from 1: what the server has decided comes back with the
/// stream, and what it has not is in the dead letters before.
pub(super) fn begin_as_another(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
) -> Result<(), StoreError> {
    for (workspace, meta) in read::workspaces(state)? {
        let left = read::outbox(state, &workspace, meta.gone.saturating_add(1), usize::MAX)?;
        let mut step = Step::begin(state, indexes, &workspace)?;
        for (counter, entry) in &left {
            step.leave(*counter, entry);
        }
        (step.meta.written, step.meta.decided, step.meta.gone) = (0, 0, 0);
        step.end()?;
    }
    Ok(())
}

/// Notes what a purge or a fold must find of a row that came from the authority.
pub(super) fn note_received(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    table: &TableName,
    key: &Key,
    stored: &StoredRow,
) -> Result<(), StoreError> {
    if stored.row.deleted {
        let grave = keys::numbered(workspace, stored.row.last.seq);
        state.put(GRAVES, &grave, &keys::record_bytes(table, key))?;
    }
    if stored.row.is_erased() {
        note_erased(state, stored.position, stored.row.time_ms)?;
    }
    note_end(state, workspace, table, key, &stored.row)
}

/// One frame's work on one workspace. What records show is computed once each, at the end.
pub(super) struct Step<'a, 'b> {
    pub(super) state: &'a mut StateTxn<'b>,
    indexes: &'a Indexes,
    pub(super) workspace: &'a WorkspaceName,
    pub(super) meta: WorkspaceMeta,
    /// The generation of a new copy, if one is being made.
    pub(super) new: Option<u32>,
    /// Records whose shadow or own ops moved: row key, table, position of the newest frame.
    touched: BTreeMap<Vec<u8>, (TableName, u64)>,
}

/// Whose ops the predictions are made for.
struct Own {
    device: DeviceId,
    former: Vec<DeviceId>,
    schema: Schema,
    /// Restores of the authority: see [`rules::with_known_base`].
    lineage: Vec<(u64, u64)>,
}

impl Own {
    /// The op as it is judged if its base is of a history that a restore has lost.
    fn with_known_base(&self, own: &PendingOp) -> Option<PendingOp> {
        match rules::with_known_base(&own.op, &self.lineage) {
            Cow::Borrowed(_) => None,
            Cow::Owned(op) => Some(PendingOp { op, ..own.clone() }),
        }
    }
}

impl<'a, 'b> Step<'a, 'b> {
    pub(super) fn begin(
        state: &'a mut StateTxn<'b>,
        indexes: &'a Indexes,
        workspace: &'a WorkspaceName,
    ) -> Result<Self, StoreError> {
        let meta = read::meta(state, workspace)?;
        let new = read::reset(state, workspace)?.map(|reset| reset.generation);
        Ok(Self { state, indexes, workspace, meta, new, touched: BTreeMap::new() })
    }

    pub(super) fn end(mut self) -> Result<(), StoreError> {
        if !self.touched.is_empty() {
            let own = self.writer()?;
            for (row_key, (table, position)) in std::mem::take(&mut self.touched) {
                self.show(&own, &row_key, &table, position)?;
            }
        }
        put_meta(self.state, self.workspace, &self.meta)
    }

    /// The visible generation and that of the new copy.
    fn generations(&self) -> (u32, Option<u32>) {
        (self.meta.generation, self.new)
    }

    pub(super) fn raise_horizon(&mut self, horizon: u64) {
        self.meta.horizon = self.meta.horizon.max(horizon);
    }

    fn writer(&self) -> Result<Own, StoreError> {
        let identity = read::identity(self.state)?;
        let (device, former) = identity.map(|id| (id.device, id.former)).unwrap_or_default();
        let schema = read::schema(self.state, self.workspace)?.unwrap_or_default();
        let lineage = read::lineage(self.state, self.workspace)?.0;
        Ok(Own { device, former, schema, lineage })
    }

    pub(super) fn row_key(&self, table: &TableName, key: &Key) -> Vec<u8> {
        keys::row_key(self.workspace, self.meta.generation, table, key)
    }

    pub(super) fn touch(&mut self, row_key: Vec<u8>, table: &TableName, position: u64) {
        let newest = self.touched.entry(row_key).or_insert_with(|| (table.clone(), position));
        newest.1 = newest.1.max(position);
    }

    /// An op written here goes on top of what is shown: the earlier own ops are in there already.
    /// Of a record whose first frame this is nothing is shown, and a shadow would hold nothing.
    fn own_op(
        &mut self,
        own: &Own,
        position: u64,
        batch: &Batch,
        op: Op,
        is_first: bool,
    ) -> Result<(), StoreError> {
        let row_key = self.row_key(&op.table, &op.key);
        let shown = if is_first { None } else { read::row(self.state, &row_key)? };
        let has_shadow = !is_first && read::has_shadow(self.state, &row_key)?;
        let pending = StoredPending(PendingOp {
            counter: batch.counter,
            batch_id: batch.batch_id,
            created_ms: batch.created_ms,
            strict: batch.strict,
            op,
            state: PendingState::Undecided,
        });
        put(self.state, PENDING, &keys::pending_key(&row_key, batch.counter), &pending)?;
        let old = shown.as_ref().map(|shown| &shown.row);
        let known = own.with_known_base(&pending.0);
        let row = rules::overlay(
            old,
            std::slice::from_ref(known.as_ref().unwrap_or(&pending.0)),
            own.device,
            &own.former,
            own.schema.rules_of(&pending.0.op.table),
        );
        if let Some(row) = row {
            let stored = StoredRow { position, row };
            put_row(self.state, self.indexes, &row_key, old, &stored)?;
        }
        if !has_shadow {
            put(self.state, SHADOW, &row_key, &Shadow(shown))?;
        }
        Ok(())
    }

    /// Computes the visible row anew from shadow and own ops; without own ops the shadow goes.
    fn show(
        &mut self,
        own: &Own,
        row_key: &[u8],
        table: &TableName,
        position: u64,
    ) -> Result<(), StoreError> {
        let (state, indexes) = (&mut *self.state, self.indexes);
        let mut pending = read::pending(state, row_key)?;
        for pending in &mut pending {
            if let Some(known) = own.with_known_base(pending) {
                *pending = known;
            }
        }
        let shadow = read::authority_row(state, row_key)?;
        let old = read::row(state, row_key)?;
        // The newest frame stays reachable: own ops are part of the record's history.
        let position = old.as_ref().map_or(position, |row| row.position.max(position));
        let old = old.as_ref().map(|old| &old.row);
        let row = match pending.is_empty() {
            true => {
                state.delete(SHADOW, row_key);
                shadow.map(|shadow| shadow.row)
            }
            false => rules::overlay(
                shadow.as_ref().map(|shadow| &shadow.row),
                &pending,
                own.device,
                &own.former,
                own.schema.rules_of(table),
            ),
        };
        match row {
            Some(row) => put_row(state, indexes, row_key, old, &StoredRow { position, row }),
            None => delete_row(state, indexes, row_key, old),
        }
    }

    fn install_staged(&mut self) -> Result<(), StoreError> {
        let prefix = keys::rows_prefix(self.workspace, self.meta.generation);
        let end = keys::prefix_end(&prefix);
        let mut staged = Vec::new();
        read::visit_range(self.state, STAGED, &prefix, &end, &mut |key, value| {
            staged.push((key.to_vec(), value.to_vec()));
            Ok(true)
        })?;
        for (row_key, value) in staged {
            self.state.delete(STAGED, &row_key);
            let name = keys::split_row_key(&row_key, prefix.len());
            let stored: Option<StoredRow> = from_bytes(&value).ok();
            let (Some((table, key)), Some(stored)) = (name, stored) else {
                let what = "a staged row does not decode";
                return Err(read::state_damaged(STAGED, &row_key, what));
            };
            self.install(row_key, &table, &key, stored, false)?;
        }
        Ok(())
    }

    /// Takes over the authority's row, below own ops if there are any. Of a record whose first
    /// frame this is no other row is looked for: in a first copy that is every record.
    fn install(
        &mut self,
        row_key: Vec<u8>,
        table: &TableName,
        key: &Key,
        stored: StoredRow,
        is_first: bool,
    ) -> Result<(), StoreError> {
        let shadow = read::shadow(self.state, &row_key)?;
        let has_shadow = shadow.is_some();
        let old = match shadow {
            Some(Shadow(row)) => row,
            None if is_first && !self.state.has_changed(ROWS, &row_key) => None,
            None => read::row(self.state, &row_key)?,
        };
        let old = old.as_ref().map(|old| &old.row);
        count(&mut self.meta, table, key, old, Some(&stored.row));
        note_received(self.state, self.workspace, table, key, &stored)?;
        if !has_shadow {
            return put_row(self.state, self.indexes, &row_key, old, &stored);
        }
        let position = stored.position;
        put(self.state, SHADOW, &row_key, &Shadow(Some(stored)))?;
        self.touch(row_key, table, position);
        Ok(())
    }

    /// Forgets the authority's row of a record if `gone` says so of it; own ops stay on top.
    pub(super) fn forget(
        &mut self,
        table: &TableName,
        key: &Key,
        gone: impl FnOnce(&Row) -> bool,
    ) -> Result<(), StoreError> {
        let row_key = self.row_key(table, key);
        let Some(stored) = read::authority_row(self.state, &row_key)? else { return Ok(()) };
        if !gone(&stored.row) {
            return Ok(());
        }
        // Rows of local tables have no seq, and no authority counts them.
        if stored.row.last.seq != 0 {
            count(&mut self.meta, table, key, Some(&stored.row), None);
            let by_seq = keys::numbered(self.workspace, stored.row.last.seq);
            if self.state.get(BY_SEQ, &by_seq)?.is_some() {
                self.state.delete(BY_SEQ, &by_seq);
            }
        }
        if !read::has_shadow(self.state, &row_key)? {
            return delete_row(self.state, self.indexes, &row_key, Some(&stored.row));
        }
        put(self.state, SHADOW, &row_key, &Shadow(None))?;
        self.touch(row_key, table, stored.position);
        Ok(())
    }

    /// Marks one batch as decided; its ops now obey their verdicts.
    fn settle(&mut self, decided: &Decided) -> Result<(), StoreError> {
        let Decision::Accepted { first_seq, time_ms, verdicts, .. } = &decided.decision else {
            return Ok(());
        };
        let counter = decided.counter;
        let Some(mut entry) = read::outbox_entry(self.state, self.workspace, counter)? else {
            return Ok(());
        };
        let seqs = *first_seq..;
        for (((table, key), verdict), seq) in entry.records.iter().zip(verdicts).zip(seqs) {
            let row_key = self.row_key(table, key);
            let pending_key = keys::pending_key(&row_key, counter);
            if let Some(StoredPending(mut own)) = read::pending_op(self.state, &pending_key)? {
                let verdict = verdict.clone();
                own.state = PendingState::Settled { seq, time_ms: *time_ms, verdict };
                put(self.state, PENDING, &pending_key, &StoredPending(own))?;
                self.touch(row_key, table, entry.position);
            }
        }
        (entry.settled, entry.again) = (Some(decided.decision.clone()), false);
        put(self.state, OUTBOX, &keys::numbered(self.workspace, counter), &entry)
    }

    /// Settled batches whose last seq the cursor has passed leave the outbox and the overlay.
    pub(super) fn retire(&mut self) -> Result<(), StoreError> {
        // The cursor is one of the copy that goes.
        if self.new.is_some() {
            return Ok(());
        }
        while let Some((counter, entry)) =
            read::first_in_outbox(self.state, self.workspace, &self.meta)?
        {
            match &entry.settled {
                Some(Decision::Accepted { last_seq, .. })
                    if *last_seq <= self.meta.cursor || planted(Plant::AckDropsOverlay) =>
                {
                    self.leave(counter, &entry);
                    self.meta.gone = counter;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// What the authority has accepted of batches that are about to leave the outbox stays part of
    /// the copy until the new one, which holds it, takes its place: what readers see does not go
    /// back.
    pub(super) fn keep_accepted(&mut self, counters: &[u64]) -> Result<(), StoreError> {
        let writer = self.writer()?;
        for counter in counters {
            let entry = read::outbox_entry(self.state, self.workspace, *counter)?;
            let Some(OutboxEntry { position, records, .. }) = entry else { continue };
            for (table, key) in &records {
                let row_key = self.row_key(table, key);
                let own = read::pending_op(self.state, &keys::pending_key(&row_key, *counter))?;
                let Some(StoredPending(own)) = own else { continue };
                if own.state == PendingState::Undecided {
                    continue;
                }
                let old = read::authority_row(self.state, &row_key)?.map(|stored| stored.row);
                let Own { device, former, schema, .. } = &writer;
                let rules = schema.rules_of(table);
                let row = rules::overlay(old.as_ref(), &[own], *device, former, rules);
                if let Some(row) = row.filter(|row| Some(row) != old.as_ref()) {
                    self.install(row_key, table, key, StoredRow { position, row }, false)?;
                }
            }
        }
        Ok(())
    }

    /// Some batches leave the outbox, and others take their counters.
    pub(super) fn take_out(
        &mut self,
        counters: &[u64],
        renumbered: &[(u64, u64)],
    ) -> Result<(), StoreError> {
        for counter in counters {
            if let Some(entry) = read::outbox_entry(self.state, self.workspace, *counter)? {
                self.leave(*counter, &entry);
            }
        }
        if planted(Plant::NotRenumbered) {
            return Ok(());
        }
        renumbered.iter().try_for_each(|(old, new)| self.renumber(*old, *new))
    }

    pub(super) fn leave(&mut self, counter: u64, entry: &OutboxEntry) {
        self.state.delete(OUTBOX, &keys::numbered(self.workspace, counter));
        for (table, key) in &entry.records {
            let row_key = self.row_key(table, key);
            self.state.delete(PENDING, &keys::pending_key(&row_key, counter));
            self.touch(row_key, table, entry.position);
        }
    }

    /// Counters stay contiguous: a batch that stays takes the next free one. The order of a
    /// record's ops does not change, so its visible row does not either.
    pub(super) fn renumber(&mut self, old: u64, new: u64) -> Result<(), StoreError> {
        self.change(old, new, |_| {}, |_| {})
    }

    /// Gives a batch the counter `new` and changes its entry and its ops.
    pub(super) fn change(
        &mut self,
        old: u64,
        new: u64,
        change_entry: impl Fn(&mut OutboxEntry),
        change_op: impl Fn(&mut PendingOp),
    ) -> Result<(), StoreError> {
        let Some(mut entry) = read::outbox_entry(self.state, self.workspace, old)? else {
            return Ok(());
        };
        change_entry(&mut entry);
        self.state.delete(OUTBOX, &keys::numbered(self.workspace, old));
        put(self.state, OUTBOX, &keys::numbered(self.workspace, new), &entry)?;
        for (table, key) in &entry.records {
            let row_key = self.row_key(table, key);
            let from = keys::pending_key(&row_key, old);
            if let Some(StoredPending(own)) = read::pending_op(self.state, &from)? {
                self.state.delete(PENDING, &from);
                let mut own = PendingOp { counter: new, ..own };
                change_op(&mut own);
                let key = keys::pending_key(&row_key, new);
                put(self.state, PENDING, &key, &StoredPending(own))?;
            }
        }
        Ok(())
    }
}
