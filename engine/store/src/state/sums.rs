//! What the state holds, in numbers: rows, bytes and a sum of row digests for each space.
//!
//! redb can lose a row without noticing. The sums are kept beside the rows, in the same
//! transaction, so that whoever reads all rows of a space learns whether any is missing.

use crate::limits::MAX_SPACES;
use crate::state::space::Space;

const SPACE_LEN: usize = 32;

/// Length of encoded sums in bytes.
pub(crate) const SUMS_LEN: usize = SPACE_LEN * MAX_SPACES;

/// Bytes of a row's digest.
pub(crate) const DIGEST: usize = 16;

/// What one space holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceSum {
    /// Rows.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Their digests, added modulo 2^128.
    pub digest: u128,
}

/// What each space of a state holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateSums([SpaceSum; MAX_SPACES]);

impl SpaceSum {
    pub(crate) fn add(&mut self, key: &[u8], value_len: usize, digest: [u8; DIGEST]) {
        self.rows = self.rows.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add((key.len() + value_len) as u64);
        self.digest = self.digest.wrapping_add(u128::from_le_bytes(digest));
    }

    /// Wraps: a row that redb lost and shows again later must not end the process.
    pub(crate) fn take(&mut self, key: &[u8], value_len: usize, digest: [u8; DIGEST]) {
        self.rows = self.rows.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub((key.len() + value_len) as u64);
        self.digest = self.digest.wrapping_sub(u128::from_le_bytes(digest));
    }
}

impl StateSums {
    /// What one space holds.
    pub fn of(&self, space: Space) -> SpaceSum {
        self.0.get(space.index()).copied().unwrap_or_default()
    }

    pub(crate) fn space(&mut self, space: Space) -> &mut SpaceSum {
        self.0.get_mut(space.index()).expect("invariant: spaces are below MAX_SPACES")
    }

    /// Rows of all spaces.
    pub fn rows(&self) -> u64 {
        self.0.iter().fold(0, |sum, space| sum.wrapping_add(space.rows))
    }

    /// Bytes of keys and values of all spaces.
    pub fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, space| sum.wrapping_add(space.bytes))
    }

    /// The first space whose sums differ in `other`.
    pub(crate) fn differs(&self, other: &StateSums) -> Option<Space> {
        let place = self.0.iter().zip(&other.0).position(|(a, b)| a != b)?;
        Some(Space::new(place as u8))
    }

    pub(crate) fn encode(&self) -> [u8; SUMS_LEN] {
        let mut out = [0; SUMS_LEN];
        for (out, sum) in out.chunks_exact_mut(SPACE_LEN).zip(&self.0) {
            out[0..8].copy_from_slice(&sum.rows.to_le_bytes());
            out[8..16].copy_from_slice(&sum.bytes.to_le_bytes());
            out[16..32].copy_from_slice(&sum.digest.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SUMS_LEN] = bytes.try_into().ok()?;
        let mut sums = StateSums::default();
        for (sum, bytes) in sums.0.iter_mut().zip(bytes.chunks_exact(SPACE_LEN)) {
            sum.rows = u64::from_le_bytes(bytes[0..8].try_into().ok()?);
            sum.bytes = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
            sum.digest = u128::from_le_bytes(bytes[16..32].try_into().ok()?);
        }
        Some(sums)
    }
}
