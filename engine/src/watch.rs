//! Live queries: the current rows, then what changed, whole batches only.
//!
//! A watcher remembers what it showed last. When something was published it reads the newest view
//! and hands out the difference, so one that is slow gets several changes as one and nothing
//! queues up. A view holds whole batches, so a difference between two views does too.
//!
//! A query is run again only if a key or an index entry in its range changed, or a row that stands
//! there. Of a query that found as many rows as it may, the range ends with the last of them. What
//! a checkpoint has moved to redb no longer says when it changed; then the query is run.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use lastword_core::id::{Key, TableName};
use lastword_core::plant::{Plant, planted};
use lastword_core::rules::PENDING_SEQ;
use lastword_core::value::Record;
use lastword_store::keys::StoredRow;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::query::{Plan, Query};
use crate::typed::Row;
use crate::view::{Name, Shown, WorkspaceView};
use crate::workspace::Workspace;

/// What changed in the result of a query since the last difference.
#[derive(Debug, Clone)]
pub struct Diff<T> {
    /// The whole result now, in the order of the query.
    pub rows: Vec<Row<T>>,
    /// Rows that were not in it before.
    pub added: Vec<Row<T>>,
    /// Rows with another value or state (a verdict came) than before.
    pub changed: Vec<Row<T>>,
    /// Rows that are no longer in it, as they were.
    pub removed: Vec<Row<T>>,
}

/// A live query. It keeps the database open; drop it to stop watching.
#[derive(Debug)]
pub struct Live<T> {
    follow: Follow,
    plan: Plan,
    rows: Vec<(u64, Row<T>)>,
    /// Place of the last row, if there may be more behind it that the limit left out.
    last: Option<Vec<u8>>,
    evaluations: u64,
}

/// What one change did to one record, for readers without types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordChange {
    /// Its table.
    pub table: TableName,
    /// Its key.
    pub key: Key,
    /// Its value; none if it is deleted or gone.
    pub record: Option<Record>,
    /// Authority seq of the version; none while it is only a prediction of this device, or if
    /// nothing is known of the record any more.
    pub seq: Option<u64>,
    /// True while the server has not decided this version.
    pub pending: bool,
}

/// Live records without types: of one table, or of a whole workspace. It keeps the database open;
/// drop it to stop watching.
#[derive(Debug)]
pub struct LiveRecords {
    follow: Follow,
    table: Option<TableName>,
    /// Fingerprints of the live records shown, by their name.
    shown: BTreeMap<Name, u64>,
}

impl Workspace {
    /// Watches a query: the first difference is the current rows, then one comes per change that
    /// shows in them.
    ///
    /// # Errors
    /// [`Error::Declaration`] if table or index are used otherwise than they were declared.
    pub fn watch<T: DeserializeOwned>(&self, query: &Query<T>) -> Result<Live<T>> {
        let plan = query.plan(&self.database().inner.declared)?;
        let (follow, rows) = (Follow::new(self), Vec::new());
        Ok(Live { follow, plan, rows, last: None, evaluations: 0 })
    }

    /// Watches the records of one table, or of all tables of the workspace (tables of the product
    /// that are stored in it included): first all live ones, then what changes, in order of table
    /// and key.
    #[must_use]
    pub fn watch_records(&self, table: Option<&TableName>) -> LiveRecords {
        let (follow, table) = (Follow::new(self), table.cloned());
        LiveRecords { follow, table, shown: BTreeMap::new() }
    }
}

/// Where a watcher is.
#[derive(Debug)]
struct Follow {
    workspace: Workspace,
    /// Position and generation of the view seen last.
    seen: Option<(u64, u32)>,
    failed: Option<Error>,
}

/// Looks at a newer view and tells what changed, if anything that shows.
trait Look {
    type Change;
    fn follow(&mut self) -> &mut Follow;
    fn look(&mut self, view: &WorkspaceView, since: Option<u64>) -> Result<Option<Self::Change>>;
}

impl Follow {
    fn new(workspace: &Workspace) -> Self {
        Self { workspace: workspace.clone(), seen: None, failed: None }
    }

    fn position(&self) -> u64 {
        self.seen.map_or(0, |(position, _)| position)
    }
}

