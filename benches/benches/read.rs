//! Reads of a database that has been checkpointed and opened again.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use lastword_benches::{BY_THREAD, MESSAGES, THREAD_MESSAGES, open, print_settings, write};

const RECORDS: u64 = 50_000;

fn reads(c: &mut Criterion) {
    print_settings("read", "written in batches of 400");
    let dir = tempfile::tempdir().expect("a folder");
    let (db, ws) = open(dir.path()).expect("it opens");
    (0..RECORDS).step_by(400).for_each(|from| write(&ws, from, 400).expect("the disk works"));
    db.close().expect("it closes");
    let (db, ws) = open(dir.path()).expect("it opens again");
    let mut group = c.benchmark_group(format!("read, {RECORDS} records"));
    let mut number = 0;
    group.bench_function("get", |b| {
        b.iter(|| {
            number = (number + 7919) % RECORDS;
            let row = ws.get(MESSAGES, black_box(&format!("m{number:09}")));
            row.expect("the disk works").expect("it is there")
        });
    });
    group.bench_function("last 50 of a thread", |b| {
        b.iter(|| {
            number = (number + 7919) % RECORDS;
            let thread = format!("t{:07}", number / THREAD_MESSAGES);
            let rows = ws.query(&BY_THREAD.prefix(&thread).rev().limit(50));
            assert_eq!(rows.expect("the disk works").len(), 50);
        });
    });
    group.finish();
    db.close().expect("it closes");
}

criterion_group!(benches, reads);
criterion_main!(benches);
