//! Carriers: threads that upload and download what rows of `file_transfers` ask for.
//!
//! Each has a connection of its own, so that records never wait for a file. What is to be done is
//! in the rows alone: a carrier takes the next one that nobody has, writes into it how far it is,
//! looks into it whether to go on, and deletes it at the end. So whatever ends this process, the
//! next one finds what is left.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lastword_core::hash::BlobHash;
use lastword_core::id::{Key, WorkspaceName};
use lastword_core::protocol::FileRefusal;
use lastword_core::protocol::replica::SyncStatus;
use lastword_store::BlobError;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Remote;
use super::board::Board;
use super::line::Line;
use crate::database::Database;
use crate::environment::random;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::hook;
use crate::live::lock;
use crate::transfer::{self, Ended, Ending, Progress};
use crate::transfers::{self, Change, Direction, Transfer, TransferState};
use crate::workspace::Workspace;
use crate::write::WriteOptions;

/// A row is told how far its transfer is this often, and the transfer looks whether to go on.
const TELL_INTERVAL: Duration = Duration::from_millis(200);
/// A connection that carries nothing for this long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// After a row could not be written nothing is tried for this long.
const FAILED_WAIT: Duration = Duration::from_secs(5);
/// Shortest and longest wait before a transfer is tried again, in milliseconds.
const RETRY_MS: (u64, u64) = (500, 60_000);

/// The carriers of one connection to a server. They begin once a workspace is attached.
pub(super) struct Carriers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    db: Database,
    remote: Remote,
    /// How the records of each workspace stand with the server.
    board: Arc<Board>,
    /// The workspace of each file that is under way.
    carried: Mutex<Vec<WorkspaceName>>,
    /// Workspaces whose files are carried, and whether it was looked for what the server lacks.
    attached: Mutex<BTreeMap<WorkspaceName, bool>>,
    stop: watch::Sender<bool>,
    queue: Mutex<Queue>,
}

/// What was due when the rows were looked at.
#[derive(Default)]
struct Queue {
    /// How often a look had been asked for.
    asked: Option<u64>,
    due: VecDeque<(Files, Transfer)>,
    /// When the next row is due, if nobody asks before.
    wait: Duration,
}

impl Carriers {
    pub(super) fn new(db: Database, remote: Remote, board: Arc<Board>) -> Self {
        let (attached, carried) = (Mutex::default(), Mutex::default());
        let (stop, _) = watch::channel(false);
        let queue = Mutex::default();
        let shared = Arc::new(Shared { db, remote, board, attached, carried, stop, queue });
        Self { shared, threads: Mutex::default() }
    }

    /// Carries files of this workspace from now on. Errors: [`Error::Thread`].
    pub(super) fn attach(&self, workspace: &WorkspaceName) -> Result<()> {
        lock(&self.shared.attached).insert(workspace.clone(), false);
        let mut threads = lock(&self.threads);
        while threads.len() < self.shared.db.inner.max_transfers {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name("lastword files".into())
                .spawn(move || shared.carry())
                .map_err(|error| Error::Thread { reason: error.to_string() })?;
            threads.push(thread);
        }
        drop(threads);
        self.shared.db.inner.transfers.ask();
        Ok(())
    }

    /// Carries no file of this workspace any more; returns once none is under way.
    pub(super) fn detach(&self, workspace: &WorkspaceName) {
        lock(&self.shared.attached).remove(workspace);
        let board = &self.shared.db.inner.transfers;
        loop {
            let heard = board.rung();
            if !lock(&self.shared.carried).contains(workspace) {
                return;
            }
            board.wait_after(heard, IDLE_LIMIT);
        }
    }

    /// Ends what is under way; rows stay, and the next connection goes on with them.
    pub(super) fn stop(&self) {
        self.shared.stop.send_replace(true);
        self.shared.db.inner.transfers.ask();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!("a thread that carries files panicked");
            }
        }
    }
}

/// A transfer that a carrier has taken on; let go of when it goes.
struct Claimed<'a> {
    shared: &'a Shared,
    files: Files,
    key: Key,
    sha256: [u8; 32],
    transfer: Transfer,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let name = self.files.workspace().name();
        let mut carried = lock(&self.shared.carried);
        if let Some(place) = carried.iter().position(|carried| carried == name) {
            carried.swap_remove(place);
        }
        drop(carried);
        self.shared.db.inner.transfers.release(name, &self.key);
    }
}

