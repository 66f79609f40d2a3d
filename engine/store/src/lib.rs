//! The oplog and the state folded from it.
