//! The Rust of the READMEs, as it stands there: here it is compiled.

// They connect to a server.
#![cfg(feature = "net")]
// A helper of a test fails the test as the test itself would.
#![allow(clippy::unwrap_used)]

use lastword::{Index, hook};

type Done = Result<(), Box<dyn std::error::Error>>;

fn show<T>(_shown: &T) {}

fn log(_line: &str) {}

fn without_location(file: lastword::Incoming<'_>) -> Result<lastword::Incoming<'_>, String> {
    Ok(file)
}

// Nobody runs it: it opens files where it is and waits for a server.
#[allow(dead_code)]
fn embedded() -> Done {
    use lastword::{Database, Remote, Table};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Clone)]
    struct Note {
        id: String,
        text: String,
    }

    const NOTES: Table<Note> = Table::new("notes", "id");

    let db = Database::builder().tables(NOTES).open("notes.lastword")?;
    let ws = db.workspace("main")?;

    let receipt = ws.write(|tx| {
        tx.put(NOTES, &Note { id: "n1".into(), text: "hi".into() })?;
        tx.update(NOTES, "n1", |note| note.text.push('!'))
    })?;

    let sync = db.connect(Remote::new("ws://127.0.0.1:7420")?.token("me"))?;
    sync.attach(&ws)?;
    let verdict = receipt.wait(None);

    show(&verdict);
    ws.undo(&receipt)?;
    ws.history(NOTES, "n1")?;
    for letter in ws.dead_letters()? {
        ws.retry_dead_letter(letter.unit)?;
    }

    db.hooks().action(hook::SYNC_CONFLICT_DETECTED, |lost| show(&lost.conflict))?;
    db.hooks().action(hook::SYNC_ERROR, |failed| log(&failed.message))?;
    db.hooks().transform(without_location);

    let (from, to) = (0, 1);
    const IN_FOLDER: Index<Note> = NOTES.index("in_folder", &["folder", "created"]);
    ws.query(&IN_FOLDER.prefix("inbox").rev().limit(50))?;
    ws.count(&IN_FOLDER.range("inbox", 1_700_000_000..))?;
    let mut live = ws.watch(&IN_FOLDER.range("inbox", from..to))?;
    while let Some(diff) = live.recv() {
        show(&diff.rows);
    }
    Ok(())
}

// The same for the page of this crate.
#[allow(dead_code)]
fn engine() -> Done {
    use lastword::{Database, Remote, Table};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    struct Note {
        id: String,
        folder: String,
        text: String,
    }

    const NOTES: Table<Note> = Table::new("notes", "id");
    const BY_FOLDER: Index<Note> = NOTES.index("by_folder", &["folder", "text"]);

    let db = Database::builder().tables(NOTES).index(BY_FOLDER).open("notes.lastword")?;
    let ws = db.workspace("acme")?;
    let receipt = ws.write(|tx| {
        tx.update(NOTES, "n1", |note| note.text.push('!'))?;
        tx.delete(NOTES, "n2")
    })?;

    let mut live = ws.watch(&BY_FOLDER.prefix("inbox").limit(50))?;
    while let Some(diff) = live.recv() {
        show(&diff.rows);
    }

    let sync = db.connect(Remote::new("ws://127.0.0.1:7420")?.token("me"))?;
    sync.attach(&ws)?;
    let verdict = receipt.wait(None);

    show(&verdict);
    Ok(())
}

fn tested() -> Done {
    use lastword::testing::Cluster;
    use lastword::{Database, Table};

    const NOTES: Table<serde_json::Value> = Table::new("notes", "id");
    let note = serde_json::json!({ "id": "n1" });
    let mut cluster = Cluster::with(Database::builder().tables(NOTES));
    let (phone, laptop) = (cluster.device("phone")?, cluster.device("laptop")?);
    let (ours, theirs) = (phone.workspace("main")?, laptop.workspace("main")?);
    ours.write(|tx| tx.put(NOTES, &note))?;
    cluster.settle()?;
    assert!(theirs.get(NOTES, "n1")?.is_some());
    cluster.assert_equal();
    Ok(())
}

/// Without comments, white space and the commas and semicolons that the formatter puts last.
fn squeezed(code: &str) -> String {
    // An address has no space before its slashes.
    let lines = code.lines().map(|line| line.split(" //").next().unwrap_or_default());
    let code: String = lines.collect::<String>().split_whitespace().collect();
    code.replace(",}", "}").replace(";}", "}")
}

/// R11. What a README shows is what users type first: it compiles, and its test passes.
#[test]
fn the_code_of_the_readmes_compiles() {
    tested().unwrap();
    let here = squeezed(include_str!("readme.rs"));
    for (page, count) in [(include_str!("../../README.md"), 5), (include_str!("../README.md"), 1)] {
        let blocks = page.split("\n```rust\n").skip(1);
        let blocks: Vec<&str> = blocks.filter_map(|rest| rest.split("\n```").next()).collect();
        assert_eq!(blocks.len(), count, "blocks of Rust in a README");
        for block in blocks {
            assert!(here.contains(&squeezed(block)), "a README has other code:\n{block}");
        }
    }
}
