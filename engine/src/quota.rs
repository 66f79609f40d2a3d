//! How much room the files of a workspace have at the authority.
//!
//! Room is reserved when an upload begins, so that of many that race for the last of it exactly
//! those that fit are taken. What is stored is counted in the state, and what is reserved for a
//! file that is stored by now is not counted again; so nothing is missed or counted twice,
//! whichever comes first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_BLOB_BYTES;
use lastword_core::manifest::Blob;
use lastword_store::payload::{Object, ObjectState};
use lastword_store::{BlobError, View, read};

use crate::error::{Error, Result};
use crate::live::lock;

/// The limits, and what is reserved.
#[derive(Debug)]
pub(crate) struct FileQuota {
    max_file_bytes: AtomicU64,
    max_bytes: AtomicU64,
    reserved: Mutex<BTreeMap<Name, Reserved>>,
}

/// Workspace and SHA-256 of a file.
type Name = (WorkspaceName, [u8; 32]);

/// Twice what files may have, and so much more, is taken by chunks at most.
const SPARE_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Default)]
struct Reserved {
    size: u64,
    /// How many upload it at once.
    holders: usize,
}

impl Default for FileQuota {
    fn default() -> Self {
        Self {
            max_file_bytes: AtomicU64::new(MAX_BLOB_BYTES),
            max_bytes: AtomicU64::new(u64::MAX),
            reserved: Mutex::default(),
        }
    }
}

impl FileQuota {
    /// Sets the most bytes of one file, and of all files of a workspace together.
    pub(crate) fn limit(&self, max_file_bytes: u64, max_bytes: u64) {
        self.max_file_bytes.store(max_file_bytes.min(MAX_BLOB_BYTES), Ordering::SeqCst);
        self.max_bytes.store(max_bytes, Ordering::SeqCst);
    }

    /// Whether somebody uploads a file now.
    pub(crate) fn is_reserved(&self, workspace: &WorkspaceName, sha256: &[u8; 32]) -> bool {
        lock(&self.reserved).contains_key(&(workspace.clone(), *sha256))
    }

    /// Reserves room for a file. `view` gives the newest state. Errors: [`BlobError::TooLarge`],
    /// [`Error::FilesOverQuota`].
    pub(crate) fn reserve(
        self: &Arc<Self>,
        view: impl FnOnce() -> Arc<View>,
        workspace: &WorkspaceName,
        blob: &Blob,
    ) -> Result<Reservation> {
        let limit = self.max_file_bytes.load(Ordering::SeqCst);
        if blob.size > limit {
            return Err(BlobError::TooLarge { limit }.into());
        }
        let name = (workspace.clone(), blob.sha256);
        let mut reserved = lock(&self.reserved);
        let limit = self.max_bytes.load(Ordering::SeqCst);
        if limit < u64::MAX {
            // Behind the lock: whoever has let go of a reservation is stored in it.
            let view = view();
            let Used { stored, coming } = used(&view, &reserved, &name)?;
            let (workspace, size) = (workspace.clone(), blob.size);
            if stored.saturating_add(size) > limit {
                return Err(Error::FilesOverQuota { workspace, size, used: stored, limit });
            }
            if stored.saturating_add(coming).saturating_add(size) > limit {
                return Err(Error::RoomReserved { workspace, size, used: stored, coming, limit });
            }
            let room = limit.saturating_mul(2).saturating_add(SPARE_BYTES);
            if taken(&view, &workspace)? > room {
                return Err(Error::UnfinishedUploads { workspace, room });
            }
        }
        let held = reserved.entry(name.clone()).or_default();
        held.holders += 1;
        held.size = held.size.max(blob.size);
        drop(reserved);
        Ok(Reservation { quota: Arc::clone(self), name })
    }
}

/// Bytes of files.
#[derive(Debug, Default)]
struct Used {
    stored: u64,
    /// Of those that are being uploaded.
    coming: u64,
}

/// Bytes of all files of the workspace that are stored or reserved, `name` left out.
fn used(view: &View, reserved: &BTreeMap<Name, Reserved>, name: &Name) -> Result<Used> {
    let (workspace, sha256) = name;
    let mut used = Used::default();
    read::visit_blobs(view, workspace, &mut |stored| {
        if stored.blob.sha256 != *sha256 {
            used.stored = used.stored.saturating_add(stored.blob.size);
        }
        Ok(())
    })?;
    visit_objects(view, workspace, &mut |object| {
        if object.state != ObjectState::Coming && object.sha256 != *sha256 {
            used.stored = used.stored.saturating_add(object.size);
        }
    })?;
    for (other, held) in reserved.iter().filter(|(other, _)| other.0 == *workspace) {
        if other != name && !is_stored(view, workspace, &other.1)? {
            used.coming = used.coming.saturating_add(held.size);
        }
    }
    Ok(used)
}

/// Every object of the workspace whose file is not stored here, too.
fn visit_objects(
    view: &View,
    workspace: &WorkspaceName,
    each: &mut dyn FnMut(&Object),
) -> Result<()> {
    Ok(read::visit_objects(view, workspace, &mut |object| {
        if read::blob(view, workspace, &object.sha256)?.is_none() {
            each(&object);
        }
        Ok(())
    })?)
}

fn is_stored(view: &View, workspace: &WorkspaceName, sha256: &[u8; 32]) -> Result<bool> {
    let object = read::object(view, workspace, sha256)?;
    Ok(object.is_some_and(|object| object.state != ObjectState::Coming)
        || read::blob(view, workspace, sha256)?.is_some())
}

/// Bytes that the chunks of the workspace take on the disk, those of uploads that never ended too,
/// at object stores as well.
fn taken(view: &View, workspace: &WorkspaceName) -> Result<u64> {
    let packs = read::packs(view, workspace)?;
    let mut taken = packs.iter().fold(0u64, |sum, (_, pack)| sum.saturating_add(pack.live));
    visit_objects(view, workspace, &mut |object| taken = taken.saturating_add(object.size))?;
    Ok(taken)
}

/// Room for one file that is being uploaded; given back when it goes.
#[derive(Debug)]
pub(crate) struct Reservation {
    quota: Arc<FileQuota>,
    name: Name,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = lock(&self.quota.reserved);
        if let Some(held) = reserved.get_mut(&self.name) {
            held.holders -= 1;
            if held.holders == 0 {
                reserved.remove(&self.name);
            }
        }
    }
}
