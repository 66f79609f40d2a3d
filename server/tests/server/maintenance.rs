//! Keeping data safe: verify, backup, restore, compact, inspect, as people call them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Device, Server, json_of, lastword};

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(dir).expect("it lists").map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

/// Files of the log, in the order of their numbers.
fn log_files(dir: &Path) -> Vec<PathBuf> {
    let begins = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"LASTWORD"));
    entries(dir).into_iter().filter(begins).collect()
}

fn state_file(dir: &Path) -> PathBuf {
    let is_state = |path: &PathBuf| path.extension().is_some_and(|end| end == "state");
    entries(dir).into_iter().find(is_state).expect("a state file")
}

/// Inverts the byte in the middle of the first place that holds `text`.
#[track_caller]
fn flip(file: &Path, text: &[u8]) {
    let mut bytes = fs::read(file).expect("it reads");
    let at = bytes.windows(text.len()).position(|window| window == text).expect("it is there");
    bytes[at + text.len() / 2] ^= 0xff;
    fs::write(file, bytes).expect("it writes");
}

fn name_of(file: &Path) -> String {
    file.file_name().expect("a name").to_string_lossy().into_owned()
}

/// A device's directory with a few records, closed.
fn written(dir: &Path) {
    let phone = Device::open(dir);
    for number in 0..20 {
        phone.put("notes", &format!("n{number}"), &format!(r#"{{"text":"marker {number}!"}}"#));
    }
    phone.db.close().expect("it closes");
}

/// B1, I14, I15: `verify` says that a store is whole; a flipped byte of the log is found, named
/// with its file and told as a possible loss; one of the state as none, with the way out.
#[test]
fn verify_finds_a_flipped_byte_and_names_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    written(&dir.join("phone"));
    let whole = json_of(dir, &["verify", "--data", "phone", "--json"]);
    assert_eq!((&whole["whole"], &whole["compared"]), (&true.into(), &true.into()), "{whole}");
    let said = lastword(dir, &["verify", "--data", "phone"]).ok();
    assert!(said.contains("whole: everything is as it was written"), "{said}");

    let state = state_file(&dir.join("phone"));
    flip(&state, b"marker 7!");
    let ran = lastword(dir, &["verify", "--data", "phone"]);
    assert!(ran.out.contains(&name_of(&state)), "{ran:?}");
    let told = ran.fails(3);
    assert!(told.contains("nothing is lost") && told.contains("--rebuild-state"), "{told}");

    let log = log_files(&dir.join("phone"));
    flip(&log[0], b"marker 9!");
    let ran = lastword(dir, &["verify", "--data", "phone", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON value");
    assert_eq!((&found["whole"], &found["loss"]), (&false.into(), &true.into()), "{found}");
    assert!(found["damages"].to_string().contains(&name_of(&log[0])), "{found}");
    assert!(ran.fails(3).contains("lastword restore"));
}

/// B1: what cannot be verified is said, and why: nothing there, or a process that has it open.
#[test]
fn verify_names_what_is_in_the_way() {
    let dir = tempfile::tempdir().expect("a folder");
    let told = lastword(dir.path(), &["verify", "--data", "nothing"]).fails(1);
    assert!(told.contains("holds no store and no backup"), "{told}");
    assert!(!dir.path().join("nothing").exists());
    let server = Server::start(&dir.path().join("srv"));
    let told = lastword(dir.path(), &["verify", "--data", "srv"]).fails(1);
    assert!(told.contains(&format!("open in process {}", server.pid())), "{told}");
}
