//! The authority's session alone, against a replica and a store that are played by hand.

use lastword_core::codec::{from_bytes, to_bytes};
use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::limits::{
    MAX_ATTACHMENTS, MAX_BATCHES_IN_FLIGHT, MAX_CLOSE_REASON_BYTES, MAX_MESSAGE_BYTES,
    MAX_PAGES_IN_FLIGHT, MAX_TEXT_BYTES,
};
use lastword_core::protocol::authority::{
    AuthoritySession, Input, Output, PageFrom, Principal, PushAnswer,
};
use lastword_core::protocol::{
    Attach, AttachRefusal, Attached, Changes, Decided, Entry, ErrorCode, Hello, Message, Notice,
    ResetReason, Role, Survivors,
};
use lastword_core::row::Row;
use lastword_core::stamp::{Decision, Mark, RefusalCode, Verdict};
use lastword_core::value::{Record, Value};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{DEVICE, Kind, batch};

struct Played {
    session: AuthoritySession,
    now: u64,
}

fn hello(min_version: u64, max_version: u64) -> Message {
    let (token, agent) = ("token".into(), "test".into());
    Message::Hello(Hello { min_version, max_version, token, device: DEVICE, app_schema: 0, agent })
}

fn attach(attachment: u64, workspace: &str) -> Message {
    Message::Attach(Attach {
        attachment,
        workspace: WorkspaceName::new(workspace).unwrap(),
        epoch: None,
        cursor: 0,
        received_to: 0,
        horizon: 0,
        cover: [0; 16],
        nonce: [1; 16],
        decided: 0,
        walk: None,
        scope: vec![],
    })
}

fn attached(attachment: u64, head: u64, role: Role) -> Input {
    let attached = Attached {
        attachment,
        epoch: Epoch([9; 16]),
        lineage: vec![],
        schema: vec![],
        head,
        horizon: 0,
        role,
        reset: None,
        cover: [0; 16],
        last_counter: 0,
        decisions: vec![],
    };
    Input::AttachAnswer { attachment, result: Ok(attached) }
}

fn accepted() -> PushAnswer {
    let verdicts = vec![];
    PushAnswer::Decided(Decision::Accepted { first_seq: 1, last_seq: 1, time_ms: 1, verdicts })
}

fn refused() -> PushAnswer {
    let (code, message) = (RefusalCode::Policy, "no".into());
    PushAnswer::Decided(Decision::Refused { code, message, time_ms: 1 })
}

impl Played {
    fn new() -> Self {
        let mut played = Self { session: AuthoritySession::new(), now: 1000 };
        played.tell(Input::Time);
        played
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.session.input(self.now, input);
        core::iter::from_fn(|| self.session.poll()).collect()
    }

    fn says(&mut self, message: &Message) -> Vec<Output> {
        self.tell(Input::Message(to_bytes(message)))
    }

    fn welcomed() -> Self {
        let mut played = Self::new();
        assert!(matches!(played.says(&hello(1, 1))[..], [Output::Authenticate { .. }]));
        let result = Ok(Principal { user: "ann".into() });
        let outputs = played.tell(Input::Authenticated { result, server_time_ms: 5 });
        assert!(matches!(sent(&outputs)[..], [Message::Welcome(_)]));
        played
    }

    fn open(head: u64, role: Role) -> (Self, Vec<Output>) {
        let mut played = Self::welcomed();
        assert!(matches!(played.says(&attach(1, "team"))[..], [Output::Attach { .. }]));
        let outputs = played.tell(attached(1, head, role));
        assert!(matches!(sent(&outputs)[..], [Message::Attached(_)]));
        (played, outputs)
    }

    fn push(&mut self, counter: u64) -> Vec<Output> {
        let batch = batch(Kind::Good, counter as u8, counter);
        self.says(&Message::Push { attachment: 1, batch })
    }

