//! What an app declares: its tables and indexes, as typed constants.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use lastword_core::id::{IndexName, Key, TableName};
use lastword_core::schema::Schema;
use lastword_core::value::{Record, Value};
use lastword_store::index::{IndexDef, Indexes};
use lastword_store::limits::MAX_INDEX_FIELDS;

use crate::convert::kind_of;
use crate::error::{Error, Result};

/// Name of the table of the product that never leaves a device and belongs to each workspace.
pub(crate) const FILE_TRANSFERS_TABLE: &str = "file_transfers";

/// A table whose records are values of `T`; meant for a constant.
///
/// ```
/// # use lastword::Table;
/// # struct Message;
/// # struct Draft;
/// pub const MESSAGES: Table<Message> = Table::new("messages", "id");
/// pub const DRAFTS: Table<Draft> = Table::new("drafts", "id").local();
/// ```
///
/// `T` is a struct (or a map with text keys) that serde reads and writes. Its key field holds the
/// record's key as text. Records of other app versions and of other devices may have fields that
/// `T` does not know: reads pass over them, and [`crate::Tx::update`] and [`crate::Tx::patch`]
/// leave them as they are. A type that wants them too holds a
/// `#[serde(flatten)] BTreeMap<String, Value>` of [`lastword_core::value::Value`].
pub struct Table<T> {
    name: &'static str,
    key_field: &'static str,
    local: bool,
    of: PhantomData<fn() -> T>,
}

impl<T> Table<T> {
    /// A table by name, and the field that holds the key. A name that is not valid is an
    /// [`Error::Name`] when the table is declared or first used.
    #[must_use]
    pub const fn new(name: &'static str, key_field: &'static str) -> Self {
        Self { name, key_field, local: false, of: PhantomData }
    }

    /// The same table, never leaving this device. It must be declared when the database is opened.
    #[must_use]
    pub const fn local(self) -> Self {
        Self { local: true, ..self }
    }

    /// An index of this table over some of its fields, the one that sorts first in front, at most
    /// [`MAX_INDEX_FIELDS`].
    #[must_use]
    pub const fn index(self, name: &'static str, fields: &'static [&'static str]) -> Index<T> {
        Index { table: self, name, fields }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The field that holds the key; empty for a table of the product, whose keys are apart.
    #[must_use]
    pub const fn key_field(&self) -> &'static str {
        self.key_field
    }

    /// True if it never leaves this device.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        self.local
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<T> {}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({})", self.name)
    }
}

/// The live records of a table in the order of some of their fields, then of their keys; meant for
/// a constant.
///
/// ```
/// # use lastword::{Index, Table};
/// # struct Message;
/// # const MESSAGES: Table<Message> = Table::new("messages", "id");
/// pub const BY_THREAD: Index<Message> = MESSAGES.index("by_thread", &["thread_id", "index"]);
/// ```
///
/// An index is declared when the database is opened; it is built from what the store already holds
/// whenever the declared indexes are others than before. Values sort null < false < true < numbers
/// < text < bytes; whole and floating numbers share one exact order, so `1` and `1.0` are the same
/// place. A record that lacks one of the fields is not in the index. A list or map has no place: to
/// write one into an indexed field is an [`Error::Index`], and a record of another device that has
/// one is not in the index.
pub struct Index<T> {
    table: Table<T>,
    name: &'static str,
    fields: &'static [&'static str],
}

impl<T> Index<T> {
    /// Its table.
    #[must_use]
    pub const fn table(&self) -> Table<T> {
        self.table
    }

    /// Its name, unique in the table.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its fields, the one that sorts first in front.
    #[must_use]
    pub const fn fields(&self) -> &'static [&'static str] {
        self.fields
    }
}

impl<T> Clone for Index<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Index<T> {}

impl<T> std::fmt::Debug for Index<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({} of {})", self.name, self.table.name)
    }
}

/// Tables that are declared together: one table, or a tuple of up to eight such sets.
pub trait TableSet {
    /// Hands every table on.
    fn declare_in(&self, into: &mut Declared) -> Result<()>;
}

impl<T> TableSet for Table<T> {
    fn declare_in(&self, into: &mut Declared) -> Result<()> {
        into.table(self)
    }
}

