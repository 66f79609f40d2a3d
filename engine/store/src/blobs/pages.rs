//! Gathers the chunks of a file into pages while the file is read.

use lastword_core::codec::to_bytes;
use lastword_core::hash::ChunkId;
use lastword_core::limits::MAX_MANIFEST_ENTRIES;
use lastword_core::manifest::{ManifestEntry, ManifestPage};

/// The open page of each level; no more of a file's list is in memory.
#[derive(Debug, Default)]
pub(super) struct Pages {
    levels: Vec<Vec<ManifestEntry>>,
}

/// Stores a page as a chunk and returns its name.
type Keep<'a, E> = dyn FnMut(&[u8]) -> Result<ChunkId, E> + 'a;

impl Pages {
    /// Adds the next chunk of the file.
    pub(super) fn add<E>(&mut self, entry: ManifestEntry, keep: &mut Keep<'_, E>) -> Result<(), E> {
        self.add_at(0, entry, keep)
    }

    fn add_at<E>(
        &mut self,
        level: usize,
        entry: ManifestEntry,
        keep: &mut Keep<'_, E>,
    ) -> Result<(), E> {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        let is_full = |open: &Vec<ManifestEntry>| open.len() >= MAX_MANIFEST_ENTRIES;
        if self.levels.get(level).is_some_and(is_full) {
            self.end_page(level, keep)?;
        }
        self.levels.get_mut(level).expect("invariant: it was made above").push(entry);
        Ok(())
    }

    /// Stores the open page of a level and lists it one level above.
    fn end_page<E>(&mut self, level: usize, keep: &mut Keep<'_, E>) -> Result<(), E> {
        let entries = self.levels.get_mut(level).map(std::mem::take).unwrap_or_default();
        let page = ManifestPage { level: level as u64 + 1, entries };
        let entry = ManifestEntry { id: keep(&to_bytes(&page))?, len: page.len() };
        self.add_at(level + 1, entry, keep)
    }

    /// Ends the list: level and name of the topmost page, or of the only chunk.
    pub(super) fn finish<E>(&mut self, keep: &mut Keep<'_, E>) -> Result<(u64, ChunkId), E> {
        let mut level = 0;
        loop {
            let is_top = self.levels.len() <= level + 1;
            match self.levels.get(level).map(Vec::as_slice) {
                Some([only]) if is_top => return Ok((level as u64, only.id)),
                _ => self.end_page(level, keep)?,
            }
            level += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn tree(chunks: usize) -> (u64, Vec<ManifestPage>) {
        let mut kept = Vec::new();
        let mut keep = |page: &[u8]| {
            kept.push(lastword_core::codec::from_bytes(page).expect("what is kept decodes"));
            Ok::<_, Infallible>(ChunkId::of(page))
        };
        let mut pages = Pages::default();
        for _ in 0..chunks {
            let id = ChunkId([7; 32]);
            pages.add(ManifestEntry { id, len: 2 }, &mut keep).expect("infallible");
        }
        let (depth, _) = pages.finish(&mut keep).expect("infallible");
        (depth, kept)
    }

    /// One chunk has no page; a full page is still one; one chunk more makes a second level; and
    /// every page stands for the bytes below it.
    #[test]
    fn pages_grow_a_level_at_a_time() {
        let shape = |chunks| {
            let (depth, pages) = tree(chunks);
            let of = |level| pages.iter().filter(|page| page.level == level).count();
            if let Some(top) = pages.last() {
                assert_eq!(top.len(), 2 * chunks as u64);
            }
            (depth, of(1), of(2), of(3))
        };
        assert_eq!(shape(1), (0, 0, 0, 0));
        assert_eq!(shape(2), (1, 1, 0, 0));
        assert_eq!(shape(4096), (1, 1, 0, 0));
        assert_eq!(shape(4097), (2, 2, 1, 0));
        assert_eq!(shape(3 * 4096), (2, 3, 1, 0));
        assert_eq!(shape(4096 * 4096 + 1), (3, 4097, 2, 1));
    }
}
