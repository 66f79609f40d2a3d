//! This server's own store as an object store: one user's view of it, over the URLs that the
//! server signs itself. So it is held to what every store of files is held to.
//!
//! Devices do not use it: they carry chunks, so that nothing is sent twice. Browsers do, by the
//! URLs of [`crate::signed_files`], which are these.

use std::io::{self, Read};
use std::sync::Arc;

use lastword::core::id::WorkspaceName;
use lastword::store::{BlobError, read};
use lastword::{BlobHash, Error, MemberFile};
use lastword_providers::capability::{Capabilities, Capability};
use lastword_providers::expiry;
use lastword_providers::http::Method;
use lastword_providers::key::{ObjectKey, Prefix};
use lastword_providers::provider::{
    Completed, Head, Listed, ObjectStorageProvider, Page, PartToSend, Presigned, ProviderError,
    StoredPart,
};
use lastword_providers::registry::EMBEDDED;
use lastword_providers::upload::{Download, MultipartId, Upload};

use crate::hub::Hub;
use crate::signed::Grant;

/// What a file is called whose type nobody has said.
pub(crate) const ANY_TYPE: &str = "application/octet-stream";

/// The store of a server, as one user may use it.
pub struct EmbeddedProvider {
    hub: Arc<Hub>,
    user: String,
    /// Where the server is reached, like `http://127.0.0.1:7420`.
    base: String,
}

impl std::fmt::Debug for EmbeddedProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbeddedProvider({}, {})", self.base, self.user)
    }
}

fn refused(operation: &'static str, error: &Error) -> ProviderError {
    let status = match error {
        Error::NoMember { .. } => 403,
        Error::Blob(BlobError::Missing { .. }) => 404,
        _ => 500,
    };
    let (code, message) = (String::new(), error.to_string());
    ProviderError::Refused { operation, status, code, message }
}

impl EmbeddedProvider {
    /// The store of this server for a user.
    #[must_use]
    pub fn new(hub: Arc<Hub>, user: String, base: String) -> Self {
        Self { hub, user, base }
    }

    fn sign(&self, method: Method, key: &ObjectKey, grant: Grant, ends_ms: u64) -> Presigned {
        let (hash, user) = (BlobHash::Sha256(*key.sha256()), self.user.clone());
        let (workspace, expires_ms) = (key.workspace().clone(), milliseconds(ends_ms));
        let signed = Grant { workspace, hash, user, expires_ms, ..grant };
        let headers = match method {
            Method::Put => vec![("content-type".to_owned(), signed.mime_type.clone())],
            _ => Vec::new(),
        };
        let url = format!("{}{}", self.base, self.hub.signer.path(key, &signed));
        Presigned { method, url, headers, expires_at_ms: ends_ms }
    }

    fn file(
        &self,
        operation: &'static str,
        key: &ObjectKey,
    ) -> Result<Option<MemberFile>, ProviderError> {
        let hash = BlobHash::Sha256(*key.sha256());
        match self.hub.authority.open_file(key.workspace(), &self.user, &hash) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Blob(BlobError::Missing { .. })) => Ok(None),
            Err(error) => Err(refused(operation, &error)),
        }
    }

    fn no_parts<T>(&self) -> Result<T, ProviderError> {
        let (provider, capability) = (EMBEDDED.to_owned(), Capability::Multipart);
        Err(ProviderError::Unsupported { provider, capability })
    }

    fn workspaces(&self, prefix: &Prefix) -> Result<Vec<WorkspaceName>, ProviderError> {
        let mut all = read::blob_workspaces(&*self.hub.authority.view())
            .map_err(|error| refused("list files", &error.into()))?;
        let is_inside = |name: &WorkspaceName| {
            Prefix::workspace(name).is_ok_and(|of| of.as_str().starts_with(prefix.as_str()))
        };
        all.retain(is_inside);
        Ok(all)
    }
}

