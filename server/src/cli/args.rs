//! What users type: commands and flags.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use super::store_args::StoreArgs;
use crate::schema_file::Preset;

/// The embedded sync database in which the server has the last word.
#[derive(Debug, Parser)]
#[command(name = "lastword", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Data goes to stdout, progress and errors to stderr.\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 damaged data, 4 server not reachable.")]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server
    Serve(Serve),
    /// One server and three devices tell a story whose numbers are measured
    Demo(Demo),
    /// Send what waits, receive what is new, and say what happened
    Sync(Sync),
    /// Write records from a file of JSON lines; run it again to resume
    Import(Import),
    /// Print all records as JSON lines, sorted by table and key
    Export(Export),
    /// Print one record
    Get(Get),
    /// Write a whole record
    Put(Put),
    /// Set or remove fields of a record; its other fields stay
    Patch(Patch),
    /// Delete a record; its value is kept and can be brought back
    Delete(Delete),
    /// Bring back exactly what was deleted
    Undelete(Delete),
    /// Print records as they change, until interrupted
    Watch(Watch),
    /// List the versions of a record, newest first
    History(History),
    /// Say why a record is as it is and what it waits for
    Explain(OfRecord),
    /// List the refused batches of this device and why, send a unit of them again, or discard it
    DeadLetters(DeadLetters),
    /// Forget this device's copy of a workspace; the server's stays
    Purge(Purge),
    /// Store files, read them back, and say what they take
    #[command(subcommand)]
    Files(Files),
    /// Collect garbage once: files that nothing names, and what only they needed
    Gc(Gc),
    /// Show what a directory holds and what waits
    Status(Status),
    /// List the frames of the log
    Log(Log),
    /// Copy a store to another directory, also while its server runs
    Backup(Backup),
    /// Make a store from a backup: with new epochs for a server, a new device id for a device
    Restore(Restore),
    /// Make a store of what can be read of a damaged one, and say what is lost
    Salvage(Salvage),
    /// Erase a record on a server, with every version of it, for people who must
    Erase(Erase),
    /// Say what devices brought back of what a restored server lost, and write it back
    Recover(Recover),
    /// Tell a running server to do something
    #[command(subcommand)]
    Admin(Admin),
    /// Fold the log of a store and make its state file anew
    Compact(Compact),
    /// Say what a directory holds without changing it, also if it is damaged or a backup
    Inspect(Directory),
    /// Read every byte of a store or backup and say what is not as it was written
    Verify(Directory),
    /// A device of the demo
    #[command(hide = true)]
    DemoDevice(DemoDevice),
}

