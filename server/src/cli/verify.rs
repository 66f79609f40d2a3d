//! `verify`: whether every byte of a store or backup is as it was written.

use std::io::Write as _;

use indicatif::{HumanBytes, HumanCount};
use lastword::store::blobs::CheckedBlobs;
use lastword::{Damage, Verified, VerifyStep};
use serde_json::json;

use super::args::Directory;
use super::failure::Failure;
use super::output;

pub(super) fn verify(args: &Directory) -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    let bar = output::bytes_progress();
    let verified = lastword::verify(&args.data, scratch.path(), &mut |step, bytes| {
        bar.set_message(match step {
            VerifyStep::Hashes => "comparing hashes",
            VerifyStep::Log => "reading the log",
            VerifyStep::Fold => "folding it once more",
            VerifyStep::State => "reading the state",
            VerifyStep::Packs => "reading the files",
        });
        bar.set_position(bytes);
    });
    bar.finish_and_clear();
    let verified = verified?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", as_json(args, &verified))?;
    } else {
        for line in as_text(args, &verified) {
            writeln!(out, "{}", output::plain(&line))?;
        }
    }
    match advice(args, &verified) {
        None => Ok(()),
        Some(advice) if verified.damages.is_empty() => Err(Failure::failed(advice)),
        Some(advice) => Err(Failure::damaged(advice)),
    }
}

fn as_text(args: &Directory, verified: &Verified) -> Vec<String> {
    let read = &verified.read;
    let what = if verified.is_backup { "backup" } else { "store" };
    let mut lines = vec![
        format!("{what} in {}", args.data.display()),
        format!(
            "  log    {}, {}, {} from position {} to {}",
            output::counted(read.log_files, "file", "files"),
            output::counted(read.frames, "frame", "frames"),
            HumanBytes(read.log_bytes),
            read.first,
            read.end
        ),
    ];
    if read.base_rows > 0 {
        lines.push(format!("  base   {}", output::counted(read.base_rows, "row", "rows")));
    }
    let rows = output::counted(read.state_rows, "row", "rows");
    lines.push(match (read.state_rows, read.compared) {
        (_, true) => format!("  state  {rows}, compared with a second fold of the log"),
        (0, _) => "  state  none to compare; opening the store makes it from the log".to_owned(),
        _ => format!("  state  {rows}, each compared with its own digest only"),
    });
    if read.blobs.packs > 0 {
        lines.push(format!(
            "  files  {} of {}, {} in {}, each compared with its name",
            output::counted(read.blobs.blobs, "file", "files"),
            HumanBytes(read.blobs.bytes),
            output::counted(read.blobs.chunks, "chunk", "chunks"),
            output::counted(read.blobs.packs, "pack", "packs"),
        ));
    }
    if read.torn_bytes > 0 {
        lines.push(format!(
            "  torn   {} bytes behind the last whole frame, of a write that was cut short: nothing \
             of it was acknowledged",
            HumanCount(read.torn_bytes)
        ));
    }
    lines.extend(verified.damages.iter().map(damage_text));
    if let Some(failed) = &verified.scratch_failed {
        lines.push(format!("  FAILED   the second fold of the log, in its own place {failed}"));
    }
    if verified.is_whole() {
        lines.push("whole: everything is as it was written".to_owned());
    }
    lines
}

pub(super) fn damage_text(damage: &Damage) -> String {
    let file = damage.file.as_ref().map(|file| format!("{}: ", file.display()));
    format!("  DAMAGED  {}{}", file.unwrap_or_default(), damage.what)
}

/// What to do next; `None` if everything is whole.
fn advice(args: &Directory, verified: &Verified) -> Option<String> {
    let dir = args.data.display();
    let found = match verified.damages.len() {
        0 if verified.is_whole() => return None,
        0 => {
            return Some(format!(
                "{dir}: nothing damaged was found, but the log could not be folded once more: its \
                 temporary directory failed. Verify again with TMPDIR set to a place with as much \
                 room as the state takes"
            ));
        }
        1 => "1 thing in it is".to_owned(),
        more => format!("{more} things in it are"),
    };
    Some(match (verified.is_backup, verified.is_loss()) {
        (true, _) => format!("{dir}: {found} damaged: use another backup, and make a new one"),
        (false, true) => format!(
            "{dir}: {found} damaged, also of the log, so data may be lost: keep a copy of the \
             directory as it is, and restore a backup with `lastword restore BACKUP --to NEW`; without \
             one, `lastword salvage {dir} --to NEW` saves what can be read{}",
            match verified.has_whole_state() {
                true => ", which is every record as of the last checkpoint: the state is whole",
                false => "",
            }
        ),
        (false, false) => format!(
            "{dir}: {found} damaged, but nothing is lost: the log has everything, and `lastword \
             compact --rebuild-state --data {dir}` makes the state anew"
        ),
    })
}

pub(super) fn damage_json(damage: &Damage) -> serde_json::Value {
    json!({
        "file": damage.file.as_ref().map(|file| file.display().to_string()),
        "what": damage.what, "loss": damage.is_loss,
    })
}

fn as_json(args: &Directory, verified: &Verified) -> serde_json::Value {
    let read = &verified.read;
    let damages = verified.damages.iter().map(damage_json);
    let mut told = json!({
        "dir": args.data.display().to_string(), "backup": verified.is_backup,
        "whole": verified.is_whole(), "loss": verified.is_loss(),
        "log_files": read.log_files, "log_bytes": read.log_bytes, "frames": read.frames,
        "first": read.first, "end": read.end, "torn_bytes": read.torn_bytes,
        "base_rows": read.base_rows, "state_rows": read.state_rows, "compared": read.compared,
                "damages": damages.collect::<Vec<_>>(), "next": advice(args, verified),
    });
    if read.blobs.packs > 0
        && let Some(told) = told.as_object_mut()
    {
        let CheckedBlobs { packs, blobs, chunks, bytes } = read.blobs;
        let files = json!({ "files": blobs, "chunks": chunks, "bytes": bytes, "packs": packs });
        told.insert("stored".into(), files);
    }
    if let (Some(failed), Some(told)) = (&verified.scratch_failed, told.as_object_mut()) {
        told.insert("scratch_failed".into(), json!(failed));
    }
    told
}
