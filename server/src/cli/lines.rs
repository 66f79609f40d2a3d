//! Lines of an import file: reading them with a bounded buffer, and what each says.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use lastword::Tx;
use lastword::core::id::{Key, TableName};
use lastword::core::json::{self, JsonError};
use lastword::core::limits::{MAX_BATCH_BYTES, MAX_FIELD_NAME_BYTES, MAX_FIELDS, MAX_RECORD_BYTES};
use lastword::core::value::{Field, Record};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::archive::Archive;
use super::failure::Failure;

/// Longest record as JSON text in bytes: every byte of a record may be escaped.
pub(super) const MAX_TEXT_BYTES: usize = 8 * MAX_RECORD_BYTES;
/// A batch is closed before its ops could pass this size.
pub(super) const BATCH_BYTES: usize = MAX_BATCH_BYTES - 64 * 1024;
/// Longest line in bytes: a record as text, a key and the rest of the line.
const MAX_LINE_BYTES: usize = MAX_TEXT_BYTES + 64 * 1024;

/// A file that is read more than once; stdin is copied to a temporary file first.
pub(super) struct Input {
    pub(super) name: String,
    file: File,
    archive: Option<Archive>,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| Failure::failed(format!("{name}: {error}"));
        if path == Path::new("-") {
            let mut file = tempfile::tempfile().map_err(failed)?;
            std::io::copy(&mut std::io::stdin().lock(), &mut file).map_err(failed)?;
            return Self::of("stdin".into(), file);
        }
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(Failure::failed(format!("{name} is a directory, not a file")));
        }
        Self::of(name, file)
    }

    fn of(name: String, mut file: File) -> Result<Self, Failure> {
        let archive = Archive::open(&mut file, &name)?;
        Ok(Self { name, file, archive })
    }

    /// The archive, if it is one, and where it is.
    pub(super) fn archive(&self) -> Option<(&File, &Archive)> {
        self.archive.as_ref().map(|archive| (&self.file, archive))
    }

    /// Calls `visit` for every line that is not blank, with its number from 1.
    pub(super) fn visit(
        &mut self,
        visit: &mut dyn FnMut(u64, Result<Line, String>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", self.name));
        let range = self.archive.as_ref().map_or(0..u64::MAX, |archive| archive.records.clone());
        self.file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
        let len = range.end.saturating_sub(range.start);
        let mut reader = BufReader::with_capacity(256 * 1024, (&self.file).take(len));
        let (mut bytes, mut number) = (Vec::new(), 0);
        loop {
            bytes.clear();
            let mut limited = reader.by_ref().take(MAX_LINE_BYTES as u64 + 1);
            if limited.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
                return Ok(());
            }
            number += 1;
            if bytes.len() > MAX_LINE_BYTES {
                reader.skip_until(b'\n').map_err(failed)?;
                visit(number, Err(format!("the line is over {MAX_LINE_BYTES} bytes")))?;
                continue;
            }
            match std::str::from_utf8(&bytes) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => visit(number, Line::parse(text.trim_end()))?,
                Err(error) => {
                    let column = error.valid_up_to() + 1;
                    visit(number, Err(format!("column {column}: not UTF-8")))?;
                }
            }
        }
    }
}

/// What one line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) table: TableName,
    pub(super) key: Key,
    pub(super) edit: Edit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    Put(Record),
    Patch { set: Vec<Field>, remove: Vec<String> },
    Delete,
    Undelete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text<'a> {
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    set: Option<&'a RawValue>,
    #[serde(default)]
    remove: Option<Vec<String>>,
    #[serde(default)]
    deleted: bool,
}

/// Whether a patch can be made of these fields.
pub(super) fn check_patch(set: &Record, remove: &[String]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for name in remove {
        if name.len() > MAX_FIELD_NAME_BYTES {
            let start: String = name.chars().take(40).collect();
            return Err(format!(
                "field name of {} bytes, the limit is {MAX_FIELD_NAME_BYTES} (it begins {start:?})",
                name.len()
            ));
        }
        if !names.insert(name) {
            return Err(format!("field {name:?} is removed twice"));
        }
        if set.field(name).is_some() {
            return Err(format!("field {name:?} is both set and removed"));
        }
    }
    match remove.len() {
        len if len > MAX_FIELDS => {
            Err(format!("{len} fields to remove, the limit is {MAX_FIELDS}"))
        }
        _ => Ok(()),
    }
}

