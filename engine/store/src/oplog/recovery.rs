//! Finds the end of the log, tells a torn tail from damage, and makes the log ready to grow.
//!
//! A group's first byte is written only after the sync of the group before. So behind a frame that
//! cannot be read, a frame of a group that *began* later proves that the bad frame was durable
//! once: damage. Frames of the torn group itself prove nothing and go with it.

use std::sync::Arc;

use lastword_core::plant::{Plant, planted};

use crate::disk::{Disk, FileKind, is_zero, read_header};
use crate::error::{DiskError, StoreError};
use crate::header::HeaderKind;
use crate::limits::{FRAME_ALIGN, SCAN_CHUNK};
use crate::oplog::base::BaseFile;
use crate::oplog::frame::{self, FrameRef};
use crate::oplog::reader::{LogReader, Scan};
use crate::oplog::segment::{Entropy, Segment, Template};
use crate::oplog::walk::{Part, Walk};
use crate::oplog::writer::{Durable, Writer, WriterOptions};

const TOO_SHORT: &str = "the log ends before the state it once made";
const BEFORE_BASE: &str = "the log ends before the base that stands for it does";

/// A log that is ready to grow.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) writer: Writer,
    /// Whether the log was closed in good order.
    pub(crate) clean: bool,
    /// Bytes behind the last valid frame that were not zero.
    pub(crate) cut_bytes: u64,
}

/// The files of a log.
#[derive(Debug, Default)]
pub(crate) struct LogFiles {
    /// In order, checked to follow one another and the base. Empty for a new disk.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// What stands for the log before the first segment, and maybe for some of the segments.
    pub(crate) base: Option<BaseFile>,
    /// Numbers of files that do not count: unfinished, or replaced by this base.
    pub(crate) useless: Vec<u64>,
    /// Files whose header cannot be read, and why: packs that the log names, or damage.
    pub(crate) unreadable: Vec<(u64, DiskError)>,
}

/// The log files on the disk. Bases that do not count, or that a newer one replaces, are removed.
pub(crate) fn load(disk: &dyn Disk) -> Result<LogFiles, StoreError> {
    let files = examine(disk)?;
    // As long as it is not known what an unreadable file was, nothing is useless.
    if files.unreadable.is_empty() {
        for number in &files.useless {
            disk.remove(*number)?;
        }
    }
    Ok(files)
}

