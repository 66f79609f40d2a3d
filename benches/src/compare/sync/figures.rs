//! What was measured of one engine, and the tables and goals made of it.

use super::SyncArgs;
use super::contenders::Contender;
use super::records::Files;
use super::wire::Passed;
use crate::Result;
use crate::measure::percentile;
use crate::table::{Bound, Goal, Report, number};

/// Some latencies of many, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Latency {
    /// Of nanoseconds.
    pub(crate) fn of(mut all: Vec<u64>) -> Latency {
        all.sort_unstable();
        let at = |share| percentile(&all, share) as f64 / 1e6;
        Latency { p50: at(0.5), p99: at(0.99) }
    }
}

/// Of one engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Mean of a record as JSON, of those that were copied, changed, and sent live.
    payload: [f64; 3],
    records: u64,
    churned: u64,
    pub(crate) push_rate: f64,
    pub(crate) pull_rate: f64,
    pub(crate) pull_rates: Vec<f64>,
    pub(crate) pull: Passed,
    pub(crate) churn: Passed,
    pub(crate) churn_seconds: f64,
    /// Records that came back, where the engine says.
    pub(crate) churn_received: Option<u64>,
    pub(crate) sync: Latency,
    /// From the offer of a change until it was durable at its writer.
    pub(crate) written: Latency,
    /// From the offer until it was seen.
    pub(crate) seen: Latency,
    /// From durable at its writer until it was seen.
    pub(crate) passed_on: Latency,
    pub(crate) counted: u64,
    pub(crate) writer_wire: Passed,
    pub(crate) watcher_wire: Passed,
    pub(crate) server_peak_bytes: u64,
    pub(crate) device_peak_bytes: u64,
}

impl Figures {
    pub(crate) fn of(files: &Files) -> Figures {
        let mean = |lines: &super::records::Lines| lines.payload_bytes as f64 / lines.count as f64;
        let payload = [&files.records, &files.churn, &files.live].map(mean);
        let (records, churned) = (files.records.count, files.churn.count);
        Figures { payload, records, churned, ..Figures::default() }
    }

    /// Bytes that came down for each change, by the record's own.
    fn churn_share(&self) -> f64 {
        self.churn.down as f64 / self.churned as f64 / self.payload[1]
    }

    fn live_words(&self, which: &str, bytes: u64) -> String {
        let each = bytes as f64 / self.counted as f64;
        format!("live bytes {which} / payload ({each:.0} / {:.0})", self.payload[2])
    }

    fn live_share(&self, bytes: u64) -> f64 {
        bytes as f64 / self.counted as f64 / self.payload[2]
    }
}

type Done = [(Contender, Result<Figures>)];

pub(crate) fn report(args: &SyncArgs, done: &Done) -> Vec<Report> {
    let ours = done.iter().find(|(one, figures)| !one.is_peer() && figures.is_ok());
    let ours = ours.and_then(|(one, figures)| Some((one, figures.as_ref().ok()?)));
    let mut copies = copies(done);
    let mut live = live(args, done);
    if let Some((one, figures)) = ours {
        copies.goals = copy_goals(one, figures);
        live.goals = live_goals(args, figures);
    }
    vec![copies, live]
}

fn named<const N: usize>(done: &Done, cells: impl Fn(&Figures) -> [String; N]) -> Vec<Vec<String>> {
    let row = |(one, figures): &(Contender, Result<Figures>)| {
        let first = [one.title().to_owned(), one.keeps.to_owned(), one.records.to_string()];
        let cells = match figures {
            Ok(figures) => cells(figures).to_vec(),
            Err(_) => vec!["-".to_owned(); N],
        };
        first.into_iter().chain(cells).collect()
    };
    done.iter().map(row).collect()
}

fn failures(done: &Done) -> impl Iterator<Item = String> {
    done.iter().filter_map(|(one, figures)| {
        Some(format!("{} was not measured: {}", one.title(), figures.as_ref().err()?))
    })
}

