//! `backup`: a copy of a store, made by this process, or by the server that has it open.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar};
use lastword::Error;
use lastword::store::LockError;
use serde_json::json;

use crate::control::{self, Answer, Ask, ControlError, Made};

use super::args::Backup;
use super::failure::Failure;
use super::output;

pub(super) fn backup(args: &Backup) -> Result<(), Failure> {
    let (begun, bar, out) = (Instant::now(), copying(), absolute(&args.out)?);
    let copied = lastword::backup(&args.data, &out, &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    });
    bar.finish_and_clear();
    match copied {
        Err(Error::Lock(lock)) if is_served(&lock, &args.data) => of_running(args),
        copied => tell(args, &out, &copied?.into(), begun.elapsed(), false),
    }
}

/// By the server that runs.
pub(super) fn of_running(args: &Backup) -> Result<(), Failure> {
    let (begun, bar, out) = (Instant::now(), copying(), absolute(&args.out)?);
    let ask = Ask::Backup { out: out.clone() };
    let answer = control::ask(&args.data, &ask, &mut |answer| {
        if let Answer::Progress { done_bytes, total_bytes } = answer {
            bar.set_length(total_bytes);
            bar.set_position(done_bytes);
        }
    });
    bar.finish_and_clear();
    match answer? {
        Answer::Done(made) => tell(args, &out, &made, begun.elapsed(), true),
        other => Err(unexpected(&other)),
    }
}

/// The server is of another release.
pub(super) fn unexpected(answer: &Answer) -> Failure {
    ControlError::Broken { reason: format!("it answered {answer:?}") }.into()
}

pub(super) fn is_served(lock: &LockError, data: &Path) -> bool {
    matches!(lock, LockError::Locked { .. }) && data.join(control::NAME).exists()
}

/// The server runs in a directory of its own.
fn absolute(out: &Path) -> Result<PathBuf, Failure> {
    Ok(std::path::absolute(out)?)
}

fn copying() -> ProgressBar {
    let bar = output::bytes_progress();
    bar.set_message("copying");
    bar
}

fn tell(
    args: &Backup,
    dir: &Path,
    made: &Made,
    elapsed: Duration,
    running: bool,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let line = json!({
            "out": dir.display().to_string(), "files": made.files, "bytes": made.bytes,
            "copied_bytes": made.copied_bytes, "end": made.end, "created_ms": made.created_ms,
            "by_running_server": running,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let copied = match made.copied_bytes == made.bytes {
        true => String::new(),
        false => format!(", {} of them copied now", HumanBytes(made.copied_bytes)),
    };
    let line = format!(
        "{} is in {}: {}, {}{copied}, log up to position {} ({})",
        args.data.display(),
        args.out.display(),
        output::counted(made.files, "file", "files"),
        HumanBytes(made.bytes),
        made.end,
        output::took(elapsed)
    );
    writeln!(out, "{}", output::plain(&line))?;
    Ok(())
}
