//! Restoring: a backup becomes a store of its own, which can never be taken for the original.
//!
//! A server's workspaces go on under a new epoch, and their seqs behind every seq that the original
//! can have given; a device's copy becomes another device.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastword_core::id::{DeviceId, Epoch};
use lastword_core::limits::MAX_FORMER_DEVICES;
use lastword_store::keys::OutboxEntry;
use lastword_store::payload::{Identity, Payload, Restored, StoreRole};
use lastword_store::{BackupError, BackupReport, OnProgress, Store, read, unpack_backup};

use crate::dead_letter;
use crate::environment::{now_ms, random};
use crate::error::{Error, Result};
use crate::open::{self, AsIs};

/// Seqs jump by so many a second: no authority gives more.
const SEQS_PER_SECOND: u64 = 1 << 20;
/// A clock that is further behind than this is not waited for, in seconds.
const MAX_WAIT_S: u64 = 60;

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

/// A workspace of a server that was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredWorkspace {
    /// Its name.
    pub workspace: String,
    /// Its new epoch.
    pub epoch: Epoch,
    /// Last seq that the backup knows.
    pub branch: u64,
    /// Seqs go on behind this one.
    pub head: u64,
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
    must_be_free(to)?;
    let unfinished = unfinished(to)?;
    let restored = unpack_backup(dir, &unfinished, progress)
        .map_err(Error::from)
        .and_then(|backup| renew(&unfinished, backup, drop_outbox))
        .and_then(|report| move_to(&unfinished, to).map(|()| report));
    if restored.is_err() && unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|error| file_error(&unfinished, &error))?;
    }
    restored
}

fn file_error(path: &Path, error: &std::io::Error) -> Error {
    Error::File { path: path.to_owned(), reason: error.to_string() }
}

