//! Hooks as an app sees them, without a network.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use lastword::{Database, Error, MAX_WAITING_EVENTS, hook};

use crate::support::{MESSAGES, message};

/// Longest wait for something that must happen.
const LIMIT: Duration = Duration::from_secs(60);

struct Full {
    _dir: tempfile::TempDir,
    db: Database,
}

impl Full {
    /// A database whose outbox takes one batch.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let builder = Database::builder().tables(MESSAGES).max_undecided(1);
        let db = builder.open(dir.path().join("db")).unwrap();
        let full = Self { _dir: dir, db };
        full.db
            .workspace("main")
            .unwrap()
            .write(|tx| tx.put(MESSAGES, &message("m", "t", 1)))
            .unwrap();
        full
    }

    /// A write that the outbox has no room for.
    fn refused(&self) {
        let ws = self.db.workspace("main").unwrap();
        let full = ws.write(|tx| tx.put(MESSAGES, &message("m", "t", 2)));
        assert!(matches!(full, Err(Error::OutboxFull { batches: 1, limit: 1 })), "{full:?}");
    }

    fn batches(&self) -> Receiver<u64> {
        let (told, heard) = channel();
        let told = Mutex::new(told);
        let action = move |full: &hook::QueueFull| {
            assert_eq!((full.workspace.as_str(), full.limit), ("main", 1));
            told.lock().unwrap().send(full.batches).unwrap();
        };
        self.db.hooks().action(hook::SYNC_QUEUE_FULL, action).unwrap();
        heard
    }
}

/// R9.2: the points have these names, which apps in other languages use.
#[test]
fn hooks_print_their_names() {
    assert_eq!(hook::SYNC_PUSH_BEFORE.to_string(), "sync.push:action:before");
    assert_eq!(hook::SYNC_PUSH_AFTER.to_string(), "sync.push:action:after");
    assert_eq!(hook::SYNC_PULL_AFTER.to_string(), "sync.pull:action:after");
    assert_eq!(hook::SYNC_CONFLICT_DETECTED.to_string(), "sync.conflict:action:detected");
    assert_eq!(hook::SYNC_ERROR.to_string(), "sync.error:action");
    assert_eq!(hook::UPLOAD_BEFORE.to_string(), "storage.files.upload:action:before");
    assert_eq!(hook::UPLOAD_AFTER.to_string(), "storage.files.upload:action:after");
    assert_eq!(hook::DOWNLOAD_BEFORE.to_string(), "storage.files.download:action:before");
    assert_eq!(hook::DOWNLOAD_AFTER.to_string(), "storage.files.download:action:after");
    assert_eq!(hook::GC_RUN.to_string(), "storage.files.gc:action:run");
    assert_eq!(hook::UPLOAD_POLICY.to_string(), "storage.files.upload:filter:policy");
    assert_eq!(hook::SYNC_QUEUE_FULL.to_string(), "sync.queue:action:full");
}

/// A full outbox is told to every hook on it (B7), and a panic of one is caught, told as an error,
/// and stops neither the others nor later events. A panic of the hook on errors is the end of it.
#[test]
fn a_panic_in_a_hook_is_told_and_stops_nothing() {
    let full = Full::new();
    let hooks = full.db.hooks();
    hooks.action(hook::SYNC_QUEUE_FULL, |_| panic!("no room in the app either")).unwrap();
    let (told, errors) = channel();
    let told = Mutex::new(told);
    let action = move |failed: &hook::Failed| {
        told.lock().unwrap().send(failed.message.clone()).unwrap();
        panic!("and once more");
    };
    hooks.action(hook::SYNC_ERROR, action).unwrap();
    let heard = full.batches();
    for _ in 0..2 {
        full.refused();
        assert_eq!(heard.recv_timeout(LIMIT), Ok(1));
        let error = errors.recv_timeout(LIMIT).unwrap();
        let expected = "hook sync.queue:action:full panicked: no room in the app either";
        assert_eq!(error, expected);
    }
    assert!(errors.try_recv().is_err());
}

/// I41. A hook that does not come back stops no write, and what waits for it is bounded: the rest
/// is counted and left out. Closing does not wait for it either.
#[test]
fn a_hook_that_hangs_holds_nothing_up() {
    let full = Full::new();
    let (entered, inside) = channel();
    let (release, released) = channel::<()>();
    let (entered, released) = (Mutex::new(entered), Mutex::new(released));
    let action = move |_: &hook::QueueFull| {
        entered.lock().unwrap().send(()).unwrap();
        // Ends when the other side goes.
        let _ = released.lock().unwrap().recv();
    };
    full.db.hooks().action(hook::SYNC_QUEUE_FULL, action).unwrap();
    full.refused();
    inside.recv_timeout(LIMIT).unwrap();
    let beyond = 10;
    (0..MAX_WAITING_EVENTS + beyond).for_each(|_| full.refused());
    assert_eq!(full.db.hooks().left_out(), beyond as u64);
    full.db.close().unwrap();
    drop(release);
}
