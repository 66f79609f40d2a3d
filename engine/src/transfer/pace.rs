//! Records first: a transfer gives way while records are written to the store that it fills.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Rises with each batch of records, and with nothing else: other transfers, and what this one
    /// writes itself, are no reason to wait.
    records: Arc<AtomicU64>,
    seen: u64,
    gives_way_until: Option<Instant>,
    /// When it began to give way, and what had come by then.
    since: (Instant, u64),
}

impl Pace {
    pub(super) fn new(records: Arc<AtomicU64>, now: Instant) -> Self {
        let seen = records.load(Ordering::Relaxed);
        Self { records, seen, gives_way_until: None, since: (now, 0) }
    }

    /// How long to wait now, where `came` bytes have come in all.
    pub(super) fn wait(&mut self, came: u64, now: Instant) -> Duration {
        let records = self.records.load(Ordering::Relaxed);
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

    /// R2.3: alone a transfer never waits, and beside records it keeps to its rate until a second
    /// after the last of them.
    #[test]
    fn a_transfer_gives_way_while_records_are_written() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let records: Arc<AtomicU64> = Arc::default();
        let mut pace = Pace::new(Arc::clone(&records), begun);
        let write = || records.fetch_add(1, Ordering::Relaxed);
        assert_eq!(pace.wait(1 << 30, at(1)), Duration::ZERO);
        // A record: from here on 16 MiB a second.
        write();
        assert_eq!(pace.wait(1 << 30, at(3)), Duration::ZERO);
        let came = (1 << 30) + BESIDE_RECORDS / 8;
        assert_eq!(pace.wait(came, at(23)), Duration::from_millis(105));
        write();
        assert_eq!(pace.wait(came, at(128)), Duration::ZERO);
        let much = came + BESIDE_RECORDS;
        assert_eq!(pace.wait(much, at(129)), LONGEST_WAIT);
        assert_eq!(pace.wait(much, at(1129)), Duration::ZERO, "a second after the last");
    }
}
