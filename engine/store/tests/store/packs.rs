//! Packs that are not what the log says of them: nothing valid in them is overwritten, nothing in
//! them is believed, and records do not depend on them.

use std::io::Read;

use lastword_core::hash::ChunkId;
use lastword_store::blobs::Ingest;
use lastword_store::limits::{HEADER_LEN, MAX_PACK_POSITION};
use lastword_store::payload::{BlobsFrame, BlobsPart, NewChunk, PackChunks, Payload};
use lastword_store::{
    BlobError, Disk, Fault, FileKind, MemoryDisk, Options, Store, Survival, read,
};

use crate::blob_support::{append, get, noise, open, open_as, options, put, try_open, workspace};
use crate::support::{copy, files};

fn disk() -> MemoryDisk {
    MemoryDisk::new(4 << 10)
}

fn blobs_of(store: &Store) -> usize {
    let mut found = 0;
    read::visit_blobs(&*store.view(), &workspace(), &mut |_| {
        found += 1;
        Ok(())
    })
    .unwrap();
    found
}

/// I31. After a step that had failed, the next one said that the file was whole, though the chunks
/// of the failed step were in no frame; after the last step one more said that an empty file was
/// there.
#[test]
fn storing_a_file_ends_with_its_error_or_its_last_step() {
    let disk = disk();
    let mut store = open(&disk);
    let content = noise(1, 300_000);
    let mut ingest = Ingest::new(store.blobs(), &workspace(), &content[..], 200_000, 0);
    assert!(matches!(ingest.step(), Err(BlobError::TooLarge { .. })));
    for _ in 0..3 {
        assert!(ingest.step().is_err(), "what had failed goes on");
    }
    let mut ingest = Ingest::new(store.blobs(), &workspace(), &content[..], u64::MAX, 0);
    let last = ingest.step().unwrap();
    assert!(last.blob.is_some());
    for frame in last.frames {
        append(&mut store, &Payload::Blobs(frame)).unwrap();
    }
    store.commit().unwrap();
    match ingest.step() {
        Err(_) => {}
        Ok(more) => {
            let is_blob = |part: &BlobsPart| matches!(part, BlobsPart::Blob { .. });
            assert!(!more.frames.iter().any(|frame| is_blob(&frame.part)), "a file of nothing");
            panic!("a step behind the last");
        }
    }
    assert_eq!(blobs_of(&store), 1);
}

/// I31. The state said that a pack ended earlier than it does, and whoever stored the next file cut
/// off what lay behind: chunks that the log had confirmed.
#[test]
fn valid_frames_of_a_pack_are_never_cut() {
    let disk = disk();
    let mut store = open(&disk);
    put(&mut store, &noise(1, 30_000)[..]).unwrap();
    store.close().unwrap();
    let pack = files(&disk, FileKind::Pack)[0];
    let longer = copy(&disk);
    let mut store = open(&longer);
    let (second, _) = put(&mut store, &noise(2, 30_000)[..]).unwrap();
    let chunk = read::chunk(&*store.view(), &workspace(), &second.root).unwrap().unwrap();
    drop(store);
    disk.replace(pack, longer.bytes(pack).unwrap());
    let mut store = open(&disk);
    let (third, _) = put(&mut store, &noise(3, 30_000)[..]).unwrap();
    let at = HEADER_LEN + chunk.position as usize;
    let [now, before] = [disk.bytes(pack).unwrap(), longer.bytes(pack).unwrap()];
    let range = at..at + 30_000;
    assert!(now.get(range.clone()) == before.get(range), "a frame of the pack is gone");
    assert_eq!(get(&store, &third).unwrap(), noise(3, 30_000));
    store.close().unwrap();
    assert_eq!(get(&open(&disk), &third).unwrap(), noise(3, 30_000));
}

/// I31. A pack of another store stood in the place of one, and was cut and written to because its
/// number was right.
#[test]
fn a_pack_with_another_salt_is_left_as_it_is() {
    let (ours, theirs) = (disk(), disk());
    let mut store = open(&ours);
    let (blob, _) = put(&mut store, &noise(1, 30_000)[..]).unwrap();
    store.close().unwrap();
    let pack = files(&ours, FileKind::Pack)[0];
    let mut store = open_as(&theirs, Options { entropy: [9; 32], ..options() }).unwrap();
    put(&mut store, &noise(2, 80_000)[..]).unwrap();
    store.close().unwrap();
    assert_eq!(files(&theirs, FileKind::Pack), [pack]);
    let bytes = theirs.bytes(pack).unwrap();
    ours.replace(pack, bytes.clone());
    let mut store = open(&ours);
    assert!(get(&store, &blob).is_err());
    let (new, _) = put(&mut store, &noise(3, 30_000)[..]).unwrap();
    assert!(ours.bytes(pack).unwrap() == bytes, "a pack of another store was written to");
    assert_eq!(get(&store, &new).unwrap(), noise(3, 30_000));
    assert!(put(&mut store, &noise(1, 30_000)[..]).unwrap().1 > 0);
    assert_eq!(get(&store, &blob).unwrap(), noise(1, 30_000));
}

