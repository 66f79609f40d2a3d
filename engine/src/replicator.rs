//! The replicator: what the sync session asks of a device's store.
//!
//! Every function here is one durable step. The driver calls them for the session's outputs and
//! feeds the answers back.

use std::collections::{BTreeMap, BTreeSet};

use lastword_core::codec::from_bytes;
use lastword_core::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use lastword_core::limits::{MAX_ATTACHED_DECISIONS, MAX_BATCH_OPS, MAX_FORMER_DEVICES};
use lastword_core::op::Batch;
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::replica::{Input, WorkspaceState};
use lastword_core::protocol::{Attached, Changes, Decided, Entry, ResetReason, WalkPage};
use lastword_core::rules::{self, PendingState};
use lastword_core::schema::Schema;
use lastword_core::stamp::Decision;
use lastword_store::keys::{self, OutboxEntry, ROWS, StoredRow};
use lastword_store::payload::{
    Attachment, Carried, Cover, Identity, Payload, Purge, PurgePart, RemotePage, Reset, Verdicts,
    WalkFrame, WorkspaceSchema,
};
use lastword_store::read::{self, ReadState};
use lastword_store::{Store, ViewHandle};

use crate::dead_letter::{self, Outcome};
use crate::error::{Error, Result};
use crate::history;
use crate::lost;
use crate::schema::Declared;
use crate::unsent::Unsent;

/// The nonce of a store that was just opened: how far its log had come then, and something random.
/// The frame that it appends makes the first part of each opening greater than that of the one
/// before, so that the server can tell what a process that is gone had sent from what another copy
/// of the store sends.
pub(crate) fn nonce(store: &mut Store, random: [u8; 8]) -> Result<[u8; 16]> {
    let now_ms = read::retention_clock(store.newest())?;
    let (workspace, part) = (read::store_workspace(), PurgePart::Clock { now_ms });
    let opened = append_urgent(store, &Payload::Purge(Purge { workspace, part }))?;
    store.commit()?;
    let mut nonce = [0; 16];
    let (count, rest) = nonce.split_at_mut(8);
    count.copy_from_slice(&opened.to_be_bytes());
    rest.copy_from_slice(&random);
    Ok(nonce)
}

/// What the session needs to know of a workspace.
pub(crate) fn workspace_state<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
) -> Result<WorkspaceState> {
    let meta = read::meta(state, workspace)?;
    // A new copy is consistent nowhere before it takes the place of the visible one.
    let reset = read::reset(state, workspace)?.filter(|_| !planted(Plant::ResetAsPlainWalk));
    let (received_to, cursor) = match reset {
        Some(reset) => (reset.received_to, 0),
        None => (meta.received_to, meta.cursor),
    };
    let walk = read::walk_place(state, workspace)?;
    Ok(WorkspaceState {
        epoch: meta.epoch,
        cursor,
        received_to,
        // A walk brings rows from above its base.
        shown_to: if walk.is_some() { meta.head } else { meta.received_to },
        horizon: meta.horizon,
        cover: read::cover(state, workspace)?,
        decided: meta.decided,
        written: meta.written,
        walk,
    })
}

/// Undecided batches after `after`, in counter order, as they are pushed; from here on they are a
/// session's, and nothing takes them in.
pub(crate) fn read_outbox(
    log: &ViewHandle,
    unsent: &Unsent,
    workspace: &WorkspaceName,
    after: u64,
    max: usize,
) -> Result<Vec<Batch>> {
    let mut outboxes = unsent.lock();
    let view = log.view();
    let Some(Identity { device, former, .. }) = read::identity(&*view)? else {
        return Ok(Vec::new());
    };
    let mut entries = read::outbox(&*view, workspace, after.saturating_add(1), max)?;
    outboxes.hand(workspace, view.position(), &mut entries);
    drop(outboxes);
    let mut batches = Vec::with_capacity(entries.len());
    for (counter, entry) in entries.into_iter().filter(|(_, entry)| entry.settled.is_none()) {
        let frame = log.read_frame(entry.position)?;
        let payload = Payload::from_frame(frame.kind, &frame.payload).ok();
        let Some(batch) = payload.and_then(Payload::into_own).and_then(|own| own.batch) else {
            return Err(Error::Outbox { workspace: workspace.clone(), counter });
        };
        // What the outbox says counts: the batch may have been renumbered, and the device may have
        // another id by now.
        let strict = batch.strict || entry.again && !planted(Plant::NotStrictAfterFork);
        let former = if device == batch.device { batch.former } else { former.clone() };
        batches.push(Batch { counter, device, former, strict, ..batch });
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
    /// Counter of a decided batch that this store did not write, or whose decision nobody knows any
    /// more; no decision was stored then.
    pub(crate) forked: Option<u64>,
    /// Why the authority's schema is not that of the app; nothing was stored then.
    pub(crate) other_schema: Option<String>,
}

impl Stored {
    /// What the session hears after [`store_attached`].
    pub(crate) fn attached(self, workspace: WorkspaceName) -> Input {
        match (self.forked, self.other_schema) {
            (_, Some(message)) => Input::OtherSchema { workspace, message },
            (Some(counter), None) => Input::Forked { workspace, counter },
            (None, None) => Input::AttachStored { workspace, state: self.state },
        }
    }

    /// What the session hears after [`store_decisions`].
    pub(crate) fn decided(self, workspace: WorkspaceName) -> Input {
        let WorkspaceState { decided, written, .. } = self.state;
        match (self.forked, self.refused) {
            (Some(counter), _) => Input::Forked { workspace, counter },
            (None, None) => Input::DecisionsStored { workspace, decided },
            (None, Some(refused)) => Input::DeadLettered { workspace, refused, decided, written },
        }
    }
}

/// What a session hears that asked in the name of `device`, where the store goes on as another one
/// since: nothing is stored, since counters and decisions are about another outbox.
#[cfg(any(feature = "net", test))]
pub(crate) fn of_another<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    device: DeviceId,
) -> Result<Option<Stored>> {
    let now = read::identity(state)?.map(|identity| identity.device);
    if now == Some(device) {
        return Ok(None);
    }
    let state = workspace_state(state, workspace)?;
    let (settled, refused, forked, other_schema) = Default::default();
    Ok(Some(Stored { settled, state, refused, forked, other_schema }))
}

