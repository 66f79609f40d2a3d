//! Folding: the log before a checkpoint becomes a base, and nothing of what it says is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lastword_store::{
    Apply, ApplyError, Disk, Durability, Fault, FileKind, FrameRef, History, MemoryDisk, Options,
    PutRow, RealDisk, Space, StateTxn, Store, StoreError, Survival, View,
};

use crate::support::*;

/// Nothing of the history is kept.
pub(crate) const NO_HISTORY: History = History { now_ms: 0, keep_ms: 0, erased_before: 0 };

fn log_bytes(disk: &MemoryDisk) -> u64 {
    let files = disk.list().unwrap();
    files.iter().filter(|file| file.kind == FileKind::Log).map(|file| file.len).sum()
}

fn state_of(disk: &MemoryDisk) -> u64 {
    files(disk, FileKind::State)[0]
}

/// Many updates of few rows, some deletes; returns the payloads.
fn busy(store: &mut Store, rounds: u64) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for round in 0..rounds {
        let payload = match round % 7 {
            6 => op(b'd', A, format!("k{}", round % 40).as_bytes(), b""),
            5 => op(b'p', B, format!("b{}", round % 11).as_bytes(), &[round as u8; 90]),
            _ => put(&format!("k{}", round % 40), &format!("{round} {}", "v".repeat(120))),
        };
        write(store, &payload);
        all.push(payload);
    }
    all
}

/// I27, B6: a fold removes the log before it and changes no row, also when redb is thrown away and
/// when there are several folds.
#[test]
fn a_fold_changes_no_row() {
    let disk = disk();
    let mut store = open(&disk);
    let mut all = Vec::new();
    for _ in 0..4 {
        all.extend(busy(&mut store, 400));
        let before = log_bytes(&disk);
        assert!(store.fold(&NO_HISTORY).unwrap());
        assert!(log_bytes(&disk) < before / 2, "{} of {before}", log_bytes(&disk));
        all.extend(busy(&mut store, 5));
        assert_eq!(dump(&store.view()), model(&all));
    }
    assert!(store.fold(&NO_HISTORY).unwrap());
    assert!(!store.fold(&NO_HISTORY).unwrap(), "nothing has come since");
    drop(store);
    assert_eq!(dump(&open(&copy(&disk)).view()), model(&all));
    disk.remove(state_of(&disk)).unwrap();
    let (mut store, report) = try_open(&disk).unwrap();
    assert!(report.rebuilt_state);
    assert_eq!(dump(&store.view()), model(&all));
    all.extend(busy(&mut store, 50));
    store.close().unwrap();
    assert_eq!(dump(&open(&disk).view()), model(&all));
}

/// I27: Put, then a change of it, fold, redb discarded: the row is what it was. A base that held
/// only what changed since the last one would lose the rows that did not.
#[test]
fn rows_that_do_not_change_survive_two_folds_and_the_loss_of_redb() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("stays", "1"));
    write(&mut store, &put("moves", "1"));
    assert!(store.fold(&NO_HISTORY).unwrap());
    write(&mut store, &put("moves", "2"));
    assert!(store.fold(&NO_HISTORY).unwrap());
    drop(store);
    disk.remove(state_of(&disk)).unwrap();
    let expected = model(&[put("stays", "1"), put("moves", "2")]);
    assert_eq!(dump(&open(&disk).view()), expected);
}

/// I12, I14: redb lost a row without noticing, and a fold would have made that final. The dump
/// does not have the sums that the checkpoint counted, so the state is made anew from the log.
#[test]
fn a_row_that_redb_lost_is_noticed_by_the_fold() {
    let disk = disk();
    let mut store = open(&disk);
    let all = busy(&mut store, 200);
    store.checkpoint().unwrap();
    drop(store);
    lose_a_row(&disk, state_of(&disk), b"k3");
    let mut store = open(&disk);
    assert!(store.view().get(A, b"k3").unwrap().is_none(), "the row is gone and redb is content");
    let job = store.begin_fold(&NO_HISTORY).unwrap().unwrap();
    let error = store.finish_fold(job.run()).unwrap_err();
    assert!(matches!(error, StoreError::StateDamaged { .. }), "{error}");
    assert!(error.to_string().contains("rows where"), "{error}");
    assert!(store.wants_rebuild());
    assert!(store.fold(&NO_HISTORY).unwrap(), "after the state was made anew");
    assert_eq!(dump(&store.view()), model(&all));
    assert!(!store.wants_rebuild());
    drop(store);
    disk.remove(state_of(&disk)).unwrap();
    assert_eq!(dump(&open(&disk).view()), model(&all));
}