#[derive(Debug, Clone, Args)]
pub(super) struct Store {
    /// Directory of the device, or of a server that is not running
    #[arg(long, value_name = "DIR", default_value = "./lastword-data")]
    pub(super) data: PathBuf,
    /// Workspace
    #[arg(long, short, value_name = "NAME", default_value = "main")]
    pub(super) workspace: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Link {
    /// Server, like ws://127.0.0.1:7420; remembered in the directory
    #[arg(long, value_name = "URL", conflicts_with = "offline")]
    pub(super) server: Option<String>,
    /// What the server knows you by; remembered in the directory
    #[arg(long, value_name = "TOKEN", env = "LASTWORD_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Do not connect, even if a server is remembered
    #[arg(long)]
    pub(super) offline: bool,
    /// Wait until the server has decided (for a read: until this device has caught up)
    #[arg(long, conflicts_with = "offline")]
    pub(super) wait: bool,
    /// How long to keep trying, like 500ms, 10s or 2m; without it the first failed attempt counts
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
}

impl Link {
    /// The token, if one was given; an empty environment variable is none.
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref().filter(|token| !token.is_empty())
    }
}

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Directory of a device that is closed, or of a server, running or not
    #[arg(long, value_name = "DIR", default_value = "./lastword-data")]
    pub(super) data: PathBuf,
    /// Directory for the backup; one that holds an earlier backup gets what has changed since
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Compact {
    /// Directory of a device that is closed, or of a server that is not running
    #[arg(long, value_name = "DIR", default_value = "./lastword-data")]
    pub(super) data: PathBuf,
    /// Do not take the state over, which may be damaged: fold it from the log
    #[arg(long)]
    pub(super) rebuild_state: bool,
    /// Keep every version of a record readable this long, like 30d or 12h; 30 days by default
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) history: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Directory of the backup
    pub(super) backup: PathBuf,
    /// Directory for the store; it must be missing or empty
    #[arg(long, value_name = "DIR")]
    pub(super) to: PathBuf,
    /// Keep what waited in a device's outbox as dead letters; without it that stops the restore
    #[arg(long)]
    pub(super) drop_outbox: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Salvage {
    /// Directory of the damaged store, which nothing may have open and which stays as it is
    pub(super) dir: PathBuf,
    /// Directory for the store; it must be missing or empty
    #[arg(long, value_name = "DIR")]
    pub(super) to: PathBuf,
    /// Keep what waited in a device's outbox as dead letters; without it that stops the salvage
    #[arg(long)]
    pub(super) drop_outbox: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Erase {
    /// Table of the record
    pub(super) table: String,
    /// Its key
    pub(super) key: String,
    /// Directory of a server, which may be running
    #[arg(long, value_name = "DIR", default_value = "./lastword-data")]
    pub(super) data: PathBuf,
    /// Workspace of the record
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(super) workspace: String,
    /// Yes, erase it: there is no way back
    #[arg(long)]
    pub(super) yes: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// Directory of a server, which may be running
    #[arg(long, value_name = "DIR", default_value = "./lastword-data")]
    pub(super) data: PathBuf,
    /// Workspace
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(super) workspace: String,
    /// Yes, write it back; without this nothing is changed
    #[arg(long)]
    pub(super) yes: bool,
    /// Print JSON, a line for each record
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Admin {
    /// Have a running server copy its store; `lastword backup` does the same by itself
    Backup(Backup),
    /// Have a running server read its file of members again, and tell the devices at once
    Members(Running),
    /// Ask a running server where it keeps files and how many devices are attached
    Status(Running),
    /// Have a running server delete a workspace, for everybody and for good
    DeleteWorkspace(DeleteWorkspace),
    /// Ask a running server which files a workspace has, and how many records name each
    Files(AdminFiles),
    /// Have a running server collect what no file needs any more; it does so by itself every day
    Gc(AdminGc),
    /// Have a running server set fields of a record that the schema names as its own
    SetOwned(SetOwned),
}

#[derive(Debug, Args)]
pub(super) struct DeleteWorkspace {
    /// The workspace
    pub(super) workspace: String,
    /// Do it: nobody can undo it
    #[arg(long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) server: Running,
}

#[derive(Debug, Args)]
pub(super) struct AdminFiles {
    /// The workspace
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(super) workspace: String,
    #[command(flatten)]
    pub(super) server: Running,
}

#[derive(Debug, Args)]
pub(super) struct SetOwned {
    /// Table of the record, like files
    pub(super) table: String,
    /// Key of the record in its table
    pub(super) key: String,
    /// Fields to set as a JSON object
    #[arg(default_value = "{}")]
    pub(super) set: String,
    /// A field to remove; may be repeated
    #[arg(long, value_name = "FIELD")]
    pub(super) remove: Vec<String>,
    /// Its workspace
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub(super) workspace: String,
    #[command(flatten)]
    pub(super) server: Running,
}

/// A server that runs.
#[derive(Debug, Args)]
pub(super) struct Running {
    /// Directory of its data
    #[arg(long, value_name = "DIR", default_value = "./lastword-data")]
    pub(super) data: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A directory that no process may have open.
#[derive(Debug, Args)]
pub(super) struct Directory {
    /// Directory of a device or a server, or a backup
    #[arg(long, value_name = "DIR", default_value = "./lastword-data")]
    pub(super) data: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let bad = || "write it like 500ms, 10s or 2m".to_owned();
    let number: u64 = digits.parse().map_err(|_| bad())?;
    match text.get(digits.len()..) {
        Some("ms") => Ok(Duration::from_millis(number)),
        Some("" | "s") => Ok(Duration::from_secs(number)),
        Some("m") => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(bad()),
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("access").required(true).args(["tokens", "dev"]))]
pub(super) struct Serve {
    /// Directory of the server's data
    #[arg(long, value_name = "DIR", default_value = "./lastword-data")]
    pub(super) data: PathBuf,
    /// Address or name to listen on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7420", value_parser = address)]
    pub(super) listen: SocketAddr,
    /// Members: a file of lines `token, user, workspace, owner|editor|viewer`
    #[arg(long, value_name = "FILE")]
    pub(super) tokens: Option<PathBuf>,
    /// Take any token as the user of that name; on loopback only
    #[arg(long)]
    pub(super) dev: bool,
    /// Tables: a TOML file, see docs/operations.md; without one any table is taken
    #[arg(long, value_name = "FILE", conflicts_with = "schema_preset")]
    pub(super) schema: Option<PathBuf>,
    /// Tables that come with the server: those of OR3 Chat
    #[arg(long, value_name = "NAME")]
    pub(super) schema_preset: Option<Preset>,
    /// Keep every version of a record readable this long, like 30d or 12h; 30 days by default
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) history: Option<Duration>,
    /// Remember that a record was deleted this long, like 400d, which is the default; a device that
    /// was away for longer starts afresh
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) tombstones: Option<Duration>,
    /// The bytes of an erased record leave the files within this time, like 12h; 24h by default
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) erase_within: Option<Duration>,
    /// Refuse what would leave a workspace with more live records than this; deletes always pass
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_records: Option<u64>,
    /// Refuse files that are longer than this, like 100MB or 2GiB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) max_file_bytes: Option<u64>,
    /// Refuse files for which a workspace has no room, like 20GiB; deleted ones count until they
    /// are collected
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(super) max_files_bytes: Option<u64>,
    /// Collect what no file needs any more this often, like 6h; 24h by default, 0h never
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) gc_every: Option<Duration>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Print the address as a JSON line
    #[arg(long)]
    pub(super) json: bool,
}

