//! The replica's session alone, against a server that is played by hand.

use lastword_core::codec::{from_bytes, to_bytes};
use lastword_core::id::{BatchId, DeviceId, Epoch, WorkspaceName};
use lastword_core::limits::{
    MAX_BATCHES_IN_FLIGHT, MAX_MESSAGE_BYTES, MAX_RETRY_AFTER_MS, MAX_TOKEN_BYTES,
};
use lastword_core::op::Batch;
use lastword_core::protocol::replica::{
    Input, Output, ReplicaSession, StopReason, SyncStatus, WorkspaceState,
};
use lastword_core::protocol::{
    AttachRefusal, Attached, Changes, Decided, ErrorCode, Message, Notice, ResetReason, Role,
    Welcome,
};
use lastword_core::stamp::{Decision, RefusalCode};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{Kind, batch, config, workspace};

/// A session, the time, and what it wanted since it was asked last.
struct Played {
    session: ReplicaSession,
    now: u64,
}

fn other() -> WorkspaceName {
    WorkspaceName::new("other").unwrap()
}

fn state(decided: u64, written: u64) -> WorkspaceState {
    WorkspaceState { decided, written, ..WorkspaceState::default() }
}

pub fn attached(attachment: u64, last_counter: u64) -> Attached {
    Attached {
        attachment,
        epoch: Epoch([9; 16]),
        lineage: vec![],
        schema: vec![],
        head: 0,
        horizon: 0,
        role: Role::Editor,
        reset: None,
        cover: [0; 16],
        last_counter,
        decisions: vec![],
    }
}

pub fn welcome(version: u64) -> Message {
    Message::Welcome(Welcome {
        version,
        server_time_ms: 0,
        max_message_bytes: 0,
        max_record_bytes: 0,
        max_batch_bytes: 0,
        max_batch_ops: 0,
        max_batches_in_flight: 0,
    })
}

fn accepted(counter: u64) -> Decided {
    let decision =
        Decision::Accepted { first_seq: counter, last_seq: counter, time_ms: 1, verdicts: vec![] };
    Decided { counter, batch_id: BatchId([1; 16]), decision }
}

fn refused(counter: u64) -> Decided {
    let (code, message) = (RefusalCode::Policy, "no".into());
    Decided { decision: Decision::Refused { code, message, time_ms: 1 }, ..accepted(counter) }
}

fn batches(range: std::ops::RangeInclusive<u64>) -> Vec<Batch> {
    range.map(|counter| batch(Kind::Good, counter as u8, counter)).collect()
}

impl Played {
    fn new() -> Self {
        Self { session: ReplicaSession::new(config()), now: 1000 }
    }

    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.session.input(self.now, input);
        core::iter::from_fn(|| self.session.poll()).collect()
    }

    fn says(&mut self, message: &Message) -> Vec<Output> {
        self.tell(Input::Message(to_bytes(message)))
    }

    /// Until the server has said Welcome; the answers to it are returned.
    fn connect(&mut self) -> Vec<Output> {
        self.tell(Input::Connected);
        self.tell(Input::Token(Ok("token".into())));
        self.says(&welcome(1))
    }

    /// Attached as number 1, and stored; what it asked for then is returned.
    fn open(state: WorkspaceState) -> (Self, Vec<Output>) {
        let mut played = Self::new();
        played.tell(Input::Start);
        played.tell(Input::Attach { workspace: workspace(), state: state.clone() });
        assert!(matches!(sent(&played.connect())[..], [Message::Attach(_)]));
        let outputs = played.says(&Message::Attached(attached(1, state.decided)));
        assert!(matches!(outputs[..], [Output::StoreAttached { .. }]), "{outputs:?}");
        let state = WorkspaceState { epoch: Some(Epoch([9; 16])), ..state };
        let outputs = played.tell(Input::AttachStored { workspace: workspace(), state });
        (played, outputs)
    }

    fn outbox(&mut self, batches: Vec<Batch>) -> Vec<Output> {
        self.tell(Input::Outbox { workspace: workspace(), batches })
    }
}

fn sent(outputs: &[Output]) -> Vec<Message> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send(bytes) => Some(from_bytes(bytes).unwrap()),
        _ => None,
    });
    sent.collect()
}

fn pushed(outputs: &[Output]) -> Vec<u64> {
    let pushed = sent(outputs).into_iter().filter_map(|message| match message {
        Message::Push { batch, .. } => Some(batch.counter),
        _ => None,
    });
    pushed.collect()
}

fn reads(outputs: &[Output]) -> Vec<u64> {
    let reads = outputs.iter().filter_map(|output| match output {
        Output::ReadOutbox { after, .. } => Some(*after),
        _ => None,
    });
    reads.collect()
}

