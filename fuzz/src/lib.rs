//! Fuzz targets as plain functions: any bytes must be taken or refused, never panic.
//!
//! `tests/corpus.rs` runs them over saved and mutated inputs in `make test`; `targets/` wires them
//! to a coverage-guided fuzzer (`make fuzz TARGET=message`).

use std::ops::ControlFlow;
use std::sync::Arc;

use lastword_core::codec::{from_bytes, to_bytes};
use lastword_core::json;
use lastword_core::protocol::Message;
use lastword_store::payload::{Payload, kind};
use lastword_store::{
    Apply, ApplyError, Disk as _, FileKind, FrameRef, MemoryDisk, Options, StateTxn, Store,
};

/// A fuzz target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 4] = [
    ("message", message),
    ("record_json", record_json),
    ("payload", payload),
    ("log_file", log_file),
];

/// A protocol message: one that decodes has exactly one form.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = from_bytes::<Message>(bytes) {
        assert_eq!(to_bytes(&message), bytes, "two forms of one message");
    }
}

/// A record as JSON text: what is printed of it parses to the same record.
pub fn record_json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(record) = json::parse_record(text) else { return };
    let printed = json::record_to_string(&record).expect("a parsed record can be printed");
    let again = json::parse_record(&printed).expect("printed text parses");
    assert_eq!(again, record, "{printed}");
}

/// A frame payload; the first byte chooses the kind of frame.
pub fn payload(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let kind = kind::IDENTITY + choice % 8;
    if let Ok(payload) = Payload::from_frame(kind, bytes) {
        assert_eq!(payload.to_bytes(), bytes, "two forms of one payload");
    }
}

/// A store whose only log file is a good one with some bytes replaced: `position, bytes..`, the
/// position as two bytes. It opens with what was written, or with a prefix of it, or says why not.
pub fn log_file(bytes: &[u8]) {
    let Some((at, patch)) = bytes.split_first_chunk::<2>() else { return };
    let disk = MemoryDisk::new(SPARE_BYTES);
    let written = write_log(&disk);
    let Some(number) = first_log(&disk) else { return };
    let mut file = disk.bytes(number).expect("the file is there");
    let at = usize::from(u16::from_le_bytes(*at)) % file.len();
    for (place, byte) in file.iter_mut().skip(at).zip(patch) {
        *place = *byte;
    }
    disk.replace(number, file);
    let Ok((store, _)) = Store::open(Arc::new(disk), options(), Arc::new(Ignore)) else { return };
    let mut found = Vec::new();
    let read = store.view_handle().scan_frames(0, |frame| {
        if frame.kind == KIND {
            found.push(frame.payload.to_vec());
        }
        ControlFlow::Continue(())
    });
    read.expect("an open store can be read");
    assert!(written.starts_with(&found), "the log holds what was never written");
}

const SPARE_BYTES: u64 = 4 << 10;
const KIND: u8 = 40;

#[derive(Debug)]
struct Ignore;

impl Apply for Ignore {
    fn apply(&self, _: FrameRef<'_>, _: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        Ok(())
    }
}

fn options() -> Options {
    Options {
        segment_size: 8 << 10,
        zero_step: SPARE_BYTES,
        entropy: [5; 32],
        ..Options::default()
    }
}

fn write_log(disk: &MemoryDisk) -> Vec<Vec<u8>> {
    let opened = Store::open(Arc::new(disk.clone()), options(), Arc::new(Ignore));
    let (mut store, _) = opened.expect("an empty disk becomes a store");
    let payloads: Vec<Vec<u8>> = (0_u8..6).map(|n| vec![n; usize::from(n) * 37]).collect();
    for payload in &payloads {
        store.append(KIND, payload).expect("there is room");
        store.commit().expect("the disk works");
    }
    store.prove().expect("the disk works");
    payloads
}

fn first_log(disk: &MemoryDisk) -> Option<u64> {
    let files = disk.list().expect("the disk works");
    files.into_iter().find(|file| file.kind == FileKind::Log).map(|file| file.number)
}
