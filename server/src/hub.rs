//! What all connections share: the authority, the members, the newest published view, and which
//! connection serves which device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lastword::core::id::{DeviceId, WorkspaceName};
use lastword::core::protocol::AttachRefusal;
use lastword::core::protocol::authority::Input;
use lastword::{Attachments, Authority, Claim, Fenced};
use tokio::sync::{mpsc, watch};

use crate::members::Members;

/// What reaches a connection from outside its socket.
pub enum Event {
    /// An answer of the store.
    Answer(Input),
    /// Another connection took over, or the membership ended.
    Evict {
        /// The attachment.
        attachment: u64,
        /// Why.
        code: AttachRefusal,
        /// For people.
        message: String,
    },
    /// The server stops.
    Shutdown,
}

/// Shared by all connections of a server.
pub struct Hub {
    /// The store that decides.
    pub authority: Authority,
    /// Who may do what.
    pub members: Members,
    published: watch::Sender<Option<Arc<lastword::store::View>>>,
    failed: watch::Sender<Option<String>>,
    attachments: Mutex<Attachments>,
    /// Where each connection hears of events.
    connections: Mutex<HashMap<u64, mpsc::UnboundedSender<Event>>>,
}

impl Hub {
    /// A hub for one authority.
    #[must_use]
    pub fn new(authority: Authority, members: Members) -> Arc<Self> {
        let (published, _) = watch::channel(None);
        let (failed, _) = watch::channel(None);
        let (attachments, connections) = Default::default();
        let hub =
            Arc::new(Self { authority, members, published, failed, attachments, connections });
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

    /// Events for connection `number` go to `events` until it says [`Hub::disconnected`].
    pub fn connected(&self, number: u64, events: mpsc::UnboundedSender<Event>) {
        lock(&self.connections).insert(number, events);
    }

    /// The connection is over.
    pub fn disconnected(&self, number: u64) {
        lock(&self.connections).remove(&number);
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
            && let Some(events) = lock(&self.connections).get(&connection)
        {
            let code = AttachRefusal::Fenced;
            let message = "another connection of this device took over".into();
            // A connection that is gone already does not need to hear it.
            let _ = events.send(Event::Evict { attachment, code, message });
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
