//! Two devices, one server: what users see.

use std::io::{Seek as _, SeekFrom, Write as _};

use lastword::{StopReason, SyncFailure, SyncStatus};

use crate::common::{Device, LIMIT, Server};

/// R2.2: a write on one device reaches another connected one by itself.
#[test]
fn a_write_reaches_the_other_device() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let mut phone = Device::open(&dir.path().join("phone"));
    let mut laptop = Device::open(&dir.path().join("laptop"));
    phone.connect(&server.url, "ann");
    laptop.connect(&server.url, "ann");
    phone.put("notes", "n1", r#"{"text":"hi"}"#);
    laptop.wait_for("notes", "n1", Some(r#"{"text":"hi"}"#));
    phone.caught_up();
    laptop.caught_up();
    let (phone, laptop) = (phone.ws.status().expect("status"), laptop.ws.status().expect("status"));
    assert_eq!(phone.digest, laptop.digest);
    assert_eq!((phone.rows, phone.cursor, phone.undecided, phone.settled), (1, 2, 0, 0));
}

/// R1.1, R1.2: a device that starts with no server reads and writes; later all of it arrives, in
/// the order it was written.
#[test]
fn offline_writes_queue_and_arrive_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut phone = Device::open(&dir.path().join("phone"));
    for number in 0..300 {
        phone.put("notes", &format!("n{:03}", number % 100), &format!(r#"{{"n":{number}}}"#));
    }
    assert_eq!(phone.get("notes", "n007").as_deref(), Some(r#"{"n":207}"#));
    assert_eq!(phone.ws.status().expect("status").undecided, 300);

    let server = Server::start(&dir.path().join("server"));
    let report = phone.catch_up(&server.url);
    assert_eq!((report.sent_batches, report.applied, report.refused), (300, 300, 0));
    let mut laptop = Device::open(&dir.path().join("laptop"));
    let report = laptop.catch_up(&server.url);
    // The server adds a row of its own: whose device wrote.
    assert_eq!((report.received, report.cursor), (101, 301));
    assert_eq!(laptop.rows("notes"), phone.rows("notes"));
    assert_eq!(laptop.rows("_conflicts"), []);
}

/// B6: two devices that patch different fields while apart both keep their change, and nobody is
/// bothered with a conflict.
#[test]
fn patches_of_different_fields_both_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let mut phone = Device::open(&dir.path().join("phone"));
    let mut laptop = Device::open(&dir.path().join("laptop"));
    phone.put("notes", "n1", r#"{"title":"a","body":"b"}"#);
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    phone.patch("notes", "n1", r#"{"title":"phone"}"#);
    laptop.patch("notes", "n1", r#"{"body":"laptop"}"#);
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    phone.catch_up(&server.url);
    let both = Some(r#"{"title":"phone","body":"laptop"}"#);
    assert_eq!(phone.get("notes", "n1").as_deref(), both);
    assert_eq!(laptop.get("notes", "n1").as_deref(), both);
    assert_eq!(phone.rows("_conflicts"), []);
}

/// R2.4, R2.5: the same field on both: the later stamp wins on both devices, and exactly one row of
/// `_conflicts` tells both values.
#[test]
fn the_later_stamp_wins_and_one_conflict_tells_both_values() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let mut phone = Device::open(&dir.path().join("phone"));
    let mut laptop = Device::open(&dir.path().join("laptop"));
    phone.put("notes", "n1", r#"{"title":"a","body":"b"}"#);
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    phone.patch("notes", "n1", r#"{"title":"phone"}"#);
    laptop.patch("notes", "n1", r#"{"title":"laptop"}"#);
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    phone.catch_up(&server.url);
    for device in [&phone, &laptop] {
        let later = Some(r#"{"title":"laptop","body":"b"}"#);
        assert_eq!(device.get("notes", "n1").as_deref(), later);
        let conflicts = device.rows("_conflicts");
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        let (_, conflict) = &conflicts[0];
        assert!(
            conflict.contains(r#""title":{"winning":"laptop","losing":"phone"}"#),
            "{conflict}"
        );
    }
    let (phone, laptop) = (phone.ws.status().expect("status"), laptop.ws.status().expect("status"));
    assert_eq!(phone.digest, laptop.digest);
}

/// R7.4, B7: an edit made offline does not bring back what another device deleted; undelete brings
/// back exactly the deleted value.
#[test]
fn a_stale_edit_does_not_bring_a_deleted_record_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let mut phone = Device::open(&dir.path().join("phone"));
    let mut laptop = Device::open(&dir.path().join("laptop"));
    phone.put("notes", "n1", r#"{"text":"old"}"#);
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    laptop.patch("notes", "n1", r#"{"text":"stale edit"}"#);
    phone.delete("notes", "n1");
    phone.catch_up(&server.url);
    let report = laptop.catch_up(&server.url);
    assert_eq!(report.superseded, 1);
    assert_eq!(laptop.get("notes", "n1"), None);
    assert_eq!(laptop.rows("_conflicts").len(), 1);
    laptop.undelete("notes", "n1");
    laptop.catch_up(&server.url);
    phone.catch_up(&server.url);
    assert_eq!(phone.get("notes", "n1").as_deref(), Some(r#"{"text":"old"}"#));
}

/// I1, I17: the server is killed and started again; every acknowledged write is there, writes made
/// meanwhile arrive, and the device reconnects by itself.
#[test]
fn a_killed_server_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(&dir.path().join("server"));
    let mut phone = Device::open(&dir.path().join("phone"));
    phone.connect(&server.url, "ann");
    for round in 0..3 {
        phone.put("notes", &format!("n{round}"), r#"{"text":"before"}"#);
        phone.caught_up();
        server.kill();
        phone.put("notes", &format!("m{round}"), r#"{"text":"meanwhile"}"#);
        server.restart();
        let sync = phone.sync.as_ref().expect("connected");
        let live = |status: &SyncStatus| {
            matches!(status, SyncStatus::Live { .. })
                && phone.ws.status().expect("status").undecided == 0
        };
        let status = sync.wait_status(phone.ws.name(), Some(LIMIT), live);
        status.expect("sync runs").expect("reconnects");
    }
    let mut laptop = Device::open(&dir.path().join("laptop"));
    let report = laptop.catch_up(&server.url);
    assert_eq!((report.received, report.cursor), (7, 7));
}

/// What an async app types: the verdict, the catch-up and the status are futures that need no
/// runtime of their own, and a token that has expired is fetched anew for the next connection.
#[test]
fn futures_resolve_when_the_server_has_answered() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let phone = Device::open(&dir.path().join("phone"));
    let receipt = phone.put("notes", "n1", r#"{"text":"hi"}"#);
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let asked = std::sync::Arc::clone(&tries);
    let remote = lastword::Remote::new(&server.url).expect("a valid address").token_from(
        move || match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Err("signing in".to_owned()),
            _ => Ok("ann".to_owned()),
        },
    );
    let sync = phone.db.connect(remote).expect("a thread");
    sync.attach(&phone.ws).expect("the driver runs");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (settled, report) = runtime.block_on(async {
        let mut status = sync.status(phone.ws.name());
        while !matches!(status, SyncStatus::Live { .. }) {
            status = sync.status_after(phone.ws.name(), &status).await.expect("sync runs");
        }
        (receipt.settled().await, sync.caught_up(&phone.ws).await)
    });
    assert!(matches!(settled, Some(lastword::Settled::Decided(_))), "{settled:?}");
    assert_eq!(report.expect("caught up").applied, 1);
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 2);
}

/// I22, semantics 4. A directory was copied and both copies wrote: the second to attach took the
/// server's decision about the other's batch for one about its own, which was gone without ever
/// being sent; one that had written nothing could never write again. It goes on under a new id:
/// what it wrote arrives once, and what it writes later too.
#[test]
fn a_copied_directory_goes_on_as_another_device() {
    for writes_of_copy in [1, 0] {
        let dir = tempfile::tempdir().expect("a folder");
        let server = Server::start(&dir.path().join("server"));
        let mut phone = Device::open(&dir.path().join("phone"));
        phone.put("notes", "n1", r#"{"text":"before"}"#);
        phone.catch_up(&server.url);
        phone.db.close().expect("closes");
        let copy_dir = dir.path().join("copy");
        std::fs::create_dir(&copy_dir).expect("a folder");
        for entry in std::fs::read_dir(dir.path().join("phone")).expect("readable") {
            let path = entry.expect("readable").path();
            std::fs::copy(&path, copy_dir.join(path.file_name().expect("a name"))).expect("copied");
        }
        let mut phone = Device::open(&dir.path().join("phone"));
        phone.put("notes", "n2", r#"{"text":"original"}"#);
        phone.catch_up(&server.url);

        let mut copy = Device::open(&copy_dir);
        for number in 0..writes_of_copy {
            copy.put("notes", &format!("copy-{number}"), "{}");
        }
        copy.connect(&server.url, "ann");
        let sync = copy.sync.as_ref().expect("connected");
        let was = copy.db.device();
        sync.wait_caught_up(&copy.ws, Some(LIMIT)).expect("it goes on as another device");
        assert_ne!(copy.db.device(), was);
        copy.put("notes", "more", "{}");
        let sync = copy.sync.as_ref().expect("connected");
        sync.wait_caught_up(&copy.ws, Some(LIMIT)).expect("it goes on");
        assert!(copy.get("notes", "n1").is_some() && copy.get("notes", "n2").is_some());
        let mut third = Device::open(&dir.path().join("third"));
        third.catch_up(&server.url);
        assert_eq!(third.rows("notes"), copy.rows("notes"));
        assert_eq!(third.rows("notes").len(), 3 + writes_of_copy);
    }
}

/// R10.1. An app closed its database while a thread and a task waited for sync: both waited for
/// ever, and a copy of the handle went on saying that the device was offline.
#[test]
fn closing_the_database_ends_every_wait() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut phone = Device::open(&dir.path().join("phone"));
    phone.put("notes", "n1", "{}");
    phone.connect("ws://127.0.0.1:1", "ann");
    let sync = phone.sync.clone().expect("connected");
    let (ended, waited) = std::sync::mpsc::channel();
    let name = phone.ws.name().clone();
    let offline = |status: &SyncStatus| matches!(status, SyncStatus::Offline { .. });
    let status = sync.wait_status(&name, Some(LIMIT), offline).expect("sync runs");
    assert!(status.is_some(), "nobody listens on port 1");
    let (waits, done, handle) = (sync.clone(), ended.clone(), name.clone());
    std::thread::spawn(move || {
        let end = waits.wait_status(&handle, None, |_| false);
        done.send(end.map(drop)).expect("the test waits");
    });
    let (waits, ws) = (sync.clone(), phone.ws.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let end = match runtime.block_on(waits.caught_up(&ws)) {
            Err(SyncFailure::Engine(error)) => Err(error),
            other => panic!("{other:?}"),
        };
        ended.send(end).expect("the test waits");
    });
    phone.db.close().expect("it closes");
    for _ in 0..2 {
        let end = waited.recv_timeout(LIMIT).expect("the wait ends");
        assert!(matches!(end, Err(lastword::Error::Closed)), "{end:?}");
    }
    assert_eq!(sync.status(&name), SyncStatus::Idle);
}

/// I14, I15. The device's own log was damaged under an open database: the app was told that the
/// server was not reachable.
#[test]
fn a_failed_store_of_the_device_is_told_as_such() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let mut phone = Device::open(&dir.path().join("phone"));
    phone.put("notes", "n1", r#"{"text":"damage me"}"#);
    let log = dir.path().join("phone/000000000001");
    let bytes = std::fs::read(&log).expect("the log");
    let text = b"damage me";
    let at = bytes.windows(text.len()).position(|part| part == text).expect("it is there");
    let mut file = std::fs::File::options().write(true).open(&log).expect("it opens");
    file.seek(SeekFrom::Start(at as u64)).expect("it is that long");
    file.write_all(b"D").expect("written");
    phone.connect(&server.url, "ann");
    let sync = phone.sync.as_ref().expect("connected");
    let failure = sync.wait_caught_up(&phone.ws, Some(LIMIT)).expect_err("it cannot be read");
    let SyncFailure::Engine(lastword::Error::Store(error)) = &failure else {
        panic!("{failure:?}")
    };
    assert!(error.to_string().contains("damaged"), "{error}");
    let status = sync.status(phone.ws.name());
    let SyncStatus::Stopped { why: StopReason::StoreFailed, message } = status else {
        panic!("{status:?}")
    };
    assert!(message.contains("this device's store failed"), "{message}");
}

/// Undo syncs like any write and takes nothing of another device away: what B wrote meanwhile, in
/// another field, stops it, and B's change stays.
#[test]
fn undo_reaches_the_others_and_yields_to_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let mut phone = Device::open(&dir.path().join("phone"));
    let mut laptop = Device::open(&dir.path().join("laptop"));
    phone.put("notes", "n1", r#"{"text":"a"}"#);
    let deleted = {
        phone.put("notes", "n2", r#"{"text":"kept"}"#);
        phone.delete("notes", "n2")
    };
    let patched = phone.patch("notes", "n1", r#"{"text":"A"}"#);
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    phone.ws.undo(&deleted).expect("nobody wrote since");
    let undone = phone.ws.undo(&patched).expect("nobody wrote since");
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    for device in [&phone, &laptop] {
        assert_eq!(device.get("notes", "n1").as_deref(), Some(r#"{"text":"a"}"#));
        assert_eq!(device.get("notes", "n2").as_deref(), Some(r#"{"text":"kept"}"#));
        assert_eq!(device.rows("_conflicts"), []);
    }
    laptop.patch("notes", "n1", r#"{"mood":"b"}"#);
    laptop.catch_up(&server.url);
    phone.catch_up(&server.url);
    let overtaken = phone.ws.undo(&undone);
    assert!(matches!(overtaken, Err(lastword::Error::Overtaken { .. })), "{overtaken:?}");
    assert_eq!(phone.get("notes", "n1").as_deref(), Some(r#"{"text":"a","mood":"b"}"#));
}
