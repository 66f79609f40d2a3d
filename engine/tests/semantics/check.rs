//! What an example can say.

use std::collections::BTreeMap;

use lastword::core::json;
use lastword::core::protocol::replica::SyncStatus;
use lastword::core::stamp::{Decision, Verdict};
use lastword::core::value::{Record, Value};
use lastword::{Conflict, Settled, Shown};

use crate::notation::{in_parentheses, parts, record, record_name};
use crate::play::{Actor, Done, Play, said};

/// Characters of a record that a failure shows.
const MOST_SHOWN: usize = 200;

pub(crate) fn is_in_step(actor: &Actor) -> bool {
    let status = actor.device.status(actor.workspace.name());
    matches!(status, SyncStatus::Live { .. })
}

fn expect(what: &str, expected: &str, found: &str) -> Done {
    match expected == found {
        true => Ok(()),
        false => Err(format!("{what}: the page says {expected}, it is {found}")),
    }
}

impl Play {
    pub(crate) fn check(&mut self, text: &str) -> Done {
        if let Some(expected) = text.strip_prefix("error: ") {
            let error = self.error.take().unwrap_or_else(|| "no error".into());
            return match error.contains(expected) {
                true => Ok(()),
                false => Err(format!("the page says {expected}, it is {error}")),
            };
        }
        if let Some(error) = self.error.take() {
            return Err(format!("the step before failed: {error}"));
        }
        if let Some(conflict) = text.strip_prefix("conflict on ") {
            return self.check_conflict(conflict);
        }
        if text == "no conflict" {
            return self.check_all_named();
        }
        if let Some((name, verdicts)) = text.split_once(": ").filter(|(name, _)| name.len() == 1) {
            return self.check_verdicts(name, verdicts);
        }
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["no", name] => self.check_everywhere(name, None),
            [name, "=", ..] => {
                let value = text.split_once(" = ").map(|(_, value)| value).unwrap_or_default();
                self.check_everywhere(name, Some(value))
            }
            [name, "shows", ..] => {
                let what = text.splitn(3, ' ').nth(2).unwrap_or_default();
                self.check_shown(name, what)
            }
            [name, "hears", "nothing"] => {
                let heard = self.actor(name)?.heard.lock().unwrap().pop_front();
                expect(name, "nothing", &heard.unwrap_or_else(|| "nothing".into()))
            }
            [name, "hears", "of", named] => {
                let (table, key) = record_name(named)?;
                let heard = self.actor(name)?.heard.lock().unwrap().pop_front();
                let heard = heard.unwrap_or_else(|| "nothing".into());
                expect(name, &format!("{table}/{key}"), &heard)
            }
            [name, "waits", "with", number, ..] => {
                let waiting = self.actor(name)?.workspace.waiting().map_err(said)?;
                expect(name, number, &waiting.to_string())
            }
            [name, "has", number, "dead", ..] => {
                let (_, code) = in_parentheses(text);
                self.check_dead_letters(name, number, code)
            }
            [name, "is", ..] => {
                let what = text.splitn(3, ' ').nth(2).unwrap_or_default();
                let status = standing(self.actor(name)?);
                expect(name, what, &status)
            }
            _ => Err(format!("no statement: {text}")),
        }
    }

    /// The next batch of a device: `2 applied, 3 superseded (dead), conflict row 4`.
    fn check_verdicts(&mut self, name: &str, expected: &str) -> Done {
        let actor = self.actor(name)?;
        let receipt = actor.written.front().cloned().ok_or("there is no other batch")?;
        let found = match receipt.verdict() {
            None => "not decided".to_owned(),
            Some(Settled::Local) => "local".to_owned(),
            Some(Settled::Decided(decision)) => {
                actor.written.pop_front();
                self.words_of(&decision)?
            }
        };
        let (expected, found_parts) = (parts(expected, ','), parts(&found, ','));
        expect(name, &expected.join(", "), &found_parts.join(", "))
    }

    fn words_of(&self, decision: &Decision) -> Result<String, String> {
        let (first_seq, last_seq, verdicts) = match decision {
            Decision::Refused { code, .. } => return Ok(format!("refused ({code})")),
            Decision::Accepted { first_seq, last_seq, verdicts, .. } => {
                (*first_seq, *last_seq, verdicts)
            }
        };
        let mut words = Vec::new();
        for (seq, verdict) in (first_seq..).zip(verdicts) {
            let seq = self.shown_seq(seq);
            words.push(match verdict {
                Verdict::Applied { dropped } if dropped.is_empty() => format!("{seq} applied"),
                Verdict::Applied { dropped } => {
                    format!("{seq} applied without {}", dropped.join(" and "))
                }
                Verdict::Superseded { reason, .. } => {
                    format!("{seq} superseded ({})", reason.as_str().replace('_', " "))
                }
            });
        }
        let own = first_seq + verdicts.len() as u64..=last_seq;
        let mut rows = BTreeMap::new();
        self.server()?
            .visit_all(&mut |shown, _| {
                if let Some(seq) = shown.seq.filter(|seq| own.contains(seq)) {
                    rows.insert(seq, shown.table);
                }
                Ok(())
            })
            .map_err(said)?;
        for (seq, table) in rows {
            let what = match table.as_str() {
                "_conflicts" => "conflict",
                other => other,
            };
            words.push(format!("{what} row {}", self.shown_seq(seq)));
        }
        Ok(words.join(", "))
    }

    /// Once all is quiet, the server and every device in step with it show this.
    fn check_everywhere(&mut self, name: &str, expected: Option<&str>) -> Done {
        self.cluster.settle().map_err(said)?;
        let (table, key) = record_name(name)?;
        let expected = expected.map(record).transpose()?;
        let at_server = self.server()?.get_record(&table, &key).map_err(said)?;
        check_value("the server", name, expected.as_ref(), at_server.as_ref())?;
        for (device, actor) in &self.actors {
            if is_in_step(actor) {
                let shown = actor.workspace.get_record(&table, &key).map_err(said)?;
                check_value(device, name, expected.as_ref(), shown.as_ref())?;
            }
        }
        Ok(())
    }

    /// What a device shows now: `no n1`, `n1 = {..} (pending)`, `n1 = {..} (seq 2)`.
    fn check_shown(&mut self, device: &str, text: &str) -> Done {
        let (text, state) = in_parentheses(text);
        let (name, expected) = match text.strip_prefix("no ") {
            Some(name) => (name, None),
            None => {
                let (name, value) = text.split_once(" = ").ok_or(format!("no record: {text}"))?;
                (name, Some(record(value)?))
            }
        };
        let (table, key) = record_name(name)?;
        let workspace = self.actor(device)?.workspace.clone();
        let shown = workspace.get_record(&table, &key).map_err(said)?;
        check_value(device, name, expected.as_ref(), shown.as_ref())?;
        let found = match shown.as_ref().and_then(|shown| shown.seq) {
            Some(seq) => format!("seq {}", self.shown_seq(seq)),
            None => "pending".to_owned(),
        };
        state.map_or(Ok(()), |state| expect(device, state, &found))
    }

    /// `n1 (dead): {title: "B"} gave way to a delete`.
    fn check_conflict(&mut self, text: &str) -> Done {
        let (name, sides) = text.split_once(": ").ok_or(format!("no conflict: {text}"))?;
        let (name, reason) = in_parentheses(name);
        let (losing, winning) =
            sides.split_once(" gave way to ").ok_or(format!("no sides: {sides}"))?;
        let (losing, winning) = (side(losing)?, side(winning)?);
        let (table, key) = record_name(name)?;
        self.cluster.settle().map_err(said)?;
        let mut others = Vec::new();
        for row in self.conflicts()? {
            let is_of = row.table == table.as_str() && (*row).key == key.as_str();
            if self.named.contains(row.key()) || !is_of {
                continue;
            }
            let is_reason = reason.is_none_or(|reason| reason == row.reason.replace('_', " "));
            let (lost, won) = sides_of(&row);
            if is_reason && (&lost, &won) == (&losing, &winning) {
                self.named.insert(row.key().to_owned());
                return Ok(());
            }
            others.push(format!("({}) {}", row.reason, shown_sides(&lost, &won)));
        }
        Err(format!("there is no such conflict, but {others:?}"))
    }

    /// The example has named every conflict there is.
    pub(crate) fn check_all_named(&mut self) -> Done {
        self.cluster.settle().map_err(said)?;
        for row in self.conflicts()? {
            if !self.named.contains(row.key()) {
                let (lost, won) = sides_of(&row);
                let name = format!("{}/{}", row.table, (*row).key);
                let reason = &row.reason;
                let sides = shown_sides(&lost, &won);
                return Err(format!(
                    "nothing is said of the conflict on {name} ({reason}): {sides}"
                ));
            }
        }
        Ok(())
    }

    fn check_dead_letters(&mut self, name: &str, number: &str, code: Option<&str>) -> Done {
        let letters = self.actor(name)?.workspace.dead_letters().map_err(said)?;
        let number = if number == "no" { "0" } else { number };
        expect(name, number, &letters.len().to_string())?;
        let mut codes = letters.iter().map(|letter| letter.code.as_str());
        match code.and_then(|code| codes.find(|found| *found != code)) {
            Some(other) => Err(format!("{name}: a dead letter has code {other}")),
            None => Ok(()),
        }
    }
}

