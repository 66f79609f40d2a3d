//! The binary as users have it: real processes, real directories, real sockets.

#[path = "server/common.rs"]
mod common;
#[path = "server/archive.rs"]
mod archive;
#[path = "server/cli.rs"]
mod cli;
#[path = "server/bad_input.rs"]
mod bad_input;
#[path = "server/demo.rs"]
mod demo;
#[path = "server/devices.rs"]
mod devices;
#[path = "server/erase.rs"]
mod erase;
#[path = "server/files.rs"]
mod files;
#[path = "server/files_many.rs"]
mod files_many;
#[path = "server/fixtures.rs"]
mod fixtures;
#[path = "server/fleet.rs"]
mod fleet;
#[path = "server/full_disk.rs"]
mod full_disk;
#[path = "server/history.rs"]
mod history;
#[path = "server/hooks.rs"]
mod hooks;
#[path = "server/kills.rs"]
mod kills;
#[path = "server/maintenance.rs"]
mod maintenance;
#[path = "server/members.rs"]
mod members;
#[cfg(unix)]
#[path = "server/object_store.rs"]
mod object_store;
#[cfg(unix)]
#[path = "server/store_support.rs"]
mod store_support;
#[path = "server/origin.rs"]
mod origin;
#[path = "server/private.rs"]
mod private;
#[path = "server/proxy.rs"]
mod proxy;
#[path = "server/refused.rs"]
mod refused;
#[path = "server/round_trip.rs"]
mod round_trip;
#[path = "server/salvage.rs"]
mod salvage;
#[path = "server/schema.rs"]
mod schema;
#[path = "server/stop.rs"]
mod stop;
#[path = "server/storm.rs"]
mod storm;
#[path = "server/transfers.rs"]
mod transfers;
#[path = "server/walk.rs"]
mod walk;
#[path = "server/workspace.rs"]
mod workspace;
