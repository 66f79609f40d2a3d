//! Dead letters are sent again, changed or thrown away, a unit at a time.
//!
//! Each batch goes back in one frame, which also removes its row of `_dead_letters`: a process that
//! ends between two batches of a unit leaves the rest as dead letters, none is lost and none is
//! sent twice. What is sent is a new batch: the old id has its refusal at the server for good.

use std::sync::Arc;

use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use lastword_core::limits::MAX_BATCH_OPS;
use lastword_core::op::{Action, Batch, Op, TombstoneRef};
use lastword_core::protocol::Entry;
use lastword_core::row::Row;
use lastword_core::rules::PENDING_SEQ;
use lastword_core::value::Record;
use lastword_store::keys;
use lastword_store::payload::{Identity, LocalBatch, Payload, RemotePage, Retry};
use lastword_store::{Store, read};

use crate::dead_letter::{self, Kept};
use crate::error::{Error, Result};
use crate::live::lock;
use crate::receipt::{Held, Receipt, Receipts, Written};
use crate::view::WorkspaceView;
use crate::workspace::Workspace;
use crate::write;

/// Most batches that one step of the writer takes, and bytes of ops after which it takes no more.
const STEP_BATCHES: usize = 256;
const STEP_BYTES: usize = 1024 * 1024;

/// Changes the records that ops write.
type Edit<'a> = &'a mut dyn FnMut(&TableName, &Key, &mut Record) -> Result<()>;

/// A batch that is about to be sent again.
struct Again {
    letter: BatchId,
    /// As it was refused.
    old: Batch,
}

impl Workspace {
    /// Sends a unit of dead letters again, in its order, as if it were written now: with fresh
    /// bases and revisions, under new batch ids. A batch that builds on a version which others have
    /// changed since overwrites it knowingly. Answers one receipt per batch.
    ///
    /// # Errors
    /// [`Error::NoDeadLetter`] if there is no such unit here; [`Error::OutboxFull`];
    /// [`Error::DeadLetterGone`] after a salvage that could not read it; [`Error::Store`] if the
    /// disk fails. What was not sent then is still a dead letter.
    pub fn retry_dead_letter(&self, unit: BatchId) -> Result<Vec<Receipt>> {
        self.send_unit(unit, &mut |_, _, _| Ok(()))
    }

    /// Changes what a unit of dead letters writes and sends it again, as
    /// [`Workspace::retry_dead_letter`] does. `edit` gets the value of each create and put, and of
    /// each patch the fields that it sets; deletes are sent as they are. It is called twice for
    /// each, first to see that all of the unit can be sent.
    ///
    /// # Errors
    /// Those of `edit` and of a write, before anything is sent; then as
    /// [`Workspace::retry_dead_letter`].
    pub fn edit_dead_letter(
        &self,
        unit: BatchId,
        mut edit: impl FnMut(&TableName, &Key, &mut Record) -> Result<()>,
    ) -> Result<Vec<Receipt>> {
        let view = self.read()?;
        for kept in &self.unit(unit)? {
            let mut batch = self.batch_of(unit, kept)?;
            self.edit(&mut batch, &mut edit)?;
            batch.ops.iter().try_for_each(|op| self.check(&view, op))?;
            batch.check_limits()?;
        }
        self.send_unit(unit, &mut edit)
    }

    /// Throws a unit of dead letters away; answers how many batches it had. Their ops stay in the
    /// history of this device for its window.
    ///
    /// # Errors
    /// [`Error::NoDeadLetter`] if there is no such unit here; [`Error::Store`] if the disk fails.
    pub fn discard_dead_letter(&self, unit: BatchId) -> Result<u64> {
        let mut letters: Vec<BatchId> = self.unit(unit)?.iter().map(|kept| kept.batch_id).collect();
        // The last first: what is left after a crash is the beginning of a unit.
        letters.reverse();
        let (now_ms, mut discarded) = (self.database().inner.environment.now_ms(), 0);
        for letters in letters.chunks(MAX_BATCH_OPS) {
            let letters = letters.to_vec();
            discarded += self.database().inner.writer.run(move |store| {
                let newest = store.newest();
                let removals = letters.iter().map(|id| dead_letter::removal(newest, *id, now_ms));
                let rows: Vec<Op> =
                    removals.filter_map(Result::transpose).collect::<Result<_>>()?;
                let gone = rows.len() as u64;
                if gone > 0 {
                    let frame = dead_letter::rows_frame(rows);
                    store.append_urgent(frame.kind(), &frame.to_bytes())?;
                }
                Ok(gone)
            })?;
        }
        Ok(discarded)
    }

