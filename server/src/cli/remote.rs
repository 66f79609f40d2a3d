//! The server that a device's directory remembers: `remote.toml`, readable by its owner only.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::failure::Failure;

const FILE: &str = "remote.toml";
/// Largest `remote.toml` in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Where the server is and what it knows the user by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remembered {
    pub(super) url: String,
    pub(super) token: String,
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// What the directory remembers, if anything.
pub(super) fn read(dir: &Path) -> Result<Option<Remembered>, Failure> {
    let path = path(dir);
    let bad = |reason: String| {
        let path = path.display();
        Failure::failed(format!(
            "{path}: {reason}; correct it, or remove it and give --server and --token again"
        ))
    };
    let len = match std::fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(error.to_string())),
    };
    if len > MAX_BYTES {
        return Err(bad(format!("{len} bytes, the limit is {MAX_BYTES}")));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
    // The error of the parser quotes the line, which may hold the token.
    toml::from_str(&text).map(Some).map_err(|error| bad(error.message().to_owned()))
}

/// Remembers a server; the file is replaced as a whole.
pub(super) fn write(dir: &Path, remembered: &Remembered) -> Result<(), Failure> {
    let path = path(dir);
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let text = toml::to_string(remembered).expect("invariant: two strings are valid TOML");
    let mut fresh = tempfile::Builder::new().prefix(".remote").tempfile_in(dir).map_err(failed)?;
    fresh.write_all(text.as_bytes()).map_err(failed)?;
    fresh.as_file().sync_all().map_err(failed)?;
    // Temporary files are made with mode 0600.
    fresh.persist(&path).map(drop).map_err(|error| failed(error.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token is a secret: nobody else may read the file, and a broken file does not print it.
    #[test]
    fn the_token_stays_with_its_owner() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(read(dir.path()).expect("none yet"), None);
        let remembered = Remembered { url: "ws://h:1/sync".into(), token: "s3cret\"".into() };
        write(dir.path(), &remembered).expect("written");
        write(dir.path(), &remembered).expect("replaced");
        assert_eq!(read(dir.path()).expect("read"), Some(remembered));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path(dir.path())).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::write(path(dir.path()), "url = \"ws://h\"\ntoken = s3cret").expect("broken");
        let error = read(dir.path()).expect_err("it does not parse").message;
        assert!(error.contains("remote.toml") && !error.contains("s3cret"), "{error}");
    }
}
