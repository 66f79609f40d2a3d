//! A directory that is looked at without being opened as a database: a store, held by its lock
//! meanwhile, or a backup.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lastword_store::{BackupError, DirLock, Disk, ReadOnlyDisk, read_backup};

use crate::error::{Error, Result};

/// Digits that the name of a numbered file has at least.
const DIGITS: usize = 12;
const STATE_SUFFIX: &str = ".state";

/// A directory of which nothing is changed.
pub(crate) struct Directory {
    dir: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) is_backup: bool,
    /// None of a backup.
    pub(crate) lock: Option<DirLock>,
}

impl Directory {
    /// Looks at `dir`. Errors: [`Error::NoStore`] if it holds neither a store nor a backup,
    /// [`Error::Lock`] if another process has the store open.
    pub(crate) fn look(dir: &Path) -> Result<Self> {
        let is_backup = is_backup(dir)?;
        let holds_store =
            || dir.join("LOCK").exists() || numbered(dir).is_ok_and(|files| !files.is_empty());
        if !is_backup && !holds_store() {
            return Err(Error::NoStore { dir: dir.to_owned() });
        }
        let lock = if is_backup { None } else { Some(DirLock::acquire(dir)?) };
        let disk = Arc::new(ReadOnlyDisk::new(dir));
        Ok(Self { dir: dir.to_owned(), disk, is_backup, lock })
    }

    /// Its numbered files, by number.
    pub(crate) fn numbered(&self) -> Result<Vec<(u64, PathBuf)>> {
        let failed = |error: std::io::Error| Error::File {
            path: self.dir.clone(),
            reason: error.to_string(),
        };
        numbered(&self.dir).map_err(failed)
    }

    /// Where the file of that number is.
    pub(crate) fn path_of(&self, number: u64) -> Option<PathBuf> {
        let files = numbered(&self.dir).ok()?;
        files.into_iter().find(|(found, _)| *found == number).map(|(_, path)| path)
    }
}

/// Whether `dir` is a finished backup, also one whose list of files is damaged.
fn is_backup(dir: &Path) -> Result<bool> {
    match read_backup(dir) {
        Ok(_) | Err(BackupError::Damaged { .. }) => Ok(true),
        Err(BackupError::NotABackup { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn numbered(dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let digits = name.strip_suffix(STATE_SUFFIX).unwrap_or(name);
        let padded = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(number) = padded.then(|| digits.parse().ok()).flatten() {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
