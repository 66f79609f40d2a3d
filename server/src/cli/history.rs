//! `history`: the versions of one record, newest first.

use std::io::Write as _;

use lastword::Version;
use lastword::core::id::{DeviceId, Key, TableName, WorkspaceName};
use lastword::core::json;
use lastword::core::stamp::Verdict;
use serde_json::{Value, json};

use super::args::OfRecord;
use super::failure::Failure;
use super::output;
use super::session::{Opened, open_any};

pub(super) fn history(args: &OfRecord) -> Result<(), Failure> {
    let (table, key) = (TableName::new(&args.table)?, Key::new(&args.key)?);
    let opened = open_any(&args.store, &args.link)?;
    let (found, own) = match &opened {
        Opened::Device(session) => (session.ws.record_history(&table, &key)?, session.db.device()),
        Opened::Server(authority) => {
            let workspace = WorkspaceName::new(&args.store.workspace)?;
            (authority.history(&workspace, &table, &key)?, DeviceId::AUTHORITY)
        }
    };
    let versions = found.versions;
    if versions.is_empty() {
        return Err(Failure::failed(format!("nothing is known of {table}/{key} here")));
    }
    let mut out = std::io::stdout().lock();
    for version in &versions {
        let line = match args.store.json {
            true => output::json_line(&as_json(version)?).into_owned(),
            false => output::plain(&as_text(version, own)?).into_owned(),
        };
        writeln!(out, "{line}")?;
    }
    match (found.older_folded, args.store.json) {
        (true, true) => writeln!(out, "{}", json!({ "older_folded": true }))?,
        (true, false) => writeln!(out, "older versions were folded away")?,
        (false, _) => {}
    }
    match opened {
        Opened::Device(session) => session.close(),
        Opened::Server(authority) => Ok(authority.close()?),
    }
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
