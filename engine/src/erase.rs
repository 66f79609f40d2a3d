//! Erasing a record, for people who must: no version of it stays readable here or on any device
//! that syncs, and its bytes leave the files of the store.
//!
//! The record becomes a tombstone without a value, so the erasure reaches every device as a row.
//! Its bytes go in four steps, each of which may run beside commits: the segment ends and a
//! checkpoint is made, the log before is folded away, the state file is made anew, and the log is
//! told that this is done. Until then a restart begins again.

use std::time::{Duration, Instant};

use lastword_core::id::{Key, TableName, WorkspaceName};
use lastword_core::limits::MAX_BATCH_OPS;
use lastword_core::value::Value;
use lastword_store::payload::{Erasure, Payload, Purge, PurgePart};
use lastword_store::read::{self, ReadState};
use lastword_store::{Store, StoreError, keys};

use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::survivors;
use crate::tables;

/// How long the bytes of an erased record may stay in the files, unless said otherwise.
pub const DEFAULT_ERASE_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// The log is asked this often whether something waits for its bytes to go.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What could not go, because an outbox or another copy still has it, is tried again after this
/// long.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// What [`crate::Authority::erase`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Seq of the erasure.
    pub seq: u64,
    /// Conflict rows that showed values of the record and went with it.
    pub conflicts: u64,
}

/// Erases a record and the conflict rows that show its values.
pub(crate) fn erase_now(
    store: &mut Store,
    workspace: &WorkspaceName,
    (table, key): (&TableName, &Key),
    now_ms: i64,
) -> Result<Erased> {
    let meta = read::meta(store.newest(), workspace)?;
    let row_key = keys::row_key(workspace, meta.generation, table, key);
    if table.is_reserved() || read::row(store.newest(), &row_key)?.is_none() {
        let (workspace, table, key) = (workspace.clone(), table.clone(), key.clone());
        return Err(Error::UnknownRecord { workspace, table, key });
    }
    let shown = conflicts_of(store.newest(), workspace, meta.generation, table, key)?;
    let records: Vec<_> = [(table.clone(), key.clone())].into_iter().chain(shown).collect();
    let (seq, time_ms) = (meta.head + 1, now_ms.max(meta.time_ms));
    let mut first_seq = seq;
    for records in records.chunks(MAX_BATCH_OPS) {
        let (workspace, records) = (workspace.clone(), records.to_vec());
        let len = records.len() as u64;
        let payload = Payload::Erasure(Erasure { workspace, first_seq, time_ms, records });
        store.append_urgent(payload.kind(), &payload.to_bytes())?;
        first_seq += len;
    }
    survivors::forget(store, workspace, table, key)?;
    Ok(Erased { seq, conflicts: records.len() as u64 - 1 })
}

fn conflicts_of<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    generation: u32,
    table: &TableName,
    key: &Key,
) -> Result<Vec<(TableName, Key)>> {
    let prefix = keys::table_prefix(workspace, generation, &tables::conflicts());
    let mut found = Vec::new();
    read::visit_stored(
        state,
        &prefix,
        &keys::prefix_end(&prefix),
        &mut |conflicts, row, stored| {
            let names = |field: &str, name: &str| match stored.row.record.get(field) {
                Some(Value::Text(text)) => text == name,
                _ => false,
            };
            if names("table", table.as_str()) && names("key", key.as_str()) {
                found.push((conflicts, row));
            }
        },
    )?;
    Ok(found)
}

/// What has to be done next so that erased bytes leave the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, or not yet.
    Rest,
    /// A checkpoint of what is in the log.
    Checkpoint,
    /// A fold of the log before it.
    Fold,
    /// A new state file.
    Rebuild,
}

/// The way of erased bytes out of the files of one store.
#[derive(Debug)]
pub(crate) struct Erasing {
    within_ms: i64,
    rests_until: Instant,
    /// What waits, by the position that it was noted with, and the segment that begins behind it.
    ended: Option<(u64, u64)>,
    folded: bool,
    rebuilt: bool,
}

