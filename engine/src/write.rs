//! Local writes: one closure becomes one atomic batch.
//!
//! The closure runs on the caller's thread over a consistent view and collects one intent per
//! record. The writer thread then checks that none of those records moved since (else the closure
//! runs again), gives counter and bases, and appends one frame.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lastword_core::hash::BlobHash;
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, Key, TableName, WorkspaceName};
use lastword_core::limits::MAX_BATCH_OPS;
use lastword_core::op::{Action, Batch, BatchError, Op, TombstoneRef};
use lastword_core::plant::{Plant, planted};
use lastword_core::row::Row;
use lastword_core::rules::{PENDING_SEQ, Policy, TableRules};
use lastword_core::schema::Schema;
use lastword_core::stamp::Mark;
use lastword_core::value::{Field, Record};
use lastword_store::keys::{self, StoredRow, WorkspaceMeta};
use lastword_store::payload::{LocalBatch, Payload, Squash};
use lastword_store::read::{self, ReadState};
use lastword_store::{BlobError, Store, View};

use crate::error::{Error, Result};
use crate::schema::Declared;
use crate::squash::{self, Place, Squashed};
use crate::unsent::Unsent;

type Name = (TableName, Key);

/// One write in the making; every change in it is durable and synced together or not at all.
pub struct Tx {
    workspace: WorkspaceName,
    view: Arc<View>,
    generation: u32,
    declared: Arc<Declared>,
    /// The authority's, as far as this device has heard of it.
    schema: Arc<Schema>,
    records: BTreeMap<Name, Working>,
    /// Files that its records name for the first time, by SHA-256.
    files: BTreeSet<[u8; 32]>,
}

/// One record inside a write.
struct Working {
    /// Which version was read.
    observed: Option<Observed>,
    /// The row in the view.
    before: Option<Row>,
    intent: Option<Intent>,
    /// What the closure wanted before it deleted the record, for an undelete in the same write.
    undone: Option<Intent>,
}

/// What the closure wants done to one record, folded so far.
#[derive(Clone)]
enum Intent {
    Create { record: Record, replace: bool },
    Put { record: Record },
    Patch { set: Vec<Field>, remove: Vec<String> },
    Delete,
    Undelete { tombstone: TombstoneRef },
}

/// Tells one visible version of a record from another. The position alone does not: a verdict on an
/// own op changes what is shown, and adds nothing to the record's history.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Observed {
    position: u64,
    last: Mark,
    op_id: BatchId,
    deleted: bool,
}

impl Observed {
    fn of(stored: &StoredRow) -> Self {
        let StoredRow { position, row } = stored;
        Self { position: *position, last: row.last, op_id: row.op_id, deleted: row.deleted }
    }
}

impl Working {
    /// The live value that the closure sees.
    fn record(&self) -> Option<Record> {
        let before = self.before.as_ref();
        let live = || before.filter(|row| !row.deleted).map(|row| row.record.clone());
        match &self.intent {
            None => live(),
            Some(Intent::Create { record, .. } | Intent::Put { record }) => Some(record.clone()),
            Some(Intent::Patch { set, remove }) => {
                let mut record = live()?;
                apply_patch(&mut record, set, remove);
                Some(record)
            }
            Some(Intent::Delete) => None,
            Some(Intent::Undelete { .. }) => before.map(|row| row.record.clone()),
        }
    }

    /// The row whose life goes on if the record is written now.
    fn staying(&self) -> Option<&Row> {
        let begins = matches!(self.intent, Some(Intent::Create { .. } | Intent::Delete));
        self.before.as_ref().filter(|row| !row.deleted && !begins)
    }

    fn is_live_before(&self) -> bool {
        self.before.as_ref().is_some_and(|row| !row.deleted)
    }
}

/// What decides about the ops of a table; nothing does where they never leave the device.
fn rules_of<'a>(schema: &'a Schema, declared: &Declared, table: &TableName) -> TableRules<'a> {
    match declared.is_local(table) {
        true => TableRules::default(),
        false => schema.rules_of(table),
    }
}

