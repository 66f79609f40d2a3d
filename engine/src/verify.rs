//! Verifying a directory: every byte of a store or of a backup is read and compared, nothing of it
//! is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastword_store::apply::ApplyPayload;
use lastword_store::index::Indexes;
use lastword_store::keys::{INDEX_SIGNATURE, META};
use lastword_store::{
    Apply, BackupError, DirLock, Disk, DiskError, RealDisk, Step, StoreError, VerifyReport,
    check_backup, state_row,
};

use crate::directory::Directory;
use crate::error::Result;

/// Bytes of a spare in the scratch directory; none is ever used there.
const SCRATCH_STEP: u64 = 4096;

/// What a verification does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyStep {
    /// Comparing the files of a backup with their hashes.
    Hashes,
    /// Reading base and log.
    Log,
    /// Folding them once more.
    Fold,
    /// Reading the state.
    State,
    /// Reading the chunks of files.
    Packs,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, if it is one.
    pub file: Option<PathBuf>,
    /// What does not fit, and where.
    pub what: String,
    /// Whether data may be lost. A state is made anew from the log.
    pub is_loss: bool,
}

/// What a verification saw.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The directory is a backup.
    pub is_backup: bool,
    /// What was read.
    pub read: VerifyReport,
    /// What is wrong; empty if nothing was found.
    pub damages: Vec<Damage>,
    /// Why the log could not be folded once more, if the scratch directory failed. It says nothing
    /// of the store: verify it once more with another one.
    pub scratch_failed: Option<String>,
}

impl Verified {
    /// Whether all could be compared and nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damages.is_empty() && self.scratch_failed.is_none()
    }

    /// Whether something is wrong with more than the state, so that data may be lost.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        self.damages.iter().any(|damage| damage.is_loss)
    }

    /// Whether every row of the state is as it was written, so that [`crate::salvage`] can take all
    /// records from it as of its last checkpoint, whatever is wrong with the log before.
    #[must_use]
    pub fn has_whole_state(&self) -> bool {
        self.read.state_rows > 0 && self.damages.iter().all(|damage| damage.is_loss)
    }
}

/// Verifies the store or backup in `dir`, which no process may have open. `scratch` is a directory
/// for the second fold; it takes as much as the state and is left without it. `progress` gets the
/// step and the bytes that were read.
///
/// # Errors
/// [`crate::Error::NoStore`] if there is nothing to verify, [`crate::Error::Lock`] if another
/// process has the store open (with its id), [`crate::Error::Backup`] if a file cannot be read.
/// What is damaged is no error, nor is a scratch directory that fails later: both are in what is
/// returned.
pub fn verify(
    dir: &Path,
    scratch: &Path,
    progress: &mut dyn FnMut(VerifyStep, u64),
) -> Result<Verified> {
    let directory = Directory::look(dir)?;
    let mut damages = Vec::new();
    if directory.is_backup {
        let checked = check_backup(dir, &mut |done| progress(VerifyStep::Hashes, done.done_bytes));
        match checked {
            Ok(_) => {}
            Err(BackupError::Damaged { path, what }) => {
                damages.push(Damage { file: Some(path), what: what.into(), is_loss: true });
            }
            Err(error) => return Err(error.into()),
        }
    }
    let spare: Arc<dyn Disk> = Arc::new(RealDisk::open(DirLock::acquire(scratch)?, SCRATCH_STEP)?);
    // Index entries are compared too, so the fold needs the indexes that the state was made with.
    let signature = state_row(&*directory.disk, META, INDEX_SIGNATURE).ok().flatten();
    let indexes = signature.and_then(|signature| Indexes::from_signature(&signature));
    let apply: Arc<dyn Apply> = Arc::new(ApplyPayload::new(indexes.unwrap_or_default()));
    let read = lastword_store::verify(&directory.disk, &spare, &apply, &mut |step, bytes| {
        let step = match step {
            Step::Log => VerifyStep::Log,
            Step::Fold => VerifyStep::Fold,
            Step::State => VerifyStep::State,
            Step::Packs => VerifyStep::Packs,
        };
        progress(step, bytes);
    });
    damages.extend(read.findings.iter().map(|finding| Damage {
        file: file_of(&finding.error).and_then(|number| directory.path_of(number)),
        what: finding.error.to_string(),
        is_loss: finding.is_loss,
    }));
    let scratch_failed =
        read.scratch_failed.as_ref().map(|error| format!("{}: {error}", scratch.display()));
    Ok(Verified { is_backup: directory.is_backup, read, damages, scratch_failed })
}

/// The number of the file that an error names.
pub(crate) fn file_of(error: &StoreError) -> Option<u64> {
    let number = match error {
        StoreError::Damaged { file, .. }
        | StoreError::PackLost { file, .. }
        | StoreError::PackHeader { file, .. }
        | StoreError::StateDamaged { file, .. }
        | StoreError::StateUnavailable { file, .. }
        | StoreError::Disk(
            DiskError::Damaged { file, .. }
            | DiskError::TooNew { file, .. }
            | DiskError::NotFound { file }
            | DiskError::Io { file, .. },
        ) => *file,
        _ => return None,
    };
    // 0 stands for the directory itself.
    (number != 0).then_some(number)
}
