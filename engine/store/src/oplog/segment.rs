//! One open segment and how its identity is drawn.

use std::sync::Arc;

use lastword_core::plant::{Plant, planted};

use crate::disk::{Disk, File};
use crate::error::{DiskError, StoreError};
use crate::header::{Header, HeaderKind};
use crate::limits::HEADER_LEN;

/// Draws log ids and salts from a seed. What is drawn is bound to where it is used, so that a
/// store reopened with the same seed does not draw a salt twice.
#[derive(Debug, Clone)]
pub(crate) struct Entropy {
    seed: [u8; 32],
    counter: u64,
}

impl Entropy {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Entropy { seed, counter: 0 }
    }

    /// 16 bytes for file `number`, which begins at `position`.
    pub(crate) fn draw(&mut self, number: u64, position: u64) -> [u8; 16] {
        self.counter += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        for word in [self.counter, number, position] {
            hasher.update(&word.to_le_bytes());
        }
        let mut out = [0; 16];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        out
    }
}

/// A segment: its header, its file and the seed of its checksums.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) file: Arc<dyn File>,
    pub(crate) seed: u32,
}

impl Segment {
    pub(crate) fn new(header: Header, file: Arc<dyn File>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header.log_id);
        hasher.update(&header.number.to_le_bytes());
        hasher.update(&header.salt);
        let mut seed = [0; 4];
        seed.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
        Segment { header, file, seed: u32::from_le_bytes(seed) }
    }

    /// Takes a spare, if `keep` others are left, for a segment at `position`; writes nothing.
    pub(crate) fn reserve(
        disk: &dyn Disk,
        entropy: &mut Entropy,
        template: &Template,
        position: u64,
        keep: usize,
    ) -> Result<Segment, DiskError> {
        let number = disk.take_spare(keep)?;
        let file = disk.open(number)?;
        let header = Header {
            kind: template.kind,
            key_id: 0,
            log_id: template.log_id,
            salt: entropy.draw(number, position),
            predecessor: template.predecessor,
            number,
            first_position: position,
            segment_size: template.segment_size,
        };
        Ok(Segment::new(header, file))
    }

    /// Writes and syncs the header: from here on the segment exists.
    pub(crate) fn give_birth(&self) -> Result<(), DiskError> {
        self.file.write_at(0, &self.header.encode())?;
        if planted(Plant::WriteBeforeBirth) { Ok(()) } else { self.file.sync() }
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    pub(crate) fn first_position(&self) -> u64 {
        self.header.first_position
    }

    /// Byte offset in the file of a log position, which must not lie before the segment.
    pub(crate) fn offset(&self, position: u64) -> u64 {
        HEADER_LEN as u64 + (position - self.header.first_position)
    }

    /// Log position behind the last byte of the file.
    pub(crate) fn capacity_end(&self) -> Result<u64, DiskError> {
        let body = self.file.len()?.saturating_sub(HEADER_LEN as u64);
        Ok(self.header.first_position.saturating_add(body))
    }

    pub(crate) fn damaged(&self, position: u64, reason: &'static str) -> StoreError {
        let offset = self.offset(position);
        StoreError::Damaged { file: self.number(), offset, position, reason }
    }
}

/// What a new segment takes over from the log.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) kind: HeaderKind,
    pub(crate) log_id: [u8; 16],
    pub(crate) predecessor: [u8; 16],
    pub(crate) segment_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store reopened with the same seed must not give two segments one salt.
    #[test]
    fn the_same_seed_draws_other_salts_elsewhere() {
        let draw = |number, position| Entropy::new([1; 32]).draw(number, position);
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(2, 0));
        assert_ne!(draw(1, 0), draw(1, 8));
        let mut entropy = Entropy::new([1; 32]);
        assert_ne!(entropy.draw(1, 0), entropy.draw(1, 0));
    }
}
