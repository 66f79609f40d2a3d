//! Files that are stored one after the other and become durable together.

use std::io::{self, Cursor, Read};

use lastword_core::manifest::Blob;
use lastword_store::blobs::Ingest;
use lastword_store::payload::Payload;
use lastword_store::{BlobError, Fault, MemoryDisk, Store, Survival, read};
use sha2::{Digest as _, Sha256};

use crate::blob_support::{append, get, noise, open, put, workspace};

type Several = Ingest<Box<dyn Read>>;

fn several(store: &Store, limit: u64) -> Several {
    Ingest::several(store.blobs(), &workspace(), limit, 0)
}

fn add(ingest: &mut Several, from: impl Read + 'static) -> Result<Blob, BlobError> {
    ingest.begin(Box::new(from));
    loop {
        if let Some(blob) = ingest.read()? {
            return Ok(blob);
        }
    }
}

fn take(store: &mut Store, ingest: &mut Several) -> u64 {
    let done = ingest.take().unwrap();
    for frame in done.frames {
        append(store, &Payload::Blobs(frame)).unwrap();
    }
    store.commit().unwrap();
    done.new_bytes
}

/// Gives some bytes and fails then.
struct Broken(Cursor<Vec<u8>>);

impl Read for Broken {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 => Err(io::Error::other("the card was pulled out")),
            read => Ok(read),
        }
    }
}

/// R4.1, I31. Many small files cost one sync of the pack, equal ones are stored once, and all are
/// there after a power cut once the frames are.
#[test]
fn small_files_become_durable_together() {
    let disk = MemoryDisk::new(4 << 10);
    let mut store = open(&disk);
    let contents: Vec<Vec<u8>> = (0..40).map(|n| noise(n % 30, 100 + 37 * n as usize)).collect();
    let (same, empty) = (noise(99, 5000), Vec::new());
    let before = disk.operations();
    let mut ingest = several(&store, u64::MAX);
    let mut added = Vec::new();
    for content in contents.iter().chain([&same, &same, &empty]) {
        added.push((add(&mut ingest, Cursor::new(content.clone())).unwrap(), content));
    }
    let expected: usize = contents.iter().map(Vec::len).sum();
    assert_eq!(take(&mut store, &mut ingest), (expected + same.len()) as u64);
    let operations = disk.operations() - before;
    assert!(operations < 20, "{operations} operations for {} files", added.len());
    drop(store);
    let store = open(&disk.after_power_cut(Survival::Dropped));
    for (blob, content) in added {
        assert_eq!(blob.sha256, <[u8; 32]>::from(Sha256::digest(content)));
        assert_eq!(&get(&store, &blob).unwrap(), content);
    }
}

/// I31. A file that cannot be read to its end, or is too long, is not there; those before and after
/// it are.
#[test]
fn a_file_that_fails_takes_no_other_with_it() {
    let disk = MemoryDisk::new(4 << 10);
    let mut store = open(&disk);
    let mut ingest = several(&store, 200_000);
    let (first, bad, last) = (noise(1, 90_000), noise(2, 190_000), noise(3, 70_000));
    let one = add(&mut ingest, Cursor::new(first.clone())).unwrap();
    assert!(matches!(
        add(&mut ingest, Broken(Cursor::new(bad.clone()))),
        Err(BlobError::Source { .. })
    ));
    assert!(matches!(ingest.read(), Err(BlobError::Ended)), "a file that has failed goes on");
    let long = noise(4, 300_000);
    assert!(matches!(add(&mut ingest, Cursor::new(long.clone())), Err(BlobError::TooLarge { .. })));
    let other = add(&mut ingest, Cursor::new(last.clone())).unwrap();
    take(&mut store, &mut ingest);
    assert_eq!(get(&store, &one).unwrap(), first);
    assert_eq!(get(&store, &other).unwrap(), last);
    let mut files = 0;
    read::visit_blobs(&*store.view(), &workspace(), &mut |_| {
        files += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(files, 2);
    let (again, _) = put(&mut store, &bad[..]).unwrap();
    assert_eq!(get(&store, &again).unwrap(), bad);
}

/// I31. Once the disk has failed, nothing more is said of what was read: its chunks are in no
/// frame.
#[test]
fn a_disk_that_fails_ends_all() {
    let disk = MemoryDisk::new(4 << 10);
    let store = open(&disk);
    let mut ingest = several(&store, u64::MAX);
    let content = noise(1, 90_000);
    add(&mut ingest, Cursor::new(content.clone())).unwrap();
    disk.set_fault(Some((disk.operations(), Fault::Once)));
    assert!(matches!(ingest.take(), Err(BlobError::Store(_))));
    assert!(matches!(ingest.take(), Err(BlobError::Ended)));
    assert!(matches!(add(&mut ingest, Cursor::new(content.clone())), Err(BlobError::Ended)));
}

/// R4.1. A file of many buffers, which another thread hashes, has the name that its bytes have,
/// however they come; one that is given up on the way keeps nobody waiting.
#[test]
fn a_large_file_has_the_name_of_its_bytes() {
    let disk = MemoryDisk::new(4 << 10);
    let mut store = open(&disk);
    let content = noise(5, 11_000_001);
    let mut ingest = several(&store, u64::MAX);
    let half = add(&mut ingest, Broken(Cursor::new(content[..9_000_000].to_vec())));
    assert!(matches!(half, Err(BlobError::Source { .. })));
    let mut pieces: Box<dyn Read> = Box::new(io::empty());
    for piece in content.chunks(777_777) {
        pieces = Box::new(pieces.chain(Cursor::new(piece.to_vec())));
    }
    let blob = add(&mut ingest, pieces).unwrap();
    take(&mut store, &mut ingest);
    assert_eq!(blob.sha256, <[u8; 32]>::from(Sha256::digest(&content)));
    assert_eq!(get(&store, &blob).unwrap(), content);
}
