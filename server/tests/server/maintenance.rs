//! Keeping data safe: verify, backup, restore, compact, inspect, as people call them.

use std::fs;
use std::path::{Path, PathBuf};

use std::process::Stdio;

use crate::common::{Device, LIMIT, Server, command, end, json_of, lastword, run};

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

/// A file of JSON lines for `import`.
fn lines(file: &Path, count: usize) {
    let line = |number| {
        format!("{{\"table\":\"notes\",\"key\":\"n{number}\",\"value\":{{\"n\":{number}}}}}\n")
    };
    fs::write(file, (0..count).map(line).collect::<String>()).expect("written");
}

/// B1, I6: a running server is backed up while it takes writes; every backup made on the way is
/// whole, and the last, which copies only what is new, has everything. Only the owner may ask.
#[test]
fn a_server_is_backed_up_while_an_import_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let server = Server::start(&dir.join("srv"));
    lines(&dir.join("notes.jsonl"), 20_000);
    let args = ["import", "notes.jsonl", "--data", "phone", "--batch", "50", "--token", "ann"];
    let mut import = command(dir, &args);
    import.args(["--server", &server.url, "--wait"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut import = import.spawn().expect("the binary runs");
    let mut while_it_ran = 0;
    loop {
        let made = json_of(dir, &["backup", "--data", "srv", "--out", "bak", "--json"]);
        assert_eq!(made["by_running_server"], true, "{made}");
        if import.try_wait().expect("it can be asked").is_some() {
            break;
        }
        while_it_ran += 1;
        let said = lastword(dir, &["verify", "--data", "bak"]).ok();
        assert!(said.contains("backup in bak") && said.contains("whole"), "{said}");
    }
    end(import).ok();
    assert!(while_it_ran > 0, "the import was over before the first backup");
    let last = json_of(dir, &["admin", "backup", "--data", "srv", "--out", "bak", "--json"]);
    let again = json_of(dir, &["admin", "backup", "--data", "srv", "--out", "bak", "--json"]);
    assert_eq!(again["end"], last["end"]);
    assert_eq!(again["copied_bytes"], 0, "{again}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let socket = fs::metadata(dir.join("srv/control.sock")).expect("it is there");
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    }
}

/// B1: a store that nobody has open is backed up by the command itself, a socket that a killed
/// server left behind is in nobody's way, and what cannot be done is said.
#[test]
fn a_closed_store_is_backed_up_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    written(&dir.join("phone"));
    let made = json_of(dir, &["backup", "--data", "phone", "--out", "bak", "--json"]);
    assert_eq!(made["by_running_server"], false, "{made}");
    assert!(lastword(dir, &["verify", "--data", "bak"]).ok().contains("whole"));
    let told = lastword(dir, &["admin", "backup", "--data", "phone", "--out", "b2"]).fails(1);
    assert!(told.contains("no server answers"), "{told}");
    let told = lastword(dir, &["backup", "--data", "phone", "--out", "phone"]).fails(1);
    assert!(told.contains("choose an empty directory"), "{told}");
    let told = lastword(dir, &["get", "notes", "n1", "--data", "bak"]).fails(1);
    assert!(told.contains("no store") || told.contains("is a backup"), "{told}");

    let mut server = Server::start(&dir.join("srv"));
    server.kill();
    assert_eq!(dir.join("srv/control.sock").exists(), cfg!(unix));
    let made = json_of(dir, &["backup", "--data", "srv", "--out", "b3", "--json"]);
    assert_eq!(made["by_running_server"], false, "{made}");
    server.restart();
    let made = json_of(dir, &["backup", "--data", "srv", "--out", "b3", "--json"]);
    assert_eq!(made["by_running_server"], true, "{made}");
}

