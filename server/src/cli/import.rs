//! `import`: records from JSON lines, in atomic batches.
//!
//! The whole input is checked before the first write, so a mistyped file changes nothing. A line
//! that asks for what is stored already is skipped, and so are all lines of a record that is
//! deleted and whose last line deletes it: running the same import again resumes it.

use std::cell::Cell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar};
use lastword::core::id::{Key, TableName};
use lastword::{Error, SyncReport, WorkspaceView};
use serde_json::json;

use super::args::Import;
use super::failure::Failure;
use super::lines::{BATCH_BYTES, Edit, Input, Line};
use super::output;
use super::session::{Connection, Session};
use super::{put, transfers, unpack};

/// Most bad lines that are listed when nothing is written because of them.
const MAX_LISTED: u64 = 20;
/// How long a full outbox may take to drain a little.
const DRAIN: Duration = Duration::from_secs(60);

pub(super) fn import(args: &Import) -> Result<(), Failure> {
    let mut input = Input::open(&args.file)?;
    let mut bad = BadLines { keep_going: args.keep_going, ..BadLines::default() };
    let checked = check(&mut input, &mut bad)?;
    bad.stop(&input.name)?;
    let session = Session::open(&args.store, &args.link)?;
    let mut deleted = BTreeSet::new();
    if checked.has_edits {
        deleted = check_edits(&mut input, &session.ws.read()?, &mut bad)?;
        bad.stop(&input.name)?;
    }
    let name = input.name.clone();
    let staged = match input.archive() {
        Some(archive) => Some(unpack::stage(&session, archive, &name)?),
        None => None,
    };
    let connection = session.connect()?;
    let bar = output::progress(checked.lines, "writing");
    let mut writer = BatchWriter {
        session: &session,
        connection,
        deleted,
        max_ops: args.batch,
        view: session.ws.read()?,
        batch: Vec::new(),
        names: BTreeSet::new(),
        size_bytes: 0,
        done: Done::default(),
        bad,
        bar,
        brings_files: staged.is_some(),
        input: name,
    };
    let begun = Instant::now();
    input.visit(&mut |number, line| match line {
        Ok(line) => writer.line(number, line),
        Err(_) => Ok(()),
    })?;
    writer.flush()?;
    writer.bar.finish_and_clear();
    let (done, skipped, connection) = (writer.done, writer.bad.count, writer.connection);
    let written = begun.elapsed();
    let files = match (staged, input.archive()) {
        (Some(staged), Some((_, archive))) => Some(unpack::attach(&session, &staged, archive)?),
        _ => None,
    };
    // Those that are on their way from now on, and those that may have gone already.
    let mut before = transfers::uploads(&session)?;
    before.extend(files.iter().flatten().cloned());
    let files = files.map(|files| files.len() as u64);
    let settled = settle(args, &session, connection, begun)?;
    let must_upload = files.is_some() && matches!(settled, Outcome::Settled(_));
    let told = tell(args, &session, &Told { done, skipped, written, files, settled });
    let uploaded =
        if must_upload { put::upload(&session, args.store.json, &before) } else { Ok(()) };
    session.close()?;
    told?;
    uploaded
}

#[derive(Default)]
struct BadLines {
    keep_going: bool,
    count: u64,
    lines: BTreeSet<u64>,
}

impl BadLines {
    fn add(&mut self, input: &str, number: u64, reason: &str) {
        if !self.lines.insert(number) {
            return;
        }
        self.count += 1;
        if self.keep_going || self.count <= MAX_LISTED {
            eprintln!("{input}:{number}: {}", output::plain(reason));
        }
    }

    /// Ends the import if there were bad lines and the user did not ask to go on.
    fn stop(&self, input: &str) -> Result<(), Failure> {
        if self.count == 0 || self.keep_going {
            return Ok(());
        }
        let bad = output::counted(self.count, "bad line", "bad lines");
        Err(Failure::failed(format!(
            "{bad} in {input}, nothing was written: correct the file, or skip bad lines with \
             --keep-going"
        )))
    }
}

struct Checked {
    lines: u64,
    has_edits: bool,
}

/// Whether every line can be read and is within the limits.
fn check(input: &mut Input, bad: &mut BadLines) -> Result<Checked, Failure> {
    let mut checked = Checked { lines: 0, has_edits: false };
    let name = input.name.clone();
    input.visit(&mut |number, line| {
        match line {
            Ok(line) => {
                checked.lines += 1;
                checked.has_edits |= !matches!(line.edit, Edit::Put(_));
            }
            Err(reason) => bad.add(&name, number, &reason),
        }
        Ok(())
    })?;
    Ok(checked)
}

type Name = (TableName, Key);

