//! The tables and goals.

use super::bare::Bare;
use super::process::Took;
use super::scenes::Round;
use super::tools::Tool;
use super::{BlobsArgs, Measured};
use crate::measure::{median, ratio};
use crate::table::{Bound, Goal, Report, number};

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn report(args: &BlobsArgs, measured: &Measured) -> Vec<Report> {
    let mut tools = tools_table(measured);
    let mut alone = alone_table(measured);
    tools.goals = tool_goals(measured);
    alone.goals = alone_goals(measured);
    vec![settings(args, measured), tools, alone]
}

fn rounds(measured: &Measured, tool: Tool) -> Option<&[Round]> {
    let found = measured.tools.iter().find(|(one, _)| *one == tool)?;
    found.1.as_deref().ok().filter(|rounds| !rounds.is_empty())
}

fn of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

fn settings(args: &BlobsArgs, measured: &Measured) -> Report {
    let rows = measured.tools.iter().map(|(tool, _)| {
        let version = tool.version().unwrap_or_else(|_| "-".into());
        vec![tool.name().to_owned(), version, tool.settings().to_owned()]
    });
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (bytes, files) = (number(measured.data.bytes as f64 / MIB), measured.data.files);
    let mut notes = vec![
        format!("{bytes} MiB in {files} files, {} rounds, peers from Debian", args.rounds),
        format!(
            "files in {} (TMPDIR moves them), {processors} processors, load at the end {load}",
            std::env::temp_dir().display()
        ),
    ];
    notes.extend(measured.tools.iter().filter_map(|(tool, rounds)| {
        Some(format!("{} was not measured: {}", tool.name(), rounds.as_ref().err()?))
    }));
    Report {
        title: "settings".into(),
        columns: vec!["tool", "version", "does"],
        rows: rows.collect(),
        notes,
        ..Report::default()
    }
}

fn tools_table(measured: &Measured) -> Report {
    let all = measured.data.bytes as f64 / 1e6;
    let rows = measured.tools.iter().map(|(tool, rounds)| {
        let Some(rounds) = rounds.as_ref().ok().filter(|rounds| !rounds.is_empty()) else {
            let cells = vec!["-".to_owned(); 11];
            return std::iter::once(tool.name().to_owned()).chain(cells).collect();
        };
        let middle = |figure: fn(&Round) -> f64| median(of(rounds, figure));
        let out = middle(|round| round.restored_bytes) / 1e6;
        vec![
            tool.name().to_owned(),
            number(middle(|round| round.ingest.cpu_s) * 1000.0 / all),
            number(middle(|round| round.ingest.wall_s) * 1000.0 / all),
            number(middle(|round| round.ingest.peak_bytes) / MIB),
            number(middle(|round| round.stored_bytes) / MIB),
            number(middle(|round| round.stored_files)),
            number(middle(|round| round.again.cpu_s)),
            number(middle(|round| round.again.wall_s)),
            number(middle(|round| round.restore.cpu_s) * 1000.0 / out),
            number(middle(|round| round.restore.wall_s) * 1000.0 / out),
            number(middle(|round| round.restore.peak_bytes) / MIB),
            number(middle(|round| round.restored_files)),
        ]
    });
    Report {
        title: "store, store again unchanged, write back".into(),
        columns: vec![
            "tool",
            "CPU ms/MB",
            "wall",
            "peak MiB",
            "stored MiB",
            "files",
            "again CPU s",
            "wall",
            "back CPU ms/MB",
            "wall",
            "peak MiB",
            "files",
        ],
        rows: rows.collect(),
        notes: vec![
            "CPU: user and system, all threads; MB: a million bytes that went in, or came back"
                .into(),
            "stored after both runs, lengths of files; Lastword writes equal files back once"
                .into(),
            "written back to memory; every byte was compared, after the clock had stopped".into(),
        ],
        goals: Vec::new(),
    }
}

