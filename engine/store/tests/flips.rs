//! Every bit of a log and of a redb file, flipped one at a time. A binary of its own, since it
//! watches how much memory is taken.
//!
//! `LASTWORD_FLIP_STRIDE` says how many bits are passed over: `make check` tries all of a log.

// A helper of a test fails the test as the test itself would.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "store/support.rs"]
mod support;

#[allow(dead_code)]
#[path = "store/blob_support.rs"]
mod blobs;

use lastword_store::limits::{HEADER_LEN, MAX_FRAME};
use lastword_store::{
    BlobError, Disk, DiskError, FileKind, History, MemoryDisk, Options, StoreError, View,
};
use peak_alloc::PeakAlloc;
use support::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A frame as long as may be, a chunk of a scan, redb, the test's own images, on two threads.
const MAX_MEMORY: usize = 2 * MAX_FRAME + (32 << 20);

const NO_HISTORY: History = History { now_ms: 0, keep_ms: 0, erased_before: 0 };

fn stride(default: usize) -> usize {
    std::env::var("LASTWORD_FLIP_STRIDE").map_or(default, |stride| stride.parse().unwrap())
}

/// Runs `check` for every `step`-th bit below `bits`, on two threads.
fn for_bits(bits: usize, step: usize, check: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for half in 0..2 {
            let check = &check;
            scope.spawn(move || (half * step..bits).step_by(2 * step).for_each(check));
        }
    });
}

fn rows(view: &View) -> Option<Rows> {
    let mut rows = Rows::new();
    for space in [A, B] {
        let all = lastword_store::KeyRange::all();
        for row in view.scan(space, &all, lastword_store::Direction::Forward).ok()? {
            let (key, value) = row.ok()?;
            rows.insert((space.number(), key.to_vec()), value.to_vec());
        }
    }
    Some(rows)
}