impl<'a> Claimed<'a> {
    fn new(
        shared: &'a Shared,
        files: Files,
        key: Key,
        sha256: [u8; 32],
        transfer: Transfer,
    ) -> Self {
        lock(&shared.carried).push(files.workspace().name().clone());
        Self { shared, files, key, sha256, transfer }
    }

    /// Writes into the row if the file is still to be carried; false if it is not.
    fn tell(&self, change: &Change) -> Result<bool> {
        let options = WriteOptions { quiet: true, ..WriteOptions::default() };
        let mut is_told = false;
        self.files.workspace().write_with(options, |tx| {
            is_told = change.apply_to_pending(tx, &self.key)?;
            Ok(())
        })?;
        Ok(is_told)
    }

    /// Takes the row away.
    fn end(&self) -> Result<()> {
        let (table, quiet) = (transfers::table(), WriteOptions { quiet: true, ..<_>::default() });
        let workspace = self.files.workspace();
        let gone = workspace.write_with(quiet, |tx| tx.delete_record(&table, &self.key));
        match gone {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What there is to do.
enum Next<'a> {
    Carry(Box<Claimed<'a>>),
    /// Nothing before that much time is over.
    Wait(Duration),
}

impl Shared {
    fn carry(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "no files are carried"),
        };
        let stopped = self.stop.subscribe();
        let mut line: Option<Line<'_>> = None;
        let mut used = Instant::now();
        loop {
            // Before the look: whoever rings after it is heard.
            let heard = self.db.inner.transfers.rung();
            if *stopped.borrow() || self.db.inner.watchers.is_closed() {
                break;
            }
            let next = self.next().unwrap_or_else(|error| {
                tracing::warn!(%error, "rows of transfers cannot be read");
                Next::Wait(FAILED_WAIT)
            });
            match next {
                Next::Carry(claimed) => {
                    if let Err(error) = self.run(&claimed, &mut line, &runtime, &stopped) {
                        tracing::warn!(%error, "a transfer cannot be noted");
                        drop(claimed);
                        if !*stopped.borrow() {
                            let board = &self.db.inner.transfers;
                            board.wait_after(board.rung(), FAILED_WAIT);
                        }
                    }
                    used = Instant::now();
                }
                Next::Wait(time) => {
                    let idle = IDLE_LIMIT.saturating_sub(used.elapsed());
                    if idle.is_zero() {
                        line = None;
                    }
                    let wait = if line.is_some() { time.min(idle) } else { time };
                    self.db.inner.transfers.wait_after(heard, wait);
                }
            }
        }
        drop(line);
        // A name that is still being looked up must not hold whoever drops the handle.
        runtime.shutdown_background();
    }

    /// Whether the server serves the workspace: a file of one that it does not know yet would be
    /// refused.
    fn is_reached(&self, workspace: &WorkspaceName) -> bool {
        matches!(
            self.board.status(workspace),
            SyncStatus::CatchingUp { .. } | SyncStatus::Live { .. } | SyncStatus::Held { .. }
        )
    }

    /// Takes on the next transfer that is due and that nobody has. The rows are looked at when
    /// somebody asked for it or all that were due are taken on, not for each transfer.
    fn next(&self) -> Result<Next<'_>> {
        let asked = self.db.inner.transfers.asked();
        let mut queue = lock(&self.queue);
        if queue.asked != Some(asked) || queue.due.is_empty() {
            *queue = self.look(asked)?;
        }
        while let Some((files, transfer)) = queue.due.pop_front() {
            let Ok(hash @ BlobHash::Sha256(sha256)) = BlobHash::read(&transfer.hash) else {
                continue;
            };
            let key = transfers::key_of(transfer.direction, &hash);
            let name = files.workspace().name().clone();
            if self.db.inner.transfers.claim(&name, &key) {
                let claimed = Claimed::new(self, files, key, sha256, transfer);
                // Whoever detaches looks at what is carried after this.
                if lock(&self.attached).contains_key(&name) {
                    return Ok(Next::Carry(Box::new(claimed)));
                }
            }
        }
        Ok(Next::Wait(queue.wait))
    }

