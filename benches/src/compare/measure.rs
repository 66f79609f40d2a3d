//! Clocks, byte counters, and rounds in which every engine has its turn.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::engines::Engine;

/// What one engine did in one slice of one round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slice {
    pub(crate) ops: u64,
    /// Until the last op was durable.
    pub(crate) front: Duration,
    /// Until nothing of it was left to be done in the background either.
    pub(crate) settled: Duration,
    /// Of each commit, in nanoseconds.
    pub(crate) latencies: Vec<u64>,
    /// Bytes that the disk was given, by whomever.
    pub(crate) disk_bytes: u64,
}

impl Slice {
    /// Ops per second until the last was durable.
    pub(crate) fn front_rate(&self) -> f64 {
        self.ops as f64 / self.front.as_secs_f64()
    }

    /// Ops per second, work in the background included.
    pub(crate) fn rate(&self) -> f64 {
        self.ops as f64 / self.settled.as_secs_f64()
    }
}

/// The kernel's counter of bytes written to the disk under a folder. The counter of a process
/// (`/proc/self/io`) will not do: it counts whole folios of files that were written before.
#[derive(Debug, Clone)]
pub(crate) struct DiskCounter {
    block_stat: Option<String>,
}

impl DiskCounter {
    /// The counter of the disk that holds `dir`.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        let device = fs::metadata(dir)?.dev();
        let major = (device >> 8) & 0xfff;
        let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
        let path = format!("/sys/dev/block/{major}:{minor}/stat");
        Ok(DiskCounter { block_stat: Path::new(&path).exists().then_some(path) })
    }

    /// Bytes written by all since it was started; zero where the system does not count.
    pub(crate) fn read(&self) -> u64 {
        let stat = self.block_stat.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let sectors: Option<u64> =
            stat.and_then(|stat| stat.split_whitespace().nth(6)?.parse().ok());
        sectors.unwrap_or(0) * 512
    }
}

/// Runs `slice` on every engine `rounds` times, each round beginning with another engine, and
/// returns the slices of each engine.
pub(crate) fn rounds(
    engines: &mut [Box<dyn Engine>],
    rounds: usize,
    disk: &DiskCounter,
    mut slice: impl FnMut(usize, &mut dyn Engine) -> Result<Slice>,
) -> Result<Vec<Vec<Slice>>> {
    let count = engines.len();
    let mut all = vec![Vec::with_capacity(rounds); count];
    for round in 0..rounds {
        for turn in 0..count {
            let at = (round + turn) % count;
            let engine = engines[at].as_mut();
            let before = disk.read();
            let begun = Instant::now();
            let mut done = slice(at, engine)?;
            done.front = begun.elapsed();
            engine.settle()?;
            done.settled = begun.elapsed();
            done.disk_bytes = disk.read() - before;
            all[at].push(done);
        }
    }
    Ok(all)
}

/// The middle value; NaN of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    f64::midpoint(values[last / 2], values[last.div_ceil(2)])
}

/// The least value; infinite of none.
pub(crate) fn least(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}

/// Median over rounds of `ours` by `theirs`.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
}

/// The value below which `share` of all lie; zero of none.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> u64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// All latencies of the slices, sorted.
pub(crate) fn latencies(slices: &[Slice]) -> Vec<u64> {
    let mut all: Vec<u64> = slices.iter().flat_map(|slice| &slice.latencies).copied().collect();
    all.sort_unstable();
    all
}

pub(crate) fn nanoseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
