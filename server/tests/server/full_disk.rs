//! The server's disk is full: nothing is decided, nothing is lost, reads go on.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Server, json_of, lastword, listening};

/// A server none of whose files may pass 6 MiB: to it the disk is full there.
fn start_on_a_small_disk(dir: &Path) -> (Child, String) {
    let binary = env!("CARGO_BIN_EXE_lastword");
    let script = format!("trap '' XFSZ; ulimit -f 12288; exec '{binary}' \"$@\"");
    let mut child = Command::new("sh")
        .current_dir(dir)
        .args(["-c", &script, "sh", "serve", "--dev", "--json", "--listen", "127.0.0.1:0"])
        .args(["--data", "server"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let url = listening(&mut child).expect("it starts");
    (child, url)
}

/// I9, R1.2: batches that do not fit wait in the outbox, without a verdict and without being
/// refused; what was acknowledged before is served; once there is room the rest is sent.
#[test]
fn a_full_disk_decides_nothing_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut server, url) = start_on_a_small_disk(dir.path());
    let filler = "0123456789abcdef".repeat(2048);
    let mut lines = String::new();
    for number in 0..300 {
        let line =
            format!(r#"{{"table":"t","key":"k{number:03}","value":{{"filler":"{filler}"}}}}"#);
        writeln!(lines, "{line}").expect("writing to memory");
    }
    std::fs::write(dir.path().join("in.jsonl"), &lines).expect("written");
    let import = ["import", "in.jsonl", "--data", "a", "--batch", "10"];
    let link = ["--server", &url, "--token", "me"];
    let error = lastword(dir.path(), &[&import[..], &link].concat()).fails(1);
    assert!(error.contains("cannot store batches now"), "{error}");
    assert!(error.contains("in the outbox, nothing is lost"), "{error}");
    let status = json_of(dir.path(), &["status", "--data", "a", "--json"]);
    let main = &status["workspaces"][0];
    let (outbox, rows) = (main["outbox"].as_u64().expect("a count"), main["rows"].as_u64());
    assert!((1..30).contains(&outbox), "some fitted, some did not: {status}");
    assert_eq!(main["dead_letters"], 0);
    let fresh = lastword(dir.path(), &[&["export", "--data", "b"][..], &link].concat());
    assert_eq!(fresh.ok().lines().count() as u64, rows.expect("a count"));
    server.kill().expect("it runs");
    server.wait().expect("it ends");

    let server = Server::start(&dir.path().join("server"));
    let link = ["--server", &server.url, "--token", "me"];
    lastword(dir.path(), &[&["sync", "--data", "a"][..], &link].concat()).ok();
    let fresh = lastword(dir.path(), &[&["export", "--data", "c"][..], &link].concat()).ok();
    assert!(fresh == lines, "the export differs from the file");
}