    /// Plays the store for one output.
    fn stores(&mut self, output: Output, how: u8) -> Vec<Output> {
        match output {
            Output::Attach { attach } => self.tell(attached(attach.attachment, 4, Role::Editor)),
            Output::ReadPage { attachment, from: PageFrom::Seq(after), .. } => {
                let (from, to, consistent_at, entries) = (after, 4, Some(4), vec![]);
                let page = Changes { attachment, from, to, consistent_at, entries };
                self.tell(Input::Page { attachment, page, horizon: 0 })
            }
            Output::Decide { attachment, batch } => {
                let message = "why".into();
                let answer = match how {
                    0 => refused(),
                    1 => PushAnswer::NotNow { retry_ms: 1, message },
                    2 => PushAnswer::Forked { message },
                    3 => PushAnswer::Ignored,
                    _ => accepted(),
                };
                let (counter, batch_id) = (batch.counter, batch.batch_id);
                self.tell(Input::Decided { attachment, counter, batch_id, answer })
            }
            _ => vec![],
        }
    }

    fn answer(&mut self, counter: u64, answer: PushAnswer) -> Vec<Output> {
        let batch_id = BatchId([counter as u8; 16]);
        self.tell(Input::Decided { attachment: 1, counter, batch_id, answer })
    }
}

fn sent(outputs: &[Output]) -> Vec<Message> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send(bytes) => Some(from_bytes(bytes).unwrap()),
        _ => None,
    });
    sent.collect()
}

fn deciding(outputs: &[Output]) -> Vec<u64> {
    let deciding = outputs.iter().filter_map(|output| match output {
        Output::Decide { batch, .. } => Some(batch.counter),
        _ => None,
    });
    deciding.collect()
}

#[track_caller]
fn ends_with(outputs: &[Output], code: ErrorCode) {
    assert!(matches!(sent(outputs)[..], [Message::Error { code: c, .. }] if c == code));
    let Some(Output::Close { code: number, .. }) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!(*number, code.close_code());
}

/// R8.1: nothing but a Hello is heard first, and a second one or one after is an error.
#[test]
fn hello_comes_first_and_once() {
    for message in [attach(1, "team"), Message::Detach { attachment: 1 }] {
        let mut played = Played::new();
        ends_with(&played.says(&message), ErrorCode::Unauthenticated);
        assert_eq!(played.says(&hello(1, 1)), [], "closed is closed");
    }
    let mut played = Played::new();
    played.says(&hello(1, 1));
    ends_with(&played.says(&attach(1, "team")), ErrorCode::Protocol);
    ends_with(&Played::welcomed().says(&hello(1, 1)), ErrorCode::Protocol);
}

/// Design section 5: no Hello, or no answer to it, in time closes with 4408.
#[test]
fn a_connection_that_says_nothing_times_out() {
    for greeted in [false, true] {
        let mut played = Played { session: AuthoritySession::new(), now: 1000 };
        let outputs = played.tell(Input::Time);
        let [Output::WakeAt(at)] = outputs[..] else { panic!("{outputs:?}") };
        if greeted {
            played.says(&hello(1, 1));
        }
        played.now = at - 1;
        assert_eq!(played.tell(Input::Time), []);
        played.now = at;
        ends_with(&played.tell(Input::Time), ErrorCode::Timeout);
    }
    let mut played = Played::welcomed();
    played.now += 1_000_000;
    assert_eq!(played.tell(Input::Time), []);
}

/// Design section 5: a version in common is needed, a device id too, and a good token.
#[test]
fn hello_is_checked() {
    for (min, max) in [(3, 4), (0, 0), (2, 1)] {
        ends_with(&Played::new().says(&hello(min, max)), ErrorCode::Version);
    }
    assert!(matches!(Played::new().says(&hello(0, 9))[..], [Output::Authenticate { .. }]));
    let Message::Hello(nobody) = hello(1, 1) else { panic!() };
    let nobody = Message::Hello(Hello { device: DeviceId::AUTHORITY, ..nobody });
    ends_with(&Played::new().says(&nobody), ErrorCode::Protocol);
    let mut played = Played::new();
    played.says(&hello(1, 1));
    let answer = Input::Authenticated { result: Err("wrong".into()), server_time_ms: 5 };
    ends_with(&played.tell(answer), ErrorCode::Unauthenticated);
}

