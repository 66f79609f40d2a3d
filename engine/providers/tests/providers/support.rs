//! What tests of providers share.

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_providers::key::ObjectKey;
use lastword_providers::upload::Upload;
use sha2::{Digest, Sha256};

pub const START_MS: u64 = 1_700_000_000_000;

/// A file of this many bytes in workspace `main`.
pub fn file(len: usize) -> (Upload, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    let workspace = WorkspaceName::new("main").expect("a name");
    let hash = BlobHash::Sha256(Sha256::digest(&bytes).into());
    let key = ObjectKey::new(&workspace, hash).expect("a key");
    (Upload::new(key, len as u64, "image/png").expect("an upload"), bytes)
}
