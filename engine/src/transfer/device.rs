//! The device's side of one transfer: a conversation from its first message to its end.

use std::io::Read;
use std::ops::ControlFlow;

use lastword_core::hash::BlobHash;
use lastword_core::protocol::{FileMessage, FileRefusal, ObjectMessage, SignedUrl};
use lastword_store::{BlobError, read};

use super::by_url;
use super::receiving::Receiving;
use crate::error::Error;
use crate::file_frames;
use crate::files::Files;

/// What brings messages to a server and back, one after the other.
pub trait Wire {
    /// Sends a message.
    ///
    /// # Errors
    /// Why it cannot, for people; the connection is over then.
    fn send(&mut self, message: FileMessage) -> Result<(), String>;

    /// The next message; waits for it.
    ///
    /// # Errors
    /// Why there is none, for people; the connection is over then.
    fn receive(&mut self) -> Result<FileMessage, String>;

    /// Sends `len` bytes to a signed URL, as `pieces` gives them; answers the status. What brings
    /// no requests to object stores leaves this as it is.
    ///
    /// # Errors
    /// [`Ending::Cut`] if there is no answer, and what `pieces` fails with.
    fn put(&mut self, url: &SignedUrl, len: u64, pieces: Pieces<'_>) -> Result<u16, Ending> {
        let _ = (url, len, pieces);
        Err(Ending::Cut { why: NO_STORES.into() })
    }

    /// Reads from a signed URL, from byte `begin` of the file to before byte `end`.
    ///
    /// # Errors
    /// Why there is no answer, for people.
    fn get(&mut self, url: &SignedUrl, begin: u64, end: u64) -> Result<Got<'_>, String> {
        let _ = (url, begin, end);
        Err(NO_STORES.into())
    }
}

const NO_STORES: &str = "this connection reaches no object store";

/// Gives the next piece of what is sent; nothing at the end.
pub type Pieces<'a> = &'a mut dyn FnMut() -> Result<Option<Vec<u8>>, Ending>;

/// What an object store answered.
pub struct Got<'a> {
    /// 200, 206, 404, ..
    pub status: u16,
    /// The body as it comes.
    pub body: Box<dyn Read + 'a>,
}

impl std::fmt::Debug for Got<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Got({})", self.status)
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file that are where they go, those that were there before too.
    pub done_bytes: u64,
    /// Its length.
    pub total_bytes: u64,
    /// Bytes that were sent or received.
    pub moved_bytes: u64,
}

/// A transfer that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its length.
    pub total_bytes: u64,
    /// Bytes that were sent or received; the others were there.
    pub moved_bytes: u64,
}

/// Why one did not.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Ending {
    /// The connection is over.
    #[error("{why}")]
    Cut {
        /// Why, for people.
        why: String,
    },
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// The kind of refusal.
        code: FileRefusal,
        /// For people.
        message: String,
    },
    /// Whoever watches it wanted it to end.
    #[error("the transfer was stopped")]
    Stopped,
    /// This device cannot store or read it.
    #[error(transparent)]
    Here(#[from] Error),
}

/// Told how far a transfer is; it may end it.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// A transfer of one file on a connection.
pub(super) struct Talk<'a> {
    pub(super) wire: &'a mut dyn Wire,
    pub(super) transfer: u64,
    pub(super) watch: Watch<'a>,
    pub(super) progress: Progress,
}

impl Talk<'_> {
    pub(super) fn send(&mut self, message: FileMessage) -> Result<(), Ending> {
        self.wire.send(message).map_err(|why| Ending::Cut { why })
    }

    pub(super) fn say(&mut self, message: ObjectMessage) -> Result<(), Ending> {
        self.send(FileMessage::Object { transfer: self.transfer, message })
    }

    /// The next message about this transfer that is no refusal.
    pub(super) fn receive(&mut self) -> Result<FileMessage, Ending> {
        loop {
            let message = self.wire.receive().map_err(|why| Ending::Cut { why })?;
            let of = match &message {
                FileMessage::Error { message, .. } => {
                    return Err(Ending::Cut { why: message.clone() });
                }
                FileMessage::Found { transfer, .. }
                | FileMessage::Want { transfer, .. }
                | FileMessage::Chunk { transfer, .. }
                | FileMessage::Committed { transfer, .. }
                | FileMessage::Object { transfer, .. }
                | FileMessage::Refused { transfer, .. } => *transfer,
                _ => return Err(unexpected()),
            };
            match message {
                _ if of != self.transfer => {}
                FileMessage::Refused { code, message, .. } => {
                    return Err(Ending::Refused { code, message });
                }
                message => return Ok(message),
            }
        }
    }

    /// Says how far it is, and ends it if that is wanted.
    pub(super) fn told(&mut self) -> Result<(), Ending> {
        match (self.watch)(self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                self.send(FileMessage::Cancel { transfer: self.transfer })?;
                Err(Ending::Stopped)
            }
        }
    }

    pub(super) fn ended(&self) -> Ended {
        let Progress { total_bytes, moved_bytes, .. } = self.progress;
        Ended { total_bytes, moved_bytes }
    }
}