/// One look at the newest view, if there is one that was not seen. An error ends the watch.
fn step<L: Look>(live: &mut L) -> Option<L::Change> {
    let follow = live.follow();
    if follow.failed.is_some() {
        return None;
    }
    let seen = follow.seen;
    let looked = follow.workspace.read().and_then(|view| {
        let now = (view.position(), view.generation());
        if seen == Some(now) {
            return Ok(None);
        }
        // Another copy of the rows has nothing to do with the last one's changes.
        let since = seen.filter(|(_, generation)| *generation == now.1).map(|(at, _)| at);
        let change = live.look(&view, since);
        live.follow().seen = Some(now);
        change
    });
    looked.unwrap_or_else(|error| {
        live.follow().failed = Some(error);
        None
    })
}

fn wait<L: Look>(live: &mut L, timeout: Option<Duration>) -> Option<L::Change> {
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        if let Some(change) = step(live) {
            return Some(change);
        }
        let follow = live.follow();
        if follow.failed.is_some() {
            return None;
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let watchers = &follow.workspace.database().inner.watchers;
        if !watchers.wait_after(follow.position(), left) {
            return None;
        }
    }
}

async fn next<L: Look>(live: &mut L) -> Option<L::Change> {
    loop {
        // Asked before the look, so that what was published before the end is not missed.
        let ends = live.follow().workspace.database().inner.watchers.is_closed();
        if let Some(change) = step(live) {
            return Some(change);
        }
        let follow = live.follow();
        if ends || follow.failed.is_some() {
            return None;
        }
        let watchers = &follow.workspace.database().inner.watchers;
        let position = follow.position();
        std::future::poll_fn(|context| match watchers.poll_after(position, context.waker()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        })
        .await;
    }
}

macro_rules! receiving {
    ($change:ty) => {
        /// Waits for the next difference. `None` once the database is closed or the watch failed,
        /// see `error`.
        pub fn recv(&mut self) -> Option<$change> {
            wait(self, None)
        }

        /// Waits at most `timeout` for the next difference. `None` if nothing changed in time,
        /// and as `recv`.
        pub fn recv_timeout(&mut self, timeout: Duration) -> Option<$change> {
            wait(self, Some(timeout))
        }

        /// Resolves to the next difference; `None` as `recv`. Dropping the future loses nothing.
        pub async fn next(&mut self) -> Option<$change> {
            next(self).await
        }

        /// What ended the watch, if it failed.
        #[must_use]
        pub fn error(&self) -> Option<&Error> {
            self.follow.failed.as_ref()
        }

        /// True if the database is closed or the watch failed: no change will come any more.
        #[must_use]
        pub fn is_closed(&self) -> bool {
            let watchers = &self.follow.workspace.database().inner.watchers;
            self.follow.failed.is_some() || watchers.is_closed()
        }
    };
}

impl<T: DeserializeOwned> Live<T> {
    receiving!(Diff<T>);

    /// How often the query was run so far: once for the first difference, then only after changes
    /// that could touch its result.
    #[must_use]
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }
}

impl LiveRecords {
    receiving!(Vec<RecordChange>);
}

impl<T: DeserializeOwned> Look for Live<T> {
    type Change = Diff<T>;

    fn follow(&mut self) -> &mut Follow {
        &mut self.follow
    }

    fn look(&mut self, view: &WorkspaceView, since: Option<u64>) -> Result<Option<Diff<T>>> {
        if let Some(since) = since
            && !view.touched(&self.plan, self.last.as_deref(), since)?
        {
            return Ok(None);
        }
        self.evaluations += 1;
        let found = view.rows(&self.plan)?;
        let last = found.last().filter(|_| found.len() == self.plan.limit);
        self.last = last.and_then(|shown| self.plan.place(&shown.key, &shown.record));
        let mut before: BTreeMap<String, (u64, Row<T>)> = BTreeMap::new();
        for (print, row) in &self.rows {
            before.insert(row.key().to_owned(), (*print, row.clone()));
        }
        let (mut added, mut changed, mut now) = (Vec::new(), Vec::new(), Vec::new());
        for shown in found {
            let print = fingerprint(shown.seq, &shown.record);
            let row = match before.remove(shown.key.as_str()) {
                Some((known, row)) if known == print => row,
                Some(_) => pushed(&mut changed, &shown)?,
                None => pushed(&mut added, &shown)?,
            };
            now.push((print, row));
        }
        let removed: Vec<Row<T>> = before.into_values().map(|(_, row)| row).collect();
        self.rows = now;
        let is_news = !(added.is_empty() && changed.is_empty() && removed.is_empty());
        if since.is_some() && !is_news {
            return Ok(None);
        }
        let rows = self.rows.iter().map(|(_, row)| row.clone()).collect();
        Ok(Some(Diff { rows, added, changed, removed }))
    }
}

