//! Both parties of sync without a thread, a clock, a socket or a source of randomness: whoever
//! drives them says when something happens and what time it is.
//!
//! They run the same sessions, decisions and stores as [`crate::Database`] and
//! [`crate::Authority`]; a simulator drives them deterministically, a worker loop one event at a
//! time.

mod device;
mod app;
mod lent;
mod authority;

pub use app::AppNode;
pub(crate) use app::make_room;
pub use authority::{AuthorityNode, Outgoing, Users};
pub use device::{DeviceNode, DeviceSettings, ToLink, Wrote};

pub use crate::environment::Environment;
