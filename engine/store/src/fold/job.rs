//! The dump of a checkpoint into a base, away from the writer.

use std::sync::Arc;

use lastword_core::plant::{Plant, planted};

use crate::disk::{Disk, Unkept};
use crate::error::StoreError;
use crate::limits::{MAX_FRAME, MAX_MARKS};
use crate::oplog::{BaseFile, BaseWriter, Entropy, Mark};
use crate::state::{Apply, Base, Dump, View, Watermark};

use super::rows::RowsOut;

/// A fold to be run on any thread, see [`Store::begin_fold`](crate::Store::begin_fold). Dropping
/// it, or its result, ends the fold and leaves nothing of it.
#[must_use = "run it, then hand the result to `finish_fold`"]
pub struct FoldJob {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) apply: Arc<dyn Apply>,
    pub(crate) entropy: Entropy,
    pub(crate) base: Arc<Base>,
    pub(crate) watermark: Watermark,
    pub(crate) marks: Vec<Mark>,
    /// Segments that end at or before this position go afterwards, but for what the base needs.
    pub(crate) keep_from: u64,
    /// A fold is under way for as long as it is held; goes last.
    pub(crate) running: Arc<()>,
}

impl std::fmt::Debug for FoldJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoldJob").field("watermark", &self.watermark).finish_non_exhaustive()
    }
}

/// What a fold made.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) base: BaseFile,
    pub(crate) unkept: Unkept,
    /// Segments that end at or before this position go.
    pub(crate) keep_from: u64,
}

/// The result of a [`FoldJob`].
#[derive(Debug)]
#[must_use = "hand it to `finish_fold`"]
pub struct FoldDone {
    pub(crate) result: Result<Folded, StoreError>,
    pub(crate) _running: Arc<()>,
}

impl FoldJob {
    /// Writes the base. On an error nothing is left of it.
    pub fn run(self) -> FoldDone {
        let running = self.running.clone();
        let result = self.keep_from().and_then(|keep_from| {
            let (base, unkept) = self.write()?;
            Ok(Folded { base, unkept, keep_from })
        });
        FoldDone { result, _running: running }
    }

    /// What the newest state no longer needs may be needed again: after a power cut, or where the
    /// log behind the base is lost. What the base needs covers all that can come back.
    fn keep_from(&self) -> Result<u64, StoreError> {
        let end = self.watermark.durable.end;
        if planted(Plant::ForgetHistory) {
            return Ok(end);
        }
        let needed_from = self.apply.needed_from(&View::of_base(self.base.clone()))?;
        Ok(self.keep_from.min(needed_from).min(end))
    }

    /// The base alone, and what removes its file again.
    pub(crate) fn write(mut self) -> Result<(BaseFile, Unkept), StoreError> {
        let Watermark { log_id, salt, durable } = self.watermark;
        let mut out = BaseWriter::begin(&self.disk, &mut self.entropy, log_id, salt, durable)?;
        let mut dump = Dump::new(self.base, self.apply.derived());
        let mut rows = RowsOut::default();
        while let Some((space, key, value)) = dump.next()? {
            if let Some(payload) = rows.push(space, &key, &value) {
                push(&mut out, &payload)?;
            }
        }
        let rest = rows.take();
        if !rest.is_empty() {
            push(&mut out, &rest)?;
        }
        Ok(out.finish(self.marks, dump.seen().encode().to_vec())?)
    }
}

fn push(out: &mut BaseWriter, payload: &[u8]) -> Result<(), StoreError> {
    let (len, limit) = (payload.len(), MAX_FRAME);
    if len > limit {
        return Err(StoreError::TooLarge { len, limit });
    }
    Ok(out.push(payload)?)
}

/// The marks of a base at `now`, after those of the base before. One that is as old as `since_ms`
/// stays; beyond the limit the mark that is missed least goes, so that the others still span all of
/// the time evenly.
pub(crate) fn marks_with(earlier: &[Mark], now: Mark, since_ms: i64) -> Vec<Mark> {
    let old = earlier.iter().rposition(|mark| mark.time_ms <= since_ms).unwrap_or(0);
    let mut marks: Vec<Mark> = earlier.iter().skip(old).copied().collect();
    marks.push(now);
    while marks.len() > MAX_MARKS {
        let gap = |window: &[Mark]| match window {
            [before, _, after] => after.time_ms.saturating_sub(before.time_ms),
            _ => i64::MAX,
        };
        let gaps = marks.windows(3).map(gap).enumerate();
        let least = gaps.min_by_key(|(_, gap)| *gap).map_or(0, |(place, _)| place + 1);
        marks.remove(least);
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many folds there were, the marks stay within their limit, rise, and one is old
    /// enough to tell what lies before the history window.
    #[test]
    fn marks_stay_few_and_span_the_window() {
        let mut marks = Vec::new();
        for time_ms in 0..5_000_i64 {
            let since_ms = time_ms - 1_000;
            let now = Mark { position: 8 * time_ms as u64, time_ms };
            marks = marks_with(&marks, now, since_ms);
            assert!(marks.len() <= MAX_MARKS);
            assert!(marks.is_sorted_by_key(|mark| mark.position));
            assert_eq!(marks.last(), Some(&now));
            let oldest = marks.first().map_or(0, |mark| mark.time_ms);
            assert!(time_ms < 1_000 || oldest <= since_ms, "{oldest} at {time_ms}");
            assert!(oldest >= since_ms - 40 || time_ms < 1_040, "{oldest} at {time_ms}");
        }
    }
}
