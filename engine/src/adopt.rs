//! A workspace takes a schema: it is a frame of the log, and counts from its place there on.

use lastword_core::id::{TableName, WorkspaceName};
use lastword_core::plant::{Plant, planted};
use lastword_core::schema::{FixedRule, Schema, SchemaError};
use lastword_store::keys::{self, ROWS, WorkspaceMeta};
use lastword_store::payload::{Payload, WorkspaceSchema};
use lastword_store::read::{self, ReadState};
use lastword_store::{Store, StoreError};

use crate::error::{Error, Result};

/// Gives `schema` to every workspace that has another one, if all of them can have it.
pub(crate) fn adopt_now(store: &mut Store, schema: &Schema) -> Result<()> {
    let mut frames = Vec::new();
    for (workspace, meta) in read::workspaces(store.newest())? {
        if meta.epoch.is_none() {
            continue;
        }
        let known = read::schema(store.newest(), &workspace)?;
        let next = match &known {
            Some(known) => known.replaced_by(schema),
            None => first(store.newest(), &workspace, &meta, schema)?,
        };
        let next = next.map_err(|source| Error::Schema { workspace: workspace.clone(), source })?;
        if known.as_ref() != Some(&next) {
            frames.push(WorkspaceSchema { workspace, schema: Some(next) });
        }
    }
    for frame in frames {
        let payload = Payload::Schema(frame);
        store.append(payload.kind(), &payload.to_bytes())?;
        // Many of them may be more than a group holds.
        store.commit()?;
    }
    Ok(())
}

/// Gives its schema to a workspace that was just made.
pub(crate) fn of_new(
    store: &mut Store,
    workspace: &WorkspaceName,
    schema: Option<&Schema>,
) -> Result<()> {
    if let Some(schema) = schema {
        let (workspace, schema) = (workspace.clone(), Some(schema.clone()));
        let payload = Payload::Schema(WorkspaceSchema { workspace, schema });
        store.append(payload.kind(), &payload.to_bytes())?;
    }
    Ok(())
}

/// A workspace without a schema may hold records of any table. Those of one that becomes local
/// would be on devices that never hear of them again.
fn first<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    meta: &WorkspaceMeta,
    schema: &Schema,
) -> Result<std::result::Result<Schema, SchemaError>> {
    for (table, _) in schema.tables().filter(|(_, table)| table.local) {
        if has_records(state, workspace, meta, table)? && !planted(Plant::SyncedBecomesLocal) {
            return Ok(Err(SchemaError::Forbidden {
                table: table.clone(),
                rule: FixedRule::Locality,
                before: "synced".into(),
                after: "local".into(),
            }));
        }
    }
    Ok(Ok(schema.clone()))
}

fn has_records<S: ReadState>(
    state: &S,
    workspace: &WorkspaceName,
    meta: &WorkspaceMeta,
    table: &TableName,
) -> std::result::Result<bool, StoreError> {
    let prefix = keys::table_prefix(workspace, meta.generation, table);
    Ok(!state.range(ROWS, &prefix, &keys::prefix_end(&prefix), false, 1)?.is_empty())
}
