//! `get put patch delete undelete`: one record, one atomic batch.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use lastword::core::id::{Key, TableName};
use lastword::core::json;
use lastword::core::stamp::{Decision, Verdict};
use lastword::core::value::{Field, Record};
use lastword::{BlobHash, Receipt, Tx, Workspace, verdict_word};
use serde_json::json;

use super::args::{Delete, Get, Link, Patch, Put, Store};
use super::failure::Failure;
use super::lines::{MAX_TEXT_BYTES, check_patch, odd_start};
use super::output;
use super::session::{Fate, Session, held_text};

pub(super) struct Name {
    pub(super) table: TableName,
    pub(super) key: Key,
}

pub(super) fn name(table: &str, key: &str) -> Result<Name, Failure> {
    Ok(Name { table: TableName::new(table)?, key: Key::new(key)? })
}

/// The argument as the name of a file.
pub(super) fn hash_of(text: &str) -> Result<BlobHash, Failure> {
    BlobHash::new(text).map_err(|error| Failure::usage(error.to_string()))
}

/// The argument as a record, or stdin for `-`; an error on stdin names it.
pub(super) fn record_of(argument: &str) -> Result<Record, Failure> {
    if argument != "-" {
        return parse(argument).map_err(Failure::failed);
    }
    let named = |reason: String| Failure::failed(format!("stdin: {reason}"));
    let mut bytes = Vec::new();
    let mut from = std::io::stdin().lock().take(MAX_TEXT_BYTES as u64 + 1);
    from.read_to_end(&mut bytes).map_err(|error| named(error.to_string()))?;
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(named(format!("the record is over {MAX_TEXT_BYTES} bytes")));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| named(format!("byte {}: not UTF-8", error.valid_up_to() + 1)))?;
    parse(text.trim_end()).map_err(named)
}

fn parse(text: &str) -> Result<Record, String> {
    match odd_start(text) {
        Some(reason) => Err(reason.into()),
        None => json::parse_record(text).map_err(|error| error.to_string()),
    }
}

pub(super) fn get(get: &Get) -> Result<(), Failure> {
    let Name { table, key } = name(&get.table, &get.key)?;
    let session = Session::open_to_read(&get.store, &get.link)?;
    let Some(shown) = session.ws.get_record(&table, &key)? else {
        return Err(Failure::failed(format!("{table}/{key} does not exist here")));
    };
    let mut out = std::io::stdout().lock();
    if get.store.json {
        let value = output::value_of(&shown.record)?;
        let line = Got {
            table: table.as_str(),
            key: key.as_str(),
            value: &value,
            seq: shown.seq,
            pending: shown.is_pending(),
        };
        let line = serde_json::to_string(&line).expect("invariant: it is valid JSON");
        writeln!(out, "{}", output::json_line(&line))?;
    } else {
        writeln!(out, "{}", output::value_of(&shown.record)?)?;
    }
    session.close()
}

#[derive(serde::Serialize)]
struct Got<'a> {
    table: &'a str,
    key: &'a str,
    value: &'a serde_json::value::RawValue,
    seq: Option<u64>,
    pending: bool,
}

pub(super) fn put(put: &Put) -> Result<(), Failure> {
    let name = name(&put.table, &put.key)?;
    let record = record_of(&put.value)?;
    write(&put.store, &put.link, &name, |tx, Name { table, key }| {
        tx.put_record(table, key, record.clone())
    })
}

pub(super) fn patch(patch: &Patch) -> Result<(), Failure> {
    let name = name(&patch.table, &patch.key)?;
    let record = record_of(&patch.set)?;
    let set: Vec<Field> = record.fields().to_vec();
    let remove = patch.remove.clone();
    if set.is_empty() && remove.is_empty() {
        let message = "nothing to change: give fields to set as JSON, or --remove FIELD";
        return Err(Failure::usage(message));
    }
    check_patch(&record, &remove).map_err(Failure::usage)?;
    write(&patch.store, &patch.link, &name, |tx, Name { table, key }| {
        tx.patch_record(table, key, set.clone(), remove.clone())
    })
}