/// R11.1: bytes that are no message close with a protocol error, and too many with 1009.
#[test]
fn malformed_messages_close_the_connection() {
    for bytes in [vec![], vec![99], vec![2, 0], vec![5, 1]] {
        ends_with(&Played::welcomed().tell(Input::Message(bytes)), ErrorCode::Protocol);
    }
    let big = Input::Message(vec![0; MAX_MESSAGE_BYTES + 1]);
    ends_with(&Played::welcomed().tell(big), ErrorCode::TooBig);
    let (mut played, _) = Played::open(0, Role::Editor);
    let outputs = played.tell(Input::Message(vec![77]));
    assert!(outputs.contains(&Output::Detached { attachment: 1 }), "attachments end as well");
}

/// Section 4: one attachment per workspace and connection.
#[test]
fn a_workspace_is_attached_once_per_connection() {
    let (mut played, _) = Played::open(0, Role::Editor);
    ends_with_after_detach(&played.says(&attach(2, "team")));
}

#[track_caller]
fn ends_with_after_detach(outputs: &[Output]) {
    ends_with(outputs, ErrorCode::Protocol);
    assert!(outputs.contains(&Output::Detached { attachment: 1 }));
}

/// R8.1. The story: a replica let a workspace go and used its number again for another one; the
/// answer that was still under way for the first opened the second, with the role of the first.
#[test]
fn the_number_of_an_attachment_is_used_once() {
    let mut played = Played::welcomed();
    played.says(&attach(1, "mine"));
    played.says(&Message::Detach { attachment: 1 });
    ends_with(&played.says(&attach(1, "theirs")), ErrorCode::Protocol);
}

/// I41: attachments are limited; one more is refused and the others go on.
#[test]
fn attachments_are_limited() {
    let mut played = Played::welcomed();
    for number in 1..=MAX_ATTACHMENTS as u64 {
        let outputs = played.says(&attach(number, &format!("w{number}")));
        assert!(matches!(outputs[..], [Output::Attach { .. }]));
    }
    let number = MAX_ATTACHMENTS as u64 + 1;
    let refused = sent(&played.says(&attach(number, "more")));
    let code = AttachRefusal::TooMany;
    assert!(matches!(&refused[..], [Message::Refused { attachment, code: c, .. }]
        if *attachment == number && *c == code));
}

/// I41: a page is read only with credit, and each acknowledgement gives some back.
#[test]
fn credit_limits_the_pages_on_the_way() {
    let (mut played, mut outputs) = Played::open(1000, Role::Viewer);
    let mut pages = 0;
    while let Some(Output::ReadPage { from: PageFrom::Seq(after), .. }) = outputs.last().cloned() {
        let (from, to, consistent_at, entries) = (after, after + 1, None, vec![]);
        let page = Changes { attachment: 1, from, to, consistent_at, entries };
        outputs = played.tell(Input::Page { attachment: 1, page, horizon: 0 });
        pages += 1;
        if pages > MAX_PAGES_IN_FLIGHT {
            break;
        }
    }
    assert_eq!(pages, MAX_PAGES_IN_FLIGHT);
    assert_eq!(played.tell(Input::Head { attachment: 1, head: 2000, horizon: 0 }), []);
    let received = Message::Received { attachment: 1, received_to: 1, cursor: 0 };
    assert!(matches!(
        played.says(&received)[..],
        [Output::ReadPage { from: PageFrom::Seq(8), .. }]
    ));
}

