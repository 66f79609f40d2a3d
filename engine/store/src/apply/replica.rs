//! What a replica's frames do to its state: own batches, received pages, verdicts, dead letters.
//!
//! `ROWS` holds what readers see. A record with own ops that the cursor has not passed also has a
//! `SHADOW`: the authority's row, to which those ops are applied anew whenever either side moves.

use lastword_core::codec::from_bytes;
use lastword_core::id::{DeviceId, Key, TableName, WorkspaceName};
use lastword_core::op::Op;
use lastword_core::protocol::{Decided, Entry};
use lastword_core::rules::{self, At, PendingOp, PendingState};
use lastword_core::stamp::Decision;

use super::rows::{delete_row, put_row};
use super::{count, policy_of, put, put_meta};
use crate::error::StoreError;
use crate::index::Indexes;
use crate::keys::{
    self, OUTBOX, OutboxEntry, PENDING, SHADOW, STAGED, Shadow, StoredPending, StoredRow,
    WorkspaceMeta,
};
use crate::payload::{Attachment, DeadLetters, LocalBatch, RemotePage, Verdicts};
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

pub(super) fn local(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    frame: &LocalBatch,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    let mut meta = read::meta(state, workspace)?;
    local_ops(state, indexes, workspace, meta.generation, position, &frame.local)?;
    if let Some(batch) = &frame.batch {
        let records: Vec<_> =
            batch.ops.iter().map(|op| (op.table.clone(), op.key.clone())).collect();
        for op in &batch.ops {
            let row_key = keys::row_key(workspace, meta.generation, &op.table, &op.key);
            if !read::has_shadow(state, &row_key)? {
                let row = read::row(state, &row_key)?;
                put(state, SHADOW, &row_key, &Shadow(row))?;
            }
            let own = PendingOp {
                counter: batch.counter,
                batch_id: batch.batch_id,
                created_ms: batch.created_ms,
                strict: batch.strict,
                op: op.clone(),
                state: PendingState::Undecided,
            };
            let key = keys::pending_key(&row_key, batch.counter);
            put(state, PENDING, &key, &StoredPending(own))?;
            show(state, indexes, &row_key, &op.table, position)?;
        }
        let entry = OutboxEntry {
            batch_id: batch.batch_id,
            payload_hash: batch.payload_hash(),
            position,
            created_ms: batch.created_ms,
            records,
            settled: None,
        };
        put(state, OUTBOX, &keys::numbered(workspace, batch.counter), &entry)?;
        meta.written = batch.counter;
    }
    put_meta(state, workspace, &meta)?;
    Ok(())
}

/// Ops on tables that never sync: applied at once, in this device's name.
fn local_ops(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    workspace: &WorkspaceName,
    generation: u32,
    position: u64,
    ops: &[Op],
) -> Result<(), StoreError> {
    for op in ops {
        let row_key = keys::row_key(workspace, generation, &op.table, &op.key);
        let old = read::row(state, &row_key)?;
        let time_ms = i64::try_from(op.hlc.ms()).unwrap_or(i64::MAX);
        let at = At { seq: 0, time_ms, op_id: Default::default() };
        let old_row = old.as_ref().map(|old| &old.row);
        if let Some(row) = rules::apply(old_row, op, DeviceId::AUTHORITY, &at, &[]) {
            put_row(state, indexes, &row_key, &StoredRow { position, row })?;
        }
    }
    Ok(())
}

/// Computes the visible row anew from shadow and own ops; without own ops the shadow goes.
fn show(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    row_key: &[u8],
    table: &TableName,
    position: u64,
) -> Result<(), StoreError> {
    let pending = read::pending(state, row_key)?;
    let shadow = read::authority_row(state, row_key)?;
    // The newest frame stays reachable: own ops are part of the record's history.
    let position = read::row(state, row_key)?.map_or(position, |row| row.position.max(position));
    if pending.is_empty() {
        state.delete(SHADOW, row_key);
        match shadow {
            Some(row) => put_row(state, indexes, row_key, &StoredRow { position, ..row })?,
            None => delete_row(state, indexes, row_key)?,
        }
        return Ok(());
    }
    let identity = read::identity(state)?;
    let (device, former) = identity.map(|id| (id.device, id.former)).unwrap_or_default();
    let base = shadow.as_ref().map(|shadow| &shadow.row);
    match rules::overlay(base, &pending, device, &former, policy_of(table)) {
        Some(row) => put_row(state, indexes, row_key, &StoredRow { position, row })?,
        None => delete_row(state, indexes, row_key)?,
    }
    Ok(())
}

