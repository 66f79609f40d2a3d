//! Backups: made while the store is in use, or of a directory that nobody has open.

use std::path::Path;

use lastword_store::{BackupReport, OnProgress};

use crate::authority::Authority;
use crate::database::Database;
use crate::environment::now_ms;
use crate::error::Result;
use crate::open::{self, AsIs};
use crate::writer::Writer;

impl Database {
    /// Copies everything that is durable now to `dir`, while writes go on; blocks until it is done.
    /// `dir` is made if it is missing and must be empty or hold an earlier backup of this store,
    /// of which only what has changed is copied. The copy also holds what waits in the outbox.
    ///
    /// # Errors
    /// [`crate::Error::Backup`] if `dir` cannot be written or holds something else; run it again
    /// and it goes on. [`crate::Error::Store`] if the store fails.
    pub fn backup(&self, dir: &Path, progress: &mut OnProgress<'_>) -> Result<BackupReport> {
        hot(&self.inner.writer, dir, progress)
    }
}

impl Authority {
    /// Copies everything that is durable now to `dir`, while the server goes on; as
    /// [`Database::backup`].
    ///
    /// # Errors
    /// As [`Database::backup`].
    pub fn backup(&self, dir: &Path, progress: &mut OnProgress<'_>) -> Result<BackupReport> {
        hot(self.writer(), dir, progress)
    }
}

/// What is in the backup is settled on the writer thread; the copy runs on the caller's.
fn hot(writer: &Writer, dir: &Path, progress: &mut OnProgress<'_>) -> Result<BackupReport> {
    let job = writer.run(|store| Ok(store.begin_backup()?))?;
    Ok(job.run(dir, now_ms(), progress)?)
}

/// Copies the store in `data`, of a device or a server, which no process has open, to `dir`; as
/// [`Database::backup`].
///
/// # Errors
/// As [`Database::backup`]; [`crate::Error::Lock`] if another process has the store open,
/// [`crate::Error::NoStore`] if there is none.
pub fn backup(data: &Path, dir: &Path, progress: &mut OnProgress<'_>) -> Result<BackupReport> {
    let (_, mut store) = open::open_as_is(data, &AsIs::default())?;
    let copied = store
        .begin_backup()
        .map_err(Into::into)
        .and_then(|job| Ok(job.run(dir, now_ms(), progress)?));
    store.close()?;
    copied
}