/// Stores that the workspace met its authority and whether a new copy begins, then the decisions
/// that came with it. Batches that cannot be sent again any more leave the outbox.
pub(crate) fn store_attached(
    store: &mut Store,
    workspace: &WorkspaceName,
    attached: Attached,
    declared: &Declared,
    now_ms: i64,
) -> Result<Stored> {
    let schema = match understood(&attached.schema, declared) {
        Ok(schema) => schema,
        Err(message) => {
            let state = workspace_state(store.newest(), workspace)?;
            let (settled, refused, forked) = (Vec::new(), None, None);
            return Ok(Stored { settled, state, refused, forked, other_schema: Some(message) });
        }
    };
    let last_counter = attached.last_counter;
    let mut lost = forgotten_before_restore(store, workspace, &attached, now_ms)?;
    let decisions = note_authority(store, workspace, attached, schema)?;
    let is_told = !decisions.is_empty();
    // A refusal among them needs no Resume: a new attachment halts nothing.
    let mut stored = store_decisions(store, workspace, decisions, now_ms)?;
    let WorkspaceState { decided, .. } = stored.state;
    if !is_told && decided < last_counter && !planted(Plant::OldCountersKept) {
        // They are forgotten. Under its old counters the batches are those of another store; as
        // another device this one goes on before any page is stored.
        stored.forked = Some(decided + 1);
    }
    stored.settled.append(&mut lost);
    let resets = read::reset(store.newest(), workspace)?;
    if stored.forked.is_none() && resets.is_some_and(|reset| reset.behind_horizon) {
        let next = read::meta(store.newest(), workspace)?.decided.max(last_counter) + 1;
        let told = set_unsure_aside(store, workspace, (next, next), now_ms)?;
        stored.settled.extend(told);
        stored.state = workspace_state(store.newest(), workspace)?;
    }
    Ok(stored)
}

/// Takes out of the outbox, from counter `next` on, what the server may have forgotten to have
/// decided: batches before counter `undecided`, which this device has sent, and those that were
/// written under a former id of it, whose counters say nothing. Answers what their writers are
/// told.
fn set_unsure_aside(
    store: &mut Store,
    workspace: &WorkspaceName,
    (next, undecided): (u64, u64),
    now_ms: i64,
) -> Result<Vec<(BatchId, Decision)>> {
    let newest = store.newest();
    let device = read::identity(newest)?.map(|identity| identity.device);
    let mut former = BTreeMap::new();
    for (counter, entry) in read::outbox(newest, workspace, next, usize::MAX)? {
        let frame = store.read_frame(entry.position).ok();
        let payload = frame.and_then(|frame| Payload::from_frame(frame.kind, &frame.payload).ok());
        let batch = payload.and_then(Payload::into_own).and_then(|own| own.batch);
        if counter < undecided || entry.again && batch.map(|batch| batch.device) != device {
            let settled =
                entry.settled.is_some() || is_settled(newest, workspace, counter, &entry)?;
            former.insert(counter, if settled { Outcome::Accepted } else { Outcome::Unknown });
        }
    }
    let outcome =
        |counter: u64, _: &OutboxEntry| former.get(&counter).copied().unwrap_or(Outcome::Waits);
    let Some(unsure) = dead_letter::unsure(newest, workspace, next, outcome, now_ms)? else {
        return Ok(Vec::new());
    };
    let told = dead_letter::told_unsure(&unsure, now_ms);
    for frame in dead_letter::set_aside(unsure) {
        // As with a refusal: the rows before the last frame are idempotent.
        store.commit()?;
        append_urgent(store, &frame)?;
    }
    Ok(told)
}

/// Whether the ops of a batch have their verdicts, although it is to be sent again.
fn is_settled<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    counter: u64,
    entry: &OutboxEntry,
) -> Result<bool> {
    let generation = read::meta(state, workspace)?.generation;
    let Some((table, key)) = entry.records.first() else { return Ok(false) };
    let row_key = keys::row_key(workspace, generation, table, key);
    let own = read::pending_op(state, &keys::pending_key(&row_key, counter))?;
    Ok(own.is_some_and(|own| matches!(own.0.state, PendingState::Settled { .. })))
}

/// A restored server that has purged since may know of a batch no more that its backup had decided,
/// and would take it for a new one. This device knows which those can be: what the server has
/// counted of it.
fn forgotten_before_restore(
    store: &mut Store,
    workspace: &WorkspaceName,
    attached: &Attached,
    now_ms: i64,
) -> Result<Vec<(BatchId, Decision)>> {
    let meta = read::meta(store.newest(), workspace)?;
    let walked_from = read::walk_place(store.newest(), workspace)?.map_or(0, |place| place.base);
    let held_to = meta.received_to.max(walked_from);
    let may_have_forgotten =
        (1..attached.horizon).contains(&held_to) && meta.horizon != attached.horizon;
    if attached.reset != Some(ResetReason::OtherHistory) || !may_have_forgotten {
        return Ok(Vec::new());
    }
    let undecided = attached.last_counter.saturating_add(1);
    set_unsure_aside(store, workspace, (meta.gone.saturating_add(1), undecided), now_ms)
}

/// Stores what the authority says of itself, and answers what it has decided of this outbox.
fn note_authority(
    store: &mut Store,
    workspace: &WorkspaceName,
    attached: Attached,
    schema: Option<Schema>,
) -> Result<Vec<Decided>> {
    let meta = read::meta(store.newest(), workspace)?;
    let Attached { epoch, role, horizon, lineage, reset, cover, last_counter, .. } = attached;
    let is_other = reset == Some(ResetReason::OtherHistory);
    if reset.is_some() {
        let other_history = is_other.then_some(last_counter);
        let workspace = workspace.clone();
        let frame = Reset { workspace, epoch, role, horizon, lineage, other_history };
        append_urgent(store, &Payload::Reset(frame))?;
    } else if (meta.epoch, meta.role, meta.horizon) != (Some(epoch), Some(role), horizon) {
        let frame = Attachment { workspace: workspace.clone(), epoch, role, horizon };
        append_urgent(store, &Payload::Attachment(frame))?;
    }
    // Before anything that is decided under it.
    if read::schema(store.newest(), workspace)? != schema {
        let frame = WorkspaceSchema { workspace: workspace.clone(), schema };
        append_urgent(store, &Payload::Schema(frame))?;
    }
    // Behind the reset: if the last frames are lost, the copy must not seem to be what it is not.
    if read::cover(store.newest(), workspace)? != cover {
        let frame = Cover { workspace: workspace.clone(), cover };
        append_urgent(store, &Payload::Cover(frame))?;
    }
    // Counters of another history say nothing of this outbox.
    Ok(if is_other { Vec::new() } else { attached.decisions })
}

/// Stores that the authority has forgotten tombstones up to this seq, if the pages that show them
/// are stored; answers the horizon that is known now.
pub(crate) fn store_horizon(
    store: &mut Store,
    workspace: &WorkspaceName,
    horizon: u64,
) -> Result<u64> {
    let meta = read::meta(store.newest(), workspace)?;
    let received_to = workspace_state(store.newest(), workspace)?.received_to;
    let (Some(epoch), Some(role)) = (meta.epoch, meta.role) else { return Ok(meta.horizon) };
    // A page before it may have found no room.
    if horizon > received_to && !planted(Plant::HorizonBeforePages) {
        return Ok(meta.horizon);
    }
    let frame = Attachment { workspace: workspace.clone(), epoch, role, horizon };
    append_urgent(store, &Payload::Attachment(frame))?;
    Ok(horizon)
}

/// The store goes on as `device`, in one frame; what the session hears of it.
pub(crate) fn store_fork(store: &mut Store, device: DeviceId, now_ms: i64) -> Result<Input> {
    let Some(was) = read::identity(store.newest())? else { return Err(Error::Closed) };
    let mut former = vec![was.device];
    former.extend(&was.former);
    former.truncate(MAX_FORMER_DEVICES);
    let identity = Identity { role: was.role, device, former, created_ms: now_ms };
    append_urgent(store, &Payload::Fork(identity))?;
    fork_stored(store.newest(), device)
}

