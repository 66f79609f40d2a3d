//! Object stores that keep Lastword's files.
//!
//! A deployment selects one provider by its id from a [`registry::Registry`]. Devices send and
//! fetch bytes over URLs that the server signs; [`commit::verify`] checks what arrived before any
//! record names it. Whoever writes a provider of their own runs the [`conformance`] suite against
//! it.
//!
//! Why it is shaped so: docs/decisions/providers.md.

pub mod limits;
pub mod http;
pub mod key;
pub mod expiry;
pub mod capability;
pub mod upload;
pub mod provider;
pub mod commit;
pub mod registry;
pub mod memory;
pub mod s3;
#[cfg(feature = "client")]
pub mod client;
pub mod conformance;
pub mod faulty;