/// Section 5, B7: a page that begins before a horizon which moved since the attach may lack a
/// delete, so it is not sent; one behind it, or before one that was there all along, is.
#[test]
fn a_page_behind_a_purge_is_not_sent() {
    let page = |from| Changes { attachment: 1, from, to: 9, consistent_at: None, entries: vec![] };
    let told = |from, horizon| {
        let (mut played, _) = Played::open(10, Role::Viewer);
        sent(&played.tell(Input::Page { attachment: 1, page: page(from), horizon }))
    };
    assert!(matches!(told(4, 0)[..], [Message::Changes(_)]));
    assert!(matches!(told(5, 5)[..], [Message::Changes(_)]));
    let code = AttachRefusal::Unavailable;
    assert!(matches!(&told(4, 5)[..], [Message::Refused { code: c, .. }] if *c == code));
}

/// Section 5, R6: a connected device hears of a horizon that moved, and only once every page up to
/// it was sent: it forgets the deletes behind it, so it must have seen them.
#[test]
fn a_horizon_is_told_behind_the_pages_up_to_it() {
    let page = |from, to| {
        let consistent_at = (to == 12).then_some(to);
        let page = Changes { attachment: 1, from, to, consistent_at, entries: vec![] };
        Input::Page { attachment: 1, page, horizon: 0 }
    };
    let (mut played, _) = Played::open(10, Role::Viewer);
    assert!(matches!(sent(&played.tell(page(0, 4)))[..], [Message::Changes(_)]));
    assert_eq!(sent(&played.tell(Input::Head { attachment: 1, head: 12, horizon: 9 })), []);
    let told = sent(&played.tell(page(4, 12)));
    let horizon = Message::Notice(Notice::Horizon { attachment: 1, horizon: 9 });
    assert!(matches!(&told[..], [Message::Changes(_), said] if *said == horizon), "{told:?}");
    assert_eq!(sent(&played.tell(Input::Head { attachment: 1, head: 12, horizon: 9 })), []);
    let told = sent(&played.tell(Input::Head { attachment: 1, head: 12, horizon: 12 }));
    assert_eq!(told, [Message::Notice(Notice::Horizon { attachment: 1, horizon: 12 })]);
}

