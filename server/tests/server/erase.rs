//! Erasing a record, for people who must: no version of it stays, anywhere that syncs.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::common::{Device, LIMIT, Server, json_of, lastword, name};

const SECRET: &str = "the secret of m1";

/// Whether a file of the directory holds the secret; one that vanishes meanwhile does not.
fn holds(dir: &Path) -> bool {
    fs::read_dir(dir).expect("it lists").any(|entry| {
        let bytes = fs::read(entry.expect("an entry").path()).unwrap_or_default();
        bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    })
}

fn args() -> Vec<String> {
    ["--dev", "--erase-within", "0h"].map(String::from).to_vec()
}

/// Two devices have written over each other's versions of one record, one of them deleted it.
fn disputed(server: &Server, dir: &Path) -> [Device; 2] {
    let (mut ann, mut bob) = (Device::open(&dir.join("ann")), Device::open(&dir.join("bob")));
    let value = |text: &str| format!(r#"{{"text":"{SECRET}{text}"}}"#);
    ann.put("notes", "m1", &value(", first"));
    ann.put("notes", "kept", r#"{"text":"stays"}"#);
    ann.catch_up(&server.url);
    bob.catch_up(&server.url);
    ann.put("notes", "m1", &value(", of ann"));
    bob.put("notes", "m1", &value(", of bob"));
    ann.catch_up(&server.url);
    bob.catch_up(&server.url);
    ann.connect(&server.url, "ann");
    bob.connect(&server.url, "ann");
    ann.caught_up();
    [ann, bob]
}

/// R7.4 and store.md, section 5: an erased record is a tombstone without a value on every device,
/// its conflict rows and its history are gone, nobody can bring it back, and while the server runs
/// on its bytes leave every file of it; other records stay.
#[test]
fn an_erased_record_leaves_no_byte_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let server = Server::start_with(&dir.join("srv"), &args(), "127.0.0.1:0");
    let [ann, bob] = disputed(&server, dir);
    assert!(!ann.rows("_conflicts").is_empty());
    assert!(holds(&dir.join("srv")));

    let told = lastword(dir, &["erase", "notes", "m1", "--data", "srv"]).fails(2);
    assert!(told.contains("--yes"), "{told}");
    let erased = json_of(dir, &["erase", "notes", "m1", "--data", "srv", "--yes", "--json"]);
    assert_eq!(erased["by_running_server"], true, "{erased}");
    assert!(erased["conflicts"].as_u64().is_some_and(|rows| rows > 0), "{erased}");
    for device in [&ann, &bob] {
        device.wait_for("notes", "m1", None);
        device.caught_up();
        assert!(device.rows("_conflicts").is_empty(), "its conflict rows show its values");
    }
    let (notes, m1) = name("notes", "m1");
    let gone = ann.ws.write(|tx| tx.undelete_record(&notes, &m1));
    assert!(matches!(gone, Err(lastword::Error::ValueGone { .. })), "{gone:?}");
    // Each write lets the server go on with what is under way.
    let begun = Instant::now();
    let mut number = 0;
    while holds(&dir.join("srv")) {
        assert!(begun.elapsed() < LIMIT, "its bytes are still there");
        number += 1;
        ann.put("notes", "kept", &format!(r#"{{"text":"stays","n":{number}}}"#));
        ann.caught_up();
    }
    assert_eq!(ann.get("notes", "m1"), None);
    assert!(ann.get("notes", "kept").is_some_and(|kept| kept.contains("stays")));
    drop(server);
    ann.db.close().expect("it closes");
    let args = ["history", "notes", "m1", "--data", "ann", "--offline", "--json"];
    let history = lastword(dir, &args).ok();
    assert!(history.contains("erase") && !history.contains(SECRET), "{history}");
}

/// The same on a store that nobody runs, where `compact` takes the bytes out at once; a record that
/// never was is named, and a device's directory is not the place.
#[test]
fn a_closed_store_erases_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let server = Server::start(&dir.join("srv"));
    let [ann, bob] = disputed(&server, dir);
    ann.db.close().expect("it closes");
    bob.db.close().expect("it closes");
    drop(server);
    let told = lastword(dir, &["erase", "notes", "no", "--data", "srv", "--yes"]).fails(1);
    assert!(told.contains("workspace main has no record notes/no"), "{told}");
    let told = lastword(dir, &["erase", "notes", "m1", "--data", "ann", "--yes"]).fails(1);
    assert!(told.contains("device"), "{told}");
    let said = lastword(dir, &["erase", "notes", "m1", "--data", "srv", "--yes"]).ok();
    assert!(said.contains("notes/m1 of workspace main is erased"), "{said}");
    lastword(dir, &["compact", "--data", "srv"]).ok();
    assert!(!holds(&dir.join("srv")));
    let log = lastword(dir, &["log", "--data", "srv"]).ok();
    assert!(log.contains("is in no file"), "{log}");
    lastword(dir, &["verify", "--data", "srv"]).ok();
}
