//! What the authority decides about one batch, on the writer thread and on the newest state: batch
//! identity, counter, limits, then each op by [`lastword_core::rules::decide`].
//!
//! The frame holds ops, stamps and verdicts together, so a batch is in the log as a whole or not at
//! all, and its decision is found again whenever the device asks.

use lastword_core::hlc::Hlc;
use lastword_core::id::{TableName, WorkspaceName};
use lastword_core::limits::MAX_DECIDED_BYTES;
use lastword_core::op::{Action, Batch, Op};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::authority::PushAnswer;
use lastword_core::row::Row;
use lastword_core::rules::{self, At, Policy, Writer as OpWriter};
use lastword_core::schema::Schema;
use lastword_core::stamp::{Decision, RefusalCode, Verdict};
use lastword_core::value::{Field, Record, Value};
use lastword_store::Store;
use lastword_store::keys;
use lastword_store::payload::{DecidedBatch, Payload, cut_text};
use lastword_store::read::{self, ReadState};

use crate::devices;
use crate::error::{Error, Result};
use crate::members::MemberList;
use crate::push_policy::{PushPolicy, PushRequest, PushRuling, ruled};

/// A device whose app is too old is told to wait this long before it pushes again, in milliseconds.
const APP_TOO_OLD_RETRY_MS: u64 = 60_000;

/// Most bytes of values that undeletes bring back which one frame holds again.
const MAX_VALUES_BYTES: usize = MAX_DECIDED_BYTES / 2;

/// One batch as it came.
pub(crate) struct Pushed {
    /// Who pushed it.
    pub(crate) user: String,
    /// Schema number of the app that pushed it, 0 = none.
    pub(crate) app_schema: u64,
    pub(crate) batch: Batch,
    pub(crate) payload_hash: [u8; 32],
    /// Whether limits and form hold.
    pub(crate) checked: std::result::Result<(), String>,
}

/// By what a server judges besides the rules of sync.
#[derive(Default)]
pub(crate) struct House<'a> {
    /// Who may do what; without it everybody owns everything.
    pub(crate) members: Option<&'a MemberList>,
    /// How many live records a workspace may have.
    pub(crate) max_records: Option<u64>,
    /// What the server's software has to say.
    pub(crate) policy: Option<&'a PushPolicy>,
}

/// Decides one batch and appends its frame, or finds the decision that it has.
pub(crate) fn decide_now(
    store: &mut Store,
    workspace: &WorkspaceName,
    pushed: Pushed,
    house: &House<'_>,
    now_ms: i64,
) -> Result<PushAnswer> {
    let (batch, payload_hash) = (&pushed.batch, pushed.payload_hash);
    let newest = store.newest();
    let owner = devices::owner(newest, workspace, batch.device)?;
    let is_foreign = owner.as_deref().is_some_and(|owner| owner != pushed.user);
    if is_foreign && !planted(Plant::ForeignDeviceTaken) {
        let message = Error::ForeignDevice { device: batch.device }.to_string();
        return Ok(PushAnswer::Forked { message });
    }
    let expected = read::last_counter(newest, workspace, batch.device)? + 1;
    let known = read::decision(newest, workspace, batch.batch_id)?;
    let known =
        known.filter(|known| known.counter == batch.counter || !planted(Plant::RekeyedAgain));
    if let Some(known) = known {
        if known.payload_hash != payload_hash && !planted(Plant::OtherBytesTaken) {
            let message = format!("batch {} came again with other content", batch.batch_id);
            return Ok(PushAnswer::Forked { message });
        }
        if batch.counter == expected {
            consume(store, workspace, pushed, known.decision.clone())?;
        }
        return Ok(PushAnswer::Decided(known.decision));
    }
    if batch.counter != expected && !planted(Plant::CounterGap) {
        let message = format!(
            "device {} sent batch {} where {expected} is next: two stores use its id",
            batch.device, batch.counter
        );
        return Ok(PushAnswer::Forked { message });
    }
    let schema = read::schema(newest, workspace)?;
    if let Some(message) = too_old(schema.as_ref(), pushed.app_schema) {
        return Ok(PushAnswer::NotNow { retry_ms: APP_TOO_OLD_RETRY_MS, message });
    }
    let introduces =
        owner.is_none().then(|| devices::introduction(batch.device, &pushed.user, now_ms));
    let request = PushRequest { workspace, user: &pushed.user, batch: &pushed.batch };
    let ruling = house.policy.map_or(PushRuling::Pass, |policy| ruled(policy, &request));
    let ruled = match ruling.objection().transpose() {
        Ok(ruled) => ruled,
        Err(not_now) => return Ok(not_now),
    };
    let terms = Terms { schema, introduces, max_records: house.max_records, ruled };
    let frame = judge(store, workspace, pushed, terms, now_ms)?;
    let decision = frame.decision.clone();
    // Deleting is how users free a full disk; a refusal keeps no ops.
    let frees = frame.batch.ops.iter().all(|op| matches!(op.action, Action::Delete));
    let payload = Payload::Decided(frame);
    match frees {
        true => store.append_urgent(payload.kind(), &payload.to_bytes())?,
        false => store.append(payload.kind(), &payload.to_bytes())?,
    };
    Ok(PushAnswer::Decided(decision))
}

