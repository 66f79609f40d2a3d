//! Fields that the server owns: how the authority sets them.
//!
//! A set is an op of the authority in a batch of its own. `rules::apply` carries it out without a
//! stamp, so that it is nobody's edit; the row moves in the stream to the seq of the set.

use lastword_core::hash::BlobHash;
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use lastword_core::op::{Action, Op};
use lastword_core::rules::{self, At};
use lastword_core::schema::STORAGE_FIELDS;
use lastword_core::value::{Record, Value};
use lastword_providers::registry::EMBEDDED;
use lastword_store::payload::{Object, ObjectState, Payload};
use lastword_store::read;
use lastword_store::{Store, View, keys};

use crate::error::{Error, Result};
use crate::file_row;
use crate::own;

/// What a set does to the fields of one record.
pub(crate) struct OwnedFields {
    /// Fields with their new values.
    pub(crate) set: Record,
    /// Fields that go.
    pub(crate) remove: Vec<String>,
}

/// Appends a set of server-owned fields and answers its seq; writes nothing if nothing changes.
pub(crate) fn set_now(
    store: &mut Store,
    workspace: &WorkspaceName,
    (table, key): &(TableName, Key),
    OwnedFields { set, remove }: OwnedFields,
    now_ms: i64,
) -> Result<u64> {
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let row_key = keys::row_key(workspace, meta.generation, table, key);
    let stored = read::row(newest, &row_key)?.filter(|stored| !stored.row.deleted);
    if stored.is_none() {
        let (workspace, table, key) = (workspace.clone(), table.clone(), key.clone());
        return Err(Error::UnknownRecord { workspace, table, key });
    }
    let schema = read::schema(newest, workspace)?.unwrap_or_default();
    let of_table = schema.rules_of(table);
    let mut names = set.fields().iter().map(|field| &field.name).chain(&remove);
    if let Some(field) = names.find(|name| !of_table.server_owned.contains(name)) {
        return Err(Error::NotServerOwned { table: table.clone(), field: field.clone() });
    }
    append(store, workspace, (table, key), OwnedFields { set, remove }, now_ms)
}

/// Says in the row of a file where its bytes are stored, if it has a live one that does not say
/// so yet, and the schema leaves that to the server.
pub(crate) fn set_stored(
    store: &mut Store,
    workspace: &WorkspaceName,
    sha256: &[u8; 32],
    now_ms: i64,
) -> Result<()> {
    let hash = BlobHash::Sha256(*sha256);
    let (table, key) = (file_row::table(), file_row::key_of(&hash));
    let newest = store.newest();
    let Some(home) = home(newest, workspace, sha256)? else { return Ok(()) };
    let generation = read::meta(newest, workspace)?.generation;
    let row = read::row(newest, &keys::row_key(workspace, generation, &table, &key))?;
    let is_live = row.is_some_and(|stored| !stored.row.deleted);
    let schema = read::schema(newest, workspace)?.unwrap_or_default();
    if !is_live || !file_row::says_storage(&schema) {
        return Ok(());
    }
    let values = [hash.to_string(), home].map(Value::Text);
    let set =
        Record::new(&Vec::from_iter(STORAGE_FIELDS.map(String::from).into_iter().zip(values)))?;
    let fields = OwnedFields { set, remove: Vec::new() };
    match append(store, workspace, (&table, &key), fields, now_ms) {
        // The bytes are what counts; who asks for them gets them all the same.
        Err(error @ Error::Value(_)) => {
            tracing::warn!(%workspace, %hash, %error, "the row of a file has no room to say where it is");
            Ok(())
        }
        done => done.map(drop),
    }
}

/// What has a file: this server itself, or the object store of that id.
fn home(state: &View, workspace: &WorkspaceName, sha256: &[u8; 32]) -> Result<Option<String>> {
    if read::blob(state, workspace, sha256)?.is_some() {
        return Ok(Some(EMBEDDED.into()));
    }
    let object = read::object(state, workspace, sha256)?;
    let is_there =
        |object: &Object| matches!(object.state, ObjectState::Stored | ObjectState::Condemned);
    Ok(object.filter(is_there).map(|object| object.provider))
}

/// Takes back what [`set_stored`] said: nobody gets the file from here until somebody uploads it
/// again, and devices that have it do once they see that.
pub(crate) fn clear_stored(
    store: &mut Store,
    workspace: &WorkspaceName,
    sha256: &[u8; 32],
    now_ms: i64,
) -> Result<()> {
    let (table, key) = (file_row::table(), file_row::key_of(&BlobHash::Sha256(*sha256)));
    let newest = store.newest();
    let generation = read::meta(newest, workspace)?.generation;
    let row = read::row(newest, &keys::row_key(workspace, generation, &table, &key))?;
    let schema = read::schema(newest, workspace)?.unwrap_or_default();
    if !file_row::says_storage(&schema) || row.is_none_or(|stored| stored.row.deleted) {
        return Ok(());
    }
    let remove = STORAGE_FIELDS.map(String::from).into();
    let fields = OwnedFields { set: Record::default(), remove };
    append(store, workspace, (&table, &key), fields, now_ms).map(drop)
}

/// As [`set_stored`] for every file that a batch gives a row. It only adds to the batch, so nothing
/// that goes wrong with it may change what was decided.
pub(crate) fn set_stored_of(
    store: &mut Store,
    workspace: &WorkspaceName,
    keys: &[Key],
    now_ms: i64,
) {
    for key in keys {
        if let Ok(BlobHash::Sha256(sha256)) = BlobHash::read(key.as_str())
            && let Err(error) = set_stored(store, workspace, &sha256, now_ms)
        {
            tracing::warn!(%workspace, %key, %error, "the row of a file does not say where it is");
        }
    }
}

/// Appends the set as an op of the authority; answers its seq, or that of the row if nothing
/// changes. The record is live.
fn append(
    store: &mut Store,
    workspace: &WorkspaceName,
    (table, key): (&TableName, &Key),
    OwnedFields { set, remove }: OwnedFields,
    now_ms: i64,
) -> Result<u64> {
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let row_key = keys::row_key(workspace, meta.generation, table, key);
    let stored = read::row(newest, &row_key)?.filter(|stored| !stored.row.deleted);
    let stored = stored.expect("invariant: who calls has seen the row");
    let schema = read::schema(newest, workspace)?.unwrap_or_default();
    let of_table = schema.rules_of(table);
    let action = Action::Patch { set: set.fields().to_vec(), remove };
    let (base, revision, hlc) = (0, 0, Hlc::default());
    let op = Op { table: table.clone(), key: key.clone(), base, revision, hlc, action };
    let (seq, time_ms, op_id) = (meta.head + 1, now_ms.max(meta.time_ms), BatchId::default());
    let at = At { seq, time_ms, op_id };
    let next = rules::apply(Some(&stored.row), &op, DeviceId::AUTHORITY, &at, of_table, &[]);
    let Some(next) = next.filter(|next| next.record != stored.row.record) else {
        return Ok(stored.row.stream_seq());
    };
    next.record.check_size()?;
    next.check_marks()?;
    let (own, previous) = (vec![op], vec![stored.position]);
    let frame = own::batch(workspace, meta.head, (op_id, time_ms), (own, previous));
    let payload = Payload::Decided(frame);
    store.append(payload.kind(), &payload.to_bytes())?;
    Ok(seq)
}
