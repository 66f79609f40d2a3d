//! Every promise of the store, by the name of its invariant. One binary.

// A helper of a test fails the test as the test itself would.
#![allow(clippy::unwrap_used)]

#[path = "store/support.rs"]
mod support;

#[path = "store/blob_support.rs"]
mod blob_support;

#[path = "store/backup.rs"]
mod backup;
#[path = "store/blobs.rs"]
mod blobs;
#[path = "store/checkpoint.rs"]
mod checkpoint;
#[path = "store/commit.rs"]
mod commit;
#[path = "store/count.rs"]
mod count;
#[path = "store/crash.rs"]
mod crash;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/explorer.rs"]
mod explorer;
#[path = "store/fold.rs"]
mod fold;
#[path = "store/format.rs"]
mod format;
#[path = "store/gc.rs"]
mod gc;
#[path = "store/index.rs"]
mod index;
#[path = "store/kills.rs"]
mod kills;
#[path = "store/packs.rs"]
mod packs;
#[path = "store/payload.rs"]
mod payload;
#[cfg(feature = "plant")]
#[path = "../../core/tests/core/plants.rs"]
mod plants;
#[path = "store/purge.rs"]
mod purge;
#[path = "store/real.rs"]
mod real;
#[path = "store/reindex.rs"]
mod reindex;
#[path = "store/salvage.rs"]
mod salvage;
#[path = "store/several.rs"]
mod several;
#[path = "store/verify.rs"]
mod verify;
#[path = "store/views.rs"]
mod views;
