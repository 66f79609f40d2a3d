//! Unsent writes that become one batch.

use lastword::core::id::{Key, TableName};
use lastword::core::protocol::replica::SyncStatus;
use lastword::core::schema::{Schema, TableSchema};
use lastword::core::stamp::Decision;
use lastword::core::value::{Record, Value};
use lastword::testing::{Cluster, Device, Way};
use lastword::{Database, Error, Receipt, Settled, Workspace, WriteOptions, salvage};

use crate::support::{BY_THREAD, DRAFTS, Fixture, MESSAGES, Message, message, open};

fn squashed(ws: &Workspace, id: &str, edit: impl Fn(&mut Message)) -> Receipt {
    let options = WriteOptions::default().squash();
    ws.write_with(options, |tx| tx.update(MESSAGES, id, |message| edit(message))).unwrap()
}

fn stream(ws: &Workspace, id: &str, words: usize) -> Vec<Receipt> {
    let word = |number: usize| {
        squashed(ws, id, move |message| message.body.push_str(&format!(" {number}")))
    };
    (0..words).map(word).collect()
}

fn waiting(ws: &Workspace) -> u64 {
    ws.status().unwrap().undecided
}

fn device(cluster: &mut Cluster) -> (Device, Workspace) {
    let device = cluster.device("ann").unwrap();
    let ws = device.workspace("acme").unwrap();
    ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    cluster.settle().unwrap();
    (device, ws)
}

fn cluster() -> Cluster {
    Cluster::with(Database::builder().tables((MESSAGES, DRAFTS)).index(BY_THREAD))
}

/// Semantics 4, I14. Fifty updates of one record offline are one batch with one counter; what is
/// shown is the last of them, and every receipt gets the verdict of that batch.
#[test]
fn fifty_updates_of_one_record_are_one_batch() {
    let mut cluster = cluster();
    let (ann, ws) = device(&mut cluster);
    cluster.offline(&ann).unwrap();
    let receipts = stream(&ws, "m1", 50);
    assert_eq!(waiting(&ws), 1);
    let shown = ws.get(MESSAGES, "m1").unwrap().unwrap();
    assert!(shown.body.ends_with(" 48 49") && shown.is_pending());
    assert_eq!(ws.query(&BY_THREAD.prefix("t1")).unwrap().len(), 1);
    cluster.online(&ann);
    cluster.settle().unwrap();
    let verdicts: Vec<Settled> = receipts.iter().map(|own| own.verdict().unwrap()).collect();
    assert!(matches!(verdicts[0], Settled::Decided(Decision::Accepted { .. })), "{verdicts:?}");
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]));
    let head = ws.status().unwrap().head;
    ws.write(|tx| tx.put(MESSAGES, &message("m2", "t1", 2))).unwrap();
    cluster.settle().unwrap();
    assert_eq!(ws.status().unwrap().head, head + 1, "counters go on");
    cluster.assert_equal();
}

/// Semantics 4. Once a session has a batch it is never another one, decided or not; what comes
/// after it is squashed on its own.
#[test]
fn a_batch_on_its_way_is_left_alone() {
    let mut cluster = cluster();
    let (ann, ws) = device(&mut cluster);
    cluster.hold(&ann, Way::Up);
    let first = stream(&ws, "m1", 3);
    cluster.settle().unwrap();
    assert_eq!(waiting(&ws), 1);
    let second = stream(&ws, "m1", 3);
    assert_eq!(waiting(&ws), 2, "the first is on its way");
    cluster.release(&ann);
    cluster.settle().unwrap();
    for own in first.iter().chain(&second) {
        assert!(matches!(own.verdict(), Some(Settled::Decided(Decision::Accepted { .. }))));
    }
    assert_ne!(first[2].verdict(), second[0].verdict());
    assert!(matches!(ann.status(ws.name()), SyncStatus::Live { .. }));
    cluster.assert_equal();
}

/// Semantics 4. What stays apart: a write without the option, another record, a delete, what an
/// earlier process wrote, and a write on a prediction that the server's version stands.
#[test]
fn what_is_not_the_same_stays_apart() {
    let Fixture { ws, db, dir } = Fixture::new();
    ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    stream(&ws, "m1", 2);
    assert_eq!(waiting(&ws), 2, "the first was written without the option");
    ws.write_with(WriteOptions::default().squash(), |tx| {
        tx.put(MESSAGES, &message("m2", "t1", 1))?;
        tx.update(MESSAGES, "m1", |message| message.index = 9)
    })
    .unwrap();
    assert_eq!(waiting(&ws), 3, "m2 is not in the batch before");
    stream(&ws, "m1", 2);
    assert_eq!(waiting(&ws), 3, "both records of the batch before stay");
    let delete = |tx: &mut lastword::Tx| tx.delete(MESSAGES, "m2");
    ws.write_with(WriteOptions::default().squash(), delete).unwrap();
    assert_eq!(waiting(&ws), 4, "a delete is a step of its own");
    let (m1, before) = (ws.get(MESSAGES, "m1").unwrap().unwrap(), waiting(&ws));
    stream(&ws, "m1", 2);
    assert_eq!(waiting(&ws), before + 1);
    drop(ws);
    db.close().unwrap();

    let db = open(dir.path());
    let ws = db.workspace("main").unwrap();
    assert_eq!(ws.get(MESSAGES, "m1").unwrap().unwrap().body, format!("{} 0 1", m1.body));
    stream(&ws, "m1", 2);
    assert_eq!(waiting(&ws), before + 2, "what an earlier process wrote counts as sent");
    drop(ws);
    db.close().unwrap();
}

