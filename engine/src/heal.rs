//! Healing: a device that no operator looks after goes on with what can be read of its damaged
//! store.
//!
//! The damaged directory is salvaged beside its place, moved aside, and the salvaged one takes its
//! place. Only a store that is complete is ever called `<dir>.healed`, so a process that ends
//! between the two moves leaves behind what the next one needs to finish.

use std::fs;
use std::path::{Path, PathBuf};

use lastword_store::{DiskError, Store, StoreError};

use crate::directory::Directory;
use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::open::{self, OpenOptions, OpenedStore};
use crate::renew::{self, file_error};
use crate::salvage::{Salvaged, Undecided, salvage_held};

/// What opening a database does if its directory is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// It fails and changes nothing: for people, who can restore a backup.
    #[default]
    Refuse,
    /// It keeps what can be read and goes on as another device: for devices that no operator looks
    /// after. The damaged directory is moved aside and kept.
    /// [`Database::healed`](crate::Database::healed) says what was lost.
    Heal,
}

/// What healing did.
#[derive(Debug, Clone)]
pub struct HealReport {
    /// The damage that opening met; empty if an earlier process had begun to heal and ended.
    pub damage: String,
    /// Where the damaged directory is now, as far as is known.
    pub damaged_dir: Option<PathBuf>,
    /// What was kept and lost; none if an earlier process had salvaged it and ended. Salvaging the
    /// damaged directory once more tells it.
    pub salvaged: Option<Salvaged>,
}

/// Opens the store in `dir`; damage is dealt with as `on_damage` says.
pub(crate) fn open(
    dir: &Path,
    options: &OpenOptions,
    on_damage: OnDamage,
) -> Result<(OpenedStore, Store, Option<HealReport>)> {
    let finished = finish(dir, on_damage)?;
    let damage = match open::open(dir, options) {
        Ok((opened, store)) => return Ok((opened, store, finished)),
        Err(error) if on_damage == OnDamage::Heal && is_damage(&error) => error,
        Err(error) => return Err(error),
    };
    let healed = heal(dir, &damage)
        .and_then(|report| open::open(dir, options).map(|(opened, store)| (opened, store, report)));
    match healed {
        Ok((opened, store, report)) => Ok((opened, store, Some(report))),
        Err(heal) => Err(Error::NotHealed { damage: Box::new(damage), heal: Box::new(heal) }),
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Store(StoreError::Damaged { .. } | StoreError::Disk(DiskError::Damaged { .. }))
    )
}

/// Puts a healed store in its place, if an earlier process ended before it could.
fn finish(dir: &Path, on_damage: OnDamage) -> Result<Option<HealReport>> {
    // A path without a name, like `.`, cannot have been moved.
    let Ok(healed) = renew::beside(dir, ".healed") else { return Ok(None) };
    if dir.exists() || !healed.exists() {
        return Ok(None);
    }
    if on_damage == OnDamage::Refuse {
        return Err(Error::HealUnfinished { dir: dir.to_owned(), healed });
    }
    renew::move_to(&healed, dir)?;
    let damaged_dir = last_damaged(dir);
    tracing::error!(
        dir = %dir.display(), damaged_dir = ?damaged_dir,
        "the store was damaged and healed by a process that ended before it could say what was lost"
    );
    Ok(Some(HealReport { damage: String::new(), damaged_dir, salvaged: None }))
}

/// The directory that was moved aside last.
fn last_damaged(dir: &Path) -> Option<PathBuf> {
    let prefix = renew::beside(dir, ".damaged-").ok()?;
    let name = prefix.file_name()?.to_string_lossy().into_owned();
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = fs::read_dir(parent.unwrap_or(Path::new("."))).ok()?;
    let moved = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let ms: u64 = entry.file_name().to_str()?.strip_prefix(&name)?.parse().ok()?;
        Some((ms, entry.path()))
    });
    moved.max().map(|(_, path)| path)
}

fn heal(dir: &Path, damage: &Error) -> Result<HealReport> {
    let mut directory = Directory::look(dir)?;
    let (healing, healed) = (renew::beside(dir, ".healing")?, renew::beside(dir, ".healed")?);
    // Of an earlier process that ended; the directory that both were made of is still there.
    for left in [&healing, &healed] {
        remove(left)?;
    }
    let mut salvaged = match salvage_held(&directory, dir, &healing, Undecided::SendAgain) {
        Ok(salvaged) => salvaged,
        Err(error) => {
            remove(&healing)?;
            return Err(error);
        }
    };
    renew::move_to(&healing, &healed)?;
    let damaged_dir = renew::beside(dir, &format!(".damaged-{}", now_ms()))?;
    if cfg!(windows) {
        // A directory with an open file cannot be moved there.
        directory.lock = None;
    }
    renew::move_to(dir, &damaged_dir)?;
    renew::move_to(&healed, dir)?;
    drop(directory);
    for loss in &mut salvaged.losses {
        let name = loss.file.as_deref().and_then(Path::file_name);
        loss.file = name.map(|name| damaged_dir.join(name));
    }
    let report = HealReport {
        damage: damage.to_string(),
        damaged_dir: Some(damaged_dir),
        salvaged: Some(salvaged),
    };
    tracing::error!(dir = %dir.display(), ?report, "the store was damaged and is healed");
    Ok(report)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(dir, &error)),
        _ => Ok(()),
    }
}
