//! A damaged device: what a salvage keeps, and what healing by itself does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastword::core::id::{Key, TableName};
use lastword::store::StoreError;
use lastword::{Database, Error, OnDamage, compact, salvage, verify};

use crate::support::{BY_THREAD, DRAFTS, Fixture, MESSAGES, Message, message, open};

/// The only segment of a small log.
fn log_of(dir: &Path) -> PathBuf {
    dir.join("db/000000000001")
}

/// Inverts the byte in the middle of the first place that holds `text`; answers where that is.
#[track_caller]
fn flip(file: &Path, text: &str) -> u64 {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at + text.len() / 2] ^= 0xff;
    fs::write(file, bytes).unwrap();
    at as u64
}

/// Without the state the rows can only come from the log.
fn remove_state(store: &Path) {
    for entry in fs::read_dir(store).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "state") {
            fs::remove_file(path).unwrap();
        }
    }
}

fn is_whole(dir: &Path) -> bool {
    let scratch = tempfile::tempdir().unwrap();
    verify(dir, scratch.path(), &mut |_, _| {}).unwrap().damages.is_empty()
}

/// A closed device with a draft and a message before, at, and behind the place to be damaged.
fn written() -> tempfile::TempDir {
    let Fixture { dir, ws, db } = Fixture::new();
    for part in ["early", "middle", "late"] {
        ws.write(|tx| tx.put(DRAFTS, &message(&format!("{part}-draft"), "t1", 1))).unwrap();
        ws.write(|tx| tx.put(MESSAGES, &message(&format!("{part}-message"), "t1", 1))).unwrap();
    }
    ws.write(|tx| tx.update(DRAFTS, "middle-draft", |draft| draft.index = 9)).unwrap();
    drop(ws);
    db.close().unwrap();
    dir
}

fn database(dir: &Path) -> Database {
    Database::builder().tables((MESSAGES, DRAFTS)).index(BY_THREAD).open(dir).unwrap()
}

/// B1, I7, R1.2. What a device alone has is saved from behind the damage: drafts are there again,
/// batches that no server decided are dead letters with their ops, and a change of a record that is
/// lost is counted.
#[test]
fn what_a_device_alone_has_is_saved_from_behind_the_damage() {
    let dir = written();
    let (data, to) = (dir.path().join("db"), dir.path().join("new"));
    remove_state(&dir.path().join("db"));
    let at = flip(&log_of(dir.path()), "body of middle-draft");
    let error = salvage(&data, &to, false).unwrap_err().to_string();
    assert!(error.contains("1 batch of workspace main") && error.contains("--drop-outbox"));
    assert!(!to.exists() && !dir.path().join("new.salvaging").exists());

    let salvaged = salvage(&data, &to, true).unwrap();
    let [loss] = salvaged.losses.as_slice() else { panic!("{salvaged:?}") };
    assert_eq!(loss.file.as_deref(), Some(log_of(dir.path()).as_path()));
    assert!(loss.offset < at && loss.offset + 400 > at, "{loss:?} {at}");
    assert!(salvaged.taken.end < salvaged.taken.was_end && !salvaged.taken.from_state);
    let behind = &salvaged.behind;
    assert_eq!((behind.local_ops, behind.lost_ops), (1, 1), "{behind:?}");
    assert_eq!((salvaged.dropped_batches, behind.dead_letters), (1, 2), "{salvaged:?}");

    let db = database(&to);
    assert_eq!(salvaged.device.map(|(_, now)| now), Some(db.device()));
    let ws = db.workspace("main").unwrap();
    for (key, is_there) in [("early-draft", true), ("middle-draft", false), ("late-draft", true)] {
        assert_eq!(ws.get(DRAFTS, key).unwrap().is_some(), is_there, "{key}");
    }
    let letters = ws.dead_letters().unwrap();
    let mut records: Vec<_> = letters.iter().flat_map(|letter| letter.records.clone()).collect();
    records.sort();
    assert_eq!(
        records,
        ["messages/early-message", "messages/late-message", "messages/middle-message"]
    );
    assert!(letters.iter().all(|letter| letter.code == "salvaged"), "{letters:?}");
    let (lines, _) = db.log(0, 1000).unwrap();
    for key in ["early", "middle", "late"] {
        let create = format!("create messages/{key}-message");
        assert!(lines.iter().any(|line| line.text.contains(&create)), "{create} in {lines:?}");
    }
    drop(ws);
    db.close().unwrap();
    assert!(is_whole(&to));
    let again = salvage(&to, &dir.path().join("again"), false).unwrap();
    assert!(again.losses.is_empty() && again.behind == Default::default(), "{again:?}");
    assert_eq!(
        database(&dir.path().join("again"))
            .workspace("main")
            .unwrap()
            .dead_letters()
            .unwrap()
            .len(),
        3
    );
}

