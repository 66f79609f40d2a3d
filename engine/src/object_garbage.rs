//! Garbage at object stores: what becomes of each object in a run of the collection.
//!
//! Candidates come from the rows of this store, never from a list of the object store: a list may
//! be stale, and shows what is not ours. An object goes in three steps. A run finds that nothing
//! names it and condemns it; a later one, a grace later, looks again and says in the log that it
//! leaves; then the store is asked to delete it, and the log says that it is gone. Whatever ends
//! the process in between, the next run goes on there.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_providers::commit::{CommitError, verify};
use lastword_providers::provider::ProviderError;
use lastword_providers::upload::Upload;
use lastword_store::blobs::{Fate, GcPlan};
use lastword_store::limits::{GC_BREAKER_FROM_BYTES, GC_BREAKER_PART};
use lastword_store::payload::{Object, ObjectPart, ObjectState};
use lastword_store::{BlobError, Store, read};

use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::object_stores::{self, ObjectStores, append, clock_ms, failed};
use crate::owned;
use crate::quota::FileQuota;
use crate::writer::Writer;

/// Objects that one run condemns, spares or gives away at most.
const MAX_OBJECTS: usize = 1000;
/// Objects that one run deletes or looks at once more because an earlier one could not. Each run
/// begins elsewhere among them, so that no other is kept waiting by those that never end.
const MAX_AGAIN: usize = 200;
/// A store that fails so often in one run is asked no more: each answer may take minutes.
const MAX_FAILURES: usize = 3;

/// What becomes of an object, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFate {
    /// The file.
    pub hash: BlobHash,
    /// Its length.
    pub size: u64,
    /// The store that has it.
    pub provider: String,
    /// What becomes of it.
    pub fate: Fate,
    /// Whether this server knows the store; if not, nothing of it is deleted.
    pub is_known: bool,
}

/// What a run does at the stores, once the log says so.
#[derive(Debug, Default)]
pub(crate) struct AtStores {
    pub(crate) leaving: Vec<Object>,
    /// Named, and not known to be whole.
    pub(crate) doubtful: Vec<Object>,
}

/// What a store has in the place of an object.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Its length, if it is the file.
    whole: Option<u64>,
    /// It has something else.
    is_other: bool,
    /// The upload of the object's parts is over, and they are gone.
    parts_ended: bool,
}

/// How often stores have failed in one run.
#[derive(Debug, Default)]
struct Failures(BTreeMap<String, usize>);

impl Failures {
    fn count(&mut self, object: &Object) {
        *self.0.entry(object.provider.clone()).or_default() += 1;
    }

    fn are_many(&self, object: &Object) -> bool {
        self.0.get(&object.provider).is_some_and(|failures| *failures >= MAX_FAILURES)
    }
}

/// One run over the objects of a workspace.
#[derive(Debug, Clone)]
pub(crate) struct ObjectGarbage {
    pub(crate) stores: Arc<ObjectStores>,
    pub(crate) quota: Arc<FileQuota>,
    pub(crate) workspace: WorkspaceName,
    pub(crate) now_ms: i64,
    /// How long what nothing names yet stays, and what is condemned.
    pub(crate) staged_ms: i64,
    pub(crate) grace_ms: i64,
    pub(crate) force: bool,
}

impl ObjectGarbage {
    fn fate(&self, object: &Object, is_named: bool) -> Fate {
        let is_over = |time: i64| self.now_ms.saturating_sub(object.time_ms) >= time;
        let is_coming = self.quota.is_reserved(&self.workspace, &object.sha256);
        match object.state {
            ObjectState::Coming if is_coming || !is_over(self.staged_ms) => Fate::JustStored,
            // It may be whole: a store may have said for a while that it is not there.
            ObjectState::Coming if is_named => Fate::Named,
            ObjectState::Coming | ObjectState::Leaving => Fate::Dropped,
            ObjectState::Stored if is_named => Fate::Named,
            ObjectState::Stored if !is_over(self.staged_ms) => Fate::JustStored,
            ObjectState::Stored => Fate::Condemned,
            ObjectState::Condemned if is_named => Fate::Spared,
            ObjectState::Condemned if is_over(self.grace_ms) => Fate::Dropped,
            ObjectState::Condemned => Fate::InGrace,
        }
    }

