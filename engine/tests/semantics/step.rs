//! What can be done in an example.

use std::time::Duration;

use lastword::core::id::TableName;
use lastword::core::protocol::Role;
use lastword::core::rules::Policy;
use lastword::core::schema::{Schema, TableSchema};
use lastword::testing::Way;
use lastword::{Database, DeadLetter, Table};

use crate::notation::{parts, record, record_name};
use crate::play::{Done, Play, SETUP, WORKSPACE, said};

impl Play {
    pub(crate) fn step(&mut self, text: &str) -> Done {
        if let Some((name, ops)) = text.split_once(": ").filter(|(name, _)| is_name(name)) {
            return self.write(name, ops);
        }
        if let Some(tables) = text.strip_prefix("schema: ") {
            return self.schema(tables);
        }
        if let Some((name, what)) =
            text.strip_prefix("app of ").and_then(|rest| rest.split_once(": "))
        {
            return self.app(name, what);
        }
        if let Some(names) = text.strip_prefix("sync ") {
            return parts(names, ',').into_iter().try_for_each(|name| self.sync(name));
        }
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["settle"] => self.cluster.settle().map_err(said),
            ["wait", number, unit] => self.wait(number, unit),
            ["backup"] => {
                self.backup = Some(self.cluster.backup_server());
                Ok(())
            }
            ["restore"] => {
                let backup = self.backup.take().ok_or("there is no backup")?;
                self.cluster.restore_server(&backup).map_err(said)
            }
            ["recover"] => self.cluster.recover(WORKSPACE).map(drop).map_err(said),
            [what @ ("cut" | "offline" | "online" | "release"), name] => {
                self.connection(what, name)
            }
            ["kill", "server"] => self.cluster.kill_server().map_err(said),
            ["kill" | "restart", name] => self.restart(words[0], name),
            ["hold", way @ ("to" | "from"), name] => self.let_pass(way, name, 0),
            ["let", number, "pass", way @ ("to" | "from"), name] => {
                let number = number.parse().map_err(|_| format!("no number: {number}"))?;
                self.let_pass(way, name, number)
            }
            ["role", name, role] => self.role(name, role),
            ["copy", name, "as", copy, "of", user] => {
                let device = self.actor(name)?.device.clone();
                let copied = self.cluster.copy(&device, copy, user).map_err(said)?;
                self.add(copy, copied)
            }
            ["clock", name, ahead, "h"] => {
                let device = self.actor(name)?.device.clone();
                let hours: i64 = ahead.parse().map_err(|_| format!("no hours: {ahead}"))?;
                self.cluster.set_clock_ahead(&device, hours * 3_600_000);
                Ok(())
            }
            ["at", "most", number, "records"] => {
                let number = number.parse().map_err(|_| format!("no number: {number}"))?;
                self.cluster.limit_records(number);
                Ok(())
            }
            [what @ ("undo" | "retry" | "discard"), name] => self.take_back(what, name),
            ["own", named, ..] => {
                let value = record(text.splitn(3, ' ').nth(2).unwrap_or_default())?;
                let (table, key) = record_name(named)?;
                let set = self.cluster.set_owned(WORKSPACE, (&table, &key), value, Vec::new());
                set.map(drop).map_err(said)
            }
            ["edit", name, named, ..] => {
                let value = text.splitn(4, ' ').nth(3).unwrap_or_default();
                self.edit(name, named, value)
            }
            words => self.of_server(words).unwrap_or_else(|| Err(format!("no step: {text}"))),
        }
    }

    /// Something that whoever runs the server does.
    fn of_server(&mut self, words: &[&str]) -> Option<Done> {
        match words {
            ["delete", "workspace"] => {
                Some(self.cluster.delete_workspace(WORKSPACE).map(drop).map_err(said))
            }
            ["at", "most", number, "records"] => Some(match number.parse() {
                Ok(number) => {
                    self.cluster.limit_records(number);
                    Ok(())
                }
                Err(_) => Err(format!("no number: {number}")),
            }),
            _ => None,
        }
    }

    /// Something happens to the connection of a device.
    fn connection(&mut self, what: &str, name: &str) -> Done {
        let device = self.actor(name)?.device.clone();
        match what {
            "cut" => self.cluster.cut(&device).map_err(said),
            "offline" => self.cluster.offline(&device).map_err(said),
            "online" => {
                self.cluster.online(&device);
                Ok(())
            }
            _ => {
                self.cluster.release(&device);
                Ok(())
            }
        }
    }

    fn wait(&mut self, number: &str, unit: &str) -> Done {
        let number: u64 = number.parse().map_err(|_| format!("no number: {number}"))?;
        let seconds = match unit {
            "s" => number,
            "days" => number * 24 * 60 * 60,
            _ => return Err(format!("no unit: {unit}")),
        };
        self.cluster.advance(Duration::from_secs(seconds)).map_err(said)
    }

    fn restart(&mut self, how: &str, name: &str) -> Done {
        let actor = self.actor(name)?;
        actor.written.clear();
        let device = actor.device.clone();
        match how {
            "kill" => self.cluster.kill(&device).map_err(said)?,
            _ => self.cluster.restart(&device).map_err(said)?,
        }
        self.listen(name)
    }

    fn let_pass(&mut self, way: &str, name: &str, messages: usize) -> Done {
        let device = self.actor(name)?.device.clone();
        let way = if way == "to" { Way::Down } else { Way::Up };
        self.cluster.let_pass(&device, way, messages);
        Ok(())
    }

    /// The user of a device has another role from here on.
    fn role(&mut self, name: &str, role: &str) -> Done {
        let device = self.actor(name)?.device.clone();
        let role = match role {
            "none" => None,
            "viewer" => Some(Role::Viewer),
            "editor" => Some(Role::Editor),
            _ => return Err(format!("no role: {role}")),
        };
        self.cluster.set_role(device.user(), role).map_err(said)
    }

    fn take_back(&mut self, what: &str, name: &str) -> Done {
        let actor = self.actor(name)?;
        let workspace = actor.workspace.clone();
        if what == "undo" {
            let last = actor.last.clone().ok_or("nothing was written")?;
            return self.wrote(name, workspace.undo(&last).map(|receipt| vec![receipt]));
        }
        for unit in units(&workspace)? {
            let done = match what {
                "retry" => workspace.retry_dead_letter(unit.unit),
                _ => workspace.discard_dead_letter(unit.unit).map(|_| Vec::new()),
            };
            self.wrote(name, done)?;
        }
        Ok(())
    }

    fn edit(&mut self, name: &str, named: &str, value: &str) -> Done {
        let (workspace, value) = (self.actor(name)?.workspace.clone(), record(value)?);
        let named = record_name(named)?;
        for unit in units(&workspace)? {
            let edited = workspace.edit_dead_letter(unit.unit, |table, key, record| {
                if (table, key) == (&named.0, &named.1) {
                    *record = value.clone();
                }
                Ok(())
            });
            self.wrote(name, edited)?;
        }
        Ok(())
    }

    /// Another version of its app is installed on a device.
    fn app(&mut self, name: &str, what: &str) -> Done {
        let words: Vec<&str> = what.split(' ').collect();
        let fixed = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        let settings = match words.as_slice() {
            ["schema", "number", number] => {
                let number = number.parse().map_err(|_| format!("no number: {number}"))?;
                Database::builder().schema_version(number)
            }
            ["at", "most", number, "batch" | "batches", ..] => {
                let number = number.parse().map_err(|_| format!("no number: {number}"))?;
                Database::builder().max_undecided(number)
            }
            [table, "is", "local"] => {
                Database::builder().local_table(TableName::new(table).map_err(said)?)
            }
            [table, "has", "key", field] => {
                Database::builder().tables(Table::<()>::new(fixed(table), fixed(field)))
            }
            _ => return Err(format!("no app: {what}")),
        };
        let device = self.actor(name)?.device.clone();
        match self.cluster.restart_with(&device, settings) {
            Ok(()) => self.listen(name),
            Err(error) => {
                self.error = Some(error.to_string());
                Ok(())
            }
        }
    }

    /// The server is started with another schema; devices hear of it when they connect again.
    fn schema(&mut self, text: &str) -> Done {
        let mut lowest = 0;
        let mut tables = vec![(TableName::new(SETUP).map_err(said)?, TableSchema::new("id"))];
        for part in parts(text, ';') {
            match part.strip_prefix("lowest app number ") {
                Some(number) => {
                    lowest = number.parse().map_err(|_| format!("no number: {part}"))?
                }
                None => tables.push(table(part)?),
            }
        }
        let schema = Schema::new(lowest, tables).map_err(said)?;
        if let Err(error) = self.cluster.set_schema(schema) {
            self.error = Some(error.to_string());
            return Ok(());
        }
        let devices: Vec<_> = self.actors.values().map(|actor| actor.device.clone()).collect();
        devices.iter().try_for_each(|device| self.cluster.cut(device)).map_err(said)
    }
}

