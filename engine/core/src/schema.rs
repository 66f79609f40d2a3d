//! The schema: the tables of a workspace and what holds for each.
//!
//! The authority's schema is part of the workspace's state, at its place in the log, and travels to
//! every replica. What must hold for ever is refused when it changes: see [`Schema::replaced_by`].

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder, to_bytes};
use crate::id::TableName;
use crate::limits::{MAX_FIELD_NAME_BYTES, MAX_SCHEMA_BYTES, MAX_SCHEMA_FIELDS, MAX_SCHEMA_TABLES};
use crate::plant::{Plant, planted};
use crate::rules::{Policy, TableRules};

/// What a schema says about one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// The field that holds a record's key.
    pub key_field: String,
    /// How a stale op is treated.
    pub policy: Policy,
    /// True if its records never leave the device that writes them.
    pub local: bool,
    /// True if a key says what the record is, like a hash: then a second create is no conflict.
    pub content_keyed: bool,
    /// Fields that name blobs, ascending.
    pub blob_fields: Vec<String>,
    /// Fields that only the authority sets, ascending.
    pub server_owned: Vec<String>,
    /// The field that names the one user who sees a record and writes it; none if all members do.
    pub private_by: Option<String>,
}

impl TableSchema {
    /// A synced table of policy `arrival` with this key field.
    #[must_use]
    pub fn new(key_field: &str) -> Self {
        Self {
            key_field: key_field.into(),
            policy: Policy::Arrival,
            local: false,
            content_keyed: false,
            blob_fields: Vec::new(),
            server_owned: Vec::new(),
            private_by: None,
        }
    }
}

/// Name of the table that has a row for each file, its hash the key.
pub const FILES_TABLE: &str = "file_meta";
/// Fields of [`FILES_TABLE`] that say where the server keeps a file's bytes.
pub const STORAGE_FIELDS: [&str; 2] = ["storage_id", "storage_provider_id"];

/// The tables of a workspace. [`Schema::default`] has none, so it takes no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    min_app_schema: u64,
    tables: BTreeMap<TableName, Known>,
    /// What holds for [`FILES_TABLE`] where the schema does not name it.
    files: TableSchema,
}

impl Default for Schema {
    fn default() -> Self {
        Self::of(0, BTreeMap::new())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    table: TableSchema,
    /// It was removed: its name is not free, and what was written under it keeps its rules.
    retired: bool,
}

/// A schema that breaks a rule of form or a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The table belongs to the product.
    #[error("table {table}: names that begin with _ belong to Lastword; name it otherwise")]
    Reserved {
        /// The table.
        table: TableName,
    },
    /// The table is named twice.
    #[error("table {table} is named twice")]
    Twice {
        /// The table.
        table: TableName,
    },
    /// Something about one table.
    #[error("table {table}: {reason}")]
    Table {
        /// The table.
        table: TableName,
        /// What is wrong and what to write.
        reason: String,
    },
    /// Too many tables.
    #[error("{len} tables, the limit is {limit}; those that were removed count")]
    TooManyTables {
        /// Tables found.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many bytes.
    #[error("the schema is {size_bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Encoded size in bytes.
        size_bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A change that is never allowed.
    #[error("table {table}: {rule} ({before} before, {after} now); {advice}", advice = rule.advice())]
    Forbidden {
        /// The table.
        table: TableName,
        /// The rule that forbids it.
        rule: FixedRule,
        /// What it was.
        before: String,
        /// What it would be.
        after: String,
    },
}

/// What no change of a schema may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FixedRule {
    /// The key field of a table stays.
    KeyField,
    /// Local tables stay local, synced ones synced.
    Locality,
    /// A table is under policy `revision` for ever or never.
    Revision,
    /// A table is private to the users that one field names for ever or never.
    Privacy,
    /// A table that was removed comes back only as it was.
    Retired,
}

impl FixedRule {
    fn advice(self) -> &'static str {
        match self {
            FixedRule::Retired => {
                "bring the table back as it was, or give the new one another name"
            }
            _ => "keep it, or make a table of another name",
        }
    }
}

