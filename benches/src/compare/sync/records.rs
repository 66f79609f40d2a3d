//! The records that every engine is given: chat messages of the usual shape and sizes, each under a
//! key of its own, as lines of a file that all of them read.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::Result;
use crate::rows::{mix, uuid};

/// Of so many records one is changed while a device is away.
pub(crate) const CHURN_EVERY: u64 = 100;
/// Keys of live records begin here, far behind all others.
const LIVE_FROM: u64 = 1 << 40;
const THREAD_MESSAGES: u64 = 20;
/// Text of a message: most are short, one in a few is long.
const MIN_BODY_BYTES: u64 = 12;
const MEAN_BODY_BYTES: f64 = 130.0;
const FIRST_MS: u64 = 1_700_000_000_000;

/// A file of records, one JSON line each, and how much an app sees in it.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    pub(crate) path: PathBuf,
    pub(crate) count: u64,
    /// Of the records as compact JSON, without the lines around them.
    pub(crate) payload_bytes: u64,
}

/// What one engine is given.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) records: Lines,
    /// The changed versions of some of them.
    pub(crate) churn: Lines,
    /// New records for the live part, numbered in field `index` from 0.
    pub(crate) live: Lines,
}

impl Files {
    pub(crate) fn write(dir: &Path, records: u64, live: u64) -> Result<Self> {
        let churn = (0..records).step_by(usize::try_from(CHURN_EVERY)?).map(|n| message(n, 2, n));
        Ok(Files {
            records: lines(dir, "records", (0..records).map(|n| message(n, 1, n)))?,
            churn: lines(dir, "churn", churn)?,
            live: lines(dir, "live", (0..live).map(|n| message(LIVE_FROM + n, 1, n)))?,
        })
    }
}

fn lines(dir: &Path, name: &str, all: impl Iterator<Item = (String, String)>) -> Result<Lines> {
    let path = dir.join(name).with_extension("jsonl");
    let mut out = BufWriter::new(File::create(&path)?);
    let (mut count, mut payload_bytes) = (0, 0);
    for (key, value) in all {
        writeln!(out, r#"{{"table":"messages","key":"{key}","value":{value}}}"#)?;
        count += 1;
        payload_bytes += value.len() as u64;
    }
    out.flush()?;
    Ok(Lines { path, count, payload_bytes })
}

/// Key and JSON of message `number` in version `version`.
fn message(number: u64, version: u64, index: u64) -> (String, String) {
    let (key, thread) = (uuid(number), uuid(!(number / THREAD_MESSAGES)));
    let bits = mix(number ^ mix(version));
    let (role, author) = (["user", "assistant"][(number % 2) as usize], mix(number / 500) >> 24);
    let created = FIRST_MS + number * 1000;
    let updated = created + (version - 1) * 60_000;
    let value = format!(
        r#"{{"id":"{key}","thread_id":"{thread}","role":"{role}","data":{{"author":"u{author:010x}","content":"{}"}},"index":{index},"order_key":"{created:013}:0000:{:08x}","file_hashes":null,"deleted":false,"created_at":{created},"updated_at":{updated},"clock":{version}}}"#,
        body(bits),
        bits >> 32,
    );
    (key, value)
}

/// Words, as many as a message has.
fn body(bits: u64) -> String {
    const SYLLABLES: [&str; 16] = [
        "ra", "ken", "to", "li", "mon", "es", "vor", "a", "chi", "ber", "un", "dal", "ot", "fe",
        "sy", "gu",
    ];
    // Even spread in (0, 1], so the lengths fall off as those of real messages do.
    let share = (bits >> 11) as f64 / (1u64 << 53) as f64;
    let more = (-(1.0 - share).ln() * MEAN_BODY_BYTES) as u64;
    let bytes = usize::try_from(MIN_BODY_BYTES + more).unwrap_or_default();
    let mut text = String::with_capacity(bytes + 16);
    let mut at = bits;
    while text.len() < bytes {
        at = mix(at);
        for part in 0..=at % 3 {
            text.push_str(SYLLABLES[(at >> (8 + 4 * part)) as usize & 15]);
        }
        text.push(' ');
    }
    text.truncate(bytes);
    text
}
