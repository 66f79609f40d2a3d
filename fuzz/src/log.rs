//! Targets that open a store on what they are given.

use std::ops::ControlFlow;
use std::sync::Arc;

use lastword_store::limits::{FRAME_ALIGN, FRAME_HEADER_LEN, HEADER_LEN};
use lastword_store::{
    Apply, ApplyError, Disk as _, FileKind, FrameRef, MemoryDisk, Options, OwnedFrame, StateTxn,
    Store,
};

/// A store whose only log file is a good one with some bytes replaced: `position, bytes..`, the
/// position as two bytes. It opens with what was written, or with a prefix of it, or says why not.
pub fn log_file(bytes: &[u8]) {
    let Some((at, patch)) = bytes.split_first_chunk::<2>() else { return };
    let disk = MemoryDisk::new(SPARE_BYTES);
    let written = write_log(&disk);
    let Some(number) = first_log(&disk) else { return };
    let mut file = disk.bytes(number).expect("the file is there");
    let at = usize::from(u16::from_le_bytes(*at)) % file.len();
    for (place, byte) in file.iter_mut().skip(at).zip(patch) {
        *place = *byte;
    }
    disk.replace(number, file);
    let Ok((store, _)) = Store::open(Arc::new(disk), options(), Arc::new(Ignore)) else { return };
    let frames = frames_of(&store).into_iter().filter(|frame| frame.kind == KIND);
    let found: Vec<Vec<u8>> = frames.map(|frame| frame.payload).collect();
    assert!(written.starts_with(&found), "the log holds what was never written");
}

/// A whole log file, and no state. If the first byte is odd, checksums and positions are made right
/// first: without that hardly a mutation would get past them. The store opens or says why not;
/// once open it takes a write, and opened again it has what it had and that write.
pub fn frame(bytes: &[u8]) {
    let Some((choice, file)) = bytes.split_first() else { return };
    let mut file = file.to_vec();
    if choice % 2 == 1 {
        make_right(&mut file);
    }
    let disk = MemoryDisk::new(SPARE_BYTES);
    let number = disk.take_spare(0).expect("there is room");
    disk.replace(number, file);
    let open = || Store::open(Arc::new(disk.clone()), options(), Arc::new(Ignore));
    let Ok((mut store, _)) = open() else { return };
    let mut expected = frames_of(&store);
    // A log at its last position or group takes no more.
    if store.append(KIND, b"more").is_ok() {
        store.commit().expect("the disk works");
        expected = frames_of(&store);
        assert!(expected.last().is_some_and(|last| last.payload == b"more"), "the write is gone");
    }
    drop(store);
    let (store, _) = open().expect("what was open opens again");
    assert_eq!(frames_of(&store), expected, "the log opens as another");
}

/// The input of [`frame`] for a log as a store writes it, without the zeros behind it.
#[must_use]
pub fn saved_log() -> Vec<u8> {
    let disk = MemoryDisk::new(SPARE_BYTES);
    write_log(&disk);
    let number = first_log(&disk).expect("a store has a log");
    let mut file = disk.bytes(number).expect("the file is there");
    let end = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    file.truncate(end.next_multiple_of(FRAME_ALIGN));
    file.insert(0, 1);
    file
}

/// Puts into a log file the checksums and positions that its other bytes ask for.
fn make_right(file: &mut [u8]) {
    let Some((header, body)) = file.split_first_chunk_mut::<HEADER_LEN>() else { return };
    let crc = crc32fast::hash(&header[..HEADER_LEN - 4]);
    header[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header[16..32]).update(&header[64..72]).update(&header[32..48]);
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    let seed = u32::from_le_bytes([a, b, c, d]);
    let first = u64::from_le_bytes(*header[72..80].first_chunk().expect("8 bytes"));
    let mut at = 0;
    while let Some(head) = body.get(at..at + FRAME_HEADER_LEN) {
        let len = u32::from_le_bytes(*head[8..12].first_chunk().expect("4 bytes"));
        let whole = (FRAME_HEADER_LEN + len as usize).next_multiple_of(FRAME_ALIGN);
        let empty = head.iter().all(|byte| *byte == 0);
        let Some(frame) = body.get_mut(at..at + whole).filter(|_| !empty) else { return };
        frame[..8].copy_from_slice(&first.wrapping_add(at as u64).to_le_bytes());
        let mut crc = crc32fast::Hasher::new_with_initial(seed);
        crc.update(&frame[..12]);
        crc.update(&frame[16..]);
        frame[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
        at += whole;
    }
}

const SPARE_BYTES: u64 = 4 << 10;
const KIND: u8 = 40;

#[derive(Debug)]
struct Ignore;

impl Apply for Ignore {
    fn apply(&self, _: FrameRef<'_>, _: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        Ok(())
    }
}

fn options() -> Options {
    Options {
        segment_size: 8 << 10,
        zero_step: SPARE_BYTES,
        entropy: [5; 32],
        ..Options::default()
    }
}

fn write_log(disk: &MemoryDisk) -> Vec<Vec<u8>> {
    let opened = Store::open(Arc::new(disk.clone()), options(), Arc::new(Ignore));
    let (mut store, _) = opened.expect("an empty disk becomes a store");
    let payloads: Vec<Vec<u8>> = (0_u8..6).map(|n| vec![n; usize::from(n) * 37]).collect();
    for payload in &payloads {
        store.append(KIND, payload).expect("there is room");
        store.commit().expect("the disk works");
    }
    store.prove().expect("the disk works");
    payloads
}

fn first_log(disk: &MemoryDisk) -> Option<u64> {
    let files = disk.list().expect("the disk works");
    files.into_iter().find(|file| file.kind == FileKind::Log).map(|file| file.number)
}

fn frames_of(store: &Store) -> Vec<OwnedFrame> {
    let mut frames = Vec::new();
    let read = store.view_handle().scan_frames(0, |frame| {
        frames.push(frame.to_owned());
        ControlFlow::Continue(())
    });
    read.expect("an open store can be read");
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `make_right` fills in is what a store writes (docs/format.md, Frames); were it not,
    /// every input of `frame` would end at its first checksum.
    #[test]
    fn make_right_fills_in_what_a_store_writes() {
        let log = saved_log();
        let (_, good) = log.split_first().expect("it has a first byte");
        let mut wiped = good.to_vec();
        wiped[HEADER_LEN - 4..HEADER_LEN + 8].fill(0);
        let second = HEADER_LEN + FRAME_HEADER_LEN;
        for frame in [HEADER_LEN, second] {
            wiped[frame + 12..frame + 16].fill(0);
        }
        wiped[second..second + 8].fill(0xee);
        assert!(wiped != good, "nothing was wiped");
        make_right(&mut wiped);
        assert!(wiped == good, "the log differs from the one that was written");
    }
}
