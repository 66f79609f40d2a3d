//! The state: what the frames fold to, newest in memory, the rest in redb.

mod checkpoint;
mod delta;
mod live;
mod scan;
mod space;
mod tables;
mod txn;
mod view;

pub use checkpoint::{CheckpointDone, CheckpointJob};
pub(crate) use live::LiveState;
pub use scan::{KeyValue, Scan};
pub use space::{Direction, KeyRange, Space};
pub(crate) use tables::{Watermark, open_tables};
pub use txn::{Apply, StateTxn};
pub use view::View;
