//! Targets that drive a whole store: what it does against a model, and directories of any files.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastword_store::{
    Apply, ApplyError, Direction, Disk as _, FileKind, FrameRef, History, KeyRange, MemoryDisk,
    Options, Space, StateTxn, Store, StoreError, Survival,
};

const SPARE_BYTES: u64 = 4 << 10;
const KIND: u8 = 40;
const ROWS: Space = Space::new(2);
const NO_HISTORY: History = History { now_ms: 0, keep_ms: 0, erased_before: 0 };
/// Most steps of one input.
const MAX_STEPS: usize = 200;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Payload: key, and a value unless it is a delete.
#[derive(Debug)]
struct KeepRows;

impl Apply for KeepRows {
    fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        match frame.payload.split_first() {
            Some((key, [])) => state.delete(ROWS, &[*key]),
            Some((key, value)) => state.put(ROWS, &[*key], value)?,
            None => {}
        }
        Ok(())
    }
}

fn options() -> Options {
    let entropy = [5; 32];
    Options { segment_size: 8 << 10, zero_step: SPARE_BYTES, entropy, ..Options::default() }
}

fn open(disk: &MemoryDisk) -> Result<Store, StoreError> {
    Ok(Store::open(Arc::new(disk.clone()), options(), Arc::new(KeepRows))?.0)
}

fn rows(store: &Store) -> Result<Rows, StoreError> {
    let view = store.view();
    view.scan(ROWS, &KeyRange::all(), Direction::Forward)?
        .map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())))
        .collect()
}

/// Steps against an ordered map, two bytes each: writes, deletes, commits, checkpoints, folds, a
/// state made anew, closing, kills and power cuts. After each that ends a session the store shows
/// what was committed; what was not may be gone after a power cut, from its end.
pub fn steps(bytes: &[u8]) {
    let disk = MemoryDisk::new(SPARE_BYTES);
    let mut disk = disk;
    let mut store = open(&disk).expect("an empty disk becomes a store");
    let (mut committed, mut written) = (Rows::new(), Rows::new());
    for step in bytes.chunks_exact(2).take(MAX_STEPS) {
        let [what, key] = *step else { return };
        match what % 16 {
            0..=5 => {
                let value = vec![what; usize::from(what) + 1];
                store.append(KIND, &[&[key % 8], value.as_slice()].concat()).expect("it fits");
                written.insert(vec![key % 8], value);
            }
            6 | 7 => {
                store.append(KIND, &[key % 8]).expect("it fits");
                written.remove(&vec![key % 8]);
            }
            8 | 9 => {
                store.commit().expect("the disk works");
                committed.clone_from(&written);
                store.prove().expect("the disk works");
            }
            10 => {
                store.commit().expect("the disk works");
                committed.clone_from(&written);
                store.checkpoint().expect("the disk works");
            }
            11 => {
                store.commit().expect("the disk works");
                committed.clone_from(&written);
                store.fold(&NO_HISTORY).expect("the disk works");
            }
            12 => {
                if let Some(job) = store.begin_rebuild().expect("the disk works") {
                    store.finish_rebuild(job.run()).expect("the disk works");
                }
            }
            13 => {
                store.close().expect("the disk works");
                committed.clone_from(&written);
                store = open(&disk).expect("what was closed opens");
            }
            14 => {
                drop(store);
                store = open(&disk).expect("what was killed opens");
                written.clone_from(&committed);
            }
            _ => {
                let survival = match key % 3 {
                    0 => Survival::Dropped,
                    1 => Survival::Kept,
                    _ => Survival::Torn(u64::from(key) * 77 + 1),
                };
                let cut = disk.after_power_cut(survival);
                drop(store);
                disk = cut;
                store = open(&disk).expect("what lost its power opens");
                written.clone_from(&committed);
            }
        }
        assert_eq!(rows(&store).expect("the disk works"), committed, "after step {step:?}");
    }
}

/// A directory with a base, segments and a redb, of which files are removed, cut, swapped and
/// changed, three bytes each: which file, what, where. It opens with rows that were there at some
/// time, or says why not; it never panics.
pub fn directory(bytes: &[u8]) {
    let disk = MemoryDisk::new(SPARE_BYTES);
    let states = fill(&disk);
    for step in bytes.chunks_exact(3).take(MAX_STEPS) {
        let [which, what, at] = *step else { return };
        let numbers: Vec<u64> = (1..64).filter(|number| disk.bytes(*number).is_some()).collect();
        let pick = |which: u8| numbers.get(usize::from(which) % numbers.len().max(1)).copied();
        let Some(number) = pick(which) else { break };
        let Some(mut file) = disk.bytes(number) else { break };
        let place = usize::from(at) * 37 % file.len().max(1);
        match what % 5 {
            0 => drop(disk.remove(number)),
            1 => file.truncate(place),
            2 => {
                let other = pick(at).and_then(|other| disk.bytes(other));
                file = other.unwrap_or_default();
            }
            3 => file.iter_mut().skip(place).take(8).for_each(|byte| *byte = what),
            _ => file.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1 << (what % 8)),
        }
        if what % 5 > 0 {
            disk.replace(number, file);
        }
    }
    let Ok(store) = open(&disk) else { return };
    // redb may hold damaged rows, which are errors when they are read.
    if let Ok(rows) = rows(&store) {
        assert!(states.contains(&rows), "a state that never was: {rows:?}");
    }
}

/// Writes with a fold and a checkpoint between them; returns every state there was.
fn fill(disk: &MemoryDisk) -> Vec<Rows> {
    let mut store = open(disk).expect("an empty disk becomes a store");
    let (mut states, mut now) = (vec![Rows::new()], Rows::new());
    for step in 0..60_u8 {
        let (key, value) = (vec![step % 9], vec![step; 200]);
        store.append(KIND, &[key.clone(), value.clone()].concat()).expect("it fits");
        store.commit().expect("the disk works");
        now.insert(key, value);
        states.push(now.clone());
        match step {
            30 => drop(store.fold(&NO_HISTORY).expect("the disk works")),
            45 => store.checkpoint().expect("the disk works"),
            _ => {}
        }
    }
    store.prove().expect("the disk works");
    let kinds = disk.list().expect("the disk works");
    assert!(kinds.iter().any(|file| file.kind == FileKind::State));
    states
}
