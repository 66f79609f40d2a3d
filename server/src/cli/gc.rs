//! `gc` and `admin gc`: files that nothing names, and what only they needed.

use std::io::Write as _;

use indicatif::{HumanBytes, HumanCount};
use lastword::CollectOptions;

use super::args::{AdminGc, Gc, GcOptions};
use super::backup::unexpected;
use super::failure::Failure;
use super::output;
use super::session::{Opened, open_as_it_is};
use crate::control::{self, Answer, Ask, FileFate, GcTotals};

/// Collects in a directory that nobody else has open, a device's or a server's.
pub(super) fn gc(args: &Gc) -> Result<(), Failure> {
    let asked = asked(&args.options, &args.store.workspace);
    let options = CollectOptions {
        grace: std::time::Duration::from_secs(asked.grace_s),
        staged: std::time::Duration::from_secs(asked.staged_s),
        dry_run: asked.dry_run,
        force: asked.force,
    };
    let collected = match open_as_it_is(&args.store, &args.link)? {
        Opened::Device(session) => {
            let collected = session.ws.files().collect(options)?;
            session.close()?;
            collected
        }
        Opened::Server(authority) => {
            let collected = asked.run(&authority)?;
            authority.close()?;
            collected
        }
    };
    let files = FileFate::all(&collected);
    let totals = GcTotals::of(&collected, asked.dry_run);
    print(if asked.dry_run { &files } else { &[] }, &totals, args.store.json)
}

/// Has a running server collect.
pub(super) fn admin(args: &AdminGc) -> Result<(), Failure> {
    let ask = Ask::Gc(asked(&args.options, &args.workspace));
    let mut files = Vec::new();
    let last = control::ask(&args.server.data, &ask, &mut |answer| {
        if let Answer::File(file) = answer {
            files.push(file);
        }
    })?;
    match last {
        Answer::Collected(totals) => print(&files, &totals, args.server.json),
        other => Err(unexpected(&other)),
    }
}

fn asked(options: &GcOptions, workspace: &str) -> control::Gc {
    let defaults = CollectOptions::default();
    control::Gc {
        workspace: workspace.to_owned(),
        grace_s: options.grace.unwrap_or(defaults.grace).as_secs(),
        staged_s: options.staged.unwrap_or(defaults.staged).as_secs(),
        dry_run: options.dry_run,
        force: options.force,
    }
}

fn print(files: &[FileFate], totals: &GcTotals, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let as_json = |error: serde_json::Error| Failure::failed(error.to_string());
    for file in files {
        let line = match json {
            true => serde_json::to_string(file).map_err(as_json)?,
            false => {
                let size = HumanBytes(file.size_bytes);
                let at = file.provider.as_ref().map_or_else(String::new, |id| format!(" at {id}"));
                output::plain(&format!("{} {size}{at}: {}", file.hash, file.why)).into_owned()
            }
        };
        writeln!(out, "{line}")?;
    }
    let line = match json {
        true => serde_json::to_string(totals).map_err(as_json)?,
        false => as_text(totals),
    };
    writeln!(out, "{line}")?;
    Ok(())
}

fn as_text(totals: &GcTotals) -> String {
    let verb = if totals.dry_run { "would go" } else { "went" };
    format!(
        "{} of {}; {verb}: {} of {}, {} ({} of {}), {}; condemned: {}, {}",
        output::counted(totals.files, "file", "files"),
        HumanBytes(totals.all_bytes),
        output::counted(totals.dropped_files, "file", "files"),
        HumanBytes(totals.dropped_bytes),
        output::counted(totals.dropped_chunks, "chunk", "chunks"),
        HumanBytes(totals.freed_bytes),
        HumanBytes(totals.stored_bytes),
        output::counted(totals.removed_packs, "pack", "packs"),
        output::counted(totals.condemned_files, "file", "files"),
        HumanCount(totals.condemned_chunks).to_string() + " chunks",
    ) + &objects_text(totals)
}

/// What object stores keep, if any do.
fn objects_text(totals: &GcTotals) -> String {
    if totals.objects == 0 {
        return String::new();
    }
    let deleted = if totals.dry_run { "would be deleted" } else { "deleted" };
    format!(
        "; {} at object stores: {deleted} {}, condemned {}",
        output::counted(totals.objects, "file", "files"),
        HumanCount(totals.deleted_objects),
        HumanCount(totals.condemned_objects),
    )
}
