//! Tables that are private to a user: what reaches whose devices, and what is refused.

use lastword::Recovery;
use lastword::core::id::TableName;
use lastword::core::rules::Policy;
use lastword::core::schema::{Schema, TableSchema};
use lastword::core::value::{Field, Record, Value};
use lastword::store::payload::{Erasure, Payload};
use lastword::store::{Survival, keys, read};

use crate::site::{Phone, Site, big, key, main, note, notes};

fn inbox() -> TableName {
    TableName::new("inbox").unwrap()
}

fn schema(policy: Policy) -> Schema {
    let private_by = Some("user".into());
    let inbox_rules = TableSchema { policy, private_by, ..TableSchema::new("id") };
    Schema::new(0, [(notes(), TableSchema::new("id")), (inbox(), inbox_rules)]).unwrap()
}

/// A record of the inbox of `user`.
fn of(user: &str, mut record: Record) -> Record {
    record.set(Field::new("user", &Value::Text(user.into())));
    record
}

fn put(phone: &mut Phone, name: &str, record: Record) {
    phone.write(|tx| tx.put_record(&inbox(), &key(name), record));
}

/// Two devices of ann, one of bob.
fn members(policy: Policy) -> (Site, [Phone; 3]) {
    let mut site = Site::new();
    let mut phones = [Phone::new(1), Phone::new(2), Phone::new(3)];
    phones[2].user = "bob";
    site.node().adopt(schema(policy)).unwrap();
    for phone in &mut phones {
        site.sync(phone);
    }
    (site, phones)
}

/// I16, I38: a device that has caught up holds what the server shows its user, and nothing else in
/// any row that it stores.
#[track_caller]
fn holds_its_own(site: &mut Site, phone: &mut Phone, others: &str) {
    site.sync(phone);
    let (meta, user) = (phone.meta(), phone.user);
    let seen = lastword::Seen { rows: meta.rows, digest: meta.digest };
    assert_eq!(seen, site.seen_by(user), "{user}");
    let prefix = keys::rows_prefix(&main(), meta.generation);
    let view = phone.node().view();
    read::visit_stored(&*view, &prefix, &keys::prefix_end(&prefix), &mut |table, key, stored| {
        let shows = |value: &Value| format!("{value:?}").contains(others);
        let entries = stored.row.record.to_entries().unwrap();
        let shown = table.as_str() != "_devices" && entries.iter().any(|(_, v)| shows(v));
        assert!(!shown, "{user} has {table}/{key}: {entries:?}");
    })
    .unwrap();
}

/// I38, B1, semantics 5, under each policy. What ann writes into a table that is private by user
/// reaches her other device and never one of bob, whether his was there or begins anew; neither do
/// its edits, its delete, what is erased or conflicts about it. Rows and digests agree per user.
#[test]
fn what_is_private_reaches_the_devices_of_its_user_only() {
    for policy in [Policy::Arrival, Policy::ServerWins, Policy::Revision] {
        let (mut site, [mut ann, mut pad, mut bob]) = members(policy);
        ann.put("shared", note("for all"));
        put(&mut ann, "a", of("ann", note("secret of ann")));
        put(&mut ann, "gone", of("ann", note("secret of ann")));
        put(&mut bob, "b", of("bob", note("secret of bob")));
        for phone in [&mut ann, &mut bob, &mut pad] {
            site.sync(phone);
        }
        // Both devices of ann edit unseen: a conflict, of ann alone.
        site.cut(&mut ann);
        site.cut(&mut pad);
        put(&mut ann, "a", of("ann", note("secret of ann, 1")));
        put(&mut pad, "a", of("ann", note("secret of ann, 2")));
        ann.write(|tx| tx.delete_record(&inbox(), &key("gone")));
        for phone in [&mut ann, &mut pad, &mut bob] {
            site.sync(phone);
        }
        assert_eq!(site.conflicts(), 1, "{policy}");
        let mut late = Phone::new(4);
        late.user = "bob";
        for phone in [&mut ann, &mut pad] {
            holds_its_own(&mut site, phone, "bob");
            assert_eq!(phone.rows(&inbox()).len(), 1, "{policy}");
            assert!(phone.row(&inbox(), "gone").unwrap().deleted, "{policy}");
            assert_eq!(phone.conflicts(), 1);
            phone.rebuilt(&mut site);
        }
        for phone in [&mut bob, &mut late] {
            holds_its_own(&mut site, phone, "ann");
            assert_eq!(phone.rows(&inbox()), [("b".into(), "secret of bob".into())]);
            assert_eq!(phone.row(&inbox(), "gone"), None);
            assert_eq!(phone.conflicts(), 0);
        }
        let records = vec![(inbox(), key("a")), (inbox(), key("b"))];
        let first_seq = site.meta().head + 1;
        let frame = Erasure { workspace: main(), first_seq, time_ms: 0, records };
        site.append(&Payload::Erasure(frame));
        holds_its_own(&mut site, &mut pad, "bob");
        holds_its_own(&mut site, &mut bob, "ann");
        for (phone, name) in [(&pad, "a"), (&bob, "b")] {
            assert!(phone.row(&inbox(), name).unwrap().is_erased(), "{policy}");
        }
        assert_eq!(bob.row(&inbox(), "a"), None);
    }
}

