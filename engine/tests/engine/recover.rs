//! What a restored server has lost, and gets back from the devices that still have it.

use lastword::Recovery::{Conflict, Deleted, Erased, Restored, Same};
use lastword::store::{Fault, Survival};
use lastword::{Recovery, Survivor};

use crate::site::{Phone, Site, big, note, notes};

/// Recovers what there is; what was done, by record.
fn recover(site: &mut Site) -> Vec<(String, Recovery)> {
    named(site.recover())
}

fn named(survivors: Vec<Survivor>) -> Vec<(String, Recovery)> {
    let name = |survivor: Survivor| (survivor.key.to_string(), survivor.recovery);
    survivors.into_iter().map(name).collect()
}

fn planned(site: &Site) -> Vec<(String, Recovery)> {
    named(site.survivors())
}

fn of(all: &[(&str, Recovery)]) -> Vec<(String, Recovery)> {
    all.iter().map(|(name, recovery)| ((*name).to_owned(), *recovery)).collect()
}

/// A writer and a reader that has seen everything; the server is put back to before the last part.
fn restored(lose: impl FnOnce(&mut Phone)) -> (Site, Phone, Phone) {
    let (mut site, mut writer, mut reader) = (Site::new(), Phone::new(1), Phone::new(2));
    for name in ["a", "b", "c"] {
        writer.put(name, note(&format!("{name}1")));
    }
    site.sync(&mut writer);
    site.sync(&mut reader);
    let backup = site.disk.after_power_cut(Survival::Kept);
    lose(&mut writer);
    site.sync(&mut writer);
    site.sync(&mut reader);
    site.cut(&mut writer);
    site.cut(&mut reader);
    (Site::restored(&backup, 9), writer, reader)
}

/// R4, section 6: what devices have of the lost history is kept at the server, nothing is merged by
/// itself, and a recovery writes back values, deletes and new records, for every device.
#[test]
fn what_devices_still_have_comes_back() {
    let (mut site, mut writer, mut reader) = restored(|writer| {
        writer.put("a", note("a2"));
        writer.delete("b");
        writer.put("new", note("new1"));
    });
    site.settle(&mut reader).unwrap();
    site.sync(&mut reader);
    let text = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let old = [text("a", "a1"), text("b", "b1"), text("c", "c1")];
    assert_eq!(site.rows(), old, "nothing comes back by itself");
    assert_eq!(reader.rows(&notes()), old);
    assert_eq!(planned(&site), of(&[("a", Restored), ("b", Deleted), ("new", Restored)]));
    // The other device has the same, which is kept once.
    site.settle(&mut writer).unwrap();
    site.sync(&mut writer);
    assert!(site.survivors().iter().all(|survivor| survivor.seqs.len() == 1));
    assert_eq!(recover(&mut site), of(&[("a", Restored), ("b", Deleted), ("new", Restored)]));
    assert_eq!(planned(&site), [], "they are settled");
    for phone in [&mut reader, &mut writer] {
        site.sync(phone);
        let new = [text("a", "a2"), text("c", "c1"), text("new", "new1")];
        assert_eq!(phone.rows(&notes()), new);
        assert_eq!(phone.meta().digest, site.meta().digest);
        phone.rebuilt(&mut site);
    }
    assert_eq!(site.conflicts(), 0);
    assert_eq!(reader.letters(), ["lost_by_restore"; 3], "the device keeps its own copy too");
}

/// Section 6: of several survivors of a record the one with the greatest seq of the lost history
/// counts, whoever comes first. The story: the device that came last had an older version, and its
/// value replaced the newer one.
#[test]
fn the_last_version_of_the_lost_history_counts_whoever_comes_first() {
    let (mut site, mut ahead, mut behind) = (Site::new(), Phone::new(1), Phone::new(2));
    ahead.put("a", note("a1"));
    site.sync(&mut ahead);
    let backup = site.disk.after_power_cut(Survival::Kept);
    ahead.put("a", note("a2"));
    site.sync(&mut ahead);
    site.sync(&mut behind);
    site.cut(&mut behind);
    ahead.put("a", note("a3"));
    site.sync(&mut ahead);
    site.cut(&mut ahead);
    for order in [[1, 2], [2, 1]] {
        let mut site = Site::restored(&backup, 9);
        let (mut first, mut second) = (ahead.copied(5), behind.copied(6));
        if order == [2, 1] {
            std::mem::swap(&mut first, &mut second);
        }
        for phone in [&mut first, &mut second] {
            site.settle(phone).unwrap();
            site.sync(phone);
        }
        let survivors = site.survivors();
        assert_eq!(survivors.first().map(|survivor| survivor.seqs.len()), Some(2));
        assert_eq!(recover(&mut site), of(&[("a", Restored)]));
        assert_eq!(site.rows(), [("a".to_owned(), "a3".to_owned())], "{order:?}");
    }
}

