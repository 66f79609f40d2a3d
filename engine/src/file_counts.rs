//! The files of a workspace as its authority has them, and how many records name each.
//!
//! `ref_count` is counted when somebody asks, from the records that are there: it is stored nowhere
//! and comes from no client, so it cannot be wrong (semantics, the authority alone counts). Garbage
//! collection goes by more than that: also by what deleted records, history and outboxes name.

use std::collections::{BTreeMap, BTreeSet};

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_core::row::Row;
use lastword_core::schema::{FILES_TABLE, Schema};
use lastword_core::value::Value;
use lastword_providers::registry::EMBEDDED;
use lastword_store::blobs::gather_names;
use lastword_store::keys::{self, ROWS};
use lastword_store::payload::ObjectState;
use lastword_store::{StoreError, View, read};

use crate::authority::Authority;
use crate::error::{Error, Result};

/// A file of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedFile {
    /// Its hash.
    pub hash: BlobHash,
    /// Its length in bytes; as its record says while its bytes are nowhere.
    pub size_bytes: u64,
    /// Live records that name it, its own in `file_meta` left out: in the `blob_fields` of a table
    /// whose schema has any, else in any field.
    pub ref_count: u64,
    /// Id of what keeps its bytes, `embedded` for the server itself; none while they are nowhere.
    pub provider: Option<String>,
    /// Whether `file_meta` has a live record of it.
    pub has_record: bool,
}

type Counted = BTreeMap<[u8; 32], CountedFile>;

fn entry<'a>(counted: &'a mut Counted, sha256: &[u8; 32]) -> &'a mut CountedFile {
    let (hash, provider) = (BlobHash::Sha256(*sha256), None);
    counted.entry(*sha256).or_insert(CountedFile {
        hash,
        size_bytes: 0,
        ref_count: 0,
        provider,
        has_record: false,
    })
}

impl Authority {
    /// Every file of a workspace that is stored or that a record names, in order of its hash. Looks
    /// at all records.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`], [`Error::Store`] if the disk fails or a row is damaged.
    pub fn count_files(&self, workspace: &WorkspaceName) -> Result<Vec<CountedFile>> {
        let (view, mut counted) = (self.view(), Counted::new());
        if !read::workspaces(&*view)?.iter().any(|(known, _)| known == workspace) {
            return Err(Error::UnknownWorkspace { workspace: workspace.clone() });
        }
        read::visit_blobs(&*view, workspace, &mut |stored| {
            let file = entry(&mut counted, &stored.blob.sha256);
            (file.size_bytes, file.provider) = (stored.blob.size, Some(EMBEDDED.to_owned()));
            Ok(())
        })?;
        read::visit_objects(&*view, workspace, &mut |object| {
            if matches!(object.state, ObjectState::Stored | ObjectState::Condemned) {
                let file = entry(&mut counted, &object.sha256);
                // What is here as well is read here.
                if file.provider.is_none() {
                    (file.size_bytes, file.provider) = (object.size, Some(object.provider));
                }
            }
            Ok(())
        })?;
        count_rows(&view, workspace, &mut counted)?;
        Ok(counted.into_values().collect())
    }
}

fn count_rows(view: &View, workspace: &WorkspaceName, counted: &mut Counted) -> Result<()> {
    let schema = read::schema(view, workspace)?;
    let generation = read::meta(view, workspace)?.generation;
    let prefix = keys::rows_prefix(workspace, generation);
    let mut each = |row_key: &[u8], value: &[u8]| -> std::result::Result<bool, StoreError> {
        let row = read::visited_row(row_key, value)?.row;
        match keys::split_row_key(row_key, prefix.len()) {
            _ if row.deleted => {}
            Some((table, _)) if table.is_reserved() => {}
            Some((table, key)) => {
                let own = match table.as_str() == FILES_TABLE {
                    true => note_own(counted, key.as_str(), &row),
                    false => None,
                };
                for sha256 in names_in(&row, blob_fields(schema.as_ref(), &table)) {
                    if own != Some(sha256) {
                        entry(counted, &sha256).ref_count += 1;
                    }
                }
            }
            None => {}
        }
        Ok(true)
    };
    read::visit_range(view, ROWS, &prefix, &keys::prefix_end(&prefix), &mut each)?;
    Ok(())
}

/// Notes that a file has a record of its own; answers which.
fn note_own(counted: &mut Counted, key: &str, row: &Row) -> Option<[u8; 32]> {
    let Ok(BlobHash::Sha256(sha256)) = BlobHash::read(key) else { return None };
    let file = entry(counted, &sha256);
    file.has_record = true;
    if let (None, Some(Value::Int(size))) = (&file.provider, row.record.get("size_bytes")) {
        file.size_bytes = u64::try_from(size).unwrap_or(0);
    }
    Some(sha256)
}

/// The fields of a table that name files; none if any may.
fn blob_fields<'a>(
    schema: Option<&'a Schema>,
    table: &lastword_core::id::TableName,
) -> Option<&'a [String]> {
    let table = schema?.table(table)?;
    (!table.blob_fields.is_empty()).then_some(&table.blob_fields[..])
}

fn names_in(row: &Row, fields: Option<&[String]>) -> BTreeSet<[u8; 32]> {
    let mut names = BTreeSet::new();
    for field in row.record.fields() {
        if fields.is_none_or(|fields| fields.contains(&field.name)) {
            gather_names(&field.value, &mut names);
        }
    }
    names
}
