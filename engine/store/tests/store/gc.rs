//! Garbage of files: nothing that is needed ever goes, and nothing that is not needed stays for
//! ever. Losses that other tools have had are played by name here; `explorer.rs` explores schedules
//! of everything that can happen at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use lastword_core::hash::BlobHash;
use lastword_core::hlc::Hlc;
use lastword_core::id::{Key, TableName};
use lastword_core::manifest::Blob;
use lastword_core::op::{Action, Op};
use lastword_core::value::{Record, Value};
use lastword_store::blobs::{
    Chunker, Fate, GcPlan, GcRun, GcSettings, Ingest, Ingested, Receive, Received, visit_pieces,
};
use lastword_store::limits::SMALL_SPACE_ROWS;
use lastword_store::payload::{BlobsFrame, BlobsPart, LocalBatch, Payload};
use lastword_store::{BlobError, FileKind, MemoryDisk, Options, Store, StoreError, Survival, read};

use crate::blob_support::{append, get, noise, open_as, options, workspace};
use crate::fold::NO_HISTORY;
use crate::reindex::of_packs_alone;
use crate::support::files;

const DAY: i64 = 24 * 3600 * 1000;
const START: i64 = 1_700_000_000_000;

/// Which content, and a step of it that is not committed.
type Storing = (usize, Ingest<std::io::Cursor<Vec<u8>>>, Option<Ingested>);
/// Which content, and the end of it that is not committed.
type Receiving = (usize, Receive, Option<Received>);

/// A store with what a schedule does to it, and what it should hold.
pub(crate) struct World {
    pub(crate) disk: MemoryDisk,
    pub(crate) store: Option<Store>,
    pub(crate) clock_ms: i64,
    pub(crate) contents: Vec<Vec<u8>>,
    /// What each live record names, by its number.
    pub(crate) named: BTreeMap<usize, usize>,
    /// What each deleted record names, which an undelete would bring back.
    pub(crate) deleted: BTreeMap<usize, usize>,
    pub(crate) hashes: BTreeMap<usize, Blob>,
    /// A file that is being stored.
    pub(crate) storing: Option<Storing>,
    /// One that comes from somebody else.
    pub(crate) receiving: Option<Receiving>,
    pub(crate) plan: Option<GcPlan>,
    /// A pack says of some file that it was stored, and the log does not.
    pub(crate) is_unconfirmed: bool,
}

/// Opens a store whose packs end early.
pub(crate) fn open_small(disk: &MemoryDisk) -> Store {
    open_as(disk, Options { pack_size: 96 << 10, cache_bytes: 1 << 20, ..options() }).unwrap()
}

/// Nobody looks at what closing a store would write.
impl Drop for World {
    fn drop(&mut self) {
        self.cut_power();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = World::closed();
        world.store = Some(open_small(&world.disk));
        world
    }

    /// One whose store is to be opened.
    pub(crate) fn closed() -> Self {
        static CONTENTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        let contents = CONTENTS.get_or_init(|| {
            // Two of one chunk; two of several that share some, and a page. They are as short as
            // such files can be: what a schedule costs is mostly what it stores.
            let has_several = |content: &Vec<u8>| {
                let mut chunker = Chunker::new(&content[..]);
                let first = chunker.next_chunk().unwrap().map_or(0, <[u8]>::len);
                (20_000..40_000).contains(&first)
            };
            let shared = (1..).map(|seed| noise(seed, 66_000)).find(has_several).unwrap();
            let mut longer = shared.clone();
            longer.extend_from_slice(&noise(2, 17_000));
            vec![noise(3, 100), noise(4, 200), shared, longer]
        });
        let (named, deleted, hashes) = Default::default();
        let (storing, receiving, plan) = Default::default();
        World {
            disk: MemoryDisk::new(4 << 10),
            store: None,
            clock_ms: START,
            contents: contents.clone(),
            named,
            deleted,
            hashes,
            storing,
            receiving,
            plan,
            is_unconfirmed: false,
        }
    }

    pub(crate) fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn settings(&self) -> GcSettings {
        GcSettings {
            now_ms: self.clock_ms,
            staged_ms: DAY,
            grace_ms: DAY,
            force: true,
            forgotten_at: None,
        }
    }

    /// Begins to store a file and does its only step, without a commit.
    pub(crate) fn begin_storing(&mut self, content: usize) {
        self.is_unconfirmed |= matches!(self.storing, Some((_, _, Some(_))));
        let from = std::io::Cursor::new(self.contents[content].clone());
        let time_ms = self.clock_ms;
        let blobs = self.store().blobs().clone();
        let ingest = Ingest::new(&blobs, &workspace(), from, u64::MAX, time_ms);
        self.storing = Some((content, ingest, None));
    }

