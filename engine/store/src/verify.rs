//! Verifying: reads every byte of a store, changes none, and says what is not as it was written.
//!
//! Each file's header and place, each frame of base and log, each row of redb against its digest,
//! each space against its sums; then base and log are folded once more, elsewhere, the result is
//! compared with redb, and each chunk of a file that it names with the chunk's name.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::blobs::{self, CheckedBlobs};
use crate::disk::{Disk, FileKind};
use crate::error::{ApplyError, StoreError};
use crate::fold::{Replay, load};
use crate::oplog::{self, BaseFile, Durable, LogFiles, LogReader, Scan, Segment};
use crate::read;
use crate::state::{
    Apply, Dump, LiveState, OpenState, Space, StateSums, View, Watermark, create_state, peek_state,
};

/// Cache for redb while it is verified, in bytes.
const CACHE_BYTES: usize = 64 << 20;
/// Memory that the second fold takes before it is written out, in bytes.
const DELTA_BYTES: usize = 64 << 20;

/// What a verification does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading base and log.
    Log,
    /// Folding them once more.
    Fold,
    /// Reading redb.
    State,
    /// Reading the chunks of files.
    Packs,
}

/// Something that is not as it was written.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What, where, and what to do next.
    pub error: StoreError,
    /// Whether data may be lost. A bad state is made anew from the log.
    pub is_loss: bool,
}

/// What a verification saw.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Files of the log, base included.
    pub log_files: u64,
    /// Bytes of frames that were read.
    pub log_bytes: u64,
    /// Frames with a right checksum.
    pub frames: u64,
    /// First position of the log.
    pub first: u64,
    /// Position behind the last valid frame.
    pub end: u64,
    /// Bytes behind it that no sync had covered when the process ended; not a finding.
    pub torn_bytes: u64,
    /// Rows in the base.
    pub base_rows: u64,
    /// Rows in redb.
    pub state_rows: u64,
    /// The files in its packs.
    pub blobs: CheckedBlobs,
    /// The state could be compared with a second fold of the log.
    pub compared: bool,
    /// Why there was no second fold, if the scratch place failed: it says nothing of the store.
    pub scratch_failed: Option<StoreError>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    fn add(&mut self, error: StoreError, is_loss: bool) {
        self.findings.push(Finding { error, is_loss });
    }
}

/// Verifies the store on `disk`, which no process may have open. `scratch` takes the second fold
/// and is left as it was. What is found is in the report, not an error, and so is a failure of
/// `scratch`; `progress` gets the step and bytes of the log.
pub fn verify(
    disk: &Arc<dyn Disk>,
    scratch: &Arc<dyn Disk>,
    apply: &Arc<dyn Apply>,
    progress: &mut dyn FnMut(Step, u64),
) -> VerifyReport {
    let mut report = VerifyReport::default();
    let files = match oplog::examine(&**disk) {
        Ok(files) => files,
        Err(error) => {
            report.add(error, true);
            return report;
        }
    };
    report.log_files = files.segments.len() as u64 + u64::from(files.base.is_some());
    let mut whole = read_log(&files, &mut report, progress);
    let Some(last) = files.segments.last() else { return report };
    let folded_to = files.base.as_ref().map_or(0, |base| base.end.durable.end);
    if whole && let Err(error) = oplog::check_base(&files.segments, folded_to) {
        report.add(error, true);
        whole = false;
    }
    let header = &last.header;
    progress(Step::State, report.log_bytes);
    let state = open_existing(&**disk, header.log_id, &mut report);
    let sums = state.as_ref().and_then(|state| read_rows(state, &mut report));
    let mut unreadable = files.unreadable.clone();
    if !whole {
        unreadable.into_iter().for_each(|(_, error)| report.add(error.into(), true));
        return report;
    }
    progress(Step::Fold, report.log_bytes);
    let here = Watermark {
        log_id: header.log_id,
        salt: header.salt,
        durable: Durable { end: report.end, group: 1 },
    };
    let mark = state.as_ref().and_then(|state| state.base.watermark);
    let mark = mark.filter(|mark| (folded_to..=report.end).contains(&mark.durable.end));
    let (mut bad, read_bytes) = (Vec::new(), report.log_bytes);
    let mut look = |view: &Arc<View>| {
        let mut told = |bytes| progress(Step::Packs, read_bytes + bytes);
        let named = packs_named(view).map_err(Failed::of)?;
        unreadable.retain(|(number, _)| !named.contains(number));
        let checked =
            blobs::check((disk, header.log_id), view, &mut |error| bad.push(error), &mut told);
        report.blobs = checked.map_err(Failed::of)?;
        Ok(())
    };
    let again = fold_again(scratch, apply, &files, (mark.unwrap_or(here), report.end), &mut look);
    bad.into_iter().for_each(|error| report.add(error, true));
    unreadable.into_iter().for_each(|(_, error)| report.add(error.into(), true));
    match (again, state, sums) {
        (Err(Failed::Scratch(error)), ..) => report.scratch_failed = Some(error),
        (Err(Failed::Store(error)), ..) => report.add(error, true),
        (Ok(again), Some(state), Some(sums)) if mark.is_some() => {
            compare(&mut report, &state, &sums, &again);
        }
        _ => {}
    }
    report
}

