//! Files that are to be uploaded or downloaded, as rows of `file_transfers`, a table of each
//! workspace that never leaves the device.
//!
//! A row is written in the same batch as what makes a transfer necessary and goes when the transfer
//! has ended well. In between it says how far that is; whoever wants it paused or gone says so in
//! the row, and whoever carries the file looks there.

#[cfg(feature = "net")]
use std::collections::BTreeSet;
#[cfg(feature = "net")]
use std::sync::PoisonError;
use std::sync::{Condvar, Mutex};
#[cfg(feature = "net")]
use std::time::Duration;

use lastword_core::hash::BlobHash;
#[cfg(feature = "net")]
use lastword_core::id::WorkspaceName;
use lastword_core::id::{Key, TableName};
use lastword_core::value::{Field, Record, Value};
use serde::{Deserialize, Serialize};

use crate::convert;
use crate::error::Result;
use crate::live::lock;
use crate::schema::{FILE_TRANSFERS_TABLE, Table};
use crate::write::Tx;

/// Files that are to be uploaded or downloaded, one row each until that has ended well; the key is
/// the direction, a colon and the hash. It never leaves the device.
pub const FILE_TRANSFERS: Table<Transfer> = Table::new(FILE_TRANSFERS_TABLE, "");

/// A row of [`FILE_TRANSFERS`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Transfer {
    /// Hash of the file.
    pub hash: String,
    /// Where it goes.
    pub direction: Direction,
    /// How it stands.
    pub state: TransferState,
    /// Bytes of the file that are where they go, those that were there before too.
    pub bytes_done: u64,
    /// Its length; 0 while it is not known.
    pub bytes_total: u64,
    /// How often it was tried.
    pub attempts: u64,
    /// Why the last attempt did not end well, for people.
    #[serde(default)]
    pub last_error: Option<String>,
    /// When it is tried again, milliseconds since 1970 UTC.
    #[serde(default)]
    pub retry_ms: i64,
    /// When it was queued, milliseconds since 1970 UTC.
    pub queued_ms: i64,
    /// Those of a lower number go first: 0 for thumbnails, else 1.
    #[serde(default)]
    pub rank: u64,
    /// Hashes of the parts that have come, in order, of a file that comes from an object store.
    #[serde(default)]
    pub parts: Vec<String>,
}

impl Transfer {
    /// What a row says; none if it is not one of ours: anything may write the table.
    pub(crate) fn of(key: &Key, record: &Record) -> Option<Self> {
        let transfer: Self = convert::from_record(record).ok()?;
        let hash = BlobHash::new(&transfer.hash).ok()?;
        (key_of(transfer.direction, &hash) == *key).then_some(transfer)
    }

    /// True while it is to be carried.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.state, TransferState::Queued | TransferState::Running)
    }
}

/// Where a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the server.
    Upload,
    /// To this device.
    Download,
}

impl Direction {
    /// As rows and commands have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Upload => "upload",
            Direction::Download => "download",
        }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a transfer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransferState {
    /// It waits for its turn, for a server, or for the time of its next attempt.
    Queued,
    /// It is under way; after the process was killed it goes on with the next connection.
    Running,
    /// The app stopped it; what was carried stays.
    Paused,
    /// Trying again would not help: the last error says what would.
    Failed,
    /// The app has given the upload up.
    Canceled,
}

impl TransferState {
    /// As rows and commands have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            TransferState::Queued => "queued",
            TransferState::Running => "running",
            TransferState::Paused => "paused",
            TransferState::Failed => "failed",
            TransferState::Canceled => "canceled",
        }
    }
}

impl std::fmt::Display for TransferState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(crate) fn table() -> TableName {
    TableName::new(FILE_TRANSFERS_TABLE).expect("invariant: the name is valid")
}

pub(crate) fn key_of(direction: Direction, hash: &BlobHash) -> Key {
    Key::new(&format!("{direction}:{hash}")).expect("invariant: a hash is a key")
}

