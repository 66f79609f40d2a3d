//! The device's side where an object store keeps files: bytes go to, and come from, the store
//! itself, over URLs that the server signs. What was carried is not carried again: the store knows
//! which parts of an upload it has, and the parts of a download are files of this device's own
//! store until the last has come.

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use lastword_core::limits::MAX_FILE_PARTS;
use lastword_core::manifest::Blob;
use lastword_core::protocol::{FileMessage, ObjectMessage, SignedUrl};
use lastword_store::BlobError;
use lastword_store::blobs::{BlobReader, Ingest};
use sha2::{Digest as _, Sha256};

use super::device::{Ended, Ending, Got, Progress, Talk, Watch, unexpected};
use super::pace::Pace;
use crate::error::Error;
use crate::file_frames;
use crate::files::Files;

/// How often one part, or one range, is tried with a new URL: what was signed may have ended before
/// it was used.
const MAX_URLS: usize = 3;
/// How often a server may say after an upload that parts are missing.
pub(super) const MAX_ROUNDS: usize = 3;
/// Length of the parts in which a file is fetched, as long as it needs no longer ones.
const FETCHED_PART_BYTES: u64 = 8 * 1024 * 1024;
/// Most parts in which a file is fetched: their names stand in the row of the transfer.
const MAX_FETCHED_PARTS: u64 = 256;

fn cut(why: impl Into<String>) -> Ending {
    Ending::Cut { why: why.into() }
}

/// Asks for a URL.
fn ask(talk: &mut Talk<'_>, part: u64, sha256: [u8; 32]) -> Result<SignedUrl, Ending> {
    talk.say(ObjectMessage::AskUrl { part, sha256 })?;
    match talk.receive()? {
        FileMessage::Object { message: ObjectMessage::Url(url), .. } => Ok(url),
        _ => Err(unexpected()),
    }
}

/// Sends the parts of a file that its store does not have, and says so.
pub(super) fn send(
    talk: &mut Talk<'_>,
    files: &Files,
    blob: &Blob,
    (part_bytes, stored): (u64, &[u64]),
) -> Result<(), Ending> {
    let (first, part_len) = if part_bytes == 0 { (0, blob.size) } else { (1, part_bytes) };
    let parts = blob.size.div_ceil(part_len.max(1)).max(1);
    if parts > MAX_FILE_PARTS as u64 {
        return Err(unexpected());
    }
    talk.progress.done_bytes = 0;
    let mut reader = BlobReader::open(&files.blobs()?, files.workspace().name(), &blob.sha256)
        .map_err(Error::from)?;
    for index in 0..parts {
        let (number, begin) = (first + index, index * part_len);
        let end = (begin + part_len).min(blob.size);
        if !(number > 0 && stored.contains(&number)) {
            let mut part = Part { files, reader: &mut reader, begin, end };
            part.send(talk, number, &blob.sha256)?;
        }
        talk.progress.done_bytes = end;
        talk.told()?;
    }
    talk.say(ObjectMessage::Sent)
}

/// Bytes of a file that go to a store at once.
struct Part<'a> {
    files: &'a Files,
    reader: &'a mut BlobReader,
    begin: u64,
    end: u64,
}

impl Part<'_> {
    /// The bytes from `at` on, as many as are at hand.
    fn read(&mut self, at: u64) -> Result<&[u8], Ending> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        if let Err(error) = self.reader.read_from(at) {
            file_frames::set_apart(self.files.writer(), self.files.workspace().name(), &error);
            return Err(Error::from(error).into());
        }
        let bytes = self.reader.read_from(at).map_err(Error::from)?;
        Ok(bytes.get(..left.min(bytes.len())).unwrap_or_default())
    }

    fn sha256(&mut self) -> Result<[u8; 32], Ending> {
        let (mut hash, mut at) = (Sha256::new(), self.begin);
        while at < self.end {
            let bytes = self.read(at)?;
            hash.update(bytes);
            at += bytes.len() as u64;
        }
        Ok(hash.finalize().into())
    }

    fn send(&mut self, talk: &mut Talk<'_>, number: u64, whole: &[u8; 32]) -> Result<(), Ending> {
        let sha256 = if number == 0 { *whole } else { self.sha256()? };
        for _ in 0..MAX_URLS {
            let url = ask(talk, number, sha256)?;
            match self.put(talk, &url)? {
                200..=299 => return Ok(()),
                // The store has an object there: the server compares it with its name.
                409 | 412 if number == 0 => return Ok(()),
                // It may have ended meanwhile.
                401 | 403 => {}
                status => return Err(cut(format!("the store of files answered {status}"))),
            }
        }
        Err(cut("the store of files takes no URL that the server signs"))
    }

    fn put(&mut self, talk: &mut Talk<'_>, url: &SignedUrl) -> Result<u16, Ending> {
        let (len, mut at) = (self.end - self.begin, self.begin);
        let Talk { wire, watch, progress, .. } = talk;
        let mut next = || {
            if at >= self.end {
                return Ok(None);
            }
            let bytes = self.read(at)?.to_vec();
            at += bytes.len() as u64;
            progress.moved_bytes += bytes.len() as u64;
            progress.done_bytes = at;
            match watch(*progress).is_continue() {
                true => Ok(Some(bytes)),
                false => Err(Ending::Stopped),
            }
        };
        let answered = wire.put(url, len, &mut next);
        if matches!(answered, Err(Ending::Stopped | Ending::Here(_))) {
            talk.send(FileMessage::Cancel { transfer: talk.transfer })?;
        }
        answered
    }
}

