//! Random updates of a large store, for as long as checkpoints and compactions need to show.

use std::path::Path;
use std::time::{Duration, Instant};

use lastword::store::Options;

use crate::Result;
use crate::engines::{Bare, CACHE_BYTES, Device, Engine, Fjall, StoreEngine};
use crate::measure::{
    DiskCounter, Slice, latencies, least, median, nanoseconds, percentile, rounds,
};
use crate::parts::Setting;
use crate::rows::{Row, distinct, mix};
use crate::table::{Bound, Goal, Report, micros, number};

const SLICE: Duration = Duration::from_secs(2);
/// The rate is looked at in steps of this length.
const STEP: Duration = Duration::from_millis(500);
/// Places of ours among the engines.
const STORE: usize = 0;
const DEVICE: usize = 1;
/// A device takes longest to fill, so it has a part of the rows.
const DEVICE_SHARE: u64 = 5;
const MAX_ROUNDS: usize = 3;
/// Ops per commit, load after load.
const BATCHES: [usize; 2] = [1, 100];
/// A commit that takes longer is a stall.
const STALL: Duration = Duration::from_millis(100);

/// Ops per second, step by step.
type Steps = Vec<f64>;

/// g) Sustained random updates.
pub(crate) fn sustained(setting: &Setting) -> Result<Report> {
    let number_of_rounds = setting.rounds.min(MAX_ROUNDS);
    let mut report = Report {
        title: format!(
            "g: random updates of {} rows, {number_of_rounds} slices of {SLICE:?} for each load",
            setting.rows
        ),
        columns: vec![
            "engine",
            "ops/commit",
            "ops/s",
            "slowest step",
            "fastest step",
            "p50 us",
            "p99.9 us",
            "worst us",
            "stalls",
        ],
        notes: vec![
            format!("a step is {STEP:?}; a stall is a commit of more than {STALL:?}"),
            format!("device: one {DEVICE_SHARE}th of the rows"),
        ],
        ..Report::default()
    };
    let mut engines = engines(setting)?;
    let disk = DiskCounter::of(&setting.dir)?;
    let mut seed = 0;
    for batch in BATCHES {
        let mut steps = vec![Steps::new(); engines.len()];
        let slices = rounds(&mut engines, number_of_rounds, &disk, |at, engine| {
            let rows = setting.rows / if at == DEVICE { DEVICE_SHARE } else { 1 };
            updates(engine, batch, rows.max(1), &mut seed, &mut steps[at])
        })?;
        for ((engine, slices), steps) in engines.iter().zip(&slices).zip(&steps) {
            report.rows.push(line(engine.name(), batch, slices, steps));
        }
        let worst = |at: usize| {
            let sorted = latencies(slices.get(at).map_or(&[], Vec::as_slice));
            sorted.last().map_or(f64::NAN, |worst| *worst as f64 / 1e6)
        };
        report.goals.push(Goal {
            what: format!("slowest of sustained commits of {batch}"),
            bound: Bound::AtMost(STALL.as_secs_f64() * 1000.0),
            unit: " ms",
            store: worst(STORE),
            device: Some(worst(DEVICE)),
        });
    }
    Ok(report)
}

fn line(name: &str, batch: usize, slices: &[Slice], steps: &[f64]) -> Vec<String> {
    let sorted = latencies(slices);
    let stalls = sorted.iter().filter(|ns| **ns > nanoseconds(STALL)).count();
    vec![
        name.to_owned(),
        batch.to_string(),
        number(median(slices.iter().map(Slice::front_rate))),
        number(least(steps.iter().copied())),
        number(steps.iter().copied().fold(0.0, f64::max)),
        micros(percentile(&sorted, 0.5)),
        micros(percentile(&sorted, 0.999)),
        micros(percentile(&sorted, 1.0)),
        stalls.to_string(),
    ]
}

fn engines(setting: &Setting) -> Result<Vec<Box<dyn Engine>>> {
    let dir = &setting.dir;
    let mut device = Device::open(&dir.join("device"))?;
    device.load(setting.rows / DEVICE_SHARE)?;
    let mut fjall = Fjall::open(&dir.join("fjall"))?;
    fjall.load(setting.rows)?;
    Ok(vec![
        Box::new(filled_store(&dir.join("store"), setting.rows)?),
        Box::new(device),
        Box::new(Bare::open(&dir.join("bare"))?),
        Box::new(fjall),
    ])
}

/// A store with `rows` rows, all checkpointed, opened with the settings of a device.
pub(crate) fn filled_store(dir: &Path, rows: u64) -> Result<StoreEngine> {
    // A large delta makes for few checkpoints, so that filling it does not take minutes.
    let options =
        Options { delta_cap_bytes: 2 << 30, checkpoint_log_bytes: u64::MAX, ..Options::default() };
    let mut filled = StoreEngine::with(dir, options)?;
    filled.load(rows)?;
    filled.close()?;
    StoreEngine::open(dir, CACHE_BYTES)
}

fn updates(
    engine: &mut dyn Engine,
    batch: usize,
    rows: u64,
    seed: &mut u64,
    steps: &mut Steps,
) -> Result<Slice> {
    let mut slice = Slice::default();
    let start = Instant::now();
    let (mut step_begun, mut in_step) = (start, 0_usize);
    while start.elapsed() < SLICE {
        let update = (0..batch as u64).map(|at| Row::new(mix(*seed + at) % rows, *seed));
        let update: Vec<Row> = distinct(update.collect());
        *seed += batch as u64;
        let begun = Instant::now();
        engine.after_answer()?;
        engine.commit(&update)?;
        slice.latencies.push(nanoseconds(begun.elapsed()));
        slice.ops += update.len() as u64;
        in_step += update.len();
        let in_step_for = step_begun.elapsed();
        if in_step_for >= STEP {
            steps.push(in_step as f64 / in_step_for.as_secs_f64());
            (step_begun, in_step) = (Instant::now(), 0);
        }
    }
    Ok(slice)
}
