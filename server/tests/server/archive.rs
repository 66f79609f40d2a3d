//! `lastword export --files` and `lastword import` of the archive.

use std::fs;
use std::path::Path;

use crate::common::{Server, damage_pack, lastword};

fn store(dir: &Path) {
    fs::create_dir_all(dir.join("album")).expect("it is made");
    let large: Vec<u8> = (0..90_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    for (name, content) in [("a.txt", &b"one"[..]), ("empty", b""), ("large", &large)] {
        fs::write(dir.join("album").join(name), content).expect("it writes");
    }
    lastword(dir, &["files", "put", "-r", "album", "--data", "phone"]).ok();
    lastword(dir, &["put", "notes", "n1", r#"{"text":"hi"}"#, "--data", "phone"]).ok();
    lastword(dir, &["put", "notes", "n2", r#"{"text":"gone"}"#, "--data", "phone"]).ok();
    lastword(dir, &["delete", "notes", "n2", "--data", "phone"]).ok();
}

fn export(dir: &Path, device: &str, archive: &str) -> Vec<u8> {
    lastword(dir, &["export", "--files", archive, "--data", device]).ok();
    fs::read(dir.join(archive)).expect("it is there")
}

/// R3, B1: records and files travel in one archive, an ordinary tar; the copy says the same, byte
/// for byte, and taking it in again changes nothing.
#[test]
fn an_archive_brings_records_and_files() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    store(dir);
    let first = export(dir, "phone", "a.tar");
    assert_eq!(export(dir, "phone", "b.tar"), first);
    let told = lastword(dir, &["import", "a.tar", "--data", "copy", "--json"]).ok();
    assert!(told.contains(r#""files":3"#) && told.contains(r#""written":4"#), "{told}");
    assert_eq!(export(dir, "copy", "c.tar"), first);
    lastword(dir, &["files", "get", "--all", "back", "--data", "copy"]).ok();
    for name in ["a.txt", "empty", "large"] {
        let was = fs::read(dir.join("album").join(name)).expect("it is there");
        assert_eq!(fs::read(dir.join("back/album").join(name)).expect("it is back"), was, "{name}");
    }
    let told = lastword(dir, &["import", "a.tar", "--data", "copy", "--json"]).ok();
    assert!(told.contains(r#""files":0"#) && told.contains(r#""written":0"#), "{told}");
    let mut entries = tar::Archive::new(&first[..]);
    let entries = entries.entries().expect("a tar").map(|entry| {
        let entry = entry.expect("an entry");
        entry.path().expect("a path").display().to_string()
    });
    let entries: Vec<String> = entries.collect();
    assert_eq!((entries.len(), &entries[0][..]), (4, "records.jsonl"));
    assert!(entries[1].starts_with("files/sha256-"), "{entries:?}");
}

/// I34: bytes that are not what their name says never get in, and a bad archive changes nothing.
#[test]
fn a_damaged_archive_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    store(dir);
    let mut bytes = export(dir, "phone", "a.tar");
    let place = bytes.windows(3).rposition(|three| three == b"one").expect("the file is in it");
    bytes[place] = b'O';
    fs::write(dir.join("bad.tar"), &bytes).expect("it writes");
    let told = lastword(dir, &["import", "bad.tar", "--data", "copy"]).fails(3);
    assert!(told.contains("nothing was written"), "{told}");
    // Cut in the middle of a file, and where its last file begins: there a tar may end, but for the
    // blocks that say that it does.
    let header = place / 512 * 512 - 512;
    let mut altered = bytes.clone();
    altered[header + 5] ^= 1;
    let cut = |at: usize| bytes[..at].to_vec();
    for bad in [cut(bytes.len() / 2), cut(header), cut(header + 100), altered] {
        fs::write(dir.join("bad.tar"), bad).expect("it writes");
        let told = lastword(dir, &["import", "bad.tar", "--data", "copy"]).fails(3);
        assert!(told.contains("nothing was written"), "{told}");
    }
    let status = lastword(dir, &["files", "list", "--data", "copy"]).ok();
    assert_eq!(status, "");
    let mut other = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    other.append_data(&mut header, "x.txt", &b"hi"[..]).expect("it is added");
    fs::write(dir.join("other.tar"), other.into_inner().expect("a tar")).expect("it writes");
    let told = lastword(dir, &["import", "other.tar", "--data", "copy"]).fails(1);
    assert!(told.contains(r#""x.txt" is neither"#), "{told}");
}

/// I35, R3: what rotted on a device comes back from an archive. It was taken for known, and the
/// import said that all was well.
#[test]
fn an_archive_heals_what_is_damaged() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    store(dir);
    let first = export(dir, "phone", "a.tar");
    damage_pack(&dir.join("phone"), 100_000);
    let told = lastword(dir, &["export", "--files", "b.tar", "--data", "phone"]).fails(3);
    assert!(told.contains("damaged") && !dir.join("b.tar").exists(), "{told}");
    lastword(dir, &["import", "a.tar", "--data", "phone"]).ok();
    assert_eq!(export(dir, "phone", "b.tar"), first);
}

/// R3.3, R3.4: files that only the server has are fetched for the archive, or left out if asked;
/// what one server says of its files is not believed by the devices of another.
#[test]
fn an_archive_moves_files_between_servers() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    store(dir);
    let one = Server::start_with(&dir.join("one"), &["--dev".to_owned()], "127.0.0.1:0");
    let link = ["--server", &one.url, "--token", "me"];
    lastword(dir, &[&["sync", "--data", "phone"][..], &link].concat()).ok();
    lastword(
        dir,
        &[&["files", "put", "album/a.txt", "--data", "phone", "--wait"][..], &link].concat(),
    )
    .ok();
    lastword(dir, &[&["sync", "--data", "laptop"][..], &link].concat()).ok();
    let told =
        lastword(dir, &["export", "--files", "a.tar", "--data", "laptop", "--offline"]).fails(1);
    assert!(told.contains("3 files are not on this device"), "{told}");
    assert!(!dir.join("a.tar").exists());
    let told = lastword(
        dir,
        &["export", "--files", "a.tar", "--only-here", "--json", "--data", "laptop", "--offline"],
    );
    assert!(told.ok().contains(r#""left_out":3"#));
    lastword(dir, &["export", "--files", "a.tar", "--data", "laptop"]).ok();

    let two = Server::start_with(&dir.join("two"), &["--dev".to_owned()], "127.0.0.1:0");
    let link = ["--server", &two.url, "--token", "me"];
    let told = lastword(dir, &[&["import", "a.tar", "--data", "copy"][..], &link].concat()).ok();
    assert!(told.contains("uploaded 3 files"), "{told}");
    lastword(dir, &[&["files", "get", "--all", "back", "--data", "tablet"][..], &link].concat())
        .ok();
    let was = fs::read(dir.join("album/large")).expect("it is there");
    assert_eq!(fs::read(dir.join("back/album/large")).expect("it is back"), was);
}
