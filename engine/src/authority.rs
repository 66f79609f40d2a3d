//! The authority: the party that orders a workspace's ops.
//!
//! Everything that decides runs on the writer thread, on the newest state, at the moment an op gets
//! its seq: batch identity, counter, limits, then each op by [`lastword_core::rules::decide`]. The
//! frame holds ops, stamps and verdicts together, so a batch is in the log as a whole or not at
//! all, and its decision is found again whenever the device asks.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lastword_core::hlc::Hlc;
use lastword_core::id::{DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::limits::{MAX_ATTACHED_DECISIONS, MAX_DECIDED_BYTES};
use lastword_core::op::{Action, Batch, Op};
use lastword_core::protocol::authority::PushAnswer;
use lastword_core::protocol::{Attached, Role};
use lastword_core::row::Digest;
use lastword_core::rules::{self, At, Policy, Writer as OpWriter};
use lastword_core::stamp::{Decision, RefusalCode, Verdict};
use lastword_store::apply::policy_of;
use lastword_store::keys;
use lastword_store::payload::{Attachment, DecidedBatch, Payload, cut_text};
use lastword_store::read::{self, ChangesPage, ReadState};
use lastword_store::{Store, View};

use crate::devices;
use crate::environment::{now_ms, random};
use crate::error::{Error, Result};
use crate::history::{self, Version};
use crate::log::{self, LogLine};
use crate::open::{self, OpenOptions, OpenedStore};
use crate::view::WorkspaceView;
use crate::writer::Writer;

/// Whether batches of one attachment are decided. Batches come faster than their verdicts, so when
/// one is refused or cannot be decided, those queued behind it must not be looked at, also if the
/// device has answered the refusal before the writer gets to them: each is queued under the number
/// of openings so far, and a refusal closes that number for good.
#[derive(Debug, Clone)]
pub struct PushGate {
    state: Arc<GateState>,
}

#[derive(Debug)]
struct GateState {
    opened: AtomicU64,
    closed: AtomicU64,
    fenced: AtomicBool,
}

impl Default for PushGate {
    fn default() -> Self {
        let (opened, closed) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { state: Arc::new(GateState { opened, closed, fenced: AtomicBool::new(false) }) }
    }
}

impl PushGate {
    /// Batches that are queued from here on are decided again.
    pub fn open(&self) {
        self.state.opened.fetch_add(1, Ordering::SeqCst);
    }

    /// No batch of this attachment is decided any more: a newer attachment of the device is told
    /// what was decided, and nothing may be added to that behind its back.
    pub fn fence(&self) {
        self.state.fenced.store(true, Ordering::SeqCst);
    }

    fn opening(&self) -> u64 {
        self.state.opened.load(Ordering::SeqCst)
    }

    fn close(&self, opening: u64) {
        self.state.closed.fetch_max(opening, Ordering::SeqCst);
    }

    fn is_closed(&self, opening: u64) -> bool {
        self.state.fenced.load(Ordering::SeqCst)
            || opening <= self.state.closed.load(Ordering::SeqCst)
    }
}

/// Called with the new view whenever something was published.
type Listener = Box<dyn Fn(&Arc<View>) + Send>;

/// A store in the role of the authority. Cheap to clone; all clones are the same store.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    opened: OpenedStore,
    writer: Writer,
    listeners: Arc<Mutex<Vec<Listener>>>,
}

impl Authority {
    /// Opens or creates the authority's store in `dir`. Blocks until it is recovered.
    ///
    /// # Errors
    /// [`Error::Store`] if the directory is locked, damaged, of a newer format or not ours,
    /// [`Error::OtherRole`] if it holds a device's copy.
    pub fn open(dir: &Path) -> Result<Self> {
        let (opened, store) = open::open(dir, &OpenOptions::authority())?;
        let listeners: Arc<Mutex<Vec<Listener>>> = Arc::default();
        let told = Arc::clone(&listeners);
        let writer = Writer::start(
            store,
            opened.delta_cap_bytes,
            "authority",
            Box::new(move |view| {
                let listeners = told.lock().unwrap_or_else(PoisonError::into_inner);
                listeners.iter().for_each(|listener| listener(view));
            }),
        )?;
        Ok(Self { inner: Arc::new(Inner { opened, writer, listeners }) })
    }

