//! Typed reads and writes: the untyped ones, through the app's types.

use std::ops::Deref;
use std::sync::Arc;

use lastword_core::id::{Key, TableName};
use lastword_core::value::{Field, Record};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::convert::{self, ConvertError};
use crate::error::{Error, Result};
use crate::query::Query;
use crate::schema::{self, Table};
use crate::view::{Shown, WorkspaceView};
use crate::workspace::Workspace;
use crate::write::{self, Tx};

/// A live record as it is shown now; derefs to the app's value. Cheap to clone.
#[derive(Debug)]
pub struct Row<T> {
    key: Key,
    seq: Option<u64>,
    value: Arc<T>,
}

impl<T> Row<T> {
    /// The record's key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.key.as_str()
    }

    /// Authority seq of the version; none while it is only a prediction of this device, 0 in a
    /// local table.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }

    /// True while the server has not decided this version.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.seq.is_none()
    }

    /// The value alone.
    #[must_use]
    pub fn into_value(self) -> Arc<T> {
        self.value
    }
}

impl<T: DeserializeOwned> Row<T> {
    pub(crate) fn from_shown(shown: &Shown) -> Result<Self> {
        let value = convert::from_record(&shown.record)
            .map_err(|error| unfit(&shown.table, &shown.key, &error))?;
        Ok(Self { key: shown.key.clone(), seq: shown.seq, value: Arc::new(value) })
    }
}

impl<T> Deref for Row<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Row<T> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), seq: self.seq, value: Arc::clone(&self.value) }
    }
}

impl<T: PartialEq> PartialEq for Row<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.seq == other.seq && self.value == other.value
    }
}

fn unfit(table: &TableName, key: &Key, error: &ConvertError) -> Error {
    Error::Record {
        table: table.as_str().into(),
        key: key.as_str().into(),
        reason: error.to_string(),
    }
}

impl Tx {
    /// Writes the whole record under the key that its key field holds: creates it, or replaces
    /// every field of it, those that `T` does not know too ([`Tx::update`] keeps them).
    ///
    /// # Errors
    /// [`Error::KeyField`] if the key field is missing, not text or not a valid key;
    /// [`Error::Record`] if the value cannot be stored (an integer beyond 64 bits signed, a number
    /// that is not finite, ..), with the path; else as [`Tx::put_record`].
    pub fn put<T: Serialize>(&mut self, table: Table<T>, value: &T) -> Result<()> {
        let name = self.declared().check(&table)?;
        let record = convert::to_record(value).map_err(|error| Error::Record {
            table: name.as_str().into(),
            key: String::new(),
            reason: error.to_string(),
        })?;
        if name.is_reserved() {
            return Err(Error::Reserved { table: name });
        }
        let key = schema::key_of(&name, table.key_field(), &record)?;
        self.put_record(&name, &key, record)
    }

    /// Edits a live record in place. What `edit` changed is written as a patch of whole top-level
    /// fields: all others stay, those that `T` does not know too, also if another device changes
    /// them meanwhile. An edit that changes nothing writes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such record; [`Error::Record`] if it is not a `T`, or
    /// cannot be stored afterwards; [`Error::KeyField`] if the key was changed; else as
    /// [`Tx::patch_record`].
    pub fn update<T: Serialize + DeserializeOwned>(
        &mut self,
        table: Table<T>,
        key: &str,
        edit: impl FnOnce(&mut T),
    ) -> Result<()> {
        let (name, key, record) = self.live(&table, key)?;
        let fits = |error: ConvertError| unfit(&name, &key, &error);
        let mut value: T = convert::from_record(&record).map_err(fits)?;
        // Both sides go through T, so a field that T fills in by itself is no change.
        let before = convert::to_record(&value).map_err(fits)?;
        edit(&mut value);
        let after = convert::to_record(&value).map_err(fits)?;
        let (set, remove) = write::difference(&before, &after);
        if set.is_empty() && remove.is_empty() {
            return Ok(());
        }
        self.patch_checked(&table, &name, &key, record, set, remove).map(|_| ())
    }

    /// Sets top-level fields of a live record to those of `fields`, a struct or a map; the others
    /// stay. A field that is null is set to null; one that is not serialized
    /// (`skip_serializing_if`) is left alone.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such record; [`Error::Record`] if the fields cannot be
    /// stored, or the record would no longer be a `T`; [`Error::KeyField`] if it would change the
    /// key; else as [`Tx::patch_record`].
    pub fn patch<T: DeserializeOwned>(
        &mut self,
        table: Table<T>,
        key: &str,
        fields: &(impl Serialize + ?Sized),
    ) -> Result<()> {
        let (name, key, record) = self.live(&table, key)?;
        let set = convert::to_fields(fields).map_err(|error| unfit(&name, &key, &error))?;
        let after = self.patch_checked(&table, &name, &key, record, set, Vec::new())?;
        convert::from_record::<T>(&after).map(|_| ()).map_err(|error| unfit(&name, &key, &error))
    }

