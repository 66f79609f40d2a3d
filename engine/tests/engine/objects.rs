//! Files that an object store keeps, message by message, with a store in memory.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use lastword::core::hash::ChunkId;
use lastword::core::manifest::Blob;
use lastword::core::op::Action;
use lastword::core::protocol::{FILES_VERSION, FileMessage, FileRefusal, ObjectMessage, SignedUrl};
use lastword::core::value::{Record, Value};
use lastword::providers::capability::{Capabilities, Capability};
use lastword::providers::http::{HttpClient, Method, Request};
use lastword::providers::key::ObjectKey;
use lastword::providers::memory::MemoryStore;
use lastword::{
    BlobHash, CollectOptions, Direction, Ended, Ending, Fate, Files, Got, Pieces, Progress, Wire,
    download, now_ms, upload,
};

use crate::transfer::{Local, Phone, Server, bytes, code, go_on, name, noise, sha256};

/// A wire to a server and to a store in memory.
pub struct Both {
    pub local: Local,
    pub http: Arc<dyn HttpClient>,
    /// Requests that were made: method, number of the part, first byte.
    pub made: Vec<(Method, Option<String>, u64)>,
    /// So many requests are answered with a status of a URL that has ended.
    pub ended: usize,
    /// So many bodies are sent with a wrong byte.
    spoilt: usize,
    /// So many downloads break off in their middle.
    cut: usize,
}

fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).map(str::to_owned)
}

impl Both {
    fn send(
        &mut self,
        method: Method,
        url: &SignedUrl,
        more: Option<(String, String)>,
        body: Vec<u8>,
    ) -> Result<(u16, Vec<u8>), String> {
        if self.ended > 0 {
            self.ended -= 1;
            return Ok((403, Vec::new()));
        }
        let mut headers = url.headers.clone();
        headers.extend(more);
        let request = Request { method, url: url.url.clone(), headers, body };
        let reply = self.http.send(request).map_err(|error| error.to_string())?;
        Ok((reply.status, reply.bytes(64 << 20).unwrap()))
    }
}

impl Wire for Both {
    fn send(&mut self, message: FileMessage) -> Result<(), String> {
        self.local.send(message)
    }

    fn receive(&mut self) -> Result<FileMessage, String> {
        self.local.receive()
    }

    fn put(&mut self, url: &SignedUrl, len: u64, pieces: Pieces<'_>) -> Result<u16, Ending> {
        let mut body = Vec::new();
        while let Some(piece) = pieces()? {
            body.extend(piece);
        }
        assert_eq!(body.len() as u64, len);
        if self.spoilt > 0 {
            self.spoilt -= 1;
            body[0] ^= 1;
        }
        self.made.push((Method::Put, parameter(&url.url, "part"), 0));
        let sent = Both::send(self, Method::Put, url, None, body);
        sent.map(|(status, _)| status).map_err(|why| Ending::Cut { why })
    }

    fn get(&mut self, url: &SignedUrl, begin: u64, end: u64) -> Result<Got<'_>, String> {
        self.made.push((Method::Get, None, begin));
        let range = end.checked_sub(1).map(|last| format!("bytes={begin}-{last}"));
        let range = range.map(|range| ("range".to_owned(), range));
        let (status, mut body) = Both::send(self, Method::Get, url, range, Vec::new())?;
        if status < 300 && self.cut > 0 {
            self.cut -= 1;
            body.truncate(body.len() / 2);
        }
        Ok(Got { status, body: Box::new(std::io::Cursor::new(body)) })
    }
}

/// A server whose files a store in memory keeps.
pub struct Kept {
    pub server: Server,
    pub store: MemoryStore,
    /// How devices reach it.
    pub http: Arc<dyn HttpClient>,
}

impl Kept {
    pub fn new(capabilities: Capabilities) -> Self {
        let now = u64::try_from(now_ms()).unwrap();
        let store = MemoryStore::promising(capabilities, b"secret", now);
        let server = Server::new();
        server.authority.keep_files_at(Some(Arc::new(store.clone())), Vec::new());
        Self::of(server, store)
    }

    fn of(server: Server, store: MemoryStore) -> Self {
        let http = Arc::new(store.clone());
        Self { server, store, http }
    }

    pub fn wire(&self, user: &str) -> Both {
        let mut local = self.server.wire(user);
        local.service = lastword::FileService::new(self.server.authority.clone(), user.into())
            .speaking(FILES_VERSION);
        let (http, made) = (self.http.clone(), Vec::new());
        Both { local, http, made, ended: 0, spoilt: 0, cut: 0 }
    }

