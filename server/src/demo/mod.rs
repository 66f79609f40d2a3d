//! `lastword demo`: one server and three devices, real processes and sockets, one readable story.
//!
//! Every number in it is measured while it runs; a step that does not do what it says ends the demo
//! with what was expected and what was found.

mod actors;
pub mod device;

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use lastword::core::id::WorkspaceName;
use lastword::core::json;
use lastword::{Authority, WorkspaceView};
use serde_json::{Value, json};

use actors::{Device, Server};

type Failure = Box<dyn std::error::Error>;

/// Width of the transcript's text.
const TEXT_COLUMNS: usize = 88;
/// Writes of the latency step.
const LATENCY_WRITES: usize = 25;
/// Notes written offline.
const OFFLINE_NOTES: u64 = 40;
/// Notes acknowledged before the server is killed.
const ACKNOWLEDGED_NOTES: u64 = 50;

/// A fault that the demo plants in itself, to prove that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// A device keeps one write to itself.
    UnsentWrite,
    /// The server comes back without its data.
    ForgetfulServer,
}

/// Runs the demo and writes its transcript to `out`.
///
/// # Errors
/// What a step expected and what it found instead.
pub fn run(out: &mut dyn Write, json: bool, plant: Option<Fault>) -> Result<(), Failure> {
    let dir = scratch_dir()?;
    let told = Story::begin(out, json, &dir, plant).and_then(Story::tell);
    // The folder is the system's temporary one; leaving it behind harms nobody.
    let _ = std::fs::remove_dir_all(&dir);
    told
}

fn scratch_dir() -> Result<std::path::PathBuf, Failure> {
    let name = format!("lastword-demo-{}-{}", std::process::id(), lastword::now_ms());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Every live record of a workspace as JSON lines, sorted by (table, key), product tables left out.
pub(crate) fn export_lines(view: &WorkspaceView) -> lastword::Result<Vec<String>> {
    let mut lines = Vec::new();
    view.visit_all(&mut |shown, deleted| {
        if !deleted && !shown.table.is_reserved() {
            let value = json::record_to_string(&shown.record).unwrap_or_default();
            lines.push(format!("{}/{} {value}", shown.table, shown.key));
        }
        Ok(())
    })?;
    Ok(lines)
}

struct Story<'a> {
    out: &'a mut dyn Write,
    json: bool,
    dir: &'a Path,
    plant: Option<Fault>,
    server: Server,
    phone: Device,
    laptop: Device,
    tablet: Device,
    begun: Instant,
}

