//! Cut, flipped and foreign bytes.

use std::sync::Arc;

use lastword_store::limits::{HEADER_LEN, SCAN_CHUNK};
use lastword_store::{
    Apply, ApplyError, Disk, DiskError, FileKind, FrameRef, MemoryDisk, Options, ReadFault,
    StateTxn, Store, StoreError, Survival,
};

use crate::fold::{NO_HISTORY, lose_a_row};
use crate::support::*;
use crate::verify::verified;

/// A disk with one segment of `frames` groups of one frame, each proven but the last.
fn small_log(frames: usize, value: usize) -> (MemoryDisk, u64) {
    let disk = disk();
    let big = Options { segment_size: 1 << 20, ..options() };
    let (mut store, _) = open_with(&disk, big).unwrap();
    for number in 0..frames {
        write(&mut store, &put(&format!("k{number}"), &"v".repeat(value)));
    }
    store.prove().unwrap();
    drop(store);
    let log = files(&disk, FileKind::Log);
    assert_eq!(log.len(), 1);
    (disk, log[0])
}

/// The same log without the state, so that all of it is read.
fn without_state(disk: &MemoryDisk) -> MemoryDisk {
    let disk = copy(disk);
    for state in files(&disk, FileKind::State) {
        disk.remove(state).unwrap();
    }
    disk
}