/// Sends every unit of dead letters again.
fn retry_all(ws: &lastword::Workspace) {
    let units = ws.dead_letters().unwrap().into_iter().map(|letter| letter.unit);
    for unit in units.collect::<std::collections::BTreeSet<_>>() {
        ws.retry_dead_letter(unit).unwrap();
    }
    assert_eq!(ws.dead_letters().unwrap(), []);
    assert_eq!(ws.count(&MESSAGES.all()).unwrap(), 3);
}

/// B1, I19. Dead letters of a salvage are sent again, and stand behind another damage then: what
/// was sent is a dead letter again, once, and the rows that it took the place of do not come back.
#[test]
fn what_was_sent_again_is_saved_from_behind_the_damage() {
    let dir = written();
    let [data, to, again] = ["db", "new", "again"].map(|name| dir.path().join(name));
    remove_state(&data);
    flip(&log_of(dir.path()), "body of middle-draft");
    salvage(&data, &to, true).unwrap();
    let db = database(&to);
    let ws = db.workspace("main").unwrap();
    retry_all(&ws);
    drop(ws);
    db.close().unwrap();

    remove_state(&to);
    let logs = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
    let holds = |path: &PathBuf| {
        let (bytes, text) = (fs::read(path).unwrap(), b"body of early-draft");
        path.is_file() && bytes.windows(text.len()).any(|window| window == text)
    };
    let log = logs.filter(|path| path.is_file()).find(holds).unwrap();
    flip(&log, "body of early-draft");
    let salvaged = salvage(&to, &again, true).unwrap();
    assert_eq!((salvaged.behind.dead_letters, salvaged.behind.kept_letters), (3, 0));
    let ws = database(&again).workspace("main").unwrap();
    assert_eq!(ws.dead_letters().unwrap().len(), 3);
    retry_all(&ws);
}

/// B1, R1.2. The log was damaged before the place from which the state goes on: the salvaged store
/// took the damage along and said that nothing was lost. Every row is there, the loss of history is
/// told, the ops of what waits are in the log again, and the new store is whole.
#[test]
fn a_whole_state_saves_everything_but_history() {
    let dir = written();
    let (data, to) = (dir.path().join("db"), dir.path().join("new"));
    flip(&log_of(dir.path()), "body of middle-message");
    let salvaged = salvage(&data, &to, true).unwrap();
    assert!(salvaged.taken.from_state, "{salvaged:?}");
    assert_eq!((salvaged.losses.len(), salvaged.dropped_batches), (1, 3), "{salvaged:?}");
    let db = database(&to);
    let ws = db.workspace("main").unwrap();
    assert_eq!(ws.get(DRAFTS, "middle-draft").unwrap().unwrap().index, 9);
    assert_eq!(ws.dead_letters().unwrap().len(), 3);
    let (lines, _) = db.log(0, 1000).unwrap();
    let create = "create messages/middle-message";
    assert!(lines.iter().any(|line| line.text.contains(create)), "{lines:?}");
    drop(ws);
    db.close().unwrap();
    assert!(is_whole(&to));
}

/// I7, B1. The log was damaged before the place from which the whole state goes on. Opening the
/// database with other indexes threw the state away before the damage was met, so every record was
/// gone. It is refused and the state stays; versions behind the damage are named as damaged,
/// records are read and written, and a fold takes the damage away.
#[test]
fn damage_of_the_history_leaves_the_records() {
    let Fixture { dir, ws, db } = Fixture::new();
    let data = dir.path().join("db");
    let put = |number: i64, body: &str| {
        let draft = Message { body: body.repeat(3_000), ..message("draft", "t1", number) };
        ws.write(|tx| tx.put(DRAFTS, &draft)).unwrap();
    };
    put(1, "old");
    put(2, "new");
    drop(ws);
    db.close().unwrap();
    let at = flip(&log_of(dir.path()), "oldold");
    let names = |error: &Error| {
        let Error::Store(StoreError::Damaged { file: 1, offset, .. }) = error else { return false };
        *offset < at && offset + 400 > at && error.to_string().contains("`lastword salvage`")
    };
    let other = Database::builder().tables((MESSAGES, DRAFTS)).open(&data);
    assert!(names(&other.err().expect("the log cannot be folded")));
    assert!(names(&compact(&data, Duration::ZERO, true).unwrap_err()));
    let db = opens(dir.path(), OnDamage::Heal).unwrap();
    assert!(db.healed().is_none(), "records are whole: nothing is to be healed");
    let ws = db.workspace("main").unwrap();
    let (table, key) = (TableName::new("drafts").unwrap(), Key::new("draft").unwrap());
    assert!(names(&ws.record_history(&table, &key).unwrap_err()));
    ws.write(|tx| tx.update(DRAFTS, "draft", |draft| draft.index = 3)).unwrap();
    drop(ws);
    db.close().unwrap();
    assert!(!is_whole(&data));
    assert!(compact(&data, Duration::ZERO, false).unwrap().folded);
    assert!(is_whole(&data));
    let ws = Database::builder().tables((MESSAGES, DRAFTS)).open(&data).unwrap();
    let ws = ws.workspace("main").unwrap();
    assert_eq!(ws.get(DRAFTS, "draft").unwrap().unwrap().index, 3);
}

