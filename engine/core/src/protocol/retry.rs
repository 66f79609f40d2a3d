//! When to try again: exponential backoff with jitter.

use crate::limits::{RETRY_MAX_MS, RETRY_MIN_MS};

/// Waits that double up to a limit, each drawn anew between half and the whole of its step, so that
/// devices that lost a server together do not come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    step_ms: u64,
    seed: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { step_ms: RETRY_MIN_MS, seed: seed | 1 }
    }

    /// The next wait in milliseconds.
    pub(super) fn next_ms(&mut self) -> u64 {
        let step_ms = self.step_ms;
        self.step_ms = (step_ms * 2).min(RETRY_MAX_MS);
        self.spread(step_ms)
    }

    /// A wait between half and the whole of `step_ms`.
    pub(super) fn spread(&mut self, step_ms: u64) -> u64 {
        // xorshift64 (Marsaglia, 2003): spread is all that is needed here.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let half = step_ms / 2;
        half + self.seed % (half + 1)
    }

    /// Back to the shortest wait.
    pub(super) fn reset(&mut self) {
        self.step_ms = RETRY_MIN_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use crate::limits::{RETRY_MAX_MS, RETRY_MIN_MS};

    /// R3.5, I28: waits grow to the limit and no further, and two seeds differ.
    #[test]
    fn waits_grow_to_a_limit_and_are_spread() {
        let (mut one, mut two) = (Backoff::new(1), Backoff::new(99));
        let waits: alloc::vec::Vec<u64> = (0..20).map(|_| one.next_ms()).collect();
        assert!(waits.iter().all(|wait| (RETRY_MIN_MS / 2..=RETRY_MAX_MS).contains(wait)));
        assert!(waits.iter().any(|wait| *wait > RETRY_MAX_MS / 2));
        assert!((0..20).any(|at| waits.get(at) != Some(&two.next_ms())));
        one.reset();
        assert!(one.next_ms() <= RETRY_MIN_MS);
    }
}
