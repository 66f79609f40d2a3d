//! A file that goes again unless someone keeps it.

use std::sync::Arc;

use crate::disk::Disk;

/// Held with what is made in a file: whatever becomes of that, the file is not left behind.
#[derive(Debug)]
pub(crate) struct Unkept {
    /// `None` once it is kept.
    disk: Option<Arc<dyn Disk>>,
    number: u64,
}

impl Unkept {
    pub(crate) fn new(disk: &Arc<dyn Disk>, number: u64) -> Self {
        Unkept { disk: Some(disk.clone()), number }
    }

    pub(crate) fn keep(mut self) {
        self.disk = None;
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            // What cannot be removed is of no use, and the next open or fold removes it.
            let _ = disk.remove(self.number);
        }
    }
}
