//! Members: who may do what in a workspace, as rows of `_members`.
//!
//! The authority is given the list of all members and makes the rows say the same. They count from
//! their place in the log on: a batch that was queued before its user's membership ended, and whose
//! turn comes after, is not decided. They sync like any row.

use std::collections::BTreeMap;

use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, Key, WorkspaceName};
use lastword_core::limits::MAX_BATCH_OPS;
use lastword_core::op::{Action, Op};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::authority::{Input, PageFrom, PushAnswer};
use lastword_core::protocol::{AttachRefusal, Changes, Role, WalkPage};
use lastword_core::value::{Field, Record, Value};
use lastword_store::payload::Payload;
use lastword_store::read::{self, ReadState};
use lastword_store::{Store, View, keys};

use crate::error::{Error, Result};
use crate::own;
use crate::tables;

/// The members of all workspaces. A user's name is the key of a row, so it has the form of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberList {
    workspaces: BTreeMap<WorkspaceName, BTreeMap<Key, Role>>,
}

impl MemberList {
    /// Adds a member; the role that the user had in that workspace before, if any.
    pub fn add(&mut self, workspace: WorkspaceName, user: Key, role: Role) -> Option<Role> {
        self.workspaces.entry(workspace).or_default().insert(user, role)
    }

    fn of(&self, workspace: &WorkspaceName) -> BTreeMap<Key, Role> {
        self.workspaces.get(workspace).cloned().unwrap_or_default()
    }
}

/// What a new list changed for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberChange {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The user.
    pub user: String,
    /// The role before; none for a new member.
    pub before: Option<Role>,
    /// The role from here on; none for somebody who is no member any more.
    pub after: Option<Role>,
}

/// Makes the rows of every workspace say what `list` says. Those of a workspace that is still to be
/// made are written with it.
pub(crate) fn admit_now(
    store: &mut Store,
    list: &MemberList,
    now_ms: i64,
) -> Result<Vec<MemberChange>> {
    let mut changes = Vec::new();
    for (workspace, meta) in read::workspaces(store.newest())? {
        if meta.epoch.is_some() && !workspace.is_reserved() {
            changes.append(&mut write(store, &workspace, list, now_ms)?);
        }
    }
    Ok(changes)
}

/// Writes the rows of one workspace that differ from the list.
pub(crate) fn write(
    store: &mut Store,
    workspace: &WorkspaceName,
    list: &MemberList,
    now_ms: i64,
) -> Result<Vec<MemberChange>> {
    let (wanted, known) = (list.of(workspace), rows(store.newest(), workspace)?);
    let mut changes = Vec::new();
    for user in wanted.keys().chain(known.keys().filter(|user| !wanted.contains_key(*user))) {
        let (before, after) = (known.get(user).copied().flatten(), wanted.get(user).copied());
        // A row that says no role is put right too.
        if before != after || (after.is_none() && known.contains_key(user)) {
            changes.push((user.clone(), before, after));
        }
    }
    for changes in changes.chunks(MAX_BATCH_OPS) {
        append(store, workspace, changes, now_ms)?;
    }
    let told = |(user, before, after): (Key, _, _)| {
        let (workspace, user) = (workspace.clone(), user.as_str().to_owned());
        MemberChange { workspace, user, before, after }
    };
    Ok(changes.into_iter().map(told).collect())
}

fn append(
    store: &mut Store,
    workspace: &WorkspaceName,
    changes: &[(Key, Option<Role>, Option<Role>)],
    now_ms: i64,
) -> Result<()> {
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let (first_seq, time_ms) = (meta.head + 1, now_ms.max(meta.time_ms));
    let (mut own, mut previous) = (Vec::new(), Vec::new());
    for (user, _, after) in changes {
        let row_key = keys::row_key(workspace, meta.generation, &tables::members(), user);
        let stored = read::row(newest, &row_key)?;
        previous.push(stored.as_ref().map_or(0, |stored| stored.position));
        let is_live = stored.is_some_and(|stored| !stored.row.deleted);
        own.push(op(user.clone(), *after, is_live, time_ms));
    }
    let mut batch_id = BatchId::default();
    batch_id.0[..8].copy_from_slice(&first_seq.to_be_bytes());
    let frame = own::batch(workspace, meta.head, (batch_id, time_ms), (own, previous));
    let payload = Payload::Decided(frame);
    // Nobody stays a member because the disk is full.
    store.append_urgent(payload.kind(), &payload.to_bytes())?;
    Ok(())
}

fn op(user: Key, role: Option<Role>, is_live: bool, now_ms: i64) -> Op {
    let action = match role {
        None => Action::Delete,
        Some(role) => {
            let fields =
                [("role", Value::Text(role.as_str().into())), ("since_ms", Value::Int(now_ms))];
            let fields = fields.iter().map(|(name, value)| Field::new(name, value)).collect();
            let record = Record::from_fields(fields);
            match is_live {
                true => Action::Put { record },
                false => Action::Create { record, replace: false },
            }
        }
    };
    Op { table: tables::members(), key: user, base: 0, revision: 1, hlc: Hlc::default(), action }
}