fn check_value(whose: &str, name: &str, expected: Option<&Record>, found: Option<&Shown>) -> Done {
    let found = found.map(|shown| &shown.record);
    match expected == found {
        true => Ok(()),
        false => {
            let (expected, found) = (shown_record(expected), shown_record(found));
            Err(format!("{name} at {whose}: the page says {expected}, it is {found}"))
        }
    }
}

fn shown_record(record: Option<&Record>) -> String {
    let text = record.map(|record| json::record_to_string(record).unwrap_or_else(said));
    let mut text = text.unwrap_or_else(|| "not there".into());
    if let Some((most, _)) = text.char_indices().nth(MOST_SHOWN) {
        text.replace_range(most.., "..");
    }
    text
}

/// Values of the disputed fields; none if that side deletes.
type Side = Option<BTreeMap<String, Value>>;

fn side(text: &str) -> Result<Side, String> {
    if text == "a delete" {
        return Ok(None);
    }
    Ok(Some(record(text)?.to_entries().map_err(said)?.into_iter().collect()))
}

fn shown_sides(lost: &Side, won: &Side) -> String {
    let shown = |side: &Side| match side {
        None => "a delete".to_owned(),
        Some(fields) => {
            let field = |(name, value): (&String, &Value)| {
                format!("{name}: {}", json::value_to_string(value))
            };
            let fields: Vec<String> = fields.iter().map(field).collect();
            format!("{{{}}}", fields.join(", "))
        }
    };
    format!("{} gave way to {}", shown(lost), shown(won))
}

fn sides_of(conflict: &Conflict) -> (Side, Side) {
    let (mut lost, mut won) = (BTreeMap::new(), BTreeMap::new());
    for (name, field) in &conflict.fields {
        lost.extend(field.losing.clone().map(|value| (name.clone(), value)));
        won.extend(field.winning.clone().map(|value| (name.clone(), value)));
    }
    let lost = (!conflict.losing_deletes).then_some(lost);
    (lost, (!conflict.winning_deletes).then_some(won))
}

/// How a device stands with the server, in words.
fn standing(actor: &Actor) -> String {
    match actor.device.status(actor.workspace.name()) {
        SyncStatus::Live { .. } => "in step".into(),
        SyncStatus::Held { .. } => "held".into(),
        SyncStatus::Stopped { why, .. } => {
            let mut words = String::new();
            for c in format!("{why:?}").chars() {
                if c.is_uppercase() && !words.is_empty() {
                    words.push(' ');
                }
                words.extend(c.to_lowercase());
            }
            format!("stopped ({words})")
        }
        other => format!("{other:?}"),
    }
}
