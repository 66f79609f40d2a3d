//! The disk as the store sees it: numbered files, prepared ahead, without names or renames.

mod traits;
mod unkept;
mod classify;
mod image;
mod memory;
mod overlay;
#[cfg(any(unix, windows))]
mod file_name;
#[cfg(any(unix, windows))]
mod lock;
#[cfg(any(unix, windows))]
mod real;
#[cfg(any(unix, windows))]
mod read_only;

pub use classify::read_header;
pub(crate) use classify::{first_non_zero, is_zero};
#[cfg(any(unix, windows))]
pub(crate) use file_name::{is_numbered, path as file_path};
#[cfg(any(unix, windows))]
pub(crate) use lock::BACKUP;
#[cfg(any(unix, windows))]
pub use lock::DirLock;
pub use memory::{Fault, MemoryDisk, ReadFault, Survival};
pub(crate) use overlay::Overlay;
#[cfg(any(unix, windows))]
pub use read_only::ReadOnlyDisk;
#[cfg(any(unix, windows))]
pub use real::RealDisk;
#[cfg(any(unix, windows))]
pub(crate) use real::sync_dir;
pub use traits::{Disk, File, FileInfo, FileKind, Ticket};
pub(crate) use unkept::Unkept;
