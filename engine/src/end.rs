//! A device forgets its copy of a workspace.

use lastword_core::id::BatchId;
use lastword_store::payload::{Forgotten, Payload};
use lastword_store::{keys, read};

use crate::collect;
use crate::error::{Error, Result};
use crate::live::lock;
use crate::workspace::Workspace;

/// What a device may destroy when it forgets a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Only what the server has too.
    OnlySent,
    /// Also what no server has: batches that wait, dead letters, rows of tables that stay here.
    Everything,
}

/// What went with a workspace that a device forgot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Live rows of the server that were here.
    pub rows: u64,
    /// Batches that no server had decided, as far as this device knew.
    pub unsent: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Rows of tables that never leave the device.
    pub local_rows: u64,
    /// Lengths of the files that were here.
    pub file_bytes: u64,
}

/// Most runs of the garbage collection in which the files of a workspace go.
const MAX_RUNS: usize = 10_000;

impl Workspace {
    /// Forgets this device's copy of the workspace; the server's stays, and a later sync fetches it
    /// again. Rows, versions and letters are gone at once for readers; their bytes leave the files
    /// as folded history does.
    ///
    /// # Errors
    /// [`Error::WouldDestroy`] says what only this device has, if `consent` does not cover it;
    /// [`Error::StillAttached`] if a connection syncs it: detach it first; [`Error::Store`] if the
    /// disk fails. Nothing is forgotten then. [`Error::FilesInUse`] or [`Error::Blob`] if its
    /// records are forgotten and its files are not all: then call it again.
    pub fn purge(&self, consent: Consent) -> Result<Purged> {
        self.check_writable()?;
        let inner = &self.database().inner;
        // Held to the end: nothing attaches meanwhile.
        let attached = lock(&inner.attached);
        if attached.contains_key(self.name()) {
            return Err(Error::StillAttached { workspace: self.name().clone() });
        }
        let units: Vec<BatchId> = self.dead_letters()?.iter().map(|letter| letter.unit).collect();
        let dead_letters = units.len() as u64;
        let workspace = self.name().clone();
        let (purged, position) = inner.writer.run(move |store| {
            let newest = store.newest();
            let meta = read::meta(newest, &workspace)?;
            let unsent = meta.written.saturating_sub(meta.decided);
            let local_rows =
                read::count_local(newest, &keys::rows_prefix(&workspace, meta.generation))?;
            let rows = meta.rows;
            let purged = Purged { rows, unsent, dead_letters, local_rows, file_bytes: 0 };
            if consent == Consent::OnlySent && (unsent, dead_letters, local_rows) != (0, 0, 0) {
                return Err(Error::WouldDestroy { workspace, unsent, dead_letters, local_rows });
            }
            let payload = Payload::Forgotten(Forgotten { workspace });
            let position = store.append_urgent(payload.kind(), &payload.to_bytes())?;
            Ok((purged, position))
        })?;
        for unit in units {
            match self.discard_dead_letter(unit) {
                // Of a unit with several letters the first took all.
                Ok(_) | Err(Error::NoDeadLetter { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        // What is stored from here on stays, so whoever attaches need not wait.
        drop(attached);
        let file_bytes = self.forget_files(position)?;
        Ok(Purged { file_bytes, ..purged })
    }

    /// Lets go of every file that was stored before that position, and of its bytes; answers how
    /// many those were. Files are condemned and dropped, then chunks are, then packs go.
    fn forget_files(&self, forgotten_at: u64) -> Result<u64> {
        let files = self.files();
        let before = files.usage()?.file_bytes;
        for _ in 0..MAX_RUNS {
            let (blobs, writer, now_ms) = (files.blobs()?, files.writer(), files.now_ms());
            let run = collect::forget(&blobs, writer, self.name(), forgotten_at, now_ms)?;
            if !run.did_something() {
                break;
            }
        }
        let mut left = 0;
        read::visit_blobs(&*self.database().view(), self.name(), &mut |stored| {
            if stored.touched < forgotten_at {
                left += stored.blob.size;
            }
            Ok(())
        })?;
        match left {
            0 => Ok(before),
            bytes => Err(Error::FilesInUse { workspace: self.name().clone(), bytes }),
        }
    }
}