/// What a session hears whose store goes on as `device`.
pub(crate) fn fork_stored<S: ReadState>(state: &S, device: DeviceId) -> Result<Input> {
    let mut states = Vec::new();
    for (workspace, _) in read::workspaces(state)? {
        let now = workspace_state(state, &workspace)?;
        states.push((workspace, now));
    }
    Ok(Input::ForkStored { device, states })
}

/// The authority's schema, none if it has none; or why this app cannot work with it.
fn understood(bytes: &[u8], declared: &Declared) -> std::result::Result<Option<Schema>, String> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let schema: Schema = from_bytes(bytes).map_err(|error| {
        format!("this app does not understand the server's schema ({error}): update the app")
    })?;
    match declared.check_server(&schema) {
        Ok(()) => Ok(Some(schema)),
        Err(error) => Err(format!("table {error}; unsent changes are kept")),
    }
}

/// Stores decisions in counter order; the first refusal ends the run, since nothing after it was
/// decided. Decisions about batches that are not in the outbox are another store's: then nothing is
/// stored.
pub(crate) fn store_decisions(
    store: &mut Store,
    workspace: &WorkspaceName,
    decisions: Vec<Decided>,
    now_ms: i64,
) -> Result<Stored> {
    let known = read::meta(store.newest(), workspace)?.decided;
    let unknown = decisions.iter().filter(|decided| decided.counter > known);
    for (decided, counter) in unknown.zip(known.saturating_add(1)..) {
        let entry = read::outbox_entry(store.newest(), workspace, decided.counter)?;
        let is_own = entry.is_some_and(|entry| entry.batch_id == decided.batch_id);
        let is_foreign = !is_own || decided.counter != counter;
        if is_foreign && !planted(Plant::ForeignDecision) {
            let state = workspace_state(store.newest(), workspace)?;
            let (settled, refused, forked) = (Vec::new(), None, Some(decided.counter));
            return Ok(Stored { settled, state, refused, forked, other_schema: None });
        }
    }
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
    for decisions in accepted.chunks(MAX_ATTACHED_DECISIONS) {
        let (workspace, decisions) = (workspace.clone(), decisions.to_vec());
        append_urgent(store, &Payload::Verdicts(Verdicts { workspace, decisions }))?;
    }
    if let Some(refused) = &refusal {
        let unit = dead_letter::unit(store.newest(), workspace, refused, now_ms)?;
        settled.extend(dead_letter::verdicts(&unit));
        for frame in dead_letter::frames(unit) {
            // A unit may be larger than a group; its rows before the last frame are idempotent.
            store.commit()?;
            append_urgent(store, &frame)?;
        }
    }
    let state = workspace_state(store.newest(), workspace)?;
    let refused = refusal.map(|refused| refused.counter);
    Ok(Stored { settled, state, refused, forked: None, other_schema: None })
}

/// Stores one page of changes, and tells the session how far the store has come. A table that this
/// app keeps local stays its own, also if another app syncs one of that name.
pub(crate) fn store_changes(
    store: &mut Store,
    workspace: &WorkspaceName,
    mut page: Changes,
    is_local: &dyn Fn(&TableName) -> bool,
    now_ms: i64,
) -> Result<Input> {
    page.entries.retain(|Entry::Row { table, .. }| !is_local(table));
    let known = workspace_state(store.newest(), workspace)?;
    if page.from > known.received_to {
        // Another session of this database has begun a new copy since it was asked for.
        return Ok(stored(workspace, known));
    }
    let reset = read::reset(store.newest(), workspace)?;
    let ends_reset = reset.is_some() && page.consistent_at.is_some();
    if ends_reset && !planted(Plant::LocalRowsLeft) {
        leave_old_copy(store, workspace, is_local, now_ms)?;
    }
    let meta = read::meta(store.newest(), workspace)?;
    let previous = previous(store, workspace, &page.entries)?;
    if let Some(consistent_at) = page.consistent_at.filter(|_| !meta.bootstrapped) {
        lost::begin(store, workspace, consistent_at)?;
    }
    let frame = RemotePage {
        workspace: workspace.clone(),
        from: page.from,
        to: page.to,
        consistent_at: page.consistent_at,
        entries: page.entries,
        previous,
        walk: None,
    };
    let payload = Payload::Remote(frame);
    store.append(payload.kind(), &payload.to_bytes())?;
    Ok(stored(workspace, workspace_state(store.newest(), workspace)?))
}

/// Stores one page of a walk; tells the session how far the store has come.
pub(crate) fn store_walk(
    store: &mut Store,
    workspace: &WorkspaceName,
    mut page: WalkPage,
    is_local: &dyn Fn(&TableName) -> bool,
) -> Result<Input> {
    let known = workspace_state(store.newest(), workspace)?;
    // Another session of this database may have begun a new copy since it was asked for, or have
    // come further with this one.
    if page.follows(known.walk.as_ref()) && known.received_to == 0 {
        let place = page.place();
        let generation = read::meta(store.newest(), workspace)?.generation;
        page.entries.retain(|Entry::Row { table, .. }| !is_local(table));
        let frame = RemotePage {
            workspace: workspace.clone(),
            from: 0,
            to: if page.is_last { page.base } else { 0 },
            consistent_at: None,
            previous: match are_first(store.newest(), workspace, generation, &page.entries)? {
                true => vec![0; page.entries.len()],
                false => previous(store, workspace, &page.entries)?,
            },
            entries: page.entries,
            walk: Some(WalkFrame { place }),
        };
        let payload = Payload::Remote(frame);
        store.append(payload.kind(), &payload.to_bytes())?;
    }
    Ok(stored(workspace, workspace_state(store.newest(), workspace)?))
}

/// What the session hears of a page.
fn stored(workspace: &WorkspaceName, state: WorkspaceState) -> Input {
    let WorkspaceState { received_to, cursor, walk, .. } = state;
    Input::ChangesStored { workspace: workspace.clone(), received_to, cursor, walk }
}

/// Whether no row is shown that lies among those of a page of a walk: so it is in a first copy.
fn are_first<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    generation: u32,
    entries: &[Entry],
) -> Result<bool> {
    let [Entry::Row { table, key, .. }, ..] = entries else { return Ok(true) };
    let from = keys::row_key(workspace, generation, table, key);
    let Some(Entry::Row { table, key, .. }) = entries.last() else { return Ok(true) };
    let to = [&*keys::row_key(workspace, generation, table, key), &[0]].concat();
    Ok(state.range(ROWS, &from, &to, false, 1)?.is_empty())
}

