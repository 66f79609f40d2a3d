//! Files as an app sees them.

use std::io::Read;
use std::time::Duration;

use lastword::core::id::{Key, TableName};
use lastword::store::{BlobError, ReadOnlyDisk};
use lastword::{
    BlobHash, ChunkId, CollectOptions, Consent, Database, Error, Fate, Files, FilesUsage,
};

use crate::support::Fixture;

fn bytes(files: &Files, hash: &BlobHash) -> Vec<u8> {
    let mut out = Vec::new();
    files.open(hash).unwrap().read_to_end(&mut out).unwrap();
    out
}

fn noise(len: usize) -> Vec<u8> {
    // xorshift64 (Marsaglia, 2003).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// R3.1, R4.2: a stored file is attached by a write, with whatever else that writes; it is read
/// back, whole and in ranges, also after a restart.
#[test]
fn a_file_is_stored_attached_and_read_back() {
    let fixture = Fixture::new();
    let content = noise(500_000);
    let path = fixture.dir.path().join("photo.png");
    std::fs::write(&path, &content).unwrap();
    let files = fixture.ws.files();
    let staged = files.stage(&path).unwrap();
    assert!(files.list().unwrap().is_empty(), "nothing names it yet");
    fixture
        .ws
        .write(|tx| {
            tx.attach(&staged, "image/png")?;
            tx.put_record(
                &TableName::new("notes")?,
                &Key::new("n1")?,
                lastword::core::json::parse_record(r#"{"text":"see the photo"}"#)?,
            )
        })
        .unwrap();
    let hash = staged.hash();
    let listed = files.list().unwrap().remove(0);
    assert_eq!((listed.name.as_str(), listed.mime_type.as_str()), ("photo.png", "image/png"));
    assert_eq!((listed.hash, listed.size_bytes), (hash.to_string(), 500_000));
    assert!(listed.is_here && !listed.is_deleted);
    assert_eq!(bytes(&files, &hash), content);
    let mut reader = files.open(&hash).unwrap();
    reader.seek_to(499_990);
    assert_eq!(reader.next_bytes().unwrap(), &content[499_990..]);
    assert!(reader.next_bytes().unwrap().is_empty());
    drop(reader);
    let Fixture { db, dir, .. } = fixture;
    db.close().unwrap();
    assert!(matches!(files.open(&hash), Err(Error::Closed)));
    let db = Database::open(dir.path().join("db")).unwrap();
    assert_eq!(bytes(&db.workspace("main").unwrap().files(), &hash), content);
}

/// R7.1: deleting a file keeps its bytes, and undeleting brings it back as it was.
#[test]
fn a_deleted_file_comes_back() {
    let Fixture { ws, dir: _dir, .. } = Fixture::new();
    let files = ws.files();
    let staged = files.stage_from(&b"hello"[..], "hello.txt", &mut |_| {}).unwrap();
    ws.write(|tx| tx.attach(&staged, "text/plain")).unwrap();
    let before = files.list().unwrap();
    files.delete(&staged.hash()).unwrap();
    assert!(files.list().unwrap()[0].is_deleted);
    assert_eq!(bytes(&files, &staged.hash()), b"hello");
    assert!(matches!(files.delete(&staged.hash()), Err(Error::NotFound { .. })));
    files.undelete(&staged.hash()).unwrap();
    assert_eq!(files.list().unwrap(), before);
    // Attached once more, it is the row that is there.
    let again = files.stage_from(&b"hello"[..], "copy.txt", &mut |_| {}).unwrap();
    assert_eq!(again.new_bytes, 0);
    ws.write(|tx| tx.attach(&again, "text/plain")).unwrap();
    assert_eq!(files.list().unwrap(), before);
}

/// I31, R3.1: no record names a file that is not there: what was stored in one workspace cannot be
/// attached in another.
#[test]
fn a_record_never_names_a_file_that_is_not_there() {
    let Fixture { ws, db, dir: _dir } = Fixture::new();
    let staged = ws.files().stage_from(&b"hello"[..], "hello.txt", &mut |_| {}).unwrap();
    let other = db.workspace("other").unwrap();
    let refused = other.write(|tx| tx.attach(&staged, "text/plain")).unwrap_err();
    assert!(matches!(refused, Error::Blob(BlobError::Missing { .. })), "{refused}");
    assert!(other.files().list().unwrap().is_empty());
    assert!(matches!(
        other.files().open(&staged.hash()).unwrap_err(),
        Error::Blob(BlobError::Missing { .. })
    ));
}

/// R10.3: a file over the app's limit is refused.
#[test]
fn a_file_over_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::builder().max_file_bytes(100_000).open(dir.path().join("db")).unwrap();
    let files = db.workspace("main").unwrap().files();
    let refused = files.stage_from(std::io::repeat(1), "endless", &mut |_| {}).unwrap_err();
    let limit = 100_000;
    assert!(matches!(refused, Error::Blob(BlobError::TooLarge { limit: of }) if of == limit));
    assert!(files.stage_from(&noise(100_000)[..], "fits", &mut |_| {}).is_ok());
}

struct Panics;

impl Read for Panics {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        panic!("out of order");
    }
}

