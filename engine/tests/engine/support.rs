//! Types, tables and shorthand of the tests.

use std::path::Path;
use std::sync::Arc;

use lastword::store::apply::ApplyPayload;
use lastword::store::payload::Payload;
use lastword::store::{DirLock, Options, RealDisk, Store};
use lastword::{Database, Index, Table, Workspace};
use serde::{Deserialize, Serialize};

/// A message of a chat.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) thread_id: String,
    pub(crate) index: i64,
    pub(crate) body: String,
}

pub(crate) const MESSAGES: Table<Message> = Table::new("messages", "id");
pub(crate) const DRAFTS: Table<Message> = Table::new("drafts", "id").local();

pub(crate) const BY_THREAD: Index<Message> = MESSAGES.index("by_thread", &["thread_id", "index"]);

pub(crate) fn message(id: &str, thread: &str, index: i64) -> Message {
    Message { id: id.into(), thread_id: thread.into(), index, body: format!("body of {id}") }
}

/// A new database in a directory that vanishes with the test.
pub(crate) struct Fixture {
    pub(crate) ws: Workspace,
    pub(crate) db: Database,
    pub(crate) dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        let ws = db.workspace("main").unwrap();
        Self { ws, db, dir }
    }
}

pub(crate) fn open(dir: &Path) -> Database {
    Database::builder().tables((MESSAGES, DRAFTS)).index(BY_THREAD).open(dir.join("db")).unwrap()
}

/// Appends frames to the log of a closed database, as a sync session would.
pub(crate) fn append_frames(dir: &Path, frames: &[Payload]) {
    let lock = DirLock::acquire(dir.join("db")).unwrap();
    let disk = Arc::new(RealDisk::open(lock, Options::default().zero_step).unwrap());
    let apply = Arc::new(ApplyPayload::default());
    let (mut store, _) = Store::open(disk, Options::default(), apply).unwrap();
    for frame in frames {
        store.append(frame.kind(), &frame.to_bytes()).unwrap();
    }
    store.close().unwrap();
}