/// A batch that was decided under another counter uses up this one too, so that the device's
/// counters stay contiguous.
fn consume(
    store: &mut Store,
    workspace: &WorkspaceName,
    pushed: Pushed,
    decision: Decision,
) -> Result<()> {
    let payload = Payload::Decided(DecidedBatch {
        workspace: workspace.clone(),
        batch: Batch { ops: Vec::new(), ..pushed.batch },
        payload_hash: pushed.payload_hash,
        decision,
        own: Vec::new(),
        previous: Vec::new(),
        values: Vec::new(),
    });
    store.append(payload.kind(), &payload.to_bytes())?;
    Ok(())
}

/// What a batch is judged by.
struct Terms {
    schema: Option<Schema>,
    /// The row of `_devices` that goes with it.
    introduces: Option<Op>,
    /// How many live records the workspace may have.
    max_records: Option<u64>,
    /// What the server's software has against it.
    ruled: Option<(RefusalCode, String)>,
}

/// What the frame of a batch says: verdicts and the authority's own ops, or a refusal.
fn judge(
    store: &Store,
    workspace: &WorkspaceName,
    pushed: Pushed,
    Terms { schema, introduces, max_records, ruled }: Terms,
    now_ms: i64,
) -> Result<DecidedBatch> {
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let time_ms = match planted(Plant::TimeMovesBack) {
        true => now_ms,
        false => now_ms.max(meta.time_ms),
    };
    if let Some((code, message)) =
        objection(newest, workspace, schema.as_ref(), &pushed, meta.head)?
    {
        return Ok(refused(workspace, pushed, code, &message, time_ms));
    }
    if let Some((code, message)) = ruled {
        return Ok(refused(workspace, pushed, code, &message, time_ms));
    }
    let schema = schema.unwrap_or_default();
    let (generation, lineage) = (meta.generation, read::lineage(newest, workspace)?.0);
    let mut judged = Judged { generation, lineage, time_ms, ..Judged::new(workspace, &schema) };
    let first_seq = meta.head + 1;
    for (op, seq) in pushed.batch.ops.iter().zip(first_seq..) {
        if let Err((code, reason)) = judged.op(newest, &pushed, op, seq)? {
            let message = format!("{}/{}: {reason}", op.table, op.key);
            return Ok(refused(workspace, pushed, code, &message, time_ms));
        }
    }
    if let Some(message) = max_records.and_then(|max| judged.over_quota(meta.rows, max)) {
        return Ok(refused(workspace, pushed, RefusalCode::OverQuota, &message, time_ms));
    }
    let Judged { verdicts, mut own, mut previous, values, .. } = judged;
    own.extend(introduces);
    previous.extend(own.iter().map(|_| 0));
    let Pushed { batch, payload_hash, .. } = pushed;
    let last_seq = meta.head + (batch.ops.len() + own.len()) as u64;
    let decision = Decision::Accepted { first_seq, last_seq, time_ms, verdicts };
    let mut frame = DecidedBatch {
        workspace: workspace.clone(),
        batch,
        payload_hash,
        decision,
        own,
        previous,
        values,
    };
    let mut size = frame.to_bytes().len();
    if size > MAX_DECIDED_BYTES {
        // The state has the values too.
        frame.values.clear();
        size = frame.to_bytes().len();
    }
    if size > MAX_DECIDED_BYTES {
        let message = format!(
            "the decided batch is {size} bytes with its conflicts, the limit is \
             {MAX_DECIDED_BYTES}; split it into several batches"
        );
        let pushed = Pushed { batch: frame.batch, ..pushed };
        return Ok(refused(workspace, pushed, RefusalCode::ResultTooBig, &message, time_ms));
    }
    Ok(frame)
}

