//! Tables that are private to a user: who sees a row and who may write it.

use lastword_core::hlc::Hlc;
use lastword_core::id::{BatchId, DeviceId, TableName};
use lastword_core::op::{Action, Op, TombstoneRef};
use lastword_core::row::Row;
use lastword_core::rules::{At, Policy, TableRules, Writer, decide, emptied, objection, sees};
use lastword_core::value::{Field, Record, Value};
use proptest::prelude::*;

use crate::rules::{A, op};

const USERS: [&str; 2] = ["ann", "bob"];

fn rules(policy: Policy) -> TableRules<'static> {
    TableRules { private_by: Some("user"), ..policy.into() }
}

fn inbox() -> TableName {
    TableName::new("inbox").unwrap()
}

/// A record of a user, or of nobody.
fn of(user: Option<&str>, n: i64) -> Record {
    let user = user.map(|user| Field::new("user", &Value::Text(user.into())));
    let n = Field::new("n", &Value::Int(n));
    Record::from_fields(user.into_iter().chain([n]).collect())
}

fn create(user: Option<&str>) -> Action {
    Action::Create { record: of(user, 1), replace: false }
}

fn after(row: Option<&Row>, seq: u64, op: &Op, policy: Policy) -> Option<Row> {
    let writer = Writer { device: A, former: &[], strict: false };
    let at = At { seq, time_ms: 1, op_id: BatchId([9; 16]) };
    decide(row, op, &writer, &at, rules(policy)).unwrap().row
}

/// I38, semantics 5: a record names the user who writes it and no other, and what is left of it
/// after a delete, also of one whose value goes, is still that user's.
#[test]
fn a_record_is_of_the_user_who_writes_it_for_ever() {
    for policy in [Policy::Arrival, Policy::ServerWins, Policy::Revision] {
        let denied = |row: Option<&Row>, user: &str, action: Action| {
            objection(row, &op(9, action), user, rules(policy))
        };
        let says = |said: Option<String>, text: &str| {
            let said = said.expect("an objection");
            assert!(said.contains(text), "{said}");
        };
        says(denied(None, "ann", create(Some("bob"))), "must hold \"ann\"");
        says(denied(None, "ann", create(None)), "write it into every new record");
        assert_eq!(denied(None, "ann", create(Some("ann"))), None);
        let row = after(None, 1, &op(0, create(Some("ann"))), policy).unwrap();
        let edit = |field: Field| Action::Patch { set: vec![field], remove: vec![] };
        let field = |name: &str, text: &str| Field::new(name, &Value::Text(text.into()));
        let removal = Action::Patch { set: vec![], remove: vec!["user".into()] };
        assert_eq!(denied(Some(&row), "ann", edit(field("n", "2"))), None);
        assert_eq!(denied(Some(&row), "ann", edit(field("user", "ann"))), None);
        says(denied(Some(&row), "ann", edit(field("user", "bob"))), "leave it as it is");
        says(denied(Some(&row), "ann", removal), "leave it as it is");
        says(denied(Some(&row), "ann", Action::Put { record: of(None, 2) }), "must hold");
        let dead = Op { revision: 2, ..op(1, Action::Delete) };
        let dead = after(Some(&row), 2, &dead, policy).unwrap();
        let left = emptied(&inbox(), &row.record, rules(policy));
        assert_eq!(left.fields().len(), 1);
        let erased = Row::erased(&row, left, 3, 1);
        assert!(erased.is_erased());
        for row in [row, dead, erased] {
            let undelete = Action::Undelete { tombstone: TombstoneRef::Seq(row.last.seq) };
            for action in [edit(field("n", "2")), Action::Delete, undelete] {
                says(denied(Some(&row), "bob", action), "is not this user's");
            }
            says(denied(Some(&row), "bob", create(Some("bob"))), "choose another key");
            assert!(sees("ann", &inbox(), &row.record, rules(policy)));
            assert!(!sees("bob", &inbox(), &row.record, rules(policy)));
        }
    }
}