/// Server-owned fields are not the app's to write: they stay as they are in the row.
fn leave_as_they_are(owned: &[String], record: &mut Record, row: Option<&Row>) {
    for name in owned {
        match row.and_then(|row| row.record.field(name)) {
            Some(field) => record.set(field.clone()),
            None => record.remove(name),
        }
    }
}

fn twice_named<'a>(set: &'a [Field], remove: &'a [String]) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    let names =
        set.iter().map(|field| field.name.as_str()).chain(remove.iter().map(String::as_str));
    names.into_iter().find(|name| !seen.insert(*name))
}

pub(crate) fn apply_patch(record: &mut Record, set: &[Field], remove: &[String]) {
    set.iter().for_each(|field| record.set(field.clone()));
    remove.iter().for_each(|name| record.remove(name));
}

impl Tx {
    pub(crate) fn new(
        workspace: &WorkspaceName,
        view: Arc<View>,
        declared: Arc<Declared>,
    ) -> Result<Self> {
        let generation = read::meta(&*view, workspace)?.generation;
        let schema = Arc::new(read::schema(&*view, workspace)?.unwrap_or_default());
        let (workspace, records, files) = (workspace.clone(), BTreeMap::new(), BTreeSet::new());
        Ok(Self { workspace, view, generation, declared, schema, records, files })
    }

    pub(crate) fn declared(&self) -> &Declared {
        &self.declared
    }

    fn working(&mut self, table: &TableName, key: &Key) -> Result<&mut Working> {
        let name = (table.clone(), key.clone());
        if !self.records.contains_key(&name) {
            let row_key = keys::row_key(&self.workspace, self.generation, table, key);
            let stored = read::row(&*self.view, &row_key)?;
            let working = Working {
                observed: stored.as_ref().map(Observed::of),
                before: stored.map(|stored| stored.row),
                intent: None,
                undone: None,
            };
            self.records.insert(name.clone(), working);
        }
        Ok(self.records.get_mut(&name).expect("invariant: it was just inserted"))
    }

    fn writable(table: &TableName) -> Result<()> {
        if table.is_reserved() { Err(Error::Reserved { table: table.clone() }) } else { Ok(()) }
    }