/// R9.2: a transform makes another file of what is stored, before it is hashed; what it does not
/// want is refused in its own words, also if it panics, and others are stored all the same. A file
/// whose hash is known stays what it is.
#[test]
fn files_are_transformed_before_they_are_hashed() {
    let (Fixture { ws, db, dir: _dir }, plain) = (Fixture::new(), Fixture::new());
    let sha256_of = |content: &[u8]| {
        let staged = plain.ws.files().stage_from(content, "", &mut |_| {}).unwrap();
        crate::transfer::sha256(&staged.hash())
    };
    db.hooks().transform(|mut file| match file.name.as_str() {
        "virus" => Err("it has a virus".into()),
        "crash" => panic!("out of luck"),
        "late" => {
            let bytes = Box::new(Panics);
            Ok(lastword::Incoming { name: "late".into(), bytes })
        }
        _ => {
            file.bytes.read_exact(&mut [0; 4]).map_err(|error| error.to_string())?;
            Ok(file)
        }
    });
    db.hooks().transform(|file| {
        let bytes = Box::new(file.bytes.chain(&b"!"[..]));
        Ok(lastword::Incoming { name: format!("clean {}", file.name), bytes })
    });
    let files = ws.files();
    let mut staging = files.staging().unwrap();
    let mut add = |content: &'static [u8], name| staging.add(content, name, &mut |_| {});
    add(b"GPS:hello", "photo").unwrap();
    for (name, says) in [("virus", "it has a virus"), ("crash", "out of luck")] {
        let refused = add(b"GPS:hello", name).unwrap_err();
        assert!(matches!(&refused, Error::UploadRefused { message } if message.contains(says)));
    }
    let refused = add(b"GPS:hello", "late").unwrap_err();
    assert!(refused.to_string().contains("out of order"), "{refused}");
    let sent = sha256_of(b"as it was");
    staging.add_expected(&b"as it was"[..], "sent", sent, &mut |_| {}).unwrap();
    let staged = staging.finish().unwrap();
    let names: Vec<_> = staged.iter().map(|one| one.name()).collect();
    assert_eq!(names, ["clean photo", "sent"]);
    assert_eq!(staged[0].hash(), BlobHash::Sha256(sha256_of(b"hello!")));
}

/// I31, line 3 of the promises about files: a damaged chunk is an error, `verify` names its pack,
/// and storing the file again heals it.
#[test]
fn a_damaged_file_is_told_and_healed() {
    let Fixture { ws, db, dir } = Fixture::new();
    let content = noise(300_000);
    let staged = ws.files().stage_from(&content[..], "photo", &mut |_| {}).unwrap();
    ws.write(|tx| tx.attach(&staged, "image/png")).unwrap();
    db.close().unwrap();
    drop((ws, db));
    let data = dir.path().join("db");
    let pack = pack_of(&data);
    let mut on_disk = std::fs::read(&pack).unwrap();
    on_disk[200_000] ^= 1;
    std::fs::write(&pack, on_disk).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let verified = lastword::verify(&data, scratch.path(), &mut |_, _| {}).unwrap();
    assert_eq!(verified.damages.len(), 1, "{:?}", verified.damages);
    assert_eq!(verified.damages[0].file.as_deref(), Some(&*pack));
    let db = Database::open(&data).unwrap();
    let files = db.workspace("main").unwrap().files();
    let mut out = Vec::new();
    files.open(&staged.hash()).unwrap().read_to_end(&mut out).unwrap_err();
    assert!(content.starts_with(&out), "bytes before the damage are right");
    let again = files.stage_from(&content[..], "photo", &mut |_| {}).unwrap();
    assert!(again.new_bytes > 0 && again.new_bytes < 262_145, "{}", again.new_bytes);
    assert_eq!(bytes(&files, &staged.hash()), content);
    db.close().unwrap();
    drop((files, db));
    let verified = lastword::verify(&data, scratch.path(), &mut |_, _| {}).unwrap();
    assert!(verified.is_whole(), "{:?}", verified.damages);
    assert_eq!(verified.read.blobs.blobs, 1);
}

