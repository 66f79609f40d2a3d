//! Files that a store speaking S3 keeps for a real server, with real devices.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use crate::common::{Device, LIMIT, Server, command, json_of, lastword};
use crate::store_support::{SECRET_KEY, Store, Way, only_ours};
use crate::transfers::{hash_of, http, noise, post};

const MIB: usize = 1 << 20;

fn serve(dir: &Path, store: &Store, more: &[&str]) -> Server {
    let mut access: Vec<String> = more.iter().map(ToString::to_string).collect();
    access.extend(store.flags(dir));
    Server::start_with(&dir.join("srv"), &access, "127.0.0.1:0")
}

fn linked(dir: &Path, server: &Server, token: &str, args: &[&str]) -> crate::common::Ran {
    lastword(dir, &[args, &["--server", &server.url, "--token", token]].concat())
}

/// R3.3, R3.4, R3.5, R4.1: a file goes to the store in parts, from a device that is killed on the
/// way; parts that were there are not sent again. Another device reads it from there, by ranges
/// with URLs of which one has ended. The same file in another workspace is an object of its own.
#[test]
fn a_file_travels_by_way_of_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, store) = (folder.path(), Store::start());
    let server = serve(dir, &store, &["--dev"]);
    let content = noise(1, 20 * MIB);
    fs::write(dir.join("big"), &content).expect("it writes");
    let hash = hash_of(&lastword(dir, &["files", "put", "big", "--data", "a"]).ok());

    store.meet("partNumber=2", Way::Hold);
    let args = ["sync", "--data", "a", "--server", &server.url, "--token", "ann"];
    let mut upload = command(dir, &args).stdout(Stdio::null()).spawn().expect("the binary runs");
    store.wait_held();
    upload.kill().expect("it can be killed");
    upload.wait().expect("it ends");
    assert!(!store.path("main", &hash).exists());
    let told = lastword(dir, &["admin", "status", "--data", "srv"]).ok();
    assert!(told.contains("new files: s3") && told.contains("1 upload under way"), "{told}");

    store.meet("partNumber=3", Way::Ended);
    let told = linked(dir, &server, "ann", &["sync", "--data", "a"]).ok();
    assert!(told.contains("uploaded 1 file"), "{told}");
    assert!(fs::read(store.path("main", &hash)).expect("the object") == content);
    let parts = |number: &str| store.requests(&["PUT", &format!("partNumber={number}")]).len();
    assert_eq!([parts("1"), parts("2"), parts("3")], [1, 2, 2]);
    let told = json_of(dir, &["admin", "status", "--data", "srv", "--json"]);
    assert_eq!(told["files_provider"], "s3");
    assert_eq!(told["objects"][0]["bytes"], 20 * MIB, "{told}");

    store.meet("GET", Way::Ended);
    let get = ["files", "get", &hash, "--out", "copy", "--data", "b"];
    linked(dir, &server, "bob", &get).ok();
    assert!(fs::read(dir.join("copy")).expect("it is there") == content);
    // It stays for the time without a network.
    let offline = ["files", "get", &hash, "--out", "again", "--data", "b", "--offline"];
    lastword(dir, &offline).ok();
    assert!(fs::read(dir.join("again")).expect("it is there") == content);

    let put = ["files", "put", "big", "--data", "c", "--workspace", "other"];
    linked(dir, &server, "ann", &put).ok();
    assert!(fs::read(store.path("other", &hash)).expect("its own object") == content);
}

