//! Single commits while the state is written in the background.

use std::time::Instant;

use crate::Result;
use crate::engines::{CACHE_BYTES, Device, Engine, Fjall, StoreEngine};
use crate::measure::{Slice, latencies, median, nanoseconds, percentile};
use crate::parts::Setting;
use crate::rows::Rows;
use crate::table::{Bound, Goal, Report, micros, number};

/// Rows in each database before the first round.
const LOADED: u64 = 300_000;
/// Rows per commit until the background has something to do.
const FILL: usize = 1000;
/// Most commits until then.
const MAX_FILLS: usize = 2000;
/// Most commits that are measured in one round.
const MAX_COMMITS: usize = 20_000;
/// How often a commit asks whether the background still works.
const ASK_EVERY: usize = 16;

/// f) Slowest commits while a checkpoint, or fjall's flush, runs.
pub(crate) fn stall(setting: &Setting) -> Result<Report> {
    let mut engines: [Box<dyn Engine>; 3] = [
        Box::new(StoreEngine::open(&setting.dir.join("store"), CACHE_BYTES)?),
        Box::new(Device::open(&setting.dir.join("device"))?),
        Box::new(Fjall::open(&setting.dir.join("fjall"))?),
    ];
    for engine in &mut engines {
        engine.load(LOADED)?;
    }
    let mut rows = [(); 3].map(|()| Rows::from(LOADED));
    let mut slices: [Vec<Slice>; 3] = Default::default();
    for round in 0..setting.rounds {
        for turn in 0..engines.len() {
            let at = (round + turn) % engines.len();
            slices[at].push(slice(engines[at].as_mut(), &mut rows[at])?);
        }
    }
    let p999 = |slices: &[Slice]| percentile(&latencies(slices), 0.999) as f64;
    let by_fjall = |at: usize| {
        let rounds = slices[at].chunks(1).zip(slices[2].chunks(1));
        median(rounds.map(|(ours, fjall)| p999(ours) / p999(fjall)))
    };
    let lines = engines.iter().zip(&slices).enumerate().map(|(at, (engine, slices))| {
        let sorted = latencies(slices);
        let shares = [0.5, 0.99, 0.999, 1.0].map(|share| micros(percentile(&sorted, share)));
        let first = [engine.name().to_owned(), number(sorted.len() as f64)];
        first.into_iter().chain(shares).chain([number(by_fjall(at))]).collect()
    });
    Ok(Report {
        title: format!(
            "f: single durable commits while a checkpoint (fjall: a flush or compaction) runs; \
             {} rounds, {LOADED} rows before",
            setting.rounds
        ),
        columns: vec![
            "engine",
            "commits",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "worst us",
            "p99.9 / fjall's",
        ],
        rows: lines.collect(),
        notes: vec!["ratio: median of the rounds".into()],
        goals: vec![Goal {
            what: "p99.9 of commits during a checkpoint / fjall's during a flush".into(),
            bound: Bound::AtMost(0.5),
            unit: "x",
            store: by_fjall(0),
            device: Some(by_fjall(1)),
        }],
    })
}

/// Fills until the engine begins to write in the background, then commits until it has ended.
fn slice(engine: &mut dyn Engine, rows: &mut Rows) -> Result<Slice> {
    let mut slice = Slice::default();
    for _ in 0..MAX_FILLS {
        if engine.in_background()? {
            break;
        }
        engine.commit(&rows.take(FILL))?;
        engine.after_answer()?;
    }
    for commit in 0..MAX_COMMITS {
        if commit % ASK_EVERY == 0 && !engine.in_background()? {
            break;
        }
        let row = [rows.next()];
        let begun = Instant::now();
        engine.after_answer()?;
        engine.commit(&row)?;
        slice.latencies.push(nanoseconds(begun.elapsed()));
        slice.ops += 1;
    }
    engine.settle()?;
    Ok(slice)
}
