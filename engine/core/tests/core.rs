//! Every promise of core, by the name of its invariant. One binary.

// What a test calls fails the test as the test itself would.
#![allow(clippy::unwrap_used)]

#[path = "core/oracle.rs"]
mod oracle;
#[path = "core/samples.rs"]
mod samples;
#[path = "core/strategies.rs"]
mod strategies;
#[path = "core/world.rs"]
mod world;

#[path = "core/authority.rs"]
mod authority;
#[path = "core/codec.rs"]
mod codec;
#[path = "core/file_messages.rs"]
mod file_messages;
#[path = "core/golden.rs"]
mod golden;
#[path = "core/hash.rs"]
mod hash;
#[path = "core/json.rs"]
mod json;
#[path = "core/model.rs"]
mod model;
#[path = "core/overlay.rs"]
mod overlay;
#[cfg(feature = "plant")]
#[path = "core/plants.rs"]
mod plants;
#[path = "core/privacy.rs"]
mod privacy;
#[path = "core/rules.rs"]
mod rules;
#[path = "core/schema.rs"]
mod schema;
#[path = "core/sessions.rs"]
mod sessions;
#[path = "core/squash.rs"]
mod squash;
#[path = "core/replica.rs"]
mod replica;
#[path = "core/walk.rs"]
mod walk;

/// As many cases as `PROPTEST_CASES` says; a failure prints its input and leaves no file.
fn cases() -> proptest::test_runner::Config {
    proptest::test_runner::Config { failure_persistence: None, ..Default::default() }
}
