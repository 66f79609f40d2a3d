//! Hybrid logical clock: a writer's own notion of "later", never used to order ops of two writers.
//!
//! Source: Kulkarni et al., "Logical Physical Clocks" (2014). 48 bits of milliseconds since 1970,
//! 16 bits of counter.

/// A clock reading; compares as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The reading after `self` at wall time `now_ms` (milliseconds since 1970 UTC): rises even if
    /// the wall clock stands still or goes back.
    #[must_use]
    pub fn next(self, now_ms: i64) -> Hlc {
        let wall = u64::try_from(now_ms).unwrap_or(0).min((1 << 48) - 1) << 16;
        Hlc(wall.max(self.0.saturating_add(1)))
    }

    /// Milliseconds since 1970 UTC in the upper 48 bits.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::Hlc;

    /// I26: a clock that stands still or jumps back still gives rising readings.
    #[test]
    fn readings_rise_whatever_the_wall_clock_does() {
        let mut last = Hlc::default();
        for now in [1000, 1000, 999, -5, 2000, i64::MAX, 0] {
            let next = last.next(now);
            assert!(next > last, "at wall time {now}");
            last = next;
        }
    }
}
