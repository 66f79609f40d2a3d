//! Files beside backup tools: the same data set goes in, goes in again, and comes back.
//!
//! Every tool is a process, ours too ([`process`]). Processor time is the figure that holds on a
//! busy machine; wall time stands beside it.

mod bare;
mod data;
mod figures;
mod process;
mod scenes;
mod tools;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::bare::Bare;
use self::data::Data;
use self::process::Took;
use self::scenes::Round;
use self::tools::Tool;
use crate::Result;
use crate::build::build_server;
use crate::table::Report;

#[derive(Debug, clap::Args)]
pub(crate) struct BlobsArgs {
    /// Size of the data set.
    #[arg(long, default_value_t = 1400, value_parser = clap::value_parser!(u64).range(28..100_000))]
    pub(crate) mib: u64,
    /// Turns of each tool; the middle one counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..100))]
    pub(crate) rounds: u16,
    /// Only these tools, by their names: lastword,borg.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Sizes in MiB of single files for which the memory of Lastword should be the same.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    flat: Vec<u64>,
    /// A folder in memory, for what should not depend on a disk.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub(crate) memory: PathBuf,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// Everything that was measured.
pub(crate) struct Measured {
    pub(crate) data: Data,
    /// The rounds of each tool, or why there are none.
    pub(crate) tools: Vec<(Tool, Result<Vec<Round>>)>,
    pub(crate) bare: Vec<Vec<Bare>>,
    /// Ours with one file that cannot be compressed, on disk and in memory.
    pub(crate) noise: Vec<[Took; 2]>,
    pub(crate) noise_bytes: f64,
    pub(crate) flat: Vec<(u64, Took)>,
}

/// Measures every tool and prints what came out.
pub(crate) fn blobs(args: &BlobsArgs) -> Result<()> {
    if let Some(unknown) =
        args.only.iter().find(|name| tools::ALL.iter().all(|tool| tool.name() != **name))
    {
        return Err(format!("there is no tool {unknown}").into());
    }
    build_server()?;
    tools::install();
    let dir = tempfile::tempdir()?;
    let begun = Instant::now();
    let data = Data::write(&dir.path().join("data"), args.mib)?;
    eprintln!("the data set took {} s", begun.elapsed().as_secs());
    let is_wanted =
        |tool: &Tool| args.only.is_empty() || args.only.iter().any(|n| n == tool.name());
    let tools = tools::ALL.into_iter().filter(is_wanted).map(|tool| match tool.version() {
        Ok(_) => (tool, Ok(Vec::new())),
        Err(error) => (tool, Err(error.into())),
    });
    let (bare, noise, flat, noise_bytes) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    let mut measured = Measured { data, tools: tools.collect(), bare, noise, noise_bytes, flat };
    for round in 0..usize::from(args.rounds) {
        play_round(args, &mut measured, dir.path(), round)?;
    }
    for mib in &args.flat {
        let at = dir.path().join("flat");
        measured.flat.push((*mib, scenes::flat(*mib, &at)?));
        std::fs::remove_dir_all(&at)?;
        eprintln!("one file of {mib} MiB is done");
    }
    print(args, &figures::report(args, &measured))
}

/// Every tool has its turn, each round beginning with another.
fn play_round(args: &BlobsArgs, measured: &mut Measured, dir: &Path, round: usize) -> Result<()> {
    measured.bare.push(bare::measure()?);
    let (on_disk, in_memory) = (dir.join("noise"), tempfile::tempdir_in(&args.memory)?);
    let (disk, bytes) = scenes::noise(&measured.data, &on_disk)?;
    std::fs::remove_dir_all(&on_disk)?;
    let (memory, _) = scenes::noise(&measured.data, in_memory.path())?;
    measured.noise.push([disk, memory]);
    measured.noise_bytes = bytes;
    let count = measured.tools.len();
    for turn in 0..count {
        let (tool, rounds) = &mut measured.tools[(round + turn) % count];
        let Ok(done) = rounds else { continue };
        let (at, begun) = (dir.join(tool.name()), Instant::now());
        let out = tempfile::tempdir_in(&args.memory)?;
        match scenes::play(*tool, &measured.data, &at, out.path()) {
            Ok(played) => done.push(played),
            Err(error) => *rounds = Err(error),
        }
        std::fs::remove_dir_all(&at)?;
        eprintln!("{} took {} s", tool.name(), begun.elapsed().as_secs());
    }
    Ok(())
}

fn print(args: &BlobsArgs, report: &[Report]) -> Result<()> {
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

/// A part of `blobs`: runs a command and prints what it took.
pub(crate) fn took(command: &[OsString]) -> Result<()> {
    process::took(command)
}