    pub(crate) fn store_named(&mut self, content: usize, record: usize) {
        self.begin_storing(content);
        self.end_storing();
        assert!(self.write(record, Some(content)));
    }

    pub(crate) fn step_storing(&mut self) {
        if let Some((_, ingest, step @ None)) = &mut self.storing {
            *step = Some(ingest.step().unwrap());
        }
    }

    pub(crate) fn end_storing(&mut self) {
        self.step_storing();
        let Some((content, ingest, Some(step))) = self.storing.take() else { return };
        for frame in step.frames.iter().cloned() {
            append(self.store(), &Payload::Blobs(frame)).unwrap();
        }
        self.store().commit().unwrap();
        self.hashes.insert(content, step.blob.unwrap());
        drop((step, ingest));
    }

    /// Writes a record that names a file, or nothing; as a write does, only if the file is there.
    pub(crate) fn write(&mut self, record: usize, content: Option<usize>) -> bool {
        let value = match content {
            None => Record::default(),
            Some(content) => {
                let Some(blob) = self.hashes.get(&content).copied() else { return false };
                let newest = self.store().newest();
                if read::blob(newest, &workspace(), &blob.sha256).unwrap().is_none() {
                    return false;
                }
                let text = format!("see {}!", BlobHash::Sha256(blob.sha256));
                Record::new(&[("body".into(), Value::Text(text))]).unwrap()
            }
        };
        self.edit(record, Action::Create { record: value, replace: true });
        self.deleted.remove(&record);
        self.named.remove(&record);
        self.named.extend(content.map(|content| (record, content)));
        true
    }

    pub(crate) fn edit(&mut self, record: usize, action: Action) {
        let (table, key) = (TableName::new("notes").unwrap(), Key::new(&format!("n{record}")));
        let hlc = Hlc::default();
        let op = Op { table, key: key.unwrap(), base: 0, revision: 1, hlc, action };
        let (local, previous) = (vec![op], vec![0]);
        let batch = LocalBatch { workspace: workspace(), batch: None, local, previous };
        append(self.store(), &Payload::Local(batch)).unwrap();
        self.store().commit().unwrap();
    }

    pub(crate) fn mark(&mut self) {
        self.plan = None;
        let (blobs, settings) = (self.store().blobs().clone(), self.settings());
        self.plan = match GcRun::begin(&blobs, &workspace(), settings).unwrap().mark() {
            Ok(plan) => Some(plan),
            Err(BlobError::Folded) => None,
            Err(error) => panic!("{error}"),
        };
    }

    pub(crate) fn decide(&mut self) {
        let Some(mut plan) = self.plan.take() else { return };
        plan.write_marks().unwrap();
        match self.store().collect(&mut plan) {
            Ok(()) => self.plan = Some(plan),
            // Packs say already what it had found.
            Err(BlobError::Folded) => self.is_unconfirmed = true,
            Err(error) => panic!("{error}"),
        }
        self.store().commit().unwrap();
    }

    pub(crate) fn sweep(&mut self) {
        let Some(mut plan) = self.plan.take() else { return };
        let (frames, held) = plan.move_chunks().unwrap();
        for frame in frames {
            append(self.store(), &Payload::Blobs(frame)).unwrap();
        }
        self.store().commit().unwrap();
        drop(held);
        self.store().drop_packs(&plan).unwrap();
        self.store().commit().unwrap();
        plan.remove_packs().unwrap();
    }

    pub(crate) fn fold(&mut self) {
        self.store().end_segment().unwrap();
        // The segment that ends here goes once the next one has something.
        let records = self.named.clone();
        for record in 90..92 {
            assert!(self.write(record, None));
        }
        self.named = records;
        self.store().fold(&NO_HISTORY).unwrap();
    }

    pub(crate) fn crash(&mut self, survival: Survival) {
        self.is_unconfirmed = true;
        self.cut_power();
        self.disk = self.disk.after_power_cut(survival);
        self.store = Some(open_small(&self.disk));
    }

    /// The process is gone, and cannot close anything any more.
    fn cut_power(&mut self) {
        self.disk.set_fault(Some((self.disk.operations(), lastword_store::Fault::PowerCut)));
        (self.storing, self.receiving, self.plan, self.store) = (None, None, None, None);
    }

