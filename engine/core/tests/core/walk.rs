//! A walk, as both sessions see it: a copy of nothing begins with the rows in the order of their
//! names, goes on where it broke off, and is consistent only once changes have come behind it.

use lastword_core::codec::{from_bytes, to_bytes};
use lastword_core::id::{Epoch, Key, TableName, WorkspaceName};
use lastword_core::limits::MAX_PAGES_IN_FLIGHT;
use lastword_core::protocol::authority::{
    self, AuthoritySession, Output as FromAuthority, PageFrom, Principal,
};
use lastword_core::protocol::replica::{
    Input, Output, ReplicaSession, StopReason, SyncStatus, WorkspaceState,
};
use lastword_core::protocol::{
    Attach, AttachRefusal, Attached, Changes, Entry, Hello, Message, WalkPage, WalkPlace,
};

use crate::replica::{attached, welcome};
use crate::samples;
use crate::world::{DEVICE, config, workspace};

type Name = (TableName, Key);

fn name(key: &str) -> Name {
    (TableName::new("notes").unwrap(), Key::new(key).unwrap())
}

fn place(base: u64, key: &str) -> WalkPlace {
    let (table, key) = name(key);
    WalkPlace { base, table, key }
}

fn rows(keys: &[&str]) -> Vec<Entry> {
    let (_, row, _) = samples::all_rows().into_iter().next().unwrap();
    let entry = |key: &&str| {
        let (table, key) = name(key);
        Entry::Row { table, key, row: row.clone() }
    };
    keys.iter().map(entry).collect()
}

fn page(base: u64, after: Option<&str>, is_last: bool, keys: &[&str]) -> WalkPage {
    WalkPage { attachment: 1, base, after: after.map(name), is_last, entries: rows(keys) }
}

struct Server(AuthoritySession);

impl Server {
    /// A server of a workspace with `head`, and a device of version `version` that attaches with
    /// this place.
    fn attached(version: u64, head: u64, walk: Option<WalkPlace>) -> (Self, Vec<FromAuthority>) {
        let mut server = Server(AuthoritySession::new().walking_from(5));
        let (token, agent, device) = ("token".into(), "test".into(), DEVICE);
        let (min_version, max_version) = (1, version);
        let hello = Hello { min_version, max_version, token, device, app_schema: 0, agent };
        server.says(&Message::Hello(hello));
        let result = Ok(Principal { user: "ann".into() });
        server.tell(authority::Input::Authenticated { result, server_time_ms: 5 });
        server.says(&Message::Attach(Attach {
            attachment: 1,
            workspace: WorkspaceName::new("team").unwrap(),
            epoch: None,
            cursor: 0,
            received_to: 0,
            horizon: 0,
            cover: [0; 16],
            nonce: [1; 16],
            decided: 0,
            walk,
            scope: vec![],
        }));
        let result = Ok(Attached { head, ..attached(1, 0) });
        let outputs = server.tell(authority::Input::AttachAnswer { attachment: 1, result });
        (server, outputs)
    }

    fn tell(&mut self, input: authority::Input) -> Vec<FromAuthority> {
        self.0.input(1000, input);
        core::iter::from_fn(|| self.0.poll()).collect()
    }

    fn says(&mut self, message: &Message) -> Vec<FromAuthority> {
        self.tell(authority::Input::Message(to_bytes(message)))
    }

    fn reads(&mut self, page: WalkPage, looked_to: Option<&str>) -> Vec<FromAuthority> {
        let looked_to = looked_to.map(name);
        self.tell(authority::Input::Walk { page, looked_to, head: 9, horizon: 0 })
    }
}

fn asked(outputs: &[FromAuthority]) -> Option<PageFrom> {
    outputs.iter().find_map(|output| match output {
        FromAuthority::ReadPage { from, .. } => Some(from.clone()),
        _ => None,
    })
}

fn said(outputs: &[FromAuthority]) -> Vec<Message> {
    let sent = outputs.iter().filter_map(|output| match output {
        FromAuthority::Send(bytes) => Some(from_bytes(bytes).unwrap()),
        _ => None,
    });
    sent.filter(|message| !matches!(message, Message::Attached(_))).collect()
}