    /// The record as this write sees it: its own changes included, deleted records not.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn get_record(&mut self, table: &TableName, key: &Key) -> Result<Option<Record>> {
        Ok(self.working(table, key)?.record())
    }

    /// Writes the whole record: creates it, or replaces every field of it.
    ///
    /// # Errors
    /// [`Error::Reserved`] for a product table, [`Error::Value`] beyond the size limit,
    /// [`Error::KeyField`] if the key field of a declared table does not hold the key.
    pub fn put_record(&mut self, table: &TableName, key: &Key, mut record: Record) -> Result<()> {
        Self::writable(table)?;
        let (schema, declared) = (Arc::clone(&self.schema), Arc::clone(&self.declared));
        let owned = rules_of(&schema, &declared, table).server_owned;
        let working = self.working(table, key)?;
        // A record that begins has none of them, and one that stays keeps its own.
        leave_as_they_are(owned, &mut record, working.staying());
        record.check_size()?;
        declared.check_record(table, key, &record)?;
        let intent = match (&working.intent, working.is_live_before()) {
            (Some(Intent::Create { replace, .. }), _) => {
                Intent::Create { record, replace: *replace }
            }
            (Some(Intent::Delete), true) => Intent::Create { record, replace: true },
            (Some(Intent::Undelete { .. }), _) => return Err(undelete_and_edit(table, key)),
            (_, true) => Intent::Put { record },
            (_, false) => Intent::Create { record, replace: false },
        };
        working.intent = Some(intent);
        Ok(())
    }

    /// Sets and removes fields of a live record; its other fields stay, also if another device
    /// changes them meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such record, [`Error::Value`] beyond the size limit,
    /// [`Error::KeyField`] if it would change the key field of a declared table.
    pub fn patch_record(
        &mut self,
        table: &TableName,
        key: &Key,
        set: Vec<Field>,
        remove: Vec<String>,
    ) -> Result<()> {
        Self::writable(table)?;
        if let Some(name) = twice_named(&set, &remove) {
            let reason = format!("the patch names field {name:?} twice");
            let (table, key) = (table.as_str().into(), key.as_str().into());
            return Err(Error::Record { table, key, reason });
        }
        let (schema, declared) = (Arc::clone(&self.schema), Arc::clone(&self.declared));
        let rules = rules_of(&schema, &declared, table);
        let working = self.working(table, key)?;
        let Some(mut record) = working.record() else { return Err(not_found(table, key)) };
        let named = set.len() + remove.len();
        let (mut set, mut remove) = (set, remove);
        set.retain(|field| !rules.server_owned.contains(&field.name));
        remove.retain(|name| !rules.server_owned.contains(name));
        if named > 0 && set.is_empty() && remove.is_empty() {
            return Ok(());
        }
        apply_patch(&mut record, &set, &remove);
        record.check_size()?;
        declared.check_record(table, key, &record)?;
        let intent = match working.intent.take() {
            Some(Intent::Create { replace, .. }) => Intent::Create { record, replace },
            Some(Intent::Put { .. }) => Intent::Put { record },
            Some(Intent::Undelete { .. }) => return Err(undelete_and_edit(table, key)),
            // There a tuple names a whole value.
            _ if rules.policy == Policy::Revision => Intent::Put { record },
            Some(Intent::Patch { set: mut earlier, remove: mut gone }) => {
                earlier.retain(|field| !remove.contains(&field.name));
                gone.retain(|name| !set.iter().any(|field| &field.name == name));
                gone.retain(|name| !remove.contains(name));
                earlier.retain(|old| !set.iter().any(|field| field.name == old.name));
                earlier.extend(set);
                gone.extend(remove);
                Intent::Patch { set: earlier, remove: gone }
            }
            Some(Intent::Delete) | None => Intent::Patch { set, remove },
        };
        working.intent = Some(intent);
        Ok(())
    }

    /// Edits a live record in place; what changed is written as a patch, so fields that this app
    /// does not know survive.
    ///
    /// # Errors
    /// As [`Tx::patch_record`].
    pub fn update_record(
        &mut self,
        table: &TableName,
        key: &Key,
        edit: impl FnOnce(&mut Record),
    ) -> Result<()> {
        let Some(before) = self.get_record(table, key)? else { return Err(not_found(table, key)) };
        let mut after = before.clone();
        edit(&mut after);
        let (set, remove) = difference(&before, &after);
        if set.is_empty() && remove.is_empty() {
            return Ok(());
        }
        self.patch_record(table, key, set, remove)
    }

    /// Deletes a live record; its value is kept and can be brought back until retention ends.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such record.
    pub fn delete_record(&mut self, table: &TableName, key: &Key) -> Result<()> {
        Self::writable(table)?;
        let working = self.working(table, key)?;
        if working.record().is_none() {
            return Err(not_found(table, key));
        }
        let undone = working.intent.take();
        working.intent = match &undone {
            Some(Intent::Create { replace: false, .. } | Intent::Undelete { .. }) => None,
            _ => Some(Intent::Delete),
        };
        working.undone = undone;
        Ok(())
    }

    /// Brings back exactly the value of a deleted record.
    ///
    /// # Errors
    /// [`Error::NotDeleted`] if the record is live or was never known, [`Error::NoUndelete`] in a
    /// table under policy `revision`, [`Error::ValueGone`] if it was erased.
    pub fn undelete_record(&mut self, table: &TableName, key: &Key) -> Result<()> {
        Self::writable(table)?;
        let policy = rules_of(&self.schema, &self.declared, table).policy;
        let working = self.working(table, key)?;
        // Deleted in this write: what it was just before is what comes back.
        if matches!(working.intent, Some(Intent::Delete)) {
            working.intent = working.undone.take();
            return Ok(());
        }
        if working.intent.is_none() && working.undone.is_some() {
            working.intent = working.undone.take();
            return Ok(());
        }
        let tombstone =
            working.before.as_ref().filter(|row| row.deleted && working.intent.is_none());
        let Some(row) = tombstone else {
            let (table, key) = (table.as_str().into(), key.as_str().into());
            return Err(Error::NotDeleted { table, key });
        };
        if policy == Policy::Revision {
            let (table, key) = (table.as_str().into(), key.as_str().into());
            return Err(Error::NoUndelete { table, key });
        }
        if row.is_erased() {
            let (table, key) = (table.as_str().into(), key.as_str().into());
            return Err(Error::ValueGone { table, key });
        }
        // An own delete without a verdict has no seq yet; its batch names it.
        let tombstone = match row.last.seq {
            PENDING_SEQ => TombstoneRef::Batch(row.op_id),
            seq => TombstoneRef::Seq(seq),
        };
        working.intent = Some(Intent::Undelete { tombstone });
        Ok(())
    }

    /// The write is refused unless the file with that SHA-256 is here when it is written.
    pub(crate) fn needs_file(&mut self, sha256: [u8; 32]) {
        self.files.insert(sha256);
    }

    /// The authority's schema, as far as this device has heard of it.
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How the workspace's schema decides about a table.
    pub(crate) fn policy(&self, table: &TableName) -> Policy {
        rules_of(&self.schema, &self.declared, table).policy
    }

    /// The row of a record before this write, tombstones too.
    pub(crate) fn row(&mut self, table: &TableName, key: &Key) -> Result<Option<Row>> {
        Ok(self.working(table, key)?.before.clone())
    }

    /// What is to be written, and the rows before it.
    pub(crate) fn into_draft(mut self) -> (Draft, Vec<(Name, Option<Row>)>) {
        let (mut ops, mut rows) = (Vec::new(), Vec::new());
        for ((table, key), working) in std::mem::take(&mut self.records) {
            let Working { observed, before, intent, .. } = working;
            let Some(intent) = intent else { continue };
            let revision = next(before.as_ref());
            rows.push(((table.clone(), key.clone()), before));
            ops.push(DraftOp { table, key, observed, revision, intent });
        }
        let Self { workspace, schema, files, .. } = self;
        (Draft { workspace, schema, files, ops }, rows)
    }
}

