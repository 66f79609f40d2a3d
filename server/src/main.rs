//! The Lastword binary.
#![forbid(unsafe_code)]
use std::path::PathBuf;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let get =
        |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
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