    /// What is due in the rows of every workspace that the server serves.
    fn look(&self, asked: u64) -> Result<Queue> {
        let now_ms = self.db.inner.environment.now_ms();
        let (mut due, mut wait) = (Vec::new(), IDLE_LIMIT);
        let attached: Vec<WorkspaceName> = lock(&self.attached).keys().cloned().collect();
        for name in &attached {
            let files = Workspace::new(self.db.clone(), name.clone()).files();
            self.look_for_missing(name, &files)?;
            if !self.is_reached(name) {
                continue;
            }
            for transfer in files.transfers()?.into_iter().filter(Transfer::is_pending) {
                match u64::try_from(transfer.retry_ms.saturating_sub(now_ms)).unwrap_or(0) {
                    // A clock that was set back must not put it off for ever.
                    left if (1..=RETRY_MS.1).contains(&left) => {
                        wait = wait.min(Duration::from_millis(left));
                    }
                    _ => due.push((files.clone(), transfer)),
                }
            }
        }
        due.sort_by_key(|(_, transfer)| (transfer.rank, transfer.queued_ms));
        Ok(Queue { asked: Some(asked), due: due.into(), wait })
    }

    /// Once for each time that a workspace is attached and caught up: what is here, and not at the
    /// server although its row is, is uploaded.
    fn look_for_missing(&self, name: &WorkspaceName, files: &Files) -> Result<()> {
        let is_live = matches!(self.board.status(name), SyncStatus::Live { .. });
        let is_due = match lock(&self.attached).get_mut(name) {
            // Whatever it is after a time without the server, a restored one maybe.
            Some(is_done) if !is_live => {
                *is_done = false;
                false
            }
            Some(is_done) => !std::mem::replace(is_done, true),
            None => false,
        };
        if is_due && let Err(error) = files.upload_missing() {
            if let Some(is_done) = lock(&self.attached).get_mut(name) {
                *is_done = false;
            }
            return Err(error);
        }
        Ok(())
    }

