//! Stores that a release wrote, kept as files: every later release opens them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Server, lastword};

/// Set to make the fixtures of a new version of the format; those that are there are never made
/// again.
const MAKE: &str = "LASTWORD_MAKE_FIXTURES";

/// What is asked of each store, by the name of the file with the answer.
const QUESTIONS: [(&str, &[&str]); 6] = [
    ("status.json", &["status", "--json"]),
    ("export.jsonl", &["export", "--deleted", "--system"]),
    ("history.jsonl", &["history", "notes", "n1", "--json"]),
    ("log.jsonl", &["log", "--json", "--limit", "1000"]),
    ("verify.json", &["verify", "--json"]),
    ("dead-letters.jsonl", &["dead-letters", "--json"]),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/fixtures/v1")
}

/// The answers of a copy of the store in `store`, each of a fresh one: opening changes it.
fn answers(store: &Path, is_server: bool) -> Vec<(&'static str, String)> {
    let all = QUESTIONS.iter().filter(|(_, args)| !(is_server && args[0] == "dead-letters"));
    all.map(|(name, args)| {
        let dir = tempfile::tempdir().expect("a folder");
        let copy = dir.path().join("store");
        fs::create_dir(&copy).expect("made");
        fs::write(copy.join("LOCK"), "").expect("written");
        for file in fs::read_dir(store).expect("the fixture is there") {
            let file = file.expect("it is").path();
            if file.extension().is_none() {
                fs::copy(&file, copy.join(file.file_name().expect("a name"))).expect("copied");
            }
        }
        let answer = lastword(dir.path(), &[args, &["--data", "store"][..]].concat()).ok();
        (*name, answer)
    })
    .collect()
}

/// I14, R8.2, B8: a store that version 1 wrote opens for ever, and says the same about its records,
/// their history, conflicts and dead letters. The stores in `fixtures/v1` are never changed or made
/// again; a file with an answer may be edited only where the command line is meant to say something
/// else of the same store.
#[test]
fn stores_of_version_1_open_for_ever() {
    if std::env::var_os(MAKE).is_some() {
        make(&fixtures());
    }
    for (store, is_server) in [("server", true), ("device", false)] {
        let store = fixtures().join(store);
        for (name, answer) in answers(&store, is_server) {
            let expected = fs::read_to_string(store.join(name)).expect("the answer is there");
            assert_eq!(answer, expected, "{} {name}", store.display());
        }
    }
}

/// One record with a value of each type.
const VALUES: &str = r#"{"null":null,"yes":true,"int":-9007199254740993,"float":1.5,
    "zero":-0.0,"text":"ü 日本","bytes":{"$bytes":"AAEC/w=="},"list":[1,[2,{}]],
    "map":{"a":{"b":1},"$$c":2}}"#;

/// Makes the stores and their answers with the commands of this release.
fn make(to: &Path) {
    assert!(!to.exists(), "{} is never made again", to.display());
    let work = tempfile::tempdir().expect("a folder");
    let dir = work.path();
    let run = |args: &str| lastword(dir, &args.split(' ').collect::<Vec<_>>());
    let on = |server: &Server, token: &str, args: &str| {
        run(&format!("{args} --server {} --token {token}", server.url))
    };
    let mut server = Server::start(&dir.join("first"));
    on(&server, "ann", r#"put notes n0 {"text":"before"} --data old --wait"#).ok();
    server.kill();
    run("backup --data first --out bak").ok();
    run("restore bak --to srv").ok();

    // Every action, a conflict, and an edit that lost, in a workspace that was restored.
    let mut server = Server::start(&dir.join("srv"));
    on(&server, "ann", r#"put notes n1 {"text":"a","n":1} --data phone --wait"#).ok();
    on(&server, "ann", "sync --data laptop").ok();
    run(r#"patch notes n1 {"text":"phone"} --data phone --wait"#).ok();
    run(r#"patch notes n1 {"text":"laptop"} --data laptop --offline"#).ok();
    run("sync --data laptop").ok();
    run("sync --data phone").ok();
    run(r#"put notes n1 {"text":"whole"} --data phone --wait"#).ok();
    run("delete notes n1 --data phone --wait").ok();
    run(r#"put notes n1 {"text":"late"} --data laptop --wait"#).ok();
    run("undelete notes n1 --data phone --wait").ok();
    run(r#"put notes gone {"text":"deleted"} --data phone --wait"#).ok();
    run("delete notes gone --data phone --wait").ok();
    lastword(dir, &["put", "values", "v1", VALUES, "--data", "phone", "--wait"]).ok();

    // A restored copy under another user: what it writes is refused.
    run("backup --data phone --out phone-bak").ok();
    run("restore phone-bak --to tablet").ok();
    on(&server, "bob", r#"put notes refused {"text":"not-yours"} --data tablet"#);
    let refused = run("dead-letters --data tablet --json").ok();
    assert!(refused.contains("notes/refused"), "{refused}");
    run("compact --data tablet --history 0d").ok();
    run(r#"patch notes n1 {"text":"late"} --data phone --wait"#).ok();
    run("sync --data tablet").ok();
    run(r#"put notes waits {"text":"unsent"} --data tablet --offline"#).ok();

    // A base, the log before and behind it, and an end that was cut short.
    server.kill();
    run("compact --data srv").ok();
    server.restart();
    run(r#"patch notes n1 {"n":2} --data phone --wait"#).ok();
    server.kill();
    keep(&dir.join("tablet"), &to.join("device"), &[]);
    keep(&dir.join("srv"), &to.join("server"), &[0xab; 100]);
    for (store, is_server) in [("server", true), ("device", false)] {
        for (name, answer) in answers(&to.join(store), is_server) {
            fs::write(to.join(store).join(name), answer).expect("written");
        }
    }
}

/// Copies the files of a log without the zeros at the end of segments; the last gets `torn` there.
fn keep(from: &Path, to: &Path, torn: &[u8]) {
    fs::create_dir_all(to).expect("made");
    let mut files: Vec<(u64, PathBuf, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(from).expect("it lists") {
        let path = entry.expect("an entry").path();
        let mut bytes = fs::read(&path).unwrap_or_default();
        if !bytes.starts_with(b"LASTWORD") || path.extension().is_some() {
            continue;
        }
        let is_base = bytes[10] == 2;
        if !is_base {
            let end = bytes.iter().rposition(|byte| *byte != 0).expect("a header") + 1;
            bytes.truncate(end.next_multiple_of(8).max(128));
        }
        let first = u64::from_le_bytes(bytes[72..80].try_into().expect("eight bytes"));
        files.push((if is_base { 0 } else { first + 1 }, path, bytes));
    }
    files.sort();
    files.last_mut().expect("a segment").2.extend(torn);
    for (_, path, bytes) in files {
        fs::write(to.join(path.file_name().expect("a name")), bytes).expect("written");
    }
}
