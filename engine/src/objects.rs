//! Files that an object store keeps for an authority: how one is brought, compared, read.
//!
//! A device with a signed URL brings bytes straight to the store. No row says that they are there
//! before they were compared with their name. What was not the file is deleted while no row names
//! it: it would lie in the way of the right bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use lastword_core::hash::BlobHash;
use lastword_core::id::WorkspaceName;
use lastword_core::protocol::{ObjectMessage, SignedUrl};
use lastword_providers::commit::{CommitError, verify, verify_bytes};
use lastword_providers::expiry::{Expiry, Grant};
use lastword_providers::provider::{ObjectStorageProvider, PartToSend, Presigned, ProviderError};
use lastword_providers::registry::EMBEDDED;
use lastword_providers::upload::{Download, MultipartId, Upload};
use lastword_store::payload::{Object, ObjectPart, ObjectState};
use lastword_store::{BlobError, Store, read};

use crate::authority::Authority;
use crate::environment::now_ms;
use crate::error::{Error, Result};
use crate::object_garbage;
use crate::object_stores::{self, Provider, append, clock_ms, failed, object, upload_id};
use crate::owned;
use crate::quota::Reservation;
use crate::upload_policy::UploadRequest;

/// A deletion whose answer did not come may reach its store so much later, in milliseconds, and
/// must not find the file there that was brought again.
const LATE_MS: i64 = 10 * 60 * 1000;

/// A file that somebody brings to an object store. Its room is held until it goes.
#[derive(Debug)]
pub struct ObjectUpload {
    provider: Provider,
    upload: Upload,
    /// The upload in parts that its row names. It stays there for whoever goes on with it, also
    /// while this one brings the file as a whole.
    id: Option<MultipartId>,
    /// Whether this one goes in parts.
    in_parts: bool,
    /// The longest that anybody has said the file is: it may take that much room.
    room_bytes: u64,
    user: String,
    _room: Reservation,
}

/// What becomes of a file that somebody wants to bring.
#[derive(Debug)]
pub enum ObjectOffer {
    /// It is there; its row says so by now.
    Stored,
    /// It is to be brought.
    Coming(Box<ObjectUpload>),
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectCommit {
    /// The file is there, and its row says so.
    Stored,
    /// Parts are missing; see [`Authority::object_place`].
    Incomplete,
}

/// What an object store keeps of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptObjects {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// Id of the store.
    pub provider: String,
    /// Files that are there, those about to go too.
    pub files: u64,
    /// Their lengths together.
    pub bytes: u64,
    /// Uploads that have not ended.
    pub coming: u64,
}

/// A file that an object store has, to be read by one of its members.
#[derive(Debug)]
pub struct ObjectFile {
    provider: Provider,
    object: Object,
    workspace: WorkspaceName,
}

impl ObjectFile {
    /// Its length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.object.size
    }

    /// Id of the store that has it.
    #[must_use]
    pub fn provider_id(&self) -> &str {
        self.provider.id()
    }

    /// A URL from which it is read.
    ///
    /// # Errors
    /// [`Error::ObjectStore`].
    pub fn url(&self, download: &Download, expiry: Expiry) -> Result<SignedUrl> {
        let key = object_stores::key(&self.workspace, self.object.hash())?;
        let signed = self.provider.presign_download(&key, download, granted(expiry));
        Ok(signed_url(signed.map_err(|error| failed(self.provider.id(), &error))?))
    }
}

fn granted(expiry: Expiry) -> Grant {
    Grant { now_ms: clock_ms(), expiry }
}

fn signed_url(signed: Presigned) -> SignedUrl {
    SignedUrl { url: signed.url, headers: signed.headers, expires_ms: signed.expires_at_ms }
}

impl ObjectUpload {
    /// The file.
    #[must_use]
    pub fn hash(&self) -> BlobHash {
        BlobHash::Sha256(*self.upload.key().sha256())
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.upload.size_bytes()
    }

    fn workspace(&self) -> &WorkspaceName {
        self.upload.key().workspace()
    }

    fn failed(&self, error: &ProviderError) -> Error {
        failed(self.provider.id(), error)
    }

    /// The upload in parts, if this one goes in parts.
    fn parts(&self) -> Option<&MultipartId> {
        self.id.as_ref().filter(|_| self.in_parts)
    }

