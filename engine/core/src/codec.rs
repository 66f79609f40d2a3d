//! The frozen byte layout of everything that is stored or sent (`docs/format.md`).
//!
//! The layout is that of bincode 2 "standard": little-endian variable-length integers (one byte up
//! to 250, then a marker 251, 252 or 253 and 2, 4 or 8 bytes), zigzag for signed ones, a length
//! before text, bytes and lists, a tag before a choice. Integers are written by `wincode`, which
//! keeps exactly these bytes; this module adds what untrusted input needs and wincode does not
//! check: an integer must use its shortest form, no byte may follow the last field, and every
//! length is compared with a limit before memory is asked for.

use alloc::string::String;
use alloc::vec::Vec;

use wincode::int_encoding::{IntEncoding, LittleEndian, VarInt};

/// Bytes that do not decode. `offset` counts from the start of the decoded bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("bytes end at {offset} where {wanted} more are needed")]
    Short {
        /// Where reading stopped.
        offset: usize,
        /// How many bytes the field still needed.
        wanted: usize,
    },
    /// An integer is not in its shortest form.
    #[error("integer at {offset} is malformed or not in its shortest form")]
    Integer {
        /// Where the integer begins.
        offset: usize,
    },
    /// A length passes its limit.
    #[error("{what} at {offset} has length {len}, the limit is {limit}")]
    TooLong {
        /// What the length counts.
        what: &'static str,
        /// Where the length stands.
        offset: usize,
        /// The length found.
        len: u64,
        /// The limit.
        limit: usize,
    },
    /// A tag, flag or field has a value with no meaning.
    #[error("{what} at {offset} is not valid")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// Where it stands.
        offset: usize,
    },
    /// Bytes follow the last field.
    #[error("{extra} bytes follow the end at {offset}")]
    Trailing {
        /// Where the value ends.
        offset: usize,
        /// How many bytes follow.
        extra: usize,
    },
}

/// A type with a place in the frozen layout.
pub trait Encode {
    /// Appends the encoded form.
    fn encode(&self, out: &mut Encoder);
}

/// A type that can be read back from the frozen layout.
pub trait Decode: Sized {
    /// Reads one value.
    ///
    /// # Errors
    /// [`DecodeError`] with the offset of the first byte that makes no sense.
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError>;
}

/// Encodes one value into a fresh buffer.
#[must_use]
pub fn to_bytes<T: Encode + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Encoder::default();
    value.encode(&mut out);
    out.into_bytes()
}

/// Decodes one value that fills `bytes` exactly.
///
/// # Errors
/// [`DecodeError`], also if bytes remain.
pub fn from_bytes<T: Decode>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut from = Decoder::new(bytes);
    let value = T::decode(&mut from)?;
    from.finish()?;
    Ok(value)
}

/// How many bytes a length takes.
pub(crate) fn size_of_len(len: usize) -> usize {
    <VarInt as IntEncoding<LittleEndian>>::size_of_u64(len as u64)
}

/// Collects encoded fields.
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// With room for so many bytes before it grows.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Encoder { out: Vec::with_capacity(bytes) }
    }

    /// The bytes so far.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Number of bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True before the first field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// One byte as it is.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A variable-length unsigned integer; lengths, tags and seqs too.
    pub fn u64(&mut self, value: u64) {
        <VarInt as IntEncoding<LittleEndian>>::encode_u64(value, &mut self.out)
            .expect("invariant: writing to memory does not fail");
    }

    /// A variable-length signed integer (zigzag).
    pub fn i64(&mut self, value: i64) {
        <VarInt as IntEncoding<LittleEndian>>::encode_i64(value, &mut self.out)
            .expect("invariant: writing to memory does not fail");
    }

    /// A length or count.
    pub fn len_of(&mut self, len: usize) {
        self.u64(len as u64);
    }

    /// Eight bytes, little-endian.
    pub fn f64(&mut self, value: f64) {
        self.raw(&value.to_bits().to_le_bytes());
    }

    /// Bytes with no length before them.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A length, then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.len_of(bytes.len());
        self.raw(bytes);
    }

    /// A length, then UTF-8.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A count, then each item.
    pub fn list<T: Encode>(&mut self, items: &[T]) {
        self.len_of(items.len());
        items.iter().for_each(|item| item.encode(self));
    }

    /// 0, or 1 and the value.
    pub fn option<T: Encode>(&mut self, value: Option<&T>) {
        self.bool(value.is_some());
        if let Some(value) = value {
            value.encode(self);
        }
    }
}

