//! Plays the conformance suite against a store that speaks S3. It writes to workspaces of its own
//! and deletes what it wrote; docs/operations.md, "Try an object store", has a command line.
//!
//! Arguments: names of points that the server is known not to enforce.

use std::env;
use std::error::Error;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lastword_providers::capability::{Capabilities, Capability};
use lastword_providers::client::Client;
use lastword_providers::conformance::{NotEnforced, Point, World, run};
use lastword_providers::http::HttpClient;
use lastword_providers::s3::{Credentials, S3Config, S3Provider, Style};

struct Now(Client);

impl World for Now {
    fn http(&self) -> &dyn HttpClient {
        &self.0
    }

    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn wait_until(&self, at_ms: u64) {
        thread::sleep(Duration::from_millis(at_ms.saturating_sub(self.now_ms())));
    }
}

fn setting(name: &str) -> Result<String, String> {
    let name = format!("LASTWORD_S3_{name}");
    env::var(&name).map_err(|_| format!("{name} is not set"))
}

/// Every promise but those that `LASTWORD_S3_LACKS` names, with commas between them.
fn capabilities() -> Result<Capabilities, String> {
    let lacks = setting("LACKS").unwrap_or_default();
    let mut names = lacks.split(',').filter(|name| !name.is_empty());
    names.try_fold(Capabilities::all(), |all, name| {
        let lacks = Capability::ALL.into_iter().find(|capability| capability.name() == name);
        let lacks = lacks.ok_or_else(|| format!("there is no capability {name:?}"))?;
        Ok(all.without(lacks))
    })
}

fn provider() -> Result<S3Provider, Box<dyn Error>> {
    let virtual_host = setting("STYLE").is_ok_and(|style| style == "virtual-host");
    let config = S3Config {
        id: "s3".to_owned(),
        endpoint: setting("ENDPOINT")?,
        region: setting("REGION").unwrap_or_else(|_| "us-east-1".to_owned()),
        bucket: setting("BUCKET")?,
        style: if virtual_host { Style::VirtualHost } else { Style::Path },
        credentials: Credentials::new(&setting("ACCESS_KEY")?, &setting("SECRET_KEY")?),
        capabilities: capabilities()?,
    };
    Ok(S3Provider::new(config, Arc::new(Client::new()))?)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut marks = Vec::new();
    for name in env::args().skip(1) {
        let point = Point::ALL.iter().find(|point| point.name() == name);
        let point = *point.ok_or_else(|| format!("there is no point {name:?}"))?;
        marks.push(NotEnforced { point, why: "said on the command line".to_owned() });
    }
    let report = run(&provider()?, &Now(Client::new()), "conformance", &marks);
    write!(stdout(), "{report}")?;
    Ok(if report.failed().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
