//! `dead-letters`: the refused batches that this device keeps, and why.

use std::io::Write as _;

use lastword::DeadLetter;
use serde_json::json;

use super::args::DeadLetters;
use super::failure::Failure;
use super::output;
use super::session::{Opened, open_any};

pub(super) fn letters(args: &DeadLetters) -> Result<(), Failure> {
    let Opened::Device(session) = open_any(&args.store, &args.link)? else {
        let message = "this directory is a server's: a refused batch is kept by its device";
        return Err(Failure::usage(message));
    };
    let letters = session.ws.dead_letters()?;
    let mut out = std::io::stdout().lock();
    for letter in &letters {
        match args.store.json {
            true => writeln!(out, "{}", output::json_line(&as_json(letter)))?,
            false => writeln!(out, "{}", output::plain(&as_text(letter)))?,
        }
    }
    if letters.is_empty() && !args.store.json {
        writeln!(out, "no dead letters in workspace {}", session.ws.name())?;
    }
    session.close()
}

/// `12:34:56 batch 5f1c..: records too large (invalid); notes/n1, notes/n2`.
fn as_text(letter: &DeadLetter) -> String {
    /// A batch can name hundreds of records.
    const SHOWN: usize = 4;
    let DeadLetter { batch_id, unit, code, message, time_ms, records, .. } = letter;
    let mut names = records.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = records.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        names = format!("{names} and {more} more");
    }
    let with = match batch_id == unit {
        true => String::new(),
        false => format!("; went down with batch {unit}, which it built on"),
    };
    let at = output::clock(*time_ms);
    format!("{at} batch {batch_id}: {names}; {message} ({code}){with}")
}

fn as_json(letter: &DeadLetter) -> String {
    let line = json!({
        "batch_id": letter.batch_id.to_string(), "unit": letter.unit.to_string(),
        "workspace": letter.workspace, "code": letter.code, "why": letter.message,
        "time_ms": letter.time_ms, "records": letter.records,
    });
    line.to_string()
}
