//! What every engine plays: load, first copies, a device that was away, live changes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::SyncArgs;
use super::child::Process;
use super::contenders::Contender;
use super::disk;
use super::figures::{Figures, Latency};
use super::records::Files;
use super::wire::Wire;
use crate::Result;
use crate::measure::median;

/// Live changes whose bytes are counted, in seconds of the offered rate.
const COUNTED_SECONDS: u64 = 2;

pub(crate) fn play(
    contender: &Contender,
    files: &Files,
    dir: &Path,
    args: &SyncArgs,
) -> Result<Figures> {
    let mut figures = Figures::of(files);
    copies(contender, files, dir, args, &mut figures)?;
    live(contender, files, dir, args, &mut figures)?;
    bytes(contender, files, dir, args, &mut figures)?;
    Ok(figures)
}

/// A server process and its address, host and port.
fn serve(contender: &Contender, dir: &Path) -> Result<(Process, String)> {
    std::fs::create_dir_all(dir)?;
    let server = Process::start("server", contender.server(dir)?)?;
    let told = server.answer()?;
    let address = told.get("listening").and_then(Value::as_str).unwrap_or_default();
    let address = address.trim_start_matches("ws://").trim_end_matches("/sync").to_owned();
    Ok((server, address))
}

fn device(contender: &Contender, dir: &Path, name: &str, address: &str) -> Result<Process> {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir)?;
    Process::start(name, contender.device(&dir, address)?)
}

fn seconds(answer: &Value) -> f64 {
    answer.get("seconds").and_then(Value::as_f64).unwrap_or(f64::NAN)
}

fn received(answer: &Value) -> Option<u64> {
    answer.get("received").and_then(Value::as_u64)
}

/// Records go to the server, to fresh devices, and what changed to one that was away.
fn copies(
    contender: &Contender,
    files: &Files,
    dir: &Path,
    args: &SyncArgs,
    figures: &mut Figures,
) -> Result<()> {
    let (server, address) = serve(contender, &dir.join("server"))?;
    let mut loader = device(contender, dir, "loader", &address)?;
    let records = files.records.count;
    let load = |file: &Path| json!({ "do": "load", "file": file });
    let pull = json!({ "do": "pull", "count": records });
    let pushed = loader.tell(&load(&files.records.path))?;
    figures.push_rate = records as f64 / seconds(&pushed);
    let mut rates = Vec::new();
    for round in 0..args.rounds {
        let name = format!("fresh-{round}");
        let mut fresh = device(contender, dir, &name, &address)?;
        rates.push(records as f64 / seconds(&fresh.tell(&pull)?));
        figures.device_peak_bytes = figures.device_peak_bytes.max(fresh.peak_bytes());
        drop(fresh);
        std::fs::remove_dir_all(dir.join(name))?;
    }
    figures.pull_rate = median(rates.iter().copied());
    figures.pull_rates = rates;

    let wire = Wire::to(&address)?;
    let mut away = device(contender, dir, "away", &wire.address)?;
    away.tell(&pull)?;
    figures.pull = wire.passed();
    away.tell(&json!({ "do": "away" }))?;
    loader.tell(&load(&files.churn.path))?;
    let before = wire.passed();
    let back = away.tell(&json!({ "do": "back", "file": files.churn.path }))?;
    figures.churn = wire.passed() - before;
    figures.churn_seconds = seconds(&back);
    figures.churn_received = received(&back);
    figures.server_peak_bytes = server.peak_bytes();
    Ok(())
}

/// One writes, one watches.
struct Pair {
    _server: Process,
    writer: Process,
    watcher: Process,
}

impl Pair {
    /// Plays the live records; answers when each was offered, durable at its writer, and seen.
    fn play(&mut self, files: &Files, count: u64, rate: u64) -> Result<Vec<[u64; 3]>> {
        let live = json!({ "do": "live", "file": files.live.path, "rate": rate, "count": count });
        self.writer.ask(&live)?;
        let seen = self.watcher.tell(&json!({ "do": "seen", "count": count }))?;
        let written = self.writer.answer()?;
        let mut seen: BTreeMap<u64, u64> = serde_json::from_value::<Vec<(u64, u64)>>(
            seen.get("times").cloned().unwrap_or_default(),
        )?
        .into_iter()
        .collect();
        let written: Vec<(u64, u64, u64)> =
            serde_json::from_value(written.get("times").cloned().unwrap_or_default())?;
        let joined = written
            .into_iter()
            .map(|(index, offered, durable)| Some([offered, durable, seen.remove(&index)?]));
        joined.collect::<Option<_>>().ok_or_else(|| "a live change was not seen".into())
    }
}

fn pair(contender: &Contender, dir: &Path, name: &str, wires: bool) -> Result<(Pair, [Wire; 2])> {
    let dir = dir.join(name);
    let (server, address) = serve(contender, &dir.join("server"))?;
    let counted = [Wire::to(&address)?, Wire::to(&address)?];
    let at = |wire: &Wire| if wires { wire.address.clone() } else { address.clone() };
    let writer = device(contender, &dir, "writer", &at(&counted[0]))?;
    let watcher = device(contender, &dir, "watcher", &at(&counted[1]))?;
    let mut pair = Pair { _server: server, writer, watcher };
    pair.watcher.tell(&json!({ "do": "watch" }))?;
    pair.writer.tell(&json!({ "do": "pull", "count": 0 }))?;
    Ok((pair, counted))
}

fn live(
    contender: &Contender,
    files: &Files,
    dir: &Path,
    args: &SyncArgs,
    figures: &mut Figures,
) -> Result<()> {
    let (mut pair, _) = pair(contender, dir, "live", false)?;
    let mut syncs = disk::syncs(dir)?;
    let times = pair.play(files, files.live.count, args.rate)?;
    syncs.extend(disk::syncs(dir)?);
    syncs.sort_unstable();
    figures.sync = Latency::of(syncs);
    let between = |from: usize, to: usize| {
        let passed = times.iter().map(|time| time[to].saturating_sub(time[from]) * 1000);
        Latency::of(passed.collect())
    };
    (figures.written, figures.seen, figures.passed_on) =
        (between(0, 1), between(0, 2), between(1, 2));
    Ok(())
}

/// The same with a proxy before each device, which takes its time.
fn bytes(
    contender: &Contender,
    files: &Files,
    dir: &Path,
    args: &SyncArgs,
    figures: &mut Figures,
) -> Result<()> {
    let count = files.live.count.min(COUNTED_SECONDS * args.rate);
    let (mut pair, wires) = pair(contender, dir, "bytes", true)?;
    let before = [wires[0].passed(), wires[1].passed()];
    pair.play(files, count, args.rate)?;
    figures.counted = count;
    figures.writer_wire = wires[0].passed() - before[0];
    figures.watcher_wire = wires[1].passed() - before[1];
    Ok(())
}
