//! Garbage collection of one workspace's files, on a device or at the authority.

use std::sync::Arc;
use std::time::Duration;

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_store::blobs::{Blobs, Fate, GcRun, GcSettings, GcTotals};

use crate::error::Result;
use crate::file_frames;
use crate::object_garbage::{ObjectFate, ObjectGarbage};
use crate::object_stores::ObjectStores;
use crate::quota::FileQuota;
use crate::writer::Writer;

/// How garbage is collected.
#[derive(Debug, Clone, Copy)]
pub struct CollectOptions {
    /// A stored file that nothing names yet stays this long, 24 hours unless set.
    pub staged: Duration,
    /// What nothing needs can be read and comes back this long before it goes, an hour unless set.
    pub grace: Duration,
    /// Look, and change nothing.
    pub dry_run: bool,
    /// Go on also if more than a tenth of everything would go.
    pub force: bool,
}

impl Collected {
    /// Whether the run changed anything.
    pub(crate) fn did_something(&self) -> bool {
        let does = |(_, _, fate): &(BlobHash, u64, Fate)| {
            matches!(fate, Fate::Condemned | Fate::Dropped | Fate::Spared)
        };
        let GcTotals { dropped_chunks, condemned_chunks, .. } = self.totals;
        let of_chunks = dropped_chunks + condemned_chunks + self.removed_packs;
        of_chunks > 0 || self.files.iter().any(does)
    }
}

impl Default for CollectOptions {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { staged: 24 * hour, grace: hour, dry_run: false, force: false }
    }
}

/// What one run of the garbage collection found and did.
#[derive(Debug, Clone)]
pub struct Collected {
    /// Each file, its length and what becomes of it, in order of its hash.
    pub files: Vec<(BlobHash, u64, Fate)>,
    /// In numbers.
    pub totals: GcTotals,
    /// Packs whose files were removed.
    pub removed_packs: u64,
    /// What becomes of each file that an object store keeps, in order of its hash.
    pub objects: Vec<ObjectFate>,
    /// Those that are deleted by now, and those that are about to be in a dry run.
    pub deleted_objects: Vec<BlobHash>,
}

/// One run; see [`crate::Files::collect`].
pub(crate) fn collect(
    blobs: &Arc<Blobs>,
    writer: &Writer,
    workspace: &WorkspaceName,
    options: CollectOptions,
    now_ms: i64,
) -> Result<Collected> {
    run(blobs, writer, (workspace, None), (options, None), now_ms)
}

/// As [`collect`], with what object stores keep for the workspace.
pub(crate) fn collect_all(
    blobs: &Arc<Blobs>,
    writer: &Writer,
    workspace: &WorkspaceName,
    (stores, quota): (&Arc<ObjectStores>, &Arc<FileQuota>),
    options: CollectOptions,
    now_ms: i64,
) -> Result<Collected> {
    let (stores, quota) = (Arc::clone(stores), Arc::clone(quota));
    let (staged_ms, grace_ms) = (ms(options.staged), ms(options.grace));
    let (workspace, force) = (workspace.clone(), options.force || options.dry_run);
    let objects = ObjectGarbage { stores, quota, workspace, now_ms, staged_ms, grace_ms, force };
    run(blobs, writer, (&objects.workspace.clone(), Some(objects)), (options, None), now_ms)
}

/// One run over a workspace that was forgotten at that position of the log: files that were stored
/// before go at once, whatever names them.
pub(crate) fn forget(
    blobs: &Arc<Blobs>,
    writer: &Writer,
    workspace: &WorkspaceName,
    forgotten_at: u64,
    now_ms: i64,
) -> Result<Collected> {
    let (staged, grace) = (Duration::ZERO, Duration::ZERO);
    let options = CollectOptions { staged, grace, dry_run: false, force: true };
    run(blobs, writer, (workspace, None), (options, Some(forgotten_at)), now_ms)
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn run(
    blobs: &Arc<Blobs>,
    writer: &Writer,
    (workspace, garbage): (&WorkspaceName, Option<ObjectGarbage>),
    (options, forgotten_at): (CollectOptions, Option<u64>),
    now_ms: i64,
) -> Result<Collected> {
    let settings = GcSettings {
        now_ms,
        staged_ms: ms(options.staged),
        grace_ms: ms(options.grace),
        force: options.force || options.dry_run,
        forgotten_at,
    };
    let mut plan = GcRun::begin(blobs, workspace, settings)?.mark()?;
    let (files, totals) = (std::mem::take(&mut plan.files), plan.totals);
    let look = |garbage: &ObjectGarbage| garbage.look(&plan);
    let (objects, due) = garbage.as_ref().map(look).transpose()?.unwrap_or_default();
    if options.dry_run {
        let goes = objects.iter().filter(|object| object.fate == Fate::Dropped);
        let deleted_objects = goes.map(|object| object.hash).collect();
        return Ok(Collected { files, totals, removed_packs: 0, objects, deleted_objects });
    }
    plan.write_marks()?;
    let decides = garbage.clone();
    let (mut plan, at_stores) = writer.run(move |store| {
        store.collect(&mut plan)?;
        let decided = decides.map(|garbage| garbage.decide(store, &plan, &due));
        Ok((plan, decided.transpose()?.unwrap_or_default()))
    })?;
    let (moved, held) = plan.move_chunks()?;
    file_frames::append(writer, moved)?;
    drop(held);
    // The log says first that they are gone.
    let plan = writer.run(move |store| {
        store.drop_packs(&plan)?;
        Ok(plan)
    })?;
    let removed_packs = plan.remove_packs()?;
    // A store may take minutes for each answer, and the next run need not wait for it.
    drop(plan);
    let at_stores = |garbage: ObjectGarbage| {
        garbage.look_again(writer, at_stores.doubtful)?;
        garbage.delete(writer, at_stores.leaving)
    };
    let deleted_objects = garbage.map(at_stores).transpose()?.unwrap_or_default();
    Ok(Collected { files, totals, removed_packs, objects, deleted_objects })
}
