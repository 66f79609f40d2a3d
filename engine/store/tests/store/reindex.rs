//! The index made from packs alone: what is needed comes back, what was deleted does not.

use lastword_core::manifest::Blob;
use lastword_store::blobs::Reindexed;
use lastword_store::limits::HEADER_LEN;
use lastword_store::{BlobError, Disk, FileKind, MemoryDisk, Options, Store, StoreError, read};

use crate::blob_support::{get, noise, open, open_as, options, put, reindex, try_open, workspace};
use crate::gc::{World, collect_all, named};
use crate::support::{copy, files};

/// A store that has the packs of `disk` and nothing else, and what a reindex of it says.
pub(crate) fn of_packs_alone(disk: &MemoryDisk) -> (MemoryDisk, Store, Reindexed) {
    let disk = copy(disk);
    for file in disk.list().unwrap().iter().filter(|file| file.kind != FileKind::Pack) {
        disk.remove(file.number).unwrap();
    }
    let options = Options { adopt_packs: true, entropy: [8; 32], ..options() };
    let mut store = open_as(&disk, options).unwrap();
    let report = reindex(&mut store);
    (disk, store, report)
}

fn is_here(store: &Store, blob: &Blob) -> bool {
    read::blob(&*store.view(), &workspace(), &blob.sha256).unwrap().is_some()
}

/// I31, I32. Every file was in its packs, but nothing could make an index of them; and a deleted
/// file, whose chunks stay in a pack with others, would have come back with it.
#[test]
fn an_index_of_packs_alone_has_what_was_there_and_nothing_else() {
    // The deleted file takes less than half of the pack, which therefore stays.
    let mut world = named(2, 0);
    world.store_named(1, 1);
    world.write(1, None);
    world.fold();
    collect_all(&mut world);
    assert_eq!(world.kept(), [world.hashes[&2]]);
    let (_, store, report) = of_packs_alone(&world.disk);
    assert_eq!(get(&store, &world.hashes[&2]).unwrap(), world.contents[2]);
    assert!(!is_here(&store, &world.hashes[&1]), "a deleted file came back");
    assert_eq!((report.files, report.dropped, report.damages), (1, 1, 0));
    // One that is stored again after it was deleted is not deleted.
    world.store_named(1, 1);
    let (disk, mut store, report) = of_packs_alone(&world.disk);
    assert_eq!(get(&store, &world.hashes[&1]).unwrap(), world.contents[1]);
    assert_eq!((report.files, report.dropped), (2, 0));
    assert_eq!(reindex(&mut store).files, 0, "a second run finds something new");
    store.close().unwrap();
    assert_eq!(get(&open(&disk), &world.hashes[&2]).unwrap(), world.contents[2]);
}

/// I31. The chunks of a sparse pack were moved, and what it said of files went with it.
#[test]
fn what_a_pack_says_of_files_stays_when_it_goes() {
    let mut world = World::new();
    world.contents.push(noise(21, 90_000));
    world.contents.push(noise(22, 90_000));
    for (content, record) in [(4, 0), (0, 1), (5, 2)] {
        world.store_named(content, record);
    }
    world.store_named(3, 3);
    let first = files(&world.disk, FileKind::Pack)[0];
    world.write(0, None);
    world.write(2, None);
    world.fold();
    collect_all(&mut world);
    collect_all(&mut world);
    assert!(!files(&world.disk, FileKind::Pack).contains(&first), "the sparse pack is there");
    let (_, store, report) = of_packs_alone(&world.disk);
    for content in [0, 3] {
        assert_eq!(get(&store, &world.hashes[&content]).unwrap(), world.contents[content]);
    }
    assert!(!is_here(&store, &world.hashes[&4]) && !is_here(&store, &world.hashes[&5]));
    assert_eq!(report.files, 2);
}

/// I31. A file was condemned, somebody began to store it in the same millisecond, and it was
/// dropped before that had ended: the pack said of both that they were of that time, and a reindex
/// took the file for dropped.
#[test]
fn a_file_that_was_condemned_in_that_very_millisecond_is_here() {
    let mut world = named(2, 0);
    world.write(0, None);
    world.fold();
    world.clock_ms += 2 * 24 * 3600 * 1000;
    world.mark();
    world.decide();
    world.begin_storing(2);
    world.clock_ms += 2 * 24 * 3600 * 1000;
    world.mark();
    world.decide();
    assert!(world.kept().is_empty(), "it was not dropped: the test proves nothing");
    world.end_storing();
    assert!(world.write(1, Some(2)));
    world.check_packs_alone("stored in the millisecond in which it was condemned");
}

/// I32. A log was begun beside packs that it knew nothing of, and the first collection took them
/// for garbage.
#[test]
fn a_log_is_not_begun_beside_packs_by_mistake() {
    let disk = MemoryDisk::new(4 << 10);
    let mut store = open(&disk);
    put(&mut store, &noise(1, 50_000)[..]).unwrap();
    store.close().unwrap();
    for file in disk.list().unwrap().iter().filter(|file| file.kind != FileKind::Pack) {
        disk.remove(file.number).unwrap();
    }
    let pack = files(&disk, FileKind::Pack)[0];
    let refused = try_open(&disk).map(drop);
    assert!(
        matches!(refused, Err(StoreError::Damaged { file, .. }) if file == pack),
        "{refused:?}"
    );
    assert_eq!(disk.list().unwrap().len(), 1, "something was begun");
}

/// I31, I34. Damage in a pack costs the files whose chunks it meets; frames behind it are found.
#[test]
fn a_reindex_goes_on_behind_damage() {
    let disk = MemoryDisk::new(4 << 10);
    let mut store = open(&disk);
    let contents: Vec<_> = (0..3).map(|seed| noise(seed, 40_000)).collect();
    let blobs: Vec<_> = contents.iter().map(|c| put(&mut store, &c[..]).unwrap().0).collect();
    let at = read::chunk(&*store.view(), &workspace(), &blobs[1].root).unwrap().unwrap();
    store.close().unwrap();
    disk.flip(files(&disk, FileKind::Pack)[0], (HEADER_LEN + at.position as usize + 500) * 8);
    let (_, store, report) = of_packs_alone(&disk);
    assert_eq!(get(&store, &blobs[0]).unwrap(), contents[0]);
    assert_eq!(get(&store, &blobs[2]).unwrap(), contents[2]);
    assert!(matches!(get(&store, &blobs[1]), Err(BlobError::Missing { .. })));
    assert_eq!((report.files, report.damages, report.incomplete.len()), (2, 1, 1));
}
