//! Schedules of everything that can happen at once to files, explored: staging, attaching,
//! deleting, undeleting, uploads, marking, condemning, sweeping, folding and crashing, in any
//! order.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use lastword_core::hash::ChunkId;
use lastword_core::manifest::Blob;
use lastword_core::op::{Action, TombstoneRef};
use lastword_store::blobs::{Receive, visit_pieces};
use lastword_store::payload::Payload;
use lastword_store::{MemoryDisk, Survival};

use crate::blob_support::{append, open, put, workspace};
use crate::gc::{World, open_small};

const DAY: i64 = 24 * 3600 * 1000;
/// One schedule in so many begins with what its own process has stored, the others with a store
/// that was opened again, of which a few are made once.
const BEGINS_ANEW: u64 = 8;
/// Files that may have been stored before a schedule begins.
const STORED_BEFORE: [usize; 3] = [2, 3, 0];

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A file is staged: it begins, its bytes are read, the log says it.
    Begin(usize),
    Read,
    End,
    /// A record names a file, or names none any more.
    Write(usize, Option<usize>),
    Delete(usize),
    Undelete(usize),
    /// A file comes from somebody else: it is offered, pieces come, what came is made durable, the
    /// whole is compared, the log says it.
    Offer(usize),
    Pieces(usize),
    Save,
    Verify,
    Commit,
    /// The connection ends: what came is made durable, or not.
    Cut(bool),
    Mark,
    Decide,
    Sweep,
    Fold,
    Checkpoint,
    Pass,
    Crash(u64),
}

fn step_of(random: u64) -> Step {
    let pick = (random >> 8) as usize;
    match random % 36 {
        0..=1 => Step::Begin(pick % 4),
        2 => Step::Read,
        3..=4 => Step::End,
        5..=7 => Step::Write(pick % 3, Some(pick / 3 % 4)),
        8 => Step::Write(pick % 3, None),
        9..=10 => Step::Delete(pick % 3),
        11..=12 => Step::Undelete(pick % 3),
        13..=14 => Step::Offer(pick % 4),
        15..=16 => Step::Pieces(1 + pick % 3),
        17 => Step::Save,
        18 => Step::Verify,
        19..=20 => Step::Commit,
        21 => Step::Cut(pick.is_multiple_of(2)),
        22..=25 => Step::Mark,
        26..=29 => Step::Decide,
        30..=31 => Step::Sweep,
        32 => Step::Fold,
        33 => Step::Checkpoint,
        34 => Step::Pass,
        _ => Step::Crash(random),
    }
}

/// What somebody else has of each content: the file, and its chunks and pages.
type Held = (Blob, BTreeMap<ChunkId, Vec<u8>>);

fn held_elsewhere(content: usize) -> &'static Held {
    static HELD: OnceLock<Vec<Held>> = OnceLock::new();
    let all = HELD.get_or_init(|| {
        let hold = |content: &Vec<u8>| {
            let mut store = open(&MemoryDisk::new(4 << 10));
            let (blob, _) = put(&mut store, &content[..]).unwrap();
            let mut pieces = BTreeMap::new();
            visit_pieces(store.blobs(), &workspace(), &blob, &mut |id| {
                pieces.insert(*id, store.blobs().read_newest(&workspace(), id)?);
                Ok(())
            })
            .unwrap();
            (blob, pieces)
        };
        World::new().contents.iter().map(hold).collect()
    });
    &all[content]
}

impl World {
    fn play(&mut self, step: Step) {
        match step {
            Step::Begin(content) => self.begin_storing(content),
            Step::Read => self.step_storing(),
            Step::End => self.end_storing(),
            Step::Write(record, content) => drop(self.write(record, content)),
            Step::Delete(record) => self.delete(record),
            Step::Undelete(record) => self.undelete(record),
            Step::Offer(content) => self.offer(content),
            Step::Pieces(count) => self.pieces(count),
            Step::Save => self.save_received(),
            Step::Verify => self.verify_received(),
            Step::Commit => self.commit_received(),
            Step::Cut(saves) => self.cut(saves),
            // Most runs are far apart.
            Step::Mark => {
                self.clock_ms += DAY;
                self.mark();
            }
            Step::Decide => self.decide(),
            Step::Sweep => self.sweep(),
            Step::Fold => self.fold(),
            Step::Checkpoint => self.store().checkpoint().unwrap(),
            Step::Pass => self.clock_ms += DAY,
            Step::Crash(seed) => self.crash(Survival::Torn(seed)),
        }
    }

    /// How many files a step drops.
    fn play_and_count(&mut self, step: Step) -> u64 {
        if !matches!(step, Step::Decide) {
            self.play(step);
            return 0;
        }
        let before = self.kept().len();
        self.play(step);
        before.saturating_sub(self.kept().len()) as u64
    }

    fn delete(&mut self, record: usize) {
        let Some(content) = self.named.remove(&record) else { return };
        self.edit(record, Action::Delete);
        self.deleted.insert(record, content);
    }

    fn undelete(&mut self, record: usize) {
        let Some(content) = self.deleted.remove(&record) else { return };
        self.edit(record, Action::Undelete { tombstone: TombstoneRef::Seq(0) });
        self.named.insert(record, content);
    }

    fn offer(&mut self, content: usize) {
        self.cut(true);
        let (blob, _) = held_elsewhere(content);
        let receive = Receive::new(self.store().blobs(), &workspace(), *blob);
        self.receiving = Some((content, receive, None));
    }

