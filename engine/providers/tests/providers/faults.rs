//! What goes wrong between a device and a store, and that the check at commit finds it (R3.4): no
//! record names a file that is not there whole.

use std::sync::Arc;

use lastword_providers::capability::{Capabilities, Capability};
use lastword_providers::commit::{CommitError, Verified, verify, verify_bytes};
use lastword_providers::conformance::{Point, World, run};
use lastword_providers::expiry::Grant;
use lastword_providers::faulty::{Fault, Faulty};
use lastword_providers::http::{HttpClient, HttpError};
use lastword_providers::key::Prefix;
use lastword_providers::limits::PART_BYTES;
use lastword_providers::memory::MemoryStore;
use lastword_providers::provider::{ObjectStorageProvider, PartToSend, ProviderError};
use lastword_providers::upload::Upload;
use sha2::{Digest, Sha256};

use crate::support::{START_MS, file};

fn faulty(capabilities: Capabilities) -> (MemoryStore, Faulty) {
    let store = MemoryStore::promising(capabilities, b"secret", START_MS);
    let world = Arc::new(store.clone());
    (store.clone(), Faulty::new(Arc::new(store), world))
}

/// A store that binds neither length nor checksum, as one behind a plain signed PUT.
fn trusting() -> (MemoryStore, Faulty) {
    let bound = [Capability::LengthBound, Capability::ChecksumBound];
    faulty(bound.iter().fold(Capabilities::all(), |all, one| all.without(*one)))
}

fn put(store: &Faulty, upload: &Upload, bytes: &[u8]) -> Result<u16, HttpError> {
    let url = store.presign_upload(upload, Grant::at(store.now_ms())).expect("a URL");
    store.send(url.request(bytes.to_vec())).map(|reply| reply.status)
}

fn checked(store: &Faulty, upload: &Upload) -> Result<Verified, CommitError> {
    verify(store, upload, store.now_ms())
}

#[test]
fn without_a_fault_nothing_is_different() {
    let (_, store) = faulty(Capabilities::all());
    let report = run(&store, &store, "faulty", &[]);
    assert_eq!(report.passed(), Point::ALL, "{report}");
}

#[test]
fn r3_4_an_upload_whose_answer_was_lost_is_found_and_not_sent_twice() {
    let (_, store) = faulty(Capabilities::all());
    let (upload, bytes) = file(5000);
    store.arm(Fault::ReplyLost);
    assert!(matches!(put(&store, &upload, &bytes), Err(HttpError::Lost { .. })));
    assert_eq!(checked(&store, &upload).expect("it is there"), Verified::ByStore);
    assert_eq!(put(&store, &upload, &bytes), Ok(412));
    assert_eq!(checked(&store, &upload).expect("it is there"), Verified::ByStore);
}

/// The completion is repeated, the upload is unknown by then: that is no failure, the object
/// decides.
#[test]
fn r3_4_a_completion_whose_answer_was_lost_is_found() {
    let (_, store) = faulty(Capabilities::all());
    let (upload, bytes) = file(PART_BYTES as usize + 1000);
    let id = store.begin_multipart(&upload, store.now_ms()).expect("an upload");
    for number in 1..=upload.parts() {
        assert_eq!(put_part(&store, &upload, &id, number, &bytes), 200);
    }
    store.arm(Fault::ReplyLost);
    let error = store.complete_multipart(&upload, &id, store.now_ms()).expect_err("lost");
    assert!(error.is_retryable(), "{error}");
    let error = store.complete_multipart(&upload, &id, store.now_ms()).expect_err("done before");
    assert!(matches!(error, ProviderError::NoSuchUpload { .. }) && !error.is_retryable());
    assert_eq!(checked(&store, &upload).expect("it is there"), Verified::ByReading);
}

fn put_part(
    store: &Faulty,
    upload: &Upload,
    id: &lastword_providers::upload::MultipartId,
    number: u32,
    bytes: &[u8],
) -> u16 {
    let (start, len) = upload.part(number).expect("a part");
    let bytes = &bytes[start as usize..(start + len) as usize];
    let part = PartToSend { number, sha256: Sha256::digest(bytes).into() };
    let url = store.presign_part(upload, id, part, Grant::at(store.now_ms())).expect("a URL");
    store.send(url.request(bytes.to_vec())).expect("an answer").status
}

#[test]
fn r3_4_half_a_file_never_counts() {
    let (upload, bytes) = file(5000);
    let (_, store) = faulty(Capabilities::all());
    store.arm(Fault::PartialBody);
    assert_eq!(put(&store, &upload, &bytes), Ok(403), "the length is bound");
    assert!(matches!(checked(&store, &upload), Err(CommitError::Missing { .. })));

    let (_, store) = trusting();
    store.arm(Fault::PartialBody);
    assert_eq!(put(&store, &upload, &bytes), Ok(200), "nothing is bound");
    let error = checked(&store, &upload).expect_err("half of it");
    assert!(matches!(error, CommitError::Size { found: 2500, expected: 5000, .. }), "{error}");
}