/// The log files on the disk, of which nothing is changed.
pub(crate) fn examine(disk: &dyn Disk) -> Result<LogFiles, StoreError> {
    let (mut segments, mut bases, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    let is_wanted = |kind| matches!(kind, FileKind::Log | FileKind::Unreadable);
    for info in disk.list()?.into_iter().filter(|info| is_wanted(info.kind)) {
        let file = disk.open(info.number)?;
        let header = match read_header(info.number, &*file) {
            Ok(Some(header)) => header,
            Ok(None) => continue,
            Err(error) => {
                unreadable.push((info.number, error));
                continue;
            }
        };
        let segment = Arc::new(Segment::new(header, file));
        match segment.header.kind {
            HeaderKind::Base => bases.push(segment),
            HeaderKind::Segment => segments.push(segment),
            HeaderKind::Pack => {}
        }
    }
    match (in_order(disk, segments, &bases), unreadable.first()) {
        (Ok(files), _) if !files.segments.is_empty() => Ok(LogFiles { unreadable, ..files }),
        // What is missing is likely to be in it.
        (_, Some((_, error))) => Err(error.clone().into()),
        (files, None) => files,
    }
}

/// The files of a log that can be read, if they are all that there were.
fn in_order(
    disk: &dyn Disk,
    mut segments: Vec<Arc<Segment>>,
    bases: &[Arc<Segment>],
) -> Result<LogFiles, StoreError> {
    if segments.is_empty() {
        refuse_orphans(disk, bases.first().map(|base| &**base))?;
    }
    segments.sort_by_key(|segment| segment.first_position());
    let (base, mut useless) = newest_base(bases, &segments)?;
    let known = base.as_ref().map_or(0, |base| base.end.durable.end);
    let log_id = segments.first().map(|first| first.header.log_id);
    if let Some(stranger) = segments.iter().find(|s| Some(s.header.log_id) != log_id) {
        let first = stranger.first_position();
        return Err(stranger.damaged(first, "the segment belongs to another log"));
    }
    // A fold that was cut short may have removed some of the segments before its base ends, in any
    // order: those before a gap are no part of the log any more.
    for place in (0..segments.len()).rev() {
        let (before, rest) = segments.split_at(place);
        let Some(segment) = rest.first() else { break };
        let first = segment.first_position();
        let follows = match before.last() {
            None => first == 0 && segment.header.predecessor == [0; 16],
            Some(before) => {
                segment.header.predecessor == before.header.salt && first > before.first_position()
            }
        };
        if follows {
            continue;
        }
        if first > known {
            return Err(segment.damaged(first, "the segment before this one is missing"));
        }
        useless.extend(segments.drain(..place).map(|segment| segment.number()));
        break;
    }
    Ok(LogFiles { segments, base, useless, unreadable: Vec::new() })
}

/// The base that ends last, if it counts and fits the segments, and the numbers of the others.
fn newest_base(
    bases: &[Arc<Segment>],
    segments: &[Arc<Segment>],
) -> Result<(Option<BaseFile>, Vec<u64>), StoreError> {
    let (mut newest, mut unfinished): (Option<BaseFile>, Vec<u64>) = (None, Vec::new());
    let mut replaced = Vec::new();
    for segment in bases {
        let Some(base) = BaseFile::read(segment.clone())? else {
            unfinished.push(segment.number());
            continue;
        };
        let end = base.end.durable.end;
        match &newest {
            Some(best) if best.end.durable.end >= end => replaced.push(segment.number()),
            _ => replaced.extend(newest.replace(base).map(|old| old.segment.number())),
        }
    }
    if let Some(base) = &newest {
        let end = base.end.durable.end;
        let place = segments.iter().position(|segment| segment.header.salt == base.goes_on_in());
        let in_place = place.and_then(|place| segments.get(place)).is_some_and(|segment| {
            let next = place.and_then(|place| segments.get(place + 1));
            let next = next.map_or(u64::MAX, |next| next.first_position());
            segment.header.log_id == base.segment.header.log_id
                && (segment.first_position()..=next).contains(&end)
        });
        if !in_place {
            return Err(base.segment.damaged(end, "the segment in which the base ends is missing"));
        }
    }
    // An unfinished base is no loss as long as something else tells what the log began with.
    let whole =
        newest.is_some() || segments.first().is_none_or(|first| first.first_position() == 0);
    replaced.extend(unfinished.into_iter().filter(|_| whole));
    Ok((newest, replaced))
}

/// Bytes behind the last valid frame of the log, which ends at `end` and is of `group`. Errors:
/// [`StoreError::Damaged`] if they were durable once.
pub(crate) fn torn_tail(last: &Segment, end: u64, group: u64) -> Result<u64, StoreError> {
    let torn = junk_behind(last, end)?;
    if torn > 0 {
        check_torn(last, end, group)?;
    }
    Ok(torn)
}

/// The first segment is born before the state: a state alone has lost its log.
fn refuse_orphans(disk: &dyn Disk, base: Option<&Segment>) -> Result<(), StoreError> {
    if let Some(base) = base {
        let end = base.first_position();
        return Err(base.damaged(end, "the log that goes on behind this base is missing"));
    }
    for info in disk.list()? {
        let reason = match info.kind {
            FileKind::State => "this state is there, but the log it came from is missing",
            FileKind::Pack => {
                "this pack is there, but the log that names it is missing: `lastword files \
                 reindex` begins one"
            }
            _ => continue,
        };
        return Err(StoreError::Damaged { file: info.number, offset: 0, position: 0, reason });
    }
    Ok(())
}

/// The id of the log to which the packs belong that are all there is on a disk.
pub(crate) fn orphan_packs(disk: &dyn Disk) -> Result<Option<[u8; 16]>, StoreError> {
    let files = disk.list()?;
    if files.iter().any(|file| !matches!(file.kind, FileKind::Pack | FileKind::Spare)) {
        return Ok(None);
    }
    let Some(pack) = files.iter().find(|file| file.kind == FileKind::Pack) else {
        return Ok(None);
    };
    let header = read_header(pack.number, &*disk.open_to_read(pack.number)?)?;
    Ok(header.map(|header| header.log_id))
}

/// Begins a log on a disk that has none and returns its first segment.
pub(crate) fn create(
    disk: &dyn Disk,
    entropy: &mut Entropy,
    segment_size: u64,
    log_id: Option<[u8; 16]>,
) -> Result<Arc<Segment>, StoreError> {
    let log_id = log_id.unwrap_or_else(|| entropy.draw(0, 0));
    let kind = HeaderKind::Segment;
    let template = Template { kind, log_id, predecessor: [0; 16], segment_size };
    let segment = Segment::reserve(disk, entropy, &template, 0, 0)?;
    segment.give_birth()?;
    Ok(Arc::new(segment))
}

/// The header of a first segment that is here without a state may not be durable: its sync may be
/// what failed before. A state must not be there before it, so it is written once more.
pub(crate) fn settle_first(disk: &dyn Disk, segments: &[Arc<Segment>]) -> Result<(), StoreError> {
    let [first] = segments else { return Ok(()) };
    match disk.list()?.iter().any(|info| info.kind == FileKind::State) {
        true => Ok(()),
        false => Ok(first.give_birth()?),
    }
}

/// Begins a segment at `position` in which the log of `old` goes on, whatever that ends with.
pub(crate) fn create_behind(
    disk: &dyn Disk,
    entropy: &mut Entropy,
    old: &Segment,
    position: u64,
) -> Result<Segment, StoreError> {
    let template = Template {
        kind: HeaderKind::Segment,
        log_id: old.header.log_id,
        predecessor: old.header.salt,
        segment_size: old.header.segment_size,
    };
    let segment = Segment::reserve(disk, entropy, &template, position, 0)?;
    segment.give_birth()?;
    Ok(segment)
}

/// Fails if the valid frames of the log end before `position`.
pub(crate) fn check_reaches(segments: &[Arc<Segment>], position: u64) -> Result<(), StoreError> {
    let tail = Tail::find(segments, Durable { end: 0, group: 0 }, &mut |_| {})?;
    match segments.last() {
        Some(last) if tail.end < position => Err(last.damaged(tail.end, TOO_SHORT)),
        _ => Ok(()),
    }
}

/// Fails if the log cannot be read from `start` to its end.
pub(crate) fn check_readable(segments: &[Arc<Segment>], start: Durable) -> Result<(), StoreError> {
    let Some(last) = segments.last() else { return Ok(()) };
    let tail = Tail::find(segments, start, &mut |_| {})?;
    torn_tail(last, tail.end, tail.group).map(drop)
}

/// Recovers the log in `segments` (not empty), reading from `start`, which is known to be durable.
/// Every valid frame from there on is handed to `visit`; but before this returns without an error
/// nothing of it may leave memory.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    mut segments: Vec<Arc<Segment>>,
    mut entropy: Entropy,
    options: WriterOptions,
    start: Durable,
    visit: &mut dyn FnMut(FrameRef<'_>),
) -> Result<Recovered, StoreError> {
    let tail = Tail::find(&segments, start, visit)?;
    let last = segments.last().expect("invariant: a log has a segment").clone();
    let cut_bytes = torn_tail(&last, tail.end, tail.group)?;
    let empty = tail.end == last.first_position();
    let clean = tail.closed && cut_bytes == 0 || planted(Plant::AppendToUncleanFile);
    if empty {
        // Born, but its first group never became durable: it starts over as zeros. The sync of its
        // header may be the one that failed.
        wipe(&last, cut_bytes)?;
        last.give_birth()?;
    } else if !planted(Plant::ShowWithoutRewrite) {
        rewrite(&last, tail.group_at, tail.end)?;
    }
    if !empty && !clean {
        let template = Template {
            kind: HeaderKind::Segment,
            log_id: last.header.log_id,
            predecessor: last.header.salt,
            segment_size: options.segment_size,
        };
        let fresh = Segment::reserve(&**disk, &mut entropy, &template, tail.end, 0)?;
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

/// Fails if no frame ends at `start`, up to which the state stands for the log: the file is long
/// enough for it also where it is an older copy, or writes to it were lost. Damage before that
/// place is not looked at here; what it held was folded.
pub(crate) fn check_start(segments: &[Arc<Segment>], start: u64) -> Result<(), StoreError> {
    check_end(segments, start, TOO_SHORT)
}

/// Fails if the log ends before `end`, up to which a base stands for it. The base needs no frame
/// before that place: one that begins there, or a segment, shows as well that the log reached it.
pub(crate) fn check_base(segments: &[Arc<Segment>], end: u64) -> Result<(), StoreError> {
    let goes_on = match segments.last() {
        Some(last) if last.first_position() < end => {
            Scan::new(last, end, u64::MAX)?.next()?.is_some()
        }
        _ => true,
    };
    if goes_on { Ok(()) } else { check_end(segments, end, BEFORE_BASE) }
}

fn check_end(
    segments: &[Arc<Segment>],
    end: u64,
    too_short: &'static str,
) -> Result<(), StoreError> {
    let holding = segments.iter().rfind(|segment| segment.first_position() < end);
    let begins = segments.iter().any(|segment| segment.first_position() == end);
    let Some(segment) = holding.filter(|_| !begins) else { return Ok(()) };
    if ends_frame(segment, end)? {
        return Ok(());
    }
    let mut scan = Scan::new(segment, segment.first_position(), end)?;
    loop {
        while scan.next()?.is_some() {}
        let at = scan.position();
        if at == end {
            return Ok(());
        }
        match scan.find(at, |_| true)? {
            Some(found) => scan = Scan::new(segment, found, end)?,
            None => return Err(segment.damaged(at, too_short)),
        }
    }
}

/// Whether a valid frame ends at `end` that is not longer than one read: no need then to walk over
/// all that lies before it.
fn ends_frame(segment: &Segment, end: u64) -> Result<bool, DiskError> {
    if end > segment.capacity_end()? {
        return Ok(false);
    }
    let from = segment.first_position().max(end.saturating_sub(SCAN_CHUNK as u64));
    let mut bytes = vec![0; (end - from) as usize];
    segment.file.read_at(segment.offset(from), &mut bytes)?;
    let ends_here = |at: usize| {
        let position = from + at as u64;
        let frame = bytes.get(at..).filter(|bytes| frame::stated_len(bytes, position).is_some());
        frame
            .and_then(|bytes| frame::decode(bytes, segment.seed, position))
            .is_some_and(|frame| frame.end() == end)
    };
    Ok((0..bytes.len()).step_by(FRAME_ALIGN).rev().any(ends_here))
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
    /// Hands every frame from `start` on to `visit`, before it is known whether the log is whole.
    fn find(
        segments: &[Arc<Segment>],
        start: Durable,
        visit: &mut dyn FnMut(FrameRef<'_>),
    ) -> Result<Tail, StoreError> {
        let mut tail =
            Tail { end: start.end, group: start.group, group_at: start.end, closed: false };
        let mut parts = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let next = segments.get(index + 1).map(|next| next.first_position());
            if next.is_none_or(|next| next > start.end) {
                let from = start.end.max(segment.first_position());
                let to = next.unwrap_or(u64::MAX).min(segment.capacity_end()?);
                parts.push((Part { segment: segment.clone(), from, to }, next));
            }
        }
        let mut walk = Walk::new(parts.iter().map(|(part, _)| part.clone()).collect());
        for (Part { segment, from, to }, next) in parts {
            if to < from {
                return Err(segment.damaged(from, TOO_SHORT));
            }
            (tail.end, tail.group_at, tail.closed) = (from, from, false);
            while let Some(frame) = walk.next()? {
                if frame.group != tail.group {
                    (tail.group, tail.group_at) = (frame.group, frame.position);
                }
                tail.end = frame.end();
                tail.closed = frame.kind == frame::CLOSED;
                visit(frame);
            }
            if next.is_some_and(|next| tail.end != next) {
                return Err(segment.damaged(tail.end, "no valid frame before the next segment"));
            }
        }
        Ok(tail)
    }
}

/// Fails if a frame behind the end proves that what is there was durable.
fn check_torn(last: &Segment, end: u64, group: u64) -> Result<(), StoreError> {
    let next = group + 1;
    let later = Scan::new(last, end, u64::MAX)?
        .find(end, |frame| frame.group > next || (frame.group == next && frame.starts_group))?;
    match later {
        Some(_) if !planted(Plant::DropTheGroupRule) => {
            Err(last.damaged(end, "a bad frame before frames that are valid"))
        }
        _ => Ok(()),
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
        if !is_zero(&chunk)
            && let Some(last) = chunk.iter().rposition(|byte| *byte != 0)
        {
            junk = at + last as u64 + 1 - from;
        }
        at += chunk.len() as u64;
    }
    Ok(junk)
}
