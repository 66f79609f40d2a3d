//! `lastword salvage`: what people get back of a damaged directory, and what they are told.

use std::fs;
use std::path::{Path, PathBuf};

use lastword::{StopReason, SyncFailure};

use crate::common::{Device, LIMIT, Server, lastword};

fn state_of(dir: &Path) -> PathBuf {
    let mut paths = fs::read_dir(dir).expect("it lists").map(|entry| entry.expect("it is").path());
    paths.find(|path| path.extension().is_some_and(|end| end == "state")).expect("a state")
}

/// Inverts the byte in the middle of the first place that holds `text`.
#[track_caller]
fn flip(file: &Path, text: &str) {
    let mut bytes = fs::read(file).expect("it reads");
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    bytes[at.expect("it is there") + text.len() / 2] ^= 0xff;
    fs::write(file, bytes).expect("it writes");
}

/// B1, B7, I21: a damaged server is salvaged under a new epoch, with all it had before the damage;
/// what it had decided behind it is told as ranges of seqs, seqs are never given again, and devices
/// that were ahead stop with a message and keep what they have.
#[test]
fn a_damaged_server_goes_on_and_says_what_it_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut server = Server::start(&dir.join("srv"));
    let mut phone = Device::open(&dir.join("phone"));
    for number in 0..10 {
        phone.put("notes", &format!("n{number}"), &format!(r#"{{"text":"marker {number}!"}}"#));
    }
    let cursor = phone.catch_up(&server.url).cursor;
    let told = lastword(dir, &["salvage", "srv", "--to", "new"]).fails(1);
    assert!(told.contains(&format!("open in process {}", server.pid())), "{told}");
    server.kill();
    let log = dir.join("srv/000000000001");
    flip(&log, "marker 4!");
    let found = lastword(dir, &["verify", "--data", "srv"]).fails(3);
    assert!(found.contains("lastword salvage srv --to NEW"), "{found}");

    let ran = lastword(dir, &["salvage", "srv", "--to", "new", "--json"]);
    let salvaged: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON value");
    let next = ran.fails(3);
    assert!(next.contains("Start the server on new"), "{next}");
    let loss = &salvaged["losses"][0];
    assert!(loss["file"].as_str().expect("a file").ends_with("000000000001"), "{salvaged}");
    assert!(loss["offset"].as_u64() > Some(128) && loss["frames_behind"].as_u64() > Some(4));
    let branch = salvaged["workspaces"][0]["branch"].as_u64().expect("a seq");
    let lost = &salvaged["behind"]["lost_seqs"][0];
    assert_eq!((&lost["workspace"], &lost["last"]), (&"main".into(), &cursor.into()), "{salvaged}");
    // One batch was in the damaged frame.
    assert_eq!(lost["first"].as_u64(), Some(branch + 2), "{salvaged}");
    let said = lastword(dir, &["salvage", "srv", "--to", "again"]);
    assert!(said.out.contains("LOST  workspace main: seqs") && said.code == 3, "{said:?}");
    assert!(lastword(dir, &["verify", "--data", "new"]).ok().contains("whole"));

    let server = Server::start(&dir.join("new"));
    let mut fresh = Device::open(&dir.join("fresh"));
    fresh.catch_up(&server.url);
    assert_eq!(fresh.rows("notes").len(), 4);
    fresh.put("notes", "after", "{}");
    let above = salvaged["workspaces"][0]["head"].as_u64();
    assert!(Some(fresh.catch_up(&server.url).cursor) > above);
    phone.connect(&server.url, "ann");
    let sync = phone.sync.as_ref().expect("connected");
    let stopped = sync.wait_caught_up(&phone.ws, Some(LIMIT)).expect_err("it was ahead");
    assert!(matches!(stopped, SyncFailure::Stopped { why: StopReason::EpochChanged, .. }));
    assert_eq!(phone.rows("notes").len(), 10);
}

/// B1, I19: a damaged device is salvaged as another device; what the server had decided comes back
/// with the next sync, what it had not is in the dead letters, and a store that is whole is copied
/// without a loss.
#[test]
fn a_damaged_device_gets_back_what_the_server_has() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let server = Server::start(&dir.join("srv"));
    let mut phone = Device::open(&dir.join("phone"));
    for number in 0..6 {
        phone.put("notes", &format!("n{number}"), &format!(r#"{{"text":"marker {number}!"}}"#));
    }
    phone.catch_up(&server.url);
    phone.put("notes", "waits", r#"{"text":"unsent"}"#);
    drop(phone);
    let whole = lastword(dir, &["salvage", "phone", "--to", "copy", "--drop-outbox"]).ok();
    assert!(whole.contains("nothing is lost. Sync again"), "{whole}");
    assert!(whole.contains("1 batch of its outbox are dead letters now (salvaged)"), "{whole}");

    flip(&dir.join("phone/000000000001"), "marker 3!");
    fs::remove_file(state_of(&dir.join("phone"))).expect("removed");
    let told = lastword(dir, &["get", "notes", "n1", "--data", "phone", "--offline"]).fails(3);
    assert!(told.contains("file 1 is damaged") && told.contains("lastword salvage"), "{told}");
    let ran = lastword(dir, &["salvage", "phone", "--to", "new", "--json"]);
    let salvaged: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON value");
    assert!(ran.fails(3).contains("Sync again"));
    let behind = &salvaged["behind"];
    assert_eq!(
        (&behind["accepted"], &behind["dead_letters"]),
        (&2.into(), &1.into()),
        "{salvaged}"
    );
    assert_ne!(salvaged["device"], salvaged["former_device"]);

    let mut new = Device::open(&dir.join("new"));
    new.catch_up(&server.url);
    assert_eq!(new.rows("notes").len(), 6);
    let letters = new.ws.dead_letters().expect("they read");
    assert!(letters.iter().all(|letter| letter.code == "salvaged"), "{letters:?}");
    assert!(letters.iter().any(|letter| letter.records == ["notes/waits"]), "{letters:?}");
    new.put("notes", "after", "{}");
    assert_eq!(new.catch_up(&server.url).applied, 1);
}