/// Reads fields from borrowed bytes.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Decoder<'a> {
    /// A reader at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, total: bytes.len() }
    }

    /// How many bytes were read.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.total - self.rest.len()
    }

    /// The bytes not yet read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Succeeds only at the end.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { offset: self.offset(), extra }),
        }
    }

    /// An error at the current place.
    #[must_use]
    pub fn invalid(&self, what: &'static str) -> DecodeError {
        DecodeError::Invalid { what, offset: self.offset() }
    }

    /// `len` bytes as they are.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            let wanted = len - self.rest.len();
            return Err(DecodeError::Short { offset: self.offset(), wanted });
        };
        self.rest = rest;
        Ok(taken)
    }

    /// `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.raw(N)?;
        Ok(taken.try_into().expect("invariant: raw returns the length asked for"))
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for any other byte.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        let offset = self.offset();
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid { what: "flag", offset }),
        }
    }

    /// A variable-length unsigned integer in its shortest form.
    ///
    /// # Errors
    /// [`DecodeError::Integer`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let offset = self.offset();
        let mut rest = self.rest;
        let value = <VarInt as IntEncoding<LittleEndian>>::decode_u64(&mut rest)
            .map_err(|_| DecodeError::Integer { offset })?;
        let shortest = <VarInt as IntEncoding<LittleEndian>>::size_of_u64(value);
        if self.rest.len() - rest.len() != shortest {
            return Err(DecodeError::Integer { offset });
        }
        self.rest = rest;
        Ok(value)
    }

    /// A variable-length signed integer in its shortest form.
    ///
    /// # Errors
    /// [`DecodeError::Integer`].
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let zigzag = self.u64()?;
        let magnitude = i64::try_from(zigzag >> 1).expect("invariant: 63 bits fit");
        Ok(if zigzag & 1 == 0 { magnitude } else { !magnitude })
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(u64::from_le_bytes(self.array()?)))
    }

    /// A length or count of at most `limit`; `what` names it in the error.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`].
    pub fn len(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let offset = self.offset();
        let len = self.u64()?;
        match usize::try_from(len) {
            Ok(len) if len <= limit => Ok(len),
            _ => Err(DecodeError::TooLong { what, offset, len, limit }),
        }
    }

    /// A length of at most `limit`, then the bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] or [`DecodeError::Short`].
    pub fn bytes(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let len = self.len(what, limit)?;
        self.raw(len)
    }

    /// A length of at most `limit`, then UTF-8.
    ///
    /// # Errors
    /// As [`Decoder::bytes`], and [`DecodeError::Invalid`] if it is not UTF-8.
    pub fn str(&mut self, what: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        let offset = self.offset();
        let bytes = self.bytes(what, limit)?;
        core::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid { what, offset })
    }

    /// A count of at most `limit`, then each item. Memory grows with the items that are really
    /// there, not with the count.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], or the first error of an item.
    pub fn list<T: Decode>(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<Vec<T>, DecodeError> {
        let len = self.len(what, limit)?;
        // Every item takes at least one byte, so a count beyond the rest cannot be honest.
        let mut items = Vec::with_capacity(len.min(self.rest.len()).min(1024));
        for _ in 0..len {
            items.push(T::decode(self)?);
        }
        Ok(items)
    }

    /// 0, or 1 and the value.
    ///
    /// # Errors
    /// Those of [`Decoder::bool`] and of the value.
    pub fn option<T: Decode>(&mut self) -> Result<Option<T>, DecodeError> {
        if self.bool()? { T::decode(self).map(Some) } else { Ok(None) }
    }
}

impl Encode for u64 {
    fn encode(&self, out: &mut Encoder) {
        out.u64(*self);
    }
}

impl Decode for u64 {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.u64()
    }
}

impl Encode for String {
    fn encode(&self, out: &mut Encoder) {
        out.str(self);
    }
}