    fn unit(&self, unit: BatchId) -> Result<Vec<Kept>> {
        self.check_writable()?;
        let letters = dead_letter::of_unit(&*self.database().view(), self.name(), unit)?;
        match letters.is_empty() {
            true => Err(Error::NoDeadLetter { workspace: self.name().clone(), unit }),
            false => Ok(letters),
        }
    }

    fn batch_of(&self, unit: BatchId, kept: &Kept) -> Result<Batch> {
        let frame = self.database().inner.writer.views().read_frame(kept.position)?;
        let payload = Payload::from_frame(frame.kind, &frame.payload).ok();
        let batch = match payload {
            Some(Payload::Remote(page)) => Some(lost_batch(page, unit, kept.batch_id)),
            payload => payload.and_then(Payload::into_own).and_then(|own| own.batch),
        };
        // A salvage keeps the row also where it could not read the ops.
        let is_it = |batch: &Batch| batch.batch_id == kept.batch_id;
        batch.filter(is_it).ok_or(Error::DeadLetterGone { batch: kept.batch_id })
    }

    fn edit(&self, batch: &mut Batch, edit: Edit<'_>) -> Result<()> {
        for Op { table, key, action, .. } in &mut batch.ops {
            match action {
                Action::Create { record, .. } | Action::Put { record } => edit(table, key, record)?,
                Action::Patch { set, remove } => {
                    let mut fields = Record::from_fields(std::mem::take(set));
                    edit(table, key, &mut fields)?;
                    *set = fields.fields().to_vec();
                    // No patch does both; what is set now is what its writer wants.
                    remove.retain(|name| fields.field(name).is_none());
                }
                Action::Delete | Action::Undelete { .. } => {}
            }
        }
        Ok(())
    }

    /// What a write would check.
    fn check(&self, view: &WorkspaceView, op: &Op) -> Result<()> {
        let declared = &self.database().inner.declared;
        let check = |record: &Record| {
            record.check_size()?;
            declared.check_record(&op.table, &op.key, record)
        };
        match &op.action {
            Action::Create { record, .. } | Action::Put { record } => check(record),
            Action::Patch { set, remove } => {
                let Some(shown) = view.get_record(&op.table, &op.key)? else {
                    return Ok(Record::from_fields(set.clone()).check_size()?);
                };
                let mut record = shown.record;
                write::apply_patch(&mut record, set, remove);
                check(&record)
            }
            Action::Delete | Action::Undelete { .. } => Ok(()),
        }
    }

    fn send_unit(&self, unit: BatchId, edit: Edit<'_>) -> Result<Vec<Receipt>> {
        let (mut receipts, mut step, mut step_bytes) = (Vec::new(), Vec::new(), 0);
        for kept in self.unit(unit)? {
            let mut old = self.batch_of(unit, &kept)?;
            self.edit(&mut old, edit)?;
            step_bytes += old.ops.iter().map(Op::size_bytes).sum::<usize>();
            step.push(Again { letter: kept.batch_id, old });
            if step.len() == STEP_BATCHES || step_bytes >= STEP_BYTES {
                receipts.extend(self.send(unit, std::mem::take(&mut step))?);
                step_bytes = 0;
            }
        }
        receipts.extend(self.send(unit, step)?);
        Ok(receipts)
    }