/// B7, I2, I21, section 6: a server that is restored from a backup has another history. A device
/// that was ahead of it goes on by itself: what the backup has and what it had not sent is there,
/// under seqs above all that were ever given, and its own tables stay. A fresh device gets the
/// same.
#[test]
fn a_restored_server_never_gives_a_seq_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut server = Server::start(&dir.join("srv"));
    let mut phone = Device::open(&dir.join("phone"));
    phone.put("notes", "n1", r#"{"text":"in the backup"}"#);
    phone.catch_up(&server.url);
    json_of(dir, &["backup", "--data", "srv", "--out", "bak", "--json"]);
    phone.put("notes", "n2", r#"{"text":"after it"}"#);
    let ahead = phone.catch_up(&server.url).cursor;
    server.kill();

    let restored = json_of(dir, &["restore", "bak", "--to", "srv2", "--json"]);
    let (branch, head) = (&restored["workspaces"][0]["branch"], &restored["workspaces"][0]["head"]);
    assert!(branch.as_u64() < Some(ahead), "{restored}");
    assert!(lastword(dir, &["verify", "--data", "srv2"]).ok().contains("whole"));
    let told = lastword(dir, &["restore", "bak", "--to", "srv2"]).fails(1);
    assert!(told.contains("choose an empty directory"), "{told}");

    let server = Server::start(&dir.join("srv2"));
    phone.put("notes", "n3", r#"{"text":"unsent"}"#);
    phone.connect(&server.url, "ann");
    let sync = phone.sync.as_ref().expect("connected");
    sync.wait_caught_up(&phone.ws, Some(LIMIT)).expect("it goes on by itself");
    phone.disconnect();
    let status = phone.ws.status().expect("status");
    assert_eq!((status.undecided, status.bootstrapped), (0, true));
    let row = |key: &str, text: &str| (key.to_owned(), format!(r#"{{"text":"{text}"}}"#));
    assert_eq!(phone.rows("notes"), [row("n1", "in the backup"), row("n3", "unsent")]);

    let mut fresh = Device::open(&dir.join("fresh"));
    fresh.catch_up(&server.url);
    assert_eq!(fresh.rows("notes"), phone.rows("notes"));
    fresh.put("notes", "n4", r#"{"text":"new"}"#);
    let cursor = fresh.catch_up(&server.url).cursor;
    assert!(Some(cursor) > head.as_u64(), "{cursor}, {restored}");
    let mut other = Device::open(&dir.join("other"));
    other.catch_up(&server.url);
    assert_eq!(other.rows("notes"), fresh.rows("notes"));
}

/// I19, R1.2: a device's copy becomes another device. What waited in its outbox is not sent again
/// by itself and not lost: without consent nothing is restored, with it each batch is a dead
/// letter.
#[test]
fn a_restored_device_is_another_device() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let server = Server::start(&dir.join("srv"));
    let mut phone = Device::open(&dir.join("phone"));
    phone.put("notes", "n1", r#"{"text":"sent"}"#);
    phone.catch_up(&server.url);
    phone.put("notes", "n1", r#"{"text":"waits"}"#);
    phone.put("notes", "n2", r#"{"text":"waits"}"#);
    phone.db.backup(&dir.join("bak"), &mut |_| {}).expect("it is copied");
    phone.catch_up(&server.url);
    drop(phone);

    let told = lastword(dir, &["restore", "bak", "--to", "copy"]).fails(1);
    assert!(told.contains("2 batches of workspace main") && told.contains("--drop-outbox"));
    assert!(!dir.join("copy").exists() && !dir.join("copy.restoring").exists());
    let args = ["restore", "bak", "--to", "copy", "--drop-outbox", "--json"];
    let restored = json_of(dir, &args);
    assert_eq!(restored["dropped_batches"], 2, "{restored}");

    let mut copy = Device::open(&dir.join("copy"));
    assert_eq!(restored["device"], copy.db.device().to_string());
    assert_ne!(restored["device"], restored["former_device"]);
    let letters = copy.ws.dead_letters().expect("they read");
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().all(|letter| letter.code == "lost_by_restore"), "{letters:?}");
    assert_eq!(copy.get("notes", "n1").as_deref(), Some(r#"{"text":"sent"}"#));
    copy.put("notes", "n3", r#"{"text":"of the copy"}"#);
    let report = copy.catch_up(&server.url);
    assert_eq!((report.sent_batches, report.applied), (1, 1));
    let mut phone = Device::open(&dir.join("phone"));
    phone.catch_up(&server.url);
    assert_eq!(copy.rows("notes"), phone.rows("notes"));
    assert_eq!(copy.rows("notes").len(), 3);
    assert_eq!(copy.ws.status().expect("status").digest, phone.ws.status().expect("s").digest);
}

/// I27, B1: a directory of many updates shrinks to little more than what its records take, and has
/// the same records, also after a server has gone on with it.
#[test]
fn compact_shrinks_a_directory_of_many_updates() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut server = Server::start(&dir.join("srv"));
    let text = "x".repeat(2_000);
    let line = |n: usize| {
        let key = n % 20;
        let value = format!("{{\"n\":{n},\"text\":\"{text}\"}}");
        format!("{{\"table\":\"notes\",\"key\":\"n{key}\",\"value\":{value}}}\n")
    };
    fs::write(dir.join("f"), (0..3_000).map(line).collect::<String>()).expect("written");
    let args = ["import", "f", "--data", "phone", "--batch", "20", "--token", "ann", "--wait"];
    let mut import = command(dir, &args);
    import.args(["--server", &server.url]);
    run(import).ok();
    server.kill();
    let export = ["export", "--data", "srv"];
    let before = lastword(dir, &export).ok();

    for (data, args) in [("srv", ["--history", "0d"]), ("phone", ["--history", "0h"])] {
        let compact = ["compact", "--data", data, "--json", args[0], args[1]];
        let did = json_of(dir, &compact);
        let (was, is) = (did["before"]["all"].as_u64(), did["after"]["all"].as_u64());
        let (was, is) = (was.expect("a number"), is.expect("a number"));
        let log = did["after"]["log"].as_u64().expect("a number");
        assert!(did["before"]["log"].as_u64() > Some(6_000_000) && log < 100_000, "{did}");
        assert!(is < was / 2, "{did}");
        assert!(lastword(dir, &["verify", "--data", data]).ok().contains("whole"));
        assert_eq!(lastword(dir, &["export", "--data", data]).ok(), before);
    }
    let again = lastword(dir, &["compact", "--data", "srv"]).ok();
    assert!(again.contains("before") && again.contains("spares"), "{again}");

    server.restart();
    let mut phone = Device::open(&dir.join("phone"));
    phone.put("notes", "new", r#"{"n":1}"#);
    phone.catch_up(&server.url);
    let mut fresh = Device::open(&dir.join("fresh"));
    fresh.catch_up(&server.url);
    assert_eq!(fresh.rows("notes"), phone.rows("notes"));
    assert_eq!(fresh.rows("notes").len(), 21);
}

/// R8.2, I12: a state that was damaged is made anew from the log, and nothing is missing.
#[test]
fn compact_makes_a_damaged_state_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    written(&dir.join("phone"));
    flip(&state_file(&dir.join("phone")), b"marker 7!");
    lastword(dir, &["compact", "--data", "phone", "--rebuild-state"]).ok();
    assert!(lastword(dir, &["verify", "--data", "phone"]).ok().contains("whole"));
    assert_eq!(Device::open(&dir.join("phone")).rows("notes").len(), 20);
}

/// B1, I15: `inspect` tells what a directory holds, and goes on behind damage as far as it can be
/// read; a backup is looked at in the same way.
#[test]
fn inspect_tells_what_a_damaged_directory_holds() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    written(&dir.join("phone"));
    json_of(dir, &["backup", "--data", "phone", "--out", "bak", "--json"]);
    let whole = json_of(dir, &["inspect", "--data", "phone", "--json"]);
    let workspace = &whole["workspaces"][0];
    assert_eq!((&whole["role"], &workspace["workspace"]), (&"device".into(), &"main".into()));
    assert_eq!(whole["as_of"], whole["state"]["watermark"], "{whole}");
    let last = whole["last_frames"].as_array().expect("a list");
    assert!(last.iter().any(|line| line["text"].to_string().contains("notes/n19")), "{whole}");
    let backup = json_of(dir, &["inspect", "--data", "bak", "--json"]);
    assert_eq!(backup["device"], whole["device"]);
    assert!(backup["backup_ms"].is_number() && backup["state"].is_null(), "{backup}");

    let log = log_files(&dir.join("phone"));
    flip(&log[0], b"marker 9!");
    let ran = lastword(dir, &["inspect", "--data", "phone", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.out).expect("one JSON value");
    assert_eq!((&found["device"], &found["workspaces"]), (&whole["device"], &whole["workspaces"]));
    assert!(found["damages"].to_string().contains(&name_of(&log[0])), "{found}");
    assert!(ran.fails(3).contains("lastword verify"));
    flip(&log[0], b"LASTWORD");
    let said = lastword(dir, &["inspect", "--data", "phone"]);
    assert!(said.out.contains("unreadable") && said.code == 3, "{said:?}");
}

/// B4. A server that keeps no history shows a record that is older than its log as it is, and says
/// that there was more.
#[test]
fn history_says_what_was_folded_away() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    written(&dir.join("phone"));
    let mut server = Server::start_with(
        &dir.join("srv"),
        &["--dev".into(), "--history".into(), "0d".into()],
        "127.0.0.1:0",
    );
    let mut phone = Device::open(&dir.join("phone"));
    phone.catch_up(&server.url);
    server.kill();
    json_of(dir, &["compact", "--data", "srv", "--history", "0d", "--json"]);
    let said = lastword(dir, &["history", "notes", "n3", "--data", "srv"]).ok();
    assert!(said.contains("kept") && said.contains("marker 3!"), "{said}");
    assert!(said.ends_with("older versions were folded away\n"), "{said}");
    let told = lastword(dir, &["serve", "--dev", "--history", "30", "--data", "x"]).fails(2);
    assert!(told.contains("30d or 12h"), "{told}");
}

/// I7: the end of a write that was cut short is no damage, and `verify` says what it is; a store
/// whose server was killed is whole.
#[test]
fn verify_explains_what_a_kill_leaves_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    written(&dir.join("phone"));
    let log = log_files(&dir.join("phone"));
    let mut bytes = fs::read(&log[0]).expect("it reads");
    bytes.extend([0xab; 100]);
    fs::write(&log[0], bytes).expect("it writes");
    let said = lastword(dir, &["verify", "--data", "phone"]).ok();
    assert!(said.contains("torn   100 bytes") && said.contains("nothing of it was"), "{said}");
    assert!(said.contains("whole"), "{said}");

    let mut server = Server::start(&dir.join("srv"));
    Device::open(&dir.join("phone")).catch_up(&server.url);
    server.kill();
    let whole = json_of(dir, &["verify", "--data", "srv", "--json"]);
    assert_eq!((&whole["whole"], &whole["torn_bytes"]), (&true.into(), &0.into()), "{whole}");
}
