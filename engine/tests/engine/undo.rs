//! Undo, and history as the app's type.

use lastword::{Error, Receipt};

use crate::support::{DRAFTS, Fixture, MESSAGES, Message, message};

fn all(fixture: &Fixture) -> Vec<Message> {
    let rows = |table| fixture.ws.query(&lastword::Table::all(table)).unwrap();
    let rows = rows(MESSAGES).into_iter().chain(rows(DRAFTS));
    rows.map(|row| (*row.into_value()).clone()).collect()
}

fn edit(fixture: &Fixture, id: &str, body: &str) -> Receipt {
    fixture.ws.write(|tx| tx.update(MESSAGES, id, |m| m.body = body.into())).unwrap()
}

/// Undo restores every record of a batch to what it was before, whatever was done to it, in synced
/// and local tables; it is a write like any other, so it can be undone itself.
#[test]
fn undo_restores_every_record_of_a_batch() {
    let fixture = Fixture::new();
    let ws = &fixture.ws;
    ws.write(|tx| {
        tx.put(MESSAGES, &message("put", "t1", 1))?;
        tx.put(MESSAGES, &message("patched", "t1", 2))?;
        tx.put(MESSAGES, &message("deleted", "t1", 3))?;
        tx.put(MESSAGES, &message("replaced", "t1", 4))?;
        tx.put(MESSAGES, &message("undeleted", "t1", 5))?;
        tx.put(DRAFTS, &message("draft", "t1", 6))
    })
    .unwrap();
    ws.write(|tx| tx.delete(MESSAGES, "undeleted")).unwrap();
    let before = all(&fixture);
    let receipt = ws
        .write(|tx| {
            tx.put(MESSAGES, &message("put", "t2", 10))?;
            tx.update(MESSAGES, "patched", |m| m.body.push('!'))?;
            tx.delete(MESSAGES, "deleted")?;
            tx.delete(MESSAGES, "replaced")?;
            tx.put(MESSAGES, &message("replaced", "t2", 40))?;
            tx.undelete(MESSAGES, "undeleted")?;
            tx.put(MESSAGES, &message("created", "t2", 70))?;
            tx.delete(DRAFTS, "draft")
        })
        .unwrap();
    let after = all(&fixture);
    assert_ne!(after, before);
    let undone = ws.undo(&receipt).unwrap();
    assert!(undone.is_synced());
    assert_eq!(all(&fixture), before);
    ws.undo(&undone).unwrap();
    assert_eq!(all(&fixture), after);
    // Each record is as it was before the undo: there is nothing left to undo of it.
    assert!(!ws.undo(&undone).unwrap().is_synced());
}

/// A record that was written since is not touched, and neither are the others of the batch; what
/// the write itself left is known by its batch, not by its value.
#[test]
fn undo_takes_nothing_away_that_came_later() {
    let fixture = Fixture::new();
    let ws = &fixture.ws;
    ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    ws.write(|tx| tx.put(MESSAGES, &message("m2", "t1", 2))).unwrap();
    let both = ws
        .write(|tx| {
            tx.update(MESSAGES, "m1", |m| m.body = "one".into())?;
            tx.update(MESSAGES, "m2", |m| m.body = "two".into())
        })
        .unwrap();
    let later = edit(&fixture, "m2", "later");
    let before = all(&fixture);
    let overtaken = ws.undo(&both);
    assert!(
        matches!(&overtaken, Err(Error::Overtaken { key, .. }) if key.as_str() == "m2"),
        "{overtaken:?}"
    );
    assert_eq!(all(&fixture), before, "half of the batch was undone");
    // The same value, but by another write.
    edit(&fixture, "m2", "two");
    assert!(matches!(ws.undo(&both), Err(Error::Overtaken { .. })));
    ws.write(|tx| tx.delete(MESSAGES, "m2")).unwrap();
    assert!(matches!(ws.undo(&later), Err(Error::Overtaken { .. })));

    let elsewhere = fixture.db.workspace("elsewhere").unwrap().undo(&both);
    assert!(matches!(elsewhere, Err(Error::UnknownWorkspace { .. })), "{elsewhere:?}");
    let nothing = ws.write(|_| Ok(())).unwrap();
    assert!(!ws.undo(&nothing).unwrap().is_synced());
}

/// History comes as the app's type where a version has a whole value, and a patch as its fields.
#[test]
fn history_is_typed() {
    let fixture = Fixture::new();
    let ws = &fixture.ws;
    ws.write(|tx| tx.put(MESSAGES, &message("m1", "t1", 1))).unwrap();
    edit(&fixture, "m1", "edited");
    ws.write(|tx| tx.delete(MESSAGES, "m1")).unwrap();
    let history = ws.history(MESSAGES, "m1").unwrap();
    let what: Vec<&str> = history.versions.iter().map(|v| v.version.what).collect();
    assert_eq!(what, ["delete", "patch", "create"]);
    let values: Vec<Option<&Message>> = history.versions.iter().map(|v| v.value.as_ref()).collect();
    assert_eq!(values, [None, None, Some(&message("m1", "t1", 1))]);
    let fields = history.versions[1].version.record.as_ref().unwrap();
    assert_eq!(fields.fields().len(), 1);
    assert!(!history.older_folded);
    assert!(ws.history(MESSAGES, "never").unwrap().versions.is_empty());
}
