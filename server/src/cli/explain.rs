//! `explain`: why a record is as it is and what it waits for.

use std::io::Write as _;

use lastword::core::id::{Key, TableName};
use lastword::core::stamp::Verdict;
use lastword::{Explanation, ShownState, Waiting};
use serde_json::json;

use super::args::OfRecord;
use super::failure::Failure;
use super::output;
use super::session::{Opened, Session, open_any};
use super::sync::{People, conflict_text};

pub(super) fn explain(args: &OfRecord) -> Result<(), Failure> {
    let (table, key) = (TableName::new(&args.table)?, Key::new(&args.key)?);
    let session = match open_any(&args.store, &args.link)? {
        Opened::Device(session) => session,
        Opened::Server(_) => {
            return Err(Failure::usage(
                "this directory is a server's: `lastword history` shows what it decided",
            ));
        }
    };
    let explanation = session.ws.explain(&table, &key)?;
    let mut out = std::io::stdout().lock();
    if args.store.json {
        writeln!(out, "{}", output::json_line(&as_json(&explanation)))?;
    } else {
        for line in as_text(&session, &explanation)? {
            writeln!(out, "{}", output::plain(&line))?;
        }
    }
    session.close()
}

fn as_text(session: &Session, told: &Explanation) -> Result<Vec<String>, Failure> {
    let name = format!("{}/{}", told.table, told.key);
    let state = match told.shown {
        ShownState::Unknown => "is not known here",
        ShownState::Live => "is shown here",
        ShownState::Deleted => "is deleted here; `lastword undelete` brings it back",
    };
    let mut lines = vec![format!("{name} {state}")];
    let view = session.ws.read()?;
    let people = People::read(&view, session.db.device())?;
    lines.push(match &told.server {
        None => "  server   has no version of it, as far as this device knows".to_owned(),
        Some(version) => {
            let what = if version.deleted { "delete" } else { "write" };
            let maker = people.maker(what, version.writer);
            let at = output::clock(version.time_ms);
            format!("  server   has seq {}: {maker}, at {at}", version.seq)
        }
    });
    lines.extend(told.waiting.iter().map(|own| waiting_text(own, session)));
    for letter in &told.dead_letters {
        let when = output::ago(letter.time_ms);
        lines.push(format!(
            "  refused  batch {}: {} ({}), {when}",
            letter.batch_id, letter.message, letter.code
        ));
    }
    let conflicts = TableName::new("_conflicts")?;
    for key in &told.conflicts {
        if let Some(shown) = view.get_record(&conflicts, &Key::new(key)?)? {
            lines.push(format!("  conflict {}", conflict_text(&shown.record, &people)));
        }
    }
    if told.waiting.is_empty() && told.dead_letters.is_empty() {
        lines.push("  nothing of it waits".to_owned());
    }
    Ok(lines)
}

fn waiting_text(own: &Waiting, session: &Session) -> String {
    let written = output::clock(own.written_ms);
    match &own.verdict {
        Some(Verdict::Superseded { by, reason }) => format!(
            "  written  {written} by this device; decided: superseded by seq {by} ({reason}); \
             leaves the outbox with the next sync"
        ),
        Some(Verdict::Applied { .. }) => format!(
            "  written  {written} by this device; decided: applied; leaves the outbox with the \
             next sync"
        ),
        None => {
            let next = match session.server() {
                Some(url) => format!("will be sent when {url} answers"),
                None => "will be sent once a server is known (--server URL --token TOKEN)".into(),
            };
            format!(
                "  written  {written} by this device, durable; outbox position {} of {}, no \
                 verdict yet\n  next     {next}",
                own.place, own.of
            )
        }
    }
}

fn as_json(told: &Explanation) -> String {
    let shown = match told.shown {
        ShownState::Unknown => "unknown",
        ShownState::Live => "live",
        ShownState::Deleted => "deleted",
    };
    let server = told.server.map(|version| {
        json!({
            "seq": version.seq, "time_ms": version.time_ms,
            "device": version.writer.to_string(), "deleted": version.deleted,
        })
    });
    let waiting: Vec<_> = told
        .waiting
        .iter()
        .map(|own| {
            let verdict = own.verdict.as_ref().map(|verdict| match verdict {
                Verdict::Applied { .. } => "applied".to_owned(),
                Verdict::Superseded { reason, .. } => format!("superseded: {reason}"),
            });
            json!({
                "batch_id": own.batch_id.to_string(), "counter": own.counter,
                "written_ms": own.written_ms, "place": own.place, "of": own.of,
                "verdict": verdict,
            })
        })
        .collect();
    let letters: Vec<_> = told
        .dead_letters
        .iter()
        .map(|letter| {
            json!({
                "batch_id": letter.batch_id.to_string(), "unit": letter.unit.to_string(),
                "code": letter.code, "why": letter.message, "time_ms": letter.time_ms,
            })
        })
        .collect();
    let line = json!({
        "table": told.table.as_str(), "key": told.key.as_str(), "shown": shown,
        "server": server, "waiting": waiting, "dead_letters": letters,
        "conflicts": told.conflicts,
    });
    line.to_string()
}