fn pushed<T: DeserializeOwned>(into: &mut Vec<Row<T>>, shown: &Shown) -> Result<Row<T>> {
    let row: Row<T> = Row::from_shown(shown)?;
    into.push(row.clone());
    Ok(row)
}

impl Look for LiveRecords {
    type Change = Vec<RecordChange>;

    fn follow(&mut self) -> &mut Follow {
        &mut self.follow
    }

    fn look(
        &mut self,
        view: &WorkspaceView,
        since: Option<u64>,
    ) -> Result<Option<Vec<RecordChange>>> {
        let mut changes = Vec::new();
        let table = self.table.clone();
        let touched = match since {
            Some(since) => view.changed(table.as_ref(), since),
            None => None,
        };
        match touched {
            Some(names) => {
                let missed = usize::from(planted(Plant::WatchMissesOne) && names.len() > 1);
                for name in names.into_iter().skip(missed) {
                    let stored = view.stored(&name.0, &name.1)?;
                    self.compare(name, stored, &mut changes);
                }
            }
            None => {
                let mut gone = self.shown.clone();
                view.visit_rows(table.as_ref(), &mut |name, stored| {
                    gone.remove(&name);
                    self.compare(name, Some(stored), &mut changes);
                })?;
                gone.into_keys().for_each(|name| self.compare(name, None, &mut changes));
                changes.sort_by(|a, b| (&a.table, &a.key).cmp(&(&b.table, &b.key)));
            }
        }
        Ok((since.is_none() || !changes.is_empty()).then_some(changes))
    }
}

impl LiveRecords {
    fn compare(&mut self, name: Name, stored: Option<StoredRow>, changes: &mut Vec<RecordChange>) {
        let seq = stored.as_ref().map(|stored| stored.row.last.seq);
        let pending = seq == Some(PENDING_SEQ);
        let seq = seq.filter(|_| !pending);
        let record = stored.filter(|stored| !stored.row.deleted).map(|stored| stored.row.record);
        let print = record.as_ref().map(|record| fingerprint(seq, record));
        if self.shown.get(&name).copied() == print {
            return;
        }
        match print {
            Some(print) => self.shown.insert(name.clone(), print),
            None => self.shown.remove(&name),
        };
        let (table, key) = name;
        changes.push(RecordChange { table, key, record, seq, pending });
    }
}

