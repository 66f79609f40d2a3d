//! The tables that a server takes: `schema.toml`, or a preset.

use std::ops::Range;
use std::path::{Path, PathBuf};

use lastword::core::id::TableName;
use lastword::core::rules::Policy;
use lastword::core::schema::{Schema, SchemaError, TableSchema};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Largest schema file in bytes.
const MAX_SCHEMA_FILE_BYTES: u64 = 1024 * 1024;

/// A schema that comes with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// The tables of OR3 Chat.
    Or3,
}

/// Where the schema comes from.
#[derive(Debug, Clone, Default)]
pub enum SchemaSource {
    /// Nowhere: workspaces that have one keep it, others take any table.
    #[default]
    None,
    /// A file.
    File(PathBuf),
    /// One that comes with the server.
    Preset(Preset),
}

/// A schema file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaFileError {
    /// It cannot be read.
    #[error("cannot read schema file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// Which key, what is wrong with it, and what to write.
        reason: String,
    },
}

impl SchemaSource {
    /// The schema, if there is one.
    ///
    /// # Errors
    /// [`SchemaFileError`] names file, line and key.
    pub fn read(&self) -> Result<Option<Schema>, SchemaFileError> {
        match self {
            SchemaSource::None => Ok(None),
            SchemaSource::File(path) => read(path).map(Some),
            SchemaSource::Preset(preset) => Ok(Some(preset.schema())),
        }
    }
}

impl Preset {
    /// Its tables, as a schema file would say it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Preset::Or3 => include_str!("or3.toml"),
        }
    }

    fn schema(self) -> Schema {
        parse(self.text()).expect("invariant: a preset is a valid schema")
    }
}

fn read(path: &Path) -> Result<Schema, SchemaFileError> {
    let unreadable = |reason: String| SchemaFileError::Unreadable { path: path.into(), reason };
    let meta = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if meta.len() > MAX_SCHEMA_FILE_BYTES {
        let limit = MAX_SCHEMA_FILE_BYTES;
        return Err(unreadable(format!("{} bytes, the limit is {limit}", meta.len())));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    parse(&text).map_err(|Wrong { at, reason }| {
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        SchemaFileError::Line { path: path.into(), line, reason }
    })
}

/// What is wrong, and at which byte of the text.
#[derive(Debug)]
struct Wrong {
    at: usize,
    reason: String,
}

fn wrong<T>(span: Range<usize>, reason: String) -> Result<T, Wrong> {
    Err(Wrong { at: span.start, reason })
}

fn parse(text: &str) -> Result<Schema, Wrong> {
    let root = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        reason: error.message().to_owned(),
    })?;
    let (mut min_app_schema, mut tables, mut places) = (0, Vec::new(), Vec::new());
    for (key, value) in root.get_ref() {
        match &**key.get_ref() {
            "min_app_schema" => min_app_schema = number("min_app_schema", value)?,
            "tables" => {
                for (name, value) in of_tables(value)? {
                    let (name, table) = table(name, value)?;
                    places.push((name.clone(), value.span()));
                    tables.push((name, table));
                }
            }
            other => {
                let known = "write min_app_schema = 1, or [tables.NAME]";
                return wrong(key.span(), format!("{other} is not known here; {known}"));
            }
        }
    }
    Schema::new(min_app_schema, tables).map_err(|error| {
        let (SchemaError::Reserved { table: named }
        | SchemaError::Twice { table: named }
        | SchemaError::Table { table: named, .. }) = &error
        else {
            return Wrong { at: 0, reason: error.to_string() };
        };
        let place = places.iter().find(|(name, _)| name == named);
        Wrong { at: place.map_or(0, |(_, span)| span.start), reason: error.to_string() }
    })
}

fn of_tables<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Result<&'a DeTable<'i>, Wrong> {
    match value.get_ref() {
        DeValue::Table(tables) => Ok(tables),
        other => {
            let found = other.type_str();
            wrong(value.span(), format!("tables is {found}; write [tables.NAME] for each table"))
        }
    }
}

