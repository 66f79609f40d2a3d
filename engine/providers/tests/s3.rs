//! S3 against a server that verifies signatures: s3s with its store on the file system, in this
//! process, with credentials. By hand: docs/operations.md, "Try an object store".
//!
//! What s3s 0.14 and s3s-fs 0.14 check: the signature over method, path, query and signed headers;
//! the expiry of a URL; the length, because it is a signed header; `if-none-match`. What they do
//! not is in `NOT_ENFORCED`: the suite plays those points too, and fails once the server enforces
//! one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::error_handling::HandleError;
use axum::http::StatusCode;
use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_providers::capability::{Capabilities, Capability};
use lastword_providers::client::Client;
use lastword_providers::commit::{CommitError, verify, verify_bytes};
use lastword_providers::conformance::{NotEnforced, Outcome, Point, World, run};
use lastword_providers::expiry::Grant;
use lastword_providers::http::{HttpClient, HttpError};
use lastword_providers::key::{ObjectKey, Prefix};
use lastword_providers::provider::{ObjectStorageProvider, PartToSend, ProviderError};
use lastword_providers::s3::{Credentials, S3Config, S3Provider, Style};
use lastword_providers::upload::Upload;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const BUCKET: &str = "lastword";
const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

const NOT_ENFORCED: &[(Point, &str)] = &[
    (Point::WrongChecksum, "s3s-fs answers 400 to wrong bytes and keeps them"),
    (Point::WrongPart, "s3s-fs compares no checksum of a part"),
    (Point::AbortTwice, "s3s-fs answers 403, not 404, for an upload that is gone"),
];

/// The server, in this process.
struct Server {
    address: SocketAddr,
    folder: TempDir,
    _runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a bucket is a folder");
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path()).expect("a store"));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let failed = |error: s3s::HttpError| async move {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}"))
        };
        let app = Router::new().fallback_service(HandleError::new(service, failed));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { address, folder, _runtime: runtime }
    }

    fn provider(&self, secret_key: &str) -> S3Provider {
        self.promising(secret_key, Capabilities::all())
    }

    fn promising(&self, secret_key: &str, capabilities: Capabilities) -> S3Provider {
        let config = S3Config {
            id: "s3".to_owned(),
            endpoint: format!("http://{}", self.address),
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            style: Style::Path,
            credentials: Credentials::new(ACCESS_KEY, secret_key),
            capabilities,
        };
        S3Provider::new(config, Arc::new(Client::new())).expect("a provider")
    }
}

/// The real clock. Nothing here waits: URLs that must have ended are signed in the past.
struct Now(Client);

impl World for Now {
    fn http(&self) -> &dyn HttpClient {
        &self.0
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        u64::try_from(since.as_millis()).expect("before the year 500 million")
    }

    fn wait_until(&self, at_ms: u64) {
        assert!(at_ms < self.now_ms(), "S3 takes the time of signing from us");
    }
}

fn now() -> Now {
    Now(Client::new())
}

fn file() -> (Upload, Vec<u8>) {
    let bytes = b"some bytes".to_vec();
    let workspace = WorkspaceName::new("main").expect("a name");
    let hash = BlobHash::Sha256(Sha256::digest(&bytes).into());
    let key = ObjectKey::new(&workspace, hash).expect("a key");
    (Upload::new(key, bytes.len() as u64, "image/png").expect("an upload"), bytes)
}

#[test]
fn r5_1_s3_passes_every_point_that_its_server_enforces() {
    let server = Server::start();
    let marks = NOT_ENFORCED.iter().map(|(point, why)| {
        let why = (*why).to_owned();
        NotEnforced { point: *point, why }
    });
    let marks: Vec<_> = marks.collect();
    let report = run(&server.provider(SECRET_KEY), &now(), "s3", &marks);
    assert_eq!(report.failed(), [], "{report}");
    let marked = |point: &Point| NOT_ENFORCED.iter().any(|(marked, _)| marked == point);
    let expected: Vec<_> = Point::ALL.iter().copied().filter(|point| !marked(point)).collect();
    assert_eq!(report.passed(), expected, "{report}");
    for (point, outcome) in &report.outcomes {
        let said = matches!(outcome, Outcome::NotEnforced { .. });
        assert_eq!(said, marked(point), "{point}: {outcome:?}");
    }
}

/// The server proves something only if it refuses another secret.
#[test]
fn r8_1_another_secret_opens_nothing() {
    let server = Server::start();
    let (world, (upload, bytes)) = (now(), file());
    let stranger = server.provider("another secret");
    let grant = Grant::at(world.now_ms());
    let url = stranger.presign_upload(&upload, grant).expect("anybody can sign");
    assert_eq!(world.0.send(url.request(bytes)).expect("an answer").status, 403);
    let error = stranger.list(&Prefix::all(), None, 10, world.now_ms());
    let error = error.expect_err("the server's own calls are refused too");
    let ProviderError::Refused { status: 403, code, .. } = &error else { panic!("{error}") };
    assert_eq!(code, "SignatureDoesNotMatch");
    assert!(!error.is_retryable());
}