pub(super) fn remote(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    page: RemotePage,
) -> Result<(), StoreError> {
    let workspace = page.workspace;
    let mut meta = read::meta(state, &workspace)?;
    // A first bootstrap shows rows as they come; later pages wait for their consistent end, so
    // that no reader sees half of a batch.
    let stage = meta.bootstrapped && page.consistent_at.is_none();
    if page.consistent_at.is_some() {
        install_staged(state, indexes, &workspace, &mut meta)?;
    }
    for Entry::Row { table, key, row } in page.entries {
        let row_key = keys::row_key(&workspace, meta.generation, &table, &key);
        meta.time_ms = meta.time_ms.max(row.time_ms);
        let stored = StoredRow { position, row };
        match stage {
            true => put(state, STAGED, &row_key, &stored)?,
            false => install(state, indexes, &mut meta, &row_key, &table, &key, stored)?,
        }
    }
    meta.received_to = page.to;
    meta.head = meta.head.max(page.to);
    if let Some(cursor) = page.consistent_at {
        meta.cursor = cursor;
        meta.bootstrapped = true;
        retire(state, indexes, &workspace, &meta)?;
    }
    put_meta(state, &workspace, &meta)?;
    Ok(())
}

fn install_staged(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    workspace: &WorkspaceName,
    meta: &mut WorkspaceMeta,
) -> Result<(), StoreError> {
    let prefix = keys::rows_prefix(workspace, meta.generation);
    let mut staged = Vec::new();
    read::visit_range(state, STAGED, &prefix, &keys::prefix_end(&prefix), &mut |key, value| {
        staged.push((key.to_vec(), value.to_vec()));
        Ok(true)
    })?;
    for (row_key, value) in staged {
        state.delete(STAGED, &row_key);
        let name = keys::split_row_key(&row_key, prefix.len());
        let stored: Option<StoredRow> = from_bytes(&value).ok();
        let (Some((table, key)), Some(stored)) = (name, stored) else {
            return Err(read::state_damaged(STAGED, &row_key, "a staged row does not decode"));
        };
        install(state, indexes, meta, &row_key, &table, &key, stored)?;
    }
    Ok(())
}

/// Takes over the authority's row, below own ops if there are any.
fn install(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    meta: &mut WorkspaceMeta,
    row_key: &[u8],
    table: &TableName,
    key: &Key,
    stored: StoredRow,
) -> Result<(), StoreError> {
    let old = read::authority_row(state, row_key)?;
    count(meta, table, key, old.as_ref().map(|old| &old.row), Some(&stored.row));
    if read::has_shadow(state, row_key)? {
        let position = stored.position;
        put(state, SHADOW, row_key, &Shadow(Some(stored)))?;
        show(state, indexes, row_key, table, position)
    } else {
        put_row(state, indexes, row_key, &stored)
    }
}

pub(super) fn verdicts(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    frame: &Verdicts,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    let mut meta = read::meta(state, workspace)?;
    for decided in &frame.decisions {
        settle(state, indexes, workspace, &meta, decided)?;
        meta.decided = meta.decided.max(decided.counter);
        if let Decision::Accepted { last_seq, time_ms, .. } = &decided.decision {
            meta.head = meta.head.max(*last_seq);
            meta.time_ms = meta.time_ms.max(*time_ms);
        }
    }
    retire(state, indexes, workspace, &meta)?;
    put_meta(state, workspace, &meta)?;
    Ok(())
}

