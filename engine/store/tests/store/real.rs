//! Directories of the operating system.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use lastword_store::{
    DirLock, Disk, DiskError, FileKind, LockError, RealDisk, Store, StoreError, ViewHandle,
};

use crate::support::*;

const STEP: u64 = 64 << 10;

fn real(dir: &Path) -> Arc<RealDisk> {
    Arc::new(RealDisk::open(DirLock::acquire(dir).unwrap(), STEP).unwrap())
}

fn open_real(dir: &Path) -> Store {
    let chosen = lastword_store::Options { segment_size: 256 << 10, zero_step: STEP, ..options() };
    Store::open(real(dir), chosen, Arc::new(KeepRows)).unwrap().0
}

/// I1, R1.1: a directory keeps what was committed, over rolls, unclean ends and a clean close.
#[test]
fn a_directory_keeps_what_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for session in 0..3 {
        let mut store = open_real(dir.path());
        assert_eq!(payloads(&store.view_handle()), all);
        for number in 0..150 {
            let payload = put(&format!("k{number}"), &format!("{session}").repeat(4000));
            store.append(KIND, &payload).unwrap();
            all.push(payload);
            if number % 10 == 0 {
                store.commit().unwrap();
                store.prove().unwrap();
            }
        }
        store.commit().unwrap();
        if session == 1 {
            store.close().unwrap();
        }
    }
    let store = open_real(dir.path());
    assert_eq!(dump(&store.view()), model(&all));
    let handle: ViewHandle = store.view_handle();
    drop(store);
    assert_eq!(payloads(&handle).len(), all.len(), "a handle outlives its store");
}

/// Spares are made ahead, handed out once and full of zeros; a clean close keeps one.
#[test]
fn spares_are_ready_and_zero() {
    let dir = tempfile::tempdir().unwrap();
    let disk = real(dir.path());
    let mut taken = Vec::new();
    for _ in 0..6 {
        let number = disk.take_spare(0).unwrap();
        let file = disk.open(number).unwrap();
        let mut bytes = vec![1; STEP as usize];
        file.read_at(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        taken.push(number);
    }
    taken.dedup();
    assert_eq!(taken.len(), 6);
    drop(disk);

    let dir = tempfile::tempdir().unwrap();
    open_real(dir.path()).close().unwrap();
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert!(names.len() <= 4, "lock, segment, state, one spare: {names:?}");
}

/// A second process is told who holds the directory and what to do.
#[test]
fn a_locked_directory_names_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let held = DirLock::acquire(dir.path()).unwrap();
    let error = DirLock::acquire(dir.path()).unwrap_err();
    match &error {
        LockError::Locked { pid, command, .. } => {
            assert_eq!(*pid, std::process::id());
            assert!(!command.is_empty());
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains("stop it"));
    drop(held);
    DirLock::acquire(dir.path()).unwrap();
}

/// A directory with something else in it is left alone.
#[test]
fn a_foreign_directory_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "mine").unwrap();
    assert!(matches!(DirLock::acquire(dir.path()), Err(LockError::NotOurs { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// I15: a numbered file that is no log of ours is damage, not a spare, and nothing is begun beside
/// it.
#[test]
fn a_foreign_numbered_file_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("000000000003"), vec![7; 5000]).unwrap();
    let opened = Store::open(real(dir.path()), options(), Arc::new(KeepRows)).map(drop);
    assert!(matches!(opened, Err(StoreError::Disk(DiskError::Damaged { file: 3, .. }))));
}

/// A birth that was cut short leaves a spare that is wiped before it is used.
#[test]
fn a_stillborn_segment_is_a_spare_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = real(dir.path());
    let number = disk.take_spare(0).unwrap();
    disk.open(number).unwrap().write_at(0, b"LASTWORD\x01").unwrap();
    drop(disk);
    let disk = real(dir.path());
    assert!(disk.list().unwrap().iter().any(|file| file.number == number));
    assert_eq!(disk.take_spare(0).unwrap(), number);
    let mut head = [1; 16];
    disk.open(number).unwrap().read_at(0, &mut head).unwrap();
    assert_eq!(head, [0; 16]);
}

/// I12: the state file is recognised by its name and folded again when it is deleted.
#[test]
fn a_deleted_state_file_is_folded_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open_real(dir.path());
    write(&mut store, &put("a", "1"));
    store.close().unwrap();
    let state = real(dir.path()).list().unwrap();
    let state = state.iter().find(|file| file.kind == FileKind::State).unwrap();
    fs::remove_file(dir.path().join(format!("{:012}.state", state.number))).unwrap();
    let store = open_real(dir.path());
    assert_eq!(store.view().get(A, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    drop(store);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none() && path.file_name().unwrap() != "LOCK" {
            fs::remove_file(path).unwrap();
        }
    }
    let opened = Store::open(real(dir.path()), options(), Arc::new(KeepRows));
    assert!(matches!(opened, Err(StoreError::Damaged { .. })), "a state without its log");
}
