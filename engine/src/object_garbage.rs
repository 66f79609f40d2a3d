//! Garbage at object stores: what becomes of each object in a run of the collection.
//!
//! Candidates come from the rows of this store, never from a list of the object store: a list may
//! be stale, and shows what is not ours. An object goes in three steps. A run finds that nothing
//! names it and condemns it; a later one, a grace later, looks again and says in the log that it
//! leaves; then the store is asked to delete it, and the log says that it is gone. Whatever ends
//! the process in between, the next run goes on there.

use std::sync::Arc;

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_providers::commit::{CommitError, verify};
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

/// Objects that one run condemns, spares, deletes or looks at again at most.
const MAX_OBJECTS: usize = 1000;
/// A store that fails so often in one run is asked no more: each answer may take minutes, and other
/// runs wait.
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
            let is_doubtful = fate == Fate::Named && object.state == ObjectState::Coming;
            if (matches!(fate, Fate::Condemned | Fate::Spared | Fate::Dropped) || is_doubtful)
                && due.len() < MAX_OBJECTS
            {
                if fate == Fate::Dropped && object.state == ObjectState::Condemned {
                    goes = goes.saturating_add(size);
                }
                due.push(object);
            }
            Ok(())
        })?;
        if goes > GC_BREAKER_FROM_BYTES && goes > all / GC_BREAKER_PART && !self.force {
            return Err(BlobError::TooMuchGarbage { bytes: goes, all }.into());
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
            let object = Object { state, time_ms: self.now_ms, ..looked.clone() };
            if state != looked.state {
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
    /// that nobody has gone on with.
    pub(crate) fn look_again(&self, writer: &Writer, doubtful: Vec<Object>) -> Result<()> {
        let mut failures = 0;
        for object in doubtful {
            let Ok(_busy) = self.stores.busy_with(&self.workspace, object.sha256) else { continue };
            let is_coming = self.quota.is_reserved(&self.workspace, &object.sha256);
            if is_coming || !self.still_stands(writer, &object)? {
                continue;
            }
            match self.compare(&object) {
                Ok(is_whole) => self.note(writer, object, is_whole)?,
                Err(error) => {
                    self.warn(&object, &error, "it is not known whether an object is there");
                    failures += 1;
                    if failures == MAX_FAILURES {
                        break;
                    }
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

    fn note(&self, writer: &Writer, object: Object, is_whole: bool) -> Result<()> {
        if !is_whole && object.upload.is_empty() {
            return Ok(());
        }
        let workspace = self.workspace.clone();
        writer.run(move |store| {
            let (now, sha256, upload) = (now_ms(), object.sha256, String::new());
            if !is_whole {
                return append(store, &workspace, ObjectPart::Stands(Object { upload, ..object }));
            }
            let stored = Object { state: ObjectState::Stored, time_ms: now, upload, ..object };
            append(store, &workspace, ObjectPart::Stands(stored))?;
            owned::set_stored(store, &workspace, &sha256, now)
        })
    }

    /// Whether an object is its file. What came of its parts goes if it is not.
    fn compare(&self, object: &Object) -> Result<bool> {
        let provider = self.stores.of(object)?;
        let key = object_stores::key(&self.workspace, object.hash())?;
        let upload = Upload::new(key, object.size, "application/octet-stream");
        let upload = upload.map_err(|error| failed(&object.provider, &error))?;
        match verify(&*provider, &upload, clock_ms()) {
            Ok(_) => Ok(true),
            Err(error @ (CommitError::Provider(_) | CommitError::Read { .. })) => {
                Err(failed(&object.provider, &error))
            }
            Err(_) => {
                if let Some(id) = object_stores::upload_id(object)? {
                    let aborted = provider.abort_multipart(upload.key(), &id, clock_ms());
                    aborted.map_err(|error| failed(&object.provider, &error))?;
                }
                Ok(false)
            }
        }
    }

    fn warn(&self, object: &Object, error: &Error, what: &'static str) {
        let (workspace, hash) = (&self.workspace, object.hash());
        tracing::warn!(%workspace, %hash, %error, what);
    }

    /// Has the stores delete what leaves, and says so in the log; answers which are gone. One that
    /// a store does not delete now leaves in a later run.
    pub(crate) fn delete(&self, writer: &Writer, leaving: Vec<Object>) -> Result<Vec<BlobHash>> {
        let (mut gone, mut held, mut failures) = (Vec::new(), Vec::new(), 0);
        for object in leaving {
            let Ok(busy) = self.stores.busy_with(&self.workspace, object.sha256) else { continue };
            if !self.still_stands(writer, &object)? {
                continue;
            }
            match delete(&self.stores, &self.workspace, &object) {
                Ok(()) => {
                    held.push(busy);
                    gone.push(object.sha256);
                }
                Err(error) => {
                    self.warn(&object, &error, "an object is not deleted yet");
                    failures += 1;
                    if failures == MAX_FAILURES {
                        break;
                    }
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