    /// What would become of each object; changes nothing. Errors: [`BlobError::TooMuchGarbage`].
    pub(crate) fn look(&self, plan: &GcPlan) -> Result<(Vec<ObjectFate>, Vec<Object>)> {
        let (mut fates, mut due, mut all, mut goes) = (Vec::new(), Vec::new(), 0u64, 0u64);
        let mut again = [Vec::new(), Vec::new()];
        read::visit_objects(&**plan.view(), &self.workspace, &mut |object| {
            let is_known = self.stores.known(&object.provider).is_some();
            let fate = match self.fate(&object, plan.names(&object.sha256)) {
                Fate::Dropped if !is_known => Fate::InGrace,
                fate => fate,
            };
            let (hash, size, provider) = (object.hash(), object.size, object.provider.clone());
            fates.push(ObjectFate { hash, size, provider, fate, is_known });
            if object.state != ObjectState::Coming {
                all = all.saturating_add(size);
            }
            let [leaving, doubtful] = &mut again;
            match (fate, object.state) {
                (Fate::Dropped, ObjectState::Leaving) => leaving.push(object),
                (Fate::Named, ObjectState::Coming) if is_known => doubtful.push(object),
                (Fate::Condemned | Fate::Spared | Fate::Dropped, state)
                    if due.len() < MAX_OBJECTS =>
                {
                    if fate == Fate::Dropped && state == ObjectState::Condemned {
                        goes = goes.saturating_add(size);
                    }
                    due.push(object);
                }
                _ => {}
            }
            Ok(())
        })?;
        if goes > GC_BREAKER_FROM_BYTES && goes > all / GC_BREAKER_PART && !self.force {
            return Err(BlobError::TooMuchGarbage { bytes: goes, all }.into());
        }
        for mut objects in again {
            let begin = self.now_ms.unsigned_abs() as usize % objects.len().max(1);
            objects.rotate_left(begin);
            objects.truncate(MAX_AGAIN);
            due.append(&mut objects);
        }
        Ok((fates, due))
    }

    /// Decides on the writer thread, once the run has looked at everything that came since, and
    /// appends that; answers what is to be done at the stores. What has changed meanwhile is left
    /// for the next run.
    pub(crate) fn decide(
        &self,
        store: &mut Store,
        plan: &GcPlan,
        due: &[Object],
    ) -> Result<AtStores> {
        let mut at_stores = AtStores::default();
        for looked in due {
            let newest = read::object(store.newest(), &self.workspace, &looked.sha256)?;
            if newest.as_ref() != Some(looked) {
                continue;
            }
            let state = match self.fate(looked, plan.names(&looked.sha256)) {
                Fate::Condemned => ObjectState::Condemned,
                Fate::Spared => ObjectState::Stored,
                Fate::Dropped => ObjectState::Leaving,
                Fate::Named if looked.state == ObjectState::Coming => {
                    at_stores.doubtful.push(looked.clone());
                    continue;
                }
                _ => continue,
            };
            let mut object = looked.clone();
            if state != looked.state {
                (object.state, object.time_ms) = (state, self.now_ms);
                append(store, &self.workspace, ObjectPart::Stands(object.clone()))?;
            }
            if state == ObjectState::Leaving {
                at_stores.leaving.push(object);
            }
        }
        Ok(at_stores)
    }

    /// Looks at objects of which nobody knows whether they are whole although a row names their
    /// files. One that is, is there again, and its row says so; of one that is not, the parts go
    /// that nobody has gone on with, and no room is kept for it.
    pub(crate) fn look_again(&self, writer: &Writer, doubtful: Vec<Object>) -> Result<()> {
        let mut failures = Failures::default();
        for object in doubtful {
            let Ok(_busy) = self.stores.busy_with(&self.workspace, object.sha256) else { continue };
            let is_coming = self.quota.is_reserved(&self.workspace, &object.sha256);
            if is_coming || failures.are_many(&object) || !self.still_stands(writer, &object)? {
                continue;
            }
            match self.compare(&object) {
                Ok(found) => self.note(writer, &object, found)?,
                Err(error) => {
                    self.warn(&object, &error, "it is not known whether an object is there");
                    failures.count(&object);
                }
            }
        }
        Ok(())
    }

    /// Whether nothing was said of an object since it was looked at. Once somebody is kept from
    /// being busy with it, nothing will be.
    fn still_stands(&self, writer: &Writer, object: &Object) -> Result<bool> {
        let (workspace, sha256) = (self.workspace.clone(), object.sha256);
        let newest =
            writer.run(move |store| Ok(read::object(store.newest(), &workspace, &sha256)?))?;
        Ok(newest.as_ref() == Some(object))
    }

