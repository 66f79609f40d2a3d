//! `restore`: a backup becomes a store of its own.

use std::io::Write as _;

use indicatif::HumanBytes;
use lastword::RestoreReport;
use serde_json::json;

use super::args::Restore;
use super::failure::Failure;
use super::output;

pub(super) fn restore(args: &Restore) -> Result<(), Failure> {
    let bar = output::bytes_progress();
    bar.set_message("unpacking");
    let restored = lastword::restore(&args.backup, &args.to, args.drop_outbox, &mut |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
    });
    bar.finish_and_clear();
    let report = restored?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", as_json(args, &report))?;
        return Ok(());
    }
    for line in as_text(args, &report) {
        writeln!(out, "{}", output::plain(&line))?;
    }
    Ok(())
}

fn as_text(args: &Restore, report: &RestoreReport) -> Vec<String> {
    let bytes = report.backup.files.iter().map(|file| file.len).sum();
    let mut lines = vec![format!(
        "{} is restored from {}: {}, the backup of {}",
        args.to.display(),
        args.backup.display(),
        HumanBytes(bytes),
        output::clock(report.backup.created_ms)
    )];
    if let Some((was, now)) = report.device {
        lines.push(format!("  it writes as device {} now, not as {}", now.short(), was.short()));
        if report.dropped_batches > 0 {
            lines.push(format!(
                "  {} of its outbox are dead letters now (lost_by_restore)",
                output::batches(report.dropped_batches)
            ));
        }
    }
    for workspace in &report.workspaces {
        lines.push(format!(
            "  workspace {}: as of seq {}; new writes get seqs above {}",
            output::plain(&workspace.workspace),
            workspace.branch,
            workspace.head
        ));
    }
    if !report.workspaces.is_empty() {
        lines.push(
            "  devices that synced with the server before stop with a message, and keep what they \
             have: sync them into a new --data directory"
                .to_owned(),
        );
    }
    lines
}

fn as_json(args: &Restore, report: &RestoreReport) -> serde_json::Value {
    let workspaces = report.workspaces.iter().map(|workspace| {
        json!({
            "workspace": workspace.workspace, "epoch": workspace.epoch.to_string(),
            "branch": workspace.branch, "head": workspace.head,
        })
    });
    json!({
        "to": args.to.display().to_string(),
        "role": if report.device.is_some() { "device" } else { "server" },
        "created_ms": report.backup.created_ms, "end": report.backup.end,
        "former_device": report.device.map(|(was, _)| was.to_string()),
        "device": report.device.map(|(_, now)| now.to_string()),
        "dropped_batches": report.dropped_batches,
        "workspaces": workspaces.collect::<Vec<_>>(),
    })
}
