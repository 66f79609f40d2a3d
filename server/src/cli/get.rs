//! `files get`: one file, or all of them.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use indicatif::HumanBytes;
use lastword::store::BlobError;
use lastword::{BlobHash, Error, FileInfo, FileReader};
use serde_json::json;

use super::args::FilesGet;
use super::failure::{ExitCode, Failure, at};
use super::output;
use super::records::hash_of;
use super::session::{Connection, Session};
use super::transfers;

pub(super) fn get(args: &FilesGet) -> Result<(), Failure> {
    match (&args.hash, &args.all) {
        (Some(hash), _) => get_one(args, hash),
        (None, Some(dir)) => get_all(args, dir),
        (None, None) => Err(Failure::usage("name a file, or --all DIR")),
    }
}

fn get_one(args: &FilesGet, hash: &str) -> Result<(), Failure> {
    let name = hash_of(hash)?;
    let session = Session::open_to_read(&args.store, &args.link)?;
    let mut source = Source::new(&session);
    match &args.out {
        None => {
            let mut file = source.open(&name)?;
            copy(&mut file, &mut io::stdout().lock(), None)?;
        }
        Some(path) => {
            let size = source.write(&name, path, true)?;
            tell(args, json!({ "hash": hash, "size_bytes": size, "out": path }), path, size)?;
        }
    }
    drop(source);
    session.close()
}

/// Writes every file that is not deleted. One that cannot be written keeps no other from it.
fn get_all(args: &FilesGet, dir: &Path) -> Result<(), Failure> {
    fs::create_dir_all(dir).map_err(|error| at(dir, &error))?;
    if fs::read_dir(dir).map_err(|error| at(dir, &error))?.next().is_some() {
        let dir = dir.display();
        return Err(Failure::failed(format!("{dir} is not empty: name a new directory")));
    }
    let session = Session::open_to_read(&args.store, &args.link)?;
    let mut source = Source::new(&session);
    let (mut written, mut bytes, mut worst) = (0, 0, None);
    for file in session.ws.files().list()? {
        if file.is_deleted {
            continue;
        }
        match source.place(&file, dir) {
            Ok((path, size)) => {
                let line = json!({
                    "hash": file.hash, "name": file.name, "size_bytes": size, "out": path,
                });
                tell(args, line, &path, size)?;
                written += 1;
                bytes += size;
            }
            Err(Failure { code, message }) => {
                eprintln!("error: {}", output::plain(&format!("{}: {message}", file.hash)));
                let is_worse = code == ExitCode::Damaged || worst.is_none();
                worst = if is_worse { Some(code) } else { worst };
            }
        }
    }
    drop(source);
    let files = output::counted(written, "file", "files");
    if args.store.json {
        writeln!(io::stdout(), "{}", json!({ "files": written, "bytes": bytes }))?;
    } else {
        writeln!(io::stdout(), "wrote {files} of {}", HumanBytes(bytes))?;
    }
    session.close()?;
    match worst {
        None => Ok(()),
        Some(code) => {
            Err(Failure { code, message: "some files could not be written, see above".into() })
        }
    }
}

fn tell(args: &FilesGet, line: serde_json::Value, path: &Path, size: u64) -> Result<(), Failure> {
    if args.store.json {
        writeln!(io::stdout(), "{}", output::json_line(&line.to_string()))?;
    } else {
        let text = format!("wrote {}: {}", path.display(), HumanBytes(size));
        writeln!(io::stdout(), "{}", output::plain(&text))?;
    }
    Ok(())
}

/// Where a file goes by its name, which somebody else may have chosen: into `dir`, whatever it is.
fn path_of(name: &str, dir: &Path) -> Option<PathBuf> {
    let parts = Path::new(name).components().filter_map(|part| match part {
        Component::Normal(part) => Some(part),
        _ => None,
    });
    let path = dir.join(parts.collect::<PathBuf>());
    (path != dir).then_some(path)
}

/// Files of a device, fetched from the server if they are not here or are damaged.
pub(super) struct Source<'a> {
    session: &'a Session,
    connection: Option<Connection>,
}

impl<'a> Source<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self { session, connection: None }
    }

    pub(super) fn open(&mut self, hash: &BlobHash) -> Result<FileReader, Failure> {
        match self.session.ws.files().open(hash) {
            Err(Error::Blob(BlobError::Missing { .. })) if self.session.knows_server() => {
                self.fetch(hash)
            }
            opened => Ok(opened?),
        }
    }

    /// Fetches a file again that is damaged here.
    pub(super) fn heal(&mut self, hash: &BlobHash) -> Result<(), Failure> {
        if !self.session.knows_server() {
            return Err(Failure::damaged(format!(
                "{hash} is damaged: store its file again, or name a server that has it (--server, \
                 --token)"
            )));
        }
        self.fetch(hash).map(drop)
    }

    fn fetch(&mut self, hash: &BlobHash) -> Result<FileReader, Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.session.connect_for_sure()?),
        };
        transfers::download(self.session, connection, self.session.link.timeout, hash)?;
        Ok(self.session.ws.files().open(hash)?)
    }

    /// Writes a file to `path`, where it appears as a whole or not at all; returns its length.
    fn write(&mut self, hash: &BlobHash, path: &Path, replace: bool) -> Result<u64, Failure> {
        let mut file = self.open(hash)?;
        match write_out(&mut file, path, replace) {
            // What is damaged was noted, and nothing has appeared at the path yet.
            Err(failure) if failure.code == ExitCode::Damaged && self.session.knows_server() => {
                drop(file);
                file = self.fetch(hash)?;
                write_out(&mut file, path, replace)?;
            }
            written => written?,
        }
        Ok(file.size_bytes())
    }

    /// Writes a file under its name, or under its hash if that place is taken or no good.
    fn place(&mut self, file: &FileInfo, dir: &Path) -> Result<(PathBuf, u64), Failure> {
        let hash = hash_of(&file.hash)?;
        let named = path_of(&file.name, dir).filter(|path| {
            let folder = path.parent().unwrap_or(dir);
            fs::create_dir_all(folder).is_ok() && fs::symlink_metadata(path).is_err()
        });
        if let Some(path) = named {
            match self.write(&hash, &path, false) {
                Ok(size) => return Ok((path, size)),
                Err(failure) if failure.code != ExitCode::Failed => return Err(failure),
                Err(_) => {}
            }
        }
        let path = dir.join(file.hash.replace(':', "-"));
        let size = self.write(&hash, &path, false)?;
        Ok((path, size))
    }
}

fn write_out(file: &mut FileReader, path: &Path, replace: bool) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut fresh = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .map_err(|error| at(path, &error))?;
    file.seek_to(0);
    copy(file, fresh.as_file_mut(), Some(path))?;
    let placed = if replace { fresh.persist(path) } else { fresh.persist_noclobber(path) };
    placed.map_err(|error| at(path, &error.error))?;
    Ok(())
}

/// Copies a file to `out`, which is at `path` or is stdout.
fn copy(file: &mut FileReader, out: &mut dyn Write, path: Option<&Path>) -> Result<(), Failure> {
    let bar = output::bytes_progress();
    bar.set_message("reading");
    let failed = |error: io::Error| match path {
        Some(path) => at(path, &error),
        None => error.into(),
    };
    loop {
        let bytes = file.next_bytes()?;
        if bytes.is_empty() {
            bar.finish_and_clear();
            return out.flush().map_err(failed);
        }
        out.write_all(bytes).map_err(failed)?;
        bar.inc(bytes.len() as u64);
    }
}