/// A size in bytes, with or without a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let bad = || "write it like 500000, 100MB or 2GiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let unit = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(bad()),
    };
    number.checked_mul(unit).ok_or_else(bad)
}

fn period(text: &str) -> Result<Duration, String> {
    let bad = || "write it like 30d or 12h".to_owned();
    let (number, hours) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => (days, 24),
        (_, Some(hours)) => (hours, 1),
        _ => return Err(bad()),
    };
    let number: u32 = number.parse().map_err(|_| bad())?;
    Ok(Duration::from_secs(u64::from(number) * hours * 60 * 60))
}

/// The first address of a name; an IPv4 one if it has any, since most clients try that first.
fn address(text: &str) -> Result<SocketAddr, String> {
    let bad = |reason: String| format!("{reason}; write it like 127.0.0.1:7420 or localhost:0");
    let found: Vec<SocketAddr> =
        text.to_socket_addrs().map_err(|error| bad(error.to_string()))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| bad("the name has no address".into()))
}

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Print each step as a JSON line
    #[arg(long)]
    pub(super) json: bool,
    /// Let the demo break itself, to see that it notices
    #[arg(long, value_name = "FAULT", hide = true)]
    pub(super) plant: Option<crate::demo::Fault>,
}

#[derive(Debug, Args)]
pub(super) struct DemoDevice {
    #[arg(long)]
    pub(super) data: PathBuf,
    #[arg(long)]
    pub(super) server: String,
    #[arg(long)]
    pub(super) token: String,
}

#[derive(Debug, Args)]
pub(super) struct Sync {
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// File of JSON lines, `-` for stdin. A line is {"table":..,"key":..,"value":{..}}, or with
    /// "op": "patch" ("set", "remove"), "delete" or "undelete". Bytes are {"$bytes":"<base64>"}.
    /// Also an archive that `lastword export --files` wrote
    pub(super) file: PathBuf,
    /// Most records in one atomic batch
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = batch_size)]
    pub(super) batch: usize,
    /// Skip bad lines and list them, instead of writing nothing
    #[arg(long)]
    pub(super) keep_going: bool,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

