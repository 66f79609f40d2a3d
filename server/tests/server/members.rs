//! Who may do what: the tokens file.

use std::path::Path;

use lastword::{StopReason, SyncStatus};

use crate::common::{Device, LIMIT, Server, json_of, lastword};

fn serve(dir: &Path, tokens: &str) -> Server {
    std::fs::write(dir.join("tokens"), tokens).expect("written");
    let access = ["--tokens".to_owned(), dir.join("tokens").display().to_string()];
    Server::start_with(&dir.join("server"), &access, "127.0.0.1:0")
}

fn opened(dir: &Path, name: &str) -> Device {
    Device::open(&dir.join(name))
}

/// The running server reads this file of members; what it says.
fn reloaded(dir: &Path, tokens: &str) -> String {
    std::fs::write(dir.join("tokens"), tokens).expect("written");
    lastword(dir, &["admin", "members", "--data", "server"]).ok()
}

/// Why the device does not sync any more, once it does not.
fn stopped(device: &Device) -> (StopReason, String) {
    let sync = device.sync.as_ref().expect("connected");
    let is_stopped = |status: &SyncStatus| matches!(status, SyncStatus::Stopped { .. });
    match sync.wait_status(device.ws.name(), Some(LIMIT), is_stopped).expect("the driver runs") {
        Some(SyncStatus::Stopped { why, message }) => (why, message),
        other => panic!("{other:?}, {:?}", sync.status(device.ws.name())),
    }
}

