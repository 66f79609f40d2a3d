//! The shape of the code, checked like any other behaviour: sizes, layers, manifests and names.
//!
//! Each rule is one function from a file to the faults found in it, as (line, what is wrong).
//! `the_workspace_is_tidy` runs them all over every file; `planted` holds one fault for each rule,
//! so that no rule can stop working unnoticed.

mod planted;
mod reading;

use std::fs;
use std::path::{Path, PathBuf};

use reading::{
    IN_STRING, Source, exporter, has, is_word, item_end, items_after, line_of, roots_of,
};

type Faults = Vec<(usize, String)>;

const FILE_LINES: usize = 800;
const LIB_LINES: usize = 200;
const FN_LINES: usize = 70;
const LINE_CHARS: usize = 100;

// ---- Rules for Rust files --------------------------------------------------------------------

fn file_length(source: &Source) -> Faults {
    let lines = source.lines(false).count();
    let lib = source.path.ends_with("/lib.rs");
    let limit = if lib { LIB_LINES } else { FILE_LINES };
    let fault = || (1, format!("{lines} lines without tests, the limit is {limit}"));
    (lines > limit).then(fault).into_iter().collect()
}

fn function_length(source: &Source) -> Faults {
    let code = source.code.join("\n");
    let named = |rest: &str| rest.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let starts = code
        .match_indices("fn ")
        .filter(|(i, _)| !code[..*i].ends_with(is_word) && named(&code[i + 3..]));
    let sized = starts.map(|(i, _)| {
        let (first, last) = (line_of(&code, i), line_of(&code, item_end(&code, i)));
        (first, last - first + 1)
    });
    let long = sized.filter(|(_, lines)| *lines > FN_LINES);
    long.map(|(n, lines)| (n, format!("a function of {lines} lines, the limit is {FN_LINES}")))
        .collect()
}

/// Addresses and string literals are exempt: the formatter cannot break them either.
fn line_length(source: &Source) -> Faults {
    let lines = source.text.lines().zip(&source.code).enumerate();
    let long = lines.filter(|(_, (text, code))| {
        let breakable = code.chars().filter(|c| *c != IN_STRING).count();
        text.chars().count() > LINE_CHARS && breakable > LINE_CHARS && !text.contains("://")
    });
    long.map(|(n, _)| (n + 1, format!("a line of more than {LINE_CHARS} characters"))).collect()
}

/// `lib.rs` lists modules from lowest to highest; a module may name only those above it there.
fn layers(source: &Source, lib: &Source) -> Faults {
    let Some((_, inside)) = source.path.split_once("src/") else { return Vec::new() };
    let own = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let lib = lib.lines(true).map(|(_, line)| line).collect::<Vec<_>>().join("\n");
    let modules: Vec<&str> = items_after(&lib, "mod");
    let Some(place) = modules.iter().position(|module| *module == own) else { return Vec::new() };
    let above = &modules[place + 1..];

    let code: Vec<&str> =
        source.lines(true).map(|(n, l)| if source.test[n - 1] { "" } else { l }).collect();
    let code = code.join("\n");
    // In the file of a top module `super` is the crate's root.
    let top = inside.trim_end_matches("/mod.rs").matches('/').count() == 0;
    let mut faults = Vec::new();
    for (root, used) in [("crate::", true), ("super::", top)] {
        let starts = |i: usize| !code[..i].ends_with(|c: char| is_word(c) || ":$".contains(c));
        let uses = code.match_indices(root).filter(|(i, _)| starts(*i));
        for (i, _) in uses.filter(|_| used) {
            for name in roots_of(&code[i + root.len()..]) {
                let module = exporter(&lib, name).unwrap_or(name);
                if above.contains(&module) {
                    let what = format!("{own} uses {module}, which lib.rs lists above it");
                    faults.push((line_of(&code, i), what));
                }
            }
        }
    }
    for (i, _) in code.match_indices("super::super") {
        faults.push((line_of(&code, i), "super::super hides the layer: write crate::".to_owned()));
    }
    faults
}

