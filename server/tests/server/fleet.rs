//! Fifty devices, each a process of its own, behind a network that fails, while the server and they
//! are killed and restarted: in the end all are equal, and nothing acknowledged is missing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Chance, PATIENCE, Server, command, json_of, lastword, lines_of};
use crate::proxy::{FAULTS, Proxy};

const DEVICES: usize = 50;
/// Records that all devices fight for.
const KEYS: usize = 200;
const FIELDS: [&str; 3] = ["title", "body", "done"];
/// How long it rages, in seconds, unless `LASTWORD_STORM_SECONDS` says otherwise.
const SECONDS: u64 = 15;
/// The server is killed or ended this often.
const RESTART_EVERY: Duration = Duration::from_secs(5);

/// A device process, and what it has said yes to.
struct Device {
    number: usize,
    child: Child,
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
    /// Its own records: number of the write to each.
    own: BTreeMap<String, usize>,
}

impl Device {
    fn start(dir: &Path, url: &str, number: usize) -> Self {
        let (data, token) = (format!("device-{number}"), format!("user-{number}"));
        let args = ["demo-device", "--server", url, "--token", &token, "--data", &data];
        let mut process = command(dir, &args);
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.spawn().expect("the binary runs");
        let commands = child.stdin.take();
        let answers = lines_of(child.stdout.take().expect("piped"));
        Self { number, child, commands, answers, own: BTreeMap::new() }
    }

    /// Sends a command without waiting for its answer.
    fn ask(&mut self, command: &Value) {
        let commands = self.commands.as_mut().expect("it was not stopped");
        writeln!(commands, "{command}").expect("the device listens");
    }