/// Tells versions of one record apart without keeping their values.
fn fingerprint(seq: Option<u64>, record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seq.unwrap_or(PENDING_SEQ));
    for field in record.fields() {
        for bytes in [field.name.as_bytes(), &field.value] {
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use lastword_core::hlc::Hlc;
    use lastword_core::id::{BatchId, DeviceId, Key};
    use lastword_core::protocol::{Decided, Entry};
    use lastword_core::row::Row;
    use lastword_core::stamp::{Decision, Mark, RefusalCode, Verdict};
    use lastword_store::payload::{Payload, RemotePage, Verdicts};

    use super::{Diff, Live};
    use crate::{Database, Table, Workspace, convert, dead_letter};

    type Note = BTreeMap<String, String>;
    const NOTES: Table<Note> = Table::new("notes", "id");

    fn note(id: &str, text: &str) -> Note {
        BTreeMap::from([("id".into(), id.into()), ("text".into(), text.into())])
    }

    /// Appends a frame as a sync session does, while the database is open.
    fn receive(ws: &Workspace, frame: Payload) {
        let appended = ws
            .database()
            .inner
            .writer
            .run(move |store| Ok(store.append(frame.kind(), &frame.to_bytes())?));
        appended.unwrap();
    }

    fn page(ws: &Workspace, from: u64, rows: &[(&str, u64)], is_end: bool) {
        let entries: Vec<Entry> = rows.iter().map(|(id, seq)| entry(id, *seq)).collect();
        let to = from + rows.len() as u64;
        receive(
            ws,
            Payload::Remote(RemotePage {
                workspace: ws.name().clone(),
                from,
                to,
                consistent_at: is_end.then_some(to),
                previous: vec![0; entries.len()],
                entries,
                walk: None,
            }),
        );
    }

    fn entry(id: &str, seq: u64) -> Entry {
        let mark = Mark { seq, writer: DeviceId([9; 16]) };
        let row = Row {
            deleted: false,
            last: mark,
            time_ms: 1,
            born: mark,
            full: mark,
            fields: Vec::new(),
            set_at: 0,
            revision: 1,
            hlc: Hlc::default(),
            op_id: BatchId::default(),
            record: convert::to_record(&note(id, "hi")).unwrap(),
        };
        let table = lastword_core::id::TableName::new("notes").unwrap();
        Entry::Row { table, key: Key::new(id).unwrap(), row }
    }

    /// Keys of what a difference says: added, changed, removed.
    fn told(live: &mut Live<Note>) -> Option<[Vec<String>; 3]> {
        let Diff { added, changed, removed, .. } = live.recv_timeout(Duration::ZERO)?;
        let keys = |rows: Vec<crate::Row<Note>>| {
            rows.iter().map(|row| row.key().to_owned()).collect::<Vec<_>>()
        };
        Some([keys(added), keys(changed), keys(removed)])
    }

    /// Remote changes arrive in live queries (R1.3) at consistent points only (I6): a verdict is a
    /// change, a page without its end shows nothing, what only confirms an own write is no change,
    /// and a refused write goes.
    #[test]
    fn sync_shows_in_a_live_query() {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::builder().tables(NOTES).open(dir.path().join("db")).unwrap();
        let ws = db.workspace("main").unwrap();
        let mut live = ws.watch(&NOTES.all()).unwrap();
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        assert_eq!(told(&mut live), Some([keys(&[]), keys(&[]), keys(&[])]));
        let receipt = ws.write(|tx| tx.put(NOTES, &note("n1", "hi"))).unwrap();
        assert_eq!(told(&mut live), Some([keys(&["n1"]), keys(&[]), keys(&[])]));

        let verdicts = vec![Verdict::Applied { dropped: Vec::new() }];
        let decision = Decision::Accepted { first_seq: 1, last_seq: 1, time_ms: 1, verdicts };
        let batch_id = receipt.batch_id().unwrap();
        let decisions = vec![Decided { counter: 1, batch_id, decision }];
        receive(&ws, Payload::Verdicts(Verdicts { workspace: ws.name().clone(), decisions }));
        assert_eq!(told(&mut live), Some([keys(&[]), keys(&["n1"]), keys(&[])]));
        assert_eq!(ws.get(NOTES, "n1").unwrap().unwrap().seq(), Some(1));
        page(&ws, 0, &[("n1", 1)], true);
        assert_eq!(told(&mut live), None);

        page(&ws, 1, &[("n2", 2), ("n3", 3)], false);
        assert_eq!(told(&mut live), None);
        page(&ws, 3, &[("n1", 4)], true);
        assert_eq!(told(&mut live), Some([keys(&["n2", "n3"]), keys(&["n1"]), keys(&[])]));

        let receipt = ws.write(|tx| tx.put(NOTES, &note("n4", "no"))).unwrap();
        assert_eq!(told(&mut live), Some([keys(&["n4"]), keys(&[]), keys(&[])]));
        let (code, message) = (RefusalCode::Policy, "no".to_owned());
        let decision = Decision::Refused { code, message, time_ms: 2 };
        let refused = Decided { counter: 2, batch_id: receipt.batch_id().unwrap(), decision };
        let unit = dead_letter::unit(&*db.view(), ws.name(), &refused, 1).unwrap();
        receive(&ws, Payload::DeadLetters(unit));
        assert_eq!(told(&mut live), Some([keys(&[]), keys(&[]), keys(&["n4"])]));
    }
}
