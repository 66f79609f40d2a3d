//! The state folded anew from a log of many updates.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use lastword::store::{Options, ViewHandle};
use redb::Durability;

use crate::Result;
use crate::engines::{CACHE_BYTES, Device, Engine, Redb, StoreEngine, decode, open_store};
use crate::measure::{median, ratio};
use crate::parts::Setting;
use crate::rows::{Row, distinct, mix};
use crate::table::{Goal, Report, number};

/// Entries of the log, and of the smaller log of the device.
const ENTRIES: u64 = 1_000_000;
const DEVICE_ENTRIES: u64 = 200_000;
const DEVICE_BATCH: u64 = 100;
/// New records among ten entries; the others update.
const NEW_IN_TEN: u64 = 3;
/// Entries per transaction where redb is written in chunks.
const CHUNK: usize = 10_000;
/// Most rounds: one takes half a minute.
const MAX_ROUNDS: usize = 3;

type Rates = Vec<f64>;
type Way<'a> = (&'static str, Box<dyn Fn() -> Result<f64> + 'a>);
type Insert<M> = fn(&mut M, Vec<u8>, Vec<u8>) -> Option<Vec<u8>>;

/// d) Rebuild of redb from 1M entries.
pub(crate) fn rebuild(setting: &Setting) -> Result<Report> {
    let rounds = setting.rounds.min(MAX_ROUNDS);
    let (ours, device) = (setting.dir.join("ours"), setting.dir.join("device"));
    write_log(&ours)?;
    let device_entries = write_device_log(&device)?;
    let mut rows: Vec<(&str, Rates)> = Vec::new();
    let ways: [Way<'_>; 5] = [
        ("store: open and all of it in redb", Box::new(|| open_without_state(&ours))),
        ("device: open, 200k entries", Box::new(|| open_device(&device, device_entries))),
        ("redb in chunks of 10k", Box::new(|| in_chunks(&ours, &setting.dir.join("chunks")))),
        ("fold into a hash map", Box::new(|| fold(&ours, HashMap::new(), HashMap::insert))),
        ("fold into an ordered map", Box::new(|| fold(&ours, BTreeMap::new(), BTreeMap::insert))),
    ];
    rows.extend(ways.iter().map(|way| (way.0, Rates::new())));
    for round in 0..rounds {
        for turn in 0..ways.len() {
            let at = (round + turn) % ways.len();
            rows[at].1.push(ways[at].1()?);
        }
    }
    Ok(report(rounds, &rows))
}

fn report(rounds: usize, rows: &[(&str, Rates)]) -> Report {
    let by = |ours: usize, theirs: usize| ratio(&rows[ours].1, &rows[theirs].1);
    let lines = rows.iter().enumerate().map(|(at, (name, rates))| {
        vec![(*name).to_owned(), number(median(rates.iter().copied())), number(by(0, at))]
    });
    Report {
        title: format!(
            "d: state from a log of {ENTRIES} entries, {}% of them updates; {rounds} rounds",
            100 - 10 * NEW_IN_TEN
        ),
        columns: vec!["way", "entries/s", "store/it"],
        rows: lines.collect(),
        notes: vec![
            "all ways read the same log, with checksums; redb in chunks: not durable but the last"
                .into(),
        ],
        goals: vec![
            Goal::faster("rebuild of redb / redb in chunks", 5.0, by(0, 2), by(1, 2)),
            Goal::faster("rebuild of redb / fold in memory", 0.55, by(0, 3), by(1, 3)),
        ],
    }
}

/// Entry number `number`: a new row or another version of an older one.
fn entry(number: u64) -> Row {
    let (tens, rest) = (number / 10, number % 10);
    let known = tens * NEW_IN_TEN + rest.min(NEW_IN_TEN);
    match rest < NEW_IN_TEN {
        true => Row::new(known, 0),
        false => Row::new(mix(number) % known, number),
    }
}

fn write_all(engine: &mut dyn Engine, entries: u64, batch: usize) -> Result<()> {
    let mut rows = Vec::with_capacity(batch);
    for number in 0..entries {
        rows.push(entry(number));
        if rows.len() == batch || number + 1 == entries {
            engine.commit(&rows)?;
            engine.after_answer()?;
            rows.clear();
        }
    }
    Ok(())
}

