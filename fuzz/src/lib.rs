//! Fuzz targets as plain functions: any bytes must be taken or refused, never panic.
//!
//! `tests/corpus.rs` runs them over saved and mutated inputs in `make test`; `targets/` wires them
//! to a coverage-guided fuzzer (`make fuzz TARGET=message`).

mod log;

use lastword_core::codec::{from_bytes, to_bytes};
use lastword_core::json;
use lastword_core::protocol::Message;
use lastword_store::payload::{Payload, kind};

pub use log::{frame, log_file, saved_log};

/// A fuzz target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 5] = [
    ("message", message),
    ("record_json", record_json),
    ("payload", payload),
    ("log_file", log_file),
    ("frame", frame),
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
