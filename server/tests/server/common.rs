//! What the tests share: a server process, and devices in temporary directories.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use lastword::core::id::{Key, TableName};
use lastword::core::json;
use lastword::{Database, Remote, Sync, Workspace};

/// Longest wait for anything in these tests; reaching it is a failure.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Longest run of one command, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// xorshift64 (Marsaglia, 2003).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below a usize")
    }
}

/// A `lastword serve` process.
pub struct Server {
    child: Child,
    pub url: String,
    pub dir: PathBuf,
    args: Vec<String>,
}

impl Server {
    /// Starts a server that takes any token, with its data in `dir`, on a free port.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &["--dev".into()], "127.0.0.1:0")
    }

    /// Starts a server with these access flags on this address.
    pub fn start_with(dir: &Path, access: &[String], listen: &str) -> Self {
        Self::try_start(dir, access, listen).expect("the server starts")
    }

    /// As [`Server::start_with`]; `None` if it ends before it has told its address.
    fn try_start(dir: &Path, access: &[String], listen: &str) -> Option<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lastword"))
            .arg("serve")
            .args(["--json", "--listen", listen, "--data"])
            .arg(dir)
            .args(access)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        match listening(&mut child) {
            Some(url) => Some(Self { child, url, dir: dir.into(), args: access.to_vec() }),
            None => {
                child.wait().expect("it has ended");
                None
            }
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.url.trim_start_matches("ws://").trim_end_matches("/sync").to_owned()
    }

    /// Ends the process at once, as SIGKILL does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server ends");
    }

    /// Ends the process as SIGTERM does, and waits until it is gone; it must end well.
    pub fn terminate(&mut self) {
        let sent = Command::new("kill").args(["-s", "TERM", &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        assert!(self.child.wait().expect("it ends").success(), "the server did not end well");
    }

    /// Kills it if it runs, and starts it again on the same port with the same data.
    pub fn restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Starts it again on the same port with the same data, after it has ended. Meanwhile the
    /// system may have given the port to another connection; then it is tried again.
    pub fn start_again(&mut self) {
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            if let Some(server) = Self::try_start(&self.dir, &self.args, &self.address()) {
                *self = server;
                return;
            }
        }
        panic!("the server does not start again on {}", self.address());
    }
}

/// The address that a `serve --json` process tells, or `None` if it ends without.
pub fn listening(child: &mut Child) -> Option<String> {
    let lines = lines_of(child.stdout.take().expect("stdout is piped"));
    let line = match lines.recv_timeout(LIMIT) {
        Ok(line) => line,
        Err(RecvTimeoutError::Disconnected) => return None,
        Err(RecvTimeoutError::Timeout) => {
            child.kill().expect("it can be killed");
            panic!("the server does not tell its address");
        }
    };
    let told: serde_json::Value = serde_json::from_str(&line).expect("one JSON line");
    Some(told["listening"].as_str().expect("an address").to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a run of the command line printed.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Its output, where it must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Its error, where it must have failed with this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }
}

/// `lastword` with these arguments, run in `dir`.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastword"));
    command.current_dir(dir).args(args).env_remove("LASTWORD_TOKEN").stdin(Stdio::null());
    command
}

/// Runs `lastword` with these arguments in `dir` to its end.
pub fn lastword(dir: &Path, args: &[&str]) -> Ran {
    run(command(dir, args))
}

/// Runs `lastword` with this text on stdin.
pub fn with_stdin(dir: &Path, args: &[&str], text: &[u8]) -> Ran {
    let file = dir.join("stdin");
    std::fs::write(&file, text).expect("written");
    let mut command = command(dir, args);
    command.stdin(std::fs::File::open(&file).expect("it is there"));
    run(command)
}

/// Runs a command to its end; one that hangs fails the test.
pub fn run(mut command: Command) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    end(child.expect("the binary runs"))
}

/// Waits until a process with piped stdout and stderr ends; one that hangs fails the test.
pub fn end(mut child: Child) -> Ran {
    let out = read_to_end(child.stdout.take().expect("piped"));
    let err = read_to_end(child.stderr.take().expect("piped"));
    let text = |bytes: Result<Vec<u8>, RecvTimeoutError>| match bytes {
        Ok(bytes) => Some(String::from_utf8(bytes).expect("UTF-8")),
        Err(_) => None,
    };
    let (Some(out), Some(err)) = (text(out.recv_timeout(PATIENCE)), text(err.recv_timeout(LIMIT)))
    else {
        child.kill().expect("it can be killed");
        panic!("a command does not end");
    };
    Ran { code: child.wait().expect("it ends").code().expect("it was not killed"), out, err }
}

/// The lines that a process prints, as they come.
pub fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for text in BufReader::new(pipe).lines() {
            // A test that has ended does not listen.
            let _ = line.send(text.expect("UTF-8"));
        }
    });
    lines
}

/// What a process prints until it closes that pipe.
pub fn read_to_end(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (done, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("the pipe reads");
        // A test that has failed meanwhile does not listen.
        let _ = done.send(bytes);
    });
    read
}