    /// The directory that it was opened in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.opened.dir
    }

    /// The last published view.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.inner.writer.view()
    }

    /// Calls `listener` on the writer thread after every group that was published; it must not
    /// block.
    pub fn on_publish(&self, listener: impl Fn(&Arc<View>) + Send + 'static) {
        let mut listeners = self.inner.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Box::new(listener));
    }

    /// What a device needs to know when it attaches; makes the workspace if `create` is set.
    /// `done` is called on the writer thread.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`] if it does not exist and `create` is not set.
    pub fn attach(
        &self,
        workspace: WorkspaceName,
        attach: AttachRequest,
        done: impl FnOnce(Result<Attached>) + Send + 'static,
    ) -> Result<()> {
        self.inner.writer.submit(move |store| attach_now(store, &workspace, &attach), done)
    }

    /// Decides one batch of `user`, unless `gate` was closed before. `done` is called on the writer
    /// thread once the decision is durable.
    ///
    /// # Errors
    /// [`Error::Closed`] if the authority is closed; then `done` is not called.
    pub fn decide(
        &self,
        workspace: WorkspaceName,
        user: String,
        batch: Batch,
        gate: PushGate,
        done: impl FnOnce(Result<PushAnswer>) + Send + 'static,
    ) -> Result<()> {
        // Hashing is left to the caller's thread: the writer is the scarce one.
        let payload_hash = batch.payload_hash();
        let checked = batch.check_untrusted().map_err(|error| error.to_string());
        let opening = gate.opening();
        self.inner.writer.submit(
            move |store| {
                if gate.is_closed(opening) {
                    return Ok(PushAnswer::Ignored);
                }
                let pushed = Pushed { user: &user, batch, payload_hash, checked };
                let answer = decide_now(store, &workspace, pushed);
                let goes_on = matches!(
                    answer,
                    Ok(PushAnswer::Decided(Decision::Accepted { .. }) | PushAnswer::Ignored)
                );
                if !goes_on {
                    gate.close(opening);
                }
                answer
            },
            done,
        )
    }

    /// One page of what changed after `after` in the last published view.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a row is damaged.
    pub fn changes(&self, workspace: &WorkspaceName, after: u64) -> Result<ChangesPage> {
        Ok(read::changes(&*self.view(), workspace, after)?)
    }

    /// State of every workspace.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn status(&self) -> Result<Vec<AuthorityStatus>> {
        let workspaces = read::workspaces(&*self.view())?;
        let status = |(workspace, meta): (WorkspaceName, keys::WorkspaceMeta)| AuthorityStatus {
            workspace: workspace.as_str().into(),
            epoch: meta.epoch.unwrap_or_default(),
            head: meta.head,
            rows: meta.rows,
            digest: meta.digest,
        };
        Ok(workspaces.into_iter().map(status).collect())
    }

    /// A consistent view of one workspace.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn read(&self, workspace: &WorkspaceName) -> Result<WorkspaceView> {
        WorkspaceView::new(workspace.clone(), self.view(), Arc::default())
    }

    /// At most `limit` frames of the log from position `from`, and where to go on.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a frame is damaged.
    pub fn log(&self, from: u64, limit: usize) -> Result<(Vec<LogLine>, u64)> {
        log::read(self.inner.writer.views(), from, limit)
    }

    /// Every version of a record that the log holds, newest first.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a frame is damaged.
    pub fn history(
        &self,
        workspace: &WorkspaceName,
        table: &TableName,
        key: &Key,
    ) -> Result<Vec<Version>> {
        let newest = self.read(workspace)?.stored(table, key)?.map_or(0, |stored| stored.position);
        history::history(self.inner.writer.views(), newest, table, key)
    }

    /// Closes the store cleanly; later calls answer [`Error::Closed`].
    ///
    /// # Errors
    /// [`Error::Store`] if the last sync fails.
    pub fn close(&self) -> Result<()> {
        self.inner.writer.close()
    }
}

/// State of one workspace at the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityStatus {
    /// Its name.
    pub workspace: String,
    /// Epoch of its history.
    pub epoch: Epoch,
    /// Last seq given.
    pub head: u64,
    /// Live records, product tables left out.
    pub rows: u64,
    /// Digest sum of its rows, equal on every device that has caught up.
    pub digest: Digest,
}