/// Queues a transfer anew, from the beginning of its attempts.
pub(crate) fn queue(
    tx: &mut Tx,
    direction: Direction,
    hash: &BlobHash,
    (bytes_total, rank): (u64, u64),
    now_ms: i64,
) -> Result<()> {
    let int = |value: u64| Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
    let record = Record::new(&[
        ("hash".into(), Value::Text(hash.to_string())),
        ("direction".into(), Value::Text(direction.as_str().into())),
        ("state".into(), Value::Text(TransferState::Queued.as_str().into())),
        ("bytes_done".into(), Value::Int(0)),
        ("bytes_total".into(), int(bytes_total)),
        ("attempts".into(), Value::Int(0)),
        ("retry_ms".into(), Value::Int(0)),
        ("queued_ms".into(), Value::Int(now_ms)),
        ("rank".into(), int(rank)),
    ])?;
    tx.put_record(&table(), &key_of(direction, hash), record)
}

/// What changes in a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) state: Option<TransferState>,
    pub(crate) bytes: Option<(u64, u64)>,
    pub(crate) attempts: Option<u64>,
    pub(crate) last_error: Option<String>,
    pub(crate) retry_ms: Option<i64>,
    pub(crate) parts: Option<Vec<String>>,
}

impl Change {
    /// Changes the row of a transfer that is to be carried: whoever has paused it, or taken it
    /// away, meanwhile is right. False then.
    pub(crate) fn apply_to_pending(&self, tx: &mut Tx, key: &Key) -> Result<bool> {
        let known = tx.get_record(&table(), key)?.and_then(|record| Transfer::of(key, &record));
        let is_pending = known.is_some_and(|known| known.is_pending());
        if is_pending {
            self.apply(tx, key)?;
        }
        Ok(is_pending)
    }

    pub(crate) fn apply(&self, tx: &mut Tx, key: &Key) -> Result<()> {
        let int = |value: u64| Value::Int(i64::try_from(value).unwrap_or(i64::MAX));
        let mut set = Vec::new();
        let mut field = |name, value: Value| set.push(Field::new(name, &value));
        if let Some(state) = self.state {
            field("state", Value::Text(state.as_str().into()));
        }
        if let Some((done, total)) = self.bytes {
            field("bytes_done", int(done));
            field("bytes_total", int(total));
        }
        if let Some(attempts) = self.attempts {
            field("attempts", int(attempts));
        }
        if let Some(error) = &self.last_error {
            field("last_error", Value::Text(error.clone()));
        }
        if let Some(retry_ms) = self.retry_ms {
            field("retry_ms", Value::Int(retry_ms));
        }
        if let Some(parts) = &self.parts {
            field("parts", Value::List(parts.iter().cloned().map(Value::Text).collect()));
        }
        tx.patch_record(&table(), key, set, Vec::new())
    }
}

/// Where those who carry files hear that there is something to carry, and say what they have taken
/// on: each transfer has one carrier, however many connections there are.
#[derive(Debug, Default)]
pub(crate) struct TransferBoard {
    bell: Mutex<Bell>,
    changed: Condvar,
    #[cfg(feature = "net")]
    claimed: Mutex<BTreeSet<(WorkspaceName, Key)>>,
}

/// How often those who carry were woken.
#[derive(Debug, Default, Clone, Copy)]
struct Bell {
    rung: u64,
    /// Of those: because rows are others, or can be carried now.
    asked: u64,
}

impl TransferBoard {
    /// Those who carry look at the rows again.
    pub(crate) fn ask(&self) {
        let mut bell = lock(&self.bell);
        bell.rung += 1;
        bell.asked += 1;
        drop(bell);
        self.changed.notify_all();
    }
}

#[cfg(feature = "net")]
impl TransferBoard {
    /// How often it was rung.
    pub(crate) fn rung(&self) -> u64 {
        lock(&self.bell).rung
    }

    /// How often somebody has asked for a look at the rows.
    pub(crate) fn asked(&self) -> u64 {
        lock(&self.bell).asked
    }

    /// Waits until it is rung after `heard`, or for `timeout`.
    pub(crate) fn wait_after(&self, heard: u64, timeout: Duration) {
        let bell = lock(&self.bell);
        let waited = self.changed.wait_timeout_while(bell, timeout, |bell| bell.rung == heard);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes a transfer on; false if somebody has.
    pub(crate) fn claim(&self, workspace: &WorkspaceName, key: &Key) -> bool {
        lock(&self.claimed).insert((workspace.clone(), key.clone()))
    }

    /// Lets a transfer go.
    pub(crate) fn release(&self, workspace: &WorkspaceName, key: &Key) {
        lock(&self.claimed).remove(&(workspace.clone(), key.clone()));
        lock(&self.bell).rung += 1;
        self.changed.notify_all();
    }
}