fn walk(base: u64, after: Option<&str>, from: Option<&str>) -> Option<PageFrom> {
    Some(PageFrom::Walk { base, after: after.map(name), from: from.map(name) })
}

/// R2.1, I16. The story: a walk ended at the head, no change came behind it, and no page ever said
/// that the copy was consistent: the device waited for ever.
#[test]
fn a_copy_of_nothing_is_walked_and_then_said_to_be_consistent() {
    let (mut server, outputs) = Server::attached(2, 9, None);
    assert_eq!(asked(&outputs), walk(9, None, None));
    let first = page(9, None, false, &["a", "b"]);
    let outputs = server.reads(first.clone(), Some("b"));
    assert_eq!(said(&outputs), [Message::Walk(first)]);
    assert_eq!(asked(&outputs), walk(9, Some("b"), Some("b")));
    let last = page(9, Some("b"), true, &["c"]);
    let outputs = server.reads(last.clone(), None);
    assert_eq!(said(&outputs), [Message::Walk(last)]);
    assert_eq!(asked(&outputs), Some(PageFrom::Seq(9)));
    let (from, to, consistent_at) = (9, 9, Some(9));
    let end = Changes { attachment: 1, from, to, consistent_at, entries: vec![] };
    let outputs = server.tell(authority::Input::Page { attachment: 1, page: end, horizon: 0 });
    assert!(matches!(said(&outputs)[..], [Message::Changes(_)]));
    assert_eq!(asked(&outputs), None);
}

/// A device of the first version, and one of a small workspace, get changes; a walk that was begun
/// goes on, unless the server knows less than it began with.
#[test]
fn who_gets_a_walk_and_from_where() {
    let from = |version, head, place| asked(&Server::attached(version, head, place).1);
    assert_eq!(from(1, 9, None), Some(PageFrom::Seq(0)));
    assert_eq!(from(2, 4, None), Some(PageFrom::Seq(0)));
    assert_eq!(from(2, 4, Some(place(3, "m"))), walk(3, Some("m"), Some("m")));
    assert_eq!(from(2, 9, Some(place(10, "m"))), walk(9, None, None));
}

/// I38: what may not be shown is looked at and named to nobody, neither as a row nor as the place
/// where a page ends.
#[test]
fn records_that_may_not_be_shown_are_not_named_as_places() {
    let (mut server, _) = Server::attached(2, 9, None);
    server.reads(page(9, None, false, &["a"]), Some("hidden1"));
    let outputs = server.reads(page(9, Some("a"), false, &[]), Some("hidden2"));
    assert_eq!(said(&outputs), []);
    assert_eq!(asked(&outputs), walk(9, Some("a"), Some("hidden2")));
    let outputs = server.reads(page(9, Some("a"), true, &[]), None);
    assert_eq!(said(&outputs), [Message::Walk(page(9, Some("a"), true, &[]))]);
}

/// B1, I16. The story: a device was attached in the group that decided a write, and was told of
/// its seq; the first page of the walk was read from the view of before, and the changes behind the
/// walk began with the seq of the write: the device never got it.
#[test]
fn a_walk_begins_at_the_head_of_the_view_that_it_is_read_from() {
    let (mut server, _) = Server::attached(2, 9, None);
    let (page, looked_to) = (page(9, None, false, &["a"]), Some(name("a")));
    let first = authority::Input::Walk { page: page.clone(), looked_to, head: 7, horizon: 0 };
    let outputs = server.tell(first);
    assert_eq!(said(&outputs), [Message::Walk(WalkPage { base: 7, ..page })]);
    assert_eq!(asked(&outputs), walk(7, Some("a"), Some("a")));
    let last = super::walk::page(7, Some("a"), true, &["b"]);
    assert_eq!(asked(&server.reads(last, None)), Some(PageFrom::Seq(7)));
}

