//! `watch`: records as they change, one line each, until interrupted.

use std::io::Write as _;

use lastword::core::id::{TableName, WorkspaceName};
use lastword::{Error, RecordChange, Sync, SyncFailure, SyncStatus};
use serde_json::json;

use super::args::Watch;
use super::failure::Failure;
use super::output;
use super::session::{Session, must_exist};

pub(super) fn watch(args: &Watch) -> Result<(), Failure> {
    must_exist(&args.store, &args.link)?;
    let table = args.table.as_deref().map(TableName::new).transpose()?;
    let session = Session::open(&args.store, &args.link)?;
    let mut connection = session.connect()?;
    if let Some(connection) = &connection {
        tell_status(connection.sync.clone(), session.ws.name().clone())?;
    }
    if args.link.server.is_some() || args.link.wait {
        match &mut connection {
            Some(connection) => {
                connection.wait_caught_up(&session, args.link.timeout, &mut |_| {})?;
            }
            None => return Err(Failure::usage("no server known: give --server and --token")),
        }
    }
    let mut live = session.ws.watch_records(table.as_ref());
    let mut out = std::io::stdout().lock();
    while let Some(changes) = live.recv() {
        for change in changes.iter().filter(|change| is_wanted(change, args)) {
            writeln!(out, "{}", output::json_line(&line(change)?))?;
        }
        out.flush()?;
    }
    match live.error() {
        Some(error) => Err(error.clone().into()),
        None => session.close(),
    }
}

/// Says on stderr why changes of other devices do not come, or own ones do not go, from a thread of
/// its own; without it a silent server and a silent workspace look the same.
fn tell_status(sync: Sync, workspace: WorkspaceName) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    std::thread::Builder::new().name("watch status".into()).spawn(move || {
        let mut status = sync.status(&workspace);
        let mut said = None;
        loop {
            match (trouble(&status), &said) {
                (Some(text), _) if said.as_ref() != Some(&text) => {
                    eprintln!("{}", output::plain(&text));
                    said = Some(text);
                }
                (None, Some(_)) if matches!(status, SyncStatus::Live { .. }) => {
                    eprintln!("in step with the server again");
                    said = None;
                }
                _ => {}
            }
            status = match runtime.block_on(sync.status_after(&workspace, &status)) {
                Ok(status) => status,
                // The end of the command.
                Err(Error::Closed) => return,
                Err(error) => return eprintln!("sync has ended: {error}"),
            };
        }
    })?;
    Ok(())
}

/// What keeps the workspace from being in step, if it is something the user should know.
fn trouble(status: &SyncStatus) -> Option<String> {
    match status {
        SyncStatus::Offline { why, .. } => {
            Some(format!("server not reachable ({why}), trying again"))
        }
        SyncStatus::Held { why, .. } => Some(SyncFailure::Held { why: why.clone() }.to_string()),
        SyncStatus::Stopped { message, .. } => {
            Some(format!("{message}; from here on only changes of this device are shown"))
        }
        _ => None,
    }
}

/// The product's own tables are shown when they are asked for.
fn is_wanted(change: &RecordChange, args: &Watch) -> bool {
    args.table.is_some() || !change.table.is_reserved()
}

fn line(change: &RecordChange) -> Result<String, Failure> {
    let RecordChange { table, key, record, seq, pending } = change;
    let (table, key) = (json!(table.as_str()), json!(key.as_str()));
    let seq = json!(seq);
    Ok(match record {
        Some(record) => {
            let value = output::value_of(record)?;
            format!(
                r#"{{"table":{table},"key":{key},"value":{value},"seq":{seq},"pending":{pending}}}"#
            )
        }
        None => format!(
            r#"{{"table":{table},"key":{key},"deleted":true,"seq":{seq},"pending":{pending}}}"#
        ),
    })
}