    fn stands(&self, state: ObjectState) -> Object {
        let is_coming = state == ObjectState::Coming;
        Object {
            sha256: *self.upload.key().sha256(),
            size: if is_coming { self.room_bytes } else { self.upload.size_bytes() },
            provider: self.provider.id().to_owned(),
            upload: self.id.as_ref().map_or_else(String::new, |id| id.as_str().to_owned()),
            state,
            time_ms: now_ms(),
        }
    }

    /// A URL to which part `number` is sent, or, if that is 0, the file as a whole.
    ///
    /// # Errors
    /// [`Error::ObjectStore`]; [`Error::UploadRefused`] for a part that the file does not have.
    pub fn url(&self, number: u64, sha256: [u8; 32], expiry: Expiry) -> Result<SignedUrl> {
        let grant = granted(expiry);
        let signed = match (self.parts(), u32::try_from(number)) {
            (None, Ok(0)) => self.provider.presign_upload(&self.upload, grant),
            (Some(id), Ok(number)) => {
                let part = PartToSend { number, sha256 };
                self.provider.presign_part(&self.upload, id, part, grant)
            }
            _ => {
                let message = format!("{} has no part {number}", self.hash());
                return Err(Error::UploadRefused { message });
            }
        };
        Ok(signed_url(signed.map_err(|error| self.failed(&error))?))
    }
}

impl Authority {
    /// From here on `selected` keeps new files, or this store itself if there is none; what
    /// `others` have stays readable. It is not stored.
    pub fn keep_files_at(
        &self,
        selected: Option<Arc<dyn ObjectStorageProvider>>,
        others: Vec<Arc<dyn ObjectStorageProvider>>,
    ) {
        self.objects().keep_at(selected, others);
    }

    /// Id of what keeps new files.
    #[must_use]
    pub fn files_provider(&self) -> String {
        let selected = self.objects().selected();
        selected.map_or_else(|| EMBEDDED.to_owned(), |provider| provider.id().to_owned())
    }

    /// What object stores keep, by workspace and store.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a row is damaged.
    pub fn kept_objects(&self) -> Result<Vec<KeptObjects>> {
        let (view, mut all) = (self.view(), BTreeMap::new());
        for workspace in read::blob_workspaces(&*view)? {
            read::visit_objects(&*view, &workspace, &mut |object| {
                let provider = object.provider.clone();
                let (files, bytes, coming): &mut (u64, u64, u64) =
                    all.entry((workspace.clone(), provider)).or_default();
                match object.state {
                    ObjectState::Coming => *coming += 1,
                    _ => (*files, *bytes) = (*files + 1, bytes.saturating_add(object.size)),
                }
                Ok(())
            })?;
        }
        let kept = |((workspace, provider), (files, bytes, coming))| KeptObjects {
            workspace,
            provider,
            files,
            bytes,
            coming,
        };
        Ok(all.into_iter().map(kept).collect())
    }

    /// Whether a file that somebody wants to bring goes to an object store: one does that is there
    /// already, and any that is not here if a store is selected.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a row is damaged.
    pub fn goes_to_store(&self, workspace: &WorkspaceName, hash: &BlobHash) -> Result<bool> {
        let BlobHash::Sha256(sha256) = hash else { return Ok(false) };
        let view = self.view();
        if read::blob(&*view, workspace, sha256)?.is_some() {
            return Ok(false);
        }
        let object = read::object(&*view, workspace, sha256)?;
        // What lies at a store that this server does not know any more keeps nobody from bringing
        // the file here.
        let is_known = |object: Object| self.objects().known(&object.provider).is_some();
        Ok(object.is_some_and(is_known) || self.objects().selected().is_some())
    }

