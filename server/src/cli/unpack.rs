//! The files of an archive on their way into a workspace: stored before its records are written,
//! so that a damaged archive changes nothing, and named after.

use std::collections::BTreeSet;
use std::fs::File;

use lastword::core::schema::{FILES_TABLE, STORAGE_FIELDS};
use lastword::core::value::Record;
use lastword::store::BlobError;
use lastword::{BlobHash, Direction, Error, Staged};

use super::archive::{Archive, bytes_at};
use super::failure::Failure;
use super::lines::{Edit, Line};
use super::output;
use super::put::{Known, MAX_ATTACHED};
use super::records::name as record_name;
use super::session::Session;

/// Stores the files that are not here as a whole yet.
pub(super) fn stage(
    session: &Session,
    (file, archive): (&File, &Archive),
    name: &str,
) -> Result<Vec<Staged>, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{name}: {error}"));
    let known = Known::of(session)?;
    let mut staging = session.ws.files().staging()?;
    let mut staged = Vec::new();
    let bar = output::bytes_progress();
    bar.set_message("storing");
    for (hash, range) in archive.files.iter().filter(|(hash, _)| !known.has(hash)) {
        let BlobHash::Sha256(sha256) = hash else { continue };
        let (from, before) = (bytes_at(file, range).map_err(failed)?, bar.position());
        let mut progress = |bytes| bar.set_position(before + bytes);
        match staging.add_expected(from, "", *sha256, &mut progress) {
            Err(Error::Blob(BlobError::Manifest { .. })) => {
                return Err(Failure::damaged(format!(
                    "{name}: what it has as {hash} is something else; nothing was written: make \
                     or copy the archive again"
                )));
            }
            added => added?,
        }
        if staging.waiting() >= MAX_ATTACHED {
            staged.extend(staging.finish()?);
        }
    }
    staged.extend(staging.finish()?);
    bar.finish_and_clear();
    Ok(staged)
}

/// Ties the stored files to the rows that name them, and queues them to be uploaded; answers which
/// they are. So are those that an earlier run has stored and had no time to queue. A file that no
/// row names is collected by and by.
pub(super) fn attach(
    session: &Session,
    staged: &[Staged],
    archive: &Archive,
) -> Result<BTreeSet<String>, Failure> {
    let mut attached = BTreeSet::new();
    for group in staged.chunks(MAX_ATTACHED) {
        let row = |one: &Staged| record_name(FILES_TABLE, &one.hash().to_string());
        let rows = group.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        let mut named = BTreeSet::new();
        session.ws.write(|tx| {
            for (row, one) in rows.iter().zip(group) {
                if tx.get_record(&row.table, &row.key)?.is_some() {
                    tx.attach(one, "")?;
                    named.insert(one.hash().to_string());
                }
            }
            Ok(())
        })?;
        attached.extend(named);
    }
    let (ours, files) = (archive.files.iter().map(|(hash, _)| *hash), session.ws.files());
    let ours: BTreeSet<BlobHash> = ours.collect();
    for file in files.list()? {
        let Ok(hash) = BlobHash::new(&file.hash) else { continue };
        let waits = file.is_here && !file.is_deleted && !file.is_uploaded && ours.contains(&hash);
        if waits && files.transfer(Direction::Upload, &hash)?.is_none() {
            files.upload(&hash)?;
            attached.insert(file.hash);
        }
    }
    Ok(attached)
}

/// What another server said of where a file is gives way to what the row here says.
pub(super) fn forget_storage(line: &mut Line, live: Option<&Record>) {
    let Edit::Put(record) = &mut line.edit else { return };
    if line.table.as_str() != FILES_TABLE {
        return;
    }
    for name in STORAGE_FIELDS {
        match live.and_then(|live| live.field(name)) {
            Some(field) => record.set(field.clone()),
            None => record.remove(name),
        }
    }
}
