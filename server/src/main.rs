//! The Lastword binary.
#![forbid(unsafe_code)]
use std::path::PathBuf;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let get =
        |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    match args.get(1).map(String::as_str) {
        Some("demo-device") => {
            lastword_server::demo::device::run(
                std::path::Path::new(&get("--data").unwrap()),
                &get("--server").unwrap(),
                &get("--token").unwrap(),
            )
            .unwrap();
            return;
        }
        Some("demo") => {
            let plant = match get("--plant").as_deref() {
                Some("unsent-write") => Some(lastword_server::demo::Fault::UnsentWrite),
                Some(_) => Some(lastword_server::demo::Fault::ForgetfulServer),
                None => None,
            };
            if let Err(e) = lastword_server::demo::run(&mut std::io::stdout(), plant) {
                eprintln!("error: {e}");
                std::process::exit(1);
            }
            return;
        }
        _ => {}
    }
    let options = lastword_server::serve::ServeOptions {
        data: PathBuf::from(get("--data").unwrap_or_default()),
        listen: get("--listen").unwrap_or_default().parse().expect("addr"),
        access: match get("--tokens") {
            Some(p) => lastword_server::serve::Access::Tokens(p.into()),
            None => lastword_server::serve::Access::Dev,
        },
        json: true,
    };
    if let Err(e) = lastword_server::serve::run(&options) {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}