/// I12, I14: redb lost one of few rows. Spaces of few rows hold what all else is judged by, so they
/// are looked through when a store is opened.
#[test]
fn a_row_that_redb_lost_of_few_is_noticed_by_the_next_open() {
    let disk = disk();
    let mut store = open(&disk);
    let mut all: Vec<_> = (0..20).map(|number| put(&format!("k{number:02}"), "v")).collect();
    for payload in &all {
        write(&mut store, payload);
    }
    store.checkpoint().unwrap();
    all.push(put("behind", "it"));
    write(&mut store, all.last().unwrap());
    drop(store);
    lose_a_row(&disk, state_of(&disk), b"k07");
    let (store, report) = try_open(&disk).unwrap();
    assert!(report.rebuilt_state);
    assert_eq!(dump(&store.view()), model(&all));
}

/// I12, I14. The story (seed 2463 of the simulator): a flipped bit hid the watermark, and a state
/// full of rows was taken for one that was just made. What the base says was put among them, and
/// the device went on as another one.
#[test]
fn a_state_whose_watermark_is_hidden_is_not_taken_for_an_empty_one() {
    for folds in [false, true] {
        let disk = disk();
        let mut store = open(&disk);
        let mut all = busy(&mut store, 200);
        store.checkpoint().unwrap();
        if folds {
            assert!(store.fold(&NO_HISTORY).unwrap());
        }
        all.push(put("behind", "it"));
        write(&mut store, all.last().unwrap());
        drop(store);
        spoil(&disk, state_of(&disk), |write| {
            let watermark = redb::TableDefinition::<(), &[u8]>::new("watermark.v2");
            assert!(write.open_table(watermark).unwrap().remove(()).unwrap().is_some());
        });
        let (store, report) = try_open(&disk).unwrap();
        assert!(report.rebuilt_state, "folds {folds}");
        assert_eq!(dump(&store.view()), model(&all), "folds {folds}");
    }
}

/// Deletes a row behind the back of the store, as a flipped bit in a branch page does.
pub(crate) fn lose_a_row(disk: &MemoryDisk, state: u64, key: &[u8]) {
    spoil(disk, state, |write| {
        let rows = redb::TableDefinition::<&[u8], &[u8]>::new("space00.v1");
        assert!(write.open_table(rows).unwrap().remove(key).unwrap().is_some());
    });
}

/// Changes redb behind the back of the store.
fn spoil(disk: &MemoryDisk, state: u64, change: impl FnOnce(&redb::WriteTransaction)) {
    let mut bytes = disk.bytes(state).unwrap();
    let redb = bytes.split_off(4096);
    let backend = redb::backends::InMemoryBackend::new();
    redb::StorageBackend::set_len(&backend, redb.len() as u64).unwrap();
    redb::StorageBackend::write(&backend, 0, &redb).unwrap();
    let shared = Shared(Arc::new(backend));
    let database = redb::Builder::new().create_with_backend(shared.clone()).unwrap();
    let write = database.begin_write().unwrap();
    change(&write);
    write.commit().unwrap();
    drop(database);
    let len = redb::StorageBackend::len(&*shared.0).unwrap() as usize;
    let mut redb = vec![0; len];
    redb::StorageBackend::read(&*shared.0, 0, &mut redb).unwrap();
    bytes.extend(redb);
    disk.replace(state, bytes);
}

/// A backend that outlives its database.
#[derive(Debug, Clone)]
struct Shared(Arc<redb::backends::InMemoryBackend>);

impl redb::StorageBackend for Shared {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

/// I12: a redb from before a fold beside the log after it is thrown away, not believed.
#[test]
fn an_older_redb_beside_a_folded_log_is_discarded() {
    let disk = disk();
    let mut store = open(&disk);
    let mut all = busy(&mut store, 300);
    store.checkpoint().unwrap();
    let state = state_of(&disk);
    let old = disk.bytes(state).unwrap();
    all.extend(busy(&mut store, 300));
    assert!(store.fold(&NO_HISTORY).unwrap());
    all.extend(busy(&mut store, 20));
    drop(store);
    disk.replace(state, old);
    let (store, report) = try_open(&disk).unwrap();
    assert!(report.rebuilt_state);
    assert_eq!(dump(&store.view()), model(&all));
}

/// Keeps rows; frames from a place on, which the test moves, are needed.
#[derive(Debug)]
struct Needs(AtomicU64);

impl Apply for Needs {
    fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        KeepRows.apply(frame, state)
    }

