//! What the authority and its administrator do.

use std::sync::atomic::Ordering;

use lastword::core::id::{BatchId, Epoch, Key, WorkspaceName};
use lastword::core::protocol::Role;
use lastword::core::rules::Policy;
use lastword::core::schema::{Schema, TableSchema};
use lastword::core::value::{Record, Value};
use lastword::store::read;
use lastword::store::{StoreError, Survival};
use lastword::{Error, MemberList};

use crate::act::{LOCAL, table_name};
use crate::check;
use crate::fault::Violation;
use crate::oracle::Oracle;
use crate::plan::Act;
use crate::world::{Backup, Done, Everybody, Lost, World, broken};

/// The second in which a restored server began is over.
const RESTORE_MS: u64 = 2_000;

impl World {
    /// What a call of the authority was answered; a store that fails is opened again.
    fn served<T>(&mut self, answer: Result<T, Error>) -> Result<bool, Violation> {
        match answer {
            Ok(_) => {
                self.decide()?;
                Ok(true)
            }
            Err(Error::UnknownRecord { .. } | Error::UnknownWorkspace { .. }) => Ok(false),
            Err(error) => self.authority_failed(&error).map(|()| false),
        }
    }

    /// Name of a record of a workspace that the log has.
    fn any_record(
        &mut self,
        workspace: &WorkspaceName,
        table: Option<&str>,
    ) -> Option<(String, String)> {
        let folded = self.oracle.workspaces.get(workspace)?;
        let names = folded.rows.keys().filter(|(of, _)| table.is_none_or(|table| table == of));
        let names: Vec<_> = names.cloned().collect();
        let pick = self.random.below(names.len() as u64) as usize;
        names.get(pick).cloned()
    }

    /// The authority sets or clears a field that it owns.
    pub fn own(&mut self) -> Result<bool, Violation> {
        let (workspace, wall) = (self.any_workspace(), self.wall());
        let Some((table, key)) = self.any_record(&workspace, Some("files")) else {
            return Ok(false);
        };
        self.written += 1;
        let clears = self.random.once_in(4);
        let text = Value::Text(format!("~{workspace}.*~own{}", self.written));
        let set = if clears { Vec::new() } else { vec![("sid".to_owned(), text)] };
        let remove = if clears { vec!["sid".to_owned()] } else { Vec::new() };
        let set = Record::new(&set).map_err(|error| broken("a record", &error))?;
        let (table, key) = (table_name(&table), Key::new(&key).expect("invariant: a key"));
        let Some(authority) = &mut self.authority else { return Ok(false) };
        self.doing = "decide";
        let answer = authority.set_owned(&workspace, (&table, &key), set, remove, wall);
        self.served(answer)
    }

    /// The authority erases a record.
    pub fn erase(&mut self) -> Result<bool, Violation> {
        let (workspace, wall) = (self.any_workspace(), self.wall());
        let Some((table, key)) = self.any_record(&workspace, None) else { return Ok(false) };
        let (table, key) = (table_name(&table), Key::new(&key).expect("invariant: a key"));
        let Some(authority) = &mut self.authority else { return Ok(false) };
        self.doing = "decide";
        let answer = authority.erase(&workspace, (&table, &key), wall);
        self.served(answer)
    }

    /// Gives the authority the members there are now.
    pub fn admit(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let mut list = MemberList::default();
        for ((workspace, user), role) in &self.members {
            let user = Key::new(user).expect("invariant: a key");
            list.add(workspace.clone(), user, *role);
        }
        if let Some(authority) = &mut self.authority {
            authority.admit(list);
        }
    }

