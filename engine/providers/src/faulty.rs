//! A provider whose store and network fail on demand, for tests of what builds on one.
//!
//! It wraps any provider and world. A fault is armed, happens once, to the first call that it can
//! happen to, and all else goes through.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use crate::capability::Capabilities;
use crate::conformance::World;
use crate::expiry::Grant;
use crate::http::{HttpClient, HttpError, Method, Reply, Request};
use crate::key::{ObjectKey, Prefix};
use crate::provider::{
    Completed, Head, ObjectStorageProvider, Page, PartToSend, Presigned, ProviderError, StoredPart,
};
use crate::upload::{Download, MultipartId, Upload};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A request, or a call of the provider that asks its store, does not get there.
    Unreachable,
    /// The store does what it was asked, and the answer never comes: to any request to a signed
    /// URL, a completion or a deletion.
    ReplyLost,
    /// Half of a body arrives: of an upload at the store, of a download or a read at us.
    PartialBody,
    /// One bit of a body is another one: likewise.
    WrongBytes,
    /// A list shows what the same list showed the last time, or nothing if there was none.
    StaleList,
    /// The URL that was signed last ends while the request is under way.
    UrlExpires,
}

/// The wrapper. It is provider, HTTP client and world in one.
pub struct Faulty {
    provider: Arc<dyn ObjectStorageProvider>,
    world: Arc<dyn World + Send + Sync>,
    state: Mutex<State>,
}

