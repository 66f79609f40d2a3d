//! `export`: every record as a JSON line, sorted by table and key.

use std::io::{BufWriter, Write as _};
use std::time::Instant;

use lastword::WorkspaceView;
use lastword::core::id::WorkspaceName;

use super::args::Export;
use super::failure::Failure;
use super::output;
use super::session::{Opened, open_any};

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
            print(args, &view)?;
            session.close()
        }
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
    let (mut count, mut failed) = (0, None);
    view.visit_all(&mut |shown, deleted| {
        if failed.is_some() || (deleted && !args.deleted) {
            return Ok(());
        }
        if shown.table.is_reserved() && !args.system {
            return Ok(());
        }
        count += 1;
        let (table, key) = (shown.table.as_str(), shown.key.as_str());
        let line = output::record_line(table, key, &shown.record, deleted);
        let written = line.and_then(|line| Ok(writeln!(out, "{line}")?));
        failed = written.err();
        Ok(())
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    out.flush()?;
    eprintln!("exported {}", output::records_and_rate(count, begun.elapsed()));
    Ok(())
}
