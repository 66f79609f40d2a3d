//! The files of an archive on their way into a workspace: stored before its records are written,
//! so that a damaged archive changes nothing, and named after.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use lastword::Staged;
use lastword::core::schema::{FILES_TABLE, STORAGE_FIELDS};
use lastword::core::value::Record;

use super::archive;
use super::failure::Failure;
use super::lines::{Edit, Line};
use super::output;
use super::session::Session;

/// Files that are named by one write.
const MAX_ATTACHED: usize = 200;

/// Stores the files that no live row of a file here names yet.
pub(super) fn stage(
    session: &Session,
    archive: &mut File,
    name: &str,
) -> Result<Vec<Staged>, Failure> {
    let files = session.ws.files();
    let known = files.list()?.into_iter().filter(|file| file.is_here && !file.is_deleted);
    let known: BTreeSet<String> = known.map(|file| file.hash).collect();
    let mut staged = Vec::new();
    let bar = output::bytes_progress();
    bar.set_message("storing");
    archive::visit_files(archive, name, &mut |hash, size, from| {
        if known.contains(&hash.to_string()) {
            return Ok(());
        }
        let mut from: Box<dyn Read + '_> = Box::new(from);
        let before = bar.position();
        let one = files.stage_from(&mut from, "", &mut |bytes| bar.set_position(before + bytes))?;
        if one.hash() != hash || one.size_bytes() != size {
            return Err(Failure::damaged(format!(
                "{name}: what it has as {hash} is {}; nothing was written: make the archive again",
                one.hash()
            )));
        }
        staged.push(one);
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(staged)
}

/// Ties the stored files to the rows that name them, and queues them to be uploaded; answers how
/// many there are. A file that no row names is collected by and by.
pub(super) fn attach(session: &Session, staged: &[Staged]) -> Result<u64, Failure> {
    let live = session.ws.files().list()?.into_iter().filter(|file| !file.is_deleted);
    let live: BTreeSet<String> = live.map(|file| file.hash).collect();
    let mut attached = 0;
    for group in staged.chunks(MAX_ATTACHED) {
        let named = || group.iter().filter(|one| live.contains(&one.hash().to_string()));
        if named().next().is_none() {
            continue;
        }
        session.ws.write(|tx| named().try_for_each(|one| tx.attach(one, "")))?;
        attached += named().count() as u64;
    }
    Ok(attached)
}

/// Takes what another server said of where a file is out of its row, and out of the row that is
/// here when the two are compared.
pub(super) fn forget_storage(line: &mut Line, live: Option<&mut Record>) {
    let Edit::Put(record) = &mut line.edit else { return };
    if line.table.as_str() != FILES_TABLE {
        return;
    }
    let forget = |record: &mut Record| STORAGE_FIELDS.iter().for_each(|name| record.remove(name));
    forget(record);
    live.map(forget);
}
