//! A command as a process of its own: what it took of the processor and of memory.
//!
//! The system counts memory for all ended children together, so each command is started by a
//! process that starts nothing else.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

use crate::Result;

/// What one run of a command took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    /// User and system, all threads.
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
    /// Most that was resident at once.
    pub(crate) peak_bytes: f64,
}

/// Processor time of this thread, in seconds.
pub(crate) fn thread_cpu_s() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

/// Runs a command to its end; an error has what it said.
pub(crate) fn measure(command: &Command) -> Result<Took> {
    let mut outer = Command::new(std::env::current_exe()?);
    outer.arg("took").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        outer.env(name, value.unwrap_or_default());
    }
    if let Some(dir) = command.get_current_dir() {
        outer.current_dir(dir);
    }
    let done = outer.stdin(Stdio::null()).output()?;
    let told = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        let last: Vec<&str> = told.lines().rev().take(3).collect();
        return Err(format!("{:?} failed: {}", command.get_program(), last.join("; ")).into());
    }
    let took: Value = serde_json::from_slice(&done.stdout)?;
    let figure = |name: &str| took[name].as_f64().ok_or("not a figure");
    Ok(Took {
        cpu_s: figure("cpu_s")?,
        wall_s: figure("wall_s")?,
        peak_bytes: figure("peak_bytes")?,
    })
}

/// The process between: runs the command and prints what it took.
pub(crate) fn took(command: &[OsString]) -> Result<()> {
    let (program, args) = command.split_first().ok_or("no command")?;
    let begun = Instant::now();
    let status = Command::new(program).args(args).stdout(Stdio::null()).status()?;
    let wall_s = begun.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let cpu = usage.user_time() + usage.system_time();
    let line = json!({
        "cpu_s": cpu.num_microseconds() as f64 / 1e6,
        "wall_s": wall_s,
        "peak_bytes": usage.max_rss() as f64 * 1024.0,
    });
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