fn table(
    name: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<(TableName, TableSchema), Wrong> {
    let text = &**name.get_ref();
    let table = TableName::new(text)
        .map_err(|error| Wrong { at: name.span().start, reason: error.to_string() })?;
    let DeValue::Table(entries) = value.get_ref() else {
        let found = value.get_ref().type_str();
        let reason = format!("tables.{text} is {found}; write [tables.{text}] and key = \"id\"");
        return wrong(value.span(), reason);
    };
    let mut schema = TableSchema::new("");
    let mut has_key = false;
    for (key, value) in entries {
        let path = format!("tables.{text}.{}", key.get_ref());
        match &**key.get_ref() {
            "key" => {
                has_key = true;
                schema.key_field = string(&path, value, "\"id\"")?.to_owned();
            }
            "policy" => schema.policy = policy(&path, value)?,
            "local" => schema.local = flag(&path, value)?,
            "content_keyed" => schema.content_keyed = flag(&path, value)?,
            "blob_fields" => schema.blob_fields = fields(&path, value)?,
            "server_owned" => schema.server_owned = fields(&path, value)?,
            "private_by" => {
                schema.private_by = Some(string(&path, value, "\"user_id\"")?.to_owned());
            }
            _ => {
                let known =
                    "key, policy, local, content_keyed, blob_fields, server_owned or private_by";
                return wrong(key.span(), format!("{path} is not known; write {known}"));
            }
        }
    }
    if !has_key {
        let reason = format!(
            "tables.{text}.key is missing: name the field that holds a record's key, like \
             key = \"id\""
        );
        return wrong(name.span(), reason);
    }
    Ok((table, schema))
}

fn mistyped<T>(path: &str, value: &Spanned<DeValue<'_>>, write: &str) -> Result<T, Wrong> {
    let found = value.get_ref().type_str();
    wrong(value.span(), format!("{path} is {found}; write it like {write}"))
}

fn string<'a>(path: &str, value: &'a Spanned<DeValue<'_>>, write: &str) -> Result<&'a str, Wrong> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => mistyped(path, value, write),
    }
}

fn flag(path: &str, value: &Spanned<DeValue<'_>>) -> Result<bool, Wrong> {
    match value.get_ref() {
        DeValue::Boolean(flag) => Ok(*flag),
        _ => mistyped(path, value, "true or false"),
    }
}

fn number(path: &str, value: &Spanned<DeValue<'_>>) -> Result<u64, Wrong> {
    let parsed = match value.get_ref() {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => return mistyped(path, value, "3"),
    };
    parsed.map_or_else(|| wrong(value.span(), format!("{path} must be 0 or more")), Ok)
}

