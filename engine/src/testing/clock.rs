//! The time of a cluster, and ids that are the same in every run.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use crate::environment::Environment;
use crate::live::lock;

/// Wall time when a cluster begins: some day in November 2023.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// Time that only moves when it is told to.
#[derive(Debug, Default)]
pub(super) struct Clock {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    elapsed_ms: u64,
    drawn: u64,
}

impl Clock {
    /// Milliseconds since the cluster began, the clock of sessions.
    pub(super) fn elapsed_ms(&self) -> u64 {
        lock(&self.state).elapsed_ms
    }

    /// It is that late now.
    pub(super) fn set(&self, elapsed_ms: u64) {
        lock(&self.state).elapsed_ms = elapsed_ms;
    }

    /// Eight of the bytes that [`Environment::random`] gives.
    pub(super) fn number(&self) -> u64 {
        let mut state = lock(&self.state);
        state.drawn += 1;
        // splitmix64 (Steele, Lea, Flood, 2014): distinct numbers that look like ids.
        let mut mixed = state.drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Environment for Clock {
    fn now_ms(&self) -> i64 {
        BEGIN_MS.saturating_add_unsigned(self.elapsed_ms())
    }

    fn random(&self) -> [u8; 16] {
        (u128::from(self.number()) << 64 | u128::from(self.number())).to_be_bytes()
    }
}

/// The clock of a device, which may be wrong.
#[derive(Debug)]
pub(super) struct DeviceClock {
    clock: Arc<Clock>,
    ahead_ms: AtomicI64,
}

impl DeviceClock {
    pub(super) fn new(clock: &Arc<Clock>) -> Self {
        Self { clock: Arc::clone(clock), ahead_ms: AtomicI64::new(0) }
    }

    pub(super) fn set_ahead(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::SeqCst);
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        self.clock.elapsed_ms()
    }

    pub(super) fn number(&self) -> u64 {
        self.clock.number()
    }
}

impl Environment for DeviceClock {
    fn now_ms(&self) -> i64 {
        self.clock.now_ms().saturating_add(self.ahead_ms.load(Ordering::SeqCst))
    }

    fn random(&self) -> [u8; 16] {
        self.clock.random()
    }
}
