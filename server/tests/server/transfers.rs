//! Files between processes: uploads and downloads in the background, through a server that is
//! killed, a device that is killed, and connections that are cut.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use lastword::{BlobHash, Direction, TransferState, Workspace, hook};

use crate::common::{Device, LIMIT, PATIENCE, Server, command, lastword};

/// Length of the file that goes through kills, in MiB.
fn size_mib() -> usize {
    std::env::var("LASTWORD_FILE_MIB").map_or(48, |text| text.parse().expect("a number"))
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    // xorshift64 (Marsaglia, 2003).
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A proxy that counts what passes; it waits for no one.
struct Counter {
    address: String,
    passed: Arc<(Mutex<Passed>, Condvar)>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Passed {
    up: usize,
    down: usize,
}

impl Counter {
    fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let passed: Arc<(Mutex<Passed>, Condvar)> = Arc::default();
        let (counts, target) = (passed.clone(), server.address());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let (near2, far2) =
                    (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
                let (counts, counts2) = (counts.clone(), counts.clone());
                std::thread::spawn(move || pass(&near, &far, &counts, |all| &mut all.up));
                std::thread::spawn(move || pass(&far2, &near2, &counts2, |all| &mut all.down));
            }
        });
        Self { address, passed }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    fn passed(&self) -> Passed {
        *self.passed.0.lock().expect("no panic")
    }

    /// Waits until that many bytes went up.
    fn wait_up(&self, bytes: usize) {
        let passed = self.passed.0.lock().expect("no panic");
        let waited = self.passed.1.wait_timeout_while(passed, PATIENCE, |all| all.up < bytes);
        assert!(!waited.expect("no panic").1.timed_out(), "{bytes} bytes never went up");
    }
}

fn pass(
    mut from: &TcpStream,
    mut to: &TcpStream,
    counts: &(Mutex<Passed>, Condvar),
    of: impl Fn(&mut Passed) -> &mut usize,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        *of(&mut counts.0.lock().expect("no panic")) += read;
        counts.1.notify_all();
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown(Shutdown::Write);
}

pub fn hash_of(told: &str) -> String {
    told.split_whitespace().next().expect("a hash").to_owned()
}

/// Waits until the transfer of a file has ended well.
fn wait_for_end(ws: &Workspace, direction: Direction, hash: &BlobHash) {
    let until = Instant::now() + PATIENCE;
    loop {
        let view = ws.read().expect("the store reads");
        let Some(row) = ws.files().transfer(direction, hash).expect("the store reads") else {
            return;
        };
        assert!(row.state != TransferState::Failed, "{row:?}");
        let left = until.saturating_duration_since(Instant::now());
        assert!(ws.wait_after(&view, Some(left)), "stuck: {row:?}");
    }
}

/// Kills a device while it uploads, once that many bytes went up in all.
fn killed_at(dir: &Path, counter: &Counter, bytes: usize) {
    let link = ["--server", &counter.url(), "--token", "ann"];
    let args = [&["sync", "--data", "a"][..], &link].concat();
    let mut upload = command(dir, &args).stdout(Stdio::null()).spawn().expect("the binary runs");
    counter.wait_up(bytes);
    upload.kill().expect("it can be killed");
    upload.wait().expect("it ends");
}