/// For each entry of a page the position of the record's newest frame.
fn previous(store: &Store, workspace: &WorkspaceName, entries: &[Entry]) -> Result<Vec<u64>> {
    let newest = store.newest();
    let generation = read::meta(newest, workspace)?.generation;
    let mut previous = Vec::with_capacity(entries.len());
    for Entry::Row { table, key, .. } in entries {
        let row_key = keys::row_key(workspace, generation, table, key);
        previous.push(read::row(newest, &row_key)?.map_or(0, |stored| stored.position));
    }
    Ok(previous)
}

/// What of the old copy must not go with it: rows of local tables, which no page brings, come into
/// the new one, and what the server has lost by a restore is kept as dead letters. From the reset
/// on local writes go into both copies, so a row that was passed is not missed.
fn leave_old_copy(
    store: &mut Store,
    workspace: &WorkspaceName,
    is_local: &dyn Fn(&TableName) -> bool,
    now_ms: i64,
) -> Result<()> {
    let visible = read::meta(store.newest(), workspace)?.generation;
    let lineage = read::lineage(store.newest(), workspace)?.0;
    let mut lost = BTreeMap::new();
    // What is sent again needs no letter.
    let gone = read::meta(store.newest(), workspace)?.gone;
    let waiting = read::outbox(store.newest(), workspace, gone.saturating_add(1), usize::MAX)?;
    let sent: BTreeSet<BatchId> = waiting.into_iter().map(|(_, entry)| entry.batch_id).collect();
    let mut from = keys::rows_prefix(workspace, visible);
    let end = keys::prefix_end(&from);
    loop {
        let newest = store.newest();
        let pairs = newest.range(ROWS, &from, &end, false, MAX_BATCH_OPS)?;
        let mut records = Vec::new();
        for (row_key, _) in &pairs {
            let Some((table, key)) = keys::name_of(row_key) else { continue };
            let stored = read::authority_row(newest, row_key)?;
            // Rows that no authority knows have no seq, also where the table is not declared.
            let seq = stored.as_ref().map(|stored| stored.row.last.seq);
            if is_local(&table) || seq == Some(0) {
                records.push((table, key));
            } else if let Some(stored) = stored.filter(|_| !table.is_reserved())
                && rules::is_lost(stored.row.last.seq, &lineage)
                && !sent.contains(&stored.row.op_id)
            {
                let stored = brought(store, stored, (&table, &key))?;
                dead_letter::add_lost(&mut lost, table, key, &stored);
            }
        }
        if !records.is_empty() {
            let frame = Carried { workspace: workspace.clone(), records };
            append_urgent(store, &Payload::Carried(frame))?;
            store.commit()?;
        }
        match pairs.last() {
            Some((last, _)) if pairs.len() == MAX_BATCH_OPS => {
                from = [last.as_slice(), &[0]].concat();
            }
            _ => break,
        }
    }
    // Newer rows, of pages that waited for their end.
    let prefix = keys::rows_prefix(workspace, visible);
    read::visit_staged(store.newest(), &prefix, &end, &mut |row_key, stored| {
        if let Some((table, key)) = keys::name_of(row_key)
            && !table.is_reserved()
            && rules::is_lost(stored.row.last.seq, &lineage)
            && !sent.contains(&stored.row.op_id)
        {
            dead_letter::add_lost(&mut lost, table, key, &stored);
        }
    })?;
    for frame in dead_letter::of_lost(store.newest(), workspace, &lost, now_ms)? {
        append_urgent(store, &frame)?;
        store.commit()?;
    }
    Ok(())
}

/// The row with the position of the frame that has its value: the newest of the record may be an
/// own write that came to nothing.
fn brought(store: &Store, stored: StoredRow, name: (&TableName, &Key)) -> Result<StoredRow> {
    let (log, seq) = (store.view_handle(), stored.row.stream_seq());
    let mut position = stored.position;
    history::walk(&log, &stored, name, &mut |version, _| {
        if version.seq == Some(seq) {
            position = version.position;
        }
        version.seq.is_none()
    })?;
    Ok(StoredRow { position, ..stored })
}

/// Adds a frame that takes batches off the outbox or tells of the server; a full disk must not
/// stand in its way.
fn append_urgent(store: &mut Store, payload: &Payload) -> Result<u64> {
    Ok(store.append_urgent(payload.kind(), &payload.to_bytes())?)
}

#[cfg(test)]
mod tests {
    use lastword_core::hlc::Hlc;
    use lastword_core::id::{DeviceId, Epoch};
    use lastword_core::op::{Action, Op};
    use lastword_core::protocol::Role;
    use lastword_core::row::Row;
    use lastword_core::rules::{Conflict, Policy, conflict_key, conflict_record};
    use lastword_core::stamp::{Mark, RefusalCode};
    use lastword_core::value::{Record, Value};
    use lastword_store::StoreError;
    use lastword_store::payload::LocalBatch;

    use std::sync::Arc;

    use super::*;
    use crate::database::Database;
    use crate::hook;
    use crate::write::{self, Appended, Author};

    /// B3, R1.2. An app streamed thousands of edits of one record while offline and the server
    /// refused the first: the unit was one frame with a row per batch, over the limit of a frame,
    /// so it was never stored and the device tried again for ever.
    #[test]
    fn a_unit_of_many_batches_leaves_the_outbox() {
        const BATCHES: u64 = 20_000;
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let workspace = db.workspace("main").expect("a name").name().clone();
        let name = workspace.clone();
        let device = db.device();
        let stored = db.inner.writer.run(move |store| {
            let table = TableName::new("notes")?;
            let mut last = 0;
            for counter in 1..=BATCHES {
                let number = Value::Int(i64::try_from(counter).expect("small"));
                let record = Record::new(&[("n".into(), number)])?;
                let action = match counter {
                    1 => Action::Create { record, replace: false },
                    _ => Action::Put { record },
                };
                let key = Key::new("streamed")?;
                let (base, revision, hlc) = (0, counter, Hlc(counter));
                let op = Op { table: table.clone(), key, base, revision, hlc, action };
                let batch = Batch {
                    device,
                    counter,
                    batch_id: batch_id(counter),
                    created_ms: 0,
                    strict: false,
                    former: Vec::new(),
                    ops: vec![op],
                };
                let (local, previous) = (Vec::new(), vec![last]);
                let batch = Some(batch);
                last = store.next_position();
                append_urgent(
                    store,
                    &Payload::Local(LocalBatch { workspace: name.clone(), batch, local, previous }),
                )?;
                store.commit()?;
            }
            let message = "no ".repeat(1000);
            let decision = Decision::Refused { code: RefusalCode::Policy, message, time_ms: 1 };
            let refused = Decided { counter: 1, batch_id: batch_id(1), decision };
            store_decisions(store, &name, vec![refused], 1)
        });
        let stored = stored.expect("the unit is stored");
        assert_eq!((stored.refused, stored.settled.len() as u64), (Some(1), BATCHES));
        assert_eq!((stored.state.decided, stored.state.written), (1, 1));
        let ws = db.workspace("main").expect("a name");
        assert_eq!(ws.dead_letters().expect("they read").len() as u64, BATCHES);
        assert_eq!(ws.status().expect("it reads").undecided, 0);
        let shown = ws.get_record(
            &TableName::new("notes").expect("a name"),
            &Key::new("streamed").expect("a key"),
        );
        assert_eq!(shown.expect("it reads"), None);
    }

