//! Plays seeds, each twice, and makes what fails short.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::fault::Violation;
use crate::plan::Plan;
use crate::reach::Reach;
use crate::shrink;
use crate::world::World;

/// How a plan went.
pub struct Played {
    /// Hash of all that was sent.
    pub result: Result<u64, Violation>,
    /// Steps that began.
    pub steps: usize,
    pub reach: Reach,
}

/// Plays a plan once.
pub fn once(plan: &Plan, checks: bool) -> Played {
    let mut world = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(plan.setting.clone(), checks)?);
        world.play(plan)
    }));
    let result = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation::new("I15", text.unwrap_or_else(|| "a panic".into())))
    });
    let steps = world.as_ref().map_or(0, |world| world.steps);
    let reach = world.map(|world| world.reach).unwrap_or_default();
    Played { result, steps, reach }
}

/// Plays a plan twice: a run that is not the same each time cannot be trusted to replay a failure.
/// What is looked at must not change the run, so the second is not looked at.
pub fn play(plan: &Plan) -> (Result<(), Violation>, Reach) {
    let first = once(plan, true);
    let result = first.result.and_then(|hash| match once(plan, false).result? {
        second if second == hash => Ok(()),
        _ => Err(Violation::new("determinism", "two runs of the seed differ")),
    });
    (result, first.reach)
}

/// The shortest plan found that breaks the same invariant.
fn shortest(plan: &Plan, id: &'static str) -> Plan {
    let mut breaks = |plan: &Plan| {
        if id == "determinism" {
            let found = play(plan).0.err();
            return found.filter(|found| found.id == id).map(|_| plan.steps.len());
        }
        let played = once(plan, true);
        played.result.err().filter(|found| found.id == id).map(|_| played.steps)
    };
    shrink::shortest(plan, &mut breaks)
}

/// What is done about a failure.
#[derive(Debug, Clone, Copy)]
pub enum Failures<'a> {
    /// Its seed is printed.
    Name,
    /// Its shortest plan is found, and printed or saved into a directory.
    Shorten { save: Option<&'a Path> },
}

/// Prints a failure and keeps its shortest plan.
fn tell(seed: u64, plan: &Plan, violation: &Violation, save: Option<&Path>) {
    println!("seed {seed}: {violation}");
    let plan = shortest(plan, violation.id);
    let shown = play(&plan).0.err().unwrap_or_else(|| violation.clone());
    println!("  shortest: {} steps: {shown}", plan.steps.len());
    let text = plan.to_text(&format!("{shown}\nfrom seed {seed}"));
    match save {
        None => println!("{text}"),
        Some(dir) => {
            let path = dir.join(format!("{}-{seed}.txt", violation.id));
            if let Err(error) = fs::write(&path, text) {
                println!("  {}: {error}", path.display());
            }
        }
    }
}

/// Plays `count` seeds from `start` on; whether all passed.
pub fn seeds((start, count): (u64, u64), threads: usize, failures: Failures<'_>) -> bool {
    let (next, failed) = (AtomicU64::new(start), AtomicU64::new(0));
    let end = start.saturating_add(count);
    let reach: Mutex<Reach> = Mutex::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let plan = Plan::new(seed);
                    let (result, reached) = play(&plan);
                    if let Err(violation) = result {
                        failed.fetch_add(1, Ordering::Relaxed);
                        match failures {
                            Failures::Shorten { save } => tell(seed, &plan, &violation, save),
                            Failures::Name => println!("seed {seed}: {violation}"),
                        }
                    }
                    reach.lock().expect("invariant: no holder panics").add(&reached);
                }
            });
        }
    });
    let failed = failed.load(Ordering::Relaxed);
    let empty = reach.lock().expect("invariant: no holder panics").print();
    let elapsed = began.elapsed().as_secs_f64() * threads.max(1) as f64;
    let hours = cpu_seconds().unwrap_or(elapsed) / 3600.0;
    println!("\n{empty} cells are empty");
    println!("{:.0} seeds an hour and core", count as f64 / hours);
    println!("{} passed, {failed} failed", count - failed);
    failed == 0
}

/// Seconds of processor time that this process has used, where the system tells: other programs
/// on the machine do not count.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may hold anything: user and system time are the 12th and 13th field.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// Plays a saved plan; whether it passed.
pub fn replay(path: &Path) -> bool {
    let plan = fs::read_to_string(path).map_err(|error| error.to_string());
    match plan.and_then(|text| Plan::from_text(&text)).map(|plan| play(&plan).0) {
        Ok(Ok(())) => {
            println!("{}: passed", path.display());
            true
        }
        Ok(Err(violation)) => {
            println!("{}: {violation}", path.display());
            false
        }
        Err(error) => {
            println!("{}: {error}", path.display());
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All promises, over as many seeds as a test has time for.
    #[test]
    fn seeds_pass() {
        assert!(seeds((0, 300), 2, Failures::Name));
    }

    /// What was found once stays fixed.
    #[test]
    fn saved_seeds_pass() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.extension().is_none_or(|of| of != "txt") || replay(&path));
        }
    }

    /// A plan that is written down and read again is the same plan.
    #[test]
    fn a_saved_plan_reads_back() {
        let plan = Plan::new(7);
        assert_eq!(Plan::from_text(&plan.to_text("a comment")), Ok(plan));
    }

    /// A failure is told by the steps that it needs.
    #[test]
    fn a_failing_plan_gets_short() {
        let plan = Plan::new(7);
        let wanted = [plan.steps[40], plan.steps[200]];
        let mut breaks = |plan: &Plan| {
            let holds = wanted.iter().all(|step| {
                plan.steps.iter().any(|found| (found.act, found.seed) == (step.act, step.seed))
            });
            holds.then_some(plan.steps.len())
        };
        assert_eq!(shrink::shortest(&plan, &mut breaks).steps.len(), 2);
    }
}
