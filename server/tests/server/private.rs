//! A table that is private to a user, over a real socket.

use std::path::Path;

use crate::common::{Server, json_of, lastword};

/// The one workspace that a directory holds, as `status` tells it.
fn workspace(dir: &Path, args: &[&str]) -> serde_json::Value {
    json_of(dir, &[&["status", "--json"][..], args].concat())["workspaces"][0].clone()
}

/// I16, I38, semantics 14.9: what a user keeps in a private table is on no other user's device, in
/// no export of it and in none of its numbers; a write into it is refused, and the refusal does not
/// tell what is there; and the server computes the same rows and digest for each user as the user's
/// device has.
#[test]
fn each_user_has_an_inbox() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let tokens = "a, ann, main, editor\nb, bob, main, editor\n";
    std::fs::write(dir.join("tokens"), tokens).expect("written");
    let schema = "[tables.notes]\nkey = \"id\"\n\n\
                  [tables.inbox]\nkey = \"id\"\nprivate_by = \"user\"\n";
    std::fs::write(dir.join("schema.toml"), schema).expect("written");
    let path = |name: &str| dir.join(name).display().to_string();
    let args = ["--tokens".into(), path("tokens"), "--schema".into(), path("schema.toml")];
    let mut server = Server::start_with(&dir.join("server"), &args, "127.0.0.1:0");
    let run = |args: &[&str]| lastword(dir, args);
    let put = |user: &'static str, table: &str, key: &str, json: &str| {
        let token = &user[..1];
        let link = ["--data", user, "--wait", "--server", &server.url, "--token", token];
        run(&[&["put", table, key, json][..], &link].concat())
    };
    put("ann", "notes", "n1", r#"{"text":"for all"}"#).ok();
    put("ann", "inbox", "i1", r#"{"user":"ann","text":"secret of ann"}"#).ok();
    put("bob", "inbox", "i2", r#"{"user":"bob","text":"secret of bob"}"#).ok();
    let refused = put("bob", "inbox", "i1", r#"{"user":"bob","text":"mine"}"#);
    let told = format!("{}{}", refused.out, refused.err);
    assert!(told.contains("not this user's"), "{told}");
    assert!(!told.contains("secret") && !told.contains("user ann"), "{told}");
    run(&["sync", "--data", "ann"]).ok();
    run(&["sync", "--data", "bob"]).ok();
    for (user, other) in [("ann", "bob"), ("bob", "ann")] {
        let told = run(&["export", "--data", user]).ok();
        assert!(told.contains(&format!("secret of {user}")), "{told}");
        assert!(!told.contains(other), "{user} has: {told}");
    }
    server.kill();
    for user in ["ann", "bob"] {
        let (own, seen) = (
            workspace(dir, &["--data", user]),
            workspace(dir, &["--data", "server", "--user", user]),
        );
        assert_eq!(own["rows"], 2, "{user}");
        assert_eq!((&own["rows"], &own["digest"]), (&seen["rows"], &seen["digest"]), "{user}");
    }
    assert_eq!(workspace(dir, &["--data", "server"])["rows"], 3);
    let error = run(&["status", "--data", "ann", "--user", "ann"]).fails(2);
    assert!(error.contains("a server's directory"), "{error}");
}