/// I41: pages of a walk need credit as all pages do, and each acknowledgement gives one back.
#[test]
fn a_walk_waits_for_credit() {
    let (mut server, mut outputs) = Server::attached(2, 9, None);
    let (mut pages, mut after) = (0, None);
    while asked(&outputs).is_some() && pages <= MAX_PAGES_IN_FLIGHT {
        let key = format!("k{pages:02}");
        outputs = server.reads(page(9, after.as_deref(), false, &[&key]), Some(&key));
        (after, pages) = (Some(key), pages + 1);
    }
    assert_eq!(pages, MAX_PAGES_IN_FLIGHT);
    let received = Message::Received { attachment: 1, received_to: 0, cursor: 0 };
    assert_eq!(asked(&server.says(&received)), walk(9, Some("k07"), Some("k07")));
}

/// B7: a record that the walk has shown may have been deleted and forgotten since: then the walk
/// ends, and the device begins anew.
#[test]
fn a_walk_does_not_go_on_behind_a_purge() {
    let (mut server, _) = Server::attached(2, 9, None);
    let (page, looked_to) = (page(9, None, false, &["a"]), Some(name("a")));
    let outputs = server.tell(authority::Input::Walk { page, looked_to, head: 12, horizon: 10 });
    let refused = |message: &Message| {
        matches!(message, Message::Refused { code: AttachRefusal::Unavailable, .. })
    };
    assert!(said(&outputs).iter().all(refused) && said(&outputs).len() == 1, "{outputs:?}");
}

struct Device(ReplicaSession);

impl Device {
    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.0.input(1000, input);
        core::iter::from_fn(|| self.0.poll()).collect()
    }

    fn says(&mut self, message: &Message) -> Vec<Output> {
        self.tell(Input::Message(to_bytes(message)))
    }

    /// Connected to a server of this version; what the device says to Welcome.
    fn connected(state: &WorkspaceState, version: u64) -> (Self, Vec<Output>) {
        let mut device = Device(ReplicaSession::new(config()));
        device.tell(Input::Start);
        device.tell(Input::Attach { workspace: workspace(), state: state.clone() });
        device.tell(Input::Connected);
        device.tell(Input::Token(Ok("token".into())));
        let outputs = device.says(&welcome(version));
        (device, outputs)
    }

    /// Attached to a workspace of ten seqs.
    fn open(state: &WorkspaceState) -> Self {
        let (mut device, _) = Self::connected(state, 2);
        device.says(&Message::Attached(Attached { head: 10, ..attached(1, 0) }));
        let state = WorkspaceState { epoch: Some(Epoch([9; 16])), ..state.clone() };
        device.tell(Input::AttachStored { workspace: workspace(), state });
        device
    }
}

fn walking(key: &str) -> WorkspaceState {
    WorkspaceState { walk: Some(place(9, key)), ..WorkspaceState::default() }
}

fn statuses(outputs: &[Output]) -> Vec<&SyncStatus> {
    let status = outputs.iter().filter_map(|output| match output {
        Output::Status { status, .. } => Some(status),
        _ => None,
    });
    status.collect()
}

/// R2.1, R8: pages go to the store as they come, progress is told, and changes go on behind them.
#[test]
fn a_device_stores_a_walk_and_what_comes_behind_it() {
    let mut device = Device::open(&WorkspaceState::default());
    let outputs = device.says(&Message::Walk(page(9, None, false, &["a", "b"])));
    assert!(matches!(outputs[..], [Output::StoreWalk { .. }]), "{outputs:?}");
    let walk = Some(place(9, "b"));
    let stored = Input::ChangesStored { workspace: workspace(), received_to: 0, cursor: 0, walk };
    let outputs = device.tell(stored);
    assert_eq!(statuses(&outputs), [&SyncStatus::CatchingUp { done: 2, to_go: 8 }]);
    assert!(matches!(outputs[0], Output::Send(_)), "it is acknowledged");
    device.says(&Message::Walk(page(9, Some("b"), true, &["c"])));
    let (received_to, cursor, walk) = (9, 0, None);
    device.tell(Input::ChangesStored { workspace: workspace(), received_to, cursor, walk });
    let (from, to, consistent_at) = (9, 10, Some(10));
    let end = Changes { attachment: 1, from, to, consistent_at, entries: vec![] };
    let outputs = device.says(&Message::Changes(end));
    assert!(matches!(outputs[..], [Output::StoreChanges { .. }]), "{outputs:?}");
}

