//! Types, tables and shorthand of the tests.

use std::path::Path;

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
    pub(crate) dir: tempfile::TempDir,
    pub(crate) db: Database,
    pub(crate) ws: Workspace,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        let ws = db.workspace("main").unwrap();
        Self { dir, db, ws }
    }
}

pub(crate) fn open(dir: &Path) -> Database {
    Database::builder().tables((MESSAGES, DRAFTS)).index(BY_THREAD).open(dir.join("db")).unwrap()
}
