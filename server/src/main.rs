//! The Lastword binary.
fn main() {}
