//! Live queries: what a watcher is told, and what it never sees.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use lastword::core::id::{Key, TableName};
use lastword::core::json;
use lastword::core::value::{Record, Value};
use lastword::{Diff, Error, Query, RecordChange, Workspace};

use crate::support::{BY_THREAD, DRAFTS, Fixture, MESSAGES, Message, message};

/// Longest wait for something that must happen.
const LIMIT: Duration = Duration::from_secs(60);

fn put(ws: &Workspace, id: &str, index: i64) {
    ws.write(|tx| tx.put(MESSAGES, &message(id, "t1", index))).unwrap();
}

fn keys(rows: &[lastword::Row<Message>]) -> Vec<&str> {
    rows.iter().map(lastword::Row::key).collect()
}

/// Rows, added, changed and removed of a difference, by key.
type Told<'a> = [Vec<&'a str>; 4];

fn told(diff: &Diff<Message>) -> Told<'_> {
    [keys(&diff.rows), keys(&diff.added), keys(&diff.changed), keys(&diff.removed)]
}

/// Observers are told the current rows first and then every change that shows in their query
/// (R1.3); a change elsewhere says nothing.
#[test]
fn a_watcher_is_told_what_changed_in_its_query() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    put(&ws, "m1", 1);
    let mut live = ws.watch(&BY_THREAD.prefix("t1").rev().limit(2)).unwrap();
    let none: Vec<&str> = Vec::new();
    let mut next = || live.recv_timeout(Duration::ZERO);
    assert_eq!(told(&next().unwrap()), [vec!["m1"], vec!["m1"], none.clone(), none.clone()]);
    assert!(next().is_none());

    put(&ws, "m2", 2);
    assert_eq!(told(&next().unwrap()), [vec!["m2", "m1"], vec!["m2"], none.clone(), none.clone()]);
    put(&ws, "m3", 3);
    assert_eq!(told(&next().unwrap()), [vec!["m3", "m2"], vec!["m3"], none.clone(), vec!["m1"]]);
    ws.write(|tx| tx.update(MESSAGES, "m2", |message| message.index = 9)).unwrap();
    assert_eq!(told(&next().unwrap()), [vec!["m2", "m3"], none.clone(), vec!["m2"], none.clone()]);
    ws.write(|tx| tx.delete(MESSAGES, "m2")).unwrap();
    assert_eq!(told(&next().unwrap()), [vec!["m3", "m1"], vec!["m1"], none.clone(), vec!["m2"]]);

    ws.write(|tx| tx.put(DRAFTS, &message("d1", "t1", 1))).unwrap();
    ws.write(|tx| tx.put(MESSAGES, &message("m4", "t2", 1))).unwrap();
    put(&ws, "m0", 0);
    assert!(next().is_none());
    let mut empty = ws.watch(&BY_THREAD.prefix("t3")).unwrap();
    assert!(empty.recv_timeout(Duration::ZERO).unwrap().rows.is_empty());
}

