//! A directory that is only looked at: a backup, or a store whose files may be damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::classify;
use crate::disk::file_name;
use crate::disk::real::{RealFile, numbers};
use crate::disk::traits::{Disk, File, FileInfo, FileKind};
use crate::error::DiskError;

/// A directory without a lock, of which nothing is changed. Whoever uses it sees to it that no
/// process has it open, or reads only what no longer changes.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    dir: PathBuf,
}

impl ReadOnlyDisk {
    /// The directory `dir`.
    pub fn new(dir: &Path) -> Self {
        ReadOnlyDisk { dir: dir.to_owned() }
    }

    /// Numbers of redb's files, or of all others, whatever is in them.
    pub fn numbers_of(&self, state: bool) -> Result<Vec<u64>, DiskError> {
        let mut found: Vec<u64> = numbers(&self.dir)?
            .into_iter()
            .filter(|(_, is_state)| *is_state == state)
            .map(|(number, _)| number)
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    fn refused(&self, action: &'static str, file: u64) -> DiskError {
        let source = std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem);
        DiskError::io(action, file, 0, source)
    }
}

impl Disk for ReadOnlyDisk {
    fn list(&self) -> Result<Vec<FileInfo>, DiskError> {
        let mut files = Vec::new();
        for (number, state) in numbers(&self.dir)? {
            let file = RealFile::read_only(&self.dir, number, state)?;
            let kind = if state { FileKind::State } else { classify::kind_of(number, &file) };
            files.push(FileInfo { number, kind, len: file.len()? });
        }
        files.sort_by_key(|file| file.number);
        Ok(files)
    }

    fn take_spare(&self, _keep: usize) -> Result<u64, DiskError> {
        Err(self.refused("create", 0))
    }

    fn create_state(&self) -> Result<u64, DiskError> {
        Err(self.refused("create", 0))
    }

    fn open(&self, number: u64) -> Result<Arc<dyn File>, DiskError> {
        let state = fs::exists(file_name::path(&self.dir, number, true)).unwrap_or(false);
        Ok(Arc::new(RealFile::read_only(&self.dir, number, state)?))
    }

    fn remove(&self, number: u64) -> Result<(), DiskError> {
        Err(self.refused("remove", number))
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(0)
    }
}
