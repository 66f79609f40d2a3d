//! Backups: the files of a log up to one position, copied while the store goes on.
//!
//! A backup is a directory with base, segments and packs under their own numbers, and `BACKUP`, a
//! text that names each file with its length and BLAKE3 hash. `BACKUP` is written last, so a backup
//! that was cut short is none. The state is left out: it is made anew. Files that an earlier backup
//! in the same directory holds already are not copied again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{BACKUP, File, file_path, is_numbered, sync_dir};
use crate::error::{BackupError, DiskError};
use crate::limits::SCAN_CHUNK;
use crate::read;
use crate::store::{Pin, Store};

const TEMPORARY: &str = "BACKUP.new";
/// Ending of a file that is being copied.
const FRESH: &str = "new";
const FIRST_LINE: &str = "lastword backup 1";
/// Longest `BACKUP` that is read, in bytes.
const MAX_TEXT: u64 = 16 * 1024 * 1024;

/// How far a copy has come.
pub type OnProgress<'a> = dyn FnMut(Progress) + 'a;

/// Bytes done of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes of all.
    pub total_bytes: u64,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupFile {
    /// Its number.
    pub number: u64,
    /// Its length in bytes.
    pub len: u64,
    /// BLAKE3 of its content.
    pub hash: blake3::Hash,
}

/// What a backup says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// When it was made, milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// The log before this position is in it.
    pub end: u64,
    /// Its files, by number.
    pub files: Vec<BackupFile>,
    /// Bytes that had to be copied; the others were there from an earlier backup.
    pub copied_bytes: u64,
}

/// A backup to be run on any thread. No file of the log is removed while it exists.
#[derive(Debug)]
pub struct BackupJob {
    pub(crate) files: Vec<(u64, Arc<dyn File>, u64)>,
    pub(crate) end: u64,
    pub(crate) _pin: Option<Pin>,
}

impl Store {
    /// Begins a backup of everything that is durable now, to be run on any thread while the store
    /// goes on.
    pub fn begin_backup(&mut self) -> Result<BackupJob, crate::StoreError> {
        self.sync()?;
        let _pin = Some(self.pin());
        let mut files = Vec::new();
        if let Some(base) = self.base() {
            files.push((base.segment.number(), base.segment.file.clone(), base.len));
        }
        let end = self.view().position();
        let segments = self.segments();
        for (place, segment) in segments.iter().enumerate() {
            let next = segments.get(place + 1).map_or(end, |next| next.first_position());
            let len = segment.offset(next.max(segment.first_position()));
            files.push((segment.number(), segment.file.clone(), len));
        }
        // Whatever the log names is in them by now.
        let view = self.view();
        for workspace in read::blob_workspaces(&*view)? {
            for (number, pack) in read::packs(&*view, &workspace)? {
                let read = self.blobs().pack(&workspace, number)?;
                let len = read.segment.offset(pack.end);
                files.push((number, read.segment.file.clone(), len));
            }
        }
        Ok(BackupJob { files, end, _pin })
    }
}

impl BackupJob {
    /// Copies the files to `dir`, which is made if it is missing and must be empty or hold an
    /// earlier backup. Errors leave what was copied; run again, it goes on from there.
    pub fn run(
        self,
        dir: &Path,
        created_ms: i64,
        progress: &mut OnProgress<'_>,
    ) -> Result<BackupReport, BackupError> {
        let io = |source| BackupError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io)?;
        let earlier = earlier_files(dir)?;
        let total_bytes = self.files.iter().map(|(.., len)| len).sum();
        let (mut done_bytes, mut copied_bytes) = (0, 0);
        let (mut files, mut fresh) = (Vec::new(), Vec::new());
        for (number, file, len) in &self.files {
            let path = file_path(dir, *number, false);
            let mut tell = |bytes| {
                done_bytes += bytes;
                progress(Progress { done_bytes, total_bytes });
            };
            // A file of the same number and length may be another store's, so its bytes decide.
            let known = earlier.get(number).filter(|known| known.len == *len);
            let hash = match known.map(|known| known.hash) {
                Some(hash)
                    if hash_source(&**file, *len)? == hash
                        && hash_file(&path).ok() == Some(hash) =>
                {
                    tell(*len);
                    hash
                }
                _ => {
                    copied_bytes += len;
                    let aside = path.with_extension(FRESH);
                    let hash = copy(&**file, *number, *len, &aside, &mut tell)?;
                    fresh.push((aside, path));
                    hash
                }
            };
            files.push(BackupFile { number: *number, len: *len, hash });
        }
        // Until all are there the earlier backup stays as it is.
        for (aside, path) in fresh {
            fs::rename(&aside, &path).map_err(|source| BackupError::Io { path, source })?;
        }
        files.sort_by_key(|file| file.number);
        let report = BackupReport { created_ms, end: self.end, files, copied_bytes };
        write_text(dir, &report)?;
        remove_others(dir, &report)?;
        Ok(report)
    }
}

