//! Fields that the server owns: it sets them, devices see them, and nobody's edit suffers.

use lastword::Error;
use lastword::core::rules::Policy;
use lastword::core::schema::{Schema, TableSchema};
use lastword::core::value::{Field, Record, Value};

use crate::site::{Phone, Site, note, notes};

fn stored(id: &str) -> Record {
    Record::new(&[("storage_id".into(), Value::Text(id.into()))]).unwrap()
}

fn storage_id(phone: &Phone, name: &str) -> Option<Value> {
    phone.row(&notes(), name).filter(|row| !row.deleted)?.record.get("storage_id")
}

fn site(policy: Policy) -> (Site, Phone, Phone) {
    let mut site = Site::new();
    let server_owned = vec!["storage_id".into()];
    let rules = TableSchema { policy, server_owned, ..TableSchema::new("id") };
    site.node().adopt(Schema::new(0, [(notes(), rules)]).unwrap()).unwrap();
    (site, Phone::new(1), Phone::new(2))
}

#[track_caller]
fn agree(site: &mut Site, phone: &mut Phone) {
    site.sync(phone);
    let (meta, seen) = (phone.meta(), site.seen_by("ann"));
    assert_eq!((meta.rows, meta.digest), (seen.rows, seen.digest));
}

/// I16, semantics 14.5, under each policy. What the server sets reaches every device, also one that
/// is new, was away or has own edits under way; those edits apply as if nothing had happened, and
/// keep what was set; a delete takes it along.
#[test]
fn what_the_server_sets_reaches_devices_and_hurts_no_edit() {
    for policy in [Policy::Arrival, Policy::ServerWins, Policy::Revision] {
        let (mut site, mut phone, mut away) = site(policy);
        phone.put("f", note("one"));
        phone.put("g", note("gone"));
        site.sync(&mut phone);
        agree(&mut site, &mut away);
        site.cut(&mut away);
        let before = phone.row(&notes(), "f").unwrap();
        for name in ["f", "g"] {
            let seq = site.set_owned(name, stored("s1"), vec![]).unwrap();
            assert_eq!(site.meta().head, seq);
            assert_eq!(site.set_owned(name, stored("s1"), vec![]).unwrap(), seq, "as it is");
            assert_eq!(site.meta().head, seq, "nothing is written");
        }
        agree(&mut site, &mut phone);
        let after = phone.row(&notes(), "f").unwrap();
        assert_eq!(storage_id(&phone, "f"), Some(Value::Text("s1".into())));
        assert_eq!((after.last, after.full, &after.fields), (before.last, before.full, &vec![]));
        let mut edited = note("edited away");
        edited.set(Field::new("storage_id", &Value::Text("mine".into())));
        away.put("f", edited);
        away.delete("g");
        agree(&mut site, &mut away);
        agree(&mut site, &mut phone);
        assert_eq!((site.conflicts(), away.letters().len()), (0, 0), "{policy}");
        for phone in [&mut phone, &mut away] {
            assert_eq!(phone.shows(&notes(), "f").as_deref(), Some("edited away"), "{policy}");
            assert_eq!(storage_id(phone, "f"), Some(Value::Text("s1".into())), "{policy}");
            assert_eq!(phone.shows(&notes(), "g"), None);
            phone.rebuilt(&mut site);
        }
        site.set_owned("f", Record::default(), vec!["storage_id".into()]).unwrap();
        agree(&mut site, &mut Phone::new(3));
        agree(&mut site, &mut phone);
        assert_eq!(storage_id(&phone, "f"), None);
    }
}

/// R1.8: a set of what is not the server's, or of a record that is not there, is an error that says
/// so, and nothing is written.
#[test]
fn a_set_that_cannot_be_is_an_error() {
    let (mut site, mut phone, _) = site(Policy::Arrival);
    phone.put("f", note("one"));
    phone.put("g", note("gone"));
    site.sync(&mut phone);
    phone.delete("g");
    site.sync(&mut phone);
    let head = site.meta().head;
    let error = site.set_owned("f", note("two"), vec![]).unwrap_err();
    assert!(matches!(&error, Error::NotServerOwned { field, .. } if field == "text"), "{error}");
    let error = site.set_owned("f", Record::default(), vec!["text".into()]).unwrap_err();
    assert!(matches!(error, Error::NotServerOwned { .. }), "{error}");
    for name in ["g", "none"] {
        let error = site.set_owned(name, stored("s"), vec![]).unwrap_err();
        assert!(matches!(error, Error::UnknownRecord { .. }), "{error}");
    }
    let big = stored(&"x".repeat(262_118));
    assert!(matches!(site.set_owned("f", big, vec![]).unwrap_err(), Error::Value(_)));
    assert_eq!(site.meta().head, head);
    assert_eq!(phone.meta().cursor, head);
    assert_eq!(site.meta().rows, phone.meta().rows);
}