fn statuses(outputs: &[Output]) -> Vec<SyncStatus> {
    let statuses = outputs.iter().filter_map(|output| match output {
        Output::Status { status, .. } => Some(status.clone()),
        _ => None,
    });
    statuses.collect()
}

fn wakes(outputs: &[Output]) -> Vec<u64> {
    let wakes = outputs.iter().filter_map(|output| match output {
        Output::WakeAt(at) => Some(*at),
        _ => None,
    });
    wakes.collect()
}

fn closes(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Close { .. }))
}

fn retry_after(attachment: u64, counter: u64, retry_ms: u64) -> Message {
    Message::Notice(Notice::RetryAfter { attachment, counter, retry_ms, message: "later".into() })
}

/// Section 4: at most 32 batches are in flight; each verdict makes room for one more.
#[test]
fn at_most_32_batches_are_in_flight() {
    let (mut played, mut outputs) = Played::open(state(0, 100));
    let mut in_flight = vec![];
    while let [after] = reads(&outputs)[..] {
        outputs = played.outbox(batches(after + 1..=after + 8));
        in_flight.extend(pushed(&outputs));
    }
    assert_eq!(in_flight, (1..=MAX_BATCHES_IN_FLIGHT as u64).collect::<Vec<_>>());
    let outputs = played.says(&Message::Ack { attachment: 1, decisions: vec![accepted(1)] });
    assert_eq!(reads(&outputs), [32]);
    assert_eq!(pushed(&played.outbox(batches(33..=33))), [33]);
}

/// Section 4: nothing is pushed between a refusal and Resume.
#[test]
fn nothing_is_pushed_between_a_refusal_and_resume() {
    let (mut played, _) = Played::open(state(0, 2));
    assert_eq!(pushed(&played.outbox(batches(1..=2))), [1, 2]);
    let outputs = played.says(&Message::Ack { attachment: 1, decisions: vec![refused(1)] });
    assert!(matches!(outputs[..], [Output::StoreDecisions { .. }]));
    let news = Input::Written { workspace: workspace(), counter: 3 };
    assert_eq!(played.tell(news), []);
    let outputs = played.tell(Input::DeadLettered {
        workspace: workspace(),
        refused: 1,
        decided: 1,
        written: 3,
    });
    assert_eq!(sent(&outputs), [Message::Resume { attachment: 1, counter: 1 }]);
    assert_eq!(reads(&outputs), [1]);
    assert_eq!(pushed(&played.outbox(batches(2..=3))), [2, 3]);
}

/// Section 4. The story: the outbox was being read when the refusal was stored; the answer, with
/// the old numbering, was taken for that of the read after Resume, and a batch that was in the
/// dead letters already went out.
#[test]
fn what_was_read_before_a_refusal_is_not_pushed_after_it() {
    let (mut played, _) = Played::open(state(0, 1));
    let outputs = played.outbox(batches(1..=1));
    assert_eq!(pushed(&outputs), [1]);
    let outputs = played.tell(Input::Written { workspace: workspace(), counter: 3 });
    assert_eq!(reads(&outputs), [1]);
    played.says(&Message::Ack { attachment: 1, decisions: vec![refused(1)] });
    let (refused, decided, written) = (1, 1, 2);
    let dead = Input::DeadLettered { workspace: workspace(), refused, decided, written };
    assert_eq!(reads(&played.tell(dead)), [] as [u64; 0]);
    let outputs = played.outbox(batches(2..=3));
    assert_eq!((pushed(&outputs), reads(&outputs)), (vec![], vec![1]));
    assert_eq!(pushed(&played.outbox(batches(2..=2))), [2]);
}

/// I28. The story: a wait was over while the outbox was still being read; the answer began after
/// the batch that had to come again, so nothing was pushed until the next local write.
#[test]
fn what_was_read_before_a_wait_is_read_again() {
    let (mut played, _) = Played::open(state(0, 1));
    played.outbox(batches(1..=1));
    assert_eq!(reads(&played.tell(Input::Written { workspace: workspace(), counter: 2 })), [1]);
    played.says(&retry_after(1, 1, 50));
    played.now += 50;
    assert_eq!(pushed(&played.tell(Input::Time)), [] as [u64; 0]);
    assert_eq!(reads(&played.outbox(batches(2..=2))), [0]);
    assert_eq!(pushed(&played.outbox(batches(1..=2))), [1, 2]);
}

