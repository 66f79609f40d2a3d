//! Sync: keeps workspaces of a database in step with a server, on a thread of its own.
//!
//! [`Database::connect`] returns at once, also offline. The sans-IO session of the core decides
//! what to send and when to try again; the driver here only carries its wishes out.

mod board;
mod remote;
mod socket;
mod driver;
mod history;
mod http;
mod line;
mod carriers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lastword_core::id::{Key, TableName, WorkspaceName};
use lastword_core::protocol::replica::{StopReason, SyncStatus};
use lastword_store::read;
use tokio::sync::mpsc;

pub use remote::Remote;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use board::Board;
use carriers::Carriers;
use driver::Command;

/// A running connection to a server. Cheap to clone; it ends when the last clone goes.
#[derive(Clone)]
pub struct Sync {
    inner: Arc<Inner>,
}

struct Inner {
    commands: mpsc::UnboundedSender<Command>,
    board: Arc<Board>,
    carriers: Carriers,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What was sent and received since the connection began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReport {
    /// Batches that got a verdict.
    pub sent_batches: u64,
    /// Of those: every op applied.
    pub applied: u64,
    /// Of those: an op was superseded.
    pub superseded: u64,
    /// Of those: refused, now dead letters.
    pub refused: u64,
    /// Rows received.
    pub received: u64,
    /// Last consistent seq applied.
    pub cursor: u64,
    /// How long the wait for it took.
    pub elapsed: Duration,
}

/// Why a catch-up did not end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SyncFailure {
    /// The server cannot be reached.
    #[error("server not reachable ({why})")]
    Offline {
        /// Why.
        why: String,
    },
    /// The server or this device said no; trying again would not help.
    #[error("{message}")]
    Stopped {
        /// Why, in one word.
        why: StopReason,
        /// For people: what to do.
        message: String,
    },
    /// The server takes no batch of this device now: the outbox keeps them.
    #[error("the server takes no writes of this device: {why}")]
    Held {
        /// Why, in the server's words.
        why: String,
    },
    /// The server has that version no more.
    #[error(
        "the server has version {seq} of {table}/{key} no more: it is out of the history window, \
         or the record was erased"
    )]
    ValueGone {
        /// Table of the record.
        table: TableName,
        /// Its key.
        key: Key,
        /// Seq of the version.
        seq: u64,
    },
    /// The time was over first.
    #[error("not caught up in time")]
    TimedOut {
        /// Where it stood.
        status: SyncStatus,
    },
    /// The database failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Database {
    /// Connects to a server in the background; returns at once, also offline.
    ///
    /// # Errors
    /// [`Error::Thread`] if the system gives no thread.
    pub fn connect(&self, remote: Remote) -> Result<Sync> {
        let (commands, received) = mpsc::unbounded_channel();
        let board: Arc<Board> = Arc::default();
        let carriers = Carriers::new(self.clone(), remote.clone(), Arc::clone(&board));
        let thread =
            driver::spawn(self.clone(), remote, Arc::clone(&board), commands.clone(), received)?;
        Ok(Sync { inner: Arc::new(Inner { commands, board, carriers, thread: Some(thread) }) })
    }
}

impl Sync {
    /// Keeps this workspace in step from now on.
    ///
    /// # Errors
    /// [`Error::Closed`] if the driver has ended, [`Error::ReservedWorkspace`] for `_store`.
    pub fn attach(&self, workspace: &Workspace) -> Result<()> {
        workspace.check_writable()?;
        let command = Command::Attach(workspace.name().clone());
        self.inner.commands.send(command).map_err(|_| Error::Closed)?;
        self.inner.carriers.attach(workspace.name())
    }

    /// Stops keeping this workspace in step; returns once nothing more is stored of it through this
    /// connection. What is here stays, and what waits is sent when it is attached again.
    ///
    /// # Errors
    /// [`Error::Closed`] if the driver has ended.
    pub fn detach(&self, workspace: &Workspace) -> Result<()> {
        self.inner.carriers.detach(workspace.name());
        let (done, detached) = std::sync::mpsc::sync_channel(1);
        let command = Command::Detach(workspace.name().clone(), done);
        self.inner.commands.send(command).map_err(|_| Error::Closed)?;
        detached.recv().map_err(|_| Error::Closed)
    }

    /// How one workspace stands.
    #[must_use]
    pub fn status(&self, workspace: &WorkspaceName) -> SyncStatus {
        self.inner.board.status(workspace)
    }

    /// Waits until the workspace's status pleases `until`; `None` if `timeout` is over first.
    ///
    /// # Errors
    /// Once sync has ended: [`Error::Closed`] if the database was closed, else what failed in its
    /// store.
    pub fn wait_status(
        &self,
        workspace: &WorkspaceName,
        timeout: Option<Duration>,
        until: impl FnMut(&SyncStatus) -> bool,
    ) -> Result<Option<SyncStatus>> {
        self.inner.board.wait(
            workspace,
            timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            until,
        )
    }

