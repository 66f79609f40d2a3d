//! The replicator: what the sync session asks of a device's store.
//!
//! Every function here is one durable step. The driver calls them for the session's outputs and
//! feeds the answers back.

use lastword_core::id::{BatchId, WorkspaceName};
use lastword_core::op::Batch;
use lastword_core::protocol::replica::WorkspaceState;
use lastword_core::protocol::{Attached, Changes, Decided, Entry};
use lastword_core::stamp::Decision;
use lastword_store::Store;
use lastword_store::keys;
use lastword_store::payload::{Attachment, Payload, RemotePage, Verdicts};
use lastword_store::read::{self, ReadState};

use crate::database::Database;
use crate::dead_letter;
use crate::error::{Error, Result};

/// What the session needs to know of a workspace.
pub(crate) fn workspace_state<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<WorkspaceState> {
    let meta = read::meta(state, workspace)?;
    Ok(WorkspaceState {
        epoch: meta.epoch,
        cursor: meta.cursor,
        received_to: meta.received_to,
        decided: meta.decided,
        written: meta.written,
    })
}

/// Undecided batches after `after`, in counter order, as they are pushed.
pub(crate) fn read_outbox(
    db: &Database,
    workspace: &WorkspaceName,
    after: u64,
    max: usize,
) -> Result<Vec<Batch>> {
    let view = db.view();
    let entries = read::outbox(&*view, workspace, after.saturating_add(1), max)?;
    let mut batches = Vec::with_capacity(entries.len());
    for (counter, entry) in entries.into_iter().filter(|(_, entry)| entry.settled.is_none()) {
        let frame = db.inner.writer.views().read_frame(entry.position)?;
        let payload = Payload::from_frame(frame.kind, &frame.payload);
        let Ok(Payload::Local(local)) = payload else {
            return Err(Error::Outbox { workspace: workspace.clone(), counter });
        };
        let Some(batch) = local.batch else {
            return Err(Error::Outbox { workspace: workspace.clone(), counter });
        };
        // The counter in the outbox counts: the batch may have been renumbered.
        batches.push(Batch { counter, ..batch });
    }
    Ok(batches)
}

/// What storing decisions led to.
pub(crate) struct Stored {
    /// Batches that left the undecided part of the outbox, each with what its writer is told.
    pub(crate) settled: Vec<(BatchId, Decision)>,
    /// What the store knows of the workspace now.
    pub(crate) state: WorkspaceState,
    /// Counter of the batch that was refused, if one was: its unit is in the dead letters and the
    /// rest is renumbered.
    pub(crate) refused: Option<u64>,
}

/// Stores that the workspace met its authority, then the decisions that came with it.
pub(crate) fn store_attached(
    store: &mut Store,
    workspace: &WorkspaceName,
    attached: Attached,
) -> Result<Stored> {
    let meta = read::meta(store.newest(), workspace)?;
    let Attached { epoch, role, horizon, decisions, .. } = attached;
    if (meta.epoch, meta.role, meta.horizon) != (Some(epoch), Some(role), horizon) {
        let frame = Attachment { workspace: workspace.clone(), epoch, role, horizon };
        append(store, Payload::Attachment(frame))?;
    }
    // A refusal among them needs no Resume: a new attachment halts nothing.
    store_decisions(store, workspace, decisions)
}

/// Stores decisions in counter order; the first refusal ends the run, since nothing after it was
/// decided.
pub(crate) fn store_decisions(
    store: &mut Store,
    workspace: &WorkspaceName,
    decisions: Vec<Decided>,
) -> Result<Stored> {
    let known = read::meta(store.newest(), workspace)?.decided;
    let mut accepted = Vec::new();
    let mut refusal = None;
    for decided in decisions.into_iter().filter(|decided| decided.counter > known) {
        match &decided.decision {
            Decision::Accepted { .. } => accepted.push(decided),
            Decision::Refused { .. } => {
                refusal = Some(decided);
                break;
            }
        }
    }
    let mut settled: Vec<(BatchId, Decision)> =
        accepted.iter().map(|decided| (decided.batch_id, decided.decision.clone())).collect();
    if !accepted.is_empty() {
        let frame = Verdicts { workspace: workspace.clone(), decisions: accepted };
        append(store, Payload::Verdicts(frame))?;
    }
    if let Some(refused) = &refusal {
        let unit = dead_letter::unit(store.newest(), workspace, refused)?;
        settled.extend(dead_letter::verdicts(&unit));
        append(store, Payload::DeadLetters(unit))?;
    }
    let state = workspace_state(store.newest(), workspace)?;
    Ok(Stored { settled, state, refused: refusal.map(|refused| refused.counter) })
}

/// Stores one page of changes; answers the new (received_to, cursor).
pub(crate) fn store_changes(
    store: &mut Store,
    workspace: &WorkspaceName,
    page: Changes,
) -> Result<(u64, u64)> {
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let mut previous = Vec::with_capacity(page.entries.len());
    for Entry::Row { table, key, .. } in &page.entries {
        let row_key = keys::row_key(workspace, meta.generation, table, key);
        previous.push(read::row(newest, &row_key)?.map_or(0, |stored| stored.position));
    }
    let frame = RemotePage {
        workspace: workspace.clone(),
        from: page.from,
        to: page.to,
        consistent_at: page.consistent_at,
        entries: page.entries,
        previous,
    };
    append(store, Payload::Remote(frame))?;
    let meta = read::meta(store.newest(), workspace)?;
    Ok((meta.received_to, meta.cursor))
}

fn append(store: &mut Store, payload: Payload) -> Result<()> {
    store.append(payload.kind(), &payload.to_bytes())?;
    Ok(())
}