impl core::fmt::Display for FixedRule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            FixedRule::KeyField => "its key field never changes",
            FixedRule::Locality => "it stays local or synced for ever",
            FixedRule::Revision => "it is under policy revision for ever or never",
            FixedRule::Privacy => "what says whose a record is never changes",
            FixedRule::Retired => "the name is that of a removed table of other rules",
        })
    }
}

impl Schema {
    fn of(min_app_schema: u64, tables: BTreeMap<TableName, Known>) -> Self {
        let mut files = TableSchema { content_keyed: true, ..TableSchema::new("hash") };
        files.server_owned = STORAGE_FIELDS.map(String::from).into();
        Self { min_app_schema, tables, files }
    }

    /// A schema of these tables. Lists of fields may come in any order.
    ///
    /// # Errors
    /// [`SchemaError`] names the table and the rule that it breaks.
    pub fn new(
        min_app_schema: u64,
        tables: impl IntoIterator<Item = (TableName, TableSchema)>,
    ) -> Result<Self, SchemaError> {
        let mut schema = Self::of(min_app_schema, BTreeMap::new());
        for (name, mut table) in tables {
            table.blob_fields.sort_unstable();
            table.server_owned.sort_unstable();
            check_table(&name, &table)?;
            match schema.tables.entry(name) {
                Entry::Vacant(free) => free.insert(Known { table, retired: false }),
                Entry::Occupied(taken) => {
                    return Err(SchemaError::Twice { table: taken.key().clone() });
                }
            };
        }
        schema.check_size()?;
        Ok(schema)
    }

    fn check_size(&self) -> Result<(), SchemaError> {
        let (len, limit) = (self.tables.len(), MAX_SCHEMA_TABLES);
        if len > limit {
            return Err(SchemaError::TooManyTables { len, limit });
        }
        let (size_bytes, limit) = (to_bytes(self).len(), MAX_SCHEMA_BYTES);
        if size_bytes > limit {
            return Err(SchemaError::TooLarge { size_bytes, limit });
        }
        Ok(())
    }

    /// The lowest app schema number whose batches are taken; 0 takes every app.
    #[must_use]
    pub fn min_app_schema(&self) -> u64 {
        self.min_app_schema
    }

    /// The tables that can be used, in order of their names.
    pub fn tables(&self) -> impl Iterator<Item = (&TableName, &TableSchema)> {
        self.tables.iter().filter(|(_, known)| !known.retired).map(|(name, k)| (name, &k.table))
    }

    /// A table that can be used.
    #[must_use]
    pub fn table(&self, name: &TableName) -> Option<&TableSchema> {
        self.tables.get(name).filter(|known| !known.retired).map(|known| &known.table)
    }

    /// True if the table was in the schema once and is not any more.
    #[must_use]
    pub fn is_retired(&self, name: &TableName) -> bool {
        self.tables.get(name).is_some_and(|known| known.retired)
    }

    /// True if the table never leaves the device.
    #[must_use]
    pub fn is_local(&self, name: &TableName) -> bool {
        self.tables.get(name).is_some_and(|known| known.table.local)
    }

