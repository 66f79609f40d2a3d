//! Waiting for files that are on their way, with progress for people.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lastword::{BlobHash, Direction, Transfer, TransferState};

use super::failure::Failure;
use super::output;
use super::session::{Connection, Session};

/// How long a transfer that cannot go on is waited for, unless the user said otherwise.
const OUTAGE: Duration = Duration::from_secs(60);
/// How long rows are waited for that say what the server has.
const ROWS_WAIT: Duration = Duration::from_secs(1);
/// How often the wait looks up to show its progress.
const LOOK: Duration = Duration::from_millis(100);

/// The files that are to be uploaded.
pub(super) fn uploads(session: &Session) -> Result<BTreeSet<String>, Failure> {
    Ok(pending(session, &is_upload)?.into_iter().map(|transfer| transfer.hash).collect())
}

fn is_upload(transfer: &Transfer) -> bool {
    transfer.direction == Direction::Upload
}

/// Waits until every upload that waits has ended; answers how many of `before` are at the server
/// now. One that has failed does not keep the others from going on; it is told at the end.
pub(super) fn wait_uploads(
    session: &Session,
    connection: &mut Connection,
    timeout: Option<Duration>,
    before: &BTreeSet<String>,
) -> Result<u64, Failure> {
    wait(session, connection, timeout, "uploading", &is_upload)?;
    let mut uploaded = before.clone();
    for transfer in session.ws.files().transfers()? {
        uploaded.remove(&transfer.hash);
    }
    wait_rows(session, &uploaded)?;
    Ok(uploaded.len() as u64)
}

/// Waits a moment for the rows to say what is at the server: that comes in the stream of records,
/// and whoever lists the files next should read it.
fn wait_rows(session: &Session, uploaded: &BTreeSet<String>) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < ROWS_WAIT {
        let view = session.ws.read()?;
        let files = session.ws.files().list()?;
        if files.iter().all(|file| file.is_uploaded || !uploaded.contains(&file.hash)) {
            break;
        }
        // A page is a write, so it wakes.
        let _ = session.ws.wait_after(&view, Some(LOOK));
    }
    Ok(())
}

/// Downloads a file, or what of it is damaged, and waits until it is here.
pub(super) fn download(
    session: &Session,
    connection: &mut Connection,
    timeout: Option<Duration>,
    hash: &BlobHash,
) -> Result<(), Failure> {
    session.ws.files().fetch_again(hash)?;
    let text = hash.to_string();
    let is_it =
        |transfer: &Transfer| transfer.direction == Direction::Download && transfer.hash == text;
    wait(session, connection, timeout, "downloading", &is_it)
}

fn pending(session: &Session, of: &dyn Fn(&Transfer) -> bool) -> Result<Vec<Transfer>, Failure> {
    let mut all = session.ws.files().transfers()?;
    all.retain(|transfer| {
        of(transfer) && matches!(transfer.state, TransferState::Queued | TransferState::Running)
    });
    Ok(all)
}

fn wait(
    session: &Session,
    connection: &mut Connection,
    timeout: Option<Duration>,
    what: &'static str,
    of: &dyn Fn(&Transfer) -> bool,
) -> Result<(), Failure> {
    let bar = output::bytes_progress();
    bar.set_message(what);
    let patience = timeout.unwrap_or(OUTAGE);
    let (mut alive, mut done) = (Instant::now(), None);
    loop {
        let view = session.ws.read()?;
        let pending = pending(session, of)?;
        if pending.is_empty() {
            bar.finish_and_clear();
            return no_failure(session, of);
        }
        let total: u64 = pending.iter().map(|one| one.bytes_total).sum();
        let now: u64 = pending.iter().map(|one| one.bytes_done).sum();
        bar.set_length(total);
        bar.set_position(now);
        let is_reached = connection.is_reached_now(session)?;
        if done != Some((now, pending.len())) {
            (alive, done) = (Instant::now(), Some((now, pending.len())));
        }
        // Comparing a large file with its name takes a while in which nothing moves.
        let is_running =
            is_reached && pending.iter().any(|one| one.state == TransferState::Running);
        if alive.elapsed() >= patience && !(is_running && timeout.is_none()) {
            bar.finish_and_clear();
            let why = pending.iter().find_map(|one| one.last_error.clone());
            let why = why.unwrap_or_else(|| "no server was reached".into());
            let left = output::counted(pending.len() as u64, "file", "files");
            return Err(Failure::unreachable(format!(
                "{what} {left}: {why}; what was carried stays, and `lastword sync` goes on with it"
            )));
        }
        // Progress is a write, so it wakes.
        let _ = session.ws.wait_after(&view, Some(LOOK));
    }
}

/// The first transfer that has failed, as the failure of the command.
fn no_failure(session: &Session, of: &dyn Fn(&Transfer) -> bool) -> Result<(), Failure> {
    let all = session.ws.files().transfers()?;
    let failed = all.iter().find(|one| of(one) && one.state == TransferState::Failed);
    let Some(Transfer { hash, direction, last_error, .. }) = failed else { return Ok(()) };
    let why = last_error.as_deref().unwrap_or("no reason is known");
    Err(Failure::failed(format!(
        "{direction} of {hash}: {why}; once that has changed, run `lastword files resume {hash}`, \
         or `lastword files cancel {hash}`"
    )))
}
