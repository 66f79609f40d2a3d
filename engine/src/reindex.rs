//! Reindexing: what packs hold and the log does not know, after the log was lost or salvaged.

use std::path::Path;

use lastword_store::Store;
use lastword_store::blobs::{Reindex, Reindexed};
use lastword_store::payload::Payload;

use crate::environment::now_ms;
use crate::error::Result;
use crate::open::{self, AsIs};
use crate::renew;

/// Reads every pack of the store in `dir`, which no process has open, and adds to the index what is
/// there and not known: chunks, and files that were not dropped and are whole. A directory that
/// holds packs alone becomes a device's store with their files. What no record names goes with a
/// later garbage collection, as any stored file does. `progress` gets the packs that were read.
///
/// # Errors
/// [`crate::Error::NoStore`], [`crate::Error::Lock`] if another process has the store open,
/// [`crate::Error::Store`] if its log is damaged or the disk fails; run again, it goes on.
pub fn reindex(dir: &Path, progress: &mut dyn FnMut(u64)) -> Result<Reindexed> {
    let (_, mut store) = open::open_as_is(dir, &AsIs { adopt_packs: true, ..AsIs::default() })?;
    let report = reindex_store(&mut store, progress)?;
    store.close()?;
    Ok(report)
}

pub(crate) fn reindex_store(store: &mut Store, progress: &mut dyn FnMut(u64)) -> Result<Reindexed> {
    let mut reindex = Reindex::begin(store.blobs(), now_ms())?;
    while let Some(frames) = reindex.step()? {
        for frame in frames {
            renew::append(store, &Payload::Blobs(frame))?;
        }
        progress(reindex.report.packs);
    }
    Ok(reindex.report)
}