    /// I31, I32: what a record names is there, and so is everything that the state says is.
    pub(crate) fn check(&self, what: &str) {
        let store = self.store.as_ref().unwrap();
        let named: BTreeSet<_> = self.named.values().chain(self.deleted.values()).collect();
        for content in &named {
            let found = get(store, &self.hashes[content]);
            let found = found.unwrap_or_else(|e| panic!("I31: {what}: content {content}: {e}"));
            assert!(found == self.contents[**content], "I34: {what}: content {content}");
        }
        let named: BTreeSet<_> = named.iter().map(|content| self.hashes[content].sha256).collect();
        for blob in self.kept().iter().filter(|blob| !named.contains(&blob.sha256)) {
            get(store, blob).unwrap_or_else(|e| panic!("I31: {what}: a file is not whole: {e}"));
        }
    }

    pub(crate) fn kept(&self) -> Vec<Blob> {
        let (store, mut kept) = (self.store.as_ref().unwrap(), Vec::new());
        read::visit_blobs(&*store.view(), &workspace(), &mut |stored| {
            kept.push(stored.blob);
            Ok(())
        })
        .unwrap();
        kept
    }

    /// Nothing happens any more but collection.
    pub(crate) fn quiet(&mut self) {
        self.is_unconfirmed |= matches!(self.storing, Some((_, _, Some(_))));
        self.is_unconfirmed |= matches!(self.receiving, Some((_, _, Some(_))));
        (self.storing, self.receiving, self.plan) = (None, None, None);
        self.fold();
        for _ in 0..5 {
            self.clock_ms += 2 * DAY;
            self.mark();
            self.decide();
            self.sweep();
            self.plan = None;
        }
    }

    /// I31: packs alone tell of every file that is here, and of no other, but for one whose storing
    /// was cut short.
    pub(crate) fn check_packs_alone(&self, what: &str) {
        let (_, store, _) = of_packs_alone(&self.disk);
        let kept = self.kept();
        for blob in &kept {
            get(&store, blob).unwrap_or_else(|e| panic!("I31: {what}: not in packs: {e}"));
        }
        let mut found = Vec::new();
        read::visit_blobs(&*store.view(), &workspace(), &mut |stored| {
            found.push(stored.blob);
            Ok(())
        })
        .unwrap();
        let extra = found.iter().filter(|blob| !kept.contains(blob)).count();
        assert!(self.is_unconfirmed || extra == 0, "{what}: {extra} files came back from packs");
    }

    /// I35: what is there is what is named: files, chunks and packs.
    pub(crate) fn check_no_leak(&self, what: &str) {
        let store = self.store.as_ref().unwrap();
        let kept: BTreeSet<_> = self.kept().iter().map(|blob| blob.sha256).collect();
        let named = self.named.values().chain(self.deleted.values());
        let named: BTreeSet<_> = named.map(|content| self.hashes[content].sha256).collect();
        assert_eq!(kept, named, "I35: {what}: files");
        let (mut needed, mut chunks) = (BTreeSet::new(), BTreeSet::new());
        for blob in self.kept() {
            visit_pieces(store.blobs(), &workspace(), &blob, &mut |id| {
                needed.insert(*id);
                Ok(())
            })
            .unwrap();
        }
        read::visit_chunks(&*store.view(), &workspace(), &mut |id, _| {
            chunks.insert(id);
            Ok(())
        })
        .unwrap();
        assert_eq!(chunks, needed, "I35: {what}: chunks");
        let known = read::packs(&*store.view(), &workspace()).unwrap();
        let known: BTreeSet<u64> = known.into_iter().map(|(number, _)| number).collect();
        let on_disk: BTreeSet<u64> = files(&self.disk, FileKind::Pack).into_iter().collect();
        assert_eq!(on_disk, known, "I35: {what}: packs");
    }
}

/// Stores a file, and names it in a record.
pub(crate) fn named(content: usize, record: usize) -> World {
    let mut world = World::new();
    world.store_named(content, record);
    world
}

fn run(world: &mut World) {
    world.mark();
    world.decide();
    world.sweep();
}

/// A whole collection, with the time that it takes: what nothing names is gone afterwards.
pub(crate) fn collect_all(world: &mut World) {
    for _ in 0..4 {
        world.clock_ms += 2 * DAY;
        run(world);
    }
}

