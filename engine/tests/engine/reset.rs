//! A device that was away too long, or whose server was restored, goes on by itself.

use lastword::core::protocol::replica::SyncStatus;
use lastword::core::value::{Field, Value};
use lastword::store::Fault;

use crate::site::{Phone, Site, big, drafts, key, note, notes};

/// What readers see, never half of: the old copy or the new one.
fn pages(site: &mut Site, writer: &mut Phone) {
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        writer.put(name, big(&format!("{name}1")));
    }
    site.sync(writer);
}

/// The device has seen everything, is away, and the deletes that it misses are forgotten.
fn behind() -> (Site, Phone, Phone) {
    let (mut site, mut writer, mut away) = (Site::new(), Phone::new(1), Phone::new(2));
    pages(&mut site, &mut writer);
    site.sync(&mut away);
    away.write(|tx| tx.put_record(&drafts(), &key("d1"), note("mine")));
    site.sync(&mut away);
    site.cut(&mut away);
    writer.delete("a");
    writer.put("b", big("b2"));
    site.sync(&mut writer);
    site.purge();
    (site, writer, away)
}

/// R2, I21, section 5. A device that is behind the horizon takes everything anew: what was deleted
/// and forgotten meanwhile vanishes, tables of this device stay, what it has not sent stays on top
/// and arrives. It is catching up all the while and never stops. In the end both digests are equal.
#[test]
fn a_device_behind_the_horizon_begins_anew() {
    let (mut site, mut writer, mut away) = behind();
    away.put("c", big("mine"));
    away.put("new", note("mine"));
    assert_eq!(away.shows(&notes(), "a").as_deref(), Some("a1"));
    let mut seen = Vec::new();
    while site.go_on(&mut away).unwrap() {
        let both = (away.shows(&notes(), "a").is_some(), away.shows(&notes(), "b"));
        assert!(!matches!(away.status(), SyncStatus::Stopped { .. }), "{:?}", away.status());
        assert_eq!(away.shows(&notes(), "new").as_deref(), Some("mine"), "own writes stay");
        assert_eq!(away.shows(&drafts(), "d1").as_deref(), Some("mine"));
        seen.push(both);
    }
    seen.dedup();
    let (old, new) = ((true, Some("b1".into())), (false, Some("b2".into())));
    assert_eq!(seen, [old, new], "the new copy is there at once or not at all");
    site.sync(&mut away);
    assert_eq!(away.shows(&notes(), "c").as_deref(), Some("mine"));
    site.sync(&mut writer);
    writer.purge();
    let sums = (away.meta().rows, away.meta().digest);
    assert_eq!(sums, (site.meta().rows, site.meta().digest));
    assert_eq!(sums, (writer.meta().rows, writer.meta().digest));
    assert_eq!(away.meta().generation, 1);
    away.purge();
    assert_eq!(away.left_generation(), None, "the old copy is gone");
    assert_eq!(away.rows(&notes()), site.rows());
    away.rebuilt(&mut site);
    site.sync(&mut away);
}

/// R2, I21, I13: local rows that are written while the new copy is made are in it, whether the row
/// was there before or not, and a batch that was decided but not seen in the stream stays on top.
#[test]
fn writes_while_the_new_copy_is_made_are_in_it() {
    let (mut site, _, mut away) = behind();
    site.until(&mut away, |away| away.resets_at().is_some()).unwrap();
    away.write(|tx| {
        tx.put_record(&drafts(), &key("d1"), note("later"))?;
        tx.put_record(&drafts(), &key("d2"), note("new"))
    });
    away.put("d", big("mine"));
    assert_eq!(away.meta().generation, 0, "the old copy is still shown");
    let mut texts = Vec::new();
    while site.go_on(&mut away).unwrap() {
        texts.push(away.shows(&notes(), "d").expect("it is there"));
    }
    assert!(texts.iter().all(|text| text == "mine"), "what was written here never goes back");
    site.sync(&mut away);
    let local = [("d1".into(), "later".into()), ("d2".into(), "new".into())];
    assert_eq!(away.rows(&drafts()), local);
}

