//! Opening: recovers the log and brings the state up to it.

use std::sync::{Arc, RwLock};

use lastword_core::plant::{Plant, planted};

use crate::blobs::Blobs;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::fold::{Replay, load};
use crate::oplog::{
    self, BaseFile, Durable, Entropy, FrameRef, LogFiles, Recovered, Segment, WriterOptions,
};
use crate::state::{
    Apply, LiveState, OpenState, View, Watermark, open_state, small_spaces_are_whole,
};

use super::folding::Folding;
use super::unreadable::check_unreadable;
use super::{OpenReport, Options, Store, ViewHandle};

impl Store {
    /// Recovers the log on `disk`, brings the state up to it and is ready to append. An empty
    /// disk becomes a new store. Errors: [`StoreError::Damaged`], [`StoreError::Disk`] with
    /// `TooNew` or `NoSpare`, [`StoreError::Apply`] if a frame cannot be applied.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        apply: Arc<dyn Apply>,
    ) -> Result<(Store, OpenReport), StoreError> {
        let mut entropy = Entropy::new(options.entropy);
        let (LogFiles { mut segments, base, unreadable, .. }, adopted) =
            log_files(&*disk, options.adopt_packs)?;
        let created = segments.is_empty();
        if created {
            segments.push(oplog::create(&*disk, &mut entropy, options.segment_size, adopted)?);
        }
        if !created && base.is_none() {
            oplog::settle_first(&*disk, &segments)?;
        }
        let base_end = base.as_ref().map_or(0, |base| base.end.durable.end);
        let opened = trusted_state(&*disk, &options, &*apply, &segments, base.as_ref())?;
        let log_id = log_id(&segments);
        let (fresh, empty) = (opened.fresh, opened.base.watermark.is_none());
        let start = match (&opened.base.watermark, &base) {
            (Some(mark), _) => mark.durable,
            (None, Some(base)) => base.end.durable,
            (None, None) => Durable { end: 0, group: 0 },
        };
        // Before anything is written: an unreadable file may be the end of the log.
        let rows = (&View::of_base(opened.base.clone()), base.as_ref().filter(|_| empty));
        check_unreadable(&unreadable, rows, &segments, start.end)?;
        match start.end > base_end {
            true => oplog::check_start(&segments, start.end)?,
            false => oplog::check_base(&segments, base_end)?,
        }
        let sizes =
            WriterOptions { segment_size: options.segment_size, zero_step: options.zero_step };
        let mut state = LiveState::new(apply.clone(), opened);
        state.write_anew(&disk, options.anew_from_bytes, options.delta_cap_bytes);
        let cap = options.replay_bytes;
        let unloaded = base.as_ref().filter(|_| empty);
        let mut replay = Replay::new(&mut state, cap);
        // Frames behind a base come after its rows.
        let mut fold = |frame: FrameRef<'_>| {
            if unloaded.is_none() {
                replay.try_next(frame);
            }
        };
        let Recovered { writer, clean, cut_bytes } =
            oplog::recover(&disk, segments, entropy, sizes, start, &mut fold)?;
        if let Some(base) = unloaded {
            load(&mut state, &*apply, base, cap)?;
            replay = Replay::new(&mut state, cap);
        }
        let replayed_frames = replay.fold(writer.reader(), writer.next_position())?;
        let handle = ViewHandle {
            published: Arc::new(RwLock::new(Arc::new(state.newest().clone()))),
            log: writer.reader().clone(),
        };
        let report = OpenReport {
            created,
            clean: clean || created,
            replayed_frames,
            cut_bytes,
            rebuilt_state: !created && fresh,
            end: writer.next_position(),
        };
        let (folding, entropy) = (Folding::new(base), writer.entropy().clone());
        let (published, log) = (handle.published.clone(), writer.reader().clone());
        let (pack_size, shown) = (options.pack_size, (published, log));
        let blobs = Arc::new(Blobs::new(disk.clone(), log_id, entropy, pack_size, shown));
        Ok((Store { disk, apply, options, writer, state, folding, handle, blobs }, report))
    }
}

/// The files of the log; none, and the log id of the packs, if those are all there is and they are
/// to be adopted.
fn log_files(
    disk: &dyn Disk,
    adopt_packs: bool,
) -> Result<(LogFiles, Option<[u8; 16]>), StoreError> {
    match if adopt_packs { oplog::orphan_packs(disk)? } else { None } {
        None => Ok((oplog::load(disk)?, None)),
        adopted => Ok((LogFiles::default(), adopted)),
    }
}

/// The state on the disk, if it is of this log and the layer above can go on with it, else an empty
/// one.
fn trusted_state(
    disk: &dyn Disk,
    options: &Options,
    apply: &dyn Apply,
    segments: &[Arc<Segment>],
    base: Option<&BaseFile>,
) -> Result<OpenState, StoreError> {
    let log_id = log_id(segments);
    let base_end = base.map_or(0, |base| base.end.durable.end);
    let accept = |mark: &Watermark| match options.rebuild_state {
        true => check_foldable(segments, base).map(|()| false),
        false => is_in(mark, segments, base_end),
    };
    let opened = open_state(disk, log_id, options.cache_bytes, accept)?;
    let is_known = opened.fresh || apply.accepts(&View::of_base(opened.base.clone()));
    // What the log cannot make again is better than nothing.
    if is_known && (small_spaces_are_whole(&opened.base) || check_foldable(segments, base).is_err())
    {
        return Ok(opened);
    }
    check_foldable(segments, base)?;
    // redb must let go of the file before it is removed.
    drop(opened);
    open_state(disk, log_id, options.cache_bytes, |_| Ok(false))
}

fn log_id(segments: &[Arc<Segment>]) -> [u8; 16] {
    segments.first().map_or([0; 16], |segment| segment.header.log_id)
}

/// Fails if base or log cannot be read to the end: a state that may be whole is not thrown away
/// for one that cannot be made.
fn check_foldable(segments: &[Arc<Segment>], base: Option<&BaseFile>) -> Result<(), StoreError> {
    let start = match base {
        Some(base) => {
            base.visit(|_| Ok(()))?;
            base.end.durable
        }
        None => Durable { end: 0, group: 0 },
    };
    oplog::check_readable(segments, start)
}

/// Whether the watermark is a position of this log, and not before the end of its base: someone has
/// put back a state which knows less than the base then. One that is no position of the log and
/// lies beyond its end tells of segments that are missing.
fn is_in(mark: &Watermark, segments: &[Arc<Segment>], base_end: u64) -> Result<bool, StoreError> {
    if planted(Plant::TrustStaleState) {
        return Ok(true);
    }
    let found = segments.iter().position(|segment| segment.header.salt == mark.salt);
    let Some((index, segment)) = found.and_then(|index| Some((index, segments.get(index)?))) else {
        oplog::check_reaches(segments, mark.durable.end)?;
        return Ok(false);
    };
    let next = segments.get(index + 1).map_or(u64::MAX, |next| next.first_position());
    let is_here = (segment.first_position()..=next).contains(&mark.durable.end);
    Ok(is_here && mark.durable.end >= base_end)
}
