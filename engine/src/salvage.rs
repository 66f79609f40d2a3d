//! Salvaging: what can be read of a damaged store becomes a store of its own, and what cannot is
//! named.
//!
//! The log before the damage is taken over as it is. Of the frames behind it only those count that
//! a device alone has: ops on its local tables are applied again, batches whose fate is unknown
//! become dead letters, and dead letters stay. What a server has comes back with the next sync.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lastword_core::id::{BatchId, DeviceId, WorkspaceName};
use lastword_core::op::{Action, Batch, Op};
use lastword_core::stamp::Decision;
use lastword_store::apply::ApplyPayload;
use lastword_store::blobs::Reindexed;
use lastword_store::keys::{self, OutboxEntry};
use lastword_store::payload::{Identity, LocalBatch, Payload, StoreRole, kind};
use lastword_store::{
    Apply, BackupError, DiskError, FrameRef, Loss, ReadOnlyDisk, SalvageReport, Store, StoreError,
    read,
};

use crate::dead_letter::{self, SALVAGED};
use crate::directory::Directory;
use crate::environment::{now_ms, random};
use crate::error::{Error, Result};
use crate::open::{self, AsIs};
use crate::reindex::reindex_store;
use crate::renew::{self, RestoredWorkspace, file_error};
use crate::upkeep;

/// Bytes of frames after which they are made durable.
const GROUP_BYTES: u64 = 4 << 20;

/// What was salvaged and what was not.
#[derive(Debug, Clone, Default)]
pub struct Salvaged {
    /// Up to where the log was taken over, how many files, and from where.
    pub taken: SalvageReport,
    /// What could not be read; empty if nothing is lost.
    pub losses: Vec<SalvageLoss>,
    /// Of a device's copy: the id it had, and the one it has now.
    pub device: Option<(DeviceId, DeviceId)>,
    /// Of a server's data: each workspace.
    pub workspaces: Vec<RestoredWorkspace>,
    /// Undecided batches from before the damage that are dead letters now.
    pub dropped_batches: u64,
    /// Batches from before the damage that the server had not shown yet and that are sent again,
    /// under the new device id.
    pub sent_again: u64,
    /// What was saved from behind the damage.
    pub behind: SavedBehind,
    /// What packs told of stored files that the salvaged log does not know.
    pub files: Reindexed,
}

/// A place that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvageLoss {
    /// The file, if it is known.
    pub file: Option<PathBuf>,
    /// Byte in the file where the damage begins.
    pub offset: u64,
    /// What does not fit.
    pub what: String,
    /// Frames behind it that can be read.
    pub frames_behind: u64,
}

/// What became of the frames behind the damage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedBehind {
    /// Ops on local tables that were applied again.
    pub local_ops: u64,
    /// Ops on local tables that change a record which is lost; they are in the log.
    pub lost_ops: u64,
    /// Batches without a verdict that are dead letters now, with code `salvaged`.
    pub dead_letters: u64,
    /// Dead letters that were kept.
    pub kept_letters: u64,
    /// Own batches that the server has accepted: they come back with the next sync.
    pub accepted: u64,
    /// Frames whose content does not decode.
    pub unreadable: u64,
    /// Of a server's data: what it had decided and this store no longer has.
    pub lost_seqs: Vec<LostSeqs>,
}

/// Seqs of a workspace that an authority had given and no longer has; devices may have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSeqs {
    /// The workspace.
    pub workspace: String,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Batches in between.
    pub batches: u64,
}

/// What becomes of batches before the damage that wait for the server, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undecided {
    /// They are in the way.
    Refuse,
    /// They become dead letters: a copy of the store may have sent them.
    Drop,
    /// They go on waiting, under the new device id: no other copy of the store is used, and a
    /// server that has decided one of them knows it by its id.
    SendAgain,
}

