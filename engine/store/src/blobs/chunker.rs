//! Cuts a file into chunks where its content says so: what is inserted moves no later cut.

use std::io::{ErrorKind, Read};
use std::sync::Arc;

use fastcdc::v2020::FastCDC;
use lastword_core::limits::MAX_CHUNK_BYTES;

use super::hashing::FileHash;
use crate::limits::CHUNKER_BYTES;

/// Smallest chunk that a cut makes; the last one of a file may be smaller.
const MIN: usize = 16 * 1024;
/// What the chunks of a file have on average; a file of no more is one chunk.
const AVERAGE: usize = 64 * 1024;

/// The chunks of what `from` gives, of profile [`lastword_core::manifest::PROFILE`].
#[derive(Debug)]
pub struct Chunker<R> {
    from: R,
    /// Grows to [`CHUNKER_BYTES`] with the file: most files are small.
    buffer: Arc<Vec<u8>>,
    /// Filled next if another thread still hashes the buffer.
    spare: Arc<Vec<u8>>,
    /// Of what was read so far, if it is wanted.
    hash: Option<FileHash>,
    /// What is read and not handed out yet is between the two.
    start: usize,
    end: usize,
    ended: bool,
    /// Nothing was handed out yet.
    fresh: bool,
}

impl<R: Read> Chunker<R> {
    /// Cuts what is read from `from`.
    pub fn new(from: R) -> Self {
        let (buffer, spare) = (Arc::default(), Arc::default());
        let (hash, start, end, ended, fresh) = (None, 0, 0, false, true);
        Chunker { from, buffer, spare, hash, start, end, ended, fresh }
    }

    /// As [`Chunker::new`]; what is read is hashed too.
    pub(super) fn hashing(from: R) -> Self {
        Chunker { hash: Some(FileHash::default()), ..Chunker::new(from) }
    }

    /// The SHA-256 of what was read; zeros if it was not hashed.
    pub(super) fn into_sha256(self) -> [u8; 32] {
        self.hash.map(FileHash::finish).unwrap_or_default()
    }

