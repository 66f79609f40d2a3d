//! `export`: every record as a JSON line, sorted by table and key; or an archive with the files.

use std::io::{BufWriter, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};
use lastword::core::id::WorkspaceName;
use lastword::{BlobHash, FILE_TRANSFERS, FileInfo, WorkspaceView};
use serde_json::json;

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
    let mut source = Source::new(session);
    let (files, left_out) = named_files(args, session, &mut source)?;
    let mut lines = BufWriter::new(tempfile::tempfile().map_err(io_failed)?);
    let records = write_lines(args, view, &mut lines)?;
    let mut lines = lines.into_inner().map_err(|error| io_failed(error.into_error()))?;
    let len = lines.stream_position().map_err(io_failed)?;
    lines.seek(SeekFrom::Start(0)).map_err(io_failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let fresh = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
    let out = BufWriter::with_capacity(256 * 1024, fresh.map_err(io_failed)?);
    let mut writer = archive::Writer::new(out, &mut lines, len).map_err(io_failed)?;
    let bar = output::bytes_progress();
    bar.set_length(files.iter().map(|(_, size)| size).sum());
    bar.set_message("writing");
    for (hash, size) in &files {
        let file = source.open(hash)?;
        writer.file(hash, file).map_err(io_failed)?;
        bar.inc(*size);
    }
    bar.finish_and_clear();
    let out = writer.finish().map_err(io_failed)?;
    let fresh = out.into_inner().map_err(|error| io_failed(error.into_error()))?;
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
        some => format!("; {} not here left out", output::counted(some, "file", "files")),
    };
    let files = output::counted(files.len() as u64, "file", "files");
    let (records, bytes) = (HumanCount(records), HumanBytes(bytes));
    let path = path.display().to_string();
    let path = output::plain(&path);
    eprintln!("exported {records} records and {files} of {bytes} to {path}{left_out}");
    Ok(())
}

/// Files by their hashes, with their lengths in bytes.
type Named = Vec<(BlobHash, u64)>;

/// The files to be written, and how many are left out. What is not here is fetched
/// first, so that an archive is not begun that cannot be whole.
fn named_files(
    args: &Export,
    session: &Session,
    source: &mut Source<'_>,
) -> Result<(Named, u64), Failure> {
    let (mut files, mut missing) = (Vec::new(), Vec::new());
    for file in session.ws.files().list()? {
        let FileInfo { hash, size_bytes, is_deleted, is_here, .. } = &file;
        match BlobHash::new(hash) {
            _ if *is_deleted => {}
            Ok(hash) if *is_here => files.push((hash, *size_bytes)),
            Ok(hash) if !args.only_here && source.open(&hash).is_ok() => {
                files.push((hash, *size_bytes));
            }
            _ => missing.push(file.hash),
        }
    }
    match missing.first() {
        Some(first) if !args.only_here => Err(Failure::failed(format!(
            "{} not on this device and could not be fetched ({}, ..): name the server (--server, \
             --token), or leave them out with --only-here",
            match missing.len() {
                1 => "1 file is".to_owned(),
                more => format!("{more} files are"),
            },
            output::plain(first),
        ))),
        _ => Ok((files, missing.len() as u64)),
    }
}
