//! Point reads of one million rows.

use std::path::Path;
use std::time::Duration;

use lastword::store::Options;
use redb::Durability;

use crate::Result;
use crate::engines::{Device, Engine, Redb, StoreEngine};
use crate::measure::{DiskCounter, Slice, median, ratio, rounds};
use crate::parts::Setting;
use crate::parts::sustained::filled_store;
use crate::rows::{Row, VALUE_BYTES, distinct, mix};
use crate::table::{Goal, Report, number};

const ROWS: u64 = 1_000_000;
/// Rows of the device, which takes longest to fill.
const DEVICE_ROWS: u64 = 200_000;
const SLICE: Duration = Duration::from_millis(200);

/// i) Point reads, from the delta and from redb.
pub(crate) fn reads(setting: &Setting) -> Result<Report> {
    let names = ["store: delta", "store: checkpointed", "device: 200k, checkpointed", "redb"];
    let rows = [ROWS, ROWS, DEVICE_ROWS, ROWS];
    let mut engines = engines(&setting.dir)?;
    // Every page once, so that the caches are as full as they get.
    for (engine, rows) in engines.iter_mut().zip(rows) {
        for number in 0..rows {
            expect_value(engine.as_mut(), number)?;
        }
    }
    let disk = DiskCounter::of(&setting.dir)?;
    let mut next = 0;
    let slices = rounds(&mut engines, setting.rounds, &disk, |at, engine| {
        let mut slice = Slice::default();
        let begun = std::time::Instant::now();
        while begun.elapsed() < SLICE {
            for _ in 0..100 {
                next += 1;
                expect_value(engine, mix(next) % rows[at])?;
            }
            slice.ops += 100;
        }
        Ok(slice)
    })?;
    let rates: Vec<Vec<f64>> =
        slices.iter().map(|slices| slices.iter().map(Slice::front_rate).collect()).collect();
    let by = |ours: usize, theirs: usize| ratio(&rates[ours], &rates[theirs]);
    let lines = names.iter().enumerate().map(|(at, name)| {
        let rate = median(rates[at].iter().copied());
        vec![(*name).to_owned(), number(rate), number(by(0, at)), number(by(1, at))]
    });
    Ok(Report {
        title: format!(
            "i: point reads of {ROWS} rows; {} slices of {SLICE:?} after reading all once",
            setting.rounds
        ),
        columns: vec!["engine", "gets/s", "delta/it", "checkpointed/it"],
        rows: lines.collect(),
        notes: vec!["caches of 2 GiB, read to be full; device: 64 MiB, which cannot be set".into()],
        goals: vec![
            Goal::faster("point read, checkpointed / redb", 0.9, by(1, 3), by(2, 3)),
            Goal { device: None, ..Goal::faster("point read, delta / redb", 3.0, by(0, 3), 0.0) },
        ],
    })
}

fn engines(dir: &Path) -> Result<Vec<Box<dyn Engine>>> {
    let large = Options {
        delta_cap_bytes: 8 << 30,
        checkpoint_log_bytes: u64::MAX,
        cache_bytes: 1 << 20,
        ..Options::default()
    };
    let mut in_delta = StoreEngine::with(&dir.join("delta"), large)?;
    in_delta.load(ROWS)?;
    let store = filled_store(&dir.join("store"), ROWS)?;
    let mut device = Device::open(&dir.join("device"))?;
    device.load(DEVICE_ROWS)?;
    device.close()?;
    let device = Device::open(&dir.join("device"))?;
    // Sorted, as our checkpoint writes them: both have files of one shape.
    let redb = Redb::open(&dir.join("redb"))?;
    let rows = distinct((0..ROWS).map(|number| Row::new(number, 0)).collect());
    let pairs = rows.iter().map(|row| (&row.key[..], row.value.as_bytes()));
    redb.put(pairs, Durability::Immediate)?;
    Ok(vec![Box::new(in_delta), Box::new(store), Box::new(device), Box::new(redb)])
}

/// Reads row `number`, and makes sure that it was read.
fn expect_value(engine: &mut dyn Engine, number: u64) -> Result<()> {
    let key = Row::new(number, 0).key;
    match engine.get(&key)? {
        Some(len) if len >= VALUE_BYTES => Ok(()),
        other => Err(format!("{}: row {number} has {other:?} bytes", engine.name()).into()),
    }
}
