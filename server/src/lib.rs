//! The Lastword server: who may do what, the connections, and the process around them.

pub mod members;
pub mod hub;
pub mod connection;
pub mod serve;
pub mod demo;
