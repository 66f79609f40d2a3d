//! Members: the role counts when a batch is decided, and whoever has another one is told at once.

use lastword::StopReason;
use lastword::core::protocol::Role;
use lastword::core::protocol::replica::SyncStatus;
use lastword::node::ToLink;

use crate::site::{Phone, Site, main, note, notes};

fn live() -> (Site, Phone) {
    let (mut site, mut phone) = (Site::new(), Phone::new(1));
    site.admit(&[("ann", Role::Editor), ("bob", Role::Owner)]);
    phone.put("first", note("1"));
    site.sync(&mut phone);
    (site, phone)
}

fn messages(phone: &mut Phone) -> Vec<ToLink> {
    let wanted = std::iter::from_fn(|| phone.node().to_link()).collect::<Vec<_>>();
    assert!(wanted.iter().all(|wanted| matches!(wanted, ToLink::Message(_))));
    wanted
}

/// Two batches are on their way to the server.
fn two_pushes(site: &Site, phone: &mut Phone) -> [ToLink; 2] {
    phone.put("a", note("before"));
    phone.put("b", note("after"));
    phone.node().tell_written(site.now_ms).unwrap();
    phone.node().step(site.now_ms, 0).unwrap();
    messages(phone).try_into().unwrap_or_else(|other: Vec<_>| panic!("{} messages", other.len()))
}

/// I39, B12. In one group of the server's writer: a batch, the end of the membership, another
/// batch. The first is decided and the second is not, whatever was checked when it was queued. The
/// device is told, keeps everything, and sends the rest once its user is a member again.
#[test]
fn what_is_behind_the_end_of_a_membership_is_not_decided() {
    let (mut site, mut phone) = live();
    let [before, after] = two_pushes(&site, &mut phone);
    site.carry(&mut phone, before);
    site.admit(&[("bob", Role::Owner)]);
    site.carry(&mut phone, after);
    site.settle(&mut phone).unwrap();
    let has = |site: &Site, name: &str| site.rows().iter().any(|(key, _)| key == name);
    assert!(has(&site, "a") && !has(&site, "b"), "{:?}", site.rows());
    let SyncStatus::Stopped { why: StopReason::Forbidden, message } = phone.status() else {
        panic!("{:?}", phone.status())
    };
    assert!(message.contains("membership") && message.contains("kept"), "{message}");
    assert_eq!(phone.shows(&notes(), "b").as_deref(), Some("after"));
    assert_eq!(phone.letters(), [""; 0], "nothing was refused");
    assert_eq!(site.members(), [("bob".into(), "owner".into())]);

    // What the others write meanwhile stays unheard of.
    let head = phone.meta().cursor;
    phone.node().attach(&main(), 0).unwrap();
    site.settle(&mut phone).unwrap();
    assert!(matches!(phone.status(), SyncStatus::Stopped { .. }), "{:?}", phone.status());
    assert_eq!(phone.meta().cursor, head);

    site.admit(&[("ann", Role::Editor), ("bob", Role::Owner)]);
    site.on_published();
    phone.node().attach(&main(), 0).unwrap();
    site.sync(&mut phone);
    assert!(has(&site, "b"));
}

/// Semantics, section 4. A viewer's batches wait and are no dead letters, also those that were
/// queued as an editor's; they go as soon as the role allows it.
#[test]
fn a_lower_role_freezes_and_a_higher_one_thaws() {
    let (mut site, mut phone) = live();
    let [before, after] = two_pushes(&site, &mut phone);
    site.carry(&mut phone, before);
    site.admit(&[("ann", Role::Viewer)]);
    site.carry(&mut phone, after);
    let is_viewer = |phone: &Phone| phone.meta().role == Some(Role::Viewer);
    let is_held = |phone: &Phone| matches!(phone.status(), SyncStatus::Held { .. });
    site.until(&mut phone, |phone| is_viewer(phone) && is_held(phone)).unwrap();
    let SyncStatus::Held { why, .. } = phone.status() else { panic!("{:?}", phone.status()) };
    assert!(why.contains("viewer"), "{why}");
    assert_eq!(phone.outbox().len(), 1);
    site.admit(&[("ann", Role::Editor)]);
    let begun = site.now_ms;
    site.until(&mut phone, |phone| phone.outbox().is_empty()).unwrap();
    assert!(site.now_ms < begun + 60_000, "it did not wait for what a viewer waits");
    site.sync(&mut phone);
    assert_eq!(phone.letters(), [""; 0]);
}

/// I4. The rows say what the list says, in a workspace that is there and in one that is made later;
/// a list that says the same writes nothing, and a name that comes back has its row again.
#[test]
fn rows_say_what_the_list_says() {
    let (mut site, mut phone) = live();
    let named = |named: &[(&str, &str)]| -> Vec<(String, String)> {
        named.iter().map(|(user, role)| ((*user).into(), (*role).into())).collect()
    };
    assert_eq!(site.members(), named(&[("ann", "editor"), ("bob", "owner")]));
    let head = site.meta().head;
    site.admit(&[("bob", Role::Owner), ("ann", Role::Editor)]);
    site.sync(&mut phone);
    assert_eq!(site.meta().head, head);
    site.admit(&[("ann", Role::Editor), ("cat", Role::Viewer)]);
    site.sync(&mut phone);
    assert_eq!(site.members(), named(&[("ann", "editor"), ("cat", "viewer")]));
    assert_eq!(site.meta().head, head + 2, "bob's goes, cat's comes");
    site.admit(&[("ann", Role::Owner), ("bob", Role::Viewer)]);
    site.sync(&mut phone);
    assert_eq!(site.members(), named(&[("ann", "owner"), ("bob", "viewer")]));
    assert_eq!(phone.meta().role, Some(Role::Owner));
}
