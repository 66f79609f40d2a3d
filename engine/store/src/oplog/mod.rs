//! The oplog: frames in segments, written in groups, recovered after a crash.

mod frame;
mod reader;
mod recovery;
mod segment;
mod writer;

pub(crate) use frame::FIRST_FREE_KIND;
pub use frame::{FrameRef, OwnedFrame};
pub(crate) use reader::LogReader;
pub(crate) use recovery::{Recovered, check_reaches, create, load, recover};
pub(crate) use segment::{Entropy, Segment};
pub use writer::{Commit, CommitDone};
pub(crate) use writer::{Durable, Writer, WriterOptions};