/// What to do about text that begins as no record does.
pub(super) fn odd_start(text: &str) -> Option<&'static str> {
    match text.chars().next() {
        Some('\u{feff}') => Some(
            "column 1: it begins with a byte-order mark (EF BB BF): save it as UTF-8 without one",
        ),
        Some('[') => Some(
            "column 1: a JSON array, where one object is needed: write one record a line \
             (`jq -c '.[]'` turns an array into lines)",
        ),
        _ => None,
    }
}

impl Line {
    fn parse(line: &str) -> Result<Self, String> {
        if let Some(reason) = odd_start(line) {
            return Err(reason.into());
        }
        let text: Text<'_> = serde_json::from_str(line).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            format!("column {}: {reason}", error.column())
        })?;
        let table = TableName::new(&text.table).map_err(|error| error.to_string())?;
        if table.is_reserved() {
            return Err(format!("table {table} belongs to Lastword and is read-only"));
        }
        let key = Key::new(&text.key).map_err(|error| error.to_string())?;
        let record = |raw: &RawValue| {
            let offset = (raw.get().as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
            json::parse_record(raw.get()).map_err(|error| match error {
                JsonError::Text { column, path, reason, .. } => {
                    let field =
                        if path.is_empty() { String::new() } else { format!(", field {path}") };
                    format!("column {}{field}: {reason}", column + offset)
                }
                other => other.to_string(),
            })
        };
        let op = text.op.as_deref().unwrap_or(if text.deleted { "delete" } else { "put" });
        let edit = match (op, text.value, text.set, text.remove) {
            ("put", Some(value), None, None) => Edit::Put(record(value)?),
            ("patch", None, set, remove) if set.is_some() || remove.is_some() => {
                let set = set.map(record).transpose()?.unwrap_or_default();
                let remove = remove.unwrap_or_default();
                check_patch(&set, &remove)?;
                Edit::Patch { set: set.fields().to_vec(), remove }
            }
            ("delete", _, None, None) => Edit::Delete,
            ("undelete", None, None, None) => Edit::Undelete,
            ("put", ..) => return Err("a put needs \"value\" and nothing else".into()),
            ("patch", ..) => return Err("a patch needs \"set\" or \"remove\", no \"value\"".into()),
            ("delete" | "undelete", ..) => return Err(format!("{op} takes no fields")),
            _ => return Err(format!("op {op:?} is unknown: use put, patch, delete or undelete")),
        };
        let line = Self { table, key, edit };
        match line.size_bytes() {
            size if size > BATCH_BYTES => {
                Err(format!("the line is {size} bytes encoded, the limit is {BATCH_BYTES}"))
            }
            _ => Ok(line),
        }
    }

    /// Its share of a batch in encoded bytes, at most.
    pub(super) fn size_bytes(&self) -> usize {
        const ENVELOPE_BYTES: usize = 64;
        let names = self.table.as_str().len() + self.key.as_str().len() + ENVELOPE_BYTES;
        names
            + match &self.edit {
                Edit::Put(record) => record.size_bytes(),
                Edit::Patch { set, remove } => {
                    let set: usize = set.iter().map(|f| f.name.len() + f.value.len() + 8).sum();
                    set + remove.iter().map(|name| name.len() + 4).sum::<usize>()
                }
                Edit::Delete | Edit::Undelete => 0,
            }
    }

    /// True if the stored record, live or not, is already what the line asks for.
    pub(super) fn is_done(&self, live: Option<&Record>) -> bool {
        match (&self.edit, live) {
            (Edit::Put(record), Some(live)) => live == record,
            (Edit::Patch { set, remove }, Some(live)) => {
                set.iter().all(|field| live.field(&field.name) == Some(field))
                    && remove.iter().all(|name| live.field(name).is_none())
            }
            (Edit::Undelete, live) => live.is_some(),
            (Edit::Delete, live) => live.is_none(),
            (_, None) => false,
        }
    }

    pub(super) fn write(&self, tx: &mut Tx) -> lastword::Result<()> {
        let (table, key) = (&self.table, &self.key);
        match &self.edit {
            Edit::Put(record) => tx.put_record(table, key, record.clone()),
            Edit::Patch { set, remove } => tx.patch_record(table, key, set.clone(), remove.clone()),
            Edit::Delete => tx.delete_record(table, key),
            Edit::Undelete => tx.undelete_record(table, key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        Line::parse(line).expect_err(line)
    }

    /// A user looks for the fault where the message points: column and path are those of the line.
    #[test]
    fn errors_point_into_the_line() {
        let at =
            error(r#"{"table":"notes","key":"n1","value":{"a":{"b":[1,18446744073709551615]}}}"#);
        assert!(at.starts_with("column 50"), "{at}");
        let at = error(r#"{"table":"notes","key":"n1","value":{"a":{"x":1,"x":2}}}"#);
        assert!(at.contains("field a.x") && at.contains("twice"), "{at}");
        assert!(error(r#"{"table":"notes","key":"n1","value":{}"#).starts_with("column 38"));
        assert!(error(r#"{"table":"notes","key":"n1","value":[]}"#).contains("object"));
        assert!(error(r#"{"table":"no tes","key":"n1","value":{}}"#).contains("no tes"));
        assert!(error(r#"{"table":"notes","key":"","value":{}}"#).contains("empty"));
        assert!(error(r#"{"table":"_conflicts","key":"x","value":{}}"#).contains("read-only"));
        assert!(error(r#"{"table":"notes","key":"n1","valu":{}}"#).contains("valu"));
        assert!(error(r#"{"table":"notes","key":"n1","op":"upsert"}"#).contains("upsert"));
        assert!(
            error(r#"{"table":"notes","key":"n1","op":"delete","set":{}}"#).contains("takes no")
        );
    }

    /// I6. A patch that removed a field twice, or one with an endless name, passed the check and
    /// stopped the import half way.
    #[test]
    fn a_patch_that_cannot_be_written_is_a_bad_line() {
        let patch = |remove: &str| {
            error(&format!(r#"{{"table":"t","key":"k","op":"patch","remove":[{remove}]}}"#))
        };
        assert!(patch(r#""y","y""#).contains("\"y\" is removed twice"));
        assert!(patch(&format!("\"{}\"", "x".repeat(1025))).contains("1025 bytes, the limit"));
        let many: Vec<String> = (0..4097).map(|number| format!("\"f{number}\"")).collect();
        assert!(patch(&many.join(",")).contains("4097 fields to remove"));
        let many: Vec<String> = (0..4000).map(|number| format!("\"{number:0300}\"")).collect();
        assert!(patch(&many.join(",")).contains("bytes encoded, the limit is"));
    }

    #[test]
    fn every_op_has_its_line() {
        let edit = |text: &str| Line::parse(text).expect(text).edit;
        let put = edit(r#"{"table":"t","key":"k","value":{"a":1}}"#);
        assert_eq!(put, edit(r#"{"op":"put","key":"k","table":"t","value":{"a":1}}"#));
        let patch = edit(r#"{"table":"t","key":"k","op":"patch","set":{"a":1},"remove":["b"]}"#);
        assert!(matches!(patch, Edit::Patch { set, remove } if set.len() == 1 && remove == ["b"]));
        assert_eq!(edit(r#"{"table":"t","key":"k","op":"delete"}"#), Edit::Delete);
        assert_eq!(edit(r#"{"table":"t","key":"k","op":"undelete"}"#), Edit::Undelete);
        // What `export --deleted` prints of a deleted record.
        assert_eq!(edit(r#"{"table":"t","key":"k","value":{},"deleted":true}"#), Edit::Delete);
    }
}
