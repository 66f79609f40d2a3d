//! `dead-letters`: the refused batches that this device keeps, and what becomes of them.

use std::io::Write as _;

use lastword::core::id::{BatchId, Key, TableName};
use lastword::core::stamp::Decision;
use lastword::{DeadLetter, Receipt, Settled};
use serde_json::json;

use super::args::{DeadLetters, LetterAction};
use super::failure::Failure;
use super::output;
use super::records;
use super::session::{Fate, Opened, Session, held_text, must_exist, open_any};

pub(super) fn letters(args: &DeadLetters) -> Result<(), Failure> {
    match (args.action, &args.unit) {
        (Some(action), Some(unit)) => {
            if (action == LetterAction::Edit) != args.value.is_some() {
                return Err(Failure::usage("only edit takes a record: edit UNIT TABLE KEY VALUE"));
            }
            let bad = || Failure::usage(format!("{unit:?} is no batch id: 32 hexadecimal digits"));
            obey(args, action, BatchId::parse(unit).ok_or_else(bad)?)
        }
        _ => list(args),
    }
}

fn obey(args: &DeadLetters, action: LetterAction, unit: BatchId) -> Result<(), Failure> {
    must_exist(&args.store, &args.link)?;
    let session = Session::open(&args.store, &args.link)?;
    if action == LetterAction::Discard {
        let discarded = session.ws.discard_dead_letter(unit)?;
        let line = match args.store.json {
            true => json!({ "unit": unit.to_string(), "discarded": discarded }).to_string(),
            false => format!("discarded {} of unit {unit}", output::batches(discarded)),
        };
        writeln!(std::io::stdout().lock(), "{line}")?;
        return session.close();
    }
    // Connected first, so that what waits is not sent with a connection of its own.
    let connection = session.connect()?;
    let receipts = match action {
        LetterAction::Edit => edit(args, &session, unit)?,
        _ => session.ws.retry_dead_letter(unit)?,
    };
    let fate = match receipts.last() {
        Some(last) => session.fate(connection, last)?,
        None => Fate::Waiting("another command has sent them".into()),
    };
    let told = tell(args, &session, unit, &receipts, &fate);
    session.close()?;
    told
}

fn edit(args: &DeadLetters, session: &Session, unit: BatchId) -> Result<Vec<Receipt>, Failure> {
    let (Some(table), Some(key), Some(value)) = (&args.table, &args.key, &args.value) else {
        return Err(Failure::usage("edit needs UNIT TABLE KEY VALUE"));
    };
    let (table, key) = (TableName::new(table)?, Key::new(key)?);
    let value = records::record_of(value)?;
    let named = format!("{table}/{key}");
    let letters = session.ws.dead_letters()?;
    let mut of_unit = letters.iter().filter(|letter| letter.unit == unit).peekable();
    if of_unit.peek().is_some() && !of_unit.any(|letter| letter.records.contains(&named)) {
        return Err(Failure::failed(format!("unit {unit} does not name {named}")));
    }
    let edited = session.ws.edit_dead_letter(unit, |its_table, its_key, record| {
        if (its_table, its_key) == (&table, &key) {
            *record = value.clone();
        }
        Ok(())
    });
    Ok(edited?)
}

fn tell(
    args: &DeadLetters,
    session: &Session,
    unit: BatchId,
    receipts: &[Receipt],
    fate: &Fate,
) -> Result<(), Failure> {
    let refused = receipts.iter().find_map(|receipt| match receipt.verdict() {
        Some(Settled::Decided(Decision::Refused { code, message, .. })) => Some((code, message)),
        _ => None,
    });
    let (sent, waiting) = (receipts.len() as u64, session.waiting()?);
    let outbox = output::batches(waiting);
    let text = format!("{} of unit {unit} in the outbox again", output::batches(sent));
    let (state, text, failure) = match (refused, fate) {
        (Some((code, message)), _) => {
            let refused = format!("unit {unit} refused again ({code}): {message}");
            ("refused", text, Some(Failure::failed(refused)))
        }
        (None, Fate::Decided(_) | Fate::Local) => ("decided", format!("{text}, and decided"), None),
        (None, Fate::Waiting(why)) => ("waiting", format!("{text}; outbox {outbox}; {why}"), None),
        (None, Fate::Unreachable(why)) => {
            let failure = Failure::unreachable(format!("{text}; outbox {outbox}; {why}"));
            ("waiting", text, Some(failure))
        }
        (None, Fate::Held(why)) => {
            let held = Failure::failed(format!("{text}, not sent: {}", held_text(why, &outbox)));
            ("waiting", text, Some(held))
        }
    };
    let line = json!({
        "unit": unit.to_string(), "sent_again": sent, "state": state, "outbox": waiting,
    });
    let line = if args.store.json { line.to_string() } else { text };
    let printed = writeln!(std::io::stdout().lock(), "{line}");
    // A reader that went away must not hide what became of the unit.
    failure.map_or(Ok(printed?), Err)
}

fn list(args: &DeadLetters) -> Result<(), Failure> {
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
