//! Who may do what: the tokens file.

use std::path::Path;

use crate::common::{Device, Server, lastword};

fn serve(dir: &Path, tokens: &str) -> Server {
    std::fs::write(dir.join("tokens"), tokens).expect("written");
    let access = ["--tokens".to_owned(), dir.join("tokens").display().to_string()];
    Server::start_with(&dir.join("server"), &access, "127.0.0.1:0")
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
