//! A copy of a store gets an identity of its own and takes its place, so that it can never be taken
//! for the original: what restores and salvages share.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastword_core::id::{DeviceId, Epoch, WorkspaceName};
use lastword_core::limits::MAX_FORMER_DEVICES;
use lastword_core::plant::{Plant, planted};
use lastword_store::keys::OutboxEntry;
use lastword_store::payload::{Identity, Payload, Restored};
use lastword_store::{BackupError, Store, read};

use crate::environment::{now_ms, random};
use crate::error::{Error, Result};

/// Seqs jump by so many a second: no authority gives more.
const SEQS_PER_SECOND: u64 = 1 << 20;
/// A clock that is further behind than this is not waited for, in seconds.
const MAX_WAIT_S: u64 = 60;

/// A workspace of a server that was restored or salvaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredWorkspace {
    /// Its name.
    pub workspace: String,
    /// Its new epoch.
    pub epoch: Epoch,
    /// Last seq that the copy knows.
    pub branch: u64,
    /// Seqs go on behind this one.
    pub head: u64,
}

pub(crate) fn file_error(path: &Path, error: &std::io::Error) -> Error {
    Error::File { path: path.to_owned(), reason: error.to_string() }
}

pub(crate) fn must_be_free(to: &Path) -> Result<()> {
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

/// The place beside `dir` with the same name and `ending` behind it.
pub(crate) fn beside(dir: &Path, ending: &str) -> Result<PathBuf> {
    let Some(name) = dir.file_name() else {
        return Err(Error::File { path: dir.to_owned(), reason: "it has no name".into() });
    };
    let mut name: OsString = name.to_owned();
    name.push(ending);
    Ok(dir.with_file_name(name))
}

/// Where the store is made: beside its place, so that it can be moved there.
pub(crate) fn unfinished(to: &Path, ending: &str) -> Result<PathBuf> {
    let path = beside(to, ending)?;
    if path.exists() {
        let reason = "an earlier run did not finish: remove it, then run the command again".into();
        return Err(Error::File { path, reason });
    }
    Ok(path)
}

pub(crate) fn move_to(unfinished: &Path, to: &Path) -> Result<()> {
    // An empty directory is in the way on some systems.
    if to.exists() {
        fs::remove_dir(to).map_err(|error| file_error(to, &error))?;
    }
    fs::rename(unfinished, to).map_err(|error| file_error(to, &error))?;
    sync_names_beside(to)
}

/// Makes the name of `dir` durable.
pub(crate) fn sync_names_beside(dir: &Path) -> Result<()> {
    // Windows makes names durable by itself and opens no directory.
    if cfg!(windows) {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let synced = fs::File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(|error| file_error(parent, &error))
}

/// The seq behind which a restored workspace goes on: above all that the copy knows, and above
/// all that the original has given since.
fn jump(head: u64, now_ms: i64) -> u64 {
    if planted(Plant::SeqsGivenAgain) {
        return head;
    }
    let seconds = u64::try_from(now_ms / 1000).unwrap_or(0);
    let above = head.saturating_add(1).max(seconds.saturating_mul(SEQS_PER_SECOND));
    above.checked_next_multiple_of(SEQS_PER_SECOND).unwrap_or(above)
}

/// Begins another history in every workspace, behind what was given until now.
pub(crate) fn workspaces(store: &mut Store, now_ms: i64) -> Result<Vec<RestoredWorkspace>> {
    workspaces_under(store, now_ms, &mut || Epoch(random()))
}

/// The same; each history gets its epoch from `epoch`.
pub(crate) fn workspaces_under(
    store: &mut Store,
    now_ms: i64,
    epoch: &mut dyn FnMut() -> Epoch,
) -> Result<Vec<RestoredWorkspace>> {
    let mut renewed = Vec::new();
    for (workspace, meta) in read::workspaces(store.newest())? {
        // A deleted one has no history to go on with.
        if read::deleted_ms(store.newest(), &workspace)?.is_some() {
            continue;
        }
        let (epoch, branch, head) = (epoch(), meta.head, jump(meta.head, now_ms));
        let name = workspace.as_str().to_owned();
        renewed.push(RestoredWorkspace { workspace: name, epoch, branch, head });
        let frame = Restored { workspace, epoch, branch, head, time_ms: now_ms };
        append(store, &Payload::Restored(frame))?;
    }
    Ok(renewed)
}

/// Another copy of the same store must jump higher, so the second in which this one did has to
/// be over.
pub(crate) fn wait_for_clock(head: Option<u64>) -> Result<()> {
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
        // The rule is about the clock itself: nothing else tells that its second is over.
        std::thread::sleep(Duration::from_millis(left_ms));
    }
}

/// Makes another device of the store, with an empty outbox.
pub(crate) fn device(store: &mut Store, old: &Identity) -> Result<DeviceId> {
    let device = DeviceId(random());
    let mut former = vec![old.device];
    former.extend(&old.former);
    former.truncate(MAX_FORMER_DEVICES);
    let identity = Identity { device, former, created_ms: now_ms(), role: old.role };
    append(store, &Payload::Identity(identity))?;
    Ok(device)
}

/// Those batches of the outbox that are `wanted`, per workspace.
pub(crate) fn outbox(
    store: &Store,
    wanted: impl Fn(&OutboxEntry) -> bool,
) -> Result<Vec<(WorkspaceName, Vec<OutboxEntry>)>> {
    let mut waiting = Vec::new();
    for (workspace, meta) in read::workspaces(store.newest())? {
        let first = meta.gone.saturating_add(1);
        let all = read::outbox(store.newest(), &workspace, first, usize::MAX)?;
        let entries = all.into_iter().map(|(_, entry)| entry);
        let entries: Vec<OutboxEntry> = entries.filter(&wanted).collect();
        if !entries.is_empty() {
            waiting.push((workspace, entries));
        }
    }
    Ok(waiting)
}

/// What is said of an outbox that is in the way.
pub(crate) fn outbox_waits(waiting: &[(WorkspaceName, Vec<OutboxEntry>)]) -> Error {
    let of = |(workspace, entries): &(WorkspaceName, Vec<OutboxEntry>)| {
        (workspace.as_str().to_owned(), entries.len() as u64)
    };
    Error::OutboxWaits { batches: waiting.iter().map(of).collect() }
}

pub(crate) fn append(store: &mut Store, payload: &Payload) -> Result<()> {
    // A backup has no state, so opening its copy may have folded more than an append may find.
    if store.wants_checkpoint() {
        store.commit()?;
        store.checkpoint()?;
    }
    store.append(payload.kind(), &payload.to_bytes())?;
    // A frame may be nearly as large as a group.
    store.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lastword_store::apply::ApplyPayload;
    use lastword_store::payload::StoreRole;
    use lastword_store::{MemoryDisk, Options};

    use super::*;
    use crate::open;

    /// I15. A backup has no state, so opening its copy folded all of it into one delta, more than
    /// an append may find: its first frame was refused, and the backup could not be restored.
    #[test]
    fn a_backup_of_more_than_a_delta_is_restored() {
        const WORKSPACES: usize = 50;
        let disk = MemoryDisk::new(1 << 20);
        let open = |options: Options| {
            let apply = Arc::new(ApplyPayload::default());
            Store::open(Arc::new(disk.clone()), options, apply).expect("it opens").0
        };
        let mut store = open(Options::default());
        open::introduce(&mut store, StoreRole::Authority, DeviceId::AUTHORITY, 1).expect("fits");
        for number in 0..WORKSPACES {
            let workspace = WorkspaceName::new(&format!("w{number}")).expect("a name");
            let epoch = Epoch([1; 16]);
            let frame = Restored { workspace, epoch, branch: 0, head: 9, time_ms: 1 };
            append(&mut store, &Payload::Restored(frame)).expect("it fits");
        }
        store.close().expect("it closes");

        let cap = 1024;
        let small = Options { delta_cap_bytes: cap, rebuild_state: true, ..Options::default() };
        let mut store = open(small);
        assert!(store.delta_bytes() > 2 * cap, "{}", store.delta_bytes());
        let renewed = workspaces(&mut store, 1).expect("it is restored");
        assert_eq!(renewed.len(), WORKSPACES);
    }

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
}