    /// Begins, or goes on with, the upload of a file to an object store, in parts if the file is
    /// large and `may_part`. Blocks while the store is asked.
    ///
    /// # Errors
    /// Those of [`Authority::check_upload`]; [`Error::ObjectStore`], [`Error::ObjectElsewhere`],
    /// [`Error::ObjectBusy`].
    pub fn offer_object(&self, request: &UploadRequest<'_>, may_part: bool) -> Result<ObjectOffer> {
        let UploadRequest { workspace, user, hash, size_bytes, mime_type, .. } = *request;
        let is_under_way = match hash {
            BlobHash::Sha256(sha256) => self.file_quota().is_reserved(workspace, &sha256),
            BlobHash::Md5(_) => false,
        };
        let room = self.reserve_upload(request)?;
        let key = object_stores::key(workspace, hash)?;
        let _busy = self.objects().busy_with(workspace, *key.sha256())?;
        let mut known = object(&self.view(), workspace, &hash)?;
        if let Some(leaving) = known.take_if(|object| object.state == ObjectState::Leaving) {
            if now_ms().saturating_sub(leaving.time_ms) < LATE_MS {
                return Err(Error::ObjectBusy { hash });
            }
            self.finish_leaving(workspace, leaving)?;
        }
        let provider = match &known {
            Some(object) => self.objects().of(object)?,
            None => self.objects().selected().ok_or(BlobError::Missing { hash })?,
        };
        let refused = |message: String| Error::UploadRefused { message };
        // What the app calls it need not be a type that a header can have.
        let upload = Upload::new(key.clone(), size_bytes, mime_type)
            .or_else(|_| Upload::new(key, size_bytes, "application/octet-stream"));
        let upload = upload.map_err(|error| refused(error.to_string()))?;
        let (id, user) = (known.as_ref().map(upload_id).transpose()?.flatten(), user.to_owned());
        let in_parts = may_part && upload.goes_in_parts(provider.capabilities());
        let room_bytes = known.as_ref().map_or(0, |known| known.size).max(size_bytes);
        let mut coming =
            ObjectUpload { provider, upload, id, in_parts, room_bytes, user, _room: room };
        match known {
            Some(object) if object.state == ObjectState::Coming && object.size != size_bytes => {
                // One of the two is wrong, and parts are cut by the length.
                if is_under_way {
                    return Err(Error::ObjectBusy { hash });
                }
                self.give_up_parts(&mut coming)?;
            }
            Some(object) if object.state != ObjectState::Coming => {
                if object.size != size_bytes {
                    let message = format!("{hash} has {} bytes, not {size_bytes}", object.size);
                    return Err(refused(message));
                }
                self.say_stored(&coming)?;
                return Ok(ObjectOffer::Stored);
            }
            _ => {}
        }
        if in_parts && coming.id.is_none() {
            self.begin_parts(&mut coming)?;
        }
        self.say(&coming, ObjectState::Coming)?;
        Ok(ObjectOffer::Coming(Box::new(coming)))
    }

    /// Deletes what a collection has given away and had no time, or no answer, to delete: whoever
    /// brings the file again need not wait for the next one.
    fn finish_leaving(&self, workspace: &WorkspaceName, leaving: Object) -> Result<()> {
        object_garbage::delete(self.objects(), workspace, &leaving)?;
        let workspace = workspace.clone();
        self.writer().run(move |store| {
            let (sha256, newest) = (leaving.sha256, store.newest());
            if read::object(newest, &workspace, &sha256)?.as_ref() != Some(&leaving) {
                return Ok(());
            }
            append(store, &workspace, ObjectPart::Gone { sha256 })
        })
    }

    fn give_up_parts(&self, coming: &mut ObjectUpload) -> Result<()> {
        if let Some(id) = coming.id.take() {
            let aborted = coming.provider.abort_multipart(coming.upload.key(), &id, clock_ms());
            aborted.map_err(|error| coming.failed(&error))?;
        }
        Ok(())
    }

    fn begin_parts(&self, coming: &mut ObjectUpload) -> Result<()> {
        let begun = coming.provider.begin_multipart(&coming.upload, clock_ms());
        coming.id = Some(begun.map_err(|error| coming.failed(&error))?);
        Ok(())
    }

    /// Notes how an object stands, once its user was seen to be allowed to.
    fn say(&self, coming: &ObjectUpload, state: ObjectState) -> Result<()> {
        let (workspace, object) = (coming.workspace().clone(), coming.stands(state));
        let may_write = self.may_write(workspace.clone(), coming.user.clone());
        self.writer().run(move |store| {
            may_write(store)?;
            must_not_leave(store, &workspace, &object.sha256)?;
            append(store, &workspace, ObjectPart::Stands(object))
        })
    }

    /// Notes that a file is at its store and was compared, and says so in its row, in one group.
    fn say_stored(&self, coming: &ObjectUpload) -> Result<()> {
        let mut object = coming.stands(ObjectState::Stored);
        object.upload.clear();
        let workspace = coming.workspace().clone();
        // Comparing takes a while: nobody who lost the right to in between adds a file.
        let may_write = self.may_write(workspace.clone(), coming.user.clone());
        self.writer().run(move |store| {
            may_write(store)?;
            let sha256 = object.sha256;
            must_not_leave(store, &workspace, &sha256)?;
            append(store, &workspace, ObjectPart::Stands(object))?;
            owned::set_stored(store, &workspace, &sha256, now_ms())
        })
    }

