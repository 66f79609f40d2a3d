//! What all connections share: the authority, the members, the newest published view, and which
//! connection serves which device.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lastword::core::id::{DeviceId, WorkspaceName};
use lastword::core::protocol::AttachRefusal;
use lastword::core::protocol::authority::Input;
use lastword::{Authority, PushGate};
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

/// How many replaced nonces of one device are remembered.
const MAX_REPLACED_NONCES: usize = 64;
/// Beyond so many devices the nonces of one that goes are forgotten.
const MAX_REMEMBERED_DEVICES: usize = 100_000;

/// Shared by all connections of a server.
pub struct Hub {
    /// The store that decides.
    pub authority: Authority,
    /// Who may do what.
    pub members: Members,
    published: watch::Sender<Option<Arc<lastword::store::View>>>,
    failed: watch::Sender<Option<String>>,
    holders: Mutex<HashMap<(WorkspaceName, DeviceId), Holder>>,
}

/// The connection that serves a device in a workspace.
struct Holder {
    connection: u64,
    attachment: u64,
    /// False once it has ended.
    attached: bool,
    nonce: [u8; 16],
    events: mpsc::UnboundedSender<Event>,
    gate: PushGate,
    replaced: VecDeque<[u8; 16]>,
}

/// A connection that wants to serve a device.
pub struct Claim {
    /// Number of the connection.
    pub connection: u64,
    /// Number of the attachment on it.
    pub attachment: u64,
    /// The store's nonce.
    pub nonce: [u8; 16],
    /// Where the connection hears that it was replaced.
    pub events: mpsc::UnboundedSender<Event>,
    /// Closed for good once it is replaced.
    pub gate: PushGate,
}

impl Hub {
    /// A hub for one authority.
    #[must_use]
    pub fn new(authority: Authority, members: Members) -> Arc<Self> {
        let (published, _) = watch::channel(None);
        let (failed, _) = watch::channel(None);
        let holders = Mutex::default();
        let hub = Arc::new(Self { authority, members, published, failed, holders });
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

    fn holders(&self) -> MutexGuard<'_, HashMap<(WorkspaceName, DeviceId), Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut holders = self.holders();
        let key = (workspace.clone(), device);
        let mut replaced = VecDeque::new();
        if let Some(old) = holders.remove(&key) {
            if old.nonce != claim.nonce && old.replaced.contains(&claim.nonce) {
                holders.insert(key, old);
                return Err(AttachRefusal::DeviceForked);
            }
            if (old.connection, old.attachment) != (claim.connection, claim.attachment) {
                old.gate.fence();
                // A connection that is gone already does not need to hear it.
                let _ = old.events.send(Event::Evict {
                    attachment: old.attachment,
                    code: AttachRefusal::Fenced,
                    message: "another connection of this device took over".into(),
                });
            }
            replaced = old.replaced;
            if old.nonce != claim.nonce {
                replaced.push_back(old.nonce);
                if replaced.len() > MAX_REPLACED_NONCES {
                    replaced.pop_front();
                }
            }
        }
        let Claim { connection, attachment, nonce, events, gate } = claim;
        let attached = true;
        let holder = Holder { connection, attachment, attached, nonce, events, gate, replaced };
        holders.insert(key, holder);
        Ok(())
    }

    /// The attachment is over; what is remembered of the device are the nonces that it has had.
    pub fn release(&self, workspace: &WorkspaceName, device: DeviceId, connection: u64) {
        let mut holders = self.holders();
        let key = (workspace.clone(), device);
        let limit = holders.len() > MAX_REMEMBERED_DEVICES;
        if let Some(holder) = holders.get_mut(&key).filter(|h| h.connection == connection) {
            holder.attached = false;
            if limit {
                holders.remove(&key);
            }
        }
    }

    /// Number of devices that are attached now, each workspace counted.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.holders().values().filter(|holder| holder.attached).count()
    }
}
