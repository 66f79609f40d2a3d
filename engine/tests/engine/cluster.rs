//! The cluster in which apps test their sync.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lastword::core::protocol::Role;
use lastword::core::protocol::replica::SyncStatus;
use lastword::core::stamp::Decision;
use lastword::testing::{Cluster, Device, Way};
use lastword::{Database, Error, Settled, Workspace, hook};

use crate::support::{BY_THREAD, DRAFTS, MESSAGES, message};

fn cluster() -> Cluster {
    Cluster::with(Database::builder().tables((MESSAGES, DRAFTS)).index(BY_THREAD))
}

fn put(workspace: &Workspace, id: &str) {
    workspace.write(|tx| tx.put(MESSAGES, &message(id, "t1", 1))).unwrap();
}

fn two(cluster: &mut Cluster) -> (Device, Workspace, Device, Workspace) {
    let (a, b) = (cluster.device("ann").unwrap(), cluster.device("bob").unwrap());
    let (on_a, on_b) = (a.workspace("acme").unwrap(), b.workspace("acme").unwrap());
    (a, on_a, b, on_b)
}

/// B11. A failure that a test finds must come again: ids, times and order are the same in each run.
#[test]
fn two_runs_are_the_same() {
    let run = || {
        let mut cluster = cluster();
        let (a, on_a, _, on_b) = two(&mut cluster);
        put(&on_a, "m1");
        cluster.settle().unwrap();
        cluster.hold(&a, Way::Down);
        put(&on_a, "m2");
        cluster.settle().unwrap();
        cluster.cut(&a).unwrap();
        cluster.release(&a);
        on_b.write(|tx| tx.update(MESSAGES, "m1", |message| message.index = 7)).unwrap();
        cluster.settle().unwrap();
        cluster.assert_equal();
        let backup = cluster.backup_server();
        put(&on_a, "m3");
        cluster.settle().unwrap();
        cluster.restore_server(&backup).unwrap();
        cluster.settle().unwrap();
        assert!(on_b.get(MESSAGES, "m3").unwrap().is_none(), "the backup does not have it");
        cluster.assert_equal();
        let history = on_b.history(MESSAGES, "m2").unwrap();
        let lost = format!("{:?}", on_b.dead_letters().unwrap());
        (on_a.status().unwrap(), a.id(), format!("{history:?}"), lost, cluster.now_ms())
    };
    assert_eq!(run(), run());
}

/// B13, for tests of apps: what an app has open sees what moves, without waiting: a live query, a
/// receipt, hooks.
#[test]
fn live_queries_receipts_and_hooks_see_what_moves() {
    let mut cluster = cluster();
    let (a, on_a, _, on_b) = two(&mut cluster);
    put(&on_a, "m1");
    cluster.settle().unwrap();

    let mut live = on_b.watch(&BY_THREAD.prefix("t1")).unwrap();
    assert_eq!(live.recv_timeout(Duration::ZERO).unwrap().rows.len(), 1);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let (pushed, lost) = (Arc::clone(&told), Arc::clone(&told));
    let hooks = a.database().hooks();
    hooks
        .action(hook::SYNC_PUSH_AFTER, move |_| pushed.lock().unwrap().push("pushed".into()))
        .unwrap();
    let lost = move |event: &hook::Lost| lost.lock().unwrap().push(event.conflict.key.clone());
    hooks.action(hook::SYNC_CONFLICT_DETECTED, lost).unwrap();

    let edit = |workspace: &Workspace, body: &str| {
        workspace
            .write(|tx| tx.update(MESSAGES, "m1", |message| message.body = body.into()))
            .unwrap()
    };
    let receipt = edit(&on_a, "A");
    assert!(receipt.verdict().is_none() && live.recv_timeout(Duration::ZERO).is_none());
    edit(&on_b, "B");
    cluster.sync(&a).unwrap();
    let verdict = receipt.verdict();
    assert!(matches!(verdict, Some(Settled::Decided(Decision::Accepted { .. }))), "{verdict:?}");
    cluster.settle().unwrap();
    assert_eq!(live.recv_timeout(Duration::ZERO).unwrap().rows[0].body, "B");
    assert_eq!(*told.lock().unwrap(), ["pushed", "m1"]);
}