impl Erasing {
    pub(crate) fn new(within: Duration) -> Self {
        Erasing {
            within_ms: i64::try_from(within.as_millis()).unwrap_or(i64::MAX),
            rests_until: Instant::now(),
            ended: None,
            folded: false,
            rebuilt: false,
        }
    }

    /// The next step, to be asked for when nothing runs beside the writer.
    pub(crate) fn next(&mut self, store: &mut Store) -> Result<Step, StoreError> {
        if Instant::now() < self.rests_until {
            return Ok(Step::Rest);
        }
        let waiting = read::erasure(store.newest())?
            .filter(|erasure| now_ms().saturating_sub(erasure.since_ms) >= self.within_ms);
        let Some(erasure) = waiting else {
            self.rests_until = Instant::now() + LOOK_EVERY;
            return Ok(Step::Rest);
        };
        if has_other_copies(store.newest())? {
            self.rests_until = Instant::now() + AGAIN;
            return Ok(Step::Rest);
        }
        let before = erasure.before;
        let is_known = self.ended.is_some_and(|(known, _)| known == before);
        if !is_known {
            (self.folded, self.rebuilt) = (false, false);
            store.end_segment()?;
            self.ended = Some((before, store.next_position()));
            append(store, PurgePart::Clock { now_ms: read::retention_clock(store.newest())? })?;
            return Ok(Step::Checkpoint);
        }
        let behind = self.ended.map_or(0, |(_, behind)| behind);
        if store.first_position() < before {
            if store.checkpointed_to() < behind {
                return Ok(Step::Checkpoint);
            }
            if !std::mem::replace(&mut self.folded, true) {
                return Ok(Step::Fold);
            }
            (self.ended, self.rests_until) = (None, Instant::now() + AGAIN);
            return Ok(Step::Rest);
        }
        if !self.rebuilt {
            return Ok(Step::Rebuild);
        }
        self.ended = None;
        append(store, PurgePart::Erased { before })?;
        Ok(Step::Rest)
    }

    /// The state was made anew; whether that was for this is known from the step before.
    pub(crate) fn rebuilt(&mut self, store: &Store) {
        let clean = self.ended.is_some_and(|(before, _)| store.first_position() >= before);
        self.rebuilt |= clean;
    }
}

/// Tells the log that erased bytes have left the files, after a fold and a rebuild of all there is.
pub(crate) fn confirm(store: &mut Store) -> Result<(), StoreError> {
    match read::erasure(store.newest())? {
        Some(erasure)
            if store.first_position() >= erasure.before && !has_other_copies(store.newest())? =>
        {
            append(store, PurgePart::Erased { before: erasure.before })
        }
        _ => Ok(()),
    }
}