/// I31. A pack was gone, and putting its file again answered that all of it was there.
#[test]
fn chunks_of_a_lost_pack_do_not_count_as_here() {
    let disk = disk();
    let mut store = open(&disk);
    let content = noise(1, 100_000);
    let (blob, _) = put(&mut store, &content[..]).unwrap();
    store.close().unwrap();
    let pack = files(&disk, FileKind::Pack)[0];
    let gone = copy(&disk);
    gone.remove(pack).unwrap();
    let cut = copy(&disk);
    let bytes = cut.bytes(pack).unwrap();
    cut.replace(pack, bytes[..bytes.len() / 2].to_vec());
    let zeros = copy(&disk);
    zeros.replace(pack, vec![0; bytes.len()]);
    let junk = copy(&disk);
    junk.replace(pack, noise(9, bytes.len()));
    for (disk, what) in [(gone, "gone"), (cut, "cut"), (zeros, "zeros"), (junk, "junk")] {
        let mut store = try_open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        let error = get(&store, &blob).unwrap_err();
        assert!(error.to_string().contains(&format!("pack {pack}")), "{what}: {error}");
        let (again, new) = put(&mut store, &content[..]).unwrap();
        assert!(new > 0 && again == blob, "{what}: it was believed to be here");
        assert_eq!(get(&store, &blob).unwrap(), content, "{what}");
        store.close().unwrap();
        assert_eq!(get(&open(&disk), &blob).unwrap(), content, "{what}, after a reopen");
    }
}

/// I1, I31. One flipped bit in the header of a pack, and the store did not open any more: its
/// records were lost with a file.
#[test]
fn a_bit_in_the_header_of_a_pack_costs_no_record() {
    let disk = disk();
    let mut store = open(&disk);
    let content = noise(1, 30_000);
    let (blob, _) = put(&mut store, &content[..]).unwrap();
    store.checkpoint().unwrap();
    let (second, _) = put(&mut store, &noise(2, 30_000)[..]).unwrap();
    drop(store);
    let pack = files(&disk, FileKind::Pack)[0];
    for bit in 0..HEADER_LEN * 8 {
        let disk = copy(&disk);
        disk.flip(pack, bit);
        let bytes = disk.bytes(pack).unwrap();
        let mut store = try_open(&disk).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
        assert_eq!(get(&store, &blob).unwrap(), content, "bit {bit}: the log knows its salt");
        assert_eq!(get(&store, &second).unwrap(), noise(2, 30_000), "bit {bit}");
        let (new, _) = put(&mut store, &noise(3, 30_000)[..]).unwrap();
        assert_eq!(get(&store, &new).unwrap(), noise(3, 30_000));
        assert!(put(&mut store, &content[..]).unwrap().1 > 0, "bit {bit}: it is believed");
        assert!(disk.bytes(pack).unwrap() == bytes, "bit {bit}: a damaged pack was written to");
    }
}

/// B7. A frame put a chunk at the last position that a number can say, and reading it overflowed.
#[test]
fn a_position_beyond_any_pack_is_refused() {
    let read = |position: u64| {
        let id = ChunkId([1; 32]);
        let chunk = NewChunk { id, position, len: 40, raw: 3 };
        let pack = PackChunks { pack: 3, salt: [2; 16], end: position, chunks: vec![chunk] };
        let part = BlobsPart::Chunks { packs: vec![pack], used: Vec::new() };
        let frame = Payload::Blobs(BlobsFrame { workspace: workspace(), part });
        Payload::from_frame(frame.kind(), &frame.to_bytes()).is_ok()
    };
    assert!(read(MAX_PACK_POSITION));
    assert!(!read(MAX_PACK_POSITION + 1) && !read(u64::MAX));
}

/// Hands out bytes, and does something once half of them are gone.
struct Interrupted<'a> {
    bytes: &'a [u8],
    half: usize,
    then: Option<Box<dyn FnOnce() + 'a>>,
}

impl Read for Interrupted<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.len() <= self.half
            && let Some(then) = self.then.take()
        {
            then();
        }
        self.bytes.read(out)
    }
}

/// I31. Two who store files share a pack, and a write or sync that one of them waits for fails: the
/// bytes that got lost may be the other's, so neither is told that his file is here.
#[test]
fn a_write_that_fails_in_a_shared_pack_fails_for_all_who_share_it() {
    let (long, short) = (noise(1, 6 << 20), noise(2, 50_000));
    for (operation, survival) in [0, 1].into_iter().zip([Survival::Dropped, Survival::Torn(7)]) {
        let disk = disk();
        let mut store = open_as(&disk, Options { pack_size: 64 << 20, ..options() }).unwrap();
        let blobs = store.blobs().clone();
        let mut second = Ingest::new(&blobs, &workspace(), &short[..], u64::MAX, 0);
        let mut failed = None;
        let fails = || {
            disk.set_fault(Some((disk.operations() + operation, Fault::Once)));
            failed = Some(second.step().is_err());
        };
        let then: Option<Box<dyn FnOnce()>> = Some(Box::new(fails));
        let from = Interrupted { bytes: &long, half: long.len() / 2, then };
        let first = Ingest::new(&blobs, &workspace(), from, u64::MAX, 0).step();
        assert!(first.is_err(), "fault {operation}: chunks of a broken pack are confirmed");
        assert_eq!(failed, Some(true), "fault {operation}");
        disk.set_fault(None);
        let kept =
            [&long, &short].map(|content| (put(&mut store, &content[..]).unwrap().0, content));
        drop(store);
        let store = open(&disk.after_power_cut(survival));
        for (blob, content) in kept {
            assert!(get(&store, &blob).unwrap() == *content, "fault {operation}");
        }
    }
}
