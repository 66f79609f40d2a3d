//! One file with the records of a workspace and the files that they name: a tar of `records.jsonl`,
//! then `files/sha256-<hex>` in the order of their hashes. Nothing in it says when or where it was
//! made, so the same content gives the same bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use lastword::{BlobHash, FileReader};

use super::failure::Failure;

const RECORDS: &str = "records.jsonl";
const FILES: &str = "files/";
/// Where a tar says that it is one (POSIX.1-1988, ustar header block).
const MAGIC_AT: u64 = 257;
const MAGIC: &[u8; 5] = b"ustar";
/// What a directory entry may be called.
const FILES_DIR: &str = "files";

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

/// Where the records of an archive are, in bytes; `None` if the file is no tar.
pub(super) fn records_in(file: &mut File, name: &str) -> Result<Option<Range<u64>>, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("{name}: {error}"));
    let mut magic = [0; MAGIC.len()];
    file.seek(SeekFrom::Start(MAGIC_AT)).map_err(failed)?;
    match file.read_exact(&mut magic) {
        Ok(()) if magic == *MAGIC => {}
        Ok(()) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut tar = tar::Archive::new(&*file);
    for entry in tar.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path_bytes().as_ref() == RECORDS.as_bytes() {
            let from = entry.raw_file_position();
            return Ok(Some(from..from + entry.size()));
        }
    }
    Err(Failure::failed(format!(
        "{name} is a tar without {RECORDS}: give an archive that `lastword export --files` wrote, \
         or files to `lastword files put`"
    )))
}

/// What is done with a file of an archive, of so many bytes.
type Visit<'a> = dyn FnMut(BlobHash, u64, &mut dyn Read) -> Result<(), Failure> + 'a;

/// Calls `visit` for every file of an archive.
pub(super) fn visit_files(
    file: &mut File,
    name: &str,
    visit: &mut Visit<'_>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("{name}: {error}"));
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut tar = tar::Archive::new(&*file);
    for entry in tar.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if path == RECORDS || path.trim_end_matches('/') == FILES_DIR {
            continue;
        }
        let hash = path.strip_prefix(FILES).map(|hash| hash.replacen('-', ":", 1));
        let Some(hash) = hash.and_then(|hash| BlobHash::new(&hash).ok()) else {
            return Err(Failure::failed(format!(
                "{name}: {path:?} is neither {RECORDS} nor a file by its hash ({FILES}sha256-..)"
            )));
        };
        let size = entry.size();
        visit(hash, size, &mut entry)?;
    }
    Ok(())
}
