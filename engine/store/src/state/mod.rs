//! The state: what the frames fold to, newest in memory, the rest in redb.

mod checkpoint;
mod delta;
mod dump;
mod file;
mod live;
mod rows;
mod scan;
mod space;
mod spread;
mod sums;
mod tables;
mod txn;
mod view;
mod whole;

pub use checkpoint::{CheckpointDone, CheckpointJob, Retired, Slice};
pub(crate) use delta::Delta;
pub(crate) use dump::{Dump, Merged};
pub(crate) use file::{OpenState, create_state, open_state, peek_state};
pub(crate) use live::LiveState;
pub use scan::{KeyValue, Scan};
pub use space::{Direction, KeyRange, Space};
pub use sums::{SpaceSum, StateSums};
pub use tables::OldViews;
pub(crate) use tables::{Base, DeltaPlace, Watermark, digest};
pub use txn::{Apply, PutRow, StateTxn};
pub use view::View;
pub(crate) use whole::small_spaces_are_whole;