    fn note(name: &str) -> (TableName, Key) {
        (TableName::new("notes").unwrap(), Key::new(name).unwrap())
    }

    /// A note that the server sends.
    fn row(name: &str, seq: u64) -> Entry {
        let mark = Mark { seq, writer: DeviceId([8; 16]) };
        let (table, key) = note(name);
        let record = Record::new(&[("text".into(), Value::Text(name.into()))]).unwrap();
        let row = Row {
            deleted: false,
            last: mark,
            time_ms: 1,
            born: mark,
            full: mark,
            fields: Vec::new(),
            revision: 1,
            hlc: Hlc::default(),
            op_id: batch_id(7),
            set_at: 0,
            record,
        };
        Entry::Row { table, key, row }
    }

    fn come_to(input: &Input) -> (u64, u64) {
        let Input::ChangesStored { received_to, cursor, .. } = input else { panic!("{input:?}") };
        (*received_to, *cursor)
    }

    fn batch_id(counter: u64) -> BatchId {
        BatchId(u128::from(counter).to_be_bytes())
    }

    /// A page of rows of `_conflicts`: for each the seq of the op that made it and the device that
    /// lost; the row's own seq follows.
    fn page(from: u64, conflicts: &[(u64, DeviceId)], to: u64) -> Changes {
        let entry = |(seq, loser): &(u64, DeviceId)| {
            let (table, key) = (TableName::new("notes").unwrap(), Key::new("n1").unwrap());
            let (winner, loser) =
                (Mark { seq: *seq, writer: DeviceId([8; 16]) }, Mark { seq: 1, writer: *loser });
            let (reason, fields) = ("overwritten", Vec::new());
            let (winner_deletes, loser_deletes) = (false, false);
            let conflict =
                Conflict { winner, loser, reason, loser_deletes, winner_deletes, fields };
            let record = conflict_record(&table, &key, &conflict, Policy::Arrival, 1);
            let mark = Mark { seq: seq + 1, writer: DeviceId::AUTHORITY };
            let row = Row {
                deleted: false,
                last: mark,
                time_ms: 1,
                born: mark,
                full: mark,
                fields: Vec::new(),
                set_at: 0,
                revision: 1,
                hlc: Hlc::default(),
                op_id: BatchId::default(),
                record,
            };
            let key = conflict_key(&table, &key, &conflict);
            Entry::Row { table: TableName::new("_conflicts").unwrap(), key, row }
        };
        let entries = conflicts.iter().map(entry).collect();
        last_page(from, to, entries)
    }

