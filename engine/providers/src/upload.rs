//! What is uploaded, in which parts, and how a download names it.

use crate::capability::{Capabilities, Capability};
use crate::key::ObjectKey;
use crate::limits::{
    MAX_FILE_BYTES, MAX_FILE_NAME_BYTES, MAX_MIME_BYTES, MAX_PARTS, MAX_SINGLE_BYTES,
    MAX_TOKEN_BYTES, PART_BYTES,
};

/// A file that cannot be uploaded, or a part that it does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// No store takes it.
    #[error("{key} has {size_bytes} bytes, the limit is {MAX_FILE_BYTES}")]
    TooLarge {
        /// Its key.
        key: ObjectKey,
        /// Its size.
        size_bytes: u64,
    },
    /// The MIME type cannot stand in a header.
    #[error("{mime:?} is no MIME type: 1 to {MAX_MIME_BYTES} visible characters with a slash")]
    Mime {
        /// Its first characters.
        mime: String,
    },
    /// Parts are numbered from 1 on, and the file has fewer.
    #[error("{key} has {parts} parts, there is no part {number}")]
    NoPart {
        /// Its key.
        key: ObjectKey,
        /// The part that was asked for.
        number: u32,
        /// How many it has.
        parts: u32,
    },
    /// The id of an upload in parts is empty or too long.
    #[error("an upload id of {len} bytes, allowed are 1 to {MAX_TOKEN_BYTES}")]
    Id {
        /// Its length.
        len: usize,
    },
}

/// A file on its way to a store. Key, size and type are what the signature binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    key: ObjectKey,
    size_bytes: u64,
    mime: String,
}

impl Upload {
    /// A file of this size and type for this key.
    ///
    /// # Errors
    /// [`UploadError::TooLarge`], [`UploadError::Mime`].
    pub fn new(key: ObjectKey, size_bytes: u64, mime: &str) -> Result<Self, UploadError> {
        if size_bytes > MAX_FILE_BYTES {
            return Err(UploadError::TooLarge { key, size_bytes });
        }
        let visible = mime.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        let framed = mime.trim() == mime && !mime.contains("  ");
        let fits = (1..=MAX_MIME_BYTES).contains(&mime.len());
        if !(visible && framed && fits && mime.contains('/')) {
            return Err(UploadError::Mime { mime: mime.chars().take(80).collect() });
        }
        Ok(Self { key, size_bytes, mime: mime.to_owned() })
    }

    /// Where it goes.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Its MIME type.
    #[must_use]
    pub fn mime(&self) -> &str {
        &self.mime
    }

    /// True if it must go up in parts at a store that promises this.
    #[must_use]
    pub fn goes_in_parts(&self, promised: Capabilities) -> bool {
        self.size_bytes > MAX_SINGLE_BYTES && promised.has(Capability::Multipart)
    }

    /// Size of each part but the last. It follows from the size of the file alone, so that an
    /// upload that was cut has the same parts when it goes on.
    #[must_use]
    pub fn part_bytes(&self) -> u64 {
        let mib = 1024 * 1024;
        let least = self.size_bytes.div_ceil(u64::from(MAX_PARTS));
        PART_BYTES.max(least.div_ceil(mib) * mib)
    }

    /// How many parts it has: one at least.
    #[must_use]
    pub fn parts(&self) -> u32 {
        let parts = self.size_bytes.div_ceil(self.part_bytes()).max(1);
        u32::try_from(parts).expect("invariant: a part is at least a ten-thousandth of the file")
    }

    /// Where part `number` lies in the file: its first byte and its length.
    ///
    /// # Errors
    /// [`UploadError::NoPart`].
    pub fn part(&self, number: u32) -> Result<(u64, u64), UploadError> {
        let parts = self.parts();
        if number == 0 || number > parts {
            return Err(UploadError::NoPart { key: self.key.clone(), number, parts });
        }
        let start = u64::from(number - 1) * self.part_bytes();
        Ok((start, (self.size_bytes - start).min(self.part_bytes())))
    }
}

/// What a store calls an upload in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipartId(String);

impl MultipartId {
    /// An id as a store gave it.
    ///
    /// # Errors
    /// [`UploadError::Id`].
    pub fn new(text: &str) -> Result<Self, UploadError> {
        if text.is_empty() || text.len() > MAX_TOKEN_BYTES {
            return Err(UploadError::Id { len: text.len() });
        }
        Ok(Self(text.to_owned()))
    }

