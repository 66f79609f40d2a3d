//! An object store in memory, for tests: the store and its provider in one, with signed URLs that
//! are really checked, and a clock that the test sets.
//!
//! It takes HTTP requests as an [`crate::http::HttpClient`] does, without a socket. What it
//! promises can be reduced; it then does not check that either, as a store that cannot.

mod provider;
mod serve;
mod url;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};

use crate::capability::Capabilities;
use crate::conformance::World;
use crate::http::HttpClient;
use crate::key::ObjectKey;

/// The store. Clones share what is in it.
#[derive(Clone)]
pub struct MemoryStore {
    secret: Arc<[u8]>,
    capabilities: Capabilities,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    now_ms: u64,
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Parts>,
    uploads_begun: u64,
}

#[derive(Clone)]
struct Object {
    bytes: Arc<[u8]>,
    mime: String,
    /// As in S3: made of parts, it has no SHA-256 of the whole.
    in_parts: bool,
}

struct Parts {
    key: String,
    mime: String,
    parts: BTreeMap<u32, Vec<u8>>,
}

impl MemoryStore {
    /// An empty store whose clock stands at `now_ms`.
    #[must_use]
    pub fn new(secret: &[u8], now_ms: u64) -> Self {
        Self::promising(Capabilities::all(), secret, now_ms)
    }

    /// A store that promises, and checks, no more than this.
    #[must_use]
    pub fn promising(capabilities: Capabilities, secret: &[u8], now_ms: u64) -> Self {
        let state = State { now_ms, ..State::default() };
        Self { secret: Arc::from(secret), capabilities, state: Arc::new(Mutex::new(state)) }
    }

    /// What its clock says.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.state().now_ms
    }

    /// Sets its clock.
    pub fn set_now(&self, now_ms: u64) {
        self.state().now_ms = now_ms;
    }

    /// The bytes under a key, whatever they are.
    #[must_use]
    pub fn bytes(&self, key: &ObjectKey) -> Option<Arc<[u8]>> {
        self.state().objects.get(key.as_str()).map(|object| Arc::clone(&object.bytes))
    }

    /// Puts bytes there unasked and unchecked, as somebody does who has the store's own keys, or a
    /// disk that rots.
    pub fn plant(&self, key: &str, bytes: &[u8]) {
        let mime = "application/octet-stream".to_owned();
        let object = Object { bytes: Arc::from(bytes), mime, in_parts: false };
        self.state().objects.insert(key.to_owned(), object);
    }

    /// How many uploads in parts are open.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("invariant: nothing panics while it holds the store")
    }
}

impl World for MemoryStore {
    fn http(&self) -> &dyn HttpClient {
        self
    }

    fn now_ms(&self) -> u64 {
        MemoryStore::now_ms(self)
    }

    fn wait_until(&self, at_ms: u64) {
        self.set_now(at_ms.max(MemoryStore::now_ms(self)));
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects = self.state().objects.len();
        f.debug_struct("MemoryStore").field("objects", &objects).finish_non_exhaustive()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
