//! The points at which the engine tells an app what happens, and what it tells.
//!
//! ```
//! use lastword::{Database, hook};
//!
//! # let dir = tempfile::tempdir()?;
//! # let db = Database::open(dir.path().join("db"))?;
//! db.hooks().action(hook::SYNC_CONFLICT_DETECTED, |lost| {
//!     println!("{}/{} was overwritten", lost.conflict.table, lost.conflict.key);
//! })?;
//! assert_eq!(hook::SYNC_ERROR.to_string(), "sync.error:action");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Hooks run on a thread of their own, one after the other, after what they tell of. They cannot
//! change or stop it; while one is slow, events of the others wait, up to
//! [`MAX_WAITING_EVENTS`](crate::MAX_WAITING_EVENTS) of them. A panic in one is caught and told as
//! [`SYNC_ERROR`]. An event of which nobody wants to hear costs nothing.

use std::sync::Arc;

use lastword_core::hash::BlobHash;
use lastword_core::id::{BatchId, WorkspaceName};
use lastword_core::op::Batch;
use lastword_core::stamp::Decision;

use crate::hooks::{Filter, Hook};
use crate::tables::Conflict;

/// A batch is about to be sent; again for each time that it is.
pub const SYNC_PUSH_BEFORE: Hook<Pushing> = Hook::new("sync.push:action:before");
/// The verdict on a batch is durable on this device.
pub const SYNC_PUSH_AFTER: Hook<Pushed> = Hook::new("sync.push:action:after");
/// A page of changes is durable on this device.
pub const SYNC_PULL_AFTER: Hook<Pulled> = Hook::new("sync.pull:action:after");
/// Something that this device wrote gave way to another's write: once for each conflict, also if
/// the process ended in between, and kept until a hook has heard of it or the conflict expires.
pub const SYNC_CONFLICT_DETECTED: Hook<Lost> = Hook::new("sync.conflict:action:detected");
/// A workspace cannot sync now, or a hook panicked.
pub const SYNC_ERROR: Hook<Failed> = Hook::new("sync.error:action");
/// A write was refused because too many batches wait for the server.
pub const SYNC_QUEUE_FULL: Hook<QueueFull> = Hook::new("sync.queue:action:full");

/// A file is about to be uploaded; again for each time that it is tried.
pub const UPLOAD_BEFORE: Hook<Carrying> = Hook::new("storage.files.upload:action:before");
/// A file is at the server.
pub const UPLOAD_AFTER: Hook<Carried> = Hook::new("storage.files.upload:action:after");
/// A file is about to be downloaded; again for each time that it is tried.
pub const DOWNLOAD_BEFORE: Hook<Carrying> = Hook::new("storage.files.download:action:before");
/// A file is here.
pub const DOWNLOAD_AFTER: Hook<Carried> = Hook::new("storage.files.download:action:after");
/// Garbage among files was collected, or looked at.
pub const GC_RUN: Hook<GcRan> = Hook::new("storage.files.gc:action:run");
/// Whether a file may be uploaded. Asked on the thread that would upload it, each time it is tried;
/// what it says instead of agreeing is the error of the transfer, which fails.
pub const UPLOAD_POLICY: Filter<Carrying> = Filter::new("storage.files.upload:filter:policy");

/// What [`UPLOAD_BEFORE`] and [`DOWNLOAD_BEFORE`] tell, and what [`UPLOAD_POLICY`] judges by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrying {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The file.
    pub hash: BlobHash,
    /// Its length in bytes; 0 while it is not known.
    pub size_bytes: u64,
    /// Its media type as its row has it; empty if it has no row.
    pub mime_type: String,
    /// Its name as its row has it; empty if it has no row.
    pub name: String,
}

/// What [`UPLOAD_AFTER`] and [`DOWNLOAD_AFTER`] tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The file.
    pub hash: BlobHash,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Bytes that were sent or received in the last attempt; the others were there.
    pub moved_bytes: u64,
}

/// What [`GC_RUN`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcRan {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// It looked, and changed nothing.
    pub dry_run: bool,
    /// Bytes of files that went.
    pub dropped_bytes: u64,
    /// Bytes of chunks that went, as they were stored.
    pub freed_bytes: u64,
}

/// What [`SYNC_PUSH_BEFORE`] tells.
#[derive(Debug, Clone)]
pub struct Pushing {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The batch as it is sent.
    pub batch: Arc<Batch>,
}

/// What [`SYNC_PUSH_AFTER`] tells.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The batch.
    pub batch_id: BatchId,
    /// What was decided; of a batch that went down with a refused one, that one's refusal.
    pub decision: Decision,
}

/// What [`SYNC_PULL_AFTER`] tells.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Rows of the page, those of the product's tables included.
    pub rows: u64,
    /// Last consistent seq applied.
    pub cursor: u64,
    /// True if what came with the page is visible; false while more of it is to come.
    pub is_consistent: bool,
}

/// What [`SYNC_CONFLICT_DETECTED`] tells.
#[derive(Debug, Clone)]
pub struct Lost {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Key of the row of `_conflicts`.
    pub key: String,
    /// The row.
    pub conflict: Conflict,
}

/// What [`SYNC_ERROR`] tells.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The workspace that cannot sync; none if it is about all of them, or about a hook.
    pub workspace: Option<WorkspaceName>,
    /// For people: what is wrong.
    pub message: String,
}

/// What [`SYNC_QUEUE_FULL`] tells.
#[derive(Debug, Clone)]
pub struct QueueFull {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Batches that wait for the server.
    pub batches: u64,
    /// How many may.
    pub limit: u64,
}