    /// What decides about ops of a table. One that the schema does not know, and one of the
    /// product, is under policy `arrival`; a removed one keeps its rules. In [`FILES_TABLE`] the
    /// server owns [`STORAGE_FIELDS`] unless the schema says otherwise.
    #[must_use]
    pub fn rules_of(&self, name: &TableName) -> TableRules<'_> {
        let table = match self.tables.get(name) {
            Some(known) => &known.table,
            None if name.as_str() == FILES_TABLE => &self.files,
            None => return TableRules::default(),
        };
        TableRules {
            policy: table.policy,
            content_keyed: table.content_keyed,
            server_owned: &table.server_owned,
            private_by: table.private_by.as_deref(),
        }
    }

    /// What of a workspace the devices of a user hold: zeros for all of it, which everybody sees
    /// where no table is private; else a hash. A copy made under another cover lacks rows, or has
    /// rows that it must not have.
    #[must_use]
    pub fn cover(&self, user: &str) -> [u8; 16] {
        let mut out = Encoder::default();
        out.str(user);
        let mut is_whole = true;
        for (name, known) in &self.tables {
            if let Some(field) = &known.table.private_by {
                name.encode(&mut out);
                out.str(field);
                is_whole = false;
            }
        }
        if is_whole {
            return [0; 16];
        }
        let hash = blake3::hash(&out.into_bytes());
        *hash.as_bytes().first_chunk().expect("invariant: a hash has 32 bytes")
    }

    /// The schema that stands when `new` takes the place of this one: `new`, with the tables that
    /// it leaves out remembered as removed.
    ///
    /// # Errors
    /// [`SchemaError::Forbidden`] names table and rule; [`SchemaError::TooManyTables`] and
    /// [`SchemaError::TooLarge`] if there is no room to remember.
    pub fn replaced_by(&self, new: &Schema) -> Result<Schema, SchemaError> {
        let mut next = new.clone();
        for (name, old) in &self.tables {
            match next.tables.entry(name.clone()) {
                Entry::Occupied(kept) if !kept.get().retired => {
                    check_change(name, old, &kept.get().table)?;
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(left_out) => {
                    left_out.insert(Known { table: old.table.clone(), retired: true });
                }
            }
        }
        next.check_size()?;
        Ok(next)
    }
}

fn check_table(name: &TableName, table: &TableSchema) -> Result<(), SchemaError> {
    let wrong = |reason: String| Err(SchemaError::Table { table: name.clone(), reason });
    if name.is_reserved() {
        return Err(SchemaError::Reserved { table: name.clone() });
    }
    if !is_field_name(&table.key_field) {
        return wrong(alloc::format!(
            "the key field needs a name of 1 to {MAX_FIELD_NAME_BYTES} bytes"
        ));
    }
    for (what, fields) in
        [("blob_fields", &table.blob_fields), ("server_owned", &table.server_owned)]
    {
        if fields.len() > MAX_SCHEMA_FIELDS {
            let len = fields.len();
            return wrong(alloc::format!("{what} has {len} fields, at most {MAX_SCHEMA_FIELDS}"));
        }
        if let Some(field) = fields.iter().find(|field| !is_field_name(field)) {
            return wrong(alloc::format!(
                "{what}: field {field:?} needs a name of 1 to {MAX_FIELD_NAME_BYTES} bytes"
            ));
        }
        if let Some(pair) = fields.windows(2).find(|pair| pair.first() == pair.last()) {
            return wrong(alloc::format!("{what} names {:?} twice", pair.first()));
        }
    }
    if table.server_owned.contains(&table.key_field) {
        let key = &table.key_field;
        return wrong(alloc::format!("{key:?} is its key field, so the server cannot own it"));
    }
    if let Some(field) = &table.private_by {
        if !is_field_name(field) {
            return wrong(alloc::format!(
                "private_by: field {field:?} needs a name of 1 to {MAX_FIELD_NAME_BYTES} bytes"
            ));
        }
        if table.server_owned.contains(field) {
            return wrong(alloc::format!(
                "private_by: the writer names its user in {field:?}, so the server cannot own it"
            ));
        }
    }
    let decided = table.policy != Policy::Arrival || table.content_keyed;
    let named = !table.server_owned.is_empty() || table.private_by.is_some();
    if table.local && (decided || named) {
        return wrong(
            "no server decides about a local table: leave policy, content_keyed, server_owned and \
             private_by out"
                .into(),
        );
    }
    Ok(())
}

fn is_field_name(name: &str) -> bool {
    (1..=MAX_FIELD_NAME_BYTES).contains(&name.len())
}

fn check_change(name: &TableName, old: &Known, new: &TableSchema) -> Result<(), SchemaError> {
    let forbidden = |rule, before: &str, after: &str| {
        let (table, before, after) = (name.clone(), before.into(), after.into());
        Err(SchemaError::Forbidden { table, rule, before, after })
    };
    let where_to = |local| if local { "local" } else { "synced" };
    let before = &old.table;
    if before.key_field != new.key_field {
        return forbidden(FixedRule::KeyField, &before.key_field, &new.key_field);
    }
    if before.local != new.local && !planted(Plant::LocalityChanges) {
        return forbidden(FixedRule::Locality, where_to(before.local), where_to(new.local));
    }
    if (before.policy == Policy::Revision) != (new.policy == Policy::Revision) {
        return forbidden(FixedRule::Revision, before.policy.as_str(), new.policy.as_str());
    }
    if before.private_by != new.private_by {
        let by = |field: &Option<String>| match field {
            Some(field) => alloc::format!("private by {field:?}"),
            None => "not private".into(),
        };
        return forbidden(FixedRule::Privacy, &by(&before.private_by), &by(&new.private_by));
    }
    if old.retired && before != new {
        return forbidden(FixedRule::Retired, "removed", "other rules");
    }
    Ok(())
}

