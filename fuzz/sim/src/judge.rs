//! Which verdict an op must get, by the rules of `docs/semantics.md` and nothing else: no rule of
//! the engine is asked, so a rule that is wrong is found also where all replicas agree on it.

use std::collections::BTreeSet;

use lastword::core::id::{BatchId, DeviceId, TableName};
use lastword::core::op::{Action, Batch, Op, TombstoneRef};
use lastword::core::rules::Policy;
use lastword::core::schema::Schema;
use lastword::core::stamp::{RefusalCode, Superseded, Verdict};
use lastword::core::value::{Field, Record};

use crate::fault::Violation;
use crate::oracle::{Fields, Folded, Kept, Mark, Name, Written, name_of};

/// What a schema says of one table.
#[derive(Debug, Clone)]
pub struct Rules {
    policy: Policy,
    content_keyed: bool,
    owned: Vec<String>,
    pub private_by: Option<String>,
}

impl Rules {
    /// None if no op on the table is taken.
    pub fn of(schema: Option<&Schema>, table: &str) -> Option<Self> {
        let Some(schema) = schema else {
            let (policy, content_keyed, owned, private_by) =
                (Policy::Arrival, false, Vec::new(), None);
            return Some(Self { policy, content_keyed, owned, private_by });
        };
        let known = schema.table(&TableName::new(table).ok()?).filter(|table| !table.local)?;
        let (owned, private_by) = (known.server_owned.clone(), known.private_by.clone());
        let (policy, content_keyed) = (known.policy, known.content_keyed);
        Some(Self { policy, content_keyed, owned, private_by })
    }
}

/// The text in a field.
#[must_use]
pub fn text_of(fields: &Fields, name: &str) -> Option<String> {
    let (_, value) = fields.iter().find(|(known, _)| known == name)?;
    let field = Field { name: name.to_owned(), value: value.clone() };
    match field.decode_value() {
        Ok(lastword::core::value::Value::Text(text)) => Some(text),
        _ => None,
    }
}

impl Folded {
    /// Why the whole batch has to be refused, if it has to.
    #[must_use]
    pub fn refusal(&self, written: &Written) -> Option<RefusalCode> {
        if written.ops.iter().any(|op| self.rules(op.table.as_str()).is_none()) {
            return Some(RefusalCode::UnknownTable);
        }
        let foreign = |op: &Op| {
            let field = self.rules(op.table.as_str()).and_then(|rules| rules.private_by);
            let Some(field) = field else { return false };
            let row = self.rows.get(&name_of(op));
            let named = row.and_then(|row| text_of(&row.fields, &field));
            let taken = row.is_some_and(|row| !row.deleted) || named.is_some();
            let says = |record: &Record| text_of(&to_fields(record), &field);
            let becomes = match &op.action {
                Action::Create { record, .. } | Action::Put { record } => says(record),
                Action::Patch { set, .. } => {
                    let set = set.iter().map(|f| (f.name.clone(), f.value.clone())).collect();
                    text_of(&set, &field).or_else(|| Some(written.user.clone()))
                }
                _ => Some(written.user.clone()),
            };
            (taken && named.as_ref() != Some(&written.user))
                || becomes.as_ref() != Some(&written.user)
        };
        written.ops.iter().any(foreign).then_some(RefusalCode::Policy)
    }
}

fn to_fields(record: &Record) -> Fields {
    record.fields().iter().map(|field| (field.name.clone(), field.value.clone())).collect()
}

fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a Vec<u8>> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// One op, and the record that it meets.
pub struct Case<'a> {
    row: Option<Kept>,
    rules: Rules,
    batch: &'a Batch,
    op: &'a Op,
    base: u64,
    mark: Mark,
}

impl<'a> Case<'a> {
    pub fn new(folded: &Folded, batch: &'a Batch, op: &'a Op, seq: u64) -> Self {
        let row = folded.rows.get(&name_of(op)).cloned();
        let base = if folded.is_lost(op.base) { 0 } else { op.base };
        let all = Rules::of(None, "").expect("invariant: without a schema all is taken");
        let rules = folded.rules(op.table.as_str()).unwrap_or(all);
        Self { row, rules, batch, op, base, mark: (seq, batch.device) }
    }

    fn unseen(&self, mark: Mark) -> bool {
        mark.0 > self.base && mark.1 != self.batch.device && !self.batch.former.contains(&mark.1)
    }

    fn live(&self) -> Option<&Kept> {
        self.row.as_ref().filter(|row| !row.deleted)
    }