/// I38, B1, semantics 5: whose a record is never changes, and nobody writes another's. The batch is
/// refused, so it becomes a dead letter of the device that wrote it, and tells it nothing.
#[test]
fn a_write_to_a_record_of_another_user_is_refused() {
    let (mut site, [mut ann, mut pad, mut bob]) = members(Policy::Arrival);
    put(&mut ann, "a", of("ann", note("secret of ann")));
    put(&mut ann, "dead", of("ann", note("secret of ann")));
    site.sync(&mut ann);
    ann.write(|tx| tx.delete_record(&inbox(), &key("dead")));
    site.sync(&mut ann);
    let before = site.seen_by("ann");
    put(&mut bob, "a", of("bob", note("mine")));
    put(&mut bob, "dead", of("bob", note("mine")));
    put(&mut bob, "new", of("ann", note("for ann")));
    put(&mut bob, "nobody", note("whose?"));
    put(&mut ann, "a", of("bob", note("yours")));
    put(&mut bob, "b", of("bob", note("fine")));
    site.sync(&mut ann);
    holds_its_own(&mut site, &mut bob, "ann");
    assert_eq!(bob.letters(), ["policy"; 4]);
    assert_eq!(ann.letters(), ["policy"]);
    assert_eq!(bob.rows(&inbox()), [("b".into(), "fine".into())]);
    assert_eq!(site.conflicts(), 0);
    assert_eq!(site.seen_by("ann"), before);
    holds_its_own(&mut site, &mut pad, "bob");
}

/// I20, semantics 5 (a trap of the design): pages of which a device sees nothing move it on all the
/// same, also when there are many, so it does not ask for them for ever.
#[test]
fn pages_of_others_move_a_device_on() {
    let (mut site, [mut ann, _, mut bob]) = members(Policy::Arrival);
    bob.put("shared", note("for all"));
    site.sync(&mut bob);
    site.cut(&mut bob);
    for n in 0..12 {
        put(&mut ann, &format!("a{n}"), of("ann", big("secret of ann")));
    }
    site.sync(&mut ann);
    holds_its_own(&mut site, &mut bob, "ann");
    assert_eq!(bob.meta().rows, 1);
    // Live, with nothing in between.
    put(&mut ann, "live", of("ann", note("secret of ann")));
    site.sync(&mut ann);
    holds_its_own(&mut site, &mut bob, "ann");
}

/// I21, I38, semantics 5. A device that has only read gets the token of another user: it takes the
/// workspace anew, once, and what it holds then is what that user sees.
#[test]
fn a_device_of_another_user_begins_anew() {
    let (mut site, [mut ann, _, mut bob]) = members(Policy::Revision);
    ann.put("shared", note("for all"));
    put(&mut ann, "a", of("ann", note("secret of ann")));
    put(&mut bob, "b", of("bob", note("secret of bob")));
    site.sync(&mut ann);
    site.sync(&mut bob);
    let mut lent = Phone::new(4);
    for (user, other, generation) in [("bob", "ann", 0), ("ann", "bob", 1), ("bob", "ann", 2)] {
        lent.user = user;
        site.cut(&mut lent);
        holds_its_own(&mut site, &mut lent, other);
        assert_eq!((lent.meta().rows, lent.meta().generation), (2, generation));
        // The same user again is no reason, and neither is a restart.
        lent.crash(&mut site);
        holds_its_own(&mut site, &mut lent, other);
        assert_eq!(lent.meta().generation, generation);
        lent.rebuilt(&mut site);
        lent.purge();
    }
}

