//! What must hold of stores, by the ids of `invariants.rs`.

use std::collections::{BTreeMap, BTreeSet};

use lastword::core::id::{BatchId, WorkspaceName};
use lastword::core::stamp::{Decision, RefusalCode};
use lastword::store::keys::{self, WorkspaceMeta};
use lastword::store::{StoreError, View, read};

use crate::act::stays_here;
use crate::fault::Violation;
use crate::known::{Known, Waiting};
use crate::live;
use crate::oracle::{Folded, Kept, Name, Sums, place};
use crate::world::{Done, World};

/// Rows of the tables that sync.
#[derive(Debug, Default)]
pub struct Rows {
    pub rows: BTreeMap<Name, Kept>,
}

impl Rows {
    /// What a user sees of them, as the oracle counts it.
    fn sum(&self, folded: &Folded, user: &str) -> u64 {
        let mut sums = Sums::default();
        for (name, kept) in self.rows.iter().filter(|(_, kept)| !kept.deleted) {
            let owner = folded.owner(name, kept).unwrap_or_default();
            sums.count(kept.hash((&name.0, &name.1)), place(&owner), true);
        }
        sums.seen_by(user)
    }
}

/// What a view shows of a workspace.
///
/// # Errors
/// [`StoreError`] if the store has to be opened again before it can be read.
pub fn rows(view: &View, workspace: &WorkspaceName) -> Result<Rows, StoreError> {
    let meta = read::meta(view, workspace)?;
    let prefix = keys::rows_prefix(workspace, meta.generation);
    let mut found = Rows::default();
    read::visit_stored(view, &prefix, &keys::prefix_end(&prefix), &mut |table, key, stored| {
        if !table.is_reserved() && !stays_here(table.as_str()) {
            let name = (table.as_str().to_owned(), key.as_str().to_owned());
            found.rows.insert(name, Kept::of(&stored.row));
        }
    })?;
    Ok(found)
}

/// The oracle takes in what the log has gained.
pub fn log(world: &mut World) -> Done {
    let Some(authority) = &mut world.authority else { return Ok(()) };
    world.oracle.follow(&authority.store().view_handle())?;
    world.read_epochs();
    Ok(())
}

/// I12, I27, I2: the authority's state is what its log says.
pub fn authority(world: &mut World, id: &'static str) -> Done {
    log(world)?;
    let Some(authority) = world.authority.as_ref().filter(|_| world.checks) else { return Ok(()) };
    let view = authority.view();
    for (workspace, folded) in &world.oracle.workspaces {
        // A store that cannot be read now says so to whoever asks it next.
        let Ok(found) = rows(&view, workspace) else { return Ok(()) };
        if found.rows != folded.rows {
            let text = format!("{workspace}: {}", difference(&folded.rows, &found.rows));
            return Err(Violation::new(id, text));
        }
        let Ok(meta) = read::meta(&*view, workspace) else { return Ok(()) };
        if meta.head != folded.head {
            let text = format!("{workspace}: head {} where the log has {}", meta.head, folded.head);
            return Err(Violation::new("I2", text));
        }
    }
    Ok(())
}

/// I1: a device is told of nothing that is not in the log.
pub fn settled(world: &World, at: usize, settled: &[(BatchId, Decision)]) -> Done {
    for (batch, told) in settled {
        let mut known = world.oracle.workspaces.values();
        let decided = known.find_map(|folded| folded.decided.get(batch));
        // It may have been said before the authority was restored, and arrive late.
        let is_of_before = || {
            let lost = world.lost.get(batch).into_iter().flatten();
            lost.map(|lost| &lost.decision).any(|decision| decision == told)
        };
        let right = match (decided, told) {
            (Some(_), Decision::Refused { code: RefusalCode::OutcomeUnknown, .. }) => true,
            (Some(decided), told) => decided == told || is_of_before(),
            // What went down with a refused batch was not looked at, and what nobody can tell any
            // more the device refuses itself.
            (None, Decision::Refused { .. }) => true,
            (None, _) => is_of_before(),
        };
        if !right {
            let text = format!("device {at} was told {told:?} of {batch}; the log has {decided:?}");
            return Err(Violation::new("I1", text));
        }
    }
    Ok(())
}

/// What a device shows and keeps after something happened to it.
pub fn device(world: &mut World, at: usize) -> Done {
    device_as(world, at, "I12")
}

