//! What the authority tells a device of a record's older versions.

use lastword_core::codec::to_bytes;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::{MAX_HISTORY_READ_BYTES, MAX_HISTORY_VERSIONS, PAGE_BYTES};
use lastword_core::protocol::authority::Input;
use lastword_core::protocol::{History, HistoryRest, HistoryVersion, ReadHistory, VersionKind};
use lastword_core::rules;
use lastword_store::keys::{self, StoredRow};
use lastword_store::read;
use lastword_store::{View, ViewHandle};

use crate::error::Result;
use crate::history::{self, Version, WalkEnd};
use crate::members::{self, MemberList};

/// Answers a question for a user, in a view in which the user is a member. A record that the user
/// may not see has no versions, like one that never was.
pub(crate) fn answer(
    log: &ViewHandle,
    view: &View,
    list: Option<&MemberList>,
    (workspace, user): (&WorkspaceName, &str),
    asked: &ReadHistory,
) -> Result<Input> {
    let ReadHistory { attachment, request, table, key, before } = asked;
    let (attachment, request) = (*attachment, *request);
    if members::role(view, list, workspace, user)?.is_none() {
        return Ok(Input::Revoked { attachment });
    }
    let meta = read::meta(view, workspace)?;
    let schema = read::schema(view, workspace)?.unwrap_or_default();
    let stored = read::row(view, &keys::row_key(workspace, meta.generation, table, key))?;
    let sees =
        |stored: &StoredRow| rules::sees(user, table, &stored.row.record, schema.rules_of(table));
    let Some(stored) = stored.filter(|stored| !table.is_reserved() && sees(stored)) else {
        let (versions, rest) = (Vec::new(), HistoryRest::Nothing);
        return Ok(Input::History(History { attachment, request, versions, rest }));
    };
    let before = if *before == 0 { u64::MAX } else { *before };
    let (versions, rest) = versions(log, stored, (table, key), before)?;
    Ok(Input::History(History { attachment, request, versions, rest }))
}

fn versions(
    log: &ViewHandle,
    stored: StoredRow,
    name: (&lastword_core::id::TableName, &lastword_core::id::Key),
    before: u64,
) -> Result<(Vec<HistoryVersion>, HistoryRest)> {
    let (mut found, mut told_bytes, mut read_bytes) = (Vec::new(), 0, 0);
    let mut none = true;
    let end = history::walk(log, &stored, name, &mut |version, frame_bytes| {
        none = false;
        read_bytes += frame_bytes;
        if let Some(version) = as_told(version).filter(|version| version.seq < before) {
            told_bytes += to_bytes(&version).len();
            if !found.is_empty() && told_bytes > PAGE_BYTES {
                return false;
            }
            found.push(version);
        }
        found.len() < MAX_HISTORY_VERSIONS && read_bytes < MAX_HISTORY_READ_BYTES
    })?;
    if none && end == WalkEnd::Folded && stored.row.last.seq < before {
        found.extend(as_told(history::kept(stored)));
    }
    Ok((
        found.clone(),
        match end {
            WalkEnd::First => HistoryRest::Nothing,
            WalkEnd::Folded => HistoryRest::Gone,
            // So far back that even what comes before cannot be looked through.
            WalkEnd::Enough if found.is_empty() => HistoryRest::Gone,
            WalkEnd::Enough => HistoryRest::More,
        },
    ))
}

fn as_told(version: Version) -> Option<HistoryVersion> {
    let Version { seq, time_ms, device, what, verdict, record, .. } = version;
    let kind = VersionKind::named(what)?;
    Some(HistoryVersion { seq: seq?, time_ms, device, kind, verdict, record })
}
