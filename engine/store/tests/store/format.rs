//! Golden vectors: the bytes of format 1 do not change.

use lastword_store::{FileKind, Header, HeaderKind, limits::HEADER_LEN};

use crate::support::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header of format 1, byte for byte.
#[test]
fn the_header_has_its_golden_bytes() {
    let header = Header {
        kind: HeaderKind::Segment,
        key_id: 0x0102_0304,
        log_id: [0xaa; 16],
        salt: [0xbb; 16],
        predecessor: [0xcc; 16],
        number: 5,
        first_position: 0x1000,
        segment_size: 0x80_0000,
    };
    let bytes = header.encode();
    assert_eq!(hex(&bytes), include_str!("golden/header.hex").trim());
    assert_eq!(Header::decode(5, &bytes).unwrap(), header);
    assert!(Header::decode(6, &bytes).is_err());
}

/// Two frames of format 1 as they stand in a file, byte for byte: the fixed seed draws the same log
/// id and salt every time.
#[test]
fn frames_have_their_golden_bytes() {
    let disk = disk();
    let mut store = open(&disk);
    let first = store.append(KIND, &put("key", "value")).unwrap();
    let second = store.append(KIND, &put("k", "")).unwrap();
    store.commit().unwrap();
    store.prove().unwrap();
    assert_eq!((first, second), (0, 40));
    let log = files(&disk, FileKind::Log)[0];
    let bytes = disk.bytes(log).unwrap();
    let frames = &bytes[HEADER_LEN..HEADER_LEN + 40 + 32 + 24];
    assert_eq!(hex(frames), include_str!("golden/frames.hex").trim());
}
