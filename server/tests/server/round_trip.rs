//! What goes in comes out: on the device that wrote it, on a fresh one, on the server.

use std::path::Path;

use crate::common::{Server, json_of, lastword, node};

/// Digest and row count of workspace `main` in a directory.
fn sums(dir: &Path, data: &str) -> (String, u64) {
    let status = json_of(dir, &["status", "--data", data, "--json"]);
    let main = &status["workspaces"][0];
    let digest = main["digest"].as_str().expect("a digest").to_owned();
    (digest, main["rows"].as_u64().expect("a count"))
}

/// Imports `file` on device a, exports it on a fresh device b, and checks that a, b and the server
/// agree. Answers the export.
fn through_a_server(dir: &Path, file: &str, batch: &str) -> String {
    let mut server = Server::start(&dir.join("server"));
    let link = ["--server", &server.url, "--token", "me"];
    let import = ["import", file, "--data", "a", "--batch", batch, "--json"];
    let told = json_of(dir, &[&import[..], &link].concat());
    assert!(told["records_per_second"].as_u64().expect("a rate") > 0, "{told}");
    assert_eq!((&told["outbox"], &told["settled"]["refused"]), (&0.into(), &0.into()), "{told}");
    let fresh = lastword(dir, &[&["export", "--data", "b"][..], &link].concat());
    assert!(fresh.err.contains("records/s"), "{}", fresh.err);
    let fresh = fresh.ok();
    assert!(lastword(dir, &["export", "--data", "a"]).ok() == fresh, "a and b differ");

    // Running it again changes nothing that is seen.
    lastword(dir, &["sync", "--data", "a"]).ok();
    assert!(lastword(dir, &["export", "--data", "a"]).ok() == fresh, "a changed by itself");
    let (a, b) = (sums(dir, "a"), sums(dir, "b"));
    server.kill();
    assert_eq!(a, b);
    assert_eq!(a, sums(dir, "server"));
    assert!(lastword(dir, &["export", "--data", "server"]).ok() == fresh, "the server differs");
    std::fs::write(dir.join("exported.jsonl"), &fresh).expect("the folder can be written");
    fresh
}

/// R2.1, R2.2, I16: a random file of puts, patches, deletes and undeletes, with floats, large
/// values and keys in many scripts, leaves on every side what a script that shares no code with us
/// expects, value for value.
#[test]
fn edits_leave_what_an_independent_script_expects() {
    for seed in ["1", "20261124"] {
        let dir = tempfile::tempdir().expect("a folder");
        node(dir.path(), "edits.mjs", &[seed, "edits.jsonl", "expected.jsonl", "300"]);
        through_a_server(dir.path(), "edits.jsonl", "500");
        node(dir.path(), "same.mjs", &["expected.jsonl", "exported.jsonl"]);
        // The export is itself a file of records; importing it again changes nothing.
        let again = ["import", "exported.jsonl", "--data", "a", "--offline", "--json"];
        assert_eq!(json_of(dir.path(), &again)["written"], 0);
    }
}

/// R2.2: chat records of the usual shapes go to a fresh device byte for byte, sorted by table and
/// key, whatever order they came in; a second import of the same file writes nothing.
#[test]
fn records_arrive_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut lines: Vec<String> = (0..5_000_u64)
        .map(|number| {
            let place = number * 7919 % 5_000;
            let (table, key) = (["threads", "messages"][(place % 2) as usize], format!("k{place:05}"));
            format!(
                r#"{{"table":"{table}","key":"{key}","value":{{"id":"{key}","index":{place},"data":{{"content":"line {number}\n\"quoted\" ünï {}","parts":[1,1.5,null,true]}},"clock":{number}}}}}"#,
                "text ".repeat((place % 40) as usize),
            )
        })
        .collect();
    std::fs::write(dir.path().join("chat.jsonl"), lines.join("\n")).expect("written");
    let exported = through_a_server(dir.path(), "chat.jsonl", "64");
    lines.sort_by_key(|line| {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        (value["table"].to_string(), value["key"].to_string())
    });
    assert!(exported.lines().eq(lines.iter().map(String::as_str)), "the export differs");
    let again = ["import", "chat.jsonl", "--data", "a", "--offline", "--json"];
    let told = json_of(dir.path(), &again);
    assert_eq!((&told["written"], &told["unchanged"]), (&0.into(), &5_000.into()));
}
