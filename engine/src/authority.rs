//! The authority: the party that orders a workspace's ops.
//!
//! Everything that decides runs on the writer thread, on the newest state, at the moment an op gets
//! its seq: see `judge`.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use lastword_core::codec::to_bytes;
use lastword_core::id::{BatchId, DeviceId, Epoch, Key, TableName, WorkspaceName};
use lastword_core::limits::MAX_ATTACHED_DECISIONS;
use lastword_core::op::{Batch, Op};
use lastword_core::plant::{Plant, planted};
use lastword_core::protocol::authority::{Input, PageFrom, PushAnswer};
use lastword_core::protocol::{Attach, Attached, Entry, ReadHistory, ResetReason, Role};
use lastword_core::row::Digest;
use lastword_core::schema::Schema;
use lastword_core::value::Record;
use lastword_store::blobs::Blobs;
use lastword_store::keys::{self, WorkspaceMeta};
use lastword_store::payload::{Attachment, Payload, WorkspaceDeleted};
use lastword_store::read;
use lastword_store::{Store, View};

use crate::adopt;
use crate::collect::{self, CollectOptions, Collected};
use crate::devices;
use crate::environment::{now_ms, random};
use crate::erase::{self, Erased};
use crate::error::{Error, Result};
use crate::file_row;
use crate::history::{self, RecordHistory};
use crate::judge::House;
use crate::log::{self, LogLine};
use crate::members::{self, MemberChange, MemberList};
use crate::object_stores::ObjectStores;
use crate::open::{self, OpenOptions, OpenedStore};
use crate::owned::{self, OwnedFields};
use crate::push_gate::{PushGate, Queued};
use crate::push_policy::{PushPolicy, PushRequest, PushRuling};
use crate::quota::FileQuota;
use crate::seen::{self, Seen};
use crate::survivors::{self, Offered, Survivor};
use crate::upkeep::Keep;
use crate::upload_policy::{self, UploadPolicy, UploadRequest};
use crate::versions;
use crate::view::WorkspaceView;
use crate::writer::Writer;

/// Called with the new view whenever something was published.
type Listeners = Arc<Mutex<Vec<Box<dyn Fn(&Arc<View>) + Send>>>>;

/// A store in the role of the authority. Cheap to clone; all clones are the same store. The last
/// clone that goes closes it.
#[derive(Clone)]
pub struct Authority {
    inner: Arc<Inner>,
}

struct Inner {
    opened: OpenedStore,
    writer: Arc<Writer>,
    listeners: Listeners,
    /// What a new workspace gets.
    schema: Mutex<Option<Arc<Schema>>>,
    /// Who may do what; without it everybody owns everything. The writer replaces and reads it, so
    /// no batch or new workspace meets an older one than the rows.
    members: Arc<Mutex<Option<Arc<MemberList>>>>,
    /// How many live records a workspace may have; [`NO_LIMIT`] by default.
    max_records: Arc<AtomicU64>,
    policy: Arc<Mutex<Option<Arc<PushPolicy>>>>,
    files: Arc<FileQuota>,
    /// Batches that came to be decided since it was opened: transfers give way to them.
    records: Arc<AtomicU64>,
    uploads: Mutex<Option<Arc<UploadPolicy>>>,
    objects: Arc<ObjectStores>,
}

/// As many records as anybody wants.
const NO_LIMIT: u64 = u64::MAX;