/// R3.4, I32: bytes that were changed on their way, or at the store, reach nobody: they are found,
/// deleted, and brought again by the device that has the file.
#[test]
fn wrong_bytes_at_a_store_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, store) = (folder.path(), Store::start());
    let server = serve(dir, &store, &["--dev"]);
    let content = noise(2, 300_000);
    fs::write(dir.join("doc"), &content).expect("it writes");
    store.meet("PUT /lastword/ws/main", Way::Spoil);
    let told = linked(dir, &server, "ann", &["files", "put", "doc", "--data", "a"]).ok();
    let hash = hash_of(&told);
    assert!(store.requests(&["PUT /lastword/ws/main"]).len() >= 2, "it was brought again");
    assert!(fs::read(store.path("main", &hash)).expect("the object") == content);

    let mut rotten = content.clone();
    rotten[1000] ^= 1;
    fs::write(store.path("main", &hash), rotten).expect("it rots");
    let args = ["files", "get", &hash, "--out", "copy", "--data", "b", "--timeout", "2s"];
    let told = linked(dir, &server, "bob", &args).fails(4);
    assert!(told.contains("is not here"), "{told}");
    assert!(!dir.join("copy").exists() && !store.path("main", &hash).exists());
    // The device that has it hears that the server does not, and brings it again.
    let mut device = Device::open(&dir.join("a"));
    device.connect(&server.url, "ann");
    device.caught_up();
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
    linked(dir, &server, "bob", &["files", "get", &hash, "--out", "copy", "--data", "b"]).ok();
    assert!(fs::read(dir.join("copy")).expect("it is there") == content);
}

/// R8.1, R8.2, R10.3, R7.2: who is no member gets no URL, and who has none reads nothing; a full
/// workspace takes no more; and of two objects the one that nothing names goes.
#[test]
fn a_store_gives_and_keeps_no_more_than_it_should() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, store) = (folder.path(), Store::start());
    let members = "t1, ann, main, owner\nt2, bob, main, viewer\n";
    fs::write(dir.join("members"), members).expect("written");
    let tokens = dir.join("members").display().to_string();
    let access = ["--tokens", &tokens, "--max-files-bytes", "1MB", "--gc-every", "0h"];
    let server = serve(dir, &store, &access);
    fs::write(dir.join("doc"), noise(3, 500_000)).expect("it writes");
    let hash = hash_of(&linked(dir, &server, "t1", &["files", "put", "doc", "--data", "a"]).ok());
    fs::write(dir.join("more"), noise(4, 600_000)).expect("it writes");
    let told = linked(dir, &server, "t1", &["files", "put", "more", "--data", "a"]).fails(1);
    assert!(told.contains("no room"), "{told}");

    let ask = |what: &str, token, body: &str| {
        let (status, answer) =
            post(&server.address(), &format!("/api/storage/{what}"), token, body);
        (status, serde_json::from_str::<serde_json::Value>(&answer).unwrap_or_default())
    };
    let wanted = format!(r#"{{"workspace_id":"main","hash":"{hash}"}}"#);
    assert_eq!(ask("presign-download", None, &wanted).0, 403);
    assert_eq!(ask("presign-download", Some("t3"), &wanted).0, 403);
    let (status, answer) = ask("presign-download", Some("t2"), &wanted);
    assert_eq!(status, 200, "{answer}");
    let url = answer["url"].as_str().expect("a URL");
    let host = store.endpoint().trim_start_matches("http://").to_owned();
    let get = |path: &str| http(&host, &format!("GET {path} HTTP/1.1\r\n"), b"");
    let path = url.trim_start_matches(&store.endpoint());
    let (status, head, body) = get(path);
    assert!(status == 200 && body == noise(3, 500_000), "{head}");
    assert!(head.to_lowercase().contains("content-disposition: attachment"), "{head}");
    assert_eq!(get(path.split('?').next().expect("a path")).0, 403);

    // Brought by URL and never named by a record.
    let fresh = noise(5, 200_000);
    fs::write(dir.join("fresh"), &fresh).expect("it writes");
    let name = hash_of(&lastword(dir, &["files", "put", "fresh", "--data", "elsewhere"]).ok());
    let offered = format!(
        r#"{{"workspace_id":"main","hash":"{name}","mime_type":"image/png","size_bytes":200000}}"#
    );
    assert_eq!(ask("presign-upload", Some("t2"), &offered).0, 403, "a viewer brings none");
    assert_eq!(ask("commit", Some("t2"), &offered).0, 403);
    assert_eq!(ask("commit", Some("t1"), &offered).0, 422, "nothing is there yet");
    let (status, answer) = ask("presign-upload", Some("t1"), &offered);
    assert_eq!(status, 200, "{answer}");
    let path = answer["url"].as_str().expect("a URL").trim_start_matches(&store.endpoint());
    let mut head = format!("PUT {path} HTTP/1.1\r\nContent-Length: 200000\r\n");
    for (name, value) in answer["headers"].as_object().expect("headers") {
        head.push_str(&format!("{name}: {}\r\n", value.as_str().expect("text")));
    }
    assert_eq!(http(&host, &head, &fresh).0, 200);
    assert_eq!(ask("commit", Some("t1"), &wanted.replace(&hash, &name)).0, 422, "no size");
    assert_eq!(ask("commit", Some("t1"), &offered), (200, serde_json::json!({ "ok": true })));
    assert!(store.path("main", &name).exists());

    let gc = |more: &[&str]| {
        let args = ["admin", "gc", "--data", "srv", "--staged", "0h", "--grace", "0h"];
        lastword(dir, &[&args[..], more].concat()).ok()
    };
    let told = gc(&["--dry-run"]);
    assert!(told.contains("at s3: nothing names it: condemned"), "{told}");
    assert!(told.contains("at s3: stays, something names it"), "{told}");
    gc(&[]);
    assert!(store.path("main", &name).exists(), "not in one step");
    let told = gc(&[]);
    assert!(told.contains("2 files at object stores: deleted 1"), "{told}");
    assert!(!store.path("main", &name).exists() && store.path("main", &hash).exists());
    let args = ["files", "get", &hash, "--out", "copy", "--data", "b"];
    linked(dir, &server, "t2", &args).ok();
}

