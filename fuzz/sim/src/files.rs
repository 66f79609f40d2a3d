//! Files: what is known of them apart from the engine, and what apps do with them. All are of the
//! first workspace.

use std::collections::{BTreeMap, BTreeSet};

use lastword::core::id::WorkspaceName;
use lastword::store::{BlobError, StoreError};
use lastword::{BlobHash, Error, Files, Tx};
use sha2::{Digest, Sha256};

use crate::carry::FileLine;
use crate::fault::Violation;
use crate::garbage::Collecting;
use crate::oracle::Kept;
use crate::random::Random;
use crate::world::{Done, World, broken};

/// Lengths of all contents there are: nothing, one chunk, several with a page above, and one more
/// that begins as that and goes on.
const LENGTHS: [usize; 6] = [0, 300, 20_000, 70_000, 87_000, 150_000];
/// The content that begins as the one before it.
const LONGER: usize = 4;

/// Who has a store: a device, or the authority.
pub type Who = Option<usize>;

/// What is known of files.
#[derive(Default)]
pub struct FileState {
    /// Their bytes and hashes.
    pub contents: Vec<(Vec<u8>, BlobHash)>,
    /// Those that devices were told the authority has.
    pub uploaded: BTreeSet<usize>,
    /// Those that apps on a device were told are here.
    pub held: BTreeMap<usize, BTreeSet<usize>>,
    /// When a store was last told to keep one that nothing may name yet, by the time of the run.
    pub stored_at: BTreeMap<(Who, usize), u64>,
    /// Garbage collections under way.
    pub collecting: BTreeMap<Who, Collecting>,
    /// Connections that carry files, by device.
    pub lines: BTreeMap<usize, FileLine>,
    /// Those of which only the authority's end is left.
    pub left: Vec<FileLine>,
    /// Numbers of connections.
    pub next_line: u64,
    /// The device that carries one right now; if its store fails, that is put right afterwards.
    pub carrying: Option<usize>,
    pub failed: Option<Error>,
    /// Some clock has jumped: what is old by it need not be.
    pub jumped: bool,
}

impl FileState {
    /// Those of a run that has files.
    pub fn new() -> Self {
        let random = &mut Random::new(0x66_696c_6573);
        let mut contents: Vec<(Vec<u8>, BlobHash)> = Vec::new();
        for (number, len) in LENGTHS.into_iter().enumerate() {
            let mut bytes = match contents.get(number.wrapping_sub(1)) {
                Some((before, _)) if number == LONGER => before.clone(),
                _ => Vec::new(),
            };
            while bytes.len() < len {
                bytes.extend(random.bytes::<8>());
            }
            bytes.truncate(len);
            let hash = BlobHash::Sha256(Sha256::digest(&bytes).into());
            contents.push((bytes, hash));
        }
        Self { contents, ..Self::default() }
    }

    /// The number of the content of that name.
    pub fn number_of(&self, hash: &str) -> Option<usize> {
        self.contents.iter().position(|(_, known)| known.to_string() == hash)
    }

    /// Whether a record names a file, or would if it were undeleted.
    pub fn named(&self, (table, _): &(String, String), kept: &Kept) -> bool {
        table == "file_meta" && (!kept.deleted || !kept.fields.is_empty())
    }

    /// A store is gone, or is opened again.
    pub fn forget(&mut self, who: Who) {
        self.collecting.remove(&who);
        match who {
            Some(at) => self.left.extend(self.lines.remove(&at)),
            None => {
                self.lines.clear();
                self.left.clear();
            }
        }
    }
}

/// What an app may be told instead of an answer.
fn may_be_refused(error: &Error) -> bool {
    matches!(
        error,
        Error::NotFound { .. }
            | Error::NotDeleted { .. }
            | Error::NoUndelete { .. }
            | Error::ValueGone { .. }
            | Error::KeyField { .. }
            | Error::NotUploaded { .. }
            | Error::OutboxFull { .. }
            | Error::Closed
            | Error::Blob(BlobError::Missing { .. } | BlobError::Gone { .. } | BlobError::Ended)
    )
}

impl World {
    /// The workspace that has files, and the files that a device has of it.
    pub fn files_of(&self, at: usize) -> Option<Files> {
        Some(self.opened(at, &self.workspaces[0])?.files())
    }

