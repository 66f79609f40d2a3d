//! Files at an object store where two are at the same one, or the store says for a while what is
//! not so.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use lastword::providers::capability::Capabilities;
use lastword::providers::faulty::Faulty;
use lastword::providers::memory::MemoryStore;
use lastword::store::read;
use lastword::{BlobHash, Ending, Error, Fate, ObjectOffer, UploadRequest, now_ms};

use crate::objects::{Kept, down, now, up};
use crate::transfer::{Phone, bytes, go_on, name, noise, sha256};

fn request<'a>(
    workspace: &'a lastword::core::id::WorkspaceName,
    hash: BlobHash,
    size_bytes: u64,
) -> UploadRequest<'a> {
    UploadRequest { workspace, user: "ann", hash, size_bytes, mime_type: "", name: "" }
}

/// B7, R7.2: a store whose disk was not there for a minute said of a photo that it had none. The
/// collection of the next day deleted it there, although a record named it.
#[test]
fn a_store_that_is_empty_for_a_while_loses_nothing() {
    let (kept, phone, laptop) = (Kept::new(Capabilities::all()), Phone::new(), Phone::new());
    let content = noise(1, 300_000);
    let hash = phone.attach("main", &content);
    kept.row(1, &hash);
    up(&phone.files("main"), &hash, &mut kept.wire("ann")).unwrap();
    let empty = MemoryStore::new(b"secret", u64::try_from(now_ms()).unwrap());
    kept.server.authority.keep_files_at(Some(Arc::new(empty.clone())), Vec::new());
    let mut wire = kept.wire("bob");
    wire.http = Arc::new(empty);
    down(&laptop.files("main"), &hash, &mut wire).unwrap_err();
    drop(wire);
    assert_eq!(kept.server.storage_id(&hash), None, "whoever has it may bring it");
    kept.server.authority.keep_files_at(Some(Arc::new(kept.store.clone())), Vec::new());
    assert_eq!(kept.collect(now())[&hash], Fate::Named);
    assert!(kept.object("main", &hash).is_some());
    let found = kept.server.storage_id(&hash);
    assert_eq!(found.map(|id| format!("{id:?}").contains(&hash.to_string())), Some(true));
    down(&laptop.files("main"), &hash, &mut kept.wire("bob")).unwrap();
    assert!(bytes(&laptop.files("main"), &hash) == content);
}

/// R10.3: a file that somebody else calls shorter, while it lies at the store and nobody has
/// compared it, counted as that short.
#[test]
fn what_lies_at_a_store_counts_as_long_as_anybody_said() {
    let (kept, main) = (Kept::new(Capabilities::all()), name("main"));
    let hash = BlobHash::Sha256([7; 32]);
    let offer = |size| kept.server.authority.offer_object(&request(&main, hash, size), false);
    drop(offer(300_000).unwrap());
    drop(offer(0).unwrap());
    let known = read::object(&*kept.server.authority.view(), &main, &sha256(&hash));
    assert_eq!(known.unwrap().unwrap().size, 300_000);
    let ObjectOffer::Coming(_held) = offer(300_000).unwrap() else { panic!("it never came") };
    assert!(matches!(offer(7), Err(Error::ObjectBusy { .. })), "somebody brings it now");
}

/// R3.5: somebody said over HTTP that a file had come of which a device was sending parts. The id
/// of those was forgotten, so the device sent them again, and nobody ever deleted the first.
#[test]
fn parts_under_way_outlive_a_commit_by_somebody_else() {
    let (kept, phone, main) = (Kept::new(Capabilities::all()), Phone::new(), name("main"));
    let content = noise(1, 20 << 20);
    let hash = phone.attach("main", &content);
    let mut wire = kept.wire("ann");
    wire.local.left = 2;
    up(&phone.files("main"), &hash, &mut wire).unwrap_err();
    drop(wire);
    let asked = request(&main, hash, 20 << 20);
    let ObjectOffer::Coming(mut coming) =
        kept.server.authority.offer_object(&asked, false).unwrap()
    else {
        panic!("it has not come")
    };
    let committed = kept.server.authority.commit_object(&mut coming, &mut || {});
    assert!(matches!(committed, Err(Error::ObjectMissing { .. })), "{committed:?}");
    drop(coming);
    let mut wire = kept.wire("ann");
    up(&phone.files("main"), &hash, &mut wire).unwrap();
    assert_eq!(wire.made.len(), 2, "the first part is there: {:?}", wire.made);
    assert_eq!(kept.store.open_uploads(), 0);
}

/// R5.1: a file that had been on its way to a store could be brought nowhere after the operator had
/// gone back to the server's own.
#[test]
fn a_file_comes_here_once_its_store_is_unknown() {
    let (kept, phone) = (Kept::new(Capabilities::all()), Phone::new());
    let hash = phone.attach("main", &noise(1, 20 << 20));
    kept.row(1, &hash);
    let mut wire = kept.wire("ann");
    wire.local.left = 2;
    up(&phone.files("main"), &hash, &mut wire).unwrap_err();
    drop(wire);
    kept.server.authority.keep_files_at(None, Vec::new());
    let mut wire = kept.server.wire("ann");
    lastword::upload(&phone.files("main"), sha256(&hash), &mut wire, 1, &mut go_on).unwrap();
    assert!(kept.server.storage_id(&hash).is_some());
}

/// R7.2, I32: a collection gave two objects away. While it deleted the first, a device was told
/// that the second was there, from a view of before; then that one was deleted too.
#[test]
fn what_a_collection_has_given_away_is_not_said_to_be_there() {
    let (kept, phone) = (Kept::new(Capabilities::all()), Phone::new());
    let mut hashes: Vec<_> = (1..=2).map(|seed| phone.attach("main", &noise(seed, 1000))).collect();
    hashes.sort();
    for hash in &hashes {
        up(&phone.files("main"), hash, &mut kept.wire("ann")).unwrap();
    }
    assert_eq!(kept.collect(now())[&hashes[1]], Fate::Condemned);
    let ((begin, asked), (deleting, begun), (goes, go)) =
        (sync_channel(1), sync_channel(2), sync_channel(2));
    let (store, begin) = (Arc::new(kept.store.clone()), Mutex::new(Some(begin)));
    let (begun, go) = (Mutex::new(begun), Mutex::new(go));
    let between = Faulty::new(store.clone(), store);
    between.watch(move |operation| match operation {
        // In the middle of the offer, once.
        "capabilities" => {
            if let Some(begin) = begin.lock().unwrap().take() {
                begin.send(()).unwrap();
                begun.lock().unwrap().recv().unwrap();
            }
        }
        "delete an object" => {
            deleting.send(()).unwrap();
            go.lock().unwrap().recv().unwrap();
        }
        _ => {}
    });
    std::thread::scope(|scope| {
        let server = &kept;
        let collecting = scope.spawn(move || {
            asked.recv().unwrap();
            server.collect(now())
        });
        kept.server.authority.keep_files_at(Some(Arc::new(between)), Vec::new());
        let ended = up(&phone.files("main"), &hashes[1], &mut kept.wire("ann"));
        assert!(matches!(ended, Err(Ending::Refused { .. })), "{ended:?}");
        goes.send(()).unwrap();
        goes.send(()).unwrap();
        collecting.join().unwrap();
    });
    kept.server.authority.keep_files_at(Some(Arc::new(kept.store.clone())), Vec::new());
    up(&phone.files("main"), &hashes[1], &mut kept.wire("ann")).unwrap();
    assert!(kept.object("main", &hashes[1]).is_some());
}
