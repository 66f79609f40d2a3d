//! The event of a conflict: exactly once on the device whose value gave way.
//!
//! Rows of `_conflicts` have keys that begin with the seq of the op that made them, and all rows up
//! to the cursor are visible. So one key per workspace says which conflicts were told: those up to
//! it. It stands in a row of `_told` in workspace `_store`, which never syncs. The first copy of a
//! workspace sets it to its end before that shows; afterwards it only rises, so rows that come
//! again with a reset are not told again. It is written after the hook has returned: a process that
//! is killed between the two tells that one conflict again.

use std::sync::Arc;

use lastword_core::hlc::Hlc;
use lastword_core::id::{DeviceId, Key, TableName, WorkspaceName};
use lastword_core::op::{Action, Op};
use lastword_core::value::{Record, Value};
use lastword_store::Store;
use lastword_store::keys;
use lastword_store::payload::{LocalBatch, Payload};
use lastword_store::read::{self, ReadState};

use crate::convert;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::hook::{self, Failed, Lost};
use crate::hooks::{Filter, Hook, HookQueue, Incoming};
use crate::live::lock;
use crate::tables;
use crate::writer::Writer;

/// Rows that are looked at in one step.
const STEP: usize = 256;
/// Field of a row of `_told`.
const FIELD: &str = "conflicts";

/// The hooks of a database; see [`crate::hook`].
#[derive(Clone)]
pub struct Hooks {
    db: Database,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooks of {:?}", self.db.dir())
    }
}

impl Database {
    /// Where an app says what it wants to be told of.
    #[must_use]
    pub fn hooks(&self) -> Hooks {
        Hooks { db: self.clone() }
    }
}

impl Hooks {
    /// Runs `action` whenever that happens, for as long as the database is open.
    ///
    /// # Errors
    /// [`Error::Thread`] if the system gives no thread to run hooks on.
    pub fn action<E: 'static>(
        &self,
        hook: Hook<E>,
        action: impl Fn(&E) + Send + Sync + 'static,
    ) -> Result<()> {
        let queue = &self.db.inner.hooks;
        queue.add(hook, action)?;
        if hook.name() == hook::SYNC_CONFLICT_DETECTED.name() {
            for (workspace, _) in read::workspaces(&*self.db.view())? {
                look(&self.db, &workspace);
            }
        }
        Ok(())
    }

    /// Asks `judge` whenever that is about to happen, for as long as the database is open. What it
    /// says instead of agreeing is told to whoever wanted it; one that panics has not agreed.
    pub fn filter<E: 'static>(
        &self,
        filter: Filter<E>,
        judge: impl Fn(&E) -> std::result::Result<(), String> + Send + Sync + 'static,
    ) {
        self.db.inner.hooks.add_filter(filter, judge);
    }

    /// Has `transform` make another file of each that is stored, before it is hashed: one without
    /// the place in a photo, say. It runs on the thread that stores, for as long as the database is
    /// open; the bytes may be read to the end there or be wrapped. What it says instead is the
    /// [`Error::UploadRefused`](crate::Error::UploadRefused) of the call that stores, as is a
    /// panic; bytes that fail or panic when they are read are [`Error::Blob`](crate::Error::Blob).
    /// Files whose hash is known already, from a server or an archive, come as they are.
    pub fn transform(
        &self,
        transform: impl for<'a> Fn(Incoming<'a>) -> std::result::Result<Incoming<'a>, String>
        + Send
        + Sync
        + 'static,
    ) {
        self.db.inner.hooks.add_transform(transform);
    }

    /// How many events were left out so far because too many waited for slow hooks. Conflicts are
    /// never among them.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.db.inner.hooks.left_out()
    }
}

/// Tells the conflicts of a workspace that were not told, soon and on the thread of the hooks.
pub(crate) fn look(db: &Database, workspace: &WorkspaceName) {
    let queue = &db.inner.hooks;
    if !queue.has(hook::SYNC_CONFLICT_DETECTED)
        || !lock(&db.inner.looking).insert(workspace.clone())
    {
        return;
    }
    // A hook that is slow must not keep the database open.
    let of = (Arc::downgrade(&db.inner.writer), Arc::downgrade(queue));
    let (looking, name) = (Arc::clone(&db.inner.looking), workspace.clone());
    let queued = queue.push_work(move || {
        lock(&looking).remove(&name);
        let (Some(writer), Some(queue)) = (of.0.upgrade(), of.1.upgrade()) else { return };
        if let Err(error) = tell(&writer, &queue, &name)
            && !matches!(error, Error::Closed)
        {
            let message = format!("conflicts cannot be told: {error}");
            let failed = Failed { workspace: Some(name), message };
            queue.run(hook::SYNC_ERROR, &failed);
        }
    });
    if !queued {
        lock(&db.inner.looking).remove(workspace);
    }
}

