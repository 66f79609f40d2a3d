//! Rows of a base, many to a frame: space as a byte, key and value as bytes with their length.

use lastword_core::codec::{DecodeError, Decoder, Encoder};

use crate::limits::{MAX_FRAME, MAX_KEY, MAX_SPACES};
use crate::state::Space;

/// Bytes of rows beyond which a frame takes no more.
const FRAME_BYTES: usize = 64 * 1024;

/// Gathers rows until they fill a frame.
#[derive(Debug, Default)]
pub(super) struct RowsOut {
    out: Encoder,
}

impl RowsOut {
    /// Adds a row; returns the payload of a frame that is full without it. A row that alone takes
    /// more than a frame should has one of its own.
    pub(super) fn push(&mut self, space: Space, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        let gathered = self.out.len();
        let is_full = gathered > 0 && gathered + key.len() + value.len() > FRAME_BYTES;
        let full = is_full.then(|| self.take());
        self.out.u8(space.number());
        self.out.bytes(key);
        self.out.bytes(value);
        full
    }

    /// What is gathered; empty if nothing is.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out).into_bytes()
    }
}

/// Counts the rows of a frame's payload.
pub(crate) fn count_rows(payload: &[u8], rows: &mut u64) -> Result<(), DecodeError> {
    visit_rows(payload, |_, _, _| {
        *rows += 1;
        Ok(())
    })
}

/// Hands each row of a frame's payload to `visit`.
pub(crate) fn visit_rows<E: From<DecodeError>>(
    payload: &[u8],
    mut visit: impl FnMut(Space, &[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut rows = Decoder::new(payload);
    while !rows.rest().is_empty() {
        let offset = rows.offset();
        let number = rows.u8()?;
        if usize::from(number) >= MAX_SPACES {
            return Err(DecodeError::Invalid { what: "space", offset }.into());
        }
        let key = rows.bytes("key", MAX_KEY)?;
        let value = rows.bytes("value", MAX_FRAME)?;
        visit(Space::new(number), key, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I9, I27. Small rows were gathered and a row of nearly the largest frame put behind them, so
    /// the frame was refused as too large and no fold of that store could ever end.
    #[test]
    fn a_large_row_behind_small_ones_fits_a_frame() {
        let (small, large) = (vec![5; 1000], vec![7; MAX_FRAME - 64]);
        let mut rows = RowsOut::default();
        let mut frames = Vec::new();
        for (key, value) in [(b"a", &small), (b"b", &small), (b"c", &large)] {
            frames.extend(rows.push(Space::new(0), key, value));
        }
        frames.push(rows.take());
        assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME));
        let mut found = Vec::new();
        for frame in &frames {
            let seen = visit_rows::<DecodeError>(frame, |_, key, value| {
                found.push((key.to_vec(), value.len()));
                Ok(())
            });
            seen.expect("it decodes");
        }
        let expected = [(b"a".to_vec(), 1000), (b"b".to_vec(), 1000), (b"c".to_vec(), large.len())];
        assert_eq!(found, expected);
    }
}
