//! `salvage`: what can be read of a damaged store becomes a store of its own.

use std::io::Write as _;

use indicatif::HumanCount;
use lastword::{SalvageLoss, Salvaged, SavedBehind};
use serde_json::json;

use super::args::Salvage;
use super::failure::Failure;
use super::output;

pub(super) fn salvage(args: &Salvage) -> Result<(), Failure> {
    let salvaged = lastword::salvage(&args.dir, &args.to, args.drop_outbox)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", as_json(args, &salvaged))?;
    } else {
        for line in as_text(args, &salvaged) {
            writeln!(out, "{}", output::plain(&line))?;
        }
    }
    match salvaged.losses.len() as u64 {
        0 => Ok(()),
        places => Err(Failure::damaged(format!(
            "{}: {} could not be read; keep the directory. {}",
            args.dir.display(),
            output::counted(places, "place", "places"),
            next(args, &salvaged)
        ))),
    }
}

/// What to do now.
fn next(args: &Salvage, salvaged: &Salvaged) -> String {
    let to = args.to.display();
    match &salvaged.device {
        Some(_) => format!(
            "Sync again (`lastword sync --data {to} --server URL --token TOKEN`): what the server \
             has comes back"
        ),
        None => format!(
            "Start the server on {to}: devices that synced with it before stop with a message, and \
             keep what they have; sync them into a new --data directory, and write again what is \
             missing"
        ),
    }
}

fn as_text(args: &Salvage, salvaged: &Salvaged) -> Vec<String> {
    let taken = &salvaged.taken;
    let mut lines = vec![format!(
        "{} is salvaged from {}: {}, log up to position {}{}",
        args.to.display(),
        args.dir.display(),
        output::counted(taken.files, "file", "files"),
        taken.end,
        match taken.was_end > taken.end {
            true => format!(" of {}", taken.was_end),
            false => String::new(),
        }
    )];
    lines.extend(salvaged.losses.iter().map(loss_text));
    if taken.from_state {
        let text = "  the rows come from the state, as the log before them cannot be read: what it \
                    said of the history is gone";
        lines.push(text.to_owned());
    }
    if let Some((was, now)) = salvaged.device {
        lines.push(format!("  it writes as device {} now, not as {}", now.short(), was.short()));
    }
    if salvaged.dropped_batches > 0 {
        let batches = output::batches(salvaged.dropped_batches);
        lines.push(format!("  {batches} of its outbox are dead letters now (salvaged)"));
    }
    lines.extend(behind_text(&salvaged.behind));
    for workspace in &salvaged.workspaces {
        lines.push(format!(
            "  workspace {}: as of seq {}; new writes get seqs above {}",
            workspace.workspace, workspace.branch, workspace.head
        ));
    }
    if salvaged.losses.is_empty() {
        lines.push(format!("nothing is lost. {}", next(args, salvaged)));
    }
    lines
}

fn loss_text(loss: &SalvageLoss) -> String {
    let file = loss.file.as_ref().map(|file| format!("{} ", file.display())).unwrap_or_default();
    let behind = match loss.frames_behind {
        0 => String::new(),
        frames => format!("; {} behind it", output::counted(frames, "frame", "frames")),
    };
    format!("  DAMAGED  {file}at byte {}: {}{behind}", loss.offset, loss.what)
}

fn behind_text(behind: &SavedBehind) -> Vec<String> {
    let told = [
        (behind.local_ops, "ops on local tables are applied again"),
        (behind.lost_ops, "ops on local tables change records that are lost; the log has them"),
        (behind.dead_letters, "batches without a verdict are dead letters now (salvaged)"),
        (behind.kept_letters, "dead letters are kept"),
        (behind.accepted, "batches had reached the server, and come back with the next sync"),
        (behind.unreadable, "frames are whole, but do not decode"),
    ];
    let counts = told.into_iter().filter(|(count, _)| *count > 0);
    let mut lines: Vec<String> = counts
        .map(|(count, what)| format!("  behind the damage: {} {what}", HumanCount(count)))
        .collect();
    lines.extend(behind.lost_seqs.iter().map(|lost| {
        format!(
            "  LOST  workspace {}: seqs {} to {}, {}; devices may have them",
            lost.workspace,
            lost.first,
            lost.last,
            output::batches(lost.batches)
        )
    }));
    lines
}

fn as_json(args: &Salvage, salvaged: &Salvaged) -> serde_json::Value {
    let (taken, behind) = (&salvaged.taken, &salvaged.behind);
    let losses = salvaged.losses.iter().map(|loss| {
        json!({
            "file": loss.file.as_ref().map(|file| file.display().to_string()),
            "offset": loss.offset, "what": loss.what, "frames_behind": loss.frames_behind,
        })
    });
    let workspaces = salvaged.workspaces.iter().map(|workspace| {
        json!({
            "workspace": workspace.workspace, "epoch": workspace.epoch.to_string(),
            "branch": workspace.branch, "head": workspace.head,
        })
    });
    let lost_seqs = behind.lost_seqs.iter().map(|lost| {
        json!({
            "workspace": lost.workspace, "first": lost.first, "last": lost.last,
            "batches": lost.batches,
        })
    });
    json!({
        "from": args.dir.display().to_string(), "to": args.to.display().to_string(),
        "role": if salvaged.device.is_some() { "device" } else { "server" },
        "end": taken.end, "was_end": taken.was_end, "files": taken.files,
        "from_state": taken.from_state, "lossless": salvaged.losses.is_empty(),
        "losses": losses.collect::<Vec<_>>(),
        "former_device": salvaged.device.map(|(was, _)| was.to_string()),
        "device": salvaged.device.map(|(_, now)| now.to_string()),
        "dropped_batches": salvaged.dropped_batches,
        "workspaces": workspaces.collect::<Vec<_>>(),
        "behind": json!({
            "local_ops": behind.local_ops, "lost_ops": behind.lost_ops,
            "dead_letters": behind.dead_letters, "kept_letters": behind.kept_letters,
            "accepted": behind.accepted, "unreadable": behind.unreadable,
            "lost_seqs": lost_seqs.collect::<Vec<_>>(),
        }),
        "next": next(args, salvaged),
    })
}