/// What a step does to a message.
enum Change {
    Put(&'static str, &'static str, i64),
    Body(&'static str),
    Delete(&'static str),
}

use Change::{Body, Delete, Put};

/// After each change: whether the query is run again, and whether it tells of it.
fn check_runs(ws: &Workspace, query: &Query<Message>, steps: &[(Change, bool, bool)]) {
    let mut live = ws.watch(query).unwrap();
    live.recv().unwrap();
    let mut runs = 1;
    for (at, (change, runs_again, tells)) in steps.iter().enumerate() {
        let written = match change {
            Put(id, thread, index) => ws.write(|tx| tx.put(MESSAGES, &message(id, thread, *index))),
            Body(id) => ws.write(|tx| tx.update(MESSAGES, id, |m| m.body.push('!'))),
            Delete(id) => ws.write(|tx| tx.delete(MESSAGES, id)),
        };
        written.unwrap();
        let told = live.recv_timeout(Duration::ZERO);
        assert_eq!(told.is_some(), *tells, "step {at} of {query:?}");
        runs += u64::from(*runs_again);
        assert_eq!(live.evaluations(), runs, "step {at} of {query:?}");
        if let Some(diff) = told {
            assert_eq!(keys(&diff.rows), keys(&ws.query(query).unwrap()));
        }
    }
}

/// A live query is not run again for what cannot touch it (B10): keys and index entries outside
/// of its range, rows behind the last one that its limit lets in. What can touch it is never
/// missed: an entry that comes, goes or leaves the range, and a row that changes where it stands.
#[test]
fn a_live_query_is_run_again_only_for_what_can_touch_it() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    (1..=4).for_each(|index| put(&ws, &format!("m{index}"), 10 * index));
    let steps = [
        (Put("m1", "t1", 11), false, false),
        (Put("m4", "t1", 41), false, false),
        (Put("m3", "t1", 31), true, true),
        (Put("m25", "t1", 25), true, true),
    ];
    check_runs(&ws, &MESSAGES.range("m2".."m4"), &steps);
    // m1 to m4 stand at 11, 20, 31, 41 now, m25 at 25.
    let steps = [
        (Put("m1", "t1", 12), false, false),
        (Put("x", "t2", 25), false, false),
        (Body("m3"), true, true),
        (Put("m2", "t1", 19), true, true),
        (Put("m2", "t1", 18), false, false),
        (Put("m4", "t1", 30), true, true),
        (Delete("m4"), true, true),
    ];
    check_runs(&ws, &BY_THREAD.range("t1", 20..=31), &steps);
    // In order m1 12, m2 18, m25 25, m3 31.
    let steps = [
        (Put("m3", "t1", 32), false, false),
        (Put("m25", "t1", 26), false, false),
        (Put("m25", "t1", 17), true, true),
        (Put("m2", "t1", 33), false, false),
        (Put("m1", "t1", 34), true, true),
    ];
    check_runs(&ws, &BY_THREAD.prefix("t1").limit(2), &steps);
    // In order m25 17, m3 32, m2 33, m1 34.
    let steps = [
        (Put("m25", "t1", 16), false, false),
        (Put("m25", "t1", 40), true, true),
        (Put("m3", "t1", 31), false, false),
        (Delete("m1"), true, true),
    ];
    check_runs(&ws, &BY_THREAD.prefix("t1").rev().limit(2), &steps);
    let steps = [
        (Put("m2", "t1", 1), false, false),
        (Put("z", "t1", 1), true, true),
        (Put("y", "t1", 1), false, false),
    ];
    check_runs(&ws, &MESSAGES.all().rev().limit(1), &steps);
    let steps = [(Put("m2", "t1", 2), false, false), (Put("n", "t1", 1), true, true)];
    check_runs(&ws, &MESSAGES.range("n".."o"), &steps);
}

/// A slow reader gets many changes as one difference, and nothing is left over: there is no queue
/// that could grow.
#[test]
fn a_slow_reader_gets_merged_changes() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let mut live = ws.watch(&MESSAGES.all()).unwrap();
    live.recv().unwrap();
    for round in 0..50 {
        put(&ws, "m1", round);
        put(&ws, &format!("n{round:02}"), round);
        if round % 2 == 0 {
            ws.write(|tx| tx.delete(MESSAGES, &format!("n{round:02}"))).unwrap();
        }
    }
    let diff = live.recv().unwrap();
    assert_eq!(diff.added.len(), 26, "what came and went in between is not told");
    assert_eq!((diff.changed.len(), diff.removed.len()), (0, 0));
    assert_eq!(diff.rows[0].index, 49);
    assert!(live.recv_timeout(Duration::ZERO).is_none());
}

/// No reader ever sees half a batch (R1.3, I6): each batch moves a pair of records together, and
/// while several threads write every difference, query and view shows both alike.
#[test]
fn a_watcher_never_sees_half_a_batch() {
    const WRITERS: i64 = 3;
    const BATCHES: i64 = 60;
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let write = |ws: &Workspace, writer: i64, round: i64| {
        ws.write(|tx| {
            tx.put(MESSAGES, &message(&format!("a{writer}"), "t1", round))?;
            // The total is shared by all writers, so their batches meet on one record.
            let total = tx.get(MESSAGES, "total")?.map_or(0, |message| message.index);
            tx.put(MESSAGES, &message("total", "t2", total + 1))?;
            tx.put(MESSAGES, &message(&format!("b{writer}"), "t1", round))
        })
        .unwrap();
    };
    let check = |rows: &[lastword::Row<Message>]| -> i64 {
        let by_key: BTreeMap<&str, i64> = rows.iter().map(|row| (row.key(), row.index)).collect();
        let written: i64 = (0..WRITERS)
            .map(|writer| {
                let [a, b] = ["a", "b"].map(|side| by_key.get(format!("{side}{writer}").as_str()));
                assert_eq!(a, b);
                a.copied().unwrap_or(0)
            })
            .sum();
        assert_eq!(written, by_key.get("total").copied().unwrap_or(0));
        written
    };
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let ws = ws.clone();
            scope.spawn(move || (1..=BATCHES).for_each(|round| write(&ws, writer, round)));
        }
        for query in [MESSAGES.all(), BY_THREAD.all()] {
            let ws = ws.clone();
            scope.spawn(move || {
                let mut live = ws.watch(&query).unwrap();
                let mut last = 0;
                while last < WRITERS * BATCHES {
                    let diff = live.recv_timeout(LIMIT).expect("the writers are not done");
                    let now = check(&diff.rows);
                    assert!(now >= last, "a change was taken back");
                    last = now;
                    check(&ws.query(&query).unwrap());
                }
            });
        }
    });
}

/// A waiting watcher wakes up when the database is closed, after it was told what came before.
#[test]
fn closing_ends_a_watch() {
    let Fixture { dir: _dir, ws, db } = Fixture::new();
    let mut live = ws.watch(&MESSAGES.all()).unwrap();
    live.recv().unwrap();
    let waiter = thread::spawn(move || {
        let mut told = 0;
        while let Some(diff) = live.recv() {
            told = diff.rows.len();
        }
        assert!(live.error().is_none() && live.is_closed());
        told
    });
    put(&ws, "m1", 1);
    db.close().unwrap();
    assert_eq!(waiter.join().unwrap(), 1);
}