/// What a device says about itself when it attaches.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// Number of the attachment on its connection.
    pub attachment: u64,
    /// The device.
    pub device: DeviceId,
    /// Whose device it is.
    pub user: String,
    /// Last counter whose decision it has stored.
    pub decided: u64,
    /// The user's role.
    pub role: Role,
    /// Make the workspace if it does not exist.
    pub create: bool,
}

fn attach_now(
    store: &mut Store,
    workspace: &WorkspaceName,
    request: &AttachRequest,
) -> Result<Attached> {
    let mut meta = read::meta(store.newest(), workspace)?;
    if meta.epoch.is_none() {
        if !request.create {
            return Err(Error::UnknownWorkspace { workspace: workspace.clone() });
        }
        let epoch = Epoch(random());
        let made =
            Attachment { workspace: workspace.clone(), epoch, role: Role::Owner, horizon: 0 };
        let payload = Payload::Attachment(made);
        store.append(payload.kind(), &payload.to_bytes())?;
        meta = read::meta(store.newest(), workspace)?;
    }
    let newest = store.newest();
    let owner = devices::owner(newest, workspace, request.device)?;
    if owner.is_some_and(|owner| owner != request.user) {
        return Err(Error::ForeignDevice { device: request.device });
    }
    let limit = MAX_ATTACHED_DECISIONS;
    let decisions =
        read::decisions_after(newest, workspace, request.device, request.decided, limit)?;
    Ok(Attached {
        attachment: request.attachment,
        epoch: meta.epoch.expect("invariant: set above"),
        lineage: Vec::new(),
        schema: Vec::new(),
        head: meta.head,
        horizon: meta.horizon,
        role: request.role,
        last_counter: read::last_counter(newest, workspace, request.device)?,
        decisions,
    })
}

/// One batch as it came.
struct Pushed<'a> {
    user: &'a str,
    batch: Batch,
    payload_hash: [u8; 32],
    /// Whether limits and form hold.
    checked: std::result::Result<(), String>,
}

fn decide_now(
    store: &mut Store,
    workspace: &WorkspaceName,
    pushed: Pushed<'_>,
) -> Result<PushAnswer> {
    let Pushed { user, batch, payload_hash, checked } = pushed;
    let newest = store.newest();
    let expected = read::last_counter(newest, workspace, batch.device)? + 1;
    if let Some(known) = read::decision(newest, workspace, batch.batch_id)? {
        if known.payload_hash != payload_hash {
            let message = format!("batch {} came again with other content", batch.batch_id);
            return Ok(PushAnswer::Forked { message });
        }
        if batch.counter == expected {
            consume(store, workspace, batch, payload_hash, known.decision.clone())?;
        }
        return Ok(PushAnswer::Decided(known.decision));
    }
    if batch.counter != expected {
        let message = format!(
            "device {} sent batch {} where {expected} is next: two stores use its id",
            batch.device, batch.counter
        );
        return Ok(PushAnswer::Forked { message });
    }
    let owner = devices::owner(newest, workspace, batch.device)?;
    if owner.as_deref().is_some_and(|owner| owner != user) {
        let message = Error::ForeignDevice { device: batch.device }.to_string();
        return Ok(PushAnswer::Forked { message });
    }
    let introduces = owner.is_none().then(|| devices::introduction(batch.device, user));
    let frame = judge(store, workspace, batch, payload_hash, checked, introduces)?;
    let decision = frame.decision.clone();
    let payload = Payload::Decided(frame);
    store.append(payload.kind(), &payload.to_bytes())?;
    Ok(PushAnswer::Decided(decision))
}

/// A batch that was decided under another counter uses up this one too, so that the device's
/// counters stay contiguous.
fn consume(
    store: &mut Store,
    workspace: &WorkspaceName,
    batch: Batch,
    payload_hash: [u8; 32],
    decision: Decision,
) -> Result<()> {
    let payload = Payload::Decided(DecidedBatch {
        workspace: workspace.clone(),
        batch: Batch { ops: Vec::new(), ..batch },
        payload_hash,
        decision,
        own: Vec::new(),
        previous: Vec::new(),
    });
    store.append(payload.kind(), &payload.to_bytes())?;
    Ok(())
}

