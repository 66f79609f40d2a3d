//! Messages that carry files, on a connection of their own, so that no record waits behind one.
//!
//! Whoever receives a file drives: it walks down from the root of the list of chunks and asks for
//! what it does not have. So an upload and a download are the same conversation with other roles,
//! a transfer that was cut goes on by beginning again, and what is there already is never sent.
//! One transfer runs on a connection at a time; its number is in every message, so that what was
//! under way when it ended is recognised.
//!
//! Where an object store keeps the files, the server answers with [`ObjectMessage`]s instead, if
//! the connection speaks version 2: bytes then go between device and store.

use alloc::string::String;
use alloc::vec::Vec;

use super::message::{ErrorCode, Hello};
use super::objects::ObjectMessage;
use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::hash::ChunkId;
use crate::id::WorkspaceName;
use crate::limits::{MAX_CHUNK_BYTES, MAX_TEXT_BYTES, MAX_WANTED_CHUNKS};
use crate::manifest::Blob;
use crate::stamp::coded;

/// Everything that is said where files are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileMessage {
    /// Device, first on a connection: who it is.
    Hello(Hello),
    /// Server: the token is good.
    Welcome {
        /// Protocol version of the rest of the connection.
        version: u64,
    },
    /// Device: it has this file for a workspace.
    Offer {
        /// Number of the transfer, above every earlier one of the connection.
        transfer: u64,
        /// The workspace.
        workspace: WorkspaceName,
        /// The file.
        blob: Blob,
        /// Its media type as its row has it, for the server's rules.
        mime_type: String,
        /// Its name as its row has it, for the server's rules.
        name: String,
    },
    /// Device: it wants a file.
    Fetch {
        /// Number of the transfer, above every earlier one of the connection.
        transfer: u64,
        /// The workspace.
        workspace: WorkspaceName,
        /// SHA-256 of the file.
        sha256: [u8; 32],
    },
    /// Server: this is the file that was asked for.
    Found {
        /// Number of the transfer.
        transfer: u64,
        /// The file.
        blob: Blob,
    },
    /// Receiver: send these. An empty list says that the transfer is alive.
    Want {
        /// Number of the transfer.
        transfer: u64,
        /// Bytes of the file that the receiver has durably.
        stored: u64,
        /// Chunks or pages.
        chunks: Vec<ChunkId>,
    },
    /// Sender: bytes of a chunk or page that was asked for.
    Chunk {
        /// Number of the transfer.
        transfer: u64,
        /// Its bytes; their hash says which it is.
        bytes: Vec<u8>,
    },
    /// Server: the file that was offered is whole, compared with its name, and durable.
    Committed {
        /// Number of the transfer.
        transfer: u64,
        /// What `storage_id` of its row is from now on.
        storage_id: String,
    },
    /// Server: this transfer is not, or no longer, served.
    Refused {
        /// Number of the transfer.
        transfer: u64,
        /// Why.
        code: FileRefusal,
        /// For people.
        message: String,
    },
    /// Device: this transfer has ended for it.
    Cancel {
        /// Number of the transfer.
        transfer: u64,
    },
    /// Either side, in version 2: about a file that an object store keeps.
    Object {
        /// Number of the transfer.
        transfer: u64,
        /// What.
        message: ObjectMessage,
    },
    /// Either side, last on a connection: why it closes.
    Error {
        /// The kind of error.
        code: ErrorCode,
        /// For people.
        message: String,
    },
}

/// Why a file is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileRefusal {
    /// The user is no member, or may not write; unknown workspaces get the same answer.
    Forbidden,
    /// The server does not have it: whoever has has not uploaded it yet.
    NotStored,
    /// It is longer than the server takes.
    TooLarge,
    /// The workspace has no room for it.
    OverQuota,
    /// The server's own rules are against it.
    Policy,
    /// A chunk that the server had is damaged: nobody gets it until somebody uploads it again.
    Damaged,
    /// The chunks do not make up the file that was named.
    NotThatFile,
    /// The server cannot now; try again.
    Unavailable,
}

impl FileRefusal {
    /// Whether the same may be tried again without a change by anybody.
    #[must_use]
    pub fn is_for_now(self) -> bool {
        matches!(self, FileRefusal::Unavailable)
    }
}

coded!(FileRefusal, "file refusal code",
    Forbidden = 0, "forbidden";
    NotStored = 1, "not_stored";
    TooLarge = 2, "too_large";
    OverQuota = 3, "over_quota";
    Policy = 4, "policy";
    Damaged = 5, "damaged";
    NotThatFile = 6, "not_that_file";
    Unavailable = 7, "unavailable";
);

