//! Appending, committing, refusing.

use lastword_store::{Durability, Fault, FileKind, Options, Store, StoreError, Survival, limits};

use crate::support::*;

/// I1: what was committed is there after reopening, and a clean close goes on in the same segment.
#[test]
fn a_clean_close_goes_on_in_the_same_segment() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("a", "1"));
    store.append(KIND, &put("b", "2")).unwrap();
    store.close().unwrap();
    assert_eq!(files(&disk, FileKind::Log).len(), 1);
    assert!(files(&disk, FileKind::Spare).len() <= 1);

    let (mut store, report) = try_open(&disk).unwrap();
    assert!(report.clean && !report.created && !report.rebuilt_state);
    assert_eq!((report.replayed_frames, report.cut_bytes), (0, 0));
    write(&mut store, &put("c", "3"));
    assert_eq!(files(&disk, FileKind::Log).len(), 1);
    let all = [put("a", "1"), put("b", "2"), put("c", "3")];
    assert_eq!(payloads(&store.view_handle()), all);
    assert_eq!(dump(&store.view()), model(&all));
}

/// I1: after a process that ended without close, the log goes on in another segment.
#[test]
fn an_unclean_end_begins_another_segment() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("a", "1"));
    store.prove().unwrap();
    drop(store);
    let (mut store, report) = try_open(&disk).unwrap();
    assert!(!report.clean);
    assert_eq!(report.replayed_frames, 1);
    assert_eq!(files(&disk, FileKind::Log).len(), 2);
    write(&mut store, &put("b", "2"));
    drop(store);
    let store = open(&disk);
    assert_eq!(payloads(&store.view_handle()), [put("a", "1"), put("b", "2")]);
}

/// I2: the log is gap-free over many small segments, each frame readable by its position.
#[test]
fn the_log_rolls_over_many_segments() {
    let disk = disk();
    let mut store = open(&disk);
    let mut positions = Vec::new();
    let mut all = Vec::new();
    for number in 0..400 {
        let payload = put(&format!("key{}", number % 50), &"v".repeat(number));
        assert_eq!(store.next_position(), store.append(KIND, &payload).unwrap());
        positions.push(store.next_position());
        all.push(payload);
        if number % 3 == 0 {
            store.commit().unwrap();
            store.prove().unwrap();
        }
    }
    store.commit().unwrap();
    assert!(files(&disk, FileKind::Log).len() >= 5);
    assert_eq!(payloads(&store.view_handle()), all);
    drop(store);
    let mut store = open(&disk);
    assert_eq!(payloads(&store.view_handle()), all);
    assert_eq!(dump(&store.view()), model(&all));
    let last = store.append(KIND, &put("x", "y")).unwrap();
    assert_eq!(store.read_frame(last).unwrap().payload, put("x", "y"));
    let handle = store.view_handle();
    assert!(matches!(handle.read_frame(last), Err(StoreError::OutOfRange { .. })));
    store.commit().unwrap();
    assert_eq!(handle.read_frame(last).unwrap().payload, put("x", "y"));
}

/// B5, I6: a frame larger than a segment, and one over the limit.
#[test]
fn the_largest_frame_fits_and_a_larger_one_is_refused() {
    let disk = disk();
    let mut store = open(&disk);
    let mut payload = put("k", "");
    payload.resize(limits::MAX_FRAME, 9);
    write(&mut store, &payload);
    payload.push(9);
    let before = store.next_position();
    assert!(matches!(store.append(KIND, &payload), Err(StoreError::TooLarge { .. })));
    assert!(matches!(store.append(3, b""), Err(StoreError::ReservedKind { kind: 3 })));
    assert_eq!(store.next_position(), before);
    payload.pop();
    drop(store);
    assert_eq!(payloads(&open(&disk).view_handle()), [payload]);
}

