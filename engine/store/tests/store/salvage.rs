//! Salvaging keeps all that can be read and names the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastword_store::limits::HEADER_LEN;
use lastword_store::{
    Apply, BackupError, DirLock, ReadOnlyDisk, RealDisk, SalvageReport, Store, StoreError, salvage,
};

use crate::fold::{BY_VALUE, KeepIndexed, NO_HISTORY};
use crate::support::*;

fn open_in(dir: &Path) -> Result<Store, StoreError> {
    open_as(dir, Arc::new(KeepRows))
}

fn open_as(dir: &Path, apply: Arc<dyn Apply>) -> Result<Store, StoreError> {
    let lock = DirLock::acquire(dir).unwrap();
    let disk = RealDisk::open(lock, options().zero_step)?;
    Ok(Store::open(Arc::new(disk), options(), apply)?.0)
}

fn payload(number: usize) -> Vec<u8> {
    put(&format!("k{:02}", number % 90), &format!("{number:04} {}", "v".repeat(180)))
}

/// A store with a base up to write 200 and 300 more behind it, checkpointed at 350.
fn filled(dir: &Path) -> Vec<Vec<u8>> {
    let mut store = open_in(dir).unwrap();
    let all: Vec<_> = (0..500).map(payload).collect();
    for (number, payload) in all.iter().enumerate() {
        write(&mut store, payload);
        match number {
            199 => assert!(store.fold(&NO_HISTORY).unwrap()),
            349 => store.checkpoint().unwrap(),
            _ => {}
        }
    }
    all
}

/// The files of the log with their kind byte and first position, in order.
fn log_files(dir: &Path) -> Vec<(PathBuf, u8, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if bytes.starts_with(b"LASTWORD") {
            let first = u64::from_le_bytes(bytes[72..80].try_into().unwrap());
            found.push((path, bytes[10], first));
        }
    }
    found.sort_by_key(|(_, kind, first)| (*kind, *first));
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn salvaged(dir: &Path, to: &Path) -> (SalvageReport, Store, u64) {
    let mut beyond = 0;
    let (disk, apply): (_, Arc<dyn Apply>) = (ReadOnlyDisk::new(dir), Arc::new(KeepRows));
    let report = salvage(&disk, to, &apply, 5, [9; 32], &mut |_| beyond += 1).unwrap();
    (report, open_in(to).unwrap(), beyond)
}

fn try_salvage(dir: &Path, to: &Path) -> Result<SalvageReport, BackupError> {
    salvage_as(dir, to, Arc::new(KeepRows))
}

fn salvage_as(dir: &Path, to: &Path, apply: Arc<dyn Apply>) -> Result<SalvageReport, BackupError> {
    salvage(&ReadOnlyDisk::new(dir), to, &apply, 5, [9; 32], &mut |_| {})
}

/// A store that is whole is taken over as it is, without a loss.
#[test]
fn a_whole_store_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let all = filled(&data);
    let (report, store, beyond) = salvaged(&data, &to);
    assert!(report.losses.is_empty() && !report.from_state, "{report:?}");
    assert_eq!((report.end, beyond), (report.was_end, 0));
    assert_eq!(dump(&store.view()), model(&all));
    let again = try_salvage(&data, &to);
    assert!(matches!(again, Err(BackupError::NotEmpty { .. })));
}

/// I7, B1: damage in the log: everything before it is kept, the place is named, and what can be
/// read behind it is counted and handed out.
#[test]
fn the_log_before_the_damage_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let all = filled(&data);
    let segments: Vec<_> = log_files(&data).into_iter().filter(|file| file.1 == 1).collect();
    assert!(segments.len() >= 4, "{segments:?}");
    // Behind the checkpoint, so that redb knows less than the log does.
    let (path, _, first) = segments[segments.len() - 2].clone();
    flip(&path, HEADER_LEN + 3000);
    assert!(matches!(open_in(&data), Err(StoreError::Damaged { .. })));
    let to = dir.path().join("to");
    let (report, store, beyond) = salvaged(&data, &to);
    assert!((first..first + 3000).contains(&report.end), "{report:?}");
    assert!(report.was_end > report.end + 5000 && beyond > 20, "{report:?}");
    assert_eq!(report.losses.len(), 1);
    assert_eq!(report.losses[0].frames_behind, beyond);
    assert!(report.losses[0].error.to_string().contains("is damaged at byte"));
    let shown = dump(&store.view());
    let kept = (0..=all.len()).rfind(|kept| model(&all[..*kept]) == shown).expect("a prefix");
    assert!(kept > 350 && kept < 480, "{kept}");
}

