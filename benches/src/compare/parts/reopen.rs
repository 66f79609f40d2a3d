//! Opening after the process was killed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Result;
use crate::engines::{CACHE_BYTES, Device, Engine, Redb, StoreEngine};
use crate::measure::{median, ratio};
use crate::parts::Setting;
use crate::rows::{Row, Rows};
use crate::table::{Bound, Goal, Report, number};

const ROWS: u64 = 500_000;
/// Rows per commit.
const BATCH: usize = 1000;
const MAX_ROUNDS: usize = 3;
/// Rows of `TAIL` behind its last checkpoint: 64 MiB of log.
const TAIL_ROWS: u64 = 182_000;
/// The store killed with 64 MiB of log behind its last checkpoint, of which the goal speaks.
const TAIL: &str = "store, 64 MiB of log";
/// The store killed while all its rows were in a delta, the most there can be to fold.
const FULL: &str = "store, full delta";
const ENGINES: [&str; 4] = [TAIL, FULL, "device", "redb"];
/// What a child says when it may be killed.
const FILLED: &str = "filled";

/// h) Reopen after a kill.
pub(crate) fn reopen(setting: &Setting) -> Result<Report> {
    let number_of_rounds = setting.rounds.min(MAX_ROUNDS);
    for name in ENGINES {
        fill_and_kill(name, &setting.dir.join(name))?;
    }
    let mut seconds: [Vec<f64>; 4] = Default::default();
    let mut replayed = [0; 4];
    for round in 0..number_of_rounds {
        for turn in 0..ENGINES.len() {
            let at = (round + turn) % ENGINES.len();
            // Opening mends what it opens, so each round opens a copy.
            let copy = setting.dir.join("copy");
            copy_folder(&setting.dir.join(ENGINES[at]), &copy)?;
            let begun = Instant::now();
            let mut engine = open(ENGINES[at], &copy)?;
            seconds[at].push(begun.elapsed().as_secs_f64());
            replayed[at] = engine.replayed_frames();
            if engine.get(&Row::new(ROWS - 1, 0).key)?.is_none() {
                return Err(format!("{}: the last row is gone", ENGINES[at]).into());
            }
            drop(engine);
            fs::remove_dir_all(&copy)?;
        }
    }
    let by_redb = |at: usize| ratio(&seconds[at], &seconds[3]);
    let lines = ENGINES.iter().zip(&seconds).enumerate().map(|(at, (name, seconds))| {
        let ms = median(seconds.iter().map(|seconds| seconds * 1000.0));
        vec![(*name).to_owned(), number(ms), number(by_redb(at)), replayed[at].to_string()]
    });
    Ok(Report {
        title: format!("h: open after a kill, {ROWS} rows, {number_of_rounds} rounds"),
        columns: vec!["engine", "ms", "it / redb", "frames replayed"],
        rows: lines.collect(),
        notes: vec!["files in the page cache; redb repairs by walking all of its file".into()],
        goals: vec![Goal {
            what: "open after a kill with 64 MiB of log to fold / redb's repair".into(),
            bound: Bound::AtMost(0.5),
            unit: "x",
            store: by_redb(0),
            device: Some(by_redb(2)),
        }],
    })
}

fn open(name: &str, dir: &Path) -> Result<Box<dyn Engine>> {
    Ok(match name {
        TAIL | FULL => Box::new(StoreEngine::open(dir, CACHE_BYTES)?),
        "device" => Box::new(Device::open(dir)?),
        "redb" => Box::new(Redb::open(dir)?),
        other => return Err(format!("there is no engine {other}").into()),
    })
}

/// What the child does: fills an engine, says so, and waits to be killed.
pub(crate) fn fill(name: &str, dir: &Path) -> Result<()> {
    let mut rows = Rows::from(0);
    let mut write = |engine: &mut dyn Engine, count: u64| -> Result<()> {
        for _ in 0..count / BATCH as u64 {
            engine.commit(&rows.take(BATCH))?;
            engine.after_answer()?;
        }
        Ok(())
    };
    let mut left = ROWS;
    if name == TAIL {
        let mut engine = StoreEngine::open(dir, CACHE_BYTES)?;
        left = TAIL_ROWS;
        write(&mut engine, ROWS - left)?;
        engine.close()?;
    }
    let mut engine = open(name, dir)?;
    write(&mut *engine, left)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{FILLED}")?;
    out.flush()?;
    // Ends only if the parent has gone without killing.
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

fn fill_and_kill(name: &str, dir: &Path) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["fill", name])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut said)?;
    }
    child.kill()?;
    child.wait()?;
    match said.trim_end() == FILLED {
        true => Ok(()),
        false => Err(format!("the child that fills {name} failed").into()),
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for found in fs::read_dir(from)? {
        let found = found?;
        let copy = to.join(found.file_name());
        fs::copy(found.path(), &copy)?;
        // What the copy left to be written must not slow the open down.
        fs::File::open(copy)?.sync_all()?;
    }
    Ok(())
}
