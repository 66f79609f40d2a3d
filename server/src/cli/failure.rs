//! How a command fails: a sentence for the user and an exit code for scripts.

use std::path::Path;

use lastword::store::{BackupError, BlobError, DiskError, LockError, StoreError};
use lastword::{Error, SyncFailure};

/// The exit codes of every command; 0 is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// The command failed.
    Failed = 1,
    /// It was called wrongly.
    Usage = 2,
    /// Data on disk is damaged.
    Damaged = 3,
    /// The server cannot be reached, with `--wait` or `sync`.
    Unreachable = 4,
}

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    /// For scripts.
    pub code: ExitCode,
    /// For people: what happened and what to do next.
    pub message: String,
}

impl Failure {
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Failed, message: message.into() }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Usage, message: message.into() }
    }

    pub(super) fn damaged(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Damaged, message: message.into() }
    }

    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Unreachable, message: message.into() }
    }
}

/// What went wrong with a file of the user's.
pub(super) fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let damaged = matches!(
            &error,
            Error::Store(
                StoreError::Damaged { .. }
                    | StoreError::StateDamaged { .. }
                    | StoreError::Disk(DiskError::Damaged { .. })
            )
        );
        let damaged = match &error {
            Error::Blob(error) => matches!(
                error,
                BlobError::Damaged { .. }
                    | BlobError::PackLost { .. }
                    | BlobError::Gone { .. }
                    | BlobError::Manifest { .. }
            ),
            Error::Backup(error) => matches!(**error, BackupError::Damaged { .. }),
            _ => damaged,
        };
        let code = match error {
            Error::NoFrame { .. } => ExitCode::Usage,
            _ if damaged => ExitCode::Damaged,
            _ => ExitCode::Failed,
        };
        let message = match &error {
            Error::Lock(lock) => match &**lock {
                LockError::Locked { dir, pid, command } => format!(
                    "{} is open in process {pid} ({command}). Use another --data (another device) \
                     or stop it.",
                    dir.display()
                ),
                LockError::NotOurs { dir } => format!(
                    "{} is not empty and not a Lastword store; name another --data directory",
                    dir.display()
                ),
                other => other.to_string(),
            },
            other => other.to_string(),
        };
        Self { code, message }
    }
}

impl From<SyncFailure> for Failure {
    fn from(failure: SyncFailure) -> Self {
        match failure {
            SyncFailure::Engine(error) => error.into(),
            SyncFailure::Offline { .. } | SyncFailure::TimedOut { .. } => {
                Self::unreachable(failure.to_string())
            }
            SyncFailure::Stopped { .. }
            | SyncFailure::Held { .. }
            | SyncFailure::ValueGone { .. } => Self::failed(failure.to_string()),
        }
    }
}

macro_rules! plain {
    ($($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::failed(error.to_string())
            }
        })+
    };
}

plain!(
    lastword::core::id::NameError,
    lastword::core::json::JsonError,
    lastword::core::codec::DecodeError,
    lastword::core::value::ValueError,
    crate::serve::ServeError,
    crate::control::ControlError
);

/// A reader that went away (`| head`) is no error of ours; anything else on stdout is.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        Self::failed(error.to_string())
    }
}
