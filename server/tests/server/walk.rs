//! A first copy of many records, which comes in the order of their names.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};

use lastword::hook::{self, Pulled};

use crate::common::{Device, LIMIT, Server, json_of, lastword};

/// More than the seqs from which on there is a walk, and some pages of them.
const RECORDS: usize = 20_000;

/// Rows of each page that is durable, from here on.
fn pages(device: &Device) -> Receiver<u64> {
    let (told, heard) = channel();
    let told = Mutex::new(told);
    let pulled = move |pulled: &Pulled| {
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody listens at the end of a test.
        let _ = told.send(pulled.rows);
    };
    device.db.hooks().action(hook::SYNC_PULL_AFTER, pulled).expect("the hook is taken");
    heard
}

/// R2.1, R2.2, I16. A first copy is broken off again and again while others write, once by a server
/// that is killed. It goes on where it was, shows what has come, and ends as the server has it:
/// with what was written, deleted and written again behind it and ahead of it.
#[test]
fn a_first_copy_that_breaks_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(&dir.path().join("server"));
    let line = |number: usize| {
        // Their order is another than that of their keys.
        let key = number * 7919 % RECORDS;
        let text = "text ".repeat(60);
        format!(r#"{{"table":"notes","key":"n{key:05}","value":{{"n":{number},"t":"{text}"}}}}"#)
    };
    let lines: Vec<String> = (0..RECORDS).map(line).collect();
    std::fs::write(dir.path().join("notes.jsonl"), lines.join("\n")).expect("written");
    let import = ["import", "notes.jsonl", "--data", "a", "--server", &server.url, "--token"];
    lastword(dir.path(), &[&import[..], &["ann"]].concat()).ok();

    let mut a = Device::open(&dir.path().join("a"));
    a.connect(&server.url, "ann");
    let mut b = Device::open(&dir.path().join("b"));
    let heard = pages(&b);
    let (mut rounds, mut received, mut last) = (0, 0, None);
    while received < RECORDS as u64 / 2 {
        b.connect(&server.url, "bob");
        received += heard.recv().expect("the hooks run");
        b.disconnect();
        received += heard.try_iter().sum::<u64>();
        // Behind the walk, and ahead of it.
        for key in [rounds, RECORDS - 1 - rounds] {
            a.put("notes", &format!("n{key:05}"), &format!(r#"{{"n":{rounds},"again":true}}"#));
            last = Some(a.delete("notes", &format!("n{:05}", (key + 1_000) % RECORDS)));
        }
        if rounds == 0 {
            assert!(b.get("notes", "n00500").is_some(), "what has come is shown");
            server.kill();
            server.restart();
        }
        rounds += 1;
    }
    last.expect("it wrote").wait(Some(LIMIT)).expect("it is decided");
    a.caught_up();
    b.connect(&server.url, "bob");
    b.caught_up();
    received += heard.try_iter().sum::<u64>();
    assert!(rounds > 1, "it was not broken off");
    assert!(received < 2 * RECORDS as u64, "it began again: {received} rows in {rounds} rounds");
    assert_eq!(b.rows("notes"), a.rows("notes"));
    drop((a, b));
    server.kill();
    let digest = |data| {
        let status = json_of(dir.path(), &["status", "--data", data, "--json"]);
        status["workspaces"][0]["digest"].as_str().expect("a digest").to_owned()
    };
    assert_eq!(digest("b"), digest("server"));
}
