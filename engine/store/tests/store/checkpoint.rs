//! redb is a cache: written in checkpoints, discarded when in doubt.

use std::sync::Arc;

use lastword_store::{
    Direction, Disk, Fault, FileKind, KeyRange, MemoryDisk, Options, Slice, StoreError, Survival,
};

use crate::support::*;

/// 60 rows in redb, 20 of them overwritten and 10 deleted after it.
fn filled() -> (MemoryDisk, Vec<Vec<u8>>) {
    let disk = disk();
    let mut store = open(&disk);
    let mut all = Vec::new();
    for number in 0..90 {
        let payload = match number {
            0..60 => put(&format!("k{number:02}"), "old"),
            60..80 => put(&format!("k{:02}", number - 60), "new"),
            _ => op(b'd', A, format!("k{:02}", number - 50).as_bytes(), b""),
        };
        write(&mut store, &payload);
        all.push(payload);
        if number == 59 {
            store.checkpoint().unwrap();
        }
    }
    assert_eq!(dump(&store.view()), model(&all));
    (disk, all)
}

fn state_of(disk: &MemoryDisk) -> u64 {
    files(disk, FileKind::State)[0]
}

/// I12: a checkpoint is taken up where it stands and only the rest is folded.
#[test]
fn a_checkpoint_shortens_the_replay() {
    let (disk, all) = filled();
    let (store, report) = try_open(&disk).unwrap();
    assert_eq!((report.replayed_frames, report.rebuilt_state), (30, false));
    assert_eq!(dump(&store.view()), model(&all));
}

/// I12, I15: a state that is gone, cut, overwritten or another store's is folded again.
#[test]
fn a_bad_state_is_folded_again() {
    let (disk, all) = filled();
    let (other, _) = filled_with_seed(9);
    let state = state_of(&disk);
    let good = disk.bytes(state).unwrap();
    let mut bad_redb = good.clone();
    bad_redb[4096..4096 + 512].fill(0x5a);
    let mut bad_page = good.clone();
    bad_page[10] ^= 1;
    let cut = good[..6000].to_vec();
    let foreign = other.bytes(state_of(&other)).unwrap();
    for (name, bytes) in [
        ("redb header", bad_redb),
        ("page", bad_page),
        ("cut", cut),
        ("empty", Vec::new()),
        ("another store's", foreign),
    ] {
        let disk = copy(&disk);
        disk.replace(state, bytes);
        let (store, report) = try_open(&disk).unwrap();
        assert!(report.rebuilt_state, "{name}");
        assert_eq!(report.replayed_frames, 90, "{name}");
        assert_eq!(dump(&store.view()), model(&all), "{name}");
        assert_eq!(files(&disk, FileKind::State).len(), 1, "{name}");
    }
    disk.remove(state).unwrap();
    let (store, report) = try_open(&disk).unwrap();
    assert!(report.rebuilt_state);
    assert_eq!(dump(&store.view()), model(&all));
}

fn filled_with_seed(seed: u8) -> (MemoryDisk, Vec<Vec<u8>>) {
    let disk = disk();
    let chosen = Options { entropy: [seed; 32], ..options() };
    let mut store = open_with(&disk, chosen).unwrap().0;
    let payload = put("foreign", "row");
    write(&mut store, &payload);
    store.checkpoint().unwrap();
    (disk, vec![payload])
}

/// I14, I15: with any byte of redb changed, a read gives the right row or a typed error, and
/// `rebuild_state` repairs it.
#[test]
fn a_changed_row_is_never_returned() {
    let (disk, all) = filled();
    let expected = model(&all);
    let state = state_of(&disk);
    let good = disk.bytes(state).unwrap();
    let rows: Vec<usize> =
        (4096..good.len() - 3).filter(|at| &good[*at..at + 3] == b"old").collect();
    assert!(rows.len() >= 60);
    let mut damaged = 0;
    for at in rows {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        let disk = copy(&disk);
        disk.replace(state, bytes);
        let Ok((store, _)) = try_open(&disk) else { panic!("the log is whole") };
        for number in 0..60 {
            let key = format!("k{number:02}");
            match store.view().get(A, key.as_bytes()) {
                Ok(value) => {
                    let right = expected.get(&(A.number(), key.into_bytes()));
                    assert_eq!(value.as_deref(), right.map(Vec::as_slice));
                }
                Err(StoreError::StateDamaged { .. }) => damaged += 1,
                Err(other) => panic!("{other}"),
            }
        }
        drop(store);
        let again = Options { rebuild_state: true, ..options() };
        let (store, report) = open_with(&disk, again).unwrap();
        assert!(report.rebuilt_state);
        assert_eq!(dump(&store.view()), expected);
    }
    assert!(damaged > 0);
}

