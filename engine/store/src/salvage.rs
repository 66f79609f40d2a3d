//! Salvaging: what can be read of a damaged store becomes a new one, and the rest is named.
//!
//! A log is good up to its first damage. What lies before that is taken over byte by byte,
//! beginning with the base or, where base or old segments are what is damaged, with the rows of
//! redb, if they are whole. Frames behind the damage that can still be read are told to the caller:
//! they may not follow from what is there, so nothing is made of them here.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use crate::backup::copy_file;
use crate::disk::{DirLock, Disk, ReadOnlyDisk, RealDisk, file_path, read_header, sync_dir};
use crate::error::{BackupError, StoreError};
use crate::fold::FoldJob;
use crate::header::{Header, HeaderKind};
use crate::oplog::{
    BaseFile, Durable, Entropy, FrameRef, Mark, Scan, Segment, check_base, create_behind, torn_tail,
};
use crate::state::{Apply, Dump, OpenState, Watermark, peek_state};

/// Cache for redb while it is read, in bytes.
const CACHE_BYTES: usize = 64 << 20;
/// Bytes of a spare in the new directory, that of a device.
const SPARE_BYTES: u64 = 1 << 20;

/// A place that cannot be read.
#[derive(Debug, Clone)]
pub struct Loss {
    /// What is wrong and where.
    pub error: StoreError,
    /// Frames behind it, in the same file and in later ones, that can be read.
    pub frames_behind: u64,
}

/// What a salvage took over and what it could not.
#[derive(Debug, Clone, Default)]
pub struct SalvageReport {
    /// The log is kept up to this position.
    pub end: u64,
    /// Where the old log would have gone on to.
    pub was_end: u64,
    /// Files that were taken over.
    pub files: u64,
    /// The rows come from redb, as base or old segments are damaged: history before is lost.
    pub from_state: bool,
    /// What could not be read.
    pub losses: Vec<Loss>,
}

/// Where the new log can begin.
enum Start {
    /// At its first segment, at position 0.
    First,
    Base(BaseFile),
    State(Box<OpenState>, Watermark),
}

impl Start {
    fn durable(&self) -> Durable {
        match self {
            Start::First => Durable { end: 0, group: 0 },
            Start::Base(base) => base.end.durable,
            Start::State(_, mark) => mark.durable,
        }
    }
}

