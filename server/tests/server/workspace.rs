//! Workspaces that end: deleted at the server, forgotten by a device.

use std::fs;

use lastword::{Consent, Error, StopReason, SyncFailure, SyncStatus};

use crate::common::{Device, LIMIT, Server, json_of, lastword};

fn is_deleted(status: &SyncStatus) -> bool {
    matches!(status, SyncStatus::Stopped { why: StopReason::WorkspaceDeleted, .. })
}

/// R6.5, semantics 4 and 7: a deleted workspace stops its devices at once, those that come later
/// too, and takes nothing from them; its name is not given again, also after the server was started
/// anew; other workspaces stay.
#[test]
fn a_deleted_workspace_stops_its_devices_and_takes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut server = Server::start_with(&dir.join("srv"), &["--dev".into()], "127.0.0.1:0");
    let (mut ann, mut bob) = (Device::open(&dir.join("ann")), Device::open(&dir.join("bob")));
    ann.put("notes", "n1", r#"{"text":"a"}"#);
    ann.connect(&server.url, "ann");
    ann.caught_up();
    bob.catch_up(&server.url);
    bob.put("notes", "n2", r#"{"text":"never sent"}"#);

    let delete = ["admin", "delete-workspace", "main", "--data", "srv"];
    let told = lastword(dir, &delete).fails(2);
    assert!(told.contains("--yes"), "{told}");
    let told = json_of(dir, &[&delete[..], &["--yes", "--json"]].concat());
    assert_eq!(told["records"], 1, "{told}");
    let sync = ann.sync.as_ref().expect("connected");
    let status = sync.wait_status(ann.ws.name(), Some(LIMIT), is_deleted).expect("it runs");
    assert!(status.is_some(), "the device hears of it at once");
    let again = lastword(dir, &[&delete[..], &["--yes"]].concat()).fails(1);
    assert!(again.contains("was deleted"), "{again}");

    server.kill();
    let server = Server::start_with(&dir.join("srv"), &["--dev".into()], "127.0.0.1:0");
    bob.connect(&server.url, "ann");
    let sync = bob.sync.as_ref().expect("connected");
    let refused = sync.wait_caught_up(&bob.ws, Some(LIMIT));
    let Err(SyncFailure::Stopped { why: StopReason::WorkspaceDeleted, message }) = refused else {
        panic!("{refused:?}");
    };
    assert!(message.contains("its name is not given again"), "{message}");
    assert_eq!(bob.get("notes", "n1").as_deref(), Some(r#"{"text":"a"}"#));
    let (waiting, letters) = (bob.ws.waiting(), bob.ws.dead_letters());
    assert_eq!((waiting.expect("it reads"), letters.expect("they read")), (1, vec![]));
}

/// R1.2, semantics 4: a device forgets a workspace only when nothing syncs it, and only with
/// consent to what it alone has, of which it tells how much; the next sync brings the server's copy
/// back and counters go on.
#[test]
fn a_device_forgets_a_workspace_with_consent() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let server = Server::start_with(&dir.join("srv"), &["--dev".into()], "127.0.0.1:0");
    let mut ann = Device::open(&dir.join("ann"));
    ann.put("notes", "n1", r#"{"text":"a"}"#);
    ann.connect(&server.url, "ann");
    ann.caught_up();
    let attached = ann.ws.purge(Consent::Everything);
    assert!(matches!(attached, Err(Error::StillAttached { .. })), "{attached:?}");
    let sync = ann.sync.as_ref().expect("connected");
    sync.detach(&ann.ws).expect("the driver runs");
    assert_eq!(sync.status(ann.ws.name()), SyncStatus::Idle);
    ann.put("notes", "n2", r#"{"text":"unsent"}"#);
    let refused = ann.ws.purge(Consent::OnlySent);
    assert!(matches!(refused, Err(Error::WouldDestroy { unsent: 1, .. })), "{refused:?}");
    assert!(ann.get("notes", "n2").is_some(), "nothing is forgotten");
    let purged = ann.ws.purge(Consent::Everything).expect("it is forgotten");
    assert_eq!((purged.rows, purged.unsent, purged.dead_letters), (1, 1, 0));
    assert_eq!((ann.get("notes", "n1"), ann.get("notes", "n2")), (None, None));
    let device = ann.db.device();

    sync.attach(&ann.ws).expect("the driver runs");
    ann.caught_up();
    assert_eq!(ann.get("notes", "n1").as_deref(), Some(r#"{"text":"a"}"#));
    assert_eq!(ann.get("notes", "n2"), None);
    ann.put("notes", "n3", r#"{"text":"later"}"#);
    ann.caught_up();
    assert_eq!(ann.db.device(), device, "it is the same device");
    ann.disconnect();
    ann.put("notes", "n4", r#"{"text":"unsent"}"#);
    ann.db.close().expect("it closes");

    let told = lastword(dir, &["purge", "--data", "ann"]).fails(1);
    assert!(told.contains("1 unsent batches") && told.contains("--destroy-unsent"), "{told}");
    let purged = json_of(dir, &["purge", "--data", "ann", "--destroy-unsent", "--json"]);
    assert_eq!((&purged["rows"], &purged["unsent"]), (&2.into(), &1.into()), "{purged}");
}

/// R5.4: whoever runs a server sets fields that it owns from the command line.
#[test]
fn the_command_line_sets_fields_that_the_server_owns() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let schema = "[tables.files]\nkey = \"id\"\nserver_owned = [\"storage_id\"]\n";
    fs::write(dir.join("schema.toml"), schema).expect("it is written");
    let path = dir.join("schema.toml").display().to_string();
    let args = ["--dev".to_owned(), "--schema".into(), path];
    let server = Server::start_with(&dir.join("srv"), &args, "127.0.0.1:0");
    let mut ann = Device::open(&dir.join("ann"));
    ann.put("files", "f1", r#"{"id":"f1"}"#);
    ann.connect(&server.url, "ann");
    ann.caught_up();
    let set = ["admin", "set-owned", "files", "f1", r#"{"storage_id":"s"}"#, "--data", "srv"];
    let told = json_of(dir, &[&set[..], &["--json"]].concat());
    assert_eq!(told["seq"], 3, "{told}");
    ann.wait_for("files", "f1", Some(r#"{"id":"f1","storage_id":"s"}"#));
    let other = ["admin", "set-owned", "files", "f1", r#"{"id":"x"}"#, "--data", "srv"];
    let told = lastword(dir, &other).fails(1);
    assert!(told.contains("id"), "{told}");
}
