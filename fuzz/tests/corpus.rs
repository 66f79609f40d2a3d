//! The fuzz targets over their saved inputs, and over mutations of them.

use std::path::Path;

use lastword_fuzz::{TARGETS, saved_log};

/// Mutations of each saved input.
const MUTATIONS: u64 = 300;

/// xorshift64 (Marsaglia, 2003): the same mutations on every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).expect("below a usize")
    }
}

fn mutated(input: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        let byte = u8::try_from(chance.below(256)).expect("a byte");
        match chance.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), byte),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 if !bytes.is_empty() => bytes[at] ^= 1 << (byte % 8),
            _ if !bytes.is_empty() => bytes[at] = byte,
            _ => bytes.push(byte),
        }
    }
    bytes
}

/// I15: no input of the corpus, nor anything near it, makes a target panic; every target has a
/// corpus.
#[test]
fn the_corpus_and_what_is_near_it_are_taken_or_refused() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let folder = root.join(name);
        let entries = std::fs::read_dir(&folder).expect("every target has a corpus");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        paths.sort();
        assert!(paths.len() > 2, "{name} has {} saved inputs", paths.len());
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        for path in paths {
            let input = std::fs::read(&path).expect("readable");
            target(&input);
            for _ in 0..MUTATIONS {
                target(&mutated(&input, &mut chance));
            }
        }
    }
}

/// The log that `frame` starts from is one that a store writes today; from anything else mutations
/// reach nothing but the checks of the header. After a new format: save what `saved_log` returns.
#[test]
fn the_saved_log_is_a_log() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/frame/log");
    assert!(std::fs::read(path).expect("readable") == saved_log(), "a store writes another log");
}

/// The fuzzer is not built by any check, so here: each target has its binary there, and no corpus
/// and no binary is left without its target.
#[test]
fn the_fuzzer_has_every_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: String| std::fs::read_to_string(root.join(path)).expect("readable");
    let manifest = text("targets/Cargo.toml".to_owned());
    for (name, _) in TARGETS {
        let wired = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&wired), "{name} is not in targets/Cargo.toml");
        let binary = text(format!("targets/fuzz_targets/{name}.rs"));
        assert!(binary.contains(&format!("lastword_fuzz::{name}(bytes)")), "{name}: {binary}");
    }
    for folder in ["corpus", "targets/fuzz_targets"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("readable");
        assert_eq!(entries.count(), TARGETS.len(), "{folder} has more than the targets need");
    }
}
