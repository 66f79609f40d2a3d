//! Backups: hot, checked, repeatable.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lastword_store::{
    BackupError, DirLock, LockError, ReadFault, RealDisk, Store, check_backup, read_backup,
    unpack_backup,
};

use crate::fold::NO_HISTORY;
use crate::support::*;

fn open_in(dir: &Path) -> Store {
    let lock = DirLock::acquire(dir).unwrap();
    let disk = RealDisk::open(lock, options().zero_step).unwrap();
    Store::open(Arc::new(disk), options(), Arc::new(KeepRows)).unwrap().0
}

fn fill(store: &mut Store, from: usize, to: usize) -> Vec<Vec<u8>> {
    let payloads: Vec<_> = (from..to)
        .map(|n| put(&format!("k{}", n % 80), &format!("{n} {}", "v".repeat(150))))
        .collect();
    for payload in &payloads {
        write(store, payload);
    }
    payloads
}

/// B1, I1: a backup holds what was durable when it was begun, whatever is written, checkpointed,
/// folded and removed while it runs; unpacked it is a store of its own.
#[test]
fn a_hot_backup_holds_what_was_durable_when_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup, restored) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("restored"));
    let mut store = open_in(&data);
    let mut all = fill(&mut store, 0, 300);
    assert!(store.fold(&NO_HISTORY).unwrap());
    all.extend(fill(&mut store, 300, 400));
    let job = store.begin_backup().unwrap();
    let later = fill(&mut store, 400, 700);
    assert!(store.fold(&NO_HISTORY).unwrap(), "the base is replaced while the backup runs");
    let mut progress = Vec::new();
    let report = job.run(&backup, 7, &mut |now| progress.push(now)).unwrap();
    assert!(report.files.len() >= 2);
    let last = progress.last().unwrap();
    assert_eq!((last.done_bytes, last.total_bytes), (report.copied_bytes, report.copied_bytes));
    assert_eq!(check_backup(&backup, &mut |_| {}).unwrap().created_ms, 7);
    // What the backup held up goes with the next fold.
    fill(&mut store, 700, 900);
    assert!(store.fold(&NO_HISTORY).unwrap());
    let names = fs::read_dir(&data).unwrap().count();
    assert!(names <= 6, "LOCK, base, one or two segments, state, spares: {names}");

    assert!(matches!(DirLock::acquire(&backup), Err(LockError::Backup { .. })));
    unpack_backup(&backup, &restored, &mut |_| {}).unwrap();
    assert_eq!(dump(&open_in(&restored).view()), model(&all));
    all.extend(later);
    assert_ne!(dump(&store.view()), model(&all), "the store went on");
}

/// B1: a second backup into the same directory copies only what is new, and files that it does not
/// need are gone.
#[test]
fn a_backup_is_repeated_cheaply() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let mut store = open_in(&data);
    let mut all = fill(&mut store, 0, 500);
    let first = store.begin_backup().unwrap().run(&backup, 1, &mut |_| {}).unwrap();
    all.extend(fill(&mut store, 500, 520));
    let second = store.begin_backup().unwrap().run(&backup, 2, &mut |_| {}).unwrap();
    assert!(second.copied_bytes < first.copied_bytes / 2, "{second:?}");
    assert!(store.fold(&NO_HISTORY).unwrap());
    let third = store.begin_backup().unwrap().run(&backup, 3, &mut |_| {}).unwrap();
    assert!(third.files.len() < second.files.len());
    assert_eq!(fs::read_dir(&backup).unwrap().count(), third.files.len() + 1);
    let restored = dir.path().join("restored");
    unpack_backup(&backup, &restored, &mut |_| {}).unwrap();
    assert_eq!(dump(&open_in(&restored).view()), model(&all));
}

/// I15: a backup that was cut short, changed or mixed up is none, and says what to do; a directory
/// with something else in it is left alone.
#[test]
fn a_bad_backup_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let mut store = open_in(&data);
    fill(&mut store, 0, 300);
    let report = store.begin_backup().unwrap().run(&backup, 1, &mut |_| {}).unwrap();
    let text = fs::read(backup.join("BACKUP")).unwrap();
    fs::remove_file(backup.join("BACKUP")).unwrap();
    let error = read_backup(&backup).unwrap_err();
    assert!(matches!(error, BackupError::NotABackup { .. }), "{error}");
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 1;
        fs::write(backup.join("BACKUP"), changed).unwrap();
        let read = read_backup(&backup);
        assert!(matches!(read, Err(BackupError::Damaged { .. } | BackupError::Io { .. })), "{at}");
    }
    fs::write(backup.join("BACKUP"), &text).unwrap();
    let file = backup.join(format!("{:012}", report.files[0].number));
    let mut bytes = fs::read(&file).unwrap();
    bytes[500] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = unpack_backup(&backup, &dir.path().join("new"), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("use another backup"), "{error}");
    assert!(!dir.path().join("new").exists());
    let error = store.begin_backup().unwrap().run(&data, 1, &mut |_| {}).unwrap_err();
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    // The next backup mends what was changed.
    store.begin_backup().unwrap().run(&backup, 2, &mut |_| {}).unwrap();
    check_backup(&backup, &mut |_| {}).unwrap();
    let error = unpack_backup(&backup, &data, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("choose an empty directory"), "{error}");
}

/// I15: two stores whose files have the same numbers and lengths: the second backup into one
/// directory kept the files of the first, and said that it was whole.
#[test]
fn a_backup_never_keeps_the_bytes_of_another_store() {
    let dir = tempfile::tempdir().unwrap();
    let (backup, out) = (dir.path().join("backup"), dir.path().join("out"));
    for value in ["aaaa", "bbbb"] {
        let mut store = open_in(&dir.path().join(value));
        for number in 0..20 {
            write(&mut store, &put(&format!("k{number}"), value));
        }
        store.begin_backup().unwrap().run(&backup, 1, &mut |_| {}).unwrap();
        unpack_backup(&backup, &out, &mut |_| {}).unwrap();
        assert_eq!(dump(&open_in(&out).view()), dump(&store.view()), "{value}");
        fs::remove_dir_all(&out).unwrap();
    }
}

/// B1: a second backup that met a bad sector had truncated a file of the first one already.
#[test]
fn a_backup_that_fails_leaves_the_earlier_one_whole() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let disk = disk();
    let mut store = open(&disk);
    for number in 0..20 {
        write(&mut store, &put(&format!("k{number}"), "base"));
    }
    store.begin_backup().unwrap().run(&backup, 1, &mut |_| {}).unwrap();
    write(&mut store, &put("more", "more"));
    for read in 0..2 {
        let job = store.begin_backup().unwrap();
        disk.set_read_fault(Some((disk.reads() + read, ReadFault::Fails)));
        let failed = job.run(&backup, 2, &mut |_| {}).is_err();
        check_backup(&backup, &mut |_| {}).unwrap();
        assert!(failed || read > 0);
    }
}
