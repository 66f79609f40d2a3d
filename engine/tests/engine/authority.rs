//! The authority: one decision per batch, whoever asks how often, and what it takes on trust.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use lastword::core::hlc::Hlc;
use lastword::core::id::{BatchId, DeviceId, Key, TableName, WorkspaceName};
use lastword::core::json;
use lastword::core::op::{Action, Batch, Op, TombstoneRef};
use lastword::core::protocol::authority::{Input, PageFrom};
use lastword::core::protocol::{Attached, Role};
use lastword::core::stamp::{Decision, RefusalCode, Verdict};
use lastword::{AttachRequest, Authority, Error, MemberList, PushAnswer, PushGate, PushRuling};

/// Longest wait for anything here; reaching it is a failure.
const LIMIT: Duration = Duration::from_secs(60);
const ANN: DeviceId = DeviceId([1; 16]);
const BOB: DeviceId = DeviceId([2; 16]);

struct Fixture {
    authority: Authority,
    main: WorkspaceName,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let fixture = Self { authority, main: WorkspaceName::new("main").unwrap(), _dir: dir };
        fixture.attach(ANN, "ann", 0).unwrap();
        fixture
    }

    fn attach(&self, device: DeviceId, user: &str, decided: u64) -> Result<Attached, Error> {
        let (tell, told) = channel();
        let request = AttachRequest {
            attachment: 1,
            device,
            user: user.into(),
            decided,
            epoch: None,
            received_to: 0,
            horizon: 0,
            cover: [0; 16],
            create: true,
        };
        let done = move |answer| tell.send(answer).unwrap();
        self.authority.attach(self.main.clone(), request, done).unwrap();
        told.recv().unwrap()
    }

    fn push_through(&self, gate: &PushGate, user: &str, batch: &Batch) -> PushAnswer {
        let (tell, told) = channel();
        let done = move |answer: Result<_, Error>| tell.send(answer.unwrap()).unwrap();
        let (main, user) = (self.main.clone(), user.to_owned());
        self.authority.decide(main, user, batch.clone(), gate.clone(), done).unwrap();
        told.recv().unwrap()
    }

    fn push(&self, user: &str, batch: &Batch) -> PushAnswer {
        self.push_through(&PushGate::default(), user, batch)
    }

    fn head(&self) -> u64 {
        self.authority.status().unwrap()[0].head
    }
}

