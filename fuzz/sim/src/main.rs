//! `lastword-sim`: one authority, several devices, faulty disks and networks, replayable from a
//! seed. `docs/simulation.md` says what is checked and what is not modelled.
#![forbid(unsafe_code)]
// What it prints is its result.
#![allow(clippy::print_stdout)]

mod random;

mod fault;

mod plan;

mod net;

mod oracle;

mod world;

mod check;

mod act;

mod crash;

#[cfg(feature = "plant")]
mod plants;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

use fault::Violation;
use plan::Event;
use world::World;

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
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// A bug on purpose to find, `all` of them, or `list` to name them
    #[cfg(feature = "plant")]
    #[arg(long)]
    plant: Option<String>,
}

/// Plays a seed twice: a run that is not the same each time cannot be trusted to replay a failure.
fn play(seed: u64) -> (Result<(), Violation>, BTreeMap<Event, u64>) {
    let mut reached = BTreeMap::new();
    let mut once = || {
        let mut world = World::new(seed)?;
        let hash = world.play();
        reached = std::mem::take(&mut world.reached);
        hash
    };
    let first = once();
    let second = once();
    let result = match (first, second) {
        (Ok(first), Ok(second)) if first == second => Ok(()),
        (Err(violation), _) | (_, Err(violation)) => Err(violation),
        _ => Err(Violation::new("determinism", "two runs of the seed differ")),
    };
    (result, reached)
}

fn main() -> ExitCode {
    let args = Args::parse();
    #[cfg(feature = "plant")]
    if let Some(plant) = &args.plant {
        return plants::run(plant, &args);
    }
    let (next, failed) = (AtomicU64::new(args.start), AtomicU64::new(0));
    let end = args.start.saturating_add(args.seeds);
    let reached: Mutex<BTreeMap<Event, u64>> = Mutex::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let (result, events) = play(seed);
                    if let Err(violation) = result {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("seed {seed}: {violation}");
                    }
                    let mut reached = reached.lock().expect("invariant: no holder panics");
                    for (event, times) in events {
                        *reached.entry(event).or_default() += times;
                    }
                }
            });
        }
    });
    let failed = failed.load(Ordering::Relaxed);
    println!("{:<20}{:>12}", "event", "times");
    for (event, times) in reached.lock().expect("invariant: no holder panics").iter() {
        println!("{:<20}{times:>12}", format!("{event:?}"));
    }
    let took = began.elapsed().as_secs_f64();
    println!("{:.0} seeds an hour and core", {
        args.seeds as f64 / took * 3600.0 / args.threads.max(1) as f64
    });
    println!("{} passed, {failed} failed", args.seeds - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
