//! Devices and a real server process over real sockets.

#[path = "common/mod.rs"]
mod common;
#[path = "sync/devices.rs"]
mod devices;
