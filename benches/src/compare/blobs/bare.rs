//! What storing cannot do without, alone on one thread: the hashes and the chunker.

use std::hint::black_box;
use std::time::Instant;

use lastword::store::blobs::Chunker;
use sha2::{Digest as _, Sha256};

use super::data::noise;
use super::process::thread_cpu_s;
use crate::Result;

const BYTES: u64 = 128 << 20;
/// BLAKE3 hashes chunks, not files.
const CHUNK_BYTES: usize = 64 << 10;

/// Seconds for a million bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

/// One primitive in one round.
pub(crate) type Bare = (&'static str, Pace);

/// Each once over the same bytes in memory.
pub(crate) fn measure() -> Result<Vec<Bare>> {
    let mut bytes = Vec::new();
    noise(99, BYTES, &mut bytes)?;
    let time = |work: &dyn Fn()| -> Result<Pace> {
        let (begun, cpu) = (Instant::now(), thread_cpu_s()?);
        work();
        let million = BYTES as f64 / 1e6;
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), thread_cpu_s()? - cpu);
        Ok(Pace { cpu: cpu / million, wall: wall / million })
    };
    Ok(vec![
        ("SHA-256", time(&|| _ = black_box(Sha256::digest(&bytes)))?),
        (
            "BLAKE3 of 64 KiB chunks",
            time(&|| {
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    black_box(blake3::hash(chunk));
                }
            })?,
        ),
        (
            "FastCDC, as Lastword cuts",
            time(&|| {
                let mut chunker = Chunker::new(&bytes[..]);
                while let Ok(Some(chunk)) = chunker.next_chunk() {
                    black_box(chunk);
                }
            })?,
        ),
    ])
}