fn batch_size(text: &str) -> Result<usize, String> {
    let limit = lastword::core::limits::MAX_BATCH_OPS;
    match text.parse() {
        Ok(size) if (1..=limit).contains(&size) => Ok(size),
        _ => Err(format!("a number from 1 to {limit}")),
    }
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Also print deleted records, marked "deleted": true
    #[arg(long)]
    pub(super) deleted: bool,
    /// Also print the tables that belong to Lastword
    #[arg(long)]
    pub(super) system: bool,
    /// Write one archive of records and the files they name, a tar, instead of printing; files that
    /// are not here are fetched. `lastword import FILE` takes it
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    pub(super) files: Option<PathBuf>,
    /// Leave files out that are not on this device
    #[arg(long, requires = "files")]
    pub(super) only_here: bool,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Subcommand)]
pub(super) enum Files {
    /// Store files and name each in a record of file_meta; what is here already is not stored again
    Put(FilesPut),
    /// Read a file back, or all of them; every piece is compared with its hash first
    Get(FilesGet),
    /// List the files of the workspace, deleted ones too
    List(FilesAll),
    /// Delete a file; its bytes are kept and it can be brought back
    Rm(FilesOne),
    /// Bring a deleted file back
    Undelete(FilesOne),
    /// Say what the files take on this device, which are on their way and which are damaged
    Status(FilesAll),
    /// Stop the transfer of a file until it is resumed
    Pause(FilesOne),
    /// Go on with a transfer that was paused or has failed
    Resume(FilesOne),
    /// Give the transfer of a file up; what is here stays
    Cancel(FilesOne),
    /// Free the room of a file that is at the server; `get` fetches it again
    Evict(FilesOne),
    /// Read every chunk, some bytes a second, and note which are damaged
    Scrub(FilesScrub),
    /// Make the index of files from packs alone, after the log was lost or salvaged
    Reindex(FilesReindex),
}