/// I21, section 5: power is cut at every operation of the device's disk while it begins anew, and
/// the line with it. It goes on from what was durable, shows the old copy or the new one and never
/// a mix, and ends with what the server has.
#[test]
fn a_power_cut_anywhere_in_a_reset_leaves_one_whole_copy() {
    let (mut site, _, mut away) = behind();
    away.put("c", big("mine"));
    away.crash(&mut site);
    let begin = away.disk.operations();
    site.sync(&mut away);
    let operations = away.disk.operations() - begin;
    assert!(operations > 10, "{operations}");
    for cut in 0..operations {
        let (mut site, _, mut away) = behind();
        away.put("c", big("mine"));
        away.crash(&mut site);
        let at = away.disk.operations() + cut;
        away.disk.set_fault(Some((at, Fault::PowerCut)));
        // It may get through before the power is gone.
        let _ = site.settle(&mut away);
        away.crash(&mut site);
        let seen = (away.shows(&notes(), "a").is_some(), away.shows(&notes(), "b").unwrap());
        assert!(seen == (true, "b1".into()) || seen == (false, "b2".into()), "{cut}: {seen:?}");
        assert_eq!(away.shows(&notes(), "c").as_deref(), Some("mine"));
        site.sync(&mut away);
        assert_eq!(away.shows(&drafts(), "d1").as_deref(), Some("mine"));
        assert_eq!(away.meta().digest, site.meta().digest);
    }
}

/// Section 5: a reset that breaks off goes on after the last page that was stored, and its first
/// pages do not come again.
#[test]
fn a_reset_goes_on_where_it_was() {
    let (mut site, _, mut away) = behind();
    site.until(&mut away, |away| away.resets_at().is_some()).unwrap();
    site.until(&mut away, |away| away.resets_at() > Some(0)).unwrap();
    let before = away.resets_at().expect("it is under way");
    away.crash(&mut site);
    assert_eq!(away.resets_at(), Some(before));
    while let Some(now) = away.resets_at() {
        assert!(now >= before, "it began again: {now} after {before}");
        assert!(site.go_on(&mut away).unwrap(), "it does not go on");
    }
    assert_eq!(away.meta().generation, 1);
    site.sync(&mut away);
}

/// Section 5, trap of a walk that checks the horizon at its start only: a record comes in the first
/// page, is deleted, and the delete is forgotten before the walk gets there. The walk begins again.
#[test]
fn a_horizon_that_passes_a_walk_begins_it_again() {
    let (mut site, mut writer, mut away) = behind();
    site.until(&mut away, |away| away.resets_at() > Some(0)).unwrap();
    site.cut(&mut away);
    writer.delete("c");
    writer.put("z", big("z1"));
    site.sync(&mut writer);
    site.purge();
    site.sync(&mut away);
    assert_eq!(away.shows(&notes(), "c"), None);
    assert!(away.meta().generation > 1, "begun again");
    assert_eq!(away.meta().digest, site.meta().digest);
    away.purge();
    assert_eq!(away.left_generation(), None, "the copy that was given up is gone too");
    site.sync(&mut away);
}

/// Section 5: a first copy that is half there when deletes are forgotten is taken anew too. The
/// story: it stopped with *behind the horizon*, and a new device could never be set up.
#[test]
fn a_first_copy_torn_by_a_purge_begins_anew() {
    let (mut site, mut writer, mut fresh) = (Site::new(), Phone::new(1), Phone::new(2));
    pages(&mut site, &mut writer);
    site.until(&mut fresh, |fresh| fresh.meta().received_to > 0).unwrap();
    assert!(fresh.shows(&notes(), "a").is_some(), "a first copy shows rows as they come");
    site.cut(&mut fresh);
    writer.delete("a");
    site.sync(&mut writer);
    site.purge();
    site.sync(&mut fresh);
    assert_eq!(fresh.shows(&notes(), "a"), None);
    assert_eq!(fresh.meta().digest, site.meta().digest);
}

