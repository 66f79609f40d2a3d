//! Attaching: a write names a stored file, and what is shown of it before it is on a device.

use lastword_core::schema::FILES_TABLE;
use lastword_core::value::{Record, Value};

use crate::error::{Error, Result};
use crate::file_row::{is_uploaded, key_of, table};
use crate::files::THUMBNAIL;
use crate::staging::Staged;
use crate::transfers::{self, Direction};
use crate::write::Tx;

/// Most bytes of a placeholder.
pub const MAX_PLACEHOLDER_BYTES: usize = 2048;

/// What is shown of a file before it is here.
#[derive(Debug, Clone, Default)]
pub struct Preview {
    /// A few bytes that the app can draw, such as a blurred image, kept in the row itself: at most
    /// [`MAX_PLACEHOLDER_BYTES`].
    pub placeholder: Vec<u8>,
    /// A small image, a file of its own, which is carried before others.
    pub thumbnail: Option<Staged>,
}

impl Tx {
    /// Names a stored file in this write: its row in `file_meta`, unless there is a live one. The
    /// write is refused if the file is no longer here by then.
    ///
    /// # Errors
    /// As [`Tx::put_record`].
    pub fn attach(&mut self, staged: &Staged, mime_type: &str) -> Result<()> {
        self.attach_with(staged, mime_type, &Preview::default())
    }

    /// As [`Tx::attach`], with what is shown of the file before it is on a device: its row gets
    /// fields `placeholder` and `thumbnail`, the hash of a file with a row of its own.
    ///
    /// # Errors
    /// [`Error::Record`] if the placeholder is too long; as [`Tx::put_record`].
    pub fn attach_with(
        &mut self,
        staged: &Staged,
        mime_type: &str,
        preview: &Preview,
    ) -> Result<()> {
        let (len, limit) = (preview.placeholder.len(), MAX_PLACEHOLDER_BYTES);
        if len > limit {
            let (table, key) = (FILES_TABLE.to_owned(), staged.hash().to_string());
            let reason = format!("the placeholder has {len} bytes, the limit is {limit}");
            return Err(Error::Record { table, key, reason });
        }
        let kind = match mime_type {
            "application/pdf" => "pdf",
            image if image.starts_with("image/") => "image",
            _ => "file",
        };
        let mut more = Vec::new();
        if len > 0 {
            let placeholder = Value::Bytes(preview.placeholder.clone());
            more.push(("placeholder".to_owned(), placeholder));
        }
        // A picture that is as small as its thumbnail needs none.
        let thumbnail = preview.thumbnail.as_ref().filter(|small| small.hash() != staged.hash());
        if let Some(thumbnail) = thumbnail {
            self.attach_as(thumbnail, (THUMBNAIL, "image/*", 0), Vec::new())?;
            more.push(("thumbnail".to_owned(), Value::Text(thumbnail.hash().to_string())));
        }
        self.attach_as(staged, (kind, mime_type, 1), more)
    }

    fn attach_as(
        &mut self,
        staged: &Staged,
        (kind, mime_type, rank): (&str, &str, u64),
        more: Vec<(String, Value)>,
    ) -> Result<()> {
        let hash = staged.hash();
        self.needs_file(staged.blob.sha256);
        let (table, key) = (table(), key_of(&hash));
        let known = self.get_record(&table, &key)?;
        if !known.as_ref().is_some_and(|record| is_uploaded(record, self.schema())) {
            let (size, staged_ms) = (staged.blob.size, staged.staged_ms);
            transfers::queue(self, Direction::Upload, &hash, (size, rank), staged_ms)?;
        }
        if known.is_some() {
            return Ok(());
        }
        let size = i64::try_from(staged.blob.size).unwrap_or(i64::MAX);
        let mut fields = vec![
            ("hash".into(), Value::Text(hash.to_string())),
            ("name".into(), Value::Text(staged.name.clone())),
            ("mime_type".into(), Value::Text(mime_type.to_owned())),
            ("kind".into(), Value::Text(kind.to_owned())),
            ("size_bytes".into(), Value::Int(size)),
        ];
        fields.extend(more);
        self.put_record(&table, &key, Record::new(&fields)?)
    }
}