/// I28. The story: the store answered with the last counter as it was before a local write, the
/// session had heard of the write in between, and forgot it: the batch stayed on the device until
/// the next write.
#[test]
fn a_write_that_was_told_of_is_not_forgotten() {
    let mut played = Played::new();
    played.tell(Input::Start);
    played.tell(Input::Attach { workspace: workspace(), state: state(0, 0) });
    played.connect();
    played.says(&Message::Attached(attached(1, 0)));
    played.tell(Input::Written { workspace: workspace(), counter: 1 });
    let old = WorkspaceState { epoch: Some(Epoch([9; 16])), ..state(0, 0) };
    let outputs = played.tell(Input::AttachStored { workspace: workspace(), state: old });
    assert_eq!(reads(&outputs), [0]);
    assert_eq!(pushed(&played.outbox(batches(1..=1))), [1]);
    played.says(&Message::Ack { attachment: 1, decisions: vec![refused(1)] });
    played.tell(Input::Written { workspace: workspace(), counter: 2 });
    let (refused, decided, written) = (1, 1, 1);
    let dead = Input::DeadLettered { workspace: workspace(), refused, decided, written };
    assert_eq!(reads(&played.tell(dead)), [1]);
}

/// Section 4: RetryAfter makes the same batch come again, after the wait, and everything behind it.
#[test]
fn retry_after_sends_the_same_batches_again() {
    let (mut played, _) = Played::open(state(0, 3));
    assert_eq!(pushed(&played.outbox(batches(1..=3))), [1, 2, 3]);
    let outputs = played.says(&retry_after(1, 2, 700));
    assert_eq!(wakes(&outputs), [played.now + 700]);
    played.now += 699;
    assert_eq!(pushed(&played.tell(Input::Time)), [] as [u64; 0]);
    let outputs = played.tell(Input::Written { workspace: workspace(), counter: 4 });
    assert_eq!(reads(&outputs), [] as [u64; 0]);
    played.now += 1;
    assert_eq!(reads(&played.tell(Input::Time)), [1]);
    assert_eq!(pushed(&played.outbox(batches(2..=4))), [2, 3, 4]);
}

/// B3, I19. The story: the reason of a RetryAfter was dropped, the status stayed live, and whoever
/// waited for the outbox waited in silence. It is kept until a batch is decided.
#[test]
fn why_batches_are_put_off_is_told_until_one_is_decided() {
    let (mut played, _) = Played::open(state(0, 2));
    assert_eq!(pushed(&played.outbox(batches(1..=2))), [1, 2]);
    let held = |retry_at_ms| SyncStatus::Held { head: 0, why: "later".into(), retry_at_ms };
    assert_eq!(statuses(&played.says(&retry_after(1, 1, 700))), [held(played.now + 700)]);
    played.now += 700;
    let outputs = played.tell(Input::Time);
    assert_eq!((reads(&outputs), statuses(&outputs)), (vec![0], vec![]));
    played.outbox(batches(1..=2));
    assert_eq!(statuses(&played.says(&retry_after(1, 1, 900))), [held(played.now + 900)]);
    played.now += 900;
    played.tell(Input::Time);
    played.outbox(batches(1..=2));
    let outputs = played.says(&Message::Ack { attachment: 1, decisions: vec![accepted(1)] });
    assert_eq!(statuses(&outputs), [SyncStatus::Live { head: 0 }]);
}

/// R11.1. The story: a wait of 2^64 milliseconds overflowed the clock, and a RetryAfter of a batch
/// that was never sent left a hole in the counters that nothing could fill.
#[test]
fn a_senseless_retry_after_does_no_harm() {
    for counter in [0, 2, 9, u64::MAX] {
        let (mut played, _) = Played::open(state(1, 3));
        assert_eq!(pushed(&played.outbox(batches(2..=3))), [2, 3]);
        let outputs = played.says(&retry_after(1, counter, u64::MAX));
        assert_eq!(wakes(&outputs), [played.now + MAX_RETRY_AFTER_MS]);
        played.now += MAX_RETRY_AFTER_MS;
        let outputs = played.tell(Input::Time);
        if let [after] = reads(&outputs)[..] {
            assert_eq!(after, 1);
            assert_eq!(pushed(&played.outbox(batches(2..=3))), [2, 3]);
        }
        let decisions = vec![accepted(2), accepted(3)];
        let outputs = played.says(&Message::Ack { attachment: 1, decisions });
        let stored = outputs.first();
        assert!(matches!(stored, Some(Output::StoreDecisions { .. })), "{counter}: {outputs:?}");
    }
}

