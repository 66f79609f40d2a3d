//! What an app declares: its tables, as typed constants.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use lastword_core::id::{Key, TableName};
use lastword_core::value::{Record, Value};

use crate::convert::kind_of;
use crate::error::{Error, Result};

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
/// leave them as they are.
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

    /// A table by name that never leaves this device.
    pub(crate) fn local_table(&mut self, name: TableName) -> Result<()> {
        self.insert(Declaration { name, key_field: None, local: true })
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
        self.tables.get(table.as_str()).is_some_and(|known| known.local)
    }

    /// Checks a record that is about to be written against what was declared.
    pub(crate) fn check_record(&self, table: &TableName, key: &Key, record: &Record) -> Result<()> {
        match self.tables.get(table.as_str()).and_then(|known| known.key_field) {
            Some(field) => check_key(table, key, field, record),
            None => Ok(()),
        }
    }
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
