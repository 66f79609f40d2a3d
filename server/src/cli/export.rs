//! `export`: every record as a JSON line, sorted by table and key; or an archive with the files.

use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount, ProgressBar};
use lastword::core::id::WorkspaceName;
use lastword::{BlobHash, FILE_TRANSFERS, WorkspaceView};
use serde_json::json;
use tempfile::NamedTempFile;

use super::archive;
use super::args::Export;
use super::failure::{Failure, at};
use super::get::Source;
use super::output;
use super::session::{Opened, Session, open_any};

pub(super) fn export(args: &Export) -> Result<(), Failure> {
    let begun = Instant::now();
    let opened = open_any(&args.store, &args.link)?;
    let opening = begun.elapsed();
    match opened {
        Opened::Device(session) => {
            let view = session.ws.read()?;
            if args.link.server.is_some() || args.link.wait {
                let rows = session.ws.status()?.rows;
                eprintln!("caught up: {}", output::records_and_rate(rows, opening));
            }
            let known = session.db.workspaces()?;
            must_be_one_of(args, known.iter().map(|ws| ws.name().as_str()))?;
            match &args.files {
                None => print(args, &view)?,
                Some(path) => write_archive(args, &session, &view, path)?,
            }
            session.close()
        }
        Opened::Server(_) if args.files.is_some() => Err(Failure::failed(
            "files are exported from a device: `lastword backup` copies a server with its files",
        )),
        Opened::Server(authority) => {
            let known = authority.status()?;
            must_be_one_of(args, known.iter().map(|status| status.workspace.as_str()))?;
            print(args, &authority.read(&WorkspaceName::new(&args.store.workspace)?)?)?;
            Ok(authority.close()?)
        }
    }
}

/// A mistyped workspace would look like an empty one.
fn must_be_one_of<'a>(args: &Export, known: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let known: Vec<&str> = known.filter(|name| !name.starts_with('_')).collect();
    let (workspace, dir) = (args.store.workspace.as_str(), args.store.data.display());
    if known.contains(&workspace) {
        return Ok(());
    }
    let has = match known.as_slice() {
        [] => "it has none yet".to_owned(),
        known => format!("it has {}", known.join(", ")),
    };
    Err(Failure::failed(format!("there is no workspace {workspace} in {dir}: {has}")))
}

fn print(args: &Export, view: &WorkspaceView) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut out = BufWriter::with_capacity(256 * 1024, std::io::stdout().lock());
    let count = write_lines(args, view, &mut out)?;
    out.flush()?;
    eprintln!("exported {}", output::records_and_rate(count, begun.elapsed()));
    Ok(())
}

/// Writes the records that were asked for; answers how many.
fn write_lines(args: &Export, view: &WorkspaceView, out: &mut dyn Write) -> Result<u64, Failure> {
    let (mut count, mut failed) = (0, None);
    view.visit_all(&mut |shown, deleted| {
        if failed.is_some() || (deleted && !args.deleted) {
            return Ok(());
        }
        if shown.table.is_reserved() && !args.system {
            return Ok(());
        }
        // What a device still has to carry is no concern of whoever takes the archive.
        if args.files.is_some() && shown.table.as_str() == FILE_TRANSFERS.name() {
            return Ok(());
        }
        count += 1;
        let (table, key) = (shown.table.as_str(), shown.key.as_str());
        let line = output::record_line(table, key, &shown.record, deleted);
        let written = line.and_then(|line| Ok(writeln!(out, "{line}")?));
        failed = written.err();
        Ok(())
    })?;
    failed.map_or(Ok(count), Err)
}