/// Semantics 4: "a squash that would change the visible row is not made". A create that is going to
/// lose does not drag the edit of the winner with it.
#[test]
fn an_edit_of_the_version_that_stands_is_not_squashed_with_what_loses() {
    let mut cluster = cluster();
    let (ann, on_ann) = device(&mut cluster);
    let bob = cluster.device("bob").unwrap();
    let on_bob = bob.workspace("acme").unwrap();
    cluster.settle().unwrap();
    cluster.hold(&ann, Way::Up);
    on_bob.write(|tx| tx.put(MESSAGES, &message("m2", "t1", 7))).unwrap();
    let options = WriteOptions::default().squash();
    // On its way, so that the next one waits behind it.
    let blocker = message("m3", "t1", 3);
    on_ann.write(|tx| tx.put(MESSAGES, &blocker)).unwrap();
    cluster.offline(&ann).unwrap();
    let lost = on_ann.write_with(options, |tx| tx.put(MESSAGES, &message("m2", "t1", 8))).unwrap();
    cluster.settle().unwrap();
    cluster.online(&ann);
    cluster.hold(&ann, Way::Up);
    cluster.settle().unwrap();
    cluster.release(&ann);
    cluster.settle().unwrap();
    let edit = squashed(&on_ann, "m2", |message| message.body = "mine".into());
    cluster.settle().unwrap();
    assert_ne!(lost.verdict(), edit.verdict());
    let shown = on_ann.get(MESSAGES, "m2").unwrap().unwrap();
    assert_eq!((shown.index, shown.body.as_str()), (7, "mine"));
    cluster.assert_equal();
}

/// R2.4. A full outbox takes an update that makes it no longer.
#[test]
fn a_full_outbox_takes_what_does_not_lengthen_it() {
    let dir = tempfile::tempdir().unwrap();
    let builder = Database::builder().tables((MESSAGES, DRAFTS)).max_undecided(1);
    let db = builder.open(dir.path().join("db")).unwrap();
    let ws = db.workspace("main").unwrap();
    let options = WriteOptions::default().squash();
    ws.write_with(options, |tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    stream(&ws, "m1", 3);
    let full = ws.write(|tx| tx.put(MESSAGES, &message("m2", "t1", 1)));
    assert!(matches!(full, Err(Error::OutboxFull { batches: 1, limit: 1 })), "{full:?}");
    assert_eq!(waiting(&ws), 1);
}

/// Semantics 4, B1. The log keeps every step, undo takes the last one back, and a directory that is
/// salvaged has the one batch as one dead letter.
#[test]
fn history_undo_and_salvage_know_squashed_writes() {
    let Fixture { ws, db, dir } = Fixture::new();
    ws.write_with(WriteOptions::default().squash(), |tx| tx.put(MESSAGES, &message("m1", "t1", 1)))
        .unwrap();
    let receipts = stream(&ws, "m1", 3);
    let bodies: Vec<String> = ws
        .history(MESSAGES, "m1")
        .unwrap()
        .versions
        .into_iter()
        .map(|version| version.value.unwrap().body)
        .collect();
    let words = ["body of m1 0 1 2", "body of m1 0 1", "body of m1 0", "body of m1"];
    assert_eq!(bodies, words);
    ws.undo(receipts.last().unwrap()).unwrap();
    assert_eq!(ws.get(MESSAGES, "m1").unwrap().unwrap().body, words[1]);
    drop(ws);
    db.close().unwrap();
    let to = dir.path().join("new");
    let salvaged = salvage(&dir.path().join("db"), &to, true).unwrap();
    assert_eq!(salvaged.dropped_batches, 2, "{salvaged:?}");
}

/// Rule 8.7, I28. The story: a batch that could be taken in went down with a refused one, another
/// write got its counter, and since the outbox was looked through for the batch that was gone,
/// nothing of it was ever sent again.
#[test]
fn an_outbox_goes_on_after_a_squashed_batch_was_refused() {
    let mut cluster = cluster();
    let (ann, ws) = device(&mut cluster);
    let schema =
        Schema::new(0, [(TableName::new("messages").unwrap(), TableSchema::new("id"))]).unwrap();
    cluster.set_schema(schema).unwrap();
    let (table, key) = (TableName::new("unknown").unwrap(), Key::new("k").unwrap());
    let write = |number: i64| {
        let record = Record::new(&[("n".into(), Value::Int(number))]).unwrap();
        let options = WriteOptions::default().squash();
        ws.write_with(options, |tx| tx.put_record(&table, &key, record.clone())).unwrap()
    };
    write(1);
    cluster.hold(&ann, Way::Down);
    cluster.settle().unwrap();
    cluster.cut(&ann).unwrap();
    cluster.offline(&ann).unwrap();
    write(2);
    assert_eq!(waiting(&ws), 2, "the first was handed");
    cluster.release(&ann);
    cluster.online(&ann);
    cluster.settle().unwrap();
    assert_eq!((waiting(&ws), ws.dead_letters().unwrap().len()), (0, 2));
    let last = ws.write(|tx| tx.put(MESSAGES, &message("m9", "t1", 9))).unwrap();
    cluster.settle().unwrap();
    assert!(matches!(last.verdict(), Some(Settled::Decided(Decision::Accepted { .. }))));
    assert_eq!(waiting(&ws), 0);
}