/// R6, I16: a connected device hears of a horizon that moved and forgets the same tombstones, so
/// digests stay equal without a new connection; and it is not behind when it comes back later.
#[test]
fn a_connected_device_hears_of_the_horizon() {
    let (mut site, mut writer, mut other) = (Site::new(), Phone::new(1), Phone::new(2));
    writer.put("a", note("a"));
    writer.put("b", note("b"));
    site.sync(&mut writer);
    writer.delete("a");
    site.sync(&mut writer);
    site.sync(&mut other);
    let before = site.meta().digest;
    site.purge();
    assert_ne!(site.meta().digest, before);
    site.sync(&mut other);
    assert_eq!(other.meta().horizon, site.meta().horizon);
    other.purge();
    assert_eq!(other.meta().digest, site.meta().digest);
    site.cut(&mut other);
    site.sync(&mut other);
    assert_eq!(other.meta().generation, 0, "no reset");
}

/// The server is put back to a backup: what it had given after that is lost.
fn restored() -> (Site, Phone) {
    let (mut site, mut phone) = (Site::new(), Phone::new(1));
    phone.put("a", note("a1"));
    phone.put("b", note("b1"));
    site.sync(&mut phone);
    let backup = site.disk.after_power_cut(lastword::store::Survival::Kept);
    phone.put("b", note("b2"));
    site.sync(&mut phone);
    // One is decided and not yet seen in the stream, one is not sent.
    let decided = phone.put("c", note("c1"));
    site.until(&mut phone, |phone| phone.meta().decided == 4).unwrap();
    assert!(phone.outbox() == [4], "{:?}: {decided}", phone.outbox());
    site.cut(&mut phone);
    phone.put("d", note("d1"));
    phone.put("a", note("a2"));
    (Site::restored(&backup, 9), phone)
}

/// R4, I21, I4, section 6. A device of a server that was restored goes on by itself: its batches
/// are renumbered down to what the server knows of it, and what the server has lost of them,
/// decided or not, is sent again and is there once. The story: the outbox began at 5 where the
/// server expected 3, so the device was taken for a copy; entries below the last one that was gone
/// vanished.
#[test]
fn a_device_goes_on_with_a_restored_server() {
    let (mut site, mut phone) = restored();
    assert_eq!(site.meta().head % (1 << 20), 0);
    site.settle(&mut phone).unwrap();
    site.sync(&mut phone);
    let of = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let all = [of("a", "a2"), of("b", "b1"), of("c", "c1"), of("d", "d1")];
    assert_eq!(site.rows(), all);
    assert_eq!(phone.meta().written, 5, "two of before the backup, and three");
    assert_eq!((phone.meta().rows, phone.meta().digest), (site.meta().rows, site.meta().digest));
    // What the server has lost and the device had seen is kept and told.
    assert_eq!((phone.letters(), site.conflicts()), (vec!["lost_by_restore".to_owned()], 0));
    phone.rebuilt(&mut site);
    phone.put("e", note("e1"));
    site.sync(&mut phone);
}

/// I21, I17, section 6: power is cut at every operation of the device's disk while it goes over to
/// the restored server. Nothing that waits is lost or sent under a wrong counter.
#[test]
fn a_power_cut_on_the_way_to_another_history_loses_nothing() {
    let (mut site, mut phone) = restored();
    let begin = phone.disk.operations();
    site.sync(&mut phone);
    let (operations, rows) = (phone.disk.operations() - begin, site.rows());
    for cut in 0..operations {
        let (mut site, mut phone) = restored();
        let at = phone.disk.operations() + cut;
        phone.disk.set_fault(Some((at, Fault::PowerCut)));
        // It may get through before the power is gone.
        let _ = site.settle(&mut phone);
        phone.crash(&mut site);
        for (name, text) in [("c", "c1"), ("d", "d1"), ("a", "a2")] {
            assert_eq!(phone.shows(&notes(), name).as_deref(), Some(text), "{cut}");
        }
        site.sync(&mut phone);
        assert_eq!(site.rows(), rows, "{cut}");
        assert_eq!(phone.letters(), ["lost_by_restore"]);
    }
}