mod tag {
    pub(super) const HELLO: u64 = 0;
    pub(super) const WELCOME: u64 = 1;
    pub(super) const OFFER: u64 = 2;
    pub(super) const FETCH: u64 = 3;
    pub(super) const FOUND: u64 = 4;
    pub(super) const WANT: u64 = 5;
    pub(super) const CHUNK: u64 = 6;
    pub(super) const COMMITTED: u64 = 7;
    pub(super) const REFUSED: u64 = 8;
    pub(super) const CANCEL: u64 = 9;
    pub(super) const ERROR: u64 = 13;
}

impl Encode for FileMessage {
    fn encode(&self, out: &mut Encoder) {
        match self {
            FileMessage::Hello(hello) => {
                out.u64(tag::HELLO);
                hello.encode(out);
            }
            FileMessage::Welcome { version } => {
                out.u64(tag::WELCOME);
                out.u64(*version);
            }
            FileMessage::Offer { transfer, workspace, blob, mime_type, name } => {
                begin(out, tag::OFFER, *transfer);
                workspace.encode(out);
                blob.encode(out);
                out.str(mime_type);
                out.str(name);
            }
            FileMessage::Fetch { transfer, workspace, sha256 } => {
                begin(out, tag::FETCH, *transfer);
                workspace.encode(out);
                out.raw(sha256);
            }
            FileMessage::Found { transfer, blob } => {
                begin(out, tag::FOUND, *transfer);
                blob.encode(out);
            }
            FileMessage::Want { transfer, stored, chunks } => {
                begin(out, tag::WANT, *transfer);
                out.u64(*stored);
                out.list(chunks);
            }
            FileMessage::Chunk { transfer, bytes } => {
                begin(out, tag::CHUNK, *transfer);
                out.bytes(bytes);
            }
            FileMessage::Committed { transfer, storage_id } => {
                begin(out, tag::COMMITTED, *transfer);
                out.str(storage_id);
            }
            FileMessage::Refused { transfer, code, message } => {
                begin(out, tag::REFUSED, *transfer);
                code.encode(out);
                out.str(message);
            }
            FileMessage::Cancel { transfer } => begin(out, tag::CANCEL, *transfer),
            FileMessage::Object { transfer, message } => message.encode(*transfer, out),
            FileMessage::Error { code, message } => {
                out.u64(tag::ERROR);
                code.encode(out);
                out.str(message);
            }
        }
    }
}

fn begin(out: &mut Encoder, tag: u64, transfer: u64) {
    out.u64(tag);
    out.u64(transfer);
}

impl Decode for FileMessage {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        let text = |from: &mut Decoder<'_>, what| -> Result<String, DecodeError> {
            Ok(from.str(what, MAX_TEXT_BYTES)?.into())
        };
        Ok(match from.u64()? {
            tag::HELLO => FileMessage::Hello(Hello::decode(from)?),
            tag::WELCOME => FileMessage::Welcome { version: from.u64()? },
            tag::OFFER => FileMessage::Offer {
                transfer: from.u64()?,
                workspace: WorkspaceName::decode(from)?,
                blob: Blob::decode(from)?,
                mime_type: text(from, "media type")?,
                name: text(from, "file name")?,
            },
            tag::FETCH => FileMessage::Fetch {
                transfer: from.u64()?,
                workspace: WorkspaceName::decode(from)?,
                sha256: from.array()?,
            },
            tag::FOUND => FileMessage::Found { transfer: from.u64()?, blob: Blob::decode(from)? },
            tag::WANT => FileMessage::Want {
                transfer: from.u64()?,
                stored: from.u64()?,
                chunks: from.list("wanted chunks", MAX_WANTED_CHUNKS)?,
            },
            tag::CHUNK => FileMessage::Chunk {
                transfer: from.u64()?,
                bytes: from.bytes("chunk", MAX_CHUNK_BYTES)?.into(),
            },
            tag::COMMITTED => FileMessage::Committed {
                transfer: from.u64()?,
                storage_id: text(from, "storage id")?,
            },
            tag::REFUSED => FileMessage::Refused {
                transfer: from.u64()?,
                code: FileRefusal::decode(from)?,
                message: text(from, "message")?,
            },
            tag::CANCEL => FileMessage::Cancel { transfer: from.u64()? },
            tag::ERROR => FileMessage::Error {
                code: ErrorCode::decode(from)?,
                message: text(from, "message")?,
            },
            tag => match ObjectMessage::decode(tag, from)? {
                Some((transfer, message)) => FileMessage::Object { transfer, message },
                None => return Err(DecodeError::Invalid { what: "file message tag", offset }),
            },
        })
    }
}
