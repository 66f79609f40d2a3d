//! Many short schedules of files at an object store whose network loses answers and bodies, with
//! collections and restarts between: what the server says of the store has to be so all along.

use std::sync::Arc;
use std::time::Duration;

use lastword::core::op::Action;
use lastword::core::value::{Record, Value};
use lastword::providers::capability::{Capabilities, Capability};
use lastword::providers::faulty::{Fault, Faulty};
use lastword::store::payload::ObjectState;
use lastword::store::read;
use lastword::{BlobHash, CollectOptions, Fate};

use crate::objects::{Kept, down, now, up};
use crate::transfer::{Phone, bytes, name, noise, sha256};

const STEPS: u64 = 20;
/// Lengths of the files: all go as a whole but the last, which has two parts.
const LENGTHS: [usize; 4] = [0, 1000, 200_000, 9 << 20];
/// Every so many schedules have the file in parts, which takes long.
const PARTS_EVERY: u64 = 8;

struct Random(u64);

impl Random {
    /// splitmix64 (Steele, Lea and Flood, 2014).
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// What the devices have; no schedule changes it.
struct Devices {
    phones: [Phone; 2],
    files: Vec<(BlobHash, Vec<u8>)>,
}

impl Devices {
    fn new() -> Self {
        let phones = [Phone::new(), Phone::new()];
        let with_content = |(seed, len): (usize, &usize)| {
            let content = noise(seed as u64, *len);
            let hashes = phones.each_ref().map(|phone| phone.attach("main", &content));
            (hashes[0], content)
        };
        let files = LENGTHS.iter().enumerate().map(with_content).collect();
        Self { phones, files }
    }
}

struct Schedule<'a> {
    devices: &'a Devices,
    kept: Kept,
    faulty: Arc<Faulty>,
    laptop: Phone,
    random: Random,
    /// Files that take part.
    files: usize,
    /// Whether a record names each: not yet, now, or a deleted one.
    named: [Option<bool>; LENGTHS.len()],
    batches: u64,
    faults: usize,
    done: Vec<String>,
}

impl<'a> Schedule<'a> {
    fn new(devices: &'a Devices, seed: u64) -> Self {
        let capabilities = match seed % 3 {
            0 => Capabilities::all().without(Capability::ChecksumBound),
            _ => Capabilities::all(),
        };
        let mut kept = Kept::new(capabilities);
        let store = Arc::new(kept.store.clone());
        let faulty = Arc::new(Faulty::new(store.clone(), store));
        kept.http = faulty.clone();
        let files = LENGTHS.len() - usize::from(!seed.is_multiple_of(PARTS_EVERY));
        let laptop = Phone::new();
        let mut schedule = Self {
            devices,
            kept,
            faulty,
            laptop,
            random: Random(seed),
            files,
            named: [None; LENGTHS.len()],
            batches: 0,
            faults: 0,
            done: Vec::new(),
        };
        schedule.select();
        schedule
    }

    fn select(&mut self) {
        self.kept.server.authority.keep_files_at(Some(self.faulty.clone()), Vec::new());
    }

    fn step(&mut self) {
        let file = self.random.below(self.files);
        match self.random.below(10) {
            0..4 => self.carry(file, true),
            4..6 => self.carry(file, false),
            6 => self.write(file),
            7 | 8 => self.collect(),
            _ => {
                self.done.push("restart".into());
                self.kept.server.reopen();
                self.select();
            }
        }
    }

    /// A device brings or gets a file, and something may go wrong.
    fn carry(&mut self, file: usize, is_up: bool) {
        let mut wire = self.kept.wire(if is_up { "ann" } else { "bob" });
        if self.random.one_in(2) {
            let faults =
                [Fault::ReplyLost, Fault::Unreachable, Fault::PartialBody, Fault::WrongBytes];
            self.faulty.arm(faults[self.random.below(4)]);
        }
        if self.random.one_in(5) {
            wire.local.left = self.random.below(5);
        }
        wire.ended = usize::from(self.random.one_in(5));
        let (hash, content) = &self.devices.files[file];
        let phone = &self.devices.phones[self.random.below(2)];
        let ended = match is_up {
            true => up(&phone.files("main"), hash, &mut wire),
            false => down(&self.laptop.files("main"), hash, &mut wire),
        };
        self.faults += usize::from(ended.is_err());
        self.done.push(format!("{} {file}: {ended:?}", if is_up { "up" } else { "down" }));
        if ended.is_ok() && !is_up {
            assert!(bytes(&self.laptop.files("main"), hash) == *content, "I34: wrong bytes");
        }
    }

