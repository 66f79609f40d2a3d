//! The schema: two devices and a server that says which tables there are and how they decide.

use std::path::{Path, PathBuf};

use lastword::{Database, StopReason, SyncFailure, SyncStatus, Table};

use crate::common::{Device, LIMIT, Server, lastword};

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn args(&self, schema: &str) -> Vec<String> {
        let path = self.path("schema.toml");
        std::fs::write(&path, schema).expect("written");
        vec!["--dev".into(), "--schema".into(), path.display().to_string()]
    }

    fn server(&self, schema: &str) -> Server {
        Server::start_with(&self.path("server"), &self.args(schema), "127.0.0.1:0")
    }

    fn device(&self, name: &str) -> Device {
        Device::open(&self.path(name))
    }
}

fn table_of(policy: &str) -> String {
    format!("[tables.notes]\nkey = \"id\"\npolicy = \"{policy}\"\n")
}

/// A record that both devices know, and then each writes while it is alone.
fn apart(server: &Server, fixture: &Fixture, first: &str) -> (Device, Device) {
    let (mut phone, mut laptop) = (fixture.device("phone"), fixture.device("laptop"));
    phone.put("notes", "n1", first);
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    (phone, laptop)
}

/// Both catch up until they have seen all; then they must be the same.
#[track_caller]
fn meet(server: &Server, phone: &mut Device, laptop: &mut Device) {
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    phone.catch_up(&server.url);
    let status = |device: &Device| device.ws.status().expect("status");
    assert_eq!(status(phone).digest, status(laptop).digest);
    assert_eq!(phone.rows("notes"), laptop.rows("notes"));
    assert_eq!(phone.rows("_conflicts"), laptop.rows("_conflicts"));
}