    fn pieces(&mut self, count: usize) {
        let Some((content, receive, None)) = &mut self.receiving else { return };
        let (_, pieces) = held_elsewhere(*content);
        for _ in 0..count {
            for id in receive.wants(1).unwrap() {
                assert!(receive.put(&pieces[&id]).unwrap());
            }
        }
    }

    fn save_received(&mut self) {
        let Some((_, receive, None)) = &mut self.receiving else { return };
        let received = receive.take().unwrap();
        for frame in received.frames.iter().cloned() {
            append(self.store(), &Payload::Blobs(frame)).unwrap();
        }
        self.store().commit().unwrap();
    }

    fn verify_received(&mut self) {
        loop {
            let Some((_, receive, None)) = &self.receiving else { return };
            if receive.is_complete() {
                break;
            }
            self.pieces(1);
        }
        self.save_received();
        let time_ms = self.clock_ms;
        if let Some((_, receive, end)) = &mut self.receiving {
            let (_, last) = receive.verify(u64::MAX, time_ms).unwrap();
            *end = Some(last.unwrap());
        }
    }

    fn commit_received(&mut self) {
        self.verify_received();
        let Some((content, receive, Some(end))) = self.receiving.take() else { return };
        for frame in end.frames.iter().cloned() {
            append(self.store(), &Payload::Blobs(frame)).unwrap();
        }
        self.store().commit().unwrap();
        self.hashes.insert(content, *receive.blob());
    }

    fn cut(&mut self, saves: bool) {
        self.is_unconfirmed |= matches!(self.receiving, Some((_, _, Some(_))));
        if saves {
            self.save_received();
        }
        self.receiving = None;
    }

    /// Most schedules begin with files that nothing names any more, some of them condemned.
    fn prepared(count: usize, condemned: bool) -> Self {
        let mut world = World::new();
        for content in STORED_BEFORE.into_iter().take(count) {
            world.begin_storing(content);
            world.end_storing();
            world.write(0, Some(content));
            world.write(0, None);
        }
        if condemned {
            world.fold();
            world.clock_ms += 2 * DAY;
            world.mark();
            world.decide();
            world.plan = None;
        }
        world
    }

    /// The same, as another process finds it.
    fn found(count: usize, condemned: bool) -> Self {
        /// Disk, time and files of one that was made before.
        type Made = (MemoryDisk, i64, BTreeMap<usize, Blob>);
        static MADE: [OnceLock<Made>; 8] = [const { OnceLock::new() }; 8];
        let (disk, clock_ms, hashes) = MADE[count * 2 + usize::from(condemned)].get_or_init(|| {
            let mut world = World::prepared(count, condemned);
            world.store.take().unwrap().close().unwrap();
            let disk = world.disk.after_power_cut(Survival::Kept);
            (disk, world.clock_ms, std::mem::take(&mut world.hashes))
        });
        let mut world = World::closed();
        world.disk = disk.after_power_cut(Survival::Kept);
        world.store = Some(open_small(&world.disk));
        (world.clock_ms, world.hashes) = (*clock_ms, hashes.clone());
        world
    }
}

/// I31, I32, I35, line 4 of the promises about files: schedules of at most 20 steps, in any order;
/// no file that is named is lost, and after quiet nothing else is left. `LASTWORD_GC_SCHEDULES`
/// says how many, `LASTWORD_GC_START` which is the first, `LASTWORD_GC_THREADS` on how many cores.
#[test]
fn explored_schedules_lose_and_leak_nothing() {
    let number = |name, other| std::env::var(name).map_or(other, |n| n.parse().unwrap());
    let (first, wanted) = (number("LASTWORD_GC_START", 0), number("LASTWORD_GC_SCHEDULES", 400));
    let begun = std::time::Instant::now();
    let next = std::sync::atomic::AtomicU64::new(first);
    let dropped = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..number("LASTWORD_GC_THREADS", 2) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= first + wanted {
                        break;
                    }
                    let gone = play_schedule(seed);
                    dropped.fetch_add(gone, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let dropped = dropped.into_inner();
    eprintln!(
        "{wanted} schedules, {:.0}/s, {dropped} files dropped on the way",
        wanted as f64 / seconds
    );
    assert!(dropped > 0 || wanted < 100, "nothing ever went: the test proves nothing");
}

/// A schedule as far as it was played, which is told if it fails.
struct Played(u64, Vec<Step>);

impl Drop for Played {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("schedule {}: {:?}", self.0, self.1);
        }
    }
}

/// Returns how many files went before the quiet.
fn play_schedule(seed: u64) -> u64 {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random >> 16
    };
    let (count, condemned) = (next() as usize % 4, next() % 4 != 0);
    let mut world = match seed.is_multiple_of(BEGINS_ANEW) {
        true => World::prepared(count, condemned),
        false => World::found(count, condemned),
    };
    let (mut played, mut gone) = (Played(seed, Vec::new()), 0);
    for _ in 0..4 + next() % 17 {
        let step = step_of(next());
        played.1.push(step);
        gone += world.play_and_count(step);
    }
    world.check("after a schedule");
    world.quiet();
    world.check("after quiet");
    world.check_no_leak("after quiet");
    if seed.is_multiple_of(8) {
        world.check_packs_alone("after quiet");
    }
    gone
}