/// B1, B3. Dead letters held the damaged part of the log in a store that was salvaged from its
/// state: it was never whole again. They stay with the ops that can be read, and the log before
/// them goes.
#[test]
fn dead_letters_do_not_hold_a_damaged_log() {
    let dir = written();
    remove_state(&dir.path().join("db"));
    let first = dir.path().join("first");
    salvage(&dir.path().join("db"), &first, true).unwrap();
    flip(&first.join("000000000001"), "body of middle-draft");
    let to = dir.path().join("new");
    let salvaged = salvage(&first, &to, false).unwrap();
    assert!(salvaged.taken.from_state && salvaged.losses.len() == 1, "{salvaged:?}");
    let db = database(&to);
    let ws = db.workspace("main").unwrap();
    assert_eq!(ws.dead_letters().unwrap().len(), 3);
    let (lines, _) = db.log(0, 1000).unwrap();
    for key in ["early", "middle", "late"] {
        let create = format!("create messages/{key}-message");
        assert!(lines.iter().any(|line| line.text.contains(&create)), "{create} in {lines:?}");
    }
    assert_eq!((ws.waiting().unwrap(), salvaged.behind), (0, Default::default()));
    drop(ws);
    db.close().unwrap();
    assert!(is_whole(&to));
}

/// B1. The first frame, which says whose the store is, cannot be read: what a device alone has is
/// saved all the same.
#[test]
fn a_device_whose_first_frame_is_damaged_keeps_its_drafts() {
    let dir = written();
    remove_state(&dir.path().join("db"));
    let mut bytes = fs::read(log_of(dir.path())).unwrap();
    bytes[128 + 30] ^= 1;
    fs::write(log_of(dir.path()), bytes).unwrap();
    let db = opens(dir.path(), OnDamage::Heal).unwrap();
    let salvaged = db.healed().unwrap().salvaged.as_ref().unwrap();
    assert_eq!((salvaged.taken.end, salvaged.losses[0].offset), (0, 128), "{salvaged:?}");
    let ws = db.workspace("main").unwrap();
    assert_eq!(ws.get(DRAFTS, "middle-draft").unwrap().unwrap().index, 9);
    assert_eq!(ws.dead_letters().unwrap().len(), 3);
}

/// I7, B1. A log that was cut before the place that the state had reached could not be salvaged.
#[test]
fn a_log_that_was_cut_is_salvaged_from_the_state() {
    let dir = written();
    let log = log_of(dir.path());
    let len = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(len / 2 / 8 * 8).unwrap();
    let to = dir.path().join("new");
    let salvaged = salvage(&dir.path().join("db"), &to, true).unwrap();
    assert!(salvaged.taken.from_state && !salvaged.losses.is_empty(), "{salvaged:?}");
    let ws = database(&to).workspace("main").unwrap();
    assert!(ws.get(DRAFTS, "late-draft").unwrap().is_some());
    assert_eq!(ws.dead_letters().unwrap().len(), 3);
}

/// B1. A store that another process has open is left alone, and its process is named.
#[test]
fn an_open_store_is_not_salvaged() {
    let fixture = Fixture::new();
    let error = salvage(&fixture.dir.path().join("db"), &fixture.dir.path().join("new"), true);
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&format!("open in process {}", std::process::id())), "{error}");
    drop(fixture.ws);
    fixture.db.close().unwrap();
    open(fixture.dir.path()).close().unwrap();
}

fn opens(dir: &Path, on_damage: OnDamage) -> Result<Database, Error> {
    let builder = Database::builder().tables((MESSAGES, DRAFTS)).index(BY_THREAD);
    builder.on_damage(on_damage).open(dir.join("db"))
}

/// Directories beside the database, without their times.
fn beside(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.iter().map(|name| name.split('-').next().unwrap().to_owned()).collect()
}

