//! Lastword: an embedded sync database in which the server has the last word.
//!
//! An app embeds one engine. It stores records locally, works offline, and keeps them in step with
//! other devices through a server that stamps the order of every write: the last write wins, and
//! every conflict is recorded with both values. Nothing acknowledged is lost.
//!
//! ```
//! use lastword::{Database, Index, Table};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Message {
//!     id: String,
//!     thread_id: String,
//!     index: i64,
//!     body: String,
//! }
//!
//! const MESSAGES: Table<Message> = Table::new("messages", "id");
//! const BY_THREAD: Index<Message> = MESSAGES.index("by_thread", &["thread_id", "index"]);
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("chat.lastword");
//! // Local and blocking; needs no network.
//! let db = Database::builder().tables(MESSAGES).index(BY_THREAD).open(&dir)?;
//! let ws = db.workspace("acme")?; // works before a server has heard of it
//! let mut live = ws.watch(&BY_THREAD.prefix("t1").rev().limit(50))?;
//! assert!(live.recv().expect("open").rows.is_empty()); // first what is there
//!
//! // One closure is one atomic batch; it is durable when this returns.
//! let hello =
//!     Message { id: "m1".into(), thread_id: "t1".into(), index: 1, body: "Hello".into() };
//! ws.write(|tx| {
//!     tx.put(MESSAGES, &hello)?;
//!     // Only the fields that changed are sent.
//!     tx.update(MESSAGES, "m1", |message| message.body.push('!'))
//! })?;
//!
//! let diff = live.recv().expect("open"); // then every change, whole batches only
//! assert_eq!(diff.rows[0].body, "Hello!");
//! let row = ws.get(MESSAGES, "m1")?.expect("just written");
//! assert!(row.is_pending()); // no server has decided it yet
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Table`] and [`Index`] say what an app stores; [`Tx`] is what a write can do.
//! - [`Query`] is a plain value: [`Workspace::query`], [`Workspace::count`], [`Workspace::watch`].
//! - [`CONFLICTS`] and [`DEAD_LETTERS`] are tables like any other.
//! - What an app does not know as a type it reads and writes as records: [`Tx::put_record`],
//!   [`Workspace::get_record`], [`Workspace::watch_records`].
//! - To sync, call [`Database::connect`]. To serve, open an [`Authority`].
//! - To test an app that syncs, use [`testing::Cluster`]: a server and devices in one process.

// Lowest first: a module uses only those above it.
mod environment;
mod error;
mod convert;
mod schema;
mod query;
mod tables;
mod purge;
mod own;
mod members;
mod survivors;
mod erase;
mod upkeep;
mod queue;
mod directory;
mod open;
mod locality;
mod writer;
mod unsent;
mod squash;
mod write;
mod history;
mod versions;
mod log;
mod dead_letter;
mod renew;
mod reindex;
mod salvage;
mod heal;
mod devices;
mod live;
mod receipt;
mod hooks;
pub mod hook;
mod transfers;
mod database;
mod raise;
mod lost;
mod view;
mod workspace;
mod retry;
mod typed;
mod watch;
mod status;
mod undo;
mod push_policy;
mod upload_policy;
mod quota;
mod file_frames;
mod file_row;
mod owned;
mod object_stores;
mod object_garbage;
mod collect;
mod files;
mod staging;
mod attach;
mod end;
mod judge;
mod adopt;
mod seen;
mod push_gate;
mod authority;
mod file_access;
mod file_counts;
mod objects;
mod transfer;
mod attachments;
mod replicator;
mod verify;
mod inspect;
mod backup;
mod restore;
mod compact;
pub mod node;
pub mod testing;
#[cfg(feature = "net")]
mod sync;

#[cfg(all(test, feature = "plant"))]
#[path = "../core/tests/core/plants.rs"]
mod plants;

pub use lastword_core as core;
pub use lastword_providers as providers;
pub use lastword_store as store;

pub use attach::{MAX_PLACEHOLDER_BYTES, Preview};
pub use attachments::{Attachments, Claim, Fenced};
pub use authority::{AttachRequest, Authority, AuthorityStatus};
pub use backup::backup;
pub use collect::{CollectOptions, Collected};
pub use compact::{CompactReport, Sizes, compact};
#[cfg(feature = "net")]
pub use database::DEFAULT_MAX_TRANSFERS;
pub use database::{Builder, DEFAULT_MAX_UNDECIDED, Database};
pub use dead_letter::DeadLetter;
pub use end::{Consent, Purged};
pub use environment::{now_ms, random_key};
pub use erase::{DEFAULT_ERASE_WITHIN, Erased};
pub use error::{Error, Result};
pub use file_access::MemberFile;
pub use file_counts::CountedFile;
pub use files::{FileInfo, FileReader, Files, FilesUsage};
pub use heal::{HealReport, OnDamage};
pub use history::{RecordHistory, Version};
pub use hooks::{Filter, Hook, Incoming, MAX_WAITING_EVENTS};
pub use inspect::{Inspected, InspectedWorkspace, inspect};
pub use lastword_core::hash::{BlobHash, ChunkId};
pub use lastword_core::protocol::authority::PushAnswer;
pub use lastword_core::protocol::replica::{StopReason, SyncStatus};
pub use lastword_store::blobs::{Fate, GcTotals, LostPack, Reindexed, Scrubbed};
pub use log::LogLine;
pub use lost::Hooks;
pub use members::{MemberChange, MemberList};
pub use object_garbage::ObjectFate;
pub use objects::{KeptObjects, ObjectCommit, ObjectFile, ObjectOffer, ObjectUpload};
pub use purge::DEFAULT_TOMBSTONES;
pub use push_gate::PushGate;
pub use push_policy::{PushRequest, PushRuling};
pub use query::{IndexPrefix, IndexValue, Query};
pub use receipt::{Receipt, Settled};
pub use reindex::reindex;
pub use renew::RestoredWorkspace;
pub use restore::{RestoreReport, restore};
pub use salvage::{LostSeqs, SalvageLoss, Salvaged, SavedBehind, salvage};
pub use schema::{Index, Table, TableSet};
pub use seen::{Seen, seen_by};
pub use staging::{Staged, Staging};
pub use status::{Explanation, ServerVersion, ShownState, Waiting, WorkspaceStatus, verdict_word};
pub use survivors::{Recovery, Survivor};
#[cfg(feature = "net")]
pub use sync::{Remote, Sync, SyncFailure, SyncReport};
pub use tables::{CONFLICTS, Conflict, ConflictField, DEAD_LETTERS, MEMBERS, Member, RefusedBatch};
pub use transfer::{
    Ended, Ending, FileService, Got, Pieces, Progress, ServiceError, Wire, download, upload,
};
pub use transfers::{Direction, FILE_TRANSFERS, Transfer, TransferState};
pub use typed::Row;
pub use undo::{RowHistory, RowVersion};
pub use upkeep::{DEFAULT_HISTORY, Keep};
pub use upload_policy::UploadRequest;
pub use verify::{Damage, Verified, VerifyStep, verify};
pub use view::{Shown, WorkspaceView};
pub use watch::{Diff, Live, LiveRecords, RecordChange};
pub use workspace::Workspace;
pub use write::{Tx, WriteOptions};