    /// The next chunk; `None` at the end, and at once if there are no bytes at all.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn next_chunk(&mut self) -> std::io::Result<Option<&[u8]>> {
        if !self.ended && self.end - self.start < MAX_CHUNK_BYTES {
            self.fill()?;
        }
        let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let is_small = self.fresh && self.ended && rest.len() <= AVERAGE;
        let len = match is_small {
            true => rest.len(),
            false => FastCDC::new(rest, MIN, AVERAGE, MAX_CHUNK_BYTES).cut(0, rest.len()).1,
        };
        self.fresh = false;
        self.start += len;
        Ok(rest.get(..len))
    }

    /// Fills the buffer, or reaches the end.
    fn fill(&mut self) -> std::io::Result<()> {
        let begin = self.make_room();
        let buffer = Arc::get_mut(&mut self.buffer).expect("invariant: room was made in it");
        loop {
            if self.end == buffer.len() {
                let grown = (2 * buffer.len()).clamp(AVERAGE, CHUNKER_BYTES);
                buffer.resize(grown, 0);
            }
            let room = buffer.get_mut(self.end..).unwrap_or_default();
            if room.is_empty() {
                break;
            }
            match self.from.read(room) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(hash) = &mut self.hash {
            // One buffer full is hashed sooner than a thread begins.
            if !self.ended && !self.fresh {
                hash.set_beside();
            }
            hash.add(&self.buffer, begin..self.end);
        }
        Ok(())
    }

    /// Moves what was not handed out yet to the front of a buffer that nobody else reads; returns
    /// where it ends there.
    fn make_room(&mut self) -> usize {
        if let Some(hash) = &mut self.hash {
            hash.wait();
        }
        match Arc::get_mut(&mut self.buffer) {
            Some(buffer) => buffer.copy_within(self.start..self.end, 0),
            None => {
                let rest = self.buffer.get(self.start..self.end).unwrap_or_default();
                let spare = Arc::get_mut(&mut self.spare).expect("invariant: it was let go of");
                spare.resize(self.buffer.len(), 0);
                spare.get_mut(..rest.len()).unwrap_or_default().copy_from_slice(rest);
                std::mem::swap(&mut self.buffer, &mut self.spare);
            }
        }
        (self.start, self.end) = (0, self.end - self.start);
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random and are the same everywhere.
    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(b"chunker").finalize_xof().fill(&mut out);
        out
    }

    /// Hands out a few bytes at a time, as a pipe does.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let take = out.len().min(7919).min(self.0.len());
            let (now, later) = self.0.split_at(take);
            out[..take].copy_from_slice(now);
            self.0 = later;
            Ok(take)
        }
    }

    fn lengths(from: impl Read) -> Vec<usize> {
        let mut chunker = Chunker::new(from);
        let mut out = Vec::new();
        while let Some(chunk) = chunker.next_chunk().expect("it reads") {
            out.push(chunk.len());
        }
        out
    }

    /// R4.1. Where a release cuts decides what it finds again of what an older one stored: these
    /// lengths are pinned. Other ones need another profile.
    #[test]
    fn the_cuts_of_profile_1_are_pinned() {
        let data = noise(600_000);
        let cut = [55_221, 73_339, 161_575, 67_951, 51_056, 22_966, 96_531, 28_800, 42_561];
        assert_eq!(lengths(&data[..]), cut);
        assert_eq!(lengths(Trickle(&data)), cut, "however the bytes come");
    }

    /// R4.1. The vector of docs/format.md, section 6: the rules there, written down in another
    /// language, gave these lengths.
    #[test]
    fn the_cuts_of_profile_1_are_those_that_the_format_says() {
        let (mut state, mut data) = (1_u64, Vec::new());
        while data.len() < 1_000_001 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            data.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        data.truncate(1_000_001);
        assert_eq!(data[..8], [0xc1, 0x5c, 0x02, 0x89, 0xec, 0x2d, 0x0a, 0x91]);
        let cut = [
            28_128, 87_550, 64_925, 67_788, 30_364, 38_273, 50_371, 101_085, 100_168, 79_822,
            94_750, 68_129, 37_731, 77_250, 65_957, 7_710,
        ];
        assert_eq!(lengths(&data[..]), cut);
    }

    /// Borders: nothing, one byte, 64 KiB in one chunk, one byte more, and zeros in the largest.
    #[test]
    fn short_files_are_one_chunk() {
        assert_eq!(lengths(std::io::empty()), Vec::<usize>::new());
        assert_eq!(lengths(&noise(1)[..]), [1]);
        assert_eq!(lengths(&noise(AVERAGE)[..]), [AVERAGE]);
        assert_eq!(lengths(&noise(AVERAGE + 1)[..]).iter().sum::<usize>(), AVERAGE + 1);
        assert_eq!(lengths(&vec![0; 3 * MAX_CHUNK_BYTES][..]), [MAX_CHUNK_BYTES; 3]);
    }

    /// R4.1, B2. Bytes put in at the front move every later byte, and only few chunks change.
    #[test]
    fn an_insert_changes_the_chunks_around_it_only() {
        let old = noise(8 << 20);
        let mut new = b"something new at the front".to_vec();
        new.extend_from_slice(&old);
        let names = |bytes: &[u8]| {
            let mut chunker = Chunker::new(bytes);
            let mut out = std::collections::BTreeSet::new();
            while let Some(chunk) = chunker.next_chunk().expect("it reads") {
                out.insert(*blake3::hash(chunk).as_bytes());
            }
            out
        };
        let (old, new) = (names(&old), names(&new));
        assert!(old.len() > 80, "{}", old.len());
        assert!(new.difference(&old).count() <= 3);
    }
}