/// The live rows of a workspace; a role is missing where a row says none that is known.
fn rows<S: ReadState>(state: &S, workspace: &WorkspaceName) -> Result<BTreeMap<Key, Option<Role>>> {
    let generation = read::meta(state, workspace)?.generation;
    let prefix = keys::table_prefix(workspace, generation, &tables::members());
    let mut rows = BTreeMap::new();
    read::visit_stored(state, &prefix, &keys::prefix_end(&prefix), &mut |_, user, stored| {
        if !stored.row.deleted {
            rows.insert(user, role_of(&stored.row.record));
        }
    })?;
    Ok(rows)
}

fn role_of(record: &Record) -> Option<Role> {
    match record.get("role") {
        Some(Value::Text(role)) => {
            [Role::Owner, Role::Editor, Role::Viewer].into_iter().find(|r| r.as_str() == role)
        }
        _ => None,
    }
}

/// The role of a user in a workspace; none for a stranger. Without a list everybody owns
/// everything. A workspace that is still to be made has the members that the list names.
pub(crate) fn role<S: ReadState>(
    state: &S,
    list: Option<&MemberList>,
    workspace: &WorkspaceName,
    user: &str,
) -> Result<Option<Role>> {
    let Some(list) = list else { return Ok(Some(Role::Owner)) };
    let Ok(user) = Key::new(user) else { return Ok(None) };
    let meta = read::meta(state, workspace)?;
    if meta.epoch.is_none() {
        let members = list.workspaces.get(workspace);
        return Ok(members.and_then(|members| members.get(&user)).copied());
    }
    let row_key = keys::row_key(workspace, meta.generation, &tables::members(), &user);
    let stored = read::row(state, &row_key)?.filter(|stored| !stored.row.deleted);
    Ok(stored.and_then(|stored| role_of(&stored.row.record)))
}

/// What is said of a workspace that was deleted.
fn deleted<S: ReadState>(state: &S, workspace: &WorkspaceName) -> Result<Option<String>> {
    let error = || Error::WorkspaceDeleted { workspace: workspace.clone() }.to_string();
    Ok(read::deleted_ms(state, workspace)?.map(|_| error()))
}

/// What a batch gets whose user may not write.
pub(crate) fn objection<S: ReadState>(
    state: &S,
    list: Option<&MemberList>,
    workspace: &WorkspaceName,
    user: &str,
) -> Result<Option<PushAnswer>> {
    if let Some(message) = deleted(state, workspace)? {
        return Ok(Some(PushAnswer::Deleted { message }));
    }
    Ok(match role(state, list, workspace, user)? {
        Some(Role::Owner | Role::Editor) => None,
        _ if planted(Plant::RoleAtAttachOnly) => None,
        Some(Role::Viewer) => Some(PushAnswer::read_only()),
        None => Some(PushAnswer::Revoked),
    })
}

/// What ends an attachment whose user was told of the role `told`, if that is not so any more.
pub(crate) fn ended<S: ReadState>(
    state: &S,
    list: Option<&MemberList>,
    workspace: &WorkspaceName,
    user: &str,
    (attachment, told): (u64, Role),
) -> Result<Option<Input>> {
    if let Some(message) = deleted(state, workspace)? {
        let code = AttachRefusal::WorkspaceDeleted;
        return Ok(Some(Input::Evict { attachment, code, message }));
    }
    Ok(match role(state, list, workspace, user)? {
        None => Some(Input::Revoked { attachment }),
        Some(role) if role == told => None,
        Some(role) => {
            let message = format!("your role is {role} from here on");
            Some(Input::Evict { attachment, code: AttachRefusal::RoleChanged, message })
        }
    })
}

/// A page for an attachment, if its user is a member in the view that it is read from.
pub(crate) fn page(
    view: &View,
    list: Option<&MemberList>,
    workspace: &WorkspaceName,
    user: &str,
    (attachment, from): (u64, PageFrom),
) -> Result<Input> {
    if let Some(message) = deleted(view, workspace)? {
        let code = AttachRefusal::WorkspaceDeleted;
        return Ok(Input::Evict { attachment, code, message });
    }
    let is_member = role(view, list, workspace, user)?.is_some();
    if !is_member && !planted(Plant::RevokedReads) {
        return Ok(Input::Revoked { attachment });
    }
    Ok(match from {
        PageFrom::Seq(from) => {
            let page = read::changes(view, workspace, from, user)?;
            let read::ChangesPage { to, consistent_at, entries, horizon } = page;
            let page = Changes { attachment, from, to, consistent_at, entries };
            Input::Page { attachment, page, horizon }
        }
        PageFrom::Walk { base, after, from } => {
            let found = read::walk(view, workspace, from.as_ref(), user)?;
            let read::WalkRows { entries, looked_to, head, horizon } = found;
            let page = WalkPage { attachment, base, after, is_last: looked_to.is_none(), entries };
            Input::Walk { page, looked_to, head, horizon }
        }
    })
}
