//! Restoring: a backup becomes a store of its own, which can never be taken for the original.
//!
//! A server's workspaces go on under a new epoch, and their seqs behind every seq that the original
//! can have given; a device's copy becomes another device.

use std::fs;
use std::path::Path;

use lastword_core::id::DeviceId;
use lastword_store::payload::StoreRole;
use lastword_store::{BackupReport, OnProgress, Store, unpack_backup};

use crate::dead_letter;
use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::open::{self, AsIs};
use crate::renew::{self, RestoredWorkspace, file_error};
use crate::survivors::LOST_BY_RESTORE;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// The backup.
    pub backup: BackupReport,
    /// Of a device's copy: the id it had, and the one it has now.
    pub device: Option<(DeviceId, DeviceId)>,
    /// Of a server's data: each workspace.
    pub workspaces: Vec<RestoredWorkspace>,
    /// Batches of the outbox that are dead letters now.
    pub dropped_batches: u64,
}

/// Makes a store in `to`, which must be missing or empty, from the backup in `dir`, whose files are
/// checked first. Only a store that is complete appears there; what is under way is in `to` with
/// `.restoring` at its end. Waits up to a few seconds, until no other restore can give a seq again.
///
/// # Errors
/// [`Error::Backup`] if the backup is damaged or a file cannot be written, [`Error::OutboxWaits`]
/// if a device's copy has batches that no server had decided and `drop_outbox` is not set,
/// [`Error::ClockBehind`], [`Error::Store`].
pub fn restore(
    dir: &Path,
    to: &Path,
    drop_outbox: bool,
    progress: &mut OnProgress<'_>,
) -> Result<RestoreReport> {
    renew::must_be_free(to)?;
    let unfinished = renew::unfinished(to, ".restoring")?;
    let restored = unpack_backup(dir, &unfinished, progress)
        .map_err(Error::from)
        .and_then(|backup| identify(&unfinished, backup, drop_outbox))
        .and_then(|report| renew::move_to(&unfinished, to).map(|()| report));
    if restored.is_err() && unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|error| file_error(&unfinished, &error))?;
    }
    restored
}

/// Gives the unpacked store its new identity.
fn identify(dir: &Path, backup: BackupReport, drop_outbox: bool) -> Result<RestoreReport> {
    let (opened, mut store) = open::open_as_is(dir, &AsIs::default())?;
    let mut report =
        RestoreReport { backup, device: None, workspaces: Vec::new(), dropped_batches: 0 };
    match opened.identity.role {
        StoreRole::Authority => report.workspaces = renew::workspaces(&mut store, now_ms())?,
        StoreRole::Replica => {
            report.dropped_batches = drop_undecided(&mut store, drop_outbox)?;
            let now = renew::device(&mut store, &opened.identity)?;
            report.device = Some((opened.identity.device, now));
        }
    }
    store.close()?;
    renew::wait_for_clock(report.workspaces.iter().map(|workspace| workspace.head).max())?;
    Ok(report)
}

/// What was not decided leaves the outbox as dead letters, or is in the way; returns how many.
fn drop_undecided(store: &mut Store, drop_outbox: bool) -> Result<u64> {
    let waiting = renew::outbox(store, |entry| entry.settled.is_none())?;
    if !drop_outbox && !waiting.is_empty() {
        return Err(renew::outbox_waits(&waiting));
    }
    let why = "not decided when the backup was made that this device was restored from";
    for (workspace, undecided) in &waiting {
        for frame in dead_letter::of_unsent(workspace, LOST_BY_RESTORE, why, undecided, now_ms()) {
            renew::append(store, &frame)?;
        }
    }
    Ok(waiting.iter().map(|(_, undecided)| undecided.len() as u64).sum())
}

#[cfg(test)]
mod tests {
    use lastword_core::id::{Key, TableName};
    use lastword_core::protocol::Decided;
    use lastword_core::stamp::{Decision, Verdict};
    use lastword_core::value::Record;
    use lastword_store::read;

    use super::*;
    use crate::database::Database;
    use crate::replicator::store_decisions;
    use crate::workspace::Workspace;

    /// I19, I20. A batch that the server had decided and the stream not shown when the backup was
    /// made stayed under its old counter, where batches of the new device would have met it.
    #[test]
    fn another_device_begins_with_an_empty_outbox() {
        let dir = tempfile::tempdir().expect("a folder");
        let db = Database::open(dir.path().join("phone")).expect("it opens");
        let ws = db.workspace("main").expect("a name");
        let (table, key) =
            (TableName::new("notes").expect("a name"), Key::new("n1").expect("a key"));
        let put = |ws: &Workspace| ws.write(|tx| tx.put_record(&table, &key, Record::default()));
        put(&ws).expect("it is written");
        let (_, entry) = read::outbox(&*db.view(), ws.name(), 1, 1).expect("it reads").remove(0);
        let verdicts = vec![Verdict::Applied { dropped: Vec::new() }];
        let decision = Decision::Accepted { first_seq: 9, last_seq: 9, time_ms: 1, verdicts };
        let decided = Decided { counter: 1, batch_id: entry.batch_id, decision };
        let name = ws.name().clone();
        let stored =
            db.inner.writer.run(move |store| store_decisions(store, &name, vec![decided], 1));
        stored.expect("it is stored");
        assert_eq!(ws.status().expect("it reads").settled, 1);
        let (backup, copy) = (dir.path().join("backup"), dir.path().join("copy"));
        db.backup(&backup, &mut |_| {}).expect("it is copied");

        let report = restore(&backup, &copy, false, &mut |_| {}).expect("nothing is undecided");
        let db = Database::open(&copy).expect("it opens");
        assert_eq!(report.device.map(|(_, now)| now), Some(db.device()));
        let ws = db.workspace("main").expect("a name");
        let status = ws.status().expect("it reads");
        assert_eq!((status.undecided, status.settled), (0, 0));
        assert!(ws.get_record(&table, &key).expect("it reads").is_none());
        put(&ws).expect("it is written");
        let outbox = read::outbox(&*db.view(), ws.name(), 0, 9).expect("it reads");
        assert_eq!(outbox.iter().map(|(counter, _)| *counter).collect::<Vec<_>>(), [1]);
    }
}