impl Files {
    pub(super) fn store(&self) -> &Store {
        match self {
            Files::Put(args) => &args.store,
            Files::Get(args) => &args.store,
            Files::List(args) | Files::Status(args) => &args.store,
            Files::Rm(args) | Files::Undelete(args) | Files::Evict(args) => &args.store,
            Files::Pause(args) | Files::Resume(args) | Files::Cancel(args) => &args.store,
            Files::Scrub(args) => &args.store,
            Files::Reindex(args) => &args.store,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Gc {
    #[command(flatten)]
    pub(super) options: GcOptions,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct AdminGc {
    #[command(flatten)]
    pub(super) options: GcOptions,
    /// The workspace
    #[arg(long, short, value_name = "NAME", default_value = "main")]
    pub(super) workspace: String,
    #[command(flatten)]
    pub(super) server: Running,
}

#[derive(Debug, Args)]
pub(super) struct GcOptions {
    /// Say for each file what would become of it and why, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// What nothing needs stays this long after a run has found it, like 1h, which is the default
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) grace: Option<Duration>,
    /// A stored file that nothing names yet stays this long, like 24h, which is the default
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) staged: Option<Duration>,
    /// Go on also if more than a tenth of everything would go
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct FilesPut {
    /// The files, `-` for stdin
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Store what is in directories too, each file named by its path from there
    #[arg(long, short)]
    pub(super) recursive: bool,
    /// Name for people, instead of the file's own
    #[arg(long, value_name = "NAME", conflicts_with = "recursive")]
    pub(super) name: Option<String>,
    /// Media type, like image/png
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
    pub(super) mime: String,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct FilesGet {
    /// Hash of the file: sha256: and 64 hexadecimal digits. If it is not here, it is fetched from
    /// the server and kept
    #[arg(required_unless_present = "all")]
    pub(super) hash: Option<String>,
    /// Where to write it, instead of stdout; only a whole file appears there
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Write every file that is not deleted to a new directory, each under its name, or under its
    /// hash where that is taken
    #[arg(long, value_name = "DIR", conflicts_with_all = ["hash", "out"])]
    pub(super) all: Option<PathBuf>,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct FilesOne {
    /// Hash of the file: sha256: and 64 hexadecimal digits
    pub(super) hash: String,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct FilesScrub {
    /// Read at most this many MiB a second
    #[arg(
        long, value_name = "MIB", default_value_t = 32,
        value_parser = clap::value_parser!(u64).range(1..=4096),
    )]
    pub(super) rate: u64,
    /// Go on at this chunk, as an earlier run said
    #[arg(long, value_name = "CHUNK")]
    pub(super) from: Option<String>,
    /// Stop after this time, like 10m, and say where to go on
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub(super) time: Option<Duration>,
    #[command(flatten)]
    pub(super) store: Store,
}

#[derive(Debug, Args)]
pub(super) struct FilesReindex {
    #[command(flatten)]
    pub(super) store: Store,
}

#[derive(Debug, Args)]
pub(super) struct FilesAll {
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    /// Table of the record, like notes
    pub(super) table: String,
    /// Key of the record in its table
    pub(super) key: String,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct Put {
    /// Table of the record, like notes
    pub(super) table: String,
    /// Key of the record in its table
    pub(super) key: String,
    /// The record as a JSON object, `-` for stdin
    pub(super) value: String,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct Patch {
    /// Table of the record, like notes
    pub(super) table: String,
    /// Key of the record in its table
    pub(super) key: String,
    /// Fields to set as a JSON object, `-` for stdin
    #[arg(default_value = "{}")]
    pub(super) set: String,
    /// A field to remove; may be repeated
    #[arg(long, value_name = "FIELD")]
    pub(super) remove: Vec<String>,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Table of the record, like notes
    pub(super) table: String,
    /// Key of the record in its table
    pub(super) key: String,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Only this table
    pub(super) table: Option<String>,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct OfRecord {
    /// Table of the record, like notes
    pub(super) table: String,
    /// Key of the record in its table
    pub(super) key: String,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct Purge {
    /// Also destroy what no server has: unsent batches, dead letters, rows of local tables
    #[arg(long)]
    pub(super) destroy_unsent: bool,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    pub(super) record: OfRecord,
    /// Ask the server, which has what other devices wrote too
    #[arg(long, conflicts_with = "offline")]
    pub(super) remote: bool,
    /// With --remote: print the value that this field had in the version with the seq of --at
    #[arg(long, requires = "at", requires = "remote")]
    pub(super) field: Option<String>,
    /// Seq of the version, as a conflict names it
    #[arg(long, requires = "field")]
    pub(super) at: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct DeadLetters {
    /// What to do with a unit; without it the letters are listed
    #[arg(value_enum, requires = "unit")]
    pub(super) action: Option<LetterAction>,
    /// The unit: the id of its first batch, as `dead-letters` prints it
    pub(super) unit: Option<String>,
    /// For edit: table of the record
    pub(super) table: Option<String>,
    /// For edit: key of the record
    #[arg(requires = "value")]
    pub(super) key: Option<String>,
    /// For edit: what each write of the record in the unit writes instead, as JSON or - for stdin:
    /// the whole record, or the fields that a patch sets
    pub(super) value: Option<String>,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}

/// What becomes of a unit: a refused batch and those that went down with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LetterAction {
    /// Send the unit again, in its order, as if it were written now
    Retry,
    /// Give a record of the unit another value, then send the unit again
    Edit,
    /// Throw the unit away
    Discard,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) store: Store,
    /// In a server's directory: count only what this user sees, as their devices do
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<String>,
    #[command(flatten)]
    pub(super) link: Link,
}

#[derive(Debug, Args)]
pub(super) struct Log {
    /// Log position of the first frame, 0 for the beginning
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    pub(super) from: u64,
    /// Most frames to print
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) limit: usize,
    #[command(flatten)]
    pub(super) store: Store,
    #[command(flatten)]
    pub(super) link: Link,
}
