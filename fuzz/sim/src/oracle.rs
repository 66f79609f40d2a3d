//! What the log of the authority means, worked out without the engine: each decided op is judged
//! by `judge.rs` and carried out on a plain map, and what must hold of every log is checked too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use lastword::core::id::{BatchId, DeviceId, WorkspaceName};
use lastword::core::op::{Action, Batch, Op};
use lastword::core::row::Row;
use lastword::core::schema::Schema;
use lastword::core::stamp::{self, Decision};
use lastword::store::ViewHandle;
use lastword::store::payload::{DecidedBatch, Payload, PurgePart};

use crate::fault::Violation;
use crate::judge::{Case, Rules, text_of};

/// Who wrote something, and its seq.
pub type Mark = (u64, DeviceId);
/// Table and key.
pub type Name = (String, String);
/// A record's fields in order, values encoded.
pub type Fields = Vec<(String, Vec<u8>)>;

/// A record as the oracle sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    pub deleted: bool,
    pub last: Mark,
    pub born: Mark,
    pub full: Mark,
    /// Fields changed after the last whole write.
    pub marks: BTreeMap<String, Mark>,
    /// Revision, clock and id of the newest op.
    pub tuple: (u64, u64, BatchId),
    pub fields: Fields,
}

/// Sums over live records: of those that all may see, and of each user's private ones. A sum wraps,
/// so records can be taken out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums([u64; 5]);

/// Where the records of an owner are counted: everybody's, those of the users, and nobody's.
#[must_use]
pub fn place(owner: &str) -> usize {
    match owner {
        "" => 0,
        "u0" => 1,
        "u1" => 2,
        "u2" => 3,
        _ => 4,
    }
}

impl Sums {
    /// Takes a live record in, or out.
    pub fn count(&mut self, hash: u64, place: usize, add: bool) {
        let sum = &mut self.0[place];
        *sum = if add { sum.wrapping_add(hash) } else { sum.wrapping_sub(hash) };
    }

    /// The sum of what a user sees.
    #[must_use]
    pub fn seen_by(&self, user: &str) -> u64 {
        self.0[0].wrapping_add(self.0[place(user)])
    }
}

/// A hash of bytes that is the same everywhere, and cheap.
#[derive(Debug, Clone, Copy)]
pub struct Mix(pub u64);

impl Mix {
    pub fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.0 ^= self.0 >> 32;
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    pub fn mark(&mut self, (seq, writer): Mark) {
        self.number(seq);
        self.bytes(&writer.0);
    }
}

impl Kept {
    /// A row of a store.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        let mark = |mark: &stamp::Mark| (mark.seq, mark.writer);
        let fields = row.record.fields().iter();
        Kept {
            deleted: row.deleted,
            last: mark(&row.last),
            born: mark(&row.born),
            full: mark(&row.full),
            marks: row.fields.iter().map(|field| (field.name.clone(), mark(&field.mark))).collect(),
            tuple: (row.revision, row.hlc.0, row.op_id),
            fields: fields.map(|field| (field.name.clone(), field.value.clone())).collect(),
        }
    }

    /// A hash of all that a record is.
    #[must_use]
    pub fn hash(&self, (table, key): (&str, &str)) -> u64 {
        let mut mix = Mix(u64::from(self.deleted));
        mix.bytes(table.as_bytes());
        mix.bytes(key.as_bytes());
        [self.last, self.born, self.full].into_iter().for_each(|mark| mix.mark(mark));
        // In any order.
        let mut marks = 0_u64;
        for (name, mark) in &self.marks {
            let mut one = Mix(1);
            one.bytes(name.as_bytes());
            one.mark(*mark);
            marks = marks.wrapping_add(one.0);
        }
        mix.number(marks);
        let (revision, clock, id) = self.tuple;
        mix.number(revision);
        mix.number(clock);
        mix.bytes(&id.0);
        for (name, value) in &self.fields {
            mix.bytes(name.as_bytes());
            mix.bytes(value);
        }
        mix.0
    }
}