    fn needed_from(&self, _state: &View) -> Result<u64, StoreError> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}

/// B4: frames stay readable for as long as history is kept, and as long as an outbox needs them.
#[test]
fn a_fold_keeps_what_history_and_outbox_need() {
    let apply = Arc::new(Needs(AtomicU64::new(u64::MAX)));
    let mut store = Store::open(Arc::new(disk()), options(), apply.clone()).unwrap().0;
    let mut folds = Vec::new();
    for day in 0..6 {
        busy(&mut store, 200);
        let history = History { now_ms: day * 1000, keep_ms: 2500, ..NO_HISTORY };
        assert!(store.fold(&history).unwrap());
        folds.push(store.next_position());
    }
    let first = store.view_handle().first_position();
    assert!(first <= folds[2], "a frame younger than the window is gone: {first}, {folds:?}");
    assert!(first > folds[0], "what is older stays for ever: {first}, {folds:?}");
    let gone = store.read_frame(0).unwrap_err();
    assert!(matches!(gone, StoreError::OutOfRange { .. }), "{gone}");
    let needed = store.view_handle().first_position();
    busy(&mut store, 200);
    apply.0.store(needed, Ordering::Relaxed);
    let history = History { now_ms: 90_000, ..NO_HISTORY };
    assert!(store.fold(&history).unwrap());
    assert_eq!(store.view_handle().first_position(), needed);
    busy(&mut store, 200);
    apply.0.store(u64::MAX, Ordering::Relaxed);
    let history = History { now_ms: 91_000, keep_ms: i64::MAX, ..NO_HISTORY };
    let erased = History { erased_before: store.next_position(), ..history };
    assert!(store.fold(&erased).unwrap());
    assert!(store.view_handle().first_position() > needed, "an erased record outlives the fold");
}

/// I8, I9: commits and a checkpoint go on while a fold runs, and each step of it may fail: nothing
/// is lost, no file is left behind, and the next fold succeeds.
#[test]
fn a_failed_fold_leaves_everything_as_it_was() {
    let start = disk();
    let mut store = open(&start);
    let mut all = busy(&mut store, 300);
    store.checkpoint().unwrap();
    drop(store);
    let mut failures = 0;
    for failing in 0.. {
        let disk = copy(&start);
        let mut store = open(&disk);
        let before = files(&disk, FileKind::Log).len();
        let job = store.begin_fold(&NO_HISTORY).unwrap().unwrap();
        assert!(store.begin_fold(&NO_HISTORY).unwrap().is_none(), "one at a time");
        disk.set_fault(Some((disk.operations() + failing, Fault::Once)));
        let done = store.finish_fold(job.run());
        let reached = disk.operations() > failing + 1;
        disk.set_fault(None);
        if done.is_err() {
            failures += 1;
            assert!(files(&disk, FileKind::Log).len() <= before + 1, "failure at {failing}");
        }
        assert_eq!(dump(&store.view()), model(&all), "failure at {failing}");
        let more = busy(&mut store, 30);
        store.fold(&NO_HISTORY).unwrap();
        let now: Vec<_> = all.iter().chain(&more).cloned().collect();
        assert_eq!(dump(&store.view()), model(&now), "failure at {failing}");
        drop(store);
        let disk = disk.after_power_cut(Survival::Dropped);
        disk.remove(state_of(&disk)).unwrap();
        assert_eq!(dump(&open(&disk).view()), model(&now), "failure at {failing}");
        if done.is_ok() && (failing > 12 || !reached) {
            break;
        }
    }
    assert!(failures >= 5, "{failures}");
    all.clear();
}