/// Makes a store in `to`, which must be missing or empty, of what can be read of the store or
/// backup in `dir`, of which nothing is changed. It gets an identity of its own, as with
/// [`crate::restore`]. Only a store that is complete appears in `to`; what is under way is there
/// with `.salvaging` at its end. Batches of a device's outbox that no server had decided are in the
/// way unless `drop_outbox` makes them dead letters.
///
/// # Errors
/// [`Error::NoStore`], [`Error::Lock`] if another process has the store open, [`Error::Backup`] if
/// there is nothing that a log could begin with or a file cannot be read or written,
/// [`Error::OutboxWaits`], [`Error::ClockBehind`], [`Error::Store`]. Damage is no error: it is in
/// what is returned.
pub fn salvage(dir: &Path, to: &Path, drop_outbox: bool) -> Result<Salvaged> {
    let directory = Directory::look(dir)?;
    renew::must_be_free(to)?;
    let unfinished = renew::unfinished(to, ".salvaging")?;
    let undecided = if drop_outbox { Undecided::Drop } else { Undecided::Refuse };
    let salvaged = salvage_held(&directory, dir, &unfinished, undecided)
        .and_then(|salvaged| renew::move_to(&unfinished, to).map(|()| salvaged));
    if salvaged.is_err() && unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|error| file_error(&unfinished, &error))?;
    }
    salvaged
}

/// Makes a store in `to` of what can be read of `dir`, which `directory` holds.
pub(crate) fn salvage_held(
    directory: &Directory,
    dir: &Path,
    to: &Path,
    undecided: Undecided,
) -> Result<Salvaged> {
    let mut behind = Behind::default();
    let disk = ReadOnlyDisk::new(dir);
    let beyond = &mut |frame: FrameRef<'_>| behind.take(frame);
    let apply: Arc<dyn Apply> = Arc::new(ApplyPayload::default());
    let taken = lastword_store::salvage(&disk, to, &apply, now_ms(), random(), beyond)?;
    let losses = taken.losses.iter().map(|loss| loss_of(directory, loss)).collect();
    // The role is in the first frame; only a device has frames of its own that tell it too.
    if taken.end == 0 && !taken.losses.is_empty() && behind.frames.is_empty() {
        return Err(BackupError::Nothing.into());
    }
    let mut salvaged = Salvaged { taken, losses, ..Salvaged::default() };
    // Where the rows come from the state, the log before them is of no use and may be damaged.
    let segment_size = salvaged.taken.from_state.then_some(1);
    let (opened, mut store) = open::open_as_is(to, &AsIs { segment_size, ..AsIs::default() })?;
    if salvaged.taken.from_state {
        // Begins a segment, so that what is written again does not hold the one before.
        upkeep::append_sums(&mut store)?;
    }
    // The frames that named a pack may be lost, and what nothing names would go as garbage.
    salvaged.files = reindex_store(&mut store, &mut |_| {})?;
    match opened.identity.role {
        StoreRole::Authority => {
            salvaged.workspaces = renew::workspaces(&mut store, now_ms())?;
            salvaged.behind = behind.saved;
        }
        StoreRole::Replica => {
            device(&mut store, opened.identity, behind, undecided, &mut salvaged)?
        }
    }
    if salvaged.taken.from_state {
        upkeep::fold_now(&mut store, Duration::ZERO)?;
    }
    store.close()?;
    renew::wait_for_clock(salvaged.workspaces.iter().map(|workspace| workspace.head).max())?;
    Ok(salvaged)
}

fn loss_of(directory: &Directory, loss: &Loss) -> SalvageLoss {
    let (file, offset) = match &loss.error {
        StoreError::Damaged { file, offset, .. }
        | StoreError::Disk(
            DiskError::Damaged { file, offset, .. } | DiskError::Io { file, offset, .. },
        ) => (Some(*file), *offset),
        StoreError::Disk(DiskError::TooNew { file, .. }) => (Some(*file), 0),
        _ => (None, 0),
    };
    let what = match &loss.error {
        StoreError::Damaged { reason, .. }
        | StoreError::Disk(DiskError::Damaged { reason, .. }) => (*reason).to_owned(),
        other => other.to_string(),
    };
    let file = file.and_then(|number| directory.path_of(number));
    SalvageLoss { file, offset, what, frames_behind: loss.frames_behind }
}