pub(super) fn unexpected() -> Ending {
    Ending::Cut { why: "the server sent what does not belong here".into() }
}

/// Uploads a file that is here; `transfer` rises on the connection.
///
/// # Errors
/// [`Ending`]; what the server has of it by then it does not ask for again.
pub fn upload(
    files: &Files,
    sha256: [u8; 32],
    wire: &mut dyn Wire,
    transfer: u64,
    watch: Watch<'_>,
) -> Result<Ended, Ending> {
    let blobs = files.blobs()?;
    let view = files.workspace().database().view();
    let workspace = files.workspace().name().clone();
    let stored = read::blob(&*view, &workspace, &sha256).map_err(Error::from)?;
    let hash = BlobHash::Sha256(sha256);
    let blob = stored.ok_or_else(|| Error::from(BlobError::Missing { hash }))?.blob;
    let (mime_type, name) = files.described(&hash)?;
    let progress = Progress { total_bytes: blob.size, ..Progress::default() };
    let mut talk = Talk { wire, transfer, watch, progress };
    talk.told()?;
    let of = workspace.clone();
    talk.send(FileMessage::Offer { transfer, workspace: of, blob, mime_type, name })?;
    let mut rounds = 0;
    loop {
        match talk.receive()? {
            FileMessage::Object {
                message: ObjectMessage::Place { part_bytes, stored }, ..
            } => {
                rounds += 1;
                if rounds > by_url::MAX_ROUNDS {
                    return Err(Ending::Cut { why: "the store of files loses parts".into() });
                }
                by_url::send(&mut talk, files, &blob, (part_bytes, &stored))?;
            }
            FileMessage::Want { stored, chunks, .. } => {
                talk.progress.done_bytes = stored;
                for id in chunks {
                    let bytes = match blobs.read_newest(&workspace, &id) {
                        Ok(bytes) => bytes,
                        Err(error) => {
                            file_frames::set_apart(files.writer(), &workspace, &error);
                            talk.send(FileMessage::Cancel { transfer })?;
                            return Err(Error::from(error).into());
                        }
                    };
                    talk.progress.moved_bytes += bytes.len() as u64;
                    talk.send(FileMessage::Chunk { transfer, bytes })?;
                    talk.told()?;
                }
                talk.told()?;
            }
            FileMessage::Committed { .. } => {
                talk.progress.done_bytes = blob.size;
                talk.told()?;
                return Ok(talk.ended());
            }
            _ => return Err(unexpected()),
        }
    }
}

/// Downloads a file and keeps it; `transfer` rises on the connection.
///
/// # Errors
/// [`Ending`]; what came by then stays, and is not asked for again.
pub fn download(
    files: &Files,
    sha256: [u8; 32],
    wire: &mut dyn Wire,
    transfer: u64,
    watch: Watch<'_>,
) -> Result<Ended, Ending> {
    let mut talk = Talk { wire, transfer, watch, progress: Progress::default() };
    talk.told()?;
    let workspace = files.workspace().name().clone();
    talk.send(FileMessage::Fetch { transfer, workspace: workspace.clone(), sha256 })?;
    let blob = match talk.receive()? {
        FileMessage::Found { blob, .. } => blob,
        FileMessage::Object { message: ObjectMessage::FoundAt { size, url }, .. } => {
            return by_url::fetch(&mut talk, files, sha256, (size, url));
        }
        _ => return Err(unexpected()),
    };
    if blob.sha256 != sha256 {
        return Err(unexpected());
    }
    files.check_size(blob.size)?;
    let (blobs, writer, records) = (files.blobs()?, files.writer(), files.records());
    let mut receiving = Receiving::new(&blobs, writer, &workspace, blob, records);
    talk.progress.total_bytes = blob.size;
    if let Err(ending) = receive_all(&mut talk, &mut receiving) {
        receiving.save()?;
        return Err(ending);
    }
    // All is here, so it does not matter whether the server hears that it has done its part.
    let _ = talk.send(FileMessage::Cancel { transfer });
    let goes_on = &mut |_| (talk.watch)(talk.progress).is_continue();
    match receiving.end(files.now_ms(), Box::new(file_frames::append_now), goes_on)? {
        true => Ok(talk.ended()),
        false => Err(Ending::Stopped),
    }
}

/// Asks for what is missing until nothing is.
fn receive_all(talk: &mut Talk<'_>, receiving: &mut Receiving) -> Result<(), Ending> {
    let transfer = talk.transfer;
    loop {
        let chunks = receiving.wants()?;
        let stored = receiving.here_bytes();
        talk.progress.done_bytes = stored;
        talk.progress.moved_bytes = receiving.received_bytes();
        talk.told()?;
        if !chunks.is_empty() {
            talk.send(FileMessage::Want { transfer, stored, chunks })?;
        }
        if receiving.is_complete() {
            return Ok(());
        }
        let FileMessage::Chunk { bytes, .. } = talk.receive()? else { return Err(unexpected()) };
        if !receiving.put(&bytes)? {
            return Err(unexpected());
        }
    }
}
