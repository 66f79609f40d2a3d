//! A provider with one fault planted at one point of the suite. It is the store in memory, with a
//! wrapper on either side of it: what the store refuses, the wrapper does all the same, and the
//! other way round.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;

use lastword_providers::capability::Capabilities;
use lastword_providers::conformance::{Point, World};
use lastword_providers::expiry::Grant;
use lastword_providers::http::{Headers, HttpClient, HttpError, Method, Reply, Request};
use lastword_providers::key::{ObjectKey, Prefix};
use lastword_providers::memory::MemoryStore;
use lastword_providers::provider::{
    Completed, Head, ObjectStorageProvider, Page, PartToSend, Presigned, ProviderError, StoredPart,
};
use lastword_providers::upload::{Download, MultipartId, Upload};

use crate::support::START_MS;

#[derive(Debug)]
pub struct Broken {
    point: Point,
    store: MemoryStore,
    world: MemoryStore,
    /// Every URL that was signed, with its method.
    signed: Mutex<Vec<(Method, String)>>,
    /// What was completed, by upload.
    completed: Mutex<BTreeMap<String, Vec<u8>>>,
    aborted: Mutex<Vec<String>>,
}

impl Broken {
    pub fn at(point: Point) -> Self {
        let store = MemoryStore::new(b"secret", START_MS);
        let world = store.clone();
        let (signed, completed, aborted) = Default::default();
        Self { point, store, world, signed, completed, aborted }
    }

    fn is(&self, point: Point) -> bool {
        self.point == point
    }

    fn signed(&self, mut url: Presigned) -> Presigned {
        self.signed.lock().expect("a lock").push((url.method, url.url.clone()));
        if self.is(Point::UrlEnds) {
            url.expires_at_ms += 24 * 3600 * 1000;
        }
        url
    }

    /// Which point a refusal belongs to.
    fn refusal(&self, request: &Request, code: &str) -> Option<Point> {
        let part = request.url.contains("&upload=");
        match (code, request.method) {
            ("type", _) => Some(Point::WrongType),
            ("length", _) => Some(Point::WrongLength),
            ("checksum", _) if part => Some(Point::WrongPart),
            ("checksum", _) => Some(Point::WrongChecksum),
            ("expired", Method::Put) => Some(Point::ExpiredUpload),
            ("expired", _) => Some(Point::ExpiredDownload),
            ("unsigned", _) => Some(Point::Unsigned),
            ("there", _) => Some(Point::SecondUpload),
            ("signature", _) => Some(self.forged(request)),
            _ => None,
        }
    }

    /// A signature that is wrong is that of another request, or of none.
    fn forged(&self, request: &Request) -> Point {
        let split = |url: &str| {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            (path.to_owned(), query.to_owned())
        };
        let (path, query) = split(&request.url);
        let signed = self.signed.lock().expect("a lock");
        let same = signed.iter().map(|(_, url)| split(url)).find(|(_, other)| *other == query);
        let workspace = |path: &str| path.split('/').nth(4).map(str::to_owned);
        match same {
            None => Point::Tampered,
            Some((other, _)) if other == path => Point::ChangedMethod,
            Some((other, _)) if workspace(&other) == workspace(&path) => Point::OtherObject,
            Some(_) => Point::OtherWorkspace,
        }
    }

    /// Does what the store refused.
    fn all_the_same(&self, request: &Request) -> Reply {
        let path = request.url.split('?').next().unwrap_or_default();
        let key = path.trim_start_matches("memory://store/");
        let body = match request.method {
            Method::Put if !request.url.contains("&upload=") => {
                self.store.plant(key, &request.body);
                Vec::new()
            }
            _ => {
                let key = ObjectKey::read(key).expect("a key");
                self.store.bytes(&key).map(|bytes| bytes.to_vec()).unwrap_or_default()
            }
        };
        Reply::new(200, Headers::new(), body)
    }
}

