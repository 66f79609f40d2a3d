//! Files: stored once, read back as they were or not at all.

use std::io::Read;

use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::Blob;
use lastword_store::blobs::{BlobReader, Chunker, Ingest};
use lastword_store::keys::ChunkMark;
use lastword_store::limits::{FRAME_HEADER_LEN, HEADER_LEN};
use lastword_store::payload::{BlobsFrame, BlobsPart, DamagedChunk, Payload};
use lastword_store::{
    BlobError, Disk, Fault, FileKind, MemoryDisk, Store, StoreError, Survival, read,
};

use crate::blob_support::{append, get, noise, open, put, put_in, try_open, workspace};
use crate::support::{copy, files};

fn text(len: usize) -> Vec<u8> {
    let words = ["the ", "server ", "has ", "last ", "word, ", "and "];
    let mut out = Vec::new();
    let mut random = noise(9, len).into_iter();
    while out.len() < len {
        let at = usize::from(random.next().unwrap()) % words.len();
        out.extend_from_slice(words[at].as_bytes());
    }
    out.truncate(len);
    out
}

fn disk() -> MemoryDisk {
    MemoryDisk::new(4 << 10)
}

/// I31. Whatever its size, a file is read back as it was: after a reopen, a checkpoint, a fold, and
/// with redb discarded.
#[test]
fn files_of_all_sizes_come_back() {
    let disk = disk();
    let mut store = open(&disk);
    let sizes = [0, 1, 65_535, 65_536, 65_537, 300_000, 3_000_000];
    let contents = sizes.map(|size| noise(size as u64, size)).into_iter().chain([text(700_000)]);
    let kept: Vec<(Blob, Vec<u8>)> = contents
        .map(|content| {
            let (blob, new) = put(&mut store, &content[..]).unwrap();
            assert!(new >= content.len() as u64);
            (blob, content)
        })
        .collect();
    let check = |store: &Store| {
        for (blob, content) in &kept {
            assert_eq!(&get(store, blob).unwrap(), content, "{} bytes", content.len());
            let sha256: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(content).into();
            assert_eq!(sha256, blob.sha256);
        }
    };
    check(&store);
    drop(store);
    let mut store = open(&disk);
    check(&store);
    store.checkpoint().unwrap();
    check(&store);
    assert!(store.fold(&crate::fold::NO_HISTORY).unwrap());
    store.close().unwrap();
    disk.remove(files(&disk, FileKind::State)[0]).unwrap();
    check(&open(&disk));
    assert!(files(&disk, FileKind::Pack).len() > 10, "packs end at their size");
}

/// R4.1, B2. What a workspace has is not stored again; of an edited file little is; another
/// workspace has nothing of it.
#[test]
fn content_is_stored_once_in_a_workspace() {
    let disk = disk();
    let mut store = open(&disk);
    let old = noise(1, 2 << 20);
    let (blob, _) = put(&mut store, &old[..]).unwrap();
    let (again, new) = put(&mut store, &old[..]).unwrap();
    assert_eq!((again, new), (blob, 0));
    let mut edited = old.clone();
    edited.splice(1_000_000..1_000_000, *b"an insert");
    let (_, new) = put(&mut store, &edited[..]).unwrap();
    assert!(new < 300_000, "{new} bytes are new");
    let twice = [&old[..], &old[..]].concat();
    assert!(put(&mut store, &twice[..]).unwrap().1 < 600_000);
    let other = WorkspaceName::new("other").unwrap();
    let unknown = BlobReader::open(store.blobs(), &other, &blob.sha256);
    assert!(matches!(unknown, Err(BlobError::Missing { .. })));
    assert!(put_in(&mut store, &other, &old[..]).unwrap().1 >= old.len() as u64);
}

/// B2. Any range is read without the rest: from each offset come the bytes up to the end of a
/// chunk.
#[test]
fn ranges_are_read() {
    let disk = disk();
    let mut store = open(&disk);
    let content = noise(3, 700_000);
    let (blob, _) = put(&mut store, &content[..]).unwrap();
    let mut reader = BlobReader::open(store.blobs(), &workspace(), &blob.sha256).unwrap();
    for offset in [0, 699_999, 5, 350_000, 349_999, 1, 650_000, 0] {
        let found = reader.read_from(offset).unwrap();
        let from = offset as usize;
        assert!(!found.is_empty() && found == &content[from..from + found.len()], "{offset}");
    }
    assert!(reader.read_from(700_000).unwrap().is_empty());
    assert!(reader.read_from(u64::MAX).unwrap().is_empty());
}