    /// The id itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a browser treats a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disposition {
    /// Saved. What a member uploaded is never shown as a page unless somebody asks for that.
    #[default]
    Attachment,
    /// Shown.
    Inline,
}

/// How a download comes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Download {
    /// Saved or shown.
    pub disposition: Disposition,
    /// What it is called when it is saved.
    pub file_name: Option<String>,
}

impl Download {
    /// The value of `content-disposition`: plain characters for old clients, and the name itself in
    /// UTF-8 with everything but letters, digits and `-._~` escaped, so that no name can end the
    /// value.
    #[must_use]
    pub fn header(&self) -> String {
        let kind = match self.disposition {
            Disposition::Attachment => "attachment",
            Disposition::Inline => "inline",
        };
        let Some(name) = self.file_name.as_deref().map(cut).filter(|name| !name.is_empty()) else {
            return kind.to_owned();
        };
        let keep = |c: char| c.is_ascii_alphanumeric() || "-._ ".contains(c);
        let plain: String = name.chars().map(|c| if keep(c) { c } else { '_' }).collect();
        format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{}", escape(name))
    }
}

/// As much of a name as fits, whole characters only.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(MAX_FILE_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Every byte but the unreserved ones of RFC 3986 as `%XX`: what signatures are computed over.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use lastword_core::hash::BlobHash;
    use lastword_core::id::WorkspaceName;

    use super::{Disposition, Download, Upload, UploadError};
    use crate::capability::{Capabilities, Capability};
    use crate::key::ObjectKey;
    use crate::limits::{MAX_FILE_BYTES, MAX_PARTS, MAX_SINGLE_BYTES, PART_BYTES};

    fn upload(size_bytes: u64, mime: &str) -> Result<Upload, UploadError> {
        let workspace = WorkspaceName::new("main").expect("a name");
        let key = ObjectKey::new(&workspace, BlobHash::Sha256([1; 32])).expect("a key");
        Upload::new(key, size_bytes, mime)
    }

    #[test]
    fn r3_5_parts_cover_the_file_and_follow_from_its_size_alone() {
        for size in [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, MAX_FILE_BYTES] {
            let upload = upload(size, "a/b").expect("an upload");
            let last = upload.parts();
            assert!((1..=MAX_PARTS).contains(&last), "{size}: {last} parts");
            let (start, len) = upload.part(last).expect("the last part");
            assert_eq!(start + len, size);
            assert!(size == 0 || len > 0);
            assert!(upload.part(0).is_err() && upload.part(last + 1).is_err());
        }
        let parts =
            |size, promised| upload(size, "a/b").expect("an upload").goes_in_parts(promised);
        assert!(!parts(MAX_SINGLE_BYTES, Capabilities::all()));
        assert!(parts(MAX_SINGLE_BYTES + 1, Capabilities::all()));
        assert!(!parts(MAX_FILE_BYTES, Capabilities::all().without(Capability::Multipart)));
        assert!(matches!(upload(MAX_FILE_BYTES + 1, "a/b"), Err(UploadError::TooLarge { .. })));
    }

    #[test]
    fn a_type_that_cannot_stand_in_a_header_is_refused() {
        assert!(upload(1, "text/plain; charset=utf-8").is_ok());
        for mime in ["", "text", "a/b\r\nx: y", " a/b", "a/b ", "a/  b", "ä/b", &"a/".repeat(200)]
        {
            assert!(matches!(upload(1, mime), Err(UploadError::Mime { .. })), "{mime:?}");
        }
    }

    #[test]
    fn r9_1_no_file_name_can_end_the_header() {
        let named = |name: &str| {
            let download = Download { file_name: Some(name.to_owned()), ..Download::default() };
            download.header()
        };
        assert_eq!(Download::default().header(), "attachment");
        let evil = named("a\"; x=1\r\nset-cookie: b\u{fc}.html");
        let plain = "a__ x_1__set-cookie_ b_.html";
        let escaped = "a%22%3B%20x%3D1%0D%0Aset-cookie%3A%20b%C3%BC.html";
        let expected = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{escaped}");
        assert_eq!(evil, expected);
        assert!(named(&"\u{fc}".repeat(300)).len() < 1200);
        let inline = Download { disposition: Disposition::Inline, file_name: Some(String::new()) };
        assert_eq!(inline.header(), "inline");
    }
}