/// The packs that a state names, of all workspaces.
fn packs_named(view: &View) -> Result<BTreeSet<u64>, StoreError> {
    let mut named = BTreeSet::new();
    for workspace in read::blob_workspaces(view)? {
        named.extend(read::packs(view, &workspace)?.into_iter().map(|(number, _)| number));
    }
    Ok(named)
}

/// One row of the state on `disk`, of which nothing is changed; `None` if there is no such row, or
/// no state that can be opened.
pub fn state_row(
    disk: &dyn Disk,
    space: Space,
    key: &[u8],
) -> Result<Option<Arc<[u8]>>, StoreError> {
    let files = oplog::examine(disk)?;
    let Some(first) = files.segments.first() else { return Ok(None) };
    let listed = disk.list()?;
    let Some(file) = listed.iter().find(|file| file.kind == FileKind::State) else {
        return Ok(None);
    };
    match peek_state(disk, file.number, first.header.log_id, CACHE_BYTES)? {
        Some(state) => state.base.get(space, key),
        None => Ok(None),
    }
}

/// Reads base and log; false if something in them is damaged.
fn read_log(
    files: &LogFiles,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(Step, u64),
) -> bool {
    let mut whole = true;
    if let Some(base) = &files.base {
        let read = read_base(base, report);
        whole &= read.map_err(|error| report.add(error, true)).is_ok();
    }
    report.first = files.segments.first().map_or(0, |first| first.first_position());
    for (place, segment) in files.segments.iter().enumerate() {
        let next = files.segments.get(place + 1).map(|next| next.first_position());
        let read = read_segment(segment, next, report);
        whole &= read.map_err(|error| report.add(error, true)).is_ok();
        progress(Step::Log, report.log_bytes);
    }
    whole
}

fn read_base(base: &BaseFile, report: &mut VerifyReport) -> Result<(), StoreError> {
    let mut rows = 0;
    base.visit(|frame| {
        report.frames += 1;
        report.log_bytes += frame.end() - frame.position;
        crate::fold::count_rows(frame.payload, &mut rows)
            .map_err(|_| base.segment.damaged(frame.position, "rows of the base do not decode"))
    })?;
    report.base_rows = rows;
    Ok(())
}

/// Reads one segment to its end; goes on behind a bad frame, so that each is told.
fn read_segment(
    segment: &Segment,
    next: Option<u64>,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let mut scan = Scan::new(segment, segment.first_position(), next.unwrap_or(u64::MAX))?;
    let (mut end, mut group) = (segment.first_position(), 0);
    while let Some(frame) = scan.next()? {
        report.frames += 1;
        report.log_bytes += frame.end() - frame.position;
        (end, group) = (frame.end(), frame.group);
    }
    report.end = end;
    match next {
        Some(next) if end != next => {
            Err(segment.damaged(end, "no valid frame before the next segment"))
        }
        Some(_) => Ok(()),
        None => {
            report.torn_bytes = oplog::torn_tail(segment, end, group)?;
            Ok(())
        }
    }
}

