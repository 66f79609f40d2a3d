//! The fold of a whole log: opening a database whose state file is gone.

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lastword_benches::{open, print_settings, write};

const RECORDS: u64 = 20_000;

fn replay(c: &mut Criterion) {
    print_settings("replay", "written in batches of 400");
    let dir = tempfile::tempdir().expect("a folder");
    let (db, ws) = open(dir.path()).expect("it opens");
    (0..RECORDS).step_by(400).for_each(|from| write(&ws, from, 400).expect("the disk works"));
    db.close().expect("it closes");
    let mut group = c.benchmark_group("replay");
    group.measurement_time(Duration::from_secs(20)).sample_size(10);
    group.throughput(Throughput::Elements(RECORDS));
    group.bench_function(format!("{RECORDS} own records, state rebuilt"), |b| {
        b.iter_batched(
            || {
                for entry in std::fs::read_dir(dir.path()).expect("readable") {
                    let path = entry.expect("readable").path();
                    if path.extension().is_some_and(|extension| extension == "state") {
                        std::fs::remove_file(path).expect("removed");
                    }
                }
            },
            |()| open(dir.path()).expect("it opens"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, replay);
criterion_main!(benches);
