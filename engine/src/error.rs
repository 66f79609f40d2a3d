//! The errors of the engine.

use std::path::PathBuf;
use std::sync::Arc;

use lastword_core::hash::{BlobHash, HashError};
use lastword_core::id::{BatchId, DeviceId, Key, NameError, TableName, WorkspaceName};
use lastword_core::json::JsonError;
use lastword_core::op::BatchError;
use lastword_core::protocol::AttachRefusal;
use lastword_core::schema::SchemaError;
use lastword_core::value::ValueError;
use lastword_store::index::NotIndexed;
use lastword_store::{BackupError, BlobError, DiskError, LockError, StoreError};

/// Anything that a call of the engine can fail with.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store: locked, damaged, too new, not ours, full, poisoned.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be stored or read.
    #[error(transparent)]
    Blob(BlobError),
    /// The files of a workspace have no room for another.
    #[error(
        "the files of {workspace} may have {limit} bytes and have {used}, so there is no room for \
         {size} more: delete some and wait until they are collected, or ask who runs the server to \
         raise --max-files-bytes"
    )]
    FilesOverQuota {
        /// The workspace.
        workspace: WorkspaceName,
        /// Bytes of the file.
        size: u64,
        /// Bytes that are stored or being uploaded.
        used: u64,
        /// Most bytes allowed.
        limit: u64,
    },
    /// Files of a workspace that is forgotten cannot go yet.
    #[error(
        "the records of {workspace} are forgotten, but {bytes} bytes of its files are in use, by \
         whoever stores or fetches a file in this store: purge it again when that has ended"
    )]
    FilesInUse {
        /// The workspace.
        workspace: WorkspaceName,
        /// Bytes of those files.
        bytes: u64,
    },
    /// The only copy that is known of a file would go.
    #[error("{hash} is not at the server yet: let it be uploaded first")]
    NotUploaded {
        /// The file.
        hash: BlobHash,
    },
    /// The files of a workspace have no room for another while uploads that are under way hold it.
    #[error(
        "the files of {workspace} may have {limit} bytes, have {used}, and {coming} are being \
         uploaded: no room for {size} more now"
    )]
    RoomReserved {
        /// The workspace.
        workspace: WorkspaceName,
        /// Bytes of the file.
        size: u64,
        /// Bytes that are stored.
        used: u64,
        /// Bytes that are being uploaded.
        coming: u64,
        /// Most bytes allowed.
        limit: u64,
    },
    /// What never became a file takes too much room.
    #[error(
        "pieces of files in {workspace} take more than {room} bytes, also those of uploads that \
         never ended: wait until they are collected"
    )]
    UnfinishedUploads {
        /// The workspace.
        workspace: WorkspaceName,
        /// Most bytes allowed.
        room: u64,
    },
    /// The server's rules are against a file.
    #[error("{message}")]
    UploadRefused {
        /// Why, for people.
        message: String,
    },
    /// A device does not know that there are object stores.
    #[error(
        "this server keeps files at {provider:?}, which this version of the app cannot reach: \
         update the app, and the transfer goes on"
    )]
    NeedsNewerApp {
        /// Id of the store.
        provider: String,
    },
    /// An object store did not do what it was asked to.
    #[error("the store of files {provider:?} did not answer as it should: {reason}; try again")]
    ObjectStore {
        /// Its id.
        provider: String,
        /// What happened.
        reason: String,
    },
    /// A file is kept by a store that this server was started without.
    #[error(
        "{hash} is kept by the store {provider:?}, which this server was not started with: give \
         its settings when it is started"
    )]
    ObjectElsewhere {
        /// The file.
        hash: BlobHash,
        /// Id of the store.
        provider: String,
    },
    /// Somebody compares, commits or deletes a file at its store.
    #[error("somebody is busy with {hash} at its store: try again in a moment")]
    ObjectBusy {
        /// The file.
        hash: BlobHash,
    },
    /// A file was said to be at a store and is not.
    #[error("the store {provider:?} does not have {hash}: upload it again")]
    ObjectMissing {
        /// The file.
        hash: BlobHash,
        /// Id of the store.
        provider: String,
    },
    /// What a store has is not the file.
    #[error(
        "what the store {provider:?} had was not {hash} ({reason}); it was deleted: upload it again"
    )]
    ObjectWrong {
        /// The file.
        hash: BlobHash,
        /// Id of the store.
        provider: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Text is not the hash of a file.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The directory is open in another process, or is not ours.
    #[error(transparent)]
    Lock(#[from] Arc<LockError>),
    /// The directory holds neither a store nor a backup.
    #[error("{} holds no store and no backup: name another directory", dir.display())]
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// A backup cannot be made, read or unpacked.
    #[error(transparent)]
    Backup(#[from] Arc<BackupError>),
    /// The copy of a device holds batches that no server had decided.
    #[error(
        "in this copy {} wait to be sent. The device may have sent them since, so they are not \
         sent again by themselves: add --drop-outbox to keep them as dead letters, where you can \
         look at them",
        waiting(batches)
    )]
    OutboxWaits {
        /// Per workspace, how many.
        batches: Vec<(String, u64)>,
    },
    /// The clock of this machine cannot be used to go on from a backup.
    #[error(
        "the clock of this machine is {behind_s} s behind the copy: set it right, then try \
         again"
    )]
    ClockBehind {
        /// By how many seconds.
        behind_s: u64,
    },
    /// A name or key is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A value cannot be stored.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A batch breaks a limit.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Text is not a record.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A record cannot be turned into the app's type, or back.
    #[error("{table}/{key}: {reason}")]
    Record {
        /// Its table.
        table: String,
        /// Its key.
        key: String,
        /// What does not fit.
        reason: String,
    },
    /// The key field of a record does not hold its key.
    #[error("{table}/{key}: key field {field}: {reason}")]
    KeyField {
        /// The table.
        table: String,
        /// The record's key; empty if it should have come from the field.
        key: String,
        /// The field that should hold the key.
        field: String,
        /// What does not fit.
        reason: String,
    },
    /// A record has no place in an index of its table.
    #[error("{table}/{key}: index {index}: {source}")]
    Index {
        /// The table.
        table: String,
        /// The record's key.
        key: String,
        /// The index.
        index: String,
        /// Why.
        source: NotIndexed,
    },
    /// A table or index is declared twice in different ways, or used otherwise than it was
    /// declared.
    #[error("{name}: {reason}")]
    Declaration {
        /// What was declared.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// An edit, patch or delete names a record that is not there.
    #[error("{table}/{key} does not exist")]
    NotFound {
        /// Its table.
        table: String,
        /// Its key.
        key: String,
    },
    /// A write cannot be undone: somebody has written the record since, or the server let another
    /// version stand.
    #[error("{table}/{key} was written again since: undoing would take that away")]
    Overtaken {
        /// Its table.
        table: TableName,
        /// Its key.
        key: Key,
    },
    /// An undelete names a record that is not deleted.
    #[error("{table}/{key} is not deleted")]
    NotDeleted {
        /// Its table.
        table: String,
        /// Its key.
        key: String,
    },
    /// An undelete in a table under policy `revision`, whose tombstones hold no value.
    #[error(
        "{table}/{key} cannot be undeleted: a table under policy revision keeps no value of what \
         is deleted; write the record again"
    )]
    NoUndelete {
        /// Its table.
        table: String,
        /// Its key.
        key: String,
    },
    /// The value that an undelete would bring back is not there any more.
    #[error("{table}/{key} cannot be undeleted: its value was erased; write the record again")]
    ValueGone {
        /// Its table.
        table: String,
        /// Its key.
        key: String,
    },
    /// The workspace was deleted.
    #[error(
        "workspace {workspace} was deleted at the server; nothing here is lost, and its name is \
         not given again: export what you need and write it into another workspace"
    )]
    WorkspaceDeleted {
        /// The workspace.
        workspace: WorkspaceName,
    },
    /// Forgetting a workspace would destroy what only this device has.
    #[error(
        "workspace {workspace} holds what no server has: {unsent} unsent batches, {dead_letters} \
         dead letters, {local_rows} rows of tables of this device; sync first, or say that they \
         may go"
    )]
    WouldDestroy {
        /// The workspace.
        workspace: WorkspaceName,
        /// Batches that no server has decided, as far as this device knows.
        unsent: u64,
        /// Refused batches.
        dead_letters: u64,
        /// Rows of local tables.
        local_rows: u64,
    },
    /// A connection keeps the workspace in step.
    #[error("workspace {workspace} is being synced: detach it first")]
    StillAttached {
        /// The workspace.
        workspace: WorkspaceName,
    },
    /// A workspace cannot have that schema.
    #[error("workspace {workspace}: {source}")]
    Schema {
        /// The workspace.
        workspace: WorkspaceName,
        /// The table and the rule that it breaks.
        source: SchemaError,
    },
    /// Too many batches wait for the server; reads go on.
    #[error(
        "the outbox is full: {batches} batches wait for the server, the limit is {limit}; \
         connect to the server to drain it"
    )]
    OutboxFull {
        /// Batches without a verdict.
        batches: u64,
        /// The limit.
        limit: u64,
    },
    /// The table belongs to the product.
    #[error("table {table} belongs to Lastword and is read-only")]
    Reserved {
        /// The table.
        table: TableName,
    },
    /// The device wrote as another user before.
    #[error(
        "device {device} belongs to another user of this workspace; use another --data directory"
    )]
    ForeignDevice {
        /// The device.
        device: DeviceId,
    },
    /// The user has no role in the workspace, or there is no such workspace.
    #[error("user {user} is no member of workspace {workspace}")]
    NoMember {
        /// The workspace.
        workspace: WorkspaceName,
        /// The user.
        user: String,
    },
    /// The workspace belongs to the product.
    #[error("workspace names that begin with _ belong to Lastword; {workspace} is one")]
    ReservedWorkspace {
        /// The workspace.
        workspace: WorkspaceName,
    },
    /// The directory holds the other kind of store.
    #[error("{dir} holds {found}, not {wanted}; use another --data directory")]
    OtherRole {
        /// The directory.
        dir: PathBuf,
        /// What it holds.
        found: &'static str,
        /// What was wanted.
        wanted: &'static str,
    },
    /// The workspace exists here under another history.
    #[error("workspace {workspace} is unknown here")]
    UnknownWorkspace {
        /// The workspace.
        workspace: WorkspaceName,
    },
    /// There is no such record, live or deleted.
    #[error("workspace {workspace} has no record {table}/{key}")]
    UnknownRecord {
        /// The workspace.
        workspace: WorkspaceName,
        /// The table.
        table: TableName,
        /// The key.
        key: Key,
    },
    /// The schema does not name the field as one that the server owns.
    #[error(
        "field {field:?} of table {table} is not the server's: name it in server_owned of the \
         schema, or let a device write it"
    )]
    NotServerOwned {
        /// The table.
        table: TableName,
        /// The field.
        field: String,
    },
    /// No dead letters of a workspace belong to that unit: it was sent again or discarded.
    #[error("workspace {workspace} has no dead letters of unit {unit}; `dead-letters` lists them")]
    NoDeadLetter {
        /// The workspace.
        workspace: WorkspaceName,
        /// The unit asked for.
        unit: BatchId,
    },
    /// The ops of a dead letter are no longer in the log.
    #[error("the ops of dead letter {batch} are not in the log: it can only be discarded")]
    DeadLetterGone {
        /// Its batch.
        batch: BatchId,
    },
    /// A batch of the outbox is not where the log should have it.
    #[error(
        "workspace {workspace}: batch {counter} of the outbox is not in the log; \
         copy the directory away before anything else touches it"
    )]
    Outbox {
        /// The workspace.
        workspace: WorkspaceName,
        /// Counter of the batch.
        counter: u64,
    },
    /// No frame of the log begins at a position.
    #[error("no frame begins at log position {position}: positions come from `lastword log`")]
    NoFrame {
        /// The position asked for.
        position: u64,
    },
    /// The directory is damaged, and healing it failed.
    #[error("{damage}. Healing it failed too: {heal}")]
    NotHealed {
        /// The damage.
        damage: Box<Error>,
        /// Why it could not be healed.
        heal: Box<Error>,
    },
    /// A process that was healing the directory ended before the healed one was in its place.
    #[error(
        "{} is missing, as healing it was cut short: {} holds what could be saved; open it with \
         `OnDamage::Heal`, or move it there",
        dir.display(),
        healed.display()
    )]
    HealUnfinished {
        /// The directory.
        dir: PathBuf,
        /// The healed one.
        healed: PathBuf,
    },
    /// The closure of a write said no; nothing was written.
    #[error("{0}")]
    Aborted(String),
    /// A file beside the store cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A server address that cannot be used.
    #[error("server address {url:?} is not valid: {reason}")]
    Url {
        /// The address as given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A bug of ours ended work beside the writer; the store goes on without its result.
    #[error("the {work} panicked: {reason}; please report this as a bug")]
    Panicked {
        /// What was under way.
        work: &'static str,
        /// What the panic said.
        reason: String,
    },
    /// The database is closed.
    #[error("the database is closed")]
    Closed,
    /// The operating system gave no thread.
    #[error("no thread for the writer: {reason}")]
    Thread {
        /// The system's reason.
        reason: String,
    },
}

fn waiting(batches: &[(String, u64)]) -> String {
    let of = |(workspace, number): &(String, u64)| match number {
        1 => format!("1 batch of workspace {workspace}"),
        more => format!("{more} batches of workspace {workspace}"),
    };
    batches.iter().map(of).collect::<Vec<_>>().join(" and ")
}

/// What the engine's calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What a device is told that cannot attach because of this.
    #[must_use]
    pub fn refuses_attach(&self) -> AttachRefusal {
        match self {
            Error::NoMember { .. } | Error::ForeignDevice { .. } => AttachRefusal::Forbidden,
            Error::WorkspaceDeleted { .. } => AttachRefusal::WorkspaceDeleted,
            _ => AttachRefusal::Unavailable,
        }
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        Error::Lock(Arc::new(error))
    }
}

impl From<BackupError> for Error {
    fn from(error: BackupError) -> Self {
        Error::Backup(Arc::new(error))
    }
}

impl From<BlobError> for Error {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Store(error) => Error::Store(*error),
            other => Error::Blob(other),
        }
    }
}

impl From<DiskError> for Error {
    fn from(error: DiskError) -> Self {
        Error::Store(StoreError::Disk(error))
    }
}