/// R3.1, R3.5, B2: a file that was attached offline is uploaded later by a device that is killed
/// twice on the way, and no chunk that had arrived is sent again. Another device, which has an
/// earlier version, downloads what the edits changed and no more.
#[test]
fn an_upload_survives_kills_and_a_download_brings_what_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let server = Server::start(&dir.join("server"));
    let counter = Counter::before(&server);
    let size = size_mib() << 20;
    let old = noise(1, size);
    fs::write(dir.join("old"), &old).expect("it writes");
    let first = hash_of(&lastword(dir, &["files", "put", "old", "--data", "a"]).ok());
    for share in [1, 2] {
        killed_at(dir, &counter, size * share / 3);
    }
    let link = ["--server", &counter.url(), "--token", "ann"];
    let told = lastword(dir, &[&["sync", "--data", "a"][..], &link].concat()).ok();
    assert!(told.contains("uploaded 1 file"), "{told}");
    let up = counter.passed().up;
    // Twice what was asked for and had not arrived: 64 pieces, about 5 MiB, and as much again that
    // the server still takes from the connection before. And records, lists of chunks, envelopes.
    let limit = size + size / 50 + 2 * (10 << 20);
    assert!(up <= limit, "{up} bytes went up for a file of {size}");

    let get = |hash: &str, out: &str| {
        let args = ["files", "get", hash, "--out", out, "--data", "b"];
        lastword(dir, &[&args[..], &link].concat()).ok();
        fs::read(dir.join(out)).expect("it is there")
    };
    assert!(get(&first, "old.b") == old, "other bytes came");

    let edits = (size_mib() * 35).div_ceil(300);
    let mut new = old;
    for edit in 0..edits {
        let at = (edit * 2 + 1) * size / (2 * edits);
        new.splice(at..at + 7, format!("edit {edit} of this file").into_bytes());
    }
    fs::write(dir.join("new"), &new).expect("it writes");
    let args = ["files", "put", "new", "--data", "a"];
    let second = hash_of(&lastword(dir, &[&args[..], &link].concat()).ok());
    let before = counter.passed().down;
    assert!(get(&second, "new.b") == new, "other bytes came");
    let down = counter.passed().down - before;
    // A name and a length for each chunk of about 64 KiB, and the records.
    let list = size / (48 << 10) * 36 + 20_000;
    assert!(down <= size / 25 + list, "{down} bytes came for {edits} edits of {size} bytes");
}

/// R3.5, R10.2: a server that is killed in the middle of an upload goes on where it was once it is
/// back, by itself; the row says meanwhile why nothing moves.
#[test]
fn an_upload_survives_a_server_that_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let mut server = Server::start(&dir.join("server"));
    let counter = Counter::before(&server);
    let mut device = Device::open(&dir.join("a"));
    let size = 40 << 20;
    let staged = device.ws.files().stage_from(&noise(2, size)[..], "big", &mut |_| {});
    let staged = staged.expect("it is stored");
    let mime = "application/octet-stream";
    device.ws.write(|tx| tx.attach(&staged, mime)).expect("the write is durable");
    device.connect(&counter.url(), "ann");
    counter.wait_up(size / 2);
    server.restart();
    wait_for_end(&device.ws, Direction::Upload, &staged.hash());
    let up = counter.passed().up;
    // A killed server has what it said was stored: 8 MiB may be lost, 4 MiB were on their way.
    assert!(up <= size + (16 << 20), "{up} bytes went up for a file of {size}");
    // The server says so in the row, which comes in the stream.
    let until = Instant::now() + LIMIT;
    loop {
        let view = device.ws.read().expect("the store reads");
        let listed = device.ws.files().list().expect("the store reads");
        if listed[0].is_uploaded {
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        assert!(device.ws.wait_after(&view, Some(left)), "{listed:?}");
    }
    // Evicted, its room is free, and it comes back on demand.
    device.ws.files().evict(&staged.hash()).expect("the server has it");
    assert!(device.ws.files().open(&staged.hash()).is_err());
    device.ws.files().fetch(&staged.hash()).expect("the write is durable");
    wait_for_end(&device.ws, Direction::Download, &staged.hash());
    assert_eq!(device.ws.files().open(&staged.hash()).expect("here").size_bytes(), size as u64);
}

