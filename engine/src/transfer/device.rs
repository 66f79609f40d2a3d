//! The device's side of one transfer: a conversation from its first message to its end.

use std::ops::ControlFlow;

use lastword_core::hash::BlobHash;
use lastword_core::protocol::{FileMessage, FileRefusal};
use lastword_store::{BlobError, read};

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
struct Talk<'a> {
    wire: &'a mut dyn Wire,
    transfer: u64,
    watch: Watch<'a>,
    progress: Progress,
}

impl Talk<'_> {
    fn send(&mut self, message: FileMessage) -> Result<(), Ending> {
        self.wire.send(message).map_err(|why| Ending::Cut { why })
    }

    /// The next message about this transfer that is no refusal.
    fn receive(&mut self) -> Result<FileMessage, Ending> {
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
    fn told(&mut self) -> Result<(), Ending> {
        match (self.watch)(self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                self.send(FileMessage::Cancel { transfer: self.transfer })?;
                Err(Ending::Stopped)
            }
        }
    }

    fn ended(&self) -> Ended {
        let Progress { total_bytes, moved_bytes, .. } = self.progress;
        Ended { total_bytes, moved_bytes }
    }
}

fn unexpected() -> Ending {
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
    loop {
        match talk.receive()? {
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
    let FileMessage::Found { blob, .. } = talk.receive()? else { return Err(unexpected()) };
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
