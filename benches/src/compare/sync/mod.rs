//! Sync beside other engines: a first copy, a catch-up, live changes, bytes and memory.
//!
//! Server and devices are processes of their own, for every engine alike; they are told what to do
//! one JSON line at a time ([`child`]), read the records from the same files ([`records`]) and talk
//! over real sockets. Where bytes are counted a proxy stands between ([`wire`]); where time is
//! taken there is none.

mod beside;
mod child;
mod contenders;
mod device;
mod disk;
mod figures;
mod records;
mod scenes;
mod wire;

use std::io::Write;

use self::contenders::Contender;
use self::figures::Figures;
use self::records::Files;
use crate::Result;
use crate::build::build_server;
use crate::table::Report;

pub(crate) use self::beside::{FilesArgs, files};
pub(crate) use self::device::run as device;

#[derive(Debug, clap::Args)]
pub(crate) struct SyncArgs {
    /// Records that Lastword copies; peers have their own, smaller numbers.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    records: u64,
    /// First copies of each engine; the middle one counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..100))]
    rounds: u16,
    /// Only these engines, by their names: lastword,rxdb.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Changes offered in each second of the live part.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..100_000))]
    rate: u64,
    /// Seconds of the live part.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..600))]
    seconds: u64,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// Measures every engine and prints what came out.
pub(crate) fn sync(args: &SyncArgs) -> Result<()> {
    let all = contenders::all(args.records);
    if let Some(unknown) = args.only.iter().find(|name| all.iter().all(|one| !one.is(name))) {
        return Err(format!("there is no engine {unknown}").into());
    }
    build_server()?;
    let peers = contenders::install_peers();
    let mut done: Vec<(Contender, Result<Figures>)> = Vec::new();
    for contender in all {
        if !args.only.is_empty() && !args.only.iter().any(|name| contender.is(name)) {
            continue;
        }
        let begun = std::time::Instant::now();
        let figures = match &peers {
            Err(reason) if contender.is_peer() => Err(reason.clone().into()),
            _ => measure(&contender, args),
        };
        eprintln!("{} took {} s", contender.title(), begun.elapsed().as_secs());
        done.push((contender, figures));
    }
    let report = figures::report(args, &done);
    print(args, &report)
}

fn measure(contender: &Contender, args: &SyncArgs) -> Result<Figures> {
    let dir = tempfile::tempdir()?;
    let files = Files::write(dir.path(), contender.records, args.rate * args.seconds)?;
    scenes::play(contender, &files, dir.path(), args)
}

fn print(args: &SyncArgs, report: &[Report]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let all: Vec<_> = report.iter().map(Report::json).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    for part in report {
        write!(out, "{}", part.text())?;
    }
    writeln!(out, "\n== goals ==")?;
    for part in report {
        write!(out, "{}", part.goal_lines())?;
    }
    Ok(())
}