fn refused(
    workspace: &WorkspaceName,
    pushed: Pushed,
    code: RefusalCode,
    message: &str,
    time_ms: i64,
) -> DecidedBatch {
    DecidedBatch {
        workspace: workspace.clone(),
        batch: Batch { ops: Vec::new(), ..pushed.batch },
        payload_hash: pushed.payload_hash,
        decision: Decision::Refused { code, message: cut_text(message), time_ms },
        own: Vec::new(),
        previous: Vec::new(),
        values: Vec::new(),
    }
}

/// What is said to a device whose app the schema takes no batch of, if it is too old. It is no
/// decision: the batches wait on the device, and it goes on reading.
fn too_old(schema: Option<&Schema>, app_schema: u64) -> Option<String> {
    let needed = schema.map_or(0, Schema::min_app_schema);
    let has = match app_schema {
        0 => "names none".to_owned(),
        number => format!("has {number}"),
    };
    (app_schema < needed && !planted(Plant::OldAppTaken)).then(|| {
        format!(
            "app_too_old: this workspace takes writes from app schema number {needed} on, and \
             this app {has}: update the app; its changes wait on this device"
        )
    })
}

/// Why the schema takes no op of a table, if it does not.
fn unknown_table(schema: &Schema, table: &TableName) -> Option<String> {
    match schema.table(table) {
        Some(known) if known.local => {
            Some(format!("table {table} is local in the server's schema: it stays on each device"))
        }
        Some(_) => None,
        None if schema.is_retired(table) => {
            Some(format!("table {table} was removed from the server's schema"))
        }
        None => Some(format!(
            "table {table} is not in the server's schema: add [tables.{table}] there, or write to \
             one that is"
        )),
    }
}

/// Why a batch cannot be looked at, if it cannot. What a writer says about what it has seen and who
/// it was decides whose changes it may overwrite unseen, so neither is taken on trust.
fn objection<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    schema: Option<&Schema>,
    pushed: &Pushed,
    head: u64,
) -> Result<Option<(RefusalCode, String)>> {
    let Pushed { user, batch, checked, .. } = pushed;
    if let Err(reason) = checked {
        return Ok(Some((RefusalCode::Invalid, reason.clone())));
    }
    if let Some(op) = batch.ops.iter().find(|op| op.table.is_reserved()) {
        let message = format!("table {} belongs to Lastword and is read-only", op.table);
        return Ok(Some((RefusalCode::UnknownTable, message)));
    }
    let unknown = |schema| batch.ops.iter().find_map(|op| unknown_table(schema, &op.table));
    if let Some(message) = schema.and_then(unknown) {
        return Ok(Some((RefusalCode::UnknownTable, message)));
    }
    if let Some(op) = batch.ops.iter().find(|op| op.base > head)
        && !planted(Plant::BaseBeyondHead)
    {
        let (table, key, base) = (&op.table, &op.key, op.base);
        let message = format!("{table}/{key} has base {base}, the last seq is {head}");
        return Ok(Some((RefusalCode::Invalid, message)));
    }
    for former in &batch.former {
        let owner = devices::owner(state, workspace, *former)?;
        if owner.is_some_and(|owner| owner != *user) {
            let message = format!("former device {former} belongs to another user");
            return Ok(Some((RefusalCode::Invalid, message)));
        }
    }
    Ok(None)
}

