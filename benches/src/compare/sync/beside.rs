//! Records while a file is uploaded: how long a write takes, on the device and until the server has
//! decided it, beside the same with nothing else to do. The slices take turns, so the disk is the
//! same for both.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lastword::core::id::{Key, TableName};
use lastword::core::json;
use lastword::{Database, Direction, Remote, Workspace};

use super::child::Process;
use crate::Result;
use crate::build::{build_server, server_binary};
use crate::measure::{median, nanoseconds, percentile};
use crate::table::{Report, micros, number};

/// How long a slice lasts at most.
const SLICE: Duration = Duration::from_secs(4);
/// Longest wait for a verdict.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures records beside a file.
#[derive(Debug, clap::Args)]
pub(crate) struct FilesArgs {
    /// Slices of each kind.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..1000))]
    rounds: u16,
    /// Length of the file of each slice, in MiB.
    #[arg(long, default_value_t = 512)]
    mib: usize,
}

/// Latencies of one slice in nanoseconds, ascending.
#[derive(Debug, Default)]
struct Slice {
    local: Vec<u64>,
    decided: Vec<u64>,
    uploaded_bytes: u64,
    elapsed: Duration,
}

pub(crate) fn files(args: &FilesArgs) -> Result<()> {
    build_server()?;
    let dir = tempfile::tempdir()?;
    let mut serve = Command::new(server_binary()?);
    serve.args(["serve", "--dev", "--json", "--listen", "127.0.0.1:0", "--data"]);
    serve.arg(dir.path().join("server"));
    let server = Process::start("server", serve)?;
    let told = server.answer()?;
    let url = told.get("listening").and_then(|url| url.as_str()).ok_or("no address")?.to_owned();
    let db = Database::open(dir.path().join("device"))?;
    let ws = db.workspace("main")?;
    let sync = db.connect(Remote::new(&url)?.token("me"))?;
    sync.attach(&ws)?;
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    // The first of each kind warms up.
    for round in 0..=args.rounds {
        let (quiet, loaded) = match round % 2 {
            0 => (slice(&ws, None)?, upload(&ws, round, args.mib, dir.path())?),
            _ => {
                let loaded = upload(&ws, round, args.mib, dir.path())?;
                (slice(&ws, None)?, loaded)
            }
        };
        if round > 0 {
            idle.push(quiet);
            busy.push(loaded);
        }
    }
    write!(std::io::stdout(), "{}", report(&idle, &busy, args).text())?;
    Ok(())
}

/// A slice while a fresh file is uploaded.
fn upload(ws: &Workspace, round: u16, mib: usize, dir: &Path) -> Result<Slice> {
    let path = dir.join("file");
    std::fs::write(&path, noise(u64::from(round) + 1, mib << 20))?;
    let staged = ws.files().stage(&path)?;
    std::fs::remove_file(&path)?;
    ws.write(|tx| tx.attach(&staged, "application/octet-stream"))?;
    let hash = staged.hash();
    let is_going = || Ok(ws.files().transfer(Direction::Upload, &hash)?.is_some());
    let slice = slice(ws, Some(&is_going))?;
    // The next slice begins when all is quiet.
    while is_going()? {
        let view = ws.read()?;
        let _ = ws.wait_after(&view, Some(LIMIT));
    }
    Ok(Slice { uploaded_bytes: (mib as u64) << 20, ..slice })
}

/// Writes one record after the other for as long as a slice lasts, or the upload does.
fn slice(ws: &Workspace, is_going: Option<&dyn Fn() -> Result<bool>>) -> Result<Slice> {
    let table = TableName::new("notes")?;
    let record = json::parse_record(&format!(r#"{{"text":"{}"}}"#, "x".repeat(200)))?;
    let (begun, mut slice, mut number) = (Instant::now(), Slice::default(), 0_u64);
    while begun.elapsed() < SLICE && is_going.is_none_or(|is_going| is_going().unwrap_or(false)) {
        let key = Key::new(&format!("n{}", number % 1000))?;
        number += 1;
        let at = Instant::now();
        let receipt = ws.write(|tx| tx.put_record(&table, &key, record.clone()))?;
        slice.local.push(nanoseconds(at.elapsed()));
        receipt.wait(Some(LIMIT)).ok_or("no verdict")?;
        slice.decided.push(nanoseconds(at.elapsed()));
    }
    slice.elapsed = begun.elapsed();
    slice.local.sort_unstable();
    slice.decided.sort_unstable();
    Ok(slice)
}

fn report(idle: &[Slice], busy: &[Slice], args: &FilesArgs) -> Report {
    let mut rows = Vec::new();
    for (what, of) in [("on the device", 0), ("until it is decided", 1)] {
        for share in [0.5, 0.99] {
            let at = |slice: &Slice| {
                let sorted = if of == 0 { &slice.local } else { &slice.decided };
                percentile(sorted, share)
            };
            let each = |slices: &[Slice]| slices.iter().map(at).collect::<Vec<u64>>();
            let (quiet, loaded) = (each(idle), each(busy));
            let of_all = |all: &[u64]| median(all.iter().map(|ns| *ns as f64)) as u64;
            let ratio = median(
                loaded.iter().zip(&quiet).map(|(loaded, quiet)| *loaded as f64 / *quiet as f64),
            );
            rows.push(vec![
                format!("{what}, p{}", share * 100.0),
                micros(of_all(&quiet)),
                micros(of_all(&loaded)),
                number(ratio),
            ]);
        }
    }
    let rate =
        median(busy.iter().map(|slice| {
            slice.uploaded_bytes as f64 / slice.elapsed.as_secs_f64().max(0.001) / 1e6
        }));
    let writes: usize = busy.iter().map(|slice| slice.local.len()).sum();
    Report {
        title: "records while a file is uploaded".into(),
        columns: vec!["a write", "idle, us", "uploading, us", "ratio"],
        rows,
        notes: vec![
            format!("{} slices of each kind in turns, medians of the slices' figures", args.rounds),
            format!("goal: p99 within 1.2 of idle; {writes} writes beside uploads"),
            format!("files of {} MiB; in a slice about {} MB/s of them", args.mib, number(rate)),
        ],
        goals: Vec::new(),
    }
}

/// Bytes that nothing compresses and no other slice has.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    // xorshift64 (Marsaglia, 2003).
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}