/// What the lines of a record do to it.
struct Course {
    was_deleted: bool,
    live: Option<bool>,
    ends_deleted: bool,
    /// Lines that find no record to change.
    faults: Vec<(u64, String)>,
}

/// Whether every patch and undelete will find a record, counting what earlier lines do. Answers the
/// records that are deleted and end so: nothing of theirs is left to do.
fn check_edits(
    input: &mut Input,
    view: &WorkspaceView,
    bad: &mut BadLines,
) -> Result<BTreeSet<Name>, Failure> {
    let mut records: BTreeMap<Name, Course> = BTreeMap::new();
    let name = input.name.clone();
    input.visit(&mut |number, line| {
        let Ok(Line { table, key, edit }) = line else { return Ok(()) };
        let course = match records.entry((table.clone(), key.clone())) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let live = view.is_live(&table, &key)?;
                let (was_deleted, ends_deleted) = (live == Some(false), false);
                new.insert(Course { was_deleted, live, ends_deleted, faults: Vec::new() })
            }
        };
        course.ends_deleted = edit == Edit::Delete;
        match (edit, course.live) {
            (Edit::Patch { .. }, Some(true)) => {}
            (Edit::Patch { .. }, _) => {
                course.faults.push((number, format!("there is no {table}/{key} to patch")));
            }
            (Edit::Undelete, None) => {
                course.faults.push((number, format!("{table}/{key} was never deleted")));
            }
            (Edit::Put(_) | Edit::Undelete, _) => course.live = Some(true),
            (Edit::Delete, live) => course.live = live.map(|_| false),
        }
        Ok(())
    })?;
    let mut deleted = BTreeSet::new();
    let mut faults = BTreeMap::new();
    for (record, course) in records {
        match course.was_deleted && course.ends_deleted {
            true => drop(deleted.insert(record)),
            false => faults.extend(course.faults),
        }
    }
    for (number, reason) in faults {
        bad.add(&name, number, &reason);
    }
    Ok(deleted)
}

#[derive(Debug, Clone, Copy, Default)]
struct Done {
    written: u64,
    unchanged: u64,
    batches: u64,
}

struct BatchWriter<'a> {
    session: &'a Session,
    connection: Option<Connection>,
    /// Records that are deleted and whose last line deletes them.
    deleted: BTreeSet<Name>,
    max_ops: usize,
    /// As of the last batch: the batch in the making names each record once, so it holds for it.
    view: WorkspaceView,
    batch: Vec<(u64, Line)>,
    names: BTreeSet<Name>,
    size_bytes: usize,
    done: Done,
    bad: BadLines,
    bar: ProgressBar,
    /// It is an archive: where the files are is not what its rows say.
    brings_files: bool,
    input: String,
}

impl BatchWriter<'_> {
    fn line(&mut self, number: u64, mut line: Line) -> Result<(), Failure> {
        if self.bad.lines.contains(&number) {
            return Ok(());
        }
        let name = (line.table.clone(), line.key.clone());
        let size_bytes = line.size_bytes();
        let full = self.batch.len() >= self.max_ops || self.size_bytes + size_bytes > BATCH_BYTES;
        if full || self.names.contains(&name) {
            self.flush()?;
        }
        let live = self.view.get_record(&line.table, &line.key)?;
        let live = live.map(|shown| shown.record);
        if self.brings_files {
            unpack::forget_storage(&mut line, live.as_ref());
        }
        let is_over = live.is_none() && self.deleted.contains(&name);
        if is_over || line.is_done(live.as_ref()) {
            self.done.unchanged += 1;
            self.bar.inc(1);
            return Ok(());
        }
        self.names.insert(name);
        self.size_bytes += size_bytes;
        self.batch.push((number, line));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let mut full_since = None;
        while !self.batch.is_empty() {
            let failed = Cell::new(0);
            let written = self.session.ws.write(|tx| {
                self.batch.iter().enumerate().try_for_each(|(at, (_, line))| {
                    failed.set(at);
                    line.write(tx)
                })
            });
            match written {
                Ok(_) => break,
                Err(full @ Error::OutboxFull { .. }) if self.connection.is_some() => {
                    let since = *full_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > DRAIN {
                        return Err(self.stopped(&full.to_string()));
                    }
                    let view = self.session.ws.read()?;
                    let _ = self.session.ws.wait_after(&view, Some(Duration::from_millis(100)));
                }
                Err(
                    error @ (Error::Value(_)
                    | Error::Batch(_)
                    | Error::Record { .. }
                    | Error::NotFound { .. }
                    | Error::NotDeleted { .. }),
                ) if self.bad.keep_going => {
                    let (number, _) = self.batch.remove(failed.get());
                    self.bad.add(&self.input, number, &error.to_string());
                }
                Err(error) => {
                    let number = self.batch.get(failed.get()).map_or(0, |(number, _)| *number);
                    return Err(self.stopped(&format!("line {number}: {error}")));
                }
            }
        }
        self.done.written += self.batch.len() as u64;
        self.done.batches += u64::from(!self.batch.is_empty());
        self.bar.inc(self.batch.len() as u64);
        self.batch.clear();
        self.names.clear();
        self.size_bytes = 0;
        self.view = self.session.ws.read()?;
        if let Some(connection) = &mut self.connection {
            connection.look(self.session)?;
        }
        Ok(())
    }

    fn stopped(&self, reason: &str) -> Failure {
        let written = output::records(self.done.written);
        Failure::failed(format!(
            "{}: {reason}; {written} before it are written, run the import again to go on",
            self.input
        ))
    }
}

