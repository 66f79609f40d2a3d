//! Messages that carry files: their bytes, as docs/protocol.md says, and what is refused.

use lastword_core::codec::{DecodeError, from_bytes, to_bytes};
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::{MAX_CHUNK_BYTES, MAX_FILE_PARTS, MAX_WANTED_CHUNKS};
use lastword_core::manifest::Blob;
use lastword_core::protocol::{FileMessage, FileRefusal, ObjectMessage, SignedUrl};

fn blob() -> Blob {
    Blob { sha256: [2; 32], size: 300, profile: 1, depth: 0, root: ChunkId([3; 32]) }
}

/// The bytes of each message, written out by hand from the page on the protocol: numbers up to 250
/// take one byte, larger ones `fb` and two.
fn written_out() -> Vec<(FileMessage, Vec<u8>)> {
    let blob_bytes = [&[2; 32][..], &[0xfb, 0x2c, 0x01, 1, 0], &[3; 32]].concat();
    let main = [&[4][..], b"main"].concat();
    let workspace = WorkspaceName::new("main").expect("a name");
    vec![
        (FileMessage::Welcome { version: 1 }, vec![1, 1]),
        (
            FileMessage::Offer {
                transfer: 7,
                workspace: workspace.clone(),
                blob: blob(),
                mime_type: "a/b".into(),
                name: "x".into(),
            },
            [&[2, 7][..], &main, &blob_bytes, &[3], b"a/b", &[1], b"x"].concat(),
        ),
        (
            FileMessage::Fetch { transfer: 7, workspace, sha256: [2; 32] },
            [&[3, 7][..], &main, &[2; 32]].concat(),
        ),
        (FileMessage::Found { transfer: 7, blob: blob() }, [&[4, 7][..], &blob_bytes].concat()),
        (
            FileMessage::Want { transfer: 7, stored: 300, chunks: vec![ChunkId([3; 32]); 2] },
            [&[5, 7, 0xfb, 0x2c, 0x01, 2][..], &[3; 64]].concat(),
        ),
        (FileMessage::Chunk { transfer: 7, bytes: b"hi".into() }, vec![6, 7, 2, b'h', b'i']),
        (FileMessage::Committed { transfer: 7, storage_id: "s".into() }, vec![7, 7, 1, b's']),
        (
            FileMessage::Refused {
                transfer: 7,
                code: FileRefusal::OverQuota,
                message: "no".into(),
            },
            vec![8, 7, 3, 2, b'n', b'o'],
        ),
        (FileMessage::Cancel { transfer: 7 }, vec![9, 7]),
    ]
}

/// Those of version 2, about files that an object store keeps.
fn written_out_2() -> Vec<(FileMessage, Vec<u8>)> {
    let (sha256, headers) = ([2; 32], vec![("a".into(), "bc".into())]);
    let url = SignedUrl { url: "u?s".into(), headers, expires_ms: 300 };
    let url_bytes = [3, b'u', b'?', b's', 1, 1, b'a', 2, b'b', b'c', 0xfb, 0x2c, 0x01];
    let pairs = [
        (
            ObjectMessage::Place { part_bytes: 300, stored: vec![1, 3] },
            vec![10, 7, 0xfb, 0x2c, 0x01, 2, 1, 3],
        ),
        (ObjectMessage::AskUrl { part: 2, sha256 }, [&[11, 7, 2][..], &sha256].concat()),
        (ObjectMessage::Url(url.clone()), [&[12, 7][..], &url_bytes].concat()),
        (ObjectMessage::Sent, vec![14, 7]),
        (
            ObjectMessage::FoundAt { size: 300, url },
            [&[15, 7, 0xfb, 0x2c, 0x01][..], &url_bytes].concat(),
        ),
        (ObjectMessage::NotIt, vec![16, 7]),
    ];
    pairs.map(|(message, bytes)| (FileMessage::Object { transfer: 7, message }, bytes)).to_vec()
}

fn all_written_out() -> Vec<(FileMessage, Vec<u8>)> {
    [written_out(), written_out_2()].concat()
}

/// R8.1: whoever has a signed URL may use it, so no log line has its signature.
#[test]
fn a_signed_url_is_not_shown_in_full() {
    for (message, _) in written_out_2() {
        assert!(!format!("{message:?}").contains("u?s"), "{message:?}");
    }
}

/// B2: the bytes on the wire are those of the page, in both directions.
#[test]
fn the_bytes_are_those_of_the_page() {
    for (message, bytes) in all_written_out() {
        assert_eq!(to_bytes(&message), bytes, "{message:?}");
        assert_eq!(from_bytes::<FileMessage>(&bytes), Ok(message));
    }
}

/// Whatever is cut short, goes on, has an unknown tag or is over a limit is an error.
#[test]
fn what_is_not_a_message_is_refused() {
    for (message, bytes) in all_written_out() {
        for end in 0..bytes.len() {
            assert!(from_bytes::<FileMessage>(&bytes[..end]).is_err(), "{end} of {message:?}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(from_bytes::<FileMessage>(&longer).is_err(), "more than {message:?}");
    }
    let unknown = from_bytes::<FileMessage>(&[17, 1]);
    assert!(matches!(unknown, Err(DecodeError::Invalid { what: "file message tag", .. })));
    let chunks = vec![ChunkId([0; 32]); MAX_WANTED_CHUNKS + 1];
    let greedy = to_bytes(&FileMessage::Want { transfer: 1, stored: 0, chunks });
    assert!(from_bytes::<FileMessage>(&greedy).is_err());
    let stored = vec![1; MAX_FILE_PARTS + 1];
    let message = ObjectMessage::Place { part_bytes: 1, stored };
    let parts = to_bytes(&FileMessage::Object { transfer: 1, message });
    assert!(from_bytes::<FileMessage>(&parts).is_err());
    let long = to_bytes(&FileMessage::Chunk { transfer: 1, bytes: vec![0; MAX_CHUNK_BYTES + 1] });
    assert!(from_bytes::<FileMessage>(&long).is_err());
}
