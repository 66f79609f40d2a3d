//! Issue 5, point 7: every provider passes the suite, and one that is broken on purpose fails it at
//! each of its points.

use std::slice;

use lastword_providers::capability::{Capabilities, Capability};
use lastword_providers::conformance::{NotEnforced, Outcome, Point, run};
use lastword_providers::memory::MemoryStore;

use crate::broken::Broken;
use crate::support::START_MS;

#[test]
fn r5_1_the_store_in_memory_passes_every_point() {
    let store = MemoryStore::new(b"secret", START_MS);
    let report = run(&store, &store, "memory", &[]);
    assert_eq!(report.passed(), Point::ALL, "{report}");
    assert_eq!(store.open_uploads(), 0, "an upload was left open");
}

/// What must fail besides the point a fault is planted at: what cannot work without it.
fn expected_besides(point: Point) -> &'static [Point] {
    match point {
        // The check at commit believes what the store says of an object.
        Point::Head => &[Point::Commit],
        _ => &[],
    }
}

#[test]
fn r5_2_a_broken_provider_fails_at_each_point_and_at_no_other() {
    for point in Point::ALL {
        let broken = Broken::at(*point);
        let report = run(&broken, &broken, "broken", &[]);
        let mut expected = [&[*point][..], expected_besides(*point)].concat();
        expected.sort_unstable();
        let mut failed = report.failed();
        failed.sort_unstable();
        assert_eq!(failed, expected, "planted at {point}:\n{report}");
    }
}

#[test]
fn r5_2_what_is_not_promised_is_said_and_not_played() {
    for lacks in Capability::ALL {
        let promised = Capabilities::all().without(lacks);
        let store = MemoryStore::promising(promised, b"secret", START_MS);
        let report = run(&store, &store, "memory", &[]);
        for (point, outcome) in &report.outcomes {
            let expected = match point.needs().contains(&lacks) {
                true => Outcome::NotPromised { lacks },
                false => Outcome::Passed,
            };
            assert_eq!(*outcome, expected, "without {lacks}: {point}");
        }
    }
}

/// A promise that is not kept is found: the store checks less than its provider says.
#[test]
fn r5_2_a_mark_that_is_no_longer_true_fails() {
    let store = MemoryStore::new(b"secret", START_MS);
    let why = "the server forgets ranges".to_owned();
    let mark = NotEnforced { point: Point::Range, why };
    let report = run(&store, &store, "memory", slice::from_ref(&mark));
    assert_eq!(report.failed(), [Point::Range], "{report}");

    let broken = Broken::at(Point::Range);
    let report = run(&broken, &broken, "broken", &[mark]);
    assert_eq!(report.failed(), [], "{report}");
    assert!(!report.passed().contains(&Point::Range));
    assert!(report.to_string().contains("not enforced  range_is_downloaded: the server forgets"));
}
