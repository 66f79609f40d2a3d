//! Where a device shows something else than the server.

use std::collections::BTreeMap;

use lastword_core::id::WorkspaceName;
use lastword_core::json;
use lastword_core::row::Row;
use lastword_core::rules::{self, PENDING_SEQ};
use lastword_store::read;

use super::device::Device;
use crate::error::Result;
use crate::view::{Name, WorkspaceView};
use crate::workspace::Workspace;

type Rows = BTreeMap<Name, Row>;

/// One line for each record of a workspace that the device shows otherwise.
pub(super) fn of(
    device: &Device,
    name: &WorkspaceName,
    server: &WorkspaceView,
) -> Result<Vec<String>> {
    let workspace = device.database().workspace(name.as_str())?;
    let (here, mut there) = (rows(&workspace, &workspace.read()?)?, rows(&workspace, server)?);
    let schema = read::schema(server.state(), workspace.name())?.unwrap_or_default();
    there.retain(|(table, _), row| {
        rules::sees(device.user(), table, &row.record, schema.rules_of(table))
    });
    let mut lines = Vec::new();
    let waiting = workspace.waiting()?;
    if waiting > 0 {
        lines.push(format!("{device}: {waiting} batches of {name} wait", device = device.name()));
    }
    let names: std::collections::BTreeSet<&Name> = here.keys().chain(there.keys()).collect();
    for record in names {
        let (ours, theirs) = (here.get(record), there.get(record));
        if ours != theirs {
            let (table, key) = record;
            lines.push(format!(
                "{}: {name} {table}/{key} is {} here and {} at the server",
                device.name(),
                said(ours),
                said(theirs)
            ));
        }
    }
    Ok(lines)
}

/// Rows and tombstones of the tables that sync.
fn rows(workspace: &Workspace, view: &WorkspaceView) -> Result<Rows> {
    let own = workspace.read()?;
    let schema = read::schema(own.state(), workspace.name())?.unwrap_or_default();
    let mut rows = Rows::new();
    view.visit_rows(None, &mut |record, stored| {
        if !own.declared().is_local(&record.0) && !schema.is_local(&record.0) {
            rows.insert(record, stored.row);
        }
    })?;
    Ok(rows)
}

fn said(row: Option<&Row>) -> String {
    let Some(row) = row else { return "unknown".into() };
    let seq = match row.last.seq {
        PENDING_SEQ => "pending".to_owned(),
        seq => format!("seq {seq}"),
    };
    let value = match json::record_to_string(&row.record) {
        _ if row.deleted => "deleted".to_owned(),
        Ok(text) => text,
        Err(error) => error.to_string(),
    };
    format!("{value} ({seq})")
}
