//! The one binary of Lastword: server, command line, demo.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use lastword_server::cli;

fn main() -> ExitCode {
    let filter = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    let filter = filter.with_ansi(std::io::stderr().is_terminal());
    filter.with_max_level(tracing::Level::WARN).init();
    let (json, result) = cli::run();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.code as u8;
            if json {
                eprintln!("{}", serde_json::json!({ "error": failure.message, "code": code }));
            } else {
                eprintln!("error: {}", failure.message);
            }
            ExitCode::from(code)
        }
    }
}
