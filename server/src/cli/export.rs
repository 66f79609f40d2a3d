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
            print(args, &view)?;
            session.close()
        }
        Opened::Server(authority) => {
            print(args, &authority.read(&WorkspaceName::new(&args.store.workspace)?)?)?;
            Ok(authority.close()?)
        }
    }
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