/// Marks one batch as decided; its ops now obey their verdicts.
fn settle(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    workspace: &WorkspaceName,
    meta: &WorkspaceMeta,
    decided: &Decided,
) -> Result<(), StoreError> {
    let Decision::Accepted { first_seq, time_ms, verdicts, .. } = &decided.decision else {
        return Ok(());
    };
    let outbox_key = keys::numbered(workspace, decided.counter);
    let Some(mut entry) = read::outbox_entry(state, workspace, decided.counter)? else {
        return Ok(());
    };
    for (((table, key), verdict), seq) in entry.records.iter().zip(verdicts).zip(*first_seq..) {
        let row_key = keys::row_key(workspace, meta.generation, table, key);
        let pending_key = keys::pending_key(&row_key, decided.counter);
        if let Some(bytes) = state.get(PENDING, &pending_key)? {
            let own = from_bytes::<StoredPending>(&bytes);
            let Ok(StoredPending(mut own)) = own else {
                return Err(read::state_damaged(
                    PENDING,
                    &pending_key,
                    "a pending op does not decode",
                ));
            };
            let verdict = verdict.clone();
            own.state = PendingState::Settled { seq, time_ms: *time_ms, verdict };
            put(state, PENDING, &pending_key, &StoredPending(own))?;
            show(state, indexes, &row_key, table, entry.position)?;
        }
    }
    entry.settled = Some(decided.decision.clone());
    put(state, OUTBOX, &outbox_key, &entry)?;
    Ok(())
}

/// Settled batches whose last seq the cursor has passed leave the outbox and the overlay.
fn retire(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    workspace: &WorkspaceName,
    meta: &WorkspaceMeta,
) -> Result<(), StoreError> {
    loop {
        let Some((counter, entry)) = read::outbox(state, workspace, 0, 1)?.into_iter().next()
        else {
            return Ok(());
        };
        match &entry.settled {
            Some(Decision::Accepted { last_seq, .. }) if *last_seq <= meta.cursor => {
                leave(state, indexes, workspace, meta.generation, counter, &entry)?;
            }
            _ => return Ok(()),
        }
    }
}

fn leave(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    workspace: &WorkspaceName,
    generation: u32,
    counter: u64,
    entry: &OutboxEntry,
) -> Result<(), StoreError> {
    state.delete(OUTBOX, &keys::numbered(workspace, counter));
    for (table, key) in &entry.records {
        let row_key = keys::row_key(workspace, generation, table, key);
        state.delete(PENDING, &keys::pending_key(&row_key, counter));
        show(state, indexes, &row_key, table, entry.position)?;
    }
    Ok(())
}

pub(super) fn dead_letters(
    state: &mut StateTxn<'_>,
    indexes: &Indexes,
    position: u64,
    frame: &DeadLetters,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    let mut meta = read::meta(state, workspace)?;
    for counter in &frame.counters {
        if let Some(entry) = read::outbox_entry(state, workspace, *counter)? {
            leave(state, indexes, workspace, meta.generation, *counter, &entry)?;
        }
    }
    for (old, new) in &frame.renumbered {
        renumber(state, workspace, meta.generation, *old, *new)?;
    }
    meta.decided = meta.decided.max(frame.refused.counter);
    meta.written -= frame.counters.len() as u64 - 1;
    put_meta(state, workspace, &meta)?;
    let store = read::store_workspace();
    local_ops(state, indexes, &store, 0, position, &frame.rows)
}

/// Counters stay contiguous: a batch that stays takes the next free one. The order of a record's
/// ops does not change, so its visible row does not either.
fn renumber(
    state: &mut StateTxn<'_>,
    workspace: &WorkspaceName,
    generation: u32,
    old: u64,
    new: u64,
) -> Result<(), StoreError> {
    let Some(entry) = read::outbox_entry(state, workspace, old)? else { return Ok(()) };
    state.delete(OUTBOX, &keys::numbered(workspace, old));
    put(state, OUTBOX, &keys::numbered(workspace, new), &entry)?;
    for (table, key) in &entry.records {
        let row_key = keys::row_key(workspace, generation, table, key);
        for own in read::pending(state, &row_key)?.into_iter().filter(|own| own.counter == old) {
            state.delete(PENDING, &keys::pending_key(&row_key, old));
            let own = PendingOp { counter: new, ..own };
            put(state, PENDING, &keys::pending_key(&row_key, new), &StoredPending(own))?;
        }
    }
    Ok(())
}