fn fields(path: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, Wrong> {
    let write = "[\"storage_id\"]";
    match value.get_ref() {
        DeValue::Array(items) => {
            items.iter().map(|item| string(path, item, write).map(str::to_owned)).collect()
        }
        _ => mistyped(path, value, write),
    }
}

fn policy(path: &str, value: &Spanned<DeValue<'_>>) -> Result<Policy, Wrong> {
    let all = [Policy::Arrival, Policy::ServerWins, Policy::Revision];
    let text = string(path, value, "\"arrival\"")?;
    all.into_iter().find(|policy| policy.as_str() == text).map_or_else(
        || {
            let known = "write \"arrival\", \"server_wins\" or \"revision\"";
            wrong(value.span(), format!("{path}: {text:?} is no policy; {known}"))
        },
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(table: &str) -> TableName {
        TableName::new(table).expect("a name")
    }

    /// Issue 4: a schema file says of each table everything that a schema knows.
    #[test]
    fn a_schema_file_says_everything() {
        let text = "min_app_schema = 3\n\
                    [tables.notes]\nkey = \"id\"\n\
                    [tables.files]\nkey = \"hash\"\npolicy = \"revision\"\ncontent_keyed = true\n\
                    server_owned = [\"storage_id\"]\nblob_fields = [\"hash\"]\n\
                    [tables.inbox]\nkey = \"id\"\nprivate_by = \"user\"\n\
                    [tables.drafts]\nkey = \"id\"\nlocal = true\n";
        let schema = parse(text).expect("valid");
        let files = TableSchema {
            policy: Policy::Revision,
            content_keyed: true,
            server_owned: vec!["storage_id".into()],
            blob_fields: vec!["hash".into()],
            ..TableSchema::new("hash")
        };
        let drafts = TableSchema { local: true, ..TableSchema::new("id") };
        let inbox = TableSchema { private_by: Some("user".into()), ..TableSchema::new("id") };
        let notes = TableSchema::new("id");
        let tables = [("notes", notes), ("files", files), ("inbox", inbox), ("drafts", drafts)];
        let tables = tables.map(|(table, schema)| (name(table), schema));
        assert_eq!(schema, Schema::new(3, tables).expect("valid"));
    }

    /// R1.8: an error names line and key and says what to write.
    #[test]
    fn an_error_names_line_and_key_and_what_to_write() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("schema.toml");
        for (text, line, says) in [
            ("[tables.notes]\nkey = \"id\"\npolicy = \"later\"\n", 3, "write \"arrival\", \"serv"),
            ("[tables.notes]\npolicy = \"arrival\"\n", 1, "tables.notes.key is missing"),
            ("[tables.notes]\nkey = 1\n", 2, "tables.notes.key is integer; write it like \"id\""),
            ("[tables.notes]\nkey = \"id\"\nlocal = 1\n", 3, "write it like true or false"),
            ("[tables.notes]\nkey = \"id\"\nowned = []\n", 3, "tables.notes.owned is not known"),
            ("[tables.n]\nkey = \"id\"\nserver_owned = [1]\n", 3, "write it like [\"storage_id\"]"),
            ("\n[tabels.notes]\nkey = \"id\"\n", 2, "tabels is not known here; write"),
            ("tables = 1\n", 1, "write [tables.NAME]"),
            ("[tables]\nnotes = 1\n", 2, "write [tables.notes] and key"),
            ("[tables.\"no tes\"]\nkey = \"id\"\n", 1, "is not valid: use"),
            ("[tables.kv]\nkey = \"id\"\n[tables._kv]\nkey = \"id\"\n", 3, "belong to Lastword"),
            ("[tables.kv]\nkey = \"id\"\nserver_owned = [\"id\"]\n", 1, "its key field"),
            ("min_app_schema = -1\n", 1, "min_app_schema must be 0 or more"),
            ("min_app_schema = 1\nmin_app_schema = 2\n", 2, "duplicate"),
            ("[tables.notes]\nkey =\n", 2, ""),
        ] {
            std::fs::write(&path, text).expect("written");
            let source = SchemaSource::File(path.clone());
            let error = source.read().expect_err(text).to_string();
            let place = format!("{}:{line}: ", path.display());
            assert!(error.starts_with(&place) && error.contains(says), "{text}: {error}");
        }
        let missing = SchemaSource::File(dir.path().join("none.toml"));
        assert!(matches!(missing.read(), Err(SchemaFileError::Unreadable { .. })));
    }

    /// The OR3 Chat document, sections 1.5 and 2: which tables sync, under which key, and what
    /// their servers own.
    #[test]
    fn the_preset_has_the_tables_of_or3_chat() {
        let schema = SchemaSource::Preset(Preset::Or3).read().expect("valid").expect("a schema");
        let tables: Vec<&str> = schema.tables().map(|(name, _)| name.as_str()).collect();
        let all = ["file_meta", "kv", "messages", "notifications", "posts", "projects", "threads"];
        assert_eq!(tables, all);
        for (table, rules) in schema.tables() {
            assert_eq!(rules.policy, Policy::Revision, "{table}");
            let key = if table.as_str() == "file_meta" { "hash" } else { "id" };
            assert_eq!((rules.key_field.as_str(), rules.local), (key, false), "{table}");
            let private_by = (table.as_str() == "notifications").then_some("user_id");
            assert_eq!(rules.private_by.as_deref(), private_by, "{table}");
        }
        let files = schema.table(&name("file_meta")).expect("a table");
        assert!(files.content_keyed);
        assert_eq!(files.server_owned, ["storage_id", "storage_provider_id"]);
    }
}