impl Authority {
    /// Opens or creates the authority's store in `dir`. Blocks until it is recovered.
    ///
    /// # Errors
    /// [`Error::Store`] if the directory is locked, damaged, of a newer format or not ours,
    /// [`Error::OtherRole`] if it holds a device's copy.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, Keep::default())
    }

    /// As [`Authority::open`]; what is gone is kept as long as `keep` says.
    ///
    /// # Errors
    /// As [`Authority::open`].
    pub fn open_with(dir: &Path, keep: Keep) -> Result<Self> {
        let (opened, store) = open::open(dir, &OpenOptions::authority(keep))?;
        let listeners: Listeners = Arc::default();
        let told = Arc::clone(&listeners);
        let writer = Writer::start(
            store,
            &opened.upkeep,
            "authority",
            Box::new(move |view| {
                let listeners = told.lock().unwrap_or_else(PoisonError::into_inner);
                listeners.iter().for_each(|listener| listener(view));
            }),
        )?;
        Ok(Self::over(opened, writer, listeners))
    }

    /// The authority of a store that `writer` changes.
    pub(crate) fn over(opened: OpenedStore, writer: Writer, listeners: Listeners) -> Self {
        let (schema, members, policy, files, uploads) = Default::default();
        let inner = Inner {
            opened,
            writer: Arc::new(writer),
            listeners,
            schema,
            members,
            max_records: Arc::new(AtomicU64::new(NO_LIMIT)),
            policy,
            files,
            records: Arc::default(),
            uploads,
            objects: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Gives every workspace this schema, those to come too; a workspace keeps it from then on,
    /// also if the authority is opened again without. Call it before devices attach: one that is
    /// attached hears of it when it attaches again. Blocks until it is durable.
    ///
    /// # Errors
    /// [`Error::Schema`] names the workspace, the table and the rule if a workspace cannot have it;
    /// then no workspace does. [`Error::Store`] if the disk fails.
    pub fn adopt(&self, schema: Schema) -> Result<()> {
        if schema.table(&file_row::table()).is_some() && !file_row::says_storage(&schema) {
            tracing::warn!(
                "the schema does not give storage_id and storage_provider_id of file_meta to the \
                 server (server_owned): nobody hears which files it has"
            );
        }
        let schema = Arc::new(schema);
        let adopted = Arc::clone(&schema);
        self.inner.writer.run(move |store| adopt::adopt_now(store, &adopted))?;
        *self.inner.schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(schema);
        Ok(())
    }

    /// From here on no batch is accepted that leaves a workspace with more live records than this,
    /// product tables left out; one that adds none is. It is not stored.
    pub fn limit_records(&self, max_records: u64) {
        self.inner.max_records.store(max_records, Ordering::SeqCst);
    }

    /// From here on `policy` is asked about each batch before it is decided, in its turn: what it
    /// refuses is refused with its message, and a batch that it puts off, or on which it panics, is
    /// not decided. It is called on the writer thread, so it must answer at once; whoever needs a
    /// network for it answers from what is known and puts off what is not.
    pub fn rule_pushes(
        &self,
        policy: impl Fn(&PushRequest<'_>) -> PushRuling + Send + Sync + 'static,
    ) {
        let mut known = self.inner.policy.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::new(policy));
    }

    /// From here on no file longer than `max_file_bytes` is taken, and none that the files of its
    /// workspace, `max_bytes` together, leave no room for. It is not stored.
    pub fn limit_files(&self, max_file_bytes: u64, max_bytes: u64) {
        self.inner.files.limit(max_file_bytes, max_bytes);
    }

    /// From here on `policy` is asked about each file before any byte of it comes; what it says
    /// instead of agreeing is the error of the transfer. It is called on the thread of a
    /// connection.
    pub fn rule_uploads(
        &self,
        policy: impl Fn(&UploadRequest<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) {
        let mut known = self.inner.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Arc::new(policy));
    }

    /// Collects garbage among the files of a workspace once, as [`crate::Files::collect`] does on a
    /// device. A file stays as long as a record, a tombstone or a version that is kept names it.
    /// Blocks until it has ended.
    ///
    /// # Errors
    /// As [`crate::Files::collect`].
    pub fn collect(&self, workspace: &WorkspaceName, options: CollectOptions) -> Result<Collected> {
        let stores = (self.objects(), self.file_quota());
        collect::collect_all(&self.blobs()?, self.writer(), workspace, stores, options, now_ms())
    }

    /// The role of a user in a workspace that is there.
    pub(crate) fn member(&self, workspace: &WorkspaceName, user: &str) -> Result<Role> {
        let view = self.view();
        let role = self.role(&view, workspace, user)?;
        let is_there = !workspace.is_reserved() && read::meta(&*view, workspace)?.epoch.is_some();
        let is_there = is_there && read::deleted_ms(&*view, workspace)?.is_none();
        // A stranger learns nothing about what there is.
        role.filter(|_| is_there)
            .ok_or_else(|| Error::NoMember { workspace: workspace.clone(), user: user.to_owned() })
    }

    /// Whether a user may write in a workspace that is there, asked on the writer thread.
    pub(crate) fn may_write(
        &self,
        workspace: WorkspaceName,
        user: String,
    ) -> impl FnOnce(&Store) -> Result<()> + Send + 'static {
        let members = Arc::clone(&self.inner.members);
        move |store| {
            let newest = store.newest();
            let role = members::role(newest, listed(&members).as_deref(), &workspace, &user)?;
            let is_deleted = read::deleted_ms(newest, &workspace)?.is_some();
            match role {
                Some(Role::Owner | Role::Editor) if !is_deleted => Ok(()),
                _ => Err(Error::NoMember { workspace, user }),
            }
        }
    }

    pub(crate) fn may_upload(&self, request: &UploadRequest<'_>) -> Result<()> {
        let policy = self.inner.uploads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        policy.map_or(Ok(()), |policy| upload_policy::ruled(&*policy, request))
    }

    pub(crate) fn records(&self) -> &Arc<AtomicU64> {
        &self.inner.records
    }

    pub(crate) fn objects(&self) -> &Arc<ObjectStores> {
        &self.inner.objects
    }

    pub(crate) fn file_quota(&self) -> &Arc<FileQuota> {
        &self.inner.files
    }

    pub(crate) fn blobs(&self) -> Result<Arc<Blobs>> {
        self.inner.opened.blobs.upgrade().ok_or(Error::Closed)
    }

    /// True if any workspace has a schema.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a row is damaged.
    pub fn has_schema(&self) -> Result<bool> {
        let view = self.view();
        for (workspace, _) in read::workspaces(&*view)? {
            if read::schema(&*view, &workspace)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// From here on these are the members, and nobody else; before it is called everybody owns
    /// every workspace. Rows of `_members` say so in each workspace. Batches that wait are decided
    /// as the role of their user is when their turn comes. Blocks until it is durable, and returns
    /// what changed.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn admit(&self, list: MemberList) -> Result<Vec<MemberChange>> {
        let members = Arc::clone(&self.inner.members);
        self.inner.writer.run(move |store| {
            let changes = members::admit_now(store, &list, now_ms())?;
            *members.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(list));
            Ok(changes)
        })
    }

    /// As [`Authority::admit`], where the rows say it already.
    pub(crate) fn admitted(&self, list: MemberList) {
        *self.inner.members.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(list));
    }

    /// The role of a user in a workspace, as `view` has it; none for a stranger, whether it exists
    /// or not.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or the row is damaged.
    pub fn role(&self, view: &View, workspace: &WorkspaceName, user: &str) -> Result<Option<Role>> {
        let list = listed(&self.inner.members);
        members::role(view, list.as_deref(), workspace, user)
    }

    /// What ends an attachment whose user was told of the role `told`, if that is not so any more.
    ///
    /// # Errors
    /// As [`Authority::role`].
    pub fn ended(
        &self,
        workspace: &WorkspaceName,
        user: &str,
        attachment: u64,
        told: Role,
    ) -> Result<Option<Input>> {
        let list = listed(&self.inner.members);
        members::ended(&*self.view(), list.as_deref(), workspace, user, (attachment, told))
    }

    /// A page for an attachment, if its user is a member in the view that it is read from; else
    /// what ends the attachment.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a row is damaged.
    pub fn page(
        &self,
        view: &View,
        workspace: &WorkspaceName,
        user: &str,
        attachment: u64,
        from: PageFrom,
    ) -> Result<Input> {
        let list = listed(&self.inner.members);
        members::page(view, list.as_deref(), workspace, user, (attachment, from))
    }

    /// The schema of a workspace; none if it takes any table.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or the row is damaged.
    pub fn schema(&self, workspace: &WorkspaceName) -> Result<Option<Schema>> {
        Ok(read::schema(&*self.view(), workspace)?)
    }

    pub(crate) fn writer(&self) -> &Arc<Writer> {
        &self.inner.writer
    }

    /// The directory that it was opened in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.opened.dir
    }

    /// The last published view.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.inner.writer.view()
    }

    /// Calls `listener` on the writer thread after every group that was published; it must not
    /// block.
    pub fn on_publish(&self, listener: impl Fn(&Arc<View>) + Send + 'static) {
        let mut listeners = self.inner.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Box::new(listener));
    }

    /// What a device needs to know when it attaches; makes the workspace if `create` is set.
    /// `done` is called on the writer thread.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`] if it does not exist and `create` is not set,
    /// [`Error::NoMember`] if the user has no role in it, [`Error::ForeignDevice`] if the device
    /// belongs to another one.
    pub fn attach(
        &self,
        workspace: WorkspaceName,
        attach: AttachRequest,
        done: impl FnOnce(Result<Attached>) + Send + 'static,
    ) -> Result<()> {
        let schema = self.inner.schema.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let members = Arc::clone(&self.inner.members);
        let job = move |store: &mut _| {
            let (schema, members) = (schema.as_deref(), listed(&members));
            let given = Given { epoch: Epoch(random()), schema, members: members.as_deref() };
            attach_now(store, &workspace, &attach, &given, now_ms())
        };
        self.inner.writer.submit(0, job, done)
    }

    /// Decides one batch of `user`, unless `gate` was closed before. `done` is called on the writer
    /// thread once the decision is durable; it must not block. Waits while too much is queued.
    ///
    /// # Errors
    /// [`Error::Closed`] if the authority is closed; then `done` is not called.
    pub fn decide(
        &self,
        workspace: WorkspaceName,
        user: String,
        batch: Batch,
        gate: PushGate,
        done: impl FnOnce(Result<PushAnswer>) + Send + 'static,
    ) -> Result<()> {
        let bytes = batch.ops.iter().map(Op::size_bytes).sum();
        self.inner.records.fetch_add(1, Ordering::Relaxed);
        let queued = Queued::new(user, batch, gate);
        let members = Arc::clone(&self.inner.members);
        let max_records = Arc::clone(&self.inner.max_records);
        let policy = Arc::clone(&self.inner.policy);
        let job = move |store: &mut _| {
            let max = Some(max_records.load(Ordering::SeqCst)).filter(|max| *max != NO_LIMIT);
            let members = listed(&members);
            let policy = policy.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let house =
                House { members: members.as_deref(), max_records: max, policy: policy.as_deref() };
            queued.decide(store, &workspace, &house, now_ms())
        };
        self.inner.writer.submit(bytes, job, done)
    }

    /// Deletes a workspace, for everybody and for good: nobody is served it from here on, and its
    /// name is not given to another one. Devices keep what they have and stop to sync it. Its rows
    /// are purged; what the log has of them goes as history does. Answers how many live records it
    /// had. Blocks until it is durable.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`], [`Error::WorkspaceDeleted`] if it was deleted before,
    /// [`Error::Store`] if the disk fails.
    pub fn delete_workspace(&self, workspace: &WorkspaceName) -> Result<u64> {
        let workspace = workspace.clone();
        self.inner.writer.run(move |store| delete_now(store, workspace, now_ms()))
    }

    /// Erases a record, live or deleted: it becomes a tombstone without a value, and no version of
    /// it stays readable here or on a device that syncs. Its bytes leave the files of this store
    /// within [`Keep::erased`], those of a device within a day of its next sync, and never those
    /// of a backup made before. Blocks until it is durable.
    ///
    /// # Errors
    /// [`Error::UnknownRecord`] if there is no such record, [`Error::Store`] if the disk fails.
    pub fn erase(&self, workspace: &WorkspaceName, table: &TableName, key: &Key) -> Result<Erased> {
        let (workspace, table, key) = (workspace.clone(), table.clone(), key.clone());
        self.inner
            .writer
            .run(move |store| erase::erase_now(store, &workspace, (&table, &key), now_ms()))
    }

    /// Keeps rows that this store lost when it was restored and that user's device still has,
    /// beside its rows, for 30 days, if the user may write. `done` is called on the writer thread
    /// once that is durable.
    ///
    /// # Errors
    /// [`Error::Closed`] if the authority is closed; then `done` is not called.
    pub fn keep_survivors(
        &self,
        workspace: WorkspaceName,
        (user, device): (String, DeviceId),
        entries: Vec<Entry>,
        done: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        let bytes = entries.iter().map(|Entry::Row { row, .. }| row.size_bytes()).sum();
        let offered = Offered { user, device, entries };
        let members = Arc::clone(&self.inner.members);
        let job = move |store: &mut _| {
            survivors::keep(store, &workspace, offered, listed(&members).as_deref(), now_ms())
        };
        self.inner.writer.submit(bytes, job, done)
    }

    /// What devices brought back of what a workspace lost when it was restored, by the names of the
    /// records, and what [`Authority::recover`] would do with each.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`]; [`Error::Store`] if the disk fails or a row is damaged.
    pub fn survivors(&self, workspace: &WorkspaceName) -> Result<Vec<Survivor>> {
        survivors::plan(&*self.view(), workspace)
    }

    /// Writes back what [`Authority::survivors`] shows, as ordinary changes that reach every
    /// device; nothing that was written since the restore is overwritten. Answers what was done
    /// with each record. Blocks until it is durable; after a failure in between it can be called
    /// again.
    ///
    /// # Errors
    /// [`Error::UnknownWorkspace`]; [`Error::Store`] if the disk fails or a row is damaged.
    pub fn recover(&self, workspace: &WorkspaceName) -> Result<Vec<Survivor>> {
        let (planned, mut at, mut all) = (Arc::new(self.survivors(workspace)?), 0, Vec::new());
        while at < planned.len() {
            let (workspace, planned) = (workspace.clone(), Arc::clone(&planned));
            let (looked_at, done) = self.inner.writer.run(move |store| {
                let left = planned.get(at..).unwrap_or_default();
                let batch_id = BatchId(random());
                let recovered =
                    survivors::recover_some(store, &workspace, left, batch_id, now_ms())?;
                // Of the files among them those whose bytes are here.
                let keys = survivors::files_of(&recovered.1);
                owned::set_stored_of(store, &workspace, &keys, now_ms());
                Ok(recovered)
            })?;
            at += looked_at;
            all.extend(done);
        }
        Ok(all)
    }

    /// Sets and removes fields of a live record that the schema names as server-owned. It reaches
    /// every device that sees the record. It is nobody's edit: no op becomes stale by it, and who
    /// wrote the record last stays. Answers its seq, or that of the record if nothing changes.
    /// Blocks until it is durable.
    ///
    /// # Errors
    /// [`Error::UnknownRecord`] if there is no such live record, [`Error::NotServerOwned`] names a
    /// field that is not the server's, [`Error::Value`] if the record would be too large,
    /// [`Error::Store`] if the disk fails.
    pub fn set_owned(
        &self,
        workspace: &WorkspaceName,
        table: &TableName,
        key: &Key,
        set: Record,
        remove: Vec<String>,
    ) -> Result<u64> {
        let (workspace, name) = (workspace.clone(), (table.clone(), key.clone()));
        let job = move |store: &mut _| {
            owned::set_now(store, &workspace, &name, OwnedFields { set, remove }, now_ms())
        };
        self.inner.writer.run(job)
    }

    /// The user that a device belongs to, if it ever wrote in the workspace.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or the row is damaged.
    pub fn device_owner(
        &self,
        workspace: &WorkspaceName,
        device: DeviceId,
    ) -> Result<Option<String>> {
        devices::owner(&*self.view(), workspace, device)
    }

    /// State of every workspace.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn status(&self) -> Result<Vec<AuthorityStatus>> {
        let view = self.view();
        let workspaces = read::workspaces(&*view)?;
        let status = |(workspace, meta): (WorkspaceName, keys::WorkspaceMeta)| AuthorityStatus {
            workspace: workspace.as_str().into(),
            epoch: meta.epoch.unwrap_or_default(),
            head: meta.head,
            rows: meta.rows,
            digest: meta.digest,
            deleted_ms: None,
        };
        let mut all: Vec<AuthorityStatus> = Vec::new();
        for (workspace, meta) in workspaces {
            let deleted_ms = read::deleted_ms(&*view, &workspace)?;
            all.push(AuthorityStatus { deleted_ms, ..status((workspace, meta)) });
        }
        Ok(all)
    }

    /// What a device of `user` that has caught up holds of a workspace, if its app keeps no synced
    /// table local. Reads every row.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a row is damaged.
    pub fn seen_by(&self, workspace: &WorkspaceName, user: &str) -> Result<Seen> {
        seen::seen_by(&*self.view(), workspace, user, &[])
    }

    /// A consistent view of one workspace.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails.
    pub fn read(&self, workspace: &WorkspaceName) -> Result<WorkspaceView> {
        WorkspaceView::new(workspace.clone(), self.view(), Arc::default())
    }

    /// At most `limit` frames of the log from position `from`, and where to go on.
    ///
    /// # Errors
    /// [`Error::NoFrame`] if no frame begins at `from`, [`Error::Store`] if the disk fails or a
    /// frame is damaged.
    pub fn log(&self, from: u64, limit: usize) -> Result<(Vec<LogLine>, u64)> {
        log::read(self.inner.writer.views(), from, limit)
    }

    /// Every version of a record that the log holds, newest first.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a frame is damaged.
    pub fn history(
        &self,
        workspace: &WorkspaceName,
        table: &TableName,
        key: &Key,
    ) -> Result<RecordHistory> {
        let stored = self.read(workspace)?.stored(table, key)?;
        history::history(self.inner.writer.views(), stored, table, key)
    }

    /// What a device of `user` is told of a record's versions, as of `view`.
    ///
    /// # Errors
    /// [`Error::Store`] if the disk fails or a frame is damaged.
    pub fn versions(
        &self,
        view: &View,
        workspace: &WorkspaceName,
        user: &str,
        asked: &ReadHistory,
    ) -> Result<Input> {
        let (log, members) = (self.inner.writer.views(), listed(&self.inner.members));
        versions::answer(log, view, members.as_deref(), (workspace, user), asked)
    }

    /// Closes the store cleanly; later calls answer [`Error::Closed`]. Dropping the last clone does
    /// the same but cannot report errors.
    ///
    /// # Errors
    /// [`Error::Store`] if the last sync fails.
    pub fn close(&self) -> Result<()> {
        self.inner.writer.close()
    }
}

