//! Tells spares, files with a header and damage apart; the same for every disk.

use lastword_core::plant::{Plant, planted};

use crate::disk::traits::{File, FileKind};
use crate::error::DiskError;
use crate::header::{Header, HeaderKind};
use crate::limits::{HEADER_LEN, SCAN_CHUNK};

/// Reads the header of a file; `None` if it is a spare.
///
/// A header is synced before the first frame, so a header that cannot be read over a body of zeros
/// is a birth that was cut short: still a spare. Over anything else it is damage.
pub fn read_header(number: u64, file: &dyn File) -> Result<Option<Header>, DiskError> {
    let len = file.len()?;
    let mut bytes = [0; HEADER_LEN];
    let present = HEADER_LEN.min(usize::try_from(len).unwrap_or(HEADER_LEN));
    let (head, _) = bytes.split_at_mut(present);
    file.read_at(0, head)?;
    if present < HEADER_LEN {
        return match bytes.iter().all(|byte| *byte == 0) {
            true => Ok(None),
            false => Err(DiskError::Damaged {
                file: number,
                offset: len,
                reason: "the file ends inside its header",
            }),
        };
    }
    match Header::decode(number, &bytes) {
        Ok(header) => Ok(Some(header)),
        Err(too_new @ DiskError::TooNew { .. }) => Err(too_new),
        Err(bad) => match first_non_zero(file, HEADER_LEN as u64, len)? {
            None => Ok(None),
            Some(_) => Err(bad),
        },
    }
}

/// The kind of a file that is not redb's.
pub(super) fn kind_of(number: u64, file: &dyn File) -> FileKind {
    match read_header(number, file) {
        Ok(None) => FileKind::Spare,
        Ok(Some(Header { kind: HeaderKind::Pack, .. })) => FileKind::Pack,
        Ok(Some(_)) => FileKind::Log,
        Err(_) => FileKind::Unreadable,
    }
}

/// Makes a spare zero again if a birth in it was cut short.
pub(super) fn wipe_header(file: &dyn File) -> Result<(), DiskError> {
    if planted(Plant::UseDirtySpare) {
        return Ok(());
    }
    if first_non_zero(file, 0, HEADER_LEN as u64)?.is_some() {
        file.write_at(0, &[0; HEADER_LEN])?;
        file.sync()?;
    }
    Ok(())
}

/// Offset of the first byte in `from..to` that is not zero.
pub(crate) fn first_non_zero(
    file: &dyn File,
    from: u64,
    to: u64,
) -> Result<Option<u64>, DiskError> {
    let mut at = from;
    let mut chunk = Vec::new();
    while at < to {
        let take = (to - at).min(SCAN_CHUNK as u64);
        chunk.resize(take as usize, 0);
        file.read_at(at, &mut chunk)?;
        if !is_zero(&chunk)
            && let Some(found) = chunk.iter().position(|byte| *byte != 0)
        {
            return Ok(Some(at + found as u64));
        }
        at += take;
    }
    Ok(None)
}

/// Whether all bytes are zero; they are looked at many at a time.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const BLOCK: usize = 4096;
    bytes.chunks(BLOCK).all(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0)
}