    /// A user gets another role, or is no member any more.
    pub fn change_role(&mut self) -> Result<bool, Violation> {
        let workspace = self.any_workspace();
        let user = format!("u{}", self.random.below(self.setting.users));
        let role = match self.random.below(6) {
            0 => None,
            1 => Some(Role::Viewer),
            2 => Some(Role::Owner),
            _ => Some(Role::Editor),
        };
        match role {
            Some(role) => self.members.insert((workspace, user), role),
            None => self.members.remove(&(workspace, user)),
        };
        // An empty list would be that of a server that takes everybody.
        let nobody = ("w0".to_owned(), "nobody".to_owned());
        let workspace = WorkspaceName::new(&nobody.0).expect("invariant: a name");
        self.members.entry((workspace, nobody.1)).or_insert(Role::Viewer);
        self.admit();
        Ok(true)
    }

    /// The schema that the authority should have, if it has one.
    fn schema(&self) -> Option<Schema> {
        if self.setting.schema == 0 {
            return None;
        }
        let table = |name: &str, change: &dyn Fn(&mut TableSchema)| {
            let mut table = TableSchema::new("id");
            change(&mut table);
            (table_name(name), table)
        };
        let wins = if self.wanted.server_wins { Policy::ServerWins } else { Policy::Arrival };
        let mut tables = vec![
            table("notes", &|table| table.policy = wins),
            table("revs", &|table| table.policy = Policy::Revision),
            table("inbox", &|table| table.private_by = Some("user".into())),
            table("files", &|table| {
                (table.content_keyed, table.server_owned) = (true, vec!["sid".into()]);
            }),
            table(LOCAL, &|table| table.local = true),
        ];
        if self.setting.files != 0 {
            tables.push(table("file_meta", &|table| {
                table.content_keyed = true;
                table.server_owned = vec!["storage_id".into(), "storage_provider_id".into()];
            }));
        }
        if self.wanted.extra {
            tables.push(table("extra", &|_| {}));
        }
        Some(Schema::new(self.wanted.min_app, tables).expect("invariant: a schema"))
    }

    /// Gives the authority its schema and members, as a server does when it starts. One that has to
    /// write a checkpoint first is asked again; one that fails is started again, which comes here.
    pub fn set_up(&mut self) -> Done {
        loop {
            let (schema, Some(authority)) = (self.schema(), self.authority.as_mut()) else {
                return Ok(());
            };
            let Err(error) = schema.map_or(Ok(()), |schema| authority.adopt(schema)) else {
                self.admit();
                return Ok(());
            };
            self.authority_failed(&error)?;
            if !matches!(error, Error::Store(StoreError::StateBehind { .. })) || self.full > 0 {
                return Ok(());
            }
        }
    }

    /// The authority gets another schema.
    pub fn change_schema(&mut self) -> Result<bool, Violation> {
        match self.random.below(4) {
            0 | 1 => self.wanted.server_wins = !self.wanted.server_wins,
            2 => self.wanted.extra = !self.wanted.extra,
            _ => self.wanted.min_app = self.random.below(3),
        }
        let (schema, Some(authority)) = (self.schema(), self.authority.as_mut()) else {
            return Ok(false);
        };
        self.doing = "decide";
        let answer = schema.map_or(Ok(()), |schema| authority.adopt(schema));
        self.served(answer)
    }

    /// The authority is copied.
    pub fn back_up(&mut self) -> Result<bool, Violation> {
        check::log(self)?;
        // A workspace that was made after a backup is unknown to who is restored from it, for good.
        if self.authority.is_none() || self.epochs.len() < self.workspaces.len() {
            return Ok(false);
        }
        let disk = self.disk.after_power_cut(Survival::Kept);
        let uploaded = self.files.uploaded.clone();
        self.backup = Some(Backup { disk, oracle: self.oracle.without_writes(), uploaded });
        Ok(true)
    }