/// borg 9748: bytes were removed before the index said so, and what came between saved files that
/// were not there. Here the log says first that a pack is gone: power is cut at every operation of
/// a sweep, and what is stored again afterwards is whole.
#[test]
fn known_loss_bytes_removed_before_the_index() {
    let mut probe = named(2, 0);
    probe.write(0, None);
    probe.fold();
    collect_all(&mut probe);
    assert!(probe.kept().is_empty() && files(&probe.disk, FileKind::Pack).is_empty());
    let mut cuts = 0;
    for at in 0.. {
        let mut world = named(2, 0);
        world.write(0, None);
        world.fold();
        for _ in 0..2 {
            world.clock_ms += 2 * DAY;
            world.mark();
            world.decide();
        }
        world.clock_ms += 2 * DAY;
        world.mark();
        let from = world.disk.operations();
        world.disk.set_fault(Some((from + at, lastword_store::Fault::PowerCut)));
        let mut plan = world.plan.take().unwrap();
        let swept = (|| {
            let store = world.store.as_mut().unwrap();
            plan.write_marks()?;
            store.collect(&mut plan)?;
            store.commit()?;
            let (frames, held) = plan.move_chunks()?;
            for frame in frames {
                append(store, &Payload::Blobs(frame))?;
            }
            store.commit()?;
            drop(held);
            store.drop_packs(&plan)?;
            store.commit()?;
            plan.remove_packs().map_err(BlobError::from)
        })();
        drop(plan);
        for survival in [Survival::Dropped, Survival::Kept, Survival::Torn(at * 7 + 1)] {
            let mut again = World::new();
            again.disk = world.disk.after_power_cut(survival);
            again.store = Some(open_small(&again.disk));
            again.clock_ms = world.clock_ms;
            again.begin_storing(2);
            again.end_storing();
            assert!(again.write(1, Some(2)));
            again.check(&format!("cut at {at} of a sweep, {survival:?}"));
            again.quiet();
            again.check_no_leak(&format!("cut at {at} of a sweep, {survival:?}"));
        }
        cuts += 1;
        if swept.is_ok() {
            break;
        }
    }
    assert!(cuts >= 3, "{cuts}");
}

/// I37: what was stored a short while ago, and is about to be named, is no garbage yet.
#[test]
fn what_is_staged_stays_for_its_time() {
    let mut world = World::new();
    world.begin_storing(0);
    world.end_storing();
    for (passes, fate) in [(DAY - 1, Fate::JustStored), (1, Fate::Condemned)] {
        world.clock_ms += passes;
        world.mark();
        assert_eq!(world.plan.take().unwrap().files[0].2, fate);
    }
}

/// iroh 247: roots were read in two steps, and what moved from one to the other in between was
/// seen in neither. Here a file becomes named between the look and the decision.
#[test]
fn known_loss_roots_read_in_two_steps() {
    let mut world = World::new();
    world.begin_storing(2);
    world.end_storing();
    world.clock_ms += 2 * DAY;
    run(&mut world);
    world.clock_ms += 2 * DAY;
    world.mark();
    assert_eq!(world.plan.as_ref().unwrap().files[0].2, Fate::Dropped);
    assert!(world.write(0, Some(2)), "what is condemned can still be named");
    world.decide();
    world.sweep();
    world.check("named between the look and the decision");
    collect_all(&mut world);
    world.check("and after");
}

/// restic, rustic: a writer had found a chunk, paused across a sweep, and then named it. Here it
/// holds a lease, however long it pauses.
#[test]
fn known_loss_a_writer_paused_across_sweeps() {
    let mut world = named(2, 0);
    world.write(0, None);
    world.fold();
    world.clock_ms += 2 * DAY;
    // It has looked: every chunk but its own tail is there.
    world.begin_storing(3);
    world.step_storing();
    let (_, _, step) = world.storing.as_ref().unwrap();
    let used = |frame: &BlobsFrame| match &frame.part {
        BlobsPart::Chunks { used, .. } => !used.is_empty(),
        _ => false,
    };
    assert!(step.as_ref().unwrap().frames.iter().any(used), "it has found nothing there");
    for _ in 0..6 {
        world.clock_ms += 2 * DAY;
        run(&mut world);
    }
    world.end_storing();
    assert!(world.write(1, Some(3)));
    world.check("a writer paused across sweeps");
    collect_all(&mut world);
    world.check("and after");
}

/// Ours: several store files at once, and the one that began last was taken for all of them. The
/// one that began first has found chunks that were condemned since.
#[test]
fn known_loss_the_oldest_lease_counts() {
    let mut world = named(2, 0);
    world.write(0, None);
    world.fold();
    world.clock_ms += 2 * DAY;
    world.begin_storing(3);
    world.step_storing();
    let first = world.storing.take();
    for _ in 0..6 {
        world.begin_storing(0);
        world.clock_ms += 2 * DAY;
        run(&mut world);
    }
    world.storing = first;
    world.end_storing();
    assert!(world.write(1, Some(3)));
    world.check("a writer paused while others came and went");
    collect_all(&mut world);
    world.check("and after");
}