/// I15, I7: every prefix of a log opens to a frame boundary, or to a typed error inside the header.
#[test]
fn every_prefix_of_a_log_opens_to_a_frame_boundary() {
    let (disk, log) = small_log(6, 20);
    let all = payloads(&open(&copy(&disk)).view_handle());
    let disk = without_state(&disk);
    let bytes = disk.bytes(log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut longest = 0;
    for len in 0..=end {
        let cut = copy(&disk);
        cut.replace(log, bytes[..len].to_vec());
        match try_open(&cut) {
            Ok((store, _)) => {
                let found = payloads(&store.view_handle());
                assert!(all.starts_with(&found), "length {len}");
                assert!(found.len() >= longest, "length {len}");
                longest = found.len();
            }
            Err(StoreError::Disk(DiskError::Damaged { .. })) => assert!(len < HEADER_LEN),
            Err(other) => panic!("length {len}: {other}"),
        }
    }
    assert_eq!(longest, all.len());
}

/// I7, I15: a flipped bit anywhere in 64 KiB of log is found, or lies in the last group.
#[test]
fn a_flipped_bit_is_damage_or_in_the_last_group() {
    let (disk, log) = small_log(120, 560);
    let all = payloads(&open(&copy(&disk)).view_handle());
    let disk = without_state(&disk);
    let bytes = disk.bytes(log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(end > 64 << 10);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2500 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let bit = random as usize % (end * 8);
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let disk = copy(&disk);
        disk.replace(log, flipped);
        match try_open(&disk) {
            // Only the empty proof at the end can go unnoticed.
            Ok((store, _)) => assert_eq!(payloads(&store.view_handle()), all, "bit {bit}"),
            Err(StoreError::Damaged { file, offset, .. }) => {
                assert_eq!(file, log);
                assert!(offset <= bit as u64 / 8);
            }
            Err(StoreError::Disk(DiskError::Damaged { .. } | DiskError::TooNew { .. })) => {
                assert!(bit / 8 < HEADER_LEN, "bit {bit}");
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

/// I7: a log that ends below what redb has seen is damage, never a shorter log.
#[test]
fn a_log_that_ends_below_the_state_is_damage() {
    let (disk, log) = small_log(10, 50);
    let mut store = open(&disk);
    store.checkpoint().unwrap();
    drop(store);
    let bytes = disk.bytes(log).unwrap();
    disk.replace(log, bytes[..HEADER_LEN + 200].to_vec());
    let second = files(&disk, FileKind::Log)[1];
    lastword_store::Disk::remove(&disk, second).unwrap();
    assert!(matches!(try_open(&disk), Err(StoreError::Damaged { .. })));
    for file in files(&disk, FileKind::Log) {
        lastword_store::Disk::remove(&disk, file).unwrap();
    }
    assert!(matches!(try_open(&disk), Err(StoreError::Damaged { .. })));
}

/// I7, I15: a missing, swapped or changed segment is named.
#[test]
fn segments_that_do_not_follow_one_another_are_damage() {
    let disk = disk();
    let mut store = open(&disk);
    for _ in 0..30 {
        write(&mut store, &put("k", &"v".repeat(2000)));
    }
    drop(store);
    let disk = without_state(&disk);
    let logs = files(&disk, FileKind::Log);
    assert!(logs.len() >= 4);
    for missing in &logs[..logs.len() - 1] {
        let disk = copy(&disk);
        lastword_store::Disk::remove(&disk, *missing).unwrap();
        assert!(matches!(try_open(&disk), Err(StoreError::Damaged { .. })), "{missing}");
    }
    for changed in &logs[..logs.len() - 1] {
        let disk = copy(&disk);
        let mut bytes = disk.bytes(*changed).unwrap();
        bytes[HEADER_LEN + 2100] ^= 1;
        disk.replace(*changed, bytes);
        match try_open(&disk) {
            Err(StoreError::Damaged { file, .. }) => assert_eq!(file, *changed),
            other => panic!("{other:?}"),
        }
    }
    let swapped = copy(&disk);
    swapped.replace(logs[1], disk.bytes(logs[2]).unwrap());
    swapped.replace(logs[2], disk.bytes(logs[1]).unwrap());
    assert!(matches!(try_open(&swapped), Err(StoreError::Disk(DiskError::Damaged { .. }))));
}

/// I15: a file of a later release is refused by its version.
#[test]
fn a_later_format_is_too_new() {
    let (disk, log) = small_log(2, 10);
    let mut bytes = disk.bytes(log).unwrap();
    bytes[8..10].copy_from_slice(&9_u16.to_le_bytes());
    disk.replace(log, bytes);
    match try_open(&disk) {
        Err(StoreError::Disk(DiskError::TooNew { found: 9, supported: 1, .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// I7: damage in a group that was durable is not cut, even right before the end.
#[test]
fn a_proof_makes_damage_in_the_last_group_visible() {
    let (disk, log) = small_log(3, 100);
    let disk = without_state(&disk.after_power_cut(Survival::Kept));
    let mut bytes = disk.bytes(log).unwrap();
    let last = bytes.windows(5).rposition(|window| window == b"vvvvv").unwrap();
    bytes[last] ^= 1;
    disk.replace(log, bytes);
    let error = try_open(&disk).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("restore a backup"));
}

/// I7: an older copy of the last segment beside a newer state: the file was long enough for the
/// place that the state had reached, so the store opened, went on behind the hole and acknowledged
/// writes that no later fold of the log could reach.
#[test]
fn an_older_segment_beside_a_newer_state_is_damage() {
    let disk = disk();
    let mut store = open(&disk);
    for number in 0..10 {
        write(&mut store, &put(&format!("k{number}"), "old"));
    }
    let log = files(&disk, FileKind::Log)[0];
    let old = disk.bytes(log).unwrap();
    for number in 0..10 {
        write(&mut store, &put(&format!("l{number}"), "new"));
    }
    store.checkpoint().unwrap();
    drop(store);
    assert!(try_open(&copy(&disk)).is_ok());
    disk.replace(log, old);
    let error = try_open(&disk).unwrap_err();
    assert!(error.to_string().contains("the log ends before the state"), "{error}");
}

/// I7: an older copy of the last segment beside a base that ends in it: with the state gone, or
/// older than the base, what is behind the copy looked like an empty tail, so acknowledged frames
/// were lost without a word and new ones were written behind the hole.
#[test]
fn an_older_segment_beside_a_base_is_damage() {
    let disk = disk();
    let mut store = open(&disk);
    let write_some = |store: &mut Store, what: &str, frames: u64| {
        for number in 0..frames {
            write(store, &put(&format!("{what}{number}"), "value"));
        }
    };
    write_some(&mut store, "a", 10);
    store.checkpoint().unwrap();
    let (log, state) = (files(&disk, FileKind::Log)[0], files(&disk, FileKind::State)[0]);
    let (old, old_state) = (disk.bytes(log).unwrap(), disk.bytes(state).unwrap());
    write_some(&mut store, "b", 10);
    assert!(store.fold(&NO_HISTORY).unwrap());
    let at_base = disk.bytes(log).unwrap();
    write_some(&mut store, "c", 1);
    drop(store);
    let newest = disk.bytes(log).unwrap();
    let (no_state, refused) = (Some(Vec::new()), None);
    for (name, log_bytes, state_bytes, rows) in [
        ("older log, state of the base", &old, None, refused),
        ("older log, no state", &old, no_state.clone(), refused),
        ("older log, older state", &old, Some(old_state.clone()), refused),
        ("log that ends with the base, no state", &at_base, no_state.clone(), Some(20)),
        ("older state", &newest, Some(old_state), Some(21)),
        ("no state", &newest, no_state, Some(21)),
    ] {
        let disk = copy(&disk);
        disk.replace(log, log_bytes.clone());
        if let Some(bytes) = state_bytes {
            disk.replace(state, bytes);
        }
        let found = verified(&disk).findings.iter().any(|finding| finding.is_loss);
        assert_eq!(found, rows.is_none(), "{name}");
        match try_open(&disk) {
            Ok((store, _)) => assert_eq!(Some(dump(&store.view()).len()), rows, "{name}"),
            Err(error) => {
                assert_eq!(rows, None, "{name}: {error}");
                assert!(error.to_string().contains("the log ends before the base"), "{error}");
            }
        }
    }
}

/// I7, I12: what a base stands for needs no frame before its end: with the frames behind it whole,
/// damage of the frame right before is no reason to refuse the store.
#[test]
fn damage_right_before_the_end_of_a_base_is_no_loss() {
    let disk = disk();
    let mut store = open(&disk);
    for number in 0..10 {
        write(&mut store, &put(&format!("k{number}"), "value"));
    }
    assert!(store.fold(&NO_HISTORY).unwrap());
    let log = files(&disk, FileKind::Log)[0];
    let end = disk.bytes(log).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    write(&mut store, &put("after", "it"));
    drop(store);
    let rows = dump(&open(&copy(&disk)).view());
    for state in files(&disk, FileKind::State) {
        lastword_store::Disk::remove(&disk, state).unwrap();
    }
    disk.flip(log, end * 8);
    assert_eq!(dump(&open(&disk).view()), rows);
}

/// A log of several segments, the first damaged, and a state that goes on behind them.
fn damaged_before_the_state() -> (MemoryDisk, Vec<Vec<u8>>) {
    let disk = disk();
    let mut store = open(&disk);
    let all: Vec<_> = (0..300).map(|n| put(&format!("k{}", n % 90), &"v".repeat(150))).collect();
    for payload in &all {
        write(&mut store, payload);
    }
    store.checkpoint().unwrap();
    drop(store);
    disk.flip(files(&disk, FileKind::Log)[0], (HEADER_LEN + 30) * 8);
    (disk, all)
}

#[track_caller]
fn assert_names_the_damage(error: &StoreError) {
    assert!(matches!(error, StoreError::Damaged { offset: 128, position: 0, .. }), "{error}");
    assert!(error.to_string().contains("`lastword salvage`"), "{error}");
}

/// I7, I12: the log was damaged before the place from which a whole state goes on. Whoever asked
/// for the state to be made anew lost it before the damage was met, and nothing could be opened or
/// salvaged any more. It stays until what takes its place can be made; the store works, and a fold
/// of the state, which needs no frame that it has, takes the damage away.
#[test]
fn damage_before_a_whole_state_is_cured_by_a_fold() {
    let (disk, all) = damaged_before_the_state();
    let anew = Options { rebuild_state: true, ..options() };
    assert_names_the_damage(&open_with(&disk, anew).unwrap_err());
    let mut store = open(&disk);
    assert_eq!(dump(&store.view()), model(&all));
    assert_names_the_damage(&store.read_frame(0).unwrap_err());
    assert!(verified(&disk).findings.iter().any(|finding| finding.is_loss));
    assert!(store.fold(&NO_HISTORY).unwrap());
    assert!(verified(&disk).findings.is_empty());
    assert!(matches!(store.read_frame(0), Err(StoreError::OutOfRange { .. })));
    assert_eq!(dump(&store.view()), model(&all));
}

/// I7, I12: a state that has lost a row cannot be made anew from a damaged log: the error names the
/// damage, no file is left behind, and what the state still has can be read.
#[test]
fn a_rebuild_from_a_damaged_log_leaves_the_state() {
    let (disk, all) = damaged_before_the_state();
    lose_a_row(&disk, files(&disk, FileKind::State)[0], b"k3");
    let mut store = open(&disk);
    assert_names_the_damage(&store.fold(&NO_HISTORY).unwrap_err());
    assert_eq!(files(&disk, FileKind::State).len(), 1);
    let mut rows = model(&all);
    rows.remove(&(A.number(), b"k3".to_vec()));
    assert_eq!(dump(&store.view()), rows);
    write(&mut store, &put("k3", "again"));
    store.checkpoint().unwrap();
    assert!(store.view().get(A, b"k3").unwrap().is_some());
}

/// Cannot fold anything: what a later release wrote, say.
#[derive(Debug)]
struct Refuses;

impl Apply for Refuses {
    fn apply(&self, _: FrameRef<'_>, _: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        Err(ApplyError::Refused("unknown".into()))
    }
}

/// I7: frames are folded while recovery still reads. Damage behind one that cannot be folded is
/// named first all the same; and where there is none, the log was recovered before the error.
#[test]
fn damage_is_named_before_a_frame_that_cannot_be_folded() {
    let (disk, log) = small_log(10, 100);
    let disk = without_state(&disk.after_power_cut(Survival::Kept));
    let refuse = |disk: &MemoryDisk| {
        Store::open(Arc::new(disk.clone()), options(), Arc::new(Refuses)).unwrap_err()
    };
    let whole = copy(&disk);
    assert!(matches!(refuse(&whole), StoreError::Apply { position: 0, .. }));
    assert_eq!(files(&whole, FileKind::Log).len(), 2, "the log goes on in a second segment");
    assert_eq!(dump(&open(&whole).view()).len(), 10);
    disk.flip(log, (HEADER_LEN + 5 * 128 + 40) * 8);
    let error = refuse(&disk);
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

/// I7, I12: nothing of a log goes into redb before all of it was found whole, however little memory
/// a replay may take: an open that met damage leaves the state where it was.
#[test]
fn a_damaged_log_leaves_the_state_where_it_was() {
    let (disk, log) = small_log(10, 100);
    let mut store = open(&disk);
    store.checkpoint().unwrap();
    let behind: Vec<_> =
        (0..40).map(|number| write(&mut store, &put(&format!("l{number}"), "v"))).collect();
    store.prove().unwrap();
    drop(store);
    let little = || Options { replay_bytes: 1, ..options() };
    let second = files(&disk, FileKind::Log).into_iter().find(|file| *file != log).unwrap();
    let opened = open_with(&copy(&disk), little()).unwrap().1;
    assert_eq!(opened.replayed_frames, 40);
    let bit = (HEADER_LEN + (behind[30] - behind[0]) as usize + 30) * 8;
    disk.flip(second, bit);
    assert!(matches!(
        open_with(&disk, little()),
        Err(StoreError::Damaged { position, .. }) if position == behind[30]
    ));
    disk.flip(second, bit);
    assert_eq!(open_with(&disk, little()).unwrap().1.replayed_frames, 40);
}

/// A log of 7 MiB in segments of 3, with frames longer than one read, no state, and what it holds
/// at which position.
fn long_log() -> (MemoryDisk, Vec<(u64, Vec<u8>)>) {
    let disk = disk();
    let long = Options { segment_size: 3 << 20, ..options() };
    let (mut store, _) = open_with(&disk, long).unwrap();
    let mut written = Vec::new();
    for number in 0..200_usize {
        let value = match number % 40 {
            20 => SCAN_CHUNK + number * 1000,
            _ => number * 37,
        };
        let payload = put(&format!("k{number}"), &"v".repeat(value));
        written.push((write(&mut store, &payload), payload));
    }
    store.prove().unwrap();
    drop(store);
    (without_state(&disk.after_power_cut(Survival::Kept)), written)
}

fn segment_of(disk: &MemoryDisk, payload: &[u8]) -> (u64, usize) {
    let found = files(disk, FileKind::Log).into_iter().find_map(|file| {
        let bytes = disk.bytes(file)?;
        Some((file, bytes.windows(payload.len()).position(|window| window == payload)?))
    });
    found.unwrap()
}

/// I7, I12, I15: a log that is long enough to be read and checked on a second thread gives the same
/// rows, also where a frame is longer than one read, and damage is met at the same frame. A read
/// that fails there is an error, never the end of the log.
#[test]
fn a_long_log_is_read_ahead_and_checked_no_less() {
    let (disk, written) = long_log();
    let all = || written.iter().map(|(_, payload)| payload);
    let (store, report) = try_open(&copy(&disk)).unwrap();
    assert_eq!(report.replayed_frames, 200);
    assert_eq!(dump(&store.view()), model(all()));
    drop(store);
    for (position, payload) in written.iter().skip(1).step_by(19) {
        let damaged = copy(&disk);
        let (file, offset) = segment_of(&damaged, payload);
        damaged.flip(file, (offset + payload.len() - 1) * 8);
        let error = try_open(&damaged).unwrap_err();
        let named = matches!(&error, StoreError::Damaged { position: at, .. } if at == position);
        assert!(named, "{error} instead of damage at {position}");
    }
    let whole = copy(&disk);
    drop(try_open(&whole).unwrap());
    for read in 0..whole.reads() {
        let failing = copy(&disk);
        failing.set_read_fault(Some((read, ReadFault::Fails)));
        if let Ok((store, _)) = try_open(&failing) {
            assert_eq!(dump(&store.view()), model(all()), "read {read} failed");
        }
    }
}

/// I7: the last frame before the place that a state has reached is found however long it is.
#[test]
fn a_state_may_end_with_a_frame_longer_than_one_read() {
    for value in [10, SCAN_CHUNK - 200, SCAN_CHUNK + 200] {
        let disk = disk();
        let mut store = open_with(&disk, Options { segment_size: 3 << 20, ..options() }).unwrap().0;
        let payloads = [put("before", "v"), put("long", &"v".repeat(value))];
        let position = payloads.each_ref().map(|payload| write(&mut store, payload))[1];
        store.checkpoint().unwrap();
        drop(store);
        let log = files(&disk, FileKind::Log)[0];
        assert_eq!(dump(&open(&copy(&disk)).view()), model(&payloads));
        disk.flip(log, (HEADER_LEN + position as usize + 40) * 8);
        let error = try_open(&disk).unwrap_err();
        assert!(error.to_string().contains("the log ends before the state"), "{error}");
    }
}