/// Gets what a call is about.
type Watch = Arc<dyn Fn(&'static str) + Send + Sync>;

#[derive(Default)]
struct State {
    watch: Option<Watch>,
    armed: Option<Fault>,
    last_end_ms: u64,
    /// Pages by prefix and cursor. As many as the test lists: it is its own limit.
    pages: BTreeMap<(String, Option<String>), Page>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faulty").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl Faulty {
    /// Nothing is armed yet.
    #[must_use]
    pub fn new(
        provider: Arc<dyn ObjectStorageProvider>,
        world: Arc<dyn World + Send + Sync>,
    ) -> Self {
        Self { provider, world, state: Mutex::default() }
    }

    /// Arms a fault, in place of one that did not happen.
    pub fn arm(&self, fault: Fault) {
        self.with(|state| state.armed = Some(fault));
    }

    /// Calls `watch` at the beginning of each call that asks the store, and where somebody wants to
    /// know its capabilities. It may block, so that a test can have two calls meet.
    pub fn watch(&self, watch: impl Fn(&'static str) + Send + Sync + 'static) {
        self.with(|state| state.watch = Some(Arc::new(watch)));
    }

    fn begins(&self, operation: &'static str) {
        if let Some(watch) = self.with(|state| state.watch.clone()) {
            watch(operation);
        }
    }

    /// Nothing is armed any more.
    pub fn disarm(&self) {
        self.with(|state| state.armed = None);
    }

    /// The fault that did not happen yet.
    #[must_use]
    pub fn armed(&self) -> Option<Fault> {
        self.with(|state| state.armed)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("invariant: nothing panics while it holds the state"))
    }

    /// True once, if it is armed.
    fn happens(&self, fault: Fault) -> bool {
        self.with(|state| state.armed.take_if(|armed| *armed == fault).is_some())
    }

    fn signed(&self, url: Presigned) -> Presigned {
        self.with(|state| state.last_end_ms = url.expires_at_ms);
        url
    }

    /// A call that may not get to its store.
    fn reaches(&self, operation: &'static str) -> Result<(), ProviderError> {
        self.begins(operation);
        match self.happens(Fault::Unreachable) {
            true => Err(ProviderError::Http { operation, source: lost() }),
            false => Ok(()),
        }
    }

    /// A call that is carried out, and whose answer may be lost.
    fn answered<T>(
        &self,
        operation: &'static str,
        result: Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        if self.happens(Fault::ReplyLost) {
            return Err(ProviderError::Http { operation, source: lost() });
        }
        result
    }

    /// A body on its way.
    fn damaged(&self, mut body: Vec<u8>) -> Vec<u8> {
        if body.is_empty() {
            return body;
        }
        if self.happens(Fault::PartialBody) {
            body.truncate(body.len() / 2);
        } else if self.happens(Fault::WrongBytes) {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        body
    }

    fn is_armed_for_bodies(&self) -> bool {
        matches!(self.armed(), Some(Fault::PartialBody | Fault::WrongBytes))
    }

    /// A stream is read whole only if a fault is to happen to it.
    fn damaged_stream(
        &self,
        mut body: Box<dyn Read + Send>,
    ) -> Result<Box<dyn Read + Send>, HttpError> {
        if !self.is_armed_for_bodies() {
            return Ok(body);
        }
        let mut bytes = Vec::new();
        let read = body.read_to_end(&mut bytes);
        read.map_err(|error| HttpError::Lost { what: error.to_string() })?;
        Ok(Box::new(std::io::Cursor::new(self.damaged(bytes))))
    }
}

fn lost() -> HttpError {
    HttpError::Lost { what: "a fault was armed".to_owned() }
}

impl World for Faulty {
    fn http(&self) -> &dyn HttpClient {
        self
    }

    fn now_ms(&self) -> u64 {
        self.world.now_ms()
    }

    fn wait_until(&self, at_ms: u64) {
        self.world.wait_until(at_ms);
    }
}

impl HttpClient for Faulty {
    fn send(&self, mut request: Request) -> Result<Reply, HttpError> {
        if self.happens(Fault::Unreachable) {
            return Err(lost());
        }
        if self.happens(Fault::UrlExpires) {
            self.world.wait_until(self.with(|state| state.last_end_ms));
        }
        let downloads = request.method == Method::Get;
        request.body = self.damaged(request.body);
        let reply = self.world.http().send(request)?;
        if self.happens(Fault::ReplyLost) {
            return Err(lost());
        }
        let Reply { status, headers, body } = reply;
        let body = if downloads { self.damaged_stream(body)? } else { body };
        Ok(Reply { status, headers, body })
    }
}

impl ObjectStorageProvider for Faulty {
    fn id(&self) -> &str {
        self.provider.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.begins("capabilities");
        self.provider.capabilities()
    }

    fn presign_upload(&self, upload: &Upload, grant: Grant) -> Result<Presigned, ProviderError> {
        self.provider.presign_upload(upload, grant).map(|url| self.signed(url))
    }

    fn presign_download(
        &self,
        key: &ObjectKey,
        download: &Download,
        grant: Grant,
    ) -> Result<Presigned, ProviderError> {
        self.provider.presign_download(key, download, grant).map(|url| self.signed(url))
    }

    fn begin_multipart(&self, upload: &Upload, now_ms: u64) -> Result<MultipartId, ProviderError> {
        self.reaches("begin an upload in parts")?;
        self.provider.begin_multipart(upload, now_ms)
    }

    fn stored_parts(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Vec<StoredPart>, ProviderError> {
        self.reaches("list the parts of an upload")?;
        self.provider.stored_parts(upload, id, now_ms)
    }

    fn presign_part(
        &self,
        upload: &Upload,
        id: &MultipartId,
        part: PartToSend,
        grant: Grant,
    ) -> Result<Presigned, ProviderError> {
        self.provider.presign_part(upload, id, part, grant).map(|url| self.signed(url))
    }

    fn complete_multipart(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Completed, ProviderError> {
        let operation = "complete an upload in parts";
        self.reaches(operation)?;
        self.answered(operation, self.provider.complete_multipart(upload, id, now_ms))
    }

    fn abort_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<(), ProviderError> {
        self.reaches("end an upload in parts")?;
        self.provider.abort_multipart(key, id, now_ms)
    }

    fn head(&self, key: &ObjectKey, now_ms: u64) -> Result<Option<Head>, ProviderError> {
        self.reaches("look at an object")?;
        self.provider.head(key, now_ms)
    }

    fn read(
        &self,
        key: &ObjectKey,
        now_ms: u64,
    ) -> Result<Option<Box<dyn Read + Send>>, ProviderError> {
        let operation = "read an object";
        self.reaches(operation)?;
        let Some(body) = self.provider.read(key, now_ms)? else { return Ok(None) };
        let body = self.damaged_stream(body);
        body.map(Some).map_err(|source| ProviderError::Http { operation, source })
    }

    fn delete(&self, key: &ObjectKey, now_ms: u64) -> Result<(), ProviderError> {
        let operation = "delete an object";
        self.reaches(operation)?;
        self.answered(operation, self.provider.delete(key, now_ms))
    }

    fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        max_objects: usize,
        now_ms: u64,
    ) -> Result<Page, ProviderError> {
        self.reaches("list objects")?;
        let asked = (prefix.as_str().to_owned(), after.map(str::to_owned));
        if self.happens(Fault::StaleList) {
            return Ok(self.with(|state| state.pages.get(&asked).cloned().unwrap_or_default()));
        }
        let page = self.provider.list(prefix, after, max_objects, now_ms)?;
        self.with(|state| state.pages.insert(asked, page.clone()));
        Ok(page)
    }
}