/// What is known of the server's verdicts at the end.
enum Outcome {
    Settled(SyncReport),
    /// Why the outbox still waits.
    Waiting(String),
}

/// With `--server` or `--wait` all is settled in the end; else the server is given a glance.
fn settle(
    args: &Import,
    session: &Session,
    connection: Option<Connection>,
    begun: Instant,
) -> Result<Outcome, Failure> {
    let must = args.link.server.is_some() || args.link.wait;
    let Some(mut connection) = connection else {
        let why = "no server known (--server URL --token TOKEN)";
        return match args.link.wait {
            true => Err(Failure::usage(why)),
            false => Ok(Outcome::Waiting(why.into())),
        };
    };
    let bar = output::progress(session.waiting()?, "settling");
    let total = session.waiting()?;
    let timeout = if must { session.timeout() } else { Some(Duration::from_secs(1)) };
    let report = connection.wait_caught_up(session, timeout, &mut |_| {
        if let Ok(waiting) = session.waiting() {
            bar.set_position(total.saturating_sub(waiting));
        }
    });
    bar.finish_and_clear();
    match report {
        Ok(report) => Ok(Outcome::Settled(SyncReport { elapsed: begun.elapsed(), ..report })),
        Err(failure) if must => Err(failure),
        Err(failure) => Ok(Outcome::Waiting(failure.message)),
    }
}

struct Told {
    done: Done,
    skipped: u64,
    written: Duration,
    /// Files of an archive that were stored and named.
    files: Option<u64>,
    settled: Outcome,
}

fn tell(args: &Import, session: &Session, told: &Told) -> Result<(), Failure> {
    let Told { done, skipped, written, files, settled } = told;
    let waiting = session.waiting()?;
    eprintln!(
        "imported {}, in {}; {} unchanged{}",
        output::records_and_rate(done.written, *written),
        output::batches(done.batches),
        HumanCount(done.unchanged),
        if *skipped > 0 { format!(", {} bad", HumanCount(*skipped)) } else { String::new() },
    );
    if let Some(files) = files {
        eprintln!("stored {}", output::counted(*files, "file", "files"));
    }
    let mut line = json!({
        "written": done.written, "unchanged": done.unchanged, "bad": skipped,
        "batches": done.batches, "seconds": written.as_secs_f64(),
        "records_per_second": output::rate(done.written, *written), "outbox": waiting,
        "files": files,
    });
    let mut refused = 0;
    match settled {
        Outcome::Settled(report) => {
            refused = report.refused;
            eprintln!(
                "settled {}: {} applied, {} with a superseded op, {} refused",
                output::records_and_rate(done.written, report.elapsed),
                output::batches(report.applied),
                HumanCount(report.superseded),
                HumanCount(report.refused),
            );
            line["settled"] = json!({
                "seconds": report.elapsed.as_secs_f64(),
                "records_per_second": output::rate(done.written, report.elapsed),
                "applied": report.applied, "superseded": report.superseded,
                "refused": report.refused, "cursor": report.cursor,
            });
        }
        Outcome::Waiting(why) => {
            eprintln!("outbox {}; {}", output::batches(waiting), output::plain(why));
            line["why"] = json!(why);
        }
    }
    // A reader that went away must not hide that something was refused.
    let printed = match args.store.json {
        true => writeln!(std::io::stdout().lock(), "{}", output::json_line(&line.to_string())),
        false => Ok(()),
    };
    match (refused, *skipped) {
        (0, 0) => Ok(printed?),
        (0, bad) => {
            Err(Failure::failed(format!("{} skipped", output::counted(bad, "line", "lines"))))
        }
        (refused, _) => Err(Failure::failed(format!(
            "{} refused: `lastword dead-letters` says why",
            output::batches(refused)
        ))),
    }
}