/// I31. The file of a pack was gone, and nothing told which files are lost with it or what to do.
#[test]
fn a_lost_pack_is_told_and_healed() {
    let Fixture { ws, db, dir } = Fixture::new();
    let content = noise(300_000);
    let staged = ws.files().stage_from(&content[..], "photo", &mut |_| {}).unwrap();
    assert_eq!(ws.files().lost_packs().unwrap(), []);
    db.close().unwrap();
    drop((ws, db));
    let data = dir.path().join("db");
    std::fs::remove_file(pack_of(&data)).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let verified = lastword::verify(&data, scratch.path(), &mut |_, _| {}).unwrap();
    assert_eq!((verified.damages.len(), verified.read.blobs.blobs), (1, 0));
    assert!(verified.damages[0].what.contains("`lastword files put`"), "{:?}", verified.damages);
    let db = Database::open(&data).unwrap();
    let files = db.workspace("main").unwrap().files();
    let lost = files.lost_packs().unwrap();
    assert_eq!(lost.iter().map(|pack| pack.chunks).sum::<u64>(), files.usage().unwrap().chunks);
    let read = files.open(&staged.hash()).unwrap().next_bytes().map(<[u8]>::len);
    assert!(matches!(read, Err(Error::Blob(BlobError::PackLost { .. }))), "{read:?}");
    files.stage_from(&content[..], "photo", &mut |_| {}).unwrap();
    assert_eq!(bytes(&files, &staged.hash()), content);
    assert_eq!(files.lost_packs().unwrap(), []);
    db.close().unwrap();
    drop((files, db));
    let verified = lastword::verify(&data, scratch.path(), &mut |_, _| {}).unwrap();
    assert!(verified.is_whole(), "{:?}", verified.damages);
}

fn pack_of(dir: &std::path::Path) -> std::path::PathBuf {
    use lastword::store::{Disk as _, FileKind};
    let listed = ReadOnlyDisk::new(dir).list().unwrap();
    let pack = listed.iter().find(|file| file.kind == FileKind::Pack).unwrap();
    dir.join(format!("{:012}", pack.number))
}

/// B1: a backup has the files, and so have the store that is restored from it and what is salvaged
/// of a damaged one.
#[test]
fn backup_restore_and_salvage_keep_files() {
    let Fixture { ws, db, dir } = Fixture::new();
    let content = noise(300_000);
    let staged = ws.files().stage_from(&content[..], "photo", &mut |_| {}).unwrap();
    db.close().unwrap();
    drop((ws, db));
    let [data, copy, restored, salvaged] =
        ["db", "copy", "restored", "salvaged"].map(|name| dir.path().join(name));
    let check = |dir: &std::path::Path| {
        let db = Database::open(dir).unwrap();
        assert_eq!(bytes(&db.workspace("main").unwrap().files(), &staged.hash()), content);
        db.close().unwrap();
    };
    lastword::backup(&data, &copy, &mut |_| {}).unwrap();
    lastword::restore(&copy, &restored, false, &mut |_| {}).unwrap();
    check(&restored);
    lastword::salvage(&data, &salvaged, false).unwrap();
    check(&salvaged);
    check(&data);
}

/// A batch that attaches a file comes behind the frame that says the file is here.
#[test]
fn the_log_names_a_file_before_a_record_does() {
    let Fixture { ws, db, dir: _dir } = Fixture::new();
    let staged = ws.files().stage_from(&b"hello"[..], "hello.txt", &mut |_| {}).unwrap();
    ws.write(|tx| tx.attach(&staged, "text/plain")).unwrap();
    let kinds: Vec<_> =
        db.log(0, 100).unwrap().0.iter().map(|line| (line.kind, line.text.clone())).collect();
    let place = |text: &str| kinds.iter().position(|(_, of)| of.contains(text)).unwrap();
    let (blob, record) = (place("5 bytes"), place("file_meta"));
    assert!(place("1 chunks") < blob && blob < record, "{kinds:?}");
}