    fn any_unseen(&self, row: &Kept) -> bool {
        [row.last, row.full, row.born].iter().chain(row.marks.values()).any(|m| self.unseen(*m))
    }

    /// Fields of the server that the op would change.
    fn owned(&self) -> Vec<String> {
        let changes = |name: &&String| match &self.op.action {
            Action::Create { record, replace } => {
                let old = self.live().filter(|_| !replace);
                let old = old.and_then(|row| value(&row.fields, name));
                value(&to_fields(record), name) != old
            }
            Action::Put { record } => {
                let old = self.live().and_then(|row| value(&row.fields, name));
                value(&to_fields(record), name) != old
            }
            Action::Patch { set, remove } => {
                set.iter().any(|field| field.name == **name) || remove.contains(name)
            }
            Action::Delete | Action::Undelete { .. } => false,
        };
        self.rules.owned.iter().filter(changes).cloned().collect()
    }

    /// The verdict that is due, and the devices that a conflict row has to tell.
    #[must_use]
    pub fn judge(&self) -> (Verdict, Vec<String>) {
        let owned = self.owned();
        let (why, stale) = self.stands_against(&owned);
        if let Some(reason) = why {
            let by = self.row.as_ref().map_or(0, |row| row.last.0);
            return (Verdict::Superseded { by, reason }, self.loses());
        }
        let revision = self.rules.policy == Policy::Revision;
        let dropped = match self.rules.policy {
            Policy::ServerWins if matches!(self.op.action, Action::Patch { .. }) => {
                stale.iter().cloned().chain(owned).collect()
            }
            _ => owned,
        };
        let verdict = Verdict::Applied { dropped };
        let lost: BTreeSet<String> = match self.rules.policy {
            Policy::ServerWins => self.drops(&stale).into_iter().collect(),
            _ if revision => self.outranks(&verdict).into_iter().collect(),
            _ => self.overwrites(&verdict, !stale.is_empty()),
        };
        (verdict, lost.into_iter().collect())
    }

    /// Why the op is superseded, if it is; else the fields that it had not seen.
    fn stands_against(&self, owned: &[String]) -> (Option<Superseded>, Vec<String>) {
        let because = |reason| (Some(reason), Vec::new());
        let free = (None, Vec::new());
        if self.rules.policy == Policy::Revision {
            return (self.outranked(), Vec::new());
        }
        let row = match (&self.op.action, &self.row) {
            (Action::Create { .. }, Some(_)) if self.batch.strict => {
                return because(Superseded::Exists);
            }
            (Action::Create { replace, .. }, Some(row)) if !row.deleted => {
                return match replace {
                    false => because(Superseded::Exists),
                    true if self.any_unseen(row) => because(Superseded::Stale),
                    true => free,
                };
            }
            (Action::Create { .. }, _) => return free,
            (Action::Undelete { tombstone }, row) => {
                let named = row.as_ref().filter(|row| row.deleted).filter(|row| match tombstone {
                    TombstoneRef::Seq(seq) => row.last.0 == *seq,
                    TombstoneRef::Batch(batch) => row.tuple.2 == *batch,
                });
                let erased = |row: &Kept| {
                    row.deleted && row.last.1 == DeviceId::AUTHORITY && row.born == row.last
                };
                return match named {
                    None if row.as_ref().is_none_or(erased) => because(Superseded::ValueGone),
                    None => because(Superseded::NotThatTombstone),
                    Some(row) if erased(row) => because(Superseded::ValueGone),
                    Some(_) => free,
                };
            }
            (_, Some(row)) if !row.deleted => row,
            _ => return because(Superseded::Dead),
        };
        if self.unseen(row.born) {
            return because(Superseded::EarlierLife);
        }
        let hard = self.batch.strict || self.rules.policy == Policy::ServerWins;
        let Action::Patch { set, remove } = &self.op.action else {
            return match self.any_unseen(row) {
                true if hard => because(Superseded::Stale),
                true => (None, vec![String::new()]),
                false => free,
            };
        };
        let named = set.iter().map(|field| &field.name).chain(remove);
        let named: Vec<&String> = named.filter(|name| !owned.contains(name)).collect();
        let mark = |name: &String| row.marks.get(name).copied().unwrap_or(row.full);
        let stale = named.iter().filter(|name| self.unseen(mark(name)));
        let stale: Vec<String> = stale.map(|name| (*name).clone()).collect();
        let nothing_left = hard && stale.len() == named.len() && !stale.is_empty();
        match nothing_left || (self.batch.strict && !stale.is_empty()) {
            true => because(Superseded::Stale),
            false => (None, stale),
        }
    }

