//! The server's side of a connection that carries files.

use lastword_core::hash::{BlobHash, ChunkId};
use lastword_core::id::WorkspaceName;
use lastword_core::manifest::{Blob, PROFILE};
use lastword_core::protocol::{
    FIRST_VERSION, FileMessage, FileRefusal, ObjectMessage, Role, SignedUrl,
};
use lastword_providers::expiry::Expiry;
use lastword_providers::upload::Download;
use lastword_store::payload::cut_text;
use lastword_store::{BlobError, Store, read};

use super::receiving::Receiving;
use crate::authority::Authority;
use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::file_access;
use crate::file_frames;
use crate::objects::{ObjectCommit, ObjectFile, ObjectOffer, ObjectUpload};
use crate::owned;
use crate::quota::Reservation;
use crate::upload_policy::UploadRequest;

/// What one user is served on one connection: one transfer at a time. Calls block on the disk.
pub struct FileService {
    authority: Authority,
    user: String,
    /// What the connection speaks.
    version: u64,
    /// Number of the newest transfer.
    newest: u64,
    current: Option<Current>,
    /// When the message came that is answered.
    now_ms: i64,
}

/// The transfer that is under way.
enum Current {
    Upload(Box<Upload>),
    /// A download of that file from that workspace.
    Download(WorkspaceName, [u8; 32]),
    /// An upload to an object store.
    ToStore(WorkspaceName, Box<ObjectUpload>),
}

struct Upload {
    workspace: WorkspaceName,
    blob: Blob,
    receiving: Receiving,
    /// Held until the state counts the file.
    _room: Reservation,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// A message that may not come here.
    #[error("{what}")]
    Protocol {
        /// What is wrong.
        what: &'static str,
    },
    /// The store failed; the device was told that the server cannot now.
    #[error(transparent)]
    Store(Error),
}

/// Takes what goes to the device; false if nobody takes it any more.
type Reply<'a> = &'a mut dyn FnMut(FileMessage) -> bool;

/// Why an answer ends.
enum Halt {
    /// The device is told.
    Failed(Error),
    /// There is nobody to tell.
    Gone,
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Halt::Failed(error.into())
    }
}

type Answered = std::result::Result<(), Halt>;

fn say(reply: Reply<'_>, message: FileMessage) -> Answered {
    if reply(message) { Ok(()) } else { Err(Halt::Gone) }
}

impl std::fmt::Debug for FileService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileService({}, transfer {})", self.user, self.newest)
    }
}

impl FileService {
    /// Serves a user who has proved to be that.
    #[must_use]
    pub fn new(authority: Authority, user: String) -> Self {
        Self { authority, user, version: FIRST_VERSION, newest: 0, current: None, now_ms: 0 }
    }

