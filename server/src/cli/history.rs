//! `history`: the versions of one record, newest first.

use std::io::Write as _;
use std::time::Duration;

use lastword::core::id::{DeviceId, Key, TableName, WorkspaceName};
use lastword::core::json;
use lastword::core::stamp::Verdict;
use lastword::core::value::Record;
use lastword::{RecordHistory, Version};
use serde_json::{Value, json};

use super::args::{History, OfRecord};
use super::failure::Failure;
use super::output;
use super::session::{Opened, Session, must_exist, open_any};

/// How long the server has to answer, if the user does not say.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn history(args: &History) -> Result<(), Failure> {
    let OfRecord { store, link, .. } = &args.record;
    let (table, key) = (TableName::new(&args.record.table)?, Key::new(&args.record.key)?);
    if args.remote {
        return of_server(args, &table, &key);
    }
    let opened = open_any(store, link)?;
    let (found, own) = match &opened {
        Opened::Device(session) => (session.ws.record_history(&table, &key)?, session.db.device()),
        Opened::Server(authority) => {
            let workspace = WorkspaceName::new(&store.workspace)?;
            (authority.history(&workspace, &table, &key)?, DeviceId::AUTHORITY)
        }
    };
    print(&found, own, (&table, &key), "here", store.json)?;
    match opened {
        Opened::Device(session) => session.close(),
        Opened::Server(authority) => Ok(authority.close()?),
    }
}

/// The same from the server that the directory syncs with.
fn of_server(args: &History, table: &TableName, key: &Key) -> Result<(), Failure> {
    let OfRecord { store, link, .. } = &args.record;
    must_exist(store, link)?;
    let session = Session::open(store, link)?;
    let connection = session.reach()?;
    let timeout = Some(session.timeout().unwrap_or(PATIENCE));
    let (sync, own) = (&connection.sync, session.db.device());
    match (&args.field, args.at) {
        (Some(field), Some(seq)) => {
            let value = sync.field_at(&session.ws, (table, key), field, seq, timeout)?;
            let record = Record::new(&[(field.clone(), value)])?;
            let line = output::json_line(&json::record_to_string(&record)?).into_owned();
            writeln!(std::io::stdout(), "{line}")?;
        }
        _ => {
            let found = sync.record_history(&session.ws, (table, key), timeout)?;
            print(&found, own, (table, key), "at the server", store.json)?;
        }
    }
    drop(connection);
    session.close()
}

fn print(
    found: &RecordHistory,
    own: DeviceId,
    (table, key): (&TableName, &Key),
    place: &str,
    as_lines: bool,
) -> Result<(), Failure> {
    if found.versions.is_empty() {
        return Err(Failure::failed(format!("nothing is known of {table}/{key} {place}")));
    }
    let mut out = std::io::stdout().lock();
    for version in &found.versions {
        let line = match as_lines {
            true => output::json_line(&as_json(version)?).into_owned(),
            false => output::plain(&as_text(version, own)?).into_owned(),
        };
        writeln!(out, "{line}")?;
    }
    match (found.older_folded, as_lines) {
        (true, true) => writeln!(out, "{}", json!({ "older_folded": true }))?,
        (true, false) => writeln!(out, "older versions were folded away")?,
        (false, _) => {}
    }
    Ok(())
}

fn verdict_text(version: &Version) -> String {
    match &version.verdict {
        None => String::new(),
        Some(Verdict::Applied { dropped }) if dropped.is_empty() => "applied".into(),
        Some(Verdict::Applied { dropped }) => format!("applied without {}", dropped.join(", ")),
        Some(Verdict::Superseded { by, reason }) => format!("superseded by seq {by} ({reason})"),
    }
}

fn as_text(version: &Version, own: DeviceId) -> Result<String, Failure> {
    let seq = version.seq.map_or_else(|| "local".to_owned(), |seq| format!("seq {seq}"));
    let writer = match version.device {
        device if device == own => "here".to_owned(),
        DeviceId::AUTHORITY => "server".to_owned(),
        device => device.short(),
    };
    let value = match &version.record {
        Some(record) => json::record_to_string(record)?,
        None => String::new(),
    };
    let line = format!(
        "{seq:<9} {} {writer:<8} {:<8} {} {value}",
        output::clock(version.time_ms),
        version.what,
        verdict_text(version),
    );
    Ok(line.trim_end().to_owned())
}

fn as_json(version: &Version) -> Result<String, Failure> {
    let value = match &version.record {
        Some(record) => serde_json::from_str(&json::record_to_string(record)?)
            .expect("invariant: it is valid JSON"),
        None => Value::Null,
    };
    let line = json!({
        "seq": version.seq, "time_ms": version.time_ms, "device": version.device.to_string(),
        "op": version.what, "verdict": verdict_text(version), "position": version.position,
        "value": value,
    });
    Ok(line.to_string())
}