/// R3.5. A device that is offline has no part in what moves, says so, and comes back by itself.
#[test]
fn a_device_that_is_offline_hears_nothing_until_it_is_online() {
    let mut cluster = cluster();
    let (_, on_a, b, on_b) = two(&mut cluster);
    cluster.settle().unwrap();
    cluster.offline(&b).unwrap();
    put(&on_a, "m1");
    put(&on_b, "m2");
    cluster.settle().unwrap();
    cluster.advance(Duration::from_secs(3600)).unwrap();
    cluster.settle().unwrap();
    assert!(matches!(b.status(on_b.name()), SyncStatus::Offline { .. }));
    assert!(on_b.get(MESSAGES, "m1").unwrap().is_none());
    assert!(on_b.get(MESSAGES, "m2").unwrap().unwrap().is_pending());
    let differences = cluster.differences().unwrap();
    assert!(
        differences.iter().any(|line| line.contains("bob: 1 batches of acme wait")),
        "{differences:?}"
    );
    assert!(
        differences.iter().any(|line| line.contains("messages/m1 is unknown here")),
        "{differences:?}"
    );

    cluster.sync(&b).unwrap();
    assert!(matches!(b.status(on_b.name()), SyncStatus::Offline { .. }), "offline again");
    assert_eq!(on_b.count(&BY_THREAD.prefix("t1")).unwrap(), 2);
    cluster.online(&b);
    cluster.settle().unwrap();
    assert!(matches!(b.status(on_b.name()), SyncStatus::Live { .. }));
    cluster.assert_equal();
}

/// R1, R2. What an app was told is durable survives the end of its process, and the old handles
/// say that they are closed. Local tables are kept and no difference.
#[test]
fn a_killed_device_goes_on_with_what_was_durable() {
    let mut cluster = cluster();
    let (a, on_a, _, on_b) = two(&mut cluster);
    put(&on_a, "m1");
    on_a.write(|tx| tx.put(DRAFTS, &message("d1", "t1", 1))).unwrap();
    cluster.kill(&a).unwrap();
    assert!(matches!(on_a.write(|tx| tx.delete(MESSAGES, "m1")), Err(Error::Closed)));
    let on_a = a.workspace("acme").unwrap();
    assert!(on_a.get(DRAFTS, "d1").unwrap().is_some());
    cluster.settle().unwrap();
    cluster.kill_server().unwrap();
    cluster.restart(&a).unwrap();
    put(&on_b, "m2");
    cluster.settle().unwrap();
    let on_a = a.workspace("acme").unwrap();
    assert_eq!(on_a.count(&MESSAGES.all()).unwrap(), 2);
    cluster.assert_equal();
}

/// R8.1. A user whose role changes is told when the device connects again.
#[test]
fn a_user_can_lose_and_get_back_the_right_to_write() {
    let mut cluster = cluster();
    let (a, on_a, _, _) = two(&mut cluster);
    cluster.settle().unwrap();
    cluster.set_role("ann", Some(Role::Viewer)).unwrap();
    cluster.cut(&a).unwrap();
    put(&on_a, "m1");
    cluster.settle().unwrap();
    assert!(matches!(a.status(on_a.name()), SyncStatus::Held { .. }));
    cluster.set_role("ann", None).unwrap();
    cluster.cut(&a).unwrap();
    cluster.settle().unwrap();
    assert!(matches!(a.status(on_a.name()), SyncStatus::Stopped { .. }));
    cluster.set_role("ann", Some(Role::Editor)).unwrap();
    cluster.restart(&a).unwrap();
    cluster.settle().unwrap();
    cluster.assert_equal();
}

/// A test that forgets to let things move must not pass.
#[test]
#[should_panic(expected = "ann: 1 batches of acme wait")]
fn devices_that_differ_fail_the_test() {
    let mut cluster = cluster();
    let (_, on_a, _, _) = two(&mut cluster);
    put(&on_a, "m1");
    cluster.assert_equal();
}

/// A long test must not fill the memory: the store checkpoints where its delta asks for it.
#[test]
fn a_cluster_takes_many_large_writes() {
    let mut cluster = cluster();
    let (_, on_a, _, on_b) = two(&mut cluster);
    for number in 0..120 {
        let mut large = message(&format!("m{number}"), "t1", number);
        large.body = "x".repeat(200_000);
        on_a.write(|tx| tx.put(MESSAGES, &large)).unwrap();
    }
    cluster.settle().unwrap();
    assert_eq!(on_b.count(&BY_THREAD.prefix("t1")).unwrap(), 120);
    cluster.assert_equal();
}
