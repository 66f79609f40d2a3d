//! Power cuts at every operation, and inside recovery.

use lastword_store::limits::HEADER_LEN;
use lastword_store::{
    Disk, Fault, FileKind, MemoryDisk, Options, ReadFault, Store, StoreError, Survival,
};

use crate::fold::NO_HISTORY;
use crate::support::*;

/// What a trace handed in, and how much of it was acknowledged.
#[derive(Default)]
struct Run {
    submitted: Vec<Vec<u8>>,
    acknowledged: usize,
}

impl Run {
    fn append(&mut self, store: &mut Store, payload: Vec<u8>) -> Result<(), StoreError> {
        store.append(KIND, &payload)?;
        self.submitted.push(payload);
        Ok(())
    }

    fn commit(&mut self, store: &mut Store) -> Result<(), StoreError> {
        store.commit()?;
        self.acknowledged = self.submitted.len();
        Ok(())
    }
}

/// Commits, proofs, rolls, checkpoints, idle gaps, folds, an unclean and a clean reopen: 201
/// commits.
fn trace(disk: &MemoryDisk, run: &mut Run) -> Result<(), StoreError> {
    for session in 0..3_usize {
        // In every second session checkpoints of most rows write a new file.
        let anew_from_bytes = if session % 2 == 1 { 0 } else { u64::MAX };
        let chosen = Options { anew_from_bytes, ..options() };
        let mut store = open_with(disk, chosen)?.0;
        for step in 0..67_usize {
            for part in 0..1 + step % 3 {
                let value = format!("{session}.{step}.{part} ").repeat(1 + step % 23);
                run.append(&mut store, put(&format!("k{}", (step * 5 + part) % 9), &value))?;
            }
            if step % 4 == 0 {
                run.append(&mut store, op(b'd', A, format!("k{}", step % 9).as_bytes(), b""))?;
            }
            run.commit(&mut store)?;
            if step % 2 == 0 {
                store.prove()?;
            }
            // Those that fail are the caller's to retry.
            match step {
                20 | 50 => drop(store.checkpoint()),
                40 => drop(store.fold(&NO_HISTORY)),
                45 => {
                    if let Some(job) = store.begin_rebuild()? {
                        let _ = store.finish_rebuild(job.run());
                    }
                }
                _ => {}
            }
        }
        if session != 0 {
            store.close()?;
        }
    }
    Ok(())
}

/// What `LASTWORD_CRASH_STRIDE` says: one crash point of so many is tried. `make check` tries all.
fn stride() -> usize {
    std::env::var("LASTWORD_CRASH_STRIDE").map_or(3, |stride| stride.parse().unwrap())
}

/// How many of the submitted frames a store shows: a prefix with all that was acknowledged.
fn prefix(store: &Store, run: &Run, what: &str) -> usize {
    let shown = dump(&store.view());
    let lengths = run.acknowledged..=run.submitted.len();
    let found = lengths.rev().find(|length| shown == model(&run.submitted[..*length]));
    let found = found.unwrap_or_else(|| {
        panic!("I1, I2, I3, I12: {what}: a state that never was, or without what was acknowledged")
    });
    let handle = store.view_handle();
    let frames = payloads_from(&handle, handle.first_position());
    assert!(run.submitted[..found].ends_with(&frames), "I2: {what}: the log is another");
    found
}

/// Opens, compares, writes, opens again; also with redb discarded.
fn check(disk: &MemoryDisk, run: &Run, what: &str) {
    let bare = copy(disk);
    let mut store = try_open(disk).unwrap_or_else(|error| panic!("{what}: {error}")).0;
    let found = prefix(&store, run, what);
    write(&mut store, &put("after", "crash"));
    drop(store);
    let after: Vec<_> =
        run.submitted[..found].iter().cloned().chain([put("after", "crash")]).collect();
    assert_eq!(dump(&open(disk).view()), model(&after), "I10: {what}");
    for state in files(&bare, FileKind::State) {
        bare.remove(state).unwrap();
    }
    let store = try_open(&bare).unwrap_or_else(|error| panic!("{what}, no redb: {error}")).0;
    assert_eq!(prefix(&store, run, what), found, "I12: {what}: redb is no fold of the log");
}

