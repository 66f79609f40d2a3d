//! `/api/storage/..`: what admins ask of the files over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lastword::core::id::WorkspaceName;
use lastword::core::protocol::Role;
use lastword::store::BlobError;
use lastword::{CollectOptions, Error};
use serde::Deserialize;
use serde_json::json;

use crate::control::{Gc, GcTotals};
use crate::hub::{Hub, Served};
use crate::listener::Upgraded;

/// What `gc/run` may be asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunGc {
    /// The workspace.
    workspace_id: String,
    /// Seconds that what nothing needs stays after a run has found it; an hour unless said.
    retention_seconds: Option<u64>,
    /// Look, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// `POST /api/storage/gc/run`: one bounded run of the garbage collection, for owners of the
/// workspace; anybody else gets 403.
pub async fn run_gc(
    State(served): State<Served>,
    ConnectInfo(upgraded): ConnectInfo<Upgraded>,
    headers: HeaderMap,
    Json(asked): Json<RunGc>,
) -> Response {
    let hub = served.hub;
    if !is_owner(&hub, &headers, &asked.workspace_id) {
        let message = "only an owner of the workspace may collect its garbage";
        return (StatusCode::FORBIDDEN, Json(json!({ "error": message }))).into_response();
    }
    // A run takes as long as it does; whoever may start it is known by now.
    upgraded.set();
    let defaults = CollectOptions::default();
    let gc = Gc {
        workspace: asked.workspace_id,
        grace_s: asked.retention_seconds.unwrap_or(defaults.grace.as_secs()),
        staged_s: defaults.staged.as_secs(),
        dry_run: asked.dry_run,
        force: false,
    };
    let dry_run = gc.dry_run;
    let run = tokio::task::spawn_blocking(move || {
        let collected = gc.run(&hub.authority);
        collected.inspect_err(|error| hub.end_if_poisoned(error))
    });
    match run.await {
        Ok(Ok(collected)) => {
            let totals = GcTotals::of(&collected, dry_run);
            let answer = json!({
                "deleted_count": totals.dropped_files + totals.deleted_objects,
                "deleted_bytes": totals.dropped_bytes + totals.deleted_object_bytes,
                "freed_bytes": totals.freed_bytes,
                "condemned_count": totals.condemned_files + totals.condemned_objects,
                "dry_run": dry_run,
            });
            ([(header::CONNECTION, "close")], Json(answer)).into_response()
        }
        Ok(Err(error)) => {
            let status = match error {
                Error::Blob(BlobError::Collecting) => StatusCode::CONFLICT,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, Json(json!({ "error": error.to_string() }))).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Whether the token of the request is that of an owner of the workspace.
fn is_owner(hub: &Arc<Hub>, headers: &HeaderMap, workspace: &str) -> bool {
    let workspace = WorkspaceName::new(workspace);
    let (Some(user), Ok(workspace)) = (hub.user_of_request(headers), workspace) else {
        return false;
    };
    let role = hub.authority.role(&hub.authority.view(), &workspace, &user);
    !workspace.is_reserved() && matches!(role, Ok(Some(Role::Owner)))
}