/// Verdicts and conflict rows of one batch, growing op by op.
struct Judged<'a> {
    workspace: &'a WorkspaceName,
    schema: &'a Schema,
    generation: u32,
    lineage: Vec<(u64, u64)>,
    time_ms: i64,
    verdicts: Vec<Verdict>,
    own: Vec<Op>,
    previous: Vec<u64>,
    values: Vec<(u64, Record)>,
    /// Bytes of values that there is room for: the others are in older frames and in the state.
    values_room: usize,
    /// How many live records it makes, and how many it ends.
    born: u64,
    ended: u64,
}

impl<'a> Judged<'a> {
    fn new(workspace: &'a WorkspaceName, schema: &'a Schema) -> Self {
        let (lineage, verdicts, own, previous, values) = Default::default();
        let (generation, time_ms, born, ended) = (0, 0, 0, 0);
        Self {
            workspace,
            schema,
            generation,
            lineage,
            time_ms,
            verdicts,
            own,
            previous,
            values,
            values_room: MAX_VALUES_BYTES,
            born,
            ended,
        }
    }

    /// Why the workspace has no room for the batch, if it has none. One that adds no record passes
    /// also where there are too many: deletes are the way out.
    fn over_quota(&self, rows: u64, max: u64) -> Option<String> {
        let added = self.born.saturating_sub(self.ended);
        let fits = added == 0 || rows.saturating_add(added) <= max;
        (!fits).then(|| {
            format!(
                "the workspace may have {max} records, and has no room for {added} more: delete \
                 some, then send this again, or ask who runs the server to raise --max-records"
            )
        })
    }

    fn op<S: ReadState>(
        &mut self,
        state: &S,
        Pushed { user, batch, .. }: &Pushed,
        op: &Op,
        seq: u64,
    ) -> Result<std::result::Result<(), (RefusalCode, String)>> {
        let row_key = keys::row_key(self.workspace, self.generation, &op.table, &op.key);
        let stored = read::row(state, &row_key)?;
        let strict = batch.strict && !planted(Plant::StrictIgnored);
        let writer = OpWriter { device: batch.device, former: &batch.former, strict };
        let at = At { seq, time_ms: self.time_ms, op_id: batch.batch_id };
        let table = self.schema.rules_of(&op.table);
        let row = stored.as_ref().map(|stored| &stored.row);
        if let Some(reason) = rules::objection(row, op, user, table) {
            return Ok(Err((RefusalCode::Policy, reason)));
        }
        let known = rules::with_known_base(op, &self.lineage);
        let outcome = match rules::decide(row, &known, &writer, &at, table) {
            Ok(outcome) => outcome,
            Err(error) => return Ok(Err((RefusalCode::ResultTooBig, error.to_string()))),
        };
        for conflict in &outcome.conflicts {
            let private_to = table.private_by.map(|_| user.as_str());
            self.own.push(conflict_op(op, conflict, table.policy, self.time_ms, private_to));
            if planted(Plant::ConflictTwice) {
                self.own.extend(self.own.last().cloned());
            }
        }
        if let Some(next) = &outcome.row {
            self.own.extend(renamed(op, next, &outcome.verdict, table.policy));
            let (is, was) = (!next.deleted, row.is_some_and(|row| !row.deleted));
            self.born += u64::from(is && !was);
            self.ended += u64::from(was && !is);
        }
        if matches!(op.action, Action::Undelete { .. })
            && let Some(row) = outcome.row
        {
            let size_bytes = row.record.size_bytes();
            if size_bytes <= self.values_room {
                self.values_room -= size_bytes;
                self.values.push((self.verdicts.len() as u64, row.record));
            }
        }
        self.verdicts.push(outcome.verdict);
        self.previous.push(stored.map_or(0, |stored| stored.position));
        Ok(Ok(()))
    }
}