/// I12, I18: a checkpoint and commits in the middle of a fold: the base stands for the checkpoint
/// that it was begun with. A rebuild reads the log that a fold removes: neither begins beside the
/// other.
#[test]
fn a_checkpoint_goes_on_while_a_fold_runs() {
    let disk = disk();
    let mut store = open(&disk);
    let mut all = busy(&mut store, 300);
    store.checkpoint().unwrap();
    let view = store.view();
    let job = store.begin_fold(&NO_HISTORY).unwrap().unwrap();
    all.extend(busy(&mut store, 100));
    store.checkpoint().unwrap();
    all.extend(busy(&mut store, 10));
    assert!(store.begin_rebuild().unwrap().is_none(), "not while a fold runs");
    store.finish_fold(job.run()).unwrap();
    let rebuild = store.begin_rebuild().unwrap().unwrap();
    assert!(store.begin_fold(&NO_HISTORY).unwrap().is_none(), "not while a rebuild runs");
    store.finish_rebuild(rebuild.run()).unwrap();
    assert!(store.begin_fold(&NO_HISTORY).unwrap().is_some());
    assert_eq!(dump(&view), model(&all[..300]));
    assert_eq!(dump(&store.view()), model(&all));
    drop(store);
    disk.remove(state_of(&disk)).unwrap();
    assert_eq!(dump(&open(&disk).view()), model(&all));
}

/// I12: a state that is made anew from its rows is the same, commits go on meanwhile, and the file
/// is as small as its rows allow; a cancelled one changes nothing.
#[test]
fn a_rebuilt_state_is_the_same_and_smaller() {
    let disk = disk();
    let mut store = open(&disk);
    let mut all = Vec::new();
    for _ in 0..30 {
        all.extend(busy(&mut store, 60));
        store.checkpoint().unwrap();
    }
    let cancelled = store.begin_rebuild().unwrap().unwrap();
    assert!(store.begin_checkpoint().unwrap().is_none(), "no checkpoint beside a rebuild");
    store.cancel_rebuild();
    store.finish_rebuild(cancelled.run()).unwrap();
    assert_eq!(files(&disk, FileKind::State).len(), 1);
    let job = store.begin_rebuild().unwrap().unwrap();
    let more = busy(&mut store, 20);
    let view = store.view();
    store.finish_rebuild(job.run()).unwrap();
    all.extend(more);
    assert_eq!(dump(&view), model(&all), "a view of before reads on");
    assert_eq!(dump(&store.view()), model(&all));
    assert_eq!(files(&disk, FileKind::State).len(), 1);
    store.checkpoint().unwrap();
    drop(store);
    assert_eq!(dump(&open(&disk).view()), model(&all));
}

/// Keeps rows and, in another space, their values as keys: an index of a kind.
#[derive(Debug)]
pub(crate) struct KeepIndexed;

pub(crate) const BY_VALUE: Space = Space::new(3);

impl Apply for KeepIndexed {
    fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        state.put(A, frame.payload, b"row")?;
        Ok(state.put(BY_VALUE, frame.payload, b"entry")?)
    }

    fn derived(&self) -> &[Space] {
        &[BY_VALUE]
    }

    fn restore(
        &self,
        space: Space,
        key: &[u8],
        value: &[u8],
        put: &mut PutRow<'_>,
    ) -> Result<(), ApplyError> {
        put(space, key, value);
        put(BY_VALUE, key, b"entry");
        Ok(())
    }
}

/// I13: what follows from other rows is not in the base and is made again from it.
#[test]
fn derived_rows_are_made_again_from_a_base() {
    let disk = disk();
    let open = || Store::open(Arc::new(disk.clone()), options(), Arc::new(KeepIndexed)).unwrap().0;
    let mut store = open();
    for number in 0..300 {
        write(&mut store, format!("k{number}").as_bytes());
    }
    assert!(store.fold(&NO_HISTORY).unwrap());
    drop(store);
    let bytes: Vec<u8> =
        files(&disk, FileKind::Log).iter().flat_map(|file| disk.bytes(*file).unwrap()).collect();
    assert!(!bytes.windows(5).any(|window| window == b"entry"));
    disk.remove(state_of(&disk)).unwrap();
    let store = open();
    for number in 0..300 {
        let entry = store.view().get(BY_VALUE, format!("k{number}").as_bytes()).unwrap();
        assert_eq!(entry.as_deref(), Some(&b"entry"[..]));
    }
}