fn judge(
    store: &Store,
    workspace: &WorkspaceName,
    batch: Batch,
    payload_hash: [u8; 32],
    checked: std::result::Result<(), String>,
    introduces: Option<Op>,
) -> Result<DecidedBatch> {
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let time_ms = now_ms().max(meta.time_ms);
    let refused = |batch: Batch, code: RefusalCode, message: String| DecidedBatch {
        workspace: workspace.clone(),
        batch: Batch { ops: Vec::new(), ..batch },
        payload_hash,
        decision: Decision::Refused { code, message: cut_text(&message), time_ms },
        own: Vec::new(),
        previous: Vec::new(),
    };
    if let Err(reason) = checked {
        return Ok(refused(batch, RefusalCode::Invalid, reason));
    }
    if let Some(op) = batch.ops.iter().find(|op| op.table.is_reserved()) {
        let message = format!("table {} belongs to Lastword and is read-only", op.table);
        return Ok(refused(batch, RefusalCode::UnknownTable, message));
    }
    let mut judged =
        Judged { workspace, generation: meta.generation, time_ms, ..Judged::new(workspace) };
    let first_seq = meta.head + 1;
    for (op, seq) in batch.ops.iter().zip(first_seq..) {
        if let Err(reason) = judged.op(newest, &batch, op, seq)? {
            let message = format!("{}/{}: {reason}", op.table, op.key);
            return Ok(refused(batch, RefusalCode::ResultTooBig, message));
        }
    }
    let Judged { verdicts, mut own, mut previous, .. } = judged;
    own.extend(introduces);
    previous.extend(own.iter().map(|_| 0));
    let last_seq = meta.head + (batch.ops.len() + own.len()) as u64;
    let decision = Decision::Accepted { first_seq, last_seq, time_ms, verdicts };
    let frame =
        DecidedBatch { workspace: workspace.clone(), batch, payload_hash, decision, own, previous };
    let size = lastword_core::codec::to_bytes(&frame).len();
    if size > MAX_DECIDED_BYTES {
        let message = format!(
            "the decided batch is {size} bytes with its conflicts, the limit is \
             {MAX_DECIDED_BYTES}; split it into several batches"
        );
        return Ok(refused(frame.batch, RefusalCode::ResultTooBig, message));
    }
    Ok(frame)
}

/// Verdicts and conflict rows of one batch, growing op by op.
struct Judged<'a> {
    workspace: &'a WorkspaceName,
    generation: u32,
    time_ms: i64,
    verdicts: Vec<Verdict>,
    own: Vec<Op>,
    previous: Vec<u64>,
}

impl<'a> Judged<'a> {
    fn new(workspace: &'a WorkspaceName) -> Self {
        let (verdicts, own, previous) = Default::default();
        Self { workspace, generation: 0, time_ms: 0, verdicts, own, previous }
    }

    fn op<S: ReadState>(
        &mut self,
        state: &S,
        batch: &Batch,
        op: &Op,
        seq: u64,
    ) -> Result<std::result::Result<(), String>> {
        let row_key = keys::row_key(self.workspace, self.generation, &op.table, &op.key);
        let stored = read::row(state, &row_key)?;
        let writer = OpWriter { device: batch.device, former: &batch.former, strict: batch.strict };
        let at = At { seq, time_ms: self.time_ms, op_id: batch.batch_id };
        let policy = policy_of(&op.table);
        let row = stored.as_ref().map(|stored| &stored.row);
        let outcome = match rules::decide(row, op, &writer, &at, policy) {
            Ok(outcome) => outcome,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for conflict in &outcome.conflicts {
            self.own.push(conflict_op(op, conflict, policy, self.time_ms));
        }
        self.verdicts.push(outcome.verdict);
        self.previous.push(stored.map_or(0, |stored| stored.position));
        Ok(Ok(()))
    }
}

/// The authority's own op that records a conflict.
fn conflict_op(op: &Op, conflict: &rules::Conflict, policy: Policy, time_ms: i64) -> Op {
    Op {
        table: crate::tables::conflicts(),
        key: rules::conflict_key(&op.table, &op.key, conflict),
        base: 0,
        revision: 1,
        hlc: Hlc::default(),
        action: Action::Create {
            record: rules::conflict_record(&op.table, &op.key, conflict, policy, time_ms),
            replace: false,
        },
    }
}
