//! Verifying finds what was changed behind the store's back, says where, and changes nothing.

use std::sync::Arc;

use lastword_store::limits::HEADER_LEN;
use lastword_store::{
    Apply, Disk, Fault, FileKind, MemoryDisk, StoreError, Survival, VerifyReport, state_row, verify,
};

use crate::fold::{NO_HISTORY, lose_a_row};
use crate::support::*;

pub(crate) fn verified(disk: &MemoryDisk) -> VerifyReport {
    let before = image(disk);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let scratch = MemoryDisk::new(4 << 10);
    let apply: Arc<dyn Apply> = Arc::new(KeepRows);
    let as_disk: Arc<dyn Disk> = Arc::new(scratch.clone());
    let mut steps = Vec::new();
    let report = verify(&shared, &as_disk, &apply, &mut |step, _| steps.push(step));
    assert!(image(disk) == before, "verifying changed a file");
    assert!(scratch.list().unwrap().is_empty(), "verifying left a file");
    report
}

fn image(disk: &MemoryDisk) -> Vec<(u64, Vec<u8>)> {
    (0..100).filter_map(|number| Some((number, disk.bytes(number)?))).collect()
}

/// A base, three segments, a state that the log goes beyond.
fn filled() -> MemoryDisk {
    let disk = disk();
    let mut store = open(&disk);
    for round in 0..200_u64 {
        write(&mut store, &put(&format!("k{}", round % 60), &"v".repeat(200)));
    }
    assert!(store.fold(&NO_HISTORY).unwrap());
    for round in 0..150_u64 {
        write(&mut store, &put(&format!("k{}", round % 70), &"w".repeat(200)));
        if round == 90 {
            store.checkpoint().unwrap();
        }
    }
    store.prove().unwrap();
    disk
}

/// I12, I15: what is whole is found to be whole, and compared to the last row.
#[test]
fn a_whole_store_has_no_findings() {
    let disk = filled();
    let report = verified(&disk);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(report.compared);
    assert_eq!(report.base_rows, 60);
    assert_eq!(report.state_rows, 70);
    assert!(report.frames > 150 && report.log_files >= 3, "{report:?}");
    let row = state_row(&disk, A, b"k3").unwrap();
    assert_eq!(row.as_deref(), Some("w".repeat(200).as_bytes()));
    assert_eq!(state_row(&disk, A, b"none").unwrap(), None);
    assert!(verified(&crate::support::disk()).findings.is_empty(), "an empty directory");
}

/// I7: a torn tail is told and is no finding: nothing of it was ever acknowledged.
#[test]
fn a_torn_tail_is_no_finding() {
    let disk = filled();
    let mut store = open(&disk);
    write(&mut store, &put("a", "1"));
    store.append(KIND, &put("torn", &"t".repeat(3000))).unwrap();
    disk.set_fault(Some((disk.operations() + 1, lastword_store::Fault::PowerCut)));
    assert!(store.commit().is_err());
    let crashed = disk.after_power_cut(Survival::Torn(0x5151));
    let report = verified(&crashed);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(report.torn_bytes > 0);
}

/// I7, I12, I14: every kind of damage is found and named: segment, base, row, a missing row, and
/// only what the log cannot bring back counts as loss.
#[test]
fn damage_is_found_and_named() {
    let disk = filled();
    let logs = files(&disk, FileKind::Log);
    let state = files(&disk, FileKind::State)[0];
    let (mut bases, mut segments) = (0, 0);
    for log in &logs {
        let disk = copy(&disk);
        let is_base = disk.bytes(*log).unwrap()[10] == 2;
        disk.flip(*log, (HEADER_LEN + 400) * 8);
        let report = verified(&disk);
        let finding = report.findings.first().unwrap_or_else(|| panic!("file {log} is damaged"));
        assert!(finding.is_loss);
        match &finding.error {
            StoreError::Damaged { file, .. } => assert_eq!(file, log),
            other => panic!("{other}"),
        }
        *if is_base { &mut bases } else { &mut segments } += 1;
    }
    assert!(bases == 1 && segments >= 2, "{bases}, {segments}");
    let flipped = copy(&disk);
    let bytes = flipped.bytes(state).unwrap();
    let row = bytes.windows(4).rposition(|window| window == b"wwww").unwrap();
    flipped.flip(state, row * 8);
    lose_a_row(&disk, state, b"k3");
    for (disk, what) in [(flipped, "digest"), (disk, "69 rows")] {
        let report = verified(&disk);
        let told = report.findings.iter().map(|finding| finding.error.to_string());
        let told: Vec<_> = told.collect();
        assert!(told.iter().any(|told| told.contains(what)), "{what}: {told:?}");
        assert!(report.findings.iter().all(|finding| !finding.is_loss), "the log has it all");
    }
}

/// I12: a redb whose rows and sums fit one another but not the log was not made by this log.
#[test]
fn a_state_that_the_log_does_not_say_is_found() {
    let disk = disk();
    let mut store = open(&disk);
    for round in 0..40 {
        write(&mut store, &put(&format!("k{round}"), "v"));
    }
    store.checkpoint().unwrap();
    drop(store);
    // The same log, but the last frame sets another row.
    let log = files(&disk, FileKind::Log)[0];
    let other = crate::support::disk();
    let mut store = open(&other);
    for round in 0..40 {
        let key = if round == 39 { "x".into() } else { format!("k{round}") };
        write(&mut store, &put(&key, if round == 39 { "vv" } else { "v" }));
    }
    drop(store);
    disk.replace(log, other.bytes(files(&other, FileKind::Log)[0]).unwrap());
    let report = verified(&disk);
    let told: Vec<_> = report.findings.iter().map(|f| f.error.to_string()).collect();
    assert!(told.iter().any(|told| told.contains("the log says")), "{told:?}");
}

/// I12. The scratch directory was on a full disk, and verify said that the store was damaged and
/// its data maybe lost. Whatever fails there, the store is not blamed, and what could not be
/// compared is not said to be whole.
#[test]
fn a_scratch_place_that_fails_is_not_the_stores_damage() {
    let disk: Arc<dyn Disk> = Arc::new(filled());
    let apply: Arc<dyn Apply> = Arc::new(KeepRows);
    let mut failures = 0;
    for failing in 0..60 {
        let scratch = MemoryDisk::new(4 << 10);
        match failing {
            0 => scratch.set_room(Some(0)),
            at => scratch.set_fault(Some((at - 1, Fault::Once))),
        }
        let scratch: Arc<dyn Disk> = Arc::new(scratch);
        let report = verify(&disk, &scratch, &apply, &mut |_, _| {});
        assert!(report.findings.is_empty(), "failure {failing}: {:?}", report.findings);
        assert_eq!(report.compared, report.scratch_failed.is_none(), "failure {failing}");
        failures += u32::from(report.scratch_failed.is_some());
    }
    assert!(failures > 10, "{failures}");
}
