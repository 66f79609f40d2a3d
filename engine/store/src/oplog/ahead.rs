//! Reads segments ahead of whoever decodes them, on a thread of its own.
//!
//! Copying bytes out of the system's cache takes about as long as checking and decoding them, so a
//! long walk takes half the time if both go on at once.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::disk::File;
use crate::error::DiskError;
use crate::limits::SCAN_CHUNK;

/// Room before the bytes of a chunk, for the part of a frame that the chunk before ended with.
const HEADROOM: usize = 64 * 1024;
/// Chunks that are read and not taken yet.
const CHUNKS_AHEAD: usize = 2;

/// A file, and the bytes of it that are to be read: from, to.
pub(super) type Part = (Arc<dyn File>, u64, u64);

/// Chunks of files in order; a chunk never spans two.
#[derive(Debug)]
pub(super) struct Ahead {
    chunks: Receiver<Result<Vec<u8>, DiskError>>,
    used: Sender<Vec<u8>>,
}

impl Ahead {
    /// Begins to read; `None` if there is no thread for it.
    pub(super) fn begin(parts: Vec<Part>) -> Option<Self> {
        let (out, chunks) = sync_channel(CHUNKS_AHEAD);
        let (used, back) = channel();
        std::thread::Builder::new()
            .name("lastword read ahead".into())
            .spawn(move || read(&parts, &out, &back))
            .ok()?;
        Some(Ahead { chunks, used })
    }

    /// Puts the next chunk behind `rest`, the end of the last one, and takes the buffer of that
    /// back; the second value is where `rest` begins. `None` behind the last file.
    pub(super) fn next(
        &self,
        buffer: Vec<u8>,
        rest: std::ops::Range<usize>,
    ) -> Result<Option<(Vec<u8>, usize)>, DiskError> {
        let Ok(chunk) = self.chunks.recv() else { return Ok(None) };
        let mut chunk = chunk?;
        let rest = buffer.get(rest).unwrap_or_default();
        let start = match HEADROOM.checked_sub(rest.len()) {
            Some(start) => {
                if let Some(room) = chunk.get_mut(start..HEADROOM) {
                    room.copy_from_slice(rest);
                }
                start
            }
            None => {
                chunk.splice(..HEADROOM, rest.iter().copied());
                0
            }
        };
        // The thread may have read everything and ended.
        let _ = self.used.send(buffer);
        Ok(Some((chunk, start)))
    }
}

fn read(parts: &[Part], out: &SyncSender<Result<Vec<u8>, DiskError>>, back: &Receiver<Vec<u8>>) {
    for (file, from, to) in parts {
        let mut at = *from;
        while at < *to {
            let take = (to - at).min(SCAN_CHUNK as u64) as usize;
            let mut chunk = back.try_recv().unwrap_or_default();
            chunk.resize(HEADROOM + take, 0);
            let (_, bytes) = chunk.split_at_mut(HEADROOM);
            let read = file.read_at(at, bytes);
            let failed = read.is_err();
            // Whoever walks may stop before the end.
            if out.send(read.map(|()| chunk)).is_err() || failed {
                return;
            }
            at += take as u64;
        }
    }
}
