//! Records first: a transfer gives way while records are written to the store that it fills.

use std::time::{Duration, Instant};

/// Bytes a second that a transfer brings while records are written beside it.
const BESIDE_RECORDS: u64 = 16 * 1024 * 1024;
/// After the last record a transfer gives way for so long.
const GIVES_WAY: Duration = Duration::from_secs(1);
/// Longest wait at a time: whoever stops the transfer must not wait for it.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// How fast a transfer may go.
#[derive(Debug)]
pub(super) struct Pace {
    /// The number of records when it was looked at last.
    seen: u64,
    gives_way_until: Option<Instant>,
    /// When it began to give way, and what had come by then.
    since: (Instant, u64),
}

impl Pace {
    pub(super) fn new(records: u64, now: Instant) -> Self {
        Self { seen: records, gives_way_until: None, since: (now, 0) }
    }

    /// The transfer itself has written up to this number.
    pub(super) fn wrote(&mut self, records: u64) {
        self.seen = records;
    }

    /// How long to wait now, where `came` bytes have come in all and `records` is a number that
    /// changes with each record.
    pub(super) fn wait(&mut self, records: u64, came: u64, now: Instant) -> Duration {
        if records != self.seen {
            self.seen = records;
            if self.gives_way_until.is_none_or(|until| until <= now) {
                self.since = (now, came);
            }
            self.gives_way_until = Some(now + GIVES_WAY);
        }
        if self.gives_way_until.is_none_or(|until| until <= now) {
            return Duration::ZERO;
        }
        let (begun, before) = self.since;
        let allowed_ms = came.saturating_sub(before).saturating_mul(1000) / BESIDE_RECORDS;
        let due = begun + Duration::from_millis(allowed_ms);
        due.saturating_duration_since(now).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R2.3: alone a transfer never waits, its own frames do not count as records, and beside
    /// records it keeps to its rate until a second after the last of them.
    #[test]
    fn a_transfer_gives_way_while_records_are_written() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut pace = Pace::new(10, begun);
        assert_eq!(pace.wait(10, 1 << 30, at(1)), Duration::ZERO);
        pace.wrote(20);
        assert_eq!(pace.wait(20, 1 << 30, at(2)), Duration::ZERO);
        // A record: from here on 16 MiB a second.
        assert_eq!(pace.wait(21, 1 << 30, at(3)), Duration::ZERO);
        let came = (1 << 30) + BESIDE_RECORDS / 8;
        assert_eq!(pace.wait(21, came, at(23)), Duration::from_millis(105));
        assert_eq!(pace.wait(22, came, at(128)), Duration::ZERO);
        let much = came + BESIDE_RECORDS;
        assert_eq!(pace.wait(22, much, at(129)), LONGEST_WAIT);
        assert_eq!(pace.wait(22, much, at(1129)), Duration::ZERO, "a second after the last");
    }
}
