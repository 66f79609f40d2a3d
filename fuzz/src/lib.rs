//! Fuzz targets as plain functions: any bytes must be taken or refused, never panic.
//!
//! `tests/corpus.rs` runs them over saved and mutated inputs in `make test`; `targets/` wires them
//! to a coverage-guided fuzzer (`make fuzz TARGET=message`).

mod log;
mod store;

use lastword_core::codec::{Decode, Encode, from_bytes, to_bytes};
use lastword_core::json;
use lastword_core::op::{Batch, Op};
use lastword_core::protocol::{FileMessage, Message};
use lastword_core::row::Row;
use lastword_core::stamp::Decision;
use lastword_core::value::{Record, Value};
use lastword_store::payload::{Payload, kind};

pub use log::{frame, log_file, saved_log};
pub use store::{directory, steps};

/// A fuzz target: its name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("message", message),
    ("record_json", record_json),
    ("payload", payload),
    ("codec", codec),
    ("log_file", log_file),
    ("frame", frame),
    ("directory", directory),
    ("steps", steps),
];

/// A protocol message: one that decodes has exactly one form.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = from_bytes::<Message>(bytes) {
        assert_eq!(to_bytes(&message), bytes, "two forms of one message");
    }
    if let Ok(message) = from_bytes::<FileMessage>(bytes) {
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
    let kind = kind::IDENTITY + choice % 64;
    if let Ok(payload) = Payload::from_frame(kind, bytes) {
        assert_eq!(payload.to_bytes(), bytes, "two forms of one payload");
    }
}

/// One value of the codec; the first byte chooses its type. What decodes has exactly one form.
pub fn codec(bytes: &[u8]) {
    fn one_form<T: Decode + Encode>(bytes: &[u8]) {
        if let Ok(value) = from_bytes::<T>(bytes) {
            assert_eq!(to_bytes(&value), bytes, "two forms of one value");
        }
    }
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 6 {
        0 => one_form::<Value>(bytes),
        1 => one_form::<Record>(bytes),
        2 => one_form::<Op>(bytes),
        3 => one_form::<Batch>(bytes),
        4 => one_form::<Row>(bytes),
        _ => one_form::<Decision>(bytes),
    }
}