pub(crate) fn next(before: Option<&Row>) -> u64 {
    before.map_or(1, |row| row.revision.saturating_add(1))
}

pub(crate) fn not_found(table: &TableName, key: &Key) -> Error {
    Error::NotFound { table: table.as_str().into(), key: key.as_str().into() }
}

fn undelete_and_edit(table: &TableName, key: &Key) -> Error {
    Error::Record {
        table: table.as_str().into(),
        key: key.as_str().into(),
        reason: "an undelete and an edit of one record need two writes".into(),
    }
}

/// Fields to set and names to remove that turn `before` into `after`.
pub(crate) fn difference(before: &Record, after: &Record) -> (Vec<Field>, Vec<String>) {
    let changed = |field: &&Field| before.field(&field.name) != Some(field);
    let set = after.fields().iter().filter(changed).cloned().collect();
    let gone = before.fields().iter().filter(|field| after.field(&field.name).is_none());
    (set, gone.map(|field| field.name.clone()).collect())
}

/// A finished closure: what the writer thread turns into a batch.
pub(crate) struct Draft {
    workspace: WorkspaceName,
    /// What the closure went by.
    schema: Arc<Schema>,
    files: BTreeSet<[u8; 32]>,
    ops: Vec<DraftOp>,
}

impl Draft {
    /// Whether it has an op on a table.
    pub(crate) fn writes_to(&self, table: &str) -> bool {
        self.ops.iter().any(|op| op.table.as_str() == table)
    }
}

struct DraftOp {
    table: TableName,
    key: Key,
    observed: Option<Observed>,
    revision: u64,
    intent: Intent,
}

/// What became of a draft on the writer thread.
pub(crate) enum Appended {
    /// A record or the schema moved since the closure read it; run the closure again.
    Moved,
    /// It has nothing to sync: it touched local tables only, or nothing. Position of its frame, 0
    /// if there is none.
    Local(u64),
    /// Its batch is in the outbox; position of its frame, and the batch that it has taken in.
    Synced(u64, Option<BatchId>),
}

