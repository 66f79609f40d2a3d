//! How much memory a file takes on its way in and out. A binary of its own, since it counts in the
//! allocator and nothing else may run beside it.

// A helper of a test fails the test as the test itself would.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "store/blob_support.rs"]
mod blobs;

use std::io::Read;
use std::sync::Arc;

use lastword_store::apply::ApplyPayload;
use lastword_store::blobs::BlobReader;
use lastword_store::{DirLock, Options, RealDisk, Store};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SIZE: u64 = 192 << 20;
const MAX_MEMORY: usize = 12 << 20;

/// Endless bytes that look random.
struct Noise(blake3::OutputReader);

impl Noise {
    fn new() -> Self {
        Noise(blake3::Hasher::new().update(b"large").finalize_xof())
    }
}

impl Read for Noise {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.0.fill(out);
        Ok(out.len())
    }
}

/// R10, B2: a file goes in and comes out in bounded memory, whatever its size.
#[test]
fn a_large_file_takes_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { entropy: [7; 32], ..Options::default() };
    let lock = DirLock::acquire(dir.path()).unwrap();
    let disk = Arc::new(RealDisk::open(lock, options.zero_step).unwrap());
    let (mut store, _) = Store::open(disk, options, Arc::new(ApplyPayload::default())).unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let (blob, new) = blobs::put(&mut store, Noise::new().take(SIZE)).unwrap();
    let peak_in = MEMORY.peak_usage() - before;
    assert!(blob.size == SIZE && new > SIZE);
    MEMORY.reset_peak_usage();
    let mut reader = BlobReader::open(store.blobs(), &blobs::workspace(), &blob.sha256).unwrap();
    let (mut at, mut expected) = (0, Noise::new());
    while at < SIZE {
        let chunk = reader.read_from(at).unwrap();
        let mut again = vec![0; chunk.len()];
        expected.read_exact(&mut again).unwrap();
        assert!(chunk == again, "at {at}");
        at += chunk.len() as u64;
    }
    let peak_out = MEMORY.peak_usage() - before;
    eprintln!("{} MiB: {peak_in} bytes of memory in, {peak_out} out", SIZE >> 20);
    assert!(peak_in < MAX_MEMORY && peak_out < MAX_MEMORY, "{peak_in} in, {peak_out} out");
}