/// Section 6, trap of bases in a lost range: the device had seen a version that is lost, whose seq
/// is above that of another device's version which the backup has. Its next write, sent again, must
/// not count as having seen that one: the server's row stands and the conflict is told.
#[test]
fn a_base_of_a_lost_version_is_older_than_everything() {
    let (mut site, mut phone, mut other) = (Site::new(), Phone::new(1), Phone::new(2));
    phone.put("b", note("b1"));
    site.sync(&mut phone);
    site.sync(&mut other);
    other.put("b", note("theirs"));
    site.sync(&mut other);
    let backup = site.disk.after_power_cut(lastword::store::Survival::Kept);
    // What the phone sees next is lost; its base is above all that the backup knows.
    phone.put("b", note("lost"));
    site.sync(&mut phone);
    site.cut(&mut phone);
    phone.put("b", note("mine"));
    let mut site = Site::restored(&backup, 9);
    site.settle(&mut phone).unwrap();
    site.sync(&mut phone);
    assert_eq!(phone.shows(&notes(), "b").as_deref(), Some("theirs"));
    assert_eq!(site.conflicts(), 1, "what gave way is told");
}

/// Section 6: a server that was made anew knows nothing of this device's history. The device stops
/// and keeps everything, since a reset would throw away the only copy.
#[test]
fn a_server_made_anew_takes_nothing_away() {
    let (mut site, mut phone) = (Site::new(), Phone::new(1));
    for number in 0..5 {
        phone.put(&format!("n{number}"), note("mine"));
    }
    site.sync(&mut phone);
    site.cut(&mut phone);
    let (mut other, mut first) = (Site::new(), Phone::new(2));
    first.put("n", note("new"));
    other.sync(&mut first);
    let backup = other.disk.after_power_cut(lastword::store::Survival::Kept);
    drop(other);
    let mut other = Site::renamed(&backup, 7);
    other.settle(&mut phone).unwrap();
    assert!(matches!(phone.status(), SyncStatus::Stopped { .. }), "{:?}", phone.status());
    assert_eq!(phone.rows(&notes()).len(), 5);
}

/// R2, section 6. The story: the same while a new copy was being made. The device compared how far
/// that one had come, which is nowhere, took the other server for a restored one, and threw away
/// the only copy that there was.
#[test]
fn a_server_made_anew_in_a_reset_takes_nothing_away() {
    let (mut site, _, mut away) = behind();
    site.until(&mut away, |away| away.resets_at().is_some()).unwrap();
    site.cut(&mut away);
    let before = away.rows(&notes());
    let (mut other, mut first) = (Site::new(), Phone::new(3));
    first.put("n", note("new"));
    other.sync(&mut first);
    let backup = other.disk.after_power_cut(lastword::store::Survival::Kept);
    drop(other);
    let mut other = Site::renamed(&backup, 7);
    other.settle(&mut away).unwrap();
    assert!(matches!(away.status(), SyncStatus::Stopped { .. }), "{:?}", away.status());
    assert_eq!(away.rows(&notes()), before);
    // The server that it knows goes on with it.
    away.crash(&mut site);
    site.sync(&mut away);
}