/// The same; where it shows what the log does not say, the invariant `id` is broken.
pub fn device_as(world: &mut World, at: usize, id: &'static str) -> Done {
    world.way_back(at);
    if !world.checks {
        return Ok(());
    }
    let Some(app) = &world.devices[at].app else { return Ok(()) };
    let Ok(view) = app.with(|node| Ok(node.view())) else { return Ok(()) };
    for workspace in world.workspaces.clone() {
        // Where nothing was written, received or decided, nothing is looked at, but after upkeep.
        let Ok(meta) = read::meta(&*view, &workspace) else { return Ok(()) };
        let known = world.devices[at].shown.get(&workspace);
        if known.is_some_and(|known| known.0 == meta) && id == "I12" {
            continue;
        }
        // A store that cannot be read now says so to whoever asks it next.
        let looked = look(world, at, &view, &workspace, id);
        let Ok(shown) = looked else { return Ok(()) };
        if let Some(shown) = shown? {
            world.devices[at].shown.insert(workspace.clone(), (meta, shown));
        }
        live::check(world, at, &workspace)?;
    }
    Ok(())
}

type Looked = Result<Result<Option<u64>, Violation>, StoreError>;

/// The sum of what a device shows of a workspace, if it has a copy that is complete.
fn look(
    world: &mut World,
    at: usize,
    view: &View,
    workspace: &WorkspaceName,
    id: &'static str,
) -> Looked {
    let meta = read::meta(view, workspace)?;
    if let Some(epoch) = meta.epoch {
        let passed = world.devices[at].passed.entry((workspace.clone(), epoch)).or_default();
        *passed = meta.cursor.max(*passed);
    }
    let before = world.devices[at].waiting.remove(workspace).filter(|_| id == "I12");
    let (waiting, _) = Waiting::look(before, view, workspace)?;
    let batches = waiting.batches();
    world.devices[at].waiting.insert(workspace.clone(), waiting);
    let resets = read::reset(view, workspace)?.is_some();
    if let Err(violation) = outbox(world, at, workspace, batches, resets) {
        return Ok(Err(violation));
    }
    let empty = Folded::default();
    let folded = world.oracle.workspaces.get(workspace).unwrap_or(&empty);
    let device = &mut world.devices[at];
    // After upkeep all rows are looked at, else those that frames have set.
    let before = device.known_rows.remove(workspace).filter(|_| id == "I12");
    let found = Known::look(before, view, (workspace, meta.generation), folded)?;
    let found = device.known_rows.entry(workspace.clone()).or_insert(found);
    let user = device.user.clone();
    let sum = found.sums.seen_by(&user);
    let (Some(epoch), true) = (meta.epoch, meta.bootstrapped) else { return Ok(Ok(Some(sum))) };
    let seen = device.seen.entry((workspace.clone(), epoch, meta.generation)).or_default();
    for (row_key, row) in &found.rows {
        let seen = seen.entry(row.name).or_default();
        let seq = row.seq;
        if seq < *seen && seq != 0 {
            let name = keys::name_of(row_key);
            let text = format!("device {at}: {name:?} was at {seen} and is at {seq}");
            return Ok(Err(Violation::new("I18", text)));
        }
        if seq != u64::MAX {
            *seen = (*seen).max(seq);
        }
    }
    if world.epochs.get(workspace) != Some(&epoch) || resets {
        return Ok(Ok(Some(sum)));
    }
    let wrong = |id, text: String| Ok(Err(Violation::new(id, format!("device {at}: {text}"))));
    if meta.cursor > folded.head {
        return wrong("I20", format!("cursor {} of {}", meta.cursor, folded.head));
    }
    if !is_idle(view, workspace, &meta)? || meta.cursor == 0 {
        return Ok(Ok(Some(sum)));
    }
    let Some(expected) = folded.borders.get(&meta.cursor) else {
        return wrong("I6", format!("cursor {} of {workspace} is inside a batch", meta.cursor));
    };
    if expected.seen_by(&user) != sum {
        let behind = meta.cursor < folded.horizon;
        // What was written since says nothing of what should be shown.
        let mut at_cursor = folded.rows.clone();
        at_cursor.retain(|_, kept| kept.last.0 <= meta.cursor);
        let mut shown = rows(view, workspace)?.rows;
        shown.retain(|name, _| at_cursor.contains_key(name) || !folded.rows.contains_key(name));
        let difference = difference(&at_cursor, &shown);
        let (cursor, head) = (meta.cursor, folded.head);
        let text = format!("shows other rows at {cursor} of {head} in {workspace}: {difference}");
        return wrong(if behind { "I21" } else { id }, text);
    }
    Ok(Ok(Some(sum)))
}

/// Dead letters of a device, by their batch ids.
fn dead_letters(world: &World, at: usize) -> BTreeSet<BatchId> {
    let mut found = BTreeSet::new();
    for workspace in &world.workspaces {
        if let Some(opened) = world.opened(at, workspace)
            && let Ok(letters) = opened.dead_letters()
        {
            found.extend(letters.iter().map(|letter| letter.batch_id));
        }
    }
    found
}

