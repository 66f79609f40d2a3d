//! The oplog and the state folded from it, over one [`Disk`] trait.
//!
//! The oplog is the truth: opaque, checksummed frames, appended in groups and durable before
//! anyone is told. The state is a cache of it: named spaces of rows that a [`Apply`] derives from
//! the frames, newest in memory, the rest in redb, thrown away and folded again whenever in doubt.
//!
//! ```
//! use std::sync::Arc;
//! use lastword_store::{Apply, ApplyError, FrameRef, MemoryDisk, Options, Space, StateTxn, Store};
//!
//! const LAST: Space = Space::new(0);
//! struct KeepLast;
//! impl Apply for KeepLast {
//!     fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
//!         Ok(state.put(LAST, b"last", frame.payload)?)
//!     }
//! }
//!
//! let disk = Arc::new(MemoryDisk::new(1 << 20));
//! let (mut store, _) = Store::open(disk, Options::default(), Arc::new(KeepLast))?;
//! store.append(16, b"hello")?;
//! store.commit()?;
//! assert_eq!(store.view().get(LAST, b"last")?.as_deref(), Some(&b"hello"[..]));
//! store.close()?;
//! # Ok::<(), lastword_store::StoreError>(())
//! ```
#![forbid(unsafe_code)]

// Lowest first: a module uses only those above it.
pub mod limits;

mod error;

mod header;

mod disk;

mod oplog;

mod state;

mod fold;

pub mod payload;

pub mod keys;

pub mod index;

pub mod read;

pub mod purge;

pub mod apply;

pub mod blobs;

mod store;

mod verify;

mod inspect;

#[cfg(any(unix, windows))]
mod backup;

#[cfg(any(unix, windows))]
mod salvage;

#[cfg(any(unix, windows))]
pub use backup::{
    BackupFile, BackupJob, BackupReport, OnProgress, Progress, check_backup, read_backup,
    unpack_backup,
};
#[cfg(any(unix, windows))]
pub use disk::{DirLock, ReadOnlyDisk, RealDisk};
pub use disk::{
    Disk, Fault, File, FileInfo, FileKind, MemoryDisk, ReadFault, Survival, Ticket, read_header,
};
#[cfg(any(unix, windows))]
pub use error::BackupError;
pub use error::{ApplyError, BlobError, DiskError, LockError, StoreError};
pub use fold::{FoldDone, FoldJob, RebuildDone, RebuildJob};
pub use header::{FORMAT, Header, HeaderKind};
pub use inspect::{Content, Inspection, MetaRows, SeenBase, SeenFile, SeenState, inspect};
pub use oplog::{Commit, CommitDone, FrameRef, OwnedFrame};
#[cfg(any(unix, windows))]
pub use salvage::{Loss, SalvageReport, salvage};
pub use state::{
    Apply, CheckpointDone, CheckpointJob, Direction, KeyRange, KeyValue, OldViews, PutRow, Retired,
    Scan, Slice, Space, SpaceSum, StateSums, StateTxn, View,
};
pub use store::{Durability, History, OpenReport, Options, Room, Store, ViewHandle};
pub use verify::{Finding, Step, VerifyReport, state_row, verify};
