//! Folding: a prefix of the log becomes a base, and what the base stands for goes.
//!
//! A fold dumps the rows of the last checkpoint. The dump must have the sums that the checkpoint
//! counted, else the state is made anew from the old base and the log. Nothing is removed before
//! the new base counts.

mod job;
mod load;
mod replay;
mod rebuild;
mod rows;

pub(crate) use job::Folded;
pub(crate) use job::marks_with;
pub use job::{FoldDone, FoldJob};
pub(crate) use load::load;
pub(crate) use rebuild::Source;
pub use rebuild::{RebuildDone, RebuildJob};
pub(crate) use replay::Replay;
pub(crate) use rows::{count_rows, visit_rows};
