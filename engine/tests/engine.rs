//! The engine as an app sees it, without a network: typed tables, indexes, live reads.

// A helper of a test fails the test as the test itself would.
#![allow(clippy::unwrap_used)]

#[path = "engine/support.rs"]
mod support;

#[path = "engine/site.rs"]
mod site;

#[path = "engine/authority.rs"]
mod authority;
#[path = "engine/cluster.rs"]
mod cluster;
#[path = "engine/files.rs"]
mod files;
#[path = "engine/hooks.rs"]
mod hooks;
#[path = "engine/index.rs"]
mod index;
#[path = "engine/maintenance.rs"]
mod maintenance;
#[path = "engine/members.rs"]
mod members;
#[path = "engine/owned.rs"]
mod owned;
#[cfg(feature = "plant")]
#[path = "../core/tests/core/plants.rs"]
mod plants;
#[path = "engine/private.rs"]
mod private;
#[path = "engine/recover.rs"]
mod recover;
#[path = "engine/reset.rs"]
mod reset;
#[path = "engine/salvage.rs"]
mod salvage;
#[path = "engine/schema.rs"]
mod schema;
#[path = "engine/squash.rs"]
mod squash;
#[path = "engine/object_races.rs"]
mod object_races;
#[path = "engine/object_schedules.rs"]
mod object_schedules;
#[path = "engine/objects.rs"]
mod objects;
#[path = "engine/system.rs"]
mod system;
#[path = "engine/transfer.rs"]
mod transfer;
#[path = "engine/typed.rs"]
mod typed;
#[path = "engine/undo.rs"]
mod undo;
#[path = "engine/watch.rs"]
mod watch;