/// R2.2: a device that was cut off says how far it has come, and takes what follows, or all anew.
#[test]
fn a_walk_goes_on_where_it_broke_off() {
    let (_, outputs) = Device::connected(&walking("m"), 2);
    let sent = outputs.iter().find_map(|output| match output {
        Output::Send(bytes) => Some(from_bytes(bytes).unwrap()),
        _ => None,
    });
    let Some(Message::Attach(attach)) = sent else { panic!("{outputs:?}") };
    assert_eq!(attach.walk, Some(place(9, "m")));
    for next in [page(9, Some("m"), false, &["n"]), page(10, None, false, &["a"])] {
        let outputs = Device::open(&walking("m")).says(&Message::Walk(next));
        assert!(matches!(outputs[..], [Output::StoreWalk { .. }]), "{outputs:?}");
    }
}

/// I28. The story: pages of an earlier session of the same database were stored after this one had
/// read where the store stood. It was sent pages that the store had no use for, said that they were
/// durable, and waited for ever. It begins again from where the store is.
#[test]
fn a_session_goes_on_from_where_the_store_has_come_without_it() {
    let elsewhere = [(0, Some(place(9, "x"))), (9, None)];
    for (received_to, walk) in elsewhere {
        let mut device = Device::open(&walking("m"));
        device.says(&Message::Walk(page(9, Some("m"), false, &["n"])));
        let cursor = 0;
        let stored = Input::ChangesStored {
            workspace: workspace(),
            received_to,
            cursor,
            walk: walk.clone(),
        };
        let outputs = device.tell(stored);
        let sent: Vec<Message> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Send(bytes) => Some(from_bytes(bytes).unwrap()),
                _ => None,
            })
            .collect();
        let [Message::Detach { .. }, Message::Attach(attach)] = &sent[..] else {
            panic!("{sent:?}")
        };
        assert_eq!((attach.received_to, attach.walk.clone()), (received_to, walk));
    }
}

/// A page that does not follow, one whose names do not rise, and one that says nothing are errors
/// of the server, and so is a walk into a copy that there is.
#[test]
fn a_page_of_a_walk_that_is_out_of_order_ends_the_connection() {
    let copied = WorkspaceState { received_to: 4, cursor: 4, ..WorkspaceState::default() };
    let cases = [
        (walking("m"), page(9, Some("l"), false, &["n"])),
        (walking("m"), page(8, Some("m"), false, &["n"])),
        (walking("m"), page(9, Some("m"), false, &["m"])),
        (walking("m"), page(9, Some("m"), false, &["o", "n"])),
        (walking("m"), page(9, Some("m"), false, &[])),
        (WorkspaceState::default(), page(9, Some("a"), false, &["b"])),
        (copied, page(9, None, false, &["a"])),
    ];
    for (case, (state, page)) in cases.into_iter().enumerate() {
        let outputs = Device::open(&state).says(&Message::Walk(page));
        let closes = outputs.iter().any(|output| matches!(output, Output::Close { .. }));
        let stores = outputs.iter().any(|output| matches!(output, Output::StoreWalk { .. }));
        assert!(closes && !stores, "case {case}: {outputs:?}");
    }
}

/// B7: a server of the first version knows nothing of walks, and would not notice that deletes are
/// missing in a copy that was begun with one: the device says so and stops.
#[test]
fn a_walk_is_not_gone_on_with_at_an_older_server() {
    let (_, outputs) = Device::connected(&walking("m"), 1);
    let stopped = |status: &&SyncStatus| {
        matches!(status, SyncStatus::Stopped { why: StopReason::Version, .. })
    };
    assert!(statuses(&outputs).iter().any(stopped), "{outputs:?}");
    let (_, outputs) = Device::connected(&WorkspaceState::default(), 1);
    assert!(outputs.iter().any(|output| matches!(output, Output::Send(_))), "{outputs:?}");
}
