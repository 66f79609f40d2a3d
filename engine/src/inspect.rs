//! Inspecting a directory: what it holds, also if it is damaged or a backup.

use std::collections::VecDeque;
use std::path::Path;

use lastword_core::codec::from_bytes;
use lastword_store::keys::{Lineage, WorkspaceMeta};
use lastword_store::payload::{Identity, kind};
use lastword_store::read::{self, ReadState};
use lastword_store::{BackupReport, Inspection, OwnedFrame, read_backup};

use crate::directory::Directory;
use crate::error::Result;
use crate::log::{self, LogLine};
use crate::verify::{Damage, file_of};

/// How many of the last frames are told.
const LAST_FRAMES: usize = 10;

/// What a directory holds.
#[derive(Debug)]
pub struct Inspected {
    /// What the backup says about itself, if it is one that can be read.
    pub backup: Option<BackupReport>,
    /// Who the store is; none if nothing that can be read says it.
    pub identity: Option<Identity>,
    /// Its files, base and state.
    pub seen: Inspection,
    /// Its workspaces, as of the log position `as_of`.
    pub workspaces: Vec<InspectedWorkspace>,
    /// Up to where state or base stand for the log; none if neither can be read.
    pub as_of: Option<u64>,
    /// The last frames of the log, oldest first; proof and close marks left out.
    pub last_frames: Vec<LogLine>,
    /// What is not as it should be. `verify` finds more: it reads every row, too.
    pub damages: Vec<Damage>,
}

/// What is known of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedWorkspace {
    /// Its name.
    pub workspace: String,
    /// Head, cursor, epoch, rows, digest.
    pub meta: WorkspaceMeta,
    /// The restores it has been through.
    pub lineage: Lineage,
}

/// Looks at the store or backup in `dir`, which no process may have open, and changes nothing.
///
/// # Errors
/// [`crate::Error::NoStore`], [`crate::Error::Lock`] if another process has the store open,
/// [`crate::Error::File`] if the directory cannot be read. Damage is no error.
pub fn inspect(dir: &Path) -> Result<Inspected> {
    let directory = Directory::look(dir)?;
    let mut damages = Vec::new();
    let backup = match read_backup(dir) {
        Ok(report) => Some(report),
        Err(error) if directory.is_backup => {
            damages.push(Damage { file: None, what: error.to_string(), is_loss: true });
            None
        }
        Err(_) => None,
    };
    let files = directory.numbered()?;
    let numbers: Vec<(u64, bool)> =
        files.iter().map(|(number, path)| (*number, path.extension().is_some())).collect();
    let (mut introduced, mut last) = (None, VecDeque::<OwnedFrame>::new());
    let seen = lastword_store::inspect(&*directory.disk, &numbers, &mut |frame| {
        if frame.kind == kind::IDENTITY {
            introduced = from_bytes::<Identity>(frame.payload).ok().or(introduced.take());
        }
        if frame.kind >= kind::IDENTITY {
            last.truncate(LAST_FRAMES - 1);
            last.push_front(frame.to_owned());
        }
    });
    damages.extend(seen.faults.iter().map(|error| Damage {
        file: file_of(error).and_then(|number| directory.path_of(number)),
        what: error.to_string(),
        is_loss: !matches!(error, lastword_store::StoreError::StateDamaged { .. }),
    }));
    let (mut known, mut workspaces, mut as_of) = (None, Vec::new(), None);
    let read = match (&seen.state, &seen.base) {
        (Some(state), _) => {
            as_of = Some(state.view.position());
            facts(&state.view)
        }
        (None, Some(base)) => {
            as_of = Some(base.end);
            facts(&base.meta)
        }
        (None, None) => Ok(Default::default()),
    };
    match read {
        Ok(facts) => (known, workspaces) = facts,
        Err(error) => damages.push(Damage { file: None, what: error.to_string(), is_loss: false }),
    }
    let last_frames =
        last.iter().rev().map(|frame| log::line_of(frame.position, frame.kind, &frame.payload));
    let last_frames = last_frames.collect();
    let identity = introduced.or(known);
    Ok(Inspected { backup, identity, seen, workspaces, as_of, last_frames, damages })
}

fn facts<S: ReadState>(state: &S) -> Result<(Option<Identity>, Vec<InspectedWorkspace>)> {
    let mut workspaces = Vec::new();
    for (workspace, meta) in read::workspaces(state)? {
        let lineage = Lineage(read::lineage(state, &workspace)?.0);
        workspaces.push(InspectedWorkspace { workspace: workspace.to_string(), meta, lineage });
    }
    Ok((read::identity(state)?, workspaces))
}
