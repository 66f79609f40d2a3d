//! Processes that are told what to do: one JSON line in, one JSON line out.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::Value;

use crate::Result;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(900);

/// A process of one engine: its server, or one of its devices.
pub(crate) struct Process {
    name: String,
    child: Child,
    commands: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(name: &str, mut command: Command) -> Result<Process> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = child.stdin.take();
        let out = child.stdout.take().ok_or("a process without stdout")?;
        let (line, lines) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("lines".into()).spawn(move || {
            // Nobody listens any more once the process was given up.
            BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .for_each(|text| drop(line.send(text)));
        })?;
        Ok(Process { name: name.to_owned(), child, commands, lines })
    }

    /// Sends a command without waiting for its answer.
    pub(crate) fn ask(&mut self, command: &Value) -> Result<()> {
        let commands = self.commands.as_mut().ok_or("the process has no stdin")?;
        writeln!(commands, "{command}")?;
        Ok(())
    }

    /// The next line that it prints.
    pub(crate) fn answer(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(LIMIT).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                format!("{}: no answer in {} s", self.name, LIMIT.as_secs())
            }
            RecvTimeoutError::Disconnected => format!("{}: ended", self.name),
        })?;
        let answer: Value = serde_json::from_str(&line)
            .map_err(|_| format!("{}: not an answer: {line:?}", self.name))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(format!("{}: {error}", self.name).into()),
            None => Ok(answer),
        }
    }

    pub(crate) fn tell(&mut self, command: &Value) -> Result<Value> {
        self.ask(command)?;
        self.answer()
    }

    /// Most memory that it ever had, in bytes; zero where the system does not say.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
