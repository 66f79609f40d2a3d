//! Names of files, and lists of their chunks that come from elsewhere.

use lastword_core::codec::{DecodeError, from_bytes, to_bytes};
use lastword_core::hash::{BlobHash, ChunkId, HashError};
use lastword_core::limits::{MAX_CHUNK_BYTES, MAX_MANIFEST_ENTRIES};
use lastword_core::manifest::{Blob, ManifestEntry, ManifestPage};

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const MD5: &str = "md5:d41d8cd98f00b204e9800998ecf8427e";

/// R4.2, R4.3: a new file is named by `sha256:` and 64 digits; an MD5 is read, with its prefix or
/// without, gets its prefix when it is written, and never names a new file.
#[test]
fn new_files_are_named_by_sha256_and_old_names_are_read() {
    assert_eq!(BlobHash::new(SHA).unwrap().to_string(), SHA);
    let bare = MD5.strip_prefix("md5:").unwrap();
    for old in [MD5, bare] {
        assert_eq!(BlobHash::read(old).unwrap().to_string(), MD5);
        assert!(matches!(BlobHash::new(old), Err(HashError::Legacy { .. })), "{old}");
    }
}

/// R4.2, attack row 40: nothing but the exact forms is a hash, so none becomes part of a path.
#[test]
fn whatever_is_nearly_a_hash_is_none() {
    let upper = SHA.to_uppercase();
    let long = format!("{SHA}0");
    let nul = SHA.replace("b855", "b85\0");
    let wide = SHA.replace("b855", "b8５");
    let bad = [
        "",
        "sha256:",
        "md5:",
        "sha256:../../x",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
        "sha256:+3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "md5:D41D8CD98F00B204E9800998ECF8427E",
        "md5:md5:d41d8cd98f00b204e9800998ecf8427e",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        &SHA[..SHA.len() - 1],
        &upper,
        &long,
        &nul,
        &wide,
    ];
    for text in bad {
        assert!(BlobHash::read(text).is_err(), "{text:?}");
        assert!(BlobHash::new(text).is_err(), "{text:?}");
    }
}

fn page(level: u64, lens: &[u64]) -> ManifestPage {
    let entry = |len: &u64| ManifestEntry { id: ChunkId([7; 32]), len: *len };
    ManifestPage { level, entries: lens.iter().map(entry).collect() }
}

/// B2: a list of chunks from elsewhere cannot make a reader take memory that no chunk needs, nor
/// walk for ever over pieces of nothing.
#[test]
fn a_manifest_that_no_writer_makes_does_not_decode() {
    let max = MAX_CHUNK_BYTES as u64;
    let reads = |page: &ManifestPage| from_bytes::<ManifestPage>(&to_bytes(page));
    for good in [page(1, &[1, max]), page(2, &[max * 4096]), page(3, &[1])] {
        assert_eq!(reads(&good).as_ref(), Ok(&good));
    }
    let many = vec![1; MAX_MANIFEST_ENTRIES + 1];
    let bad = [
        page(1, &[]),
        page(0, &[1]),
        page(4, &[1]),
        page(1, &[0]),
        page(1, &[max + 1]),
        page(2, &[max * 4096 + 1]),
        page(1, &many),
    ];
    for page in bad {
        assert!(reads(&page).is_err(), "level {}, {} entries", page.level, page.entries.len());
    }
    let blob = |size, depth| {
        let root = ChunkId([7; 32]);
        let bytes = to_bytes(&Blob { sha256: [1; 32], size, profile: 1, depth, root });
        from_bytes::<Blob>(&bytes)
    };
    assert!(blob(1 << 44, 3).is_ok());
    for (size, depth) in [((1 << 44) + 1, 1), (1, 4)] {
        assert!(matches!(blob(size, depth), Err(DecodeError::Invalid { .. })), "{size} {depth}");
    }
}
