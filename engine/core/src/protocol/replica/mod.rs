//! The replica's side: one session for a device's store, over all its connections.

mod io;
mod local;
mod session;

pub use io::{Config, Input, Output, StopReason, SyncStatus, WorkspaceState};
pub use session::ReplicaSession;
