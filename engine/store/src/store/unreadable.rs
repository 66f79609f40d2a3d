//! Files whose header cannot be read: a pack that the log names costs files, anything else may be
//! part of the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{DiskError, StoreError};
use crate::fold::visit_rows;
use crate::keys::{BLOBS, pack_of};
use crate::oplog::{BaseFile, Scan, Segment};
use crate::payload::{BlobsPart, Payload, kind};
use crate::read;
use crate::state::View;

/// Fails with what is wrong with a file that no frame and no row names as a pack. Rows are those of
/// `state`, or of the base if that stands for them; `from` is where the log goes on behind them.
pub(super) fn check_unreadable(
    unreadable: &[(u64, DiskError)],
    (state, base): (&View, Option<&BaseFile>),
    segments: &[Arc<Segment>],
    from: u64,
) -> Result<(), StoreError> {
    if unreadable.is_empty() {
        return Ok(());
    }
    let mut packs = BTreeSet::new();
    for workspace in read::blob_workspaces(state)? {
        packs.extend(read::packs(state, &workspace)?.into_iter().map(|(number, _)| number));
    }
    if let Some(base) = base {
        base.visit(|frame| {
            visit_rows(frame.payload, |space, key, _| {
                packs.extend(pack_of(key).filter(|_| space == BLOBS));
                Ok(())
            })
            .map_err(|_: lastword_core::codec::DecodeError| {
                base.segment.damaged(frame.position, "rows of the base do not decode")
            })
        })?;
    }
    for (place, segment) in segments.iter().enumerate() {
        let next = segments.get(place + 1).map_or(u64::MAX, |next| next.first_position());
        if next <= from {
            continue;
        }
        let mut scan = Scan::new(segment, segment.first_position().max(from), next)?;
        while let Some(frame) = scan.next()? {
            if frame.kind != kind::BLOBS {
                continue;
            }
            if let Ok(Payload::Blobs(frame)) = Payload::from_frame(frame.kind, frame.payload)
                && let BlobsPart::Chunks { packs: named, .. } = frame.part
            {
                packs.extend(named.iter().map(|pack| pack.pack));
            }
        }
    }
    match unreadable.iter().find(|(number, _)| !packs.contains(number)) {
        Some((_, error)) => Err(error.clone().into()),
        None => Ok(()),
    }
}
