//! Counting without reading.

use std::sync::Arc;

use lastword_core::id::{IndexName, TableName};
use lastword_store::index::{IndexDef, push_value};
use lastword_store::keys::{self, INDEX, ROWS};
use lastword_store::read::{IndexRange, Pair, ReadState, Visit, count_entries, count_live};
use lastword_store::{Space, StoreError};

/// A state whose rows hold their first bytes and nothing else, and that is never asked for one.
struct Beginnings {
    rows: Vec<Pair>,
    entries: Vec<Pair>,
}

impl ReadState for Beginnings {
    fn get(&self, _: Space, _: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        panic!("a row was read");
    }

    fn range(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        _: bool,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let pairs = match space {
            ROWS => &self.rows,
            INDEX => &self.entries,
            _ => panic!("space {} was read", space.number()),
        };
        let within = |pair: &&Pair| from <= pair.0.as_slice() && pair.0.as_slice() < to;
        Ok(pairs.iter().filter(within).take(limit).cloned().collect())
    }

    fn visit(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        for (key, value) in self.range(space, from, to, false, usize::MAX)? {
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}

/// Counting reads no row of an index and only the first bytes of rows of a table (B9): tombstones
/// are left out, limits and bounds hold, over more rows than come at once.
#[test]
fn counting_reads_no_row() {
    const ROW_COUNT: usize = 2000;
    let workspace = lastword_core::id::WorkspaceName::new("main").unwrap();
    let (table, name) = (TableName::new("notes").unwrap(), IndexName::new("by_n").unwrap());
    let prefix = keys::table_prefix(&workspace, 0, &table);
    let index = IndexDef { table, name, fields: vec!["n".into()] };
    let place = |number: usize| {
        let mut place = Vec::new();
        push_value(&mut place, &lastword_core::value::Value::Int(number as i64)).unwrap();
        place
    };
    let (mut rows, mut entries) = (Vec::new(), Vec::new());
    for number in 0..ROW_COUNT {
        let key = format!("n{number:05}");
        // Position 7, then the flags: every fourth row is deleted.
        let begins = [7, u8::from(number % 4 == 0)];
        rows.push(([&prefix, key.as_bytes()].concat(), Arc::from(&begins[..])));
        let index_prefix = keys::index_prefix(&prefix, &index.name);
        let entry = [index_prefix.as_slice(), &place(number), key.as_bytes()].concat();
        entries.push((entry, Arc::from(&[][..])));
    }
    let state = Beginnings { rows, entries };
    let live = |from: &str, to: Option<&str>, limit| {
        count_live(&state, &prefix, from.as_bytes(), to.map(str::as_bytes), limit).unwrap()
    };
    assert_eq!(live("", None, usize::MAX), ROW_COUNT * 3 / 4);
    assert_eq!(live("n00004", Some("n00008"), usize::MAX), 3);
    assert_eq!((live("", None, 700), live("", None, 0)), (700, 0));
    let range = IndexRange { from: place(3), to: Some(place(1900)) };
    let entries = |limit| count_entries(&state, &prefix, &index, &range, limit).unwrap();
    assert_eq!((entries(usize::MAX), entries(600), entries(0)), (1897, 600, 0));
}