/// R10.3. A file over the limit is refused before it is read whole, and leaves no file behind.
#[test]
fn a_file_over_the_limit_is_refused_early() {
    let disk = disk();
    let mut store = open(&disk);
    let endless = std::io::repeat(7);
    let mut ingest = Ingest::new(store.blobs(), &workspace(), endless, 10 << 20, 0);
    let refused = ingest.step();
    assert!(matches!(refused, Err(BlobError::TooLarge { limit }) if limit == 10 << 20));
    assert_eq!(put(&mut store, &b"x"[..]).unwrap().0.size, 1);
}

/// The fault of a reader comes to whoever stores the file, and nothing of it counts.
#[test]
fn a_source_that_fails_leaves_no_file() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            self.0 -= 1;
            match self.0 {
                0 => Err(std::io::Error::other("the stick was pulled out")),
                _ => Ok(out.len().min(50_000)),
            }
        }
    }
    let disk = disk();
    let mut store = open(&disk);
    let failed = put(&mut store, Fails(20)).unwrap_err();
    assert!(failed.to_string().contains("the stick was pulled out"), "{failed}");
    let mut found = 0;
    read::visit_blobs(&*store.view(), &workspace(), &mut |_| {
        found += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(found, 0);
}

/// I34. A pack of another chunk, put in the place of one, never passes for it.
#[test]
fn a_chunk_is_compared_with_its_name() {
    let disk = disk();
    let mut store = open(&disk);
    let (first, _) = put(&mut store, &noise(1, 50_000)[..]).unwrap();
    let (second, _) = put(&mut store, &noise(2, 50_000)[..]).unwrap();
    let [at, other] = [first, second].map(|blob| {
        let chunk = read::chunk(&*store.view(), &workspace(), &blob.root).unwrap().unwrap();
        HEADER_LEN + chunk.position as usize + FRAME_HEADER_LEN
    });
    let pack = files(&disk, FileKind::Pack)[0];
    let mut bytes = disk.bytes(pack).unwrap();
    bytes.copy_within(other..other + 50_037, at);
    disk.replace(pack, bytes);
    let error = get(&store, &first).unwrap_err();
    assert!(matches!(error, BlobError::Damaged { file, .. } if file == pack), "{error}");
    assert!(get(&store, &second).is_ok());
}

/// I31, line 3 of the issue. A damaged chunk is an error that names its pack and offset, again and
/// again; once it is known as damaged, storing the file anew heals it.
#[test]
fn a_damaged_chunk_is_healed_by_its_file() {
    let disk = disk();
    let mut store = open(&disk);
    let content = noise(1, 400_000);
    let (blob, _) = put(&mut store, &content[..]).unwrap();
    let pack = files(&disk, FileKind::Pack)[0];
    disk.flip(pack, (HEADER_LEN + 100_000) * 8);
    let mut reader = BlobReader::open(store.blobs(), &workspace(), &blob.sha256).unwrap();
    let (mut at, mut bad) = (0, None);
    while bad.is_none() {
        match reader.read_from(at).map(<[u8]>::len) {
            Ok(len) => at += len as u64,
            Err(BlobError::Damaged { chunk, file, offset, .. }) => {
                bad = Some((chunk, file, offset))
            }
            Err(other) => panic!("{other}"),
        }
    }
    let (id, file, offset) = bad.unwrap();
    assert_eq!(file, pack);
    assert!(reader.read_from(at).is_err(), "a second try is no better");
    let damaged = DamagedChunk { id, pack: file, position: offset - HEADER_LEN as u64 };
    let damaged = BlobsPart::Damaged { chunks: vec![damaged] };
    let damaged = Payload::Blobs(BlobsFrame { workspace: workspace(), part: damaged });
    append(&mut store, &damaged).unwrap();
    store.commit().unwrap();
    let (again, new) = put(&mut store, &content[..]).unwrap();
    assert_eq!(again, blob);
    assert!(new > 0 && new < 300_000, "{new}");
    assert_eq!(get(&store, &blob).unwrap(), content);
    // Somebody else had read the same damage, and comes late with it: the chunk is elsewhere now.
    append(&mut store, &damaged).unwrap();
    store.commit().unwrap();
    let known = read::chunk(&*store.view(), &workspace(), &id).unwrap().unwrap();
    assert_eq!(known.mark, ChunkMark::Whole, "a chunk that was healed counts as damaged");
    assert_eq!(put(&mut store, &content[..]).unwrap().1, 0);
    drop(store);
    assert_eq!(get(&open(&disk), &blob).unwrap(), content);
}

/// Bytes of packs and counts of what is live in them, from the chunks alone.
fn check_packs(store: &Store) {
    let view = store.view();
    let mut live = std::collections::BTreeMap::<u64, u64>::new();
    read::visit_chunks(&*view, &workspace(), &mut |_, chunk| {
        let frame = (FRAME_HEADER_LEN as u64 + chunk.len).next_multiple_of(8);
        *live.entry(chunk.pack).or_default() += frame;
        let pack = read::pack(&*view, &workspace(), chunk.pack)?.unwrap();
        assert!(chunk.position + frame <= pack.end, "a chunk lies behind the end of its pack");
        Ok(())
    })
    .unwrap();
    for (number, pack) in read::packs(&*view, &workspace()).unwrap() {
        assert_eq!(pack.live, live.get(&number).copied().unwrap_or(0), "I33: pack {number}");
    }
}

/// Stores some files; what was stored when it failed, if it did.
fn trace(disk: &MemoryDisk, kept: &mut Vec<(Blob, Vec<u8>)>) -> Result<(), BlobError> {
    for session in 0..3_u64 {
        let mut store = try_open(disk)?;
        for (place, size) in [9_000, 200_000, 70_000, 9_000, 0].into_iter().enumerate() {
            // Some are new, some are old ones again, some are both.
            let mut content = noise(place as u64 % 4, size);
            content.extend_from_slice(&noise(session * (place as u64 % 3), 20_000));
            let (blob, _) = put(&mut store, &content[..])?;
            kept.push((blob, content));
        }
        match session {
            0 => drop(store),
            1 => {
                let _ = store.checkpoint();
                store.close()?;
            }
            _ => store.close()?,
        }
    }
    Ok(())
}

/// I1, I12, I31: power is cut at each write, sync, change of length and making of a file while
/// files are stored, with four fates of what was not synced. Whatever was confirmed is read back,
/// whatever the log names is whole, and what was not confirmed is stored again.
#[test]
fn a_power_cut_while_files_are_stored_loses_none_that_was_confirmed() {
    let whole = disk();
    let mut all = Vec::new();
    trace(&whole, &mut all).unwrap();
    let stride = std::env::var("LASTWORD_CRASH_STRIDE").map_or(3, |stride| stride.parse().unwrap());
    let mut cut_points = 0;
    for at in (0..whole.operations()).step_by(stride) {
        let disk = disk();
        disk.set_fault(Some((at, Fault::PowerCut)));
        let mut kept = Vec::new();
        // It may succeed if all that is left is redb's own farewell.
        let _ = trace(&disk, &mut kept);
        let torn = [Survival::Torn(at * 77 + 5), Survival::Torn(at * 91 + 1)];
        for survival in [Survival::Dropped, Survival::Kept].into_iter().chain(torn) {
            let (disk, mut kept) = (disk.after_power_cut(survival), kept.clone());
            let mut store = try_open(&disk).unwrap_or_else(|e| panic!("{at} {survival:?}: {e}"));
            check_whole(&store, &kept, &format!("cut at {at}, {survival:?}"));
            let (blob, content) = &all[at as usize % all.len()];
            assert_eq!(put(&mut store, &content[..]).unwrap().0, *blob);
            kept.push((*blob, content.clone()));
            drop(store);
            check_whole(&open(&disk), &kept, &format!("cut at {at}, {survival:?}, and after"));
            cut_points += 1;
        }
    }
    assert!(cut_points > 200, "{cut_points}");
}

/// What was confirmed is read back, and so is every other file that the state names.
fn check_whole(store: &Store, kept: &[(Blob, Vec<u8>)], what: &str) {
    for (blob, content) in kept {
        let found = get(store, blob).unwrap_or_else(|error| panic!("I31: {what}: {error}"));
        assert!(found == *content, "I34: {what}: other bytes");
    }
    let mut named = Vec::new();
    read::visit_blobs(&*store.view(), &workspace(), &mut |stored| {
        named.push(stored.blob);
        Ok(())
    })
    .unwrap();
    for blob in named {
        let found = get(store, &blob).unwrap_or_else(|error| panic!("I31: {what}: {error}"));
        let sha256: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&found).into();
        assert_eq!(sha256, blob.sha256, "I34: {what}");
    }
    check_packs(store);
}

