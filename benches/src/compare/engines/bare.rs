//! The limit: rows appended to a file of zeros written before, one fdatasync per commit.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Result;
use crate::engines::Engine;
use crate::rows::Row;

/// Length of the file; at its end the loop begins anew.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes of a frame of ours beside key and value.
const FRAME_BYTES: usize = 25;

pub(crate) struct Bare {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Bare {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = File::create_new(dir.join("log"))?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Bare { file, at: 0, buffer: Vec::new() })
    }
}

impl Engine for Bare {
    fn name(&self) -> &'static str {
        "bare log"
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        self.buffer.clear();
        for row in rows {
            self.buffer.extend_from_slice(&[0xa5; FRAME_BYTES]);
            self.buffer.extend_from_slice(&row.key);
            self.buffer.extend_from_slice(row.value.as_bytes());
            self.buffer.resize(self.buffer.len().next_multiple_of(8), 0);
        }
        let len = self.buffer.len() as u64;
        if self.at + len > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at += len;
        Ok(self.file.sync_data()?)
    }

    fn get(&mut self, _: &[u8]) -> Result<Option<usize>> {
        Ok(None)
    }

    fn load(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn settings(&self) -> [&'static str; 3] {
        ["fdatasync per commit", "64 MiB of zeros written before", "none"]
    }
}