/// A second crash, somewhere inside the recovery from the first, and then `check`.
fn check_twice(crashed: &MemoryDisk, run: &Run, seed: u64, what: &str) {
    let whole = copy(crashed);
    drop(try_open(&whole).unwrap_or_else(|error| panic!("{what}: {error}")));
    let at = seed % whole.operations().max(1);
    let again = copy(crashed);
    again.set_fault(Some((at, Fault::PowerCut)));
    let _ = try_open(&again);
    let what = format!("{what}, then at {at} of the recovery");
    check(&again.after_power_cut(Survival::Torn(seed * 31 + 7)), run, &what);
}

/// I1, I2, I3, I6, I7, I10, I12: power is cut at each write, sync, change of length, making and
/// removing of a file of a trace, with four fates of what was not synced; then once more inside
/// the recovery.
#[test]
fn a_power_cut_at_every_operation_loses_nothing_acknowledged() {
    let whole = disk();
    let mut run = Run::default();
    trace(&whole, &mut run).unwrap();
    assert!(run.acknowledged > 300);
    check(&whole, &run, "no cut");
    for at in (0..whole.operations()).step_by(stride()) {
        let disk = disk();
        disk.set_fault(Some((at, Fault::PowerCut)));
        let mut run = Run::default();
        // It may succeed if all that is left is redb's own farewell.
        let _ = trace(&disk, &mut run);
        let torn = [Survival::Torn(at * 77 + 5), Survival::Torn(at * 91 + 1)];
        for survival in [Survival::Dropped, Survival::Kept].into_iter().chain(torn) {
            let what = format!("cut at {at}, {survival:?}");
            let crashed = disk.after_power_cut(survival);
            check_twice(&crashed, &run, at * 13 + 5, &what);
            check(&crashed, &run, &what);
        }
    }
}

/// I8, I9: one operation fails and the next would work; nothing acknowledged is lost either.
#[test]
fn a_single_failure_at_every_operation_loses_nothing_acknowledged() {
    let whole = disk();
    trace(&whole, &mut Run::default()).unwrap();
    for at in (0..whole.operations()).step_by(stride()) {
        let disk = disk();
        disk.set_fault(Some((at, Fault::Once)));
        let mut run = Run::default();
        // Some failures are absorbed: those of redb and of the room for a proof.
        let _ = trace(&disk, &mut run);
        let what = format!("failure at {at}");
        check(&copy(&disk), &run, &what);
        check(&disk.after_power_cut(Survival::Torn(at * 31 + 7)), &run, &what);
    }
}

/// I9: the disk is full from any byte on: what was acknowledged is there and can be read, deletes
/// and folds work, and once there is space everything does.
#[test]
fn a_disk_that_fills_up_at_any_byte_loses_nothing_acknowledged() {
    let whole = disk();
    trace(&whole, &mut Run::default()).unwrap();
    let used: u64 = whole.list().unwrap().iter().map(|file| file.len).sum();
    let mut full = 0;
    for room in (0..used * 2).step_by(1500 * stride()) {
        let disk = disk();
        disk.set_room(Some(room));
        let mut run = Run::default();
        let what = format!("room for {room} bytes");
        if let Err(error) = trace(&disk, &mut run) {
            full += 1;
            assert!(!matches!(error, StoreError::Damaged { .. }), "{what}: {error}");
        }
        check_full(&disk, &run, &what);
        disk.set_room(None);
        check(&disk, &run, &what);
    }
    assert!(full > 3, "{full}");
}

/// A store that can be opened on a full disk shows everything, and takes deletes.
fn check_full(disk: &MemoryDisk, run: &Run, what: &str) {
    let disk = copy(disk);
    disk.set_room(Some(0));
    // Without a byte left redb cannot be made anew, if that is what it takes.
    let Ok((mut store, _)) = try_open(&disk) else { return };
    let found = prefix(&store, run, what);
    let delete = op(b'd', A, b"k1", b"");
    store.append_urgent(KIND, &delete).unwrap_or_else(|error| panic!("{what}: {error}"));
    store.commit().unwrap();
    let _ = store.fold(&NO_HISTORY);
    let after: Vec<_> = run.submitted[..found].iter().cloned().chain([delete]).collect();
    assert_eq!(dump(&store.view()), model(&after), "{what}");
}

