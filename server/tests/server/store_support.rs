//! A server that speaks S3, in this process, and a proxy before it that counts, holds and spoils.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use axum::Router;
use axum::error_handling::HandleError;
use axum::http::StatusCode;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::LIMIT;

pub const BUCKET: &str = "lastword";
const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// What the proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It passes half of the body, and no more.
    Hold,
    /// It answers 403, as a store does once a URL has ended.
    Ended,
    /// It changes a byte of the body on its way to the store.
    Spoil,
}

#[derive(Default)]
struct Seen {
    /// Method, path and parameters of each first request of a connection.
    requests: Vec<String>,
    /// What is done with the next requests in whose first line this text is.
    ways: Vec<(String, Way)>,
    held: usize,
}

/// The server and the proxy before it.
pub struct Store {
    address: SocketAddr,
    folder: TempDir,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    _runtime: Runtime,
}

impl Store {
    pub fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a bucket is a folder");
        let mut service = S3ServiceBuilder::new(FileSystem::new(folder.path()).expect("a store"));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let behind = listener.local_addr().expect("an address");
        let failed = |error: s3s::HttpError| async move {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}"))
        };
        let app = Router::new().fallback_service(HandleError::new(service, failed));
        runtime.spawn(async move { axum::serve(listener, app).await });

        let proxy = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = proxy.local_addr().expect("an address");
        let seen: Arc<(Mutex<Seen>, Condvar)> = Arc::default();
        let told = Arc::clone(&seen);
        std::thread::spawn(move || {
            for near in proxy.incoming().map_while(Result::ok) {
                let told = Arc::clone(&told);
                std::thread::spawn(move || carry(near, behind, &told));
            }
        });
        Self { address, folder, seen, _runtime: runtime }
    }

    /// The address that server and devices are given.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Flags of a server that keeps files here, with a file of keys in `dir`.
    pub fn flags(&self, dir: &Path) -> Vec<String> {
        let keys = dir.join("keys");
        let text = format!("access_key = {ACCESS_KEY}\nsecret_key = {SECRET_KEY}\n");
        std::fs::write(&keys, text).expect("written");
        only_ours(&keys, 0o600);
        let endpoint = self.endpoint();
        let keys = keys.display().to_string();
        [
            ["--files-provider", "s3"],
            ["--s3-endpoint", &endpoint],
            ["--s3-bucket", BUCKET],
            ["--s3-keys", &keys],
            // It answers 400 to wrong bytes and keeps them.
            ["--s3-lacks", "checksum_bound"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }

    /// Where the object of a file lies.
    pub fn path(&self, workspace: &str, hash: &str) -> PathBuf {
        let hex = hash.trim_start_matches("sha256:");
        let key = format!("{BUCKET}/ws/{workspace}/sha256/{}/{hex}", &hex[..2]);
        self.folder.path().join(key)
    }

    /// Does this with the next request in whose first line that text is.
    pub fn meet(&self, text: &str, way: Way) {
        self.seen.0.lock().expect("no panic").ways.push((text.to_owned(), way));
    }

    /// Waits until a request is held.
    pub fn wait_held(&self) {
        let until = Instant::now() + LIMIT;
        let mut seen = self.seen.0.lock().expect("no panic");
        while seen.held == 0 {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing is held: {:?}", seen.requests);
            seen = self.seen.1.wait_timeout(seen, left).expect("no panic").0;
        }
    }

    /// The requests in whose first line each of these texts is.
    pub fn requests(&self, texts: &[&str]) -> Vec<String> {
        let seen = self.seen.0.lock().expect("no panic");
        let is = |line: &&String| texts.iter().all(|text| line.contains(text));
        seen.requests.iter().filter(is).cloned().collect()
    }
}

pub fn only_ours(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("the mode is set");
}

/// The head of a request, and what of its body came with it.
fn head(near: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        let read = near.read(&mut piece).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).ok()?, rest));
        }
    }
}

fn carry(mut near: TcpStream, behind: SocketAddr, told: &Arc<(Mutex<Seen>, Condvar)>) {
    let Some((text, mut body)) = head(&mut near) else { return };
    let line = text.lines().next().unwrap_or_default().to_owned();
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.unwrap_or(0);
    let way = {
        let mut seen = told.0.lock().expect("no panic");
        seen.requests.push(line.clone());
        let at = seen.ways.iter().position(|(text, _)| line.contains(text));
        at.map(|at| seen.ways.remove(at).1)
    };
    let Ok(mut far) = TcpStream::connect(behind) else { return };
    match way {
        Some(Way::Ended) => {
            let mut rest = vec![0; length - body.len()];
            let _ = near.read_exact(&mut rest);
            let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = near.write_all(answer.as_bytes());
            return;
        }
        Some(Way::Hold) => {
            let _ = far.write_all(text.as_bytes());
            let mut half = vec![0; (length / 2).saturating_sub(body.len())];
            let _ = near.read_exact(&mut half);
            let _ = far.write_all(&[body, half].concat());
            told.0.lock().expect("no panic").held += 1;
            told.1.notify_all();
            // Until whoever sends it is gone.
            while let Ok(1..) = near.read(&mut [0; 1024]) {}
            return;
        }
        Some(Way::Spoil) => match body.first_mut() {
            Some(byte) => *byte ^= 1,
            None => {
                let mut first = [0];
                let _ = near.read_exact(&mut first);
                body.push(first[0] ^ 1);
            }
        },
        None => {}
    }
    let _ = far.write_all(text.as_bytes());
    let _ = far.write_all(&body);
    let (Ok(mut near2), Ok(mut far2)) = (near.try_clone(), far.try_clone()) else { return };
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut near2, &mut far2);
        let _ = far2.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut far, &mut near);
    let _ = near.shutdown(Shutdown::Write);
    let _ = up.join();
}