/// Where an object lies is seen on the disk of the server: the exact key, below the bucket.
#[test]
fn r4_1_an_object_lies_where_its_key_says() {
    let server = Server::start();
    let (world, (upload, bytes)) = (now(), file());
    let provider = server.provider(SECRET_KEY);
    let url = provider.presign_upload(&upload, Grant::at(world.now_ms())).expect("a URL");
    assert_eq!(world.0.send(url.request(bytes.clone())).expect("an answer").status, 200);
    let path = server.folder.path().join(BUCKET).join(Path::new(upload.key().as_str()));
    assert_eq!(std::fs::read(path).expect("the object"), bytes);
}

/// Headers that were signed must come as they were signed, and all of them.
#[test]
fn r8_2_a_signed_header_left_out_or_changed_is_refused() {
    let server = Server::start();
    let (world, (upload, bytes)) = (now(), file());
    let provider = server.provider(SECRET_KEY);
    let url = provider.presign_upload(&upload, Grant::at(world.now_ms())).expect("a URL");
    let names: Vec<&str> = url.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-type", "x-amz-checksum-sha256", "if-none-match"]);
    assert!(url.url.contains(
        "X-Amz-SignedHeaders=content-length%3Bcontent-type%3Bhost%3Bif-none-match%3Bx-amz-checksum"
    ));
    for i in 0..url.headers.len() {
        let mut request = url.request(bytes.clone());
        request.headers[i].1 = "text/html".to_owned();
        let status = world.0.send(request).expect("an answer").status;
        assert!((400..500).contains(&status), "{} changed: {status}", url.headers[i].0);
        let mut request = url.request(bytes.clone());
        request.headers.remove(i);
        let status = world.0.send(request).expect("an answer").status;
        assert!((400..500).contains(&status), "{} left out: {status}", url.headers[i].0);
    }
    assert_eq!(provider.head(upload.key(), world.now_ms()).expect("an answer"), None);
}

fn send(world: &Now, provider: &S3Provider, upload: &Upload, bytes: &[u8]) -> u16 {
    let url = provider.presign_upload(upload, Grant::at(world.now_ms())).expect("a URL");
    world.0.send(url.request(bytes.to_vec())).expect("an answer").status
}

/// Found with s3s-fs: it compares the checksum after it stored the bytes. The upload is refused,
/// the wrong bytes stay, and `if-none-match` keeps the right ones out. The check at commit finds
/// them, and once they are deleted the right ones go in.
#[test]
fn r3_4_bytes_that_a_store_refused_and_kept_are_found() {
    let server = Server::start();
    let (world, (upload, bytes)) = (now(), file());
    let provider = server.provider(SECRET_KEY);
    let mut wrong = bytes.clone();
    wrong[0] ^= 1;
    assert_eq!(send(&world, &provider, &upload, &wrong), 400);
    assert_eq!(send(&world, &provider, &upload, &bytes), 412, "the wrong ones lie in the way");
    let error = verify(&provider, &upload, world.now_ms()).expect_err("other bytes");
    assert!(matches!(error, CommitError::Checksum { .. }), "{error}");

    provider.delete(upload.key(), world.now_ms()).expect("deleted");
    assert_eq!(send(&world, &provider, &upload, &bytes), 200);
    verify(&provider, &upload, world.now_ms()).expect("the right ones");
}

/// Found with s3s-fs: a deletion leaves the checksum of the object on its disk, and wrong bytes
/// that it refuses and keeps are given that checksum. So a store that fails
/// `wrong_checksum_refused` must not be said to compare checksums: then it is not believed, and the
/// bytes are read.
#[test]
fn r3_4_a_store_that_keeps_wrong_bytes_is_not_believed() {
    let server = Server::start();
    let (world, (upload, bytes)) = (now(), file());
    let all = server.provider(SECRET_KEY);
    let without = Capabilities::all().without(Capability::ChecksumBound);
    let honest = server.promising(SECRET_KEY, without);
    assert_eq!(send(&world, &all, &upload, &bytes), 200);
    all.delete(upload.key(), world.now_ms()).expect("deleted");
    let mut wrong = bytes.clone();
    wrong[0] ^= 1;
    assert_eq!(send(&world, &all, &upload, &wrong), 400);
    let head = all.head(upload.key(), world.now_ms()).expect("an answer").expect("wrong bytes");
    assert_eq!(head.sha256, Some(*upload.key().sha256()), "the store lies");

    let error = verify(&honest, &upload, world.now_ms()).expect_err("other bytes");
    assert!(matches!(error, CommitError::Checksum { .. }), "{error}");
    let error = verify_bytes(&all, &upload, world.now_ms()).expect_err("other bytes");
    assert!(matches!(error, CommitError::Checksum { .. }), "{error}");
}