    /// As this, where the connection speaks that version.
    #[must_use]
    pub fn speaking(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// Takes one message and answers it.
    ///
    /// # Errors
    /// [`ServiceError`]: the connection is to be closed.
    pub fn take(&mut self, message: FileMessage, reply: Reply<'_>) -> Result<(), ServiceError> {
        self.take_at(now_ms(), message, reply)
    }

    /// As [`FileService::take`], at another time than this machine's.
    pub(crate) fn take_at(
        &mut self,
        now_ms: i64,
        message: FileMessage,
        reply: Reply<'_>,
    ) -> Result<(), ServiceError> {
        self.now_ms = now_ms;
        let transfer = match &message {
            FileMessage::Offer { transfer, .. } | FileMessage::Fetch { transfer, .. } => {
                if *transfer <= self.newest {
                    return Err(ServiceError::Protocol { what: "the number of a transfer rises" });
                }
                self.leave();
                self.newest = *transfer;
                *transfer
            }
            FileMessage::Want { transfer, .. }
            | FileMessage::Chunk { transfer, .. }
            | FileMessage::Object {
                transfer,
                message: ObjectMessage::AskUrl { .. } | ObjectMessage::Sent | ObjectMessage::NotIt,
            }
            | FileMessage::Cancel { transfer } => *transfer,
            _ => return Err(ServiceError::Protocol { what: "a device does not send this here" }),
        };
        if transfer != self.newest {
            // It was under way when its transfer ended.
            return Ok(());
        }
        let uploads = matches!(message, FileMessage::Offer { .. } | FileMessage::Chunk { .. })
            || matches!(self.current, Some(Current::ToStore(..)));
        match self.answer(message, reply) {
            Ok(()) => Ok(()),
            Err(Halt::Gone) => {
                self.leave();
                Ok(())
            }
            Err(Halt::Failed(error)) => {
                self.leave();
                let (code, message) = (refusal(&error, uploads), cut_text(&error.to_string()));
                // Whoever is gone hears nothing.
                let _ = reply(FileMessage::Refused { transfer, code, message });
                match error {
                    Error::Store(_) | Error::Closed => Err(ServiceError::Store(error)),
                    _ => Ok(()),
                }
            }
        }
    }

    fn answer(&mut self, message: FileMessage, reply: Reply<'_>) -> Answered {
        match (message, &mut self.current) {
            (FileMessage::Offer { workspace, blob, mime_type, name, .. }, _)
                if self.authority.goes_to_store(&workspace, &BlobHash::Sha256(blob.sha256))? =>
            {
                self.writer(&workspace)?;
                self.speaks_of_stores()?;
                self.offered_to_store(workspace, blob, (&mime_type, &name), reply)
            }
            (FileMessage::Offer { workspace, blob, mime_type, name, .. }, _) => {
                let upload = self.offered(workspace, blob, (&mime_type, &name))?;
                self.current = Some(Current::Upload(Box::new(upload)));
                self.go_on(reply)
            }
            (FileMessage::Fetch { transfer, workspace, sha256 }, _) => {
                self.member(&workspace)?;
                let stored = read::blob(&*self.authority.view(), &workspace, &sha256)?;
                let found = match stored {
                    Some(stored) => FileMessage::Found { transfer, blob: stored.blob },
                    None => {
                        let file = self.at_store(&workspace, sha256)?;
                        self.speaks_of_stores()?;
                        let (size, url) = (file.size_bytes(), read_url(&file)?);
                        let message = ObjectMessage::FoundAt { size, url };
                        FileMessage::Object { transfer, message }
                    }
                };
                self.current = Some(Current::Download(workspace, sha256));
                say(reply, found)
            }
            (FileMessage::Object { message, .. }, Some(Current::ToStore(..))) => {
                self.bringing(message, reply)
            }
            (FileMessage::Object { message, .. }, Some(Current::Download(workspace, sha256))) => {
                let (workspace, sha256) = (workspace.clone(), *sha256);
                let file = self.at_store(&workspace, sha256)?;
                self.reading(&file, message, reply)
            }
            (
                FileMessage::Want { transfer, chunks, .. },
                Some(Current::Download(workspace, sha256)),
            ) => {
                let (workspace, sha256) = (workspace.clone(), *sha256);
                for id in &chunks {
                    // A device may take long for each, and its user may go meanwhile.
                    self.member(&workspace)?;
                    let bytes = self.chunk(&workspace, &sha256, id)?;
                    say(reply, FileMessage::Chunk { transfer, bytes })?;
                }
                Ok(())
            }
            (FileMessage::Chunk { bytes, .. }, Some(Current::Upload(upload))) => {
                // What was not asked for is not kept.
                if !upload.receiving.put(&bytes)? {
                    return Ok(());
                }
                let workspace = upload.workspace.clone();
                self.writer(&workspace)?;
                self.go_on(reply)
            }
            (FileMessage::Cancel { .. }, _) => {
                self.leave();
                Ok(())
            }
            // Of a transfer that was refused meanwhile.
            _ => Ok(()),
        }
    }

    /// Ends the transfer that is under way; what came of it stays.
    fn leave(&mut self) {
        if let Some(Current::Upload(mut upload)) = self.current.take()
            && let Err(error) = upload.receiving.save()
        {
            tracing::warn!(%error, "what came of a file has to be sent again");
        }
    }

    fn member(&self, workspace: &WorkspaceName) -> Result<Role> {
        self.authority.member(workspace, &self.user)
    }

    fn writer(&self, workspace: &WorkspaceName) -> Result<()> {
        match self.member(workspace)? {
            Role::Owner | Role::Editor => Ok(()),
            Role::Viewer => Err(Error::UploadRefused {
                message: format!("a viewer of {workspace} uploads no files"),
            }),
        }
    }

    /// Puts devices off that do not know that there are object stores: the transfer goes on once
    /// the app is another.
    fn speaks_of_stores(&self) -> Result<()> {
        match self.version {
            FIRST_VERSION => {
                Err(Error::NeedsNewerApp { provider: self.authority.files_provider() })
            }
            _ => Ok(()),
        }
    }

    fn at_store(&self, workspace: &WorkspaceName, sha256: [u8; 32]) -> Result<ObjectFile> {
        let hash = BlobHash::Sha256(sha256);
        let file = self.authority.find_object(workspace, &self.user, &hash)?;
        file.ok_or_else(|| BlobError::Missing { hash }.into())
    }

    fn offered_to_store(
        &mut self,
        workspace: WorkspaceName,
        blob: Blob,
        (mime_type, name): (&str, &str),
        reply: Reply<'_>,
    ) -> Answered {
        let (hash, size_bytes, user) = (BlobHash::Sha256(blob.sha256), blob.size, &*self.user);
        let request =
            UploadRequest { workspace: &workspace, user, hash, size_bytes, mime_type, name };
        let transfer = self.newest;
        match self.authority.offer_object(&request, true)? {
            ObjectOffer::Stored => {
                say(reply, FileMessage::Committed { transfer, storage_id: hash.to_string() })
            }
            ObjectOffer::Coming(mut coming) => {
                let message = self.authority.object_place(&mut coming)?;
                self.current = Some(Current::ToStore(workspace, coming));
                say(reply, FileMessage::Object { transfer, message })
            }
        }
    }

    /// Answers a device that brings a file to an object store.
    fn bringing(&mut self, message: ObjectMessage, reply: Reply<'_>) -> Answered {
        let transfer = self.newest;
        let Some(Current::ToStore(workspace, coming)) = &mut self.current else { return Ok(()) };
        // A device may take long for each part, and its user may go meanwhile.
        let may_write = self.authority.member(workspace, &self.user)? != Role::Viewer;
        let message = match message {
            _ if !may_write => {
                let message = format!("a viewer of {workspace} uploads no files");
                return Err(Error::UploadRefused { message }.into());
            }
            ObjectMessage::AskUrl { part, sha256 } => {
                ObjectMessage::Url(coming.url(part, sha256, Expiry::default())?)
            }
            ObjectMessage::Sent => {
                let stored = coming.size_bytes();
                let mut goes_on = || {
                    // Whoever is gone hears nothing, and finds it committed later.
                    let _ = reply(FileMessage::Want { transfer, stored, chunks: Vec::new() });
                };
                match self.authority.commit_object(coming, &mut goes_on)? {
                    ObjectCommit::Incomplete => self.authority.object_place(coming)?,
                    ObjectCommit::Stored => {
                        let storage_id = coming.hash().to_string();
                        self.current = None;
                        return say(reply, FileMessage::Committed { transfer, storage_id });
                    }
                }
            }
            _ => return Ok(()),
        };
        say(reply, FileMessage::Object { transfer, message })
    }

    /// Answers a device that reads a file from an object store.
    fn reading(&self, file: &ObjectFile, message: ObjectMessage, reply: Reply<'_>) -> Answered {
        let transfer = self.newest;
        match message {
            ObjectMessage::AskUrl { .. } => {
                let message = ObjectMessage::Url(read_url(file)?);
                say(reply, FileMessage::Object { transfer, message })
            }
            ObjectMessage::NotIt => {
                let stored = file.size_bytes();
                let mut goes_on = || {
                    let _ = reply(FileMessage::Want { transfer, stored, chunks: Vec::new() });
                };
                self.authority.recheck_object(file, &mut goes_on)?;
                // It is what it should be: the way there was at fault, or somebody has mended it.
                let reason = "it was read again and is whole".into();
                let provider = file.provider_id().to_owned();
                Err(Error::ObjectStore { provider, reason }.into())
            }
            _ => Ok(()),
        }
    }

    fn offered(
        &self,
        workspace: WorkspaceName,
        blob: Blob,
        (mime_type, name): (&str, &str),
    ) -> Result<Upload> {
        self.writer(&workspace)?;
        if blob.profile != PROFILE {
            let profile = blob.profile;
            let message = format!("files cut by profile {profile} are not taken, only {PROFILE}");
            return Err(Error::UploadRefused { message });
        }
        let view = || self.authority.view();
        let room = self.authority.file_quota().reserve(view, &workspace, &blob)?;
        let (hash, size_bytes) = (BlobHash::Sha256(blob.sha256), blob.size);
        let (workspace_name, user) = (&workspace, self.user.as_str());
        let request =
            UploadRequest { workspace: workspace_name, user, hash, size_bytes, mime_type, name };
        self.authority.may_upload(&request)?;
        let (blobs, writer) = (self.authority.blobs()?, self.authority.writer());
        let receiving = Receiving::new(&blobs, writer, &workspace, blob, self.authority.records());
        Ok(Upload { workspace, blob, receiving, _room: room })
    }

    /// Asks for what is missing of an upload, or ends it.
    fn go_on(&mut self, reply: Reply<'_>) -> Answered {
        let transfer = self.newest;
        let Some(Current::Upload(upload)) = &mut self.current else { return Ok(()) };
        let chunks = upload.receiving.wants()?;
        if !chunks.is_empty() {
            let stored = upload.receiving.here_bytes();
            say(reply, FileMessage::Want { transfer, stored, chunks })?;
        }
        if !upload.receiving.is_complete() {
            return Ok(());
        }
        let Some(Current::Upload(upload)) = self.current.take() else { return Ok(()) };
        let Upload { workspace, blob, receiving, _room } = *upload;
        let (sha256, now_ms) = (blob.sha256, self.now_ms);
        // Comparing takes a while: nobody who lost the right to in between adds a file.
        let may_write = self.authority.may_write(workspace.clone(), self.user.clone());
        let commit = Box::new(move |store: &mut Store, frames| {
            may_write(store)?;
            file_frames::append_now(store, frames)?;
            owned::set_stored(store, &workspace, &sha256, now_ms)
        });
        let goes_on =
            &mut |stored| reply(FileMessage::Want { transfer, stored, chunks: Vec::new() });
        if !receiving.end(now_ms, commit, goes_on)? {
            return Err(Halt::Gone);
        }
        let storage_id = BlobHash::Sha256(sha256).to_string();
        say(reply, FileMessage::Committed { transfer, storage_id })
    }

    fn chunk(&self, workspace: &WorkspaceName, sha256: &[u8; 32], id: &ChunkId) -> Result<Vec<u8>> {
        self.authority.blobs()?.read_newest(workspace, id).map_err(|error| {
            file_access::note_damage(&self.authority, (workspace, sha256), Some(id), &error);
            error.into()
        })
    }

    /// True while a file comes or goes.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.current.is_some()
    }
}