    /// Waits until all batches written before this call have a verdict and have come back in the
    /// stream, and the cursor has reached the server's head.
    ///
    /// # Errors
    /// [`SyncFailure::Offline`] after the first failed attempt to reach the server,
    /// [`SyncFailure::Held`] if the server puts batches off, [`SyncFailure::Stopped`] if it said
    /// no, [`SyncFailure::TimedOut`]; [`SyncFailure::Engine`] if the database is closed or its
    /// store fails.
    pub fn wait_caught_up(
        &self,
        workspace: &Workspace,
        timeout: Option<Duration>,
    ) -> Result<SyncReport, SyncFailure> {
        let begun = Instant::now();
        let until = timeout.and_then(|timeout| begun.checked_add(timeout));
        let name = workspace.name();
        let written = read::meta(workspace.read()?.state(), name).map_err(Error::from)?.written;
        let settled = |status: &SyncStatus| match status {
            SyncStatus::Live { .. } => caught_up(workspace, written),
            SyncStatus::Offline { .. } | SyncStatus::Held { .. } | SyncStatus::Stopped { .. } => {
                true
            }
            _ => false,
        };
        match self.inner.board.wait(name, until, settled)? {
            Some(SyncStatus::Offline { why, .. }) => Err(SyncFailure::Offline { why }),
            Some(SyncStatus::Stopped { why, message }) => {
                Err(SyncFailure::Stopped { why, message })
            }
            Some(SyncStatus::Held { why, .. }) if !caught_up(workspace, written) => {
                Err(SyncFailure::Held { why })
            }
            Some(_) => self.report(workspace, begun),
            None => Err(SyncFailure::TimedOut { status: self.status(name) }),
        }
    }

    /// Resolves once all batches written before this call have a verdict and have come back in the
    /// stream, and the cursor has reached the server's head; waits through times without a server.
    ///
    /// # Errors
    /// [`SyncFailure::Held`] if the server puts batches off, which may last for ever;
    /// [`SyncFailure::Stopped`] if it said no; [`SyncFailure::Engine`] if the database is closed or
    /// its store fails.
    pub async fn caught_up(&self, workspace: &Workspace) -> Result<SyncReport, SyncFailure> {
        let begun = Instant::now();
        let name = workspace.name();
        let written = read::meta(workspace.read()?.state(), name).map_err(Error::from)?.written;
        let settled = |status: &SyncStatus| match status {
            SyncStatus::Live { .. } => caught_up(workspace, written),
            SyncStatus::Held { .. } | SyncStatus::Stopped { .. } => true,
            _ => false,
        };
        match self.inner.board.until(name, settled).await? {
            SyncStatus::Stopped { why, message } => Err(SyncFailure::Stopped { why, message }),
            SyncStatus::Held { why, .. } if !caught_up(workspace, written) => {
                Err(SyncFailure::Held { why })
            }
            _ => self.report(workspace, begun),
        }
    }

    /// Resolves with the workspace's status once it differs from `seen`.
    ///
    /// # Errors
    /// As [`Sync::wait_status`].
    pub async fn status_after(
        &self,
        workspace: &WorkspaceName,
        seen: &SyncStatus,
    ) -> Result<SyncStatus> {
        self.inner.board.until(workspace, |status| status != seen).await
    }

    fn report(&self, workspace: &Workspace, begun: Instant) -> Result<SyncReport, SyncFailure> {
        let name = workspace.name();
        let meta = read::meta(workspace.read()?.state(), name).map_err(Error::from)?;
        let counts = self.inner.board.counts(name);
        Ok(SyncReport {
            sent_batches: counts.sent_batches,
            applied: counts.applied,
            superseded: counts.superseded,
            refused: counts.refused,
            received: counts.received,
            cursor: meta.cursor,
            elapsed: begun.elapsed(),
        })
    }

    /// Ends the connection; what is not sent stays in the outbox.
    pub fn stop(self) {
        drop(self);
    }
}

/// True once no batch up to `written` waits in the outbox. An error of the disk ends the wait: the
/// caller's next read reports it.
fn caught_up(workspace: &Workspace, written: u64) -> bool {
    let first = || -> Result<Option<u64>> {
        let view = workspace.read()?;
        let meta = read::meta(view.state(), workspace.name())?;
        let first = read::first_in_outbox(view.state(), workspace.name(), &meta)?;
        Ok(first.map(|(counter, _)| counter))
    };
    first().unwrap_or(None).is_none_or(|counter| counter > written)
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.carriers.stop();
        // A driver that has ended already does not need to hear it.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sync thread panicked");
        }
    }
}
