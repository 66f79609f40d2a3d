//! `admin members`: a running server reads its file of members again.

use std::io::Write as _;

use serde_json::json;

use crate::control::{self, Answer, Ask, Changed};

use super::args::Running;
use super::backup::unexpected;
use super::failure::Failure;
use super::output;

pub(super) fn reload(args: &Running) -> Result<(), Failure> {
    let mut changes = Vec::new();
    let last = control::ask(&args.data, &Ask::Members, &mut |answer| {
        if let Answer::Member(changed) = answer {
            changes.push(changed);
        }
    })?;
    if !matches!(last, Answer::Members { .. }) {
        return Err(unexpected(&last));
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json!({ "changed": changes }))?;
        return Ok(());
    }
    for change in &changes {
        writeln!(out, "{}", output::plain(&line(change)))?;
    }
    if changes.is_empty() {
        writeln!(out, "the members are as they were")?;
    }
    Ok(())
}

fn line(change: &Changed) -> String {
    let Changed { workspace, user, before, after } = change;
    match (before, after) {
        (_, None) => format!("{user} is no member of {workspace} any more"),
        (None, Some(role)) => format!("{user} is {role} of {workspace}"),
        (Some(before), Some(role)) => format!("{user} is {role} of {workspace}, was {before}"),
    }
}
