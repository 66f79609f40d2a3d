//! `lastword files put` and `get` of several files and whole directories.

use std::fs;
use std::path::Path;

use crate::common::{Server, damage_pack, lastword};

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("it has a folder")).expect("it is made");
    fs::write(path, content).expect("it writes");
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

/// R3.1, R4.1: a directory goes in with one command and comes back with one, each file under its
/// path; equal content is stored once.
#[test]
fn a_directory_goes_in_and_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let large: Vec<u8> = (0..900_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    for (path, content) in [
        ("album/a.txt", &b"one"[..]),
        ("album/deep/er/b.txt", b"two"),
        ("album/deep/empty", b""),
        ("album/large", &large),
        ("album/z-copy-of-a.txt", b"one"),
        ("alone.txt", b"three"),
    ] {
        write(&dir.join(path), content);
    }
    let put = ["files", "put", "-r", "album", "alone.txt", "--data", "phone"];
    let told = lastword(dir, &put).ok();
    assert_eq!(told.lines().count(), 7, "{told}");
    assert!(told.contains(" album/deep/er/b.txt: 3 B, 3 B of it new"), "{told}");
    assert!(told.contains(" album/z-copy-of-a.txt: 3 B, 0 B of it new"), "{told}");
    assert!(told.contains("saved 6 files; outbox 1 batch; no server known"), "{told}");
    let json = lines(&lastword(dir, &[&put[..], &["--json"]].concat()).ok());
    let [files @ .., all] = &json[..] else { panic!("{json:?}") };
    assert_eq!((files.len(), &all["files"], &all["new_bytes"]), (6, &6.into(), &0.into()));
    assert!(files.iter().all(|line| line["new_bytes"] == 0 && line["name"].is_string()));

    let told = lastword(dir, &["files", "get", "--all", "back", "--data", "phone"]).ok();
    assert!(told.contains("wrote 5 files of 3.43 MiB"), "{told}");
    for path in ["album/a.txt", "album/deep/er/b.txt", "album/deep/empty", "album/large"] {
        let (was, is) = (fs::read(dir.join(path)), fs::read(dir.join("back").join(path)));
        assert_eq!(is.expect("it is back"), was.expect("it is there"), "{path}");
    }
    assert_eq!(fs::read(dir.join("back/alone.txt")).expect("it is back"), b"three");
    let again = lastword(dir, &["files", "get", "--all", "back", "--data", "phone"]).fails(1);
    assert!(again.contains("is not empty"), "{again}");
}

/// R4.1, I31: what is here, under whatever name, is not cut again, unless it was deleted or a chunk
/// is damaged: then it is stored anew, as ever.
#[test]
fn what_is_here_already_is_not_stored_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    for (path, content) in [("a/1", [b'x'; 50_000]), ("a/2", [b'y'; 50_000])] {
        write(&dir.join(path), &content);
    }
    let put = || lastword(dir, &["files", "put", "-r", "a", "--data", "phone"]).ok();
    let first = put();
    assert!(first.contains("saved 2 files"), "{first}");
    let hash = first.split_whitespace().next().expect("a hash").to_owned();
    let again = put();
    assert!(
        again.contains("2 files here already (") && again.contains("outbox 1 batch"),
        "{again}"
    );
    assert_eq!(again.matches("0 B of it new").count(), 2, "{again}");
    fs::rename(dir.join("a/1"), dir.join("a/other")).expect("it moves");
    assert!(put().contains("2 files here already ("));
    write(&dir.join("a/2"), &[b'z'; 50_000]);
    let changed = put();
    assert!(
        changed.contains("saved 2 files") && changed.contains("48.83 KiB of it new"),
        "{changed}"
    );
    lastword(dir, &["files", "rm", &hash, "--data", "phone"]).ok();
    put();
    assert!(!lastword(dir, &["files", "list", "--data", "phone"]).ok().contains(", deleted"));
    damage_pack(&dir.join("phone"), 250);
    let get = ["files", "get", &hash, "--out", "copy", "--data", "phone"];
    lastword(dir, &get).fails(3);
    put();
    lastword(dir, &get).ok();
    assert_eq!(fs::read(dir.join("copy")).expect("it is there"), [b'x'; 50_000]);
}

