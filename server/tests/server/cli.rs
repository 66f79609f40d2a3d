//! The command line: what it prints, what it remembers, how it exits.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

use crate::common::{Device, LIMIT, Server, command, json_of, lastword, lines_of, run, with_stdin};

fn link<'a>(server: &'a Server, args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--server", &server.url, "--token", "me"]].concat()
}

/// R1.1, R1.2: a write is done once it is durable here; the outbox says what waits and why, and the
/// next contact sends it without being asked.
#[test]
fn writes_are_saved_without_a_server_and_sent_with_the_next_contact() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(&dir.path().join("server"));
    let put =
        link(&server, &["put", "notes", "n1", r#"{"text":"hi"}"#, "--data", "phone", "--wait"]);
    let told = lastword(dir.path(), &put).ok();
    assert!(told.starts_with("notes/n1 applied, seq 1 ("), "{told}");

    server.kill();
    let offline = ["put", "notes", "n2", r#"{"text":"in the tunnel"}"#, "--data", "phone"];
    let told = lastword(dir.path(), &offline).ok();
    let expected = "saved notes/n2; outbox 1 batch; server not reachable (connection refused)\n";
    assert_eq!(told, expected);
    let told = lastword(dir.path(), &["explain", "notes", "n2", "--data", "phone"]).ok();
    assert!(told.contains("outbox position 1 of 1"), "{told}");
    assert!(told.contains(&format!("will be sent when {} answers", server.url)), "{told}");
    let error = lastword(dir.path(), &["sync", "--data", "phone"]).fails(4);
    assert!(error.contains("not reachable (connection refused); 1 batch waits"), "{error}");
    let patch = ["patch", "notes", "n2", r#"{"seen":true}"#, "--data", "phone", "--wait"];
    lastword(dir.path(), &patch).fails(4);
    assert_eq!(
        json_of(dir.path(), &["status", "--data", "phone", "--json"])["workspaces"][0]["outbox"],
        2
    );

    server.restart();
    let told = lastword(dir.path(), &["sync", "--data", "phone"]).ok();
    assert!(told.starts_with("sent 2 batches (2 applied), received "), "{told}");
    assert!(told.trim_end().ends_with("at seq 4"), "{told}");
    let told =
        lastword(dir.path(), &link(&server, &["get", "notes", "n2", "--data", "laptop"])).ok();
    assert_eq!(told, "{\"text\":\"in the tunnel\",\"seen\":true}\n");
}

/// B4, R2.5: an edit that another device overwrote is told as a conflict with both versions; a
/// superseded write says what stands; history lists every version with its verdict.
#[test]
fn conflicts_and_history_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(&dir.path().join("server"));
    let run = |args: &[&str]| lastword(dir.path(), args);
    run(&link(&server, &["put", "notes", "n1", r#"{"text":"a"}"#, "--data", "phone", "--wait"]))
        .ok();
    run(&link(&server, &["sync", "--data", "laptop"])).ok();
    run(&["patch", "notes", "n1", r#"{"text":"phone"}"#, "--data", "phone", "--wait"]).ok();
    run(&["patch", "notes", "n1", r#"{"text":"laptop"}"#, "--data", "laptop", "--offline"]).ok();
    let told = run(&["sync", "--data", "laptop"]).ok();
    assert!(
        told.contains("1 conflict: notes/n1 your edit (seq 4) overwrote the edit by me, device"),
        "{told}"
    );
    let told = run(&["explain", "notes", "n1", "--data", "laptop"]).ok();
    assert!(told.contains("conflict notes/n1 your edit (seq 4) overwrote"), "{told}");

    run(&["delete", "notes", "n1", "--data", "phone", "--wait"]).ok();
    let late = ["put", "notes", "n1", r#"{"text":"late"}"#, "--data", "laptop", "--wait"];
    let told = run(&late).ok();
    assert!(told.contains("superseded (dead) by seq 7"), "{told}");
    run(&["get", "notes", "n1", "--data", "phone"]).fails(1);
    run(&["undelete", "notes", "n1", "--data", "phone", "--wait"]).ok();
    assert_eq!(
        run(&["get", "notes", "n1", "--data", "laptop", "--wait"]).ok(),
        "{\"text\":\"laptop\"}\n"
    );

    server.kill();
    let told = run(&["history", "notes", "n1", "--data", "server", "--json"]).ok();
    let ops: Vec<String> = told
        .lines()
        .map(|line| {
            let version: serde_json::Value = serde_json::from_str(line).expect("JSON");
            format!(
                "{} {}",
                version["op"].as_str().expect("op"),
                version["verdict"].as_str().expect("verdict")
            )
        })
        .collect();
    let expected = [
        "undelete applied",
        "put superseded by seq 7 (dead)",
        "delete applied",
        "patch applied",
        "patch applied",
        "create applied",
    ];
    assert_eq!(ops, expected);
    assert!(run(&["history", "notes", "n1", "--data", "server"]).ok().contains("seq 1"));
}

/// The server's address and token are remembered in the directory, for its owner only; a token in
/// the environment never reaches the command line or the lock file.
#[test]
fn the_server_is_remembered() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let error = lastword(dir.path(), &["sync", "--data", "phone"]).fails(1);
    assert!(error.contains("no store in phone"), "{error}");
    let args = ["sync", "--data", "phone", "--server", &server.url];
    let error = lastword(dir.path(), &args).fails(2);
    assert!(error.contains("--token") && error.contains("LASTWORD_TOKEN"), "{error}");
    let mut empty = command(dir.path(), &args);
    empty.env("LASTWORD_TOKEN", "");
    let error = run(empty).fails(2);
    assert!(error.contains("a token for ws://"), "an empty variable is no token: {error}");
    assert!(!dir.path().join("phone").exists(), "a store was made");
    let mut sync = command(dir.path(), &args);
    sync.env("LASTWORD_TOKEN", "me");
    run(sync).ok();
    lastword(dir.path(), &["sync", "--data", "phone"]).ok();
    assert!(json_of(dir.path(), &["status", "--data", "phone", "--json"])["server"].is_string());
    let device = Device::open(&dir.path().join("phone"));
    let lock = std::fs::read_to_string(dir.path().join("phone/LOCK")).expect("it is there");
    assert!(lock.starts_with(&std::process::id().to_string()), "{lock}");
    assert!(!lock.contains("token"), "{lock}");
    drop(device);
    let error = lastword(dir.path(), &["put", "notes", "n1", "{}", "--offline", "--wait"]).fails(2);
    assert!(error.contains("--offline"), "{error}");
}

/// R1.3: `watch` prints what is there, then each change as it comes, also from other devices.
#[test]
fn watch_prints_changes_as_they_come() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    lastword(
        dir.path(),
        &link(&server, &["put", "notes", "n1", r#"{"a":1}"#, "--data", "a", "--wait"]),
    )
    .ok();
    let watch =
        Watch::start(command(dir.path(), &link(&server, &["watch", "notes", "--data", "b"])));
    let next = || -> serde_json::Value {
        serde_json::from_str(&watch.out.recv_timeout(LIMIT).expect("a line")).expect("JSON")
    };
    let first = next();
    assert_eq!(
        (&first["key"], &first["value"]["a"], &first["seq"]),
        (&"n1".into(), &1.into(), &1.into())
    );
    lastword(dir.path(), &["patch", "notes", "n1", r#"{"a":2}"#, "--data", "a", "--wait"]).ok();
    assert_eq!(next()["value"]["a"], 2);
    lastword(dir.path(), &["put", "other", "x", "{}", "--data", "a", "--wait"]).ok();
    lastword(dir.path(), &["delete", "notes", "n1", "--data", "a", "--wait"]).ok();
    let gone = next();
    assert_eq!((&gone["key"], &gone["deleted"]), (&"n1".into(), &true.into()));
}

/// A `lastword watch` process and what it prints.
struct Watch {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

impl Watch {
    fn start(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("watch starts");
        let out = lines_of(child.stdout.take().expect("piped"));
        let err = lines_of(child.stderr.take().expect("piped"));
        Self { child, out, err }
    }

    /// Waits until it says this on stderr.
    fn says(&self, text: &str) {
        while !self.err.recv_timeout(LIMIT).expect(text).contains(text) {}
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().expect("watch can be killed");
        self.child.wait().expect("it ends");
    }
}

/// B1, I28. `watch` was silent when nothing came any more: a server that was gone, and one that did
/// not know the token, looked like a quiet workspace.
#[test]
fn watch_says_why_nothing_comes() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = dir.path().join("members");
    std::fs::write(&members, "me, ann, main, viewer\n").expect("written");
    let access = ["--tokens".to_owned(), members.display().to_string()];
    let mut server = Server::start_with(&dir.path().join("server"), &access, "127.0.0.1:0");
    lastword(dir.path(), &link(&server, &["sync", "--data", "a"])).ok();
    lastword(dir.path(), &["put", "notes", "n1", "{}", "--data", "a"]).ok();
    let watch = Watch::start(command(dir.path(), &["watch", "--data", "a"]));
    watch.says("the server takes no writes of this device: your role");
    server.kill();
    watch.says("server not reachable (");
    std::fs::write(&members, "me, ann, main, editor\n").expect("written");
    server.restart();
    watch.says("in step with the server again");
    server.kill();
    watch.says("server not reachable (");
    std::fs::write(&members, "other, ann, main, editor\n").expect("written");
    server.restart();
    watch.says("does not know the token; from here on only changes of this device are shown");
}

/// A value may come from stdin, and the log lists what happened in order.
#[test]
fn stdin_and_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let put = ["put", "notes", "n1", "-", "--data", "d"];
    with_stdin(dir.path(), &put, b"{\"text\":\"from stdin\"}\n").ok();
    let told = lastword(dir.path(), &["get", "notes", "n1", "--data", "d", "--json"]).ok();
    let expected =
        r#"{"table":"notes","key":"n1","value":{"text":"from stdin"},"seq":null,"pending":true}"#;
    assert_eq!(told.trim_end(), expected);
    let log = lastword(dir.path(), &["log", "--data", "d"]).ok();
    let kinds: Vec<&str> = log.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(kinds, ["identity", "local"]);
    let page = lastword(dir.path(), &["log", "--data", "d", "--limit", "1"]);
    let next = page.err.trim().rsplit(' ').next().expect("a position").to_owned();
    assert_eq!(page.err, format!("more follows: --from {next}\n"));
    let rest = lastword(dir.path(), &["log", "--data", "d", "--from", &next]).ok();
    assert_eq!(rest, log.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>());
    // Between two frames, and behind the last: no damage, but a mistake of who asks.
    for from in ["1", "8", "99999999"] {
        let error = lastword(dir.path(), &["log", "--data", "d", "--from", from]).fails(2);
        assert!(error.contains("positions come from `lastword log`"), "{from}: {error}");
    }
}

/// An import that is run again goes on where it stopped, and bad lines can be skipped by name.
#[test]
fn import_resumes_and_keeps_going() {
    let dir = tempfile::tempdir().expect("a folder");
    let path: &Path = dir.path();
    let lines: Vec<String> = (0..100)
        .map(|number| format!(r#"{{"table":"notes","key":"n{number}","value":{{"n":{number}}}}}"#))
        .collect();
    std::fs::write(path.join("half.jsonl"), lines[..50].join("\n")).expect("written");
    std::fs::write(path.join("all.jsonl"), lines.join("\r\n") + "\r\n\r\n").expect("written");
    lastword(path, &["import", "half.jsonl", "--data", "d"]).ok();
    let told = json_of(path, &["import", "all.jsonl", "--data", "d", "--json"]);
    assert_eq!((&told["written"], &told["unchanged"]), (&50.into(), &50.into()));

    let mut broken = lines.clone();
    broken[3] = "{nonsense".into();
    broken[7] = r#"{"table":"notes","key":"gone","op":"undelete"}"#.into();
    std::fs::write(path.join("broken.jsonl"), broken.join("\n")).expect("written");
    let ran = lastword(path, &["import", "broken.jsonl", "--data", "e", "--keep-going"]);
    let error = ran.fails(1);
    assert!(error.contains("broken.jsonl:4: ") && error.contains("broken.jsonl:8: "), "{error}");
    assert_eq!(lastword(path, &["export", "--data", "e"]).ok().lines().count(), 98);
}

/// I6, R1.2. An import of edits could not be run again: a record that its own last line had deleted
/// was missing for the patch before it. What ends as it is now is left alone; nothing is written.
#[test]
fn an_import_of_edits_can_be_run_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let path: &Path = dir.path();
    let lines = [
        r#"{"table":"t","key":"a","op":"patch","set":{"n":2}}"#,
        r#"{"table":"t","key":"a","op":"delete"}"#,
        r#"{"table":"t","key":"b","value":{"n":1}}"#,
        r#"{"table":"t","key":"b","op":"delete"}"#,
        r#"{"table":"t","key":"c","op":"delete"}"#,
        r#"{"table":"t","key":"d","value":{"n":1}}"#,
    ];
    std::fs::write(path.join("in.jsonl"), lines.join("\n")).expect("written");
    lastword(path, &["put", "t", "a", r#"{"n":1}"#, "--data", "d"]).ok();
    let told = json_of(path, &["import", "in.jsonl", "--data", "d", "--json"]);
    assert_eq!((&told["written"], &told["unchanged"]), (&5.into(), &1.into()));
    let log = lastword(path, &["log", "--data", "d"]).ok();
    let told = json_of(path, &["import", "in.jsonl", "--data", "d", "--json"]);
    assert_eq!((&told["written"], &told["unchanged"]), (&0.into(), &6.into()));
    assert_eq!(lastword(path, &["log", "--data", "d"]).ok(), log);
    // A patch of a record that stays deleted is still a mistake.
    std::fs::write(path.join("bad.jsonl"), lines[0]).expect("written");
    let error = lastword(path, &["import", "bad.jsonl", "--data", "d"]).fails(1);
    assert!(error.contains("bad.jsonl:1: there is no t/a to patch"), "{error}");
}
