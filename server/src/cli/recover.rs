//! `recover`: what a restored server lost and devices brought back is shown, and written back if
//! that is wanted; by this process, or by the server that has the store open.

use std::collections::BTreeMap;
use std::io::Write as _;

use lastword::core::id::WorkspaceName;
use lastword::{Authority, Error, Recovery};
use serde_json::json;

use crate::control::{self, Answer, Ask, Named};

use super::args::Recover;
use super::backup::{is_served, unexpected};
use super::failure::Failure;
use super::output;

/// Records that are listed for a person; `--json` lists all.
const LISTED: usize = 50;

pub(super) fn recover(args: &Recover) -> Result<(), Failure> {
    let workspace = WorkspaceName::new(&args.workspace)?;
    let found: Vec<Named> = match Authority::open(&args.data) {
        Ok(authority) => {
            let found = match args.yes {
                true => authority.recover(&workspace),
                false => authority.survivors(&workspace),
            };
            authority.close()?;
            found?.into_iter().map(Named::from).collect()
        }
        Err(Error::Lock(lock)) if is_served(&lock, &args.data) => of_running(args)?,
        Err(error) => return Err(error.into()),
    };
    match args.json {
        true => as_json(args, &found),
        false => for_people(args, &found),
    }
}

fn of_running(args: &Recover) -> Result<Vec<Named>, Failure> {
    let workspace = args.workspace.clone();
    let ask = match args.yes {
        true => Ask::Recover { workspace },
        false => Ask::Survivors { workspace },
    };
    let mut found = Vec::new();
    let last = control::ask(&args.data, &ask, &mut |said| {
        if let Answer::Survivor(named) = said {
            found.push(named);
        }
    })?;
    match last {
        Answer::Survivors {} => Ok(found),
        other => Err(unexpected(&other)),
    }
}

fn as_json(args: &Recover, found: &[Named]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for named in found {
        let Named { table, key, seq, time_ms, device, versions, recovery } = named;
        let line = json!({
            "table": table, "key": key, "seq": seq, "time_ms": time_ms, "device": device,
            "versions": versions, "recovery": recovery, "done": args.yes,
        });
        writeln!(out, "{}", output::json_line(&line.to_string()))?;
    }
    Ok(())
}

fn for_people(args: &Recover, found: &[Named]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if found.is_empty() {
        writeln!(
            out,
            "no device has brought back anything of workspace {} that a restore lost; devices do \
             so when they sync, and what they bring is kept for 30 days",
            output::plain(&args.workspace)
        )?;
        return Ok(());
    }
    let mut counts = BTreeMap::<&str, u64>::new();
    for named in found {
        *counts.entry(&named.recovery).or_default() += 1;
    }
    for named in found.iter().take(LISTED) {
        let Named { table, key, seq, time_ms, recovery, .. } = named;
        let (name, clock) = (format!("{table}/{key}"), output::clock(*time_ms));
        let name = output::plain(&name);
        writeln!(out, "{recovery:<9} {name}  as of {clock}, seq {seq} of the lost history")?;
    }
    if found.len() > LISTED {
        writeln!(out, "and {} more; --json lists all", found.len() - LISTED)?;
    }
    for recovery in [
        Recovery::Restored,
        Recovery::Deleted,
        Recovery::Conflict,
        Recovery::Same,
        Recovery::Erased,
        Recovery::Left,
    ] {
        if let Some(count) = counts.get(recovery.as_str()) {
            writeln!(out, "{}: {}", output::records(*count), told(recovery, args.yes))?;
        }
    }
    if !args.yes {
        writeln!(out, "nothing was changed: add --yes to do this")?;
    }
    Ok(())
}

fn told(recovery: Recovery, done: bool) -> &'static str {
    match (recovery, done) {
        (Recovery::Restored, true) => "have the lost value again",
        (Recovery::Restored, false) => "would get the lost value back",
        (Recovery::Deleted, true) => "are deleted again",
        (Recovery::Deleted, false) => "would be deleted again",
        (Recovery::Conflict, true) => {
            "were written since the restore and keep that; the lost value is a conflict row"
        }
        (Recovery::Conflict, false) => {
            "were written since the restore and would keep that, with the lost value as a conflict"
        }
        (Recovery::Same, _) => "are what they were",
        (Recovery::Erased, _) => "were erased and stay so",
        (Recovery::Left, _) => {
            "are left: no such table in the schema, a delete under revision, or another user's key now"
        }
    }
}