    /// Carries one file, and notes what became of it.
    fn run<'r>(
        &self,
        claimed: &Claimed<'_>,
        line: &mut Option<Line<'r>>,
        runtime: &'r Runtime,
        stopped: &watch::Receiver<bool>,
    ) -> Result<()> {
        let attempts = claimed.transfer.attempts.saturating_add(1);
        let (state, attempts) = (Some(TransferState::Running), Some(attempts));
        if !claimed.tell(&Change { state, attempts, ..Change::default() })? {
            // It ended, or was paused, between the look and the claim.
            return Ok(());
        }
        if let Err(why) = self.tell_begin(claimed)? {
            let (state, last_error) = (Some(TransferState::Failed), Some(why));
            return claimed.tell(&Change { state, last_error, ..Change::default() }).map(drop);
        }
        let was_open = line.is_some();
        let mut carried = self.carry_one(claimed, line, runtime, stopped);
        let is_attached = lock(&self.attached).contains_key(claimed.files.workspace().name());
        let goes_on = is_attached && !*stopped.borrow();
        if was_open && goes_on && matches!(carried, Err(Ending::Cut { .. })) {
            // It may have been closed while nothing was carried.
            *line = None;
            carried = self.carry_one(claimed, line, runtime, stopped);
        }
        if matches!(carried, Err(Ending::Cut { .. } | Ending::Here(_))) {
            // What the server still sends belongs to nobody.
            *line = None;
        }
        self.note(claimed, carried, *stopped.borrow())
    }

    /// Hooks hear that a file is about to be carried, and may say why it is not to be.
    fn tell_begin(&self, claimed: &Claimed<'_>) -> Result<std::result::Result<(), String>> {
        let hash = BlobHash::Sha256(claimed.sha256);
        let (mime_type, name) = claimed.files.described(&hash)?;
        let event = hook::Carrying {
            workspace: claimed.files.workspace().name().clone(),
            hash,
            size_bytes: claimed.transfer.bytes_total,
            mime_type,
            name,
        };
        let hooks = &self.db.inner.hooks;
        let before = match claimed.transfer.direction {
            Direction::Upload => match hooks.ask(hook::UPLOAD_POLICY, &event) {
                Ok(()) => hook::UPLOAD_BEFORE,
                refused => return Ok(refused),
            },
            Direction::Download => hook::DOWNLOAD_BEFORE,
        };
        hooks.raise(before, || event);
        Ok(Ok(()))
    }

    fn tell_end(&self, claimed: &Claimed<'_>, ended: Ended) {
        let event = || hook::Carried {
            workspace: claimed.files.workspace().name().clone(),
            hash: BlobHash::Sha256(claimed.sha256),
            size_bytes: ended.total_bytes,
            moved_bytes: ended.moved_bytes,
        };
        let after = match claimed.transfer.direction {
            Direction::Upload => hook::UPLOAD_AFTER,
            Direction::Download => hook::DOWNLOAD_AFTER,
        };
        self.db.inner.hooks.raise(after, event);
    }

    fn carry_one<'r>(
        &self,
        claimed: &Claimed<'_>,
        line: &mut Option<Line<'r>>,
        runtime: &'r Runtime,
        stopped: &watch::Receiver<bool>,
    ) -> std::result::Result<Ended, Ending> {
        if line.is_none() {
            let connected = Line::connect(&self.db, &self.remote, runtime, stopped);
            *line = Some(connected.map_err(|why| Ending::Cut { why })?);
        }
        let line = line.as_mut().expect("invariant: it was just connected");
        let transfer = line.next_transfer();
        let mut told = Instant::now();
        let watch = &mut |Progress { done_bytes, total_bytes, .. }: Progress| {
            if told.elapsed() < TELL_INTERVAL {
                return ControlFlow::Continue(());
            }
            told = Instant::now();
            let name = claimed.files.workspace().name();
            let is_wanted = !*stopped.borrow() && lock(&self.attached).contains_key(name);
            let bytes = Some((done_bytes, total_bytes));
            let goes_on = is_wanted
                && matches!(claimed.tell(&Change { bytes, ..Change::default() }), Ok(true));
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let (files, sha256) = (&claimed.files, claimed.sha256);
        match claimed.transfer.direction {
            Direction::Upload => transfer::upload(files, sha256, line, transfer, watch),
            Direction::Download => transfer::download(files, sha256, line, transfer, watch),
        }
    }

    fn note(
        &self,
        claimed: &Claimed<'_>,
        carried: std::result::Result<Ended, Ending>,
        is_stopped: bool,
    ) -> Result<()> {
        let again = |why: String| {
            let now_ms = self.db.inner.environment.now_ms();
            let wait_ms = i64::try_from(wait_ms(claimed.transfer.attempts)).unwrap_or(i64::MAX);
            let (state, retry_ms) = (Some(TransferState::Queued), Some(now_ms + wait_ms));
            Change { state, last_error: Some(why), retry_ms, ..Change::default() }
        };
        let failed = |why: String| {
            let state = Some(TransferState::Failed);
            Change { state, last_error: Some(why), ..Change::default() }
        };
        let change = match carried {
            Ok(ended) => {
                self.tell_end(claimed, ended);
                return claimed.end();
            }
            Err(Ending::Here(Error::Closed)) => return Err(Error::Closed),
            // The next connection goes on with it.
            Err(_) if is_stopped => return Ok(()),
            // Whoever stopped it has said so in the row.
            Err(Ending::Stopped) => return Ok(()),
            Err(Ending::Cut { why }) => again(why),
            Err(Ending::Here(error @ Error::Store(_))) => again(error.to_string()),
            // It is noted by now, and asked for next time.
            Err(Ending::Here(error @ Error::Blob(BlobError::Damaged { .. })))
                if claimed.transfer.direction == Direction::Download =>
            {
                again(error.to_string())
            }
            // It was evicted, so somebody else has uploaded it.
            Err(Ending::Here(Error::Blob(BlobError::Missing { hash })))
                if claimed.files.is_uploaded(&hash)? =>
            {
                return claimed.end();
            }
            Err(Ending::Here(error)) => failed(error.to_string()),
            Err(Ending::Refused { code, message }) => {
                // Whoever has the file may still bring it, or bring it again.
                let may_come = matches!(code, FileRefusal::NotStored | FileRefusal::Damaged);
                if code.is_for_now() || may_come { again(message) } else { failed(message) }
            }
        };
        claimed.tell(&change).map(drop)
    }
}

/// How long a transfer waits that was tried that often before: doubling, and between half and the
/// whole of it, so that devices that lost a server together do not come back together.
fn wait_ms(attempts: u64) -> u64 {
    let (shortest, longest) = RETRY_MS;
    let doublings = u32::try_from(attempts.min(16)).unwrap_or(16);
    let whole = shortest.saturating_mul(1 << doublings).min(longest);
    let half = whole / 2;
    half + u64::from_le_bytes(random()) % (half + 1)
}
