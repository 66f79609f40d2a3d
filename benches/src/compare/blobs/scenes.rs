//! What each tool does: store everything, store it again, write it back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::data::{self, Data};
use super::process::{Took, measure};
use super::tools::Tool;
use crate::Result;

/// One round of one tool.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Round {
    pub(crate) ingest: Took,
    pub(crate) again: Took,
    pub(crate) restore: Took,
    /// Lengths of the files of its store.
    pub(crate) stored_bytes: f64,
    pub(crate) stored_files: f64,
    pub(crate) restored_files: f64,
    pub(crate) restored_bytes: f64,
}

/// One tool, with its store in `dir`. What it writes back goes into `out`, which should be in
/// memory: ext4 takes longer for a new file after others were deleted.
pub(crate) fn play(tool: Tool, data: &Data, dir: &Path, out: &Path) -> Result<Round> {
    let repo = dir.join("repo");
    fs::create_dir_all(dir)?;
    tool.prepare(dir)?;
    settle()?;
    let ingest = measure(&tool.store(dir, &data.dir, "first"))?;
    settle()?;
    let again = measure(&tool.store(dir, &data.dir, "second"))?;
    let (stored_files, stored_bytes) = total(&repo)?;
    settle()?;
    let restore = measure(&tool.restore(dir, out, "first"))?;
    let (restored_files, restored_bytes) = total(out)?;
    is_all_there(&data.dir, out)?;
    Ok(Round { ingest, again, restore, stored_bytes, stored_files, restored_files, restored_bytes })
}

/// Ours with one file that cannot be compressed: what a processor does for each byte.
pub(crate) fn noise(data: &Data, dir: &Path) -> Result<(Took, f64)> {
    fs::create_dir_all(dir)?;
    settle()?;
    let took = measure(&Tool::Lastword.store(dir, &data.noise, "noise"))?;
    Ok((took, fs::metadata(&data.noise)?.len() as f64))
}

/// Ours with one file of `mib` MiB.
pub(crate) fn flat(mib: u64, dir: &Path) -> Result<Took> {
    fs::create_dir_all(dir)?;
    let path = dir.join("large");
    let mut file = std::io::BufWriter::new(fs::File::create(&path)?);
    data::noise(mib, mib << 20, &mut file)?;
    drop(file);
    measure(&Tool::Lastword.store(dir, &path, "flat"))
}

/// What others have left to be written must not be paid for by the next.
fn settle() -> Result<()> {
    Command::new("sync").status()?;
    Ok(())
}

/// Number of files under a folder, and their lengths together.
fn total(dir: &Path) -> Result<(f64, f64)> {
    let (mut files, mut bytes) = (0.0, 0.0);
    for path in all(dir)? {
        files += 1.0;
        bytes += fs::symlink_metadata(path)?.len() as f64;
    }
    Ok((files, bytes))
}

fn all(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => left.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    Ok(found)
}

/// Whether every content of `from` is in `to`: Lastword keeps one name for each.
fn is_all_there(from: &Path, to: &Path) -> Result<()> {
    let contents = |dir| -> Result<BTreeMap<[u8; 32], PathBuf>> {
        let hashed = all(dir)?
            .into_iter()
            .map(|path| Ok((*blake3::hash(&fs::read(&path)?).as_bytes(), path)));
        hashed.collect()
    };
    let there = contents(to)?;
    for (hash, path) in contents(from)? {
        if !there.contains_key(&hash) {
            return Err(format!("{} was not restored", path.display()).into());
        }
    }
    Ok(())
}