fn listed(members: &Mutex<Option<Arc<MemberList>>>) -> Option<Arc<MemberList>> {
    members.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.writer.close() {
            tracing::error!(%error, "the authority did not close cleanly; the log has every batch");
        }
    }
}

/// State of one workspace at the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityStatus {
    /// Its name.
    pub workspace: String,
    /// Epoch of its history.
    pub epoch: Epoch,
    /// Last seq given.
    pub head: u64,
    /// Live records, product tables left out.
    pub rows: u64,
    /// Digest sum of its rows, equal on every device that has caught up and sees all of them; see
    /// [`Authority::seen_by`].
    pub digest: Digest,
    /// When it was deleted, milliseconds since 1970 UTC; none of one that is there.
    pub deleted_ms: Option<u64>,
}

/// What a device says about itself when it attaches.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// Number of the attachment on its connection.
    pub attachment: u64,
    /// The device.
    pub device: DeviceId,
    /// Whose device it is.
    pub user: String,
    /// Last counter whose decision it has stored.
    pub decided: u64,
    /// Epoch of its copy; none before the first attach.
    pub epoch: Option<Epoch>,
    /// Last seq whose page it has stored, or the base of the walk that its copy is begun with.
    pub received_to: u64,
    /// The horizon that it knows.
    pub horizon: u64,
    /// What its copy covers, as it was told last.
    pub cover: [u8; 16],
    /// Make the workspace if it does not exist.
    pub create: bool,
}

