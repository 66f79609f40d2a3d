//! How long the disk takes to make a small write durable.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::Result;
use crate::measure::nanoseconds;

const SYNCS: usize = 1000;
/// About a frame with one message.
const WRITE_BYTES: usize = 640;

/// Nanoseconds of each write and fdatasync of a file that was written before, as a log is.
pub(crate) fn syncs(dir: &Path) -> Result<Vec<u64>> {
    let path = dir.join("fdatasync");
    let file = File::create(&path)?;
    file.write_all_at(&vec![0; SYNCS * WRITE_BYTES], 0)?;
    file.sync_all()?;
    let bytes = [7; WRITE_BYTES];
    let mut all = Vec::with_capacity(SYNCS);
    for at in 0..SYNCS {
        let begun = Instant::now();
        file.write_all_at(&bytes, (at * WRITE_BYTES) as u64)?;
        file.sync_data()?;
        all.push(nanoseconds(begun.elapsed()));
    }
    std::fs::remove_file(path)?;
    Ok(all)
}