/// I21, I38: where a table becomes private that everybody had, other users' records leave each
/// device, in one step, and what it has not sent stays on top; a crash on the way changes nothing.
#[test]
fn a_table_that_becomes_private_leaves_the_devices_of_others() {
    let (mut site, mut ann, mut bob) = (Site::new(), Phone::new(1), Phone::new(2));
    bob.user = "bob";
    for n in 0..6 {
        put(&mut ann, &format!("a{n}"), of("ann", big("secret of ann")));
    }
    put(&mut bob, "b", of("bob", big("secret of bob")));
    site.sync(&mut ann);
    site.sync(&mut bob);
    site.sync(&mut ann);
    assert_eq!((ann.rows(&inbox()).len(), bob.rows(&inbox()).len()), (7, 7));
    site.cut(&mut ann);
    site.cut(&mut bob);
    site.node().adopt(schema(Policy::Arrival)).unwrap();
    put(&mut bob, "b", of("bob", note("edited by bob")));
    put(&mut bob, "a0", of("bob", note("taken by bob")));
    site.until(&mut ann, |ann| ann.resets_at().is_some_and(|at| at > 0)).unwrap();
    ann.crash(&mut site);
    assert!(ann.resets_at().is_some_and(|at| at > 0), "it goes on where it was");
    let mut seen = Vec::new();
    while site.go_on(&mut ann).unwrap() {
        seen.push(ann.rows(&inbox()).len());
    }
    seen.dedup();
    assert_eq!(seen, [7, 6], "the new copy is there at once or not at all");
    holds_its_own(&mut site, &mut ann, "bob");
    holds_its_own(&mut site, &mut bob, "ann");
    assert_eq!(bob.rows(&inbox()), [("b".into(), "edited by bob".into())]);
    assert_eq!(bob.letters(), ["policy"]);
    assert_eq!((ann.meta().generation, bob.meta().generation), (1, 1));
    bob.purge();
    assert_eq!(bob.left_generation(), None);
}

/// I38, section 6: what a restored server lost of a private table comes back from devices of its
/// user, and a conflict about it is that user's. The story of the second part: what was said of a
/// record that names no user was shown to everybody.
#[test]
fn survivors_of_a_private_table_stay_their_users() {
    let (mut site, [mut ann, mut pad, mut bob]) = members(Policy::Arrival);
    put(&mut ann, "a", of("ann", note("secret of ann")));
    for phone in [&mut ann, &mut pad, &mut bob] {
        site.sync(phone);
    }
    let backup = site.disk.after_power_cut(Survival::Kept);
    put(&mut ann, "a", of("ann", note("secret of ann, lost")));
    put(&mut ann, "new", of("ann", note("secret of ann, too")));
    for phone in [&mut ann, &mut pad, &mut bob] {
        site.sync(phone);
        site.cut(phone);
    }
    let mut site = Site::restored(&backup, 9);
    site.settle(&mut pad).unwrap();
    site.sync(&mut pad);
    put(&mut pad, "a", of("ann", note("secret of ann, since")));
    site.sync(&mut pad);
    let done: Vec<Recovery> = site.recover().into_iter().map(|found| found.recovery).collect();
    assert_eq!(done, [Recovery::Conflict, Recovery::Restored]);
    for phone in [&mut ann, &mut pad] {
        site.settle(phone).unwrap();
        holds_its_own(&mut site, phone, "secret of bob");
        assert_eq!(phone.conflicts(), 1);
    }
    site.settle(&mut bob).unwrap();
    holds_its_own(&mut site, &mut bob, "secret of ann");

    let (mut site, mut ann, mut bob) = (Site::new(), Phone::new(1), Phone::new(2));
    bob.user = "bob";
    put(&mut ann, "x", note("of nobody"));
    site.sync(&mut ann);
    site.sync(&mut bob);
    site.cut(&mut bob);
    let backup = site.disk.after_power_cut(Survival::Kept);
    put(&mut ann, "x", note("of nobody, lost"));
    site.sync(&mut ann);
    site.cut(&mut ann);
    let mut site = Site::restored(&backup, 9);
    put(&mut bob, "x", note("of nobody, since"));
    for phone in [&mut bob, &mut ann] {
        site.settle(phone).unwrap();
        site.sync(phone);
    }
    site.node().adopt(schema(Policy::Arrival)).unwrap();
    let done: Vec<Recovery> = site.recover().into_iter().map(|found| found.recovery).collect();
    assert_eq!(done, [Recovery::Conflict]);
    for phone in [&mut ann, &mut bob] {
        site.cut(phone);
        site.settle(phone).unwrap();
        holds_its_own(&mut site, phone, "of nobody");
    }
}

/// I38, section 6. The story that a filter prevents: bob has a row of ann from before its table was
/// private, the server lost it, and what bob offers would come back as if ann had brought it.
#[test]
fn what_others_offer_of_a_private_row_is_not_kept() {
    let (mut site, mut ann, mut bob) = (Site::new(), Phone::new(1), Phone::new(2));
    bob.user = "bob";
    put(&mut ann, "x", of("ann", note("of ann")));
    site.sync(&mut ann);
    let backup = site.disk.after_power_cut(Survival::Kept);
    put(&mut ann, "x", of("ann", note("of ann, lost")));
    for phone in [&mut ann, &mut bob] {
        site.sync(phone);
    }
    for phone in [&mut ann, &mut bob] {
        site.cut(phone);
    }
    let mut site = Site::restored(&backup, 9);
    site.node().adopt(schema(Policy::Arrival)).unwrap();
    site.settle(&mut bob).unwrap();
    assert_eq!(site.survivors(), []);
    site.settle(&mut ann).unwrap();
    assert_eq!(site.survivors().len(), 1);
}
