//! The parts of the comparison, each with its table and its goals.

mod commits;
mod reads;
mod rebuild;
mod reopen;
mod scan;
mod stall;
mod sustained;

use std::path::PathBuf;

pub(crate) use self::commits::{batches, single, writers};
pub(crate) use self::reads::reads;
pub(crate) use self::rebuild::rebuild;
pub(crate) use self::reopen::{fill, reopen};
pub(crate) use self::scan::scan;
pub(crate) use self::stall::stall;
pub(crate) use self::sustained::sustained;

/// What a part is told.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// An empty folder of its own.
    pub(crate) dir: PathBuf,
    pub(crate) rounds: usize,
    /// Rows of the large store.
    pub(crate) rows: u64,
}