/// Fetches a file and keeps it.
pub(super) fn fetch(
    talk: &mut Talk<'_>,
    files: &Files,
    sha256: [u8; 32],
    (size, url): (u64, SignedUrl),
) -> Result<Ended, Ending> {
    files.check_size(size)?;
    talk.progress.total_bytes = size;
    let pace = Pace::new(Arc::clone(files.records()), Instant::now());
    let mut fetching = Fetching { files, sha256, size, url: Some(url), pace };
    let fetched = match fetching.part_bytes() {
        part_bytes if part_bytes >= size => fetching.range(talk, (0, size), Some(sha256)).map(drop),
        part_bytes => fetching.in_parts(talk, part_bytes),
    };
    match fetched {
        Ok(()) => {
            // All is here, so it does not matter whether the server hears it.
            let _ = talk.send(FileMessage::Cancel { transfer: talk.transfer });
            Ok(talk.ended())
        }
        Err(NotFetched::Other(ending)) => Err(ending),
        Err(NotFetched::NotIt) => {
            talk.say(ObjectMessage::NotIt)?;
            files.note_parts(&sha256, Vec::new())?;
            loop {
                // It looks for itself, and then says what is so.
                match talk.receive()? {
                    FileMessage::Want { .. } => talk.told()?,
                    _ => return Err(unexpected()),
                }
            }
        }
    }
}

/// Why a file was not fetched.
enum NotFetched {
    /// The store has something else, or nothing.
    NotIt,
    Other(Ending),
}

impl<E: Into<Ending>> From<E> for NotFetched {
    fn from(error: E) -> Self {
        NotFetched::Other(error.into())
    }
}

struct Fetching<'a> {
    files: &'a Files,
    sha256: [u8; 32],
    size: u64,
    /// The newest URL, until a store refuses it.
    url: Option<SignedUrl>,
    pace: Pace,
}