/// The layout that follows. Another one is another number, and is refused by older builds.
const LAYOUT: u64 = 1;

const LOCAL: u8 = 1;
const CONTENT_KEYED: u8 = 2;
const RETIRED: u8 = 4;
const PRIVATE: u8 = 8;

impl Encode for Schema {
    fn encode(&self, out: &mut Encoder) {
        out.u64(LAYOUT);
        out.u64(self.min_app_schema);
        out.len_of(self.tables.len());
        for (name, Known { table, retired }) in &self.tables {
            let flag = |on: bool, bit: u8| if on { bit } else { 0 };
            name.encode(out);
            out.u8(flag(table.local, LOCAL)
                | flag(table.content_keyed, CONTENT_KEYED)
                | flag(*retired, RETIRED)
                | flag(table.private_by.is_some(), PRIVATE));
            out.str(&table.key_field);
            table.policy.encode(out);
            out.list(&table.blob_fields);
            out.list(&table.server_owned);
            if let Some(field) = &table.private_by {
                out.str(field);
            }
        }
    }
}

impl Decode for Schema {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let offset = from.offset();
        if from.u64()? != LAYOUT {
            return Err(DecodeError::Invalid { what: "schema layout", offset });
        }
        let min_app_schema = from.u64()?;
        let len = from.len("tables", MAX_SCHEMA_TABLES)?;
        let mut tables = BTreeMap::new();
        for _ in 0..len {
            let offset = from.offset();
            let (name, known) = decode_table(from)?;
            let rises = tables.last_key_value().is_none_or(|(last, _)| *last < name);
            // A second form of one schema would be another schema to whoever compares bytes.
            if !rises || check_table(&name, &known.table).is_err() {
                return Err(DecodeError::Invalid { what: "table of a schema", offset });
            }
            tables.insert(name, known);
        }
        Ok(Self::of(min_app_schema, tables))
    }
}

fn decode_table(from: &mut Decoder<'_>) -> Result<(TableName, Known), DecodeError> {
    let name = TableName::decode(from)?;
    let offset = from.offset();
    let flags = from.u8()?;
    if flags & !(LOCAL | CONTENT_KEYED | RETIRED | PRIVATE) != 0 {
        return Err(DecodeError::Invalid { what: "table flags", offset });
    }
    let table = TableSchema {
        key_field: from.str("key field", MAX_FIELD_NAME_BYTES)?.into(),
        policy: Policy::decode(from)?,
        local: flags & LOCAL != 0,
        content_keyed: flags & CONTENT_KEYED != 0,
        blob_fields: decode_fields(from, "blob fields")?,
        server_owned: decode_fields(from, "server-owned fields")?,
        private_by: match flags & PRIVATE {
            0 => None,
            _ => Some(from.str("field name", MAX_FIELD_NAME_BYTES)?.into()),
        },
    };
    Ok((name, Known { table, retired: flags & RETIRED != 0 }))
}

fn decode_fields(from: &mut Decoder<'_>, what: &'static str) -> Result<Vec<String>, DecodeError> {
    let offset = from.offset();
    let len = from.len(what, MAX_SCHEMA_FIELDS)?;
    let mut fields: Vec<String> = Vec::new();
    for _ in 0..len {
        let field = from.str("field name", MAX_FIELD_NAME_BYTES)?;
        if fields.last().is_some_and(|last| last.as_str() >= field) {
            return Err(DecodeError::Invalid { what, offset });
        }
        fields.push(field.into());
    }
    Ok(fields)
}