impl AttachRequest {
    /// What `device` of `user` asked for; the workspace is made if it does not exist.
    #[must_use]
    pub fn of(attach: &Attach, device: DeviceId, user: String) -> Self {
        let walked = attach.walk.as_ref().filter(|_| !planted(Plant::WalkBehindHorizon));
        Self {
            attachment: attach.attachment,
            device,
            user,
            decided: attach.decided,
            epoch: attach.epoch,
            received_to: attach.received_to.max(walked.map_or(0, |place| place.base)),
            horizon: attach.horizon,
            cover: attach.cover,
            create: true,
        }
    }

    /// Why the device has to take everything anew, if it has to.
    fn reset(&self, epoch: Epoch, meta: &WorkspaceMeta, cover: [u8; 16]) -> Option<ResetReason> {
        let (head, horizon) = (meta.head, meta.horizon);
        let is_other = self.epoch.is_some_and(|known| known != epoch);
        if is_other && !planted(Plant::OtherEpochServed) {
            // A restore goes on above all that it ever gave. Who has seen more comes from a history
            // that has nothing to do with this one: it stops, and loses nothing.
            return (self.received_to <= head).then_some(ResetReason::OtherHistory);
        }
        // Deletes up to the horizon are forgotten. Whoever has nothing yet needs none of them, and
        // neither does a copy that was begun under this horizon.
        let may_lack_deletes = (1..horizon).contains(&self.received_to) && self.horizon != horizon;
        if may_lack_deletes && !planted(Plant::HorizonNotChecked) {
            return Some(ResetReason::BehindHorizon);
        }
        let is_other = self.received_to > 0 && self.cover != cover;
        (is_other && !planted(Plant::CoverNotBound)).then_some(ResetReason::OtherCover)
    }
}