    pub fn file_workspace(&self) -> WorkspaceName {
        self.workspaces[0].clone()
    }

    fn any_content(&mut self) -> usize {
        self.random.below(self.files.contents.len() as u64) as usize
    }

    /// What comes of a call of an app that stores or names files.
    fn tried<T>(&mut self, at: usize, tried: Result<T, Error>) -> Result<Option<T>, Violation> {
        match tried {
            Ok(done) => Ok(Some(done)),
            Err(error) if may_be_refused(&error) => Ok(None),
            Err(error) => self.device_failed(at, &error).map(|()| None),
        }
    }

    /// A device stores a file, and mostly a record names it then.
    pub fn attach_file(&mut self, at: usize) -> Result<bool, Violation> {
        let (content, names) = (self.any_content(), !self.random.once_in(5));
        let Some(files) = self.files_of(at) else { return Ok(false) };
        let ((bytes, hash), began) = (self.files.contents[content].clone(), self.now);
        self.doing = "write";
        self.files.carrying = Some(at);
        let staged = (|| {
            let mut staging = files.staging()?;
            staging.add(&bytes[..], "a file", &mut |_| {})?;
            let between = self.random.below(3);
            for _ in 0..between {
                if let Err(violation) = self.collect_of(Some(at)) {
                    return Ok(Err(violation));
                }
            }
            Ok(Ok(staging.finish()?.pop()))
        })();
        self.files.carrying = None;
        if let Some(error) = self.files.failed.take() {
            return self.device_failed(at, &error).map(|()| false);
        }
        let Some(staged) = self.tried(at, staged)?.transpose()?.flatten() else { return Ok(false) };
        if staged.hash() != hash {
            return Err(Violation::new("I34", format!("content {content} is called {hash}")));
        }
        self.files.stored_at.insert((Some(at), content), began);
        self.files.held.entry(at).or_default().insert(content);
        if !names {
            return Ok(true);
        }
        self.doing = "write";
        let Some(opened) = self.opened(at, &self.workspaces[0].clone()) else { return Ok(false) };
        let wrote = opened.write(|tx: &mut Tx| tx.attach(&staged, "text/plain"));
        self.wrote_file(at, wrote)
    }

    fn wrote_file(
        &mut self,
        at: usize,
        wrote: Result<lastword::Receipt, Error>,
    ) -> Result<bool, Violation> {
        let workspace = self.file_workspace();
        match self.tried(at, wrote)? {
            Some(receipt) => self.wrote(at, &workspace, Ok(vec![receipt])),
            None => Ok(false),
        }
    }

    /// A device deletes the record of a file, or undeletes it.
    pub fn detach_file(&mut self, at: usize) -> Result<bool, Violation> {
        let content = self.any_content();
        let Some(files) = self.files_of(at) else { return Ok(false) };
        let hash = self.files.contents[content].1;
        self.doing = "write";
        let wrote = match files.delete(&hash) {
            Err(Error::NotFound { .. }) => files.undelete(&hash),
            wrote => wrote,
        };
        self.wrote_file(at, wrote)
    }

    /// A device forgets the bytes of a file that the authority has.
    pub fn evict_file(&mut self, at: usize) -> Result<bool, Violation> {
        let content = self.any_content();
        let Some(files) = self.files_of(at) else { return Ok(false) };
        self.doing = "write";
        let evicted = files.evict(&self.files.contents[content].1);
        // What it says of an error, it may have let go.
        if !matches!(evicted, Err(Error::NotUploaded { .. })) {
            self.files.held.entry(at).or_default().remove(&content);
        }
        Ok(self.tried(at, evicted)?.is_some())
    }

    /// A collection at a device or at the authority goes a step on.
    pub fn collect_step(&mut self, at: usize) -> Result<bool, Violation> {
        let who = if self.random.once_in(2) { None } else { Some(at) };
        self.collect_of(who)
    }

    /// A store failed while files were looked at or collected.
    pub fn file_store_failed(&mut self, who: Who, error: &Error) -> Done {
        match (who, error) {
            // There is no room, and nothing was done.
            (_, Error::Store(StoreError::NoSpace { .. })) => Ok(()),
            (_, Error::Blob(error)) => Err(broken("files cannot be collected", error)),
            (Some(at), error) => self.device_failed(at, error),
            (None, error) => self.authority_failed(error),
        }
    }
}