/// Runs `lastword` and parses the JSON line that it prints.
#[track_caller]
pub fn json_of(dir: &Path, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&lastword(dir, args).ok()).expect("one JSON value")
}

/// Runs a script that lies beside the tests.
#[track_caller]
pub fn node(dir: &Path, script: &str, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server").join(script);
    let output = Command::new("node").current_dir(dir).arg(script).args(args).output();
    let output = output.expect("the tests need Node 18 or later: `make deps` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A device with one workspace, `main`.
pub struct Device {
    pub db: Database,
    pub ws: Workspace,
    pub sync: Option<Sync>,
}

impl Device {
    pub fn open(dir: &Path) -> Self {
        let db = Database::open(dir).expect("the device opens");
        let ws = db.workspace("main").expect("a valid name");
        Self { db, ws, sync: None }
    }

    pub fn connect(&mut self, url: &str, token: &str) {
        let remote = Remote::new(url).expect("a valid address").token(token);
        let sync = self.db.connect(remote).expect("a thread");
        sync.attach(&self.ws).expect("the driver runs");
        self.sync = Some(sync);
    }

    pub fn disconnect(&mut self) {
        self.sync = None;
    }

    /// Connects, catches up once, and disconnects.
    pub fn catch_up(&mut self, url: &str) -> lastword::SyncReport {
        self.connect(url, "ann");
        let report = self.caught_up();
        self.disconnect();
        report
    }

    pub fn caught_up(&self) -> lastword::SyncReport {
        let sync = self.sync.as_ref().expect("connected");
        sync.wait_caught_up(&self.ws, Some(LIMIT)).expect("the device catches up")
    }

    pub fn put(&self, table: &str, key: &str, json: &str) -> lastword::Receipt {
        let (table, key) = name(table, key);
        let record = json::parse_record(json).expect("a valid record");
        self.ws
            .write(|tx| tx.put_record(&table, &key, record.clone()))
            .expect("the write is durable")
    }

    pub fn patch(&self, table: &str, key: &str, json: &str) -> lastword::Receipt {
        let (table, key) = name(table, key);
        let set = json::parse_record(json).expect("valid fields").fields().to_vec();
        self.ws
            .write(|tx| tx.patch_record(&table, &key, set.clone(), Vec::new()))
            .expect("the write is durable")
    }

    pub fn delete(&self, table: &str, key: &str) -> lastword::Receipt {
        let (table, key) = name(table, key);
        self.ws.write(|tx| tx.delete_record(&table, &key)).expect("the write is durable")
    }

    pub fn undelete(&self, table: &str, key: &str) -> lastword::Receipt {
        let (table, key) = name(table, key);
        self.ws.write(|tx| tx.undelete_record(&table, &key)).expect("the write is durable")
    }

    /// The record as JSON, if it is live.
    pub fn get(&self, table: &str, key: &str) -> Option<String> {
        let (table, key) = name(table, key);
        let shown = self.ws.get_record(&table, &key).expect("the store reads")?;
        Some(json::record_to_string(&shown.record).expect("the record decodes"))
    }

    /// Waits until a record has this value.
    pub fn wait_for(&self, table: &str, key: &str, json: Option<&str>) {
        let until = std::time::Instant::now() + LIMIT;
        loop {
            let view = self.ws.read().expect("the store reads");
            let value = self.get(table, key);
            if value.as_deref() == json {
                return;
            }
            let left = until.saturating_duration_since(std::time::Instant::now());
            assert!(
                self.ws.wait_after(&view, Some(left)),
                "{table}/{key} is {value:?}, expected {json:?}"
            );
        }
    }

    /// All live rows of one table as (key, JSON).
    pub fn rows(&self, table: &str) -> Vec<(String, String)> {
        let (table, _) = name(table, "x");
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let view = self.ws.read().expect("the store reads");
        let rows = view.range(&table, all, false, usize::MAX).expect("the rows read");
        rows.into_iter()
            .map(|row| {
                let json = json::record_to_string(&row.record).expect("the record decodes");
                (row.key.as_str().to_owned(), json)
            })
            .collect()
    }
}

pub fn name(table: &str, key: &str) -> (TableName, Key) {
    (TableName::new(table).expect("a valid table"), Key::new(key).expect("a valid key"))
}

/// Flips a bit at this byte of the first pack of a store that nobody has open.
pub fn damage_pack(dir: &Path, at: usize) {
    let packs = std::fs::read_dir(dir).expect("it lists");
    // Byte 10 of a header tells what a file is, and 3 is a pack.
    let is_pack = |path: &PathBuf| std::fs::read(path).is_ok_and(|b| b.get(10) == Some(&3));
    let pack = packs.map(|entry| entry.expect("it is").path()).find(is_pack).expect("a pack");
    let mut bytes = std::fs::read(&pack).expect("it reads");
    bytes[at] ^= 4;
    std::fs::write(&pack, bytes).expect("it writes");
}
