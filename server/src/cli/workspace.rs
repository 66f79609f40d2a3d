//! `admin delete-workspace` and `admin set-owned` ask a running server; `purge` forgets a workspace
//! on a device.

use std::io::Write as _;

use lastword::core::json;
use lastword::{Consent, Purged};
use serde_json::json;

use crate::control::{self, Answer, Ask};

use super::args::{DeleteWorkspace, Purge, SetOwned};
use super::backup::unexpected;
use super::failure::Failure;
use super::output;
use super::session::Session;

pub(super) fn delete(args: &DeleteWorkspace) -> Result<(), Failure> {
    let workspace = &args.workspace;
    if !args.yes {
        return Err(Failure::usage(format!(
            "workspace {workspace} would be gone for everybody, and its name for good; devices keep \
             what they have, backups made before keep all. Add --yes to delete it"
        )));
    }
    let ask = Ask::DeleteWorkspace { workspace: workspace.clone() };
    let records = match control::ask(&args.server.data, &ask, &mut drop)? {
        Answer::WorkspaceDeleted { records } => records,
        other => return Err(unexpected(&other)),
    };
    let line = match args.server.json {
        true => json!({ "workspace": workspace, "records": records }).to_string(),
        false => output::plain(&format!(
            "workspace {workspace} is deleted, with {}; devices keep their copies and stop to sync it",
            output::records(records)
        ))
        .into_owned(),
    };
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

pub(super) fn set_owned(args: &SetOwned) -> Result<(), Failure> {
    let SetOwned { workspace, table, key, set, remove, .. } = args;
    json::parse_record(set)?;
    let (workspace, table, key) = (workspace.clone(), table.clone(), key.clone());
    let name = format!("{table}/{key}");
    let (set, remove) = (set.clone(), remove.clone());
    let ask = Ask::SetOwned { workspace, table, key, set, remove };
    let seq = match control::ask(&args.server.data, &ask, &mut drop)? {
        Answer::OwnedSet { seq } => seq,
        other => return Err(unexpected(&other)),
    };
    let line = match args.server.json {
        true => json!({ "table": args.table, "key": args.key, "seq": seq }).to_string(),
        false => output::plain(&format!("{name} is set, seq {seq}")).into_owned(),
    };
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

pub(super) fn purge(args: &Purge) -> Result<(), Failure> {
    let session = Session::open_to_read(&args.store, &args.link)?;
    let consent = if args.destroy_unsent { Consent::Everything } else { Consent::OnlySent };
    let purged = session.ws.purge(consent).map_err(|error| match error {
        error @ lastword::Error::WouldDestroy { .. } => {
            Failure::failed(format!("{error} with --destroy-unsent"))
        }
        error => error.into(),
    })?;
    let Purged { rows, unsent, dead_letters, local_rows, file_bytes } = purged;
    let line = match args.store.json {
        true => json!({
            "workspace": args.store.workspace, "rows": rows, "unsent": unsent,
            "dead_letters": dead_letters, "local_rows": local_rows, "file_bytes": file_bytes,
        })
        .to_string(),
        false => output::plain(&format!(
            "workspace {} is forgotten here: {} and {} of files; {unsent} unsent batches, \
             {dead_letters} dead letters and {local_rows} rows of tables of this device went with it",
            args.store.workspace,
            output::records(rows),
            indicatif::HumanBytes(file_bytes)
        ))
        .into_owned(),
    };
    writeln!(std::io::stdout(), "{line}")?;
    session.close()
}
