//! `files put get list rm undelete status`: bytes with a name.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use indicatif::HumanBytes;
use lastword::store::BlobError;
use lastword::{
    BlobHash, Direction, Error, FileInfo, FileReader, Files as OfWorkspace, LostPack, Receipt,
    Transfer,
};
use serde_json::json;

use super::args::{Files, FilesAll, FilesGet, FilesOne, FilesPut};
use super::failure::Failure;
use super::output;
use super::records::{name, tell};
use super::session::{Fate, Session};
use super::transfers;

pub(super) fn files(args: &Files) -> Result<(), Failure> {
    match args {
        Files::Put(args) => put(args),
        Files::Get(args) => get(args),
        Files::List(args) => list(args),
        Files::Rm(args) => write(args, |files, hash| files.delete(hash)),
        Files::Undelete(args) => write(args, |files, hash| files.undelete(hash)),
        Files::Status(args) => status(args),
        Files::Pause(args) => change(args, "paused", OfWorkspace::pause),
        Files::Resume(args) => change(args, "resumed", OfWorkspace::resume),
        Files::Cancel(args) => change(args, "given up", OfWorkspace::cancel),
        Files::Evict(args) => evict(args),
    }
}

fn put(args: &FilesPut) -> Result<(), Failure> {
    let named = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let file_name = args.name.clone().or(named).unwrap_or_default();
    let (from, total): (Box<dyn Read>, u64) = match args.file.to_str() {
        Some("-") => (Box::new(io::stdin().lock()), 0),
        _ => {
            let file = File::open(&args.file).map_err(|error| at(&args.file, &error))?;
            let about = file.metadata().map_err(|error| at(&args.file, &error))?;
            if about.is_dir() {
                let path = args.file.display();
                return Err(Failure::failed(format!("{path} is a directory: name a file")));
            }
            (Box::new(file), about.len())
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
    let connection = session.connect()?;
    let receipt = session.ws.write(|tx| tx.attach(&staged, &args.mime))?;
    let fate = session.fate(connection, &receipt)?;
    let hash = staged.hash().to_string();
    if args.store.json {
        let line = json!({
            "hash": hash, "name": file_name, "size_bytes": staged.size_bytes(),
            "new_bytes": staged.new_bytes, "ms": begun.elapsed().as_secs_f64() * 1000.0,
        });
        writeln!(io::stdout(), "{}", output::json_line(&line.to_string()))?;
    } else {
        let (size, new) = (HumanBytes(staged.size_bytes()), HumanBytes(staged.new_bytes));
        let text = format!("{hash} {file_name}: {size}, {new} of it new");
        writeln!(io::stdout(), "{}", output::plain(&text))?;
    }
    let told =
        tell(&session.ws, args.store.json, &name("file_meta", &hash)?, &fate, begun.elapsed());
    let uploaded = match fate {
        Fate::Decided(_) => upload(&session, args.store.json),
        _ => Ok(()),
    };
    session.close()?;
    told?;
    uploaded
}

/// Uploads what waits, where there is a server.
fn upload(session: &Session, json: bool) -> Result<(), Failure> {
    let Some(mut connection) = session.connect()? else { return Ok(()) };
    let uploaded = transfers::wait_uploads(session, &mut connection, session.link.timeout)?;
    if json {
        writeln!(io::stdout(), "{}", json!({ "uploaded_files": uploaded }))?;
    } else {
        let files = output::counted(uploaded, "file", "files");
        writeln!(io::stdout(), "uploaded {files}")?;
    }
    Ok(())
}

fn get(args: &FilesGet) -> Result<(), Failure> {
    let hash = hash_of(&args.hash)?;
    let session = Session::open_to_read(&args.store, &args.link)?;
    let mut file = match session.ws.files().open(&hash) {
        Err(Error::Blob(BlobError::Missing { .. })) if session.knows_server() => {
            let mut connection = session.connect_for_sure()?;
            transfers::download(&session, &mut connection, args.link.timeout, &hash)?;
            session.ws.files().open(&hash)?
        }
        opened => opened?,
    };
    let size = file.size_bytes();
    match &args.out {
        None => copy(&mut file, &mut io::stdout().lock(), None)?,
        Some(path) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let mut fresh = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
                .map_err(|error| at(path, &error))?;
            copy(&mut file, fresh.as_file_mut(), Some(path))?;
            fresh.persist(path).map_err(|error| at(path, &error.error))?;
            if args.store.json {
                let line = json!({ "hash": args.hash, "size_bytes": size, "out": path });
                writeln!(io::stdout(), "{}", output::json_line(&line.to_string()))?;
            } else {
                let text = format!("wrote {}: {}", path.display(), HumanBytes(size));
                writeln!(io::stdout(), "{}", output::plain(&text))?;
            }
        }
    }
    drop(file);
    session.close()
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

fn list(args: &FilesAll) -> Result<(), Failure> {
    let session = Session::open_to_read(&args.store, &args.link)?;
    let mut out = io::stdout().lock();
    for file in session.ws.files().list()? {
        let line = if args.store.json { as_json(&file) } else { as_text(&file) };
        writeln!(out, "{line}")?;
    }
    session.close()
}

fn as_json(file: &FileInfo) -> String {
    let line = json!({
        "hash": file.hash, "name": file.name, "mime_type": file.mime_type,
        "size_bytes": file.size_bytes, "deleted": file.is_deleted, "here": file.is_here,
        "uploaded": file.is_uploaded,
    });
    output::json_line(&line.to_string()).into_owned()
}

fn as_text(file: &FileInfo) -> String {
    let state = match (file.is_deleted, file.is_here, file.is_uploaded) {
        (true, ..) => ", deleted",
        (false, true, true) => "",
        (false, true, false) => ", not at the server yet",
        (false, false, true) => ", at the server",
        (false, false, false) => ", neither here nor at the server yet",
    };
    let (hash, size, name) = (&file.hash, HumanBytes(file.size_bytes), &file.name);
    output::plain(&format!("{hash} {name}: {size}{state}")).into_owned()
}

fn write(
    args: &FilesOne,
    edit: impl Fn(&OfWorkspace, &BlobHash) -> lastword::Result<Receipt>,
) -> Result<(), Failure> {
    let hash = BlobHash::read(&args.hash).map_err(|error| Failure::usage(error.to_string()))?;
    let session = Session::open(&args.store, &args.link)?;
    let connection = session.connect()?;
    let begun = Instant::now();
    let receipt = edit(&session.ws.files(), &hash)?;
    let fate = session.fate(connection, &receipt)?;
    let name = name("file_meta", &hash.to_string())?;
    let told = tell(&session.ws, args.store.json, &name, &fate, begun.elapsed());
    session.close()?;
    told
}

/// Says in the row of a file's transfer what the user wants; that of its upload if it has one.
fn change(
    args: &FilesOne,
    what: &str,
    apply: impl Fn(&OfWorkspace, Direction, &BlobHash) -> lastword::Result<()>,
) -> Result<(), Failure> {
    let hash = hash_of(&args.hash)?;
    let session = Session::open_to_read(&args.store, &args.link)?;
    let files = session.ws.files();
    let direction = match files.transfer(Direction::Upload, &hash)? {
        Some(_) => Direction::Upload,
        None => Direction::Download,
    };
    match apply(&files, direction, &hash) {
        Err(Error::NotFound { .. }) => {
            return Err(Failure::failed(format!("{hash} is not on its way: nothing to change")));
        }
        done => done?,
    }
    if args.store.json {
        writeln!(io::stdout(), "{}", json!({ "hash": args.hash, "direction": direction }))?;
    } else {
        writeln!(io::stdout(), "{direction} of {hash} {what}")?;
    }
    session.close()
}

fn evict(args: &FilesOne) -> Result<(), Failure> {
    let hash = hash_of(&args.hash)?;
    let session = Session::open_to_read(&args.store, &args.link)?;
    session.ws.files().evict(&hash)?;
    if args.store.json {
        writeln!(io::stdout(), "{}", json!({ "hash": args.hash, "here": false }))?;
    } else {
        writeln!(io::stdout(), "{hash} evicted; `lastword gc` frees its room")?;
    }
    session.close()
}

fn status(args: &FilesAll) -> Result<(), Failure> {
    let session = Session::open_to_read(&args.store, &args.link)?;
    let (usage, lost) = (session.ws.files().usage()?, session.ws.files().lost_packs()?);
    let mut out = io::stdout().lock();
    for transfer in session.ws.files().transfers()? {
        let line = if args.store.json { row_json(&transfer) } else { row_text(&transfer) };
        writeln!(out, "{line}")?;
    }
    if args.store.json {
        let line = json!({
            "files": usage.files, "file_bytes": usage.file_bytes, "chunks": usage.chunks,
            "stored_bytes": usage.stored_bytes, "dead_bytes": usage.dead_bytes,
            "packs": usage.packs, "damaged_chunks": usage.damaged_chunks,
            "lost_packs": lost.iter().map(|pack| json!({
                "pack": pack.number, "reason": pack.reason, "chunks": pack.chunks,
            })).collect::<Vec<_>>(),
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "{} of {} in {}; they take {} in {}, and {} there are dead",
            output::counted(usage.files, "file", "files"),
            HumanBytes(usage.file_bytes),
            output::counted(usage.chunks, "chunk", "chunks"),
            HumanBytes(usage.stored_bytes),
            output::counted(usage.packs, "pack", "packs"),
            HumanBytes(usage.dead_bytes),
        )?;
        if usage.damaged_chunks > 0 {
            let chunks = output::counted(usage.damaged_chunks, "chunk", "chunks");
            writeln!(out, "DAMAGED  {chunks}: `files put` their files again, or restore a backup")?;
        }
        for LostPack { number, reason, chunks } in &lost {
            let chunks = output::counted(*chunks, "chunk", "chunks");
            writeln!(
                out,
                "LOST  pack {number:012} with {chunks} ({reason}): put it back from a backup, or \
                 `files put` their files again",
            )?;
        }
    }
    session.close()?;
    match lost.is_empty() && usage.damaged_chunks == 0 {
        true => Ok(()),
        false => Err(Failure::damaged("some stored files cannot be read")),
    }
}

fn row_json(transfer: &Transfer) -> String {
    let line = json!({
        "hash": transfer.hash, "direction": transfer.direction, "state": transfer.state,
        "bytes_done": transfer.bytes_done, "bytes_total": transfer.bytes_total,
        "attempts": transfer.attempts, "last_error": transfer.last_error,
    });
    output::json_line(&line.to_string()).into_owned()
}

fn row_text(transfer: &Transfer) -> String {
    let Transfer { hash, direction, state, bytes_done, bytes_total, .. } = transfer;
    let (done, total) = (HumanBytes(*bytes_done), HumanBytes(*bytes_total));
    let mut line = format!("{direction} of {hash} {state}: {done} of {total}");
    if transfer.attempts > 0 {
        let attempts = output::counted(transfer.attempts, "attempt", "attempts");
        line.push_str(&format!(", {attempts}"));
    }
    if let Some(error) = &transfer.last_error {
        line.push_str(&format!("; {error}"));
    }
    output::plain(&line).into_owned()
}

fn hash_of(text: &str) -> Result<BlobHash, Failure> {
    BlobHash::new(text).map_err(|error| Failure::usage(error.to_string()))
}

fn at(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}