pub(super) fn delete(delete: &Delete) -> Result<(), Failure> {
    let name = name(&delete.table, &delete.key)?;
    write(&delete.store, &delete.link, &name, |tx, Name { table, key }| {
        tx.delete_record(table, key)
    })
}

pub(super) fn undelete(undelete: &Delete) -> Result<(), Failure> {
    let name = name(&undelete.table, &undelete.key)?;
    write(&undelete.store, &undelete.link, &name, |tx, Name { table, key }| {
        tx.undelete_record(table, key)
    })
}

fn write(
    store: &Store,
    link: &Link,
    name: &Name,
    edit: impl Fn(&mut Tx, &Name) -> lastword::Result<()>,
) -> Result<(), Failure> {
    let session = Session::open(store, link)?;
    let connection = session.connect()?;
    let begun = Instant::now();
    let receipt: Receipt = session.ws.write(|tx| edit(tx, name))?;
    let fate = session.fate(connection, &receipt)?;
    let told = tell(&session.ws, store.json, name, &fate, begun.elapsed());
    session.close()?;
    told
}

pub(super) fn tell(
    ws: &Workspace,
    as_json: bool,
    name: &Name,
    fate: &Fate,
    elapsed: Duration,
) -> Result<(), Failure> {
    let waiting = ws.waiting()?;
    let mut out = std::io::stdout().lock();
    let mut printed = Ok(());
    let full = format!("{}/{}", name.table, name.key);
    if as_json {
        let mut line = json!({
            "table": name.table.as_str(), "key": name.key.as_str(), "durable": true,
            "outbox": waiting, "state": "waiting",
        });
        match fate {
            Fate::Decided(decision) => {
                line["state"] = json!(verdict_word(decision));
                line["ms"] = json!(elapsed.as_secs_f64() * 1000.0);
                match decision {
                    Decision::Accepted { first_seq, .. } => line["seq"] = json!(first_seq),
                    Decision::Refused { code, message, .. } => {
                        line["code"] = json!(code.as_str());
                        line["why"] = json!(message);
                    }
                }
            }
            Fate::Local => line["state"] = json!("local"),
            Fate::Waiting(why) | Fate::Unreachable(why) | Fate::Held(why) => {
                line["why"] = json!(why);
            }
        }
        printed = writeln!(out, "{}", output::json_line(&line.to_string()));
    }
    // A reader that went away must not hide what became of the write.
    let text = match fate {
        Fate::Local => format!("saved {full}; nothing of it is for the server"),
        Fate::Waiting(why) => format!("saved {full}; outbox {}; {why}", output::batches(waiting)),
        Fate::Unreachable(why) => {
            let saved = format!("saved {full}; outbox {}; {why}", output::batches(waiting));
            return Err(Failure::unreachable(saved));
        }
        Fate::Held(why) => {
            let held = held_text(why, &output::batches(waiting));
            return Err(Failure::failed(format!("saved {full}, not sent: {held}")));
        }
        Fate::Decided(Decision::Refused { code, message, .. }) => {
            return Err(Failure::failed(format!(
                "{full} refused ({code}): {message}; it is kept, see `lastword dead-letters`"
            )));
        }
        Fate::Decided(Decision::Accepted { first_seq, verdicts, .. }) => match verdicts.first() {
            Some(Verdict::Superseded { by, reason }) => format!(
                "{full} superseded ({reason}) by seq {by}: the server's version stands, yours is \
                 in the log at seq {first_seq}"
            ),
            Some(Verdict::Applied { dropped }) if !dropped.is_empty() => {
                format!("{full} applied, seq {first_seq}, without {}", dropped.join(", "))
            }
            _ => format!("{full} applied, seq {first_seq} ({})", output::took(elapsed)),
        },
    };
    if !as_json {
        printed = writeln!(out, "{}", output::plain(&text));
    }
    Ok(printed?)
}
