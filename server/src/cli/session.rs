//! One command on one directory: opens it, connects where that is wanted, waits for the server.

use std::time::{Duration, Instant};

use lastword::core::stamp::Decision;
use lastword::{
    Authority, Database, Error, Receipt, Remote, Settled, Sync, SyncFailure, SyncReport,
    SyncStatus, Workspace,
};

use super::args::{Link, Store};
use super::failure::Failure;
use super::output;
use super::remote::{self, Remembered};

/// How long a write waits for a remembered server before it reports the outbox.
const GLANCE: Duration = Duration::from_secs(1);
/// How long a command that had reached its server goes on trying once it is gone.
const OUTAGE: Duration = Duration::from_secs(60);
/// How often a long wait looks up to show its progress.
const LOOK: Duration = Duration::from_millis(100);

/// An open device with one workspace.
pub(super) struct Session {
    pub(super) db: Database,
    pub(super) ws: Workspace,
    pub(super) link: Link,
    known: Option<Remembered>,
    /// Why what the directory remembers cannot be read.
    broken: Option<Failure>,
}

/// A device's directory, or that of a server that is not running.
pub(super) enum Opened {
    Device(Box<Session>),
    Server(Authority),
}

/// What became of a write as far as this command waited.
pub(super) enum Fate {
    Decided(Decision),
    /// Nothing of it is for the server.
    Local,
    /// It waits in the outbox; the text says why.
    Waiting(String),
    /// As `Waiting`, where the user asked to wait for the server.
    Unreachable(String),
    /// As `Unreachable`, but the server answered: it takes no batch of this device now.
    Held(String),
}

impl Session {
    /// Opens the device, making its directory if there is none.
    pub(super) fn open(store: &Store, link: &Link) -> Result<Self, Failure> {
        if let (Some(server), None, false) = (&link.server, link.token(), is_store(store)) {
            return Err(no_token(server));
        }
        Self::over(Database::open(&store.data)?, store, link)
    }

    fn over(db: Database, store: &Store, link: &Link) -> Result<Self, Failure> {
        let ws = db.workspace(&store.workspace)?;
        // Whoever only reads what is here needs no server.
        let (known, broken) = match remote::read(&store.data) {
            Ok(known) => (known, None),
            Err(failure) => {
                eprintln!("warning: {}", output::plain(&failure.message));
                (None, Some(failure))
            }
        };
        Ok(Self { db, ws, link: link.clone(), known, broken })
    }

    /// Opens the device for reading; where the user asked for the server, it catches up first.
    pub(super) fn open_to_read(store: &Store, link: &Link) -> Result<Self, Failure> {
        must_exist(store, link)?;
        let session = Self::open(store, link)?;
        session.catch_up_if_asked()?;
        Ok(session)
    }

    /// Finishes the command: the store is closed in good order.
    pub(super) fn close(self) -> Result<(), Failure> {
        Ok(self.db.close()?)
    }

    /// The server to use and whether it must be remembered, if any is known.
    fn remote(&self) -> Result<Option<(Remembered, bool)>, Failure> {
        if self.link.offline {
            return Ok(None);
        }
        let known = self.known.clone();
        let Some(server) = &self.link.server else {
            if let Some(Failure { code, message }) = &self.broken {
                return Err(Failure { code: *code, message: message.clone() });
            }
            let chosen = known.map(|known| match self.link.token() {
                Some(token) if token != known.token => {
                    (Remembered { token: token.into(), ..known }, true)
                }
                _ => (known, false),
            });
            return Ok(chosen);
        };
        let url = Remote::new(server)?.url().to_owned();
        let same =
            known.as_ref().filter(|known| known.url == url).map(|known| known.token.as_str());
        let Some(token) = self.link.token().or(same) else {
            return Err(no_token(&url));
        };
        let chosen = Remembered { token: token.into(), url };
        let fresh = known.as_ref() != Some(&chosen);
        Ok(Some((chosen, fresh)))
    }

    /// True unless no server is known, or none is wanted.
    pub(super) fn knows_server(&self) -> bool {
        !self.link.offline && (self.link.server.is_some() || self.known.is_some())
    }

    /// Begins to sync with the known server, in the background.
    pub(super) fn connect(&self) -> Result<Option<Connection>, Failure> {
        let Some((remembered, fresh)) = self.remote()? else { return Ok(None) };
        let remote = Remote::new(&remembered.url)?.token(&remembered.token);
        let sync = self.db.connect(remote)?;
        sync.attach(&self.ws)?;
        Ok(Some(Connection { sync, remembered, fresh, reached: false }))
    }

    /// As [`Session::connect`], where a server is needed.
    pub(super) fn connect_for_sure(&self) -> Result<Connection, Failure> {
        self.connect()?.ok_or_else(|| {
            Failure::usage(format!(
                "{} knows no server yet: give --server URL --token TOKEN once",
                self.db.dir().display()
            ))
        })
    }

