//! What a pack says of itself, read without the log: whose it is, its chunks, the files that were
//! stored and those that were dropped.
//!
//! A file was stored at a time, and a drop names that time: whatever was stored of the file then or
//! before is gone. So an index can be made of packs alone, in any order, and a file that was
//! deleted does not come back, while one that was stored again later does.

use std::collections::BTreeMap;

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder, from_bytes};
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::Blob;

use crate::error::StoreError;
use crate::limits::MAX_DROPPED_IN_FRAME;
use crate::oplog::{FrameRef, PACK_BLOB, PACK_DROPPED, PACK_OPEN, Scan, Segment};

/// A file that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoredFile {
    pub(super) blob: Blob,
    pub(super) time_ms: i64,
}

/// Files that were dropped, each with the time up to which nothing that was stored of it counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DroppedFiles(pub(super) Vec<([u8; 32], i64)>);

impl Encode for StoredFile {
    fn encode(&self, out: &mut Encoder) {
        self.blob.encode(out);
        out.i64(self.time_ms);
    }
}

impl Decode for StoredFile {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { blob: Blob::decode(from)?, time_ms: from.i64()? })
    }
}

impl Encode for DroppedFiles {
    fn encode(&self, out: &mut Encoder) {
        out.len_of(self.0.len());
        for (sha256, time_ms) in &self.0 {
            out.raw(sha256);
            out.i64(*time_ms);
        }
    }
}

impl Decode for DroppedFiles {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let len = from.len("dropped files", MAX_DROPPED_IN_FRAME)?;
        let mut dropped = Vec::new();
        for _ in 0..len {
            dropped.push((from.array()?, from.i64()?));
        }
        Ok(Self(dropped))
    }
}

/// The files of a workspace as packs tell of them.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What was stored last of each file.
    pub(super) stored: BTreeMap<[u8; 32], StoredFile>,
    /// Up to when each file was dropped.
    pub(super) dropped: BTreeMap<[u8; 32], i64>,
}

impl Told {
    pub(super) fn add_stored(&mut self, file: StoredFile) {
        let known = self.stored.entry(file.blob.sha256).or_insert(file);
        if known.time_ms < file.time_ms {
            *known = file;
        }
    }

    pub(super) fn add_dropped(&mut self, sha256: [u8; 32], time_ms: i64) {
        let known = self.dropped.entry(sha256).or_insert(time_ms);
        *known = time_ms.max(*known);
    }

    /// The files that were not dropped since they were stored last.
    pub(super) fn files(&self) -> impl Iterator<Item = &StoredFile> {
        let is_gone = |file: &StoredFile| {
            self.dropped.get(&file.blob.sha256).is_some_and(|time_ms| *time_ms >= file.time_ms)
        };
        self.stored.values().filter(move |file| !is_gone(file))
    }

    /// Takes in what a frame says of files.
    pub(super) fn take(&mut self, frame: &FrameRef<'_>) {
        match frame.kind {
            PACK_BLOB => {
                if let Ok(file) = from_bytes(frame.payload) {
                    self.add_stored(file);
                }
            }
            PACK_DROPPED => {
                let dropped: DroppedFiles = from_bytes(frame.payload).unwrap_or_default();
                dropped.0.into_iter().for_each(|(sha256, time)| self.add_dropped(sha256, time));
            }
            _ => {}
        }
    }
}

/// What a walk over a pack has met.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Walked {
    /// Position behind the last valid frame.
    pub(super) end: u64,
    /// Places where no valid frame begins, though others follow.
    pub(super) gaps: u64,
}

/// Hands every valid frame of a pack up to `limit` to `each`, those behind damage too.
pub(super) fn visit_frames(
    segment: &Segment,
    limit: u64,
    each: &mut dyn FnMut(FrameRef<'_>) -> Result<(), StoreError>,
) -> Result<Walked, StoreError> {
    let (mut walked, mut scan) = (Walked::default(), Scan::new(segment, 0, limit)?);
    loop {
        while let Some(frame) = scan.next()? {
            walked.end = frame.end();
            each(frame)?;
        }
        let at = scan.position();
        let Some(found) = scan.find(at, |_| true)? else { return Ok(walked) };
        walked.gaps += 1;
        scan = Scan::new(segment, found, limit)?;
    }
}

/// Whose a pack is, if its first frame can be read.
pub(super) fn workspace_of(segment: &Segment) -> Result<Option<WorkspaceName>, StoreError> {
    let mut scan = Scan::new(segment, 0, u64::MAX)?;
    let first = scan.next()?.filter(|frame| frame.kind == PACK_OPEN);
    Ok(first.and_then(|frame| from_bytes(frame.payload).ok()))
}

#[cfg(test)]
mod tests {
    use lastword_core::codec::to_bytes;

    use super::*;

    /// The bytes of a frame of dropped files are pinned.
    #[test]
    fn dropped_files_have_their_golden_bytes() {
        let dropped = DroppedFiles(vec![([6; 32], 1_700_000_000_000), ([7; 32], -1)]);
        let golden =
            [&[2][..], &[6; 32], &[0xfd, 0, 0xd0, 0xca, 0x9f, 0x17, 3, 0, 0], &[7; 32], &[1]];
        assert_eq!(to_bytes(&dropped), golden.concat());
        assert_eq!(from_bytes::<DroppedFiles>(&to_bytes(&dropped)), Ok(dropped));
    }

    /// I31, I32. In whatever order packs are read, the newest word on a file counts.
    #[test]
    fn the_newest_word_on_a_file_counts() {
        let blob = Blob {
            sha256: [6; 32],
            size: 3,
            profile: 1,
            depth: 0,
            root: lastword_core::hash::ChunkId([7; 32]),
        };
        let is_here = |stored: &[i64], dropped: &[i64]| {
            let mut told = Told::default();
            stored
                .iter()
                .for_each(|time_ms| told.add_stored(StoredFile { blob, time_ms: *time_ms }));
            dropped.iter().for_each(|time_ms| told.add_dropped([6; 32], *time_ms));
            told.files().count() == 1
        };
        assert!(is_here(&[5], &[]) && is_here(&[5], &[4]) && is_here(&[9, 5], &[3, 8]));
        assert!(!is_here(&[], &[5]) && !is_here(&[5], &[5]) && !is_here(&[5, 7], &[8, 2]));
    }
}
