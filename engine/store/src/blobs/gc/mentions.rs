//! Which files something names.
//!
//! A file is named by text, `sha256:` and 64 digits. Whatever holds such text counts: any field of
//! any row, also one of which no schema says that it names files, and any frame that is still in
//! the log. So a field that begins to name files, a value that is only in the history, in an
//! outbox or in a dead letter, cannot be overlooked. At worst a file stays that nobody needs.

use std::collections::BTreeSet;

use lastword_core::hash::BlobHash;

const PREFIX: &[u8] = b"sha256:";
const DIGITS: usize = 64;

/// Adds every file that is named in `bytes`.
pub fn gather(bytes: &[u8], found: &mut BTreeSet<[u8; 32]>) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b's') {
        let (_, candidate) = rest.split_at(at);
        let name = candidate.get(..PREFIX.len() + DIGITS).filter(|name| name.starts_with(PREFIX));
        if let Some(Ok(BlobHash::Sha256(sha256))) =
            name.and_then(|name| std::str::from_utf8(name).ok()).map(BlobHash::read)
        {
            found.insert(sha256);
        }
        rest = candidate.get(1..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I31. Wherever the text is, it is found; what only looks like it is not.
    #[test]
    fn names_are_found_anywhere() {
        let (one, two) = (BlobHash::Sha256([0xab; 32]), BlobHash::Sha256([7; 32]));
        let mut found = BTreeSet::new();
        gather(format!("sss{one}{two}sha256:").as_bytes(), &mut found);
        gather(&one.to_string().as_bytes()[..70], &mut found);
        gather(format!("{two}").to_uppercase().as_bytes(), &mut found);
        assert_eq!(found, BTreeSet::from([[0xab; 32], [7; 32]]));
    }
}
