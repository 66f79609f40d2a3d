//! The receiving side, the same on a device that downloads and on the server of an upload.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use lastword_core::hash::ChunkId;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_WANTED_CHUNKS;
use lastword_core::manifest::Blob;
use lastword_store::blobs::{Blobs, Receive, Received};
use lastword_store::payload::BlobsFrame;
use lastword_store::{BlobError, Store, read};

use super::pace::Pace;
use crate::error::Result;
use crate::file_frames;
use crate::writer::Writer;

/// Pieces that are asked for ahead: about 4 MiB of them.
const AHEAD: usize = 64;
/// More are asked for once so few are under way.
const REFILL: usize = AHEAD / 2;
/// Bytes that are compared with the name of the file between two signs of life.
const VERIFY_STEP_BYTES: u64 = 64 * 1024 * 1024;

const _: () = assert!(AHEAD <= MAX_WANTED_CHUNKS);

/// Writes the last frames of a file, on the writer thread, and whatever goes with them.
pub(super) type Commit = Box<dyn FnOnce(&mut Store, Vec<BlobsFrame>) -> Result<()> + Send>;

/// A file that comes, and the writer of the store that it goes into.
pub(super) struct Receiving {
    receive: Receive,
    writer: Arc<Writer>,
    workspace: WorkspaceName,
    pace: Pace,
}

impl Receiving {
    pub(super) fn new(
        blobs: &Arc<Blobs>,
        writer: &Arc<Writer>,
        workspace: &WorkspaceName,
        blob: Blob,
        records: &Arc<AtomicU64>,
    ) -> Self {
        let receive = Receive::new(blobs, workspace, blob);
        let pace = Pace::new(Arc::clone(records), Instant::now());
        Self { receive, writer: Arc::clone(writer), workspace: workspace.clone(), pace }
    }

    pub(super) fn here_bytes(&self) -> u64 {
        self.receive.here_bytes()
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.receive.received_bytes()
    }

    /// What to ask for now; nothing while enough is under way. Makes durable what is due.
    pub(super) fn wants(&mut self) -> Result<Vec<ChunkId>> {
        let wanted = self.receive.wanted();
        if wanted > REFILL {
            return Ok(Vec::new());
        }
        loop {
            let asked = self.noting(|receive| receive.wants(AHEAD - wanted))?;
            let is_due = self.receive.is_due();
            if is_due {
                self.save()?;
            }
            if !is_due || !asked.is_empty() {
                return Ok(asked);
            }
        }
    }

    /// Takes a piece that came; false if it is none that was asked for.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<bool> {
        let is_wanted = self.receive.put(bytes)?;
        if self.receive.is_due() {
            self.save()?;
        }
        // This thread has nothing else to do: what else comes waits in the socket.
        std::thread::sleep(self.pace.wait(self.receive.received_bytes(), Instant::now()));
        Ok(is_wanted)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.receive.is_complete()
    }

    /// Compares the whole with its name, and lets `commit` make it the workspace's file; false if
    /// `goes_on`, which is asked now and then, says no before.
    pub(super) fn end(
        mut self,
        now_ms: i64,
        commit: Commit,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool> {
        let view = self.writer.view();
        let blob = *self.receive.blob();
        let known = read::blob(&*view, &self.workspace, &blob.sha256)?;
        let is_known = known.is_some_and(|known| known.blob == blob);
        if is_known && self.receive.received_bytes() == 0 {
            // It was compared when it came. It may have been about to go, so it is said once more.
            let frames = self.receive.again(now_ms);
            self.writer.run(move |store| commit(store, frames))?;
            return Ok(true);
        }
        self.save()?;
        loop {
            let (at, last) = self.noting(|receive| receive.verify(VERIFY_STEP_BYTES, now_ms))?;
            if let Some(Received { frames, .. }) = &last {
                let frames = frames.clone();
                self.writer.run(move |store| commit(store, frames))?;
                return Ok(true);
            }
            if !goes_on(at) {
                return Ok(false);
            }
        }
    }

    /// Makes durable what came, so that it need not come again.
    pub(super) fn save(&mut self) -> Result<()> {
        let received = self.receive.take()?;
        file_frames::append(&self.writer, received.frames.clone())
    }

    /// A chunk that is here and not what was written is noted, so that the next attempt asks for
    /// it.
    fn noting<T>(
        &mut self,
        call: impl FnOnce(&mut Receive) -> std::result::Result<T, BlobError>,
    ) -> Result<T> {
        call(&mut self.receive).map_err(|error| {
            file_frames::set_apart(&self.writer, &self.workspace, &error);
            error.into()
        })
    }
}