/// I7, I15: any flipped bit of a whole 64 KiB log is damage with its file, or lies in the last
/// group, which nothing proves: no panic, hang or memory beyond its limit, and no other state.
#[test]
fn any_flipped_bit_of_a_log_is_found() {
    let disk = disk();
    let big = Options { segment_size: 1 << 20, ..options() };
    let (mut store, _) = open_with(&disk, big).unwrap();
    let mut all = Vec::new();
    while store.next_position() < (64 << 10) - 900 {
        let number = all.len();
        all.push(put(&format!("k{number}"), &"v".repeat(40 + number * 7 % 800)));
        write(&mut store, all.last().unwrap());
    }
    let last_group = store.next_position();
    all.push(put("last", "1"));
    write(&mut store, all.last().unwrap());
    drop(store);
    let log = files(&disk, FileKind::Log)[0];
    let state = files(&disk, FileKind::State)[0];
    disk.remove(state).unwrap();
    let whole = disk.bytes(log).unwrap()[..64 << 10].to_vec();
    disk.replace(log, whole);
    let (last_group, all) = (HEADER_LEN + last_group as usize, &all);
    let bits = (64 << 10) * 8;
    let step = stride(97);
    MEMORY.reset_peak_usage();
    for_bits(bits, step, |bit| {
        let disk = copy(&disk);
        disk.flip(log, bit);
        match try_open(&disk) {
            Ok((store, _)) => {
                let shown = payloads(&store.view_handle());
                assert!(bit / 8 >= last_group || shown == *all, "bit {bit} is not noticed");
                let whole = shown == *all || shown == all[..all.len() - 1];
                assert!(whole && dump(&store.view()) == model(&shown), "bit {bit}");
            }
            Err(StoreError::Damaged { file, offset, .. }) => {
                assert!(file == log && offset <= bit as u64 / 8, "bit {bit}: at {offset}");
            }
            Err(StoreError::Disk(DiskError::Damaged { .. } | DiskError::TooNew { .. })) => {
                assert!(bit / 8 < HEADER_LEN, "bit {bit}");
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    });
    let peak = MEMORY.peak_usage();
    assert!(peak < MAX_MEMORY, "{peak} bytes of memory");
    eprintln!("{} bits of a log, at most {peak} bytes of memory", bits / step);
}

/// I31, I34: whatever bit of a pack is flipped, each file is read back as it was or not at all,
/// with an error that names the pack: never other bytes, never zeros. The store takes new files.
#[test]
fn any_flipped_bit_of_a_pack_is_found() {
    let disk = disk();
    let mut store = blobs::open(&disk);
    let contents = [blobs::noise(1, 90_000), vec![b'a'; 70_000], b"short".to_vec(), Vec::new()];
    let kept: Vec<_> =
        contents.iter().map(|c| (blobs::put(&mut store, &c[..]).unwrap().0, c)).collect();
    store.close().unwrap();
    let pack = files(&disk, FileKind::Pack)[0];
    let bits = disk.bytes(pack).unwrap().len() * 8;
    let step = stride(997);
    let found = std::sync::atomic::AtomicUsize::new(0);
    MEMORY.reset_peak_usage();
    for_bits(bits, step, |bit| {
        let disk = copy(&disk);
        disk.flip(pack, bit);
        let mut store = blobs::try_open(&disk).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        for (blob, content) in &kept {
            match blobs::get(&store, blob) {
                Ok(read) => assert!(read == **content, "bit {bit}: other bytes"),
                Err(BlobError::Damaged { file, .. }) => {
                    assert_eq!(file, pack, "bit {bit}");
                    found.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Err(other) => panic!("bit {bit}: {other}"),
            }
        }
        let (new, _) = blobs::put(&mut store, &b"new"[..]).unwrap();
        assert_eq!(blobs::get(&store, &new).unwrap(), b"new");
    });
    let (found, peak) = (found.into_inner(), MEMORY.peak_usage());
    assert!(peak < MAX_MEMORY, "{peak} bytes of memory");
    assert!(found > 10, "no flip was noticed: the test proves nothing");
    eprintln!("{} bits of a pack, {found} found, at most {peak} bytes", bits / step);
}

/// I12, I31: whatever bit of redb is flipped, a file is read back as it was or not at all.
#[test]
fn any_flipped_bit_of_the_index_of_chunks_is_harmless() {
    std::panic::set_hook(Box::new(|_| {}));
    let disk = disk();
    let mut store = blobs::open(&disk);
    let contents: Vec<_> = (0..40).map(|seed| blobs::noise(seed, 70_000)).collect();
    let kept: Vec<_> =
        contents.iter().map(|c| (blobs::put(&mut store, &c[..]).unwrap().0, c)).collect();
    store.close().unwrap();
    let state = files(&disk, FileKind::State)[0];
    let bits = disk.bytes(state).unwrap().len() * 8;
    let failed = std::sync::Mutex::new(Vec::new());
    for_bits(bits, stride(997) * 20 + 1, |bit| {
        let case = std::panic::catch_unwind(|| {
            let disk = copy(&disk);
            disk.flip(state, bit);
            let Ok(store) = blobs::try_open(&disk) else { return };
            for (blob, content) in &kept {
                if let Ok(read) = blobs::get(&store, blob) {
                    assert!(read == **content, "bit {bit}: other bytes");
                }
            }
        });
        if case.is_err() {
            failed.lock().unwrap().push(bit);
        }
    });
    let _ = std::panic::take_hook();
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "bits {failed:?}");
}

/// I12, I14, I15: whatever bit of redb is flipped, each row that comes back is right or an error,
/// and where a row is missing the fold notices, makes the state anew and loses nothing.
#[test]
fn any_flipped_bit_of_redb_is_harmless() {
    // What redb says as it gives up would fill the screen; the panic is caught and is the point.
    std::panic::set_hook(Box::new(|_| {}));
    let disk = disk();
    let mut store = open(&disk);
    let mut all = Vec::new();
    for number in 0..150 {
        all.push(put(&format!("k{:02}", number % 70), &format!("{number} {}", "v".repeat(60))));
        write(&mut store, all.last().unwrap());
        if number % 50 == 49 {
            store.checkpoint().unwrap();
        }
    }
    store.close().unwrap();
    let state = files(&disk, FileKind::State)[0];
    let bits = disk.bytes(state).unwrap().len() * 8;
    let expected = model(&all);
    let step = (stride(997) * 8 + 1).min(8 * 997 + 1);
    let failed = std::sync::Mutex::new(Vec::new());
    let noticed = std::sync::atomic::AtomicUsize::new(0);
    MEMORY.reset_peak_usage();
    for_bits(bits, step, |bit| {
        let case = std::panic::catch_unwind(|| flipped_redb(&disk, state, bit, &expected));
        match case {
            Ok(true) => drop(noticed.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
            Ok(false) => {}
            Err(_) => failed.lock().unwrap().push(bit),
        }
    });
    let _ = std::panic::take_hook();
    let failed = failed.into_inner().unwrap();
    let peak = MEMORY.peak_usage();
    assert!(failed.is_empty(), "bits {failed:?}");
    assert!(peak < MAX_MEMORY, "{peak} bytes of memory");
    let noticed = noticed.into_inner();
    eprintln!("{} bits of redb, {noticed} noticed late, at most {peak} bytes", bits / step);
    assert!(noticed > 0, "no flip was noticed by a fold: the test proves nothing");
}

/// Whether it was the fold that noticed the flipped bit.
fn flipped_redb(disk: &MemoryDisk, state: u64, bit: usize, expected: &Rows) -> bool {
    let disk = copy(disk);
    disk.flip(state, bit);
    let mut store = open(&disk);
    let view = store.view();
    let mut right = true;
    for ((_, key), value) in expected {
        match view.get(A, key) {
            Ok(Some(found)) => assert_eq!(found[..], value[..]),
            Ok(None) => right = false,
            Err(StoreError::StateDamaged { .. }) => right = false,
            Err(other) => panic!("{other}"),
        }
    }
    right &= rows(&view).as_ref() == Some(expected);
    drop(view);
    let mut late = false;
    if let Some(job) = store.begin_fold(&NO_HISTORY).unwrap() {
        let folded = store.finish_fold(job.run());
        assert!(folded.is_err() || right, "a fold made a loss final");
        late = folded.is_err();
        if late {
            assert!(store.wants_rebuild());
            let rebuilt = store.begin_rebuild().unwrap().unwrap();
            store.finish_rebuild(rebuilt.run()).unwrap();
            let job = store.begin_fold(&NO_HISTORY).unwrap().unwrap();
            store.finish_fold(job.run()).unwrap();
        }
    }
    for ((_, key), value) in expected {
        assert_eq!(store.view().get(A, key).unwrap().as_deref(), Some(&value[..]));
    }
    assert_eq!(dump(&store.view()), *expected);
    drop(store);
    disk.remove(files(&disk, FileKind::State)[0]).unwrap();
    assert_eq!(dump(&open(&disk).view()), *expected);
    late
}