/// I28. The story: two workspaces had to wait; the driver keeps one wake-up, the later one was
/// asked for last, and the earlier wait was slept through.
#[test]
fn the_earliest_wake_up_is_asked_for() {
    let (mut played, _) = Played::open(state(0, 1));
    played.outbox(batches(1..=1));
    played.tell(Input::Attach { workspace: other(), state: state(0, 1) });
    played.says(&Message::Attached(attached(2, 0)));
    let with_epoch = WorkspaceState { epoch: Some(Epoch([9; 16])), ..state(0, 1) };
    played.tell(Input::AttachStored { workspace: other(), state: with_epoch });
    played.tell(Input::Outbox { workspace: other(), batches: batches(1..=1) });
    let begin = played.now;
    assert_eq!(wakes(&played.says(&retry_after(1, 1, 100))), [begin + 100]);
    assert_eq!(wakes(&played.says(&retry_after(2, 1, 9000))), [] as [u64; 0]);
    played.now += 100;
    let outputs = played.tell(Input::Time);
    assert_eq!((reads(&outputs), wakes(&outputs)), (vec![0], vec![begin + 9000]));
    // A wake-up that comes early is asked for again.
    assert_eq!(wakes(&played.tell(Input::Time)), [begin + 9000]);
}

/// I20, I22. The story: the connection broke while a page was being stored. The next attachment
/// began before, named an older seq, and the page that came then overlapped with the stored one;
/// an Attached that was still being stored opened the new attachment for pushes.
#[test]
fn an_attachment_waits_for_what_is_being_stored() {
    let (mut played, _) = Played::open(state(0, 0));
    let page = Changes { attachment: 1, from: 0, to: 4, consistent_at: Some(4), entries: vec![] };
    let outputs = played.says(&Message::Changes(page));
    assert!(matches!(outputs[..], [Output::StoreChanges { .. }]));
    let outputs = played.tell(Input::Disconnected { reason: "cut".into() });
    let [SyncStatus::Offline { retry_at_ms, .. }] = statuses(&outputs)[..] else { panic!() };
    played.now = retry_at_ms;
    assert!(played.tell(Input::Time).contains(&Output::Connect));
    assert_eq!(sent(&played.connect()), []);
    let stored =
        Input::ChangesStored { workspace: workspace(), received_to: 4, cursor: 4, walk: None };
    let messages = sent(&played.tell(stored));
    let [Message::Attach(attach)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((attach.attachment, attach.received_to, attach.cursor), (2, 4, 4));
}

/// Section 5: a page goes on where the last one ended; anything else ends the connection.
#[test]
fn a_page_that_does_not_follow_ends_the_connection() {
    let page =
        |from, to, at| Changes { attachment: 1, from, to, consistent_at: at, entries: vec![] };
    for bad in [page(1, 4, None), page(0, 4, Some(3)), page(0, 4, Some(5))] {
        let (mut played, _) = Played::open(state(0, 0));
        let outputs = played.says(&Message::Changes(bad));
        assert!(matches!(sent(&outputs)[..], [Message::Error { code: ErrorCode::Protocol, .. }]));
        assert!(closes(&outputs));
    }
}

/// Section 4: decisions come in counter order, each once; a gap would lose one.
#[test]
fn decisions_out_of_order_end_the_connection() {
    for bad in [vec![accepted(2)], vec![accepted(1), accepted(3)], vec![refused(1), accepted(2)]] {
        let (mut played, _) = Played::open(state(0, 3));
        played.outbox(batches(1..=3));
        let outputs = played.says(&Message::Ack { attachment: 1, decisions: bad });
        assert!(closes(&outputs), "{outputs:?}");
        assert!(!outputs.iter().any(|output| matches!(output, Output::StoreDecisions { .. })));
    }
}

/// R8.1, section 4: each refusal of an attachment stops its workspace with its reason, and only it.
#[test]
fn a_refused_attachment_stops_with_its_reason() {
    for (code, why) in [
        (AttachRefusal::Forbidden, StopReason::Forbidden),
        (AttachRefusal::Fenced, StopReason::Fenced),
        (AttachRefusal::AppTooOld, StopReason::AppTooOld),
        (AttachRefusal::WorkspaceDeleted, StopReason::WorkspaceDeleted),
    ] {
        let (mut played, _) = Played::open(state(0, 0));
        let message = "why".to_owned();
        let refused = Message::Refused { attachment: 1, code, message: message.clone() };
        let outputs = played.says(&refused);
        match &statuses(&outputs)[..] {
            [SyncStatus::Stopped { why: told, message: text }] => {
                assert!(*told == why && text.contains(&message), "{told:?} {text}");
            }
            other => panic!("{other:?}"),
        }
        assert!(!closes(&outputs));
        let news = Input::Written { workspace: workspace(), counter: 1 };
        assert_eq!(played.tell(news), [], "a stopped workspace is quiet");
    }
    let (mut played, _) = Played::open(state(0, 0));
    let outputs = played.says(&Message::Notice(Notice::Revoked { attachment: 1 }));
    let [SyncStatus::Stopped { why: StopReason::Forbidden, .. }] = statuses(&outputs)[..] else {
        panic!("{outputs:?}")
    };
}

/// I39, section 4: a device whose role has changed attaches again at once, on the same connection,
/// and sends what waits, also what was put off for a while as a viewer's; it is not told as a stop.
#[test]
fn another_role_attaches_anew_at_once() {
    let (mut played, _) = Played::open(state(0, 2));
    assert_eq!(pushed(&played.outbox(batches(1..=2))), [1, 2]);
    let (counter, retry_ms, message) = (1, 60_000, "viewer".into());
    let held = Notice::RetryAfter { attachment: 1, counter, retry_ms, message };
    assert!(matches!(
        statuses(&played.says(&Message::Notice(held)))[..],
        [SyncStatus::Held { .. }]
    ));
    let (code, message) = (AttachRefusal::RoleChanged, "editor".into());
    let outputs = played.says(&Message::Refused { attachment: 1, code, message });
    assert_eq!(statuses(&outputs), []);
    assert!(matches!(&sent(&outputs)[..], [Message::Attach(a)] if a.attachment == 2));
    played.says(&Message::Attached(attached(2, 0)));
    let state = WorkspaceState { epoch: Some(Epoch([9; 16])), ..state(0, 2) };
    let outputs = played.tell(Input::AttachStored { workspace: workspace(), state });
    assert!(matches!(statuses(&outputs)[..], [SyncStatus::Live { .. }]), "{outputs:?}");
    assert_eq!(reads(&outputs), [0]);
    assert_eq!(pushed(&played.outbox(batches(1..=2))), [1, 2]);
}

/// Section 6: another epoch stops the workspace and keeps everything. The story: the server went on
/// serving it, and asking for the workspace again on that connection broke the protocol.
#[test]
fn another_history_stops_and_is_given_back() {
    let known = WorkspaceState { epoch: Some(Epoch([8; 16])), ..state(0, 0) };
    let ahead = WorkspaceState { received_to: 7, ..state(0, 0) };
    let decided = state(3, 3);
    for state in [known, ahead, decided] {
        let mut played = Played::new();
        played.tell(Input::Start);
        played.tell(Input::Attach { workspace: workspace(), state: state.clone() });
        played.connect();
        let outputs = played.says(&Message::Attached(attached(1, 0)));
        let [SyncStatus::Stopped { why: StopReason::EpochChanged, .. }] = statuses(&outputs)[..]
        else {
            panic!("{outputs:?}")
        };
        assert_eq!(sent(&outputs), [Message::Detach { attachment: 1 }]);
        let outputs = played.tell(Input::Attach { workspace: workspace(), state: state.clone() });
        assert!(matches!(&sent(&outputs)[..], [Message::Attach(a)] if a.attachment == 2));
    }
}

/// Semantics, section 7: an app that declares a table otherwise than the server stops to sync that
/// workspace, gives the attachment back, and may ask again once it is mended.
#[test]
fn another_schema_stops_and_is_given_back() {
    let mut played = Played::new();
    played.tell(Input::Start);
    played.tell(Input::Attach { workspace: workspace(), state: state(0, 0) });
    played.connect();
    let outputs = played.says(&Message::Attached(attached(1, 0)));
    assert!(outputs.iter().any(|output| matches!(output, Output::StoreAttached { .. })));
    let message = "table notes".to_owned();
    let outputs = played.tell(Input::OtherSchema { workspace: workspace(), message });
    let [SyncStatus::Stopped { why: StopReason::OtherSchema, message }] = &statuses(&outputs)[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(message, "table notes");
    assert_eq!(sent(&outputs), [Message::Detach { attachment: 1 }]);
    let outputs = played.tell(Input::Attach { workspace: workspace(), state: state(0, 0) });
    assert!(matches!(&sent(&outputs)[..], [Message::Attach(a)] if a.attachment == 2));
}

/// I28. The story: one workspace too many closed the connection of all; each attach made the next
/// wait the shortest again, so the device came back ten times a second for ever.
#[test]
fn a_workspace_that_cannot_be_served_now_waits_alone() {
    for code in [AttachRefusal::TooMany, AttachRefusal::Unavailable] {
        let (mut played, _) = Played::open(state(0, 0));
        let message = "not now".to_owned();
        let outputs = played.says(&Message::Refused { attachment: 1, code, message });
        assert!(!closes(&outputs));
        let [SyncStatus::Offline { retry_at_ms, .. }] = statuses(&outputs)[..] else { panic!() };
        assert!(retry_at_ms >= played.now + 2500);
        assert_eq!(wakes(&outputs), [retry_at_ms]);
        played.now = retry_at_ms;
        let outputs = played.tell(Input::Time);
        assert!(matches!(&sent(&outputs)[..], [Message::Attach(a)] if a.attachment == 2));
    }
}

/// Design section 5: a wrong token and a missing version stop everything; asking again with another
/// attach tries again.
#[test]
fn errors_that_cannot_heal_stop_the_link() {
    for (code, why) in [
        (ErrorCode::Unauthenticated, StopReason::Unauthenticated),
        (ErrorCode::Version, StopReason::Version),
    ] {
        let (mut played, _) = Played::open(state(0, 0));
        let outputs = played.says(&Message::Error { code, message: "no".into() });
        assert_eq!(statuses(&outputs), [SyncStatus::Stopped { why, message: "no".into() }]);
        assert!(closes(&outputs));
        assert_eq!(played.tell(Input::Disconnected { reason: "closed".into() }), []);
        let attach = Input::Attach { workspace: other(), state: state(0, 0) };
        assert!(played.tell(attach).contains(&Output::Connect));
    }
    let mut played = Played::new();
    played.tell(Input::Start);
    played.tell(Input::Attach { workspace: workspace(), state: state(0, 0) });
    played.tell(Input::Connected);
    played.tell(Input::Token(Ok("token".into())));
    let (server_time_ms, max_batch_ops, max_batches_in_flight) = (0, 0, 0);
    let outputs = played.says(&Message::Welcome(Welcome {
        version: 3,
        server_time_ms,
        max_message_bytes: 0,
        max_record_bytes: 0,
        max_batch_bytes: 0,
        max_batch_ops,
        max_batches_in_flight,
    }));
    let stopped = statuses(&outputs);
    assert!(matches!(stopped[..], [SyncStatus::Stopped { why: StopReason::Version, .. }]));
}

/// The story: a token longer than a Hello may carry was sent, the server could not read the
/// message, and the device tried again for ever.
#[test]
fn a_token_that_no_hello_can_carry_stops_the_link() {
    let mut played = Played::new();
    played.tell(Input::Start);
    played.tell(Input::Attach { workspace: workspace(), state: state(0, 0) });
    played.tell(Input::Connected);
    let outputs = played.tell(Input::Token(Ok("t".repeat(MAX_TOKEN_BYTES + 1))));
    let stopped = statuses(&outputs);
    assert!(matches!(stopped[..], [SyncStatus::Stopped { why: StopReason::Unauthenticated, .. }]));
    assert_eq!(sent(&outputs), []);
}

proptest! {
    #![proptest_config(crate::cases())]

    /// R11.1: whatever a server says, in whatever order, the session neither panics nor pushes what
    /// it was not given, and ends up wanting a connection again or stopped.
    #[test]
    fn no_server_can_break_the_session(
        says in vec((crate::strategies::message(), 0..4_u64, any::<bool>()), 1..30),
    ) {
        let (mut played, mut outputs) = Played::open(state(2, 5));
        for (message, small, raw) in says {
            let message = if raw { message } else { crate::strategies::fitted(message, small) };
            played.now += small * 1000;
            outputs.extend(played.says(&message));
            outputs.extend(played.tell(Input::Time));
            for counter in pushed(&outputs) {
                prop_assert!((3..=5).contains(&counter), "{}", counter);
            }
            if let Some(after) = reads(&outputs).pop() {
                prop_assert!((2..=5).contains(&after), "{}", after);
                outputs = played.outbox(batches(after + 1..=5));
            }
        }
    }
}

/// The story: a workspace was stopped, the server closed, and nothing was left to sync. One that
/// the app asked for after that never got a connection.
#[test]
fn a_workspace_asked_for_after_all_have_stopped_gets_a_connection() {
    let (mut played, _) = Played::open(state(0, 0));
    let code = AttachRefusal::Forbidden;
    played.says(&Message::Refused { attachment: 1, code, message: String::new() });
    played.tell(Input::Disconnected { reason: "closed".into() });
    let outputs = played.tell(Input::Attach { workspace: other(), state: state(0, 0) });
    assert!(outputs.contains(&Output::Connect));
}

/// R11.1: bytes that are no message, too many of them, or one that only a server takes, end the
/// connection with a protocol error; what comes after is not heard.
#[test]
fn malformed_messages_end_the_connection() {
    let for_a_server = to_bytes(&Message::Detach { attachment: 1 });
    for bytes in [vec![], vec![99], vec![2, 0], vec![0; MAX_MESSAGE_BYTES + 1], for_a_server] {
        let (mut played, _) = Played::open(state(0, 0));
        let outputs = played.tell(Input::Message(bytes.clone()));
        assert!(matches!(sent(&outputs)[..], [Message::Error { code: ErrorCode::Protocol, .. }]));
        assert!(closes(&outputs));
        assert!(matches!(statuses(&outputs)[..], [SyncStatus::Offline { .. }]));
        assert_eq!(played.tell(Input::Message(bytes)), []);
    }
}

/// I28, R3.5: attempts are spread and rarer each time; a connection that brought something or that
/// lasted begins anew. The story: being attached was enough, so a device whose batch made the
/// server hang up came back ten times a second.
#[test]
fn reconnects_back_off_until_something_was_achieved() {
    let (mut played, _) = Played::open(state(0, 1));
    let mut last_wait = 0;
    for attachment in 2..12 {
        let outputs = played.tell(Input::Disconnected { reason: "cut".into() });
        let [SyncStatus::Offline { retry_at_ms, .. }] = statuses(&outputs)[..] else { panic!() };
        assert_eq!(wakes(&outputs), [retry_at_ms]);
        last_wait = retry_at_ms - played.now;
        assert!(last_wait <= 15_000);
        played.tell(Input::Outbox { workspace: workspace(), batches: vec![] });
        played.now = retry_at_ms;
        played.tell(Input::Time);
        played.connect();
        played.says(&Message::Attached(attached(attachment, 0)));
        let stored = WorkspaceState { epoch: Some(Epoch([9; 16])), ..state(0, 1) };
        played.tell(Input::AttachStored { workspace: workspace(), state: stored });
    }
    assert!(last_wait >= 7_500, "{last_wait}");
    played.outbox(batches(1..=1));
    played.says(&Message::Ack { attachment: 11, decisions: vec![accepted(1)] });
    played.tell(Input::DecisionsStored { workspace: workspace(), decided: 1 });
    let outputs = played.tell(Input::Disconnected { reason: "cut".into() });
    let [SyncStatus::Offline { retry_at_ms, .. }] = statuses(&outputs)[..] else { panic!() };
    assert!(retry_at_ms <= played.now + 100);
}

/// The app's stop is heard at once, also while a connection is being made, and start begins anew.
#[test]
fn stop_and_start_leave_nothing_behind() {
    let mut played = Played::new();
    played.tell(Input::Start);
    played.tell(Input::Attach { workspace: workspace(), state: state(0, 0) });
    let outputs = played.tell(Input::Stop);
    assert_eq!(statuses(&outputs), [SyncStatus::Idle]);
    assert!(closes(&played.tell(Input::Connected)), "a connection that is not wanted any more");
    assert_eq!(played.tell(Input::Time), []);
    assert!(played.tell(Input::Start).contains(&Output::Connect));
    assert_eq!(played.tell(Input::Start), []);
    let messages = sent(&played.connect());
    assert!(matches!(&messages[..], [Message::Attach(_)]));
    let attach = Input::Attach { workspace: workspace(), state: state(0, 0) };
    assert_eq!(sent(&played.tell(attach)), [], "asked for twice, attached once");
}

/// Section 5: told to begin anew, the session takes pages from 0, also if it had more, and is not
/// in step before the new copy is consistent; a page that goes on where the old copy ended is a
/// breach.
#[test]
fn a_reset_begins_at_zero() {
    let known = WorkspaceState {
        epoch: Some(Epoch([9; 16])),
        cursor: 9,
        received_to: 9,
        horizon: 4,
        ..state(0, 0)
    };
    let begin = || {
        let mut played = Played::new();
        played.tell(Input::Start);
        played.tell(Input::Attach { workspace: workspace(), state: known.clone() });
        played.connect();
        let reset = Some(ResetReason::BehindHorizon);
        let theirs = Attached { horizon: 10, head: 20, reset, ..attached(1, 0) };
        let outputs = played.says(&Message::Attached(theirs));
        assert!(matches!(&outputs[..], [Output::StoreAttached { .. }]), "{outputs:?}");
        let state = WorkspaceState { cursor: 0, received_to: 0, horizon: 10, ..known.clone() };
        let outputs = played.tell(Input::AttachStored { workspace: workspace(), state });
        assert_eq!(statuses(&outputs), [SyncStatus::CatchingUp { done: 0, to_go: 20 }]);
        played
    };
    let page = |from, to| {
        let consistent_at = (to == 20).then_some(20);
        Message::Changes(Changes { attachment: 1, from, to, consistent_at, entries: vec![] })
    };
    assert!(closes(&begin().says(&page(9, 20))));
    let mut played = begin();
    let outputs = played.says(&page(0, 20));
    assert!(matches!(outputs[..], [Output::StoreChanges { .. }]));
    let (received_to, cursor) = (20, 20);
    let stored = Input::ChangesStored { workspace: workspace(), received_to, cursor, walk: None };
    assert_eq!(statuses(&played.tell(stored)), [SyncStatus::Live { head: 20 }]);
}

/// Section 5. The story: the pages of a reset came while Attached was being stored, and were handed
/// to the store too. It did not take the reset, since the schema was not that of the app, and took
/// the pages into the visible copy: the cursor passed deletes that nobody knows any more.
#[test]
fn no_page_is_stored_before_its_attached_is() {
    let known = WorkspaceState {
        epoch: Some(Epoch([9; 16])),
        cursor: 9,
        received_to: 9,
        horizon: 4,
        ..state(0, 0)
    };
    let begin = || {
        let mut played = Played::new();
        played.tell(Input::Start);
        played.tell(Input::Attach { workspace: workspace(), state: known.clone() });
        played.connect();
        let reset = Some(ResetReason::BehindHorizon);
        let theirs = Attached { horizon: 10, head: 20, reset, ..attached(1, 0) };
        played.says(&Message::Attached(theirs));
        let page =
            Changes { attachment: 1, from: 0, to: 20, consistent_at: Some(20), entries: vec![] };
        assert_eq!(played.says(&Message::Changes(page)), []);
        let moved = Notice::Horizon { attachment: 1, horizon: 20 };
        assert_eq!(played.says(&Message::Notice(moved)), []);
        played
    };
    let stored = |outputs: Vec<Output>| {
        let is_stored = |output: &Output| {
            matches!(output, Output::StoreChanges { .. } | Output::StoreHorizon { .. })
        };
        outputs.into_iter().filter(is_stored).collect::<Vec<_>>()
    };
    let message = "update the app".into();
    let other = Input::OtherSchema { workspace: workspace(), message };
    assert_eq!(stored(begin().tell(other)), []);
    let forked = Input::Forked { workspace: workspace(), counter: 1 };
    assert_eq!(stored(begin().tell(forked)), []);
    let state = WorkspaceState { cursor: 0, received_to: 0, horizon: 10, ..known.clone() };
    let outputs = begin().tell(Input::AttachStored { workspace: workspace(), state });
    assert!(
        matches!(
            &stored(outputs)[..],
            [Output::StoreChanges { .. }, Output::StoreHorizon { horizon: 20, .. }]
        ),
        "in their order"
    );
}

/// R6, section 5: a horizon is stored behind the pages up to it, and named at the next attach; one
/// before them would let this device forget deletes that it has not seen.
#[test]
fn a_horizon_comes_behind_the_pages_up_to_it() {
    let horizon = |horizon| Message::Notice(Notice::Horizon { attachment: 1, horizon });
    let known = WorkspaceState { cursor: 9, received_to: 9, ..state(0, 0) };
    let theirs = || Attached { head: 9, ..attached(1, 0) };
    let begin = || {
        let mut played = Played::new();
        played.tell(Input::Start);
        played.tell(Input::Attach { workspace: workspace(), state: known.clone() });
        played.connect();
        played.says(&Message::Attached(theirs()));
        let state = WorkspaceState { epoch: Some(Epoch([9; 16])), ..known.clone() };
        played.tell(Input::AttachStored { workspace: workspace(), state });
        played
    };
    assert!(closes(&begin().says(&horizon(10))));
    let mut played = begin();
    let outputs = played.says(&horizon(9));
    assert!(matches!(outputs[..], [Output::StoreHorizon { horizon: 9, .. }]), "{outputs:?}");
    played.tell(Input::HorizonStored { workspace: workspace(), horizon: 9 });
    played.tell(Input::Disconnected { reason: "cut".into() });
    played.now += 1000;
    played.tell(Input::Time);
    let messages = sent(&played.connect());
    let [Message::Attach(attach)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((attach.received_to, attach.horizon), (9, 9));
}

/// Section 4: a device id that is used twice is given up. Nothing is said under it any more, also
/// not by a connection that is asked for meanwhile; after a few new ids that do not help, the
/// workspace stops instead of making new ones for ever.
#[test]
fn a_forked_device_goes_on_under_a_new_id() {
    let mut played = Played::new();
    played.tell(Input::Start);
    played.tell(Input::Attach { workspace: workspace(), state: state(0, 2) });
    played.connect();
    for fork in 1..=3 {
        let outputs = played.says(&Message::Attached(attached(u64::from(fork), 7)));
        assert!(closes(&outputs) && outputs.contains(&Output::StoreFork), "{outputs:?}");
        let outputs = played.tell(Input::Start);
        assert!(!outputs.contains(&Output::Connect), "under the old id");
        let device = DeviceId([100 + fork; 16]);
        let states = vec![(workspace(), state(0, 2))];
        let outputs = played.tell(Input::ForkStored { device, states });
        assert!(outputs.contains(&Output::Connect), "{outputs:?}");
        let connected = played.tell(Input::Connected);
        assert!(matches!(connected[..], [Output::FetchToken]));
        let hello = sent(&played.tell(Input::Token(Ok("token".into()))));
        assert!(matches!(&hello[..], [Message::Hello(hello)] if hello.device == device));
        played.says(&welcome(1));
    }
    let outputs = played.says(&Message::Attached(attached(4, 7)));
    let [SyncStatus::Stopped { why: StopReason::DeviceForked, .. }] = statuses(&outputs)[..] else {
        panic!("{outputs:?}")
    };
}
