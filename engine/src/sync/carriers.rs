//! Carriers: threads that upload and download what rows of `file_transfers` ask for.
//!
//! Each has a connection of its own, so that records never wait for a file. What is to be done is
//! in the rows alone: a carrier takes the next one that nobody has, writes into it how far it is,
//! looks into it whether to go on, and deletes it at the end. So whatever ends this process, the
//! next one finds what is left.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lastword_core::hash::BlobHash;
use lastword_core::id::{Key, WorkspaceName};
use lastword_core::protocol::FileRefusal;
use lastword_core::protocol::replica::SyncStatus;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Remote;
use super::board::Board;
use super::line::Line;
use crate::database::Database;
use crate::environment::random;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::live::lock;
use crate::transfer::{self, Ended, Ending, Progress};
use crate::transfers::{self, Change, Direction, Transfer, TransferState};
use crate::workspace::Workspace;

/// A row is told how far its transfer is this often, and the transfer looks whether to go on.
const TELL_INTERVAL: Duration = Duration::from_millis(200);
/// A connection that carries nothing for this long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
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
    attached: Mutex<BTreeSet<WorkspaceName>>,
    stop: watch::Sender<bool>,
}

impl Carriers {
    pub(super) fn new(db: Database, remote: Remote, board: Arc<Board>) -> Self {
        let (attached, (stop, _)) = (Mutex::default(), watch::channel(false));
        let shared = Arc::new(Shared { db, remote, board, attached, stop });
        Self { shared, threads: Mutex::default() }
    }

    /// Carries files of this workspace from now on. Errors: [`Error::Thread`].
    pub(super) fn attach(&self, workspace: &WorkspaceName) -> Result<()> {
        lock(&self.shared.attached).insert(workspace.clone());
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
        self.shared.db.inner.transfers.ring();
        Ok(())
    }

    /// Begins no more transfer of this workspace.
    pub(super) fn detach(&self, workspace: &WorkspaceName) {
        lock(&self.shared.attached).remove(workspace);
    }

    /// Ends what is under way; rows stay, and the next connection goes on with them.
    pub(super) fn stop(&self) {
        self.shared.stop.send_replace(true);
        self.shared.db.inner.transfers.ring();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!("a thread that carries files panicked");
            }
        }
    }
}

/// A transfer that a carrier has taken on; let go of when it goes.
struct Claimed<'a> {
    db: &'a Database,
    files: Files,
    key: Key,
    sha256: [u8; 32],
    transfer: Transfer,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.db.inner.transfers.release(self.files.workspace().name(), &self.key);
    }
}

impl Claimed<'_> {
    /// Writes into the row unless it is gone.
    fn tell(&self, change: &Change) -> Result<()> {
        let told = self.files.workspace().write(|tx| change.apply(tx, &self.key));
        match told {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How the row stands now; none if it is gone.
    fn state(&self) -> Result<Option<TransferState>> {
        let row = self.files.workspace().get(transfers::FILE_TRANSFERS, self.key.as_str())?;
        Ok(row.map(|row| row.state))
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
        while !*stopped.borrow() && !self.db.inner.watchers.is_closed() {
            let heard = self.db.inner.transfers.rung();
            let next = match self.next() {
                Ok(next) => next,
                Err(Error::Closed) => return,
                Err(error) => return tracing::error!(%error, "files are carried no more"),
            };
            match next {
                Next::Carry(claimed) => {
                    match self.run(&claimed, &mut line, &runtime, &stopped) {
                        Ok(()) => {}
                        Err(Error::Closed) => return,
                        Err(error) => tracing::warn!(%error, "a transfer cannot be noted"),
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
    }

    /// Whether the server serves the workspace: a file of one that it does not know yet would be
    /// refused.
    fn is_reached(&self, workspace: &WorkspaceName) -> bool {
        matches!(
            self.board.status(workspace),
            SyncStatus::CatchingUp { .. } | SyncStatus::Live { .. } | SyncStatus::Held { .. }
        )
    }

    /// Takes on the first transfer that is due and that nobody has.
    fn next(&self) -> Result<Next<'_>> {
        let now_ms = self.db.inner.environment.now_ms();
        let mut due = Vec::new();
        let mut wait_ms = i64::try_from(IDLE_LIMIT.as_millis()).unwrap_or(i64::MAX);
        let attached = lock(&self.attached).clone();
        for name in attached.iter().filter(|name| self.is_reached(name)) {
            let files = Workspace::new(self.db.clone(), name.clone()).files();
            for transfer in files.transfers()? {
                if !matches!(transfer.state, TransferState::Queued | TransferState::Running) {
                    continue;
                }
                match transfer.retry_ms - now_ms {
                    left @ 1.. => wait_ms = wait_ms.min(left),
                    _ => due.push((transfer.rank, transfer.queued_ms, files.clone(), transfer)),
                }
            }
        }
        due.sort_by_key(|(rank, queued_ms, ..)| (*rank, *queued_ms));
        for (_, _, files, transfer) in due {
            let Ok(hash @ BlobHash::Sha256(sha256)) = BlobHash::read(&transfer.hash) else {
                continue;
            };
            let key = transfers::key_of(transfer.direction, &hash);
            if self.db.inner.transfers.claim(files.workspace().name(), &key) {
                let claimed = Claimed { db: &self.db, files, key, sha256, transfer };
                // It may have ended between the look and the claim.
                if claimed.state()?.is_some() {
                    return Ok(Next::Carry(Box::new(claimed)));
                }
            }
        }
        Ok(Next::Wait(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))))
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
        claimed.tell(&Change { state, attempts, ..Change::default() })?;
        let mut carried = self.carry_one(claimed, line, runtime, stopped);
        if let (Err(Ending::Cut { .. }), Some(used)) = (&carried, line.as_ref())
            && !used.is_fresh()
        {
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
            let goes_on = matches!(claimed.state(), Ok(Some(TransferState::Running)));
            let bytes = Some((done_bytes, total_bytes));
            let is_told = goes_on && claimed.tell(&Change { bytes, ..Change::default() }).is_ok();
            if is_told { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
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
            Ok(_) => {
                let gone = claimed
                    .files
                    .workspace()
                    .write(|tx| tx.delete_record(&transfers::table(), &claimed.key));
                return match gone {
                    Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
                    Err(error) => Err(error),
                };
            }
            Err(Ending::Here(Error::Closed)) => return Err(Error::Closed),
            // The next connection goes on with it.
            Err(_) if is_stopped => return Ok(()),
            // Whoever stopped it has said so in the row.
            Err(Ending::Stopped) => return Ok(()),
            Err(Ending::Cut { why }) => again(why),
            Err(Ending::Here(error @ Error::Store(_))) => again(error.to_string()),
            Err(Ending::Here(error)) => failed(error.to_string()),
            Err(Ending::Refused { code, message }) => {
                // Whoever has the file may still bring it.
                let is_for_now = code.is_for_now() || code == FileRefusal::NotStored;
                if is_for_now { again(message) } else { failed(message) }
            }
        };
        match claimed.state()? {
            // Whoever paused it meanwhile is right.
            Some(TransferState::Running) => claimed.tell(&change),
            _ => Ok(()),
        }
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
