//! `erase`: no version of a record stays, here or on the devices; done by this process, or by the
//! server that has the store open.

use std::io::Write as _;

use lastword::core::id::{Key, TableName, WorkspaceName};
use lastword::{Authority, Erased, Error};
use serde_json::json;

use crate::control::{self, Answer, Ask};

use super::args::Erase;
use super::backup::{is_served, unexpected};
use super::failure::Failure;
use super::output;

pub(super) fn erase(args: &Erase) -> Result<(), Failure> {
    let name = format!("{}/{} of workspace {}", args.table, args.key, args.workspace);
    if !args.yes {
        let message = format!(
            "{name} would be gone for good, with every earlier version, here and on every device \
             that syncs; backups made before keep it. Add --yes to erase it"
        );
        return Err(Failure::usage(message));
    }
    let names = (WorkspaceName::new(&args.workspace)?, TableName::new(&args.table)?);
    let (erased, by_running_server) = match Authority::open(&args.data) {
        Ok(authority) => {
            let erased = authority.erase(&names.0, &names.1, &Key::new(&args.key)?);
            authority.close()?;
            (erased?, false)
        }
        Err(Error::Lock(lock)) if is_served(&lock, &args.data) => (of_running(args)?, true),
        Err(error) => return Err(error.into()),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        let line = json!({
            "table": args.table, "key": args.key, "seq": erased.seq,
            "conflicts": erased.conflicts, "by_running_server": by_running_server,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let conflicts = match erased.conflicts {
        0 => String::new(),
        some => format!(", and {} with it", output::counted(some, "conflict row", "conflict rows")),
    };
    writeln!(
        out,
        "{}",
        output::plain(&format!("{name} is erased, seq {}{conflicts}", erased.seq))
    )?;
    let files = match by_running_server {
        true => "its bytes leave the server's files within a day, or as serve --erase-within says",
        false => "its bytes leave the files within a day of serving, or at once with compact",
    };
    writeln!(out, "{files}; backups made before keep it")?;
    Ok(())
}

fn of_running(args: &Erase) -> Result<Erased, Failure> {
    let Erase { workspace, table, key, .. } = args;
    let (workspace, table, key) = (workspace.clone(), table.clone(), key.clone());
    match control::ask(&args.data, &Ask::Erase { workspace, table, key }, &mut drop)? {
        Answer::Erased { seq, conflicts } => Ok(Erased { seq, conflicts }),
        other => Err(unexpected(&other)),
    }
}
