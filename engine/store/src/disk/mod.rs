//! The disk as the store sees it: numbered files, prepared ahead, without names or renames.

mod traits;
mod classify;
mod memory;
#[cfg(any(unix, windows))]
mod file_name;
#[cfg(any(unix, windows))]
mod lock;
#[cfg(any(unix, windows))]
mod real;

pub use classify::read_header;
#[cfg(any(unix, windows))]
pub use lock::DirLock;
pub use memory::{Fault, MemoryDisk, Survival};
#[cfg(any(unix, windows))]
pub use real::RealDisk;
pub use traits::{Disk, File, FileInfo, FileKind, Ticket};