fn copies(done: &Done) -> Report {
    let mib = |bytes: u64| number(bytes as f64 / f64::from(1 << 20));
    let rows = named(done, |figures| {
        [
            number(figures.push_rate),
            number(figures.pull_rate),
            number(figures.pull.down as f64 / figures.records as f64),
            number(figures.churn_seconds * 1000.0),
            number(figures.churn.down as f64 / figures.churned as f64),
            mib(figures.server_peak_bytes),
            mib(figures.device_peak_bytes),
        ]
    });
    let payload = done.iter().find_map(|(_, figures)| Some(figures.as_ref().ok()?.payload[0]));
    let mut notes = vec![
        format!(
            "a record is {} bytes of JSON; the records are the same for all, as far as they go",
            number(payload.unwrap_or(f64::NAN))
        ),
        "push: one device, until the server has all; pull: a fresh device, until it has all".into(),
        "catch-up: one record in 100 changed while the device was away".into(),
        "bytes: all that came down its connection; memory: most that the process ever had".into(),
    ];
    notes.extend(failures(done));
    Report {
        title: "first copy and catch-up".into(),
        columns: vec![
            "engine",
            "keeps",
            "records",
            "push/s",
            "pull/s",
            "B/record",
            "catch-up ms",
            "B/changed",
            "server MiB",
            "device MiB",
        ],
        rows,
        notes,
        goals: Vec::new(),
    }
}

fn live(args: &SyncArgs, done: &Done) -> Report {
    let rows = named(done, |figures| {
        let per_change = |bytes: u64| number(bytes as f64 / figures.counted as f64);
        [
            number(figures.sync.p50),
            number(figures.written.p50),
            number(figures.seen.p50),
            number(figures.seen.p99),
            number(figures.passed_on.p50),
            number(figures.passed_on.p99),
            per_change(figures.writer_wire.up),
            per_change(figures.writer_wire.down),
            per_change(figures.watcher_wire.down),
            per_change(figures.watcher_wire.up),
        ]
    });
    let payload = done.iter().find_map(|(_, figures)| Some(figures.as_ref().ok()?.payload[2]));
    Report {
        title: format!(
            "live: one writer, one watcher, {} batches of one record a second offered for {} s",
            args.rate, args.seconds
        ),
        columns: vec![
            "engine",
            "keeps",
            "records",
            "fdatasync ms",
            "written ms",
            "seen p50",
            "p99",
            "passed on p50",
            "p99",
            "B up",
            "back",
            "B down",
            "back",
        ],
        rows,
        notes: vec![
            "fdatasync: p50 of a small write, alone on the same disk, before and after".into(),
            "written: from the offer until durable at the writer; seen: until the watcher shows \
             it; passed on: from written to seen"
                .into(),
            format!(
                "bytes for each change of {} bytes of JSON: the writer's connection up and \
                back, the watcher's down and back",
                number(payload.unwrap_or(f64::NAN))
            ),
        ],
        goals: Vec::new(),
    }
}

fn goal(what: String, bound: Bound, unit: &'static str, store: f64) -> Goal {
    Goal { what, bound, unit, store, device: None }
}

fn copy_goals(one: &Contender, figures: &Figures) -> Vec<Goal> {
    let rates: Vec<String> = figures.pull_rates.iter().map(|rate| number(*rate)).collect();
    let what = format!("first copy of {} records, durable ({})", one.records, rates.join(", "));
    let received = figures.churn_received.unwrap_or_default() as f64;
    vec![
        goal(what, Bound::AtLeast(100_000.0), " records/s", figures.pull_rate),
        goal(
            "records received after 1% churn / records changed".into(),
            Bound::AtMost(1.0),
            "x",
            received / figures.churned as f64,
        ),
        goal(
            "bytes received after 1% churn / payload of what changed".into(),
            Bound::AtMost(1.15),
            "x",
            figures.churn_share(),
        ),
    ]
}

fn live_goals(args: &SyncArgs, figures: &Figures) -> Vec<Goal> {
    let most = 2.0 * figures.sync.p50 + 0.5;
    let bound = Bound::AtMost((most * 1000.0).round() / 1000.0);
    let rate = args.rate;
    let what = |from: &str, latency: Latency| {
        format!("live p50 from {from} to seen at {rate}/s (p99 {:.2} ms)", latency.p99)
    };
    vec![
        goal(what("offered", figures.seen), bound, " ms", figures.seen.p50),
        goal(what("written", figures.passed_on), bound, " ms", figures.passed_on.p50),
        goal(
            figures.live_words("to the watcher", figures.watcher_wire.down),
            Bound::AtMost(1.15),
            "x",
            figures.live_share(figures.watcher_wire.down),
        ),
        goal(
            figures.live_words("from the writer", figures.writer_wire.up),
            Bound::AtMost(1.15),
            "x",
            figures.live_share(figures.writer_wire.up),
        ),
    ]
}