/// B1, I15. A device that asks for it goes on with what can be read: records from before the
/// damage are there and still wait for the server, drafts from behind it too, what else was there
/// is a dead letter, and the report names the place. The damaged directory is kept.
#[test]
fn a_damaged_device_heals_if_it_may() {
    let dir = written();
    remove_state(&dir.path().join("db"));
    let at = flip(&log_of(dir.path()), "body of middle-draft");
    let Err(error) = opens(dir.path(), OnDamage::Refuse) else { panic!("it is damaged") };
    assert!(error.to_string().contains("file 1 is damaged at byte"), "{error}");
    assert_eq!(beside(dir.path()), ["db"]);
    // What an earlier process left behind when it ended is in nobody's way.
    fs::create_dir(dir.path().join("db.healing")).unwrap();
    fs::create_dir(dir.path().join("db.healed")).unwrap();

    let db = opens(dir.path(), OnDamage::Heal).unwrap();
    let report = db.healed().expect("it was healed");
    assert_eq!(report.damage, error.to_string());
    let salvaged = report.salvaged.as_ref().unwrap();
    let loss = &salvaged.losses[0];
    assert!(loss.offset < at && loss.offset + 400 > at, "{loss:?} {at}");
    assert_eq!((salvaged.sent_again, salvaged.behind.dead_letters), (1, 2), "{salvaged:?}");
    assert_eq!(beside(dir.path()), ["db", "db.damaged"]);
    let damaged_dir = report.damaged_dir.clone().unwrap();
    assert_eq!(loss.file, Some(damaged_dir.join("000000000001")));
    assert!(damaged_dir.join("000000000001").exists());
    assert_eq!(salvaged.device.map(|(_, now)| now), Some(db.device()));

    let ws = db.workspace("main").unwrap();
    let early = ws.get(MESSAGES, "early-message").unwrap().unwrap();
    assert!(early.is_pending() && ws.query(&BY_THREAD.prefix("t1")).unwrap().len() == 1);
    for (key, is_there) in [("early-draft", true), ("middle-draft", false), ("late-draft", true)] {
        assert_eq!(ws.get(DRAFTS, key).unwrap().is_some(), is_there, "{key}");
    }
    assert_eq!((ws.dead_letters().unwrap().len(), ws.waiting().unwrap()), (2, 1));
    drop((ws, early));
    db.close().unwrap();
    drop(db);
    let db = opens(dir.path(), OnDamage::Heal).unwrap();
    assert!(db.healed().is_none() && db.open_report().clean, "{:?}", db.open_report());
    db.close().unwrap();
    assert!(is_whole(&dir.path().join("db")));
}

/// I7. A process that was healing ended between moving the damaged directory aside and moving the
/// healed one there: the next open finishes, or says where everything is; it never begins an empty
/// store in that place.
#[test]
fn healing_that_was_cut_short_is_finished() {
    let dir = written();
    let data = dir.path().join("db");
    fs::create_dir(dir.path().join("db.damaged-17")).unwrap();
    fs::rename(&data, dir.path().join("db.healed")).unwrap();
    let Err(error) = opens(dir.path(), OnDamage::Refuse) else { panic!("it is not there") };
    assert!(matches!(error, Error::HealUnfinished { .. }), "{error}");
    assert!(error.to_string().contains("db.healed holds what could be saved"), "{error}");
    assert!(!data.exists());
    let db = opens(dir.path(), OnDamage::Heal).unwrap();
    let report = db.healed().unwrap();
    assert_eq!(report.damaged_dir, Some(dir.path().join("db.damaged-17")));
    assert!(report.salvaged.is_none());
    assert_eq!(
        db.workspace("main").unwrap().get(DRAFTS, "middle-draft").unwrap().unwrap().index,
        9
    );
    assert_eq!(beside(dir.path()), ["db", "db.damaged"]);
}

/// B1. Where nothing can be read, the error names the damage and why healing failed, and the
/// directory stays as it was. What is not damage is not healed.
#[test]
fn what_cannot_be_healed_stays_as_it_was() {
    let dir = written();
    remove_state(&dir.path().join("db"));
    let before = fs::read(log_of(dir.path())).unwrap();
    // The header, and with it all there is.
    let mut bytes = before.clone();
    bytes[20] ^= 1;
    fs::write(log_of(dir.path()), &bytes).unwrap();
    let Err(error) = opens(dir.path(), OnDamage::Heal) else { panic!("nothing can be read") };
    assert!(matches!(error, Error::NotHealed { .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains("damaged") && told.contains("nothing can be salvaged"), "{told}");
    assert_eq!(fs::read(log_of(dir.path())).unwrap(), bytes);
    assert_eq!(beside(dir.path()), ["db"]);

    fs::write(log_of(dir.path()), &before).unwrap();
    let held = opens(dir.path(), OnDamage::Heal).unwrap();
    assert!(held.healed().is_none());
    assert!(matches!(opens(dir.path(), OnDamage::Heal), Err(Error::Lock(_))));
    assert_eq!(beside(dir.path()), ["db"]);
}