/// I15: an open that died inside redb is tried once more, then the state is given up.
#[test]
fn two_opens_without_success_give_the_state_up() {
    let (disk, all) = filled();
    let state = state_of(&disk);
    for (opens, rebuilt) in [(0, false), (1, false), (2, true)] {
        let disk = copy(&disk);
        let mut bytes = disk.bytes(state).unwrap();
        bytes[24] = opens;
        let digest = blake3::hash(&bytes[..32]);
        bytes[32..64].copy_from_slice(digest.as_bytes());
        disk.replace(state, bytes);
        let (store, report) = try_open(&disk).unwrap();
        assert_eq!(report.rebuilt_state, rebuilt, "{opens} opens before");
        assert_eq!(dump(&store.view()), model(&all));
        drop(store);
        assert!(!try_open(&disk).unwrap().1.rebuilt_state, "success is counted as such");
    }
}

/// I9, I12: whichever operation of a checkpoint fails, the log goes on, the latest view reads all,
/// the next checkpoint succeeds, and a power cut then loses nothing.
#[test]
fn a_failed_checkpoint_never_poisons_the_log() {
    let (start, all) = filled();
    let mut failures = 0;
    for failing in 0..60 {
        let (disk, mut all) = (copy(&start), all.clone());
        let mut store = open(&disk);
        let job = store.begin_checkpoint().unwrap().unwrap();
        assert!(store.begin_checkpoint().unwrap().is_none(), "one at a time");
        disk.set_fault(Some((disk.operations() + failing, Fault::Once)));
        if store.finish_checkpoint(job.run()).is_ok() {
            continue;
        }
        failures += 1;
        disk.set_fault(None);
        assert_eq!(dump(&store.view()), model(&all), "failure at {failing}");
        all.push(put("after", "failure"));
        write(&mut store, &put("after", "failure"));
        store.checkpoint().unwrap();
        assert_eq!(dump(&store.view()), model(&all), "failure at {failing}");
        drop(store);
        let store = open(&disk.after_power_cut(Survival::Dropped));
        assert_eq!(dump(&store.view()), model(&all), "failure at {failing}");
    }
    assert!(failures > 5);
}

/// I12: a replay larger than the delta's cap checkpoints on the way.
#[test]
fn a_long_replay_stays_within_the_cap() {
    let (disk, all) = filled();
    let capped = Options { replay_bytes: 2_000, rebuild_state: true, ..options() };
    let (store, report) = open_with(&disk, capped).unwrap();
    assert_eq!(report.replayed_frames, 90);
    assert!(store.delta_bytes() < 4_000);
    assert_eq!(dump(&store.view()), model(&all));
    drop(store);
    let (store, report) = try_open(&disk).unwrap();
    assert!(report.replayed_frames < 20);
    assert_eq!(dump(&store.view()), model(&all));
}

/// I12: commits go on while a checkpoint runs elsewhere; the store asks for one in time.
#[test]
fn commits_go_on_while_a_checkpoint_runs() {
    let disk = disk();
    let chosen = Options { delta_cap_bytes: 20_000, ..options() };
    let mut store = open_with(&disk, chosen).unwrap().0;
    let mut all = Vec::new();
    let mut checkpoints = 0;
    for number in 0..600 {
        let payload = put(&format!("k{}", number % 120), &format!("{number}"));
        write(&mut store, &payload);
        all.push(payload);
        if !store.wants_checkpoint() {
            continue;
        }
        if let Some(job) = store.begin_checkpoint().unwrap() {
            let runner = std::thread::spawn(move || job.run());
            let during = put("during", &format!("{number}"));
            write(&mut store, &during);
            all.push(during);
            store.finish_checkpoint(runner.join().unwrap()).unwrap();
            checkpoints += 1;
            assert_eq!(dump(&store.view()), model(&all));
        }
    }
    assert!(checkpoints > 2);
    let range = KeyRange::prefix(b"k1");
    let view: Arc<_> = store.view();
    let keys = view.scan(A, &range, Direction::Reverse).unwrap().count();
    assert_eq!(keys, 1 + 10 + 20);
}

/// I12, I18: a checkpoint that changes most rows goes to a new file: the same rows, views of before
/// read on, commits go on, a failure at any step leaves all as it was, and one file is left.
#[test]
fn a_checkpoint_of_most_rows_writes_a_new_file() {
    let (start, all) = filled();
    let anew = Options { anew_from_bytes: 0, ..options() };
    let (mut failures, mut anews) = (0, 0);
    for failing in 0..200 {
        let (disk, mut all) = (copy(&start), all.clone());
        let mut store = open_with(&disk, anew.clone()).unwrap().0;
        let old = state_of(&disk);
        let before = store.view();
        let job = store.begin_checkpoint().unwrap().unwrap();
        disk.set_fault(Some((disk.operations() + failing, Fault::Once)));
        let done = job.run();
        all.push(put("during", "it"));
        disk.set_fault(None);
        write(&mut store, &put("during", "it"));
        let finished = store.finish_checkpoint(done);
        failures += u32::from(finished.is_err());
        anews += u32::from(state_of(&disk) != old);
        assert_eq!(dump(&before), model(&all[..90]), "failure at {failing}");
        assert_eq!(dump(&store.view()), model(&all), "failure at {failing}");
        if finished.is_err() {
            store.checkpoint().unwrap();
        }
        assert_eq!(files(&disk, FileKind::State).len(), 1, "failure at {failing}");
        drop(store);
        let store = open(&disk.after_power_cut(Survival::Dropped));
        assert_eq!(dump(&store.view()), model(&all), "failure at {failing}");
    }
    assert!(failures > 5 && anews > 5, "{failures} {anews}");
}