macro_rules! tuples_of_tables {
    ($($name:ident)+) => {
        impl<$($name: TableSet),+> TableSet for ($($name,)+) {
            fn declare_in(&self, into: &mut Declared) -> Result<()> {
                #[allow(non_snake_case)]
                let ($($name,)+) = self;
                $($name.declare_in(into)?;)+
                Ok(())
            }
        }
    };
}

tuples_of_tables!(A);
tuples_of_tables!(A B);
tuples_of_tables!(A B C);
tuples_of_tables!(A B C D);
tuples_of_tables!(A B C D E);
tuples_of_tables!(A B C D E F);
tuples_of_tables!(A B C D E F G);
tuples_of_tables!(A B C D E F G H);

/// Everything that was declared when the database was opened.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    tables: BTreeMap<String, Declaration>,
    indexes: Indexes,
}

#[derive(Debug, Clone)]
struct Declaration {
    name: TableName,
    /// None for a table that was declared by name only.
    key_field: Option<&'static str>,
    local: bool,
}

impl Declared {
    fn table<T>(&mut self, table: &Table<T>) -> Result<()> {
        let name = TableName::new(table.name)?;
        self.insert(Declaration { name, key_field: Some(table.key_field), local: table.local })
    }

    /// An index, and with it its table.
    pub(crate) fn index<T>(&mut self, index: &Index<T>) -> Result<()> {
        self.table(&index.table)?;
        let new = IndexDef {
            table: TableName::new(index.table.name)?,
            name: IndexName::new(index.name)?,
            fields: index.fields.iter().map(|field| (*field).to_owned()).collect(),
        };
        let fields = index.fields.iter().collect::<std::collections::BTreeSet<_>>().len();
        if fields != index.fields.len() || !(1..=MAX_INDEX_FIELDS).contains(&fields) {
            let reason = format!("an index has 1 to {MAX_INDEX_FIELDS} fields, each once");
            return Err(index_error(index, reason));
        }
        match self.find(index) {
            None => self.indexes.insert(new),
            Some(known) if *known == new => {}
            Some(known) => return Err(other_fields(index, known)),
        }
        Ok(())
    }

    fn find<T>(&self, index: &Index<T>) -> Option<&IndexDef> {
        let mut of_table = self.indexes.of(index.table.name.as_bytes());
        of_table.find(|known| known.name.as_str() == index.name)
    }

    /// The definition of an index, if it is used as it was declared.
    pub(crate) fn check_index<T>(&self, index: &Index<T>) -> Result<&IndexDef> {
        self.check(&index.table)?;
        match self.find(index) {
            Some(known) if known.fields == index.fields => Ok(known),
            Some(known) => Err(other_fields(index, known)),
            None => {
                let reason = "an index must be declared when the database is opened";
                Err(index_error(index, reason.into()))
            }
        }
    }

    /// All indexes, for the store that keeps them.
    pub(crate) fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    /// A table by name that never leaves this device.
    pub(crate) fn local_table(&mut self, name: TableName) -> Result<()> {
        self.insert(Declaration { name, key_field: None, local: true })
    }

    /// All tables that never leave this device.
    pub(crate) fn local_tables(&self) -> impl Iterator<Item = &TableName> {
        self.tables.values().filter(|known| known.local).map(|known| &known.name)
    }

    /// A table that the store keeps local whether the app declares it or not.
    pub(crate) fn keep_local(&mut self, name: TableName) -> Result<()> {
        match self.tables.get(name.as_str()) {
            Some(known) if !known.local => Err(locality(&name, "local", "synced")),
            Some(_) => Ok(()),
            None => self.local_table(name),
        }
    }

    fn insert(&mut self, new: Declaration) -> Result<()> {
        let name = new.name.as_str().to_owned();
        match self.tables.get_mut(&name) {
            None => {
                self.tables.insert(name, new);
            }
            Some(known) => {
                fits(known, new.key_field, new.local)?;
                known.key_field = known.key_field.or(new.key_field);
            }
        }
        Ok(())
    }

    /// The name of a table, if it is used as it was declared.
    pub(crate) fn check<T>(&self, table: &Table<T>) -> Result<TableName> {
        match self.tables.get(table.name) {
            Some(known) => {
                fits(known, Some(table.key_field), table.local)?;
                Ok(known.name.clone())
            }
            // It would be sent to the server.
            None if table.local => Err(Error::Declaration {
                name: table.name.into(),
                reason: "a local table must be declared when the database is opened".into(),
            }),
            None => Ok(TableName::new(table.name)?),
        }
    }