/// B1: the base is damaged and redb is whole: the rows come from redb, and the log behind its
/// checkpoint is kept.
#[test]
fn a_damaged_base_is_made_again_from_redb() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let all = filled(&data);
    let base = log_files(&data).into_iter().find(|file| file.1 == 2).unwrap().0;
    flip(&base, HEADER_LEN + 500);
    let (report, store, _) = salvaged(&data, &to);
    assert!(report.from_state);
    assert!(report.losses.iter().any(|loss| loss.error.to_string().contains("base")), "{report:?}");
    assert_eq!(dump(&store.view()), model(&all));
    drop(store);
    // Without redb too there is nothing to begin with.
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "state") {
            fs::remove_file(path).unwrap();
        }
    }
    let to = dir.path().join("again");
    let nothing = try_salvage(&data, &to);
    assert!(matches!(nothing, Err(BackupError::Nothing)), "{nothing:?}");
}

/// I13: the base that a salvage made of redb held the entries of indexes, which the format page
/// says a base never does. They follow from the rows and are made again.
#[test]
fn a_base_that_is_made_of_redb_leaves_derived_rows_out() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let mut store = open_as(&data, Arc::new(KeepIndexed)).unwrap();
    for number in 0..1200 {
        write(&mut store, format!("k{number}").as_bytes());
    }
    assert!(store.fold(&NO_HISTORY).unwrap());
    drop(store);
    let base = |dir: &Path| log_files(dir).into_iter().find(|file| file.1 == 2).unwrap().0;
    flip(&base(&data), HEADER_LEN + 500);
    assert!(salvage_as(&data, &to, Arc::new(KeepIndexed)).unwrap().from_state);
    let bytes = fs::read(base(&to)).unwrap();
    assert!(!bytes.windows(5).any(|window| window == b"entry"));
    let store = open_as(&to, Arc::new(KeepIndexed)).unwrap();
    for number in 0..1200 {
        let entry = store.view().get(BY_VALUE, format!("k{number}").as_bytes()).unwrap();
        assert_eq!(entry.as_deref(), Some(&b"entry"[..]));
    }
}

/// B1: a segment is gone, or its header: the log ends before it, and the file is named.
#[test]
fn a_missing_segment_ends_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let all = filled(&data);
    let segments: Vec<_> = log_files(&data).into_iter().filter(|file| file.1 == 1).collect();
    let (path, _, first) = segments[segments.len() - 2].clone();
    flip(&path, 20);
    let (report, store, beyond) = salvaged(&data, &dir.path().join("to"));
    assert_eq!(report.end, first);
    assert!(beyond > 0 && report.losses.len() == 2, "{report:?}");
    let shown = dump(&store.view());
    assert!((350..500).any(|kept| model(&all[..kept]) == shown));
    fs::remove_file(path).unwrap();
    let (report, _, _) = salvaged(&data, &dir.path().join("again"));
    assert_eq!((report.end, report.losses.len()), (first, 1));
}

/// I7: a torn tail is no loss: it was never acknowledged.
#[test]
fn a_torn_tail_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let (data, to) = (dir.path().join("data"), dir.path().join("to"));
    let mut store = open_in(&data).unwrap();
    let all: Vec<_> = (0..20).map(payload).collect();
    for payload in &all {
        write(&mut store, payload);
    }
    drop(store);
    let (path, _, first) = log_files(&data).pop().unwrap();
    assert_eq!(first, 0);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[end + 40..end + 200].fill(7);
    fs::write(&path, bytes).unwrap();
    let (report, store, beyond) = salvaged(&data, &to);
    assert!(report.losses.is_empty() && beyond == 0, "{report:?}");
    assert_eq!(dump(&store.view()), model(&all));
}

/// I7, B1: the last segment is an older copy that ends before the base does. The salvaged store was
/// refused like the damaged one, or went on behind a hole; now the log goes on in a segment of its
/// own, and every row of the base is there.
#[test]
fn a_log_that_ends_before_its_base_is_salvaged() {
    for with_state in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (data, to) = (dir.path().join("data"), dir.path().join("to"));
        let mut store = open_in(&data).unwrap();
        let all: Vec<_> = (0..20).map(payload).collect();
        let mut old = Vec::new();
        for (number, payload) in all.iter().enumerate() {
            write(&mut store, payload);
            if number == 9 {
                old = fs::read(data.join("000000000001")).unwrap();
            }
        }
        if with_state {
            store.checkpoint().unwrap();
        } else {
            assert!(store.fold(&NO_HISTORY).unwrap());
        }
        drop(store);
        let logs = log_files(&data);
        fs::write(&logs[0].0, old).unwrap();
        assert!(matches!(open_in(&data), Err(StoreError::Damaged { .. })));
        let (report, mut store, _) = salvaged(&data, &to);
        assert_eq!((report.from_state, report.losses.len()), (with_state, 1), "{report:?}");
        assert_eq!(dump(&store.view()), model(&all));
        write(&mut store, &payload(30));
        drop(store);
        let rows = dump(&open_in(&to).unwrap().view());
        assert_eq!(rows, model(all.iter().chain([&payload(30)])));
    }
}