/// Semantics, section 2, `server_wins`: stale fields are dropped and the rest applies; the device
/// knows it before the server has said so, from the schema.
#[test]
fn under_server_wins_stale_fields_are_dropped() {
    let fixture = Fixture::new();
    let server = fixture.server(&table_of("server_wins"));
    let (mut phone, mut laptop) = apart(&server, &fixture, r#"{"title":"a","body":"b"}"#);
    phone.patch("notes", "n1", r#"{"title":"phone"}"#);
    laptop.patch("notes", "n1", r#"{"title":"laptop","body":"laptop"}"#);
    meet(&server, &mut phone, &mut laptop);
    let both = Some(r#"{"title":"phone","body":"laptop"}"#);
    assert_eq!(laptop.get("notes", "n1").as_deref(), both);
    let conflicts = laptop.rows("_conflicts");
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert!(conflicts[0].1.contains(r#""policy":"server_wins""#), "{conflicts:?}");

    phone.patch("notes", "n1", r#"{"title":"phone 2"}"#);
    phone.catch_up(&server.url);
    laptop.patch("notes", "n1", r#"{"title":"laptop 2"}"#);
    assert_eq!(laptop.catch_up(&server.url).superseded, 1);
    assert_eq!(
        laptop.get("notes", "n1").as_deref(),
        Some(r#"{"title":"phone 2","body":"laptop"}"#)
    );
}

/// Semantics, section 2, `revision`: the most edited version wins, for deletes too, whoever comes
/// first; a greater put clears a tombstone; and what nobody saw is one conflict.
#[test]
fn under_revision_the_most_edits_win() {
    let fixture = Fixture::new();
    let server = fixture.server(&table_of("revision"));
    let (mut phone, mut laptop) = apart(&server, &fixture, r#"{"n":0,"keep":1}"#);
    phone.patch("notes", "n1", r#"{"n":1}"#);
    for n in 0..3 {
        laptop.patch("notes", "n1", &format!(r#"{{"n":1{n}}}"#));
    }
    laptop.catch_up(&server.url);
    meet(&server, &mut phone, &mut laptop);
    assert_eq!(phone.get("notes", "n1").as_deref(), Some(r#"{"n":12,"keep":1}"#));
    assert_eq!(phone.rows("_conflicts").len(), 1);

    phone.delete("notes", "n1");
    phone.catch_up(&server.url);
    laptop.patch("notes", "n1", r#"{"n":20}"#);
    laptop.patch("notes", "n1", r#"{"n":21}"#);
    meet(&server, &mut phone, &mut laptop);
    // A put with a greater tuple clears the tombstone.
    assert_eq!(phone.get("notes", "n1").as_deref(), Some(r#"{"n":21,"keep":1}"#));
    laptop.delete("notes", "n1");
    meet(&server, &mut phone, &mut laptop);
    assert_eq!(phone.get("notes", "n1"), None);
}

/// Semantics, section 1: two devices store the same file under its hash; nobody is bothered, and
/// neither can claim that the server has its bytes.
#[test]
fn the_same_file_from_two_devices_is_no_conflict() {
    let fixture = Fixture::new();
    let args = ["--dev".to_owned(), "--schema-preset".into(), "or3".into()];
    let server = Server::start_with(&fixture.path("server"), &args, "127.0.0.1:0");
    let (mut phone, mut laptop) = (fixture.device("phone"), fixture.device("laptop"));
    let file = |name: &str| format!(r#"{{"hash":"h","name":"{name}","storage_id":"mine"}}"#);
    phone.put("file_meta", "h", &file("a.png"));
    laptop.put("file_meta", "h", &file("b.png"));
    phone.catch_up(&server.url);
    let report = laptop.catch_up(&server.url);
    phone.catch_up(&server.url);
    assert_eq!(report.refused, 0);
    let files = phone.rows("file_meta");
    assert_eq!(files, laptop.rows("file_meta"));
    assert_eq!(files.len(), 1);
    assert!(!files[0].1.contains("storage_id"), "{files:?}");
    assert_eq!(phone.rows("_conflicts"), []);
}

/// Issue 4: a table that the schema does not know is refused by its name, and waits with the dead
/// letters; the rest of the outbox goes on.
#[test]
fn an_unknown_table_is_refused_by_name() {
    let fixture = Fixture::new();
    let server = fixture.server(&table_of("arrival"));
    let mut phone = fixture.device("phone");
    phone.put("notse", "n1", "{}");
    phone.put("notes", "n1", "{}");
    let report = phone.catch_up(&server.url);
    assert_eq!((report.refused, report.applied), (1, 1));
    let letters = phone.ws.dead_letters().expect("they read");
    assert_eq!(letters.len(), 1);
    let says = "table notse is not in the server's schema: add [tables.notse]";
    assert!(letters[0].message.contains(says), "{letters:?}");
    assert_eq!((letters[0].code.as_str(), phone.get("notse", "n1")), ("unknown_table", None));
}

/// Semantics, section 7: the server's schema reaches a device that is away as soon as it attaches
/// again; own ops that wait are shown as they will be decided.
#[test]
fn a_new_schema_reaches_a_device_that_was_away() {
    let fixture = Fixture::new();
    let mut server = Server::start(&fixture.path("server"));
    let (mut phone, mut laptop) = apart(&server, &fixture, r#"{"title":"a"}"#);
    phone.patch("notes", "n1", r#"{"title":"phone"}"#);
    phone.catch_up(&server.url);
    laptop.patch("notes", "n1", r#"{"title":"laptop"}"#);
    server.kill();
    let server = fixture.server(&table_of("server_wins"));
    meet(&server, &mut phone, &mut laptop);
    assert_eq!(laptop.get("notes", "n1").as_deref(), Some(r#"{"title":"phone"}"#));

    // Started without it, the server keeps it.
    drop(server);
    let server = Server::start(&fixture.path("server"));
    phone.put("other", "x", "{}");
    assert_eq!(phone.catch_up(&server.url).refused, 1);
}

/// Semantics, section 7: a forbidden change stops the server before it listens, and names table and
/// rule.
#[test]
fn a_forbidden_change_does_not_start() {
    let fixture = Fixture::new();
    drop({
        let server = fixture.server(&table_of("arrival"));
        fixture.device("phone").catch_up(&server.url);
        server
    });
    let serve = |schema: &str| {
        let args = fixture.args(schema);
        let server = fixture.path("server").display().to_string();
        let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--data", &server];
        all.extend(args.iter().map(String::as_str));
        lastword(fixture.dir.path(), &all).fails(1)
    };
    let error = serve("[tables.notes]\nkey = \"hash\"\n");
    let says = "workspace main: table notes: its key field never changes (id before, hash now)";
    assert!(error.contains(says), "{error}");
    let error = serve("[tables.notes]\nkey = \"id\"\npolicy = \"newest\"\n");
    assert!(error.contains("schema.toml:3: tables.notes.policy"), "{error}");
}

struct Note;

const NOTES: Table<Note> = Table::new("notes", "uuid");
const DRAFTS: Table<Note> = Table::new("drafts", "id").local();

fn open_declared(dir: &Path, number: u64) -> Device {
    let db = Database::builder().tables((NOTES, DRAFTS)).schema_version(number).open(dir);
    let db = db.expect("the device opens");
    let ws = db.workspace("main").expect("a valid name");
    Device { db, ws, sync: None }
}

/// Semantics, section 7: an app that keeps the key in another field than the server's schema says
/// stops to sync, with the table and both fields; what it wrote stays.
#[test]
fn another_key_field_stops_the_sync() {
    let fixture = Fixture::new();
    let server = fixture.server(&table_of("arrival"));
    let mut phone = open_declared(&fixture.path("phone"), 0);
    phone.put("notes", "n1", r#"{"uuid":"n1"}"#);
    phone.connect(&server.url, "ann");
    let sync = phone.sync.as_ref().expect("connected");
    let failure = sync.wait_caught_up(&phone.ws, Some(LIMIT)).expect_err("it stops");
    let SyncFailure::Stopped { why: StopReason::OtherSchema, message } = &failure else {
        panic!("{failure:?}");
    };
    for says in ["table notes", "\"uuid\"", "\"id\"", "unsent changes are kept"] {
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(phone.ws.status().expect("status").undecided, 1);
}

/// Semantics, section 7: local declared by either side wins: the app's own table does not leave the
/// device although the schema lets it sync.
#[test]
fn local_by_the_apps_word_stays_local() {
    let fixture = Fixture::new();
    let schema = "[tables.notes]\nkey = \"uuid\"\n[tables.drafts]\nkey = \"id\"\n";
    let server = fixture.server(schema);
    let mut phone = open_declared(&fixture.path("phone"), 0);
    phone.put("drafts", "d1", r#"{"id":"d1"}"#);
    phone.put("notes", "n1", r#"{"uuid":"n1"}"#);
    phone.catch_up(&server.url);
    let mut laptop = fixture.device("laptop");
    laptop.catch_up(&server.url);
    assert_eq!((laptop.rows("notes").len(), laptop.rows("drafts").len()), (1, 0));
    assert_eq!(phone.rows("drafts").len(), 1);
}

/// R4 of `app_too_old`, semantics, section 4: the outbox is frozen and told of, the device goes on
/// reading, and after the app's update everything goes.
#[test]
fn an_old_app_reads_and_its_writes_wait() {
    let fixture = Fixture::new();
    let schema = "min_app_schema = 2\n[tables.notes]\nkey = \"uuid\"\n";
    let server = fixture.server(schema);
    let mut old = open_declared(&fixture.path("old"), 1);
    let mut new = open_declared(&fixture.path("new"), 2);
    old.put("notes", "n1", r#"{"uuid":"n1"}"#);
    old.connect(&server.url, "ann");
    let sync = old.sync.as_ref().expect("connected");
    let held = sync.wait_caught_up(&old.ws, Some(LIMIT)).expect_err("it waits");
    let says = "app_too_old: this workspace takes writes from app schema number 2 on";
    assert!(held.to_string().contains(says), "{held}");
    assert!(
        matches!(sync.status(old.ws.name()), SyncStatus::Held { why, .. } if why.contains(says))
    );
    new.put("notes", "n2", r#"{"uuid":"n2"}"#);
    new.catch_up(&server.url);
    old.wait_for("notes", "n2", Some(r#"{"uuid":"n2"}"#));
    let status = old.ws.status().expect("status");
    assert_eq!((status.needs_app_schema, status.undecided, status.dead_letters), (Some(2), 1, 0));
    drop(old);

    let mut updated = open_declared(&fixture.path("old"), 2);
    let report = updated.catch_up(&server.url);
    assert_eq!((report.applied, updated.ws.status().expect("status").needs_app_schema), (1, None));
}

/// The log of a server shows from where on a schema counts.
#[test]
fn the_log_names_the_tables() {
    let fixture = Fixture::new();
    let mut server = fixture.server(&table_of("arrival"));
    fixture.device("phone").catch_up(&server.url);
    server.kill();
    let log = lastword(fixture.dir.path(), &["log", "--data", "server"]).ok();
    assert!(log.contains("schema") && log.contains("notes"), "{log}");
}