/// A write or sync of a pack fails once: the file is not confirmed, the store goes on, and the next
/// attempt, into another pack, is whole. After a failed sync nobody knows what the old one holds.
#[test]
fn a_pack_that_failed_takes_no_more_chunks() {
    let content = noise(5, 200_000);
    let probe = disk();
    let mut store = open(&probe);
    let before = probe.operations();
    put(&mut store, &content[..]).unwrap();
    let during = probe.operations() - before;
    for at in before..before + during {
        let disk = disk();
        let mut store = open(&disk);
        disk.set_fault(Some((at, Fault::Once)));
        let first = put(&mut store, &content[..]);
        let poisoned = matches!(
            &first,
            Err(BlobError::Store(error)) if matches!(**error, StoreError::OutcomeUnknown { .. })
        );
        if poisoned {
            store = open(&disk);
        }
        let (blob, _) = put(&mut store, &content[..]).unwrap();
        assert_eq!(get(&store, &blob).unwrap(), content, "I31: fault at {at}");
        drop(store);
        let crashed = disk.after_power_cut(Survival::Dropped);
        assert_eq!(get(&open(&crashed), &blob).unwrap(), content, "I31: fault at {at}, then a cut");
    }
}

/// A pack that is gone, cut or no pack at all is an error that names it; the store opens, and takes
/// new files.
#[test]
fn a_pack_that_is_gone_is_named() {
    let disk = disk();
    let mut store = open(&disk);
    let (blob, _) = put(&mut store, &noise(1, 100_000)[..]).unwrap();
    store.close().unwrap();
    let pack = files(&disk, FileKind::Pack)[0];
    let gone = copy(&disk);
    gone.remove(pack).unwrap();
    let cut = copy(&disk);
    let bytes = cut.bytes(pack).unwrap();
    cut.replace(pack, bytes[..bytes.len() / 2].to_vec());
    for disk in [gone, cut] {
        let mut store = open(&disk);
        match get(&store, &blob).unwrap_err() {
            BlobError::Damaged { file, .. } | BlobError::PackLost { file, .. } => {
                assert_eq!(file, pack);
            }
            other => panic!("{other}"),
        }
        let (new, _) = put(&mut store, &noise(2, 100_000)[..]).unwrap();
        assert_eq!(get(&store, &new).unwrap(), noise(2, 100_000));
    }
}