    fn answer(&self) -> Value {
        let line = self.answers.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("device {}: {error}", self.number));
        serde_json::from_str(&line).expect("JSON")
    }

    /// Its answer to a command that cannot fail.
    #[track_caller]
    fn tell(&mut self, command: &Value) -> Value {
        self.ask(command);
        let answer = self.answer();
        assert_eq!(answer["error"], Value::Null, "device {}: {command}", self.number);
        answer
    }

    /// Ends it: at once, or with its store closed in good order; and starts it again.
    fn restart(&mut self, dir: &Path, url: &str, at_once: bool) {
        if at_once {
            self.child.kill().expect("it can be killed");
        }
        self.commands = None;
        let ended = self.child.wait().expect("it ends");
        assert!(at_once || ended.success(), "device {}: {ended}", self.number);
        let own = std::mem::take(&mut self.own);
        *self = Self::start(dir, url, self.number);
        self.own = own;
    }

    /// One random edit: of a record that all fight for, or of one of its own.
    fn edit(&mut self, chance: &mut Chance, step: usize) {
        if chance.below(4) == 0 {
            let key = format!("d{:02}-{:04}", self.number, self.own.len());
            self.tell(&put("own", &key, json!({ "step": step })));
            self.own.insert(key, step);
            return;
        }
        let key = format!("n{}", chance.below(KEYS));
        let value = json!({ FIELDS[chance.below(FIELDS.len())]: format!("step {step}") });
        let what = ["put", "put", "patch", "patch", "patch", "delete", "undelete"];
        let what = what[chance.below(what.len())];
        self.ask(&json!({ "do": what, "table": "notes", "key": key, "value": value }));
        // What does not fit the record as this device shows it is no write.
        let answer = self.answer();
        let fits = [format!("notes/{key} does not exist"), format!("notes/{key} is not deleted")];
        let error = answer["error"].as_str();
        assert!(error.is_none_or(|error| fits.iter().any(|fit| fit == error)), "{answer}");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn put(table: &str, key: &str, value: Value) -> Value {
    json!({ "do": "put", "table": table, "key": key, "value": value })
}

/// Edits, devices that go, come and die, and a server that is killed and ended by turns.
fn rage(
    dir: &Path,
    (server, proxy): (&mut Server, &Proxy),
    devices: &mut [Device],
    (chance, time): (&mut Chance, Duration),
) {
    let begun = Instant::now();
    let (mut step, mut restarts) = (0, 0);
    // On a machine that is busy with other things a start may take long.
    while begun.elapsed() < time || restarts < 2 {
        step += 1;
        let device = &mut devices[chance.below(DEVICES)];
        match chance.below(200) {
            0..=1 => device.restart(dir, &proxy.url, true),
            2 => device.restart(dir, &proxy.url, false),
            3..=4 => drop(device.tell(&json!({ "do": "disconnect" }))),
            // Those that restarted or went are connected again by and by.
            5..=24 => drop(device.tell(&json!({ "do": "follow" }))),
            _ => device.edit(chance, step),
        }
        if begun.elapsed() > RESTART_EVERY * (restarts + 1) {
            match restarts % 2 {
                0 => server.kill(),
                _ => server.terminate(),
            }
            server.start_again();
            restarts += 1;
        }
    }
    let struck = proxy.struck();
    eprintln!("{step} steps, {restarts} restarts of the server, struck {struck:?}");
    assert!(FAULTS.iter().all(|fault| struck.contains_key(fault)), "{struck:?}");
}

/// A record of each device, put when all was over, is on every device: the stream has one order, so
/// what was written before is there as well.
fn come_to_rest(devices: &mut [Device]) {
    let last = |number: usize| put("end", &format!("d{number}"), json!({ "number": number }));
    for device in devices.iter_mut() {
        device.tell(&json!({ "do": "follow" }));
        device.tell(&last(device.number));
    }
    let until = Instant::now() + PATIENCE;
    let patiently = |device: &mut Device, command: Value| loop {
        // The device waits itself; one that is still trying to connect says so at once.
        device.ask(&command);
        let answer = device.answer();
        if answer["error"].is_null() {
            break;
        }
        assert!(Instant::now() < until, "device {}: {command}: {answer}", device.number);
    };
    for device in devices {
        for number in 0..DEVICES {
            let mut command = last(number);
            command["do"] = "wait".into();
            patiently(device, command);
        }
        patiently(device, json!({ "do": "catch up" }));
    }
}

/// I1, I16, I17, I19, I22, R2.4, R3.5: fifty device processes write while a proxy cuts, delays,
/// throttles, stalls and half-opens their connections and loses what one side says, while the
/// server is killed and ended and devices are killed and restarted. Once that is over they all come
/// to the same rows and the same digest as the server, with nothing waiting, and every record that
/// a device had said yes to is there with its value.
#[test]
fn a_fleet_behind_a_failing_network_ends_equal() {
    let number =
        |name, usual| std::env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    let seed = number("LASTWORD_STORM_SEED", 20_261_124);
    let time = Duration::from_secs(number("LASTWORD_STORM_SECONDS", SECONDS));
    eprintln!("seed {seed}, {time:?}");
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::start(&dir.path().join("server"));
    let proxy = Proxy::start(&server.address(), seed, time / 2);
    let mut devices: Vec<Device> =
        (0..DEVICES).map(|number| Device::start(dir.path(), &proxy.url, number)).collect();
    devices.iter_mut().for_each(|device| drop(device.tell(&json!({ "do": "follow" }))));
    let mut chance = Chance::new(seed);
    rage(dir.path(), (&mut server, &proxy), &mut devices, (&mut chance, time));
    proxy.calm();
    let begun = Instant::now();
    come_to_rest(&mut devices);
    eprintln!("at rest after {:.1} s", begun.elapsed().as_secs_f64());

    let expected = devices[0].tell(&json!({ "do": "export" }))["lines"].clone();
    let digest = devices[0].tell(&json!({ "do": "status" }))["digest"].clone();
    for device in &mut devices {
        let name = format!("seed {seed}, device {}", device.number);
        let status = device.tell(&json!({ "do": "status" }));
        assert_eq!((&status["undecided"], &status["settled"]), (&0.into(), &0.into()), "{name}");
        assert_eq!(status["digest"], digest, "{name}");
        assert!(device.tell(&json!({ "do": "export" }))["lines"] == expected, "{name}");
    }
    let lines = expected.as_array().expect("lines").iter().filter_map(Value::as_str);
    let own: Vec<&str> = lines.filter(|line| line.starts_with("own/")).collect();
    let mut said: Vec<String> = Vec::new();
    for device in &devices {
        let line = |(key, step): (&String, &usize)| format!(r#"own/{key} {{"step":{step}}}"#);
        said.extend(device.own.iter().map(line));
    }
    assert_eq!(own, said, "seed {seed}: what was written is not what is there");

    server.terminate();
    let told = json_of(dir.path(), &["status", "--data", "server", "--json"]);
    assert_eq!(told["workspaces"][0]["digest"], digest, "seed {seed}");
    let lines = expected.as_array().expect("lines").iter().filter_map(Value::as_str);
    let export: String = lines.map(export_line).collect();
    let exported = lastword(dir.path(), &["export", "--data", "server"]).ok();
    assert!(exported == export, "seed {seed}: the server's export differs");
}

/// What `lastword export` prints of a record that a device tells as `table/key value`.
fn export_line(line: &str) -> String {
    let (name, value) = line.split_once(' ').expect("a value");
    let (table, key) = name.split_once('/').expect("a key");
    format!("{{\"table\":\"{table}\",\"key\":\"{key}\",\"value\":{value}}}\n")
}
