//! A process that writes is killed (SIGKILL) again and again; one directory ages across all rounds.
//!
//! What it acknowledged is recorded outside of it. A killed process leaves the page cache behind,
//! so this proves the bookkeeping and recovery, not the syncs: those are proven on the memory disk.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use lastword_store::{DirLock, Options, RealDisk, Store};

use crate::support::*;

const STEP: u64 = 64 << 10;
const DIR: &str = "LASTWORD_KILL_DIR";
const ROUNDS: &str = "LASTWORD_KILL_ROUNDS";
const NEXT: &str = "LASTWORD_KILL_NEXT";
/// The whole log is read after so many rounds; the others read what has come since the last.
const WHOLE_EVERY: u64 = 100;

fn open_aging(dir: &Path) -> Store {
    let disk = Arc::new(RealDisk::open(DirLock::acquire(dir).unwrap(), STEP).unwrap());
    let chosen = Options { segment_size: 256 << 10, zero_step: STEP, ..options() };
    Store::open(disk, chosen, Arc::new(KeepRows)).unwrap().0
}

/// The payload of write `number`: its row is one of 500, its length differs.
fn write_of(number: u64) -> Vec<u8> {
    let filler = "x".repeat((number.wrapping_mul(2_654_435_761) % 900) as usize);
    put(&format!("k{}", number % 500), &format!("{number} {filler}"))
}

/// The part of the killed process; as a test of its own it has nothing to do.
#[test]
fn kills_writer_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut store = open_aging(Path::new(&dir));
    let mut number: u64 = std::env::var(NEXT).unwrap().parse().unwrap();
    let mut out = std::io::stdout();
    loop {
        for _ in 0..=number % 4 {
            store.append(KIND, &write_of(number)).unwrap();
            number += 1;
        }
        store.commit().unwrap();
        // Whoever reads it may count on every write before `number`.
        writeln!(out, "acknowledged {number}").unwrap();
        store.prove().unwrap();
        if number.is_multiple_of(97) {
            store.checkpoint().unwrap();
        }
    }
}

/// I1, I2, I6, I10: after each kill the log is a gap-free prefix of what was written, nothing
/// acknowledged is missing, and the state is the fold of it.
#[test]
fn kills_lose_nothing_acknowledged() {
    let rounds = std::env::var(ROUNDS).map_or(5, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (mut before, mut read_to, mut rows) = (0, 0, Rows::new());
    for round in 0..rounds {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["kills::kills_writer_process", "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .env(NEXT, before.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut acknowledgements =
            lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        // Early and late in the life of a segment, a group, a checkpoint.
        let target = before + 1 + (round * 7919) % 700;
        let mut acknowledged = acknowledgements.find(|number| *number >= target).unwrap();
        writer.kill().unwrap();
        writer.wait().unwrap();
        acknowledged = acknowledgements.last().unwrap_or(acknowledged);

        let store = open_aging(dir.path());
        if round % WHOLE_EVERY == WHOLE_EVERY - 1 || round + 1 == rounds {
            (before, read_to, rows) = (0, 0, Rows::new());
        }
        let found = payloads_from(&store.view_handle(), read_to);
        for (number, payload) in (before..).zip(&found) {
            assert!(*payload == write_of(number), "round {round}: write {number} is another");
        }
        let end = before + found.len() as u64;
        assert!(end >= acknowledged, "round {round}: an acknowledged write is lost");
        rows.extend(model(&found));
        assert!(dump(&store.view()) == rows, "round {round}: the state is another");
        (before, read_to) = (end, store.view().position());
    }
}