/// Takes what can be read of the store on `disk` into the new directory `to`, which must be missing
/// or empty. `created_ms` and `entropy` go into a base that has to be written, without what `apply`
/// derives. `beyond` gets each frame behind the damage that can be read. Errors:
/// [`BackupError::NotEmpty`], what the disk says, or [`BackupError::Nothing`] if there is nothing
/// that a log could begin with.
pub fn salvage(
    disk: &ReadOnlyDisk,
    to: &Path,
    apply: &Arc<dyn Apply>,
    created_ms: i64,
    entropy: [u8; 32],
    beyond: &mut dyn FnMut(FrameRef<'_>),
) -> Result<SalvageReport, BackupError> {
    crate::backup::make_empty(to)?;
    let mut report = SalvageReport::default();
    let (segments, bases, packs) = readable_files(disk, &mut report)?;
    let mut best: Option<(Start, Reach)> = None;
    for start in starts(disk, &segments, bases, &mut report) {
        let Some(reach) = reach(&segments, start.durable()) else { continue };
        // A base keeps more of the history than the rows of redb do, and comes first.
        if best.as_ref().is_none_or(|(_, most)| reach.end > most.end) {
            best = Some((start, reach));
        }
    }
    let Some((start, reach)) = best else { return Err(BackupError::Nothing) };
    report.end = reach.end;
    report.was_end = reach.end;
    tell_history(&segments, start.durable().end, &mut report)?;
    tell_losses(&segments, &reach, &mut report, beyond)?;
    let mut entropy = Entropy::new(entropy);
    let kept = segments.get(reach.first..=reach.last).unwrap_or_default();
    let end = start.durable().end;
    // A pack is whatever the log says of it: each of its chunks is compared when it is read.
    for pack in &packs {
        let path = file_path(to, pack.number(), false);
        copy_file(&*pack.file, pack.number(), pack.file.len()?, &path)?;
        report.files += 1;
    }
    // The log was cut or is an older copy: what is left of it is before what the rows stand for.
    let ends_before = kept.last().filter(|_| check_base(kept, end).is_err());
    if ends_before.is_none() {
        for (place, segment) in kept.iter().enumerate() {
            let len = segment.offset(next_of(kept, place).min(reach.end));
            let path = file_path(to, segment.number(), false);
            copy_file(&*segment.file, segment.number(), len, &path)?;
            report.files += 1;
        }
    }
    match start {
        Start::First => {}
        Start::Base(base) => {
            let path = file_path(to, base.segment.number(), false);
            copy_file(&*base.segment.file, base.segment.number(), base.len, &path)?;
            if let Some(old) = ends_before {
                let predecessor = go_on_behind(old, end, to, &mut entropy)?;
                rewrite_header(&path, &Header { predecessor, ..base.segment.header.clone() })?;
            }
            report.files += 1;
        }
        Start::State(state, mark) => {
            let holding = kept.iter().rfind(|segment| segment.first_position() <= end);
            let salt = match (ends_before, holding) {
                (Some(old), _) => go_on_behind(old, end, to, &mut entropy)?,
                (None, Some(holding)) => holding.header.salt,
                (None, None) => return Err(BackupError::Nothing),
            };
            write_base(&state, Watermark { salt, ..mark }, apply, to, created_ms, entropy)?;
            report.files += 1;
            report.from_state = true;
        }
    }
    sync_dir(to)?;
    Ok(report)
}

/// Segments in order, bases, packs.
type Files = (Vec<Arc<Segment>>, Vec<Arc<Segment>>, Vec<Arc<Segment>>);

/// Files whose header cannot be read are losses.
fn readable_files(disk: &ReadOnlyDisk, report: &mut SalvageReport) -> Result<Files, BackupError> {
    let (mut segments, mut bases, mut packs) = (Vec::new(), Vec::new(), Vec::new());
    for number in disk.numbers_of(false)? {
        let file = disk.open(number)?;
        match read_header(number, &*file) {
            Ok(None) => {}
            Ok(Some(header)) => {
                let segment = Arc::new(Segment::new(header, file));
                match segment.header.kind {
                    HeaderKind::Segment => segments.push(segment),
                    HeaderKind::Base => bases.push(segment),
                    HeaderKind::Pack => packs.push(segment),
                }
            }
            Err(error) => report.losses.push(Loss { error: error.into(), frames_behind: 0 }),
        }
    }
    segments.sort_by_key(|segment| segment.first_position());
    Ok((segments, bases, packs))
}

/// Whatever a log can begin with, the best first.
fn starts(
    disk: &ReadOnlyDisk,
    segments: &[Arc<Segment>],
    bases: Vec<Arc<Segment>>,
    report: &mut SalvageReport,
) -> Vec<Start> {
    let mut starts = Vec::new();
    for segment in bases {
        let read = BaseFile::read(segment.clone()).and_then(|base| match base {
            None => Ok(None),
            Some(base) => base.visit(|_| Ok(())).map(|()| Some(base)),
        });
        match read {
            Ok(None) => {}
            Ok(Some(base)) => starts.push(Start::Base(base)),
            Err(error) => report.losses.push(Loss { error, frames_behind: 0 }),
        }
    }
    starts.sort_by_key(|start| std::cmp::Reverse(start.durable().end));
    if segments.first().is_some_and(|first| first.first_position() == 0) {
        starts.push(Start::First);
    }
    if let Some((state, mark)) = segments.first().and_then(|first| whole_state(disk, first)) {
        starts.push(Start::State(Box::new(state), mark));
    }
    starts
}

/// The state, if every row of it is right and none is missing.
fn whole_state(disk: &ReadOnlyDisk, first: &Segment) -> Option<(OpenState, Watermark)> {
    let number = *disk.numbers_of(true).ok()?.first()?;
    let state = peek_state(disk, number, first.header.log_id, CACHE_BYTES).ok()??;
    let mark = state.base.watermark?;
    let mut dump = Dump::new(state.base.clone(), &[]);
    while dump.next().ok()?.is_some() {}
    Some((state, mark))
}

/// Which part of a log can be read.
struct Reach {
    /// Places of the first and the last segment that are taken over.
    first: usize,
    last: usize,
    /// Position behind the last frame, and its group.
    end: u64,
    group: u64,
}

fn next_of(segments: &[Arc<Segment>], place: usize) -> u64 {
    segments.get(place + 1).map_or(u64::MAX, |next| next.first_position())
}

/// Whether the segment at `place` goes on where the one before it ends.
fn is_joined(segments: &[Arc<Segment>], place: usize) -> bool {
    let before = place.checked_sub(1).and_then(|before| segments.get(before));
    match (before, segments.get(place)) {
        (Some(before), Some(after)) => after.header.predecessor == before.header.salt,
        _ => false,
    }
}

/// Where the valid frames of a segment end that begin at `from`, and the group of the last.
fn read_to(segment: &Segment, from: u64, next: u64) -> Result<Durable, StoreError> {
    let mut read = Durable { end: from, group: 0 };
    let mut scan = Scan::new(segment, from, next)?;
    while let Some(frame) = scan.next()? {
        read = Durable { end: frame.end(), group: frame.group };
    }
    Ok(read)
}

/// How far the log can be read from a start on; `None` if no segment holds it.
fn reach(segments: &[Arc<Segment>], start: Durable) -> Option<Reach> {
    let holding = segments.iter().rposition(|segment| segment.first_position() <= start.end)?;
    let mut reach = Reach { first: holding, last: holding, end: start.end, group: start.group };
    for (place, segment) in segments.iter().enumerate().skip(holding) {
        if place > holding {
            if reach.end != segment.first_position() || !is_joined(segments, place) {
                break;
            }
            reach.last = place;
        }
        let read = read_to(segment, reach.end, next_of(segments, place)).ok()?;
        if read.end > reach.end {
            (reach.end, reach.group) = (read.end, read.group);
        }
    }
    // History before the start comes along as far as it is whole.
    while let Some(segment) = segments.get(reach.first) {
        let until = next_of(segments, reach.first).min(start.end.max(segment.first_position()));
        let whole = read_to(segment, segment.first_position(), until).ok()?.end == until;
        if !whole || !is_joined(segments, reach.first) {
            break;
        }
        reach.first -= 1;
    }
    Some(reach)
}

/// Names what cannot be read of the log before `start`, where the rows come from: its history.
fn tell_history(
    segments: &[Arc<Segment>],
    start: u64,
    report: &mut SalvageReport,
) -> Result<(), BackupError> {
    for (place, segment) in segments.iter().enumerate() {
        let until = next_of(segments, place).min(start);
        if segment.first_position() < until {
            let end = read_to(segment, segment.first_position(), until)?.end;
            if end < until {
                let error = segment.damaged(end, "no valid frame begins here");
                report.losses.push(Loss { error, frames_behind: 0 });
            }
        }
    }
    Ok(())
}

/// Begins a segment in the new directory in which the log of `old` goes on at `end`; returns its
/// salt.
fn go_on_behind(
    old: &Segment,
    end: u64,
    to: &Path,
    entropy: &mut Entropy,
) -> Result<[u8; 16], BackupError> {
    Ok(create_behind(&*disk_in(to)?, entropy, old, end)?.header.salt)
}

/// Of a base, whose frames do not depend on where the log goes on.
fn rewrite_header(path: &Path, header: &Header) -> Result<(), BackupError> {
    let io = |source| BackupError::Io { path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(io)?;
    file.write_all(&header.encode()).and_then(|()| file.sync_all()).map_err(io)
}

fn disk_in(to: &Path) -> Result<Arc<dyn Disk>, BackupError> {
    let lock = DirLock::acquire(to).map_err(|error| BackupError::Lock(Box::new(error)))?;
    Ok(Arc::new(RealDisk::open(lock, SPARE_BYTES)?))
}

/// Names the damage where the readable log ends, if it went on behind that, and hands out what can
/// be read there.
fn tell_losses(
    segments: &[Arc<Segment>],
    reach: &Reach,
    report: &mut SalvageReport,
    beyond: &mut dyn FnMut(FrameRef<'_>),
) -> Result<(), BackupError> {
    let Some(last) = segments.get(reach.last) else { return Ok(()) };
    let is_end = reach.last + 1 == segments.len();
    if is_end && torn_tail(last, reach.end, reach.group).is_ok() {
        return Ok(());
    }
    let mut frames_behind = 0;
    for (place, segment) in segments.iter().enumerate().skip(reach.last) {
        let next = next_of(segments, place);
        let mut at = reach.end.max(segment.first_position());
        let mut scan = Scan::new(segment, at, next)?;
        loop {
            while let Some(frame) = scan.next()? {
                beyond(frame);
                frames_behind += 1;
                report.was_end = frame.end();
            }
            at = at.max(scan.position());
            let Some(found) = scan.find(at, |_| true)? else { break };
            scan = Scan::new(segment, found, next)?;
        }
    }
    let error = last.damaged(reach.end, "no valid frame begins here");
    report.losses.push(Loss { error, frames_behind });
    Ok(())
}

/// A base with the rows of redb, in the new directory.
fn write_base(
    state: &OpenState,
    watermark: Watermark,
    apply: &Arc<dyn Apply>,
    to: &Path,
    created_ms: i64,
    entropy: Entropy,
) -> Result<(), BackupError> {
    let job = FoldJob {
        disk: disk_in(to)?,
        apply: apply.clone(),
        entropy,
        base: state.base.clone(),
        watermark,
        marks: vec![Mark { position: watermark.durable.end, time_ms: created_ms }],
        keep_from: 0,
        running: Arc::default(),
    };
    let (_, unkept) = job.write().map_err(|error| BackupError::Store(Box::new(error)))?;
    unkept.keep();
    Ok(())
}