    fn note(&self, writer: &Writer, object: &Object, found: Found) -> Result<()> {
        let mut noted = object.clone();
        if found.parts_ended {
            noted.upload.clear();
        }
        match found.whole {
            Some(size) => {
                (noted.state, noted.time_ms, noted.size) = (ObjectState::Stored, now_ms(), size);
            }
            None if !found.is_other && noted.upload.is_empty() => noted.size = 0,
            None => {}
        }
        if noted == *object {
            return Ok(());
        }
        let workspace = self.workspace.clone();
        writer.run(move |store| {
            let (state, sha256) = (noted.state, noted.sha256);
            append(store, &workspace, ObjectPart::Stands(noted))?;
            match state {
                ObjectState::Stored => owned::set_stored(store, &workspace, &sha256, now_ms()),
                _ => Ok(()),
            }
        })
    }

    /// Looks at what a store has in an object's place, however long anybody said that it is, and
    /// ends the upload of its parts.
    fn compare(&self, object: &Object) -> Result<Found> {
        let provider = self.stores.of(object)?;
        let key = object_stores::key(&self.workspace, object.hash())?;
        let asked = |error: ProviderError| failed(&object.provider, &error);
        let head = provider.head(&key, clock_ms()).map_err(asked)?;
        let size = head.as_ref().map_or(object.size, |head| head.size_bytes);
        let upload = Upload::new(key, size, "application/octet-stream");
        let upload = upload.map_err(|error| failed(&object.provider, &error))?;
        let is_whole = match &head {
            None => false,
            Some(_) => match verify(&*provider, &upload, clock_ms()) {
                Ok(_) => true,
                Err(error @ (CommitError::Provider(_) | CommitError::Read { .. })) => {
                    return Err(failed(&object.provider, &error));
                }
                Err(_) => false,
            },
        };
        let mut parts_ended = false;
        if let Some(id) = object_stores::upload_id(object)? {
            // A store that is empty for a while does not know it either, and it must not be lost.
            let is_known = is_whole || {
                let parts = provider.stored_parts(&upload, &id, clock_ms());
                !matches!(parts, Err(ProviderError::NoSuchUpload { .. }))
            };
            if is_known {
                provider.abort_multipart(upload.key(), &id, clock_ms()).map_err(asked)?;
                parts_ended = true;
            }
        }
        let is_other = head.is_some() && !is_whole;
        Ok(Found { whole: is_whole.then_some(size), is_other, parts_ended })
    }

    fn warn(&self, object: &Object, error: &Error, what: &'static str) {
        let (workspace, hash) = (&self.workspace, object.hash());
        tracing::warn!(%workspace, %hash, %error, what);
    }

    /// Has the stores delete what leaves, and says so in the log; answers which are gone. One that
    /// a store does not delete now leaves in a later run.
    pub(crate) fn delete(&self, writer: &Writer, leaving: Vec<Object>) -> Result<Vec<BlobHash>> {
        let (mut gone, mut held) = (Vec::new(), Vec::new());
        let mut failures = Failures::default();
        for object in leaving {
            let Ok(busy) = self.stores.busy_with(&self.workspace, object.sha256) else { continue };
            if failures.are_many(&object) || !self.still_stands(writer, &object)? {
                continue;
            }
            match delete(&self.stores, &self.workspace, &object) {
                Ok(()) => {
                    held.push(busy);
                    gone.push(object.sha256);
                }
                Err(error) => {
                    self.warn(&object, &error, "an object is not deleted yet");
                    failures.count(&object);
                }
            }
        }
        let (workspace, parts) = (self.workspace.clone(), gone.clone());
        if !parts.is_empty() {
            writer.run(move |store| {
                let gone = |sha256| ObjectPart::Gone { sha256 };
                parts.into_iter().try_for_each(|sha256| append(store, &workspace, gone(sha256)))
            })?;
        }
        drop(held);
        Ok(gone.into_iter().map(BlobHash::Sha256).collect())
    }
}

/// Deletes an object that leaves, and what came of its parts.
pub(crate) fn delete(
    stores: &ObjectStores,
    workspace: &WorkspaceName,
    object: &Object,
) -> Result<()> {
    let provider = stores.of(object)?;
    let key = object_stores::key(workspace, object.hash())?;
    let failed = |error| failed(&object.provider, &error);
    if let Some(id) = object_stores::upload_id(object)? {
        provider.abort_multipart(&key, &id, clock_ms()).map_err(failed)?;
    }
    provider.delete(&key, clock_ms()).map_err(failed)
}
