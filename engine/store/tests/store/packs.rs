//! Packs that are not what the log says of them: nothing valid in them is overwritten, nothing in
//! them is believed, and records do not depend on them.

use lastword_store::blobs::Ingest;
use lastword_store::payload::{BlobsPart, Payload};
use lastword_store::{BlobError, MemoryDisk, Store, read};

use crate::blob_support::{append, noise, open, workspace};

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
