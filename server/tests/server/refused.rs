//! Refused batches: the command line never hides one.

use std::path::Path;
use std::process::Stdio;

use crate::common::{Server, command, json_of, lastword};

/// Two patches that fit each, but not together: the second is refused.
fn write_patches(dir: &Path) {
    for (file, field, size) in [("x.jsonl", "x", 200 * 1024), ("y.jsonl", "y", 100 * 1024)] {
        let filler = "f".repeat(size);
        let line = format!(
            r#"{{"table":"notes","key":"n1","op":"patch","set":{{"{field}":"{filler}"}}}}"#
        );
        std::fs::write(dir.join(file), line).expect("written");
    }
}

/// A server, and devices `b` and `c` each with a batch in the outbox that it is going to refuse.
fn two_refusals_ahead(dir: &Path) -> Server {
    let server = Server::start(&dir.join("server"));
    let link = ["--server", server.url.as_str(), "--token", "me"];
    let run = |args: &[&str]| lastword(dir, args);
    write_patches(dir);
    run(&[&["put", "notes", "n1", "{}", "--data", "a", "--wait"][..], &link].concat()).ok();
    for device in ["b", "c"] {
        run(&[&["sync", "--data", device][..], &link].concat()).ok();
        run(&["import", "y.jsonl", "--data", device, "--offline"]).ok();
    }
    run(&["import", "x.jsonl", "--data", "a", "--wait"]).ok();
    server
}

/// B3. The reader of stdout was gone (`| head`), and an import whose batch was refused ended with
/// exit code 0. The refusal is told whatever becomes of stdout, and `dead-letters` lists it.
#[test]
fn a_closed_stdout_does_not_hide_a_refusal() {
    let dir = tempfile::tempdir().expect("a folder");
    let _server = two_refusals_ahead(dir.path());
    let run = |args: &[&str]| lastword(dir.path(), args);
    assert_eq!(run(&["dead-letters", "--data", "b"]).ok(), "no dead letters in workspace main\n");
    for (device, args) in [
        ("b", &["sync", "--data", "b"][..]),
        ("c", &["import", "y.jsonl", "--data", "c", "--wait", "--json"]),
    ] {
        let mut command = command(dir.path(), args);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        drop(child.stdout.take());
        let err = std::io::read_to_string(child.stderr.take().expect("piped")).expect("UTF-8");
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "{args:?}: {err}");
        assert!(err.contains("1 batch refused: `lastword dead-letters`"), "{args:?}: {err}");
        let told = run(&["dead-letters", "--data", device]).ok();
        assert!(told.contains(": notes/n1; ") && told.contains("(result_too_big)"), "{told}");
        let letter = json_of(dir.path(), &["dead-letters", "--data", device, "--json"]);
        assert_eq!(letter["records"], serde_json::json!(["notes/n1"]));
        assert_eq!(letter["code"], "result_too_big");
    }
}

/// Rule 9: a unit is sent again, changed, or thrown away, and each tells what became of it. A retry
/// that is refused again is a dead letter again; its ops outlive a fold that keeps no history.
#[test]
fn a_unit_is_retried_edited_and_discarded() {
    let dir = tempfile::tempdir().expect("a folder");
    let _server = two_refusals_ahead(dir.path());
    let run = |args: &[&str]| lastword(dir.path(), args);
    let unit_of = |device: &str| {
        let letter = json_of(dir.path(), &["dead-letters", "--data", device, "--json"]);
        letter["unit"].as_str().expect("text").to_owned()
    };
    for device in ["b", "c"] {
        assert_eq!(run(&["sync", "--data", device]).code, 1);
    }

    let first = unit_of("b");
    let again = run(&["dead-letters", "retry", &first, "--data", "b", "--wait"]);
    assert_eq!(again.code, 1, "{}", again.err);
    assert!(again.err.contains("refused again (result_too_big)"), "{}", again.err);
    let unit = unit_of("b");
    assert_ne!(unit, first, "the server keeps its refusal of the first id for good");
    let gone = run(&["dead-letters", "retry", &first, "--data", "b"]);
    assert!(gone.code == 1 && gone.err.contains("has no dead letters"), "{}", gone.err);
    run(&["compact", "--data", "b", "--history", "0d"]).ok();

    let edit = |key: &'static str| {
        let value = r#"{"y":"short"}"#;
        run(&["dead-letters", "edit", &unit, "notes", key, value, "--data", "b", "--wait"])
    };
    assert!(edit("n2").err.contains("does not name notes/n2"));
    let told = edit("n1").ok();
    assert_eq!(told, format!("1 batch of unit {unit} in the outbox again, and decided\n"));
    assert_eq!(run(&["dead-letters", "--data", "b"]).ok(), "no dead letters in workspace main\n");
    run(&["sync", "--data", "a"]).ok();
    let n1 = json_of(dir.path(), &["get", "notes", "n1", "--data", "a"]);
    assert_eq!(n1["y"], "short");
    assert_eq!(n1["x"].as_str().map(str::len), Some(200 * 1024), "a patch sets its own field only");

    let unit = unit_of("c");
    let wrong = run(&["dead-letters", "discard", &unit, "notes", "n1", "{}", "--data", "c"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    let told = run(&["dead-letters", "discard", &unit, "--data", "c"]).ok();
    assert_eq!(told, format!("discarded 1 batch of unit {unit}\n"));
    assert_eq!(run(&["dead-letters", "--data", "c"]).ok(), "no dead letters in workspace main\n");
    run(&["sync", "--data", "c"]).ok();
    assert_eq!(json_of(dir.path(), &["get", "notes", "n1", "--data", "c"])["y"], "short");
}