/// The frames behind the damage that say something which nobody else may know.
#[derive(Default)]
struct Behind {
    /// Local batches, dead letters and declarations, in order.
    frames: Vec<Payload>,
    accepted: BTreeSet<BatchId>,
    /// Batches that another has taken in.
    squashed: BTreeSet<BatchId>,
    /// Who the device became there.
    identity: Option<Identity>,
    saved: SavedBehind,
}

impl Behind {
    fn take(&mut self, frame: FrameRef<'_>) {
        if frame.kind < kind::IDENTITY {
            return;
        }
        match Payload::from_frame(frame.kind, frame.payload) {
            Ok(
                payload @ (Payload::Local(_)
                | Payload::DeadLetters(_)
                | Payload::LocalTables(_)
                | Payload::Retry(_)),
            ) => {
                self.frames.push(payload);
            }
            Ok(Payload::Squash(frame)) => {
                self.take_in(frame.replaced);
                self.frames.push(Payload::Local(frame.sent));
            }
            Ok(Payload::Verdicts(verdicts)) => {
                self.accepted.extend(verdicts.decisions.iter().map(|decided| decided.batch_id));
            }
            Ok(Payload::Identity(identity)) => self.identity = Some(identity),
            Ok(Payload::Decided(decided)) => {
                self.decided(decided.workspace.as_str(), &decided.decision);
            }
            Ok(_) => {}
            Err(_) => self.saved.unreadable += 1,
        }
    }

    /// A batch that another one stands for: only its local ops are its own.
    fn take_in(&mut self, replaced: BatchId) {
        self.squashed.insert(replaced);
        let its_batch = self.frames.iter_mut().rev().find_map(|frame| match frame {
            Payload::Local(LocalBatch { batch, .. }) => {
                Some(batch).filter(|batch| batch.as_ref().is_some_and(|b| b.batch_id == replaced))
            }
            _ => None,
        });
        if let Some(batch) = its_batch {
            *batch = None;
        }
    }

    /// Seqs that go on where others end make one range with them.
    fn decided(&mut self, workspace: &str, decision: &Decision) {
        let Decision::Accepted { first_seq, last_seq, .. } = *decision else { return };
        let seqs = &mut self.saved.lost_seqs;
        match seqs.iter_mut().rfind(|range| range.workspace == workspace) {
            Some(range) if last_seq <= range.last => {}
            Some(range) if range.last.checked_add(1) == Some(first_seq) => {
                range.last = last_seq;
                range.batches += 1;
            }
            _ => seqs.push(LostSeqs {
                workspace: workspace.to_owned(),
                first: first_seq,
                last: last_seq,
                batches: 1,
            }),
        }
    }
}

/// Takes over what a device alone has, then makes another device of it.
fn device(
    store: &mut Store,
    was: Identity,
    behind: Behind,
    undecided: Undecided,
    salvaged: &mut Salvaged,
) -> Result<()> {
    let kept_to = store.next_position();
    let Behind { frames, accepted, squashed, identity, mut saved } = behind;
    let mut lettered = BTreeSet::new();
    if salvaged.taken.from_state {
        let letters = letters_before(store)?;
        let (none, mut counts) = (BTreeSet::new(), SavedBehind::default());
        lettered = write_again(store, letters, &none, kept_to, &mut counts)?;
    }
    let frames = write_again(store, frames, &accepted, 0, &mut saved)?;
    lettered.extend(frames);
    // What is sent again stays visible meanwhile, also where the server has decided it.
    let is_open = |entry: &OutboxEntry| {
        let is_decided = entry.settled.is_some() || accepted.contains(&entry.batch_id);
        let is_wanted = !is_decided || undecided == Undecided::SendAgain;
        let is_elsewhere = lettered.contains(&entry.batch_id) || squashed.contains(&entry.batch_id);
        is_wanted && !is_elsewhere
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (workspace, entries) in renew::outbox(store, is_open)? {
        let (mut early, late): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.position < kept_to);
        let from_state = salvaged.taken.from_state;
        for entry in &mut early {
            if from_state || store.read_frame(entry.position).is_err() {
                write_ops_again(store, &workspace, entry)?;
            }
        }
        before.push((workspace.clone(), early));
        after.push((workspace, late));
    }
    before.retain(|(_, entries): &(_, Vec<_>)| !entries.is_empty());
    saved.dead_letters = count(&after);
    let why = "written behind the damage that this device's store was salvaged from";
    letters(store, &after, why)?;
    match undecided {
        Undecided::Refuse if !before.is_empty() => return Err(renew::outbox_waits(&before)),
        Undecided::Refuse => {}
        Undecided::Drop => {
            let why = "not decided in what could be salvaged of this device's store";
            letters(store, &before, why)?;
            salvaged.dropped_batches = count(&before);
        }
        Undecided::SendAgain => salvaged.sent_again = count(&before),
    }
    let was = identity.filter(|identity| identity.role == StoreRole::Replica).unwrap_or(was);
    let now = renew::device(store, &was)?;
    if undecided == Undecided::SendAgain {
        send_again(store, &before)?;
    }
    salvaged.device = Some((was.device, now));
    salvaged.behind = saved;
    Ok(())
}