    /// A connection on which the server has answered.
    pub(super) fn reach(&self) -> Result<Connection, Failure> {
        let mut connection = self.connect_for_sure()?;
        connection.wait_caught_up(self, self.link.timeout, &mut |_| {})?;
        Ok(connection)
    }

    /// Sends what waits and receives what is new.
    pub(super) fn catch_up(&self) -> Result<SyncReport, Failure> {
        let mut connection = self.connect_for_sure()?;
        connection.wait_caught_up(self, self.link.timeout, &mut |_| {})
    }

    /// Catches up where the user named a server or asked to wait for it.
    pub(super) fn catch_up_if_asked(&self) -> Result<(), Failure> {
        if self.link.server.is_some() || self.link.wait {
            self.catch_up()?;
        }
        Ok(())
    }

    /// What the server said to a write, or why it has not: it is given a glance, or as long as the
    /// user said.
    pub(super) fn fate(
        &self,
        connection: Option<Connection>,
        receipt: &Receipt,
    ) -> Result<Fate, Failure> {
        if let Some(Settled::Local) = receipt.verdict() {
            return Ok(Fate::Local);
        }
        let Some(mut connection) = connection else {
            let why = match (&self.known, self.link.offline) {
                (_, true) => "offline",
                (None, _) => "no server known (--server URL --token TOKEN)",
                _ => "not connected",
            };
            return match self.link.wait {
                true => Ok(Fate::Unreachable(why.into())),
                false => Ok(Fate::Waiting(why.into())),
            };
        };
        let limit = if self.link.wait { self.link.timeout } else { Some(GLANCE) };
        let patient = self.link.wait && self.link.timeout.is_some();
        let status = connection.sync.wait_status(self.ws.name(), limit, |status| {
            connection.reached |= is_reached(status);
            let put_off = matches!(status, SyncStatus::Offline { .. } | SyncStatus::Held { .. });
            let over = put_off && !patient;
            over || receipt.verdict().is_some() || matches!(status, SyncStatus::Stopped { .. })
        })?;
        if let Some(Settled::Decided(decision)) = receipt.verdict() {
            connection.reached = true;
            connection.remember(self)?;
            return Ok(Fate::Decided(decision));
        }
        let why = match status.unwrap_or_else(|| connection.sync.status(self.ws.name())) {
            SyncStatus::Stopped { message, .. } => {
                return match self.link.wait {
                    true => Err(Failure::failed(format!("saved, but not sent: {message}"))),
                    false => Ok(Fate::Waiting(message)),
                };
            }
            SyncStatus::Held { why, .. } => {
                connection.remember(self)?;
                let held = SyncFailure::Held { why }.to_string();
                return Ok(if self.link.wait { Fate::Held(held) } else { Fate::Waiting(held) });
            }
            SyncStatus::Offline { why, .. } => format!("server not reachable ({why})"),
            _ => "the server has not answered yet".to_owned(),
        };
        connection.remember(self)?;
        Ok(if self.link.wait { Fate::Unreachable(why) } else { Fate::Waiting(why) })
    }

    /// Batches of this device without a verdict.
    pub(super) fn waiting(&self) -> Result<u64, Failure> {
        Ok(self.ws.waiting()?)
    }

    /// The address of the server that this directory remembers.
    pub(super) fn server(&self) -> Option<&str> {
        self.known.as_ref().map(|known| known.url.as_str())
    }

    /// How long to keep trying, as the user said.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.link.timeout
    }
}

/// A running connection of a command.
pub(super) struct Connection {
    pub(super) sync: Sync,
    remembered: Remembered,
    /// Other than what the directory remembers.
    fresh: bool,
    /// The server answered at least once.
    reached: bool,
}

fn is_reached(status: &SyncStatus) -> bool {
    use SyncStatus::{CatchingUp, Held, Live};
    matches!(status, CatchingUp { .. } | Live { .. } | Held { .. })
}

impl Connection {
    /// The server is remembered unless it said no, or was never reached where another is known.
    fn remember(&mut self, session: &Session) -> Result<(), Failure> {
        // A mistyped address must not take the place of one that works.
        if self.fresh && (self.reached || session.known.is_none()) {
            remote::write(session.db.dir(), &self.remembered)?;
            self.fresh = false;
        }
        Ok(())
    }

    /// How the workspace stands. A server that has answered is remembered at once: the command may
    /// be killed before its end.
    pub(super) fn look(&mut self, session: &Session) -> Result<SyncStatus, Failure> {
        let status = self.sync.status(session.ws.name());
        self.reached |= is_reached(&status);
        if self.reached {
            self.remember(session)?;
        }
        Ok(status)
    }

