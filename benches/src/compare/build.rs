//! The program as users have it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// Where cargo puts it: beside this program.
pub(crate) fn server_binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let binary = own.with_file_name(format!("lastword{}", std::env::consts::EXE_SUFFIX));
    match binary.exists() {
        true => Ok(binary),
        false => Err(format!("there is no {}", binary.display()).into()),
    }
}

/// The server as users have it, built from the same sources as this program.
pub(crate) fn build_server() -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "lastword-server", "--manifest-path"]);
    build.arg(manifest);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    match build.status()?.success() {
        true => Ok(()),
        false => Err("the server does not build".into()),
    }
}
