//! Lastword beside other engines: the same work, in the same run, in turns.
//!
//! Absolute figures say as much about the disk and its other users as about an engine. The rounds
//! are interleaved, so the ratios hold.

mod blobs;
mod build;
mod committer;
mod engines;
mod measure;
mod parts;
mod rows;
mod sync;
mod table;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, Subcommand};

use crate::parts::Setting;
use crate::table::Report;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Measures Lastword beside other engines.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Log and state: beside fjall, SQLite, redb and LMDB.
    Store(StoreArgs),
    /// Replication: beside RxDB, PouchDB, TinyBase, Yjs and automerge-repo.
    Sync(sync::SyncArgs),
    /// Files: beside restic, borg and casync.
    Blobs(blobs::BlobsArgs),
    /// Runs a command and says what it took; a part of `blobs`.
    #[command(hide = true, trailing_var_arg = true)]
    Took {
        #[arg(allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Records while a file is uploaded, beside records alone.
    Files(sync::FilesArgs),
    /// Fills an engine and waits to be killed; a part of `store`.
    #[command(hide = true)]
    Fill { engine: String, dir: PathBuf },
    /// A device that does what it is told; a part of `sync`.
    #[command(hide = true)]
    Device { dir: PathBuf, address: String },
}

#[derive(Debug, clap::Args)]
struct StoreArgs {
    /// Only these parts, by their letters: a,b,c.
    #[arg(long, value_delimiter = ',')]
    only: Vec<char>,
    /// Slices that each engine has of each part.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..1000))]
    rounds: u16,
    /// Rows of the large store of part g.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
}

type Part = (char, fn(&Setting) -> Result<Report>);

const PARTS: [Part; 9] = [
    ('a', parts::single),
    ('b', parts::writers),
    ('c', parts::batches),
    ('d', parts::rebuild),
    ('e', parts::scan),
    ('f', parts::stall),
    ('g', parts::sustained),
    ('h', parts::reopen),
    ('i', parts::reads),
];

fn main() -> Result<()> {
    match Args::parse().what {
        What::Store(args) => store(&args),
        What::Sync(args) => sync::sync(&args),
        What::Blobs(args) => blobs::blobs(&args),
        What::Took { command } => blobs::took(&command),
        What::Files(args) => sync::files(&args),
        What::Fill { engine, dir } => parts::fill(&engine, &dir),
        What::Device { dir, address } => sync::device(&dir, &address),
    }
}

fn store(args: &StoreArgs) -> Result<()> {
    if let Some(unknown) = args.only.iter().find(|only| PARTS.iter().all(|part| part.0 != **only)) {
        return Err(format!("there is no part {unknown}").into());
    }
    let mut out = std::io::stdout().lock();
    let mut reports = vec![settings()?];
    if !args.json {
        write!(out, "{}", reports[0].text())?;
    }
    for (letter, part) in PARTS {
        if !args.only.is_empty() && !args.only.contains(&letter) {
            continue;
        }
        let begun = Instant::now();
        let dir = tempfile::tempdir()?;
        let (rounds, rows) = (args.rounds.into(), args.rows);
        let report = part(&Setting { dir: dir.path().to_owned(), rounds, rows })?;
        eprintln!("part {letter} took {} s", begun.elapsed().as_secs());
        if !args.json {
            write!(out, "{}", report.text())?;
            out.flush()?;
        }
        reports.push(report);
    }
    if args.json {
        let all: Vec<_> = reports.iter().map(Report::json).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    writeln!(out, "\n== goals, judged for store ==")?;
    for report in &reports {
        write!(out, "{}", report.goal_lines())?;
    }
    Ok(())
}

/// What the figures depend on.
fn settings() -> Result<Report> {
    let dir = tempfile::tempdir()?;
    let engines = engines::all(dir.path())?;
    let rows = engines.iter().map(|engine| {
        let settings = engine.settings().map(str::to_owned);
        std::iter::once(engine.name().to_owned()).chain(settings).collect()
    });
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(Report {
        title: "settings".into(),
        columns: vec!["engine", "sync", "preallocation", "cache"],
        rows: rows.collect(),
        notes: vec![
            format!(
                "rows: random uuids of {} bytes, values of {} bytes",
                rows::KEY_BYTES,
                rows::VALUE_BYTES
            ),
            format!(
                "files in {} (TMPDIR moves them), {processors} processors",
                std::env::temp_dir().display()
            ),
        ],
        ..Report::default()
    })
}
