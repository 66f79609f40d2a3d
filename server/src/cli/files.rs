//! `files put get list rm undelete status scrub reindex`: bytes with a name.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use lastword::{
    BlobHash, ChunkId, Database, Direction, Error, FileInfo, Files as OfWorkspace, LostPack,
    Receipt, Transfer,
};
use serde_json::json;

use super::args::{Files, FilesAll, FilesOne, FilesReindex, FilesScrub};
use super::failure::Failure;
use super::records::{hash_of, name, tell};
use super::session::Session;
use super::{get, output, put};

pub(super) fn files(args: &Files) -> Result<(), Failure> {
    match args {
        Files::Put(args) => put::put(args),
        Files::Get(args) => get::get(args),
        Files::List(args) => list(args),
        Files::Rm(args) => write(args, |files, hash| files.delete(hash)),
        Files::Undelete(args) => write(args, |files, hash| files.undelete(hash)),
        Files::Status(args) => status(args),
        Files::Scrub(args) => scrub(args),
        Files::Reindex(args) => reindex(args),
        Files::Pause(args) => change(args, "paused", OfWorkspace::pause),
        Files::Resume(args) => change(args, "resumed", OfWorkspace::resume),
        Files::Cancel(args) => change(args, "given up", OfWorkspace::cancel),
        Files::Evict(args) => evict(args),
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
    let is_whole = lost.is_empty() && usage.damaged_chunks == 0;
    let broken = if is_whole { Vec::new() } else { session.ws.files().broken()? };
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
            "broken": broken.iter().map(ToString::to_string).collect::<Vec<_>>(),
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
        for line in damage_lines(usage.damaged_chunks, &lost, &broken) {
            writeln!(out, "{line}")?;
        }
    }
    session.close()?;
    match is_whole {
        true => Ok(()),
        false => Err(Failure::damaged(
            "some stored files are damaged: `files put` them again and they are whole, or put lost \
             packs back from a backup",
        )),
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

fn damage_lines(chunks: u64, lost: &[LostPack], broken: &[BlobHash]) -> Vec<String> {
    let mut lines = Vec::new();
    if chunks > 0 {
        lines.push(format!("DAMAGED  {}", output::counted(chunks, "chunk", "chunks")));
    }
    for LostPack { number, reason, chunks } in lost {
        let chunks = output::counted(*chunks, "chunk", "chunks");
        lines.push(format!("LOST  pack {number:012} with {chunks}: {reason}"));
    }
    lines.extend(broken.iter().map(|hash| format!("BROKEN  {hash}")));
    lines
}

/// Paced so that whoever uses the medium besides hardly notices.
fn scrub(args: &FilesScrub) -> Result<(), Failure> {
    if !args.store.data.join("LOCK").exists() {
        let dir = args.store.data.display();
        return Err(Failure::failed(format!(
            "no store in {dir}: name the --data directory of one"
        )));
    }
    let from = args.from.as_deref().map(|text| {
        let id = ChunkId::read(text);
        id.ok_or_else(|| Failure::usage(format!("{text:?} is no chunk: 64 hexadecimal digits")))
    });
    let mut from = from.transpose()?.unwrap_or(ChunkId([0; 32]));
    let db = Database::open(&args.store.data)?;
    let files = db.workspace(&args.store.workspace)?.files();
    let (begun, mut next) = (Instant::now(), Some(from));
    let (mut chunks, mut bytes, mut damaged, mut lost) = (0, 0, 0, 0);
    let bar = output::bytes_progress();
    bar.set_length(files.usage()?.stored_bytes);
    bar.set_message("scrubbing");
    let second = Duration::from_secs(1);
    while let Some(here) = next.filter(|_| args.time.is_none_or(|time| begun.elapsed() < time)) {
        let step_begun = Instant::now();
        let done = files.scrub(here, args.rate << 20)?;
        chunks += done.chunks;
        bytes += done.bytes;
        damaged += done.damaged.len() as u64;
        lost += done.lost;
        next = done.next;
        from = next.unwrap_or(from);
        bar.set_position(bytes);
        // A step may read fewer bytes than a second allows.
        let allowed = second.mul_f64(done.bytes as f64 / (args.rate << 20) as f64).min(second);
        if next.is_some() {
            std::thread::sleep(allowed.saturating_sub(step_begun.elapsed()));
        }
    }
    bar.finish_and_clear();
    let broken = if damaged + lost > 0 { files.broken()? } else { Vec::new() };
    let mut out = io::stdout().lock();
    if args.store.json {
        let broken: Vec<_> = broken.iter().map(ToString::to_string).collect();
        let line = json!({
            "chunks": chunks, "bytes": bytes, "damaged": damaged, "lost": lost, "broken": broken,
            "next": next.map(|_| from.to_string()),
        });
        writeln!(out, "{line}")?;
    } else {
        let read = output::counted(chunks, "chunk", "chunks");
        let (size, took) = (HumanBytes(bytes), output::took(begun.elapsed()));
        writeln!(out, "read {read} of {size} ({took}): {damaged} damaged, {lost} in lost packs")?;
        broken.iter().try_for_each(|hash| writeln!(out, "BROKEN  {hash}"))?;
        if next.is_some() {
            writeln!(out, "go on with: lastword files scrub --from {from}")?;
        }
    }
    db.close()?;
    match damaged + lost {
        0 => Ok(()),
        _ => Err(Failure::damaged("some chunks are damaged: `files put` their files again")),
    }
}

fn reindex(args: &FilesReindex) -> Result<(), Failure> {
    let report = lastword::reindex(&args.store.data, &mut |_| {})?;
    let mut out = io::stdout().lock();
    if args.store.json {
        let incomplete: Vec<_> = report.incomplete.iter().map(ToString::to_string).collect();
        let line = json!({
            "packs": report.packs, "foreign_packs": report.foreign_packs,
            "unreadable_packs": report.unreadable_packs, "chunks": report.chunks,
            "damages": report.damages, "files": report.files, "dropped": report.dropped,
            "incomplete": incomplete,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{} read: {} and {} are here again; {} had been dropped and stay so",
        output::counted(report.packs, "pack", "packs"),
        output::counted(report.files, "file", "files"),
        output::counted(report.chunks, "chunk", "chunks"),
        output::counted(report.dropped, "file", "files"),
    )?;
    for hash in &report.incomplete {
        writeln!(out, "INCOMPLETE  {hash}: chunks of it are missing; `files put` it again")?;
    }
    for (count, what) in [
        (report.damages, "places in packs are damaged"),
        (report.unreadable_packs, "packs cannot be read: their beginning is damaged"),
        (report.foreign_packs, "packs are of another store and were left alone"),
    ] {
        if count > 0 {
            writeln!(out, "{count} {what}")?;
        }
    }
    Ok(())
}