    /// Whether the server serves the workspace now.
    pub(super) fn is_reached_now(&mut self, session: &Session) -> Result<bool, Failure> {
        self.look(session).map(|status| is_reached(&status))
    }

    /// Waits until everything written before is decided and everything of the server is here.
    /// A server that was never reached ends it at once, or after `timeout`; one that is lost on the
    /// way has [`OUTAGE`], or `timeout`, to come back; one that takes no writes of this device has
    /// `timeout` to take them. `look` is called with the status every [`LOOK`].
    pub(super) fn wait_caught_up(
        &mut self,
        session: &Session,
        timeout: Option<Duration>,
        look: &mut dyn FnMut(&SyncStatus),
    ) -> Result<SyncReport, Failure> {
        let begun = Instant::now();
        let mut alive = begun;
        loop {
            let failure = match self.sync.wait_caught_up(&session.ws, Some(LOOK)) {
                Ok(report) => {
                    self.reached = true;
                    self.remember(session)?;
                    return Ok(SyncReport { elapsed: begun.elapsed(), ..report });
                }
                Err(SyncFailure::Engine(error)) => return Err(error.into()),
                Err(stopped @ SyncFailure::Stopped { .. }) => return Err(stopped.into()),
                Err(failure) => failure,
            };
            let status = self.look(session)?;
            look(&status);
            if is_reached(&status) {
                alive = Instant::now();
            }
            let (since, patience) = match (timeout, &failure) {
                (Some(timeout), _) => (begun, timeout),
                (None, SyncFailure::Held { .. }) => (begun, Duration::ZERO),
                (None, SyncFailure::Offline { .. }) if !self.reached => (begun, Duration::ZERO),
                (None, _) => (alive, OUTAGE),
            };
            if since.elapsed() >= patience {
                self.remember(session)?;
                return Err(self.out_of_patience(session, &failure)?);
            }
            // The next attempt has its time; until then there is nothing to see.
            let changed = |now: &SyncStatus| match failure {
                SyncFailure::Offline { .. } => !matches!(now, SyncStatus::Offline { .. }),
                SyncFailure::Held { .. } => !matches!(now, SyncStatus::Held { .. }),
                _ => true,
            };
            self.sync.wait_status(session.ws.name(), Some(LOOK), changed)?;
        }
    }

    fn out_of_patience(
        &self,
        session: &Session,
        failure: &SyncFailure,
    ) -> Result<Failure, Failure> {
        let waiting = session.waiting()?;
        let rest = match waiting {
            0 => String::new(),
            1 => "; 1 batch waits in the outbox and is sent by the next sync".to_owned(),
            more => format!("; {more} batches wait in the outbox and are sent by the next sync"),
        };
        let url = &self.remembered.url;
        if let SyncFailure::Held { .. } = failure {
            let waiting = output::batches(waiting);
            return Ok(Failure::failed(held_text(&failure.to_string(), &waiting)));
        }
        Ok(Failure::unreachable(match failure {
            SyncFailure::Offline { why } => format!("server {url} not reachable ({why}){rest}"),
            other => format!("server {url}: {other}{rest}"),
        }))
    }
}

/// What the server said, what waits because of it, and what to do.
pub(super) fn held_text(why: &str, waiting: &str) -> String {
    format!(
        "{why}; {waiting} in the outbox, nothing is lost: run `lastword sync` once that has changed"
    )
}

/// Opens whatever the directory holds, for reading; where the user asked for the server, a device
/// catches up first.
pub(super) fn open_any(store: &Store, link: &Link) -> Result<Opened, Failure> {
    let opened = open_as_it_is(store, link)?;
    if let Opened::Device(session) = &opened {
        session.catch_up_if_asked()?;
    }
    Ok(opened)
}

/// As [`open_any`], without asking the server for anything.
pub(super) fn open_as_it_is(store: &Store, link: &Link) -> Result<Opened, Failure> {
    must_exist(store, link)?;
    match Database::open(&store.data) {
        Ok(db) => Ok(Opened::Device(Box::new(Session::over(db, store, link)?))),
        Err(Error::OtherRole { .. }) => Ok(Opened::Server(Authority::open(&store.data)?)),
        Err(error) => Err(error.into()),
    }
}

fn no_token(server: &str) -> Failure {
    Failure::usage(format!("a token for {server} is needed: --token TOKEN, or LASTWORD_TOKEN"))
}

fn is_store(store: &Store) -> bool {
    store.data.join("LOCK").exists()
}

/// Whoever names no server needs a store to be there: a mistyped name would look like an empty
/// device.
pub(super) fn must_exist(store: &Store, link: &Link) -> Result<(), Failure> {
    let dir = &store.data;
    if link.server.is_some() || is_store(store) {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "no store in {}: name the --data directory of one, or write or sync into it first",
        dir.display()
    )))
}