    pub fn row(&self, counter: u64, hash: &BlobHash) {
        let record = Record::new(&[("hash".into(), Value::Text(hash.to_string()))]).unwrap();
        self.server.put_row(counter, hash, Action::Create { record, replace: false });
    }

    pub fn object(&self, workspace: &str, hash: &BlobHash) -> Option<Arc<[u8]>> {
        self.store.bytes(&ObjectKey::new(&name(workspace), *hash).unwrap())
    }

    pub fn collect(&self, options: CollectOptions) -> BTreeMap<BlobHash, Fate> {
        let collected = self.server.authority.collect(&name("main"), options).unwrap();
        collected.objects.into_iter().map(|object| (object.hash, object.fate)).collect()
    }
}

pub fn up(files: &Files, hash: &BlobHash, wire: &mut Both) -> Result<Ended, Ending> {
    upload(files, sha256(hash), wire, 1, &mut go_on)
}

pub fn down(files: &Files, hash: &BlobHash, wire: &mut Both) -> Result<Ended, Ending> {
    download(files, sha256(hash), wire, 1, &mut go_on)
}

pub fn now() -> CollectOptions {
    let zero = Duration::ZERO;
    CollectOptions { staged: zero, grace: zero, dry_run: false, force: true }
}

/// R3.3, R3.4, R4.1: bytes go to the store and come from there, whole or in parts; the row says
/// which store has them, in each workspace its own object; and a second upload sends none.
#[test]
fn a_file_goes_to_a_store_and_comes_from_it() {
    let (kept, phone, laptop) = (Kept::new(Capabilities::all()), Phone::new(), Phone::new());
    for (counter, len) in [0, 1, 300_000, 20 << 20].into_iter().enumerate() {
        let content = noise(counter as u64, len);
        let hash = phone.attach("main", &content);
        kept.row(counter as u64 + 1, &hash);
        let mut wire = kept.wire("ann");
        let ended = up(&phone.files("main"), &hash, &mut wire).unwrap();
        assert_eq!((ended.total_bytes, ended.moved_bytes), (len as u64, len as u64));
        assert!(wire.local.said.iter().all(|(kind, _)| *kind != "chunk"));
        assert_eq!(kept.object("main", &hash).as_deref(), Some(&content[..]));
        assert_eq!(kept.object("other", &hash), None);
        let stored = Some(Value::Text(hash.to_string()));
        assert_eq!(kept.server.storage_id(&hash), stored);
        let provider = kept.server.field(&hash, "storage_provider_id");
        assert_eq!(provider, Some(Value::Text("memory".into())));
        let again = up(&phone.files("main"), &hash, &mut kept.wire("ann")).unwrap();
        assert_eq!(again.moved_bytes, 0);

        let mut wire = kept.wire("bob");
        let ended = down(&laptop.files("main"), &hash, &mut wire).unwrap();
        assert_eq!(ended.moved_bytes, len as u64);
        assert!(bytes(&laptop.files("main"), &hash) == content, "{len} bytes");
        // The parts in which it came are no files of their own any more.
        assert_eq!(laptop.files("main").usage().unwrap().files, counter as u64 + 1);
    }
    let hash = phone.attach("other", &noise(2, 300_000));
    let ended = up(&phone.files("other"), &hash, &mut kept.wire("ann")).unwrap();
    assert_eq!(ended.moved_bytes, 300_000, "nobody learns what another workspace has");
    assert!(kept.object("other", &hash).is_some());
}

/// R3.5: an upload that was cut goes on with the parts that the store lacks, with new URLs for
/// those that have ended.
#[test]
fn parts_that_are_at_the_store_are_not_sent_again() {
    let (kept, phone) = (Kept::new(Capabilities::all()), Phone::new());
    let content = noise(1, 20 << 20);
    let hash = phone.attach("main", &content);
    let mut wire = kept.wire("ann");
    // Offer, a URL for the first part, and one for the second, which is not sent any more.
    wire.local.left = 2;
    let ended = up(&phone.files("main"), &hash, &mut wire);
    assert!(matches!(ended, Err(Ending::Cut { .. })), "{ended:?}");
    drop(wire);
    let mut wire = kept.wire("ann");
    wire.ended = 2;
    let ended = up(&phone.files("main"), &hash, &mut wire).unwrap();
    assert_eq!(ended.moved_bytes, (20 << 20) - (8 << 20) + 2 * (8 << 20), "two tries failed");
    let parts: Vec<_> = wire.made.iter().map(|(_, part, _)| part.as_deref().unwrap()).collect();
    assert_eq!(parts, ["2", "2", "2", "3"]);
    assert_eq!(kept.store.open_uploads(), 0);
    assert_eq!(kept.object("main", &hash).as_deref(), Some(&content[..]));
}

