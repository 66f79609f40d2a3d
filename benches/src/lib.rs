//! What the benches share: one kind of record, and databases full of it.
//!
//! Files go to the system's temporary folder (`TMPDIR` moves them), so a figure says as much about
//! its disk as about us: compare figures of one run only.

use lastword::{Database, Index, Result, Table, Workspace};
use serde::{Deserialize, Serialize};

/// A chat message of usual size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// Its key.
    pub id: String,
    /// The thread it belongs to.
    pub thread_id: String,
    /// Its place there.
    pub index: i64,
    /// [`BODY_BYTES`] of text.
    pub body: String,
}

/// The messages.
pub const MESSAGES: Table<Message> = Table::new("messages", "id");
/// Messages of a thread in order.
pub const BY_THREAD: Index<Message> = MESSAGES.index("by_thread", &["thread_id", "index"]);

/// Text in each message, in bytes.
pub const BODY_BYTES: usize = 400;
/// Messages in each thread.
pub const THREAD_MESSAGES: u64 = 100;

/// Message number `number`.
#[must_use]
pub fn message(number: u64) -> Message {
    Message {
        id: format!("m{number:09}"),
        thread_id: format!("t{:07}", number / THREAD_MESSAGES),
        index: i64::try_from(number % THREAD_MESSAGES).unwrap_or_default(),
        body: "lorem ipsum ".repeat(BODY_BYTES / 12 + 1).chars().take(BODY_BYTES).collect(),
    }
}

/// Says on stderr what the figures of `bench` depend on and Criterion does not print: the size of a
/// record, the folder and the processors of this machine.
pub fn print_settings(bench: &str, batches: &str) {
    let folder = std::env::temp_dir();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    eprintln!(
        "{bench}: records with {BODY_BYTES} bytes of text, {batches}, every batch synced, files in \
         {} (TMPDIR moves them), {processors} processors",
        folder.display()
    );
}

/// Opens the database in `dir`, with the index.
///
/// # Errors
/// Those of [`lastword::Builder::open`].
pub fn open(dir: &std::path::Path) -> Result<(Database, Workspace)> {
    let max_undecided = u64::MAX;
    let builder = Database::builder().tables(MESSAGES).index(BY_THREAD);
    let db = builder.max_undecided(max_undecided).open(dir)?;
    let ws = db.workspace("main")?;
    Ok((db, ws))
}

/// Writes `count` messages from number `from` as one batch.
///
/// # Errors
/// Those of [`Workspace::write`].
pub fn write(ws: &Workspace, from: u64, count: u64) -> Result<()> {
    ws.write(|tx| (from..from + count).try_for_each(|n| tx.put(MESSAGES, &message(n)))).map(drop)
}