/// Broken into lines that fit a terminal, the later ones under the first.
fn wrapped(text: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        if column > 0 && column + word.len() + 1 > TEXT_COLUMNS {
            out.push_str("\n          ");
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out
}

fn put(key: &str, value: Value) -> Value {
    json!({ "do": "put", "table": "notes", "key": key, "value": value })
}

fn on(what: &str, key: &str) -> Value {
    json!({ "do": what, "table": "notes", "key": key })
}

fn number(answer: &Value, name: &str) -> u64 {
    answer.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn millis(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

fn expect(what: &str, expected: &Value, found: &Value) -> Result<(), Failure> {
    if expected == found {
        return Ok(());
    }
    Err(format!("{what}\n  expected: {expected}\n  found:    {found}").into())
}

impl<'a> Story<'a> {
    fn begin(
        out: &'a mut dyn Write,
        json: bool,
        dir: &'a Path,
        plant: Option<Fault>,
    ) -> Result<Self, Failure> {
        let begun = Instant::now();
        let server = Server::start(&dir.join("server"), "127.0.0.1:0")?;
        let start = |name| Device::start(name, dir, &server.url);
        let (phone, laptop, tablet) = (start("phone")?, start("laptop")?, start("tablet")?);
        let mut story = Self { out, json, dir, plant, server, phone, laptop, tablet, begun };
        for device in [&mut story.phone, &mut story.laptop, &mut story.tablet] {
            device.tell(&json!({ "do": "connect" }))?;
        }
        let line = format!(
            "one server (process {}, {}) and three devices, each its own process, are up in {}",
            story.server.pid(),
            story.server.url,
            millis(u64::try_from(begun.elapsed().as_micros())?)
        );
        story.say("start", &line)?;
        Ok(story)
    }

    fn say(&mut self, step: &str, line: &str) -> Result<(), Failure> {
        match self.json {
            true => writeln!(self.out, "{}", json!({ "step": step, "text": line }))?,
            false => writeln!(self.out, "{step:<9} {}", wrapped(line))?,
        }
        Ok(self.out.flush()?)
    }

    fn tell(mut self) -> Result<(), Failure> {
        self.a_write_is_seen_elsewhere()?;
        self.offline_writes_arrive()?;
        self.a_conflict_is_decided()?;
        self.a_delete_stays()?;
        self.the_server_is_killed()?;
        self.four_copies_are_equal()
    }

    fn a_write_is_seen_elsewhere(&mut self) -> Result<(), Failure> {
        let mut latencies = Vec::new();
        for at in 0..LATENCY_WRITES {
            let (key, value) = (format!("hello-{at}"), json!({ "text": "hi", "n": at }));
            let mut wait = put(&key, value.clone());
            wait["do"] = json!("wait");
            self.laptop.ask(&wait)?;
            let written = self.phone.tell(&put(&key, value))?;
            let seen = self.laptop.answer()?;
            latencies.push(number(&seen, "at_us").saturating_sub(number(&written, "begun_us")));
        }
        latencies.sort_unstable();
        let median = latencies.get(LATENCY_WRITES / 2).copied().unwrap_or_default();
        let slowest = latencies.last().copied().unwrap_or_default();
        let line = format!(
            "{LATENCY_WRITES} writes on phone, each durable on phone, on the server and on laptop \
             when laptop shows it: median {}, slowest {}",
            millis(median),
            millis(slowest)
        );
        self.say("live", &line)
    }

    fn offline_writes_arrive(&mut self) -> Result<(), Failure> {
        // Laptop may have seen the last write before phone had its verdict.
        self.phone.tell(&json!({ "do": "catch up" }))?;
        self.phone.tell(&json!({ "do": "disconnect" }))?;
        for at in 0..OFFLINE_NOTES {
            let key = format!("tunnel-{at:02}");
            self.phone.tell(&put(&key, json!({ "text": "in the tunnel", "n": at })))?;
        }
        let waiting = self.phone.tell(&json!({ "do": "status" }))?;
        expect("outbox of phone while offline", &json!(OFFLINE_NOTES), &waiting["undecided"])?;
        let last = format!("tunnel-{:02}", OFFLINE_NOTES - 1);
        let unseen = self.laptop.tell(&on("get", &last))?;
        expect("laptop before phone is back", &Value::Null, &unseen["value"])?;
        let mut wait = put(&last, json!({ "text": "in the tunnel", "n": OFFLINE_NOTES - 1 }));
        wait["do"] = json!("wait");
        self.laptop.ask(&wait)?;
        let connected = self.phone.tell(&json!({ "do": "connect" }))?;
        let seen = self.laptop.answer()?;
        let took = number(&seen, "at_us").saturating_sub(number(&connected, "begun_us"));
        let line = format!(
            "{OFFLINE_NOTES} notes written on phone with no network; its outbox held {}; \
             all were on laptop {} after phone came back",
            waiting["undecided"],
            millis(took)
        );
        self.say("offline", &line)
    }

    fn a_conflict_is_decided(&mut self) -> Result<(), Failure> {
        self.phone.tell(&put("plan", json!({ "title": "picnic", "place": "park" })))?;
        self.everyone_catches_up()?;
        self.phone.tell(&json!({ "do": "disconnect" }))?;
        self.laptop.tell(&json!({ "do": "disconnect" }))?;
        let patch = |value: Value| json!({ "do": "patch", "table": "notes", "key": "plan", "value": value });
        self.phone.tell(&patch(json!({ "title": "lunch", "place": "lake" })))?;
        self.laptop.tell(&patch(json!({ "title": "dinner" })))?;
        self.phone.tell(&json!({ "do": "connect" }))?;
        self.laptop.tell(&json!({ "do": "connect" }))?;
        self.everyone_catches_up()?;
        let both = json!({ "title": "dinner", "place": "lake" });
        for device in [&mut self.phone, &mut self.laptop, &mut self.tablet] {
            let found = device.tell(&on("get", "plan"))?;
            expect(&format!("notes/plan on {}", device.name), &both, &found["value"])?;
        }
        let told = self.tablet.tell(&json!({ "do": "conflicts" }))?;
        let conflicts = told["conflicts"].as_array().cloned().unwrap_or_default();
        expect("number of conflicts", &json!(1), &json!(conflicts.len()))?;
        let conflict = conflicts.first().cloned().unwrap_or_default();
        let sides = json!({ "title": { "winning": "dinner", "losing": "lunch" } });
        expect("the disputed fields", &sides, &conflict["fields"])?;
        let line = format!(
            "phone and laptop edited one note while apart: laptop's title {} (seq {}) came after \
             phone's {} (seq {}), so it wins everywhere; phone's place stays; the conflict row \
             keeps both titles",
            conflict["fields"]["title"]["winning"],
            conflict["winning_seq"],
            conflict["fields"]["title"]["losing"],
            conflict["losing_seq"]
        );
        self.say("conflict", &line)
    }

    fn a_delete_stays(&mut self) -> Result<(), Failure> {
        self.phone.tell(&put("secret", json!({ "text": "gone soon" })))?;
        self.everyone_catches_up()?;
        self.laptop.tell(&json!({ "do": "disconnect" }))?;
        self.laptop.tell(&json!({
            "do": "patch", "table": "notes", "key": "secret", "value": { "text": "stale edit" },
        }))?;
        self.phone.tell(&on("delete", "secret"))?;
        self.everyone_catches_up_but_laptop()?;
        self.laptop.tell(&json!({ "do": "connect" }))?;
        self.everyone_catches_up()?;
        for device in [&mut self.phone, &mut self.laptop, &mut self.tablet] {
            let found = device.tell(&on("get", "secret"))?;
            expect(&format!("deleted note on {}", device.name), &Value::Null, &found["value"])?;
        }
        self.laptop.tell(&on("undelete", "secret"))?;
        self.everyone_catches_up()?;
        let found = self.tablet.tell(&on("get", "secret"))?;
        expect("the undeleted note", &json!({ "text": "gone soon" }), &found["value"])?;
        self.say(
            "delete",
            "phone deleted a note, laptop's offline edit of it arrived later and did not bring it \
             back; undelete brought back exactly what was deleted",
        )
    }

    fn the_server_is_killed(&mut self) -> Result<(), Failure> {
        for at in 0..ACKNOWLEDGED_NOTES {
            self.phone.tell(&put(&format!("kept-{at:02}"), json!({ "n": at })))?;
        }
        self.phone.tell(&json!({ "do": "catch up" }))?;
        let before = self.phone.tell(&json!({ "do": "status" }))?;
        self.server.kill()?;
        self.laptop.tell(&put("meanwhile", json!({ "text": "written with the server dead" })))?;
        if self.plant == Some(Fault::ForgetfulServer) {
            std::fs::remove_dir_all(self.dir.join("server"))?;
        }
        let again = Instant::now();
        self.server = self.server.start_again()?;
        let back = millis(u64::try_from(again.elapsed().as_micros())?);
        reconnect(&mut [&mut self.laptop, &mut self.phone, &mut self.tablet])?;
        let found = self.tablet.tell(&on("get", "meanwhile"))?;
        let meanwhile = json!({ "text": "written with the server dead" });
        expect("the note written meanwhile, on tablet", &meanwhile, &found["value"])?;
        let after = self.tablet.tell(&json!({ "do": "status" }))?;
        let rows = json!(number(&before, "rows") + 1);
        expect("records after the kill", &rows, &after["rows"])?;
        let line = format!(
            "the server was killed (SIGKILL) after it had acknowledged {} records, and was back \
             {back} later; all {} are there, and laptop's write of the meantime too",
            before["rows"], before["rows"]
        );
        self.say("kill", &line)
    }

    fn four_copies_are_equal(mut self) -> Result<(), Failure> {
        if self.plant == Some(Fault::UnsentWrite) {
            self.tablet.tell(&json!({ "do": "disconnect" }))?;
            self.tablet.tell(&put("private", json!({ "text": "never sent" })))?;
        }
        let mut copies = Vec::new();
        for device in [&mut self.phone, &mut self.laptop, &mut self.tablet] {
            let export = device.tell(&json!({ "do": "export" }))?;
            copies.push((device.name, export["lines"].clone()));
        }
        self.server.kill()?;
        let authority = Authority::open(&self.dir.join("server"))?;
        let lines = export_lines(&authority.read(&WorkspaceName::new("main")?)?)?;
        authority.close()?;
        let server = json!(lines);
        for (name, copy) in &copies {
            if let Some(at) = first_difference(&server, copy) {
                let text = |lines: &Value| lines.get(at).cloned().unwrap_or_default();
                let what = format!("line {} of the export of {name} against the server's", at + 1);
                expect(&what, &text(&server), &text(copy))?;
            }
        }
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        let line = format!(
            "the exports of phone, laptop, tablet and server are equal, byte for byte: {} records, \
             {bytes} bytes each",
            lines.len()
        );
        self.say("equal", &line)?;
        let took = format!("everything above took {:.1} s", self.begun.elapsed().as_secs_f64());
        self.say("done", &took)
    }

    fn everyone_catches_up(&mut self) -> Result<(), Failure> {
        level(&mut [&mut self.laptop, &mut self.phone, &mut self.tablet])
    }

    fn everyone_catches_up_but_laptop(&mut self) -> Result<(), Failure> {
        level(&mut [&mut self.phone, &mut self.tablet])
    }
}

/// Everyone sends what it has; then everyone reconnects, which reaches the head of that moment.
fn level(devices: &mut [&mut Device]) -> Result<(), Failure> {
    for device in devices.iter_mut() {
        device.tell(&json!({ "do": "catch up" }))?;
    }
    reconnect(devices)
}

fn reconnect(devices: &mut [&mut Device]) -> Result<(), Failure> {
    for device in devices {
        device.tell(&json!({ "do": "disconnect" }))?;
        device.tell(&json!({ "do": "connect" }))?;
    }
    Ok(())
}

fn first_difference(one: &Value, other: &Value) -> Option<usize> {
    let (one, other) = (one.as_array()?, other.as_array()?);
    (0..one.len().max(other.len())).find(|at| one.get(*at) != other.get(*at))
}