fn milliseconds(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

impl ObjectStorageProvider for EmbeddedProvider {
    fn id(&self) -> &str {
        EMBEDDED
    }

    /// A file goes up whole, and an upload that was cut begins anew; what replaces a file can only
    /// be the same bytes, so nobody is told that it is there.
    fn capabilities(&self) -> Capabilities {
        Capabilities::all().without(Capability::Multipart).without(Capability::IfNoneMatch)
    }

    fn presign_upload(
        &self,
        upload: &Upload,
        grant: expiry::Grant,
    ) -> Result<Presigned, ProviderError> {
        let mime = upload.mime().to_owned();
        let asked = Grant::asked("PUT", upload.size_bytes(), mime, &Download::default());
        Ok(self.sign(Method::Put, upload.key(), asked, grant.expires_at_ms()))
    }

    fn presign_download(
        &self,
        key: &ObjectKey,
        download: &Download,
        grant: expiry::Grant,
    ) -> Result<Presigned, ProviderError> {
        // The row of a file says what type it has.
        let hash = BlobHash::Sha256(*key.sha256());
        let described = self.hub.authority.described(key.workspace(), &hash);
        let (mime, _) = described.map_err(|error| refused("sign a URL", &error))?;
        let mime = if mime.is_empty() { ANY_TYPE.to_owned() } else { mime };
        let asked = Grant::asked("GET", 0, mime, download);
        Ok(self.sign(Method::Get, key, asked, grant.expires_at_ms()))
    }

    fn begin_multipart(&self, _: &Upload, _: u64) -> Result<MultipartId, ProviderError> {
        self.no_parts()
    }

    fn stored_parts(
        &self,
        _: &Upload,
        _: &MultipartId,
        _: u64,
    ) -> Result<Vec<StoredPart>, ProviderError> {
        self.no_parts()
    }

    fn presign_part(
        &self,
        _: &Upload,
        _: &MultipartId,
        _: PartToSend,
        _: expiry::Grant,
    ) -> Result<Presigned, ProviderError> {
        self.no_parts()
    }

    fn complete_multipart(
        &self,
        _: &Upload,
        _: &MultipartId,
        _: u64,
    ) -> Result<Completed, ProviderError> {
        self.no_parts()
    }

    fn abort_multipart(&self, _: &ObjectKey, _: &MultipartId, _: u64) -> Result<(), ProviderError> {
        self.no_parts()
    }

    fn head(&self, key: &ObjectKey, _: u64) -> Result<Option<Head>, ProviderError> {
        let file = self.file("look at a file", key)?;
        let sha256 = Some(*key.sha256());
        Ok(file.map(|file| Head { size_bytes: file.size_bytes(), sha256 }))
    }

    fn read(&self, key: &ObjectKey, _: u64) -> Result<Option<Box<dyn Read + Send>>, ProviderError> {
        let file = self.file("read a file", key)?;
        Ok(file.map(|file| Box::new(Bytes { file, at: 0 }) as Box<dyn Read + Send>))
    }

    /// As a garbage collection does it, but at once and whatever names the file.
    fn delete(&self, key: &ObjectKey, _: u64) -> Result<(), ProviderError> {
        let dropped = self.hub.authority.drop_file(key.workspace(), key.sha256());
        dropped.map_err(|error| refused("delete a file", &error))
    }

    fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        max_objects: usize,
        _: u64,
    ) -> Result<Page, ProviderError> {
        let (view, mut objects) = (self.hub.authority.view(), Vec::new());
        for workspace in self.workspaces(prefix)? {
            let visited = read::visit_blobs(&*view, &workspace, &mut |stored| {
                let hash = BlobHash::Sha256(stored.blob.sha256);
                if let Ok(key) = ObjectKey::new(&workspace, hash)
                    && after.is_none_or(|after| key.as_str() > after)
                {
                    objects.push(Listed { key, size_bytes: stored.blob.size });
                }
                Ok(())
            });
            visited.map_err(|error| refused("list files", &error.into()))?;
        }
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        let is_more = objects.len() > max_objects;
        objects.truncate(max_objects);
        let last = objects.last().map(|listed| listed.key.as_str().to_owned());
        Ok(Page { objects, strays: Vec::new(), next: last.filter(|_| is_more) })
    }
}

/// A file from its beginning.
struct Bytes {
    file: MemberFile,
    at: u64,
}

impl Read for Bytes {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_from(self.at).map_err(io::Error::other)?;
        let len = bytes.len().min(out.len());
        let (filled, _) = out.split_at_mut(len);
        filled.copy_from_slice(bytes.get(..len).unwrap_or_default());
        self.at += len as u64;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lastword::core::id::DeviceId;
    use lastword::{AttachRequest, Authority};
    use lastword_providers::client::Client;
    use lastword_providers::conformance::{NotEnforced, Outcome, Point, World, run};
    use lastword_providers::http::HttpClient;
    use tokio::sync::watch;

    use super::*;
    use crate::listener::{Listener, Upgraded};
    use crate::members::Members;
    use crate::serve::router;

    struct Now(Client);

    impl World for Now {
        fn http(&self) -> &dyn HttpClient {
            &self.0
        }

        fn now_ms(&self) -> u64 {
            u64::try_from(lastword::now_ms()).expect("after 1970")
        }

        fn wait_until(&self, at_ms: u64) {
            assert!(at_ms < self.now_ms(), "the time of signing is an input");
        }
    }

    fn make(authority: &Authority, workspace: &str) {
        let request = AttachRequest {
            attachment: 1,
            device: DeviceId([1; 16]),
            user: "ann".into(),
            decided: 0,
            epoch: None,
            received_to: 0,
            horizon: 0,
            cover: [0; 16],
            create: true,
        };
        let (tell, told) = std::sync::mpsc::channel();
        let done = move |made: lastword::Result<_>| {
            tell.send(made.is_ok()).expect("somebody waits");
        };
        let name = WorkspaceName::new(workspace).expect("a name");
        authority.attach(name, request, done).expect("it is open");
        assert!(told.recv_timeout(Duration::from_secs(60)).expect("it answers"), "{workspace}");
    }

    /// R5.1, R8.1, R8.2: what every store of files must do, this server's own one does, over its
    /// own signed URLs and a real socket. The type of a file stands in its row, and the suite
    /// writes none.
    #[test]
    fn the_embedded_store_conforms() {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(dir.path()).expect("it opens");
        let hub = Hub::new(authority.clone(), Members::Dev);
        for point in Point::ALL {
            for more in ["", "a", "-b"] {
                make(&authority, &format!("e.{point}{more}"));
            }
        }
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let (_stop, stopping) = watch::channel(false);
        let app = router(&hub, stopping).into_make_service_with_connect_info::<Upgraded>();
        runtime.spawn(async move { axum::serve(Listener(listener), app).await });
        let provider = EmbeddedProvider::new(Arc::clone(&hub), "ann".into(), base);
        let why = "the type stands in the row of a file".to_owned();
        let marks = [NotEnforced { point: Point::Named, why }];
        let report = run(&provider, &Now(Client::new()), "e", &marks);
        assert_eq!(report.failed(), [], "{report}");
        let skipped = |lacks| {
            let is =
                move |(_, outcome): &&(Point, Outcome)| *outcome == Outcome::NotPromised { lacks };
            report.outcomes.iter().filter(is).count()
        };
        assert_eq!(skipped(Capability::IfNoneMatch), 1, "{report}");
        assert_eq!(report.passed().len() + 2 + skipped(Capability::Multipart), Point::ALL.len());
        drop(runtime);
        authority.close().expect("it closes");
    }
}
