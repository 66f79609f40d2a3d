//! Older versions of a record, read from the server.

use std::fs;

use lastword::SyncFailure;
use lastword::core::value::Value;

use crate::common::{Device, LIMIT, Server, json_of, lastword, name};

fn long(letter: &str) -> String {
    letter.repeat(5000)
}

fn text(letter: &str) -> String {
    format!(r#"{{"text":"{}"}}"#, long(letter))
}

/// R3.3, semantics 3: the losing value of a conflict that is too large for its row is read from the
/// server, by the command line too; so is every older version. Where there is none, the error says
/// so.
#[test]
fn a_large_value_that_lost_is_read_from_the_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let server = Server::start_with(&dir.join("srv"), &["--dev".into()], "127.0.0.1:0");
    let (mut ann, mut bob) = (Device::open(&dir.join("ann")), Device::open(&dir.join("bob")));
    ann.put("notes", "m1", &text("a"));
    ann.catch_up(&server.url);
    bob.catch_up(&server.url);
    ann.put("notes", "m1", &text("b"));
    ann.catch_up(&server.url);
    bob.put("notes", "m1", &text("c"));
    bob.connect(&server.url, "ann");
    bob.caught_up();
    let conflict = &bob.rows("_conflicts")[0].1;
    let conflict: serde_json::Value = serde_json::from_str(conflict).expect("JSON");
    let losing = &conflict["fields"]["text"]["losing"];
    let seq = losing["seq"].as_u64().unwrap_or_else(|| panic!("{conflict}"));

    let (table, key) = name("notes", "m1");
    let sync = bob.sync.as_ref().expect("connected");
    let ask = |seq| sync.field_at(&bob.ws, (&table, &key), "text", seq, Some(LIMIT));
    assert_eq!(ask(seq).expect("it is there"), Value::Text(long("b")));
    let gone = ask(0).expect_err("there is no version 0");
    assert!(matches!(gone, SyncFailure::ValueGone { seq: 0, .. }), "{gone}");
    let history = sync.record_history(&bob.ws, (&table, &key), Some(LIMIT)).expect("it is told");
    let texts: Vec<_> =
        history.versions.iter().map(|v| v.record.as_ref().map(|r| r.get("text"))).collect();
    assert_eq!(texts, ["c", "b", "a"].map(|letter| Some(Some(Value::Text(long(letter))))));
    let (no, none) = name("notes", "no");
    let unknown = sync.record_history(&bob.ws, (&no, &none), Some(LIMIT)).expect("it is told");
    assert!(unknown.versions.is_empty() && !unknown.older_folded);
    bob.disconnect();
    bob.db.close().expect("it closes");

    let seq = seq.to_string();
    let common =
        ["history", "notes", "m1", "--data", "bob", "--server", &server.url, "--token", "ann"];
    let value =
        json_of(dir, &[&common[..], &["--remote", "--field", "text", "--at", &seq]].concat());
    assert_eq!(value["text"], long("b"));
    let lines = lastword(dir, &[&common[..], &["--remote", "--json"]].concat()).ok();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    let gone = [&common[..], &["--remote", "--field", "text", "--at", "0"]].concat();
    let told = lastword(dir, &gone).fails(1);
    assert!(told.contains("no more"), "{told}");
}

/// I38, semantics 14.9: nobody reads versions of a record that the user may not see, not even that
/// it has any.
#[test]
fn nobody_reads_the_history_of_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let schema =
        "[tables.notes]\nkey = \"id\"\n\n[tables.inbox]\nkey = \"id\"\nprivate_by = \"user\"\n";
    fs::write(dir.join("schema.toml"), schema).expect("it is written");
    let path = dir.join("schema.toml").display().to_string();
    let args = ["--dev".to_owned(), "--schema".into(), path];
    let server = Server::start_with(&dir.join("srv"), &args, "127.0.0.1:0");
    let (mut ann, mut bob) = (Device::open(&dir.join("ann")), Device::open(&dir.join("bob")));
    ann.put("inbox", "i1", r#"{"id":"i1","user":"ann","text":"mine"}"#);
    ann.connect(&server.url, "ann");
    ann.caught_up();
    bob.connect(&server.url, "bob");
    bob.caught_up();
    let (table, key) = name("inbox", "i1");
    let versions = |device: &Device| {
        let sync = device.sync.as_ref().expect("connected");
        let told = sync.record_history(&device.ws, (&table, &key), Some(LIMIT));
        told.expect("it is told").versions.len()
    };
    assert_eq!((versions(&ann), versions(&bob)), (1, 0));
    ann.delete("inbox", "i1");
    ann.caught_up();
    assert_eq!((versions(&ann), versions(&bob)), (2, 0));
}