/// Deletes a workspace; answers how many live records it had.
pub(crate) fn delete_now(store: &mut Store, workspace: WorkspaceName, now_ms: i64) -> Result<u64> {
    if read::deleted_ms(store.newest(), &workspace)?.is_some() {
        return Err(Error::WorkspaceDeleted { workspace });
    }
    let meta = read::meta(store.newest(), &workspace)?;
    if meta.epoch.is_none() {
        return Err(Error::UnknownWorkspace { workspace });
    }
    let time_ms = now_ms.max(meta.time_ms);
    let payload = Payload::WorkspaceDeleted(WorkspaceDeleted { workspace, time_ms });
    // It is what makes room.
    store.append_urgent(payload.kind(), &payload.to_bytes())?;
    Ok(meta.rows)
}

/// What a workspace that is made begins with.
pub(crate) struct Given<'a> {
    pub(crate) epoch: Epoch,
    pub(crate) schema: Option<&'a Schema>,
    /// Who may do what; without it everybody owns everything.
    pub(crate) members: Option<&'a MemberList>,
}

fn make(
    store: &mut Store,
    workspace: &WorkspaceName,
    given: &Given<'_>,
    now_ms: i64,
) -> Result<()> {
    let (epoch, role) = (given.epoch, Role::Owner);
    let made = Attachment { workspace: workspace.clone(), epoch, role, horizon: 0 };
    let payload = Payload::Attachment(made);
    store.append(payload.kind(), &payload.to_bytes())?;
    adopt::of_new(store, workspace, given.schema)?;
    if let Some(list) = given.members {
        members::write(store, workspace, list, now_ms)?;
    }
    Ok(())
}

