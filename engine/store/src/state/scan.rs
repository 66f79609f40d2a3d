//! Merges the layers of the state: newest wins, deletes are explicit.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::StoreError;
use crate::limits::SCAN_ROWS;
use crate::state::delta::{Delta, Row};
use crate::state::space::{Direction, KeyRange, Space};
use crate::state::tables::BaseRows;

/// Rows of the first chunk that a scan takes from a delta.
const FIRST_ROWS: usize = 4;

/// A row: its key and its value.
pub type KeyValue = (Arc<[u8]>, Arc<[u8]>);

/// An ordered walk over the rows of a range: `(key, value)`. It holds no lock between rows and
/// ends after the first error.
#[derive(Debug)]
pub struct Scan {
    /// Newest first.
    layers: Vec<Layer>,
    direction: Direction,
    failed: bool,
}

#[derive(Debug)]
struct Layer {
    source: Source,
    head: Option<Row>,
    exhausted: bool,
}

#[derive(Debug)]
enum Source {
    Delta {
        delta: Arc<Delta>,
        space: Space,
        range: KeyRange,
        limit: u64,
        rows: VecDeque<Row>,
        /// How many rows the next chunk has at most: many scans want the first row only.
        chunk: usize,
    },
    Base(Box<BaseRows>),
}

impl Scan {
    pub(crate) fn new(direction: Direction) -> Self {
        Scan { layers: Vec::with_capacity(4), direction, failed: false }
    }

    /// Adds an older layer: what a delta holds below position `limit`.
    pub(crate) fn add_delta(
        &mut self,
        delta: &Arc<Delta>,
        space: Space,
        range: &KeyRange,
        limit: u64,
    ) {
        let (delta, range) = (delta.clone(), range.clone());
        let rows = VecDeque::new();
        let source = Source::Delta { delta, space, range, limit, rows, chunk: FIRST_ROWS };
        self.layers.push(Layer { source, head: None, exhausted: false });
    }

    /// Adds the oldest layer.
    pub(crate) fn add_base(&mut self, rows: BaseRows) {
        self.layers.push(Layer {
            source: Source::Base(Box::new(rows)),
            head: None,
            exhausted: false,
        });
    }

    /// The next row that is there.
    fn step(&mut self) -> Result<Option<KeyValue>, StoreError> {
        loop {
            for layer in &mut self.layers {
                layer.fill(self.direction)?;
            }
            let Some(key) = self.next_key() else { return Ok(None) };
            let mut newest = None;
            for layer in &mut self.layers {
                if layer.head.as_ref().is_some_and(|(head, _)| *head == key) {
                    let (_, value) = layer.head.take().expect("invariant: the head was there");
                    newest.get_or_insert(value);
                }
            }
            if let Some(Some(value)) = newest {
                return Ok(Some((key, value)));
            }
        }
    }

    fn next_key(&self) -> Option<Arc<[u8]>> {
        let keys = self.layers.iter().filter_map(|layer| layer.head.as_ref()).map(|head| &head.0);
        let key = match self.direction {
            Direction::Forward => keys.min(),
            Direction::Reverse => keys.max(),
        };
        key.cloned()
    }
}

impl Iterator for Scan {
    type Item = Result<KeyValue, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.step();
        self.failed = row.is_err();
        row.transpose()
    }
}

impl Layer {
    fn fill(&mut self, direction: Direction) -> Result<(), StoreError> {
        while self.head.is_none() && !self.exhausted {
            match &mut self.source {
                Source::Base(rows) => {
                    self.head = rows.next(direction)?;
                    self.exhausted = self.head.is_none();
                }
                Source::Delta { delta, space, range, limit, rows, chunk } => {
                    let mut last = false;
                    if rows.is_empty() {
                        last = delta.chunk(*space, range, (direction, *chunk), *limit, rows);
                        *chunk = SCAN_ROWS.min(*chunk * 4);
                    }
                    if last {
                        // Nothing is left behind this chunk: the range is made empty.
                        *range = KeyRange::none();
                    }
                    self.head = rows.pop_front();
                    self.exhausted = self.head.is_none() && range.is_empty();
                }
            }
        }
        Ok(())
    }
}
