//! Who is measured, and how their processes are started.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::build::server_binary;

/// One engine with one number of records.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// As `--only` and the script of the peers know it.
    name: &'static str,
    title: &'static str,
    /// Where it keeps records while it is measured.
    pub(crate) keeps: &'static str,
    pub(crate) records: u64,
}

/// Peers get as many records as they take in about a minute.
const PEERS: [Contender; 5] = [
    Contender { name: "rxdb", title: "RxDB", keeps: "memory", records: 50_000 },
    Contender {
        name: "pouchdb",
        title: "PouchDB + express-pouchdb",
        keeps: "LevelDB, not synced",
        records: 20_000,
    },
    Contender { name: "tinybase", title: "TinyBase", keeps: "memory", records: 10_000 },
    Contender { name: "yjs", title: "Yjs + y-websocket", keeps: "memory", records: 50_000 },
    Contender { name: "automerge", title: "automerge-repo", keeps: "memory", records: 5_000 },
];
/// Lastword is also measured with about as few records as the peers.
const FEW_RECORDS: u64 = 50_000;

pub(crate) fn all(records: u64) -> Vec<Contender> {
    let ours = |records| Contender {
        name: "lastword",
        title: "Lastword",
        keeps: "disk, every batch synced",
        records,
    };
    let few = (records > FEW_RECORDS).then(|| ours(FEW_RECORDS));
    std::iter::once(ours(records)).chain(few).chain(PEERS).collect()
}

impl Contender {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    pub(crate) fn is_peer(&self) -> bool {
        self.name != "lastword"
    }

    pub(crate) fn title(&self) -> &'static str {
        self.title
    }

    /// Its server on a free port, with its data in `dir`; the first line tells the address.
    pub(crate) fn server(&self, dir: &Path) -> Result<Command> {
        if self.is_peer() {
            return Ok(self.peer("server", dir, "127.0.0.1:0"));
        }
        let mut command = Command::new(server_binary()?);
        command.args(["serve", "--dev", "--json", "--listen", "127.0.0.1:0", "--data"]).arg(dir);
        Ok(command)
    }

    /// A device with its data in `dir` and this server, host and port.
    pub(crate) fn device(&self, dir: &Path, address: &str) -> Result<Command> {
        if self.is_peer() {
            return Ok(self.peer("device", dir, address));
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("device").arg(dir).arg(address);
        Ok(command)
    }

    fn peer(&self, role: &str, dir: &Path, address: &str) -> Command {
        let mut command = Command::new("node");
        // What a peer says on stderr is not for whoever reads the tables.
        command.stderr(Stdio::null()).current_dir(peers_dir());
        command.args(["--max-old-space-size=8192", "main.mjs", self.name, role]);
        command.arg(dir).arg(address);
        command
    }
}

fn peers_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers-js")
}

/// `npm ci` in the folder of the peers; the error says in a sentence why they are not measured.
pub(crate) fn install_peers() -> Result<(), String> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(peers_dir());
    let done = npm.stdin(Stdio::null()).output().map_err(|error| format!("no npm: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&done.stderr);
    let told = told.lines().filter_map(|line| line.strip_prefix("npm error ")).take(3);
    Err(format!("npm ci failed: {}", told.collect::<Vec<_>>().join("; ")))
}
