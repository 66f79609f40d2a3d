//! `sync`: one catch-up in both directions, and what it did.

use std::collections::{BTreeMap, BTreeSet};
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
use super::transfers;

pub(super) fn sync(args: &Sync) -> Result<(), Failure> {
    must_exist(&args.store, &args.link)?;
    let session = Session::open(&args.store, &args.link)?;
    let known: BTreeSet<String> =
        conflicts(&session.ws.read()?)?.into_iter().map(|(key, _)| key).collect();
    let before = transfers::uploads(&session)?;
    let mut connection = session.connect_for_sure()?;
    let timeout = args.link.timeout;
    let report = connection.wait_caught_up(&session, timeout, &mut |_| {})?;
    // What is not uploaded does not make less of the records that came.
    let uploads = transfers::wait_uploads(&session, &mut connection, timeout, &before);
    let uploaded = uploads.as_ref().copied().unwrap_or(0);
    drop(connection);
    let mut fresh = conflicts(&session.ws.read()?)?;
    fresh.retain(|(key, _)| !known.contains(key));
    let people = People::read(&session.ws.read()?, session.db.device())?;
    let line = if args.store.json {
        let conflicts: Result<Vec<_>, Failure> =
            fresh.iter().map(|(_, record)| output::value_of(record)).collect();
        output::json_line(&as_json(&report, uploaded, &conflicts?)).into_owned()
    } else {
        text(&report, uploaded, &fresh, &people)
    };
    // A reader that went away must not hide that something was refused.
    let printed = writeln!(std::io::stdout().lock(), "{line}");
    session.close()?;
    uploads?;
    match report.refused {
        0 => Ok(printed?),
        refused => Err(Failure::failed(format!(
            "{} refused: `lastword dead-letters` says why",
            output::batches(refused)
        ))),
    }
}

fn conflicts(view: &WorkspaceView) -> Result<Vec<(String, Record)>, Failure> {
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let rows = view.range(&TableName::new("_conflicts")?, all, false, usize::MAX)?;
    Ok(rows.into_iter().map(|row| (row.key.as_str().to_owned(), row.record)).collect())
}

fn as_json(
    report: &SyncReport,
    uploaded: u64,
    conflicts: &[Box<serde_json::value::RawValue>],
) -> String {
    let line = json!({
        "sent_batches": report.sent_batches, "applied": report.applied,
        "superseded": report.superseded, "refused": report.refused,
        "received": report.received, "cursor": report.cursor, "uploaded_files": uploaded,
        "seconds": report.elapsed.as_secs_f64(), "conflicts": conflicts,
    });
    line.to_string()
}

fn text(
    report: &SyncReport,
    uploaded: u64,
    conflicts: &[(String, Record)],
    people: &People,
) -> String {
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
    if uploaded > 0 {
        line.push_str(&format!("; uploaded {}", output::counted(uploaded, "file", "files")));
    }
    if !conflicts.is_empty() {
        let count = output::counted(conflicts.len() as u64, "conflict", "conflicts");
        let told: Vec<String> = conflicts
            .iter()
            .map(|(_, record)| output::plain(&conflict_text(record, people)).into_owned())
            .collect();
        let (joint, between) = if told.len() == 1 { (" ", "; ") } else { ("\n  ", "\n  ") };
        line = format!("{line}; {count}:{joint}{}", told.join(between));
    }
    line
}

/// Whose each device is, as far as this device knows.
pub(super) struct People {
    own: DeviceId,
    users: BTreeMap<String, String>,
}

impl People {
    pub(super) fn read(view: &WorkspaceView, own: DeviceId) -> Result<Self, Failure> {
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let rows = view.range(&TableName::new("_devices")?, all, false, usize::MAX)?;
        let users = rows.into_iter().filter_map(|row| match row.record.get("user") {
            Some(Value::Text(user)) => Some((row.key.as_str().to_owned(), user)),
            _ => None,
        });
        Ok(Self { own, users: users.collect() })
    }

    /// `your`, or who made it on which device.
    pub(super) fn maker(&self, what: &str, device: DeviceId) -> String {
        match (device, self.users.get(&device.to_string())) {
            (device, _) if device == self.own => format!("your {what}"),
            (DeviceId::AUTHORITY, _) => format!("the server's {what}"),
            (device, Some(user)) => format!("the {what} by {user}, device {}", device.short()),
            (device, None) => format!("the {what} by device {}", device.short()),
        }
    }
}

/// `notes/n1 your edit (seq 4) overwrote the edit by ann, device ab12cd34 (seq 3)`.
pub(super) fn conflict_text(record: &Record, people: &People) -> String {
    let text = |name: &str| match record.get(name) {
        Some(Value::Text(text)) => text,
        Some(value) => json::value_to_string(&value),
        None => "?".to_owned(),
    };
    let deletes = |name: &str| record.get(name) == Some(Value::Bool(true));
    let side = |prefix: &str| {
        let what = if deletes(&format!("{prefix}_deletes")) { "delete" } else { "edit" };
        let seq = text(&format!("{prefix}_seq"));
        if seq == "0" {
            return "a version that is no longer known".to_owned();
        }
        let device = DeviceId::parse(&text(&format!("{prefix}_device"))).unwrap_or_default();
        format!("{} (seq {seq})", people.maker(what, device))
    };
    let (winner, loser) = (side("winning"), side("losing"));
    let name = format!("{}/{}", text("table"), text("key"));
    match text("reason").as_str() {
        "overwritten" => format!("{name} {winner} overwrote {loser}"),
        reason => format!("{name} {loser} gave way to {winner}: {reason}"),
    }
}
