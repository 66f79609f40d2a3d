//! One thread in front of an engine: it commits what is queued as one transaction, then answers.
//!
//! In front of our store it is what the engine's writer thread is: a queue, one group of all that
//! waited, one sync, the answers.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::Result;
use crate::engines::{Engine, OwnWriter};
use crate::measure::{Slice, nanoseconds};
use crate::rows::{Row, Rows};

/// Most rows that wait, and most in one transaction.
const MAX_GROUP: usize = 4096;

struct Request {
    row: Row,
    /// Dropped without an answer if the commit failed.
    answer: SyncSender<()>,
}

/// `writers` threads, each with one durable write at a time, for as long as `slice`.
pub(crate) fn write_from_many(
    engine: &mut dyn Engine,
    writers: u64,
    slice: Duration,
    rows: &mut Rows,
) -> Result<Slice> {
    match engine.own_writer() {
        Some(write) => by_itself(&write, writers, slice, rows),
        None => behind_a_committer(engine, writers, slice, rows),
    }
}

fn by_itself(write: &OwnWriter, writers: u64, slice: Duration, rows: &mut Rows) -> Result<Slice> {
    let until = Instant::now() + slice;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                let rows = rows.split();
                scope.spawn(move || write_until(until, rows, write))
            })
            .collect();
        join(threads)
    })
}

fn behind_a_committer(
    engine: &mut dyn Engine,
    writers: u64,
    slice: Duration,
    rows: &mut Rows,
) -> Result<Slice> {
    let (queue, queued) = sync_channel::<Request>(MAX_GROUP);
    let until = Instant::now() + slice;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                let (queue, rows) = (queue.clone(), rows.split());
                scope.spawn(move || {
                    let write = |row| {
                        let (answer, answered) = sync_channel(1);
                        queue.send(Request { row, answer })?;
                        Ok(answered.recv()?)
                    };
                    write_until(until, rows, &write)
                })
            })
            .collect();
        drop(queue);
        let committed = commit_all(engine, &queued);
        // Whoever still waits for an answer must not wait for ever.
        drop(queued);
        let slice = join(threads);
        committed.and(slice)
    })
}

fn commit_all(engine: &mut dyn Engine, queued: &Receiver<Request>) -> Result<()> {
    let (mut rows, mut answers) = (Vec::new(), Vec::new());
    loop {
        match queued.recv_timeout(Duration::from_secs(30)) {
            Ok(request) => {
                rows.push(request.row);
                answers.push(request.answer);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => return Err("no writer asks any more".into()),
        }
        while let (true, Ok(request)) = (rows.len() < MAX_GROUP, queued.try_recv()) {
            rows.push(request.row);
            answers.push(request.answer);
        }
        engine.commit(&rows)?;
        rows.clear();
        for answer in answers.drain(..) {
            answer.send(())?;
        }
        engine.after_answer()?;
    }
}

fn write_until<W>(until: Instant, mut rows: Rows, write: &W) -> Result<Slice>
where
    W: Fn(Row) -> Result<()> + ?Sized,
{
    let mut slice = Slice::default();
    loop {
        let begun = Instant::now();
        if begun >= until {
            return Ok(slice);
        }
        write(rows.next())?;
        slice.latencies.push(nanoseconds(begun.elapsed()));
        slice.ops += 1;
    }
}

fn join(threads: Vec<std::thread::ScopedJoinHandle<'_, Result<Slice>>>) -> Result<Slice> {
    let mut all = Slice::default();
    for thread in threads {
        let slice = match thread.join() {
            Ok(slice) => slice?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        all.ops += slice.ops;
        all.latencies.extend(slice.latencies);
    }
    Ok(all)
}