fn must_be_free(to: &Path) -> Result<()> {
    let mut entries = match fs::read_dir(to) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file_error(to, &error)),
    };
    match entries.next() {
        None => Ok(()),
        Some(entry) => {
            let entry = entry.map_err(|error| file_error(to, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Err(BackupError::NotEmpty { dir: to.to_owned(), name }.into())
        }
    }
}

/// Where the store is made: beside its place, so that it can be moved there.
fn unfinished(to: &Path) -> Result<PathBuf> {
    let Some(name) = to.file_name() else {
        return Err(Error::File { path: to.to_owned(), reason: "it has no name".into() });
    };
    let mut name = name.to_owned();
    name.push(".restoring");
    let path = to.with_file_name(name);
    if path.exists() {
        let reason = "an earlier restore did not finish: remove it, then restore again".into();
        return Err(Error::File { path, reason });
    }
    Ok(path)
}

fn move_to(unfinished: &Path, to: &Path) -> Result<()> {
    // An empty directory is in the way on some systems.
    if to.exists() {
        fs::remove_dir(to).map_err(|error| file_error(to, &error))?;
    }
    fs::rename(unfinished, to).map_err(|error| file_error(to, &error))?;
    // Windows makes names durable by itself and opens no directory.
    if cfg!(windows) {
        return Ok(());
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let synced = fs::File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(|error| file_error(parent, &error))
}

/// Gives the unpacked store its new identity.
fn renew(dir: &Path, backup: BackupReport, drop_outbox: bool) -> Result<RestoreReport> {
    let (opened, mut store) = open::open_as_is(dir, &AsIs::default())?;
    let mut report =
        RestoreReport { backup, device: None, workspaces: Vec::new(), dropped_batches: 0 };
    match opened.identity.role {
        StoreRole::Authority => report.workspaces = renew_workspaces(&mut store, now_ms())?,
        StoreRole::Replica => {
            report.dropped_batches = drop_undecided(&mut store, drop_outbox)?;
            let now = renew_device(&mut store, &opened.identity)?;
            report.device = Some((opened.identity.device, now));
        }
    }
    store.close()?;
    wait_for_clock(report.workspaces.iter().map(|workspace| workspace.head).max())?;
    Ok(report)
}

/// The seq behind which a restored workspace goes on: above all that the backup knows, and above
/// all that the original has given since.
fn jump(head: u64, now_ms: i64) -> u64 {
    let seconds = u64::try_from(now_ms / 1000).unwrap_or(0);
    let above = head.saturating_add(1).max(seconds.saturating_mul(SEQS_PER_SECOND));
    above.checked_next_multiple_of(SEQS_PER_SECOND).unwrap_or(above)
}

fn renew_workspaces(store: &mut Store, now_ms: i64) -> Result<Vec<RestoredWorkspace>> {
    let mut renewed = Vec::new();
    for (workspace, meta) in read::workspaces(store.newest())? {
        let (epoch, branch, head) = (Epoch(random()), meta.head, jump(meta.head, now_ms));
        let name = workspace.as_str().to_owned();
        renewed.push(RestoredWorkspace { workspace: name, epoch, branch, head });
        let frame = Restored { workspace, epoch, branch, head, time_ms: now_ms };
        append(store, &Payload::Restored(frame))?;
    }
    Ok(renewed)
}

/// Another restore of the same backup must jump higher, so the second in which this one did has to
/// be over.
fn wait_for_clock(head: Option<u64>) -> Result<()> {
    let Some(head) = head else { return Ok(()) };
    let over_ms = (head / SEQS_PER_SECOND + 1).saturating_mul(1000);
    loop {
        let now_ms = u64::try_from(now_ms()).unwrap_or(0);
        let left_ms = over_ms.saturating_sub(now_ms);
        if left_ms == 0 {
            return Ok(());
        }
        if left_ms > MAX_WAIT_S * 1000 {
            return Err(Error::ClockBehind { behind_s: left_ms / 1000 });
        }
        std::thread::sleep(Duration::from_millis(left_ms));
    }
}

/// What was not decided leaves the outbox as dead letters, or is in the way; returns how many.
fn drop_undecided(store: &mut Store, drop_outbox: bool) -> Result<u64> {
    let mut waiting = Vec::new();
    for (workspace, meta) in read::workspaces(store.newest())? {
        let first = meta.gone.saturating_add(1);
        let all = read::outbox(store.newest(), &workspace, first, usize::MAX)?;
        let entries = all.into_iter().map(|(_, entry)| entry);
        let undecided: Vec<OutboxEntry> = entries.filter(|e| e.settled.is_none()).collect();
        if !undecided.is_empty() {
            waiting.push((workspace, undecided));
        }
    }
    if !drop_outbox && !waiting.is_empty() {
        let of = |(workspace, entries): &(lastword_core::id::WorkspaceName, Vec<OutboxEntry>)| {
            (workspace.as_str().to_owned(), entries.len() as u64)
        };
        return Err(Error::OutboxWaits { batches: waiting.iter().map(of).collect() });
    }
    for (workspace, undecided) in &waiting {
        for frame in dead_letter::lost_by_restore(workspace, undecided) {
            append(store, &frame)?;
        }
    }
    Ok(waiting.iter().map(|(_, undecided)| undecided.len() as u64).sum())
}

fn renew_device(store: &mut Store, old: &Identity) -> Result<DeviceId> {
    let device = DeviceId(random());
    let mut former = vec![old.device];
    former.extend(&old.former);
    former.truncate(MAX_FORMER_DEVICES);
    let identity = Identity { device, former, created_ms: now_ms(), role: old.role };
    append(store, &Payload::Identity(identity))?;
    Ok(device)
}

fn append(store: &mut Store, payload: &Payload) -> Result<()> {
    store.append(payload.kind(), &payload.to_bytes())?;
    // A frame may be nearly as large as a group.
    store.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use lastword_core::id::{Key, TableName};
    use lastword_core::protocol::Decided;
    use lastword_core::stamp::{Decision, Verdict};
    use lastword_core::value::Record;

    use super::*;
    use crate::database::Database;
    use crate::replicator::store_decisions;
    use crate::workspace::Workspace;

    /// Semantics, section 6: seqs are never reused. A restore goes on above what the backup knows
    /// and above what the original may have given until now, also where the clock is behind.
    #[test]
    fn seqs_go_on_above_all_that_were_given() {
        let second = 1_700_000_000_u64 * SEQS_PER_SECOND;
        assert_eq!(jump(10, 1_700_000_000_999), second);
        assert_eq!(jump(second, 1_700_000_000_999), second + SEQS_PER_SECOND);
        assert_eq!(jump(second + 5, 1_600_000_000_000), second + SEQS_PER_SECOND);
        assert_eq!(jump(0, 0), SEQS_PER_SECOND);
        let far_ahead = jump(u64::MAX / 2, 0);
        assert!(matches!(wait_for_clock(Some(far_ahead)), Err(Error::ClockBehind { .. })));
    }
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
        let stored = db.inner.writer.run(move |store| store_decisions(store, &name, vec![decided]));
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