fn is_name(text: &str) -> bool {
    text.len() == 1 && text.chars().all(|c| c.is_ascii_uppercase())
}

/// The refused batch of each unit.
fn units(workspace: &lastword::Workspace) -> Result<Vec<DeadLetter>, String> {
    let mut letters = workspace.dead_letters().map_err(said)?;
    letters.retain(|letter| letter.batch_id == letter.unit);
    Ok(letters)
}

/// A table with what holds for it, such as `notes (server_wins, key uuid)`.
fn table(text: &str) -> Result<(TableName, TableSchema), String> {
    let (name, rules) = crate::notation::in_parentheses(text);
    let mut table = TableSchema::new("id");
    for rule in rules.map(|rules| parts(rules, ',')).unwrap_or_default() {
        match rule.split(' ').collect::<Vec<_>>().as_slice() {
            ["server_wins"] => table.policy = Policy::ServerWins,
            ["revision"] => table.policy = Policy::Revision,
            ["local"] => table.local = true,
            ["content-keyed"] => table.content_keyed = true,
            ["private", "by", field] => table.private_by = Some((*field).to_owned()),
            ["key", field] => table.key_field = (*field).to_owned(),
            ["server-owned", field] => table.server_owned.push((*field).to_owned()),
            _ => return Err(format!("no rule of a table: {rule}")),
        }
    }
    Ok((TableName::new(name).map_err(said)?, table))
}