/// core has no I/O, clock, thread or random order; core and store have no async runtime.
fn pure_engine(source: &Source) -> Faults {
    let mut faults = Vec::new();
    // Bugs on purpose ask the environment which of them is on; no product has them.
    let product = source.path != "engine/core/src/plant.rs";
    if source.path.starts_with("engine/core/src/") && product {
        let std = |line: &str| has(line, "std") || has(line, "HashMap") || has(line, "HashSet");
        faults.extend(source.each(true, std, "core uses neither std nor hash maps"));
    }
    if source.path.starts_with("engine/core/") || source.path.starts_with("engine/store/") {
        faults.extend(source.each(true, |line| has(line, "tokio"), "no tokio in core and store"));
    }
    faults
}

fn unfinished(source: &Source) -> Faults {
    let mark =
        |line: &str| has(line, "todo!") || has(line, "unimplemented!") || line.contains("#[ignore");
    source.each(true, mark, "unfinished code or an ignored test")
}

/// A test that sleeps is slow and flaky: wait for the event itself. Virtual clocks are methods.
fn sleeping_tests(source: &Source) -> Faults {
    let tests = source.lines(true).filter(|(n, _)| source.test[n - 1]);
    let sleeps = tests.filter(|(_, line)| has(&line.replace(".sleep", ""), "sleep"));
    sleeps.map(|(n, _)| (n, "a test that sleeps".to_owned())).collect()
}

fn forbidden_names(source: &Source) -> Faults {
    let vague = |name: &str| {
        let name = name.to_lowercase();
        let ends = ["manager", "helper", "helpers"].iter().any(|word| name.ends_with(word));
        ends || ["util", "utils", "misc"].contains(&name.as_str())
    };
    let declares = |line: &str| {
        let kinds = ["struct", "enum", "trait", "type", "mod"];
        kinds.iter().any(|kind| items_after(line, kind).into_iter().any(vague))
    };
    let mut faults = source.each(true, declares, "a name that says nothing");
    if source.path.trim_end_matches(".rs").split('/').any(vague) {
        faults.push((1, "a file name that says nothing".to_owned()));
    }
    faults
}

// ---- Rules for manifests and for every text file ---------------------------------------------

/// Versions are chosen in one place. A manifest with its own `[workspace]` cannot inherit them.
fn inherited_dependencies(path: &str, text: &str) -> Faults {
    if text.lines().any(|line| line.trim() == "[workspace]") && path != "Cargo.toml" {
        return Vec::new();
    }
    let own = dependencies(text)
        .into_iter()
        .filter(|(_, _, spec)| !spec.replace(' ', "").contains("workspace=true"));
    own.map(|(n, name, _)| (n, format!("{name} is not `workspace = true`"))).collect()
}

/// Line, name and text of each dependency, of whatever kind and for whatever target.
fn dependencies(text: &str) -> Vec<(usize, String, String)> {
    let (mut section, mut found) = (String::new(), Vec::<(usize, String, String)>::new());
    for (n, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
            if let Some((_, name)) = section.rsplit_once("dependencies.") {
                found.push((n + 1, name.to_owned(), String::new()));
            }
        } else if section.contains("dependencies.") {
            if let Some((_, _, spec)) = found.last_mut() {
                spec.push_str(line);
            }
        } else if section.ends_with("dependencies") && section != "workspace.dependencies" {
            let name: String = line.chars().take_while(|c| is_word(*c) || *c == '-').collect();
            if !name.is_empty() && line.contains('=') {
                found.push((n + 1, name, line.to_owned()));
            }
        }
    }
    found
}

/// core <- store, providers <- lastword <- everything else, and nothing under engine/ -> server.
fn crate_layers(path: &str, text: &str) -> Faults {
    let allowed: &[&str] = match path {
        "engine/core/Cargo.toml" => &[],
        "engine/store/Cargo.toml" | "engine/providers/Cargo.toml" => &["lastword-core"],
        "engine/Cargo.toml" => &["lastword-core", "lastword-store", "lastword-providers"],
        _ => return Vec::new(),
    };
    let pure = ["engine/core/Cargo.toml", "engine/store/Cargo.toml"].contains(&path);
    let wrong = dependencies(text).into_iter().filter(|(_, name, _)| {
        name.starts_with("lastword") && !allowed.contains(&name.as_str())
            || pure && name.starts_with("tokio")
    });
    wrong.map(|(n, name, _)| (n, format!("{name} does not belong below this crate"))).collect()
}