/// How a write is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    pub(crate) squash: bool,
    /// Those who carry files need not look: it is one of them who writes how far it is.
    pub(crate) quiet: bool,
}

impl WriteOptions {
    /// The write may become one batch with the one before it: if that one was written by this
    /// process with this option, names at least the same records, and no connection has taken it
    /// yet. For an app that updates a record many times a second, such as a text that is streamed:
    /// what waits to be sent is one batch, not one for each update. Both are decided as one then:
    /// a refusal refuses both, and each receipt gets the verdict of the batch that took its own in,
    /// op by op in the order of that batch. Each such write stores all ops of the batch again, so a
    /// write of few records that grows by small steps is what it is for.
    #[must_use]
    pub fn squash(mut self) -> Self {
        self.squash = true;
        self
    }
}

/// What the writer thread needs besides the draft.
pub(crate) struct Author<'a> {
    pub(crate) is_local: &'a dyn Fn(&TableName) -> bool,
    pub(crate) last_hlc: &'a mut Hlc,
    pub(crate) max_undecided: u64,
    pub(crate) unsent: &'a Unsent,
    pub(crate) options: WriteOptions,
}

/// Whoever reads a record finds the file that it names, whatever became of that meanwhile.
fn check_files<S: ReadState>(state: &S, draft: &Draft) -> Result<()> {
    for sha256 in &draft.files {
        if read::blob(state, &draft.workspace, sha256)?.is_none() {
            return Err(BlobError::Missing { hash: BlobHash::Sha256(*sha256) }.into());
        }
    }
    Ok(())
}

/// Ops with the position of their record's frame before, 0 = none.
type Placed = (Vec<Op>, Vec<u64>);

/// Checks that nothing moved, gives counter, bases and clock, and appends the frame.
pub(crate) fn append(
    store: &mut Store,
    draft: &Draft,
    batch_id: BatchId,
    now: i64,
    mut author: Author<'_>,
) -> Result<Appended> {
    if draft.ops.is_empty() {
        return Ok(Appended::Local(0));
    }
    let newest = store.newest();
    let identity = read::identity(newest)?.ok_or(Error::Closed)?;
    let meta = read::meta(newest, &draft.workspace)?;
    if read::schema(newest, &draft.workspace)?.unwrap_or_default() != *draft.schema {
        return Ok(Appended::Moved);
    }
    let Some(((ops, previous), (local, previous_local))) =
        placed(newest, draft, &meta, now, &mut author)?
    else {
        return Ok(Appended::Moved);
    };
    if local.len() > MAX_BATCH_OPS {
        return Err(BatchError::TooManyOps { len: local.len(), limit: MAX_BATCH_OPS }.into());
    }
    let workspace = draft.workspace.clone();
    if ops.is_empty() {
        let frame = LocalBatch { workspace, batch: None, local, previous: previous_local };
        return Ok(Appended::Local(append_frame(store, draft, &Payload::Local(frame))?));
    }
    let (device, former) = (identity.device, identity.former.clone());
    let (counter, created_ms, strict) = (meta.written + 1, now, false);
    let batch = Batch { device, counter, batch_id, created_ms, strict, former, ops };
    batch.check_limits()?;
    // Nobody may read the outbox to send it while it is looked at.
    let mut outboxes = author.options.squash.then(|| author.unsent.lock());
    let place = Place { workspace: &workspace, meta: &meta, identity, schema: &draft.schema };
    let before = outboxes.as_ref().and_then(|outboxes| outboxes.newest(&workspace));
    let taken_in = match before {
        Some(before) => squash::squashed(newest, &place, before, &batch)?,
        None => None,
    };
    let undecided = meta.written.saturating_sub(meta.decided);
    if taken_in.is_none() && undecided >= author.max_undecided {
        return Err(Error::OutboxFull { batches: undecided, limit: author.max_undecided });
    }
    let (batch, mut previous, replaced) = match taken_in {
        Some(Squashed { batch, previous, replaced }) => (batch, previous, Some(replaced)),
        None => (batch, previous, None),
    };
    previous.extend(previous_local);
    let counter = batch.counter;
    let sent = LocalBatch { workspace: workspace.clone(), batch: Some(batch), local, previous };
    let payload = match replaced {
        Some(replaced) => Payload::Squash(Squash { replaced, sent }),
        None => Payload::Local(sent),
    };
    let position = append_frame(store, draft, &payload)?;
    if let Some(outboxes) = &mut outboxes {
        let replaced_at = replaced.map(|_| position);
        outboxes.wrote(&workspace, (counter, batch_id), replaced_at);
    }
    Ok(Appended::Synced(position, replaced))
}

