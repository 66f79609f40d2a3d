//! Time and randomness of a real process; everything below takes them as arguments.

use std::time::{SystemTime, UNIX_EPOCH};

/// Where a database takes the time and its ids from.
pub trait Environment: Send + Sync {
    /// Wall time, milliseconds since 1970 UTC.
    fn now_ms(&self) -> i64;

    /// Bytes that no other call gives.
    fn random(&self) -> [u8; 16];
}

/// The machine that the process runs on.
pub(crate) struct Machine;

impl Environment for Machine {
    fn now_ms(&self) -> i64 {
        now_ms()
    }

    fn random(&self) -> [u8; 16] {
        random()
    }
}

/// Wall time of this machine, milliseconds since 1970 UTC; shown, never used for order.
#[must_use]
pub fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// `N` random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("invariant: the operating system gives random bytes");
    bytes
}

/// A key that nobody knows, from the operating system.
#[must_use]
pub fn random_key() -> [u8; 32] {
    random()
}