fn put(key: &str, text: &str, base: u64) -> Op {
    let record = json::parse_record(&format!(r#"{{"text":"{text}"}}"#)).unwrap();
    let action = match base {
        0 => Action::Create { record, replace: false },
        _ => Action::Put { record },
    };
    let (table, key) = (TableName::new("notes").unwrap(), Key::new(key).unwrap());
    Op { table, key, base, revision: 1, hlc: Hlc(1), action }
}

fn batch(device: DeviceId, counter: u64, ops: Vec<Op>) -> Batch {
    let batch_id = BatchId([
        device.0[0],
        u8::try_from(counter).unwrap(),
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    Batch { device, counter, batch_id, created_ms: 5, strict: false, former: Vec::new(), ops }
}

fn seq_of(answer: &PushAnswer) -> u64 {
    match answer {
        PushAnswer::Decided(Decision::Accepted { first_seq, .. }) => *first_seq,
        other => panic!("not accepted: {other:?}"),
    }
}

fn refusal(answer: &PushAnswer) -> (RefusalCode, &str) {
    match answer {
        PushAnswer::Decided(Decision::Refused { code, message, .. }) => (*code, message),
        other => panic!("not refused: {other:?}"),
    }
}

/// I4: the same batch gets the decision that it has, also after the store was opened again and also
/// under a later counter, which it uses up; nothing is applied twice.
#[test]
fn a_batch_is_decided_once() {
    let fixture = Fixture::new();
    let first = batch(ANN, 1, vec![put("n1", "a", 0)]);
    let decided = fixture.push("ann", &first);
    assert_eq!(seq_of(&decided), 1);
    let head = fixture.head();
    assert_eq!(fixture.push("ann", &first), decided);
    assert_eq!(fixture.push("ann", &Batch { counter: 2, ..first.clone() }), decided);
    assert_eq!(fixture.head(), head);
    let attached = fixture.attach(ANN, "ann", 0).unwrap();
    assert_eq!(attached.last_counter, 2);
    assert_eq!(attached.decisions.iter().map(|d| d.counter).collect::<Vec<_>>(), [1, 2]);

    let Fixture { authority, main, _dir } = fixture;
    authority.close().unwrap();
    let fixture = Fixture { authority: Authority::open(_dir.path()).unwrap(), main, _dir };
    assert_eq!(fixture.push("ann", &first), decided);
    assert_eq!(seq_of(&fixture.push("ann", &batch(ANN, 3, vec![put("n2", "b", 0)]))), head + 1);
}

/// I5: the same id with other bytes, and a counter that is not next, are never decided: two stores
/// use the device id.
#[test]
fn other_bytes_and_gaps_are_forks() {
    let fixture = Fixture::new();
    fixture.push("ann", &batch(ANN, 1, vec![put("n1", "a", 0)]));
    let head = fixture.head();
    for forked in [
        batch(ANN, 1, vec![put("n1", "b", 0)]),
        batch(ANN, 3, vec![put("n3", "c", 0)]),
        Batch { batch_id: BatchId([9; 16]), ..batch(ANN, 1, vec![put("n4", "d", 0)]) },
    ] {
        let answer = fixture.push("ann", &forked);
        assert!(matches!(answer, PushAnswer::Forked { .. }), "{answer:?}");
    }
    assert_eq!(fixture.head(), head);
}

/// A refusal takes the counter and no seq, and is remembered like any decision.
#[test]
fn a_refusal_is_a_decision() {
    let fixture = Fixture::new();
    let mut bad = batch(ANN, 1, vec![put("n1", "a", 0)]);
    bad.ops[0].table = TableName::new("_conflicts").unwrap();
    let answer = fixture.push("ann", &bad);
    assert_eq!(refusal(&answer).0, RefusalCode::UnknownTable);
    assert_eq!(fixture.head(), 0);
    assert_eq!(fixture.push("ann", &bad), answer);
    assert_eq!(seq_of(&fixture.push("ann", &batch(ANN, 2, vec![put("n1", "a", 0)]))), 1);
}

/// I19. Batches queued behind a refused one were decided after all if the device's Resume came
/// before the writer got to them: their counters had been given to other batches by then, and what
/// the device had put among its dead letters was applied.
#[test]
fn what_was_queued_behind_a_refusal_stays_ignored_after_resume() {
    let fixture = Fixture::new();
    let gate = PushGate::default();
    let (tell, told) = channel();
    let (hold, held) = channel::<()>();
    // The writer is kept busy while the three batches queue.
    let busy = move |_: Result<Attached, Error>| held.recv().unwrap();
    let request = AttachRequest {
        attachment: 2,
        device: BOB,
        user: "bob".into(),
        decided: 0,
        epoch: None,
        received_to: 0,
        horizon: 0,
        cover: [0; 16],
        create: false,
    };
    fixture.authority.attach(fixture.main.clone(), request, busy).unwrap();
    let mut bad = batch(ANN, 1, vec![put("n1", "a", 0)]);
    bad.ops[0].table = TableName::new("_devices").unwrap();
    let behind = [batch(ANN, 2, vec![put("n2", "b", 0)]), batch(ANN, 3, vec![put("n3", "c", 0)])];
    for (place, batch) in [&bad, &behind[0], &behind[1]].into_iter().enumerate() {
        let (tell, main) = (tell.clone(), fixture.main.clone());
        let done = move |answer: Result<_, Error>| tell.send((place, answer.unwrap())).unwrap();
        fixture.authority.decide(main, "ann".into(), batch.clone(), gate.clone(), done).unwrap();
    }
    gate.open();
    let (main, tell) = (fixture.main.clone(), tell.clone());
    let done = move |answer: Result<_, Error>| tell.send((3, answer.unwrap())).unwrap();
    let next = batch(ANN, 2, vec![put("n4", "d", 0)]);
    let next = Batch { batch_id: BatchId([7; 16]), ..next };
    fixture.authority.decide(main, "ann".into(), next, gate.clone(), done).unwrap();
    hold.send(()).unwrap();
    let answers: Vec<_> = (0..4).map(|_| told.recv().unwrap().1).collect();
    assert_eq!(refusal(&answers[0]).0, RefusalCode::UnknownTable);
    assert_eq!(answers[1..3], [PushAnswer::Ignored, PushAnswer::Ignored]);
    assert_eq!(seq_of(&answers[3]), 1);
}

/// I4, R8.1: nothing is decided behind the back of a newer attachment.
#[test]
fn a_fenced_attachment_decides_nothing() {
    let fixture = Fixture::new();
    let gate = PushGate::default();
    gate.fence();
    gate.open();
    let answer = fixture.push_through(&gate, "ann", &batch(ANN, 1, vec![put("n1", "a", 0)]));
    assert_eq!(answer, PushAnswer::Ignored);
}

/// R8.1, R2.5: a writer's own words about what it has seen and who it was decide whose changes it
/// overwrites without a conflict. A base that does not exist yet, and a former id of somebody else,
/// are refused; a device is bound to the user of its first batch.
#[test]
fn bases_former_ids_and_devices_are_not_taken_on_trust() {
    let fixture = Fixture::new();
    fixture.push("ann", &batch(ANN, 1, vec![put("n1", "a", 0)]));
    let answer = fixture.push("bob", &batch(BOB, 1, vec![put("n1", "b", 99)]));
    assert!(refusal(&answer).1.contains("base 99, the last seq is 2"), "{answer:?}");
    let posing = Batch { former: vec![ANN], ..batch(BOB, 2, vec![put("n1", "b", 1)]) };
    let answer = fixture.push("bob", &posing);
    assert!(refusal(&answer).1.contains("another user"), "{answer:?}");
    let answer = fixture.push("bob", &batch(BOB, 3, vec![put("n1", "b", 1)]));
    let PushAnswer::Decided(Decision::Accepted { verdicts, .. }) = &answer else {
        panic!("{answer:?}");
    };
    assert_eq!(verdicts, &[Verdict::Applied { dropped: Vec::new() }]);

    assert!(matches!(fixture.attach(ANN, "bob", 0), Err(Error::ForeignDevice { device: ANN })));
    let answer = fixture.push("bob", &batch(ANN, 2, vec![put("n5", "x", 0)]));
    assert!(matches!(answer, PushAnswer::Forked { .. }), "{answer:?}");
    assert_eq!(fixture.attach(ANN, "ann", 1).unwrap().last_counter, 1);
}

/// B1, I1. An authority that went out of scope without `close` kept its directory locked and its
/// thread running until the process ended. The last clone that goes closes it, also if that is held
/// by an answer on the writer's own thread.
#[test]
fn the_last_clone_that_goes_closes_the_store() {
    let fixture = Fixture::new();
    let head = fixture.head();
    let Fixture { authority, main, _dir: dir } = fixture;
    drop(authority);
    let authority = Authority::open(dir.path()).expect("the lock is free at once");
    assert_eq!(authority.status().unwrap()[0].head, head);

    let (tell, told) = channel();
    let held = authority.clone();
    let request = AttachRequest {
        attachment: 2,
        device: BOB,
        user: "bob".into(),
        decided: 0,
        epoch: None,
        received_to: 0,
        horizon: 0,
        cover: [0; 16],
        create: true,
    };
    let (go, gone) = channel::<()>();
    let done = move |answer: Result<Attached, Error>| {
        // Until the test has let go of its own clone.
        assert!(gone.recv().is_err());
        drop(held);
        tell.send(answer.is_ok()).unwrap();
    };
    authority.attach(main, request, done).unwrap();
    drop(authority);
    drop(go);
    assert!(told.recv_timeout(LIMIT).expect("the writer does not wait for itself"));
    let until = Instant::now() + LIMIT;
    loop {
        match Authority::open(dir.path()) {
            Ok(authority) => return authority.close().unwrap(),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

/// Semantics 1: "the authority writes the full value into the log". The version that an undelete
/// made can be read there like any other, although the op itself carries no value.
#[test]
fn the_log_has_what_an_undelete_brought_back() {
    let site = Fixture::new();
    let op = |action| Op { action, base: 1, ..put("n1", "kept", 0) };
    let undelete =
        Action::Undelete { tombstone: TombstoneRef::Batch(batch(ANN, 2, vec![]).batch_id) };
    for (counter, op) in [(1, put("n1", "kept", 0)), (2, op(Action::Delete)), (3, op(undelete))] {
        let answer = site.push("ann", &batch(ANN, counter, vec![op]));
        assert!(matches!(&answer, PushAnswer::Decided(Decision::Accepted { .. })), "{answer:?}");
    }
    let (table, key) = (TableName::new("notes").unwrap(), Key::new("n1").unwrap());
    let history = site.authority.history(&site.main, &table, &key).unwrap();
    let newest = &history.versions[0];
    assert_eq!(
        (newest.what, &newest.verdict),
        ("undelete", &Some(Verdict::Applied { dropped: vec![] }))
    );
    assert_eq!(newest.record, history.versions[2].record);
    assert!(newest.record.is_some());
}

/// I40, R10.3: however many batches come at once, a workspace never has more records than its
/// limit, exactly those that fit are accepted, and the others say what to do. What adds none
/// passes.
#[test]
fn a_quota_is_not_passed_by_batches_that_race() {
    const ROOM: u64 = 25;
    let site = Fixture::new();
    site.authority.limit_records(ROOM);
    let answers: Vec<PushAnswer> = std::thread::scope(|scope| {
        let push = |device: u8| {
            let site = &site;
            scope.spawn(move || {
                let device_id = DeviceId([device; 16]);
                let pairs = (1..=5u64).map(|counter| {
                    let key = |half: u8| format!("n{device}-{counter}-{half}");
                    let ops = vec![put(&key(0), "a", 0), put(&key(1), "b", 0)];
                    site.push(&format!("user{device}"), &batch(device_id, counter, ops))
                });
                pairs.collect::<Vec<_>>()
            })
        };
        let pushing: Vec<_> = (10..18).map(push).collect();
        pushing.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let accepted =
        |answer: &&PushAnswer| matches!(answer, PushAnswer::Decided(Decision::Accepted { .. }));
    // Of each refused batch the counter is used up, so no device stops at its first.
    assert_eq!(answers.iter().filter(accepted).count() as u64, ROOM / 2);
    for answer in answers.iter().filter(|answer| !accepted(answer)) {
        let PushAnswer::Decided(Decision::Refused { code, message, .. }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(*code, RefusalCode::OverQuota);
        assert!(message.contains("delete some"), "{message}");
    }
    assert_eq!(site.authority.status().unwrap()[0].rows, ROOM / 2 * 2);
    site.authority.limit_records(3);
    let head = site.head();
    let rows = site.authority.read(&site.main).unwrap();
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let table = TableName::new("notes").unwrap();
    let key = rows.range(&table, all, false, 1).unwrap()[0].key.as_str().to_owned();
    let edit = site.push("ann", &batch(ANN, 1, vec![put(&key, "edited", head)]));
    assert!(accepted(&&edit), "{edit:?}");
    let delete = Op { action: Action::Delete, ..put(&key, "", head) };
    let deleted = site.push("ann", &batch(ANN, 2, vec![delete]));
    assert!(accepted(&&deleted), "{deleted:?}");
}

/// R9.1, semantics 4: the server's software has a say in each batch, in its turn. A refusal is
/// final and has its message; what it puts off, or fails on, is not decided and takes no counter.
#[test]
fn a_policy_refuses_a_batch_or_puts_it_off() {
    let site = Fixture::new();
    site.authority.rule_pushes(|asked| {
        let record = match &asked.batch.ops[0].action {
            Action::Create { record, .. } => json::record_to_string(record).unwrap(),
            _ => String::new(),
        };
        match record {
            text if text.contains("spam") => {
                PushRuling::Refuse { message: format!("{}: no advertising", asked.user) }
            }
            text if text.contains("unsure") => {
                PushRuling::NotNow { retry_ms: 7_000, message: "ask again".into() }
            }
            text if text.contains("broken") => panic!("the policy fails"),
            _ => PushRuling::Pass,
        }
    });
    let push =
        |counter, text: &str| site.push("ann", &batch(ANN, counter, vec![put(text, text, 0)]));
    let refused = push(1, "spam");
    let PushAnswer::Decided(Decision::Refused { code: RefusalCode::Policy, message, .. }) =
        &refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(message, "ann: no advertising");
    assert!(matches!(push(2, "unsure"), PushAnswer::NotNow { retry_ms: 7_000, .. }));
    assert!(matches!(push(2, "broken"), PushAnswer::NotNow { .. }));
    assert_eq!(site.head(), 0);
    assert!(matches!(push(2, "fine"), PushAnswer::Decided(Decision::Accepted { .. })));
}

/// I39. A page that a connection asks for between the end of a membership and the word of it shows
/// nothing.
#[test]
fn no_page_is_read_for_who_is_no_member_any_more() {
    let fixture = Fixture::new();
    let (authority, main) = (&fixture.authority, &fixture.main);
    fixture.push("ann", &batch(ANN, 1, vec![put("n1", "a", 0)]));
    let admit = |user: &str| {
        let mut list = MemberList::default();
        list.add(main.clone(), Key::new(user).unwrap(), Role::Editor);
        authority.admit(list).unwrap();
    };
    let page = || authority.page(&authority.view(), main, "ann", 1, PageFrom::Seq(0)).unwrap();
    admit("ann");
    assert!(matches!(page(), Input::Page { .. }));
    admit("bob");
    assert_eq!(page(), Input::Revoked { attachment: 1 });
}
