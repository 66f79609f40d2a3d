//! The Lastword server.
