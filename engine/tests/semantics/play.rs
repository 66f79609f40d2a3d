//! An example is played: steps are taken, statements are checked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use lastword::testing::{Cluster, Device, ServerBackup};
use lastword::{CONFLICTS, Conflict, Receipt, Row, Workspace, WorkspaceView, WriteOptions, hook};

use crate::notation::{Edit, Example};

/// The workspace of every example.
pub(crate) const WORKSPACE: &str = "acme";
/// A table that examples do not speak of: with its records devices make themselves known.
pub(crate) const SETUP: &str = "setup";

/// A restored history begins behind a multiple of this.
const RESTORED: u64 = 1 << 20;

pub(crate) type Done = Result<(), String>;

/// A device with what it wrote and heard.
pub(crate) struct Actor {
    pub(crate) device: Device,
    pub(crate) workspace: Workspace,
    /// Batches of which the example has not said what became of them.
    pub(crate) written: VecDeque<Receipt>,
    pub(crate) last: Option<Receipt>,
    /// Keys of conflicts that it was told of, and whose records.
    pub(crate) heard: Arc<Mutex<VecDeque<String>>>,
}

/// One example while it is played.
pub(crate) struct Play {
    pub(crate) cluster: Cluster,
    pub(crate) actors: BTreeMap<String, Actor>,
    /// Seqs of the set-up, which examples leave out.
    pub(crate) left_out: u64,
    is_set_up: bool,
    /// What went wrong in the last step, until the example says so.
    pub(crate) error: Option<String>,
    pub(crate) backup: Option<ServerBackup>,
    /// Conflicts that the example has named.
    pub(crate) named: BTreeSet<String>,
}

/// Plays an example; answers the line and what is wrong with it.
pub(crate) fn play(example: &Example) -> Result<(), String> {
    let at = |line: usize| move |fault: String| format!("{line}: {fault}");
    let mut play = Play::new(example.is_new).map_err(at(example.line))?;
    for (line, text) in &example.lines {
        play.line(text).map_err(at(*line))?;
    }
    play.end().map_err(at(example.line))
}

