//! What a replica shows: the authority's row with the device's own ops on top.

use lastword_core::id::BatchId;
use lastword_core::op::{Action, Op, TombstoneRef};
use lastword_core::row::Row;
use lastword_core::rules::{
    At, PENDING_SEQ, PendingOp, PendingState, Policy, Writer, decide, overlay,
};
use lastword_core::value::Record;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::rules::{A, B, C, create, op, patch, put, remove};

/// One record at the authority and on device A, whose cursor may be behind.
struct Two {
    authority: Option<Row>,
    seq: u64,
    policy: Policy,
    shadow: Option<Row>,
    pending: Vec<PendingOp>,
    written: u8,
}

impl Two {
    fn new(policy: Policy) -> Self {
        let (pending, written) = (vec![], 0);
        Self { authority: None, seq: 0, policy, shadow: None, pending, written }
    }

    fn decides(&mut self, writer: &Writer<'_>, op: &Op, op_id: BatchId) -> PendingState {
        self.seq += 1;
        let at = At { seq: self.seq, time_ms: 7, op_id };
        let outcome = decide(self.authority.as_ref(), op, writer, &at, self.policy.into()).unwrap();
        self.authority = outcome.row.or(self.authority.take());
        PendingState::Settled { seq: self.seq, time_ms: 7, verdict: outcome.verdict }
    }

    fn other(&mut self, action: Action) {
        let base = self.authority.as_ref().map_or(0, |row| row.last.seq);
        let writer = Writer { device: B, former: &[], strict: false };
        self.decides(&writer, &op(base, action), BatchId([200; 16]));
    }

    fn visible(&self) -> Option<Row> {
        overlay(self.shadow.as_ref(), &self.pending, A, &[], self.policy.into())
    }

    /// A writes what fits what it sees, with the base that the rules give: that of the first own
    /// op under way, or of the row it sees.
    fn writes(&mut self, wish: u8, value: i64) {
        let seen = self.visible();
        let row = seen.as_ref();
        let live = row.is_some_and(|row| !row.deleted);
        let action = match (wish % 5, live) {
            (0, true) => put(&[("x", value)]),
            (1, true) => patch(&[("y", value)]),
            (2, true) => remove(&["x"]),
            (_, true) => Action::Delete,
            (0 | 1, false) if row.is_some() => {
                let row = row.unwrap();
                let tombstone = match row.last.seq {
                    PENDING_SEQ => TombstoneRef::Batch(row.op_id),
                    seq => TombstoneRef::Seq(seq),
                };
                Action::Undelete { tombstone }
            }
            (_, false) => create(&[("x", value), ("z", 0)]),
        };
        let shown = row.map_or(0, |row| row.last.seq);
        let base = match self.pending.first() {
            Some(_) if self.shadow == seen => shown,
            Some(first) => first.op.base,
            None => shown,
        };
        self.written += 1;
        self.pending.push(PendingOp {
            counter: u64::from(self.written),
            batch_id: BatchId([self.written; 16]),
            created_ms: 1,
            strict: false,
            op: op(base, action),
            state: PendingState::Undecided,
        });
    }

    /// The authority decides A's next op.
    fn settles(&mut self) -> bool {
        let undecided = |own: &PendingOp| own.state == PendingState::Undecided;
        let Some(at) = self.pending.iter().position(undecided) else { return false };
        let (op, batch) = (self.pending[at].op.clone(), self.pending[at].batch_id);
        let writer = Writer { device: A, former: &[], strict: false };
        self.pending[at].state = self.decides(&writer, &op, batch);
        true
    }

    /// A's cursor reaches the head.
    fn catches_up(&mut self) {
        self.shadow = self.authority.clone();
        self.pending.retain(|own| own.state == PendingState::Undecided);
    }
}

fn shown(row: Option<Row>) -> Option<Record> {
    row.filter(|row| !row.deleted).map(|row| row.record)
}

