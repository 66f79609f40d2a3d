//! The oplog: frames in segments, written in groups, recovered after a crash.

mod frame;
mod segment;
mod walk;
mod reader;
mod writer;
mod base;
mod recovery;

pub use base::Mark;
pub(crate) use base::{BaseFile, BaseWriter};
pub(crate) use frame::{
    FIRST_FREE_KIND, FrameHead, PACK_BLOB, PACK_CHUNK, PACK_DROPPED, PACK_OPEN,
    decode as decode_frame, encode_parts as encode_frame, frame_len,
};
pub use frame::{FrameRef, OwnedFrame};
pub(crate) use reader::{LogReader, Scan};
pub(crate) use recovery::{
    LogFiles, Recovered, check_base, check_reaches, check_readable, check_start, create,
    create_behind, examine, load, orphan_packs, recover, settle_first, torn_tail,
};
pub(crate) use segment::{Entropy, Segment, Template};
pub use writer::{Commit, CommitDone};
pub(crate) use writer::{Durable, Writer, WriterOptions};