/// I7, I15: any byte of a base changed is a typed error when the base is needed, and the file stays
/// for whoever can still read it; a base that is missing is damage too.
#[test]
fn a_changed_base_is_never_believed() {
    let disk = disk();
    let mut store = open(&disk);
    let all = busy(&mut store, 300);
    assert!(store.fold(&NO_HISTORY).unwrap());
    assert!(store.view_handle().first_position() > 0);
    store.close().unwrap();
    let (base, state) = (base_of(&disk), state_of(&disk));
    let bytes = disk.bytes(base).unwrap();
    assert!(bytes.len() > 5000, "{}", bytes.len());
    for at in 0..bytes.len() {
        let disk = copy(&disk);
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        disk.replace(base, changed);
        disk.remove(state).unwrap();
        match try_open(&disk) {
            Err(StoreError::Damaged { .. } | StoreError::Disk(_)) => {}
            Ok((store, _)) => assert_eq!(dump(&store.view()), model(&all), "byte {at}"),
            Err(other) => panic!("byte {at}: {other}"),
        }
        assert!(disk.bytes(base).is_some(), "byte {at}: the damaged base was removed");
    }
    disk.remove(base).unwrap();
    assert!(matches!(try_open(&disk), Err(StoreError::Damaged { .. })));
}

fn base_of(disk: &MemoryDisk) -> u64 {
    let kind = |number: &u64| disk.bytes(*number).unwrap()[10];
    files(disk, FileKind::Log).into_iter().find(|number| kind(number) == 2).unwrap()
}

/// I9: on a disk without any space left a fold makes room again, as long as what is live fits a
/// spare, and writes go on.
#[test]
fn a_fold_frees_a_full_disk() {
    let disk = disk();
    let mut store = open(&disk);
    let mut all = Vec::new();
    let mut number = 0_u64;
    disk.set_room(Some(120_000));
    let full = loop {
        let payload = put(&format!("k{}", number % 5), &format!("{number} {}", "v".repeat(300)));
        number += 1;
        match store.append(KIND, &payload) {
            Ok(_) => all.push(payload),
            Err(error) => break error,
        }
        store.commit().unwrap();
        if number.is_multiple_of(40) {
            // As long as there is room for it.
            let _ = store.checkpoint();
        }
    };
    assert!(matches!(full, StoreError::NoSpace { .. }), "{full}");
    store.append_urgent(KIND, &op(b'd', A, b"k1", b"")).unwrap();
    store.commit().unwrap();
    all.push(op(b'd', A, b"k1", b""));
    assert!(store.fold(&NO_HISTORY).unwrap());
    for _ in 0..50 {
        let payload = put("k2", &"w".repeat(300));
        write(&mut store, &payload);
        all.push(payload);
    }
    assert_eq!(dump(&store.view()), model(&all));
    drop(store);
    assert_eq!(dump(&open(&disk).view()), model(&all));
}

/// B6: with real files, a fold and a rebuild leave no file but those in use.
#[test]
fn real_files_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let lock = lastword_store::DirLock::acquire(dir.path()).unwrap();
        let disk = RealDisk::open(lock, options().zero_step).unwrap();
        Store::open(Arc::new(disk), options(), Arc::new(KeepRows)).unwrap().0
    };
    let mut store = open();
    let all = busy(&mut store, 700);
    assert!(store.fold(&NO_HISTORY).unwrap());
    let job = store.begin_rebuild().unwrap().unwrap();
    store.finish_rebuild(job.run()).unwrap();
    store.close().unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    // LOCK, base, segment, state, spare.
    assert_eq!(names.len(), 5, "{names:?}");
    let _ = Options::default();
    assert_eq!(dump(&open().view()), model(&all));
}

