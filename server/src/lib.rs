//! The Lastword server: who may do what, the connections, the process around them, and the
//! command line.

pub mod members;
pub mod signed;
pub mod hub;
pub mod connection;
pub mod file_connection;
pub mod listener;
pub mod schema_file;
pub mod file_stores;
pub mod control;
pub(crate) mod storage_api;
pub mod embedded;
pub(crate) mod signed_files;
pub mod serve;
pub mod demo;
pub mod cli;
