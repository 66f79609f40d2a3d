//! Bugs on purpose prove that the other tests can fail: with each of them on, the test that must
//! notice it does, and without one it passes. Every binary that has such tests has this one too.

// What it prints is its result.
#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use lastword_core::plant::{ALL, VARIABLE};

/// Whether a test of this binary passes with a bug on, or with none.
fn passes(test: &str, plant: &str) -> bool {
    let output = Command::new(std::env::current_exe().expect("it runs"))
        .args([test, "--exact"])
        .env(VARIABLE, plant)
        .env("LASTWORD_CRASH_STRIDE", "1")
        // Whether a model of random steps meets a bug must not be a matter of luck.
        .env("PROPTEST_RNG_SEED", "1")
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::null())
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("running 1 test"), "there is no test {test}");
    output.status.success()
}

#[test]
fn every_planted_bug_is_caught() {
    let all = || ALL.iter().flat_map(|known| known.tests.iter().map(move |test| (known, test)));
    let here = |suite: &str| suite == env!("CARGO_CRATE_NAME");
    let mine =
        || all().filter(|(_, (suite, _))| here(suite)).map(|(known, (_, test))| (known, *test));
    for test in mine().map(|(_, test)| test).collect::<BTreeSet<_>>() {
        assert!(passes(test, ""), "{test} fails without a bug");
    }
    let mut missed = Vec::new();
    for (known, test) in mine() {
        let is_missed = passes(test, known.name);
        println!("{:<24} {}", known.name, if is_missed { "MISSED" } else { test });
        missed.extend(is_missed.then_some(known.name));
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