/// I31. Damage was met only by whoever needed the file, which may be years later. A scrub reads a
/// bounded number of bytes at a time, goes on where it stopped, and notes what it finds.
#[test]
fn a_scrub_finds_damage_before_a_reader_does() {
    let Fixture { ws, db, dir } = Fixture::new();
    let content = noise(2_000_000);
    let staged = ws.files().stage_from(&content[..], "photo", &mut |_| {}).unwrap();
    let sound = ws.files().stage_from(&b"sound"[..], "sound", &mut |_| {}).unwrap();
    db.close().unwrap();
    drop((ws, db));
    let data = dir.path().join("db");
    let pack = pack_of(&data);
    let mut on_disk = std::fs::read(&pack).unwrap();
    on_disk[1_000_000] ^= 1;
    std::fs::write(&pack, on_disk).unwrap();
    let db = Database::open(&data).unwrap();
    let files = db.workspace("main").unwrap().files();
    let scrub = || {
        let (mut from, mut damaged, mut chunks, mut steps) = (ChunkId([0; 32]), 0, 0, 0);
        loop {
            let done = files.scrub(from, 300_000).unwrap();
            assert!(done.bytes < 300_000 + 263_000, "{done:?}");
            damaged += done.damaged.len();
            chunks += done.chunks;
            steps += 1;
            match done.next {
                Some(next) => from = next,
                None => return (damaged, chunks, steps),
            }
        }
    };
    let (damaged, chunks, steps) = scrub();
    assert_eq!((damaged, chunks), (1, files.usage().unwrap().chunks));
    assert!(steps > 4, "{steps}");
    assert_eq!(files.usage().unwrap().damaged_chunks, 1);
    assert_eq!(files.broken().unwrap(), [staged.hash()]);
    assert_eq!(bytes(&files, &sound.hash()), b"sound");
    let again = files.stage_from(&content[..], "photo", &mut |_| {}).unwrap();
    assert!(again.new_bytes > 0 && again.new_bytes < 263_000);
    assert_eq!((scrub().0, files.broken().unwrap()), (0, Vec::new()));
    assert_eq!(bytes(&files, &staged.hash()), content);
}

