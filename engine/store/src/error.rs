//! The errors of the store. Each says where it happened and what to do next.

use std::path::PathBuf;
use std::sync::Arc;

use lastword_core::hash::{BlobHash, ChunkId};

/// An error of a [`Disk`](crate::Disk) or one of its files.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The operating system refused an operation.
    #[error("cannot {action} file {file} at byte {offset}: {source}")]
    Io {
        /// What was tried: `read`, `write`, `sync`, `resize`, `create`, `open`, `remove`, `list`.
        action: &'static str,
        /// File number; 0 for the directory itself.
        file: u64,
        /// Byte offset of the operation, 0 where it has none.
        offset: u64,
        /// The system's own error, shared so that every waiter can be told.
        source: Arc<std::io::Error>,
    },
    /// No prepared file is left and none can be made.
    #[error("no spare file of {needed} bytes can be made: free disk space, then retry")]
    NoSpare {
        /// Bytes a spare needs.
        needed: u64,
    },
    /// The file number is not in this directory.
    #[error("file {file} does not exist: was it removed while the store was open?")]
    NotFound {
        /// File number.
        file: u64,
    },
    /// A file holds data under a header that is not valid.
    #[error(
        "file {file} is damaged at byte {offset}: {reason}; restore a backup, or save what can be \
         read with `lastword salvage`"
    )]
    Damaged {
        /// File number.
        file: u64,
        /// Byte offset in the file.
        offset: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// A newer release wrote this file.
    #[error(
        "file {file} has format {found}, this release reads up to {supported}: use a newer release"
    )]
    TooNew {
        /// File number.
        file: u64,
        /// Format version in the file.
        found: u16,
        /// Newest format version this release reads.
        supported: u16,
    },
}

impl DiskError {
    /// An [`Io`](DiskError::Io) error from its parts.
    pub fn io(action: &'static str, file: u64, offset: u64, source: std::io::Error) -> Self {
        DiskError::Io { action, file, offset, source: Arc::new(source) }
    }
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has the store open.
    #[error(
        "{} is open in process {pid} ({command}): stop it, or use another directory",
        dir.display()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Process id of the holder, 0 if it has not written it yet.
        pid: u32,
        /// What the holder runs: program and verb.
        command: String,
    },
    /// The directory holds something else.
    #[error("{} is not empty and not a Lastword store: choose another directory", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory is a backup, which must stay as it is.
    #[error(
        "{} is a backup: make a store of it with `lastword restore {} --to DIR`",
        dir.display(),
        dir.display()
    )]
    Backup {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot lock {}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Why a [`Apply`](crate::Apply) refused a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The layer above refused the frame.
    #[error("{0}")]
    Refused(Box<dyn std::error::Error + Send + Sync>),
    /// Reading the state failed.
    #[error(transparent)]
    Store(#[from] Box<StoreError>),
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        ApplyError::Store(Box::new(error))
    }
}

/// An error of the [`Store`](crate::Store).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk refused, before any byte of a frame was written; retry after its cause is gone.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no room for the frame; nothing was written and the store goes on.
    #[error("no space to append at position {position}: {source}")]
    NoSpace {
        /// Position the frame would have had.
        position: u64,
        /// What the disk said.
        source: DiskError,
    },
    /// A log file holds bytes that were durable once and are not what was written.
    #[error(
        "log file {file} is damaged at byte {offset} (position {position}): {reason}; \
         restore a backup, or save what can be read with `lastword salvage`"
    )]
    Damaged {
        /// File number.
        file: u64,
        /// Byte offset in the file.
        offset: u64,
        /// Log position of that byte.
        position: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// A row of the state, or the file it lives in, is not what was written.
    #[error("state file {file} is damaged ({reason}): open the store with `rebuild_state`")]
    StateDamaged {
        /// File number of the state.
        file: u64,
        /// What does not fit.
        reason: String,
    },
    /// redb cannot be read or written; the log goes on.
    #[error("state file {file} cannot be used now ({reason}): free disk space, then checkpoint")]
    StateUnavailable {
        /// File number of the state.
        file: u64,
        /// What failed.
        reason: String,
    },
    /// The view was kept for too long without being read, after a checkpoint had replaced it.
    #[error("this view was kept for too long without being read: take a new one")]
    ViewExpired,
    /// The state cannot be written to redb, and what waits for it fills its memory.
    #[error(
        "{bytes} bytes wait to be written to the state file, the limit is {limit}: free disk space \
         and wait for a checkpoint; deletes are still taken"
    )]
    StateBehind {
        /// Bytes of the delta.
        bytes: usize,
        /// Most bytes it may take.
        limit: usize,
    },
    /// The payload is longer than a frame may be.
    #[error("payload of {len} bytes is over the limit of {limit}: split the batch")]
    TooLarge {
        /// Bytes of the payload.
        len: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// Too many bytes wait for the next commit.
    #[error("{waiting} bytes wait for a commit, the limit is {limit}: commit, then append again")]
    GroupFull {
        /// Bytes waiting.
        waiting: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// A commit is under way.
    #[error("a commit is under way: hand its result to finish_commit first")]
    Busy,
    /// Frame kinds below 16 belong to the store.
    #[error("frame kind {kind} is reserved: use 16 or above")]
    ReservedKind {
        /// The kind asked for.
        kind: u8,
    },
    /// A write or sync failed while these frames were made durable: they may or may not survive.
    #[error("outcome unknown, {source}: reopen the store to learn what was kept")]
    OutcomeUnknown {
        /// What failed.
        source: DiskError,
    },
    /// An earlier write or sync failed; the store takes no writes.
    #[error("the store takes no writes since {cause}: reopen it")]
    Poisoned {
        /// The first failure.
        cause: DiskError,
    },
    /// The position is not in the published log.
    #[error("position {position} is outside the log, which is readable from 0 up to {end}")]
    OutOfRange {
        /// The position asked for.
        position: u64,
        /// First position that is not readable.
        end: u64,
    },
    /// The layer above refused a frame; the state is as it was and the frame is not in the log.
    #[error("frame at position {position} could not be applied: {source}")]
    Apply {
        /// Position of the frame.
        position: u64,
        /// Why.
        source: Arc<ApplyError>,
    },
    /// A pack that the log names is gone, or another file is in its place.
    #[error(
        "pack {file} is lost ({reason}), with {chunks} chunks of files: put it back from a backup, \
         or store their files again with `lastword files put`"
    )]
    PackLost {
        /// Number of the pack.
        file: u64,
        /// What is wrong.
        reason: &'static str,
        /// Chunks that only it holds.
        chunks: u64,
    },
    /// A pack whose frames can be read has a header that cannot.
    #[error(
        "the header of pack {file} is damaged ({reason}): its chunks are read by what the log says, \
         it takes no more"
    )]
    PackHeader {
        /// Number of the pack.
        file: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The log ran out of group numbers, which cannot happen in practice.
    #[error("the log has used all group numbers: copy its content into a new store")]
    Exhausted,
}