/// Writes the ops of a batch again, from the state: the log before it cannot be relied on.
fn write_ops_again(
    store: &mut Store,
    workspace: &WorkspaceName,
    entry: &mut OutboxEntry,
) -> Result<()> {
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let Some(identity) = read::identity(newest)? else { return Ok(()) };
    let (mut ops, mut strict) = (Vec::new(), false);
    for (table, key) in &entry.records {
        let row_key = keys::row_key(workspace, meta.generation, table, key);
        let pending = read::pending(newest, &row_key)?;
        let own = pending.into_iter().find(|own| own.batch_id == entry.batch_id);
        if let Some(own) = own {
            ops.push(own.op);
            strict = own.strict;
        }
    }
    let Identity { device, former, .. } = identity;
    let OutboxEntry { batch_id, created_ms, .. } = *entry;
    let batch = Batch { device, counter: 0, batch_id, created_ms, strict, former, ops };
    entry.position = store.next_position();
    local_frame(store, workspace.clone(), Some(batch), Vec::new(), &mut SavedBehind::default())?;
    commit_much(store)
}

type Waiting = [(WorkspaceName, Vec<OutboxEntry>)];

fn count(waiting: &Waiting) -> u64 {
    waiting.iter().map(|(_, entries)| entries.len() as u64).sum()
}

fn letters(store: &mut Store, waiting: &Waiting, why: &str) -> Result<()> {
    for (workspace, entries) in waiting {
        for frame in dead_letter::of_unsent(workspace, SALVAGED, why, entries, now_ms()) {
            renew::append(store, &frame)?;
        }
    }
    Ok(())
}

/// The dead letters of a state, each behind the frame with its ops if that can be read: the log
/// before cannot be relied on, and must not stay for them.
fn letters_before(store: &Store) -> Result<Vec<Payload>> {
    let mut frames = Vec::new();
    for (position, row) in dead_letter::as_they_are(store.newest())? {
        let frame = store.read_frame(position).ok();
        let frame = frame.and_then(|frame| Payload::from_frame(frame.kind, &frame.payload).ok());
        if let Some(frame) = frame.and_then(Payload::into_own) {
            frames.push(Payload::Local(LocalBatch { local: Vec::new(), ..frame }));
        }
        frames.extend(dead_letter::of_rows(vec![row]));
    }
    Ok(frames)
}