/// I31, I32. A salvage cut the log before the frame that names a pack, and the first collection in
/// the new store removed the pack, with files of which the next backup knows nothing.
#[test]
fn a_salvage_loses_no_pack_with_the_frame_that_named_it() {
    let Fixture { ws, db, dir } = Fixture::new();
    let content = noise(300_000);
    let staged = ws.files().stage_from(&content[..], "photo", &mut |_| {}).unwrap();
    ws.write(|tx| tx.attach(&staged, "image/png")).unwrap();
    let lines = db.log(0, 100).unwrap().0;
    let named = lines.iter().find(|line| line.text.contains("chunks in pack")).unwrap().position;
    db.close().unwrap();
    drop((ws, db));
    let [data, salvaged] = ["db", "salvaged"].map(|name| dir.path().join(name));
    let segment = data.join(format!("{:012}", 1));
    let mut on_disk = std::fs::read(&segment).unwrap();
    on_disk[128 + named as usize + 40] ^= 1;
    std::fs::write(&segment, on_disk).unwrap();
    for file in std::fs::read_dir(&data).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "state") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let report = lastword::salvage(&data, &salvaged, true).unwrap();
    assert_eq!((report.losses.len(), report.files.files), (1, 1), "{report:?}");
    let db = Database::open(&salvaged).unwrap();
    let files = db.workspace("main").unwrap().files();
    let soon = CollectOptions { grace: Duration::ZERO, force: true, ..Default::default() };
    for _ in 0..3 {
        assert_eq!(files.collect(soon).unwrap().removed_packs, 0);
    }
    assert_eq!(bytes(&files, &staged.hash()), content);
    db.close().unwrap();
    drop((files, db));
    // And from the packs alone, in place.
    let pack = pack_of(&salvaged);
    for file in std::fs::read_dir(&salvaged).unwrap() {
        let path = file.unwrap().path();
        if path != pack {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(Database::open(&salvaged).is_err(), "a log was begun beside packs");
    assert_eq!(lastword::reindex(&salvaged, &mut |_| {}).unwrap().files, 1);
    let db = Database::open(&salvaged).unwrap();
    assert_eq!(bytes(&db.workspace("main").unwrap().files(), &staged.hash()), content);
}

/// B8. Stored files counted as log, so compacting seemed to leave most of a log behind.
#[test]
fn compacting_counts_packs_apart() {
    let Fixture { ws, db, dir } = Fixture::new();
    ws.files().stage_from(&noise(3_000_000)[..], "photo", &mut |_| {}).unwrap();
    db.close().unwrap();
    drop((ws, db));
    let report = lastword::compact(&dir.path().join("db"), Duration::ZERO, false).unwrap();
    for sizes in [report.before, report.after] {
        assert!(sizes.packs >= 3_000_000 && sizes.log < 3_000_000, "{sizes:?}");
        assert!(sizes.all() >= sizes.log + sizes.packs);
    }
}

/// R7.1, R7.2, B8: a deleted file stays as long as anything can bring it back; once nothing names
/// it, it is condemned, and goes with a later run. A dry run says why and changes nothing.
#[test]
fn a_file_that_nothing_names_goes_in_two_steps() {
    let Fixture { ws, db: _db, dir: _dir } = Fixture::new();
    let files = ws.files();
    let named = files.stage_from(&noise(200_000)[..], "named", &mut |_| {}).unwrap();
    ws.write(|tx| tx.attach(&named, "text/plain")).unwrap();
    let loose = files.stage_from(&b"nothing names this"[..], "loose", &mut |_| {}).unwrap();
    files.delete(&named.hash()).unwrap();
    let soon = CollectOptions { grace: Duration::ZERO, force: true, ..Default::default() };
    let now = CollectOptions { staged: Duration::ZERO, ..soon };
    let fate = |options| {
        let found = files.collect(options).unwrap().files;
        found.into_iter().find(|(hash, ..)| *hash == loose.hash()).map(|(_, _, fate)| fate)
    };
    assert_eq!(fate(soon), Some(Fate::JustStored));
    assert_eq!(fate(CollectOptions { dry_run: true, ..now }), Some(Fate::Condemned));
    assert_eq!(fate(now), Some(Fate::Condemned));
    assert_eq!(bytes(&files, &loose.hash()), b"nothing names this");
    let late = CollectOptions { grace: Duration::from_secs(3600), ..now };
    assert_eq!(fate(late), Some(Fate::InGrace));
    assert_eq!(fate(now), Some(Fate::Dropped));
    assert_eq!(fate(now), None);
    assert!(matches!(files.open(&loose.hash()), Err(Error::Blob(BlobError::Missing { .. }))));
    // Its chunk follows in two steps of its own.
    let gone = |_| files.collect(now).unwrap().totals.dropped_chunks;
    assert_eq!((0..2).map(gone).sum::<u64>(), 1);
    files.undelete(&named.hash()).unwrap();
    assert_eq!(bytes(&files, &named.hash()), noise(200_000));
    let refused = ws.write(|tx| tx.attach(&loose, "text/plain")).unwrap_err();
    assert!(matches!(refused, Error::Blob(BlobError::Missing { .. })), "{refused}");
}

/// B12: a device that forgets a workspace keeps no byte of its files, also of those that history
/// names, and says how many those were.
#[test]
fn a_forgotten_workspace_leaves_no_file_behind() {
    let Fixture { ws, db, dir } = Fixture::new();
    let files = ws.files();
    let content = noise(300_000);
    let staged = files.stage_from(&content[..], "secret", &mut |_| {}).unwrap();
    ws.write(|tx| tx.attach(&staged, "text/plain")).unwrap();
    let other = db.workspace("other").unwrap();
    let kept = other.files().stage_from(&content[..], "kept", &mut |_| {}).unwrap();
    assert!(matches!(ws.purge(Consent::OnlySent), Err(Error::WouldDestroy { .. })));
    assert_eq!(bytes(&files, &staged.hash()), content);
    let purged = ws.purge(Consent::Everything).unwrap();
    assert_eq!(purged.file_bytes, 300_000);
    assert!(files.open(&staged.hash()).is_err());
    assert_eq!(files.usage().unwrap(), FilesUsage::default());
    assert_eq!(bytes(&other.files(), &kept.hash()), content);
    drop((files, ws, other));
    db.close().unwrap();
    let probe = &content[100_000..100_064];
    let holding = std::fs::read_dir(dir.path().join("db")).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        std::fs::read(path).is_ok_and(|file| file.windows(64).any(|window| window == probe))
    });
    assert_eq!(holding.count(), 1, "the pack of the other workspace");
}
