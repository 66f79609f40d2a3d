//! A file that can be written without being changed: what is written stays in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::traits::File;
use crate::error::DiskError;

const PAGE: usize = 4096;

/// Another file as it is, with writes of our own on top that nobody else sees.
#[derive(Debug)]
pub(crate) struct Overlay {
    below: Arc<dyn File>,
    top: Mutex<Top>,
}

#[derive(Debug)]
struct Top {
    len: u64,
    /// Bytes of the file below that still show: it may have been cut.
    below_len: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Overlay {
    pub(crate) fn new(below: Arc<dyn File>) -> Result<Self, DiskError> {
        let len = below.len()?;
        Ok(Overlay { below, top: Mutex::new(Top { len, below_len: len, pages: BTreeMap::new() }) })
    }

    fn top(&self) -> MutexGuard<'_, Top> {
        self.top.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of one page, zeros behind the end.
    fn page(&self, top: &Top, number: u64) -> Result<Box<[u8; PAGE]>, DiskError> {
        if let Some(page) = top.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE]);
        let start = number * PAGE as u64;
        let there = top.below_len.saturating_sub(start).min(PAGE as u64) as usize;
        let (bytes, _) = page.split_at_mut(there);
        if !bytes.is_empty() {
            self.below.read_at(start, bytes)?;
        }
        Ok(page)
    }
}

impl File for Overlay {
    fn len(&self) -> Result<u64, DiskError> {
        Ok(self.top().len)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let top = self.top();
        if offset.saturating_add(buf.len() as u64) > top.len {
            let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(DiskError::io("read", 0, offset, end));
        }
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let take = rest.len().min(PAGE - within);
            let page = self.page(&top, at / PAGE as u64)?;
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(page.get(within..within + take).expect("invariant: in the page"));
            (at, rest) = (at + take as u64, later);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        let mut top = self.top();
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let within = (at % PAGE as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PAGE - within));
            let mut page = self.page(&top, at / PAGE as u64)?;
            page.get_mut(within..within + now.len())
                .expect("invariant: in the page")
                .copy_from_slice(now);
            top.pages.insert(at / PAGE as u64, page);
            (at, rest) = (at + now.len() as u64, later);
        }
        top.len = top.len.max(at);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), DiskError> {
        let mut top = self.top();
        if len < top.len {
            let edge = len / PAGE as u64;
            let mut page = self.page(&top, edge)?;
            if let Some(cut) = page.get_mut((len % PAGE as u64) as usize..) {
                cut.fill(0);
            }
            top.pages.retain(|number, _| *number < edge);
            top.pages.insert(edge, page);
            top.below_len = top.below_len.min(len);
        }
        top.len = len;
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, MemoryDisk};

    /// I15: an overlay reads as a file that was really written would, and the file below keeps its
    /// bytes.
    #[test]
    fn an_overlay_reads_as_a_written_file() {
        let disk = MemoryDisk::new(1 << 16);
        let files = [0, 1].map(|_| disk.open(disk.create_state().unwrap()).unwrap());
        let below: Vec<u8> = (0..20_000_u32).map(|at| (at % 251) as u8).collect();
        files.iter().for_each(|file| file.write_at(0, &below).unwrap());
        let [written, kept] = files;
        let overlay = Overlay::new(kept.clone()).unwrap();
        let mut random = 7_u64;
        for step in 0..300 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let (at, len) = (random % 24_000, (random >> 20) % 6_000);
            for file in [&*written, &overlay as &dyn File] {
                match step % 5 {
                    4 => file.set_len(at).unwrap(),
                    _ => file.write_at(at, &vec![step as u8; len as usize]).unwrap(),
                }
            }
            let read = |file: &dyn File| {
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(0, &mut bytes).unwrap();
                bytes
            };
            assert!(read(&*written) == read(&overlay), "step {step}");
            assert!(read(&*kept) == below, "step {step}");
        }
    }
}
