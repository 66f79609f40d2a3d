//! Finds the end of the log, tells a torn tail from damage, and makes the log ready to grow.
//!
//! A group's first byte is written only after the sync of the group before. So behind a frame that
//! cannot be read, a frame of a group that *began* later proves that the bad frame was durable
//! once: damage. Frames of the torn group itself prove nothing and go with it.

use std::sync::Arc;

use crate::disk::{Disk, FileKind, read_header};
use crate::error::{DiskError, StoreError};
use crate::header::HeaderKind;
use crate::limits::SCAN_CHUNK;
use crate::oplog::frame;
use crate::oplog::reader::{LogReader, Scan};
use crate::oplog::segment::{Entropy, Segment, Template};
use crate::oplog::writer::{Durable, Writer, WriterOptions};

const TOO_SHORT: &str = "the log ends before the state it once made";

/// A log that is ready to grow.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) writer: Writer,
    /// Whether the log was closed in good order.
    pub(crate) clean: bool,
    /// Bytes behind the last valid frame that were not zero.
    pub(crate) cut_bytes: u64,
}

/// The segments on the disk in order, checked to follow one another. Empty for a new disk.
pub(crate) fn load(disk: &dyn Disk) -> Result<Vec<Arc<Segment>>, StoreError> {
    let mut segments = Vec::new();
    for info in disk.list()?.into_iter().filter(|info| info.kind == FileKind::Log) {
        let file = disk.open(info.number)?;
        if let Some(header) = read_header(info.number, &*file)? {
            let segment = Segment::new(header, file);
            if segment.header.kind != HeaderKind::Segment {
                let first = segment.first_position();
                return Err(segment.damaged(first, "this release writes no base segments"));
            }
            segments.push(Arc::new(segment));
        }
    }
    if segments.is_empty() {
        refuse_orphans(disk)?;
    }
    segments.sort_by_key(|segment| segment.first_position());
    let (mut log_id, mut salt, mut least) = (None, [0; 16], 0);
    for segment in &segments {
        let header = &segment.header;
        let first = header.first_position;
        if *log_id.get_or_insert(header.log_id) != header.log_id {
            return Err(segment.damaged(first, "the segment belongs to another log"));
        }
        if header.predecessor != salt || first < least || (salt == [0; 16] && first != 0) {
            return Err(segment.damaged(first, "the segment before this one is missing"));
        }
        (salt, least) = (header.salt, first + 1);
    }
    Ok(segments)
}

/// The first segment is born before the state: a state alone has lost its log.
fn refuse_orphans(disk: &dyn Disk) -> Result<(), StoreError> {
    match disk.list()?.into_iter().find(|info| info.kind == FileKind::State) {
        None => Ok(()),
        Some(state) => Err(StoreError::Damaged {
            file: state.number,
            offset: 0,
            position: 0,
            reason: "this state is there, but the log it came from is missing",
        }),
    }
}

/// Begins a log on an empty disk and returns its first segment.
pub(crate) fn create(
    disk: &dyn Disk,
    entropy: &mut Entropy,
    segment_size: u64,
) -> Result<Arc<Segment>, StoreError> {
    let log_id = entropy.draw(0, 0);
    let template = Template { log_id, predecessor: [0; 16], segment_size };
    let segment = Segment::reserve(disk, entropy, &template, 0)?;
    segment.give_birth()?;
    Ok(Arc::new(segment))
}

/// Fails if the valid frames of the log end before `position`.
pub(crate) fn check_reaches(segments: &[Arc<Segment>], position: u64) -> Result<(), StoreError> {
    let tail = Tail::find(segments, Durable { end: 0, group: 0 })?;
    match segments.last() {
        Some(last) if tail.end < position => Err(last.damaged(tail.end, TOO_SHORT)),
        _ => Ok(()),
    }
}