/// Appends own frames again: local ops are applied, and batches without an accepting verdict enter
/// the outbox, so that the log has their ops. Answers the batches that are dead letters already.
/// Ops of those are looked for from `oldest` on.
fn write_again(
    store: &mut Store,
    frames: Vec<Payload>,
    accepted: &BTreeSet<BatchId>,
    oldest: u64,
    saved: &mut SavedBehind,
) -> Result<BTreeSet<BatchId>> {
    let kept_to = store.next_position();
    let (mut lettered, mut kept, mut moved) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for frame in frames {
        let frames = match frame {
            Payload::LocalTables(_) => {
                renew::append(store, &frame)?;
                continue;
            }
            Payload::DeadLetters(unit) => dead_letter::of_rows(unit.rows),
            Payload::Retry(retry) => {
                let mut frames = dead_letter::of_rows(vec![retry.letter]);
                frames.push(Payload::Local(retry.sent));
                frames
            }
            other => vec![other],
        };
        for frame in frames {
            let Payload::Local(frame) = frame else { continue };
            if let Some(batch) = &frame.batch {
                let is_accepted = accepted.contains(&batch.batch_id);
                saved.accepted += u64::from(is_accepted);
                if !is_accepted {
                    moved.insert(batch.batch_id, store.next_position());
                }
            }
            let batch = frame.batch.filter(|batch| !accepted.contains(&batch.batch_id));
            let ops = frame.local.into_iter().map(|op| match dead_letter::batch_of(&op) {
                None => op,
                // One that was sent again or discarded does not wait any more, nor is it a letter.
                Some(batch_id) => {
                    lettered.insert(batch_id);
                    match op.action {
                        Action::Delete => kept.remove(&batch_id),
                        _ => kept.insert(batch_id),
                    };
                    let place = moved.get(&batch_id).copied();
                    dead_letter::moved(op, |was| place.unwrap_or(was.clamp(oldest, kept_to)))
                }
            });
            let local: Vec<Op> = ops.collect();
            if batch.is_some() || !local.is_empty() {
                local_frame(store, frame.workspace, batch, local, saved)?;
            }
            commit_much(store)?;
        }
    }
    store.commit()?;
    saved.kept_letters = kept.len() as u64;
    Ok(lettered)
}

/// Appends a local batch as it would be written now, and counts its local ops.
fn local_frame(
    store: &mut Store,
    workspace: WorkspaceName,
    batch: Option<Batch>,
    local: Vec<Op>,
    saved: &mut SavedBehind,
) -> Result<()> {
    let meta = read::meta(store.newest(), &workspace)?;
    let batch = batch.map(|batch| Batch { counter: meta.written + 1, ..batch });
    let is_letter = |op: &Op| dead_letter::batch_of(op).is_some();
    let key_of = |op: &Op| keys::row_key(&workspace, meta.generation, &op.table, &op.key);
    let plain: Vec<Vec<u8>> = local.iter().filter(|op| !is_letter(op)).map(key_of).collect();
    let ops = batch.iter().flat_map(|batch| &batch.ops).chain(&local);
    let position_of = |op: &Op| -> Result<u64> {
        Ok(read::row(store.newest(), &key_of(op))?.map_or(0, |stored| stored.position))
    };
    let previous = ops.map(position_of).collect::<Result<_>>()?;
    let position = store.next_position();
    let frame = LocalBatch { workspace, batch, local, previous };
    let payload = Payload::Local(frame);
    store.append(payload.kind(), &payload.to_bytes())?;
    for row_key in plain {
        let row = read::row(store.newest(), &row_key)?;
        match row.is_some_and(|stored| stored.position == position) {
            true => saved.local_ops += 1,
            false => saved.lost_ops += 1,
        }
    }
    Ok(())
}

/// Makes durable what was appended, once it is much.
fn commit_much(store: &mut Store) -> Result<()> {
    if store.next_position().saturating_sub(store.view().position()) > GROUP_BYTES {
        store.commit()?;
    }
    Ok(())
}

/// The new device writes the batches of the old one, with their ids, in their order.
fn send_again(store: &mut Store, waiting: &Waiting) -> Result<()> {
    let Some(identity) = read::identity(store.newest())? else { return Ok(()) };
    for (workspace, entries) in waiting {
        for entry in entries {
            let frame = store.read_frame(entry.position)?;
            let payload = Payload::from_frame(frame.kind, &frame.payload).ok();
            let Some(batch) = payload.and_then(Payload::into_own).and_then(|own| own.batch) else {
                return Err(Error::Outbox { workspace: workspace.clone(), counter: 0 });
            };
            let (device, former) = (identity.device, identity.former.clone());
            let batch = Batch { device, former, ..batch };
            let mut saved = SavedBehind::default();
            local_frame(store, workspace.clone(), Some(batch), Vec::new(), &mut saved)?;
            commit_much(store)?;
        }
    }
    store.commit()?;
    Ok(())
}