/// R8.1, I38: a stranger to a workspace is refused, with the same words whether it exists or not; a
/// viewer reads and cannot write; an editor writes.
#[test]
fn membership_decides() {
    let dir = tempfile::tempdir().expect("a folder");
    let server =
        serve(dir.path(), "a, ann, main, editor\nb, bob, main, viewer\nc, cat, other, owner\n");
    let run = |args: &[&str]| lastword(dir.path(), args);
    let link = |token| ["--server", server.url.as_str(), "--token", token];
    let put = ["put", "notes", "n1", r#"{"a":1}"#, "--wait"];
    run(&[&put[..], &["--data", "ann"], &link("a")].concat()).ok();

    run(&[&["sync", "--data", "bob"][..], &link("b")].concat()).ok();
    assert_eq!(run(&["get", "notes", "n1", "--data", "bob"]).ok(), "{\"a\":1}\n");
    let told = run(&["put", "notes", "n1", r#"{"a":2}"#, "--data", "bob"]).ok();
    assert!(told.contains("outbox 1 batch"), "{told}");
    run(&["sync", "--data", "ann"]).ok();
    assert_eq!(run(&["get", "notes", "n1", "--data", "ann"]).ok(), "{\"a\":1}\n");

    let stranger = |workspace| {
        let args = ["sync", "--data", "cat", "--workspace", workspace];
        run(&[&args[..], &link("c")].concat()).fails(1).replace(workspace, "W")
    };
    let there = stranger("main");
    assert!(there.contains("no member"), "{there}");
    assert_eq!(there, stranger("nowhere"));
}

/// B3, I28. A viewer's `sync`, `put --wait` and `import --server` waited in silence for ever: the
/// server's reason why the outbox cannot go was dropped. Each ends with it, with what to do, and
/// keeps what it wrote.
#[test]
fn a_viewer_is_told_why_nothing_goes() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = serve(dir.path(), "b, bob, main, viewer\n");
    let run = |args: &[&str]| lastword(dir.path(), args);
    let link = ["--server", server.url.as_str(), "--token", "b"];
    std::fs::write(dir.path().join("in.jsonl"), r#"{"table":"t","key":"i","value":{}}"#)
        .expect("written");
    let told = run(&[&["put", "t", "a", "{}", "--data", "bob"][..], &link].concat()).ok();
    assert!(told.contains("outbox 1 batch; ") && told.contains("your role"), "{told}");
    for args in [
        &["put", "t", "b", "{}", "--data", "bob", "--wait"][..],
        &["import", "in.jsonl", "--data", "bob", "--server", server.url.as_str()],
        &["sync", "--data", "bob"],
        &["get", "t", "a", "--data", "bob", "--wait"],
    ] {
        let error = run(args).fails(1);
        assert!(error.contains("your role in this workspace is viewer"), "{args:?}: {error}");
        assert!(error.contains("run `lastword sync` once"), "{args:?}: {error}");
    }
    let status = run(&["status", "--data", "bob"]).ok();
    assert!(status.contains("3 batches") && status.contains("your role is viewer"), "{status}");
    let asked = run(&["status", "--data", "bob", "--wait", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&asked.out).expect("JSON");
    assert_eq!(status["workspaces"][0]["role"], "viewer");
    assert!(asked.fails(1).contains("which only reads"));
}

/// `--dev` takes any token, so it is for this machine only.
#[test]
fn dev_listens_on_loopback_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["serve", "--dev", "--data", "s", "--listen", "0.0.0.0:0"];
    let error = lastword(dir.path(), &args).fails(1);
    assert!(error.contains("--tokens"), "{error}");
    let error = lastword(dir.path(), &["serve", "--data", "s"]).fails(2);
    assert!(error.contains("--tokens <FILE>|--dev"), "{error}");
    std::fs::write(dir.path().join("tokens"), "a, ann, main\n").expect("written");
    let error = lastword(dir.path(), &["serve", "--data", "s", "--tokens", "tokens"]).fails(1);
    assert!(error.contains("tokens:1: 3 fields"), "{error}");
    let twice = "a, ann, main, owner\n# her new token\nb, ann, main, viewer\n";
    std::fs::write(dir.path().join("tokens"), twice).expect("written");
    let error = lastword(dir.path(), &["serve", "--data", "s", "--tokens", "tokens"]).fails(1);
    let expected = "tokens:3: user ann is in workspace main already, on line 1";
    assert!(error.contains(expected), "{error}");
    let error = lastword(dir.path(), &["serve", "--dev", "--listen", "7420"]).fails(2);
    assert!(error.contains("write it like 127.0.0.1:7420 or localhost:0"), "{error}");
    let named = Server::start_with(&dir.path().join("named"), &["--dev".to_owned()], "localhost:0");
    let put = ["put", "t", "k", "{}", "--data", "d", "--wait", "--token", "me", "--server"];
    lastword(dir.path(), &[&put[..], &[named.url.as_str()]].concat()).ok();
}

/// R8.1. Device ids stand in every row, so anybody can read them; a viewer who said one in Hello
/// shut its owner out, and an editor could have written in its name. A device belongs to the user
/// of its first batch.
#[test]
fn nobody_attaches_under_another_users_device() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = serve(dir.path(), "a, ann, main, editor\nb, bob, main, editor\n");
    let run = |args: &[&str]| lastword(dir.path(), args);
    let put = ["put", "notes", "n1", r#"{"a":1}"#, "--wait", "--data", "ann"];
    run(&[&put[..], &["--server", &server.url, "--token", "a"]].concat()).ok();
    // The same directory, and so the same device id, under bob's token.
    let stolen = ["sync", "--data", "ann", "--server", &server.url, "--token", "b"];
    let error = run(&stolen).fails(1);
    assert!(error.contains("belongs to another user"), "{error}");
    let put = ["put", "notes", "n2", r#"{"a":1}"#, "--wait", "--data", "ann"];
    assert!(run(&put).ok().contains("applied"));

    // Nor is ann, who is connected, shut out by bob's attempt with a copy of her directory.
    std::fs::create_dir(dir.path().join("copy")).expect("a folder");
    for entry in std::fs::read_dir(dir.path().join("ann")).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, dir.path().join("copy").join(name)).expect("copied");
    }
    let mut ann = Device::open(&dir.path().join("ann"));
    ann.connect(&server.url, "a");
    ann.caught_up();
    run(&["sync", "--data", "copy", "--server", &server.url, "--token", "b"]).fails(1);
    ann.put("notes", "n3", r#"{"a":1}"#);
    ann.caught_up();
    ann.db.close().expect("closes");
    drop(ann);
    let told = run(&["export", "--data", "ann", "--system"]).ok();
    assert!(told.contains(r#""table":"_devices""#) && told.contains(r#""user":"ann""#), "{told}");
}

/// B12, I39, R8.1. The story: the file of members was read when the server started, and a removed
/// member went on reading and writing until the next start. Now the file is read again on command:
/// before that returns nothing of hers is decided, her device is told at once and stops, keeps what
/// it has and says why; a member again, it goes on where it was.
#[test]
fn a_removed_member_stops_at_once_and_keeps_everything() {
    let dir = tempfile::tempdir().expect("a folder");
    let both = "a, ann, main, editor\nb, bob, main, owner\n";
    let server = serve(dir.path(), both);
    let (mut ann, mut bob) = (opened(dir.path(), "ann"), opened(dir.path(), "bob"));
    ann.connect(&server.url, "a");
    bob.connect(&server.url, "b");
    ann.put("notes", "n1", r#"{"text":"as a member"}"#);
    ann.caught_up();
    bob.wait_for("notes", "n1", Some(r#"{"text":"as a member"}"#));
    assert_eq!(reloaded(dir.path(), both), "the members are as they were\n");

    // Her token still names somebody, and she is no member of main.
    let without = "a, ann, other, editor\nb, bob, main, owner\n";
    assert_eq!(reloaded(dir.path(), without), "ann is no member of main any more\n");
    ann.put("notes", "n2", r#"{"text":"too late"}"#);
    bob.put("notes", "n3", r#"{"text":"among members"}"#);
    bob.caught_up();
    let (why, message) = stopped(&ann);
    assert_eq!(why, StopReason::Forbidden, "{message}");
    assert!(
        message.contains("membership") && message.contains("everything here is kept"),
        "{message}"
    );
    // Everything before bob's write was looked at when that was decided.
    assert_eq!(bob.get("notes", "n2"), None);
    assert_eq!(ann.get("notes", "n3"), None);
    assert_eq!(ann.get("notes", "n2").as_deref(), Some(r#"{"text":"too late"}"#));
    assert_eq!(ann.ws.dead_letters().expect("it reads").len(), 0);
    // Asked again she hears what a stranger hears.
    ann.connect(&server.url, "a");
    let (_, message) = stopped(&ann);
    assert_eq!(message, "user ann is no member of workspace main");

    assert_eq!(reloaded(dir.path(), both), "ann is editor of main\n");
    ann.connect(&server.url, "a");
    ann.caught_up();
    assert_eq!(ann.get("notes", "n3").as_deref(), Some(r#"{"text":"among members"}"#));
    bob.wait_for("notes", "n2", Some(r#"{"text":"too late"}"#));
    // The rows are there to read, like those of any table.
    let rows = ann.ws.query(&lastword::MEMBERS.all()).expect("it reads");
    let roles: Vec<_> = rows.iter().map(|row| (row.key(), row.role.as_str())).collect();
    assert_eq!(roles, [("ann", "editor"), ("bob", "owner")]);
}

/// Semantics, section 4. A role that changes counts at once, while the device is connected: what a
/// viewer writes waits, and goes as soon as she is an editor, with no command on her side.
#[test]
fn another_role_counts_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = serve(dir.path(), "a, ann, main, editor\n");
    let mut ann = opened(dir.path(), "ann");
    ann.connect(&server.url, "a");
    ann.caught_up();
    let told = reloaded(dir.path(), "a, ann, main, viewer\n");
    assert_eq!(told, "ann is viewer of main, was editor\n");
    let waits = ann.put("notes", "n1", r#"{"text":"waits"}"#);
    let sync = ann.sync.as_ref().expect("connected");
    let held = |status: &SyncStatus| match status {
        SyncStatus::Held { why, .. } => why.contains("viewer"),
        _ => false,
    };
    let status = sync.wait_status(ann.ws.name(), Some(LIMIT), held).expect("the driver runs");
    assert!(status.is_some(), "{:?}", sync.status(ann.ws.name()));
    let told = reloaded(dir.path(), "a, ann, main, owner\n");
    assert_eq!(told, "ann is owner of main, was viewer\n");
    let begun = std::time::Instant::now();
    assert!(waits.wait(Some(LIMIT)).is_some(), "it is decided");
    assert!(begun.elapsed().as_secs() < 30, "not after the minute that a viewer waits");
}

/// I39. A token that is taken out of the file, or given to somebody else, ends the connection that
/// was made with it, and does not make another; the other connections stay.
#[test]
fn a_token_that_is_gone_ends_its_connection() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = serve(dir.path(), "a, ann, main, editor\nb, bob, main, editor\n");
    let (mut ann, mut bob) = (opened(dir.path(), "ann"), opened(dir.path(), "bob"));
    ann.connect(&server.url, "a");
    bob.connect(&server.url, "b");
    ann.caught_up();
    bob.caught_up();
    let told = reloaded(dir.path(), "new, ann, main, editor\nb, bob, main, editor\n");
    assert_eq!(told, "the members are as they were\n");
    let (why, message) = stopped(&ann);
    assert_eq!(why, StopReason::Unauthenticated, "{message}");
    ann.put("notes", "n1", r#"{"text":"waits"}"#);
    ann.connect(&server.url, "a");
    assert_eq!(stopped(&ann).0, StopReason::Unauthenticated);
    ann.connect(&server.url, "new");
    ann.caught_up();
    bob.wait_for("notes", "n1", Some(r#"{"text":"waits"}"#));
    let members = "new, ann, main, editor\nb, eve, main, editor\nc, bob, main, editor\n";
    reloaded(dir.path(), members);
    assert_eq!(stopped(&bob).0, StopReason::Unauthenticated);
    ann.put("notes", "n2", "{}");
    ann.caught_up();
}

/// A mistyped file of members locks nobody out: it is told with its line, and nothing changes. A
/// server that takes any token has none.
#[test]
fn a_bad_file_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = serve(dir.path(), "a, ann, main, editor\n");
    let mut ann = opened(dir.path(), "ann");
    ann.connect(&server.url, "a");
    ann.caught_up();
    let run = |args: &[&str]| lastword(dir.path(), args);
    let members = ["admin", "members", "--data", "server"];
    std::fs::write(dir.path().join("tokens"), "a, ann, main, viewer\na, ann, main, boss\n")
        .expect("written");
    let error = run(&members).fails(1);
    assert!(
        error.contains("tokens:2: role \"boss\"") && error.contains("stay as they were"),
        "{error}"
    );
    ann.put("notes", "n1", "{}");
    ann.caught_up();
    let told = run(&["admin", "members", "--data", "server", "--json"]).fails(1);
    assert!(told.contains("boss"), "{told}");
    std::fs::write(dir.path().join("tokens"), "a, ann, main, viewer\n").expect("written");
    let told = json_of(dir.path(), &["admin", "members", "--data", "server", "--json"]);
    let changed = serde_json::json!({ "workspace": "main", "user": "ann", "before": "editor",
        "after": "viewer" });
    assert_eq!(told, serde_json::json!({ "changed": [changed] }));
    server.kill();
    let error = run(&members).fails(1);
    assert!(error.contains("no server answers"), "{error}");
    let dev = Server::start(&dir.path().join("dev"));
    let error = run(&["admin", "members", "--data", "dev"]).fails(1);
    assert!(error.contains("--dev"), "{error}");
    drop(dev);

    // Whoever was removed while the server was down is no member of the next one.
    std::fs::write(dir.path().join("tokens"), "a, ann, other, editor\n").expect("written");
    server.restart();
    ann.connect(&server.url, "a");
    assert_eq!(stopped(&ann).0, StopReason::Forbidden);
}
