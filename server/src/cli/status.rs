//! `status`: what a directory holds and what waits. `log`: the frames behind it.

use std::io::Write as _;

use indicatif::{HumanBytes, HumanCount};
use lastword::core::id::{DeviceId, WorkspaceName};
use lastword::core::protocol::Role;
use lastword::{Authority, LogLine, WorkspaceStatus};
use serde_json::{Value, json};

use super::args::{AdminFiles, Log, Running, Status};
use super::backup::unexpected;
use super::failure::Failure;
use super::output;
use super::session::{Opened, Session, open_any, open_as_it_is};
use crate::control::{self, Answer, Ask, FileCount, Kept, Standing};

pub(super) fn status(args: &Status) -> Result<(), Failure> {
    match open_as_it_is(&args.store, &args.link)? {
        Opened::Device(session) if args.user.is_some() => {
            session.close()?;
            let message = "--user is for a server's directory: a device holds what its user sees";
            Err(Failure::usage(message))
        }
        Opened::Device(session) => {
            // A server that cannot be had is a reason to look, not one to see nothing.
            let caught_up = session.catch_up_if_asked();
            device(args, &session)?;
            session.close()?;
            caught_up
        }
        Opened::Server(authority) => {
            server(args, &authority)?;
            Ok(authority.close()?)
        }
    }
}

