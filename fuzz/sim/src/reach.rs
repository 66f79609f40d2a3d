//! How far a run has come: which faults met which background work, and how the parties came back.

use std::collections::BTreeMap;

use crate::plan::{Act, SYNC_FAULTS};

/// How often each fault met each background job, by the way back.
pub type Cells = BTreeMap<(Act, &'static str, &'static str), u64>;

/// What ran beside when something went wrong.
pub const JOBS: [&str; 5] = ["nothing", "checkpoint", "fold", "rebuild", "purge"];
/// How a store comes back from a power cut: its log is folded on, a torn tail is cut first, or it
/// loses power again.
pub const POWER_PATHS: &[&str] = &["folded on", "tail cut", "twice"];
/// How it comes back where the kernel went on, which tears nothing.
pub const DISK_PATHS: &[&str] = &["folded on", "twice"];
/// How a device gets in step again.
pub const SYNC_PATHS: &[&str] = &["went on", "sent again", "reset", "forked"];

/// What a run, or many, have reached.
#[derive(Debug, Default)]
pub struct Reach {
    /// How often each act was drawn, and how often it did anything.
    pub acts: BTreeMap<Act, (u64, u64)>,
    pub cells: Cells,
    /// Sizes of the run, to see what a seed is.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Reach {
    pub fn add(&mut self, other: &Reach) {
        for (act, (drawn, did)) in &other.acts {
            let mine = self.acts.entry(*act).or_default();
            *mine = (mine.0 + drawn, mine.1 + did);
        }
        for (cell, times) in &other.cells {
            *self.cells.entry(*cell).or_default() += times;
        }
        for (what, times) in &other.counts {
            *self.counts.entry(what).or_default() += times;
        }
    }

    pub fn cell(&mut self, fault: Act, job: &'static str, path: &'static str) {
        *self.cells.entry((fault, job, path)).or_default() += 1;
    }

    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    /// The table; answers how many cells are empty.
    pub fn print(&self) -> usize {
        println!("\n{:<16}{:>10}{:>10}", "act", "drawn", "did");
        for (act, (drawn, did)) in &self.acts {
            println!("{:<16}{drawn:>10}{did:>10}", act.name());
        }
        for (what, times) in &self.counts {
            println!("{what:<36}{times:>10}");
        }
        let mut empty = 0;
        let tables =
            [(POWER_PATHS, POWER_FAULTS), (DISK_PATHS, DISK_FAULTS), (SYNC_PATHS, SYNC_FAULTS)];
        for (paths, faults) in tables {
            let head: String = paths.iter().map(|path| format!("{path:>12}")).collect();
            println!("\n{:<16}{:<12}{head}", "fault", "beside");
            for fault in faults {
                for job in JOBS {
                    let times = |path: &&'static str| self.cells.get(&(*fault, job, *path));
                    let times: Vec<u64> =
                        paths.iter().map(|path| times(path).copied().unwrap_or(0)).collect();
                    empty += times.iter().filter(|times| **times == 0).count();
                    let row: String = times.iter().map(|times| format!("{times:>12}")).collect();
                    println!("{:<16}{job:<12}{row}", fault.name());
                }
            }
        }
        empty
    }
}

/// Faults after which a store has to come back.
pub const POWER_FAULTS: &[Act] = &[Act::DeviceCrash, Act::Crash];
/// The same, of one write or sync.
pub const DISK_FAULTS: &[Act] = &[Act::DeviceDisk, Act::Disk];