    /// Deletes a live record; its value is kept and can be brought back until retention ends.
    ///
    /// # Errors
    /// As [`Tx::delete_record`].
    pub fn delete<T>(&mut self, table: Table<T>, key: &str) -> Result<()> {
        let name = self.declared().check(&table)?;
        self.delete_record(&name, &Key::new(key)?)
    }

    /// Brings back exactly the value of a deleted record.
    ///
    /// # Errors
    /// As [`Tx::undelete_record`].
    pub fn undelete<T>(&mut self, table: Table<T>, key: &str) -> Result<()> {
        let name = self.declared().check(&table)?;
        self.undelete_record(&name, &Key::new(key)?)
    }

    /// The value as this write sees it: its own changes included, deleted records not.
    ///
    /// # Errors
    /// [`Error::Record`] if the record is not a `T`; [`Error::Store`] if the disk fails.
    pub fn get<T: DeserializeOwned>(&mut self, table: Table<T>, key: &str) -> Result<Option<T>> {
        let name = self.declared().check(&table)?;
        let key = Key::new(key)?;
        let Some(record) = self.get_record(&name, &key)? else { return Ok(None) };
        convert::from_record(&record).map(Some).map_err(|error| unfit(&name, &key, &error))
    }

    fn live<T>(&mut self, table: &Table<T>, key: &str) -> Result<(TableName, Key, Record)> {
        let (name, key) = (self.declared().check(table)?, Key::new(key)?);
        match self.get_record(&name, &key)? {
            Some(record) => Ok((name, key, record)),
            None => Err(write::not_found(&name, &key)),
        }
    }

    /// Patches a record whose value before is `record`; answers the value after.
    fn patch_checked<T>(
        &mut self,
        table: &Table<T>,
        name: &TableName,
        key: &Key,
        mut record: Record,
        set: Vec<Field>,
        remove: Vec<String>,
    ) -> Result<Record> {
        let is_key = |field: &str| field == table.key_field();
        let touches_key =
            set.iter().any(|field| is_key(&field.name)) || remove.iter().any(|name| is_key(name));
        set.iter().for_each(|field| record.set(field.clone()));
        remove.iter().for_each(|name| record.remove(name));
        if touches_key {
            schema::check_key(name, key, table.key_field(), &record)?;
        }
        self.patch_record(name, key, set, remove)?;
        Ok(record)
    }
}

impl WorkspaceView {
    /// A live record.
    ///
    /// # Errors
    /// [`Error::Record`] if the record is not a `T`; [`Error::Declaration`] if the table is used
    /// otherwise than it was declared; [`Error::Store`] if the disk fails or the row is damaged.
    pub fn get<T: DeserializeOwned>(&self, table: Table<T>, key: &str) -> Result<Option<Row<T>>> {
        let name = self.declared().check(&table)?;
        let shown = self.get_record(&name, &Key::new(key)?)?;
        shown.map(|shown| Row::from_shown(&shown)).transpose()
    }

    /// The live records that a query finds, in its order.
    ///
    /// # Errors
    /// [`Error::Record`] if one of them is not a `T`; [`Error::Declaration`] if table or index are
    /// used otherwise than they were declared; [`Error::Store`] if the disk fails or a row is
    /// damaged.
    pub fn query<T: DeserializeOwned>(&self, query: &Query<T>) -> Result<Vec<Row<T>>> {
        self.rows(&query.plan(self.declared())?)?.iter().map(Row::from_shown).collect()
    }

    /// How many live records a query finds, without reading them: entries of the index are counted,
    /// or keys.
    ///
    /// # Errors
    /// As [`WorkspaceView::query`], except that records need not be a `T`.
    pub fn count<T>(&self, query: &Query<T>) -> Result<usize> {
        self.count_rows(&query.plan(self.declared())?)
    }
}

impl Workspace {
    /// A live record as it is shown now, own unsent writes included.
    ///
    /// # Errors
    /// As [`WorkspaceView::get`].
    pub fn get<T: DeserializeOwned>(&self, table: Table<T>, key: &str) -> Result<Option<Row<T>>> {
        self.read()?.get(table, key)
    }

    /// The live records that a query finds now, in its order.
    ///
    /// # Errors
    /// As [`WorkspaceView::query`].
    pub fn query<T: DeserializeOwned>(&self, query: &Query<T>) -> Result<Vec<Row<T>>> {
        self.read()?.query(query)
    }

    /// How many live records a query finds now.
    ///
    /// # Errors
    /// As [`WorkspaceView::count`].
    pub fn count<T>(&self, query: &Query<T>) -> Result<usize> {
        self.read()?.count(query)
    }
}
