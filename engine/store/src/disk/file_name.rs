//! Names of the files in a directory: a number of at least 12 digits; redb's also end in `.state`.

use std::path::{Path, PathBuf};

const STATE_SUFFIX: &str = ".state";

/// Where file `number` of a directory is.
pub(crate) fn path(dir: &Path, number: u64, state: bool) -> PathBuf {
    dir.join(format!("{number:012}{}", if state { STATE_SUFFIX } else { "" }))
}

/// The number in a file name, and whether it is redb's.
pub(super) fn parse(name: &str) -> Option<(u64, bool)> {
    let (digits, state) = match name.strip_suffix(STATE_SUFFIX) {
        Some(digits) => (digits, true),
        None => (name, false),
    };
    let padded = digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_digit());
    padded.then(|| digits.parse().ok()).flatten().map(|number| (number, state))
}

/// Whether a name is one that a store gives to a file.
pub(crate) fn is_numbered(name: &str) -> bool {
    parse(name).is_some()
}
