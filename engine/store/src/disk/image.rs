//! The bytes of a file in memory, in pages that copies share until one of them is written.

use std::sync::{Arc, LazyLock};

const PAGE: usize = 4096;

type Page = Arc<[u8; PAGE]>;

static ZEROS: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE]));

/// Bytes behind the end are zero, so that a file which grows again shows none of them.
#[derive(Debug, Default, Clone)]
pub(super) struct Image {
    pages: Vec<Page>,
    len: usize,
}

impl Image {
    pub(super) fn zeros(len: usize) -> Self {
        let mut image = Image::default();
        image.resize(len);
        image
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.pages.resize_with(len.div_ceil(PAGE), || Arc::clone(&ZEROS));
        if len < self.len
            && let Some(rest) = self.pages.get_mut(len / PAGE)
        {
            Arc::make_mut(rest)[len % PAGE..].fill(0);
        }
        self.len = len;
    }

    /// False if it ends before the end of `out`.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start.checked_add(out.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut rest = out;
        let (mut page, mut from) = (start / PAGE, start % PAGE);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at_mut(rest.len().min(PAGE - from));
            piece.copy_from_slice(&self.pages[page][from..from + piece.len()]);
            (rest, page, from) = (behind, page + 1, 0);
        }
        true
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if self.len < offset + bytes.len() {
            self.resize(offset + bytes.len());
        }
        let mut rest = bytes;
        let (mut page, mut from) = (offset / PAGE, offset % PAGE);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(PAGE - from));
            match <&[u8; PAGE]>::try_from(piece) {
                Ok(whole) => self.pages[page] = Arc::new(*whole),
                Err(_) => {
                    let page = Arc::make_mut(&mut self.pages[page]);
                    page[from..from + piece.len()].copy_from_slice(piece);
                }
            }
            (rest, page, from) = (behind, page + 1, 0);
        }
    }

    /// As `write`, where `source` has had the same write, and maybe later ones that this image
    /// gets too: pages that were written as a whole are shared with it.
    pub(super) fn write_as(&mut self, source: &Image, offset: usize, bytes: &[u8]) {
        let is_whole = offset.is_multiple_of(PAGE) && bytes.len().is_multiple_of(PAGE);
        let pages = offset / PAGE..(offset + bytes.len()) / PAGE;
        match source.pages.get(pages.clone()) {
            Some(shared) if is_whole => {
                if self.len < offset + bytes.len() {
                    self.resize(offset + bytes.len());
                }
                self.pages[pages].clone_from_slice(shared);
            }
            _ => self.write(offset, bytes),
        }
    }

    pub(super) fn flip(&mut self, bit: usize) {
        if bit / 8 < self.len {
            let (page, byte) = (bit / 8 / PAGE, bit / 8 % PAGE);
            Arc::make_mut(&mut self.pages[page])[byte] ^= 1 << (bit % 8);
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is written, cut and grown, an image reads as plain bytes do, and so does one
        /// that gets the same writes later; a copy keeps what it was.
        #[test]
        fn an_image_reads_as_plain_bytes(
            steps in vec((0..3_u8, 0..6_usize, 0..3_usize, any::<u8>()), 1..24),
        ) {
            let sizes = [0, 1, 511, PAGE, PAGE + 1, 2 * PAGE];
            let (mut image, mut later) = (Image::default(), Image::default());
            let mut plain = Vec::new();
            let (mut writes, mut copies) = (Vec::new(), Vec::new());
            for (what, size, place, byte) in steps {
                let (offset, size) = (place * 2048, sizes[size]);
                copies.push((image.clone(), plain.clone()));
                match what {
                    0 => {
                        image.resize(offset + size);
                        plain.resize(offset + size, 0);
                        writes.push((offset + size, None));
                    }
                    _ => {
                        let bytes = vec![byte; size];
                        image.write(offset, &bytes);
                        plain.resize(plain.len().max(offset + size), 0);
                        plain[offset..offset + size].copy_from_slice(&bytes);
                        writes.push((offset, Some(bytes)));
                    }
                }
                prop_assert_eq!(image.to_vec(), plain.clone());
            }
            for (at, bytes) in writes {
                match bytes {
                    None => later.resize(at),
                    Some(bytes) => later.write_as(&image, at, &bytes),
                }
            }
            prop_assert_eq!(later.to_vec(), plain);
            for (copy, plain) in copies {
                prop_assert_eq!(copy.to_vec(), plain);
            }
        }
    }
}