/// kopia 1087: two collectors at once, each with its own idea of what is needed.
#[test]
fn known_loss_two_collectors() {
    let mut world = named(0, 0);
    world.mark();
    let blobs = world.store().blobs().clone();
    let second = GcRun::begin(&blobs, &workspace(), world.settings());
    assert!(matches!(second, Err(BlobError::Collecting)));
    world.plan = None;
    drop(GcRun::begin(&blobs, &workspace(), world.settings()).unwrap());
}

/// Ours: a file that only the delta names, which no checkpoint has written yet.
#[test]
fn known_loss_a_name_that_is_only_in_the_delta() {
    let mut world = World::new();
    world.begin_storing(1);
    world.end_storing();
    world.store().checkpoint().unwrap();
    assert!(world.write(0, Some(1)));
    collect_all(&mut world);
    world.check("named in the delta only");
    world.write(0, None);
    world.write(1, Some(1));
    world.fold();
    collect_all(&mut world);
    world.check("named in redb");
}

/// Ours: a field begins to name files that no schema says names any; and a deleted value that the
/// history still has.
#[test]
fn known_loss_a_field_that_nobody_declared() {
    let mut world = named(1, 0);
    world.write(0, None);
    // No fold: the history has it, so an undo could bring it back.
    collect_all(&mut world);
    assert_eq!(world.kept().len(), 1);
    assert!(world.write(7, Some(1)), "any field of any table counts");
    world.fold();
    collect_all(&mut world);
    world.check("named by a field that nobody declared");
}

/// I35. A process ended while it stored a file, and what it had put into the pack stayed there for
/// ever unless somebody stored another file.
#[test]
fn what_a_crash_left_in_a_pack_goes() {
    for (content, survival) in [(3, Survival::Kept), (2, Survival::Torn(5)), (3, Survival::Torn(9))]
    {
        let mut world = named(0, 0);
        world.begin_storing(content);
        world.step_storing();
        world.crash(survival);
        let taken = |world: &World| {
            let packs = files(&world.disk, FileKind::Pack).into_iter();
            packs.map(|pack| world.disk.bytes(pack).unwrap().len()).sum::<usize>()
        };
        assert!(taken(&world) > 60_000, "nothing was left behind: the test proves nothing");
        collect_all(&mut world);
        world.check("after what a crash had left went");
        assert!(taken(&world) < 20_000, "{} bytes are left", taken(&world));
    }
}

/// I12, I31: redb has lost a row that names a file. Nobody knows then what is needed: the run ends
/// with an error and nothing goes.
#[test]
fn a_state_that_lost_rows_stops_the_collection() {
    let mut world = named(1, 0);
    // What is small is looked through when the store is opened.
    for record in 1..=SMALL_SPACE_ROWS as usize {
        world.write(record, Some(1));
    }
    world.fold();
    world.store.take().unwrap().close().unwrap();
    let state = files(&world.disk, FileKind::State)[0];
    let bytes = world.disk.bytes(state).unwrap();
    let rows = bytes.windows(4).enumerate().filter(|(_, window)| *window == b"see ");
    rows.for_each(|(at, _)| world.disk.flip(state, (at + 60) * 8));
    world.store = Some(open_small(&world.disk));
    let (blobs, settings) = (world.store().blobs().clone(), world.settings());
    let marked = GcRun::begin(&blobs, &workspace(), settings).unwrap().mark();
    let damaged = matches!(
        marked,
        Err(BlobError::Store(error)) if matches!(*error, StoreError::StateDamaged { .. })
    );
    assert!(damaged);
}

/// B8: a run that would take more than a tenth of much is stopped, and goes on if it is told to.
#[test]
fn much_garbage_at_once_needs_a_second_thought() {
    let mut world = World::new();
    world.contents.push(noise(9, 70 << 20));
    world.begin_storing(4);
    loop {
        world.step_storing();
        let (_, _, step) = world.storing.as_mut().unwrap();
        let step = step.take().unwrap();
        for frame in step.frames.iter().cloned() {
            append(world.store(), &Payload::Blobs(frame)).unwrap();
        }
        world.store().commit().unwrap();
        if step.blob.is_some() {
            break;
        }
    }
    world.storing = None;
    world.clock_ms += 2 * DAY;
    run(&mut world);
    world.clock_ms += 2 * DAY;
    let blobs = world.store().blobs().clone();
    let careful = GcSettings { force: false, ..world.settings() };
    let stopped = GcRun::begin(&blobs, &workspace(), careful).unwrap().mark();
    assert!(matches!(stopped, Err(BlobError::TooMuchGarbage { .. })));
    assert_eq!(world.kept().len(), 1);
    collect_all(&mut world);
    assert!(world.kept().is_empty());
}