/// R3, I22, I4, section 4. Two stores use one device id: the one that finds out goes on under a new
/// id, sends what waits under the same batch ids, and everything of both is there once.
#[test]
fn a_copied_device_goes_on_under_another_id() {
    let (mut site, mut phone) = (Site::new(), Phone::new(1));
    phone.put("a", note("a1"));
    site.sync(&mut phone);
    let was = phone.device();
    let mut copy = phone.copied(2);
    phone.put("b", note("original"));
    site.sync(&mut phone);
    copy.put("c", note("copy"));
    copy.put("a", note("a2"));
    site.sync(&mut copy);
    assert_ne!(copy.device(), was);
    assert_eq!(copy.meta().written, 2, "it counts its batches from 1");
    assert_eq!(copy.shows(&notes(), "a").as_deref(), Some("a2"));
    assert_eq!(copy.shows(&notes(), "c").as_deref(), Some("copy"));
    copy.rebuilt(&mut site);
    copy.put("d", note("more"));
    site.sync(&mut copy);
    // The original was fenced when the copy came, and goes on as the device it was.
    phone.crash(&mut site);
    site.sync(&mut phone);
    assert_eq!(phone.device(), was);
    assert_eq!((phone.letters(), site.conflicts()), (vec![], 0));
}

/// Section 4, trap of a fork in two frames: power is cut at every operation of the disk while the
/// copy becomes another device. What it wrote is shown all the while, never lost and never twice.
#[test]
fn a_power_cut_in_a_fork_loses_nothing() {
    let begin = || {
        let (mut site, mut phone) = (Site::new(), Phone::new(1));
        phone.put("a", note("a1"));
        site.sync(&mut phone);
        let mut copy = phone.copied(2);
        phone.put("b", note("original"));
        site.sync(&mut phone);
        copy.put("c", note("copy"));
        copy.put("c", note("copy2"));
        (site, copy)
    };
    let (mut site, mut copy) = begin();
    let before = copy.disk.operations();
    site.sync(&mut copy);
    let operations = copy.disk.operations() - before;
    for cut in 0..operations {
        let (mut site, mut copy) = begin();
        let at = copy.disk.operations() + cut;
        copy.disk.set_fault(Some((at, Fault::PowerCut)));
        // It may get through before the power is gone.
        let _ = site.settle(&mut copy);
        copy.crash(&mut site);
        assert_eq!(copy.shows(&notes(), "c").as_deref(), Some("copy2"), "{cut}");
        site.sync(&mut copy);
        assert_eq!(copy.shows(&notes(), "c").as_deref(), Some("copy2"), "{cut}");
        assert_eq!(copy.letters(), [""; 0]);
    }
}

/// Section 4, trap of a strict create: a copy that is also behind the horizon cannot know whether
/// the server has had its batches, so they become dead letters instead of being sent again. A
/// create among them would bring back a record that was deleted and forgotten since.
#[test]
fn a_copy_behind_the_horizon_sends_nothing_again() {
    let (mut site, mut phone) = (Site::new(), Phone::new(1));
    phone.put("a", note("a1"));
    site.sync(&mut phone);
    let mut copy = phone.copied(2);
    let mut twin = phone.copied(3);
    // The batch of the copy reaches the server from its twin, and is deleted and forgotten.
    twin.put("c", note("c1"));
    site.sync(&mut twin);
    twin.delete("c");
    site.sync(&mut twin);
    site.purge();
    copy.put("c", note("c1"));
    copy.put("c", note("c2"));
    site.settle(&mut copy).unwrap();
    site.sync(&mut copy);
    assert_eq!(copy.shows(&notes(), "c"), None);
    assert_eq!(copy.letters(), ["outcome_unknown"; 2]);
    copy.put("d", note("d1"));
    site.sync(&mut copy);
    assert_eq!(copy.meta().digest, site.meta().digest);
}