fn alone_table(measured: &Measured) -> Report {
    let mut rows = Vec::new();
    for (at, (name, _)) in measured.bare.first().into_iter().flatten().enumerate() {
        let middle = |figure: fn(&Bare) -> f64| {
            median(measured.bare.iter().filter_map(|round| round.get(at)).map(figure))
        };
        let (cpu, wall) = (middle(|bare| bare.1.cpu), middle(|bare| bare.1.wall));
        rows.push(vec![
            (*name).to_owned(),
            number(cpu * 1000.0),
            number(wall * 1000.0),
            "-".into(),
        ]);
    }
    let million = measured.noise_bytes / 1e6;
    let mut ours = |name: String, million: f64, took: Vec<Took>| {
        let middle = |figure: fn(&Took) -> f64| median(took.iter().map(figure));
        rows.push(vec![
            name,
            number(middle(|took| took.cpu_s) * 1000.0 / million),
            number(middle(|took| took.wall_s) * 1000.0 / million),
            number(middle(|took| took.peak_bytes) / MIB),
        ]);
    };
    for (at, name) in ["lastword, to disk", "lastword, to memory"].into_iter().enumerate() {
        let took = measured.noise.iter().filter_map(|round| round.get(at)).copied();
        ours(name.to_owned(), million, took.collect());
    }
    for (mib, took) in &measured.flat {
        let million = *mib as f64 * MIB / 1e6;
        ours(format!("lastword, one file of {mib} MiB"), million, vec![*took]);
    }
    Report {
        title: "one file that cannot be compressed".into(),
        columns: vec!["what", "CPU ms/MB", "wall", "peak MiB"],
        rows,
        notes: vec![
            "hashes and chunker: one thread, bytes in memory; lastword: the whole process".into(),
        ],
        goals: Vec::new(),
    }
}

fn at_most(what: &str, most: f64, unit: &'static str, figure: f64) -> Goal {
    Goal { what: what.into(), bound: Bound::AtMost(most), unit, store: figure, device: None }
}

fn tool_goals(measured: &Measured) -> Vec<Goal> {
    let Some(ours) = rounds(measured, Tool::Lastword) else { return Vec::new() };
    let by = |peer: Tool, figure: fn(&Round) -> f64| {
        rounds(measured, peer).map(|theirs| ratio(&of(ours, figure), &of(theirs, figure)))
    };
    let cpu_back = |round: &Round| round.restore.cpu_s / round.restored_bytes;
    let goals = [
        ("ingest CPU / borg", 0.8, by(Tool::Borg, |round| round.ingest.cpu_s)),
        ("stored bytes / casync", 1.0, by(Tool::Casync, |round| round.stored_bytes)),
        ("peak memory of ingest / borg", 0.5, by(Tool::Borg, |round| round.ingest.peak_bytes)),
        ("restore CPU per MB / casync", 1.0, by(Tool::Casync, cpu_back)),
        ("CPU of an unchanged run / restic", 1.0, by(Tool::Restic, |round| round.again.cpu_s)),
        ("wall of an unchanged run / restic", 1.0, by(Tool::Restic, |round| round.again.wall_s)),
    ];
    let met = goals
        .into_iter()
        .filter_map(|(what, most, figure)| Some(at_most(what, most, "x", figure?)));
    met.collect()
}

fn alone_goals(measured: &Measured) -> Vec<Goal> {
    let million = measured.noise_bytes / 1e6;
    let sha = |figure: fn(&Bare) -> f64| -> Vec<f64> {
        measured.bare.iter().filter_map(|round| round.first()).map(figure).collect()
    };
    let ours = |at: usize, figure: fn(&Took) -> f64| -> Vec<f64> {
        let took = measured.noise.iter().filter_map(|round| round.get(at));
        took.map(|took| figure(took) / million).collect()
    };
    let (cpu, wall) = (sha(|bare| bare.1.cpu), sha(|bare| bare.1.wall));
    let least = |what: &str, least: f64, figure: f64| {
        let what = what.to_owned();
        Goal { what, bound: Bound::AtLeast(least), unit: "x", store: figure, device: None }
    };
    let mut goals = vec![
        least("one core, to disk, by CPU / SHA-256", 0.4, ratio(&cpu, &ours(0, |took| took.cpu_s))),
        least(
            "one core, to memory, by CPU / SHA-256",
            0.4,
            ratio(&cpu, &ours(1, |took| took.cpu_s)),
        ),
        least(
            "two cores, to disk, by wall / SHA-256",
            0.75,
            ratio(&wall, &ours(0, |took| took.wall_s)),
        ),
        least(
            "two cores, to memory, by wall / SHA-256",
            0.75,
            ratio(&wall, &ours(1, |took| took.wall_s)),
        ),
    ];
    if let [(small, first), .., (large, last)] = &measured.flat[..] {
        let what = format!("peak memory at {large} MiB / at {small} MiB");
        goals.push(at_most(&what, 1.1, "x", last.peak_bytes / first.peak_bytes));
    }
    goals
}