/// The header of a pack, its first frame, a chunk as it is, one compressed and a file, byte for
/// byte: the fixed seed draws the same log id and salt every time.
#[test]
fn a_pack_has_its_golden_bytes() {
    let disk = disk();
    let mut store = open(&disk);
    put(&mut store, &b"seventeen bytes.."[..]).unwrap();
    put(&mut store, &[b'a'; 100][..]).unwrap();
    let pack = files(&disk, FileKind::Pack)[0];
    let end = read::pack(&*store.view(), &workspace(), pack).unwrap().unwrap().end;
    let bytes = &disk.bytes(pack).unwrap()[..HEADER_LEN + end as usize];
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("golden/pack.hex").trim());
    assert_eq!(ChunkId::of(b"seventeen bytes..").0[..], bytes[HEADER_LEN + 32 + 24..][..32]);
}

/// The cut points are those of the chunker alone, however the file was stored.
#[test]
fn chunks_are_those_of_the_profile() {
    let disk = disk();
    let mut store = open(&disk);
    let content = noise(4, 900_000);
    put(&mut store, &content[..]).unwrap();
    let mut chunker = Chunker::new(&content[..]);
    while let Some(chunk) = chunker.next_chunk().unwrap() {
        let known = read::chunk(&*store.view(), &workspace(), &ChunkId::of(chunk)).unwrap();
        assert_eq!(known.unwrap().raw, chunk.len() as u64);
    }
}