/// Conflicts up to the end of a first copy are old news; to be appended before that end is.
pub(crate) fn begin(
    store: &mut Store,
    workspace: &WorkspaceName,
    consistent_at: u64,
) -> Result<()> {
    // Behind every key that begins with this seq.
    append(store, workspace, &format!("{consistent_at:016x}~"))
}

fn tell(writer: &Writer, queue: &HookQueue, workspace: &WorkspaceName) -> Result<()> {
    loop {
        let view = writer.view();
        let meta = read::meta(&*view, workspace)?;
        let Some(identity) = read::identity(&*view)?.filter(|_| meta.bootstrapped) else {
            return Ok(());
        };
        let in_history = |told: &String| seq_of(told).is_some_and(|seq| seq <= meta.cursor);
        let Some(told) = told(&*view, workspace)?.filter(in_history) else {
            // It had its first copy before conflicts were told, or of another server.
            let (name, cursor) = (workspace.clone(), meta.cursor);
            return writer.run(move |store| begin(store, &name, cursor));
        };
        let own: Vec<String> =
            identity.former.iter().chain([&identity.device]).map(DeviceId::to_string).collect();
        let table = keys::table_prefix(workspace, meta.generation, &tables::conflicts());
        let after = [told.as_bytes(), &[0]].concat();
        let rows = read::table_rows(&*view, &table, &after, None, false, STEP)?;
        let (full, mut last) = (rows.len() == STEP, None);
        for (_, key, stored) in rows {
            if queue.is_closed() {
                return Ok(());
            }
            let conflict = convert::from_record(&stored.row.record);
            match conflict {
                Ok(conflict) if is_own(&own, &conflict) => {
                    let (workspace, key) = (workspace.clone(), key.as_str().to_owned());
                    let lost = Lost { workspace, key: key.clone(), conflict };
                    queue.run(hook::SYNC_CONFLICT_DETECTED, &lost);
                    set(writer, &lost.workspace, key)?;
                    last = None;
                }
                _ => last = Some(key),
            }
        }
        if let Some(key) = last.filter(|_| full) {
            set(writer, workspace, key.as_str().to_owned())?;
        }
        if !full {
            return Ok(());
        }
    }
}

fn is_own(own: &[String], conflict: &tables::Conflict) -> bool {
    own.contains(&conflict.losing_device)
}

fn set(writer: &Writer, workspace: &WorkspaceName, key: String) -> Result<()> {
    let workspace = workspace.clone();
    writer.run(move |store| append(store, &workspace, &key))
}

fn table() -> TableName {
    TableName::new("_told").expect("invariant: the name is valid")
}

fn key_of(workspace: &WorkspaceName) -> Key {
    Key::new(workspace.as_str()).expect("invariant: a name is a key")
}

/// The last key of `_conflicts` that was told.
fn told<S: ReadState>(state: &S, workspace: &WorkspaceName) -> Result<Option<String>> {
    let row_key = keys::row_key(&read::store_workspace(), 0, &table(), &key_of(workspace));
    let stored = read::row(state, &row_key)?;
    Ok(match stored.and_then(|stored| stored.row.record.get(FIELD)) {
        Some(Value::Text(key)) => Some(key),
        _ => None,
    })
}

/// The seq that a key of `_conflicts` begins with.
fn seq_of(key: &str) -> Option<u64> {
    u64::from_str_radix(key.get(..16)?, 16).ok()
}

fn append(store: &mut Store, workspace: &WorkspaceName, key: &str) -> Result<()> {
    let record = Record::new(&[(FIELD.to_owned(), Value::Text(key.to_owned()))])?;
    let op = Op {
        table: table(),
        key: key_of(workspace),
        base: 0,
        revision: 1,
        hlc: Hlc::default(),
        action: Action::Create { record, replace: true },
    };
    let (local, previous) = (vec![op], vec![0]);
    let workspace = read::store_workspace();
    let frame = Payload::Local(LocalBatch { workspace, batch: None, local, previous });
    store.append_urgent(frame.kind(), &frame.to_bytes())?;
    Ok(())
}