/// The ops of a draft, synced ones and local ones; `None` if a record moved since it was read.
fn placed<S: ReadState>(
    newest: &S,
    draft: &Draft,
    meta: &WorkspaceMeta,
    now: i64,
    author: &mut Author<'_>,
) -> Result<Option<(Placed, Placed)>> {
    check_files(newest, draft)?;
    let (mut synced, mut local) = (Placed::default(), Placed::default());
    for draft_op in &draft.ops {
        let DraftOp { table, key, .. } = draft_op;
        let row_key = keys::row_key(&draft.workspace, meta.generation, table, key);
        let stored = read::row(newest, &row_key)?;
        if stored.as_ref().map(Observed::of) != draft_op.observed {
            return Ok(None);
        }
        *author.last_hlc = author.last_hlc.next(now);
        let is_local = (author.is_local)(table) || draft.schema.is_local(table);
        let op = Op {
            table: table.clone(),
            key: key.clone(),
            base: if is_local { 0 } else { base_of(newest, meta, &row_key, stored.as_ref())? },
            revision: draft_op.revision,
            hlc: *author.last_hlc,
            action: draft_op.intent.action(),
        };
        let (ops, previous) = if is_local { &mut local } else { &mut synced };
        ops.push(op);
        previous.push(stored.map_or(0, |stored| stored.position));
    }
    Ok(Some((synced, local)))
}

/// Deleting is how a user frees a full disk.
fn append_frame(store: &mut Store, draft: &Draft, payload: &Payload) -> Result<u64> {
    let (kind, bytes) = (payload.kind(), payload.to_bytes());
    Ok(match draft.ops.iter().all(|op| matches!(op.intent, Intent::Delete)) {
        true => store.append_urgent(kind, &bytes)?,
        false => store.append(kind, &bytes)?,
    })
}

impl Intent {
    fn action(&self) -> Action {
        match self.clone() {
            Intent::Create { record, replace } => Action::Create { record, replace },
            Intent::Put { record } => Action::Put { record },
            Intent::Patch { set, remove } => Action::Patch { set, remove },
            Intent::Delete => Action::Delete,
            Intent::Undelete { tombstone } => Action::Undelete { tombstone },
        }
    }
}

/// An op on a record with own ops under way inherits the base of the first of them, unless all of
/// them are predicted to lose, so that the user saw the authority's row. A row behind the cursor is
/// an own write that the old copy keeps until a new one is whole: of what others wrote between the
/// two the user has seen nothing.
pub(crate) fn base_of<S: ReadState>(
    state: &S,
    meta: &WorkspaceMeta,
    row_key: &[u8],
    seen: Option<&StoredRow>,
) -> Result<u64> {
    // Only a record with own ops under way has a shadow, and looking for one is cheap.
    let first = match read::has_shadow(state, row_key)? {
        true => read::first_pending(state, row_key)?,
        false => None,
    };
    let shown_to = if meta.bootstrapped { meta.cursor } else { u64::MAX };
    let seq_of = |row: Option<&StoredRow>| row.map_or(0, |row| row.row.last.seq.min(shown_to));
    let Some(first) = first else { return Ok(seq_of(seen)) };
    let authority = read::authority_row(state, row_key)?;
    let shows_authority = match (&authority, seen) {
        (Some(authority), Some(seen)) => authority.row == seen.row,
        (None, None) => true,
        _ => false,
    };
    Ok(match shows_authority {
        false if !planted(Plant::BaseOfNewest) => first.op.base,
        _ => seq_of(authority.as_ref()),
    })
}
