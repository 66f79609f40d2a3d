//! One process per directory.

use std::fs::{self, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::disk::file_name;
use crate::error::LockError;

const LOCK: &str = "LOCK";
/// Makes a directory a backup.
pub(crate) const BACKUP: &str = "BACKUP";

/// The exclusive hold of a directory. The operating system releases it when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct DirLock {
    dir: PathBuf,
    // Held open: the lock lives as long as the file.
    _file: fs::File,
}

impl DirLock {
    /// Locks `dir`, which is created if it is missing. Errors: [`LockError::Locked`] names the
    /// holder, [`LockError::NotOurs`] if the directory holds something else.
    pub fn acquire(dir: impl Into<PathBuf>) -> Result<DirLock, LockError> {
        let dir = dir.into();
        let io = |source| LockError::Io { dir: dir.clone(), source };
        fs::create_dir_all(&dir).map_err(io)?;
        if fs::exists(dir.join(BACKUP)).map_err(io)? {
            return Err(LockError::Backup { dir });
        }
        if !is_ours(&dir).map_err(io)? {
            return Err(LockError::NotOurs { dir });
        }
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK))
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked(dir, file)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let line = format!("{} {}\n", std::process::id(), command());
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        file.write_all(line.as_bytes()).map_err(io)?;
        Ok(DirLock { dir, _file: file })
    }

    /// The directory that is held.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The running program and what it was told to do, like `lastword watch`. Other arguments may hold
/// a token and stay out of the file.
fn command() -> String {
    let mut args = std::env::args_os();
    let program = args.next().map(PathBuf::from).unwrap_or_default();
    let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let verb = args.next().map(|verb| verb.to_string_lossy().into_owned()).unwrap_or_default();
    let is_word = (1..=20).contains(&verb.len())
        && verb.starts_with(|c: char| c.is_ascii_lowercase())
        && verb.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    if is_word { format!("{program} {verb}") } else { program }
}

/// A directory is ours if it is empty, holds `LOCK`, or holds only files we could have made.
fn is_ours(dir: &Path) -> std::io::Result<bool> {
    let mut only_numbers = true;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name == LOCK {
            return Ok(true);
        }
        only_numbers &= file_name::parse(&name).is_some();
    }
    Ok(only_numbers)
}

fn locked(dir: PathBuf, mut file: fs::File) -> LockError {
    let mut line = Vec::new();
    // The holder may be writing its line at this moment; what is readable is good enough.
    let _ = Read::by_ref(&mut file).take(4096).read_to_end(&mut line);
    let line = String::from_utf8_lossy(&line);
    let (pid, command) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
    LockError::Locked { dir, pid: pid.parse().unwrap_or(0), command: command.to_owned() }
}
