//! One file with the records of a workspace and the files that they name: a tar of `records.jsonl`,
//! then `files/sha256-<hex>` in the order of their hashes. Nothing in it says when it was made, so
//! the same records and files give the same bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take, Write};
use std::ops::Range;

use lastword::{BlobHash, FileReader};

use super::failure::Failure;

const RECORDS: &str = "records.jsonl";
const FILES: &str = "files/";
/// Length of what a tar is made of, and where its headers have their sum (POSIX.1-1988, ustar).
const BLOCK: u64 = 512;
const SUM: Range<usize> = 148..156;
/// A tar ends with two blocks of zeros: one that was cut has none.
const END: usize = 2 * BLOCK as usize;

/// An archive that is being written.
pub(super) struct Writer<W: Write> {
    tar: tar::Builder<W>,
}

impl<W: Write> Writer<W> {
    /// Begins with the records, `len` bytes of JSON lines.
    pub(super) fn new(out: W, records: impl Read, len: u64) -> io::Result<Self> {
        let mut writer = Self { tar: tar::Builder::new(out) };
        writer.entry(RECORDS, records, len)?;
        Ok(writer)
    }

    /// Adds a file; they come in the order of their hashes.
    pub(super) fn file(&mut self, hash: &BlobHash, file: FileReader) -> io::Result<()> {
        let (name, len) = (file_name(hash), file.size_bytes());
        self.entry(&name, file, len)
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.tar.into_inner()
    }

    fn entry(&mut self, name: &str, from: impl Read, len: u64) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(len);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        self.tar.append_data(&mut header, name, from)
    }
}

fn file_name(hash: &BlobHash) -> String {
    format!("{FILES}{}", hash.to_string().replace(':', "-"))
}

/// An archive that is read: where in it things are, in bytes.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) records: Range<u64>,
    pub(super) files: Vec<(BlobHash, Range<u64>)>,
}

impl Archive {
    /// Looks through a whole tar; `None` if the file is none.
    pub(super) fn open(file: &mut File, name: &str) -> Result<Option<Self>, Failure> {
        let failed = |error: io::Error| Failure::failed(format!("{name}: {error}"));
        if !is_tar(file).map_err(failed)? {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let damaged = |what: String| {
            let next = "nothing was written, copy the archive again";
            Failure::damaged(format!("{name}: {what}: {next}"))
        };
        let (mut records, mut files, mut end) = (None, Vec::new(), 0);
        let mut tar = tar::Archive::new(&*file);
        for entry in tar.entries_with_seek().map_err(failed)? {
            let entry = entry.map_err(|error| damaged(error.to_string()))?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.strip_prefix("./").unwrap_or(&path);
            let range = entry.raw_file_position()..entry.raw_file_position() + entry.size();
            end = range.end.next_multiple_of(BLOCK);
            match (entry.header().entry_type(), Content::of(path)) {
                (tar::EntryType::Directory, _) => {}
                (tar::EntryType::Regular, Some(Content::Records)) if records.is_none() => {
                    records = Some(range);
                }
                (tar::EntryType::Regular, Some(Content::File(hash))) => files.push((hash, range)),
                _ => {
                    return Err(Failure::failed(format!(
                        "{name}: {path:?} is neither the one {RECORDS} nor a file by its hash \
                         ({FILES}sha256-..): nothing was written"
                    )));
                }
            }
        }
        if !must_end(file, end).map_err(failed)? {
            return Err(damaged(format!("it does not end where a tar does, at byte {end}")));
        }
        let records = records.ok_or_else(|| {
            Failure::failed(format!(
                "{name} is a tar without {RECORDS}: give an archive that `lastword export --files` \
                 wrote, or files to `lastword files put`"
            ))
        })?;
        Ok(Some(Self { records, files }))
    }
}

/// The bytes of one file of an archive.
pub(super) fn bytes_at<'a>(file: &'a File, range: &Range<u64>) -> io::Result<Take<&'a File>> {
    let mut from = file;
    from.seek(SeekFrom::Start(range.start))?;
    Ok(from.take(range.end.saturating_sub(range.start)))
}

enum Content {
    Records,
    File(BlobHash),
}

impl Content {
    fn of(path: &str) -> Option<Self> {
        if path == RECORDS {
            return Some(Content::Records);
        }
        let hash = path.strip_prefix(FILES)?.replacen('-', ":", 1);
        BlobHash::new(&hash).ok().map(Content::File)
    }
}

/// Whether the first block is the header of an entry: its sum says so, as JSON lines never do.
fn is_tar(file: &mut File) -> io::Result<bool> {
    let mut block = [0_u8; BLOCK as usize];
    file.seek(SeekFrom::Start(0))?;
    match file.read_exact(&mut block) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let said = tar::Header::from_byte_slice(&block).cksum();
    block[SUM].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    Ok(said.is_ok_and(|said| said == sum))
}

/// Whether what marks the end of a tar is at this byte.
fn must_end(file: &mut File, at: u64) -> io::Result<bool> {
    let mut last = [1; END];
    file.seek(SeekFrom::Start(at))?;
    match file.read_exact(&mut last) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| last == [0; END]),
    }
}
