//! Queries as plain values: which records, in which order, how many.

use std::ops::{Bound, RangeBounds};

use lastword_core::id::{Key, TableName};
use lastword_core::value::{Record, Value};
use lastword_store::index::{self, IndexDef};
use lastword_store::keys;
use lastword_store::read::IndexRange;

use crate::error::Result;
use crate::schema::{self, Declared, Index, Table};

/// Some live records of a table, in order of their keys or of an index. A plain value: read it with
/// [`crate::Workspace::query`], count it, or watch it.
///
/// ```
/// # use lastword::{Index, Query, Table};
/// # struct Message;
/// # const MESSAGES: Table<Message> = Table::new("messages", "id");
/// # const BY_THREAD: Index<Message> = MESSAGES.index("by_thread", &["thread_id", "index"]);
/// let all: Query<Message> = MESSAGES.all();
/// let some = MESSAGES.range("a".."b");
/// let newest = BY_THREAD.prefix("t1").rev().limit(50);
/// let one_place = BY_THREAD.prefix(("t1", 7));
/// let a_page = BY_THREAD.range("t1", 10..20).limit(5);
/// ```
pub struct Query<T> {
    table: Table<T>,
    from: Source<T>,
    reverse: bool,
    limit: usize,
}

enum Source<T> {
    Keys(Rows),
    Index { index: Index<T>, values: Vec<Value>, next: NextField },
}

/// Bounds of the field behind those whose values are fixed; both open where it is free.
type NextField = (Bound<Value>, Bound<Value>);

impl<T> Query<T> {
    /// The same records in the opposite order.
    #[must_use]
    pub fn rev(self) -> Self {
        Self { reverse: !self.reverse, ..self }
    }

    /// The first `limit` records of its order.
    #[must_use]
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// The query with every name resolved.
    pub(crate) fn plan(&self, declared: &Declared) -> Result<Plan> {
        let rows = match &self.from {
            Source::Keys(keys) => keys.clone(),
            Source::Index { index, values, next } => Rows::Index {
                index: declared.check_index(index)?.clone(),
                range: encode(index, values, next)?,
            },
        };
        let table = declared.check(&self.table)?;
        Ok(Plan { table, rows, reverse: self.reverse, limit: self.limit })
    }
}

fn encode<T>(index: &Index<T>, values: &[Value], next: &NextField) -> Result<IndexRange> {
    let is_free = matches!(next, (Bound::Unbounded, Bound::Unbounded));
    let (wanted, fields) = (values.len() + usize::from(!is_free), index.fields().len());
    if wanted > fields {
        let reason = format!("it has {fields} fields, the query names {wanted}");
        return Err(schema::index_error(index, reason));
    }
    let mut fixed = Vec::new();
    values.iter().try_for_each(|value| push(index, &mut fixed, value))?;
    let place = |value: &Value| {
        let mut place = fixed.clone();
        push(index, &mut place, value).map(|()| place)
    };
    // Entries of one value are those that begin with its bytes: no value's bytes begin another's.
    let behind = |place: Vec<u8>| keys::prefix_end(&place);
    let from = match &next.0 {
        Bound::Included(value) => place(value)?,
        Bound::Excluded(value) => behind(place(value)?),
        Bound::Unbounded => fixed.clone(),
    };
    let to = match &next.1 {
        Bound::Included(value) => Some(behind(place(value)?)),
        Bound::Excluded(value) => Some(place(value)?),
        Bound::Unbounded => Some(behind(fixed)).filter(|end| !end.is_empty()),
    };
    Ok(IndexRange { from, to })
}

fn push<T>(index: &Index<T>, into: &mut Vec<u8>, value: &Value) -> Result<()> {
    index::push_value(into, value)
        .map_err(|kind| schema::index_error(index, format!("{kind} has no order")))
}

impl<T> Clone for Query<T> {
    fn clone(&self) -> Self {
        let from = match &self.from {
            Source::Keys(keys) => Source::Keys(keys.clone()),
            Source::Index { index, values, next } => {
                Source::Index { index: *index, values: values.clone(), next: next.clone() }
            }
        };
        Self { table: self.table, from, reverse: self.reverse, limit: self.limit }
    }
}

impl<T> std::fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("Query");
        out.field("table", &self.table.name());
        match &self.from {
            Source::Keys(keys) => out.field("keys", keys),
            Source::Index { index, values, next } => {
                out.field("index", &index.name()).field("values", values).field("next", next)
            }
        };
        out.field("reverse", &self.reverse).field("limit", &self.limit).finish()
    }
}

impl<T> Table<T> {
    fn keys(self, keys: Rows) -> Query<T> {
        Query { table: self, from: Source::Keys(keys), reverse: false, limit: usize::MAX }
    }

    /// All records, in order of their keys (bytes of UTF-8).
    #[must_use]
    pub fn all(self) -> Query<T> {
        self.keys(Rows::between(Bound::Unbounded, Bound::Unbounded))
    }

    /// Records with keys in a range.
    #[must_use]
    pub fn range<'k>(self, keys: impl RangeBounds<&'k str>) -> Query<T> {
        let text = |bound: Bound<&&'k str>| bound.cloned();
        self.keys(Rows::between(text(keys.start_bound()), text(keys.end_bound())))
    }

    /// Records whose keys begin with `prefix`.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Query<T> {
        let end = keys::prefix_end(prefix.as_bytes());
        let to = (!end.is_empty()).then_some(end);
        self.keys(Rows::Keys { from: prefix.as_bytes().to_vec(), to })
    }
}