/// R3.5: what a user sees of a transfer that cannot go on: why, and what to do.
#[test]
fn a_transfer_that_cannot_go_on_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let access = ["--dev".to_owned(), "--max-file-bytes".into(), "1MB".into()];
    let server = Server::start_with(&dir.join("server"), &access, "127.0.0.1:0");
    let link = ["--server", &server.url, "--token", "ann"];
    fs::write(dir.join("large"), noise(3, 1_000_001)).expect("it writes");
    fs::write(dir.join("small"), noise(4, 1_000_000)).expect("it writes");
    let put = |file: &str, data: &str| {
        lastword(dir, &[&["files", "put", file, "--data", data][..], &link].concat())
    };
    let told = put("large", "a").fails(1);
    assert!(told.contains("over the limit of 1000000 bytes"), "{told}");
    assert!(told.contains("files resume sha256:"), "{told}");
    let status = lastword(dir, &["files", "status", "--data", "a"]).ok();
    assert!(status.contains("failed") && status.contains("over the limit"), "{status}");
    let hash = hash_of(&put("small", "b").ok());
    let large = status.split_whitespace().find(|word| word.starts_with("sha256:")).expect("it");
    let files =
        |verb: &str, hash: &str, data: &str| lastword(dir, &["files", verb, hash, "--data", data]);
    files("cancel", large, "a").ok();
    let canceled = lastword(dir, &["files", "status", "--data", "a"]).ok();
    assert!(canceled.contains("canceled"), "{canceled}");
    // It is not tried again, and keeps nothing from going on.
    lastword(dir, &[&["sync", "--data", "a"][..], &link].concat()).ok();
    let gone = files("pause", &hash, "b").fails(1);
    assert!(gone.contains("not on its way"), "{gone}");
    // The record of the large one came; its bytes never will.
    let args = ["files", "get", large, "--data", "c", "--timeout", "1s"];
    let missing = lastword(dir, &[&args[..], &link].concat()).fails(4);
    assert!(missing.contains("is not here"), "{missing}");
    files("cancel", large, "c").ok();
    let args = ["files", "get", &hash, "--data", "c", "--out", "copy"];
    lastword(dir, &[&args[..], &link].concat()).ok();
    assert!(fs::read(dir.join("copy")).expect("it is there") == noise(4, 1_000_000));
    files("evict", &hash, "c").ok();
    let listed = lastword(dir, &["files", "list", "--data", "c"]).ok();
    assert!(listed.contains("small: 976.56 KiB, at the server"), "{listed}");
    let refused = files("evict", large, "a").fails(1);
    assert!(refused.contains("is not at the server yet"), "{refused}");
    let offline = lastword(dir, &["files", "get", &hash, "--data", "c", "--offline"]).fails(1);
    assert!(offline.contains("is not here"), "{offline}");
}

/// One HTTP request; status and body of its answer.
pub fn post(address: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).expect("it listens");
    let bearer = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    let len = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{bearer}Content-Type: application/json\r\n\
         Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answered");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
}