/// R5.1, R5.2: a store is chosen by its id; whatever is wrong with it is told at start, with what
/// to do, and never with a key in it.
#[test]
fn what_is_wrong_with_a_store_is_told_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, store) = (folder.path(), Store::start());
    let start = |change: &dyn Fn(&mut Vec<String>)| {
        let mut flags = store.flags(dir);
        change(&mut flags);
        let fixed = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data", "srv"];
        let all = [&fixed[..], &flags.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        let told = lastword(dir, &all).fails(1);
        assert!(!told.contains(SECRET_KEY) && !told.contains("Signature="), "{told}");
        told
    };
    let set = |flags: &mut Vec<String>, name: &str, value: &str| {
        let at = flags.iter().position(|flag| flag == name).expect("it is given");
        flags[at + 1] = value.to_owned();
    };
    let told = start(&|flags| set(flags, "--files-provider", "ftp"));
    assert!(told.contains("no provider \"ftp\"; registered: s3"), "{told}");
    let told = start(&|flags| flags.extend(["--s3-lacks".into(), "upload_expires".into()]));
    assert!(told.contains("lacks upload_expires") && told.contains("--accept-missing"), "{told}");
    let told = start(&|flags| set(flags, "--s3-bucket", "nothing-there"));
    assert!(told.contains("make the bucket"), "{told}");
    let told = start(&|flags| set(flags, "--s3-endpoint", "http://127.0.0.1:1"));
    assert!(told.contains("check that it runs"), "{told}");
    let told = start(&|flags| set(flags, "--s3-endpoint", "https://127.0.0.1:1"));
    assert!(told.contains("a proxy that adds TLS"), "{told}");
    let told = start(&|_| only_ours(&dir.join("keys"), 0o644));
    assert!(told.contains("chmod 600"), "{told}");
    let wrong = format!("access_key = a\nsecret_key = {SECRET_KEY}\n");
    let told = start(&|_| fs::write(dir.join("keys"), &wrong).expect("written"));
    assert!(told.contains("check the keys"), "{told}");
    let told = start(&|_| fs::write(dir.join("keys"), SECRET_KEY).expect("written"));
    assert!(told.contains("line 1"), "{told}");
    let accepted = ["--s3-lacks", "upload_expires", "--accept-missing", "upload_expires", "--dev"];
    drop(serve(dir, &store, &accepted));
}