    fn outranked(&self) -> Option<Superseded> {
        if matches!(self.op.action, Action::Patch { .. } | Action::Undelete { .. }) {
            return Some(Superseded::LowerRevision);
        }
        let row = self.row.as_ref()?;
        if self.tuple() <= row.tuple {
            return Some(Superseded::LowerRevision);
        }
        match &self.op.action {
            _ if !self.batch.strict => None,
            Action::Create { .. } => Some(Superseded::Exists),
            _ => self.any_unseen(row).then_some(Superseded::Stale),
        }
    }

    fn tuple(&self) -> (u64, u64, BatchId) {
        (self.op.revision, self.op.hlc.0, self.batch.batch_id)
    }

    fn is_owned(&self, name: &str) -> bool {
        self.rules.owned.iter().any(|owned| owned == name)
    }

    /// What the op wants of each field, other fields than the server's.
    fn wants(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let empty = Fields::new();
        let now = self.live().map_or(&empty, |row| &row.fields);
        let mut wanted: Vec<(String, Option<Vec<u8>>)> = match &self.op.action {
            Action::Create { record, .. } | Action::Put { record } => {
                let gone = now.iter().filter(|(name, _)| record.field(name).is_none());
                let gone = gone.map(|(name, _)| (name.clone(), None));
                let kept = to_fields(record).into_iter().map(|(name, value)| (name, Some(value)));
                kept.chain(gone).collect()
            }
            Action::Patch { set, remove } => {
                let set = set.iter().map(|field| (field.name.clone(), Some(field.value.clone())));
                set.chain(remove.iter().map(|name| (name.clone(), None))).collect()
            }
            Action::Delete | Action::Undelete { .. } => Vec::new(),
        };
        wanted.retain(|(name, wish)| !self.is_owned(name) && value(now, name) != wish.as_ref());
        wanted
    }

    /// A superseded op lost, unless it wanted what stands.
    fn loses(&self) -> Vec<String> {
        let deletes = self.op.action == Action::Delete;
        let live = self.live().is_some();
        let again = matches!(self.op.action, Action::Create { replace: false, .. });
        let silent = match self.op.action {
            Action::Undelete { .. } => true,
            Action::Delete => !live,
            _ => (self.rules.content_keyed && live && again) || (live && self.wants().is_empty()),
        };
        let told = !silent || (deletes && live);
        told.then(|| self.batch.device.to_string()).into_iter().collect()
    }

    /// Under `server_wins` the writer loses its stale fields.
    fn drops(&self, stale: &[String]) -> Option<String> {
        let lost = self.wants().iter().any(|(name, _)| stale.contains(name));
        lost.then(|| self.batch.device.to_string())
    }

    fn differing(&self, next: &Kept) -> Vec<String> {
        let empty = Fields::new();
        let old = self.live().map_or(&empty, |row| &row.fields);
        let new = if next.deleted { &empty } else { &next.fields };
        let names: BTreeSet<&String> = old.iter().chain(new).map(|(name, _)| name).collect();
        let differs = |name: &&String| value(old, name) != value(new, name) && !self.is_owned(name);
        names.into_iter().filter(differs).cloned().collect()
    }

    /// Under `revision` the earlier version lost if the op has no greater revision.
    fn outranks(&self, verdict: &Verdict) -> Option<String> {
        let row = self.row.as_ref()?;
        let next = self.next(verdict)?;
        let contested = self.op.revision <= row.tuple.0;
        let differs = row.deleted != next.deleted || !self.differing(&next).is_empty();
        (contested && differs).then(|| row.last.1.to_string())
    }

    /// Under `arrival` whoever wrote unseen what is gone now has lost it.
    fn overwrites(&self, verdict: &Verdict, stale: bool) -> BTreeSet<String> {
        let (Some(row), Some(next), true) = (self.live(), self.next(verdict), stale) else {
            return BTreeSet::new();
        };
        let gone = next.deleted;
        let mut names: BTreeSet<&String> = row.fields.iter().map(|(name, _)| name).collect();
        names.extend(row.marks.keys());
        if !gone {
            names.extend(next.fields.iter().map(|(name, _)| name));
        }
        let mut lost = BTreeSet::new();
        for name in names.into_iter().filter(|name| !self.is_owned(name)) {
            let mark = row.marks.get(name).copied().unwrap_or(row.full);
            let differs = gone || value(&row.fields, name) != value(&next.fields, name);
            if self.unseen(mark) && differs {
                lost.insert(mark.1.to_string());
            }
        }
        if lost.is_empty() && gone {
            let marks = [row.last, row.full, row.born];
            lost.extend(marks.into_iter().find(|m| self.unseen(*m)).map(|m| m.1.to_string()));
        }
        lost
    }

