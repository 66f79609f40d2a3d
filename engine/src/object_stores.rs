//! The object stores that keep files for an authority, and which file somebody is busy with there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_core::limits::MAX_FILE_PARTS;
use lastword_providers::key::ObjectKey;
use lastword_providers::limits;
use lastword_providers::provider::ObjectStorageProvider;
use lastword_providers::upload::MultipartId;
use lastword_store::limits::{MAX_PROVIDER_ID_BYTES, MAX_UPLOAD_ID_BYTES};
use lastword_store::payload::{Object, ObjectFrame, ObjectPart, ObjectState, Payload};
use lastword_store::{Store, View, read};

use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::live::lock;

/// Objects that are compared with their names at once: each takes a thread, and the bandwidth to
/// its store.
const MAX_CHECKS: usize = 4;
/// Whoever waits for a check hears this often that it goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

// What a provider gives fits the rows and messages that carry it.
const _: () = assert!(limits::MAX_PROVIDER_ID_BYTES <= MAX_PROVIDER_ID_BYTES);
const _: () = assert!(limits::MAX_TOKEN_BYTES <= MAX_UPLOAD_ID_BYTES);
const _: () = assert!(limits::MAX_PARTS as usize <= MAX_FILE_PARTS);

/// An object store, as an authority has it.
pub(crate) type Provider = Arc<dyn ObjectStorageProvider>;

/// Workspace and SHA-256 of a file.
type Name = (WorkspaceName, [u8; 32]);

/// The stores, and what is done at them.
#[derive(Debug, Default)]
pub(crate) struct ObjectStores {
    kept: Mutex<Kept>,
    /// Files that somebody compares, commits or deletes. One at a time, so that nobody deletes what
    /// another has just compared.
    busy: Mutex<BTreeSet<Name>>,
    checks: Mutex<usize>,
    checked: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    /// Where new files go; this store itself if there is none.
    selected: Option<Provider>,
    /// All that can be asked, by their ids.
    known: BTreeMap<String, Provider>,
}

impl ObjectStores {
    pub(crate) fn keep_at(&self, selected: Option<Provider>, others: Vec<Provider>) {
        let all = selected.iter().cloned().chain(others);
        let known = all.map(|provider| (provider.id().to_owned(), provider)).collect();
        *lock(&self.kept) = Kept { selected, known };
    }

    /// Where new files go, unless this store keeps them itself.
    pub(crate) fn selected(&self) -> Option<Provider> {
        lock(&self.kept).selected.clone()
    }

    pub(crate) fn known(&self, id: &str) -> Option<Provider> {
        lock(&self.kept).known.get(id).cloned()
    }

    /// The store of an object. Errors: [`Error::ObjectElsewhere`].
    pub(crate) fn of(&self, object: &Object) -> Result<Provider> {
        let (hash, provider) = (object.hash(), &object.provider);
        self.known(provider)
            .ok_or_else(|| Error::ObjectElsewhere { hash, provider: provider.clone() })
    }

    /// Takes a file on. Errors: [`Error::ObjectBusy`] if somebody has.
    pub(crate) fn busy_with(
        self: &Arc<Self>,
        workspace: &WorkspaceName,
        sha256: [u8; 32],
    ) -> Result<Busy> {
        let name = (workspace.clone(), sha256);
        match lock(&self.busy).insert(name.clone()) {
            true => Ok(Busy { stores: Arc::clone(self), name }),
            false => Err(Error::ObjectBusy { hash: BlobHash::Sha256(sha256) }),
        }
    }

    /// Does what takes as long as a store does on a thread of its own, and says now and then that
    /// it goes on. Whether anybody still listens does not matter: what was begun is ended.
    pub(crate) fn aside<T: Send>(
        &self,
        goes_on: &mut dyn FnMut(),
        work: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        let failed = |reason: &str| Error::Thread { reason: reason.to_owned() };
        std::thread::scope(|scope| {
            let (done, ended) = mpsc::channel();
            let check = move || {
                let _place = self.place();
                // Whoever waits for it waits until this has ended.
                let _ = done.send(work());
            };
            let thread = std::thread::Builder::new().name("lastword check".into());
            thread.spawn_scoped(scope, check).map_err(|error| failed(&error.to_string()))?;
            loop {
                match ended.recv_timeout(SIGN_OF_LIFE) {
                    Ok(done) => return Ok(done),
                    Err(mpsc::RecvTimeoutError::Timeout) => goes_on(),
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Err(failed("it panicked")),
                }
            }
        })
    }

    fn place(&self) -> Place<'_> {
        let taken = lock(&self.checks);
        let waited = self.checked.wait_while(taken, |taken| *taken >= MAX_CHECKS);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        Place(self)
    }
}

/// One of the checks that there may be at once.
struct Place<'a>(&'a ObjectStores);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *lock(&self.0.checks) -= 1;
        self.0.checked.notify_one();
    }
}

/// A file that somebody is busy with, until it goes.
#[derive(Debug)]
pub(crate) struct Busy {
    stores: Arc<ObjectStores>,
    name: Name,
}

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.stores.busy).remove(&self.name);
    }
}

/// What a store said instead of doing what was asked.
pub(crate) fn failed(provider: &str, error: &dyn std::fmt::Display) -> Error {
    Error::ObjectStore { provider: provider.to_owned(), reason: error.to_string() }
}

/// Where a file of a workspace lies in every store.
pub(crate) fn key(workspace: &WorkspaceName, hash: BlobHash) -> Result<ObjectKey> {
    ObjectKey::new(workspace, hash)
        .map_err(|error| Error::UploadRefused { message: error.to_string() })
}

/// The clock as providers take it.
pub(crate) fn clock_ms() -> u64 {
    u64::try_from(now_ms()).unwrap_or(0)
}

/// What is known of a file's object.
pub(crate) fn object(
    view: &View,
    workspace: &WorkspaceName,
    hash: &BlobHash,
) -> Result<Option<Object>> {
    match hash {
        BlobHash::Sha256(sha256) => Ok(read::object(view, workspace, sha256)?),
        BlobHash::Md5(_) => Ok(None),
    }
}

/// The upload in parts of an object, if one is under way.
pub(crate) fn upload_id(object: &Object) -> Result<Option<MultipartId>> {
    match object.upload.as_str() {
        "" => Ok(None),
        id => MultipartId::new(id).map(Some).map_err(|error| failed(&object.provider, &error)),
    }
}

/// Appends what the log is to say of an object, on the writer thread.
pub(crate) fn append(store: &mut Store, workspace: &WorkspaceName, part: ObjectPart) -> Result<()> {
    let makes_room = match &part {
        ObjectPart::Gone { .. } => true,
        ObjectPart::Stands(object) => {
            matches!(object.state, ObjectState::Condemned | ObjectState::Leaving)
        }
    };
    let payload = Payload::Object(ObjectFrame { workspace: workspace.clone(), part });
    let (kind, bytes) = (payload.kind(), payload.to_bytes());
    match makes_room {
        true => store.append_urgent(kind, &bytes)?,
        false => store.append(kind, &bytes)?,
    };
    Ok(())
}
