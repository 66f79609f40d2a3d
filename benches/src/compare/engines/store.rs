//! `lastword_store::Store` with rows that are keys and values, driven as the engine's writer drives
//! it: checkpoints run on a second thread, a full delta waits for the one that runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use lastword::store::{
    Apply, ApplyError, CheckpointDone, DirLock, FrameRef, OpenReport, Options, RealDisk, Room,
    Space, StateTxn, Store, View,
};

use crate::Result;
use crate::engines::Engine;
use crate::rows::{KEY_BYTES, Row};

/// Longest that a commit is held up at a time to keep step with a checkpoint.
const PACE: Duration = Duration::from_millis(25);
const ROWS: Space = Space::new(0);
/// Kind of a frame that sets one row.
const PUT: u8 = 16;

/// Key, then value: what the peers keep as well.
struct KeepRows;

impl Apply for KeepRows {
    fn apply(&self, frame: FrameRef<'_>, state: &mut StateTxn<'_>) -> Result<(), ApplyError> {
        match decode(frame.payload) {
            Some((key, value)) if frame.kind == PUT => Ok(state.put(ROWS, key, value)?),
            _ => Ok(()),
        }
    }
}

/// Key and value of a frame.
pub(crate) fn decode(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&key_bytes, rest) = payload.split_first()?;
    rest.split_at_checked(key_bytes.into())
}

/// Opens the store in `dir` with a cache of `cache_bytes`.
pub(crate) fn open_store(dir: &Path, options: Options) -> Result<(Store, OpenReport)> {
    let disk = RealDisk::open(DirLock::acquire(dir)?, options.zero_step)?;
    let entropy = *blake3::hash(format!("{}", std::process::id()).as_bytes()).as_bytes();
    let options = Options { entropy, ..options };
    Ok(Store::open(Arc::new(disk), options, Arc::new(KeepRows))?)
}

pub(crate) struct StoreEngine {
    store: Store,
    payload: Vec<u8>,
    done: Receiver<CheckpointDone>,
    back: Sender<CheckpointDone>,
    checkpointing: bool,
    replayed_frames: u64,
    /// What reads see, until the next commit; taken once, not for each read.
    view: Option<Arc<View>>,
}

impl StoreEngine {
    pub(crate) fn open(dir: &Path, cache_bytes: usize) -> Result<Self> {
        Self::with(dir, Options { cache_bytes, ..Options::server() })
    }

    pub(crate) fn with(dir: &Path, options: Options) -> Result<Self> {
        let (store, report) = open_store(dir, options)?;
        let replayed_frames = report.replayed_frames;
        let (back, done) = channel();
        let (payload, checkpointing) = (Vec::new(), false);
        Ok(StoreEngine { store, payload, done, back, checkpointing, replayed_frames, view: None })
    }

    /// Closes it cleanly.
    pub(crate) fn close(mut self) -> Result<()> {
        self.settle()?;
        Ok(self.store.close()?)
    }

    fn checkpoint(&mut self) -> Result<()> {
        if self.checkpointing {
            return Ok(());
        }
        let Some(job) = self.store.begin_checkpoint()? else { return Ok(()) };
        let back = self.back.clone();
        // The receiver outlives the thread or nobody asks any more.
        std::thread::Builder::new().spawn(move || drop(back.send(job.run())))?;
        self.checkpointing = true;
        Ok(())
    }

    fn finish(&mut self, done: CheckpointDone) -> Result<()> {
        self.checkpointing = false;
        self.view = None;
        let retired = self.store.finish_checkpoint(done)?;
        std::thread::Builder::new().spawn(move || drop(retired))?;
        Ok(())
    }

    fn take_finished(&mut self) -> Result<()> {
        match self.done.try_recv() {
            Ok(done) => self.finish(done),
            Err(_) => Ok(()),
        }
    }
}

impl Engine for StoreEngine {
    fn name(&self) -> &'static str {
        "store"
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        self.view = None;
        self.take_finished()?;
        for row in rows {
            self.payload.clear();
            self.payload.push(KEY_BYTES as u8);
            self.payload.extend_from_slice(&row.key);
            self.payload.extend_from_slice(row.value.as_bytes());
            self.store.append(PUT, &self.payload)?;
        }
        self.store.commit()?;
        Ok(())
    }

    fn after_answer(&mut self) -> Result<()> {
        self.store.prove()?;
        if self.store.wants_checkpoint() {
            self.checkpoint()?;
        }
        let until = Instant::now() + PACE;
        loop {
            let done = match self.store.room() {
                Room::Free => return Ok(()),
                Room::Full => self.done.recv()?,
                Room::Paced => {
                    match self.done.recv_timeout(until.saturating_duration_since(Instant::now())) {
                        Ok(done) => done,
                        Err(_) => return Ok(()),
                    }
                }
            };
            self.finish(done)?;
        }
    }

    fn in_background(&mut self) -> Result<bool> {
        self.take_finished()?;
        Ok(self.checkpointing)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let view = self.view.get_or_insert_with(|| self.store.view());
        Ok(view.get(ROWS, key)?.map(|value| value.len()))
    }

    fn replayed_frames(&self) -> u64 {
        self.replayed_frames
    }

    fn settings(&self) -> [&'static str; 3] {
        [
            "fdatasync per commit",
            "zeros written ahead in steps of 4 MiB, segments of 64 MiB",
            "redb 2 GiB, delta 256 MiB",
        ]
    }
}