/// R2.1: a first copy comes in the order of its keys, and each of its checkpoints wrote all rows of
/// before anew: twenty-five times for 400,000 records. Rows that come between the same two rows
/// share pages and are written in place; as many that lie apart write a new file.
#[test]
fn rows_that_lie_together_are_written_in_place() {
    let anew = Options { segment_size: 1 << 20, anew_from_bytes: 0, ..options() };
    let key = |number: usize| format!("k{number:06}");
    let together = |number| key(500_000 + number);
    let in_one_gap = |number| key(250_001 + number);
    let apart = |number| key(number * 1000 + 1);
    let cases: [(&dyn Fn(usize) -> String, bool); 3] =
        [(&together, false), (&in_one_gap, false), (&apart, true)];
    for (case, (key_of, writes_anew)) in cases.into_iter().enumerate() {
        let disk = disk();
        let mut store = open_with(&disk, anew.clone()).unwrap().0;
        for number in 0..500 {
            store.append(KIND, &put(&key(number * 1000), "v")).unwrap();
        }
        store.commit().unwrap();
        store.checkpoint().unwrap();
        let old = state_of(&disk);
        for number in 0..400 {
            store.append(KIND, &put(&key_of(number), "w")).unwrap();
        }
        store.commit().unwrap();
        store.checkpoint().unwrap();
        assert_eq!(state_of(&disk) != old, writes_anew, "case {case}");
        assert_eq!(dump(&store.view()).len(), 900, "case {case}");
    }
}

/// I12, I14: old rows that redb lost are noticed where they are carried into a new file, and the
/// state is made anew from the log.
#[test]
fn a_new_file_does_not_make_a_loss_final() {
    let (disk, all) = filled();
    crate::fold::lose_a_row(&disk, state_of(&disk), b"k55");
    let anew = Options { anew_from_bytes: 0, ..options() };
    let mut store = open_with(&disk, anew).unwrap().0;
    let error = store.checkpoint().unwrap_err();
    assert!(matches!(error, StoreError::StateDamaged { .. }), "{error}");
    assert!(store.wants_rebuild());
    let job = store.begin_rebuild().unwrap().unwrap();
    store.finish_rebuild(job.run()).unwrap();
    assert_eq!(dump(&store.view()), model(&all));
    store.checkpoint().unwrap();
    drop(store);
    assert_eq!(dump(&open(&disk).view()), model(&all));
}

/// I9: a new file did not fit where the change in place would have, and was tried for ever: in the
/// end the store took no writes.
#[test]
fn where_a_new_file_does_not_fit_the_change_is_made_in_place() {
    let anew = Options { segment_size: 1 << 20, anew_from_bytes: 0, ..options() };
    let disk = disk();
    let mut store = open_with(&disk, anew).unwrap().0;
    for number in 0..1200 {
        let value = if number < 1000 { "v" } else { "w" }.repeat(1000);
        store.append(KIND, &put(&format!("k{:04}", number % 1000), &value)).unwrap();
        if number == 999 {
            store.commit().unwrap();
            store.checkpoint().unwrap();
        }
    }
    store.commit().unwrap();
    disk.set_room(Some(500_000));
    assert!(store.checkpoint().is_err(), "there is room for a new file");
    store.checkpoint().unwrap();
    assert!(!store.wants_checkpoint());
}

/// I12: whoever ran a checkpoint lost it on the way, and no checkpoint ever began again, so the
/// delta grew until the store took no writes. Lost before its run, in the middle or with its
/// result, in place or in a new file: nothing is left of it and the next one writes everything.
#[test]
fn a_checkpoint_that_is_dropped_holds_no_other_back() {
    let (start, all) = filled();
    for anew_from_bytes in [0, u64::MAX] {
        let disk = copy(&start);
        let chosen = Options { anew_from_bytes, ..options() };
        let mut store = open_with(&disk, chosen).unwrap().0;
        for lost_at in 0..3 {
            let job = store.begin_checkpoint().unwrap().expect("none runs");
            assert!(store.begin_checkpoint().unwrap().is_none(), "one at a time");
            match lost_at {
                0 => drop(job),
                1 => match job.step(5) {
                    Slice::More(job) => drop(job),
                    Slice::Done(_) => panic!("there are more rows"),
                },
                _ => drop(job.run()),
            }
            assert_eq!(files(&disk, FileKind::State).len(), 1, "lost at {lost_at}");
            assert_eq!(dump(&store.view()), model(&all), "lost at {lost_at}");
        }
        store.checkpoint().unwrap();
        drop(store);
        let (store, report) = try_open(&disk).unwrap();
        assert_eq!((report.replayed_frames, report.rebuilt_state), (0, false));
        assert_eq!(dump(&store.view()), model(&all));
    }
}