/// R7.3: an owner may have the server collect, over HTTP; anybody else gets 403. Whoever is on the
/// machine may too, and is told why each file stays.
#[test]
fn owners_may_collect_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    fs::write(dir.join("members"), "t1, ann, main, owner\nt2, bob, main, editor\n")
        .expect("written");
    let access = ["--tokens".to_owned(), dir.join("members").display().to_string()];
    let server = Server::start_with(&dir.join("srv"), &access, "127.0.0.1:0");
    fs::write(dir.join("doc"), b"hello").expect("it writes");
    let link = ["--server", &server.url, "--token", "t2"];
    lastword(dir, &[&["files", "put", "doc", "--data", "b"][..], &link].concat()).ok();
    let run = |token, body: &str| post(&server.address(), "/api/storage/gc/run", token, body);
    let main = r#"{"workspace_id":"main"}"#;
    for token in [None, Some("t2"), Some("t3")] {
        assert_eq!(run(token, main).0, 403, "{token:?}");
    }
    assert_eq!(run(Some("t1"), r#"{"workspace_id":"other"}"#).0, 403);
    let (status, answer) = run(Some("t1"), main);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!((status, &answer["deleted_count"]), (200, &0.into()), "{answer}");
    assert_eq!(run(Some("t1"), "{}").0, 422);
    let told = lastword(dir, &["admin", "gc", "--dry-run", "--data", "srv"]).ok();
    assert!(told.contains("5 B: stays, something names it"), "{told}");
    let told = lastword(dir, &["admin", "gc", "--json", "--data", "srv"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).expect("one JSON line");
    assert_eq!((&told["files"], &told["dropped_files"]), (&1.into(), &0.into()), "{told}");
    let mut server = server;
    server.terminate();
    let told = lastword(dir, &["gc", "--dry-run", "--data", "srv"]).ok();
    assert!(told.contains("1 file of 5 B"), "{told}");
}

/// One HTTP request with whatever headers and body; status, head and body of its answer.
pub fn http(address: &str, request: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut socket = TcpStream::connect(address).expect("it listens");
    let head = format!("{request}Host: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("sent");
    // A server that refuses at once may close before all of it is taken.
    let _ = socket.write_all(body);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, head, answer.split_off(end + 4))
}

/// R3.3, R8.1, R8.2: a member gets a URL by which a file is read, in ranges too, or brought. What
/// was signed cannot be changed, and whoever is no member any more reads nothing by an older one.
#[test]
fn files_are_read_and_brought_by_signed_urls() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let members = |text: &str| fs::write(dir.join("members"), text).expect("written");
    members("t1, ann, main, owner\nt2, bob, main, viewer\n");
    let access = ["--tokens".to_owned(), dir.join("members").display().to_string()];
    let server = Server::start_with(&dir.join("srv"), &access, "127.0.0.1:0");
    let (address, content) = (server.address(), noise(1, 3_000_000));
    fs::write(dir.join("doc"), &content).expect("it writes");
    let link = ["--server", &server.url, "--token", "t1"];
    let put = [&["files", "put", "doc", "--data", "a"][..], &link].concat();
    let hash = hash_of(&lastword(dir, &put).ok());
    let ask = |what: &str, token, body: &str| {
        let (status, answer) = post(&address, &format!("/api/storage/presign-{what}"), token, body);
        (status, serde_json::from_str::<serde_json::Value>(&answer).unwrap_or_default())
    };
    let wanted = format!(r#"{{"workspace_id":"main","hash":"{hash}","mime_type":"image/png"}}"#);
    assert_eq!(ask("download", Some("t3"), &wanted).0, 403);
    let path = |answer: &serde_json::Value| {
        let url = answer["url"].as_str().expect("a URL").to_owned();
        url.trim_start_matches(&format!("http://{address}")).to_owned()
    };
    let (status, answer) = ask("download", Some("t2"), &wanted);
    assert_eq!(status, 200, "{answer}");
    let get =
        |path: &str, range: &str| http(&address, &format!("GET {path} HTTP/1.1\r\n{range}"), b"");
    let by_viewer = path(&answer);
    let (status, head, body) = get(&by_viewer, "");
    assert_eq!((status, body == content), (200, true), "{head}");
    assert!(head.to_lowercase().contains("content-type: image/png"), "{head}");
    let (status, head, body) = get(&by_viewer, "Range: bytes=1000000-1000009\r\n");
    assert_eq!((status, &body[..]), (206, &content[1_000_000..1_000_010]), "{head}");
    assert!(head.contains("bytes 1000000-1000009/3000000"), "{head}");
    assert_eq!(get(&by_viewer, "Range: bytes=3000000-\r\n").0, 416);
    assert_eq!(get(&by_viewer.replace("image%2Fpng", "text%2Fhtml"), "").0, 403);
    let unknown = wanted.replace(&hash[10..20], "0000000000");
    assert_eq!(ask("download", Some("t1"), &unknown).0, 404);

    // Bringing one.
    let fresh = noise(2, 500_000);
    fs::write(dir.join("fresh"), &fresh).expect("it writes");
    let name = hash_of(&lastword(dir, &["files", "put", "fresh", "--data", "elsewhere"]).ok());
    let offered = format!(
        r#"{{"workspace_id":"main","hash":"{name}","mime_type":"image/png","size_bytes":500000}}"#
    );
    assert_eq!(ask("upload", Some("t2"), &offered).0, 403, "a viewer brings none");
    let (status, answer) = ask("upload", Some("t1"), &offered);
    assert_eq!((status, &answer["method"]), (200, &"PUT".into()), "{answer}");
    let to = path(&answer);
    let bring = |to: &str, mime: &str, body: &[u8]| {
        let len = body.len();
        let head =
            format!("PUT {to} HTTP/1.1\r\nContent-Type: {mime}\r\nContent-Length: {len}\r\n");
        http(&address, &head, body).0
    };
    assert_eq!(bring(&to, "text/html", &fresh), 422, "another type than was signed");
    assert_eq!(bring(&to, "image/png", &fresh[1..]), 422, "another length");
    assert_eq!(bring(&to, "image/png", &noise(3, 500_000)), 422, "another file");
    assert_eq!(bring(&by_viewer, "image/png", &fresh), 403, "a URL to read by");
    assert_eq!(bring(&to, "image/png", &fresh), 200);
    let get_args = ["files", "get", &name, "--data", "b", "--out", "fresh.b"];
    lastword(dir, &[&get_args[..], &link].concat()).ok();
    assert!(fs::read(dir.join("fresh.b")).expect("it is there") == fresh);

    members("t1, ann, main, owner\n");
    lastword(dir, &["admin", "members", "--data", "srv"]).ok();
    assert_eq!(get(&by_viewer, "").0, 403, "bob is no member any more");
}

/// R9.1, R9.2: an app hears of a file before it goes and once it is there, and what it says against
/// one is the error of the transfer, before any byte of it goes.
#[test]
fn an_app_judges_uploads_and_hears_of_transfers() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(&folder.path().join("srv"));
    let mut device = Device::open(&folder.path().join("a"));
    let stage = |content: &[u8], name| {
        device.ws.files().stage_from(content, name, &mut |_| {}).expect("it is stored")
    };
    let (good, bad) = (stage(b"good", "good.txt"), stage(b"bad", "bad.txt"));
    let hooks = device.db.hooks();
    hooks.filter(hook::UPLOAD_POLICY, |file: &hook::Carrying| match file.name.as_str() {
        "bad.txt" => Err(format!("no {} here", file.name)),
        _ => Ok(()),
    });
    let (told, heard) = std::sync::mpsc::channel();
    let told = Mutex::new(told);
    let tell =
        Arc::new(move |what: String| told.lock().expect("no panic").send(what).expect("heard"));
    let (before, after) = (Arc::clone(&tell), tell);
    let begun = move |file: &hook::Carrying| before(format!("before {}", file.name));
    hooks.action(hook::UPLOAD_BEFORE, begun).expect("a thread");
    let ended = move |file: &hook::Carried| after(format!("after {}", file.size_bytes));
    hooks.action(hook::UPLOAD_AFTER, ended).expect("a thread");
    for staged in [&bad, &good] {
        device.ws.write(|tx| tx.attach(staged, "text/plain")).expect("the write is durable");
    }
    device.connect(&server.url, "ann");
    wait_for_end(&device.ws, Direction::Upload, &good.hash());
    let next = || heard.recv_timeout(LIMIT).expect("an event");
    assert_eq!([next(), next()], ["before good.txt", "after 4"]);
    let until = Instant::now() + LIMIT;
    loop {
        let view = device.ws.read().expect("the store reads");
        let row = device.ws.files().transfer(Direction::Upload, &bad.hash()).expect("it reads");
        let row = row.expect("it has not ended well");
        if row.state == TransferState::Failed {
            assert_eq!(row.last_error.as_deref(), Some("no bad.txt here"));
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        assert!(device.ws.wait_after(&view, Some(left)), "stuck: {row:?}");
    }
    assert!(heard.try_recv().is_err(), "nothing is told of what was refused");
}