    /// B3, R1.2, section 6. The story: the dead letter of what a restored server had lost pointed
    /// to a page that was received, and was refused as one that a salvage could not read. It is
    /// sent again with its values, each letter once, also where the rows came in several pages.
    #[test]
    fn what_a_server_lost_is_sent_again_from_its_dead_letters() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let (name, jump) = (ws.name().clone(), 1 << 20);
        let reset = attached(9, Some(ResetReason::OtherHistory), 0, jump);
        let receive = move |store: &mut Store| {
            store_changes(store, &name, last_page(0, 2, vec![row("a", 2)]), &|_| false, 1)?;
            store_changes(store, &name, last_page(2, 3, vec![row("b", 3)]), &|_| false, 1)?;
            store_attached(store, &name, reset, &Declared::default(), 1)?;
            store_changes(store, &name, last_page(0, jump, Vec::new()), &|_| false, 1)
        };
        db.inner.writer.run(receive).expect("it is stored");
        let letters = ws.dead_letters().expect("they read");
        let units: Vec<BatchId> = letters.iter().map(|letter| letter.unit).collect();
        assert_eq!(units, [batch_id(7); 2], "one unit, in two frames");
        let sent = ws.retry_dead_letter(batch_id(7)).expect("it is sent");
        assert_eq!((sent.len(), ws.dead_letters().expect("they read").len()), (2, 0));
        for key in ["a", "b"] {
            let (table, key) = note(key);
            let shown = ws.get_record(&table, &key).expect("it reads").expect("it is there");
            assert_eq!(shown.record.get("text"), Some(Value::Text(key.as_str().into())));
        }
        assert_eq!(ws.status().expect("it reads").undecided, 2);
    }

    /// I4, I19, rule 11.3. Seed 1290 of the simulator: the last page of a reset found no room
    /// after the dead letters of what was lost were written. They were sent again, the page came
    /// once more and the letters with it, and a second batch went out under the same id.
    #[test]
    fn what_was_lost_becomes_dead_letters_once_although_the_last_page_comes_twice() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let (name, jump) = (ws.name().clone(), 1 << 20);
        let (first, last) = (last_page(0, 2, vec![row("a", 2)]), last_page(0, jump, Vec::new()));
        let reset = attached(9, Some(ResetReason::OtherHistory), 0, jump);
        let found_no_room = {
            let name = name.clone();
            move |store: &mut Store| {
                store_changes(store, &name, first, &|_| false, 1)?;
                store_attached(store, &name, reset, &Declared::default(), 1)?;
                leave_old_copy(store, &name, &|_| false, 1)
            }
        };
        db.inner.writer.run(found_no_room).expect("it is stored");
        let sent = ws.retry_dead_letter(batch_id(7)).expect("it is sent");
        let again = move |store: &mut Store| store_changes(store, &name, last, &|_| false, 1);
        db.inner.writer.run(again).expect("it is stored");
        let letters = ws.dead_letters().expect("they read").len();
        let undecided = ws.status().expect("it reads").undecided;
        assert_eq!((sent.len(), letters, undecided), (1, 0, 1));

        // More of the batch, in another frame, is lost by a later restore.
        let Entry::Row { table, key, row } = row("b", 3);
        let mut lost = dead_letter::Lost::new();
        let stored = StoredRow { position: u64::MAX, row };
        dead_letter::add_lost(&mut lost, table, key, &stored);
        let frames = dead_letter::of_lost(&*db.view(), ws.name(), &lost, 1).expect("it reads");
        let [Payload::Local(frame)] = &frames[..] else { panic!("{frames:?}") };
        let keys: Vec<&str> = frame.local.iter().map(|op| op.key.as_str()).collect();
        assert_eq!(keys, [batch_id(7).part(1).to_string()]);
    }

    /// R2.2, B2. A walk is stored page by page, and only as it goes on; what changed meanwhile
    /// comes again behind it, and is one version.
    #[test]
    fn a_walk_is_stored_as_it_goes_on() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let walk = |after: Option<&str>, is_last, entries: Vec<Entry>| {
            let (name, after) = (ws.name().clone(), after.map(note));
            let page = WalkPage { attachment: 1, base: 4, after, is_last, entries };
            let stored =
                db.inner.writer.run(move |store| store_walk(store, &name, page, &|_| false));
            let Input::ChangesStored { received_to, walk, .. } = stored.expect("it is stored")
            else {
                panic!("a page is stored")
            };
            (received_to, walk.map(|place| place.key.as_str().to_owned()))
        };
        let at = |name: &str| (0, Some(name.to_owned()));
        assert_eq!(walk(None, false, vec![row("a", 2), row("b", 6)]), at("b"));
        assert_eq!(walk(Some("a"), false, vec![row("x", 1)]), at("b"), "it does not follow");
        assert_eq!(walk(Some("b"), false, vec![row("c", 1)]), at("c"));
        assert_eq!(walk(Some("c"), true, vec![row("d", 3)]), (4, None));
        assert_eq!(walk(None, false, vec![row("y", 1)]), (4, None), "there is a copy");
        let end = Changes {
            attachment: 1,
            from: 4,
            to: 6,
            consistent_at: Some(6),
            entries: vec![row("b", 6)],
        };
        let name = ws.name().clone();
        let job = move |store: &mut Store| store_changes(store, &name, end, &|_| false, 1);
        assert_eq!(come_to(&db.inner.writer.run(job).expect("it is stored")), (6, 6));
        let shown = |name: &str| {
            let (table, key) = note(name);
            ws.get_record(&table, &key).expect("it reads").is_some()
        };
        let names = ["a", "b", "c", "d", "x", "y"];
        assert_eq!(names.map(shown), [true, true, true, true, false, false]);
        let (table, key) = note("b");
        assert_eq!(ws.record_history(&table, &key).expect("it reads").versions.len(), 1);
    }

    /// I25, semantics 3: conflicts of a first copy are old news, those of others nobody's here, and
    /// rows that come a second time, as they do with a reset, are not told again; neither is
    /// anything after a restart. What was received by a process without a hook is told by the next.
    #[test]
    fn a_conflict_is_told_once_however_often_its_row_comes() {
        let dir = tempfile::tempdir().expect("a folder");
        let other = DeviceId([7; 16]);
        let receive = |db: &Database, page: Changes| {
            let workspace = db.workspace("main").unwrap().name().clone();
            let name = workspace.clone();
            let job = move |store: &mut Store| store_changes(store, &name, page, &|_| false, 1);
            db.inner.writer.run(job).unwrap();
            lost::look(db, &workspace);
        };
        // A later event of another hook says that all before it were told.
        let hear = |db: &Database| {
            let (told, heard) = std::sync::mpsc::channel();
            let (told, end) = (std::sync::Mutex::new(told.clone()), std::sync::Mutex::new(told));
            let lost = move |lost: &hook::Lost| {
                let seq = lost.conflict.winning_seq;
                told.lock().unwrap().send(Some(seq)).unwrap();
            };
            db.hooks().action(hook::SYNC_CONFLICT_DETECTED, lost).unwrap();
            let full = move |_: &hook::QueueFull| end.lock().unwrap().send(None).unwrap();
            db.hooks().action(hook::SYNC_QUEUE_FULL, full).unwrap();
            heard
        };
        type Heard = std::sync::mpsc::Receiver<Option<u64>>;
        let by_now = |db: &Database, heard: &Heard| -> Vec<u64> {
            let workspace = db.workspace("main").unwrap().name().clone();
            let event = || hook::QueueFull { workspace, batches: 0, limit: 0 };
            db.inner.hooks.raise(hook::SYNC_QUEUE_FULL, event);
            std::iter::from_fn(|| heard.recv().expect("the hooks run")).collect()
        };
        let open = || Database::open(dir.path().join("db")).expect("it opens");

        let db = open();
        let own = db.device();
        let heard = hear(&db);
        receive(&db, page(0, &[(3, own), (5, other)], 6));
        assert_eq!(by_now(&db, &heard), [0; 0], "a first copy");
        receive(&db, page(6, &[(7, other), (9, own)], 10));
        assert_eq!(by_now(&db, &heard), [9]);
        receive(&db, page(10, &[(3, own), (9, own), (11, own)], 12));
        assert_eq!(by_now(&db, &heard), [11], "rows that came before");
        db.close().expect("it closes");

        let db = open();
        receive(&db, page(12, &[(13, own), (15, own), (17, other)], 18));
        db.close().expect("it closes");
        for expected in [&[13, 15][..], &[]] {
            let db = open();
            let heard = hear(&db);
            assert_eq!(by_now(&db, &heard), expected);
            db.close().expect("it closes");
        }
    }

    fn attached(epoch: u8, reset: Option<ResetReason>, horizon: u64, head: u64) -> Attached {
        Attached {
            attachment: 1,
            epoch: Epoch([epoch; 16]),
            lineage: if epoch == 9 { vec![(0, 1 << 20)] } else { Vec::new() },
            schema: Vec::new(),
            head,
            horizon,
            role: Role::Editor,
            reset,
            cover: [0; 16],
            last_counter: 0,
            decisions: Vec::new(),
        }
    }

    fn empty_page(from: u64, to: u64) -> Changes {
        Changes { attachment: 1, from, to, consistent_at: None, entries: Vec::new() }
    }

    /// A page behind which nothing is left.
    fn last_page(from: u64, to: u64, entries: Vec<Entry>) -> Changes {
        Changes { consistent_at: Some(to), entries, ..empty_page(from, to) }
    }

    fn put_note(ws: &crate::Workspace, name: &str) -> BatchId {
        let record = Record::new(&[("text".into(), Value::Text("mine".into()))]).unwrap();
        let (table, key) = (TableName::new("notes").unwrap(), Key::new(name).unwrap());
        let put = |tx: &mut crate::Tx| tx.put_record(&table, &key, record.clone());
        ws.write(put).expect("it is written").batch_id().expect("it syncs")
    }

    /// I4, rule 11.3. The story: a server was restored, and while the device took its history anew
    /// the horizon moved. What waited was marked as sent again by then, so batches that nobody was
    /// ever sent became dead letters of unknown outcome.
    #[test]
    fn what_was_never_sent_is_not_of_unknown_outcome_because_the_horizon_moved() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let (name, jump) = (ws.name().clone(), 1 << 20);
        let stored = db.inner.writer.run({
            let name = name.clone();
            move |store| {
                let none = Declared::default();
                store_attached(store, &name, attached(8, None, 0, 3), &none, 1)?;
                let mut page = empty_page(0, 3);
                page.consistent_at = Some(3);
                store_changes(store, &name, page, &|_| false, 1)
            }
        });
        assert_eq!(come_to(&stored.expect("it is stored")), (3, 3));
        put_note(&ws, "n1");
        let stored = db.inner.writer.run(move |store| {
            let none = Declared::default();
            let restored = attached(9, Some(ResetReason::OtherHistory), 0, jump);
            store_attached(store, &name, restored, &none, 1)?;
            store_changes(store, &name, empty_page(0, 5), &|_| false, 1)?;
            let behind = attached(9, Some(ResetReason::BehindHorizon), 10, jump);
            store_attached(store, &name, behind, &none, 1)
        });
        assert_eq!(stored.expect("it is stored").settled, []);
        assert_eq!(ws.dead_letters().expect("they read"), []);
        assert_eq!(ws.status().expect("it reads").undecided, 1);
    }

    /// R4.2, rule 11.3. The story: a first copy was half there when the server was restored. A
    /// batch of the device was in it and still in the outbox: it was sent again, and was a dead
    /// letter that could be sent again too.
    #[test]
    fn what_is_sent_again_after_a_restore_is_no_dead_letter() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let (name, jump) = (ws.name().clone(), 1 << 20);
        let batch_id = put_note(&ws, "n1");
        let device = db.device();
        let record = Record::new(&[("text".into(), Value::Text("mine".into()))]).unwrap();
        let mark = Mark { seq: 2, writer: device };
        let row = Row {
            deleted: false,
            last: mark,
            time_ms: 1,
            born: mark,
            full: mark,
            fields: Vec::new(),
            set_at: 0,
            revision: 1,
            hlc: Hlc::default(),
            op_id: batch_id,
            record,
        };
        let (table, key) = (TableName::new("notes").unwrap(), Key::new("n1").unwrap());
        let entry = Entry::Row { table, key, row };
        let stored = db.inner.writer.run(move |store| {
            let none = Declared::default();
            store_attached(store, &name, attached(8, None, 0, 9), &none, 1)?;
            let page = Changes { entries: vec![entry], ..empty_page(0, 3) };
            store_changes(store, &name, page, &|_| false, 1)?;
            let restored = attached(9, Some(ResetReason::OtherHistory), 0, jump);
            store_attached(store, &name, restored, &none, 1)?;
            let page = last_page(0, jump, Vec::new());
            store_changes(store, &name, page, &|_| false, 1)
        });
        assert_eq!(come_to(&stored.expect("it is stored")), (jump, jump));
        assert_eq!(ws.dead_letters().expect("they read"), []);
        assert_eq!(ws.status().expect("it reads").undecided, 1);
    }

    /// Rule 14.7. The story: a device was taking a workspace anew when its app declared a table
    /// local of which only the new copy had rows of the server. Only the visible copy was looked
    /// at, so the declaration was taken, and rows of the server were in a table that never leaves
    /// the device.
    #[test]
    fn a_table_of_which_the_new_copy_has_rows_is_synced() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let name = db.workspace("main").expect("a name").name().clone();
        let mark = Mark { seq: 2, writer: DeviceId([8; 16]) };
        let row = Row {
            deleted: false,
            last: mark,
            time_ms: 1,
            born: mark,
            full: mark,
            fields: Vec::new(),
            revision: 1,
            hlc: Hlc::default(),
            op_id: batch_id(7),
            set_at: 0,
            record: Record::default(),
        };
        let (table, key) = (TableName::new("drafts").unwrap(), Key::new("d1").unwrap());
        let synced = db.inner.writer.run(move |store| {
            let none = Declared::default();
            store_attached(store, &name, attached(8, None, 0, 3), &none, 1)?;
            let page = last_page(0, 3, Vec::new());
            store_changes(store, &name, page, &|_| false, 1)?;
            let behind = attached(8, Some(ResetReason::BehindHorizon), 10, 20);
            store_attached(store, &name, behind, &none, 1)?;
            let before = read::is_synced(store.newest(), &table)?;
            let entries = vec![Entry::Row { table: table.clone(), key, row }];
            let page = Changes { entries, ..empty_page(0, 5) };
            store_changes(store, &name, page, &|_| false, 1)?;
            Ok((before, read::is_synced(store.newest(), &table)?))
        });
        assert_eq!(synced.expect("it is stored"), (false, true));
    }

    /// I4, rule 8.2. The story: a device was taking everything anew, since it was behind the
    /// horizon, when it found that a copy of it had written under its id. A batch that the server
    /// had accepted by then, verdict and all, became a dead letter of unknown outcome, and a retry
    /// applied it twice.
    #[test]
    fn what_was_accepted_is_no_dead_letter_after_a_fork_in_a_reset() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let name = ws.name().clone();
        let accepted = put_note(&ws, "n1");
        let unknown = put_note(&ws, "n2");
        let stored = db.inner.writer.run(move |store| {
            let none = Declared::default();
            store_attached(store, &name, attached(8, None, 0, 3), &none, 1)?;
            let page = last_page(0, 3, Vec::new());
            store_changes(store, &name, page, &|_| false, 1)?;
            let behind = attached(8, Some(ResetReason::BehindHorizon), 10, 20);
            store_attached(store, &name, behind, &none, 1)?;
            let verdicts = vec![lastword_core::stamp::Verdict::Applied { dropped: Vec::new() }];
            let (first_seq, last_seq, time_ms) = (21, 21, 1);
            let decision = Decision::Accepted { first_seq, last_seq, time_ms, verdicts };
            let decided = Decided { counter: 1, batch_id: accepted, decision };
            store_decisions(store, &name, vec![decided], 1)?;
            store_fork(store, DeviceId([7; 16]), 1)?;
            let stored = store_attached(store, &name, attached(8, None, 10, 21), &none, 1)?;
            Ok((stored.settled, read::outbox(store.newest(), &name, 0, usize::MAX)?.len()))
        });
        let (settled, waiting) = stored.expect("it is stored");
        let [(batch_id, Decision::Refused { code, .. })] = settled.as_slice() else {
            panic!("{settled:?}");
        };
        assert_eq!((*batch_id, *code, waiting), (unknown, RefusalCode::OutcomeUnknown, 0));
        let letters = ws.dead_letters().expect("they read");
        assert_eq!(letters.iter().map(|letter| letter.batch_id).collect::<Vec<_>>(), [unknown]);
    }

    /// I1, rule 11.4. The story: a device wrote on top of a row, and that was refused. When a
    /// restored server had lost the row, its dead letter named the frame of the refused write,
    /// which does not have it, and could not be sent again.
    #[test]
    fn a_lost_row_is_sent_again_from_the_page_that_brought_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let name = ws.name().clone();
        let by = Mark { seq: 3, writer: DeviceId([3; 16]) };
        let row = Row {
            deleted: false,
            last: by,
            time_ms: 1,
            born: by,
            full: by,
            fields: Vec::new(),
            revision: 1,
            hlc: Hlc::default(),
            op_id: batch_id(7),
            set_at: 0,
            record: Record::default(),
        };
        let (table, key) = (TableName::new("notes").unwrap(), Key::new("n1").unwrap());
        let workspace = name.clone();
        let received = db.inner.writer.run(move |store| {
            store_attached(store, &workspace, attached(8, None, 0, 3), &Declared::default(), 1)?;
            let entries = vec![Entry::Row { table, key, row }];
            let page = last_page(0, 3, entries);
            store_changes(store, &workspace, page, &|_| false, 1)
        });
        assert_eq!(come_to(&received.expect("it is stored")), (3, 3));
        let refused = put_note(&ws, "n1");
        let reset = db.inner.writer.run(move |store| {
            let (code, message, time_ms) = (RefusalCode::Policy, "no".to_owned(), 1);
            let decision = Decision::Refused { code, message, time_ms };
            let refused = Decided { counter: 1, batch_id: refused, decision };
            store_decisions(store, &name, vec![refused], 1)?;
            store.commit()?;
            let restored = attached(9, Some(ResetReason::OtherHistory), 0, 1 << 20);
            store_attached(store, &name, restored, &Declared::default(), 1)?;
            let page = last_page(0, 1 << 20, Vec::new());
            store_changes(store, &name, page, &|_| false, 1)
        });
        assert_eq!(come_to(&reset.expect("it is stored")), (1 << 20, 1 << 20));
        let sent = ws.retry_dead_letter(batch_id(7)).expect("its row is found");
        assert_eq!(sent.len(), 1);
    }

    /// I21, rule 11.2. The story: a page did not fit on a full disk, and what the server said
    /// behind it did: that it had forgotten the tombstones of that page. The device seemed to have
    /// them when it came again, and showed the deleted record for good.
    #[test]
    fn a_horizon_is_not_known_before_the_pages_up_to_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let name = ws.name().clone();
        let known = db.inner.writer.run(move |store| {
            store_attached(store, &name, attached(8, None, 0, 3), &Declared::default(), 1)?;
            let page = last_page(0, 3, Vec::new());
            store_changes(store, &name, page, &|_| false, 1)?;
            let before = store_horizon(store, &name, 5)?;
            let state = workspace_state(store.newest(), &name)?;
            let page = last_page(3, 5, Vec::new());
            store_changes(store, &name, page, &|_| false, 1)?;
            let after = store_horizon(store, &name, 5)?;
            Ok([before, state.horizon, after, workspace_state(store.newest(), &name)?.horizon])
        });
        assert_eq!(known.expect("it is stored"), [0, 0, 5, 5]);
    }

    /// I18, rule 8.2. The story: what the server had accepted left the outbox of a device that had
    /// forked and was behind the horizon, and with it what the app was shown: a new record was gone
    /// until the new copy was whole.
    #[test]
    fn what_was_accepted_stays_shown_after_a_fork_in_a_reset() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let name = ws.name().clone();
        let accepted = put_note(&ws, "n1");
        let (notes, key) = (TableName::new("notes").unwrap(), Key::new("n1").unwrap());
        let seen = db.inner.writer.run(move |store| {
            let none = Declared::default();
            let row_key = keys::row_key(&name, 0, &notes, &key);
            let shown = |store: &Store| {
                let stored = read::row(store.newest(), &row_key)?;
                Ok::<_, StoreError>(stored.map(|stored| (stored.row.record, stored.row.last.seq)))
            };
            store_attached(store, &name, attached(8, None, 0, 3), &none, 1)?;
            let page = last_page(0, 3, Vec::new());
            store_changes(store, &name, page, &|_| false, 1)?;
            let verdicts = vec![lastword_core::stamp::Verdict::Applied { dropped: Vec::new() }];
            let (first_seq, last_seq, time_ms) = (21, 21, 1);
            let decision = Decision::Accepted { first_seq, last_seq, time_ms, verdicts };
            let decided = Decided { counter: 1, batch_id: accepted, decision };
            store_decisions(store, &name, vec![decided], 1)?;
            let before = shown(store)?;
            store_fork(store, DeviceId([7; 16]), 1)?;
            let behind = attached(8, Some(ResetReason::BehindHorizon), 10, 21);
            store_attached(store, &name, behind, &none, 1)?;
            let waiting = read::outbox(store.newest(), &name, 0, usize::MAX)?.len();
            let row = read::row(store.newest(), &row_key)?;
            let meta = read::meta(store.newest(), &name)?;
            let base = crate::write::base_of(store.newest(), &meta, &row_key, row.as_ref())?;
            Ok((before, shown(store)?, waiting, base))
        });
        let (before, after, waiting, base) = seen.expect("it is stored");
        assert_eq!((before.as_ref().map(|(_, seq)| *seq), waiting), (Some(21), 0));
        assert_eq!(after, before);
        assert_eq!(base, 3, "the app has seen nothing of seqs 4 to 20");
    }

    /// Rule 8.7. The story: in one group of the writer a write took in the batch before it, and one
    /// of another record followed. Only that one was noted, so a session that read the outbox
    /// before the group was durable was handed the batch that had been taken in.
    #[test]
    fn a_batch_that_is_taken_in_is_not_handed_before_that_shows() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let (name, unsent) = (ws.name().clone(), Arc::clone(&db.inner.unsent));
        let options = crate::WriteOptions::default().squash();
        let draft = |text: &str, of: &str| {
            let declared = Arc::clone(&db.inner.declared);
            let mut tx = crate::Tx::new(&name, db.view(), declared).expect("it begins");
            let record = Record::new(&[("text".into(), Value::Text(text.into()))]).unwrap();
            let (table, key) = (TableName::new("notes").unwrap(), Key::new(of).unwrap());
            tx.put_record(&table, &key, record).expect("it fits");
            tx.into_draft().0
        };
        let append = move |store: &mut Store, draft: &write::Draft, id: u64, unsent: &Unsent| {
            let (is_local, last_hlc) = (&|_: &TableName| false, &mut Hlc::default());
            let author = Author { is_local, last_hlc, max_undecided: 9, unsent, options };
            write::append(store, draft, batch_id(id), 1, author)
        };
        let ids = |batches: Vec<Batch>| -> Vec<BatchId> {
            batches.into_iter().map(|batch| batch.batch_id).collect()
        };
        let first = draft("a", "m1");
        let noted = Arc::clone(&unsent);
        let written = db.inner.writer.run(move |store| append(store, &first, 1, &noted));
        assert!(matches!(written, Ok(Appended::Synced(_, None))));
        let (second, third) = (draft("b", "m1"), draft("c", "m2"));
        let (workspace, noted) = (name.clone(), Arc::clone(&unsent));
        let handed = db.inner.writer.run(move |store| {
            let squashed = append(store, &second, 2, &noted)?;
            assert!(matches!(squashed, Appended::Synced(_, Some(id)) if id == batch_id(1)));
            append(store, &third, 3, &noted)?;
            read_outbox(&store.view_handle(), &noted, &workspace, 0, 9)
        });
        assert_eq!(handed.expect("it reads"), [], "the view still shows the batch that is gone");
        let handed = read_outbox(db.inner.writer.views(), &unsent, &name, 0, 9);
        assert_eq!(ids(handed.expect("it reads")), [batch_id(2), batch_id(3)]);
    }

    /// I22, rule 8.2. The story: a database had two connections when one of them found that its
    /// device id was in use elsewhere. What the other one was told under the old id was stored for
    /// the outbox of the new one where the counters matched, and then the server's history seemed
    /// to have nothing to do with it.
    #[test]
    fn what_is_told_to_a_former_device_is_not_stored() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path()).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let (name, was) = (ws.name().clone(), db.device());
        put_note(&ws, "n1");
        let told = db.inner.writer.run(move |store| {
            assert!(of_another(store.newest(), &name, was)?.is_none());
            store_fork(store, DeviceId([7; 16]), 1)?;
            of_another(store.newest(), &name, was)
        });
        let told = told.expect("it is stored").expect("nothing is stored for a former device");
        assert_eq!((told.state.decided, told.state.written, told.settled), (0, 1, vec![]));
    }
}