    /// How a file goes to its store, and which parts the store has. Blocks while it is asked.
    ///
    /// # Errors
    /// [`Error::ObjectStore`], [`Error::ObjectBusy`].
    pub fn object_place(&self, coming: &mut ObjectUpload) -> Result<ObjectMessage> {
        let Some(id) = coming.parts() else {
            return Ok(ObjectMessage::Place { part_bytes: 0, stored: Vec::new() });
        };
        let part_bytes = coming.upload.part_bytes();
        let stored = match coming.provider.stored_parts(&coming.upload, id, clock_ms()) {
            Ok(stored) => stored,
            Err(ProviderError::NoSuchUpload { .. }) => return self.begin_again(coming),
            Err(error) => return Err(coming.failed(&error)),
        };
        let is_whole = |number, size| coming.upload.part(number).is_ok_and(|(_, len)| len == size);
        let whole = stored.iter().filter(|part| is_whole(part.number, part.size_bytes));
        let mut stored: Vec<u64> = whole.map(|part| u64::from(part.number)).collect();
        stored.sort_unstable();
        stored.dedup();
        Ok(ObjectMessage::Place { part_bytes, stored })
    }

    /// How the object of an upload stands by now. While somebody is kept from being busy with it,
    /// nobody else says anything of it.
    fn standing(&self, coming: &ObjectUpload) -> Result<Option<Object>> {
        object(&self.view(), coming.workspace(), &coming.hash())
    }

    /// An upload in parts that its store does not know was completed, and the answer was lost, or
    /// thrown away: then it begins anew.
    fn begin_again(&self, coming: &mut ObjectUpload) -> Result<ObjectMessage> {
        let _busy = self.objects().busy_with(coming.workspace(), *coming.upload.key().sha256())?;
        let part_bytes = coming.upload.part_bytes();
        let is_there = match self.standing(coming)? {
            Some(object) if object.state == ObjectState::Coming => {
                if upload_id(&object)? != coming.id {
                    // Somebody else has begun anew, and a new offer goes on with that.
                    return Err(Error::ObjectBusy { hash: coming.hash() });
                }
                let head = coming.provider.head(coming.upload.key(), clock_ms());
                head.map_err(|error| coming.failed(&error))?.is_some()
            }
            // Somebody else was the first.
            _ => true,
        };
        if is_there {
            let stored = (1..=u64::from(coming.upload.parts())).collect();
            return Ok(ObjectMessage::Place { part_bytes, stored });
        }
        self.begin_parts(coming)?;
        self.say(coming, ObjectState::Coming)?;
        Ok(ObjectMessage::Place { part_bytes, stored: Vec::new() })
    }

    /// Compares what arrived with its name, and says in the row of the file that it is there. What
    /// is not the file is deleted. `goes_on` is called now and then while the store is asked or
    /// read, which blocks.
    ///
    /// # Errors
    /// [`Error::ObjectMissing`], [`Error::ObjectWrong`]: it is to be brought again;
    /// [`Error::ObjectStore`], [`Error::ObjectBusy`]: later; [`Error::NoMember`] if its user may
    /// not write any more.
    pub fn commit_object(
        &self,
        coming: &mut ObjectUpload,
        goes_on: &mut dyn FnMut(),
    ) -> Result<ObjectCommit> {
        let (hash, workspace) = (coming.hash(), coming.workspace().clone());
        let _busy = self.objects().busy_with(&workspace, *coming.upload.key().sha256())?;
        let standing = match self.standing(coming)? {
            None => return Err(Error::ObjectBusy { hash }),
            Some(object) if object.state == ObjectState::Leaving => {
                return Err(Error::ObjectBusy { hash });
            }
            // Somebody else was the first; these parts do not take the place of what was compared.
            Some(object) if object.state != ObjectState::Coming && coming.in_parts => {
                if object.size != coming.upload.size_bytes() {
                    return Err(Error::ObjectBusy { hash });
                }
                self.give_up_parts(coming)?;
                self.say_stored(coming)?;
                return Ok(ObjectCommit::Stored);
            }
            Some(object) => object,
        };
        let check = || {
            complete(coming).and_then(|is_complete| match is_complete {
                true => verify(&*coming.provider, &coming.upload, clock_ms()).map(|_| true),
                false => Ok(false),
            })
        };
        match self.objects().aside(goes_on, check)? {
            Ok(true) => {
                if !coming.in_parts {
                    // Whoever sends parts of it is told that it is there.
                    self.give_up_parts(coming)?;
                }
                self.say_stored(coming)?;
                Ok(ObjectCommit::Stored)
            }
            Ok(false) => Ok(ObjectCommit::Incomplete),
            Err(error) if standing.state == ObjectState::Coming => {
                Err(self.left(coming, &standing, &error)?)
            }
            Err(error @ (CommitError::Provider(_) | CommitError::Read { .. })) => {
                Err(failed(coming.provider.id(), &error))
            }
            // What was there was compared, so this came in its place.
            Err(error) => Err(self.lost(&workspace, &*coming.provider, &standing, &error)?),
        }
    }