/// Recovers the log in `segments` (not empty), reading from `start`, which is known to be durable.
/// Nothing of the log may be used before this returns.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    mut segments: Vec<Arc<Segment>>,
    mut entropy: Entropy,
    options: WriterOptions,
    start: Durable,
) -> Result<Recovered, StoreError> {
    let tail = Tail::find(&segments, start)?;
    let last = segments.last().expect("invariant: a log has a segment").clone();
    let cut_bytes = junk_behind(&last, tail.end)?;
    if cut_bytes > 0 {
        tail.check_torn(&last)?;
    }
    let empty = tail.end == last.first_position();
    let clean = tail.closed && cut_bytes == 0;
    if empty {
        // Born, but its first group never became durable: it starts over as zeros.
        wipe(&last, cut_bytes)?;
    } else {
        rewrite(&last, tail.group_at, tail.end)?;
    }
    if !empty && !clean {
        let template = Template {
            log_id: last.header.log_id,
            predecessor: last.header.salt,
            segment_size: options.segment_size,
        };
        let fresh = Segment::reserve(&**disk, &mut entropy, &template, tail.end)?;
        fresh.give_birth()?;
        last.file.set_len(last.offset(tail.end))?;
        segments.push(Arc::new(fresh));
    }
    let current = segments.last().expect("invariant: a log has a segment").clone();
    let durable = Durable { end: tail.end, group: tail.group };
    let reader = LogReader::new(segments);
    let writer = Writer::new(disk.clone(), entropy, options, reader, current, durable)?;
    Ok(Recovered { writer, clean, cut_bytes })
}

/// Where the valid frames end.
struct Tail {
    /// Position behind the last valid frame.
    end: u64,
    /// Group of that frame.
    group: u64,
    /// Position of the first frame of that group that was read.
    group_at: u64,
    /// Whether that frame closed the log.
    closed: bool,
}

impl Tail {
    fn find(segments: &[Arc<Segment>], start: Durable) -> Result<Tail, StoreError> {
        let mut tail =
            Tail { end: start.end, group: start.group, group_at: start.end, closed: false };
        for (index, segment) in segments.iter().enumerate() {
            let next = segments.get(index + 1).map(|next| next.first_position());
            if next.is_some_and(|next| next <= tail.end) {
                continue;
            }
            tail.end = tail.end.max(segment.first_position());
            if segment.capacity_end()? < tail.end {
                return Err(segment.damaged(tail.end, TOO_SHORT));
            }
            let mut scan = Scan::new(segment, tail.end, next.unwrap_or(u64::MAX))?;
            tail.group_at = tail.end;
            tail.closed = false;
            while let Some(frame) = scan.next()? {
                if frame.group != tail.group {
                    (tail.group, tail.group_at) = (frame.group, frame.position);
                }
                tail.end = frame.end();
                tail.closed = frame.kind == frame::CLOSED;
            }
            if next.is_some_and(|next| tail.end != next) {
                return Err(segment.damaged(tail.end, "no valid frame before the next segment"));
            }
        }
        Ok(tail)
    }

    /// Fails if a frame behind the end proves that what is there was durable.
    fn check_torn(&self, last: &Segment) -> Result<(), StoreError> {
        let next = self.group + 1;
        let later = Scan::new(last, self.end, u64::MAX)?.find(self.end, |frame| {
            frame.group > next || (frame.group == next && frame.starts_group)
        })?;
        match later {
            Some(_) => Err(last.damaged(self.end, "a bad frame before frames that are valid")),
            None => Ok(()),
        }
    }
}

/// Writes the last group again, byte for byte, and syncs it. After a failed sync the system may
/// hold pages that read well and are on no medium; written again, they are.
fn rewrite(segment: &Segment, from: u64, to: u64) -> Result<(), DiskError> {
    let mut at = from;
    let mut chunk = Vec::new();
    while at < to {
        chunk.resize((to - at).min(SCAN_CHUNK as u64) as usize, 0);
        segment.file.read_at(segment.offset(at), &mut chunk)?;
        segment.file.write_at(segment.offset(at), &chunk)?;
        at += chunk.len() as u64;
    }
    segment.file.sync()
}

/// Writes zeros over the first `junk` bytes of a segment without frames, and syncs it.
fn wipe(segment: &Segment, junk: u64) -> Result<(), DiskError> {
    let mut at = segment.first_position();
    let end = at + junk;
    while at < end {
        let zeros = vec![0; (end - at).min(SCAN_CHUNK as u64) as usize];
        segment.file.write_at(segment.offset(at), &zeros)?;
        at += zeros.len() as u64;
    }
    segment.file.sync()
}

/// Bytes from `end` to the last byte of the file that is not zero.
fn junk_behind(segment: &Segment, end: u64) -> Result<u64, DiskError> {
    let (from, to) = (segment.offset(end), segment.file.len()?);
    let (mut at, mut junk) = (from, 0);
    let mut chunk = Vec::new();
    while at < to {
        chunk.resize((to - at).min(SCAN_CHUNK as u64) as usize, 0);
        segment.file.read_at(at, &mut chunk)?;
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            junk = at + last as u64 + 1 - from;
        }
        at += chunk.len() as u64;
    }
    Ok(junk)
}