    /// The record after the verdict, if it changes it.
    #[must_use]
    pub fn next(&self, verdict: &Verdict) -> Option<Kept> {
        let Verdict::Applied { dropped } = verdict else { return None };
        let row = self.row.clone().unwrap_or_default();
        let live = self.live().is_some();
        let whole = |fields: Fields, born: Mark| Kept {
            deleted: false,
            last: self.mark,
            born,
            full: self.mark,
            fields,
            ..Kept::default()
        };
        let kept = |record: &Record, old: Option<&Kept>| {
            let mut fields = to_fields(record);
            for name in dropped {
                match old.and_then(|old| value(&old.fields, name)) {
                    Some(value) => set(&mut fields, name, value),
                    None => fields.retain(|(known, _)| known != name),
                }
            }
            fields
        };
        let mut next = match &self.op.action {
            Action::Create { record, replace } if *replace || !live => {
                whole(kept(record, None), self.mark)
            }
            Action::Create { record, .. } | Action::Put { record } => {
                let born = if live { row.born } else { self.mark };
                whole(kept(record, self.live()), born)
            }
            Action::Delete if self.rules.policy == Policy::Revision => {
                let private = |name: &String| Some(name) == self.rules.private_by.as_ref();
                let fields = row.fields.into_iter().filter(|(name, _)| private(name)).collect();
                Kept { deleted: true, ..whole(fields, self.mark) }
            }
            Action::Delete => Kept { deleted: true, last: self.mark, ..row },
            Action::Undelete { .. } => whole(row.fields, row.born),
            Action::Patch { set: new, remove } => {
                let mut next = Kept { last: self.mark, ..row };
                for field in new.iter().filter(|field| !dropped.contains(&field.name)) {
                    set(&mut next.fields, &field.name, &field.value);
                    next.marks.insert(field.name.clone(), self.mark);
                }
                for name in remove.iter().filter(|name| !dropped.contains(name)) {
                    next.fields.retain(|(known, _)| known != name);
                    next.marks.insert(name.clone(), self.mark);
                }
                next
            }
        };
        next.tuple = self.tuple();
        Some(next)
    }

    /// The record after an op of the authority: fields that it owns are nobody's edit.
    #[must_use]
    pub fn next_own(&self) -> Option<Kept> {
        let next = self.next(&Verdict::Applied { dropped: Vec::new() })?;
        let Action::Patch { set, remove } = &self.op.action else { return Some(next) };
        let owned =
            set.iter().map(|field| &field.name).chain(remove).all(|name| self.is_owned(name));
        match &self.row {
            Some(row) if owned && !row.deleted => Some(Kept { fields: next.fields, ..row.clone() }),
            _ => Some(next),
        }
    }

    /// # Errors
    /// [`Violation`] if the verdict is not the one that is due.
    pub fn compare(&self, expected: &Verdict, actual: &Verdict) -> Result<(), Violation> {
        if expected == actual {
            return Ok(());
        }
        let applied = matches!(actual, Verdict::Applied { .. });
        let id = match self.op.action {
            Action::Undelete { .. } => "I24",
            Action::Create { .. } if applied && self.live().is_some() => "I23",
            _ if applied && self.live().is_none() => "I23",
            _ => "I26",
        };
        let (table, key): Name = name_of(self.op);
        let Kept { last, born, full, marks, .. } = self.row.clone().unwrap_or_default();
        let text = format!(
            "{table}/{key} at {}: {actual:?} where {expected:?} is due; base {}, strict {}, \
             last {last:?} born {born:?} full {full:?} marks {marks:?}",
            self.mark.0, self.op.base, self.batch.strict
        );
        Err(Violation::new(id, text))
    }
}

fn set(fields: &mut Fields, name: &str, value: &[u8]) {
    match fields.iter_mut().find(|(known, _)| known == name) {
        Some(field) => field.1 = value.to_vec(),
        None => fields.push((name.to_owned(), value.to_vec())),
    }
}
