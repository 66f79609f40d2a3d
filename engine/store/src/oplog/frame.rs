//! One frame: a position, a checksum, an opaque payload.

use lastword_core::plant::{Plant, planted};

use crate::limits::{FRAME_ALIGN, FRAME_HEADER_LEN, MAX_FRAME, MAX_GROUP_NUMBER};

/// Kind of the empty frame that proves the group before it was durable.
pub(crate) const PROOF: u8 = 0;
/// Kind of the empty frame at the end of a log that was closed in good order.
pub(crate) const CLOSED: u8 = 1;
/// Kind of a frame of rows in a base.
pub(crate) const BASE_ROWS: u8 = 2;
/// Kind of the last frame of a base.
pub(crate) const BASE_END: u8 = 3;
/// Kind of the first frame of a pack: whose it is.
pub(crate) const PACK_OPEN: u8 = 4;
/// Kind of a chunk in a pack.
pub(crate) const PACK_CHUNK: u8 = 5;
/// Kind of a frame in a pack that says when a file was stored and of which chunks it consists.
pub(crate) const PACK_BLOB: u8 = 6;
/// Kind of a frame in a pack that says which files are gone.
pub(crate) const PACK_DROPPED: u8 = 7;
/// First kind of the layer above.
pub(crate) const FIRST_FREE_KIND: u8 = 16;

/// Set in the codec byte of the first frame of a group. With it recovery can tell a torn group
/// from a group that was durable: see `recovery`.
const GROUP_START: u8 = 0x80;

/// A frame whose checksum has been verified, borrowed from a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRef<'a> {
    /// Log position of its first byte.
    pub position: u64,
    /// What the payload is; 16 and above belong to the layer above.
    pub kind: u8,
    /// Sync generation it was written in.
    pub group: u64,
    /// The bytes handed to `append`.
    pub payload: &'a [u8],
    pub(crate) starts_group: bool,
}

/// A frame whose checksum has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFrame {
    /// Log position of its first byte.
    pub position: u64,
    /// What the payload is; 16 and above belong to the layer above.
    pub kind: u8,
    /// Sync generation it was written in.
    pub group: u64,
    /// The bytes handed to `append`.
    pub payload: Vec<u8>,
}

impl FrameRef<'_> {
    /// Position behind the frame.
    pub fn end(&self) -> u64 {
        self.position + frame_len(self.payload.len()) as u64
    }

    /// The frame with a payload of its own.
    pub fn to_owned(&self) -> OwnedFrame {
        OwnedFrame {
            position: self.position,
            kind: self.kind,
            group: self.group,
            payload: self.payload.to_vec(),
        }
    }
}

/// What the header of a frame to be written says.
pub(crate) struct FrameHead {
    pub(crate) position: u64,
    pub(crate) kind: u8,
    pub(crate) group: u64,
    pub(crate) starts_group: bool,
}

/// Bytes on disk of a frame with a payload of `payload` bytes.
pub(crate) fn frame_len(payload: usize) -> usize {
    (FRAME_HEADER_LEN + payload).next_multiple_of(FRAME_ALIGN)
}

/// Appends a frame to `out`. The payload is copied once, here.
pub(crate) fn encode(out: &mut Vec<u8>, seed: u32, head: &FrameHead, payload: &[u8]) {
    encode_parts(out, seed, head, &[payload]);
}

/// As [`encode`], of a payload that is in several places.
pub(crate) fn encode_parts(out: &mut Vec<u8>, seed: u32, head: &FrameHead, parts: &[&[u8]]) {
    let start = out.len();
    let len = parts.iter().map(|part| part.len()).sum();
    out.reserve(frame_len(len));
    let codec = if head.starts_group { GROUP_START } else { 0 };
    out.extend_from_slice(&head.position.to_le_bytes());
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[head.kind, codec]);
    out.extend_from_slice(&head.group.to_le_bytes()[..6]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.resize(start + frame_len(len), 0);
    let crc = checksum(seed, &out[start..]).to_le_bytes();
    out[start + 12..start + 16].copy_from_slice(&crc);
}

/// Payload length stated by the frame that should begin `bytes` at `position`, before anything is
/// verified but the position and the bound. `None` if no frame can begin here.
pub(crate) fn stated_len(bytes: &[u8], position: u64) -> Option<usize> {
    let found = u64::from_le_bytes(bytes.get(0..8)?.try_into().ok()?);
    let len = u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize;
    (found == position && len <= MAX_FRAME).then_some(len)
}

/// The frame at the start of `bytes`, if all of it is there and its checksum, position and fixed
/// bytes are right.
pub(crate) fn decode(bytes: &[u8], seed: u32, position: u64) -> Option<FrameRef<'_>> {
    let len = stated_len(bytes, position)?;
    let frame = bytes.get(..frame_len(len))?;
    let crc = u32::from_le_bytes(frame.get(12..16)?.try_into().ok()?);
    if crc != checksum(seed, frame) && !planted(Plant::IgnoreChecksum) {
        return None;
    }
    let (kind, codec) = (*frame.get(16)?, *frame.get(17)?);
    let mut group = [0; 8];
    group.get_mut(..6)?.copy_from_slice(frame.get(18..24)?);
    let group = u64::from_le_bytes(group);
    // Groups count from 1, so that no run of zeros is ever a frame.
    let known = codec & !GROUP_START == 0 && (1..=MAX_GROUP_NUMBER).contains(&group);
    let payload = frame.get(FRAME_HEADER_LEN..FRAME_HEADER_LEN + len)?;
    let starts_group = codec & GROUP_START != 0;
    known.then_some(FrameRef { position, kind, group, payload, starts_group })
}

/// Checksum over every byte of a whole frame but those of the checksum itself.
fn checksum(seed: u32, frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&frame[..12]);
    hasher.update(&frame[16..]);
    hasher.finalize()
}
