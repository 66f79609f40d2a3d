//! `watch`: records as they change, one line each, until interrupted.

use std::io::Write as _;

use lastword::core::id::TableName;
use lastword::{RecordChange, SyncStatus};
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
    if args.link.server.is_some() || args.link.wait {
        match &mut connection {
            Some(connection) => {
                connection.wait_caught_up(&session, args.link.timeout, &mut told())?;
            }
            None => return Err(Failure::usage("no server known: give --server and --token")),
        }
    }
    let mut live = session.ws.watch_records(table.as_ref());
    let mut out = std::io::stdout().lock();
    while let Some(changes) = live.recv() {
        for change in changes.iter().filter(|change| is_wanted(change, args)) {
            writeln!(out, "{}", line(change)?)?;
        }
        out.flush()?;
    }
    match live.error() {
        Some(error) => Err(error.clone().into()),
        None => session.close(),
    }
}

/// The product's own tables are shown when they are asked for.
fn is_wanted(change: &RecordChange, args: &Watch) -> bool {
    args.table.is_some() || !change.table.is_reserved()
}

/// Says on stderr once that the server is being waited for.
fn told() -> impl FnMut(&SyncStatus) {
    let mut said = false;
    move |status| {
        if let (false, SyncStatus::Offline { why, .. }) = (said, status) {
            eprintln!("server not reachable ({why}), trying again");
            said = true;
        }
    }
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
