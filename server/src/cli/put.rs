//! `files put`: one file, several, or all that are in directories.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use lastword::core::stamp::Decision;
use lastword::{BlobHash, Receipt, Settled, Staging};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::args::FilesPut;
use super::failure::{Failure, at};
use super::output;
use super::records::{name, tell};
use super::session::{Fate, Session, held_text};
use super::transfers;

/// Files that are named by one write.
pub(super) const MAX_ATTACHED: usize = 200;
/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

pub(super) fn put(args: &FilesPut) -> Result<(), Failure> {
    match &args.files[..] {
        [file] if !(args.recursive && file.is_dir()) => put_one(args, file),
        _ if args.name.is_some() => Err(Failure::usage("--name goes with one file only")),
        files if files.iter().any(|file| is_stdin(file)) => {
            Err(Failure::usage("- goes with no other file"))
        }
        _ => put_several(args),
    }
}

fn put_one(args: &FilesPut, file: &Path) -> Result<(), Failure> {
    let file_name = args.name.clone().unwrap_or_else(|| name_at(file));
    let (from, total): (Box<dyn Read>, u64) = match is_stdin(file) {
        true => (Box::new(io::stdin().lock()), 0),
        false => {
            let (file, len) = open(file)?;
            (Box::new(file), len)
        }
    };
    let session = Session::open(&args.store, &args.link)?;
    let begun = Instant::now();
    let bar = output::bytes_progress();
    bar.set_length(total);
    bar.set_message("storing");
    let staged =
        session.ws.files().stage_from(from, &file_name, &mut |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    let staged = staged?;
    let receipt = session.ws.write(|tx| tx.attach(&staged, &args.mime))?;
    let before = transfers::uploads(&session)?;
    let connection = session.connect()?;
    let fate = session.fate(connection, &receipt)?;
    let bytes = (staged.size_bytes(), staged.new_bytes);
    print(args, (&staged.hash(), &file_name), bytes, Some(begun.elapsed()))?;
    let told = match &fate {
        Fate::Local => {
            let stored = Stored { files: 1, new_bytes: staged.new_bytes, ..Stored::default() };
            tell_all(args, &session, &stored, &fate, begun.elapsed())
        }
        fate => {
            let name = name("file_meta", &staged.hash().to_string())?;
            tell(&session.ws, args.store.json, &name, fate, begun.elapsed())
        }
    };
    let uploaded = upload_after(&session, args.store.json, &fate, &before);
    session.close()?;
    told?;
    uploaded
}

/// What became of several files.
#[derive(Debug, Default)]
struct Stored {
    files: u64,
    new_bytes: u64,
    receipts: Vec<Receipt>,
    /// Files that could not be read.
    unread: u64,
}

fn put_several(args: &FilesPut) -> Result<(), Failure> {
    let session = Session::open(&args.store, &args.link)?;
    let begun = Instant::now();
    let stored = store_all(args, &session)?;
    let before = transfers::uploads(&session)?;
    let (mut told, mut uploaded) = (Ok(()), Ok(()));
    if stored.files > 0 {
        let fate = match stored.receipts.last() {
            Some(last) => session.fate(session.connect()?, last)?,
            None => Fate::Local,
        };
        told = tell_all(args, &session, &stored, &fate, begun.elapsed());
        uploaded = upload_after(&session, args.store.json, &fate, &before);
    }
    session.close()?;
    told?;
    uploaded?;
    match stored.unread {
        0 => Ok(()),
        unread => {
            let files = output::counted(unread, "file", "files");
            Err(Failure::failed(format!("{files} could not be stored, see above")))
        }
    }
}

/// Stores every file and names it. One that cannot be read keeps no other from being stored.
fn store_all(args: &FilesPut, session: &Session) -> Result<Stored, Failure> {
    let mut stored = Stored::default();
    let known = Known::of(session)?;
    let mut staging = session.ws.files().staging()?;
    let bar = output::bytes_progress();
    bar.set_message("storing");
    let mut left = Vec::new();
    for path in args.files.iter().rev() {
        left.push((path.clone(), name_at(path)));
    }
    let mut given = left.len();
    while let Some((path, name)) = left.pop() {
        // What the user has named is there and is followed; what is found is not.
        let is_given = left.len() < given;
        given = given.min(left.len());
        let done = match list(args, &path, &name, is_given) {
            Ok(Some(found)) => {
                left.extend(found);
                continue;
            }
            Ok(None) => match known.find(&path) {
                Ok(Some((hash, size))) => {
                    stored.files += 1;
                    print(args, (&hash, &name), (size, 0), None)?;
                    continue;
                }
                Ok(None) => add(&mut staging, &path, &name, &bar),
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        if let Err(failure) = done {
            eprintln!("error: {}", output::plain(&failure.message));
            stored.unread += 1;
        }
        if staging.waiting() >= MAX_ATTACHED {
            attach(args, session, &mut staging, &mut stored)?;
        }
    }
    attach(args, session, &mut staging, &mut stored)?;
    bar.finish_and_clear();
    Ok(stored)
}

/// What is in a directory, the last first; none if the path is that of a file.
fn list(
    args: &FilesPut,
    path: &Path,
    name: &str,
    is_given: bool,
) -> Result<Option<Vec<(PathBuf, String)>>, Failure> {
    let about = if is_given { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let about = about.map_err(|error| at(path, &error))?;
    if about.is_file() {
        return Ok(None);
    }
    if !about.is_dir() {
        return Err(Failure::failed(format!("{} is no file", path.display())));
    }
    if !args.recursive {
        return Err(is_directory(path));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| at(path, &error))? {
        let entry = entry.map_err(|error| at(path, &error))?;
        let own = entry.file_name().to_string_lossy().into_owned();
        let name = if name.is_empty() { own } else { format!("{name}/{own}") };
        found.push((entry.path(), name));
    }
    found.sort_by(|one, other| other.cmp(one));
    Ok(Some(found))
}

fn add(
    staging: &mut Staging<'static>,
    path: &Path,
    name: &str,
    bar: &indicatif::ProgressBar,
) -> Result<(), Failure> {
    let (file, _) = open(path)?;
    let before = bar.position();
    let added = staging.add(file, name, &mut |bytes| bar.set_position(before + bytes));
    added.map_err(|error| {
        let Failure { code, message } = error.into();
        Failure { code, message: format!("{}: {message}", path.display()) }
    })
}

fn attach(
    args: &FilesPut,
    session: &Session,
    staging: &mut Staging<'static>,
    stored: &mut Stored,
) -> Result<(), Failure> {
    let staged = staging.finish()?;
    if staged.is_empty() {
        return Ok(());
    }
    let receipt = session
        .ws
        .write(|tx| staged.iter().try_for_each(|staged| tx.attach(staged, &args.mime)))?;
    stored.receipts.push(receipt);
    for staged in &staged {
        stored.files += 1;
        stored.new_bytes += staged.new_bytes;
        let bytes = (staged.size_bytes(), staged.new_bytes);
        print(args, (&staged.hash(), staged.name()), bytes, None)?;
    }
    Ok(())
}

fn print(
    args: &FilesPut,
    (hash, name): (&BlobHash, &str),
    (size, new): (u64, u64),
    elapsed: Option<Duration>,
) -> Result<(), Failure> {
    if args.store.json {
        let mut line = json!({
            "hash": hash.to_string(), "name": name, "size_bytes": size, "new_bytes": new,
        });
        if let Some(elapsed) = elapsed {
            line["ms"] = json!(elapsed.as_secs_f64() * 1000.0);
        }
        writeln!(io::stdout(), "{}", output::json_line(&line.to_string()))?;
    } else {
        let (size, new) = (HumanBytes(size), HumanBytes(new));
        let text = format!("{hash} {name}: {size}, {new} of it new");
        writeln!(io::stdout(), "{}", output::plain(&text))?;
    }
    Ok(())
}

/// Files that are here and have a record: one that is the same needs no more than its hash.
#[derive(Debug, Default)]
pub(super) struct Known {
    sizes: BTreeSet<u64>,
    hashes: BTreeSet<String>,
}

impl Known {
    /// None if anything of what is stored is damaged: storing files again makes it whole.
    pub(super) fn of(session: &Session) -> Result<Self, Failure> {
        let files = session.ws.files();
        let mut known = Known::default();
        if files.usage()?.damaged_chunks > 0 || !files.lost_packs()?.is_empty() {
            return Ok(known);
        }
        for file in files.list()? {
            if file.is_here && !file.is_deleted {
                known.sizes.insert(file.size_bytes);
                known.hashes.insert(file.hash);
            }
        }
        Ok(known)
    }

    pub(super) fn has(&self, hash: &BlobHash) -> bool {
        self.hashes.contains(&hash.to_string())
    }

    /// The file at a path and its length, if all of it is here.
    fn find(&self, path: &Path) -> Result<Option<(BlobHash, u64)>, Failure> {
        if self.sizes.is_empty() {
            return Ok(None);
        }
        let (mut file, len) = open(path)?;
        if !self.sizes.contains(&len) {
            return Ok(None);
        }
        let (mut sha256, mut buffer) = (Sha256::new(), vec![0; READ_BYTES.min(len as usize + 1)]);
        loop {
            match file.read(&mut buffer).map_err(|error| at(path, &error))? {
                0 => break,
                read => sha256.update(&buffer[..read]),
            }
        }
        let hash = BlobHash::Sha256(sha256.finalize().into());
        Ok(self.has(&hash).then_some((hash, len)))
    }
}

/// What the server said to the records of files, where there were any to write.
fn tell_all(
    args: &FilesPut,
    session: &Session,
    stored: &Stored,
    fate: &Fate,
    elapsed: Duration,
) -> Result<(), Failure> {
    let is_refused = |receipt: &&Receipt| {
        matches!(receipt.verdict(), Some(Settled::Decided(Decision::Refused { .. })))
    };
    let refused = stored.receipts.iter().filter(is_refused).count() as u64;
    let (waiting, files) = (session.waiting()?, output::counted(stored.files, "file", "files"));
    let (state, why) = match fate {
        Fate::Decided(_) if refused > 0 => ("refused", Value::Null),
        Fate::Decided(_) => ("applied", Value::Null),
        Fate::Local => ("here", Value::Null),
        Fate::Waiting(why) | Fate::Unreachable(why) | Fate::Held(why) => ("waiting", json!(why)),
    };
    if args.store.json {
        let line = json!({
            "files": stored.files, "new_bytes": stored.new_bytes, "unread": stored.unread,
            "durable": true, "outbox": waiting, "state": state, "why": why,
            "ms": elapsed.as_secs_f64() * 1000.0,
        });
        writeln!(io::stdout(), "{}", output::json_line(&line.to_string()))?;
    }
    let outbox = output::batches(waiting);
    let text = match fate {
        Fate::Decided(_) if refused > 0 => {
            let refused = output::batches(refused);
            return Err(Failure::failed(format!(
                "{refused} of the records of {files} refused; they are kept, see \
                 `lastword dead-letters`"
            )));
        }
        Fate::Decided(_) => format!("{files} applied ({})", output::took(elapsed)),
        Fate::Local => {
            let waits = match transfers::uploads(session)?.len() as u64 {
                0 => String::new(),
                waits => format!("; {} to be uploaded", output::counted(waits, "file", "files")),
            };
            format!("{files} here already ({}); outbox {outbox}{waits}", output::took(elapsed))
        }
        Fate::Waiting(why) => format!("saved {files}; outbox {outbox}; {why}"),
        Fate::Unreachable(why) => {
            return Err(Failure::unreachable(format!("saved {files}; outbox {outbox}; {why}")));
        }
        Fate::Held(why) => {
            let held = held_text(why, &outbox);
            return Err(Failure::failed(format!("saved {files}, not sent: {held}")));
        }
    };
    if !args.store.json {
        writeln!(io::stdout(), "{}", output::plain(&text))?;
    }
    Ok(())
}

/// Uploads what waits once the server has decided; where nothing was to be written, if the user
/// waits for it.
fn upload_after(
    session: &Session,
    json: bool,
    fate: &Fate,
    before: &BTreeSet<String>,
) -> Result<(), Failure> {
    match fate {
        Fate::Decided(_) => upload(session, json, before),
        Fate::Local if session.link.wait => {
            session.catch_up()?;
            upload(session, json, before)
        }
        _ => Ok(()),
    }
}

/// Uploads what waits, where there is a server.
pub(super) fn upload(
    session: &Session,
    json: bool,
    before: &BTreeSet<String>,
) -> Result<(), Failure> {
    let Some(mut connection) = session.connect()? else { return Ok(()) };
    let timeout = session.link.timeout;
    let uploaded = transfers::wait_uploads(session, &mut connection, timeout, before)?;
    if json {
        writeln!(io::stdout(), "{}", json!({ "uploaded_files": uploaded }))?;
    } else {
        let files = output::counted(uploaded, "file", "files");
        writeln!(io::stdout(), "uploaded {files}")?;
    }
    Ok(())
}

/// The file to read, and its length.
fn open(path: &Path) -> Result<(File, u64), Failure> {
    let file = File::open(path).map_err(|error| at(path, &error))?;
    let about = file.metadata().map_err(|error| at(path, &error))?;
    match about.is_dir() {
        true => Err(is_directory(path)),
        false => Ok((file, about.len())),
    }
}

fn is_directory(path: &Path) -> Failure {
    let path = path.display();
    Failure::failed(format!("{path} is a directory: name a file, or add --recursive"))
}

fn is_stdin(path: &Path) -> bool {
    path.to_str() == Some("-")
}

/// The last part of a path; none of `.` and `/`.
fn name_at(path: &Path) -> String {
    match path.components().next_back() {
        Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
        _ => String::new(),
    }
}
