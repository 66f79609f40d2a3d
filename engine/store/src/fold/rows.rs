//! Rows of a base, many to a frame: space as a byte, key and value as bytes with their length.

use lastword_core::codec::{DecodeError, Decoder, Encoder};

use crate::limits::{MAX_FRAME, MAX_KEY, MAX_SPACES};
use crate::state::Space;

/// Bytes of rows after which a frame is closed.
const FRAME_BYTES: usize = 64 * 1024;

/// Gathers rows until they fill a frame.
#[derive(Debug, Default)]
pub(super) struct RowsOut {
    out: Encoder,
}

impl RowsOut {
    /// Adds a row; returns the payload of a frame if one is full.
    pub(super) fn push(&mut self, space: Space, key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        self.out.u8(space.number());
        self.out.bytes(key);
        self.out.bytes(value);
        (self.out.len() >= FRAME_BYTES).then(|| self.take())
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
