//! Who is measured, and with which commands.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;
use crate::build::server_binary;

/// One tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Lastword,
    Restic,
    Borg,
    Casync,
}

pub(crate) const ALL: [Tool; 4] = [Tool::Lastword, Tool::Restic, Tool::Borg, Tool::Casync];

impl Tool {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::Lastword => "lastword",
            Tool::Restic => "restic",
            Tool::Borg => "borg",
            Tool::Casync => "casync",
        }
    }

    /// Its package in Debian.
    fn package(self) -> Option<&'static str> {
        match self {
            Tool::Lastword => None,
            Tool::Restic => Some("restic"),
            Tool::Borg => Some("borgbackup"),
            Tool::Casync => Some("casync"),
        }
    }

    pub(crate) fn settings(self) -> &'static str {
        match self {
            Tool::Lastword => {
                "chunks of 64 KiB, lz4, every batch of files synced, records of each file"
            }
            Tool::Restic => "chunks of 1 MiB, zstd, encrypted (it knows no other way), metadata",
            Tool::Borg => "chunks of 2 MiB, lz4, not encrypted, metadata",
            Tool::Casync => "chunks of 64 KiB, zstd, metadata, nothing synced",
        }
    }

    /// What it says of its version; the error says in a sentence why it cannot be run.
    pub(crate) fn version(self) -> Result<String, String> {
        let arg = if self == Tool::Restic { "version" } else { "--version" };
        let done = self.command().arg(arg).output();
        let done = done.map_err(|error| format!("it does not start: {error}"))?;
        let told = String::from_utf8_lossy(&done.stdout);
        Ok(told.lines().next().unwrap_or_default().chars().take(24).collect())
    }

    pub(crate) fn command(self) -> Command {
        match self {
            Tool::Lastword => Command::new(server_binary().unwrap_or_else(|_| "lastword".into())),
            other => Command::new(other.name()),
        }
    }

    /// A command with its data and caches in `dir`.
    fn at(self, dir: &Path) -> Command {
        let mut command = self.command();
        command.env("RESTIC_PASSWORD", "x").env("RESTIC_REPOSITORY", dir.join("repo"));
        command.env("RESTIC_CACHE_DIR", dir.join("cache"));
        command.env("BORG_BASE_DIR", dir.join("cache")).env("BORG_REPO", dir.join("repo"));
        command.env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
        command
    }

    /// Makes an empty store, where a tool needs that; not measured.
    pub(crate) fn prepare(self, dir: &Path) -> Result<()> {
        let mut command = self.at(dir);
        match self {
            Tool::Lastword => return Ok(()),
            Tool::Casync => return Ok(std::fs::create_dir_all(dir.join("repo"))?),
            Tool::Restic => command.arg("init"),
            Tool::Borg => command.args(["init", "--encryption", "none"]),
        };
        let done = command.stdin(Stdio::null()).output()?;
        let told = String::from_utf8_lossy(&done.stderr);
        match done.status.success() {
            true => Ok(()),
            false => Err(format!("{} makes no store: {told}", self.name()).into()),
        }
    }

    /// Stores everything in `from`; the name of a run is new each time.
    pub(crate) fn store(self, dir: &Path, from: &Path, run: &str) -> Command {
        let mut command = self.at(dir);
        match self {
            Tool::Lastword => {
                command.args(["files", "put", "--offline", "--recursive"]).arg(from);
                command.arg("--data").arg(dir.join("repo"))
            }
            Tool::Restic => command.arg("backup").arg(".").current_dir(from),
            Tool::Borg => command.args(["create", &format!("::{run}"), "."]).current_dir(from),
            Tool::Casync => {
                command.arg("make").arg("--store").arg(dir.join("repo/store.castr"));
                command.arg(dir.join("repo").join(run).with_extension("caidx")).arg(from)
            }
        };
        command
    }

    /// Writes what was stored to the empty folder `to`.
    pub(crate) fn restore(self, dir: &Path, to: &Path, run: &str) -> Command {
        let mut command = self.at(dir);
        match self {
            Tool::Lastword => {
                command.args(["files", "get", "--offline", "--all"]).arg(to);
                command.arg("--data").arg(dir.join("repo"))
            }
            Tool::Restic => command.args(["restore", "latest", "--target"]).arg(to),
            Tool::Borg => command.args(["extract", &format!("::{run}")]).current_dir(to),
            Tool::Casync => {
                command.arg("extract").arg("--store").arg(dir.join("repo/store.castr"));
                command.arg(dir.join("repo").join(run).with_extension("caidx")).arg(to)
            }
        };
        command
    }
}

/// Installs the peers that are missing with Debian's package manager, which takes root.
pub(crate) fn install() {
    let is_missing = |tool: &Tool| tool.version().is_err();
    let missing: Vec<Tool> = ALL.into_iter().filter(is_missing).collect();
    let packages: Vec<&str> = missing.iter().filter_map(|tool| tool.package()).collect();
    if packages.is_empty() {
        return;
    }
    eprintln!("installing {} with apt-get", packages.join(", "));
    let apt = |args: &[&str]| Command::new("apt-get").args(args).stdout(Stdio::null()).status();
    // What is still missing then is told with the tables.
    let _ = apt(&["update", "-qq"]);
    let install = ["install", "-qq", "-y", "--no-install-recommends"];
    let _ = apt(&[&install[..], &packages].concat());
}