#[test]
fn r5_2_s3_that_is_said_to_compare_no_checksums_passes_the_rest() {
    let server = Server::start();
    let lacks = Capability::ChecksumBound;
    let provider = server.promising(SECRET_KEY, Capabilities::all().without(lacks));
    let (point, why) = (Point::AbortTwice, "403 for an upload that is gone".to_owned());
    let report = run(&provider, &now(), "s3", &[NotEnforced { point, why }]);
    assert_eq!(report.failed(), [], "{report}");
    let skipped = report.outcomes.iter().filter(|(_, o)| *o == Outcome::NotPromised { lacks });
    let skipped: Vec<_> = skipped.map(|(point, _)| *point).collect();
    assert_eq!(skipped, [Point::WrongChecksum, Point::WrongPart]);
}

/// AWS refuses headers of its own that were not signed; s3s takes them. `x-amz-acl` is the one that
/// would matter. Said in docs/operations.md; this fails once s3s refuses it.
#[test]
fn an_unsigned_header_of_the_store_is_taken_by_this_server() {
    let server = Server::start();
    let (world, (upload, bytes)) = (now(), file());
    let provider = server.provider(SECRET_KEY);
    let url = provider.presign_upload(&upload, Grant::at(world.now_ms())).expect("a URL");
    let mut request = url.request(bytes);
    request.headers.push(("x-amz-acl".to_owned(), "public-read".to_owned()));
    assert_eq!(world.0.send(request).expect("an answer").status, 200);
}

/// A device that goes away in the middle of a body leaves nothing at the store.
#[test]
fn r3_5_half_an_upload_leaves_nothing() {
    let server = Server::start();
    let (world, (upload, bytes)) = (now(), file());
    let provider = server.provider(SECRET_KEY);
    let url = provider.presign_upload(&upload, Grant::at(world.now_ms())).expect("a URL");
    let host = server.address.to_string();
    let path = url.url.strip_prefix(&format!("http://{host}")).expect("its own host");
    let mut head = format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in &url.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", bytes.len()));
    let mut socket = TcpStream::connect(server.address).expect("a connection");
    socket.write_all(head.as_bytes()).expect("sent");
    socket.write_all(&bytes[..5]).expect("sent");
    socket.shutdown(Shutdown::Write).expect("cut");
    let mut answer = Vec::new();
    // Whether it still answers is the server's affair; when it closes, it is done with the request.
    let _ = socket.read_to_end(&mut answer);
    assert_eq!(provider.head(upload.key(), world.now_ms()).expect("an answer"), None);
    assert_eq!(send(&world, &provider, &upload, &bytes), 200);
    verify(&provider, &upload, world.now_ms()).expect("the whole file");
}

/// A store that compares no checksum of a part takes other bytes: the check at commit reads them
/// all.
#[test]
fn r3_4_a_wrong_part_that_a_store_took_is_found() {
    let server = Server::start();
    let (world, (upload, mut bytes)) = (now(), file());
    let provider = server.provider(SECRET_KEY);
    let now_ms = world.now_ms();
    let id = provider.begin_multipart(&upload, now_ms).expect("an upload");
    let part = PartToSend { number: 1, sha256: *upload.key().sha256() };
    let url = provider.presign_part(&upload, &id, part, Grant::at(now_ms)).expect("a URL");
    bytes[0] ^= 1;
    assert_eq!(world.0.send(url.request(bytes)).expect("an answer").status, 200);
    provider.complete_multipart(&upload, &id, now_ms).expect("the size is right");
    let error = verify(&provider, &upload, now_ms).expect_err("other bytes");
    assert!(matches!(error, CommitError::Checksum { .. }), "{error}");
}

#[test]
fn a_store_that_is_away_is_no_refusal() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let config = S3Config {
        id: "s3".to_owned(),
        endpoint: format!("http://{address}"),
        region: "us-east-1".to_owned(),
        bucket: BUCKET.to_owned(),
        style: Style::Path,
        credentials: Credentials::new(ACCESS_KEY, SECRET_KEY),
        capabilities: Capabilities::all().without(Capability::List),
    };
    let provider = S3Provider::new(config, Arc::new(Client::new())).expect("a provider");
    let error = provider.head(file().0.key(), 0).expect_err("nobody is there");
    let away = matches!(&error, ProviderError::Http { source: HttpError::Connect { .. }, .. });
    assert!(away && error.is_retryable(), "{error:?}");
    let error = provider.list(&Prefix::all(), None, 10, 0);
    let lacks =
        matches!(error, Err(ProviderError::Unsupported { capability: Capability::List, .. }));
    assert!(lacks, "what is not promised is not tried");
}
