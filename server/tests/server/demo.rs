//! `lastword demo`, and whether it notices what goes wrong.

use crate::common::lastword;

/// The first thing a newcomer runs ends well, tells every step, and measures what it says.
#[test]
fn the_demo_tells_its_story() {
    let dir = tempfile::tempdir().expect("a folder");
    let told = lastword(dir.path(), &["demo", "--json"]).ok();
    let steps: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(names, ["start", "live", "offline", "conflict", "delete", "kill", "equal", "done"]);
    assert!(steps.iter().all(|step| step["text"].as_str().is_some_and(|text| text.len() > 5)));
}

/// A demo that could not fail would prove nothing: a write that is kept back, and a server that
/// forgets, each end it with what was expected and what was found.
#[test]
fn a_planted_fault_ends_the_demo() {
    let dir = tempfile::tempdir().expect("a folder");
    for (fault, step) in
        [("unsent-write", "export of tablet"), ("forgetful-server", "another history")]
    {
        let error = lastword(dir.path(), &["demo", "--plant", fault]).fails(1);
        assert!(error.contains(step), "{fault}: {error}");
    }
    let error = lastword(dir.path(), &["demo", "--plant", "unsent-write"]).fails(1);
    assert!(error.contains("expected:") && error.contains("found:"), "{error}");
}
