//! Messages that carry files: their bytes, as docs/protocol.md says, and what is refused.

use lastword_core::codec::{DecodeError, from_bytes, to_bytes};
use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::{MAX_CHUNK_BYTES, MAX_WANTED_CHUNKS};
use lastword_core::manifest::Blob;
use lastword_core::protocol::{FileMessage, FileRefusal};

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

/// B2: the bytes on the wire are those of the page, in both directions.
#[test]
fn the_bytes_are_those_of_the_page() {
    for (message, bytes) in written_out() {
        assert_eq!(to_bytes(&message), bytes, "{message:?}");
        assert_eq!(from_bytes::<FileMessage>(&bytes), Ok(message));
    }
}

/// Whatever is cut short, goes on, has an unknown tag or is over a limit is an error.
#[test]
fn what_is_not_a_message_is_refused() {
    for (message, bytes) in written_out() {
        for end in 0..bytes.len() {
            assert!(from_bytes::<FileMessage>(&bytes[..end]).is_err(), "{end} of {message:?}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(from_bytes::<FileMessage>(&longer).is_err(), "more than {message:?}");
    }
    let unknown = from_bytes::<FileMessage>(&[10, 1]);
    assert!(matches!(unknown, Err(DecodeError::Invalid { what: "file message tag", .. })));
    let chunks = vec![ChunkId([0; 32]); MAX_WANTED_CHUNKS + 1];
    let greedy = to_bytes(&FileMessage::Want { transfer: 1, stored: 0, chunks });
    assert!(from_bytes::<FileMessage>(&greedy).is_err());
    let long = to_bytes(&FileMessage::Chunk { transfer: 1, bytes: vec![0; MAX_CHUNK_BYTES + 1] });
    assert!(from_bytes::<FileMessage>(&long).is_err());
}