    fn send(&self, unit: BatchId, step: Vec<Again>) -> Result<Vec<Receipt>> {
        let inner = &self.database().inner;
        let (workspace, clock) = (self.name().clone(), Arc::clone(&inner.last_hlc));
        let (max_undecided, now_ms) = (inner.max_undecided, inner.environment.now_ms());
        let receipts = Arc::clone(&inner.receipts);
        let sent = self.told_if_full(inner.writer.run(move |store| {
            let mut last_hlc = lock(&clock);
            let mut sent = Vec::with_capacity(step.len());
            for again in step {
                let renew = Renew {
                    workspace: &workspace,
                    unit,
                    max_undecided,
                    now_ms,
                    receipts: &receipts,
                };
                sent.push(renew.append(store, again, &mut last_hlc)?);
            }
            Ok(sent)
        }))?;
        // Somebody else may have sent or discarded some of them meanwhile.
        Ok(sent.into_iter().flatten().map(|(held, sent)| Receipt::synced(held, sent)).collect())
    }
}

/// What the server has lost of a batch, from the page that brought it: the records as they were.
fn lost_batch(page: RemotePage, unit: BatchId, batch_id: BatchId) -> Batch {
    // The conflict rows of the batch came with it; they are the server's.
    let of_unit = |Entry::Row { table, row, .. }: &Entry| row.op_id == unit && !table.is_reserved();
    let mut created_ms = 0;
    let op = |Entry::Row { table, key, row }| {
        created_ms = row.time_ms;
        let action = match row.deleted {
            true => Action::Delete,
            false => Action::Create { record: row.record, replace: true },
        };
        Op { table, key, base: 0, revision: row.revision, hlc: row.hlc, action }
    };
    let ops = page.entries.into_iter().filter(of_unit).map(op).collect();
    let (device, counter, strict, former) = (DeviceId::AUTHORITY, 0, false, Vec::new());
    Batch { device, counter, batch_id, created_ms, strict, former, ops }
}

/// What all batches of a step share.
struct Renew<'a> {
    workspace: &'a WorkspaceName,
    unit: BatchId,
    max_undecided: u64,
    now_ms: i64,
    receipts: &'a Arc<Receipts>,
}

