//! What a decided batch does to the authority's state.

use lastword_core::id::DeviceId;
use lastword_core::op::Op;
use lastword_core::plant::{Plant, planted};
use lastword_core::row::{Digest, Row};
use lastword_core::rules::{self, At};
use lastword_core::schema::Schema;
use lastword_core::stamp::{Decision, Verdict};

use super::{count, note_end, note_erased, put, put_meta};
use crate::error::StoreError;
use crate::keys::{
    self, BY_COUNTER, BY_SEQ, COUNTERS, DECISIONS, GRAVES, META, ROWS, StoredDecision, StoredRow,
    WorkspaceMeta,
};
use crate::payload::{DecidedBatch, Erasure, Restored, WorkspaceDeleted};
use crate::read;
use crate::state::StateTxn;

pub(super) fn decided(
    state: &mut StateTxn<'_>,
    position: u64,
    frame: &DecidedBatch,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    let mut meta = read::meta(state, workspace)?;
    remember(state, frame)?;
    match &frame.decision {
        Decision::Accepted { first_seq, last_seq, time_ms, verdicts } => {
            let schema = read::schema(state, workspace)?.unwrap_or_default();
            let (time_ms, meta) = (*time_ms, &mut meta);
            let mut place = Place { frame, position, time_ms, schema, meta };
            let mut seq = *first_seq;
            for (op, verdict) in frame.batch.ops.iter().zip(verdicts) {
                place.op(state, op, frame.batch.device, seq, verdict)?;
                seq += 1;
            }
            let applied = Verdict::Applied { dropped: Vec::new() };
            for op in &frame.own {
                place.op(state, op, DeviceId::AUTHORITY, seq, &applied)?;
                seq += 1;
            }
            meta.head = meta.head.max(*last_seq);
            meta.time_ms = meta.time_ms.max(time_ms);
        }
        Decision::Refused { time_ms, .. } => meta.time_ms = meta.time_ms.max(*time_ms),
    }
    put_meta(state, workspace, &meta)?;
    Ok(())
}

pub(super) fn restored(state: &mut StateTxn<'_>, frame: &Restored) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    let mut meta = read::meta(state, workspace)?;
    let mut lineage = read::lineage(state, workspace)?;
    lineage.push(frame.branch, frame.head);
    put(state, META, &keys::workspace_prefix(workspace), &lineage)?;
    if !planted(Plant::EpochKept) {
        meta.epoch = Some(frame.epoch);
    }
    meta.head = meta.head.max(frame.head);
    meta.time_ms = meta.time_ms.max(frame.time_ms);
    put_meta(state, workspace, &meta)
}

/// Its rows are in a copy that nobody reads from here on, which purges take away; without an epoch
/// it is as if it was never made.
pub(super) fn deleted(
    state: &mut StateTxn<'_>,
    frame: &WorkspaceDeleted,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    let meta = read::meta(state, workspace)?;
    let time_ms = u64::try_from(frame.time_ms).unwrap_or(0);
    put(state, META, &keys::deleted_key(workspace), &time_ms)?;
    let meta = WorkspaceMeta {
        epoch: None,
        generation: meta.generation.saturating_add(1),
        rows: 0,
        digest: Digest::default(),
        ..meta
    };
    put_meta(state, workspace, &meta)
}

pub(super) fn erasure(
    state: &mut StateTxn<'_>,
    position: u64,
    frame: &Erasure,
) -> Result<(), StoreError> {
    let workspace = &frame.workspace;
    let mut meta = read::meta(state, workspace)?;
    let schema = read::schema(state, workspace)?.unwrap_or_default();
    for ((table, key), seq) in frame.records.iter().zip(frame.first_seq..) {
        meta.head = meta.head.max(seq);
        let row_key = keys::row_key(workspace, meta.generation, table, key);
        let Some(StoredRow { row: old, .. }) = read::row(state, &row_key)? else { continue };
        let left = rules::emptied(table, &old.record, schema.rules_of(table));
        let row = Row::erased(&old, left, seq, frame.time_ms);
        count(&mut meta, table, key, Some(&old), Some(&row));
        let (record, by_seq) = (keys::record_bytes(table, key), keys::numbered(workspace, seq));
        state.put(GRAVES, &by_seq, &record)?;
        state.put(BY_SEQ, &by_seq, &record)?;
        put(state, ROWS, &row_key, &StoredRow { position, row })?;
    }
    meta.time_ms = meta.time_ms.max(frame.time_ms);
    put_meta(state, workspace, &meta)?;
    note_erased(state, position, frame.time_ms)
}

/// The decision by batch id, and the device's counter. A batch that came under another counter
/// before keeps its first decision.
fn remember(state: &mut StateTxn<'_>, frame: &DecidedBatch) -> Result<(), StoreError> {
    let (workspace, batch) = (&frame.workspace, &frame.batch);
    let is_refused = matches!(frame.decision, Decision::Refused { .. });
    if batch.device == DeviceId::AUTHORITY || is_refused && planted(Plant::RefusalForgotten) {
        return Ok(());
    }
    let stored = StoredDecision {
        device: batch.device,
        counter: batch.counter,
        payload_hash: frame.payload_hash,
        decision: frame.decision.clone(),
    };
    put(state, DECISIONS, &keys::identified(workspace, &batch.batch_id.0), &stored)?;
    put(state, COUNTERS, &keys::identified(workspace, &batch.device.0), &batch.counter)?;
    let by_counter = keys::by_counter_key(workspace, batch.device, batch.counter);
    put(state, BY_COUNTER, &by_counter, &batch.batch_id)
}

struct Place<'a> {
    frame: &'a DecidedBatch,
    position: u64,
    time_ms: i64,
    schema: Schema,
    meta: &'a mut WorkspaceMeta,
}

impl Place<'_> {
    fn op(
        &mut self,
        state: &mut StateTxn<'_>,
        op: &Op,
        writer: DeviceId,
        seq: u64,
        verdict: &Verdict,
    ) -> Result<(), StoreError> {
        let workspace = &self.frame.workspace;
        let row_key = keys::row_key(workspace, self.meta.generation, &op.table, &op.key);
        let old = read::row(state, &row_key)?;
        let new = match verdict {
            Verdict::Applied { dropped } => {
                let op_id = self.frame.batch.batch_id;
                let at = At { seq, time_ms: self.time_ms, op_id };
                let table = self.schema.rules_of(&op.table);
                rules::apply(old.as_ref().map(|old| &old.row), op, writer, &at, table, dropped)
            }
            Verdict::Superseded { .. } => {
                // The loser joins the record's history; its row stays as it is.
                if let Some(old) = old {
                    put(state, ROWS, &row_key, &StoredRow { position: self.position, ..old })?;
                }
                return Ok(());
            }
        };
        let Some(new) = new else { return Ok(()) };
        count(self.meta, &op.table, &op.key, old.as_ref().map(|old| &old.row), Some(&new));
        let record = keys::record_bytes(&op.table, &op.key);
        let by_seq = keys::numbered(workspace, seq);
        if new.deleted {
            state.put(GRAVES, &by_seq, &record)?;
        }
        note_end(state, workspace, &op.table, &op.key, &new)?;
        if writer != DeviceId::AUTHORITY || !planted(Plant::OwnOpsNotSent) {
            state.put(BY_SEQ, &by_seq, &record)?;
        }
        put(state, ROWS, &row_key, &StoredRow { position: self.position, row: new })?;
        Ok(())
    }
}