    fn write(&mut self, file: usize) {
        let hash = self.devices.files[file].0;
        let is_live = self.named[file] == Some(true);
        let action = if is_live {
            Action::Delete
        } else {
            let record = Record::new(&[("hash".into(), Value::Text(hash.to_string()))]).unwrap();
            Action::Create { record, replace: false }
        };
        self.named[file] = Some(!is_live);
        self.done.push(format!("row {file} {:?}", self.named[file]));
        self.batches += 1;
        self.kept.server.put_row(self.batches, &hash, action);
    }

    fn collect(&mut self) {
        let mut time = || Duration::from_secs(if self.random.one_in(3) { 3600 } else { 0 });
        let options = CollectOptions { staged: time(), grace: time(), ..now() };
        if self.random.one_in(3) {
            self.faulty.arm([Fault::ReplyLost, Fault::Unreachable][self.random.below(2)]);
        }
        let states = self.devices.files.iter().map(|(hash, _)| self.state(hash));
        let states: Vec<_> = states.collect();
        let fates = self.kept.collect(options);
        self.done.push(format!("collect {options:?}: {:?}", fates.values()));
        for (((hash, _), named), state) in self.devices.files.iter().zip(self.named).zip(states) {
            let goes = fates.get(hash) == Some(&Fate::Dropped);
            // One that was given away before somebody named it is brought again.
            let was_leaving = state == Some(ObjectState::Leaving);
            assert!(!goes || was_leaving || named.is_none(), "I32: a named file goes");
        }
    }

    fn state(&self, hash: &BlobHash) -> Option<ObjectState> {
        let view = self.kept.server.authority.view();
        let known = read::object(&*view, &name("main"), &sha256(hash)).unwrap();
        known.map(|object| object.state)
    }

    /// What the server says is at the store, is there and is the file.
    fn check(&self) {
        for (file, (hash, content)) in self.devices.files.iter().enumerate() {
            let is_said = |state| matches!(state, ObjectState::Stored | ObjectState::Condemned);
            let is_said = self.state(hash).is_some_and(is_said);
            let has_row = self.named[file] == Some(true);
            if has_row && self.kept.server.storage_id(hash).is_some() {
                assert!(is_said, "I31: the row of file {file} says what the server does not");
            }
            if is_said {
                let at_store = self.kept.object("main", hash);
                assert!(at_store.as_deref() == Some(&content[..]), "I31: file {file} is not there");
            }
        }
    }

    /// Nothing fails any more: whatever a record names reaches everybody, all else goes.
    fn rest(&mut self) {
        self.done.push("rest".into());
        self.faulty.disarm();
        // What was given away and is there still goes first.
        self.kept.collect(now());
        let fresh = Phone::new();
        for ((hash, content), named) in self.devices.files.iter().zip(self.named) {
            if named == Some(true) {
                let phone = self.devices.phones[0].files("main");
                // What lies there from before may have to be found wrong and deleted first.
                let bring = || up(&phone, hash, &mut self.kept.wire("ann"));
                bring().or_else(|_| bring()).expect("I31: it can be brought");
                down(&fresh.files("main"), hash, &mut self.kept.wire("bob"))
                    .expect("I31: it can be had");
                assert!(bytes(&fresh.files("main"), hash) == *content, "I34: wrong bytes");
            }
        }
        for _ in 0..3 {
            self.kept.collect(now());
        }
        self.check();
        for ((hash, _), named) in self.devices.files.iter().zip(self.named) {
            let is_gone = self.kept.object("main", hash).is_none() && self.state(hash).is_none();
            assert!(named.is_some() || is_gone, "I35: it stays: {:?}", self.state(hash));
        }
        assert_eq!(self.kept.store.open_uploads(), 0, "I35: parts stay");
    }
}

/// Says what a schedule did, if it fails.
struct Told<'a>(u64, Schedule<'a>);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("schedule {}, LASTWORD_OBJECT_START={} plays it:", self.0, self.0);
            self.1.done.iter().for_each(|step| eprintln!("  {step}"));
        }
    }
}

/// I31, I32, I34, I35, attack rows 32 to 47: uploads, downloads, rows, collections and restarts in
/// any order, while answers are lost, bodies are cut or altered, URLs end and connections break.
#[test]
fn schedules_with_an_object_store_lose_and_leak_nothing() {
    let number = |name, other| std::env::var(name).map_or(other, |n| n.parse::<u64>().unwrap());
    let first = number("LASTWORD_OBJECT_START", 0);
    let wanted = number("LASTWORD_OBJECT_SCHEDULES", 48);
    let (devices, mut faults) = (Devices::new(), 0);
    for seed in first..first + wanted {
        let mut told = Told(seed, Schedule::new(&devices, seed));
        for _ in 0..STEPS {
            told.1.step();
            told.1.check();
        }
        told.1.rest();
        faults += told.1.faults;
    }
    assert!(faults > 0 || wanted < 10, "nothing went wrong: the test proves nothing");
}
