//! A fold that keeps rows, a model of it, and shorthand.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use lastword_store::{
    Apply, ApplyError, Direction, Disk, FileKind, FrameRef, KeyRange, MemoryDisk, OpenReport,
    Options, Space, StateTxn, Store, StoreError, View, ViewHandle,
};

pub(crate) const A: Space = Space::new(0);
pub(crate) const B: Space = Space::new(7);
pub(crate) const KIND: u8 = 16;
pub(crate) type Rows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// Payload: operation, space, key length, key, value. `p` puts, `d` deletes, `!` puts and refuses.
#[derive(Debug)]
pub(crate) struct KeepRows;

impl Apply for KeepRows {
    fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        let (op, space, key, value) = split(frame.payload);
        match op {
            b'd' => state.delete(space, key),
            _ => state.put(space, key, value)?,
        }
        match op {
            b'!' => Err(ApplyError::Refused("refused by the test".into())),
            _ => Ok(()),
        }
    }
}

fn split(payload: &[u8]) -> (u8, Space, &[u8], &[u8]) {
    let space = if payload[1] == A.number() { A } else { B };
    let (key, value) = payload[3..].split_at(payload[2] as usize);
    (payload[0], space, key, value)
}

pub(crate) fn op(op: u8, space: Space, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![op, space.number(), key.len() as u8];
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    out
}

pub(crate) fn put(key: &str, value: &str) -> Vec<u8> {
    op(b'p', A, key.as_bytes(), value.as_bytes())
}

/// The fold of the tests, written a second time without the store.
pub(crate) fn model<'a>(payloads: impl IntoIterator<Item = &'a Vec<u8>>) -> Rows {
    let mut rows = Rows::new();
    for payload in payloads {
        let (op, space, key, value) = split(payload);
        match op {
            b'd' => drop(rows.remove(&(space.number(), key.to_vec()))),
            _ => drop(rows.insert((space.number(), key.to_vec()), value.to_vec())),
        }
    }
    rows
}

pub(crate) fn options() -> Options {
    Options { segment_size: 16 << 10, zero_step: 4 << 10, entropy: [7; 32], ..Options::default() }
}

pub(crate) fn disk() -> MemoryDisk {
    MemoryDisk::new(4 << 10)
}

pub(crate) fn try_open(disk: &MemoryDisk) -> Result<(Store, OpenReport), StoreError> {
    open_with(disk, options())
}

pub(crate) fn open_with(
    disk: &MemoryDisk,
    options: Options,
) -> Result<(Store, OpenReport), StoreError> {
    Store::open(Arc::new(disk.clone()), options, Arc::new(KeepRows))
}

pub(crate) fn open(disk: &MemoryDisk) -> Store {
    try_open(disk).unwrap().0
}

/// Appends and commits one frame.
pub(crate) fn write(store: &mut Store, payload: &[u8]) -> u64 {
    let position = store.append(KIND, payload).unwrap();
    store.commit().unwrap();
    position
}

/// The payloads of all published frames of the layer above.
pub(crate) fn payloads(handle: &ViewHandle) -> Vec<Vec<u8>> {
    payloads_from(handle, 0)
}

/// The same, from the frame at a position on.
pub(crate) fn payloads_from(handle: &ViewHandle, from: u64) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let visit = |frame: FrameRef<'_>| {
        if frame.kind == KIND {
            found.push(frame.payload.to_vec());
        }
        ControlFlow::Continue(())
    };
    handle.scan_frames(from, visit).unwrap();
    found
}

pub(crate) fn dump(view: &View) -> Rows {
    let mut rows = Rows::new();
    for space in [A, B] {
        for row in view.scan(space, &KeyRange::all(), Direction::Forward).unwrap() {
            let (key, value) = row.unwrap();
            rows.insert((space.number(), key.to_vec()), value.to_vec());
        }
    }
    rows
}

/// Numbers of the files of one kind.
pub(crate) fn files(disk: &MemoryDisk, kind: FileKind) -> Vec<u64> {
    let files = disk.list().unwrap();
    files.iter().filter(|file| file.kind == kind).map(|file| file.number).collect()
}

/// A copy of the disk as it is, without its faults.
pub(crate) fn copy(disk: &MemoryDisk) -> MemoryDisk {
    disk.after_power_cut(lastword_store::Survival::Kept)
}
