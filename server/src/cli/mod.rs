//! The command line: one module per command, or per family of commands.

mod failure;
mod store_args;
mod args;
mod output;
mod remote;
mod session;
mod lines;
mod records;
mod transfers;
mod put;
mod get;
mod files;
mod gc;
mod recover;
mod archive;
mod unpack;
mod import;
mod export;
mod sync;
mod watch;
mod workspace;
mod history;
mod erase;
mod explain;
mod letters;
mod members;
mod status;
mod verify;
mod backup;
mod restore;
mod salvage;
mod compact;
mod inspect;

use std::time::Duration;

use clap::Parser as _;
use lastword::Keep;

use crate::demo;
use crate::schema_file::SchemaSource;
use crate::serve::{self, Access, ServeOptions};
use args::{Admin, Cli, Command, Serve};
pub use failure::{ExitCode, Failure};

/// Runs the command that the process was called with; wrong usage ends the process with code 2.
/// The flag says whether an error is to be printed as JSON.
///
/// # Errors
/// [`Failure`]: what to tell the user, and the exit code.
pub fn run() -> (bool, Result<(), Failure>) {
    let Cli { command } = Cli::parse();
    let json = wants_json(&command);
    let done = obey(&command).map_err(|failure| match command {
        // What the demo expected and found takes lines.
        Command::Demo(_) | Command::DemoDevice(_) => failure,
        // JSON has escapes of its own.
        _ if json => failure,
        _ => Failure { message: output::plain(&failure.message).into_owned(), ..failure },
    });
    (json, done)
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Serve(args) => args.json,
        Command::Demo(args) => args.json,
        Command::Sync(args) => args.store.json,
        Command::Import(args) => args.store.json,
        Command::Export(args) => args.store.json,
        Command::Get(args) => args.store.json,
        Command::Put(args) => args.store.json,
        Command::Patch(args) => args.store.json,
        Command::Delete(args) | Command::Undelete(args) => args.store.json,
        Command::Watch(args) => args.store.json,
        Command::History(args) => args.record.store.json,
        Command::Explain(args) => args.store.json,
        Command::DeadLetters(args) => args.store.json,
        Command::Files(args) => args.store().json,
        Command::Gc(args) => args.store.json,
        Command::Status(args) => args.store.json,
        Command::Log(args) => args.store.json,
        Command::Backup(args) | Command::Admin(Admin::Backup(args)) => args.json,
        Command::Admin(Admin::Members(args) | Admin::Status(args)) => args.json,
        Command::Admin(Admin::DeleteWorkspace(args)) => args.server.json,
        Command::Admin(Admin::SetOwned(args)) => args.server.json,
        Command::Admin(Admin::Files(args)) => args.server.json,
        Command::Admin(Admin::Gc(args)) => args.server.json,
        Command::Purge(args) => args.store.json,
        Command::Erase(args) => args.json,
        Command::Recover(args) => args.json,
        Command::Restore(args) => args.json,
        Command::Salvage(args) => args.json,
        Command::Compact(args) => args.json,
        Command::Inspect(args) | Command::Verify(args) => args.json,
        Command::DemoDevice(_) => false,
    }
}

fn obey(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => run_server(args),
        Command::Demo(args) => {
            let told = demo::run(&mut std::io::stdout(), args.json, args.plant);
            told.map_err(|error| Failure::failed(error.to_string()))
        }
        Command::DemoDevice(args) => demo::device::run(&args.data, &args.server, &args.token)
            .map_err(|error| Failure::failed(error.to_string())),
        Command::Sync(args) => sync::sync(args),
        Command::Import(args) => import::import(args),
        Command::Export(args) => export::export(args),
        Command::Get(args) => records::get(args),
        Command::Put(args) => records::put(args),
        Command::Patch(args) => records::patch(args),
        Command::Delete(args) => records::delete(args),
        Command::Undelete(args) => records::undelete(args),
        Command::Watch(args) => watch::watch(args),
        Command::History(args) => history::history(args),
        Command::Explain(args) => explain::explain(args),
        Command::DeadLetters(args) => letters::letters(args),
        Command::Files(args) => files::files(args),
        Command::Gc(args) => gc::gc(args),
        Command::Status(args) => status::status(args),
        Command::Log(args) => status::log(args),
        Command::Backup(args) => backup::backup(args),
        Command::Admin(Admin::Backup(args)) => backup::of_running(args),
        Command::Admin(Admin::Members(args)) => members::reload(args),
        Command::Admin(Admin::Status(args)) => status::of_running(args),
        Command::Admin(Admin::DeleteWorkspace(args)) => workspace::delete(args),
        Command::Admin(Admin::SetOwned(args)) => workspace::set_owned(args),
        Command::Admin(Admin::Files(args)) => status::files_of_running(args),
        Command::Admin(Admin::Gc(args)) => gc::admin(args),
        Command::Purge(args) => workspace::purge(args),
        Command::Erase(args) => erase::erase(args),
        Command::Recover(args) => recover::recover(args),
        Command::Restore(args) => restore::restore(args),
        Command::Salvage(args) => salvage::salvage(args),
        Command::Compact(args) => compact::compact(args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Verify(args) => verify::verify(args),
    }
}

fn run_server(args: &Serve) -> Result<(), Failure> {
    let access = match (&args.tokens, args.dev) {
        (Some(tokens), false) => Access::Tokens(tokens.clone()),
        (None, true) => Access::Dev,
        // Never by default: --dev lets everybody in.
        _ => return Err(Failure::usage("say who may connect: --tokens FILE, or --dev")),
    };
    let schema = match (&args.schema, args.schema_preset) {
        (Some(path), _) => SchemaSource::File(path.clone()),
        (None, Some(preset)) => SchemaSource::Preset(preset),
        (None, None) => SchemaSource::None,
    };
    let (data, listen, json) = (args.data.clone(), args.listen, args.json);
    let keep = Keep {
        history: args.history.unwrap_or(lastword::DEFAULT_HISTORY),
        tombstones: args.tombstones.unwrap_or(lastword::DEFAULT_TOMBSTONES),
        erased: args.erase_within.unwrap_or(lastword::DEFAULT_ERASE_WITHIN),
    };
    let options = ServeOptions {
        data,
        listen,
        access,
        schema,
        keep,
        max_records: args.max_records,
        max_file_bytes: args.max_file_bytes,
        max_files_bytes: args.max_files_bytes,
        files: args.store.options()?,
        gc_every: args.gc_every.unwrap_or(Duration::from_secs(24 * 3600)),
        json,
    };
    match serve::run(&options) {
        Err(serve::ServeError::Engine(error)) => Err(error.into()),
        done => Ok(done?),
    }
}
