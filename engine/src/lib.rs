//! Lastword: an embedded sync database in which the server has the last word.
//!
//! An app embeds one engine. It stores records locally, works offline, and keeps them in step with
//! other devices through a server that stamps the order of every write: the last write wins, and
//! every conflict is recorded with both values. Nothing acknowledged is lost.
//!
//! ```
//! use lastword::core::id::{Key, TableName};
//! use lastword::core::json;
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("chat.lastword");
//! let db = lastword::Database::open(&dir)?; // local and blocking; needs no network
//! let ws = db.workspace("acme")?; // works before a server has heard of it
//! let (notes, n1) = (TableName::new("notes")?, Key::new("n1")?);
//!
//! // One closure is one atomic batch; it is durable when this returns.
//! ws.write(|tx| tx.put_record(&notes, &n1, json::parse_record(r#"{"text": "hi"}"#)?))?;
//!
//! let shown = ws.get_record(&notes, &n1)?.expect("just written");
//! assert_eq!(json::record_to_string(&shown.record)?, r#"{"text":"hi"}"#);
//! assert!(shown.is_pending()); // no server has decided it yet
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To sync, call [`Database::connect`]. To serve, open an [`Authority`].
//!
//! Modules from lowest to highest; each uses only those above it in this list.

mod environment;
mod error;
mod convert;
mod schema;
mod query;
mod tables;
mod open;
mod writer;
mod write;
mod history;
mod log;
mod dead_letter;
mod live;
mod database;
mod view;
mod workspace;
mod typed;
mod watch;
mod status;
mod authority;
mod replicator;
#[cfg(feature = "net")]
mod sync;

pub use lastword_core as core;
pub use lastword_store as store;

pub use authority::{AttachRequest, Authority, AuthorityStatus, PushGate};
pub use database::{Builder, DEFAULT_MAX_UNDECIDED, Database};
pub use dead_letter::DeadLetter;
pub use environment::now_ms;
pub use error::{Error, Result};
pub use history::Version;
pub use lastword_core::protocol::authority::PushAnswer;
pub use lastword_core::protocol::replica::{StopReason, SyncStatus};
pub use log::LogLine;
pub use query::{IndexPrefix, IndexValue, Query};
pub use schema::{Index, Table, TableSet};
pub use status::{Explanation, ServerVersion, ShownState, Waiting, WorkspaceStatus, verdict_word};
#[cfg(feature = "net")]
pub use sync::{Remote, Sync, SyncFailure, SyncReport};
pub use tables::{CONFLICTS, Conflict, ConflictField, DEAD_LETTERS, RefusedBatch};
pub use typed::Row;
pub use view::{Shown, WorkspaceView};
pub use watch::{Diff, Live, LiveRecords, RecordChange};
pub use workspace::{Receipt, Settled, Workspace};
pub use write::Tx;