/// What a device needs to know when it attaches; makes the workspace if need be.
pub(crate) fn attach_now(
    store: &mut Store,
    workspace: &WorkspaceName,
    request: &AttachRequest,
    given: &Given<'_>,
    now_ms: i64,
) -> Result<Attached> {
    let role = members::role(store.newest(), given.members, workspace, &request.user)?;
    let Some(role) = role else {
        let (workspace, user) = (workspace.clone(), request.user.clone());
        return Err(Error::NoMember { workspace, user });
    };
    if read::deleted_ms(store.newest(), workspace)?.is_some() {
        return Err(Error::WorkspaceDeleted { workspace: workspace.clone() });
    }
    if read::meta(store.newest(), workspace)?.epoch.is_none() {
        if !request.create {
            return Err(Error::UnknownWorkspace { workspace: workspace.clone() });
        }
        make(store, workspace, given, now_ms)?;
    }
    let newest = store.newest();
    let meta = read::meta(newest, workspace)?;
    let owner = devices::owner(newest, workspace, request.device)?;
    if owner.is_some_and(|owner| owner != request.user) {
        return Err(Error::ForeignDevice { device: request.device });
    }
    let epoch = meta.epoch.expect("invariant: set above");
    let schema = read::schema(newest, workspace)?;
    let cover = schema.as_ref().map_or([0; 16], |schema| schema.cover(&request.user));
    let reset = request.reset(epoch, &meta, cover);
    // Counters of another history say nothing here: the device sends its batches again.
    let limit = if reset == Some(ResetReason::OtherHistory) { 0 } else { MAX_ATTACHED_DECISIONS };
    let decisions =
        read::decisions_after(newest, workspace, request.device, request.decided, limit)?;
    Ok(Attached {
        attachment: request.attachment,
        epoch,
        lineage: read::lineage(newest, workspace)?.0,
        schema: schema.map_or_else(Vec::new, |schema| to_bytes(&schema)),
        head: meta.head,
        horizon: meta.horizon,
        role,
        reset,
        cover,
        last_counter: read::last_counter(newest, workspace, request.device)?,
        decisions,
    })
}
