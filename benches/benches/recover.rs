//! Opening after a kill: the log is recovered, and what redb had not seen is folded.

use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lastword_benches::{open, print_settings, write};

const BASE: u64 = 50_000;
const TAIL: u64 = 10_000;

fn recover(c: &mut Criterion) {
    print_settings("recover", "written in batches of 400");
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let (db, ws) = open(&whole).expect("it opens");
    (0..BASE).step_by(400).for_each(|from| write(&ws, from, 400).expect("the disk works"));
    db.close().expect("it closes");
    let (db, ws) = open(&whole).expect("it opens again");
    (BASE..BASE + TAIL).step_by(400).for_each(|from| write(&ws, from, 400).expect("it works"));
    // A copy of the files of an open store is what a kill leaves.
    copy(&whole, &killed);
    db.close().expect("it closes");
    let mut group = c.benchmark_group("recover");
    group.measurement_time(Duration::from_secs(15)).sample_size(10);
    group.throughput(Throughput::Elements(TAIL));
    group.bench_function(format!("{BASE} records, {TAIL} not in redb"), |b| {
        let again = dir.path().join("again");
        b.iter_batched(
            || copy(&killed, &again),
            |()| open(&again).expect("it opens"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn copy(from: &Path, to: &Path) {
    // What is left of the iteration before; the first finds nothing.
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

criterion_group!(benches, recover);
criterion_main!(benches);
