//! Two ops as one.

use lastword_core::hlc::Hlc;
use lastword_core::id::{DeviceId, Key, TableName};
use lastword_core::limits::MAX_FIELDS;
use lastword_core::op::{Action, Op, TombstoneRef};
use lastword_core::row::Row;
use lastword_core::rules::{At, Policy, apply, squash};
use lastword_core::value::{Field, Record, Value};

const ANN: DeviceId = DeviceId([1; 16]);

fn op(base: u64, revision: u64, action: Action) -> Op {
    let (table, key) = (TableName::new("notes").unwrap(), Key::new("n1").unwrap());
    Op { table, key, base, revision, hlc: Hlc(revision), action }
}

fn fields(entries: &[(&str, i64)]) -> Vec<Field> {
    entries.iter().map(|(name, value)| Field::new(name, &Value::Int(*value))).collect()
}

fn record(entries: &[(&str, i64)]) -> Record {
    Record::from_fields(fields(entries))
}

fn patch(set: &[(&str, i64)], remove: &[&str]) -> Action {
    Action::Patch { set: fields(set), remove: remove.iter().map(|name| (*name).into()).collect() }
}

fn shows(row: Option<&Row>, ops: &[&Op]) -> Option<Record> {
    let mut row = row.cloned();
    for op in ops {
        let at = At { seq: 9, time_ms: 1, op_id: Default::default() };
        row = apply(row.as_ref(), op, ANN, &at, Policy::Arrival, &[]);
    }
    row.filter(|row| !row.deleted).map(|row| row.record)
}

/// Semantics 4: one op in place of two shows what the two did, with the base of the first and what
/// the second says of revision and clock.
#[test]
fn one_op_does_what_two_did() {
    let begun = op(0, 1, Action::Create { record: record(&[("a", 1), ("b", 2)]), replace: false });
    let edits = [
        Action::Put { record: record(&[("b", 3), ("c", 4)]) },
        patch(&[("a", 5)], &[]),
        patch(&[("c", 6)], &["a"]),
        patch(&[], &["b"]),
    ];
    let row = {
        let at = At { seq: 4, time_ms: 1, op_id: Default::default() };
        apply(None, &begun, ANN, &at, Policy::Arrival, &[]).unwrap()
    };
    for second in &edits {
        let second = op(0, 2, second.clone());
        let one = squash(&begun, &second).unwrap();
        assert_eq!(shows(None, &[&one]), shows(None, &[&begun, &second]), "{second:?}");
        assert!(matches!(one.action, Action::Create { .. }));
        for first in &edits {
            let first = op(0, 1, first.clone());
            let one = squash(&first, &second).unwrap();
            let (found, expected) =
                (shows(Some(&row), &[&one]), shows(Some(&row), &[&first, &second]));
            let sorted = |record: Option<Record>| {
                let mut entries = record.unwrap().to_entries().unwrap();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries
            };
            assert_eq!(sorted(found), sorted(expected), "{first:?} {second:?}");
            assert_eq!((one.base, one.revision, one.hlc), (0, 2, Hlc(2)));
        }
    }
}

/// Semantics 1 and 4, the base rule: who writes on the version that stands, because the op before
/// is going to lose, has another base, and that op must not drag the new one down. Ends and
/// beginnings of lives stay steps of their own, and no op names more than one can.
#[test]
fn what_is_not_one_step_stays_two() {
    let first = op(5, 1, patch(&[("a", 1)], &[]));
    assert!(squash(&first, &op(5, 2, patch(&[("a", 2)], &[]))).is_some());
    assert_eq!(squash(&first, &op(7, 2, patch(&[("a", 2)], &[]))), None, "it had seen another");
    let tombstone = TombstoneRef::Seq(5);
    let create = Action::Create { record: record(&[]), replace: true };
    for action in [Action::Delete, Action::Undelete { tombstone }, create] {
        assert_eq!(squash(&first, &op(5, 2, action.clone())), None);
        if !matches!(action, Action::Create { .. }) {
            assert_eq!(squash(&op(5, 1, action), &first), None);
        }
    }
    let many = |mark: &str| -> Vec<String> {
        (0..MAX_FIELDS).map(|number| format!("{mark}{number}")).collect()
    };
    let removes = |names| Action::Patch { set: Vec::new(), remove: names };
    let (a, b) = (op(5, 1, removes(many("a"))), op(5, 2, removes(many("b"))));
    assert_eq!(squash(&a, &b), None, "one op cannot name so many");
}