    /// True if the table never leaves this device.
    pub(crate) fn is_local(&self, table: &TableName) -> bool {
        let is_declared = || self.tables.get(table.as_str()).is_some_and(|known| known.local);
        table.as_str() == FILE_TRANSFERS_TABLE || is_declared()
    }

    /// Checks what the server says about the tables that are declared here. Whether one is local
    /// may differ: it is if either side says so.
    pub(crate) fn check_server(&self, schema: &Schema) -> Result<()> {
        for known in self.tables.values() {
            let (Some(ours), Some(table)) = (known.key_field, schema.table(&known.name)) else {
                continue;
            };
            if ours != table.key_field {
                let theirs = &table.key_field;
                let reason = format!(
                    "this app declares it with key field {ours:?} and the server's schema with \
                     {theirs:?}; both need the same"
                );
                return Err(Error::Declaration { name: known.name.as_str().into(), reason });
            }
        }
        Ok(())
    }

    /// Checks a record that is about to be written against what was declared.
    pub(crate) fn check_record(&self, table: &TableName, key: &Key, record: &Record) -> Result<()> {
        if let Some(field) = self.tables.get(table.as_str()).and_then(|known| known.key_field) {
            check_key(table, key, field, record)?;
        }
        for index in self.indexes.of(table.as_str().as_bytes()) {
            index.values_of(record).map_err(|source| Error::Index {
                table: table.as_str().into(),
                key: key.as_str().into(),
                index: index.name.as_str().into(),
                source,
            })?;
        }
        Ok(())
    }
}

/// A table is declared to live elsewhere than it does.
pub(crate) fn locality(name: &TableName, is: &str, declared: &str) -> Error {
    let reason = format!(
        "this store has it as a {is} table and the app declares it {declared}; that never changes: \
         use another table name"
    );
    Error::Declaration { name: name.as_str().into(), reason }
}

fn other_fields<T>(index: &Index<T>, known: &IndexDef) -> Error {
    let reason =
        format!("declared with fields {:?} and used with {:?}", known.fields, index.fields);
    index_error(index, reason)
}

/// A declaration or use of an index that does not fit.
pub(crate) fn index_error<T>(index: &Index<T>, reason: String) -> Error {
    Error::Declaration { name: format!("index {} of {}", index.name, index.table.name), reason }
}

fn fits(known: &Declaration, key_field: Option<&'static str>, local: bool) -> Result<()> {
    let where_to = |local| if local { "local" } else { "synced" };
    let reason = match (known.key_field, key_field) {
        _ if known.local != local => {
            format!("declared {} and used {}", where_to(known.local), where_to(local))
        }
        (Some(known), Some(new)) if known != new => {
            format!("declared with key field {known:?} and used with {new:?}")
        }
        _ => return Ok(()),
    };
    Err(Error::Declaration { name: known.name.as_str().into(), reason })
}

/// The key that a record holds in its key field.
pub(crate) fn key_of(table: &TableName, field: &'static str, record: &Record) -> Result<Key> {
    let wrong = |reason: String| key_error(table, "", field, reason);
    match record.get(field) {
        Some(Value::Text(text)) => Key::new(&text).map_err(|error| wrong(error.to_string())),
        Some(other) => Err(wrong(format!("a key is text, not {}", kind_of(&other)))),
        None => Err(wrong("the record has no such field".into())),
    }
}

/// Checks that the key field of a record holds its key.
pub(crate) fn check_key(
    table: &TableName,
    key: &Key,
    field: &'static str,
    record: &Record,
) -> Result<()> {
    let reason = match record.get(field) {
        Some(Value::Text(text)) if text == key.as_str() => return Ok(()),
        Some(Value::Text(text)) => format!("it holds {text:?}; a record keeps its key"),
        Some(other) => format!("a key is text, not {}", kind_of(&other)),
        None => "the record has no such field".into(),
    };
    Err(key_error(table, key.as_str(), field, reason))
}

fn key_error(table: &TableName, key: &str, field: &str, reason: String) -> Error {
    Error::KeyField { table: table.as_str().into(), key: key.into(), field: field.into(), reason }
}
