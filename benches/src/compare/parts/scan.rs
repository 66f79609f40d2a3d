//! The log read from its files, beside the same loop over memory.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use lastword::store::limits::{FRAME_HEADER_LEN, HEADER_LEN};
use lastword::store::{Header, HeaderKind, Options};

use crate::Result;
use crate::engines::{decode, open_store};
use crate::measure::{median, ratio};
use crate::parts::Setting;
use crate::parts::rebuild::{for_each, write_log};
use crate::table::{Goal, Report, number};

/// A segment in memory, read as `docs/format.md` says.
struct Segment {
    bytes: Vec<u8>,
    first_position: u64,
    seed: u32,
}

/// e) Scan of the log with checksum and decode.
pub(crate) fn scan(setting: &Setting) -> Result<Report> {
    write_log(&setting.dir)?;
    let (store, _) = open_store(&setting.dir, Options::default())?;
    let views = store.view_handle();
    let segments = segments(&setting.dir)?;
    let (mut files, mut memory, mut bytes_per_s) = (Vec::new(), Vec::new(), Vec::new());
    // Whoever goes second finds the processor as the first left it, so they take turns.
    for round in 0..setting.rounds {
        for turn in 0..2 {
            let begun = Instant::now();
            let entries = match (round + turn) % 2 {
                0 => {
                    let mut entries = 0_u64;
                    for_each(&views, |key, value| {
                        black_box((key, value));
                        entries += 1;
                    })?;
                    files.push(entries as f64 / begun.elapsed().as_secs_f64());
                    continue;
                }
                _ => segments.iter().map(Segment::scan).sum::<Result<u64>>()?,
            };
            memory.push(entries as f64 / begun.elapsed().as_secs_f64());
        }
        let begun = Instant::now();
        let checked: usize = segments.iter().map(|segment| segment.bytes.len()).sum();
        for segment in &segments {
            black_box(crc32fast::hash(&segment.bytes));
        }
        bytes_per_s.push(checked as f64 / begun.elapsed().as_secs_f64());
    }
    store.close()?;
    let by_memory = ratio(&files, &memory);
    let line = |name: &str, rates: Vec<f64>, by: f64| {
        vec![name.to_owned(), number(median(rates)), number(by)]
    };
    Ok(Report {
        title: format!("e: scan of a log of 1M entries, {} rounds", setting.rounds),
        columns: vec!["loop", "entries/s", "files/it"],
        rows: vec![
            line("store: log files", files, 1.0),
            line("the same over memory", memory, by_memory),
        ],
        notes: vec![format!(
            "crc32 of whole segments in memory: {:.2} GB/s",
            median(bytes_per_s) / 1e9
        )],
        goals: vec![Goal {
            device: None,
            ..Goal::faster("log scan / memory", 0.9, by_memory, 0.0)
        }],
    })
}

/// All segments of the log in `dir`, in order.
fn segments(dir: &Path) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for found in std::fs::read_dir(dir)? {
        let path = found?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Ok(file_number) = name.parse::<u64>() else { continue };
        let bytes = std::fs::read(&path)?;
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else { continue };
        let Ok(header) = Header::decode(file_number, head) else { continue };
        if header.kind != HeaderKind::Segment {
            continue;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header.log_id).update(&header.number.to_le_bytes()).update(&header.salt);
        let digest = hasher.finalize();
        let [a, b, c, d, ..] = *digest.as_bytes();
        let (first_position, seed) = (header.first_position, u32::from_le_bytes([a, b, c, d]));
        segments.push(Segment { bytes, first_position, seed });
    }
    segments.sort_by_key(|segment| segment.first_position);
    Ok(segments)
}

impl Segment {
    /// Verifies and decodes every frame, and counts those that hold a row.
    fn scan(&self) -> Result<u64> {
        let mut rest = self.bytes.get(HEADER_LEN..).unwrap_or_default();
        let (mut position, mut entries) = (self.first_position, 0);
        while let Some(head) = rest.first_chunk::<FRAME_HEADER_LEN>() {
            let field = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| head[at + byte]));
            if u64::from(field(0)) | u64::from(field(4)) << 32 != position {
                break;
            }
            let (payload_len, crc) = (field(8) as usize, field(12));
            let len = (FRAME_HEADER_LEN + payload_len).next_multiple_of(8);
            let frame = rest.get(..len).ok_or("a frame ends behind its segment")?;
            let mut hasher = crc32fast::Hasher::new_with_initial(self.seed);
            hasher.update(&frame[..12]);
            hasher.update(&frame[16..]);
            if hasher.finalize() != crc {
                return Err(format!("the frame at {position} has another checksum").into());
            }
            let payload = &frame[FRAME_HEADER_LEN..FRAME_HEADER_LEN + payload_len];
            if let Some(row) = decode(payload) {
                black_box(row);
                entries += 1;
            }
            position += len as u64;
            rest = &rest[len..];
        }
        Ok(entries)
    }
}
