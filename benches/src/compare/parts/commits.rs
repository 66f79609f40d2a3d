//! Durable commits: one writer, sixteen, and batches of 1,000.

use std::time::{Duration, Instant};

use crate::Result;
use crate::committer::write_from_many;
use crate::engines::{self, Engine};
use crate::measure::{
    DiskCounter, Slice, latencies, least, median, nanoseconds, percentile, ratio, rounds,
};
use crate::parts::Setting;
use crate::rows::Rows;
use crate::table::{Bound, Goal, Report, micros, number};

/// How fast a slice went, in ops a second.
type Rate = fn(&Slice) -> f64;

/// Rows in each database before the first round.
const LOADED: u64 = 100_000;
const WRITERS: u64 = 16;
const BATCH: usize = 1000;

/// Engine after engine, its slices.
struct Measured {
    names: Vec<&'static str>,
    slices: Vec<Vec<Slice>>,
}

/// a) One writer, one op per commit.
pub(crate) fn single(setting: &Setting) -> Result<Report> {
    let slice = Duration::from_millis(300);
    let measured = measure(setting, |engine, rows| until(slice, engine, rows, 1))?;
    let title = format!(
        "a: 1 writer, one durable op per commit; {} slices of {slice:?}, {LOADED} rows before",
        setting.rounds
    );
    let goals = [
        measured.goals("1 writer / fjall", 1.0, &["fjall"]),
        measured.goals("1 writer / SQLite FULL", 1.5, &["SQLite FULL"]),
        measured.goals("1 writer / redb", 2.5, &["redb"]),
        measured.goals("1 writer / bare append + fdatasync", 0.85, &["bare log"]),
    ];
    let goals = goals.into_iter().flatten().chain([measured.bytes_goal()]).collect();
    Ok(measured.report(title, goals))
}

/// b) Sixteen writers behind one committer, or behind our own group commit.
pub(crate) fn writers(setting: &Setting) -> Result<Report> {
    let slice = Duration::from_millis(600);
    let measured = measure(setting, |engine, rows| write_from_many(engine, WRITERS, slice, rows))?;
    let title = format!(
        "b: {WRITERS} writers, peers behind one committer thread; {} slices of {slice:?}, \
         {LOADED} rows before",
        setting.rounds
    );
    let peers = ["fjall", "SQLite FULL", "redb", "LMDB"];
    let goals = [
        measured.goals("16 writers / best durable peer", 1.5, &peers),
        measured.goals("16 writers / redb", 3.0, &["redb"]),
        measured.goals("16 writers / bare log", 0.8, &["bare log"]),
    ];
    let goals = goals.into_iter().flatten().collect();
    Ok(measured.report(title, goals))
}

/// c) Batches of 1,000, one sync each.
pub(crate) fn batches(setting: &Setting) -> Result<Report> {
    let slice = Duration::from_millis(600);
    let measured = measure(setting, |engine, rows| until(slice, engine, rows, BATCH))?;
    let title = format!(
        "c: batches of {BATCH} ops, one sync each; {} slices of {slice:?}, {LOADED} rows before",
        setting.rounds
    );
    let goals = [
        measured.goals("batches of 1,000 / fjall", 1.0, &["fjall"]),
        measured.goals("batches of 1,000 / redb", 3.0, &["redb"]),
        measured.goals("batches of 1,000 / SQLite FULL", 6.0, &["SQLite FULL"]),
    ];
    let goals = goals.into_iter().flatten().collect();
    Ok(measured.report(title, goals))
}

fn measure(
    setting: &Setting,
    mut slice: impl FnMut(&mut dyn Engine, &mut Rows) -> Result<Slice>,
) -> Result<Measured> {
    let mut engines = engines::all(&setting.dir)?;
    for engine in &mut engines {
        engine.load(LOADED)?;
    }
    let disk = DiskCounter::of(&setting.dir)?;
    let mut rows = vec![Rows::from(LOADED); engines.len()];
    let slices =
        rounds(&mut engines, setting.rounds, &disk, |at, engine| slice(engine, &mut rows[at]))?;
    Ok(Measured { names: engines.iter().map(|engine| engine.name()).collect(), slices })
}