/// R3.1: one file that cannot be read is told and keeps no other from being stored; what goes
/// together with nothing is refused before anything is stored.
#[test]
fn files_that_cannot_be_read_keep_no_other_from_being_stored() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    write(&dir.join("album/a"), b"one");
    write(&dir.join("b"), b"two");
    let put =
        |args: &[&str]| lastword(dir, &[&["files", "put", "--data", "phone"][..], args].concat());
    let ran = put(&["nowhere", "album", "b"]);
    assert!(ran.out.contains("saved 1 file;"), "{}", ran.out);
    let told = ran.fails(1);
    assert!(told.contains("nowhere: ") && told.contains("add --recursive"), "{told}");
    assert!(told.contains("2 files could not be stored"), "{told}");
    put(&["album", "b", "--name", "x"]).fails(2);
    put(&["-", "b"]).fails(2);
    assert!(put(&["album"]).fails(1).contains("add --recursive"));
    assert!(put(&["b", "--name", "x"]).ok().contains(" x: 3 B, 0 B of it new"));
}

/// R3.1, line 3 of the promises about files: names come from others. Wherever one points to, its
/// file stays inside the directory; names that are taken or no good do not lose a file.
#[test]
fn names_of_others_lead_nowhere_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let long = "n".repeat(300);
    let names = ["../../up", "/etc/root", "..", "", "same", "same", "same/below", long.as_str()];
    for (at, name) in names.iter().enumerate() {
        write(&dir.join("doc"), format!("content {at}").as_bytes());
        lastword(dir, &["files", "put", "doc", "--name", name, "--data", "phone"]).ok();
    }
    fs::create_dir(dir.join("in")).expect("it is made");
    let told = lastword(dir, &["files", "get", "--all", "in/back", "--data", "phone"]).ok();
    assert!(told.contains("wrote 8 files"), "{told}");
    let read = |path: &str| fs::read_to_string(dir.join("in/back").join(path));
    assert_eq!(read("up").expect("it is inside"), "content 0");
    assert_eq!(read("etc/root").expect("it is inside"), "content 1");
    let hashed = fs::read_dir(dir.join("in/back")).expect("it lists").filter(|entry| {
        let name = entry.as_ref().expect("it is").file_name();
        name.to_string_lossy().starts_with("sha256-")
    });
    assert!((4..=5).contains(&hashed.count()), "{told}");
    assert_eq!(fs::read_dir(dir.join("in")).expect("it lists").count(), 1);
    assert!(!dir.join("up").exists());
}

/// I31: a damaged file is exit code 3 and appears nowhere; the others are written.
#[test]
fn a_damaged_file_keeps_no_other_from_being_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    write(&dir.join("bad"), &[b'x'; 50_000]);
    write(&dir.join("good"), b"good");
    lastword(dir, &["files", "put", "bad", "good", "--data", "phone"]).ok();
    damage_pack(&dir.join("phone"), 250);
    let told = lastword(dir, &["files", "get", "--all", "back", "--data", "phone"]).fails(3);
    assert!(told.contains("is damaged at byte"), "{told}");
    assert_eq!(fs::read(dir.join("back/good")).expect("it is back"), b"good");
    assert_eq!(fs::read_dir(dir.join("back")).expect("it lists").count(), 1);
}

/// R4.2, R7: what one device has put in with one command, another gets with one, fetching it.
#[test]
fn another_device_gets_all_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let server = Server::start_with(&dir.join("srv"), &["--dev".to_owned()], "127.0.0.1:0");
    for at in 0..5 {
        write(&dir.join(format!("album/{at}")), format!("content {at}").as_bytes());
    }
    let link = ["--server", &server.url, "--token", "me"];
    let put = ["files", "put", "--recursive", "album", "--data", "phone", "--wait"];
    let told = lastword(dir, &[&put[..], &link].concat()).ok();
    assert!(told.contains("5 files applied") && told.contains("uploaded 5 files"), "{told}");
    let get = ["files", "get", "--all", "back", "--data", "laptop"];
    let told = lastword(dir, &[&get[..], &link].concat()).ok();
    assert!(told.contains("wrote 5 files"), "{told}");
    assert_eq!(fs::read(dir.join("back/album/3")).expect("it is back"), b"content 3");
}
