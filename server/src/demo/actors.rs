//! The processes of the demo: a server and devices, each the same binary started anew.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::Failure;

/// A server process.
pub(super) struct Server {
    child: Child,
    pub(super) url: String,
    dir: PathBuf,
}

impl Server {
    pub(super) fn start(dir: &Path, listen: &str) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", "--dev", "--json", "--listen", listen, "--data"])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the server has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line)
            .map_err(|_| format!("the server did not tell its address: {line:?}"))?;
        let url = told.get("listening").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { child, url, dir: dir.into() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no chance to finish anything.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The same data on the same port.
    pub(super) fn start_again(&self) -> Result<Self, Failure> {
        let address = self.url.trim_start_matches("ws://").trim_end_matches("/sync");
        Self::start(&self.dir, address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already, which is the point of the demo.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A device process.
pub(super) struct Device {
    pub(super) name: &'static str,
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Device {
    pub(super) fn start(name: &'static str, dir: &Path, server: &str) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["demo-device", "--server", server, "--token", "demo", "--data"])
            .arg(dir.join(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("the device has no stdout")?);
        Ok(Self { name, child, commands, answers })
    }

    /// Sends a command without waiting for its answer.
    pub(super) fn ask(&mut self, command: &Value) -> Result<(), Failure> {
        let commands = self.commands.as_mut().ok_or("the device was stopped")?;
        writeln!(commands, "{command}")?;
        Ok(commands.flush()?)
    }

    /// The answer to the oldest command that has none.
    pub(super) fn answer(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("{} ended unexpectedly", self.name).into());
        }
        let answer: Value = serde_json::from_str(&line)?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(format!("{}: {error}", self.name).into()),
            None => Ok(answer),
        }
    }

    pub(super) fn tell(&mut self, command: &Value) -> Result<Value, Failure> {
        self.ask(command)?;
        self.answer()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The end of its commands ends the process, with its store closed cleanly.
        self.commands = None;
        let _ = self.child.wait();
    }
}
