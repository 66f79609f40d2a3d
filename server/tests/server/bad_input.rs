//! Bad input gets an error that says what and where, and changes nothing.

use std::path::Path;

use crate::common::{Device, Server, lastword, with_stdin};

fn import(dir: &Path, text: &str) -> String {
    std::fs::write(dir.join("in.jsonl"), text).expect("written");
    lastword(dir, &["import", "in.jsonl", "--data", "d"]).fails(1)
}

/// A broken line anywhere in the file stops the import before its first write; the message names
/// file, line and column.
#[test]
fn a_broken_line_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let good = r#"{"table":"notes","key":"n1","value":{"a":1}}"#;
    for (bad, expected) in [
        (r#"{"table":"notes","key":"n2","value":{"a":}}"#, "in.jsonl:2: column 42: expected value"),
        (r#"{"table":"notes","key":"n2"}"#, "a put needs \"value\""),
        (r#"{"table":"notes","value":{}}"#, "missing field `key`"),
        (r#"{"table":"notes","key":"n2","value":{"a":1,"a":2}}"#, "field a: the name occurs twice"),
        (r#"{"table":"notes","key":"n2","value":{"a":1e999}}"#, "column"),
        ("\u{feff}x", "column 1"),
    ] {
        let error = import(dir.path(), &format!("{good}\n{bad}\n{good}\n"));
        assert!(error.contains("in.jsonl:2: ") && error.contains(expected), "{bad}: {error}");
        assert!(error.contains("nothing was written"), "{error}");
        assert!(!dir.path().join("d").exists(), "a store was made");
    }
}

/// Keys and records beyond the limits are refused with their size and the limit.
#[test]
fn limits_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let long = "k".repeat(1025);
    let error = import(dir.path(), &format!(r#"{{"table":"t","key":"{long}","value":{{}}}}"#));
    assert!(error.contains("1025 bytes long, the limit is 1024"), "{error}");
    let large = "x".repeat(256 * 1024);
    let error =
        import(dir.path(), &format!(r#"{{"table":"t","key":"k","value":{{"a":"{large}"}}}}"#));
    assert!(error.contains("the limit is 262144"), "{error}");
    let endless = "x".repeat(3 * 1024 * 1024);
    let error =
        import(dir.path(), &format!(r#"{{"table":"t","key":"k","value":{{"a":"{endless}"}}}}"#));
    assert!(error.contains("in.jsonl:1: the line is over"), "{error}");
    assert!(!dir.path().join("d").exists(), "a store was made");
    let error = lastword(dir.path(), &["put", "t", &long, "{}", "--data", "d"]).fails(1);
    assert!(error.contains("the limit is 1024"), "{error}");
    let error = lastword(dir.path(), &["put", "no/table", "k", "{}", "--data", "d"]).fails(1);
    assert!(error.contains("no/table"), "{error}");
    lastword(dir.path(), &["put", "t", "k", "{}", "--data", "d", "--workspace", "_store"]).fails(1);
}

/// A server that is not there, or is no server's address, is named; what was written stays.
#[test]
fn an_unknown_server_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let nobody = "ws://127.0.0.1:1";
    let args = ["put", "t", "k", "{}", "--data", "d", "--server", nobody, "--token", "x", "--wait"];
    let error = lastword(dir.path(), &args).fails(4);
    assert!(error.contains("saved t/k; outbox 1 batch; server not reachable"), "{error}");
    assert_eq!(lastword(dir.path(), &["get", "t", "k", "--data", "d"]).ok(), "{}\n");
    let args = ["sync", "--data", "d", "--server", "gopher://x", "--token", "x"];
    let error = lastword(dir.path(), &args).fails(1);
    assert!(error.contains("gopher://x") && error.contains("ws://"), "{error}");
}

/// R8.1: a wrong token is told as such, is not remembered, and loses nothing.
#[test]
fn a_wrong_token_is_told_and_not_remembered() {
    let dir = tempfile::tempdir().expect("a folder");
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret, ann, main, owner\n").expect("written");
    let access = ["--tokens".to_owned(), tokens.display().to_string()];
    let server = Server::start_with(&dir.path().join("server"), &access, "127.0.0.1:0");
    let args = ["put", "t", "k", "{}", "--data", "d", "--wait", "--server", &server.url];
    let error = lastword(dir.path(), &[&args[..], &["--token", "wrong"]].concat()).fails(1);
    assert!(error.contains("does not know the token"), "{error}");
    assert!(!dir.path().join("d/remote.toml").exists());
    let args = ["sync", "--data", "d", "--server", &server.url, "--token", "secret"];
    assert!(lastword(dir.path(), &args).ok().contains("sent 1 batch (1 applied)"));
}

/// One process per directory: the second is told which process has it.
#[test]
fn a_locked_directory_names_the_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let _device = Device::open(&dir.path().join("d"));
    let error = lastword(dir.path(), &["get", "t", "k", "--data", "d"]).fails(1);
    assert!(error.contains(&format!("is open in process {}", std::process::id())), "{error}");
    assert!(error.contains("another device"), "{error}");
}

/// A directory of something else, of the other role, of a newer format, or damaged, is refused and
/// left as it is.
#[test]
fn foreign_newer_and_damaged_directories_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path();
    std::fs::create_dir(path.join("photos")).expect("made");
    std::fs::write(path.join("photos/cat.jpg"), "meow").expect("written");
    let error = lastword(path, &["put", "t", "k", "{}", "--data", "photos"]).fails(1);
    assert!(error.contains("not a Lastword store"), "{error}");
    assert_eq!(std::fs::read_dir(path.join("photos")).expect("there").count(), 1);

    let mut server = Server::start(&path.join("server"));
    server.kill();
    let error = lastword(path, &["put", "t", "k", "{}", "--data", "server"]).fails(1);
    assert!(error.contains("server's data"), "{error}");

    lastword(path, &["put", "t", "k", r#"{"a":1}"#, "--data", "d"]).ok();
    let log = path.join("d/000000000001");
    let bytes = std::fs::read(&log).expect("the log");
    let mut newer = bytes.clone();
    newer[8] = 9;
    std::fs::write(&log, &newer).expect("written");
    let error = lastword(path, &["get", "t", "k", "--data", "d"]).fails(1);
    assert!(error.contains("format 9") && error.contains("newer release"), "{error}");

    let mut damaged = bytes.clone();
    damaged[128 + 30] ^= 1;
    std::fs::write(&log, &damaged).expect("written");
    std::fs::remove_file(path.join("d/000000000002.state")).ok();
    let state = std::fs::read_dir(path.join("d")).expect("there");
    for entry in state.map(|entry| entry.expect("readable").path()) {
        if entry.extension().is_some_and(|extension| extension == "state") {
            std::fs::remove_file(entry).expect("removed");
        }
    }
    let error = lastword(path, &["get", "t", "k", "--data", "d"]).fails(3);
    assert!(error.contains("damaged at byte"), "{error}");
    std::fs::write(&log, &bytes).expect("written");
    assert_eq!(lastword(path, &["get", "t", "k", "--data", "d"]).ok(), "{\"a\":1}\n");
}

/// R8.1. Keys, fields and messages come from others; printed raw they drove the reader's terminal.
#[test]
fn control_characters_are_escaped() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str]| lastword(dir.path(), &[args, &["--data", "d"]].concat());
    let key = "a\u{1b}[2J\nb\u{9b}";
    let outputs = [
        run(&["put", "t", key, "{\"f\":\"\u{9b}\"}"]).ok(),
        run(&["get", "t", key]).ok(),
        run(&["explain", "t", key]).ok(),
        run(&["history", "t", key]).ok(),
        run(&["log"]).ok(),
        run(&["export"]).ok(),
        run(&["get", "other", key]).fails(1),
        run(&["delete", "other", key]).fails(1),
    ];
    for output in outputs {
        let raw = |c: char| c.is_control() && c != '\n';
        assert!(!output.contains(raw) && !output.contains("\nb"), "{output:?}");
    }
    assert_eq!(run(&["export"]).ok().lines().count(), 1);
}

/// What people try first is answered with what to do: an array, a file with a byte-order mark; and
/// a fault on stdin says that it was there.
#[test]
fn common_mistakes_are_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path();
    let line = r#"{"table":"t","key":"k","value":{}}"#;
    let error = import(path, &format!("[{line}]"));
    assert!(error.contains("in.jsonl:1: column 1: a JSON array"), "{error}");
    let error = import(path, &format!("\u{feff}{line}\n"));
    assert!(error.contains("in.jsonl:1: column 1: it begins with a byte-order mark"), "{error}");
    let error = lastword(path, &["put", "t", "k", "[1]", "--data", "d"]).fails(1);
    assert!(error.contains("a JSON array, where one object is needed"), "{error}");
    let put = ["put", "t", "k", "-", "--data", "d"];
    for (text, expected) in [
        (&b"\xef\xbb\xbf{}"[..], "error: stdin: column 1: it begins with a byte-order mark"),
        (b"{\"a\":}", "error: stdin: column 6, field a: "),
        (b"{\"a\":\"\xff\"}", "error: stdin: byte 7: not UTF-8"),
    ] {
        let error = with_stdin(path, &put, text).fails(1);
        assert!(error.starts_with(expected), "{error}");
    }
    let error = with_stdin(path, &["import", "-", "--data", "d"], b"{").fails(1);
    assert!(error.contains("stdin:1: column"), "{error}");
}

/// A mistyped workspace exported nothing and ended well, and was taken for an empty one.
#[test]
fn an_unknown_workspace_is_not_exported() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(&dir.path().join("server"));
    let link = ["--server", server.url.as_str(), "--token", "me"];
    let put = ["put", "t", "k", "{}", "--data", "d", "--wait"];
    lastword(dir.path(), &[&put[..], &link].concat()).ok();
    server.kill();
    for data in ["d", "server"] {
        let error = lastword(dir.path(), &["export", "-w", "typo", "--data", data]).fails(1);
        let expected = format!("there is no workspace typo in {data}: it has main");
        assert!(error.contains(&expected), "{error}");
        assert_eq!(lastword(dir.path(), &["export", "--data", data]).ok().lines().count(), 1);
    }
}

/// R1.1, R1.3. A broken `remote.toml` kept people from reading what is on their own disk.
#[test]
fn a_broken_remote_does_not_stop_local_reads() {
    let dir = tempfile::tempdir().expect("a folder");
    lastword(dir.path(), &["put", "t", "k", "{}", "--data", "d"]).ok();
    std::fs::write(dir.path().join("d/remote.toml"), "url = ").expect("written");
    for args in [
        &["get", "t", "k", "--data", "d"][..],
        &["export", "--data", "d"],
        &["status", "--data", "d"],
        &["put", "t", "k2", "{}", "--data", "d", "--offline"],
    ] {
        let ran = lastword(dir.path(), args);
        assert!(ran.err.starts_with("warning: d/remote.toml: "), "{ran:?}");
        ran.ok();
    }
    let error = lastword(dir.path(), &["sync", "--data", "d"]).fails(1);
    assert!(error.contains("error: d/remote.toml: "), "{error}");
}