/// The state, if there is one that can be opened.
fn open_existing(
    disk: &dyn Disk,
    log_id: [u8; 16],
    report: &mut VerifyReport,
) -> Option<OpenState> {
    let listed = disk.list().ok()?;
    let number = listed.iter().find(|file| file.kind == FileKind::State)?.number;
    match peek_state(disk, number, log_id, CACHE_BYTES) {
        Ok(state) => state,
        Err(error) => {
            report.add(error, false);
            None
        }
    }
}

fn read_rows(state: &OpenState, report: &mut VerifyReport) -> Option<StateSums> {
    state.base.watermark?;
    let mut dump = Dump::new(state.base.clone(), &[]);
    loop {
        match dump.next() {
            Ok(Some(_)) => report.state_rows += 1,
            Ok(None) => return Some(dump.seen()),
            Err(error) => {
                report.add(error, false);
                return None;
            }
        }
    }
}

/// What made a second fold fail.
enum Failed {
    Scratch(StoreError),
    Store(StoreError),
}

impl Failed {
    /// The only state that a fold reads and writes is the one in the scratch place.
    fn of(error: StoreError) -> Self {
        if is_of_state(&error) { Failed::Scratch(error) } else { Failed::Store(error) }
    }
}

fn is_of_state(error: &StoreError) -> bool {
    match error {
        StoreError::StateDamaged { .. } | StoreError::StateUnavailable { .. } => true,
        StoreError::Apply { source, .. } => match &**source {
            ApplyError::Store(error) => is_of_state(error),
            ApplyError::Refused(_) => false,
        },
        _ => false,
    }
}

/// The sums of base and log folded once more, up to `at`, with what follows folded too; `look` gets
/// the state of the end.
fn fold_again(
    scratch: &Arc<dyn Disk>,
    apply: &Arc<dyn Apply>,
    files: &LogFiles,
    (at, end): (Watermark, u64),
    look: &mut dyn FnMut(&Arc<View>) -> Result<(), Failed>,
) -> Result<StateSums, Failed> {
    let made = create_state(&**scratch, at.log_id, CACHE_BYTES).map_err(Failed::Scratch)?;
    let number = made.file.number();
    let mut state = LiveState::new(apply.clone(), made);
    let folded = (|| {
        if let Some(base) = &files.base {
            load(&mut state, &**apply, base, DELTA_BYTES).map_err(Failed::of)?;
        }
        let log = LogReader::new(files.segments.clone());
        Replay::new(&mut state, DELTA_BYTES).fold(&log, at.durable.end).map_err(Failed::of)?;
        while let Some(job) = state.freeze(at).map_err(Failed::Scratch)? {
            state.finish(job.run()).map_err(Failed::Scratch)?;
        }
        let sums = state.newest().base.sums;
        Replay::new(&mut state, DELTA_BYTES).fold(&log, end).map_err(Failed::of)?;
        look(&Arc::new(state.newest().clone()))?;
        Ok(sums)
    })();
    drop(state);
    match scratch.remove(number) {
        Err(error) if folded.is_ok() => Err(Failed::Scratch(error.into())),
        _ => folded,
    }
}

/// Whether the sums of redb are those of the second fold.
fn compare(report: &mut VerifyReport, state: &OpenState, sums: &StateSums, again: &StateSums) {
    report.compared = true;
    if let Some(space) = sums.differs(again) {
        let (found, expected) = (sums.of(space).rows, again.of(space).rows);
        let number = space.number();
        let reason = match found == expected {
            true => format!("space {number} has other rows than the log says"),
            false => format!("space {number} has {found} rows where the log says {expected}"),
        };
        report.add(StoreError::StateDamaged { file: state.file.number(), reason }, false);
    }
}