impl Drop for FileService {
    fn drop(&mut self) {
        self.leave();
    }
}

fn read_url(file: &ObjectFile) -> Result<SignedUrl> {
    file.url(&Download::default(), Expiry::default())
}

/// What a device hears of an error.
fn refusal(error: &Error, uploads: bool) -> FileRefusal {
    match error {
        Error::NoMember { .. } => FileRefusal::Forbidden,
        Error::UploadRefused { .. } => FileRefusal::Policy,
        Error::FilesOverQuota { .. } => FileRefusal::OverQuota,
        // Others may give their room back.
        Error::RoomReserved { .. } | Error::UnfinishedUploads { .. } => FileRefusal::Unavailable,
        // It is brought again, or read once somebody has brought it again.
        Error::ObjectMissing { .. } | Error::ObjectWrong { .. } => FileRefusal::Damaged,
        Error::Blob(BlobError::TooLarge { .. }) => FileRefusal::TooLarge,
        Error::Blob(BlobError::Missing { .. }) => FileRefusal::NotStored,
        Error::Blob(BlobError::Manifest { .. }) if uploads => FileRefusal::NotThatFile,
        // The next attempt brings it again.
        Error::Blob(_) if uploads => FileRefusal::Unavailable,
        Error::Blob(_) => FileRefusal::Damaged,
        _ => FileRefusal::Unavailable,
    }
}
