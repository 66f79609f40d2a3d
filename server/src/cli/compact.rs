//! `compact`: folds the log and makes the state file anew.

use std::io::Write as _;
use std::time::Instant;

use indicatif::HumanBytes;
use lastword::Sizes;
use serde_json::json;

use super::args::Compact;
use super::failure::Failure;
use super::output;

pub(super) fn compact(args: &Compact) -> Result<(), Failure> {
    let begun = Instant::now();
    let history = args.history.unwrap_or(lastword::DEFAULT_HISTORY);
    let report = lastword::compact(&args.data, history, args.rebuild_state)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let line = json!({
            "dir": args.data.display().to_string(), "folded": report.folded,
            "first": report.first_position,
            "before": as_json(&report.before), "after": as_json(&report.after),
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let head = format!("{} ({})", args.data.display(), output::took(begun.elapsed()));
    writeln!(out, "{}", output::plain(&head))?;
    writeln!(out, "           {:>12} {:>12}", "before", "after")?;
    let (before, after) = (&report.before, &report.after);
    for (name, before, after) in [
        ("log", before.log, after.log),
        ("base", before.base, after.base),
        ("state", before.state, after.state),
        ("packs", before.packs, after.packs),
        ("spares", before.spares, after.spares),
        ("all", before.all(), after.all()),
    ] {
        let (before, after) = (HumanBytes(before).to_string(), HumanBytes(after).to_string());
        writeln!(out, "  {name:<8} {before:>12} {after:>12}")?;
    }
    writeln!(out, "versions of records are readable from log position {}", report.first_position)?;
    if before.log > 0 && after.log >= before.log && !history.is_zero() {
        writeln!(out, "nothing left the log: all of it is inside the history window (--history)")?;
    }
    Ok(())
}

fn as_json(sizes: &Sizes) -> serde_json::Value {
    json!({
        "log": sizes.log, "base": sizes.base, "state": sizes.state, "packs": sizes.packs,
        "spares": sizes.spares, "all": sizes.all(),
    })
}
