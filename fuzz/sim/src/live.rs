//! I13, I29: what an app is shown that watches, and what its indexes find.

use std::collections::BTreeMap;
use std::time::Duration;

use lastword::core::id::WorkspaceName;
use lastword::core::value::{Record, Value};
use lastword::{Live, LiveRecords, Workspace};

use crate::act::{BY_NUMBER, Note};
use crate::fault::Violation;
use crate::world::{Done, World};

/// Rows of the query that is watched.
const LIMIT: usize = 3;

type Shown = BTreeMap<(String, String), (Record, Option<u64>)>;

/// What an app watches in one workspace.
pub struct Watch {
    records: LiveRecords,
    /// What the changes it was told of add up to.
    shown: Shown,
    first: Live<Note>,
    rows: Vec<String>,
}

fn begin(opened: &Workspace) -> lastword::Result<Watch> {
    let first = opened.watch(&BY_NUMBER.all().limit(LIMIT))?;
    let (shown, rows) = Default::default();
    Ok(Watch { records: opened.watch_records(None), shown, first, rows })
}

/// What a device's app is shown after something happened.
pub fn check(world: &mut World, at: usize, workspace: &WorkspaceName) -> Done {
    // Not each time, as a reader that is slower than the store; the trace decides, so that the run
    // is the same without it.
    if !world.trace.is_multiple_of(16) {
        return Ok(());
    }
    let Some(opened) = world.opened(at, workspace) else { return Ok(()) };
    let device = &mut world.devices[at];
    let Ok(view) = opened.read() else { return Ok(()) };
    let watch = match device.watches.remove(workspace) {
        Some(watch) => Ok(watch),
        None => begin(&opened),
    };
    let Ok(mut watch) = watch else { return Ok(()) };
    while let Some(changes) = watch.records.recv_timeout(Duration::ZERO) {
        for change in changes {
            let name = (change.table.as_str().to_owned(), change.key.as_str().to_owned());
            match change.record {
                Some(record) => drop(watch.shown.insert(name, (record, change.seq))),
                None => drop(watch.shown.remove(&name)),
            }
        }
    }
    while let Some(diff) = watch.first.recv_timeout(Duration::ZERO) {
        watch.rows = diff.rows.iter().map(|row| row.key().to_owned()).collect();
    }
    let mut all = Shown::new();
    let visited = view.visit_all(&mut |shown, deleted| {
        if !deleted {
            let name = (shown.table.as_str().to_owned(), shown.key.as_str().to_owned());
            all.insert(name, (shown.record, shown.seq));
        }
        Ok(())
    });
    let broken = watch.records.error().is_some() || watch.first.error().is_some();
    if visited.is_err() || broken {
        return Ok(());
    }
    if watch.shown != all {
        let name = all.iter().find(|(name, row)| watch.shown.get(*name) != Some(*row));
        let gone = watch.shown.keys().find(|name| !all.contains_key(*name));
        let text = format!("device {at}: a watcher of {workspace} missed {name:?} or {gone:?}");
        return Err(Violation::new("I29", text));
    }
    let sorted = sorted(&all);
    let Ok(found) = opened.query(&BY_NUMBER.all()) else { return Ok(()) };
    let found: Vec<String> = found.iter().map(|row| row.key().to_owned()).collect();
    if found != sorted {
        let text = format!("device {at}: the index of {workspace} has {found:?}, not {sorted:?}");
        return Err(Violation::new("I13", text));
    }
    if watch.rows != sorted[..sorted.len().min(LIMIT)] {
        let text =
            format!("device {at}: a query of {workspace} is shown {:?}, {sorted:?}", watch.rows);
        return Err(Violation::new("I29", text));
    }
    device.watches.insert(workspace.clone(), watch);
    Ok(())
}

/// Keys of the notes by their numbers.
fn sorted(all: &Shown) -> Vec<String> {
    let notes = all.iter().filter(|((table, _), _)| table == "notes");
    let numbered = notes.filter_map(|((_, key), (record, _))| match record.get("n") {
        Some(Value::Int(number)) => Some((number, key.clone())),
        _ => None,
    });
    let mut numbered: Vec<(i64, String)> = numbered.collect();
    numbered.sort();
    numbered.into_iter().map(|(_, key)| key).collect()
}
