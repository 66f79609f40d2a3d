//! What readers see.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use lastword_store::{Direction, KeyRange, Options, Space, StoreError};
use proptest::prelude::*;

use crate::support::*;

/// I18, I6: a view does not see later commits, nor what is only appended, nor a checkpoint.
#[test]
fn a_view_does_not_change() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("a", "1"));
    write(&mut store, &put("b", "1"));
    let view = store.view();
    let before = dump(&view);
    store.append(KIND, &put("a", "2")).unwrap();
    assert_eq!(store.newest().get(A, b"a").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(dump(&store.view()), before);
    store.commit().unwrap();
    write(&mut store, &op(b'd', A, b"b", b""));
    assert_eq!(dump(&view), before);
    store.checkpoint().unwrap();
    write(&mut store, &put("c", "3"));
    store.checkpoint().unwrap();
    assert_eq!(dump(&view), before);
    let handle = store.view_handle();
    let now = std::thread::spawn(move || dump(&handle.view())).join().unwrap();
    assert_eq!(now, model(&[put("a", "2"), put("c", "3")]));
}

/// A view that a checkpoint has replaced keeps old pages of redb in its file. One that nobody reads
/// expires with a typed error; one that is being read goes on, however long that takes.
#[test]
fn only_a_view_that_nobody_reads_expires() {
    let disk = disk();
    let mut store = open(&disk);
    write(&mut store, &put("a", "1"));
    store.checkpoint().unwrap();
    assert!(store.take_old_views().is_some());
    let (view, other) = (store.view(), store.view());
    write(&mut store, &put("b", "2"));
    store.checkpoint().unwrap();
    let old = store.take_old_views().unwrap();
    assert!(old.are_held());
    for _ in 0..3 {
        assert!(view.get(A, b"a").unwrap().is_some());
        assert!(!old.expire_if_idle(), "a view that is read has expired");
    }
    assert!(old.expire_if_idle());
    assert!(matches!(other.get(A, b"a"), Err(StoreError::ViewExpired)));
    assert_eq!(dump(&store.view()), model(&[put("a", "1"), put("b", "2")]), "a new view reads");
    drop((view, other));
    assert!(!old.are_held());
}

/// I18: the rows of a large delta were freed where their checkpoint was taken in, on the thread
/// that commits, which stood still for half a second. They are handed out to be freed elsewhere,
/// and a view that reads them still has them.
#[test]
fn what_a_checkpoint_replaces_is_handed_out() {
    for anew_from_bytes in [u64::MAX, 0] {
        let disk = disk();
        let chosen = Options { anew_from_bytes, ..options() };
        let mut store = open_with(&disk, chosen).unwrap().0;
        write(&mut store, &put("a", "1"));
        store.checkpoint().unwrap();
        for is_held in [false, true] {
            write(&mut store, &put("b", "2"));
            let row = Arc::downgrade(&store.view().get(A, b"b").unwrap().unwrap());
            let view = is_held.then(|| store.view());
            let job = store.begin_checkpoint().unwrap().unwrap();
            let retired = store.finish_checkpoint(job.run()).unwrap();
            assert_eq!(row.strong_count(), 1, "freed, or held twice");
            drop(retired);
            assert_eq!(row.strong_count(), usize::from(is_held));
            if let Some(view) = view {
                assert_eq!(view.get(A, b"b").unwrap().as_deref(), Some(&b"2"[..]));
            }
            assert_eq!(row.strong_count(), 0);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(bool, Vec<u8>, u8),
    Delete(bool, Vec<u8>),
    Commit,
    Freeze,
    Thaw,
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, b'k', 0xff]), 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<bool>(), key(), any::<u8>()).prop_map(|(b, key, v)| Step::Put(b, key, v)),
        5 => (any::<bool>(), key()).prop_map(|(b, key)| Step::Delete(b, key)),
        3 => Just(Step::Commit),
        1 => Just(Step::Freeze),
        1 => Just(Step::Thaw),
        1 => Just(Step::Reopen),
    ]
}

