//! What the log of the authority means, worked out without the engine: each decided op is carried
//! out on a plain map, and what must hold of every log is checked on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use lastword::core::id::{BatchId, DeviceId, WorkspaceName};
use lastword::core::op::{Action, Batch, Op};
use lastword::core::stamp::{Decision, Verdict};
use lastword::core::value::Field;
use lastword::store::ViewHandle;
use lastword::store::payload::{DecidedBatch, Payload, PurgePart};

use crate::fault::Violation;

/// A record as the oracle sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// It is a tombstone.
    pub deleted: bool,
    /// Seq of its newest applied op.
    pub seq: u64,
    /// Its fields in order, values encoded.
    pub fields: Vec<(String, Vec<u8>)>,
}

/// Sums of what a workspace holds: of its live records, and of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Live records.
    pub live: u64,
    /// Live records and tombstones.
    pub all: u64,
}

/// Table and key.
pub type Name = (String, String);

impl Sums {
    /// Adds a record, or takes it away: sums wrap, so either order gives the same.
    pub fn count(&mut self, name: &Name, kept: &Kept, add: bool) {
        let hash = hash(name, kept);
        let sign = |sum: u64| if add { sum.wrapping_add(hash) } else { sum.wrapping_sub(hash) };
        self.all = sign(self.all);
        if !kept.deleted {
            self.live = sign(self.live);
        }
    }
}

fn hash((table, key): &Name, kept: &Kept) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [table.as_bytes(), &[0], key.as_bytes(), &[u8::from(kept.deleted)]] {
        hasher.update(part);
    }
    hasher.update(&kept.seq.to_le_bytes());
    for (name, value) in &kept.fields {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(value);
    }
    let bytes = hasher.finalize();
    u64::from_le_bytes(*bytes.as_bytes().first_chunk().expect("invariant: 32 bytes"))
}

/// One workspace.
#[derive(Debug, Default)]
pub struct Folded {
    /// Last seq.
    pub head: u64,
    /// Oldest cursor that can catch up.
    pub horizon: u64,
    /// Records of the app's tables.
    pub rows: BTreeMap<Name, Kept>,
    /// Sums after each batch, by its last seq.
    pub borders: BTreeMap<u64, Sums>,
    sums: Sums,
    conflicts: BTreeSet<String>,
    /// Batches in the log, with what was decided.
    pub decided: BTreeMap<BatchId, Decision>,
}

/// The fold of one authority's log.
#[derive(Debug, Default)]
pub struct Oracle {
    read_to: u64,
    /// Its workspaces.
    pub workspaces: BTreeMap<WorkspaceName, Folded>,
    /// What each device wrote, by batch.
    pub written: BTreeMap<BatchId, (DeviceId, Vec<Op>)>,
}

impl Oracle {
    /// Takes in what the log has gained since the last time.
    ///
    /// # Errors
    /// [`Violation`] of I2, I3, I4, I23 or I25.
    pub fn follow(&mut self, log: &ViewHandle) -> Result<(), Violation> {
        let end = log.view().position();
        if end < self.read_to {
            let text = format!("the log ends at {end}, and was told to {}", self.read_to);
            return Err(Violation::new("I1", text));
        }
        let mut failed = Ok(());
        let from = self.read_to;
        let scanned = log.scan_frames(from, |frame| {
            let payload = Payload::from_frame(frame.kind, frame.payload);
            match payload {
                Ok(Payload::Decided(batch)) => failed = self.decided(&batch),
                Ok(Payload::Purge(purge)) => {
                    if let PurgePart::Tombstones { horizon } = purge.part {
                        self.workspaces.entry(purge.workspace).or_default().purge(horizon);
                    }
                }
                _ => {}
            }
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(|error| Violation::new("I7", format!("the log does not read: {error}")))?;
        self.read_to = end;
        failed
    }

    fn decided(&mut self, frame: &DecidedBatch) -> Result<(), Violation> {
        let DecidedBatch { workspace, batch, decision, own, .. } = frame;
        let folded = self.workspaces.entry(workspace.clone()).or_default();
        let known = folded.decided.insert(batch.batch_id, decision.clone());
        let Decision::Accepted { first_seq, last_seq, verdicts, .. } = decision else {
            return Ok(());
        };
        // A batch that comes again under another counter gets its old decision and no ops.
        if batch.ops.is_empty() {
            let same = known.is_none_or(|known| known == *decision);
            return same.then_some(()).ok_or_else(|| twice(batch));
        }
        if known.is_some() {
            return Err(twice(batch));
        }
        match self.written.get(&batch.batch_id) {
            Some((device, ops)) if *device == batch.device && *ops == batch.ops => {}
            _ => return Err(Violation::new("I3", format!("nobody wrote {}", batch.batch_id))),
        }
        let len = (batch.ops.len() + own.len()) as u64;
        if (*first_seq, *last_seq) != (folded.head + 1, folded.head + len) {
            let text = format!("seqs {first_seq} to {last_seq} after {}", folded.head);
            return Err(Violation::new("I2", text));
        }
        for ((op, verdict), seq) in batch.ops.iter().zip(verdicts).zip(*first_seq..) {
            if let Verdict::Applied { dropped } = verdict {
                folded.apply(op, seq, dropped)?;
            }
        }
        for op in own {
            folded.own(op)?;
        }
        folded.head = *last_seq;
        folded.borders.insert(*last_seq, folded.sums);
        Ok(())
    }
}

fn twice(batch: &Batch) -> Violation {
    Violation::new("I4", format!("batch {} was decided twice", batch.batch_id))
}

fn fields(fields: &[Field]) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|field| (field.name.clone(), field.value.clone())).collect()
}