/// I6: a frame whose fold fails leaves no trace in log or state.
#[test]
fn a_refused_fold_changes_nothing() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("a", "1"));
    let before = store.next_position();
    let refused = store.append(KIND, &op(b'!', A, b"a", b"2"));
    assert!(matches!(refused, Err(StoreError::Apply { .. })));
    assert_eq!(store.next_position(), before);
    assert_eq!(store.newest().get(A, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    write(&mut store, &put("b", "2"));
    assert_eq!(payloads(&store.view_handle()), [put("a", "1"), put("b", "2")]);
    assert_eq!(dump(&store.view()), model(&[put("a", "1"), put("b", "2")]));
}

/// I8: after a failed write or sync no frame is acknowledged until reopen; reads go on.
#[test]
fn a_failed_write_or_sync_poisons() {
    for failing in 0..2 {
        let disk = disk();
        let mut store = open(&disk);
        write(&mut store, &put("a", "1"));
        disk.set_fault(Some((disk.operations() + failing, Fault::Once)));
        store.append(KIND, &put("a", "2")).unwrap();
        assert!(matches!(store.commit(), Err(StoreError::OutcomeUnknown { .. })));
        let refused = store.append(KIND, &put("a", "3"));
        assert!(matches!(refused, Err(StoreError::Poisoned { .. })));
        assert!(matches!(store.commit(), Err(StoreError::Poisoned { .. })));
        assert!(matches!(store.prove(), Err(StoreError::Poisoned { .. })));
        assert!(matches!(store.begin_checkpoint(), Err(StoreError::Poisoned { .. })));
        assert_eq!(store.view().get(A, b"a").unwrap().as_deref(), Some(&b"1"[..]));
        drop(store);
        let store = open(&disk.after_power_cut(Survival::Dropped));
        assert_eq!(payloads(&store.view_handle()), [put("a", "1")]);
    }
}

/// I9: without space for a segment the append says so, and the store goes on once there is.
#[test]
fn no_space_shows_before_any_byte_and_passes() {
    let disk = disk();
    let mut store = open(&disk);
    disk.set_spares_left(Some(0));
    let payload = put("k", &"v".repeat(3000));
    let mut written = 0;
    let position = loop {
        match store.append(KIND, &payload) {
            Ok(_) => written += 1,
            Err(StoreError::NoSpace { position, .. }) => break position,
            Err(other) => panic!("{other}"),
        }
        store.commit().unwrap();
    };
    assert_eq!(position, store.next_position());
    assert_eq!(payloads(&store.view_handle()).len(), written);
    disk.set_spares_left(None);
    write(&mut store, &payload);
    drop(store);
    assert_eq!(payloads(&open(&disk).view_handle()).len(), written + 1);
}

/// I8: appends go on while a sync runs; they belong to the next group.
#[test]
fn appends_go_on_while_a_sync_runs() {
    let disk = disk();
    let mut store = open(&disk);
    let first = store.append(KIND, &put("a", "1")).unwrap();
    let commit = store.start_commit().unwrap().unwrap();
    let second = store.append(KIND, &put("a", "2")).unwrap();
    assert!(store.start_commit().unwrap().is_none());
    assert!(matches!(store.commit(), Err(StoreError::Busy)));
    assert!(matches!(store.sync(), Err(StoreError::Busy)));
    let done = std::thread::spawn(move || commit.wait()).join().unwrap();
    assert_eq!(store.finish_commit(done).unwrap(), second);
    assert_eq!(store.view().get(A, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    store.commit().unwrap();
    let groups = [first, second].map(|at| store.read_frame(at).unwrap().group);
    assert_eq!(groups[1], groups[0] + 1);
}

/// One commit of a small frame is one write and one sync.
#[test]
fn a_commit_is_one_write_and_one_sync() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("a", "1"));
    let before = disk.operations();
    write(&mut store, &put("a", "2"));
    assert_eq!(disk.operations() - before, 2);
}

/// I1: with a weaker durability, chosen by name, `sync` is what makes frames survive.
#[test]
fn weaker_durability_survives_from_sync_on() {
    for durability in [Durability::None, Durability::IntervalMs(50)] {
        let disk = disk();
        let chosen = Options { durability, ..options() };
        let (mut store, _) = open_with(&disk, chosen.clone()).unwrap();
        let payload = put("k", &"v".repeat(1000));
        for _ in 0..40 {
            write(&mut store, &payload);
        }
        store.sync().unwrap();
        write(&mut store, &put("lost", "1"));
        drop(store);
        let (store, _) =
            open_with(&disk.after_power_cut(Survival::Dropped), chosen.clone()).unwrap();
        assert_eq!(payloads(&store.view_handle()).len(), 40);
        drop(store);
        let (mut store, _) = open_with(&disk, chosen).unwrap();
        store.checkpoint().unwrap();
        store.close().unwrap();
        assert_eq!(payloads(&open(&disk).view_handle()).len(), 41);
    }
}

/// I15, found by simulation (seed 40). The sync of the first segment's header failed while a store
/// was made; opening again in the same kernel made a state beside it, and a power cut just then
/// left a state without a log, which never opened again. Whatever fails, then cuts the power, a
/// store that is being made opens after that.
#[test]
fn a_store_whose_making_failed_twice_opens() {
    for first in 0..12 {
        for second in 0..30 {
            let disk = disk();
            disk.set_fault(Some((first, Fault::Once)));
            drop(try_open(&disk));
            disk.set_fault(Some((disk.operations() + second, Fault::PowerCut)));
            drop(try_open(&disk));
            for survival in [Survival::Dropped, Survival::Kept] {
                let opened = try_open(&disk.after_power_cut(survival));
                let error = opened.err().map(|error| error.to_string());
                assert_eq!(error, None, "operations {first} and {second} failed");
            }
        }
    }
}

/// I1, I8, found by simulation (seed 1066). The sync of a segment's header failed and the process
/// was opened again in the same kernel, where the header reads well: commits went on in that
/// segment, and a power cut took the header from under them. Whichever operation fails, what is
/// acknowledged after opening again survives.
#[test]
fn commits_after_a_failed_birth_survive_a_power_cut() {
    let mut at = 0;
    loop {
        let disk = disk();
        let (mut store, _) = try_open(&disk).unwrap();
        let opened = disk.operations();
        disk.set_fault(Some((opened + at, Fault::Once)));
        let mut acknowledged = Vec::new();
        let mut write = |store: &mut Store, number: usize| {
            let payload = put(&format!("k{number}"), &"x".repeat(900));
            store.append(KIND, &payload)?;
            store.commit()?;
            acknowledged.push(payload);
            Ok::<_, StoreError>(())
        };
        let failed = (0..60).find(|number| write(&mut store, *number).is_err());
        drop(store);
        let (mut store, _) = try_open(&disk).unwrap();
        for number in 60..70 {
            write(&mut store, number).unwrap();
        }
        drop(store);
        let (store, _) = try_open(&disk.after_power_cut(Survival::Dropped)).unwrap();
        let found = payloads(&store.view_handle());
        assert!(acknowledged.iter().all(|payload| found.contains(payload)), "operation {at}");
        if failed.is_none() {
            assert!(at > 60, "no operation failed");
            return;
        }
        at += 1;
    }
}
