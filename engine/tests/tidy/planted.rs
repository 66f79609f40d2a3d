//! One planted fault for each rule, and beside it what the rule must let pass.

use crate::reading::Source;
use crate::*;

/// The faulty lines that `rule` finds in `text` as the file `path`.
fn lines(rule: fn(&Source) -> Faults, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).into_iter().map(|(line, _)| line).collect()
}

fn numbers(faults: Faults) -> Vec<usize> {
    faults.into_iter().map(|(line, _)| line).collect()
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "/* todo!() /* nested */ todo!() */ // todo!()\n\
        let a = (\"todo!() \\\" todo!()\", r#\"todo!() \" todo!()\"#, br\"todo!()\", '\"');\n\
        let b: &'static str = todo!();\n";
    assert_eq!(lines(unfinished, "a.rs", text), [3]);
}

#[test]
fn long_files() {
    let long = "fn a() {}\n".repeat(801);
    assert_eq!(lines(file_length, "src/a.rs", &long), [1]);
    assert_eq!(lines(file_length, "src/a.rs", &long[10..]), []);
    assert_eq!(lines(file_length, "tests/a.rs", &long), []);
    let tests = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(lines(file_length, "src/a.rs", &tests), []);
    assert_eq!(lines(file_length, "src/lib.rs", &"mod a;\n".repeat(201)), [1]);
}

#[test]
fn long_functions() {
    let function = |lines: usize| format!("\nfn a(b: [u8; 4]) {{\n{}}}\n", "b();\n".repeat(lines));
    assert_eq!(lines(function_length, "src/a.rs", &function(69)), [2]);
    assert_eq!(lines(function_length, "src/a.rs", &function(68)), []);
}

#[test]
fn long_lines() {
    let wide = "x".repeat(101);
    assert_eq!(lines(line_length, "a.rs", &format!("\n{wide}\n")), [2]);
    assert_eq!(lines(line_length, "a.rs", &format!("// {wide}")), [1]);
    assert_eq!(lines(line_length, "a.rs", &format!("let a = \"{wide}\";")), []);
    assert_eq!(lines(line_length, "a.rs", &format!("// see https://{wide}")), []);
}

#[test]
fn modules_that_look_up() {
    let text = "mod low;\npub mod mid;\nmod high;\npub use high::{High, Other as Third};\n";
    let lib = Source::new("src/lib.rs", text);
    let check = |path: &str, text: &str| numbers(layers(&Source::new(path, text), &lib));
    assert_eq!(check("src/mid.rs", "use crate::low::A;\nuse crate::high::B;\n"), [2]);
    assert_eq!(check("src/mid.rs", "use crate::{\n low::{A, B}, high::C};\n"), [1]);
    assert_eq!(check("src/mid/deep.rs", "fn a() { crate::high::b() }\n"), [1]);
    assert_eq!(check("src/mid.rs", "use super::high;\n"), [1]);
    assert_eq!(check("src/mid.rs", "use crate::Third;\n"), [1]);
    assert_eq!(check("src/mid/deep.rs", "use super::super::low;\n"), [1]);
    assert_eq!(check("src/mid/deep.rs", "use super::high; // a sibling of deep\n"), []);
    assert_eq!(check("src/high.rs", "use crate::{low, mid::{self}}; // crate::high\n"), []);
    assert_eq!(check("src/low.rs", "#[cfg(test)]\nmod tests {\n use crate::high;\n}\n"), []);
}

#[test]
fn engines_that_reach_out() {
    for text in ["extern crate std;", "use std::fmt;", "let a = HashMap::new();", "tokio::spawn"] {
        assert_eq!(lines(pure_engine, "engine/core/src/a.rs", text), [1], "{text}");
    }
    assert_eq!(lines(pure_engine, "engine/core/src/lib.rs", "#![no_std] // std"), []);
    assert_eq!(lines(pure_engine, "engine/core/src/plant.rs", "extern crate std;"), []);
    assert_eq!(lines(pure_engine, "engine/store/src/a.rs", "use std::fs;\nuse tokio::fs;"), [2]);
    assert_eq!(lines(pure_engine, "engine/src/a.rs", "use tokio::fs;"), []);
}

#[test]
fn unfinished_and_sleeping() {
    let text = "todo!();\nunimplemented!();\n#[ignore = \"slow\"]\n";
    assert_eq!(lines(unfinished, "src/a.rs", text), [1, 2, 3]);
    let text = "thread::sleep(d);\ntokio::time::sleep(d).await;\nclock.sleep(d);\n";
    assert_eq!(lines(sleeping_tests, "tests/a.rs", text), [1, 2]);
    assert_eq!(lines(sleeping_tests, "src/a.rs", text), []);
}

#[test]
fn empty_names() {
    let text = "struct SyncManager;\nenum PathHelper {}\npub mod util;\nstruct Utility;\n";
    assert_eq!(lines(forbidden_names, "src/a.rs", text), [1, 2, 3]);
    assert_eq!(lines(forbidden_names, "src/misc.rs", "\n"), [1]);
    assert_eq!(lines(forbidden_names, "src/util/a.rs", "\n"), [1]);
}

#[test]
fn manifests_with_own_versions() {
    let text = "[dependencies]\na.workspace = true\nb = { workspace = true, optional = true }\n\
        c = \"1\"\n[dev-dependencies.d]\nversion = \"1\"\n[dependencies.e]\nworkspace = true\n\
        [target.'cfg(unix)'.dependencies]\nf = { path = \"f\" }\n[features]\ng = [\"a\"]\n";
    assert_eq!(numbers(inherited_dependencies("a/Cargo.toml", text)), [4, 5, 10]);
    let alone = format!("[workspace]\n{text}");
    assert_eq!(numbers(inherited_dependencies("fuzz/Cargo.toml", &alone)), []);
}

#[test]
fn manifests_that_look_up() {
    let ours = "[dependencies]\nlastword-core.workspace = true\nlastword-store.workspace = true\n\
        lastword-server.workspace = true\ntokio.workspace = true\n";
    let check = |path: &str| numbers(crate_layers(path, ours));
    assert_eq!(check("engine/core/Cargo.toml"), [2, 3, 4, 5]);
    assert_eq!(check("engine/store/Cargo.toml"), [3, 4, 5]);
    assert_eq!(check("engine/providers/Cargo.toml"), [3, 4]);
    assert_eq!(check("engine/Cargo.toml"), [4]);
    assert_eq!(check("server/Cargo.toml"), []);
}

#[test]
fn crates_that_allow_unsafe() {
    let root = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
    let inherits = "[lints]\nworkspace = true\n";
    let bare = Source::new("src/lib.rs", "pub fn a() {}\n");
    let strict = Source::new("src/main.rs", "#![forbid(unsafe_code)]\n");
    assert_eq!(numbers(forbids_unsafe("", root, &[&bare, &strict])), [1]);
    assert_eq!(numbers(forbids_unsafe(inherits, "", &[&bare])), [1]);
    assert_eq!(numbers(forbids_unsafe(inherits, root, &[&bare])), []);
}

#[test]
fn texts_of_one_machine() {
    let text = concat!("cd /wo", "rk/x\n~/x /ho", "me/me\nsee https://a.b/ho", "me/ and $(A)/ro");
    assert_eq!(numbers(portable(text)), [1, 2]);
    assert_eq!(numbers(portable(concat!("https://static.crates", ".io/x"))), [1]);
    assert_eq!(numbers(portable(concat!("registry.npm", "js.org"))), [1]);
    let index = concat!("registry+https://github.com/rust-lang/crates", ".io-index");
    assert_eq!(numbers(portable(index)), []);
}