/// `manifest` inherits the workspace's lints (which forbid unsafe code), or `roots` say it.
fn forbids_unsafe(manifest: &str, workspace: &str, roots: &[&Source]) -> Faults {
    let squeezed = |text: &str| text.split_whitespace().collect::<String>();
    let inherits = squeezed(manifest).contains("[lints]workspace=true")
        && squeezed(workspace).contains("unsafe_code=\"forbid\"");
    let bare = roots.iter().filter(|root| !root.text.contains("#![forbid(unsafe_code)]"));
    let bare = bare.filter(|_| !inherits);
    bare.map(|root| (1, format!("{} does not forbid unsafe code", root.path))).collect()
}

/// The repository builds anywhere: no path of one machine, no address of one package registry.
fn portable(text: &str) -> Faults {
    // Split, so that this file passes its own rule.
    let hosts = [
        concat!("crates", ".io"),
        concat!("registry.", "npmjs"),
        concat!("npmjs", ".com"),
        concat!("npmjs", ".org"),
        concat!("pypi", ".org"),
        concat!("files.python", "hosted"),
    ];
    let roots = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    // Cargo writes the default registry's index into every lock file.
    let index = concat!("github.com/rust-lang/crates", ".io-index");
    let mut faults = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if hosts.iter().any(|host| line.contains(host)) && !line.contains(index) {
            faults.push((n + 1, "the host name of a package registry".to_owned()));
        }
        let inside = |c: char| is_word(c) || "-.})*".contains(c);
        let absolute = |root| line.match_indices(root).any(|(i, _)| !line[..i].ends_with(inside));
        if roots.into_iter().any(absolute) {
            faults.push((n + 1, "an absolute path of one machine".to_owned()));
        }
    }
    faults
}

// ---- The test --------------------------------------------------------------------------------

#[test]
fn the_workspace_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("engine/ is in the workspace");
    let files = text_files(root);
    let text_of = |path: &str| files.iter().find(|(p, _)| p == path).map(|(_, text)| text.as_str());
    let source = |path: &str| text_of(path).map(|text| Source::new(path, text));
    let workspace = text_of("Cargo.toml").expect("the workspace has a manifest");

    let mut report = Vec::new();
    let mut add = |path: &str, faults: Faults| {
        report.extend(faults.into_iter().map(|(line, what)| format!("{path}:{line}: {what}")));
    };
    for (path, text) in &files {
        add(path, portable(text));
        if path.ends_with("Cargo.toml") {
            add(path, inherited_dependencies(path, text));
            add(path, crate_layers(path, text));
        }
        if path.ends_with("/Cargo.toml") && !path.starts_with("bindings/") {
            let roots = ["src/lib.rs", "src/main.rs"];
            let roots = roots.map(|name| source(&path.replace("Cargo.toml", name)));
            let roots: Vec<&Source> = roots.iter().flatten().collect();
            add(path, forbids_unsafe(text, workspace, &roots));
        }
        if path.ends_with(".rs") {
            let source_of_path = Source::new(path, text);
            let rules = [
                file_length,
                function_length,
                line_length,
                pure_engine,
                unfinished,
                sleeping_tests,
                forbidden_names,
            ];
            for rule in rules {
                add(path, rule(&source_of_path));
            }
            let lib = path.split_once("/src/").map(|(folder, _)| format!("{folder}/src/lib.rs"));
            if let Some(lib) = lib.and_then(|lib| source(&lib)) {
                add(path, layers(&source_of_path, &lib));
            }
        }
    }
    assert!(files.len() > 10, "the walk found only {} files under {}", files.len(), root.display());
    assert!(report.is_empty(), "{} faults:\n{}", report.len(), report.join("\n"));
}

/// Every text file of the repository with its path from the root, without what builds leave.
fn text_files(root: &Path) -> Vec<(String, String)> {
    let (mut folders, mut files) = (vec![PathBuf::new()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).expect("a folder can be read").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            if [".git", "target", "node_modules", "lastword-data"].contains(&name.as_str()) {
                continue;
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                files.push((path.to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    files.sort();
    files
}