/// I38: rows that were there before the table was private are nobody's and stay so; in tables that
/// are not private everybody sees everything, and of a product's table what names nobody.
#[test]
fn what_names_nobody_is_shown_where_nothing_is_private_only() {
    let row = after(None, 1, &op(0, create(None)), Policy::Arrival).unwrap();
    for user in USERS {
        assert!(!sees(user, &inbox(), &row.record, rules(Policy::Arrival)));
        assert!(sees(user, &inbox(), &row.record, Policy::Arrival.into()));
        let patch = Action::Patch { set: of(Some(user), 1).fields().to_vec(), remove: vec![] };
        assert!(objection(Some(&row), &op(1, patch), user, rules(Policy::Arrival)).is_some());
        let conflicts = TableName::new("_conflicts").unwrap();
        let shown = |record: &Record| sees(user, &conflicts, record, Policy::Arrival.into());
        assert!(shown(&row.record));
        let mut private = Record::default();
        private.set(Field::new("private_to", &Value::Text("ann".into())));
        assert_eq!(shown(&private), user == "ann");
        private.set(Field::new("private_to", &Value::Int(1)));
        assert!(!shown(&private), "damage hides");
    }
}

fn action() -> impl Strategy<Value = Action> {
    let user = || prop::sample::select(vec![None, Some("ann"), Some("bob")]);
    let fields = |user, n| of(user, n).fields().to_vec();
    prop_oneof![
        3 => (user(), any::<bool>())
            .prop_map(|(user, replace)| Action::Create { record: of(user, 1), replace }),
        3 => user().prop_map(|user| Action::Put { record: of(user, 2) }),
        3 => user().prop_map(move |user| Action::Patch { set: fields(user, 3), remove: vec![] }),
        1 => Just(Action::Patch { set: vec![], remove: vec!["user".into()] }),
        3 => Just(Action::Delete),
        2 => (1..20_u64)
            .prop_map(|seq| Action::Undelete { tombstone: TombstoneRef::Seq(seq) }),
    ]
}

proptest! {
    #![proptest_config(crate::cases())]

    /// I38: whatever two users try, a record that was one's is never seen or changed by the other.
    #[test]
    fn no_sequence_of_ops_gives_a_record_to_another_user(
        policy in prop::sample::select(vec![
            Policy::Arrival, Policy::ServerWins, Policy::Revision,
        ]),
        steps in prop::collection::vec((0..2_usize, 0..20_u64, 0..4_u64, action()), 1..20),
    ) {
        let (mut row, mut owner) = (None::<Row>, None::<&str>);
        for (seq, (user, base, revision, action)) in (1..).zip(steps) {
            let user = USERS[user];
            let op = Op { base, revision, hlc: Hlc(seq), ..op(base, action) };
            if objection(row.as_ref(), &op, user, rules(policy)).is_some() {
                continue;
            }
            let device = DeviceId([user.as_bytes()[0]; 16]);
            let writer = Writer { device, former: &[], strict: false };
            let at = At { seq, time_ms: 1, op_id: BatchId([7; 16]) };
            let next = decide(row.as_ref(), &op, &writer, &at, rules(policy)).unwrap().row;
            if next.is_some() {
                prop_assert!(owner.is_none_or(|owner| owner == user), "{} wrote it", user);
            }
            row = next.or(row);
            let seen = |user: &&&str| {
                row.as_ref().is_some_and(|row| sees(user, &inbox(), &row.record, rules(policy)))
            };
            let seers: Vec<&&str> = USERS.iter().filter(seen).collect();
            prop_assert!(seers.len() <= 1);
            if let Some(seer) = seers.first() {
                prop_assert!(owner.is_none_or(|owner| owner == **seer));
                owner = Some(seer);
            } else {
                prop_assert!(owner.is_none(), "the row is still its user's");
            }
        }
    }
}