/// R3.5: a download that broke off goes on where it was, by ranges, also with another connection
/// and another URL.
#[test]
fn a_download_goes_on_by_ranges() {
    let (kept, phone, laptop) = (Kept::new(Capabilities::all()), Phone::new(), Phone::new());
    let content = noise(1, 20 << 20);
    let hash = phone.attach("main", &content);
    up(&phone.files("main"), &hash, &mut kept.wire("ann")).unwrap();
    let files = laptop.files("main");
    // Its row is where the parts are noted.
    files.fetch(&hash).unwrap();
    let mut wire = kept.wire("bob");
    let mut seen = 0;
    let mut stops = |progress: Progress| {
        seen = progress.done_bytes;
        if seen > 10 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let ended = download(&files, sha256(&hash), &mut wire, 1, &mut stops);
    assert!(matches!(ended, Err(Ending::Stopped)), "{ended:?}");
    let row = files.transfer(Direction::Download, &hash).unwrap().unwrap();
    assert_eq!(row.parts.len(), 1, "{row:?}");
    let mut wire = kept.wire("bob");
    wire.cut = 1;
    let ended = down(&files, &hash, &mut wire);
    assert!(matches!(ended, Err(Ending::Cut { .. })), "{ended:?}");
    let mut wire = kept.wire("bob");
    wire.ended = 1;
    let ended = down(&files, &hash, &mut wire).unwrap();
    let begun: Vec<_> = wire.made.iter().map(|(_, _, begin)| begin >> 20).collect();
    assert_eq!(begun, [8, 8, 16]);
    assert_eq!(ended.moved_bytes, 12 << 20);
    assert!(bytes(&files, &hash) == content);
}

/// R3.4: wrong bytes that a store took are found before a row says that they are the file, deleted,
/// and the right ones go in.
#[test]
fn wrong_bytes_are_found_at_commit() {
    let trusting = Capabilities::all().without(Capability::ChecksumBound);
    let (kept, phone) = (Kept::new(trusting), Phone::new());
    for (counter, len) in [300_000, 20 << 20].into_iter().enumerate() {
        let content = noise(7, len);
        let hash = phone.attach("main", &content);
        kept.row(counter as u64 + 1, &hash);
        let mut wire = kept.wire("ann");
        wire.spoilt = 1;
        let ending = up(&phone.files("main"), &hash, &mut wire).unwrap_err();
        assert_eq!(code(&ending), FileRefusal::Damaged);
        assert_eq!(kept.server.storage_id(&hash), None);
        assert_eq!(kept.object("main", &hash), None, "it would lie in the way");
        up(&phone.files("main"), &hash, &mut kept.wire("ann")).unwrap();
        assert_eq!(kept.object("main", &hash).as_deref(), Some(&content[..]));
        assert_eq!(kept.server.storage_id(&hash), Some(Value::Text(hash.to_string())));
    }
}

/// R3.3, I32: what rotted at a store, or is gone there, reaches nobody; its row says so, and the
/// next upload heals it.
#[test]
fn wrong_bytes_are_found_at_download() {
    let (kept, phone, laptop) = (Kept::new(Capabilities::all()), Phone::new(), Phone::new());
    for (counter, len) in [300_000, 20 << 20].into_iter().enumerate() {
        let content = noise(7, len);
        let hash = phone.attach("main", &content);
        kept.row(counter as u64 + 1, &hash);
        up(&phone.files("main"), &hash, &mut kept.wire("ann")).unwrap();
        let key = ObjectKey::new(&name("main"), hash).unwrap();
        let mut rotten = content.clone();
        rotten[len / 2] ^= 1;
        kept.store.plant(key.as_str(), &rotten);
        let ending = down(&laptop.files("main"), &hash, &mut kept.wire("bob")).unwrap_err();
        assert_eq!(code(&ending), FileRefusal::Damaged, "{ending}");
        assert!(laptop.files("main").open(&hash).is_err());
        assert_eq!(kept.server.storage_id(&hash), None);
        assert_eq!(kept.object("main", &hash), None);
        let ending = down(&laptop.files("main"), &hash, &mut kept.wire("bob")).unwrap_err();
        assert_eq!(code(&ending), FileRefusal::NotStored);
        up(&phone.files("main"), &hash, &mut kept.wire("ann")).unwrap();
        down(&laptop.files("main"), &hash, &mut kept.wire("bob")).unwrap();
        assert!(bytes(&laptop.files("main"), &hash) == content);
    }
}

/// R7.2: an object goes only if nothing names its file, a grace after that was found; others stay,
/// and one that is named again before comes back.
#[test]
fn objects_that_nothing_names_go() {
    let (kept, phone) = (Kept::new(Capabilities::all()), Phone::new());
    let hashes: Vec<_> = (1..=3).map(|seed| phone.attach("main", &noise(seed, 100_000))).collect();
    for hash in &hashes {
        up(&phone.files("main"), hash, &mut kept.wire("ann")).unwrap();
    }
    let [named, back, gone] = hashes.as_slice() else { panic!("three files") };
    kept.row(1, named);
    let just = kept.collect(CollectOptions { staged: Duration::from_secs(60), ..now() });
    assert_eq!((just[named], just[gone]), (Fate::Named, Fate::JustStored));
    let looked = kept.collect(CollectOptions { dry_run: true, ..now() });
    assert_eq!((looked[named], looked[gone]), (Fate::Named, Fate::Condemned));
    let first = kept.collect(now());
    assert_eq!(
        (first[named], first[back], first[gone]),
        (Fate::Named, Fate::Condemned, Fate::Condemned)
    );
    let hour = kept.collect(CollectOptions { grace: Duration::from_secs(3600), ..now() });
    assert_eq!(hour[gone], Fate::InGrace);
    kept.row(2, back);
    assert_eq!(kept.server.storage_id(back), Some(Value::Text(back.to_string())));
    let second = kept.collect(now());
    assert_eq!(
        (second[named], second[back], second[gone]),
        (Fate::Named, Fate::Spared, Fate::Dropped)
    );
    assert!(kept.object("main", named).is_some() && kept.object("main", back).is_some());
    assert_eq!(kept.object("main", gone), None);
    let third = kept.collect(now());
    assert_eq!(third.keys().collect::<Vec<_>>().len(), 2, "{third:?}");
    // It can be brought again.
    up(&phone.files("main"), gone, &mut kept.wire("ann")).unwrap();
    assert!(kept.object("main", gone).is_some());
}

/// R7.2: what came of an upload that nobody goes on with goes too, and its parts.
#[test]
fn an_upload_that_never_ended_goes() {
    let (kept, phone) = (Kept::new(Capabilities::all()), Phone::new());
    let hash = phone.attach("main", &noise(1, 20 << 20));
    let mut wire = kept.wire("ann");
    wire.local.left = 2;
    up(&phone.files("main"), &hash, &mut wire).unwrap_err();
    assert_eq!(kept.collect(now())[&hash], Fate::JustStored, "somebody is at it");
    drop(wire);
    assert_eq!(kept.store.open_uploads(), 1);
    assert_eq!(kept.collect(now())[&hash], Fate::Dropped);
    assert_eq!(kept.store.open_uploads(), 0);
    assert!(kept.collect(now()).is_empty());
}

/// R8.1, R10.3: who is no member gets no URL; room is counted for objects as for files here, before
/// any byte goes, and what is being uploaded counts too.
#[test]
fn strangers_and_full_workspaces_get_no_url() {
    let (kept, phone) = (Kept::new(Capabilities::all()), Phone::new());
    let (first, second) =
        (phone.attach("main", &noise(1, 600_000)), phone.attach("main", &noise(2, 600_000)));
    let missing = phone.attach("nowhere", &noise(3, 10));
    kept.server.authority.limit_files(u64::MAX, 1_000_000);
    let ending = up(&phone.files("nowhere"), &missing, &mut kept.wire("ann")).unwrap_err();
    assert_eq!(code(&ending), FileRefusal::Forbidden);
    let mut under_way = kept.wire("ann");
    under_way.local.left = 1;
    up(&phone.files("main"), &first, &mut under_way).unwrap_err();
    let ending = up(&phone.files("main"), &second, &mut kept.wire("ann")).unwrap_err();
    assert_eq!(code(&ending), FileRefusal::Unavailable, "{ending}");
    drop(under_way);
    up(&phone.files("main"), &first, &mut kept.wire("ann")).unwrap();
    let ending = up(&phone.files("main"), &second, &mut kept.wire("ann")).unwrap_err();
    assert_eq!(code(&ending), FileRefusal::OverQuota, "{ending}");
    assert_eq!(kept.object("main", &second), None);
}

/// A device that speaks only the first version is told in words, and the rest of what it may send
/// goes on as before.
#[test]
fn an_older_device_is_told_to_be_updated() {
    let (kept, phone) = (Kept::new(Capabilities::all()), Phone::new());
    let hash = phone.attach("main", &noise(1, 1000));
    let ending =
        upload(&phone.files("main"), sha256(&hash), &mut kept.server.wire("ann"), 1, &mut go_on);
    let Err(Ending::Refused { code: FileRefusal::Unavailable, message }) = ending else {
        panic!("{ending:?}");
    };
    assert!(message.contains("update the app"), "{message}");
}

/// What a server says of another store, or of parts that a file does not have, is an error and no
/// loop; and what was in this store before a store was selected stays here.
#[test]
fn a_file_of_before_stays_where_it_is() {
    let (server, phone, laptop) = (Server::new(), Phone::new(), Phone::new());
    let hash = phone.attach("main", &noise(1, 500_000));
    upload(&phone.files("main"), sha256(&hash), &mut server.wire("ann"), 1, &mut go_on).unwrap();
    let store = MemoryStore::new(b"secret", u64::try_from(now_ms()).unwrap());
    server.authority.keep_files_at(Some(Arc::new(store.clone())), Vec::new());
    let kept = Kept::of(server, store);
    let ended = up(&phone.files("main"), &hash, &mut kept.wire("ann")).unwrap();
    assert_eq!((ended.moved_bytes, kept.object("main", &hash)), (0, None));
    down(&laptop.files("main"), &hash, &mut kept.wire("bob")).unwrap();
    // Without the store, what it keeps is not to be had, and the server says where it is.
    let there = phone.attach("main", &noise(2, 500_000));
    up(&phone.files("main"), &there, &mut kept.wire("ann")).unwrap();
    kept.server.authority.keep_files_at(None, Vec::new());
    let ending = down(&laptop.files("main"), &there, &mut kept.wire("bob")).unwrap_err();
    assert!(ending.to_string().contains("\"memory\""), "{ending}");
    let looked = kept.collect(now());
    assert_eq!(looked[&there], Fate::Condemned);
    assert_eq!(kept.collect(now())[&there], Fate::InGrace, "nobody can delete it");
    kept.server.authority.keep_files_at(None, vec![Arc::new(kept.store.clone())]);
    down(&laptop.files("main"), &there, &mut kept.wire("bob")).unwrap();
}

/// Whatever numbers a device asks with, it gets an error and no URL.
#[test]
fn parts_that_a_file_does_not_have_get_no_url() {
    let kept = Kept::new(Capabilities::all());
    let (sha256, root) = ([7; 32], ChunkId([7; 32]));
    for (size, part) in [(20 << 20, 0), (20 << 20, 4), (20 << 20, u64::MAX), (10, 1)] {
        let mut wire = kept.wire("ann");
        let blob = Blob { sha256, size, profile: 1, depth: 0, root };
        let (workspace, text) = (name("main"), String::new);
        let (mime_type, file) = (text(), text());
        Wire::send(
            &mut wire,
            FileMessage::Offer { transfer: 1, workspace, blob, mime_type, name: file },
        )
        .unwrap();
        let place = Wire::receive(&mut wire).unwrap();
        assert!(matches!(place, FileMessage::Object { message: ObjectMessage::Place { .. }, .. }));
        // While bytes pass the server by, it hears that they do.
        let alive = FileMessage::Want { transfer: 1, stored: 0, chunks: Vec::new() };
        Wire::send(&mut wire, alive).unwrap();
        let message = ObjectMessage::AskUrl { part, sha256 };
        Wire::send(&mut wire, FileMessage::Object { transfer: 1, message }).unwrap();
        let answer = Wire::receive(&mut wire).unwrap();
        assert!(matches!(answer, FileMessage::Refused { .. }), "{size} {part}: {answer:?}");
    }
}