/// I8, I15: a read that fails, ends short or brings a flipped bit is an error or makes no
/// difference, and the disk is as good as before.
#[test]
fn a_bad_read_is_never_believed() {
    let disk = disk();
    let mut run = Run::default();
    trace(&disk, &mut run).unwrap();
    let whole = copy(&disk);
    drop(open(&whole));
    for at in (0..whole.reads()).step_by(stride()) {
        for fault in
            [ReadFault::Fails, ReadFault::Short, ReadFault::Flipped(at as usize * 37 % 4096)]
        {
            let disk = copy(&disk);
            disk.set_read_fault(Some((at, fault)));
            if let Ok((store, _)) = try_open(&disk) {
                check_rows(&store, &run, &format!("{at} {fault:?}"));
            }
            disk.set_read_fault(None);
            match try_open(&disk) {
                Ok((store, _)) => drop(prefix(&store, &run, &format!("after {at} {fault:?}"))),
                Err(error) => panic!("after {at} {fault:?}: {error}"),
            }
        }
    }
}

/// I7, I14, I15: a write that never reaches the medium, or lands elsewhere in its file, is an
/// error, found by recovery, or makes no difference; a state that never was is not shown.
#[test]
fn a_lost_or_misdirected_write_is_never_believed() {
    let whole = disk();
    trace(&whole, &mut Run::default()).unwrap();
    let (mut found, mut shown) = (0, 0);
    for at in (0..whole.operations()).step_by(stride()) {
        for fault in [Fault::Lost, Fault::Misdirected(512), Fault::Misdirected(4096)] {
            let disk = disk();
            disk.set_fault(Some((at, fault)));
            let mut run = Run::default();
            let traced = trace(&disk, &mut run);
            // Only the last group may go without a trace: nothing proves that it was there.
            run.acknowledged = 0;
            let what = format!("{fault:?} at {at}");
            for redb in [true, false] {
                let disk = copy(&disk);
                let is_state = |number: &u64| {
                    disk.bytes(*number).is_some_and(|bytes| bytes.starts_with(b"LWSTATE"))
                };
                for state in (0..100).filter(is_state).filter(|_| !redb) {
                    disk.remove(state).unwrap();
                }
                match try_open(&disk) {
                    Ok((store, _)) if traced.is_ok() => {
                        shown += 1;
                        check_rows(&store, &run, &what);
                    }
                    Ok(_) => {}
                    Err(_) => found += 1,
                }
            }
        }
    }
    assert!(found > 5 && shown > 5, "{found} {shown}");
}

/// Each row that is read is right, or an error.
fn check_rows(store: &Store, run: &Run, what: &str) {
    let view = store.view();
    for number in 0..9 {
        let key = format!("k{number}");
        let Ok(value) = view.get(A, key.as_bytes()) else { continue };
        let known =
            |payload: &&Vec<u8>| value.as_deref().is_none_or(|value| payload.ends_with(value));
        assert!(run.submitted.iter().any(|payload| known(&payload)), "{what}: {key}");
    }
}

