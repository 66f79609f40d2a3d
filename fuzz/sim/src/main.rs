//! `lastword-sim`: one authority, several devices, faulty disks and networks, replayable from a
//! seed. `docs/simulation.md` says what is checked and what is not modelled.
#![forbid(unsafe_code)]
// What it prints is its result.
#![allow(clippy::print_stdout)]

mod random;

mod fault;

mod invariants;

mod plan;

mod saved;

mod shrink;

mod net;

mod judge;

mod oracle;

mod reach;

mod jobs;

mod known;

mod live;

mod garbage;

mod carry;

mod files;

mod world;

mod check;

mod taint;

mod act;

mod serve;

mod moves;

mod crash;

mod storm;

mod whole;

mod rest;

mod quiet;

mod run;

#[cfg(feature = "plant")]
mod plants;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Plays seeds and says which promises they broke.
#[derive(Debug, Parser)]
#[command(name = "lastword-sim")]
struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Threads; as many as there are cores unless said
    #[arg(long)]
    jobs: Option<usize>,
    /// Play a saved plan instead
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Write the shortest plan of each failure into this directory
    #[arg(long)]
    save: Option<PathBuf>,
    /// Name failures only, and do not look for their shortest plans
    #[arg(long)]
    as_drawn: bool,
    /// Print what is checked
    #[arg(long)]
    invariants: bool,
    /// A bug on purpose to find, `all` of them, or `list` to name them
    #[cfg(feature = "plant")]
    #[arg(long)]
    plant: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    #[cfg(feature = "plant")]
    if let Some(plant) = &args.plant {
        return plants::run(plant, &args);
    }
    if args.invariants {
        invariants::print();
        return ExitCode::SUCCESS;
    }
    // What panics is told with its seed, and a state file with a flipped bit may panic in redb.
    std::panic::set_hook(Box::new(|_| {}));
    let passed = match &args.replay {
        Some(path) => run::replay(path),
        None => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let failures = match args.as_drawn {
                true => run::Failures::Name,
                false => run::Failures::Shorten { save: args.save.as_deref() },
            };
            run::seeds((args.start, args.seeds), args.jobs.unwrap_or(cores), failures)
        }
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
