//! What must hold, by the ids of `docs/simulation.md`.

use std::collections::BTreeMap;

use lastword::core::id::WorkspaceName;
use lastword::store::keys::{self, WorkspaceMeta};
use lastword::store::{StoreError, View, read};

use crate::fault::{Trouble, Violation};
use crate::oracle::{Kept, Name, Sums};
use crate::plan::Event;
use crate::world::{Done, World};

/// While it is quiet everybody checkpoints once in so many rounds, as the product does.
const CHECKPOINT_EVERY: u64 = 50;
/// Quiet may take so many rounds.
const QUIET_ROUNDS: u64 = 6_000;

/// Rows of the tables that sync, with their sums.
type Rows = (BTreeMap<Name, Kept>, Sums);

fn rows(view: &View, workspace: &WorkspaceName) -> Result<Rows, StoreError> {
    let meta = read::meta(view, workspace)?;
    let prefix = keys::rows_prefix(workspace, meta.generation);
    let (mut found, mut sums) = (BTreeMap::new(), Sums::default());
    read::visit_stored(view, &prefix, &keys::prefix_end(&prefix), &mut |table, key, stored| {
        if table.is_reserved() || table.as_str() == crate::act::TABLES[1] {
            return;
        }
        let row = stored.row;
        let fields = row.record.fields().iter();
        let fields = fields.map(|field| (field.name.clone(), field.value.clone())).collect();
        let kept = Kept { deleted: row.deleted, seq: row.last.seq, fields };
        let name = (table.as_str().to_owned(), key.as_str().to_owned());
        sums.count(&name, &kept, true);
        found.insert(name, kept);
    })?;
    Ok((found, sums))
}

/// I1, I2, I3, I4, I23, I24, I25: the oracle takes in what the log has gained.
pub fn log(world: &mut World) -> Done {
    let Some(authority) = &mut world.authority else { return Ok(()) };
    world.oracle.follow(&authority.store().view_handle())
}

/// I12, I27: the authority's state is what its log says, whatever was written, folded or made anew.
pub fn authority(world: &mut World) -> Done {
    match authority_now(world) {
        Err(Trouble::Store(error)) => world.authority_failed(&error.into()),
        checked => Ok(checked?),
    }
}

/// The same for a store that was just opened.
pub fn authority_now(world: &mut World) -> Result<(), Trouble> {
    log(world)?;
    let Some(authority) = &mut world.authority else { return Ok(()) };
    let view = authority.store().view();
    for (workspace, folded) in &world.oracle.workspaces {
        let (found, sums) = rows(&view, workspace)?;
        if sums != folded.sums() {
            let text = format!("{workspace}: {}", difference(&folded.rows, &found));
            return Err(Violation::new("I12", text).into());
        }
        let meta = read::meta(&*view, workspace)?;
        if meta.head != folded.head {
            let text = format!("{workspace}: head {} where the log has {}", meta.head, folded.head);
            return Err(Violation::new("I2", text).into());
        }
    }
    Ok(())
}

/// I6, I12, I18, I20: where a device has no own ops under way, it shows what the log says up to its
/// cursor, which is the end of a batch; and no record goes back.
pub fn device(world: &mut World, at: usize) -> Done {
    match device_now(world, at) {
        Err(Trouble::Store(error)) => world.device_failed(at, &error.into()),
        checked => Ok(checked?),
    }
}

/// The same for a store that was just opened.
pub fn device_now(world: &mut World, at: usize) -> Result<(), Trouble> {
    let device = &mut world.devices[at];
    let Some(node) = &mut device.node else { return Ok(()) };
    for (batch, told) in node.take_settled() {
        let mut known = world.oracle.workspaces.values();
        if !known.any(|folded| folded.decided.get(&batch) == Some(&told)) {
            let text = format!("device {at} was told of a decision on {batch} that no log has");
            return Err(Violation::new("I1", text).into());
        }
    }
    let view = node.view();
    for (workspace, folded) in &world.oracle.workspaces {
        let meta = read::meta(&*view, workspace)?;
        if !meta.bootstrapped {
            continue;
        }
        if meta.cursor > folded.head {
            let text = format!("device {at}: cursor {} of {}", meta.cursor, folded.head);
            return Err(Violation::new("I20", text).into());
        }
        let (found, sums) = rows(&view, workspace)?;
        for ((_, key), kept) in &found {
            let seen = device.seen.entry((workspace.clone(), key.clone())).or_default();
            if kept.seq != u64::MAX && kept.seq < *seen && kept.seq != 0 {
                let text = format!("device {at}: {key} was at {seen} and is at {}", kept.seq);
                return Err(Violation::new("I18", text).into());
            }
            if kept.seq != u64::MAX {
                *seen = (*seen).max(kept.seq);
            }
        }
        if !is_idle(&view, workspace, &meta)? || meta.cursor == 0 {
            continue;
        }
        let Some(expected) = folded.borders.get(&meta.cursor) else {
            let text = format!("device {at}: cursor {} is inside a batch", meta.cursor);
            return Err(Violation::new("I6", text).into());
        };
        if expected.live != sums.live {
            let text = format!(
                "device {at} at {} of {workspace} shows other rows than the log says: {}",
                meta.cursor,
                difference(&folded.rows, &found)
            );
            return Err(Violation::new("I12", text).into());
        }
    }
    Ok(())
}

