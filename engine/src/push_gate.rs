//! The gate of an attachment: which of the batches that it has queued are decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lastword_core::id::{Key, WorkspaceName};
use lastword_core::op::Batch;
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::authority::PushAnswer;
use lastword_core::schema::FILES_TABLE;
use lastword_core::stamp::Decision;
use lastword_store::Store;

use crate::error::Result;
use crate::judge::{House, Pushed, decide_now};
use crate::members;
use crate::owned;

/// Whether batches of one attachment are decided. Batches come faster than their verdicts, so when
/// one is refused or cannot be decided, those queued behind it must not be looked at, also if the
/// device has answered the refusal before the writer gets to them: each is queued under the number
/// of openings so far, and a refusal closes that number for good.
#[derive(Debug, Clone, Default)]
pub struct PushGate {
    state: Arc<GateState>,
    app_schema: u64,
}

#[derive(Debug)]
struct GateState {
    opened: AtomicU64,
    closed: AtomicU64,
    fenced: AtomicBool,
}

impl Default for GateState {
    fn default() -> Self {
        let (opened, closed) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { opened, closed, fenced: AtomicBool::new(false) }
    }
}

impl PushGate {
    /// The gate of an attachment whose app has this schema number; that of a gate by default is 0,
    /// none.
    #[must_use]
    pub fn of_app(app_schema: u64) -> Self {
        Self { app_schema, ..Self::default() }
    }

    /// Batches that are queued from here on are decided again.
    pub fn open(&self) {
        self.state.opened.fetch_add(1, Ordering::SeqCst);
    }

    /// No batch of this attachment is decided any more: a newer attachment of the device is told
    /// what was decided, and nothing may be added to that behind its back.
    pub fn fence(&self) {
        self.state.fenced.store(!planted(Plant::FenceIgnored), Ordering::SeqCst);
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

/// A pushed batch that waits for the writer.
pub(crate) struct Queued {
    pushed: Pushed,
    gate: PushGate,
    /// The opening of the gate that it came through.
    opening: u64,
}

impl Queued {
    /// Hashing is left to the caller's thread: the writer is the scarce one.
    pub(crate) fn new(user: String, batch: Batch, gate: PushGate) -> Self {
        let payload_hash = batch.payload_hash();
        let checked = batch.check_untrusted().map_err(|error| error.to_string());
        let opening = gate.opening();
        let app_schema = gate.app_schema;
        let pushed = Pushed { user, app_schema, batch, payload_hash, checked };
        Self { pushed, gate, opening }
    }

    /// Decides it, unless its gate was closed before or its user may not write; what is not
    /// accepted closes the gate.
    pub(crate) fn decide(
        self,
        store: &mut Store,
        workspace: &WorkspaceName,
        house: &House<'_>,
        now_ms: i64,
    ) -> Result<PushAnswer> {
        let Self { pushed, gate, opening } = self;
        if gate.is_closed(opening) {
            return Ok(PushAnswer::Ignored);
        }
        let objection = members::objection(store.newest(), house.members, workspace, &pushed.user);
        let files = file_keys(&pushed.batch);
        let answer = match objection.transpose() {
            Some(answer) => answer,
            None => decide_now(store, workspace, pushed, house, now_ms),
        };
        if matches!(answer, Ok(PushAnswer::Decided(Decision::Accepted { .. }))) {
            // What came before its row, or before the row's new life, is told with it.
            owned::set_stored_of(store, workspace, &files, now_ms);
        }
        let goes_on = matches!(
            answer,
            Ok(PushAnswer::Decided(Decision::Accepted { .. }) | PushAnswer::Ignored)
        );
        if !goes_on && !planted(Plant::GoOnAfterRefusal) {
            gate.close(opening);
        }
        answer
    }
}

/// Which files the ops of a batch are about.
fn file_keys(batch: &Batch) -> Vec<Key> {
    let of_files = batch.ops.iter().filter(|op| op.table.as_str() == FILES_TABLE);
    of_files.map(|op| op.key.clone()).collect()
}
