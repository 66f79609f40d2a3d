//! Looking at a directory whatever its condition: each file by itself, each frame that can be read,
//! and what the state or the base says. Nothing is changed, and damage ends nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::{Disk, read_header};
use crate::error::StoreError;
use crate::fold::visit_rows;
use crate::header::HeaderKind;
use crate::keys::META;
use crate::oplog::{self, BaseFile, FrameRef, Scan, Segment};
use crate::read::{Pair, ReadState, Visit};
use crate::state::{Space, View, peek_state};

/// Cache for redb while it is looked at, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// What is in a directory.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Its files, by number.
    pub files: Vec<SeenFile>,
    /// The base that stands for the beginning of the log.
    pub base: Option<SeenBase>,
    /// The state.
    pub state: Option<SeenState>,
    /// Bytes behind the last valid frame of which nothing was acknowledged.
    pub torn_bytes: u64,
    /// What is not as it should be.
    pub faults: Vec<StoreError>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Its number.
    pub number: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What it is.
    pub content: Content,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A segment of the log.
    Segment {
        /// Its first position.
        first: u64,
        /// Position behind the last frame that can be read.
        end: u64,
        /// Frames that can be read.
        frames: u64,
    },
    /// A base that stands for the log before a position.
    Base {
        /// The position.
        end: u64,
    },
    /// A pack of blobs.
    Pack,
    /// The state.
    State,
    /// Space kept ready.
    Spare,
    /// Its header cannot be read.
    Unreadable,
}

/// A base.
#[derive(Debug)]
pub struct SeenBase {
    /// It stands for the log before this position.
    pub end: u64,
    /// Its rows.
    pub rows: u64,
    /// This and earlier folds: position and time (milliseconds since 1970 UTC), oldest first.
    pub marks: Vec<(u64, i64)>,
    /// What it knows of the store and its workspaces.
    pub meta: MetaRows,
}

/// A state that can be read.
#[derive(Debug)]
pub struct SeenState {
    /// What it holds, as of its last checkpoint; the view's position is the watermark.
    pub view: View,
    /// Rows in it.
    pub rows: u64,
}

/// Rows of `META` alone, to be read as a state.
#[derive(Debug, Default)]
pub struct MetaRows(BTreeMap<Vec<u8>, Arc<[u8]>>);

impl ReadState for MetaRows {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        Ok(self.0.get(key).filter(|_| space == META).cloned())
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        if space != META || from >= to {
            return Ok(Vec::new());
        }
        let rows = self.0.range(from.to_vec()..to.to_vec());
        let pair = |(key, value): (&Vec<u8>, &Arc<[u8]>)| (key.clone(), value.clone());
        Ok(match reverse {
            true => rows.rev().take(limit).map(pair).collect(),
            false => rows.take(limit).map(pair).collect(),
        })
    }

    fn visit(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        for (key, value) in self.range(space, from, to, false, usize::MAX)? {
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

/// Looks at the files of `disk` with these numbers; the flag marks redb's. Each frame of the log
/// that can be read goes to `visit`, in log order.
pub fn inspect(
    disk: &dyn Disk,
    numbers: &[(u64, bool)],
    visit: &mut dyn FnMut(FrameRef<'_>),
) -> Inspection {
    let mut seen = Inspection::default();
    let (mut segments, mut bases, mut states) = (Vec::new(), Vec::new(), Vec::new());
    for (number, is_state) in numbers {
        let opened = disk.open(*number).and_then(|file| Ok((file.len()?, file)));
        let (len, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                seen.faults.push(error.into());
                continue;
            }
        };
        let header = if *is_state { Ok(None) } else { read_header(*number, &*file) };
        let content = match header {
            _ if *is_state => {
                states.push(*number);
                Content::State
            }
            Ok(None) => Content::Spare,
            Ok(Some(header)) => {
                let (kind, first) = (header.kind, header.first_position);
                let segment = Arc::new(Segment::new(header, file));
                match kind {
                    HeaderKind::Pack => Content::Pack,
                    HeaderKind::Base => {
                        bases.push(segment);
                        Content::Base { end: first }
                    }
                    HeaderKind::Segment => {
                        segments.push(segment);
                        Content::Segment { first, end: first, frames: 0 }
                    }
                }
            }
            Err(error) => {
                seen.faults.push(error.into());
                Content::Unreadable
            }
        };
        seen.files.push(SeenFile { number: *number, len, content });
    }
    segments.sort_by_key(|segment| segment.first_position());
    look_at_log(&segments, &mut seen, visit);
    bases.sort_by_key(|base| base.first_position());
    if let Some(base) = bases.last() {
        look_at_base(base, &mut seen);
    }
    let log_id = segments.first().or(bases.last()).map(|any| any.header.log_id);
    if let (Some(number), Some(log_id)) = (states.last(), log_id) {
        match peek_state(disk, *number, log_id, CACHE_BYTES) {
            Ok(Some(state)) => {
                let rows = state.base.sums.rows();
                seen.state = Some(SeenState { view: View::of_base(state.base), rows });
            }
            Ok(None) => {}
            Err(error) => seen.faults.push(error),
        }
    }
    seen
}

fn look_at_log(
    segments: &[Arc<Segment>],
    seen: &mut Inspection,
    visit: &mut dyn FnMut(FrameRef<'_>),
) {
    for (place, segment) in segments.iter().enumerate() {
        let next = segments.get(place + 1).map(|next| next.first_position());
        let (mut last, mut count) = (segment.first_position(), 0);
        let mut group = 0;
        let read = Scan::new(segment, last, next.unwrap_or(u64::MAX)).and_then(|mut scan| {
            while let Some(frame) = scan.next()? {
                (last, group) = (frame.end(), frame.group);
                count += 1;
                visit(frame);
            }
            Ok(())
        });
        let read = read.and_then(|()| match next {
            Some(next) if next != last => {
                Err(segment.damaged(last, "no valid frame before the next segment"))
            }
            Some(_) => Ok(0),
            None => oplog::torn_tail(segment, last, group),
        });
        match read {
            Ok(torn) => seen.torn_bytes += torn,
            Err(error) => seen.faults.push(error),
        }
        let file = seen.files.iter_mut().find(|file| file.number == segment.number());
        if let Some(SeenFile { content: Content::Segment { end, frames, .. }, .. }) = file {
            (*end, *frames) = (last, count);
        }
    }
}

fn look_at_base(segment: &Arc<Segment>, seen: &mut Inspection) {
    let base = match BaseFile::read(segment.clone()) {
        Ok(Some(base)) => base,
        // A fold that did not end: the log has everything.
        Ok(None) => return,
        Err(error) => return seen.faults.push(error),
    };
    let marks = base.end.marks.iter().map(|mark| (mark.position, mark.time_ms)).collect();
    let (mut rows, mut meta) = (0, MetaRows::default());
    let read = base.visit(|frame| {
        visit_rows(frame.payload, |space, key, value| {
            rows += 1;
            if space == META {
                meta.0.insert(key.to_vec(), Arc::from(value));
            }
            Ok::<(), crate::error::ApplyError>(())
        })
        .map_err(|_| segment.damaged(frame.position, "rows of the base do not decode"))
    });
    if let Err(error) = read {
        seen.faults.push(error);
    }
    seen.base = Some(SeenBase { end: base.end.durable.end, rows, marks, meta });
}
