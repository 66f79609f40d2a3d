//! A store in memory as the world that tests live in.

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_providers::conformance::World;
use lastword_providers::http::HttpClient;
use lastword_providers::key::ObjectKey;
use lastword_providers::memory::MemoryStore;
use lastword_providers::upload::Upload;
use sha2::{Digest, Sha256};

pub const START_MS: u64 = 1_700_000_000_000;

/// A store in memory and its clock.
#[derive(Debug, Clone)]
pub struct InMemory(pub MemoryStore);

impl World for InMemory {
    fn http(&self) -> &dyn HttpClient {
        &self.0
    }

    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn wait_until(&self, at_ms: u64) {
        self.0.set_now(at_ms.max(self.0.now_ms()));
    }
}

/// A file of this many bytes in workspace `main`.
pub fn file(len: usize) -> (Upload, Vec<u8>) {
    let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
    let workspace = WorkspaceName::new("main").expect("a name");
    let hash = BlobHash::Sha256(Sha256::digest(&bytes).into());
    let key = ObjectKey::new(&workspace, hash).expect("a key");
    (Upload::new(key, len as u64, "image/png").expect("an upload"), bytes)
}