/// Section 4. The story: a batch that was refused leaves a hole in the counters of the outbox; when
/// the store became another device its next batch kept that distance, the server expected another
/// one, and the device was taken for a copy again.
#[test]
fn a_hole_of_a_refused_batch_is_closed_by_a_fork() {
    let (mut site, mut phone) = (Site::new(), Phone::new(1));
    phone.put("a", big("a1"));
    site.sync(&mut phone);
    // Two halves of a record that is too big as a whole; the other device has the first.
    let half = |name: &str| {
        let field = Value::Text("x".repeat(200_000));
        vec![Field::new(name, &field)]
    };
    let mut other = Phone::new(2);
    site.sync(&mut other);
    site.cut(&mut phone);
    other.write(|tx| tx.patch_record(&notes(), &key("a"), half("b"), vec!["padding".into()]));
    site.sync(&mut other);
    phone.write(|tx| tx.patch_record(&notes(), &key("a"), vec![], vec!["text".into()]));
    phone.write(|tx| tx.patch_record(&notes(), &key("a"), half("c"), vec!["padding".into()]));
    phone.put("d", note("d1"));
    site.until(&mut phone, |phone| !phone.letters().is_empty()).unwrap();
    assert_eq!(phone.letters(), ["result_too_big"]);
    let mut copy = phone.copied(3);
    phone.put("e", note("original"));
    site.settle(&mut phone).unwrap();
    copy.put("f", note("copy"));
    site.settle(&mut copy).unwrap();
    assert!(matches!(copy.status(), SyncStatus::Live { .. }), "{:?}", copy.status());
    assert_eq!(copy.outbox(), [0; 0], "nothing waits");
    assert_eq!(copy.shows(&notes(), "d").as_deref(), Some("d1"));
    assert_eq!(copy.shows(&notes(), "f").as_deref(), Some("copy"));
}

/// I4, section 4. The story: the answer to a create was lost, the device was away, and the record
/// was deleted, forgotten, and the decision with it. The server said that it had decided the batch
/// and not how; the device sent it again, was taken for a copy, and by then its new copy was whole:
/// under a new id nothing was doubtful any more, and the create brought the record back.
#[test]
fn a_batch_whose_decision_is_forgotten_is_not_sent_again() {
    let (mut site, mut phone, mut other) = (Site::new(), Phone::new(1), Phone::new(2));
    phone.put("a", note("a1"));
    site.sync(&mut phone);
    phone.put("c", note("c1"));
    // What is durable here while the answer is on its way.
    let unanswered = phone.copied(1);
    site.sync(&mut phone);
    site.cut(&mut phone);
    phone = unanswered;
    site.sync(&mut other);
    other.delete("c");
    site.sync(&mut other);
    site.forget_decisions();
    site.settle(&mut phone).unwrap();
    site.sync(&mut phone);
    assert_eq!(phone.shows(&notes(), "c"), None);
    assert_eq!(phone.letters(), ["outcome_unknown"]);
    phone.put("d", note("d1"));
    site.sync(&mut phone);
    assert_eq!(phone.meta().digest, site.meta().digest);
}

/// I4, rule 11.3. The story: a server had decided a batch, forgotten that together with the delete
/// of its record, and was then restored from a backup of that time. To the device it was another
/// history, in which counters say nothing, so it sent the batch again, and the record came back.
#[test]
fn a_decision_that_was_forgotten_before_a_restore_is_not_made_again() {
    let (mut site, mut phone, mut other) = (Site::new(), Phone::new(1), Phone::new(2));
    phone.put("a", note("a1"));
    site.sync(&mut phone);
    phone.put("c", note("c1"));
    let unanswered = phone.copied(1);
    site.sync(&mut phone);
    site.cut(&mut phone);
    phone = unanswered;
    site.sync(&mut other);
    other.delete("c");
    site.sync(&mut other);
    site.forget_decisions();
    let backup = site.disk.after_power_cut(lastword::store::Survival::Kept);
    drop(site);
    let mut site = Site::restored(&backup, 5);
    phone.put("d", note("never sent"));
    site.settle(&mut phone).unwrap();
    assert_eq!(phone.shows(&notes(), "c"), None);
    assert_eq!(phone.letters(), ["outcome_unknown"]);
    assert_eq!(phone.shows(&notes(), "d").as_deref(), Some("never sent"));
    assert_eq!(phone.outbox(), [0; 0]);
    assert_eq!(phone.meta().digest, site.meta().digest);
}
