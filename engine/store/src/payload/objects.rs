//! What is said of files that an object store keeps.

use lastword_core::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;

use crate::limits::{MAX_PROVIDER_ID_BYTES, MAX_UPLOAD_ID_BYTES};

/// Something about a file of a workspace that an object store keeps, or is about to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFrame {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// What.
    pub part: ObjectPart,
}

/// What an [`ObjectFrame`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectPart {
    /// How the object of a file stands from here on.
    Stands(Object),
    /// There is none any more.
    Gone {
        /// The file.
        sha256: [u8; 32],
    },
}

/// What is known of a file's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The file.
    pub sha256: [u8; 32],
    /// Its length in bytes.
    pub size: u64,
    /// Id of the store that has it.
    pub provider: String,
    /// What the store calls the upload in parts that is under way; empty if none is.
    pub upload: String,
    /// How it stands.
    pub state: ObjectState,
    /// Since when, milliseconds since 1970 UTC.
    pub time_ms: i64,
}

impl Object {
    /// The name of the file.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        BlobHash::Sha256(self.sha256)
    }
}

/// How an object stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// Somebody may bring it; whatever is there was not compared with its name, and no row names
    /// it.
    Coming,
    /// It is there, and was compared with its name.
    Stored,
    /// It is there, and nothing names it: the first step of its end.
    Condemned,
    /// It is being deleted, or may be deleted already.
    Leaving,
}

impl ObjectState {
    /// Its name in output for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ObjectState::Coming => "coming",
            ObjectState::Stored => "stored",
            ObjectState::Condemned => "condemned",
            ObjectState::Leaving => "leaving",
        }
    }
}

impl Encode for ObjectState {
    fn encode(&self, out: &mut Encoder) {
        out.u64(match self {
            ObjectState::Coming => 0,
            ObjectState::Stored => 1,
            ObjectState::Condemned => 2,
            ObjectState::Leaving => 3,
        });
    }
}

impl Decode for ObjectState {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        Ok(match from.u64()? {
            0 => ObjectState::Coming,
            1 => ObjectState::Stored,
            2 => ObjectState::Condemned,
            3 => ObjectState::Leaving,
            _ => return Err(DecodeError::Invalid { what: "state of an object", offset }),
        })
    }
}

impl Encode for Object {
    fn encode(&self, out: &mut Encoder) {
        out.raw(&self.sha256);
        out.u64(self.size);
        out.str(&self.provider);
        out.str(&self.upload);
        self.state.encode(out);
        out.i64(self.time_ms);
    }
}

impl Decode for Object {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            sha256: from.array()?,
            size: from.u64()?,
            provider: from.str("id of an object store", MAX_PROVIDER_ID_BYTES)?.into(),
            upload: from.str("id of an upload", MAX_UPLOAD_ID_BYTES)?.into(),
            state: ObjectState::decode(from)?,
            time_ms: from.i64()?,
        })
    }
}

impl Encode for ObjectFrame {
    fn encode(&self, out: &mut Encoder) {
        self.workspace.encode(out);
        match &self.part {
            ObjectPart::Stands(object) => {
                out.u64(0);
                object.encode(out);
            }
            ObjectPart::Gone { sha256 } => {
                out.u64(1);
                out.raw(sha256);
            }
        }
    }
}

impl Decode for ObjectFrame {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let workspace = WorkspaceName::decode(from)?;
        let offset = from.offset();
        let part = match from.u64()? {
            0 => ObjectPart::Stands(Object::decode(from)?),
            1 => ObjectPart::Gone { sha256: from.array()? },
            _ => return Err(DecodeError::Invalid { what: "part of an object frame", offset }),
        };
        Ok(Self { workspace, part })
    }
}
