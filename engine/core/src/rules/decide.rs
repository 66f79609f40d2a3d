//! What an op does to its row.

use alloc::string::String;
use alloc::vec::Vec;

use super::conflict::{self, Conflict};
use super::{At, Policy, TableRules, Writer, apply};
use crate::op::{Action, Op, TombstoneRef};
use crate::plant::{Plant, planted};
use crate::row::Row;
use crate::stamp::{Mark, Superseded, Verdict};
use crate::value::ValueError;

/// The result of judging one op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is logged and told to the writer.
    pub verdict: Verdict,
    /// The new row, if it changed.
    pub row: Option<Row>,
    /// Conflicts to record, one per losing device.
    pub conflicts: Vec<Conflict>,
}

/// Judges `op` against the newest row of its record.
///
/// # Errors
/// [`ValueError`] if the resulting record would break a limit; the authority then refuses the
/// whole batch.
pub fn decide(
    row: Option<&Row>,
    op: &Op,
    writer: &Writer<'_>,
    at: &At,
    rules: TableRules<'_>,
) -> Result<Outcome, ValueError> {
    let mut case = Case { row, op, writer, at, rules, owned: Vec::new() };
    case.owned = case.owned_fields();
    let outcome = match rules.policy {
        Policy::Revision => case.by_revision(),
        Policy::Arrival | Policy::ServerWins => case.by_arrival(),
    };
    if let Some(next) = &outcome.row {
        next.record.check_size()?;
        next.check_marks()?;
    }
    Ok(outcome)
}

struct Case<'a> {
    row: Option<&'a Row>,
    op: &'a Op,
    writer: &'a Writer<'a>,
    at: &'a At,
    rules: TableRules<'a>,
    /// Server-owned fields that the op would set or clear.
    owned: Vec<String>,
}