/// Under policy `revision` a tuple names one value. An op that applies without the fields that the
/// server owns leaves another one than it names: an op of the authority, which gives them a tuple
/// of its own, follows in the same batch.
fn renamed(op: &Op, next: &Row, verdict: &Verdict, policy: Policy) -> Option<Op> {
    let Verdict::Applied { dropped } = verdict else { return None };
    if policy != Policy::Revision || dropped.is_empty() || next.deleted {
        return None;
    }
    let set: Vec<Field> =
        dropped.iter().filter_map(|name| next.record.field(name)).cloned().collect();
    let remove = dropped.iter().filter(|name| next.record.field(name).is_none()).cloned().collect();
    let action = Action::Patch { set, remove };
    let (table, key, hlc) = (op.table.clone(), op.key.clone(), Hlc::default());
    Some(Op { table, key, base: 0, revision: 0, hlc, action })
}

/// The authority's own op that records a conflict; one about a private record is private too.
fn conflict_op(
    op: &Op,
    conflict: &rules::Conflict,
    policy: Policy,
    time_ms: i64,
    private_to: Option<&str>,
) -> Op {
    let mut record = rules::conflict_record(&op.table, &op.key, conflict, policy, time_ms);
    if let Some(user) = private_to {
        record.set(Field::new(rules::PRIVATE_TO, &Value::Text(user.into())));
    }
    Op {
        table: crate::tables::conflicts(),
        key: rules::conflict_key(&op.table, &op.key, conflict),
        base: 0,
        revision: 1,
        hlc: Hlc::default(),
        action: Action::Create { record, replace: false },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lastword_core::id::{BatchId, DeviceId, Key};
    use lastword_core::value::Record;
    use lastword_store::apply::ApplyPayload;
    use lastword_store::{MemoryDisk, Options};

    use super::*;

    /// Semantics, section 12, I26: a server whose clock goes back gives no time before the last one
    /// that it gave.
    #[test]
    fn server_time_does_not_go_back() {
        let apply = Arc::new(ApplyPayload::default());
        let disk = Arc::new(MemoryDisk::new(1 << 20));
        let (mut store, _) = Store::open(disk, Options::default(), apply).expect("it opens");
        let workspace = WorkspaceName::new("main").expect("a name");
        let mut decide = |counter: u64, now_ms| {
            let table = TableName::new("notes").expect("a name");
            let key = Key::new(&counter.to_string()).expect("a key");
            let (base, revision, hlc) = (0, 1, Hlc::default());
            let action = Action::Create { record: Record::default(), replace: false };
            let batch = Batch {
                device: DeviceId([1; 16]),
                counter,
                batch_id: BatchId([counter as u8; 16]),
                created_ms: 0,
                strict: false,
                former: Vec::new(),
                ops: vec![Op { table, key, base, revision, hlc, action }],
            };
            let (user, app_schema, checked) = ("ann".into(), 0, Ok(()));
            let pushed = Pushed { user, app_schema, payload_hash: [0; 32], batch, checked };
            let house = House::default();
            let decided = decide_now(&mut store, &workspace, pushed, &house, now_ms);
            match decided.expect("the disk works") {
                PushAnswer::Decided(decision) => decision.time_ms(),
                other => panic!("not decided: {other:?}"),
            }
        };
        assert_eq!([decide(1, 5_000), decide(2, 3_000), decide(3, 6_000)], [5_000, 5_000, 6_000]);
    }
}