/// Commits of `batch` rows until the slice is over. Whoever commits again waits for what the engine
/// still had to do after the commit before, so that counts.
fn until(time: Duration, engine: &mut dyn Engine, rows: &mut Rows, batch: usize) -> Result<Slice> {
    let mut slice = Slice::default();
    let until = Instant::now() + time;
    loop {
        let batch = rows.take(batch);
        let begun = Instant::now();
        if begun >= until {
            return Ok(slice);
        }
        engine.after_answer()?;
        engine.commit(&batch)?;
        slice.latencies.push(nanoseconds(begun.elapsed()));
        slice.ops += batch.len() as u64;
    }
}

impl Measured {
    fn slices(&self, name: &str) -> &[Slice] {
        let at = self.names.iter().position(|found| *found == name);
        at.and_then(|at| self.slices.get(at)).map_or(&[], Vec::as_slice)
    }

    /// Median of `ours` by `theirs`.
    fn ratio(&self, ours: &str, theirs: &str, rate: Rate) -> f64 {
        let rates = |name| self.slices(name).iter().map(rate).collect::<Vec<_>>();
        ratio(&rates(ours), &rates(theirs))
    }

    /// By the rate of commits, checkpoints running meanwhile, and by the rate of all work done.
    fn goals(&self, what: &str, times: f64, peers: &[&str]) -> [Goal; 2] {
        let ways: [(&str, Rate); 2] = [("", Slice::front_rate), (", background done", Slice::rate)];
        ways.map(|(how, rate)| {
            let against = |ours| {
                peers.iter().map(|peer| self.ratio(ours, peer, rate)).fold(f64::NAN, f64::min)
            };
            Goal::faster(format!("{what}{how}"), times, against("store"), against("device"))
        })
    }

    /// Bytes to the disk per op, in each round.
    fn bytes(&self, name: &str) -> impl Iterator<Item = f64> {
        self.slices(name).iter().map(|slice| slice.disk_bytes as f64 / slice.ops as f64)
    }

    /// By the round in which others wrote least to the same disk.
    fn bytes_goal(&self) -> Goal {
        let by_fjall = |name| least(self.bytes(name)) / least(self.bytes("fjall"));
        Goal {
            what: "bytes to disk per single commit / fjall".into(),
            bound: Bound::AtMost(1.1),
            unit: "x",
            store: by_fjall("store"),
            device: Some(by_fjall("device")),
        }
    }

    /// Where the disk is the limit for all, all ratios come close to 1 and say little.
    fn disk_note(&self) -> String {
        let rates = || self.slices("bare log").iter().map(Slice::front_rate);
        let fastest = rates().fold(0.0, f64::max);
        format!(
            "the bare log did {} to {} ops/s, round by round; far apart: others used the disk",
            number(least(rates())),
            number(fastest)
        )
    }

    fn report(&self, title: String, goals: Vec<Goal>) -> Report {
        let rows = self.names.iter().map(|name| {
            let slices = self.slices(name);
            let sorted = latencies(slices);
            vec![
                (*name).to_owned(),
                number(median(slices.iter().map(Slice::front_rate))),
                number(median(slices.iter().map(Slice::rate))),
                number(self.ratio("store", name, Slice::front_rate)),
                number(self.ratio("store", name, Slice::rate)),
                number(self.ratio("device", name, Slice::front_rate)),
                micros(percentile(&sorted, 0.5)),
                micros(percentile(&sorted, 0.99)),
                number(median(self.bytes(name))),
                number(least(self.bytes(name))),
            ]
        });
        Report {
            title,
            columns: vec![
                "engine",
                "ops/s",
                "settled",
                "store/it",
                "settled",
                "device/it",
                "p50 us",
                "p99 us",
                "disk B/op",
                "least",
            ],
            rows: rows.collect(),
            notes: vec![
                "settled: until work in the background was done too, and the ratio of that".into(),
                "disk: written to the block device, also by others; least: of all rounds".into(),
                "* not durable per commit".into(),
                self.disk_note(),
            ],
            goals,
        }
    }
}