/// Section 6, R1.4: what was written since the restore stays, and what was lost becomes a conflict
/// row that every device sees; what was erased since does not come back, not even as a survivor.
#[test]
fn what_was_written_since_stays() {
    let (mut site, mut writer, mut reader) = restored(|writer| {
        writer.put("a", note("lost"));
        writer.put("b", note("same"));
        writer.put("c", note("secret"));
    });
    site.settle(&mut reader).unwrap();
    site.sync(&mut reader);
    reader.put("a", note("since"));
    reader.put("b", note("same"));
    site.sync(&mut reader);
    assert_eq!(planned(&site), of(&[("a", Conflict), ("b", Same), ("c", Restored)]));
    site.erase("c");
    assert_eq!(planned(&site), of(&[("a", Conflict), ("b", Same)]), "no copy of it is kept");
    // One that comes back with it later brings it again, and it stays erased.
    site.settle(&mut writer).unwrap();
    site.sync(&mut writer);
    assert_eq!(recover(&mut site), of(&[("a", Conflict), ("b", Same), ("c", Erased)]));
    assert_eq!((planned(&site), site.conflicts()), (Vec::new(), 1));
    site.sync(&mut reader);
    assert_eq!(reader.shows(&notes(), "a").as_deref(), Some("since"));
    assert_eq!(reader.shows(&notes(), "c"), None);
    assert_eq!(reader.meta().digest, site.meta().digest);
}

/// R1.3, section 6, trap of a reset that comes before the offer: power is cut at every operation of
/// the device's disk, and of the server's, while it goes over to the restored server. The device
/// had the only copy: it is at the server in the end, or still on the device.
#[test]
fn a_power_cut_anywhere_leaves_the_only_copy_somewhere() {
    let lost = |writer: &mut Phone| {
        for number in 0..4 {
            writer.put(&format!("n{number}"), big("only here"));
        }
    };
    let (mut site, _, mut reader) = restored(lost);
    let (begin, site_begin) = (reader.disk.operations(), site.disk.operations());
    site.sync(&mut reader);
    let operations = reader.disk.operations() - begin;
    let site_operations = site.disk.operations() - site_begin;
    let all: Vec<_> = (0..4).map(|number| (format!("n{number}"), Restored)).collect();
    for cut in 0..operations {
        let (mut site, _, mut reader) = restored(lost);
        let at = reader.disk.operations() + cut;
        reader.disk.set_fault(Some((at, Fault::PowerCut)));
        // It may get through before the power is gone.
        let _ = site.settle(&mut reader);
        reader.crash(&mut site);
        site.sync(&mut reader);
        assert_eq!(planned(&site), all, "{cut}");
    }
    for cut in 0..site_operations {
        let (mut site, _, mut reader) = restored(lost);
        let at = site.disk.operations() + cut;
        site.disk.set_fault(Some((at, Fault::PowerCut)));
        // It may get through, or the device tries again and again.
        let _ = (0..300).try_for_each(|_| site.go_on(&mut reader).map(drop));
        let mut site = site.crashed(&mut reader);
        site.sync(&mut reader);
        assert_eq!(planned(&site), all, "{cut}");
    }
}

/// 30 days after they came survivors go, as conflict rows do.
#[test]
fn survivors_end_by_themselves() {
    let (mut site, _, mut reader) = restored(|writer| {
        writer.put("a", note("a2"));
    });
    site.settle(&mut reader).unwrap();
    site.sync(&mut reader);
    assert_eq!(planned(&site), of(&[("a", Restored)]));
    site.expire(29);
    assert_eq!(planned(&site), of(&[("a", Restored)]));
    site.expire(2);
    assert_eq!(planned(&site), []);
}
