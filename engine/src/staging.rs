//! Storing files: before any write, since that takes as long as their bytes do. A write then names
//! them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lastword_core::hash::BlobHash;
use lastword_core::manifest::Blob;
use lastword_store::blobs::Ingest;

use crate::error::{Error, Result};
use crate::file_frames::append;
use crate::files::Files;
use crate::hooks::Incoming;

/// A file whose bytes are stored and durable, ready to be attached by a write.
#[derive(Debug, Clone)]
pub struct Staged {
    pub(crate) blob: Blob,
    pub(crate) name: String,
    pub(crate) staged_ms: i64,
    /// Bytes that were not here before; the others were found again.
    pub new_bytes: u64,
}

impl Staged {
    /// What the file is called by its content.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        BlobHash::Sha256(self.blob.sha256)
    }

    /// The name that it got for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.blob.size
    }
}

/// Several files that are being stored, one after the other; small ones become durable together.
pub struct Staging<'a> {
    ingest: Ingest<Box<dyn Read + 'a>>,
    files: Files,
    time_ms: i64,
    staged: Vec<Staged>,
}

impl std::fmt::Debug for Staging<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").field("staged", &self.staged).finish_non_exhaustive()
    }
}

impl<'a> Staging<'a> {
    /// Stores what `from` gives, under a name for people; `progress` gets the bytes of it that were
    /// read so far. It is durable once [`Staging::finish`] returns it.
    ///
    /// # Errors
    /// [`Error::Blob`] if `from` fails or gives more than the app allows, [`Error::UploadRefused`]
    /// if a [transform](crate::Hooks::transform) does not want it, and the others go on;
    /// [`Error::Store`] if the disk fails, and nothing does.
    pub fn add(
        &mut self,
        from: impl Read + 'a,
        name: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let incoming = Incoming { name: name.to_owned(), bytes: Box::new(from) };
        let hooks = &self.files.workspace().database().inner.hooks;
        let Incoming { name, bytes } = hooks.transformed(incoming)?;
        self.ingest.begin(bytes);
        self.read(&name, progress)
    }

    /// As [`Staging::add`], of a file whose SHA-256 is known: another one is not stored, and
    /// nothing transforms it.
    ///
    /// # Errors
    /// Those of [`Staging::add`]; [`Error::Blob`] if it is another file, and the others go on.
    pub fn add_expected(
        &mut self,
        from: impl Read + 'a,
        name: &str,
        sha256: [u8; 32],
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        self.ingest.begin(Box::new(from));
        self.ingest.expect(sha256);
        self.read(name, progress)
    }

    fn read(&mut self, name: &str, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let before = self.ingest.new_bytes();
        let blob = loop {
            if let Some(blob) = self.ingest.read()? {
                break blob;
            }
            progress(self.ingest.read_bytes());
            self.take()?;
        };
        progress(blob.size);
        let (name, new_bytes) = (name.to_owned(), self.ingest.new_bytes() - before);
        self.staged.push(Staged { blob, name, staged_ms: self.time_ms, new_bytes });
        Ok(())
    }

    /// How many files were added since the last finish.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.staged.len()
    }

    /// Makes durable what was added, and returns it in that order. More can be added then.
    ///
    /// # Errors
    /// [`Error::Blob`] or [`Error::Store`] if the disk fails.
    pub fn finish(&mut self) -> Result<Vec<Staged>> {
        self.take()?;
        Ok(std::mem::take(&mut self.staged))
    }

    fn take(&mut self) -> Result<()> {
        let mut done = self.ingest.take()?;
        append(self.files.writer(), std::mem::take(&mut done.frames))
    }
}

impl Files {
    /// Stores the file at `path`.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be opened, and those of [`Files::stage_from`].
    pub fn stage(&self, path: impl AsRef<Path>) -> Result<Staged> {
        let path = path.as_ref();
        let failed =
            |error: io::Error| Error::File { path: path.to_owned(), reason: error.to_string() };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            let (path, reason) = (path.to_owned(), "it is a directory".to_owned());
            return Err(Error::File { path, reason });
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        self.stage_from(file, &name.unwrap_or_default(), &mut |_| {})
    }

    /// Stores what `from` gives, under a name for people. Memory is bounded whatever the size;
    /// `progress` gets the bytes that are stored so far. What a call that fails had stored is found
    /// again by the next.
    ///
    /// # Errors
    /// Those of [`Staging::add`].
    pub fn stage_from(
        &self,
        from: impl Read,
        name: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Staged> {
        let mut staging = self.staging()?;
        staging.add(from, name, progress)?;
        Ok(staging.finish()?.pop().expect("invariant: it was added"))
    }

    /// Begins to store several files.
    ///
    /// # Errors
    /// [`Error::Closed`] if the database is.
    pub fn staging<'a>(&self) -> Result<Staging<'a>> {
        self.workspace().check_writable()?;
        let inner = &self.workspace().database().inner;
        let (time_ms, limit) = (self.now_ms(), inner.max_file_bytes);
        let (blobs, name) = (self.blobs()?, self.workspace().name());
        let ingest = Ingest::several(&blobs, name, limit, time_ms);
        Ok(Staging { ingest, files: self.clone(), time_ms, staged: Vec::new() })
    }
}