/// I1, I19, I22, I40: batches stay in their order, and leave the outbox decided or as dead letters.
fn outbox(
    world: &mut World,
    at: usize,
    workspace: &WorkspaceName,
    waiting: Vec<BatchId>,
    resets: bool,
) -> Done {
    let limit = world.setting.outbox as usize;
    let folded = world.oracle.workspaces.get(workspace);
    let decided = |batch: &BatchId| folded.is_some_and(|f| f.decided.contains_key(batch));
    let undecided = waiting.iter().filter(|batch| !decided(batch)).count();
    let device = &world.devices[at];
    // Batches that a restore sends again are more than an app may write.
    if undecided > limit && world.lost.is_empty() {
        let text = format!("device {at}: {undecided} batches wait where {limit} may");
        return Err(Violation::new("I40", text));
    }
    let (mut gone, mut letters) = (Vec::new(), None);
    for open in device.open.iter().filter(|(of, _)| of == workspace) {
        let (_, batch) = open;
        if waiting.contains(batch) {
            continue;
        }
        let lost = world.lost.get(batch).map(Vec::as_slice).unwrap_or_default();
        // Told of it in a new copy that then began once more, the device keeps what it wrote in the
        // old one: the letters are made where that ends.
        if resets && !lost.is_empty() {
            continue;
        }
        let lost = lost.iter().any(|lost| {
            let passed = device.passed.get(&(workspace.clone(), lost.epoch));
            lost.changed_nothing() || passed.is_some_and(|passed| *passed >= lost.last_seq())
        });
        let known = decided(batch) || lost || device.squashed.contains(batch);
        if !known && !letters.get_or_insert_with(|| dead_letters(world, at)).contains(batch) {
            let text = format!("device {at}: batch {batch} was acknowledged and is gone");
            return Err(Violation::new("I1", text));
        }
        gone.push(open.clone());
    }
    let device = &mut world.devices[at];
    device.open.retain(|open| !gone.contains(open));
    let known = device.outbox.insert(workspace.clone(), waiting.clone()).unwrap_or_default();
    let both: Vec<&BatchId> = known.iter().filter(|batch| waiting.contains(batch)).collect();
    let order: Vec<&BatchId> = waiting.iter().filter(|batch| known.contains(batch)).collect();
    if both != order {
        let text = format!("device {at}: the outbox of {workspace} has another order");
        return Err(Violation::new("I19", text));
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

/// I16, I28: after the last fault everything that waits is decided within a bound, and everybody
/// has what the log says.
pub fn converged(world: &mut World) -> Done {
    authority(world, "I12")?;
    for at in 0..world.devices.len() {
        world.devices[at].shown.clear();
        device(world, at)?;
        let Some(app) = &world.devices[at].app else { continue };
        let Ok(view) = app.with(|node| Ok(node.view())) else { continue };
        for (workspace, folded) in &world.oracle.workspaces {
            let status = app.with(|node| Ok(node.status(workspace).cloned()));
            let unreadable = |error: StoreError| Violation::new("I15", error.to_string());
            let meta = read::meta(&*view, workspace).map_err(unreadable)?;
            if !is_idle(&view, workspace, &meta).map_err(unreadable)? {
                let text = format!(
                    "device {at}: the outbox of {workspace} does not drain: decided {} of {}, \
                     cursor {} of {}, {status:?}",
                    meta.decided, meta.written, meta.cursor, folded.head,
                );
                return Err(Violation::new("I28", text));
            }
            let found = rows(&view, workspace).map_err(unreadable)?;
            let user = &world.devices[at].user;
            let same = found.sum(folded, user) == folded.sums.seen_by(user);
            if meta.cursor != folded.head || !same {
                let text = format!(
                    "device {at} is at {} of {} in {workspace}: {}, {status:?}",
                    meta.cursor,
                    folded.head,
                    difference(&folded.rows, &found.rows),
                );
                return Err(Violation::new("I16", text));
            }
        }
    }
    Ok(())
}

/// The first record that differs.
#[must_use]
pub fn difference(expected: &BTreeMap<Name, Kept>, found: &BTreeMap<Name, Kept>) -> String {
    for (name, kept) in expected {
        let is_gone = kept.deleted && !found.contains_key(name);
        if found.get(name) != Some(kept) && !is_gone {
            return format!("{name:?} should be {kept:?} and is {:?}", found.get(name));
        }
    }
    let extra = found.iter().find(|(name, kept)| !kept.deleted && !expected.contains_key(*name));
    extra.map_or_else(|| "sums only".to_owned(), |(name, kept)| format!("{name:?}: {kept:?}"))
}
