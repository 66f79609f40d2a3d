//! Providers against the conformance suite, with faults, in a registry, and S3 against a real
//! server.

#[path = "providers/broken.rs"]
mod broken;
#[path = "providers/conformance.rs"]
mod conformance;
#[path = "providers/faults.rs"]
mod faults;
#[path = "providers/registry.rs"]
mod registry;
#[path = "providers/scripted.rs"]
mod scripted;
#[path = "providers/support.rs"]
mod support;