/// Why a file cannot be stored or read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The bytes that were to be stored cannot be read.
    #[error("the file to be stored cannot be read: {source}")]
    Source {
        /// The reader's error.
        source: Arc<std::io::Error>,
    },
    /// It is longer than a file may be; nothing was stored of what lies beyond.
    #[error("the file is over the limit of {limit} bytes: split it, or raise the limit")]
    TooLarge {
        /// Most bytes allowed.
        limit: u64,
    },
    /// Storing it has failed before, or is done.
    #[error("storing this file has ended: begin anew to store it again")]
    Ended,
    /// There is no such file in this workspace.
    #[error("{hash} is not here: store the file, or fetch it from a device that has it")]
    Missing {
        /// Its name.
        hash: BlobHash,
    },
    /// A chunk is not what was written.
    #[error(
        "chunk {chunk} in pack {file} is damaged at byte {offset}: {reason}; store its file again \
         and the chunk is whole again, or restore a backup"
    )]
    Damaged {
        /// The chunk.
        chunk: ChunkId,
        /// Number of its pack.
        file: u64,
        /// Byte offset of its frame.
        offset: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// The pack that holds a chunk is gone, or another file is in its place.
    #[error(
        "pack {file} is lost ({reason}): store the file again and it is whole again, or put the \
         pack back from a backup"
    )]
    PackLost {
        /// Number of the pack.
        file: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file names a chunk of which nothing is known.
    #[error("chunk {chunk} is not known: store its file again, or restore a backup")]
    Gone {
        /// The chunk.
        chunk: ChunkId,
    },
    /// Somebody is collecting garbage.
    #[error("garbage is being collected already: try again when that has ended")]
    Collecting,
    /// So much would go that something is likely to be wrong.
    #[error(
        "{bytes} of {all} stored bytes would go, the limit for one run is a tenth: look at a dry \
         run, then force it"
    )]
    TooMuchGarbage {
        /// Bytes that would go.
        bytes: u64,
        /// Bytes that are stored.
        all: u64,
    },
    /// The log was folded while it was read.
    #[error("the log was folded while garbage was looked for: try again")]
    Folded,
    /// The chunks of a file do not make it up.
    #[error("the list of chunks of {hash} does not fit the file: store it again")]
    Manifest {
        /// The file.
        hash: BlobHash,
    },
    /// The store or its disk.
    #[error(transparent)]
    Store(Box<StoreError>),
}

impl BlobError {
    /// What whoever gave the bytes said.
    pub(crate) fn source(error: &std::io::Error) -> Self {
        let source = std::io::Error::new(error.kind(), error.to_string());
        BlobError::Source { source: Arc::new(source) }
    }
}

impl From<StoreError> for BlobError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::PackLost { file, reason, .. } => BlobError::PackLost { file, reason },
            other => BlobError::Store(Box::new(other)),
        }
    }
}

/// Why a backup could not be made, checked or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The directory is in use for something else.
    #[error("{} holds {name:?}: choose an empty directory", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// A name in it.
        name: String,
    },
    /// There is no finished backup in the directory.
    #[error("{} holds no finished backup: a backup has a file BACKUP", dir.display())]
    NotABackup {
        /// The directory.
        dir: PathBuf,
    },
    /// A file of the backup is not what was written.
    #[error("{} is damaged: {what}; use another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// There is nothing that a log could begin with.
    #[error(
        "nothing can be salvaged: neither the beginning of the log, nor a base, nor redb is whole"
    )]
    Nothing,
    /// A file of the store cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] Box<StoreError>),
    /// The new directory cannot be locked.
    #[error(transparent)]
    Lock(#[from] Box<LockError>),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        BackupError::Store(Box::new(error))
    }
}
