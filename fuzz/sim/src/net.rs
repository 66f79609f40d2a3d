//! The network: a queue of bytes each way for every connection.

use std::collections::{BTreeMap, VecDeque};

/// Bytes on the way, with the time when they arrive.
type Way = VecDeque<(u64, Vec<u8>)>;

/// One connection.
#[derive(Debug, Default)]
pub struct Line {
    /// The device at its one end.
    pub device: usize,
    /// To the authority.
    pub up: Way,
    /// To the device.
    pub down: Way,
    /// The device's end is open.
    pub device_open: bool,
    /// The authority's end is open.
    pub authority_open: bool,
    /// Nothing arrives at the authority, or at the device, any more.
    pub mute: [bool; 2],
    /// Messages take so many times as long.
    pub slow: u64,
    /// Numbers of the attachments that the device has asked for, by workspace.
    pub attachments: BTreeMap<String, u64>,
}

/// All connections, by number.
#[derive(Debug, Default)]
pub struct Net {
    /// Them.
    pub lines: BTreeMap<u64, Line>,
    next: u64,
}

impl Net {
    /// Opens a connection for a device.
    pub fn open(&mut self, device: usize) -> u64 {
        self.next += 1;
        let (device_open, authority_open, slow) = (true, true, 1);
        let line = Line { device, device_open, authority_open, slow, ..Line::default() };
        self.lines.insert(self.next, line);
        self.next
    }

    /// The connection of a device, if its end is open.
    #[must_use]
    pub fn of(&self, device: usize) -> Option<u64> {
        let mut open = self.lines.iter().filter(|(_, l)| l.device == device && l.device_open);
        open.next().map(|(number, _)| *number)
    }

    /// Forgets connections of which no end is open.
    pub fn tidy(&mut self) {
        self.lines.retain(|_, line| line.device_open || line.authority_open);
    }

    /// Everything arrives again.
    pub fn heal(&mut self) {
        for line in self.lines.values_mut() {
            (line.mute, line.slow) = ([false; 2], 1);
        }
    }
}

impl Line {
    /// Puts bytes on one way; nothing overtakes what is there.
    pub fn put(way: &mut Way, at: u64, bytes: Vec<u8>) {
        let behind = way.back().map_or(0, |(at, _)| *at);
        way.push_back((at.max(behind), bytes));
    }
}
