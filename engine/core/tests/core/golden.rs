//! The frozen layout: pinned bytes of every persisted or sent shape.

use std::collections::BTreeMap;

use lastword_core::id::{Key, TableName};

use crate::samples;

/// Lines of `name hex`. Never edit one: bytes on disk and wire depend on it. Add a version.
const PINNED: &str = include_str!("golden/vectors.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn pinned() -> BTreeMap<&'static str, Vec<u8>> {
    let lines = PINNED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pairs = lines.map(|line| line.split_once(' ').expect("a line is `name hex`"));
    pairs.map(|(name, hex)| (name, unhex(hex))).collect()
}

/// I30, design section 7: what an older build wrote is read the same for ever, and written the
/// same. Only a person pins a new vector: a missing one is printed and fails.
#[test]
fn every_shape_has_its_pinned_bytes() {
    let (pinned, samples) = (pinned(), samples::all());
    let missing: Vec<String> = samples
        .iter()
        .filter(|sample| !pinned.contains_key(sample.name.as_str()))
        .map(|sample| format!("{} {}", sample.name, hex(&sample.product)))
        .collect();
    assert!(missing.is_empty(), "not pinned yet:\n{}", missing.join("\n"));
    for sample in &samples {
        let bytes = &pinned[sample.name.as_str()];
        assert_eq!(hex(&sample.product), hex(bytes), "{} is written as pinned", sample.name);
        let again = (sample.product_again)(sample, bytes);
        assert_eq!(hex(&again), hex(bytes), "{} is read as pinned", sample.name);
    }
    let names: Vec<&str> = samples.iter().map(|sample| sample.name.as_str()).collect();
    let known = |name: &str| names.contains(&name) || name.starts_with("hash.");
    let orphans: Vec<_> = pinned.keys().filter(|name| !known(name)).collect();
    assert!(orphans.is_empty(), "pinned, but no sample writes them: {orphans:?}");
}

/// Design section 7: the layout is bincode 2 standard; the abandoned crate stays its oracle.
#[test]
fn the_layout_is_that_of_bincode_2() {
    for sample in samples::all() {
        assert_eq!(hex(&sample.product), hex(&sample.oracle), "{}", sample.name);
        assert_eq!(hex(&(sample.oracle_again)(&sample.product)), hex(&sample.product));
    }
}

/// I16, I5: digests and payload hashes are compared across builds, so they are pinned as well.
#[test]
fn hashes_are_pinned() {
    let (_, row, _) = samples::all_rows().remove(3);
    let (table, key) = (TableName::new("messages").unwrap(), Key::new("m1").unwrap());
    let found = [
        ("hash.payload", hex(&samples::batch().payload_hash())),
        ("hash.row_digest", row.digest(&table, &key).to_string()),
    ];
    for (name, found) in found {
        let pinned = pinned().get(name).map(|bytes| hex(bytes));
        assert_eq!(pinned.as_deref(), Some(found.as_str()), "{name}");
    }
}
