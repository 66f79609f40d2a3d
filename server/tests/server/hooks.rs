//! Hooks of a device that syncs with a real server.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use lastword::core::stamp::Decision;
use lastword::{Hook, hook};

use crate::common::{Device, LIMIT, Server};

/// Whatever `told` makes of the events of a hook, in order.
fn hear<E: 'static, T: Send + 'static>(
    device: &Device,
    hook: Hook<E>,
    told: impl Fn(&E) -> T + Send + Sync + 'static,
) -> Receiver<T> {
    let (sender, heard) = channel();
    let sender = Mutex::new(sender);
    let action = move |event: &E| {
        // Whoever listens may be gone.
        let _ = sender.lock().expect("no hook panics").send(told(event));
    };
    device.db.hooks().action(hook, action).expect("a thread");
    heard
}

/// Conflicts that a device is told of, as `table/key losing value`.
fn conflicts(device: &Device) -> Receiver<String> {
    hear(device, hook::SYNC_CONFLICT_DETECTED, |lost: &hook::Lost| {
        assert_eq!(lost.workspace.as_str(), "main");
        let losing = lost.conflict.fields["text"].losing.clone();
        format!("{}/{} {losing:?}", lost.conflict.table, lost.conflict.key)
    })
}

/// What was told by now: all that was queued before is over once this is heard.
fn by_now(device: &Device, server: &Server, heard: &Receiver<String>) -> Vec<String> {
    let pulled = hear(device, hook::SYNC_PULL_AFTER, |pulled: &hook::Pulled| pulled.cursor);
    let id = device.db.device().to_string();
    let mut other = Device::open(&server.dir.with_file_name(format!("beside-{id}")));
    // The look at conflicts is queued behind its page; the next page is behind the look.
    for text in ["a page", "another"] {
        other.put("beside", &id, &format!(r#"{{"text":"{text}"}}"#));
        other.catch_up(&server.url);
        let head = other.ws.status().expect("it reads").cursor;
        while pulled.recv_timeout(LIMIT).expect("the page comes") < head {}
    }
    heard.try_iter().collect()
}

fn edit_apart(server: &Server, phone: &mut Device, laptop: &mut Device, text: &str) {
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
    phone.patch("notes", "n1", &format!(r#"{{"text":"phone {text}"}}"#));
    laptop.patch("notes", "n1", &format!(r#"{{"text":"laptop {text}"}}"#));
    phone.catch_up(&server.url);
    laptop.catch_up(&server.url);
}

fn again(device: Device, dir: &Path) -> Device {
    device.db.close().expect("it closes");
    drop(device);
    Device::open(dir)
}

/// I25, R2.5: a conflict is told exactly once, on the device that wrote the losing value: not on
/// the winner's, not on one that was not there, not again after a restart; and if the app had no
/// hook or ended before it was told, it is told when it comes back.
#[test]
fn a_conflict_is_told_once_where_it_was_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = Server::start(&dir.path().join("server"));
    let path = dir.path().join("phone");
    let mut phone = Device::open(&path);
    let mut laptop = Device::open(&dir.path().join("laptop"));
    phone.put("notes", "n1", r#"{"text":"a"}"#);
    edit_apart(&server, &mut phone, &mut laptop, "1");
    let won = conflicts(&laptop);
    let lost = conflicts(&phone);
    phone.connect(&server.url, "ann");
    laptop.connect(&server.url, "ann");
    let first = lost.recv_timeout(LIMIT).expect("it is told");
    assert_eq!(first, r#"notes/n1 Some(Text("phone 1"))"#);
    assert_eq!(by_now(&phone, &server, &lost), [""; 0]);
    assert_eq!(by_now(&laptop, &server, &won), [""; 0]);

    // Received by a process that has no hook; told by the next one, and by none after it.
    phone = again(phone, &path);
    laptop.disconnect();
    edit_apart(&server, &mut phone, &mut laptop, "2");
    phone.catch_up(&server.url);
    assert_eq!(phone.rows("_conflicts").len(), 2);
    phone = again(phone, &path);
    let lost = conflicts(&phone);
    let second = lost.recv_timeout(LIMIT).expect("it is told without a server");
    assert_eq!(second, r#"notes/n1 Some(Text("phone 2"))"#);
    phone = again(phone, &path);
    let lost = conflicts(&phone);
    phone.connect(&server.url, "ann");
    assert_eq!(by_now(&phone, &server, &lost), [""; 0]);

    // A device that comes now has its first copy, with two old conflicts of others.
    let mut tablet = Device::open(&dir.path().join("tablet"));
    let heard = conflicts(&tablet);
    tablet.connect(&server.url, "ann");
    tablet.caught_up();
    assert_eq!(tablet.rows("_conflicts").len(), 2);
    assert_eq!(by_now(&tablet, &server, &heard), [""; 0]);
}

/// R9.2: a batch is told before it is sent and after its verdict is durable, a page after it is;
/// what cannot sync is told once. A hook that hangs stops none of that.
#[test]
fn pushes_pulls_and_errors_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(&dir.path().join("server"));
    let mut phone = Device::open(&dir.path().join("phone"));
    let before = hear(&phone, hook::SYNC_PUSH_BEFORE, |pushing: &hook::Pushing| {
        (pushing.batch.counter, pushing.batch.batch_id)
    });
    let after = hear(&phone, hook::SYNC_PUSH_AFTER, |pushed: &hook::Pushed| {
        (pushed.batch_id, pushed.decision.clone())
    });
    let pulled = hear(&phone, hook::SYNC_PULL_AFTER, |pulled: &hook::Pulled| {
        (pulled.rows, pulled.cursor, pulled.is_consistent)
    });
    let errors = hear(&phone, hook::SYNC_ERROR, |failed: &hook::Failed| failed.message.clone());
    let receipt = phone.put("notes", "n1", r#"{"text":"hi"}"#);
    let id = receipt.batch_id().expect("it syncs");
    phone.catch_up(&server.url);
    assert_eq!(before.recv_timeout(LIMIT), Ok((1, id)));
    let (decided, decision) = after.recv_timeout(LIMIT).expect("it is told");
    assert!(decided == id && matches!(decision, Decision::Accepted { first_seq: 1, .. }));
    let mut pages = Vec::new();
    while pages.last().is_none_or(|(_, cursor, _)| *cursor < 2) {
        pages.push(pulled.recv_timeout(LIMIT).expect("it is told"));
    }
    assert_eq!(pages.iter().map(|(rows, ..)| rows).sum::<u64>(), 2);
    assert!(pages.iter().all(|(.., is_consistent)| *is_consistent));
    assert!(errors.try_recv().is_err());

    server.kill();
    phone.connect(&server.url, "ann");
    let error = errors.recv_timeout(LIMIT).expect("it is told");
    assert!(error.contains("server not reachable"), "{error}");
    phone.disconnect();

    server.restart();
    let (_held, hang) = channel::<()>();
    let hang = Mutex::new(hang);
    let hangs = move |_: &hook::Pushing| {
        // Until the test ends.
        let _ = hang.lock().expect("no hook panics").recv();
    };
    phone.db.hooks().action(hook::SYNC_PUSH_BEFORE, hangs).expect("it has a thread");
    for number in 0..100 {
        phone.put("notes", "n1", &format!(r#"{{"n":{number}}}"#));
    }
    assert_eq!(phone.catch_up(&server.url).applied, 100);
}
