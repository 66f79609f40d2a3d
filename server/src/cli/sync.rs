//! `sync`: one catch-up in both directions, and what it did.

use std::collections::BTreeSet;
use std::io::Write as _;

use indicatif::HumanCount;
use lastword::core::id::{DeviceId, TableName};
use lastword::core::json;
use lastword::core::value::{Record, Value};
use lastword::{SyncReport, WorkspaceView};
use serde_json::json;

use super::args::Sync;
use super::failure::Failure;
use super::output;
use super::session::{Session, must_exist};

pub(super) fn sync(args: &Sync) -> Result<(), Failure> {
    must_exist(&args.store, &args.link)?;
    let session = Session::open(&args.store, &args.link)?;
    let known: BTreeSet<String> =
        conflicts(&session.ws.read()?)?.into_iter().map(|(key, _)| key).collect();
    let report = session.catch_up()?;
    let mut fresh = conflicts(&session.ws.read()?)?;
    fresh.retain(|(key, _)| !known.contains(key));
    let device = session.db.device();
    let mut out = std::io::stdout().lock();
    if args.store.json {
        let conflicts: Result<Vec<_>, Failure> =
            fresh.iter().map(|(_, record)| output::value_of(record)).collect();
        writeln!(out, "{}", as_json(&report, &conflicts?))?;
    } else {
        writeln!(out, "{}", text(&report, &fresh, device))?;
    }
    session.close()?;
    match report.refused {
        0 => Ok(()),
        refused => Err(Failure::failed(format!(
            "{} refused: `lastword explain` and table _dead_letters say why",
            output::batches(refused)
        ))),
    }
}

fn conflicts(view: &WorkspaceView) -> Result<Vec<(String, Record)>, Failure> {
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let rows = view.range(&TableName::new("_conflicts")?, all, false, usize::MAX)?;
    Ok(rows.into_iter().map(|row| (row.key.as_str().to_owned(), row.record)).collect())
}

fn as_json(report: &SyncReport, conflicts: &[Box<serde_json::value::RawValue>]) -> String {
    let line = json!({
        "sent_batches": report.sent_batches, "applied": report.applied,
        "superseded": report.superseded, "refused": report.refused,
        "received": report.received, "cursor": report.cursor,
        "seconds": report.elapsed.as_secs_f64(), "conflicts": conflicts,
    });
    line.to_string()
}

fn text(report: &SyncReport, conflicts: &[(String, Record)], device: DeviceId) -> String {
    let mut verdicts = Vec::new();
    for (count, word) in [
        (report.applied, "applied"),
        (report.superseded, "superseded"),
        (report.refused, "refused"),
    ] {
        if count > 0 {
            verdicts.push(format!("{} {word}", HumanCount(count)));
        }
    }
    let verdicts =
        if verdicts.is_empty() { String::new() } else { format!(" ({})", verdicts.join(", ")) };
    let mut line = format!(
        "sent {}{verdicts}, received {}, at seq {}",
        output::batches(report.sent_batches),
        HumanCount(report.received),
        report.cursor
    );
    if !conflicts.is_empty() {
        let count = output::counted(conflicts.len() as u64, "conflict", "conflicts");
        let told: Vec<String> =
            conflicts.iter().map(|(_, record)| conflict_text(record, device)).collect();
        let (joint, between) = if told.len() == 1 { (" ", "; ") } else { ("\n  ", "\n  ") };
        line = format!("{line}; {count}:{joint}{}", told.join(between));
    }
    line
}

/// `notes/n1 your edit (seq 4) overwrote that of device ab12cd34 (seq 3)`.
pub(super) fn conflict_text(record: &Record, device: DeviceId) -> String {
    let text = |name: &str| match record.get(name) {
        Some(Value::Text(text)) => text,
        Some(value) => json::value_to_string(&value),
        None => "?".to_owned(),
    };
    let deletes = |name: &str| record.get(name) == Some(Value::Bool(true));
    let side = |prefix: &str| {
        let writer = text(&format!("{prefix}_device"));
        let what = if deletes(&format!("{prefix}_deletes")) { "delete" } else { "edit" };
        let seq = text(&format!("{prefix}_seq"));
        match DeviceId::parse(&writer) {
            Some(id) if id == device => format!("your {what} (seq {seq})"),
            Some(id) if id == DeviceId::AUTHORITY => "a version that is gone".to_owned(),
            _ => format!("{what} of device {} (seq {seq})", writer.get(..8).unwrap_or(&writer)),
        }
    };
    let (winner, loser) = (side("winning"), side("losing"));
    let name = format!("{}/{}", text("table"), text("key"));
    match text("reason").as_str() {
        "overwritten" => format!("{name} {winner} overwrote {loser}"),
        reason => format!("{name} {loser} gave way to {winner}: {reason}"),
    }
}