impl Folded {
    fn apply(&mut self, op: &Op, seq: u64, dropped: &[String]) -> Result<(), Violation> {
        let name = (op.table.as_str().to_owned(), op.key.as_str().to_owned());
        let old = self.rows.get(&name).cloned();
        let is_live = old.as_ref().is_some_and(|old| !old.deleted);
        let text = format!("{}/{} at {seq}", name.0, name.1);
        let (deleted, next) = match &op.action {
            Action::Create { record, replace } if !is_live || *replace => {
                (false, fields(record.fields()))
            }
            Action::Create { .. } => {
                return Err(Violation::new("I23", format!("a create overwrote {text}")));
            }
            Action::Undelete { .. } if is_live || old.is_none() => {
                return Err(Violation::new("I24", format!("nothing was deleted: {text}")));
            }
            Action::Undelete { .. } => {
                (false, old.as_ref().map(|old| old.fields.clone()).unwrap_or_default())
            }
            _ if !is_live => {
                return Err(Violation::new("I23", format!("an edit of what is not there: {text}")));
            }
            Action::Put { record } => (false, fields(record.fields())),
            Action::Delete => {
                (true, old.as_ref().map(|old| old.fields.clone()).unwrap_or_default())
            }
            Action::Patch { set, remove } => {
                let mut next = old.as_ref().map(|old| old.fields.clone()).unwrap_or_default();
                for (name, value) in fields(set).into_iter().filter(|(n, _)| !dropped.contains(n)) {
                    match next.iter_mut().find(|(known, _)| *known == name) {
                        Some(field) => field.1 = value,
                        None => next.push((name, value)),
                    }
                }
                next.retain(|(name, _)| !remove.contains(name) || dropped.contains(name));
                (false, next)
            }
        };
        let kept = Kept { deleted, seq, fields: next };
        if let Some(old) = &old {
            self.sums.count(&name, old, false);
        }
        self.sums.count(&name, &kept, true);
        self.rows.insert(name, kept);
        Ok(())
    }

    /// Conflict rows are made once each.
    fn own(&mut self, op: &Op) -> Result<(), Violation> {
        let is_conflict = op.table.as_str() == "_conflicts";
        if is_conflict && !self.conflicts.insert(op.key.as_str().to_owned()) {
            return Err(Violation::new("I25", format!("conflict {} twice", op.key)));
        }
        Ok(())
    }

    fn purge(&mut self, horizon: u64) {
        self.horizon = self.horizon.max(horizon);
        let sums = &mut self.sums;
        self.rows.retain(|name, kept| {
            let goes = kept.deleted && kept.seq <= horizon;
            if goes {
                sums.count(name, kept, false);
            }
            !goes
        });
        self.borders.insert(self.head, self.sums);
    }

    /// Sums of the newest state.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.sums
    }
}
