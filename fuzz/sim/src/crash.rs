//! Opening, closing, and what a disk that fails or loses power does to a party.

use std::sync::Arc;

use lastword::Error;
use lastword::core::id::DeviceId;
use lastword::core::protocol::replica::Input;
use lastword::node::{AuthorityNode, DeviceNode, DeviceSettings};
use lastword::store::{Fault, MemoryDisk, Survival};

use crate::act::TABLES;
use crate::check;
use crate::fault::Violation;
use crate::random::Random;
use crate::world::{Done, World, broken, options};

/// A party that crashes while it opens is opened again so many times.
const MAX_OPENINGS: usize = 4;

/// What is left of a disk after a power cut.
fn after_cut(disk: &MemoryDisk, random: &mut Random) -> MemoryDisk {
    let survival = match random.below(4) {
        0 => Survival::Dropped,
        1 => Survival::Kept,
        _ => Survival::Torn(random.next()),
    };
    disk.after_power_cut(survival)
}

impl World {
    pub(crate) fn open_authority(&mut self) -> Done {
        for attempt in 0..MAX_OPENINGS {
            self.cut_while_opening(None, attempt);
            let disk = Arc::new(self.disk.clone());
            let wall = self.wall(0);
            match AuthorityNode::open(disk, options(&mut self.random), wall) {
                Ok((authority, _)) => {
                    self.disk.set_fault(None);
                    self.authority = Some(authority);
                    return Ok(check::authority_now(self)?);
                }
                Err(error) if attempt + 1 == MAX_OPENINGS => {
                    return Err(broken("the authority does not open", &error));
                }
                Err(_) => self.disk = after_cut(&self.disk, &mut self.random),
            }
        }
        Ok(())
    }

    pub(crate) fn open_device(&mut self, at: usize) -> Done {
        for attempt in 0..MAX_OPENINGS {
            self.cut_while_opening(Some(at), attempt);
            let settings = DeviceSettings {
                store: options(&mut self.random),
                local_tables: vec![
                    lastword::core::id::TableName::new(TABLES[1]).expect("invariant: a name"),
                ],
                new_device: DeviceId(self.random.bytes()),
                nonce: self.random.bytes(),
                seed: self.random.next(),
                max_undecided: 64,
            };
            let (now, wall) = (self.now, self.wall(self.devices[at].skew_ms));
            let disk = Arc::new(self.devices[at].disk.clone());
            match DeviceNode::open(disk, settings, wall) {
                Ok((mut node, _)) => {
                    self.devices[at].disk.set_fault(None);
                    node.input(now, Input::Start);
                    for workspace in &self.workspaces {
                        node.attach(workspace, now).map_err(|error| broken("attach", &error))?;
                    }
                    self.devices[at].node = Some(node);
                    check::reopened(self, at)?;
                    self.link(at);
                    return Ok(check::device_now(self, at)?);
                }
                Err(error) if attempt + 1 == MAX_OPENINGS => {
                    return Err(broken("a device does not open", &error));
                }
                Err(_) => {
                    let disk = after_cut(&self.devices[at].disk, &mut self.random);
                    self.devices[at].disk = disk;
                }
            }
        }
        Ok(())
    }

    /// Recovery may lose power too, but not for ever.
    fn cut_while_opening(&mut self, device: Option<usize>, attempt: usize) {
        let cut = attempt + 1 < MAX_OPENINGS && self.random.once_in(4);
        let after = self.random.below(12);
        let disk = match device {
            Some(at) => &self.devices[at].disk,
            None => &self.disk,
        };
        disk.set_fault(cut.then(|| (disk.operations() + after, Fault::PowerCut)));
    }

    /// A device's store failed: its process ends, with the power or without, and begins again.
    pub(crate) fn device_failed(&mut self, at: usize, error: &Error) -> Done {
        if !matches!(error, Error::Store(_)) {
            return Err(broken("a device refuses what it has to do", error));
        }
        self.devices[at].node = None;
        self.hang_up(at);
        let power = std::mem::take(&mut self.devices[at].power);
        let device = &mut self.devices[at];
        match power {
            true => device.disk = after_cut(&device.disk, &mut self.random),
            false => device.disk.set_fault(None),
        }
        self.open_device(at)
    }

    /// The same for the authority; its connections end.
    pub(crate) fn authority_failed(&mut self, error: &Error) -> Done {
        if !matches!(error, Error::Store(_)) {
            return Err(broken("the authority refuses what it has to do", error));
        }
        self.authority = None;
        self.net.lines.values_mut().for_each(|line| line.authority_open = false);
        match std::mem::take(&mut self.power) {
            true => self.disk = after_cut(&self.disk, &mut self.random),
            false => self.disk.set_fault(None),
        }
        self.net.tidy();
        self.open_authority()
    }

    /// A device closes in good order and opens again.
    pub(crate) fn device_restart(&mut self, at: usize) -> Result<bool, Violation> {
        let Some(node) = self.devices[at].node.take() else { return Ok(false) };
        self.hang_up(at);
        // A disk that fails then leaves what a crash would.
        let closed = node.close().map_err(Error::from);
        match closed {
            Err(error) => self.device_failed(at, &error)?,
            Ok(()) => self.open_device(at)?,
        }
        Ok(true)
    }

    /// The authority closes in good order and opens again.
    pub(crate) fn restart(&mut self) -> Result<bool, Violation> {
        let Some(authority) = self.authority.take() else { return Ok(false) };
        self.net.lines.values_mut().for_each(|line| line.authority_open = false);
        self.net.tidy();
        match authority.close().map_err(Error::from) {
            Err(error) => self.authority_failed(&error)?,
            Ok(()) => self.open_authority()?,
        }
        Ok(true)
    }
}
