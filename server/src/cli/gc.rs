//! `gc`: files that nothing names, and what only they needed.

use std::io::Write as _;

use indicatif::{HumanBytes, HumanCount};
use lastword::{CollectOptions, Collected, Database, Fate};
use serde_json::json;

use super::args::Gc;
use super::failure::Failure;
use super::output;

pub(super) fn gc(args: &Gc) -> Result<(), Failure> {
    if !args.store.data.join("LOCK").exists() {
        let dir = args.store.data.display();
        return Err(Failure::failed(format!(
            "no store in {dir}: name the --data directory of one"
        )));
    }
    let db = Database::open(&args.store.data)?;
    let defaults = CollectOptions::default();
    let options = CollectOptions {
        grace: args.grace.unwrap_or(defaults.grace),
        staged: args.staged.unwrap_or(defaults.staged),
        dry_run: args.dry_run,
        force: args.force,
    };
    let collected = db.workspace(&args.store.workspace)?.files().collect(options)?;
    let mut out = std::io::stdout().lock();
    if args.dry_run {
        for (hash, size, fate) in &collected.files {
            if args.store.json {
                let line = json!({
                    "hash": hash.to_string(), "size_bytes": size, "stays": *fate != Fate::Dropped,
                    "why": why(*fate),
                });
                writeln!(out, "{line}")?;
            } else {
                writeln!(out, "{hash} {}: {}", HumanBytes(*size), why(*fate))?;
            }
        }
    }
    if args.store.json {
        writeln!(out, "{}", as_json(&collected, args.dry_run))?;
    } else {
        writeln!(out, "{}", as_text(&collected, args.dry_run))?;
    }
    Ok(db.close()?)
}

fn why(fate: Fate) -> &'static str {
    match fate {
        Fate::Named => "stays, something names it",
        Fate::JustStored => "stays, it was stored a short while ago",
        Fate::Condemned => "nothing names it: condemned",
        Fate::InGrace => "condemned, its grace is not over",
        Fate::Spared => "stays, something names it again",
        Fate::Dropped => "goes, nothing has named it since it was condemned",
    }
}

fn count(collected: &Collected, fate: Fate) -> u64 {
    collected.files.iter().filter(|(_, _, of)| *of == fate).count() as u64
}

fn as_text(collected: &Collected, dry_run: bool) -> String {
    let totals = &collected.totals;
    let verb = if dry_run { "would go" } else { "went" };
    format!(
        "{} of {}; {verb}: {} of {}, {} ({} of {}), {}; condemned: {}, {}",
        output::counted(collected.files.len() as u64, "file", "files"),
        HumanBytes(totals.all_bytes),
        output::counted(count(collected, Fate::Dropped), "file", "files"),
        HumanBytes(totals.dropped_bytes),
        output::counted(totals.dropped_chunks, "chunk", "chunks"),
        HumanBytes(totals.freed_bytes),
        HumanBytes(totals.stored_bytes),
        output::counted(collected.removed_packs, "pack", "packs"),
        output::counted(count(collected, Fate::Condemned), "file", "files"),
        HumanCount(totals.condemned_chunks).to_string() + " chunks",
    )
}

fn as_json(collected: &Collected, dry_run: bool) -> serde_json::Value {
    let totals = &collected.totals;
    json!({
        "dry_run": dry_run, "files": collected.files.len(), "all_bytes": totals.all_bytes,
        "dropped_files": count(collected, Fate::Dropped), "dropped_bytes": totals.dropped_bytes,
        "dropped_chunks": totals.dropped_chunks, "freed_bytes": totals.freed_bytes,
        "stored_bytes": totals.stored_bytes, "removed_packs": collected.removed_packs,
        "condemned_files": count(collected, Fate::Condemned),
        "condemned_chunks": totals.condemned_chunks,
    })
}