pub(crate) fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Play {
    fn new(is_new: bool) -> Result<Self, String> {
        let mut play = Self {
            cluster: Cluster::new(),
            actors: BTreeMap::new(),
            left_out: 0,
            is_set_up: is_new,
            error: None,
            backup: None,
            named: BTreeSet::new(),
        };
        for name in ["A", "B"] {
            let device = play.cluster.device(name).map_err(said)?;
            play.add(name, device)?;
        }
        Ok(play)
    }

    fn line(&mut self, text: &str) -> Done {
        if text.is_empty() {
            return Ok(());
        }
        if let Some(statement) = text.strip_prefix("=> ") {
            return self.check(statement);
        }
        if let Some(error) = self.error.take() {
            return Err(format!("the step before failed: {error}"));
        }
        // A first schema is there before the workspace is, unless devices could not write then.
        let is_first = text.starts_with("schema: ") && !text.contains("lowest app number");
        if !std::mem::replace(&mut self.is_set_up, true) && !is_first {
            self.set_up()?;
        } else if is_first && self.actors.values().all(|actor| actor.last.is_none()) {
            self.step(text)?;
            return self.set_up();
        }
        self.step(text)
    }

    /// Both devices are known, and have seen n1 as A wrote it.
    fn set_up(&mut self) -> Done {
        for name in ["B", "A"] {
            self.write(name, &format!("put {SETUP}/{name} {{}}"))?;
            self.sync(name)?;
        }
        self.write("A", "put n1 {title: \"a\", body: \"b\"}")?;
        self.sync("A")?;
        self.cluster.settle().map_err(said)?;
        self.actors.values_mut().for_each(|actor| actor.written.clear());
        let (table, key) = crate::notation::record_name("n1")?;
        let shown = self.server()?.get_record(&table, &key).map_err(said)?;
        self.left_out = shown.and_then(|shown| shown.seq).ok_or("n1 is not there")? - 1;
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(crate) fn add(&mut self, name: &str, device: Device) -> Done {
        let workspace = device.workspace(WORKSPACE).map_err(said)?;
        let (written, last, heard) = Default::default();
        let actor = Actor { device, workspace, written, last, heard };
        self.actors.insert(name.to_owned(), actor);
        self.listen(name)
    }

    /// The app on the device is open: it wants to hear of conflicts.
    pub(crate) fn listen(&mut self, name: &str) -> Done {
        let actor = self.actor(name)?;
        actor.workspace = actor.device.workspace(WORKSPACE).map_err(said)?;
        let heard = Arc::clone(&actor.heard);
        let hooks = actor.device.database().hooks();
        let listen = hooks.action(hook::SYNC_CONFLICT_DETECTED, move |lost| {
            heard
                .lock()
                .unwrap()
                .push_back(format!("{}/{}", lost.conflict.table, lost.conflict.key));
        });
        listen.map_err(said)
    }

    pub(crate) fn actor(&mut self, name: &str) -> Result<&mut Actor, String> {
        self.actors.get_mut(name).ok_or_else(|| format!("there is no device {name}"))
    }

    /// One write of a device; what it answers, if that is an error, the example has to say.
    pub(crate) fn write(&mut self, name: &str, ops: &str) -> Done {
        let mut edits = crate::notation::parts(ops, ';');
        let squash = edits.last() == Some(&"squash") && edits.pop().is_some();
        let edits: Vec<Edit> = edits.into_iter().map(Edit::parse).collect::<Result<_, _>>()?;
        let actor = self.actor(name)?;
        let options = match squash {
            true => WriteOptions::default().squash(),
            false => WriteOptions::default(),
        };
        let wrote = actor
            .workspace
            .write_with(options, |tx| edits.iter().try_for_each(|edit| edit.carry_out(tx)));
        let wrote = wrote.map(|receipt| vec![receipt]);
        self.wrote(name, wrote)
    }

    pub(crate) fn wrote(&mut self, name: &str, wrote: lastword::Result<Vec<Receipt>>) -> Done {
        let actor = self.actor(name)?;
        match wrote {
            Ok(receipts) => {
                actor.last = receipts.last().cloned();
                actor.written.extend(receipts.into_iter().filter(Receipt::is_synced));
            }
            Err(error) => self.error = Some(error.to_string()),
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self, name: &str) -> Done {
        let device = self.actor(name)?.device.clone();
        self.cluster.sync(&device).map_err(said)
    }

    pub(crate) fn server(&self) -> Result<WorkspaceView, String> {
        self.cluster.server(WORKSPACE).map_err(said)
    }

    pub(crate) fn conflicts(&self) -> Result<Vec<Row<Conflict>>, String> {
        self.server()?.query(&CONFLICTS.all()).map_err(said)
    }

    /// A seq as the examples count; of those behind a restore, how far behind.
    pub(crate) fn shown_seq(&self, seq: u64) -> String {
        match seq % RESTORED {
            behind if seq > RESTORED => format!("+{behind}"),
            seq => seq.saturating_sub(self.left_out).to_string(),
        }
    }

    /// Nothing may be left unsaid, and everybody has the same.
    fn end(&mut self) -> Done {
        if let Some(error) = self.error.take() {
            return Err(format!("the last step failed: {error}"));
        }
        self.cluster.settle().map_err(said)?;
        for (name, actor) in &self.actors {
            if let Some(verdict) = actor.written.iter().find_map(Receipt::verdict) {
                return Err(format!("nothing is said of a batch of {name}: {verdict:?}"));
            }
        }
        self.check_all_named()?;
        let is_in_step = |line: &String| {
            let actor =
                self.actors.values().find(|a| line.starts_with(&format!("{}: ", a.device.name())));
            actor.is_none_or(crate::check::is_in_step)
        };
        let lines = self.cluster.differences().map_err(said)?;
        match lines.into_iter().find(is_in_step) {
            Some(line) => Err(line),
            None => Ok(()),
        }
    }
}