/// Files that a backup in `dir` holds, also one that was cut short; none in a new directory.
fn earlier_files(dir: &Path) -> Result<BTreeMap<u64, BackupFile>, BackupError> {
    let io = |source| BackupError::Io { path: dir.to_owned(), source };
    let known = match read_backup(dir) {
        Ok(report) => report.files.into_iter().map(|file| (file.number, file)).collect(),
        Err(BackupError::NotABackup { .. }) => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        let whole = name.strip_suffix(".new").unwrap_or(&name);
        let ours = name == BACKUP || name == TEMPORARY || is_numbered(whole);
        if !ours {
            return Err(BackupError::NotEmpty { dir: dir.to_owned(), name });
        }
    }
    Ok(known)
}

/// Makes the directory a backup: the text is durable after all that it names, and before its name.
fn write_text(dir: &Path, report: &BackupReport) -> Result<(), BackupError> {
    let temporary = dir.join(TEMPORARY);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Io { path, source }
    };
    let mut out = fs::File::create(&temporary).map_err(io(&temporary))?;
    out.write_all(text_of(report).as_bytes())
        .and_then(|()| out.sync_all())
        .map_err(io(&temporary))?;
    sync_dir(dir)?;
    fs::rename(&temporary, dir.join(BACKUP)).map_err(io(dir))?;
    Ok(sync_dir(dir)?)
}

fn text_of(report: &BackupReport) -> String {
    let mut text = format!("{FIRST_LINE}\ncreated_ms {}\nend {}\n", report.created_ms, report.end);
    for BackupFile { number, len, hash } in &report.files {
        // Writing to a string does not fail.
        let _ = writeln!(text, "file {number:012} {len} {}", hash.to_hex());
    }
    let hash = blake3::hash(text.as_bytes());
    let _ = writeln!(text, "blake3 {}", hash.to_hex());
    text
}

/// Files of an earlier backup that this one does not need.
fn remove_others(dir: &Path, report: &BackupReport) -> Result<(), BackupError> {
    let io = |source| BackupError::Io { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let needed = |file: &BackupFile| name == format!("{:012}", file.number);
        if is_numbered(name.strip_suffix(".new").unwrap_or(&name))
            && !report.files.iter().any(needed)
        {
            fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    Ok(())
}

/// Copies the first `len` bytes of a file, durably, and returns their hash.
fn copy(
    from: &dyn File,
    number: u64,
    len: u64,
    path: &Path,
    tell: &mut dyn FnMut(u64),
) -> Result<blake3::Hash, BackupError> {
    let io = |source| BackupError::Io { path: path.to_owned(), source };
    let mut out = fs::File::create(path).map_err(io)?;
    let (mut at, mut hasher, mut chunk) = (0, blake3::Hasher::new(), Vec::new());
    while at < len {
        let take = (len - at).min(SCAN_CHUNK as u64);
        chunk.resize(take as usize, 0);
        from.read_at(at, &mut chunk)?;
        hasher.update(&chunk);
        out.write_all(&chunk).map_err(io)?;
        at += take;
        tell(take);
    }
    out.sync_all().map_err(io)?;
    if at == 0 {
        return Err(DiskError::NotFound { file: number }.into());
    }
    Ok(hasher.finalize())
}

/// Copies the first `len` bytes of file `number`, durably.
pub(crate) fn copy_file(
    from: &dyn File,
    number: u64,
    len: u64,
    path: &Path,
) -> Result<(), BackupError> {
    copy(from, number, len, path, &mut |_| {}).map(drop)
}

/// Makes the directory if it is missing. Errors: [`BackupError::NotEmpty`].
pub(crate) fn make_empty(dir: &Path) -> Result<(), BackupError> {
    let io = |source| BackupError::Io { path: dir.to_owned(), source };
    fs::create_dir_all(dir).map_err(io)?;
    match fs::read_dir(dir).map_err(io)?.next() {
        None => Ok(()),
        Some(entry) => {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            Err(BackupError::NotEmpty { dir: dir.to_owned(), name })
        }
    }
}

/// Hash of the first `len` bytes of a file of the store.
fn hash_source(file: &dyn File, len: u64) -> Result<blake3::Hash, BackupError> {
    let (mut at, mut hasher, mut chunk) = (0, blake3::Hasher::new(), Vec::new());
    while at < len {
        let take = (len - at).min(SCAN_CHUNK as u64);
        chunk.resize(take as usize, 0);
        file.read_at(at, &mut chunk)?;
        hasher.update(&chunk);
        at += take;
    }
    Ok(hasher.finalize())
}

fn hash_file(path: &Path) -> std::io::Result<blake3::Hash> {
    let (mut file, mut hasher) = (fs::File::open(path)?, blake3::Hasher::new());
    let mut chunk = vec![0; SCAN_CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(chunk.get(..read).unwrap_or_default()),
        };
    }
}

/// What the backup in `dir` says about itself. Errors: [`BackupError::NotABackup`] if there is no
/// `BACKUP` in it, as in one that was cut short; [`BackupError::Damaged`] if that is not whole.
pub fn read_backup(dir: &Path) -> Result<BackupReport, BackupError> {
    let path = dir.join(BACKUP);
    let file = match fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(BackupError::NotABackup { dir: dir.to_owned() });
        }
        opened => opened.map_err(|source| BackupError::Io { path: path.clone(), source })?,
    };
    let mut text = String::new();
    let read = file.take(MAX_TEXT).read_to_string(&mut text);
    read.map_err(|source| BackupError::Io { path: path.clone(), source })?;
    parse(&text).ok_or(BackupError::Damaged { path, what: "it is not what was written" })
}