impl World for Broken {
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

impl HttpClient for Broken {
    fn send(&self, mut request: Request) -> Result<Reply, HttpError> {
        if self.is(Point::Range) {
            request.headers.retain(|(name, _)| name != "range");
        }
        let reply = self.store.send(request.clone())?;
        let (status, mut headers) = (reply.status, reply.headers.clone());
        let mut body = reply.bytes(usize::MAX / 2)?;
        if status >= 400 {
            let code = String::from_utf8_lossy(&body).into_owned();
            if self.refusal(&request, &code) == Some(self.point) {
                return Ok(self.all_the_same(&request));
            }
        }
        if self.is(Point::BytesComeBack) && body.len() == 70_000 {
            body[35_000] ^= 1;
        }
        if self.is(Point::Named) {
            headers.retain(|(name, _)| name != "content-disposition");
        }
        Ok(Reply::new(status, headers, body))
    }
}

impl ObjectStorageProvider for Broken {
    fn id(&self) -> &str {
        "broken"
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn presign_upload(&self, upload: &Upload, grant: Grant) -> Result<Presigned, ProviderError> {
        self.store.presign_upload(upload, grant).map(|url| self.signed(url))
    }

    fn presign_download(
        &self,
        key: &ObjectKey,
        download: &Download,
        grant: Grant,
    ) -> Result<Presigned, ProviderError> {
        self.store.presign_download(key, download, grant).map(|url| self.signed(url))
    }

    fn begin_multipart(&self, upload: &Upload, now_ms: u64) -> Result<MultipartId, ProviderError> {
        self.store.begin_multipart(upload, now_ms)
    }

    fn stored_parts(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Vec<StoredPart>, ProviderError> {
        let parts = self.store.stored_parts(upload, id, now_ms)?;
        Ok(if self.is(Point::Resumes) { Vec::new() } else { parts })
    }

    fn presign_part(
        &self,
        upload: &Upload,
        id: &MultipartId,
        part: PartToSend,
        grant: Grant,
    ) -> Result<Presigned, ProviderError> {
        self.store.presign_part(upload, id, part, grant).map(|url| self.signed(url))
    }

    fn complete_multipart(
        &self,
        upload: &Upload,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<Completed, ProviderError> {
        let result = self.store.complete_multipart(upload, id, now_ms);
        let mut completed = self.completed.lock().expect("a lock");
        match &result {
            Ok(Completed::AlreadyThere) if self.is(Point::SecondMultipart) => {
                return Ok(Completed::Stored);
            }
            Ok(_) => {
                let bytes = self.store.bytes(upload.key()).expect("it was completed");
                completed.insert(id.as_str().to_owned(), bytes.to_vec());
            }
            Err(ProviderError::Incomplete { .. }) if self.is(Point::Incomplete) => {
                self.store.plant(upload.key().as_str(), b"some of it");
                return Ok(Completed::Stored);
            }
            Err(_) if self.is(Point::DeleteIsFinal) => {
                if let Some(bytes) = completed.get(id.as_str()) {
                    self.store.plant(upload.key().as_str(), bytes);
                }
            }
            Err(_) => {}
        }
        result
    }

    fn abort_multipart(
        &self,
        key: &ObjectKey,
        id: &MultipartId,
        now_ms: u64,
    ) -> Result<(), ProviderError> {
        if self.is(Point::AbortLeavesNothing) {
            return Ok(());
        }
        let mut aborted = self.aborted.lock().expect("a lock");
        let again = aborted.iter().any(|other| other == id.as_str());
        if again && self.is(Point::AbortTwice) {
            let (key, id) = (key.clone(), id.as_str().to_owned());
            return Err(ProviderError::NoSuchUpload { key, id });
        }
        aborted.push(id.as_str().to_owned());
        self.store.abort_multipart(key, id, now_ms)
    }

    fn head(&self, key: &ObjectKey, now_ms: u64) -> Result<Option<Head>, ProviderError> {
        let mut head = self.store.head(key, now_ms)?;
        if let Some(head) = head.as_mut().filter(|_| self.is(Point::Head)) {
            head.size_bytes += 1;
        }
        Ok(head)
    }

    fn read(
        &self,
        key: &ObjectKey,
        now_ms: u64,
    ) -> Result<Option<Box<dyn Read + Send>>, ProviderError> {
        if self.is(Point::Commit) {
            return Ok(None);
        }
        self.store.read(key, now_ms)
    }

    fn delete(&self, key: &ObjectKey, now_ms: u64) -> Result<(), ProviderError> {
        if self.is(Point::DeleteTwice) && self.store.bytes(key).is_none() {
            let (operation, code, message) = ("delete an object", "gone".into(), String::new());
            return Err(ProviderError::Refused { operation, status: 404, code, message });
        }
        self.store.delete(key, now_ms)
    }

    /// The prefix of a workspace without its last slash, as a careless provider sends it.
    fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        max_objects: usize,
        now_ms: u64,
    ) -> Result<Page, ProviderError> {
        if !self.is(Point::ListIsExact) {
            return self.store.list(prefix, after, max_objects, now_ms);
        }
        let mut page = self.store.list(&Prefix::all(), after, max_objects, now_ms)?;
        let careless = prefix.as_str().trim_end_matches("/sha256/");
        page.objects.retain(|object| object.key.as_str().starts_with(careless));
        Ok(page)
    }
}