    /// What a failed check leaves behind: nothing, and no upload to go on with, if what is there is
    /// not the file. No row names it yet. Answers what whoever brought it hears.
    fn left(
        &self,
        coming: &mut ObjectUpload,
        standing: &Object,
        error: &CommitError,
    ) -> Result<Error> {
        let (hash, provider) = (coming.hash(), coming.provider.id().to_owned());
        let told = match error {
            CommitError::Missing { .. } => Error::ObjectMissing { hash, provider },
            CommitError::Size { .. } | CommitError::Checksum { .. } => {
                let deleted = coming.provider.delete(coming.upload.key(), clock_ms());
                deleted.map_err(|error| coming.failed(&error))?;
                Error::ObjectWrong { hash, provider, reason: error.to_string() }
            }
            error => return Ok(failed(&provider, error)),
        };
        if coming.in_parts && upload_id(standing)? == coming.id {
            coming.id = None;
            self.say(coming, ObjectState::Coming)?;
        }
        Ok(told)
    }

    /// A file of a workspace that an object store has, to be read by one of its members; `None` if
    /// none has it.
    ///
    /// # Errors
    /// [`Error::NoMember`], [`Error::ObjectElsewhere`].
    pub fn find_object(
        &self,
        workspace: &WorkspaceName,
        user: &str,
        hash: &BlobHash,
    ) -> Result<Option<ObjectFile>> {
        self.member(workspace, user)?;
        let known = object(&self.view(), workspace, hash)?;
        let is_there =
            |object: &Object| matches!(object.state, ObjectState::Stored | ObjectState::Condemned);
        let Some(object) = known.filter(is_there) else { return Ok(None) };
        let (provider, workspace) = (self.objects().of(&object)?, workspace.clone());
        Ok(Some(ObjectFile { provider, object, workspace }))
    }

    /// Looks again at a file of which a member says that its store gives something else, or
    /// nothing. If that is so its row says no more that it is there, and devices that have it bring
    /// it again.
    ///
    /// # Errors
    /// [`Error::ObjectMissing`] or [`Error::ObjectWrong`] if it is so; else as
    /// [`Authority::commit_object`].
    pub(crate) fn recheck_object(
        &self,
        file: &ObjectFile,
        goes_on: &mut dyn FnMut(),
    ) -> Result<()> {
        let ObjectFile { provider, object, workspace } = file;
        let hash = object.hash();
        let _busy = self.objects().busy_with(workspace, object.sha256)?;
        let key = object_stores::key(workspace, hash)?;
        let upload = Upload::new(key, object.size, "application/octet-stream");
        let upload = upload.map_err(|error| failed(provider.id(), &error))?;
        // Its store may have said before that it was the file, so it is read.
        let check = || {
            let read = || verify_bytes(&**provider, &upload, clock_ms());
            match read() {
                // What is found wrong is deleted: one bad read on the way here must not do that.
                Err(CommitError::Size { .. } | CommitError::Checksum { .. }) => read(),
                checked => checked,
            }
        };
        match self.objects().aside(goes_on, check)? {
            Ok(_) => Ok(()),
            Err(error @ (CommitError::Provider(_) | CommitError::Read { .. })) => {
                Err(failed(provider.id(), &error))
            }
            Err(error) => Err(self.lost(workspace, &**provider, object, &error)?),
        }
    }

