//! What is between a device and the server.

use std::collections::VecDeque;

use crate::node::Outgoing;

/// A direction of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the device to the server.
    Up,
    /// From the server to the device.
    Down,
}

/// The connection of one device, if there is one, and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Number of the connection.
    pub(super) open: Option<u64>,
    /// The device reaches nobody.
    pub(super) offline: bool,
    up: OneWay<Vec<u8>>,
    down: OneWay<Outgoing>,
}

/// What is on its way in one direction.
#[derive(Debug)]
struct OneWay<T> {
    sent: VecDeque<T>,
    /// How many may still arrive; all of them if none.
    may_pass: Option<usize>,
}

impl<T> Default for OneWay<T> {
    fn default() -> Self {
        Self { sent: VecDeque::new(), may_pass: None }
    }
}

impl<T> OneWay<T> {
    fn next(&mut self) -> Option<T> {
        if self.may_pass == Some(0) {
            return None;
        }
        let next = self.sent.pop_front()?;
        self.may_pass = self.may_pass.map(|left| left - 1);
        Some(next)
    }
}

impl Line {
    /// Another connection begins.
    pub(super) fn open(&mut self, number: u64) {
        self.open = Some(number);
    }

    /// The connection ends; what was on its way is lost. Answers its number.
    pub(super) fn close(&mut self) -> Option<u64> {
        self.up.sent.clear();
        self.down.sent.clear();
        self.open.take()
    }

    /// So many messages may still arrive that way; all of them if none.
    pub(super) fn let_pass(&mut self, way: Way, may_pass: Option<usize>) {
        match way {
            Way::Up => self.up.may_pass = may_pass,
            Way::Down => self.down.may_pass = may_pass,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.up.may_pass.is_some() || self.down.may_pass.is_some()
    }

    /// The device sends; what it sends without a connection is lost.
    pub(super) fn send_up(&mut self, message: Vec<u8>) {
        if self.open.is_some() {
            self.up.sent.push_back(message);
        }
    }

    pub(super) fn send_down(&mut self, outgoing: Outgoing) {
        self.down.sent.push_back(outgoing);
    }

    /// What arrives at the server next.
    pub(super) fn next_up(&mut self) -> Option<Vec<u8>> {
        self.up.next()
    }

    /// What arrives at the device next.
    pub(super) fn next_down(&mut self) -> Option<Outgoing> {
        self.down.next()
    }
}