/// I10: power is cut at every operation of a recovery, and of the recovery after that.
#[test]
fn a_power_cut_inside_recovery_changes_nothing() {
    let disk = disk();
    let mut run = Run::default();
    let mut store = open(&disk);
    for step in 0..20 {
        run.append(&mut store, put(&format!("k{step}"), &"v".repeat(step * 40))).unwrap();
        if step % 2 == 1 {
            run.commit(&mut store).unwrap();
        }
        if step == 9 {
            store.checkpoint().unwrap();
        }
    }
    // The last group is torn: half of it has reached the medium.
    run.append(&mut store, put("torn", &"t".repeat(900))).unwrap();
    disk.set_fault(Some((disk.operations() + 1, Fault::PowerCut)));
    assert!(store.commit().is_err());
    for torn in 0..4 {
        let crashed = disk.after_power_cut(Survival::Torn(torn * 1313 + 1));
        let survivors = payloads(&open(&copy(&crashed)).view_handle());
        for first in 0..40 {
            let once = copy(&crashed);
            once.set_fault(Some((first, Fault::PowerCut)));
            if try_open(&once).is_ok() {
                break;
            }
            let twice = once.after_power_cut(Survival::Torn(first * 17 + torn));
            twice.set_fault(Some((first / 2, Fault::PowerCut)));
            let _ = try_open(&twice);
            let twice = twice.after_power_cut(Survival::Dropped);
            assert_eq!(payloads(&open(&twice).view_handle()), survivors);
            check(&twice, &Run { submitted: survivors.clone(), acknowledged: 20 }, "recovery");
        }
    }
}

/// I7: a segment that was born and got no durable frame starts over.
#[test]
fn a_torn_first_group_of_a_segment_starts_over() {
    let disk = disk();
    let mut store = open(&disk);
    store.append(KIND, &put("a", &"v".repeat(2000))).unwrap();
    disk.set_fault(Some((disk.operations() + 1, Fault::PowerCut)));
    assert!(store.commit().is_err());
    let crashed = disk.after_power_cut(Survival::Torn(12));
    let (mut store, report) = try_open(&crashed).unwrap();
    assert!(report.cut_bytes > 0);
    write(&mut store, &put("b", "2"));
    drop(store);
    assert_eq!(payloads(&open(&crashed).view_handle()), [put("b", "2")]);
    assert!(files(&crashed, FileKind::Spare).is_empty());
}

/// I3, I7: a frame of a torn group does not come back behind a new frame of the same length.
#[test]
fn a_torn_first_group_leaves_no_frame_behind() {
    let disk = disk();
    let mut store = open(&disk);
    store.append(KIND, &put("a", "first")).unwrap();
    store.append(KIND, &put("a", "stale")).unwrap();
    store.commit().unwrap();
    drop(store);
    let log = files(&disk, FileKind::Log)[0];
    let mut bytes = disk.bytes(log).unwrap();
    bytes[HEADER_LEN + 24] ^= 0xff;
    disk.replace(log, bytes);
    let mut store = open(&disk);
    assert_eq!(store.next_position(), 0);
    write(&mut store, &put("a", "fresh"));
    drop(store);
    assert_eq!(payloads(&open(&disk).view_handle()), [put("a", "fresh")]);
}

/// I1, I8: what recovery has shown survives a power cut, also where a failed sync had left pages
/// that read well and are on no medium.
#[test]
fn what_recovery_has_shown_is_durable() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("a", "1"));
    store.append(KIND, &put("b", "2")).unwrap();
    disk.set_fault(Some((disk.operations() + 1, Fault::Once)));
    assert!(store.commit().is_err());
    drop(store);
    let store = open(&disk);
    let shown = payloads(&store.view_handle());
    assert_eq!(shown, [put("a", "1"), put("b", "2")]);
    let store = open(&disk.after_power_cut(Survival::Dropped));
    assert_eq!(payloads(&store.view_handle()), shown);
}

/// I3, I7: of a torn group a frame in the middle is lost and a later one is whole. Were the log
/// continued in the same file, a new frame of the length of the lost one would bring the later one
/// back.
#[test]
fn an_unclean_file_is_never_appended_to() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("a", "first"));
    for value in ["gone", "ghost"] {
        store.append(KIND, &put("a", value)).unwrap();
    }
    store.commit().unwrap();
    drop(store);
    let log = files(&disk, FileKind::Log)[0];
    let bytes = disk.bytes(log).unwrap();
    let gone = bytes.windows(4).position(|window| window == b"gone").unwrap();
    disk.flip(log, gone * 8);
    let mut store = open(&disk);
    assert_eq!(payloads(&store.view_handle()), [put("a", "first")]);
    write(&mut store, &put("a", "anew"));
    drop(store);
    let shown = payloads(&open(&disk).view_handle());
    assert_eq!(shown, [put("a", "first"), put("a", "anew")]);
}