impl Fetching<'_> {
    fn part_bytes(&self) -> u64 {
        let least = self.size.div_ceil(MAX_FETCHED_PARTS);
        FETCHED_PART_BYTES.max(least.next_multiple_of(1024 * 1024))
    }

    /// Fetches what is missing part by part, then makes the file of its parts.
    fn in_parts(&mut self, talk: &mut Talk<'_>, part_bytes: u64) -> Result<(), NotFetched> {
        let files = self.files;
        let begin_of = |parts: &[[u8; 32]]| parts.len() as u64 * part_bytes;
        let mut parts = files.noted_parts(&self.sha256, part_bytes, self.size)?;
        while begin_of(&parts) < self.size {
            let begin = begin_of(&parts);
            talk.progress.done_bytes = begin;
            talk.told()?;
            let end = (begin + part_bytes).min(self.size);
            let blob = self.range(talk, (begin, end), None)?;
            parts.push(blob.sha256);
            files.note_parts(&self.sha256, parts.clone())?;
        }
        let (blobs, name) = (files.blobs()?, files.workspace().name());
        let mut readers = Vec::new();
        for part in parts.iter().rev() {
            readers.push(BlobReader::open(&blobs, name, part).map_err(Error::from)?);
        }
        let Talk { watch, progress, .. } = talk;
        let (from, stopped, pace) = (Parts { readers, at: 0 }, false, None);
        let watch = &mut **watch;
        let mut whole = Watched { from, watch, progress, pace, stopped };
        let kept = keep(files, &mut whole, self.size, Some(self.sha256));
        let stopped = whole.stopped;
        if let Err(error) = kept {
            return Err(Self::not_kept(talk, stopped, error));
        }
        files.note_parts(&self.sha256, Vec::new())?;
        // Each is a piece of the file that is here now.
        parts.iter().try_for_each(|part| files.let_go_unnamed(part))?;
        Ok(())
    }

    /// Why bytes that came were not kept.
    fn not_kept(talk: &mut Talk<'_>, stopped: bool, error: Error) -> NotFetched {
        match error {
            _ if stopped => {
                let cancel = FileMessage::Cancel { transfer: talk.transfer };
                talk.send(cancel).map_or_else(NotFetched::Other, |()| Ending::Stopped.into())
            }
            Error::Blob(BlobError::Manifest { .. }) => NotFetched::NotIt,
            Error::Blob(error @ (BlobError::Source { .. } | BlobError::TooLarge { .. })) => {
                cut(error.to_string()).into()
            }
            error => Ending::Here(error).into(),
        }
    }

    /// Fetches bytes of the file and keeps them as a file; that is of that name, if one is given.
    fn range(
        &mut self,
        talk: &mut Talk<'_>,
        (begin, end): (u64, u64),
        expected: Option<[u8; 32]>,
    ) -> Result<Blob, NotFetched> {
        for _ in 0..MAX_URLS {
            let url = match self.url.take() {
                Some(url) => url,
                None => ask(talk, 0, self.sha256)?,
            };
            let Talk { wire, watch, progress, .. } = talk;
            let Got { status, body } = wire.get(&url, begin, end).map_err(cut)?;
            match status {
                206 => {}
                200 if (begin, end) == (0, self.size) => {}
                // It may have ended meanwhile.
                401 | 403 => continue,
                404 | 416 => return Err(NotFetched::NotIt),
                status => return Err(cut(format!("the store of files answered {status}")).into()),
            }
            let (pace, stopped) = (Some(&mut self.pace), false);
            let watch = &mut **watch;
            let mut body = Watched { from: body, watch, progress, pace, stopped };
            let kept = keep(self.files, &mut body, end - begin, expected);
            let stopped = body.stopped;
            drop(body);
            self.url = Some(url);
            return match kept {
                Ok(blob) if blob.size == end - begin => Ok(blob),
                Ok(_) => Err(cut("what the store of files sent broke off").into()),
                Err(error) => Err(Self::not_kept(talk, stopped, error)),
            };
        }
        Err(cut("the store of files takes no URL that the server signs").into())
    }
}

/// Stores a file of this device; of that name, if one is given.
fn keep(
    files: &Files,
    from: impl Read,
    limit: u64,
    expected: Option<[u8; 32]>,
) -> Result<Blob, Error> {
    let (blobs, name) = (files.blobs()?, files.workspace().name());
    let mut ingest = Ingest::new(&blobs, name, from, limit, files.now_ms());
    if let Some(sha256) = expected {
        ingest.expect(sha256);
    }
    loop {
        let mut done = ingest.step()?;
        file_frames::append(files.writer(), std::mem::take(&mut done.frames))?;
        if let Some(blob) = done.blob {
            return Ok(blob);
        }
    }
}

/// Bytes that come, and whoever watches them.
struct Watched<'a, R> {
    from: R,
    watch: Watch<'a>,
    progress: &'a mut Progress,
    /// Of bytes that come from outside; others are here already.
    pace: Option<&'a mut Pace>,
    stopped: bool,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(out)?;
        if let Some(pace) = &mut self.pace {
            self.progress.done_bytes += read as u64;
            self.progress.moved_bytes += read as u64;
            // This thread has nothing else to do: what else comes waits in the socket.
            std::thread::sleep(pace.wait(self.progress.moved_bytes, Instant::now()));
        }
        if (self.watch)(*self.progress).is_break() {
            self.stopped = true;
            return Err(std::io::Error::other("the transfer was stopped"));
        }
        Ok(read)
    }
}

/// The parts of a file, one after the other.
struct Parts {
    /// The last one first.
    readers: Vec<BlobReader>,
    /// Bytes of the one at the end that were read.
    at: u64,
}

impl Read for Parts {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while let Some(reader) = self.readers.last_mut() {
            let bytes = reader.read_from(self.at).map_err(std::io::Error::other)?;
            if !bytes.is_empty() {
                let len = bytes.len().min(out.len());
                let (filled, _) = out.split_at_mut(len);
                filled.copy_from_slice(bytes.get(..len).unwrap_or_default());
                self.at += len as u64;
                return Ok(len);
            }
            self.readers.pop();
            self.at = 0;
        }
        Ok(0)
    }
}