/// Section 5, trap of another history: the authority settles where pages begin before the first of
/// them. The story: pages went on from the seq of the device's old copy, and a part of the new
/// history was laid over rows of the old one.
#[test]
fn pages_of_a_reset_begin_at_zero() {
    let mut played = Played::welcomed();
    let Message::Attach(asked) = attach(1, "main") else { panic!("an attach") };
    let asked = Attach { epoch: Some(Epoch([8; 16])), cursor: 40, received_to: 40, ..asked };
    let outputs = played.says(&Message::Attach(asked));
    assert!(matches!(outputs[..], [Output::Attach { .. }]), "no page is read before: {outputs:?}");
    let Input::AttachAnswer { result: Ok(theirs), .. } = attached(1, 50, Role::Viewer) else {
        panic!("an answer")
    };
    let reset = Some(ResetReason::OtherHistory);
    let result = Ok(Attached { reset, ..theirs });
    let outputs = played.tell(Input::AttachAnswer { attachment: 1, result });
    assert!(matches!(&outputs[..], [Output::Send(_)]), "what survived comes first: {outputs:?}");
    let outputs = played.says(&survivors(Vec::new(), true));
    let [Output::Send(_), Output::ReadPage { from: PageFrom::Seq(0), .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
}

fn survivors(entries: Vec<Entry>, is_last: bool) -> Message {
    Message::Survivors(Survivors { attachment: 1, entries, is_last })
}

fn survivor(seq: u64) -> Entry {
    let mark = Mark { seq, writer: DeviceId([7; 16]) };
    let row = Row {
        deleted: false,
        last: mark,
        time_ms: 1,
        born: mark,
        full: mark,
        fields: Vec::new(),
        revision: 1,
        hlc: Hlc(1),
        op_id: BatchId([1; 16]),
        set_at: 0,
        record: Record::new(&[("text".into(), Value::Text("lost".into()))]).unwrap(),
    };
    Entry::Row { table: TableName::new("notes").unwrap(), key: Key::new("n1").unwrap(), row }
}

/// Section 6: what a device still has of a lost history is durable before pages come or batches are
/// taken, one message at a time; a viewer has no say in what comes back, and nobody offers anything
/// to a server that has lost nothing.
#[test]
fn survivors_come_before_anything_else() {
    let begin = |role| {
        let mut played = Played::welcomed();
        played.says(&attach(1, "main"));
        let Input::AttachAnswer { result: Ok(theirs), .. } = attached(1, 50, role) else {
            panic!("an answer")
        };
        let result = Ok(Attached { reset: Some(ResetReason::OtherHistory), ..theirs });
        played.tell(Input::AttachAnswer { attachment: 1, result });
        played
    };
    let closes = |outputs: &[Output]| outputs.iter().any(|o| matches!(o, Output::Close { .. }));
    let mut played = begin(Role::Editor);
    let outputs = played.says(&survivors(vec![survivor(7)], false));
    let [Output::StoreSurvivors { attachment: 1, is_last: false, entries, .. }] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(entries, &[survivor(7)]);
    let outputs = played.tell(Input::SurvivorsStored { attachment: 1, is_last: false });
    assert_eq!(sent(&outputs), [Message::SurvivorsStored { attachment: 1 }]);
    assert_eq!(outputs.len(), 1, "pages wait for the last of them");
    played.says(&survivors(vec![survivor(8)], true));
    assert!(closes(&played.says(&survivors(vec![survivor(9)], true))), "one at a time");

    assert!(closes(&begin(Role::Editor).push(1)), "a push before they are there");
    let outputs = begin(Role::Viewer).says(&survivors(vec![survivor(7)], true));
    assert!(matches!(
        outputs[..],
        [Output::Send(_), Output::ReadPage { from: PageFrom::Seq(0), .. }]
    ));
    let (mut played, _) = Played::open(50, Role::Editor);
    assert!(closes(&played.says(&survivors(vec![survivor(7)], true))), "nothing is lost");
}

/// Section 4: after a refusal pushes are ignored until the Resume that names it.
#[test]
fn pushes_after_a_refusal_wait_for_resume() {
    let (mut played, _) = Played::open(0, Role::Editor);
    assert_eq!(deciding(&played.push(1)), [1]);
    let outputs = played.answer(1, refused());
    assert!(matches!(sent(&outputs)[..], [Message::Ack { .. }]));
    assert_eq!(played.push(2), []);
    assert_eq!(played.says(&Message::Resume { attachment: 1, counter: 7 }), []);
    let outputs = played.says(&Message::Resume { attachment: 1, counter: 1 });
    assert_eq!(outputs, [Output::OpenGate { attachment: 1 }]);
    assert_eq!(deciding(&played.push(2)), [2]);
}

/// Section 4. The story: batches 1, 2 and 3 wait for a slow writer; 1 is refused. The replica
/// buries 1 and 2, resumes, and sends the old 3 as the new 2. The gate was opened at once, so the
/// old 2 was decided: a dead letter came back to life, and the device was taken for a forked one.
#[test]
fn the_gate_opens_when_what_came_before_is_answered() {
    let (mut played, _) = Played::open(0, Role::Editor);
    for counter in 1..=3 {
        played.push(counter);
    }
    played.answer(1, refused());
    assert_eq!(played.says(&Message::Resume { attachment: 1, counter: 1 }), []);
    assert_eq!(played.push(2), [], "held");
    assert_eq!(played.answer(2, PushAnswer::Ignored), []);
    let outputs = played.answer(3, PushAnswer::Ignored);
    assert_eq!(outputs[0], Output::OpenGate { attachment: 1 });
    assert_eq!(deciding(&outputs), [2]);
}

/// Section 4: what is put off comes again as the same batch; others are ignored until then. The
/// story: a second batch that was put off as well moved the place to go on from.
#[test]
fn what_is_put_off_opens_with_the_same_batch() {
    let (mut played, _) = Played::open(0, Role::Editor);
    played.push(1);
    played.push(2);
    let later = || PushAnswer::NotNow { retry_ms: 70, message: "later".into() };
    let notices = sent(&played.answer(1, later()));
    assert!(matches!(&notices[..], [Message::Notice(_)]));
    assert_eq!(played.answer(2, later()), []);
    assert_eq!(played.push(2), []);
    let outputs = played.push(1);
    assert_eq!(outputs[0], Output::OpenGate { attachment: 1 });
    assert_eq!(deciding(&outputs), [1]);
    assert_eq!(deciding(&played.push(2)), [2]);
}

/// I41, section 4: at most 32 batches are in flight; a replica that sends more breaks the protocol
/// instead of filling the server's memory.
#[test]
fn more_than_32_batches_in_flight_close_the_connection() {
    let (mut played, _) = Played::open(0, Role::Editor);
    for counter in 1..=MAX_BATCHES_IN_FLIGHT as u64 {
        assert_eq!(deciding(&played.push(counter)), [counter]);
    }
    played.answer(1, accepted());
    assert_eq!(deciding(&played.push(33)), [33]);
    ends_with_after_detach(&played.push(34));
}

/// R8.1: a viewer's batch is not decided; a batch of another device closes the connection.
#[test]
fn pushes_are_checked_before_they_are_decided() {
    let (mut played, _) = Played::open(0, Role::Viewer);
    let outputs = played.push(1);
    assert!(matches!(&sent(&outputs)[..], [Message::Notice(_)]));
    assert_eq!(deciding(&outputs), [] as [u64; 0]);
    let (mut played, _) = Played::open(0, Role::Editor);
    let mut forged = batch(Kind::Good, 1, 1);
    forged.device = DeviceId([0xe; 16]);
    ends_with_after_detach(&played.says(&Message::Push { attachment: 1, batch: forged }));
}

proptest! {
    #![proptest_config(crate::cases())]

    /// R11.1: whatever a replica says, in whatever order, the session does not panic, decides only
    /// batches of the device that said Hello, and after it has closed wants nothing more.
    #[test]
    fn no_replica_can_break_the_session(
        says in vec((crate::strategies::message(), 0..4_u64, any::<bool>(), 0..5_u8), 1..30),
    ) {
        let (mut played, mut outputs) = Played::open(4, Role::Editor);
        for (message, small, raw, store) in says {
            let message = if raw { message } else { crate::strategies::fitted(message, small) };
            outputs.extend(played.says(&message));
            for output in core::mem::take(&mut outputs) {
                if let Output::Decide { batch, .. } = &output {
                    prop_assert_eq!(batch.device, DEVICE);
                }
                outputs.extend(played.stores(output, store));
            }
        }
    }
}

/// Section 4: a forked device and an older attachment are told and not served any more.
#[test]
fn an_evicted_attachment_is_told_why() {
    let (mut played, _) = Played::open(0, Role::Editor);
    played.push(1);
    let outputs = played.answer(1, PushAnswer::Forked { message: "twice".into() });
    let forked = AttachRefusal::DeviceForked;
    assert!(matches!(&sent(&outputs)[..], [Message::Refused { code, .. }] if *code == forked));
    assert!(outputs.contains(&Output::Detached { attachment: 1 }));
    assert_eq!(played.push(2), []);
    let (mut played, _) = Played::open(0, Role::Editor);
    let (code, message) = (AttachRefusal::Fenced, "another connection".into());
    let outputs = played.tell(Input::Evict { attachment: 1, code, message });
    assert!(matches!(&sent(&outputs)[..], [Message::Refused { code: AttachRefusal::Fenced, .. }]));
}

/// B12, I39: whose membership ends is told so and served no more, whether it is known from the
/// members or from a batch that came too late; the other workspaces of the connection go on. A
/// token that counts no more ends the connection.
#[test]
fn a_revoked_attachment_ends_and_no_other() {
    for from_batch in [false, true] {
        let (mut played, _) = Played::open(0, Role::Editor);
        played.says(&attach(2, "other"));
        played.tell(attached(2, 0, Role::Editor));
        played.push(1);
        played.push(2);
        let outputs = match from_batch {
            true => played.answer(1, PushAnswer::Revoked),
            false => played.tell(Input::Revoked { attachment: 1 }),
        };
        let revoked = Message::Notice(Notice::Revoked { attachment: 1 });
        assert_eq!(sent(&outputs), [revoked]);
        assert!(outputs.contains(&Output::Detached { attachment: 1 }));
        assert_eq!(played.tell(Input::Revoked { attachment: 1 }), [], "it is told once");
        assert_eq!(played.answer(2, PushAnswer::Ignored), []);
        assert_eq!(played.push(3), []);
        assert_eq!(played.tell(Input::Head { attachment: 1, head: 9, horizon: 0 }), []);
        let outputs = played.tell(Input::Head { attachment: 2, head: 9, horizon: 0 });
        assert!(matches!(outputs[..], [Output::ReadPage { attachment: 2, .. }]), "{outputs:?}");
        let gone = Err("not any more".into());
        let outputs = played.tell(Input::Authenticated { result: gone, server_time_ms: 5 });
        ends_with(&outputs, ErrorCode::Unauthenticated);
    }
}

/// The story: a text longer than the limit was sent, and the peer could not decode the message
/// that was to tell it why.
#[test]
fn long_texts_are_cut_to_what_a_peer_takes() {
    let long = "ü".repeat(MAX_TEXT_BYTES);
    let (mut played, _) = Played::open(0, Role::Editor);
    let (code, message) = (AttachRefusal::Forbidden, long.clone());
    let outputs = played.tell(Input::Evict { attachment: 1, code, message });
    assert!(matches!(&sent(&outputs)[..], [Message::Refused { message, .. }]
        if message.len() == MAX_TEXT_BYTES));
    let mut played = Played::new();
    played.says(&hello(1, 1));
    let outputs = played.tell(Input::Authenticated { result: Err(long), server_time_ms: 5 });
    ends_with(&outputs, ErrorCode::Unauthenticated);
    let Some(Output::Close { reason, .. }) = outputs.last() else { panic!() };
    assert!(reason.len() <= MAX_CLOSE_REASON_BYTES);
}

/// I41. The story: the decisions of a device that was away were sent in one message, whatever
/// their size; one above the limit is not read, and the device could not attach any more.
#[test]
fn an_attached_that_would_be_too_big_carries_fewer_decisions() {
    let dropped = (0..500).map(|n| format!("{n}{}", "n".repeat(1000))).collect();
    let verdicts = vec![Verdict::Applied { dropped }];
    let decision = Decision::Accepted { first_seq: 1, last_seq: 1, time_ms: 1, verdicts };
    let decisions = (1..=10).map(|counter| Decided {
        counter,
        batch_id: BatchId([1; 16]),
        decision: decision.clone(),
    });
    let decisions: Vec<Decided> = decisions.collect();
    let Input::AttachAnswer { result: Ok(attached), .. } = attached(1, 0, Role::Editor) else {
        panic!()
    };
    let attached = Attached { decisions: decisions.clone(), ..attached };
    let mut played = Played::welcomed();
    played.says(&attach(1, "team"));
    let outputs = played.tell(Input::AttachAnswer { attachment: 1, result: Ok(attached) });
    let messages = sent(&outputs);
    let [Message::Attached(found)] = &messages[..] else { panic!() };
    assert!(to_bytes(&messages[0]).len() <= MAX_MESSAGE_BYTES);
    assert!(!found.decisions.is_empty() && decisions.starts_with(&found.decisions));
}