/// Bytes that the files of a directory take on the medium; redb's have holes.
#[cfg(unix)]
fn used_bytes(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(dir).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

/// B6: endless updates of the same records: the log is folded and redb's file does not grow, so the
/// disk holds less than three times what is live, and less than four times while a fold runs. Of
/// `LASTWORD_DISK_RECORDS` records with the sizes of a device, or of few with small sizes. Records
/// of 310 bytes are written anew by checkpoints, of 1,010 bytes in place.
#[cfg(unix)]
#[test]
fn endless_updates_take_a_bounded_disk() {
    update_endlessly(60_000, 300);
}

/// B6: the same in place. Each checkpoint copied a quarter of all pages, which took room for two
/// checkpoints more; and redb doubles the length of its file, which was taken for growth, so that
/// the state was made anew after every checkpoint.
#[cfg(unix)]
#[test]
fn endless_updates_in_place_take_a_bounded_disk() {
    update_endlessly(20_000, 1_000);
}

#[cfg(unix)]
fn update_endlessly(records: u64, value: usize) {
    let as_device =
        Options { durability: Durability::None, entropy: [7; 32], ..Options::default() };
    let small = Options {
        segment_size: 512 << 10,
        zero_step: 64 << 10,
        delta_cap_bytes: 2 << 20,
        anew_from_bytes: 1 << 20,
        ..as_device.clone()
    };
    let asked = std::env::var("LASTWORD_DISK_RECORDS");
    let (records, sizes) = match asked.map(|records| records.parse().unwrap()) {
        Ok(records) => (records, as_device),
        Err(_) => (records, small),
    };
    let dir = tempfile::tempdir().unwrap();
    let lock = lastword_store::DirLock::acquire(dir.path()).unwrap();
    let disk = Arc::new(RealDisk::open(lock, sizes.zero_step).unwrap());
    let mut store = Store::open(disk, sizes, Arc::new(KeepRows)).unwrap().0;
    let live = records * (10 + value as u64);
    let (mut calm, mut folding, mut folds, mut rebuilds, mut random) = (0, 0, 0, 0, 7_u64);
    for step in 0..records * 6 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let record = if step < records { step } else { random % records };
        store.append(KIND, &put(&format!("k{record:09}"), &"v".repeat(value))).unwrap();
        if step % 50 != 49 {
            continue;
        }
        store.commit().unwrap();
        if store.wants_checkpoint() {
            store.checkpoint().unwrap();
        }
        if store.wants_fold() {
            let job = store.begin_fold(&NO_HISTORY).unwrap().unwrap();
            let done = job.run();
            folding = folding.max(used_bytes(dir.path()));
            store.finish_fold(done).unwrap();
            folds += 1;
        }
        if store.wants_rebuild() {
            let job = store.begin_rebuild().unwrap().unwrap();
            store.finish_rebuild(job.run()).unwrap();
            rebuilds += 1;
        }
        if step > 2 * records {
            calm = calm.max(used_bytes(dir.path()));
        }
    }
    let rate = |bytes: u64| bytes as f64 / live as f64;
    let (now, then) = (rate(calm), rate(folding));
    eprintln!("{records} records: {now:.2} of what is live, {then:.2} while folding");
    eprintln!("{folds} folds, {rebuilds} rebuilds");
    assert!(folds > 5, "{folds}");
    assert!(rebuilds < 5, "{rebuilds}: the file is made anew again and again");
    assert!(calm < 3 * live, "{calm} bytes for {live} live");
    assert!(folding < 4 * live, "{folding} bytes for {live} live");
}

/// I12: a checkpoint on the way of a rebuild failed, and the rebuild ended with a state that stood
/// for less of the log than the one it replaced: rows were gone, with sums that fitted, and the
/// next fold would have made that final.
#[test]
fn a_rebuild_with_a_failure_on_the_way_is_whole_or_none() {
    let start = disk();
    let mut store = open(&start);
    let all: Vec<_> = (0..200).map(|n| put(&format!("k{n:03}"), &"v".repeat(100))).collect();
    for payload in &all {
        write(&mut store, payload);
    }
    store.checkpoint().unwrap();
    drop(store);
    lose_a_row(&start, state_of(&start), b"k003");
    let small = Options { replay_bytes: 20_000, ..options() };
    let mut rebuilt = 0;
    for failing in 0..200 {
        let disk = copy(&start);
        let mut store = open_with(&disk, small.clone()).unwrap().0;
        let job = store.begin_fold(&NO_HISTORY).unwrap().unwrap();
        assert!(store.finish_fold(job.run()).is_err());
        let job = store.begin_rebuild().unwrap().unwrap();
        disk.set_fault(Some((disk.operations() + failing, Fault::Once)));
        let done = store.finish_rebuild(job.run());
        disk.set_fault(None);
        if done.is_ok() {
            rebuilt += 1;
            assert_eq!(dump(&store.view()), model(&all), "failure at {failing}");
        }
    }
    assert!(rebuilt > 20, "{rebuilt}");
}

