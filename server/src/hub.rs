//! What all connections share: the authority, the members, the newest published view, and which
//! connection serves which device.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, header};
use lastword::core::id::{DeviceId, WorkspaceName};
use lastword::core::protocol::AttachRefusal;
use lastword::core::protocol::authority::Input;
use lastword::store::StoreError;
use lastword::{Attachments, Authority, Claim, Error, Fenced, MemberChange};
use tokio::sync::{mpsc, watch};

use crate::members::{Members, MembersError, Tokens};
use crate::signed::Signer;

/// What reaches a connection from outside its socket.
pub enum Event {
    /// An answer of the store.
    Answer(Input),
    /// Another connection took over.
    Evict {
        /// The attachment.
        attachment: u64,
        /// Why.
        code: AttachRefusal,
        /// For people.
        message: String,
    },
    /// The members are others now.
    Members,
    /// The token counts no more.
    TokenGone,
    /// The server stops.
    Shutdown,
}

/// Why the members stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is no file of members.
    #[error("the server takes any token (--dev): it has no file of members to read again")]
    Dev,
    /// The file cannot be used.
    #[error("{0}; the members stay as they were")]
    Members(#[from] MembersError),
    /// The store failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// What every request sees.
#[derive(Clone)]
pub struct Served {
    /// What all connections share.
    pub hub: Arc<Hub>,
    /// True once the server stops.
    pub stopping: watch::Receiver<bool>,
}

/// Shared by all connections of a server.
pub struct Hub {
    /// The store that decides.
    pub authority: Authority,
    published: watch::Sender<Option<Arc<lastword::store::View>>>,
    failed: watch::Sender<Option<String>>,
    attachments: Mutex<Attachments>,
    /// Locked before `attachments`.
    connected: Mutex<Connected>,
    /// One reads the file of members at a time.
    reloading: Mutex<()>,
    /// Signs URLs of files.
    pub signer: Signer,
}

/// Who may connect, and who has. Under one lock: no token is checked against members of before and
/// then passed over when they change.
struct Connected {
    members: Members,
    connections: HashMap<u64, Known>,
}

struct Known {
    /// Where the connection hears of events.
    events: mpsc::UnboundedSender<Event>,
    /// Its token, and whose that was.
    token: Option<(String, String)>,
}

impl Hub {
    /// A hub for one authority.
    #[must_use]
    pub fn new(authority: Authority, members: Members) -> Arc<Self> {
        let (published, _) = watch::channel(None);
        let (failed, _) = watch::channel(None);
        let (attachments, reloading) = Default::default();
        let connected = Mutex::new(Connected { members, connections: HashMap::new() });
        let signer = Signer::new(lastword::random_key());
        let hub = Arc::new(Self {
            authority,
            published,
            failed,
            attachments,
            connected,
            reloading,
            signer,
        });
        let told = Arc::downgrade(&hub);
        hub.authority.on_publish(move |view| {
            if let Some(hub) = told.upgrade() {
                hub.published.send_replace(Some(Arc::clone(view)));
            }
        });
        hub
    }

    /// The newest view that every decision in it was told of before; pages are read from it, so
    /// that a device learns its verdict before it sees its own change come back.
    #[must_use]
    pub fn view(&self) -> Arc<lastword::store::View> {
        self.published.borrow().clone().unwrap_or_else(|| self.authority.view())
    }

    /// Told after every published group.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Option<Arc<lastword::store::View>>> {
        self.published.subscribe()
    }

    /// The store takes no writes until it is opened again: the server has to end.
    pub fn fail(&self, reason: String) {
        self.failed.send_replace(Some(reason));
    }

    /// Why the server has to end, once it has to.
    pub async fn failure(&self) -> String {
        let mut failed = self.failed.subscribe();
        loop {
            if let Some(reason) = failed.borrow_and_update().clone() {
                return reason;
            }
            if failed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Fails the server if the store takes no more writes.
    pub fn end_if_poisoned(&self, error: &Error) {
        if let Error::Store(StoreError::OutcomeUnknown { .. } | StoreError::Poisoned { .. }) = error
        {
            self.fail(error.to_string());
        }
    }

    /// Events for connection `number` go to `events` until it says [`Hub::disconnected`].
    pub fn connected(&self, number: u64, events: mpsc::UnboundedSender<Event>) {
        lock(&self.connected).connections.insert(number, Known { events, token: None });
    }

    /// The connection is over.
    pub fn disconnected(&self, number: u64) {
        lock(&self.connected).connections.remove(&number);
    }

    /// The user behind the token of connection `number`, which is told if it counts no more.
    ///
    /// # Errors
    /// A sentence for the device.
    pub fn authenticate(&self, number: u64, token: &str) -> Result<String, String> {
        let mut connected = lock(&self.connected);
        let user = connected.members.authenticate(token)?;
        if let Some(known) = connected.connections.get_mut(&number) {
            known.token = Some((token.to_owned(), user.clone()));
        }
        Ok(user)
    }

    /// The user behind a token; none if it counts for nothing.
    #[must_use]
    pub fn user_of(&self, token: &str) -> Option<String> {
        lock(&self.connected).members.authenticate(token).ok()
    }

    /// The user behind the bearer token of a request.
    #[must_use]
    pub fn user_of_request(&self, headers: &HeaderMap) -> Option<String> {
        let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        self.user_of(token.strip_prefix("Bearer ")?)
    }

    /// Whether any token is taken.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        matches!(lock(&self.connected).members, Members::Dev)
    }

    /// Reads the file of members again. When this returns, no batch of somebody who is no member
    /// any more is decided, and every connection hears of it. Blocks until it is durable.
    ///
    /// # Errors
    /// [`ReloadError`]; then the members stay as they were.
    pub fn reload(&self) -> Result<Vec<MemberChange>, ReloadError> {
        let _alone = lock(&self.reloading);
        let path = match &lock(&self.connected).members {
            Members::Dev => return Err(ReloadError::Dev),
            Members::Tokens(tokens) => tokens.path.clone(),
        };
        let tokens = Tokens::read(&path)?;
        let admitted = self.authority.admit(tokens.list.clone());
        let changes = admitted.inspect_err(|error| self.end_if_poisoned(error))?;
        let mut connected = lock(&self.connected);
        let Connected { members, connections } = &mut *connected;
        *members = Members::Tokens(tokens);
        let is_gone = |known: &Known| match &known.token {
            Some((token, user)) => members.authenticate(token).as_ref() != Ok(user),
            None => false,
        };
        let gone = connections.iter().filter(|(_, known)| is_gone(known));
        let gone: BTreeSet<u64> = gone.map(|(number, _)| *number).collect();
        lock(&self.attachments).fence(&gone);
        for (number, known) in connections {
            let is_gone = gone.contains(number);
            // A connection that is gone already does not need to hear it.
            let _ = known.events.send(if is_gone { Event::TokenGone } else { Event::Members });
        }
        Ok(changes)
    }

    /// Deletes a workspace and tells every connection; answers how many live records it had. Blocks
    /// until it is durable.
    ///
    /// # Errors
    /// As [`Authority::delete_workspace`].
    pub fn delete_workspace(&self, workspace: &WorkspaceName) -> Result<u64, Error> {
        let deleted = self.authority.delete_workspace(workspace);
        let records = deleted.inspect_err(|error| self.end_if_poisoned(error))?;
        for known in lock(&self.connected).connections.values() {
            // A connection that is gone already does not need to hear it.
            let _ = known.events.send(Event::Members);
        }
        Ok(records)
    }

    /// Makes `claim` the connection of that device; an older one is told that it is fenced.
    ///
    /// # Errors
    /// [`AttachRefusal::DeviceForked`] if the nonce was replaced before: two stores use the id.
    pub fn claim(
        &self,
        workspace: &WorkspaceName,
        device: DeviceId,
        claim: Claim,
    ) -> Result<(), AttachRefusal> {
        let fenced = lock(&self.attachments).claim(workspace, device, claim)?;
        if let Some(Fenced { connection, attachment }) = fenced
            && let Some(known) = lock(&self.connected).connections.get(&connection)
        {
            let code = AttachRefusal::Fenced;
            let message = "another connection of this device took over".into();
            // A connection that is gone already does not need to hear it.
            let _ = known.events.send(Event::Evict { attachment, code, message });
        }
        Ok(())
    }

    /// The attachment is over; what is remembered of the device are the nonces that it has had.
    pub fn release(&self, workspace: &WorkspaceName, device: DeviceId, connection: u64) {
        lock(&self.attachments).release(workspace, device, connection);
    }

    /// Number of devices that are attached now, each workspace counted.
    #[must_use]
    pub fn attached(&self) -> usize {
        lock(&self.attachments).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
