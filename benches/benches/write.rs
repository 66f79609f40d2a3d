//! Durable local writes: each returns after its sync.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lastword_benches::{BODY_BYTES, open, print_settings, write};

fn writes(c: &mut Criterion) {
    print_settings("write", "batches of 1, 100 and 400 records");
    let mut group = c.benchmark_group(format!("write, {BODY_BYTES} B a record, one writer"));
    group.measurement_time(Duration::from_secs(10)).sample_size(20);
    for batch in [1, 100, 400] {
        let dir = tempfile::tempdir().expect("a folder");
        let (db, ws) = open(dir.path()).expect("it opens");
        let mut next = 0;
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("batches of {batch}"), |b| {
            b.iter(|| {
                write(black_box(&ws), next, batch).expect("the disk works");
                next += batch;
            });
        });
        db.close().expect("it closes");
    }
    group.finish();
}

criterion_group!(benches, writes);
criterion_main!(benches);