#[test]
fn r3_4_other_bytes_never_count() {
    let (upload, bytes) = file(5000);
    let (_, store) = faulty(Capabilities::all());
    store.arm(Fault::WrongBytes);
    assert_eq!(put(&store, &upload, &bytes), Ok(400), "the checksum is bound");
    assert!(matches!(checked(&store, &upload), Err(CommitError::Missing { .. })));

    let (_, store) = trusting();
    store.arm(Fault::WrongBytes);
    assert_eq!(put(&store, &upload, &bytes), Ok(200), "nothing is bound");
    assert!(matches!(checked(&store, &upload), Err(CommitError::Checksum { .. })));
}

/// A store has no SHA-256 of the whole of what came in parts: every byte is read.
#[test]
fn r3_4_one_wrong_part_is_found() {
    let (_, store) = trusting();
    let (upload, bytes) = file(PART_BYTES as usize + 1000);
    let id = store.begin_multipart(&upload, store.now_ms()).expect("an upload");
    assert_eq!(put_part(&store, &upload, &id, 1, &bytes), 200);
    store.arm(Fault::WrongBytes);
    assert_eq!(put_part(&store, &upload, &id, 2, &bytes), 200);
    store.complete_multipart(&upload, &id, store.now_ms()).expect("the sizes are right");
    assert!(matches!(checked(&store, &upload), Err(CommitError::Checksum { .. })));
}

#[test]
fn r3_4_a_read_that_breaks_off_or_lies_is_no_proof() {
    let (_, store) = faulty(Capabilities::all());
    let (upload, bytes) = file(5000);
    assert_eq!(put(&store, &upload, &bytes), Ok(200));
    store.arm(Fault::PartialBody);
    let error = verify_bytes(&store, &upload, store.now_ms()).expect_err("half of it");
    assert!(matches!(error, CommitError::Size { found: 2500, .. }), "{error}");
    store.arm(Fault::WrongBytes);
    let error = verify_bytes(&store, &upload, store.now_ms()).expect_err("another bit");
    assert!(matches!(error, CommitError::Checksum { .. }), "{error}");
    verify_bytes(&store, &upload, store.now_ms()).expect("the object is whole");
}

/// What rots at the store after the upload is found when it is looked at.
#[test]
fn r3_3_bytes_that_changed_at_the_store_are_found() {
    let (memory, store) = faulty(Capabilities::all());
    let (upload, bytes) = file(5000);
    assert_eq!(put(&store, &upload, &bytes), Ok(200));
    let mut rotten = bytes.clone();
    rotten[0] ^= 1;
    memory.plant(upload.key().as_str(), &rotten);
    assert!(matches!(checked(&store, &upload), Err(CommitError::Checksum { .. })));
}

#[test]
fn r7_2_a_stale_list_proves_neither_presence_nor_absence() {
    let (_, store) = faulty(Capabilities::all());
    let (upload, bytes) = file(5000);
    let prefix = Prefix::workspace(upload.key().workspace()).expect("a prefix");
    let listed = || {
        let page = store.list(&prefix, None, 10, store.now_ms()).expect("a page");
        page.objects.len()
    };
    assert_eq!(listed(), 0);
    assert_eq!(put(&store, &upload, &bytes), Ok(200));
    store.arm(Fault::StaleList);
    assert_eq!(listed(), 0, "it is not listed");
    checked(&store, &upload).expect("it is there all the same");
    assert_eq!(listed(), 1);

    store.delete(upload.key(), store.now_ms()).expect("deleted");
    store.arm(Fault::StaleList);
    assert_eq!(listed(), 1, "it is still listed");
    assert!(matches!(checked(&store, &upload), Err(CommitError::Missing { .. })));
}

#[test]
fn r8_2_a_url_that_ends_on_the_way_stores_nothing_and_a_new_one_does() {
    let (_, store) = faulty(Capabilities::all());
    let (upload, bytes) = file(5000);
    store.arm(Fault::UrlExpires);
    assert_eq!(put(&store, &upload, &bytes), Ok(403));
    assert!(matches!(checked(&store, &upload), Err(CommitError::Missing { .. })));
    assert_eq!(put(&store, &upload, &bytes), Ok(200));
    checked(&store, &upload).expect("it is there");
}

#[test]
fn r7_4_a_deletion_whose_answer_was_lost_is_repeated() {
    let (memory, store) = faulty(Capabilities::all());
    let (upload, bytes) = file(5000);
    assert_eq!(put(&store, &upload, &bytes), Ok(200));
    store.arm(Fault::ReplyLost);
    assert!(store.delete(upload.key(), store.now_ms()).is_err_and(|error| error.is_retryable()));
    assert_eq!(memory.bytes(upload.key()), None);
    store.delete(upload.key(), store.now_ms()).expect("gone is gone");
}
