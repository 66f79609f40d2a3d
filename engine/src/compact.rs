//! Compacting a store that nobody has open: everything that otherwise happens now and then beside
//! the writes, at once.

use std::path::Path;
use std::time::Duration;

use lastword_store::{FileKind, HeaderKind, read_header};

use crate::directory::Directory;
use crate::error::Result;
use crate::open::{self, AsIs};
use crate::upkeep;

/// A segment with more bytes than this is ended, so that what it holds can be folded away.
const SEGMENT_BYTES: u64 = 4096;

/// Bytes of a directory's files, by what they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The log.
    pub log: u64,
    /// What older parts of the log were folded into.
    pub base: u64,
    /// The state.
    pub state: u64,
    /// Stored files, which compacting leaves as they are.
    pub packs: u64,
    /// Space kept ready.
    pub spares: u64,
}

impl Sizes {
    /// Bytes of all files.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.log + self.base + self.state + self.packs + self.spares
    }
}

/// What compacting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactReport {
    /// Sizes before.
    pub before: Sizes,
    /// Sizes after.
    pub after: Sizes,
    /// There was something to fold.
    pub folded: bool,
    /// First position of the log that can still be read.
    pub first_position: u64,
}

/// Folds the log of the store in `dir`, of a device or a server, which no process has open, and
/// makes its state file anew. Every version of a record that is not older than `history`, and what
/// the server has not decided, stays readable, so only what was folded longer ago than that leaves
/// the log. With `rebuild_state` the state is not taken over but folded from the log.
///
/// # Errors
/// [`crate::Error::NoStore`], [`crate::Error::Lock`] if another process has the store open,
/// [`crate::Error::Store`] if it is damaged or the disk is full; then nothing is lost.
pub fn compact(dir: &Path, history: Duration, rebuild_state: bool) -> Result<CompactReport> {
    let before = sizes(dir)?;
    let as_is = AsIs { rebuild_state, segment_size: Some(SEGMENT_BYTES), adopt_packs: false };
    let (_, mut store) = open::open_as_is(dir, &as_is)?;
    let folded = upkeep::fold_now(&mut store, history);
    let first_position = store.view_handle().first_position();
    store.close()?;
    Ok(CompactReport { before, after: sizes(dir)?, folded: folded?, first_position })
}

fn sizes(dir: &Path) -> Result<Sizes> {
    let directory = Directory::look(dir)?;
    let mut sizes = Sizes::default();
    for file in directory.disk.list()? {
        let place = match file.kind {
            FileKind::State => &mut sizes.state,
            FileKind::Spare => &mut sizes.spares,
            // An unreadable one that is no pack would have kept the store from opening.
            FileKind::Pack | FileKind::Unreadable => &mut sizes.packs,
            FileKind::Log => {
                let header = read_header(file.number, &*directory.disk.open(file.number)?)?;
                match header.map(|header| header.kind) {
                    Some(HeaderKind::Base) => &mut sizes.base,
                    _ => &mut sizes.log,
                }
            }
        };
        *place += file.len;
    }
    Ok(sizes)
}
