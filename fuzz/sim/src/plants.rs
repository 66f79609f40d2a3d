//! Bugs on purpose, and the seeds that find them.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lastword::core::plant::{ALL, Plant, Planted, put};

use crate::Args;
use crate::plan::Plan;
use crate::run;

/// Does what `--plant` says: `list` names every bug, `all` plays each that the simulator must find,
/// and a name plays that one.
pub fn run(what: &str, args: &Args) -> ExitCode {
    match what {
        "list" => {
            ALL.iter().for_each(describe);
            println!("{} bugs", ALL.len());
            ExitCode::SUCCESS
        }
        "all" => all(args),
        name => match ALL.iter().find(|known| known.name == name) {
            Some(known) => one(known, args),
            None => {
                println!("there is no bug {name}: --plant list names them");
                ExitCode::FAILURE
            }
        },
    }
}

fn describe(known: &Planted) {
    println!("{} ({})\n   {}", known.name, known.promise, known.what);
    for seeds in known.seeds {
        println!("    found by the simulator within {seeds} seeds");
    }
    for (suite, test) in known.tests {
        println!("    found by test {test} of {suite}");
    }
}

/// Plays seeds until one fails.
fn one(known: &Planted, args: &Args) -> ExitCode {
    describe(known);
    let end = args.start.saturating_add(args.seeds);
    match hunt(known.plant, args.start..end, threads(args)) {
        Some((seed, broken)) => {
            println!("seed {seed}: {broken}");
            ExitCode::SUCCESS
        }
        None => {
            println!("{} seeds do not find it", args.seeds);
            ExitCode::FAILURE
        }
    }
}

/// Every bug that the simulator must find, within the seeds that it may take.
fn all(args: &Args) -> ExitCode {
    let (began, mut found, mut missed) = (Instant::now(), 0, 0);
    for (known, seeds) in ALL.iter().flat_map(|known| known.seeds.iter().map(move |s| (known, *s)))
    {
        match hunt(known.plant, 0..seeds, threads(args)) {
            Some((seed, broken)) => {
                found += 1;
                println!("{:<24} {:>3} of {seeds:>3} seeds: {broken}", known.name, seed + 1);
            }
            None => {
                missed += 1;
                println!("{:<24} MISSED by {seeds} seeds", known.name);
            }
        }
    }
    println!("{found} found, {missed} missed in {:.0} s", began.elapsed().as_secs_f64());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// As many as there are cores unless said.
fn threads(args: &Args) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    args.jobs.unwrap_or(cores)
}

/// The first seed that fails with a bug on, and what it breaks: the same one however many threads
/// there are.
fn hunt(plant: Plant, seeds: std::ops::Range<u64>, threads: usize) -> Option<(u64, String)> {
    put(Some(plant));
    // A panic is a way to be found, and tells its story once.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (next, first) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
    let found: Mutex<Vec<(u64, String)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Some(broken) = broken_by(seed) {
                        first.fetch_min(seed, Ordering::Relaxed);
                        found.lock().expect("invariant: no holder panics").push((seed, broken));
                    }
                }
            });
        }
    });
    std::panic::set_hook(told);
    put(None);
    let found = found.into_inner().expect("invariant: no holder panics");
    found.into_iter().min()
}

/// What a seed breaks, if it does.
fn broken_by(seed: u64) -> Option<String> {
    run::once(&Plan::new(seed), true).result.err().map(|violation| violation.to_string())
}
