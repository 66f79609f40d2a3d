//! The sync protocol: messages and the two sessions that speak it, without any I/O.
//!
//! One law drives both sessions: feed one input, drain all outputs, wait. `docs/protocol.md` has
//! the messages byte by byte and the order in which they may come.

pub mod entry;
pub mod history;
pub mod walk;
pub mod message;
pub mod objects;
pub mod files;
mod retry;
pub mod authority;
pub mod replica;

pub use entry::Entry;
pub use files::{FileMessage, FileRefusal};
pub use history::{History, HistoryRest, HistoryVersion, ReadHistory, VersionKind};
pub use message::{
    Attach, AttachRefusal, Attached, Changes, Decided, ErrorCode, Hello, Message, Notice,
    ResetReason, Role, Survivors, Welcome,
};
pub use objects::{ObjectMessage, SignedUrl};
pub use walk::{WalkPage, WalkPlace};

/// The WebSocket subprotocol of this version.
pub const SUBPROTOCOL: &str = "lastword.v1";
/// The WebSocket subprotocol of connections that carry files.
pub const FILES_SUBPROTOCOL: &str = "lastword.files.v1";
/// The first version of the protocol, of which everything is still understood.
pub const FIRST_VERSION: u64 = 1;
/// The newest version of the protocol; every one since 1 is understood. With 2, whoever has nothing
/// of a workspace gets its rows by a walk.
pub const VERSION: u64 = 2;
/// The newest version of what is said where files are carried; every one since 1 is understood.
/// With 2, files may be kept by an object store.
pub const FILES_VERSION: u64 = 2;