proptest! {
    #![proptest_config(crate::cases())]

    /// R2.4, I17, I18: if nobody else writes, what a device shows when it writes is what it shows
    /// while its ops are decided one by one, and after its cursor has passed them.
    #[test]
    fn predicted_and_decided_agree_when_nothing_else_happened(
        before in vec(any::<u8>(), 0..3),
        wishes in vec(any::<u8>(), 1..7),
        passed in 0..7_usize,
        server_wins in any::<bool>(),
    ) {
        let mut two = Two::new(if server_wins { Policy::ServerWins } else { Policy::Arrival });
        for (value, wish) in (0..).zip(before) {
            two.writes(wish, value);
            two.settles();
            two.catches_up();
        }
        for (value, wish) in (100..).zip(wishes) {
            two.writes(wish, value);
        }
        let predicted = shown(two.visible());
        for round in 0.. {
            if round == passed {
                two.catches_up();
                prop_assert_eq!(&shown(two.visible()), &predicted, "after the cursor passed");
            }
            if !two.settles() {
                break;
            }
            prop_assert_eq!(&shown(two.visible()), &predicted, "after {} verdicts", round + 1);
        }
        two.catches_up();
        prop_assert_eq!(two.visible(), two.authority.clone());
        prop_assert_eq!(shown(two.visible()), predicted);
    }

    /// I16: whatever another device does meanwhile, a device that has caught up and has nothing
    /// under way shows the authority's row.
    #[test]
    fn when_all_is_quiet_the_authoritys_row_is_shown(
        steps in vec((0..4_u8, any::<u8>()), 1..25),
        server_wins in any::<bool>(),
    ) {
        let mut two = Two::new(if server_wins { Policy::ServerWins } else { Policy::Arrival });
        for (value, (step, wish)) in (0..).zip(steps) {
            match step {
                0 => two.writes(wish, value),
                1 => drop(two.settles()),
                2 => two.catches_up(),
                _ => two.other(match wish % 4 {
                    0 => create(&[("x", value)]),
                    1 => patch(&[("y", value)]),
                    2 => put(&[("x", value)]),
                    _ => Action::Delete,
                }),
            }
        }
        while two.settles() {}
        two.catches_up();
        prop_assert_eq!(two.visible(), two.authority.clone());
    }
}

/// Section 4: a settled op stays in the overlay until the cursor has passed it, whatever comes
/// between: reads never go back. I18.
#[test]
fn a_settled_op_stays_until_the_cursor_has_passed_it() {
    let mut two = Two::new(Policy::Arrival);
    two.other(create(&[("x", 0), ("y", 0)]));
    two.catches_up();
    two.writes(0, 7);
    two.settles();
    let after_own = two.authority.clone();
    two.other(patch(&[("y", 9)]));
    let own = Some(crate::rules::record(&[("x", 7)]));
    assert_eq!(shown(two.visible()), own, "not yet in the stream");
    two.shadow = after_own;
    assert_eq!(shown(two.visible()), own, "in the stream, and not applied a second time");
    two.shadow = two.authority.clone();
    assert_eq!(shown(two.visible()), Some(crate::rules::record(&[("x", 7), ("y", 9)])));
}

/// Section 4: a superseded op shows nothing of itself, before and after its verdict.
#[test]
fn an_op_that_loses_is_not_shown() {
    let mut two = Two::new(Policy::Arrival);
    two.other(create(&[("x", 0)]));
    two.pending.push(PendingOp {
        counter: 1,
        batch_id: BatchId([1; 16]),
        created_ms: 1,
        strict: false,
        op: op(0, create(&[("x", 5)])),
        state: PendingState::Undecided,
    });
    assert_eq!(shown(two.visible()), Some(crate::rules::record(&[("x", 5)])), "as far as it knows");
    two.shadow = two.authority.clone();
    let theirs = Some(crate::rules::record(&[("x", 0)]));
    assert_eq!(shown(two.visible()), theirs, "predicted to lose");
    assert!(two.settles());
    assert_eq!(shown(two.visible()), theirs);
}

/// Section 4: ops that a device wrote under its former id count as its own.
#[test]
fn a_former_device_id_counts_as_own() {
    let mut two = Two::new(Policy::ServerWins);
    let writer = Writer { device: C, former: &[], strict: false };
    two.decides(&writer, &op(0, create(&[("x", 0)])), BatchId([1; 16]));
    two.decides(&writer, &op(1, put(&[("x", 1)])), BatchId([2; 16]));
    two.catches_up();
    two.pending.push(PendingOp {
        counter: 1,
        batch_id: BatchId([3; 16]),
        created_ms: 1,
        strict: true,
        op: op(1, put(&[("x", 2)])),
        state: PendingState::Undecided,
    });
    let show = |former: &[_]| {
        shown(overlay(two.shadow.as_ref(), &two.pending, A, former, Policy::ServerWins.into()))
    };
    assert_eq!(show(&[C]), Some(crate::rules::record(&[("x", 2)])));
    assert_eq!(show(&[]), Some(crate::rules::record(&[("x", 1)])));
}
