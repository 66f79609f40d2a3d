//! The examples of `docs/semantics.md` are played, each in a cluster of its own.

// What a test calls fails the test as the test itself would.
#![allow(clippy::unwrap_used)]

#[path = "semantics/check.rs"]
mod check;
#[path = "semantics/notation.rs"]
mod notation;
#[cfg(feature = "plant")]
#[path = "../core/tests/core/plants.rs"]
mod plants;
#[path = "semantics/play.rs"]
mod play;
#[path = "semantics/step.rs"]
mod step;

use notation::Example;

const PAGE: &str = include_str!("../../docs/semantics.md");

fn faults(examples: &[Example]) -> Vec<String> {
    let played = examples.iter().filter_map(|example| play::play(example).err());
    played.map(|fault| format!("docs/semantics.md:{fault}")).collect()
}

/// R7, and every rule of the page: what it says happens is what happens, on two devices and the
/// server, seq by seq; no verdict and no conflict is left unsaid.
#[test]
fn every_example_of_the_rules_holds() {
    let examples = notation::examples(PAGE);
    assert!(examples.len() > 30, "only {} examples were found", examples.len());
    let faults = faults(&examples);
    assert!(faults.is_empty(), "{} examples fail:\n{}", faults.len(), faults.join("\n"));
}

/// A rule that is built cannot be written down without being played.
#[test]
fn every_rule_has_an_example() {
    let mut without = Vec::new();
    for part in PAGE.split("\n**Rule ").skip(1) {
        let number = part.split(':').next().unwrap_or_default();
        let rule = part.split("\n## ").next().unwrap_or_default();
        if !rule.contains("\n```example") {
            without.push(number);
        }
    }
    assert!(without.is_empty(), "rules without an example: {without:?}");
}

/// An example that says something wrong fails, whatever it is wrong about: otherwise the page
/// could say anything.
#[test]
fn an_example_that_is_wrong_fails() {
    const TRUE: &str = r#"```example
A: patch n1 {title: "A"}
B: patch n1 {title: "B"}
sync A, B
=> A: 2 applied
=> B: 3 applied, conflict row 4
=> n1 = {title: "B", body: "b"}
=> conflict on n1 (overwritten): {title: "A"} gave way to {title: "B"}
```
"#;
    assert_eq!(faults(&notation::examples(TRUE)), Vec::<String>::new());
    for (said, wrong) in [
        ("A: 2 applied", "A: 3 applied"),
        ("A: 2 applied", "A: 2 superseded (stale)"),
        ("3 applied, conflict row 4", "3 applied"),
        ("conflict row 4", "conflict row 5"),
        ("n1 = {title: \"B\"", "n1 = {title: \"A\""),
        ("=> n1 = {title: \"B\", body: \"b\"}", "=> no n1"),
        ("(overwritten)", "(stale)"),
        ("{title: \"A\"} gave way", "{title: \"b\"} gave way"),
        ("=> A: 2 applied\n", ""),
        ("=> conflict on n1 (overwritten): {title: \"A\"} gave way to {title: \"B\"}\n", ""),
        ("sync A, B", "sync B, A"),
        ("sync A, B", "sink A, B"),
        ("patch n1 {title: \"B\"}", "delete n1"),
    ] {
        assert!(TRUE.contains(said), "{said}");
        let examples = notation::examples(&TRUE.replacen(said, wrong, 1));
        assert_eq!(faults(&examples).len(), 1, "{wrong} instead of {said} was taken");
    }
}
