//! Which connection serves which device: the newest one, and no other.
//!
//! A device that attaches again fences its older attachment. Its nonce begins with a number that
//! rises each time the store is opened. A nonce that comes back after it was replaced, or comes
//! after one of a later opening, belongs to a copy of the store: two stores use one device id. (Or
//! to a process that is gone, whose last words arrive late: nobody hears the answer then.)

use std::collections::{BTreeSet, HashMap, VecDeque};

use lastword_core::id::{DeviceId, WorkspaceName};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::AttachRefusal;

use crate::push_gate::PushGate;

/// How many replaced nonces of one device are remembered.
const MAX_REPLACED_NONCES: usize = 64;
/// Beyond so many devices the nonces of one that goes are forgotten.
const MAX_REMEMBERED_DEVICES: usize = 100_000;

/// The attachments of one authority.
#[derive(Debug, Default)]
pub struct Attachments {
    holders: HashMap<(WorkspaceName, DeviceId), Holder>,
}

/// The connection that serves a device in a workspace.
#[derive(Debug)]
struct Holder {
    connection: u64,
    attachment: u64,
    /// False once it has ended.
    attached: bool,
    nonce: [u8; 16],
    gate: PushGate,
    replaced: VecDeque<[u8; 16]>,
}

/// A connection that wants to serve a device.
#[derive(Debug)]
pub struct Claim {
    /// Number of the connection.
    pub connection: u64,
    /// Number of the attachment on it.
    pub attachment: u64,
    /// The store's nonce.
    pub nonce: [u8; 16],
    /// Closed for good once it is replaced.
    pub gate: PushGate,
}

/// An attachment that another took the place of; its connection is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced {
    /// Number of the connection.
    pub connection: u64,
    /// Number of the attachment on it.
    pub attachment: u64,
}

/// The part of a nonce that rises with each opening of the store.
fn opening(nonce: &[u8; 16]) -> u64 {
    u64::from_be_bytes(*nonce.first_chunk().expect("invariant: a nonce has 16 bytes"))
}

impl Attachments {
    /// Makes `claim` the attachment of that device; no batch of the one before is decided any more.
    ///
    /// # Errors
    /// [`AttachRefusal::DeviceForked`] if the nonce was replaced before, or is of an earlier
    /// opening: two stores use the id. [`AttachRefusal::Fenced`] if the same store has attached
    /// under a higher number since: what was asked on a connection that it gave up may come late.
    pub fn claim(
        &mut self,
        workspace: &WorkspaceName,
        device: DeviceId,
        claim: Claim,
    ) -> Result<Option<Fenced>, AttachRefusal> {
        let key = (workspace.clone(), device);
        let mut replaced = VecDeque::new();
        let mut fenced = None;
        if let Some(old) = self.holders.remove(&key) {
            let is_earlier = opening(&claim.nonce) < opening(&old.nonce);
            let is_replaced = old.replaced.contains(&claim.nonce);
            let is_copy = old.nonce != claim.nonce && (is_earlier || is_replaced);
            if is_copy && !planted(Plant::CloneAttaches) {
                self.holders.insert(key, old);
                return Err(AttachRefusal::DeviceForked);
            }
            let is_late = old.nonce == claim.nonce && old.attachment > claim.attachment;
            if is_late && !planted(Plant::LateAttachFences) {
                self.holders.insert(key, old);
                return Err(AttachRefusal::Fenced);
            }
            if (old.connection, old.attachment) != (claim.connection, claim.attachment) {
                old.gate.fence();
                let (connection, attachment) = (old.connection, old.attachment);
                fenced = Some(Fenced { connection, attachment });
            }
            replaced = old.replaced;
            if old.nonce != claim.nonce {
                replaced.push_back(old.nonce);
                if replaced.len() > MAX_REPLACED_NONCES {
                    replaced.pop_front();
                }
            }
        }
        let Claim { connection, attachment, nonce, gate } = claim;
        let holder = Holder { connection, attachment, attached: true, nonce, gate, replaced };
        self.holders.insert(key, holder);
        Ok(fenced)
    }

    /// No batch of these connections is decided any more.
    pub fn fence(&self, connections: &BTreeSet<u64>) {
        let fenced =
            self.holders.values().filter(|holder| connections.contains(&holder.connection));
        fenced.for_each(|holder| holder.gate.fence());
    }

    /// The attachment is over; what is remembered of the device are the nonces that it has had.
    pub fn release(&mut self, workspace: &WorkspaceName, device: DeviceId, connection: u64) {
        let key = (workspace.clone(), device);
        let is_full = self.holders.len() > MAX_REMEMBERED_DEVICES;
        if let Some(holder) = self.holders.get_mut(&key).filter(|h| h.connection == connection) {
            holder.attached = false;
            if is_full {
                self.holders.remove(&key);
            }
        }
    }

    /// Number of devices that are attached now, each workspace counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.holders.values().filter(|holder| holder.attached).count()
    }

    /// Whether no device is attached now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(connection: u64, attachment: u64, nonce: u8) -> Claim {
        Claim { connection, attachment, nonce: [nonce; 16], gate: PushGate::default() }
    }

    /// I28, found by simulation (seed 234). A device gave up a slow connection and attached on
    /// another; then what it had sent on the first one arrived, fenced the second, and the device
    /// stopped for good although nothing else used its id.
    #[test]
    fn what_arrives_late_on_an_old_connection_fences_nobody() {
        let mut attachments = Attachments::default();
        let workspace = WorkspaceName::new("w").expect("a name");
        let device = DeviceId([1; 16]);
        let mut claims = |claim| attachments.claim(&workspace, device, claim);
        assert_eq!(claims(claim(2, 8, 1)), Ok(None));
        assert_eq!(claims(claim(1, 7, 1)), Err(AttachRefusal::Fenced));
        let fenced = Fenced { connection: 2, attachment: 8 };
        assert_eq!(claims(claim(3, 9, 1)), Ok(Some(fenced)));
        // Another store numbers its attachments anew.
        let fenced = Fenced { connection: 3, attachment: 9 };
        assert_eq!(claims(claim(4, 1, 2)), Ok(Some(fenced)));
        assert_eq!(claims(claim(5, 10, 1)), Err(AttachRefusal::DeviceForked));
        assert_eq!(claims(claim(6, 10, 0)), Err(AttachRefusal::DeviceForked), "gone before");
    }
}