    /// Says that what a row names is at its store no more, and deletes what is there in its place.
    /// Answers what whoever has found it hears.
    fn lost(
        &self,
        workspace: &WorkspaceName,
        provider: &dyn ObjectStorageProvider,
        object: &Object,
        error: &CommitError,
    ) -> Result<Error> {
        let (hash, id) = (object.hash(), provider.id().to_owned());
        let (name, sha256, now_ms) = (workspace.clone(), object.sha256, now_ms());
        let coming = Object { state: ObjectState::Coming, time_ms: now_ms, ..object.clone() };
        self.writer().run(move |store| {
            must_not_leave(store, &name, &sha256)?;
            owned::clear_stored(store, &name, &sha256, now_ms)?;
            append(store, &name, ObjectPart::Stands(coming))
        })?;
        if matches!(error, CommitError::Missing { .. }) {
            return Ok(Error::ObjectMissing { hash, provider: id });
        }
        // No row names it any more.
        let deleted = provider.delete(&object_stores::key(workspace, hash)?, clock_ms());
        deleted.map_err(|error| failed(&id, &error))?;
        Ok(Error::ObjectWrong { hash, provider: id, reason: error.to_string() })
    }
}

/// Nothing is said of an object that a collection, on this same thread, has given away since it was
/// looked at: it is deleted next. Errors: [`Error::ObjectBusy`].
fn must_not_leave(store: &Store, workspace: &WorkspaceName, sha256: &[u8; 32]) -> Result<()> {
    let newest = read::object(store.newest(), workspace, sha256)?;
    match newest.is_some_and(|object| object.state == ObjectState::Leaving) {
        true => Err(Error::ObjectBusy { hash: BlobHash::Sha256(*sha256) }),
        false => Ok(()),
    }
}

/// Makes the object of its parts, if it goes in parts; false if some are missing.
fn complete(coming: &ObjectUpload) -> Result<bool, CommitError> {
    let Some(id) = coming.parts() else { return Ok(true) };
    match coming.provider.complete_multipart(&coming.upload, id, clock_ms()) {
        // An upload that its store does not know may have been completed before.
        Ok(_) | Err(ProviderError::NoSuchUpload { .. }) => Ok(true),
        Err(ProviderError::Incomplete { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use lastword_core::id::Epoch;
    use lastword_providers::memory::MemoryStore;
    use lastword_store::payload::{Payload, Restored};

    use super::*;

    /// R3.4: a collection gave a file away, and its store did not answer. Whoever brought the file
    /// again was told to try in a moment until the next collection; too soon it has to wait, since
    /// the deletion may still arrive there.
    #[test]
    fn what_left_and_was_never_deleted_can_be_brought_again() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        let store = MemoryStore::new(b"secret", clock_ms());
        authority.keep_files_at(Some(std::sync::Arc::new(store.clone())), Vec::new());
        let main = WorkspaceName::new("main").unwrap();
        let hash = BlobHash::Sha256([7; 32]);
        let key = object_stores::key(&main, hash).unwrap();
        store.plant(key.as_str(), b"what was there");
        let leaves = |time_ms, is_new: bool| {
            let (workspace, provider) = (main.clone(), store.id().to_owned());
            authority.writer().run(move |store| {
                if is_new {
                    let (epoch, workspace) = (Epoch([1; 16]), workspace.clone());
                    let frame = Restored { workspace, epoch, branch: 0, head: 9, time_ms: 1 };
                    let payload = Payload::Restored(frame);
                    store.append(payload.kind(), &payload.to_bytes())?;
                }
                let (state, upload) = (ObjectState::Leaving, String::new());
                let object = Object { sha256: [7; 32], size: 14, provider, upload, state, time_ms };
                append(store, &workspace, ObjectPart::Stands(object))
            })
        };
        let request = UploadRequest {
            workspace: &main,
            user: "ann",
            hash,
            size_bytes: 5,
            mime_type: "",
            name: "",
        };
        leaves(now_ms(), true).unwrap();
        let soon = authority.offer_object(&request, false);
        assert!(matches!(soon, Err(Error::ObjectBusy { .. })), "{soon:?}");
        assert!(store.bytes(&key).is_some());
        leaves(now_ms() - LATE_MS, false).unwrap();
        let offer = authority.offer_object(&request, false);
        assert!(matches!(offer, Ok(ObjectOffer::Coming(_))), "{offer:?}");
        assert!(store.bytes(&key).is_none());
    }
}
