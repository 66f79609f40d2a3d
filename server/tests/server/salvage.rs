//! `lastword salvage`: what people get back of a damaged directory, and what they are told.

use std::fs;
use std::path::{Path, PathBuf};

use lastword::{Database, OnDamage, Remote};

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
/// what it had decided behind it is told as ranges of seqs, seqs are never given again, and a
/// device that was ahead goes on with what the server has.
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
    sync.wait_caught_up(&phone.ws, Some(LIMIT)).expect("it goes on by itself");
    assert_eq!(phone.rows("notes"), fresh.rows("notes"));
}

/// B1, I12, B7: a server's base is damaged and its state is whole: `verify` says that every record
/// can be saved, `salvage` does it, the new store is whole, and a device gets all of it.
#[test]
fn a_whole_state_saves_a_server_with_a_damaged_base() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut server = Server::start(&dir.join("srv"));
    let mut phone = Device::open(&dir.join("phone"));
    for number in 0..20 {
        phone.put("notes", &format!("n{number}"), &format!(r#"{{"text":"marker {number}!"}}"#));
    }
    phone.catch_up(&server.url);
    server.kill();
    lastword(dir, &["compact", "--data", "srv", "--history", "0d"]).ok();
    let is_base = |path: &PathBuf| {
        fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"LASTWORD") && bytes[10] == 2)
    };
    let mut files = fs::read_dir(dir.join("srv")).expect("it lists");
    let base = files.find_map(|file| Some(file.expect("it is").path()).filter(is_base));
    flip(&base.expect("a base"), "marker 7!");
    let found = lastword(dir, &["verify", "--data", "srv"]).fails(3);
    assert!(
        found.contains("every record as of the last checkpoint: the state is whole"),
        "{found}"
    );

    let said = lastword(dir, &["salvage", "srv", "--to", "new"]);
    assert!(said.out.contains("the rows come from the state") && said.code == 3, "{said:?}");
    assert!(lastword(dir, &["verify", "--data", "new"]).ok().contains("whole"));
    let server = Server::start(&dir.join("new"));
    let mut fresh = Device::open(&dir.join("fresh"));
    fresh.catch_up(&server.url);
    assert_eq!(fresh.rows("notes"), phone.rows("notes"));
    assert_eq!(fresh.rows("notes").len(), 20);
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

/// B1, I1, I19: a device that healed itself has lost what the server told of a batch, and kept one
/// that it had not sent. It shows both, and sends both under its new id: the first is answered with
/// the decision that it has, the second is decided, and device and server agree.
#[test]
fn a_healed_device_syncs_without_losing_or_doubling_anything() {
    for damaged in ["verdicts", "remote"] {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("srv"));
        let data = dir.path().join("phone");
        let mut phone = Device::open(&data);
        phone.put("notes", "n1", r#"{"text":"one"}"#);
        phone.catch_up(&server.url);
        phone.put("notes", "n2", r#"{"text":"two"}"#);
        let position = catch_up_to(&phone, &server, damaged);
        phone.put("notes", "n3", r#"{"text":"behind the damage"}"#);
        drop(phone);
        let log = data.join("000000000001");
        let mut bytes = fs::read(&log).expect("it reads");
        bytes[128 + usize::try_from(position).expect("small") + 30] ^= 0xff;
        fs::write(&log, bytes).expect("it writes");
        fs::remove_file(state_of(&data)).expect("removed");
        heal_and_sync(dir.path(), &data, &server);
    }
}

fn heal_and_sync(dir: &Path, data: &Path, server: &Server) {
    let builder = || Database::builder().on_damage(OnDamage::Heal);
    let db = builder().open(data).expect("it heals");
    let report = db.healed().expect("it was damaged").salvaged.as_ref().expect("salvaged now");
    assert_eq!((report.sent_again, report.behind.dead_letters), (1, 1), "{report:?}");
    let ws = db.workspace("main").expect("a name");
    let mut phone = Device { db, ws, sync: None };
    assert_eq!(phone.get("notes", "n2").as_deref(), Some(r#"{"text":"two"}"#));
    phone.put("notes", "n4", r#"{"text":"after"}"#);
    let report = phone.catch_up(&server.url);
    assert_eq!((report.sent_batches, report.refused, report.superseded), (2, 0, 0), "{report:?}");
    let mut laptop = Device::open(&dir.join("laptop"));
    laptop.catch_up(&server.url);
    assert_eq!(laptop.rows("notes"), phone.rows("notes"));
    assert_eq!(phone.rows("notes").len(), 3);
    assert_eq!(laptop.rows("_conflicts"), []);
    let digest = |device: &Device| device.ws.status().expect("status").digest;
    assert_eq!(digest(&laptop), digest(&phone));
    let (table, key) = crate::common::name("notes", "n2");
    assert_eq!(laptop.ws.record_history(&table, &key).expect("it reads").versions.len(), 1);
    let letters = phone.ws.dead_letters().expect("they read");
    assert_eq!(letters[0].records, ["notes/n3"]);
    drop(phone);
    assert!(builder().open(data).expect("it opens").healed().is_none());
}

/// Catches up; answers the position of the first frame of that kind that came with it.
fn catch_up_to(phone: &Device, server: &Server, kind: &str) -> u64 {
    let end = phone.db.log(0, 10_000).expect("it reads").1;
    let remote = Remote::new(&server.url).expect("an address").token("ann");
    let sync = phone.db.connect(remote).expect("a thread");
    sync.attach(&phone.ws).expect("the driver runs");
    sync.wait_caught_up(&phone.ws, Some(LIMIT)).expect("it catches up");
    drop(sync);
    let lines = phone.db.log(end, 10_000).expect("it reads").0;
    lines.into_iter().find(|line| line.kind == kind).expect("it came").position
}
