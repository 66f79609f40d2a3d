//! Power cuts at every operation, and inside recovery.

use lastword_store::limits::HEADER_LEN;
use lastword_store::{Fault, FileKind, MemoryDisk, Store, StoreError, Survival};

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

/// Commits, proofs, rolls, checkpoints, an unclean and a clean reopen.
fn trace(disk: &MemoryDisk, run: &mut Run) -> Result<(), StoreError> {
    for session in 0..3 {
        let mut store = try_open(disk)?.0;
        for step in 0..20 {
            for part in 0..1 + step % 3 {
                let value = format!("{session}.{step}.{part}").repeat(1 + step * 11);
                run.append(&mut store, put(&format!("k{}", (step * 5 + part) % 9), &value))?;
            }
            if step % 4 == 0 {
                run.append(&mut store, op(b'd', A, format!("k{}", step % 9).as_bytes(), b""))?;
            }
            run.commit(&mut store)?;
            if step % 2 == 0 {
                store.prove()?;
            }
            if step == 5 {
                // A checkpoint that fails is the caller's to retry.
                let _ = store.checkpoint();
            }
        }
        if session != 0 {
            store.close()?;
        }
    }
    Ok(())
}

fn check(disk: &MemoryDisk, run: &Run, what: &str) {
    let (mut store, _) = try_open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = payloads(&store.view_handle());
    assert!(found.len() >= run.acknowledged, "I1: {what}: an acknowledged frame is lost");
    assert!(run.submitted.starts_with(&found), "I2, I3: {what}: not a prefix of what was written");
    assert_eq!(dump(&store.view()), model(&found), "I12: {what}");
    write(&mut store, &put("after", "crash"));
    drop(store);
    let store = open(disk);
    assert_eq!(payloads(&store.view_handle()).len(), found.len() + 1, "I10: {what}");
}

/// I1, I2, I3, I7, I12: power is cut at each write, sync and change of length of a trace.
#[test]
fn a_power_cut_at_every_operation_loses_nothing_acknowledged() {
    let whole = disk();
    let mut run = Run::default();
    trace(&whole, &mut run).unwrap();
    check(&whole, &run, "no cut");
    let operations = whole.operations();
    for at in 0..operations {
        let disk = disk();
        disk.set_fault(Some((at, Fault::PowerCut)));
        let mut run = Run::default();
        // It may succeed if all that is left is redb's own farewell.
        let _ = trace(&disk, &mut run);
        let torn = [Survival::Torn(at * 77 + 5), Survival::Torn(at * 91 + 1)];
        for survival in [Survival::Dropped, Survival::Kept].into_iter().chain(torn) {
            let what = format!("cut at {at}, {survival:?}");
            check(&disk.after_power_cut(survival), &run, &what);
        }
    }
}

/// I8, I9: one operation fails and the next would work; nothing acknowledged is lost either.
#[test]
fn a_single_failure_at_every_operation_loses_nothing_acknowledged() {
    let whole = disk();
    trace(&whole, &mut Run::default()).unwrap();
    for at in 0..whole.operations() {
        let disk = disk();
        disk.set_fault(Some((at, Fault::Once)));
        let mut run = Run::default();
        // Some failures are absorbed: those of redb and of the room for a proof.
        let _ = trace(&disk, &mut run);
        let survivor = disk.after_power_cut(Survival::Torn(at * 31 + 7));
        check(&survivor, &run, &format!("failure at {at}"));
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
