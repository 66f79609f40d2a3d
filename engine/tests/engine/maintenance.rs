//! What folds and compaction leave: history, dead letters, indexes.

use std::time::Duration;

use lastword::core::id::{Key, TableName};
use lastword::{Database, compact, restore, verify};

use crate::support::{BY_THREAD, DRAFTS, Fixture, MESSAGES, Message, message, open};

fn name(table: &str, key: &str) -> (TableName, Key) {
    (TableName::new(table).unwrap(), Key::new(key).unwrap())
}

fn large(id: &str, index: i64) -> Message {
    Message { body: "x".repeat(200_000), ..message(id, "t1", index) }
}

/// B4, I27. The history of a record whose older frames were folded away ended with an error. It
/// ends where the log begins, and says so; a record that is older than the whole log is shown as
/// it is.
#[test]
fn history_ends_where_older_versions_were_folded_away() {
    let dir = tempfile::tempdir().unwrap();
    let builder = Database::builder().tables((MESSAGES, DRAFTS)).history(Duration::ZERO);
    let db = builder.open(dir.path().join("db")).unwrap();
    let ws = db.workspace("main").unwrap();
    ws.write(|tx| tx.put(DRAFTS, &message("old", "t1", 1))).unwrap();
    let (table, old) = name("drafts", "old");
    let before = ws.record_history(&table, &old).unwrap();
    assert_eq!((before.versions.len(), before.older_folded), (1, false));

    // Folds run beside the writes; the log is folded once enough was written.
    let mut updates = 0..2_000;
    let folded = updates.any(|number| {
        ws.write(|tx| tx.put(DRAFTS, &large("new", number))).unwrap();
        number % 20 == 0 && ws.record_history(&table, &old).unwrap().older_folded
    });
    assert!(folded, "nothing was folded away");
    let after = ws.record_history(&table, &old).unwrap();
    let [kept] = after.versions.as_slice() else { panic!("{after:?}") };
    assert_eq!((kept.what, kept.seq), ("kept", None));
    assert_eq!(kept.record, before.versions[0].record);

    let last = updates.start - 1;
    let newer = ws.record_history(&table, &name("drafts", "new").1).unwrap();
    assert!(newer.older_folded && newer.versions.len() > 1, "{}", newer.versions.len());
    assert_eq!(newer.versions[0].what, "put");
    assert_eq!(ws.get(DRAFTS, "new").unwrap().unwrap().index, last);
    assert!(!db.log(0, 10).unwrap().0.is_empty(), "the listing begins where the log does");
}

/// B3, I19. The ops of a dead letter are only in the log; a fold took them away once the batch had
/// left the outbox.
#[test]
fn ops_of_dead_letters_stay_readable() {
    let Fixture { dir, ws, db } = Fixture::new();
    let (backup, copy) = (dir.path().join("backup"), dir.path().join("copy"));
    std::fs::create_dir(&copy).unwrap();
    ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    db.backup(&backup, &mut |_| {}).unwrap();
    drop((ws, db));
    let report = restore(&backup, &copy.join("db"), true, &mut |_| {}).unwrap();
    assert_eq!(report.dropped_batches, 1);

    let ws = open(&copy).workspace("main").unwrap();
    for number in 0..10 {
        ws.write(|tx| tx.put(DRAFTS, &large("new", number))).unwrap();
    }
    drop(ws);
    compact(&copy.join("db"), Duration::ZERO, false).unwrap();
    let db = open(&copy);
    let (lines, _) = db.log(0, 1000).unwrap();
    let of_the_letter = |line: &lastword::LogLine| line.text.contains("create messages/m1");
    assert!(lines.iter().any(of_the_letter), "{lines:?}");
    assert_eq!(db.workspace("main").unwrap().dead_letters().unwrap().len(), 1);
}

/// I13, I27. Compacting a store without its app keeps the indexes that the app declares: they are
/// whole, and the app does not have to build them anew.
#[test]
fn compacting_keeps_the_indexes() {
    let Fixture { dir, ws, db } = Fixture::new();
    for number in 0..50 {
        let id = format!("m{number}");
        ws.write(|tx| tx.put(MESSAGES, &message(&id, "t1", 100 - number))).unwrap();
    }
    let before = ws.query(&BY_THREAD.prefix("t1")).unwrap();
    drop((ws, db));
    let data = dir.path().join("db");
    let report = compact(&data, Duration::ZERO, false).unwrap();
    assert!(report.folded && report.after.base > 0, "{report:?}");
    let scratch = tempfile::tempdir().unwrap();
    let verified = verify(&data, scratch.path(), &mut |_, _| {}).unwrap();
    assert!(verified.damages.is_empty() && verified.read.compared, "{verified:?}");

    let db = open(dir.path());
    assert!(!db.open_report().rebuilt_state);
    let after = db.workspace("main").unwrap().query(&BY_THREAD.prefix("t1")).unwrap();
    let keys = |rows: &[lastword::Row<Message>]| {
        rows.iter().map(|row| row.key().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&after), keys(&before));
    assert_eq!(after.len(), 50);
}