fn device(args: &Status, session: &Session) -> Result<(), Failure> {
    let workspaces: lastword::Result<Vec<WorkspaceStatus>> =
        session.db.workspaces()?.iter().map(lastword::Workspace::status).collect();
    let workspaces = workspaces?;
    let report = session.db.open_report();
    let mut out = std::io::stdout().lock();
    if args.store.json {
        let line = json!({
            "role": "device", "device": session.db.device().to_string(),
            "server": session.server(), "log_bytes": report.end,
            "workspaces": workspaces.iter().map(workspace_json).collect::<Vec<_>>(),
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(
        out,
        "device {} in {}, log {}, {}",
        session.db.device().short(),
        session.db.dir().display(),
        HumanBytes(report.end),
        session.server().map_or("no server known".to_owned(), |url| format!("server {url}")),
    )?;
    if workspaces.is_empty() {
        writeln!(out, "no workspace yet")?;
    }
    for status in &workspaces {
        for line in workspace_text(status) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn workspace_text(status: &WorkspaceStatus) -> Vec<String> {
    let copy = match (status.attached, status.bootstrapped) {
        (false, _) => "never met a server".to_owned(),
        (true, false) => format!("first copy under way, at seq {}", status.cursor),
        (true, true) => format!(
            "{} of the server at seq {}, digest {}",
            output::records(status.rows),
            status.cursor,
            status.digest
        ),
    };
    let oldest = status.oldest_undecided_ms.map_or(String::new(), |oldest_ms| {
        format!(", the oldest written {}", output::ago(oldest_ms))
    });
    let frozen = match status.role {
        Some(Role::Viewer) if status.undecided > 0 => {
            "; not taken by the server while your role is viewer"
        }
        _ => "",
    };
    let settled = match status.settled {
        0 => String::new(),
        settled => format!("; {} decided, not seen in the stream yet", HumanCount(settled)),
    };
    vec![
        format!("workspace {}: {copy}", status.workspace),
        format!("  outbox        {}{oldest}{frozen}{settled}", output::batches(status.undecided)),
        format!("  dead letters  {}", HumanCount(status.dead_letters)),
        format!("  conflicts     {}", HumanCount(status.conflicts)),
    ]
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Editor => "editor",
        Role::Viewer => "viewer",
    }
}

fn workspace_json(status: &WorkspaceStatus) -> Value {
    json!({
        "workspace": status.workspace, "attached": status.attached,
        "bootstrapped": status.bootstrapped, "role": status.role.map(role_word), "rows": status.rows,
        "digest": status.digest.to_string(), "cursor": status.cursor, "head": status.head,
        "outbox": status.undecided, "settled": status.settled,
        "oldest_ms": status.oldest_undecided_ms, "dead_letters": status.dead_letters,
        "conflicts": status.conflicts,
    })
}

fn server(args: &Status, authority: &Authority) -> Result<(), Failure> {
    let mut workspaces = authority.status()?;
    if let Some(user) = &args.user {
        for status in &mut workspaces {
            let seen = authority.seen_by(&WorkspaceName::new(&status.workspace)?, user)?;
            (status.rows, status.digest) = (seen.rows, seen.digest);
        }
    }
    let mut out = std::io::stdout().lock();
    if args.store.json {
        let list: Vec<Value> = workspaces
            .iter()
            .map(|status| {
                let mut line = json!({
                    "workspace": status.workspace, "rows": status.rows,
                    "digest": status.digest.to_string(), "head": status.head,
                    "epoch": status.epoch.to_string(),
                });
                if let Some(deleted_ms) = status.deleted_ms {
                    line["deleted_ms"] = deleted_ms.into();
                }
                line
            })
            .collect();
        let device = DeviceId::AUTHORITY.to_string();
        let mut line = json!({ "role": "server", "device": device, "workspaces": list });
        let objects = Kept::all(authority)?;
        if !objects.is_empty() {
            line["objects"] = json!(objects);
        }
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(out, "server's data in {}", authority.dir().display())?;
    for status in &workspaces {
        if status.deleted_ms.is_some() {
            writeln!(out, "workspace {}: deleted; its name is not given again", status.workspace)?;
            continue;
        }
        writeln!(
            out,
            "workspace {}: {} at seq {}, digest {}, epoch {}",
            status.workspace,
            output::records(status.rows),
            status.head,
            status.digest,
            status.epoch
        )?;
    }
    for kept in &Kept::all(authority)? {
        writeln!(out, "{}", output::plain(&kept_text(kept)))?;
    }
    Ok(())
}

fn kept_text(kept: &Kept) -> String {
    let Kept { workspace, provider, files, bytes, coming } = kept;
    let coming = match coming {
        0 => String::new(),
        coming => format!(", {} under way", output::counted(*coming, "upload", "uploads")),
    };
    let files = output::counted(*files, "file", "files");
    format!("workspace {workspace}: {files} of {} at {provider}{coming}", HumanBytes(*bytes))
}

/// Says how a running server stands.
pub(super) fn of_running(args: &Running) -> Result<(), Failure> {
    let last = control::ask(&args.data, &Ask::Status, &mut |_| {})?;
    let Answer::Status(standing) = last else { return Err(unexpected(&last)) };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!(standing))?;
        return Ok(());
    }
    let Standing { files_provider, attached, objects } = &standing;
    let attached = output::counted(*attached as u64, "attachment", "attachments");
    writeln!(out, "{}", output::plain(&format!("new files: {files_provider}; {attached}")))?;
    for kept in objects {
        writeln!(out, "{}", output::plain(&kept_text(kept)))?;
    }
    Ok(())
}

pub(super) fn files_of_running(args: &AdminFiles) -> Result<(), Failure> {
    let (ask, mut files) = (Ask::Files { workspace: args.workspace.clone() }, Vec::new());
    let last = control::ask(&args.server.data, &ask, &mut |answer| {
        if let Answer::Counted(file) = answer {
            files.push(file);
        }
    })?;
    let Answer::Files {} = last else { return Err(unexpected(&last)) };
    let mut out = std::io::stdout().lock();
    for file in &files {
        let line = match args.server.json {
            true => json!(file).to_string(),
            false => output::plain(&file_text(file)).into_owned(),
        };
        writeln!(out, "{line}")?;
    }
    if !args.server.json {
        let bytes = files.iter().filter(|file| file.provider.is_some()).map(|file| file.size_bytes);
        let bytes = HumanBytes(bytes.sum());
        eprintln!("{}, {bytes} stored", output::counted(files.len() as u64, "file", "files"));
    }
    Ok(())
}

fn file_text(file: &FileCount) -> String {
    let FileCount { hash, size_bytes, ref_count, provider, has_record } = file;
    let at = match provider {
        Some(provider) => format!("at {provider}"),
        None => "nowhere yet: whoever has it has not uploaded it".into(),
    };
    let own = if *has_record { "" } else { ", no record of its own" };
    let named = output::counted(*ref_count, "record names it", "records name it");
    format!("{hash} {} {at}; {named}{own}", HumanBytes(*size_bytes))
}

pub(super) fn log(args: &Log) -> Result<(), Failure> {
    let opened = open_any(&args.store, &args.link)?;
    let (lines, next) = match &opened {
        Opened::Device(session) => session.db.log(args.from, args.limit)?,
        Opened::Server(authority) => authority.log(args.from, args.limit)?,
    };
    let mut out = std::io::stdout().lock();
    for line in &lines {
        let text = log_line(line, args.store.json);
        let text = if args.store.json { output::json_line(&text) } else { output::plain(&text) };
        writeln!(out, "{text}")?;
    }
    if lines.len() == args.limit {
        eprintln!("more follows: --from {next}");
    }
    match opened {
        Opened::Device(session) => session.close(),
        Opened::Server(authority) => Ok(authority.close()?),
    }
}

fn log_line(line: &LogLine, as_json: bool) -> String {
    let LogLine { position, kind, workspace, text } = line;
    if as_json {
        let line = json!({
            "position": position, "kind": kind, "workspace": workspace, "text": text,
        });
        return line.to_string();
    }
    let workspace = workspace.as_deref().unwrap_or("-");
    format!("{position:>10}  {kind:<12}  {workspace:<10}  {text}")
}
