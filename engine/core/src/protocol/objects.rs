//! What is said of files that an object store keeps, where files are carried.
//!
//! Bytes go between device and store. The server says where, signs each URL, and compares what
//! arrived with its name before any row says that the file is there.

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::limits::{MAX_FILE_PARTS, MAX_TEXT_BYTES, MAX_URL_BYTES, MAX_URL_HEADERS};

/// A message about a file that an object store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectMessage {
    /// Server: the file that was offered goes to an object store.
    Place {
        /// Length of each part but the last, of which there are as many as the file needs; 0 if it
        /// goes as a whole.
        part_bytes: u64,
        /// Numbers of the parts that are there, from 1 on.
        stored: Vec<u64>,
    },
    /// Device: it wants a URL, to send a part to or to read from.
    AskUrl {
        /// Number of the part; 0 for the file as a whole, and when it reads.
        part: u64,
        /// SHA-256 of what is about to be sent; of the file when it reads.
        sha256: [u8; 32],
    },
    /// Server: this is it.
    Url(SignedUrl),
    /// Device: all of the file that was offered is at the store, as far as it knows.
    Sent,
    /// Server: the file that was asked for is at an object store.
    FoundAt {
        /// Its length in bytes.
        size: u64,
        /// Where to read it.
        url: SignedUrl,
    },
    /// Device: what the store gave is not the file, or it has none.
    NotIt,
}

/// What a device may ask of an object store, for a while. Whoever has it may use it, so it is in no
/// log.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    /// The URL in full, signature included.
    pub url: String,
    /// Headers that must be sent exactly so: name and value.
    pub headers: Vec<(String, String)>,
    /// When it stops working, milliseconds since 1970 UTC.
    pub expires_ms: u64,
}

impl core::fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let url = self.url.split('?').next().unwrap_or_default();
        write!(f, "{url}?.. until {}", self.expires_ms)
    }
}

mod tag {
    pub(super) const PLACE: u64 = 10;
    pub(super) const ASK_URL: u64 = 11;
    pub(super) const URL: u64 = 12;
    pub(super) const SENT: u64 = 14;
    pub(super) const FOUND_AT: u64 = 15;
    pub(super) const NOT_IT: u64 = 16;
}

impl ObjectMessage {
    /// Appends tag, number of the transfer, and the rest.
    pub(super) fn encode(&self, transfer: u64, out: &mut Encoder) {
        let begin = |out: &mut Encoder, tag| {
            out.u64(tag);
            out.u64(transfer);
        };
        match self {
            ObjectMessage::Place { part_bytes, stored } => {
                begin(out, tag::PLACE);
                out.u64(*part_bytes);
                out.len_of(stored.len());
                stored.iter().for_each(|part| out.u64(*part));
            }
            ObjectMessage::AskUrl { part, sha256 } => {
                begin(out, tag::ASK_URL);
                out.u64(*part);
                out.raw(sha256);
            }
            ObjectMessage::Url(url) => {
                begin(out, tag::URL);
                url.encode(out);
            }
            ObjectMessage::Sent => begin(out, tag::SENT),
            ObjectMessage::FoundAt { size, url } => {
                begin(out, tag::FOUND_AT);
                out.u64(*size);
                url.encode(out);
            }
            ObjectMessage::NotIt => begin(out, tag::NOT_IT),
        }
    }

    /// The transfer and the message behind a tag; `None` if the tag is none of these.
    pub(super) fn decode(
        tag: u64,
        from: &mut Decoder<'_>,
    ) -> Result<Option<(u64, Self)>, DecodeError> {
        if !(tag::PLACE..=tag::URL).contains(&tag) && !(tag::SENT..=tag::NOT_IT).contains(&tag) {
            return Ok(None);
        }
        let transfer = from.u64()?;
        let message = match tag {
            tag::PLACE => {
                ObjectMessage::Place { part_bytes: from.u64()?, stored: part_numbers(from)? }
            }
            tag::ASK_URL => ObjectMessage::AskUrl { part: from.u64()?, sha256: from.array()? },
            tag::URL => ObjectMessage::Url(SignedUrl::decode(from)?),
            tag::SENT => ObjectMessage::Sent,
            tag::FOUND_AT => {
                ObjectMessage::FoundAt { size: from.u64()?, url: SignedUrl::decode(from)? }
            }
            _ => ObjectMessage::NotIt,
        };
        Ok(Some((transfer, message)))
    }
}

fn part_numbers(from: &mut Decoder<'_>) -> Result<Vec<u64>, DecodeError> {
    let len = from.len("parts", MAX_FILE_PARTS)?;
    let mut numbers = Vec::new();
    for _ in 0..len {
        numbers.push(from.u64()?);
    }
    Ok(numbers)
}

impl Encode for SignedUrl {
    fn encode(&self, out: &mut Encoder) {
        out.str(&self.url);
        out.len_of(self.headers.len());
        for (name, value) in &self.headers {
            out.str(name);
            out.str(value);
        }
        out.u64(self.expires_ms);
    }
}

impl Decode for SignedUrl {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let url = from.str("URL", MAX_URL_BYTES)?.into();
        let len = from.len("headers", MAX_URL_HEADERS)?;
        let mut headers = Vec::new();
        for _ in 0..len {
            let name = from.str("name of a header", MAX_TEXT_BYTES)?.into();
            headers.push((name, from.str("header", MAX_TEXT_BYTES)?.into()));
        }
        Ok(Self { url, headers, expires_ms: from.u64()? })
    }
}