/// A record that is no `T` ends a typed watch with the reason, instead of a made-up or missing row.
#[test]
fn a_record_that_is_no_t_ends_the_watch() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let mut live = ws.watch(&MESSAGES.all()).unwrap();
    live.recv().unwrap();
    let record = json::parse_record(r#"{"id":"m1"}"#).unwrap();
    ws.write(|tx| tx.put_record(&name(), &Key::new("m1")?, record.clone())).unwrap();
    assert!(live.recv().is_none());
    assert!(matches!(live.error(), Some(Error::Record { .. })), "{:?}", live.error());
    assert!(live.is_closed());
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, with no runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(LIMIT),
        }
    }
}

/// The async side tells the same, needs no runtime of ours, and ends when the database is closed.
#[test]
fn an_async_watcher_is_woken() {
    let Fixture { dir: _dir, ws, db } = Fixture::new();
    let mut live = ws.watch(&MESSAGES.all()).unwrap();
    let waiter = thread::spawn(move || {
        block_on(async {
            let mut seen = Vec::new();
            while let Some(diff) = live.next().await {
                seen.extend(diff.added.iter().map(|row| row.key().to_owned()));
            }
            seen
        })
    });
    (0..20).for_each(|round| put(&ws, &format!("m{round:02}"), round));
    db.close().unwrap();
    let expected: Vec<String> = (0..20).map(|round| format!("m{round:02}")).collect();
    assert_eq!(waiter.join().unwrap(), expected);
}

fn name() -> TableName {
    TableName::new("messages").unwrap()
}

/// Table, key and whether the record is there.
fn short(changes: &[RecordChange]) -> Vec<(&str, &str, bool)> {
    let short = |change: &RecordChange| change.record.is_some();
    changes.iter().map(|c| (c.table.as_str(), c.key.as_str(), short(c))).collect()
}

/// Readers without types are told the same: all live records, then each that changed, deletes too.
#[test]
fn records_are_watched_without_types() {
    let Fixture { dir: _dir, ws, db } = Fixture::new();
    put(&ws, "m1", 1);
    put(&ws, "m2", 2);
    ws.write(|tx| tx.delete(MESSAGES, "m2")).unwrap();
    let (mut all, mut one) = (ws.watch_records(None), ws.watch_records(Some(&name())));
    let first = all.recv().unwrap();
    assert_eq!(short(&first), [("messages", "m1", true)]);
    assert!(first[0].pending && first[0].seq.is_none());
    assert_eq!(one.recv().unwrap(), first);

    ws.write(|tx| {
        tx.put(DRAFTS, &message("d1", "t", 1))?;
        tx.undelete(MESSAGES, "m2")?;
        tx.delete(MESSAGES, "m1")
    })
    .unwrap();
    let expected = [("drafts", "d1", true), ("messages", "m1", false), ("messages", "m2", true)];
    assert_eq!(short(&all.recv().unwrap()), expected);
    assert_eq!(short(&one.recv().unwrap()), expected[1..]);
    ws.write(|tx| tx.put(DRAFTS, &message("d1", "t", 1))).unwrap();
    db.workspace("other").unwrap().write(|tx| tx.put(MESSAGES, &message("m9", "t", 1))).unwrap();
    assert!(one.recv_timeout(Duration::ZERO).is_none());
    assert!(all.recv_timeout(Duration::ZERO).is_none(), "an equal value is no change");
}

/// Telling what changed from memory alone must not miss what a checkpoint has moved to redb: after
/// far more bytes than memory keeps, a slow and a fast watcher both know every record.
#[test]
fn checkpoints_hide_no_change() {
    let Fixture { dir: _dir, ws, db: _ } = Fixture::new();
    let body = "x".repeat(200_000);
    let (mut slow, mut fast) = (ws.watch_records(None), ws.watch_records(None));
    let mut known: [BTreeMap<Key, Record>; 2] = Default::default();
    let learn = |known: &mut BTreeMap<Key, Record>, changes: Vec<RecordChange>| {
        for change in changes {
            match change.record {
                Some(record) => drop(known.insert(change.key, record)),
                None => drop(known.remove(&change.key)),
            }
        }
    };
    learn(&mut known[0], slow.recv().unwrap());
    for round in 0..60 {
        ws.write(|tx| {
            for side in 0..3 {
                let id = format!("m{}", round % 7 * 3 + side);
                tx.put(MESSAGES, &Message { body: body.clone(), ..message(&id, "t", round) })?;
            }
            Ok(())
        })
        .unwrap();
        if round % 5 == 4 {
            ws.write(|tx| tx.delete(MESSAGES, &format!("m{}", round % 7 * 3))).unwrap();
        }
        learn(&mut known[1], fast.recv_timeout(LIMIT).unwrap());
    }
    learn(&mut known[0], slow.recv().unwrap());
    let shown = ws.query(&MESSAGES.all()).unwrap();
    for known in &known {
        assert_eq!(known.len(), shown.len());
        for row in &shown {
            let record = &known[&Key::new(row.key()).unwrap()];
            assert_eq!(record.get("index"), Some(Value::Int(row.index)));
        }
    }
}