/// A batch as it was written.
#[derive(Debug, Clone)]
pub struct Written {
    pub device: DeviceId,
    pub user: String,
    pub ops: Vec<Op>,
}

/// One workspace.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    /// Last seq.
    pub head: u64,
    /// Oldest cursor that can catch up.
    pub horizon: u64,
    /// Records of the app's tables.
    pub rows: BTreeMap<Name, Kept>,
    /// Sums after each batch, by its last seq.
    pub borders: BTreeMap<u64, Sums>,
    pub sums: Sums,
    /// Batches in the log, with what was decided.
    pub decided: BTreeMap<BatchId, Decision>,
    /// Roles of the members; none if everybody is one.
    pub roles: BTreeMap<String, String>,
    pub schema: Option<Schema>,
    conflicts: BTreeSet<String>,
    /// Seqs that a restore lost: behind the first, up to the second.
    lost: Vec<(u64, u64)>,
    time_ms: i64,
}

/// The fold of one authority's log.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    read_to: u64,
    /// Its workspaces.
    pub workspaces: BTreeMap<WorkspaceName, Folded>,
    /// What each device wrote, by batch.
    pub written: BTreeMap<BatchId, Vec<Written>>,
}

impl Oracle {
    /// Takes in what the log has gained since the last time.
    ///
    /// # Errors
    /// The first [`Violation`] of what must hold of a log.
    pub fn follow(&mut self, log: &ViewHandle) -> Result<(), Violation> {
        let end = log.view().position();
        if end < self.read_to {
            let text = format!("the log ends at {end}, and was told to {}", self.read_to);
            return Err(Violation::new("I7", text));
        }
        if end == self.read_to {
            return Ok(());
        }
        let mut failed = Ok(());
        let scanned = log.scan_frames(self.read_to, |frame| {
            if let Ok(payload) = Payload::from_frame(frame.kind, frame.payload) {
                failed = self.take(payload);
            }
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(|error| Violation::new("I7", format!("the log does not read: {error}")))?;
        self.read_to = end;
        failed
    }

    fn take(&mut self, payload: Payload) -> Result<(), Violation> {
        match payload {
            Payload::Decided(batch) => return self.decided(&batch),
            Payload::Schema(frame) => {
                self.workspaces.entry(frame.workspace).or_default().schema = frame.schema;
            }
            Payload::Purge(purge) => {
                if let PurgePart::Tombstones { horizon } = purge.part {
                    self.workspaces.entry(purge.workspace).or_default().purge(horizon);
                }
            }
            Payload::Restored(frame) => {
                let folded = self.workspaces.entry(frame.workspace).or_default();
                folded.lost.push((frame.branch, frame.head));
                folded.head = frame.head;
                folded.borders.insert(frame.head, folded.sums);
            }
            Payload::Erasure(frame) => {
                let folded = self.workspaces.entry(frame.workspace).or_default();
                for (table, key) in &frame.records {
                    folded.erase((table.as_str().to_owned(), key.as_str().to_owned()));
                }
                folded.borders.insert(folded.head, folded.sums);
            }
            _ => {}
        }
        Ok(())
    }

    /// I3, I4, I26, I39: whether a batch is one that its device wrote, and may be in the log; false
    /// for one that comes again under another counter, which gets its old decision and no ops.
    fn identify(&mut self, frame: &DecidedBatch) -> Result<bool, Violation> {
        let DecidedBatch { workspace, batch, decision, .. } = frame;
        let folded = self.workspaces.entry(workspace.clone()).or_default();
        let wrong =
            |id, text: &str| Err(Violation::new(id, format!("batch {}: {text}", batch.batch_id)));
        if let Some(known) = folded.decided.get(&batch.batch_id)
            && batch.device != DeviceId::AUTHORITY
        {
            let same = batch.ops.is_empty() && known == decision;
            return if same { Ok(false) } else { wrong("I4", "decided twice") };
        }
        if decision.time_ms() < folded.time_ms {
            return wrong("I26", "server time goes back");
        }
        folded.time_ms = decision.time_ms();
        if batch.device == DeviceId::AUTHORITY {
            return Ok(true);
        }
        folded.decided.insert(batch.batch_id, decision.clone());
        let all = self.written.get(&batch.batch_id).map_or(&[][..], Vec::as_slice);
        let is_refused = matches!(decision, Decision::Refused { .. });
        // Two copies of a device may send one dead letter again, each in its own way.
        let is_it = |written: &&Written| {
            let knows = written.device == batch.device || batch.former.contains(&written.device);
            knows && (batch.ops == written.ops || is_refused)
        };
        let Some(written) = all.iter().find(is_it) else {
            let (device, ops) = (batch.device, &batch.ops);
            let text = format!("nobody wrote it so: {device} {ops:?}; what was written: {all:?}");
            return wrong("I3", &text);
        };
        if !folded.may_write(&written.user) {
            return wrong("I39", "its user may not write");
        }
        let expected = folded.refusal(written);
        let actual = match decision {
            Decision::Refused { code, .. } => Some(*code),
            Decision::Accepted { .. } => None,
        };
        match expected == actual {
            true => Ok(true),
            false => wrong("I3", &format!("{decision:?} where {expected:?} is due")),
        }
    }

    fn decided(&mut self, frame: &DecidedBatch) -> Result<(), Violation> {
        if !self.identify(frame)? {
            return Ok(());
        }
        let DecidedBatch { workspace, batch, decision, own, .. } = frame;
        let folded = self.workspaces.entry(workspace.clone()).or_default();
        let Decision::Accepted { first_seq, last_seq, verdicts, .. } = decision else {
            return Ok(());
        };
        let len = (batch.ops.len() + own.len()) as u64;
        if (*first_seq, *last_seq) != (folded.head + 1, folded.head + len) {
            let text = format!("seqs {first_seq} to {last_seq} after {}", folded.head);
            return Err(Violation::new("I2", text));
        }
        let mut losers = Vec::new();
        for ((op, verdict), seq) in batch.ops.iter().zip(verdicts).zip(*first_seq..) {
            let case = Case::new(folded, batch, op, seq);
            let (expected, lost) = case.judge();
            case.compare(&expected, verdict)?;
            let next = case.next(verdict);
            losers.extend(lost.into_iter().map(|device| (name_of(op), device)));
            if let Some(next) = next {
                folded.put(name_of(op), next);
            }
        }
        for (op, seq) in own.iter().zip(first_seq + batch.ops.len() as u64..) {
            folded.own(op, seq, batch, &mut losers)?;
        }
        if let Some(((table, key), device)) = losers.first() {
            let text = format!("no conflict row tells {device} of {table}/{key} at {first_seq}");
            return Err(Violation::new("I25", text));
        }
        folded.head = *last_seq;
        folded.borders.insert(*last_seq, folded.sums);
        Ok(())
    }
}

/// Table and key of an op.
#[must_use]
pub fn name_of(op: &Op) -> Name {
    (op.table.as_str().to_owned(), op.key.as_str().to_owned())
}

impl Folded {
    /// Whether a base or mark is one that a restore has lost.
    #[must_use]
    pub fn is_lost(&self, seq: u64) -> bool {
        self.lost.iter().any(|(branch, jump)| *branch < seq && seq <= *jump)
    }

    /// What the schema says of a table; none if it does not take its ops.
    #[must_use]
    pub fn rules(&self, table: &str) -> Option<Rules> {
        Rules::of(self.schema.as_ref(), table)
    }

    fn may_write(&self, user: &str) -> bool {
        let role = self.roles.get(user).map(String::as_str);
        self.roles.is_empty() || matches!(role, Some("owner" | "editor"))
    }

    /// The fields that say whose a record is, by table.
    #[must_use]
    pub fn private(&self) -> BTreeMap<String, String> {
        let tables = self.schema.iter().flat_map(Schema::tables);
        let private = tables.filter_map(|(name, table)| {
            Some((name.as_str().to_owned(), table.private_by.clone()?))
        });
        private.collect()
    }

    /// Whose a record is; none if it is everybody's.
    #[must_use]
    pub fn owner(&self, name: &Name, kept: &Kept) -> Option<String> {
        let field = self.rules(&name.0)?.private_by?;
        Some(text_of(&kept.fields, &field).unwrap_or_else(|| "nobody".into()))
    }

    fn put(&mut self, name: Name, next: Kept) {
        let old = self.rows.insert(name.clone(), next.clone());
        for (kept, add) in [(old, false), (Some(next), true)] {
            if let Some(kept) = kept.filter(|kept| !kept.deleted) {
                let owner = self.owner(&name, &kept).unwrap_or_default();
                self.sums.count(kept.hash((&name.0, &name.1)), place(&owner), add);
            }
        }
    }

    /// The authority's own op: a conflict row, a member, a device, or fields that it owns.
    fn own(
        &mut self,
        op: &Op,
        seq: u64,
        batch: &Batch,
        losers: &mut Vec<(Name, String)>,
    ) -> Result<(), Violation> {
        let (table, key) = name_of(op);
        let fields = match &op.action {
            Action::Create { record, .. } | Action::Put { record } => record.fields(),
            _ => &[],
        };
        let fields: Fields = fields.iter().map(|f| (f.name.clone(), f.value.clone())).collect();
        let said = |name: &str| text_of(&fields, name).unwrap_or_default();
        match table.as_str() {
            "_conflicts" => {
                // A recovery tells again what is offered to it again, under the same key.
                let is_own = batch.device == DeviceId::AUTHORITY;
                if !self.conflicts.insert(key.clone()) && !is_own {
                    return Err(Violation::new("I25", format!("conflict {key} twice")));
                }
                let loss = ((said("table"), said("key")), said("losing_device"));
                match losers.iter().position(|known| *known == loss) {
                    Some(at) => drop(losers.swap_remove(at)),
                    None if is_own => {}
                    None => {
                        let text = format!("a conflict row tells of no loss: {loss:?} {key}");
                        return Err(Violation::new("I25", text));
                    }
                }
            }
            "_members" if op.action == Action::Delete => {
                drop(self.roles.insert(key, "none".into()))
            }
            "_members" => drop(self.roles.insert(key, said("role"))),
            _ if table.starts_with('_') => {}
            _ => {
                let case = Case::new(self, batch, op, seq);
                if let Some(next) = case.next_own() {
                    self.put((table, key), next);
                }
            }
        }
        Ok(())
    }

    fn erase(&mut self, name: Name) {
        self.head += 1;
        let Some(old) = self.rows.get(&name).cloned() else { return };
        let field = self.rules(&name.0).and_then(|rules| rules.private_by);
        let mark = (self.head, DeviceId::AUTHORITY);
        let fields = old.fields.iter().filter(|(name, _)| Some(name) == field.as_ref());
        let tuple = (old.tuple.0.saturating_add(1), old.tuple.1, BatchId::default());
        let next = Kept {
            deleted: true,
            last: mark,
            born: mark,
            full: mark,
            marks: BTreeMap::new(),
            tuple,
            fields: fields.cloned().collect(),
        };
        self.put(name, next);
    }

    fn purge(&mut self, horizon: u64) {
        self.horizon = self.horizon.max(horizon);
        self.rows.retain(|_, kept| !kept.deleted || kept.last.0 > horizon);
    }
}

impl Oracle {
    /// What the log means, without what devices wrote.
    #[must_use]
    pub fn without_writes(&self) -> Self {
        let (read_to, workspaces) = (self.read_to, self.workspaces.clone());
        Self { read_to, workspaces, written: BTreeMap::new() }
    }
}