/// B6: a file that was to be removed was gone already, since an earlier try had removed it before
/// it failed. It stayed at the head of the queue, so no fold removed any file again.
#[test]
fn a_file_that_is_gone_holds_no_other_back() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let lock = lastword_store::DirLock::acquire(dir.path()).unwrap();
        RealDisk::open(lock, options().zero_step).unwrap()
    };
    let real: Arc<dyn Disk> = Arc::new(open());
    let memory: Arc<dyn Disk> = Arc::new(disk());
    for disk in [real, memory] {
        let mut store = Store::open(disk.clone(), options(), Arc::new(KeepRows)).unwrap().0;
        let logs = |disk: &Arc<dyn Disk>| {
            let files = disk.list().unwrap().into_iter();
            files.filter(|file| file.kind == FileKind::Log).map(|file| file.number)
        };
        busy(&mut store, 400);
        let first = logs(&disk).next().unwrap();
        disk.remove(first).unwrap();
        store.fold(&NO_HISTORY).unwrap();
        busy(&mut store, 400);
        store.fold(&NO_HISTORY).unwrap();
        // The base and the segment that the state ends in.
        assert_eq!(logs(&disk).count(), 2);
    }
}

/// I12, B6: a fold or a rebuild that was lost on the way was under way for ever: the log was never
/// folded again, and after a lost rebuild no checkpoint began. Lost before its run or with its
/// result, nothing is left of it.
#[test]
fn a_fold_or_rebuild_that_is_dropped_holds_no_other_back() {
    let disk = disk();
    let mut store = open(&disk);
    let mut all = busy(&mut store, 300);
    store.checkpoint().unwrap();
    let before = (files(&disk, FileKind::Log), files(&disk, FileKind::State));
    for is_run in [false, true] {
        let fold = store.begin_fold(&NO_HISTORY).unwrap().expect("none runs");
        if is_run {
            drop(fold.run())
        } else {
            drop(fold)
        }
        let rebuild = store.begin_rebuild().unwrap().expect("none runs");
        if is_run {
            drop(rebuild.run())
        } else {
            drop(rebuild)
        }
        assert_eq!((files(&disk, FileKind::Log), files(&disk, FileKind::State)), before);
    }
    all.extend(busy(&mut store, 30));
    assert!(store.fold(&NO_HISTORY).unwrap());
    assert_eq!(dump(&store.view()), model(&all));
}

/// Frames of an outbox: `send` waits in it until `sent`; anything else is a row.
#[derive(Debug)]
struct KeepOutbox;

fn waits(state: &View) -> Result<u64, StoreError> {
    let waits = state.get(A, b"waits")?;
    Ok(waits.map_or(u64::MAX, |at| u64::from_be_bytes(at[..].try_into().unwrap())))
}

impl Apply for KeepOutbox {
    fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        match frame.payload {
            b"send" => state.put(A, b"waits", &frame.position.to_be_bytes())?,
            b"sent" => state.delete(A, b"waits"),
            other => state.put(B, other, b"row")?,
        }
        Ok(())
    }

    fn needed_from(&self, state: &View) -> Result<u64, StoreError> {
        waits(state)
    }
}

/// I1, I27: a batch had left the outbox in the newest state, so a fold took its frame away; then
/// the power went before that was durable, and the batch waited in the outbox again without its
/// ops. A fold keeps what the outbox of its base needs.
#[test]
fn a_fold_keeps_what_a_power_cut_brings_back() {
    let disk = disk();
    let open = |disk: &MemoryDisk| {
        Store::open(Arc::new(disk.clone()), options(), Arc::new(KeepOutbox)).unwrap().0
    };
    let mut store = open(&disk);
    let sent_at = write(&mut store, b"send");
    for number in 0..600 {
        write(&mut store, format!("k{number} {}", "v".repeat(100)).as_bytes());
    }
    store.checkpoint().unwrap();
    store.append(KIND, b"sent").unwrap();
    let job = store.begin_fold(&NO_HISTORY).unwrap().unwrap();
    store.finish_fold(job.run()).unwrap();
    let cut = open(&disk.after_power_cut(Survival::Dropped));
    assert_eq!(waits(&cut.view()).unwrap(), sent_at, "it waits again");
    assert_eq!(cut.read_frame(sent_at).unwrap().payload, b"send");
    store.commit().unwrap();
    assert!(store.fold(&NO_HISTORY).unwrap());
    assert!(store.view_handle().first_position() > sent_at, "it stays for ever");
}
