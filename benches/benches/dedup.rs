//! Storing files: new ones, edited ones, and ones that are there already, beside the bare hashes
//! and the bare chunker that storing cannot do without.

use std::hint::black_box;
use std::time::Duration;

use blake3::OutputReader;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lastword::store::blobs::Chunker;
use lastword::{Database, Workspace};
use sha2::{Digest as _, Sha256};

const FILE_BYTES: usize = 32 << 20;
const EDITS: usize = 10;

/// Bytes that cannot be compressed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    stream(seed).fill(&mut out);
    out
}

fn stream(seed: u64) -> OutputReader {
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof()
}

/// A version with some bytes put in at places all over it.
fn edited(old: &[u8], seed: u64) -> Vec<u8> {
    let mut new = old.to_vec();
    for edit in 0..EDITS {
        let at = (edit * 2 + 1) * old.len() / (2 * EDITS);
        new.splice(at..at, noise(seed * 100 + edit as u64, 40));
    }
    new
}

fn store(ws: &Workspace, bytes: &[u8]) -> u64 {
    ws.files().stage_from(bytes, "file", &mut |_| {}).expect("the disk works").new_bytes
}

fn chunk_all(bytes: &[u8]) -> usize {
    let (mut chunker, mut chunks) = (Chunker::new(bytes), 0);
    while let Some(chunk) = chunker.next_chunk().expect("it is in memory") {
        black_box(chunk);
        chunks += 1;
    }
    chunks
}

fn dedup(c: &mut Criterion) {
    let folder = std::env::temp_dir();
    eprintln!(
        "dedup: files of {FILE_BYTES} bytes, synced, in {} (TMPDIR moves them)",
        folder.display()
    );
    let file = noise(0, FILE_BYTES);
    let mut group = c.benchmark_group("dedup, 32 MiB a file");
    group.measurement_time(Duration::from_secs(10)).sample_size(10);
    group.throughput(Throughput::Bytes(FILE_BYTES as u64));
    group.bench_function("bare SHA-256", |b| b.iter(|| Sha256::digest(black_box(&file))));
    group.bench_function("bare BLAKE3", |b| b.iter(|| blake3::hash(black_box(&file))));
    group.bench_function("bare FastCDC", |b| b.iter(|| chunk_all(black_box(&file))));
    let dir = tempfile::tempdir().expect("a folder");
    let db = Database::open(dir.path()).expect("it opens");
    let ws = db.workspace("main").expect("a name");
    store(&ws, &file);
    let mut seed = 0;
    let mut next = || {
        seed += 1;
        seed
    };
    group.bench_function("new", |b| {
        b.iter_batched(
            || noise(next(), FILE_BYTES),
            |new| assert!(store(&ws, &new) >= FILE_BYTES as u64),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("edited in 10 places", |b| {
        b.iter_batched(
            || edited(&file, next()),
            |new| assert!(store(&ws, &new) < FILE_BYTES as u64 / 8),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("there already", |b| b.iter(|| assert_eq!(store(&ws, &file), 0)));
    group.finish();
    db.close().expect("it closes");
}

criterion_group!(benches, dedup);
criterion_main!(benches);