impl Renew<'_> {
    /// Appends one batch; none if it is no dead letter any more.
    fn append(
        &self,
        store: &mut Store,
        again: Again,
        last_hlc: &mut Hlc,
    ) -> Result<Option<(Held, Written)>> {
        let newest = store.newest();
        let Some(letter) = dead_letter::removal(newest, again.letter, self.now_ms)? else {
            return Ok(None);
        };
        let identity = read::identity(newest)?.ok_or(Error::Closed)?;
        let meta = read::meta(newest, self.workspace)?;
        let undecided = meta.written.saturating_sub(meta.decided);
        if undecided >= self.max_undecided {
            return Err(Error::OutboxFull { batches: undecided, limit: self.max_undecided });
        }
        let (mut ops, mut previous, mut before) = (Vec::new(), Vec::new(), Vec::new());
        for op in again.old.ops {
            let row_key = keys::row_key(self.workspace, meta.generation, &op.table, &op.key);
            let stored = read::row(newest, &row_key)?;
            let base = write::base_of(newest, &meta, &row_key, stored.as_ref())?;
            previous.push(stored.as_ref().map_or(0, |stored| stored.position));
            let row = stored.map(|stored| stored.row);
            *last_hlc = last_hlc.next(self.now_ms);
            let action = match op.action {
                Action::Undelete { tombstone } => Action::Undelete {
                    tombstone: self.tombstone(&identity, tombstone, row.as_ref()),
                },
                action => action,
            };
            let revision = write::next(row.as_ref());
            before.push(((op.table.clone(), op.key.clone()), row));
            ops.push(Op { base, revision, hlc: *last_hlc, action, ..op });
        }
        let mut batch = Batch {
            device: identity.device,
            counter: meta.written + 1,
            batch_id: again.letter,
            created_ms: again.old.created_ms,
            strict: false,
            former: identity.former,
            ops,
        };
        batch.check_limits()?;
        batch.batch_id = again.letter.again(identity.device, self.unit, &batch.payload_hash());
        let held = self.receipts.hold(batch.batch_id);
        let (workspace, local) = (self.workspace.clone(), Vec::new());
        let sent = LocalBatch { workspace, batch: Some(batch), local, previous };
        let frame = Payload::Retry(Retry { sent, letter });
        let position = store.append(frame.kind(), &frame.to_bytes())?;
        Ok(Some((held, Written { workspace: self.workspace.clone(), position, before })))
    }

    /// An undelete that names a delete of its own unit means that delete under its new id.
    fn tombstone(&self, who: &Identity, named: TombstoneRef, row: Option<&Row>) -> TombstoneRef {
        let TombstoneRef::Batch(batch_id) = named else { return named };
        // It may have been sent before this device became another one.
        let devices = who.former.iter().chain([&who.device]);
        let again: Vec<u64> =
            devices.map(|device| batch_id.half_again(*device, self.unit)).collect();
        let is_it = |id: BatchId| id == batch_id || again.contains(&id.half());
        let is_named = |row: &&Row| row.deleted && is_it(row.op_id);
        match row.filter(is_named) {
            Some(row) if row.last.seq != PENDING_SEQ => TombstoneRef::Seq(row.last.seq),
            Some(row) => TombstoneRef::Batch(row.op_id),
            None => named,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lastword_core::protocol::Decided;
    use lastword_core::rules::{self, At, Policy};
    use lastword_core::stamp::{Decision, RefusalCode};

    use super::*;
    use crate::{Database, Table};

    type Note = BTreeMap<String, String>;
    const NOTES: Table<Note> = Table::new("notes", "id");

    fn note(id: &str, text: &str) -> Note {
        BTreeMap::from([("id".into(), id.into()), ("text".into(), text.into())])
    }

    /// I28, found by simulation. A batch that a restore has lost came with the conflict rows that
    /// the server had written for it. Sent again, it named them too, and was refused as a whole.
    #[test]
    fn what_the_server_wrote_beside_a_lost_batch_is_not_sent_again() {
        let unit = BatchId([7; 16]);
        let entry = |table: &str, key: &str| {
            let (table, key) = (TableName::new(table).unwrap(), Key::new(key).unwrap());
            let action = Action::Create { record: Record::default(), replace: false };
            let (base, revision, hlc) = (0, 1, Hlc::default());
            let op = Op { table: table.clone(), key: key.clone(), base, revision, hlc, action };
            let at = At { seq: 9, time_ms: 1, op_id: unit };
            let row = rules::apply(None, &op, DeviceId([1; 16]), &at, Policy::Arrival, &[]);
            let row = row.unwrap();
            Entry::Row { table, key, row }
        };
        let page = RemotePage {
            workspace: WorkspaceName::new("main").unwrap(),
            from: 8,
            to: 10,
            consistent_at: Some(10),
            entries: vec![entry("_conflicts", "c1"), entry("notes", "n1")],
            previous: vec![0, 0],
            walk: None,
        };
        let batch = lost_batch(page, unit, BatchId([8; 16]));
        let names: Vec<&str> = batch.ops.iter().map(|op| op.table.as_str()).collect();
        assert_eq!(names, ["notes"]);
    }

    struct Fixture {
        dir: tempfile::TempDir,
        db: Database,
        ws: Workspace,
    }

    impl Fixture {
        fn open(dir: tempfile::TempDir, max_undecided: u64) -> Self {
            let builder = Database::builder().tables(NOTES).max_undecided(max_undecided);
            let db = builder.open(dir.path().join("db")).unwrap();
            let ws = db.workspace("main").unwrap();
            Self { dir, db, ws }
        }

        fn again(self, max_undecided: u64) -> Self {
            self.db.close().unwrap();
            Self::open(self.dir, max_undecided)
        }

        fn outbox(&self) -> Vec<Batch> {
            let entries = read::outbox(&*self.db.view(), self.ws.name(), 0, usize::MAX).unwrap();
            let mut batches = Vec::new();
            for (counter, entry) in entries {
                let frame = self.db.inner.writer.views().read_frame(entry.position).unwrap();
                let payload = Payload::from_frame(frame.kind, &frame.payload).unwrap();
                let batch = payload.into_own().unwrap().batch.unwrap();
                assert_eq!(batch.batch_id, entry.batch_id);
                assert_eq!(batch.payload_hash(), entry.payload_hash);
                batches.push(Batch { counter, ..batch });
            }
            batches
        }

        /// The server refuses the first batch that waits.
        fn refuse(&self) -> BatchId {
            let view = self.db.view();
            let meta = read::meta(&*view, self.ws.name()).unwrap();
            let counter = meta.decided + 1;
            let entry = read::outbox_entry(&*view, self.ws.name(), counter).unwrap().unwrap();
            let (code, message) = (RefusalCode::Policy, "no".to_owned());
            let decision = Decision::Refused { code, message, time_ms: 1 };
            let refused = Decided { counter, batch_id: entry.batch_id, decision };
            let unit = dead_letter::unit(&*view, self.ws.name(), &refused, 1).unwrap();
            let frame = Payload::DeadLetters(unit);
            let append =
                move |store: &mut Store| Ok(store.append(frame.kind(), &frame.to_bytes())?);
            self.db.inner.writer.run(append).unwrap();
            entry.batch_id
        }

        fn text(&self, id: &str) -> Option<String> {
            self.ws.get(NOTES, id).unwrap().map(|row| row["text"].clone())
        }

        fn letters(&self) -> usize {
            self.ws.dead_letters().unwrap().len()
        }
    }

    /// Four batches on n1 of which the first is refused, with another record's in between: create,
    /// patch, delete, undelete of that delete.
    fn refused_unit(max_undecided: u64) -> (Fixture, BatchId) {
        let fixture = Fixture::open(tempfile::tempdir().unwrap(), max_undecided);
        let ws = &fixture.ws;
        ws.write(|tx| tx.put(NOTES, &note("n1", "first"))).unwrap();
        ws.write(|tx| tx.update(NOTES, "n1", |n| drop(n.insert("text".into(), "second".into()))))
            .unwrap();
        ws.write(|tx| tx.put(NOTES, &note("n2", "other"))).unwrap();
        ws.write(|tx| tx.delete(NOTES, "n1")).unwrap();
        ws.write(|tx| tx.undelete(NOTES, "n1")).unwrap();
        assert_eq!(fixture.text("n1").as_deref(), Some("second"));
        let unit = fixture.refuse();
        assert_eq!((fixture.text("n1"), fixture.letters()), (None, 4));
        (fixture, unit)
    }

    fn undeleted(batch: &Batch) -> TombstoneRef {
        match batch.ops[0].action {
            Action::Undelete { tombstone } => tombstone,
            ref other => panic!("{other:?} is no undelete"),
        }
    }

    /// Rule 9: somebody gave a refused batch a field back that it had removed. The batch set and
    /// removed it, which no server takes: it was refused again, as not valid.
    #[test]
    fn a_removed_field_can_be_set_by_an_edit() {
        let fixture = Fixture::open(tempfile::tempdir().unwrap(), 10);
        let ws = &fixture.ws;
        ws.write(|tx| tx.put(NOTES, &note("n1", "first"))).unwrap();
        ws.write(|tx| tx.update(NOTES, "n1", |n| drop(n.remove("text")))).unwrap();
        let unit = fixture.refuse();
        let back = lastword_core::value::Value::Text("back".into());
        let edited = ws.edit_dead_letter(unit, |_, _, record| {
            record.set(lastword_core::value::Field::new("text", &back));
            Ok(())
        });
        edited.unwrap();
        fixture.outbox().iter().for_each(|batch| batch.check_untrusted().unwrap());
        assert_eq!(fixture.text("n1").as_deref(), Some("back"));
    }

    /// Rule 9: a unit goes back in its order under new ids, an undelete of it names the new id of
    /// its delete, every row of it goes, and what is shown is what its writer wanted.
    #[test]
    fn a_unit_is_sent_again_in_its_order() {
        let (fixture, unit) = refused_unit(10);
        let before = fixture.outbox();
        let receipts = fixture.ws.retry_dead_letter(unit).unwrap();
        let after = fixture.outbox();
        assert_eq!((before.len(), after.len(), receipts.len()), (1, 5, 4));
        assert_eq!(after[0], before[0], "what waited was not touched");
        let counters: Vec<u64> = after.iter().map(|batch| batch.counter).collect();
        assert_eq!(counters, [2, 3, 4, 5, 6]);
        let ids: Vec<BatchId> = receipts.iter().filter_map(Receipt::batch_id).collect();
        assert_eq!(ids, after[1..].iter().map(|batch| batch.batch_id).collect::<Vec<_>>());
        assert!(!ids.contains(&unit));
        assert_eq!(undeleted(&after[4]), TombstoneRef::Batch(after[3].batch_id));
        assert_eq!(fixture.text("n1").as_deref(), Some("second"));
        assert_eq!(fixture.letters(), 0);
        let gone = fixture.ws.retry_dead_letter(unit);
        assert!(matches!(gone, Err(Error::NoDeadLetter { .. })), "{gone:?}");

        let fixture = fixture.again(10);
        assert_eq!(fixture.outbox(), after);
        assert_eq!(fixture.text("n1").as_deref(), Some("second"));
        // Refused again, the unit is another one, with all of its batches.
        let other = fixture.refuse();
        assert_eq!((other, fixture.letters()), (before[0].batch_id, 1));
        let again = fixture.refuse();
        assert_eq!((again, fixture.letters()), (ids[0], 5));
        assert_eq!(fixture.ws.retry_dead_letter(again).unwrap().len(), 4);
        let all = fixture.outbox();
        assert_eq!(undeleted(&all[3]), TombstoneRef::Batch(all[2].batch_id));
    }

    /// I19, trap of a crash in the middle: the outbox took three of four batches, then the process
    /// ended. Each batch is in the outbox or a dead letter, never both and never neither, and the
    /// undelete that comes later still names the delete that went before.
    #[test]
    fn a_unit_that_was_sent_in_part_goes_on() {
        let (fixture, unit) = refused_unit(5);
        let fixture = fixture.again(4);
        let full = fixture.ws.retry_dead_letter(unit);
        assert!(matches!(full, Err(Error::OutboxFull { limit: 4, .. })), "{full:?}");
        assert_eq!((fixture.outbox().len(), fixture.letters()), (4, 1));
        let fixture = fixture.again(100);
        let sent = fixture.outbox();
        assert_eq!((sent.len(), fixture.letters()), (4, 1));
        assert_eq!(fixture.text("n1"), None, "it is deleted so far");
        assert_eq!(fixture.ws.retry_dead_letter(unit).unwrap().len(), 1);
        let all = fixture.outbox();
        assert_eq!((&all[..4], all.len(), fixture.letters()), (&sent[..], 5, 0));
        assert_eq!(undeleted(&all[4]), TombstoneRef::Batch(all[3].batch_id));
        assert_eq!(fixture.text("n1").as_deref(), Some("second"));
    }

    /// Rule 9.1. A unit was sent in part, then the device became another one: the undelete still
    /// named the delete that had been refused, and was refused itself.
    #[test]
    fn a_unit_that_was_sent_in_part_goes_on_after_a_fork() {
        let (fixture, unit) = refused_unit(5);
        let fixture = fixture.again(4);
        fixture.ws.retry_dead_letter(unit).unwrap_err();
        let other = DeviceId([9; 16]);
        let fork = move |store: &mut Store| crate::replicator::store_fork(store, other, 1);
        fixture.db.inner.writer.run(fork).unwrap();
        let fixture = fixture.again(100);
        assert_eq!(fixture.ws.retry_dead_letter(unit).unwrap().len(), 1);
        let all = fixture.outbox();
        assert_eq!(undeleted(&all[4]), TombstoneRef::Batch(all[3].batch_id));
    }

    /// I5, rule 9.1. Two copies of a directory sent one letter (seed 52 of the simulator): both
    /// did it under one id with other content, and the later one stopped for good.
    #[test]
    fn two_copies_of_a_store_send_a_letter_under_ids_of_their_own() {
        let (fixture, unit) = refused_unit(10);
        fixture.db.close().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let (from, to) = (fixture.dir.path().join("db"), copy.path().join("db"));
        let copied = std::process::Command::new("cp").arg("-r").args([&from, &to]).status();
        assert!(copied.unwrap().success());
        let sent = [(fixture.dir, "one"), (copy, "other")].map(|(dir, text)| {
            let fixture = Fixture::open(dir, 10);
            let edited = fixture.ws.edit_dead_letter(unit, |_, _, record| {
                let text = lastword_core::value::Value::Text(text.into());
                record.set(lastword_core::value::Field::new("text", &text));
                Ok(())
            });
            edited.unwrap().first().and_then(Receipt::batch_id).unwrap()
        });
        assert_ne!(sent[0], sent[1]);
        assert_eq!(sent[0].half(), sent[1].half());
    }

    /// An edit changes what is sent and is checked like a write before any of it is sent.
    #[test]
    fn a_unit_is_edited_as_a_whole_or_not_at_all() {
        let (fixture, unit) = refused_unit(10);
        let edit = |record: &mut Record, text: &str| {
            let text = lastword_core::value::Value::Text(text.into());
            record.set(lastword_core::value::Field::new("text", &text));
        };
        let mut calls = 0;
        let too_large = fixture.ws.edit_dead_letter(unit, |_, _, record| {
            calls += 1;
            edit(record, &if calls == 2 { "x".repeat(300_000) } else { "short".into() });
            Ok(())
        });
        assert!(matches!(too_large, Err(Error::Value(_))), "{too_large:?}");
        let no = fixture.ws.edit_dead_letter(unit, |_, _, _| Err(Error::Aborted("no".into())));
        assert!(matches!(no, Err(Error::Aborted(_))), "{no:?}");
        let key = fixture.ws.edit_dead_letter(unit, |_, _, record| {
            record.remove("id");
            Ok(())
        });
        assert!(matches!(key, Err(Error::KeyField { .. })), "{key:?}");
        assert_eq!((fixture.outbox().len(), fixture.letters()), (1, 4));

        fixture
            .ws
            .edit_dead_letter(unit, |table, key, record| {
                assert_eq!((table.as_str(), key.as_str()), ("notes", "n1"));
                edit(record, "edited");
                Ok(())
            })
            .unwrap();
        assert_eq!((fixture.outbox().len(), fixture.letters()), (5, 0));
        assert_eq!(fixture.text("n1").as_deref(), Some("edited"));
    }

    /// A discarded unit is gone, also after a restart, and nothing else is.
    #[test]
    fn a_unit_is_discarded() {
        let (fixture, unit) = refused_unit(10);
        assert_eq!(fixture.ws.discard_dead_letter(unit).unwrap(), 4);
        let fixture = fixture.again(10);
        assert_eq!((fixture.outbox().len(), fixture.letters()), (1, 0));
        assert_eq!((fixture.text("n1"), fixture.text("n2").as_deref()), (None, Some("other")));
        let gone = fixture.ws.discard_dead_letter(unit);
        assert!(matches!(gone, Err(Error::NoDeadLetter { .. })), "{gone:?}");
        let elsewhere = fixture.db.workspace("elsewhere").unwrap().discard_dead_letter(unit);
        assert!(matches!(elsewhere, Err(Error::NoDeadLetter { .. })), "{elsewhere:?}");
    }

    /// B3. A fold keeps the ops of a dead letter for as long as it is one, and those of a batch
    /// that was sent again for as long as it waits; nothing else holds what was before.
    #[test]
    fn a_fold_keeps_the_ops_of_a_unit() {
        let (fixture, unit) = refused_unit(10);
        let needed = |fixture: &Fixture| read::needed_from(&*fixture.db.view()).unwrap();
        let first = needed(&fixture);
        let position = |fixture: &Fixture| {
            let entries = read::outbox(&*fixture.db.view(), fixture.ws.name(), 0, usize::MAX);
            entries.unwrap().iter().map(|(_, entry)| entry.position).min().unwrap()
        };
        assert!(first < position(&fixture), "the letters are older than what waits");
        fixture.ws.retry_dead_letter(unit).unwrap();
        assert_eq!(needed(&fixture), position(&fixture));
        fixture.refuse();
        fixture.refuse();
        assert_eq!(fixture.letters(), 5);
        assert!(needed(&fixture) > first && needed(&fixture) < u64::MAX);
    }
}