impl<T> Index<T> {
    fn values(self, values: Vec<Value>, next: NextField) -> Query<T> {
        let from = Source::Index { index: self, values, next };
        Query { table: self.table(), from, reverse: false, limit: usize::MAX }
    }

    /// All records that are in the index, in its order.
    #[must_use]
    pub fn all(self) -> Query<T> {
        self.prefix(())
    }

    /// Records whose first fields have these values: one value, a tuple of up to four, or a slice.
    #[must_use]
    pub fn prefix(self, prefix: impl IndexPrefix) -> Query<T> {
        self.values(prefix.into_values(), (Bound::Unbounded, Bound::Unbounded))
    }

    /// Records whose first fields have the values of `prefix` (as in [`Index::prefix`], `()` for
    /// none) and whose next field lies in a range. A side without a bound takes in what is there,
    /// of whatever kind: `..5` also finds null and booleans, which sort before numbers.
    ///
    /// ```
    /// # use lastword::{Index, Table};
    /// # struct Message;
    /// # const MESSAGES: Table<Message> = Table::new("messages", "id");
    /// # const BY_THREAD: Index<Message> = MESSAGES.index("by_thread", &["thread_id", "index"]);
    /// let newest_of_old = BY_THREAD.range("t1", ..100).rev().limit(20);
    /// let of_some_threads = BY_THREAD.range((), "t1"..="t3");
    /// ```
    #[must_use]
    pub fn range<V: IndexValue + Clone>(
        self,
        prefix: impl IndexPrefix,
        next: impl RangeBounds<V>,
    ) -> Query<T> {
        let value = |bound: Bound<&V>| bound.map(|value| value.clone().into_value());
        self.values(prefix.into_values(), (value(next.start_bound()), value(next.end_bound())))
    }
}

/// The value of one field of an index.
pub trait IndexValue {
    /// As it is stored.
    fn into_value(self) -> Value;
}

/// The values of the first fields of an index.
pub trait IndexPrefix {
    /// In the order of the fields.
    fn into_values(self) -> Vec<Value>;
}

macro_rules! index_values {
    ($($type:ty: $value:ident => $into:expr),* $(,)?) => {
        $(
            impl IndexValue for $type {
                fn into_value(self) -> Value {
                    let $value = self;
                    $into
                }
            }

            impl IndexPrefix for $type {
                fn into_values(self) -> Vec<Value> {
                    vec![self.into_value()]
                }
            }
        )*
    };
}

index_values! {
    bool: value => Value::Bool(value),
    i64: value => Value::Int(value),
    i32: value => Value::Int(value.into()),
    u32: value => Value::Int(value.into()),
    f64: value => Value::Float(value),
    &str: value => Value::Text(value.into()),
    &String: value => Value::Text(value.clone()),
    String: value => Value::Text(value),
    &[u8]: value => Value::Bytes(value.into()),
    Value: value => value,
}

macro_rules! index_prefixes {
    ($($name:ident)+) => {
        impl<$($name: IndexValue),+> IndexPrefix for ($($name,)+) {
            fn into_values(self) -> Vec<Value> {
                #[allow(non_snake_case)]
                let ($($name,)+) = self;
                vec![$($name.into_value()),+]
            }
        }
    };
}

index_prefixes!(A);
index_prefixes!(A B);
index_prefixes!(A B C);
index_prefixes!(A B C D);

impl IndexPrefix for () {
    fn into_values(self) -> Vec<Value> {
        Vec::new()
    }
}

impl IndexPrefix for &[Value] {
    fn into_values(self) -> Vec<Value> {
        self.to_vec()
    }
}

/// A query as a view carries it out.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) table: TableName,
    pub(crate) rows: Rows,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
}

/// Where the rows of a query stand.
#[derive(Debug, Clone)]
pub(crate) enum Rows {
    /// Keys as bytes, `from` included and `to` not.
    Keys { from: Vec<u8>, to: Option<Vec<u8>> },
    /// Entries of an index in a range.
    Index { index: IndexDef, range: IndexRange },
}

impl Plan {
    /// Where a row stands in the order of the query; compares as bytes.
    pub(crate) fn place(&self, key: &Key, record: &Record) -> Option<Vec<u8>> {
        let key = key.as_str().as_bytes();
        match &self.rows {
            Rows::Keys { .. } => Some(key.to_vec()),
            Rows::Index { index, .. } => Some([&index.values_of(record).ok()??, key].concat()),
        }
    }
}

impl Rows {
    /// The range of row keys, behind the prefix of the table; all of them for an index.
    pub(crate) fn keys(&self, table: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (from, to) = match self {
            Rows::Keys { from, to } => (from.clone(), to.clone()),
            Rows::Index { .. } => (Vec::new(), None),
        };
        IndexRange { from, to }.keys(table)
    }

    pub(crate) fn between(from: Bound<&str>, to: Bound<&str>) -> Self {
        // The key after `k` in byte order is `k` with a zero byte.
        let after = |key: &str| [key.as_bytes(), &[0]].concat();
        let from = match from {
            Bound::Included(key) => key.as_bytes().to_vec(),
            Bound::Excluded(key) => after(key),
            Bound::Unbounded => Vec::new(),
        };
        let to = match to {
            Bound::Included(key) => Some(after(key)),
            Bound::Excluded(key) => Some(key.as_bytes().to_vec()),
            Bound::Unbounded => None,
        };
        Rows::Keys { from, to }
    }
}