/// Writes an archive, which appears at `path` as a whole or not at all.
fn write_archive(
    args: &Export,
    session: &Session,
    view: &WorkspaceView,
    path: &Path,
) -> Result<(), Failure> {
    let io_failed = |error: std::io::Error| at(path, &error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // First: a view does not live as long as files may take to be fetched.
    let mut lines = BufWriter::new(tempfile::tempfile_in(folder).map_err(io_failed)?);
    let records = write_lines(args, view, &mut lines)?;
    let mut lines = lines.into_inner().map_err(|error| io_failed(error.into_error()))?;
    let mut source = Source::new(session);
    let Named { files, left_out } = named_files(args, session, &mut source)?;
    let bar = output::bytes_progress();
    bar.set_length(files.iter().map(|(_, size)| size).sum());
    bar.set_message("writing");
    let fresh = loop {
        bar.set_position(0);
        let fresh = tempfile::NamedTempFile::new_in(folder).map_err(io_failed)?;
        match pack(&mut lines, fresh, &files, &mut source, &bar) {
            Ok(fresh) => break fresh,
            // It is whole again, or that has failed.
            Err(Unpacked::Damaged(hash)) => source.heal(&hash)?,
            Err(Unpacked::Failed(failure)) => return Err(failure),
            Err(Unpacked::Io(error)) => return Err(io_failed(error)),
        }
    };
    bar.finish_and_clear();
    fresh.as_file().sync_all().map_err(io_failed)?;
    fresh.persist(path).map_err(|error| io_failed(error.error))?;
    let bytes = bar.position();
    if args.store.json {
        let line = json!({
            "records": records, "files": files.len(), "bytes": bytes, "left_out": left_out,
            "out": path,
        });
        writeln!(std::io::stdout(), "{}", output::json_line(&line.to_string()))?;
    }
    let left_out = match left_out {
        0 => String::new(),
        some => format!("; {} left out", output::counted(some, "file", "files")),
    };
    let files = output::counted(files.len() as u64, "file", "files");
    let (records, bytes) = (HumanCount(records), HumanBytes(bytes));
    let path = path.display().to_string();
    let path = output::plain(&path);
    eprintln!("exported {records} records and {files} of {bytes} to {path}{left_out}");
    Ok(())
}

/// Why an archive was not written.
enum Unpacked {
    /// A file turned out to be damaged while it was read.
    Damaged(BlobHash),
    Failed(Failure),
    Io(std::io::Error),
}

impl From<std::io::Error> for Unpacked {
    fn from(error: std::io::Error) -> Self {
        Unpacked::Io(error)
    }
}

fn pack(
    lines: &mut File,
    into: NamedTempFile,
    files: &[(BlobHash, u64)],
    source: &mut Source<'_>,
    bar: &ProgressBar,
) -> Result<NamedTempFile, Unpacked> {
    let len = lines.seek(SeekFrom::End(0))?;
    lines.rewind()?;
    let out = BufWriter::with_capacity(256 * 1024, into);
    let mut writer = archive::Writer::new(out, lines, len)?;
    for (hash, size) in files {
        let file = source.open(hash).map_err(Unpacked::Failed)?;
        writer.file(hash, file).map_err(|error| match is_damage(&error) {
            true => Unpacked::Damaged(*hash),
            false => Unpacked::Io(error),
        })?;
        bar.inc(*size);
    }
    let out = writer.finish()?;
    Ok(out.into_inner().map_err(std::io::IntoInnerError::into_error)?)
}

/// Whether a file could not be read because what is stored of it is damaged.
fn is_damage(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Arc<lastword::Error>>());
    matches!(inner.map(|error| &**error), Some(lastword::Error::Blob(_)))
}

/// The files of an archive by their hashes, with their lengths in bytes.
#[derive(Default)]
struct Named {
    files: Vec<(BlobHash, u64)>,
    left_out: u64,
}

/// What is not here is fetched first, so that an archive is not begun that cannot be whole. Files
/// that are named by an MD5 are left out: no server has them.
fn named_files(
    args: &Export,
    session: &Session,
    source: &mut Source<'_>,
) -> Result<Named, Failure> {
    let (mut named, mut missing) = (Named::default(), Vec::new());
    for file in session.ws.files().list()?.into_iter().filter(|file| !file.is_deleted) {
        match BlobHash::new(&file.hash) {
            Ok(hash) if file.is_here => named.files.push((hash, file.size_bytes)),
            Ok(_) if args.only_here => named.left_out += 1,
            Ok(hash) => missing.push((hash, file.size_bytes)),
            Err(_) => named.left_out += 1,
        }
    }
    if !missing.is_empty() && !session.knows_server() {
        let are = match missing.len() {
            1 => "1 file is".to_owned(),
            more => format!("{more} files are"),
        };
        return Err(Failure::failed(format!(
            "{are} not on this device: name the server (--server, --token), or leave them out with \
             --only-here"
        )));
    }
    for (hash, size) in missing {
        source.open(&hash).map_err(|Failure { code, message }| {
            let next = "run it again, or leave out what is not here with --only-here";
            Failure { code, message: format!("{hash} cannot be fetched: {message}; {next}") }
        })?;
        named.files.push((hash, size));
    }
    named.files.sort();
    Ok(named)
}