fn parse(text: &str) -> Option<BackupReport> {
    let (body, last) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = &text[..=body.len()];
    let hash = blake3::Hash::from_hex(last.strip_prefix("blake3 ")?).ok()?;
    if hash != blake3::hash(body.as_bytes()) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let created_ms = lines.next()?.strip_prefix("created_ms ")?.parse().ok()?;
    let end = lines.next()?.strip_prefix("end ")?.parse().ok()?;
    let mut files = Vec::new();
    for line in lines {
        let mut parts = line.strip_prefix("file ")?.split(' ');
        files.push(BackupFile {
            number: parts.next()?.parse().ok()?,
            len: parts.next()?.parse().ok()?,
            hash: blake3::Hash::from_hex(parts.next()?).ok()?,
        });
    }
    Some(BackupReport { created_ms, end, files, copied_bytes: 0 })
}

/// Compares every file of a backup with its hash. Errors: [`BackupError::Damaged`] names the first
/// that differs.
pub fn check_backup(
    dir: &Path,
    progress: &mut OnProgress<'_>,
) -> Result<BackupReport, BackupError> {
    let report = read_backup(dir)?;
    let total_bytes = report.files.iter().map(|file| file.len).sum();
    let mut done_bytes = 0;
    for file in &report.files {
        let path = file_path(dir, file.number, false);
        let hash =
            hash_file(&path).map_err(|source| BackupError::Io { path: path.clone(), source })?;
        if hash != file.hash {
            return Err(BackupError::Damaged { path, what: "its hash is another" });
        }
        done_bytes += file.len;
        progress(Progress { done_bytes, total_bytes });
    }
    Ok(report)
}

/// Copies a checked backup into `to`, which must be missing or empty; the files can then be opened
/// as a store. The caller gives it an identity of its own before it is used.
pub fn unpack_backup(
    dir: &Path,
    to: &Path,
    progress: &mut OnProgress<'_>,
) -> Result<BackupReport, BackupError> {
    let report = check_backup(dir, &mut |_| {})?;
    let io = |path: PathBuf| move |source| BackupError::Io { path, source };
    make_empty(to)?;
    let total_bytes = report.files.iter().map(|file| file.len).sum();
    let mut done_bytes = 0;
    for file in &report.files {
        let (from, path) = (file_path(dir, file.number, false), file_path(to, file.number, false));
        fs::copy(&from, &path).map_err(io(from))?;
        let copied = fs::File::open(&path).and_then(|copied| copied.sync_all());
        copied.map_err(io(path))?;
        done_bytes += file.len;
        progress(Progress { done_bytes, total_bytes });
    }
    sync_dir(to)?;
    Ok(report)
}
