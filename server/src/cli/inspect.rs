//! `inspect`: what a directory holds, whatever its condition.

use std::io::Write as _;

use indicatif::{HumanBytes, HumanCount};
use lastword::store::payload::StoreRole;
use lastword::store::{Content, SeenFile};
use lastword::{Inspected, InspectedWorkspace};
use serde_json::{Value, json};

use super::args::Directory;
use super::failure::Failure;
use super::output;

pub(super) fn inspect(args: &Directory) -> Result<(), Failure> {
    let found = lastword::inspect(&args.data)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", as_json(args, &found))?;
    } else {
        for line in as_text(args, &found) {
            writeln!(out, "{}", output::plain(&line))?;
        }
    }
    if found.damages.is_empty() {
        return Ok(());
    }
    Err(Failure::damaged(format!(
        "{} is damaged: `lastword verify --data {}` tells what that means",
        args.data.display(),
        args.data.display()
    )))
}

fn role_of(found: &Inspected) -> &'static str {
    match found.identity.as_ref().map(|identity| identity.role) {
        Some(StoreRole::Authority) => "server",
        Some(StoreRole::Replica) => "device",
        None => "unknown",
    }
}

fn as_text(args: &Directory, found: &Inspected) -> Vec<String> {
    let mut lines = Vec::new();
    let dir = args.data.display();
    if let Some(backup) = &found.backup {
        lines.push(format!(
            "{dir} is a backup of {}, log up to position {}",
            output::clock(backup.created_ms),
            backup.end
        ));
    }
    lines.push(match &found.identity {
        Some(identity) if identity.role == StoreRole::Authority => {
            format!("{dir}: a server's data, made {}", output::clock(identity.created_ms))
        }
        Some(identity) => format!(
            "{dir}: device {}, made {}{}",
            identity.device,
            output::clock(identity.created_ms),
            match identity.former.len() {
                0 => String::new(),
                more => format!(", had {} before", output::counted(more as u64, "id", "ids")),
            }
        ),
        None => format!("{dir}: nothing that can be read says whose it is"),
    });
    lines.extend(found.seen.files.iter().map(file_text));
    if let Some(base) = &found.seen.base {
        let oldest = base.marks.first().map_or(String::new(), |(_, time_ms)| {
            format!(", folds since {}", output::clock(*time_ms))
        });
        let rows = output::counted(base.rows, "row", "rows");
        lines.push(format!("base: {rows}, the log before {}{oldest}", base.end));
    }
    if let Some(state) = &found.seen.state {
        let rows = output::counted(state.rows, "row", "rows");
        lines.push(format!("state: {rows}, the log before {}", state.view.position()));
    }
    if found.seen.torn_bytes > 0 {
        let torn = HumanCount(found.seen.torn_bytes);
        lines.push(format!("torn: {torn} bytes of a write that was cut short, none acknowledged"));
    }
    match found.as_of {
        Some(position) => lines.push(format!("workspaces as of position {position}:")),
        None => lines.push("workspaces: known once the store is opened".into()),
    }
    lines.extend(found.workspaces.iter().map(workspace_text));
    lines.push("last frames:".into());
    let frame = |line: &lastword::LogLine| {
        let workspace = line.workspace.as_deref().unwrap_or("-");
        format!("  {:>10}  {:<12}  {workspace:<10}  {}", line.position, line.kind, line.text)
    };
    lines.extend(found.last_frames.iter().map(frame));
    lines.extend(found.damages.iter().map(super::verify::damage_text));
    lines
}

fn content_word(content: &Content) -> &'static str {
    match content {
        Content::Segment { .. } => "log",
        Content::Base { .. } => "base",
        Content::Pack => "pack",
        Content::State => "state",
        Content::Spare => "spare",
        Content::Unreadable => "unreadable",
    }
}

fn file_text(file: &SeenFile) -> String {
    let more = match &file.content {
        Content::Segment { first, end, frames } => {
            format!("  positions {first} to {end}, {}", output::counted(*frames, "frame", "frames"))
        }
        Content::Base { end } => format!("  the log before {end}"),
        _ => String::new(),
    };
    let (word, bytes) = (content_word(&file.content), HumanBytes(file.len).to_string());
    format!("  {:012}  {word:<10} {bytes:>12}{more}", file.number)
}

fn workspace_text(found: &InspectedWorkspace) -> String {
    let InspectedWorkspace { workspace, meta, lineage } = found;
    let restored = match lineage.0.last() {
        None => String::new(),
        Some((branch, head)) => format!(", restored at seq {branch}, went on at {head}"),
    };
    let epoch = meta.epoch.map_or("none".to_owned(), |epoch| epoch.to_string());
    format!(
        "  {workspace}: {}, head {}, cursor {}, digest {}, epoch {epoch}{restored}",
        output::records(meta.rows),
        meta.head,
        meta.cursor,
        meta.digest
    )
}

fn file_json(file: &SeenFile) -> Value {
    let (first, end, frames) = match &file.content {
        Content::Segment { first, end, frames } => (Some(first), Some(end), Some(frames)),
        Content::Base { end } => (None, Some(end), None),
        _ => (None, None, None),
    };
    json!({
        "number": file.number, "kind": content_word(&file.content), "bytes": file.len,
        "first": first, "end": end, "frames": frames,
    })
}

fn as_json(args: &Directory, found: &Inspected) -> Value {
    let identity = found.identity.as_ref();
    let base = found.seen.base.as_ref().map(|base| {
        let marks = base.marks.iter();
        let mark =
            |(position, time_ms): &(u64, i64)| json!({"position": position, "time_ms": time_ms});
        json!({"end": base.end, "rows": base.rows, "marks": marks.map(mark).collect::<Vec<_>>()})
    });
    let state = found.seen.state.as_ref();
    let state = state.map(|state| json!({"watermark": state.view.position(), "rows": state.rows}));
    let workspace = |found: &InspectedWorkspace| {
        let InspectedWorkspace { workspace, meta, lineage } = found;
        json!({
            "workspace": workspace, "head": meta.head, "cursor": meta.cursor, "rows": meta.rows,
            "digest": meta.digest.to_string(), "lineage": lineage.0,
            "epoch": meta.epoch.map(|epoch| epoch.to_string()),
        })
    };
    let frame = |line: &lastword::LogLine| {
        json!({
            "position": line.position, "kind": line.kind, "workspace": line.workspace,
            "text": line.text,
        })
    };
    json!({
        "dir": args.data.display().to_string(), "role": role_of(found),
        "backup_ms": found.backup.as_ref().map(|backup| backup.created_ms),
        "device": identity.map(|identity| identity.device.to_string()),
        "created_ms": identity.map(|identity| identity.created_ms),
        "files": found.seen.files.iter().map(file_json).collect::<Vec<_>>(),
        "base": base, "state": state, "torn_bytes": found.seen.torn_bytes, "as_of": found.as_of,
        "workspaces": found.workspaces.iter().map(workspace).collect::<Vec<_>>(),
        "last_frames": found.last_frames.iter().map(frame).collect::<Vec<_>>(),
        "damages": found.damages.iter().map(super::verify::damage_json).collect::<Vec<_>>(),
    })
}
