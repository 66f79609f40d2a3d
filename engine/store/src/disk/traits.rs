//! The two traits between the store and its medium.

use std::fmt;
use std::sync::Arc;

use crate::error::DiskError;

/// What a file is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A segment or base of the oplog.
    Log,
    /// Blob chunks.
    Pack,
    /// The redb file.
    State,
    /// Zeros, waiting to be used.
    Spare,
    /// Its header cannot be read, so that nobody knows.
    Unreadable,
}

/// One file of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Its number; numbers rise and are not used twice while the disk is open.
    pub number: u64,
    /// What it is used for.
    pub kind: FileKind,
    /// Its length in bytes.
    pub len: u64,
}

/// A directory of numbered files, held by one process.
pub trait Disk: fmt::Debug + Send + Sync {
    /// All files, by rising number. One whose header cannot be read although its body holds data
    /// is [`FileKind::Unreadable`]: whether it is needed, others know.
    fn list(&self) -> Result<Vec<FileInfo>, DiskError>;

    /// Hands over a durable file of written zeros, as long as `keep` others are there or can be
    /// made; the caller writes its header. What frees space keeps none, so that it works on a full
    /// disk. Errors: [`DiskError::NoSpare`].
    fn take_spare(&self, keep: usize) -> Result<u64, DiskError>;

    /// Makes an empty file for redb and returns its number.
    fn create_state(&self) -> Result<u64, DiskError>;

    /// Opens a file. Errors: [`DiskError::NotFound`].
    fn open(&self, number: u64) -> Result<Arc<dyn File>, DiskError>;

    /// Opens a file of which nothing is written. Errors: [`DiskError::NotFound`].
    fn open_to_read(&self, number: u64) -> Result<Arc<dyn File>, DiskError> {
        self.open(number)
    }

    /// Removes a file; handles that are open go on working until they are dropped. Errors:
    /// [`DiskError::NotFound`] if there is none any more.
    fn remove(&self, number: u64) -> Result<(), DiskError>;

    /// Bytes left on the medium, if it can tell.
    fn free_bytes(&self) -> Option<u64>;
}

/// One open file. All methods may be called from several threads.
pub trait File: fmt::Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> Result<u64, DiskError>;

    /// Bytes that it takes on the disk: less than its length where it has holes and the system
    /// says so.
    fn allocated(&self) -> Result<u64, DiskError> {
        self.len()
    }

    /// Whether the file has no bytes.
    fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from byte `offset`; a short read is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Writes all of `buf` at byte `offset`.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError>;

    /// Cuts the file, or grows it by zeros. In log files and packs the zeros are written, so that
    /// a later write in that range changes no metadata; for redb they may be a hole.
    fn set_len(&self, len: u64) -> Result<(), DiskError>;

    /// Returns when everything written before is durable.
    fn sync(&self) -> Result<(), DiskError>;

    /// Begins a sync whose result is in the ticket.
    fn start_sync(self: Arc<Self>) -> Ticket {
        Ticket::finished(self.sync())
    }
}

/// A sync under way.
#[must_use = "the sync may not happen before `wait` is called"]
pub struct Ticket(Work);

enum Work {
    Finished(Result<(), DiskError>),
    Deferred(Box<dyn FnOnce() -> Result<(), DiskError> + Send>),
}

impl Ticket {
    /// A sync that has ended.
    pub fn finished(result: Result<(), DiskError>) -> Self {
        Ticket(Work::Finished(result))
    }

    /// A sync that runs on the thread that waits for it.
    pub fn deferred(work: impl FnOnce() -> Result<(), DiskError> + Send + 'static) -> Self {
        Ticket(Work::Deferred(Box::new(work)))
    }

    /// Blocks until the sync has ended; may be called on any thread.
    pub fn wait(self) -> Result<(), DiskError> {
        match self.0 {
            Work::Finished(result) => result,
            Work::Deferred(work) => work(),
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Work::Finished(result) => f.debug_tuple("Finished").field(result).finish(),
            Work::Deferred(_) => f.write_str("Deferred"),
        }
    }
}