/// Whether a workspace has rows beside those of one copy: the other one may hold what was erased,
/// and a base that is made now would keep it.
fn has_other_copies<S: ReadState>(state: &S) -> Result<bool, StoreError> {
    for (workspace, _) in read::workspaces(state)? {
        if read::reset(state, &workspace)?.is_some()
            || read::left_generation(state, &workspace)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn append(store: &mut Store, part: PurgePart) -> Result<(), StoreError> {
    let payload = Payload::Purge(Purge { workspace: read::store_workspace(), part });
    store.append_urgent(payload.kind(), &payload.to_bytes())?;
    store.commit().map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lastword_core::hlc::Hlc;
    use lastword_core::id::{DeviceId, Epoch};
    use lastword_core::op::{Action, Op};
    use lastword_core::protocol::Role;
    use lastword_core::value::Record;
    use lastword_store::apply::ApplyPayload;
    use lastword_store::payload::{Attachment, Identity, RemotePage, Reset, StoreRole};
    use lastword_store::purge::{Found, PurgeWalk, Retention};
    use lastword_store::{MemoryDisk, Options};

    use super::*;
    use crate::upkeep::fold_now;

    fn main() -> WorkspaceName {
        WorkspaceName::new("main").expect("a name")
    }

    fn say(store: &mut Store, payload: &Payload) {
        store.append_urgent(payload.kind(), &payload.to_bytes()).expect("the disk works");
        store.commit().expect("the disk works");
    }

    fn store(role: StoreRole) -> Store {
        let apply = Arc::new(ApplyPayload::default());
        let disk = Arc::new(MemoryDisk::new(1 << 16));
        let options = Options { segment_size: 1 << 16, ..Options::default() };
        let mut store = Store::open(disk, options, apply).expect("it opens").0;
        let device = DeviceId([1; 16]);
        say(
            &mut store,
            &Payload::Identity(Identity { role, device, former: Vec::new(), created_ms: 0 }),
        );
        let (workspace, epoch, role) = (main(), Epoch([1; 16]), Role::Owner);
        let met = Attachment { workspace, epoch, role, horizon: 0 };
        say(&mut store, &Payload::Attachment(met));
        store
    }

    /// The authority's rows as pages; the last is consistent.
    fn pages(authority: &Store, cut: bool) -> Vec<RemotePage> {
        let page = read::changes(authority.newest(), &main(), 0, "ann").expect("it reads");
        let (previous, consistent_at) = (vec![0; page.entries.len()], page.consistent_at);
        let (workspace, entries, to) = (main(), page.entries, page.to);
        let whole =
            RemotePage { workspace, from: 0, to, consistent_at, entries, previous, walk: None };
        match cut {
            false => vec![whole],
            true => {
                let (from, entries, previous) = (to, Vec::new(), Vec::new());
                let last = RemotePage { from, entries, previous, ..whole.clone() };
                vec![RemotePage { consistent_at: None, ..whole }, last]
            }
        }
    }

    /// R7.4. The story: a new copy had the erasure and was not whole yet, so the old one still held
    /// the value; the log was folded and told that the bytes were gone, and the base kept them
    /// until another fold, which a device that writes little may never need.
    #[test]
    fn erased_bytes_are_not_gone_while_an_old_copy_has_them() {
        let mut authority = store(StoreRole::Authority);
        let (table, key) =
            (TableName::new("notes").expect("a name"), Key::new("a").expect("a key"));
        let record = Record::new(&[("text".into(), Value::Text("secret".into()))]).expect("small");
        let action = Action::Create { record, replace: false };
        let (base, revision, hlc) = (0, 1, Hlc(1));
        let op = Op { table: table.clone(), key: key.clone(), base, revision, hlc, action };
        let batch = lastword_core::op::Batch {
            device: DeviceId([2; 16]),
            counter: 1,
            batch_id: lastword_core::id::BatchId([2; 16]),
            created_ms: 0,
            strict: false,
            former: Vec::new(),
            ops: vec![op],
        };
        let (user, gate) = ("ann".into(), crate::push_gate::PushGate::default());
        let pushed = crate::push_gate::Queued::new(user, batch, gate);
        pushed
            .decide(&mut authority, &main(), &crate::judge::House::default(), 1)
            .expect("it is decided");
        let mut device = store(StoreRole::Replica);
        for page in pages(&authority, false) {
            say(&mut device, &Payload::Remote(page));
        }
        erase_now(&mut authority, &main(), (&table, &key), 1).expect("it is erased");
        let (workspace, epoch, role) = (main(), Epoch([1; 16]), Role::Owner);
        let (horizon, lineage, other_history) = (1, Vec::new(), None);
        let reset = Reset { workspace, epoch, role, horizon, lineage, other_history };
        say(&mut device, &Payload::Reset(reset));
        let waits = |store: &mut Store| {
            let next = Erasing::new(Duration::ZERO).next(store).expect("it reads");
            fold_now(store, Duration::ZERO).expect("it folds");
            let waits = read::erasure(store.newest()).expect("it reads").is_some();
            (next, waits)
        };
        for page in pages(&authority, true) {
            say(&mut device, &Payload::Remote(page));
            assert_eq!(waits(&mut device), (Step::Rest, true));
        }
        let retention = Retention { now_ms: 0, tombstones_ms: 0, decisions_ms: 0, stale: false };
        let mut walk = PurgeWalk::new(main());
        while let Found::Purge(purge) = walk.next(device.newest(), &retention).expect("it reads") {
            say(&mut device, &Payload::Purge(purge));
        }
        assert_eq!(waits(&mut device), (Step::Checkpoint, false), "now they are gone");
    }
}