fn is_idle(
    view: &View,
    workspace: &WorkspaceName,
    meta: &WorkspaceMeta,
) -> Result<bool, StoreError> {
    let first = read::first_in_outbox(view, workspace, meta);
    Ok(first?.is_none())
}

/// What a crash left in the outbox counts as written, acknowledged or not.
///
/// I1, I17, I19: what was acknowledged before a crash is in the outbox, decided, or a dead letter.
pub fn reopened(world: &mut World, at: usize) -> Result<(), Trouble> {
    for workspace in world.workspaces.clone() {
        world.remember_written(at, &workspace)?;
    }
    let device = &mut world.devices[at];
    let Some(node) = &mut device.node else { return Ok(()) };
    let view = node.view();
    let mut waiting = std::collections::BTreeSet::new();
    for workspace in &world.workspaces {
        let entries = read::outbox(&*view, workspace, 0, usize::MAX);
        let entries = entries?;
        waiting.extend(entries.into_iter().map(|(_, entry)| entry.batch_id));
    }
    for (workspace, batch) in &device.acknowledged {
        let folded = world.oracle.workspaces.get(workspace);
        let is_decided = folded.is_some_and(|folded| folded.decided.contains_key(batch));
        if !is_decided && !waiting.contains(batch) {
            let text = format!("device {at}: batch {batch} was acknowledged and is gone");
            return Err(Violation::new("I1", text).into());
        }
    }
    Ok(())
}

/// I16, I28: after the last fault everything that waits is decided within a bound, the network goes
/// quiet, and everybody has what the log says.
pub fn converged(world: &mut World) -> Result<(), Trouble> {
    authority(world)?;
    for at in 0..world.devices.len() {
        device(world, at)?;
        let Some(node) = &world.devices[at].node else { continue };
        let view = node.view();
        for (workspace, folded) in &world.oracle.workspaces {
            let meta = read::meta(&*view, workspace)?;
            if !is_idle(&view, workspace, &meta)? {
                let text = format!(
                    "device {at}: the outbox of {workspace} does not drain: decided {} of {}, \
                     cursor {} of {}, {:?}",
                    meta.decided,
                    meta.written,
                    meta.cursor,
                    folded.head,
                    node.status(workspace)
                );
                return Err(Violation::new("I28", text).into());
            }
            let (found, sums) = rows(&view, workspace)?;
            let same = (meta.cursor, sums.live) == (folded.head, folded.sums().live);
            if !same {
                let text = format!(
                    "device {at} is at {} of {} in {workspace}: {}, {:?}",
                    meta.cursor,
                    folded.head,
                    difference(&folded.rows, &found),
                    node.status(workspace)
                );
                return Err(Violation::new("I16", text).into());
            }
        }
    }
    Ok(())
}

/// The first record that differs.
fn difference(expected: &BTreeMap<Name, Kept>, found: &BTreeMap<Name, Kept>) -> String {
    for (name, kept) in expected {
        let is_gone = kept.deleted && !found.contains_key(name);
        if found.get(name) != Some(kept) && !is_gone {
            return format!("{name:?} should be {kept:?} and is {:?}", found.get(name));
        }
    }
    let extra = found.iter().find(|(name, _)| !expected.contains_key(*name));
    extra.map_or_else(|| "sums only".to_owned(), |(name, kept)| format!("{name:?}: {kept:?}"))
}

impl World {
    fn checkpoint_all(&mut self) -> Done {
        self.upkeep(Event::Checkpoint)?;
        (0..self.devices.len())
            .try_for_each(|at| self.device_upkeep(at, Event::DeviceCheckpoint).map(drop))
    }

    /// Faults stop and time runs until nothing is left to do.
    pub(crate) fn quiet(&mut self) -> Done {
        self.disk.set_fault(None);
        self.devices.iter().for_each(|device| device.disk.set_fault(None));
        self.plan.delay_ms = 5;
        let mut still = 0;
        for round in 0..QUIET_ROUNDS {
            if round % CHECKPOINT_EVERY == 0 {
                self.checkpoint_all()?;
            }
            let mut did = self.decide()?;
            for at in 0..self.devices.len() {
                self.device_due(at)?;
                self.tell_written(at)?;
                while self.device_step(at)? {
                    did = true;
                }
            }
            for _ in 0..8 {
                did |= self.deliver()?;
            }
            self.now += if did { 5 } else { 700 };
            self.wake()?;
            still = if did { 0 } else { still + 1 };
            if still > 80 {
                return Ok(());
            }
        }
        Err(Violation::new("I28", "it does not get quiet"))
    }
}