/// A log of [`ENTRIES`] entries in `dir`, its state not worth keeping.
pub(crate) fn write_log(dir: &Path) -> Result<()> {
    let options =
        Options { delta_cap_bytes: 4 << 30, checkpoint_log_bytes: u64::MAX, ..Options::default() };
    let mut engine = StoreEngine::with(dir, options)?;
    write_all(&mut engine, ENTRIES, CHUNK)?;
    engine.close()
}

/// Returns how many entries it wrote.
fn write_device_log(dir: &Path) -> Result<u64> {
    let mut device = Device::open(dir)?;
    let mut written = 0;
    for batch in 0..DEVICE_ENTRIES / DEVICE_BATCH {
        let rows = (0..DEVICE_BATCH).map(|at| entry(batch * DEVICE_BATCH + at));
        let rows = distinct(rows.collect());
        written += rows.len() as u64;
        device.commit(&rows)?;
    }
    device.close()?;
    Ok(written)
}

fn remove_state(dir: &Path) -> Result<()> {
    for found in std::fs::read_dir(dir)? {
        let path = found?.path();
        if path.extension().is_some_and(|extension| extension == "state") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn open_without_state(dir: &Path) -> Result<f64> {
    remove_state(dir)?;
    let begun = Instant::now();
    let options = Options { cache_bytes: CACHE_BYTES, ..Options::server() };
    let (mut store, report) = open_store(dir, options)?;
    store.checkpoint()?;
    let rate = report.replayed_frames as f64 / begun.elapsed().as_secs_f64();
    store.close()?;
    Ok(rate)
}

fn open_device(dir: &Path, entries: u64) -> Result<f64> {
    remove_state(dir)?;
    let begun = Instant::now();
    let device = Device::open(dir)?;
    let rate = entries as f64 / begun.elapsed().as_secs_f64();
    device.close()?;
    Ok(rate)
}

fn in_chunks(log: &Path, dir: &Path) -> Result<f64> {
    let (store, _) = open_store(log, Options::default())?;
    let views = store.view_handle();
    let begun = Instant::now();
    let redb = Redb::open(dir)?;
    let mut chunk: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(CHUNK);
    let put = |chunk: &mut Vec<(Vec<u8>, Vec<u8>)>, durability| -> Result<()> {
        redb.put(chunk.iter().map(|(key, value)| (&key[..], &value[..])), durability)?;
        chunk.clear();
        Result::Ok(())
    };
    let mut failed = Ok(());
    let mut entries = 0;
    for_each(&views, |key, value| {
        entries += 1;
        chunk.push((key.to_vec(), value.to_vec()));
        if chunk.len() == CHUNK && failed.is_ok() {
            failed = put(&mut chunk, Durability::None);
        }
    })?;
    failed?;
    put(&mut chunk, Durability::Immediate)?;
    let rate = f64::from(entries) / begun.elapsed().as_secs_f64();
    drop(redb);
    std::fs::remove_dir_all(dir)?;
    store.close()?;
    Ok(rate)
}

/// The last value of each key, in a map.
fn fold<M>(log: &Path, mut rows: M, insert: Insert<M>) -> Result<f64> {
    let (store, _) = open_store(log, Options::default())?;
    let views = store.view_handle();
    let begun = Instant::now();
    let mut entries = 0;
    for_each(&views, |key, value| {
        entries += 1;
        insert(&mut rows, key.to_vec(), value.to_vec());
    })?;
    let rate = f64::from(entries) / begun.elapsed().as_secs_f64();
    store.close()?;
    Ok(rate)
}

/// Hands key and value of every entry of the log to `visit`.
pub(crate) fn for_each(views: &ViewHandle, mut visit: impl FnMut(&[u8], &[u8])) -> Result<()> {
    let mut bad = 0;
    views.scan_frames(0, |frame| {
        match decode(frame.payload) {
            Some((key, value)) => visit(key, value),
            // The store's own frames are empty.
            None => bad += usize::from(!frame.payload.is_empty()),
        }
        ControlFlow::Continue(())
    })?;
    if bad > 0 { Err(format!("{bad} frames hold no row").into()) } else { Ok(()) }
}