fn space(b: bool) -> Space {
    if b { B } else { A }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// I12, I18: reads and scans over redb, frozen delta, delta and open frames equal an ordered
    /// map, forward and in reverse, for any range.
    #[test]
    fn scans_equal_an_ordered_map(
        steps in prop::collection::vec(step(), 1..60),
        lower in key(), upper in key(), prefix in key(), excluded in any::<bool>(),
    ) {
        let disk = disk();
        let mut store = open(&disk);
        let mut job = None;
        let mut rows = BTreeMap::<(u8, Vec<u8>), Vec<u8>>::new();
        for step in steps {
            match step {
                Step::Put(b, key, value) => {
                    store.append(KIND, &op(b'p', space(b), &key, &[value])).unwrap();
                    rows.insert((space(b).number(), key), vec![value]);
                }
                Step::Delete(b, key) => {
                    store.append(KIND, &op(b'd', space(b), &key, b"")).unwrap();
                    rows.remove(&(space(b).number(), key));
                }
                Step::Commit => drop(store.commit().unwrap()),
                Step::Freeze if job.is_none() => {
                    store.commit().unwrap();
                    job = store.begin_checkpoint().unwrap();
                }
                Step::Thaw => if let Some(job) = job.take() {
                    store.finish_checkpoint(lastword_store::CheckpointJob::run(job)).unwrap();
                },
                Step::Reopen if job.is_none() => {
                    store.close().unwrap();
                    store = open(&disk);
                }
                Step::Freeze | Step::Reopen => {}
            }
        }
        prop_assert_eq!(&dump(store.newest()), &rows);
        store.commit().unwrap();
        let view = store.view();
        let lower_bound = match excluded {
            true => Bound::Excluded(&lower[..]),
            false => Bound::Included(&lower[..]),
        };
        let between = KeyRange::between(lower_bound, Bound::Excluded(&upper[..]));
        for (range, prefixed) in [(between, false), (KeyRange::prefix(&prefix), true)] {
            let mut expected: Vec<_> = rows
                .iter()
                .filter(|((space, key), _)| *space == A.number() && match prefixed {
                    true => key.starts_with(&prefix),
                    false => key < &upper && (key > &lower || !excluded && key == &lower),
                })
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect();
            for direction in [Direction::Forward, Direction::Reverse] {
                let found: Vec<_> = view
                    .scan(A, &range, direction)
                    .unwrap()
                    .map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
                    .collect();
                prop_assert_eq!(&found, &expected);
                expected.reverse();
            }
        }
        for ((space, key), value) in &rows {
            let space = if *space == A.number() { A } else { B };
            let found = view.get(space, key).unwrap();
            prop_assert_eq!(found.as_deref(), Some(&value[..]));
        }
    }
}

/// A scan goes on over more rows than it takes at a time, in each layer.
#[test]
fn a_scan_crosses_its_chunks() {
    let disk = disk();
    let mut store = open(&disk);
    let mut all = Vec::new();
    for round in 0..3 {
        for number in (round..400).step_by(round + 1) {
            let payload = put(&format!("k{number:04}"), &format!("{round}"));
            store.append(KIND, &payload).unwrap();
            all.push(payload);
        }
        store.commit().unwrap();
        if round == 0 {
            store.checkpoint().unwrap();
        }
    }
    let expected = model(&all);
    assert_eq!(dump(&store.view()), expected);
    let _job = store.begin_checkpoint().unwrap();
    store.append(KIND, &put("k0200", "top")).unwrap();
    let view = store.newest();
    let keys: Vec<_> = view
        .scan(A, &KeyRange::all(), Direction::Reverse)
        .unwrap()
        .map(|row| row.unwrap().0.to_vec())
        .collect();
    let mut forward: Vec<_> = expected.keys().map(|(_, key)| key.clone()).collect();
    forward.reverse();
    assert_eq!(keys, forward);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// I29: what changed since a view is exactly the rows that were set or removed after it, also
    /// while a checkpoint runs; only where redb has taken changes in, the answer is that it is not
    /// known, never a gap.
    #[test]
    fn changes_since_a_view_are_complete(
        steps in prop::collection::vec(prop_oneof![
            8 => (key(), any::<Option<u8>>()).prop_map(Some),
            1 => Just(None),
        ], 1..60),
        since in 0..60_usize,
    ) {
        let disk = disk();
        let mut store = open(&disk);
        let (mut before, mut expected) = (None, std::collections::BTreeSet::new());
        let (mut running, mut checkpointed) = (None, false);
        for (done, step) in steps.iter().enumerate() {
            if done == since.min(steps.len() - 1) {
                before = Some(store.view().position());
            }
            match (step, running.take()) {
                (None, None) => running = store.begin_checkpoint().unwrap(),
                (None, Some(job)) => {
                    store.finish_checkpoint(job.run()).unwrap();
                    checkpointed |= before.is_some();
                }
                (Some((key, value)), job) => {
                    running = job;
                    let value: Vec<u8> = value.iter().copied().collect();
                    let kind = if value.is_empty() { b'd' } else { b'p' };
                    write(&mut store, &op(kind, A, key, &value));
                    if before.is_some() && key.starts_with(b"k") {
                        expected.insert(key.clone());
                    }
                }
            }
        }
        let since = before.expect("one step is the one");
        match store.view().changed_since(A, &KeyRange::prefix(b"k"), since) {
            None => prop_assert!(checkpointed),
            Some(changed) => {
                let changed: Vec<Vec<u8>> = changed.iter().map(|key| key.to_vec()).collect();
                prop_assert_eq!(changed, expected.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