    /// The authority is gone, and one restored from its last backup takes its place.
    pub fn restore(&mut self) -> Result<bool, Violation> {
        check::log(self)?;
        let Some(backup) = self.backup.take() else { return Ok(false) };
        // Whoever restores has a clock that is not behind that of an earlier restore: seqs go on
        // behind what it says, and those that the earlier one gave may be in no backup.
        let most = self.clock.skew_ms.load(Ordering::SeqCst).max(self.restored_skew_ms);
        self.clock.skew_ms.store(most, Ordering::SeqCst);
        self.restored_skew_ms = most;
        self.forget_decisions(&backup.oracle);
        self.net.lines.values_mut().for_each(|line| line.authority_open = false);
        self.net.tidy();
        (self.authority, self.job, self.power, self.full) = (None, None, false, 0);
        self.disk = backup.disk.after_power_cut(Survival::Kept);
        let written = std::mem::take(&mut self.oracle.written);
        self.oracle = backup.oracle.clone();
        self.oracle.written = written;
        self.files.uploaded = backup.uploaded.clone();
        self.backup = Some(backup);
        self.epochs.clear();
        self.renew()?;
        self.pass(RESTORE_MS);
        for device in &mut self.devices {
            device.faults.insert(Act::Restore);
        }
        Ok(true)
    }

    /// The store of the backup begins another history before anybody connects.
    fn renew(&mut self) -> Done {
        self.start_authority()?;
        let wall = self.wall();
        let mut epochs = self.random.clone();
        self.random.next();
        let Some(authority) = &mut self.authority else { return Ok(()) };
        let renewed = authority.renew(wall, &mut || Epoch(epochs.bytes()));
        renewed.map_err(|error| broken("a backup is not restored", &error))?;
        self.epochs.clear();
        check::log(self)?;
        self.set_up()
    }

    /// What was decided since the backup is lost.
    fn forget_decisions(&mut self, backup: &Oracle) {
        for (workspace, folded) in &self.oracle.workspaces {
            let Some(epoch) = self.epochs.get(workspace) else { continue };
            let kept = backup.workspaces.get(workspace);
            for (batch, decision) in &folded.decided {
                if kept.is_some_and(|kept| kept.decided.contains_key(batch)) {
                    continue;
                }
                let lost = Lost { epoch: *epoch, decision: decision.clone() };
                self.lost.entry(*batch).or_default().push(lost);
            }
        }
        for device in &mut self.devices {
            device.open.extend(device.acknowledged.iter().cloned());
        }
    }

    /// The authority writes back what devices brought back.
    pub fn recover(&mut self) -> Result<bool, Violation> {
        let (workspace, wall) = (self.any_workspace(), self.wall());
        let mut ids = self.random.clone();
        self.random.next();
        let Some(authority) = &mut self.authority else { return Ok(false) };
        self.doing = "decide";
        let answer = authority.recover(&workspace, || BatchId(ids.bytes()), wall);
        let some = answer.as_ref().is_ok_and(|done| !done.is_empty());
        self.reach.count("survivors written back", u64::from(some));
        self.served(answer).map(|_| some)
    }

    /// The authority decides a group.
    pub fn decide(&mut self) -> Result<bool, Violation> {
        let (now, wall) = (self.now, self.wall());
        let epoch = Epoch(self.random.bytes());
        let Some(authority) = &mut self.authority else { return Ok(false) };
        let had = authority.has_jobs();
        self.doing = "decide";
        if let Err(error) = authority.step(now, &Everybody, wall, epoch) {
            return self.authority_failed(&error).map(|()| false);
        }
        check::log(self)?;
        self.send_down()?;
        let store = self.authority.as_mut().map(|authority| authority.store());
        if store.is_some_and(|store| store.wants_checkpoint()) {
            self.checkpoint()?;
        }
        Ok(had)
    }

    /// Which history each workspace is in.
    pub fn read_epochs(&mut self) {
        let Some(authority) = &self.authority else { return };
        let view = authority.view();
        for workspace in &self.workspaces {
            if !self.epochs.contains_key(workspace)
                && let Ok(meta) = read::meta(&*view, workspace)
                && let Some(epoch) = meta.epoch
            {
                self.epochs.insert(workspace.clone(), epoch);
            }
        }
    }
}