impl Case<'_> {
    fn by_arrival(&self) -> Outcome {
        match (&self.op.action, self.row) {
            (Action::Create { replace, .. }, row) => self.create(row, *replace),
            (Action::Undelete { tombstone }, row) => self.undelete(row, *tombstone),
            (_, None) => self.superseded(Superseded::Dead),
            (_, Some(row)) if row.deleted => self.superseded(Superseded::Dead),
            (_, Some(row))
                if self.writer.unseen(row.born, self.op.base) && !planted(Plant::EditNextLife) =>
            {
                self.superseded(Superseded::EarlierLife)
            }
            (Action::Patch { set, remove }, Some(row)) => {
                let names: Vec<&String> = set.iter().map(|f| &f.name).chain(remove).collect();
                self.patch(row, &names)
            }
            (Action::Put { .. } | Action::Delete, Some(row)) => self.whole(row),
        }
    }

    fn create(&self, row: Option<&Row>, replace: bool) -> Outcome {
        let Some(row) = row else { return self.applied(Vec::new()) };
        if self.writer.strict {
            return self.superseded(Superseded::Exists);
        }
        if row.deleted {
            return self.applied(Vec::new());
        }
        match replace {
            false if planted(Plant::CreateOverwrites) => self.applied(Vec::new()),
            false => self.superseded(Superseded::Exists),
            true if self.any_unseen(row) => self.superseded(Superseded::Stale),
            true => self.applied(Vec::new()),
        }
    }

    fn undelete(&self, row: Option<&Row>, tombstone: TombstoneRef) -> Outcome {
        let current = row.filter(|row| row.deleted).is_some_and(|row| match tombstone {
            TombstoneRef::Seq(seq) => row.last.seq == seq || planted(Plant::UndeleteAnyTombstone),
            TombstoneRef::Batch(batch) => row.op_id == batch,
        });
        match current {
            true if row.is_some_and(Row::is_erased) && !planted(Plant::UndeleteErased) => {
                self.superseded(Superseded::ValueGone)
            }
            true => self.applied(Vec::new()),
            // Its tombstone was purged or the record erased, and the value with it.
            false if row.is_none_or(Row::is_erased) => self.superseded(Superseded::ValueGone),
            false => self.superseded(Superseded::NotThatTombstone),
        }
    }

    fn whole(&self, row: &Row) -> Outcome {
        let stale = self.any_unseen(row);
        if stale && (self.writer.strict || self.rules.policy == Policy::ServerWins) {
            return self.superseded(Superseded::Stale);
        }
        let conflicts = if stale { self.overwritten(row) } else { Vec::new() };
        self.applied(conflicts)
    }

    fn patch(&self, row: &Row, names: &[&String]) -> Outcome {
        let by_record = planted(Plant::StaleByRecord);
        let mark = |name: &str| if by_record { row.last } else { row.field_mark(name) };
        let stale: Vec<String> = names
            .iter()
            .filter(|name| !self.owned.contains(name))
            .filter(|name| self.writer.unseen(mark(name), self.op.base))
            .map(|name| String::clone(name))
            .collect();
        if stale.is_empty() {
            return self.applied(Vec::new());
        }
        if self.writer.strict {
            return self.superseded(Superseded::Stale);
        }
        let left = names.len() - self.owned.len();
        match self.rules.policy {
            Policy::ServerWins if planted(Plant::StaleFieldKept) => self.applied(Vec::new()),
            Policy::ServerWins if stale.len() == left => self.superseded(Superseded::Stale),
            Policy::ServerWins => {
                let lost = conflict::dropped(row, self.op, self.writer.device, self.at, &stale);
                let dropped: Vec<String> = stale.into_iter().chain(self.owned.clone()).collect();
                Outcome {
                    row: self.row_without(&dropped),
                    verdict: Verdict::Applied { dropped },
                    conflicts: lost.into_iter().collect(),
                }
            }
            _ => self.applied(self.overwritten(row)),
        }
    }

    fn by_revision(&self) -> Outcome {
        let (Action::Create { .. } | Action::Put { .. } | Action::Delete) = &self.op.action else {
            return self.superseded(Superseded::LowerRevision);
        };
        let Some(row) = self.row else { return self.applied(Vec::new()) };
        let ours = (self.op.revision, self.op.hlc, self.at.op_id);
        let is_tie = planted(Plant::TieByArrival) && self.op.revision == row.revision;
        let is_delete = planted(Plant::DeleteByArrival) && self.op.action == Action::Delete;
        if ours <= (row.revision, row.hlc, row.op_id) && !is_tie && !is_delete {
            return self.superseded(Superseded::LowerRevision);
        }
        if self.writer.strict {
            match &self.op.action {
                Action::Create { .. } => return self.superseded(Superseded::Exists),
                _ if self.any_unseen(row) => return self.superseded(Superseded::Stale),
                _ => {}
            }
        }
        let contested = self.op.revision <= row.revision;
        let lost = self.next_row().filter(|_| contested && !self.is_known_content());
        let lost = lost.and_then(|next| conflict::outranked(row, &next, self.at));
        self.applied(lost.and_then(|lost| self.of_clients(lost)))
    }

    fn any_unseen(&self, row: &Row) -> bool {
        let base = self.op.base;
        if planted(Plant::PutByLastWriter) {
            return self.writer.unseen(row.last, base);
        }
        [row.last, row.full, row.born]
            .into_iter()
            .chain(row.fields.iter().map(|field| field.mark))
            .any(|mark| self.writer.unseen(mark, base))
    }

    fn next_row(&self) -> Option<Row> {
        self.row_without(&self.owned)
    }

    fn row_without(&self, dropped: &[String]) -> Option<Row> {
        apply(self.row, self.op, self.writer.device, self.at, self.rules, dropped)
    }

    /// Server-owned fields that a client's op would make other than they are: those that it sets,
    /// and, where it writes the whole record on a live row, those that it leaves out.
    fn owned_fields(&self) -> Vec<String> {
        if self.writer.is_authority() || planted(Plant::OwnedSetByClient) {
            return Vec::new();
        }
        let changed: &dyn Fn(&String) -> bool = match &self.op.action {
            Action::Create { record, .. } | Action::Put { record } => {
                let ends_life = matches!(self.op.action, Action::Create { replace: true, .. });
                let live = self.row.filter(|row| !row.deleted && !ends_life);
                &move |name| record.field(name) != live.and_then(|row| row.record.field(name))
            }
            Action::Patch { set, remove } => {
                &|name| set.iter().any(|field| field.name == *name) || remove.contains(name)
            }
            Action::Delete | Action::Undelete { .. } => &|_| false,
        };
        self.rules.server_owned.iter().filter(|name| changed(name)).cloned().collect()
    }

    /// A create of a live record whose key says what it is: both sides mean the same.
    fn is_known_content(&self) -> bool {
        let live = self.row.is_some_and(|row| !row.deleted);
        let creates = matches!(self.op.action, Action::Create { replace: false, .. });
        self.rules.content_keyed && live && creates && !planted(Plant::ContentTwice)
    }

    fn applied(&self, conflicts: impl IntoIterator<Item = Conflict>) -> Outcome {
        let verdict = Verdict::Applied { dropped: self.owned.clone() };
        Outcome { verdict, row: self.next_row(), conflicts: conflicts.into_iter().collect() }
    }

    /// What others wrote unseen and this op takes away.
    fn overwritten(&self, row: &Row) -> Vec<Conflict> {
        let unseen = |mark: Mark| self.writer.unseen(mark, self.op.base);
        let Some(next) = self.next_row() else { return Vec::new() };
        conflict::overwritten(row, &next, self.at, &unseen, self.rules)
    }

    /// A conflict without the fields that the server owns, if anything is left of it.
    fn of_clients(&self, mut conflict: Conflict) -> Option<Conflict> {
        let named = !conflict.fields.is_empty();
        conflict.fields.retain(|field| !self.rules.owns(&field.name));
        let is_left = !conflict.fields.is_empty() || !named;
        (is_left || conflict.winner_deletes != conflict.loser_deletes).then_some(conflict)
    }

    fn superseded(&self, reason: Superseded) -> Outcome {
        let by = self.row.map_or(0, |row| row.last.seq);
        let dead = self.row.is_none_or(|row| row.deleted);
        let silent = match &self.op.action {
            Action::Undelete { .. } => true,
            Action::Delete => dead,
            _ => self.is_known_content(),
        };
        let unseen = |mark: Mark| self.writer.unseen(mark, self.op.base);
        let (device, at) = (self.writer.device, self.at);
        let lost = || conflict::lost(self.row, self.op, device, at, self.rules, reason, &unseen);
        let lost = if silent || planted(Plant::LoserNotTold) { None } else { lost() };
        let verdict = Verdict::Superseded { by, reason };
        Outcome { verdict, row: None, conflicts: lost.into_iter().collect() }
    }
}
